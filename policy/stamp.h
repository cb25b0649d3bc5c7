/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether files are what they were: a stamp is made of all that changes when
 * a file is replaced or written to.  Stamps are a JSON object, path -> stamp.
 */
#ifndef WEIR_STAMP_H
#define WEIR_STAMP_H

#include <sys/types.h>

#include "json.h"

/* Stamp @path, which need not exist, unless it has a stamp already. */
void weir_stamp_add(JsonObject *stamps, const char *path);

/* Stamp the program that process @pid runs, its libraries and modules. */
void weir_stamp_process(JsonObject *stamps, pid_t pid);

/*
 * Stamp the directory at @path.
 *
 * Returns whether all files in it with names like @pattern ("*.so") have
 * stamps, by what they are if they are symbolic links.
 */
bool weir_stamp_dir(JsonObject *stamps, const char *path,
                    const char *pattern);

/*
 * Whether all files are still as stamped.
 *
 * @before_s: and have not changed since then, in seconds since 1970; 0: that
 *     does not matter
 */
bool weir_stamps_hold(JsonObject *stamps, gint64 before_s);

#endif
