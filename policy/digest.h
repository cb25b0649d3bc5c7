/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether two states of a policy are the same to a disk. */
#ifndef WEIR_DIGEST_H
#define WEIR_DIGEST_H

#include "policy.h"

/*
 * SHA-256, in hexadecimal, of what a policy makes of a disk: its filters with
 * places and options, whatever it inherits included.  Name, version, comments
 * and description do not count.  The caller frees it.
 */
char *weir_policy_digest(const WeirPolicy *policy);

#endif
