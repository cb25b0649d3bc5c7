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

/* The items of a list, and where they are. */
typedef struct List {
    size_t first, end, room;
} List;

/*
 * Room for n more: move all to the beginning if that is mostly empty, else get
 * more. Returns where they are now, NULL: no memory.
 */
static void *make_room(void *items, size_t size, List *list, size_t n)
{
    size_t room = list->room ? list->room : ROOM_AT_FIRST;
    size_t count = list->end - list->first;
    uint8_t *more = items;

    while (room < count + n ||
           (list->first < list->room / 2 && room <= list->room)) {
        room += room / 4;
    }
    if (room > list->room) {
        more = realloc(items, room * size);
        if (!more) {
            return NULL;
        }
        list->room = room;
    }
    if (list->first > 0) {
        memmove(more, more + list->first * size, count * size);
    }
    list->first = 0;
    list->end = count;
    return more;
}

static int reserve_epoch(WeirIndex *index)
{
    List list = { index->first, index->end, index->room };
    void *more = make_room(index->epochs, sizeof(*index->epochs), &list, 1);

    if (!more) {
        return -ENOMEM;
    }
    index->epochs = more;
    index->first = list.first;
    index->end = list.end;
    index->room = list.room;
    return 0;
}

static int reserve_lengths(WeirIndex *index, uint32_t n)
{
    List list = { index->lengths_first, index->lengths_end,
                  index->lengths_room };
    void *more = make_room(index->lengths, sizeof(*index->lengths), &list, n);

    if (!more) {
        return -ENOMEM;
    }
    index->lengths = more;
    index->lengths_first = list.first;
    index->lengths_end = list.end;
    index->lengths_room = list.room;
    return 0;
}

int weir_index_reserve(WeirIndex *index, uint32_t lengths)
{
    int ret = index->room == index->end ? reserve_epoch(index) : 0;

    return ret < 0 || index->lengths_room - index->lengths_end >= lengths
           ? ret : reserve_lengths(index, lengths);
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
