/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/options.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>

typedef struct Value {
    bool is_set;
    int64_t number;             /* BOOL, INT, SIZE */
    char *text;                 /* STRING, CHOICE; NULL: the default */
} Value;

struct WeirValues {
    WeirPluginValues public;    /* first */
    const WeirPluginOption *table;
    uint32_t count;
    Value *values;              /* one for each of the table */
};

/* --- texts --- */

static bool parse_bool(const char *text, int64_t *number)
{
    if (!strcmp(text, "on") || !strcmp(text, "true")) {
        *number = 1;
    } else if (!strcmp(text, "off") || !strcmp(text, "false")) {
        *number = 0;
    } else {
        return false;
    }
    return true;
}

static bool parse_int(const char *text, int64_t *number)
{
    const char *digits = text + (*text == '-');
    char *end;

    if (!isdigit((unsigned char)*digits)) {
        return false;
    }
    errno = 0;
    *number = strtoll(text, &end, 10);
    return !errno && !*end;
}

/* A number, and K, M, G or T. */
static bool parse_size(const char *text, int64_t *number)
{
    static const char suffixes[] = "KMGT";
    const char *suffix;
    unsigned shift;
    char *end;

    if (!isdigit((unsigned char)*text)) {
        return false;
    }
    errno = 0;
    *number = strtoll(text, &end, 10);
    if (errno || !*end) {
        return !errno;
    }
    suffix = strchr(suffixes, toupper((unsigned char)*end));
    if (!suffix || end[1]) {
        return false;
    }
    shift = 10 * (unsigned)(suffix - suffixes + 1);
    if (*number > INT64_MAX >> shift) {
        return false;
    }
    *number <<= shift;
    return true;
}

/* Whether it is one of the words between the commas. */
static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);

    for (const char *word = choices; *word;) {
        size_t end = strcspn(word, ",");

        if (end == length && !memcmp(word, text, length)) {
            return true;
        }
        word += end + (word[end] == ',');
    }
    return false;
}

static bool is_limited(const WeirPluginOption *option)
{
    return option->min || option->max;
}

static int check_range(const WeirPluginOption *option, int64_t number,
                       char *message, size_t size)
{
    if (!is_limited(option) ||
        (number >= option->min && number <= option->max)) {
        return 0;
    }
    snprintf(message, size, "option '%s' is %" PRId64 ", it has to be %"
             PRId64 " to %" PRId64 "%s%s", option->name, number, option->min,
             option->max, option->unit ? " " : "",
             option->unit ? option->unit : "");
    return -EINVAL;
}

static int parse_number(const WeirPluginOption *option, const char *text,
                        int64_t *number, char *message, size_t size)
{
    static const char *const expected[] = {
        [WEIR_PLUGIN_BOOL] = "on or off",
        [WEIR_PLUGIN_INT]  = "an integer",
        [WEIR_PLUGIN_SIZE] = "a number of bytes, like 64K",
    };
    bool ok = option->type == WEIR_PLUGIN_BOOL ? parse_bool(text, number) :
              option->type == WEIR_PLUGIN_INT ? parse_int(text, number) :
              parse_size(text, number);

    if (!ok) {
        snprintf(message, size, "option '%s' is '%.60s', it has to be %s",
                 option->name, text, expected[option->type]);
        return -EINVAL;
    }
    return option->type == WEIR_PLUGIN_BOOL
           ? 0 : check_range(option, *number, message, size);
}

int weir_option_check_value(const WeirPluginOption *option, const char *text,
                            char *message, size_t size)
{
    int64_t number;

    if (option->type == WEIR_PLUGIN_STRING) {
        return 0;
    }
    if (option->type != WEIR_PLUGIN_CHOICE) {
        return parse_number(option, text, &number, message, size);
    }
    if (is_choice(option->choices, text)) {
        return 0;
    }
    snprintf(message, size, "option '%s' is '%.60s', it has to be one of %s",
             option->name, text, option->choices);
    return -EINVAL;
}

/* --- values --- */

/* The table's defaults have been checked. */
static void set_default(const WeirPluginOption *option, Value *value)
{
    char message[1];

    if (option->default_value && option->type < WEIR_PLUGIN_STRING) {
        parse_number(option, option->default_value, &value->number, message,
                     sizeof(message));
    }
}

