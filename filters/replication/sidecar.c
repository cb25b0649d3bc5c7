/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * header, 4096 bytes at 0 and 4096; all numbers little-endian
 *
 *    0  8 magic "WEIRSIDE"            144  8 length of the disk
 *    8  4 version, 1                  152  8 length of a region
 *   12  4 CRC-32C, this field as 0    160  4 length of a block
 *   16  8 incompatible features       164  4 flags: 1 clean, 2 base
 *   24  8 compatible features         168  4 * 4 lives
 *   32  8 sequence                    184 32 generation: number, first epoch,
 *   40  8 instance                             identity (16)
 *   48 16 identity of the group       216 56 durable commit
 *   64 80 disk: identity, name        272  4 sectors of blocks
 *                                     276  4 writer
 *                                     280 32 parent, a generation
 *                                     312 56 until, a commit
 *
 * sector of bits, 4096 bytes
 *    0  8 magic "WEIRREGN", "WEIRBLCK" 16  8 instance
 *    8  4 CRC-32C, this field as 0     24  8 sequence of the header, or 0
 *   12  4 index                        32 4064 bits
 */
#include "replication/sidecar.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "common/zero.h"

#define VERSION 1
#define FEATURE_LINEAGE 1
#define FEATURES FEATURE_LINEAGE
#define FLAG_CLEAN 1
#define FLAG_BASE 2
#define FLAGS (FLAG_CLEAN | FLAG_BASE)
#define BITS_AT 32
#define WRITER_AT 276
#define PARENT_AT 280
#define UNTIL_AT 312
#define HEADER_END 368

static const char magic[8] = { 'W', 'E', 'I', 'R', 'S', 'I', 'D', 'E' };
static const char bits_magic[2][8] = {
    [WEIR_SIDECAR_REGIONS] = { 'W', 'E', 'I', 'R', 'R', 'E', 'G', 'N' },
    [WEIR_SIDECAR_BLOCKS] = { 'W', 'E', 'I', 'R', 'B', 'L', 'C', 'K' },
};

uint64_t weir_sidecar_region_bytes(uint64_t disk_bytes)
{
    uint64_t bytes = WEIR_SIDECAR_REGION_BYTES;

    while (weir_sidecar_sectors(weir_sidecar_count(disk_bytes, bytes)) >
           WEIR_SIDECAR_REGION_SECTORS_MAX) {
        bytes *= 2;
    }
    return bytes;
}

/* --- header --- */

static bool has_lineage(const WeirSidecar *s)
{
    return s->base || s->parent.number != 0 || s->writer != 0;
}

void weir_sidecar_write(uint8_t *buf, const WeirSidecar *s)
{
    memset(buf, 0, WEIR_SIDECAR_HEADER_BYTES);
    memcpy(buf, magic, sizeof(magic));
    le_put(buf + 8, VERSION, 4);
    le_put(buf + 16, has_lineage(s) ? FEATURE_LINEAGE : 0, 8);
    le_put(buf + 32, s->sequence, 8);
    le_put(buf + 40, s->instance, 8);
    memcpy(buf + 48, s->group, WEIR_LOG_UUID_BYTES);
    weir_log_disk_write(buf + 64, &s->disk);
    le_put(buf + 144, s->disk_bytes, 8);
    le_put(buf + 152, s->region_bytes, 8);
    le_put(buf + 160, WEIR_BITMAP_BLOCK_BYTES, 4);
    le_put(buf + 164, (s->clean ? FLAG_CLEAN : 0) |
                      (s->base ? FLAG_BASE : 0), 4);
    for (int i = 0; i < WEIR_SIDECAR_LIVES; i++) {
        le_put(buf + 168 + 4 * i, s->lives[i], 4);
    }
    weir_log_generation_write(buf + 184, &s->generation);
    weir_log_commit_write(buf + 216, &s->durable);
    le_put(buf + 272, s->block_sectors, 4);
    le_put(buf + WRITER_AT, s->writer, 4);
    weir_log_generation_write(buf + PARENT_AT, &s->parent);
    weir_log_commit_write(buf + UNTIL_AT, &s->until);
    le_put(buf + 12, crc_without(buf, WEIR_SIDECAR_HEADER_BYTES, 12, ~0u), 4);
}

static int check_copy(const uint8_t *buf)
{
    if (memcmp(buf, magic, sizeof(magic))) {
        return weir_is_zero(buf, WEIR_SIDECAR_HEADER_BYTES) ? -ENOENT
                                                            : -EINVAL;
    }
    if (le_get(buf + 12, 4) != crc_without(buf, WEIR_SIDECAR_HEADER_BYTES, 12,
                                           ~0u)) {
        return -EBADMSG;
    }
    return le_get(buf + 8, 4) != VERSION ||
           (le_get(buf + 16, 8) & ~(uint64_t)FEATURES) ? -ENOTSUP : 0;
}

