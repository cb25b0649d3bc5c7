/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/job-int.h"
#include "encryption/json.h"

#define REQUIREMENT "online-reencrypt-v2"
#define FLAG_BEFORE "backup-previous"
#define FLAG_AFTER "backup-final"
#define FLAG_MOVED "backup-moved-segment"
#define FLAG_HOT "in-reencryption"
#define CIPHER "aes-xts-plain64"
#define UNIT_BYTES 512
#define SEGMENTS_MAX 3
#define KEYSLOTS_MAX 32
#define DIGESTS_MAX 8
#define LOWER_CASE "abcdefghijklmnopqrstuvwxyz-"
/* End of what a header can have: 2 x 4 MiB of metadata, 128 MiB of areas. */
#define AREA_END_MAX (136 * 1024 * 1024)
/* By the estimate of WeirHeaderLimits, 10 s; cryptsetup takes 1/8 s. */
#define DIGEST_ITERATIONS_MAX 10000000
#define SHIFT_SEGMENTS_MAX 4
#define SECTOR_BYTES_MAX 4096

/* LUKS2 has numbers of 64 bits as strings. */
static bool get_u64(json_object *object, const char *name, uint64_t *out)
{
    return json_object_is_type(weir_json_member(object, name),
                               json_type_string) &&
           weir_json_u64(object, name, out);
}

static void put_u64(json_object *object, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    json_object_object_add(object, name, json_object_new_string(text));
}

static void array_remove(json_object *array, const char *text)
{
    size_t n = json_object_is_type(array, json_type_array)
               ? json_object_array_length(array) : 0;

    while (n-- > 0) {
        json_object *value = json_object_array_get_idx(array, n);

        if (json_object_is_type(value, json_type_string) &&
            !strcmp(json_object_get_string(value), text)) {
            json_object_array_del_idx(array, n, 1);
        }
    }
}

/* The segment with a flag, and its number. */
static json_object *find_flagged(json_object *segments, const char *flag,
                                 const char **id)
{
    for (struct lh_entry *e = weir_json_first(segments); e; e = e->next) {
        json_object *segment = (json_object *)lh_entry_v(e);

        if (weir_json_has(weir_json_member(segment, "flags"), flag)) {
            *id = lh_entry_k(e);
            return segment;
        }
    }
    return NULL;
}

/* Number of the digest that is for a segment or keyslot, or -1. */
static int digest_of(WeirJob *job, const char *list, const char *id)
{
    json_object *digests = weir_json_member(job->root, "digests");

    for (int i = 0; i < DIGESTS_MAX; i++) {
        json_object *digest = weir_json_numbered(digests, i);

        if (weir_json_has(weir_json_member(digest, list), id)) {
            return i;
        }
    }
    return -1;
}

static json_object *digest_at(WeirJob *job, int id)
{
    return weir_json_numbered(weir_json_member(job->root, "digests"), id);
}

/* --- segments --- */

static void remove_flags(json_object *segment)
{
    json_object_object_del(segment, "flags");
}

/* A piece of a side. bytes: UINT64_MAX for all that follows. */
static json_object *make_segment(WeirJob *job, bool is_new, uint64_t offset,
                                 uint64_t bytes)
{
    json_object *segment = NULL;

    if (json_object_deep_copy(is_new ? job->after : job->before, &segment,
                              NULL) < 0) {
        return NULL;
    }
    remove_flags(segment);
    put_u64(segment, "offset", job->info.data_offset_bytes + offset);
    if (bytes != UINT64_MAX) {
        put_u64(segment, "size", bytes);
    }
    if (weir_json_member(segment, "iv_tweak")) {
        put_u64(segment, "iv_tweak", offset / UNIT_BYTES);
    }
    return segment;
}

static json_object *make_hot_segment(WeirJob *job, uint64_t offset,
                                     uint64_t bytes)
{
    json_object *segment = make_segment(job, true, offset, bytes);
    json_object *flags = json_object_new_array();

    json_object_array_add(flags, json_object_new_string(FLAG_HOT));
    json_object_object_add(segment, "flags", flags);
    return segment;
}

