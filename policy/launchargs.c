/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "launchargs.h"

#include "storagerecord.h"
#include "vhostuser.h"

static void launch_add(GPtrArray *args, const char *option, char *value)
{
    g_ptr_array_add(args, g_strdup(option));
    g_ptr_array_add(args, value);
}

/* Add -device with @object, which is consumed. */
static void launch_add_device(GPtrArray *args, JsonObject *object)
{
    launch_add(args, "-device", weir_json_object_text(object, false));
    json_object_unref(object);
}

static JsonObject *launch_device(const char *driver, const char *id)
{
    JsonObject *device = json_object_new();

    json_object_set_string_member(device, "driver", driver);
    json_object_set_string_member(device, "id", id);
    return device;
}

/* What becomes of requests that fail. */
static void launch_set_on_error(JsonObject *device, WeirOnError on_error)
{
    const char *name = weir_on_error_name(on_error);

    if (name) {
        /* a read cannot lack space */
        json_object_set_string_member(device, "werror", name);
        json_object_set_string_member(device, "rerror",
                                      on_error == WEIR_ON_ERROR_ENOSPC
                                      ? "report" : name);
    }
}

static void launch_add_disk_device(GPtrArray *args, const WeirDisk *disk,
                                   WeirOnError on_error, const char *node)
{
    g_autofree char *controller_id = g_strconcat(disk->id, "-scsi", NULL);
    g_autofree char *bus = g_strconcat(controller_id, ".0", NULL);
    JsonObject *controller = NULL;
    JsonObject *device;

    if (disk->device == WEIR_DEVICE_NONE) {
        return;
    }
    if (disk->device == WEIR_DEVICE_VIRTIO_SCSI) {
        controller = launch_device("virtio-scsi", controller_id);
        device = launch_device("scsi-hd", disk->id);
        json_object_set_string_member(device, "bus", bus);
    } else {
        device = launch_device("virtio-blk", disk->id);
    }
    json_object_set_string_member(device, "drive", node);
    launch_set_on_error(device, on_error);
    if (disk->iothread) {
        json_object_set_string_member(controller ? controller : device,
                                      "iothread", disk->iothread);
    }
    if (controller) {
        launch_add_device(args, controller);
    }
    launch_add_device(args, device);
}

bool weir_launch_check_device(const WeirDisk *disk, const WeirPolicy *policy,
                              GError **error)
{
    if (policy->run == WEIR_RUN_OUT_OF_PROCESS &&
        disk->device == WEIR_DEVICE_VIRTIO_SCSI) {
        weir_set_error(error, "disk %s: found device=virtio-scsi, expected "
                       "virtio-blk or none for a disk out of process (policy "
                       "'%s')", disk->id, policy->name);
        return false;
    }
    if (policy->on_error != WEIR_ON_ERROR_DEFAULT &&
        disk->device == WEIR_DEVICE_NONE) {
        weir_set_error(error, "disk %s: found device=none, expected a device: "
                       "policy '%s' has on-error, which is one of its options",
                       disk->id, policy->name);
        return false;
    }
    return true;
}

bool weir_launch_is_outside(const WeirLaunch *launch, guint index)
{
    const WeirPolicy *policy = g_ptr_array_index(launch->policies, index);

    return policy->run == WEIR_RUN_OUT_OF_PROCESS;
}

bool weir_launch_has_outside(const WeirLaunch *launch)
{
    for (guint i = 0; i < launch->policies->len; i++) {
        if (weir_launch_is_outside(launch, i)) {
            return true;
        }
    }
    return false;
}

static void launch_add_iothreads(GPtrArray *args, const WeirLaunch *launch)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < launch->disks->len; i++) {
        const WeirDisk *disk = g_ptr_array_index(launch->disks, i);

        if (disk->iothread && !weir_launch_is_outside(launch, i) &&
            g_hash_table_add(seen, disk->iothread)) {
            launch_add(args, "-object",
                       g_strdup_printf("iothread,id=%s", disk->iothread));
        }
    }
}

static void launch_add_secrets(GPtrArray *args, const GPtrArray *secrets,
                               const GArray *fds)
{
    for (guint i = 0; i < secrets->len; i++) {
        const WeirSecret *secret = g_ptr_array_index(secrets, i);

        launch_add(args, "-object",
                   g_strdup_printf("secret,id=%s,file=/dev/fd/%d", secret->id,
                                   g_array_index(fds, int, i)));
    }
}

/* Add a disk with its device. */
static void launch_add_disk(GPtrArray *args, const WeirLaunch *launch,
                            guint index)
{
    const WeirDisk *disk = g_ptr_array_index(launch->disks, index);
    const WeirPolicy *policy = g_ptr_array_index(launch->policies, index);
    const GPtrArray *chain = g_ptr_array_index(launch->chains, index);
    g_autofree char *sockets = weir_record_sockets(launch->dir, launch->name);
    g_autofree char *socket = g_build_filename(sockets, disk->id, NULL);

    if (weir_launch_is_outside(launch, index)) {
        weir_vhostuser_add_device(args, disk, socket);
        return;
    }
    for (guint i = 0; i < chain->len; i++) {
        const WeirChainNode *node = g_ptr_array_index(chain, i);

        launch_add(args, "-blockdev",
                   weir_json_object_text(node->options, false));
    }
    launch_add_disk_device(args, disk, policy->on_error,
                           weir_chain_top(chain));
}

GPtrArray *weir_launch_args(const WeirLaunch *launch, int qmp_fd,
                            const GArray *secret_fds, GError **error)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(args, g_strdup(launch->qemu));
    launch_add(args, "-name", g_strdup_printf("guest=%s", launch->name));
    g_ptr_array_add(args, g_strdup("-S"));
    launch_add(args, "-chardev",
               g_strdup_printf("socket,id=weir-qmp,fd=%d,server=on,wait=off",
                               qmp_fd));
    launch_add(args, "-mon", g_strdup("chardev=weir-qmp,mode=control"));
    launch_add_iothreads(args, launch);
    launch_add_secrets(args, launch->secrets, secret_fds);
    if (weir_launch_has_outside(launch) &&
        !weir_vhostuser_add_memory(args, launch->args, error)) {
        return NULL;
    }
    for (guint i = 0; i < launch->disks->len; i++) {
        launch_add_disk(args, launch, i);
    }
    for (char **arg = launch->args; *arg; arg++) {
        g_ptr_array_add(args, g_strdup(*arg));
    }
    g_ptr_array_add(args, NULL);
    return g_steal_pointer(&args);
}
