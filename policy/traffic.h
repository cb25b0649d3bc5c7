/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How many requests a disk has had. */
#ifndef WEIR_TRAFFIC_H
#define WEIR_TRAFFIC_H

#include "compliance.h"

typedef enum WeirTrafficKind {
    WEIR_TRAFFIC_READ,
    WEIR_TRAFFIC_WRITE,
    WEIR_TRAFFIC_DISCARD,
    WEIR_TRAFFIC_FLUSH,
    WEIR_TRAFFIC_KINDS,
} WeirTrafficKind;

typedef struct WeirTraffic {
    bool known;
    struct {
        gint64 requests;    /* that have ended, failed ones included */
        gint64 failed;
        gint64 bytes;
        gint64 latency_ns;  /* sum */
    } kinds[WEIR_TRAFFIC_KINDS];
} WeirTraffic;

/* "read", "write", "discard" or "flush". */
const char *weir_traffic_name(WeirTrafficKind kind);

/*
 * What a disk's guest device has counted; or, where there is none, the highest
 * filter.
 *
 * @blockstats: as of WeirTarget; NULL is fine
 */
WeirTraffic weir_traffic_read(const WeirDiskStatus *status,
                              JsonNode *blockstats);

#endif
