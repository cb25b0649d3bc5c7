/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_AT_FIRST 64

static uint64_t memory_of(const WeirIndexEpoch *e)
{
    uint64_t names = 0;

    for (uint32_t i = 0; i < e->marks; i++) {
        names += strlen(e->names + names) + 1;
    }
    return sizeof(*e) + sizeof(e) + names +
           (uint64_t)e->count * sizeof(e->records[0]);
}

WeirIndexEpoch *weir_index_epoch_new(uint32_t records)
{
    return calloc(1, sizeof(WeirIndexEpoch) +
                     (size_t)records * sizeof(WeirIndexRecord));
}

void weir_index_epoch_free(WeirIndexEpoch *epoch)
{
    if (epoch) {
        free(epoch->names);
        free(epoch);
    }
}

/* Move all to the beginning if that is mostly empty, else get more room. */
static int make_room(WeirIndex *index)
{
    size_t count = index->end - index->first;
    size_t room = index->room ? index->room * 2 : ROOM_AT_FIRST;
    WeirIndexEpoch **more;

    if (index->first > 0 && index->first >= index->room / 2) {
        memmove(index->epochs, index->epochs + index->first,
                count * sizeof(*index->epochs));
        index->first = 0;
        index->end = count;
        return 0;
    }
    more = realloc(index->epochs, room * sizeof(*more));
    if (!more) {
        return -ENOMEM;
    }
    index->epochs = more;
    index->room = room;
    return 0;
}

int weir_index_reserve(WeirIndex *index)
{
    return index->end == index->room ? make_room(index) : 0;
}

void weir_index_add(WeirIndex *index, WeirIndexEpoch *epoch)
{
    index->epochs[index->end++] = epoch;
    index->records += epoch->count;
    index->bytes += memory_of(epoch);
}

const WeirIndexEpoch *weir_index_get(const WeirIndex *index, uint64_t number)
{
    uint64_t first;

    if (index->first == index->end) {
        return NULL;
    }
    first = index->epochs[index->first]->commit.epoch;
    return number < first || number - first >= index->end - index->first
           ? NULL : index->epochs[index->first + (number - first)];
}

static void forget(WeirIndex *index, WeirIndexEpoch *epoch)
{
    index->records -= epoch->count;
    index->bytes -= memory_of(epoch);
    weir_index_epoch_free(epoch);
}

void weir_index_drop_to(WeirIndex *index, uint64_t number)
{
    while (index->first < index->end &&
           index->epochs[index->first]->commit.epoch <= number) {
        forget(index, index->epochs[index->first++]);
    }
}

void weir_index_drop_behind(WeirIndex *index, uint64_t number)
{
    while (index->first < index->end &&
           index->epochs[index->end - 1]->commit.epoch > number) {
        forget(index, index->epochs[--index->end]);
    }
}

void weir_index_destroy(WeirIndex *index)
{
    weir_index_drop_behind(index, 0);
    free(index->epochs);
    memset(index, 0, sizeof(*index));
}
