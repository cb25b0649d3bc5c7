/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_JOBIMAGE_H
#define WEIR_TESTS_JOBIMAGE_H

#include <stdint.h>

#include "jobdisk.h"

/* Headers for jobdisk.h, by way of cryptsetup, in a temporary folder. */

void jobimage_folder_make(void);
void jobimage_folder_remove(void);

/*
 * Make a header and have the job begin, by us; fills in job_setup but for
 * direction and sizes of its pieces, which are set before.
 */
void jobimage_make(WeirJobMode mode, uint32_t sectors, uint32_t sector_bytes);
void jobimage_free(void);

/*
 * Have cryptsetup finish the job on copies of two disks. Returns the data
 * afterwards, to be freed.
 */
uint8_t *jobimage_finish(const uint8_t *head, const uint8_t *data,
                         uint64_t data_bytes);

#endif
