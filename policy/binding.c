/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The name of a note is HASH.IDENTITY.json: the hash of the disk's name, and
 * the number and time of birth of the file, so that a disk is found by either
 * without reading all of them.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "locks.h"
#include "ours.h"

#define BINDING_SUFFIX ".json"
#define BINDING_NO_IDENTITY "0"

static void binding_clear(WeirBinding *binding)
{
    g_free(binding->disk);
    g_free(binding->format);
    g_free(binding->vm);
    g_ptr_array_unref(binding->filters);
    g_ptr_array_unref(binding->notes);
}

void weir_binding_free(WeirBinding *binding)
{
    if (binding) {
        binding_clear(binding);
        g_free(binding);
    }
}

static WeirBinding *binding_alloc(void)
{
    WeirBinding *binding = g_new0(WeirBinding, 1);

    binding->filters = weir_bound_array();
    binding->notes = g_ptr_array_new_with_free_func(g_free);
    return binding;
}

/* --- names --- */

/* Where the notes are, to be freed; NULL: nowhere. */
static char *binding_dir(void)
{
    const char *dir = g_getenv("WEIR_STATE_DIR");

    if (dir && !*dir) {
        return NULL;
    }
    return dir ? g_build_filename(dir, "bindings", NULL)
         : g_build_filename(geteuid() == 0 ? "/var/lib"
                                           : g_get_user_state_dir(),
                            "weir", "bindings", NULL);
}

/* The file itself, whatever its name; to be freed. */
static char *binding_identity(const char *disk)
{
    struct statx st;

    if (statx(AT_FDCWD, disk, 0, STATX_TYPE | STATX_INO | STATX_BTIME,
              &st) < 0 || !(st.stx_mask & STATX_BTIME) ||
        !S_ISREG(st.stx_mode)) {
        return g_strdup(BINDING_NO_IDENTITY);
    }
    return g_strdup_printf("%llx-%llx-%x", (unsigned long long)st.stx_ino,
                           (unsigned long long)st.stx_btime.tv_sec,
                           st.stx_btime.tv_nsec);
}

/* Devices keep the name that they were given: others change at each boot. */
static char *binding_path(const char *disk)
{
    struct stat st;
    char *real;
    char *path;

    if (strstr(disk, "://")) {
        return g_strdup(disk);
    }
    if (stat(disk, &st) < 0 || !S_ISREG(st.st_mode) ||
        !(real = realpath(disk, NULL))) {
        return g_canonicalize_filename(disk, NULL);
    }
    path = g_strdup(real);
    free(real);
    return path;
}

static char *binding_hash(const char *path)
{
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256,
                                                         path, -1);

    return g_strndup(sum, 32);
}

static bool binding_is_note(const char *name, const char *hash,
                            const char *identity)
{
    g_auto(GStrv) parts = g_strsplit(name, ".", 4);

    return g_strv_length(parts) == 3 && strcmp(parts[2], "json") == 0 &&
           (strcmp(parts[0], hash) == 0 ||
            (strcmp(identity, BINDING_NO_IDENTITY) != 0 &&
             strcmp(parts[1], identity) == 0));
}

/* --- reading --- */

/* The text of a note that nobody else can have written, or NULL. */
static char *binding_text(const char *path, gsize *length)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    bool ours = fd >= 0 && weir_is_ours(fd, S_IFREG);
    char *text = NULL;

    if (fd >= 0) {
        close(fd);
    }
    if (ours) {
        g_file_get_contents(path, &text, length, NULL);
    }
    return text;
}

