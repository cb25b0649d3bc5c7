/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_BLOCK_WEIR_PLUGIN_HOST_H
#define WEIR_BLOCK_WEIR_PLUGIN_HOST_H

#include "compat.h"
#include "filter.h"
#include "plugin/buffers.h"
#include "plugin/check.h"
#include "plugin/file.h"
#include "plugin/holds.h"
#include "plugin/options.h"
#include "plugin/weir-plugin.h"
#include "weir-tasks.h"

/* Longer requests come to a plugin in parts, so that one may be copied. */
#define WEIR_PLUGIN_BYTES_MAX (1 * MiB)

/* A plugin that this process has loaded.  Main thread, but for serial. */
typedef struct WeirLoaded {
    WeirAdopted adopted;
    const WeirPlugin *plugin;   /* in adopted */
    char *path;
    uint32_t abi;               /* that it was built for */
    void *library;
    unsigned users;
    CoMutex serial;             /* of WEIR_PLUGIN_SERIAL */
    QLIST_ENTRY(WeirLoaded) next;
} WeirLoaded;

typedef struct BDRVWeirPluginState {
    WeirFilter filter;          /* first: see filter.h */
    WeirPluginDisk disk;        /* what the plugin has of it */
    BlockDriverState *bs;

    /* set at open */
    WeirLoaded *loaded;
    const WeirPlugin *plugin;   /* in loaded */
    void *handle;
    BdrvChild *sidecar;         /* NULL: there is none */
    bool sidecar_writable;
    bool is_serial;
    bool is_ordered;
    bool is_open;               /* the plugin's open has succeeded */
    CoMutex *serial;            /* own_serial, or that of the plugin */
    CoMutex own_serial;
    CoRwlock order;             /* if is_ordered: a flush writes */
    CoMutex growing;            /* a write behind the end */

    WeirHolds *holds;           /* has its own lock */
    WeirPluginBuffers *buffers; /* has its own lock */
    WeirTasksHost tasks;
    WeirTasksGate gate;

    /* main thread */
    WeirValues *values;         /* replaced only while nobody reads them */
    bool prepared;
    unsigned snapshots;         /* it has agreed to, and hears of the end */
    bool had_parents;           /* somebody has used it */
    bool is_leaving;            /* it is going to be taken out */
    bool plugin_drained;        /* what it was told last */

    /* atomic */
    bool drained;
    int64_t drained_since_ns;
    bool inactive;
    bool taking_over;           /* but the plugin may do I/O: it prepares */
    bool stopping;              /* tasks are to end; set with the lock */
    bool giving_up;             /* nothing is given to the plugin any more */
    bool in_trouble;            /* trouble is set */
    int on_error;               /* WeirOnError */
    uint32_t deadline_ms;
    uint64_t bypassed;          /* requests */
    uint64_t failed;

    QEMUTimer *deadline_timer;  /* main loop */

    pthread_mutex_t lock;       /* for all that follows; not over a yield */
    WeirTaskQueue sleepers;
    QLIST_HEAD(, WeirPluginTimer) timers;
    const char *trouble;        /* why the host does without the plugin */
    bool is_bypassing;          /* the plugin was told so */
    uint32_t own_state;         /* that the plugin has set */
    char *own_reason;
    char *message;              /* of weir_plugin_error() */
} BDRVWeirPluginState;

/* A request on its way.  On the stack of its coroutine. */
typedef struct WeirPluginTransit {
    WeirPluginRequest request;
    BDRVWeirPluginState *s;
    QEMUIOVector *qiov;
    size_t qiov_offset;
    BdrvRequestFlags flags;
    WeirHold *hold;             /* that the plugin has or had */
} WeirPluginTransit;

/* What a callback may do I/O with. */
typedef struct WeirHostIo {
    WeirPluginIo io;            /* first */
    BDRVWeirPluginState *s;
    Coroutine *co;              /* that it is for */
    bool is_task;               /* the graph is not locked */
    WeirPluginTransit *transit; /* NULL: it is not a request */
    const WeirPluginRequest *request;   /* what the plugin got of it */
    WeirHold *hold;             /* made in this callback */
} WeirHostIo;

/* --- weir-plugin.c --- */

/* A call of the plugin, with the lock that keeps its calls apart. */
typedef int WeirPluginCallFn(BDRVWeirPluginState *s, WeirPluginIo *io,
                             void *arg);

/* In a coroutine that has the graph locked; or from the main thread. */
int coroutine_fn weir_plugin_call_here(BDRVWeirPluginState *s,
                                       WeirPluginCallFn *fn, void *arg);
int weir_plugin_call_and_poll(BDRVWeirPluginState *s, WeirPluginCallFn *fn,
                              void *arg);

/* "Plugin 'x' WHAT: ..." with what it has said itself. */
void weir_plugin_set_error(BDRVWeirPluginState *s, int ret, const char *what,
                           Error **errp);

bool weir_plugin_changes_or_holds(const BDRVWeirPluginState *s);
int weir_plugin_check_alignment(BDRVWeirPluginState *s, int64_t bytes,
                                Error **errp);

/* --- weir-plugin-graph.c --- */

int GRAPH_RDLOCK weir_plugin_check_perm(BlockDriverState *bs, uint64_t perm,
                                        uint64_t shared, Error **errp);
void GRAPH_RDLOCK weir_plugin_set_perm(BlockDriverState *bs, uint64_t perm,
                                       uint64_t shared);
void GRAPH_RDLOCK weir_plugin_child_perm(BlockDriverState *bs, BdrvChild *c,
                                         BdrvChildRole role,
                                         BlockReopenQueue *queue,
                                         uint64_t perm, uint64_t shared,
                                         uint64_t *nperm, uint64_t *nshared);
