/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_KEEPER_H
#define WEIR_REPLICATION_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "replication/packet.h"
#include "replication/tasks.h"

/*
 * The keeper of a replication log: checks what a writer sends before it reaches
 * the device, knows which points in time there are, applies old epochs to the
 * base images and frees their space, and decides who may write.
 *
 * It calls its host for I/O and for waiting. A function that "yields" calls the
 * host; no lock is held over that. Any thread may call any function, but for
 * those of which it is told. Offsets and lengths are bytes. Functions return 0
 * or -errno; err: a message of one line without a dot, set if they fail.
 *
 *   new -> add_base ... -> open -> run (a task) and requests of clients, views
 *       -> stop -> run returns -> close all views -> free
 */

typedef struct WeirKeeper WeirKeeper;

#ifndef WEIR_KEEPER_INDEXED_SEGMENTS_MIN        /* tests have fewer */
#define WEIR_KEEPER_INDEXED_SEGMENTS_MIN 8      /* of a log with an index */
#endif

#define WEIR_KEEPER_MESSAGE_BYTES 320   /* as much as an err has to hold */

typedef struct WeirKeeperHost {
    const WeirTasks *tasks;
    void *opaque;               /* for those of the log, and changed() */

    /* All of these yield. They do all that they are asked to, or fail. */
    int (*read_log)(void *opaque, uint64_t offset, uint64_t bytes, void *buf);
    int (*write_log)(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov);
    int (*flush_log)(void *opaque);
    /*
     * base: as in weir_keeper_add_base(). Ranges are within the length that
     * length_base() or resize_base() told last. Several are under way at once.
     */
    int (*read_base)(void *base, uint64_t offset, uint64_t bytes, void *buf);
    int (*write_base)(void *base, uint64_t offset, uint64_t bytes,
                      const void *buf);
    int (*zero_base)(void *base, uint64_t offset, uint64_t bytes);
    /* What it reads as afterwards does not matter; -ENOTSUP is no failure. */
    int (*discard_base)(void *base, uint64_t offset, uint64_t bytes);
    /*
     * What is new reads as zeroes. Where a base cannot get shorter, -ENOTSUP:
     * then it stays longer than its disk.
     */
    int (*resize_base)(void *base, uint64_t bytes);
    int (*flush_base)(void *base);
    int64_t (*length_base)(void *base);         /* or -errno */

    /* Of those bases that have one. They yield. */
    int (*read_sidecar)(void *base, uint64_t offset, uint64_t bytes,
                        void *buf);
    int (*write_sidecar)(void *base, uint64_t offset, uint64_t bytes,
                         const void *buf);
    int (*flush_sidecar)(void *base);

    /*
     * weir_keeper_state() may tell something else from now on. Does not yield;
     * the keeper's lock may be held: call nothing of the keeper from here.
     * NULL: nobody cares.
     */
    void (*changed)(void *opaque);
} WeirKeeperHost;

/* All of it may be changed while the keeper runs. */
typedef struct WeirKeeperConfig {
    uint64_t retain_ns;         /* points are kept for, while there is room */
    uint64_t retain_bytes;      /* of the log in use, before older epochs are
                                   applied whatever their age; 0: three quarters
                                   of the ring */
    uint64_t apply_rate;        /* bytes/s to the bases; 0: no limit */
    uint64_t lease_ns;          /* a session without packets for so long may be
                                   followed by another; 0: 5 s */
    uint64_t index_bytes_max;   /* memory for what the log holds; beyond that
                                   epochs are applied, and if they cannot be,
                                   packets refused; 0: 64 MiB, more where a
                                   segment has more than 512 MiB; 1 GiB for a
                                   log without an index on disk */
} WeirKeeperConfig;

typedef enum WeirKeeperApply {
    WEIR_KEEPER_IDLE,           /* nothing is old enough */
    WEIR_KEEPER_APPLYING,
    WEIR_KEEPER_HELD_BY_VIEW,   /* the next point is behind that of a view */
    WEIR_KEEPER_HELD_BY_RESYNC, /* what is next is no point in time yet, and
                                   the last one must stay usable */
    WEIR_KEEPER_NO_BASE,        /* a disk has no base image */
    WEIR_KEEPER_APPLY_FAILS,    /* tried again every few seconds */
} WeirKeeperApply;

