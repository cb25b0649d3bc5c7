/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "migration.h"

/* The "status" in the answer to a command, which the caller frees, or NULL. */
static char *migration_status(WeirQmp *qmp, const char *command,
                              int timeout_ms, GError **error)
{
    g_autoptr(JsonNode) answer = weir_qmp_execute(qmp, command, NULL,
                                                  timeout_ms, error);
    const char *status = weir_json_string(weir_json_as_object(answer),
                                          "status");

    /* no migration has begun yet */
    return answer ? g_strdup(status ? status : "none") : NULL;
}

bool weir_migration_check(WeirQmp *qmp, int timeout_ms, GError **error)
{
    static const char *const ends[] = {
        "none", "completed", "failed", "cancelled", NULL,
    };
    static const char *const moving[] = {
        "inmigrate", "finish-migrate", "colo", NULL,
    };
    g_autofree char *machine = migration_status(qmp, "query-status",
                                                timeout_ms, error);
    g_autofree char *migration =
        machine ? migration_status(qmp, "query-migrate", timeout_ms, error)
                : NULL;

    if (!migration) {
        return false;
    }
    if (g_strcmp0(machine, "postmigrate") == 0) {
        weir_set_error(error, "it has migrated, and another QEMU has its disks "
                       "now");
        return false;
    }
    if (g_strv_contains(moving, machine) ||
        !g_strv_contains(ends, migration)) {
        weir_set_error(error, "it is migrating; what is to be changed can be "
                       "when that has ended");
        return false;
    }
    return true;
}
