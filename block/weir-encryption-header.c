/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header of an encrypted disk, from its node and to it.  What has to be
 * written, and in which order, is said by filters/encryption/update.c.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/thread-pool.h"
#include "crypto/secret_common.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "system/block-backend.h"
#include "weir-encryption.h"

/* How long the main loop is left alone at a time while a thread is at work. */
#define THREAD_POLL_MS 5
/* How often to look whether a drained section has ended. */
#define DRAIN_POLL_NS (2 * SCALE_MS)

int weir_passphrase_get(WeirPassphrase *passphrase, const char *id,
                        Error **errp)
{
    return qcrypto_secret_lookup(id, &passphrase->bytes, &passphrase->n_bytes,
                                 errp) < 0 ? -ENOENT : 0;
}

void weir_passphrase_free(WeirPassphrase *passphrase)
{
    if (passphrase->bytes) {
        explicit_bzero(passphrase->bytes, passphrase->n_bytes);
        g_clear_pointer(&passphrase->bytes, g_free);
    }
}

/* --- threads --- */

typedef struct Task {
    int (*func)(void *opaque);
    void *opaque;
    int ret;
    QemuSemaphore done;
} Task;

static void *task_thread(void *opaque)
{
    Task *task = opaque;

    task->ret = task->func(task->opaque);
    qemu_sem_post(&task->done);
    return NULL;
}

/*
 * It may take seconds: meanwhile the guest's processors may have the big lock,
 * and the disks of the main loop go on.
 */
static void task_wait(Task *task)
{
    bool had_lock = bql_locked();
    bool progress;
    int timed_out;

    do {
        progress = aio_poll(qemu_get_aio_context(), false);
        if (had_lock) {
            bql_unlock();
        }
        timed_out = qemu_sem_timedwait(&task->done,
                                       progress ? 0 : THREAD_POLL_MS);
        if (had_lock) {
            bql_lock();
        }
    } while (timed_out);
}

int weir_encryption_run(int (*func)(void *opaque), void *opaque)
{
    Task task = { .func = func, .opaque = opaque };
    QemuThread thread;

    if (qemu_in_coroutine()) {
        return thread_pool_submit_co(func, opaque);
    }
    qemu_sem_init(&task.done, 0);
    qemu_thread_create(&thread, "weir-header", task_thread, &task,
                       QEMU_THREAD_JOINABLE);
    task_wait(&task);
    qemu_thread_join(&thread);
    qemu_sem_destroy(&task.done);
    return task.ret;
}

/* --- place --- */

BdrvChild *weir_header_child(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    return s->header ?: bs->file;
}

void weir_header_place_of_node(WeirHeaderPlace *place, BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    *place = (WeirHeaderPlace) {
        .bs = bs, .detached = s->header, .offset = s->staged_offset,
    };
    pstrcpy(place->name, sizeof(place->name),
            bdrv_get_node_name(weir_header_child(bs)->bs));
}

void weir_header_place_of_blk(WeirHeaderPlace *place, BlockBackend *blk)
{
    *place = (WeirHeaderPlace) { .blk = blk, .detached = true };
    /* or the end of QEMU, which drains all and waits for jobs, would hang */
    blk_set_disable_request_queuing(blk, true);
    pstrcpy(place->name, sizeof(place->name),
            bdrv_get_node_name(blk_bs(blk)));
}

void weir_header_place_free(WeirHeaderPlace *place)
{
    if (place->blk) {
        blk_unref(place->blk);
    }
}

/* --- requests to an open node --- */

/*
 * The child would take a request in a drained section of ours.  Nobody begins
 * one between this and the request: that is done in the main thread.  QEMU
 * cancels the jobs in one when it ends.
 */
static int coroutine_fn node_co_begin(const WeirHeaderPlace *place)
{
    BlockDriverState *bs = place->bs;

    while (qatomic_read(&bs->quiesce_counter)) {
        if (place->job && job_is_cancelled(place->job)) {
            return -ECANCELED;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, DRAIN_POLL_NS);
    }
    if (bs->open_flags & BDRV_O_INACTIVE) {
        return -EPERM;
    }
    bdrv_inc_in_flight(bs);
    return 0;
}

