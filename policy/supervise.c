/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "imagelock.h"
#include "programs.h"
#include "qmp.h"
#include "recordwatch.h"
#include "rollback.h"
#include "storagelock.h"

#define SUPERVISE_QMP_TIMEOUT_MS 10000
#define SUPERVISE_KILL_S 60
#define SUPERVISE_DELAY_MS 100
#define SUPERVISE_DELAY_MAX_MS 30000
/* somebody changes the record */
#define SUPERVISE_BUSY_MS 50
/* who has run for so long was well: it does not die by what comes first */
#define SUPERVISE_WELL_MS 1000
#define SUPERVISE_LINE 1000
/* one of us that was killed may still be about to end */
#define SUPERVISE_LOCK_US (2 * G_USEC_PER_SEC)
#define SUPERVISE_POLL_US 20000

typedef struct Supervisor {
    const WeirSupervise *options;
    WeirRecord *record;     /* as it was when the daemon was started */
    char *program;
    char *qmp_path;
    int qmp_fd;             /* these while the daemon is being started */
    GArray *secret_fds;
    WeirQmp *qmp;           /* NULL once it is ready */
    GMainLoop *loop;
    GPid pid;               /* 0: none */
    pid_t self;
    int output_fd;          /* what it says */
    GString *line;          /* the last line of that */
    bool line_is_over;
    int ready_fd;           /* -1: it has been told */
    bool is_first;          /* the daemon has not been ready yet, ever */
    guint qmp_source;       /* 0: none */
    guint output_source;
    guint retry_source;
    guint kill_source;
    guint watch_source;
    guint well_source;      /* it is ready, but has not run for long */
    int record_lock;        /* while the daemon is being started, or -1 */
    char *told;             /* what was said last */
    bool stopping;
    bool failed;
} Supervisor;

int weir_supervise_delay_ms(gint64 failures)
{
    return failures > 8 ? SUPERVISE_DELAY_MAX_MS
                        : MIN(SUPERVISE_DELAY_MS << failures,
                              SUPERVISE_DELAY_MAX_MS);
}

static void supervise_remove_source(guint *source)
{
    if (*source) {
        g_source_remove(*source);
        *source = 0;
    }
}

/* Once, however often it is so. */
static void supervise_tell(Supervisor *s, const char *text)
{
    if (g_strcmp0(s->told, text) != 0) {
        g_autofree char *printable = weir_printable(text);

        fprintf(stderr, "weir: VM '%s': %s\n", s->options->name, printable);
        g_free(s->told);
        s->told = g_strdup(text);
    }
}

/* Whoever asks for the state of the VM must know. */
static void supervise_save(Supervisor *s)
{
    g_autoptr(GError) error = NULL;

    s->record->daemon.supervisor = getpid();
    if (!weir_record_save_daemon(s->record, s->options->dir, &error)) {
        supervise_tell(s, error->message);
    }
}

static void supervise_answer(Supervisor *s, const char *text)
{
    if (s->ready_fd >= 0) {
        if (write(s->ready_fd, text, strlen(text)) < 0) {
            supervise_tell(s, text);
        }
        close(s->ready_fd);
        s->ready_fd = -1;
    }
}

static void supervise_release(Supervisor *s)
{
    weir_storage_unlock(s->record_lock);
    s->record_lock = -1;
}

/* --- a daemon that does not run --- */

static void supervise_start(Supervisor *s);

static gboolean supervise_again(gpointer opaque)
{
    Supervisor *s = opaque;

    s->retry_source = 0;
    supervise_start(s);
    return G_SOURCE_REMOVE;
}

static gboolean supervise_retry(gpointer opaque)
{
    Supervisor *s = opaque;

    s->record->daemon.restarts++;
    return supervise_again(s);
}

/* What has failed so far may be well with another chain. */
static gboolean supervise_changed(gint fd, GIOCondition condition,
                                  gpointer opaque)
{
    Supervisor *s = opaque;

    (void)condition;
    if (weir_record_watch_read(fd, s->options->name) && s->retry_source &&
        s->record->daemon.failures > 0) {
        supervise_remove_source(&s->retry_source);
        s->record->daemon.failures = 0;
        s->retry_source = g_timeout_add(SUPERVISE_BUSY_MS, supervise_retry,
                                        s);
    }
    return G_SOURCE_CONTINUE;
}

