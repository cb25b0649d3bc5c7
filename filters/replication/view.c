/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The records up to the point make a map of the disk when it is opened. What
 * has been applied since is read from the base instead: so a view keeps the
 * keeper from applying what is behind its point, and nothing else.
 */
#include "replication/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replication/keeper-int.h"

/*
 * A record of which a part was read: the next part is read soon. All of one has
 * to be read, checked, and decompressed, whatever is wanted.
 */
typedef struct Kept {
    uint64_t position;          /* of the record */
    uint8_t *data;              /* NULL: there is none */
    bool reading;               /* somebody is at it; others wait */
    unsigned users;
    uint64_t used;              /* the higher, the later */
} Kept;

#define KEPT_RECORDS 4

struct WeirView {
    WeirKeeper *keeper;         /* set at open, as all but next */
    Base *base;                 /* NULL: none */
    WeirLogCommit point;
    uint64_t bytes;             /* of the disk */
    WeirMap map;
    WeirView *next;             /* keeper's lock, as all below */
    Kept kept[KEPT_RECORDS];
    uint64_t kept_serial;
};

uint64_t weir_keeper_pinned(const WeirKeeper *k)
{
    uint64_t first = UINT64_MAX;

    for (const WeirView *v = k->views; v; v = v->next) {
        first = v->point.epoch < first ? v->point.epoch : first;
    }
    return first;
}

uint64_t weir_keeper_pinned_last(const WeirKeeper *k)
{
    uint64_t last = 0;

    for (const WeirView *v = k->views; v; v = v->next) {
        last = v->point.epoch > last ? v->point.epoch : last;
    }
    return last;
}

/* --- open --- */

static bool find_disk(WeirKeeper *k, const char *name, uint16_t *number)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (k->disks[i].known && !strcmp(k->disks[i].what.name, name)) {
            *number = i;
            return true;
        }
    }
    return false;
}

static size_t count_records(const WeirKeeper *k, uint16_t disk, uint64_t epoch)
{
    size_t n = 0;

    for (size_t i = k->index.first; i < k->index.end &&
         k->index.epochs[i]->commit.epoch <= epoch; i++) {
        const WeirIndexEpoch *e = k->index.epochs[i];

        for (uint32_t j = 0; j < e->count; j++) {
            n += e->records[j].disk == disk;
        }
    }
    return n;
}

/* The records of a disk up to the point; it has *bytes then. */
static size_t take_extents(const WeirKeeper *k, uint16_t disk, uint64_t epoch,
                           WeirExtent *extents, uint64_t *bytes)
{
    size_t n = 0;

    *bytes = k->applied_disks[disk].known ? k->applied_disks[disk].bytes : 0;
    for (size_t i = k->index.first; i < k->index.end &&
         k->index.epochs[i]->commit.epoch <= epoch; i++) {
        const WeirIndexEpoch *e = k->index.epochs[i];

        for (uint32_t j = 0; j < e->count; j++) {
            if (e->records[j].disk == disk) {
                n += weir_record_extent(&e->records[j], e->commit.epoch, bytes,
                                        &extents[n]);
            }
        }
    }
    return n;
}

static int check(WeirView *v, const char *disk, uint64_t epoch,
                 uint16_t *number, char *err, size_t err_size)
{
    WeirKeeper *k = v->keeper;

    if (!weir_keeper_is_point(k, epoch)) {
        weir_keeper_say(err, err_size, "epoch %llu is no point in time of this "
                        "log", (unsigned long long)epoch);
        return -ENOENT;
    }
    if (!find_disk(k, disk, number)) {
        weir_keeper_say(err, err_size, "the log has no disk '%s'", disk);
        return -ENOENT;
    }
    v->base = weir_keeper_base(k, &k->disks[*number].what);
    if (!v->base && k->sb.anchor.epoch > 0) {
        weir_keeper_say(err, err_size, "there is no base image for disk '%s', "
                        "and the log does not have all of it", disk);
        return -ENODEV;
    }
    return 0;
}

/* From then on it is in the list. extents: freed by the caller. */
static int begin(WeirView *v, const char *disk, uint64_t epoch,
                 WeirExtent **extents, size_t *n, char *err, size_t err_size)
{
    WeirKeeper *k = v->keeper;
    uint16_t number;
    int ret = check(v, disk, epoch, &number, err, err_size);

    if (ret < 0) {
        return ret;
    }
    *extents = malloc((count_records(k, number, epoch) + 1) *
                      sizeof(**extents));
    if (!*extents) {
        return -ENOMEM;
    }
    *n = take_extents(k, number, epoch, *extents, &v->bytes);
    v->point = weir_keeper_commit_of(k, epoch);
    v->next = k->views;
    k->views = v;
    k->view_count++;
    return 0;
}

