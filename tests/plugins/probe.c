/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts what comes to it, and does with requests what the option "mode" says,
 * which may change while the disk is open.
 */
#include <pthread.h>
#include <stdlib.h>
#include <weir-plugin.h>

#define HELD_MAX 64

typedef enum Mode {
    PASS, FORWARD, HOLD, CANNOT, DENY, SLEEP, POOL, LATE, MODES
} Mode;

static const char *const modes[MODES] = {
    "pass", "forward", "hold", "cannot", "deny", "sleep", "pool", "late"
};

enum {
    PREPARES = WEIR_PLUGIN_FLUSH + 1, STATUSES, RESIZES, DRAINS, UNDRAINS,
    SNAPSHOTS, INACTIVATES, ACTIVATES, DETACHES, CHANGES, BYPASSES, OVERDUES,
    TICKS, TOGETHER, FUAS, COUNTERS
};

static const char *const counters[COUNTERS] = {
    "reads", "writes", "zeroes", "discards", "flushes", "prepares",
    "statuses", "resizes", "drains", "undrains", "snapshots", "inactivates",
    "activates", "detaches", "changes", "bypasses", "overdues", "ticks",
    "together", "fuas"
};

typedef struct Probe {
    WeirPluginDisk *disk;
    WeirPluginTimer *timer;
    pthread_mutex_t lock;       /* for all that follows */
    Mode mode;
    uint64_t hold_ns;
    unsigned running;
    uint64_t counts[COUNTERS];
    WeirPluginHeld *held[HELD_MAX];
    unsigned held_count;
} Probe;

static void count(Probe *probe, unsigned counter)
{
    pthread_mutex_lock(&probe->lock);
    probe->counts[counter]++;
    pthread_mutex_unlock(&probe->lock);
}

/* Give back all that is held. */
static void release(Probe *probe)
{
    WeirPluginHeld *held[HELD_MAX];
    unsigned n;

    pthread_mutex_lock(&probe->lock);
    n = probe->held_count;
    memcpy(held, probe->held, sizeof(held));
    probe->held_count = 0;
    pthread_mutex_unlock(&probe->lock);
    while (n > 0) {
        weir_plugin_resume(probe->disk, held[--n], WEIR_PLUGIN_PASS);
    }
}

static void tick(void *arg, WeirPluginIo *io)
{
    Probe *probe = arg;

    (void)io;
    count(probe, TICKS);
    release(probe);
}

static void take_options(Probe *probe, const WeirPluginValues *values)
{
    const char *mode = weir_plugin_get_string(values, "mode");
    unsigned i = 0;

    while (strcmp(modes[i], mode)) {
        i++;
    }
    pthread_mutex_lock(&probe->lock);
    probe->mode = (Mode)i;
    probe->hold_ns = (uint64_t)weir_plugin_get_int(values, "hold-ms") *
                     1000000;
    pthread_mutex_unlock(&probe->lock);
}

static int probe_open(WeirPluginDisk *disk, void **handle)
{
    Probe *probe = calloc(1, sizeof(*probe));

    if (!probe) {
        return -ENOMEM;
    }
    probe->disk = disk;
    pthread_mutex_init(&probe->lock, NULL);
    probe->timer = weir_plugin_timer_new(disk, tick, probe);
    take_options(probe, weir_plugin_values(disk));
    *handle = probe;
    return 0;
}

static int probe_prepare(void *handle, WeirPluginIo *io)
{
    uint64_t bytes;

    count(handle, PREPARES);
    return weir_plugin_length(io, WEIR_PLUGIN_NEXT, &bytes);
}

static void probe_close(void *handle, WeirPluginIo *io)
{
    Probe *probe = handle;

    (void)io;
    release(probe);
    weir_plugin_timer_free(probe->disk, probe->timer);
    pthread_mutex_destroy(&probe->lock);
    free(probe);
}

