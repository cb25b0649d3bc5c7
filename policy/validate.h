/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compare a YAML tree with a libcyaml schema and tell all differences, each
 * with its place, what was found and what was expected.
 *
 * libcyaml stops at the first difference and its older versions take "12abc"
 * for a number, so this runs before it.
 */
#ifndef WEIR_VALIDATE_H
#define WEIR_VALIDATE_H

#include <cyaml/cyaml.h>

#include "yamltree.h"

/* Messages "file:line:column: ...". */
typedef struct WeirReport {
    const char *file;       /* that is being read */
    GString *text;          /* lines without the last newline; "" for none */
    unsigned count;         /* of these lines */
} WeirReport;

#define WEIR_REPORT_MAX 50

/*
 * Add a message about @node; control characters in it are escaped.  Behind
 * WEIR_REPORT_MAX of them there is only one that there are more.
 */
void weir_report(WeirReport *report, const WeirYaml *node,
                 const char *format, ...) G_GNUC_PRINTF(3, 4);

/*
 * Compare @node with @schema.
 *
 * @entry: schema of an entry of "filters", whose keys are called filters in
 *     messages; NULL: none
 * @report: takes the differences
 * Returns whether there were none.
 */
bool weir_validate(const WeirYaml *node, const cyaml_schema_value_t *schema,
                   const cyaml_schema_value_t *entry, WeirReport *report);

/*
 * The one of @words (NULL-terminated) that @word was probably meant to be,
 * or NULL.
 */
const char *weir_closest(const char *word, const char *const *words);

#endif
