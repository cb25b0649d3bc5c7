/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Storage that is not on this machine, by its address:
 *
 *   nbd://HOST[:PORT]/EXPORT          an NBD server; also
 *   nbd+unix:///EXPORT?socket=/PATH
 *   nbds://..., nbds+unix://...       with TLS: needs tls-creds=ID, the object
 *                                     of QEMU; tls-hostname=NAME
 *   iscsi://[USER@]HOST[:PORT]/TARGET/LUN
 *                                     a SCSI disk; USER needs password-secret
 *   rbd://POOL/[NAMESPACE/]IMAGE      an image of Ceph
 *
 * What follows "?", separated by "&", is NAME=VALUE:
 *
 *   NBD     reconnect-delay, open-timeout (seconds)
 *   iSCSI   password-secret (see secret.h), initiator-name, header-digest,
 *           timeout (seconds)
 *   RBD     conf (path), user; keys are in the keyring that conf names
 */
#ifndef WEIR_ADDRESS_H
#define WEIR_ADDRESS_H

#include "json.h"

/* Whether @text begins as an address does, with SCHEME://. */
bool weir_address_is(const char *text);

/*
 * The options of the node at an address, without a name; "password-secret" is
 * as the address has it.  The caller unrefs them.  NULL with @error set to what
 * is wrong with @text, without a place.
 */
JsonObject *weir_address_parse(const char *text, GError **error);

/* Whether two nodes are the same storage. */
bool weir_address_same(JsonObject *a, JsonObject *b);

/* What to call a disk there: its export or image, or the end of its target. */
const char *weir_address_name(JsonObject *node);

#endif
