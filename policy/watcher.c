/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "watcher.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <libvirt/libvirt-qemu.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "notify.h"

#define WATCHER_THREADS 4
#define WATCHER_RETRY_MS 1000       /* until libvirtd is there */
#define WATCHER_SOON_MS 50          /* after an event: it comes with others */
#define WATCHER_AGAIN_MS 700        /* what it announces has happened by then */
#define WATCHER_REFUSED_MS 60000    /* what was refused is tried again */
#define WATCHER_CREATED "create-"   /* jobs that make images for libvirt */

/* A domain that runs. */
typedef struct Watched {
    struct Watch *watch;
    char *uuid;
    char *name;
    virDomainPtr domain;
    GHashTable *told;       /* see settle.h; since the last look began */
    gint64 due_us;          /* when it is looked at next; monotonic */
    gint64 again_us;        /* and after that; 0: as all are */
    gint64 refused_us;      /* when a disk was refused last; 0: none is */
    bool busy;              /* a thread looks at it */
    bool ended;             /* meanwhile it has */
    /* these are the thread's while it is busy */
    GHashTable *looking;    /* what was told before */
    gint64 begun_ms, seen_ms;
    WeirSettled settled;
    char *failure;          /* that was told last */
} Watched;

typedef struct Watch {
    const WeirWatcher *watcher;
    virConnectPtr connection;   /* NULL: libvirtd is away */
    bool lost;
    bool told_lost;
    bool stop;
    GHashTable *domains;        /* UUID -> Watched */
    GThreadPool *pool;
    GAsyncQueue *done;          /* Watched, of threads that have ended */
    int wakeup[2];              /* to the main thread */
    int timer;
} Watch;

