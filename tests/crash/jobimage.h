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
 * direction, place of the header and sizes of its pieces, which are set before.
 */
void jobimage_make(WeirJobMode mode, uint32_t sectors, uint32_t sector_bytes);

/*
 * The same of a job that moves the data to make room for the header, which
 * cryptsetup begins. Returns how many sectors the data has.
 */
uint32_t jobimage_make_moving(void);
void jobimage_free(void);

/*
 * Have cryptsetup finish the job on copies of two disks. Returns the disk with
 * the data afterwards, to be freed.
 */
uint8_t *jobimage_finish(const uint8_t *head, const uint8_t *data,
                         uint64_t data_bytes);

#endif
