/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <gcrypt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "luks-image.h"

#define CHECKSUM_OFFSET 448     /* in a copy of the metadata; 64 bytes */
#define JSON_OFFSET 4096

static char folder[64];

int luks_folder_make(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/weir-luks-XXXXXX");
    assert_non_null(mkdtemp(folder));
    luks_write_file("key", "correct horse", 13, 13);
    return 0;
}

int luks_folder_remove(void **state)
{
    (void)state;
    assert_int_equal(luks_shell("rm -r %s", folder), 0);
    return 0;
}

const char *luks_path(char path[256], const char *name)
{
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

int luks_shell(const char *format, ...)
{
    char command[1024], line[1200];
    va_list args;
    int status;

    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    snprintf(line, sizeof(line), "cd %s && { %s; } >log 2>&1", folder,
             command);
    status = system(line);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

uint8_t *luks_read_file(const char *name, size_t *n_bytes)
{
    char path[256];
    FILE *f = fopen(luks_path(path, name), "rb");
    uint8_t *bytes;

    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n_bytes = ftell(f);
    rewind(f);
    bytes = malloc(*n_bytes);
    assert_int_equal(fread(bytes, 1, *n_bytes, f), *n_bytes);
    fclose(f);
    return bytes;
}

void luks_write_file(const char *name, const void *bytes, size_t n_bytes,
                     uint64_t file_bytes)
{
    char path[256];
    FILE *f = fopen(luks_path(path, name), "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n_bytes, f), n_bytes);
    fflush(f);
    assert_int_equal(ftruncate(fileno(f), file_bytes), 0);
    fclose(f);
}

void luks_make(LuksImage *image, const char *options)
{
    assert_int_equal(luks_shell("rm -f image header; "
                                "truncate -s %u image && "
                                "cryptsetup luksFormat -q --type luks2 "
                                "--key-file key %s image",
                                LUKS_DISK_BYTES, options), 0);
    image->bytes = luks_read_file(strstr(options, "--header") ? "header"
                                  : "image", &image->n_bytes);
    image->disk_bytes = image->n_bytes;
    if (!strncmp(options, LUKS_SMALL, strlen(LUKS_SMALL))) {
        image->n_bytes = LUKS_SMALL_BYTES;
        image->bytes = realloc(image->bytes, image->n_bytes);
    }
}

void luks_copy(LuksImage *copy, const LuksImage *image)
{
    *copy = *image;
    copy->bytes = malloc(image->n_bytes);
    memcpy(copy->bytes, image->bytes, image->n_bytes);
}

void luks_free(LuksImage *image)
{
    free(image->bytes);
}

void luks_checksum(LuksImage *image)
{
    for (int i = 0; i < 2; i++) {
        uint8_t *copy = image->bytes + i * LUKS_METADATA_BYTES;

        memset(copy + CHECKSUM_OFFSET, 0, 64);
        gcry_md_hash_buffer(GCRY_MD_SHA256, copy + CHECKSUM_OFFSET, copy,
                            LUKS_METADATA_BYTES);
    }
}

void luks_edit(LuksImage *image, const char *from, const char *to)
{
    for (int i = 0; i < 2; i++) {
        char *json = (char *)image->bytes + i * LUKS_METADATA_BYTES +
                     JSON_OFFSET;
        char *at = strstr(json, from);

        assert_non_null(at);
        assert_true(strlen(json) + strlen(to) <
                    LUKS_METADATA_BYTES - JSON_OFFSET);
        memmove(at + strlen(to), at + strlen(from),
                strlen(at + strlen(from)) + 1);
        memcpy(at, to, strlen(to));
    }
    luks_checksum(image);
}
