/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_KEYID_H
#define WEIR_ENCRYPTION_KEYID_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Tells whether two disks have the same volume key, without keeping the key:
 * by HMAC-SHA256 of it under a random key, which this process has made, both
 * in locked memory. Thread-safe.
 */
typedef struct WeirKeyId WeirKeyId;

/*
 * id: gets the new object, freed with weir_key_id_free().
 * key: a volume key of key_bytes.
 * Returns 0; with *id NULL: -ENOMEM, or -EAGAIN or -EPERM when memory cannot
 * be locked; -ENOSYS when libgcrypt fails.
 */
int weir_key_id_new(WeirKeyId **id, const void *key, size_t key_bytes);

/* Zero and free it. NULL is fine. */
void weir_key_id_free(WeirKeyId *id);

bool weir_key_id_equal(const WeirKeyId *a, const WeirKeyId *b);

#endif