/* For good. */
static void supervise_fail(Supervisor *s, const char *reason)
{
    if (s->ready_fd >= 0) {
        supervise_answer(s, reason);
    } else {
        supervise_tell(s, reason);
    }
    s->failed = true;
    g_main_loop_quit(s->loop);
}

/* It does not run, because of @reason: start it again after a while. */
static void supervise_pause(Supervisor *s, const char *reason)
{
    WeirDaemonState *state = &s->record->daemon;
    int delay_ms = weir_supervise_delay_ms(state->failures++);
    g_autofree char *text = NULL;

    s->record->pid = 0;
    s->record->start_time = -1;
    state->since = g_get_real_time() / G_USEC_PER_SEC;
    g_free(state->reason);
    state->reason = g_strdup(reason);
    supervise_save(s);
    text = state->failures < WEIR_STORAGE_FAILURES
        ? g_strdup_printf("%s; it is started again", reason)
        : g_strdup_printf("%s; it has failed %d times in a row, and is tried "
                          "again from time to time, and when weir detach or "
                          "weir reapply has changed a disk", reason,
                          WEIR_STORAGE_FAILURES);
    supervise_tell(s, text);
    s->retry_source = g_timeout_add((guint)delay_ms, supervise_retry, s);
}

/* It could not be started, or has ended. */
static void supervise_down(Supervisor *s, const char *reason)
{
    supervise_release(s);
    if (s->stopping) {
        g_main_loop_quit(s->loop);
    } else if (s->is_first) {
        supervise_fail(s, reason);
    } else {
        supervise_pause(s, reason);
    }
}

/* --- what it says --- */

static void supervise_add_output(Supervisor *s, const char *data, gsize bytes)
{
    for (gsize i = 0; i < bytes; i++) {
        if (data[i] == '\n') {
            s->line_is_over = true;
            continue;
        }
        if (s->line_is_over) {
            g_string_truncate(s->line, 0);
            s->line_is_over = false;
        }
        if (s->line->len < SUPERVISE_LINE) {
            g_string_append_c(s->line, data[i]);
        }
    }
}

