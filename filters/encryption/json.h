/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_ENCRYPTION_JSON_H
#define WEIR_ENCRYPTION_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Look things up in JSON text that a JSON library has written: well-formed,
 * names without needless escapes, no name twice in an object. Other text gives
 * wrong answers, but nothing is read beyond its final 0. Values are pointers
 * into the text. Thread-safe.
 */

/*
 * Go through the members of an object, or the values of an array.
 * at: NULL before the first call, kept by the caller between them.
 * name: gets where the member's name begins, and name_bytes its length; both
 * may be NULL.
 * Returns the next value, or NULL at the end and when value is neither.
 */
const char *weir_json_next(const char *value, const char **at,
                           const char **name, size_t *name_bytes);

/* A member of an object by name; NULL when there is none. value may be NULL. */
const char *weir_json_member(const char *value, const char *name);

/* How many members or values; 0 for NULL and for what holds none. */
size_t weir_json_count(const char *value);

/* Whether it is this string. value may be NULL. */
bool weir_json_is(const char *value, const char *string);

/* A number, or a string of digits. False for all else, out is 0 then. */
bool weir_json_u64(const char *value, uint64_t *out);

#endif
