/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A state file is text: "weir-verify 1 SEED BLOCKS", a line "NUMBER
 * GENERATION KIND" for each block of which something is known, and "end".
 */
#include "verify-state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATE_MAX_BLOCKS (UINT64_C(1) << 32)

static int load_blocks(FILE *file, VerifyState *state)
{
    uint64_t number;
    uint32_t generation, kind;
    char word[8];

    while (fscanf(file, "%" SCNu64 " %" SCNu32 " %" SCNu32, &number,
                  &generation, &kind) == 3) {
        if (number >= state->blocks || kind >= VERIFY_KINDS) {
            return -EINVAL;
        }
        state->block[number].generation = generation;
        state->block[number].kind = kind;
    }
    if (fscanf(file, "%7s", word) != 1 || strcmp(word, "end")) {
        return -EINVAL;
    }
    return 0;
}

static int load(FILE *file, VerifyState *state)
{
    if (fscanf(file, "weir-verify 1 %" SCNu64 " %" SCNu64, &state->seed,
               &state->blocks) != 2 ||
        state->blocks > STATE_MAX_BLOCKS) {
        return -EINVAL;
    }
    state->block = calloc(state->blocks, sizeof(*state->block));
    if (!state->block) {
        return -ENOMEM;
    }
    return load_blocks(file, state);
}

int verify_state_load(const char *path, VerifyState *state)
{
    FILE *file = fopen(path, "re");
    int ret;

    memset(state, 0, sizeof(*state));
    if (!file) {
        return -errno;
    }
    ret = load(file, state);
    if (ret < 0) {
        free(state->block);
        memset(state, 0, sizeof(*state));
    }
    fclose(file);
    return ret;
}

static void save(FILE *file, const VerifyState *state)
{
    fprintf(file, "weir-verify 1 %" PRIu64 " %" PRIu64 "\n", state->seed,
            state->blocks);
    for (uint64_t i = 0; i < state->blocks; i++) {
        if (state->block[i].generation) {
            fprintf(file, "%" PRIu64 " %" PRIu32 " %" PRIu32 "\n", i,
                    state->block[i].generation, state->block[i].kind);
        }
    }
    fprintf(file, "end\n");
}

int verify_state_save(const char *path, const VerifyState *state)
{
    char *temporary = NULL;
    FILE *file = NULL;
    int ret = -ENOMEM;

    if (asprintf(&temporary, "%s.tmp", path) < 0) {
        return ret;
    }
    file = fopen(temporary, "we");
    if (!file) {
        ret = -errno;
        goto out;
    }
    save(file, state);
    ret = fflush(file) || fsync(fileno(file)) ? -errno : 0;
    ret = ferror(file) && !ret ? -EIO : ret;
    ret = fclose(file) && !ret ? -errno : ret;
    if (ret == 0) {
        ret = rename(temporary, path) < 0 ? -errno : 0;
    }
    if (ret < 0) {
        unlink(temporary);
    }
out:
    free(temporary);
    return ret;
}
