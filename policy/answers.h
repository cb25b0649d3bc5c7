/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a storage daemon has answered, kept so that the next command need not
 * start one: the filters and their options, and which policies' options the
 * drivers have accepted.  What they have refused is asked again, as is whatever
 * depends on a plugin.
 *
 * The answers depend on the programs, libraries and modules alone, and on
 * where these are looked for.  They are not believed once one of these files
 * has changed, nor are they kept if one is so new that it might change again
 * unseen.
 */
#ifndef WEIR_ANSWERS_H
#define WEIR_ANSWERS_H

#include <sys/types.h>

#include "schema.h"

typedef struct WeirAnswers WeirAnswers;

/*
 * The answers to query-qmp-schema and query-weir-filters; what is not about
 * filters is left out.  Neither is kept.  The caller frees it.
 */
WeirAnswers *weir_answers_new(JsonNode *introspection, JsonNode *capabilities);

/* NULL is fine. */
void weir_answers_free(WeirAnswers *answers);

/* The installed filters: as weir_schema_new(). */
WeirSchema *weir_answers_schema(const WeirAnswers *answers, GError **error);

/* Whether the drivers have accepted options with that digest. */
bool weir_answers_accepted(const WeirAnswers *answers, const char *digest);
void weir_answers_accept(WeirAnswers *answers, const char *digest);

/*
 * What was kept of the answers of @program, as it and its modules are now, or
 * NULL.  The caller frees it.
 */
WeirAnswers *weir_answers_load(const char *program);

/*
 * Keep @answers, if that is possible.
 *
 * @pid: a process that has given the latest of them, and still runs
 * @start_s: when it was started, in seconds since 1970
 */
void weir_answers_save(WeirAnswers *answers, const char *program, pid_t pid,
                       gint64 start_s);

/* As text, and back: NULL if it makes no sense.  The caller frees both. */
char *weir_answers_text(const WeirAnswers *answers);
WeirAnswers *weir_answers_parse(const char *text, gsize length);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirAnswers, weir_answers_free)

#endif
