/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_SCENARIO_H
#define WEIR_TESTS_SCENARIO_H

#include <stdint.h>

/*
 * What a cache does while the power is cut, as scripts over the host (host.h):
 * each the same at each run. None of the functions is to be called in a coop.
 */

typedef struct Scenario {
    const char *name;
    uint32_t base_blocks, slots;
    /* What comes before, without cuts. */
    void (*prelude)(void);
    void (*script)(void);
} Scenario;

extern const Scenario scenarios[];
extern const unsigned scenario_count;

/* Set up disks and model, and play the prelude. */
void scenario_begin(const Scenario *s);

/* Some requests, a flush and a write after it, whatever the scenario. */
void scenario_go_on(void);

#endif
