/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The record of a VM's storage daemon, and what has become of that. */
#ifndef WEIR_STORAGERECORD_H
#define WEIR_STORAGERECORD_H

#include "record.h"

/* A daemon that has failed so often in a row is not only away for a moment. */
#define WEIR_STORAGE_FAILURES 5

/*
 * The directory of the vhost-user sockets of disks out of process, each called
 * as its disk; to be freed.
 */
char *weir_record_sockets(const char *dir, const char *name);

/*
 * A storage record without disks.
 *
 * @dir: of the records
 * @bin_dir: as in weir_program_find()
 * @secrets: WeirSecret, that the daemon is to be given
 */
WeirRecord *weir_storage_record_new(const char *name, const char *dir,
                                    const char *bin_dir,
                                    const GPtrArray *secrets);

/*
 * As weir_record_add_disk().  Each write to it is made durable at once if the
 * chain holds back what was written, see weir_chain_holds_back(): the guest
 * goes on when the daemon is killed, and has to find it.
 */
void weir_storage_record_add_disk(WeirRecord *record, const WeirDisk *disk,
                                  const WeirPolicy *policy, char *const *dirs,
                                  const GPtrArray *chain);

/* As weir_record_load(), of the storage daemon of VM @name. */
WeirRecord *weir_record_load_storage(const char *dir, const char *name,
                                     GError **error);

/* The one of both that has @disk; that of the VM if neither has. */
WeirRecord *weir_record_load_disk(const char *dir, const char *name,
                                  const char *disk, GError **error);

/* Write what has become of the daemon of @record, a storage record. */
bool weir_record_save_daemon(const WeirRecord *record, const char *dir,
                             GError **error);

/* What has become of the daemon, as JSON that the caller unrefs. */
JsonObject *weir_storage_record_daemon_json(const WeirRecord *record);

/* The same for people, to be freed; NULL: it runs since it was started. */
char *weir_storage_record_note(const WeirRecord *record);

/*
 * Be who starts the storage daemon with that directory of sockets, which is
 * made: there is one, or two daemons would write to the same disks.
 *
 * Returns a descriptor that is to be closed, or -1 with @error set: to
 * WEIR_ERROR_CLOSED if another process is that already.
 */
int weir_record_lock_storage(const char *sockets, GError **error);

/* Whether a process is that. */
bool weir_record_storage_is_locked(const char *sockets);

/* Why a disk has failed whose daemon does not come back, to be freed; or NULL:
   it may come soon.  @reason: why it is away */
char *weir_storage_record_failure(const WeirRecord *record,
                                  const char *reason);

/*
 * Remove all that is there of its storage daemon.  Waits a while for who is
 * about to write to the record.
 */
void weir_record_remove_storage(const char *dir, const char *name);

#endif
