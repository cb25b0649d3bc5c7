/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-verify: write to a disk from several threads, and check that every
 * read gives what was written last.
 *
 * Each block carries its number, the generation of the write and a checksum
 * (verify-block.c), so that lost, repeated, misplaced and torn writes are told
 * apart.  A thread writes and reads only blocks of its own: extents of 64 KiB
 * in turn belong to the threads, so it always knows what is to be found.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "verify-block.h"
#include "verify-latency.h"
#include "verify-state.h"
#include "verify-target.h"

#define EXTENT_BLOCKS 16
#define EXTENT_BYTES (EXTENT_BLOCKS * VERIFY_BLOCK_BYTES)
#define MAX_THREADS 256
#define MAX_INTERVALS 100000
#define MAX_COMPLAINTS 20

typedef enum Operation {
    OP_READ,
    OP_WRITE,
    OP_ZERO,
    OP_DISCARD,
    OP_FLUSH,
    OPERATIONS
} Operation;

static const char *const operation_names[OPERATIONS] = {
    "read", "write", "write_zeroes", "discard", "flush",
};

typedef struct Options {
    const char *name;
    const char *state_file;
    uint64_t seed;
    uint64_t size_bytes;        /* 0: all of it */
    uint64_t operations;        /* of all threads; 0: no limit */
    double seconds;             /* 0: no limit */
    unsigned threads;
    unsigned read_percent;
    unsigned zero_percent;
    unsigned discard_percent;
    unsigned flush_every;       /* operations; 0: never */
    unsigned interval_ms;       /* 0: none */
    bool has_seed;
    bool has_limit;
    bool direct;
    bool final_check;
} Options;

/* What the threads share. */
typedef struct Run {
    const Options *options;     /* set at start */
    VerifyState state;          /* each block: used by the owner only */
    uint64_t begin_ns;          /* set before the threads start */
    uint64_t end_ns;            /* set before the threads start */
    VerifyTimeline timeline;
    unsigned complaints;        /* atomic */
} Run;

typedef struct Worker {
    Run *run;
    VerifyTarget *target;
    pthread_t thread;
    unsigned index;
    uint64_t random;            /* state of the generator */
    uint64_t last_ns;           /* when the last request ended */
    uint64_t stall_ns;          /* longest time between two such moments */
    uint64_t count[OPERATIONS];
    uint64_t bytes;             /* read and written */
    uint64_t unsupported;
    uint64_t checked_blocks;
    uint64_t io_errors;
    uint64_t found[VERIFY_RESULTS];
    VerifyLatency latency;
    void *data;                 /* EXTENT_BYTES, aligned */
} Worker;

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* splitmix64: below is not 0 */
static uint64_t pick(Worker *w, uint64_t below)
{
    uint64_t x = w->random += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (x ^ (x >> 31)) % below;
}

static bool may_complain(Worker *w)
{
    return __atomic_fetch_add(&w->run->complaints, 1, __ATOMIC_RELAXED) <
           MAX_COMPLAINTS;
}

/* --- requests ------------------------------------------------------------ */

/* A range of blocks that one thread owns. */
typedef struct Range {
    uint64_t first;
    unsigned blocks;
} Range;

static int send(Worker *w, Operation op, Range range)
{
    const VerifyTargetOps *ops = w->target->ops;
    uint64_t offset = range.first * VERIFY_BLOCK_BYTES;
    uint64_t bytes = (uint64_t)range.blocks * VERIFY_BLOCK_BYTES;

    switch (op) {
    case OP_READ:
        return ops->read(w->target, w->data, bytes, offset);
    case OP_WRITE:
        return ops->write(w->target, w->data, bytes, offset);
    case OP_ZERO:
        return ops->zero(w->target, bytes, offset);
    case OP_DISCARD:
        return ops->discard(w->target, bytes, offset);
    default:
        return ops->flush(w->target);
    }
}

static void complain_io(Worker *w, Operation op, Range range, int ret)
{
    w->io_errors++;
    if (may_complain(w)) {
        fprintf(stderr, "weir-verify: %s of %u blocks at block %" PRIu64
                ": %s\n", operation_names[op], range.blocks,
                range.first, strerror(-ret));
    }
}

