/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fleet.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "domaintarget.h"
#include "hypervisor.h"

/*
 * Threads that ask domains of a host, one at a time each and over a connection
 * of its own: over one that several threads share, libvirt before 10.0 may not
 * send the request of one while that of another has no answer.
 */
#define FLEET_WORKERS 4
#define FLEET_DOMAINS_PER_WORKER 8

/* What threads do after the last answer takes no longer. */
#define FLEET_LAST_STEPS_MS 1000

/* In this part of the timeout without an answer, another thread helps. */
#define FLEET_STALL_SHARE 8

/* A domain that is asked. */
typedef struct Item {
    virDomainPtr domain;
    char *name;
    GPtrArray *assigned;    /* WeirAssigned; NULL: not known */
    WeirTarget *target;     /* NULL: under no policy, or not asked yet */
    bool done;
    bool late;              /* not asked, as it owes an answer */
} Item;

/*
 * Threads have references to a host and to their look, so that both stay until
 * the last answer.
 */
typedef struct Look {
    WeirTargetQuery query;  /* only vm, timeout and traffic */
    gint64 deadline_us;
    GPtrArray *items;       /* NULL: the host has not said which */
    guint next;             /* the item that is to be asked next */
    guint answers;          /* items that are done */
    char *reason;           /* why the host cannot be asked */
} Look;

typedef struct Host {
    char *uri;              /* NULL: libvirt's default */
    char *name;
    char *dir;              /* for what is seen of its domains */
    GMutex lock;            /* of all below, and of the looks */
    GCond changed;
    GPtrArray *idle;        /* virConnectPtr that nobody uses */
    GPtrArray *works;       /* Work, of threads that nobody has joined */
    Look *look;             /* the last one; the host owes an answer while it
                               has neither items nor a reason */
    bool late;              /* it is one that was begun before */
    GHashTable *busy;       /* name -> WeirAssigned (NULL: not known) of
                               domains that owe an answer */
} Host;

/* A thread. */
typedef struct Work {
    Host *host;
    Look *look;
    void (*run)(Host *host, Look *look);
    GThread *thread;
    bool ended;             /* it does nothing more; under the host's lock */
} Work;

struct WeirFleet {
    GPtrArray *hosts;
    bool many;
    gint64 deadline_us;
};

/* --- looks --- */

static void fleet_item_free(Item *item)
{
    g_clear_pointer(&item->domain, virDomainFree);
    g_clear_pointer(&item->assigned, g_ptr_array_unref);
    weir_target_free(item->target);
    g_free(item->name);
    g_free(item);
}

static void look_clear(gpointer opaque)
{
    Look *look = opaque;

    g_clear_pointer(&look->items, g_ptr_array_unref);
    weir_target_query_clear(&look->query);
    g_free(look->reason);
}

static void look_unref(Look *look)
{
    g_atomic_rc_box_release_full(look, look_clear);
}

static Look *look_new(const WeirTargetQuery *query)
{
    Look *look = g_atomic_rc_box_new0(Look);

    look->query = (WeirTargetQuery) {
        .vm = g_strdup(query->vm),
        .timeout_ms = query->timeout_ms,
        .traffic = query->traffic,
    };
    look->deadline_us = weir_qmp_deadline(query->timeout_ms);
    return look;
}

static bool look_is_done(const Look *look)
{
    if (look->reason || !look->items) {
        return look->reason != NULL;
    }
    for (guint i = 0; i < look->items->len; i++) {
        const Item *item = g_ptr_array_index(look->items, i);

        if (!item->done && !item->late) {
            return false;
        }
    }
    return true;
}

/* --- hosts --- */

static void host_clear(gpointer opaque)
{
    Host *host = opaque;

    g_ptr_array_unref(host->idle);
    g_ptr_array_unref(host->works);
    g_clear_pointer(&host->look, look_unref);
    g_hash_table_unref(host->busy);
    g_mutex_clear(&host->lock);
    g_cond_clear(&host->changed);
    g_free(host->uri);
    g_free(host->name);
    g_free(host->dir);
}