WeirValues *weir_values_new(const WeirPluginHost *host,
                            const WeirPluginOption *table, uint32_t count)
{
    WeirValues *values = calloc(1, sizeof(*values));

    if (!values) {
        return NULL;
    }
    values->public.host = host;
    values->table = table;
    values->count = count;
    values->values = calloc(count + 1, sizeof(*values->values));
    if (!values->values) {
        free(values);
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        set_default(&table[i], &values->values[i]);
    }
    return values;
}

void weir_values_free(WeirValues *values)
{
    if (!values) {
        return;
    }
    for (uint32_t i = 0; i < values->count; i++) {
        free(values->values[i].text);
    }
    free(values->values);
    free(values);
}

static uint32_t find(const WeirValues *values, const char *name)
{
    uint32_t i = 0;

    while (i < values->count && strcmp(values->table[i].name, name)) {
        i++;
    }
    return i;
}

/* "a, b, c" of the names, or "none". */
static void list_names(const WeirValues *values, char *list, size_t size)
{
    size_t at = 0;

    snprintf(list, size, "none");
    for (uint32_t i = 0; i < values->count && at < size; i++) {
        at += (size_t)snprintf(list + at, size - at, "%s%s", i ? ", " : "",
                               values->table[i].name);
    }
}

int weir_values_set(WeirValues *values, const char *name, const char *text,
                    char *message, size_t size)
{
    uint32_t i = find(values, name);
    const WeirPluginOption *option = &values->table[i];
    Value *value = &values->values[i];
    char names[200];
    int ret;

    if (i == values->count) {
        list_names(values, names, sizeof(names));
        snprintf(message, size, "there is no option '%.60s', expected one of: "
                 "%s", name, names);
        return -ENOENT;
    }
    ret = weir_option_check_value(option, text, message, size);
    if (ret < 0) {
        return ret;
    }
    value->is_set = true;
    if (option->type < WEIR_PLUGIN_STRING) {
        return parse_number(option, text, &value->number, message, size);
    }
    free(value->text);
    value->text = strdup(text);
    if (!value->text) {
        snprintf(message, size, "there is no memory for option '%s'", name);
    }
    return value->text ? 0 : -ENOMEM;
}

int weir_values_complete(const WeirValues *values, char *message, size_t size)
{
    for (uint32_t i = 0; i < values->count; i++) {
        if (values->table[i].flags & WEIR_PLUGIN_MANDATORY &&
            !values->values[i].is_set) {
            snprintf(message, size, "option '%s' is missing: %s",
                     values->table[i].name, values->table[i].help);
            return -EINVAL;
        }
    }
    return 0;
}

static const char *text_at(const WeirValues *values, uint32_t i)
{
    const char *text = values->values[i].text;

    text = text ? text : values->table[i].default_value;
    return text ? text : "";
}

int weir_values_may_become(const WeirValues *values, const WeirValues *to,
                           char *message, size_t size)
{
    for (uint32_t i = 0; i < values->count; i++) {
        const WeirPluginOption *option = &values->table[i];
        bool same = option->type < WEIR_PLUGIN_STRING
                    ? values->values[i].number == to->values[i].number
                    : !strcmp(text_at(values, i), text_at(to, i));

        if (!same && !(option->flags & WEIR_PLUGIN_MUTABLE)) {
            snprintf(message, size, "option '%s' cannot be changed while the "
                     "node is open", option->name);
            return -EBUSY;
        }
    }
    return 0;
}

const WeirPluginValues *weir_values_public(const WeirValues *values)
{
    return &values->public;
}

int64_t weir_values_get_int(const WeirPluginValues *public, const char *name)
{
    const WeirValues *values = (const WeirValues *)public;
    uint32_t i = find(values, name);

    return i < values->count ? values->values[i].number : 0;
}

const char *weir_values_get_string(const WeirPluginValues *public,
                                   const char *name)
{
    const WeirValues *values = (const WeirValues *)public;
    uint32_t i = find(values, name);

    return i < values->count && values->table[i].type >= WEIR_PLUGIN_STRING
           ? text_at(values, i) : "";
}