/* Pass on what is there; returns whether more may come. */
static bool supervise_read_output(Supervisor *s)
{
    char data[4096];
    ssize_t n;

    while ((n = read(s->output_fd, data, sizeof(data))) > 0) {
        supervise_add_output(s, data, (gsize)n);
        fwrite(data, 1, (size_t)n, stderr);
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static gboolean supervise_output(gint fd, GIOCondition condition,
                                 gpointer opaque)
{
    Supervisor *s = opaque;

    (void)fd;
    (void)condition;
    if (supervise_read_output(s)) {
        return G_SOURCE_CONTINUE;
    }
    s->output_source = 0;
    return G_SOURCE_REMOVE;
}

/* How it has ended, to be freed. */
static char *supervise_end(const Supervisor *s, int status)
{
    const char *prefix = "qemu-storage-daemon: ";
    const char *line = s->line->str;
    g_autofree char *how = WIFSIGNALED(status)
        ? g_strdup_printf("by signal %d (%s)", WTERMSIG(status),
                          g_strsignal(WTERMSIG(status)))
        : g_strdup_printf("with exit code %d", WEXITSTATUS(status));

    if (g_str_has_prefix(line, prefix)) {
        line += strlen(prefix);
    }
    return g_strdup_printf("its storage daemon ended %s%s%s", how,
                           *line ? ": " : "", line);
}

static void supervise_ended(GPid pid, gint status, gpointer opaque)
{
    Supervisor *s = opaque;
    g_autofree char *reason = NULL;

    (void)pid;
    s->pid = 0;
    supervise_read_output(s);
    supervise_remove_source(&s->output_source);
    close(s->output_fd);
    supervise_remove_source(&s->qmp_source);
    supervise_remove_source(&s->well_source);
    g_clear_pointer(&s->qmp, weir_qmp_free);
    reason = supervise_end(s, status);
    supervise_down(s, reason);
}

/* --- start --- */

/* The emulator may be another user's. */
static void supervise_own_sockets(Supervisor *s)
{
    const WeirRecord *record = s->record;

    for (guint i = 0; record->uid >= 0 && i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        g_autofree char *path = g_build_filename(record->sockets, disk->id,
                                                 NULL);

        if (lchown(path, (uid_t)record->uid, (gid_t)record->gid) < 0) {
            g_autofree char *text = g_strdup_printf(
                "cannot give %s to user %d: %s", path, (int)record->uid,
                g_strerror(errno));

            supervise_tell(s, text);
        }
    }
}

/* Tell systemd, if it is that who has started us. */
static void supervise_notify(void)
{
    static const char message[] = "READY=1";
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd;

    if (!path || g_strlcpy(address.sun_path, path,
                           sizeof(address.sun_path)) >=
                 sizeof(address.sun_path)) {
        return;
    }
    if (address.sun_path[0] == '@') {
        address.sun_path[0] = '\0';     /* an abstract one */
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(fd, message, strlen(message), 0, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                           strlen(path))) < 0) {
        fprintf(stderr, "weir: cannot notify systemd: %s\n",
                g_strerror(errno));
    }
    close(fd);
}

/* What it dies of now is something else. */
static gboolean supervise_well(gpointer opaque)
{
    Supervisor *s = opaque;

    s->well_source = 0;
    if (s->record->daemon.failures > 0) {
        s->record->daemon.failures = 0;
        supervise_save(s);
    }
    return G_SOURCE_REMOVE;
}

static gboolean supervise_ready(gint fd, GIOCondition condition,
                                gpointer opaque)
{
    Supervisor *s = opaque;
    g_autoptr(GError) error = NULL;
    bool ok = weir_qmp_negotiate(s->qmp, SUPERVISE_QMP_TIMEOUT_MS, &error);

    (void)fd;
    (void)condition;
    s->qmp_source = 0;
    g_clear_pointer(&s->qmp, weir_qmp_free);
    if (!ok) {
        /* it is about to end: how will tell why */
        kill(s->pid, SIGTERM);
        return G_SOURCE_REMOVE;
    }
    supervise_own_sockets(s);
    supervise_notify();
    s->record->pid = s->pid;
    s->record->start_time = weir_process_start_time(s->pid);
    supervise_save(s);
    supervise_release(s);
    s->well_source = g_timeout_add(SUPERVISE_WELL_MS, supervise_well, s);
    if (!s->is_first) {
        supervise_tell(s, "its storage daemon runs again");
    }
    s->is_first = false;
    supervise_answer(s, WEIR_SUPERVISE_READY);
    return G_SOURCE_REMOVE;
}

/* Runs in the child: nobody would start it again without us. */
static void supervise_child_setup(gpointer opaque)
{
    const Supervisor *s = opaque;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != s->self) {
        _exit(1);           /* it was killed before that */
    }
    fcntl(s->qmp_fd, F_SETFD, 0);
    /* until it is ready, or has ended, even if we are killed */
    fcntl(s->record_lock, F_SETFD, 0);
    for (guint i = 0; i < s->secret_fds->len; i++) {
        fcntl(g_array_index(s->secret_fds, int, i), F_SETFD, 0);
    }
    weir_child_setup(NULL);
}

/* The record may have changed since the last time. */
static bool supervise_load(Supervisor *s, GError **error)
{
    WeirRecord *record = weir_record_load_storage(s->options->dir,
                                                  s->options->name, error);

    if (!record) {
        return false;
    }
    if (s->record) {
        record->daemon.restarts = s->record->daemon.restarts;
        record->daemon.failures = s->record->daemon.failures;
    }
    weir_record_free(s->record);
    s->record = record;
    return true;
}

/* Changes that had not ended when the last daemon did. */
static bool supervise_roll_back(Supervisor *s, GError **error)
{
    g_autoptr(GPtrArray) told = g_ptr_array_new_with_free_func(g_free);

    if (!weir_rollback(s->record, told, error)) {
        return false;
    }
    for (guint i = 0; i < told->len; i++) {
        supervise_tell(s, g_ptr_array_index(told, i));
    }
    s->record->pid = 0;
    s->record->start_time = -1;
    return told->len == 0 ||
           weir_record_save(s->record, s->options->dir, error);
}

/* Whether nobody else writes to the disks. */
static bool supervise_check_disks(const Supervisor *s, GError **error)
{
    for (guint i = 0; i < s->record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(s->record->disks, i);
        const WeirWanted *storage = g_ptr_array_index(disk->wanted,
                                                      disk->wanted->len - 1);
        const char *file = weir_json_string(storage->options, "filename");

        if (file && !weir_image_is_free(file, error)) {
            g_prefix_error(error, "disk %s: ", disk->id);
            return false;
        }
    }
    return true;
}

