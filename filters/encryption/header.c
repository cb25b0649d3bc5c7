/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/zero.h"
#include "encryption/header-int.h"
#include "encryption/json.h"

#define COPY_BYTES (64 * 1024)

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;

void weir_header_enter(void)
{
    pthread_mutex_lock(&library_lock);
}

void weir_header_leave(void)
{
    pthread_mutex_unlock(&library_lock);
}

/* --- libcryptsetup --- */

static void log_message(int level, const char *message, void *opaque)
{
    WeirHeader *header = opaque;

    if (header && level == CRYPT_LOG_ERROR) {
        snprintf(header->log, sizeof(header->log), "%s", message);
        header->log[strcspn(header->log, "\n")] = 0;
    }
}

void weir_header_catch_log(WeirHeader *header)
{
    crypt_set_log_callback(header->device, log_message, header);
}

int weir_header_fail(WeirHeader *header, int ret, char *err, size_t err_size,
                     const char *text)
{
    snprintf(err, err_size, "%s%s%s", text, header->log[0] ? ": " : "",
             header->log);
    return ret;
}

const char *weir_header_text(WeirHeader *header)
{
    const char *text = NULL;

    return crypt_dump_json(header->device, &text, 0) < 0 ? NULL : text;
}

json_object *weir_header_json(WeirHeader *header)
{
    return weir_json_parse(weir_header_text(header));
}

/* --- memory --- */

int weir_header_memfd(uint64_t bytes)
{
    int fd, ret;

    if (bytes > INT64_MAX) {
        return -EFBIG;
    }
    fd = memfd_create("weir-luks2", MFD_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, bytes) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

void weir_header_fd_path(char path[FD_PATH_BYTES], int fd)
{
    snprintf(path, FD_PATH_BYTES, "/proc/self/fd/%d", fd);
}

int weir_header_new(WeirHeader **out, uint64_t disk_bytes, char *err,
                    size_t err_size)
{
    WeirHeader *header = calloc(1, sizeof(*header));
    int fd;

    *out = NULL;
    fd = header ? weir_header_memfd(disk_bytes) : -ENOMEM;
    if (fd < 0) {
        snprintf(err, err_size, "no memory for the header: %s", strerror(-fd));
        free(header);
        return fd;
    }
    header->fd = fd;
    header->data_fd = -1;
    *out = header;
    return 0;
}

void weir_header_free(WeirHeader *header)
{
    if (!header) {
        return;
    }
    weir_header_enter();
    crypt_free(header->device);
    weir_header_leave();
    close(header->fd);
    if (header->data_fd >= 0) {
        close(header->data_fd);
    }
    free(header->on_disk);
    free(header->repaired);
    free(header->used);
    free(header);
}

int weir_header_give(WeirHeader **out, WeirHeader *header, int ret)
{
    if (ret < 0) {
        weir_header_free(header);
        header = NULL;
    }
    *out = header;
    return ret;
}

void weir_header_copy_sparse(uint8_t *to, const uint8_t *from, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes; at += COPY_BYTES) {
        size_t n = n_bytes - at < COPY_BYTES ? n_bytes - at : COPY_BYTES;

        if (!weir_is_zero(from + at, n)) {
            memcpy(to + at, from + at, n);
        }
    }
}

/* Most of a header is zeroes, which the memfd need not hold. */
static int copy_in(WeirHeader *header, const uint8_t *bytes, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes; at += COPY_BYTES) {
        size_t n = n_bytes - at < COPY_BYTES ? n_bytes - at : COPY_BYTES;

        if (weir_is_zero(bytes + at, n)) {
            continue;
        }
        if (pwrite(header->fd, bytes + at, n, at) != (ssize_t)n) {
            return -ENOMEM;
        }
    }
    return 0;
}

int weir_header_read(WeirHeader *header, void *bytes)
{
    size_t left = header->info.header_bytes;
    uint8_t *to = bytes;
    off_t at = 0;

    while (left > 0) {
        ssize_t n = pread(header->fd, to, left, at);

        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        to += n;
        at += n;
        left -= n;
    }
    return 0;
}

