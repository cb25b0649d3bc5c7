/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_MAP_H
#define WEIR_REPLICATION_MAP_H

#include <stddef.h>
#include <stdint.h>

/*
 * What a disk is made of after a number of records: disjoint pieces in the
 * order of their offsets, each of the last record that has touched it. Does no
 * I/O, does not lock.
 */

typedef enum WeirExtentKind {
    WEIR_EXTENT_DATA,
    WEIR_EXTENT_ZERO,
    WEIR_EXTENT_DISCARD,
} WeirExtentKind;

typedef struct WeirExtent {
    uint64_t offset, bytes;     /* on the disk */
    uint64_t epoch;
    uint64_t position;          /* DATA: where the data of the record is */
    uint32_t at;                /* DATA: bytes into that where this begins */
    uint32_t record_bytes;      /* DATA: of all of it */
    uint32_t crc;               /* DATA: the same */
    uint16_t packed_sectors;    /* DATA: as in its WeirIndexRecord */
    uint8_t kind;               /* WeirExtentKind */
} WeirExtent;

typedef struct WeirMap {
    WeirExtent *extents;
    size_t count;
} WeirMap;

/*
 * in: n extents, as they were written one after the other; at is 0. They are
 * sorted. Returns 0 or -ENOMEM.
 */
int weir_map_build(WeirMap *map, const WeirExtent *in, size_t n);
void weir_map_destroy(WeirMap *map);

/* The first piece that ends behind an offset; map->count: there is none. */
size_t weir_map_find(const WeirMap *map, uint64_t offset);

#endif
