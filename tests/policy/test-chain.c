/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process that has a chain of nodes loses when it is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "chain.h"

/* A filter with those options; @driver: NULL for none. */
static bool holds_back(const char *disk_text, const char *driver,
                       const char *options_text)
{
    g_autoptr(WeirDisk) disk = weir_disk_parse(disk_text, 0, NULL);
    g_autoptr(GPtrArray) filters = g_ptr_array_new();
    g_autoptr(GPtrArray) options = g_ptr_array_new();
    g_autoptr(JsonNode) node = weir_json_parse(options_text,
                                               strlen(options_text), NULL);
    WeirPolicyFilter filter = {
        .driver = (char *)driver, .child = (char *)"file",
        .place = WEIR_PLACE_DISK,
    };
    const WeirPolicy policy = { .name = (char *)"p", .filters = filters };
    g_autoptr(GPtrArray) chain = NULL;

    assert_non_null(disk);
    assert_non_null(node);
    if (driver) {
        g_ptr_array_add(filters, &filter);
        g_ptr_array_add(options, weir_json_as_object(node));
    }
    chain = weir_chain_new(disk, &policy, options, options);
    return weir_chain_holds_back(chain);
}

static void test_format(void **state)
{
    (void)state;
    assert_false(holds_back("file=d,format=raw", NULL, "{}"));
    assert_true(holds_back("file=d,format=qcow2", NULL, "{}"));
}

static void test_filters(void **state)
{
    (void)state;
    assert_false(holds_back("file=d,format=raw", "weir-inspect", "{}"));
    assert_false(holds_back("file=d,format=raw", "weir-replication", "{}"));
    assert_true(holds_back("file=d,format=raw", "weir-unheard-of", "{}"));
}

static void test_cache(void **state)
{
    (void)state;
    assert_true(holds_back("file=d,format=raw", "weir-cache", "{}"));
    assert_true(holds_back("file=d,format=raw", "weir-cache",
                           "{\"mode\": \"write-back\"}"));
    assert_false(holds_back("file=d,format=raw", "weir-cache",
                            "{\"mode\": \"write-around\"}"));
}

/* librbd has a cache of its own, unless it is told not to. */
static void test_ceph(void **state)
{
    const char *around = "{\"mode\": \"write-around\", \"cache-file\": "
                         "{\"driver\": \"rbd\", \"pool\": \"p\"%s}}";
    g_autofree char *cached = g_strdup_printf(around, "");
    g_autofree char *direct = g_strdup_printf(
        around, ", \"cache\": {\"direct\": true}");

    (void)state;
    assert_false(holds_back("file=nbd://host/d,format=raw", NULL, "{}"));
    assert_true(holds_back("file=rbd://pool/d,format=raw", NULL, "{}"));
    assert_true(holds_back("file=rbd://pool/d,format=raw", "weir-inspect",
                           "{}"));
    assert_false(holds_back("file=rbd://pool/d,format=raw,cache.direct=on",
                            NULL, "{}"));
    assert_true(holds_back("file=d,format=raw", "weir-cache", cached));
    assert_false(holds_back("file=d,format=raw", "weir-cache", direct));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_ceph),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
