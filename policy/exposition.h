/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Prometheus' text exposition format, version 0.0.4. */
#ifndef WEIR_EXPOSITION_H
#define WEIR_EXPOSITION_H

#include <glib.h>

#define WEIR_EXPOSITION_TYPE "text/plain; version=0.0.4; charset=utf-8"

typedef struct WeirExposition WeirExposition;

/* An empty text; freed with weir_exposition_free(). */
WeirExposition *weir_exposition_new(void);
void weir_exposition_free(WeirExposition *exposition);

/*
 * Begin a family; the samples that follow are of it.
 *
 * @name, @type, @help: static strings
 */
void weir_exposition_family(WeirExposition *exposition, const char *name,
                            const char *type, const char *help);

/*
 * Add a sample, unless there is one with the same labels: Prometheus refuses
 * all of a text with such.
 *
 * @suffix: of the family's name: "", or "_bucket" and so on
 * @labels: names and values in turn, NULL at the end; values may have anything
 *     in them, and a label whose value is NULL is left out
 */
void weir_exposition_sample(WeirExposition *exposition, const char *suffix,
                            const char *const *labels, double value);

/* The text so far, owned by @exposition. */
const char *weir_exposition_text(const WeirExposition *exposition);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirExposition, weir_exposition_free)

#endif
