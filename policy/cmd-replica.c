/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir replica points|open|test-failover|close|verify|failover|failback|
 * seed-begin|seed
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "compare.h"
#include "failback.h"
#include "replicas.h"
#include "seed.h"
#include "table.h"
#include "weir.h"

/* What all subcommands but verify have. */
typedef struct ReplicaOptions {
    char *qmp;
    char *journal;
    char *point;
    char *name;
    char *overlay;
    char *nbd;
} ReplicaOptions;

static void replica_options_clear(ReplicaOptions *options)
{
    g_free(options->qmp);
    g_free(options->journal);
    g_free(options->point);
    g_free(options->name);
    g_free(options->overlay);
    g_free(options->nbd);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ReplicaOptions, replica_options_clear)

#define REPLICA_OPTION_QMP(options) \
    { "qmp", 0, 0, G_OPTION_ARG_FILENAME, &(options).qmp, \
      "QMP socket of the daemon that keeps the log", "SOCKET" }
#define REPLICA_OPTION_JOURNAL(options) \
    { "journal", 0, 0, G_OPTION_ARG_STRING, &(options).journal, \
      "Node name of the log, if the daemon keeps several", "NODE" }
#define REPLICA_OPTION_POINT(options) \
    { "point", 0, 0, G_OPTION_ARG_STRING, &(options).point, \
      "latest, epoch:NUMBER, time:2026-11-25T12:00:00Z or mark:NAME " \
      "(default: latest)", "POINT" }
#define REPLICA_OPTION_NAME(options) \
    { "name", 0, 0, G_OPTION_ARG_STRING, &(options).name, \
      "Name of the export (default: that of the disk)", "NAME" }
#define REPLICA_OPTION_NBD(options) \
    { "nbd", 0, 0, G_OPTION_ARG_FILENAME, &(options).nbd, \
      "Socket of the daemon's NBD server, to print the whole address", \
      "SOCKET" }

static const char *replica_point(const ReplicaOptions *options)
{
    return options->point ? options->point : "latest";
}

/* Connect, or tell why not. */
static WeirReplicas *replica_connect(const ReplicaOptions *options, int *code)
{
    GError *error = NULL;
    WeirReplicas *r;

    if (!options->qmp) {
        *code = weir_usage("--qmp is missing: the QMP socket of the daemon "
                           "that keeps the log");
        return NULL;
    }
    r = weir_replicas_connect(options->qmp, options->journal, &error);
    if (!r) {
        *code = weir_fail(error);
    }
    return r;
}

/* "2026-11-25 12:00:00.123" in UTC */
static char *replica_time(gint64 time_ms)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(time_ms / 1000);
    g_autofree char *text = time ? g_date_time_format(time, "%F %T") : NULL;

    return text ? g_strdup_printf("%s.%03d UTC", text, (int)(time_ms % 1000))
                : g_strdup("?");
}

/* --- points --- */

static char *point_marks(JsonObject *point)
{
    JsonArray *marks = weir_json_array(point, "marks");
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < weir_json_length(marks); i++) {
        const char *mark = weir_json_string_at(marks, i);

        g_string_append_printf(text, "%s%s", i ? ", " : "", mark ? mark : "?");
    }
    return g_string_free(text, FALSE);
}

static void points_print(JsonArray *points)
{
    g_autoptr(WeirTable) table = weir_table_new(4);

    weir_table_row(table, "EPOCH", "TIME", "APPLICATION", "MARKS");
    for (guint i = 0; i < weir_json_length(points); i++) {
        JsonObject *point = weir_json_object_at(points, i);
        g_autofree char *marks = point_marks(point);
        g_autofree char *time = replica_time(weir_json_int(point, "time", 0));
        g_autofree char *epoch = g_strdup_printf(
            "%" G_GINT64_FORMAT, weir_json_int(point, "epoch", 0));

        weir_table_row(table, epoch, time,
                       weir_json_bool(point, "application-consistent", false)
                       ? "consistent" : "-", marks);
    }
    weir_table_print(table);
}

