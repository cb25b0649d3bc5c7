/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk as the --disk option describes it. */
#ifndef WEIR_DISK_H
#define WEIR_DISK_H

#include <stdbool.h>

#include "json.h"
#include "secret.h"

typedef enum WeirDevice {
    WEIR_DEVICE_VIRTIO_BLK,
    WEIR_DEVICE_VIRTIO_SCSI,
    WEIR_DEVICE_NONE,
} WeirDevice;

typedef struct WeirDisk {
    char *file;             /* as it was given: a path or an address */
    JsonObject *remote;     /* options of the node at an address; NULL */
    WeirSecret *secret;     /* of that address; NULL: none */
    char *format;
    char *policy;           /* NULL: not given */
    char *id;
    char *prefix;           /* of node names */
    char *aio;              /* NULL: QEMU's default */
    char *iothread;         /* NULL: none */
    WeirDevice device;
    bool cache_direct;
    bool cache_no_flush;
    bool read_only;
    bool discard;
} WeirDisk;

/*
 * Parse "file=F,format=raw,...".  A comma in a value is written twice.
 *
 * @text: the description
 * @number: of the disk, from 0: its id is "disk" with the number if the
 *     description has none
 * Returns the disk, which the caller frees with weir_disk_free(), or NULL
 * with @error set.
 */
WeirDisk *weir_disk_parse(const char *text, guint number, GError **error);

/* NULL is fine. */
void weir_disk_free(WeirDisk *disk);

/*
 * The driver of the disk's storage node, a static string or the disk's: that of
 * the address, "host_device" if the file is a block device now, or "file".
 */
const char *weir_disk_driver(const WeirDisk *disk);

/* What to call the disk by its file, without directories; to be freed. */
char *weir_disk_name(const WeirDisk *disk);

/* Whether no two of @disks (WeirDisk) share an id or a file that is written. */
bool weir_disks_distinct(const GPtrArray *disks, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirDisk, weir_disk_free)

#endif
