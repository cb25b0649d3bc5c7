/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What weir-qemu makes of libvirt's command lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "emulator.h"

#define STORAGE_1 \
    "{\"driver\":\"file\",\"filename\":\"/a\",\"node-name\":" \
    "\"libvirt-1-storage\",\"auto-read-only\":true,\"discard\":\"unmap\"}"
#define FORMAT_1 \
    "{\"node-name\":\"libvirt-1-format\",\"driver\":\"qcow2\",\"file\":" \
    "\"libvirt-1-storage\",\"backing\":\"libvirt-2-format\"}"
#define STORAGE_2 \
    "{\"driver\":\"file\",\"filename\":\"/b\",\"node-name\":" \
    "\"libvirt-2-storage\"}"
#define FORMAT_2 \
    "{\"node-name\":\"libvirt-2-format\",\"driver\":\"raw\",\"file\":" \
    "\"libvirt-2-storage\"}"
#define DEVICE(drive) \
    "{\"driver\":\"virtio-blk-pci\",\"drive\":\"" drive \
    "\",\"id\":\"virtio-disk0\"}"

static void add_wanted(WeirRecordDisk *disk, const char *role,
                       const char *driver, const char *name,
                       const char *below)
{
    WeirWanted *wanted = g_new0(WeirWanted, 1);

    wanted->role = g_strdup(role);
    wanted->driver = g_strdup(driver);
    wanted->node_name = g_strdup(name);
    wanted->options = json_object_new();
    json_object_set_string_member(wanted->options, "driver", driver);
    json_object_set_string_member(wanted->options, "node-name", name);
    if (below) {
        json_object_set_string_member(wanted->options, "file", below);
    }
    g_ptr_array_add(disk->wanted, wanted);
}

/* A VM whose disk has two filters: by way of the chain's own functions. */
static WeirRecord *record_new(void)
{
    WeirRecord *record = weir_record_new("vm", 0, "", NULL);
    g_autoptr(GError) error = NULL;
    WeirDisk *disk = weir_disk_parse("file=/a,format=qcow2,id=vda,device=none",
                                     0, &error);
    WeirPolicy policy = { .name = (char *)"p", .version = 1 };
    GPtrArray *none = g_ptr_array_new();
    GPtrArray *chain;
    WeirRecordDisk *entry;

    assert_null(error);
    policy.filters = none;
    chain = weir_chain_new(disk, &policy, none, none);
    weir_record_add_disk(record, disk, &policy, (char *[]) { NULL }, chain);
    entry = g_ptr_array_index(record->disks, 0);
    entry->device = g_strdup("virtio-disk0");
    g_ptr_array_set_size(entry->wanted, 0);
    add_wanted(entry, "format", "qcow2", "weir-vda-format", "weir-vda-top");
    add_wanted(entry, "filter", "weir-top", "weir-vda-top", "weir-vda-low");
    add_wanted(entry, "filter", "weir-low", "weir-vda-low",
               "weir-vda-storage");
    add_wanted(entry, "storage", "file", "weir-vda-storage", NULL);
    g_ptr_array_unref(chain);
    g_ptr_array_unref(none);
    weir_disk_free(disk);
    return record;
}

static GPtrArray *rewrite(const char *const *args, GError **error)
{
    g_autoptr(WeirRecord) record = record_new();
    g_autoptr(GPtrArray) secrets = g_ptr_array_new();

    g_ptr_array_add(secrets, (char *)"weir-vda-key");
    return weir_emulator_rewrite((char *const *)args, record, "/s", secrets,
                                 error);
}

static void expect_chain(const char *const *args, guint index)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) out = rewrite(args, &error);

    assert_null(error);
    for (guint i = 0; args[i]; i++) {
        assert_string_equal(
            g_ptr_array_index(out, i), i != index ? args[i] :
            "{\"driver\":\"weir-top\",\"node-name\":\"libvirt-1-storage\","
            "\"file\":{\"driver\":\"weir-low\",\"node-name\":\"weir-vda-low\","
            "\"file\":{\"driver\":\"file\",\"filename\":\"/a\","
            "\"node-name\":\"weir-vda-storage\",\"auto-read-only\":true,"
            "\"discard\":\"unmap\"}}}");
    }
    assert_string_equal(
        g_ptr_array_index(out, out->len - 4),
        "{\"qom-type\":\"secret\",\"id\":\"weir-vda-key\","
        "\"file\":\"/s/weir-vda-key\"}");
    assert_string_equal(g_ptr_array_index(out, out->len - 5), "-object");
    assert_true(g_str_has_prefix(
        g_ptr_array_index(out, out->len - 2),
        "{\"qom-type\":\"secret\",\"id\":\"weir-record\","));
    assert_string_equal(g_ptr_array_index(out, out->len - 3), "-object");
    assert_null(g_ptr_array_index(out, out->len - 1));
}