/* Secrets are read each time: nothing keeps them meanwhile. */
static bool supervise_prepare(Supervisor *s, GError **error)
{
    const char *sockets = s->record->sockets;

    if (!supervise_check_disks(s, error)) {
        return false;
    }
    if ((mkdir(sockets, 0700) < 0 && errno != EEXIST) ||
        (s->record->uid >= 0 && chmod(sockets, 0711) < 0)) {
        weir_set_error(error, "cannot make %s: %s", sockets,
                       g_strerror(errno));
        return false;
    }
    for (guint i = 0; i < s->record->secrets->len; i++) {
        int fd = weir_secret_open(g_ptr_array_index(s->record->secrets, i),
                                  error);

        if (fd < 0) {
            return false;
        }
        g_array_append_val(s->secret_fds, fd);
    }
    unlink(s->qmp_path);
    s->qmp_fd = weir_qmp_listen(s->qmp_path, error);
    if (s->qmp_fd < 0) {
        return false;
    }
    s->qmp = weir_qmp_connect(s->qmp_path, error);
    return s->qmp != NULL;
}

static bool supervise_spawn(Supervisor *s, GError **error)
{
    g_autoptr(GPtrArray) args = weir_supervise_args(
        s->program, s->record, s->qmp_fd, s->secret_fds);

    if (!g_spawn_async_with_pipes(
            NULL, (char **)args->pdata, NULL, G_SPAWN_DO_NOT_REAP_CHILD |
            G_SPAWN_LEAVE_DESCRIPTORS_OPEN | G_SPAWN_CLOEXEC_PIPES |
            G_SPAWN_STDOUT_TO_DEV_NULL, supervise_child_setup, s, &s->pid,
            NULL, NULL, &s->output_fd, error)) {
        s->pid = 0;
        return false;
    }
    fcntl(s->output_fd, F_SETFL, O_NONBLOCK);
    return true;
}

static void supervise_close_fds(Supervisor *s)
{
    for (guint i = 0; i < s->secret_fds->len; i++) {
        close(g_array_index(s->secret_fds, int, i));
    }
    g_array_set_size(s->secret_fds, 0);
    if (s->qmp_fd >= 0) {
        close(s->qmp_fd);
        s->qmp_fd = -1;
    }
}

static void supervise_start(Supervisor *s)
{
    g_autoptr(GError) error = NULL;
    bool started;

    s->record_lock = weir_storage_lock(s->options->dir, s->options->name, 0,
                                       &error);
    if (g_error_matches(error, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        s->retry_source = g_timeout_add(SUPERVISE_BUSY_MS, supervise_again,
                                        s);
        return;
    }
    started = s->record_lock >= 0 && supervise_load(s, &error) &&
              supervise_roll_back(s, &error) && supervise_prepare(s, &error) &&
              supervise_spawn(s, &error);
    supervise_close_fds(s);
    g_string_truncate(s->line, 0);
    if (!started) {
        g_autofree char *reason = g_strdup_printf(
            "its storage daemon cannot be started: %s", error->message);

        g_clear_pointer(&s->qmp, weir_qmp_free);
        supervise_down(s, reason);
        return;
    }
    g_child_watch_add(s->pid, supervise_ended, s);
    s->output_source = g_unix_fd_add(s->output_fd, G_IO_IN | G_IO_HUP,
                                     supervise_output, s);
    s->qmp_source = g_unix_fd_add(weir_qmp_fd(s->qmp),
                                  G_IO_IN | G_IO_HUP | G_IO_ERR,
                                  supervise_ready, s);
}

/* --- end --- */

static gboolean supervise_kill(gpointer opaque)
{
    Supervisor *s = opaque;

    s->kill_source = 0;
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
    }
    return G_SOURCE_REMOVE;
}

/* The VM has ended, or nobody wants the daemon any more. */
static gboolean supervise_stop(gpointer opaque)
{
    Supervisor *s = opaque;

    if (!s->stopping && s->pid > 0) {
        kill(s->pid, SIGTERM);
        s->kill_source = g_timeout_add_seconds(SUPERVISE_KILL_S,
                                               supervise_kill, s);
    } else if (s->pid <= 0) {
        g_main_loop_quit(s->loop);
    }
    s->stopping = true;
    supervise_remove_source(&s->retry_source);
    return G_SOURCE_CONTINUE;
}