/* Add what the note at @path tells.  Returns whether it makes sense. */
static bool binding_read(WeirBinding *binding, const char *path)
{
    gsize length = 0;
    g_autofree char *text = binding_text(path, &length);
    g_autoptr(JsonNode) node = text ? weir_json_parse(text, length, NULL)
                                    : NULL;
    JsonObject *object = node ? weir_json_as_object(node) : NULL;
    JsonArray *filters = weir_json_array(object, "filters");
    const char *disk = weir_json_string(object, "disk");
    const char *format = weir_json_string(object, "format");
    const char *vm = weir_json_string(object, "vm");

    if (!disk || !format || !vm || !filters) {
        return false;
    }
    for (guint i = 0; i < weir_json_length(filters); i++) {
        WeirBound *bound = weir_bound_read(weir_json_object_at(filters, i));

        if (bound) {
            g_ptr_array_add(binding->filters, bound);
        }
    }
    g_free(binding->disk);
    g_free(binding->format);
    g_free(binding->vm);
    binding->disk = g_strdup(disk);
    binding->format = g_strdup(format);
    binding->vm = g_strdup(vm);
    g_ptr_array_add(binding->notes, g_strdup(path));
    return true;
}

WeirBinding *weir_binding_find(const char *disk)
{
    g_autofree char *dir = binding_dir();
    g_autofree char *path = binding_path(disk);
    g_autofree char *hash = binding_hash(path);
    g_autofree char *identity = binding_identity(disk);
    g_autoptr(GDir) stream = dir ? g_dir_open(dir, 0, NULL) : NULL;
    g_autoptr(WeirBinding) binding = binding_alloc();
    const char *name;

    while (stream && (name = g_dir_read_name(stream))) {
        if (binding_is_note(name, hash, identity)) {
            g_autofree char *note = g_build_filename(dir, name, NULL);

            binding_read(binding, note);
        }
    }
    if (binding->filters->len == 0) {
        return NULL;
    }
    /* it may have got another name */
    g_free(binding->disk);
    binding->disk = g_steal_pointer(&path);
    return g_steal_pointer(&binding);
}

static gint binding_compare(gconstpointer a, gconstpointer b)
{
    const WeirBinding *const *left = a;
    const WeirBinding *const *right = b;

    return strcmp((*left)->disk, (*right)->disk);
}

GPtrArray *weir_binding_list(void)
{
    GPtrArray *bindings = g_ptr_array_new_with_free_func(
        (GDestroyNotify)weir_binding_free);
    g_autofree char *dir = binding_dir();
    g_autoptr(GDir) stream = dir ? g_dir_open(dir, 0, NULL) : NULL;
    const char *name;

    while (stream && (name = g_dir_read_name(stream))) {
        g_autofree char *note = g_build_filename(dir, name, NULL);
        WeirBinding *binding = binding_alloc();

        if (g_str_has_suffix(name, BINDING_SUFFIX) &&
            binding_read(binding, note) && binding->filters->len > 0) {
            g_ptr_array_add(bindings, binding);
        } else {
            weir_binding_free(binding);
        }
    }
    g_ptr_array_sort(bindings, binding_compare);
    return bindings;
}

/* --- writing --- */

/* But for @except, which may be NULL. */
static void binding_remove_notes(const WeirBinding *binding,
                                 const char *except)
{
    for (guint i = 0; i < binding->notes->len; i++) {
        const char *note = g_ptr_array_index(binding->notes, i);

        if (g_strcmp0(note, except) != 0) {
            unlink(note);
        }
    }
}

static char *binding_json(const WeirBinding *binding)
{
    g_autoptr(JsonObject) object = json_object_new();
    JsonArray *filters = json_array_new();

    json_object_set_string_member(object, "disk", binding->disk);
    json_object_set_string_member(object, "format", binding->format);
    json_object_set_string_member(object, "vm", binding->vm);
    for (guint i = 0; i < binding->filters->len; i++) {
        json_array_add_object_element(
            filters, weir_bound_json(g_ptr_array_index(binding->filters, i)));
    }
    json_object_set_array_member(object, "filters", filters);
    return weir_json_object_text(object, false);
}

