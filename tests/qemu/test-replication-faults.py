#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a replication when something fails: the guest does not
notice in async mode, and each point in time is the disks after a number of
writes, in their order."""

import os
import subprocess
import time

from cachetest import BLOCK, content, nbd_connect
from replicationtest import WriterTest
from weirtest import blockdev, main, wait_for


class Faults(WriterTest):
    """One disk, whose client writes all the time."""

    points_to_check = 5
    # of a log that hangs: they wait for it to pass
    short_timeout_ms = 2000

    def begin(self, **options):
        self.the_keeper = self.keeper()
        self.the_source = self.source(**options)
        self.wait_for_status(self.the_source, 'streaming')
        self.begin_to_write()

    def wait_for_state(self, state, reason=''):
        self.wait_for_info(
            self.the_source, lambda info: info['state'] == state and
            reason in info.get('reason', ''), f'{state}: {reason}')

    def test_nothing_fails(self):
        self.begin()
        self.writer.more(300)
        self.check_end()

    def test_keeper_is_killed(self):
        self.begin()
        for _ in range(3):
            self.writer.more(100)
            self.kill(self.the_keeper)
            self.wait_for_state('degraded', 'replication log')
            self.writer.more(100)
            self.the_keeper = self.keeper()
            self.wait_for_status(self.the_source, 'streaming')
            self.wait_for_state('ok')
        self.check_end()

    def test_keeper_hangs(self):
        """The guest goes on, the watchdog ends it, and it is connected again
        when the keeper has come back."""
        self.begin(target_timeout=self.short_timeout_ms)
        self.writer.pause_s = 0.001
        self.freeze(self.the_keeper)
        self.wait_for_state('degraded', 'has not answered in time')
        self.writer.more(200)
        self.thaw(self.the_keeper)
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    def test_monitor_answers_while_the_keeper_hangs(self):
        self.begin(target_timeout=self.short_timeout_ms)
        self.writer.pause_s = 0.005
        self.freeze(self.the_keeper)
        slowest_s = 0
        # more than two tries
        end = time.monotonic() + 5
        while time.monotonic() < end:
            begin = time.monotonic()
            self.the_source.cmd('query-named-block-nodes', flat=True)
            slowest_s = max(slowest_s, time.monotonic() - begin)
            time.sleep(0.02)
        # it is tried again all the time; none of that is done in the monitor
        self.assertLess(slowest_s, self.short_timeout_ms / 1000)
        self.thaw(self.the_keeper)
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    def test_keeper_hangs_in_a_drain(self):
        """Something that drains all while the log hangs ends."""
        self.begin(target_timeout=self.short_timeout_ms)
        self.freeze(self.the_keeper)
        self.writer.more(20)
        for i in range(5):
            self.the_source.cmd('blockdev-add', {
                'driver': 'null-co', 'node-name': f'null{i}'})
            self.the_source.cmd('blockdev-del', {'node-name': f'null{i}'})
        self.thaw(self.the_keeper)
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    def test_keeper_is_away_at_first(self):
        self.the_source = self.source()
        self.begin_to_write()
        self.wait_for_state('degraded', 'cannot be reached')
        self.the_keeper = self.keeper()
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    def test_source_is_killed(self):
        """What the keeper has is a moment of before; the next source brings
        all up to date."""
        self.begin()
        for _ in range(2):
            self.writer.more(200)
            self.kill(self.the_source)
            self.writer.join()
            images = self.replicas(self.the_keeper)
            self.stamps.prefix(images)
            self.check_points()
            # the last write may have been done or not
            self.settle_last_write()
            self.the_source = self.source()
            self.wait_for_status(self.the_source, 'streaming')
            self.begin_to_write()
        self.check_end()

    def settle_last_write(self):
        """What a write that was under way has become on the disk."""
        disk, block = self.stamps.log[-1]
        data = self.file_content(self.disk_files[disk])[
            block * BLOCK:(block + 1) * BLOCK]
        if data != content(block, len(self.stamps.log)):
            self.stamps.log.pop()

    def test_source_ends_with_data_queued(self):
        """What is queued when the source ends is sent before."""
        self.begin(epoch_interval=60000)
        self.writer.more(200)
        self.writer.end()
        for client in self.writer.clients:
            client.shutdown()
        self.the_source.quit()
        images = self.replicas(self.the_keeper)
        self.assertEqual(self.stamps.prefix(images), len(self.stamps.log))
        self.the_keeper.quit()

    def test_source_ends_while_the_keeper_hangs(self):
        self.begin(target_timeout=self.short_timeout_ms)
        self.mark(self.the_source, 'begun')
        self.freeze(self.the_keeper)
        self.writer.more(20)
        self.writer.end()
        for client in self.writer.clients:
            client.shutdown()
        begin = time.monotonic()
        self.the_source.quit()
        self.assertLess(time.monotonic() - begin, 30)
        self.thaw(self.the_keeper)
        self.stamps.prefix(self.replicas(self.the_keeper, 'mark:begun'))
        self.the_keeper.quit()

    def test_source_ends_while_the_keeper_is_away(self):
        self.begin()
        self.kill(self.the_keeper)
        self.writer.more(20)
        self.writer.end()
        for client in self.writer.clients:
            client.shutdown()
        self.the_source.quit()

    def test_link_is_cut(self):
        """All connections end, and there are new ones at once."""
        self.begin()
        for _ in range(3):
            self.writer.more(100)
            self.the_keeper.cmd('block-export-del', {'id': 'log',
                                                     'mode': 'hard'})
            self.the_keeper.qmp.event('BLOCK_EXPORT_DELETED')
            self.writer.more(20)
            self.the_keeper.cmd('block-export-add', {
                'type': 'nbd', 'id': 'log', 'node-name': 'journal',
                'name': 'log', 'writable': True})
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    def test_second_writer_is_refused(self):
        self.begin()
        begun = self.replication_info(self.the_source)['connections']
        other = self.image('other.img', self.disk_size)
        sock = self.path('other.sock')
        log = self.remote_log()
        second = self.server(
            sock, *self.file_node('disk0', other), '--blockdev',
            blockdev(**self.replication(0, log=log)),
            '--export', 'nbd,id=exp0,node-name=repl0,name=disk0,writable=on')
        client = nbd_connect(sock, 'disk0')
        client.pwrite(b'2' * BLOCK, 0)
        wait_for(lambda: self.filter_info(second, 'repl0')['state'] != 'ok',
                 'the second one is refused')
        self.writer.more(200)
        client.shutdown()
        self.kill(second)
        self.assertEqual(
            self.replication_info(self.the_source)['connections'], begun)
        self.check_end()

    def test_wrong_target(self):
        """A log that is another one than before is not written to."""
        self.begin()
        self.kill(self.the_keeper)
        self.writer.more(20)
        self.log = self.image('wrong.img', self.log_size)
        self.base_files = [self.image(f'wrong-base{i}.img', self.disk_size)
                           for i in range(self.disks)]
        wrong = self.keeper()
        self.wait_for_state('failed', 'another')
        self.writer.more(20)
        self.assertEqual(self.journal_info(wrong)['epoch'], 0)
        self.writer.end()
        self.assertIsNone(self.writer.error)
        for client in self.writer.clients:
            client.shutdown()
        self.the_source.quit()
        wrong.quit()

    def test_promotion_fences_the_old_writer(self):
        self.begin()
        self.writer.more(100)
        self.mark(self.the_source, 'before')
        self.the_keeper.cmd('weir-journal-promote', {
            'job-id': 'promote', 'node-name': 'journal',
            'point': 'mark:before'})
        self.the_keeper.qmp.event(
            'JOB_STATUS_CHANGE', lambda data: data['status'] == 'concluded')
        job, = self.the_keeper.cmd('query-jobs')
        self.assertNotIn('error', job)
        self.the_keeper.cmd('job-dismiss', {'id': 'promote'})
        self.wait_for_state('failed')
        self.writer.more(50)
        info = self.journal_info(self.the_keeper)
        self.assertEqual(info['generation'], 2)
        self.assertEqual(info['applied-epoch'], info['epoch'])
        self.writer.end()
        self.assertIsNone(self.writer.error)
        for client in self.writer.clients:
            client.shutdown()
        self.the_source.quit()
        self.the_keeper.quit()
        bases = [self.file_content(name) for name in self.base_files]
        self.assertGreaterEqual(self.stamps.prefix(bases), 100)

    def test_a_server_that_cannot_flush(self):
        server = subprocess.Popen([
            'nbdkit', '-f', '-U', self.keeper_sock, 'eval',
            f'get_size=stat -L -c %s {self.log}', 'can_write=true',
            'can_flush=exit 3', f'pread=dd if={self.log} skip=$4 count=$3 '
            'iflag=count_bytes,skip_bytes status=none',
            f'pwrite=touch {self.log}.written; cat > /dev/null'])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        wait_for(lambda: os.path.exists(self.keeper_sock), 'nbdkit')
        for log in self.remote_log(), 'named':
            source = self.server(
                self.source_sock, '--blockdev',
                blockdev(**{**self.remote_log(), 'node-name': 'named'}),
                *self.source_args(log=log))
            self.wait_for_info(source, lambda info: 'cannot flush' in
                               info.get('reason', ''), 'the reason')
            self.assertEqual(self.replication_info(source)['status'],
                             'disconnected')
            source.quit()
        self.assertFalse(os.path.exists(self.log + '.written'))


class Group(Faults):
    """The same with two disks, and never the later of two writes without the
    earlier one."""

    disks = 2


if __name__ == '__main__':
    main()
