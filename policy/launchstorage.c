/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "launchstorage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "programs.h"

#define LAUNCH_STORAGE_AGAIN_MS 1000

struct WeirLaunchStorage {
    char *dir;
    char *name;
    GPid pid;               /* of the supervisor; 0: none */
    int life[2];            /* a pipe; it has the first end */
    int ready_fd;           /* of the child, while it is started */
    guint again_source;     /* 0: none */
};

/* Runs in the child: signals of the terminal are for the emulator. */
static void storage_child_setup(gpointer opaque)
{
    const WeirLaunchStorage *storage = opaque;

    setsid();
    fcntl(storage->life[0], F_SETFD, 0);
    if (storage->ready_fd >= 0) {
        fcntl(storage->ready_fd, F_SETFD, 0);
    }
    weir_child_setup(NULL);
}

static bool storage_spawn(WeirLaunchStorage *storage, GError **error)
{
    g_autofree char *life = g_strdup_printf("%d", storage->life[0]);
    g_autofree char *ready = g_strdup_printf("%d", storage->ready_fd);
    char *args[] = {
        (char *)"/proc/self/exe", (char *)"weir", (char *)"supervise",
        (char *)"--runtime-dir", storage->dir, (char *)"--life-fd", life,
        (char *)"--ready-fd", ready, storage->name, NULL
    };

    if (!g_spawn_async(NULL, args, NULL, G_SPAWN_DO_NOT_REAP_CHILD |
                       G_SPAWN_FILE_AND_ARGV_ZERO |
                       G_SPAWN_LEAVE_DESCRIPTORS_OPEN, storage_child_setup,
                       storage, &storage->pid, error)) {
        storage->pid = 0;
        return false;
    }
    return true;
}

/* --- a supervisor that was killed --- */

static void storage_watch(WeirLaunchStorage *storage);

static gboolean storage_again(gpointer opaque)
{
    WeirLaunchStorage *storage = opaque;
    g_autoptr(GError) error = NULL;

    if (!storage_spawn(storage, &error)) {
        fprintf(stderr, "weir: %s\n", error->message);
        return G_SOURCE_CONTINUE;
    }
    storage->again_source = 0;
    storage_watch(storage);
    return G_SOURCE_REMOVE;
}

/* It ends by itself when the VM does, or when it has given up. */
static void storage_ended(GPid pid, gint status, gpointer opaque)
{
    WeirLaunchStorage *storage = opaque;

    (void)pid;
    storage->pid = 0;
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "weir: VM '%s': who starts its storage daemon ended "
                "by signal %d (%s), and is started again\n", storage->name,
                WTERMSIG(status), g_strsignal(WTERMSIG(status)));
        storage->again_source = g_timeout_add(LAUNCH_STORAGE_AGAIN_MS,
                                              storage_again, storage);
    }
}

static void storage_watch(WeirLaunchStorage *storage)
{
    g_child_watch_add(storage->pid, storage_ended, storage);
}

/* --- start --- */

/* Read what the child tells, up to its end, or until a signal comes. */
static bool storage_read(int fd, int signal_fd, GString *text)
{
    struct pollfd fds[] = {
        { .fd = fd, .events = POLLIN }, { .fd = signal_fd, .events = POLLIN },
    };
    char data[1024];
    ssize_t n;

    for (;;) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) < 0 && errno != EINTR) {
            return false;
        }
        if (fds[1].revents) {
            return false;
        }
        n = fds[0].revents ? read(fd, data, sizeof(data)) : -1;
        if (n == 0) {
            return true;
        }
        if (n > 0) {
            g_string_append_len(text, data, n);
        }
    }
}

/* Whether the daemon is there. */
static bool storage_wait(WeirLaunchStorage *storage, int fd, int signal_fd,
                         GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    bool told = storage_read(fd, signal_fd, text);

    if (told && strcmp(text->str, WEIR_SUPERVISE_READY) == 0) {
        return true;
    }
    if (!told) {
        weir_set_error(error, "VM '%s' was not started: interrupted",
                       storage->name);
    } else {
        weir_set_error(error, "VM '%s': %s", storage->name, text->len
                       ? text->str : "its storage daemon cannot be started");
    }
    kill(storage->pid, SIGTERM);
    waitpid(storage->pid, NULL, 0);
    g_spawn_close_pid(storage->pid);
    storage->pid = 0;
    return false;
}

static bool storage_start(WeirLaunchStorage *storage, int signal_fd,
                          GError **error)
{
    int ready[2];
    bool ok;

    if (pipe2(storage->life, O_CLOEXEC) < 0) {
        storage->life[0] = storage->life[1] = -1;
        weir_set_error(error, "cannot make a pipe: %s", g_strerror(errno));
        return false;
    }
    if (pipe2(ready, O_CLOEXEC) < 0) {
        weir_set_error(error, "cannot make a pipe: %s", g_strerror(errno));
        return false;
    }
    storage->ready_fd = ready[1];
    ok = storage_spawn(storage, error);
    close(ready[1]);
    storage->ready_fd = -1;
    ok = ok && storage_wait(storage, ready[0], signal_fd, error);
    close(ready[0]);
    return ok;
}

WeirLaunchStorage *weir_launch_storage(const char *dir, const char *name,
                                       int signal_fd, GError **error)
{
    WeirLaunchStorage *storage = g_new0(WeirLaunchStorage, 1);

    storage->dir = g_canonicalize_filename(dir, NULL);
    storage->name = g_strdup(name);
    storage->life[0] = storage->life[1] = storage->ready_fd = -1;
    if (!storage_start(storage, signal_fd, error)) {
        weir_launch_storage_end(storage);
        return NULL;
    }
    storage_watch(storage);
    return storage;
}

int weir_launch_storage_life_fd(const WeirLaunchStorage *storage)
{
    return storage->life[1];
}

void weir_launch_storage_end(WeirLaunchStorage *storage)
{
    if (!storage) {
        return;
    }
    for (guint i = 0; i < G_N_ELEMENTS(storage->life); i++) {
        if (storage->life[i] >= 0) {
            close(storage->life[i]);
        }
    }
    if (storage->again_source) {
        g_source_remove(storage->again_source);
    }
    /* the pipe has hung up: it ends the daemon, then itself */
    while (storage->pid > 0) {
        g_main_context_iteration(NULL, TRUE);
    }
    g_free(storage->dir);
    g_free(storage->name);
    g_free(storage);
}
