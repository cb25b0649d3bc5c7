/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where things are in a YAML text.
 *
 * libcyaml gives typed data, but its messages only tell the place of what
 * comes before a key that it refuses, and none for a syntax error.  This is
 * a plain tree of the same text with the position of each value and key, made
 * with libyaml, on which libcyaml stands too.  What policies have no use for
 * and an attacker has (aliases, tags, several documents, deep nesting, huge
 * files) is refused here, before libcyaml sees the text.
 */
#ifndef WEIR_YAMLTREE_H
#define WEIR_YAMLTREE_H

#include <stdbool.h>

#include "error.h"

#define WEIR_YAML_MAX_BYTES (1u << 20)
#define WEIR_YAML_MAX_DEPTH 32

typedef enum WeirYamlKind {
    WEIR_YAML_SCALAR,
    WEIR_YAML_SEQUENCE,
    WEIR_YAML_MAPPING,
} WeirYamlKind;

typedef struct WeirYaml WeirYaml;
struct WeirYaml {
    WeirYamlKind kind;
    unsigned line, column;  /* from 1; the column counts characters */
    char *text;             /* of a scalar */
    bool quoted;            /* of a scalar: not plain */
    GPtrArray *keys;        /* of a mapping: scalars, in order */
    GPtrArray *values;      /* of a mapping or sequence, in order */
};

/*
 * Parse one YAML document.
 *
 * @data, @length: the text, UTF-8
 * @file: its name for messages
 * Returns the root, which the caller frees with weir_yaml_free(), or NULL
 * with @error set to WEIR_ERROR_POSITION.
 */
WeirYaml *weir_yaml_parse(const char *data, gsize length, const char *file,
                          GError **error);

/* NULL is fine. */
void weir_yaml_free(WeirYaml *node);

/* Value of key @name of a mapping, owned by it, or NULL. */
WeirYaml *weir_yaml_member(const WeirYaml *mapping, const char *name);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirYaml, weir_yaml_free)

#endif
