/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir supervise */
#include "supervise.h"

#include "weir.h"

/* The VM whose storage record is the only one of the directory, or NULL. */
static char *supervise_find(const char *dir)
{
    g_autoptr(GPtrArray) records = weir_record_list(dir);
    char *name = NULL;

    for (guint i = 0; i < records->len; i++) {
        const WeirRecord *record = g_ptr_array_index(records, i);

        if (record->is_storage && name) {
            g_free(name);
            return NULL;
        }
        if (record->is_storage) {
            name = g_strdup(record->name);
        }
    }
    return name;
}

int weir_cmd_supervise(int argc, char **argv)
{
    g_autofree char *runtime_dir = NULL;
    g_autofree char *dir = NULL;
    g_autofree char *found = NULL;
    WeirSupervise options = { .ready_fd = -1, .life_fd = -1 };
    GOptionEntry entries[] = {
        WEIR_OPTION_RUNTIME_DIR(&runtime_dir),
        { "ready-fd", 0, 0, G_OPTION_ARG_INT, &options.ready_fd,
          "Tell there that the daemon is ready, or why it is not", "FD" },
        { "life-fd", 0, 0, G_OPTION_ARG_INT, &options.life_fd,
          "End when that hangs up", "FD" },
        G_OPTION_ENTRY_NULL
    };
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "[VM]",
                    "Run the storage daemon of a VM whose disks run out of "
                    "process, in the foreground,\nand start it again when it "
                    "dies.  weir run and the hook of libvirt do that.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 2) {
        return weir_usage("supervise: found %d arguments, expected a VM",
                          argc - 1);
    }
    dir = weir_runtime_dir(runtime_dir);
    found = argc > 1 ? g_strdup(argv[1]) : supervise_find(dir);
    if (!found) {
        return weir_usage("supervise: found not exactly one storage daemon in "
                          "%s, expected a VM", dir);
    }
    options.dir = dir;
    options.name = found;
    if (!weir_name_ok(options.name, WEIR_VM_MAX_NAME)) {
        weir_set_error(&error, "'%s' cannot be the name of a VM",
                       options.name);
        return weir_fail(error);
    }
    if (weir_supervise(&options, &error)) {
        return WEIR_EXIT_OK;
    }
    return error ? weir_fail(error) : WEIR_EXIT_ERROR;
}
