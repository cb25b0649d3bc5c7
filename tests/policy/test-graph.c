/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which place a filter is at, in graphs with a format node and without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "graph.h"

/* @place: what QEMU says, of a filter; NULL: it is none.  @child: "file". */
static WeirGraphNode *node_new(const char *driver, const char *place,
                               WeirGraphNode *child)
{
    WeirGraphNode *node = g_new0(WeirGraphNode, 1);

    node->driver = g_strdup(driver);
    node->edges = g_array_new(FALSE, FALSE, sizeof(WeirGraphEdge));
    if (place) {
        node->filter = json_object_new();
        json_object_set_string_member(node->filter, "place", place);
    }
    if (child) {
        WeirGraphEdge edge = { .child = child, .name = (char *)"file" };

        g_array_append_val(node->edges, edge);
    }
    return node;
}

/* Free it and all below. */
static void chain_free(WeirGraphNode *root)
{
    g_autoptr(GPtrArray) chain = weir_graph_chain(root);

    for (guint i = 0; i < chain->len; i++) {
        WeirGraphNode *node = g_ptr_array_index(chain, i);

        g_free(node->driver);
        g_clear_pointer(&node->filter, json_object_unref);
        g_array_unref(node->edges);
        g_free(node);
    }
}

static void test_under_a_format_node(void **state)
{
    WeirGraphNode *file = node_new("file", NULL, NULL);
    WeirGraphNode *filter = node_new("weir-cache", "storage", file);
    WeirGraphNode *format = node_new("raw", NULL, filter);

    assert_true(weir_graph_is_at(filter, "storage"));
    assert_false(weir_graph_is_at(filter, "disk"));
    chain_free(format);
}

static void test_over_a_format_node(void **state)
{
    WeirGraphNode *file = node_new("file", NULL, NULL);
    WeirGraphNode *lower = node_new("weir-cache", "storage", file);
    WeirGraphNode *format = node_new("raw", NULL, lower);
    WeirGraphNode *filter = node_new("weir-inspect", "disk", format);

    assert_true(weir_graph_is_at(filter, "disk"));
    assert_false(weir_graph_is_at(filter, "storage"));
    chain_free(filter);
}

static void test_without_a_format_node(void **state)
{
    WeirGraphNode *file = node_new("file", NULL, NULL);
    WeirGraphNode *lower = node_new("weir-cache", "disk", file);
    WeirGraphNode *filter = node_new("weir-inspect", "disk", lower);

    assert_true(weir_graph_is_at(filter, "storage"));
    assert_true(weir_graph_is_at(filter, "disk"));
    assert_true(weir_graph_is_at(lower, "storage"));
    chain_free(filter);
}

static void test_in_a_backing_chain(void **state)
{
    WeirGraphNode *file = node_new("file", NULL, NULL);
    WeirGraphNode *filter = node_new("weir-inspect", "backing", file);

    assert_false(weir_graph_is_at(filter, "storage"));
    assert_false(weir_graph_is_at(filter, "disk"));
    chain_free(filter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_under_a_format_node),
        cmocka_unit_test(test_over_a_format_node),
        cmocka_unit_test(test_without_a_format_node),
        cmocka_unit_test(test_in_a_backing_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
