/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Denies writes to some places of a disk, for ever: the list of them is kept in
 * a sidecar, and the option "add" makes it longer.
 *
 * The sidecar has the list in its first sector, which a disk writes wholly or
 * not at all:
 *
 *   0   8   "WEIRDENY"; zeroes: nothing is denied yet
 *   8   8   number of places
 *   16  16  of each: offset and length
 *
 * Numbers are in little-endian order.
 */
#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <weir-plugin.h>

#define SECTOR 512
#define PLACES_MAX 31
#define MAGIC "WEIRDENY"

typedef struct Place {
    uint64_t offset;
    uint64_t bytes;
} Place;

typedef struct List {
    unsigned count;
    Place places[PLACES_MAX];
} List;

typedef struct Deny {
    WeirPluginDisk *disk;
    WeirPluginLock *saving;     /* over I/O on the sidecar */
    pthread_mutex_t lock;       /* for what follows */
    List list;
    uint64_t denied;            /* requests */
} Deny;

/* --- the list --- */

/* Two may be the same: then the list stays as it is. */
static int list_add(List *list, Place place)
{
    unsigned i;

    for (i = 0; i < list->count; i++) {
        if (list->places[i].offset == place.offset &&
            list->places[i].bytes == place.bytes) {
            return 0;
        }
    }
    if (list->count == PLACES_MAX) {
        return -ENOSPC;
    }
    list->places[list->count++] = place;
    return 0;
}

/* A number from *text on. */
static int parse_number(const char **text, uint64_t *number)
{
    char *end;

    if (!isdigit((unsigned char)**text)) {
        return -EINVAL;
    }
    errno = 0;
    *number = strtoull(*text, &end, 10);
    *text = end;
    return errno || *number > INT64_MAX ? -EINVAL : 0;
}

