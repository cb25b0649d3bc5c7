/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a disk has at the point:
 *
 *   records in memory when it was opened -> map
 *   else chapters, newest first, by windows of 64 KiB that are kept for a while
 *   else, and for all that has been applied meanwhile, the base
 *
 * So a view keeps the keeper from applying what is behind its point, and
 * nothing else.
 */
#include "replication/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "replication/keeper-int.h"

#define WINDOW_BYTES WEIR_CHAPTER_GRANULE_BYTES
#define WINDOWS 256
#define SECTOR_BYTES 512
#define WINDOW_SECTORS (WINDOW_BYTES / SECTOR_BYTES)

/* What chapters have of a part of the disk. */
typedef struct Window {
    bool valid;
    uint64_t number;
    WeirMap map;                /* what is outside of the part does not count */
} Window;

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
    WeirKeeper *keeper;         /* set at open, as all up to next */
    Base *base;                 /* NULL: none */
    WeirLogCommit point;
    uint16_t disk;
    uint64_t bytes;             /* of the disk */
    WeirMap map;
    Chapter **chapters;         /* oldest first, each with a reference */
    size_t chapter_count;
    WeirView *next;             /* keeper's lock, as for all that follows */
    Window windows[WINDOWS];
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

static size_t count_records(const WeirKeeper *k, uint64_t epoch)
{
    size_t n = 0;

    for (uint64_t i = weir_keeper_unsealed(k); i <= epoch; i++) {
        n += weir_index_get(&k->index, i)->count;
    }
    return n;
}

/*
 * The position of a record tells if it has been applied: the same or less than
 * where the last epoch ends that was.
 */
static bool take_extent(const WeirIndexRecord *r, uint64_t *bytes,
                        WeirExtent *extent)
{
    return weir_record_extent(r, r->position, bytes, extent);
}

/* The records of a disk up to the point that are in no chapter. */
static size_t take_extents(const WeirView *v, WeirExtent *extents)
{
    const WeirKeeper *k = v->keeper;
    uint64_t bytes = 0;
    size_t n = 0;

    if (k->applied_disks[v->disk].known) {
        bytes = k->applied_disks[v->disk].bytes;
    }
    weir_index_length(&k->index, v->disk, weir_keeper_unsealed(k) - 1, &bytes);
    for (uint64_t i = weir_keeper_unsealed(k); i <= v->point.epoch; i++) {
        const WeirIndexEpoch *e = weir_index_get(&k->index, i);

        for (uint32_t j = 0; j < e->count; j++) {
            if (e->records[j].disk == v->disk) {
                n += take_extent(&e->records[j], &bytes, &extents[n]);
            }
        }
    }
    return n;
}

/* Those with records up to the point. */
static int take_chapters(WeirView *v)
{
    const WeirKeeper *k = v->keeper;

    v->chapters = malloc((k->chapter_count + 1) * sizeof(*v->chapters));
    if (!v->chapters) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < k->chapter_count; i++) {
        Chapter *c = k->chapters[i];

        if (c->first <= v->point.epoch && c->records > 0) {
            c->refs++;
            v->chapters[v->chapter_count++] = c;
        }
    }
    return 0;
}

static void find_length(WeirView *v)
{
    const WeirKeeper *k = v->keeper;
    const KnownDisk *disk = &k->applied_disks[v->disk];

    v->bytes = disk->known ? disk->bytes : 0;
    weir_index_length(&k->index, v->disk, v->point.epoch, &v->bytes);
}

static int check(WeirView *v, const char *disk, uint64_t epoch, char *err,
                 size_t err_size)
{
    WeirKeeper *k = v->keeper;

    if (!weir_keeper_is_point(k, epoch)) {
        weir_keeper_say(err, err_size, "epoch %llu is no point in time of this "
                        "log", (unsigned long long)epoch);
        return -ENOENT;
    }
    if (!find_disk(k, disk, &v->disk)) {
        weir_keeper_say(err, err_size, "the log has no disk '%s'", disk);
        return -ENOENT;
    }
    v->base = weir_keeper_base(k, &k->disks[v->disk].what);
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
    int ret = check(v, disk, epoch, err, err_size);

    if (ret < 0) {
        return ret;
    }
    v->point = weir_keeper_commit_of(k, epoch);
    *extents = malloc((count_records(k, epoch) + 1) * sizeof(**extents));
    if (!*extents || take_chapters(v) < 0) {
        return -ENOMEM;
    }
    find_length(v);
    *n = take_extents(v, *extents);
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
        free(extents);
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
    for (size_t i = 0; i < v->chapter_count; i++) {
        weir_chapter_unref(k, v->chapters[i]);
    }
    weir_keeper_changed(k);
    weir_keeper_unlock(k);
    for (int i = 0; i < WINDOWS; i++) {
        weir_map_destroy(&v->windows[i].map);
    }
    weir_map_destroy(&v->map);
    for (int i = 0; i < KEPT_RECORDS; i++) {
        free(v->kept[i].data);
    }
    free(v->chapters);
    free(v);
}

