/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What cannot be changed while a disk is in use, wherever it runs. */
#ifndef WEIR_LIVECHECK_H
#define WEIR_LIVECHECK_H

#include "record.h"

/* What is decided when the VM is started has to be what @policy wants. */
bool weir_live_check_start(const WeirRecord *record,
                           const WeirRecordDisk *disk,
                           const WeirPolicy *policy, GError **error);

/* An export cannot begin to make each write durable, as @chain may need. */
bool weir_live_check_export(const WeirRecord *record,
                            const WeirRecordDisk *disk,
                            const GPtrArray *chain, GError **error);

#endif
