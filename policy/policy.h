/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Storage policies and the files they are in. */
#ifndef WEIR_POLICY_H
#define WEIR_POLICY_H

#include "limit.h"
#include "runmode.h"
#include "schema.h"
#include "storage.h"

#define WEIR_POLICY_DIR "/etc/weir/policies.d"
#define WEIR_POLICY_SUFFIX ".yaml"
#define WEIR_POLICY_MAX_NAME 64
#define WEIR_VM_MAX_NAME 64

/* Where in the chain a filter goes. */
typedef enum WeirPlace {
    WEIR_PLACE_STORAGE,     /* between format and storage node */
    WEIR_PLACE_DISK,        /* above the format node */
} WeirPlace;

typedef struct WeirPolicyFilter {
    char *driver;
    char *kind;             /* see kind.h */
    WeirClass class;
    bool changes_data;      /* the node below has other data */
    bool holds_data;        /* what was written may only be in it */
    char *child;            /* the option that names the filtered node */
    WeirPlace place;
    JsonObject *options;    /* as the file has them: variables are in them, and
                               nodes and secrets are places, see plan.h */
    char **nodes;           /* options that are places of nodes; NULL at end */
    const char *file;       /* that has the entry; interned */
    unsigned line, column;  /* of the entry in it, from 1 */
} WeirPolicyFilter;

typedef struct WeirPolicy {
    char *name;
    char *description;      /* NULL: none */
    guint64 version;
    bool before_encryption; /* other filters may be above encryption */
    bool is_component;      /* no disk can have it, only policies */
    char *inherit;          /* the policy that it inherits from; NULL: none */
    WeirStorage *storage;   /* NULL: any will do */
    WeirRunMode run;
    WeirOnError on_error;
    char *file;
    WeirLimits limits;
    GPtrArray *filters;     /* WeirPolicyFilter, from the guest downwards;
                               those of other files are among them */
} WeirPolicy;

/* Where the texts of other policies and of components come from. */
typedef struct WeirPolicySource {
    /*
     * The text of the one called @name.  @length and @file (the name of its
     * file) are set.  Both texts are the caller's.  NULL with @error set: it
     * cannot be read.
     */
    char *(*read)(void *opaque, const char *name, gsize *length, char **file,
                  GError **error);
    void *opaque;
} WeirPolicySource;

/*
 * Parse a policy.
 *
 * @data, @length: the text; may come from anybody
 * @file: its name for messages, kept in the policy
 * @check_name: whether the policy's name must be that of the file
 * @source: of policies that it inherits from and of components; NULL: there
 *     are none
 * @schema: the installed filters
 * Returns the policy, which the caller frees with weir_policy_free(), or NULL
 * with @error set to WEIR_ERROR_POSITION: one line for each thing wrong.
 */
WeirPolicy *weir_policy_parse(const char *data, gsize length,
                              const char *file, bool check_name,
                              const WeirPolicySource *source,
                              const WeirSchema *schema, GError **error);

/*
 * Read and parse @file, a policy or component.  @dirs: where to look for
 * others; NULL: in that of the file.  As weir_policy_parse().
 */
WeirPolicy *weir_policy_load(const char *file, char *const *dirs,
                             const WeirSchema *schema, GError **error);

/* NULL is fine. */
void weir_policy_free(WeirPolicy *policy);

/* The name that the policy in @file has, to be freed, or NULL. */
char *weir_policy_file_name(const char *file);

/*
 * The text of a file, at most one byte more than weir_yaml_parse() takes; to
 * be freed.  NULL with @error set if it cannot be read.
 */
char *weir_policy_read(const char *file, gsize *length, GError **error);

/*
 * The file of the policy or component called @name, to be freed.  NULL with
 * @error set as by weir_policy_find().
 */
char *weir_policy_file(char *const *dirs, const char *name, GError **error);

/*
 * The files of all policies.
 *
 * @dirs: directories, NULL-terminated
 * Returns their names, sorted within each directory, which the caller unrefs;
 * or NULL with @error set if a directory cannot be read.
 */
GPtrArray *weir_policy_files(char *const *dirs, GError **error);

/*
 * Load the policy called @name from the one of @dirs that has it.  Returns
 * NULL with @error set to WEIR_ERROR_NOT_FOUND if none has it, to
 * WEIR_ERROR_FAILED if several have it or it is a component, or as
 * weir_policy_load().
 */
WeirPolicy *weir_policy_find(char *const *dirs, const char *name,
                             const WeirSchema *schema, GError **error);

/*
 * Whether @name can be that of a policy, disk or VM: letters, digits and
 * "._-", at most @max characters, the first a letter or digit.
 */
bool weir_name_ok(const char *name, gsize max);

#define WEIR_NAME_EXPECTED \
    "up to %d letters, digits, '.', '_' and '-', the first a letter or digit"

/* "disk" or "storage". */
const char *weir_place_name(WeirPlace place);

/*
 * A JSON schema (draft 2020-12) of policies and components, for editors.  It
 * knows what a single file can tell, but not the order of filters or what
 * only a driver knows.  The caller unrefs it.
 */
JsonObject *weir_policy_schema(const WeirSchema *installed);

/* The policy as a JSON object that the caller unrefs. */
JsonObject *weir_policy_json(const WeirPolicy *policy);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirPolicy, weir_policy_free)

#endif
