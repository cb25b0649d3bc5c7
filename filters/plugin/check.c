/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/check.h"

#include <inttypes.h>
#include <stdlib.h>

#include "plugin/options.h"

/* The structs of version 1: less than this, nobody has. */
#define PLUGIN_BYTES_MIN \
    (offsetof(WeirPlugin, event) + sizeof(((WeirPlugin *)0)->event))
#define OPTION_BYTES_MIN \
    (offsetof(WeirPluginOption, max) + sizeof(int64_t))

#define OPTIONS_MAX 256
#define CAPABILITIES_ALL (WEIR_PLUGIN_CHANGES_DATA | WEIR_PLUGIN_HOLDS_DATA | \
                          WEIR_PLUGIN_MAY_BYPASS | \
                          WEIR_PLUGIN_ORDERED_FLUSH | \
                          WEIR_PLUGIN_DURABLE_WRITES | \
                          WEIR_PLUGIN_NEEDS_SIDECAR | \
                          WEIR_PLUGIN_USES_SIDECAR)

/* Where a message goes. */
typedef struct Complaint {
    char *message;
    size_t size;
} Complaint;

static int WEIR_PLUGIN_PRINTF(3, 4)
complain(const Complaint *c, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(c->message, c->size, format, args);
    va_end(args);
    return error;
}

static bool is_text(const char *text)
{
    return text && *text;
}

static bool is_word(const char *text)
{
    if (!text || *text < 'a' || *text > 'z') {
        return false;
    }
    return text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-")] == 0 &&
           strlen(text) < 64;
}

/* --- options --- */

static int check_option(const WeirPluginOption *option, const Complaint *c)
{
    if (!is_word(option->name)) {
        return complain(c, -EINVAL, "an option has no name, or one that is "
                        "not of a-z, 0-9 and '-'");
    }
    if (option->type > WEIR_PLUGIN_CHOICE) {
        return complain(c, -EINVAL, "option '%s' has the unknown type %"
                        PRIu32, option->name, option->type);
    }
    if (option->flags & ~(uint32_t)(WEIR_PLUGIN_MUTABLE |
                                    WEIR_PLUGIN_MANDATORY)) {
        return complain(c, -EINVAL, "option '%s' has unknown flags",
                        option->name);
    }
    if (!is_text(option->help)) {
        return complain(c, -EINVAL, "option '%s' has no help", option->name);
    }
    if (option->min > option->max) {
        return complain(c, -EINVAL, "option '%s' has a minimum above its "
                        "maximum", option->name);
    }
    if ((option->type == WEIR_PLUGIN_CHOICE) != is_text(option->choices)) {
        return complain(c, -EINVAL, "option '%s' has %schoices", option->name,
                        option->choices ? "" : "no ");
    }
    if (option->flags & WEIR_PLUGIN_MANDATORY) {
        return option->default_value
               ? complain(c, -EINVAL, "option '%s' is mandatory and has a "
                          "default", option->name) : 0;
    }
    if (!option->default_value) {
        return option->type == WEIR_PLUGIN_CHOICE
               ? complain(c, -EINVAL, "option '%s' has no default",
                          option->name)
               : option->type < WEIR_PLUGIN_STRING &&
                 option->type != WEIR_PLUGIN_BOOL
               ? weir_option_check_value(option, "0", c->message, c->size) : 0;
    }
    return weir_option_check_value(option, option->default_value, c->message,
                                   c->size);
}

/* Copy the table with elements of our size. */
static int adopt_options(const WeirPlugin *raw, WeirAdopted *adopted,
                         const Complaint *c)
{
    uint32_t count = adopted->plugin.option_count;
    uint32_t bytes = adopted->plugin.option_size;
    const char *from = (const char *)raw->options;

    if (count > 0 && (!from || bytes < OPTION_BYTES_MIN || bytes > 4096 ||
                      count > OPTIONS_MAX)) {
        return complain(c, -EINVAL, "its table of options makes no sense");
    }
    adopted->options = calloc(count + 1, sizeof(WeirPluginOption));
    if (!adopted->options) {
        return complain(c, -ENOMEM, "there is no memory");
    }
    for (uint32_t i = 0; i < count; i++) {
        int ret;

        memcpy(&adopted->options[i], from + (size_t)i * bytes,
               bytes < sizeof(WeirPluginOption) ? bytes
                                                : sizeof(WeirPluginOption));
        ret = check_option(&adopted->options[i], c);
        if (ret < 0) {
            return ret;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (!strcmp(adopted->options[i].name, adopted->options[j].name)) {
                return complain(c, -EINVAL, "it has two options '%s'",
                                adopted->options[i].name);
            }
        }
    }
    adopted->plugin.options = adopted->options;
    return 0;
}

/* --- the rest --- */

