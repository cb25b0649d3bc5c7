#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a replication when one of its devices fails or is full, is
not the one that it was, or the clock is wrong."""

import os
import random
import shutil
import subprocess
import time

import nbd

from cachetest import BLOCK, MIB
from linktest import Link
from replicationtest import WriterTest, only_long
from weirtest import ONLY_TESTS, blockdev, main, wait_for

DISK = 4 * MIB
FAKETIME = '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1'


class DeviceTest(WriterTest):
    disk_size = DISK

    def setUp(self):
        super().setUp()
        self.failing = {}               # images that nbdkit serves

    def serve(self, filename, error):
        """From now on an image is a device that fails with an error whenever
        it is told to."""
        sock = f'{filename}.sock'
        process = subprocess.Popen(
            ['nbdkit', '-f', '-U', sock, '--filter=error', 'file', filename,
             f'error={error}', 'error-pwrite-rate=100%', 'error-pread-rate=0%',
             f'error-pwrite-file={filename}.fails'],
            stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_for(lambda: os.path.exists(sock), 'nbdkit')
        self.failing[filename] = sock

    def set_failing(self, filename, fails=True):
        """Its writes."""
        if fails:
            with open(f'{filename}.fails', 'w'):
                pass
        else:
            os.unlink(f'{filename}.fails')

    def file_node(self, name, filename):
        if filename not in self.failing:
            return super().file_node(name, filename)
        return ['--blockdev', blockdev(
            driver='nbd', node_name=name, discard='unmap',
            server={'type': 'unix', 'path': self.failing[filename]})]

    def begin(self, keeper=None, **options):
        self.the_keeper = self.keeper(**(keeper or {}))
        self.the_source = self.source(**options)
        self.wait_for_status(self.the_source, 'streaming')
        self.begin_to_write()

    def keeper_state(self, state, reason=''):
        """An event tells so, and the query."""
        self.the_keeper.qmp.event(
            'WEIR_STATE', lambda data: data['node-name'] == 'journal' and
            data['state'] == state and reason in data.get('reason', ''))

    def applied(self):
        return self.journal_info(self.the_keeper)['applied-epoch']


class Log(DeviceTest):
    """The device of the log."""

    def check_log(self, error, text):
        self.serve(self.log, error)
        self.begin()
        self.mark(self.the_source, 'before')
        self.set_failing(self.log)
        self.keeper_state('degraded', text)
        self.wait_for_status(self.the_source, 'disconnected')
        self.writer.more(100)
        # the last good point is kept
        self.stamps.prefix(self.replicas(self.the_keeper))
        self.stamps.prefix(self.replicas(self.the_keeper, 'mark:before'))
        self.set_failing(self.log, False)
        self.wait_for_status(self.the_source, 'streaming')
        self.keeper_state('ok')
        self.check_end()

    def test_no_space(self):
        self.check_log('ENOSPC', 'No space left on device')

    @only_long
    def test_write_fails(self):
        self.check_log('EIO', 'Input/output error')

    @only_long
    def test_keeper_ends_meanwhile(self):
        """What was acknowledged is there when it is started again."""
        self.serve(self.log, 'ENOSPC')
        self.begin()
        self.mark(self.the_source, 'before')
        self.set_failing(self.log)
        self.wait_for_status(self.the_source, 'disconnected')
        durable = self.journal_info(self.the_keeper)['durable-epoch']
        self.kill(self.the_keeper)
        self.set_failing(self.log, False)
        self.the_keeper = self.keeper()
        self.assertGreaterEqual(
            self.journal_info(self.the_keeper)['durable-epoch'], durable)
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()


class Base(DeviceTest):
    """The image that epochs are applied to."""

    def check_base(self, error, text):
        """The log goes on receiving; points in time stay usable."""
        self.serve(self.base_files[0], error)
        self.begin({'retain_time': 3600})
        self.mark(self.the_source, 'before')
        self.retain(0, 0)
        self.set_failing(self.base_files[0])
        self.keeper_state('degraded', text)
        stands = self.applied()
        self.mark(self.the_source, 'later')
        self.writer.more(100)
        self.assertEqual(
            self.replication_info(self.the_source)['status'], 'streaming')
        self.stamps.prefix(self.replicas(self.the_keeper))
        self.assertEqual(self.applied(), stands)
        self.set_failing(self.base_files[0], False)
        self.keeper_state('ok')
        wait_for(lambda: self.applied() > stands, 'it is applied again')
        self.check_end()

    @only_long
    def test_no_space(self):
        self.check_base('ENOSPC', 'No space left on device')

    def test_write_fails(self):
        self.check_base('EIO', 'Input/output error')

    def applying(self, rate=0):
        """How long it takes until what is written is in the image."""
        self.retain(3600, 0)
        client, = self.clients()
        client.pwrite(os.urandom(3 * MIB), MIB)
        client.shutdown()
        self.mark(self.the_source, f'{rate}')
        epoch = self.journal_info(self.the_keeper)['epoch']
        begin = time.monotonic()
        self.retain(0, rate)
        wait_for(lambda: self.applied() >= epoch, 'all is applied')
        return time.monotonic() - begin

    def test_apply_rate(self):
        """Images are written to no faster than is allowed; this can be
        changed."""
        self.begin({'retain_time': 3600})
        self.end_writer()
        free_s = self.applying()
        rate = int(3 * MIB / (3 * free_s + 1.5))
        # the last part of it is not waited for
        self.assertGreater(self.applying(rate), 2 * MIB / rate)
        self.the_source.quit()
        self.the_keeper.quit()
        self.assertEqual(self.file_content(self.base_files[0]),
                         self.file_content(self.disk_files[0]))

    def retain(self, seconds, rate):
        self.the_keeper.cmd('blockdev-reopen', {'options': [
            self.journal(retain_time=seconds, apply_rate=rate)]})


class Disk(DeviceTest):
    """The disk itself."""

    def test_write_fails(self):
        """The guest is told, and the replica is what the disk is."""
        self.serve(self.disk_files[0], 'EIO')
        self.the_keeper = self.keeper()
        self.the_source = self.source()
        self.wait_for_status(self.the_source, 'streaming')
        client, = self.clients()
        client.pwrite(b'1' * MIB, 0)
        self.mark(self.the_source, 'before')
        self.set_failing(self.disk_files[0])
        for function in (lambda: client.pwrite(b'2' * BLOCK, BLOCK),
                         lambda: client.pwrite(b'3' * MIB, MIB)):
            with self.assertRaises(nbd.Error) as caught:
                function()
            self.assertEqual(caught.exception.errno, 'EIO')
        self.set_failing(self.disk_files[0], False)
        client.pwrite(b'4' * BLOCK, 2 * MIB)
        client.shutdown()
        self.mark(self.the_source, 'end')
        image = self.read_replica(self.the_keeper)
        self.assertEqual(image[:MIB], b'1' * MIB)
        self.assertEqual(image, self.file_content(self.disk_files[0]))
        self.the_source.quit()
        self.the_keeper.quit()


class Copying(DeviceTest):
    """Either side is killed while the disk is copied, slowly."""

    with_sidecar = False

    def setUp(self):
        super().setUp()
        self.link = Link(self.path('link.sock'), self.keeper_sock)
        self.addCleanup(self.link.close)
        self.sidecar = self.image('sidecar.img', MIB)

    def remote_log(self, **options):
        return super().remote_log(
            server={'type': 'unix', 'path': self.link.path}, **options)

    def start_source(self):
        args = self.file_node('sidecar', self.sidecar)
        options = {'sidecar': 'sidecar'} if self.with_sidecar else {}
        self.the_source = self.server(self.source_sock, *args,
                                      *self.source_args(**options))

    def begin_to_copy(self):
        """There is a point in time, and what is written to all of the disk
        while memory does not hold it has to be copied."""
        self.the_keeper = self.keeper()
        self.start_source()
        client, = self.clients()
        client.pwrite(b'1' * DISK, 0)
        self.mark(self.the_source, 'before')
        self.kill(self.the_keeper)
        client.pwrite(os.urandom(DISK), 0)
        client.shutdown()
        self.kill(self.the_source)
        self.link.rate = MIB // 2
        self.the_keeper = self.keeper()
        self.start_source()
        self.is_copied()

    def is_copied(self):
        """Part of it is on its way, and the last point is still that of
        before."""
        before = self.link.passed_bytes
        wait_for(lambda: self.link.passed_bytes > before + MIB // 2,
                 'some of it is there')
        self.assertEqual(self.read_replica(self.the_keeper), b'1' * DISK)

    def check_copied(self):
        self.link.rate = 0
        self.wait_for_status(self.the_source, 'streaming')
        self.mark(self.the_source, 'end')
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.assertEqual(self.read_replica(self.the_keeper,
                                           point='mark:before'),
                         b'1' * DISK)
        self.the_source.quit()
        self.the_keeper.quit()

    def test_keeper_is_killed(self):
        self.begin_to_copy()
        self.kill(self.the_keeper)
        self.the_keeper = self.keeper()
        self.is_copied()
        self.check_copied()

    def test_source_is_killed(self):
        self.begin_to_copy()
        self.kill(self.the_source)
        self.start_source()
        self.is_copied()
        self.check_copied()


@only_long
class CopyingWithSidecar(Copying):
    with_sidecar = True


class Sidecar(DeviceTest):
    """The sidecar is not the one that it was."""

    def setUp(self):
        super().setUp()
        self.sidecar = self.image('sidecar.img', MIB)
        self.the_keeper = self.keeper()
        self.start_source()
        self.write_some()
        self.mark(self.the_source, 'begun')

    def start_source(self):
        self.the_source = self.server(
            self.source_sock, *self.file_node('sidecar', self.sidecar),
            *self.source_args(sidecar='sidecar'))

    def write_some(self):
        client, = self.clients()
        for _ in range(50):
            self.stamps.write([client])
        client.shutdown()

    def check_all_is_copied(self):
        self.start_source()
        self.mark(self.the_source, 'end')
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.the_source.quit()
        self.the_keeper.quit()

    @only_long
    def test_lost(self):
        self.the_source.quit()
        self.kill(self.the_keeper)      # what is written is not in the log
        self.start_source()
        self.write_some()
        self.the_source.quit()
        self.the_keeper = self.keeper()
        self.sidecar = self.image('new.img', MIB)
        self.check_all_is_copied()

    def test_both_headers_are_damaged(self):
        self.the_source.quit()
        self.kill(self.the_keeper)
        self.start_source()
        self.write_some()
        self.the_source.quit()
        self.the_keeper = self.keeper()
        with open(self.sidecar, 'r+b') as f:
            for at in (512, 4096 + 512):
                f.seek(at)
                f.write(random.randbytes(64))
        self.check_all_is_copied()

    def test_stale(self):
        """One of before does not know that others have written since: what is
        in the log tells."""
        self.the_source.quit()
        stale = self.path('stale.img')
        shutil.copy(self.sidecar, stale)
        self.start_source()
        self.write_some()
        self.mark(self.the_source, 'since')
        self.the_source.quit()
        self.sidecar = stale
        epoch = self.journal_info(self.the_keeper)['epoch']
        self.start_source()
        self.wait_for_info(
            self.the_source, lambda info: info['state'] == 'failed',
            'it is refused')
        self.assertEqual(self.journal_info(self.the_keeper)['epoch'], epoch)
        # the disk can be used, and a new one begins anew
        self.write_some()
        self.the_source.quit()
        self.sidecar = self.image('new.img', MIB)
        self.check_all_is_copied()


class Identity(DeviceTest):
    """A log of other disks."""

    disks = 2

    def refused(self, reason):
        epoch = self.journal_info(self.the_keeper)['epoch']
        self.wait_for_info(
            self.the_source, lambda info: info['state'] == 'failed' and
            reason in info['reason'], f'refused: {reason}')
        self.assertEqual(self.journal_info(self.the_keeper)['epoch'], epoch)
        client, _ = self.clients()
        client.pwrite(b'1' * BLOCK, 0)
        client.shutdown()
        self.the_source.quit()
        self.the_keeper.quit()

    def end_first_life(self, **options):
        self.begin(**options)
        self.end_writer()
        self.mark(self.the_source, 'end')
        self.the_source.quit()

    def test_other_size(self):
        self.end_first_life()
        self.disk_files[1] = self.image('longer.img', 2 * DISK)
        self.the_source = self.source()
        self.refused("disk 'disk1'")

    def test_other_disks(self):
        self.end_first_life()
        self.the_source = self.source_of('disk2', 'disk3')
        self.refused('of other disks')

    def source_of(self, *ids, sidecars=()):
        args = []
        for i, name in enumerate(ids):
            args += self.file_node(f'disk{i}', self.disk_files[i])
            options = {}
            if sidecars:
                args += self.file_node(f'sidecar{i}', sidecars[i])
                options['sidecar'] = f'sidecar{i}'
            args += ['--blockdev', blockdev(**self.replication(
                i, disk_id=name, **options))]
            args += ['--export', f'nbd,id=exp{i},node-name=repl{i},'
                     f'name=disk{i},writable=on']
        return self.server(self.source_sock, *args)

    def test_swapped(self):
        """Sidecars tell which disk is which."""
        sidecars = [self.image(f'sidecar{i}.img', MIB) for i in (0, 1)]
        self.the_keeper = self.keeper()
        self.the_source = self.source_of('disk0', 'disk1', sidecars=sidecars)
        self.wait_for_status(self.the_source, 'streaming')
        self.mark(self.the_source, 'end')
        self.the_source.quit()
        with self.assertRaises(AssertionError) as caught:
            self.source_of('disk1', 'disk0', sidecars=sidecars)
        self.assertIn('sidecar', str(caught.exception))
        self.the_keeper.quit()


class Clock(DeviceTest):
    """The clock of the source jumps."""

    def daemon(self, *args):
        if not self.faked:
            return super().daemon(*args)
        if ONLY_TESTS:
            self.skipTest('libfaketime and ASan wait for each other')
        settings = {'LD_PRELOAD': FAKETIME,
                    'FAKETIME_TIMESTAMP_FILE': self.path('clock'),
                    'FAKETIME_NO_CACHE': '1', 'DONT_FAKE_MONOTONIC': '1',
                    'FAKETIME_DONT_FAKE_MONOTONIC': '1'}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            return self.start('qemu-storage-daemon', *args, tests=False)
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def jump(self, hours):
        with open(self.path('new-clock'), 'w') as f:
            f.write(f'{hours:+d}h\n')
        os.rename(self.path('new-clock'), self.path('clock'))

    def test_points_are_in_order(self):
        self.jump(0)
        self.faked = False
        self.the_keeper = self.keeper()
        self.faked = True
        self.the_source = self.source()
        self.wait_for_status(self.the_source, 'streaming')
        self.begin_to_write()
        for i, hours in enumerate((2, -2, 5, 0)):
            self.jump(hours)
            self.writer.more(20)
            self.mark(self.the_source, f'{hours}')
            self.assertLess(self.replication_info(self.the_source)['rpo'],
                            600000)
        points = self.points(self.the_keeper)
        times = [point['time'] for point in points]
        epochs = [point['epoch'] for point in points]
        self.assertEqual(times, sorted(times, reverse=True))
        self.assertEqual(epochs, sorted(epochs, reverse=True))
        # the clock has jumped at all
        self.assertGreater(times[0] - times[-1], 4 * 3600 * 1000)
        self.check_end()


if __name__ == '__main__':
    main()
