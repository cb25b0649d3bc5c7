/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a service manager is told: see sd_notify(3). */
#ifndef WEIR_NOTIFY_H
#define WEIR_NOTIFY_H

/* Send @state, such as "READY=1", to $NOTIFY_SOCKET, if there is one. */
void weir_notify(const char *state);

#endif