/* Those who are in a request have the lock already. */
static int coroutine_fn TSA_NO_TSA node_co_lock(const WeirHeaderPlace *place)
{
    int ret = place->in_request ? 0 : node_co_begin(place);

    if (ret == 0 && !place->in_request) {
        bdrv_graph_co_rdlock();
    }
    return ret;
}

static void coroutine_fn TSA_NO_TSA
node_co_unlock(const WeirHeaderPlace *place)
{
    if (!place->in_request) {
        bdrv_graph_co_rdunlock();
        bdrv_dec_in_flight(place->bs);
    }
}

static int coroutine_fn TSA_NO_TSA
node_co_read(const WeirHeaderPlace *place, int64_t n_bytes, void *bytes)
{
    int ret = node_co_lock(place);

    if (ret < 0) {
        return ret;
    }
    ret = bdrv_co_pread(weir_header_child(place->bs), place->offset, n_bytes,
                        bytes, 0);
    node_co_unlock(place);
    return ret;
}

static int coroutine_fn GRAPH_RDLOCK
child_co_write(BdrvChild *child, const WeirHeaderWrite *w)
{
    int ret = w->bytes ? bdrv_co_pwrite(child, w->offset_bytes, w->n_bytes,
                                        w->bytes, 0)
                       : bdrv_co_pwrite_zeroes(child, w->offset_bytes,
                                               w->n_bytes, 0);

    return ret >= 0 && w->flush ? bdrv_co_flush(child->bs) : ret;
}

static int coroutine_fn TSA_NO_TSA
node_co_write(const WeirHeaderPlace *place, const WeirHeaderWrite *w)
{
    int ret = node_co_lock(place);

    if (ret < 0) {
        return ret;
    }
    ret = child_co_write(weir_header_child(place->bs), w);
    node_co_unlock(place);
    return ret;
}

static int node_read(const WeirHeaderPlace *place, int64_t n_bytes,
                     void *bytes)
{
    if (qemu_in_coroutine()) {
        return node_co_read(place, n_bytes, bytes);
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_pread(weir_header_child(place->bs), place->offset, n_bytes,
                      bytes, 0);
}

static int node_write(const WeirHeaderPlace *place, const WeirHeaderWrite *w)
{
    BdrvChild *child;
    int ret;

    if (qemu_in_coroutine()) {
        return node_co_write(place, w);
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    child = weir_header_child(place->bs);
    ret = w->bytes ? bdrv_pwrite(child, w->offset_bytes, w->n_bytes, w->bytes,
                                 0)
                   : bdrv_pwrite_zeroes(child, w->offset_bytes, w->n_bytes, 0);
    return ret >= 0 && w->flush ? bdrv_flush(child->bs) : ret;
}

static int64_t coroutine_fn TSA_NO_TSA
node_co_length(const WeirHeaderPlace *place)
{
    int64_t bytes;

    if (!place->in_request) {
        bdrv_graph_co_rdlock();
    }
    bytes = bdrv_co_getlength(weir_header_child(place->bs)->bs);
    if (!place->in_request) {
        bdrv_graph_co_rdunlock();
    }
    return bytes;
}

static int64_t node_length(const WeirHeaderPlace *place)
{
    if (qemu_in_coroutine()) {
        return node_co_length(place);
    }
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_getlength(weir_header_child(place->bs)->bs);
}

/* --- requests to either --- */

static int64_t place_length(const WeirHeaderPlace *place)
{
    return place->bs ? node_length(place) : blk_getlength(place->blk);
}

static int place_read(const WeirHeaderPlace *place, int64_t n_bytes,
                      void *bytes)
{
    return place->bs ? node_read(place, n_bytes, bytes)
                     : blk_pread(place->blk, 0, n_bytes, bytes, 0);
}

static int place_write(const WeirHeaderPlace *place, const WeirHeaderWrite *w)
{
    int ret;

    if (place->bs) {
        return node_write(place, w);
    }
    ret = w->bytes ? blk_pwrite(place->blk, w->offset_bytes, w->n_bytes,
                                w->bytes, 0)
                   : blk_pwrite_zeroes(place->blk, w->offset_bytes, w->n_bytes,
                                       0);
    return ret >= 0 && w->flush ? blk_flush(place->blk) : ret;
}

/* --- from the disk --- */

int weir_header_bytes_from_disk(const WeirHeaderPlace *place, int64_t n_bytes,
                                uint8_t **bytes, Error **errp)
{
    int ret;

    *bytes = qemu_try_memalign(qemu_real_host_page_size(), MAX(n_bytes, 1));
    ret = *bytes ? place_read(place, n_bytes, *bytes) : -ENOMEM;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "weir-encryption: Cannot read the header "
                         "from node '%s'", place->name);
        qemu_vfree(*bytes);
        *bytes = NULL;
    }
    return ret < 0 ? ret : 0;
}

