/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small parsers: names, disks, numbers in JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <unistd.h>

#include "chain.h"
#include "record.h"
#include "validate.h"

static void test_names(void **state)
{
    (void)state;
    assert_true(weir_name_ok("a", 1));
    assert_true(weir_name_ok("0a.B_-", 6));
    assert_false(weir_name_ok("", 9));
    assert_false(weir_name_ok("ab", 1));
    assert_false(weir_name_ok(".a", 9));
    assert_false(weir_name_ok("a/b", 9));
    assert_false(weir_name_ok("a\xc3\xa4", 9));
}

static void test_node_names(void **state)
{
    g_autofree char *exact = weir_node_name("weir-0123456789012345678",
                                            "format");
    g_autofree char *longer = weir_node_name("weir-01234567890123456789",
                                             "format");
    g_autofree char *other = weir_node_name("weir-01234567890123456789",
                                            "formax");

    (void)state;
    assert_string_equal(exact, "weir-0123456789012345678-format");
    assert_int_equal(strlen(longer), 31);
    assert_string_not_equal(longer, other);
}

static void test_numbers(void **state)
{
    static const char *const texts[] = {
        "[0,0.1,7.2,1e+300,-2.5,0.30000000000000004,9007199254740993]",
        "{\"a\":[],\"b\":{},\"c\":\"\\\"\\n\",\"d\":null,\"e\":true}",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(JsonNode) node = weir_json_parse(texts[i], strlen(texts[i]),
                                                   NULL);
        g_autofree char *text = weir_json_text(node, false);

        assert_string_equal(text, texts[i]);
    }
}

static void test_json_of_other_types(void **state)
{
    const char *text = "{\"s\":1,\"i\":\"x\",\"b\":0,\"o\":[],\"a\":{}}";
    g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);
    JsonObject *object = weir_json_as_object(node);

    (void)state;
    assert_null(weir_json_string(object, "s"));
    assert_int_equal(weir_json_int(object, "i", 5), 5);
    assert_true(weir_json_bool(object, "b", true));
    assert_null(weir_json_object(object, "o"));
    assert_null(weir_json_array(object, "a"));
    assert_null(weir_json_string(NULL, "s"));
    assert_int_equal(weir_json_length(NULL), 0);
    assert_true(weir_json_number(object, "s", 0) == 1);
}

static void test_closest(void **state)
{
    static const char *const words[] = { "entropy", "window", "on", NULL };

    (void)state;
    assert_string_equal(weir_closest("entorpy", words), "entropy");
    assert_string_equal(weir_closest("windw", words), "window");
    assert_string_equal(weir_closest("no", words) ? "some" : "none", "none");
    assert_null(weir_closest("cache", words));
}

static void test_process_start_time(void **state)
{
    (void)state;
    assert_true(weir_process_start_time(getpid()) > 0);
    assert_int_equal(weir_process_start_time(0x7fffffff), -1);
}

static void test_disk(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirDisk) disk = weir_disk_parse(
        "file=/a,,b=c,format=raw,policy=p,id=x,discard=ignore", 3, &error);
    g_autoptr(WeirDisk) plain = weir_disk_parse("format=raw,file=,,", 3,
                                                &error);

    (void)state;
    assert_null(error);
    assert_string_equal(disk->file, "/a,b=c");
    assert_string_equal(disk->id, "x");
    assert_string_equal(disk->prefix, "weir-x");
    assert_false(disk->discard);
    assert_string_equal(plain->file, ",");
    assert_string_equal(plain->id, "disk3");
    assert_true(plain->discard);
    assert_int_equal(plain->device, WEIR_DEVICE_VIRTIO_BLK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_node_names),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_json_of_other_types),
        cmocka_unit_test(test_closest),
        cmocka_unit_test(test_process_start_time),
        cmocka_unit_test(test_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
