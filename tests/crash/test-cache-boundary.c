/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The power is cut at each instant of a script at which the disks may differ:
 * whenever a write, zeroing or flush of either has ended, and before it does
 * when several are under way. In each of several ways, one of which is that the
 * process is killed and the disks are well:
 *
 *   script ----- . ----- . ----- . -----> end
 *                |       |
 *                |       +-- and for each second cut in that: the same
 *                |
 *                +-- a copy of the machine: recovery, verify, requests, close
 *
 * usage: test-cache-boundary [--scenario NAME] [--cuts N] [--second N]
 *            [--all 1] [--cut INSTANT.HOW [--again INSTANT.HOW]]
 *            [--mutation RULE] [--trace BLOCK]
 * Of each scenario about N cuts are made, but one at each instant at least, and
 * N second cuts, most of them within recoveries, 300 unless told otherwise;
 * --all makes each first one. --cut makes this one only, as a message has named
 * it. With --mutation the engine leaves a rule out, and the test passes only
 * when it finds something wrong.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "client.h"
#include "host.h"
#include "model.h"
#include "report.h"
#include "scenario.h"

#define LEVELS 2                        /* of cuts, one in another */
#define CUTS 300                        /* of a scenario, and second ones */
#define STRIDE_MAX 8                    /* less than the ways of any instant */
#define CHOSEN_MAX 4                    /* requests: all sets of them */
#define SINGLE_MAX 16                   /* each single one is lost */
#define LATER 21                        /* times fewer after a recovery */
#define LARGE_BLOCKS 500                /* takes long to verify */

unsigned weir_cache_mutation;

typedef struct Way {
    MemCut base, fast;
} Way;

static const Way ways[] = {
    { MEM_CUT_ALL, MEM_CUT_ALL },
    { MEM_CUT_KEEP, MEM_CUT_KEEP }, { MEM_CUT_DROP, MEM_CUT_DROP },
    { MEM_CUT_TEAR, MEM_CUT_TEAR }, { MEM_CUT_RANDOM, MEM_CUT_RANDOM },
    { MEM_CUT_KEEP, MEM_CUT_DROP }, { MEM_CUT_DROP, MEM_CUT_KEEP },
    { MEM_CUT_HOLES, MEM_CUT_HOLES }, { MEM_CUT_TEAR, MEM_CUT_TEAR },
    { MEM_CUT_RANDOM, MEM_CUT_RANDOM }, { MEM_CUT_HOLES, MEM_CUT_HOLES },
};

#define WAYS (sizeof(ways) / sizeof(*ways))

/* Where and how the power was cut. */
typedef struct Cut {
    uint32_t instant, how;
} Cut;

/* What is done in the script, in the copy after a cut of it, and so on. */
typedef struct Level {
    HostCopy *copy;
    Cut made;
    Cut wanted;                         /* only this one, unless NONE */
    uint32_t instants;                  /* since the last cut */
    uint32_t more;                      /* random cuts at each instant */
    uint32_t stride;                    /* of the cuts one in so many is made */
    uint32_t offset;                    /* and which ones */
    uint64_t cuts;                      /* that could be made */
    uint64_t all_instants, all_cuts;
} Level;

#define NONE UINT32_MAX

static const Scenario *scenario;
static Level levels[LEVELS];
static uint32_t level;                  /* how often the power was cut */
static bool recovering;                 /* the cache is being opened */
static bool counting;                   /* cuts that could be made */
static bool all;                        /* of the first ones are made */
static uint32_t cuts_wanted[LEVELS] = { CUTS, CUTS };

static void place(void)
{
    printf(" (--scenario %s", scenario->name);
    for (uint32_t i = 0; i < level; i++) {
        printf(" --%s %u.%u", i ? "again" : "cut", levels[i].made.instant,
               levels[i].made.how);
    }
    printf(")");
}

static void aborted(int signal)
{
    fail("signal %d", signal);
}

/* --- after a cut --- */

static void verify(void *arg)
{
    client_verify(arg);
}

static void drain(void *arg)
{
    int ret = weir_cache_drain(host.cache);

    (void)arg;
    if (ret < 0) {
        fail("drain failed: %s", strerror(-ret));
    }
}

