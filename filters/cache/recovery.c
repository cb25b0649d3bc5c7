/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loading the table, and replaying the journal after a crash.
 *
 * The journal is read as one chain of blocks, from the tail to the first one
 * that is not there. A record changes a slot only when it is newer than the
 * slot's sector of the table (its LSN). Blocks up to "durable" are trusted. Of
 * a later one nobody was told that it is safe: its data may be missing. There
 * a block counts as mapped only if its data is right (rule 2); else what was
 * mapped before stays.
 *
 * What comes out is written to the table with an LSN behind the whole chain,
 * and only then a superblock with a new incarnation ends the chain (rules 4
 * and 5). A crash in between does no harm: the next recovery reads the same
 * chain and the same data, decides the same, and finds in a sector that was
 * already written what it would have written.
 */
#include "cache/cache-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SECTORS (SEGMENT_BYTES / WEIR_CACHE_SECTOR_BYTES)
#define LOADERS 4
#define CANDIDATES 4                    /* slots to prefetch for a block */

typedef struct Recovery {
    WeirCache *c;
    uint64_t *lsn;                      /* of each sector */
    uint8_t *ring;                      /* the whole journal */
    uint64_t first, end;                /* of the chain */
    uint64_t durable;
    uint8_t *block;                     /* memory for one */
} Recovery;

/* What lies behind this is of a base that was longer. */
static uint64_t blocks_max(const WeirCache *c)
{
    return c->sb.grows ? WEIR_CACHE_BLOCKS_MAX : blocks_of(c->base_bytes);
}

/* The table on its way in; the lock is for it. */
typedef struct Loading {
    Recovery *recovery;
    uint32_t next;                      /* sector that nobody has taken */
    uint32_t loaders;
    int ret;
    WeirCacheQueue queue;               /* until all have ended */
} Loading;

/* A piece of it, for one thread. */
typedef struct Chunk {
    Recovery *recovery;
    uint32_t first, count;              /* sectors */
    uint8_t *bytes;
    bool good;
} Chunk;

/* --- table --- */

static void load_slot(WeirCache *c, uint32_t slot,
                      const WeirCacheTableEntry *entry)
{
    if (!(entry->flags & WEIR_SLOT_MAPPED)) {
        return;
    }
    if (entry->block >= blocks_max(c)) {
        lock(c);
        slot_changed(c, slot);          /* the base is shorter now */
        unlock(c);
        return;
    }
    weir_cache_index_load(&c->ix, slot, entry->block, entry->crc,
                          entry->flags & ~WEIR_SLOT_WRITE_BACK);
}