/* Add what "OFFSET+BYTES,OFFSET+BYTES" has. */
static int list_parse(List *list, const char *text)
{
    while (*text) {
        Place place;
        int ret = parse_number(&text, &place.offset);

        if (ret < 0 || *text++ != '+' || parse_number(&text, &place.bytes) ||
            place.bytes == 0 || (*text && *text != ',') ||
            (*text == ',' && !text[1])) {
            return -EINVAL;
        }
        text += *text == ',';
        ret = list_add(list, place);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int list_has(const List *list, uint64_t offset, uint64_t bytes)
{
    unsigned i;

    for (i = 0; i < list->count; i++) {
        const Place *place = &list->places[i];

        if (offset < place->offset + place->bytes &&
            place->offset < offset + bytes) {
            return 1;
        }
    }
    return 0;
}

/* --- the sidecar --- */

static void put(unsigned char *to, uint64_t value)
{
    int i;

    for (i = 0; i < 8; i++) {
        to[i] = (unsigned char)(value >> 8 * i);
    }
}

static uint64_t get(const unsigned char *from)
{
    uint64_t value = 0;
    int i;

    for (i = 7; i >= 0; i--) {
        value = value << 8 | from[i];
    }
    return value;
}

static int save(WeirPluginIo *io, const List *list)
{
    unsigned char sector[SECTOR] = MAGIC;
    unsigned i;

    put(sector + 8, list->count);
    for (i = 0; i < list->count; i++) {
        put(sector + 16 + 16 * i, list->places[i].offset);
        put(sector + 24 + 16 * i, list->places[i].bytes);
    }
    return weir_plugin_write(io, WEIR_PLUGIN_SIDECAR, 0, SECTOR, sector,
                             WEIR_PLUGIN_FUA);
}

/* Believes nothing of what it reads. */
static int load(WeirPluginIo *io, List *list)
{
    static const unsigned char nothing[SECTOR];
    unsigned char sector[SECTOR];
    uint64_t i, count;
    int ret = weir_plugin_read(io, WEIR_PLUGIN_SIDECAR, 0, SECTOR, sector);

    list->count = 0;
    if (ret < 0 || memcmp(sector, nothing, SECTOR) == 0) {
        return ret;
    }
    count = get(sector + 8);
    if (memcmp(sector, MAGIC, 8) != 0 || count > PLACES_MAX) {
        return -EBADMSG;
    }
    for (i = 0; i < count; i++) {
        Place place = { get(sector + 16 + 16 * i), get(sector + 24 + 16 * i) };

        if (place.offset > INT64_MAX || place.bytes > INT64_MAX) {
            return -EBADMSG;
        }
        list->places[list->count++] = place;
    }
    return 0;
}

/* --- life --- */

static int deny_check_options(const WeirPluginValues *values, char *message,
                              size_t size)
{
    List list = { 0 };
    int ret = list_parse(&list, weir_plugin_get_string(values, "add"));

    if (ret < 0) {
        snprintf(message, size, "option 'add' has to be at most %d of "
                 "OFFSET+BYTES, with ',' between", PLACES_MAX);
    }
    return ret;
}

static int deny_open(WeirPluginDisk *disk, void **handle)
{
    Deny *deny = calloc(1, sizeof(*deny));

    if (!deny) {
        return -ENOMEM;
    }
    deny->disk = disk;
    deny->saving = weir_plugin_lock_new(disk);
    if (!deny->saving) {
        free(deny);
        return -ENOMEM;
    }
    pthread_mutex_init(&deny->lock, NULL);
    *handle = deny;
    return 0;
}

static void deny_close(void *handle, WeirPluginIo *io)
{
    Deny *deny = handle;

    (void)io;
    weir_plugin_lock_free(deny->disk, deny->saving);
    pthread_mutex_destroy(&deny->lock);
    free(deny);
}

/* What the sidecar has, and what is new in "add", which goes there. */
static int read_list(Deny *deny, WeirPluginIo *io)
{
    const WeirPluginValues *values = weir_plugin_values(deny->disk);
    List list;
    unsigned before;
    int ret = load(io, &list);

    if (ret < 0) {
        weir_plugin_error(deny->disk, "the sidecar cannot be read, or is of "
                          "something else");
        return ret;
    }
    before = list.count;
    ret = list_parse(&list, weir_plugin_get_string(values, "add"));
    if (ret < 0) {
        weir_plugin_error(deny->disk, "option 'add': the list is full");
        return ret;
    }
    if (list.count > before && !weir_plugin_is_read_only(deny->disk)) {
        ret = save(io, &list);
    }
    pthread_mutex_lock(&deny->lock);
    deny->list = list;
    pthread_mutex_unlock(&deny->lock);
    return ret;
}

static int deny_prepare(void *handle, WeirPluginIo *io)
{
    return read_list(handle, io);
}

/* Somebody else may have made it longer. */
static int deny_activate(void *handle, WeirPluginIo *io)
{
    return read_list(handle, io);
}

/* A task: "options_changed" has no io. */
static void save_task(void *arg, WeirPluginIo *io)
{
    Deny *deny = arg;
    List list;
    int ret;

    weir_plugin_lock(io, deny->saving);
    pthread_mutex_lock(&deny->lock);
    list = deny->list;
    pthread_mutex_unlock(&deny->lock);
    ret = save(io, &list);
    weir_plugin_unlock(io, deny->saving);
    weir_plugin_set_state(deny->disk, ret < 0 ? WEIR_PLUGIN_STATE_DEGRADED :
                          WEIR_PLUGIN_STATE_OK,
                          "the list could not be saved");
}

static void deny_options_changed(void *handle, const WeirPluginValues *values)
{
    Deny *deny = handle;
    int ret;

    pthread_mutex_lock(&deny->lock);
    ret = list_parse(&deny->list, weir_plugin_get_string(values, "add"));
    pthread_mutex_unlock(&deny->lock);
    if (ret < 0) {
        weir_plugin_set_state(deny->disk, WEIR_PLUGIN_STATE_DEGRADED,
                              "the list is full");
    } else if (!weir_plugin_is_read_only(deny->disk)) {
        weir_plugin_spawn(deny->disk, save_task, deny);
    }
}

static int deny_change(void *handle, WeirPluginIo *io,
                       WeirPluginRequest *request)
{
    Deny *deny = handle;
    int is_denied;

    (void)io;
    pthread_mutex_lock(&deny->lock);
    is_denied = list_has(&deny->list, request->offset, request->bytes);
    deny->denied += is_denied;
    pthread_mutex_unlock(&deny->lock);
    return is_denied ? -EPERM : WEIR_PLUGIN_PASS;
}

static void deny_statistics(void *handle, WeirPluginGauges *gauges)
{
    Deny *deny = handle;

    pthread_mutex_lock(&deny->lock);
    weir_plugin_gauge(deny->disk, gauges, "places", "", deny->list.count, 0);
    weir_plugin_gauge(deny->disk, gauges, "denied", "requests", deny->denied,
                      1);
    pthread_mutex_unlock(&deny->lock);
}

static const WeirPluginOption deny_options[] = {
    {
        .name = "add",
        .help = "places to deny from now on: OFFSET+BYTES,OFFSET+BYTES",
        .type = WEIR_PLUGIN_STRING,
        .flags = WEIR_PLUGIN_MUTABLE,
    },
};

static const WeirPlugin plugin = {
    .abi = WEIR_PLUGIN_ABI,
    .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption),
    .option_count = sizeof(deny_options) / sizeof(*deny_options),
    .options = deny_options,
    .name = "deny",
    .version = "1.0",
    .description = "denies writes to some places of a disk",
    .capabilities = WEIR_PLUGIN_NEEDS_SIDECAR,
    .concurrency = WEIR_PLUGIN_PARALLEL,
    .check_options = deny_check_options,
    .open = deny_open,
    .prepare = deny_prepare,
    .close = deny_close,
    .write = deny_change,
    .zero = deny_change,
    .discard = deny_change,
    .activate = deny_activate,
    .options_changed = deny_options_changed,
    .statistics = deny_statistics,
};
WEIR_PLUGIN_REGISTER(plugin);