const WeirHeaderInfo *weir_header_info(const WeirHeader *header)
{
    return &header->info;
}

/* --- is it an image for us? --- */

static int check_requirements(WeirHeader *header, char *err, size_t err_size)
{
    uint32_t flags = 0;

    if (crypt_persistent_flags_get(header->device, CRYPT_FLAGS_REQUIREMENTS,
                                   &flags) < 0) {
        return weir_header_fail(header, -EINVAL, err, err_size,
                                "the header's requirements cannot be read");
    }
    header->info.has_job = flags == CRYPT_REQUIREMENT_ONLINE_REENCRYPT &&
                           weir_job_exists(weir_header_text(header));
    if (header->info.has_job) {
        return 0;
    }
    if (flags & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT |
                 CRYPT_REQUIREMENT_ONLINE_REENCRYPT)) {
        snprintf(err, err_size, "a re-encryption of the image has begun and "
                 "not ended; finish it with 'cryptsetup reencrypt' first");
        return -ENOTSUP;
    }
    if (flags) {
        snprintf(err, err_size, "the header requires something that is not "
                 "known here");
        return -ENOTSUP;
    }
    return 0;
}

static int check_segment(json_object *json, char *err, size_t err_size)
{
    json_object *segments = weir_json_member(json, "segments");
    json_object *segment = weir_json_member(segments, "0");
    const char *why = NULL;

    if (weir_json_count(segments) != 1 || !segment) {
        why = "the image has other segments than a single one";
    } else if (!weir_json_is(segment, "type", "crypt")) {
        why = "the image is not encrypted: the type of its segment is not "
              "'crypt'";
    } else if (weir_json_member(segment, "integrity")) {
        why = "the image has integrity protection, which is not supported";
    } else if (!weir_json_is(segment, "encryption", "aes-xts-plain64")) {
        why = "the image has another cipher than aes-xts-plain64";
    }
    if (why) {
        snprintf(err, err_size, "%s", why);
        return -ENOTSUP;
    }
    return 0;
}

/* Where the data is; nothing of it may wrap around. */
static int check_place(WeirHeader *header, json_object *json, bool detached,
                       char *err, size_t err_size)
{
    json_object *segment = weir_json_member(weir_json_member(json, "segments"),
                                            "0");
    WeirHeaderInfo *info = &header->info;
    uint64_t bytes = INT64_MAX, last;

    info->data_bytes = UINT64_MAX;
    if (!weir_json_u64(segment, "offset", &info->data_offset_bytes) ||
        !weir_json_u64(segment, "iv_tweak", &info->tweak_units) ||
        (!weir_json_is(segment, "size", "dynamic") &&
         !weir_json_u64(segment, "size", &info->data_bytes))) {
        snprintf(err, err_size, "offset, size or tweak of the image's data is "
                 "no number");
        return -EINVAL;
    }
    if (info->data_bytes != UINT64_MAX) {
        bytes = info->data_bytes;
    }
    if (info->data_offset_bytes > INT64_MAX ||
        (info->data_bytes != UINT64_MAX &&
         bytes > INT64_MAX - info->data_offset_bytes) ||
        __builtin_add_overflow(info->tweak_units, bytes / 512, &last)) {
        snprintf(err, err_size, "offset, size or tweak of the image's data is "
                 "too large");
        return -EINVAL;
    }
    if (!detached && info->data_offset_bytes < info->header_bytes) {
        snprintf(err, err_size, "the image's data at %llu overlaps its "
                 "header; is the header meant to be on another disk?",
                 (unsigned long long)info->data_offset_bytes);
        return -EINVAL;
    }
    return 0;
}