static unsigned add_segment(json_object *segments, unsigned n,
                            json_object *segment)
{
    char name[16];

    snprintf(name, sizeof(name), "%u", n);
    json_object_object_add(segments, name, segment);
    return n + 1;
}

/* All without the backup segments. has_tail: there is something behind. */
static json_object *make_segments(WeirJob *job, uint64_t head_bytes,
                                  uint64_t hot_bytes, bool has_tail)
{
    json_object *segments = json_object_new_object();
    bool backward = job->info.backward;
    unsigned n = 0;

    if (head_bytes > 0) {
        n = add_segment(segments, n,
                        make_segment(job, !backward, 0, hot_bytes || has_tail
                                     ? head_bytes : UINT64_MAX));
    }
    if (hot_bytes > 0) {
        n = add_segment(segments, n, make_hot_segment(job, head_bytes,
                                                      hot_bytes));
    }
    if (has_tail) {
        add_segment(segments, n, make_segment(job, backward, head_bytes +
                                              hot_bytes, UINT64_MAX));
    }
    return segments;
}

/* --- segments of data that moves --- */

static json_object *make_linear(uint64_t offset, uint64_t bytes)
{
    json_object *segment = json_object_new_object();

    json_object_object_add(segment, "type", json_object_new_string("linear"));
    put_u64(segment, "offset", offset);
    put_u64(segment, "size", bytes);
    return segment;
}

/*
 * Plain up to left_bytes, of which the last hot_bytes are being converted,
 * and encrypted from there on.
 */
static json_object *make_shift_segments(WeirJob *job, uint64_t left_bytes,
                                        uint64_t hot_bytes)
{
    json_object *segments = json_object_new_object();
    const WeirJobInfo *info = &job->info;
    uint64_t plain = left_bytes - hot_bytes;
    unsigned n = 0;

    if (plain > 0) {
        n = add_segment(segments, n, make_linear(info->moved_offset,
                                                 info->shift_bytes));
    }
    if (plain > info->shift_bytes) {
        n = add_segment(segments, n,
                        make_linear(info->shift_bytes,
                                    plain - info->shift_bytes));
    }
    if (hot_bytes > 0) {
        n = add_segment(segments, n, make_hot_segment(job, plain, hot_bytes));
    }
    if (left_bytes < info->data_bytes) {
        add_segment(segments, n,
                    make_segment(job, true, left_bytes,
                                 info->data_bytes - left_bytes));
    }
    return segments;
}

/* --- which digest is for which segment --- */

static void assign(WeirJob *job, int digest, unsigned segment)
{
    json_object *list = weir_json_member(digest_at(job, digest), "segments");
    char name[16];

    snprintf(name, sizeof(name), "%u", segment);
    if (list && !weir_json_has(list, name)) {
        json_object_array_add(list, json_object_new_string(name));
    }
}

static void assign_side(WeirJob *job, const WeirJobSide *side,
                        unsigned segment)
{
    if (side->is_crypt) {
        assign(job, side->digest, segment);
    }
}

static void assign_none(WeirJob *job)
{
    json_object *digests = weir_json_member(job->root, "digests");

    for (int i = 0; i < DIGESTS_MAX; i++) {
        json_object *digest = weir_json_numbered(digests, i);

        if (json_object_is_type(digest, json_type_object)) {
            json_object_object_add(digest, "segments",
                                   json_object_new_array());
        }
    }
}

/*
 * Of a hotzone, both are. In a decryption its segment is plain, and has none.
 */
static void assign_digests(WeirJob *job, uint64_t head_bytes,
                           uint64_t hot_bytes, bool has_tail)
{
    const WeirJobInfo *info = &job->info;
    const WeirJobSide *head = info->backward ? &info->before : &info->after;
    const WeirJobSide *tail = info->backward ? &info->after : &info->before;
    unsigned n = 0;

    assign_none(job);
    if (head_bytes > 0) {
        assign_side(job, head, n++);
    }
    if (hot_bytes > 0) {
        if (info->after.is_crypt) {
            assign_side(job, &info->after, n);
            assign_side(job, &info->before, n);
        }
        n++;
    }
    if (has_tail) {
        assign_side(job, tail, n++);
    }
    assign_side(job, &info->before, n);
    assign_side(job, &info->after, n + 1);
}

