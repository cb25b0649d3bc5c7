/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_METADATA_H
#define WEIR_ENCRYPTION_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The two copies of a LUKS2 header's metadata, as they are on disk: a binary
 * part of 4096 bytes and JSON text, with a number that goes up by one each time
 * they are written, and a checksum. No I/O. The caller locks.
 *
 * libcryptsetup writes them through a file, both at a time. Where the order of
 * writes and flushes counts, they are made here, and written by the caller.
 */

#define WEIR_METADATA_COPIES 2

typedef struct WeirMetadata WeirMetadata;

/*
 * metadata: gets the new object, freed with weir_metadata_free().
 * bytes, n_bytes: the beginning of a header's disk; copied.
 * Of two valid copies the newer one is taken, of two with the same number the
 * first.
 * Returns 0; with *metadata NULL: -EINVAL when no copy is valid, -ENOMEM.
 */
int weir_metadata_load(WeirMetadata **metadata, const void *bytes,
                       size_t n_bytes, char *err, size_t err_size);

/* NULL is fine. */
void weir_metadata_free(WeirMetadata *m);

/* Whether bytes, a sector at least, are the beginning of a first copy. */
bool weir_metadata_is_first(const void *bytes);

/* The JSON text; valid until it is set. */
const char *weir_metadata_json(const WeirMetadata *m);

/* Length of one copy. The second one follows the first. */
size_t weir_metadata_copy_bytes(const WeirMetadata *m);

/* A copy as it is to be on disk. */
const void *weir_metadata_copy(const WeirMetadata *m, int copy);

/*
 * Which copy is another one on disk than here, and has to be written, and
 * flushed, before the other is written to; -1: none. weir_metadata_mended()
 * afterwards.
 */
int weir_metadata_to_mend(const WeirMetadata *m);
void weir_metadata_mended(WeirMetadata *m);

/*
 * Take other JSON text, with the next number.
 * Returns 0, or -ENOSPC when there is no room for so much text.
 */
int weir_metadata_set(WeirMetadata *m, const char *json);

#endif
