/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index: 16 bytes per slot (a node of 13, flags 1, and half a bucket head
 * of 4), and 1/8 for the free set.
 *
 * The free set has two levels, so that the next free slot of a full cache is
 * found without a walk over all of them.
 */
#include "cache/index.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINE 16                         /* bucket heads in a cache line */
#define HUGE_PAGE_BYTES (UINT64_C(2) << 20)
#define HUGE_FROM_BYTES (8 * HUGE_PAGE_BYTES)

static uint32_t words_of(uint64_t bits)
{
    return (uint32_t)((bits + 63) / 64);
}

static uint32_t buckets_of(uint32_t slots)
{
    return (slots / 2 / LINE + 1) * LINE;
}

uint64_t weir_cache_index_bytes(uint32_t slots)
{
    uint64_t words = words_of(slots);

    return slots * (uint64_t)(sizeof(WeirCacheNode) + 1) +
           buckets_of(slots) * 4ULL + words * 8 + words_of(words) * 8ULL;
}

static void set_all_free(WeirCacheIndex *ix)
{
    for (uint32_t slot = 0; slot < ix->slots; slot += 64) {
        uint32_t rest = ix->slots - slot;

        ix->free_bits[slot / 64] = rest < 64 ? (UINT64_C(1) << rest) - 1
                                             : UINT64_MAX;
        ix->free_words[slot / 4096] |= UINT64_C(1) << slot / 64 % 64;
    }
    ix->free = ix->slots;
}

/* Fewer faults while it is filled, and fewer misses of the TLB afterwards. */
void *weir_cache_memory(uint64_t bytes)
{
    void *p = NULL;

    if (bytes < HUGE_FROM_BYTES) {
        return malloc(bytes);
    }
    if (posix_memalign(&p, HUGE_PAGE_BYTES, bytes)) {
        return NULL;
    }
    madvise(p, bytes, MADV_HUGEPAGE);   /* else in small ones */
    return p;
}

/* The system's memory is zero before it is touched: not now, in an opening. */
void *weir_cache_memory_zero(uint64_t bytes)
{
    void *p = calloc(1, bytes);
    uintptr_t inside = ((uintptr_t)p + HUGE_PAGE_BYTES - 1) &
                       ~(uintptr_t)(HUGE_PAGE_BYTES - 1);

    if (p && bytes >= HUGE_FROM_BYTES) {
        madvise((void *)inside, (bytes - HUGE_PAGE_BYTES) &
                ~(HUGE_PAGE_BYTES - 1), MADV_HUGEPAGE);
    }
    return p;
}

int weir_cache_index_init(WeirCacheIndex *ix, uint32_t slots, uint64_t seed)
{
    uint32_t words = words_of(slots);

    memset(ix, 0, sizeof(*ix));
    ix->slots = slots;
    ix->buckets = buckets_of(slots);
    ix->seed = seed;
    ix->head = weir_cache_memory(ix->buckets * UINT64_C(4));
    ix->node = weir_cache_memory(slots * (uint64_t)sizeof(WeirCacheNode));
    ix->flags = weir_cache_memory_zero(slots);
    ix->free_bits = weir_cache_memory_zero(words * UINT64_C(8));
    ix->free_words = weir_cache_memory_zero(words_of(words) * UINT64_C(8));
    if (!ix->head || !ix->node || !ix->flags || !ix->free_bits ||
        !ix->free_words) {
        weir_cache_index_destroy(ix);
        return -ENOMEM;
    }
    memset(ix->head, 0xff, (size_t)ix->buckets * sizeof(*ix->head));
    set_all_free(ix);
    return 0;
}

void weir_cache_index_destroy(WeirCacheIndex *ix)
{
    free(ix->head);
    free(ix->node);
    free(ix->flags);
    free(ix->free_bits);
    free(ix->free_words);
    memset(ix, 0, sizeof(*ix));
}

/* --- hash table --- */

/*
 * Two rounds of multiply and fold; the upper half picks the cache line. Blocks
 * side by side share it, since they are looked up, and loaded, together. Each
 * line has them in another order: else what has blocks at even distances only
 * would leave most buckets empty.
 */
