/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packets that are behind the last valid epoch: what of them goes to the index,
 * whether their disks and ranges fit, and when they make an epoch.
 */
#include "replication/keeper-int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- a packet --- */

void weir_arrived_free(Arrived *a)
{
    if (a) {
        free(a->records);
        free(a->disk);
        free(a->names);
        free(a);
    }
}

static uint64_t memory_of(const Arrived *a)
{
    return sizeof(*a) + a->count * sizeof(*a->records) +
           a->disks * sizeof(*a->disk) + a->names_bytes;
}

/* How much of what there is in a packet. */
static void count(const WeirLogPacket *p, const uint8_t *head, Arrived *a)
{
    for (uint32_t i = 0; i < p->records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, head, i);
        a->count += !weir_log_is_remark(r.op);
        a->of_keeper |= weir_log_is_keepers(r.op);
        a->disks += r.op == WEIR_LOG_DISK;
        a->names_bytes += r.op == WEIR_LOG_MARK ? (uint32_t)r.bytes + 1 : 0;
    }
}

static void take_mark(Arrived *a, const uint8_t *data, uint64_t bytes,
                      uint32_t *at)
{
    size_t length = strnlen((const char *)data, bytes);

    memcpy(a->names + *at, data, length);
    a->names[*at + length] = 0;
    *at += (uint32_t)length + 1;
    a->marks++;
}

static void take_records(Arrived *a, const uint8_t *head, const uint8_t *data)
{
    const WeirLogPacket *p = &a->packet;
    uint64_t position = p->position + p->head_bytes;
    uint32_t disks = 0, names = 0, n = 0;

    for (uint32_t i = 0; i < p->records; i++) {
        WeirLogRecord r;
        uint64_t room;

        weir_log_record_read(&r, head, i);
        room = weir_log_data_room(weir_log_data_bytes(&r));
        if (r.op == WEIR_LOG_MARK) {
            take_mark(a, data, r.bytes, &names);
        } else if (!weir_log_is_remark(r.op)) {
            if (r.op == WEIR_LOG_DISK) {
                a->disk[disks].record = n;
                weir_log_disk_read(&a->disk[disks++].what, data);
            }
            a->records[n++] = weir_index_record(&r, position);
        }
        position += room;
        data += room;
    }
    a->names_bytes = names;
}

Arrived *weir_arrived_new(const WeirLogPacket *p, const uint8_t *head,
                          const uint8_t *data)
{
    Arrived *a = calloc(1, sizeof(*a));

    if (!a) {
        return NULL;
    }
    a->packet = *p;
    count(p, head, a);
    a->records = calloc(a->count + 1, sizeof(*a->records));
    a->disk = calloc(a->disks + 1, sizeof(*a->disk));
    a->names = calloc(1, a->names_bytes + 1);
    if (!a->records || !a->disk || !a->names) {
        weir_arrived_free(a);
        return NULL;
    }
    take_records(a, head, data);
    return a;
}

/* --- disks and ranges --- */

static int check_disk(KnownDisk *known, const WeirIndexRecord *r,
                      const WeirLogDisk *what, char *err, size_t err_size)
{
    if (known->known &&
        memcmp(&known->what, what, sizeof(*what)) && !WITHOUT_RULE(13)) {
        weir_keeper_say(err, err_size, "disk %u is '%s' with another identity "
                        "or name, not '%s' as before", r->disk, what->name,
                        known->what.name);
        return -EINVAL;
    }
    if (known->known && known->bytes != r->bytes && !WITHOUT_RULE(14)) {
        weir_keeper_say(err, err_size, "disk '%s' has %llu bytes, not %llu as "
                        "before", what->name, (unsigned long long)r->bytes,
                        (unsigned long long)known->bytes);
        return -EINVAL;
    }
    *known = (KnownDisk) { true, *what, r->bytes };
    return 0;
}

/* No two numbers have the same disk. */
static int check_unique(const KnownDisk *disks, uint16_t number, char *err,
                        size_t err_size)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        if (i != number && disks[i].known &&
            (!strcmp(disks[i].what.name, disks[number].what.name) ||
             !memcmp(disks[i].what.uuid, disks[number].what.uuid,
                     WEIR_LOG_UUID_BYTES))) {
            weir_keeper_say(err, err_size, "disks %u and %u are both '%s', or "
                            "have the same identity", i, number,
                            disks[number].what.name);
            return -EINVAL;
        }
    }
    return 0;
}

