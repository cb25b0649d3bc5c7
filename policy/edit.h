/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The text of a domain, edited in place. */
#ifndef WEIR_EDIT_H
#define WEIR_EDIT_H

#include "domain.h"

#define WEIR_XML_BLANKS " \t\r\n"

/* Replacements in a text, which must not overlap; the caller unrefs them. */
GPtrArray *weir_edits_new(void);

/* Add one.  @text is consumed. */
void weir_edits_add(GPtrArray *edits, gsize begin, gsize end, char *text);

/* The text with all of them done, to be freed. */
char *weir_edits_apply(GPtrArray *edits, const char *text, gsize length);

/* Append @text as the value of an attribute; each byte of it is read back. */
void weir_xml_append_attribute(GString *out, const char *name,
                               const char *text);

/* A part of the domain's text, to be freed. */
char *weir_span_text(const WeirDomain *domain, gsize begin, gsize end);

/* The white space that begins at @begin, to be freed. */
char *weir_blanks_at(const WeirDomain *domain, gsize begin);

/* Where the white space begins that ends at @end. */
gsize weir_blanks_before(const WeirDomain *domain, gsize end);

/* One level deeper than @blanks, if that is an indent at all; to be freed. */
char *weir_blanks_deeper(const char *blanks);

#endif
