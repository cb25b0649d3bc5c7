/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record of a domain, carried by its QEMU: whoever may ask QEMU through
 * libvirt, from whichever machine, gets it without a way to the host's files.
 *
 * QEMU keeps texts in objects of type "secret", though this one is none: the
 * record as JSON, compressed with zlib, in Base64.
 */
#ifndef WEIR_CARRIED_H
#define WEIR_CARRIED_H

#include "qmp.h"
#include "record.h"

#define WEIR_CARRIED_ID "weir-record"

/*
 * The longest text, so that it fits into one argument of a command line: what
 * some 500 disks take.
 */
#define WEIR_CARRIED_MAX_BYTES (96u << 10)

/*
 * The argument of -object that has QEMU carry @record, to be freed; NULL if it
 * is too long.
 */
char *weir_carried_object(const WeirRecord *record);

/*
 * Ask QEMU for what it carries.
 *
 * @name: of the VM
 * Blocks.  Returns the record, which the caller frees, or NULL with @error set:
 * to WEIR_ERROR_NOT_FOUND if it carries none, to WEIR_ERROR_FAILED if that is
 * no record, else as by weir_qmp_execute().
 */
WeirRecord *weir_carried_ask(WeirQmp *qmp, const char *name, int timeout_ms,
                             GError **error);

/*
 * Have QEMU carry @record from now on, or nothing if it is too long.  Which
 * process it is stays as it is carried.
 *
 * Blocks.  Returns false with @error set as by weir_qmp_execute().
 */
bool weir_carried_put(WeirQmp *qmp, const WeirRecord *record, int timeout_ms,
                      GError **error);

#endif
