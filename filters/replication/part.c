/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Some records of a batch: their data is read, and what is newest written. */
#include "replication/batch.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#define WRITE_BYTES (UINT64_C(1) << 20)
#define READ_BYTES (UINT64_C(2) << 20)
#define GAP_BYTES (UINT64_C(64) << 10)  /* read rather than left out */

/* --- reading --- */

void weir_part_destroy(Part *p)
{
    for (size_t i = 0; i < p->n_runs; i++) {
        free(p->runs[i]);
    }
    free(p->runs);
    free(p->data);
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        weir_map_destroy(&p->maps[i]);
    }
    memset(p, 0, sizeof(*p));
}

/* From a record on, so much that it can be held in memory. */
static size_t part_length(const Batch *b, size_t first)
{
    uint64_t bytes = 0;
    size_t n = 0;

    while (first + n < b->count) {
        const WeirIndexRecord *r = &b->records[first + n];

        bytes += r->op == WEIR_LOG_WRITE ? r->bytes : 0;
        if (n > 0 && bytes > BATCH_BYTES) {
            break;
        }
        n++;
    }
    return n;
}

/* extent.epoch: index of the record in the part. */
static int map_disk(const Batch *b, Part *p, uint16_t disk, uint64_t *bytes)
{
    WeirExtent *extents = malloc((p->count + 1) * sizeof(*extents));
    size_t n = 0;
    int ret;

    if (!extents) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < p->count; i++) {
        const WeirIndexRecord *r = &b->records[p->first + i];

        if (r->disk == disk) {
            n += weir_record_extent(r, i, bytes, &extents[n]);
        }
    }
    ret = weir_map_build(&p->maps[disk], extents, n);
    free(extents);
    return ret;
}

static const uint8_t needed[1];

/* Those of which something is left. */
static void mark_needed(Part *p)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        for (size_t j = 0; j < p->maps[i].count; j++) {
            const WeirExtent *e = &p->maps[i].extents[j];

            if (e->kind == WEIR_EXTENT_DATA) {
                p->data[e->epoch] = needed;
            }
        }
    }
}

/* Records from `from` on that are read at once. */
typedef struct Run {
    size_t from, count;
    uint64_t position, bytes;   /* in the log */
    uint64_t packed;            /* what is compressed has so much then */
} Run;

static uint64_t unpacked_bytes(const WeirIndexRecord *r)
{
    return r->packed_sectors > 0 ? r->bytes : 0;
}

static Run find_run(const Batch *b, const Part *p, size_t from)
{
    const WeirIndexRecord *first = &b->records[p->first + from];
    uint64_t start = first->position;
    uint64_t end = start + weir_index_stored_bytes(first);
    uint64_t packed = unpacked_bytes(first);
    size_t i = from + 1;

    for (; i < p->count; i++) {
        const WeirIndexRecord *r = &b->records[p->first + i];

        if (!p->data[i]) {
            continue;
        }
        if (r->position < end || r->position - end > GAP_BYTES ||
            r->position + weir_index_stored_bytes(r) - start > READ_BYTES ||
            packed + unpacked_bytes(r) > READ_BYTES ||
            r->position / b->k->ring_bytes != start / b->k->ring_bytes) {
            break;
        }
        end = r->position + weir_index_stored_bytes(r);
        packed += unpacked_bytes(r);
    }
    return (Run) { from, i - from, start, end - start, packed };
}

/* What is compressed goes to `to`, which gets on. */
static int unpack(const WeirIndexRecord *r, WeirDecompressor *d,
                  const uint8_t **data, uint8_t **to)
{
    int ret = 0;

    if (r->packed_sectors > 0) {
        ret = weir_decompress(d, *data, weir_index_stored_bytes(r), *to,
                              r->bytes);
        *data = *to;
        *to += r->bytes;
    }
    return ret < 0 || (weir_log_data_crc(*data, r->bytes) != r->crc &&
                       !WITHOUT_RULE(24)) ? -EBADMSG : 0;
}

static int check_run(Batch *b, Part *p, const Run *run, const uint8_t *data,
                     WeirDecompressor *d, uint8_t *to)
{
    for (size_t i = run->from; i < run->from + run->count; i++) {
        const WeirIndexRecord *r = &b->records[p->first + i];

        if (!p->data[i]) {
            continue;
        }
        p->data[i] = data + (r->position - run->position);
        if (unpack(r, d, &p->data[i], &to) < 0) {
            snprintf(b->message, sizeof(b->message), "the replication log is "
                     "damaged at %llu: what follows cannot be applied",
                     (unsigned long long)r->position);
            return -EBADMSG;
        }
    }
    return 0;
}

/* Memory for the data of a run. */
static uint8_t *add_run(Part *p, uint64_t bytes)
{
    uint8_t *run = aligned_alloc(WEIR_LOG_ALIGN_BYTES,
                                 weir_log_packet_room(bytes));

    if (run) {
        p->runs[p->n_runs++] = run;
    }
    return run;
}

static int unpack_run(Batch *b, Part *p, const Run *run, const uint8_t *data)
{
    WeirDecompressor *d = NULL;
    uint8_t *to = NULL;
    int ret = 0;

    if (run->packed > 0) {
        d = weir_keeper_take_decompressor(b->k);
        to = add_run(p, run->packed);
        ret = d && to ? 0 : -ENOMEM;
    }
    ret = ret < 0 ? ret : check_run(b, p, run, data, d, to);
    weir_keeper_give_decompressor(b->k, d);
    return ret;
}

