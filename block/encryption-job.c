/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir-encrypt, weir-rekey, weir-decrypt and weir-encryption-resume: jobs that
 * convert a disk in place while it is in use; weir-encryption-set-speed.
 *
 * The driver does the work, step by step; what is on disk is good after each of
 * them, and after half of one.  Here is how fast, and when to stop: a job that
 * is cancelled goes on to the end of the hotzone first.  After an error it
 * waits to be resumed, and then does the same step again.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "block/block_int.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-weir.h"
#include "qapi/qapi-types-block-core.h"
#include "qemu/error-report.h"
#include "qemu/job.h"
#include "qemu/units.h"
#include "filter.h"

#define SPEED_DEFAULT (64 * MiB)
#define SECTOR_DEFAULT 512
/* a step is what the job does in so much time, or about a chunk */
#define STEP_NS (4 * SCALE_MS)
#define STEP_BYTES_MIN (256 * KiB)
#define STEP_BYTES_MAX (8 * MiB)
/*
 * Without a limit a step has many chunks, for at its end processors and disk
 * have less and less to do; but who drains the node waits for it.
 */
#define FREE_STEP_BYTES_MAX (64 * MiB)
#define FREE_STEP_NS (40 * SCALE_MS)
/* a job that was late catches up with so much */
#define LATE_NS (20 * SCALE_MS)
#define DRAINED_NS (10 * SCALE_MS)

typedef struct EncryptionJob {
    Job common;                 /* in the main loop's AioContext */
    BlockDriverState *bs;       /* set at creation; a reference */
    const WeirFilterJob *driver;    /* set at creation */
    uint64_t speed;             /* main thread; bytes/s; 0: no limit */
    int64_t due_ns;             /* when it may go on */
    uint32_t free_step_bytes;   /* of a step without a limit */
    uint64_t done;              /* bytes, at the last look */
    Error *blocker;             /* of migration; main thread */
} EncryptionJob;

/* --- the job --- */

/* Tell how far it is.  Returns whether it is a good place to stop. */
static bool look(EncryptionJob *job)
{
    uint64_t done, total;
    bool may_stop = job->driver->progress(job->bs, &done, &total);

    job_progress_update(&job->common, done > job->done ? done - job->done : 0);
    job_progress_set_remaining(&job->common, total - done);
    job->done = done;
    return may_stop;
}

/* As a block job does with on-error=stop. */
static void coroutine_fn stop_after_error(EncryptionJob *job, int ret)
{
    g_autofree char *reason = g_strdup_printf("converting the disk has "
        "stopped: %s; resume the job, or cancel it", strerror(-ret));

    weir_filter_set_state(job->bs, WEIR_STATE_DEGRADED, reason);
    WITH_JOB_LOCK_GUARD() {
        if (!job->common.user_paused) {
            job_pause_locked(&job->common);
            job->common.user_paused = true;
        }
    }
    job_pause_point(&job->common);
}

/* Small ones: requests are slower while one is under way, and not for long. */
static uint32_t step_bytes(const EncryptionJob *job)
{
    uint64_t bytes = job->speed / (NANOSECONDS_PER_SECOND / STEP_NS);

    return job->speed ? MIN(MAX(bytes, STEP_BYTES_MIN), STEP_BYTES_MAX)
                      : job->free_step_bytes;
}

static void adapt_free_step(EncryptionJob *job, int64_t step_ns)
{
    if (step_ns > FREE_STEP_NS) {
        job->free_step_bytes = MAX(job->free_step_bytes / 2, STEP_BYTES_MAX);
    } else if (step_ns < FREE_STEP_NS / 4) {
        job->free_step_bytes = MIN(job->free_step_bytes * 2,
                                   FREE_STEP_BYTES_MAX);
    }
}

static int coroutine_fn do_step(EncryptionJob *job)
{
    int64_t begin_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    int ret = job->driver->step(job->bs, step_bytes(job));

    adapt_free_step(job, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - begin_ns);
    return ret;
}

static void coroutine_fn wait_for_turn(EncryptionJob *job, uint32_t bytes)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);

    job->due_ns = MAX(job->due_ns, now_ns - LATE_NS);
    if (job->speed) {
        job->due_ns += (uint64_t)bytes * NANOSECONDS_PER_SECOND / job->speed;
    }
    job_sleep_ns(&job->common, MAX(0, job->due_ns - now_ns));
}