static void fleet_assigned_unref(gpointer assigned)
{
    g_clear_pointer((GPtrArray **)&assigned, g_ptr_array_unref);
}

static void fleet_work_free(gpointer opaque)
{
    Work *work = opaque;

    g_clear_pointer(&work->thread, g_thread_unref);
    g_free(work);
}

static void fleet_connection_free(gpointer connection)
{
    virConnectClose(connection);
}

static void host_unref(Host *host)
{
    g_atomic_rc_box_release_full(host, host_clear);
}

static Host *host_new(const char *uri, const char *name, const char *dir)
{
    Host *host = g_atomic_rc_box_new0(Host);

    host->uri = *uri ? g_strdup(uri) : NULL;
    host->name = g_strdup(name);
    host->dir = g_strdup(dir);
    host->busy = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                       fleet_assigned_unref);
    host->idle = g_ptr_array_new_with_free_func(fleet_connection_free);
    host->works = g_ptr_array_new_with_free_func(fleet_work_free);
    g_mutex_init(&host->lock);
    g_cond_init(&host->changed);
    return host;
}

/* --- in threads: which domains there are --- */

static void items_add(GPtrArray *items, virDomainPtr domain)
{
    Item *item = g_new0(Item, 1);

    item->domain = domain;
    item->name = g_strdup(virDomainGetName(domain));
    g_ptr_array_add(items, item);
}

static gint items_compare(gconstpointer a, gconstpointer b)
{
    const Item *const *left = a;
    const Item *const *right = b;

    return strcmp((*left)->name, (*right)->name);
}

/* A domain that there is not, or that does not run, is no error. */
static bool host_list_one(virConnectPtr connection, const char *name,
                          GPtrArray *items, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(virDomain) domain = weir_hypervisor_domain(connection, name,
                                                         &local);
    int active;

    if (!domain && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
        return true;
    }
    if (!domain) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    active = virDomainIsActive(domain);
    if (active < 0) {
        weir_hypervisor_error(error, "libvirt");
        return false;
    }
    if (active) {
        items_add(items, g_steal_pointer(&domain));
    }
    return true;
}

/* Returns the domains as Item, or NULL with @error set. */
static GPtrArray *host_list(virConnectPtr connection, const char *name,
                            GError **error)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new_with_free_func(
        (GDestroyNotify)fleet_item_free);
    g_autoptr(GPtrArray) domains = NULL;

    if (name) {
        return host_list_one(connection, name, items, error)
                   ? g_steal_pointer(&items) : NULL;
    }
    domains = weir_hypervisor_domains(connection, NULL, error);
    if (!domains) {
        return NULL;
    }
    while (domains->len > 0) {
        items_add(items, g_ptr_array_steal_index(domains, domains->len - 1));
    }
    g_ptr_array_sort(items, items_compare);
    return g_steal_pointer(&items);
}

/* --- in threads: connections --- */

/* One that nobody uses and that is not known to be of no use, or NULL. */
static virConnectPtr host_take_idle(Host *host)
{
    virConnectPtr connection = NULL;

    g_mutex_lock(&host->lock);
    while (!connection && host->idle->len > 0) {
        connection = g_ptr_array_steal_index(host->idle, host->idle->len - 1);
        if (virConnectIsAlive(connection) != 1) {
            g_clear_pointer(&connection, virConnectClose);
        }
    }
    g_mutex_unlock(&host->lock);
    return connection;
}

static void host_give_back(Host *host, virConnectPtr connection)
{
    g_mutex_lock(&host->lock);
    if (host->idle->len < FLEET_WORKERS) {
        g_ptr_array_add(host->idle, g_steal_pointer(&connection));
    }
    g_mutex_unlock(&host->lock);
    g_clear_pointer(&connection, virConnectClose);
}

static void host_drop_idle(Host *host)
{
    virConnectPtr connection;

    while ((connection = host_take_idle(host))) {
        virConnectClose(connection);
    }
}