/* The new side's is for all that are encrypted. */
static void assign_shift_digest(WeirJob *job)
{
    json_object *segments = weir_json_member(job->root, "segments");

    assign_none(job);
    json_object_object_foreach(segments, name, segment) {
        if (weir_json_is(segment, "type", "crypt")) {
            assign_side(job, &job->info.after, atoi(name));
        }
    }
}

const char *weir_job_text(WeirJob *job)
{
    return json_object_to_json_string_ext(job->root, JSON_C_TO_STRING_PLAIN |
                                          JSON_C_TO_STRING_NOSLASHESCAPE);
}

static const char *set_shift(WeirJob *job, uint64_t left_bytes)
{
    json_object *segments = make_shift_segments(job, left_bytes, 0);
    unsigned n = json_object_object_length(segments);

    n = add_segment(segments, n, json_object_get(job->before));
    n = add_segment(segments, n, json_object_get(job->after));
    add_segment(segments, n, json_object_get(job->moved));
    json_object_object_add(job->root, "segments", segments);
    assign_shift_digest(job);
    job->info.head_bytes = left_bytes;
    return weir_job_text(job);
}

static const char *set(WeirJob *job, uint64_t head_bytes, uint64_t hot_bytes,
                       uint64_t data_bytes)
{
    bool has_tail = head_bytes + hot_bytes < data_bytes;
    json_object *segments = make_segments(job, head_bytes, hot_bytes,
                                          has_tail);
    unsigned n = json_object_object_length(segments);

    add_segment(segments, n, json_object_get(job->before));
    add_segment(segments, n + 1, json_object_get(job->after));
    json_object_object_add(job->root, "segments", segments);
    assign_digests(job, head_bytes, hot_bytes, has_tail);
    job->info.head_bytes = head_bytes;
    job->info.hot_bytes = hot_bytes;
    return weir_job_text(job);
}

const char *weir_job_set(WeirJob *job, uint64_t head_bytes, uint64_t hot_bytes,
                         uint64_t data_bytes)
{
    return job->info.shift_bytes ? set_shift(job, head_bytes)
                                 : set(job, head_bytes, hot_bytes, data_bytes);
}

/* --- finish --- */

static bool is_removed(const WeirJob *job, int keyslot)
{
    const WeirJobSide *before = &job->info.before;

    return keyslot == job->keyslot_id ||
           (before->is_crypt && before->keyslots & 1u << keyslot);
}

/* False for what cannot be in a header. */
static bool get_area(json_object *json, WeirJobArea *area)
{
    return get_u64(json, "offset", &area->offset) &&
           get_u64(json, "size", &area->bytes) &&
           area->bytes <= AREA_END_MAX &&
           area->offset <= AREA_END_MAX - area->bytes;
}

static void remove_keyslot(WeirJob *job, int id, WeirJobArea *areas,
                           size_t *n_areas)
{
    json_object *keyslots = weir_json_member(job->root, "keyslots");
    json_object *tokens = weir_json_member(job->root, "tokens");
    WeirJobArea *area = &areas[*n_areas];
    json_object *json;
    char name[16];

    snprintf(name, sizeof(name), "%d", id);
    json = weir_json_member(weir_json_member(keyslots, name), "area");
    if (get_area(json, area)) {
        (*n_areas)++;
    }
    json_object_object_del(keyslots, name);
    for (struct lh_entry *e = weir_json_first(tokens); e; e = e->next) {
        array_remove(weir_json_member((json_object *)lh_entry_v(e),
                                     "keyslots"), name);
    }
}

static void remove_digest(WeirJob *job, int id)
{
    char name[16];

    snprintf(name, sizeof(name), "%d", id);
    json_object_object_del(weir_json_member(job->root, "digests"), name);
}

static void remove_requirement(WeirJob *job)
{
    json_object *config = weir_json_member(job->root, "config");
    json_object *list = weir_json_member(weir_json_member(config,
                                        "requirements"), "mandatory");

    array_remove(list, REQUIREMENT);
    if (json_object_array_length(list) == 0) {
        json_object_object_del(config, "requirements");
    }
}

