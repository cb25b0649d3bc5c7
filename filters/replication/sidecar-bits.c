/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/sidecar-bits.h"

#include <errno.h>
#include <string.h>

#define SECTOR WEIR_SIDECAR_SECTOR_BYTES
#define BITS WEIR_SIDECAR_BITS_BYTES

typedef struct Kind {
    WeirSidecarBits what;
    uint64_t each;              /* bytes of the disk for a bit */
    uint64_t at;                /* of the first sector */
    uint32_t sectors;
} Kind;

static Kind kind_of(const WeirSidecar *sidecar, WeirSidecarBits what)
{
    Kind kind = { .what = what };

    kind.each = what == WEIR_SIDECAR_BLOCKS ? WEIR_BITMAP_BLOCK_BYTES
                                            : sidecar->region_bytes;
    kind.at = what == WEIR_SIDECAR_BLOCKS ? WEIR_SIDECAR_BLOCKS_OFFSET
                                          : WEIR_SIDECAR_REGIONS_OFFSET;
    kind.sectors = (uint32_t)weir_sidecar_sectors(
        weir_sidecar_count(sidecar->disk_bytes, kind.each));
    return kind;
}

uint64_t weir_sidecar_bytes(uint64_t disk_bytes)
{
    return WEIR_SIDECAR_BLOCKS_OFFSET +
           weir_sidecar_sectors(weir_sidecar_count(
               disk_bytes, WEIR_BITMAP_BLOCK_BYTES)) * SECTOR;
}

/* --- reading --- */

/* first: number of the first bit. */
static void take_bits(WeirBitmap *dirty, const uint8_t *bits, uint64_t first,
                      uint64_t each)
{
    for (uint64_t i = 0; i < WEIR_SIDECAR_SECTOR_BITS &&
                         (first + i) * each < dirty->disk_bytes; i++) {
        uint64_t offset = (first + i) * each;
        uint64_t left = dirty->disk_bytes - offset;

        if (bits[i / 8] == 0) {
            i |= 7;
        } else if (bits[i / 8] >> i % 8 & 1) {
            weir_bitmap_mark(dirty, offset, each < left ? each : left);
        }
    }
}

int weir_sidecar_dirty(const WeirSidecarDevice *device,
                       const WeirSidecar *sidecar, WeirBitmap *dirty)
{
    Kind kind = kind_of(sidecar, sidecar->clean ? WEIR_SIDECAR_BLOCKS
                                                : WEIR_SIDECAR_REGIONS);
    uint8_t buf[SECTOR], bits[BITS];

    for (uint32_t i = 0; i < kind.sectors; i++) {
        int ret = device->read(device->opaque, kind.at + (uint64_t)i * SECTOR,
                               SECTOR, buf);

        if (ret < 0) {
            return ret;
        }
        if (weir_sidecar_bits_read(buf, sidecar, kind.what, i, bits) < 0) {
            memset(bits, 0xff, sizeof(bits));
        }
        take_bits(dirty, bits, (uint64_t)i * WEIR_SIDECAR_SECTOR_BITS,
                  kind.each);
    }
    return 0;
}

/* --- writing --- */

static void put_bits(const WeirBitmap *dirty, const Kind *kind, uint64_t first,
                     uint8_t *bits)
{
    memset(bits, 0, BITS);
    for (uint64_t i = 0; i < WEIR_SIDECAR_SECTOR_BITS; i++) {
        uint64_t offset = (first + i) * kind->each, left;

        if (offset >= dirty->disk_bytes) {
            break;
        }
        left = dirty->disk_bytes - offset;
        bits[i / 8] |= (uint8_t)(weir_bitmap_any(
            dirty, offset, kind->each < left ? kind->each : left) << i % 8);
    }
}

static int write_sectors(const WeirSidecarDevice *device,
                         const WeirSidecar *sidecar, const Kind *kind,
                         const WeirBitmap *dirty)
{
    uint8_t buf[SECTOR], bits[BITS];
    int ret = 0;

    for (uint32_t i = 0; i < kind->sectors && ret == 0; i++) {
        put_bits(dirty, kind, (uint64_t)i * WEIR_SIDECAR_SECTOR_BITS, bits);
        weir_sidecar_bits_write(buf, sidecar, kind->what, i, bits);
        ret = device->write(device->opaque, kind->at + (uint64_t)i * SECTOR,
                            SECTOR, buf);
    }
    return ret < 0 ? ret : device->flush(device->opaque);
}

int weir_sidecar_put(const WeirSidecarDevice *device, WeirSidecar *sidecar,
                     uint64_t bytes, const WeirBitmap *dirty)
{
    uint8_t buf[WEIR_SIDECAR_HEADER_BYTES];
    Kind kind;
    int ret;

    sidecar->sequence++;
    sidecar->clean = bytes >= weir_sidecar_bytes(sidecar->disk_bytes);
    kind = kind_of(sidecar, sidecar->clean ? WEIR_SIDECAR_BLOCKS
                                           : WEIR_SIDECAR_REGIONS);
    sidecar->block_sectors = sidecar->clean ? kind.sectors : 0;
    ret = write_sectors(device, sidecar, &kind, dirty);
    if (ret < 0) {
        return ret;
    }
    weir_sidecar_write(buf, sidecar);
    ret = device->write(device->opaque,
                        sidecar->sequence % WEIR_SIDECAR_HEADERS *
                        WEIR_SIDECAR_HEADER_BYTES, sizeof(buf), buf);
    return ret < 0 ? ret : device->flush(device->opaque);
}