static int coroutine_fn encryption_job_run(Job *common, Error **errp)
{
    EncryptionJob *job = container_of(common, EncryptionJob, common);
    bool may_stop = look(job);
    int ret = 1;

    while (ret != 0 && !(may_stop && job_is_cancelled(common))) {
        ret = do_step(job);
        if (ret == -EAGAIN && job_is_cancelled(common)) {
            break;                      /* whoever drains waits for us */
        } else if (ret == -EAGAIN) {
            job_sleep_ns(common, DRAINED_NS);
            continue;
        }
        may_stop = look(job);
        if (ret < 0 && job_is_cancelled(common)) {
            break;
        } else if (ret < 0) {
            stop_after_error(job, ret);
        } else if (ret > 0 && !job_is_cancelled(common)) {
            wait_for_turn(job, ret);
        }
    }
    return 0;
}

static void encryption_job_user_resume(Job *common)
{
    EncryptionJob *job = container_of(common, EncryptionJob, common);

    weir_filter_set_state(job->bs, WEIR_STATE_OK, NULL);
}

/* Where there is no migration, nobody takes the blocker over. */
static void unblock_migration(Error **blocker)
{
    migrate_del_blocker(blocker);
    error_free(*blocker);
    *blocker = NULL;
}

/* It has ended, and waits to be dismissed. */
static void encryption_job_clean(Job *common)
{
    EncryptionJob *job = container_of(common, EncryptionJob, common);

    unblock_migration(&job->blocker);
    job->driver->give(job->bs);
    bdrv_unref(job->bs);
}

static const JobDriver encryption_job_driver = {
    .instance_size = sizeof(EncryptionJob),
    .job_type      = JOB_TYPE_AMEND,
    .run           = encryption_job_run,
    .user_resume   = encryption_job_user_resume,
    .clean         = encryption_job_clean,
};

/* --- speed --- */

static bool is_asleep(Job *job)
{
    return timer_pending(&job->sleep_timer);
}

/* What it waits for now was reckoned with the old speed. */
void qmp_weir_encryption_set_speed(const char *job_id, uint64_t speed,
                                   Error **errp)
{
    EncryptionJob *encryption;
    Job *job;

    JOB_LOCK_GUARD();
    job = job_get_locked(job_id);
    if (!job || job->driver != &encryption_job_driver ||
        job_is_completed_locked(job)) {
        error_setg(errp, "There is no job '%s' that converts a disk", job_id);
        return;
    }
    encryption = container_of(job, EncryptionJob, common);
    encryption->speed = speed;
    encryption->due_ns = 0;
    job_enter_cond_locked(job, is_asleep);
}

/* --- commands --- */

static const WeirFilterJob *find_job_driver(BlockDriverState *bs)
{
    WeirFilterDriver *driver = weir_filter_driver(bs);

    return driver ? driver->job : NULL;
}

static BlockDriverState *find_encrypted(const char *node_name, Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(node_name);

    if (!bs || !find_job_driver(bs)) {
        error_setg(errp, bs ? "Node '%s' is not a weir-encryption node"
                            : "Node '%s' not found", node_name);
        return NULL;
    }
    return bs;
}

/* The other side has looked at the header before we change it. */
static Error *block_migration(BlockDriverState *bs, Error **errp)
{
    Error *blocker = NULL;

    error_setg(&blocker, "Node '%s' is being converted in place; cancel the "
               "job, or let it end", bdrv_get_node_name(bs));
    migrate_add_blocker(&blocker, errp);
    return blocker;
}

/* @blocker: goes to the job, or away. */
static void start_job(BlockDriverState *bs, const char *job_id,
                      uint64_t speed, Error *blocker, Error **errp)
{
    const WeirFilterJob *driver = find_job_driver(bs);
    EncryptionJob *job;

    if (driver->take(bs, errp) < 0) {
        unblock_migration(&blocker);
        return;
    }
    job = job_create(job_id, &encryption_job_driver, NULL,
                     qemu_get_aio_context(), JOB_MANUAL_DISMISS, NULL, NULL,
                     errp);
    if (!job) {
        driver->give(bs);
        unblock_migration(&blocker);
        return;
    }
    job->blocker = blocker;
    bdrv_ref(bs);
    job->bs = bs;
    job->driver = driver;
    job->speed = speed;
    job->free_step_bytes = STEP_BYTES_MAX;
    job_start(&job->common);
}

static bool check_arguments(const char *job_id, const WeirFilterJobStart *start,
                            Error **errp)
{
    bool exists;

    WITH_JOB_LOCK_GUARD() {
        exists = job_get_locked(job_id);
    }
    if (exists) {
        error_setg(errp, "Job ID '%s' already in use", job_id);
    } else if (start->sector_bytes != 512 && start->sector_bytes != 4096) {
        error_setg(errp, "sector-size must be 512 or 4096");
    } else {
        return weir_filter_check_hotzone(start->hotzone_bytes, errp);
    }
    return false;
}

