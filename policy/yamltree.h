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
#define WEIR_YAML_MAX_NODES 10000

typedef enum WeirYamlKind {
    WEIR_YAML_SCALAR,
    WEIR_YAML_SEQUENCE,
    WEIR_YAML_MAPPING,
} WeirYamlKind;

typedef struct WeirYaml WeirYaml;
struct WeirYaml {
    WeirYamlKind kind;
    const char *file;       /* name for messages; interned */
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

/* The same if it is of that kind, else NULL; @mapping may be anything. */
WeirYaml *weir_yaml_member_of(const WeirYaml *mapping, const char *name,
                              WeirYamlKind kind);

/* Whether @node is a value that was left empty. */
bool weir_yaml_is_nothing(const WeirYaml *node);

/* Whether @node is one of the words for true. */
bool weir_yaml_is_true(const WeirYaml *node);

/*
 * Take key @index out of a mapping.  @key (may be NULL: it is freed) and the
 * value that is returned are the caller's.
 */
WeirYaml *weir_yaml_steal(WeirYaml *mapping, guint index, WeirYaml **key);

/* Set a key; both nodes are consumed.  One of that name is replaced. */
void weir_yaml_set(WeirYaml *mapping, WeirYaml *key, WeirYaml *value);

/*
 * The tree as YAML text, which parses to the same tree but for positions.  The
 * caller frees it.
 */
char *weir_yaml_text(const WeirYaml *root, gsize *length);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirYaml, weir_yaml_free)

#endif
