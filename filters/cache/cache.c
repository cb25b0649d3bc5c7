/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Flush, status, the worker, configuration and figures.
 */
#include "cache/cache-int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMIT_NS NS_PER_S              /* records wait no longer */
#define REGION_IDLE_NS (5 * NS_PER_S)
#define TICK_NS (100 * NS_PER_MS)
#define RETRY_NS (500 * NS_PER_MS)
#define MARK_STALE_NS (5 * NS_PER_S)

/* --- helpers --- */

uint8_t *buffer_get(WeirCache *c)
{
    void *buffer = NULL;

    if (c->buffers) {
        return c->buffer[--c->buffers];
    }
    return posix_memalign(&buffer, BLOCK_BYTES, SEGMENT_BYTES) ? NULL : buffer;
}

void buffer_put(WeirCache *c, uint8_t *buffer)
{
    if (c->buffers < BUFFERS_KEPT) {
        c->buffer[c->buffers++] = buffer;
    } else {
        free(buffer);
    }
}

static void count_in(WindowCell *cell, uint64_t time, bool hit, uint32_t blocks)
{
    if (cell->time != time) {
        *cell = (WindowCell) { .time = time };
    }
    cell->accesses += blocks;
    cell->hits += hit ? blocks : 0;
}

void count_accesses(WeirCache *c, bool is_write, bool hit, uint32_t blocks)
{
    uint64_t minute = c->now_s / 60;

    if (is_write) {
        *(hit ? &c->stat.write_hits : &c->stat.write_misses) += blocks;
    } else {
        *(hit ? &c->stat.read_hits : &c->stat.read_misses) += blocks;
    }
    count_in(&c->second[c->now_s % WINDOW], c->now_s, hit, blocks);
    count_in(&c->minute[minute % WINDOW], minute, hit, blocks);
}

uint64_t base_inside(const WeirCache *c, uint64_t offset, uint64_t bytes)
{
    uint64_t end = __atomic_load_n(&c->base_bytes, __ATOMIC_RELAXED);
    uint64_t room = offset < end ? end - offset : 0;

    return bytes < room ? bytes : room;
}

int base_read(WeirCache *c, uint64_t block, uint32_t count, void *buf)
{
    uint64_t offset = block * BLOCK_BYTES;
    uint64_t bytes = (uint64_t)count * BLOCK_BYTES;
    uint64_t n = base_inside(c, offset, bytes);
    int ret = 0;

    if (n) {
        ret = c->host->read(c->opaque, WEIR_CACHE_BASE, offset, n, buf);
    }
    memset((uint8_t *)buf + n, 0, bytes - n);
    return ret;
}

int base_write(WeirCache *c, uint64_t block, uint32_t count, const void *buf)
{
    uint64_t offset = block * BLOCK_BYTES;
    uint64_t n = base_inside(c, offset, (uint64_t)count * BLOCK_BYTES);

    return n ? c->host->write(c->opaque, WEIR_CACHE_BASE, offset, n, buf) : 0;
}

int base_sync(WeirCache *c)
{
    uint64_t written = c->base_written;
    int ret;

    if (written == c->base_synced) {
        return 0;
    }
    unlock(c);
    ret = c->host->flush(c->opaque, WEIR_CACHE_BASE);
    lock(c);
    c->stat.base_flushes++;
    if (ret == 0 && written > c->base_synced) {
        c->base_synced = written;
    }
    return ret;
}

/*
 * After a write or a flush has failed nobody knows what is on the device, and
 * a second flush that succeeds proves nothing. So nothing is put on record any
 * more. With dirty blocks, writes and flushes fail from now on, and what was
 * flushed before comes back at the next opening. Without, all goes past.
 */
void fast_failed(WeirCache *c, int error)
{
    if (!c->fast_error) {
        c->fast_error = error;
        c->host->kick(c->opaque);
    }
    wake(c, &c->commit_queue);
    wake(c, &c->room_queue);
    wake(c, &c->slot_queue);
}

/*
 * Whether what failed is worth another try. since_ns: of the first failure, 0
 * for this one; the caller's.
 */
static bool may_retry(WeirCache *c, uint64_t *since_ns)
{
    uint64_t now = now_ns(c);
    uint64_t deadline_ns;
    bool retry;

    lock(c);
    deadline_ns = c->config.error_deadline_ms * NS_PER_MS;
    retry = c->config.on_error == WEIR_CACHE_STALL && !c->fast_error &&
            (!*since_ns || !deadline_ns || now - *since_ns < deadline_ns);
    if (!*since_ns) {
        *since_ns = now;
        c->stalled++;
    }
    c->stalled -= !retry;
    c->host->kick(c->opaque);
    unlock(c);
    return retry;
}

