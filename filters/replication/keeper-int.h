/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_KEEPER_INT_H
#define WEIR_REPLICATION_KEEPER_INT_H

#include <pthread.h>

#include "replication/chapter.h"
#include "replication/compress.h"
#include "replication/cursor.h"
#include "replication/index.h"
#include "replication/keeper.h"
#include "replication/map.h"
#include "replication/sidecar.h"
#include "replication/view.h"

/*
 * The keeper's own. One lock is for all of its state but what is said to be set
 * at some time; it is never held over I/O.
 *
 *   arrived ----------> valid --------> durable --------> applied
 *   a packet is in      all packets     a flush that      it is in the bases,
 *   the list, maybe     of an epoch     began later       which are flushed
 *   not written yet     are written     has ended         -> sb.anchor, when
 *                                                         that is durable too
 */

/*
 * A rule of docs/weir-replication-log.md ("Keeping") that a test leaves out:
 * 13, 14 the identity and length of disks; 15 a writer is told of lost epochs;
 * 16 data is checked when it comes; 17 generations; 18 sessions; 19 nothing of
 * the last session is under way; 20 the tail; 21 a flush is for what came
 * before; 22 what is lost by one that failed; 23 the superblock is durable
 * before space is used; 24 data is checked when it is read; 26, 35 epochs, the
 * superblock are written again when a log is opened; 27 open points; 28 only
 * points are applied; 29 reads of the log end before its space is free; 30 only
 * what is durable is applied; 31 later points are not open; 32 bases are
 * flushed; 33 the horizon; 34 one flush at a time; 36 a chapter is written when
 * its epochs are durable; 37 they are of the generations that they have; 38 its
 * blocks are checked; 39 only what is up to its last epoch counts; 40
 * what a promotion drops, 41 what one before it has dropped, is in the sidecars
 * of bases; 42 also what is in chapters; 43 what
 * is compressed is decompressed when it comes.
 */
#ifdef WEIR_KEEPER_MUTATIONS
extern unsigned weir_keeper_mutation;
#define WITHOUT_RULE(n) (weir_keeper_mutation == (n))
#else
#define WITHOUT_RULE(n) 0
#endif

#define SESSIONS_REMEMBERED 64

/* What a writer knows of epochs that it has written and that are gone. */
typedef enum Loss {
    LOSS_NONE,
    LOSS_UNTOLD,                /* a flush would seem to make them durable */
    LOSS_TOLD,                  /* one has failed; flushes under way do too */
} Loss;

/* What a packet tells of a disk. */
typedef struct ArrivedDisk {
    uint32_t record;            /* index of its record in the packet */
    WeirLogDisk what;
} ArrivedDisk;

/* A packet that is behind the last valid epoch. */
typedef struct Arrived {
    struct Arrived *next;       /* by position */
    WeirLogPacket packet;
    WeirLogCommit commit;       /* if it is one and taken */
    bool taken;                 /* all before it are there, and it fits */
    bool written;
    bool dropped;               /* not in the list; its writer frees it */
    bool of_keeper;             /* it has what only the keeper writes */
    uint32_t count;             /* records, without marks and disks known */
    WeirIndexRecord *records;
    uint32_t disks;
    ArrivedDisk *disk;
    uint32_t marks;
    uint32_t names_bytes;
    char *names;                /* of the marks, each with a NUL */
} Arrived;

typedef WeirChapterDisk KnownDisk;

/*
 * The records of the epochs whose commits are in a segment: in blocks on the
 * device, or in memory where they could not get there. Who uses one has a
 * reference.
 */
