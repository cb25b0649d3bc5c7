/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of the header of an encrypted disk: keyslots that come, change and
 * go.  In a job of QMP, or at once for qemu-img amend:
 *
 *   read the header -> change it, in a thread -> write it
 *
 * From the first to the last of these, the header is nobody else's.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/qdict.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-weir-types.h"
#include "qapi/qobject-input-visitor.h"
#include "qemu/job.h"
#include "qemu/option.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "encryption/secret.h"
#include "weir-encryption.h"

/* What to change. */
typedef struct HeaderTask {
    int kind;                   /* of WeirHeaderChange */
    int keyslot;                /* or WEIR_HEADER_ANY_KEYSLOT */
    bool force;
    bool has_old;               /* whether @old was given */
    WeirPassphrase old;
    WeirPassphrase new;
    WeirHeaderKdf kdf;
    WeirHeaderLimits limits;
    uint64_t data_bytes;        /* to bind the header to */
    WeirHeader *header;         /* while it runs */
    char message[256];
} HeaderTask;

/* --- in a thread --- */

static int task_add(HeaderTask *t)
{
    size_t key_bytes = weir_header_info(t->header)->key_bytes;
    void *key;
    int ret = weir_secret_new(&key, key_bytes);

    if (ret < 0) {
        snprintf(t->message, sizeof(t->message), "no locked memory for the "
                 "volume key (see RLIMIT_MEMLOCK)");
        return ret;
    }
    ret = weir_header_unlock(t->header, WEIR_HEADER_ANY_KEYSLOT, t->old.bytes,
                             t->old.n_bytes, &t->limits, key, t->message,
                             sizeof(t->message));
    if (ret >= 0) {
        ret = weir_header_add_keyslot(t->header, t->keyslot, key, &t->kdf,
                                      t->new.bytes, t->new.n_bytes,
                                      t->message, sizeof(t->message));
    }
    weir_secret_free(key, key_bytes);
    return ret;
}

static int task_change(HeaderTask *t)
{
    return weir_header_change_keyslot(t->header, t->keyslot, t->old.bytes,
                                      t->old.n_bytes, &t->limits, &t->kdf,
                                      t->new.bytes, t->new.n_bytes,
                                      t->message, sizeof(t->message));
}

static int task_remove(HeaderTask *t)
{
    return t->has_old ?
        weir_header_remove_passphrase(t->header, t->keyslot, t->old.bytes,
                                      t->old.n_bytes, &t->limits, t->force,
                                      t->message, sizeof(t->message)) :
        weir_header_remove_keyslot(t->header, t->keyslot, t->force,
                                   t->message, sizeof(t->message));
}

static int task_thread(void *opaque)
{
    HeaderTask *t = opaque;

    switch (t->kind) {
    case WEIR_HEADER_ADD:
        return task_add(t);
    case WEIR_HEADER_CHANGE:
        return task_change(t);
    case WEIR_HEADER_REMOVE:
        return task_remove(t);
    case WEIR_HEADER_ERASE:
        return weir_header_erase(t->header, t->message, sizeof(t->message));
    case WEIR_HEADER_BIND:
        return weir_header_bind(t->header, t->data_bytes, t->data_bytes,
                                t->message, sizeof(t->message));
    default:                            /* its update mends it */
        return 0;
    }
}

/* --- read, change, write --- */

/* What the disk has after a write that failed; the guest goes on anyway. */
static void note_from_disk(const WeirHeaderPlace *place)
{
    WeirHeader *header;

    if (weir_header_from_disk(place, &header, NULL) == 0) {
        weir_header_note(place->bs, header);
    }
    weir_header_drop(header);
}

/* @job: NULL when it cannot be cancelled. */
static int task_run_loaded(const WeirHeaderPlace *place, HeaderTask *t,
                           Job *job, Error **errp)
{
    int ret = weir_encryption_run(task_thread, t);

    if (ret < 0) {
        error_setg(errp, "weir-encryption: Node '%s': %s", place->name,
                   t->message);
        return ret;
    }
    if (job && job_is_cancelled(job)) {
        return -ECANCELED;
    }
    ret = weir_header_to_disk(place, t->header, errp);
    if (ret == 0 && place->bs) {
        weir_header_note(place->bs, t->header);
    } else if (place->bs) {
        note_from_disk(place);
    }
    return ret;
}