void GRAPH_RDLOCK weir_plugin_refresh_limits(BlockDriverState *bs,
                                             Error **errp);

/* --- weir-plugin-disk.c --- */

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_block_status(BlockDriverState *bs, WeirStatusMode mode,
                            int64_t offset, int64_t bytes, int64_t *pnum,
                            int64_t *map, BlockDriverState **file);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                        PreallocMode prealloc, BdrvRequestFlags flags,
                        Error **errp);

/*
 * A format that is above makes its file longer by writing behind its end: have
 * the node below reach there before the plugin is asked.
 */
int coroutine_fn GRAPH_RDLOCK weir_plugin_co_grow(BlockDriverState *bs,
                                                  int64_t end);
int64_t coroutine_fn GRAPH_RDLOCK
weir_plugin_co_get_allocated_file_size(BlockDriverState *bs);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_copy_range_from(BlockDriverState *bs, BdrvChild *src,
                               int64_t src_offset, BdrvChild *dst,
                               int64_t dst_offset, int64_t bytes,
                               BdrvRequestFlags read_flags,
                               BdrvRequestFlags write_flags);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_copy_range_to(BlockDriverState *bs, BdrvChild *src,
                             int64_t src_offset, BdrvChild *dst,
                             int64_t dst_offset, int64_t bytes,
                             BdrvRequestFlags read_flags,
                             BdrvRequestFlags write_flags);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_save_vmstate(BlockDriverState *bs, QEMUIOVector *qiov,
                            int64_t pos);
int GRAPH_RDLOCK weir_plugin_snapshot_create(BlockDriverState *bs,
                                             QEMUSnapshotInfo *info);
int GRAPH_RDLOCK weir_plugin_snapshot_delete(BlockDriverState *bs,
                                             const char *id, const char *name,
                                             Error **errp);
int weir_plugin_snapshot_goto(BlockDriverState *bs, const char *id);

/* Of WeirFilterDriver. */
int weir_plugin_prepare_overlay(BlockDriverState *bs, bool is_frozen,
                                Error **errp);
void weir_plugin_finish_overlay(BlockDriverState *bs, bool is_frozen, int ret);
int GRAPH_RDLOCK weir_plugin_snapshot_list(BlockDriverState *bs,
                                           QEMUSnapshotInfo **list);

/* --- weir-plugin-load.c: main thread --- */

/*
 * Load a plugin, or find it loaded.  Returns NULL with @errp set.  Given back
 * with weir_plugin_unload(), after which it may be gone.
 */
WeirLoaded *weir_plugin_load(const char *plugin, Error **errp);
void weir_plugin_unload(WeirLoaded *loaded);

/* Values of options, a dictionary or NULL.  Returns NULL with @errp set. */
WeirValues *weir_plugin_parse_values(const WeirLoaded *loaded,
                                     QObject *options, Error **errp);

/* The values as a dictionary of texts, numbers and truth values. */
QObject *weir_plugin_values_to_qobject(const WeirLoaded *loaded,
                                       const WeirValues *values);

WeirFilterClass weir_plugin_class_to_qapi(const WeirPlugin *plugin);

/* Of WeirFilterDriver. */
WeirPluginFileList *weir_plugin_list_files(void);
WeirPluginDescription *weir_plugin_describe(const char *plugin, Error **errp);

/* --- weir-plugin-io.c: what the plugin calls --- */

extern const WeirPluginHost weir_plugin_host;

/* An io for a callback, in a coroutine that has the graph locked. */
WeirHostIo weir_plugin_io(BDRVWeirPluginState *s);

/* Have tasks that wait end, and timers not run any more; or let them again. */
void weir_plugin_stop_tasks(BDRVWeirPluginState *s);
void weir_plugin_allow_tasks(BDRVWeirPluginState *s);
void weir_plugin_free_timers(BDRVWeirPluginState *s);

/* Tell the state: what the host found, or else what the plugin says. */
void weir_plugin_tell_state(BDRVWeirPluginState *s);

/* What weir_plugin_error() was given, or NULL; the caller frees it. */
char *weir_plugin_take_message(BDRVWeirPluginState *s);

struct WeirPluginGauges {
    WeirPluginGaugeList **tail;
};

/*
 * Bring down what a request has left with a plugin that is going to be taken
 * out: it comes after "detach", and before the node is gone.
 */
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_bring_down(BDRVWeirPluginState *s);

/* --- weir-plugin-request.c --- */

int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_preadv_part(BlockDriverState *bs, int64_t offset,
                           int64_t bytes, QEMUIOVector *qiov,
                           size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_pwritev_part(BlockDriverState *bs, int64_t offset,
                            int64_t bytes, QEMUIOVector *qiov,
                            size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                             int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn GRAPH_RDLOCK
weir_plugin_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn GRAPH_RDLOCK weir_plugin_co_flush(BlockDriverState *bs);

/* Have the node below do a request. */
int coroutine_fn GRAPH_RDLOCK weir_plugin_pass_on(WeirPluginTransit *t);

/* Wait for nobody any more who holds requests; they end without the plugin. */
void weir_plugin_give_up(BDRVWeirPluginState *s, bool give_up);

/* Look which requests are held for too long, now and by the timer. */
void weir_plugin_look_at_holds(BDRVWeirPluginState *s);
void weir_plugin_deadline_cb(void *opaque);

/* A hold's owner goes on; for weir_holds_new(). */
void weir_plugin_wake(void *waiter);

#endif
