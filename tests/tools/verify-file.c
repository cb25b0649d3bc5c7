/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "verify-target.h"

typedef struct FileTarget {
    VerifyTarget target;        /* first */
    int fd;
    bool is_device;
} FileTarget;

static int file_fd(const VerifyTarget *target)
{
    return ((const FileTarget *)target)->fd;
}

/* What is left of a request after a call that returned n. */
static int file_advance(ssize_t n, char **data, uint64_t *bytes,
                        uint64_t *offset)
{
    if (n < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    if (n == 0) {
        return -EIO;
    }
    *data += n;
    *offset += (uint64_t)n;
    *bytes -= (uint64_t)n;
    return 0;
}

static int file_read(VerifyTarget *target, void *data, uint64_t bytes,
                     uint64_t offset)
{
    char *p = data;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        ret = file_advance(pread(file_fd(target), p, bytes, (off_t)offset),
                           &p, &bytes, &offset);
    }
    return ret;
}

static int file_write(VerifyTarget *target, const void *data, uint64_t bytes,
                      uint64_t offset)
{
    char *p = (char *)data;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        ret = file_advance(pwrite(file_fd(target), p, bytes, (off_t)offset),
                           &p, &bytes, &offset);
    }
    return ret;
}

static int file_range(const VerifyTarget *target, unsigned long request,
                      int mode, uint64_t bytes, uint64_t offset)
{
    const FileTarget *file = (const FileTarget *)target;
    uint64_t range[2] = { offset, bytes };
    int ret;

    if (file->is_device) {
        ret = ioctl(file->fd, request, range);
    } else {
        ret = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                        (off_t)bytes);
    }
    return ret < 0 ? -errno : 0;
}

static int file_zero(VerifyTarget *target, uint64_t bytes, uint64_t offset)
{
    return file_range(target, BLKZEROOUT, FALLOC_FL_ZERO_RANGE, bytes, offset);
}

static int file_discard(VerifyTarget *target, uint64_t bytes, uint64_t offset)
{
    return file_range(target, BLKDISCARD, FALLOC_FL_PUNCH_HOLE, bytes, offset);
}

static int file_flush(VerifyTarget *target)
{
    return fsync(file_fd(target)) < 0 ? -errno : 0;
}

static void file_close(VerifyTarget *target)
{
    close(file_fd(target));
    free(target);
}

static const VerifyTargetOps file_ops = {
    .read = file_read,
    .write = file_write,
    .zero = file_zero,
    .discard = file_discard,
    .flush = file_flush,
    .close = file_close,
};

static int file_find_size(FileTarget *file)
{
    struct stat st;

    if (fstat(file->fd, &st) < 0) {
        return -errno;
    }
    file->target.size_bytes = (uint64_t)st.st_size;
    file->is_device = S_ISBLK(st.st_mode);
    if (file->is_device &&
        ioctl(file->fd, BLKGETSIZE64, &file->target.size_bytes) < 0) {
        return -errno;
    }
    return 0;
}

VerifyTarget *verify_file_open(const char *path, bool direct)
{
    FileTarget *file = calloc(1, sizeof(*file));
    int ret;

    if (!file) {
        fprintf(stderr, "weir-verify: out of memory\n");
        return NULL;
    }
    file->target.ops = &file_ops;
    file->fd = open(path, O_RDWR | O_CLOEXEC | (direct ? O_DIRECT : 0));
    ret = file->fd < 0 ? -errno : file_find_size(file);
    if (ret < 0) {
        fprintf(stderr, "weir-verify: %s: %s\n", path, strerror(-ret));
        if (file->fd >= 0) {
            close(file->fd);
        }
        free(file);
        return NULL;
    }
    return &file->target;
}
