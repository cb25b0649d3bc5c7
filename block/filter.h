/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What Weir's block drivers share: a place in the registry that attach.c and
 * query.c look up, statistics, a state, and the callbacks that would be the
 * same in each driver.
 */
#ifndef WEIR_FILTER_H
#define WEIR_FILTER_H

#include "block/block_int.h"
#include "qapi/qapi-types-weir.h"
#include "qapi/qapi-types-weir-types.h"
#include "qapi/visitor.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "common/iostat.h"

/*
 * State of a filter node.  It is the first member of each driver's own state
 * (bs->opaque).
 */
typedef struct WeirFilter {
    WeirIostat stat;     /* has its own synchronisation */
    bool has_parents;           /* main thread */
    bool in_use;                /* main thread; has_parents, a while ago */
    QEMUTimer *orphan_timer;    /* set at open; main loop */
    QemuMutex lock;             /* never held across a yield */
    WeirState state;            /* @lock */
    char *reason;               /* @lock; NULL while @state is ok */
    int64_t since_s;            /* @lock; Unix time */
} WeirFilter;

/* What a QMP command wants changed in the header of an encrypted disk. */
typedef struct WeirHeaderChange {
    enum {
        WEIR_HEADER_ADD, WEIR_HEADER_CHANGE, WEIR_HEADER_REMOVE,
        WEIR_HEADER_ERASE, WEIR_HEADER_REPAIR, WEIR_HEADER_BIND,
    } kind;
    const char *job_id;
    const char *node_name;
    const char *secret;         /* ID; NULL: the node's, or none */
    const char *new_secret;     /* ID; to add or change a keyslot */
    bool has_key_slot;
    uint32_t key_slot;
    bool force;                 /* to remove the last one */
    const WeirKdfOptions *kdf;  /* to add or change a keyslot */
} WeirHeaderChange;

#define WEIR_HOTZONE_BYTES_DEFAULT (16 * MiB)

/* Whether it is between 4 KiB and 1 GiB; else @errp is set. */
bool weir_filter_check_hotzone(uint64_t bytes, Error **errp);

/* What a job wants to begin with. */
typedef struct WeirFilterJobStart {
    WeirEncryptionJobMode mode;
    const char *key_secret;
    const strList *keyslots;    /* to rekey: IDs of other secrets that stay */
    bool drop_keyslots;         /* to rekey: those of all others may go */
    const WeirKdfOptions *kdf;  /* of new keyslots; NULL: there are none */
    uint32_t sector_bytes;      /* to encrypt a plain disk */
    uint64_t hotzone_bytes;
} WeirFilterJobStart;

/* What the driver of an encrypted disk does for the jobs that convert it. */
typedef struct WeirFilterJob {
    /*
     * Make a header for a disk of @disk_bytes that is still plain, and write
     * it to @header.
     */
    int (*make_header)(BlockDriverState *header, int64_t disk_bytes,
                       const WeirFilterJobStart *start, Error **errp);
    /* A node in use is going to be converted. */
    int (*begin)(BlockDriverState *bs, const WeirFilterJobStart *start,
                 Error **errp);
    /*
     * Somebody will call step() from now on.  Returns -errno with @errp set
     * if nothing has begun, or somebody does already.
     */
    int (*take)(BlockDriverState *bs, Error **errp);
    void (*give)(BlockDriverState *bs);
    /*
     * Do about so much, in bytes of the disk.  Returns how much it was, at
     * least 1: there is more to do; 0: all is done; or -errno.
     */
    int coroutine_fn (*step)(BlockDriverState *bs, uint32_t bytes);
    /* Whether it is a good place to stop. */
    bool (*progress)(BlockDriverState *bs, uint64_t *done, uint64_t *total);
} WeirFilterJob;

