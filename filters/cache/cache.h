/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_CACHE_H
#define WEIR_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * A persistent, crash-safe cache of a slow disk (the base) on a fast one.
 *
 * The whole way of a request is written here once, straight down, and calls
 * its host for I/O and for waiting. In QEMU the host is the driver and each
 * request a coroutine; the crash tests run the same code over simulated disks.
 * A function that "yields" calls the host; no lock is held over that.
 *
 * Any thread may call any function; how the state is locked is told in
 * cache-int.h. Offsets and lengths are bytes. Functions return 0 or -errno.
 */

#ifndef WEIR_CACHE_BLOCK_BYTES
#define WEIR_CACHE_BLOCK_BYTES 4096
#endif
#define WEIR_CACHE_MEMORY_PER_BLOCK_MAX 20

typedef enum WeirCacheDevice {
    WEIR_CACHE_BASE,
    WEIR_CACHE_FAST,
} WeirCacheDevice;

typedef enum WeirCacheMode {
    WEIR_CACHE_WRITE_BACK,
    WEIR_CACHE_WRITE_THROUGH,
    WEIR_CACHE_WRITE_AROUND,            /* writes go past, reads fill */
    WEIR_CACHE_READ_ONLY,               /* hits only: nothing new comes in */
} WeirCacheMode;

typedef enum WeirCacheAdmission {
    WEIR_CACHE_FIRST_TOUCH,             /* what is read comes in */
    WEIR_CACHE_SECOND_TOUCH,            /* when it is read again */
} WeirCacheAdmission;

/* When the fast device cannot be written to. */
typedef enum WeirCacheOnError {
    WEIR_CACHE_BYPASS,                  /* what loses nothing goes past */
    WEIR_CACHE_STALL,                   /* try again for a while; then bypass */
    WEIR_CACHE_FAIL,                    /* all requests fail */
} WeirCacheOnError;

typedef struct WeirCache WeirCache;

/* Where requests wait for each other; the host's. */
typedef struct WeirCacheQueue {
    void *host[2];
} WeirCacheQueue;

/*
 * What the engine needs done. Those up to wait() yield, and are called with no
 * lock held; they return 0 or -errno. Lengths never pass the end of the device.
 */
typedef struct WeirCacheHost {
    int (*read)(void *opaque, WeirCacheDevice dev, uint64_t offset,
                uint64_t bytes, void *buf);
    int (*write)(void *opaque, WeirCacheDevice dev, uint64_t offset,
                 uint64_t bytes, const void *buf);
    /* To a request's own memory, `at` bytes behind its start. */
    int (*read_guest)(void *opaque, WeirCacheDevice dev, uint64_t offset,
                      uint64_t bytes, void *guest, uint64_t at);
    int (*zero)(void *opaque, WeirCacheDevice dev, uint64_t offset,
                uint64_t bytes, bool may_unmap);
    int (*discard)(void *opaque, WeirCacheDevice dev, uint64_t offset,
                   uint64_t bytes);
    int (*flush)(void *opaque, WeirCacheDevice dev);
    /* Make the base longer; what is new reads as zeroes. */
    int (*grow_base)(void *opaque, uint64_t bytes);
    void (*sleep)(void *opaque, uint64_t ns);
    /*
     * Run fn(arg), which calls nothing of the host, in another thread, if there
     * is one; come back when it has returned.
     */
    void (*run)(void *opaque, void (*fn)(void *arg), void *arg);
    /*
     * Wait until the queue is woken. Called with the lock of the cache held
     * (weir_cache_lock()), which is released meanwhile.
     */
    void (*wait)(void *opaque, WeirCache *cache, WeirCacheQueue *queue);

    /* These do not yield; the lock may be held. */
    void (*wake)(void *opaque, WeirCacheQueue *queue);  /* all that wait */
    void (*queue_init)(void *opaque, WeirCacheQueue *queue);
    /*
     * Run fn(arg) by and by, as something that may yield; not before the
     * caller has returned or yielded.
     */
    void (*spawn)(void *opaque, void (*fn)(void *arg), void *arg);
    /* weir_cache_work() has something to do now. */
    void (*kick)(void *opaque);
    uint64_t (*now_ns)(void *opaque);
    /* Nobody can guess these bytes. */
    void (*random)(void *opaque, void *buf, size_t bytes);
} WeirCacheHost;

