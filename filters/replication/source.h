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
 * What cannot go to the log, because memory for it is used up, is marked in a
 * bitmap of blocks, and copied from the disk later. While a disk has such
 * blocks, epochs are no points in time. A sidecar is a small device that tells
 * after a crash which parts of its disk may not be in the log
 * (docs/weir-replication-sidecar.md); without one, all of it is copied each
 * time that a source begins.
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

/* What waits for the log, while there is none: */
typedef enum WeirSourceOnLoss {
    WEIR_SOURCE_DEGRADE,        /* does not */
    WEIR_SOURCE_SUSPEND,        /* does, until there is one again */
    WEIR_SOURCE_ERROR,          /* fails with -EIO */
} WeirSourceOnLoss;

/*
 *                 connect()                 all is copied
 *   DISCONNECTED -----------> SYNCHRONISING -----------> STREAMING
 *     |  ^  ^  connect(), and nothing to copy ------------^  |  |
 *     |  |  +-- an error of the log --+----------------------+  |
 *     |  +----------------------------+ <-- memory is used up --+
 *     +-- connect(): -ESTALE --> STOPPED
 */
typedef enum WeirSourceState {
    WEIR_SOURCE_DISCONNECTED,   /* what is written is kept, or marked */
    WEIR_SOURCE_SYNCHRONISING,
    WEIR_SOURCE_STREAMING,
    WEIR_SOURCE_STOPPED,        /* this log is none to go on with */
} WeirSourceState;

typedef struct WeirSourceConfig {
    WeirSourceMode mode;
    WeirSourceOnLoss on_loss;
    uint64_t epoch_interval_ns;
    uint64_t epoch_bytes;       /* an epoch with so much ends at once */
    uint64_t max_memory_bytes;
    uint64_t max_rate;          /* bytes per second to the log; 0: no limit */
    bool compress;              /* what gets shorter by it; the log has to be
                                   one that takes that */
} WeirSourceConfig;

#define WEIR_SOURCE_FUA 1u      /* durable when it has ended */
#define WEIR_SOURCE_MAY_UNMAP 2u        /* zeroes may be no longer allocated */

/*
 * These yield, and return 0 or -errno. disk: as in weir_source_add_disk().
 * flags: of the request, WEIR_SOURCE_*. Those of the log may fail as late as
 * they like: no new session begins before the last one of the old has ended.
 */
typedef struct WeirSourceHost {
    int (*read_disk)(void *disk, uint64_t offset, uint64_t bytes, void *buf);
    int (*write_disk)(void *disk, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags);
    int (*zero_disk)(void *disk, uint64_t offset, uint64_t bytes,
                     unsigned flags);
    int (*discard_disk)(void *disk, uint64_t offset, uint64_t bytes);
    int (*flush_disk)(void *disk);
    /* extent_bytes: 1 to bytes, of which all or nothing surely reads as 0 */
    int (*status_disk)(void *disk, uint64_t offset, uint64_t bytes,
                       uint64_t *extent_bytes, bool *zero);

    int (*read_sidecar)(void *disk, uint64_t offset, uint64_t bytes,
                        void *buf);
    int (*write_sidecar)(void *disk, uint64_t offset, uint64_t bytes,
                         const void *buf);
    int (*flush_sidecar)(void *disk);

    int (*read_log)(void *opaque, uint64_t offset, uint64_t bytes, void *buf);
    int (*write_log)(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov);
    /*
     * -ENOTCONN: whoever serves the log is gone, and has not told how it ended;
     * what is read later is all that there is. Any other error: what was
     * written before may be lost although it is read.
     */
    int (*flush_log)(void *opaque);

    /*
     * Run fn(arg), which computes and does not call anybody, in a thread where
     * that keeps no request from going on. Yields until it has ended. NULL: it
     * is run where the source is.
     */
    void (*compute)(void *opaque, void (*fn)(void *arg), void *arg);
} WeirSourceHost;

typedef struct WeirSourceInfo {
    WeirSourceState state;
    uint64_t generation;        /* of the log; 0: none is known yet */
    uint64_t epoch;             /* the last one that is durable in the log */
    uint64_t queued_bytes;      /* written to the disks, not durable there */
    uint64_t rpo_ns;            /* age of the oldest of these; 0: none */
    uint64_t memory_bytes;
    uint64_t sent_bytes;        /* to the log, all in all */
    uint64_t plain_bytes;       /* that would be without compression */
    uint64_t rate;              /* of that, in the last seconds, per second */
    uint64_t connections;
} WeirSourceInfo;

typedef struct WeirSourceDiskInfo {
    uint64_t resync_bytes;      /* left to copy */
    uint64_t resync_total;      /* to copy when that began */
} WeirSourceDiskInfo;

/*
 * tasks, host: live as long. opaque: for the host's. Returns 0 or -ENOMEM.
 */
int weir_source_new(WeirSource **out, const WeirTasks *tasks,
                    const WeirSourceHost *host, void *opaque,
                    const WeirSourceConfig *config);

/* After weir_source_run() has returned, with no request under way. */
void weir_source_free(WeirSource *s);

/*
 * Another disk of the group. All of it is to be copied, unless a sidecar tells
 * otherwise. A log that is connected is lost by it; connect again, with the
 * sidecar open.
 * name: less than WEIR_LOG_NAME_BYTES. disk: for the host. has_sidecar: no
 * session begins until weir_source_open_sidecar() has succeeded. Yields not.
 * Returns 0, -ENOMEM; -ENOSPC: there are 64; -EEXIST: one has that name.
 */