/* How long the header says that it is. */
static int check_length(WeirHeader *header, json_object *json,
                        uint64_t disk_bytes, char *err, size_t err_size)
{
    uint64_t metadata_bytes = 0, keyslots_bytes = 0;

    if (crypt_get_metadata_size(header->device, &metadata_bytes,
                                &keyslots_bytes) < 0 || !json) {
        return weir_header_fail(header, -EINVAL, err, err_size,
                                "the length of the header cannot be told");
    }
    if (metadata_bytes > WEIR_HEADER_BYTES_MAX / METADATA_COPIES ||
        keyslots_bytes > WEIR_HEADER_BYTES_MAX -
                         METADATA_COPIES * metadata_bytes) {
        snprintf(err, err_size, "the header says that it is longer than a "
                 "header can be");
        return -EINVAL;
    }
    header->info.copy_bytes = metadata_bytes;
    header->info.header_bytes = METADATA_COPIES * metadata_bytes +
                                keyslots_bytes;
    if (header->info.header_bytes > disk_bytes) {
        snprintf(err, err_size, "the header is cut off: it has %llu bytes, "
                 "the disk %llu",
                 (unsigned long long)header->info.header_bytes,
                 (unsigned long long)disk_bytes);
        return -EINVAL;
    }
    return 0;
}

