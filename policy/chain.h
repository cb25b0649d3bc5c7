/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The nodes that put a disk under a policy. */
#ifndef WEIR_CHAIN_H
#define WEIR_CHAIN_H

#include "disk.h"
#include "policy.h"

typedef enum WeirRole {
    WEIR_ROLE_STORAGE,
    WEIR_ROLE_FILTER,
    WEIR_ROLE_FORMAT,
} WeirRole;

typedef struct WeirChainNode {
    WeirRole role;
    WeirPlace place;        /* of a filter */
    bool changes_data;      /* of a filter, see policy.h */
    bool holds_data;
    char *driver;
    char *node_name;
    JsonObject *options;    /* the argument of -blockdev, names included */
    JsonObject *settings;   /* of a filter: its options as in the policy, with
                               variables expanded; else NULL */
    JsonArray *nodes;       /* options of nodes of its own that it refers to by
                               name, see weir_plan_add_nodes(); or NULL */
} WeirChainNode;

/*
 * Work out the chain of a disk.
 *
 * Node names depend on the disk's prefix and the filters' kinds only.  QEMU
 * gives a node that is opened by reference nothing of what its parent was told,
 * so each node gets discard, cache and read-only by itself.
 *
 * @disk: the disk
 * @policy: its policy
 * @options: JsonObject, for each filter of @policy what to use in the place of
 *     its own
 * @settings: JsonObject, for each filter its settings
 * Returns WeirChainNodes from the storage node upwards, each referring only to
 * the one before; the caller unrefs the array.
 */
GPtrArray *weir_chain_new(const WeirDisk *disk, const WeirPolicy *policy,
                          const GPtrArray *options,
                          const GPtrArray *settings);

/* The name of the highest node, owned by @chain. */
const char *weir_chain_top(const GPtrArray *chain);

/*
 * Whether a node has in memory, until it is flushed, what it takes to find data
 * that was written: then a process that is killed loses it.
 */
bool weir_chain_holds_back(const GPtrArray *chain);

/*
 * A filter's part of a node name, to be freed: its driver, in short if that is
 * unique, and of a plugin its name.
 */
char *weir_chain_suffix(const char *driver, JsonObject *options);

/* "storage", "filter" or "format". */
const char *weir_role_name(WeirRole role);

/*
 * A node name of at most 31 characters from @prefix and @suffix.  A longer one
 * ends in a part of its SHA-256.  The caller frees it.
 */
char *weir_node_name(const char *prefix, const char *suffix);

#endif
