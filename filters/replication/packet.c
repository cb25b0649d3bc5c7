/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * header of a packet, 256 bytes; all numbers little-endian
 *
 *    0  8 magic "WEIRPKT1"             72 4 header and table, bytes
 *    8  4 CRC-32C of both, this as 0   76 4 data, bytes
 *   12  4 flags, FLAG_ below           80 56 a durable commit
 *   16 16 identity of the group       136 8 commit: wall clock, ns
 *   32  8 generation                  144 8 commit: monotonic clock, ns
 *   40  8 session                     152 4 commit: flags, COMMIT_ below
 *   48  8 position                    160 32 commit: chain
 *   56  8 epoch                       192  0 to the end
 *   64  4 number in the epoch
 *   68  4 records
 *
 * record, 32 bytes                    data of a DISK record, 80 bytes
 *    0  4 CRC-32C of its data            0 16 identity
 *    4  2 disk                          16 64 name, NUL-padded
 *    6  1 operation
 *    7  1 flags, RECORD_ below
 *    8  8 offset
 *   16  8 length
 *   24  4 compressed: bytes of its data
 *   28  4 compressed: CRC-32C of that
 *
 * data of an ORIGIN record, 216 bytes
 *    0 16 group                        104 32 parent, a generation
 *   16 32 generation                   136 56 until, a commit
 *   48 56 commit                      192  4 * 4 lives
 *                                     208  4 writer
 */
#include "replication/packet.h"

#include <errno.h>
#include <gcrypt.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "common/zero.h"

#define CRC_AT 8
#define CHAIN_AT 160
#define FLAG_COMMIT 1u
#define FLAG_FIRST 2u
#define FLAG_LAST 4u
#define FLAGS (FLAG_COMMIT | FLAG_FIRST | FLAG_LAST)
#define COMMIT_CONSISTENT 1u
#define COMMIT_APPLICATION 2u
#define RECORD_RESYNC 1u
#define RECORD_ZSTD 2u

static const char magic[8] = { 'W', 'E', 'I', 'R', 'P', 'K', 'T', '1' };

uint32_t weir_log_data_crc(const void *data, size_t bytes)
{
    return weir_crc32c(~0u, data, bytes);
}

/* --- disks --- */

void weir_log_disk_write(uint8_t *data, const WeirLogDisk *disk)
{
    memcpy(data, disk->uuid, WEIR_LOG_UUID_BYTES);
    memset(data + WEIR_LOG_UUID_BYTES, 0, WEIR_LOG_NAME_BYTES);
    memcpy(data + WEIR_LOG_UUID_BYTES, disk->name,
           strnlen(disk->name, WEIR_LOG_NAME_BYTES - 1));
}

int weir_log_disk_read(WeirLogDisk *disk, const uint8_t *data)
{
    const uint8_t *name = data + WEIR_LOG_UUID_BYTES;
    size_t length = strnlen((const char *)name, WEIR_LOG_NAME_BYTES);

    if (length == 0 || length == WEIR_LOG_NAME_BYTES ||
        !weir_is_zero(name + length, WEIR_LOG_NAME_BYTES - length)) {
        return -EINVAL;
    }
    memcpy(disk->uuid, data, WEIR_LOG_UUID_BYTES);
    memcpy(disk->name, name, WEIR_LOG_NAME_BYTES);
    return 0;
}

/* --- origins --- */

void weir_log_origin_write(uint8_t *data, const WeirLogOrigin *origin)
{
    memcpy(data, origin->group, WEIR_LOG_UUID_BYTES);
    weir_log_generation_write(data + 16, &origin->generation);
    weir_log_commit_write(data + 48, &origin->commit);
    weir_log_generation_write(data + 104, &origin->parent);
    weir_log_commit_write(data + 136, &origin->until);
    for (int i = 0; i < WEIR_LOG_LIVES; i++) {
        le_put(data + 192 + 4 * i, origin->lives[i], 4);
    }
    le_put(data + 208, origin->writer, 4);
    le_put(data + 212, 0, 4);
}

