/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-report.h"

#include <errno.h>
#include <libxml/chvalid.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <string.h>

#define REPORT_LOG_LINES 12

static const char *about(const WeirPluginTest *test, const char *name)
{
    const char *text = weir_json_string(test->about, name);

    return text ? text : "";
}

void weir_report_begin(const WeirPluginTest *test)
{
    g_autofree char *description = weir_printable(about(test, "description"));
    g_autofree char *version = weir_printable(about(test, "version"));

    printf("%s %s: %s\n", about(test, "name"), version, description);
    printf("%s, seed %u\n\n", about(test, "path"), test->seed);
    fflush(stdout);
}

/* What sanitizers say of every QEMU, since it has coroutines. */
static bool is_noise(const char *line)
{
    return !*line || strstr(line, "WARNING: ASan ") ||
           g_str_has_prefix(line, "False positive error reports") ||
           g_str_has_prefix(line, "For details see https://github.com/google");
}

/* What the daemon said: the last lines, or what a sanitizer has found. */
static void print_log(const char *log)
{
    g_auto(GStrv) lines = g_strsplit(log ? log : "", "\n", -1);
    guint count = 0, first;

    for (char **line = lines; *line; line++) {
        if (is_noise(*line)) {
            g_free(*line);
        } else {
            lines[count++] = *line;
        }
    }
    lines[count] = NULL;
    first = count > REPORT_LOG_LINES ? count - REPORT_LOG_LINES : 0;
    for (guint i = 0; i < first; i++) {
        if (strstr(lines[i], "ERROR: ") || strstr(lines[i],
                                                  "runtime error: ")) {
            first = i;
        }
    }
    for (guint i = first; i < count && i < first + REPORT_LOG_LINES; i++) {
        g_autofree char *line = weir_printable(lines[i]);

        printf("          | %s\n", line);
    }
}

void weir_report_result(const WeirPluginTest *test, const WeirResult *result)
{
    static const char *const words[] = { "ok", "FAILED", "skipped" };

    printf("%-8s  %-12s", words[result->outcome], result->check->name);
    if (result->outcome == WEIR_OUTCOME_SKIPPED) {
        printf("%s\n", result->message);
    } else {
        printf("%5.1f s\n", result->seconds);
    }
    if (result->outcome == WEIR_OUTCOME_FAILED) {
        printf("          rule:  %s\n          found: %s\n",
               result->check->purpose, result->message);
        print_log(result->log);
        printf("          again: --check %s --seed %u\n", result->check->name,
               test->seed);
    }
    fflush(stdout);
}

static guint count(const GPtrArray *results, WeirOutcome outcome)
{
    guint n = 0;

    for (guint i = 0; i < results->len; i++) {
        n += ((const WeirResult *)results->pdata[i])->outcome == outcome;
    }
    return n;
}

bool weir_report_end(const GPtrArray *results)
{
    guint failed = count(results, WEIR_OUTCOME_FAILED);

    printf("\n%u passed, %u failed, %u skipped\n",
           count(results, WEIR_OUTCOME_PASSED), failed,
           count(results, WEIR_OUTCOME_SKIPPED));
    return failed == 0;
}

/* --- JUnit --- */

static void set(xmlNode *node, const char *name, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

static void set(xmlNode *node, const char *name, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    xmlNewProp(node, BAD_CAST name, BAD_CAST text);
}

/* XML cannot have all characters. */
static void set_text(xmlNode *node, const char *text)
{
    GString *clean = g_string_new(NULL);
    xmlNode *child;

    for (const char *p = text ? text : ""; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        g_string_append_unichar(clean, xmlIsCharQ(c) ? c : '?');
    }
    child = xmlNewText(BAD_CAST clean->str);
    xmlAddChild(node, child);
    g_string_free(clean, TRUE);
}

static void add_case(xmlNode *suite, const WeirPluginTest *test,
                     const WeirResult *result)
{
    xmlNode *node = xmlNewChild(suite, NULL, BAD_CAST "testcase", NULL);
    xmlNode *child;

    set(node, "classname", "weir.plugin.%s", about(test, "name"));
    set(node, "name", "%s", result->check->name);
    set(node, "time", "%.3f", result->seconds);
    if (result->outcome == WEIR_OUTCOME_SKIPPED) {
        child = xmlNewChild(node, NULL, BAD_CAST "skipped", NULL);
        set(child, "message", "%s", result->message);
    } else if (result->outcome == WEIR_OUTCOME_FAILED) {
        child = xmlNewChild(node, NULL, BAD_CAST "failure", NULL);
        set(child, "message", "%s", result->message);
        set_text(child, result->check->purpose);
        child = xmlNewChild(node, NULL, BAD_CAST "system-err", NULL);
        set_text(child, result->log);
    }
}

static xmlDoc *junit(const WeirPluginTest *test, const GPtrArray *results)
{
    xmlDoc *doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNode *suite = xmlNewNode(NULL, BAD_CAST "testsuite");
    xmlNode *properties, *property;
    double seconds = 0;

    for (guint i = 0; i < results->len; i++) {
        seconds += ((const WeirResult *)results->pdata[i])->seconds;
    }
    xmlDocSetRootElement(doc, suite);
    set(suite, "name", "weir plugin test %s", about(test, "name"));
    set(suite, "tests", "%u", results->len);
    set(suite, "failures", "%u", count(results, WEIR_OUTCOME_FAILED));
    set(suite, "errors", "0");
    set(suite, "skipped", "%u", count(results, WEIR_OUTCOME_SKIPPED));
    set(suite, "time", "%.3f", seconds);
    properties = xmlNewChild(suite, NULL, BAD_CAST "properties", NULL);
    property = xmlNewChild(properties, NULL, BAD_CAST "property", NULL);
    set(property, "name", "seed");
    set(property, "value", "%u", test->seed);
    for (guint i = 0; i < results->len; i++) {
        add_case(suite, test, results->pdata[i]);
    }
    return doc;
}

bool weir_report_junit(const WeirPluginTest *test, const GPtrArray *results,
                       const char *path, GError **error)
{
    xmlDoc *doc = junit(test, results);
    xmlChar *text = NULL;
    int bytes = 0;
    bool ok;

    xmlDocDumpFormatMemoryEnc(doc, &text, &bytes, "UTF-8", 1);
    ok = g_file_set_contents(path, (const char *)text, bytes, error);
    xmlFree(text);
    xmlFreeDoc(doc);
    return ok;
}