/* Whether it is on the medium already. */
static bool binding_is_written(const char *note, const char *text)
{
    gsize length = 0;
    g_autofree char *found = binding_text(note, &length);

    return found && strlen(text) == length &&
           memcmp(found, text, length) == 0;
}

/* Write it for good, in the place of its notes. */
static bool binding_write(const WeirBinding *binding, GError **error)
{
    g_autofree char *dir = binding_dir();
    g_autofree char *hash = binding_hash(binding->disk);
    g_autofree char *identity = binding_identity(binding->disk);
    g_autofree char *name = g_strconcat(hash, ".", identity, BINDING_SUFFIX,
                                        NULL);
    g_autofree char *note = NULL;
    g_autofree char *text = NULL;
    g_autoptr(GError) local = NULL;

    if (!dir) {
        return true;
    }
    note = g_build_filename(dir, name, NULL);
    if (binding->filters->len > 0) {
        text = binding_json(binding);
        if (g_mkdir_with_parents(dir, 0700) < 0) {
            weir_set_error(error, "cannot make %s, where it is noted what a "
                           "disk must not be used without: %s", dir,
                           g_strerror(errno));
            return false;
        }
        if (!binding_is_written(note, text) &&
            !g_file_set_contents_full(note, text, -1,
                                      G_FILE_SET_CONTENTS_CONSISTENT |
                                      G_FILE_SET_CONTENTS_DURABLE, 0600,
                                      &local)) {
            weir_set_error(error, "cannot note what disk %s must not be used "
                           "without: %s", binding->disk, local->message);
            return false;
        }
    }
    binding_remove_notes(binding, text ? note : NULL);
    return true;
}

static bool binding_has(const GPtrArray *filters, const WeirBound *bound)
{
    for (guint i = 0; i < filters->len; i++) {
        if (weir_bound_same(g_ptr_array_index(filters, i), bound)) {
            return true;
        }
    }
    return false;
}

/* The notes of one become those of the other. */
static void binding_take_notes(WeirBinding *binding, WeirBinding *from)
{
    g_ptr_array_set_size(binding->notes, 0);
    while (from && from->notes->len > 0) {
        g_ptr_array_add(binding->notes,
                        g_ptr_array_steal_index(from->notes, 0));
    }
}

bool weir_binding_note(const WeirDisk *disk, const GPtrArray *chain,
                       const char *vm, const char *policy, bool also,
                       GError **error)
{
    g_autoptr(WeirBinding) old = weir_binding_find(disk->file);
    g_autoptr(WeirBinding) binding = binding_alloc();

    g_ptr_array_unref(binding->filters);
    binding->filters = weir_bound_of_chain(chain, policy);
    if (!old && binding->filters->len == 0) {
        return true;
    }
    binding->disk = binding_path(disk->file);
    binding->format = g_strdup(disk->format);
    binding->vm = g_strdup(vm);
    binding_take_notes(binding, old);
    while (also && old && old->filters->len > 0) {
        WeirBound *bound = g_ptr_array_steal_index(old->filters, 0);

        if (binding_has(binding->filters, bound)) {
            weir_bound_free(bound);
        } else {
            g_ptr_array_add(binding->filters, bound);
        }
    }
    return binding_write(binding, error);
}

void weir_binding_put_back(const char *disk, WeirBinding *before)
{
    g_autoptr(WeirBinding) now = weir_binding_find(disk);

    if (before) {
        binding_take_notes(before, now);
        binding_write(before, NULL);
    } else if (now) {
        binding_remove_notes(now, NULL);
    }
}

/* --- what it means --- */

static char *binding_reason(const WeirBinding *binding, const WeirBound *bound,
                            bool writes)
{
    return weir_bound_reason(bound, strstr(binding->disk, "://")
                             ? NULL : binding->disk, binding->format, writes);
}

char *weir_binding_reason(const WeirBinding *binding, const WeirBound *bound)
{
    return binding_reason(binding, bound, true);
}

