/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * superblock, 4096 bytes at 0 and 4096; all numbers little-endian
 *
 *    0  8 magic "WEIRRLOG"             56 8 segment, bytes
 *    8  4 version, 1                   64 4 segments
 *   12  4 CRC-32C, this field as 0     68 4 entries of the history
 *   16  8 incompatible features        72 8 chapter, bytes
 *   24  8 compatible features          80 8 tail
 *   32  8 sequence                     88 56 anchor
 *   40 16 identity of the group       144  8 horizon
 *                                     152  8 FLAG_ below
 *                                     512 32 * 32 history
 *
 * commit, 56 bytes                     entry of the history, 32 bytes
 *    0  8 epoch                           0  8 generation
 *    8  8 position of its end             8  8 first epoch
 *   16 32 chain                          16 16 identity
 *   48  8 time, ns
 */
#include "replication/superblock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"

#define VERSION 1
#define HISTORY_AT 512
#define SEGMENT_BYTES_WISHED (UINT64_C(64) << 20)
#define SEGMENTS_WISHED 16
#define FLAG_INCOMPLETE 1u
#define FLAG_APPLICATION 2u
#define FLAGS (FLAG_INCOMPLETE | FLAG_APPLICATION)
#define COMPATIBLE_KEPT 1u
#define COMPATIBLE_CHAPTERS 2u
#define INCOMPATIBLE_ZSTD 1u
#define INCOMPATIBLE_ORIGINS 2u
#define INCOMPATIBLE (INCOMPATIBLE_ZSTD | INCOMPATIBLE_ORIGINS)

static const char magic[8] = { 'W', 'E', 'I', 'R', 'R', 'L', 'O', 'G' };

static int fail(char *err, size_t err_size, int ret, const char *why)
{
    snprintf(err, err_size, "%s", why);
    return ret;
}

/* --- shape --- */

static bool segment_is_sound(uint64_t bytes)
{
    return bytes >= WEIR_LOG_SEGMENT_BYTES_MIN &&
           bytes <= WEIR_LOG_SEGMENT_BYTES_MAX &&
           bytes % WEIR_LOG_ALIGN_BYTES == 0;
}

static uint64_t wished_segment(uint64_t device_bytes)
{
    uint64_t bytes = SEGMENT_BYTES_WISHED;

    while (bytes > WEIR_LOG_SEGMENT_BYTES_MIN &&
           device_bytes / bytes < SEGMENTS_WISHED) {
        bytes /= 2;
    }
    return bytes;
}

static uint64_t chapter_bytes(uint64_t segment_bytes)
{
    uint64_t bytes = segment_bytes / WEIR_LOG_CHAPTER_SHARE;

    return (bytes + WEIR_LOG_ALIGN_BYTES - 1) / WEIR_LOG_ALIGN_BYTES *
           WEIR_LOG_ALIGN_BYTES;
}

static bool chapter_is_sound(const WeirLogSuperblock *sb)
{
    return sb->chapter_bytes % WEIR_LOG_ALIGN_BYTES == 0 &&
           sb->chapter_bytes <= sb->segment_bytes;
}

int weir_log_superblock_shape(WeirLogSuperblock *sb, uint64_t device_bytes)
{
    uint64_t segment = sb->segment_bytes, segments, chapter;

    segment = segment ? segment : wished_segment(device_bytes);
    if (!segment_is_sound(segment)) {
        return -EINVAL;
    }
    chapter = sb->chapter_bytes ? chapter_bytes(segment) : 0;
    segments = device_bytes < WEIR_LOG_RING_OFFSET
               ? 0 : (device_bytes - WEIR_LOG_RING_OFFSET) /
                     (segment + chapter);
    if (segments < WEIR_LOG_SEGMENTS_MIN) {
        return -ENOSPC;
    }
    memset(sb, 0, sizeof(*sb));
    sb->segment_bytes = segment;
    sb->chapter_bytes = chapter;
    sb->segments = segments < WEIR_LOG_SEGMENTS_MAX ? (uint32_t)segments
                                                    : WEIR_LOG_SEGMENTS_MAX;
    sb->zstd = true;
    sb->history_count = 1;
    sb->history[0].number = 1;
    sb->history[0].first_epoch = 1;
    return 0;
}

/* --- commits and history --- */

void weir_log_commit_write(uint8_t *at, const WeirLogCommit *commit)
{
    le_put(at, commit->epoch, 8);
    le_put(at + 8, commit->end, 8);
    memcpy(at + 16, commit->chain, WEIR_LOG_CHAIN_BYTES);
    le_put(at + 48, commit->wall_ns, 8);
}

