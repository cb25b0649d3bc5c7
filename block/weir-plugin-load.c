/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of plugins, and what they say of themselves.  Main thread. */
#include "qemu/osdep.h"
#include <dlfcn.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "weir-plugin-host.h"

#define ENTRY "weir_plugin_entry"

static QLIST_HEAD(, WeirLoaded) all_loaded =
    QLIST_HEAD_INITIALIZER(all_loaded);

static char *search_path(void)
{
    const char *path = g_getenv("WEIR_PLUGIN_PATH");

    if (path && *path) {
        return g_strdup(path);
    }
    /* the packages' prefix is lib/weir itself */
    g_autofree char *usual = get_relocated_path(CONFIG_PREFIX
                                                "/lib/weir/plugins");
    g_autofree char *packaged = get_relocated_path(CONFIG_PREFIX "/plugins");

    return g_strjoin(":", usual, packaged, NULL);
}

static bool find_file(const char *plugin, WeirPluginFound *found,
                      Error **errp)
{
    g_autofree char *folders = search_path();
    char message[512];

    if (weir_plugin_find(plugin, folders, found, message,
                         sizeof(message)) < 0) {
        error_setg(errp, "weir-plugin: %s", message);
        return false;
    }
    if (weir_plugin_look(found) < 0) {
        error_setg(errp, "weir-plugin: '%s' is refused: %s", found->path,
                   found->problem);
        return false;
    }
    return true;
}

/* --- loading --- */

static bool adopt(WeirLoaded *loaded, const char *name, Error **errp)
{
    const WeirPlugin *(*entry)(void);
    char message[256];
    int ret;

    *(void **)&entry = dlsym(loaded->library, ENTRY);
    if (!entry) {
        error_setg(errp, "weir-plugin: '%s' is refused: it has no symbol '%s'",
                   loaded->path, ENTRY);
        return false;
    }
    ret = weir_plugin_adopt(entry(), name, &loaded->adopted, message,
                            sizeof(message));
    if (ret < 0) {
        error_setg(errp, "weir-plugin: '%s' is refused: %s", loaded->path,
                   message);
        return false;
    }
    loaded->plugin = &loaded->adopted.plugin;
    ret = loaded->plugin->load ? loaded->plugin->load(&weir_plugin_host) : 0;
    if (ret != 0) {
        weir_adopted_clear(&loaded->adopted);
        error_setg_errno(errp, ret < 0 ? -ret : EINVAL, "weir-plugin: '%s' "
                         "does not want to be used", loaded->path);
    }
    return ret == 0;
}

static WeirLoaded *load_file(const WeirPluginFound *found, Error **errp)
{
    WeirLoaded *loaded = g_new0(WeirLoaded, 1);

    loaded->path = g_strdup(found->path);
    loaded->abi = found->abi;
    loaded->library = dlopen(found->path, RTLD_NOW | RTLD_LOCAL);
    if (!loaded->library) {
        error_setg(errp, "weir-plugin: '%s' cannot be loaded: %s",
                   found->path, dlerror());
    } else if (adopt(loaded, found->name, errp)) {
        qemu_co_mutex_init(&loaded->serial);
        QLIST_INSERT_HEAD(&all_loaded, loaded, next);
        return loaded;
    } else {
        dlclose(loaded->library);
    }
    g_free(loaded->path);
    g_free(loaded);
    return NULL;
}

WeirLoaded *weir_plugin_load(const char *plugin, Error **errp)
{
    g_autofree WeirPluginFound *found = g_new0(WeirPluginFound, 1);
    WeirLoaded *loaded;

    if (!find_file(plugin, found, errp)) {
        return NULL;
    }
    QLIST_FOREACH(loaded, &all_loaded, next) {
        if (!strcmp(loaded->path, found->path)) {
            break;
        }
    }
    if (!loaded) {
        loaded = load_file(found, errp);
    }
    if (loaded) {
        loaded->users++;
    }
    return loaded;
}

void weir_plugin_unload(WeirLoaded *loaded)
{
    if (!loaded || --loaded->users > 0) {
        return;
    }
    QLIST_REMOVE(loaded, next);
    if (loaded->plugin->unload) {
        loaded->plugin->unload();
    }
    weir_adopted_clear(&loaded->adopted);
    dlclose(loaded->library);
    g_free(loaded->path);
    g_free(loaded);
}

/* --- options --- */

/* A single value as text, or NULL. */
static char *to_text(QObject *value)
{
    switch (qobject_type(value)) {
    case QTYPE_QSTRING:
        return g_strdup(qstring_get_str(qobject_to(QString, value)));
    case QTYPE_QBOOL:
        return g_strdup(qbool_get_bool(qobject_to(QBool, value)) ? "on"
                                                                 : "off");
    case QTYPE_QNUM:
        return qnum_to_string(qobject_to(QNum, value));
    default:
        return NULL;
    }
}

