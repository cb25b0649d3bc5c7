/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "established.h"

#include <string.h>

#include "gaps.h"

void weir_established_compare(WeirDiskStatus *status,
                              const WeirPledge *pledge)
{
    if (pledge->now && g_strcmp0(pledge->now, status->policy) != 0) {
        status->state = WEIR_NON_COMPLIANT;
        g_free(status->reason);
        status->reason = g_strdup_printf(
            "policy '%s' is assigned and was not established", pledge->now);
    } else if (status->state == WEIR_COMPLIANT && pledge->now &&
               g_strcmp0(pledge->now, pledge->next) != 0) {
        status->state = WEIR_OUT_OF_DATE;
        status->reason = pledge->next
            ? g_strdup_printf("it is under policy '%s' from the next start on",
                              pledge->next)
            : g_strdup("it is under no policy from the next start on");
    }
}

void weir_established_add_gaps(WeirDiskStatus *status, const char *uuid)
{
    g_autoptr(WeirGaps) gaps = weir_gaps_load(WEIR_GAPS_DIR, uuid,
                                              status->vm);
    JsonArray *array = weir_gaps_disk(gaps, status->disk);

    status->gaps = array ? json_array_ref(array) : NULL;
}