const char *weir_job_finish(WeirJob *job, WeirJobArea *areas, size_t *n_areas)
{
    const WeirJobInfo *info = &job->info;
    json_object *segments = json_object_new_object();

    *n_areas = 0;
    if (info->shift_bytes) {
        areas[(*n_areas)++] = (WeirJobArea) {
            info->moved_offset, info->shift_bytes,
        };
    }
    add_segment(segments, 0, make_segment(job, true, 0, UINT64_MAX));
    for (int i = 0; i < KEYSLOTS_MAX; i++) {
        if (is_removed(job, i)) {
            remove_keyslot(job, i, areas, n_areas);
        }
    }
    remove_digest(job, job->digest_id);
    if (info->before.is_crypt) {
        remove_digest(job, info->before.digest);
    }
    assign_none(job);
    assign_side(job, &info->after, 0);
    remove_requirement(job);
    json_object_object_add(job->root, "segments", segments);
    job->before = job->after = job->moved = job->keyslot = NULL;
    return weir_job_text(job);
}

/* --- load --- */

static bool has_requirement(json_object *root)
{
    json_object *config = weir_json_member(root, "config");

    return weir_json_has(weir_json_member(weir_json_member(
        config, "requirements"), "mandatory"), REQUIREMENT);
}

bool weir_job_exists(const char *json)
{
    json_object *root = weir_json_parse(json);
    bool exists = has_requirement(root);

    json_object_put(root);
    return exists;
}

static int fail(char *err, size_t err_size, int ret, const char *why)
{
    snprintf(err, err_size, "%s", why);
    return ret;
}

static int find_keyslot(WeirJob *job, char *err, size_t err_size)
{
    json_object *keyslots = weir_json_member(job->root, "keyslots");

    for (int i = 0; i < KEYSLOTS_MAX; i++) {
        json_object *keyslot = weir_json_numbered(keyslots, i);
        char name[16];

        if (weir_json_is(keyslot, "type", "reencrypt")) {
            snprintf(name, sizeof(name), "%d", i);
            job->keyslot = keyslot;
            job->keyslot_id = i;
            job->digest_id = digest_of(job, "keyslots", name);
        }
    }
    if (!job->keyslot || job->digest_id < 0) {
        return fail(err, err_size, -EINVAL, "a re-encryption has begun, but "
                    "its keyslot or digest is missing");
    }
    return 0;
}

/* It is computed when the job is opened, in addition to the keyslots. */
static int check_cost(WeirJob *job, char *err, size_t err_size)
{
    uint64_t iterations;

    if (!weir_json_u64(digest_at(job, job->digest_id), "iterations",
                       &iterations) || iterations > DIGEST_ITERATIONS_MAX) {
        snprintf(err, err_size, "the digest of the re-encryption says no "
                 "number of iterations, or more than %d",
                 DIGEST_ITERATIONS_MAX);
        return -EINVAL;
    }
    return 0;
}

static int parse_mode(WeirJob *job, char *err, size_t err_size)
{
    static const char *const modes[] = {
        [WEIR_JOB_ENCRYPT] = "encrypt",
        [WEIR_JOB_REKEY] = "reencrypt",
        [WEIR_JOB_DECRYPT] = "decrypt",
    };

    job->info.backward = weir_json_is(job->keyslot, "direction", "backward");
    for (int i = 0; i < 3; i++) {
        if (weir_json_is(job->keyslot, "mode", modes[i])) {
            job->info.mode = i;
            return 0;
        }
    }
    return fail(err, err_size, -EINVAL, "the mode of the re-encryption is "
                "unknown");
}