/* Returns the domains as Item, or NULL with @error set. */
static GPtrArray *host_reach(Host *host, const Look *look, GError **error)
{
    virConnectPtr connection = host_take_idle(host);
    GPtrArray *items = connection ? host_list(connection, look->query.vm, NULL)
                                  : NULL;

    if (connection && !items) {
        /* libvirt was started anew meanwhile */
        virConnectClose(connection);
        host_drop_idle(host);
        connection = NULL;
    }
    if (!connection) {
        connection = weir_hypervisor_open_quietly(host->uri, error);
    }
    if (connection && !items) {
        items = host_list(connection, look->query.vm, error);
    }
    if (connection) {
        host_give_back(host, connection);
    }
    return items;
}

/* --- in threads: domains --- */

/* The next domain, or NULL; one that owes an answer is passed over. */
static Item *host_next(Host *host, Look *look)
{
    Item *found = NULL;

    g_mutex_lock(&host->lock);
    while (!found && look->next < look->items->len) {
        Item *item = g_ptr_array_index(look->items, look->next++);
        gpointer assigned;

        if (!g_hash_table_lookup_extended(host->busy, item->name, NULL,
                                          &assigned)) {
            g_hash_table_insert(host->busy, g_strdup(item->name), NULL);
            found = item;
        } else {
            item->assigned = assigned ? g_ptr_array_ref(assigned) : NULL;
            item->late = true;
        }
    }
    g_cond_broadcast(&host->changed);
    g_mutex_unlock(&host->lock);
    return found;
}

static void host_note_assigned(Host *host, Item *item, GPtrArray *assigned)
{
    g_mutex_lock(&host->lock);
    item->assigned = g_ptr_array_ref(assigned);
    g_hash_table_insert(host->busy, g_strdup(item->name),
                        g_ptr_array_ref(assigned));
    g_mutex_unlock(&host->lock);
}

/* The domain over @connection, to be freed; NULL: it has ended. */
static virDomainPtr host_domain(virConnectPtr connection, const Item *item)
{
    unsigned char uuid[VIR_UUID_BUFLEN];

    if (virDomainGetConnect(item->domain) == connection) {
        virDomainRef(item->domain);
        return item->domain;
    }
    return virDomainGetUUID(item->domain, uuid) < 0
               ? NULL : virDomainLookupByUUID(connection, uuid);
}

/* One that has ended meanwhile is nobody's concern. */
static bool host_domain_ended(virDomainPtr domain)
{
    int active = virDomainIsActive(domain);

    return active == 0 ||
           (active < 0 && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN);
}

static void host_ask(Host *host, Look *look, Item *item,
                     virConnectPtr connection)
{
    g_autoptr(virDomain) domain = host_domain(connection, item);
    g_auto(WeirDomainTarget) found = { 0 };

    if (domain) {
        weir_domain_target_begin(&found, domain);
    }
    if (found.target && found.target->assigned) {
        host_note_assigned(host, item, found.target->assigned);
        weir_domain_target_ask(&found, domain, host->dir, &look->query);
    }
    if (found.target && found.target->reason && host_domain_ended(domain)) {
        g_clear_pointer(&found.target, weir_target_free);
    }
    g_mutex_lock(&host->lock);
    item->target = g_steal_pointer(&found.target);
    item->done = true;
    look->answers++;
    g_hash_table_remove(host->busy, item->name);
    g_cond_broadcast(&host->changed);
    g_mutex_unlock(&host->lock);
}

/* Without a connection, others have to do it. */
static void host_work(Host *host, Look *look)
{
    virConnectPtr connection = host_take_idle(host);
    Item *item;

    if (!connection) {
        connection = weir_hypervisor_open_quietly(host->uri, NULL);
    }
    while (connection && (item = host_next(host, look))) {
        host_ask(host, look, item, connection);
    }
    if (connection) {
        host_give_back(host, connection);
    }
}

