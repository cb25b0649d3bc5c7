/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "${vm}" and the like in the texts of a policy; "$$" is one "$". */
#ifndef WEIR_VARIABLES_H
#define WEIR_VARIABLES_H

#include <stdbool.h>

#include "json.h"

/* Each is a name without '/'. */
typedef struct WeirVariables {
    const char *vm;
    const char *disk;
    const char *host;
    const char *policy;
} WeirVariables;

/* Some that are like others, to check what the texts are with them. */
extern const WeirVariables weir_variables_sample;

/*
 * Whether each '$' of @text begins a variable or "$$".  If not, @found takes
 * what is wrong, which the caller frees.
 */
bool weir_variables_check(const char *text, char **found);

/* Names of the variables, as in "vm, disk". */
char *weir_variables_list(void);

/* @text, which has been checked, with values; the caller frees it. */
char *weir_variables_expand(const char *text, const WeirVariables *values);

/*
 * A copy of @options in which all texts are expanded, those in lists and
 * objects too.  The caller unrefs it.
 */
JsonObject *weir_variables_expand_object(JsonObject *options,
                                         const WeirVariables *values);

#endif