int weir_view_open(WeirView **out, WeirKeeper *k, const char *disk,
                   uint64_t epoch, char *err, size_t err_size)
{
    WeirView *v = calloc(1, sizeof(*v));
    WeirExtent *extents = NULL;
    size_t n;
    int ret = -ENOMEM;

    *out = NULL;
    weir_keeper_say(err, err_size, "no memory to open a point in time");
    if (v) {
        v->keeper = k;
        weir_keeper_lock(k);
        ret = begin(v, disk, epoch, &extents, &n, err, err_size);
        weir_keeper_unlock(k);
    }
    if (ret < 0) {
        free(v);
        return ret;
    }
    ret = weir_map_build(&v->map, extents, n);
    free(extents);
    if (ret < 0) {
        weir_view_close(v);
        return ret;
    }
    *out = v;
    return 0;
}

void weir_view_close(WeirView *v)
{
    WeirKeeper *k = v->keeper;
    WeirView **link = &k->views;

    weir_keeper_lock(k);
    while (*link != v) {
        link = &(*link)->next;
    }
    *link = v->next;
    k->view_count--;
    weir_keeper_changed(k);
    weir_keeper_unlock(k);
    weir_map_destroy(&v->map);
    for (int i = 0; i < KEPT_RECORDS; i++) {
        free(v->kept[i].data);
    }
    free(v);
}

void weir_view_info(const WeirView *v, WeirViewInfo *info)
{
    *info = (WeirViewInfo) {
        .epoch = v->point.epoch, .wall_ns = v->point.wall_ns,
        .bytes = v->bytes,
        .memory_bytes = sizeof(*v) + v->map.count * sizeof(*v->map.extents),
        .base = v->base ? v->base->host : NULL,
    };
}

/* --- pieces --- */

/* What a range begins with. */
typedef struct Piece {
    WeirViewPiece kind;
    uint64_t bytes;
    const WeirExtent *extent;   /* WEIR_VIEW_DATA */
} Piece;

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Behind the end of the base there are zeroes. */
static Piece base_piece(const WeirView *v, uint64_t offset, uint64_t bytes)
{
    uint64_t end = v->base ? v->base->bytes : 0;

    return offset < end
           ? (Piece) { WEIR_VIEW_BASE, least(bytes, end - offset), NULL }
           : (Piece) { WEIR_VIEW_ZERO, bytes, NULL };
}

/* The lock is held: what is applied is in the base. */
static Piece find_piece(const WeirView *v, uint64_t offset, uint64_t bytes)
{
    size_t i = weir_map_find(&v->map, offset);
    const WeirExtent *e = i < v->map.count ? &v->map.extents[i] : NULL;

    if (!e || e->offset >= offset + bytes) {
        return base_piece(v, offset, bytes);
    }
    if (e->offset > offset) {
        return base_piece(v, offset, e->offset - offset);
    }
    bytes = least(bytes, e->offset + e->bytes - offset);
    return e->epoch <= v->keeper->applied ? base_piece(v, offset, bytes) :
           e->kind == WEIR_EXTENT_DATA
           ? (Piece) { WEIR_VIEW_DATA, bytes, e }
           : (Piece) { WEIR_VIEW_ZERO, bytes, NULL };
}

WeirViewPiece weir_view_status(WeirView *v, uint64_t offset, uint64_t bytes,
                               uint64_t *piece_bytes)
{
    Piece piece;

    weir_keeper_lock(v->keeper);
    piece = find_piece(v, offset, bytes);
    weir_keeper_unlock(v->keeper);
    *piece_bytes = piece.bytes;
    return piece.kind;
}

/* --- read --- */

static int fetch(WeirView *v, const WeirExtent *e, uint8_t *data)
{
    return weir_keeper_fetch(v->keeper, e->position, e->packed_sectors,
                             e->record_bytes, e->crc, data);
}

/* The record if it is kept, or the place to keep it; NULL: all are in use. */
static Kept *find_kept(WeirView *v, uint64_t position)
{
    Kept *place = NULL;

    for (int i = 0; i < KEPT_RECORDS; i++) {
        Kept *kept = &v->kept[i];

        if (kept->data && kept->position == position) {
            return kept;
        }
        if (kept->users == 0 && (!place || kept->used < place->used)) {
            place = kept;
        }
    }
    return place;
}

