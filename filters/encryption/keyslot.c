/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <gcrypt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "encryption/header-int.h"
#include "encryption/json.h"
#include "encryption/secret.h"

/* The machine of the estimates. */
#define KIB_PER_S (1024.0 * 1024)
#define ITERATIONS_PER_S 1e6
/* cryptsetup makes no keyslots with more than 4. */
#define THREADS_MAX 16
#define COPY_BYTES 4096
#define ALL_KEYSLOTS UINT32_MAX

/* --- what a keyslot costs --- */

typedef struct Cost {
    double memory_bytes;
    double time_s;
} Cost;

/* Each trial also computes the digest that tells whether the key is right. */
static double digest_time_s(json_object *json)
{
    json_object *digests = weir_json_member(json, "digests");
    double time_s = 0;

    for (struct lh_entry *e = weir_json_first(digests); e; e = e->next) {
        uint64_t iterations;

        if (!weir_json_u64((json_object *)lh_entry_v(e), "iterations",
                           &iterations)) {
            iterations = UINT64_MAX;
        }
        time_s += iterations / ITERATIONS_PER_S;
    }
    return time_s;
}

static int kdf_cost(json_object *kdf, Cost *cost)
{
    uint64_t iterations, kib, threads;

    *cost = (Cost) { 0 };
    if (weir_json_is(kdf, "type", "pbkdf2")) {
        if (!weir_json_u64(kdf, "iterations", &iterations)) {
            return -EINVAL;
        }
        cost->time_s = iterations / ITERATIONS_PER_S;
        return 0;
    }
    if (!weir_json_u64(kdf, "time", &iterations) ||
        !weir_json_u64(kdf, "memory", &kib) ||
        !weir_json_u64(kdf, "cpus", &threads) ||
        threads > THREADS_MAX) {
        return -EINVAL;
    }
    cost->memory_bytes = kib * 1024.0;
    cost->time_s = (double)iterations * kib / KIB_PER_S;
    return 0;
}

static int keyslot_cost(json_object *json, int keyslot, Cost *cost)
{
    json_object *keyslots = weir_json_member(json, "keyslots");
    int ret = kdf_cost(weir_json_member(weir_json_numbered(keyslots, keyslot),
                                        "kdf"), cost);

    cost->time_s += digest_time_s(json);
    return ret;
}

/* time_left_s: in what is spent before the keyslot is tried. */
static int pay(json_object *json, int keyslot, const WeirHeaderLimits *limits,
               double *time_left_s, char *err, size_t err_size)
{
    Cost cost;

    if (keyslot_cost(json, keyslot, &cost) < 0) {
        snprintf(err, err_size, "keyslot %d has no valid parameters, or more "
                 "than %d threads", keyslot, THREADS_MAX);
        return -EINVAL;
    }
    if (cost.memory_bytes > limits->memory_bytes) {
        snprintf(err, err_size, "keyslot %d needs %.0f MiB of memory; the "
                 "limit is %.0f MiB", keyslot, cost.memory_bytes / 1048576,
                 limits->memory_bytes / 1048576.0);
        return -E2BIG;
    }
    if (cost.time_s > *time_left_s) {
        snprintf(err, err_size, "keyslot %d needs %.1f s by estimate; of the "
                 "limit of %u s there are %.1f s left", keyslot, cost.time_s,
                 limits->time_s, *time_left_s);
        return -E2BIG;
    }
    *time_left_s -= cost.time_s;
    return 0;
}

/* --- unlock --- */

static bool is_active(WeirHeader *header, int keyslot)
{
    crypt_keyslot_info info = crypt_keyslot_status(header->device, keyslot);

    return info == CRYPT_SLOT_ACTIVE || info == CRYPT_SLOT_ACTIVE_LAST;
}

static int check_keyslot(WeirHeader *header, int keyslot, char *err,
                         size_t err_size)
{
    if (keyslot < 0 || keyslot >= WEIR_HEADER_KEYSLOTS ||
        !is_active(header, keyslot)) {
        snprintf(err, err_size, "keyslot %d is not in use", keyslot);
        return -ENOENT;
    }
    return 0;
}

/* A key with equal halves is no key for XTS. */
static int check_key(WeirHeader *header, uint8_t *key, char *err,
                     size_t err_size)
{
    size_t half = header->info.key_bytes / 2;

    if (!memcmp(key, key + half, half)) {
        explicit_bzero(key, 2 * half);
        snprintf(err, err_size, "both halves of the volume key are the same");
        return -EINVAL;
    }
    return 0;
}

