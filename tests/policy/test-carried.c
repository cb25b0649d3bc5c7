/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The record that QEMU carries: it comes back as it was, or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <gio/gio.h>
#include <string.h>

#include "carried.h"

#define POLICY_DISK \
    "{\"id\":\"d%d\",\"file\":\"/a%d\",\"device\":\"virtio-disk%d\"," \
    "\"policy\":\"s\xc3\xa4" "fe\",\"policy-version\":3," \
    "\"limits\":{\"rpo-ns\":5},\"wanted\":[{\"role\":\"filter\"," \
    "\"driver\":\"weir-inspect\",\"node-name\":\"weir-%d\"," \
    "\"place\":\"storage\",\"options\":{\"a\":[1,{\"b\":\"c\"}]}}]}"

/* What a fake QEMU answers to anything, or the error that comes instead. */
typedef struct Qemu {
    char *answer;
    const char *error;
} Qemu;

static char *answer_with(const char *data)
{
    g_autoptr(JsonObject) object = json_object_new();

    json_object_set_string_member(object, "return", data);
    return weir_json_object_text(object, false);
}

static char *call(gpointer opaque, const char *command, GError **error)
{
    const Qemu *qemu = opaque;

    assert_string_equal(
        command, "{\"execute\":\"qom-get\",\"arguments\":{\"path\":"
        "\"/objects/weir-record\",\"property\":\"data\"}}");
    if (qemu->error) {
        weir_set_error(error, "%s", qemu->error);
        return NULL;
    }
    return g_strdup(qemu->answer);
}

static WeirRecord *ask(Qemu *qemu, GError **error)
{
    g_autoptr(WeirQmp) qmp = weir_qmp_new_call(call, qemu, "libvirt");

    return weir_carried_ask(qmp, "vm", 1000, error);
}

static WeirRecord *record_new(int disks)
{
    g_autoptr(GString) text = g_string_new(
        "{\"pid\":7,\"start-time\":8,\"qmp\":\"\",\"disks\":[");
    g_autoptr(JsonNode) node = NULL;
    WeirRecord *record;

    for (int i = 0; i < disks; i++) {
        g_string_append_printf(text, "%s" POLICY_DISK, i ? "," : "", i, i, i,
                               i);
    }
    g_string_append(text, "]}");
    node = weir_json_parse(text->str, text->len, NULL);
    record = weir_record_from_json("vm", weir_json_as_object(node));
    assert_non_null(record);
    return record;
}

/* What is in the argument of -object, to be freed. */
static char *carried_data(const WeirRecord *record)
{
    g_autofree char *text = weir_carried_object(record);
    g_autoptr(JsonNode) node = NULL;

    assert_non_null(text);
    assert_true(strlen(text) < 128 * 1024);     /* of Linux, an argument */
    node = weir_json_parse(text, strlen(text), NULL);
    return g_strdup(weir_json_string(weir_json_as_object(node), "data"));
}

static char *record_text(const WeirRecord *record)
{
    g_autoptr(JsonObject) object = weir_record_json(record);

    return weir_json_object_text(object, false);
}

static void test_comes_back(void **state)
{
    (void)state;
    for (int disks = 0; disks <= 500; disks += 250) {
        g_autoptr(WeirRecord) record = record_new(disks);
        g_autofree char *data = carried_data(record);
        g_autofree char *before = record_text(record);
        Qemu qemu = { .answer = answer_with(data) };
        g_autoptr(GError) error = NULL;
        g_autoptr(WeirRecord) back = ask(&qemu, &error);
        g_autofree char *after = back ? record_text(back) : NULL;

        assert_null(error);
        assert_string_equal(after, before);
        g_free(qemu.answer);
    }
}

/* --- giving QEMU another one --- */

/* A QEMU that has one object, or none. */
typedef struct Keeper {
    char *data;             /* NULL: there is no such object */
    guint adds, sets, deletes;
} Keeper;

static char *keep(gpointer opaque, const char *command, GError **error)
{
    Keeper *keeper = opaque;
    g_autoptr(JsonNode) node = weir_json_parse(command, strlen(command),
                                               error);
    JsonObject *request = weir_json_as_object(node);
    const char *name = weir_json_string(request, "execute");
    JsonObject *arguments = weir_json_object(request, "arguments");
    bool adds = strcmp(name, "object-add") == 0;

    if (adds || strcmp(name, "qom-set") == 0) {
        assert_int_equal(adds, !keeper->data);
        g_free(keeper->data);
        keeper->data = g_strdup(weir_json_string(arguments, adds ? "data"
                                                                 : "value"));
        keeper->adds += adds;
        keeper->sets += !adds;
    } else if (strcmp(name, "object-del") == 0) {
        assert_non_null(keeper->data);
        g_clear_pointer(&keeper->data, g_free);
        keeper->deletes++;
    } else if (!keeper->data) {
        return g_strdup("{\"error\":{\"class\":\"GenericError\","
                        "\"desc\":\"no such path\"}}");
    } else {
        return answer_with(keeper->data);
    }
    return g_strdup("{\"return\":{}}");
}

