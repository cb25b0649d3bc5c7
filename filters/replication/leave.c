/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * leave, 4096 bytes; all numbers little-endian
 *
 *    0  8 magic "WEIRLEAV"             16 16 identity of the group
 *    8  4 0                            32  8 session
 *   12  4 CRC-32C, this field as 0     40    zeroes
 */
#include "replication/leave.h"

#include <errno.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"
#include "common/zero.h"

#define END 40

static const char magic[8] = { 'W', 'E', 'I', 'R', 'L', 'E', 'A', 'V' };

void weir_log_leave_write(uint8_t *buf, const uint8_t *group, uint64_t session)
{
    memset(buf, 0, WEIR_LOG_LEAVE_BYTES);
    memcpy(buf, magic, sizeof(magic));
    memcpy(buf + 16, group, WEIR_LOG_UUID_BYTES);
    le_put(buf + 32, session, 8);
    le_put(buf + 12, crc_without(buf, WEIR_LOG_LEAVE_BYTES, 12, ~0u), 4);
}

int weir_log_leave_read(const uint8_t *buf, uint8_t *group, uint64_t *session)
{
    if (memcmp(buf, magic, sizeof(magic)) ||
        le_get(buf + 12, 4) != crc_without(buf, WEIR_LOG_LEAVE_BYTES, 12,
                                           ~0u) ||
        le_get(buf + 8, 4) != 0 ||
        !weir_is_zero(buf + END, WEIR_LOG_LEAVE_BYTES - END)) {
        return -EINVAL;
    }
    memcpy(group, buf + 16, WEIR_LOG_UUID_BYTES);
    *session = le_get(buf + 32, 8);
    return 0;
}
