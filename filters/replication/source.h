/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_SOURCE_H
#define WEIR_REPLICATION_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replication/packet.h"
#include "replication/tasks.h"

/*
 * The source of a replication: writes of a group of disks go to the disks and,
 * in the order in which they ended there, epoch by epoch to a log.
 *
 * The whole way of a request is written here once, straight down, and calls its
 * host for I/O and for waiting. A function that "yields" calls the host; no
 * lock is held over that. Any thread may call any function. Offsets and lengths
 * are bytes. Functions return 0 or -errno.
 */

typedef struct WeirSource WeirSource;
typedef struct WeirSourceDisk WeirSourceDisk;

typedef enum WeirSourceMode {
    WEIR_SOURCE_ASYNC,
    WEIR_SOURCE_FLUSH_SYNC,     /* a flush waits for its epoch */
    WEIR_SOURCE_WRITE_SYNC,     /* a write does */
} WeirSourceMode;

typedef enum WeirSourceState {
    WEIR_SOURCE_DISCONNECTED,   /* what is written is kept in memory */
    WEIR_SOURCE_STREAMING,
} WeirSourceState;

typedef struct WeirSourceConfig {
    WeirSourceMode mode;
    uint64_t epoch_interval_ns;
    uint64_t epoch_bytes;       /* an epoch with so much ends at once */
    uint64_t max_memory_bytes;
} WeirSourceConfig;

/* These yield. disk: as in weir_source_add_disk(). */
typedef struct WeirSourceHost {
    int (*write_disk)(void *disk, uint64_t offset, uint64_t bytes,
                      const void *buf);
    int (*read_log)(void *opaque, uint64_t offset, uint64_t bytes, void *buf);
    int (*write_log)(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov);
    int (*flush_log)(void *opaque);
} WeirSourceHost;

typedef struct WeirSourceInfo {
    WeirSourceState state;
    uint64_t epoch;             /* the last one that is durable in the log */
    uint64_t queued_bytes;      /* written to the disks, not durable there */
    uint64_t rpo_ns;            /* age of the oldest of these; 0: none */
    uint64_t memory_bytes;
    uint64_t sent_bytes;        /* to the log, all in all */
} WeirSourceInfo;

/*
 * tasks, host: live as long. opaque: for the host's. Returns 0 or -ENOMEM.
 */
int weir_source_new(WeirSource **out, const WeirTasks *tasks,
                    const WeirSourceHost *host, void *opaque,
                    const WeirSourceConfig *config);

/* After weir_source_run() has returned, with no request under way. */
void weir_source_free(WeirSource *s);

/*
 * Another disk of the group; before the first weir_source_connect().
 * disk: for the host. Returns 0, -ENOMEM or -ENOSPC: there are 64.
 */
int weir_source_add_disk(WeirSource *s, const WeirLogDisk *what,
                         uint64_t bytes, void *disk, WeirSourceDisk **out);

/*
 * Read the log, and go on behind its end: what was sent before and is there is
 * done with, what is not there is sent again. Yields.
 * device_bytes: of the log. Not while it is streaming, nor twice at a time.
 * Returns 0; -ESTALE: the log does not end with what was sent: it is another
 * one, or somebody else has written to it; else the error of a read, or of the
 * superblock. err: a message.
 */
int weir_source_connect(WeirSource *s, uint64_t device_bytes, char *err,
                        size_t err_size);

/*
 * Send epochs to the log until weir_source_stop(), and all that is left then if
 * it can. Yields. After an error of the log the source is DISCONNECTED, and
 * goes on when it is connected again.
 */
void weir_source_run(WeirSource *s);
void weir_source_stop(WeirSource *s);

/*
 * A write of a guest, of up to WEIR_LOG_WRITE_BYTES_MAX / 2. Yields.
 * iov: the bytes; they are read once, before anything is written.
 * Returns 0, -ENOMEM, or the error of the disk: then nothing is in the log.
 */
int weir_source_write(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov);

/*
 * After the disk itself has been flushed: in WEIR_SOURCE_FLUSH_SYNC and
 * _WRITE_SYNC, wait until all that has ended before is durable in the log.
 * Yields.
 */
void weir_source_flush(WeirSourceDisk *d);

void weir_source_info(WeirSource *s, WeirSourceInfo *info);

#endif
