/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "rollback.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "bound.h"
#include "cachefile.h"
#include "change.h"
#include "location.h"
#include "sidecar.h"

#define ROLLBACK_ENCRYPTION "weir-encryption"

static WeirClass rollback_class(const WeirWanted *wanted)
{
    return strcmp(wanted->driver, "weir-cache") == 0 ? WEIR_CLASS_CACHE :
           strcmp(wanted->driver, "weir-replication") == 0
           ? WEIR_CLASS_REPLICATION :
           strcmp(wanted->driver, ROLLBACK_ENCRYPTION) == 0
           ? WEIR_CLASS_ENCRYPTION : WEIR_CLASS_OTHER;
}

static bool rollback_same_text(const WeirWanted *a, const WeirWanted *b,
                               const char *option)
{
    return g_strcmp0(weir_json_string(a->settings, option),
                     weir_json_string(b->settings, option)) == 0;
}

/* Whether what one knows of the disk is true for the other as well. */
static bool rollback_agree(const WeirWanted *a, const WeirWanted *b)
{
    WeirClass class = rollback_class(a);
    g_autofree char *memory_a = weir_change_memory(class, a->settings);
    g_autofree char *memory_b = weir_change_memory(class, b->settings);
    g_autofree char *kind_a = weir_wanted_kind(a);
    g_autofree char *kind_b = weir_wanted_kind(b);

    return strcmp(kind_a, kind_b) == 0 &&
           g_strcmp0(memory_a, memory_b) == 0 &&
           (class != WEIR_CLASS_REPLICATION ||
            (rollback_same_text(a, b, "log") &&
             rollback_same_text(a, b, "disk-id")));
}

/* The filters of @chain that @other does not have; the caller unrefs it. */
static GPtrArray *rollback_only(const GPtrArray *chain, const GPtrArray *other)
{
    GPtrArray *only = g_ptr_array_new();

    for (guint i = 0; i < chain->len; i++) {
        WeirWanted *wanted = g_ptr_array_index(chain, i);
        bool found = !wanted->place || !wanted->settings;

        for (guint j = 0; !found && j < other->len; j++) {
            const WeirWanted *one = g_ptr_array_index(other, j);

            found = one->place && rollback_agree(wanted, one);
        }
        if (!found) {
            g_ptr_array_add(only, wanted);
        }
    }
    return only;
}

static bool rollback_cache_is_dirty(const char *path)
{
    WeirCacheState state = weir_cache_file_state(path);

    /* one that was not made yet is missing */
    return state != WEIR_CACHE_WRITTEN_BACK && state != WEIR_CACHE_MISSING;
}

/* What is in it only its plugin can tell, unless nobody has written to it. */
static bool rollback_sidecar_is_used(const char *text)
{
    g_autoptr(WeirLocation) location = weir_location_parse(text, NULL);
    int fd = location && location->path
        ? open(location->path, O_RDONLY | O_CLOEXEC) : -1;
    bool used = fd >= 0 ? lseek(fd, 0, SEEK_DATA) >= 0 || errno != ENXIO
                        : !location || !location->path || errno != ENOENT;

    if (fd >= 0) {
        close(fd);
    }
    return used;
}

/* Where one of @filters may have what the disk lacks, to be freed; or NULL. */
static char *rollback_dirty(const GPtrArray *filters)
{
    for (guint i = 0; i < filters->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(filters, i);
        WeirClass class = rollback_class(wanted);
        g_autofree char *path = weir_change_memory(class, wanted->settings);
        const char *sidecar = weir_json_string(wanted->settings, "sidecar");

        if (class == WEIR_CLASS_CACHE && path &&
            rollback_cache_is_dirty(path)) {
            return g_steal_pointer(&path);
        }
        if (wanted->holds_data && sidecar &&
            rollback_sidecar_is_used(sidecar)) {
            return g_strdup(sidecar);
        }
    }
    return NULL;
}

