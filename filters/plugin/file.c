/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugin/file.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin/weir-plugin.h"

#define NOTE_NAME "Weir"
#define NOTE_TYPE 1

/* --- the note --- */

/* Look through notes; sizes in them are anybody's. */
static uint32_t note_abi(const char *notes, size_t bytes)
{
    while (bytes >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr head;
        uint64_t name, length;
        uint32_t abi;

        memcpy(&head, notes, sizeof(head));
        name = ((uint64_t)head.n_namesz + 3) & ~3ULL;
        length = sizeof(head) + name + (((uint64_t)head.n_descsz + 3) & ~3ULL);
        if (length > bytes) {
            return 0;
        }
        if (head.n_type == NOTE_TYPE && head.n_namesz == sizeof(NOTE_NAME) &&
            head.n_descsz >= sizeof(abi) &&
            !memcmp(notes + sizeof(head), NOTE_NAME, sizeof(NOTE_NAME))) {
            memcpy(&abi, notes + sizeof(head) + name, sizeof(abi));
            return abi;
        }
        notes += length;
        bytes -= length;
    }
    return 0;
}

uint32_t weir_plugin_note_abi(const void *elf, size_t size)
{
    const char *file = elf;
    Elf64_Ehdr head;
    uint32_t abi = 0;

    if (size < sizeof(head)) {
        return 0;
    }
    memcpy(&head, file, sizeof(head));
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) ||
        head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_type != ET_DYN ||
        head.e_phentsize != sizeof(Elf64_Phdr)) {
        return 0;
    }
    for (unsigned i = 0; i < head.e_phnum && !abi; i++) {
        uint64_t at = head.e_phoff + (uint64_t)i * sizeof(Elf64_Phdr);
        Elf64_Phdr part;

        if (head.e_phoff > size || at > size - sizeof(part)) {
            return 0;
        }
        memcpy(&part, file + at, sizeof(part));
        if (part.p_type == PT_NOTE && part.p_offset <= size &&
            part.p_filesz <= size - part.p_offset) {
            abi = note_abi(file + part.p_offset, part.p_filesz);
        }
    }
    return abi;
}

static int read_abi(int fd, size_t size, uint32_t *abi)
{
    void *map = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;

    if (map == MAP_FAILED) {
        return -errno;
    }
    *abi = weir_plugin_note_abi(map, size);
    if (map) {
        munmap(map, size);
    }
    return 0;
}

/* --- who may have written it --- */

static int check_owner(const struct stat *st, const char *what,
                       WeirPluginFound *found)
{
    if (st->st_mode & S_IWOTH) {
        snprintf(found->problem, sizeof(found->problem), "%s can be written "
                 "to by all users", what);
        return -EPERM;
    }
    if (st->st_uid != 0 && st->st_uid != geteuid()) {
        snprintf(found->problem, sizeof(found->problem), "%s belongs to user "
                 "%u, expected root or %u", what, (unsigned)st->st_uid,
                 (unsigned)geteuid());
        return -EPERM;
    }
    return 0;
}

static int check_folder(WeirPluginFound *found)
{
    char folder[PATH_MAX];
    struct stat st;
    char *slash;

    snprintf(folder, sizeof(folder), "%s", found->path);
    slash = strrchr(folder, '/');
    if (slash) {
        slash[slash == folder] = '\0';
    }
    if (stat(slash ? folder : ".", &st) < 0) {
        int ret = -errno;

        snprintf(found->problem, sizeof(found->problem), "its folder: %s",
                 strerror(-ret));
        return ret;
    }
    return check_owner(&st, "its folder", found);
}