int fast_write(WeirCache *c, uint64_t offset, uint64_t bytes, const void *buf)
{
    uint64_t since_ns = 0;
    int ret;

    for (;;) {
        ret = c->host->write(c->opaque, WEIR_CACHE_FAST, offset, bytes, buf);
        if (ret == 0 || !may_retry(c, &since_ns)) {
            break;
        }
        c->host->sleep(c->opaque, RETRY_NS);
    }
    if (ret == 0 && since_ns) {
        lock(c);
        c->stalled--;
        c->host->kick(c->opaque);
        unlock(c);
    }
    return ret;
}

int request_error(const WeirCache *c)
{
    return c->config.on_error == WEIR_CACHE_FAIL ? c->fast_error : 0;
}

/* --- memory of requests --- */

/* Where byte `at` of a request lies, and how many follow side by side. */
static uint8_t *guest_piece(const WeirCacheGuest *guest, uint64_t at, size_t *n)
{
    const struct iovec *iov = guest->iov;

    at += guest->offset;
    while (at >= iov->iov_len) {
        at -= iov->iov_len;
        iov++;
    }
    if (iov->iov_len - at < *n) {
        *n = iov->iov_len - at;
    }
    return (uint8_t *)iov->iov_base + at;
}

void guest_copy_from(const WeirCacheGuest *guest, uint64_t at, void *buf,
                     size_t bytes)
{
    for (size_t done = 0, n; done < bytes; done += n) {
        uint8_t *piece;

        n = bytes - done;
        piece = guest_piece(guest, at + done, &n);
        memcpy((uint8_t *)buf + done, piece, n);
    }
}

void guest_copy_to(const WeirCacheGuest *guest, uint64_t at, const void *buf,
                   size_t bytes)
{
    for (size_t done = 0, n; done < bytes; done += n) {
        uint8_t *piece;

        n = bytes - done;
        piece = guest_piece(guest, at + done, &n);
        memcpy(piece, (const uint8_t *)buf + done, n);
    }
}

void guest_zero(const WeirCacheGuest *guest, uint64_t at, size_t bytes)
{
    for (size_t done = 0, n; done < bytes; done += n) {
        uint8_t *piece;

        n = bytes - done;
        piece = guest_piece(guest, at + done, &n);
        memset(piece, 0, n);
    }
}

uint32_t guest_crc(const WeirCacheGuest *guest, uint64_t at, uint32_t crc,
                   size_t bytes)
{
    for (size_t done = 0, n; done < bytes; done += n) {
        uint8_t *piece;

        n = bytes - done;
        piece = guest_piece(guest, at + done, &n);
        crc = weir_crc32c(crc, piece, n);
    }
    return crc;
}

/* --- configuration --- */

void weir_cache_config_default(WeirCacheConfig *config)
{
    *config = (WeirCacheConfig) {
        .mode = WEIR_CACHE_WRITE_BACK,
        .dirty_high_percent = 50,
        .dirty_low_percent = 40,
        .dirty_age_ms = 30000,
        .idle_ms = 2000,
        .error_deadline_ms = 30000,
    };
}

int weir_cache_config_check(const WeirCacheConfig *config, char *err,
                            size_t err_size)
{
    const char *text = NULL;

    if (config->dirty_high_percent < 1 || config->dirty_high_percent > 95) {
        text = "dirty-high must be 1 to 95 percent";
    } else if (config->dirty_low_percent > config->dirty_high_percent) {
        text = "dirty-low must not be more than dirty-high";
    } else if (config->write_back_rate &&
               config->write_back_rate < BLOCK_BYTES) {
        text = "write-back-rate must be 0 (no limit) or at least 4096 bytes "
               "a second";
    }
    if (text && err && err_size) {
        snprintf(err, err_size, "%s", text);
    }
    return text ? -EINVAL : 0;
}

void weir_cache_configure(WeirCache *c, const WeirCacheConfig *config)
{
    lock(c);
    c->config = *config;
    c->write_back_due_ns = 0;
    c->host->kick(c->opaque);
    unlock(c);
}

int weir_cache_set_base_read_only(WeirCache *c, bool read_only)
{
    int ret = 0;

    lock(c);
    if (c->fast_read_only && !read_only) {
        ret = -EROFS;
    } else {
        c->base_read_only = read_only;
        c->host->kick(c->opaque);
    }
    unlock(c);
    return ret;
}

void weir_cache_lock(WeirCache *c)
{
    lock(c);
}

void weir_cache_unlock(WeirCache *c)
{
    unlock(c);
}

/* --- flush --- */