/*
 * The memory of a request. host: for read_guest; NULL when it is one piece of
 * memory that read() can fill as well.
 */
typedef struct WeirCacheGuest {
    void *host;
    const struct iovec *iov;
    size_t niov;
    size_t offset;                      /* where it begins in both */
} WeirCacheGuest;

/* All of it may be changed while the cache is in use. */
typedef struct WeirCacheConfig {
    WeirCacheMode mode;
    uint32_t dirty_high_percent;        /* begin to write back; 1..95 */
    uint32_t dirty_low_percent;         /* down to here; 0..high */
    uint32_t dirty_age_ms;              /* older blocks are written back; 0:
                                           none for their age */
    uint64_t write_back_rate;           /* bytes/s; 0: no limit */
    uint32_t idle_ms;                   /* without requests for so long: write
                                           everything back; 0: never */
    uint64_t bypass_sequential_bytes;   /* requests behind so many in a row go
                                           past the cache; 0: none do */
    WeirCacheAdmission promote;
    WeirCacheOnError on_error;
    uint32_t error_deadline_ms;         /* WEIR_CACHE_STALL; 0: no limit */
} WeirCacheConfig;

typedef struct WeirCacheOpen {
    WeirCacheConfig config;
    uint64_t base_bytes;
    uint64_t fast_bytes;
    const char *base_id;                /* name of the base, or NULL; less than
                                           64 bytes */
    bool overwrite;                     /* what is there may be lost */
    bool lose_dirty;                    /* even dirty blocks of another base */
    bool blank;                         /* the host knows that it reads zeroes:
                                           format without a look */
    bool base_read_only;                /* reads only; may be changed later */
    bool fast_read_only;                /* nothing is changed there; the base is
                                           read-only as well */
    uint64_t *base_needed;              /* see -EFBIG */
} WeirCacheOpen;

/* Read-out; counters since opening. */
typedef struct WeirCacheInfo {
    uint64_t slots;
    uint64_t mapped;
    uint64_t dirty;
    uint64_t free;
    uint64_t memory_bytes;
    uint64_t read_hits, read_misses;    /* blocks */
    uint64_t write_hits, write_misses;
    uint64_t hits_minute, accesses_minute; /* of the last 60 s, blocks */
    uint64_t hits_hour, accesses_hour;
    uint64_t fills;                     /* blocks */
    uint64_t evictions;
    uint64_t bypassed;                  /* blocks that went past */
    uint64_t written_back;              /* blocks */
    uint64_t write_back_requests;       /* to the base */
    uint64_t write_back_lag_ms;         /* age of the oldest dirty block, at
                                           most */
    uint64_t journal_blocks;
    uint64_t journal_used;
    uint64_t journal_written;           /* blocks */
    uint64_t table_written;             /* sectors */
    uint64_t fast_flushes;
    uint64_t base_flushes;
    uint64_t fast_write_errors;         /* of data; such a write goes to the
                                           base, or fails */
    uint64_t corrupt_clean;             /* blocks with a wrong checksum */
    uint64_t corrupt_dirty;
    uint64_t recovered_records;         /* replayed at opening */
    uint64_t stalled;                   /* writes that are tried again */
    bool draining;
    bool read_only;
    int fast_error;                     /* -errno that took the cache out of
                                           use; 0 */
    int data_error;                     /* last result of writing data to it */
    int write_back_error;               /* last result */
} WeirCacheInfo;

typedef enum WeirCacheStatus {
    WEIR_CACHE_STATUS_BASE,             /* ask the base */
    WEIR_CACHE_STATUS_DATA,
    WEIR_CACHE_STATUS_ZERO,
} WeirCacheStatus;

void weir_cache_config_default(WeirCacheConfig *config);

/*
 * err: gets a line naming the option and its range, as in the QMP interface.
 * Returns 0 or -EINVAL.
 */