/* Whether a QEMU has the disk. */
static bool binding_is_in_use(const WeirBinding *binding)
{
    int fd = open(binding->disk, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool used = fd >= 0 && weir_file_is_locked(fd);

    if (fd >= 0) {
        close(fd);
    }
    return used;
}

void weir_binding_settle(const char *disk)
{
    g_autoptr(WeirBinding) binding = weir_binding_find(disk);

    if (!binding || binding_is_in_use(binding)) {
        return;
    }
    for (guint i = binding->filters->len; i-- > 0;) {
        g_autofree char *reason = weir_binding_reason(
            binding, g_ptr_array_index(binding->filters, i));

        if (!reason) {
            g_ptr_array_remove_index(binding->filters, i);
        }
    }
    binding_write(binding, NULL);
}

void weir_binding_move(const char *disk, const char *from, const char *to)
{
    g_autoptr(WeirBinding) binding = weir_binding_find(disk);

    for (guint i = binding ? binding->filters->len : 0; i-- > 0;) {
        WeirBound *bound = g_ptr_array_index(binding->filters, i);

        if (!weir_bound_is_in(bound, from)) {
            continue;
        }
        if (to) {
            weir_bound_move(bound, to);
        } else {
            g_ptr_array_remove_index(binding->filters, i);
        }
    }
    if (binding) {
        binding_write(binding, NULL);
    }
}

/* Whether @policy, which leaves @bound out, may have the disk. */
static bool binding_check_left_out(const WeirBinding *binding,
                                   const WeirBound *bound,
                                   const WeirDisk *disk, const char *policy,
                                   GError **error)
{
    g_autofree char *reason = binding_reason(binding, bound, !disk->read_only);
    g_autofree char *way_out = weir_bound_way_out(bound, binding->disk);
    g_autofree char *now = policy
        ? g_strdup_printf("policy '%s' leaves that out", policy)
        : g_strdup("it is under no policy now");

    if (reason) {
        weir_set_error(error, "disk %s (%s) was under policy '%s', and %s; %s: "
                       "start it under '%s', or %s", disk->id, binding->disk,
                       bound->policy, reason, now, bound->policy, way_out);
    }
    return !reason;
}

/* Whether what @bound has is where it was. */
static bool binding_check_there(const WeirBinding *binding,
                                const WeirBound *bound, const WeirDisk *disk,
                                GError **error)
{
    g_autofree char *reason = weir_bound_missed(bound);
    g_autofree char *way_out = weir_bound_way_out(bound, binding->disk);

    if (reason) {
        weir_set_error(error, "disk %s (%s) was under policy '%s', and %s: "
                       "bring it back, or %s", disk->id, binding->disk,
                       bound->policy, reason, way_out);
    }
    return !reason;
}

bool weir_binding_check(const WeirDisk *disk, const GPtrArray *chain,
                        const char *policy, GError **error)
{
    g_autoptr(WeirBinding) binding = weir_binding_find(disk->file);
    g_autoptr(GPtrArray) filters = weir_bound_of_chain(chain, policy);

    for (guint i = 0; binding && i < binding->filters->len; i++) {
        const WeirBound *bound = g_ptr_array_index(binding->filters, i);
        bool ok = binding_has(filters, bound)
            ? binding_check_there(binding, bound, disk, error)
            : binding_check_left_out(binding, bound, disk, policy, error);

        if (!ok) {
            return false;
        }
    }
    return true;
}

bool weir_binding_release(const WeirBinding *binding, GError **error)
{
    if (binding_is_in_use(binding)) {
        weir_set_error(error, "disk %s is in use", binding->disk);
        return false;
    }
    for (guint i = 0; i < binding->filters->len; i++) {
        if (!weir_bound_release(g_ptr_array_index(binding->filters, i),
                                error)) {
            return false;
        }
    }
    binding_remove_notes(binding, NULL);
    return true;
}