/* What a driver module tells the QMP commands about itself. */
typedef struct WeirFilterDriver {
    const char *format_name;
    WeirDriver driver;

    /*
     * What query-weir-filters tells, but for its driver.  Static; NULL for a
     * driver that no disk is put under.
     */
    const WeirFilterCapabilities *capabilities;

    /*
     * Whether open would take @options, which holds all that is for the node
     * and its children, flat; opens nothing, and looks at no other node.
     * Optional.  Main thread.  Returns false with @errp set if not.
     */
    bool (*check_options)(QDict *options, Error **errp);

    /*
     * For a filter that holds data which the node below does not have: it is
     * going to be detached, or the machine to migrate.  All optional; main
     * thread.
     *
     * begin_handover: bring the data down from now on, in the background.
     * handover_left: bytes that are still to go.
     * cancel_handover: the filter stays; go on as before begin_handover().
     */
    void (*begin_handover)(BlockDriverState *bs);
    uint64_t (*handover_left)(BlockDriverState *bs);
    void (*cancel_handover)(BlockDriverState *bs);

    /*
     * weir_detach() is about to take @bs out of the graph.  Optional.  Main
     * thread; the node is in use and not drained; may poll.  @force: even if
     * data is lost by it.  Returns 0, or -errno with @errp set and the filter
     * at work as before.
     */
    int (*prepare_detach)(BlockDriverState *bs, bool force, Error **errp);

    /*
     * The disk is going to have an overlay: @bs is not written to any more then
     * if it @is_frozen, otherwise it is above the overlay.  Optional.  Main
     * thread; drained; may poll.  Returns 0, or -errno with @errp set.
     * finish_overlay: it has one, or has none if @ret < 0.
     */
    int (*prepare_overlay)(BlockDriverState *bs, bool is_frozen, Error **errp);
    void (*finish_overlay)(BlockDriverState *bs, bool is_frozen, int ret);

    /*
     * Convert the disk in place; for weir-encryption.  See
     * block/encryption-job.c.  Main thread, but the step.
     */
    const WeirFilterJob *job;

    /*
     * Fill the driver's branch of @info, whose common part is done.
     * Optional.  Main thread; requests may be in flight in other threads.
     */
    void (*query)(BlockDriverState *bs, WeirFilterInfo *info);

    /*
     * Begin a job that changes the header of @bs: a node of the driver, or to
     * erase and repair any node with a header.  Of weir-encryption only.  Main
     * thread.
     */
    void (*change_header)(BlockDriverState *bs, const WeirHeaderChange *change,
                          Error **errp);

    /*
     * Put a mark into the log; of weir-replication only.  Main thread.
     */
    void (*mark)(BlockDriverState *bs, const char *mark,
                 bool application_consistent, Error **errp);

    /*
     * The points in time before an epoch, newest first; of weir-journal only.
     * Main thread.
     */
    WeirPointList *(*points)(BlockDriverState *bs, uint64_t before,
                             uint32_t limit, bool marked);

    /*
     * Begin a job of type weir-promote; of weir-journal only.  Main thread.
     */
    void (*promote)(BlockDriverState *bs, const char *job_id,
                    const char *point, Error **errp);

    /* The plugins that there are; of weir-plugin only.  Main thread. */
    WeirPluginFileList *(*list_plugins)(void);

    /* Load a plugin and describe it; of weir-plugin only.  Main thread. */
    WeirPluginDescription *(*describe_plugin)(const char *plugin,
                                              Error **errp);

    QLIST_ENTRY(WeirFilterDriver) next;
} WeirFilterDriver;

/*
 * Make a driver known; called next to bdrv_register() when its module is
 * loaded.  @driver is static.
 */
void weir_filter_register(WeirFilterDriver *driver);

/* The registered driver with that name, or NULL. */
WeirFilterDriver *weir_filter_find_driver(const char *format_name);

/* The registered driver of node @bs, or NULL if it is none of Weir's. */
WeirFilterDriver *weir_filter_driver(BlockDriverState *bs);

/*
 * The node whose data @bs filters.  NULL for a node that has no such child
 * any more.
 */
BlockDriverState * GRAPH_RDLOCK weir_filter_child(BlockDriverState *bs);

/* Initialise the common part; for a node without a child "file". */
void weir_filter_init(BlockDriverState *bs);

/*
 * Initialise the common part and open the child "file" from @options.  The
 * driver's own locks must be ready: opening the child can move the node to
 * another AioContext, which calls .bdrv_{detach,attach}_aio_context.
 *
 * Main thread.  Returns 0, or -errno with @errp set and nothing held.
 */
int weir_filter_open(BlockDriverState *bs, QDict *options, Error **errp);

