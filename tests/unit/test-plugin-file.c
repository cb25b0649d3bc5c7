/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of plugins: where they are, who may have written them, their notes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin/file.h"

/* A shared object with nothing but a note. */
typedef struct Image {
    Elf64_Ehdr head;
    Elf64_Phdr part;
    Elf64_Nhdr note;
    char name[8];
    uint32_t abi, size;
} Image;

static Image image(uint32_t abi)
{
    return (Image) {
        .head = {
            .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64 },
            .e_type = ET_DYN, .e_phoff = sizeof(Elf64_Ehdr),
            .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1,
        },
        .part = {
            .p_type = PT_NOTE, .p_offset = offsetof(Image, note),
            .p_filesz = sizeof(Image) - offsetof(Image, note),
        },
        .note = { .n_namesz = 5, .n_descsz = 8, .n_type = 1 },
        .name = "Weir", .abi = abi, .size = 256,
    };
}

static void test_note(void **state)
{
    Image x = image(7);

    (void)state;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 7);
    for (size_t i = 0; i < sizeof(x); i++) {
        if (i < sizeof(x) - 4) {
            assert_int_equal(weir_plugin_note_abi(&x, i), 0);
        }
    }
    x = image(7), x.name[0] = 'w';
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
    x = image(7), x.note.n_namesz = UINT32_MAX;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
    x = image(7), x.note.n_descsz = UINT32_MAX;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
    x = image(7), x.part.p_offset = UINT64_MAX;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
    x = image(7), x.part.p_filesz = UINT64_MAX;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
    x = image(7), x.head.e_phoff = UINT64_MAX - 8;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
    x = image(7), x.head.e_phnum = UINT16_MAX, x.part.p_type = PT_LOAD;
    assert_int_equal(weir_plugin_note_abi(&x, sizeof(x)), 0);
}

/* --- files --- */

static char folder[64];

static void path_of(char *path, const char *name)
{
    snprintf(path, 256, "%s/%s", folder, name);
}

static void make(const char *name, const void *data, size_t size, mode_t mode)
{
    char path[256];
    FILE *f;

    path_of(path, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static int set_up(void **state)
{
    Image good = image(1), late = image(9);

    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/weir-plugin-file-XXXXXX");
    assert_non_null(mkdtemp(folder));
    assert_int_equal(chmod(folder, 0755), 0);
    make("good.so", &good, sizeof(good), 0644);
    make("late.so", &late, sizeof(late), 0644);
    make("open.so", &good, sizeof(good), 0666);
    make("text.so", "hello", 5, 0644);
    make("empty.so", "", 0, 0644);
    make("other.txt", "hello", 5, 0644);
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {
        "good.so", "late.so", "open.so", "text.so", "empty.so", "other.txt",
        "link.so",
    };
    char path[256];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        path_of(path, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static void looked_at(const char *name, int ret, const char *problem)
{
    WeirPluginFound found;
    char message[512];

    assert_int_equal(weir_plugin_find(name, folder, &found, message,
                                      sizeof(message)), 0);
    assert_string_equal(found.name, name);
    assert_int_equal(weir_plugin_look(&found), ret);
    assert_string_equal(found.problem, problem);
}

static void test_look(void **state)
{
    (void)state;
    looked_at("good", 0, "");
    looked_at("late", -ENOEXEC, "it was built for version 9 of the "
              "interface, this is version 1");
    looked_at("open", -EPERM, "it can be written to by all users");
    looked_at("text", -ENOEXEC, "it is not a plugin of Weir");
    looked_at("empty", -ENOEXEC, "it is not a plugin of Weir");
    assert_int_equal(chmod(folder, 0777), 0);
    looked_at("good", -EPERM, "its folder can be written to by all users");
    assert_int_equal(chmod(folder, 0755), 0);
    if (geteuid() == 0) {
        char path[256], text[128];

        path_of(path, "good.so");
        assert_int_equal(chown(path, 1234, 0), 0);
        snprintf(text, sizeof(text), "it belongs to user 1234, expected root "
                 "or %u", (unsigned)geteuid());
        looked_at("good", -EPERM, text);
        assert_int_equal(chown(path, 0, 0), 0);
    }
}

static void test_find(void **state)
{
    WeirPluginFound found;
    char message[512], path[256], folders[256];

    (void)state;
    snprintf(folders, sizeof(folders), "/nonexistent::%s:", folder);
    assert_int_equal(weir_plugin_find("good", folders, &found, message,
                                      sizeof(message)), 0);
    assert_int_equal(weir_plugin_find("other", "/a:/b", &found, message,
                                      sizeof(message)), -ENOENT);
    assert_string_equal(message, "no plugin 'other' in /a:/b");
    path_of(path, "other.txt");
    assert_int_equal(weir_plugin_find(path, "", &found, message,
                                      sizeof(message)), -EINVAL);
    assert_non_null(strstr(message, "has to end in .so"));
    assert_int_equal(weir_plugin_find("/nonexistent/a.so", "", &found,
                                      message, sizeof(message)), -ENOENT);

    /* the name is the link's, the file is looked at where it is */
    path_of(path, "link.so");
    assert_int_equal(symlink("good.so", path), 0);
    assert_int_equal(weir_plugin_find(path, "", &found, message,
                                      sizeof(message)), 0);
    assert_string_equal(found.name, "link");
    path_of(path, "good.so");
    assert_string_equal(found.path, path);
}

static void collect(const WeirPluginFound *found, void *opaque)
{
    char *list = opaque;

    snprintf(list + strlen(list), 256 - strlen(list), "%s%s ", found->name,
             *found->problem ? "!" : "");
}

static void test_list(void **state)
{
    char list[256] = "", folders[256], path[256];

    (void)state;
    path_of(path, "link.so");
    unlink(path);
    snprintf(folders, sizeof(folders), "/nonexistent:%s", folder);
    weir_plugin_list(folders, collect, list);
    assert_string_equal(list, "empty! good late! open! text! ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_note), cmocka_unit_test(test_look),
        cmocka_unit_test(test_find), cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
