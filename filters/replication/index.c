/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_AT_FIRST 64

static uint64_t memory_of(const WeirIndexEpoch *e)
{
    return sizeof(*e) + e->names_bytes +
           (e->records ? (uint64_t)e->count * sizeof(*e->records) : 0);
}

/*
 * Room for n more behind `end`: move all to the beginning if that is mostly
 * empty, else get more room.
 */
static int make_room(void **items, size_t size, size_t *first, size_t *end,
                     size_t *room, size_t n)
{
    size_t wanted = *room ? *room : ROOM_AT_FIRST, count = *end - *first;
    uint8_t *more = *items;

    if (*room - *end >= n) {
        return 0;
    }
    while (wanted < count + n || (*first < *room / 2 && wanted <= *room)) {
        wanted += wanted / 4;
    }
    if (wanted > *room) {
        more = realloc(more, wanted * size);
        if (!more) {
            return -ENOMEM;
        }
        *items = more;
        *room = wanted;
    }
    if (*first > 0) {
        memmove(more, more + *first * size, count * size);
        *first = 0;
        *end = count;
    }
    return 0;
}

int weir_index_reserve(WeirIndex *index, uint32_t lengths)
{
    int ret = make_room((void **)&index->epochs, sizeof(*index->epochs),
                        &index->first, &index->end, &index->room, 1);

    return ret < 0 ? ret
                   : make_room((void **)&index->lengths,
                               sizeof(*index->lengths), &index->lengths_first,
                               &index->lengths_end, &index->lengths_room,
                               lengths);
}

void weir_index_add(WeirIndex *index, const WeirIndexEpoch *epoch)
{
    index->epochs[index->end++] = *epoch;
    index->records += epoch->count;
    index->bytes += memory_of(epoch);
}

void weir_index_add_length(WeirIndex *index, const WeirLength *length)
{
    index->lengths[index->lengths_end++] = *length;
    index->bytes += sizeof(*length);
}

WeirIndexEpoch *weir_index_get(const WeirIndex *index, uint64_t number)
{
    uint64_t first;

    if (index->first == index->end) {
        return NULL;
    }
    first = index->epochs[index->first].commit.epoch;
    return number < first || number - first >= index->end - index->first
           ? NULL : &index->epochs[index->first + (number - first)];
}

void weir_index_forget_records(WeirIndex *index, WeirIndexEpoch *epoch)
{
    if (epoch->records) {
        index->bytes -= epoch->count * sizeof(*epoch->records);
        free(epoch->records);
        epoch->records = NULL;
    }
}

bool weir_index_length(const WeirIndex *index, uint16_t disk, uint64_t epoch,
                       uint64_t *bytes)
{
    for (size_t i = index->lengths_end; i > index->lengths_first; i--) {
        const WeirLength *l = &index->lengths[i - 1];

        if (l->disk == disk && l->epoch <= epoch) {
            *bytes = l->bytes;
            return true;
        }
    }
    return false;
}

static void forget(WeirIndex *index, WeirIndexEpoch *epoch)
{
    index->records -= epoch->count;
    index->bytes -= memory_of(epoch);
    free(epoch->records);
    free(epoch->names);
}

void weir_index_drop_to(WeirIndex *index, uint64_t number)
{
    while (index->first < index->end &&
           index->epochs[index->first].commit.epoch <= number) {
        forget(index, &index->epochs[index->first++]);
    }
    while (index->lengths_first < index->lengths_end &&
           index->lengths[index->lengths_first].epoch <= number) {
        index->lengths_first++;
        index->bytes -= sizeof(*index->lengths);
    }
}

void weir_index_drop_behind(WeirIndex *index, uint64_t number)
{
    while (index->first < index->end &&
           index->epochs[index->end - 1].commit.epoch > number) {
        forget(index, &index->epochs[--index->end]);
    }
    while (index->lengths_first < index->lengths_end &&
           index->lengths[index->lengths_end - 1].epoch > number) {
        index->lengths_end--;
        index->bytes -= sizeof(*index->lengths);
    }
}

void weir_index_destroy(WeirIndex *index)
{
    weir_index_drop_behind(index, 0);
    free(index->epochs);
    free(index->lengths);
    memset(index, 0, sizeof(*index));
}