/* The whole copy with the higher sequence, or what is wrong with both. */
static int choose(const uint8_t *copies, const uint8_t **chosen)
{
    const uint8_t *a = copies, *b = copies + WEIR_SIDECAR_HEADER_BYTES;
    int of_a = check_copy(a), of_b = check_copy(b);

    if (of_a == 0 && of_b == 0) {
        *chosen = le_get(a + 32, 8) > le_get(b + 32, 8) ? a : b;
        return 0;
    }
    if (of_a == 0 || of_b == 0) {
        *chosen = of_a == 0 ? a : b;
        return 0;
    }
    /* a magic that is there tells more than one that is not */
    return of_a == -ENOTSUP || of_b == -ENOTSUP ? -ENOTSUP :
           of_a == -EBADMSG || of_b == -EBADMSG ? -EBADMSG :
           of_a == -EINVAL || of_b == -EINVAL ? -EINVAL : -ENOENT;
}

static bool is_sound(const WeirSidecar *s, const uint8_t *buf)
{
    uint64_t region = s->region_bytes / WEIR_SIDECAR_REGION_BYTES;

    return s->region_bytes % WEIR_SIDECAR_REGION_BYTES == 0 && region > 0 &&
           (region & (region - 1)) == 0 &&
           s->disk_bytes <= WEIR_LOG_RANGE_END_MAX &&
           weir_sidecar_sectors(weir_sidecar_count(s->disk_bytes,
                                                   s->region_bytes)) <=
           WEIR_SIDECAR_REGION_SECTORS_MAX &&
           le_get(buf + 160, 4) == WEIR_BITMAP_BLOCK_BYTES &&
           (le_get(buf + 164, 4) & ~(uint64_t)FLAGS) == 0 &&
           le_get(buf + 16, 8) == (has_lineage(s) ? FEATURE_LINEAGE : 0) &&
           s->block_sectors ==
           (s->clean ? weir_sidecar_sectors(
                           weir_sidecar_count(s->disk_bytes,
                                              WEIR_BITMAP_BLOCK_BYTES)) : 0) &&
           weir_is_zero(buf + HEADER_END,
                        WEIR_SIDECAR_HEADER_BYTES - HEADER_END);
}

static int refuse(int ret, char *err, size_t err_size)
{
    snprintf(err, err_size, "%s",
             ret == -ENOENT ? "there is no sidecar" :
             ret == -EINVAL ? "this is no sidecar, and not empty" :
             ret == -EBADMSG ? "the sidecar is damaged" :
             "the sidecar has a version or features that this program does not "
             "know");
    return ret;
}

int weir_sidecar_read(WeirSidecar *s, const uint8_t *copies, char *err,
                      size_t err_size)
{
    const uint8_t *buf;
    int ret = choose(copies, &buf);

    if (ret < 0) {
        return refuse(ret, err, err_size);
    }
    memset(s, 0, sizeof(*s));
    s->sequence = le_get(buf + 32, 8);
    s->instance = le_get(buf + 40, 8);
    memcpy(s->group, buf + 48, WEIR_LOG_UUID_BYTES);
    ret = weir_log_disk_read(&s->disk, buf + 64);
    s->disk_bytes = le_get(buf + 144, 8);
    s->region_bytes = le_get(buf + 152, 8);
    s->clean = le_get(buf + 164, 4) & FLAG_CLEAN;
    s->base = le_get(buf + 164, 4) & FLAG_BASE;
    for (int i = 0; i < WEIR_SIDECAR_LIVES; i++) {
        s->lives[i] = (uint32_t)le_get(buf + 168 + 4 * i, 4);
    }
    weir_log_generation_read(&s->generation, buf + 184);
    weir_log_commit_read(&s->durable, buf + 216);
    s->block_sectors = (uint32_t)le_get(buf + 272, 4);
    s->writer = (uint32_t)le_get(buf + WRITER_AT, 4);
    weir_log_generation_read(&s->parent, buf + PARENT_AT);
    weir_log_commit_read(&s->until, buf + UNTIL_AT);
    return ret == 0 && is_sound(s, buf) ? 0 : refuse(-EBADMSG, err, err_size);
}

/* --- bits --- */

static uint64_t binding(const WeirSidecar *s, WeirSidecarBits what)
{
    return what == WEIR_SIDECAR_BLOCKS ? s->sequence : 0;
}

void weir_sidecar_bits_write(uint8_t *buf, const WeirSidecar *s,
                             WeirSidecarBits what, uint32_t index,
                             const uint8_t *bits)
{
    memcpy(buf, bits_magic[what], sizeof(bits_magic[what]));
    le_put(buf + 12, index, 4);
    le_put(buf + 16, s->instance, 8);
    le_put(buf + 24, binding(s, what), 8);
    memcpy(buf + BITS_AT, bits, WEIR_SIDECAR_BITS_BYTES);
    le_put(buf + 8, crc_without(buf, WEIR_SIDECAR_SECTOR_BYTES, 8, ~0u), 4);
}

int weir_sidecar_bits_read(const uint8_t *buf, const WeirSidecar *s,
                           WeirSidecarBits what, uint32_t index, uint8_t *bits)
{
    if (memcmp(buf, bits_magic[what], sizeof(bits_magic[what])) ||
        le_get(buf + 8, 4) != crc_without(buf, WEIR_SIDECAR_SECTOR_BYTES, 8,
                                          ~0u) ||
        le_get(buf + 12, 4) != index ||
        le_get(buf + 16, 8) != s->instance ||
        le_get(buf + 24, 8) != binding(s, what)) {
        return -EBADMSG;
    }
    memcpy(bits, buf + BITS_AT, WEIR_SIDECAR_BITS_BYTES);
    return 0;
}
