/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "samefile.h"

#include <string.h>
#include <sys/stat.h>

static bool same_inode(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool weir_same_file(const char *a, const char *b)
{
    struct stat stat_a;
    struct stat stat_b;

    return strcmp(a, b) == 0 || (stat(a, &stat_a) == 0 &&
                                 stat(b, &stat_b) == 0 &&
                                 same_inode(&stat_a, &stat_b));
}

bool weir_fd_is_at(int fd, const char *path)
{
    struct stat opened;
    struct stat found;

    return fstat(fd, &opened) == 0 && stat(path, &found) == 0 &&
           same_inode(&opened, &found);
}
