/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The locks of QEMU on images. */
#ifndef WEIR_IMAGELOCK_H
#define WEIR_IMAGELOCK_H

#include <stdbool.h>

#include "error.h"

/*
 * Whether no process writes to an image.  An export lets others write, so QEMU
 * itself does not notice a second one.  Returns false with @error set if one
 * does.
 */
bool weir_image_is_free(const char *path, GError **error);

#endif
