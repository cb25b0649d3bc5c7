/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "programs.h"

#include <errno.h>
#include <gio/gio.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Where a program finds the secret that it is given. */
#define DISK_SECRET_FD 3

static char *program_dirs[3];   /* set at start; where weir itself is */

static void programs_add_dir(char *path)
{
    for (guint i = 0; path && i < G_N_ELEMENTS(program_dirs) - 1; i++) {
        if (!program_dirs[i]) {
            program_dirs[i] = g_path_get_dirname(path);
            break;
        }
    }
    g_free(path);
}

void weir_programs_init(const char *argv0)
{
    programs_add_dir(g_find_program_in_path(argv0));
    programs_add_dir(g_file_read_link("/proc/self/exe", NULL));
}

static char *program_in(const char *dir, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);

    if (g_file_test(path, G_FILE_TEST_IS_EXECUTABLE)) {
        return g_steal_pointer(&path);
    }
    return NULL;
}

char *weir_program_find(const char *bin_dir, const char *name, GError **error)
{
    char *path = NULL;

    /* Another QEMU has no filters: where there is one for us, no other does. */
    if (!bin_dir && WEIR_QEMU_BIN_DIR[0]) {
        bin_dir = WEIR_QEMU_BIN_DIR;
    }
    if (bin_dir) {
        path = program_in(bin_dir, name);
    } else {
        for (guint i = 0; !path && program_dirs[i]; i++) {
            path = program_in(program_dirs[i], name);
        }
        if (!path) {
            path = g_find_program_in_path(name);
        }
    }
    if (!path) {
        weir_set_error(error, "cannot find %s %s%s", name,
                       bin_dir ? "in " : "next to weir or on the search path",
                       bin_dir ? bin_dir : "");
    }
    return path;
}

/* What qemu-img says is wrong, without its name and that of the image. */
static const char *disk_message(char *message, const char *image)
{
    g_autofree char *prefix = g_strdup_printf("qemu-img: Could not open '%s': ",
                                              image);
    const char *text = g_strstrip(message);

    return g_str_has_prefix(text, prefix) ? text + strlen(prefix) : text;
}

void weir_child_setup(gpointer unused)
{
    sigset_t none;

    (void)unused;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
}

void weir_child_setup_bound(gpointer parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != GPOINTER_TO_INT(parent)) {
        _exit(1);               /* it was killed before that */
    }
    weir_child_setup(NULL);
}

/* The disk's file in the words of qemu-img; the caller frees it. */
static char *disk_image(const WeirDisk *disk)
{
    g_autoptr(JsonObject) object = NULL;
    g_autofree char *text = NULL;

    if (!disk->remote) {
        /* An absolute name cannot be taken for one with a protocol. */
        return g_canonicalize_filename(disk->file, NULL);
    }
    object = json_object_new();
    json_object_set_object_member(object, "file",
                                  json_object_ref(disk->remote));
    text = weir_json_object_text(object, false);
    return g_strconcat("json:", text, NULL);
}

/* Whether the disk's address needs objects that only QEMU-ARGS make. */
static bool disk_needs_objects(const WeirDisk *disk)
{
    return disk->remote &&
           (json_object_has_member(disk->remote, "tls-creds") ||
            (disk->secret && disk->secret->kind == WEIR_SECRET_ID));
}

/* Hand the secret of the disk's address to a program; @args: of it */
static bool disk_give_secret(const WeirDisk *disk,
                             GSubprocessLauncher *launcher, GPtrArray *args,
                             GError **error)
{
    int fd;

    if (!disk->secret) {
        return true;
    }
    fd = weir_secret_open(disk->secret, error);
    if (fd < 0) {
        return false;
    }
    g_subprocess_launcher_take_fd(launcher, fd, DISK_SECRET_FD);
    g_ptr_array_add(args, g_strdup("--object"));
    g_ptr_array_add(args, g_strdup_printf("secret,id=%s,file=/dev/fd/%d",
                                          disk->secret->id, DISK_SECRET_FD));
    return true;
}

static GPtrArray *disk_info_args(const WeirDisk *disk, const char *program,
                                 bool in_use)
{
    GPtrArray *args = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(args, g_strdup(program));
    g_ptr_array_add(args, g_strdup("info"));
    g_ptr_array_add(args, g_strdup("--output=json"));
    g_ptr_array_add(args, g_strdup("-f"));
    g_ptr_array_add(args, g_strdup(disk->format));
    if (in_use) {
        g_ptr_array_add(args, g_strdup("-U"));
    }
    return args;
}

JsonObject *weir_disk_info(const WeirDisk *disk, bool in_use,
                           const char *bin_dir, GError **error)
{
    g_autofree char *program = weir_program_find(bin_dir, "qemu-img", error);
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE);
    g_autoptr(GSubprocess) process = NULL;
    g_autoptr(JsonNode) answer = NULL;
    g_autofree char *output = NULL;
    g_autofree char *message = NULL;
    g_autofree char *image = disk_image(disk);
    g_autoptr(GPtrArray) args = program ? disk_info_args(disk, program, in_use)
                                        : NULL;

    if (!args || !disk_give_secret(disk, launcher, args, error)) {
        return NULL;
    }
    g_ptr_array_add(args, g_strdup(image));
    g_ptr_array_add(args, NULL);
    g_subprocess_launcher_set_child_setup(launcher, weir_child_setup, NULL,
                                          NULL);
    process = g_subprocess_launcher_spawnv(
        launcher, (const char *const *)args->pdata, error);
    if (!process ||
        !g_subprocess_communicate_utf8(process, NULL, NULL, &output, &message,
                                       error)) {
        return NULL;
    }
    if (!g_subprocess_get_successful(process)) {
        weir_set_error(error, "disk %s (%s) cannot be used as %s: %s",
                       disk->id, disk->file, disk->format,
                       disk_message(message, image));
        return NULL;
    }
    answer = weir_json_parse(output, strlen(output), error);
    if (!answer) {
        return NULL;
    }
    if (!weir_json_as_object(answer)) {
        weir_set_error(error, "%s tells nothing of %s", program, disk->file);
        return NULL;
    }
    return json_object_ref(weir_json_as_object(answer));
}

bool weir_disk_check(const WeirDisk *disk, const char *bin_dir,
                     GError **error)
{
    JsonObject *info;

    if (disk_needs_objects(disk)) {
        return true;        /* QEMU will tell */
    }
    info = weir_disk_info(disk, false, bin_dir, error);
    if (!info) {
        return false;
    }
    json_object_unref(info);
    if (!disk->remote && !disk->read_only && access(disk->file, W_OK) < 0) {
        weir_set_error(error, "disk %s (%s) cannot be written to: %s "
                       "(read-only=on opens it for reading)", disk->id,
                       disk->file, g_strerror(errno));
        return false;
    }
    return true;
}
