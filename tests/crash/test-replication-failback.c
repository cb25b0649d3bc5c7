/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two sites with two disks, their sidecars and a log each. Guests use the disks
 * of one, whose source sends all to the keeper of the other. Then one is lost,
 * or cut off while its guests go on; the other is promoted at some point, its
 * guests run; the first one keeps a log for it, made from its sidecars, and
 * when that has caught up, the disks of both must be the same. And so on, in
 * the other direction. The power of a site fails at any instant, in the middle
 * of a promotion or of making a log too; sidecars get lost, damaged, or are
 * such as were not used last.
 *
 * usage: test-replication-failback [--seed N] [--runs N] [--mutation RULE]
 * With --mutation the engines leave a rule out, and the test passes only when
 * it finds something wrong. RULE: 11, what an image lacks is not copied; 12,
 * what is behind the shorter length is not; 13, a sidecar that was not used
 * last, or that knows more than the log had, is believed; 14, what an image
 * lacks is not durable in the source's sidecar before that names the log; 40,
 * what a promotion drops is not in sidecars; 41, what an earlier one has
 * dropped is not; 42, what is in chapters is not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/zero.h"
#include "cooptasks.h"
#include "memdisk.h"
#include "replication/keeper-int.h"
#include "replication/point.h"
#include "replication/sidecar-bits.h"
#include "replication/source.h"
#include "report.h"

#define SEGMENT_BYTES WEIR_LOG_SEGMENT_BYTES_MIN
#define SEGMENTS 5                      /* so many have indexes */
#define LOG_BYTES (WEIR_LOG_RING_OFFSET + SEGMENTS * SEGMENT_BYTES + \
                   SEGMENTS * SEGMENT_BYTES / WEIR_LOG_CHAPTER_SHARE)
#define DISKS 2
#define SECTOR 512u
#define DISK_BYTES (UINT64_C(512) << 10)        /* at most */
#define SIDECAR_BYTES (400 << 10)
#define GUESTS 3
#define PATIENCE 2000000                 /* turns */
#define SITE_DEVICES (1 + 2 * DISKS)
#define SITES 2

typedef struct Site {
    MemDisk devices[SITE_DEVICES];      /* log, disks, sidecars */
    bool dark;                          /* its power is off */
    uint32_t crash_in;                  /* after so many requests; 0: never */
    WeirKeeper *keeper;                 /* NULL: none is open */
    WeirKeeper *runs;                   /* the last one that was */
    bool keeps;                         /* its task runs */
    uint32_t calls;                     /* of its clients */
    uint8_t *old[DISKS];                /* sidecars of a source before */
} Site;

static Site sites[SITES];

static struct {
    WeirSource *source;
    WeirSourceDisk *disks[DISKS];
    int site;                           /* where it runs */
    bool runs, connecting, refused;
    uint32_t connection, lost;          /* dead when they are not the same */
    char err[256];                      /* why it was not connected */
} src;

static struct {
    CoopClock clock;
    bool net;                           /* there is one */
    bool done;                          /* the operation that was begun */
    uint32_t guests, requests;
} t;

static uint64_t seed_now, failbacks, deltas, full, returns, promotions, crashes;
static uint64_t copied_bytes, disk_bytes;
unsigned weir_source_mutation;

static MemDisk *disk_of(int site, int i)
{
    return &sites[site].devices[1 + i];
}

static MemDisk *sidecar_of(const MemDisk *disk)
{
    return (MemDisk *)disk + DISKS;
}

static void place(void)
{
    printf(" (seed %llu, failback %llu, crash %llu)",
           (unsigned long long)seed_now, (unsigned long long)failbacks,
           (unsigned long long)crashes);
}

/* --- devices --- */

static MemCut any_cut(void)
{
    static const MemCut kinds[] = { MEM_CUT_ALL, MEM_CUT_DROP, MEM_CUT_KEEP,
                                    MEM_CUT_TEAR, MEM_CUT_RANDOM,
                                    MEM_CUT_HOLES };

    return kinds[coop_below(6)];
}

