/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_CACHE_CACHE_INT_H
#define WEIR_CACHE_CACHE_INT_H

#include <pthread.h>

#include "cache/cache.h"
#include "cache/crc.h"
#include "cache/evict.h"
#include "cache/format.h"
#include "cache/index.h"
#include "common/crc32c.h"

/*
 * The state of a cache; `lock` is for all of it but what is set at opening. It
 * is never held over I/O: a function that yields says so, and whoever calls it
 * with the lock held finds it held again, and the state changed.
 *
 *   open.c      superblock, recovery           journal.c   records, commits
 *   table.c     saving the table               slots.c     what is in a slot
 *   regions.c   changes of the base            read.c, write.c  requests
 *   writeback.c dirty blocks to the base       cache.c     the rest
 */

#define SEGMENT_BLOCKS 64               /* of a request, handled in one go */
#define SEGMENT_BYTES (SEGMENT_BLOCKS * WEIR_CACHE_BLOCK_BYTES)
#define BUFFERS_KEPT 64                 /* segments of memory not given back */
#define FILLS_MAX 64                    /* at a time */
#define GENERATIONS 16
#define PENDING_BLOCKS 128              /* sealed and not yet written */
#define WRITE_BACK_BLOCKS 2048          /* of a batch */
#define WRITE_BACK_RECORDS (2 * WRITE_BACK_BLOCKS)  /* CLEAN and FREE */
#define STREAMS 16
#define WINDOW 60

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define NO_SLOT WEIR_CACHE_NO_SLOT
#define BLOCK_BYTES WEIR_CACHE_BLOCK_BYTES

/* A rule of the recovery proof, left out to show that the tests notice. */
#ifdef WEIR_CACHE_MUTATIONS
extern unsigned weir_cache_mutation;
#define WITHOUT_RULE(n) (weir_cache_mutation & 1u << (n))
#else
#define WITHOUT_RULE(n) 0
#endif

/* A range of blocks that is being written: no two of them overlap. */
typedef struct Writing {
    uint64_t block;
    uint64_t count;
    struct Writing *next;
} Writing;

/*
 * A read of the base on its way into the cache. Others that want the same
 * blocks wait for it. Whoever writes to one of the blocks cancels it: what was
 * read is then good for those who were waiting before, and for nobody else.
 */
typedef struct Miss {
    WeirCache *cache;
    uint64_t block;
    uint32_t count;
    uint32_t users;
    bool done;
    bool cancelled;
    int error;
    uint8_t *data;
    struct Miss *next;
} Miss;

/*
 * Freed slots wait in the generation that was open when they were freed, until
 * what frees them is on record for good and all readers of this and earlier
 * generations are through. So no reader has to mark the slot that it reads.
 */
typedef struct Generation {
    uint32_t readers;
    uint32_t count;
    uint32_t first;                     /* linked by node.next */
    uint64_t sequence;                  /* of the record of the last of them */
} Generation;

/* An area of the base that may change under clean blocks; see regions.c. */
typedef struct Region {
    uint32_t users;
    bool open;
    bool used;                          /* since the worker looked */
    uint64_t sequence;                  /* of the record that opened it */
} Region;

typedef struct WindowCell {
    uint64_t time;                      /* which second or minute; 0: none */
    uint32_t hits;
    uint32_t accesses;
} WindowCell;

typedef struct WriteBackBlock {
    uint64_t block;
    uint32_t slot;
} WriteBackBlock;

struct WeirCache {
    pthread_mutex_t lock;
    const WeirCacheHost *host;          /* set at opening */
    void *opaque;                       /* set at opening */
    WeirCacheLayout layout;             /* set at opening */
    uint32_t crc_seed;                  /* set at opening */
    uint64_t fast_bytes;                /* set at opening */

    bool fast_read_only;                /* set at opening: see journal_append */