/* A block is a sector then. */
static int parse_shift_area(WeirJob *job, json_object *area, char *err,
                            size_t err_size)
{
    WeirJobInfo *info = &job->info;

    if (info->mode != WEIR_JOB_ENCRYPT || !info->backward) {
        return fail(err, err_size, -ENOTSUP, "a re-encryption that moves the "
                    "data, and does not encrypt it backward, has begun; finish "
                    "it with 'cryptsetup reencrypt --resume-only'");
    }
    info->block_bytes = SECTOR_BYTES_MAX;
    if (!get_u64(area, "shift_size", &info->shift_bytes) ||
        !info->shift_bytes || info->shift_bytes > INT64_MAX / 4 ||
        info->shift_bytes % SECTOR_BYTES_MAX ||
        !get_u64(area, "offset", &info->area_offset) ||
        !get_u64(area, "size", &info->area_bytes)) {
        return fail(err, err_size, -EINVAL, "the re-encryption moves the data "
                    "by what is not valid");
    }
    return 0;
}

static int parse_area(WeirJob *job, char *err, size_t err_size)
{
    json_object *area = weir_json_member(job->keyslot, "area");
    WeirJobInfo *info = &job->info;
    WeirJobArea place;

    if (weir_json_is(area, "type", "datashift")) {
        return parse_shift_area(job, area, err, err_size);
    }
    if (!weir_json_is(area, "type", "checksum")) {
        const char *type = weir_json_string(area, "type");

        snprintf(err, err_size, "a re-encryption with the resilience '%.*s' "
                 "has begun; only 'checksum' and 'datashift' are supported "
                 "here: finish it with 'cryptsetup reencrypt --resume-only'",
                 (int)strspn(type, LOWER_CASE), type);
        return -ENOTSUP;
    }
    info->hash = gcry_md_map_name(weir_json_string(area, "hash"));
    info->hash_bytes = info->hash ? gcry_md_get_algo_dlen(info->hash) : 0;
    info->block_bytes = json_object_get_int(weir_json_member(area,
                                                             "sector_size"));
    if (!info->hash_bytes || info->hash_bytes > WEIR_JOB_HASH_BYTES_MAX) {
        return fail(err, err_size, -ENOTSUP, "the hash of the re-encryption's "
                    "checksums is not supported");
    }
    if (info->block_bytes < UNIT_BYTES || info->block_bytes > 65536 ||
        info->block_bytes & (info->block_bytes - 1) ||
        !get_area(area, &place) || place.bytes < info->hash_bytes) {
        return fail(err, err_size, -EINVAL, "the area of the re-encryption's "
                    "checksums is not valid");
    }
    info->area_offset = place.offset;
    info->area_bytes = place.bytes;
    return 0;
}

static void parse_keyslots(WeirJob *job, WeirJobSide *side)
{
    json_object *list = weir_json_member(digest_at(job, side->digest),
                                         "keyslots");
    json_object *keyslots = weir_json_member(job->root, "keyslots");

    for (unsigned id = 0; id < KEYSLOTS_MAX; id++) {
        json_object *keyslot = weir_json_numbered(keyslots, id);
        char name[16];

        snprintf(name, sizeof(name), "%u", id);
        if (keyslot && weir_json_has(list, name)) {
            side->keyslots |= 1u << id;
            side->key_bytes = json_object_get_int(weir_json_member(keyslot,
                                                  "key_size"));
        }
    }
}

static int parse_crypt(WeirJob *job, json_object *segment, const char *id,
                       WeirJobSide *side, char *err, size_t err_size)
{
    uint64_t tweak;

    side->is_crypt = true;
    side->sector_bytes = json_object_get_int(weir_json_member(segment,
                                                              "sector_size"));
    side->digest = digest_of(job, "segments", id);
    if (!weir_json_is(segment, "encryption", CIPHER) ||
        weir_json_member(segment, "integrity") ||
        !get_u64(segment, "iv_tweak", &tweak) || tweak) {
        return fail(err, err_size, -ENOTSUP, "the re-encryption is from or to "
                    "something else than " CIPHER " without tweak");
    }
    if (side->sector_bytes < 512 || side->sector_bytes > 4096 ||
        side->sector_bytes & (side->sector_bytes - 1) ||
        side->sector_bytes > job->info.block_bytes || side->digest < 0) {
        return fail(err, err_size, -EINVAL, "the re-encryption's sectors or "
                    "digests are not valid");
    }
    parse_keyslots(job, side);
    if (side->key_bytes != 32 && side->key_bytes != 64) {
        return fail(err, err_size, -ENOTSUP, "the re-encryption has no keyslot "
                    "with a key of 32 or 64 bytes");
    }
    return 0;
}

