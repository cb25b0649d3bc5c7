/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "carried.h"

#include <gio/gio.h>
#include <string.h>

/* A QEMU that somebody has got hold of could send anything. */
#define CARRIED_MAX_JSON_BYTES (4u << 20)

static GBytes *carried_compress(const char *text)
{
    g_autoptr(GConverter) zlib = G_CONVERTER(g_zlib_compressor_new(
        G_ZLIB_COMPRESSOR_FORMAT_ZLIB, -1));
    g_autoptr(GOutputStream) memory = g_memory_output_stream_new_resizable();
    g_autoptr(GOutputStream) stream = g_converter_output_stream_new(memory,
                                                                    zlib);

    if (!g_output_stream_write_all(stream, text, strlen(text), NULL, NULL,
                                   NULL) ||
        !g_output_stream_close(stream, NULL, NULL)) {
        return NULL;
    }
    return g_memory_output_stream_steal_as_bytes(
        G_MEMORY_OUTPUT_STREAM(memory));
}

static JsonNode *carried_expand(const char *text)
{
    gsize length;
    g_autofree guchar *data = g_base64_decode(text, &length);
    g_autoptr(GConverter) zlib = G_CONVERTER(g_zlib_decompressor_new(
        G_ZLIB_COMPRESSOR_FORMAT_ZLIB));
    g_autoptr(GInputStream) memory = g_memory_input_stream_new_from_data(
        data, (gssize)length, NULL);
    g_autoptr(GInputStream) stream = g_converter_input_stream_new(memory,
                                                                  zlib);
    g_autofree char *json = g_malloc(CARRIED_MAX_JSON_BYTES);
    gsize json_length;

    if (!g_input_stream_read_all(stream, json, CARRIED_MAX_JSON_BYTES,
                                 &json_length, NULL, NULL)) {
        return NULL;
    }
    return weir_json_parse(json, json_length, NULL);
}

static JsonObject *carried_object(const WeirRecord *record)
{
    g_autoptr(JsonObject) json = weir_record_json(record);
    g_autofree char *text = weir_json_object_text(json, false);
    g_autoptr(GBytes) bytes = carried_compress(text);
    g_autofree char *data = NULL;
    JsonObject *object;
    gconstpointer start;
    gsize length;

    if (!bytes) {
        return NULL;
    }
    start = g_bytes_get_data(bytes, &length);
    data = g_base64_encode(start, length);
    if (strlen(data) > WEIR_CARRIED_MAX_BYTES) {
        return NULL;
    }
    object = json_object_new();
    json_object_set_string_member(object, "qom-type", "secret");
    json_object_set_string_member(object, "id", WEIR_CARRIED_ID);
    json_object_set_string_member(object, "format", "base64");
    json_object_set_string_member(object, "data", data);
    return object;
}

char *weir_carried_object(const WeirRecord *record)
{
    g_autoptr(JsonObject) object = carried_object(record);

    return object ? weir_json_object_text(object, false) : NULL;
}

void weir_carried_replace(WeirQmp *qmp, const WeirRecord *record,
                          int timeout_ms)
{
    JsonObject *old = json_object_new();
    JsonObject *object = carried_object(record);
    g_autoptr(JsonNode) deleted = NULL;
    g_autoptr(JsonNode) added = NULL;

    json_object_set_string_member(old, "id", WEIR_CARRIED_ID);
    deleted = weir_qmp_execute(qmp, "object-del", old, timeout_ms, NULL);
    if (object) {
        added = weir_qmp_execute(qmp, "object-add", object, timeout_ms, NULL);
    }
}

WeirRecord *weir_carried_ask(WeirQmp *qmp, const char *name, int timeout_ms,
                             GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(JsonNode) node = NULL;
    const char *text;
    WeirRecord *record;

    json_object_set_string_member(arguments, "path",
                                  "/objects/" WEIR_CARRIED_ID);
    json_object_set_string_member(arguments, "property", "data");
    answer = weir_qmp_execute(qmp, "qom-get", arguments, timeout_ms, &local);
    if (g_error_matches(local, WEIR_ERROR, WEIR_ERROR_QMP)) {
        g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                    "its QEMU carries no record");
        return NULL;
    }
    if (!answer) {
        g_propagate_error(error, g_steal_pointer(&local));
        return NULL;
    }
    text = weir_json_as_string(answer);
    if (text && strlen(text) <= WEIR_CARRIED_MAX_BYTES) {
        node = carried_expand(text);
    }
    record = weir_record_from_json(name, weir_json_as_object(node));
    if (!record) {
        weir_set_error(error, "its QEMU carries what is no record");
    }
    return record;
}