static int check_range(KnownDisk *known, const WeirIndexRecord *r, char *err,
                       size_t err_size)
{
    if (!known->known) {
        weir_keeper_say(err, err_size, "nothing tells what disk %u is",
                        r->disk);
        return -EINVAL;
    }
    if (r->op == WEIR_LOG_RESIZE) {
        known->bytes = r->bytes;
        return 0;
    }
    if (r->offset > known->bytes || r->bytes > known->bytes - r->offset) {
        weir_keeper_say(err, err_size, "disk '%s' has %llu bytes, not %llu",
                        known->what.name, (unsigned long long)known->bytes,
                        (unsigned long long)(r->offset + r->bytes));
        return -EINVAL;
    }
    return 0;
}

int weir_keeper_check_records(const KnownDisk *disks, const Arrived *a,
                              char *err, size_t err_size)
{
    KnownDisk then[WEIR_LOG_DISKS_MAX];
    uint32_t disk = 0;
    int ret = 0;

    memcpy(then, disks, sizeof(then));
    for (uint32_t i = 0; i < a->count && ret == 0; i++) {
        const WeirIndexRecord *r = &a->records[i];

        if (r->op == WEIR_LOG_DISK) {
            ret = check_disk(&then[r->disk], r, &a->disk[disk++].what, err,
                             err_size);
            ret = ret < 0 ? ret : check_unique(then, r->disk, err, err_size);
        } else {
            ret = check_range(&then[r->disk], r, err, err_size);
        }
    }
    return ret;
}

void weir_keeper_follow(KnownDisk *disks, const Arrived *a)
{
    uint32_t disk = 0;

    for (uint32_t i = 0; i < a->count; i++) {
        const WeirIndexRecord *r = &a->records[i];

        if (r->op == WEIR_LOG_DISK) {
            disks[r->disk] = (KnownDisk) { true, a->disk[disk++].what,
                                           r->bytes };
        } else if (r->op == WEIR_LOG_RESIZE) {
            disks[r->disk].bytes = r->bytes;
        }
    }
}

/* --- the list --- */

static uint64_t end_of(const Arrived *a)
{
    return a->packet.position + weir_log_packet_bytes(&a->packet);
}

bool weir_keeper_insert(WeirKeeper *k, Arrived *a)
{
    Arrived **link = &k->arrived;

    while (*link && (*link)->packet.position < a->packet.position) {
        if (end_of(*link) > a->packet.position) {
            return false;
        }
        link = &(*link)->next;
    }
    if (*link && end_of(a) > (*link)->packet.position) {
        return false;
    }
    a->next = *link;
    *link = a;
    k->arrived_count++;
    k->arrived_bytes += memory_of(a);
    return true;
}

/* Out of the list. */
static void leave(WeirKeeper *k, Arrived **link)
{
    Arrived *a = *link;

    *link = a->next;
    k->arrived_count--;
    k->arrived_bytes -= memory_of(a);
    a->next = NULL;
}

static void drop_all(WeirKeeper *k)
{
    while (k->arrived) {
        Arrived *a = k->arrived;

        leave(k, &k->arrived);
        if (a->written) {
            weir_arrived_free(a);
        } else {
            a->dropped = true;
        }
    }
}

/* --- epochs --- */

/* The packet that ends the first epoch of the list, if all are written. */
static Arrived *whole_epoch(const WeirKeeper *k)
{
    for (Arrived *a = k->arrived;
         a && a->taken && a->written; a = a->next) {
        if (a->packet.commit) {
            return a;
        }
    }
    return NULL;
}

/* A disk that is there already needs no record. */
static bool is_needed(const WeirKeeper *k, const WeirIndexRecord *r)
{
    return r->op != WEIR_LOG_DISK || !k->disks[r->disk].known;
}

/* What an epoch takes. */
typedef struct Needs {
    uint32_t records, lengths, names_bytes;
} Needs;

static bool sets_length(const WeirIndexRecord *r)
{
    return r->op == WEIR_LOG_DISK || r->op == WEIR_LOG_RESIZE;
}

