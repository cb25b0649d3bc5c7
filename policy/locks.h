/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that QEMU uses. */
#ifndef WEIR_LOCKS_H
#define WEIR_LOCKS_H

#include <stdbool.h>

/* Whether another open file has locked it, as QEMU locks what it uses. */
bool weir_file_is_locked(int fd);

#endif
