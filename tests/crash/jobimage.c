/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "jobimage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "encryption/header.h"
#include "encryption/secret.h"
#include "report.h"

#define PASSPHRASE "correct horse"
#define KEY_BYTES 32
#define KEY_BYTES_MAX 64

static char folder[64];

static void shell(const char *command)
{
    char line[1024];

    snprintf(line, sizeof(line), "cd %s && { %s; } >log 2>&1", folder,
             command);
    if (system(line)) {
        snprintf(line, sizeof(line), "cat %s/log", folder);
        fail("%s failed%s", command, system(line) ? "" : ", see above");
    }
}

static FILE *open_file(const char *name, const char *mode)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, mode);
    if (!f) {
        fail("no file %s", path);
    }
    return f;
}

static void write_file(const char *name, const void *bytes, uint64_t n)
{
    FILE *f = open_file(name, "wb");

    if (fwrite(bytes, 1, n, f) != n) {
        fail("%s is not written", name);
    }
    fclose(f);
}

static uint8_t *read_file(const char *name, uint64_t *n)
{
    FILE *f = open_file(name, "rb");
    uint8_t *bytes;

    fseek(f, 0, SEEK_END);
    *n = ftell(f);
    rewind(f);
    bytes = malloc(*n);
    if (fread(bytes, 1, *n, f) != *n) {
        fail("%s is not read", name);
    }
    fclose(f);
    return bytes;
}

void jobimage_folder_make(void)
{
    strcpy(folder, access("/dev/shm", W_OK) ? "/tmp/weir-job-XXXXXX"
                                            : "/dev/shm/weir-job-XXXXXX");
    if (!mkdtemp(folder)) {
        fail("no temporary folder");
    }
    write_file("key", PASSPHRASE, strlen(PASSPHRASE));
}

void jobimage_folder_remove(void)
{
    char line[128];

    snprintf(line, sizeof(line), "rm -r %s", folder);
    if (system(line)) {
        fail("the temporary folder stays");
    }
}

static void make_header(uint32_t sectors, uint32_t sector_bytes)
{
    char line[512];

    snprintf(line, sizeof(line), "rm -f head data; truncate -s %u data; "
             "cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 "
             "--pbkdf-force-iterations 1000 --luks2-metadata-size 16k "
             "--luks2-keyslots-size 512k --key-size %d --key-file key "
             "--sector-size %u --header head data", sectors * JOBDISK_SECTOR,
             KEY_BYTES * 8, sector_bytes);
    shell(line);
}

static WeirHeader *load_header(uint64_t *n)
{
    uint64_t needed, file_bytes;
    uint8_t *bytes = read_file("head", &file_bytes);
    WeirHeader *header;
    char err[256];

    if (weir_header_load(&header, bytes, file_bytes, file_bytes, true, &needed,
                         err, sizeof(err)) < 0) {
        fail("load: %s", err);
    }
    free(bytes);
    *n = weir_header_info(header)->header_bytes;
    return header;
}

static void begin(WeirHeader *header, uint64_t disk_bytes)
{
    static const WeirHeaderLimits limits = { 1 << 30, 60 };
    static const WeirHeaderPassphrase passphrase = {
        PASSPHRASE, sizeof(PASSPHRASE) - 1,
    };
    const WeirHeaderBegin job = {
        .mode = job_setup.mode,
        .backward = job_setup.backward,
        .disk_bytes = disk_bytes,
        .detached = true,
        .passphrases = &passphrase,
        .n_passphrases = 1,
        .kdf = { "pbkdf2", 1000, 0, 0 },
        .limits = limits,
    };
    size_t n = passphrase.n_bytes;
    char err[256];
    void *keys;

    if (weir_header_begin_job(header, &job, err, sizeof(err)) < 0) {
        fail("begin: %s", err);
    }
    if (weir_secret_new(&keys, 2 * KEY_BYTES_MAX) < 0 ||
        weir_header_unlock_job(header, PASSPHRASE, n, &limits, keys,
                               (uint8_t *)keys + KEY_BYTES_MAX, err,
                               sizeof(err)) < 0) {
        fail("unlock: %s", err);
    }
    memcpy(job_setup.key_before, keys, KEY_BYTES_MAX);
    memcpy(job_setup.key_after, (uint8_t *)keys + KEY_BYTES_MAX,
           KEY_BYTES_MAX);
    weir_secret_free(keys, 2 * KEY_BYTES_MAX);
}

void jobimage_make(WeirJobMode mode, uint32_t sectors, uint32_t sector_bytes)
{
    WeirHeader *header;

    job_setup.mode = mode;
    job_setup.key_bytes = KEY_BYTES;
    job_setup.sector_bytes = sector_bytes;
    job_setup.block_sectors = sector_bytes / JOBDISK_SECTOR;
    make_header(sectors, sector_bytes);
    header = load_header(&job_setup.header_bytes);
    begin(header, sectors * JOBDISK_SECTOR);
    job_setup.header = malloc(job_setup.header_bytes);
    if (weir_header_read(header, job_setup.header) < 0) {
        fail("the header cannot be read");
    }
    weir_header_free(header);
}

void jobimage_free(void)
{
    free(job_setup.header);
    job_setup.header = NULL;
}

uint8_t *jobimage_finish(const uint8_t *head, const uint8_t *data,
                         uint64_t data_bytes)
{
    uint64_t n;

    write_file("head", head, job_setup.header_bytes);
    write_file("data", data, data_bytes);
    shell("resume() { cryptsetup reencrypt -q --resume-only "
          "--force-offline-reencrypt --key-file key --header head data; }; "
          "resume || { cryptsetup repair -q --key-file key --header head data "
          "&& { ! cryptsetup luksDump head | grep -q online-reencrypt || "
          "resume; }; }");
    return read_file("data", &n);
}