/* Undo one of these in .bdrv_close, or when .bdrv_open fails later. */
void weir_filter_close(BlockDriverState *bs);

/*
 * Take the options called @names (NULL-terminated) out of @options, nested
 * members included, and return a visitor over them for visit_type_X().  The
 * values may be typed or strings.  Returns NULL with @errp set on bad nesting.
 */
Visitor *weir_filter_options_visitor(QDict *options, const char *const *names,
                                     Error **errp);

/*
 * Whether what is flushed at @bs may be lost, since it or a node below is
 * opened with cache.no-flush.
 */
bool GRAPH_RDLOCK weir_filter_is_unsafe(BlockDriverState *bs);

/*
 * Change the state and emit WEIR_STATE, if it is another one than before.
 * Any thread.  @reason is copied; NULL if and only if @state is ok.
 */
void weir_filter_set_state(BlockDriverState *bs, WeirState state,
                           const char *reason);

/* Emit WEIR_REPLICATION_RPO.  Any thread. */
void weir_filter_emit_rpo(BlockDriverState *bs, uint64_t rpo_ms,
                          uint64_t limit_ms);

/* Emit WEIR_INSPECT_ALERT.  Any thread. */
void weir_filter_emit_inspect_alert(BlockDriverState *bs, uint64_t overwrites,
                                    uint64_t suspicious, double share);

/* Emit WEIR_PLUGIN_EVENT.  Any thread. */
void weir_filter_emit_plugin_event(BlockDriverState *bs, const char *plugin,
                                   const char *name, const char *message);

/*
 * .bdrv_child_perm: what the users of a filter ask for, and nobody else may
 * resize the node below: the filter, and those above it, would go on with the
 * old size.
 */
void GRAPH_RDLOCK weir_filter_child_perm(BlockDriverState *bs, BdrvChild *c,
                                         BdrvChildRole role,
                                         BlockReopenQueue *queue,
                                         uint64_t perm, uint64_t shared,
                                         uint64_t *nperm, uint64_t *nshared);

/*
 * .bdrv_set_perm: tell when the last user of a node has left it without
 * weir-detach (a block job that replaced it, for instance).
 */
void GRAPH_RDLOCK weir_filter_set_perm(BlockDriverState *bs, uint64_t perm,
                                       uint64_t shared);

/*
 * For .bdrv_inactivate, before anything else.  The block layer asks the users
 * only afterwards, and when one of them refuses nobody tells us that the node
 * stays active.  Asking twice does no harm.
 *
 * Main thread.  Returns 0, or -errno: then, and if the driver fails later, the
 * users are made active again.
 */
int GRAPH_RDLOCK weir_filter_inactivate_users(BlockDriverState *bs);
void GRAPH_RDLOCK weir_filter_activate_users(BlockDriverState *bs);

/* weir-attach has found users for @bs; there is no need to wait and see. */
void weir_filter_set_in_use(BlockDriverState *bs);

/*
 * .bdrv_refresh_limits of a filter that passes data on as it is: whatever
 * request flags the child takes may be given to the filter.
 */
void GRAPH_RDLOCK weir_filter_refresh_limits(BlockDriverState *bs,
                                             Error **errp);

/*
 * Begin a request of kind @op; the result goes to weir_filter_end().  Both are
 * functions of their own because a coroutine may change its thread between
 * them: the compiler must not keep the address of the first thread's counters
 * (see qemu/coroutine-tls.h).
 */
int64_t weir_filter_begin(WeirFilter *filter, WeirIoOp op);

/* End it; @bytes is its length.  Returns @ret. */
int weir_filter_end(WeirFilter *filter, WeirIoOp op, int64_t bytes,
                    int64_t begin_ns, int ret);

/*
 * A QAPI list of @n counts up to the last one that is not zero.  The caller
 * frees it with qapi_free_uint64List().
 */
uint64List *weir_histogram_to_qapi(const uint64_t *counts, size_t n);

/* Callbacks of a filter that does nothing but count. */
int64_t coroutine_fn GRAPH_RDLOCK weir_filter_co_getlength(
    BlockDriverState *bs);
int coroutine_fn GRAPH_RDLOCK weir_filter_co_flush(BlockDriverState *bs);

#endif
