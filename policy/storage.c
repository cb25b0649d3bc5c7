/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "programs.h"
#include "units.h"

/* Behind the end of a file by this nobody can have written anything. */
#define STORAGE_GAP_BYTES ((off_t)1 << 40)
#define STORAGE_ALIGN_BYTES ((off_t)1 << 20)

enum { STORAGE_ANY, STORAGE_REQUIRED };

static const cyaml_strval_t storage_drivers[] = {
    { "file", 0 }, { "host_device", 1 }, { "nbd", 2 },
    { "iscsi", 3 }, { "rbd", 4 },
};

static const cyaml_strval_t storage_demands[] = {
    { "any", STORAGE_ANY }, { "required", STORAGE_REQUIRED },
};

static const char *const storage_rules[] = {
    [WEIR_STORAGE_DRIVER] = "driver",
    [WEIR_STORAGE_DISCARD] = "discard",
    [WEIR_STORAGE_DIRECT_IO] = "direct-io",
    [WEIR_STORAGE_MIN_SIZE] = "min-size",
};

static const cyaml_schema_value_t storage_driver = {
    CYAML_VALUE_ENUM(CYAML_FLAG_STRICT, uint32_t, storage_drivers,
                     G_N_ELEMENTS(storage_drivers)),
};

static const cyaml_schema_field_t storage_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("driver",
                               CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                               WeirStorageDocument, drivers, driver_count,
                               &storage_driver, 0, CYAML_UNLIMITED),
    CYAML_FIELD_ENUM_PTR("discard",
                         CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL |
                         CYAML_FLAG_STRICT, WeirStorageDocument, discard,
                         storage_demands, G_N_ELEMENTS(storage_demands)),
    CYAML_FIELD_ENUM_PTR("direct-io",
                         CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL |
                         CYAML_FLAG_STRICT, WeirStorageDocument, direct_io,
                         storage_demands, G_N_ELEMENTS(storage_demands)),
    CYAML_FIELD_STRING_PTR("min-size",
                           CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                           WeirStorageDocument, min_size, 0, CYAML_UNLIMITED),
    CYAML_FIELD_END
};

cyaml_schema_value_t weir_storage_schema(void)
{
    return (cyaml_schema_value_t) {
        CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, WeirStorageDocument,
                            storage_fields),
    };
}

void weir_storage_validate(const WeirYaml *storage, WeirReport *report)
{
    const WeirYaml *drivers = weir_yaml_member(storage, "driver");
    const WeirYaml *min_size = weir_yaml_member(storage, "min-size");

    if (drivers && drivers->values->len == 0) {
        weir_report(report, drivers, "found no driver, expected at least one "
                    "for 'storage.driver'");
    }
    if (min_size && weir_parse_bytes(min_size->text) == 0) {
        weir_report(report, min_size, "found size '%s', expected "
                    WEIR_BYTES_EXPECTED " for 'storage.min-size'",
                    min_size->text);
    }
}

WeirStorage *weir_storage_new(const WeirStorageDocument *document,
                              const WeirYaml *storage)
{
    WeirStorage *rules = g_new0(WeirStorage, 1);

    if (document->drivers) {
        rules->drivers = g_new0(char *, document->driver_count + 1);
    }
    for (uint64_t i = 0; i < document->driver_count; i++) {
        rules->drivers[i] = g_strdup(storage_drivers[document->drivers[i]].str);
    }
    rules->discard = document->discard &&
                     *document->discard == STORAGE_REQUIRED;
    rules->direct_io = document->direct_io &&
                       *document->direct_io == STORAGE_REQUIRED;
    rules->min_bytes = document->min_size
                       ? (guint64)weir_parse_bytes(document->min_size) : 0;
    for (guint i = 0; i < WEIR_STORAGE_RULES; i++) {
        const WeirYaml *at = weir_yaml_member(storage, storage_rules[i]);

        if (at) {
            rules->at[i] = g_strdup_printf("%s:%u:%u", at->file, at->line,
                                           at->column);
        }
    }
    return rules;
}

void weir_storage_free(WeirStorage *storage)
{
    if (storage) {
        g_strfreev(storage->drivers);
        for (guint i = 0; i < WEIR_STORAGE_RULES; i++) {
            g_free(storage->at[i]);
        }
        g_free(storage);
    }
}

JsonObject *weir_storage_json(const WeirStorage *storage)
{
    JsonObject *object = json_object_new();

    if (storage->drivers) {
        JsonArray *drivers = json_array_new();

        for (char **driver = storage->drivers; *driver; driver++) {
            json_array_add_string_element(drivers, *driver);
        }
        json_object_set_array_member(object, "driver", drivers);
    }
    json_object_set_boolean_member(object, "discard", storage->discard);
    json_object_set_boolean_member(object, "direct-io", storage->direct_io);
    json_object_set_int_member(object, "min-size",
                               (gint64)storage->min_bytes);
    return object;
}

/* --- what there is --- */

static char *storage_probe_device_discard(const struct stat *file_stat)
{
    for (guint i = 0; i < 2; i++) {     /* a disk, or a part of one */
        g_autofree char *path = g_strdup_printf(
            "/sys/dev/block/%u:%u/%squeue/discard_max_bytes",
            major(file_stat->st_rdev), minor(file_stat->st_rdev),
            i ? "../" : "");
        g_autofree char *text = NULL;

        if (g_file_get_contents(path, &text, NULL, NULL)) {
            return g_ascii_strtoull(text, NULL, 10) > 0
                ? NULL : g_strdup("a device that does not take discards");
        }
    }
    return g_strdup("a device of which the kernel tells nothing");
}

