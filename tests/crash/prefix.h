/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_PREFIX_H
#define WEIR_TESTS_PREFIX_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What was done to some disks, in the order in which it was done, and whether
 * other disks are what these were at one moment of that: an exact prefix.
 * Each sector that is written tells by its stamp which write it is from.
 */

#define PREFIX_DISKS 2
#define PREFIX_SECTOR 512
#define PREFIX_SECTORS 256              /* the longest that a disk can be */
#define PREFIX_BYTES (PREFIX_SECTOR * PREFIX_SECTORS)
#define PREFIX_NONE UINT32_MAX

typedef struct PrefixImage {
    uint8_t data[PREFIX_DISKS][PREFIX_BYTES];
    uint64_t bytes[PREFIX_DISKS];
} PrefixImage;

/* Nothing was done yet to disks of so many bytes, full of zeroes. */
void prefix_reset(uint64_t bytes);

/* Sectors for one write; stamp: not 0. */
void prefix_stamp(uint8_t *data, uint64_t bytes, uint32_t stamp);

/*
 * A range has changed: to what is in `now`, the disk from 0 on; or the disk has
 * got another length, where what is new is in `now`.
 */
void prefix_change(int disk, uint64_t offset, uint64_t bytes,
                   const uint8_t *now);
void prefix_resize(int disk, uint64_t bytes, const uint8_t *now);

/* How much was done. */
uint32_t prefix_count(void);

/*
 * After how much of that, but not less than `from`, all disks were like the
 * image; PREFIX_NONE: never.
 */
uint32_t prefix_find(const PrefixImage *image, uint32_t from);

#endif
