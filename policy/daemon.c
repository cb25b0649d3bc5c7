/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answers.h"
#include "plan.h"
#include "programs.h"
#include "qmp.h"

#define WEIR_DAEMON_TIMEOUT_MS 30000

struct WeirDaemon {
    char *program;
    GSubprocess *process;   /* NULL: what is kept has been enough so far */
    gint64 start_s;         /* of the process, in seconds since 1970 */
    WeirQmp *qmp;           /* NULL likewise */
    WeirAnswers *answers;
    bool changed;           /* @answers have come since they were kept */
    WeirSchema *schema;
};

static bool daemon_spawn(WeirDaemon *daemon, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE |
        G_SUBPROCESS_FLAGS_STDERR_PIPE);

    daemon->start_s = g_get_real_time() / G_USEC_PER_SEC;
    g_subprocess_launcher_set_child_setup(launcher, weir_child_setup_bound,
                                          GINT_TO_POINTER(getpid()), NULL);
    daemon->process = g_subprocess_launcher_spawn(
        launcher, error, daemon->program, "--chardev",
        "stdio,id=weir,signal=off", "--monitor", "chardev=weir", NULL);
    if (!daemon->process) {
        return false;
    }
    daemon->qmp = weir_qmp_new(
        g_subprocess_get_stdout_pipe(daemon->process),
        g_subprocess_get_stdin_pipe(daemon->process), daemon->program);
    return weir_qmp_negotiate(daemon->qmp, WEIR_DAEMON_TIMEOUT_MS, error);
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
    daemon->answers = weir_answers_new(introspection, capabilities);
    daemon->schema = weir_answers_schema(daemon->answers, error);
    daemon->changed = daemon->schema != NULL;
    return daemon->schema != NULL;
}

/* Have a process, if there is none yet. */
static bool daemon_need(WeirDaemon *daemon, GError **error)
{
    if (daemon->process || daemon_spawn(daemon, error)) {
        return true;
    }
    daemon_explain(daemon, error);
    return false;
}

/* Take what is kept.  Returns whether there was anything. */
static bool daemon_remember(WeirDaemon *daemon)
{
    daemon->answers = weir_answers_load(daemon->program);
    daemon->schema = daemon->answers
        ? weir_answers_schema(daemon->answers, NULL) : NULL;
    if (!daemon->schema) {
        g_clear_pointer(&daemon->answers, weir_answers_free);
    }
    return daemon->schema != NULL;
}

/* What a plugin says of itself. */
static JsonObject *daemon_describe(void *opaque, const char *plugin,
                                   GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "plugin", plugin);
    answer = weir_daemon_ask(opaque, "query-weir-plugin", arguments, error);
    if (answer && !weir_json_as_object(answer)) {
        weir_set_error(error, "the storage daemon tells nothing of it");
        return NULL;
    }
    return answer ? json_object_ref(weir_json_as_object(answer)) : NULL;
}

void weir_daemon_learn_plugins(WeirDaemon *daemon)
{
    g_autoptr(JsonNode) answer = weir_schema_find(daemon->schema,
                                                  WEIR_PLUGIN_DRIVER)
        ? weir_daemon_ask(daemon, "query-weir-plugins", NULL, NULL) : NULL;
    JsonArray *files = weir_json_as_array(answer);

    for (guint i = 0; i < weir_json_length(files); i++) {
        JsonObject *file = weir_json_object_at(files, i);
        const char *name = weir_json_string(file, "name");

        if (name && !weir_json_string(file, "problem")) {
            weir_schema_find_plugin(daemon->schema, WEIR_PLUGIN_DRIVER, name);
        }
    }
}

WeirDaemon *weir_daemon_start(const char *bin_dir, GError **error)
{
    g_autoptr(WeirDaemon) daemon = g_new0(WeirDaemon, 1);

    daemon->program = weir_program_find(bin_dir, "qemu-storage-daemon", error);
    if (!daemon->program) {
        return NULL;
    }
    if (!daemon_remember(daemon)) {
        if (!daemon_need(daemon, error)) {
            return NULL;
        }
        if (!daemon_learn(daemon, error)) {
            daemon_explain(daemon, error);
            return NULL;
        }
    }
    weir_schema_set_describe(daemon->schema, daemon_describe, daemon);
    return g_steal_pointer(&daemon);
}

