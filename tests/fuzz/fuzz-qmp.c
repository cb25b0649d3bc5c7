/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a QEMU that has been taken over may answer, up to what is shown of it:
 * the input is all that it says on its QMP socket.
 *
 *   fuzz-qmp tests/fuzz/qmp
 */
#include <gio/gunixinputstream.h>
#include <gio/gunixoutputstream.h>
#include <glib/gstdio.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metrics.h"
#include "top.h"

/* More than the client asks for; a peer that has ended does not hang. */
#define FUZZ_TIMEOUT_MS 10000

static const char fuzz_record[] =
    "{\"pid\":1,\"qmp\":\"/x\",\"disks\":[{\"id\":\"d\",\"file\":\"f\","
    "\"device\":\"d\",\"policy\":\"p\",\"limits\":{\"rpo-ns\":1000000000,"
    "\"dirty-bytes\":1024,\"latency-ns\":1000},\"wanted\":["
    "{\"role\":\"format\",\"driver\":\"raw\",\"node-name\":\"r\","
    "\"options\":{}},"
    "{\"role\":\"filter\",\"driver\":\"weir-encryption\",\"node-name\":\"e\","
    "\"place\":\"storage\",\"options\":{}},"
    "{\"role\":\"filter\",\"driver\":\"weir-replication\","
    "\"node-name\":\"l\",\"place\":\"storage\",\"options\":{}},"
    "{\"role\":\"filter\",\"driver\":\"weir-cache\",\"node-name\":\"c\","
    "\"place\":\"storage\",\"options\":{}},"
    "{\"role\":\"storage\",\"driver\":\"file\",\"node-name\":\"s\","
    "\"options\":{}}]}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static WeirRecord *fuzz_load_record(void)
{
    g_autofree char *dir = g_dir_make_tmp("weir-fuzz-XXXXXX", NULL);
    g_autofree char *path = weir_record_path(dir, "vm", "json");
    WeirRecord *record;

    g_assert(g_file_set_contents(path, fuzz_record, -1, NULL));
    record = weir_record_load(dir, "vm", NULL);
    g_assert(record);
    weir_record_remove(dir, "vm");
    rmdir(dir);
    return record;
}

/* A client whose peer has said @data and hung up. */
static WeirQmp *fuzz_connect(const uint8_t *data, size_t size, int *peer)
{
    g_autoptr(GInputStream) input = NULL;
    g_autoptr(GOutputStream) output = NULL;
    int fds[2];

    g_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    g_assert(write(fds[1], data, size) == (ssize_t)size);
    g_assert(shutdown(fds[1], SHUT_WR) == 0);
    input = g_unix_input_stream_new(dup(fds[0]), TRUE);
    output = g_unix_output_stream_new(fds[0], TRUE);
    *peer = fds[1];
    return weir_qmp_new(input, output, "the peer");
}

static void fuzz_check_statuses(const GPtrArray *statuses)
{
    for (guint i = 0; i < statuses->len; i++) {
        const WeirDiskStatus *status = g_ptr_array_index(statuses, i);
        JsonObject *object = weir_disk_status_json(status);
        g_autofree char *text = weir_json_object_text(object, true);
        g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);

        g_assert((status->state == WEIR_COMPLIANT) == !status->reason);
        g_assert(weir_json_as_object(node));
        json_object_unref(object);
    }
}

/* Each line begins as it should, whatever the labels are. */
static void fuzz_check_metrics(const char *text)
{
    g_assert(g_utf8_validate(text, -1, NULL));
    while (*text) {
        g_assert(g_str_has_prefix(text, "weir_") ||
                 g_str_has_prefix(text, "# HELP weir_") ||
                 g_str_has_prefix(text, "# TYPE weir_"));
        text = strchr(text, '\n') + 1;
    }
}

static void fuzz_show(WeirWatch *watch, WeirTarget *target)
{
    g_autoptr(WeirExposition) exposition = weir_exposition_new();
    g_autoptr(GPtrArray) rows = NULL;

    for (guint i = 0; i < watch->statuses->len; i++) {
        WeirTraffic traffic = weir_traffic_read(
            g_ptr_array_index(watch->statuses, i), target->blockstats);

        g_array_append_val(watch->traffics, traffic);
    }
    fuzz_check_statuses(watch->statuses);
    weir_metrics_add(exposition, watch);
    fuzz_check_metrics(weir_exposition_text(exposition));
    rows = weir_top_rows(watch, watch, 1);
    weir_top_sort(rows, WEIR_TOP_RPO, false);
    for (guint i = 0; i < rows->len; i++) {
        for (guint j = 0; j < WEIR_TOP_COLUMNS; j++) {
            g_free(weir_top_cell(g_ptr_array_index(rows, i),
                                 (WeirTopColumn)j));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static WeirRecord *record;
    WeirTarget target = { .name = (char *)"vm" };
    WeirWatch *watch = g_new0(WeirWatch, 1);
    WeirQmp *qmp;
    int peer;

    if (!record) {
        record = fuzz_load_record();
    }
    watch->targets = g_ptr_array_new();
    watch->statuses = weir_disk_statuses_new();
    watch->traffics = g_array_new(FALSE, FALSE, sizeof(WeirTraffic));
    g_ptr_array_add(watch->targets, &target);
    qmp = fuzz_connect(data, size, &peer);
    if (weir_qmp_negotiate(qmp, FUZZ_TIMEOUT_MS, NULL)) {
        target.graph = weir_graph_query(qmp, FUZZ_TIMEOUT_MS, NULL);
    }
    if (target.graph) {
        target.blockstats = weir_qmp_execute(qmp, "query-blockstats", NULL,
                                             FUZZ_TIMEOUT_MS, NULL);
        weir_compliance_graph("-", target.graph, watch->statuses);
    }
    weir_compliance_record(record, target.graph, "why", NULL,
                           watch->statuses);
    fuzz_show(watch, &target);
    weir_watch_free(watch);
    weir_graph_free(target.graph);
    g_clear_pointer(&target.blockstats, json_node_unref);
    weir_qmp_free(qmp);
    close(peer);
    return 0;
}
