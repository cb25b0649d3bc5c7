/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy.h"
#include "programs.h"

#define SECRET_BYTES_MAX (1u << 20)
#define SECRET_SECONDS 60
#define SECRET_SECONDS_MAX 3600
#define SECRET_POLL_US 10000

/* A command that is run for a secret. */
typedef struct SecretRun {
    const WeirSecret *secret;
    int fd;                 /* takes its output */
    int terminal;           /* that it has while it runs; -1: none */
    GPid pid;
} SecretRun;

static const struct {
    const char *prefix;
    WeirSecretKind kind;
} secret_kinds[] = {
    { "file:", WEIR_SECRET_FILE },
    { "credential:", WEIR_SECRET_CREDENTIAL },
    { "command:", WEIR_SECRET_COMMAND },
};

bool weir_secret_is_option(const char *name)
{
    return g_str_has_suffix(name, "-secret");
}

void weir_secret_free(WeirSecret *secret)
{
    if (secret) {
        g_free(secret->value);
        g_free(secret->id);
        g_free(secret);
    }
}

char *weir_secret_text(const WeirSecret *secret)
{
    for (guint i = 0; i < G_N_ELEMENTS(secret_kinds); i++) {
        if (secret_kinds[i].kind == secret->kind) {
            return g_strconcat(secret_kinds[i].prefix, secret->value, NULL);
        }
    }
    return g_strdup(secret->value);
}

WeirSecret *weir_secret_copy(const WeirSecret *secret)
{
    WeirSecret *copy = g_new0(WeirSecret, 1);

    copy->kind = secret->kind;
    copy->value = g_strdup(secret->value);
    copy->id = g_strdup(secret->id);
    return copy;
}

static bool secret_check(const WeirSecret *secret, GError **error)
{
    g_auto(GStrv) args = NULL;

    switch (secret->kind) {
    case WEIR_SECRET_FILE:
        if (secret->value[0] != '/') {
            weir_set_error(error, "found file '%s', expected an absolute path",
                           secret->value);
            return false;
        }
        return true;
    case WEIR_SECRET_COMMAND:
        if (!g_shell_parse_argv(secret->value, NULL, &args, error)) {
            return false;
        }
        if (args[0][0] != '/') {
            weir_set_error(error, "found command '%s', expected an absolute "
                           "path", args[0]);
            return false;
        }
        return true;
    default:
        if (!weir_name_ok(secret->value, 64)) {
            weir_set_error(error, "found '%s', expected a name, file:/PATH, "
                           "credential:NAME or command:COMMAND",
                           secret->value);
            return false;
        }
        return true;
    }
}

WeirSecret *weir_secret_parse(const char *text, const char *id,
                              GError **error)
{
    g_autoptr(WeirSecret) secret = g_new0(WeirSecret, 1);

    for (guint i = 0; i < G_N_ELEMENTS(secret_kinds); i++) {
        if (g_str_has_prefix(text, secret_kinds[i].prefix)) {
            secret->kind = secret_kinds[i].kind;
            text += strlen(secret_kinds[i].prefix);
            break;
        }
    }
    secret->value = g_strdup(text);
    secret->id = g_strdup(secret->kind == WEIR_SECRET_ID ? text : id);
    return secret_check(secret, error) ? g_steal_pointer(&secret) : NULL;
}

/* --- content --- */

static int secret_open_file(const char *path, GError **error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        weir_set_error(error, "cannot read secret %s: %s", path,
                       g_strerror(errno));
    }
    return fd;
}

static int secret_open_credential(const char *name, GError **error)
{
    const char *dir = g_getenv("CREDENTIALS_DIRECTORY");
    g_autofree char *path = NULL;

    if (!dir) {
        weir_set_error(error, "there is no credential '%s': "
                       "CREDENTIALS_DIRECTORY is not set, which systemd does "
                       "for a unit with LoadCredential", name);
        return -1;
    }
    path = g_build_filename(dir, name, NULL);
    return secret_open_file(path, error);
}

