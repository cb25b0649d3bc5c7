/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whatever a sidecar holds, reading it is free of crashes, and what is read
 * makes sense: it is written back to the same header.
 *
 * The input is a byte of flags, and changes to a header that was good: place (2
 * bytes), length (1), bytes. Flags: 1, the checksum is put right afterwards.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "replication/sidecar.h"

static uint8_t copies[WEIR_SIDECAR_HEADERS * WEIR_SIDECAR_HEADER_BYTES];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool so, const char *what)
{
    if (!so) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static void make(void)
{
    const WeirSidecar s = {
        .instance = 1, .disk = { .name = "vda" }, .disk_bytes = 1 << 30,
        .region_bytes = WEIR_SIDECAR_REGION_BYTES, .lives = { 5 },
        .generation = { .number = 1, .first_epoch = 1 },
    };

    memset(copies, 0, sizeof(copies));
    weir_sidecar_write(copies, &s);
}

static void change_all(const uint8_t *data, size_t size)
{
    while (size >= 3) {
        size_t n = data[2] < size - 3 ? data[2] : size - 3;
        size_t at = (size_t)(data[0] << 8 | data[1]) % sizeof(copies);

        n = n < sizeof(copies) - at ? n : sizeof(copies) - at;
        memcpy(copies + at, data + 3, n);
        data += 3 + n;
        size -= 3 + n;
    }
}

static void seal(void)
{
    for (int i = 0; i < WEIR_SIDECAR_HEADERS; i++) {
        uint8_t *at = copies + i * WEIR_SIDECAR_HEADER_BYTES;

        le_put(at + 12, crc_without(at, WEIR_SIDECAR_HEADER_BYTES, 12, ~0u),
               4);
    }
}

static void use(const WeirSidecar *s)
{
    uint8_t buf[WEIR_SIDECAR_HEADER_BYTES];
    uint64_t regions = weir_sidecar_count(s->disk_bytes, s->region_bytes);

    must(weir_sidecar_sectors(regions) <= WEIR_SIDECAR_REGION_SECTORS_MAX,
         "regions without a place");
    must(memchr(s->disk.name, 0, sizeof(s->disk.name)) && s->disk.name[0],
         "no name");
    weir_sidecar_write(buf, s);
    /* compatible features are not kept */
    for (int i = 0; i < WEIR_SIDECAR_HEADERS; i++) {
        uint8_t *at = copies + i * WEIR_SIDECAR_HEADER_BYTES;

        memset(at + 24, 0, 8);
    }
    seal();
    must(!memcmp(buf, copies, sizeof(buf)) ||
         !memcmp(buf, copies + sizeof(buf), sizeof(buf)),
         "it is not what was written");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char err[256] = "";
    WeirSidecar s;

    if (size < 1) {
        return 0;
    }
    make();
    change_all(data + 1, size - 1);
    if (data[0] & 1) {
        seal();
    }
    if (weir_sidecar_read(&s, copies, err, sizeof(err)) == 0) {
        use(&s);
    } else {
        must(err[0] && !strchr(err, '\n'), "refused without a reason");
    }
    return 0;
}