static int try_keyslot(WeirHeader *header, int keyslot, const void *passphrase,
                       size_t passphrase_bytes, void *key, char *err,
                       size_t err_size)
{
    size_t key_bytes = header->info.key_bytes;
    int ret;

    header->log[0] = 0;
    ret = crypt_volume_key_get(header->device, keyslot, key, &key_bytes,
                               passphrase, passphrase_bytes);
    if (ret == -EPERM) {
        snprintf(err, err_size, "the passphrase does not open keyslot %d",
                 keyslot);
        return -EACCES;
    }
    if (ret < 0) {
        snprintf(err, err_size, "keyslot %d cannot be read: %s", keyslot,
                 header->log[0] ? header->log : strerror(-ret));
        return ret == -ENOMEM ? ret : -EINVAL;
    }
    ret = check_key(header, key, err, err_size);
    return ret < 0 ? ret : keyslot;
}

/* json: of the header. */
static int pay_and_try(WeirHeader *header, json_object *json, int keyslot,
                       const void *passphrase, size_t passphrase_bytes,
                       const WeirHeaderLimits *limits, double *time_left_s,
                       void *key, char *err, size_t err_size)
{
    int ret = pay(json, keyslot, limits, time_left_s, err, err_size);

    return ret < 0 ? ret : try_keyslot(header, keyslot, passphrase,
                                       passphrase_bytes, key, err, err_size);
}

/* Also one that has the key of another segment than the first. */
static bool is_wanted(WeirHeader *header, int keyslot, uint32_t keyslots)
{
    return keyslots & 1u << keyslot &&
           (keyslots == ALL_KEYSLOTS
            ? is_active(header, keyslot)
            : crypt_keyslot_status(header->device, keyslot) >=
              CRYPT_SLOT_ACTIVE);
}

/*
 * Of these, in their order; what is told at last is why one was not tried, if
 * so.
 */
static int try_all(WeirHeader *header, json_object *json, uint32_t keyslots,
                   const void *passphrase, size_t passphrase_bytes,
                   const WeirHeaderLimits *limits, void *key, char *err,
                   size_t err_size)
{
    static const crypt_keyslot_priority order[] = {
        CRYPT_SLOT_PRIORITY_PREFER, CRYPT_SLOT_PRIORITY_NORMAL,
    };
    double time_left_s = limits->time_s;
    char message[256] = "the passphrase opens no keyslot";
    int result = -EACCES;

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        for (int slot = 0; slot < WEIR_HEADER_KEYSLOTS; slot++) {
            int ret;

            if (!is_wanted(header, slot, keyslots) ||
                crypt_keyslot_get_priority(header->device, slot) != order[i]) {
                continue;
            }
            ret = pay_and_try(header, json, slot, passphrase,
                              passphrase_bytes, limits, &time_left_s, key,
                              err, err_size);
            if (ret >= 0) {
                return ret;
            }
            if (ret != -EACCES && result == -EACCES) {
                snprintf(message, sizeof(message), "%s", err);
                result = ret;
            }
        }
    }
    snprintf(err, err_size, "%s", message);
    return result;
}

/* keyslots: which they may be, as bits, if any one will do. */
static int unlock_with(WeirHeader *header, json_object *json, int keyslot,
                       uint32_t keyslots, const void *passphrase,
                       size_t passphrase_bytes, const WeirHeaderLimits *limits,
                       void *key, char *err, size_t err_size)
{
    double time_left_s = limits->time_s;
    int ret;

    if (keyslot == WEIR_HEADER_ANY_KEYSLOT) {
        return try_all(header, json, keyslots, passphrase, passphrase_bytes,
                       limits, key, err, err_size);
    }
    ret = check_keyslot(header, keyslot, err, err_size);
    return ret < 0 ? ret : pay_and_try(header, json, keyslot, passphrase,
                                       passphrase_bytes, limits, &time_left_s,
                                       key, err, err_size);
}

static int unlock(WeirHeader *header, int keyslot, uint32_t keyslots,
                  const void *passphrase, size_t passphrase_bytes,
                  const WeirHeaderLimits *limits, void *key, char *err,
                  size_t err_size)
{
    json_object *json = weir_header_json(header);
    int ret = unlock_with(header, json, keyslot, keyslots, passphrase,
                          passphrase_bytes, limits, key, err, err_size);

    json_object_put(json);
    return ret;
}

