/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir: storage policies for QEMU/KVM disks. */
#include "weir.h"

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "programs.h"

/* Options before the command, which are those of the command. */
static GPtrArray *weir_leading;

static const WeirCommand commands[] = {
    { "advise", "recommend a cache for a disk", weir_cmd_advise },
    { "attach", "bring a disk in use under a policy", weir_cmd_attach },
    { "binding", "which disks must not be used without which filters",
      weir_cmd_binding },
    { "compile", "print the chain that puts a disk under a policy",
      weir_cmd_compile },
    { "detach", "take the filters of its policy from a disk in use",
      weir_cmd_detach },
    { "inspect", "show what weir-inspect has seen of a disk",
      weir_cmd_inspect },
    { "libvirt", "domains of libvirt with disks under policies",
      weir_cmd_libvirt },
    { "metrics", "print or serve metrics of running disks for Prometheus",
      weir_cmd_metrics },
    { "plugin", "filters of other people: list, show, check or test them",
      weir_cmd_plugin },
    { "policy", "check, compare, list, show or choose policies",
      weir_cmd_policy },
    { "reapply", "bring a disk in use to what its policy says now",
      weir_cmd_reapply },
    { "replica", "points in time of replicated disks, and failover",
      weir_cmd_replica },
    { "run", "run QEMU with disks under policies", weir_cmd_run },
    { "status", "show whether running disks comply with their policies",
      weir_cmd_status },
    { "supervise", "run the storage daemon of disks out of process",
      weir_cmd_supervise },
    { "top", "show what running disks do, over and over", weir_cmd_top },
    { "transform", "put disks of a libvirt domain under policies",
      weir_cmd_transform },
    { "watch", "keep disks of libvirt's domains under their policies",
      weir_cmd_watch },
    { NULL, NULL, NULL }
};

int weir_fail(GError *error)
{
    if (error->domain == WEIR_ERROR && error->code == WEIR_ERROR_POSITION) {
        fprintf(stderr, "%s\n", error->message);
    } else {
        fprintf(stderr, "weir: %s\n", error->message);
    }
    g_error_free(error);
    return WEIR_EXIT_ERROR;
}

void weir_print_json(JsonArray *array)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);
    g_autofree char *text = NULL;

    json_node_take_array(node, array);
    text = weir_json_text(node, true);
    printf("%s\n", text);
}

int weir_usage(const char *format, ...)
{
    va_list args;

    fputs("weir: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return WEIR_EXIT_USAGE;
}

static void weir_help(FILE *stream, const WeirCommand *table,
                      const char *program)
{
    fprintf(stream, "Usage:\n  %s COMMAND [OPTION...]\n\nCommands:\n",
            program);
    for (; table->name; table++) {
        fprintf(stream, "  %-13s %s\n", table->name, table->summary);
    }
    fprintf(stream, "\n%s COMMAND --help tells about a command.\n", program);
}

int weir_dispatch(const WeirCommand *table, const char *program, int argc,
                  char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;

    if (!name) {
        weir_help(stderr, table, program);
        return WEIR_EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 ||
        strcmp(name, "help") == 0) {
        weir_help(stdout, table, program);
        return WEIR_EXIT_OK;
    }
    for (const WeirCommand *command = table; command->name; command++) {
        if (strcmp(command->name, name) == 0) {
            g_autofree char *full = g_strdup_printf("%s %s", program, name);

            g_set_prgname(full);
            argv[1] = full;
            return command->run(argc - 1, argv + 1);
        }
    }
    return weir_usage("found unknown command '%s', expected one that "
                      "'%s --help' lists", name, program);
}

/* Put the options that came before the command behind it. */
static void weir_insert_leading(int *argc, char ***argv)
{
    static GPtrArray *all;      /* stays, as argv does */

    all = g_ptr_array_new();
    g_ptr_array_add(all, (*argv)[0]);
    g_ptr_array_extend(all, weir_leading, NULL, NULL);
    for (int i = 1; i < *argc; i++) {
        g_ptr_array_add(all, (*argv)[i]);
    }
    *argc = (int)all->len;
    g_ptr_array_add(all, NULL);
    *argv = (char **)all->pdata;
}

/*
 * Take "-c URI" and the like from before the command.  Returns how many words
 * they are.
 */
static int weir_take_leading(int argc, char **argv)
{
    int i = 1;

    weir_leading = g_ptr_array_new();
    while (i < argc) {
        bool alone = strcmp(argv[i], "-c") == 0 ||
                     strcmp(argv[i], "--connect") == 0;

        if (!alone && !g_str_has_prefix(argv[i], "--connect=")) {
            break;
        }
        g_ptr_array_add(weir_leading, argv[i++]);
        if (alone && i < argc) {
            g_ptr_array_add(weir_leading, argv[i++]);
        }
    }
    return i - 1;
}

bool weir_parse(int *argc, char ***argv, const GOptionEntry *entries,
                const char *parameters, const char *help)
{
    GOptionContext *context = g_option_context_new(parameters);
    g_autoptr(GError) error = NULL;
    bool ok;

    if (weir_leading->len > 0) {
        weir_insert_leading(argc, argv);
    }
    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_description(context, help);
    ok = g_option_context_parse(context, argc, argv, &error);
    g_option_context_free(context);
    if (!ok) {
        weir_usage("%s (%s --help tells more)", error->message,
                   g_get_prgname());
    }
    return ok;
}

char *const *weir_policy_dirs(const WeirPolicyOptions *options)
{
    static char *const standard[] = { (char *)WEIR_POLICY_DIR, NULL };
    static char *configured[] = { NULL, NULL };

    if (options->dirs) {
        return options->dirs;
    }
    if (!options->config_dir) {
        return standard;
    }
    g_free(configured[0]);
    configured[0] = g_build_filename(options->config_dir, "policies.d", NULL);
    return configured;
}

void weir_policy_options_clear(WeirPolicyOptions *options)
{
    g_free(options->bin_dir);
    g_strfreev(options->dirs);
    g_free(options->config_dir);
}

int main(int argc, char **argv)
{
    int leading;

    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        printf("weir %s\n", WEIR_VERSION);
        return WEIR_EXIT_OK;
    }
    weir_programs_init(argc > 0 ? argv[0] : "weir");
    leading = weir_take_leading(argc, argv);
    return weir_dispatch(commands, "weir", argc - leading, argv + leading);
}