    WeirCacheConfig config;
    bool base_read_only;
    WeirCacheSuperblock sb;
    bool sb_busy;                       /* being written */
    bool sb_damaged;                    /* one copy was, at opening */
    uint32_t dirtying;                  /* requests that make blocks dirty */
    uint64_t base_bytes;                /* see base_inside() */
    bool growing;                       /* the base is being made longer */
    bool shrunk;                        /* and not flushed since */
    WeirCacheIndex ix;
    WeirCacheEvict ev;
    int fast_error;                     /* for good */
    bool marked_stale;                  /* the superblock tells so */
    bool tried_stale;                   /* to put it there */
    uint64_t mark_stale_ns;             /* when to try */
    uint32_t stalled;

    /* journal.c */
    uint8_t *journal;                   /* PENDING_BLOCKS, by sequence */
    uint32_t records;                   /* in the open block */
    uint64_t next;                      /* sequence number of the open block */
    uint64_t written;                   /* all before it are written */
    uint64_t durable;                   /* up to this one; next - 1: all */
    uint64_t tail;                      /* first one that is needed */
    uint64_t guest;                     /* up to here a guest's flush needs */
    uint64_t clean;                     /* the last record of clean blocks */
    uint32_t reserved;                  /* records that requests will write */
    bool committing;
    uint8_t *preview;                   /* a copy of the open block, and more */
    uint64_t preview_sequence;          /* of it */
    uint32_t preview_records;           /* in it */
    bool previewing;                    /* being written */
    bool preview_written;
    bool preview_fits;                  /* its records have been appended */
    uint32_t writes;                    /* into the cache since a flush */
    uint32_t writes_per_flush;          /* before the last one */
    WeirCacheQueue commit_queue;
    WeirCacheQueue room_queue;          /* for room in the journal */

    /* slots.c */
    Generation generation[GENERATIONS];
    uint32_t generation_open;           /* modulo GENERATIONS */
    uint32_t generation_oldest;
    uint32_t quarantined;
    uint64_t *table_dirty;              /* bit per sector */
    uint32_t table_dirty_count;
    bool saving;                        /* the table */
    uint32_t slot_waiters;
    WeirCacheQueue slot_queue;

    /* requests */
    Writing *writing;
    WeirCacheQueue write_queue;
    Miss *misses;
    uint32_t fills;
    WeirCacheQueue miss_queue;
    uint8_t *buffer[BUFFERS_KEPT];
    uint32_t buffers;
    uint64_t stream_end[STREAMS];       /* blocks */
    uint64_t stream_blocks[STREAMS];
    uint32_t stream_oldest;
    bool active;                        /* a request since the worker looked */

    /* regions.c */
    Region region[WEIR_CACHE_REGIONS];
    uint64_t base_written;              /* requests that changed the base */
    uint64_t base_synced;

    /* writeback.c */
    uint32_t leaving_cursor;            /* where to look for those */
    WriteBackBlock batch[WRITE_BACK_BLOCKS];
    uint32_t batch_count;
    uint32_t batch_max;                 /* of this batch */
    uint32_t batch_next;                /* first that nobody has taken */
    uint32_t batch_workers;
    int batch_error;
    bool writing_back;
    bool above_high;                    /* until dirty_low is reached */
    uint32_t cursor;                    /* slot */
    uint64_t sweeps;                    /* how often it came round */
    uint64_t sweep_start_ns;
    uint64_t dirty_since_ns;            /* no dirty block is older; 0: none */
    uint64_t dirty_since_next_ns;       /* the same, for the next sweep */
    uint64_t write_back_due_ns;         /* not before: rate limit, errors */
    WeirCacheQueue batch_queue;

    /* cache.c */
    bool worker_sleeps;                 /* until the next request */
    uint64_t last_request_ns;
    uint64_t last_commit_ns;
    uint64_t last_close_ns;
    WindowCell second[WINDOW];
    WindowCell minute[WINDOW];
    uint64_t now_s;                     /* as of the worker's last look */
    WeirCacheInfo stat;
};

