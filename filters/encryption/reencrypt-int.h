/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files that convert a disk in place share. */
#ifndef WEIR_ENCRYPTION_REENCRYPT_INT_H
#define WEIR_ENCRYPTION_REENCRYPT_INT_H

#include <pthread.h>

#include "common/ranges.h"
#include "encryption/hotzone.h"
#include "encryption/metadata.h"
#include "encryption/reencrypt.h"
#include "encryption/xts.h"

/* A rule of the crash proof, left out to show that the tests notice. */
#ifdef WEIR_REENCRYPT_MUTATIONS
extern unsigned weir_reencrypt_mutation;
#define WITHOUT_RULE(n) (weir_reencrypt_mutation & 1u << (n))
#else
#define WITHOUT_RULE(n) 0
#endif

struct WeirReencrypt {
    const WeirReencryptHost *host;      /* set at open */
    void *opaque;                       /* set at open */
    WeirMetadata *metadata;             /* of whoever does a step */
    WeirJob *job;                       /* of whoever does a step */
    uint8_t *data;                      /* of whoever does a step: a chunk of
                                           each lane */
    size_t data_room_bytes;             /* set at open */
    uint8_t *kept_data;                 /* of whoever does a step: of the
                                           hotzone, and of the next one as far
                                           as that has been converted */
    bool keeps;                         /* set at open: there is room for it */
    bool kept;                          /* of whoever does a step; it has the
                                           hotzone as it is going to be */
    uint64_t at;                        /* lock; how far into both it is */
    const char *final;                  /* of whoever does a step; the last
                                           header, when it has been tried */
    uint64_t staged_offset;             /* of whoever does a step; where the
                                           header is; 0: at the beginning */
    int doubtful;                       /* of whoever does a step; the copy
                                           that may not be there to its end */
    WeirJobArea wipe[WEIR_JOB_AREAS_MAX];   /* after it */
    size_t n_wipe;
    WeirXts *before, *after;            /* set at open; NULL: plain */
    WeirJobInfo info;                   /* set at open */
    unsigned vaes_bits;                 /* set at open */
    bool read_only;                     /* set at open */
    uint64_t data_bytes;                /* set at open */
    uint64_t hotzone_bytes;             /* set at open */
    uint32_t chunk_bytes_min;           /* set at open */
    uint32_t chunk_bytes_max;           /* set at open */
    uint32_t chunk_bytes;               /* of whoever does a step */
    pthread_mutex_t lock;
    WeirReencryptPhase phase;           /* lock */
    uint64_t done_bytes;                /* lock; without the hotzone */
    bool in_place;                      /* lock; the beginning of data that
                                           moves is still where it was */
    WeirHotzone zone;                   /* lock */
    WeirHotzone next;                   /* lock; what will be the hotzone: its
                                           checksums are taken */
    uint64_t next_at;                   /* lock; where in it the pass is */
    bool next_flushed;                  /* of whoever does a step; since the
                                           first pass over it */
    unsigned passes;                    /* of whoever does a step; times that
                                           the area was written for it */
    WeirRanges ranges;                  /* lock */
    WeirReencryptQueue queue;           /* lock; a range was removed */
};

#define PAGE_BYTES 4096

#define hidden __attribute__((visibility("hidden")))

static inline uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- ranges and ciphers: reencrypt.c --- */

/*
 * What a request does to its blocks, with the lock held: it can change while
 * the request waits.
 */
typedef WeirRangeKind WeirReencryptKindFn(WeirReencrypt *r,
                                          const WeirRange *range);

/*
 * Wait until nobody is in the way. The lock is held, but not while it waits.
 * leave() wakes those who wait for the range.
 */
hidden void weir_reencrypt_enter(WeirReencrypt *r, WeirRange *range,
                                 WeirReencryptKindFn *kind_of);
hidden void weir_reencrypt_leave(WeirReencrypt *r, WeirRange *range);

/* Nobody else is at the range; readers are, and no writers. */
hidden WeirRangeKind weir_reencrypt_alone(WeirReencrypt *r,
                                          const WeirRange *range);
