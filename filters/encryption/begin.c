/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "encryption/header-int.h"
#include "encryption/metadata.h"
#include "encryption/secret.h"

#define KEY_BYTES_MAX 64
#define UNIT_BYTES 512

/* --- unlock --- */

static int load_job(WeirHeader *header, WeirJob **job, char *err,
                    size_t err_size)
{
    int ret;

    weir_header_enter();
    ret = weir_job_load(job, weir_header_text(header), err, err_size);
    weir_header_leave();
    return ret;
}

static int unlock_side(WeirHeader *header, const WeirJobSide *side,
                       const void *passphrase, size_t passphrase_bytes,
                       const WeirHeaderLimits *limits, void *key, char *err,
                       size_t err_size)
{
    return weir_header_unlock_some(header, side->keyslots, passphrase,
                                   passphrase_bytes, limits, key, err,
                                   err_size);
}

int weir_header_unlock_job(WeirHeader *header, const void *passphrase,
                           size_t passphrase_bytes,
                           const WeirHeaderLimits *limits, void *before,
                           void *after, char *err, size_t err_size)
{
    const WeirJobInfo *info;
    WeirJob *job;
    int ret = load_job(header, &job, err, err_size);

    if (ret < 0) {
        return ret;
    }
    info = weir_job_info(job);
    if (info->before.is_crypt) {
        ret = unlock_side(header, &info->before, passphrase, passphrase_bytes,
                          limits, before, err, err_size);
    }
    if (ret >= 0 && info->after.is_crypt) {
        ret = unlock_side(header, &info->after, passphrase, passphrase_bytes,
                          limits, after, err, err_size);
    }
    weir_job_free(job);
    return ret;
}

/* --- begin --- */

/* All but the length of the disk is made up. */
static int set_data_device(WeirHeader *header, uint64_t disk_bytes)
{
    char path[FD_PATH_BYTES];

    if (header->data_fd < 0) {
        header->data_fd = weir_header_memfd(disk_bytes);
        if (header->data_fd < 0) {
            return header->data_fd;
        }
        weir_header_fd_path(path, header->data_fd);
        return crypt_set_data_device(header->device, path);
    }
    return ftruncate(header->data_fd, disk_bytes) < 0 ? -errno : 0;
}

static int check_begin(const WeirHeader *header, const WeirHeaderBegin *b,
                       char *err, size_t err_size)
{
    const WeirHeaderInfo *info = &header->info;
    const char *why = NULL;

    if (info->has_job) {
        why = "a re-encryption of the image has begun already";
    } else if (info->tweak_units || info->data_bytes != UINT64_MAX) {
        why = "the image has a tweak or a fixed size, with which it cannot be "
              "re-encrypted";
    } else if (b->mode == WEIR_JOB_ENCRYPT && !b->detached && !b->moves) {
        why = "a disk can be encrypted in place only with a detached header, "
              "or if its data moves";
    } else if (b->moves && b->disk_bytes / 4 < info->data_offset_bytes) {
        why = "the disk is too short to move its data";
    } else if (b->disk_bytes <= info->data_offset_bytes ||
               (b->disk_bytes - info->data_offset_bytes) %
               info->sector_bytes) {
        why = "the length of the data is not a multiple of the sector size";
    }
    if (why) {
        snprintf(err, err_size, "%s", why);
        return -ENOTSUP;
    }
    return 0;
}

/* --- keyslots of a new volume key --- */

/* "0, 3 and 5" */
static void name_keyslots(uint32_t keyslots, char *text, size_t size)
{
    size_t n = 0;

    text[0] = 0;
    for (int slot = 0; slot < WEIR_HEADER_KEYSLOTS; slot++) {
        uint32_t later = slot < 31 ? keyslots >> (slot + 1) : 0;

        if (keyslots & 1u << slot) {
            snprintf(text + n, size - n, "%d%s", slot, !later ? "" :
                     later & (later - 1) ? ", " : " and ");
            n = strlen(text);
        }
    }
}

static int check_lost(const WeirHeader *header, uint32_t opened, char *err,
                      size_t err_size)
{
    uint32_t lost = 0;
    char names[128];

    for (size_t i = 0; i < header->n_keyslots; i++) {
        lost |= 1u << header->keyslots[i].keyslot;
    }
    lost &= ~opened;
    if (!lost) {
        return 0;
    }
    name_keyslots(lost, names, sizeof(names));
    snprintf(err, err_size, "%d of %zu keyslots would be lost (%s): none of "
             "the passphrases given opens them within the limits",
             __builtin_popcount(lost), header->n_keyslots, names);
    return -EBUSY;
}

