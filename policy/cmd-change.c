/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cmd-change.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "domainplan.h"
#include "launch.h"
#include "moved.h"

void weir_change_options_clear(ChangeOptions *options)
{
    weir_policy_options_clear(&options->policy);
    g_free(options->policy_name);
    g_free(options->runtime_dir);
    g_free(options->uri);
}

/* --- what goes on --- */

/* The percentage that is on the terminal, or -1. */
static int change_percent = -1;

static void change_end_progress(void)
{
    if (change_percent >= 0) {
        fputc('\n', stderr);
        change_percent = -1;
    }
}

static void change_tell_step(const WeirStep *step, bool undo)
{
    g_autofree char *text = weir_step_text(step);

    change_end_progress();
    printf("%s%s\n", undo ? "undo: " : "", text);
    fflush(stdout);
}

/* On a terminal, a line that counts up. */
static void change_tell_progress(double done)
{
    int percent = (int)(done * 100);

    if (isatty(STDERR_FILENO) && percent != change_percent) {
        fprintf(stderr, "\r%3d %%", percent);
        change_percent = percent;
    }
}

static void change_tell_trouble(const char *reason)
{
    g_autofree char *text = weir_printable(reason);

    change_end_progress();
    fprintf(stderr, "weir: waiting: %s\n", text);
}

static void change_print_plan(const WeirChange *change)
{
    for (guint i = 0; i < change->steps->len; i++) {
        change_tell_step(g_ptr_array_index(change->steps, i), false);
    }
}

static void change_print_notes(const GPtrArray *notes)
{
    for (guint i = 0; i < notes->len; i++) {
        printf("note: %s\n", (char *)g_ptr_array_index(notes, i));
    }
}

static void change_print_result(const WeirLive *live, bool already)
{
    const char *vm = weir_live_record(live)->name;
    const WeirRecordDisk *disk = weir_live_disk(live);

    if (disk->policy) {
        printf("disk %s of VM %s is under policy '%s', version %"
               G_GINT64_FORMAT "%s\n", disk->id, vm, disk->policy,
               disk->policy_version, already ? ", already" : "");
    } else {
        printf("disk %s of VM %s is under no policy%s\n", disk->id, vm,
               already ? ", already" : "");
    }
}

/* --- the policy --- */

/* Where to look: as told, or where the disk's policy was found. */
static char *const *change_dirs(const ChangeOptions *options,
                                const WeirRecordDisk *disk)
{
    if (options->policy.dirs || !disk->policy_dirs) {
        return weir_policy_dirs(&options->policy);
    }
    return disk->policy_dirs;
}

/* Whether the disk's storage is what the policy wants. */
static bool change_check_storage(const WeirPolicy *policy,
                                 const WeirRecordDisk *entry,
                                 const char *bin_dir, GError **error)
{
    g_autoptr(WeirDisk) disk = weir_record_describe(entry, error);

    return disk && weir_storage_check(policy->storage, disk, bin_dir, error);
}

/* Find and try the policy; none for NULL. */
static bool change_find(WeirDaemon *daemon, char *const *dirs,
                        const char *name, WeirPolicy **policy, GError **error)
{
    if (!name) {
        return true;
    }
    *policy = weir_policy_find(dirs, name, weir_daemon_schema(daemon), error);
    return *policy && weir_daemon_check(daemon, *policy, error);
}

static int change_fail(GError *error)
{
    bool halfway = g_error_matches(error, WEIR_ERROR, WEIR_ERROR_HALFWAY);

    weir_fail(error);
    return halfway ? WEIR_EXIT_NON_COMPLIANT : WEIR_EXIT_ERROR;
}

/* --- what libvirt knows --- */

/* Policies of a domain's disk, in its XML. */
typedef struct Assigned {
    WeirHold *hold;         /* NULL: it is no domain */
    char *target;
    char *next, *now;       /* before the change; NULL: none */
} Assigned;