/* All entries are looked up first, so that the memory is there in time. */
static void load_sector(WeirCache *c, uint32_t sector, const uint8_t *buf)
{
    WeirCacheTableEntry entry[WEIR_CACHE_SECTOR_SLOTS];
    uint32_t first = sector * WEIR_CACHE_SECTOR_SLOTS;
    uint32_t n = c->ix.slots - first;

    n = n < WEIR_CACHE_SECTOR_SLOTS ? n : WEIR_CACHE_SECTOR_SLOTS;
    for (uint32_t i = 0; i < n; i++) {
        weir_cache_entry_read(&entry[i], buf, i);
        if (entry[i].flags & WEIR_SLOT_MAPPED) {
            weir_cache_index_prefetch(&c->ix, entry[i].block);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        load_slot(c, first + i, &entry[i]);
    }
}

/* In a thread of its own: most of it waits for memory. */
static void load_sectors(void *opaque)
{
    Chunk *chunk = opaque;
    Recovery *r = chunk->recovery;
    const uint8_t *buf = chunk->bytes;

    for (uint32_t s = chunk->first; s < chunk->first + chunk->count; s++) {
        if (!weir_cache_sector_read(buf, &r->lsn[s], s, r->c->crc_seed)) {
            return;
        }
        load_sector(r->c, s, buf);
        buf += WEIR_CACHE_SECTOR_BYTES;
    }
    chunk->good = true;
}

/* Yields; locked. */
static int load_chunk(Chunk *chunk)
{
    WeirCache *c = chunk->recovery->c;
    int ret;

    unlock(c);
    ret = c->host->read(c->opaque, WEIR_CACHE_FAST, c->layout.table_offset +
                        (uint64_t)chunk->first * WEIR_CACHE_SECTOR_BYTES,
                        (uint64_t)chunk->count * WEIR_CACHE_SECTOR_BYTES,
                        chunk->bytes);
    if (ret == 0) {
        c->host->run(c->opaque, load_sectors, chunk);
        ret = chunk->good ? 0 : -EBADMSG;
    }
    lock(c);
    return ret;
}

/* One of several. */
static void loader(void *opaque)
{
    Loading *l = opaque;
    WeirCache *c = l->recovery->c;
    uint8_t *buf;

    lock(c);
    buf = buffer_get(c);
    l->ret = buf ? l->ret : -ENOMEM;
    while (l->next < c->layout.table_sectors && l->ret == 0) {
        uint32_t rest = c->layout.table_sectors - l->next;
        Chunk chunk = {
            .recovery = l->recovery, .first = l->next, .bytes = buf,
            .count = rest < CHUNK_SECTORS ? rest : CHUNK_SECTORS,
        };
        int ret;

        l->next += chunk.count;
        ret = load_chunk(&chunk);
        l->ret = l->ret < 0 ? l->ret : ret;
    }
    if (buf) {
        buffer_put(c, buf);
    }
    l->loaders--;
    wake(c, &l->queue);
    unlock(c);
}

/* Yields. */
static int load_table(Recovery *r)
{
    WeirCache *c = r->c;
    Loading l = { .recovery = r };

    c->host->queue_init(c->opaque, &l.queue);
    lock(c);
    for (l.loaders = 0; l.loaders < LOADERS; l.loaders++) {
        c->host->spawn(c->opaque, loader, &l);
    }
    while (l.loaders > 0) {
        wait_on(c, &l.queue);
    }
    unlock(c);
    weir_cache_index_loaded(&c->ix);
    return l.ret;
}

/* --- the chain --- */

static uint8_t *ring_block(const Recovery *r, uint64_t sequence)
{
    return r->ring + sequence % r->c->layout.journal_blocks *
           WEIR_CACHE_JOURNAL_BLOCK_BYTES;
}

static bool chain_block(const Recovery *r, const uint8_t *buf,
                        WeirCacheJournalHeader *h)
{
    return weir_cache_journal_read(h, buf, r->c->crc_seed) &&
           (h->incarnation == r->c->sb.incarnation || WITHOUT_RULE(5)) &&
           h->sequence >= r->c->sb.journal_first;
}

/* Yields. */
static int read_ring(Recovery *r)
{
    WeirCache *c = r->c;
    uint64_t bytes = (uint64_t)c->layout.journal_blocks *
                     WEIR_CACHE_JOURNAL_BLOCK_BYTES;
    int ret = 0;

    if (posix_memalign((void **)&r->ring, BLOCK_BYTES, bytes)) {
        r->ring = NULL;
        return -ENOMEM;
    }
    for (uint64_t at = 0, n; at < bytes && ret == 0; at += n) {
        n = bytes - at < SEGMENT_BYTES * 4 ? bytes - at : SEGMENT_BYTES * 4;
        ret = c->host->read(c->opaque, WEIR_CACHE_FAST,
                            c->layout.journal_offset + at, n, r->ring + at);
    }
    return ret;
}

/*
 * The copy of the superblock that holds is the older one if blocks are newer:
 * a crash while the other was written leaves none. Then nobody knows what was
 * written since.
 */
static int check_superblock(Recovery *r)
{
    WeirCache *c = r->c;
    WeirCacheJournalHeader h;

    for (uint32_t i = 0; i < c->layout.journal_blocks && c->sb_damaged; i++) {
        if (weir_cache_journal_read(&h, ring_block(r, i), c->crc_seed) &&
            h.incarnation > c->sb.incarnation) {
            c->sb.dirty = true;
            return -EBADMSG;
        }
    }
    return 0;
}

static int find_chain(Recovery *r)
{
    WeirCacheJournalHeader h;

    r->first = r->c->sb.journal_first;
    for (uint32_t i = 0; i < r->c->layout.journal_blocks; i++) {
        if (chain_block(r, ring_block(r, i), &h) &&
            h.sequence % r->c->layout.journal_blocks == i) {
            r->first = h.tail > r->first ? h.tail : r->first;
            r->durable = h.durable > r->durable ? h.durable : r->durable;
        }
    }
    r->end = r->first;
    while (r->end - r->first < r->c->layout.journal_blocks &&
           chain_block(r, ring_block(r, r->end), &h) &&
           h.sequence == r->end) {
        r->end++;
    }
    /* a sector is written when its LSN is durable; beyond the chain are those
       of a recovery that was interrupted */
    for (uint32_t s = 0; s < r->c->layout.table_sectors; s++) {
        if (r->lsn[s] < r->end && r->lsn[s] > r->durable) {
            r->durable = r->lsn[s];
        }
    }
    return r->durable >= r->end && r->durable >= r->first ? -EBADMSG : 0;
}

/* --- replay --- */

static bool is_older(const Recovery *r, uint32_t slot, uint64_t sequence)
{
    return r->lsn[slot / WEIR_CACHE_SECTOR_SLOTS] < sequence;
}

static void drop_slot(Recovery *r, uint32_t slot)
{
    weir_cache_index_unmap(&r->c->ix, slot);
    weir_cache_index_give(&r->c->ix, slot);
    slot_changed(r->c, slot);
}

/* The next slot that holds the block; there may be stale ones. */
static uint32_t next_of(const WeirCache *c, uint32_t slot, uint64_t block)
{
    do {
        slot = c->ix.node[slot].next;
    } while (slot != NO_SLOT && weir_cache_index_block(&c->ix, slot) != block);
    return slot;
}

/* Drop a block from all slots but one that the record is newer than. */
static void drop_block(Recovery *r, uint64_t block, uint32_t but,
                       uint64_t sequence)
{
    uint32_t slot = weir_cache_index_find(&r->c->ix, block);

    while (slot != NO_SLOT) {
        uint32_t next = next_of(r->c, slot, block);

        if (slot != but && is_older(r, slot, sequence)) {
            drop_slot(r, slot);
        }
        slot = next;
    }
}

/* Yields. Returns 1 when the data is what the record says, 0 when not. */
static int data_is_right(Recovery *r, const WeirCacheRecord *record)
{
    WeirCache *c = r->c;
    int ret = c->host->read(c->opaque, WEIR_CACHE_FAST,
                            slot_offset(c, record->slot), BLOCK_BYTES,
                            r->block);

    return ret < 0 ? ret : crc_of(c, record->block, r->block) == record->crc;
}

static int replay_map(Recovery *r, const WeirCacheRecord *record,
                      uint64_t sequence)
{
    WeirCache *c = r->c;

    if (record->block >= blocks_max(c)) {
        return 0;
    }
    if (sequence > r->durable && !(record->flags & WEIR_SLOT_ZERO) &&
        !WITHOUT_RULE(2)) {
        int right = data_is_right(r, record);

        if (right != 1) {
            return right;
        }
    }
    drop_block(r, record->block, record->slot, sequence);
    if (!is_older(r, record->slot, sequence)) {
        return 0;
    }
    if (!weir_cache_index_is_free(&c->ix, record->slot)) {
        drop_slot(r, record->slot);
    }
    weir_cache_index_take_slot(&c->ix, record->slot);
    weir_cache_index_map(&c->ix, record->slot, record->block, record->crc,
                         record->flags & ~(WEIR_SLOT_WRITE_BACK |
                                           WEIR_SLOT_SUSPECT));
    slot_changed(c, record->slot);
    return 0;
}

static void replay_clean(Recovery *r, uint64_t block, uint64_t sequence)
{
    uint32_t slot = weir_cache_index_find(&r->c->ix, block);

    for (; slot != NO_SLOT; slot = next_of(r->c, slot, block)) {
        if (is_older(r, slot, sequence)) {
            weir_cache_index_set_flags(&r->c->ix, slot, WEIR_SLOT_DIRTY, 0);
            slot_changed(r->c, slot);
        }
    }
}

static void replay_free(Recovery *r, uint32_t slot, uint64_t sequence)
{
    if (!weir_cache_index_is_free(&r->c->ix, slot) &&
        is_older(r, slot, sequence)) {
        drop_slot(r, slot);
    }
}

/* Yields. */
static int replay_record(Recovery *r, const WeirCacheRecord *record,
                         uint64_t sequence)
{
    switch (record->op) {
    case WEIR_CACHE_OP_MAP:
        return replay_map(r, record, sequence);
    case WEIR_CACHE_OP_CLEAN:
        for (uint32_t i = 0; i < record->crc; i++) {
            replay_clean(r, record->block + i, sequence);
        }
        return 0;
    case WEIR_CACHE_OP_UNMAP:
        for (uint32_t i = 0; i < record->crc; i++) {
            drop_block(r, record->block + i, NO_SLOT, sequence);
        }
        return 0;
    case WEIR_CACHE_OP_FREE:
        for (uint32_t i = 0; i < record->crc; i++) {
            replay_free(r, record->slot + i, sequence);
        }
        return 0;
    case WEIR_CACHE_OP_OPEN:
    case WEIR_CACHE_OP_CLOSE:
        r->c->region[record->block].open = record->op == WEIR_CACHE_OP_OPEN;
        return 0;
    }
    return -EBADMSG;
}

static void prefetch_slot(const Recovery *r, uint32_t slot)
{
    if (slot < r->c->ix.slots) {
        weir_cache_index_prefetch_slot(&r->c->ix, slot);
        __builtin_prefetch(&r->lsn[slot / WEIR_CACHE_SECTOR_SLOTS]);
    }
}

/*
 * Have the memory that the records need brought, for all of them at a time:
 * their own slots, and those that their blocks are in or behind.
 */
static void prefetch(const Recovery *r, const WeirCacheRecord *record,
                     uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        weir_cache_index_prefetch(&r->c->ix, record[i].block);
        prefetch_slot(r, record[i].slot);
    }
    for (unsigned n = 0; n < CANDIDATES; n++) {
        for (uint32_t i = 0; i < count; i++) {
            prefetch_slot(r, weir_cache_index_candidate(&r->c->ix,
                                                        record[i].block, n));
        }
    }
}

