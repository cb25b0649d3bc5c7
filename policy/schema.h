/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The installed filters and their options, from the answer to
 * query-qmp-schema, as a libcyaml schema.
 *
 * Loaded data has one layout for all mappings whose fields come from QMP:
 * member i is a WeirMember at index i.  A pointer that is NULL stands for an
 * option that was not given.
 */
#ifndef WEIR_SCHEMA_H
#define WEIR_SCHEMA_H

#include <cyaml/cyaml.h>

#include "json.h"
#include "kind.h"

/* Filters are the drivers whose name begins so. */
#define WEIR_FILTER_PREFIX "weir-"

typedef struct WeirSchema WeirSchema;

/* A member of a loaded mapping. */
typedef struct WeirMember {
    void *value;            /* as its schema says; NULL: not given */
    uint64_t count;         /* of a sequence: its entries */
} WeirMember;

/* What a filter is for; a disk has at most one of each but WEIR_CLASS_OTHER. */
typedef enum WeirClass {
    WEIR_CLASS_INSPECTION,
    WEIR_CLASS_CACHE,
    WEIR_CLASS_REPLICATION,
    WEIR_CLASS_ENCRYPTION,
    WEIR_CLASS_QOS,
    WEIR_CLASS_COMPRESSION,
    WEIR_CLASS_OTHER,
} WeirClass;

typedef struct WeirFilterType {
    char *driver;
    char *kind;             /* see kind.h */
    char *child;            /* the option that names the filtered node */
    WeirClass class;        /* as which of our own filters it is dealt with;
                               of a plugin WEIR_CLASS_OTHER */
    WeirClass purpose;      /* what it says that it is for */
    bool changes_data;      /* the node below has other data than it shows */
    bool holds_data;        /* the node below may lack what was written */
    JsonObject *plugin;     /* what query-weir-plugin says of it; NULL: it is
                               no plugin, or that is not known */
    char *problem;          /* why that is not known; NULL */
    cyaml_schema_value_t options;   /* a mapping of WeirMembers */
    GPtrArray *nodes;       /* char *: options that are another node; they are
                               texts in @options, see location.h */
    GPtrArray *unsupported; /* char *: options that a policy cannot express */
} WeirFilterType;

/*
 * Find the filters.
 *
 * @introspection: what query-qmp-schema returned; not kept
 * @capabilities: what query-weir-filters returned; not kept.  Others are no
 *     filters.
 * Returns the schema, which the caller frees with weir_schema_free(), or NULL
 * with @error set if the answer makes no sense or there are no filters.
 */
WeirSchema *weir_schema_new(JsonNode *introspection, JsonNode *capabilities,
                            GError **error);

/* NULL is fine. */
void weir_schema_free(WeirSchema *schema);

/* The filters by name: WeirFilterType, owned by @schema. */
GPtrArray *weir_schema_filters(const WeirSchema *schema);

/*
 * The filter with that driver, owned by @schema, or NULL.  Of plugins it is
 * what all have in common; see weir_schema_find_plugin().
 */
const WeirFilterType *weir_schema_find(const WeirSchema *schema,
                                       const char *driver);

/*
 * What is to be known of a plugin, by its name or the path of its file: the
 * answer to query-weir-plugin, which the caller unrefs; or NULL with @error
 * set.
 */
typedef JsonObject *(*WeirDescribeFn)(void *opaque, const char *plugin,
                                      GError **error);

/* Whom to ask about plugins.  Without it, nothing is known of them. */
void weir_schema_set_describe(WeirSchema *schema, WeirDescribeFn describe,
                              void *opaque);

/*
 * The same filters, but with plugins as somebody else describes them: in a VM
 * that runs, they may be others.  @schema must outlive it.
 */
WeirSchema *weir_schema_view(const WeirSchema *schema, WeirDescribeFn describe,
                             void *opaque);

/*
 * The type of a filter of a policy, or NULL.  That of a plugin is known by
 * asking: it blocks, the first time.  Of one that nobody describes, anything is
 * to be expected.
 *
 * @plugin: its option of that name; NULL: it has none
 * Returns what is owned by @schema, until weir_schema_forget().
 */
const WeirFilterType *weir_schema_find_plugin(const WeirSchema *schema,
                                              const char *driver,
                                              const char *plugin);

/* The same of a filter with those options. */
const WeirFilterType *weir_schema_find_filter(const WeirSchema *schema,
                                              const char *driver,
                                              JsonObject *options);

/* Plugins are to be asked about again: their files may be others by now. */
void weir_schema_forget(const WeirSchema *schema);

/* The types of plugins that are known, by kind; the caller unrefs the array. */
GPtrArray *weir_schema_plugins(const WeirSchema *schema);

/* "cache" and so on. */
const char *weir_class_name(WeirClass class);

/* The same back; one that is not known here is as good as WEIR_CLASS_OTHER. */
WeirClass weir_class_of(const char *name);

/* Schema of an on/off value that is loaded as a pointer to a uint8_t. */
cyaml_schema_value_t weir_schema_bool(void);

/* Whether @value is the on/off type, which libcyaml sees as an enum. */
bool weir_schema_is_bool(const cyaml_schema_value_t *value);

/*
 * Whether @value is a mapping whose keys only the driver knows: names of
 * options, each with a single value.  libcyaml passes over it; it is taken from
 * the YAML tree.  Or whether options have such a member.
 */
bool weir_schema_is_open(const cyaml_schema_value_t *value);
bool weir_schema_has_open(const cyaml_schema_value_t *mapping);

/*
 * Loaded options as the arguments of blockdev-add, but for open ones.
 *
 * @mapping: schema of a mapping of WeirMembers
 * @members: what libcyaml loaded with it; NULL for no options
 * Returns an object that the caller unrefs.
 */
JsonObject *weir_schema_options_json(const cyaml_schema_value_t *mapping,
                                     const WeirMember *members);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirSchema, weir_schema_free)

#endif
