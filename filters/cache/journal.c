/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal: what is in which slot, as a ring of blocks.
 *
 *   append --block full--> sealed --written--> written --flush--> durable
 *
 * A commit seals the open block, writes all sealed ones and flushes the device.
 * Whoever comes while one is under way waits for it, and then one of those who
 * waited commits for all (group commit). Since data is in its slot before its
 * record is appended, the same flush makes both durable.
 *
 * The header tells which blocks were durable when it was made ("durable"). A
 * record of a later block may have reached the medium without its data: the
 * recovery checks the data of those (rule 2).
 *
 * That is why a block may also be written before the data is: whoever writes
 * and is likely to flush next has the open block written beside the data, with
 * its records already in it (a preview). When the flush comes and the open
 * block is still as the preview has it, only the device has to be flushed.
 * Else the block is written again, in its place.
 */
#include "cache/cache-int.h"

#include <assert.h>
#include <string.h>

/* Blocks kept for records that nobody could reserve. */
#define MARGIN_BLOCKS 32

static uint8_t *block_memory(WeirCache *c, uint64_t sequence)
{
    return c->journal + sequence % PENDING_BLOCKS *
           WEIR_CACHE_JOURNAL_BLOCK_BYTES;
}

uint64_t journal_used(const WeirCache *c)
{
    return c->next - c->tail;
}

static WeirCacheJournalHeader open_header(const WeirCache *c)
{
    return (WeirCacheJournalHeader) {
        .incarnation = c->sb.incarnation,
        .sequence = c->next,
        .durable = c->durable,
        .tail = c->tail,
        .records = c->records,
    };
}

void journal_seal(WeirCache *c)
{
    WeirCacheJournalHeader header = open_header(c);

    if (c->records) {
        weir_cache_journal_seal(block_memory(c, c->next), &header, c->crc_seed);
        c->records = 0;
        c->next++;
        assert(c->next - c->written < PENDING_BLOCKS || c->fast_error);
    }
}

uint64_t journal_append(WeirCache *c, const WeirCacheRecord *record)
{
    uint64_t sequence = c->next;

    if (c->fast_error || c->fast_read_only) {
        return c->durable;              /* nothing is recorded */
    }
    weir_cache_record_write(block_memory(c, sequence), c->records++, record);
    if (c->records == WEIR_CACHE_RECORDS) {
        journal_seal(c);
        if (c->next - c->written >= PENDING_BLOCKS / 4) {
            c->host->kick(c->opaque);
        }
    }
    return sequence;
}

static uint64_t block_offset(const WeirCache *c, uint64_t sequence)
{
    return c->layout.journal_offset + sequence % c->layout.journal_blocks *
           WEIR_CACHE_JOURNAL_BLOCK_BYTES;
}

/* --- preview --- */

static void write_preview(void *opaque)
{
    WeirCache *c = opaque;
    /* nobody changes these meanwhile */
    int ret = c->host->write(c->opaque, WEIR_CACHE_FAST,
                             block_offset(c, c->preview_sequence),
                             WEIR_CACHE_JOURNAL_BLOCK_BYTES, c->preview);

    lock(c);
    c->previewing = false;
    c->preview_written = ret == 0;
    c->stat.journal_written++;
    wake(c, &c->commit_queue);
    unlock(c);
}

bool journal_preview_pays(const WeirCache *c, uint32_t count)
{
    return c->writes == c->writes_per_flush && !c->writing->next &&
           !c->previewing && !c->committing && !c->fast_error &&
           c->written == c->next && c->records + count <= WEIR_CACHE_RECORDS;
}

void journal_preview(WeirCache *c, const WeirCacheRecord *records,
                     uint32_t count)
{
    WeirCacheJournalHeader header = open_header(c);

    memcpy(c->preview, block_memory(c, c->next),
           WEIR_CACHE_JOURNAL_BLOCK_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        weir_cache_record_write(c->preview, header.records++, &records[i]);
    }
    weir_cache_journal_seal(c->preview, &header, c->crc_seed);
    c->preview_sequence = header.sequence;
    c->preview_records = header.records;
    c->preview_fits = false;
    c->preview_written = false;
    c->previewing = true;
    c->host->spawn(c->opaque, write_preview, c);
}

bool journal_preview_matches(const WeirCache *c, uint32_t count)
{
    return c->preview_sequence == c->next &&
           c->preview_records == c->records + count;
}