/* A disk that is encrypted; the header tells its sectors. */
static void begin_job(const char *job_id, const char *node_name,
                      const WeirFilterJobStart *start, uint64_t speed,
                      Error **errp)
{
    BlockDriverState *bs;
    Error *blocker;

    if (!check_arguments(job_id, start, errp)) {
        return;
    }
    bs = find_encrypted(node_name, errp);
    blocker = bs ? block_migration(bs, errp) : NULL;
    if (!blocker) {
        return;
    }
    if (find_job_driver(bs)->begin(bs, start, errp) == 0) {
        start_job(bs, job_id, speed, blocker, errp);
    } else {
        unblock_migration(&blocker);
    }
}

void qmp_weir_rekey(WeirRekey *arg, Error **errp)
{
    const WeirFilterJobStart start = {
        .mode = WEIR_ENCRYPTION_JOB_MODE_REKEY,
        .key_secret = arg->key_secret,
        .keyslots = arg->keyslots,
        .drop_keyslots = arg->drop_keyslots,
        .kdf = qapi_WeirRekey_base(arg),
        .sector_bytes = SECTOR_DEFAULT,
        .hotzone_bytes = arg->has_hotzone_size ? arg->hotzone_size
                                               : WEIR_HOTZONE_BYTES_DEFAULT,
    };

    begin_job(arg->job_id, arg->node_name, &start,
              arg->has_speed ? arg->speed : SPEED_DEFAULT, errp);
}

void qmp_weir_decrypt(const char *job_id, const char *node_name,
                      const char *key_secret, bool has_hotzone_size,
                      uint64_t hotzone_size, bool has_speed, uint64_t speed,
                      Error **errp)
{
    const WeirFilterJobStart start = {
        .mode = WEIR_ENCRYPTION_JOB_MODE_DECRYPT,
        .key_secret = key_secret,
        .sector_bytes = SECTOR_DEFAULT,
        .hotzone_bytes = has_hotzone_size ? hotzone_size
                                          : WEIR_HOTZONE_BYTES_DEFAULT,
    };

    begin_job(job_id, node_name, &start, has_speed ? speed : SPEED_DEFAULT,
              errp);
}

void qmp_weir_encryption_resume(const char *job_id, const char *node_name,
                                bool has_speed, uint64_t speed, Error **errp)
{
    BlockDriverState *bs = find_encrypted(node_name, errp);
    Error *blocker = bs ? block_migration(bs, errp) : NULL;

    if (blocker) {
        start_job(bs, job_id, has_speed ? speed : SPEED_DEFAULT, blocker,
                  errp);
    }
}

/* --- a plain disk --- */

static WeirFilterDriver *encryption_driver(Error **errp)
{
    WeirFilterDriver *driver = NULL;

    if (bdrv_find_format("weir-encryption")) {      /* loads the module */
        driver = weir_filter_find_driver("weir-encryption");
    }
    if (!driver || !driver->job) {
        error_setg(errp, "The module of weir-encryption is not installed");
        return NULL;
    }
    return driver;
}

static int64_t length_of(BlockDriverState *bs, Error **errp)
{
    int64_t bytes = bdrv_getlength(bs);

    if (bytes < 0) {
        error_setg_errno(errp, -bytes, "Cannot tell the length of node '%s'",
                         bdrv_get_node_name(bs));
    }
    return bytes;
}

static int write_header(BlockDriverState *bs, BlockDriverState *header,
                        const WeirFilterJobStart *start, Error **errp)
{
    WeirFilterDriver *driver = encryption_driver(errp);
    int64_t bytes;

    if (!driver) {
        return -ENOENT;
    }
    bytes = length_of(bs, errp);
    if (bytes < 0) {
        return bytes;
    }
    if (bs->open_flags & BDRV_O_NO_FLUSH ||
        header->open_flags & BDRV_O_NO_FLUSH) {
        error_setg(errp, "A disk that is opened with cache.no-flush cannot be "
                   "converted in place");
        return -ENOTSUP;
    }
    return driver->job->make_header(header, bytes, start, errp);
}

