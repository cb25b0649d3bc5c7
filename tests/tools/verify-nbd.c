/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>

#include "verify-target.h"

typedef struct NbdTarget {
    VerifyTarget target;        /* first */
    struct nbd_handle *nbd;
} NbdTarget;

static struct nbd_handle *nbd_of(const VerifyTarget *target)
{
    return ((const NbdTarget *)target)->nbd;
}

static int nbd_result(int ret)
{
    if (ret == 0) {
        return 0;
    }
    return nbd_get_errno() ? -nbd_get_errno() : -EIO;
}

static int nbd_target_read(VerifyTarget *target, void *data, uint64_t bytes,
                           uint64_t offset)
{
    return nbd_result(nbd_pread(nbd_of(target), data, bytes, offset, 0));
}

static int nbd_target_write(VerifyTarget *target, const void *data,
                            uint64_t bytes, uint64_t offset)
{
    return nbd_result(nbd_pwrite(nbd_of(target), data, bytes, offset, 0));
}

static int nbd_target_zero(VerifyTarget *target, uint64_t bytes,
                           uint64_t offset)
{
    if (nbd_can_zero(nbd_of(target)) <= 0) {
        return -EOPNOTSUPP;
    }
    return nbd_result(nbd_zero(nbd_of(target), bytes, offset, 0));
}

static int nbd_target_discard(VerifyTarget *target, uint64_t bytes,
                              uint64_t offset)
{
    if (nbd_can_trim(nbd_of(target)) <= 0) {
        return -EOPNOTSUPP;
    }
    return nbd_result(nbd_trim(nbd_of(target), bytes, offset, 0));
}

/* An export without flush writes through. */
static int nbd_target_flush(VerifyTarget *target)
{
    if (nbd_can_flush(nbd_of(target)) <= 0) {
        return 0;
    }
    return nbd_result(nbd_flush(nbd_of(target), 0));
}

static void nbd_target_close(VerifyTarget *target)
{
    nbd_shutdown(nbd_of(target), 0);
    nbd_close(nbd_of(target));
    free(target);
}

static const VerifyTargetOps nbd_ops = {
    .read = nbd_target_read,
    .write = nbd_target_write,
    .zero = nbd_target_zero,
    .discard = nbd_target_discard,
    .flush = nbd_target_flush,
    .close = nbd_target_close,
};

VerifyTarget *verify_nbd_open(const char *uri)
{
    NbdTarget *t = calloc(1, sizeof(*t));
    int64_t size = -1;

    if (!t) {
        fprintf(stderr, "weir-verify: out of memory\n");
        return NULL;
    }
    t->target.ops = &nbd_ops;
    t->nbd = nbd_create();
    if (t->nbd && nbd_connect_uri(t->nbd, uri) == 0) {
        size = nbd_get_size(t->nbd);
    }
    if (size < 0) {
        fprintf(stderr, "weir-verify: %s: %s\n", uri, nbd_get_error());
        nbd_close(t->nbd);
        free(t);
        return NULL;
    }
    t->target.size_bytes = (uint64_t)size;
    return &t->target;
}