void weir_log_origin_read(WeirLogOrigin *origin, const uint8_t *data)
{
    memcpy(origin->group, data, WEIR_LOG_UUID_BYTES);
    weir_log_generation_read(&origin->generation, data + 16);
    weir_log_commit_read(&origin->commit, data + 48);
    weir_log_generation_read(&origin->parent, data + 104);
    weir_log_commit_read(&origin->until, data + 136);
    for (int i = 0; i < WEIR_LOG_LIVES; i++) {
        origin->lives[i] = (uint32_t)le_get(data + 192 + 4 * i, 4);
    }
    origin->writer = (uint32_t)le_get(data + 208, 4);
}

/* --- chain --- */

void weir_log_chain_step(uint8_t *chain, const WeirLogPacket *p)
{
    uint8_t step[WEIR_LOG_CHAIN_BYTES + 20];

    memcpy(step, chain, WEIR_LOG_CHAIN_BYTES);
    le_put(step + WEIR_LOG_CHAIN_BYTES, p->crc, 4);
    le_put(step + WEIR_LOG_CHAIN_BYTES + 4, p->position, 8);
    le_put(step + WEIR_LOG_CHAIN_BYTES + 12, weir_log_packet_bytes(p), 8);
    gcry_md_hash_buffer(GCRY_MD_SHA256, chain, step, sizeof(step));
}

static uint32_t head_crc(const uint8_t *head, uint32_t bytes)
{
    return crc_without(head, bytes, CRC_AT, ~0u);
}

/* As head_crc(), with the chain as zeroes as well. */
static uint32_t crc_for_chain(const uint8_t *head, uint32_t bytes)
{
    static const uint8_t zeroes[WEIR_LOG_CHAIN_BYTES];
    uint32_t crc = crc_without(head, CHAIN_AT, CRC_AT, ~0u);

    crc = weir_crc32c(crc, zeroes, sizeof(zeroes));
    return weir_crc32c(crc, head + CHAIN_AT + WEIR_LOG_CHAIN_BYTES,
                       bytes - CHAIN_AT - WEIR_LOG_CHAIN_BYTES);
}

/* --- writing --- */

static void write_record(uint8_t *at, const WeirLogRecord *r)
{
    le_put(at, r->crc, 4);
    le_put(at + 4, r->disk, 2);
    at[6] = (uint8_t)r->op;
    at[7] = (uint8_t)((r->resync ? RECORD_RESYNC : 0) |
                      (r->packed_bytes > 0 ? RECORD_ZSTD : 0));
    le_put(at + 8, r->offset, 8);
    le_put(at + 16, r->bytes, 8);
    le_put(at + 24, r->packed_bytes, 4);
    le_put(at + 28, r->packed_crc, 4);
}

static void write_header(uint8_t *head, const WeirLogPacket *p)
{
    memcpy(head, magic, sizeof(magic));
    le_put(head + 12, (p->commit ? FLAG_COMMIT : 0) |
                      (p->first ? FLAG_FIRST : 0) |
                      (p->last ? FLAG_LAST : 0), 4);
    memcpy(head + 16, p->group, WEIR_LOG_UUID_BYTES);
    le_put(head + 32, p->generation, 8);
    le_put(head + 40, p->session, 8);
    le_put(head + 48, p->position, 8);
    le_put(head + 56, p->epoch, 8);
    le_put(head + 64, p->number, 4);
    le_put(head + 68, p->records, 4);
    le_put(head + 72, p->head_bytes, 4);
    le_put(head + 76, p->data_bytes, 4);
    weir_log_commit_write(head + 80, &p->durable);
    if (p->commit) {
        le_put(head + 136, p->wall_ns, 8);
        le_put(head + 144, p->monotonic_ns, 8);
        le_put(head + 152, (p->consistent ? COMMIT_CONSISTENT : 0) |
                           (p->application_consistent ? COMMIT_APPLICATION
                                                      : 0), 4);
    }
}

void weir_log_packet_write(uint8_t *head, WeirLogPacket *p,
                           const WeirLogRecord *records, uint8_t *chain)
{
    p->head_bytes = weir_log_head_bytes(p->records);
    p->data_bytes = 0;
    memset(head, 0, p->head_bytes);
    for (uint32_t i = 0; i < p->records; i++) {
        write_record(head + WEIR_LOG_HEADER_BYTES + i * WEIR_LOG_RECORD_BYTES,
                     &records[i]);
        p->data_bytes +=
            (uint32_t)weir_log_data_room(weir_log_data_bytes(&records[i]));
    }
    write_header(head, p);
    p->crc = crc_for_chain(head, p->head_bytes);
    weir_log_chain_step(chain, p);
    if (p->commit) {
        memcpy(p->chain, chain, WEIR_LOG_CHAIN_BYTES);
        memcpy(head + CHAIN_AT, chain, WEIR_LOG_CHAIN_BYTES);
    }
    le_put(head + CRC_AT, head_crc(head, p->head_bytes), 4);
}

