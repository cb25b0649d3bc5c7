/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening and closing. Recovery proper is in recovery.c.
 *
 *   no superblock, all zeroes -> format
 *   no superblock, else       -> refuse, or format with `overwrite`
 *   of another base           -> refuse when dirty, else format
 *   closed cleanly            -> load the table
 *   in use                    -> load the table, replay the journal, save
 */
#include "cache/cache-int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the beginning and the end, where everybody puts what tells its kind. */
#define PROBE_BYTES (UINT64_C(1) << 20)
#define SAMPLE_BLOCKS 32                /* compared with the base, twice */

static void __attribute__((format(printf, 3, 4)))
say(char *err, size_t err_size, const char *format, ...)
{
    va_list args;

    if (err && err_size) {
        va_start(args, format);
        vsnprintf(err, err_size, format, args);
        va_end(args);
    }
}

/* --- superblock --- */

/* Yields; lock not held. */
static int superblock_write(WeirCache *c, const WeirCacheSuperblock *sb)
{
    uint8_t *buf = NULL;
    int ret;

    if (posix_memalign((void **)&buf, BLOCK_BYTES,
                       WEIR_CACHE_SUPERBLOCK_BYTES)) {
        return -ENOMEM;
    }
    weir_cache_superblock_write(buf, sb);
    ret = c->host->write(c->opaque, WEIR_CACHE_FAST,
                         sb->sequence % WEIR_CACHE_SUPERBLOCKS *
                         WEIR_CACHE_SUPERBLOCK_BYTES,
                         WEIR_CACHE_SUPERBLOCK_BYTES, buf);
    if (ret == 0) {
        ret = c->host->flush(c->opaque, WEIR_CACHE_FAST);
    }
    free(buf);
    return ret;
}

/* Put a changed copy of the superblock on the device. Yields. */
static int superblock_change(WeirCache *c, WeirCacheSuperblock *sb)
{
    int before = c->fast_error, ret;

    c->sb_busy = true;
    sb->sequence++;
    unlock(c);
    ret = superblock_write(c, sb);
    lock(c);
    c->sb_busy = false;
    /* the error may have been told to somebody else's flush only */
    ret = ret == 0 && !before ? c->fast_error : ret;
    if (ret == 0) {
        c->sb = *sb;
    } else {
        fast_failed(c, ret);
    }
    wake(c, &c->commit_queue);
    return ret;
}

/* Somebody is at it. Yields. */
static int superblock_wait(WeirCache *c)
{
    wait_on(c, &c->commit_queue);
    return c->fast_error;
}

int superblock_mark(WeirCache *c, bool dirty)
{
    WeirCacheSuperblock sb;

    if (c->sb_busy) {
        return superblock_wait(c);
    }
    c->sb.dirty &= dirty;               /* who makes a block dirty now, waits */
    sb = c->sb;
    sb.dirty = dirty;
    return superblock_change(c, &sb);
}

int superblock_mark_length(WeirCache *c)
{
    WeirCacheSuperblock sb = c->sb;

    if (c->sb_busy) {
        return superblock_wait(c);
    }
    sb.base_bytes = c->base_bytes;
    return superblock_change(c, &sb);
}

int superblock_mark_grows(WeirCache *c)
{
    WeirCacheSuperblock sb = c->sb;

    if (c->sb_busy) {
        return superblock_wait(c);
    }
    sb.grows = true;
    return superblock_change(c, &sb);
}

void superblock_mark_stale(WeirCache *c)
{
    WeirCacheSuperblock sb = c->sb;

    if (!c->fast_error || c->ix.dirty || c->marked_stale || c->sb_busy ||
        c->config.on_error == WEIR_CACHE_FAIL) {
        return;
    }
    sb.stale = true;
    c->marked_stale = superblock_change(c, &sb) == 0;
}

