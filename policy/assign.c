/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "assign.h"

#include <string.h>

#include "validate.h"

#define ASSIGN_DIR "assignments.d"
#define ASSIGN_FILE "weir.yaml"
#define ASSIGN_CHARACTERS \
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-*?"

typedef struct Assignment {
    char *vm;
    char *disk;
    char *policy;
    char *at;
} Assignment;

struct WeirAssignments {
    char *dir;
    char *default_policy;   /* NULL: none */
    char *default_at;
    GPtrArray *list;        /* Assignment */
};

#define ASSIGN_TEXT(name, is_optional) \
    { .key = name, .value = { .type = CYAML_STRING, \
                              .flags = CYAML_FLAG_POINTER | (is_optional), \
                              .string.max = CYAML_UNLIMITED } }

static const cyaml_schema_field_t assign_entry_fields[] = {
    ASSIGN_TEXT("vm", CYAML_FLAG_OPTIONAL),
    ASSIGN_TEXT("disk", CYAML_FLAG_OPTIONAL),
    ASSIGN_TEXT("policy", 0),
    CYAML_FIELD_END
};

static const cyaml_schema_value_t assign_entry = {
    .type = CYAML_MAPPING, .flags = CYAML_FLAG_POINTER,
    .mapping.fields = assign_entry_fields,
};

static const cyaml_schema_field_t assign_fields[] = {
    { .key = "assignments",
      .value = { .type = CYAML_SEQUENCE, .flags = CYAML_FLAG_POINTER,
                 .sequence.entry = &assign_entry,
                 .sequence.max = CYAML_UNLIMITED } },
    CYAML_FIELD_END
};

static const cyaml_schema_value_t assign_root = {
    .type = CYAML_MAPPING, .flags = CYAML_FLAG_POINTER,
    .mapping.fields = assign_fields,
};

static const cyaml_schema_field_t assign_default_fields[] = {
    ASSIGN_TEXT("default-policy", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_END
};

static const cyaml_schema_value_t assign_default_root = {
    .type = CYAML_MAPPING, .flags = CYAML_FLAG_POINTER,
    .mapping.fields = assign_default_fields,
};

static void assign_free(Assignment *assignment)
{
    g_free(assignment->vm);
    g_free(assignment->disk);
    g_free(assignment->policy);
    g_free(assignment->at);
    g_free(assignment);
}

WeirAssignments *weir_assignments_new(const char *config_dir)
{
    WeirAssignments *assignments = g_new0(WeirAssignments, 1);

    assignments->dir = g_strdup(config_dir ? config_dir : WEIR_CONFIG_DIR);
    assignments->list = g_ptr_array_new_with_free_func(
        (GDestroyNotify)assign_free);
    return assignments;
}

void weir_assignments_free(WeirAssignments *assignments)
{
    if (assignments) {
        g_free(assignments->dir);
        g_free(assignments->default_policy);
        g_free(assignments->default_at);
        g_ptr_array_unref(assignments->list);
        g_free(assignments);
    }
}

void weir_choice_clear(WeirChoice *choice)
{
    g_free(choice->policy);
    g_free(choice->at);
    g_free(choice->reason);
}

/* The tree of a text that is as @schema says, or NULL. */
static WeirYaml *assign_parse(const char *data, gsize length, const char *file,
                              const cyaml_schema_value_t *schema,
                              WeirReport *report, GError **error)
{
    g_autoptr(WeirYaml) root = weir_yaml_parse(data, length, file, error);

    if (root && !weir_validate(root, schema, NULL, report)) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            report->text->str);
        return NULL;
    }
    return g_steal_pointer(&root);
}

static void assign_check_policy(const WeirYaml *name, WeirReport *report)
{
    if (!weir_name_ok(name->text, WEIR_POLICY_MAX_NAME)) {
        weir_report(report, name, "found '%s', which cannot be the name of a "
                    "policy, expected " WEIR_NAME_EXPECTED, name->text,
                    WEIR_POLICY_MAX_NAME);
    }
}