void weir_log_commit_read(WeirLogCommit *commit, const uint8_t *at)
{
    commit->epoch = le_get(at, 8);
    commit->end = le_get(at + 8, 8);
    memcpy(commit->chain, at + 16, WEIR_LOG_CHAIN_BYTES);
    commit->wall_ns = le_get(at + 48, 8);
}

void weir_log_generation_write(uint8_t *at, const WeirLogGeneration *g)
{
    le_put(at, g->number, 8);
    le_put(at + 8, g->first_epoch, 8);
    memcpy(at + 16, g->uuid, WEIR_LOG_UUID_BYTES);
}

void weir_log_generation_read(WeirLogGeneration *g, const uint8_t *at)
{
    g->number = le_get(at, 8);
    g->first_epoch = le_get(at + 8, 8);
    memcpy(g->uuid, at + 16, WEIR_LOG_UUID_BYTES);
}

static void write_history(uint8_t *at, const WeirLogSuperblock *sb)
{
    for (uint32_t i = 0; i < sb->history_count; i++) {
        weir_log_generation_write(at + i * WEIR_LOG_GENERATION_BYTES,
                                  &sb->history[i]);
    }
}

static void read_history(WeirLogSuperblock *sb, const uint8_t *at)
{
    for (uint32_t i = 0; i < sb->history_count; i++) {
        weir_log_generation_read(&sb->history[i],
                                 at + i * WEIR_LOG_GENERATION_BYTES);
    }
}

/* Generations go up; epochs never go back. */
static bool history_is_sound(const WeirLogSuperblock *sb)
{
    const WeirLogGeneration *g = sb->history;

    for (uint32_t i = 0; i < sb->history_count; i++) {
        if (g[i].number == 0 || g[i].first_epoch == 0 ||
            (i > 0 && (g[i].number <= g[i - 1].number ||
                       g[i].first_epoch < g[i - 1].first_epoch))) {
            return false;
        }
    }
    return true;
}

uint64_t weir_log_generation_of(const WeirLogSuperblock *sb, uint64_t epoch)
{
    for (uint32_t i = sb->history_count; i > 0; i--) {
        if (sb->history[i - 1].first_epoch <= epoch) {
            return sb->history[i - 1].number;
        }
    }
    return 0;
}

/* --- superblock --- */

void weir_log_superblock_write(uint8_t *buf, const WeirLogSuperblock *sb)
{
    memset(buf, 0, WEIR_LOG_SUPERBLOCK_BYTES);
    memcpy(buf, magic, sizeof(magic));
    le_put(buf + 8, VERSION, 4);
    le_put(buf + 16, (sb->zstd ? INCOMPATIBLE_ZSTD : 0) |
                     (sb->has_origins ? INCOMPATIBLE_ORIGINS : 0), 8);
    le_put(buf + 24, (sb->is_kept ? COMPATIBLE_KEPT : 0) |
                     (sb->chapter_bytes ? COMPATIBLE_CHAPTERS : 0), 8);
    le_put(buf + 32, sb->sequence, 8);
    memcpy(buf + 40, sb->group, WEIR_LOG_UUID_BYTES);
    le_put(buf + 56, sb->segment_bytes, 8);
    le_put(buf + 64, sb->segments, 4);
    le_put(buf + 68, sb->history_count, 4);
    le_put(buf + 72, sb->chapter_bytes, 8);
    le_put(buf + 80, sb->tail, 8);
    weir_log_commit_write(buf + 88, &sb->anchor);
    le_put(buf + 144, sb->horizon, 8);
    le_put(buf + 152, (sb->base_incomplete ? FLAG_INCOMPLETE : 0) |
                      (sb->application_consistent ? FLAG_APPLICATION : 0), 8);
    write_history(buf + HISTORY_AT, sb);
    le_put(buf + 12, crc_without(buf, WEIR_LOG_SUPERBLOCK_BYTES, 12, ~0u), 4);
}

static int check_copy(const uint8_t *buf)
{
    if (memcmp(buf, magic, sizeof(magic))) {
        return -ENOENT;
    }
    if (le_get(buf + 12, 4) != crc_without(buf, WEIR_LOG_SUPERBLOCK_BYTES, 12,
                                           ~0u)) {
        return -EINVAL;
    }
    return le_get(buf + 8, 4) != VERSION ||
           (le_get(buf + 16, 8) & ~(uint64_t)INCOMPATIBLE) ||
           (le_get(buf + 152, 8) & ~(uint64_t)FLAGS) ? -ENOTSUP : 0;
}