/* The newer of those that are whole. Yields. */
static int superblock_load(WeirCache *c, WeirCacheSuperblock *best)
{
    uint8_t *buf = NULL;
    int ret, result = -ENOENT;

    if (posix_memalign((void **)&buf, BLOCK_BYTES, WEIR_CACHE_SUPERBLOCKS *
                       WEIR_CACHE_SUPERBLOCK_BYTES)) {
        return -ENOMEM;
    }
    ret = c->host->read(c->opaque, WEIR_CACHE_FAST, 0, WEIR_CACHE_SUPERBLOCKS *
                        WEIR_CACHE_SUPERBLOCK_BYTES, buf);
    for (int i = 0; i < WEIR_CACHE_SUPERBLOCKS && ret == 0; i++) {
        WeirCacheSuperblock sb;
        int is = weir_cache_superblock_read(&sb, buf + i *
                                            WEIR_CACHE_SUPERBLOCK_BYTES,
                                            c->fast_bytes);

        c->sb_damaged |= is == -EINVAL;
        if (is == 0 && (result < 0 || sb.sequence > best->sequence)) {
            *best = sb;
            result = 0;
        } else if (is < 0 && result == -ENOENT) {
            result = is;
        }
    }
    free(buf);
    return ret < 0 ? ret : result;
}

/* --- format --- */

/* Returns 1 when a range is all zeroes, 0 when not. Yields. */
static int reads_zero(WeirCache *c, uint64_t offset, uint64_t bytes,
                      uint8_t *buf)
{
    uint64_t end = offset + bytes;

    for (uint64_t n; offset < end; offset += n) {
        int ret;

        n = end - offset < SEGMENT_BYTES ? end - offset : SEGMENT_BYTES;
        ret = c->host->read(c->opaque, WEIR_CACHE_FAST, offset, n, buf);
        if (ret < 0) {
            return ret;
        }
        if (buf[0] || memcmp(buf, buf + 1, n - 1)) {
            return 0;
        }
    }
    return 1;
}

/* Yields. */
static int is_blank(WeirCache *c)
{
    uint64_t n = c->fast_bytes < PROBE_BYTES ? c->fast_bytes : PROBE_BYTES;
    uint8_t *buf = buffer_get(c);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = reads_zero(c, 0, n, buf);
    if (ret == 1) {
        uint64_t end = c->fast_bytes / BLOCK_BYTES * BLOCK_BYTES;

        ret = reads_zero(c, end - n / BLOCK_BYTES * BLOCK_BYTES,
                         n / BLOCK_BYTES * BLOCK_BYTES, buf);
    }
    buffer_put(c, buf);
    return ret;
}

/* The smallest that lets all of the base be in a region of its own. */
static uint32_t region_shift_for(uint64_t base_bytes)
{
    uint32_t shift = 12;                /* 16 MiB */

    while (blocks_of(base_bytes) >> shift >= WEIR_CACHE_REGIONS) {
        shift++;
    }
    return shift;
}

/*
 * Begin with a new identity, so that nothing that is there is ours. The
 * superblock comes last: until then the device is not a cache. Yields.
 */
static int format(WeirCache *c, uint64_t base_bytes, const char *base_id)
{
    WeirCacheSuperblock sb = {
        .sequence = c->sb.sequence + 1, .incarnation = 1, .journal_first = 1,
        .base_bytes = base_bytes, .layout = c->layout,
        .region_shift = region_shift_for(base_bytes),
    };
    int ret;

    if (base_id) {
        strncpy(sb.base_id, base_id, sizeof(sb.base_id) - 1);
    }
    c->host->random(c->opaque, sb.uuid, sizeof(sb.uuid));
    ret = c->host->zero(c->opaque, WEIR_CACHE_FAST, c->layout.table_offset,
                        (uint64_t)c->layout.table_sectors *
                        WEIR_CACHE_SECTOR_BYTES, true);
    if (ret == 0) {
        ret = c->host->flush(c->opaque, WEIR_CACHE_FAST);
    }
    if (ret == 0) {
        ret = superblock_write(c, &sb);
    }
    c->sb = sb;
    return ret;
}

/* --- setting up --- */

