/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/writer.h"

#include <errno.h>
#include <string.h>

void weir_log_writer_init(WeirLogWriter *w, const WeirLogSuperblock *sb,
                          const WeirLogCommit *end, uint64_t session)
{
    memset(w, 0, sizeof(*w));
    w->sb = sb;
    w->session = session;
    w->tail = sb->tail;
    w->position = end->end;
    w->epoch = end->epoch + 1;
    memcpy(w->chain, end->chain, WEIR_LOG_CHAIN_BYTES);
    w->wall_ns = end->wall_ns;
    w->durable = *end;
}

WeirLogNext weir_log_writer_next(const WeirLogWriter *w, uint64_t bytes)
{
    uint64_t at = w->position % w->sb->segment_bytes;

    return at == 0 ? WEIR_LOG_NEXT_FIRST :
           weir_log_packet_room(bytes) > w->sb->segment_bytes - at
           ? WEIR_LOG_NEXT_LAST : WEIR_LOG_NEXT_ANY;
}

static uint64_t bytes_of(const WeirLogPacket *p, const WeirLogRecord *records)
{
    uint64_t bytes = weir_log_head_bytes(p->records);

    for (uint32_t i = 0; i < p->records; i++) {
        bytes += weir_log_data_room(weir_log_data_bytes(&records[i]));
    }
    return bytes;
}

static void fill_in(WeirLogWriter *w, WeirLogPacket *p)
{
    memcpy(p->group, w->sb->group, WEIR_LOG_UUID_BYTES);
    p->generation = weir_log_generation_of(w->sb, w->epoch);
    p->session = w->session;
    p->position = w->position;
    p->epoch = w->epoch;
    p->number = w->number;
    p->first = w->position % w->sb->segment_bytes == 0;
    p->durable = w->durable;
    if (p->commit && p->wall_ns <= w->wall_ns) {
        p->wall_ns = w->wall_ns + 1;
    }
}

static void end_epoch(WeirLogWriter *w, const WeirLogPacket *p,
                      WeirLogCommit *commit)
{
    commit->epoch = w->epoch;
    commit->end = w->position;
    memcpy(commit->chain, w->chain, WEIR_LOG_CHAIN_BYTES);
    commit->wall_ns = p->wall_ns;
    w->wall_ns = p->wall_ns;
    w->epoch++;
    w->number = 0;
}

int weir_log_writer_put(WeirLogWriter *w, WeirLogPacket *p,
                        const WeirLogRecord *records, uint8_t *head,
                        WeirLogCommit *commit)
{
    uint64_t end = w->position + weir_log_packet_room(bytes_of(p, records));

    if (end - w->tail > weir_log_ring_bytes(w->sb)) {
        return -EAGAIN;
    }
    fill_in(w, p);
    weir_log_packet_write(head, p, records, w->chain);
    w->position = weir_log_packet_next(p, w->sb->segment_bytes);
    w->number++;
    if (p->commit) {
        end_epoch(w, p, commit);
    }
    return 0;
}

void weir_log_writer_durable(WeirLogWriter *w, const WeirLogCommit *commit)
{
    w->durable = *commit;
}