/* The whole copy with the higher sequence, or what is wrong with both. */
static int choose(const uint8_t *copies, const uint8_t **chosen)
{
    const uint8_t *a = copies, *b = copies + WEIR_LOG_SUPERBLOCK_BYTES;
    int of_a = check_copy(a), of_b = check_copy(b);

    if (of_a == 0 && of_b == 0) {
        *chosen = le_get(a + 32, 8) > le_get(b + 32, 8) ? a : b;
        return 0;
    }
    if (of_a == 0 || of_b == 0) {
        *chosen = of_a == 0 ? a : b;
        return 0;
    }
    return of_a != -ENOENT ? of_a : of_b;
}

static int check(const WeirLogSuperblock *sb, uint64_t device_bytes, char *err,
                 size_t err_size)
{
    uint64_t bytes;

    if (!segment_is_sound(sb->segment_bytes) ||
        sb->segments < WEIR_LOG_SEGMENTS_MIN ||
        sb->segments > WEIR_LOG_SEGMENTS_MAX || !chapter_is_sound(sb)) {
        return fail(err, err_size, -EINVAL, "the replication log has segments "
                    "of a size or number that cannot be");
    }
    if (sb->history_count == 0 || !history_is_sound(sb)) {
        return fail(err, err_size, -EINVAL, "the history of the replication "
                    "log is not in order");
    }
    if (sb->tail % sb->segment_bytes || sb->anchor.end < sb->tail ||
        sb->anchor.end % WEIR_LOG_ALIGN_BYTES ||
        sb->anchor.end - sb->tail > weir_log_ring_bytes(sb)) {
        return fail(err, err_size, -EINVAL, "the replication log can be read "
                    "from a place only that is not in it");
    }
    bytes = weir_log_ring_bytes(sb) + sb->segments * sb->chapter_bytes;
    if (bytes > device_bytes - WEIR_LOG_RING_OFFSET) {
        snprintf(err, err_size, "the replication log is %llu bytes long, its "
                 "device %llu",
                 (unsigned long long)(WEIR_LOG_RING_OFFSET + bytes),
                 (unsigned long long)device_bytes);
        return -ENOSPC;
    }
    return 0;
}

static int refuse(int ret, char *err, size_t err_size)
{
    return fail(err, err_size, ret,
                ret == -ENOENT ? "there is no replication log" :
                ret == -EINVAL ? "both superblocks of the replication log are "
                                 "damaged" :
                "the replication log has a version or features that this "
                "program does not know");
}

int weir_log_superblock_read(WeirLogSuperblock *sb, const uint8_t *copies,
                             uint64_t device_bytes, char *err,
                             size_t err_size)
{
    const uint8_t *buf;
    int ret = choose(copies, &buf);

    if (ret < 0) {
        return refuse(ret, err, err_size);
    }
    if (device_bytes < WEIR_LOG_RING_OFFSET) {
        return fail(err, err_size, -ENOSPC, "the device ends before the "
                    "replication log begins");
    }
    memset(sb, 0, sizeof(*sb));
    sb->is_kept = le_get(buf + 24, 8) & COMPATIBLE_KEPT;
    sb->sequence = le_get(buf + 32, 8);
    sb->has_origins = le_get(buf + 16, 8) & INCOMPATIBLE_ORIGINS;
    memcpy(sb->group, buf + 40, WEIR_LOG_UUID_BYTES);
    sb->segment_bytes = le_get(buf + 56, 8);
    sb->segments = (uint32_t)le_get(buf + 64, 4);
    sb->chapter_bytes = le_get(buf + 24, 8) & COMPATIBLE_CHAPTERS
                        ? le_get(buf + 72, 8) : 0;
    sb->tail = le_get(buf + 80, 8);
    weir_log_commit_read(&sb->anchor, buf + 88);
    sb->horizon = le_get(buf + 144, 8);
    sb->base_incomplete = le_get(buf + 152, 8) & FLAG_INCOMPLETE;
    sb->application_consistent = le_get(buf + 152, 8) & FLAG_APPLICATION;
    sb->zstd = le_get(buf + 16, 8) & INCOMPATIBLE_ZSTD;
    sb->history_count = (uint32_t)le_get(buf + 68, 4);
    if (sb->history_count > WEIR_LOG_HISTORY_MAX) {
        return fail(err, err_size, -EINVAL, "the history of the replication "
                    "log is longer than its place");
    }
    read_history(sb, buf + HISTORY_AT);
    return check(sb, device_bytes, err, err_size);
}