static int check_sizes(WeirHeader *header, char *err, size_t err_size)
{
    WeirHeaderInfo *info = &header->info;
    int key_bytes = crypt_get_volume_key_size(header->device);
    int sector_bytes = crypt_get_sector_size(header->device);

    if (key_bytes <= 0 && !header->n_keyslots) {
        key_bytes = 64;                 /* erased: nothing opens it anyway */
    }
    if (key_bytes != 32 && key_bytes != 64) {
        snprintf(err, err_size, "the volume key has %d bytes; only 32 and 64 "
                 "are supported", key_bytes);
        return -ENOTSUP;
    }
    if (sector_bytes != 512 && sector_bytes != 1024 && sector_bytes != 2048 &&
        sector_bytes != 4096) {
        snprintf(err, err_size, "the image has sectors of %d bytes",
                 sector_bytes);
        return -EINVAL;
    }
    info->key_bytes = key_bytes;
    info->sector_bytes = sector_bytes;
    if (info->data_offset_bytes % sector_bytes ||
        (info->data_bytes != UINT64_MAX && info->data_bytes % sector_bytes)) {
        snprintf(err, err_size, "offset or size of the image's data is not a "
                 "multiple of its sectors of %d bytes", sector_bytes);
        return -EINVAL;
    }
    return 0;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The segments of a job change; what stays is what it says of its sides. */
static int check_job(WeirHeader *header, bool detached, char *err,
                     size_t err_size)
{
    WeirHeaderInfo *info = &header->info;
    const WeirJobInfo *found;
    WeirJob *job;
    int ret = weir_job_load(&job, weir_header_text(header), err, err_size);

    if (ret < 0) {
        return ret;
    }
    found = weir_job_info(job);
    info->data_bytes = found->shift_bytes ? found->data_bytes : UINT64_MAX;
    info->data_offset_bytes = found->data_offset_bytes;
    info->key_bytes = larger(found->before.key_bytes, found->after.key_bytes);
    info->sector_bytes = larger(found->before.sector_bytes,
                                found->after.sector_bytes);
    if (found->area_bytes > info->header_bytes ||
        found->area_offset > info->header_bytes - found->area_bytes ||
        (!detached && info->data_offset_bytes < info->header_bytes)) {
        snprintf(err, err_size, "the area of the re-encryption's checksums is "
                 "not in the header, or the data overlaps the header");
        ret = -EINVAL;
    }
    weir_job_free(job);
    return ret;
}

static int check_json(WeirHeader *header, json_object *json,
                      uint64_t disk_bytes, bool detached, char *err,
                      size_t err_size)
{
    int ret = check_length(header, json, disk_bytes, err, err_size);

    if (ret == 0) {
        ret = check_requirements(header, err, err_size);
    }
    if (ret == 0) {
        ret = weir_header_read_binding(header, json, err, err_size);
    }
    if (ret == 0 && header->info.has_job) {
        weir_header_list_keyslots(header);
        return check_job(header, detached, err, err_size);
    }
    if (ret == 0) {
        ret = check_segment(json, err, err_size);
    }
    if (ret == 0) {
        ret = check_place(header, json, detached, err, err_size);
    }
    if (ret == 0) {
        weir_header_list_keyslots(header);
        ret = check_sizes(header, err, err_size);
    }
    return ret;
}

int weir_header_check(WeirHeader *header, uint64_t disk_bytes, bool detached,
                      char *err, size_t err_size)
{
    const char *uuid = crypt_get_uuid(header->device);
    json_object *json = weir_header_json(header);
    int ret;

    snprintf(header->info.uuid, sizeof(header->info.uuid), "%s",
             uuid ? uuid : "");
    ret = check_json(header, json, disk_bytes, detached, err, err_size);
    json_object_put(json);
    return ret;
}

/* --- load --- */

static int load_device(WeirHeader *header, char *err, size_t err_size)
{
    char path[FD_PATH_BYTES];
    int ret;

    weir_header_fd_path(path, header->fd);
    ret = crypt_init(&header->device, path);
    if (ret < 0) {
        snprintf(err, err_size, "libcryptsetup does not take %s: %s", path,
                 strerror(-ret));
        return ret;
    }
    weir_header_catch_log(header);
    ret = crypt_load(header->device, CRYPT_LUKS2, NULL);
    return ret < 0 ? weir_header_fail(header, -EINVAL, err, err_size,
                                      "no valid LUKS2 header") : 0;
}

int weir_header_reload(WeirHeader *header, char *err, size_t err_size)
{
    crypt_free(header->device);
    header->device = NULL;
    return load_device(header, err, err_size);
}

/* libcryptsetup repairs a bad copy of the metadata from the other. */
static int keep_repaired(WeirHeader *header)
{
    size_t n_bytes = METADATA_COPIES * header->info.copy_bytes;
    uint8_t *now = malloc(n_bytes);

    if (!now) {
        return -ENOMEM;
    }
    if (pread(header->fd, now, n_bytes, 0) != (ssize_t)n_bytes) {
        free(now);
        return -EIO;
    }
    if (!memcmp(now, header->on_disk, n_bytes)) {
        free(now);
        return 0;
    }
    header->info.repaired = true;
    header->repaired = now;
    return 0;
}

/* What an update will need: what the disk has. */
static int remember(WeirHeader *header, const void *bytes, char *err,
                    size_t err_size)
{
    int ret = weir_header_set_on_disk(header, bytes);

    if (ret == 0) {
        ret = keep_repaired(header);
    }
    if (ret < 0) {
        snprintf(err, err_size, "no memory for the header");
    }
    return ret;
}

static int load(WeirHeader *header, const void *bytes, size_t n_bytes,
                uint64_t disk_bytes, bool detached, uint64_t *needed_bytes,
                char *err, size_t err_size)
{
    int ret = copy_in(header, bytes, n_bytes);

    if (ret < 0) {
        snprintf(err, err_size, "no memory for the header");
        return ret;
    }
    ret = load_device(header, err, err_size);
    if (ret == 0) {
        ret = weir_header_check(header, disk_bytes, detached, err, err_size);
    }
    if (ret == 0 && header->info.header_bytes > n_bytes) {
        *needed_bytes = header->info.header_bytes;
        snprintf(err, err_size, "the header is longer than what was read");
        return -EMSGSIZE;
    }
    return ret == 0 ? remember(header, bytes, err, err_size) : ret;
}

int weir_header_load(WeirHeader **out, const void *bytes, size_t n_bytes,
                     uint64_t disk_bytes, bool detached,
                     uint64_t *needed_bytes, char *err, size_t err_size)
{
    WeirHeader *header;
    int ret;

    *out = NULL;
    *needed_bytes = 0;
    if (n_bytes > WEIR_HEADER_BYTES_MAX || n_bytes > disk_bytes) {
        snprintf(err, err_size, "more than a header was read");
        return -EINVAL;
    }
    /* never too short for libcryptsetup: check_length() has the better words */
    ret = weir_header_new(&header, disk_bytes > WEIR_HEADER_BYTES_MAX
                          ? disk_bytes : WEIR_HEADER_BYTES_MAX, err, err_size);
    if (ret < 0) {
        return ret;
    }
    weir_header_enter();
    ret = load(header, bytes, n_bytes, disk_bytes, detached, needed_bytes,
               err, err_size);
    weir_header_leave();
    return weir_header_give(out, header, ret);
}
