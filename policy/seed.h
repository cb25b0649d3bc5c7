/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sidecars for a disk and for a copy of it that was made by other means, so
 * that a replication begins with what differs: the format is in
 * docs/weir-replication-sidecar.md.
 */
#ifndef WEIR_SEED_H
#define WEIR_SEED_H

#include "compare.h"

/*
 * Make the sidecar of a disk that a source is to use from now on. The file must
 * not exist. Returns false with @error set.
 */
bool weir_seed_begin(const char *path, const char *disk, guint64 bytes,
                     GError **error);

/*
 * Compare the disk with its copy, and make the sidecar of the copy, which must
 * not exist.
 *
 * @source: file of the disk's sidecar, or a copy of its first 8 KiB that was
 *          made after a source had begun to use it
 * @sidecar: file to make
 * @disk, @image: NBD URIs
 * @progress: as for weir_compare()
 * Blocks.  Returns false with @error set; then there is no such file.
 */
bool weir_seed(const char *source, const char *sidecar, const char *disk,
               const char *image, WeirComparison *result,
               void (*progress)(double done), GError **error);

/* Of the first 8 KiB of a sidecar, the header that holds; NULL: none does. */
const guint8 *weir_seed_header(const guint8 *copies);

/* The name of the disk that a header tells, which the caller frees. */
char *weir_seed_disk(const guint8 *header);

#endif