static int enter_and_unlock(WeirHeader *header, int keyslot, uint32_t keyslots,
                            const void *passphrase, size_t passphrase_bytes,
                            const WeirHeaderLimits *limits, void *key,
                            char *err, size_t err_size)
{
    char message[256];
    int ret;

    weir_header_enter();
    ret = unlock(header, keyslot, keyslots, passphrase, passphrase_bytes,
                 limits, key, message, sizeof(message));
    weir_header_leave();
    if (ret < 0) {
        snprintf(err, err_size, "%s", message);
    }
    return ret;
}

int weir_header_unlock(WeirHeader *header, int keyslot,
                       const void *passphrase, size_t passphrase_bytes,
                       const WeirHeaderLimits *limits, void *key, char *err,
                       size_t err_size)
{
    return enter_and_unlock(header, keyslot, ALL_KEYSLOTS, passphrase,
                            passphrase_bytes, limits, key, err, err_size);
}

int weir_header_unlock_some(WeirHeader *header, uint32_t keyslots,
                            const void *passphrase, size_t passphrase_bytes,
                            const WeirHeaderLimits *limits, void *key,
                            char *err, size_t err_size)
{
    return enter_and_unlock(header, WEIR_HEADER_ANY_KEYSLOT, keyslots,
                            passphrase, passphrase_bytes, limits, key, err,
                            err_size);
}

uint32_t weir_header_opened_by(WeirHeader *header,
                               const WeirHeaderPassphrase *passphrase,
                               const WeirHeaderLimits *limits, void *key)
{
    double time_left_s = limits->time_s;
    uint32_t opened = 0;
    char message[256];
    json_object *json = weir_header_json(header);

    for (int slot = 0; slot < WEIR_HEADER_KEYSLOTS; slot++) {
        if (is_active(header, slot) &&
            pay_and_try(header, json, slot, passphrase->bytes,
                        passphrase->n_bytes, limits, &time_left_s, key,
                        message, sizeof(message)) >= 0) {
            opened |= 1u << slot;
        }
    }
    json_object_put(json);
    return opened;
}

/* --- add, change, remove --- */

static int free_keyslot(WeirHeader *header, int wanted, char *err,
                        size_t err_size)
{
    int first = wanted == WEIR_HEADER_ANY_KEYSLOT ? 0 : wanted;
    int last = wanted == WEIR_HEADER_ANY_KEYSLOT ? WEIR_HEADER_KEYSLOTS - 1
                                                 : wanted;

    if (first < 0 || last >= WEIR_HEADER_KEYSLOTS) {
        snprintf(err, err_size, "there is no keyslot %d", wanted);
        return -EINVAL;
    }
    for (int slot = first; slot <= last; slot++) {
        if (crypt_keyslot_status(header->device, slot) ==
            CRYPT_SLOT_INACTIVE) {
            return slot;
        }
    }
    snprintf(err, err_size, first == last ? "keyslot %d is in use" :
             "all keyslots are in use", first);
    return first == last ? -EEXIST : -ENOSPC;
}

static int add(WeirHeader *header, int keyslot, const void *key,
               const WeirHeaderKdf *kdf, const void *passphrase,
               size_t passphrase_bytes, char *err, size_t err_size)
{
    int slot = free_keyslot(header, keyslot, err, err_size);
    int ret;

    if (slot < 0) {
        return slot;
    }
    ret = weir_header_set_kdf(header, kdf, err, err_size);
    if (ret < 0) {
        return ret;
    }
    ret = crypt_keyslot_add_by_volume_key(header->device, slot, key,
                                          header->info.key_bytes, passphrase,
                                          passphrase_bytes);
    return ret < 0 ? weir_header_fail(header, ret, err, err_size,
                                      "the keyslot cannot be added") : slot;
}

int weir_header_add_keyslot(WeirHeader *header, int keyslot, const void *key,
                            const WeirHeaderKdf *kdf, const void *passphrase,
                            size_t passphrase_bytes, char *err,
                            size_t err_size)
{
    int ret;

    weir_header_enter();
    ret = add(header, keyslot, key, kdf, passphrase, passphrase_bytes, err,
              err_size);
    weir_header_list_keyslots(header);
    weir_header_leave();
    return ret;
}

/*
 * libcryptsetup writes the new key to an area that is free, and then gives it
 * the old number; but where nothing is free, it overwrites the old one.
 */