/* A pattern of an entry; without one, all names. */
static char *assign_pattern(const WeirYaml *entry, const char *key,
                            WeirReport *report)
{
    const WeirYaml *value = weir_yaml_member(entry, key);

    if (!value) {
        return g_strdup("*");
    }
    if (!*value->text || strlen(value->text) > WEIR_VM_MAX_NAME ||
        value->text[strspn(value->text, ASSIGN_CHARACTERS)]) {
        weir_report(report, value, "found '%s', which no name can match, "
                    "expected up to %d letters, digits, '.', '_', '-', '*' "
                    "and '?' for '%s'", value->text, WEIR_VM_MAX_NAME, key);
    }
    return g_strdup(value->text);
}

static void assign_add_entry(WeirAssignments *assignments,
                             const WeirYaml *entry, WeirReport *report)
{
    const WeirYaml *policy = weir_yaml_member(entry, "policy");
    Assignment *assignment = g_new0(Assignment, 1);

    assignment->vm = assign_pattern(entry, "vm", report);
    assignment->disk = assign_pattern(entry, "disk", report);
    assignment->policy = g_strdup(policy->text);
    assignment->at = g_strdup_printf("%s:%u:%u", entry->file, entry->line,
                                     entry->column);
    assign_check_policy(policy, report);
    g_ptr_array_add(assignments->list, assignment);
}

/* Make what is in @report the error. */
static bool assign_result(const WeirReport *report, GError **error)
{
    if (report->text->len > 0) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            report->text->str);
        return false;
    }
    return true;
}

bool weir_assignments_add(WeirAssignments *assignments, const char *data,
                          gsize length, const char *file, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    WeirReport report = { .file = file, .text = text };
    g_autoptr(WeirYaml) root = assign_parse(data, length, file, &assign_root,
                                            &report, error);
    const WeirYaml *list;

    if (!root) {
        return false;
    }
    list = weir_yaml_member(root, "assignments");
    for (guint i = 0; i < list->values->len; i++) {
        assign_add_entry(assignments, g_ptr_array_index(list->values, i),
                         &report);
    }
    return assign_result(&report, error);
}

bool weir_assignments_set_default(WeirAssignments *assignments,
                                  const char *data, gsize length,
                                  const char *file, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    WeirReport report = { .file = file, .text = text };
    g_autoptr(WeirYaml) root = assign_parse(data, length, file,
                                            &assign_default_root, &report,
                                            error);
    const WeirYaml *name = root ? weir_yaml_member(root, "default-policy")
                                : NULL;

    if (!name) {
        return root != NULL;
    }
    assign_check_policy(name, &report);
    g_free(assignments->default_policy);
    g_free(assignments->default_at);
    assignments->default_policy = g_strdup(name->text);
    assignments->default_at = g_strdup_printf("%s:%u:%u", file, name->line,
                                              name->column);
    return assign_result(&report, error);
}

static bool assign_load_file(WeirAssignments *assignments, const char *file,
                             bool is_default, GError **error)
{
    gsize length;
    g_autofree char *data = weir_policy_read(file, &length, error);

    if (!data) {
        return false;
    }
    return is_default
        ? weir_assignments_set_default(assignments, data, length, file, error)
        : weir_assignments_add(assignments, data, length, file, error);
}

static bool assign_load(WeirAssignments *assignments, GError **error)
{
    g_autofree char *dir = g_build_filename(assignments->dir, ASSIGN_DIR,
                                            NULL);
    g_autofree char *file = g_build_filename(assignments->dir, ASSIGN_FILE,
                                             NULL);
    char *const dirs[] = { dir, NULL };
    g_autoptr(GPtrArray) files = NULL;

    if (g_file_test(file, G_FILE_TEST_EXISTS) &&
        !assign_load_file(assignments, file, true, error)) {
        return false;
    }
    if (!g_file_test(dir, G_FILE_TEST_EXISTS)) {
        return true;
    }
    files = weir_policy_files(dirs, error);
    for (guint i = 0; files && i < files->len; i++) {
        if (!assign_load_file(assignments, g_ptr_array_index(files, i), false,
                              error)) {
            return false;
        }
    }
    return files != NULL;
}

WeirAssignments *weir_assignments_load(const char *config_dir, GError **error)
{
    g_autoptr(WeirAssignments) assignments = weir_assignments_new(config_dir);

    return assign_load(assignments, error) ? g_steal_pointer(&assignments)
                                           : NULL;
}