static void darken(Site *site)
{
    MemCut cut = any_cut();

    if (!site->dark) {
        crashes++;
        site->dark = true;
        site->crash_in = 0;
        src.lost++;
        for (int i = 0; i < SITE_DEVICES; i++) {
            memdisk_power_off(&site->devices[i], cut);
        }
    }
}

static void light(Site *site)
{
    for (int i = 0; site->dark && i < SITE_DEVICES; i++) {
        memdisk_power_on(&site->devices[i]);
    }
    site->dark = false;
    site->crash_in = 0;
}

static Site *site_of(const MemDisk *disk)
{
    return disk < sites[1].devices ? &sites[0] : &sites[1];
}

static void at_end_of_request(MemDisk *disk, MemOp op, bool after)
{
    Site *site = site_of(disk);

    if (op != MEM_READ && after && site->crash_in > 0 &&
        --site->crash_in == 0) {
        darken(site);
    }
}

static int read_dev(void *disk, uint64_t offset, uint64_t bytes, void *buf)
{
    return memdisk_request(disk, MEM_READ, offset, bytes, NULL, buf);
}

static int write_one(MemDisk *disk, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    uint8_t *all = malloc(bytes), *to = all;
    int ret;

    for (size_t i = 0; i < niov; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    ret = memdisk_request(disk, MEM_WRITE, offset, bytes, all, NULL);
    free(all);
    return ret;
}

static int flush_dev(void *disk)
{
    return memdisk_request(disk, MEM_FLUSH, 0, 0, NULL, NULL);
}

static int read_sidecar(void *disk, uint64_t offset, uint64_t bytes,
                        void *buf)
{
    return read_dev(sidecar_of(disk), offset, bytes, buf);
}

static int write_sidecar(void *disk, uint64_t offset, uint64_t bytes,
                         const void *buf)
{
    return memdisk_request(sidecar_of(disk), MEM_WRITE, offset, bytes, buf,
                           NULL);
}

static int flush_sidecar(void *disk)
{
    return flush_dev(sidecar_of(disk));
}

/* --- the host of a keeper --- */

static int write_log(void *opaque, uint64_t offset, uint64_t bytes,
                     const struct iovec *iov, size_t niov)
{
    return write_one(opaque, offset, bytes, iov, niov);
}

static int write_base(void *base, uint64_t offset, uint64_t bytes,
                      const void *buf)
{
    return memdisk_request(base, MEM_WRITE, offset, bytes, buf, NULL);
}

static int zero_base(void *base, uint64_t offset, uint64_t bytes)
{
    return memdisk_request(base, MEM_ZERO, offset, bytes, NULL, NULL);
}

static int resize_base(void *base, uint64_t bytes)
{
    return memdisk_request(base, MEM_RESIZE, bytes, 0, NULL, NULL);
}

static int64_t length_base(void *base)
{
    return (int64_t)((MemDisk *)base)->bytes;
}

static const WeirKeeperHost keeper_host[SITES] = {
#define KEEPER_HOST(i) { \
    .tasks = &coop_tasks, .opaque = &sites[i].devices[0], \
    .read_log = read_dev, \
    .write_log = write_log, .flush_log = flush_dev, .read_base = read_dev, \
    .write_base = write_base, .zero_base = zero_base, \
    .discard_base = zero_base, .resize_base = resize_base, \
    .flush_base = flush_dev, .length_base = length_base, \
    .read_sidecar = read_sidecar, .write_sidecar = write_sidecar, \
    .flush_sidecar = flush_sidecar }
    KEEPER_HOST(0), KEEPER_HOST(1),
};

/* --- the host of a source --- */

static int write_disk(void *disk, uint64_t offset, uint64_t bytes,
                      const struct iovec *iov, size_t niov, unsigned flags)
{
    int ret = write_one(disk, offset, bytes, iov, niov);

    return ret == 0 && (flags & WEIR_SOURCE_FUA) ? flush_dev(disk) : ret;
}

