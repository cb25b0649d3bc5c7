/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "error.h"

GQuark weir_error_quark(void)
{
    return g_quark_from_static_string("weir-error-quark");
}

void weir_set_error(GError **error, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_FAILED, message);
}

char *weir_printable(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text ? text : "-", -1);
    GString *out = g_string_new(NULL);

    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (g_unichar_iscntrl(c)) {
            g_string_append_printf(out, "\\x%02x", c);
        } else {
            g_string_append_unichar(out, c);
        }
    }
    return g_string_free(out, FALSE);
}
