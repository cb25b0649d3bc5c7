/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Policies are files from anywhere.  An input is up to FUZZ_FILES files, cut
 * at form feeds: the policy, then those called b, c and so on, which it may
 * refer to.
 *
 *   fuzz-policy tests/fuzz/policy
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "inherit.h"
#include "policy.h"
#include "small-schema.h"

#define FUZZ_FILES 6

typedef struct FuzzFile {
    const char *data;
    gsize length;
} FuzzFile;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A place comes first; and what validate.c lets pass, libcyaml takes. */
static void fuzz_check_message(const char *message)
{
    char name;
    unsigned line;
    unsigned column;
    int length = 0;

    g_assert(sscanf(message, "%c.yaml:%u:%u: %n", &name, &line, &column,
                    &length) == 3);
    g_assert(line > 0 && column > 0 && length > 0);
    g_assert(!g_str_has_prefix(message + length, "libcyaml: "));
    for (; *message; message++) {
        g_assert((unsigned char)*message >= ' ' || *message == '\n');
    }
}

/* The text that a policy of an input refers to. */
static char *fuzz_read(void *opaque, const char *name, gsize *length,
                       char **file, GError **error)
{
    const FuzzFile *files = opaque;
    int index = name[0] - 'a';

    g_assert(weir_name_ok(name, WEIR_POLICY_MAX_NAME));
    if (index < 0 || index >= FUZZ_FILES || name[1] || !files[index].data) {
        weir_set_error(error, "there is no %s", name);
        return NULL;
    }
    *length = files[index].length;
    *file = g_strconcat(name, ".yaml", NULL);
    return g_strndup(files[index].data, *length);
}

/* Cut an input into files. */
static void fuzz_split(const char *data, gsize length, FuzzFile *files)
{
    for (int i = 0; i < FUZZ_FILES && data; i++) {
        const char *end = memchr(data, '\f', length);

        files[i].data = data;
        files[i].length = end ? (gsize)(end - data) : length;
        length -= files[i].length + (end != NULL);
        data = end ? end + 1 : NULL;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static WeirSchema *schema;
    FuzzFile files[FUZZ_FILES] = { 0 };
    const WeirPolicySource source = { .read = fuzz_read, .opaque = files };
    g_autoptr(GError) error = NULL;
    g_autoptr(WeirPolicy) policy = NULL;

    if (!schema) {
        schema = small_schema_new();
    }
    fuzz_split((const char *)data, size, files);
    policy = weir_policy_parse(files[0].data, files[0].length, "a.yaml", false,
                               &source, schema, &error);
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
