/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cache used by several threads at a time, as by the I/O threads of QEMU.
 * Each client writes to blocks of its own, so it knows what they hold, and
 * reads all. The fast device is plain memory without a lock: a slot that is
 * used again too early is a data race, which the thread sanitizer shows.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "cache/cache.h"

#define BLOCK WEIR_CACHE_BLOCK_BYTES
#define BLOCKS 1500
#define FAST_BYTES (UINT64_C(5) << 20)  /* some 900 slots */
#define CLIENTS 4
#define REQUESTS 4000
#define REQUEST_BLOCKS 8
#define CONDS_MAX 64                    /* queues of all caches */

/* --- host: real threads --- */

static uint8_t base[BLOCKS * BLOCK];
static pthread_mutex_t base_lock[BLOCKS];
static uint8_t *fast;
static WeirCache *cache;
/* of all queues; taken with the lock of the cache held */
static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond[CONDS_MAX];
static unsigned conds;
static pthread_mutex_t task_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t task_cond = PTHREAD_COND_INITIALIZER;
static unsigned tasks;                  /* @task_lock */
static bool kicked, stops;              /* @task_lock */

static void lock_base(uint64_t offset, uint64_t bytes, bool lock)
{
    for (uint64_t i = offset / BLOCK; i * BLOCK < offset + bytes; i++) {
        if (lock) {
            pthread_mutex_lock(&base_lock[i]);
        } else {
            pthread_mutex_unlock(&base_lock[i]);
        }
    }
}

static void copy(WeirCacheDevice dev, uint64_t offset, uint64_t bytes,
                 void *to, const void *from)
{
    if (dev == WEIR_CACHE_FAST) {
        assert_true(offset + bytes <= FAST_BYTES);
        memcpy(to ? to : fast + offset, from ? from : fast + offset, bytes);
        return;
    }
    assert_true(offset + bytes <= sizeof(base));
    lock_base(offset, bytes, true);
    memcpy(to ? to : base + offset, from ? from : base + offset, bytes);
    lock_base(offset, bytes, false);
}

static int host_read(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, void *buf)
{
    (void)opaque;
    copy(dev, offset, bytes, buf, NULL);
    return 0;
}

static int host_write(void *opaque, WeirCacheDevice dev, uint64_t offset,
                      uint64_t bytes, const void *buf)
{
    (void)opaque;
    copy(dev, offset, bytes, NULL, buf);
    return 0;
}

static int host_read_guest(void *opaque, WeirCacheDevice dev, uint64_t offset,
                           uint64_t bytes, void *guest, uint64_t at)
{
    return host_read(opaque, dev, offset, bytes, (uint8_t *)guest + at);
}

static int host_zero(void *opaque, WeirCacheDevice dev, uint64_t offset,
                     uint64_t bytes, bool may_unmap)
{
    static const uint8_t zeroes[BLOCK];

    (void)may_unmap;
    for (uint64_t at = 0; at < bytes; at += BLOCK) {
        uint64_t n = bytes - at < BLOCK ? bytes - at : BLOCK;

        host_write(opaque, dev, offset + at, n, zeroes);
    }
    return 0;
}

static int host_discard(void *opaque, WeirCacheDevice dev, uint64_t offset,
                        uint64_t bytes)
{
    return host_zero(opaque, dev, offset, bytes, true);
}

static int host_flush(void *opaque, WeirCacheDevice dev)
{
    (void)opaque;
    (void)dev;
    return 0;
}

static int host_grow_base(void *opaque, uint64_t bytes)
{
    (void)opaque;
    (void)bytes;
    return -ENOTSUP;
}

static void host_sleep(void *opaque, uint64_t ns)
{
    (void)opaque;
    (void)ns;
}

/* Tasks are threads already. */
static void host_run(void *opaque, void (*fn)(void *arg), void *arg)
{
    (void)opaque;
    fn(arg);
}

static void host_queue_init(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    assert_true(conds < CONDS_MAX);
    pthread_cond_init(&cond[conds], NULL);
    queue->host[0] = &cond[conds++];
}

static void host_wait(void *opaque, WeirCache *c, WeirCacheQueue *queue)
{
    (void)opaque;
    pthread_mutex_lock(&queue_lock);
    weir_cache_unlock(c);
    pthread_cond_wait(queue->host[0], &queue_lock);
    pthread_mutex_unlock(&queue_lock);
    weir_cache_lock(c);
}