/* Who is in the background must not do that, unless it ignores the signal. */
static void secret_give_terminal(int terminal, pid_t group)
{
    sigset_t stop;
    sigset_t before;

    if (terminal >= 0) {
        sigemptyset(&stop);
        sigaddset(&stop, SIGTTOU);
        pthread_sigmask(SIG_BLOCK, &stop, &before);
        tcsetpgrp(terminal, group);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
}

/* The terminal that this process is in front of, or -1. */
static int secret_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);

    if (fd >= 0 && tcgetpgrp(fd) != getpgrp()) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/*
 * Runs in the child: standard output is the memory.  What it starts is in its
 * group, and ends with it.
 */
static void secret_child_setup(gpointer opaque)
{
    const SecretRun *run = opaque;

    setpgid(0, 0);
    secret_give_terminal(run->terminal, getpid());
    dup2(run->fd, STDOUT_FILENO);
    weir_child_setup(NULL);
}

static int secret_seconds(void)
{
    const char *text = g_getenv("WEIR_SECRET_TIMEOUT");
    gint64 seconds = text ? g_ascii_strtoll(text, NULL, 10) : 0;

    return seconds > 0 && seconds <= SECRET_SECONDS_MAX ? (int)seconds
                                                        : SECRET_SECONDS;
}

/* Whether somebody wants this process, which holds its signals, to end. */
static bool secret_is_interrupted(void)
{
    sigset_t pending;

    sigpending(&pending);
    return sigismember(&pending, SIGINT) == 1 ||
           sigismember(&pending, SIGTERM) == 1 ||
           sigismember(&pending, SIGHUP) == 1;
}

/* Wait for its end, or make it end. */
static bool secret_wait(const SecretRun *run, int *status, GError **error)
{
    int seconds = secret_seconds();
    gint64 end_us = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    bool interrupted = false;
    pid_t ended;

    while ((ended = waitpid(run->pid, status, WNOHANG)) == 0 &&
           g_get_monotonic_time() < end_us && !interrupted) {
        interrupted = secret_is_interrupted();
        g_usleep(SECRET_POLL_US);
    }
    if (ended < 0) {
        weir_set_error(error, "%s", g_strerror(errno));
    }
    if (ended == 0) {
        kill(-run->pid, SIGKILL);
        waitpid(run->pid, status, 0);
        weir_set_error(error, interrupted ? "interrupted"
                       : "it has not ended within %d s, and was killed",
                       seconds);
    }
    return ended > 0;
}

/* Run the command; its output goes to memory. */
static bool secret_run(SecretRun *run, GError **error)
{
    g_auto(GStrv) args = NULL;
    g_autoptr(GError) local = NULL;
    int status;
    bool ok;

    if (!g_shell_parse_argv(run->secret->value, NULL, &args, error)) {
        return false;
    }
    run->terminal = secret_terminal();
    ok = g_spawn_async(NULL, args, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                       secret_child_setup, run, &run->pid, &local) &&
         secret_wait(run, &status, &local) &&
         g_spawn_check_wait_status(status, &local);
    secret_give_terminal(run->terminal, getpgrp());
    if (run->terminal >= 0) {
        close(run->terminal);
    }
    if (!ok) {
        weir_set_error(error, "the command for secret %s, %s: %s",
                       run->secret->id, args[0], local->message);
    }
    return ok;
}

static int secret_open_command(const WeirSecret *secret, GError **error)
{
    SecretRun run = { .secret = secret };
    int fd = memfd_create("weir-secret", MFD_CLOEXEC);
    off_t bytes;

    if (fd < 0) {
        weir_set_error(error, "cannot keep a secret in memory: %s",
                       g_strerror(errno));
        return -1;
    }
    run.fd = fd;
    if (!secret_run(&run, error)) {
        close(fd);
        return -1;
    }
    bytes = lseek(fd, 0, SEEK_END);
    lseek(fd, 0, SEEK_SET);
    if (bytes <= 0 || bytes > SECRET_BYTES_MAX) {
        weir_set_error(error, "the command for secret %s printed %s",
                       secret->id, bytes > 0 ? "more than 1 MiB" : "nothing");
        close(fd);
        return -1;
    }
    return fd;
}

int weir_secret_open(const WeirSecret *secret, GError **error)
{
    switch (secret->kind) {
    case WEIR_SECRET_FILE:
        return secret_open_file(secret->value, error);
    case WEIR_SECRET_CREDENTIAL:
        return secret_open_credential(secret->value, error);
    default:
        return secret_open_command(secret, error);
    }
}