typedef struct Chapter {
    uint64_t serial;            /* set when it is made, as all up to refs */
    uint64_t position;          /* of the segment */
    WeirLogCommit before;       /* of the epoch before the first */
    uint64_t first;             /* epoch */
    uint64_t blocks_at;         /* offset on the device */
    uint8_t *image;             /* all of it; NULL: it is on the device */
    uint32_t image_bytes;
    uint32_t blocks_in_image;   /* where they begin */
    uint32_t records;
    WeirChapterFinder finder;
    uint32_t refs;              /* the lock, as for all that follows */
    uint64_t last;              /* epoch */
    uint64_t end;               /* position, of that */
    bool dropped;               /* the bases have all of it, or it is gone */
    /* Read from the log again, since blocks are damaged; by order. */
    WeirChapterRecord *rebuilt;
    size_t rebuilt_count;
} Chapter;

/* Blocks of chapters that were read and checked. */
#define BLOCKS_KEPT 2048

typedef struct KeptBlock {
    uint64_t serial;            /* of its chapter; 0: none */
    uint32_t block;
    uint8_t *data;
} KeptBlock;

/* A read of the log that keeps its space from being used again. */
typedef struct LogRead {
    uint64_t position;
    struct LogRead *next;
} LogRead;

typedef struct Base {
    char disk[WEIR_LOG_NAME_BYTES];
    void *host;
    uint64_t bytes;             /* its length; apply only, under the lock */
    bool doubtful;              /* apply only: its length may not be durable,
                                   since a flush failed, or may have */
    uint64_t sidecar_bytes;     /* set before opening; 0: none */
    bool promoted;              /* the sidecar is that of a disk */
    bool sidecar_failed;        /* it could not be made so */
} Base;

struct WeirKeeper {
    const WeirKeeperHost *host;         /* set at new */
    const WeirTasks *tasks;             /* set at new */
    Base bases[WEIR_LOG_DISKS_MAX];     /* set before opening */
    uint32_t base_count;                /* the same */
    uint64_t ring_bytes;                /* set at opening */

    pthread_mutex_t lock;               /* for all that follows */
    WeirTaskQueue changed;              /* anything that somebody waits for */
    WeirKeeperConfig config;
    WeirLogSuperblock sb;               /* as it is durable */
    uint64_t tried_sequence;            /* that may be on the device too */
    bool sb_uncertain;                  /* a write of it has failed */
    bool sb_busy;                       /* somebody changes it */
    bool promotes;                      /* no packet is let in */

    /* receiving */
    WeirLogCursor cursor;               /* behind the packets that are taken */
    Arrived *arrived;
    uint64_t arrived_bytes;             /* of memory */
    uint32_t arrived_count;
    uint32_t writes;                    /* of packets, under way */
    uint64_t stale_end;                 /* packets may be there up to here, if
                                           they count or not */
    uint64_t session;
    bool session_alive;
    uint32_t writer;                    /* life of the last one; 0: none yet */
#define WRITER_UNKNOWN 2u               /* somebody: lives are odd */
    uint64_t session_ns;                /* when its last packet came */
    uint64_t ended[SESSIONS_REMEMBERED];        /* sessions that have */
    uint32_t ended_count;
    Loss loss;
    KnownDisk arriving[WEIR_LOG_DISKS_MAX];     /* behind taken packets */
    uint64_t refused;
    int write_error, flush_error;       /* of the last ones of the log */

    /* what there is */
    WeirIndex index;
    Chapter **chapters;                 /* all of the index but for the last
                                           epochs */
    size_t chapter_count, chapter_room;
    uint64_t chapter_bytes;             /* of memory */
    uint64_t chapters_made;
    uint64_t chapters_written, chapters_rebuilt;
    bool sealing;                       /* somebody makes one */
    KeptBlock kept[BLOCKS_KEPT];
    KnownDisk disks[WEIR_LOG_DISKS_MAX];        /* by the last valid epoch */
    KnownDisk applied_disks[WEIR_LOG_DISKS_MAX];        /* at the anchor */
    WeirLogCommit valid, durable;
    uint64_t flushes;                   /* that have begun */
    bool flushing;                      /* the last of them is under way */
    int flush_result;                   /* of the last one */
    uint32_t era;                       /* one more when epochs are gone */
    uint64_t lost_epoch;