static void host_wake(void *opaque, WeirCacheQueue *queue)
{
    (void)opaque;
    pthread_mutex_lock(&queue_lock);
    pthread_cond_broadcast(queue->host[0]);
    pthread_mutex_unlock(&queue_lock);
}

typedef struct Task {
    void (*fn)(void *arg);
    void *arg;
} Task;

static void *run_task(void *opaque)
{
    Task *task = opaque;

    task->fn(task->arg);
    free(task);
    pthread_mutex_lock(&task_lock);
    tasks--;
    pthread_cond_broadcast(&task_cond);
    pthread_mutex_unlock(&task_lock);
    return NULL;
}

static void host_spawn(void *opaque, void (*fn)(void *arg), void *arg)
{
    Task *task = malloc(sizeof(*task));
    pthread_attr_t attr;
    pthread_t thread;

    (void)opaque;
    assert_non_null(task);
    *task = (Task) { fn, arg };
    pthread_mutex_lock(&task_lock);
    tasks++;
    pthread_mutex_unlock(&task_lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    assert_int_equal(pthread_create(&thread, &attr, run_task, task), 0);
    pthread_attr_destroy(&attr);
}

static void host_kick(void *opaque)
{
    (void)opaque;
    pthread_mutex_lock(&task_lock);
    kicked = true;
    pthread_cond_broadcast(&task_cond);
    pthread_mutex_unlock(&task_lock);
}

static uint64_t host_now_ns(void *opaque)
{
    struct timespec t;

    (void)opaque;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void host_random(void *opaque, void *buf, size_t bytes)
{
    (void)opaque;
    memset(buf, 0x5a, bytes);
}

static const WeirCacheHost host = {
    .read = host_read, .write = host_write, .read_guest = host_read_guest,
    .zero = host_zero, .discard = host_discard, .flush = host_flush,
    .grow_base = host_grow_base, .sleep = host_sleep, .run = host_run,
    .wait = host_wait, .wake = host_wake, .queue_init = host_queue_init,
    .spawn = host_spawn, .kick = host_kick, .now_ns = host_now_ns,
    .random = host_random,
};

/* --- the worker --- */

static void *worker(void *opaque)
{
    bool stop = false;

    (void)opaque;
    while (!stop) {
        uint64_t in = weir_cache_work(cache);
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 10000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&task_lock);
        if (in && !kicked && !stops) {
            pthread_cond_timedwait(&task_cond, &task_lock, &until);
        }
        kicked = false;
        stop = stops;
        pthread_mutex_unlock(&task_lock);
    }
    return NULL;
}

/* --- clients --- */

typedef struct Client {
    pthread_t thread;
    unsigned number;
    uint64_t random;
    uint32_t version[BLOCKS];           /* of its own; 0: zeroes */
    unsigned wrong;
} Client;

static uint32_t below(Client *client, uint32_t n)
{
    uint64_t x = client->random += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)((x >> 32) * n >> 32);
}

static bool is_own(const Client *client, uint32_t block)
{
    return block / REQUEST_BLOCKS % CLIENTS == client->number;
}

static void stamp(uint8_t *data, uint32_t block, uint32_t version)
{
    uint32_t words[2] = { version ? block + 1 : 0, version };

    for (size_t at = 0; at < BLOCK; at += sizeof(words)) {
        memcpy(data + at, words, sizeof(words));
    }
}

/* A block of another client is some whole version of that block. */
static bool is_right(const Client *client, uint32_t block, const uint8_t *data)
{
    uint32_t words[2];

    memcpy(words, data, sizeof(words));
    if (memcmp(data, data + sizeof(words), BLOCK - sizeof(words))) {
        return false;
    }
    if (is_own(client, block) && words[1] != client->version[block]) {
        return false;
    }
    return words[0] == (words[1] ? block + 1 : 0);
}

static int request(Client *client, uint32_t block, uint32_t count,
                   uint8_t *data, uint32_t what)
{
    struct iovec iov = { data, (size_t)count * BLOCK };
    WeirCacheGuest guest = { .host = data, .iov = &iov, .niov = 1 };
    uint64_t offset = (uint64_t)block * BLOCK;

    if (what < 50) {
        return weir_cache_read(cache, offset, iov.iov_len, &guest);
    }
    for (uint32_t i = 0; i < count; i++) {
        client->version[block + i] = what < 95 ? client->version[block + i] + 1
                                               : 0;
        stamp(data + (size_t)i * BLOCK, block + i, client->version[block + i]);
    }
    if (what < 95) {
        return weir_cache_write(cache, offset, iov.iov_len, &guest, what < 55);
    }
    return what < 98 ? weir_cache_zero(cache, offset, iov.iov_len, true, false)
                     : weir_cache_discard(cache, offset, iov.iov_len);
}