static void add_noise(WeirRecord *record)
{
    WeirRecordDisk *disk = g_ptr_array_index(record->disks, 0);
    WeirWanted *wanted = g_ptr_array_index(disk->wanted, 0);
    g_autofree char *noise = g_malloc0(200000);
    GRand *random = g_rand_new_with_seed(1);

    for (int i = 0; i < 199999; i++) {
        noise[i] = (char)g_rand_int_range(random, 'a', 'z');
    }
    json_object_set_string_member(wanted->options, "noise", noise);
    g_rand_free(random);
}

static void test_too_long(void **state)
{
    g_autoptr(WeirRecord) record = record_new(1);

    (void)state;
    add_noise(record);
    assert_null(weir_carried_object(record));
}

static void test_put(void **state)
{
    Keeper keeper = { 0 };
    g_autoptr(WeirQmp) qmp = weir_qmp_new_call(keep, &keeper, "libvirt");
    g_autoptr(WeirRecord) record = record_new(2);
    g_autoptr(WeirRecord) back = NULL;

    (void)state;
    assert_true(weir_carried_put(qmp, record, 1000, NULL));
    assert_int_equal(keeper.adds, 1);
    record->pid = 0;
    record->start_time = -1;
    g_ptr_array_remove_index(record->disks, 0);
    assert_true(weir_carried_put(qmp, record, 1000, NULL));
    assert_int_equal(keeper.sets, 1);
    back = weir_carried_ask(qmp, "vm", 1000, NULL);
    assert_int_equal(back->disks->len, 1);
    assert_int_equal(back->pid, 7);
    assert_int_equal(back->start_time, 8);
    add_noise(record);
    assert_true(weir_carried_put(qmp, record, 1000, NULL));
    assert_true(weir_carried_put(qmp, record, 1000, NULL));
    assert_int_equal(keeper.deletes, 1);
    assert_null(keeper.data);
}

static void expect_failure(Qemu *qemu, int code, const char *message)
{
    g_autoptr(GError) error = NULL;

    assert_null(ask(qemu, &error));
    assert_int_equal(error->code, code);
    assert_string_equal(error->message, message);
}

static void test_none(void **state)
{
    Qemu qemu = { .answer = (char *)"{\"error\":{\"class\":\"GenericError\","
                                    "\"desc\":\"no such path\"}}" };

    (void)state;
    expect_failure(&qemu, WEIR_ERROR_NOT_FOUND, "its QEMU carries no record");
}

static void test_libvirt_fails(void **state)
{
    Qemu qemu = { .error = "gone" };

    (void)state;
    expect_failure(&qemu, WEIR_ERROR_FAILED, "gone");
}

static void test_no_record(void **state)
{
    static const char *const texts[] = {
        "", "!!!!", "aGVsbG8=", "eJwDAAAAAAE=", /* nothing, compressed */
        "eJyrrgUAAXUA+Q==",                     /* {} */
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
        Qemu qemu = { .answer = answer_with(texts[i]) };

        expect_failure(&qemu, WEIR_ERROR_FAILED,
                       "its QEMU carries what is no record");
        g_free(qemu.answer);
    }
}

/* 64 MiB of blanks before a record take 64 KiB compressed. */
static void test_bomb(void **state)
{
    g_autoptr(GConverter) zlib = G_CONVERTER(g_zlib_compressor_new(
        G_ZLIB_COMPRESSOR_FORMAT_ZLIB, 9));
    g_autoptr(GOutputStream) memory = g_memory_output_stream_new_resizable();
    g_autoptr(GOutputStream) stream = g_converter_output_stream_new(memory,
                                                                    zlib);
    g_autofree char *blanks = g_malloc(1 << 20);
    g_autoptr(WeirRecord) record = record_new(1);
    g_autofree char *text = record_text(record);
    g_autofree char *data = NULL;
    Qemu qemu;

    (void)state;
    memset(blanks, ' ', 1 << 20);
    for (int i = 0; i < 64; i++) {
        assert_true(g_output_stream_write_all(stream, blanks, 1 << 20, NULL,
                                              NULL, NULL));
    }
    assert_true(g_output_stream_write_all(stream, text, strlen(text), NULL,
                                          NULL, NULL));
    assert_true(g_output_stream_close(stream, NULL, NULL));
    data = g_base64_encode(
        g_memory_output_stream_get_data(G_MEMORY_OUTPUT_STREAM(memory)),
        g_memory_output_stream_get_data_size(G_MEMORY_OUTPUT_STREAM(memory)));
    assert_true(strlen(data) <= WEIR_CARRIED_MAX_BYTES);
    qemu = (Qemu) { .answer = answer_with(data) };
    expect_failure(&qemu, WEIR_ERROR_FAILED,
                   "its QEMU carries what is no record");
    g_free(qemu.answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_put),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_libvirt_fails),
        cmocka_unit_test(test_no_record),
        cmocka_unit_test(test_bomb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
