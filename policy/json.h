/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON from elsewhere and to elsewhere: json-glib's getters complain on the
 * terminal about a member that is missing or of another type, these do not.
 */
#ifndef WEIR_JSON_H
#define WEIR_JSON_H

#include <json-glib/json-glib.h>
#include <stdbool.h>

#include "error.h"

/*
 * Parse @length bytes of JSON text.  Nesting is bounded, so that the text may
 * come from an untrusted peer.  Returns a node that the caller unrefs, or
 * NULL with @error set.
 */
JsonNode *weir_json_parse(const char *text, gsize length, GError **error);

/*
 * Text of @node: in one line, or with @pretty over several with an indent of
 * two.  Numbers have as many digits as it takes to read the same number back.
 * The caller frees it.
 */
char *weir_json_text(JsonNode *node, bool pretty);

/* As weir_json_text() for an object, which stays the caller's. */
char *weir_json_object_text(JsonObject *object, bool pretty);

/* @node as an object or array, owned by @node; NULL if it is none. */
JsonObject *weir_json_as_object(JsonNode *node);
JsonArray *weir_json_as_array(JsonNode *node);
/* @node as a string, owned by @node; NULL if it is none. */
const char *weir_json_as_string(JsonNode *node);

/*
 * Member @name of @object, owned by it.  NULL, @fallback or 0 if it is missing
 * or of another type; @object may be NULL.
 */
JsonObject *weir_json_object(JsonObject *object, const char *name);
JsonArray *weir_json_array(JsonObject *object, const char *name);
const char *weir_json_string(JsonObject *object, const char *name);
gint64 weir_json_int(JsonObject *object, const char *name, gint64 fallback);
double weir_json_number(JsonObject *object, const char *name, double fallback);
bool weir_json_bool(JsonObject *object, const char *name, bool fallback);

/* Number of elements of @array, 0 for NULL. */
guint weir_json_length(JsonArray *array);
/* Element @index of @array as an object or string; NULL if it is none. */
JsonObject *weir_json_object_at(JsonArray *array, guint index);
const char *weir_json_string_at(JsonArray *array, guint index);
/* The same as an integer; @fallback if it is none. */
gint64 weir_json_int_at(JsonArray *array, guint index, gint64 fallback);

/*
 * A copy of which members can be replaced; what is in objects and arrays is
 * shared.  The caller unrefs it.
 */
JsonObject *weir_json_copy(JsonObject *object);

/* Append string @value, or null for NULL. */
void weir_json_set_string(JsonObject *object, const char *name,
                          const char *value);

#endif
