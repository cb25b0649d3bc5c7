/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a plugin says of itself: each thing that can be wrong, and sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "plugin/check.h"

static int any_open(WeirPluginDisk *disk, void **handle)
{
    (void)disk;
    (void)handle;
    return 0;
}

static int any_flush(void *handle, WeirPluginIo *io,
                     WeirPluginRequest *request)
{
    return weir_plugin_pass(handle, io, request);
}

static WeirPlugin good(void)
{
    return (WeirPlugin) {
        .abi = WEIR_PLUGIN_ABI, .struct_size = sizeof(WeirPlugin),
        .option_size = sizeof(WeirPluginOption), .name = "good",
        .version = "1", .description = "is good", .open = any_open,
    };
}

static void refused(const WeirPlugin *plugin, int error, const char *text)
{
    WeirAdopted adopted;
    char message[256] = "";

    assert_int_equal(weir_plugin_adopt(plugin, "good", &adopted, message,
                                       sizeof(message)), error);
    assert_string_equal(message, text);
}

static void test_good(void **state)
{
    WeirPlugin plugin = good();
    WeirAdopted adopted;
    char message[256];

    (void)state;
    assert_int_equal(weir_plugin_adopt(&plugin, "good", &adopted, message,
                                       sizeof(message)), 0);
    assert_ptr_equal(adopted.plugin.open, any_open);
    weir_adopted_clear(&adopted);
}

static void test_words(void **state)
{
    WeirPlugin p;

    (void)state;
    refused(NULL, -EINVAL, "it registers nothing");
    p = good(), p.abi = 0;
    refused(&p, -ENOEXEC, "it was built for version 0 of the interface, this "
            "is version 1");
    p = good(), p.abi = 2;
    refused(&p, -ENOEXEC, "it was built for version 2 of the interface, this "
            "is version 1");
    p = good(), p.name = "other";
    refused(&p, -EINVAL, "it is called 'other', not as its file");
    p = good(), p.name = "Good";
    refused(&p, -EINVAL, "it has no name, or one that is not of a-z, 0-9 and "
            "'-'");
    p = good(), p.version = "";
    refused(&p, -EINVAL, "it has no version");
    p = good(), p.description = NULL;
    refused(&p, -EINVAL, "it has no description");
    p = good(), p.open = NULL;
    refused(&p, -EINVAL, "it has no callback 'open'");
    p = good(), p.plugin_class = 99;
    refused(&p, -EINVAL, "its class is unknown");
    p = good(), p.concurrency = 3;
    refused(&p, -EINVAL, "its concurrency is unknown");
    p = good(), p.alignment = 256;
    refused(&p, -EINVAL, "its alignment is 256, it has to be a power of two "
            "of 512 to 65536");
}

static void test_capabilities(void **state)
{
    WeirPlugin p;

    (void)state;
    p = good(), p.capabilities = WEIR_PLUGIN_CHANGES_DATA;
    refused(&p, -EINVAL, "it changes data, and has no callback 'read'");
    p.read = any_flush;
    refused(&p, -EINVAL, "it changes data, and has no callback 'write'");
    p.write = any_flush;
    p.capabilities |= WEIR_PLUGIN_MAY_BYPASS;
    refused(&p, -EINVAL, "it changes data, and says that it may be bypassed");
    p = good(), p.capabilities = WEIR_PLUGIN_HOLDS_DATA;
    refused(&p, -EINVAL, "it holds data, and has no callback 'read'");
    p.read = any_flush;
    refused(&p, -EINVAL, "it holds data, and has no callback 'write'");
    p.write = any_flush;
    refused(&p, -EINVAL, "it holds data, and has no callback 'flush'");
    p.flush = any_flush;
    refused(&p, -EINVAL, "it holds data, and has no callback 'detach'");
    p = good(), p.capabilities = 1u << 20;
    refused(&p, -ENOEXEC, "it has capabilities that this version does not "
            "know");
}

static void option_refused(WeirPluginOption option, const char *text)
{
    WeirPlugin p = good();

    p.options = &option;
    p.option_count = 1;
    refused(&p, -EINVAL, text);
}

