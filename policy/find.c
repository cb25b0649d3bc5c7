/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of policies. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "policy.h"
#include "yamltree.h"

char *weir_policy_file_name(const char *file)
{
    g_autofree char *base = g_path_get_basename(file);

    if (!g_str_has_suffix(base, WEIR_POLICY_SUFFIX)) {
        return NULL;
    }
    return g_strndup(base, strlen(base) - strlen(WEIR_POLICY_SUFFIX));
}

/* Read at most @max bytes; returns how many, or -1 with errno set. */
static gssize find_read_file(const char *file, char *data, gsize max)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    gsize length = 0;
    gssize n = -1;
    int saved_errno;

    if (fd < 0) {
        return -1;
    }
    while (length < max && (n = read(fd, data + length, max - length)) > 0) {
        length += (gsize)n;
    }
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return n < 0 ? -1 : (gssize)length;
}

char *weir_policy_read(const char *file, gsize *length, GError **error)
{
    g_autofree char *data = g_malloc(WEIR_YAML_MAX_BYTES + 1);
    gssize n = find_read_file(file, data, WEIR_YAML_MAX_BYTES + 1);

    if (n < 0) {
        weir_set_error(error, "cannot read policy file %s: %s", file,
                       g_strerror(errno));
        return NULL;
    }
    *length = (gsize)n;
    return g_steal_pointer(&data);
}

static gint find_compare(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool find_files_in(const char *dir, GPtrArray *files, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    DIR *stream = opendir(dir);
    const struct dirent *entry;

    if (!stream) {
        weir_set_error(error, "cannot read policy directory %s: %s", dir,
                       g_strerror(errno));
        return false;
    }
    while ((entry = readdir(stream))) {
        const char *name = entry->d_name;

        if (name[0] != '.' && g_str_has_suffix(name, WEIR_POLICY_SUFFIX)) {
            g_ptr_array_add(names, g_build_filename(dir, name, NULL));
        }
    }
    closedir(stream);
    g_ptr_array_sort(names, find_compare);
    g_ptr_array_extend_and_steal(files, g_steal_pointer(&names));
    return true;
}

GPtrArray *weir_policy_files(char *const *dirs, GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(g_free);

    for (; *dirs; dirs++) {
        if (!find_files_in(*dirs, files, error)) {
            return NULL;
        }
    }
    return g_steal_pointer(&files);
}

/* The error for a name that no file has. */
static void find_not_found(char *const *dirs, const char *name,
                             GError **error)
{
    g_autofree char *where = g_strjoinv(", ", (char **)dirs);
    g_autoptr(GPtrArray) files = weir_policy_files(dirs, error);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *list = NULL;

    if (!files) {
        return;
    }
    for (guint i = 0; i < files->len; i++) {
        g_ptr_array_add(names,
                        weir_policy_file_name(g_ptr_array_index(files, i)));
    }
    g_ptr_array_add(names, NULL);
    list = g_strjoinv(", ", (char **)names->pdata);
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_NOT_FOUND,
                "there is no policy '%s' in %s (there %s %s)", name, where,
                names->len == 2 ? "is" : "are",
                names->len == 1 ? "none" : list);
}

char *weir_policy_file(char *const *dirs, const char *name, GError **error)
{
    g_autofree char *base = g_strconcat(name, WEIR_POLICY_SUFFIX, NULL);
    g_autofree char *found = NULL;

    for (char *const *dir = dirs;
         *dir && weir_name_ok(name, WEIR_POLICY_MAX_NAME); dir++) {
        g_autofree char *file = g_build_filename(*dir, base, NULL);

        if (!g_file_test(file, G_FILE_TEST_EXISTS)) {
            continue;
        }
        if (found) {
            weir_set_error(error, "policy '%s' is in both %s and %s", name,
                           found, file);
            return NULL;
        }
        found = g_steal_pointer(&file);
    }
    if (!found) {
        find_not_found(dirs, name, error);
    }
    return g_steal_pointer(&found);
}

/* The read() of a WeirPolicySource whose @opaque is directories. */
static char *find_read_other(void *opaque, const char *name, gsize *length,
                             char **file, GError **error)
{
    *file = weir_policy_file(opaque, name, error);
    return *file ? weir_policy_read(*file, length, error) : NULL;
}

WeirPolicy *weir_policy_load(const char *file, char *const *dirs,
                             const WeirSchema *schema, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(file);
    char *const own[] = { dir, NULL };
    const WeirPolicySource source = {
        .read = find_read_other, .opaque = (void *)(dirs ? dirs : own),
    };
    gsize length;
    g_autofree char *data = weir_policy_read(file, &length, error);

    return data ? weir_policy_parse(data, length, file, true, &source, schema,
                                    error) : NULL;
}

WeirPolicy *weir_policy_find(char *const *dirs, const char *name,
                             const WeirSchema *schema, GError **error)
{
    g_autofree char *file = weir_policy_file(dirs, name, error);
    g_autoptr(WeirPolicy) policy = NULL;

    if (!file) {
        return NULL;
    }
    policy = weir_policy_load(file, dirs, schema, error);
    if (policy && policy->is_component) {
        weir_set_error(error, "'%s' (%s) is a component, which no disk can "
                       "have: a policy can refer to it", name, file);
        return NULL;
    }
    return g_steal_pointer(&policy);
}