/*
 * Try to punch a hole where the file has nothing: far behind its end, so that
 * nothing can be lost, even if it grows at this moment.
 */
static char *storage_probe_file_discard(int fd, const struct stat *file_stat)
{
    off_t end = file_stat->st_size / STORAGE_ALIGN_BYTES * STORAGE_ALIGN_BYTES;
    int ret;

    do {
        ret = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        end + STORAGE_GAP_BYTES, STORAGE_ALIGN_BYTES);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0) {
        return g_strdup_printf("a file system that does not punch holes (%s)",
                               g_strerror(errno));
    }
    return NULL;
}

/* Why discards do not work, or NULL. */
static char *storage_probe_discard(const WeirDisk *disk)
{
    struct stat file_stat;
    char *reason;
    int fd;

    if (!disk->discard) {
        return g_strdup("a disk with discard=ignore");
    }
    if (disk->remote) {
        return g_strdup("storage on a server, which does not tell");
    }
    fd = open(disk->file, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &file_stat) < 0) {
        reason = g_strdup_printf("that it cannot be written to (%s)",
                                 g_strerror(errno));
    } else if (S_ISBLK(file_stat.st_mode)) {
        reason = storage_probe_device_discard(&file_stat);
    } else {
        reason = storage_probe_file_discard(fd, &file_stat);
    }
    if (fd >= 0) {
        close(fd);
    }
    return reason;
}

static char *storage_probe_direct_io(const WeirDisk *disk)
{
    int fd;

    if (disk->remote) {
        return NULL;        /* no page cache of this host is between */
    }
    fd = open(disk->file, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return g_strdup_printf("that it cannot be opened with O_DIRECT (%s)",
                               g_strerror(errno));
    }
    close(fd);
    return NULL;
}

bool weir_storage_probe(const WeirDisk *disk, const char *bin_dir,
                        WeirStorageFacts *facts, GError **error)
{
    JsonObject *info = weir_disk_info(disk, true, bin_dir, error);

    memset(facts, 0, sizeof(*facts));
    if (!info) {
        return false;
    }
    facts->driver = weir_disk_driver(disk);
    facts->bytes = (guint64)weir_json_int(info, "virtual-size", 0);
    facts->no_discard = storage_probe_discard(disk);
    facts->no_direct_io = storage_probe_direct_io(disk);
    json_object_unref(info);
    return true;
}

void weir_storage_facts_clear(WeirStorageFacts *facts)
{
    g_free(facts->no_discard);
    g_free(facts->no_direct_io);
}

/* --- both compared --- */

static void storage_refuse(const WeirStorage *storage, WeirStorageRule rule,
                           const char *disk, GString *text, const char *found,
                           const char *expected)
{
    g_autofree char *line = g_strdup_printf(
        "disk %s: found %s, expected %s for 'storage.%s'", disk, found,
        expected, storage_rules[rule]);
    g_autofree char *printable = weir_printable(line);

    g_string_append_printf(text, "%s%s: %s", text->len ? "\n" : "",
                           storage->at[rule], printable);
}

static void storage_compare_driver(const WeirStorage *storage,
                                   const WeirStorageFacts *facts,
                                   const char *disk, GString *text)
{
    g_autofree char *list = g_strjoinv(", ", storage->drivers);
    g_autofree char *expected = g_strconcat(storage->drivers[1] ? "one of "
                                                                : "", list,
                                            NULL);

    if (!g_strv_contains((const char *const *)storage->drivers,
                         facts->driver)) {
        storage_refuse(storage, WEIR_STORAGE_DRIVER, disk, text, facts->driver,
                       expected);
    }
}

bool weir_storage_compare(const WeirStorage *storage,
                          const WeirStorageFacts *facts, const char *disk,
                          GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    if (storage->drivers) {
        storage_compare_driver(storage, facts, disk, text);
    }
    if (storage->discard && facts->no_discard) {
        storage_refuse(storage, WEIR_STORAGE_DISCARD, disk, text,
                       facts->no_discard, "discards to work");
    }
    if (storage->direct_io && facts->no_direct_io) {
        storage_refuse(storage, WEIR_STORAGE_DIRECT_IO, disk, text,
                       facts->no_direct_io, "direct I/O to be possible");
    }
    if (facts->bytes < storage->min_bytes) {
        g_autofree char *found = g_strdup_printf(
            "%" G_GUINT64_FORMAT " bytes", facts->bytes);
        g_autofree char *expected = g_strdup_printf(
            "at least %" G_GUINT64_FORMAT, storage->min_bytes);

        storage_refuse(storage, WEIR_STORAGE_MIN_SIZE, disk, text, found,
                       expected);
    }
    if (text->len > 0) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            text->str);
    }
    return text->len == 0;
}

bool weir_storage_check(const WeirStorage *storage, const WeirDisk *disk,
                        const char *bin_dir, GError **error)
{
    g_auto(WeirStorageFacts) facts = { 0 };
    g_autofree char *name = g_strdup_printf("%s (%s)", disk->id, disk->file);

    return !storage ||
           (weir_storage_probe(disk, bin_dir, &facts, error) &&
            weir_storage_compare(storage, &facts, name, error));
}
