/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "imagelock.h"

#include <fcntl.h>
#include <unistd.h>

/* QEMU's RAW_LOCK_PERM_BASE, and the number of BLK_PERM_WRITE */
#define IMAGE_LOCK_WRITE (100 + 1)

bool weir_image_is_free(const char *path, GError **error)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = IMAGE_LOCK_WRITE,
        .l_len = 1,
    };
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool written;

    if (fd < 0) {
        return true;        /* who opens it will tell */
    }
    /* a file system without locks has none for QEMU either */
    written = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    close(fd);
    if (written) {
        weir_set_error(error, "another process writes to %s (it has QEMU's "
                       "lock)", path);
    }
    return !written;
}