static inline uint64_t now_ns(WeirCache *c)
{
    return c->host->now_ns(c->opaque);
}

static inline void wait_on(WeirCache *c, WeirCacheQueue *queue)
{
    c->host->wait(c->opaque, c, queue);
}

static inline void wake(WeirCache *c, WeirCacheQueue *queue)
{
    c->host->wake(c->opaque, queue);
}

static inline void lock(WeirCache *c)
{
    pthread_mutex_lock(&c->lock);
}

static inline void unlock(WeirCache *c)
{
    pthread_mutex_unlock(&c->lock);
}

static inline uint64_t slot_offset(const WeirCache *c, uint32_t slot)
{
    return c->layout.data_offset + (uint64_t)slot * BLOCK_BYTES;
}

static inline uint64_t blocks_of(uint64_t bytes)
{
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

/* What of a request can be done at once: whole blocks, or part of one. */
static inline uint64_t part_bytes(uint64_t offset, uint64_t bytes)
{
    uint64_t to_end = BLOCK_BYTES - offset % BLOCK_BYTES;

    if (to_end < BLOCK_BYTES || bytes < BLOCK_BYTES) {
        return bytes < to_end ? bytes : to_end;
    }
    return bytes - bytes % BLOCK_BYTES;
}

static inline uint32_t crc_of(const WeirCache *c, uint64_t block,
                              const void *data)
{
    return weir_crc32c(weir_cache_crc_seed(c->crc_seed, block), data,
                          BLOCK_BYTES);
}

static inline bool is_data(const WeirCache *c, uint32_t slot)
{
    return slot != NO_SLOT && !(c->ix.flags[slot] & WEIR_SLOT_ZERO);
}

/* Whether a block is dirty. */
static inline bool is_dirty(const WeirCache *c, uint32_t slot)
{
    return slot != NO_SLOT && c->ix.flags[slot] & WEIR_SLOT_DIRTY;
}

/*
 * All below: the lock is held, unless said otherwise. Names without the prefix
 * are not seen outside of the program or module that the engine is part of.
 */
#pragma GCC visibility push(hidden)

/* --- cache.c --- */
/* Memory of SEGMENT_BYTES, or NULL. */
uint8_t *buffer_get(WeirCache *c);
void buffer_put(WeirCache *c, uint8_t *buffer);
void count_accesses(WeirCache *c, bool is_write, bool hit, uint32_t blocks);
/* Bytes of a range that the base has; it may grow, so no lock is needed. */
uint64_t base_inside(const WeirCache *c, uint64_t offset, uint64_t bytes);
/* Read blocks of the base, zeroes behind its end. Yields; lock not held. */
int base_read(WeirCache *c, uint64_t block, uint32_t count, void *buf);
int base_write(WeirCache *c, uint64_t block, uint32_t count, const void *buf);
/* Flush it, for requests up to base_written. Yields. */
int base_sync(WeirCache *c);
/* The fast device is out of use from now on. */
void fast_failed(WeirCache *c, int error);
/*
 * Write to the fast device, and again as the configuration has it. Yields; lock
 * not held.
 */
int fast_write(WeirCache *c, uint64_t offset, uint64_t bytes, const void *buf);
/* Somebody uses the cache: the worker may have something to do soon. */
static inline void request_begins(WeirCache *c)
{
    c->active = true;
    if (c->worker_sleeps) {
        c->worker_sleeps = false;
        c->host->kick(c->opaque);
    }
}
/* What requests fail with from the start; 0: they do not. */
int request_error(const WeirCache *c);
/* Between the memory of a request and a buffer; lock not held. */
void guest_copy_from(const WeirCacheGuest *guest, uint64_t at, void *buf,
                     size_t bytes);
void guest_copy_to(const WeirCacheGuest *guest, uint64_t at, const void *buf,
                   size_t bytes);
void guest_zero(const WeirCacheGuest *guest, uint64_t at, size_t bytes);
uint32_t guest_crc(const WeirCacheGuest *guest, uint64_t at, uint32_t crc,
                   size_t bytes);

/* --- journal.c --- */
/* Add a record; returns the sequence number of its block. */
uint64_t journal_append(WeirCache *c, const WeirCacheRecord *record);
/* Close the open block, if it has records. */
void journal_seal(WeirCache *c);
/*
 * Make all records up to that block durable, and all data that had been
 * written to the fast device. Yields. Returns 0 or -errno.
 */
int journal_commit(WeirCache *c, uint64_t sequence);
/* Everything that is on record now. Yields. */
int journal_commit_all(WeirCache *c);
/*
 * Begin to write the open block as it will be with `count` records more, which
 * are to be appended when the data that they speak of is written. Nobody has
 * to wait for it. Does not yield.
 */
void journal_preview(WeirCache *c, const WeirCacheRecord *records,
                     uint32_t count);
/* Whether the open block gets to be what the preview is, by `count` more. */
bool journal_preview_matches(const WeirCache *c, uint32_t count);
/* Whether a write into the cache now is likely to be followed by a flush. */
bool journal_preview_pays(const WeirCache *c, uint32_t count);
/* Wait until `records` more find room, and reserve it. Yields. */
void journal_reserve(WeirCache *c, uint32_t records);
bool journal_try_reserve(WeirCache *c, uint32_t records);
/* The same for WRITE_BACK_RECORDS; nobody else can use all of it up. Yields. */
void journal_reserve_for_write_back(WeirCache *c);
/*
 * Those reserved before are used up: reserve as many again, without keeping
 * any meanwhile. Yields.
 */
void journal_renew(WeirCache *c, uint32_t records);
void journal_release(WeirCache *c, uint32_t records);
/* Blocks that cannot be overwritten yet. */
uint64_t journal_used(const WeirCache *c);

/* --- slots.c --- */
/* Take free slots side by side, evicting ahead. Returns how many, 0: none. */
uint32_t slots_take(WeirCache *c, uint32_t want, uint32_t *first);
/* The same, but wait. Yields. Returns how many or -errno. */
int slots_take_wait(WeirCache *c, uint32_t want, uint32_t *first);
/* Give back what was never mapped. */
void slots_give(WeirCache *c, uint32_t first, uint32_t count);
/* A block is in a slot now; what it was in before is freed. On record. */
void slot_map(WeirCache *c, uint64_t block, uint32_t slot, uint32_t crc,
              uint8_t flags);
/* Change a mapped slot's own meaning. On record. */
void slot_to_zero(WeirCache *c, uint32_t slot);
/* A mapped slot is no longer; not put on record here. */
void slot_forget(WeirCache *c, uint32_t slot);
/* The clean blocks of a range are no longer. On record. */
void slots_unmap(WeirCache *c, uint64_t block, uint64_t count);
/* The dirty ones as well: the base has something newer, for good. On record. */
void slots_unmap_all(WeirCache *c, uint64_t block, uint64_t count);
/* The table must tell it anew. */
void slot_changed(WeirCache *c, uint32_t slot);
/*
 * The slots are short: evict until there is a reserve, at most one batch.
 * Returns whether to call it again may help.
 */
bool slots_make_room(WeirCache *c);
bool slots_are_short(const WeirCache *c);
/* Whether those that are to leave should be written back. */
bool leaving_is_due(const WeirCache *c);

/* Slots side by side that go: one record. */
typedef struct FreeRun {
    uint32_t first;
    uint32_t count;
} FreeRun;

/* A victim goes; on record after slots_evict_end(). A run begins as { 0 }. */
void slot_evict(WeirCache *c, uint32_t slot, FreeRun *run);
void slots_evict_end(WeirCache *c, FreeRun *run);

uint32_t slots_reserve(const WeirCache *c);
/* Give back the slots whose time has come. */
void generations_release(WeirCache *c);
uint32_t reader_begin(WeirCache *c);
void reader_end(WeirCache *c, uint32_t generation);
void misses_cancel(WeirCache *c, uint64_t block, uint64_t count);

/* --- regions.c --- */
/*
 * The base is going to change in a range; on record for good when it returns.
 * Yields. Returns 0 or -errno with nothing entered.
 */
int regions_enter(WeirCache *c, uint64_t block, uint64_t count);
void regions_leave(WeirCache *c, uint64_t block, uint64_t count);
/* Close those that nobody used lately. Yields. Returns whether any is open. */
bool regions_close_idle(WeirCache *c, bool all);
/* Put those that are open on record again. */
void regions_append(WeirCache *c);

bool regions_is_open(const WeirCache *c, uint64_t block);
bool regions_any_open(const WeirCache *c);

/* --- read.c --- */
/* Bring what was read or written through into the cache; runs by itself. */
void miss_fill(void *opaque);
Miss *miss_new(WeirCache *c, uint64_t block, uint32_t count, uint8_t *data);
void miss_put(Miss *miss);
/* Whether anything comes into the cache now, dirty blocks aside. */
bool fills_now(const WeirCache *c);
/*
 * Whether blocks come in when they are touched; count is cut to those that go
 * the same way.
 */
bool is_admitted(WeirCache *c, uint64_t block, uint32_t *count);
/* Read a block as the guest would; it does not come in. Yields. */
int read_block(WeirCache *c, uint64_t block, uint8_t *data);
/* Whether a request goes on a stream that is long enough to go past. */
bool stream_bypasses(WeirCache *c, uint64_t block, uint64_t count);

/* --- write.c --- */
/* Wait until nobody else writes there, and enter. Yields. */
void writing_enter(WeirCache *c, Writing *w);
void writing_leave(WeirCache *c, Writing *w);

/* --- writeback.c --- */
/*
 * Write one batch of dirty blocks back. limited: no larger than the rate has
 * it. Yields. Returns how many blocks are clean now, or -errno.
 */
int write_back(WeirCache *c, bool limited);
/* Whether it is time, or when, in ns from now; UINT64_MAX: never. */
uint64_t write_back_due(WeirCache *c, uint64_t now);

/* --- table.c --- */
/* Save all of the table that has changed; frees the journal. Yields. */
int table_save(WeirCache *c);
/*
 * Write the sectors that have changed. lsn: 0 for the journal's, which then is
 * committed first; else what to put there. Does not flush. Yields.
 */
int table_write_changed(WeirCache *c, uint64_t lsn);

/* --- recovery.c; the lock is not held, nobody else uses the cache --- */
/*
 * Load the table and, after a crash, replay the journal, in memory. Yields.
 * Returns 0, -EBADMSG when the cache is damaged, or another -errno.
 */
int recovery_load(WeirCache *c);
/* How long the base has to be for the dirty blocks; clean ones behind its end
 * are dropped. */
uint64_t recovery_needs_bytes(WeirCache *c);
/* Put what came out into the table. Yields. */
int recovery_save(WeirCache *c);

/* --- open.c --- */
/*
 * Say in the superblock that there may be dirty blocks, or that there are
 * none. Yields; returns 0 or -errno, and somebody else may have been first.
 */
int superblock_mark(WeirCache *c, bool dirty);
/* Say that the base may become longer at any time. Yields. */
int superblock_mark_grows(WeirCache *c);
/* How long the base is. Yields; the same. */
int superblock_mark_length(WeirCache *c);
/*
 * If the fast device is out of use, and requests go past it: say that what it
 * holds is old, if that can still be written. It may be there again when the
 * cache is opened next. Yields.
 */
void superblock_mark_stale(WeirCache *c);

#pragma GCC visibility pop

#endif
