/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One file by several names. */
#ifndef WEIR_SAMEFILE_H
#define WEIR_SAMEFILE_H

#include <stdbool.h>

/* Whether two paths are one, or lead to one file. */
bool weir_same_file(const char *a, const char *b);

/*
 * Whether descriptor @fd is what @path leads to: a lock of a file that has
 * been removed meanwhile is one of nothing.
 */
bool weir_fd_is_at(int fd, const char *path);

#endif
