/* SPDX-License-Identifier: GPL-2.0-or-later */
/* weir transform */
#include <gio/gio.h>
#include <gio/gunixinputstream.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "outside.h"
#include "programs.h"
#include "weir.h"

char *weir_read_domain(const char *file, gsize *length, GError **error)
{
    g_autoptr(GInputStream) input = NULL;
    g_autofree char *text = g_malloc(WEIR_DOMAIN_MAX_BYTES + 2);
    g_autoptr(GError) local = NULL;

    if (file) {
        g_autoptr(GFile) object = g_file_new_for_path(file);

        input = G_INPUT_STREAM(g_file_read(object, NULL, &local));
    } else {
        input = g_unix_input_stream_new(STDIN_FILENO, FALSE);
    }
    /* one byte more than is taken, so that it is seen to be too long */
    if (!input || !g_input_stream_read_all(input, text,
                                           WEIR_DOMAIN_MAX_BYTES + 1, length,
                                           NULL, &local)) {
        weir_set_error(error, "cannot read %s: %s",
                       file ? file : "standard input", local->message);
        return NULL;
    }
    text[*length] = '\0';
    return g_steal_pointer(&text);
}

char *weir_assign_options_transform(const WeirAssignOptions *options,
                                    const char *text, gsize length,
                                    GError **error)
{
    g_autoptr(GPtrArray) assigned = weir_assigned_array();
    g_autofree char *emulator = options->emulator
        ? g_canonicalize_filename(options->emulator, NULL)
        : weir_program_find(NULL, WEIR_EMULATOR, error);
    g_auto(WeirOutside) outside = {
        .dirs = weir_policy_dirs(options->places),
        .bin_dir = options->places->bin_dir,
    };
    WeirTransform transform = {
        .emulator = emulator, .assigned = assigned,
        .policy = options->policy, .is_outside = weir_outside_is,
        .opaque = &outside,
    };

    if (!emulator) {
        return NULL;
    }
    if (!weir_transform_check_emulator(emulator, error)) {
        g_prefix_error(error, "--emulator: ");
        return NULL;
    }
    if (options->policy && !weir_name_ok(options->policy, WEIR_VM_MAX_NAME)) {
        weir_set_error(error, "--policy: found '%s', expected the name of a "
                       "policy", options->policy);
        return NULL;
    }
    for (guint i = 0; options->disks && options->disks[i]; i++) {
        WeirAssigned *a = weir_assigned_parse(options->disks[i], error);

        if (!a) {
            return NULL;
        }
        g_ptr_array_add(assigned, a);
    }
    return weir_transform(text, length, &transform, error);
}

void weir_assign_options_clear(WeirAssignOptions *options)
{
    g_strfreev(options->disks);
    g_free(options->policy);
    g_free(options->emulator);
}

int weir_cmd_transform(int argc, char **argv)
{
    g_auto(WeirPolicyOptions) places = { 0 };
    g_auto(WeirAssignOptions) options = { .places = &places };
    gboolean take_back = FALSE;
    GOptionEntry entries[] = {
        WEIR_OPTIONS_ASSIGN(&options),
        WEIR_OPTION_POLICIES(&places.dirs),
        WEIR_OPTION_BIN_DIR(&places.bin_dir),
        { "remove", 0, 0, G_OPTION_ARG_NONE, &take_back,
          "Take back what this command has done", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autofree char *text = NULL;
    g_autofree char *out = NULL;
    GError *error = NULL;
    gsize length;

    if (!weir_parse(&argc, &argv, entries, "< DOMAIN.xml",
                    "Read the XML of a libvirt domain, put the disks that "
                    "have a policy under it, and\nprint the XML.  Policies "
                    "come from the options or from the domain's metadata:\n\n"
                    "  <weir:policies xmlns:weir=\"" WEIR_DOMAIN_URI "\">\n"
                    "    <weir:disk target=\"vda\" policy=\"safe\"/>\n"
                    "  </weir:policies>\n\n"
                    "Exit codes: 0 done, 1 error, 2 wrong usage.")) {
        return WEIR_EXIT_USAGE;
    }
    if (argc > 1) {
        return weir_usage("transform: found '%s', expected options only",
                          argv[1]);
    }
    if (take_back && (options.disks || options.policy || options.emulator)) {
        return weir_usage("transform: found --remove with other options");
    }
    text = weir_read_domain(NULL, &length, &error);
    if (text) {
        out = take_back ? weir_transform_remove(text, length, &error)
                        : weir_assign_options_transform(&options, text,
                                                        length, &error);
    }
    if (!out) {
        return weir_fail(error);
    }
    if (fputs(out, stdout) < 0 || fflush(stdout) != 0) {
        weir_set_error(&error, "cannot write to standard output");
        return weir_fail(error);
    }
    return WEIR_EXIT_OK;
}
