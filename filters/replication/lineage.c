/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "replication/lineage.h"

#include <string.h>

void weir_lineage_of(WeirLogOrigin *origin, const WeirSidecar *sidecar)
{
    memset(origin, 0, sizeof(*origin));
    memcpy(origin->group, sidecar->group, sizeof(origin->group));
    origin->generation = sidecar->generation;
    origin->commit = sidecar->durable;
    origin->parent = sidecar->parent;
    origin->until = sidecar->until;
    origin->writer = sidecar->writer;
    memcpy(origin->lives, sidecar->lives, sizeof(origin->lives));
}

/* Where it began may have been set back since. */
static bool are_same(const WeirLogGeneration *a, const WeirLogGeneration *b)
{
    return a->number != 0 && a->number == b->number &&
           !memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

/* What was written last to the log was written with this sidecar. */
static bool is_current(const WeirLogOrigin *other, uint32_t writer)
{
    bool is = writer == 0;

    for (int i = 0; i < WEIR_LOG_LIVES; i++) {
        is = is || other->lives[i] == writer;
    }
    return is;
}

/* One went on behind a point of the generation in which the other is. */
static WeirLineage compare_with_parent(const WeirLogOrigin *child,
                                       const WeirLogOrigin *other)
{
    return !are_same(&child->parent, &other->generation) ? WEIR_LINEAGE_APART :
           other->commit.epoch > child->until.epoch ||
           !is_current(other, child->writer) ? WEIR_LINEAGE_ALL
                                                    : WEIR_LINEAGE_BOTH;
}

WeirLineage weir_lineage_compare(const WeirLogOrigin *a,
                                 const WeirLogOrigin *b)
{
    WeirLineage lineage;

    if (memcmp(a->group, b->group, sizeof(a->group))) {
        return WEIR_LINEAGE_APART;
    }
    if (are_same(&a->generation, &b->generation)) {
        return memcmp(&a->commit, &b->commit, sizeof(a->commit))
               ? WEIR_LINEAGE_APART : WEIR_LINEAGE_BOTH;
    }
    lineage = compare_with_parent(a, b);
    return lineage != WEIR_LINEAGE_APART ? lineage : compare_with_parent(b, a);
}