int weir_cache_flush(WeirCache *c)
{
    int ret;

    lock(c);
    request_begins(c);
    if (c->writes) {
        c->writes_per_flush = c->writes;
        c->writes = 0;
    }
    if (c->shrunk) {                    /* else a crash undoes it */
        c->shrunk = false;
        c->base_written++;
    }
    ret = journal_commit(c, c->guest);
    if (request_error(c) || (c->fast_error && c->ix.dirty)) {
        ret = c->fast_error;
    } else if (c->fast_error) {
        ret = 0;                        /* nothing of the guest is in there */
    }
    if (ret == 0) {
        ret = base_sync(c);
    }
    unlock(c);
    return ret;
}

int weir_cache_resize(WeirCache *c, uint64_t base_bytes)
{
    uint64_t first = base_bytes / BLOCK_BYTES;
    int ret = 0;

    lock(c);
    if (base_bytes < c->base_bytes && c->ix.dirty) {
        ret = -EBUSY;
        goto out;
    }
    for (uint32_t slot = 0; slot < c->ix.slots && base_bytes < c->base_bytes;
         slot++) {
        uint64_t block = weir_cache_index_block(&c->ix, slot);

        if (c->ix.flags[slot] & WEIR_SLOT_MAPPED && block >= first) {
            journal_reserve(c, 1);
            slots_unmap(c, block, 1);
            journal_release(c, 1);
        }
    }
    misses_cancel(c, 0, UINT64_MAX / 2);
    c->shrunk |= base_bytes < c->base_bytes;
    c->base_bytes = base_bytes;
    ret = journal_commit_all(c);
    if (ret == 0) {                     /* that length is there to stay */
        unlock(c);
        ret = c->host->flush(c->opaque, WEIR_CACHE_BASE);
        lock(c);
    }
    while (ret == 0 && c->sb.base_bytes != base_bytes) {
        ret = superblock_mark_length(c);
    }
    if (c->fast_error && !c->ix.dirty) {
        ret = 0;
    }
out:
    unlock(c);
    return ret;
}

/* Yields; lock held. */
static int may_grow(WeirCache *c)
{
    int ret = 0;

    while (!c->sb.grows && !c->fast_error && ret == 0) {
        ret = superblock_mark_grows(c);
    }
    if (c->fast_error && !c->sb.grows) {
        ret = c->ix.dirty ? c->fast_error : request_error(c);
    }
    return ret;
}

int weir_cache_will_resize(WeirCache *c)
{
    int ret;

    lock(c);
    ret = may_grow(c);
    unlock(c);
    return ret;
}

int weir_cache_grow(WeirCache *c, uint64_t base_bytes)
{
    int ret = 0;

    lock(c);
    while (c->growing) {
        wait_on(c, &c->write_queue);
    }
    if (base_bytes > c->base_bytes) {
        c->growing = true;
        ret = may_grow(c);
        if (ret == 0) {
            unlock(c);
            ret = c->host->grow_base(c->opaque, base_bytes);
            lock(c);
        }
        if (ret == 0) {
            __atomic_store_n(&c->base_bytes, base_bytes, __ATOMIC_RELAXED);
        }
        c->growing = false;
        wake(c, &c->write_queue);
    }
    unlock(c);
    return ret;
}

/* --- status --- */

static WeirCacheStatus status_of(const WeirCache *c, uint64_t block)
{
    uint32_t slot = weir_cache_index_find(&c->ix, block);

    if (slot == NO_SLOT || c->ix.flags[slot] & WEIR_SLOT_SUSPECT) {
        return WEIR_CACHE_STATUS_BASE;
    }
    return is_data(c, slot) ? WEIR_CACHE_STATUS_DATA : WEIR_CACHE_STATUS_ZERO;
}

WeirCacheStatus weir_cache_status(WeirCache *c, uint64_t offset,
                                  uint64_t bytes, uint64_t *same_bytes)
{
    uint64_t block = offset / BLOCK_BYTES;
    uint64_t most = blocks_of(offset % BLOCK_BYTES + bytes);
    WeirCacheStatus status;
    uint64_t n = 1;

    lock(c);
    status = status_of(c, block);
    if (c->ix.mapped) {
        /* as many as are looked up in about a millisecond */
        most = most < 16384 ? most : 16384;
        while (n < most && status_of(c, block + n) == status) {
            n++;
        }
    } else {
        n = most;
    }
    unlock(c);
    *same_bytes = n * BLOCK_BYTES - offset % BLOCK_BYTES;
    return status;
}

/* --- the worker --- */

static void look_at_clock(WeirCache *c, uint64_t now)
{
    c->now_s = now / NS_PER_S + 1;
    if (c->active) {
        c->last_request_ns = now;
        c->active = false;
    }
}

