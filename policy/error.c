/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "error.h"

GQuark weir_error_quark(void)
{
    return g_quark_from_static_string("weir-error-quark");
}

void weir_set_error(GError **error, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_FAILED, message);
}
