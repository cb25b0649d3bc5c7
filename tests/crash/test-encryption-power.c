/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A job converts a small disk while others read and write, and the power is cut
 * before and after every write and flush, in several ways. What is left is
 * opened, looked at, and the job goes on to its end, in which the power is cut
 * again. At some of the cuts cryptsetup finishes the job instead.
 *
 * usage: test-encryption-power [--mode MODE] [--backward N] [--seed N]
 *            [--runs N] [--random N] [--second N] [--cryptsetup N]
 *            [--sector BYTES] [--hotzone BYTES] [--faults 1]
 *            [--uncut 1] [--mutation RULE]
 * MODE: 0 encrypt, 1 rekey, 2 decrypt, 3 and 4 rekey and decrypt with the
 * header on the disk, 5 encrypt and move the data to make room for the header.
 * --random N: ways more than the fixed ones, at random, at each instant.
 * --second N: at one of so many instants of a recovery it is cut again.
 * --cryptsetup N: it finishes one of so many.
 * --sector BYTES: then sectors are written as one.
 * --hotzone BYTES: of data that moves; at most as much is converted at a time.
 * --uncut 1: the power stays on; processes are killed nevertheless.
 * --faults 1: each read, write and flush of each disk fails once, in a run of
 * its own, in which few cuts are made.
 * With --mutation the engine leaves a rule out, and the test passes only when
 * it finds something wrong.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobdisk.h"
#include "jobimage.h"
#include "report.h"

#define MODES 6
#define SECTORS 48
#define MOVING_CHUNK_BYTES (16 * 1024)
#define HOTZONE_BYTES (8 * 1024)
#define CHUNK_BYTES 2048
#define CLIENTS 3
#define LEVELS 2
#define UNDECIDED_MAX 5                 /* all sets of so many are tried */

unsigned weir_reencrypt_mutation;

typedef struct Way {
    MemCut data, head;
} Way;

