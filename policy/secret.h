/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a secret comes from, in the words of a policy:
 *
 *   ID                 an object of QEMU that is there already
 *   file:/PATH         the content of a file, all bytes of it
 *   credential:NAME    the same in $CREDENTIALS_DIRECTORY (systemd)
 *   command:COMMAND    what a command prints, all bytes of it; no shell.  It is
 *                      killed, with what it has started, if it does not end
 *                      within $WEIR_SECRET_TIMEOUT seconds (default: 60)
 */
#ifndef WEIR_SECRET_H
#define WEIR_SECRET_H

#include <stdbool.h>

#include "error.h"

typedef enum WeirSecretKind {
    WEIR_SECRET_ID,
    WEIR_SECRET_FILE,
    WEIR_SECRET_CREDENTIAL,
    WEIR_SECRET_COMMAND,
} WeirSecretKind;

typedef struct WeirSecret {
    WeirSecretKind kind;
    char *value;            /* behind the colon, or the ID */
    char *id;               /* of QEMU's object */
} WeirSecret;

/* Whether an option of that name takes the ID of a secret. */
bool weir_secret_is_option(const char *name);

/*
 * Parse one.  @id: of the object that is to be made, unless @text is one.
 * Returns what the caller frees with weir_secret_free(), or NULL with @error
 * set to what is wrong with @text.
 */
WeirSecret *weir_secret_parse(const char *text, const char *id,
                              GError **error);

/* The words that it was parsed from; to be freed. */
char *weir_secret_text(const WeirSecret *secret);

/* Another one like it. */
WeirSecret *weir_secret_copy(const WeirSecret *secret);

/* NULL is fine. */
void weir_secret_free(WeirSecret *secret);

/*
 * A file descriptor to read it from, close-on-exec, or -1 with @error set.
 * The content has never been in a file of ours: it is memory of the kernel
 * that goes with the last descriptor.  Not for WEIR_SECRET_ID.
 */
int weir_secret_open(const WeirSecret *secret, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirSecret, weir_secret_free)

#endif