static void assigned_clear(Assigned *assigned)
{
    g_free(assigned->target);
    g_free(assigned->next);
    g_free(assigned->now);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Assigned, assigned_clear)

static Assigned assigned_read(WeirHold *hold, const WeirRecordDisk *disk)
{
    Assigned assigned = { .hold = hold };

    if (hold) {
        assigned.target = g_strdup(disk->id);
        assigned.next = weir_hold_next(hold, disk->id);
        assigned.now = g_strdup(weir_domain_policy(hold->parsed, disk->id));
    }
    return assigned;
}

static bool assigned_is(const Assigned *assigned, const char *policy)
{
    return !assigned->hold || (g_strcmp0(assigned->next, policy) == 0 &&
                               g_strcmp0(assigned->now, policy) == 0);
}

static bool assigned_set(const Assigned *assigned, const char *policy,
                         GError **error)
{
    GError *local = NULL;

    if (!assigned->hold || weir_hold_assign(assigned->hold, assigned->target,
                                            policy, policy, &local)) {
        return true;
    }
    weir_hold_assign(assigned->hold, assigned->target, assigned->next,
                     assigned->now, NULL);
    g_propagate_error(error, local);
    return false;
}

/*
 * A policy is assigned before, so that a start in between has the cache that
 * the disk gets; and one is taken away after its filters have brought down what
 * they had.
 */
static bool change_do(WeirLive *live, const Assigned *assigned,
                      const char *policy, GError **error)
{
    GError *local = NULL;

    if (policy && !assigned_set(assigned, policy, error)) {
        return false;
    }
    if (!weir_live_run(live, &local)) {
        if (policy && assigned->hold &&
            g_error_matches(local, WEIR_ERROR, WEIR_ERROR_FAILED)) {
            weir_hold_assign(assigned->hold, assigned->target, assigned->next,
                             assigned->now, NULL);
        }
        g_propagate_error(error, local);
        return false;
    }
    if (!policy && !assigned_set(assigned, NULL, &local)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_HALFWAY, "the filters are "
                    "detached, but the policy is assigned still: %s",
                    local->message);
        g_error_free(local);
        return false;
    }
    return true;
}

/* Whether the files of the disk's filters are free of another image. */
static bool change_move(const WeirHold *hold, const WeirRecordDisk *disk,
                        const WeirSchema *schema, WeirMoved **moved,
                        GError **error)
{
    g_autoptr(GPtrArray) notes = NULL;
    bool ok;

    *moved = weir_moved_new(g_hash_table_lookup(hold->images, disk->id), disk,
                            schema);
    ok = weir_moved_set_aside(*moved, disk, hold->graph, schema, error);
    notes = weir_moved_notes(*moved);
    change_print_notes(notes);
    return ok;
}

static int change_run(const ChangeOptions *options, WeirLive *live,
                      WeirHold *hold, WeirChangeDecide decide)
{
    const WeirRecordDisk *disk = weir_live_disk(live);
    const char *bin_dir = options->policy.bin_dir
        ? options->policy.bin_dir : weir_live_record(live)->bin_dir;
    /* the record's is replaced meanwhile */
    g_auto(GStrv) dirs = g_strdupv((char **)change_dirs(options, disk));
    g_auto(Assigned) assigned = assigned_read(hold, disk);
    g_autoptr(WeirDaemon) daemon = NULL;
    g_autoptr(WeirPolicy) policy = NULL;
    g_autoptr(WeirMoved) moved = NULL;
    g_autoptr(GPtrArray) ails = NULL;
    const WeirChange *change;
    const char *name = NULL;
    GError *error = NULL;
    bool done;

    change_end_progress();
    if (!decide(options, disk, &name, &error) ||
        !(daemon = weir_daemon_start(bin_dir, &error)) ||
        !change_find(daemon, dirs, name, &policy, &error) ||
        (policy && !change_check_storage(policy, disk, bin_dir, &error)) ||
        (policy && hold && !weir_domain_plan_check_places(policy, &error)) ||
        !(change = weir_live_plan(live, policy, dirs,
                                  weir_daemon_schema(daemon), &error)) ||
        (hold && !weir_hold_allows(hold, disk, change, &error))) {
        return weir_fail(error);
    }
    change_print_notes(change->notes);
    if (weir_live_complies(live) &&
        assigned_is(&assigned, policy ? policy->name : NULL)) {
        change_print_result(live, true);
        return WEIR_EXIT_OK;
    }
    if (options->dry_run) {
        change_print_plan(change);
        return WEIR_EXIT_OK;
    }
    if (hold && !change_move(hold, disk, weir_daemon_schema(daemon), &moved,
                             &error)) {
        return weir_fail(error);
    }
    done = change_do(live, &assigned, policy ? policy->name : NULL, &error);
    change_end_progress();
    if (!done) {
        return change_fail(error);
    }
    weir_moved_end(moved);
    change_print_result(live, false);
    ails = weir_live_ails(live);
    change_print_notes(ails);
    return WEIR_EXIT_OK;
}