int weir_cache_config_check(const WeirCacheConfig *config, char *err,
                            size_t err_size);

/*
 * Open the cache on the fast device, initialise it when that is blank.
 * Yields: reads superblocks, table and journal, writes the superblock.
 * cache: gets the object; free it with weir_cache_free().
 * host: stays valid until then. err: gets one line when it fails.
 * Returns 0; -EMEDIUMTYPE for foreign content; -ESTALE for a dirty cache of
 * another base; -EBADMSG for a broken one; -EFBIG when there are dirty blocks
 * behind the end of the base, which a crash has made shorter: make it as long
 * as *base_needed tells and try again; -EROFS; -ENOSPC; -ENOMEM; an I/O error.
 * The device then is as before, or as before it was opened for the first time.
 */
int weir_cache_open(WeirCache **cache, const WeirCacheOpen *open,
                    const WeirCacheHost *host, void *opaque, char *err,
                    size_t err_size);

/* Write the table and mark it clean to be opened fast. Yields. */
int weir_cache_close(WeirCache *c);

/*
 * The same, for good: the cache is empty when it is opened again. For a disk
 * that somebody else is going to write to.
 * lose_dirty: even if there are dirty blocks; else that is -EBUSY.
 */
int weir_cache_close_empty(WeirCache *c, bool lose_dirty);

/* Without writing anything; what was flushed is safe. NULL is fine. */
void weir_cache_free(WeirCache *c);

void weir_cache_lock(WeirCache *c);
void weir_cache_unlock(WeirCache *c);

/* --- requests; all yield --- */
int weir_cache_read(WeirCache *c, uint64_t offset, uint64_t bytes,
                    const WeirCacheGuest *guest);
int weir_cache_write(WeirCache *c, uint64_t offset, uint64_t bytes,
                     const WeirCacheGuest *guest, bool fua);
int weir_cache_zero(WeirCache *c, uint64_t offset, uint64_t bytes,
                    bool may_unmap, bool fua);
int weir_cache_discard(WeirCache *c, uint64_t offset, uint64_t bytes);
int weir_cache_flush(WeirCache *c);

/*
 * The base has now another length, or is about to be shorter: blocks behind
 * that are forgotten. Yields. No request may be under way.
 * Returns 0; -EBUSY when it is shorter and there are dirty blocks.
 */
int weir_cache_resize(WeirCache *c, uint64_t base_bytes);

/*
 * A request is going to write up to there, behind the end of the base: make the
 * base longer if it is too short. Yields; requests may be under way.
 */
int weir_cache_grow(WeirCache *c, uint64_t base_bytes);

/*
 * The base is going to have another length, and a crash may leave it with the
 * one or the other: put that on record. Before it is resized by other means
 * than weir_cache_grow(). Yields.
 */
int weir_cache_will_resize(WeirCache *c);

/* What the bytes from `offset` on are, and how many of them. Does not yield. */
WeirCacheStatus weir_cache_status(WeirCache *c, uint64_t offset,
                                  uint64_t bytes, uint64_t *same_bytes);

/* --- in the background --- */

/*
 * Do one piece of what is due: commit, make room, write back, save the table.
 * Yields. One call at a time.
 * Returns how long it can wait until it is called again, in ns; UINT64_MAX:
 * until kick().
 */
uint64_t weir_cache_work(WeirCache *c);

/*
 * Write all dirty blocks back and flush the base. Yields. New ones may appear
 * meanwhile in write-back mode.
 * Returns 0 when there was none left at the end, -EIO when a block could not
 * be read or written, -EROFS when the base is read-only.
 */
int weir_cache_drain(WeirCache *c);

/* Take a new configuration that passed the check. Does not yield. */
void weir_cache_configure(WeirCache *c, const WeirCacheConfig *config);

/*
 * Whether the base may be written to from now on; no request is under way.
 * Returns 0, or -EROFS when the fast device is read-only. Does not yield.
 */
int weir_cache_set_base_read_only(WeirCache *c, bool read_only);

void weir_cache_query(WeirCache *c, WeirCacheInfo *info);

#endif