/* @header: NULL for a plain disk of @plain_bytes. */
static void attach_filter(const char *node_name, const char *filter_node_name,
                          const char *header, uint64_t plain_bytes,
                          const char *key_secret, uint64_t hotzone_bytes,
                          Error **errp)
{
    g_autoptr(BlockdevOptions) filter = g_new0(BlockdevOptions, 1);
    BlockdevOptionsWeirEncryption *opts = &filter->u.weir_encryption;

    filter->driver = BLOCKDEV_DRIVER_WEIR_ENCRYPTION;
    filter->node_name = g_strdup(filter_node_name);
    opts->file = g_new0(BlockdevRef, 1);
    opts->file->type = QTYPE_QSTRING;
    opts->file->u.reference = g_strdup(node_name);
    if (header) {
        opts->header = g_new0(BlockdevRef, 1);
        opts->header->type = QTYPE_QSTRING;
        opts->header->u.reference = g_strdup(header);
    } else {
        opts->has_plain_size = true;
        opts->plain_size = plain_bytes;
    }
    opts->key_secret = g_strdup(key_secret);
    opts->has_hotzone_size = true;
    opts->hotzone_size = hotzone_bytes;
    qmp_weir_attach(node_name, filter, NULL, errp);
}

/* Returns the node that has been put above the disk, or NULL. */
static BlockDriverState *encrypt_detached(const WeirEncrypt *arg,
                                          BlockDriverState *bs,
                                          const WeirFilterJobStart *start,
                                          Error **errp)
{
    BlockDriverState *header_bs = bdrv_find_node(arg->header);
    Error *err = NULL;

    if (!header_bs) {
        error_setg(errp, "Node '%s' not found", arg->header);
        return NULL;
    }
    if (write_header(bs, header_bs, start, errp) < 0) {
        return NULL;
    }
    attach_filter(arg->node_name, arg->filter_node_name, arg->header, 0,
                  arg->key_secret, start->hotzone_bytes, &err);
    if (err) {
        error_propagate_prepend(errp, err, "The header is on node '%s', but "
                                "nothing is encrypted: ", arg->header);
        return NULL;
    }
    return bdrv_find_node(arg->filter_node_name);
}

/* The header is made by the node, while that passes everything through. */
static BlockDriverState *encrypt_attached(const WeirEncrypt *arg,
                                          BlockDriverState *bs,
                                          const WeirFilterJobStart *start,
                                          Error **errp)
{
    int64_t bytes = length_of(bs, errp);
    BlockDriverState *crypt;
    Error *err = NULL;

    if (bytes < 0 || !encryption_driver(errp)) {
        return NULL;
    }
    attach_filter(arg->node_name, arg->filter_node_name, NULL, bytes,
                  arg->key_secret, start->hotzone_bytes, &err);
    if (err) {
        error_propagate(errp, err);
        return NULL;
    }
    crypt = bdrv_find_node(arg->filter_node_name);
    if (find_job_driver(crypt)->begin(crypt, start, errp) < 0) {
        qmp_weir_detach(arg->filter_node_name, NULL, false, false, &err);
        if (err) {
            warn_report_err(err);
        }
        return NULL;
    }
    return crypt;
}

static void encrypt_node(const WeirEncrypt *arg, BlockDriverState *bs,
                         const WeirFilterJobStart *start, Error **errp)
{
    Error *blocker = block_migration(bs, errp);
    BlockDriverState *crypt;

    if (!blocker) {
        return;
    }
    crypt = arg->header ? encrypt_detached(arg, bs, start, errp)
                        : encrypt_attached(arg, bs, start, errp);
    if (crypt) {
        start_job(crypt, arg->job_id, arg->has_speed ? arg->speed
                                                     : SPEED_DEFAULT,
                  blocker, errp);
    } else {
        unblock_migration(&blocker);
    }
}

static void encrypt(const WeirEncrypt *arg, const WeirFilterJobStart *start,
                    Error **errp)
{
    BlockDriverState *bs = bdrv_find_node(arg->node_name);

    if (!bs) {
        error_setg(errp, "Node '%s' not found", arg->node_name);
    } else if (bdrv_find_node(arg->filter_node_name)) {
        error_setg(errp, "Node name '%s' is in use", arg->filter_node_name);
    } else if (check_arguments(arg->job_id, start, errp)) {
        encrypt_node(arg, bs, start, errp);
    }
}

void qmp_weir_encrypt(WeirEncrypt *arg, Error **errp)
{
    const WeirFilterJobStart start = {
        .mode = WEIR_ENCRYPTION_JOB_MODE_ENCRYPT,
        .key_secret = arg->key_secret,
        .kdf = qapi_WeirEncrypt_base(arg),
        .sector_bytes = arg->has_sector_size ? arg->sector_size
                                             : SECTOR_DEFAULT,
        .hotzone_bytes = arg->has_hotzone_size ? arg->hotzone_size
                                               : WEIR_HOTZONE_BYTES_DEFAULT,
    };

    encrypt(arg, &start, errp);
}