static int task_run(const WeirHeaderPlace *place, HeaderTask *t, Job *job,
                    Error **errp)
{
    int ret = weir_header_from_disk(place, &t->header, errp);

    if (ret == 0) {
        ret = task_run_loaded(place, t, job, errp);
    }
    weir_header_drop(t->header);
    return ret;
}

static void task_clear(HeaderTask *t)
{
    weir_passphrase_free(&t->old);
    weir_passphrase_free(&t->new);
}

/* --- from options --- */

static int take_old(HeaderTask *t, const char *id, Error **errp)
{
    if (!id) {
        return 0;
    }
    t->has_old = true;
    return weir_passphrase_get(&t->old, id, errp);
}

/* @bs: NULL for a node that is not ours. */
static int task_secrets(HeaderTask *t, BlockDriverState *bs,
                        const WeirHeaderChange *change, Error **errp)
{
    const char *old = change->secret;
    int ret;

    if (change->kind == WEIR_HEADER_ADD && !old) {
        BDRVWeirEncryptionState *s = bs->opaque;

        old = s->key_secret;
        if (!old) {
            error_setg(errp, "weir-encryption: Node '%s' was opened without "
                       "'key-secret'; a secret that opens the disk must be "
                       "given", bdrv_get_node_name(bs));
            return -EINVAL;
        }
    }
    ret = take_old(t, old, errp);
    return ret == 0 && change->new_secret ?
           weir_passphrase_get(&t->new, change->new_secret, errp) : ret;
}

static bool change_is_good(const WeirHeaderChange *change, Error **errp)
{
    if (change->has_key_slot && change->key_slot >= WEIR_HEADER_KEYSLOTS) {
        error_setg(errp, "weir-encryption: key-slot must be less than %d, "
                   "not %u", WEIR_HEADER_KEYSLOTS, change->key_slot);
        return false;
    }
    if (change->kind == WEIR_HEADER_REMOVE &&
        change->has_key_slot == !!change->secret) {
        error_setg(errp, "weir-encryption: Either 'key-slot' or 'old-secret' "
                   "must tell what to remove");
        return false;
    }
    return true;
}

/* @bs: NULL for a node that is not ours. */
static int task_length(HeaderTask *t, BlockDriverState *bs, Error **errp)
{
    BDRVWeirEncryptionState *s = bs ? bs->opaque : NULL;
    int64_t bytes;

    if (!s || !s->header) {
        error_setg(errp, "weir-encryption: Only a detached header is bound to "
                   "the length of a disk");
        return -EINVAL;
    }
    bytes = weir_encryption_data_bytes(bs);
    if (bytes < 0) {
        error_setg_errno(errp, -bytes, "weir-encryption: Cannot tell the "
                         "length of the disk of node '%s'",
                         bdrv_get_node_name(bs));
        return bytes;
    }
    t->data_bytes = bytes;
    return 0;
}

static int task_init(HeaderTask *t, BlockDriverState *bs,
                     const WeirHeaderChange *change, Error **errp)
{
    *t = (HeaderTask) {
        .kind = change->kind,
        .keyslot = change->has_key_slot ? (int)change->key_slot
                                        : WEIR_HEADER_ANY_KEYSLOT,
        .force = change->force,
    };
    if (!change_is_good(change, errp)) {
        return -EINVAL;
    }
    if (bs) {
        t->limits = ((BDRVWeirEncryptionState *)bs->opaque)->limits;
    }
    if (change->kind == WEIR_HEADER_BIND && task_length(t, bs, errp) < 0) {
        return -EINVAL;
    }
    if (change->kdf &&
        weir_kdf_from_options(&t->kdf, change->kdf, errp) < 0) {
        return -EINVAL;
    }
    return task_secrets(t, bs, change, errp);
}

/* --- QMP --- */

typedef struct HeaderJob {
    Job common;                 /* in the main loop's AioContext */
    BlockDriverState *bs;       /* referenced */
    WeirHeaderPlace place;
    bool has_begun;             /* has the permission to write */
    Error *blocker;             /* of migration */
    HeaderTask task;
} HeaderJob;

static int coroutine_fn header_job_run(Job *common, Error **errp)
{
    HeaderJob *job = container_of(common, HeaderJob, common);
    int ret;

    job_progress_set_remaining(common, 1);
    ret = task_run(&job->place, &job->task, common, errp);
    job_progress_update(common, 1);
    return ret;
}

