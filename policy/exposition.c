/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "exposition.h"

#include <math.h>
#include <string.h>

struct WeirExposition {
    GString *text;
    const char *family;
    GHashTable *seen;       /* names and labels in the family */
};

WeirExposition *weir_exposition_new(void)
{
    WeirExposition *exposition = g_new0(WeirExposition, 1);

    exposition->text = g_string_new(NULL);
    exposition->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                             NULL);
    return exposition;
}

void weir_exposition_free(WeirExposition *exposition)
{
    if (exposition) {
        g_string_free(exposition->text, TRUE);
        g_hash_table_unref(exposition->seen);
        g_free(exposition);
    }
}

void weir_exposition_family(WeirExposition *exposition, const char *name,
                            const char *type, const char *help)
{
    exposition->family = name;
    g_hash_table_remove_all(exposition->seen);
    g_string_append_printf(exposition->text, "# HELP %s %s\n# TYPE %s %s\n",
                           name, help, name, type);
}

static void exposition_append_value(GString *out, const char *value)
{
    g_autofree char *valid = g_utf8_make_valid(value, -1);

    for (const char *p = valid; *p; p++) {
        if (*p == '\n') {
            g_string_append(out, "\\n");
        } else if (*p == '\\' || *p == '"') {
            g_string_append_c(out, '\\');
            g_string_append_c(out, *p);
        } else {
            g_string_append_c(out, *p);
        }
    }
}

static void exposition_append_number(GString *out, double value)
{
    char buffer[G_ASCII_DTOSTR_BUF_SIZE];

    if (!isfinite(value)) {
        g_string_append(out, isnan(value) ? "NaN" : value > 0 ? "+Inf"
                                                              : "-Inf");
        return;
    }
    g_ascii_formatd(buffer, sizeof(buffer),
                    fabs(value) < 1e15 ? "%.15g" : "%.17g", value);
    g_string_append(out, buffer);
}

void weir_exposition_sample(WeirExposition *exposition, const char *suffix,
                            const char *const *labels, double value)
{
    GString *series = g_string_new(exposition->family);
    char separator = '{';

    g_string_append(series, suffix);
    for (guint i = 0; labels[i]; i += 2) {
        if (labels[i + 1]) {
            g_string_append_printf(series, "%c%s=\"", separator, labels[i]);
            exposition_append_value(series, labels[i + 1]);
            g_string_append_c(series, '"');
            separator = ',';
        }
    }
    if (separator == ',') {
        g_string_append_c(series, '}');
    }
    if (!g_hash_table_contains(exposition->seen, series->str)) {
        g_string_append_printf(exposition->text, "%s ", series->str);
        exposition_append_number(exposition->text, value);
        g_string_append_c(exposition->text, '\n');
        g_hash_table_add(exposition->seen, g_string_free(series, FALSE));
    } else {
        g_string_free(series, TRUE);
    }
}

const char *weir_exposition_text(const WeirExposition *exposition)
{
    return exposition->text->str;
}
