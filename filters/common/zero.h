/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_COMMON_ZERO_H
#define WEIR_COMMON_ZERO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Whether so many bytes are all zero. */
static inline bool weir_is_zero(const uint8_t *bytes, size_t n_bytes)
{
    return n_bytes == 0 ||
           (bytes[0] == 0 && memcmp(bytes, bytes + 1, n_bytes - 1) == 0);
}

#endif
