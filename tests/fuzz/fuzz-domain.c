/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The XML of domains comes from anybody.  What can be transformed leads back to
 * what it was, stays as it is the second time, and has policies; what cannot
 * be is told.
 *
 *   fuzz-domain tests/fuzz/domain
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "transform.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_check_way_back(const char *text, const char *out)
{
    g_autofree char *back = weir_transform_remove(out, strlen(out), NULL);
    g_autofree char *plain = weir_transform_remove(text, strlen(text), NULL);

    g_assert_cmpstr(back, ==, plain);
}

static void fuzz_check_transformed(const char *out,
                                   const WeirTransform *options)
{
    g_autoptr(WeirDomain) domain = weir_domain_parse(out, strlen(out), NULL);
    WeirTransform none = { .emulator = options->emulator };
    g_autofree char *again = weir_transform(out, strlen(out), &none, NULL);

    g_assert(domain);
    if (domain->assigned->len > 0) {
        g_assert_cmpstr(domain->emulator, ==, options->emulator);
        g_assert_cmpstr(again, ==, out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    WeirTransform options = {
        .emulator = "/usr/bin/weir-qemu",
        .policy = size % 2 ? "safe" : NULL,
    };
    g_autoptr(GError) error = NULL;
    g_autofree char *out = weir_transform(text, strlen(text), &options,
                                          &error);

    g_assert((out != NULL) == (error == NULL));
    if (out) {
        fuzz_check_way_back(text, out);
        fuzz_check_transformed(out, &options);
    } else {
        g_assert(error->message[0]);
        g_assert(g_utf8_validate(error->message, -1, NULL));
    }
    return 0;
}
