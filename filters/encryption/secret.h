/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_SECRET_H
#define WEIR_ENCRYPTION_SECRET_H

#include <stddef.h>

/*
 * Memory for keys: locked, left out of core dumps, empty in a child process,
 * and zeroed before it is given back. Each piece takes pages of its own.
 * Thread-safe.
 */

/*
 * secret: gets zeroed memory of that length, for weir_secret_free().
 * Returns 0; -ENOMEM, or -EAGAIN or -EPERM when the memory cannot be locked
 * (RLIMIT_MEMLOCK), with *secret NULL.
 */
int weir_secret_new(void **secret, size_t bytes);

/* Zero it and give it back. NULL is fine. */
void weir_secret_free(void *secret, size_t bytes);

#endif
