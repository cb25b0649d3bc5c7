/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A terminal that shows lines which change.  However the program ends, but for
 * SIGKILL, the terminal is then as it was; while it is stopped, too.
 */
#ifndef WEIR_SCREEN_H
#define WEIR_SCREEN_H

#include <glib.h>
#include <stdbool.h>

/* Take the terminal of standard input and output.  Once per program. */
void weir_screen_open(void);

/* Give it back.  May be called at any time. */
void weir_screen_close(void);

/* Show the first lines of @text, as many and as much of them as fit. */
void weir_screen_show(const char *text);

/*
 * Wait for a key.  Returns it; 0 after @timeout_ms (-1: never), when @fd (-1:
 * none) can be read, or the lines have to be shown again.
 */
char weir_screen_key(int fd, int timeout_ms);

#endif
