/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of assignments and weir.yaml, cut at a form feed.
 *
 *   fuzz-assign tests/fuzz/assign
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "assign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_choose(const WeirAssignments *assignments, const char *vm,
                        const char *disk)
{
    g_auto(WeirChoice) choice = { 0 };
    g_autoptr(GError) error = NULL;

    if (!weir_assignments_choose(assignments, vm, disk, &choice, &error)) {
        g_assert(error && error->code == WEIR_ERROR_POSITION);
    } else {
        g_assert(choice.reason && (!choice.policy || choice.at));
        g_assert(!choice.policy || weir_name_ok(choice.policy,
                                                WEIR_POLICY_MAX_NAME));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(WeirAssignments) assignments = weir_assignments_new("/d");
    const uint8_t *cut = size ? memchr(data, '\f', size) : NULL;
    gsize length = cut ? (gsize)(cut - data) : size;
    g_autoptr(GError) error = NULL;

    if (!weir_assignments_add(assignments, (const char *)data, length, "a",
                              &error) ||
        (cut && !weir_assignments_set_default(
                    assignments, (const char *)cut + 1, size - length - 1, "w",
                    &error))) {
        g_assert(error && error->code == WEIR_ERROR_POSITION);
        return 0;
    }
    fuzz_choose(assignments, "db-1", "data");
    fuzz_choose(assignments, "a", "b");
    return 0;
}
