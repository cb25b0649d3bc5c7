/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cache/rounds.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/index.h"

#define PIECES 12
#define LANES 16                        /* slots in a word */
#define EACH UINT64_C(0x1111111111111111)

static uint32_t words_of(uint32_t slots)
{
    return (uint32_t)(((uint64_t)slots + LANES - 1) / LANES);
}

uint64_t weir_cache_rounds_bytes(uint32_t slots)
{
    return words_of(slots) * UINT64_C(8);
}

int weir_cache_rounds_init(WeirCacheRounds *r, uint32_t slots, uint32_t most)
{
    memset(r, 0, sizeof(*r));
    r->slots = slots;
    r->piece = most / PIECES + 1;
    r->due = weir_cache_memory_zero(weir_cache_rounds_bytes(slots));
    weir_cache_rounds_clear(r);
    return r->due ? 0 : -ENOMEM;
}

void weir_cache_rounds_destroy(WeirCacheRounds *r)
{
    free(r->due);
    memset(r, 0, sizeof(*r));
}

void weir_cache_rounds_clear(WeirCacheRounds *r)
{
    if (r->used) {
        memset(r->due, 0, weir_cache_rounds_bytes(r->slots));
    }
    memset(r->count, 0, sizeof(r->count));
    r->used = 0;
    r->hand = 0;
    r->joined = 0;
    r->round = 1;
    r->last = 2;
}

static uint8_t round_after(uint8_t round)
{
    return round < WEIR_CACHE_ROUNDS_MAX ? round + 1 : 1;
}

static uint8_t due_of(const WeirCacheRounds *r, uint32_t slot)
{
    return r->due[slot / 2] >> slot % 2 * 4 & 0xf;
}

static void set_due(WeirCacheRounds *r, uint32_t slot, uint8_t round)
{
    unsigned shift = slot % 2 * 4;
    uint8_t *pair = &r->due[slot / 2];

    *pair = (uint8_t)((*pair & ~(0xf << shift)) | round << shift);
}

/* From now on another one is the last, unless there are too many. */
static void begin_piece(WeirCacheRounds *r)
{
    if (round_after(r->last) != r->round) {
        r->last = round_after(r->last);
        r->joined = 0;
    }
}

/* They are in, and due in that round. */
static void put(WeirCacheRounds *r, uint32_t first, uint32_t count,
                uint8_t round)
{
    r->count[round] += count;
    r->used += count;
    if (count && first % 2) {
        set_due(r, first++, round);
        count--;
    }
    memset(&r->due[first / 2], round << 4 | round, count / 2);
    if (count % 2) {
        set_due(r, first + count - 1, round);
    }
}

void weir_cache_rounds_join(WeirCacheRounds *r, uint32_t first, uint32_t count)
{
    while (count) {
        uint32_t n;

        if (r->joined >= r->piece) {
            begin_piece(r);
        }
        n = r->joined < r->piece ? r->piece - r->joined : 1;
        n = n < count ? n : count;
        assert(!due_of(r, first));
        put(r, first, n, r->last);
        r->joined += n;
        first += n;
        count -= n;
    }
}

void weir_cache_rounds_leave(WeirCacheRounds *r, uint32_t slot)
{
    uint8_t round = due_of(r, slot);

    assert(round);
    set_due(r, slot, 0);
    r->count[round]--;
    r->used--;
}

/* One that the hand has passed by already has its turn in the next round. */
void weir_cache_rounds_replace(WeirCacheRounds *r, uint32_t from, uint32_t to)
{
    uint8_t round = due_of(r, from);

    assert(!due_of(r, to));
    weir_cache_rounds_leave(r, from);
    if (round == r->round && to < r->hand) {
        round = round_after(round);
    }
    put(r, to, 1, round);
}

static void next_round(WeirCacheRounds *r)
{
    r->hand = 0;
    r->round = round_after(r->round);
    if (r->round == r->last) {
        begin_piece(r);
    }
}

/* Bit 0 of the lanes that are due now: 0 in all four bits after the XOR. */
static uint64_t lanes_due(const WeirCacheRounds *r, uint32_t word)
{
    uint64_t lanes;

    memcpy(&lanes, r->due + word * sizeof(lanes), sizeof(lanes));
    lanes = le64toh(lanes) ^ r->round * EACH;
    lanes |= lanes >> 1;
    lanes |= lanes >> 2;
    return ~lanes & EACH;
}

uint32_t weir_cache_rounds_first(WeirCacheRounds *r, uint32_t *words)
{
    if (!r->used) {
        return WEIR_CACHE_NO_SLOT;
    }
    while (!r->count[r->round]) {
        next_round(r);
    }
    for (; *words; --*words) {
        uint32_t word = r->hand / LANES;
        uint64_t due = lanes_due(r, word) & UINT64_MAX << r->hand % LANES * 4;

        if (due) {
            r->hand = word * LANES + (uint32_t)__builtin_ctzll(due) / 4;
            return r->hand;
        }
        r->hand = (word + 1) * LANES;
    }
    return WEIR_CACHE_NO_SLOT;
}