static void open_again(void)
{
    int ret;

    recovering = true;
    ret = host_open(UINT32_MAX, MEM_CUT_KEEP);
    recovering = false;
    if (ret < 0) {
        fail("open failed: %s: %s", strerror(-ret), host.error);
    }
    host_start_worker();
    host_run(verify, &host);
    host_rest();
    audit_cache(true);
    audit_base(true);
}

static void close_again(void)
{
    int ret;

    host_stop_worker();
    ret = host_close();
    if (ret < 0) {
        fail("close failed: %s", strerror(-ret));
    }
    weir_cache_free(host.cache);
    host.cache = NULL;
}

/* All is as it should be, and goes on as it should. */
static void recover(void)
{
    static const WeirCacheMode modes[] = {
        WEIR_CACHE_WRITE_BACK, WEIR_CACHE_WRITE_THROUGH,
        WEIR_CACHE_READ_ONLY, WEIR_CACHE_WRITE_AROUND,
    };

    model_crash();
    audit_cut();
    if (!coop_below(3)) {
        host.config.mode = modes[coop_below(4)];
    }
    open_again();
    scenario_go_on();
    host_rest();
    audit_cache(true);
}

static void finish(void)
{
    host_run(drain, NULL);
    host_rest();
    audit_base(true);
    close_again();
    open_again();
    close_again();
}

/* --- cuts --- */

static void watch(void (*ends)(MemDisk *disk, MemOp op, bool after))
{
    host.base.ends = host.fast.ends = ends;
}

static uint32_t undecided(void)
{
    return memdisk_undecided(&host.base) + memdisk_undecided(&host.fast);
}

/* Sets of requests that are looked at one by one. */
static uint32_t sets_now(void)
{
    uint32_t n = undecided();

    if (n <= CHOSEN_MAX) {
        return 1u << n;
    }
    return n <= SINGLE_MAX ? n : 0;
}

static void enter_copy(HostCopy *copy, const Cut *at)
{
    static const MemCut random[] = {
        MEM_CUT_TEAR, MEM_CUT_RANDOM, MEM_CUT_HOLES,
    };
    Way way = { MEM_CUT_CHOSEN, MEM_CUT_CHOSEN };
    uint32_t sets = sets_now();
    uint64_t kept = 0;

    if (at->how < WAYS) {
        way = ways[at->how];
    } else if (at->how < WAYS + sets) {
        kept = at->how - WAYS;
        kept = undecided() <= CHOSEN_MAX ? kept : ~(UINT64_C(1) << kept);
    } else {
        way.base = way.fast = random[at->how % 3];
    }
    host_enter_copy(copy, way.base, way.fast, kept,
                    at->instant * UINT64_C(1000000) + at->how);
}

static void request_ends(MemDisk *disk, MemOp op, bool after);

static void branch(const Cut *at)
{
    Level *l = &levels[level++];

    l->made = *at;
    l->all_cuts++;
    enter_copy(l->copy, at);
    if (level < LEVELS) {
        levels[level].instants = 0;
        levels[level].offset = (uint32_t)coop_random();
        watch(request_ends);
    }
    recover();
    watch(NULL);
    finish();
    host_leave_copy(l->copy);
    level--;
}

static bool is_wanted(const Level *l, const Cut *at)
{
    uint32_t stride = l->stride;

    if (l->wanted.how != NONE) {
        return l->wanted.instant == at->instant && l->wanted.how == at->how;
    }
    if (level && !recovering) {
        stride *= LATER;
    }
    /* each instant, and each way */
    return (l->offset + at->instant * 5 + at->how) % stride == 0;
}

static void request_ends(MemDisk *disk, MemOp op, bool after)
{
    Level *l = &levels[level];
    Cut at = { .instant = l->instants };
    uint32_t n;

    (void)disk;
    if (op == MEM_READ ||
        (!after && host.base.pending_count + host.fast.pending_count < 2)) {
        return;
    }
    n = WAYS + sets_now() + l->more;
    if (host.cache) {
        audit_cache(false);
    }
    l->instants++;
    l->cuts += n;
    for (; at.how < n && !counting; at.how++) {
        if (is_wanted(l, &at)) {
            branch(&at);
        }
    }
}

/* --- scenarios --- */

