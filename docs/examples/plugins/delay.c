/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes a disk slow: reads and writes are held for a time, and given back by a
 * timer.  In a drained section, somebody waits for them: they go at once.
 */
#include <pthread.h>
#include <stdlib.h>
#include <weir-plugin.h>

#define NS_PER_MS 1000000u

typedef struct Held {
    WeirPluginHeld *held;
    uint64_t due_ns;
    struct Held *next;
} Held;

typedef struct Delay {
    WeirPluginDisk *disk;
    WeirPluginTimer *timer;
    pthread_mutex_t lock;       /* for all that follows */
    uint64_t delay_ns;
    int is_drained;
    Held *first;                /* in the order in which they came */
    Held **end;
} Delay;

static void give_back(Delay *delay, Held *list)
{
    while (list) {
        Held *next = list->next;

        weir_plugin_resume(delay->disk, list->held, WEIR_PLUGIN_PASS);
        free(list);
        list = next;
    }
}

/* With the lock.  Returns those that are due at a time. */
static Held *take_due(Delay *delay, uint64_t now_ns)
{
    Held *list = delay->first, **end = &list;

    while (*end && (*end)->due_ns <= now_ns) {
        end = &(*end)->next;
    }
    delay->first = *end;
    *end = NULL;
    if (!delay->first) {
        delay->end = &delay->first;
    }
    return list;
}

static void delay_timer(void *arg, WeirPluginIo *io)
{
    Delay *delay = arg;
    uint64_t now_ns = weir_plugin_now_ns(delay->disk);
    Held *list;

    (void)io;
    pthread_mutex_lock(&delay->lock);
    list = take_due(delay, now_ns);
    if (delay->first) {
        weir_plugin_timer_set(delay->disk, delay->timer,
                              delay->first->due_ns - now_ns);
    }
    pthread_mutex_unlock(&delay->lock);
    give_back(delay, list);
}

/* With the lock. */
static int hold(Delay *delay, WeirPluginIo *io, WeirPluginRequest *request)
{
    Held *held = malloc(sizeof(*held));

    if (!held) {
        return WEIR_PLUGIN_PASS;
    }
    held->held = weir_plugin_hold(io, request);
    if (!held->held) {
        free(held);
        return WEIR_PLUGIN_PASS;
    }
    held->due_ns = weir_plugin_now_ns(delay->disk) + delay->delay_ns;
    held->next = NULL;
    if (!delay->first) {
        weir_plugin_timer_set(delay->disk, delay->timer, delay->delay_ns);
    }
    *delay->end = held;
    delay->end = &held->next;
    return WEIR_PLUGIN_HOLD;
}

static int delay_request(void *handle, WeirPluginIo *io,
                         WeirPluginRequest *request)
{
    Delay *delay = handle;
    int verdict = WEIR_PLUGIN_PASS;

    pthread_mutex_lock(&delay->lock);
    if (delay->delay_ns > 0 && !delay->is_drained) {
        verdict = hold(delay, io, request);
    }
    pthread_mutex_unlock(&delay->lock);
    return verdict;
}

static void delay_drain_begin(void *handle)
{
    Delay *delay = handle;
    Held *list;

    pthread_mutex_lock(&delay->lock);
    delay->is_drained = 1;
    list = take_due(delay, UINT64_MAX);
    pthread_mutex_unlock(&delay->lock);
    give_back(delay, list);
}

static void delay_drain_end(void *handle)
{
    Delay *delay = handle;

    pthread_mutex_lock(&delay->lock);
    delay->is_drained = 0;
    pthread_mutex_unlock(&delay->lock);
}

static void delay_options_changed(void *handle, const WeirPluginValues *values)
{
    Delay *delay = handle;

    pthread_mutex_lock(&delay->lock);
    delay->delay_ns = (uint64_t)weir_plugin_get_int(values, "time") *
                      NS_PER_MS;
    pthread_mutex_unlock(&delay->lock);
}

static int delay_open(WeirPluginDisk *disk, void **handle)
{
    Delay *delay = calloc(1, sizeof(*delay));

    if (!delay) {
        return -ENOMEM;
    }
    delay->disk = disk;
    delay->end = &delay->first;
    delay->timer = weir_plugin_timer_new(disk, delay_timer, delay);
    if (!delay->timer) {
        free(delay);
        return -ENOMEM;
    }
    pthread_mutex_init(&delay->lock, NULL);
    delay_options_changed(delay, weir_plugin_values(disk));
    *handle = delay;
    return 0;
}

static void delay_close(void *handle, WeirPluginIo *io)
{
    Delay *delay = handle;

    (void)io;
    weir_plugin_timer_free(delay->disk, delay->timer);
    pthread_mutex_destroy(&delay->lock);
    free(delay);
}

static const WeirPluginOption delay_options[] = {
    {
        .name = "time",
        .help = "how long a read or write takes at least",
        .type = WEIR_PLUGIN_INT,
        .flags = WEIR_PLUGIN_MUTABLE,
        .default_value = "1",
        .unit = "ms",
        .min = 0,
        .max = 10000,
    },
};

static const WeirPlugin plugin = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = sizeof(delay_options) / sizeof(*delay_options),
    .options = delay_options,
    .name = "delay",
    .version = "1.0",
    .description = "makes a disk slow",
    .plugin_class = WEIR_PLUGIN_CLASS_QOS,
    .capabilities = WEIR_PLUGIN_MAY_BYPASS,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = delay_open,
    .close = delay_close,
    .read = delay_request,
    .write = delay_request,
    .zero = delay_request,
    .discard = weir_plugin_pass,
    .drain_begin = delay_drain_begin,
    .drain_end = delay_drain_end,
    .options_changed = delay_options_changed,
};
WEIR_PLUGIN_REGISTER(plugin);
