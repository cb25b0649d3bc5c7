/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy.h"
#include "programs.h"

#define SECRET_BYTES_MAX (1u << 20)

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

/* Runs in the child: standard output is the memory. */
static void secret_child_setup(gpointer opaque)
{
    const int *fd = opaque;

    dup2(*fd, STDOUT_FILENO);
    weir_child_setup(NULL);
}

/* Run @command with its output going to @fd. */
static bool secret_run(const char *command, int fd, GError **error)
{
    g_auto(GStrv) args = NULL;
    g_autoptr(GError) local = NULL;
    int status;

    if (!g_shell_parse_argv(command, NULL, &args, error)) {
        return false;
    }
    if (!g_spawn_sync(NULL, args, NULL, G_SPAWN_CHILD_INHERITS_STDERR |
                      G_SPAWN_CHILD_INHERITS_STDOUT, secret_child_setup, &fd,
                      NULL, NULL, &status, &local) ||
        !g_spawn_check_wait_status(status, &local)) {
        weir_set_error(error, "the command for a secret, %s: %s", args[0],
                       local->message);
        return false;
    }
    return true;
}

static int secret_open_command(const char *command, GError **error)
{
    int fd = memfd_create("weir-secret", MFD_CLOEXEC);
    off_t bytes;

    if (fd < 0) {
        weir_set_error(error, "cannot keep a secret in memory: %s",
                       g_strerror(errno));
        return -1;
    }
    if (!secret_run(command, fd, error)) {
        close(fd);
        return -1;
    }
    bytes = lseek(fd, 0, SEEK_END);
    lseek(fd, 0, SEEK_SET);
    if (bytes <= 0 || bytes > SECRET_BYTES_MAX) {
        weir_set_error(error, "the command for a secret printed %s",
                       bytes > 0 ? "more than 1 MiB" : "nothing");
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
        return secret_open_command(secret->value, error);
    }
}