/* --- of whom --- */

static const WeirLiveReport change_report = {
    .step = change_tell_step, .progress = change_tell_progress,
    .trouble = change_tell_trouble,
};

static int change_domain(const ChangeOptions *options, virDomainPtr domain,
                         const char *disk, WeirChangeDecide decide)
{
    ChangeOptions domains = *options;
    g_autoptr(WeirHold) hold = NULL;
    g_autoptr(WeirLive) live = NULL;
    GError *error = NULL;

    if (!(hold = weir_hold_open(domain, true, &error)) ||
        !weir_hold_add(hold, disk, &error)) {
        return weir_fail(error);
    }
    if (!domains.policy_name) {
        /* of reapply: the metadata tell what the disk is to have */
        domains.policy_name = (char *)weir_domain_policy(hold->parsed, disk);
    }
    live = weir_hold_live(hold, disk, &change_report, &error);
    return live ? change_run(&domains, live, hold, decide)
                : weir_fail(error);
}

/*
 * The domain that @name is, if it is no VM of weir run; or NULL.  Without
 * --connect, only root's libvirt is asked: that of others is started by being
 * asked.
 */
static virDomainPtr change_find_domain(const ChangeOptions *options,
                                       const char *dir, const char *name,
                                       GError **error)
{
    g_autofree char *record = weir_record_path(dir, name, "json");
    g_autoptr(virConnect) connection = NULL;

    if (!options->uri &&
        (geteuid() != 0 || options->runtime_dir ||
         !weir_name_ok(name, WEIR_VM_MAX_NAME) ||
         g_file_test(record, G_FILE_TEST_EXISTS))) {
        return NULL;
    }
    connection = weir_hypervisor_open(options->uri,
                                      options->uri ? error : NULL);
    return connection
        ? weir_hypervisor_domain(connection, name,
                                 options->uri ? error : NULL) : NULL;
}

int weir_change_command(const ChangeOptions *options, int argc, char **argv,
                        WeirChangeDecide decide)
{
    g_autofree char *dir = weir_runtime_dir(options->runtime_dir);
    g_autoptr(virDomain) domain = NULL;
    g_autoptr(WeirLive) live = NULL;
    GError *error = NULL;

    if (argc != 3) {
        return weir_usage("%s: found %d arguments, expected a VM and a disk",
                          g_get_prgname() + strlen("weir "), argc - 1);
    }
    if (options->uri && options->runtime_dir) {
        return weir_usage("%s: found --connect and --runtime-dir, expected "
                          "one of them",
                          g_get_prgname() + strlen("weir "));
    }
    weir_launch_hold_signals();
    domain = change_find_domain(options, dir, argv[1], &error);
    if (error) {
        return weir_fail(error);
    }
    if (domain) {
        return change_domain(options, domain, argv[2], decide);
    }
    live = weir_live_open(dir, argv[1], argv[2], &change_report, &error);
    return live ? change_run(options, live, NULL, decide) : weir_fail(error);
}
