/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the filters of a disk run, and what becomes of its errors. */
#ifndef WEIR_RUNMODE_H
#define WEIR_RUNMODE_H

#include <cyaml/cyaml.h>

#include "validate.h"

typedef enum WeirRunMode {
    WEIR_RUN_IN_PROCESS,        /* in the emulator */
    WEIR_RUN_OUT_OF_PROCESS,    /* in a storage daemon of the VM */
} WeirRunMode;

/* What becomes of a request that has failed. */
typedef enum WeirOnError {
    WEIR_ON_ERROR_DEFAULT,      /* as the emulator does without being told */
    WEIR_ON_ERROR_REPORT,       /* the guest sees it */
    WEIR_ON_ERROR_STOP,         /* the guest stops, and tries again later */
    WEIR_ON_ERROR_ENOSPC,       /* it stops when there is no space */
} WeirOnError;

/* The schemas of the keys "run" and "on-error": pointers to uint32_t. */
cyaml_schema_value_t weir_run_mode_schema(void);
cyaml_schema_value_t weir_on_error_schema(void);

/* Their words; that of the default is NULL. */
const char *weir_run_mode_name(WeirRunMode mode);
const char *weir_on_error_name(WeirOnError on_error);

/* The one of that name, or the first one. */
WeirRunMode weir_run_mode_parse(const char *name);
WeirOnError weir_on_error_parse(const char *name);

/* Tell of what no guest device out of process can do.  @root: of a policy */
void weir_run_mode_check(const WeirYaml *root, WeirReport *report);

#endif
