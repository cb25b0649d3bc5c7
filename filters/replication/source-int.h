/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_SOURCE_INT_H
#define WEIR_REPLICATION_SOURCE_INT_H

#include <errno.h>
#include <pthread.h>

#include "common/ranges.h"
#include "replication/bitmap.h"
#include "replication/compress.h"
#include "replication/epoch.h"
#include "replication/sidecar.h"
#include "replication/source.h"
#include "replication/writer.h"

/*
 * Epochs are in one list, oldest first: those that are in the log but not yet
 * durable, those that are being sent, and the open one that takes what is
 * written now. The sender makes packets of one after the other; the committer
 * flushes the log when all packets of the first have been written, and lets go
 * of whatever is durable by that. (source-send.c)
 *
 * When memory is used up the open epoch is closed, and nothing comes into one
 * any more: requests that end only mark their blocks ("marking"). Once all of
 * the list is durable, writes go to the open epoch again, and the copiers add
 * the dirty blocks, each under the lock of its range, so that it is in order
 * with the writes to it. (source-resync.c)
 */

/* What is known of a sidecar; source-intent.c. */
typedef struct WeirIntent WeirIntent;

struct WeirSourceDisk {
    WeirSource *source;                 /* set at add */
    void *host;                         /* set at add; NULL: it was closed */
    uint16_t number;                    /* set when connecting first */
    WeirLogDisk what;                   /* the same */
    bool coming;                        /* its sidecar has not been read */
    bool judged;                        /* what is dirty fits the log */
    bool came_back;                     /* it was in the group before, */
    bool left_lost;                     /* and `lost` when it had left */
    bool closing;
    bool abandoned;                     /* see weir_source_abandon_disk() */
    bool lost;                          /* closed while it had dirty blocks */
    uint32_t users;                     /* tasks of the engine that use it */
    uint64_t bytes;
    uint64_t first_bytes;               /* when it was added */
    uint64_t sent_bytes;                /* its length by the last packet */
    uint64_t durable_bytes;             /* by what is durable */
    WeirRanges ranges;                  /* requests under way */
    WeirTaskQueue queue;                /* a range was removed */
    WeirBitmap dirty;
    uint64_t resync_total;              /* bytes */
    uint64_t cursor;                    /* where the next copy is looked for */
    WeirIntent *intent;                 /* NULL: no sidecar */
    WeirSourceDisk *next;               /* of those that were forgotten */
};

#define WEIR_SOURCE_RATE_SECONDS 4

struct WeirSource {
    const WeirTasks *tasks;             /* set at new */
    const WeirSourceHost *host;         /* set at new */
    void *opaque;                       /* set at new */
    WeirSourceConfig config;            /* set at new */
    uint32_t life;                      /* set at new; random, not 0 */
    pthread_mutex_t lock;               /* for all that follows */
    WeirSourceDisk *disks[WEIR_LOG_DISKS_MAX];
    uint16_t disk_count;
    WeirSourceDisk *forgotten;          /* a task may still look at one */
    bool connected;                     /* a session is under way */
    bool in_session;                    /* the keeper may think so */
    bool stopped;                       /* no session can be any more */
    bool stops;
    bool impatient;             /* nobody suspends */
    bool hurry;                         /* somebody waits for the open epoch */
    bool marking;                       /* nothing goes to the open epoch */
    bool promised;                      /* the log has had all once */
    bool wants_point;                   /* the log has not all by the last
                                           epoch that was closed */
    uint64_t point_serial;              /* of the last durable point in time */
    uint64_t behind_ns;                 /* since when blocks are dirty; 0:
                                           none is, or was not long ago */
    uint64_t behind_serial;             /* until this epoch is durable */
    WeirMemory *memory;
    WeirEpoch *oldest, *open;           /* of the list */
    WeirEpoch *to_send;                 /* the first without packets; or open */
    uint32_t writes;                    /* under way that may go to `open` */
    uint64_t entries;                   /* of all epochs */
    uint64_t copied_bytes;              /* of these, from the copiers */
    uint32_t packets;                   /* under way, and the committer */
    uint32_t copiers;
    uint32_t added;                     /* disks, ever */
    bool sending;                       /* the sender is in an epoch */
    bool tending;                       /* the task of the sidecars runs */
    bool doubtful;                      /* what can be read of the log may not
                                           be durable, see secure_end() */
    uint32_t flush_failures;            /* ever */
    WeirLogSuperblock sb;
    WeirLogWriter writer;
    WeirCompressor *compressor;         /* set at new, the sender's; NULL:
                                           nothing is compressed */
    bool announce;                      /* the session begins with all disks */
    WeirLogCommit durable;
    uint64_t connections;
    uint64_t sent_bytes;
    uint64_t plain_bytes;
    uint64_t send_ns;                   /* not earlier, for max_rate */
    uint64_t rate_second;               /* the newest of: */
    uint64_t rate_bytes[WEIR_SOURCE_RATE_SECONDS];
    WeirTaskQueue stopping;
    WeirTaskQueue changed;              /* anything that the sender, the
                                           committer, the copiers, or those who
                                           wait for an epoch or for memory look
                                           at */
};

