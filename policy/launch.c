/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU gets a QMP socket that listens already and to which this process is
 * connected already, so there is nothing to poll for: the connection speaks
 * when QEMU is ready and closes when it dies.  It starts stopped (-S) and is
 * continued when the chains were found to be as wanted.
 *
 *   spawn -> wait -> greeting -> verify -> cont -> run -> end
 *              |                    |
 *              +-> QEMU ends        +-> not as wanted: end QEMU
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "binding.h"
#include "compliance.h"
#include "launchargs.h"
#include "launchstorage.h"
#include "programs.h"
#include "record.h"
#include "starting.h"
#include "storagerecord.h"

#define WEIR_LAUNCH_QMP_TIMEOUT_MS 10000
#define WEIR_LAUNCH_NOTICE_S 30
#define WEIR_LAUNCH_KILL_S 10

typedef struct Vm {
    const WeirLaunch *launch;
    char *socket_path;
    int listen_fd;          /* -1 when QEMU alone has it */
    int signal_fd;
    GArray *secret_fds;     /* int, one for each secret; QEMU gets them */
    WeirQmp *qmp;           /* NULL once the guest runs */
    WeirRecord *record;
    WeirRecord *storage_record;     /* of the disks out of process */
    WeirLaunchStorage *storage;     /* NULL: there are none */
    GMainLoop *loop;
    guint qmp_source;       /* 0: none */
    guint notice_source;
    guint kill_source;
    GPid pid;               /* 0: none */
    int status;             /* of waitpid() */
    bool running;           /* the guest has been let go */
    GError *failure;        /* why QEMU was ended by us */
} Vm;

static const int launch_signals[] = {
    SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2,
};

static void launch_signal_set(sigset_t *set)
{
    sigemptyset(set);
    for (guint i = 0; i < G_N_ELEMENTS(launch_signals); i++) {
        sigaddset(set, launch_signals[i]);
    }
}