static int replica_points_run(int argc, char **argv)
{
    g_auto(ReplicaOptions) options = { 0 };
    gboolean json = FALSE, marked = FALSE;
    int limit = 20, code = 0;
    GOptionEntry entries[] = {
        REPLICA_OPTION_QMP(options),
        REPLICA_OPTION_JOURNAL(options),
        { "limit", 0, 0, G_OPTION_ARG_INT, &limit,
          "So many at most; 0: all (default: 20)", "N" },
        { "marked", 0, 0, G_OPTION_ARG_NONE, &marked,
          "Only those with a mark", NULL },
        { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print JSON", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirReplicas) r = NULL;
    g_autoptr(JsonNode) points = NULL;
    g_autofree char *text = NULL;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "List the points in time of a replication log, newest "
                    "first.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1 || limit < 0) {
        return weir_usage("replica points: found '%s', expected only options "
                          "and a limit of 0 or more",
                          argc > 1 ? argv[1] : "a negative limit");
    }
    r = replica_connect(&options, &code);
    if (!r) {
        return code;
    }
    points = weir_replicas_points(r, limit, marked, &error);
    if (!points) {
        return weir_fail(error);
    }
    if (json) {
        text = weir_json_text(points, true);
        printf("%s\n", text);
    } else {
        points_print(weir_json_as_array(points));
    }
    return WEIR_EXIT_OK;
}

/* --- open, test-failover, close --- */

static void opened_print(const ReplicaOptions *options, const char *name,
                         const char *disk, JsonObject *info)
{
    g_autofree char *time = replica_time(weir_json_int(info, "time", 0));

    printf("disk %s as of %s, epoch %" G_GINT64_FORMAT ", %s\n", disk, time,
           weir_json_int(info, "epoch", 0),
           options->overlay ? "writable" : "read-only");
    if (options->nbd) {
        g_autofree char *socket = g_uri_escape_string(options->nbd, "/", FALSE);

        printf("nbd+unix:///%s?socket=%s\n", name, socket);
    } else {
        printf("NBD export %s\n", name);
    }
}

static int replica_open(const ReplicaOptions *options, const char *disk)
{
    const char *name = options->name ? options->name : disk;
    /* the daemon has a directory of its own */
    g_autofree char *overlay = options->overlay
        ? g_canonicalize_filename(options->overlay, NULL) : NULL;
    g_autoptr(WeirReplicas) r = NULL;
    g_autoptr(JsonObject) info = NULL;
    GError *error = NULL;
    int code = 0;

    r = replica_connect(options, &code);
    if (!r) {
        return code;
    }
    info = weir_replicas_open(r, name, disk, replica_point(options),
                              overlay, &error);
    if (!info) {
        return weir_fail(error);
    }
    opened_print(options, name, disk, info);
    return WEIR_EXIT_OK;
}

static int replica_open_run(int argc, char **argv)
{
    g_auto(ReplicaOptions) options = { 0 };
    GOptionEntry entries[] = {
        REPLICA_OPTION_QMP(options),
        REPLICA_OPTION_JOURNAL(options),
        REPLICA_OPTION_POINT(options),
        REPLICA_OPTION_NAME(options),
        REPLICA_OPTION_NBD(options),
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, "DISK",
                    "Export a disk, read-only, as it was at a point in time.  "
                    "Replication goes on.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2) {
        return weir_usage("replica open: found %d disks, expected one",
                          argc - 1);
    }
    return replica_open(&options, argv[1]);
}

static int replica_test_failover_run(int argc, char **argv)
{
    g_auto(ReplicaOptions) options = { 0 };
    GOptionEntry entries[] = {
        REPLICA_OPTION_QMP(options),
        REPLICA_OPTION_JOURNAL(options),
        REPLICA_OPTION_POINT(options),
        REPLICA_OPTION_NAME(options),
        REPLICA_OPTION_NBD(options),
        { "overlay", 0, 0, G_OPTION_ARG_FILENAME, &options.overlay,
          "File to make, which takes what the test writes", "FILE" },
        G_OPTION_ENTRY_NULL
    };

    if (!weir_parse(&argc, &argv, entries, "DISK",
                    "Export a disk as it was at a point in time, to start a VM "
                    "from it.  What that writes\ngoes to a file of its own; "
                    "replication goes on.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2 || !options.overlay) {
        return weir_usage("replica test-failover: expected one disk and "
                          "--overlay");
    }
    return replica_open(&options, argv[1]);
}

static int replica_close_run(int argc, char **argv)
{
    g_auto(ReplicaOptions) options = { 0 };
    GOptionEntry entries[] = {
        REPLICA_OPTION_QMP(options),
        REPLICA_OPTION_JOURNAL(options),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirReplicas) r = NULL;
    GError *error = NULL;
    int code = 0;

    if (!weir_parse(&argc, &argv, entries, "NAME",
                    "Close what open or test-failover have opened.  The file "
                    "of an overlay stays.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2) {
        return weir_usage("replica close: found %d names, expected one",
                          argc - 1);
    }
    r = replica_connect(&options, &code);
    if (!r) {
        return code;
    }
    return weir_replicas_close(r, argv[1], &error)
           ? WEIR_EXIT_OK : weir_fail(error);
}

/* --- failover, verify --- */

/* On a terminal, a line that counts up. */
static void show_progress(double done)
{
    static int last = -1;
    int percent = (int)(done * 100);

    if (isatty(STDERR_FILENO) && percent != last) {
        fprintf(stderr, "\r%3d %%%s", percent, percent >= 100 ? "\n" : "");
        last = percent;
    }
}

/* The bases are the disks now; whether the way back will be short. */
static void disks_print(WeirReplicas *r)
{
    JsonArray *disks = weir_json_array(weir_replicas_info(r), "disks");

    for (guint i = 0; i < weir_json_length(disks); i++) {
        JsonObject *disk = weir_json_object_at(disks, i);
        const char *sidecar = weir_json_string(disk, "sidecar");

        printf("disk %s is node %s%s\n", weir_json_string(disk, "disk-id"),
               weir_json_string(disk, "base") ?: "-",
               g_strcmp0(sidecar, "disk") == 0
               ? ", with its sidecar" :
               g_strcmp0(sidecar, "failed") == 0
               ? "; its sidecar could not be written: use a new one, and all "
                 "of the disk will be copied back" : "");
    }
}

static int replica_failover_run(int argc, char **argv)
{
    g_auto(ReplicaOptions) options = { 0 };
    GOptionEntry entries[] = {
        REPLICA_OPTION_QMP(options),
        REPLICA_OPTION_JOURNAL(options),
        REPLICA_OPTION_POINT(options),
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirReplicas) r = NULL;
    GError *error = NULL;
    int code = 0;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "End the source's right to write, and bring the base "
                    "images to a point in time:\nafterwards they are the "
                    "disks.  What was written after the point is lost.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("replica failover: found '%s', expected nothing",
                          argv[1]);
    }
    r = replica_connect(&options, &code);
    if (!r) {
        return code;
    }
    if (!weir_replicas_promote(r, replica_point(&options), show_progress,
                               &error) ||
        !weir_replicas_refresh(r, &error)) {
        return weir_fail(error);
    }
    disks_print(r);
    return WEIR_EXIT_OK;
}

/* --- failback --- */

static int failback(WeirFailback *f, WeirReplicas *r, bool switches)
{
    WeirFailbackResult result;
    g_autofree char *point = NULL;
    GError *error = NULL;

    if (!weir_failback_wait(f, &result, show_progress, &error)) {
        return weir_fail(error);
    }
    printf("the log has all of %u disks; %" G_GUINT64_FORMAT " bytes were "
           "sent\n", result.disks, result.sent_bytes);
    if (!switches) {
        return WEIR_EXIT_OK;
    }
    point = weir_failback_end(f, r, &error);
    if (!point ||
        !weir_replicas_promote(r, point, show_progress, &error) ||
        !weir_replicas_refresh(r, &error)) {
        return weir_fail(error);
    }
    disks_print(r);
    return WEIR_EXIT_OK;
}

static int replica_failback_run(int argc, char **argv)
{
    g_auto(ReplicaOptions) options = { 0 };
    g_autofree char *source = NULL;
    gboolean switches = FALSE;
    GOptionEntry entries[] = {
        REPLICA_OPTION_QMP(options),
        REPLICA_OPTION_JOURNAL(options),
        { "source", 0, 0, G_OPTION_ARG_FILENAME, &source,
          "QMP socket of the machine whose disks go back", "SOCKET" },
        { "switch", 0, 0, G_OPTION_ARG_NONE, &switches,
          "Then end the machine, and make the base images the disks", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(WeirReplicas) r = NULL;
    g_autoptr(WeirFailback) f = NULL;
    GError *error = NULL;
    int code = 0;

    if (!weir_parse(&argc, &argv, entries, NULL,
                    "Wait until a log that was made from the sidecars of old "
                    "disks has all that they\nlack.  With --switch, the "
                    "machine is stopped then, and what it has written last\n"
                    "is waited for: nothing is lost.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1 || !source) {
        return weir_usage("replica failback: expected --source and no "
                          "argument");
    }
    r = replica_connect(&options, &code);
    if (!r) {
        return code;
    }
    f = weir_failback_connect(source, &error);
    return f ? failback(f, r, switches) : weir_fail(error);
}

static int replica_verify_run(int argc, char **argv)
{
    GOptionEntry entries[] = { G_OPTION_ENTRY_NULL };
    WeirComparison result;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "URI URI",
                    "Compare two disks that NBD servers export, for example a "
                    "snapshot of the source and\nthe replica of the same "
                    "moment.  What is unallocated on both is not read.\n\n"
                    "Exit codes: 0 they are equal, 1 error, 2 wrong usage, 3 "
                    "they differ.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 3) {
        return weir_usage("replica verify: found %d URIs, expected two",
                          argc - 1);
    }
    if (!weir_compare(argv[1], argv[2], &result, show_progress, &error)) {
        return weir_fail(error);
    }
    printf("%" G_GUINT64_FORMAT " bytes, %" G_GUINT64_FORMAT " of them read: ",
           result.bytes, result.read_bytes);
    if (result.different_bytes == 0) {
        printf("equal\n");
        return WEIR_EXIT_OK;
    }
    printf("%" G_GUINT64_FORMAT " bytes in blocks of %d differ, the first at %"
           G_GUINT64_FORMAT "\n", result.different_bytes,
           WEIR_COMPARE_PIECE_BYTES, result.first_different);
    return WEIR_EXIT_NON_COMPLIANT;
}

/* --- seeding --- */

static int replica_seed_begin_run(int argc, char **argv)
{
    g_autofree char *disk = NULL;
    gint64 bytes = 0;
    GOptionEntry entries[] = {
        { "disk", 0, 0, G_OPTION_ARG_STRING, &disk,
          "Name of the disk in its group", "DISK" },
        { "size", 0, 0, G_OPTION_ARG_INT64, &bytes, "Its length in bytes",
          "BYTES" },
        G_OPTION_ENTRY_NULL
    };
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "FILE",
                    "Make a sidecar for a disk of which there is a copy "
                    "already.  Replicate the disk with\nit, then run weir "
                    "replica seed.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 2 || !disk || bytes <= 0) {
        return weir_usage("replica seed-begin: expected --disk, --size and one "
                          "file");
    }
    return weir_seed_begin(argv[1], disk, bytes, &error)
           ? WEIR_EXIT_OK : weir_fail(error);
}

static int replica_seed_run(int argc, char **argv)
{
    g_autofree char *source = NULL, *sidecar = NULL;
    GOptionEntry entries[] = {
        { "source-sidecar", 0, 0, G_OPTION_ARG_FILENAME, &source,
          "Sidecar of the disk, in use, or a copy of its first 8 KiB", "FILE" },
        { "sidecar", 0, 0, G_OPTION_ARG_FILENAME, &sidecar,
          "Sidecar of the copy, which is made", "FILE" },
        G_OPTION_ENTRY_NULL
    };
    WeirComparison result;
    GError *error = NULL;

    if (!weir_parse(&argc, &argv, entries, "URI URI",
                    "Compare a disk with its copy, and make a sidecar for the "
                    "copy: a log that is made\nfor both will copy only what "
                    "differs.  The disk may be written to meanwhile.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc != 3 || !source || !sidecar) {
        return weir_usage("replica seed: expected --source-sidecar, --sidecar "
                          "and two URIs");
    }
    if (!weir_seed(source, sidecar, argv[1], argv[2], &result, show_progress,
                   &error)) {
        return weir_fail(error);
    }
    printf("%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes differ\n",
           result.different_bytes, result.bytes);
    return WEIR_EXIT_OK;
}

int weir_cmd_replica(int argc, char **argv)
{
    static const WeirCommand commands[] = {
        { "points", "list the points in time of a replication log",
          replica_points_run },
        { "open", "export a disk as it was at a point in time",
          replica_open_run },
        { "test-failover", "the same, writable beside the replica",
          replica_test_failover_run },
        { "close", "close what the two have opened", replica_close_run },
        { "verify", "compare two disks", replica_verify_run },
        { "failover", "make the replica the disk", replica_failover_run },
        { "failback", "bring the disk back to where it was",
          replica_failback_run },
        { "seed-begin", "make the sidecar of a disk that was copied",
          replica_seed_begin_run },
        { "seed", "make that of the copy", replica_seed_run },
        { NULL, NULL, NULL }
    };

    return weir_dispatch(commands, "weir replica", argc, argv);
}
