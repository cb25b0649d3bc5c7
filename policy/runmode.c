/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "runmode.h"

#include <string.h>

static const cyaml_strval_t run_modes[] = {
    { "in-process", WEIR_RUN_IN_PROCESS },
    { "out-of-process", WEIR_RUN_OUT_OF_PROCESS },
};

static const cyaml_strval_t run_on_errors[] = {
    { "report", WEIR_ON_ERROR_REPORT }, { "stop", WEIR_ON_ERROR_STOP },
    { "enospc", WEIR_ON_ERROR_ENOSPC },
};

cyaml_schema_value_t weir_run_mode_schema(void)
{
    return (cyaml_schema_value_t) {
        CYAML_VALUE_ENUM(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL |
                         CYAML_FLAG_STRICT, uint32_t, run_modes,
                         G_N_ELEMENTS(run_modes)),
    };
}

cyaml_schema_value_t weir_on_error_schema(void)
{
    return (cyaml_schema_value_t) {
        CYAML_VALUE_ENUM(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL |
                         CYAML_FLAG_STRICT, uint32_t, run_on_errors,
                         G_N_ELEMENTS(run_on_errors)),
    };
}

const char *weir_run_mode_name(WeirRunMode mode)
{
    return run_modes[mode].str;
}

const char *weir_on_error_name(WeirOnError on_error)
{
    return on_error == WEIR_ON_ERROR_DEFAULT
        ? NULL : run_on_errors[on_error - WEIR_ON_ERROR_REPORT].str;
}

WeirRunMode weir_run_mode_parse(const char *name)
{
    return g_strcmp0(name, weir_run_mode_name(WEIR_RUN_OUT_OF_PROCESS)) == 0
        ? WEIR_RUN_OUT_OF_PROCESS : WEIR_RUN_IN_PROCESS;
}

WeirOnError weir_on_error_parse(const char *name)
{
    for (guint i = 0; i < G_N_ELEMENTS(run_on_errors); i++) {
        if (g_strcmp0(name, run_on_errors[i].str) == 0) {
            return (WeirOnError)run_on_errors[i].val;
        }
    }
    return WEIR_ON_ERROR_DEFAULT;
}

void weir_run_mode_check(const WeirYaml *root, WeirReport *report)
{
    const WeirYaml *run = weir_yaml_member(root, "run");
    const WeirYaml *on_error = weir_yaml_member(root, "on-error");

    if (run && on_error &&
        weir_run_mode_parse(run->text) == WEIR_RUN_OUT_OF_PROCESS &&
        strcmp(on_error->text, "report") != 0) {
        weir_report(report, on_error, "found '%s' with 'run: out-of-process', "
                    "expected 'report': that is all that a vhost-user device "
                    "can do", on_error->text);
    }
}