void weir_launch_hold_signals(void)
{
    sigset_t set;

    launch_signal_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Whether one of the user's arguments is that option. */
static bool launch_has(const WeirLaunch *launch, const char *option)
{
    for (char **arg = launch->args; *arg; arg++) {
        const char *name = *arg;

        if (name[0] == '-' && name[1] == '-') {
            name++;
        }
        if (strcmp(name, option) == 0) {
            return true;
        }
    }
    return false;
}

/*
 * Make the runtime directory.  Returns it open and locked against others that
 * are about to start a VM, or -1 with @error set.
 */
static int launch_lock(const char *dir, GError **error)
{
    int fd;

    if (g_mkdir_with_parents(dir, 0700) < 0 ||
        (fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        weir_set_error(error, "cannot use runtime directory %s: %s", dir,
                       g_strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX) < 0) {
        weir_set_error(error, "cannot lock %s: %s", dir, g_strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

/* Make room for the VM's record, unless there is one that runs. */
static bool launch_claim(const WeirLaunch *launch, GError **error)
{
    g_autoptr(WeirRecord) old = weir_record_load(launch->dir, launch->name,
                                                 NULL);
    g_autoptr(WeirRecord) storage = weir_record_load_storage(
        launch->dir, launch->name, NULL);
    g_autofree char *sockets = weir_record_sockets(launch->dir, launch->name);

    if (storage && weir_record_alive(storage) &&
        !(old && weir_record_alive(old))) {
        weir_set_error(error, "the storage daemon of VM '%s' runs still "
                       "(process %d); it ends soon when its QEMU has",
                       launch->name, (int)storage->pid);
        return false;
    }
    if (weir_record_storage_is_locked(sockets) &&
        !(old && weir_record_alive(old))) {
        weir_set_error(error, "who starts the storage daemon of VM '%s' is "
                       "still there; it ends soon when its QEMU has",
                       launch->name);
        return false;
    }
    if (old && weir_record_alive(old)) {
        weir_set_error(error, "VM '%s' runs already (process %d); --name "
                       "gives another name", launch->name, (int)old->pid);
        return false;
    }
    weir_record_remove(launch->dir, launch->name);
    weir_record_remove_storage(launch->dir, launch->name);
    return true;
}

static bool launch_listen(Vm *vm, GError **error)
{
    vm->listen_fd = weir_qmp_listen(vm->socket_path, error);
    if (vm->listen_fd < 0) {
        return false;
    }
    vm->qmp = weir_qmp_connect(vm->socket_path, error);
    return vm->qmp != NULL;
}

/* Runs in the child. */
static void launch_child_setup(gpointer opaque)
{
    const Vm *vm = opaque;

    fcntl(vm->listen_fd, F_SETFD, 0);
    for (guint i = 0; i < vm->secret_fds->len; i++) {
        fcntl(g_array_index(vm->secret_fds, int, i), F_SETFD, 0);
    }
    if (vm->storage) {
        fcntl(weir_launch_storage_life_fd(vm->storage), F_SETFD, 0);
    }
    weir_child_setup(NULL);
}

static bool launch_open_secrets(Vm *vm, GError **error)
{
    for (guint i = 0; i < vm->launch->secrets->len; i++) {
        int fd = weir_secret_open(g_ptr_array_index(vm->launch->secrets, i),
                                  error);

        if (fd < 0) {
            return false;
        }
        g_array_append_val(vm->secret_fds, fd);
    }
    return true;
}

static void launch_close_secrets(Vm *vm)
{
    for (guint i = 0; i < vm->secret_fds->len; i++) {
        close(g_array_index(vm->secret_fds, int, i));
    }
    g_array_set_size(vm->secret_fds, 0);
}

static bool launch_spawn(Vm *vm, GError **error)
{
    g_autoptr(GPtrArray) args = weir_launch_args(vm->launch, vm->listen_fd,
                                                 vm->secret_fds, error);
    g_autoptr(GError) local = NULL;
    sigset_t pending;

    if (!args) {
        return false;
    }
    sigpending(&pending);
    for (guint i = 0; i < G_N_ELEMENTS(launch_signals); i++) {
        if (sigismember(&pending, launch_signals[i]) == 1) {
            weir_set_error(error, "VM '%s' was not started: %s",
                           vm->launch->name, g_strsignal(launch_signals[i]));
            return false;
        }
    }
    if (access(vm->launch->qemu, X_OK) < 0) {
        weir_set_error(error, "cannot start %s: %s", vm->launch->qemu,
                       g_strerror(errno));
        return false;
    }
    if (!g_spawn_async(NULL, (char **)args->pdata, NULL,
                       G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_CHILD_INHERITS_STDIN
                       | G_SPAWN_LEAVE_DESCRIPTORS_OPEN, launch_child_setup,
                       vm, &vm->pid, &local)) {
        weir_set_error(error, "cannot start %s: %s", vm->launch->qemu,
                       local->message);
        return false;
    }
    close(vm->listen_fd);
    vm->listen_fd = -1;
    return true;
}

static bool launch_record(Vm *vm, GError **error)
{
    const WeirLaunch *launch = vm->launch;

    vm->record = weir_record_new(launch->name, vm->pid, vm->socket_path,
                                 launch->bin_dir);
    for (guint i = 0; i < launch->disks->len; i++) {
        if (!weir_launch_is_outside(launch, i)) {
            weir_record_add_disk(vm->record,
                                 g_ptr_array_index(launch->disks, i),
                                 g_ptr_array_index(launch->policies, i),
                                 launch->policy_dirs,
                                 g_ptr_array_index(launch->chains, i));
        }
    }
    return weir_record_save(vm->record, launch->dir, error);
}

/* Disks out of process, so that nobody else begins to use them. */
static bool launch_record_storage(Vm *vm, GError **error)
{
    const WeirLaunch *launch = vm->launch;

    if (!weir_launch_has_outside(launch)) {
        return true;
    }
    vm->storage_record = weir_storage_record_new(launch->name, launch->dir,
                                                 launch->bin_dir,
                                                 launch->storage_secrets);
    for (guint i = 0; i < launch->disks->len; i++) {
        if (weir_launch_is_outside(launch, i)) {
            if (!weir_starting_check(launch->dir, launch->name,
                                     g_ptr_array_index(launch->disks, i),
                                     error)) {
                return false;
            }
            weir_storage_record_add_disk(
                vm->storage_record, g_ptr_array_index(launch->disks, i),
                g_ptr_array_index(launch->policies, i), launch->policy_dirs,
                g_ptr_array_index(launch->chains, i));
        }
    }
    return weir_record_save(vm->storage_record, launch->dir, error);
}

static bool launch_start_storage(Vm *vm, GError **error)
{
    const WeirLaunch *launch = vm->launch;

    if (vm->storage_record) {
        vm->storage = weir_launch_storage(launch->dir, launch->name,
                                          vm->signal_fd, error);
    }
    return !vm->storage_record || vm->storage;
}

/* To QEMU, unless it has ended: its number may be another's then. */
static void launch_send(const Vm *vm, int number)
{
    if (vm->pid > 0) {
        kill(vm->pid, number);
    }
}

static gboolean launch_kill(gpointer opaque)
{
    Vm *vm = opaque;

    vm->kill_source = 0;
    launch_send(vm, SIGKILL);
    return G_SOURCE_REMOVE;
}

/* End QEMU because of @failure, which is consumed. */
static void launch_abort(Vm *vm, GError *failure)
{
    if (vm->failure) {
        g_error_free(failure);
        return;
    }
    vm->failure = failure;
    launch_send(vm, SIGTERM);
    vm->kill_source = g_timeout_add_seconds(WEIR_LAUNCH_KILL_S, launch_kill,
                                            vm);
}

/* The chains are there?  Then let the guest go. */
static bool launch_go(Vm *vm, GError **error)
{
    g_autoptr(WeirGraph) graph = NULL;
    g_autoptr(JsonNode) answer = NULL;

    if (!weir_qmp_negotiate(vm->qmp, WEIR_LAUNCH_QMP_TIMEOUT_MS, error) ||
        !(graph = weir_graph_query(vm->qmp, WEIR_LAUNCH_QMP_TIMEOUT_MS,
                                   error)) ||
        !weir_record_verify(vm->record, graph, error)) {
        return false;
    }
    if (launch_has(vm->launch, "-S") || launch_has(vm->launch, "-preconfig")) {
        return true;
    }
    answer = weir_qmp_execute(vm->qmp, "cont", NULL,
                              WEIR_LAUNCH_QMP_TIMEOUT_MS, error);
    return answer != NULL;
}

static gboolean launch_qmp_ready(gint fd, GIOCondition condition,
                                 gpointer opaque)
{
    Vm *vm = opaque;
    GError *error = NULL;

    (void)fd;
    (void)condition;
    vm->qmp_source = 0;
    if (launch_go(vm, &error)) {
        vm->running = true;
    } else if (g_error_matches(error, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        g_error_free(error);    /* it is about to end: how will tell why */
    } else {
        g_prefix_error(&error, "VM '%s': ", vm->launch->name);
        launch_abort(vm, error);
    }
    g_clear_pointer(&vm->qmp, weir_qmp_free);
    return G_SOURCE_REMOVE;
}

static gboolean launch_notice(gpointer opaque)
{
    Vm *vm = opaque;

    vm->notice_source = 0;
    if (vm->qmp_source) {
        g_printerr("weir: VM '%s': QEMU is not ready after %d s; the guest "
                   "starts when it is\n", vm->launch->name,
                   WEIR_LAUNCH_NOTICE_S);
    }
    return G_SOURCE_REMOVE;
}

/*
 * Pass a signal on.  One from the terminal goes to the whole process group,
 * so QEMU has it already.
 */
static gboolean launch_signalled(gint fd, GIOCondition condition,
                                 gpointer opaque)
{
    Vm *vm = opaque;
    struct signalfd_siginfo info;

    (void)condition;
    if (read(fd, &info, sizeof(info)) == sizeof(info) &&
        info.ssi_code != SI_KERNEL) {
        launch_send(vm, (int)info.ssi_signo);
    }
    return G_SOURCE_CONTINUE;
}

static void launch_ended(GPid pid, gint status, gpointer opaque)
{
    Vm *vm = opaque;

    (void)pid;
    vm->pid = 0;
    vm->status = status;
    g_main_loop_quit(vm->loop);
}

static void launch_remove_source(guint *source)
{
    if (*source) {
        g_source_remove(*source);
        *source = 0;
    }
}

/* Serve QMP, signals and the end of QEMU, until that. */
static void launch_loop(Vm *vm)
{
    guint signal_source = g_unix_fd_add(vm->signal_fd, G_IO_IN,
                                        launch_signalled, vm);

    vm->loop = g_main_loop_new(NULL, FALSE);
    g_child_watch_add(vm->pid, launch_ended, vm);
    if (vm->qmp) {
        vm->qmp_source = g_unix_fd_add(weir_qmp_fd(vm->qmp),
                                       G_IO_IN | G_IO_HUP | G_IO_ERR,
                                       launch_qmp_ready, vm);
    }
    vm->notice_source = g_timeout_add_seconds(WEIR_LAUNCH_NOTICE_S,
                                              launch_notice, vm);
    g_main_loop_run(vm->loop);
    g_source_remove(signal_source);
    launch_remove_source(&vm->qmp_source);
    launch_remove_source(&vm->notice_source);
    launch_remove_source(&vm->kill_source);
    g_main_loop_unref(vm->loop);
}

/* What QEMU's end means. */
static bool launch_result(const Vm *vm, int *exit_code, GError **error)
{
    bool signalled = WIFSIGNALED(vm->status);
    int number = signalled ? WTERMSIG(vm->status) : WEXITSTATUS(vm->status);

    *exit_code = signalled ? 128 + number : number;
    if (vm->failure) {
        *exit_code = 1;
        if (error) {
            *error = g_error_copy(vm->failure);
        }
        return false;
    }
    if (!vm->running && *exit_code != 0) {
        weir_set_error(error, "VM '%s': %s ended at start, %s %d%s%s",
                       vm->launch->name, vm->launch->qemu,
                       signalled ? "by signal" : "with exit code", number,
                       signalled ? ": " : "",
                       signalled ? g_strsignal(number) : "");
        return false;
    }
    return true;
}

/* All up to QEMU being recorded. */
static bool launch_start(Vm *vm, GError **error)
{
    GError *local = NULL;
    bool started = launch_start_storage(vm, error) &&
                   launch_listen(vm, error) &&
                   launch_open_secrets(vm, error) && launch_spawn(vm, error);

    launch_close_secrets(vm);
    if (!started) {
        return false;
    }
    if (!launch_record(vm, &local)) {
        launch_abort(vm, local);
    }
    return true;
}

/* @last: the policy that has, or may have, filters on the disk; or NULL. */
static void launch_tell_policy(const WeirRecordDisk *first, const char *vm,
                               const char *last)
{
    if (last && g_strcmp0(first->policy, last) != 0) {
        fprintf(stderr, "weir: disk %s of VM %s was under policy '%s' at its "
                "end, but %s%s%s at its start: let it have the former at the "
                "next start, or it may lack what a cache has, and a replica "
                "what is written then\n", first->id, vm,
                last, first->policy ? "under '" : "under none",
                first->policy ? first->policy : "", first->policy ? "'" : "");
    }
}

/*
 * Its record goes, and with it what weir attach and weir reapply have changed:
 * whoever starts the VM next must know.
 */
static void launch_tell_changes(const WeirRecord *start, WeirRecord *last)
{
    for (guint i = 0; last && i < start->disks->len; i++) {
        const WeirRecordDisk *first = g_ptr_array_index(start->disks, i);
        const WeirRecordDisk *disk = weir_record_disk(last, first->id, NULL);

        if (disk) {
            launch_tell_policy(first, last->name, disk->policy);
        }
        if (disk && disk->change) {
            launch_tell_policy(first, last->name, disk->change->policy);
        }
    }
    weir_record_free(last);
}

/* QEMU has ended. */
static void launch_clean(const Vm *vm)
{
    const WeirLaunch *launch = vm->launch;

    launch_tell_changes(vm->record,
                        weir_record_load(launch->dir, launch->name, NULL));
    if (vm->storage_record) {
        launch_tell_changes(vm->storage_record, weir_record_load_storage(
            launch->dir, launch->name, NULL));
    }
    weir_record_remove(launch->dir, launch->name);
}

/* What the disks must not be used without from now on. */
static bool launch_note_bindings(const WeirLaunch *launch, GError **error)
{
    for (guint i = 0; i < launch->disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(launch->disks, i);
        const WeirPolicy *policy = g_ptr_array_index(launch->policies, i);

        /* who only reads leaves it as it is */
        if (!weir_binding_note(disk, g_ptr_array_index(launch->chains, i),
                               launch->name, policy->name, disk->read_only,
                               error)) {
            return false;
        }
    }
    return true;
}

/*
 * With the runtime directory locked: see that nobody else has the name, or is
 * about to use the disks.  Returns what weir_starting_end() takes, or -1 with
 * @error set.
 */
static int launch_begin(Vm *vm, GError **error)
{
    const WeirLaunch *launch = vm->launch;
    int lock = launch_lock(launch->dir, error);
    int starting = lock >= 0 ? weir_starting_begin(launch->dir, launch->name,
                                                   error) : -1;
    bool ok = starting >= 0 && launch_claim(launch, error) &&
              launch_note_bindings(launch, error) &&
              launch_record_storage(vm, error);

    if (lock >= 0) {
        close(lock);
    }
    if (!ok && starting >= 0) {
        weir_starting_end(launch->dir, launch->name, starting);
    }
    return ok ? starting : -1;
}

static bool launch_run(Vm *vm, int *exit_code, GError **error)
{
    int starting = launch_begin(vm, error);
    bool started;

    if (starting < 0) {
        return false;
    }
    started = launch_start(vm, error);
    if (!started) {
        weir_record_remove(vm->launch->dir, vm->launch->name);
        weir_record_remove_storage(vm->launch->dir, vm->launch->name);
    }
    weir_starting_end(vm->launch->dir, vm->launch->name, starting);
    if (!started) {
        return false;
    }
    launch_loop(vm);
    launch_clean(vm);
    return launch_result(vm, exit_code, error);
}

/* A QEMU that was killed leaves the terminal in raw mode. */
static void launch_restore_terminal(const struct termios *saved)
{
    if (tcgetpgrp(STDIN_FILENO) == getpgrp()) {
        tcsetattr(STDIN_FILENO, TCSADRAIN, saved);
    }
}

/* By now, nobody uses the disks. */
static void launch_settle_bindings(const WeirLaunch *launch)
{
    for (guint i = 0; i < launch->disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(launch->disks, i);

        weir_binding_settle(disk->file);
    }
}

bool weir_launch(const WeirLaunch *launch, int *exit_code, GError **error)
{
    Vm vm = { .launch = launch, .listen_fd = -1 };
    struct termios saved;
    bool terminal = tcgetattr(STDIN_FILENO, &saved) == 0;
    sigset_t set;
    bool ok;

    *exit_code = 1;
    if (launch_has(launch, "-daemonize")) {
        weir_set_error(error, "-daemonize cannot be used: weir run stays with "
                       "its QEMU");
        return false;
    }
    vm.secret_fds = g_array_new(FALSE, FALSE, sizeof(int));
    launch_signal_set(&set);
    vm.signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    vm.socket_path = weir_record_path(launch->dir, launch->name, "qmp");
    ok = launch_run(&vm, exit_code, error);
    weir_launch_storage_end(vm.storage);
    if (vm.record) {
        launch_settle_bindings(launch);
    }
    if (terminal) {
        launch_restore_terminal(&saved);
    }
    if (vm.listen_fd >= 0) {
        close(vm.listen_fd);
    }
    close(vm.signal_fd);
    weir_qmp_free(vm.qmp);
    weir_record_free(vm.record);
    weir_record_free(vm.storage_record);
    g_array_unref(vm.secret_fds);
    g_clear_error(&vm.failure);
    g_free(vm.socket_path);
    return ok;
}
