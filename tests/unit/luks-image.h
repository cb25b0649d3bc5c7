/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_LUKS_IMAGE_H
#define WEIR_TESTS_LUKS_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * LUKS2 images for tests: made by cryptsetup in a temporary folder, read into
 * memory, and spoilt there in a way that leaves the checksums right.
 * Everything that fails is a failure of the test.
 */

/* With sanitizers. What is mostly the work of cryptsetup, without, is less. */
#if defined(WEIR_SANITIZED)
#define LUKS_SHORT true
#else
#define LUKS_SHORT false
#endif

#define LUKS_DISK_BYTES (17u << 20)
#define LUKS_METADATA_BYTES 16384
/* cryptsetup's options for a header that is short and cheap, and its length */
#define LUKS_CHEAP "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
#define LUKS_SMALL LUKS_CHEAP "--luks2-metadata-size 16k " \
                   "--luks2-keyslots-size 256k "
#define LUKS_SMALL_BYTES (2 * LUKS_METADATA_BYTES + 256 * 1024)

typedef struct LuksImage {
    uint8_t *bytes;             /* the beginning, n_bytes of it */
    size_t n_bytes;
    uint64_t disk_bytes;
} LuksImage;

/* A temporary folder, before and after the tests; the files in it by name. */
int luks_folder_make(void **state);
int luks_folder_remove(void **state);
const char *luks_path(char path[256], const char *name);

/* Run a shell command in the folder; returns its exit status. */
int luks_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The whole content of a file; freed by the caller. */
uint8_t *luks_read_file(const char *name, size_t *n_bytes);

/* Write these bytes to a new file of that length. */
void luks_write_file(const char *name, const void *bytes, size_t n_bytes,
                     uint64_t file_bytes);

/*
 * Make an image with cryptsetup, passphrase in the file "key", and read it: all
 * of it, or the header when the options are LUKS_SMALL and more.
 */
void luks_make(LuksImage *image, const char *options);
void luks_copy(LuksImage *copy, const LuksImage *image);
void luks_free(LuksImage *image);

/* Replace text in the JSON of both copies, once, and set the checksums. */
void luks_edit(LuksImage *image, const char *from, const char *to);

/* Set the checksums of both copies. */
void luks_checksum(LuksImage *image);

#endif
