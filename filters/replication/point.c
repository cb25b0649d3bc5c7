/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/point.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "replication/keeper-int.h"

#define NS_PER_S UINT64_C(1000000000)

/* --- names --- */

static const char *behind(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(text, prefix, length) ? NULL : text + length;
}

static bool parse_epoch(WeirPointName *name, const char *text)
{
    char *end;

    name->kind = WEIR_POINT_EPOCH;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    name->epoch = strtoull(text, &end, 10);
    return errno == 0 && *end == 0;
}

/* ".5" and the like. Returns what is behind it. */
static const char *parse_fraction(const char *text, uint64_t *ns)
{
    uint64_t unit = NS_PER_S / 10;

    *ns = 0;
    if (*text != '.') {
        return text;
    }
    for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10) {
        *ns += (uint64_t)(*text - '0') * unit;
    }
    return text;
}

static bool parse_time(WeirPointName *name, const char *text)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd";
    struct tm tm = { 0 };
    uint64_t ns;
    int64_t s;

    name->kind = WEIR_POINT_TIME;
    for (size_t i = 0; i < sizeof(shape) - 1; i++) {
        if (shape[i] == 'd' ? text[i] < '0' || text[i] > '9'
                            : text[i] != shape[i]) {
            return false;
        }
    }
    if (sscanf(text, "%d-%d-%dT%d:%d:%d", &tm.tm_year, &tm.tm_mon,
               &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6 ||
        strcmp(parse_fraction(text + sizeof(shape) - 1, &ns), "Z") ||
        tm.tm_year < 1970 || tm.tm_year > 2500 || tm.tm_mon < 1 ||
        tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
        tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60) {
        return false;
    }
    tm.tm_year -= 1900;
    tm.tm_mon--;
    s = timegm(&tm);
    name->wall_ns = (uint64_t)s * NS_PER_S + ns;
    return s >= 0;
}

static bool parse_mark(WeirPointName *name, const char *text)
{
    size_t length = strlen(text);

    name->kind = WEIR_POINT_MARK;
    if (length == 0 || length > WEIR_LOG_MARK_BYTES_MAX) {
        return false;
    }
    memcpy(name->mark, text, length + 1);
    return true;
}

int weir_point_parse(WeirPointName *name, const char *text, char *err,
                     size_t err_size)
{
    const char *value;
    bool ok = false;

    memset(name, 0, sizeof(*name));
    if (!strcmp(text, "latest")) {
        name->kind = WEIR_POINT_LATEST;
        ok = true;
    } else if ((value = behind(text, "epoch:"))) {
        ok = parse_epoch(name, value);
    } else if ((value = behind(text, "time:"))) {
        ok = parse_time(name, value);
    } else if ((value = behind(text, "mark:"))) {
        ok = parse_mark(name, value);
    }
    if (!ok) {
        weir_keeper_say(err, err_size, "'%.60s' is no point in time: it is "
                        "'latest', 'epoch:' and a number, 'time:' and a time "
                        "like 2026-11-25T12:00:00Z, or 'mark:' and a name of "
                        "up to %d bytes", text, WEIR_LOG_MARK_BYTES_MAX);
        return -EINVAL;
    }
    return 0;
}

/* --- points --- */

static WeirPointInfo info_of(const WeirKeeper *k, uint64_t epoch)
{
    const WeirIndexEpoch *e = weir_index_get(&k->index, epoch);

    return e ? (WeirPointInfo) { epoch, e->commit.wall_ns,
                                 e->application_consistent, e->marks }
             : (WeirPointInfo) { epoch, k->sb.anchor.wall_ns,
                                 k->sb.application_consistent, 0 };
}

/* The newest one before a number; 0: there is none. */
static uint64_t point_before(WeirKeeper *k, uint64_t number)
{
    uint64_t last = k->durable.epoch;

    number = number > last ? last + 1 : number;
    while (number > 1 && number > k->horizon) {
        number--;
        if (weir_keeper_is_point(k, number)) {
            return number;
        }
    }
    return 0;
}

static bool has_mark(const WeirKeeper *k, uint64_t epoch, const char *mark)
{
    const WeirIndexEpoch *e = weir_index_get(&k->index, epoch);
    const char *at = e ? e->names : NULL;

    for (uint32_t i = 0; e && i < e->marks; i++, at += strlen(at) + 1) {
        if (!strcmp(at, mark)) {
            return true;
        }
    }
    return false;
}

static bool is_meant(const WeirKeeper *k, const WeirPointName *name,
                     uint64_t epoch)
{
    switch (name->kind) {
    case WEIR_POINT_EPOCH:
        return epoch == name->epoch;
    case WEIR_POINT_TIME:
        return info_of(k, epoch).wall_ns <= name->wall_ns;
    case WEIR_POINT_MARK:
        return has_mark(k, epoch, name->mark);
    default:
        return true;
    }
}

static int no_point(const WeirPointName *name, char *err, size_t err_size)
{
    switch (name->kind) {
    case WEIR_POINT_EPOCH:
        weir_keeper_say(err, err_size, "epoch %" PRIu64 " is no point in time "
                        "of this log", name->epoch);
        break;
    case WEIR_POINT_TIME:
        weir_keeper_say(err, err_size, "the log has no point in time that is "
                        "so old");
        break;
    case WEIR_POINT_MARK:
        weir_keeper_say(err, err_size, "the log has no point in time with the "
                        "mark '%s'", name->mark);
        break;
    default:
        weir_keeper_say(err, err_size, "the log has no point in time yet");
        break;
    }
    return -ENOENT;
}

int weir_point_find(WeirKeeper *k, const WeirPointName *name,
                    WeirPointInfo *info, char *err, size_t err_size)
{
    uint64_t epoch;

    weir_keeper_lock(k);
    epoch = name->kind == WEIR_POINT_EPOCH && name->epoch < UINT64_MAX
            ? point_before(k, name->epoch + 1)
            : point_before(k, UINT64_MAX);
    while (epoch > 0 && !is_meant(k, name, epoch)) {
        epoch = name->kind == WEIR_POINT_EPOCH ? 0 : point_before(k, epoch);
    }
    if (epoch > 0) {
        *info = info_of(k, epoch);
    }
    weir_keeper_unlock(k);
    return epoch > 0 ? 0 : no_point(name, err, err_size);
}

/* --- listing --- */

/* Returns false when fn does. */
static bool tell(const WeirKeeper *k, uint64_t epoch, WeirPointFn fn,
                 void *opaque)
{
    const WeirIndexEpoch *e = weir_index_get(&k->index, epoch);
    WeirPointInfo info = info_of(k, epoch);
    const char **marks = calloc(info.marks + 1, sizeof(*marks));
    const char *at = e ? e->names : NULL;
    bool more;

    if (!marks) {
        info.marks = 0;
    }
    for (uint32_t i = 0; i < info.marks; i++, at += strlen(at) + 1) {
        marks[i] = at;
    }
    more = fn(opaque, &info, marks);
    free(marks);
    return more;
}

void weir_point_list(WeirKeeper *k, uint64_t before, bool marked,
                     WeirPointFn fn, void *opaque)
{
    uint64_t epoch;

    weir_keeper_lock(k);
    for (epoch = point_before(k, before); epoch > 0;
         epoch = point_before(k, epoch)) {
        if ((!marked || info_of(k, epoch).marks > 0) &&
            !tell(k, epoch, fn, opaque)) {
            break;
        }
    }
    weir_keeper_unlock(k);
}
