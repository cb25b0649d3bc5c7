/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Policies are files from anywhere.  The schema has one filter with options
 * of each type that there is, one that refers to itself included.
 *
 *   fuzz-policy tests/fuzz/policy
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "policy.h"

static const char fuzz_schema[] =
    "[{\"name\":\"blockdev-add\",\"meta-type\":\"command\","
    "  \"arg-type\":\"node\"},"
    " {\"name\":\"node\",\"meta-type\":\"object\",\"tag\":\"driver\","
    "  \"members\":[{\"name\":\"driver\",\"type\":\"drivers\"}],"
    "  \"variants\":[{\"case\":\"weir-x\",\"type\":\"x\"},"
    "                {\"case\":\"weir-y\",\"type\":\"y\"}]},"
    " {\"name\":\"ref\",\"meta-type\":\"alternate\","
    "  \"members\":[{\"type\":\"node\"},{\"type\":\"str\"}]},"
    " {\"name\":\"x\",\"meta-type\":\"object\",\"members\":["
    "  {\"name\":\"file\",\"type\":\"ref\"},"
    "  {\"name\":\"i\",\"type\":\"int\",\"default\":null},"
    "  {\"name\":\"n\",\"type\":\"number\",\"default\":null},"
    "  {\"name\":\"b\",\"type\":\"bool\",\"default\":null},"
    "  {\"name\":\"s\",\"type\":\"str\",\"default\":null},"
    "  {\"name\":\"e\",\"type\":\"words\",\"default\":null},"
    "  {\"name\":\"l\",\"type\":\"list\",\"default\":null},"
    "  {\"name\":\"p\",\"type\":\"ref\",\"default\":null},"
    "  {\"name\":\"k-secret\",\"type\":\"str\",\"default\":null},"
    "  {\"name\":\"o\",\"type\":\"self\",\"default\":null}]},"
    " {\"name\":\"y\",\"meta-type\":\"object\",\"members\":["
    "  {\"name\":\"file\",\"type\":\"ref\"}]},"
    " {\"name\":\"words\",\"meta-type\":\"enum\",\"members\":["
    "  {\"name\":\"one\"},{\"name\":\"two\"}]},"
    " {\"name\":\"list\",\"meta-type\":\"array\",\"element-type\":\"self\"},"
    " {\"name\":\"self\",\"meta-type\":\"object\",\"members\":["
    "  {\"name\":\"must\",\"type\":\"int\"},"
    "  {\"name\":\"list\",\"type\":\"list\",\"default\":null},"
    "  {\"name\":\"self\",\"type\":\"self\",\"default\":null}]},"
    " {\"name\":\"int\",\"meta-type\":\"builtin\",\"json-type\":\"int\"},"
    " {\"name\":\"number\",\"meta-type\":\"builtin\","
    "  \"json-type\":\"number\"},"
    " {\"name\":\"bool\",\"meta-type\":\"builtin\","
    "  \"json-type\":\"boolean\"},"
    " {\"name\":\"str\",\"meta-type\":\"builtin\","
    "  \"json-type\":\"string\"}]";

static const char fuzz_capabilities[] =
    "[{\"driver\":\"weir-x\",\"class\":\"cache\"},"
    " {\"driver\":\"weir-y\",\"class\":\"encryption\"}]";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static WeirSchema *fuzz_load_schema(void)
{
    g_autoptr(JsonNode) node = weir_json_parse(fuzz_schema,
                                               strlen(fuzz_schema), NULL);

    g_autoptr(JsonNode) capabilities = weir_json_parse(
        fuzz_capabilities, strlen(fuzz_capabilities), NULL);

    return weir_schema_new(node, capabilities, NULL);
}

/* A place comes first; and what validate.c lets pass, libcyaml takes. */
static void fuzz_check_message(const char *message)
{
    unsigned line;
    unsigned column;
    int length = 0;

    g_assert(sscanf(message, "fuzz.yaml:%u:%u: %n", &line, &column,
                    &length) == 2);
    g_assert(line > 0 && column > 0 && length > 0);
    g_assert(!g_str_has_prefix(message + length, "libcyaml: "));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static WeirSchema *schema;
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirPolicy) policy = NULL;

    if (!schema) {
        schema = fuzz_load_schema();
    }
    policy = weir_policy_parse((const char *)data, size, "fuzz.yaml", false,
                               schema, &error);
    g_assert((policy != NULL) == (error == NULL));
    if (policy) {
        g_autoptr(JsonObject) object = weir_policy_json(policy);
        g_autofree char *text = weir_json_object_text(object, true);
        g_autoptr(JsonNode) node = weir_json_parse(text, strlen(text), NULL);

        g_assert(weir_json_as_object(node));
    } else {
        fuzz_check_message(error->message);
    }
    return 0;
}
