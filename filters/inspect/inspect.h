/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_INSPECT_INSPECT_H
#define WEIR_INSPECT_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * What a disk's requests look like: sizes and sequential share per direction,
 * working set with miss-ratio curve (shards.h), and the entropy of what is
 * written over what (entropy.h). Looks only: it changes no request and no
 * data, and does no I/O.
 *
 * All functions but new and free may be called by any thread at any time.
 * Requests whose blocks are not sampled take no lock; others take a mutex for
 * about a microsecond, now and then (when a table is compacted) for some tens
 * of them. No function blocks otherwise. Offsets are bytes on the disk; a range
 * that passes 2^64 - 1 ends there.
 */

#define WEIR_INSPECT_BLOCK_BYTES 4096
#define WEIR_INSPECT_STATE_BYTES_MAX (1024 * 1024)
#define WEIR_INSPECT_REQUEST_BYTES_MAX (UINT64_C(1) << 31)
#define WEIR_INSPECT_SIZE_BUCKETS 16
#define WEIR_INSPECT_CURVE_POINTS 64
#define WEIR_INSPECT_ENTROPY_BUCKETS 16

typedef struct WeirInspectConfig {
    bool working_set;
    bool entropy;
    uint32_t entropy_window_s;       /* 1..3600 */
    double entropy_high_bits;        /* 0..8; a write at or above is "high" */
    double entropy_low_bits;         /* 0..high; old data up to it is "low" */
    double entropy_alert_share;      /* 0..1; 0: no alert */
    uint32_t entropy_min_overwrites; /* >= 1; fewer samples never alert */
} WeirInspectConfig;

/* Requests of one direction. */
typedef struct WeirInspectTraffic {
    uint64_t requests;
    uint64_t bytes;
    uint64_t sequential;             /* began where an earlier one ended */
    /* [i]: [512 * 2^i, 512 * 2^(i+1)) bytes; [0] also less, last also more */
    uint64_t sizes[WEIR_INSPECT_SIZE_BUCKETS];
} WeirInspectTraffic;

typedef struct WeirInspectPoint {
    uint64_t cache_bytes;
    double miss_ratio;               /* 0..1 of an LRU cache of that size */
} WeirInspectPoint;

/* Reads and writes alike, since the start or since it was switched on. */
typedef struct WeirInspectWorkingSet {
    bool enabled;
    uint32_t block_bytes;
    uint64_t accesses;               /* blocks touched, repeats included */
    uint64_t sampled_accesses;
    uint64_t sampled_blocks;         /* held now */
    double sampling_rate;            /* 0 (off) .. 1 */
    uint64_t unique_bytes;           /* estimate of what was ever touched */
    uint32_t points;                 /* valid in curve, 0 before any access */
    WeirInspectPoint curve[WEIR_INSPECT_CURVE_POINTS]; /* cache_bytes rising */
} WeirInspectWorkingSet;

/* "window": the last entropy_window_s seconds; the rest: since switched on. */
typedef struct WeirInspectEntropy {
    bool enabled;
    uint32_t window_s;
    double sampling_rate;            /* 0 (off) .. 1/32 */
    uint64_t known_blocks;           /* blocks whose entropy is remembered */
    uint64_t sampled_reads;          /* blocks judged */
    uint64_t sampled_writes;
    /* [i]: sampled written blocks of [i/2, (i+1)/2) bits a byte; last: 8 too */
    uint64_t written[WEIR_INSPECT_ENTROPY_BUCKETS];
    uint64_t window_writes;          /* sampled blocks, all-zero ones not */
    double window_write_bits;        /* mean of them, 0..8 bits a byte */
    uint64_t window_overwrites;      /* those of known blocks */
    uint64_t window_suspicious;      /* high written over low */
    double window_share;             /* suspicious of overwrites, 0..1 */
    bool alert;                      /* now */
    uint64_t alerts;                 /* how often it was raised */
} WeirInspectEntropy;

typedef struct WeirInspect WeirInspect;

/*
 * Fill in the defaults: all on, window 30 s, high 7.2, low 6.0, alert share
 * 0.5, min overwrites 32.
 */
void weir_inspect_config_default(WeirInspectConfig *config);