    /* views */
    WeirView *views;
    uint32_t view_count;
    LogRead *reads;
    WeirDecompressor *idle;             /* nobody uses it; NULL: there is
                                           none. To make one is not cheap */

    /* applying */
    uint64_t applied;                   /* bases have it, and are flushed */
    uint64_t applied_end;               /* position where that ends */
    uint64_t horizon;                   /* points before it are gone */
    uint64_t ceiling;                   /* and none behind it is opened */
    uint64_t target;                    /* to be applied whatever its age */
    uint64_t target_from;               /* position when that was asked for */
    uint64_t applied_bytes;
    uint64_t budget_ns;                 /* when apply_rate permits the next */
    WeirKeeperApply apply;
    int apply_error;
    char apply_message[WEIR_KEEPER_MESSAGE_BYTES];
    bool stops;
};

void __attribute__((format(printf, 3, 4)))
weir_keeper_say(char *err, size_t err_size, const char *format, ...);

static inline void weir_keeper_lock(WeirKeeper *k)
{
    pthread_mutex_lock(&k->lock);
}

static inline void weir_keeper_unlock(WeirKeeper *k)
{
    pthread_mutex_unlock(&k->lock);
}

/* All of these: the lock is held, and released while they yield. */

void weir_keeper_changed(WeirKeeper *k);        /* wakes all */
void weir_keeper_wait(WeirKeeper *k, uint64_t until_ns);        /* yields */

/*
 * Change the superblock: begin, change a copy of k->sb, end with it; k->sb is
 * that if 0 is returned. If not, which of both holds is not known: nothing is
 * received until a later one succeeds. Both yield.
 */
void weir_keeper_sb_begin(WeirKeeper *k);
int weir_keeper_sb_end(WeirKeeper *k, const WeirLogSuperblock *next);
void weir_keeper_sb_cancel(WeirKeeper *k);

/* See weir_keeper_flush(). Yields. */
int weir_keeper_flush_locked(WeirKeeper *k);

/* The log ends here now, at a valid epoch or the anchor. */
void weir_keeper_truncate(WeirKeeper *k, const WeirLogCommit *end);
void weir_keeper_end_session(WeirKeeper *k);

/* Of a packet that was read whole; NULL: no memory. */
Arrived *weir_arrived_new(const WeirLogPacket *p, const uint8_t *head,
                          const uint8_t *data);
void weir_arrived_free(Arrived *a);
/* Into the list; false: something is there already. */
bool weir_keeper_insert(WeirKeeper *k, Arrived *a);
/* Its disks and ranges, by what is known before it. Returns 0 or -EINVAL. */
int weir_keeper_check_records(const KnownDisk *disks, const Arrived *a,
                              char *err, size_t err_size);
/* What its records make of the disks. */
void weir_keeper_follow(KnownDisk *disks, const Arrived *a);
/* Epochs that are whole now. Returns 0 or -ENOMEM. */
int weir_keeper_advance(WeirKeeper *k);

/* The base image of a disk, or NULL. */
Base *weir_keeper_base(WeirKeeper *k, const WeirLogDisk *what);

/* A point that can be opened. */
bool weir_keeper_is_point(WeirKeeper *k, uint64_t epoch);
/* The newest, 0: none; those that a view of a lower number pins are there. */
uint64_t weir_keeper_last_point(WeirKeeper *k);
/* Where a point ends. */
WeirLogCommit weir_keeper_commit_of(WeirKeeper *k, uint64_t epoch);
/* The lowest point that a view has open; UINT64_MAX: none. */
uint64_t weir_keeper_pinned(const WeirKeeper *k);
uint64_t weir_keeper_pinned_last(const WeirKeeper *k);

/* A header; the sidecar is all zeroes if there is none. Yields, no lock. */
int weir_keeper_read_sidecar(const WeirKeeperHost *host, void *base,
                             WeirSidecar *sidecar, char *err, size_t err_size);
