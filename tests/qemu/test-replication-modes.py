#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest waits for in each mode, with the log and without it; what a
sidecar spares after the end of a source."""

import threading
import time

import nbd

from cachetest import BLOCK, KIB, MIB, content, nbd_connect
from replicationtest import DISK, ReplicationTest, Stamps, Writer
from weirtest import blockdev, main, wait_for

# an epoch ends when somebody waits for it, not by itself
SELDOM = 60000


class OneDisk(ReplicationTest):
    """One client, and nothing is missing in the end."""

    def check_end(self):
        self.client.shutdown()
        self.mark(self.the_source, 'end')
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.the_source.quit()
        self.the_keeper.quit()


class Call(threading.Thread):
    """A request that may wait for long."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.error = None
        self.start()

    def run(self):
        try:
            self.function(*self.args)
        except nbd.Error as error:
            self.error = error

    def ends(self):
        self.join(60)
        return not self.is_alive()


class Modes(OneDisk):
    def begin(self, **options):
        self.stamps = Stamps()
        self.the_keeper = self.keeper()
        self.the_source = self.source(epoch_interval=SELDOM, **options)
        self.wait_for_status(self.the_source, 'streaming')
        self.client, = self.clients()

    def write(self, count=10, flags=0):
        for _ in range(count):
            self.stamps.write([self.client], flags=flags)

    def count_at_the_target(self):
        """So many writes are there when the source is killed now."""
        self.kill(self.the_source)
        points = self.points(self.the_keeper)
        count = self.stamps.prefix(self.replicas(self.the_keeper)) \
            if points else 0
        self.the_keeper.quit()
        return count

    def test_async_waits_for_nothing(self):
        self.begin(mode='async')
        self.write()
        self.client.flush()
        self.assertEqual(self.count_at_the_target(), 0)

    def test_flush_sync_waits_at_a_flush(self):
        self.begin(mode='flush-sync')
        self.write()
        self.client.flush()
        self.assertEqual(self.count_at_the_target(), 10)

    def test_flush_sync_does_not_wait_at_a_write(self):
        self.begin(mode='flush-sync')
        self.write()
        self.assertEqual(self.count_at_the_target(), 0)

    def test_flush_sync_waits_at_a_write_with_fua(self):
        self.begin(mode='flush-sync')
        self.write()
        self.write(1, nbd.CMD_FLAG_FUA)
        self.assertEqual(self.count_at_the_target(), 11)

    def test_write_sync_waits_at_a_write(self):
        self.begin(mode='write-sync')
        self.write()
        self.assertEqual(self.count_at_the_target(), 10)

    def lose_keeper(self):
        self.kill(self.the_keeper)
        self.wait_for_status(self.the_source, 'disconnected')

    def find_keeper(self):
        self.the_keeper = self.keeper()
        self.wait_for_status(self.the_source, 'streaming')

    def test_degrade(self):
        for mode in ('flush-sync', 'write-sync'):
            with self.subTest(mode):
                self.begin(mode=mode, on_loss='degrade')
                self.lose_keeper()
                self.write()
                self.client.flush()
                self.find_keeper()
                self.write()
                self.client.flush()
                self.check_end()
            self.tearDown()
            self.doCleanups()
            self.setUp()

    def test_degrade_while_the_keeper_hangs(self):
        """It waits no longer than for the timeout."""
        self.begin(mode='write-sync', on_loss='degrade', target_timeout=1000)
        self.freeze(self.the_keeper)
        self.write()
        self.client.flush()
        self.thaw(self.the_keeper)
        self.check_end()

    def test_error(self):
        self.begin(mode='flush-sync', on_loss='error')
        self.lose_keeper()
        self.write()
        with self.assertRaises(nbd.Error) as caught:
            self.client.flush()
        self.assertEqual(caught.exception.errno, 'EIO')
        self.find_keeper()
        self.client.flush()
        self.check_end()

    def test_suspend(self):
        self.begin(mode='flush-sync', on_loss='suspend')
        self.lose_keeper()
        self.write()
        flush = Call(self.client.flush)
        time.sleep(2)
        self.assertTrue(flush.is_alive())
        self.find_keeper()
        self.assertTrue(flush.ends())
        self.assertIsNone(flush.error)
        self.check_end()

    def test_suspended_requests_fail_in_a_drain(self):
        """What drains goes on, although the log is away for good."""
        self.begin(mode='flush-sync', on_loss='suspend', target_timeout=1000)
        self.lose_keeper()
        self.write()
        flush = Call(self.client.flush)
        time.sleep(0.5)
        self.assertTrue(flush.is_alive())
        self.the_source.cmd('blockdev-add', {'driver': 'null-co',
                                             'node-name': 'null'})
        self.the_source.cmd('blockdev-del', {'node-name': 'null'})
        self.assertTrue(flush.ends())
        self.assertEqual(flush.error.errno, 'EIO')
        # as before, afterwards
        flush = Call(self.client.flush)
        time.sleep(2)
        self.assertTrue(flush.is_alive())
        self.find_keeper()
        self.assertTrue(flush.ends())
        self.assertIsNone(flush.error)
        self.check_end()

    def test_rpo_is_told(self):
        self.begin(rpo_limit=300)
        self.write(1)
        late = self.the_source.qmp.event('WEIR_REPLICATION_RPO')
        self.assertGreater(late['rpo'], late['limit'])
        self.the_source.cmd('weir-replication-mark', {
            'node-name': 'repl0', 'mark': 'now'})
        again = self.the_source.qmp.event('WEIR_REPLICATION_RPO')
        self.assertLessEqual(again['rpo'], again['limit'])
        self.check_end()

    def test_more_than_memory_holds(self):
        """The guest goes on, and what was left out is copied."""
        self.begin(max_memory=8 * MIB)
        self.lose_keeper()
        for at in range(0, DISK, MIB):
            self.client.pwrite(b'%8d' % at * (MIB // 8), at)
        info = self.replication_info(self.the_source)
        self.assertLessEqual(info['memory-bytes'], 8 * MIB)
        self.assertGreater(info['resync-bytes'], 0)
        self.find_keeper()
        self.check_end()

    def test_marks(self):
        self.begin()
        for text, name in [('', ''), ('', 'x' * 256)]:
            self.assertFails(text, self.mark_once, name)
        self.write()
        self.mark(self.the_source, 'application',
                  **{'application-consistent': True})
        self.write()
        self.mark(self.the_source, 'übung')
        points = self.points(self.the_keeper, marked=True)
        self.assertEqual([p['marks'] for p in points],
                         [['übung'], ['application']])
        self.assertEqual([p['application-consistent'] for p in points],
                         [False, True])
        self.lose_keeper()
        self.assertFails('not connected', self.mark_once, 'late')
        self.find_keeper()
        self.check_end()

    def mark_once(self, name):
        self.the_source.cmd('weir-replication-mark', {
            'node-name': 'repl0', 'mark': name})


class Sidecar(OneDisk):
    """The disk has a sidecar."""

    def setUp(self):
        super().setUp()
        self.sidecar = self.image('sidecar.img', MIB)
        with open(self.disk_files[0], 'r+b') as f:
            f.write(b'0' * DISK)
        self.the_keeper = self.keeper()
        self.start_source()

    def start_source(self):
        self.the_source = self.server(
            self.source_sock, *self.file_node('disk0', self.disk_files[0]),
            *self.file_node('sidecar', self.sidecar), '--blockdev',
            blockdev(**self.replication(0, sidecar='sidecar')), '--export',
            'nbd,id=exp0,node-name=repl0,name=disk0,writable=on')
        self.client, = self.clients()

    def sent(self):
        self.wait_for_status(self.the_source, 'streaming')
        self.wait_until_sent(self.the_source)
        return self.replication_info(self.the_source)['sent-bytes']

    def test_nothing_is_copied_after_an_orderly_end(self):
        self.assertGreater(self.sent(), DISK)
        self.client.pwrite(b'1' * BLOCK, 0)
        self.client.shutdown()
        self.the_source.quit()
        self.start_source()
        self.assertLess(self.sent(), MIB)
        self.check_end()

    def test_disk_goes_on_without_it(self):
        """What is written while it is detached gets to the replica, although
        the sidecar has seen an orderly end."""
        before = self.sent()
        self.the_source.cmd('weir-detach', {'node-name': 'repl0'})
        self.client.pwrite(b'2' * MIB, 3 * MIB)
        self.the_source.cmd('weir-attach', {
            'node-name': 'disk0',
            'filter': self.replication(0, sidecar='sidecar')})
        self.assertGreater(self.sent(), before - MIB)
        self.check_end()

    def test_little_is_copied_when_the_log_was_away(self):
        self.sent()
        self.kill(self.the_keeper)
        self.client.pwrite(b'1' * BLOCK, 5 * MIB)
        self.client.shutdown()
        self.the_source.quit()
        self.start_source()
        self.the_keeper = self.keeper()
        self.assertLess(self.sent(), DISK)
        self.check_end()

    def test_source_is_killed(self):
        """All that was written since is in the replica afterwards."""
        for i in range(3):
            self.sent()
            for at in range(0, DISK, 3 * MIB):
                self.client.pwrite(b'%d' % i * BLOCK, at)
            self.kill(self.the_source)
            self.start_source()
        self.check_end()

    def test_sidecar_of_another_disk(self):
        self.sent()
        self.client.shutdown()
        self.the_source.quit()
        self.the_source = self.server(
            self.source_sock, *self.file_node('disk0', self.disk_files[0]),
            *self.file_node('sidecar', self.sidecar))
        self.assertFails('sidecar', self.the_source.cmd, 'blockdev-add',
                         self.replication(0, sidecar='sidecar',
                                          disk_id='other'))
        self.the_source.quit()
        self.the_keeper.quit()

    def test_something_else_is_not_overwritten(self):
        other = self.path('other.img')
        with open(other, 'wb') as f:
            f.write(b'precious' * (MIB // 8))
        self.the_source.cmd('blockdev-add', {
            'driver': 'file', 'node-name': 'other', 'filename': other})
        self.the_source.cmd('blockdev-add', {
            'driver': 'null-co', 'node-name': 'disk1', 'size': DISK})
        self.assertFails('sidecar', self.the_source.cmd, 'blockdev-add',
                         self.replication(1, sidecar='other'))
        self.assertEqual(self.file_content(other), b'precious' * (MIB // 8))
        self.sent()
        self.check_end()


if __name__ == '__main__':
    main()