static int change_in_free_area(WeirHeader *header, int keyslot,
                               const void *old_passphrase, size_t old_bytes,
                               const void *new_passphrase, size_t new_bytes,
                               char *err, size_t err_size)
{
    crypt_keyslot_priority priority =
        crypt_keyslot_get_priority(header->device, keyslot);
    int ret = free_keyslot(header, WEIR_HEADER_ANY_KEYSLOT, err, err_size);

    if (ret < 0) {
        return ret;
    }
    ret = crypt_keyslot_change_by_passphrase(header->device, keyslot,
                                             CRYPT_ANY_SLOT, old_passphrase,
                                             old_bytes, new_passphrase,
                                             new_bytes);
    if (ret >= 0 && priority != CRYPT_SLOT_PRIORITY_NORMAL) {
        int slot = ret;

        ret = crypt_keyslot_set_priority(header->device, slot, priority);
        ret = ret < 0 ? ret : slot;
    }
    return ret < 0 ? weir_header_fail(header, ret, err, err_size,
                                      "the keyslot cannot be changed") : ret;
}

/* The old passphrase is first checked within the limits. */
static int change(WeirHeader *header, int keyslot, const void *old_passphrase,
                  size_t old_bytes, const WeirHeaderLimits *limits,
                  const WeirHeaderKdf *kdf, const void *new_passphrase,
                  size_t new_bytes, char *err, size_t err_size)
{
    void *key;
    int ret = weir_secret_new(&key, header->info.key_bytes);

    if (ret < 0) {
        snprintf(err, err_size, "no locked memory for the volume key: %s",
                 strerror(-ret));
        return ret;
    }
    ret = unlock(header, keyslot, ALL_KEYSLOTS, old_passphrase, old_bytes,
                 limits, key, err, err_size);
    weir_secret_free(key, header->info.key_bytes);
    if (ret >= 0) {
        keyslot = ret;
        ret = weir_header_set_kdf(header, kdf, err, err_size);
    }
    return ret < 0 ? ret : change_in_free_area(header, keyslot, old_passphrase,
                                               old_bytes, new_passphrase,
                                               new_bytes, err, err_size);
}

int weir_header_change_keyslot(WeirHeader *header, int keyslot,
                               const void *old_passphrase, size_t old_bytes,
                               const WeirHeaderLimits *limits,
                               const WeirHeaderKdf *kdf,
                               const void *new_passphrase, size_t new_bytes,
                               char *err, size_t err_size)
{
    int ret;

    weir_header_enter();
    ret = change(header, keyslot, old_passphrase, old_bytes, limits, kdf,
                 new_passphrase, new_bytes, err, err_size);
    weir_header_list_keyslots(header);
    weir_header_leave();
    return ret;
}

static int remove_keyslot(WeirHeader *header, int keyslot, bool force,
                          char *err, size_t err_size)
{
    int ret = check_keyslot(header, keyslot, err, err_size);

    if (ret < 0) {
        return ret;
    }
    if (!force && crypt_keyslot_status(header->device, keyslot) ==
        CRYPT_SLOT_ACTIVE_LAST) {
        snprintf(err, err_size, "keyslot %d is the last one: without it, "
                 "nothing opens the image any more", keyslot);
        return -EBUSY;
    }
    header->log[0] = 0;
    return crypt_keyslot_destroy(header->device, keyslot) < 0
           ? weir_header_fail(header, -EIO, err, err_size,
                              "the keyslot cannot be removed") : 0;
}

int weir_header_remove_keyslot(WeirHeader *header, int keyslot, bool force,
                               char *err, size_t err_size)
{
    int ret;

    weir_header_enter();
    ret = remove_keyslot(header, keyslot, force, err, err_size);
    weir_header_list_keyslots(header);
    weir_header_leave();
    return ret;
}

/* The keyslots that it opens, of one or of all; those to be ignored as well. */
static int remove_opened(WeirHeader *header, json_object *json, int keyslot,
                         const void *passphrase, size_t passphrase_bytes,
                         const WeirHeaderLimits *limits, bool force,
                         void *key, char *err, size_t err_size)
{
    double time_left_s = limits->time_s;
    int n = 0;

    for (int slot = 0; slot < WEIR_HEADER_KEYSLOTS; slot++) {
        int ret;

        if (!is_active(header, slot) ||
            (keyslot != WEIR_HEADER_ANY_KEYSLOT && slot != keyslot)) {
            continue;
        }
        ret = pay_and_try(header, json, slot, passphrase, passphrase_bytes,
                          limits, &time_left_s, key, err, err_size);
        if (ret == -EACCES) {
            continue;
        }
        ret = ret < 0 ? ret : remove_keyslot(header, slot, force, err,
                                             err_size);
        if (ret < 0) {
            return ret;
        }
        n++;
    }
    if (!n) {
        snprintf(err, err_size, "the passphrase opens no keyslot");
        return -EACCES;
    }
    return 0;
}