static int parse_side(WeirJob *job, const char *flag, json_object **out,
                      WeirJobSide *side, char *err, size_t err_size)
{
    json_object *segments = weir_json_member(job->root, "segments");
    const char *id = "";
    json_object *segment = find_flagged(segments, flag, &id);
    uint64_t offset;

    *out = segment;
    if (!segment || !get_u64(segment, "offset", &offset)) {
        return fail(err, err_size, -EINVAL, "the re-encryption's backup "
                    "segments are not valid");
    }
    if (offset > INT64_MAX) {
        return fail(err, err_size, -EINVAL, "the data's offset is too large");
    }
    if (!weir_json_is(segment, "size", "dynamic") ||
        (out == &job->after && offset != job->info.data_offset_bytes)) {
        return fail(err, err_size, -ENOTSUP, "a re-encryption of a fixed size, "
                    "or to another place, has begun; finish it with "
                    "'cryptsetup reencrypt --resume-only'");
    }
    job->info.data_offset_bytes = offset;
    side->digest = -1;
    return weir_json_is(segment, "type", "crypt")
           ? parse_crypt(job, segment, id, side, err, err_size) : 0;
}

static int parse_new_place(WeirJob *job, char *err, size_t err_size)
{
    WeirJobInfo *info = &job->info;
    json_object *segments = weir_json_member(job->root, "segments");
    const char *id = "";
    uint64_t offset;

    job->after = find_flagged(segments, FLAG_AFTER, &id);
    if (!get_u64(job->after, "offset", &offset) ||
        offset != info->shift_bytes ||
        !weir_json_is(job->after, "size", "dynamic") ||
        !weir_json_is(job->after, "type", "crypt")) {
        return fail(err, err_size, -ENOTSUP, "a re-encryption to another place "
                    "than behind the header has begun; finish it with "
                    "'cryptsetup reencrypt --resume-only'");
    }
    info->data_offset_bytes = offset;
    return parse_crypt(job, job->after, id, &info->after, err, err_size);
}

/* The data, its beginning, and where both go; nothing overlaps. */
static int parse_shift_sides(WeirJob *job, char *err, size_t err_size)
{
    json_object *segments = weir_json_member(job->root, "segments");
    WeirJobInfo *info = &job->info;
    const char *id = "";
    uint64_t moved_bytes, end;
    int ret;

    job->before = find_flagged(segments, FLAG_BEFORE, &id);
    job->moved = find_flagged(segments, FLAG_MOVED, &id);
    if (!weir_json_is(job->before, "type", "linear") ||
        !weir_json_is(job->before, "offset", "0") ||
        !get_u64(job->before, "size", &info->data_bytes) ||
        !weir_json_is(job->moved, "type", "linear") ||
        !get_u64(job->moved, "offset", &info->moved_offset) ||
        !get_u64(job->moved, "size", &moved_bytes) ||
        moved_bytes != info->shift_bytes ||
        info->data_bytes <= info->shift_bytes ||
        __builtin_add_overflow(info->data_bytes, info->shift_bytes, &end) ||
        end > INT64_MAX / 2 || info->moved_offset < end ||
        info->moved_offset > INT64_MAX / 2) {
        return fail(err, err_size, -ENOTSUP, "a re-encryption that moves the "
                    "data has begun, but not as it is known here; finish it "
                    "with 'cryptsetup reencrypt --resume-only'");
    }
    info->before.digest = -1;
    ret = parse_new_place(job, err, err_size);
    if (ret == 0) {
        info->block_bytes = info->after.sector_bytes;
    }
    return ret;
}

/* As the mode wants them. */
static bool sides_are_good(const WeirJobInfo *info)
{
    return info->before.is_crypt == (info->mode != WEIR_JOB_ENCRYPT) &&
           info->after.is_crypt == (info->mode != WEIR_JOB_DECRYPT) &&
           (info->mode != WEIR_JOB_REKEY ||
            info->before.digest != info->after.digest);
}

