/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "edit.h"

#include <string.h>

/* Replacements in a text, which must not overlap. */
typedef struct Edit {
    WeirSpan span;
    char *text;
} Edit;

static void edit_free(Edit *edit)
{
    g_free(edit->text);
    g_free(edit);
}

GPtrArray *weir_edits_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)edit_free);
}

/* @text is consumed. */
void weir_edits_add(GPtrArray *edits, gsize begin, gsize end, char *text)
{
    Edit *edit = g_new0(Edit, 1);

    edit->span.begin = begin;
    edit->span.end = end;
    edit->text = text;
    g_ptr_array_add(edits, edit);
}

static gint edits_compare(gconstpointer a, gconstpointer b)
{
    const Edit *const *left = a;
    const Edit *const *right = b;

    return (*left)->span.begin < (*right)->span.begin ? -1 :
           (*left)->span.begin > (*right)->span.begin;
}

char *weir_edits_apply(GPtrArray *edits, const char *text, gsize length)
{
    GString *out = g_string_sized_new(length + 1024);
    gsize done = 0;

    g_ptr_array_sort(edits, edits_compare);
    for (guint i = 0; i < edits->len; i++) {
        const Edit *edit = g_ptr_array_index(edits, i);

        g_string_append_len(out, text + done,
                            (gssize)(edit->span.begin - done));
        g_string_append(out, edit->text);
        done = edit->span.end;
    }
    g_string_append_len(out, text + done, (gssize)(length - done));
    return g_string_free(out, FALSE);
}

/* --- pieces of text --- */

/* @text as the value of an attribute, of which each byte is read back. */
void weir_xml_append_attribute(GString *out, const char *name, const char *text)
{
    g_string_append_printf(out, " %s=\"", name);
    for (; *text; text++) {
        if (strchr("&<>\"'\t\r\n", *text)) {
            g_string_append_printf(out, "&#%d;", *text);
        } else {
            g_string_append_c(out, *text);
        }
    }
    g_string_append_c(out, '"');
}

char *weir_span_text(const WeirDomain *domain, gsize begin, gsize end)
{
    return g_strndup(domain->text + begin, end - begin);
}

/* The white space that begins at @begin. */
char *weir_blanks_at(const WeirDomain *domain, gsize begin)
{
    return g_strndup(domain->text + begin,
                     strspn(domain->text + begin, WEIR_XML_BLANKS));
}

/* Where the white space begins that ends at @end. */
gsize weir_blanks_before(const WeirDomain *domain, gsize end)
{
    while (end > 0 && strchr(WEIR_XML_BLANKS, domain->text[end - 1])) {
        end--;
    }
    return end;
}

/* One level deeper than @blanks, if that is an indent at all. */
char *weir_blanks_deeper(const char *blanks)
{
    return g_strconcat(blanks, strchr(blanks, '\n') ? "  " : "", NULL);
}