/* Send a request and take its time.  Returns 0 or -errno. */
static int request(Worker *w, Operation op, Range range)
{
    uint64_t begin_ns = now_ns(), end_ns;
    int ret = send(w, op, range);

    end_ns = now_ns();
    if (ret == -EOPNOTSUPP && (op == OP_ZERO || op == OP_DISCARD)) {
        w->unsupported++;
        return ret;
    }
    w->count[op]++;
    verify_latency_add(&w->latency, end_ns - begin_ns);
    verify_timeline_add(&w->run->timeline, begin_ns, end_ns);
    if (end_ns - w->last_ns > w->stall_ns) {
        w->stall_ns = end_ns - w->last_ns;
    }
    w->last_ns = end_ns;
    if (op == OP_READ || op == OP_WRITE) {
        w->bytes += (uint64_t)range.blocks * VERIFY_BLOCK_BYTES;
    }
    if (ret < 0) {
        complain_io(w, op, range, ret);
    }
    return ret;
}

/* Check blocks that were read.  A bad one is told of once. */
static void check(Worker *w, Range range)
{
    const VerifyState *state = &w->run->state;

    for (unsigned i = 0; i < range.blocks; i++) {
        VerifyBlock *block = &state->block[range.first + i];
        uint32_t generation;
        VerifyResult result = verify_block_check(
            (char *)w->data + i * VERIFY_BLOCK_BYTES, range.first + i, block,
            state->seed, &generation);

        w->checked_blocks += block->kind != VERIFY_ANYTHING;
        w->found[result]++;
        if (result != VERIFY_OK) {
            if (may_complain(w)) {
                fprintf(stderr, "weir-verify: block %" PRIu64 ": %s: found "
                        "generation %" PRIu32 ", expected %" PRIu32 "\n",
                        range.first + i, verify_result_name(result),
                        generation, block->generation);
            }
            block->kind = VERIFY_ANYTHING;
        }
    }
}

static void do_read(Worker *w, Range range)
{
    if (request(w, OP_READ, range) == 0) {
        check(w, range);
    }
}

/*
 * Write data or zeroes, or discard.  After an error the content is unknown:
 * the error is reported, what is then found is not.
 */
static void do_change(Worker *w, Operation op, Range range)
{
    static const VerifyKind kinds[OPERATIONS] = {
        [OP_WRITE] = VERIFY_DATA,
        [OP_ZERO] = VERIFY_ZEROES,
        [OP_DISCARD] = VERIFY_DISCARDED,
    };
    VerifyBlock *block = &w->run->state.block[range.first];
    int ret;

    for (unsigned i = 0; op == OP_WRITE && i < range.blocks; i++) {
        verify_block_fill((char *)w->data + i * VERIFY_BLOCK_BYTES,
                          range.first + i, block[i].generation + 1,
                          w->run->state.seed);
    }
    ret = request(w, op, range);
    if (ret == -EOPNOTSUPP) {
        return;
    }
    for (unsigned i = 0; i < range.blocks; i++) {
        block[i].generation++;
        /* what was unknown is still unknown after a discard */
        if (ret < 0) {
            block[i].kind = VERIFY_ANYTHING;
        } else if (op != OP_DISCARD || block[i].kind != VERIFY_ANYTHING) {
            block[i].kind = kinds[op];
        }
    }
}

/* --- threads ------------------------------------------------------------- */

static uint64_t extents(const Run *run)
{
    return (run->state.blocks + EXTENT_BLOCKS - 1) / EXTENT_BLOCKS;
}

static unsigned extent_blocks(const Run *run, uint64_t extent)
{
    uint64_t left = run->state.blocks - extent * EXTENT_BLOCKS;

    return left < EXTENT_BLOCKS ? (unsigned)left : EXTENT_BLOCKS;
}

