/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is expected of each block, kept from one run to the next. */
#ifndef WEIR_VERIFY_STATE_H
#define WEIR_VERIFY_STATE_H

#include "verify-block.h"

typedef struct VerifyState {
    uint64_t seed;
    uint64_t blocks;
    VerifyBlock *block;         /* blocks elements */
} VerifyState;

/*
 * Load a state that verify_state_save() left.
 * state: filled in; the caller frees state->block.
 * Returns 0, or -errno: -ENOENT without such a file, -EINVAL when it is
 * damaged; state is empty then.
 */
int verify_state_load(const char *path, VerifyState *state);

/* Save it, at once or not at all.  Returns 0 or -errno. */
int verify_state_save(const char *path, const VerifyState *state);

#endif