/* Make it that of a base of a log. The same. */
int weir_keeper_make_base(const WeirKeeperHost *host,
                          const WeirKeeperImage *image, const uint8_t *group);
/* Those of a log that is there are of its bases. Yields; no lock. */
int weir_keeper_check_sidecars(WeirKeeper *k, char *err, size_t err_size);
/*
 * What is behind a point goes away, and a generation begins there: the sidecars
 * say so. No packet comes meanwhile. Yields.
 */
void weir_keeper_promote_bases(WeirKeeper *k,
                               const WeirLogGeneration *generation,
                               const WeirLogCommit *point);

/* Keep a place of the log from being used again, while it is read. */
void weir_keeper_hold(WeirKeeper *k, LogRead *read, uint64_t position);
void weir_keeper_release(WeirKeeper *k, LogRead *read);

/* No lock is held. NULL: no memory; that need not be given back. */
WeirDecompressor *weir_keeper_take_decompressor(WeirKeeper *k);
void weir_keeper_give_decompressor(WeirKeeper *k, WeirDecompressor *d);

/*
 * The data of a record, checked. packed_sectors: as in the index. No lock is
 * held. Yields. Returns 0; -EBADMSG: it is damaged; -ENOMEM; an error of the
 * device.
 */
int weir_keeper_fetch(WeirKeeper *k, uint64_t position,
                      uint32_t packed_sectors, uint64_t bytes, uint32_t crc,
                      uint8_t *buf);

/* --- chapters --- */

/* Bytes of memory for what the log holds, and the most. */
uint64_t weir_keeper_memory(const WeirKeeper *k);
uint64_t weir_keeper_memory_max(const WeirKeeper *k);

/* The first epoch that is in no chapter. */
uint64_t weir_keeper_unsealed(const WeirKeeper *k);

/*
 * Make chapters of full segments, of epochs up to a number; whole: of what the
 * last one of these is in too. Yields. What cannot be done stays as it is.
 */
void weir_keeper_seal(WeirKeeper *k, uint64_t limit, bool whole);

/* Takes over image, NULL: it is on the device. Returns 0 or -ENOMEM. */
int weir_keeper_add_chapter(WeirKeeper *k, const WeirChapterHead *h,
                            const uint8_t *meta, uint8_t *image);
void weir_chapter_unref(WeirKeeper *k, Chapter *c);
void weir_keeper_drop_chapters_to(WeirKeeper *k, uint64_t epoch);
void weir_keeper_drop_chapters_behind(WeirKeeper *k, const WeirLogCommit *end);
void weir_keeper_free_chapters(WeirKeeper *k);

/*
 * Read chapters that go on behind k->valid. Yields; no lock is held, nobody
 * else is there yet. Returns how many, -ENOMEM, or the error of a read.
 */
int weir_keeper_take_chapters(WeirKeeper *k);

/* Whether that of the next segment says that it goes on there. The same. */
typedef struct NextChapter {
    uint64_t position;          /* of the segment; UINT64_MAX at first */
    uint8_t first[WEIR_LOG_ALIGN_BYTES];        /* of it */
} NextChapter;

int weir_keeper_chapter_follows(WeirKeeper *k, NextChapter *next);

typedef struct Recalled {
    WeirChapterRecord *records;         /* freed by the caller */
    size_t count, room;
} Recalled;

/*
 * Records of a chapter, added in any order: those of a disk that touch a range,
 * or all (disk < 0) by their order. No lock is held; a reference is. Yields.
 * Returns 0; -ENOMEM; -ESTALE: it was dropped; -EBADMSG: it is damaged, and the
 * log too; the error of a read.
 */
int weir_keeper_recall(WeirKeeper *k, Chapter *c, int disk, uint64_t from,
                       uint64_t to, Recalled *out);

/*
 * What a record does to its disk. old_bytes: its length before, follows it.
 * False: nothing.
 */
bool weir_record_extent(const WeirIndexRecord *r, uint64_t epoch,
                        uint64_t *old_bytes, WeirExtent *extent);

#endif
