/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "outdated.h"

#include <string.h>

#include "digest.h"

/* Why @disk is out of date, to be freed; or NULL. */
static char *outdated_reason(const WeirRecordDisk *disk, char *const *dirs,
                             const WeirSchema *schema)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirPolicy) policy = weir_policy_find(
        dirs ? dirs : disk->policy_dirs, disk->policy, schema, &error);
    g_autofree char *digest = policy ? weir_policy_digest(policy) : NULL;

    if (!policy) {
        return g_strdup(error->message);
    }
    if ((gint64)policy->version != disk->policy_version) {
        return g_strdup_printf("version %" G_GINT64_FORMAT " of the policy was "
                               "applied, %s is version %" G_GUINT64_FORMAT,
                               disk->policy_version, policy->file,
                               policy->version);
    }
    if (strcmp(digest, disk->policy_digest) != 0) {
        return g_strdup_printf("%s has changed since it was applied, but not "
                               "its version", policy->file);
    }
    return NULL;
}

static WeirDiskStatus *outdated_find(GPtrArray *statuses, const char *vm,
                                     const char *disk)
{
    for (guint i = 0; i < statuses->len; i++) {
        WeirDiskStatus *status = g_ptr_array_index(statuses, i);

        if (strcmp(status->vm, vm) == 0 && strcmp(status->disk, disk) == 0) {
            return status;
        }
    }
    return NULL;
}

/* The status of @disk if it is to be compared with its policy, or NULL. */
static WeirDiskStatus *outdated_subject(const WeirRecord *record,
                                        const WeirRecordDisk *disk,
                                        GPtrArray *statuses)
{
    WeirDiskStatus *status = outdated_find(statuses, record->name, disk->id);

    return status && status->state == WEIR_COMPLIANT && disk->policy &&
           disk->policy_digest && disk->policy_dirs ? status : NULL;
}

void weir_outdated_check(const WeirRecord *record, char *const *dirs,
                         const WeirSchema *schema, GPtrArray *statuses)
{
    for (guint i = 0; i < record->disks->len; i++) {
        const WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);
        WeirDiskStatus *status = outdated_subject(record, disk, statuses);

        if (!status) {
            continue;
        }
        status->reason = outdated_reason(disk, dirs, schema);
        if (status->reason) {
            status->state = WEIR_OUT_OF_DATE;
            status->since = 0;
        }
    }
}

void weir_outdated_unknown(const WeirRecord *record, const char *reason,
                           GPtrArray *statuses)
{
    for (guint i = 0; i < record->disks->len; i++) {
        WeirDiskStatus *status = outdated_subject(
            record, g_ptr_array_index(record->disks, i), statuses);

        if (status) {
            status->state = WEIR_UNKNOWN;
            status->since = 0;
            status->reason = g_strdup_printf("whether the policy has changed "
                                             "is not known: %s", reason);
        }
    }
}
