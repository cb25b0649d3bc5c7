/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-stage.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "programs.h"

/* How long a request may be held, here: so that a check can see that it was. */
#define STAGE_DEADLINE_MS 3000
#define STAGE_LOG_BYTES 8192

/* --- the daemon --- */

static bool stage_spawn(WeirStage *stage, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher = g_subprocess_launcher_new(
        G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE);
    WeirTrial *trial = stage->trial;
    g_autofree char *found = weir_program_find(
        trial->test->bin_dir, "qemu-storage-daemon", error);
    g_autofree char *program = found ? g_canonicalize_filename(found, NULL) :
                                       NULL;
    g_autofree char *server = g_strdup_printf(
        "addr.type=unix,addr.path=%s,max-connections=0", stage->socket);

    if (!program) {
        return false;
    }
    /* a plugin that is given odd names may make files of them */
    g_subprocess_launcher_set_cwd(launcher, trial->test->dir);
    /* growth of memory is not hidden in heaps of many threads */
    g_subprocess_launcher_setenv(launcher, "MALLOC_ARENA_MAX", "1", TRUE);
    g_subprocess_launcher_set_stderr_file_path(launcher, stage->log);
    g_subprocess_launcher_set_child_setup(launcher, weir_child_setup_bound,
                                          GINT_TO_POINTER(getpid()), NULL);
    stage->process = g_subprocess_launcher_spawn(
        launcher, error, program, "--chardev", "stdio,id=weir,signal=off",
        "--monitor", "chardev=weir", "--nbd-server", server,
        "--object", "iothread,id=thread0", "--object", "iothread,id=thread1",
        NULL);
    if (!stage->process) {
        return false;
    }
    g_mutex_lock(&trial->lock);
    g_ptr_array_add(trial->daemons, g_object_ref(stage->process));
    if (trial->is_late) {
        g_subprocess_force_exit(stage->process);
    }
    g_mutex_unlock(&trial->lock);
    stage->qmp = weir_qmp_new(g_subprocess_get_stdout_pipe(stage->process),
                              g_subprocess_get_stdin_pipe(stage->process),
                              "qemu-storage-daemon");
    return true;
}

/* What it has said so far, which the caller frees. */
static char *stage_said(const WeirStage *stage)
{
    g_autofree char *text = NULL;
    gsize length;

    if (!g_file_get_contents(stage->log, &text, &length, NULL)) {
        return g_strdup("");
    }
    return g_utf8_make_valid(text + (length > STAGE_LOG_BYTES ?
                                     length - STAGE_LOG_BYTES : 0), -1);
}

static void forget_process(WeirStage *stage)
{
    WeirTrial *trial = stage->trial;

    g_mutex_lock(&trial->lock);
    g_ptr_array_remove(trial->daemons, stage->process);
    g_mutex_unlock(&trial->lock);
    g_clear_object(&stage->process);
}

/* The process has ended: say how, if it was not in order. */
static bool stage_judge(WeirStage *stage, GError **error)
{
    g_autofree char *said = NULL;
    int signal_number = 0, status = 0;
    bool is_sanitizer;

    g_subprocess_wait(stage->process, NULL, NULL);
    said = stage_said(stage);
    is_sanitizer = strstr(said, "Sanitizer") && strstr(said, "ERROR:");
    if (g_subprocess_get_if_signaled(stage->process)) {
        signal_number = g_subprocess_get_term_sig(stage->process);
    } else {
        status = g_subprocess_get_exit_status(stage->process);
    }
    if (is_sanitizer || strstr(said, "runtime error:")) {
        const char *at = strstr(said, is_sanitizer ? "ERROR:" :
                                "runtime error:");
        g_autofree char *line = g_strndup(at, strcspn(at, "\n"));

        weir_set_error(error, "a sanitizer has found something: %s", line);
    } else if (signal_number) {
        weir_set_error(error, "the process of the plugin was killed by signal "
                       "%d (%s)", signal_number, g_strsignal(signal_number));
    } else if (status) {
        weir_set_error(error, "the process of the plugin ended with exit "
                       "status %d", status);
    } else {
        return true;
    }
    return false;
}

