/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors of libweir-policy, as GError codes of one domain. */
#ifndef WEIR_ERROR_H
#define WEIR_ERROR_H

#include <glib.h>

#define WEIR_ERROR (weir_error_quark())

typedef enum WeirErrorCode {
    WEIR_ERROR_FAILED,      /* anything without a code of its own */
    WEIR_ERROR_POSITION,    /* the message is lines "file:line:column: ..." */
    WEIR_ERROR_NOT_FOUND,   /* no such policy, VM, disk or node */
    WEIR_ERROR_QMP,         /* the other side answered with an error */
    WEIR_ERROR_NO_COMMAND,  /* the other side does not know the command */
    WEIR_ERROR_TIMEOUT,     /* the other side did not answer in time */
    WEIR_ERROR_CLOSED,      /* the other side is gone */
    WEIR_ERROR_HALFWAY,     /* some of it is done and could not be undone */
} WeirErrorCode;

GQuark weir_error_quark(void);

/* Set @error to code WEIR_ERROR_FAILED and a printf-like message. */
void weir_set_error(GError **error, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* @text without control characters; NULL gives "-".  The caller frees it. */
char *weir_printable(const char *text);

#endif