bool weir_rollback_is_decrypted(const WeirRecordDisk *disk,
                                const WeirWanted *wanted)
{
    WeirBound bound = {
        .driver = wanted->driver, .settings = wanted->settings,
        .place = g_strcmp0(wanted->place,
                           weir_place_name(WEIR_PLACE_DISK)) == 0
                 ? WEIR_PLACE_DISK : WEIR_PLACE_STORAGE,
    };
    const char *format = NULL;
    g_autofree char *reason = NULL;

    if (rollback_class(wanted) != WEIR_CLASS_ENCRYPTION ||
        !wanted->settings) {
        return false;
    }
    for (guint i = 0; i < disk->wanted->len; i++) {
        const WeirWanted *one = g_ptr_array_index(disk->wanted, i);

        format = strcmp(one->role, "format") == 0 ? one->driver : format;
    }
    reason = weir_bound_reason(&bound, strstr(disk->file, "://") ? NULL
                               : disk->file, format ? format : "", true);
    return reason == NULL;
}

static bool rollback_has_decrypted(const WeirRecordDisk *disk,
                                   const GPtrArray *filters)
{
    for (guint i = 0; i < filters->len; i++) {
        if (weir_rollback_is_decrypted(disk, g_ptr_array_index(filters, i))) {
            return true;
        }
    }
    return false;
}

/* The disk goes on without these. */
static bool rollback_forget(const GPtrArray *filters, GError **error)
{
    for (guint i = 0; i < filters->len; i++) {
        const WeirWanted *wanted = g_ptr_array_index(filters, i);
        WeirClass class = rollback_class(wanted);
        g_autofree char *path = weir_change_memory(class, wanted->settings);

        if (path && !(class == WEIR_CLASS_CACHE
                      ? weir_cache_file_forget(path, error)
                      : weir_sidecar_forget_unused(
                            path, weir_json_string(wanted->settings,
                                                   "disk-id"), error))) {
            return false;
        }
    }
    return true;
}

static char *rollback_text(const WeirRecordDisk *disk, const char *name,
                           bool ended)
{
    g_autofree char *policy = name ? g_strdup_printf("policy '%s'", name)
                                   : g_strdup("no policy");

    return ended
        ? g_strdup_printf("disk %s: its change to %s had not ended, and is "
                          "ended by opening it so", disk->id, policy)
        : g_strdup_printf("disk %s: its change to %s had not ended, and is "
                          "undone", disk->id, policy);
}

static bool rollback_disk(WeirRecordDisk *disk, GPtrArray *told,
                          GError **error)
{
    const WeirRecordDisk *change = disk->change;
    g_autoptr(GPtrArray) gone = rollback_only(disk->wanted, change->wanted);
    g_autoptr(GPtrArray) come = rollback_only(change->wanted, disk->wanted);
    g_autofree char *old_data = rollback_dirty(gone);
    g_autofree char *new_data = rollback_dirty(come);
    bool end = new_data || rollback_has_decrypted(disk, gone);

    if (new_data && old_data) {
        weir_set_error(error, "disk %s: a change was interrupted, and both %s "
                       "and %s may have what was not written back: end the "
                       "VM, and see which one is that of the disk", disk->id,
                       old_data, new_data);
        return false;
    }
    if (!rollback_forget(end ? gone : come, error)) {
        g_prefix_error(error, "disk %s: ", disk->id);
        return false;
    }
    g_ptr_array_add(told, rollback_text(disk, change->policy, end));
    weir_record_end_change(disk, end);
    return true;
}

bool weir_rollback(WeirRecord *record, GPtrArray *told, GError **error)
{
    for (guint i = 0; i < record->disks->len; i++) {
        WeirRecordDisk *disk = g_ptr_array_index(record->disks, i);

        while (disk->change) {
            if (!rollback_disk(disk, told, error)) {
                return false;
            }
        }
    }
    return true;
}