/* A range within an extent of this thread's. */
static Range pick_range(Worker *w)
{
    unsigned threads = w->run->options->threads;
    uint64_t own = (extents(w->run) - w->index + threads - 1) / threads;
    uint64_t extent = pick(w, own) * threads + w->index;
    unsigned blocks = extent_blocks(w->run, extent);
    unsigned first = (unsigned)pick(w, blocks);
    Range range = {
        .first = extent * EXTENT_BLOCKS + first,
        .blocks = 1 + (unsigned)pick(w, blocks - first),
    };

    return range;
}

static void do_something(Worker *w)
{
    const Options *o = w->run->options;
    Range range = pick_range(w);
    uint64_t dice = pick(w, 100);

    if (dice < o->read_percent) {
        do_read(w, range);
    } else if (dice < o->read_percent + o->zero_percent) {
        do_change(w, OP_ZERO, range);
    } else if (dice < o->read_percent + o->zero_percent + o->discard_percent) {
        do_change(w, OP_DISCARD, range);
    } else {
        do_change(w, OP_WRITE, range);
    }
}

/* How many operations this thread does. */
static uint64_t share_of_operations(const Worker *w)
{
    const Options *o = w->run->options;

    if (!o->operations) {
        return o->seconds > 0 ? UINT64_MAX : 0;
    }
    return o->operations / o->threads + (w->index < o->operations % o->threads);
}

static void *work(void *opaque)
{
    Worker *w = opaque;
    const Options *o = w->run->options;
    uint64_t operations = share_of_operations(w);
    const Range none = { 0, 0 };

    w->last_ns = now_ns();
    for (uint64_t i = 1; i <= operations && !stopped; i++) {
        if (w->last_ns >= w->run->end_ns) {
            break;
        }
        do_something(w);
        if (o->flush_every && i % o->flush_every == 0) {
            request(w, OP_FLUSH, none);
        }
    }
    request(w, OP_FLUSH, none);
    return NULL;
}

/* Read all blocks of this thread. */
static void *work_final_check(void *opaque)
{
    Worker *w = opaque;
    const Run *run = w->run;

    w->last_ns = now_ns();
    for (uint64_t extent = w->index; extent < extents(run);
         extent += run->options->threads) {
        Range range = {
            .first = extent * EXTENT_BLOCKS,
            .blocks = extent_blocks(run, extent),
        };
        bool known = false;

        for (unsigned i = 0; i < range.blocks; i++) {
            known |= run->state.block[range.first + i].kind != VERIFY_ANYTHING;
        }
        if (known) {
            do_read(w, range);
        }
    }
    return NULL;
}

static int run_threads(Worker *workers, unsigned count,
                       void *(*function)(void *))
{
    unsigned started = 0;
    int ret = 0;

    while (ret == 0 && started < count) {
        ret = pthread_create(&workers[started].thread, NULL, function,
                             &workers[started]);
        started += ret == 0;
    }
    if (ret) {
        stopped = 1;
        fprintf(stderr, "weir-verify: cannot start a thread: %s\n",
                strerror(ret));
    }
    while (started > 0) {
        pthread_join(workers[--started].thread, NULL);
    }
    return ret ? -1 : 0;
}

/* --- report -------------------------------------------------------------- */

static void merge(Worker *total, const Worker *w)
{
    for (int i = 0; i < OPERATIONS; i++) {
        total->count[i] += w->count[i];
    }
    for (int i = 0; i < VERIFY_RESULTS; i++) {
        total->found[i] += w->found[i];
    }
    total->bytes += w->bytes;
    total->unsupported += w->unsupported;
    total->checked_blocks += w->checked_blocks;
    total->io_errors += w->io_errors;
    total->stall_ns = w->stall_ns > total->stall_ns ? w->stall_ns
                                                    : total->stall_ns;
    verify_latency_merge(&total->latency, &w->latency);
}

static uint64_t verify_errors(const Worker *total)
{
    uint64_t sum = 0;

    for (int i = VERIFY_OK + 1; i < VERIFY_RESULTS; i++) {
        sum += total->found[i];
    }
    return sum;
}

static void report_count(const char *name, uint64_t value)
{
    printf("\"%s\": %" PRIu64 ", ", name, value);
}

static void report_us(const char *name, uint64_t ns)
{
    printf("\"%s\": %.1f, ", name, (double)ns / 1000);
}