static int check_words(const WeirPlugin *p, const char *name,
                       const Complaint *c)
{
    if (!is_word(p->name)) {
        return complain(c, -EINVAL, "it has no name, or one that is not of "
                        "a-z, 0-9 and '-'");
    }
    if (strcmp(p->name, name)) {
        return complain(c, -EINVAL, "it is called '%s', not as its file",
                        p->name);
    }
    if (!is_text(p->version) || !is_text(p->description)) {
        return complain(c, -EINVAL, "it has no %s", is_text(p->version) ?
                        "description" : "version");
    }
    if (!p->open) {
        return complain(c, -EINVAL, "it has no callback 'open'");
    }
    if (p->plugin_class > WEIR_PLUGIN_CLASS_CACHE ||
        p->concurrency > WEIR_PLUGIN_PARALLEL) {
        return complain(c, -EINVAL, "its %s is unknown",
                        p->concurrency > WEIR_PLUGIN_PARALLEL ? "concurrency"
                                                              : "class");
    }
    if (p->alignment &&
        (p->alignment < 512 || p->alignment > 65536 ||
         p->alignment & (p->alignment - 1))) {
        return complain(c, -EINVAL, "its alignment is %" PRIu32 ", it has to "
                        "be a power of two of 512 to 65536", p->alignment);
    }
    return 0;
}

static int check_capabilities(const WeirPlugin *p, const Complaint *c)
{
    uint32_t has = p->capabilities;

    if (has & ~(uint32_t)CAPABILITIES_ALL) {
        return complain(c, -ENOEXEC, "it has capabilities that this version "
                        "does not know");
    }
    if (has & WEIR_PLUGIN_CHANGES_DATA && (!p->read || !p->write)) {
        return complain(c, -EINVAL, "it changes data, and has no callback "
                        "'%s'", p->read ? "write" : "read");
    }
    if (has & WEIR_PLUGIN_HOLDS_DATA &&
        (!p->read || !p->write || !p->flush || !p->detach)) {
        return complain(c, -EINVAL, "it holds data, and has no callback "
                        "'%s'", !p->read ? "read" : !p->write ? "write" :
                        !p->flush ? "flush" : "detach");
    }
    if (has & WEIR_PLUGIN_MAY_BYPASS &&
        has & (WEIR_PLUGIN_CHANGES_DATA | WEIR_PLUGIN_HOLDS_DATA)) {
        return complain(c, -EINVAL, "it %s data, and says that it may be "
                        "bypassed", has & WEIR_PLUGIN_CHANGES_DATA ?
                        "changes" : "holds");
    }
    return 0;
}

static int check_version(const WeirPlugin *raw, const Complaint *c)
{
    if (!raw) {
        return complain(c, -EINVAL, "it registers nothing");
    }
    if (raw->abi == 0 || raw->abi > WEIR_PLUGIN_ABI) {
        return complain(c, -ENOEXEC, "it was built for version %" PRIu32
                        " of the interface, this is version %d", raw->abi,
                        WEIR_PLUGIN_ABI);
    }
    if (raw->struct_size < PLUGIN_BYTES_MIN || raw->struct_size > 65536) {
        return complain(c, -EINVAL, "its description has %" PRIu32 " bytes, "
                        "expected %zu or more", raw->struct_size,
                        PLUGIN_BYTES_MIN);
    }
    return 0;
}

int weir_plugin_adopt(const WeirPlugin *raw, const char *name,
                      WeirAdopted *adopted, char *message, size_t size)
{
    const Complaint c = { message, size };
    int ret = check_version(raw, &c);

    memset(adopted, 0, sizeof(*adopted));
    if (ret < 0) {
        return ret;
    }
    memcpy(&adopted->plugin, raw, raw->struct_size < sizeof(WeirPlugin)
                                  ? raw->struct_size : sizeof(WeirPlugin));
    ret = check_words(&adopted->plugin, name, &c);
    ret = ret < 0 ? ret : check_capabilities(&adopted->plugin, &c);
    ret = ret < 0 ? ret : adopt_options(raw, adopted, &c);
    if (ret < 0) {
        weir_adopted_clear(adopted);
    }
    return ret;
}

void weir_adopted_clear(WeirAdopted *adopted)
{
    free(adopted->options);
    memset(adopted, 0, sizeof(*adopted));
}

/* --- what goes past it --- */

bool weir_plugin_passes_zero(const WeirPlugin *plugin)
{
    return !plugin->zero && !plugin->write;
}

bool weir_plugin_passes_discard(const WeirPlugin *plugin)
{
    return !plugin->discard && !plugin->write;
}

bool weir_plugin_passes_status(const WeirPlugin *plugin)
{
    return !plugin->block_status && !plugin->read;
}

bool weir_plugin_passes_copies_from(const WeirPlugin *plugin)
{
    return !plugin->read;
}

bool weir_plugin_passes_copies_to(const WeirPlugin *plugin)
{
    return !plugin->write;
}

/* It stands for a flush, too. */
bool weir_plugin_passes_fua(const WeirPlugin *plugin)
{
    return plugin->capabilities & WEIR_PLUGIN_DURABLE_WRITES ||
           (!plugin->write && !plugin->zero && !plugin->flush);
}