/* Yields. */
static int replay_block(Recovery *r, uint64_t sequence)
{
    WeirCacheRecord record[WEIR_CACHE_RECORDS];
    const uint8_t *block = ring_block(r, sequence);
    WeirCacheJournalHeader h;
    int ret = 0;

    chain_block(r, block, &h);
    for (uint32_t i = 0; i < h.records; i++) {
        if (weir_cache_record_read(&record[i], block, i,
                                   &r->c->layout) < 0) {
            return -EBADMSG;
        }
    }
    prefetch(r, record, h.records);
    for (uint32_t i = 0; i < h.records && ret == 0; i++) {
        ret = replay_record(r, &record[i], sequence);
        r->c->stat.recovered_records++;
    }
    return ret;
}

/* Yields. */
static int replay(Recovery *r)
{
    int ret = 0;

    for (uint64_t s = r->first; s < r->end && ret == 0; s++) {
        ret = replay_block(r, s);
    }
    return ret;
}

/* What the base may have changed under is believed when it was compared. */
static void suspect_open_regions(WeirCache *c)
{
    for (uint32_t slot = 0; slot < c->ix.slots; slot++) {
        if ((c->ix.flags[slot] & (WEIR_SLOT_MAPPED | WEIR_SLOT_DIRTY)) ==
            WEIR_SLOT_MAPPED && regions_is_open(c, weir_cache_index_block(
                                                    &c->ix, slot))) {
            weir_cache_index_set_flags(&c->ix, slot, 0, WEIR_SLOT_SUSPECT);
            slot_changed(c, slot);
        }
    }
    memset(c->region, 0, sizeof(c->region));
}

