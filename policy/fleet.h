/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hosts with libvirt, whose domains are asked side by side.  A host, or a
 * domain, that says nothing delays the others until the timeout and no longer;
 * what it says later is not used, and while it owes an answer it is not asked
 * again.
 *
 * Connections stay open from one look to the next.
 */
#ifndef WEIR_FLEET_H
#define WEIR_FLEET_H

#include "target.h"

typedef struct WeirFleet WeirFleet;

/* How a host was in a look. */
typedef struct WeirHostSeen {
    char *name;
    char *dir;              /* for what is seen of its domains */
    char *reason;           /* why it could not be asked; NULL: it could */
    bool found;             /* it has domains of the name asked for */
} WeirHostSeen;

/*
 * Hosts to look at.  Nothing is connected yet.
 *
 * @uris: as of weir_hypervisor_uris()
 * @runtime_dir: where to keep what is seen of domains of other machines
 * Returns what the caller frees with weir_fleet_free().
 */
WeirFleet *weir_fleet_new(char *const *uris, const char *runtime_dir);

/*
 * NULL is fine.  Does not wait for hosts that owe an answer: what they use
 * stays until they give it.
 */
void weir_fleet_free(WeirFleet *fleet);

/* Whether it is more than this machine, so that hosts have to be told apart. */
bool weir_fleet_is_many(const WeirFleet *fleet);

/* Begin to ask all hosts, in threads.  @query: its vm, timeout and traffic */
void weir_fleet_begin(WeirFleet *fleet, const WeirTargetQuery *query);

/*
 * Wait for the answers, until the timeout of weir_fleet_begin().
 *
 * @targets: takes a WeirTarget for each domain that runs under policies, by
 *     host and name
 * Blocks.  Returns an array of WeirHostSeen that the caller unrefs.
 */
GPtrArray *weir_fleet_end(WeirFleet *fleet, GPtrArray *targets);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirFleet, weir_fleet_free)

#endif