typedef enum WeirKeeperState {
    WEIR_KEEPER_OK,
    WEIR_KEEPER_DEGRADED,       /* see the reason; receiving goes on, or waits
                                   for room */
    WEIR_KEEPER_FAILED,         /* the log can be read, not written */
} WeirKeeperState;

typedef struct WeirKeeperInfo {
    uint8_t group[WEIR_LOG_UUID_BYTES];
    uint64_t generation;
    uint64_t epoch;             /* the last one that is whole */
    uint64_t durable_epoch;
    uint64_t applied_epoch;     /* that the bases are at */
    uint64_t point_epoch;       /* the last point in time; 0: none */
    uint64_t points;            /* that can be opened */
    uint64_t size_bytes;        /* of the ring */
    uint64_t used_bytes;        /* of it */
    uint64_t index_bytes;       /* of memory */
    uint64_t records;           /* in it */
    uint64_t refused;           /* requests of clients */
    uint64_t lost_epoch;        /* up to here there was something that damage
                                   has made unreadable, found at opening; 0:
                                   none */
    uint64_t applied_bytes;     /* written to the bases since opening */
    uint64_t chapters;          /* segments whose records are on disk */
    uint64_t chapters_rebuilt;  /* since their indexes were damaged */
    uint32_t views;             /* that are open */
    uint32_t disks;             /* that are known */
    WeirKeeperApply apply;
    int apply_error;            /* the last result of applying */
} WeirKeeperInfo;

/* What the sidecar of a base is good for. */
typedef enum WeirKeeperSidecar {
    WEIR_KEEPER_SIDECAR_NONE,   /* there is none */
    WEIR_KEEPER_SIDECAR_BASE,   /* nothing yet */
    WEIR_KEEPER_SIDECAR_DISK,   /* the base was promoted: what a disk needs */
    WEIR_KEEPER_SIDECAR_FAILED, /* the same, but it could not be written */
} WeirKeeperSidecar;

typedef struct WeirKeeperDisk {
    WeirLogDisk what;           /* identity and name */
    uint64_t bytes;             /* by the last valid epoch */
    void *base;                 /* the host's; NULL: none */
    WeirKeeperSidecar sidecar;
} WeirKeeperDisk;

/* A base image of a log that is to be made. */
typedef struct WeirKeeperImage {
    const char *disk;           /* name of its disk */
    void *base;                 /* the host's */
    uint64_t sidecar_bytes;     /* 0: none */
} WeirKeeperImage;

/*
 * Make a log on a device whose first MiB is all zeroes. Yields.
 * segment_bytes: 0 for the default. images: those that have sidecars; what
 * these know of their images, which is what has to be copied, goes into the
 * log, and then they are those of bases. Returns 0; -EEXIST: there is
 * something; -EINVAL: no such segment, or a sidecar is of another disk;
 * -ENOSPC: the device is too small; -ENOMEM; an error of a device.
 */
int weir_keeper_create(const WeirKeeperHost *host, uint64_t device_bytes,
                       uint64_t segment_bytes, const WeirKeeperImage *images,
                       size_t count, char *err, size_t err_size);

/* The same, where no base has a sidecar. */
int weir_keeper_format(const WeirKeeperHost *host, uint64_t device_bytes,
                       uint64_t segment_bytes, char *err, size_t err_size);

/* host: lives as long. Returns 0 or -ENOMEM. */
int weir_keeper_new(WeirKeeper **out, const WeirKeeperHost *host,
                    const WeirKeeperConfig *config);
/* Without views, requests or tasks of it. */
void weir_keeper_free(WeirKeeper *k);

/*
 * An image for the disk with that name; before opening. Returns 0; -EINVAL: no
 * such name; -EEXIST: there is one; -ENOSPC: there are 64.
 */
int weir_keeper_add_base(WeirKeeper *k, const char *disk, void *base,
                         char *err, size_t err_size);