static int zero_disk(void *disk, uint64_t offset, uint64_t bytes,
                     unsigned flags)
{
    (void)flags;
    return zero_base(disk, offset, bytes);
}

static int status_disk(void *opaque, uint64_t offset, uint64_t bytes,
                       uint64_t *extent_bytes, bool *zero)
{
    (void)opaque;
    (void)offset;
    *zero = false;
    *extent_bytes = bytes;
    return 0;
}

static Site *other(void)
{
    return &sites[1 - src.site];
}

static int request_log(MemOp op, uint64_t offset, uint64_t bytes, void *buf)
{
    Site *site = other();
    uint32_t connection = src.connection;
    const struct iovec iov = { buf, bytes };
    int ret;

    if (!t.net || !site->keeper || site->dark || connection != src.lost) {
        return -ENOTCONN;
    }
    site->calls++;
    ret = op == MEM_READ ? weir_keeper_read(site->keeper, offset, bytes, buf) :
          op == MEM_FLUSH ? weir_keeper_flush(site->keeper)
                          : weir_keeper_write(site->keeper, offset, bytes,
                                              &iov, 1, NULL, 0);
    site->calls--;
    return connection != src.lost ? -ENOTCONN : ret;
}

static int read_client(void *opaque, uint64_t offset, uint64_t bytes,
                       void *buf)
{
    (void)opaque;
    return request_log(MEM_READ, offset, bytes, buf);
}

