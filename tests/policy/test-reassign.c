/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Policies of single disks in the XML of a domain, there and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "reassign.h"

#define QEMU "/usr/bin/weir-qemu"

static const char plain[] =
    "<domain type='kvm'>\n"
    "  <name>web</name>\n"
    "%s"
    "  <os><type arch='x86_64'>hvm</type></os>\n"
    "  <devices>\n"
    "    <emulator>/usr/bin/kvm</emulator>\n"
    "    <disk type='file' device='disk'><source file='/a'/>"
    "<target dev='vda'/></disk>\n"
    "    <disk type='file' device='disk'><source file='/b'/>"
    "<target dev='vdb'/></disk>\n"
    "  </devices>\n"
    "</domain>\n";

static char *domain(const char *metadata)
{
    char **parts = g_strsplit(plain, "%s", 2);
    char *text = g_strconcat(parts[0], metadata, parts[1], NULL);

    g_strfreev(parts);
    return text;
}

static char *reassign(const char *text, const char *target,
                      const char *policy)
{
    g_autoptr(GError) error = NULL;
    char *out = weir_reassign(text, strlen(text), target, policy, QEMU,
                              &error);

    assert_null(error);
    return out;
}

static void assert_policy(const char *text, const char *target,
                          const char *policy)
{
    g_autoptr(WeirDomain) parsed = weir_domain_parse(text, strlen(text),
                                                     NULL);

    assert_non_null(parsed);
    if (policy) {
        assert_string_equal(weir_domain_policy(parsed, target), policy);
    } else {
        assert_null(weir_domain_policy(parsed, target));
    }
}

static void test_there_and_back(void **state)
{
    static const char *const metadata[] = {
        "", "  <metadata/>\n", "  <metadata><x xmlns='urn:x'/></metadata>\n",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(metadata); i++) {
        g_autofree char *before = domain(metadata[i]);
        g_autofree char *one = reassign(before, "vda", "safe");
        g_autofree char *same = reassign(one, "vda", "safe");
        g_autofree char *two = reassign(one, "vdb", "fast");
        g_autofree char *other = reassign(two, "vda", "fast");
        g_autofree char *less = reassign(other, "vda", NULL);
        g_autofree char *after = reassign(less, "vdb", NULL);

        assert_string_equal(same, one);
        assert_non_null(strstr(one, "<emulator>" QEMU "</emulator>"));
        assert_policy(two, "vda", "safe");
        assert_policy(two, "vdb", "fast");
        assert_policy(other, "vda", "fast");
        assert_policy(less, "vda", NULL);
        assert_policy(less, "vdb", "fast");
        assert_string_equal(after, before);
    }
}

/* The element is somebody else's, and stays theirs. */
static void test_element_of_others(void **state)
{
    static const char *const metadata[] = {
        "  <metadata><w:policies xmlns:w='urn:weir:domain:1'>"
        "<w:disk target='vda' policy='safe'/></w:policies></metadata>\n",
        "  <metadata><policies xmlns='urn:weir:domain:1'>"
        "<disk target='vda' policy='safe'/></policies></metadata>\n",
        "  <metadata><policies xmlns='urn:weir:domain:1'/></metadata>\n",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(metadata); i++) {
        g_autofree char *before = domain(metadata[i]);
        g_autofree char *two = reassign(before, "vdb", "fast");
        g_autofree char *none = reassign(two, "vda", NULL);
        g_autofree char *after = reassign(none, "vdb", NULL);

        assert_policy(two, "vda", i == 2 ? NULL : "safe");
        assert_policy(two, "vdb", "fast");
        assert_non_null(strstr(after, "<emulator>/usr/bin/kvm</emulator>"));
        assert_non_null(strstr(after, "urn:weir:domain:1"));
        assert_policy(after, "vda", NULL);
        assert_policy(after, "vdb", NULL);
    }
}

static void test_element_alone(void **state)
{
    g_autofree char *before = domain("");
    g_autofree char *one = reassign(before, "vda", "safe");
    g_autoptr(WeirDomain) was = weir_domain_parse(before, strlen(before),
                                                  NULL);
    g_autoptr(WeirDomain) is = weir_domain_parse(one, strlen(one), NULL);
    g_autofree char *first = weir_reassign_element(was, "vda", "safe");
    g_autofree char *more = weir_reassign_element(is, "vdb", "fast");
    g_autofree char *less = weir_reassign_element(is, "vda", NULL);
    g_autofree char *none = weir_reassign_element(was, "vda", NULL);

    (void)state;
    assert_string_equal(first, "<policies><disk target=\"vda\" "
                        "policy=\"safe\"/></policies>");
    assert_string_equal(more, "<policies><disk target=\"vda\" "
                        "policy=\"safe\"/><disk target=\"vdb\" "
                        "policy=\"fast\"/><original "
                        "emulator=\"/usr/bin/kvm\" metadata=\"\" "
                        "policies=\"none\"/></policies>");
    assert_string_equal(less, "<policies><original "
                        "emulator=\"/usr/bin/kvm\" metadata=\"\" "
                        "policies=\"none\"/></policies>");
    assert_null(none);
}

static void test_wrong_text(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_null(weir_reassign("<domain", 7, "vda", "safe", QEMU, &error));
    assert_non_null(error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_element_of_others),
        cmocka_unit_test(test_element_alone),
        cmocka_unit_test(test_wrong_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