static Needs needs(const WeirKeeper *k, const Arrived *last)
{
    Needs n = { 0 };

    for (const Arrived *a = k->arrived; a != last->next; a = a->next) {
        for (uint32_t i = 0; i < a->count; i++) {
            if (is_needed(k, &a->records[i])) {
                n.records++;
                n.lengths += sets_length(&a->records[i]);
            }
        }
        n.names_bytes += a->names_bytes;
    }
    return n;
}

static int new_epoch(WeirIndexEpoch *e, const Arrived *last, const Needs *n)
{
    *e = (WeirIndexEpoch) {
        .commit = last->commit, .names_bytes = n->names_bytes,
        .consistent = last->packet.consistent,
        .application_consistent = last->packet.application_consistent,
        .records = malloc((n->records + 1) * sizeof(*e->records)),
        .names = n->names_bytes > 0 ? malloc(n->names_bytes) : NULL,
    };
    if (!e->records || (n->names_bytes > 0 && !e->names)) {
        free(e->records);
        free(e->names);
        return -ENOMEM;
    }
    return 0;
}

static void add_record(WeirKeeper *k, WeirIndexEpoch *e,
                       const WeirIndexRecord *r)
{
    if (is_needed(k, r)) {
        e->records[e->count++] = *r;
        if (sets_length(r)) {
            weir_index_add_length(&k->index, &(WeirLength) {
                e->commit.epoch, r->bytes, r->disk });
        }
    }
    if (r->op == WEIR_LOG_WRITE) {
        e->data_bytes += r->bytes;
    }
}

static void fill_epoch(WeirKeeper *k, WeirIndexEpoch *e, const Arrived *last)
{
    uint32_t names = 0;

    for (const Arrived *a = k->arrived; a != last->next; a = a->next) {
        for (uint32_t i = 0; i < a->count; i++) {
            add_record(k, e, &a->records[i]);
        }
        if (a->names_bytes > 0) {
            memcpy(e->names + names, a->names, a->names_bytes);
        }
        names += a->names_bytes;
        e->marks += a->marks;
        weir_keeper_follow(k->disks, a);
    }
}

static int take_epoch(WeirKeeper *k, Arrived *last)
{
    Needs n = needs(k, last);
    WeirIndexEpoch e;
    bool more = true;

    if (weir_index_reserve(&k->index, n.lengths) < 0 ||
        new_epoch(&e, last, &n) < 0) {
        return -ENOMEM;
    }
    fill_epoch(k, &e, last);
    weir_index_add(&k->index, &e);
    k->valid = e.commit;
    while (more) {
        Arrived *a = k->arrived;

        more = a != last;
        leave(k, &k->arrived);
        weir_arrived_free(a);
    }
    return 0;
}

int weir_keeper_advance(WeirKeeper *k)
{
    Arrived *last;
    int ret = 0;

    while (ret == 0 && (last = whole_epoch(k))) {
        ret = take_epoch(k, last);
    }
    return ret;
}

/* --- what does not count any more --- */

void weir_keeper_end_session(WeirKeeper *k)
{
    if (k->session_alive) {
        k->ended[k->ended_count++ % SESSIONS_REMEMBERED] = k->session;
    }
    k->session_alive = false;
    drop_all(k);
    weir_log_cursor_init(&k->cursor, &k->sb, &k->valid);
    memcpy(k->arriving, k->disks, sizeof(k->arriving));
    weir_keeper_changed(k);
}

/* The disks as they are after the last epoch of the index. */
static void find_disks(WeirKeeper *k)
{
    for (uint16_t i = 0; i < WEIR_LOG_DISKS_MAX; i++) {
        KnownDisk *disk = &k->disks[i];

        disk->bytes = k->applied_disks[i].known ? k->applied_disks[i].bytes : 0;
        disk->known = weir_index_length(&k->index, i, UINT64_MAX,
                                        &disk->bytes) ||
                      k->applied_disks[i].known;
    }
}

void weir_keeper_truncate(WeirKeeper *k, const WeirLogCommit *end)
{
    if (end->epoch < k->valid.epoch) {
        k->era++;
        if (k->session_alive && !WITHOUT_RULE(15)) {
            k->loss = LOSS_UNTOLD;
        }
        weir_keeper_drop_chapters_behind(k, end);
        weir_index_drop_behind(&k->index, end->epoch);
        k->valid = *end;
        find_disks(k);
    }
    if (k->durable.epoch > end->epoch) {
        k->durable = *end;
    }
    weir_keeper_end_session(k);
}