static void report(const Run *run, const Worker *total)
{
    uint64_t intervals;
    uint64_t median = verify_timeline_median(&run->timeline, &intervals);

    printf("{");
    report_count("seed", run->state.seed);
    report_count("operations", total->latency.count);
    report_count("errors", total->io_errors + verify_errors(total));
    report_count("io_errors", total->io_errors);
    for (VerifyResult i = VERIFY_OK + 1; i < VERIFY_RESULTS; i++) {
        report_count(verify_result_name(i), total->found[i]);
    }
    for (int i = 0; i < OPERATIONS; i++) {
        report_count(operation_names[i], total->count[i]);
    }
    report_count("unsupported", total->unsupported);
    report_count("checked_blocks", total->checked_blocks);
    report_count("bytes", total->bytes);
    report_us("latency_median_us",
              verify_latency_quantile(&total->latency, 0.5));
    report_us("latency_p99_us", verify_latency_quantile(&total->latency, 0.99));
    report_us("latency_max_us", total->latency.max_ns);
    report_us("longest_stall_us", total->stall_ns);
    report_count("intervals", intervals);
    report_us("interval_max_median_us", median);
    printf("\"seconds\": %.3f}\n",
           (double)(now_ns() - run->begin_ns) / 1e9);
}

/* --- options ------------------------------------------------------------- */

static void usage(FILE *file)
{
    fprintf(file,
#ifdef WITH_NBD
"usage: weir-verify-nbd [OPTION...] FILE|DEVICE|NBD-URI\n\n"
#else
"usage: weir-verify [OPTION...] FILE|DEVICE\n\n"
#endif
"Write and read at random, and check that each read gives what was written\n"
"last.  One line of JSON on stdout tells the result; the exit status is 0 if\n"
"all was right, 1 if not, 2 if it could not be tried.\n\n"
"  --threads N          default 4\n"
"  --seconds N          how long; default 10 without --operations\n"
"  --operations N       how many, of all threads; 0: only --final-check\n"
"  --size BYTES         use only the beginning (k, M, G are understood)\n"
"  --seed N             default: from the clock\n"
"  --read-percent N     default 50\n"
"  --zero-percent N     of write-zeroes, default 0\n"
"  --discard-percent N  default 0\n"
"  --flush-every N      operations of a thread, default 64; 0: at the end\n"
"  --direct             past the page cache\n"
"  --final-check        verify everything at the end\n"
"  --state-file FILE    go on from what FILE says was written, and update it\n"
"  --interval MS        tell the median of the longest latencies of such\n"
"                       intervals\n"
"  --help               this text\n\n"
"SIGINT and SIGTERM end the work early, as if the time were over.\n");
}

static void die(const char *what, const char *value)
{
    fprintf(stderr, "weir-verify: %s: %s\n", what, value);
    exit(2);
}

static uint64_t parse_number(const char *option, const char *text,
                             uint64_t max)
{
    static const char suffixes[] = "kMG";
    const char *suffix;
    char *end;
    uint64_t value, factor = 1;

    errno = 0;
    value = strtoull(text, &end, 0);
    suffix = *end && end != text ? strchr(suffixes, *end) : NULL;
    if (suffix) {
        factor = UINT64_C(1) << 10 * (suffix - suffixes + 1);
        end++;
    }
    if (errno || end == text || *end || *text == '-' ||
        value > max / factor) {
        die(option, "not a number that fits");
    }
    return value * factor;
}

/* An option with a number goes to a field of Options. */
typedef struct NumberOption {
    uint64_t max;
    uint64_t *wide;
    unsigned *narrow;
    bool *given;
} NumberOption;