static int parse_sides(WeirJob *job, char *err, size_t err_size)
{
    WeirJobInfo *info = &job->info;
    int ret;

    if (info->shift_bytes) {
        return parse_shift_sides(job, err, err_size);
    }
    ret = parse_side(job, FLAG_BEFORE, &job->before, &info->before, err,
                     err_size);
    if (ret == 0) {
        ret = parse_side(job, FLAG_AFTER, &job->after, &info->after, err,
                         err_size);
    }
    if (ret == 0 && !sides_are_good(info)) {
        return fail(err, err_size, -EINVAL, "the re-encryption's segments are "
                    "not those of its mode");
    }
    return ret;
}

/* A segment that is not a backup, by its number. */
static json_object *plain_segment(json_object *segments, unsigned n)
{
    json_object *segment = weir_json_numbered(segments, n);
    json_object *flags = weir_json_member(segment, "flags");

    return weir_json_has(flags, FLAG_BEFORE) ||
           weir_json_has(flags, FLAG_AFTER) ||
           weir_json_has(flags, FLAG_MOVED) ? NULL : segment;
}

/* Both may be the same but for the key. */
static bool is_converted(WeirJob *job, json_object *segment)
{
    const WeirJobInfo *info = &job->info;

    if (info->mode != WEIR_JOB_REKEY) {
        return weir_json_is(segment, "type",
                            weir_json_string(job->after, "type"));
    }
    return digest_of(job, "segments", "0") == info->after.digest &&
           !weir_json_has(weir_json_member(digest_at(job, info->before.digest),
                                           "segments"), "0");
}

/* Where the job is, if the segments are what we would make of that. */
static bool parse_place(WeirJob *job, json_object *segments, unsigned n,
                        bool *has_tail)
{
    json_object *first = plain_segment(segments, 0);
    WeirJobInfo *info = &job->info;
    unsigned at = 0;

    *has_tail = true;
    if (n == 1 && !weir_json_has(weir_json_member(first, "flags"), FLAG_HOT)) {
        info->converted = is_converted(job, first);
        info->head_bytes = info->backward && !info->converted ? UINT64_MAX : 0;
        return true;
    }
    if (!weir_json_has(weir_json_member(first, "flags"), FLAG_HOT)) {
        if (!get_u64(first, "size", &info->head_bytes) || !info->head_bytes) {
            return false;
        }
        at++;
    }
    if (weir_json_has(weir_json_member(plain_segment(segments, at), "flags"),
                  FLAG_HOT)) {
        if (!get_u64(plain_segment(segments, at), "size", &info->hot_bytes) ||
            !info->hot_bytes) {
            return false;
        }
        at++;
    }
    *has_tail = at < n;
    return at + *has_tail == n;
}

static bool same_segments(json_object *segments, json_object *made, unsigned n)
{
    bool same = json_object_object_length(made) == (int)n;

    json_object_object_foreach(made, name, segment) {
        same = same && json_object_equal(segment, weir_json_member(segments,
                                                                   name));
    }
    return same;
}

static bool is_as_made(WeirJob *job, json_object *segments, unsigned n,
                       bool has_tail)
{
    const WeirJobInfo *info = &job->info;
    json_object *made;
    bool same;

    if (n == 1 && info->hot_bytes == 0) {
        made = json_object_new_object();
        add_segment(made, 0, make_segment(job, info->converted, 0,
                                          UINT64_MAX));
    } else {
        made = make_segments(job, info->head_bytes, info->hot_bytes, has_tail);
    }
    same = same_segments(segments, made, n);
    json_object_put(made);
    return same;
}

