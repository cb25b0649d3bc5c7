/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "common/crc32c.h"

#include <isa-l/crc.h>

uint32_t weir_crc32c(uint32_t crc, const void *data, size_t bytes)
{
    /* The library takes an int, and reads only. */
    const unsigned char *at = data;

    while (bytes > 0) {
        int part = bytes < 1 << 30 ? (int)bytes : 1 << 30;

        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, part, crc);
        at += part;
        bytes -= (size_t)part;
    }
    return crc;
}
