/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "jobdisk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "encryption/metadata.h"
#include "encryption/xts.h"
#include "report.h"

#define TURNS_MAX 1000000               /* nothing takes longer */
#define NEAR_SECTORS 96
#define METADATA_BYTES (32 * 1024)      /* both copies */

JobDisk job_disk;
JobSetup job_setup;

/* --- contents --- */

static void stamp(uint8_t *data, uint32_t sector, uint32_t version)
{
    for (uint32_t at = 0; at < JOBDISK_SECTOR; at += 8) {
        uint32_t words[2] = { sector + 1, version };

        memcpy(data + at, words, 8);
    }
}

/* Returns the version. */
static uint32_t read_stamp(const uint8_t *data, uint32_t sector,
                           const char *when)
{
    uint8_t whole[JOBDISK_SECTOR];
    uint32_t words[2];

    memcpy(words, data, 8);
    stamp(whole, sector, words[1]);
    if (memcmp(data, whole, sizeof(whole))) {
        fail("sector %u %s: not what anybody has written (%08x %08x)", sector,
             when, words[0], words[1]);
    }
    return words[1];
}

static void check_version(uint32_t sector, uint32_t version, uint32_t low,
                          uint32_t high, const char *when)
{
    const Sector *s = &job_disk.sector[sector];
    bool lost = version >= s->lost_first && version <= s->lost_last;

    if (version < low || version > high || lost) {
        fail("sector %u %s: version %u, allowed %u to %u, but %u to %u", sector,
             when, version, low, high, s->lost_first, s->lost_last);
    }
}

/* --- what the engine calls --- */

static MemDisk *disk_of(WeirReencryptDevice dev)
{
    return dev == WEIR_REENCRYPT_DATA || job_setup.attached ? &job_disk.data
                                                            : &job_disk.head;
}

static int request(WeirReencryptDevice dev, MemOp op, uint64_t offset,
                   uint64_t bytes, const void *data, void *buf)
{
    if (job_disk.dead) {
        return -EIO;
    }
    return memdisk_request(disk_of(dev), op, offset, bytes, data, buf);
}

static int call_read(void *opaque, WeirReencryptDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    (void)opaque;
    return request(dev, MEM_READ, offset, bytes, NULL, buf);
}

static int call_flush(void *opaque, WeirReencryptDevice dev)
{
    (void)opaque;
    return request(dev, MEM_FLUSH, 0, 0, NULL, NULL);
}

static int call_write(void *opaque, WeirReencryptDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf, bool fua)
{
    int ret = request(dev, MEM_WRITE, offset, bytes, buf, NULL);

    return ret == 0 && fua ? call_flush(opaque, dev) : ret;
}

static CoopQueue *queue_of(WeirReencryptQueue *queue)
{
    return (CoopQueue *)(void *)queue;
}

static void call_wait(void *opaque, WeirReencrypt *r,
                      WeirReencryptQueue *queue)
{
    (void)opaque;
    weir_reencrypt_unlock(r);
    coop_queue_wait(queue_of(queue));
    weir_reencrypt_lock(r);
}

static void call_wake(void *opaque, WeirReencryptQueue *queue)
{
    (void)opaque;
    coop_queue_wake(queue_of(queue));
}

typedef struct Lanes {
    void (*fn)(void *arg, unsigned i);
    void *arg;
    unsigned begun, left;
    CoopQueue ended;
} Lanes;

static void run_lane(void *arg)
{
    Lanes *lanes = arg;

    lanes->fn(lanes->arg, lanes->begun++);
    if (--lanes->left == 0) {
        coop_queue_wake(&lanes->ended);
    }
}

static void call_each(void *opaque, void (*fn)(void *arg, unsigned i),
                      void *arg, unsigned n)
{
    Lanes lanes = { .fn = fn, .arg = arg, .left = n };

    (void)opaque;
    for (unsigned i = 0; i < n; i++) {
        coop_spawn(run_lane, &lanes);
    }
    coop_queue_wait(&lanes.ended);
}

/* Others run before and after. */
static void call_compute(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    coop_ready(coop_self());
    coop_suspend();
    fn(arg);
    coop_ready(coop_self());
    coop_suspend();
}

static void call_queue_init(void *opaque, WeirReencryptQueue *queue)
{
    (void)opaque;
    queue_of(queue)->first = NULL;
}

static const WeirReencryptHost calls = {
    .read = call_read, .write = call_write, .flush = call_flush,
    .wait = call_wait, .each = call_each, .compute = call_compute,
    .wake = call_wake, .queue_init = call_queue_init,
};

/* --- set up --- */