static gpointer host_thread(gpointer opaque)
{
    Work *work = opaque;
    Host *host = work->host;

    work->run(host, work->look);
    g_mutex_lock(&host->lock);
    look_unref(work->look);
    work->ended = true;
    g_cond_broadcast(&host->changed);
    g_mutex_unlock(&host->lock);
    host_unref(host);
    return NULL;
}

/* Under the lock. */
static void host_start(Host *host, Look *look,
                       void (*run)(Host *host, Look *look))
{
    Work *work = g_new0(Work, 1);

    work->host = g_atomic_rc_box_acquire(host);
    work->look = g_atomic_rc_box_acquire(look);
    work->run = run;
    work->thread = g_thread_new("host", host_thread, work);
    g_ptr_array_add(host->works, work);
}

/* Join the threads that have ended.  Under the lock, which they do without. */
static void host_join(Host *host)
{
    for (guint i = host->works->len; i-- > 0;) {
        Work *work = g_ptr_array_index(host->works, i);

        if (work->ended) {
            g_thread_join(g_steal_pointer(&work->thread));
            g_ptr_array_remove_index(host->works, i);
        }
    }
}

/*
 * Until each domain is asked: a thread whose domain does not answer is lost to
 * the others, so another one takes over.  Under the lock.
 */
static void host_supervise(Host *host, Look *look)
{
    gint64 stall_us = look->query.timeout_ms * (gint64)1000 /
                      FLEET_STALL_SHARE;

    while (look->next < look->items->len &&
           g_get_monotonic_time() < look->deadline_us) {
        gint64 until_us = g_get_monotonic_time() + stall_us;
        guint answers = look->answers;

        while (look->answers == answers && look->next < look->items->len &&
               g_cond_wait_until(&host->changed, &host->lock, until_us)) {
        }
        if (look->answers == answers && look->next < look->items->len) {
            host_start(host, look, host_work);
        }
    }
}

static void host_look(Host *host, Look *look)
{
    GError *error = NULL;
    GPtrArray *items = host_reach(host, look, &error);
    guint workers = !items ? 0 : MIN(
        (items->len + FLEET_DOMAINS_PER_WORKER - 1) /
        FLEET_DOMAINS_PER_WORKER, FLEET_WORKERS);

    g_mutex_lock(&host->lock);
    look->items = items;
    look->reason = items ? NULL : g_strdup(error->message);
    g_cond_broadcast(&host->changed);
    for (guint i = 0; i < workers; i++) {
        host_start(host, look, host_work);
    }
    if (items) {
        host_supervise(host, look);
    }
    g_mutex_unlock(&host->lock);
    g_clear_error(&error);
}

/* --- the fleet --- */

/* Where to keep what is seen of domains of a host. */
static char *fleet_dir(const char *runtime_dir, const char *host)
{
    g_autofree char *escaped = g_uri_escape_string(host, NULL, FALSE);
    g_autofree char *base = g_strconcat("host-", escaped, NULL);

    return g_build_filename(runtime_dir, base, NULL);
}

WeirFleet *weir_fleet_new(char *const *uris, const char *runtime_dir)
{
    WeirFleet *fleet = g_new0(WeirFleet, 1);
    g_auto(GStrv) names = weir_hypervisor_hosts(uris);

    fleet->hosts = g_ptr_array_new_with_free_func((GDestroyNotify)host_unref);
    for (guint i = 0; uris[i]; i++) {
        g_autofree char *dir = fleet_dir(runtime_dir, names[i]);

        g_ptr_array_add(fleet->hosts, host_new(uris[i], names[i], dir));
    }
    fleet->many = fleet->hosts->len > 1 ||
                  strcmp(names[0], WEIR_LOCALHOST) != 0;
    return fleet;
}

