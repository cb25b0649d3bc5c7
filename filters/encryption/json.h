/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_JSON_H
#define WEIR_ENCRYPTION_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Look things up in the JSON of a header, with json-c, whatever that JSON is:
 * what is not there, or of another type than expected, is told as missing.
 * Objects and values may be NULL. Of members with the same name the last one
 * counts, as it does for libcryptsetup. Thread-safe for different objects.
 */

/* Values in each other. libcryptsetup takes no more. */
#define WEIR_JSON_DEPTH_MAX 32

/*
 * Read a text that is one object and nothing else. Returns it, to be given back
 * with json_object_put(), or NULL. text may be NULL.
 */
json_object *weir_json_parse(const char *text);

/* A member of an object by name, or by number; NULL when there is none. */
json_object *weir_json_member(json_object *object, const char *name);
json_object *weir_json_numbered(json_object *object, unsigned number);

/*
 * The first member of an object, for
 *     for (struct lh_entry *e = weir_json_first(object); e; e = e->next)
 * with lh_entry_k() and lh_entry_v(). The object must not lose members
 * meanwhile.
 */
struct lh_entry *weir_json_first(json_object *object);

/* How many members an object has; 0 for all else. */
unsigned weir_json_count(json_object *object);

/* The text of a member that is a string without zeroes in it; else "". */
const char *weir_json_string(json_object *object, const char *name);

/* Whether a member is this string. */
bool weir_json_is(json_object *object, const char *name, const char *string);

/* Whether an array has this string. */
bool weir_json_has(json_object *array, const char *string);

/*
 * A member that is a number, or a string of digits as LUKS2 has them for 64
 * bits. False for all else, out is 0 then.
 */
bool weir_json_u64(json_object *object, const char *name, uint64_t *out);

#endif
