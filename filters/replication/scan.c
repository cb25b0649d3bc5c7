/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The head of most packets; all of what is first in a segment. */
#define PEEK_BYTES WEIR_LOG_ALIGN_BYTES

int weir_log_scan_init(WeirLogScan *s, WeirLogRead read, void *opaque,
                       const WeirLogSuperblock *sb, const WeirLogCommit *from)
{
    s->read = read;
    s->opaque = opaque;
    weir_log_cursor_init(&s->cursor, sb, from);
    s->buf = aligned_alloc(WEIR_LOG_ALIGN_BYTES, WEIR_LOG_PACKET_BYTES_MAX);
    return s->buf ? 0 : -ENOMEM;
}

void weir_log_scan_destroy(WeirLogScan *s)
{
    free(s->buf);
    s->buf = NULL;
}

/* Bytes from `at` to `end` of what begins at a position. */
static int read_part(WeirLogScan *s, uint64_t position, uint64_t at,
                     uint64_t end)
{
    return end <= at ? 0 : s->read(s->opaque,
                                   weir_log_offset(s->cursor.sb, position) + at,
                                   end - at, s->buf + at);
}

/* Bytes that a packet at a position can have without crossing a segment. */
static uint64_t room_at(const WeirLogScan *s, uint64_t position)
{
    uint64_t segment = s->cursor.sb->segment_bytes;
    uint64_t room = segment - position % segment;

    return room < WEIR_LOG_PACKET_BYTES_MAX ? room : WEIR_LOG_PACKET_BYTES_MAX;
}

/*
 * The head of what may be a packet; *have: bytes in s->buf. Returns 0;
 * -ENODATA: there is none; another error.
 */
static int read_head(WeirLogScan *s, uint64_t position, uint64_t *have)
{
    const char *why;
    uint32_t head;
    int ret = read_part(s, position, 0, PEEK_BYTES);

    if (ret < 0) {
        return ret;
    }
    head = weir_log_packet_peek(s->buf);
    if (head == 0 || head > room_at(s, position)) {
        return -ENODATA;
    }
    ret = read_part(s, position, PEEK_BYTES, head);
    if (ret < 0) {
        return ret;
    }
    *have = head > PEEK_BYTES ? head : PEEK_BYTES;
    return weir_log_packet_read(&s->packet, s->buf, &why) < 0 ||
           s->packet.position != position ? -ENODATA : 0;
}

int weir_log_scan_read(WeirLogScan *s, uint64_t position)
{
    const char *why;
    uint64_t have, bytes;
    int ret = read_head(s, position, &have);

    if (ret < 0) {
        return ret;
    }
    bytes = weir_log_packet_bytes(&s->packet);
    if (bytes > room_at(s, position)) {
        return -ENODATA;
    }
    ret = read_part(s, position, have, bytes);
    if (ret < 0) {
        return ret;
    }
    return weir_log_packet_check_data(&s->packet, s->buf,
                                      s->buf + s->packet.head_bytes,
                                      &why) < 0 ? -ENODATA : 0;
}

int weir_log_scan_next(WeirLogScan *s)
{
    uint64_t position = weir_log_cursor_place(&s->cursor);
    const char *why;
    int ret;

    if (position == WEIR_LOG_NOWHERE) {
        return -ENODATA;
    }
    ret = weir_log_scan_read(s, position);
    if (ret < 0) {
        return ret;
    }
    ret = weir_log_cursor_take(&s->cursor, &s->packet, &why);
    return ret < 0 ? -ENODATA : ret;
}

/*
 * A commit that the first packet of a segment tells to be durable, if the
 * packet is of this log and further on than *furthest.
 */
static int look_at_segment(WeirLogScan *s, uint32_t segment,
                           uint64_t *furthest, WeirLogCommit *from)
{
    const WeirLogSuperblock *sb = s->cursor.sb;
    uint64_t start = segment * sb->segment_bytes, have;
    uint64_t lap = weir_log_ring_bytes(sb), position;
    int ret;

    /* the one in the ring as it is now */
    position = sb->tail + (start + lap - sb->tail % lap) % lap;
    if (position <= *furthest) {
        return 0;
    }
    ret = read_head(s, position, &have);
    if (ret == -ENODATA) {
        return 0;
    }
    if (ret < 0) {
        return ret;
    }
    if (s->packet.first &&
        !memcmp(s->packet.group, sb->group, WEIR_LOG_UUID_BYTES) &&
        s->packet.generation == weir_log_generation_of(sb, s->packet.epoch) &&
        s->packet.durable.epoch >= sb->anchor.epoch) {
        *furthest = position;
        *from = s->packet.durable;
    }
    return 0;
}

/* From where to walk; see "Finding the end" in the format. *from: at least. */
static int find_start(WeirLogScan *s, WeirLogCommit *from)
{
    uint64_t furthest = from->end;

    for (uint32_t i = 0; i < s->cursor.sb->segments; i++) {
        int ret = look_at_segment(s, i, &furthest, from);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* told: at least; the newest on return. */
static int find_ends(WeirLogRead read, void *opaque,
                     const WeirLogSuperblock *sb, WeirLogCommit *told,
                     WeirLogCommit *end)
{
    WeirLogScan s;
    int ret = weir_log_scan_init(&s, read, opaque, sb, told);

    if (ret < 0) {
        return ret;
    }
    ret = find_start(&s, told);
    if (ret == 0) {
        weir_log_cursor_init(&s.cursor, sb, told);
        do {
            ret = weir_log_scan_next(&s);
        } while (ret >= 0);
        *end = s.cursor.commit;
    }
    weir_log_scan_destroy(&s);
    return ret == -ENODATA ? 0 : ret;
}

int weir_log_find_ends(WeirLogRead read, void *opaque,
                       const WeirLogSuperblock *sb, WeirLogCommit *told,
                       WeirLogCommit *end)
{
    *told = sb->anchor;
    return find_ends(read, opaque, sb, told, end);
}

int weir_log_find_end_behind(WeirLogRead read, void *opaque,
                             const WeirLogSuperblock *sb,
                             const WeirLogCommit *from, WeirLogCommit *end)
{
    WeirLogCommit told = *from;

    return find_ends(read, opaque, sb, &told, end);
}

int weir_log_find_end(WeirLogRead read, void *opaque,
                      const WeirLogSuperblock *sb, WeirLogCommit *end)
{
    WeirLogCommit told;

    return weir_log_find_ends(read, opaque, sb, &told, end);
}

int weir_log_write_again(WeirLogRead read, WeirLogWrite write, void *opaque,
                         const WeirLogSuperblock *sb,
                         const WeirLogCommit *from, uint64_t end)
{
    WeirLogScan s;
    int ret = weir_log_scan_init(&s, read, opaque, sb, from);

    if (ret < 0) {
        return ret;
    }
    while (ret >= 0 && s.cursor.position < end) {
        ret = weir_log_scan_next(&s);
        if (ret >= 0) {
            const struct iovec iov = {
                s.buf, weir_log_packet_bytes(&s.packet)
            };

            ret = write(opaque, weir_log_offset(sb, s.packet.position),
                        iov.iov_len, &iov, 1);
        }
    }
    weir_log_scan_destroy(&s);
    return ret == -ENODATA ? -EIO : ret < 0 ? ret : 0;
}