static gboolean supervise_life_ended(gint fd, GIOCondition condition,
                                     gpointer opaque)
{
    (void)fd;
    (void)condition;
    supervise_stop(opaque);
    return G_SOURCE_REMOVE;
}

/* The files may be those of another run of the VM by now. */
static void supervise_clean(const WeirSupervise *options)
{
    int lock = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_autoptr(WeirRecord) record = NULL;

    if (lock >= 0 && flock(lock, LOCK_EX) == 0) {
        record = weir_record_load_storage(options->dir, options->name, NULL);
        if (record && record->daemon.supervisor == getpid()) {
            weir_record_remove_storage(options->dir, options->name);
        }
    }
    if (lock >= 0) {
        close(lock);
    }
}

/* Returns a descriptor, or -1 with @error set. */
static int supervise_lock(const Supervisor *s, GError **error)
{
    gint64 end_us = g_get_monotonic_time() + SUPERVISE_LOCK_US;
    int fd;

    for (;;) {
        g_autoptr(GError) local = NULL;

        fd = weir_record_lock_storage(s->record->sockets, &local);
        if (fd >= 0) {
            return fd;
        }
        if (!g_error_matches(local, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return -1;
        }
        if (g_get_monotonic_time() >= end_us) {
            weir_set_error(error, "VM '%s': another process (%d) starts its "
                           "storage daemon already", s->options->name,
                           (int)s->record->daemon.supervisor);
            return -1;
        }
        g_usleep(SUPERVISE_POLL_US);
    }
}

bool weir_supervise(const WeirSupervise *options, GError **error)
{
    Supervisor s = {
        .options = options, .qmp_fd = -1, .ready_fd = options->ready_fd,
        .self = getpid(), .record_lock = -1,
    };
    int watch;
    int lock = -1;

    if (!supervise_load(&s, error)) {
        return false;
    }
    s.program = weir_program_find(s.record->bin_dir, "qemu-storage-daemon",
                                  error);
    lock = s.program ? supervise_lock(&s, error) : -1;
    if (lock < 0) {
        weir_record_free(s.record);
        g_free(s.program);
        return false;
    }
    s.qmp_path = g_strdup(s.record->qmp);
    s.secret_fds = g_array_new(FALSE, FALSE, sizeof(int));
    s.line = g_string_new(NULL);
    s.loop = g_main_loop_new(NULL, FALSE);
    g_unix_signal_add(SIGTERM, supervise_stop, &s);
    g_unix_signal_add(SIGINT, supervise_stop, &s);
    g_unix_signal_add(SIGHUP, supervise_stop, &s);
    /* the daemon must not hold them */
    if (s.ready_fd >= 0) {
        fcntl(s.ready_fd, F_SETFD, FD_CLOEXEC);
    }
    if (options->life_fd >= 0) {
        fcntl(options->life_fd, F_SETFD, FD_CLOEXEC);
        g_unix_fd_add(options->life_fd, G_IO_HUP | G_IO_ERR,
                      supervise_life_ended, &s);
    }
    watch = weir_record_watch(options->dir);
    if (watch >= 0) {
        s.watch_source = g_unix_fd_add(watch, G_IO_IN, supervise_changed, &s);
    }
    s.is_first = s.record->daemon.supervisor == 0;
    if (!s.is_first) {
        s.record->daemon.restarts++;    /* in the place of another of us */
    }
    supervise_start(&s);
    if (!s.failed) {
        g_main_loop_run(s.loop);
    }
    supervise_release(&s);
    if (!s.failed) {
        supervise_clean(options);
    }
    supervise_remove_source(&s.kill_source);
    supervise_remove_source(&s.watch_source);
    supervise_remove_source(&s.well_source);
    if (watch >= 0) {
        close(watch);
    }
    g_main_loop_unref(s.loop);
    g_array_unref(s.secret_fds);
    g_string_free(s.line, TRUE);
    weir_record_free(s.record);
    g_free(s.program);
    g_free(s.qmp_path);
    g_free(s.told);
    close(lock);
    return !s.failed;
}
