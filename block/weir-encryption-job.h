/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of weir-encryption that converts a disk in place: what the engine
 * (filters/encryption/reencrypt.h) calls, and what the driver calls.
 */
#ifndef WEIR_ENCRYPTION_JOB_DRIVER_H
#define WEIR_ENCRYPTION_JOB_DRIVER_H

#include "block/block_int.h"
#include "encryption/header.h"
#include "encryption/reencrypt.h"
#include "filter.h"

#define WEIR_CONVERSION_KEY_BYTES 64
#define WEIR_CONVERSION_KEYS_BYTES (2 * WEIR_CONVERSION_KEY_BYTES)

typedef struct WeirConversion {
    BlockDriverState *bs;       /* set at open */
    WeirReencrypt *engine;      /* set at open; has its own lock */
    WeirReencryptInfo info;     /* set at open: what does not change of it */
    bool read_only;             /* set at open */
    bool taken;                 /* main thread; somebody calls step() */
    bool drained;               /* atomic */
} WeirConversion;

/*
 * Take a job that has begun.  @bytes: the header as it is on disk; @keys: both
 * volume keys, the one after WEIR_CONVERSION_KEY_BYTES behind the one before.
 * Main thread; may poll.  Returns 0, or -errno with @errp set.
 */
int weir_conversion_open(WeirConversion **conversion, BlockDriverState *bs,
                         const void *bytes, size_t n_bytes,
                         const uint8_t *keys, Error **errp);

/* NULL is fine. */
void weir_conversion_close(WeirConversion *c);

int coroutine_fn GRAPH_RDLOCK
weir_conversion_read(WeirConversion *c, int64_t offset, int64_t bytes,
                     void *buf);
int coroutine_fn GRAPH_RDLOCK
weir_conversion_write(WeirConversion *c, int64_t offset, int64_t bytes,
                      void *buf, BdrvRequestFlags flags);

/* As WeirFilterJob has it. */
int coroutine_fn weir_conversion_step(WeirConversion *c, uint32_t bytes);
bool weir_conversion_progress(WeirConversion *c, uint64_t *done,
                              uint64_t *total);

bool weir_conversion_is_finished(WeirConversion *c);
WeirEncryptionJobInfo *weir_conversion_query(WeirConversion *c);

/*
 * Derive keys, and change @header, which is in memory.  @keys: gets both volume
 * keys, or NULL.
 */
typedef struct WeirConversionCall {
    WeirHeader *header;
    bool begin;                 /* else the job has begun */
    WeirHeaderBegin how;        /* passphrases and limits also without @begin;
                                   the KDF is that of all new keyslots */
    const WeirHeaderFormat *create; /* make a header first */
    uint8_t *keys;
    char message[256];
} WeirConversionCall;

/* For weir_encryption_run(); @opaque is a WeirConversionCall. */
int weir_conversion_call(void *opaque);

#endif
