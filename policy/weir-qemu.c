/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-qemu: what libvirt starts as <emulator>.  It becomes QEMU, with the
 * chains of the domain's policies in the command line; when libvirt only asks
 * what QEMU can do, it becomes QEMU at once.
 *
 * The hook has left the chains.  Without them no guest is started: it would
 * write past its filters.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "emulator.h"
#include "policy.h"
#include "programs.h"

#define EMULATOR_QEMU "qemu-system-x86_64"

static int emulator_fail(const char *name, GError *error)
{
    fprintf(stderr, "weir-qemu: %s%s%s\n", name ? name : "", name ? ": " : "",
            error->message);
    g_error_free(error);
    return 1;
}

static gint emulator_compare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the files in @dir, sorted; the caller unrefs the array. */
static GPtrArray *emulator_secrets(const char *dir)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) stream = g_dir_open(dir, 0, NULL);
    const char *name;

    while (stream && (name = g_dir_read_name(stream))) {
        g_ptr_array_add(names, g_strdup(name));
    }
    g_ptr_array_sort(names, emulator_compare);
    return names;
}

static GPtrArray *emulator_args(char **argv, const char *name,
                                const char *uuid, GError **error)
{
    g_autofree char *dir = g_build_filename(WEIR_LIBVIRT_DIR, uuid, NULL);
    g_autofree char *secrets_dir = g_build_filename(
        dir, WEIR_LIBVIRT_SECRETS, NULL);
    g_autoptr(GPtrArray) secrets = emulator_secrets(secrets_dir);
    g_autoptr(WeirRecord) record = NULL;
    g_autoptr(GError) local = NULL;

    if (!weir_name_ok(name, WEIR_VM_MAX_NAME) ||
        !g_uuid_string_is_valid(uuid)) {
        weir_set_error(error, "found another name or UUID than a domain with "
                       "policies can have");
        return NULL;
    }
    record = weir_record_load(dir, name, &local);
    if (!record) {
        weir_set_error(error, "%s; is the hook of Weir installed as "
                       "/etc/libvirt/hooks/qemu.d/weir?", local->message);
        return NULL;
    }
    record->pid = getpid();         /* it becomes QEMU */
    record->start_time = weir_process_start_time(record->pid);
    return weir_emulator_rewrite(argv, record, secrets_dir, secrets, error);
}

int main(int argc, char **argv)
{
    g_autofree char *qemu = NULL;
    g_autofree char *name = NULL;
    g_autofree char *uuid = NULL;
    g_autoptr(GPtrArray) args = NULL;
    GError *error = NULL;

    weir_programs_init(argc > 0 ? argv[0] : "weir-qemu");
    qemu = weir_program_find(NULL, EMULATOR_QEMU, &error);
    if (!qemu) {
        return emulator_fail(NULL, error);
    }
    if (weir_emulator_domain(argv, &name, &uuid)) {
        args = emulator_args(argv, name, uuid, &error);
        if (!args) {
            return emulator_fail(name, error);
        }
    }
    execv(qemu, args ? (char **)args->pdata : argv);
    fprintf(stderr, "weir-qemu: cannot start %s: %s\n", qemu,
            g_strerror(errno));
    return 1;
}
