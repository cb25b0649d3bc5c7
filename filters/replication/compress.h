/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_COMPRESS_H
#define WEIR_REPLICATION_COMPRESS_H

#include "replication/packet.h"

/*
 * Data of records, compressed (docs/weir-replication-log.md, "Compressed
 * data"). Nothing here does I/O or locks; one thread uses an object at a time.
 */

/* What a writer makes one record of: it can only be read as a whole. */
#ifndef WEIR_COMPRESS_BYTES_MAX         /* tests have less */
#define WEIR_COMPRESS_BYTES_MAX (128u << 10)
#endif

typedef struct WeirCompressor WeirCompressor;
typedef struct WeirDecompressor WeirDecompressor;

/* NULL: no memory. */
WeirCompressor *weir_compressor_new(void);
void weir_compressor_free(WeirCompressor *c);

/*
 * Compress the data of a record of WEIR_LOG_WRITE.
 * r: all is set, but for what is compressed; that is set on success. data:
 * r->bytes of it. to: room for as much; zeroes go behind what is compressed, to
 * where the data of the next record may be.
 * Returns how far that is; 0: it gets no nearer so, or does not look like it:
 * r is as before, and `to` may hold anything.
 */
uint64_t weir_compress(WeirCompressor *c, WeirLogRecord *r,
                       const uint8_t *data, uint8_t *to);

/* NULL: no memory. */
WeirDecompressor *weir_decompressor_new(void);
void weir_decompressor_free(WeirDecompressor *d);

/*
 * data: begins with what was compressed, in packed_bytes. to: so many bytes,
 * which come out if nothing is wrong; no memory but that is taken.
 * Returns 0; -EBADMSG: it is damaged.
 */
int weir_decompress(WeirDecompressor *d, const void *data, size_t packed_bytes,
                    void *to, size_t bytes);

/*
 * Check what comes out of the records that are compressed.
 * p, head, data: as in weir_log_packet_check_data(), which has found no fault.
 * Takes memory for the longest of them.
 * Returns 0, -ENOMEM or -EINVAL, *why.
 */
int weir_packed_check(WeirDecompressor *d, const WeirLogPacket *p,
                      const uint8_t *head, const uint8_t *data,
                      const char **why);

#endif