/*
 * Check a configuration.
 * err: gets one line that names the option, its value and its range when the
 * check fails, cut to err_size bytes with the final 0; may be NULL.
 * Thread-safe. Returns 0 or -EINVAL.
 */
int weir_inspect_config_check(const WeirInspectConfig *config, char *err,
                              size_t err_size);

/*
 * Make an inspector. All memory it will ever use is allocated here, at most
 * WEIR_INSPECT_STATE_BYTES_MAX.
 * inspect: gets the new object, freed with weir_inspect_free().
 * config: passed weir_inspect_config_check(); copied.
 * Returns 0, or -ENOMEM with *inspect NULL.
 */
int weir_inspect_new(WeirInspect **inspect, const WeirInspectConfig *config);

/* Free it. No other call may be running or follow. NULL is fine. */
void weir_inspect_free(WeirInspect *inspect);

/*
 * Take a new configuration.
 * config: passed weir_inspect_config_check(); copied.
 * What is switched from off to on starts from nothing (so off and on again is
 * a reset); another window length empties the window; new thresholds hold from
 * the next sampled block on. Cannot fail.
 */
void weir_inspect_configure(WeirInspect *inspect,
                            const WeirInspectConfig *config);

/* The configuration in force. */
void weir_inspect_read_config(WeirInspect *inspect, WeirInspectConfig *config);

/*
 * Count one read or write: size, sequential or not, working set. Call it once
 * per request, when it arrives.
 * bytes: 0 counts as a request that touches nothing. Of a request longer than
 * WEIR_INSPECT_REQUEST_BYTES_MAX only so much enters the working set.
 */
void weir_inspect_request(WeirInspect *inspect, bool is_write,
                          uint64_t offset_bytes, uint64_t bytes);

/*
 * Whether weir_inspect_data() has anything to do for this range: a block in it
 * is sampled (or partly written, and must be forgotten). False: the call can be
 * left out. About a nanosecond per 4 KiB, lock-free.
 */
bool weir_inspect_wants_data(const WeirInspect *inspect, uint64_t offset_bytes,
                             uint64_t bytes);

/*
 * Look at data that was read or written.
 * Call it when the request has succeeded and before its completion is
 * reported, while the buffer is still the request's. For a write that failed
 * call weir_inspect_forget(). A buffer that somebody changes meanwhile gives a
 * wrong entropy and nothing worse.
 * iov, niov: the buffers, read only; iov_offset: bytes of them to skip before
 * the request's first one. Blocks beyond their end are not looked at.
 * now_ns: a clock that normally rises, the same one in all calls.
 * Returns true when this call raised the alert (the edge, not the level).
 */
bool weir_inspect_data(WeirInspect *inspect, bool is_write,
                       uint64_t offset_bytes, uint64_t bytes,
                       const struct iovec *iov, size_t niov, size_t iov_offset,
                       uint64_t now_ns);

/*
 * The content of a range has gone or is not known any more: discarded, zeroed,
 * copied over, or a write failed. Every block that it touches is forgotten for
 * entropy; the working set does not change.
 * At most about 100 microseconds, however long the range, with the lock held
 * for a few at a time.
 */
void weir_inspect_forget(WeirInspect *inspect, uint64_t offset_bytes,
                         uint64_t bytes);

/* Read the traffic of one direction. out: filled by the call. */
void weir_inspect_read_traffic(const WeirInspect *inspect, bool is_write,
                               WeirInspectTraffic *out);

/* Read working set and curve. out: filled; all zero but enabled when off. */
void weir_inspect_read_working_set(WeirInspect *inspect,
                                   WeirInspectWorkingSet *out);

/*
 * Read the entropy watch, in some 500 microseconds, with the lock held for a
 * few at a time. out: filled; all zero but the window when off.
 * now_ns: as in weir_inspect_data(); what has left the window is dropped, and
 * an alert whose cause has left ends here.
 */
void weir_inspect_read_entropy(WeirInspect *inspect, uint64_t now_ns,
                               WeirInspectEntropy *out);

/*
 * The miss ratio that an LRU cache of cache_bytes would have had.
 * Returns 0..1; 1 when there was no access or the working set is off.
 */
double weir_inspect_miss_ratio(WeirInspect *inspect, uint64_t cache_bytes);

#endif