/* The lock is held. Yields. Returns 0 or an error: then nothing is kept. */
static int fill_kept(WeirView *v, Kept *kept, const WeirExtent *e)
{
    int ret;

    free(kept->data);
    kept->data = malloc(e->record_bytes);
    if (!kept->data) {
        return -ENOMEM;
    }
    kept->position = e->position;
    kept->reading = true;
    weir_keeper_unlock(v->keeper);
    ret = fetch(v, e, kept->data);
    weir_keeper_lock(v->keeper);
    kept->reading = false;
    if (ret < 0) {
        free(kept->data);
        kept->data = NULL;
    }
    weir_keeper_changed(v->keeper);
    return ret;
}

/* As fill_kept(). *out: has one more user. */
static int take_kept(WeirView *v, const WeirExtent *e, Kept **out)
{
    Kept *kept;
    int ret = 0;

    while ((kept = find_kept(v, e->position)) && kept->reading) {
        weir_keeper_wait(v->keeper, WEIR_TASKS_FOREVER);
    }
    *out = kept;
    if (!kept) {
        return 0;
    }
    kept->users++;
    kept->used = ++v->kept_serial;
    if (!kept->data || kept->position != e->position) {
        ret = fill_kept(v, kept, e);
    }
    kept->users -= ret < 0;
    return ret;
}

static void give_kept(WeirView *v, Kept *kept)
{
    weir_keeper_lock(v->keeper);
    kept->users--;
    weir_keeper_unlock(v->keeper);
}

/* Part of a record, of which all has to be read. */
static int read_part(WeirView *v, const WeirExtent *e, uint64_t at,
                     uint64_t bytes, uint8_t *buf)
{
    Kept *kept;
    uint8_t *data;
    int ret;

    weir_keeper_lock(v->keeper);
    ret = take_kept(v, e, &kept);
    weir_keeper_unlock(v->keeper);
    if (ret < 0) {
        return ret;
    }
    if (kept) {
        memcpy(buf, kept->data + at, bytes);
        give_kept(v, kept);
        return 0;
    }
    data = malloc(e->record_bytes);
    ret = data ? fetch(v, e, data) : -ENOMEM;
    if (ret == 0) {
        memcpy(buf, data + at, bytes);
    }
    free(data);
    return ret;
}

static int read_record(WeirView *v, const Piece *piece, uint64_t offset,
                       uint8_t *buf, char *err, size_t err_size)
{
    const WeirExtent *e = piece->extent;
    int ret = piece->bytes == e->record_bytes
              ? fetch(v, e, buf)
              : read_part(v, e, e->at + (offset - e->offset), piece->bytes,
                          buf);

    if (ret == -EBADMSG) {
        weir_keeper_say(err, err_size, "epoch %llu of the replication log is "
                        "damaged at %llu", (unsigned long long)e->epoch,
                        (unsigned long long)e->position);
    }
    return ret;
}

/* Reads what one range begins with. Returns its length, or an error. */
static int64_t read_piece(WeirView *v, uint64_t offset, uint64_t bytes,
                          uint8_t *buf, char *err, size_t err_size)
{
    WeirKeeper *k = v->keeper;
    LogRead hold;
    Piece piece;
    int ret = 0;

    weir_keeper_lock(k);
    piece = find_piece(v, offset, bytes);
    if (piece.kind == WEIR_VIEW_DATA) {
        weir_keeper_hold(k, &hold, piece.extent->position);
    }
    weir_keeper_unlock(k);
    if (piece.kind == WEIR_VIEW_ZERO) {
        memset(buf, 0, piece.bytes);
    } else if (piece.kind == WEIR_VIEW_BASE) {
        ret = k->host->read_base(v->base->host, offset, piece.bytes, buf);
    } else {
        ret = read_record(v, &piece, offset, buf, err, err_size);
        weir_keeper_lock(k);
        weir_keeper_release(k, &hold);
        weir_keeper_unlock(k);
    }
    return ret < 0 ? ret : (int64_t)piece.bytes;
}

int weir_view_read(WeirView *v, uint64_t offset, uint64_t bytes, void *buf,
                   char *err, size_t err_size)
{
    uint8_t *to = buf;

    while (bytes > 0) {
        int64_t done = read_piece(v, offset, bytes, to, err, err_size);

        if (done == -EBADMSG) {
            return -EIO;
        }
        if (done < 0) {
            weir_keeper_say(err, err_size, "a point in time cannot be read: %s",
                            strerror((int)-done));
            return (int)done;
        }
        offset += (uint64_t)done;
        bytes -= (uint64_t)done;
        to += done;
    }
    return 0;
}
