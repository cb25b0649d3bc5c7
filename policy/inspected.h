/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A weir-inspect filter of a running VM, found. */
#ifndef WEIR_INSPECTED_H
#define WEIR_INSPECTED_H

#include "target.h"

#define WEIR_INSPECT_DRIVER "weir-inspect"

typedef struct WeirInspected {
    const char *vm;         /* owned by the target */
    char *disk;
    JsonObject *info;       /* its entry in query-weir, owned by the target */
    JsonObject *cache;      /* that of a weir-cache in the same chain; NULL */
    bool below_cache;       /* it sees only what that cache lets through */
} WeirInspected;

/*
 * Find them in the chains of @targets.
 *
 * @disk: only in the disk of that name; NULL: in all
 * Returns an array of WeirInspected that the caller unrefs before @targets.
 * NULL with @error set if a VM could not be asked, or to WEIR_ERROR_NOT_FOUND
 * if there is none.
 */
GPtrArray *weir_inspected_find(const GPtrArray *targets, const char *disk,
                               GError **error);

#endif
