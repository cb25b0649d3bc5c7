/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Write a cache that is full and was closed to a file, which is sparse where
 * the data would be. Its disk is all zeroes.
 *
 * usage: make-cache GIB FILE
 *
 * Prints the length of the disk, the slots in use, and the bytes of the table.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "made-cache.h"

int main(int argc, char **argv)
{
    MadeCache *made = malloc(sizeof(*made));
    double gib = argc == 3 ? strtod(argv[1], NULL) : 0;
    int fd, ret;

    if (!made || !(gib > 0 && gib <= 16384)) {
        fprintf(stderr, "usage: make-cache GIB FILE\n");
        return 2;
    }
    ret = made_cache_init(made, (uint64_t)(gib * (double)(1 << 30)),
                          MADE_CLOSED);
    fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (ret == 0) {
        ret = fd < 0 ? -errno : made_cache_write(made, fd);
    }
    if (fd >= 0 && close(fd) < 0 && ret == 0) {
        ret = -errno;
    }
    if (ret < 0) {
        fprintf(stderr, "make-cache: %s: %s\n", argv[2], strerror(-ret));
        return 1;
    }
    printf("%" PRIu64 " %" PRIu32 " %" PRIu64 "\n", made->sb.base_bytes,
           made->mapped, (uint64_t)made->sb.layout.table_sectors *
                         WEIR_CACHE_SECTOR_BYTES);
    free(made);
    return 0;
}