/* If @error is that the daemon is gone, tell why instead. */
static void stage_explain(WeirStage *stage, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (!error || !stage->process ||
        !g_error_matches(*error, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        return;
    }
    if (stage_judge(stage, &local)) {
        weir_set_error(&local, "the process of the plugin has ended by "
                       "itself");
    }
    g_clear_error(error);
    g_propagate_error(error, g_steal_pointer(&local));
    forget_process(stage);
}

WeirStage *weir_stage_new(WeirTrial *trial, const char *name, GError **error)
{
    g_autoptr(WeirStage) stage = g_new0(WeirStage, 1);
    g_autofree char *socket = g_strdup_printf("%s.nbd", name);
    g_autofree char *log = g_strdup_printf("%s.log", name);

    stage->trial = trial;
    stage->socket = weir_trial_path(trial, socket);
    stage->log = weir_trial_path(trial, log);
    if (!stage_spawn(stage, error)) {
        return NULL;
    }
    if (!weir_qmp_negotiate(stage->qmp, WEIR_STAGE_TIMEOUT_MS, error)) {
        stage_explain(stage, error);
        return NULL;
    }
    return g_steal_pointer(&stage);
}

bool weir_stage_quit(WeirStage *stage, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonNode) answer = NULL;
    bool ok;

    weir_trial_step(stage->trial, "ending the daemon in order");
    answer = weir_qmp_execute(stage->qmp, "quit", NULL, WEIR_STAGE_TIMEOUT_MS,
                              &local);
    if (!answer && !g_error_matches(local, WEIR_ERROR, WEIR_ERROR_CLOSED)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return false;
    }
    ok = stage_judge(stage, error);
    forget_process(stage);
    return ok;
}

void weir_stage_kill(WeirStage *stage)
{
    if (stage->process) {
        g_subprocess_force_exit(stage->process);
        g_subprocess_wait(stage->process, NULL, NULL);
        forget_process(stage);
    }
}

void weir_stage_free(WeirStage *stage)
{
    g_autofree char *said = NULL;

    if (!stage) {
        return;
    }
    weir_stage_kill(stage);
    said = stage->log ? stage_said(stage) : g_strdup("");
    g_string_append(stage->trial->log, said);
    if (stage->socket) {
        unlink(stage->socket);
        unlink(stage->log);
    }
    weir_qmp_free(stage->qmp);
    g_free(stage->socket);
    g_free(stage->log);
    g_free(stage);
}

/* --- commands --- */

JsonNode *weir_stage_ask(WeirStage *stage, const char *command,
                         JsonObject *arguments, GError **error)
{
    g_autoptr(GError) local = NULL;
    JsonNode *answer;

    answer = weir_qmp_execute(stage->qmp, command, arguments,
                              WEIR_STAGE_TIMEOUT_MS, &local);
    if (!answer) {
        stage_explain(stage, &local);
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "%s: ",
                                   command);
    }
    return answer;
}

bool weir_stage_cmd(WeirStage *stage, GError **error, const char *command,
                    const char *json, ...)
{
    g_autoptr(JsonNode) arguments = NULL;
    g_autoptr(JsonNode) answer = NULL;

    if (json) {
        g_autofree char *text = NULL;
        va_list args;

        va_start(args, json);
        text = g_strdup_vprintf(json, args);
        va_end(args);
        arguments = weir_json_parse(text, strlen(text), error);
        if (!arguments) {
            return false;
        }
    }
    answer = weir_stage_ask(stage, command, arguments ?
                            json_node_dup_object(arguments) : NULL, error);
    return answer != NULL;
}

/* Where a job is, or NULL if there is no such; *failure: how it ended. */
static char *job_status(WeirStage *stage, const char *id, char **failure,
                        GError **error)
{
    g_autoptr(JsonNode) jobs = weir_stage_ask(stage, "query-jobs", NULL,
                                              error);
    JsonArray *array = weir_json_as_array(jobs);

    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *job = weir_json_object_at(array, i);

        if (g_strcmp0(weir_json_string(job, "id"), id) == 0) {
            *failure = g_strdup(weir_json_string(job, "error"));
            return g_strdup(weir_json_string(job, "status"));
        }
    }
    if (jobs) {
        weir_set_error(error, "there is no job '%s' any more", id);
    }
    return NULL;
}