static const Way ways[] = {
    { MEM_CUT_DROP, MEM_CUT_DROP },
    { MEM_CUT_KEEP, MEM_CUT_KEEP },
    { MEM_CUT_KEEP, MEM_CUT_DROP },
    { MEM_CUT_DROP, MEM_CUT_KEEP },
    { MEM_CUT_ALL, MEM_CUT_ALL },
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static struct {
    MemDisk data, head;                 /* of the copy, while it is not used */
} copies[LEVELS];

static uint32_t random_ways = 3, second = 23, cryptsetup;
static uint64_t seed_now, instants, cuts, second_cuts, resumed;
static uint32_t level, instant[LEVELS + 1], way_now;
static uint32_t requests_left, sectors_now;
static uint32_t moving_hotzone_bytes = 32 * 1024;
static bool faults, uncut;

static void place(void)
{
    printf(" (mode %d%s, %s, seed %llu, instant %u.%u, way %u)", job_setup.mode,
           job_setup.moves ? ", moving" : job_setup.attached ? ", attached"
           : "",
           job_setup.backward ? "backward" : "forward",
           (unsigned long long)seed_now, instant[0], instant[1], way_now);
    jobimage_folder_remove();
}

/* --- clients --- */

static void random_request(void)
{
    uint32_t unit = job_setup.block_sectors;
    uint32_t blocks = job_disk.sectors / unit;
    uint32_t count = 1 + coop_below(coop_below(3) ? 3 : 12);
    uint32_t block, what = coop_below(100);

    count = count < blocks ? count : blocks;
    block = coop_below(blocks - count + 1);
    if (job_setup.moves && coop_below(4)) {
        block = jobdisk_sector_near() / unit;
        block = block < blocks - count ? block : blocks - count;
    }
    if (what < 30) {
        jobdisk_read(block * unit, count * unit);
    } else if (what < 85) {
        jobdisk_write(block * unit, count * unit, what < 40);
    } else {
        jobdisk_flush();
    }
}

static void client(void *arg)
{
    (void)arg;
    while (requests_left > 0 && !job_disk.dead) {
        requests_left--;
        random_request();
    }
}

static void work(uint32_t requests)
{
    requests_left = requests;
    for (int i = 0; i < CLIENTS; i++) {
        coop_spawn(client, NULL);
    }
    coop_spawn(jobdisk_convert, NULL);
    jobdisk_run_until_quiet();
}

static void close_engine(void)
{
    weir_reencrypt_free(job_disk.engine);
    job_disk.engine = NULL;
}

/* --- after a cut --- */

static void check_done(void)
{
    if (jobdisk_open() != 0) {
        fail("the header still has a job");
    }
    jobdisk_check_done(job_disk.data.now);
}

static void recover(void)
{
    int ret;

    jobdisk_was_cut();
    ret = jobdisk_open();
    if (ret > 0) {
        coop_spawn(jobdisk_look, NULL);
        jobdisk_run_until_quiet();
        work(coop_below(2) ? 6 : 0);
        close_engine();
    } else if (ret < 0) {
        fail("opening failed: %s", strerror(-ret));
    }
    check_done();
}

/*
 * Backward, cryptsetup takes the last hotzone for one of the length that it
 * would have chosen itself, does not find that all is done, and converts all of
 * the disk once more.
 */
static bool is_misread_by_cryptsetup(void)
{
    return job_setup.backward && jobdisk_is_hot_at_0();
}

static void resume_with_cryptsetup(void)
{
    uint8_t *data;

    jobdisk_was_cut();
    if (!jobdisk_has_header()) {
        recover();
        return;
    }
    if (!jobdisk_has_job()) {
        jobdisk_check_done(job_disk.data.now);
        return;
    }
    data = jobimage_finish(job_disk.head.now, job_disk.data.now,
                           job_disk.data.bytes);
    jobdisk_check_done(data);
    free(data);
    resumed++;
}

/* --- cuts --- */

static void request_ends(MemDisk *disk, MemOp op, bool after);

static void watch(bool on)
{
    job_disk.data.ends = job_disk.head.ends = on ? request_ends : NULL;
}

static MemCut torn(void)
{
    static const MemCut all[] = { MEM_CUT_TEAR, MEM_CUT_RANDOM };

    return job_setup.sector_bytes > JOBDISK_SECTOR ? MEM_CUT_RANDOM
                                                   : all[coop_below(2)];
}

static uint32_t sets_now(void)
{
    uint32_t n = memdisk_undecided(&job_disk.data) +
                 memdisk_undecided(&job_disk.head);

    return n <= UNDECIDED_MAX ? 1u << n : 0;
}

static void make_copy(uint32_t how)
{
    uint32_t of_data = memdisk_undecided(&job_disk.data);
    Way way = { MEM_CUT_CHOSEN, MEM_CUT_CHOSEN };
    uint64_t kept = 0;

    if (how < WAYS) {
        way = ways[how];
        if (way.data == MEM_CUT_KEEP &&
            job_setup.sector_bytes > JOBDISK_SECTOR) {
            way.data = MEM_CUT_ALL;     /* keeping tears what is under way */
        }
    } else if (how < WAYS + sets_now()) {
        kept = how - WAYS;
    } else {
        way.data = torn();
        /* the checksum tells of a header that is torn */
        way.head = coop_below(3) ? MEM_CUT_TEAR : MEM_CUT_RANDOM;
    }
    memdisk_cut(&job_disk.data, &copies[level].data, way.data, kept);
    memdisk_cut(&job_disk.head, &copies[level].head, way.head,
                kept >> of_data);
}

static void enter_copy(void)
{
    job_disk.data = copies[level].data;
    job_disk.head = copies[level].head;
    job_disk.engine = NULL;
    job_disk.dead = false;
    level++;
    instant[level] = 0;
    watch(level < LEVELS && second);
}

static void leave_copy(const JobDisk *original)
{
    watch(false);
    level--;
    copies[level].data = job_disk.data;
    copies[level].head = job_disk.head;
    job_disk = *original;
}

static void branch(uint32_t how)
{
    static JobDisk originals[LEVELS];
    uint32_t requests = requests_left;
    CoopParked *parked = coop_park();

    way_now = how;
    coop_seed(seed_now * 1000003 + instant[level] * 101 + how);
    make_copy(how);
    originals[level] = job_disk;
    enter_copy();
    cuts++;
    second_cuts += level > 1;
    if (cryptsetup && level == 1 && cuts % cryptsetup == 0 &&
        !is_misread_by_cryptsetup()) {
        resume_with_cryptsetup();
    } else {
        recover();
    }
    leave_copy(&originals[level - 1]);
    coop_unpark(parked);
    requests_left = requests;
}

static void request_ends(MemDisk *disk, MemOp op, bool after)
{
    uint32_t n = WAYS + sets_now() + random_ways;

    (void)disk;
    (void)after;
    if (op == MEM_READ) {
        return;
    }
    instants += level == 0;
    instant[level]++;
    if (level > 0) {
        if (coop_below(second) == 0) {
            branch(coop_below(n));
        }
        return;
    }
    if (faults) {
        if (coop_below(6) == 0) {
            branch(coop_below(n));
        }
        return;
    }
    for (uint32_t how = 0; how < n; how++) {
        branch(how);
    }
}

/* --- runs --- */

static void copies_init(void)
{
    for (int i = 0; i < LEVELS; i++) {
        memdisk_init(&copies[i].data, job_disk.data.bytes,
                     job_disk.data.bytes);
        memdisk_init(&copies[i].head, job_disk.head.bytes,
                     job_disk.head.bytes);
    }
}

static void copies_destroy(void)
{
    for (int i = 0; i < LEVELS; i++) {
        memdisk_destroy(&copies[i].data);
        memdisk_destroy(&copies[i].head);
    }
}

/* The process is killed, but the disks go on. */
static void kill_and_open(void)
{
    job_disk.dead = true;
    jobdisk_run_until_quiet();
    close_engine();
    job_disk.dead = false;
}

/* The process works, and is killed after so many turns, again and again. */
static void live(void)
{
    while (jobdisk_open() > 0) {
        uint32_t turns = coop_below(2) ? UINT32_MAX : 1 + coop_below(300);

        requests_left = 40;
        for (int i = 0; i < CLIENTS; i++) {
            coop_spawn(client, NULL);
        }
        coop_spawn(jobdisk_convert, NULL);
        while (coop_alive() && turns-- > 0) {
            if (!jobdisk_turn()) {
                fail("deadlock");
            }
        }
        kill_and_open();
    }
}

static void begin_run(uint64_t seed)
{
    seed_now = seed;
    instant[0] = 0;
    coop_seed(seed);
    jobdisk_init(sectors_now);
    copies_init();
    watch(!uncut);
}

static void end_run(void)
{
    watch(false);
    check_done();
    copies_destroy();
    jobdisk_destroy();
}

static void run(uint64_t seed)
{
    begin_run(seed);
    live();
    end_run();
}

/* Returns whether there was one so late. */
static bool run_with_fault(uint64_t seed, bool of_head, MemOp op,
                           uint64_t after)
{
    MemDisk *disk = of_head ? &job_disk.head : &job_disk.data;
    bool failed;

    begin_run(seed * 1000 + after);
    if (jobdisk_open() <= 0) {
        fail("opening failed");
    }
    disk->fault[op] = (MemFault) {
        .after = after, .times = 1, .error = -EIO,
    };
    work(40);
    close_engine();
    failed = disk->failed[op];
    memdisk_repair(disk);
    end_run();
    return failed;
}

static void run_with_faults(uint64_t seed)
{
    static const MemOp ops[] = { MEM_READ, MEM_WRITE, MEM_FLUSH };

    for (int of_head = 0; of_head < 2; of_head++) {
        for (int i = 0; i < 3; i++) {
            uint64_t after = 0;

            while (run_with_fault(seed, of_head, ops[i], after)) {
                after++;
            }
            printf("%llu faults of %s, op %d\n", (unsigned long long)after,
                   of_head ? "the header's disk" : "the data", ops[i]);
        }
    }
}

static void set_up(int mode, bool backward, uint32_t sector_bytes)
{
    static const WeirJobMode modes[MODES] = {
        WEIR_JOB_ENCRYPT, WEIR_JOB_REKEY, WEIR_JOB_DECRYPT, WEIR_JOB_REKEY,
        WEIR_JOB_DECRYPT, WEIR_JOB_ENCRYPT,
    };

    job_setup.backward = backward;
    job_setup.attached = mode > 2;
    job_setup.moves = mode == 5;
    job_setup.hotzone_bytes = job_setup.moves ? moving_hotzone_bytes
                                              : HOTZONE_BYTES;
    job_setup.chunk_bytes = job_setup.moves ? MOVING_CHUNK_BYTES
                                            : CHUNK_BYTES;
    sectors_now = SECTORS;
    if (job_setup.moves) {
        sectors_now = jobimage_make_moving();
    } else {
        jobimage_make(modes[mode], SECTORS, sector_bytes);
    }
}

static void play(int mode, bool backward, uint32_t sector_bytes,
                 uint64_t seed, uint64_t runs)
{
    uint64_t before = cuts;

    set_up(mode, backward, sector_bytes);
    for (uint64_t i = 0; i < runs; i++) {
        if (faults) {
            run_with_faults(seed + i);
        } else {
            run(seed + i);
        }
    }
    jobimage_free();
    printf("mode %d, %s: %llu cuts\n", mode, backward ? "backward" : "forward",
           (unsigned long long)(cuts - before));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 1;
    uint32_t sector_bytes = JOBDISK_SECTOR;
    int mode = -1, backward = -1;

    report.place = place;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--mode")) {
            mode = (int)value;
        } else if (!strcmp(argv[i], "--backward")) {
            backward = (int)value;
        } else if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--random")) {
            random_ways = (uint32_t)value;
        } else if (!strcmp(argv[i], "--second")) {
            second = (uint32_t)value;
        } else if (!strcmp(argv[i], "--cryptsetup")) {
            cryptsetup = (uint32_t)value;
        } else if (!strcmp(argv[i], "--uncut")) {
            uncut = value;
        } else if (!strcmp(argv[i], "--faults")) {
            faults = value;
        } else if (!strcmp(argv[i], "--hotzone")) {
            moving_hotzone_bytes = (uint32_t)value;
        } else if (!strcmp(argv[i], "--sector")) {
            sector_bytes = (uint32_t)value;
        } else if (!strcmp(argv[i], "--mutation")) {
            weir_reencrypt_mutation = 1u << value;
            report.status = 0;
        } else {
            printf("unknown option %s\n", argv[i]);
            return 1;
        }
    }
    jobimage_folder_make();
    for (int m = 0; m < MODES; m++) {
        for (int b = m == 5; b < 2; b++) {
            /* where data moves, cryptsetup has sectors of 512 bytes */
            if ((mode < 0 || mode == m) && (backward < 0 || backward == b) &&
                (m < 5 || sector_bytes == JOBDISK_SECTOR)) {
                play(m, b, sector_bytes, seed, runs);
            }
        }
    }
    jobimage_folder_remove();
    printf("%llu cuts at %llu instants, %llu second cuts, %llu finished by "
           "cryptsetup: nothing wrong\n", (unsigned long long)cuts,
           (unsigned long long)instants, (unsigned long long)second_cuts,
           (unsigned long long)resumed);
    return weir_reencrypt_mutation ? 1 : 0;
}