/* Whether the open block is on the device already. */
static bool is_previewed(const WeirCache *c)
{
    return c->preview_fits && c->preview_written &&
           journal_preview_matches(c, 0);
}

/* --- commit --- */

/* Write the sealed blocks from `first` on. Yields; lock not held. */
static int write_blocks(WeirCache *c, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t at = first % c->layout.journal_blocks;
        uint64_t n = end - first;
        int ret;

        /* in one piece both on the device and in memory */
        if (n > c->layout.journal_blocks - at) {
            n = c->layout.journal_blocks - at;
        }
        if (n > PENDING_BLOCKS - first % PENDING_BLOCKS) {
            n = PENDING_BLOCKS - first % PENDING_BLOCKS;
        }
        ret = fast_write(c, block_offset(c, first),
                         n * WEIR_CACHE_JOURNAL_BLOCK_BYTES,
                         block_memory(c, first));
        if (ret < 0) {
            return ret;
        }
        first += n;
    }
    return 0;
}

/* Yields. */
static void commit_now(WeirCache *c)
{
    uint64_t first = c->written, end;
    bool previewed = is_previewed(c);
    int ret;

    c->committing = true;
    journal_seal(c);
    end = c->next;
    unlock(c);
    ret = write_blocks(c, first, end - previewed);
    if (ret == 0) {
        ret = c->host->flush(c->opaque, WEIR_CACHE_FAST);
    }
    lock(c);
    /* the error may have been told to somebody else's flush only */
    ret = ret == 0 ? c->fast_error : ret;
    if (ret < 0) {
        fast_failed(c, ret);
    } else {
        c->written = end;
        c->durable = end - 1;
        c->stat.journal_written += end - first - previewed;
        c->stat.fast_flushes++;
    }
    c->committing = false;
    generations_release(c);
    wake(c, &c->commit_queue);
    wake(c, &c->room_queue);
}

int journal_commit(WeirCache *c, uint64_t sequence)
{
    while (c->durable < sequence && !c->fast_error) {
        if (c->committing || c->previewing) {
            wait_on(c, &c->commit_queue);
        } else {
            commit_now(c);
        }
    }
    return c->durable < sequence ? c->fast_error : 0;
}

int journal_commit_all(WeirCache *c)
{
    return journal_commit(c, c->records ? c->next : c->next - 1);
}

/* Whether so many records more fit, in the ring and among the sealed blocks. */
static bool has_room(const WeirCache *c, uint32_t records)
{
    uint64_t blocks = (c->reserved + records) / WEIR_CACHE_RECORDS + 1 +
                      MARGIN_BLOCKS;

    return c->fast_error ||
           (journal_used(c) + blocks <= c->layout.journal_blocks &&
            c->next - c->written + blocks <= PENDING_BLOCKS);
}

static bool try_reserve(WeirCache *c, uint32_t records, uint32_t for_others)
{
    if (!has_room(c, records + for_others)) {
        c->host->kick(c->opaque);
        return false;
    }
    c->reserved += records;
    return true;
}

bool journal_try_reserve(WeirCache *c, uint32_t records)
{
    return try_reserve(c, records, WRITE_BACK_RECORDS);
}

static void reserve(WeirCache *c, uint32_t records, uint32_t for_others)
{
    while (!try_reserve(c, records, for_others)) {
        if (c->next - c->written > PENDING_BLOCKS / 8) {
            journal_commit_all(c);
        } else if (journal_used(c) > c->layout.journal_blocks / 4 &&
                   !c->saving) {
            table_save(c);
        } else {
            wait_on(c, &c->room_queue);
        }
    }
}

/*
 * Requests that wait for a slot keep what they have reserved; writing back,
 * which makes slots free, always has room of its own.
 */
void journal_reserve(WeirCache *c, uint32_t records)
{
    reserve(c, records, WRITE_BACK_RECORDS);
}

void journal_reserve_for_write_back(WeirCache *c)
{
    reserve(c, WRITE_BACK_RECORDS, 0);
}

void journal_renew(WeirCache *c, uint32_t records)
{
    journal_release(c, records);
    journal_reserve(c, records);
}

void journal_release(WeirCache *c, uint32_t records)
{
    c->reserved -= records;
    wake(c, &c->room_queue);
}