hidden WeirRangeKind weir_reencrypt_holding(WeirReencrypt *r,
                                            const WeirRange *range);

/* Whether a range has blocks of the hotzone. The lock is held. */
hidden bool weir_reencrypt_is_hot(WeirReencrypt *r, const WeirRange *range);

/* Whether one of those is of a state. The lock is held. */
hidden bool weir_reencrypt_has(WeirReencrypt *r, const WeirRange *range,
                               WeirBlockState state);

/* A write to the range has ended, or failed. The lock is held. */
hidden void weir_reencrypt_wrote(WeirReencrypt *r, const WeirRange *range,
                                 bool done);

/* Tell unknown blocks by what is on disk of the range. */
hidden void weir_reencrypt_resolve(WeirReencrypt *r, const WeirRange *range,
                                   const uint8_t *buf);

/* As it is on disk, where the data does not move. */
hidden int weir_reencrypt_read_raw(WeirReencrypt *r, uint64_t offset,
                                   uint64_t bytes, void *buf);
hidden int weir_reencrypt_write_raw(WeirReencrypt *r, uint64_t offset,
                                    uint64_t bytes, const void *buf, bool fua);

/*
 * Whether the block at an offset is new, and how many bytes from there on, at
 * most max_bytes, are alike. An unknown one counts as old; so does one of the
 * hotzone if the data moves. The lock is held.
 */
hidden bool weir_reencrypt_is_new(WeirReencrypt *r, uint64_t offset,
                                  uint64_t max_bytes, uint64_t *same_bytes);

/* weir_xts_encrypt() or _decrypt(). */
typedef int WeirReencryptCryptFn(WeirXts *xts, uint64_t unit, const void *in,
                                 void *out, size_t bytes);

/* xts: NULL leaves it plain. */
hidden int weir_reencrypt_crypt(WeirXts *xts, WeirReencryptCryptFn *fn,
                                uint64_t offset, uint64_t bytes, void *buf);

/* --- the header --- */

hidden int weir_reencrypt_flush_header(WeirReencrypt *r);
hidden int weir_reencrypt_write_copy(WeirReencrypt *r, int copy);

/* Write a copy that was found bad anew, and flush it. */
hidden int weir_reencrypt_mend_header(WeirReencrypt *r);

/*
 * One copy of it is durable then, and counts.
 * json: of weir_job_set() or _finish().
 */
hidden int weir_reencrypt_write_header(WeirReencrypt *r, const char *json);

/* --- phases --- */

hidden void weir_reencrypt_set_phase(WeirReencrypt *r,
                                     WeirReencryptPhase phase);

/* All of the hotzone is new, and the header says so. */
hidden void weir_reencrypt_end_zone(WeirReencrypt *r,
                                    WeirReencryptPhase phase);

/* Old keys, and checksums of old data. */
hidden void weir_reencrypt_wipe_all(WeirReencrypt *r);

/* --- hotzones with checksums: reencrypt-zone.c --- */

/* Returns bytes, or -errno. */
hidden int weir_zone_step(WeirReencrypt *r, uint32_t bytes);

/* What was prepared of the next one is not needed. No step is under way. */
hidden void weir_zone_drop_next(WeirReencrypt *r);

/* --- data that moves: reencrypt-shift.c --- */

hidden int weir_shift_take_length(WeirReencrypt *r,
                                  const WeirReencryptOpen *open, char *err,
                                  size_t err_size);

/* From when its first sector is there on, a header that is staged counts. */
hidden int weir_shift_load(WeirReencrypt *r);

/* The range is held. buf: plain; after writing, anything. */
hidden int weir_shift_read(WeirReencrypt *r, const WeirRange *range,
                           uint8_t *buf);
hidden int weir_shift_write(WeirReencrypt *r, const WeirRange *range,
                            uint8_t *buf, bool fua);

/*
 * Both places may differ now; what is read is the one where it was. The lock is
 * held.
 */
hidden void weir_shift_spoil(WeirReencrypt *r, const WeirRange *range);

/* Returns bytes, or -errno. */
hidden int weir_shift_step(WeirReencrypt *r, uint32_t bytes);

#endif