static void daemon_keep(WeirDaemon *daemon)
{
    const char *pid = g_subprocess_get_identifier(daemon->process);

    if (daemon->changed && pid) {
        weir_answers_save(daemon->answers, daemon->program, atoi(pid),
                          daemon->start_s);
    }
}

void weir_daemon_free(WeirDaemon *daemon)
{
    if (!daemon) {
        return;
    }
    if (daemon->process) {
        daemon_keep(daemon);
        g_subprocess_force_exit(daemon->process);
        g_subprocess_wait(daemon->process, NULL, NULL);
    }
    weir_qmp_free(daemon->qmp);
    g_clear_object(&daemon->process);
    weir_schema_free(daemon->schema);
    weir_answers_free(daemon->answers);
    g_free(daemon->program);
    g_free(daemon);
}

const WeirSchema *weir_daemon_schema(const WeirDaemon *daemon)
{
    return daemon->schema;
}

WeirQmp *weir_daemon_qmp(WeirDaemon *daemon, GError **error)
{
    return daemon_need(daemon, error) ? daemon->qmp : NULL;
}

bool weir_daemon_quit(WeirDaemon *daemon, GError **error)
{
    g_autoptr(JsonNode) answer = weir_qmp_execute(
        daemon->qmp, "quit", NULL, WEIR_DAEMON_TIMEOUT_MS, error);

    return answer && g_subprocess_wait_check(daemon->process, NULL, error);
}

/* What a driver is asked about @filter; the caller unrefs it. */
static JsonObject *daemon_question(const WeirPolicyFilter *filter)
{
    JsonObject *arguments = json_object_new();
    JsonObject *node = weir_plan_sample(filter);

    json_object_set_string_member(node, "driver", filter->driver);
    json_object_set_string_member(node, filter->child, "weir-check-disk");
    json_object_set_object_member(arguments, "filter", node);
    return arguments;
}

/* Of all that is asked about @policy; the caller frees it. */
static char *daemon_digest(const WeirPolicy *policy)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; i < policy->filters->len; i++) {
        g_autoptr(JsonObject) question = daemon_question(
            g_ptr_array_index(policy->filters, i));
        g_autofree char *line = weir_json_object_text(question, false);

        g_string_append_printf(text, "%s\n", line);
    }
    return g_compute_checksum_for_string(G_CHECKSUM_SHA256, text->str, -1);
}

/* Ask the driver of a filter.  Its refusal is a line in @text. */
static bool daemon_try(WeirDaemon *daemon, const WeirPolicyFilter *filter,
                       GString *text, GError **error)
{
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(GError) local = NULL;
    g_autofree char *message = NULL;

    answer = weir_qmp_execute(daemon->qmp, "weir-check-options",
                              daemon_question(filter), WEIR_DAEMON_TIMEOUT_MS,
                              &local);
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

/*
 * Whether what is said of @policy depends on more than the programs: options
 * that the driver itself looks up in another file.
 */
static bool daemon_asks_others(const WeirDaemon *daemon,
                               const WeirPolicy *policy)
{
    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);
        const WeirFilterType *type = weir_schema_find(daemon->schema,
                                                      filter->driver);

        if (type && weir_schema_has_open(&type->options)) {
            return true;
        }
    }
    return false;
}

JsonNode *weir_daemon_ask(WeirDaemon *daemon, const char *command,
                          JsonObject *arguments, GError **error)
{
    if (!daemon_need(daemon, error)) {
        if (arguments) {
            json_object_unref(arguments);
        }
        return NULL;
    }
    return weir_qmp_execute(daemon->qmp, command, arguments,
                            WEIR_DAEMON_TIMEOUT_MS, error);
}

bool weir_daemon_check(WeirDaemon *daemon, const WeirPolicy *policy,
                       GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autofree char *digest = daemon_digest(policy);
    bool kept = !daemon_asks_others(daemon, policy);
    bool ok = true;

    if (kept && weir_answers_accepted(daemon->answers, digest)) {
        return true;
    }
    if (!daemon_need(daemon, error)) {
        return false;
    }
    for (guint i = policy->filters->len; ok && i-- > 0;) {
        ok = daemon_try(daemon, g_ptr_array_index(policy->filters, i), text,
                        error);
    }
    if (ok && text->len > 0) {
        g_set_error_literal(error, WEIR_ERROR, WEIR_ERROR_POSITION,
                            text->str);
        ok = false;
    }
    if (ok && kept) {
        weir_answers_accept(daemon->answers, digest);
        daemon->changed = true;
    }
    return ok;
}
