/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A sweep over the disk: extents enter by their beginning, and of those that
 * are there the newest one, the top of a heap, is what the disk has. One that
 * has ended leaves when it gets to the top.
 */
#include "replication/map.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct Sweep {
    const WeirExtent *in;
    size_t n;
    size_t *order;              /* indexes by offset */
    size_t next;                /* of order, not entered yet */
    size_t *heap;               /* indexes, the newest on top */
    size_t heap_count;
    WeirMap *map;
    size_t room;
} Sweep;

static uint64_t end_of(const WeirExtent *e)
{
    return e->offset + e->bytes;
}

/* --- heap --- */

static void push(Sweep *s, size_t index)
{
    size_t at = s->heap_count++;

    while (at > 0 && s->heap[(at - 1) / 2] < index) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = index;
}

static void pop(Sweep *s)
{
    size_t index = s->heap[--s->heap_count], at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < s->heap_count &&
            s->heap[child + 1] > s->heap[child]) {
            child++;
        }
        if (child >= s->heap_count || s->heap[child] < index) {
            break;
        }
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = index;
}

/* --- pieces --- */

/* One that goes on where the last one ends, and with the same. */
static bool extend(Sweep *s, const WeirExtent *piece)
{
    WeirExtent *last = s->map->count > 0
                       ? &s->map->extents[s->map->count - 1] : NULL;

    if (!last || last->kind != piece->kind || end_of(last) != piece->offset) {
        return false;
    }
    if (piece->kind == WEIR_EXTENT_DATA &&
        (last->position != piece->position ||
         last->at + last->bytes != piece->at)) {
        return false;
    }
    last->bytes += piece->bytes;
    last->epoch = last->epoch > piece->epoch ? last->epoch : piece->epoch;
    return true;
}

static int emit(Sweep *s, const WeirExtent *from, uint64_t start, uint64_t end)
{
    WeirExtent piece = *from;

    piece.offset = start;
    piece.bytes = end - start;
    piece.at = from->kind == WEIR_EXTENT_DATA
               ? (uint32_t)(start - from->offset) : 0;
    if (extend(s, &piece)) {
        return 0;
    }
    if (s->map->count == s->room) {
        size_t room = s->room ? s->room * 2 : s->n + 16;
        WeirExtent *more = realloc(s->map->extents, room * sizeof(*more));

        if (!more) {
            return -ENOMEM;
        }
        s->map->extents = more;
        s->room = room;
    }
    s->map->extents[s->map->count++] = piece;
    return 0;
}

/* --- sweep --- */

static const WeirExtent *entering(const Sweep *s)
{
    return s->next < s->n ? &s->in[s->order[s->next]] : NULL;
}

static int sweep(Sweep *s)
{
    uint64_t at = 0;
    int ret = 0;

    while (ret == 0) {
        const WeirExtent *next, *top;
        uint64_t end;

        while (s->heap_count > 0 && end_of(&s->in[s->heap[0]]) <= at) {
            pop(s);
        }
        next = entering(s);
        if (s->heap_count == 0) {
            if (!next) {
                break;
            }
            at = next->offset > at ? next->offset : at;
        }
        while ((next = entering(s)) && next->offset <= at) {
            push(s, s->order[s->next++]);
        }
        top = &s->in[s->heap[0]];
        end = end_of(top);
        end = next && next->offset < end ? next->offset : end;
        if (end > at) {
            ret = emit(s, top, at, end);
            at = end;
        }
    }
    return ret;
}

typedef struct Key {
    uint64_t offset;
    size_t index;
} Key;

static int compare(const void *a, const void *b)
{
    const Key *x = a, *y = b;

    return x->offset != y->offset ? (x->offset < y->offset ? -1 : 1)
                                  : (x->index < y->index ? -1 : 1);
}

static int sort(Sweep *s)
{
    Key *keys = malloc((s->n + 1) * sizeof(*keys));

    if (!keys) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < s->n; i++) {
        keys[i] = (Key) { s->in[i].offset, i };
    }
    qsort(keys, s->n, sizeof(*keys), compare);
    for (size_t i = 0; i < s->n; i++) {
        s->order[i] = keys[i].index;
    }
    free(keys);
    return 0;
}

int weir_map_build(WeirMap *map, const WeirExtent *in, size_t n)
{
    Sweep s = { .in = in, .n = n, .map = map };
    int ret = -ENOMEM;

    memset(map, 0, sizeof(*map));
    s.order = malloc((n + 1) * sizeof(*s.order));
    s.heap = malloc((n + 1) * sizeof(*s.heap));
    if (s.order && s.heap) {
        ret = sort(&s);
        ret = ret < 0 ? ret : sweep(&s);
    }
    free(s.order);
    free(s.heap);
    if (ret < 0) {
        weir_map_destroy(map);
    }
    return ret;
}

void weir_map_destroy(WeirMap *map)
{
    free(map->extents);
    memset(map, 0, sizeof(*map));
}

size_t weir_map_find(const WeirMap *map, uint64_t offset)
{
    size_t low = 0, high = map->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (end_of(&map->extents[middle]) <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}
