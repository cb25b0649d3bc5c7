/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A change of a disk in use, for the files that it is made of:
 *
 *   live.c        who is connected to whom, and how the filters are afterwards
 *   liveplan.c    what is to be done
 *   livestep.c    one step, and back
 *   liverun.c     all of them, and what the record says of that
 */
#ifndef WEIR_LIVESTATE_H
#define WEIR_LIVESTATE_H

#include "binding.h"
#include "live.h"

#define WEIR_LIVE_POLL_US 50000
#define WEIR_LIVE_PATIENCE_US (2 * G_USEC_PER_SEC)
#define WEIR_LIVE_JOB "weir-detach-"

struct WeirLive {
    WeirQmp *qmp;               /* NULL: the storage daemon is away */
    int lock;                   /* of its record then; else -1 */
    WeirRecord *record;
    WeirRecordDisk *disk;       /* of @record */
    WeirGraph *graph;
    char *dir;
    WeirLiveVm vm;              /* its members that are above are not here */
    WeirLiveReport report;
    WeirPlan *plan;             /* these since weir_live_plan() */
    GPtrArray *chain;           /* of @plan */
    const WeirPolicy *policy;
    char *const *policy_dirs;
    WeirSchema *schema;         /* of the plan, with the VM's plugins */
    WeirSight sight;
    WeirChange *change;
    GArray *created;            /* bool, one for each step: it made a file */
    WeirBinding *bound;         /* that the disk had before; NULL: none */
    bool undoing;
    char *left;                 /* what is wrong with a cache that has gone */
};

/* --- live.c --- */

/* A QMP command; as weir_qmp_execute(). */
JsonNode *weir_live_execute(WeirLive *live, const char *command,
                            JsonObject *arguments, GError **error);

/* One whose answer tells nothing. */
bool weir_live_do(WeirLive *live, const char *command,
                  JsonObject *arguments, GError **error);

/* Whether it is the same VM or storage daemon still. */
bool weir_live_is_alive(const WeirLive *live);

/* Whether somebody wants this process to end. */
bool weir_live_is_interrupted(const WeirLive *live);

/* Whether the other side can still be told anything, after @error. */
bool weir_live_is_connected(const GError *error);

/* Put what the error is about in front of it. */
void weir_live_explain(const WeirLive *live, GError **error);

/* Wait for the end of a job that detaches a filter, and dismiss it. */
bool weir_live_wait_for_job(WeirLive *live, const char *id, GError **error);

/* --- livestep.c --- */

/*
 * Do one step.  @created: set if it has made a file
 * Returns false with @error set; how far it is, is not known if the other side
 * can be told nothing any more.
 */
bool weir_live_step(WeirLive *live, const WeirStep *step, bool *created,
                    GError **error);

/* Undo it; @created as it was set. */
bool weir_live_unstep(WeirLive *live, const WeirStep *step, bool created,
                      GError **error);

/* Make the file that a step is about. */
bool weir_live_create(const WeirLive *live, const WeirStep *step,
                      bool *created, GError **error);

/* See that what a filter knows of the disk from earlier is not believed. */
bool weir_live_forget(const WeirStep *step, GError **error);

#endif