static bool set_value(const WeirLoaded *loaded, WeirValues *values,
                      const QDictEntry *entry, Error **errp)
{
    g_autofree char *text = to_text(qdict_entry_value(entry));
    const char *name = qdict_entry_key(entry);
    char message[512];

    if (!text) {
        error_setg(errp, "weir-plugin: Plugin '%s': option '%s' has to be a "
                   "single value", loaded->plugin->name, name);
        return false;
    }
    if (weir_values_set(values, name, text, message, sizeof(message)) < 0) {
        error_setg(errp, "weir-plugin: Plugin '%s': %s", loaded->plugin->name,
                   message);
        return false;
    }
    return true;
}

static bool check_values(const WeirLoaded *loaded, const WeirValues *values,
                         Error **errp)
{
    const WeirPlugin *plugin = loaded->plugin;
    char message[512] = "its options do not fit each other";
    int ret = weir_values_complete(values, message, sizeof(message));

    if (ret == 0 && plugin->check_options) {
        ret = plugin->check_options(weir_values_public(values), message,
                                    sizeof(message));
        message[sizeof(message) - 1] = '\0';
    }
    if (ret != 0) {
        error_setg(errp, "weir-plugin: Plugin '%s': %s", plugin->name,
                   message);
    }
    return ret == 0;
}

WeirValues *weir_plugin_parse_values(const WeirLoaded *loaded,
                                     QObject *options, Error **errp)
{
    const WeirPlugin *plugin = loaded->plugin;
    QDict *dict = qobject_to(QDict, options);
    WeirValues *values;
    bool ok = true;

    if (options && !dict) {
        error_setg(errp, "weir-plugin: Parameter 'options' has to be a "
                   "dictionary of the plugin's options");
        return NULL;
    }
    values = weir_values_new(&weir_plugin_host, plugin->options,
                             plugin->option_count);
    if (!values) {
        error_setg(errp, "weir-plugin: There is no memory");
        return NULL;
    }
    for (const QDictEntry *e = dict ? qdict_first(dict) : NULL; e && ok;
         e = qdict_next(dict, e)) {
        ok = set_value(loaded, values, e, errp);
    }
    if (ok && check_values(loaded, values, errp)) {
        return values;
    }
    weir_values_free(values);
    return NULL;
}

QObject *weir_plugin_values_to_qobject(const WeirLoaded *loaded,
                                       const WeirValues *values)
{
    const WeirPluginValues *public = weir_values_public(values);
    QDict *dict = qdict_new();

    for (uint32_t i = 0; i < loaded->plugin->option_count; i++) {
        const WeirPluginOption *option = &loaded->plugin->options[i];
        int64_t number = weir_values_get_int(public, option->name);

        if (option->type >= WEIR_PLUGIN_STRING) {
            qdict_put_str(dict, option->name,
                          weir_values_get_string(public, option->name));
        } else if (option->type == WEIR_PLUGIN_BOOL) {
            qdict_put_bool(dict, option->name, number);
        } else {
            qdict_put_int(dict, option->name, number);
        }
    }
    return QOBJECT(dict);
}

/* --- what is told of them --- */

WeirFilterClass weir_plugin_class_to_qapi(const WeirPlugin *plugin)
{
    static const WeirFilterClass classes[] = {
        [WEIR_PLUGIN_CLASS_OTHER]       = WEIR_FILTER_CLASS_OTHER,
        [WEIR_PLUGIN_CLASS_INSPECTION]  = WEIR_FILTER_CLASS_INSPECTION,
        [WEIR_PLUGIN_CLASS_QOS]         = WEIR_FILTER_CLASS_QOS,
        [WEIR_PLUGIN_CLASS_COMPRESSION] = WEIR_FILTER_CLASS_COMPRESSION,
        [WEIR_PLUGIN_CLASS_ENCRYPTION]  = WEIR_FILTER_CLASS_ENCRYPTION,
        [WEIR_PLUGIN_CLASS_REPLICATION] = WEIR_FILTER_CLASS_REPLICATION,
        [WEIR_PLUGIN_CLASS_CACHE]       = WEIR_FILTER_CLASS_CACHE,
    };

    return classes[plugin->plugin_class];
}

static void add_file(const WeirPluginFound *found, void *opaque)
{
    WeirPluginFileList ***tail = opaque;
    WeirPluginFile *file = g_new0(WeirPluginFile, 1);

    file->name = g_strdup(found->name);
    file->path = g_strdup(found->path);
    file->has_abi = found->abi;
    file->abi = found->abi;
    file->problem = *found->problem ? g_strdup(found->problem) : NULL;
    QAPI_LIST_APPEND(*tail, file);
}

WeirPluginFileList *weir_plugin_list_files(void)
{
    g_autofree char *folders = search_path();
    WeirPluginFileList *list = NULL, **tail = &list;

    weir_plugin_list(folders, add_file, &tail);
    return list;
}

static strList *words(const char *choices)
{
    g_auto(GStrv) split = g_strsplit(choices, ",", -1);
    strList *list = NULL, **tail = &list;

    for (char **word = split; *word; word++) {
        QAPI_LIST_APPEND(tail, g_strdup(*word));
    }
    return list;
}