void weir_view_info(const WeirView *v, WeirViewInfo *info)
{
    *info = (WeirViewInfo) {
        .epoch = v->point.epoch, .wall_ns = v->point.wall_ns,
        .bytes = v->bytes,
        .memory_bytes = sizeof(*v) + v->map.count * sizeof(*v->map.extents) +
                        v->chapter_count * sizeof(Chapter *),
        .base = v->base ? v->base->host : NULL,
    };
}

/* --- windows --- */

/* An extent of a chapter, until all of a window are there. */
typedef struct Found {
    WeirExtent extent;
    size_t chapter;
    uint32_t order;
} Found;

typedef struct Search {
    WeirView *v;
    uint64_t from, to;          /* of the window */
    Found *found;
    size_t count, room;
    bool covered[WINDOW_SECTORS];       /* by something newer */
    uint32_t covered_count;
} Search;

static void cover(Search *s, const WeirExtent *e)
{
    uint64_t end = e->offset + e->bytes;
    uint64_t first = e->offset <= s->from ? 0
                     : (e->offset - s->from + SECTOR_BYTES - 1) / SECTOR_BYTES;
    uint64_t last = end >= s->to ? WINDOW_SECTORS
                                 : (end - s->from) / SECTOR_BYTES;

    for (uint64_t i = first; i < last; i++) {
        s->covered_count += !s->covered[i];
        s->covered[i] = true;
    }
}

static int add_found(Search *s, size_t chapter, const WeirChapterRecord *r)
{
    bool data = r->record.op == WEIR_LOG_WRITE;

    if (s->count == s->room) {
        size_t room = s->room ? s->room * 2 : 64;
        Found *more = realloc(s->found, room * sizeof(*more));

        if (!more) {
            return -ENOMEM;
        }
        s->found = more;
        s->room = room;
    }
    s->found[s->count++] = (Found) {
        .extent = {
            .offset = r->from, .bytes = r->bytes, .epoch = r->record.position,
            .position = data ? r->record.position : 0,
            .record_bytes = data ? (uint32_t)r->bytes : 0,
            .packed_sectors = r->record.packed_sectors,
            .crc = data ? r->record.crc : 0,
            .kind = data ? WEIR_EXTENT_DATA :
                    r->record.op == WEIR_LOG_DISCARD ? WEIR_EXTENT_DISCARD
                                                     : WEIR_EXTENT_ZERO,
        },
        .chapter = chapter, .order = r->order,
    };
    cover(s, &s->found[s->count - 1].extent);
    return 0;
}

/* What is applied already is in the base. */
static bool is_dropped(WeirView *v, size_t chapter, uint64_t *end)
{
    bool so;

    weir_keeper_lock(v->keeper);
    so = v->chapters[chapter]->dropped;
    *end = v->chapters[chapter]->end;
    weir_keeper_unlock(v->keeper);
    *end = *end < v->point.end ? *end : v->point.end;
    return so;
}

static int search_chapter(Search *s, size_t chapter)
{
    WeirView *v = s->v;
    Recalled recalled = { 0 };
    uint64_t end;
    int ret = 0;

    if (!is_dropped(v, chapter, &end)) {
        ret = weir_keeper_recall(v->keeper, v->chapters[chapter], v->disk,
                                 s->from, s->to, &recalled);
    }
    for (size_t i = 0; i < recalled.count && ret == 0; i++) {
        if (recalled.records[i].record.position <= end) {
            ret = add_found(s, chapter, &recalled.records[i]);
        }
    }
    free(recalled.records);
    return ret == -ESTALE ? 0 : ret;
}

static int compare_found(const void *a, const void *b)
{
    const Found *x = a, *y = b;

    return x->chapter != y->chapter ? (x->chapter < y->chapter ? -1 : 1)
                                    : (x->order < y->order ? -1 : 1);
}

static int build_window(Search *s, WeirMap *map)
{
    WeirExtent *extents = malloc((s->count + 1) * sizeof(*extents));
    int ret;

    if (!extents) {
        return -ENOMEM;
    }
    if (s->count > 0) {
        qsort(s->found, s->count, sizeof(*s->found), compare_found);
    }
    for (size_t i = 0; i < s->count; i++) {
        extents[i] = s->found[i].extent;
    }
    ret = weir_map_build(map, extents, s->count);
    free(extents);
    return ret;
}

/* Yields. */
static int search_window(WeirView *v, uint64_t number, WeirMap *map)
{
    Search *s = calloc(1, sizeof(*s));
    int ret = 0;

    if (!s) {
        return -ENOMEM;
    }
    s->v = v;
    s->from = number * WINDOW_BYTES;
    s->to = s->from + WINDOW_BYTES;
    for (size_t i = v->chapter_count; i > 0 && ret == 0 &&
         s->covered_count < WINDOW_SECTORS; i--) {
        ret = search_chapter(s, i - 1);
    }
    ret = ret < 0 ? ret : build_window(s, map);
    free(s->found);
    free(s);
    return ret;
}