static void parse_options(Options *o, int argc, char **argv)
{
    enum { THREADS, SECONDS, OPERATIONS_, SIZE, SEED, READ, ZERO, DISCARD,
           FLUSH, INTERVAL, NUMBERS, DIRECT, FINAL, STATE, HELP };
    static const struct option longs[] = {
        { "threads", required_argument, NULL, THREADS },
        { "seconds", required_argument, NULL, SECONDS },
        { "operations", required_argument, NULL, OPERATIONS_ },
        { "size", required_argument, NULL, SIZE },
        { "seed", required_argument, NULL, SEED },
        { "read-percent", required_argument, NULL, READ },
        { "zero-percent", required_argument, NULL, ZERO },
        { "discard-percent", required_argument, NULL, DISCARD },
        { "flush-every", required_argument, NULL, FLUSH },
        { "interval", required_argument, NULL, INTERVAL },
        { "direct", no_argument, NULL, DIRECT },
        { "final-check", no_argument, NULL, FINAL },
        { "state-file", required_argument, NULL, STATE },
        { "help", no_argument, NULL, HELP },
        { NULL, 0, NULL, 0 },
    };
    uint64_t seconds = 0;
    bool ignored;               /* the default does as well */
    const NumberOption numbers[NUMBERS] = {
        [THREADS] = { MAX_THREADS, NULL, &o->threads, &ignored },
        [SECONDS] = { 1000000, &seconds, NULL, &o->has_limit },
        [OPERATIONS_] = { UINT64_MAX / 2, &o->operations, NULL,
                          &o->has_limit },
        [SIZE] = { INT64_MAX, &o->size_bytes, NULL, &ignored },
        [SEED] = { UINT64_MAX, &o->seed, NULL, &o->has_seed },
        [READ] = { 100, NULL, &o->read_percent, &ignored },
        [ZERO] = { 100, NULL, &o->zero_percent, &ignored },
        [DISCARD] = { 100, NULL, &o->discard_percent, &ignored },
        [FLUSH] = { UINT32_MAX, NULL, &o->flush_every, &ignored },
        [INTERVAL] = { 3600000, NULL, &o->interval_ms, &ignored },
    };
    int option, index = 0;

    while ((option = getopt_long(argc, argv, "", longs, &index)) != -1) {
        if (option >= 0 && option < NUMBERS) {
            const NumberOption *n = &numbers[option];
            uint64_t value = parse_number(longs[index].name, optarg, n->max);

            *n->given = true;
            if (n->wide) {
                *n->wide = value;
            } else {
                *n->narrow = (unsigned)value;
            }
        } else if (option == DIRECT) {
            o->direct = true;
        } else if (option == FINAL) {
            o->final_check = true;
        } else if (option == STATE) {
            o->state_file = optarg;
        } else {
            usage(option == HELP ? stdout : stderr);
            exit(option == HELP ? 0 : 2);
        }
    }
    o->seconds = o->has_limit ? (double)seconds : 10;
    if (optind != argc - 1) {
        usage(stderr);
        exit(2);
    }
    o->name = argv[optind];
}

static void check_options(const Options *o)
{
    if (o->threads == 0) {
        die("--threads", "at least one is needed");
    }
    if (o->read_percent + o->zero_percent + o->discard_percent > 100) {
        die("--read-percent, --zero-percent, --discard-percent",
            "more than 100 together");
    }
}

/* --- all of it ----------------------------------------------------------- */

static VerifyTarget *target_open(const Options *o)
{
#ifdef WITH_NBD
    if (!strncmp(o->name, "nbd", 3) && strstr(o->name, "://")) {
        return verify_nbd_open(o->name);
    }
#endif
    return verify_file_open(o->name, o->direct);
}

/* What is known from a former run, or nothing. */
static int state_begin(Run *run, uint64_t size_bytes)
{
    const Options *o = run->options;
    uint64_t blocks = size_bytes / VERIFY_BLOCK_BYTES;
    int ret = o->state_file ? verify_state_load(o->state_file, &run->state)
                            : -ENOENT;

    if (ret == 0) {
        if (run->state.blocks == blocks &&
            (!o->has_seed || o->seed == run->state.seed)) {
            return 0;
        }
        fprintf(stderr, "weir-verify: %s is of a run with another size or "
                "seed\n", o->state_file);
        return -EINVAL;
    }
    if (ret != -ENOENT) {
        fprintf(stderr, "weir-verify: %s: %s\n", o->state_file,
                ret == -EINVAL ? "damaged" : strerror(-ret));
        return ret;
    }
    run->state.seed = o->has_seed ? o->seed : now_ns();
    run->state.blocks = blocks;
    run->state.block = calloc(blocks, sizeof(*run->state.block));
    return run->state.block ? 0 : -ENOMEM;
}

