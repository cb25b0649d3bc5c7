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

#define ATTACHED_OFFSET (544 * 1024)
#define SHIFT_SECTORS 344
#define MOVING_SECTORS (2 * SHIFT_SECTORS + 24)

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

/* With little room for keyslots, so that the data is short as well. */
static void make_attached(uint32_t sectors, uint32_t sector_bytes)
{
    char line[512];

    snprintf(line, sizeof(line), "rm -f head data; truncate -s %llu head; "
             "cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 "
             "--pbkdf-force-iterations 1000 --luks2-metadata-size 16k "
             "--luks2-keyslots-size 512k --key-size %d --key-file key "
             "--sector-size %u --offset 1088 head",
             (unsigned long long)ATTACHED_OFFSET + sectors * JOBDISK_SECTOR,
             KEY_BYTES * 8, sector_bytes);
    shell(line);
}

static WeirHeader *load_header(uint64_t *n)
{
    uint64_t needed, file_bytes;
    uint8_t *bytes = read_file("head", &file_bytes);
    WeirHeader *header;
    char err[256];

    if (weir_header_load(&header, bytes, file_bytes, file_bytes,
                         !job_setup.attached, &needed, err,
                         sizeof(err)) < 0) {
        fail("load: %s", err);
    }
    free(bytes);
    *n = weir_header_info(header)->header_bytes;
    return header;
}

static void take_keys(WeirHeader *header, const WeirHeaderLimits *limits)
{
    char err[256];
    void *keys;

    if (weir_secret_new(&keys, 2 * KEY_BYTES_MAX) < 0 ||
        weir_header_unlock_job(header, PASSPHRASE, strlen(PASSPHRASE), limits,
                               keys, (uint8_t *)keys + KEY_BYTES_MAX, err,
                               sizeof(err)) < 0) {
        fail("unlock: %s", err);
    }
    memcpy(job_setup.key_before, keys, KEY_BYTES_MAX);
    memcpy(job_setup.key_after, (uint8_t *)keys + KEY_BYTES_MAX,
           KEY_BYTES_MAX);
    weir_secret_free(keys, 2 * KEY_BYTES_MAX);
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
        .detached = !job_setup.attached,
        .passphrases = &passphrase,
        .n_passphrases = 1,
        .kdf = { "pbkdf2", 1000, 0, 0 },
        .limits = limits,
    };
    char err[256];

    if (weir_header_begin_job(header, &job, err, sizeof(err)) < 0) {
        fail("begin: %s", err);
    }
    take_keys(header, &limits);
}

static void set_up(WeirJobMode mode, uint32_t sector_bytes)
{
    job_setup.mode = mode;
    job_setup.key_bytes = KEY_BYTES;
    job_setup.sector_bytes = sector_bytes;
    job_setup.block_sectors = sector_bytes / JOBDISK_SECTOR;
}

static void keep_header(WeirHeader *header)
{
    job_setup.data_offset = weir_header_info(header)->data_offset_bytes;
    job_setup.header = malloc(job_setup.header_bytes);
    if (weir_header_read(header, job_setup.header) < 0) {
        fail("the header cannot be read");
    }
    weir_header_free(header);
}

void jobimage_make(WeirJobMode mode, uint32_t sectors, uint32_t sector_bytes)
{
    WeirHeader *header;

    set_up(mode, sector_bytes);
    if (job_setup.attached) {
        make_attached(sectors, sector_bytes);
    } else {
        make_header(sectors, sector_bytes);
    }
    header = load_header(&job_setup.header_bytes);
    begin(header, (job_setup.attached ? ATTACHED_OFFSET : 0) +
          sectors * JOBDISK_SECTOR);
    keep_header(header);
}

uint32_t jobimage_make_moving(void)
{
    static const WeirHeaderLimits limits = { 1 << 30, 60 };
    WeirHeader *header;
    char line[512];

    set_up(WEIR_JOB_ENCRYPT, JOBDISK_SECTOR);
    snprintf(line, sizeof(line), "rm -f head; truncate -s %d head; cryptsetup "
             "reencrypt -q --encrypt --init-only --type luks2 --pbkdf pbkdf2 "
             "--pbkdf-force-iterations 1000 --luks2-metadata-size 16k "
             "--luks2-keyslots-size 136k --key-size %d --key-file key "
             "--sector-size 512 --reduce-device-size %ds head",
             (MOVING_SECTORS + 2 * SHIFT_SECTORS) * JOBDISK_SECTOR,
             KEY_BYTES * 8, 2 * SHIFT_SECTORS);
    shell(line);
    header = load_header(&job_setup.header_bytes);
    take_keys(header, &limits);
    keep_header(header);
    return MOVING_SECTORS;
}

void jobimage_free(void)
{
    free(job_setup.header);
    job_setup.header = NULL;
}

#define FINISH "resume() { cryptsetup reencrypt -q --resume-only " \
    "--force-offline-reencrypt --key-file key $disks; }; resume || { " \
    "cryptsetup repair -q --key-file key $disks && { ! cryptsetup luksDump " \
    "$head | grep -q online-reencrypt || resume; }; }"

uint8_t *jobimage_finish(const uint8_t *head, const uint8_t *data,
                         uint64_t data_bytes)
{
    uint64_t n;

    write_file("head", head, job_setup.header_bytes);
    write_file("data", data, data_bytes);
    shell(job_setup.attached ? "disks=data head=data; " FINISH
                             : "disks='--header head data' head=head; "
                               FINISH);
    return read_file("data", &n);
}
