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

/* A record as QEMU keeps it, to be freed; NULL: it is too long. */
static char *carried_pack(JsonObject *record)
{
    g_autofree char *text = weir_json_object_text(record, false);
    g_autoptr(GBytes) bytes = carried_compress(text);
    g_autofree char *data = NULL;
    gconstpointer start;
    gsize length;

    if (!bytes) {
        return NULL;
    }
    start = g_bytes_get_data(bytes, &length);
    data = g_base64_encode(start, length);
    return strlen(data) <= WEIR_CARRIED_MAX_BYTES ? g_steal_pointer(&data)
                                                  : NULL;
}

static JsonObject *carried_object(const char *data)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "qom-type", "secret");
    json_object_set_string_member(object, "id", WEIR_CARRIED_ID);
    json_object_set_string_member(object, "format", "base64");
    json_object_set_string_member(object, "data", data);
    return object;
}

char *weir_carried_object(const WeirRecord *record)
{
    g_autoptr(JsonObject) json = weir_record_json(record);
    g_autofree char *data = carried_pack(json);
    g_autoptr(JsonObject) object = data ? carried_object(data) : NULL;

    return object ? weir_json_object_text(object, false) : NULL;
}

/* The arguments of qom-get and qom-set, but for a value. */
static JsonObject *carried_property(void)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "path",
                                  "/objects/" WEIR_CARRIED_ID);
    json_object_set_string_member(arguments, "property", "data");
    return arguments;
}

WeirRecord *weir_carried_ask(WeirQmp *qmp, const char *name, int timeout_ms,
                             GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) answer = weir_qmp_execute(
        qmp, "qom-get", carried_property(), timeout_ms, &local);
    g_autoptr(JsonNode) node = NULL;
    const char *text;
    WeirRecord *record;

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

bool weir_carried_put(WeirQmp *qmp, const WeirRecord *record, int timeout_ms,
                      GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(WeirRecord) old = weir_carried_ask(qmp, record->name, timeout_ms,
                                                 &local);
    g_autoptr(JsonObject) json = weir_record_json(record);
    bool none = g_error_matches(local, WEIR_ERROR, WEIR_ERROR_NOT_FOUND);
    g_autofree char *data = NULL;
    g_autoptr(JsonNode) answer = NULL;
    JsonObject *arguments;

    if (old) {
        json_object_set_int_member(json, "pid", old->pid);
        json_object_set_int_member(json, "start-time", old->start_time);
    }
    data = carried_pack(json);
    if (data) {
        arguments = none ? carried_object(data) : carried_property();
        if (!none) {
            json_object_set_string_member(arguments, "value", data);
        }
        answer = weir_qmp_execute(qmp, none ? "object-add" : "qom-set",
                                  arguments, timeout_ms, error);
    } else if (!none) {
        arguments = json_object_new();
        json_object_set_string_member(arguments, "id", WEIR_CARRIED_ID);
        answer = weir_qmp_execute(qmp, "object-del", arguments, timeout_ms,
                                  error);
    }
    return answer || (none && !data);
}