static int timeline_begin(Run *run)
{
    VerifyTimeline *timeline = &run->timeline;

    timeline->begin_ns = run->begin_ns;
    timeline->interval_ns = (uint64_t)run->options->interval_ms * 1000000;
    if (timeline->interval_ns) {
        timeline->intervals = MAX_INTERVALS;
        timeline->max_ns = calloc(MAX_INTERVALS, sizeof(*timeline->max_ns));
    }
    return timeline->interval_ns && !timeline->max_ns ? -ENOMEM : 0;
}

static int worker_begin(Worker *w, Run *run, unsigned index)
{
    w->run = run;
    w->index = index;
    /* another run with the same seed and a state file does something else */
    w->random = run->state.seed + index * UINT64_C(0x632be59bd9b4e019);
    if (run->options->state_file) {
        for (uint64_t i = 0; i < run->state.blocks; i++) {
            w->random += run->state.block[i].generation;
        }
    }
    w->data = aligned_alloc(VERIFY_BLOCK_BYTES, EXTENT_BYTES);
    w->target = target_open(run->options);
    return w->data && w->target ? 0 : -1;
}

/* Open it once to see how large it is; returns the size to use, 0: none. */
static uint64_t find_size(const Options *o)
{
    VerifyTarget *target = target_open(o);
    uint64_t size_bytes;

    if (!target) {
        return 0;
    }
    size_bytes = target->size_bytes;
    target->ops->close(target);
    if (o->size_bytes > size_bytes) {
        fprintf(stderr, "weir-verify: %s has only %" PRIu64 " bytes\n",
                o->name, size_bytes);
        return 0;
    }
    size_bytes = o->size_bytes ? o->size_bytes : size_bytes;
    if (size_bytes < (uint64_t)o->threads * EXTENT_BYTES) {
        fprintf(stderr, "weir-verify: %" PRIu64 " bytes are too few for %u "
                "threads\n", size_bytes, o->threads);
        return 0;
    }
    return size_bytes;
}

/* Returns the exit status. */
static int run_all(Run *run, Worker *workers)
{
    const Options *o = run->options;
    Worker total = { 0 };
    int ret = 0;

    run->begin_ns = now_ns();
    run->end_ns = o->seconds > 0 ? run->begin_ns + (uint64_t)(o->seconds * 1e9)
                                 : UINT64_MAX;
    for (unsigned i = 0; i < o->threads; i++) {
        if (worker_begin(&workers[i], run, i) < 0) {
            return 2;
        }
    }
    if (timeline_begin(run) < 0 || run_threads(workers, o->threads, work) < 0) {
        return 2;
    }
    if (o->final_check &&
        run_threads(workers, o->threads, work_final_check) < 0) {
        return 2;
    }
    for (unsigned i = 0; i < o->threads; i++) {
        merge(&total, &workers[i]);
    }
    report(run, &total);
    if (o->state_file) {
        ret = verify_state_save(o->state_file, &run->state);
        if (ret < 0) {
            fprintf(stderr, "weir-verify: %s: %s\n", o->state_file,
                    strerror(-ret));
            return 2;
        }
    }
    return total.io_errors || verify_errors(&total) ? 1 : 0;
}

int main(int argc, char **argv)
{
    static Worker workers[MAX_THREADS];
    struct sigaction action = { .sa_handler = stop };
    Options options = {
        .threads = 4, .read_percent = 50, .flush_every = 64,
    };
    Run run = { .options = &options };
    uint64_t size_bytes;
    int status = 2;

    parse_options(&options, argc, argv);
    check_options(&options);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    size_bytes = find_size(&options);
    if (size_bytes && state_begin(&run, size_bytes) == 0) {
        status = run_all(&run, workers);
    }
    for (unsigned i = 0; i < MAX_THREADS; i++) {
        if (workers[i].target) {
            workers[i].target->ops->close(workers[i].target);
        }
        free(workers[i].data);
    }
    free(run.state.block);
    free(run.timeline.max_ns);
    return status;
}