static void encrypt(const uint8_t *key, uint8_t *data, uint64_t bytes)
{
    WeirXts *xts;

    if (weir_xts_new(&xts, key, job_setup.key_bytes, job_setup.sector_bytes,
                     1) < 0 ||
        weir_xts_encrypt(xts, 0, data, data, bytes) < 0) {
        fail("no cipher");
    }
    weir_xts_free(xts);
}

static void fill(MemDisk *disk, const uint8_t *bytes, uint64_t n)
{
    memcpy(disk->now, bytes, n);
    memcpy(disk->stable, bytes, n);
    memset(disk->to_copy, 0xff, (disk->pages + 63) / 64 * 8);
    for (uint64_t i = disk->pages; i < (disk->pages + 63) / 64 * 64; i++) {
        disk->to_copy[i / 64] &= ~(UINT64_C(1) << i % 64);
    }
}

/* Where the data begins, where it ends, and how long its disk is. */
static uint64_t offset_before(void)
{
    return job_setup.moves ? 0 : job_setup.data_offset;
}

static uint64_t end_before(void)
{
    return offset_before() + job_disk.sectors * JOBDISK_SECTOR;
}

static uint64_t disk_bytes(void)
{
    return end_before() + (job_setup.moves ? 2 * job_setup.data_offset : 0);
}

static void fill_disks(const uint8_t *data, uint64_t bytes)
{
    uint8_t *disk = malloc(disk_bytes());

    memset(disk, 0x5a, disk_bytes());
    memcpy(disk + offset_before(), data, bytes);
    if (job_setup.attached) {
        memcpy(disk + (job_setup.moves ? bytes : 0), job_setup.header,
               job_setup.header_bytes);
    }
    fill(&job_disk.data, disk, disk_bytes());
    fill(&job_disk.head, job_setup.header, job_setup.header_bytes);
    free(disk);
}

void jobdisk_init(uint32_t sectors)
{
    uint64_t bytes = (uint64_t)sectors * JOBDISK_SECTOR;
    uint8_t *data = malloc(bytes);

    memset(&job_disk, 0, sizeof(job_disk));
    job_disk.sectors = sectors;
    memdisk_init(&job_disk.data, disk_bytes(), disk_bytes());
    memdisk_init(&job_disk.head, job_setup.header_bytes,
                 job_setup.header_bytes);
    for (uint32_t i = 0; i < sectors; i++) {
        stamp(data + i * JOBDISK_SECTOR, i, 0);
        job_disk.sector[i].lost_first = 1;
    }
    if (job_setup.mode != WEIR_JOB_ENCRYPT) {
        encrypt(job_setup.key_before, data, bytes);
    }
    fill_disks(data, bytes);
    free(data);
}

void jobdisk_destroy(void)
{
    weir_reencrypt_free(job_disk.engine);
    job_disk.engine = NULL;
    memdisk_destroy(&job_disk.data);
    memdisk_destroy(&job_disk.head);
}

/* --- turns --- */

bool jobdisk_turn(void)
{
    switch (coop_below(3)) {
    case 0:
        if (coop_step()) {
            return true;
        }
        break;
    case 1:
        if (memdisk_step(coop_below(2) ? &job_disk.data : &job_disk.head)) {
            return true;
        }
        break;
    }
    return coop_step() || memdisk_step(&job_disk.head) ||
           memdisk_step(&job_disk.data);
}

void jobdisk_run_until_quiet(void)
{
    uint32_t n = 0;

    while (coop_alive()) {
        if (!jobdisk_turn()) {
            fail("deadlock");
        }
        if (++n > TURNS_MAX) {
            fail("no progress");
        }
    }
}

/* --- open --- */

static const uint8_t *header_now(void)
{
    return disk_of(WEIR_REENCRYPT_HEADER)->now;
}

bool jobdisk_has_header(void)
{
    WeirMetadata *m;
    char err[256];
    bool has = weir_metadata_load(&m, header_now(), job_setup.header_bytes,
                                  err, sizeof(err)) == 0;

    weir_metadata_free(m);
    return has;
}

/* Where whoever opens the disk finds the header; UINT64_MAX: nowhere. */
static uint64_t find_header(void)
{
    if (jobdisk_has_header()) {
        return 0;
    }
    if (job_setup.moves &&
        weir_reencrypt_is_staged(header_now(), header_now() + end_before())) {
        return end_before();
    }
    return UINT64_MAX;
}

/* What the header says of the job; false: there is none. */
static bool read_job(WeirJobInfo *info)
{
    uint64_t at = find_header();
    WeirMetadata *m;
    char err[256];
    WeirJob *job;
    bool has;

    if (at == UINT64_MAX && job_setup.moves) {
        return false;
    }
    if (at == UINT64_MAX ||
        weir_metadata_load(&m, header_now() + at, job_setup.header_bytes, err,
                           sizeof(err)) < 0) {
        fail("no header");
    }
    has = weir_job_exists(weir_metadata_json(m));
    if (has && weir_job_load(&job, weir_metadata_json(m), err,
                             sizeof(err)) < 0) {
        fail("%s", err);
    }
    if (has) {
        *info = *weir_job_info(job);
        weir_job_free(job);
    }
    weir_metadata_free(m);
    return has;
}