/* Each passphrase must be one of the image, and each keyslot have its one. */
static int check_keyslots(WeirHeader *header, const WeirHeaderBegin *b,
                          void *key, char *err, size_t err_size)
{
    uint32_t opened = 0;

    for (size_t i = 0; i < b->n_passphrases; i++) {
        uint32_t by_it = weir_header_opened_by(header, &b->passphrases[i],
                                               &b->limits, key);

        if (!by_it) {
            snprintf(err, err_size, "passphrase %zu of those that are to stay "
                     "opens no keyslot within the limits", i + 1);
            return -EACCES;
        }
        opened |= by_it;
    }
    return b->drop_keyslots ? 0 : check_lost(header, opened, err, err_size);
}

static int add_by_key(WeirHeader *header, const void *key,
                      const WeirHeaderPassphrase *passphrase, uint32_t flags,
                      char *err, size_t err_size)
{
    int ret;

    header->log[0] = 0;
    ret = crypt_keyslot_add_by_key(header->device, CRYPT_ANY_SLOT, key,
                                   header->info.key_bytes, passphrase->bytes,
                                   passphrase->n_bytes, flags);
    return ret < 0 ? weir_header_fail(header, ret, err, err_size, "there is "
                                      "no room for a keyslot with the new "
                                      "volume key") : ret;
}

/* The other passphrases get keyslots with the key of new_slot. */
static int add_others(WeirHeader *header, const WeirHeaderBegin *b,
                      int new_slot, void *key, char *err, size_t err_size)
{
    size_t key_bytes = header->info.key_bytes;
    int ret = crypt_volume_key_get(header->device, new_slot, key, &key_bytes,
                                   b->passphrases[0].bytes,
                                   b->passphrases[0].n_bytes);

    if (ret < 0) {
        return weir_header_fail(header, ret, err, err_size, "the keyslot with "
                                "the new volume key cannot be read");
    }
    for (size_t i = 1; i < b->n_passphrases && ret >= 0; i++) {
        ret = add_by_key(header, key, &b->passphrases[i],
                         CRYPT_VOLUME_KEY_NO_SEGMENT |
                         CRYPT_VOLUME_KEY_DIGEST_REUSE, err, err_size);
    }
    return ret < 0 ? ret : 0;
}

/* Returns the keyslot of the first passphrase with a new volume key. */
static int add_new_key(WeirHeader *header, const WeirHeaderBegin *b, void *key,
                       char *err, size_t err_size)
{
    int ret = check_keyslots(header, b, key, err, err_size);
    int slot;

    if (ret == 0) {
        ret = weir_header_set_kdf(header, &b->kdf, err, err_size);
    }
    if (ret < 0) {
        return ret;
    }
    slot = add_by_key(header, NULL, &b->passphrases[0],
                      CRYPT_VOLUME_KEY_NO_SEGMENT, err, err_size);
    if (slot >= 0 && b->n_passphrases > 1) {
        ret = add_others(header, b, slot, key, err, err_size);
    }
    return ret < 0 ? ret : slot;
}

/* --- libcryptsetup begins --- */

static int init(WeirHeader *header, const WeirHeaderBegin *b, int old_slot,
                int new_slot, char *err, size_t err_size)
{
    static const crypt_reencrypt_mode_info modes[] = {
        [WEIR_JOB_ENCRYPT] = CRYPT_REENCRYPT_ENCRYPT,
        [WEIR_JOB_REKEY] = CRYPT_REENCRYPT_REENCRYPT,
        [WEIR_JOB_DECRYPT] = CRYPT_REENCRYPT_DECRYPT,
    };
    const struct crypt_params_luks2 luks2 = {
        .sector_size = header->info.sector_bytes,
    };
    const struct crypt_params_reencrypt params = {
        .mode = modes[b->mode],
        .direction = b->backward || b->moves ? CRYPT_REENCRYPT_BACKWARD
                                             : CRYPT_REENCRYPT_FORWARD,
        .resilience = b->moves ? "datashift" : "checksum",
        .hash = b->moves ? NULL : "sha256",
        .data_shift = b->moves ? header->info.data_offset_bytes / UNIT_BYTES
                               : 0,
        .luks2 = b->mode == WEIR_JOB_DECRYPT ? NULL : &luks2,
        .flags = CRYPT_REENCRYPT_INITIALIZE_ONLY |
                 (b->moves ? CRYPT_REENCRYPT_MOVE_FIRST_SEGMENT : 0),
    };
    bool is_crypt = b->mode != WEIR_JOB_DECRYPT;
    int ret;

    header->log[0] = 0;
    ret = crypt_reencrypt_init_by_passphrase(header->device, NULL,
                                             b->passphrases[0].bytes,
                                             b->passphrases[0].n_bytes,
                                             old_slot, new_slot,
                                             is_crypt ? "aes" : NULL,
                                             is_crypt ? "xts-plain64" : NULL,
                                             &params);
    return ret < 0 ? weir_header_fail(header, ret, err, err_size,
                                      "the re-encryption cannot begin") : 0;
}

/*
 * keyslot: what the first passphrase opens; what that costs is paid.
 * key: room for a volume key.
 */
