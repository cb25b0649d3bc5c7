# SPDX-License-Identifier: GPL-2.0-or-later
"""Loaded by the Python of each iotest: nodes that a test adds or reopens over
QMP get the filter as well (see interpose.py)."""

import os
import sys


def install():
    from qemu.qmp.message import Message
    from qemu.qmp.qmp_client import QMPClient
    import interpose

    execute = QMPClient._execute

    async def execute_filtered(self, msg, assign_id=True):
        command = msg.get('execute')
        if command in ('blockdev-add', 'blockdev-reopen'):
            msg = Message({**msg, 'arguments': interpose.filtered(
                msg.get('arguments', {}), opened=command == 'blockdev-add')})
        return await execute(self, msg, assign_id)

    QMPClient._execute = execute_filtered


if os.environ.get('WEIR_IOTESTS_WAY') == 'inside' and \
        os.environ.get('WEIR_IOTESTS_TEST') in sys.orig_argv and \
        'qmp' not in os.environ['WEIR_IOTESTS_LEAVE'].split(','):
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))
    install()