/* --- reading --- */

uint32_t weir_log_packet_peek(const uint8_t *header)
{
    uint64_t records = le_get(header + 68, 4);

    if (memcmp(header, magic, sizeof(magic)) ||
        records > WEIR_LOG_RECORDS_MAX ||
        le_get(header + 72, 4) != weir_log_head_bytes((uint32_t)records)) {
        return 0;
    }
    return weir_log_head_bytes((uint32_t)records);
}

void weir_log_record_read(WeirLogRecord *r, const uint8_t *head, uint32_t i)
{
    const uint8_t *at = head + WEIR_LOG_HEADER_BYTES +
                        (size_t)i * WEIR_LOG_RECORD_BYTES;

    r->crc = (uint32_t)le_get(at, 4);
    r->disk = (uint16_t)le_get(at + 4, 2);
    r->op = at[6];
    r->resync = at[7] & RECORD_RESYNC;
    r->offset = le_get(at + 8, 8);
    r->bytes = le_get(at + 16, 8);
    r->packed_bytes = (uint32_t)le_get(at + 24, 4);
    r->packed_crc = (uint32_t)le_get(at + 28, 4);
}

static bool length_is_sound(const WeirLogRecord *r)
{
    switch (r->op) {
    case WEIR_LOG_WRITE:
        return r->bytes > 0 && r->bytes <= WEIR_LOG_WRITE_BYTES_MAX;
    case WEIR_LOG_ZERO:
    case WEIR_LOG_DISCARD:
    case WEIR_LOG_LACK:
        return r->bytes > 0;
    case WEIR_LOG_ORIGIN:
        return r->offset == 0 && r->bytes == 0;
    case WEIR_LOG_RESIZE:
    case WEIR_LOG_DISK:
        return r->offset == 0;
    case WEIR_LOG_MARK:
        return r->offset == 0 && r->disk == 0 && r->bytes > 0 &&
               r->bytes <= WEIR_LOG_MARK_BYTES_MAX;
    default:
        return false;
    }
}

/* What is compressed takes less room. The length has been looked at. */
static bool packing_is_sound(const WeirLogRecord *r, uint8_t flags)
{
    if (flags & RECORD_ZSTD) {
        return r->op == WEIR_LOG_WRITE && r->packed_bytes > 0 &&
               weir_log_data_room(r->packed_bytes) <
               weir_log_data_room(r->bytes);
    }
    return r->packed_bytes == 0 && r->packed_crc == 0;
}

static bool record_is_sound(const WeirLogRecord *r, const uint8_t *at)
{
    return r->disk < WEIR_LOG_DISKS_MAX && length_is_sound(r) &&
           r->offset <= WEIR_LOG_RANGE_END_MAX &&
           r->bytes <= WEIR_LOG_RANGE_END_MAX - r->offset &&
           (r->crc == 0 || weir_log_data_bytes(r) > 0) &&
           (at[7] & ~(RECORD_RESYNC | RECORD_ZSTD)) == 0 &&
           packing_is_sound(r, at[7]);
}

/* Without its being compressed. */
static uint64_t plain_room(const WeirLogRecord *r)
{
    return weir_log_data_room(r->packed_bytes > 0 ? r->bytes
                                                  : weir_log_data_bytes(r));
}

/* All records; *data_bytes: what they have together, *plain_bytes: would. */
static bool table_is_sound(WeirLogPacket *p, const uint8_t *head,
                           uint64_t *data_bytes, uint64_t *plain_bytes)
{
    const uint8_t *at = head + WEIR_LOG_HEADER_BYTES;

    *data_bytes = *plain_bytes = 0;
    p->packed = false;
    for (uint32_t i = 0; i < p->records; i++, at += WEIR_LOG_RECORD_BYTES) {
        WeirLogRecord r;

        weir_log_record_read(&r, head, i);
        if (!record_is_sound(&r, at)) {
            return false;
        }
        *data_bytes += weir_log_data_room(weir_log_data_bytes(&r));
        *plain_bytes += plain_room(&r);
        p->packed = p->packed || r.packed_bytes > 0;
    }
    return weir_is_zero(at, (size_t)(head + p->head_bytes - at));
}

