/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ours.h"

#include <sys/stat.h>
#include <unistd.h>

bool weir_is_ours(int fd, mode_t type)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type &&
           st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH));
}
