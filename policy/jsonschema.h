/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The libcyaml schema of policies as a JSON schema.
 *
 * A scalar of YAML is a text for Weir, whatever it looks like; here it is what
 * YAML 1.2 makes of it.
 */
#ifndef WEIR_JSONSCHEMA_H
#define WEIR_JSONSCHEMA_H

#include "schema.h"

/*
 * @root, @entry: of a policy and of an entry of its filters
 * Returns an object that the caller unrefs.
 */
JsonObject *weir_jsonschema_new(const cyaml_schema_value_t *root,
                                const cyaml_schema_value_t *entry,
                                const WeirSchema *installed);

#endif