/* The other side of a migration has looked at the header by then. */
static int block_migration(HeaderJob *job, Error **errp)
{
    error_setg(&job->blocker, "The header of node '%s' is being changed by the "
               "job '%s'; wait for its end", bdrv_get_node_name(job->bs),
               job->common.id);
    return migrate_add_blocker(&job->blocker, errp);
}

/* Where there is no migration, nobody takes the blocker over. */
static void unblock_migration(HeaderJob *job)
{
    migrate_del_blocker(&job->blocker);
    error_free(job->blocker);
    job->blocker = NULL;
}

/* Permission and blocker are not kept until the job is dismissed. */
static void header_job_clean(Job *common)
{
    HeaderJob *job = container_of(common, HeaderJob, common);

    unblock_migration(job);
    if (job->has_begun) {
        weir_header_change_end(job->bs);
        job->has_begun = false;
    }
    weir_header_place_free(&job->place);
    job->place.blk = NULL;
    g_clear_pointer(&job->bs, bdrv_unref);
    task_clear(&job->task);
}

static const JobDriver header_job_driver = {
    .instance_size = sizeof(HeaderJob),
    .job_type      = JOB_TYPE_WEIR_HEADER,
    .run           = header_job_run,
    .clean         = header_job_clean,
};

/* A node that is not ours: only its header is of interest. */
static int place_of_foreign(WeirHeaderPlace *place, BlockDriverState *bs,
                            Error **errp)
{
    BlockBackend *blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ |
                                        BLK_PERM_WRITE,
                                        BLK_PERM_CONSISTENT_READ |
                                        BLK_PERM_WRITE_UNCHANGED, errp);

    if (!blk) {
        return -EPERM;
    }
    blk_set_allow_aio_context_change(blk, true);
    weir_header_place_of_blk(place, blk);
    return 0;
}