static void watch_tell(const Watch *watch, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static void watch_tell(const Watch *watch, const char *format, ...)
{
    g_autofree char *line = NULL;
    va_list args;

    va_start(args, format);
    line = g_strdup_vprintf(format, args);
    va_end(args);
    watch->watcher->settle.tell(line);
}

/* --- domains --- */

static void watched_free(gpointer opaque)
{
    Watched *watched = opaque;

    g_clear_pointer(&watched->domain, virDomainFree);
    g_hash_table_unref(watched->told);
    g_clear_pointer(&watched->looking, g_hash_table_unref);
    g_free(watched->uuid);
    g_free(watched->name);
    g_free(watched->failure);
    g_free(watched);
}

static GHashTable *watched_told_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

static Watched *watch_find(Watch *watch, virDomainPtr domain, bool add)
{
    char uuid[VIR_UUID_STRING_BUFLEN];
    Watched *watched;

    if (virDomainGetUUIDString(domain, uuid) < 0) {
        return NULL;
    }
    watched = g_hash_table_lookup(watch->domains, uuid);
    if (!watched && add) {
        watched = g_new0(Watched, 1);
        watched->watch = watch;
        watched->uuid = g_strdup(uuid);
        watched->told = watched_told_new();
        g_hash_table_insert(watch->domains, watched->uuid, watched);
    }
    if (watched && !watched->busy) {
        g_clear_pointer(&watched->domain, virDomainFree);
        virDomainRef(domain);
        watched->domain = domain;
        g_free(watched->name);
        watched->name = g_strdup(virDomainGetName(domain));
    }
    if (watched) {
        watched->ended = false;
    }
    return watched;
}

static void watched_due(Watched *watched, int in_ms)
{
    gint64 due_us = g_get_monotonic_time() + in_ms * (gint64)1000;

    if (watched->due_us == 0 || due_us < watched->due_us) {
        watched->due_us = due_us;
    }
}

static void watch_remove(Watch *watch, Watched *watched)
{
    weir_settle_end(watched->uuid, watched->name, &watch->watcher->settle);
    g_hash_table_remove(watch->domains, watched->uuid);
}

/* --- looking, in a thread --- */

static void watched_look(gpointer data, gpointer opaque)
{
    Watched *watched = data;
    Watch *watch = opaque;
    WeirSettle settle = watch->watcher->settle;
    g_autoptr(GError) error = NULL;

    settle.seen_ms = watched->seen_ms;
    settle.told = watched->looking;
    watched->begun_ms = g_get_real_time() / 1000;
    if (weir_settle(watched->domain, &settle, &watched->settled, &error)) {
        g_clear_pointer(&watched->failure, g_free);
        if (watched->settled.refused == 0) {
            watched->seen_ms = watched->begun_ms;
        }
    } else if (virDomainIsActive(watched->domain) == 1 &&
               g_strcmp0(watched->failure, error->message) != 0) {
        g_free(watched->failure);
        watched->failure = g_strdup(error->message);
        watch_tell(watch, "%s", error->message);
    }
    g_async_queue_push(watch->done, watched);
    while (write(watch->wakeup[1], "", 1) < 0 && errno == EINTR) {
        continue;
    }
}

static void watch_begin_look(Watch *watch, Watched *watched)
{
    watched->due_us = 0;
    watched->busy = true;
    g_clear_pointer(&watched->looking, g_hash_table_unref);
    watched->looking = watched->told;
    watched->told = watched_told_new();
    g_thread_pool_push(watch->pool, watched, NULL);
}

static void watch_end_look(Watch *watch, Watched *watched)
{
    int interval_ms = watch->watcher->interval_ms;

    watched->busy = false;
    if (watched->ended) {
        watch_remove(watch, watched);
        return;
    }
    if (watched->settled.refused > 0) {
        watched_due(watched, MAX(WATCHER_REFUSED_MS, interval_ms));
    } else {
        watched_due(watched, interval_ms);
    }
    if (watched->again_us > 0) {
        watched->due_us = MIN(watched->due_us, watched->again_us);
        watched->again_us = 0;
    }
}

/* --- what libvirt tells --- */

/* Something has happened to what is called @key, NULL: to anything. */
static void watch_told(Watch *watch, virDomainPtr domain, const char *key)
{
    Watched *watched = watch_find(watch, domain, true);

    if (!watched) {
        return;
    }
    if (key) {
        gint64 *time_ms = g_new(gint64, 1);

        *time_ms = g_get_real_time() / 1000;
        g_hash_table_replace(watched->told, g_strdup(key), time_ms);
    }
    watched_due(watched, WATCHER_SOON_MS);
    watched->again_us = g_get_monotonic_time() +
                        WATCHER_AGAIN_MS * (gint64)1000;
}

static int watch_on_lifecycle(virConnectPtr connection, virDomainPtr domain,
                              int event, int detail, void *opaque)
{
    Watch *watch = opaque;
    Watched *watched;

    (void)connection;
    (void)detail;
    switch (event) {
    case VIR_DOMAIN_EVENT_STARTED:
    case VIR_DOMAIN_EVENT_RESUMED:
        watch_told(watch, domain, NULL);
        break;
    case VIR_DOMAIN_EVENT_STOPPED:
        watched = watch_find(watch, domain, false);
        if (watched && watched->busy) {
            watched->ended = true;
        } else if (watched) {
            watch_remove(watch, watched);
        }
        break;
    default:
        break;
    }
    return 0;
}

static void watch_on_device(virConnectPtr connection, virDomainPtr domain,
                            const char *alias, void *opaque)
{
    (void)connection;
    watch_told(opaque, domain, alias);
}

static void watch_on_block_job(virConnectPtr connection, virDomainPtr domain,
                               const char *disk, int type, int status,
                               void *opaque)
{
    (void)connection;
    (void)type;
    if (status != VIR_DOMAIN_BLOCK_JOB_READY) {
        watch_told(opaque, domain, disk);
    }
}

static void watch_on_metadata(virConnectPtr connection, virDomainPtr domain,
                              int type, const char *uri, void *opaque)
{
    (void)connection;
    (void)type;
    (void)uri;
    watch_told(opaque, domain, NULL);
}

/*
 * Of a snapshot libvirt tells nothing, but before it QEMU does: a job has made
 * the overlay, and is called after its node.
 */
static void watch_on_qemu(virConnectPtr connection, virDomainPtr domain,
                          const char *event, long long seconds,
                          unsigned micros, const char *details, void *opaque)
{
    g_autoptr(JsonNode) node = details ? weir_json_parse(
                                   details, strlen(details), NULL) : NULL;
    JsonObject *object = weir_json_as_object(node);
    const char *id = weir_json_string(object, "id");

    (void)connection;
    (void)seconds;
    (void)micros;
    if (strcmp(event, "JOB_STATUS_CHANGE") == 0) {
        if (id && g_str_has_prefix(id, WATCHER_CREATED) &&
            g_strcmp0(weir_json_string(object, "status"), "null") == 0) {
            watch_told(opaque, domain, id + strlen(WATCHER_CREATED));
        }
    } else if (strcmp(event, "WEIR_STATE") == 0) {
        watch_told(opaque, domain, NULL);
    }
}

/* --- the connection --- */

static void watch_on_close(virConnectPtr connection, int reason, void *opaque)
{
    Watch *watch = opaque;

    (void)connection;
    (void)reason;
    watch->lost = true;
}

static bool watch_register(Watch *watch)
{
    virConnectPtr c = watch->connection;
    const struct {
        int id;
        virConnectDomainEventGenericCallback call;
    } events[] = {
        { VIR_DOMAIN_EVENT_ID_LIFECYCLE,
          VIR_DOMAIN_EVENT_CALLBACK(watch_on_lifecycle) },
        { VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
          VIR_DOMAIN_EVENT_CALLBACK(watch_on_device) },
        { VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
          VIR_DOMAIN_EVENT_CALLBACK(watch_on_device) },
        { VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
          VIR_DOMAIN_EVENT_CALLBACK(watch_on_block_job) },
        { VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
          VIR_DOMAIN_EVENT_CALLBACK(watch_on_metadata) },
    };

    for (guint i = 0; i < G_N_ELEMENTS(events); i++) {
        if (virConnectDomainEventRegisterAny(c, NULL, events[i].id,
                                             events[i].call, watch,
                                             NULL) < 0) {
            return false;
        }
    }
    return virConnectDomainQemuMonitorEventRegister(
               c, NULL, NULL, watch_on_qemu, watch, NULL, 0) >= 0 &&
           virConnectRegisterCloseCallback(c, watch_on_close, watch,
                                           NULL) == 0 &&
           virConnectSetKeepAlive(c, 5, 3) >= 0;
}

/* All domains that run are looked at, others have ended. */
static bool watch_list(Watch *watch, GError **error)
{
    g_autoptr(GPtrArray) domains = weir_hypervisor_domains(watch->connection,
                                                           NULL, error);
    GHashTableIter iter;
    gpointer value;

    if (!domains) {
        return false;
    }
    g_hash_table_iter_init(&iter, watch->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        ((Watched *)value)->ended = true;
    }
    for (guint i = 0; i < domains->len; i++) {
        Watched *watched = watch_find(watch, g_ptr_array_index(domains, i),
                                      true);

        if (watched) {
            watched_due(watched, 0);
        }
    }
    g_hash_table_iter_init(&iter, watch->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Watched *watched = value;

        if (watched->ended && !watched->busy) {
            weir_settle_end(watched->uuid, watched->name,
                            &watch->watcher->settle);
            g_hash_table_iter_remove(&iter);
        }
    }
    return true;
}

static bool watch_connect(Watch *watch, GError **error)
{
    watch->connection = weir_hypervisor_open(watch->watcher->uri, error);
    if (!watch->connection) {
        return false;
    }
    if (!weir_hypervisor_is_local(watch->connection)) {
        weir_set_error(error, "found a libvirt on another host, expected one "
                       "on this: watch its domains there");
        return false;
    }
    if (!watch_register(watch)) {
        weir_hypervisor_error(error, "libvirt does not tell its events");
        return false;
    }
    watch->lost = false;
    return watch_list(watch, error);
}

static bool watch_is_idle(Watch *watch)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, watch->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (((Watched *)value)->busy) {
            return false;
        }
    }
    return true;
}