bool jobdisk_has_job(void)
{
    WeirJobInfo info;

    return read_job(&info);
}

bool jobdisk_is_hot_at_0(void)
{
    WeirJobInfo info;

    return read_job(&info) && info.hot_bytes && info.head_bytes == 0;
}

static void load(void *arg)
{
    *(int *)arg = weir_reencrypt_load(job_disk.engine);
}

/* What is there now is there for good, and nothing later ever. */
static void found(uint32_t sector, uint32_t version, const char *when)
{
    Sector *s = &job_disk.sector[sector];

    check_version(sector, version, s->min, s->issued, when);
    if (!job_disk.cut) {
        return;
    }
    if (version < s->issued) {
        s->lost_first = version + 1;
        s->lost_last = s->issued;
    }
    s->min = s->done = version;
}

/* Nothing has begun yet; what it has, it has as it was. */
static void check_plain(void)
{
    if (job_disk.cut) {
        for (uint32_t i = 0; i < job_disk.sectors; i++) {
            found(i, read_stamp(job_disk.data.now + i * JOBDISK_SECTOR, i,
                                "while plain"), "while plain");
        }
        job_disk.cut = false;
    }
    if (memcmp(job_disk.data.now + end_before(), job_setup.header,
               job_setup.header_bytes)) {
        fail("the staged header has changed");
    }
}

/* If it is valid where it had to get to, all of it is there. */
static void check_header(void)
{
    if (job_setup.moves && jobdisk_has_header() && jobdisk_has_job() &&
        memcmp(header_now() + METADATA_BYTES,
               job_setup.header + METADATA_BYTES,
               job_setup.header_bytes - METADATA_BYTES)) {
        fail("the header's areas are not what they were");
    }
}

int jobdisk_open(void)
{
    uint64_t at = find_header();
    uint64_t staged = at == UINT64_MAX ? end_before() : at;
    const WeirReencryptOpen open = {
        .header = header_now() + staged,
        .header_bytes = job_setup.header_bytes,
        .staged_offset = staged,
        .disk_bytes = job_disk.data.bytes,
        .key_before = job_setup.key_before,
        .key_after = job_setup.key_after,
        .check_digest = job_setup.check_digest,
        .ciphers = 1,
        .hotzone_bytes = job_setup.hotzone_bytes,
        .chunk_bytes = job_setup.chunk_bytes,
    };
    char err[256];
    int ret;

    check_header();
    if (at == UINT64_MAX) {
        check_plain();
    } else if (!jobdisk_has_job()) {
        return 0;
    }
    ret = weir_reencrypt_open(&job_disk.engine, &open, &calls, NULL, err,
                              sizeof(err));
    if (ret < 0) {
        fail("open: %s", err);
    }
    coop_spawn(load, &ret);
    jobdisk_run_until_quiet();
    return ret < 0 ? ret : 1;
}

/* --- requests --- */

uint32_t jobdisk_sector_near(void)
{
    uint32_t done, at;
    WeirReencryptInfo info;

    weir_reencrypt_query(job_disk.engine, &info);
    done = info.done_bytes / JOBDISK_SECTOR;
    if (done == 0 && coop_below(2)) {
        return coop_below(job_setup.data_offset / JOBDISK_SECTOR);
    }
    at = job_disk.sectors - done + NEAR_SECTORS / 6;
    at -= coop_below(at < NEAR_SECTORS ? at : NEAR_SECTORS);
    return at < job_disk.sectors ? at : job_disk.sectors - 1;
}

void jobdisk_read(uint32_t sector, uint32_t count)
{
    uint8_t data[JOBDISK_REQUEST_SECTORS_MAX * JOBDISK_SECTOR];
    uint32_t low[JOBDISK_REQUEST_SECTORS_MAX];
    int ret;

    for (uint32_t i = 0; i < count; i++) {
        low[i] = job_disk.sector[sector + i].done;
    }
    ret = weir_reencrypt_read(job_disk.engine, (uint64_t)sector *
                              JOBDISK_SECTOR, count * JOBDISK_SECTOR, data);
    for (uint32_t i = 0; i < count && ret == 0; i++) {
        check_version(sector + i, read_stamp(data + i * JOBDISK_SECTOR,
                                             sector + i, "as read"),
                      low[i], job_disk.sector[sector + i].issued, "as read");
    }
    if (ret < 0 && !job_disk.dead && !job_disk.data.failed[MEM_READ]) {
        fail("reading failed: %s", strerror(-ret));
    }
}

