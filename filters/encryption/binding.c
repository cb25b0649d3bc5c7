/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The token of a detached header that tells how long the data of its disk is.
 * Other programs keep it, and need not know what it says:
 *
 *     { "type": "weir-data", "keyslots": [],
 *       "length": "1073741824", "length-max": "2147483648" }
 */
#include <errno.h>
#include <stdio.h>

#include "encryption/header-int.h"
#include "encryption/json.h"

#define TOKEN_TYPE "weir-data"
#define TOKEN_TEXT_BYTES 192

/* The first token of ours, with its number, or NULL; n gets how many. */
static json_object *find_token(json_object *json, int *number, unsigned *n)
{
    json_object *tokens = weir_json_member(json, "tokens");
    json_object *found = NULL;

    *n = 0;
    for (int i = 0; i < WEIR_HEADER_TOKENS; i++) {
        json_object *token = weir_json_numbered(tokens, i);

        if (!weir_json_is(token, "type", TOKEN_TYPE)) {
            continue;
        }
        if ((*n)++ == 0) {
            found = token;
            *number = i;
        }
    }
    return found;
}

int weir_header_read_binding(WeirHeader *header, json_object *json, char *err,
                             size_t err_size)
{
    WeirHeaderInfo *info = &header->info;
    unsigned n;
    int number;
    json_object *token = find_token(json, &number, &n);
    bool good;

    info->is_bound = token;
    info->bound_min_bytes = info->bound_max_bytes = 0;
    if (!token) {
        return 0;
    }
    good = n == 1 && weir_json_u64(token, "length", &info->bound_min_bytes);
    info->bound_max_bytes = info->bound_min_bytes;
    if (good && weir_json_member(token, "length-max")) {
        good = weir_json_u64(token, "length-max", &info->bound_max_bytes);
    }
    if (!good || info->bound_max_bytes < info->bound_min_bytes ||
        info->bound_max_bytes > INT64_MAX) {
        snprintf(err, err_size, "the header's token %d, of type " TOKEN_TYPE
                 ", is not valid, or not the only one of them; 'cryptsetup "
                 "token remove' removes it", number);
        return -EINVAL;
    }
    return 0;
}

static void make_text(char text[TOKEN_TEXT_BYTES], uint64_t min_bytes,
                      uint64_t max_bytes)
{
    int n = snprintf(text, TOKEN_TEXT_BYTES, "{\"type\":\"" TOKEN_TYPE "\","
                     "\"keyslots\":[],\"length\":\"%llu\"",
                     (unsigned long long)min_bytes);

    if (max_bytes != min_bytes) {
        n += snprintf(text + n, TOKEN_TEXT_BYTES - n, ",\"length-max\":"
                      "\"%llu\"", (unsigned long long)max_bytes);
    }
    snprintf(text + n, TOKEN_TEXT_BYTES - n, "}");
}

static int bind_to(WeirHeader *header, json_object *json, uint64_t min_bytes,
                   uint64_t max_bytes, char *err, size_t err_size)
{
    char text[TOKEN_TEXT_BYTES];
    int number = CRYPT_ANY_TOKEN;
    unsigned n;

    find_token(json, &number, &n);
    make_text(text, min_bytes, max_bytes);
    header->log[0] = 0;
    if (crypt_token_json_set(header->device, number, text) < 0) {
        return weir_header_fail(header, -EINVAL, err, err_size, "the header "
                                "cannot be bound to a length");
    }
    header->info.is_bound = true;
    header->info.bound_min_bytes = min_bytes;
    header->info.bound_max_bytes = max_bytes;
    return 0;
}

int weir_header_bind(WeirHeader *header, uint64_t min_bytes,
                     uint64_t max_bytes, char *err, size_t err_size)
{
    json_object *json;
    int ret;

    weir_header_enter();
    json = weir_header_json(header);
    ret = bind_to(header, json, min_bytes, max_bytes, err, err_size);
    json_object_put(json);
    weir_header_leave();
    return ret;
}
