/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When disks of a domain were without what their policies want: a JSON file
 * UUID.json in a directory that outlasts the domain, and the host's next boot.
 *
 *   { "name": "web", "disks": { "vda": [
 *       { "policy": "safe", "from-ms": 1795734482000, "from-known": true,
 *         "reason": "weir-cache is only below a backing file",
 *         "to-ms": 1795734482731, "end": "re-established" }, ... ] } }
 *
 * Times are milliseconds since 1970.  The newest gap is the last one; it is
 * open as long as it has no "to-ms".  Then "refusal", if it is there, tells why
 * it could not be closed.  Only the last 32 of a disk are kept.
 */
#ifndef WEIR_GAPS_H
#define WEIR_GAPS_H

#include "json.h"

#define WEIR_GAPS_DIR "/var/lib/weir/gaps"
#define WEIR_GAPS_MAX 32

typedef struct WeirGaps WeirGaps;

/* How a gap begins. */
typedef struct WeirGapBegin {
    const char *policy;
    const char *reason;
    gint64 from_ms;         /* at the earliest */
    bool is_known;          /* it is when it has begun */
} WeirGapBegin;

/*
 * Read the gaps of a domain.  @dir: WEIR_GAPS_DIR, but for tests.  Returns
 * them, none if there is no file or it is damaged; the caller frees them with
 * weir_gaps_free().
 */
WeirGaps *weir_gaps_load(const char *dir, const char *uuid, const char *name);

/* NULL is fine. */
void weir_gaps_free(WeirGaps *gaps);

/* The gaps of a disk (objects as above), owned by @gaps; NULL: none. */
JsonArray *weir_gaps_disk(const WeirGaps *gaps, const char *disk);

/* The gap of a disk that is open, owned by @gaps; or NULL. */
JsonObject *weir_gaps_open(const WeirGaps *gaps, const char *disk);

/* The disks that have an open gap, by name; the caller frees the list. */
GPtrArray *weir_gaps_open_disks(const WeirGaps *gaps);

/* A gap begins, unless one is open.  Returns whether it did. */
bool weir_gaps_begin(WeirGaps *gaps, const char *disk,
                     const WeirGapBegin *begin);

/* Why the open gap stays so.  Returns whether that is another reason. */
bool weir_gaps_refuse(WeirGaps *gaps, const char *disk, const char *refusal);

/* The open gap ends.  @end: how.  Returns it, or NULL if none was open. */
JsonObject *weir_gaps_end(WeirGaps *gaps, const char *disk, gint64 to_ms,
                          const char *end);

/* Write them, at once or not at all, if they have changed. */
bool weir_gaps_save(WeirGaps *gaps, GError **error);

/*
 * "gap from 2026-11-26T23:08:02.061Z to 2026-11-26T23:08:02.731Z (0.670 s): why
 * it was", which the caller frees.
 */
char *weir_gap_text(JsonObject *gap);

/*
 * The last gap of a disk as weir_gap_text(), if it is open or has ended less
 * than a day ago; the caller frees it.  NULL: there is none.  @gaps: as
 * weir_gaps_disk()
 */
char *weir_gaps_note(JsonArray *gaps);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirGaps, weir_gaps_free)

#endif