static int set_up(WeirCache *c)
{
    uint64_t seed;
    int ret;

    c->host->random(c->opaque, &seed, sizeof(seed));
    ret = weir_cache_index_init(&c->ix, c->layout.slots, seed);
    if (ret < 0) {
        return ret;
    }
    ret = weir_cache_evict_init(&c->ev, &c->ix);
    if (ret < 0) {
        weir_cache_index_destroy(&c->ix);
        return ret;
    }
    c->crc_seed = weir_crc32c(~0u, c->sb.uuid, sizeof(c->sb.uuid));
    c->table_dirty = calloc((c->layout.table_sectors + 63) / 64, 8);
    if (!c->journal && posix_memalign((void **)&c->journal, BLOCK_BYTES,
                                      PENDING_BLOCKS *
                                      WEIR_CACHE_JOURNAL_BLOCK_BYTES)) {
        c->journal = NULL;
    }
    if (!c->preview && posix_memalign((void **)&c->preview, BLOCK_BYTES,
                                      WEIR_CACHE_JOURNAL_BLOCK_BYTES)) {
        c->preview = NULL;
    }
    return c->table_dirty && c->journal && c->preview ? 0 : -ENOMEM;
}

static void tear_down(WeirCache *c)
{
    if (c->ix.slots) {
        weir_cache_evict_destroy(&c->ev);
        weir_cache_index_destroy(&c->ix);
    }
    free(c->table_dirty);
    c->table_dirty = NULL;
    c->table_dirty_count = 0;
}