static int keep(Probe *probe, WeirPluginIo *io, WeirPluginRequest *request)
{
    WeirPluginHeld *held = weir_plugin_hold(io, request);
    uint64_t hold_ns;

    if (!held) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&probe->lock);
    probe->held[probe->held_count++] = held;
    hold_ns = probe->hold_ns;
    pthread_mutex_unlock(&probe->lock);
    if (hold_ns) {
        weir_plugin_timer_set(probe->disk, probe->timer, hold_ns);
    }
    return WEIR_PLUGIN_HOLD;
}

static int nothing(void *arg)
{
    (void)arg;
    return 7;
}

static int act(Probe *probe, Mode mode, WeirPluginIo *io,
               WeirPluginRequest *request)
{
    switch (mode) {
    case FORWARD:
        return weir_plugin_forward(io, request);
    case HOLD:
    case LATE:
        return keep(probe, io, request);
    case CANNOT:
        return WEIR_PLUGIN_CANNOT;
    case DENY:
        return -EACCES;
    case SLEEP:
        return weir_plugin_sleep(io, 20000000) ?: WEIR_PLUGIN_PASS;
    case POOL:
        return weir_plugin_run(io, nothing, NULL) == 7 ? WEIR_PLUGIN_PASS
                                                       : -EIO;
    default:
        return WEIR_PLUGIN_PASS;
    }
}

static int probe_request(void *handle, WeirPluginIo *io,
                         WeirPluginRequest *request)
{
    Probe *probe = handle;
    Mode mode;
    int verdict;

    pthread_mutex_lock(&probe->lock);
    /* who changes the mode flushes before */
    mode = request->kind == WEIR_PLUGIN_FLUSH ? PASS : probe->mode;
    probe->counts[request->kind]++;
    probe->counts[FUAS] += !!(request->flags & WEIR_PLUGIN_FUA);
    probe->counts[TOGETHER] += probe->running++ > 0;
    pthread_mutex_unlock(&probe->lock);
    verdict = act(probe, mode, io, request);
    pthread_mutex_lock(&probe->lock);
    probe->running--;
    pthread_mutex_unlock(&probe->lock);
    return verdict;
}

static int probe_status(void *handle, WeirPluginIo *io, uint64_t offset,
                        uint64_t bytes, WeirPluginStatus *status)
{
    (void)io;
    (void)offset;
    (void)bytes;
    (void)status;
    count(handle, STATUSES);
    return WEIR_PLUGIN_PASS;
}

static int probe_resize(void *handle, WeirPluginIo *io, uint64_t bytes)
{
    (void)io;
    count(handle, RESIZES);
    return bytes > (1ULL << 30) ? -EFBIG : 0;
}

static void probe_drain_begin(void *handle)
{
    Probe *probe = handle;

    count(probe, DRAINS);
    if (probe->mode != LATE) {
        release(probe);
    }
}

static void probe_drain_end(void *handle)
{
    count(handle, UNDRAINS);
}

static int probe_snapshot_before(void *handle, WeirPluginIo *io,
                                 uint32_t what, const char *name)
{
    Probe *probe = handle;
    Mode mode;

    (void)io;
    (void)what;
    count(probe, SNAPSHOTS);
    pthread_mutex_lock(&probe->lock);
    mode = probe->mode;
    pthread_mutex_unlock(&probe->lock);
    if (mode == DENY) {
        weir_plugin_error(probe->disk, "there are to be none");
        return -EBUSY;
    }
    return name && !strcmp(name, "refused") ? -EPERM : 0;
}

static void probe_snapshot_after(void *handle, WeirPluginIo *io,
                                 uint32_t what, const char *name, int result)
{
    static const char *const names[] = {
        "create", "revert", "delete", "overlay"
    };
    Probe *probe = handle;

    (void)io;
    (void)name;
    count(handle, SNAPSHOTS);
    weir_plugin_report(probe->disk, names[what], result ? "failed" : "done");
}

static int probe_inactivate(void *handle, WeirPluginIo *io)
{
    (void)io;
    count(handle, INACTIVATES);
    return 0;
}

static int probe_activate(void *handle, WeirPluginIo *io)
{
    (void)io;
    count(handle, ACTIVATES);
    return 0;
}