static bool flags_are_known(const uint8_t *head, bool commit)
{
    return (le_get(head + 12, 4) & ~(uint64_t)FLAGS) == 0 &&
           (le_get(head + 152, 4) &
            ~(uint64_t)(COMMIT_CONSISTENT | COMMIT_APPLICATION)) == 0 &&
           weir_is_zero(head + 156, 4) &&
           weir_is_zero(head + 192, WEIR_LOG_HEADER_BYTES - 192) &&
           (commit || weir_is_zero(head + 136, 56));
}

static void read_header(WeirLogPacket *p, const uint8_t *head)
{
    uint64_t flags = le_get(head + 12, 4), commit_flags = le_get(head + 152, 4);

    p->commit = flags & FLAG_COMMIT;
    p->first = flags & FLAG_FIRST;
    p->last = flags & FLAG_LAST;
    memcpy(p->group, head + 16, WEIR_LOG_UUID_BYTES);
    p->generation = le_get(head + 32, 8);
    p->session = le_get(head + 40, 8);
    p->position = le_get(head + 48, 8);
    p->epoch = le_get(head + 56, 8);
    p->number = (uint32_t)le_get(head + 64, 4);
    p->records = (uint32_t)le_get(head + 68, 4);
    p->head_bytes = (uint32_t)le_get(head + 72, 4);
    p->data_bytes = (uint32_t)le_get(head + 76, 4);
    weir_log_commit_read(&p->durable, head + 80);
    p->wall_ns = le_get(head + 136, 8);
    p->monotonic_ns = le_get(head + 144, 8);
    p->consistent = commit_flags & COMMIT_CONSISTENT;
    p->application_consistent = commit_flags & COMMIT_APPLICATION;
    memcpy(p->chain, head + CHAIN_AT, WEIR_LOG_CHAIN_BYTES);
    p->crc = crc_for_chain(head, p->head_bytes);
}

static bool place_is_sound(const WeirLogPacket *p)
{
    return !(p->last && p->records > 0) && p->epoch > 0 &&
           p->durable.epoch < p->epoch &&
           p->position <= WEIR_LOG_RANGE_END_MAX &&
           p->position % WEIR_LOG_ALIGN_BYTES == 0;
}

int weir_log_packet_read(WeirLogPacket *p, const uint8_t *head,
                         const char **why)
{
    uint32_t head_bytes = weir_log_packet_peek(head);
    uint64_t data_bytes, plain_bytes;

    if (head_bytes == 0) {
        *why = "no packet";
        return -EINVAL;
    }
    if (le_get(head + CRC_AT, 4) != head_crc(head, head_bytes)) {
        *why = "checksum of its head";
        return -EINVAL;
    }
    read_header(p, head);
    *why = !flags_are_known(head, p->commit) ? "unknown flags" :
           !place_is_sound(p) ? "epoch or position that cannot be" :
           !table_is_sound(p, head, &data_bytes, &plain_bytes)
           ? "record that cannot be" :
           data_bytes != p->data_bytes ? "length of its data" :
           weir_log_packet_room(head_bytes + plain_bytes) >
           WEIR_LOG_PACKET_BYTES_MAX ? "too long" : NULL;
    return *why ? -EINVAL : 0;
}

int weir_log_packet_check_data(const WeirLogPacket *p, const uint8_t *head,
                               const uint8_t *data, const char **why)
{
    for (uint32_t i = 0; i < p->records; i++) {
        WeirLogRecord r;
        WeirLogDisk disk;
        uint64_t bytes;

        weir_log_record_read(&r, head, i);
        bytes = weir_log_data_bytes(&r);
        if (bytes > 0 && weir_log_data_crc(data, bytes) !=
                         (r.packed_bytes > 0 ? r.packed_crc : r.crc)) {
            *why = "checksum of its data";
            return -EINVAL;
        }
        if (r.op == WEIR_LOG_DISK && weir_log_disk_read(&disk, data) < 0) {
            *why = "name of a disk that cannot be";
            return -EINVAL;
        }
        data += weir_log_data_room(bytes);
    }
    return 0;
}
