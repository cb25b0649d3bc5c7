/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The points in time of a replication log: which there are, and the job that
 * makes one of them the last.
 */
#include "qemu/osdep.h"
#include "block/block-io.h"
#include "qapi/error.h"
#include "qemu/job.h"
#include "replication/point.h"
#include "weir-journal.h"

#define NS_PER_MS 1000000
#define PROMOTE_LOOK_NS (100 * SCALE_MS)

/* --- which there are --- */

typedef struct PointList {
    WeirPointList *list, **tail;
    uint32_t left;
} PointList;

static bool add_point(void *opaque, const WeirPointInfo *info,
                      const char *const *marks)
{
    PointList *points = opaque;
    WeirPoint *point = g_new0(WeirPoint, 1);
    strList **tail = &point->marks;

    point->epoch = info->epoch;
    point->time = info->wall_ns / NS_PER_MS;
    point->application_consistent = info->application_consistent;
    for (uint32_t i = 0; i < info->marks; i++) {
        QAPI_LIST_APPEND(tail, g_strdup(marks[i]));
    }
    QAPI_LIST_APPEND(points->tail, point);
    return --points->left > 0;
}

WeirPointList *weir_journal_points(BlockDriverState *bs, uint64_t before,
                                   uint32_t limit, bool marked)
{
    BDRVWeirJournalState *s = bs->opaque;
    PointList points = { .left = limit };

    points.tail = &points.list;
    weir_point_list(s->keeper, before, marked, add_point, &points);
    return points.list;
}

/* --- promotion --- */

typedef struct PromoteJob {
    Job common;                 /* in the main loop's AioContext */
    BlockDriverState *bs;       /* set at creation; a reference */
    uint64_t epoch;             /* set at creation */
} PromoteJob;

/* Tell how far it is.  Returns what weir_keeper_applied_to() does. */
static int look(PromoteJob *job, uint64_t *before)
{
    BDRVWeirJournalState *s = job->bs->opaque;
    uint64_t done, total;
    int ret = weir_keeper_applied_to(s->keeper, job->epoch, &done, &total);

    job_progress_update(&job->common, done > *before ? done - *before : 0);
    job_progress_set_remaining(&job->common, total > done ? total - done : 0);
    *before = done;
    return ret;
}

static int coroutine_fn promote_run(Job *common, Error **errp)
{
    PromoteJob *job = container_of(common, PromoteJob, common);
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && !job_is_cancelled(common)) {
        ret = look(job, &done);
        if (ret == 0) {
            job_sleep_ns(common, PROMOTE_LOOK_NS);
        }
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "The generation has ended, but the log "
                         "cannot be applied to the base images");
    }
    return MIN(ret, 0);
}

static void promote_clean(Job *common)
{
    bdrv_unref(container_of(common, PromoteJob, common)->bs);
}

static const JobDriver promote_job_driver = {
    .instance_size = sizeof(PromoteJob),
    .job_type      = JOB_TYPE_WEIR_PROMOTE,
    .run           = promote_run,
    .clean         = promote_clean,
};

typedef struct Promotion {
    WeirKeeper *keeper;
    uint64_t epoch;
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    int ret;
} Promotion;

static void coroutine_fn promote_entry(void *opaque)
{
    Promotion *p = opaque;

    p->ret = weir_keeper_promote(p->keeper, p->epoch, p->err, sizeof(p->err));
}

/* Returns false, with @errp set, if there is no such point. */
static bool find_point(BDRVWeirJournalState *s, const char *point,
                       uint64_t *epoch, Error **errp)
{
    char err[WEIR_KEEPER_MESSAGE_BYTES];
    WeirPointName name;
    WeirPointInfo info;

    if (weir_point_parse(&name, point, err, sizeof(err)) < 0 ||
        weir_point_find(s->keeper, &name, &info, err, sizeof(err)) < 0) {
        error_setg(errp, "weir-journal: %s", err);
        return false;
    }
    *epoch = info.epoch;
    return true;
}

/*
 * The job is made first: it is what can still be refused.  The generation ends
 * before it is started, so that the command tells whether it has.
 */
void weir_journal_promote(BlockDriverState *bs, const char *job_id,
                          const char *point, Error **errp)
{
    BDRVWeirJournalState *s = bs->opaque;
    Promotion p = { .keeper = s->keeper };
    PromoteJob *job;

    if (!find_point(s, point, &p.epoch, errp)) {
        return;
    }
    job = job_create(job_id, &promote_job_driver, NULL, qemu_get_aio_context(),
                     JOB_MANUAL_DISMISS, NULL, NULL, errp);
    if (!job) {
        return;
    }
    bdrv_ref(bs);
    job->bs = bs;
    job->epoch = p.epoch;
    weir_tasks_call_and_poll(&s->tasks, promote_entry, &p);
    if (p.ret < 0) {
        error_setg(errp, "weir-journal: %s", p.err);
        bdrv_unref(bs);
        job_early_fail(&job->common);
        return;
    }
    weir_keeper_apply_to(s->keeper, p.epoch);
    job_start(&job->common);
}
