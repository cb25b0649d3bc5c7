/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "plan.h"
#include "programs.h"
#include "qmp.h"

#define WEIR_DAEMON_TIMEOUT_MS 30000

struct WeirDaemon {
    GSubprocess *process;
    WeirQmp *qmp;
    WeirSchema *schema;
};

/* Runs in the child. */
static void daemon_child_setup(gpointer unused)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    weir_child_setup(unused);
}

static bool daemon_spawn(WeirDaemon *daemon, const char *bin_dir,
                         GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE |
        G_SUBPROCESS_FLAGS_STDERR_PIPE);
    g_autofree char *program = weir_program_find(bin_dir,
                                                 "qemu-storage-daemon", error);

    if (!program) {
        return false;
    }
    g_subprocess_launcher_set_child_setup(launcher, daemon_child_setup, NULL,
                                          NULL);
    daemon->process = g_subprocess_launcher_spawn(
        launcher, error, program, "--chardev", "stdio,id=weir,signal=off",
        "--monitor", "chardev=weir", NULL);
    if (!daemon->process) {
        return false;
    }
    daemon->qmp = weir_qmp_new(
        g_subprocess_get_stdout_pipe(daemon->process),
        g_subprocess_get_stdin_pipe(daemon->process), program);
    return true;
}

/* Make what a daemon that has ended said the reason for @error. */
static void daemon_explain(WeirDaemon *daemon, GError **error)
{
    g_autofree char *text = g_malloc(4096);
    g_autofree char *prefix = NULL;
    gsize length = 0;

    if (!error || !g_error_matches(*error, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        return;
    }
    g_input_stream_read_all(g_subprocess_get_stderr_pipe(daemon->process),
                            text, 4095, &length, NULL, NULL);
    text[length] = '\0';
    prefix = g_strdup(g_strstrip(text));
    g_clear_error(error);
    g_set_error(error, WEIR_ERROR, WEIR_ERROR_CLOSED,
                "qemu-storage-daemon ended at start%s%s", *prefix ? ": " : "",
                prefix);
}

static bool daemon_learn(WeirDaemon *daemon, GError **error)
{
    g_autoptr(JsonNode) introspection = NULL;
    g_autoptr(JsonNode) capabilities = NULL;

    if (!weir_qmp_negotiate(daemon->qmp, WEIR_DAEMON_TIMEOUT_MS, error)) {
        return false;
    }
    introspection = weir_qmp_execute(daemon->qmp, "query-qmp-schema", NULL,
                                     WEIR_DAEMON_TIMEOUT_MS, error);
    if (!introspection) {
        return false;
    }
    capabilities = weir_qmp_execute(daemon->qmp, "query-weir-filters", NULL,
                                    WEIR_DAEMON_TIMEOUT_MS, error);
    if (!capabilities) {
        return false;
    }
    daemon->schema = weir_schema_new(introspection, capabilities, error);
    return daemon->schema != NULL;
}

WeirDaemon *weir_daemon_start(const char *bin_dir, GError **error)
{
    g_autoptr(WeirDaemon) daemon = g_new0(WeirDaemon, 1);

    if (!daemon_spawn(daemon, bin_dir, error)) {
        return NULL;
    }
    if (!daemon_learn(daemon, error)) {
        daemon_explain(daemon, error);
        return NULL;
    }
    return g_steal_pointer(&daemon);
}

void weir_daemon_free(WeirDaemon *daemon)
{
    if (!daemon) {
        return;
    }
    if (daemon->process) {
        g_subprocess_force_exit(daemon->process);
        g_subprocess_wait(daemon->process, NULL, NULL);
    }
    weir_qmp_free(daemon->qmp);
    g_clear_object(&daemon->process);
    weir_schema_free(daemon->schema);
    g_free(daemon);
}

const WeirSchema *weir_daemon_schema(const WeirDaemon *daemon)
{
    return daemon->schema;
}

/* Ask the driver of a filter.  Its refusal is a line in @text. */
static bool daemon_try(WeirDaemon *daemon, const WeirPolicyFilter *filter,
                       GString *text, GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonObject *node = weir_plan_sample(filter);
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(GError) local = NULL;
    g_autofree char *message = NULL;

    json_object_set_string_member(node, "driver", filter->driver);
    json_object_set_string_member(node, filter->child, "weir-check-disk");
    json_object_set_object_member(arguments, "filter", node);
    answer = weir_qmp_execute(daemon->qmp, "weir-check-options", arguments,
                              WEIR_DAEMON_TIMEOUT_MS, &local);
    if (answer) {
        return true;
    }
    if (!g_error_matches(local, WEIR_ERROR, WEIR_ERROR_QMP)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    message = weir_printable(local->message);
    g_string_append_printf(text, "%s%s:%u:%u: %s refuses its options: %s",
                           text->len ? "\n" : "", filter->file, filter->line,
                           filter->column, filter->driver, message);
    return true;
}

bool weir_daemon_check(WeirDaemon *daemon, const WeirPolicy *policy,
                       GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    bool ok = true;

    for (guint i = policy->filters->len; ok && i-- > 0;) {
        ok = daemon_try(daemon, g_ptr_array_index(policy->filters, i), text,
                        error);
    }
    if (ok && text->len > 0) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            text->str);
        ok = false;
    }
    return ok;
}
