/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_AUDIT_H
#define WEIR_TESTS_AUDIT_H

#include <stdbool.h>

/* What always holds in a cache and on its disks (host.h), seen directly. */

/*
 * The cache in memory. quiet: no request is under way, so that every slot is
 * free, mapped or in quarantine, and holds what it should.
 */
void audit_cache(bool quiet);

/*
 * With nothing dirty the base is the guest's disk. quiet: no request is under
 * way; else what was flushed is looked at.
 */
void audit_base(bool quiet);

/*
 * The disks after a power cut, before anybody looks: a cache whose superblock
 * says that nothing is dirty may be lost.
 */
void audit_cut(void);

#endif