int weir_source_add_disk(WeirSource *s, const char *name, uint64_t bytes,
                         void *disk, bool has_sidecar, WeirSourceDisk **out);

/*
 * Use a sidecar, which is made if there are zeroes. Before the first request
 * of the disk, and before a log is connected; not before somebody else has let
 * go of both. Yields.
 * bytes: of the sidecar; see weir_source_sidecar_bytes().
 * Returns 0; -EINVAL: it is of another disk, or none; -ENOSPC: too small; the
 * error of a request. err: a message.
 */
int weir_source_open_sidecar(WeirSourceDisk *d, uint64_t bytes, char *err,
                             size_t err_size);

/* What the sidecar of such a disk should have. */
uint64_t weir_source_sidecar_bytes(uint64_t disk_bytes);

/*
 * The disk is going to be used without the source: its sidecar must not say
 * then that the log has anything of it. To be called before that, while
 * requests may be under way; weir_source_close_disk() follows. Yields. Returns
 * 0, or an error of the sidecar: then nobody may use the disk past the source.
 */
int weir_source_abandon_disk(WeirSourceDisk *d);

/*
 * The disk is not used any more: with no request of it under way, and none to
 * come. Its sidecar is left clean, so that little is to copy when it comes
 * again; nothing, after weir_source_run() has sent all. Yields; d is gone.
 * Returns 0, or an error of the disk or the sidecar: then that is as after a
 * crash.
 */
int weir_source_close_disk(WeirSourceDisk *d);

/*
 * The same for a disk that was just added, whose sidecar could not be opened.
 * Yields; d is gone.
 */
void weir_source_forget_disk(WeirSourceDisk *d);

/*
 * Read the log, and go on behind its end: what was sent before and is there is
 * done with, what is not there is sent again. Yields.
 * device_bytes: of the log. Not while it is connected, nor twice at a time.
 * Returns 0; -ESTALE: the log is another one than before, of other disks, was
 * promoted, or somebody else has written to it: the source is STOPPED, and
 * connecting again does not help; else the error of a request, or of the
 * superblock. err: a message.
 */
int weir_source_connect(WeirSource *s, uint64_t device_bytes, char *err,
                        size_t err_size);

/*
 * Send epochs to the log until weir_source_stop(), and all that is left then if
 * it can. Yields. After an error of the log the source is DISCONNECTED, and
 * goes on when it is connected again. Requests that wait for a log that is not
 * connected fail when it is stopped.
 */
void weir_source_run(WeirSource *s);
void weir_source_stop(WeirSource *s);

/*
 * End the epoch of now soon. Returns its number, for weir_source_is_sending():
 * whether it is not in the log yet, but on its way there. Do not yield.
 */
uint64_t weir_source_cut(WeirSource *s);
bool weir_source_is_sending(WeirSource *s, uint64_t serial);

/*
 * Another source may write to the log from now on. Not while connecting; as
 * weir_source_disconnect() does, but yields, and nothing is under way after it.
 */
void weir_source_end_session(WeirSource *s);

/*
 * The host has found out that the log cannot be reached any more: as if a
 * request had failed. Does not yield.
 */
void weir_source_disconnect(WeirSource *s);

/*
 * Whether what WEIR_SOURCE_SUSPEND has wait fails instead, with -EIO: the host
 * stands still until it has ended. Does not yield.
 */
void weir_source_set_impatient(WeirSource *s, bool impatient);

/*
 * Requests of a guest, of any length, within the disk. They yield.
 * iov: the bytes; they are read once if they go to the log. flags:
 * WEIR_SOURCE_*; with _FUA, in WEIR_SOURCE_FLUSH_SYNC too, it waits.
 * Returns 0, -ENOMEM, the error of the disk or the sidecar: then the range may
 * hold anything; -EIO by WEIR_SOURCE_ERROR.
 */
int weir_source_write(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags);
int weir_source_zero(WeirSourceDisk *d, uint64_t offset, uint64_t bytes,
                     unsigned flags);
int weir_source_discard(WeirSourceDisk *d, uint64_t offset, uint64_t bytes);

/*
 * Change the length of a disk, when no other request is under way.
 * resize(arg): does that to the disk; yields, returns 0 or -errno.
 * Yields. Returns 0, -ENOMEM; -EFBIG: too long for the sidecar; what resize
 * returns.
 */
int weir_source_resize(WeirSourceDisk *d, uint64_t bytes,
                       int (*resize)(void *arg), void *arg);

/*
 * After the disk itself has been flushed: in WEIR_SOURCE_FLUSH_SYNC and
 * _WRITE_SYNC, wait until all that has ended before is durable in the log.
 * Yields. Returns 0; -EIO by WEIR_SOURCE_ERROR.
 */
int weir_source_flush(WeirSourceDisk *d);

/*
 * Give what has been written until now a name, as a point in time of its own.
 * name: 1 to WEIR_LOG_MARK_BYTES_MAX bytes of UTF-8. Does not yield.
 * Returns 0; -EINVAL: no such name; -EAGAIN: the source is not STREAMING, or
 * has no memory for it. err: a message.
 */
int weir_source_mark(WeirSource *s, const char *name,
                     bool application_consistent, char *err, size_t err_size);

void weir_source_info(WeirSource *s, WeirSourceInfo *info);
void weir_source_disk_info(WeirSourceDisk *d, WeirSourceDiskInfo *info);

#endif
