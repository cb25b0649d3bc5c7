/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of each VM that runs: a JSON file NAME.json in the runtime
 * directory, next to its QMP socket NAME.qmp.
 *
 * Disks that run out of process are in a record of their own, NAME.storage: its
 * process and its QMP socket are those of the VM's storage daemon.  Which
 * process that is now is told by who starts it again, in NAME.daemon; so no two
 * processes write the same file.
 */
#ifndef WEIR_RECORD_H
#define WEIR_RECORD_H

#include <sys/types.h>

#include "chain.h"
#include "secret.h"

/* A node as the policy wants it. */
typedef struct WeirWanted {
    char *driver;
    char *node_name;
    char *role;             /* "storage", "filter" or "format" */
    char *place;            /* of a filter: "disk" or "storage"; else NULL */
    JsonObject *options;
    JsonObject *settings;   /* see chain.h; NULL: not known */
    JsonArray *nodes;       /* likewise; NULL: none */
    bool holds_data;        /* of a plugin: the node below may lack what was
                               written */
} WeirWanted;

typedef struct WeirRecordDisk WeirRecordDisk;
struct WeirRecordDisk {
    char *id;
    char *file;
    char *device;           /* id of the guest device; NULL: none of ours */
    char *prefix;           /* of node names; NULL: not known */
    char *policy;           /* NULL: none */
    gint64 policy_version;
    WeirLimits limits;
    char *policy_digest;    /* as it was applied, see digest.h; or NULL */
    char **policy_dirs;     /* where it was found; NULL: not known */
    WeirOnError on_error;   /* of its device */
    char *iothread;         /* of its export; NULL: none */
    bool writethrough;      /* of its export, see supervise.h */
    GPtrArray *wanted;      /* WeirWanted, from the highest node downwards */
    WeirRecordDisk *change; /* what the disk is being brought to: only the
                               members of the policy, wanted, and the change
                               before, if that had not ended; NULL: all is
                               done */
};

/* See kind.h; to be freed. */
char *weir_wanted_kind(const WeirWanted *wanted);

/* What a storage daemon has lived through, see supervise.h. */
typedef struct WeirDaemonState {
    gint64 restarts;        /* how often it was started again */
    gint64 failures;        /* attempts in a row that failed; 0: it was well */
    gint64 since;           /* the last time, in seconds since 1970; or 0 */
    pid_t supervisor;       /* who starts it; 0: nobody has yet */
    char *reason;           /* why, or why it does not run; or NULL */
} WeirDaemonState;

typedef struct WeirRecord {
    char *name;
    bool is_storage;        /* of the storage daemon of the VM */
    WeirDaemonState daemon; /* of that */
    GPtrArray *secrets;     /* WeirSecret that it is given each time */
    char *sockets;          /* directory of its vhost-user sockets */
    gint64 uid, gid;        /* who is to connect to them; -1: this user */
    pid_t pid;              /* of QEMU; 0: libvirt starts it */
    gint64 start_time;      /* of that process, in clock ticks since boot */
    char *qmp;              /* path of the socket */
    char *bin_dir;          /* of QEMU's programs; NULL: not given */
    GPtrArray *disks;       /* WeirRecordDisk */
} WeirRecord;

/*
 * The directory of the records: @option if it is not NULL, /run/weir for
 * root, otherwise weir in $XDG_RUNTIME_DIR (or in /run).  The caller frees
 * it.
 */
char *weir_runtime_dir(const char *option);

/*
 * Path of a VM's record, socket or history (see history.h): @suffix is "json",
 * "qmp" or "status"; of its storage daemon "storage", "storage-qmp",
 * "storage-status", "storage-lock", "daemon", or "disks", the directory of its
 * other sockets.
 */
char *weir_record_path(const char *dir, const char *name, const char *suffix);

/* A record without disks.  @bin_dir: as in weir_program_find() */
WeirRecord *weir_record_new(const char *name, pid_t pid, const char *qmp,
                            const char *bin_dir);

/* Add what @disk is to look like.  @dirs: where policies are looked for */
void weir_record_add_disk(WeirRecord *record, const WeirDisk *disk,
                          const WeirPolicy *policy, char *const *dirs,
                          const GPtrArray *chain);

/* The disk with that id, or NULL with @error set to WEIR_ERROR_NOT_FOUND. */
WeirRecordDisk *weir_record_disk(const WeirRecord *record, const char *id,
                                 GError **error);

/*
 * The disk as --disk has described it, but for its device, which the caller
 * frees with weir_disk_free(); or NULL with @error set.
 */
WeirDisk *weir_record_describe(const WeirRecordDisk *disk, GError **error);

/*
 * Note what a disk is about to be brought to: @chain, by @policy or by none.
 * The note of an earlier change, which has not ended, stays below.
 */
void weir_record_begin_change(WeirRecordDisk *disk, const WeirPolicy *policy,
                              char *const *dirs, const GPtrArray *chain);

/* It is that now, or if not @done, what it was before, notes included. */
void weir_record_end_change(WeirRecordDisk *disk, bool done);

/* NULL is fine. */
void weir_record_free(WeirRecord *record);

/* A record as JSON, which the caller unrefs. */
JsonObject *weir_record_json(const WeirRecord *record);

/* The record of VM @name from that, or NULL if @object is none. */
WeirRecord *weir_record_from_json(const char *name, JsonObject *object);

/* Write the record of a VM to @dir, at once or not at all. */
bool weir_record_save(const WeirRecord *record, const char *dir,
                      GError **error);

/*
 * Read the record of VM @name.  Returns NULL with @error set to
 * WEIR_ERROR_NOT_FOUND if there is none, or to WEIR_ERROR_FAILED.
 */
WeirRecord *weir_record_load(const char *dir, const char *name,
                             GError **error);

/* The same, or with @is_storage the record of its storage daemon. */
WeirRecord *weir_record_read(const char *dir, const char *name,
                             bool is_storage, GError **error);

/*
 * All records in @dir, those of storage daemons too, by name; those that cannot
 * be read are left out.  The caller unrefs the array of WeirRecord.  Empty
 * without a directory.
 */
GPtrArray *weir_record_list(const char *dir);

/*
 * Whether the VM's QEMU, or storage daemon, runs, and is not another process of
 * the same number.
 */
bool weir_record_alive(const WeirRecord *record);

/* Remove all that is there of VM @name; missing files are fine. */
void weir_record_remove(const char *dir, const char *name);

/* When process @pid was started, in clock ticks since boot; -1: it is gone. */
gint64 weir_process_start_time(pid_t pid);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirRecord, weir_record_free)

#endif
