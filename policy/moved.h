/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk in use that has got another image: by a snapshot, a copy, a commit, or
 * since another one was plugged in.  What filters of the image before keep in
 * files is that one's, and the files are to be those of the image of now.
 */
#ifndef WEIR_MOVED_H
#define WEIR_MOVED_H

#include "graph.h"
#include "record.h"
#include "schema.h"

typedef struct WeirMoved {
    char *from;             /* the image before */
    GPtrArray *files;       /* char *: where its filters keep what they know */
    GPtrArray *asides;      /* char *, for each: its name from now on; NULL */
} WeirMoved;

/*
 * What @disk has been brought away from, to be freed with weir_moved_free();
 * NULL if it is what it was.
 *
 * @from: the image that its record has told of, may be NULL
 */
WeirMoved *weir_moved_new(const char *from, const WeirRecordDisk *disk,
                          const WeirSchema *schema);

/* NULL is fine for these. */
void weir_moved_free(WeirMoved *moved);

/*
 * Give files of caches that have gone with their image, and have what that
 * lacks, other names.
 *
 * @graph: as it is before the disk is changed
 * Returns false with @error set; the files may have got their names then.
 */
bool weir_moved_set_aside(WeirMoved *moved, const WeirRecordDisk *disk,
                          const WeirGraph *graph, const WeirSchema *schema,
                          GError **error);

/*
 * The disk has been brought under a policy: nothing of the image before is in
 * its files any more.
 */
void weir_moved_end(const WeirMoved *moved);

/* What should be known of names that files have got: char *, to be unreffed. */
GPtrArray *weir_moved_notes(const WeirMoved *moved);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(WeirMoved, weir_moved_free)

#endif