static bool commit_is_due(const WeirCache *c, uint64_t now)
{
    return c->next - c->written >= PENDING_BLOCKS / 4 ||
           ((c->records || c->next - 1 > c->durable) &&
            now - c->last_commit_ns >= COMMIT_NS) ||
           (c->quarantined && c->durable < c->next - !c->records &&
            (c->ix.free < slots_reserve(c) / 2 || c->slot_waiters));
}

/* The superblock tells whether a cache may be dropped. */
static bool is_all_clean(const WeirCache *c)
{
    return c->sb.dirty && !c->ix.dirty && !c->dirtying && !c->fast_error &&
           c->config.mode != WEIR_CACHE_WRITE_BACK;
}

/* Try until it is marked. Yields. */
static void mark_stale(WeirCache *c, uint64_t now)
{
    if (now >= c->mark_stale_ns) {
        c->mark_stale_ns = now + MARK_STALE_NS;
        superblock_mark_stale(c);
    }
}

/* Yields. Returns whether there was something to do. */
static bool work_once(WeirCache *c, uint64_t now)
{
    if (c->fast_read_only) {
        return false;
    }
    if (c->fast_error) {
        mark_stale(c, now);
        return false;
    }
    if (commit_is_due(c, now)) {
        c->last_commit_ns = now;
        journal_commit_all(c);
        return true;
    }
    generations_release(c);
    if (slots_are_short(c) &&
        journal_try_reserve(c, WEIR_CACHE_RECORDS)) {
        bool more = slots_make_room(c);

        journal_release(c, WEIR_CACHE_RECORDS);
        if (more) {
            return true;
        }
    }
    if (journal_used(c) > c->layout.journal_blocks / 2) {
        table_save(c);
        return true;
    }
    if (write_back_due(c, now) == 0) {
        write_back(c, true);
        return true;
    }
    if (is_all_clean(c)) {
        superblock_mark(c, false);
        return true;
    }
    if (now - c->last_close_ns >= REGION_IDLE_NS) {
        c->last_close_ns = now;
        regions_close_idle(c, false);
    }
    return false;
}

/*
 * Nothing to look for until a request comes: no need to wake the processor. But
 * not while they come one after the other: each would wake the worker.
 */
static bool may_sleep(const WeirCache *c, uint64_t now)
{
    if (now - c->last_request_ns < NS_PER_S) {
        return false;
    }
    return c->fast_read_only ||
           (!c->ix.dirty && !c->quarantined && !c->fills && !c->slot_waiters &&
            !c->stalled && !c->records && c->durable == c->next - 1 &&
            !regions_any_open(c) && (!c->fast_error || c->marked_stale));
}

uint64_t weir_cache_work(WeirCache *c)
{
    uint64_t now = now_ns(c);
    uint64_t in = TICK_NS;

    lock(c);
    look_at_clock(c, now);
    if (work_once(c, now)) {
        in = 0;
    } else if (write_back_due(c, now) < in) {
        in = write_back_due(c, now);
    } else if (may_sleep(c, now)) {
        c->worker_sleeps = true;
        in = UINT64_MAX;
    }
    unlock(c);
    return in;
}

/* --- figures --- */

static void add_window(const WindowCell *cell, uint64_t now, uint64_t *hits,
                       uint64_t *accesses)
{
    for (int i = 0; i < WINDOW; i++) {
        if (cell[i].time && cell[i].time + WINDOW > now) {
            *hits += cell[i].hits;
            *accesses += cell[i].accesses;
        }
    }
}

void weir_cache_query(WeirCache *c, WeirCacheInfo *info)
{
    uint64_t now = now_ns(c), oldest;

    lock(c);
    look_at_clock(c, now);
    *info = c->stat;
    info->slots = c->ix.slots;
    info->mapped = c->ix.mapped;
    info->dirty = c->ix.dirty;
    info->free = c->ix.free;
    info->memory_bytes = weir_cache_index_bytes(c->ix.slots) +
                         weir_cache_evict_bytes(c->ix.slots) +
                         (c->layout.table_sectors + 63) / 64 * 8;
    add_window(c->second, c->now_s, &info->hits_minute,
               &info->accesses_minute);
    add_window(c->minute, c->now_s / 60, &info->hits_hour,
               &info->accesses_hour);
    oldest = c->dirty_since_ns ? c->dirty_since_ns : c->dirty_since_next_ns;
    if (c->ix.dirty && oldest && now > oldest) {
        info->write_back_lag_ms = (now - oldest) / NS_PER_MS;
    }
    info->journal_blocks = c->layout.journal_blocks;
    info->journal_used = journal_used(c);
    info->stalled = c->stalled;
    info->read_only = c->base_read_only;
    info->draining = c->ix.dirty && c->config.mode != WEIR_CACHE_WRITE_BACK;
    info->fast_error = c->fast_error;
    unlock(c);
}