static int begin(WeirHeader *header, const WeirHeaderBegin *b, int keyslot,
                 void *key, char *err, size_t err_size)
{
    int old_slot = b->mode == WEIR_JOB_ENCRYPT ? CRYPT_ANY_SLOT : keyslot;
    int new_slot = b->mode == WEIR_JOB_DECRYPT ? CRYPT_ANY_SLOT : keyslot;
    int ret = b->mode == WEIR_JOB_REKEY && !b->detached
              ? 0 : set_data_device(header, b->disk_bytes);

    if (ret < 0) {
        snprintf(err, err_size, "libcryptsetup does not take the memory for "
                 "the data: %s", strerror(-ret));
        return ret;
    }
    if (b->mode == WEIR_JOB_REKEY) {
        new_slot = add_new_key(header, b, key, err, err_size);
        if (new_slot < 0) {
            return new_slot;
        }
    }
    return init(header, b, old_slot, new_slot, err, err_size);
}

/* --- blocks --- */

static int write_copies(WeirHeader *header, const WeirMetadata *m)
{
    size_t bytes = weir_metadata_copy_bytes(m);

    for (int i = 0; i < WEIR_METADATA_COPIES; i++) {
        if (pwrite(header->fd, weir_metadata_copy(m, i), bytes, i * bytes) !=
            (ssize_t)bytes) {
            return -EIO;
        }
    }
    return 0;
}

static int change_block(WeirHeader *header, WeirMetadata *m,
                        const void *before, const void *after, char *err,
                        size_t err_size)
{
    const char *json;
    WeirJob *job;
    int ret = weir_job_load(&job, weir_metadata_json(m), err, err_size);

    if (ret < 0) {
        return ret;
    }
    ret = weir_job_check_digest(job, before, after, err, err_size);
    if (ret == 0) {
        json = weir_job_set_block(job, header->info.sector_bytes, before,
                                  after);
        ret = json ? weir_metadata_set(m, json) : -ENOMEM;
        if (ret == 0) {
            ret = write_copies(header, m);
        }
        if (ret < 0) {
            snprintf(err, err_size, "the header cannot be changed: %s",
                     strerror(-ret));
        }
    }
    weir_job_free(job);
    return ret;
}

/*
 * libcryptsetup takes the blocks of its file, 4096 bytes. A disk need not write
 * so many as one; it does write sectors as one.
 */
static int shrink_blocks(WeirHeader *header, const void *before,
                         const void *after, char *err, size_t err_size)
{
    uint8_t *bytes = malloc(header->info.header_bytes);
    WeirMetadata *m = NULL;
    int ret = bytes ? weir_header_read(header, bytes) : -ENOMEM;

    if (ret < 0) {
        snprintf(err, err_size, "no memory for the header");
    } else {
        ret = weir_metadata_load(&m, bytes, header->info.header_bytes, err,
                                 err_size);
    }
    if (ret == 0) {
        ret = change_block(header, m, before, after, err, err_size);
    }
    weir_metadata_free(m);
    free(bytes);
    return ret;
}

static int begun(WeirHeader *header, const WeirHeaderBegin *b, uint8_t *keys,
                 char *err, size_t err_size)
{
    uint8_t *before = keys, *after = keys + KEY_BYTES_MAX;
    uint64_t header_disk_bytes = b->detached ? header->info.header_bytes
                                             : b->disk_bytes;
    int ret = weir_header_unlock_job(header, b->passphrases[0].bytes,
                                     b->passphrases[0].n_bytes, &b->limits,
                                     before, after, err, err_size);

    if (ret >= 0) {
        ret = b->moves ? 0 : shrink_blocks(header, before, after, err,
                                           err_size);
    }
    if (ret == 0) {
        weir_header_enter();
        ret = weir_header_reload(header, err, err_size);
        if (ret == 0) {
            ret = weir_header_check(header, header_disk_bytes, b->detached,
                                    err, err_size);
        }
        weir_header_leave();
    }
    return ret;
}

int weir_header_begin_job(WeirHeader *header, const WeirHeaderBegin *b,
                          char *err, size_t err_size)
{
    void *keys;
    int ret = check_begin(header, b, err, err_size);

    if (ret < 0) {
        return ret;
    }
    ret = weir_secret_new(&keys, 2 * KEY_BYTES_MAX);
    if (ret < 0) {
        snprintf(err, err_size, "no locked memory for the volume keys: %s",
                 strerror(-ret));
        return ret;
    }
    ret = weir_header_unlock(header, WEIR_HEADER_ANY_KEYSLOT,
                             b->passphrases[0].bytes,
                             b->passphrases[0].n_bytes, &b->limits, keys, err,
                             err_size);
    if (ret >= 0) {
        weir_header_enter();
        ret = begin(header, b, ret, keys, err, err_size);
        weir_header_leave();
    }
    if (ret == 0) {
        ret = begun(header, b, keys, err, err_size);
    }
    weir_secret_free(keys, 2 * KEY_BYTES_MAX);
    return ret;
}