/* What the threads have of the old connection fails by itself. */
static void watch_disconnect(Watch *watch)
{
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, watch->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        g_clear_pointer(&((Watched *)value)->domain, virDomainFree);
    }
    virConnectUnregisterCloseCallback(watch->connection, watch_on_close);
    g_clear_pointer(&watch->connection, virConnectClose);
}

/* libvirtd is away, or was: come back to it when no thread uses it. */
static void watch_reconnect(Watch *watch)
{
    g_autoptr(GError) error = NULL;

    if (watch->connection) {
        if (!watch->told_lost) {
            watch_tell(watch, "libvirtd is away");
            watch->told_lost = true;
        }
        if (!watch_is_idle(watch)) {
            return;
        }
        watch_disconnect(watch);
    }
    if (watch_connect(watch, &error)) {
        watch_tell(watch, "libvirtd is there again");
        watch->told_lost = false;
    } else if (watch->connection) {
        watch_disconnect(watch);
    }
}

/* --- the loop --- */

/* What is due is begun.  Returns the ms until something is. */
static int watch_turn(Watch *watch)
{
    gint64 now_us = g_get_monotonic_time();
    gint64 next_us = now_us + watch->watcher->interval_ms * (gint64)1000;
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, watch->domains);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        Watched *watched = value;

        if (watched->busy || !watched->domain || watched->due_us == 0) {
            continue;
        }
        if (watched->due_us <= now_us) {
            watch_begin_look(watch, watched);
        } else {
            next_us = MIN(next_us, watched->due_us);
        }
    }
    return (int)((next_us - now_us + 999) / 1000);
}

