/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Being told that somebody has written the record of a storage daemon. */
#ifndef WEIR_RECORDWATCH_H
#define WEIR_RECORDWATCH_H

#include <stdbool.h>

/*
 * Watch the directory of records.  Returns a descriptor that can be read when
 * something was written, and that the caller closes; or -1 with errno set.
 */
int weir_record_watch(const char *dir);

/* Read what there is; whether it was the record of VM @name. */
bool weir_record_watch_read(int fd, const char *name);

#endif
