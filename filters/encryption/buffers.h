/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_BUFFERS_H
#define WEIR_ENCRYPTION_BUFFERS_H

#include <stddef.h>

/*
 * Buffers for data on its way: 128 of 64 KiB, 16 of 256 KiB and 8 of 1 MiB. The
 * memory, 20 MiB, is asked for at the start; as much of it is used as there
 * ever were requests at a time. It is left out of core dumps. The caller locks.
 */

#define WEIR_BUFFERS_BYTES_MAX (1024 * 1024)

typedef struct WeirBuffers WeirBuffers;

/* Returns 0, or -ENOMEM with *buffers NULL. */
int weir_buffers_new(WeirBuffers **buffers);

/* All have been given back. NULL is fine. */
void weir_buffers_free(WeirBuffers *buffers);

/*
 * bytes: at most WEIR_BUFFERS_BYTES_MAX.
 * Returns a page-aligned buffer with old content, or NULL when all of that
 * size are in use: then wait until one has been given back.
 */
void *weir_buffers_take(WeirBuffers *buffers, size_t bytes);

void weir_buffers_give(WeirBuffers *buffers, void *buffer);

#endif