static void watch_on_timer(int timer, void *opaque)
{
    Watch *watch = opaque;
    int in_ms = WATCHER_RETRY_MS;

    if (!watch->connection || watch->lost) {
        watch_reconnect(watch);
    }
    if (watch->connection && !watch->lost) {
        in_ms = watch_turn(watch);
    }
    virEventUpdateTimeout(timer, MAX(in_ms, 1));
}

static void watch_on_wakeup(int handle, int fd, int events, void *opaque)
{
    Watch *watch = opaque;
    char bytes[64];
    Watched *watched;

    (void)handle;
    (void)events;
    if (read(fd, bytes, sizeof(bytes)) < 0) {
        return;
    }
    while ((watched = g_async_queue_try_pop(watch->done))) {
        watch_end_look(watch, watched);
    }
    virEventUpdateTimeout(watch->timer, 0);
}

/* The signal stays pending: so what a thread does is undone. */
static void watch_on_signal(int handle, int fd, int events, void *opaque)
{
    Watch *watch = opaque;

    (void)fd;
    (void)events;
    watch->stop = true;
    virEventRemoveHandle(handle);
}

static int watch_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void watch_loop(Watch *watch)
{
    int signals = watch_signals();

    virEventAddHandle(signals, VIR_EVENT_HANDLE_READABLE, watch_on_signal,
                      watch, NULL);
    virEventAddHandle(watch->wakeup[0], VIR_EVENT_HANDLE_READABLE,
                      watch_on_wakeup, watch, NULL);
    watch->timer = virEventAddTimeout(0, watch_on_timer, watch, NULL);
    while (!watch->stop && virEventRunDefaultImpl() == 0) {
        /* an event may have made a domain due */
        virEventUpdateTimeout(watch->timer, watch->connection && !watch->lost
                              ? MAX(watch_turn(watch), 1) : WATCHER_RETRY_MS);
    }
    close(signals);
}

bool weir_watcher_run(const WeirWatcher *watcher, GError **error)
{
    Watch watch = { .watcher = watcher };
    bool ok;

    if (virEventRegisterDefaultImpl() < 0) {
        weir_hypervisor_error(error, "libvirt");
        return false;
    }
    if (!g_unix_open_pipe(watch.wakeup, FD_CLOEXEC, error)) {
        return false;
    }
    watch.domains = g_hash_table_new_full(g_str_hash, g_str_equal, NULL,
                                          watched_free);
    watch.done = g_async_queue_new();
    watch.pool = g_thread_pool_new(watched_look, &watch, WATCHER_THREADS,
                                   FALSE, NULL);
    ok = watch_connect(&watch, error);
    if (ok) {
        weir_notify("READY=1");
        watch_loop(&watch);
        weir_notify("STOPPING=1");
    }
    g_thread_pool_free(watch.pool, TRUE, TRUE);
    if (watch.connection) {
        watch_disconnect(&watch);
    }
    g_hash_table_unref(watch.domains);
    g_async_queue_unref(watch.done);
    close(watch.wakeup[0]);
    close(watch.wakeup[1]);
    return ok;
}