static void test_chain_takes_the_place_of_the_storage_node(void **state)
{
    static const char *const args[] = {
        "/q", "-name", "guest=vm", "-blockdev", STORAGE_2, "-blockdev",
        FORMAT_2, "-blockdev", STORAGE_1, "-blockdev", FORMAT_1, "-device",
        DEVICE("libvirt-1-format"), NULL
    };

    (void)state;
    expect_chain(args, 8);
}

/* libvirt 10 and later have no format node for raw images. */
static void test_device_over_the_storage_node(void **state)
{
    static const char *const args[] = {
        "/q", "-blockdev", STORAGE_1, "-device", DEVICE("libvirt-1-storage"),
        NULL
    };

    (void)state;
    expect_chain(args, 2);
}

static void test_more_nodes_above(void **state)
{
    static const char *const args[] = {
        "/q", "-blockdev", STORAGE_1, "-blockdev", FORMAT_1, "-blockdev",
        "{\"driver\":\"copy-on-read\",\"node-name\":\"libvirt-CoR-vda\","
        "\"file\":\"libvirt-1-format\"}", "-device",
        DEVICE("libvirt-CoR-vda"), NULL
    };

    (void)state;
    expect_chain(args, 2);
}

static void test_device_as_a_list(void **state)
{
    static const char *const args[] = {
        "/q", "-blockdev", STORAGE_1, "-device",
        "ide-hd,serial=a,,drive=x,drive=libvirt-1-storage,id=virtio-disk0",
        NULL
    };

    (void)state;
    expect_chain(args, 2);
}

static void expect_error(const char *const *args, const char *message)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *out = rewrite(args, &error);

    assert_null(out);
    assert_string_equal(error->message, message);
}

static void test_what_is_not_understood(void **state)
{
    static const char *const no_device[] = {
        "/q", "-blockdev", STORAGE_1, NULL
    };
    static const char *const no_node[] = {
        "/q", "-device", DEVICE("libvirt-1-format"), NULL
    };
    static const char *const half[] = {
        "/q", "-blockdev", FORMAT_1, "-device", DEVICE("libvirt-1-format"),
        NULL
    };
    static const char *const inlined[] = {
        "/q", "-blockdev",
        "{\"driver\":\"raw\",\"node-name\":\"n\",\"file\":{\"driver\":"
        "\"file\",\"filename\":\"/a\"}}", "-device", DEVICE("n"), NULL
    };
    static const char *const circle[] = {
        "/q", "-blockdev",
        "{\"driver\":\"raw\",\"node-name\":\"n\",\"file\":\"n\"}", "-device",
        DEVICE("n"), NULL
    };
    static const char *const broken[] = {
        "/q", "-blockdev", "{", "-device", "{", "-device", NULL
    };

    (void)state;
    expect_error(no_device, "disk vda: QEMU is given no device 'virtio-disk0' "
                 "with a block node");
    expect_error(no_node, "disk vda: QEMU is given no block node "
                 "'libvirt-1-format'");
    expect_error(half, "disk vda: QEMU is given no block node "
                 "'libvirt-1-storage'");
    expect_error(inlined, "disk vda: its block nodes are not in a form that "
                 "is known");
    expect_error(circle, "disk vda: its block nodes are not in a form that is "
                 "known");
    expect_error(broken, "disk vda: QEMU is given no device 'virtio-disk0' "
                 "with a block node");
}

static void test_which_domain(void **state)
{
    static const char *const domain[] = {
        "/q", "-name", "guest=a,,b,debug-threads=on", "-uuid", "u", NULL
    };
    static const char *const probe[] = {
        "/q", "-S", "-machine", "none,accel=tcg", "-qmp", "unix:/m", NULL
    };
    g_autofree char *name = NULL;
    g_autofree char *uuid = NULL;
    g_autofree char *no_name = NULL;
    g_autofree char *no_uuid = NULL;

    (void)state;
    assert_true(weir_emulator_domain((char *const *)domain, &name, &uuid));
    assert_string_equal(name, "a,b");
    assert_string_equal(uuid, "u");
    assert_false(weir_emulator_domain((char *const *)probe, &no_name,
                                      &no_uuid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain_takes_the_place_of_the_storage_node),
        cmocka_unit_test(test_device_over_the_storage_node),
        cmocka_unit_test(test_more_nodes_above),
        cmocka_unit_test(test_device_as_a_list),
        cmocka_unit_test(test_what_is_not_understood),
        cmocka_unit_test(test_which_domain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
