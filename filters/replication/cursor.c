/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/cursor.h"

#include <errno.h>
#include <string.h>

void weir_log_cursor_init(WeirLogCursor *c, const WeirLogSuperblock *sb,
                          const WeirLogCommit *from)
{
    memset(c, 0, sizeof(*c));
    c->sb = sb;
    c->commit = *from;
    c->position = from->end;
    memcpy(c->chain, from->chain, WEIR_LOG_CHAIN_BYTES);
}

/* Not a lap ahead, where there is what is older. */
uint64_t weir_log_cursor_place(const WeirLogCursor *c)
{
    return c->position - c->sb->tail < weir_log_ring_bytes(c->sb)
           ? c->position : WEIR_LOG_NOWHERE;
}

static bool is_in_place(const WeirLogCursor *c, const WeirLogPacket *p)
{
    uint64_t at = p->position % c->sb->segment_bytes;

    return p->position == weir_log_cursor_place(c) &&
           weir_log_packet_bytes(p) <= c->sb->segment_bytes - at &&
           p->first == (at == 0);
}

static const char *what_is_wrong(const WeirLogCursor *c,
                                 const WeirLogPacket *p, const uint8_t *chain)
{
    return memcmp(p->group, c->sb->group, WEIR_LOG_UUID_BYTES)
           ? "it is of another group" :
           !is_in_place(c, p) ? "it is not where it belongs" :
           p->epoch != c->commit.epoch + 1 ? "it is of another epoch" :
           p->number != c->number ? "it has another number" :
           p->generation != weir_log_generation_of(c->sb, p->epoch)
           ? "it is of another generation" :
           c->number > 0 && p->session != c->session
           ? "it is of another session" :
           p->commit && memcmp(p->chain, chain, WEIR_LOG_CHAIN_BYTES)
           ? "its epoch is not what the writer meant" :
           p->commit && p->wall_ns <= c->commit.wall_ns
           ? "its time is not after that of the epoch before" : NULL;
}

static void end_epoch(WeirLogCursor *c, const WeirLogPacket *p)
{
    c->commit.epoch = p->epoch;
    c->commit.end = c->position;
    memcpy(c->commit.chain, c->chain, WEIR_LOG_CHAIN_BYTES);
    c->commit.wall_ns = p->wall_ns;
    c->consistent = p->consistent;
    c->number = 0;
}

int weir_log_cursor_take(WeirLogCursor *c, const WeirLogPacket *p,
                         const char **why)
{
    uint8_t chain[WEIR_LOG_CHAIN_BYTES];

    memcpy(chain, c->chain, sizeof(chain));
    weir_log_chain_step(chain, p);
    *why = what_is_wrong(c, p, chain);
    if (*why) {
        return -EINVAL;
    }
    memcpy(c->chain, chain, sizeof(chain));
    c->position = weir_log_packet_next(p, c->sb->segment_bytes);
    c->session = p->session;
    c->number++;
    if (p->commit) {
        end_epoch(c, p);
    }
    return p->commit;
}
