/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps a log of who changed what: a line for each change, in the log before
 * the disk is changed.  Writing to a file may take its time, so it is done in a
 * thread of a pool.  When the log cannot be written to, the plugin cannot do
 * its work: the disk's option "on-error" says what happens then.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <weir-plugin.h>

typedef struct Audit {
    WeirPluginDisk *disk;
    int fd;                     /* of the log */
} Audit;

/* A line on its way into the log. */
typedef struct Line {
    int fd;
    size_t bytes;
    char text[256];
} Line;

static int audit_open(WeirPluginDisk *disk, void **handle)
{
    const char *log = weir_plugin_get_string(weir_plugin_values(disk), "log");
    Audit *audit = malloc(sizeof(*audit));

    if (!audit) {
        return -ENOMEM;
    }
    audit->disk = disk;
    audit->fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (audit->fd < 0) {
        int ret = -errno;

        weir_plugin_error(disk, "option 'log': cannot write to '%s'", log);
        free(audit);
        return ret;
    }
    *handle = audit;
    return 0;
}

static void audit_close(void *handle, WeirPluginIo *io)
{
    Audit *audit = handle;

    (void)io;
    close(audit->fd);
    free(audit);
}

/* Runs in another thread. */
static int append(void *arg)
{
    const Line *line = arg;

    return write(line->fd, line->text, line->bytes) == (ssize_t)line->bytes
           ? 0 : -EIO;
}

static int audit_change(void *handle, WeirPluginIo *io,
                        WeirPluginRequest *request)
{
    static const char *const kinds[] = { "read", "write", "zero", "discard" };
    Audit *audit = handle;
    struct timespec now;
    Line line;
    int length;

    clock_gettime(CLOCK_REALTIME, &now);
    length = snprintf(line.text, sizeof(line.text),
                      "%lld.%03ld %s %s %llu+%llu\n", (long long)now.tv_sec,
                      now.tv_nsec / 1000000, weir_plugin_disk_name(audit->disk),
                      kinds[request->kind],
                      (unsigned long long)request->offset,
                      (unsigned long long)request->bytes);
    line.fd = audit->fd;
    line.bytes = (size_t)length;
    if (weir_plugin_run(io, append, &line) < 0) {
        weir_plugin_set_state(audit->disk, WEIR_PLUGIN_STATE_DEGRADED,
                              "the log cannot be written to");
        return WEIR_PLUGIN_CANNOT;
    }
    weir_plugin_set_state(audit->disk, WEIR_PLUGIN_STATE_OK, NULL);
    return WEIR_PLUGIN_PASS;
}

static const WeirPluginOption audit_options[] = {
    {
        .name = "log",
        .help = "file that lines are appended to",
        .type = WEIR_PLUGIN_STRING,
        .flags = WEIR_PLUGIN_MANDATORY,
    },
};

static const WeirPlugin plugin = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = sizeof(audit_options) / sizeof(*audit_options),
    .options = audit_options,
    .name = "audit",
    .version = "1.0",
    .description = "logs all changes of a disk",
    .plugin_class = WEIR_PLUGIN_CLASS_INSPECTION,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .open = audit_open,
    .close = audit_close,
    .write = audit_change,
    .zero = audit_change,
    .discard = audit_change,
};
WEIR_PLUGIN_REGISTER(plugin);
