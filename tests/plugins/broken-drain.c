/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * While there are many requests, one is kept until the next one comes; in a
 * drained section, none comes.
 */
#include <pthread.h>

#include "broken.h"

#define MANY 4

typedef struct Broken {
    WeirPluginDisk *disk;
    pthread_mutex_t lock;       /* for what follows */
    WeirPluginHeld *held;
    unsigned running;
} Broken;

static int broken_open(WeirPluginDisk *disk, void **handle)
{
    Broken *b = calloc(1, sizeof(*b));

    if (!b) {
        return -ENOMEM;
    }
    b->disk = disk;
    pthread_mutex_init(&b->lock, NULL);
    *handle = b;
    return 0;
}

static void broken_close(void *handle, WeirPluginIo *io)
{
    Broken *b = handle;

    (void)io;
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static int broken_write(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    Broken *b = handle;
    WeirPluginHeld *before, *held = NULL;
    int ret;

    pthread_mutex_lock(&b->lock);
    if (++b->running > MANY) {
        held = weir_plugin_hold(io, request);
    }
    before = b->held;
    b->held = held;
    pthread_mutex_unlock(&b->lock);
    if (before) {
        weir_plugin_resume(b->disk, before, WEIR_PLUGIN_PASS);
    }
    ret = held ? WEIR_PLUGIN_HOLD : weir_plugin_forward(io, request);
    pthread_mutex_lock(&b->lock);
    b->running--;
    pthread_mutex_unlock(&b->lock);
    return ret;
}

BROKEN_PLUGIN(
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = broken_open,
    .close = broken_close,
    .write = broken_write,
    .zero = weir_plugin_pass,
);