static WeirCache *allocate(const WeirCacheOpen *open,
                           const WeirCacheHost *host, void *opaque)
{
    WeirCache *c = calloc(1, sizeof(*c));
    WeirCacheQueue *queues[6];

    if (!c) {
        return NULL;
    }
    c->host = host;
    c->opaque = opaque;
    c->config = open->config;
    c->base_bytes = open->base_bytes;
    c->fast_bytes = open->fast_bytes;
    c->fast_read_only = open->fast_read_only;
    c->base_read_only = open->base_read_only || open->fast_read_only;
    queues[0] = &c->commit_queue;
    queues[1] = &c->room_queue;
    queues[2] = &c->slot_queue;
    queues[3] = &c->write_queue;
    queues[4] = &c->miss_queue;
    queues[5] = &c->batch_queue;
    for (int i = 0; i < 6; i++) {
        host->queue_init(opaque, queues[i]);
    }
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void weir_cache_free(WeirCache *c)
{
    if (!c) {
        return;
    }
    tear_down(c);
    while (c->buffers) {
        free(c->buffer[--c->buffers]);
    }
    free(c->journal);
    free(c->preview);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* --- whose cache it is --- */

static bool is_of_base(const WeirCacheSuperblock *sb, const WeirCacheOpen *open)
{
    bool length = sb->grows ? sb->base_bytes <= open->base_bytes
                            : sb->base_bytes == open->base_bytes;

    return length && !strcmp(sb->base_id, open->base_id ? open->base_id : "");
}

/*
 * Slots of clean blocks that have these flags, at even distances among them:
 * all at first, and every other one whenever there are too many. Returns how
 * many, up to twice SAMPLE_BLOCKS.
 */
static uint32_t choose_samples(const WeirCache *c, uint8_t flags,
                               uint32_t *sample)
{
    const uint8_t mask = (uint8_t)(WEIR_SLOT_MAPPED | WEIR_SLOT_DIRTY |
                                   WEIR_SLOT_SUSPECT | WEIR_SLOT_ZERO | flags);
    uint32_t every = 1, seen = 0, count = 0;

    for (uint32_t slot = 0; slot < c->ix.slots; slot++) {
        if ((c->ix.flags[slot] & mask) != (WEIR_SLOT_MAPPED | flags) ||
            seen++ & (every - 1)) {
            continue;
        }
        if (count == 2 * SAMPLE_BLOCKS) {
            for (count = 0; count < SAMPLE_BLOCKS; count++) {
                sample[count] = sample[2 * count];
            }
            every *= 2;
        }
        sample[count++] = slot;
    }
    return count;
}

/*
 * Compare clean blocks that have these flags with the base, at most
 * SAMPLE_BLOCKS all over the cache: 1 when they are the same, else 0. Yields.
 */
static int sample_is_fresh(WeirCache *c, uint8_t flags, uint8_t *buf)
{
    uint32_t sample[2 * SAMPLE_BLOCKS];
    uint32_t count = choose_samples(c, flags, sample);
    int ret = 1;

    for (uint32_t i = 0; i < count && ret == 1;
         i += count > SAMPLE_BLOCKS ? 2 : 1) {
        uint64_t block = weir_cache_index_block(&c->ix, sample[i]);

        ret = base_read(c, block, 1, buf);
        if (ret == 0) {
            ret = crc_of(c, block, buf) == c->ix.node[sample[i]].crc;
        }
    }
    return ret;
}

/*
 * Whether the base is as the cache left it, for all we can see: 1, or 0 when
 * somebody has written to it, or it is another one. The blocks that are used
 * most are where a file system keeps what changes each time. Yields.
 */
static int is_fresh(WeirCache *c)
{
    uint8_t *buf = buffer_get(c);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    ret = sample_is_fresh(c, WEIR_SLOT_FREQUENCY, buf);
    if (ret == 1) {
        ret = sample_is_fresh(c, 0, buf);
    }
    buffer_put(c, buf);
    return ret;
}

/* --- opening --- */

/* A new incarnation: the journal of the one before is not read any more. */
static int begin(WeirCache *c)
{
    WeirCacheSuperblock sb = c->sb;
    int ret = 0;

    if (!WITHOUT_RULE(4) && !c->fast_read_only) {
        sb.sequence++;
        sb.incarnation++;
        sb.journal_first = c->next;
        sb.in_use = true;
        sb.dirty = c->ix.dirty > 0;
        ret = superblock_write(c, &sb);
    }
    c->sb = sb;
    c->written = c->next;
    c->durable = c->next - 1;
    c->guest = c->durable;
    c->tail = c->next;
    if (ret == 0 && !c->fast_read_only) {
        lock(c);
        regions_append(c);
        ret = journal_commit_all(c);
        unlock(c);
    }
    return ret;
}

static int start_empty(WeirCache *c, const WeirCacheOpen *open)
{
    int ret = weir_cache_layout(&c->layout, c->fast_bytes);

    tear_down(c);
    memset(c->region, 0, sizeof(c->region));
    if (ret == 0 && !c->fast_read_only) {
        ret = format(c, open->base_bytes, open->base_id);
    }
    if (ret == 0) {
        ret = set_up(c);
    }
    c->next = 1;
    return ret == 0 ? begin(c) : ret;
}

static bool may_drop(const WeirCache *c, const WeirCacheOpen *open)
{
    return !c->sb.dirty || open->lose_dirty;
}

/* Load what is there. Returns 0, 1 when it has to be dropped, -errno. */
static int load(WeirCache *c, const WeirCacheOpen *open, char *err,
                size_t err_size)
{
    int ret;

    if (c->sb.stale) {
        return 1;
    }
    if (!is_of_base(&c->sb, open)) {
        say(err, err_size, "the cache holds dirty blocks of another disk "
            "('%s', %llu bytes)", c->sb.base_id,
            (unsigned long long)c->sb.base_bytes);
        return may_drop(c, open) ? 1 : -ESTALE;
    }
    ret = set_up(c);
    if (ret == 0) {
        ret = recovery_load(c);
    }
    if (ret == -EBADMSG) {
        say(err, err_size, "the cache is damaged, and holds dirty blocks");
        return may_drop(c, open) ? 1 : ret;
    }
    if (ret == 0 && c->sb.grows) {
        uint64_t needed = recovery_needs_bytes(c);

        if (needed > c->base_bytes && open->base_needed) {
            *open->base_needed = needed;
        }
        if (needed > c->base_bytes) {
            say(err, err_size, "the disk is shorter than it was");
            ret = -EFBIG;
        }
    }
    if (ret == 0) {
        ret = is_fresh(c);
        if (ret == 0) {
            say(err, err_size, "the disk was written to without its cache, "
                "which holds dirty blocks");
            return !c->ix.dirty || open->lose_dirty ? 1 : -ESTALE;
        }
        ret = ret < 0 ? ret : 0;
    }
    return ret;
}

/* Yields. */
static int open_existing(WeirCache *c, const WeirCacheOpen *open, char *err,
                         size_t err_size)
{
    int ret;

    c->layout = c->sb.layout;
    ret = load(c, open, err, err_size);
    if (ret == 1) {
        return start_empty(c, open);
    }
    if (ret == 0 && !WITHOUT_RULE(4) && !c->fast_read_only) {
        ret = recovery_save(c);
    }
    if (ret < 0) {
        return ret;
    }
    weir_cache_evict_restore(&c->ev);
    return begin(c);
}

/* Yields. */
static int open_blank(WeirCache *c, const WeirCacheOpen *open, int found,
                      char *err, size_t err_size)
{
    int blank = open->blank;

    if (found == -ENOTSUP && !open->overwrite) {
        say(err, err_size, "the cache was made by a newer version");
        return found;
    }
    if (found == -EINVAL && !open->overwrite) {
        say(err, err_size, "both superblocks of the cache are damaged");
        return -EBADMSG;
    }
    if (open->fast_read_only) {
        say(err, err_size, "there is no cache on the device, which is "
            "read-only");
        return -EROFS;
    }
    if (!blank && !open->overwrite) {
        blank = is_blank(c);
        if (blank < 0) {
            say(err, err_size, "cannot read the cache device");
            return blank;
        }
        if (!blank) {
            say(err, err_size, "the cache device holds something else; "
                "overwrite=on lets it be lost");
            return -EMEDIUMTYPE;
        }
    }
    return start_empty(c, open);
}

int weir_cache_open(WeirCache **cache, const WeirCacheOpen *open,
                    const WeirCacheHost *host, void *opaque, char *err,
                    size_t err_size)
{
    WeirCache *c = allocate(open, host, opaque);
    int ret;

    *cache = NULL;
    say(err, err_size, "cannot set up the cache");
    if (!c) {
        return -ENOMEM;
    }
    if (weir_cache_layout(&c->layout, c->fast_bytes) < 0) {
        say(err, err_size, "the cache device is too small");
        ret = -ENOSPC;
    } else {
        ret = superblock_load(c, &c->sb);
        if (ret == 0) {
            ret = open_existing(c, open, err, err_size);
        } else if (ret == -ENOENT || ret == -EINVAL || ret == -ENOTSUP) {
            ret = open_blank(c, open, ret, err, err_size);
        }
    }
    if (ret < 0) {
        weir_cache_free(c);
        return ret;
    }
    c->last_request_ns = c->last_commit_ns = now_ns(c);
    c->last_close_ns = c->last_request_ns;
    if (c->ix.dirty) {
        c->dirty_since_next_ns = c->last_request_ns;
    }
    *cache = c;
    return 0;
}

int weir_cache_close(WeirCache *c)
{
    WeirCacheSuperblock sb;
    int ret;

    if (c->fast_read_only) {
        return 0;
    }
    lock(c);
    superblock_mark_stale(c);
    regions_close_idle(c, true);
    ret = table_save(c);
    if (ret == 0 && c->sb.grows) {
        unlock(c);
        ret = c->host->flush(c->opaque, WEIR_CACHE_BASE);
        lock(c);
    }
    if (ret == 0) {
        sb = c->sb;
        sb.sequence++;
        sb.dirty = c->ix.dirty > 0;
        sb.base_bytes = c->base_bytes;
        sb.grows = false;
        /* open regions are in the journal only */
        sb.in_use = regions_any_open(c);
        sb.journal_first = c->next;
        if (!sb.in_use) {
            unlock(c);
            ret = superblock_write(c, &sb);
            lock(c);
        }
    }
    unlock(c);
    return ret;
}

int weir_cache_close_empty(WeirCache *c, bool lose_dirty)
{
    WeirCacheSuperblock sb = c->sb;
    int ret;

    if (c->fast_read_only) {
        return 0;
    }
    if (c->ix.dirty && !lose_dirty) {
        return -EBUSY;
    }
    ret = format(c, c->base_bytes, sb.base_id);
    if (ret < 0) {
        /* half of it may be on the device: go on without it */
        lock(c);
        c->sb = sb;
        fast_failed(c, ret);
        unlock(c);
    }
    return ret;
}