static int look_into(int fd, WeirPluginFound *found)
{
    struct stat st;
    int ret;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        snprintf(found->problem, sizeof(found->problem), "it is not a file");
        return -EINVAL;
    }
    ret = check_owner(&st, "it", found);
    if (ret < 0) {
        return ret;
    }
    ret = read_abi(fd, (size_t)st.st_size, &found->abi);
    if (ret < 0 || !found->abi) {
        snprintf(found->problem, sizeof(found->problem), "it is not a plugin "
                 "of Weir");
        return -ENOEXEC;
    }
    if (found->abi > WEIR_PLUGIN_ABI) {
        snprintf(found->problem, sizeof(found->problem), "it was built for "
                 "version %u of the interface, this is version %d", found->abi,
                 WEIR_PLUGIN_ABI);
        return -ENOEXEC;
    }
    return check_folder(found);
}

int weir_plugin_look(WeirPluginFound *found)
{
    /* whatever it is, opening it is not to wait */
    int fd = open(found->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int ret;

    found->abi = 0;
    found->problem[0] = '\0';
    if (fd < 0) {
        ret = -errno;
        snprintf(found->problem, sizeof(found->problem), "it cannot be read: "
                 "%s", strerror(-ret));
        return ret;
    }
    ret = look_into(fd, found);
    close(fd);
    return ret;
}

/* --- where they are --- */

/* The plugin's name, from that of the file. */
static bool take_name(const char *path, WeirPluginFound *found)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash ? slash + 1 : path;
    size_t length = strlen(file);

    if (length <= 3 || length - 3 >= sizeof(found->name) ||
        strcmp(file + length - 3, ".so")) {
        return false;
    }
    memcpy(found->name, file, length - 3);
    found->name[length - 3] = '\0';
    return true;
}

static int find_path(const char *path, WeirPluginFound *found, char *message,
                     size_t size)
{
    if (!take_name(path, found)) {
        snprintf(message, size, "plugin '%s': the name of the file has to "
                 "end in .so, with at most %d letters before", path,
                 WEIR_PLUGIN_NAME_BYTES - 1);
        return -EINVAL;
    }
    if (!realpath(path, found->path)) {
        int ret = -errno;

        snprintf(message, size, "plugin '%s': %s", path, strerror(-ret));
        return ret;
    }
    return 0;
}

/* The next of the folders, or false. */
static bool next_folder(const char **folders, char *folder, size_t size)
{
    size_t length;

    do {
        *folders += **folders == ':';
        length = strcspn(*folders, ":");
        snprintf(folder, size, "%.*s", (int)length, *folders);
        *folders += length;
    } while (!length && **folders);
    return length > 0;
}

int weir_plugin_find(const char *plugin, const char *folders,
                     WeirPluginFound *found, char *message, size_t size)
{
    const char *left = folders;
    char folder[PATH_MAX];

    memset(found, 0, sizeof(*found));
    if (strchr(plugin, '/')) {
        return find_path(plugin, found, message, size);
    }
    while (next_folder(&left, folder, sizeof(folder))) {
        char path[PATH_MAX + WEIR_PLUGIN_NAME_BYTES + 8];

        snprintf(path, sizeof(path), "%s/%.*s.so", folder,
                 WEIR_PLUGIN_NAME_BYTES, plugin);
        if (access(path, F_OK) == 0) {
            return find_path(path, found, message, size);
        }
    }
    snprintf(message, size, "no plugin '%.64s' in %s", plugin, folders);
    return -ENOENT;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void list_folder(const char *folder,
                        void (*fn)(const WeirPluginFound *found,
                                   void *opaque),
                        void *opaque)
{
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, by_name);
    char message[256];

    for (int i = 0; i < n; i++) {
        char path[PATH_MAX + 258];
        WeirPluginFound found = { 0 };

        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        if (take_name(path, &found) &&
            find_path(path, &found, message, sizeof(message)) == 0) {
            weir_plugin_look(&found);
            fn(&found, opaque);
        }
        free(entries[i]);
    }
    if (n >= 0) {
        free(entries);
    }
}

void weir_plugin_list(const char *folders,
                      void (*fn)(const WeirPluginFound *found, void *opaque),
                      void *opaque)
{
    char folder[PATH_MAX];

    while (next_folder(&folders, folder, sizeof(folder))) {
        list_folder(folder, fn, opaque);
    }
}
