/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Since when a disk is in its state, over several looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "history.h"

typedef struct Vm {
    char *dir;
    WeirRecord *record;
} Vm;

static int set_up(void **state)
{
    Vm *vm = g_new0(Vm, 1);
    g_autofree char *path = NULL;

    vm->dir = g_dir_make_tmp("weir-history-XXXXXX", NULL);
    vm->record = weir_record_new("vm", getpid(), "/nowhere",
                                 NULL);
    path = weir_record_path(vm->dir, "vm", "json");
    assert_true(g_file_set_contents(path, "{}", -1, NULL));
    *state = vm;
    return 0;
}

static int tear_down(void **state)
{
    Vm *vm = *state;

    weir_record_remove(vm->dir, "vm");
    assert_int_equal(rmdir(vm->dir), 0);
    weir_record_free(vm->record);
    g_free(vm->dir);
    g_free(vm);
    return 0;
}

/* Look at time @now; returns since when the state is there. */
static gint64 look(const Vm *vm, gint64 now, WeirCompliance compliance,
                   gint64 told)
{
    g_autoptr(WeirHistory) history = weir_history_load(vm->dir, vm->record,
                                                       now);
    g_autoptr(GPtrArray) filters = g_ptr_array_new();
    WeirFilterStatus filter = { .driver = (char *)"weir-x",
                                .kind = (char *)"weir-x",
                                .state = compliance, .since = told };
    WeirDiskStatus status = { .disk = (char *)"disk0", .state = compliance,
                              .since = told, .filters = filters };

    g_ptr_array_add(filters, &filter);
    weir_history_note(history, &status);
    weir_history_save(history);
    assert_int_equal(filter.since, status.since);
    return status.since;
}

static void test_first_seen(void **state)
{
    assert_int_equal(look(*state, 1000, WEIR_COMPLIANT, 0), 1000);
    assert_int_equal(look(*state, 1010, WEIR_COMPLIANT, 0), 1000);
    assert_int_equal(look(*state, 1020, WEIR_NON_COMPLIANT, 0), 1020);
    assert_int_equal(look(*state, 1030, WEIR_NON_COMPLIANT, 0), 1020);
    assert_int_equal(look(*state, 1040, WEIR_COMPLIANT, 0), 1040);
}

static void test_what_the_filter_says(void **state)
{
    assert_int_equal(look(*state, 1000, WEIR_COMPLIANT, 900), 900);
    assert_int_equal(look(*state, 1010, WEIR_NON_COMPLIANT, 1005), 1005);
    /* not before it was seen otherwise, not in the future */
    assert_int_equal(look(*state, 1020, WEIR_COMPLIANT, 950), 1020);
    assert_int_equal(look(*state, 1030, WEIR_NON_COMPLIANT, 2000), 1030);
}

static void test_clock_goes_back(void **state)
{
    assert_int_equal(look(*state, 1000, WEIR_COMPLIANT, 0), 1000);
    assert_int_equal(look(*state, 500, WEIR_COMPLIANT, 0), 500);
}

static void test_of_another_process(void **state)
{
    Vm *vm = *state;

    assert_int_equal(look(vm, 1000, WEIR_COMPLIANT, 0), 1000);
    vm->record->start_time++;
    assert_int_equal(look(vm, 1010, WEIR_COMPLIANT, 0), 1010);
}

static void test_damaged(void **state)
{
    static const char *const texts[] = {
        "", "[]", "{", "{\"disks\":[]}", "{\"disks\":{\"disk0\":7}}",
    };
    Vm *vm = *state;
    g_autofree char *path = weir_record_path(vm->dir, "vm", "status");

    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
        assert_true(g_file_set_contents(path, texts[i], -1, NULL));
        assert_int_equal(look(vm, 1000 + i, WEIR_COMPLIANT, 0), 1000 + i);
    }
}

static void test_wrong_members(void **state)
{
    Vm *vm = *state;
    g_autofree char *path = weir_record_path(vm->dir, "vm", "status");
    g_autofree char *text = g_strdup_printf(
        "{\"pid\":%d,\"start-time\":%" G_GINT64_FORMAT ",\"disks\":{\"disk0\":"
        "{\"state\":\"compliant\",\"since\":\"x\",\"filters\":[],"
        "\"latency\":[7]}}}", (int)getpid(), vm->record->start_time);

    assert_true(g_file_set_contents(path, text, -1, NULL));
    assert_int_equal(look(vm, 1000, WEIR_COMPLIANT, 0), 1000);
}

static void test_directory_is_missing(void **state)
{
    Vm *vm = *state;
    g_autofree char *dir = vm->dir;

    vm->dir = g_build_filename(dir, "missing", NULL);
    assert_int_equal(look(vm, 1000, WEIR_COMPLIANT, 0), 1000);
    assert_int_equal(look(vm, 1010, WEIR_COMPLIANT, 0), 1010);
    g_free(vm->dir);
    vm->dir = g_steal_pointer(&dir);
}

static void test_vm_has_ended(void **state)
{
    Vm *vm = *state;
    g_autofree char *record = weir_record_path(vm->dir, "vm", "json");
    g_autofree char *path = weir_record_path(vm->dir, "vm", "status");

    assert_int_equal(unlink(record), 0);
    assert_int_equal(look(vm, 1000, WEIR_COMPLIANT, 0), 1000);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_nothing_is_written_without_a_change(void **state)
{
    Vm *vm = *state;
    g_autofree char *path = weir_record_path(vm->dir, "vm", "status");
    struct stat before;
    struct stat after;

    look(vm, 1000, WEIR_COMPLIANT, 0);
    assert_int_equal(stat(path, &before), 0);
    look(vm, 1010, WEIR_COMPLIANT, 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

/* Look with so many requests so far; returns how many of them count. */
static gint64 look_latency(const Vm *vm, gint64 now, gint64 requests)
{
    g_autoptr(WeirHistory) history = weir_history_load(vm->dir, vm->record,
                                                       now);
    g_autoptr(GPtrArray) filters = g_ptr_array_new();
    g_autoptr(JsonArray) histogram = json_array_new();
    g_autoptr(JsonArray) recent = NULL;
    WeirDiskStatus status = { .disk = (char *)"disk0", .filters = filters,
                              .limits.latency_ns = 1, .latency = histogram };

    json_array_add_int_element(histogram, requests);
    recent = weir_latency_since(histogram,
                                weir_history_latency(history, "disk0"));
    weir_history_note(history, &status);
    weir_history_save(history);
    return weir_json_length(recent) ? json_array_get_int_element(recent, 0)
                                    : 0;
}

static void test_latency_of_the_last_minutes(void **state)
{
    assert_int_equal(look_latency(*state, 1000, 10), 10);
    assert_int_equal(look_latency(*state, 1030, 20), 10);
    assert_int_equal(look_latency(*state, 1060, 30), 20);
    assert_int_equal(look_latency(*state, 1090, 40), 30);
    assert_int_equal(look_latency(*state, 1120, 50), 20);
    assert_int_equal(look_latency(*state, 1130, 60), 30);
    assert_int_equal(look_latency(*state, 9000, 70), 20);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_first_seen),
        TEST(test_what_the_filter_says),
        TEST(test_clock_goes_back),
        TEST(test_of_another_process),
        TEST(test_damaged),
        TEST(test_wrong_members),
        TEST(test_directory_is_missing),
        TEST(test_vm_has_ended),
        TEST(test_nothing_is_written_without_a_change),
        TEST(test_latency_of_the_last_minutes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