static int write_client(void *opaque, uint64_t offset, uint64_t bytes,
                        const struct iovec *iov, size_t niov)
{
    uint8_t *all = malloc(bytes), *to = all;
    int ret;

    (void)opaque;
    for (size_t i = 0; i < niov; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    ret = request_log(MEM_WRITE, offset, bytes, all);
    free(all);
    return ret;
}

static int flush_client(void *opaque)
{
    (void)opaque;
    return request_log(MEM_FLUSH, 0, 0, NULL);
}

static const WeirSourceHost source_host = {
    .read_disk = read_dev, .write_disk = write_disk, .zero_disk = zero_disk,
    .discard_disk = zero_base, .flush_disk = flush_dev,
    .status_disk = status_disk, .read_sidecar = read_sidecar,
    .write_sidecar = write_sidecar, .flush_sidecar = flush_sidecar,
    .read_log = read_client, .write_log = write_client,
    .flush_log = flush_client,
};

/* --- the world --- */

static bool turn(void)
{
    uint32_t first = coop_below(SITES * SITE_DEVICES);

    t.clock.now_ns += 1000;
    if (coop_below(2) && coop_step()) {
        return true;
    }
    for (uint32_t i = 0; i < SITES * SITE_DEVICES; i++) {
        uint32_t n = (first + i) % (SITES * SITE_DEVICES);

        if (memdisk_step(&sites[n % SITES].devices[n / SITES])) {
            return true;
        }
    }
    return coop_step() || coop_fire_timer();
}

static WeirSourceState state(void)
{
    WeirSourceInfo info;

    weir_source_info(src.source, &info);
    return info.state;
}

static void connect_source(void *arg)
{
    int ret;

    (void)arg;
    src.connection = src.lost;
    ret = weir_source_connect(src.source, LOG_BYTES, src.err,
                              sizeof(src.err));
    if (ret == -ESTALE) {
        src.refused = true;
    }
    src.connecting = false;
}

/* The source looks for its log. */
static void tend(void)
{
    if (src.runs && !src.connecting && !src.refused && t.net &&
        other()->keeper && state() == WEIR_SOURCE_DISCONNECTED &&
        coop_below(20) == 0) {
        src.connecting = true;
        coop_spawn(connect_source, NULL);
    }
}

/* It comes to an end, even if timers go on. */
static void step(const char *what, uint32_t *patience)
{
    tend();
    turn();
    if (--*patience == 0) {
        fail("%s: it has no end", what);
    }
}

/* Do fn(arg) as a task, and all else meanwhile. */
static void await(void (*fn)(void *arg), void *arg, const char *what)
{
    uint32_t patience = PATIENCE;

    t.done = false;
    coop_spawn(fn, arg);
    while (!t.done) {
        step(what, &patience);
    }
}

static void go_on(uint32_t turns)
{
    while (turns-- > 0) {
        tend();
        turn();
    }
}

/* --- a keeper --- */

static WeirKeeperImage images[DISKS];
static int op_result;

static void list_images(int site)
{
    static char names[DISKS][8];

    for (int i = 0; i < DISKS; i++) {
        snprintf(names[i], sizeof(names[i]), "disk%d", i);
        images[i] = (WeirKeeperImage) { names[i], disk_of(site, i),
                                        SIDECAR_BYTES };
    }
}

static char op_err[WEIR_KEEPER_MESSAGE_BYTES];

static void do_create(void *arg)
{
    int site = *(int *)arg;

    list_images(site);
    op_result = weir_keeper_create(&keeper_host[site], LOG_BYTES,
                                   SEGMENT_BYTES, images, DISKS, op_err,
                                   sizeof(op_err));
    t.done = true;
}

static void run_keeper(void *arg)
{
    Site *site = arg;

    weir_keeper_run(site->runs);
    site->keeps = false;
}

static void do_open(void *arg)
{
    int n = *(int *)arg;
    const WeirKeeperConfig config = { .retain_ns = UINT64_MAX,
                                      .lease_ns = 1000000 };
    WeirKeeper *k;

    list_images(n);
    weir_keeper_new(&k, &keeper_host[n], &config);
    for (int i = 0; i < DISKS; i++) {
        weir_keeper_add_base(k, images[i].disk, images[i].base, NULL, 0);
        weir_keeper_add_sidecar(k, SIDECAR_BYTES, NULL, 0);
    }
    op_result = weir_keeper_open(k, LOG_BYTES, op_err, sizeof(op_err));
    if (op_result == 0) {
        sites[n].keeper = sites[n].runs = k;
        sites[n].keeps = true;
        coop_spawn(run_keeper, &sites[n]);
    } else {
        weir_keeper_free(k);
    }
    t.done = true;
}

static void open_keeper(int n)
{
    light(&sites[n]);
    await(do_open, &n, "opening a log");
    if (op_result < 0) {
        fail("a log cannot be opened: %s", op_err);
    }
}

static void close_keeper(int n)
{
    Site *site = &sites[n];
    WeirKeeper *k = site->keeper;
    uint32_t patience = PATIENCE;

    if (!k) {
        return;
    }
    src.lost++;
    site->keeper = NULL;
    weir_keeper_stop(k);
    while (site->keeps || site->calls > 0 || (src.runs && src.connecting)) {
        step("closing a keeper", &patience);
    }
    weir_keeper_free(k);
}

/* A site's power has gone: its keeper begins again. */
static void restart_keeper(int n)
{
    darken(&sites[n]);
    close_keeper(n);
    open_keeper(n);
}

/* After a crash the log is there, or there is none, and it is made anew. */
static void make_keeper(int n)
{
    do {
        memdisk_fill(&sites[n].devices[0], 0);
        sites[n].crash_in = coop_below(2) ? 1 + coop_below(16) : 0;
        await(do_create, &n, "making a log");
        if (op_result < 0 && !sites[n].dark) {
            fail("a log cannot be made: %s", op_err);
        }
        light(&sites[n]);
        await(do_open, &n, "opening a new log");
    } while (op_result < 0);
}

/* --- a source --- */

static void open_disks(void *arg)
{
    *(bool *)arg = true;
    for (int i = 0; i < DISKS; i++) {
        char name[16], err[256] = "";

        snprintf(name, sizeof(name), "disk%d", i);
        weir_source_add_disk(src.source, name, disk_of(src.site, i)->bytes,
                             disk_of(src.site, i), true, &src.disks[i]);
        if (weir_source_open_sidecar(src.disks[i], SIDECAR_BYTES, err,
                                     sizeof(err)) < 0) {
            fail("opening a sidecar: %s", err);
        }
    }
    t.done = true;
}

static void run_source(void *arg)
{
    (void)arg;
    weir_source_run(src.source);
    src.runs = false;
}

static void begin_source(int site)
{
    const WeirSourceConfig config = {
        .epoch_interval_ns = 300000, .epoch_bytes = 100 << 10,
        .max_memory_bytes = (256 + coop_below(1000)) << 10,
    };
    bool ok;

    light(&sites[site]);
    src.site = site;
    src.refused = false;
    weir_source_new(&src.source, &coop_tasks, &source_host, NULL, &config);
    await(open_disks, &ok, "opening sidecars");
    src.runs = true;
    coop_spawn(run_source, NULL);
}

static void close_disks(void *arg)
{
    (void)arg;
    for (int i = 0; i < DISKS; i++) {
        weir_source_close_disk(src.disks[i]);
    }
    t.done = true;
}

/* tidy: in good order; else by a power cut. */
static void end_source(bool tidy)
{
    uint32_t patience = PATIENCE;

    if (!tidy) {
        darken(&sites[src.site]);
    }
    t.requests = 0;
    while (t.guests > 0) {
        step("ending guests", &patience);
    }
    weir_source_stop(src.source);
    while (src.runs || src.connecting) {
        step("ending a source", &patience);
    }
    if (tidy) {
        await(close_disks, NULL, "closing disks");
    }
    weir_source_free(src.source);
    src.source = NULL;
    light(&sites[src.site]);
}

/* --- guests --- */

static void write_some(int disk, uint32_t all)
{
    uint32_t sectors = 1 + coop_below(coop_below(10) ? 16 : 200);
    uint32_t first = coop_below(coop_below(3) ? all / 3 : all);
    uint64_t *data, bytes;
    struct iovec iov;

    sectors = sectors < all - first ? sectors : all - first;
    bytes = (uint64_t)sectors * SECTOR;
    iov.iov_base = data = malloc(bytes);
    iov.iov_len = bytes;
    for (uint64_t i = 0; i < bytes / 8; i++) {
        data[i] = i % 64 == 0 ? coop_random() : data[i - 1] + 1;
    }
    weir_source_write(src.disks[disk], first * SECTOR, bytes, &iov, 1,
                      coop_below(4) ? 0 : WEIR_SOURCE_FUA);
    free(data);
}

static void be_guest(void *arg)
{
    (void)arg;
    while (t.requests > 0) {
        int disk = (int)coop_below(DISKS);
        uint32_t all = (uint32_t)(disk_of(src.site, disk)->bytes / SECTOR);

        t.requests--;
        switch (coop_below(8)) {
        case 0:
            weir_source_zero(src.disks[disk], coop_below(all / 2) * SECTOR,
                             (1 + coop_below(32)) * SECTOR, 0);
            break;
        case 1:
            if (flush_dev(disk_of(src.site, disk)) == 0) {
                weir_source_flush(src.disks[disk]);
            }
            break;
        default:
            write_some(disk, all);
        }
    }
    t.guests--;
}

static void begin_guests(uint32_t requests)
{
    t.requests = requests;
    while (t.guests < GUESTS) {
        t.guests++;
        coop_spawn(be_guest, NULL);
    }
}

static void end_guests(void)
{
    uint32_t patience = PATIENCE;

    while (t.guests > 0) {
        step("guests", &patience);
    }
}

typedef struct Resize {
    MemDisk *disk;
    uint64_t bytes;
} Resize;

static int resize_disk(void *arg)
{
    const Resize *r = arg;

    return resize_base(r->disk, r->bytes);
}

static void do_resize(void *arg)
{
    int i = (int)coop_below(DISKS);
    Resize r = { disk_of(src.site, i),
                 DISK_BYTES / 2 + coop_below(DISK_BYTES / 2 / SECTOR) *
                 SECTOR };

    (void)arg;
    weir_source_resize(src.disks[i], r.bytes, resize_disk, &r);
    t.done = true;
}

static void use_disks(uint32_t requests)
{
    begin_guests(requests);
    end_guests();
    if (coop_below(3) == 0) {
        await(do_resize, NULL, "resizing");
        begin_guests(requests / 4);
        end_guests();
    }
}

/* --- what happens --- */

static void catch_up(void)
{
    uint32_t patience = PATIENCE;
    WeirSourceInfo info;

    t.net = true;
    do {
        step("catching up", &patience);
        if (src.refused) {
            fail("the log is refused: %s", src.err);
        }
        weir_source_info(src.source, &info);
    } while (info.state != WEIR_SOURCE_STREAMING || info.rpo_ns > 0);
}

/* Nobody writes: what the keeper applies is what the disks are. */
static void compare(const char *when)
{
    WeirKeeper *k = other()->keeper;
    uint32_t patience = PATIENCE;
    WeirKeeperInfo info;
    uint64_t done, total;

    catch_up();
    do {
        step("waiting for a point", &patience);
        weir_keeper_info(k, &info);
    } while (info.point_epoch == 0 || info.point_epoch != info.epoch);
    weir_keeper_apply_to(k, info.point_epoch);
    while (weir_keeper_applied_to(k, info.point_epoch, &done, &total) != 1) {
        step("applying", &patience);
    }
    for (int i = 0; i < DISKS; i++) {
        MemDisk *a = disk_of(src.site, i), *b = disk_of(1 - src.site, i);

        if (a->bytes != b->bytes) {
            fail("%s: disk %d has %llu bytes, its copy %llu", when, i,
                 (unsigned long long)a->bytes, (unsigned long long)b->bytes);
        }
        for (uint64_t at = 0; at < a->bytes; at += SECTOR) {
            if (memcmp(a->now + at, b->now + at, SECTOR)) {
                fail("%s: sector %llu of disk %d differs", when,
                     (unsigned long long)(at / SECTOR), i);
            }
        }
    }
}

static void keep_sidecars(int n)
{
    for (int i = 0; i < DISKS; i++) {
        MemDisk *sidecar = sidecar_of(disk_of(n, i));

        sites[n].old[i] = malloc(SIDECAR_BYTES);
        memcpy(sites[n].old[i], sidecar->now, SIDECAR_BYTES);
        memdisk_fill(sidecar, 0);
    }
}

static void do_restore(void *arg)
{
    int n = *(int *)arg;

    for (int i = 0; i < DISKS; i++) {
        write_sidecar(disk_of(n, i), 0, SIDECAR_BYTES, sites[n].old[i]);
        flush_sidecar(disk_of(n, i));
    }
    t.done = true;
}

static void forget_sidecars(int n)
{
    for (int i = 0; i < DISKS; i++) {
        free(sites[n].old[i]);
        sites[n].old[i] = NULL;
    }
}

/* The source runs and is connected, now and then; both sides begin again. */
static void replicate(void)
{
    for (uint32_t i = 0; i < 1 + coop_below(4); i++) {
        int site = src.site;

        switch (coop_below(5)) {
        case 0:
            t.net = !t.net;
            src.lost++;
            break;
        case 1:
            begin_guests(30);
            go_on(coop_below(400));
            end_source(coop_below(2));
            if (coop_below(6) == 0 && !sites[site].old[0]) {
                keep_sidecars(site);
                begin_source(site);
                catch_up();             /* the keeper has seen that one */
            } else {
                begin_source(site);
            }
            break;
        case 2:
            restart_keeper(1 - site);
            break;
        default:
            use_disks(40);
        }
    }
}

/* Any point that there is. */
typedef struct Choice {
    uint64_t epoch;
    uint32_t seen;
} Choice;

static bool choose(void *opaque, const WeirPointInfo *info,
                   const char *const *marks)
{
    Choice *c = opaque;

    (void)marks;
    c->seen++;
    if (coop_below(c->seen) == 0) {
        c->epoch = info->epoch;
    }
    return c->seen < 40;
}

typedef struct Promotion {
    WeirKeeper *keeper;
    uint64_t epoch;
} Promotion;

static void do_promote(void *arg)
{
    Promotion *p = arg;

    op_result = weir_keeper_promote(p->keeper, p->epoch, op_err,
                                    sizeof(op_err));
    t.done = true;
}

/* True: it has happened for certain. */
static bool promote_once(int n)
{
    Promotion p = { .keeper = sites[n].keeper };
    WeirKeeperInfo info;
    Choice c = { 0 };
    bool happened;

    weir_keeper_info(p.keeper, &info);
    p.epoch = info.point_epoch;
    if (coop_below(2)) {
        weir_point_list(p.keeper, UINT64_MAX, false, choose, &c);
        p.epoch = c.epoch;
    }
    if (p.epoch == 0) {
        fail("there is no point");
    }
    sites[n].crash_in = coop_below(2) ? 1 + coop_below(12) : 0;
    await(do_promote, &p, "promoting");
    promotions++;
    if (op_result < 0 && !sites[n].dark && op_result != -ENOENT) {
        fail("there is no promotion: %s", op_err);
    }
    happened = op_result == 0;
    if (sites[n].dark) {
        restart_keeper(n);
    }
    sites[n].crash_in = 0;
    return happened;
}

/* The bases are the disks. */
static void fail_over(int n)
{
    WeirKeeper *k;
    WeirKeeperInfo info;
    uint32_t patience = PATIENCE;
    uint64_t done, total;

    while (!promote_once(n) || coop_below(4) == 0) {
        go_on(coop_below(100));
    }
    k = sites[n].keeper;
    weir_keeper_info(k, &info);
    weir_keeper_apply_to(k, info.point_epoch);
    while (weir_keeper_applied_to(k, info.point_epoch, &done, &total) != 1) {
        step("applying", &patience);
    }
}

/* What happens to the sidecars of a site that was lost; true: nothing. */
static bool spoil_sidecars(int n)
{
    bool intact = !sites[n].old[0];

    if (sites[n].old[0]) {
        await(do_restore, &n, "a sidecar from before");
    }
    for (int i = 0; i < DISKS && coop_below(8) == 0; i++) {
        MemDisk *sidecar = sidecar_of(disk_of(n, i));

        intact = false;
        if (coop_below(2)) {
            memdisk_fill(sidecar, 0);
        } else {
            memdisk_rot(sidecar, 64, 16);
            memdisk_rot(sidecar, WEIR_SIDECAR_HEADER_BYTES + 64, 16);
        }
    }
    forget_sidecars(n);
    return intact;
}

/* When a source has been connected; what it had to copy. */
static void count_copied(bool intact)
{
    uint64_t bytes = 0, all = 0;

    for (int i = 0; i < DISKS; i++) {
        WeirSourceDiskInfo info;

        weir_source_disk_info(src.disks[i], &info);
        bytes += info.resync_total;
        all += disk_of(src.site, i)->bytes;
    }
    full += bytes >= all;
    deltas += bytes < all;
    if (intact) {
        copied_bytes += bytes;
        disk_bytes += all;
    }
}

/* A source that is connected for the first time: it and the keeper may end. */
static void connect_back(bool intact)
{
    uint32_t patience = PATIENCE;

    t.net = true;
    while (state() == WEIR_SOURCE_DISCONNECTED || src.connecting) {
        step("connecting", &patience);
        if (src.refused) {
            fail("the log is refused: %s", src.err);
        }
    }
    count_copied(intact);
    begin_guests(20);
    go_on(coop_below(300));
    if (coop_below(2)) {
        int site = src.site;

        end_source(false);
        begin_source(site);
    }
    if (coop_below(3) == 0) {
        restart_keeper(1 - src.site);
    }
    end_guests();
}

/* The other side has taken over; the first one is the copy from now on. */
static void fail_back(int lost, int now)
{
    bool intact;

    close_keeper(now);
    t.net = false;
    if (src.source) {
        if (coop_below(2)) {
            use_disks(30);              /* nobody knows of that */
        }
        end_source(coop_below(2));
    }
    begin_source(now);
    use_disks(40);
    if (coop_below(3) == 0) {
        end_source(coop_below(2));
        begin_source(now);
        use_disks(20);
    }
    intact = spoil_sidecars(lost);
    make_keeper(lost);
    connect_back(intact);
    compare("after going back");
    failbacks++;
}

/* It was a mistake: the first goes on, what the other has is thrown away. */
static void return_to(int first)
{
    bool intact = !sites[first].old[0];

    close_keeper(1 - first);
    if (src.source) {
        end_source(coop_below(2));
    }
    forget_sidecars(first);
    make_keeper(1 - first);
    begin_source(first);
    connect_back(intact);
    compare("after going on");
    returns++;
}

static void cycle(void)
{
    int first = src.site, second = 1 - first;

    catch_up();
    replicate();
    t.net = coop_below(3) > 0;
    begin_guests(60);
    go_on(coop_below(1500));
    if (coop_below(2)) {
        end_source(coop_below(3) == 0);
    }
    fail_over(second);
    if (coop_below(4) == 0) {
        return_to(first);
    } else {
        fail_back(first, second);
    }
}

static void make_disks(void *arg)
{
    uint64_t *data = malloc(DISK_BYTES);

    (void)arg;
    for (int i = 0; i < DISKS; i++) {
        for (uint64_t at = 0; at < DISK_BYTES / 8; at++) {
            data[at] = coop_random();
        }
        memdisk_request(disk_of(0, i), MEM_WRITE, 0, DISK_BYTES, data, NULL);
        flush_dev(disk_of(0, i));
    }
    free(data);
    t.done = true;
}

static void set_up(void)
{
    memset(&t, 0, sizeof(t));
    coop_clock = &t.clock;
    memset(&src, 0, sizeof(src));
    memset(sites, 0, sizeof(sites));
    for (int n = 0; n < SITES; n++) {
        memdisk_init(&sites[n].devices[0], LOG_BYTES, LOG_BYTES);
        for (int i = 0; i < DISKS; i++) {
            memdisk_init(disk_of(n, i), DISK_BYTES, DISK_BYTES);
            memdisk_init(sidecar_of(disk_of(n, i)), SIDECAR_BYTES,
                         SIDECAR_BYTES);
        }
    }
    await(make_disks, NULL, "disks");
    for (int n = 0; n < SITES; n++) {
        for (int i = 0; i < SITE_DEVICES; i++) {
            sites[n].devices[i].ends = at_end_of_request;
        }
    }
}

static void run(uint64_t seed)
{
    seed_now = seed;
    coop_seed(seed);
    set_up();
    make_keeper(1);
    begin_source(0);
    for (int i = 0; i < 4; i++) {
        cycle();
    }
    end_source(true);
    close_keeper(1 - src.site);
    while (turn()) {
    }
    for (int n = 0; n < SITES; n++) {
        forget_sidecars(n);
        for (int i = 0; i < SITE_DEVICES; i++) {
            memdisk_destroy(&sites[n].devices[i]);
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, runs = 1;

    report.place = place;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (!strcmp(argv[i], "--seed")) {
            seed = value;
        } else if (!strcmp(argv[i], "--runs")) {
            runs = value;
        } else if (!strcmp(argv[i], "--mutation")) {
            *(value < 36 ? &weir_source_mutation
                         : &weir_keeper_mutation) = (unsigned)value;
            report.status = 0;
        } else {
            printf("unknown option %s\n", argv[i]);
            return 1;
        }
    }
    for (uint64_t i = 0; i < runs; i++) {
        run(seed + i);
    }
    printf("%llu times back, %llu times on, %llu promotions, %llu crashes; "
           "%llu times a part was copied, %llu times all; with sidecars as "
           "they should be %llu %% of the disks: nothing wrong\n",
           (unsigned long long)failbacks, (unsigned long long)returns,
           (unsigned long long)promotions, (unsigned long long)crashes,
           (unsigned long long)deltas, (unsigned long long)full,
           (unsigned long long)(copied_bytes * 100 /
                                (disk_bytes ? disk_bytes : 1)));
    return weir_source_mutation || weir_keeper_mutation ? 1 : 0;
}
