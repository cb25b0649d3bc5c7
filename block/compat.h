/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What differs between the QEMU versions that Weir builds into, and nothing
 * else.  Features are probed by block/meson.build, never guessed from a
 * version number.
 */
#ifndef WEIR_COMPAT_H
#define WEIR_COMPAT_H

#endif