static WeirPluginOptionInfo *describe_option(const WeirPluginOption *option)
{
    static const WeirPluginOptionType types[] = {
        [WEIR_PLUGIN_BOOL]   = WEIR_PLUGIN_OPTION_TYPE_BOOL,
        [WEIR_PLUGIN_INT]    = WEIR_PLUGIN_OPTION_TYPE_INT,
        [WEIR_PLUGIN_SIZE]   = WEIR_PLUGIN_OPTION_TYPE_SIZE,
        [WEIR_PLUGIN_STRING] = WEIR_PLUGIN_OPTION_TYPE_STRING,
        [WEIR_PLUGIN_CHOICE] = WEIR_PLUGIN_OPTION_TYPE_CHOICE,
    };
    WeirPluginOptionInfo *info = g_new0(WeirPluginOptionInfo, 1);
    bool is_limited = option->min || option->max;

    info->name = g_strdup(option->name);
    info->type = types[option->type];
    info->unit = g_strdup(option->unit);
    info->q_default = g_strdup(option->default_value);
    info->has_min = info->has_max = is_limited;
    info->min = option->min;
    info->max = option->max;
    info->has_choices = option->choices;
    info->choices = option->choices ? words(option->choices) : NULL;
    info->mandatory = option->flags & WEIR_PLUGIN_MANDATORY;
    info->q_mutable = option->flags & WEIR_PLUGIN_MUTABLE;
    info->help = g_strdup(option->help);
    return info;
}

static strList *describe_callbacks(const WeirPlugin *p)
{
    const struct {
        const char *name;
        bool there;
    } callbacks[] = {
        { "read", p->read }, { "write", p->write }, { "zero", p->zero },
        { "discard", p->discard }, { "flush", p->flush },
        { "block-status", p->block_status }, { "resize", p->resize },
        { "snapshot", p->snapshot_before || p->snapshot_after },
        { "drain", p->drain_begin || p->drain_end },
        { "migration", p->inactivate || p->activate },
        { "detach", p->detach }, { "statistics", p->statistics },
    };
    strList *list = NULL, **tail = &list;

    for (size_t i = 0; i < ARRAY_SIZE(callbacks); i++) {
        if (callbacks[i].there) {
            QAPI_LIST_APPEND(tail, g_strdup(callbacks[i].name));
        }
    }
    return list;
}

static WeirPluginDescription *describe(const WeirLoaded *loaded)
{
    static const char *const concurrency[] = {
        [WEIR_PLUGIN_SERIAL]          = "process",
        [WEIR_PLUGIN_SERIAL_PER_DISK] = "disk",
        [WEIR_PLUGIN_PARALLEL]        = "parallel",
    };
    WeirPluginDescription *d = g_new0(WeirPluginDescription, 1);
    WeirPluginOptionInfoList **tail = &d->options;
    const WeirPlugin *p = loaded->plugin;

    d->name = g_strdup(p->name);
    d->path = g_strdup(loaded->path);
    d->version = g_strdup(p->version);
    d->description = g_strdup(p->description);
    d->abi = loaded->abi;
    d->q_class = weir_plugin_class_to_qapi(p);
    d->concurrency = g_strdup(concurrency[p->concurrency]);
    d->alignment = MAX(p->alignment, 1);
    d->changes_data = p->capabilities & WEIR_PLUGIN_CHANGES_DATA;
    d->holds_data = p->capabilities & WEIR_PLUGIN_HOLDS_DATA;
    d->may_bypass = p->capabilities & WEIR_PLUGIN_MAY_BYPASS;
    d->ordered_flush = p->capabilities & WEIR_PLUGIN_ORDERED_FLUSH;
    d->durable_writes = p->capabilities & WEIR_PLUGIN_DURABLE_WRITES;
    d->needs_sidecar = p->capabilities & WEIR_PLUGIN_NEEDS_SIDECAR;
    d->uses_sidecar = p->capabilities & (WEIR_PLUGIN_NEEDS_SIDECAR |
                                         WEIR_PLUGIN_USES_SIDECAR);
    d->callbacks = describe_callbacks(p);
    for (uint32_t i = 0; i < p->option_count; i++) {
        QAPI_LIST_APPEND(tail, describe_option(&p->options[i]));
    }
    return d;
}

/* One that is in use is what it is, whatever has become of its file. */
static WeirPluginDescription *describe_in_use(const char *path)
{
    WeirLoaded *loaded;

    QLIST_FOREACH(loaded, &all_loaded, next) {
        if (!strcmp(loaded->path, path)) {
            return describe(loaded);
        }
    }
    return NULL;
}

WeirPluginDescription *weir_plugin_describe(const char *plugin, Error **errp)
{
    WeirPluginDescription *description = describe_in_use(plugin);
    WeirLoaded *loaded = description ? NULL : weir_plugin_load(plugin, errp);

    if (loaded) {
        description = describe(loaded);
        weir_plugin_unload(loaded);
    }
    return description;
}