static void *run_client(void *opaque)
{
    Client *client = opaque;
    uint8_t *data = malloc(REQUEST_BLOCKS * BLOCK);

    for (unsigned i = 0; i < REQUESTS; i++) {
        uint32_t what = below(client, 100);
        uint32_t block = below(client, BLOCKS / REQUEST_BLOCKS) *
                         REQUEST_BLOCKS;
        uint32_t first = below(client, REQUEST_BLOCKS);
        uint32_t count = 1 + below(client, REQUEST_BLOCKS - first);

        if (!is_own(client, block) && what >= 50) {
            what = below(client, 50);
        }
        client->wrong += request(client, block + first, count, data,
                                 what) < 0;
        for (uint32_t k = 0; k < count && what < 50; k++) {
            client->wrong += !is_right(client, block + first + k,
                                       data + (size_t)k * BLOCK);
        }
        if (what % 10 == 9) {
            client->wrong += weir_cache_flush(cache) < 0;
        }
    }
    free(data);
    return NULL;
}

/* --- tests --- */

static void open_cache(const WeirCacheConfig *config)
{
    WeirCacheOpen open = {
        .config = *config, .base_bytes = sizeof(base),
        .fast_bytes = FAST_BYTES,
    };
    char err[256];

    assert_int_equal(weir_cache_open(&cache, &open, &host, NULL, err,
                                     sizeof(err)), 0);
}

static void wait_for_tasks(void)
{
    pthread_mutex_lock(&task_lock);
    while (tasks) {
        pthread_cond_wait(&task_cond, &task_lock);
    }
    pthread_mutex_unlock(&task_lock);
}

static void close_cache(void)
{
    wait_for_tasks();
    assert_int_equal(weir_cache_close(cache), 0);
    wait_for_tasks();
    weir_cache_free(cache);
}

/* Modes come and go while the clients are at work. */
static void change_modes(WeirCacheConfig *config)
{
    for (int i = 0; i < 30; i++) {
        const struct timespec pause = { .tv_nsec = 20000000 };

        config->mode = (WeirCacheMode)(i % 4);
        weir_cache_configure(cache, config);
        nanosleep(&pause, NULL);
    }
    config->mode = WEIR_CACHE_WRITE_BACK;
    weir_cache_configure(cache, config);
}

static void run_clients(Client *clients, WeirCacheConfig *config)
{
    pthread_t thread;

    stops = kicked = false;
    pthread_create(&thread, NULL, worker, NULL);
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_create(&clients[i].thread, NULL, run_client, &clients[i]);
    }
    change_modes(config);
    for (unsigned i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].wrong, 0);
    }
    wait_for_tasks();
    pthread_mutex_lock(&task_lock);
    stops = true;
    pthread_cond_broadcast(&task_cond);
    pthread_mutex_unlock(&task_lock);
    pthread_join(thread, NULL);
}

static void several_threads_see_what_they_wrote(void **state)
{
    Client *clients = calloc(CLIENTS, sizeof(*clients));
    WeirCacheConfig config;

    (void)state;
    weir_cache_config_default(&config);
    config.dirty_high_percent = 20;
    config.dirty_low_percent = 5;
    open_cache(&config);
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i].number = i;
        clients[i].random = i + 1;
    }
    run_clients(clients, &config);
    close_cache();

    open_cache(&config);
    run_clients(clients, &config);
    assert_int_equal(weir_cache_drain(cache), 0);
    for (uint32_t block = 0; block < BLOCKS; block++) {
        Client *client = &clients[block / REQUEST_BLOCKS % CLIENTS];

        assert_true(is_right(client, block, base + (size_t)block * BLOCK));
    }
    close_cache();
    free(clients);
}

static int set_up(void **state)
{
    (void)state;
    fast = calloc(1, FAST_BYTES);
    for (unsigned i = 0; i < BLOCKS; i++) {
        pthread_mutex_init(&base_lock[i], NULL);
    }
    return fast ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(fast);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_threads_see_what_they_wrote),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