/* The beginning of a disk, as much as a header may be long. */
typedef struct Load {
    const WeirHeaderPlace *place;
    uint8_t *bytes;
    int64_t n_bytes;
    int64_t disk_bytes;
    uint64_t wanted_bytes;
    WeirHeader *header;
    char message[256];
} Load;

static int load_read(Load *load, Error **errp)
{
    const WeirHeaderPlace *place = load->place;

    load->disk_bytes = place_length(place);
    if (load->disk_bytes < 0) {
        error_setg_errno(errp, -load->disk_bytes, "weir-encryption: Cannot "
                         "tell the length of node '%s'", place->name);
        return load->disk_bytes;
    }
    load->n_bytes = MIN(load->disk_bytes - place->offset, load->wanted_bytes);
    return weir_header_bytes_from_disk(place, load->n_bytes, &load->bytes,
                                       errp);
}

static int load_thread(void *opaque)
{
    Load *load = opaque;

    return weir_header_load(&load->header, load->bytes, load->n_bytes,
                            load->disk_bytes, load->place->detached,
                            &load->wanted_bytes, load->message,
                            sizeof(load->message));
}

/* Once more if the header turns out to be longer than usual. */
int weir_header_from_disk(const WeirHeaderPlace *place, WeirHeader **header,
                          Error **errp)
{
    Load load = {
        .place = place,
        .wanted_bytes = WEIR_HEADER_BYTES_USUAL,
    };
    int ret;

    *header = NULL;
    do {
        ret = load_read(&load, errp);
        if (ret == 0) {
            ret = weir_encryption_run(load_thread, &load);
        } else {
            load.message[0] = 0;
        }
        qemu_vfree(load.bytes);
    } while (ret == -EMSGSIZE);
    if (ret < 0 && load.message[0]) {
        error_setg(errp, "weir-encryption: Node '%s': %s", place->name,
                   load.message);
    }
    *header = load.header;
    return ret;
}

static int drop_thread(void *opaque)
{
    weir_header_free(opaque);
    return 0;
}

void weir_header_drop(WeirHeader *header)
{
    if (header) {
        weir_encryption_run(drop_thread, header);
    }
}

bool weir_header_is_staged(BlockDriverState *bs, uint64_t *offset)
{
    uint8_t first[WEIR_REENCRYPT_SECTOR_BYTES], staged[sizeof(first)];
    BdrvChild *child;
    int64_t bytes;

    GRAPH_RDLOCK_GUARD_MAINLOOP();
    child = weir_header_child(bs);
    bytes = bdrv_getlength(child->bs);
    if (bytes < 3 * WEIR_HEADER_BYTES_USUAL ||
        bdrv_pread(child, 0, sizeof(first), first, 0) < 0 ||
        bdrv_pread(child, bytes - 2 * WEIR_HEADER_BYTES_USUAL, sizeof(staged),
                   staged, 0) < 0) {
        return false;
    }
    *offset = bytes - 2 * WEIR_HEADER_BYTES_USUAL;
    return weir_reencrypt_is_staged(first, staged);
}

/* --- to the disk --- */

typedef struct Store {
    WeirHeader *header;
    WeirHeaderUpdate *update;
    char message[256];
} Store;

