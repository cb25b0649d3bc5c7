/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "digest.h"

char *weir_policy_digest(const WeirPolicy *policy)
{
    g_autoptr(JsonObject) object = json_object_new();
    JsonArray *filters = json_array_new();
    g_autofree char *text = NULL;

    for (guint i = 0; i < policy->filters->len; i++) {
        const WeirPolicyFilter *filter = g_ptr_array_index(policy->filters, i);
        JsonObject *entry = json_object_new();

        json_object_set_string_member(entry, "driver", filter->driver);
        json_object_set_string_member(entry, "place",
                                      weir_place_name(filter->place));
        json_object_set_object_member(entry, "options",
                                      json_object_ref(filter->options));
        json_array_add_object_element(filters, entry);
    }
    json_object_set_array_member(object, "filters", filters);
    json_object_set_object_member(object, "limits",
                                  weir_limits_json(&policy->limits));
    /* what policies of older versions cannot have is left out */
    if (policy->run != WEIR_RUN_IN_PROCESS) {
        json_object_set_string_member(object, "run",
                                      weir_run_mode_name(policy->run));
    }
    if (policy->on_error != WEIR_ON_ERROR_DEFAULT) {
        json_object_set_string_member(object, "on-error",
                                      weir_on_error_name(policy->on_error));
    }
    text = weir_json_object_text(object, false);
    return g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
}
