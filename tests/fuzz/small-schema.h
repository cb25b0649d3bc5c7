/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two filters with options of each type that there is, one that refers to
 * itself included, as a storage daemon would tell of them.
 */
#ifndef WEIR_SMALL_SCHEMA_H
#define WEIR_SMALL_SCHEMA_H

#include <string.h>

#include "schema.h"

static const char small_schema[] =
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

static const char small_capabilities[] =
    "[{\"driver\":\"weir-x\",\"class\":\"cache\"},"
    " {\"driver\":\"weir-y\",\"class\":\"encryption\"}]";

static WeirSchema *small_schema_new(void)
{
    g_autoptr(JsonNode) node = weir_json_parse(small_schema,
                                               strlen(small_schema), NULL);
    g_autoptr(JsonNode) capabilities = weir_json_parse(
        small_capabilities, strlen(small_capabilities), NULL);

    return weir_schema_new(node, capabilities, NULL);
}

#endif
