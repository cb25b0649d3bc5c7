/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/le.h"

#define LEVEL 1
#define SAMPLE_BYTES 512

struct WeirCompressor {
    ZSTD_CCtx *context;
};

struct WeirDecompressor {
    ZSTD_DCtx *context;
};

/* --- compress --- */

WeirCompressor *weir_compressor_new(void)
{
    WeirCompressor *c = malloc(sizeof(*c));

    if (c) {
        c->context = ZSTD_createCCtx();
        if (!c->context) {
            free(c);
            c = NULL;
        }
    }
    return c;
}

void weir_compressor_free(WeirCompressor *c)
{
    if (c) {
        ZSTD_freeCCtx(c->context);
        free(c);
    }
}

/*
 * Whether the bytes are as even as those that were compressed or encrypted
 * before, by a sample from all over: how many pairs of it are equal (the index
 * of coincidence). Of random bytes that is one in 256; one sample of them in
 * some hundred has an eighth more than that. What has less than an eighth more
 * is hardly made shorter by any code of single bytes.
 */
static bool looks_random(const uint8_t *data, uint64_t bytes)
{
    uint16_t count[256] = { 0 };
    uint32_t n = bytes < SAMPLE_BYTES ? (uint32_t)bytes : SAMPLE_BYTES;
    uint64_t step = bytes / n, pairs = 0;

    /* odd: not always at the same place of what repeats */
    step -= step % 2 == 0;
    for (uint32_t i = 0; i < n; i++) {
        count[data[i * step]]++;
    }
    for (unsigned i = 0; i < 256; i++) {
        pairs += (uint32_t)count[i] * count[i];
    }
    return (pairs - n) * 256 * 8 < (uint64_t)n * (n - 1) * 9;
}

uint64_t weir_compress(WeirCompressor *c, WeirLogRecord *r,
                       const uint8_t *data, uint8_t *to)
{
    uint64_t room = weir_log_data_room(r->bytes);
    size_t packed;

    if (room <= WEIR_LOG_DATA_ALIGN_BYTES || looks_random(data, r->bytes)) {
        return 0;
    }
    packed = ZSTD_compressCCtx(c->context, to,
                               room - WEIR_LOG_DATA_ALIGN_BYTES, data,
                               r->bytes, LEVEL);
    if (ZSTD_isError(packed)) {
        return 0;
    }
    room = weir_log_data_room(packed);
    memset(to + packed, 0, room - packed);
    r->packed_bytes = (uint32_t)packed;
    r->packed_crc = weir_log_data_crc(to, packed);
    return room;
}

/* --- decompress --- */

WeirDecompressor *weir_decompressor_new(void)
{
    WeirDecompressor *d = malloc(sizeof(*d));

    if (d) {
        d->context = ZSTD_createDCtx();
        if (!d->context) {
            free(d);
            d = NULL;
        }
    }
    return d;
}

void weir_decompressor_free(WeirDecompressor *d)
{
    if (d) {
        ZSTD_freeDCtx(d->context);
        free(d);
    }
}

/* How long the frame is that begins there; 0: there is none. */
static size_t frame_bytes(const uint8_t *data, size_t packed_bytes)
{
    size_t bytes;

    /* nothing else that the library can read, as older versions of it */
    if (packed_bytes < 4 || le_get(data, 4) != ZSTD_MAGICNUMBER) {
        return 0;
    }
    bytes = ZSTD_findFrameCompressedSize(data, packed_bytes);
    return ZSTD_isError(bytes) ? 0 : bytes;
}

int weir_decompress(WeirDecompressor *d, const void *data, size_t packed_bytes,
                    void *to, size_t bytes)
{
    size_t frame = frame_bytes(data, packed_bytes);

    /* all at once: it needs no window but what comes out */
    return frame > 0 && ZSTD_decompressDCtx(d->context, to, bytes, data,
                                            frame) == bytes ? 0 : -EBADMSG;
}

/* --- packets --- */

static uint64_t longest(const WeirLogPacket *p, const uint8_t *head)
{
    uint64_t most = 0;

    for (uint32_t i = 0; i < p->records; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, head, i);
        if (r.packed_bytes > 0 && r.bytes > most) {
            most = r.bytes;
        }
    }
    return most;
}

static int check_record(WeirDecompressor *d, const WeirLogRecord *r,
                        const uint8_t *data, uint8_t *plain, const char **why)
{
    *why = frame_bytes(data, r->packed_bytes) != r->packed_bytes ||
           weir_decompress(d, data, r->packed_bytes, plain, r->bytes) < 0
           ? "its data cannot be decompressed" :
           weir_log_data_crc(plain, r->bytes) != r->crc
           ? "checksum of its data when it is decompressed" : NULL;
    return *why ? -EINVAL : 0;
}

int weir_packed_check(WeirDecompressor *d, const WeirLogPacket *p,
                      const uint8_t *head, const uint8_t *data,
                      const char **why)
{
    uint8_t *plain = malloc(longest(p, head) + 1);
    int ret = plain ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < p->records && ret == 0; i++) {
        WeirLogRecord r;

        weir_log_record_read(&r, head, i);
        if (r.packed_bytes > 0) {
            ret = check_record(d, &r, data, plain, why);
        }
        data += weir_log_data_room(weir_log_data_bytes(&r));
    }
    free(plain);
    return ret;
}
