/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Change the filters of a disk in use: all of it is done, or nothing.
 *
 *   note what is to be done in the record
 *   do one step after the other            (change.h)
 *   one fails: undo those before it, the last first
 *   note that it is done, or was undone
 *
 * If this process dies in between, the note stays.  The steps are worked out
 * from the filters that are there, so whoever comes next goes on.
 *
 * A monitor serves one client at a time: who is connected is alone.
 */
#ifndef WEIR_LIVE_H
#define WEIR_LIVE_H

#include "present.h"

typedef struct WeirLive WeirLive;

/* Told what goes on; each may be NULL. */
typedef struct WeirLiveReport {
    /* A step begins, or it begins to be undone. */
    void (*step)(const WeirStep *step, bool undo);
    /* What takes long has done so much of it, 0 to 1. */
    void (*progress)(double done);
    /* It does not go on now, and why. */
    void (*trouble)(const char *reason);
} WeirLiveReport;

/* A VM that is not reached through the socket of its record. */
typedef struct WeirLiveVm {
    WeirRecord *record;
    WeirQmp *qmp;
    /* Whether it is the same QEMU still; gets @opaque. */
    bool (*is_alive)(void *opaque);
    /* The record was written; gets @opaque. */
    void (*saved)(void *opaque, const WeirRecord *record);
    void *opaque;
    gint64 uid, gid;        /* whom a file that is made belongs to; -1: us */
    /*
     * The highest filter at place storage gets this name, if no node has it;
     * NULL: there is no such wish.
     */
    char *top_name;
    bool keeps_policy;      /* the next start has the policy as well */
} WeirLiveVm;

/*
 * Connect to a VM and look at one of its disks.
 *
 * @dir: of the records
 * @vm, @disk: names
 * Blocks, also while an earlier change of the disk, which was interrupted,
 * detaches a filter.  Returns what the caller frees with weir_live_free(), or
 * NULL with @error set.
 */
WeirLive *weir_live_open(const char *dir, const char *vm, const char *disk,
                         const WeirLiveReport *report, GError **error);

/*
 * The same for a VM that somebody else runs.  Its filters below a backing file
 * stay where they are, but for caches and plugins that keep something: what
 * they have goes down.  The caller keeps others from changing it.
 *
 * @vm: is consumed, what it points to as well, but for @opaque
 */
WeirLive *weir_live_open_vm(const char *dir, WeirLiveVm *vm, const char *disk,
                            const WeirLiveReport *report, GError **error);

/* NULL is fine. */
void weir_live_free(WeirLive *live);

/* The record of the VM, and of the disk; owned by @live. */
const WeirRecord *weir_live_record(const WeirLive *live);
const WeirRecordDisk *weir_live_disk(const WeirLive *live);

/*
 * Work out what brings the disk under a policy.
 *
 * @policy: NULL for none: then only filters that a policy has brought go
 * @dirs: where policies are looked for
 * @schema: the installed filters; must outlive @live
 * Returns the change, owned by @live, or NULL with @error set if it cannot be
 * done in use.
 */
const WeirChange *weir_live_plan(WeirLive *live, const WeirPolicy *policy,
                                 char *const *dirs, const WeirSchema *schema,
                                 GError **error);

/* Whether the disk and its record are what was planned already. */
bool weir_live_complies(const WeirLive *live);

/*
 * Do what was planned.  SIGINT, SIGTERM and SIGHUP, which the caller has
 * blocked, make it fail.
 *
 * Blocks.  Returns false with @error set: to WEIR_ERROR_HALFWAY if some of it
 * is done, otherwise everything is as before.
 */
bool weir_live_run(WeirLive *live, GError **error);

/*
 * What is not well with the filters that the disk has now: a log that cannot be
 * reached is no reason not to attach a replication.  Blocks for up to some
 * seconds.  Returns texts (char *), none if all is well or that is not known;
 * the caller unrefs the array.
 */
GPtrArray *weir_live_ails(WeirLive *live);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirLive, weir_live_free)

#endif