/* How specific a pattern is: more is more. */
static int assign_rank(const char *pattern)
{
    int literals = 0;
    int questions = 0;
    int stars = 0;

    for (; *pattern; pattern++) {
        stars += *pattern == '*';
        questions += *pattern == '?';
        literals += *pattern != '*' && *pattern != '?';
    }
    return stars + questions == 0 ? G_MAXINT
                                  : literals * (WEIR_VM_MAX_NAME + 1) +
                                    questions;
}

/* Above 0: @a is more specific than @b. */
static int assign_compare(const Assignment *a, const Assignment *b)
{
    int vm_a = assign_rank(a->vm);
    int vm_b = assign_rank(b->vm);
    int disk_a = assign_rank(a->disk);
    int disk_b = assign_rank(b->disk);

    return vm_a != vm_b ? (vm_a > vm_b) - (vm_a < vm_b)
                        : (disk_a > disk_b) - (disk_a < disk_b);
}

/* The most specific one that matches, or NULL; @rival takes an equal one. */
static const Assignment *assign_best(const WeirAssignments *assignments,
                                     const char *vm, const char *disk,
                                     const Assignment **rival)
{
    const Assignment *best = NULL;

    *rival = NULL;
    for (guint i = 0; i < assignments->list->len; i++) {
        const Assignment *assignment = g_ptr_array_index(assignments->list, i);
        int order;

        if (!g_pattern_match_simple(assignment->vm, vm) ||
            !g_pattern_match_simple(assignment->disk, disk)) {
            continue;
        }
        order = best ? assign_compare(assignment, best) : 1;
        if (order > 0) {
            best = assignment;
            *rival = NULL;
        } else if (order == 0) {
            *rival = assignment;
        }
    }
    return best;
}

static void assign_choose_default(const WeirAssignments *assignments,
                                  const char *vm, const char *disk,
                                  WeirChoice *choice)
{
    if (!assignments->default_policy) {
        choice->reason = g_strdup_printf(
            "no assignment in %s/%s is for disk %s of VM %s, and %s/%s has no "
            "default-policy", assignments->dir, ASSIGN_DIR, disk, vm,
            assignments->dir, ASSIGN_FILE);
        return;
    }
    choice->policy = g_strdup(assignments->default_policy);
    choice->at = g_strdup(assignments->default_at);
    choice->is_default = true;
    choice->reason = g_strdup_printf("default policy (%s)", choice->at);
}

bool weir_assignments_choose(const WeirAssignments *assignments,
                             const char *vm, const char *disk,
                             WeirChoice *choice, GError **error)
{
    const Assignment *rival;
    const Assignment *best = assign_best(assignments, vm, disk, &rival);

    memset(choice, 0, sizeof(*choice));
    if (rival) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                    "%s: found policy '%s' for disk %s of VM %s (vm %s, disk "
                    "%s), expected no other assignment as specific as policy "
                    "'%s' at %s (vm %s, disk %s)", rival->at, rival->policy,
                    disk, vm, rival->vm, rival->disk, best->policy, best->at,
                    best->vm, best->disk);
        return false;
    }
    if (!best) {
        assign_choose_default(assignments, vm, disk, choice);
        return true;
    }
    choice->policy = g_strdup(best->policy);
    choice->at = g_strdup(best->at);
    choice->reason = g_strdup_printf("assigned to vm %s, disk %s (%s)",
                                     best->vm, best->disk, best->at);
    return true;
}

char *weir_assigned_policy(const char *config_dir, const char *vm,
                           const char *disk, GError **error)
{
    g_autoptr(WeirAssignments) assignments = weir_assignments_load(config_dir,
                                                                   error);
    g_auto(WeirChoice) choice = { 0 };

    if (!assignments ||
        !weir_assignments_choose(assignments, vm, disk, &choice, error)) {
        return NULL;
    }
    if (!choice.policy) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                    "found no policy for disk %s, expected policy=NAME: %s",
                    disk, choice.reason);
    }
    return g_steal_pointer(&choice.policy);
}
