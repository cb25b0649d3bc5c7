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

static int check_begin(WeirHeader *header, WeirJobMode mode,
                       uint64_t disk_bytes, bool detached, char *err,
                       size_t err_size)
{
    const WeirHeaderInfo *info = &header->info;
    const char *why = NULL;

    if (info->has_job) {
        why = "a re-encryption of the image has begun already";
    } else if (info->tweak_units || info->data_bytes != UINT64_MAX) {
        why = "the image has a tweak or a fixed size, with which it cannot be "
              "re-encrypted";
    } else if (mode != WEIR_JOB_REKEY && !detached) {
        why = "a disk can be encrypted or decrypted in place only with a "
              "detached header";
    } else if (disk_bytes <= info->data_offset_bytes ||
               (disk_bytes - info->data_offset_bytes) % info->sector_bytes) {
        why = "the length of the data is not a multiple of the sector size";
    }
    if (why) {
        snprintf(err, err_size, "%s", why);
        return -ENOTSUP;
    }
    return 0;
}

/* Returns the keyslot with a new volume key. */
static int add_new_key(WeirHeader *header, const WeirHeaderKdf *kdf,
                       const void *passphrase, size_t passphrase_bytes,
                       char *err, size_t err_size)
{
    int ret = weir_header_set_kdf(header, kdf, err, err_size);

    if (ret == 0) {
        ret = crypt_keyslot_add_by_key(header->device, CRYPT_ANY_SLOT, NULL,
                                       header->info.key_bytes, passphrase,
                                       passphrase_bytes,
                                       CRYPT_VOLUME_KEY_NO_SEGMENT);
        if (ret < 0) {
            weir_header_fail(header, ret, err, err_size, "there is no room "
                             "for a keyslot with the new volume key");
        }
    }
    return ret;
}

static int init(WeirHeader *header, WeirJobMode mode, bool backward,
                const void *passphrase, size_t passphrase_bytes, int old_slot,
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
        .mode = modes[mode],
        .direction = backward ? CRYPT_REENCRYPT_BACKWARD
                              : CRYPT_REENCRYPT_FORWARD,
        .resilience = "checksum",
        .hash = "sha256",
        .luks2 = mode == WEIR_JOB_DECRYPT ? NULL : &luks2,
        .flags = CRYPT_REENCRYPT_INITIALIZE_ONLY,
    };
    bool is_crypt = mode != WEIR_JOB_DECRYPT;
    int ret;

    header->log[0] = 0;
    ret = crypt_reencrypt_init_by_passphrase(header->device, NULL, passphrase,
                                             passphrase_bytes, old_slot,
                                             new_slot,
                                             is_crypt ? "aes" : NULL,
                                             is_crypt ? "xts-plain64" : NULL,
                                             &params);
    return ret < 0 ? weir_header_fail(header, ret, err, err_size,
                                      "the re-encryption cannot begin") : 0;
}

/* Old and new keyslot are known; what they cost is paid. */
static int begin(WeirHeader *header, WeirJobMode mode, bool backward,
                 uint64_t disk_bytes, bool detached, const WeirHeaderKdf *kdf,
                 const void *passphrase, size_t passphrase_bytes, int keyslot,
                 char *err, size_t err_size)
{
    int old_slot = mode == WEIR_JOB_ENCRYPT ? CRYPT_ANY_SLOT : keyslot;
    int new_slot = mode == WEIR_JOB_DECRYPT ? CRYPT_ANY_SLOT : keyslot;
    int ret = detached ? set_data_device(header, disk_bytes) : 0;

    if (ret < 0) {
        snprintf(err, err_size, "libcryptsetup does not take the memory for "
                 "the data: %s", strerror(-ret));
        return ret;
    }
    if (mode == WEIR_JOB_REKEY) {
        new_slot = add_new_key(header, kdf, passphrase, passphrase_bytes, err,
                               err_size);
        if (new_slot < 0) {
            return new_slot;
        }
    }
    return init(header, mode, backward, passphrase, passphrase_bytes, old_slot,
                new_slot, err, err_size);
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

static int begun(WeirHeader *header, uint64_t disk_bytes, bool detached,
                 const void *passphrase, size_t passphrase_bytes,
                 const WeirHeaderLimits *limits, uint8_t *keys, char *err,
                 size_t err_size)
{
    uint8_t *before = keys, *after = keys + KEY_BYTES_MAX;
    uint64_t header_disk_bytes = detached ? header->info.header_bytes
                                          : disk_bytes;
    int ret = weir_header_unlock_job(header, passphrase, passphrase_bytes,
                                     limits, before, after, err, err_size);

    if (ret >= 0) {
        ret = shrink_blocks(header, before, after, err, err_size);
    }
    if (ret == 0) {
        weir_header_enter();
        ret = weir_header_reload(header, err, err_size);
        if (ret == 0) {
            ret = weir_header_check(header, header_disk_bytes, detached, err,
                                    err_size);
        }
        weir_header_leave();
    }
    return ret;
}

int weir_header_begin_job(WeirHeader *header, WeirJobMode mode, bool backward,
                          uint64_t disk_bytes, bool detached,
                          const WeirHeaderKdf *kdf, const void *passphrase,
                          size_t passphrase_bytes,
                          const WeirHeaderLimits *limits, char *err,
                          size_t err_size)
{
    void *keys;
    int ret = check_begin(header, mode, disk_bytes, detached, err, err_size);

    if (ret < 0) {
        return ret;
    }
    ret = weir_secret_new(&keys, 2 * KEY_BYTES_MAX);
    if (ret < 0) {
        snprintf(err, err_size, "no locked memory for the volume keys: %s",
                 strerror(-ret));
        return ret;
    }
    ret = weir_header_unlock(header, WEIR_HEADER_ANY_KEYSLOT, passphrase,
                             passphrase_bytes, limits, keys, err, err_size);
    if (ret >= 0) {
        weir_header_enter();
        ret = begin(header, mode, backward, disk_bytes, detached, kdf,
                    passphrase, passphrase_bytes, ret, err, err_size);
        weir_header_leave();
    }
    if (ret == 0) {
        ret = begun(header, disk_bytes, detached, passphrase, passphrase_bytes,
                    limits, keys, err, err_size);
    }
    weir_secret_free(keys, 2 * KEY_BYTES_MAX);
    return ret;
}
