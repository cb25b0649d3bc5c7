/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What job.c and digest.c share. */
#ifndef WEIR_ENCRYPTION_JOB_INT_H
#define WEIR_ENCRYPTION_JOB_INT_H

#include <json-c/json.h>

#include "encryption/job.h"

struct WeirJob {
    WeirJobInfo info;
    json_object *root;          /* the whole text */
    json_object *before;        /* backup segments; of root */
    json_object *after;
    json_object *moved;         /* backup segment of what moves first, or
                                   NULL; of root */
    json_object *keyslot;       /* of root */
    int keyslot_id;
    int digest_id;              /* that of the keyslot */
};

#define hidden __attribute__((visibility("hidden")))

/* The text as it goes into the header; NULL without memory. */
hidden const char *weir_job_text(WeirJob *job);

#endif
