/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "encryption/secret.h"

static int protect(void *secret, size_t bytes)
{
    if (mlock(secret, bytes) < 0 ||
        madvise(secret, bytes, MADV_DONTDUMP) < 0 ||
        madvise(secret, bytes, MADV_WIPEONFORK) < 0) {
        return -errno;
    }
    return 0;
}

int weir_secret_new(void **secret, size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int ret;

    *secret = NULL;
    if (memory == MAP_FAILED) {
        return -errno;
    }
    ret = protect(memory, bytes);
    if (ret < 0) {
        munmap(memory, bytes);
        return ret;
    }
    *secret = memory;
    return 0;
}

void weir_secret_free(void *secret, size_t bytes)
{
    if (secret) {
        explicit_bzero(secret, bytes);
        munmap(secret, bytes);
    }
}