/* Threads that owe an answer are left alone; others are about to end. */
static void host_end(Host *host)
{
    gint64 deadline_us = weir_qmp_deadline(FLEET_LAST_STEPS_MS);

    g_mutex_lock(&host->lock);
    host_join(host);
    while (host->works->len > 0 && look_is_done(host->look) &&
           g_hash_table_size(host->busy) == 0 &&
           g_cond_wait_until(&host->changed, &host->lock, deadline_us)) {
        host_join(host);
    }
    g_mutex_unlock(&host->lock);
}

void weir_fleet_free(WeirFleet *fleet)
{
    if (fleet) {
        for (guint i = 0; i < fleet->hosts->len; i++) {
            host_end(g_ptr_array_index(fleet->hosts, i));
        }
        g_ptr_array_unref(fleet->hosts);
        g_free(fleet);
    }
}

bool weir_fleet_is_many(const WeirFleet *fleet)
{
    return fleet->many;
}

void weir_fleet_begin(WeirFleet *fleet, const WeirTargetQuery *query)
{
    fleet->deadline_us = weir_qmp_deadline(query->timeout_ms);
    for (guint i = 0; i < fleet->hosts->len; i++) {
        Host *host = g_ptr_array_index(fleet->hosts, i);

        g_mutex_lock(&host->lock);
        host->late = host->look && !host->look->items && !host->look->reason;
        if (!host->late) {
            g_clear_pointer(&host->look, look_unref);
            host->look = look_new(query);
            host_start(host, host->look, host_look);
        }
        host_join(host);
        g_mutex_unlock(&host->lock);
    }
}

/* One that owes an answer from before has had its time. */
static void host_wait(Host *host, gint64 deadline_us)
{
    while (!look_is_done(host->look) &&
           !(host->late && !host->look->items) &&
           g_cond_wait_until(&host->changed, &host->lock, deadline_us)) {
    }
}

static char *look_silence(const Look *look, const char *who)
{
    return g_strdup_printf("%s does not answer within %g s", who,
                           look->query.timeout_ms / 1000.0);
}

/* What there is to tell of a domain, NULL if it is under no policy. */
static WeirTarget *host_take_domain(const Host *host, Item *item)
{
    WeirTarget *target = g_steal_pointer(&item->target);

    if (!item->done) {
        target = g_new0(WeirTarget, 1);
        target->name = g_strdup(item->name);
        target->assigned = item->assigned ? g_ptr_array_ref(item->assigned)
                                          : NULL;
        target->reason = look_silence(host->look, "the domain");
    }
    return target;
}

static WeirHostSeen *host_take(Host *host, bool many, GPtrArray *targets)
{
    WeirHostSeen *seen = g_new0(WeirHostSeen, 1);
    const Look *look = host->look;

    seen->name = g_strdup(host->name);
    seen->dir = g_strdup(host->dir);
    if (!look->items) {
        seen->reason = look->reason ? g_strdup(look->reason)
                                    : look_silence(look, "libvirt");
        return seen;
    }
    seen->found = look->items->len > 0;
    for (guint i = 0; i < look->items->len; i++) {
        WeirTarget *target = host_take_domain(
            host, g_ptr_array_index(look->items, i));

        if (target) {
            target->host = many ? g_strdup(host->name) : NULL;
            g_ptr_array_add(targets, target);
        }
    }
    return seen;
}

static void fleet_seen_free(WeirHostSeen *seen)
{
    g_free(seen->name);
    g_free(seen->dir);
    g_free(seen->reason);
    g_free(seen);
}

GPtrArray *weir_fleet_end(WeirFleet *fleet, GPtrArray *targets)
{
    GPtrArray *hosts = g_ptr_array_new_with_free_func(
        (GDestroyNotify)fleet_seen_free);

    for (guint i = 0; i < fleet->hosts->len; i++) {
        Host *host = g_ptr_array_index(fleet->hosts, i);

        g_mutex_lock(&host->lock);
        host_wait(host, fleet->deadline_us);
        g_ptr_array_add(hosts, host_take(host, fleet->many, targets));
        g_mutex_unlock(&host->lock);
    }
    return hosts;
}
