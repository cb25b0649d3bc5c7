/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef WEIR_TESTS_CLIENT_H
#define WEIR_TESTS_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A guest: sends requests to the cache of the host (host.h), tells the model
 * (model.h), and checks what comes back. The functions run in coops and return
 * 0 or -errno.
 */

typedef enum ClientWrite {
    CLIENT_DATA,
    CLIENT_ZEROES,
    CLIENT_DISCARD,
} ClientWrite;

/*
 * Whether a request may fail like this; -EIO of a host without power may
 * always. NULL: none may. what: "read", "write", "flush", "grow" or "resize".
 */
extern bool (*client_may_fail)(const char *what, int error);

int client_read(uint32_t block, uint32_t count);

/* Data or zeroes that end behind the end of the disk make it longer. */
int client_write(uint32_t block, uint32_t count, ClientWrite how, bool fua);
int client_flush(void);

/* The disk gets another length; nothing else is under way. */
int client_resize(uint32_t blocks);

/* Change the configuration of the cache to host.config. */
void client_configure(void);

/*
 * Read blocks as after a crash, some at a time: all of them, or those in doubt
 * and a few more.
 */
int client_verify(bool all);

#endif