static Window *find_window(WeirView *v, uint64_t number)
{
    Window *w = &v->windows[number % WINDOWS];

    return w->valid && w->number == number ? w : NULL;
}

/* The lock is held; it is released while it yields. */
static int load_window(WeirView *v, uint64_t number)
{
    Window *w = &v->windows[number % WINDOWS];
    WeirMap map;
    int ret;

    weir_keeper_unlock(v->keeper);
    ret = search_window(v, number, &map);
    weir_keeper_lock(v->keeper);
    if (ret == 0) {
        weir_map_destroy(&w->map);
        *w = (Window) { .valid = true, .number = number, .map = map };
    }
    return ret;
}

/* --- pieces --- */

/* What a range begins with. */
typedef struct Piece {
    WeirViewPiece kind;
    uint64_t bytes;
    WeirExtent extent;          /* WEIR_VIEW_DATA */
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
           ? (Piece) { .kind = WEIR_VIEW_BASE,
                       .bytes = least(bytes, end - offset) }
           : (Piece) { .kind = WEIR_VIEW_ZERO, .bytes = bytes };
}

/* What a map has there; NULL: nothing, for *bytes. */
static const WeirExtent *look_up(const WeirMap *map, uint64_t offset,
                                 uint64_t *bytes)
{
    size_t i = weir_map_find(map, offset);
    const WeirExtent *e = i < map->count ? &map->extents[i] : NULL;

    if (!e || e->offset >= offset + *bytes) {
        return NULL;
    }
    if (e->offset > offset) {
        *bytes = e->offset - offset;
        return NULL;
    }
    *bytes = least(*bytes, e->offset + e->bytes - offset);
    return e;
}

/* What is applied is in the base. */
static Piece piece_of(const WeirView *v, const WeirExtent *e, uint64_t offset,
                      uint64_t bytes)
{
    return !e || e->epoch <= v->keeper->applied_end
           ? base_piece(v, offset, bytes) :
           e->kind == WEIR_EXTENT_DATA
           ? (Piece) { WEIR_VIEW_DATA, bytes, *e }
           : (Piece) { .kind = WEIR_VIEW_ZERO, .bytes = bytes };
}

/* The lock is held; it may be released, and yield. 0 or -errno. */
static int find_one(WeirView *v, uint64_t offset, uint64_t bytes, Piece *piece)
{
    const WeirExtent *e = look_up(&v->map, offset, &bytes);
    uint64_t number = offset / WINDOW_BYTES;
    Window *w;

    if (e || v->chapter_count == 0) {
        *piece = piece_of(v, e, offset, bytes);
        return 0;
    }
    while (!(w = find_window(v, number))) {
        int ret = load_window(v, number);

        if (ret < 0) {
            return ret;
        }
    }
    bytes = least(bytes, (number + 1) * WINDOW_BYTES - offset);
    e = look_up(&w->map, offset, &bytes);
    *piece = piece_of(v, e, offset, bytes);
    return 0;
}

/* All that is the same, without what can be told only by reading more. */
static int find_piece(WeirView *v, uint64_t offset, uint64_t bytes,
                      Piece *piece)
{
    int ret = find_one(v, offset, bytes, piece);

    while (ret == 0 && piece->kind != WEIR_VIEW_DATA && piece->bytes < bytes) {
        uint64_t at = offset + piece->bytes;
        Piece next;

        /* an error is for who begins there */
        if (find_one(v, at, bytes - piece->bytes, &next) < 0 ||
            next.kind != piece->kind) {
            break;
        }
        piece->bytes += next.bytes;
    }
    return ret;
}

int weir_view_status(WeirView *v, uint64_t offset, uint64_t bytes,
                     WeirViewPiece *kind, uint64_t *piece_bytes)
{
    Piece piece;
    int ret;

    weir_keeper_lock(v->keeper);
    ret = find_piece(v, offset, bytes, &piece);
    weir_keeper_unlock(v->keeper);
    if (ret < 0) {
        return ret == -EBADMSG ? -EIO : ret;
    }
    *kind = piece.kind;
    *piece_bytes = piece.bytes;
    return 0;
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
    const WeirExtent *e = &piece->extent;
    int ret = piece->bytes == e->record_bytes
              ? fetch(v, e, buf)
              : read_part(v, e, e->at + (offset - e->offset), piece->bytes,
                          buf);

    if (ret == -EBADMSG) {
        weir_keeper_say(err, err_size, "the replication log is damaged at %llu",
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
    ret = find_piece(v, offset, bytes, &piece);
    if (ret == 0 && piece.kind == WEIR_VIEW_DATA) {
        weir_keeper_hold(k, &hold, piece.extent.position);
    }
    weir_keeper_unlock(k);
    if (ret == -EBADMSG) {
        weir_keeper_say(err, err_size, "the replication log is damaged, and "
                        "its index too");
    }
    if (ret < 0) {
        return ret;
    }
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
