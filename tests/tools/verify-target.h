/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is verified: a file, a block device or, if built in, an NBD export. */
#ifndef WEIR_VERIFY_TARGET_H
#define WEIR_VERIFY_TARGET_H

#include <stdbool.h>
#include <stdint.h>

typedef struct VerifyTarget VerifyTarget;

/*
 * Requests.  data is aligned to 4096 bytes, and so are offset and bytes.
 * They block until the whole request is done, and return 0 or -errno; zero
 * and discard -EOPNOTSUPP where the target has none.
 */
typedef struct VerifyTargetOps {
    int (*read)(VerifyTarget *target, void *data, uint64_t bytes,
                uint64_t offset);
    int (*write)(VerifyTarget *target, const void *data, uint64_t bytes,
                 uint64_t offset);
    int (*zero)(VerifyTarget *target, uint64_t bytes, uint64_t offset);
    int (*discard)(VerifyTarget *target, uint64_t bytes, uint64_t offset);
    int (*flush)(VerifyTarget *target);
    void (*close)(VerifyTarget *target);
} VerifyTargetOps;

/* A connection to it; used by one thread at a time. */
struct VerifyTarget {
    const VerifyTargetOps *ops;
    uint64_t size_bytes;
};

/*
 * Open a file or block device.
 * direct: past the page cache.
 * Returns NULL after it has printed why.
 */
VerifyTarget *verify_file_open(const char *path, bool direct);

/*
 * Connect to an NBD export.
 * uri: as libnbd takes it.
 * Returns NULL after it has printed why.
 */
VerifyTarget *verify_nbd_open(const char *uri);

#endif
