/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vhostuser.h"

#include <string.h>

#define VHOSTUSER_MIB ((guint64)1 << 20)
#define VHOSTUSER_DEFAULT_BYTES (128 * VHOSTUSER_MIB)
/* QEMU rounds up to that */
#define VHOSTUSER_ALIGN_BYTES ((guint64)8192)
#define VHOSTUSER_MAX_BYTES ((double)((guint64)1 << 50))

static void vhostuser_add(GPtrArray *args, const char *option, char *value)
{
    g_ptr_array_add(args, g_strdup(option));
    g_ptr_array_add(args, value);
}

void weir_vhostuser_add_device(GPtrArray *args, const WeirDisk *disk,
                               const char *socket)
{
    g_autofree char *chardev = g_strconcat("weir-vhost-", disk->id, NULL);
    g_autoptr(JsonObject) device = json_object_new();
    g_auto(GStrv) parts = NULL;
    g_autofree char *path = NULL;

    if (disk->device == WEIR_DEVICE_NONE) {
        return;
    }
    /* a comma in an option is written twice */
    parts = g_strsplit(socket, ",", -1);
    path = g_strjoinv(",,", parts);
    vhostuser_add(args, "-chardev",
                  g_strdup_printf("socket,id=%s,path=%s,reconnect-ms=%d",
                                  chardev, path,
                                  WEIR_VHOSTUSER_RECONNECT_MS));
    json_object_set_string_member(device, "driver", "vhost-user-blk-pci");
    json_object_set_string_member(device, "id", disk->id);
    json_object_set_string_member(device, "chardev", chardev);
    vhostuser_add(args, "-device", weir_json_object_text(device, false));
}

guint64 weir_vhostuser_memory_bytes(const char *text)
{
    static const char units[] = "BKMGTP";
    const char *end = text + strcspn(text, ",");
    g_autofree char *size = NULL;
    const char *unit;
    char *rest;
    double amount;

    if (g_str_has_prefix(text, "size=")) {
        text += strlen("size=");
    }
    if (end <= text) {
        return 0;
    }
    size = g_strndup(text, (gsize)(end - text));
    amount = g_ascii_strtod(size, &rest);
    if (rest == size || !(amount > 0)) {
        return 0;
    }
    unit = *rest ? strchr(units, g_ascii_toupper(*rest)) : strchr(units, 'M');
    if (!unit || (*rest && rest[1])) {
        return 0;
    }
    for (; unit > units; unit--) {
        amount *= 1024;
    }
    if (amount > VHOSTUSER_MAX_BYTES) {
        return 0;
    }
    return ((guint64)amount + VHOSTUSER_ALIGN_BYTES - 1) /
           VHOSTUSER_ALIGN_BYTES * VHOSTUSER_ALIGN_BYTES;
}

/* Whether @arg is that option, with one dash or two. */
static bool vhostuser_is(const char *arg, const char *option)
{
    return g_strcmp0(arg, option) == 0 ||
           (arg[0] == '-' && g_strcmp0(arg + 1, option) == 0);
}

/* Whether the user has chosen what the memory of the guest is made of. */
static bool vhostuser_has_memory(char *const *user)
{
    for (; *user; user++) {
        if (vhostuser_is(*user, "-numa") ||
            ((vhostuser_is(*user, "-machine") || vhostuser_is(*user, "-M")) &&
             user[1] && strstr(user[1], "memory-backend="))) {
            return true;
        }
    }
    return false;
}

bool weir_vhostuser_add_memory(GPtrArray *args, char *const *user,
                               GError **error)
{
    guint64 bytes = VHOSTUSER_DEFAULT_BYTES;

    if (vhostuser_has_memory(user)) {
        return true;
    }
    for (char *const *arg = user; *arg; arg++) {
        if (vhostuser_is(*arg, "-m") && arg[1]) {
            bytes = weir_vhostuser_memory_bytes(arg[1]);
        }
        if (bytes == 0) {
            weir_set_error(error, "-m: found '%s', expected a size such as "
                           "512, 512M or 2G: disks out of process need memory "
                           "of that size that is shared", arg[1]);
            return false;
        }
    }
    vhostuser_add(args, "-object", g_strdup_printf(
        "memory-backend-memfd,id=weir-memory,size=%" G_GUINT64_FORMAT
        ",share=on", bytes));
    vhostuser_add(args, "-machine", g_strdup("memory-backend=weir-memory"));
    return true;
}