bool weir_stage_wait_job(WeirStage *stage, const char *id, const char *status,
                         GError **error)
{
    for (;;) {
        g_autofree char *failure = NULL;
        g_autofree char *now = job_status(stage, id, &failure, error);
        bool is_over = g_strcmp0(now, "concluded") == 0;

        if (!now) {
            return false;
        }
        if (is_over && !weir_stage_cmd(stage, error, "job-dismiss",
                                       "{\"id\": \"%s\"}", id)) {
            return false;
        }
        if (failure) {
            weir_set_error(error, "the job '%s' has failed: %s", id, failure);
            return false;
        }
        if (strcmp(now, status) == 0) {
            return true;
        }
        if (is_over) {
            weir_set_error(error, "the job '%s' was over before it was %s",
                           id, status);
            return false;
        }
        g_usleep(5000);
    }
}

/* --- nodes --- */

bool weir_stage_add_below(WeirStage *stage, WeirBelow *below, const char *node,
                          const char *name, GError **error)
{
    return weir_stage_cmd(
        stage, error, "blockdev-add",
        "{\"driver\": \"nbd\", \"node-name\": \"%s\", \"export\": \"%s\","
        " \"discard\": \"unmap\","
        " \"server\": {\"type\": \"unix\", \"path\": \"%s\"}}",
        node, name, weir_below_path(below));
}

bool weir_stage_add_file(WeirStage *stage, const char *node, const char *file,
                         guint64 bytes, GError **error)
{
    g_autofree char *path = weir_trial_path(stage->trial, file);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0 || (lseek(fd, 0, SEEK_END) == 0 &&
                   ftruncate(fd, (off_t)bytes) < 0)) {
        weir_set_error(error, "cannot make %s", path);
    }
    if (fd < 0) {
        return false;
    }
    close(fd);
    return weir_stage_cmd(
        stage, error, "blockdev-add",
        "{\"driver\": \"file\", \"node-name\": \"%s\", \"filename\": \"%s\","
        " \"discard\": \"unmap\"}", node, path);
}

static JsonObject *stage_options(const WeirPluginTest *test)
{
    JsonObject *options = json_object_new();

    for (char **option = test->options; option && *option; option++) {
        g_auto(GStrv) pair = g_strsplit(*option, "=", 2);

        json_object_set_string_member(options, pair[0], pair[1]);
    }
    return options;
}

JsonObject *weir_stage_node(const WeirStage *stage, const char *node,
                            const char *file, const char *on_error)
{
    const WeirPluginTest *test = stage->trial->test;
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "driver", "weir-plugin");
    json_object_set_string_member(object, "node-name", node);
    json_object_set_string_member(object, "plugin", test->plugin);
    json_object_set_string_member(object, "on-error", on_error);
    json_object_set_string_member(object, "file", file);
    json_object_set_int_member(object, "deadline", STAGE_DEADLINE_MS);
    if (test->options) {
        json_object_set_object_member(object, "options",
                                      stage_options(test));
    }
    json_object_set_string_member(object, "discard", "unmap");
    if (test->sidecar_bytes) {
        g_autofree char *sidecar = g_strdup_printf("sidecar-%s", node);

        json_object_set_string_member(object, "sidecar", sidecar);
    }
    return object;
}

/* Its sidecar is a file, which stays for the next that has the name. */
bool weir_stage_add_plugin(WeirStage *stage, const char *node,
                           const char *file, GError **error)
{
    const WeirPluginTest *test = stage->trial->test;
    g_autoptr(JsonNode) answer = NULL;

    if (test->sidecar_bytes) {
        g_autofree char *sidecar = g_strdup_printf("sidecar-%s", node);

        if (!weir_stage_add_file(stage, sidecar, sidecar, test->sidecar_bytes,
                                 error)) {
            return false;
        }
    }
    answer = weir_stage_ask(stage, "blockdev-add",
                            weir_stage_node(stage, node, file, "stall"),
                            error);
    return answer != NULL;
}

