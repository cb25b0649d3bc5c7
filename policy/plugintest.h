/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * weir plugin test: whether a plugin does what weir-plugin(3) asks of it.
 *
 *   weir (client) --NBD--> qemu-storage-daemon: plugin --NBD--> weir (below)
 *
 * The plugin runs in a storage daemon of its own.  Above it is a client with a
 * model of the disk, which knows what each read has to return; below it is a
 * disk of ours, which fails, loses what was not flushed, and answers in another
 * order, as a check wants.
 */
#ifndef WEIR_PLUGINTEST_H
#define WEIR_PLUGINTEST_H

#include "json.h"

/* What is asked for, and what is known of the plugin. */
#define WEIR_SIDECAR_AUTO G_MAXUINT64

typedef struct WeirPluginTest {
    /* set by the caller */
    const char *plugin;         /* name, or absolute path of its file */
    const char *bin_dir;        /* as in weir_program_find() */
    char **options;             /* NAME=VALUE, NULL-terminated; or NULL */
    const char *transform;      /* a shell command: what the disk reads -> what
                                   the node below has; NULL: unknown */
    guint64 sidecar_bytes;      /* 0: none; _AUTO: if it is of use */
    guint32 seed;
    double patience;            /* factor of time limits */

    /* set by weir_plugin_test_begin() */
    char *dir;                  /* of files of the run */
    JsonObject *about;          /* what query-weir-plugin tells */
    guint64 alignment;
    bool changes_data;
    bool holds_data;
} WeirPluginTest;

typedef struct WeirTrial WeirTrial;

typedef struct WeirCheck {
    const char *name;
    const char *purpose;        /* a line */
    guint limit_s;
    /* Why it does not apply, or NULL.  May be NULL. */
    const char *(*skip)(const WeirPluginTest *test);
    /* Returns false with @error set to what is wrong with the plugin. */
    bool (*run)(WeirTrial *trial, GError **error);
} WeirCheck;

/* All checks in the order in which they run, ended by a NULL name. */
extern const WeirCheck weir_checks[];

typedef enum WeirOutcome {
    WEIR_OUTCOME_PASSED,
    WEIR_OUTCOME_FAILED,
    WEIR_OUTCOME_SKIPPED,
} WeirOutcome;

typedef struct WeirResult {
    const WeirCheck *check;
    WeirOutcome outcome;
    char *message;              /* why it failed or was skipped */
    char *log;                  /* what the daemon said, if it failed */
    double seconds;
} WeirResult;

/*
 * Make the directory of the run and ask what the plugin is.  Returns false
 * with @error set if it cannot be loaded.
 */
bool weir_plugin_test_begin(WeirPluginTest *test, GError **error);
void weir_plugin_test_end(WeirPluginTest *test);

/* Run a check.  The caller frees the result. */
WeirResult *weir_plugin_test_run(const WeirPluginTest *test,
                                 const WeirCheck *check);
void weir_result_free(WeirResult *result);

/* --- for checks --- */

/* A check that runs. */
struct WeirTrial {
    const WeirPluginTest *test;
    const WeirCheck *check;
    GRand *rand;                /* of the thread of the check */
    GMutex lock;
    GCond ended;
    GPtrArray *daemons;         /* GSubprocess, to be killed at the limit */
    char *step;                 /* what it is doing */
    bool is_over;
    bool is_late;               /* its time was over first */
    GString *log;               /* of the daemons */
};

/* Say what is done next: if the check does not end, that it was at this. */
void weir_trial_step(WeirTrial *trial, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* A path in the directory of the run, which the caller frees. */
char *weir_trial_path(const WeirTrial *trial, const char *name);

/* A random number below @end, which is not 0. */
guint64 weir_trial_below(GRand *rand, guint64 end);

/* Random bytes that are not all the same. */
void weir_trial_fill(GRand *rand, guint8 *data, guint64 bytes);

#endif