static bool is_free(uint32_t sector, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (job_disk.sector[sector + i].busy) {
            return false;
        }
    }
    return true;
}

void jobdisk_write(uint32_t sector, uint32_t count, bool fua)
{
    uint8_t data[JOBDISK_REQUEST_SECTORS_MAX * JOBDISK_SECTOR];
    int ret;

    if (!is_free(sector, count)) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        Sector *s = &job_disk.sector[sector + i];

        s->busy = true;
        stamp(data + i * JOBDISK_SECTOR, sector + i, ++s->issued);
    }
    ret = weir_reencrypt_write(job_disk.engine, (uint64_t)sector *
                               JOBDISK_SECTOR, count * JOBDISK_SECTOR, data,
                               fua);
    for (uint32_t i = 0; i < count; i++) {
        Sector *s = &job_disk.sector[sector + i];

        s->busy = false;
        s->done = ret == 0 ? s->issued : s->done;
        s->min = ret == 0 && fua ? s->issued : s->min;
    }
}

void jobdisk_flush(void)
{
    uint32_t done[JOBDISK_SECTORS_MAX];

    for (uint32_t i = 0; i < job_disk.sectors; i++) {
        done[i] = job_disk.sector[i].done;
    }
    if (call_flush(NULL, WEIR_REENCRYPT_DATA) < 0) {
        return;
    }
    for (uint32_t i = 0; i < job_disk.sectors; i++) {
        Sector *s = &job_disk.sector[i];

        s->min = done[i] > s->min ? done[i] : s->min;
    }
}

static bool has_failed(void)
{
    for (int op = 0; op < MEM_OPS; op++) {
        if (job_disk.data.failed[op] || job_disk.head.failed[op]) {
            return true;
        }
    }
    return false;
}

/* What fails is tried again. Others stop the job, and go on with it. */
void jobdisk_convert(void *arg)
{
    uint32_t failures = 0;
    int ret;

    (void)arg;
    do {
        ret = weir_reencrypt_step(job_disk.engine, 1 +
                                  coop_below(4 * job_setup.hotzone_bytes));
        failures += ret < 0;
        if (coop_below(32) == 0) {
            weir_reencrypt_rest(job_disk.engine);
        }
        if (ret < 0 && !job_disk.dead && (!has_failed() || failures > 1)) {
            fail("the job failed: %s", strerror(-ret));
        }
    } while (ret != 0 && !job_disk.dead);
}

void jobdisk_look(void *arg)
{
    uint8_t data[JOBDISK_REQUEST_SECTORS_MAX * JOBDISK_SECTOR];
    uint32_t step = job_setup.moves ? JOBDISK_REQUEST_SECTORS_MAX
                                    : job_setup.block_sectors;

    (void)arg;
    for (uint32_t i = 0; i < job_disk.sectors; i += step) {
        int ret;

        step = step < job_disk.sectors - i ? step : job_disk.sectors - i;
        ret = weir_reencrypt_read(job_disk.engine, (uint64_t)i *
                                  JOBDISK_SECTOR, step * JOBDISK_SECTOR, data);
        if (ret < 0 && job_disk.dead) {
            return;
        } else if (ret < 0) {
            fail("reading failed: %s", strerror(-ret));
        }
        for (uint32_t j = 0; j < step; j++) {
            found(i + j, read_stamp(data + j * JOBDISK_SECTOR, i + j,
                                    "when opened"), "when opened");
        }
    }
    job_disk.cut = false;
}

void jobdisk_check_done(const uint8_t *data)
{
    uint64_t bytes = (uint64_t)job_disk.sectors * JOBDISK_SECTOR;
    uint8_t *plain = malloc(bytes);
    WeirXts *xts;

    memcpy(plain, data + job_setup.data_offset, bytes);
    if (job_setup.mode != WEIR_JOB_DECRYPT) {
        if (weir_xts_new(&xts, job_setup.key_after, job_setup.key_bytes,
                         job_setup.sector_bytes, 1) < 0 ||
            weir_xts_decrypt(xts, 0, plain, plain, bytes) < 0) {
            fail("no cipher");
        }
        weir_xts_free(xts);
    }
    for (uint32_t i = 0; i < job_disk.sectors; i++) {
        found(i, read_stamp(plain + i * JOBDISK_SECTOR, i, "at the end"),
              "at the end");
    }
    free(plain);
    job_disk.cut = false;
}

void jobdisk_was_cut(void)
{
    for (uint32_t i = 0; i < job_disk.sectors; i++) {
        job_disk.sector[i].busy = false;
    }
    job_disk.cut = true;
}