bool weir_stage_reopen(WeirStage *stage, JsonObject *node, GError **error)
{
    JsonObject *arguments = json_object_new();
    JsonArray *nodes = json_array_new();
    g_autoptr(JsonNode) answer = NULL;

    json_array_add_object_element(nodes, node);
    json_object_set_array_member(arguments, "options", nodes);
    answer = weir_stage_ask(stage, "blockdev-reopen", arguments, error);
    return answer != NULL;
}

bool weir_stage_export(WeirStage *stage, const char *node, bool writable,
                       const char *thread, GError **error)
{
    g_autofree char *where = thread ? g_strdup_printf(
        ", \"iothread\": \"%s\", \"fixed-iothread\": true", thread) :
        g_strdup("");

    return weir_stage_cmd(
        stage, error, "block-export-add",
        "{\"type\": \"nbd\", \"id\": \"%s\", \"node-name\": \"%s\","
        " \"name\": \"%s\", \"writable\": %s%s}",
        node, node, node, writable ? "true" : "false", where);
}

static bool is_exported(WeirStage *stage, const char *node)
{
    g_autoptr(JsonNode) exports = weir_stage_ask(stage, "query-block-exports",
                                                 NULL, NULL);
    JsonArray *array = weir_json_as_array(exports);

    for (guint i = 0; i < weir_json_length(array); i++) {
        if (g_strcmp0(weir_json_string(weir_json_object_at(array, i), "id"),
                      node) == 0) {
            return true;
        }
    }
    return false;
}

bool weir_stage_unexport(WeirStage *stage, const char *node, GError **error)
{
    if (!weir_stage_cmd(stage, error, "block-export-del",
                        "{\"id\": \"%s\", \"mode\": \"hard\"}", node)) {
        return false;
    }
    while (is_exported(stage, node)) {
        g_usleep(1000);
    }
    return true;
}

bool weir_stage_del(WeirStage *stage, const char *node, GError **error)
{
    return weir_stage_cmd(stage, error, "blockdev-del",
                          "{\"node-name\": \"%s\"}", node);
}

/* --- what it is like --- */

bool weir_stage_check_state(WeirStage *stage, const char *node,
                            GError **error)
{
    static const char *const what[][2] = {
        { "expired", "it holds requests that had to be ended without it, "
          "since it held them for too long" },
        { "overdue", "it holds requests for too long" },
        { "failed", "requests have failed since it could not do them, or "
          "held them for too long" },
    };
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;
    JsonObject *info;

    json_object_set_string_member(arguments, "node-name", node);
    answer = weir_stage_ask(stage, "query-weir", arguments, error);
    if (!answer) {
        return false;
    }
    info = weir_json_object_at(weir_json_as_array(answer), 0);
    for (guint i = 0; i < G_N_ELEMENTS(what); i++) {
        gint64 count = weir_json_int(info, what[i][0], 0);

        if (count) {
            weir_set_error(error, "%s (%s: %" G_GINT64_FORMAT ", deadline: "
                           "%d ms)", what[i][1], what[i][0], count,
                           STAGE_DEADLINE_MS);
            return false;
        }
    }
    return true;
}

char *weir_stage_uri(const WeirStage *stage, const char *node)
{
    return g_strdup_printf("nbd+unix:///%s?socket=%s", node, stage->socket);
}

guint64 weir_stage_proc(const WeirStage *stage, const char *file,
                        const char *field)
{
    g_autofree char *path = g_strdup_printf(
        "/proc/%s/%s", g_subprocess_get_identifier(stage->process), file);
    g_autofree char *text = NULL;
    g_autofree char *key = g_strdup_printf("\n%s:", field);
    const char *at;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    at = strstr(text, key);
    return at ? g_ascii_strtoull(at + strlen(key), NULL, 10) : 0;
}

guint weir_stage_files(const WeirStage *stage)
{
    g_autofree char *path = g_strdup_printf(
        "/proc/%s/fd", g_subprocess_get_identifier(stage->process));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    guint count = 0;

    while (dir && g_dir_read_name(dir)) {
        count++;
    }
    return count;
}