static int read_run(Batch *b, Part *p, const Run *run)
{
    const WeirKeeperHost *host = b->k->host;
    uint8_t *data = add_run(p, run->bytes);
    int ret;

    if (!data) {
        return -ENOMEM;
    }
    ret = host->read_log(host->opaque, WEIR_LOG_RING_OFFSET +
                         run->position % b->k->ring_bytes, run->bytes, data);
    if (ret < 0) {
        snprintf(b->message, sizeof(b->message), "the replication log cannot "
                 "be read: %s", strerror(-ret));
        return ret;
    }
    return unpack_run(b, p, run, data);
}

static int read_data(Batch *b, Part *p)
{
    int ret = 0;

    for (size_t i = 0; i < p->count && ret == 0;) {
        Run run = { .count = 1 };

        if (p->data[i]) {
            run = find_run(b, p, i);
            ret = read_run(b, p, &run);
        }
        i += run.count;
    }
    return ret;
}

int weir_part_init(Batch *b, Part *p, size_t first, uint64_t *sizes)
{
    int ret = 0;

    memset(p, 0, sizeof(*p));
    p->first = first;
    p->count = part_length(b, first);
    p->data = calloc(p->count + 1, sizeof(*p->data));
    p->runs = calloc(2 * p->count + 1, sizeof(*p->runs));
    if (!p->data || !p->runs) {
        ret = -ENOMEM;
    }
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX && ret == 0; i++) {
        ret = b->touched[i] ? map_disk(b, p, i, &sizes[i]) : 0;
    }
    if (ret == 0) {
        mark_needed(p);
        ret = read_data(b, p);
    }
    if (ret == -ENOMEM) {
        snprintf(b->message, sizeof(b->message), "no memory to apply epochs");
    }
    return ret;
}

/* --- writing --- */

static bool stops(WeirKeeper *k)
{
    bool so;

    weir_keeper_lock(k);
    so = k->stops;
    weir_keeper_unlock(k);
    return so;
}

/* So much has gone to a base: wait as long as the rate wants it. */
static void account(WeirKeeper *k, uint64_t bytes)
{
    uint64_t now = k->tasks->now_ns(k->tasks->opaque);

    weir_keeper_lock(k);
    k->applied_bytes += bytes;
    if (k->config.apply_rate > 0) {
        k->budget_ns = (k->budget_ns > now ? k->budget_ns : now) +
                       (uint64_t)((double)bytes * 1e9 /
                                  (double)k->config.apply_rate);
    }
    while (k->config.apply_rate > 0 && !k->stops &&
           k->budget_ns > k->tasks->now_ns(k->tasks->opaque)) {
        weir_keeper_wait(k, k->budget_ns);
    }
    weir_keeper_unlock(k);
}

/* Data that goes on where it has been going on. */
typedef struct Gather {
    Batch *b;
    Base *base;
    uint64_t offset, bytes;
    uint8_t *buf;               /* WRITE_BYTES */
} Gather;

static int gather_end(Gather *g)
{
    int ret;

    if (g->bytes == 0) {
        return 0;
    }
    ret = g->b->k->host->write_base(g->base->host, g->offset, g->bytes,
                                    g->buf);
    if (ret < 0) {
        return weir_batch_fail(g->b, g->base, "written", ret);
    }
    account(g->b->k, g->bytes);
    g->bytes = 0;
    return 0;
}

static int gather(Gather *g, uint64_t offset, const uint8_t *data,
                  uint64_t bytes)
{
    int ret = 0;

    while (bytes > 0 && ret == 0) {
        uint64_t n = WRITE_BYTES - g->bytes;

        if (g->bytes > 0 && (n == 0 || offset != g->offset + g->bytes)) {
            ret = gather_end(g);
            continue;
        }
        n = bytes < n ? bytes : n;
        g->offset = g->bytes > 0 ? g->offset : offset;
        memcpy(g->buf + g->bytes, data, n);
        g->bytes += n;
        offset += n;
        data += n;
        bytes -= n;
    }
    return ret;
}

static int write_extent(Gather *g, const Part *p, const WeirExtent *e)
{
    const WeirKeeperHost *host = g->b->k->host;
    int ret;

    if (e->kind == WEIR_EXTENT_DATA) {
        return gather(g, e->offset, p->data[e->epoch] + e->at, e->bytes);
    }
    ret = gather_end(g);
    if (ret < 0) {
        return ret;
    }
    if (e->kind == WEIR_EXTENT_ZERO) {
        ret = host->zero_base(g->base->host, e->offset, e->bytes);
        return ret < 0 ? weir_batch_fail(g->b, g->base, "zeroed", ret) : 0;
    }
    ret = host->discard_base(g->base->host, e->offset, e->bytes);
    return ret < 0 && ret != -ENOTSUP
           ? weir_batch_fail(g->b, g->base, "discarded", ret) : 0;
}

static int write_disk(Batch *b, const Part *p, uint16_t disk, uint8_t *buf)
{
    Gather g = { .b = b, .base = b->bases[disk], .buf = buf };
    int ret = 0;

    for (size_t i = 0; i < p->maps[disk].count && ret == 0; i++) {
        ret = stops(b->k) ? -ECANCELED
                          : write_extent(&g, p, &p->maps[disk].extents[i]);
    }
    return ret < 0 ? ret : gather_end(&g);
}

int weir_part_write(Batch *b, const Part *p)
{
    uint8_t *buf = aligned_alloc(WEIR_LOG_ALIGN_BYTES, WRITE_BYTES);
    int ret = buf ? 0 : -ENOMEM;

    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX && ret == 0; i++) {
        ret = b->touched[i] ? write_disk(b, p, i, buf) : 0;
    }
    free(buf);
    return ret;
}