static int probe_detach(void *handle, WeirPluginIo *io, int force)
{
    (void)io;
    (void)force;
    count(handle, DETACHES);
    return 0;
}

static void probe_options_changed(void *handle, const WeirPluginValues *values)
{
    count(handle, CHANGES);
    take_options(handle, values);
    release(handle);
}

static int probe_check(const WeirPluginValues *values, char *message,
                       size_t size)
{
    if (weir_plugin_get_int(values, "hold-ms") > 0 &&
        !strcmp(weir_plugin_get_string(values, "mode"), "cannot")) {
        snprintf(message, size, "option 'hold-ms' makes no sense with "
                 "mode=cannot");
        return -EINVAL;
    }
    return 0;
}

static void probe_statistics(void *handle, WeirPluginGauges *gauges)
{
    Probe *probe = handle;
    unsigned i;

    pthread_mutex_lock(&probe->lock);
    for (i = 0; i < COUNTERS; i++) {
        weir_plugin_gauge(probe->disk, gauges, counters[i], "",
                          probe->counts[i], 1);
    }
    pthread_mutex_unlock(&probe->lock);
}

static void probe_event(void *handle, uint32_t event)
{
    if (event == WEIR_PLUGIN_EVENT_BYPASS_BEGIN) {
        count(handle, BYPASSES);
    } else if (event == WEIR_PLUGIN_EVENT_OVERDUE) {
        count(handle, OVERDUES);
    }
}

static const WeirPluginOption probe_options[] = {
    {
        .name = "mode",
        .help = "what is done with requests",
        .type = WEIR_PLUGIN_CHOICE,
        .flags = WEIR_PLUGIN_MUTABLE,
        .default_value = "pass",
        .choices = "pass,forward,hold,cannot,deny,sleep,pool,late",
    }, {
        .name = "hold-ms",
        .help = "for how long they are held; 0: for ever",
        .type = WEIR_PLUGIN_INT,
        .flags = WEIR_PLUGIN_MUTABLE,
        .unit = "ms",
        .max = 10000,
    }, {
        .name = "label",
        .help = "anything",
        .type = WEIR_PLUGIN_STRING,
    }, {
        .name = "quick",
        .help = "a choice without effect",
        .type = WEIR_PLUGIN_BOOL,
        .default_value = "on",
    }, {
        .name = "room",
        .help = "a size without effect",
        .type = WEIR_PLUGIN_SIZE,
        .default_value = "1M",
        .min = 4096,
        .max = 1 << 30,
    },
};

static const WeirPlugin probe = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = sizeof(probe_options) / sizeof(probe_options[0]),
    .options = probe_options,
    .name = PLUGIN_NAME,
    .version = "1.0",
    .description = "counts requests",
    .plugin_class = WEIR_PLUGIN_CLASS_INSPECTION,
#ifdef ORDERED
    .capabilities = WEIR_PLUGIN_MAY_BYPASS | WEIR_PLUGIN_ORDERED_FLUSH |
                    WEIR_PLUGIN_DURABLE_WRITES,
#else
    .capabilities = WEIR_PLUGIN_MAY_BYPASS,
#endif
#ifdef SERIAL
    .concurrency = WEIR_PLUGIN_SERIAL,
#else
    .concurrency = WEIR_PLUGIN_PARALLEL,
#endif
    .check_options = probe_check,
    .open = probe_open,
    .prepare = probe_prepare,
    .close = probe_close,
    .read = probe_request,
    .write = probe_request,
    .zero = probe_request,
    .discard = probe_request,
    .flush = probe_request,
    .block_status = probe_status,
    .resize = probe_resize,
    .drain_begin = probe_drain_begin,
    .drain_end = probe_drain_end,
    .snapshot_before = probe_snapshot_before,
    .snapshot_after = probe_snapshot_after,
    .inactivate = probe_inactivate,
    .activate = probe_activate,
    .detach = probe_detach,
    .options_changed = probe_options_changed,
    .statistics = probe_statistics,
    .event = probe_event,
};

WEIR_PLUGIN_REGISTER(probe);
