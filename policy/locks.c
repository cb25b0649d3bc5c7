/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "locks.h"

#include <fcntl.h>
#include <unistd.h>

bool weir_file_is_locked(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