#ifdef WEIR_SOURCE_MUTATIONS
extern unsigned weir_source_mutation;
#define WEIR_SOURCE_WITHOUT(rule) (weir_source_mutation == (rule))
#else
#define WEIR_SOURCE_WITHOUT(rule) false
#endif

static inline void weir_source_changed(WeirSource *s)
{
    s->tasks->wake(s->tasks->opaque, &s->changed);
}

/*
 * Somebody waits for the open epoch. Who is told once looks at it; if all who
 * wait told all others each time that they look, nobody would come to rest.
 */
static inline void weir_source_hurry(WeirSource *s)
{
    if (!s->hurry) {
        s->hurry = true;
        weir_source_changed(s);
    }
}

static inline void weir_source_wait(WeirSource *s, uint64_t until_ns)
{
    s->tasks->wait(s->tasks->opaque, &s->lock, &s->changed, until_ns);
}

/* Whoever serves the log is gone: what can be read tells how far he came. */
static inline void weir_source_fail_flush(WeirSource *s, int ret)
{
    if (ret != -ENOTCONN) {
        s->doubtful = true;
        s->flush_failures++;
    }
}

static inline uint64_t weir_source_now(const WeirSource *s)
{
    return s->tasks->now_ns(s->tasks->opaque);
}

/* All that follows is called with the lock held; what yields releases it. */

/* --- source.c --- */

/* The log cannot be relied on; what it has is found out by connecting again. */
void weir_source_lose_log(WeirSource *s);

/* NULL: none has that number. */
WeirSourceDisk *weir_source_disk_of(const WeirSource *s, uint16_t number);

/* Nothing is dirty: what the epochs say is all. */
bool weir_source_is_synchronised(const WeirSource *s);

/*
 * With so much an epoch ends: several go into the ring, which is not freed
 * before they are whole.
 */
uint64_t weir_source_epoch_bytes(const WeirSource *s);

/* Begin the next one. Returns 0; -ENOMEM: nothing has changed. */
int weir_source_close_epoch(WeirSource *s);

/* Up to this one all is in the log for good, which ends like that. */
void weir_source_let_go(WeirSource *s, WeirEpoch *last,
                        const WeirLogCommit *end);

/* --- source-write.c --- */

/* Yields until no other request is in the way. */
void weir_source_enter(WeirSourceDisk *d, WeirRange *range);
void weir_source_leave(WeirSourceDisk *d, WeirRange *range);

/*
 * Memory for the data, and a place for the record in whatever is open then.
 * bytes: 0: no data. Returns 0; -EAGAIN: memory is used up; -ENOMEM.
 */
int weir_source_take(WeirSource *s, uint64_t bytes, WeirPiece *piece);

/* The place is not needed after all. */
void weir_source_give(WeirSource *s, uint64_t bytes, const WeirPiece *piece);

/* Use it. */
void weir_source_append(WeirSource *s, const WeirLogRecord *record,
                        const WeirPiece *piece);

/*
 * Afterwards, when blocks and regions are what they are: close the open epoch
 * if it is long enough. The sender would do that too, but may have to wait for
 * the log, and an epoch that is longer than the log can never be sent.
 */
void weir_source_limit_epoch(WeirSource *s);

/* A range has to be copied. */
void weir_source_mark_dirty(WeirSourceDisk *d, uint64_t offset,
                            uint64_t bytes);