/* The base that was added last has a sidecar. -ENOSPC: it is too small. */
int weir_keeper_add_sidecar(WeirKeeper *k, uint64_t bytes, char *err,
                            size_t err_size);

/*
 * Read the log: the index of its segments, and all that has none. Yields. Not
 * twice.
 * Returns 0; what weir_log_superblock_read() returns (-ENOENT: no log);
 * -EFBIG: its index needs more than twice index_bytes_max; -ESTALE: a sidecar
 * is not that of a base of this log; -ENOMEM; an error of the device, of a base
 * or a sidecar.
 */
int weir_keeper_open(WeirKeeper *k, uint64_t device_bytes, char *err,
                     size_t err_size);

/* For what is not applied yet at once; retain_bytes etc. as in the config. */
void weir_keeper_set_config(WeirKeeper *k, const WeirKeeperConfig *config);

/*
 * Apply and free in the background, until weir_keeper_stop(): then it returns
 * when what it has under way has ended. Yields. Once, in a task of its own.
 */
void weir_keeper_run(WeirKeeper *k);
void weir_keeper_stop(WeirKeeper *k);

/* --- requests of clients; all of them yield --- */

/*
 * A write; it must be one whole packet, at its place. Only what the keeper has
 * found to be in order gets to the device. Returns 0, or nothing of it counts:
 *   -EINVAL  it is no packet, damaged, not where it belongs, of another group
 *            or disk, or does not fit to those before
 *   -EPERM   of an older generation, or of a session that has ended
 *   -EBUSY   another session may still be alive (an NBD server makes EINVAL of
 *            that: answer something that clients can tell apart)
 *   -ENOSPC  there is no room: what is there may still be needed
 *   -ENOMEM, an error of the device: its session has ended by that
 * err: may be NULL.
 */
int weir_keeper_write(WeirKeeper *k, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, char *err,
                      size_t err_size);

/*
 * What is behind the last valid epoch reads as zeroes, so that all agree where
 * the log ends; the superblock as it is durable.
 */
int weir_keeper_read(WeirKeeper *k, uint64_t offset, uint64_t bytes,
                     void *buf);

/*
 * Epochs all of whose packets had been written before are durable when it has
 * returned 0. When it fails, epochs that were not durable are gone, and so is
 * the session.
 */
int weir_keeper_flush(WeirKeeper *k);

/* Count a request that the host refuses: zeroing, discarding, resizing. */
void weir_keeper_refuse(WeirKeeper *k);

/* --- what is told --- */

void weir_keeper_info(WeirKeeper *k, WeirKeeperInfo *info);
/* reason: of WEIR_KEEPER_MESSAGE_BYTES, empty when it is OK. */
WeirKeeperState weir_keeper_state(WeirKeeper *k, char *reason);
/* False: there is no disk of that number (0 to 63). */
bool weir_keeper_disk(WeirKeeper *k, uint16_t number, WeirKeeperDisk *disk);

/* --- promotion --- */

/*
 * End the generation behind a point in time: later epochs are gone, sessions of
 * now cannot write any more. Durable when it has returned 0. Yields.
 * epoch: of the point, see weir_point_find(). Sidecars of bases that cannot be
 * written are told by weir_keeper_disk().
 * Returns 0; -ENOENT: no point has that number (any more); -EBUSY: a later one
 * is open, or the log holds epochs of 32 generations already; else the error of
 * the device: whether it has happened is found out when that works again, and
 * nobody can write until then.
 */
int weir_keeper_promote(WeirKeeper *k, uint64_t epoch, char *err,
                        size_t err_size);

/*
 * Have all up to an epoch applied, whatever its age. Takes effect in
 * weir_keeper_run(); for the last epoch that was asked for.
 * Does not yield.
 */
void weir_keeper_apply_to(WeirKeeper *k, uint64_t epoch);

/*
 * How far that is. done, total: bytes of the log, of what was to be applied
 * when it was asked for. Returns 1: it is done; 0: not yet; the error that it
 * stops at for now.
 */
int weir_keeper_applied_to(WeirKeeper *k, uint64_t epoch, uint64_t *done,
                           uint64_t *total);

#endif
