/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whatever a file is, looking for a plugin's note in it stays within it. */
#include <stdlib.h>
#include <string.h>

#include "plugin/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* of exactly that size, and not aligned to anything */
    uint8_t *memory = malloc(size + 1);

    if (memory) {
        memcpy(memory + 1, data, size);
        weir_plugin_note_abi(memory + 1, size);
    }
    free(memory);
    return 0;
}
