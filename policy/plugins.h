/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Filters that are plugins: what each is for is not known from its driver, and
 * so neither is, when a policy is parsed, whether it fits beside others.
 */
#ifndef WEIR_PLUGINS_H
#define WEIR_PLUGINS_H

#include "daemon.h"

/*
 * Ask what the plugins in @policy are for, and look at the order of its filters
 * again.
 *
 * @text: takes a line for each thing that is wrong
 * Returns false with @error set if a plugin cannot be asked.
 */
bool weir_plugins_check(WeirDaemon *daemon, const WeirPolicy *policy,
                        GString *text, GError **error);

#endif
