/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The storage daemon of a libvirt domain with disks out of process, which the
 * hook starts before QEMU and ends after it: as unit weir-storage@UUID.service
 * where systemd is and has that unit, else in the background by itself.
 */
#ifndef WEIR_DOMAINSTORAGE_H
#define WEIR_DOMAINSTORAGE_H

#include "record.h"

/*
 * Start it and wait until it has all disks.
 *
 * @dir: of the domain, with the storage record; its name is the domain's UUID
 * @name: of the domain
 * Blocks.  Returns false with @error set; then nothing runs.
 */
bool weir_domain_storage_start(const char *dir, const char *name,
                               GError **error);

/* End all that runs for directory @dir, and wait for that. */
void weir_domain_storage_stop(const char *dir);

#endif