static int store_thread(void *opaque)
{
    Store *store = opaque;

    return weir_header_update_new(&store->update, store->header,
                                  store->message, sizeof(store->message));
}

static int store_write(const WeirHeaderPlace *place, WeirHeaderUpdate *update,
                       Error **errp)
{
    const WeirHeaderWrite *w;

    while ((w = weir_header_update_next(update))) {
        int ret = place_write(place, w);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "weir-encryption: Cannot write the "
                             "header to node '%s'", place->name);
            return ret;
        }
    }
    return 0;
}

int weir_header_to_disk(const WeirHeaderPlace *place, WeirHeader *header,
                        Error **errp)
{
    Store store = { .header = header };
    int ret = weir_encryption_run(store_thread, &store);

    if (ret < 0) {
        error_setg(errp, "weir-encryption: Node '%s': %s", place->name,
                   store.message);
        return ret;
    }
    ret = store_write(place, store.update, errp);
    weir_header_update_free(store.update);
    return ret;
}

/* --- permission and state --- */

int weir_header_refresh_perms(BlockDriverState *bs, Error **errp)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    return bdrv_child_refresh_perms(bs, weir_header_child(bs), errp);
}

int weir_header_change_begin(BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    int ret;

    if (s->conversion) {
        error_setg(errp, "weir-encryption: Node '%s' is, or was just, "
                   "converted in place", bdrv_get_node_name(bs));
        return -EBUSY;
    }
    if (bs->open_flags & BDRV_O_INACTIVE) {
        error_setg(errp, "weir-encryption: Node '%s' is inactive",
                   bdrv_get_node_name(bs));
        return -EPERM;
    }
    if (bdrv_is_read_only(bs)) {
        error_setg(errp, "weir-encryption: Node '%s' is read-only",
                   bdrv_get_node_name(bs));
        return -EROFS;
    }
    if (!weir_header_claim(bs)) {
        error_setg(errp, "weir-encryption: The header of node '%s' is being "
                   "changed", bdrv_get_node_name(bs));
        return -EBUSY;
    }
    s->header_changes = true;
    ret = weir_header_refresh_perms(bs, errp);
    if (ret < 0) {
        s->header_changes = false;
        weir_header_unclaim(bs);
    }
    return ret;
}

void weir_header_change_end(BlockDriverState *bs)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    Error *err = NULL;

    s->header_changes = false;
    if (weir_header_refresh_perms(bs, &err) < 0) {
        warn_report_err(err);
    }
    weir_header_unclaim(bs);
}

static const char *state_reason(const BDRVWeirEncryptionState *s)
{
    if (!s->n_keyslots) {
        return "no keyslot is left: nothing opens the disk any more once it "
               "is closed";
    }
    return s->info.repaired ? "one of the two copies of the header is damaged; "
                              "weir-encryption-repair mends it" : NULL;
}

static void note_binding(BDRVWeirEncryptionState *s,
                         const WeirHeaderInfo *info)
{
    s->info.is_bound = info->is_bound;
    s->info.bound_min_bytes = info->bound_min_bytes;
    s->info.bound_max_bytes = info->bound_max_bytes;
    qatomic_set(&s->bound_min_bytes, (int64_t)info->bound_min_bytes);
    qatomic_set(&s->bound_max_bytes, (int64_t)info->bound_max_bytes);
    qatomic_set(&s->keeps_length,
                s->header && info->is_bound && s->check_length);
}

void weir_header_note(BlockDriverState *bs, const WeirHeader *header)
{
    BDRVWeirEncryptionState *s = bs->opaque;
    const WeirHeaderKeyslot *keyslots;
    const char *reason;

    keyslots = weir_header_keyslots(header, &s->n_keyslots);
    memcpy(s->keyslots, keyslots, s->n_keyslots * sizeof(*keyslots));
    s->info.repaired = weir_header_info(header)->repaired;
    note_binding(s, weir_header_info(header));
    reason = state_reason(s);
    if (reason != s->header_reason) {
        s->header_reason = reason;
        weir_filter_set_state(bs, reason ? WEIR_STATE_DEGRADED : WEIR_STATE_OK,
                              reason);
    }
}