static void play_script(const Scenario *s)
{
    scenario_begin(s);
    for (int i = 0; i < LEVELS; i++) {
        levels[i].copy = host_copy_new();
    }
    levels[0].instants = 0;
    levels[0].cuts = 0;
    watch(request_ends);
    s->script();
    scenario_go_on();
    host_rest();
    watch(NULL);
    close_again();
    host_destroy();
    for (int i = 0; i < LEVELS; i++) {
        host_copy_free(levels[i].copy);
    }
}

static uint32_t at_least_one(uint64_t n)
{
    return n ? (uint32_t)n : 1;
}

/* So many cuts that about those that are wanted are made. */
static void set_strides(const Scenario *s)
{
    Level *first = &levels[0], *second = &levels[1];
    uint32_t share = s->base_blocks > LARGE_BLOCKS ? 4 : 1;
    uint64_t want = cuts_wanted[0] / share;

    if (all && want < first->cuts) {
        want = first->cuts;
    }
    first->more = first->cuts < want
                  ? (uint32_t)((want - first->cuts) / first->instants) : 0;
    first->stride = at_least_one(first->cuts / at_least_one(want));
    if (first->stride > STRIDE_MAX && want >= CUTS) {
        first->stride = STRIDE_MAX;
    }
    want = (first->cuts + (uint64_t)first->more * first->instants) /
           first->stride;
    /* some 70 in a recovery and a while after it, those after it by LATER */
    second->stride = at_least_one(70 * want * share /
                                  at_least_one(cuts_wanted[1]));
}

static void play(const Scenario *s)
{
    uint64_t cuts[LEVELS] = { levels[0].all_cuts, levels[1].all_cuts };

    scenario = s;
    counting = true;
    levels[0].more = levels[1].more = 0;
    play_script(s);
    counting = false;
    set_strides(s);
    play_script(s);
    levels[0].all_instants += levels[0].instants;
    printf("%-18s %5u instants, %6llu cuts, %6llu second cuts\n", s->name,
           levels[0].instants,
           (unsigned long long)(levels[0].all_cuts - cuts[0]),
           (unsigned long long)(levels[1].all_cuts - cuts[1]));
    fflush(stdout);
}

static void play_all(const char *name)
{
    unsigned played = 0;

    for (unsigned i = 0; i < scenario_count; i++) {
        if (!name || !strcmp(name, scenarios[i].name)) {
            play(&scenarios[i]);
            played++;
        }
    }
    if (!played) {
        printf("no scenario %s\n", name);
        exit(1);
    }
}

static Cut parse_cut(const char *text)
{
    char *end;
    Cut at = { .instant = (uint32_t)strtoul(text, &end, 10) };

    at.how = (uint32_t)strtoul(*end ? end + 1 : end, NULL, 10);
    return at;
}

static void parse(const char *option, const char *text, const char **name)
{
    uint64_t value = strtoull(text, NULL, 0);

    if (!strcmp(option, "--scenario")) {
        *name = text;
    } else if (!strcmp(option, "--cuts")) {
        cuts_wanted[0] = (uint32_t)value;
    } else if (!strcmp(option, "--second")) {
        cuts_wanted[1] = (uint32_t)value;
    } else if (!strcmp(option, "--all")) {
        all = value;
    } else if (!strcmp(option, "--cut")) {
        levels[0].wanted = parse_cut(text);
        levels[1].wanted = (Cut) { .instant = NONE };
    } else if (!strcmp(option, "--again")) {
        levels[1].wanted = parse_cut(text);
    } else if (!strcmp(option, "--trace")) {
        report.traced = (int64_t)value;
    } else if (!strcmp(option, "--mutation")) {
        weir_cache_mutation = 1u << value;
        report.status = 0;
    } else {
        printf("unknown option %s\n", option);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    const char *name = NULL;

    report.place = place;
    signal(SIGABRT, aborted);
    levels[0].wanted.how = levels[1].wanted.how = NONE;
    for (int i = 1; i + 1 < argc; i += 2) {
        parse(argv[i], argv[i + 1], &name);
    }
    play_all(name);
    printf("%llu cuts at %llu instants, %llu second cuts: nothing wrong\n",
           (unsigned long long)levels[0].all_cuts,
           (unsigned long long)levels[0].all_instants,
           (unsigned long long)levels[1].all_cuts);
    return weir_cache_mutation ? 1 : 0;
}