static void test_options(void **state)
{
    const WeirPluginOption o = { .name = "o", .help = "h" };
    WeirPluginOption x;

    (void)state;
    x = o, x.name = "9o";
    option_refused(x, "an option has no name, or one that is not of a-z, 0-9 "
                   "and '-'");
    x = o, x.help = "";
    option_refused(x, "option 'o' has no help");
    x = o, x.type = 17;
    option_refused(x, "option 'o' has the unknown type 17");
    x = o, x.flags = 64;
    option_refused(x, "option 'o' has unknown flags");
    x = o, x.min = 2, x.max = 1;
    option_refused(x, "option 'o' has a minimum above its maximum");
    x = o, x.type = WEIR_PLUGIN_CHOICE;
    option_refused(x, "option 'o' has no choices");
    x = o, x.choices = "a";
    option_refused(x, "option 'o' has choices");
    x = o, x.type = WEIR_PLUGIN_CHOICE, x.choices = "a,b";
    option_refused(x, "option 'o' has no default");
    x.default_value = "c";
    option_refused(x, "option 'o' is 'c', it has to be one of a,b");
    x = o, x.type = WEIR_PLUGIN_INT, x.min = 1, x.max = 2;
    option_refused(x, "option 'o' is 0, it has to be 1 to 2");
    x = o, x.flags = WEIR_PLUGIN_MANDATORY, x.default_value = "on";
    option_refused(x, "option 'o' is mandatory and has a default");
}

static void test_tables(void **state)
{
    const WeirPluginOption two[] = {
        { .name = "o", .help = "h" }, { .name = "o", .help = "h" },
    };
    WeirPlugin p = good();

    (void)state;
    p.options = two;
    p.option_count = 2;
    refused(&p, -EINVAL, "it has two options 'o'");
    p.option_size = 8;
    refused(&p, -EINVAL, "its table of options makes no sense");
    p.option_size = sizeof(two[0]);
    p.option_count = 100000;
    refused(&p, -EINVAL, "its table of options makes no sense");
    p.option_count = 1;
    p.options = NULL;
    refused(&p, -EINVAL, "its table of options makes no sense");
}

/* A later version, or this one from the point of view of a later host. */
static void test_sizes(void **state)
{
    struct {
        WeirPlugin plugin;
        char more[64];
    } large;
    struct {
        WeirPluginOption option;
        char more[32];
    } options[2];
    WeirAdopted adopted;
    char message[256];

    (void)state;
    memset(&large, 0xff, sizeof(large));
    memset(options, 0xff, sizeof(options));
    large.plugin = good();
    large.plugin.struct_size = sizeof(large);
    large.plugin.option_size = sizeof(options[0]);
    large.plugin.option_count = 2;
    large.plugin.options = &options[0].option;
    options[0].option = (WeirPluginOption) { .name = "a", .help = "h" };
    options[1].option = (WeirPluginOption) { .name = "b", .help = "h" };
    assert_int_equal(weir_plugin_adopt(&large.plugin, "good", &adopted,
                                       message, sizeof(message)), 0);
    assert_string_equal(adopted.options[1].name, "b");
    weir_adopted_clear(&adopted);

    large.plugin.struct_size = sizeof(WeirPlugin) - 8;
    assert_int_equal(weir_plugin_adopt(&large.plugin, "good", &adopted,
                                       message, sizeof(message)), -EINVAL);
    large.plugin.struct_size = UINT32_MAX;
    assert_int_equal(weir_plugin_adopt(&large.plugin, "good", &adopted,
                                       message, sizeof(message)), -EINVAL);
}

static void test_what_passes(void **state)
{
    WeirPlugin p = good();

    (void)state;
    assert_true(weir_plugin_passes_zero(&p));
    assert_true(weir_plugin_passes_discard(&p));
    assert_true(weir_plugin_passes_status(&p));
    assert_true(weir_plugin_passes_fua(&p));
    assert_true(weir_plugin_passes_copies_from(&p));
    assert_true(weir_plugin_passes_copies_to(&p));
    p.read = any_flush;
    assert_false(weir_plugin_passes_status(&p));
    assert_false(weir_plugin_passes_copies_from(&p));
    assert_true(weir_plugin_passes_zero(&p));
    p.write = any_flush;
    assert_false(weir_plugin_passes_zero(&p));
    assert_false(weir_plugin_passes_discard(&p));
    assert_false(weir_plugin_passes_copies_to(&p));
    assert_false(weir_plugin_passes_fua(&p));
    p.capabilities = WEIR_PLUGIN_DURABLE_WRITES;
    assert_true(weir_plugin_passes_fua(&p));
    p = good(), p.flush = any_flush;
    assert_false(weir_plugin_passes_fua(&p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_words),
        cmocka_unit_test(test_capabilities), cmocka_unit_test(test_options),
        cmocka_unit_test(test_tables), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_what_passes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
