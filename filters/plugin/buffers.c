/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A page before each buffer says how long it is.  Lengths are powers of two,
 * from a page to 1 MiB; longer ones are not kept.
 */
#include "plugin/buffers.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define PAGE_BYTES 4096
#define CLASSES 9               /* 4 KiB to 1 MiB */
#define KEPT_BYTES_MAX (4u << 20)

typedef struct Head {
    unsigned class;             /* CLASSES: not kept */
    struct Head *next;          /* while it is kept */
} Head;

struct WeirPluginBuffers {
    pthread_mutex_t lock;
    Head *kept[CLASSES];
    size_t kept_bytes;
};

static size_t class_bytes(unsigned class)
{
    return (size_t)PAGE_BYTES << class;
}

static unsigned class_of(size_t bytes)
{
    unsigned class = 0;

    while (class < CLASSES && class_bytes(class) < bytes) {
        class++;
    }
    return class;
}

WeirPluginBuffers *weir_plugin_buffers_new(void)
{
    WeirPluginBuffers *buffers = calloc(1, sizeof(*buffers));

    if (buffers) {
        pthread_mutex_init(&buffers->lock, NULL);
    }
    return buffers;
}

void weir_plugin_buffers_free(WeirPluginBuffers *buffers)
{
    if (!buffers) {
        return;
    }
    for (unsigned i = 0; i < CLASSES; i++) {
        while (buffers->kept[i]) {
            Head *head = buffers->kept[i];

            buffers->kept[i] = head->next;
            free(head);
        }
    }
    pthread_mutex_destroy(&buffers->lock);
    free(buffers);
}

static Head *take_kept(WeirPluginBuffers *buffers, unsigned class)
{
    Head *head;

    pthread_mutex_lock(&buffers->lock);
    head = buffers->kept[class];
    if (head) {
        buffers->kept[class] = head->next;
        buffers->kept_bytes -= class_bytes(class);
    }
    pthread_mutex_unlock(&buffers->lock);
    return head;
}

void *weir_plugin_buffers_take(WeirPluginBuffers *buffers, size_t bytes)
{
    unsigned class = class_of(bytes);
    Head *head = class < CLASSES ? take_kept(buffers, class) : NULL;
    void *memory;

    if (!head) {
        bytes = class < CLASSES ? class_bytes(class) : bytes;
        if (bytes > SIZE_MAX - PAGE_BYTES ||
            posix_memalign(&memory, PAGE_BYTES, PAGE_BYTES + bytes)) {
            return NULL;
        }
        head = memory;
        head->class = class;
    }
    return (char *)head + PAGE_BYTES;
}

void weir_plugin_buffers_give(WeirPluginBuffers *buffers, void *buffer)
{
    Head *head = buffer ? (Head *)((char *)buffer - PAGE_BYTES) : NULL;
    unsigned class = head ? head->class : CLASSES;

    if (class < CLASSES) {
        pthread_mutex_lock(&buffers->lock);
        if (buffers->kept_bytes + class_bytes(class) <= KEPT_BYTES_MAX) {
            head->next = buffers->kept[class];
            buffers->kept[class] = head;
            buffers->kept_bytes += class_bytes(class);
            head = NULL;
        }
        pthread_mutex_unlock(&buffers->lock);
    }
    free(head);
}