int weir_header_remove_passphrase(WeirHeader *header, int keyslot,
                                  const void *passphrase,
                                  size_t passphrase_bytes,
                                  const WeirHeaderLimits *limits, bool force,
                                  char *err, size_t err_size)
{
    json_object *json;
    void *key;
    int ret = weir_secret_new(&key, header->info.key_bytes);

    if (ret < 0) {
        snprintf(err, err_size, "no locked memory for the volume key: %s",
                 strerror(-ret));
        return ret;
    }
    weir_header_enter();
    json = weir_header_json(header);
    ret = remove_opened(header, json, keyslot, passphrase, passphrase_bytes,
                        limits, force, key, err, err_size);
    json_object_put(json);
    weir_header_list_keyslots(header);
    weir_header_leave();
    weir_secret_free(key, header->info.key_bytes);
    return ret;
}

/* --- all of them --- */

/* Random bytes: zeroes could be turned into holes, with the old bytes below. */
static int overwrite_areas(WeirHeader *header)
{
    uint64_t at = METADATA_COPIES * header->info.copy_bytes;
    uint8_t bytes[COPY_BYTES];

    while (at < header->info.header_bytes) {
        uint64_t left = header->info.header_bytes - at;
        size_t n = left < sizeof(bytes) ? left : sizeof(bytes);

        gcry_create_nonce(bytes, n);
        if (pwrite(header->fd, bytes, n, at) != (ssize_t)n) {
            return -ENOMEM;
        }
        at += n;
    }
    return 0;
}

static int erase(WeirHeader *header, char *err, size_t err_size)
{
    for (int slot = 0; slot < WEIR_HEADER_KEYSLOTS; slot++) {
        if (crypt_keyslot_status(header->device, slot) !=
            CRYPT_SLOT_INACTIVE &&
            crypt_keyslot_destroy(header->device, slot) < 0) {
            return weir_header_fail(header, -EIO, err, err_size,
                                    "a keyslot cannot be removed");
        }
    }
    if (overwrite_areas(header) < 0) {
        snprintf(err, err_size, "no memory for the header");
        return -ENOMEM;
    }
    return 0;
}

int weir_header_erase(WeirHeader *header, char *err, size_t err_size)
{
    int ret;

    weir_header_enter();
    header->log[0] = 0;
    ret = erase(header, err, err_size);
    weir_header_list_keyslots(header);
    weir_header_leave();
    return ret;
}

/* --- what they are --- */

static void read_kdf(json_object *kdf, WeirHeaderKeyslot *out)
{
    uint64_t number;
    static const char *const types[] = { "pbkdf2", "argon2i", "argon2id" };

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (weir_json_is(kdf, "type", types[i])) {
            out->kdf.type = types[i];
        }
    }
    weir_json_u64(kdf, "iterations", &number);
    if (!number) {
        weir_json_u64(kdf, "time", &number);
    }
    out->kdf.iterations = number;
    weir_json_u64(kdf, "memory", &number);
    out->kdf.memory_kib = number;
    weir_json_u64(kdf, "cpus", &number);
    out->kdf.threads = number;
}

/* While a job is under way, those with the new key belong to no segment yet. */
static bool is_listed(WeirHeader *header, int slot, json_object *keyslot)
{
    return is_active(header, slot) ||
           (header->info.has_job &&
            crypt_keyslot_status(header->device, slot) == CRYPT_SLOT_UNBOUND &&
            weir_json_is(keyslot, "type", "luks2"));
}

void weir_header_list_keyslots(WeirHeader *header)
{
    json_object *json = weir_header_json(header);
    json_object *keyslots = weir_json_member(json, "keyslots");

    header->n_keyslots = 0;
    for (int slot = 0; slot < WEIR_HEADER_KEYSLOTS; slot++) {
        WeirHeaderKeyslot *out = &header->keyslots[header->n_keyslots];

        if (!is_listed(header, slot, weir_json_numbered(keyslots, slot))) {
            continue;
        }
        *out = (WeirHeaderKeyslot) { .keyslot = slot, .kdf.type = "" };
        read_kdf(weir_json_member(weir_json_numbered(keyslots, slot), "kdf"),
                 out);
        header->n_keyslots++;
    }
    json_object_put(json);
}

const WeirHeaderKeyslot *weir_header_keyslots(const WeirHeader *header,
                                              size_t *n)
{
    *n = header->n_keyslots;
    return header->keyslots;
}