/* Yields. */
static int recover(Recovery *r)
{
    int ret = read_ring(r);

    if (ret == 0) {
        ret = check_superblock(r);
    }
    if (ret < 0 || !r->c->sb.in_use) {
        return ret;
    }
    ret = find_chain(r);
    if (ret == 0) {
        ret = replay(r);
    }
    if (ret == 0) {
        suspect_open_regions(r->c);
        r->c->next = r->end + 1;
    }
    return ret;
}

int recovery_load(WeirCache *c)
{
    Recovery r = { .c = c };
    int ret = 0;

    c->next = c->sb.journal_first;
    r.lsn = calloc(c->layout.table_sectors, sizeof(*r.lsn));
    if (!r.lsn || posix_memalign((void **)&r.block, BLOCK_BYTES, BLOCK_BYTES)) {
        ret = -ENOMEM;
    }
    if (ret == 0 && c->sb.in_use) {
        /* what was written and not flushed may be seen now and gone later */
        ret = c->host->flush(c->opaque, WEIR_CACHE_FAST);
        if (ret == 0) {
            ret = c->host->flush(c->opaque, WEIR_CACHE_BASE);
        }
    }
    if (ret == 0) {
        ret = load_table(&r);
    }
    if (ret == 0 && (c->sb.in_use || c->sb_damaged)) {
        ret = recover(&r);
    }
    free(r.lsn);
    free(r.ring);
    free(r.block);
    return ret;
}

uint64_t recovery_needs_bytes(WeirCache *c)
{
    uint64_t blocks = blocks_of(c->base_bytes), needed = c->base_bytes;
    /* a cut may take part of a block; who cannot write does not miss that */
    uint64_t whole = c->base_read_only ? blocks : c->base_bytes / BLOCK_BYTES;

    for (uint32_t slot = 0; slot < c->ix.slots; slot++) {
        uint64_t block = weir_cache_index_block(&c->ix, slot);

        if (!(c->ix.flags[slot] & WEIR_SLOT_MAPPED) || block < whole) {
            continue;
        }
        if (is_dirty(c, slot)) {
            uint64_t end = (block + 1) * BLOCK_BYTES;

            needed = end > needed ? end : needed;
        } else if (block >= blocks) {
            weir_cache_index_unmap(&c->ix, slot);
            weir_cache_index_give(&c->ix, slot);
            slot_changed(c, slot);
        }
    }
    return needed;
}

int recovery_save(WeirCache *c)
{
    int ret;

    if (!c->sb.in_use) {
        return 0;
    }
    lock(c);
    ret = table_write_changed(c, c->next - 1);
    unlock(c);
    return ret == 0 ? c->host->flush(c->opaque, WEIR_CACHE_FAST) : ret;
}