/* Where it is, of data that moves; what is hot can be done once more. */
static bool parse_shift_place(WeirJob *job, json_object *segments, unsigned n)
{
    WeirJobInfo *info = &job->info;
    uint64_t left = 0, hot = 0, bytes;
    json_object *made;
    bool same;

    for (unsigned i = 0; i < n; i++) {
        json_object *segment = plain_segment(segments, i);
        bool is_hot = weir_json_has(weir_json_member(segment, "flags"),
                                    FLAG_HOT);

        if (!get_u64(segment, "size", &bytes)) {
            bytes = 0;
        }
        hot = is_hot ? bytes : hot;
        if ((is_hot || weir_json_is(segment, "type", "linear")) &&
            __builtin_add_overflow(left, bytes, &left)) {
            return false;
        }
    }
    info->converted = !left;
    info->head_bytes = left;
    if (left > info->data_bytes || left % info->block_bytes) {
        return false;
    }
    if (left && left < info->shift_bytes) {
        return false;
    }
    made = left ? make_shift_segments(job, left, hot)
                : json_object_new_object();
    if (!left) {
        add_segment(made, 0, make_segment(job, true, 0, UINT64_MAX));
    }
    same = same_segments(segments, made, n);
    json_object_put(made);
    return same;
}

static int parse_shift_segments(WeirJob *job, char *err, size_t err_size)
{
    json_object *segments = weir_json_member(job->root, "segments");
    unsigned n = 0;

    while (plain_segment(segments, n)) {
        n++;
    }
    if (n == 0 || n > SHIFT_SEGMENTS_MAX ||
        json_object_object_length(segments) != (int)n + 3 ||
        job->info.data_bytes % job->info.block_bytes ||
        !parse_shift_place(job, segments, n)) {
        return fail(err, err_size, -EINVAL, "the segments of the image are not "
                    "those of a re-encryption that moves the data");
    }
    return 0;
}

static int parse_segments(WeirJob *job, char *err, size_t err_size)
{
    json_object *segments = weir_json_member(job->root, "segments");
    WeirJobInfo *info = &job->info;
    uint64_t end = 0;
    bool has_tail;
    unsigned n = 0;

    if (info->shift_bytes) {
        return parse_shift_segments(job, err, err_size);
    }
    while (plain_segment(segments, n)) {
        n++;
    }
    if (n == 0 || n > SEGMENTS_MAX ||
        json_object_object_length(segments) != (int)n + 2 ||
        !parse_place(job, segments, n, &has_tail) ||
        !is_as_made(job, segments, n, has_tail)) {
        return fail(err, err_size, -EINVAL, "the segments of the image are not "
                    "those of a re-encryption that has begun");
    }
    if ((info->head_bytes != UINT64_MAX &&
         (__builtin_add_overflow(info->head_bytes, info->hot_bytes, &end) ||
          end > INT64_MAX || info->head_bytes % info->block_bytes)) ||
        end > INT64_MAX - info->data_offset_bytes ||
        info->data_offset_bytes % info->block_bytes ||
        info->hot_bytes % info->block_bytes ||
        info->hot_bytes / info->block_bytes >
        info->area_bytes / info->hash_bytes) {
        return fail(err, err_size, -EINVAL, "the re-encryption's place, or its "
                    "hotzone, is not valid");
    }
    return 0;
}

static int parse(WeirJob *job, const char *json, char *err, size_t err_size)
{
    int ret;

    job->root = weir_json_parse(json);
    if (!has_requirement(job->root)) {
        return fail(err, err_size, -EINVAL, "there is no re-encryption of "
                    "version 2 in the header");
    }
    ret = find_keyslot(job, err, err_size);
    if (ret == 0) {
        ret = check_cost(job, err, err_size);
    }
    if (ret == 0) {
        ret = parse_mode(job, err, err_size);
    }
    if (ret == 0) {
        ret = parse_area(job, err, err_size);
    }
    if (ret == 0) {
        ret = parse_sides(job, err, err_size);
    }
    return ret == 0 ? parse_segments(job, err, err_size) : ret;
}

int weir_job_load(WeirJob **out, const char *json, char *err, size_t err_size)
{
    WeirJob *job = calloc(1, sizeof(*job));
    int ret = job ? parse(job, json, err, err_size)
                  : fail(err, err_size, -ENOMEM, "no memory for the header");

    *out = ret < 0 ? NULL : job;
    if (ret < 0) {
        weir_job_free(job);
    }
    return ret;
}

void weir_job_free(WeirJob *job)
{
    if (job) {
        json_object_put(job->root);
        free(job);
    }
}

const WeirJobInfo *weir_job_info(const WeirJob *job)
{
    return &job->info;
}
