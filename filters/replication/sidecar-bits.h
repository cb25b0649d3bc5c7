/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_SIDECAR_BITS_H
#define WEIR_REPLICATION_SIDECAR_BITS_H

#include "replication/bitmap.h"
#include "replication/sidecar.h"

/* Which blocks of its disk a sidecar says are to be copied. */

/* Its device. These return 0 or -errno, and may yield. */
typedef struct WeirSidecarDevice {
    void *opaque;
    int (*read)(void *opaque, uint64_t offset, uint64_t bytes, void *buf);
    int (*write)(void *opaque, uint64_t offset, uint64_t bytes,
                 const void *buf);
    int (*flush)(void *opaque);
} WeirSidecarDevice;

/* What a sidecar for a disk should have. */
uint64_t weir_sidecar_bytes(uint64_t disk_bytes);

/*
 * Mark what it says; a sector that is damaged says that all of it is dirty.
 * sidecar: as it was read. dirty: of its disk_bytes. Uses read() only.
 * Returns 0 or the error of a read.
 */
int weir_sidecar_dirty(const WeirSidecarDevice *device,
                       const WeirSidecar *sidecar, WeirBitmap *dirty);

/*
 * Write one that is clean and says what is dirty, as blocks, or as regions
 * where the device is too small for blocks. Durable when it has returned 0;
 * else it is what it was, or says more than it did.
 * sidecar: with the sequence of the last one that was there, and all else as it
 * is to be but for clean and block_sectors; set. bytes: of the device.
 */
int weir_sidecar_put(const WeirSidecarDevice *device, WeirSidecar *sidecar,
                     uint64_t bytes, const WeirBitmap *dirty);

#endif
