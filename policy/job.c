/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "job.h"

#define JOB_COMMAND_MS 120000
#define JOB_POLL_US 50000
#define JOB_POLLS_PER_LOOK 20

/* With a job's id as the only argument. */
static bool job_command(WeirQmp *qmp, const char *command, const char *id,
                        GError **error)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(arguments, "id", id);
    answer = weir_qmp_execute(qmp, command, arguments, JOB_COMMAND_MS, error);
    return answer != NULL;
}

/* The object in @answer, an array, that has @text in @member; or NULL. */
static JsonObject *job_find(JsonNode *answer, const char *member,
                            const char *text)
{
    JsonArray *array = weir_json_as_array(answer);

    for (guint i = 0; i < weir_json_length(array); i++) {
        JsonObject *object = weir_json_object_at(array, i);

        if (g_strcmp0(weir_json_string(object, member), text) == 0) {
            return object;
        }
    }
    return NULL;
}

static void job_tell_progress(const WeirJobWatch *watch, JsonObject *job)
{
    double total = weir_json_number(job, "total-progress", 0);

    if (watch->progress && total > 0) {
        watch->progress(weir_json_number(job, "current-progress", 0) / total);
    }
}

/* A disk that cannot be written to lets the job wait for ever. */
static void job_tell_trouble(WeirQmp *qmp, const WeirJobWatch *watch,
                             const char *node_name, char **told)
{
    g_autoptr(JsonNode) answer = weir_qmp_execute(qmp, "query-weir", NULL,
                                                  JOB_COMMAND_MS, NULL);
    const char *reason = weir_json_string(
        job_find(answer, "node-name", node_name), "reason");

    if (watch->trouble && reason && g_strcmp0(reason, *told) != 0) {
        watch->trouble(reason);
        g_free(*told);
        *told = g_strdup(reason);
    }
}

/* @job: NULL if it is not known any more */
static bool job_end(WeirQmp *qmp, JsonObject *job, const char *id,
                    bool cancelled, GError **error)
{
    const char *failure = weir_json_string(job, "error");

    if (failure) {
        weir_set_error(error, "%s", cancelled ? "interrupted" : failure);
    }
    return (!job || job_command(qmp, "job-dismiss", id,
                                failure ? NULL : error)) && !failure;
}

bool weir_job_wait(WeirQmp *qmp, const char *id, const char *node_name,
                   const WeirJobWatch *watch, GError **error)
{
    g_autofree char *told = NULL;
    bool cancelled = false;

    for (guint i = 1;; i++) {
        g_autoptr(JsonNode) jobs = weir_qmp_execute(qmp, "query-jobs", NULL,
                                                    JOB_COMMAND_MS, error);
        JsonObject *job = job_find(jobs, "id", id);

        if (!jobs) {
            return false;
        }
        if (!job || g_strcmp0(weir_json_string(job, "status"),
                              "concluded") == 0) {
            return job_end(qmp, job, id, cancelled, error);
        }
        job_tell_progress(watch, job);
        if (i % JOB_POLLS_PER_LOOK == 0) {
            job_tell_trouble(qmp, watch, node_name, &told);
        }
        if (!cancelled && watch->is_interrupted(watch->opaque)) {
            cancelled = true;
            /* it may just have ended */
            job_command(qmp, "job-cancel", id, NULL);
        }
        g_usleep(JOB_POLL_US);
    }
}
