/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_PLUGIN_HOLDS_H
#define WEIR_PLUGIN_HOLDS_H

#include <stdbool.h>

#include "plugin/weir-plugin.h"

/*
 * The requests of a disk that its plugin holds.
 *
 *   weir_hold_new() --> held --weir_hold_resume()--> resumed
 *                         |
 *                         +--weir_holds_expire()---> expired
 *
 * A hold has two owners: the request, until weir_hold_end(), and the plugin,
 * until weir_hold_resume().  It has memory of its own for the data, so whoever
 * is later does no harm to the other.
 *
 * As long as there is one that is expired and not resumed, the disk is fenced:
 * the plugin is not to write to the node below, since what it writes for that
 * request would come too late.  Writes of the plugin therefore begin and end
 * here; a request that has expired ends when none is under way.
 *
 * All of this has its own lock, and may be called in any thread.
 */

typedef struct WeirHolds WeirHolds;

/* Somebody's hold; it begins with what a plugin has of it. */
typedef struct WeirPluginHeld WeirHold;

/* wake: let the owner of a request go on who was told to wait; see below. */
WeirHolds *weir_holds_new(void (*wake)(void *waiter));

/* The plugin is gone: those that it has not resumed are freed. */
void weir_holds_free(WeirHolds *holds);

/* Returns NULL if there is no memory. */
WeirHold *weir_hold_new(WeirHolds *holds, const WeirPluginRequest *request,
                        uint64_t now_ns);

/* The copy of the request, with the memory that the hold has. */
const WeirPluginRequest *weir_hold_request(const WeirHold *hold);

/*
 * Of the plugin: see weir_plugin_resume(); the hold is gone for it.  Returns 0,
 * or -ECANCELED if the hold had expired.
 */
int weir_hold_resume(WeirHold *hold, int verdict);

/*
 * Of the request: whether to wait until "wake" is called for waiter.  It is
 * called once, and may be before this has returned.
 */
bool weir_hold_must_wait(WeirHold *hold, void *waiter);

/*
 * Of the request, which has waited: whether the plugin has resumed it, and with
 * which verdict.  Returns false if it expired.
 */
bool weir_hold_verdict(WeirHold *hold, int *verdict);

/* Of the request: the hold is gone for it. */
void weir_hold_end(WeirHold *hold);

/*
 * Look at those that are held.
 *
 * deadline_ns: after which a hold is overdue; 0: never
 * expire: end them, if they are overdue
 * overdue: set to how many have become so since the last look
 * Returns when to look again, in the clock of now_ns; UINT64_MAX: if there is a
 * new one.
 */
uint64_t weir_holds_look(WeirHolds *holds, uint64_t now_ns,
                         uint64_t deadline_ns, bool expire, unsigned *overdue);

/* End all of them. */
void weir_holds_expire_all(WeirHolds *holds);

typedef struct WeirHoldsInfo {
    uint64_t held;              /* and not expired */
    uint64_t overdue;           /* of these */
    uint64_t expired;           /* and not resumed */
} WeirHoldsInfo;

void weir_holds_query(WeirHolds *holds, WeirHoldsInfo *info);

/* Whether one is expired and not resumed.  Cheap. */
bool weir_holds_fenced(const WeirHolds *holds);

/* The plugin is about to write: -ECANCELED, it may not; or 0, and then: */
int weir_holds_write_begin(WeirHolds *holds);
void weir_holds_write_end(WeirHolds *holds);

/* Whether a write that began before it was fenced is under way. */
bool weir_holds_writing(WeirHolds *holds);

#endif