static int header_job_init(HeaderJob *job, BlockDriverState *bs,
                           const WeirHeaderChange *change, Error **errp)
{
    bool is_ours = bs->opaque && weir_filter_driver(bs) &&
                   weir_filter_driver(bs)->driver ==
                   WEIR_DRIVER_WEIR_ENCRYPTION;
    int ret = task_init(&job->task, is_ours ? bs : NULL, change, errp);

    if (ret == 0) {
        ret = block_migration(job, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (!is_ours) {
        return place_of_foreign(&job->place, bs, errp);
    }
    weir_header_place_of_node(&job->place, bs);
    job->place.job = &job->common;
    ret = weir_header_change_begin(bs, errp);
    job->has_begun = ret == 0;
    return ret;
}

void weir_encryption_change_header(BlockDriverState *bs,
                                   const WeirHeaderChange *change,
                                   Error **errp)
{
    HeaderJob *job = job_create(change->job_id, &header_job_driver, NULL,
                                qemu_get_aio_context(),
                                JOB_DEFAULT | JOB_MANUAL_DISMISS, NULL, NULL,
                                errp);

    if (!job) {
        return;
    }
    bdrv_ref(bs);
    job->bs = bs;
    if (header_job_init(job, bs, change, errp) < 0) {
        header_job_clean(&job->common);
        job_early_fail(&job->common);
        return;
    }
    job_start(&job->common);
}

/* --- qemu-img amend --- */

#define OPT(opt, opt_type, opt_help) \
    { .name = opt, .type = QEMU_OPT_##opt_type, .help = opt_help }

QemuOptsList weir_encryption_amend_opts = {
    .name = "weir-encryption-amend-opts",
    .head = QTAILQ_HEAD_INITIALIZER(weir_encryption_amend_opts.head),
    .desc = {
        OPT("state", STRING, "'active' to add or change a keyslot, "
            "'inactive' to remove, 'erased' to destroy all, 'bound' after the "
            "disk was resized"),
        OPT("new-secret", STRING, "ID of the secret with the new passphrase"),
        OPT("old-secret", STRING, "ID of the secret with the passphrase to "
            "change or to remove"),
        OPT("key-slot", NUMBER, "The only keyslot to use"),
        WEIR_KDF_OPTS
        { /* end of list */ }
    },
};

static WeirEncryptionAmendOptions *parse_amend(QemuOpts *opts, Error **errp)
{
    g_autoptr(QDict) qdict = qemu_opts_to_qdict(opts, NULL);
    Visitor *v = qobject_input_visitor_new_flat_confused(qdict, errp);
    WeirEncryptionAmendOptions *amend = NULL;

    if (v) {
        visit_type_WeirEncryptionAmendOptions(v, NULL, &amend, errp);
        visit_free(v);
    }
    return amend;
}

static int kind_of_amend(const WeirEncryptionAmendOptions *amend)
{
    switch (amend->state) {
    case WEIR_HEADER_STATE_ACTIVE:
        return amend->old_secret ? WEIR_HEADER_CHANGE : WEIR_HEADER_ADD;
    case WEIR_HEADER_STATE_ERASED:
        return WEIR_HEADER_ERASE;
    case WEIR_HEADER_STATE_BOUND:
        return WEIR_HEADER_BIND;
    default:
        return WEIR_HEADER_REMOVE;
    }
}

static bool amend_is_good(const WeirEncryptionAmendOptions *amend, bool force,
                          Error **errp)
{
    bool is_active = amend->state == WEIR_HEADER_STATE_ACTIVE;
    bool is_keyslot = is_active || amend->state == WEIR_HEADER_STATE_INACTIVE;
    bool has_kdf = amend->has_kdf || amend->has_kdf_iterations ||
                   amend->has_kdf_memory || amend->has_kdf_threads;
    const char *why = NULL;

    if (is_active != !!amend->new_secret) {
        why = "'new-secret' must be given with state=active, and only then";
    } else if (!is_keyslot && (amend->old_secret || amend->has_key_slot)) {
        why = "'old-secret' and 'key-slot' are for state=active and "
              "state=inactive";
    } else if (!is_active && has_kdf) {
        why = "'kdf' and the like are for state=active";
    } else if (amend->state == WEIR_HEADER_STATE_ERASED && !force) {
        why = "state=erased makes the data unreadable for ever, and needs "
              "--force";
    }
    if (why) {
        error_setg(errp, "weir-encryption: %s", why);
    }
    return !why;
}

static int amend_to_change(WeirHeaderChange *change,
                           WeirEncryptionAmendOptions *amend, bool force,
                           Error **errp)
{
    *change = (WeirHeaderChange) {
        .kind = kind_of_amend(amend),
        .secret = amend->old_secret,
        .new_secret = amend->new_secret,
        .has_key_slot = amend->has_key_slot,
        .key_slot = amend->key_slot,
        .force = force,
        .kdf = qapi_WeirEncryptionAmendOptions_base(amend),
    };
    return amend_is_good(amend, force, errp) ? 0 : -EINVAL;
}

static int amend_now(BlockDriverState *bs, const WeirHeaderChange *change,
                     Error **errp)
{
    WeirHeaderPlace place;
    HeaderTask task;
    int ret = task_init(&task, bs, change, errp);

    if (ret == 0) {
        ret = weir_header_change_begin(bs, errp);
    }
    if (ret == 0) {
        weir_header_place_of_node(&place, bs);
        ret = task_run(&place, &task, NULL, errp);
        weir_header_change_end(bs);
    }
    task_clear(&task);
    return ret;
}

/* Only qemu-img calls it, which has nothing else to do meanwhile. */
int weir_encryption_amend_options(BlockDriverState *bs, QemuOpts *opts,
                                  BlockDriverAmendStatusCB *status_cb,
                                  void *cb_opaque, bool force, Error **errp)
{
    g_autoptr(WeirEncryptionAmendOptions) amend = parse_amend(opts, errp);
    WeirHeaderChange change;

    if (!amend || amend_to_change(&change, amend, force, errp) < 0) {
        return -EINVAL;
    }
    return amend_now(bs, &change, errp);
}

/* --- figures --- */

WeirKeyslotInfoList *weir_keyslots_to_qapi(const BDRVWeirEncryptionState *s)
{
    WeirKeyslotInfoList *list = NULL;

    for (size_t i = s->n_keyslots; i-- > 0; ) {
        const WeirHeaderKdf *kdf = &s->keyslots[i].kdf;
        WeirKeyslotInfo *info = g_new0(WeirKeyslotInfo, 1);
        int type = qapi_enum_parse(&WeirKdf_lookup, kdf->type, -1, NULL);

        info->key_slot = s->keyslots[i].keyslot;
        info->has_kdf = type >= 0;
        info->kdf = MAX(type, 0);
        info->iterations = kdf->iterations;
        info->memory = kdf->memory_kib * KiB;
        info->threads = kdf->threads;
        QAPI_LIST_PREPEND(list, info);
    }
    return list;
}