static uint32_t bucket_of(const WeirCacheIndex *ix, uint64_t block)
{
    uint64_t h = (block / LINE ^ ix->seed) * UINT64_C(0x9e3779b97f4a7c15);

    h = (h ^ h >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)((h >> 32) * (ix->buckets / LINE) >> 32) * LINE +
           (uint32_t)((block ^ h >> 28) % LINE);
}

void weir_cache_index_prefetch(const WeirCacheIndex *ix, uint64_t block)
{
    __builtin_prefetch(&ix->head[bucket_of(ix, block)], 1);
}

void weir_cache_index_prefetch_slot(const WeirCacheIndex *ix, uint32_t slot)
{
    const char *node = (const char *)&ix->node[slot];

    __builtin_prefetch(node, 1);
    __builtin_prefetch(node + sizeof(WeirCacheNode) - 1, 1);
    __builtin_prefetch(&ix->flags[slot], 1);
}

uint32_t weir_cache_index_candidate(const WeirCacheIndex *ix, uint64_t block,
                                    unsigned n)
{
    uint32_t slot = ix->head[bucket_of(ix, block)];

    while (slot != WEIR_CACHE_NO_SLOT && n-- > 0) {
        slot = ix->node[slot].next;
    }
    return slot;
}

uint32_t weir_cache_index_find(const WeirCacheIndex *ix, uint64_t block)
{
    uint32_t slot = ix->head[bucket_of(ix, block)];

    while (slot != WEIR_CACHE_NO_SLOT &&
           weir_cache_index_block(ix, slot) != block) {
        slot = ix->node[slot].next;
    }
    return slot;
}

void weir_cache_index_map(WeirCacheIndex *ix, uint32_t slot, uint64_t block,
                          uint32_t crc, uint8_t flags)
{
    uint32_t *head = &ix->head[bucket_of(ix, block)];

    assert(!(ix->flags[slot] & WEIR_SLOT_MAPPED));
    ix->node[slot] = (WeirCacheNode) {
        .block_low = (uint32_t)block, .block_high = (uint8_t)(block >> 32),
        .crc = crc, .next = *head,
    };
    ix->flags[slot] = flags | WEIR_SLOT_MAPPED;
    *head = slot;
    ix->mapped++;
    ix->dirty += !!(flags & WEIR_SLOT_DIRTY);
}

void weir_cache_index_load(WeirCacheIndex *ix, uint32_t slot, uint64_t block,
                           uint32_t crc, uint8_t flags)
{
    uint32_t *head = &ix->head[bucket_of(ix, block)];

    ix->node[slot] = (WeirCacheNode) {
        .block_low = (uint32_t)block, .block_high = (uint8_t)(block >> 32),
        .crc = crc,
        .next = __atomic_exchange_n(head, slot, __ATOMIC_RELAXED),
    };
    ix->flags[slot] = flags | WEIR_SLOT_MAPPED;
}

void weir_cache_index_unmap(WeirCacheIndex *ix, uint32_t slot)
{
    uint32_t *head = &ix->head[bucket_of(ix, weir_cache_index_block(ix, slot))];
    uint32_t before = *head;

    assert(ix->flags[slot] & WEIR_SLOT_MAPPED);
    if (before == slot) {
        *head = ix->node[slot].next;
    } else {
        while (ix->node[before].next != slot) {
            before = ix->node[before].next;
        }
        ix->node[before].next = ix->node[slot].next;
    }
    ix->mapped--;
    ix->dirty -= !!(ix->flags[slot] & WEIR_SLOT_DIRTY);
    ix->flags[slot] = 0;
}

void weir_cache_index_set_flags(WeirCacheIndex *ix, uint32_t slot,
                                uint8_t clear, uint8_t set)
{
    uint8_t before = ix->flags[slot];
    uint8_t after = (uint8_t)((before & ~clear) | set);

    assert(before & after & WEIR_SLOT_MAPPED);
    ix->flags[slot] = after;
    ix->dirty += !!(after & WEIR_SLOT_DIRTY);
    ix->dirty -= !!(before & WEIR_SLOT_DIRTY);
}

