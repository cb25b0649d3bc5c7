/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bringing down what a cache has while no VM uses its disk. */
#ifndef WEIR_DRAIN_H
#define WEIR_DRAIN_H

#include "bound.h"
#include "daemon.h"

/*
 * Write back all that a cache has, in the storage daemon.  Its file is empty
 * afterwards.
 *
 * @bound: a weir-cache
 * @trouble: told why it does not go on, each time it is another reason
 * Blocks.  Returns false with @error set: the cache has what it has not brought
 * down.
 */
bool weir_drain(const WeirBound *bound, WeirDaemon *daemon,
                void (*trouble)(const char *reason), GError **error);

#endif
