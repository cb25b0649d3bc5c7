/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_REPLICATION_LEAVE_H
#define WEIR_REPLICATION_LEAVE_H

#include <stdint.h>

#include "replication/superblock.h"

/*
 * What a writer tells the keeper when its session has ended and nothing of it
 * is under way (docs/weir-replication-log.md): a write to WEIR_LOG_LEAVE_OFFSET
 * that goes to no disk. Nothing here does I/O, allocates or locks.
 */

#define WEIR_LOG_LEAVE_OFFSET 8192
#define WEIR_LOG_LEAVE_BYTES 4096

/* buf: WEIR_LOG_LEAVE_BYTES. group: WEIR_LOG_UUID_BYTES. */
void weir_log_leave_write(uint8_t *buf, const uint8_t *group,
                          uint64_t session);

/* group, session: set on success. Returns 0; -EINVAL: it is none, or damaged */
int weir_log_leave_read(const uint8_t *buf, uint8_t *group, uint64_t *session);

#endif