/* --- free slots --- */

/* The first word at or behind `word`, round the end, that has a free slot. */
static uint32_t next_free_word(const WeirCacheIndex *ix, uint32_t word)
{
    uint32_t words = words_of(words_of(ix->slots));
    uint64_t bits = ix->free_words[word / 64] & (UINT64_MAX << word % 64);
    uint32_t i = word / 64;

    while (!bits) {
        i = i + 1 < words ? i + 1 : 0;
        bits = ix->free_words[i];
    }
    return i * 64 + (uint32_t)__builtin_ctzll(bits);
}

static uint32_t next_free_slot(const WeirCacheIndex *ix)
{
    uint32_t word = ix->cursor / 64;
    uint64_t bits = ix->free_bits[word] & (UINT64_MAX << ix->cursor % 64);

    if (!bits) {
        word = next_free_word(ix, word + 1 < words_of(ix->slots) ? word + 1
                                                                 : 0);
        bits = ix->free_bits[word];
    }
    return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* Bit i: whether slot i of these eight has that flag. */
static uint64_t gather(const uint8_t *flags, uint8_t flag)
{
    uint64_t eight;

    memcpy(&eight, flags, sizeof(eight));
    eight = le64toh(eight) >> __builtin_ctz(flag) &
            UINT64_C(0x0101010101010101);
    return eight * UINT64_C(0x0102040810204080) >> 56;
}

/* The same for sixty-four. */
static uint64_t gather_word(const uint8_t *flags, uint8_t flag)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < 64; i += 8) {
        bits |= gather(flags + i, flag) << i;
    }
    return bits;
}

static void loaded_word(WeirCacheIndex *ix, uint32_t word)
{
    uint8_t flags[64] = { 0 };
    uint64_t mapped;

    memcpy(flags, &ix->flags[word * UINT64_C(64)],
           ix->slots - word * 64 < 64 ? ix->slots - word * 64 : 64);
    mapped = gather_word(flags, WEIR_SLOT_MAPPED);
    ix->dirty += (uint32_t)__builtin_popcountll(
        gather_word(flags, WEIR_SLOT_DIRTY));
    ix->mapped += (uint32_t)__builtin_popcountll(mapped);
    ix->free_bits[word] &= ~mapped;
    if (!ix->free_bits[word]) {
        ix->free_words[word / 64] &= ~(UINT64_C(1) << word % 64);
    }
}

void weir_cache_index_loaded(WeirCacheIndex *ix)
{
    for (uint32_t word = 0; word < words_of(ix->slots); word++) {
        loaded_word(ix, word);
    }
    ix->free = ix->slots - ix->mapped;
}

void weir_cache_index_take_slot(WeirCacheIndex *ix, uint32_t slot)
{
    uint64_t *bits = &ix->free_bits[slot / 64];

    assert(weir_cache_index_is_free(ix, slot));
    *bits &= ~(UINT64_C(1) << slot % 64);
    if (!*bits) {
        ix->free_words[slot / 4096] &= ~(UINT64_C(1) << slot / 64 % 64);
    }
    ix->free--;
}

uint32_t weir_cache_index_take(WeirCacheIndex *ix, uint32_t want,
                               uint32_t *first)
{
    uint32_t slot;
    uint32_t n = 0;

    if (!ix->free) {
        return 0;
    }
    slot = *first = next_free_slot(ix);
    do {
        weir_cache_index_take_slot(ix, slot++);
        n++;
    } while (n < want && slot < ix->slots &&
             weir_cache_index_is_free(ix, slot));
    ix->cursor = slot < ix->slots ? slot : 0;
    return n;
}

void weir_cache_index_give(WeirCacheIndex *ix, uint32_t slot)
{
    assert(!weir_cache_index_is_free(ix, slot) &&
           !(ix->flags[slot] & WEIR_SLOT_MAPPED));
    ix->free_bits[slot / 64] |= UINT64_C(1) << slot % 64;
    ix->free_words[slot / 4096] |= UINT64_C(1) << slot / 64 % 64;
    ix->free++;
}
