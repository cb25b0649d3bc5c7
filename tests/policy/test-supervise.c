/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How disks out of process are started, and started again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "supervise.h"
#include "vhostuser.h"

#define MIB ((guint64)1 << 20)

static WeirRecordDisk *make_disk(const char *id)
{
    WeirRecordDisk *disk = g_new0(WeirRecordDisk, 1);

    disk->id = g_strdup(id);
    disk->wanted = g_ptr_array_new();
    return disk;
}

/* Add a node below the others; @options: more of them, or "" */
static void add_node(GPtrArray *wanted, const char *name, const char *options)
{
    g_autofree char *text = g_strdup_printf("{\"node-name\":\"%s\"%s}", name,
                                            options);
    g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);
    WeirWanted *one = g_new0(WeirWanted, 1);

    one->node_name = g_strdup(name);
    one->options = json_object_ref(weir_json_as_object(node));
    g_ptr_array_add(wanted, one);
}

static void add_own_node(WeirWanted *wanted, const char *name)
{
    JsonObject *node = json_object_new();

    json_object_set_string_member(node, "node-name", name);
    wanted->nodes = json_array_new();
    json_array_add_object_element(wanted->nodes, node);
}

static void free_nodes(GPtrArray *wanted)
{
    for (guint i = 0; i < wanted->len; i++) {
        WeirWanted *one = g_ptr_array_index(wanted, i);

        g_free(one->node_name);
        json_object_unref(one->options);
        g_clear_pointer(&one->nodes, json_array_unref);
        g_free(one);
    }
    g_ptr_array_unref(wanted);
}

static void free_disk(WeirRecordDisk *disk)
{
    free_nodes(disk->wanted);
    g_free(disk->id);
    g_free(disk);
}

static void test_delay(void **state)
{
    (void)state;
    assert_int_equal(weir_supervise_delay_ms(0), 100);
    assert_int_equal(weir_supervise_delay_ms(1), 200);
    assert_int_equal(weir_supervise_delay_ms(8), 25600);
    assert_int_equal(weir_supervise_delay_ms(9), 30000);
    /* it does not give up: the guest waits */
    assert_int_equal(weir_supervise_delay_ms(60), 30000);
    assert_int_equal(weir_supervise_delay_ms(G_MAXINT64), 30000);
}

/* The arguments behind that option, in a row. */
static char *options_of(const GPtrArray *args, const char *option)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i + 1 < args->len - 1; i++) {
        if (strcmp(g_ptr_array_index(args, i), option) == 0) {
            g_string_append_printf(text, "%s\n",
                                   (char *)g_ptr_array_index(args, i + 1));
        }
    }
    return g_string_free(text, FALSE);
}

/* A node that two disks have is opened once, whoever comes first. */
static void test_shared_nodes(void **state)
{
    WeirRecordDisk *a = make_disk("a");
    WeirRecordDisk *b = make_disk("b");
    g_autoptr(GPtrArray) disks = g_ptr_array_new();
    g_autoptr(GPtrArray) secrets = g_ptr_array_new();
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    WeirRecord record = {
        .name = (char *)"vm", .disks = disks, .secrets = secrets,
        .sockets = (char *)"/run/vm.disks",
    };
    g_autoptr(GPtrArray) args = NULL;
    g_autofree char *nodes = NULL;
    g_autofree char *exports = NULL;

    (void)state;
    add_node(a->wanted, "a-top", ",\"log\":\"log\",\"read-only\":true");
    add_own_node(g_ptr_array_index(a->wanted, 0), "log");
    add_node(b->wanted, "b-top", ",\"log\":{\"node-name\":\"log\"}");
    b->iothread = (char *)"io";
    b->writethrough = true;
    g_ptr_array_add(disks, a);
    g_ptr_array_add(disks, b);
    args = weir_supervise_args("qsd", &record, 7, fds);
    nodes = options_of(args, "--blockdev");
    assert_string_equal(nodes, "{\"node-name\":\"log\"}\n"
                        "{\"node-name\":\"a-top\",\"log\":\"log\","
                        "\"read-only\":true}\n"
                        "{\"node-name\":\"b-top\",\"log\":\"log\"}\n");
    exports = options_of(args, "--export");
    assert_non_null(strstr(exports, "\"node-name\":\"a-top\",\"writable\":"
                           "false,\"writethrough\":false"));
    assert_non_null(strstr(exports, "\"node-name\":\"b-top\",\"writable\":"
                           "true,\"writethrough\":true"));
    assert_non_null(strstr(exports, "\"iothread\":\"io\""));
    assert_non_null(strstr(exports, "\"path\":\"/run/vm.disks/b\""));
    free_disk(a);
    free_disk(b);
}

static void test_memory(void **state)
{
    static const struct {
        const char *text;
        guint64 bytes;
    } sizes[] = {
        { "512", 512 * MIB }, { "512M", 512 * MIB }, { "2G", 2048 * MIB },
        { "2g", 2048 * MIB }, { "1.5G", 1536 * MIB }, { "1024K", MIB },
        { "size=1G,slots=2,maxmem=4G", 1024 * MIB }, { "4097B", 8192 },
        { "", 0 }, { "x", 0 }, { "-1", 0 }, { "0", 0 }, { "1X", 0 },
        { "1MB", 0 }, { "slots=2", 0 }, { "2000P", 0 },
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(sizes); i++) {
        assert_int_equal(weir_vhostuser_memory_bytes(sizes[i].text),
                         sizes[i].bytes);
    }
}

static void assert_memory(char *const *user, const char *wanted)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new_with_free_func(g_free);

    assert_true(weir_vhostuser_add_memory(args, user, NULL));
    if (!wanted) {
        assert_int_equal(args->len, 0);
        return;
    }
    assert_string_equal(g_ptr_array_index(args, 1), wanted);
    assert_string_equal(g_ptr_array_index(args, 3),
                        "memory-backend=weir-memory");
}

static void test_memory_of_the_user(void **state)
{
    char *const none[] = { (char *)"-S", NULL };
    char *const some[] = { (char *)"--m", (char *)"1G", NULL };
    char *const numa[] = { (char *)"-numa", (char *)"node,memdev=m", NULL };
    char *const own[] = {
        (char *)"-M", (char *)"q35,memory-backend=m", NULL
    };

    (void)state;
    assert_memory(none, "memory-backend-memfd,id=weir-memory,size=134217728,"
                  "share=on");
    assert_memory(some, "memory-backend-memfd,id=weir-memory,size=1073741824,"
                  "share=on");
    assert_memory(numa, NULL);
    assert_memory(own, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delay), cmocka_unit_test(test_shared_nodes),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_memory_of_the_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
