#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Replication from one storage daemon to another: what the replica has, and
what it had at each point in time."""

import random
import subprocess
import time

import nbd

from cachetest import BLOCK, KIB, MIB, content, nbd_connect
from replicationtest import ReplicationTest, Stamps, Writer
from weirtest import blockdev, main, run, wait_for


class Journal(ReplicationTest):
    """The keeper alone."""

    def test_a_log_is_made_once(self):
        keeper = self.keeper()
        group = self.journal_info(keeper)['group']
        keeper.quit()
        keeper = self.keeper()
        self.assertEqual(self.journal_info(keeper)['group'], group)
        keeper.quit()

    def test_no_log_without_create(self):
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        self.assertFails('weir-journal', keeper.cmd, 'blockdev-add',
                         self.journal(create=False))
        keeper.quit()

    def test_something_else_is_not_overwritten(self):
        with open(self.log, 'r+b') as f:
            f.seek(4096)
            f.write(b'precious')
        before = self.file_content(self.log)
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        self.assertFails('weir-journal', keeper.cmd, 'blockdev-add',
                         self.journal())
        keeper.quit()
        self.assertEqual(self.file_content(self.log), before)

    def test_read_only_is_refused(self):
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        self.assertFails('read-only', keeper.cmd, 'blockdev-add',
                         self.journal(read_only=True))
        keeper.quit()

    def test_what_is_no_packet_is_refused(self):
        keeper = self.keeper()
        client = nbd_connect(self.keeper_sock, 'log')
        before = client.pread(4 * MIB, 0)
        for data, offset in [(b'x' * 4096, 64 * KIB), (b'x' * 4096, 0),
                             (b'x' * 512, 64 * KIB)]:
            with self.assertRaises(nbd.Error):
                client.pwrite(data, offset)
        with self.assertRaises(nbd.Error):
            client.zero(4096, 64 * KIB)
        self.assertEqual(client.pread(4 * MIB, 0), before)
        self.assertGreaterEqual(self.journal_info(keeper)['refused'], 3)
        keeper.quit()

    def test_a_base_of_its_own_is_not_shared_with_writers(self):
        keeper = self.keeper()
        self.assertFails('', keeper.cmd, 'block-export-add', {
            'type': 'nbd', 'id': 'base', 'node-name': 'base0',
            'writable': True})
        keeper.quit()

    def test_retention_is_changed_by_reopening(self):
        keeper = self.keeper()
        keeper.cmd('blockdev-reopen', {'options': [
            self.journal(retain_time=1)]})
        self.assertFails('segment-size', keeper.cmd, 'blockdev-reopen', {
            'options': [self.journal(segment_size=16 * MIB)]})
        keeper.quit()

    def test_no_replica_without_a_point(self):
        keeper = self.keeper()
        self.assertFails('weir-replica', keeper.cmd, 'blockdev-add',
                         {**self.replica(), 'node-name': 'replica'})
        keeper.quit()

    def test_points_are_limited(self):
        keeper = self.keeper()
        self.assertEqual(self.points(keeper), [])
        self.assertFails('limit', self.points, keeper, limit=0)
        self.assertFails('limit', self.points, keeper, limit=10001)
        keeper.quit()


if __name__ == '__main__':
    main()
