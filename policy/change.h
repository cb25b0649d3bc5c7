/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The steps that bring the filters of a disk in use from what they are to what
 * they should be.  Nothing is done here: see live.h.
 *
 *   1  what an interrupted change has left is closed
 *   2  filters that are attached anew are detached     the highest first
 *   3  files are made and opened, filters attached     the lowest first
 *   4  options are changed
 *   5  other filters that are not wanted are detached  the highest first, but
 *      last those that cannot be put back
 *
 * A filter's own nodes, such as the file of a cache, are opened before it and
 * closed after it.  Attaching, which fails most, comes before what only goes;
 * and the disk is without a filter for a moment only if it has it before and
 * afterwards, with options that cannot be changed otherwise.
 */
#ifndef WEIR_CHANGE_H
#define WEIR_CHANGE_H

#include "chain.h"
#include "location.h"
#include "mutable.h"

/* A filter that the disk has. */
typedef struct WeirPresent {
    char *kind;             /* see kind.h */
    char *node_name;
    char *child;            /* the option that names the filtered node */
    WeirPlace place;
    bool backing;           /* only below a backing file: no write passes it */
    JsonObject *settings;   /* see chain.h; NULL: not known */
    JsonObject *recorded;   /* the options that it has got; NULL: not known */
    JsonObject *options;    /* to attach it again with; NULL: not known */
    JsonObject *opened;     /* to reopen it with, as it is; NULL: not known */
    GPtrArray *owned;       /* JsonObject: options of the nodes that only it
                               uses, and that stay when it goes */
    bool unsure;            /* it may have been reopened with others since */
    WeirClass class;
    bool holds_data;        /* of a plugin: the disk may lack some */
    bool keeps;             /* of a plugin: it has data, or a node, that
                               another one of the kind would have to have */
    char *memory;           /* see weir_change_memory(); NULL: it has none */
    char *stays;            /* why it cannot be detached; NULL: it can */
    char *note;             /* what is to be known when it goes; NULL */
    char *leaves;           /* why it cannot come back to its log; NULL */
} WeirPresent;

/* A filter that the disk should have. */
typedef struct WeirGoal {
    WeirChainNode *node;    /* its name becomes that of the filter */
    const WeirFilterType *type;
    char *refusal;          /* why it cannot be attached; NULL: it can */
    const WeirPresent *kept;    /* the filter that it is; set by
                                   weir_change_new() */
} WeirGoal;

/* What the filters stand on, and between. */
typedef struct WeirShape {
    char *root;             /* the highest node of the disk */
    char *storage;          /* the lowest one */
    GHashTable *below;      /* node name -> name of the node that it is above,
                               for all nodes from the root down and all
                               filters that are present */
    GHashTable *names;      /* a set of all node names that are in use */
    GPtrArray *leftovers;   /* char *: nodes of filters that nobody uses */
    bool has_backing;       /* it has a backing file: a snapshot was taken */
    bool keeps_policy;      /* the next start has the policy as well */
} WeirShape;

typedef enum WeirStepKind {
    WEIR_STEP_CREATE,       /* undone: the file is removed, if it was made */
    WEIR_STEP_OPEN,         /* undone: closed */
    WEIR_STEP_CLOSE,        /* undone: opened, if @options are known */
    WEIR_STEP_ATTACH,       /* undone: detached */
    WEIR_STEP_DETACH,       /* undone: attached, if @options are known */
    WEIR_STEP_REOPEN,       /* undone: reopened with @before */
} WeirStepKind;

typedef struct WeirStep {
    WeirStepKind kind;
    char *filter;           /* its kind; NULL: not known */
    char *node_name;        /* of the filter, or of the node that is opened */
    char *below;            /* the node that the filter is, or was, above */
    JsonObject *options;    /* of that node, all of them */
    JsonObject *before;
    WeirLocation *location; /* of the file */
    WeirClass class;        /* of a filter that comes or goes */
    bool holds_data;        /* of a plugin that comes or goes */
    char *memory;           /* of that; NULL: it has none */
    char *leaves;           /* of one that goes, see WeirPresent */
} WeirStep;

typedef struct WeirChange {
    GPtrArray *steps;       /* WeirStep */
    GPtrArray *notes;       /* char *: what is to be known before */
} WeirChange;

/*
 * Work out the steps.
 *
 * @present: WeirPresent, from the guest downwards, those below a backing file
 *     last
 * @goals: WeirGoal, from the guest downwards
 * @shape: becomes what it is after the last step
 * Returns the change, which the caller frees with weir_change_free(); without
 * steps there is nothing to do.  Or NULL with @error set if it cannot be done
 * while the disk is in use.
 */
WeirChange *weir_change_new(const GPtrArray *present, GPtrArray *goals,
                            WeirShape *shape, GError **error);

/* NULL is fine. */
void weir_change_free(WeirChange *change);

/*
 * Whether a filter's own node is opened before the filter, to be referred to
 * by name.  A log over NBD is opened by the filter itself: it need not be there
 * yet.
 */
bool weir_change_opens(const WeirFilterType *type, JsonObject *node);

/*
 * Path of the file in which a filter keeps what it knows of the disk, also when
 * it is away: the sidecar of a replication, the file of a cache.  To be freed;
 * NULL: it has none, or @settings are NULL.
 */
char *weir_change_memory(WeirClass class, JsonObject *settings);

/* What a step does, as in "attach weir-cache (node X) above node Y". */
char *weir_step_text(const WeirStep *step);

/* NULL is fine for these. */
void weir_present_free(WeirPresent *present);
void weir_goal_free(WeirGoal *goal);
void weir_shape_clear(WeirShape *shape);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirChange, weir_change_free)
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(WeirShape, weir_shape_clear)

#endif
