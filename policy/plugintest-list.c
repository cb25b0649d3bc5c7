/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "plugintest-checks.h"

static const char *without_mutable(const WeirPluginTest *test)
{
    JsonArray *options = weir_json_array(test->about, "options");

    for (guint i = 0; i < weir_json_length(options); i++) {
        if (weir_json_bool(weir_json_object_at(options, i), "mutable",
                           false)) {
            return NULL;
        }
    }
    return "the plugin has no option that can be changed at run time";
}

/* Times are for a machine that has other things to do as well. */
const WeirCheck weir_checks[] = {
    { "load", "it can be loaded, put over a disk, and taken away, again and "
      "again", 20, NULL, weir_check_load },
    { "options", "each option takes what its table says; anything else gets "
      "an error that names it", 60, NULL, weir_check_options },
    { "change", "options change at run time, under load", 60, without_mutable,
      weir_check_change },
    { "data", "what is read is what was written, also when the disk was "
      "closed; the node below has it", 30, NULL, weir_check_data },
    { "unaligned", "requests of any length at any offset", 30, NULL,
      weir_check_unaligned },
    { "huge", "requests of up to 32 MiB", 30, NULL, weir_check_huge },
    { "zeroes", "what is said to be zero is zero", 30, NULL,
      weir_check_zeroes },
    { "read-only", "a disk that is read-only can be read, and is not written "
      "to", 20, NULL, weir_check_read_only },
    { "flush", "what was flushed survives a power cut", 30, NULL,
      weir_check_flush },
    { "fua", "what was written with FUA survives a power cut", 30, NULL,
      weir_check_fua },
    { "errors", "errors of the node below are not hidden, and it goes on "
      "after them", 30, NULL, weir_check_errors },
    { "order", "a read sees the writes that were done before it; of writes "
      "that overlap, each sector is of one", 30, NULL, weir_check_order },
    { "concurrency", "many requests at the same time, of two disks in two "
      "threads", 30, NULL, weir_check_concurrency },
    { "drain", "drained sections under load begin soon, and lose nothing",
      40, NULL, weir_check_drain },
    { "attach", "it is put over a running disk and taken out again, and the "
      "disk has all of its data", 40, NULL, weir_check_attach },
    { "resize", "the disk becomes longer and shorter", 20, NULL,
      weir_check_resize },
    { "overlay", "an overlay is put on the disk under load, and committed",
      30, NULL, weir_check_overlay },
    { "snapshot", "a snapshot within the image below is made and deleted",
      20, NULL, weir_check_snapshot },
    { "migration", "the disk is handed over to another process, and back",
      30, NULL, weir_check_migration },
    { "leaks", "memory, files and threads are given back", 60, NULL,
      weir_check_leaks },
    { NULL, NULL, 0, NULL, NULL }
};