/* Nothing goes to the open epoch any more. */
void weir_source_begin_marking(WeirSource *s);

/* --- source-resync.c --- */

/* All of the list is durable. Returns 0 or -ENOMEM: not yet. */
int weir_source_end_marking(WeirSource *s);

/* As many copiers as there may be, if there is something to copy. */
void weir_source_start_copying(WeirSource *s);

/* --- source-send.c --- */

/* Close the open epoch when it is due, or wait. Yields. */
void weir_source_queue_next(WeirSource *s);

/* Send what is closed, or do the same. Yields. */
void weir_source_send_next(WeirSource *s);

/* The committer of a session; arg: the source. Locks itself. */
void weir_source_commit(void *arg);

/* --- source-pack.c --- */

/* Entries of an epoch, as the records of a packet. */
typedef struct WeirSourcePack {
    const WeirEpochEntry *entries;
    uint32_t entry_count;
    WeirCompressor *compressor;
    WeirLogRecord *records;
    const uint8_t **data;               /* of each record, if it has some;
                                           what is compressed is padded */
    uint32_t count;
    uint64_t data_bytes;                /* with what lies between */
    uint8_t *buf;                       /* what was compressed */
    uint64_t used;                      /* of it */
} WeirSourcePack;

/* count: may be 0. Yields if something is to compress. Returns 0 or -ENOMEM. */
int weir_source_pack(WeirSource *s, const WeirEpochEntry *entries,
                     uint32_t count, WeirSourcePack *pack);
void weir_source_pack_free(WeirSourcePack *pack);

/* --- source-connect.c --- */

/* Nothing of the last session is under way any more. Yields. */
void weir_source_drain(WeirSource *s);

/* After that: tell the keeper, if there is one, that it has ended. Yields. */
void weir_source_take_leave(WeirSource *s);

/* --- source-intent.c --- */

void weir_source_intent_free(WeirSourceDisk *d);

/* Before a request changes the disk. Yields. Returns 0 or an error. */
int weir_source_intent_begin(WeirSourceDisk *d, uint64_t offset,
                             uint64_t bytes);

/* After it, and after its record was appended. */
void weir_source_intent_end(WeirSourceDisk *d, uint64_t offset,
                            uint64_t bytes);

/* A copy was appended. */
void weir_source_intent_touch(WeirSourceDisk *d, uint64_t offset,
                              uint64_t bytes);

/* Its header as it was last written; NULL: it knows nothing of a log, or of the
   disk. */
const WeirSidecar *weir_source_intent_known(const WeirSourceDisk *d);

/* Regions with a dirty block are durable as such. Yields. Returns 0 or an
   error. */
int weir_source_intent_keep_dirty(WeirSourceDisk *d);

/* A session begins, behind `end`. Yields. */
int weir_source_intent_session(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                               const WeirLogCommit *end, uint64_t session);

/* The disk may get so long. Yields. Returns 0, -ENOMEM or -EFBIG. */
int weir_source_intent_prepare(WeirSourceDisk *d, uint64_t bytes);

/* It has got another length. Yields. */
void weir_source_intent_resize(WeirSourceDisk *d);

/* Leave it clean. Yields. Returns 0 or an error. */
int weir_source_intent_close(WeirSourceDisk *d);

/*
 * All of the disk is to be copied when it comes again, whatever becomes of this
 * source. Yields. Returns 0 or an error.
 */
int weir_source_intent_abandon(WeirSourceDisk *d);

/* Clears regions by and by, until the source stops. Locks itself. */
void weir_source_tend_intents(void *arg);

/* --- source-judge.c --- */

#define WEIR_SOURCE_NOT_IN_LOG (-1)     /* for certain */
#define WEIR_SOURCE_NOT_FOUND (-2)      /* but the log could not be read */

/*
 * What is dirty of a disk that comes to a log, by its sidecar: as it is, with
 * what a base image lacks, or all of it, which is marked. number: what the log
 * has it as, or one of these.
 * Yields. Returns 0; -ESTALE, err: the disk must not go on with the log;
 * another error.
 */
int weir_source_intent_judge(WeirSourceDisk *d, const WeirLogSuperblock *sb,
                             const WeirLogCommit *end, int number, char *err,
                             size_t err_size);

#endif
