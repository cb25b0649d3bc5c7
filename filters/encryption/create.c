/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "encryption/header-int.h"

/* Room for the header of an attached image; what cryptsetup takes. */
#define DATA_OFFSET_BYTES WEIR_HEADER_BYTES_USUAL
#define UNIT_BYTES 512
/* Some length for the disk with the data: a detached header fits to any. */
#define STAND_IN_BYTES (UINT64_C(1) << 30)

int weir_header_set_kdf(WeirHeader *header, const WeirHeaderKdf *kdf,
                        char *err, size_t err_size)
{
    const struct crypt_pbkdf_type type = {
        .type = kdf->type,
        .hash = "sha256",
        .iterations = kdf->iterations,
        .max_memory_kb = kdf->memory_kib,
        .parallel_threads = kdf->threads,
        .flags = CRYPT_PBKDF_NO_BENCHMARK,
    };

    header->log[0] = 0;
    return crypt_set_pbkdf_type(header->device, &type) < 0
           ? weir_header_fail(header, -EINVAL, err, err_size,
                              "these parameters for the keyslot are refused")
           : 0;
}

static int check_format(const WeirHeaderFormat *format, char *err,
                        size_t err_size)
{
    const char *why = NULL;

    if (format->key_bytes != 32 && format->key_bytes != 64) {
        why = "the volume key must have 32 or 64 bytes";
    } else if (format->sector_bytes != 512 && format->sector_bytes != 4096) {
        why = "sectors must have 512 or 4096 bytes";
    } else if (format->disk_bytes < WEIR_HEADER_BYTES_USUAL) {
        why = "the header needs 16 MiB";
    } else if (!format->detached && format->disk_bytes <
               DATA_OFFSET_BYTES + (uint64_t)format->sector_bytes) {
        why = "there is no room for data behind the header of 16 MiB";
    }
    if (why) {
        snprintf(err, err_size, "%s", why);
        return -EINVAL;
    }
    return 0;
}

/* A device over the memfd, and another one for the data if that is apart. */
static int init_device(WeirHeader *header, bool detached)
{
    char path[FD_PATH_BYTES], data_path[FD_PATH_BYTES];

    weir_header_fd_path(path, header->fd);
    if (!detached) {
        return crypt_init(&header->device, path);
    }
    header->data_fd = weir_header_memfd(STAND_IN_BYTES);
    if (header->data_fd < 0) {
        return header->data_fd;
    }
    weir_header_fd_path(data_path, header->data_fd);
    return crypt_init_data_device(&header->device, path, data_path);
}

static int format_device(WeirHeader *header, const WeirHeaderFormat *format,
                         const WeirHeaderKdf *kdf, char *err, size_t err_size)
{
    struct crypt_params_luks2 params = { .sector_size = format->sector_bytes };
    uint64_t offset = format->detached ? 0 : DATA_OFFSET_BYTES;
    int ret = init_device(header, format->detached);

    if (ret < 0) {
        snprintf(err, err_size, "libcryptsetup does not take the memory for "
                 "the header: %s", strerror(-ret));
        return ret;
    }
    weir_header_catch_log(header);
    ret = weir_header_set_kdf(header, kdf, err, err_size);
    if (ret < 0) {
        return ret;
    }
    if (crypt_set_data_offset(header->device, offset / UNIT_BYTES) < 0 ||
        crypt_format(header->device, CRYPT_LUKS2, "aes", "xts-plain64",
                     format->uuid, NULL, format->key_bytes, &params) < 0) {
        return weir_header_fail(header, -EINVAL, err, err_size,
                                "the header cannot be made");
    }
    return 0;
}

/* The key is the one that crypt_format() has made. */
static int add_first_keyslot(WeirHeader *header, const void *passphrase,
                             size_t passphrase_bytes, char *err,
                             size_t err_size)
{
    int ret = crypt_keyslot_add_by_volume_key(header->device, 0, NULL, 0,
                                              passphrase, passphrase_bytes);

    return ret < 0 ? weir_header_fail(header, ret, err, err_size,
                                      "the first keyslot cannot be made") : 0;
}

int weir_header_create(WeirHeader **out, const WeirHeaderFormat *format,
                       const WeirHeaderKdf *kdf, const void *passphrase,
                       size_t passphrase_bytes, char *err, size_t err_size)
{
    WeirHeader *header;
    int ret = check_format(format, err, err_size);

    *out = NULL;
    if (ret == 0) {
        ret = weir_header_new(&header, format->disk_bytes, err, err_size);
    }
    if (ret < 0) {
        return ret;
    }
    weir_header_enter();
    ret = format_device(header, format, kdf, err, err_size);
    if (ret == 0) {
        ret = add_first_keyslot(header, passphrase, passphrase_bytes, err,
                                err_size);
    }
    if (ret == 0) {
        ret = weir_header_check(header, format->disk_bytes, format->detached,
                                err, err_size);
    }
    if (ret == 0 && weir_header_set_on_disk(header, NULL) < 0) {
        snprintf(err, err_size, "no memory for the header");
        ret = -ENOMEM;
    }
    weir_header_leave();
    return weir_header_give(out, header, ret);
}
