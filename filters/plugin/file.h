/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_PLUGIN_FILE_H
#define WEIR_PLUGIN_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Files of plugins.  Nothing in them is run here. */

#define WEIR_PLUGIN_NAME_BYTES 64

/* What is known of a file without running it. */
typedef struct WeirPluginFound {
    char name[WEIR_PLUGIN_NAME_BYTES];  /* that of the file, without ".so" */
    char path[PATH_MAX];
    uint32_t abi;               /* 0: it has no note of a plugin */
    char problem[256];          /* why it is refused; "": nothing known */
} WeirPluginFound;

/*
 * Find the file of a plugin.
 *
 * plugin: a name, or a path if there is a "/" in it
 * folders: where to look for a name, with ":" between
 * found: all but abi and problem are set; path has no symbolic links
 * Returns 0, or -errno with a message.
 */
int weir_plugin_find(const char *plugin, const char *folders,
                     WeirPluginFound *found, char *message, size_t size);

/*
 * Look at a file that was found: whether others than root and this user could
 * have changed it, and what its note says.  Sets abi and problem; returns 0, or
 * the -errno of the problem.
 */
int weir_plugin_look(WeirPluginFound *found);

/*
 * Call fn for each file *.so in the folders, in their order, when it was looked
 * at.  Folders that are not there are passed over.
 */
void weir_plugin_list(const char *folders,
                      void (*fn)(const WeirPluginFound *found, void *opaque),
                      void *opaque);

/*
 * The version of the interface in the note of a shared object of size bytes; 0:
 * it is none, or has no such note.
 */
uint32_t weir_plugin_note_abi(const void *elf, size_t size);

#endif
