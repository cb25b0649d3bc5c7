#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a disk with weir-cache: two emulators share the disk, each
has a cache file of its own.  The load is that of an NBD client, and is
verified from one side to the other."""

import functools
import json
import os
import random
import signal
import subprocess
import threading

import nbd

from weirtest import (BUILD, QMPError, TestCase, blockdev, main, statistics,
                      wait_for)

TOOLS = os.path.join(BUILD, 'weir', 'tests', 'tools')
SIZE = 64 << 20
FAST_SIZE = 24 << 20
BLOCK = 4096
BLOCKS = 2048                           # that HandOver uses
# nothing is written back on its own
LAZY = {'idle': 0, 'dirty-age': 0, 'dirty-high': 95, 'dirty-low': 90}


class Sides(TestCase):
    """Emulators that share one disk."""

    def setUp(self):
        super().setUp()
        self.base = self.image('base.img', SIZE)

    def fast(self, side):
        """The cache file that is local to a side."""
        path = self.path(f'fast-{side}.img')
        if not os.path.exists(path):
            self.image(os.path.basename(path), FAST_SIZE)
        return path

    def nodes(self, side, options, error):
        """The disk; options None: without a cache; error: for blkdebug."""
        yield {'driver': 'file', 'node-name': 'file', 'filename': self.base,
               'discard': 'unmap'}
        if error:
            yield {'driver': 'blkdebug', 'node-name': 'bad', 'image': 'file',
                   'inject-error': [error]}
        yield {'driver': 'raw', 'node-name': 'disk' if options is None else
               'base', 'file': 'bad' if error else 'file'}
        if options is not None:
            yield {'driver': 'file', 'node-name': 'fast', 'discard': 'unmap',
                   'filename': self.fast(side)}
            yield {'driver': 'weir-cache', 'node-name': 'disk',
                   'file': 'base', 'cache-file': 'fast', **options}

    def side(self, name, *args, options={}, iothread=False, error=None):
        """An emulator with the disk behind a device."""
        device = 'virtio-blk-pci,drive=disk,id=vd0,share-rw=on'
        nodes = [arg for node in self.nodes(name, options, error)
                 for arg in ('-blockdev', json.dumps(node))]
        vm = self.vm('-object', 'iothread,id=io0', *nodes, '-device',
                     device + (',iothread=io0' if iothread else ''), *args)
        vm.name, vm.iothread, vm.served = name, iothread, False
        if not args:
            vm.cmd('cont')
        return vm

    def target(self, name, **kwargs):
        """One that waits; its disk stays inactive until "cont"."""
        vm = self.side(name, '-incoming', 'defer', **kwargs)
        vm.cmd('migrate-incoming', uri=f'unix:{self.path(name + ".mig")}')
        return vm

    # --- load ---

    def serve(self, vm, **options):
        """Export the disk, once; its URI."""
        if not vm.served:
            vm.cmd('nbd-server-start', addr={
                'type': 'unix', 'data': {'path': self.path(vm.name)}})
            vm.cmd('block-export-add', {
                'type': 'nbd', 'id': 'exp', 'node-name': 'disk',
                'name': 'disk', 'writable': True, 'allow-inactive': True,
                **({'iothread': 'io0'} if vm.iothread else {}), **options})
            vm.served = True
        return f'nbd+unix:///disk?socket={self.path(vm.name)}'

    def verify(self, program, *args):
        return subprocess.Popen(
            [os.path.join(TOOLS, program), '--state-file', self.path('state'),
             *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def load(self, vm):
        load = self.verify(
            'weir-verify-nbd', '--seconds', '600', '--flush-every', '16',
            '--zero-percent', '5', '--discard-percent', '5', self.serve(vm))
        self.addCleanup(load.communicate)
        self.addCleanup(load.kill)
        return load

    def result(self, load):
        out, err = load.communicate(timeout=300)
        self.assertEqual(load.returncode, 0, out + err)
        report = json.loads(out.splitlines()[-1])
        self.assertEqual(report['errors'], 0)
        return report

    def stop(self, load):
        self.assertIsNone(load.poll(), 'the load ended early')
        load.send_signal(signal.SIGTERM)
        return self.result(load)

    def writes(self, vm):
        return statistics(self.info(vm))['write']['requests']

    def work(self, vm):
        """Load for a while; much is dirty then."""
        before = self.writes(vm)
        load = self.load(vm)
        wait_for(lambda: self.writes(vm) > before + 500 and
                 self.info(vm)['dirty'] > 4 << 20, 'much is dirty')
        return self.stop(load)

    def check(self, program, target):
        """All that was ever written is there."""
        report = self.result(self.verify(
            program, '--operations', '0', '--final-check', target))
        self.assertGreater(report['checked_blocks'], 1000)

    def check_base(self):
        """The disk has it all, whatever is in a cache."""
        self.check('weir-verify', self.base)

    def check_disk(self, vm):
        self.check('weir-verify-nbd', self.serve(vm))

    # --- migration ---

    def info(self, vm):
        return self.filter_info(vm, 'disk')

    def write_through(self, vm):
        """What the documentation says to do before."""
        vm.cmd('blockdev-reopen', {'options': [{
            'driver': 'weir-cache', 'node-name': 'disk', 'file': 'base',
            'cache-file': 'fast', **LAZY, 'mode': 'write-through'}]})
        wait_for(lambda: self.info(vm)['dirty'] == 0, 'nothing is dirty')

    def pause_before_the_end(self, source):
        source.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])

    def migration_status(self, vm):
        return vm.cmd('query-migrate').get('status')

    def begin(self, source, target):
        source.cmd('migrate', uri=f'unix:{self.path(target.name + ".mig")}')

    def end(self, source, status='completed'):
        ends = ('completed', 'failed', 'cancelled')
        wait_for(lambda: self.migration_status(source) in ends,
                 'the migration ends')
        self.assertEqual(self.migration_status(source), status,
                         source.output())
        wait_for(lambda: source.cmd('query-status')['status'] !=
                 'finish-migrate', 'the source has done its part')

    def migrate(self, source, target):
        self.begin(source, target)
        self.end(source)
        wait_for(lambda: self.migration_status(target) == 'completed',
                 'the target has it all')
        report = source.cmd('query-migrate')
        print(f'{source.name} -> {target.name}: {report["total-time"]} ms, '
              f'down {report["downtime"]} ms')

    def lose_target(self, source, target):
        """The target dies when it should take over."""
        self.pause_before_the_end(source)
        self.begin(source, target)
        wait_for(lambda: self.migration_status(source) == 'pre-switchover',
                 'all but the devices is copied')
        target.kill()
        source.cmd('migrate-continue', state='pre-switchover')
        self.end(source, 'failed')


class Migration(Sides):
    def as_documented(self, iothread):
        a = self.side('a', options=LAZY, iothread=iothread)
        b = self.target('b', iothread=iothread)
        load = self.load(a)
        wait_for(lambda: self.info(a)['dirty'] > 4 << 20, 'much is dirty')
        self.write_through(a)           # the load goes on
        self.stop(load)
        self.migrate(a, b)
        self.check_base()
        b.cmd('cont')
        a.quit()
        self.check_disk(b)
        self.work(b)
        b.quit()

    def test_as_documented(self):
        self.as_documented(False)

    def test_as_documented_iothread(self):
        self.as_documented(True)

    def test_as_documented_attached_later(self):
        a = self.side('a', options=None)
        b = self.target('b')
        self.serve(a)
        a.cmd('blockdev-add', {'driver': 'file', 'node-name': 'fast',
                               'filename': self.fast('a')})
        cache = {'driver': 'weir-cache', 'node-name': 'cache', 'file': 'disk',
                 'cache-file': 'fast', **LAZY}
        a.cmd('weir-attach', {'node-name': 'disk', 'filter': cache})
        load = self.load(a)
        wait_for(lambda: self.filter_info(a, 'cache')['dirty'] > 4 << 20,
                 'much is dirty')
        a.cmd('blockdev-reopen', {'options': [{**cache,
                                               'mode': 'write-through'}]})
        wait_for(lambda: self.filter_info(a, 'cache')['dirty'] == 0,
                 'nothing is dirty')
        self.stop(load)
        self.migrate(a, b)
        self.check_base()
        b.cmd('cont')
        self.check_disk(b)
        a.quit()
        b.quit()

    def with_dirty_blocks(self, iothread):
        """So slow that most is still dirty when the machine stops."""
        a = self.side('a', options={**LAZY, 'write-back-rate': BLOCK},
                      iothread=iothread)
        self.work(a)
        b = self.target('b', iothread=iothread, options=LAZY)
        self.migrate(a, b)
        self.check_base()
        b.cmd('cont')
        self.work(b)
        a.quit()
        b.quit()

    def test_dirty_blocks_are_not_left_behind(self):
        self.with_dirty_blocks(False)

    def test_dirty_blocks_are_not_left_behind_iothread(self):
        self.with_dirty_blocks(True)

    def test_load_up_to_the_end(self):
        """When it begins, the cache writes through by itself."""
        a = self.side('a', options=LAZY)
        b = self.target('b')
        load = self.load(a)
        wait_for(lambda: self.info(a)['dirty'] > 4 << 20, 'much is dirty')
        self.pause_before_the_end(a)
        self.begin(a, b)
        wait_for(lambda: self.migration_status(a) == 'pre-switchover' and
                 self.info(a)['dirty'] == 0, 'the disk has it all')
        self.stop(load)
        self.assertEqual(self.info(a)['dirty'], 0)
        self.check_base()
        a.cmd('migrate-continue', state='pre-switchover')
        self.end(a)
        wait_for(lambda: self.migration_status(b) == 'completed', 'it is over')
        b.cmd('cont')
        self.work(b)
        a.quit()
        b.quit()

    def test_there_and_back(self):
        """What the first side had in its cache is of no use any more."""
        a = self.side('a', options=LAZY)
        self.work(a)
        for name in ('b', 'a', 'b', 'a'):
            b = self.target(name, options=LAZY)
            self.migrate(a, b)
            b.cmd('cont')
            a.quit()
            self.assertEqual(self.info(b)['used'], 0)
            self.work(b)
            a = b
        self.check_disk(a)
        a.quit()
        self.check('weir-verify-nbd', self.serve(self.side('a')))

    def test_from_and_to_a_side_without_a_cache(self):
        a = self.side('a', options=LAZY)
        self.work(a)
        b = self.target('b', options=None)
        self.migrate(a, b)
        b.cmd('cont')
        a.quit()
        load = self.load(b)
        begin_ns = os.stat(self.base).st_mtime_ns
        wait_for(lambda: os.stat(self.base).st_mtime_ns > begin_ns + 10**9,
                 'the other side has written for a while')
        self.stop(load)
        a = self.target('a', options=LAZY)
        self.migrate(b, a)
        a.cmd('cont')
        b.quit()
        self.check_disk(a)
        a.quit()

    def test_one_cache_file_for_both(self):
        """It lies where the disk does; each side begins with an empty one."""
        os.symlink(self.fast('a'), self.path('fast-b.img'))
        a = self.side('a', options=LAZY)
        b = self.target('b', options=LAZY)
        self.work(a)
        self.migrate(a, b)
        b.cmd('cont')
        self.check_disk(b)
        self.work(b)
        a.quit()
        b.quit()


class Inactive(Sides):
    def is_blank(self, path):
        with open(path, 'rb') as f:
            return f.read() == bytes(FAST_SIZE)

    def test_holds_nothing(self):
        a = self.side('a', options=LAZY)
        load = self.load(a)
        for name, late in (('b', False), ('c', True)):
            b = self.target(name)
            b.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'late-block-activate', 'state': late}])
            info = self.info(b)
            self.assertEqual((info['state'], info['size'], info['memory']),
                             ('ok', 0, 0))
            # its own cache is not touched, and the source is not disturbed
            self.assertTrue(self.is_blank(self.fast(name)))
            b.quit()
        self.stop(load)
        a.quit()

    def test_activates_late(self):
        a = self.side('a', options=LAZY)
        self.work(a)
        b = self.target('b')
        self.migrate(a, b)
        self.assertEqual(self.info(b)['size'], 0)
        self.assertEqual(self.info(a)['size'], 0)
        self.assertTrue(self.is_blank(self.fast('b')))
        b.cmd('cont')
        self.assertGreater(self.info(b)['size'], 0)
        self.assertFalse(self.is_blank(self.fast('b')))
        a.quit()
        b.quit()

    def test_can_be_read(self):
        """An inactive export may be read; it is what the disk has."""
        a = self.side('a')
        b = self.target('b')
        client, other = nbd.NBD(), nbd.NBD()
        client.connect_uri(self.serve(a))
        other.connect_uri(self.serve(b))
        client.pwrite(b'a' * BLOCK, 0)
        self.assertEqual(other.pread(BLOCK, 0), bytes(BLOCK))
        with self.assertRaises(nbd.Error):
            other.pwrite(b'b' * BLOCK, 0)
        self.migrate(a, b)
        for inactive in (client, other):
            self.assertEqual(inactive.pread(BLOCK, 0), b'a' * BLOCK)
        b.cmd('cont')
        other.pwrite(b'b' * BLOCK, 0)
        self.assertEqual(other.pread(BLOCK, 0), b'b' * BLOCK)
        a.quit()
        b.quit()

    def test_commands(self):
        """None of them needs an engine."""
        a = self.side('a')
        b = self.target('b')
        self.migrate(a, b)
        for vm in (a, b):
            for line in ('info weir', 'info block', 'qemu-io disk "map"',
                         'qemu-io disk "read 0 64k"'):
                vm.cmd('human-monitor-command', {'command-line': line})
            for command, arguments in (
                    ('block_resize', {'node-name': 'disk', 'size': SIZE * 2}),
                    ('block_resize', {'node-name': 'disk', 'size': BLOCK}),
                    ('weir-detach', {'node-name': 'disk'})):
                try:
                    vm.cmd(command, arguments)
                except QMPError:
                    pass
        self.assertEqual(os.path.getsize(self.base), SIZE)
        a.quit()
        b.quit()

    def test_refused_cache(self):
        """The disk is whole, whatever the target's cache file holds."""
        with open(self.fast('b'), 'r+b') as f:
            f.write(b'somebody needs this')
        a = self.side('a', options=LAZY)
        self.work(a)
        b = self.target('b')
        self.migrate(a, b)
        self.assertFails('holds something else', b.cmd, 'cont')
        with open(self.fast('b'), 'rb') as f:
            self.assertEqual(f.read(19), b'somebody needs this')
        a.quit()
        b.quit()
        self.check_base()


class Failure(Sides):
    def goes_on(self, source):
        """The source works on with a cache, and has lost nothing."""
        self.assertEqual(source.cmd('query-status')['status'], 'running')
        info = self.info(source)
        self.assertGreater(info['size'], 0)
        self.assertEqual(info['mode'], 'write-back')
        self.check_disk(source)
        self.work(source)
        b = self.target('c')
        source.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': False}])
        self.migrate(source, b)
        self.check_base()
        b.cmd('cont')
        self.check_disk(b)
        source.quit()
        b.quit()

    def test_cancelled(self):
        a = self.side('a', options=LAZY)
        b = self.target('b')
        self.pause_before_the_end(a)
        load = self.load(a)
        self.begin(a, b)
        wait_for(lambda: self.migration_status(a) == 'pre-switchover' and
                 self.info(a)['dirty'] == 0, 'the disk has it all')
        a.cmd('migrate_cancel')
        self.end(a, 'cancelled')
        # it is a write-back cache again
        wait_for(lambda: self.info(a)['dirty'] > 4 << 20, 'much is dirty')
        self.stop(load)
        b.kill()
        self.goes_on(a)

    def target_dies(self, iothread):
        a = self.side('a', options=LAZY, iothread=iothread)
        self.work(a)
        self.lose_target(a, self.target('b', iothread=iothread))
        self.assertEqual(self.info(a)['dirty'], 0)
        self.goes_on(a)

    def test_target_dies(self):
        self.target_dies(False)

    def test_target_dies_iothread(self):
        self.target_dies(True)

    def test_target_dies_again_and_again(self):
        a = self.side('a', options=LAZY)
        for _ in range(3):
            self.work(a)
            self.lose_target(a, self.target('b'))
        self.check_disk(a)
        a.quit()

    def disk_fails(self, iotype):
        """A source whose disk fails; it could not move."""
        a = self.side('a', options=LAZY, error={
            'event': 'none', 'iotype': iotype, 'errno': 5, 'once': False})
        self.work(a)
        for _ in range(2):
            b = self.target('b')
            self.begin(a, b)
            self.end(a, 'failed')
            b.kill()
        self.assertIn('bdrv_inactivate_all() failed', a.output())
        self.assertEqual(a.cmd('query-status')['status'], 'running')
        self.check_disk(a)
        return a

    def test_disk_cannot_be_written_to(self):
        a = self.disk_fails('write')
        self.assertGreater(self.info(a)['dirty'], 4 << 20)
        a.cmd('blockdev-reopen', {'options': [{
            'driver': 'raw', 'node-name': 'base', 'file': 'file'}]})
        self.goes_on(a)

    def test_disk_cannot_be_flushed(self):
        self.disk_fails('flush').kill()
        self.goes_on(self.side('a', options=LAZY))

    def test_a_writer_that_stays(self):
        """An export that does not allow it keeps the disk where it is."""
        a = self.side('a', options=LAZY)
        self.serve(a, **{'allow-inactive': False})
        self.work(a)
        b = self.target('b')
        self.begin(a, b)
        self.end(a, 'failed')
        self.check_disk(a)
        self.work(a)
        a.cmd('nbd-server-stop')
        a.qmp.event('BLOCK_EXPORT_DELETED')
        a.served = False
        b.kill()
        self.goes_on(a)


class HandOver(TestCase):
    """Inactivated by hand, while clients write; with sanitizers."""

    def setUp(self):
        super().setUp()
        self.base = self.image('base.img', SIZE)

    def daemon_with_cache(self, name='first', active=True,
                          allow_inactive=True, blkdebug=None):
        sock = self.path(name)
        fast = {'driver': 'file', 'filename': self.path(f'{name}.img'),
                'active': active}
        if not os.path.exists(fast['filename']):
            self.image(f'{name}.img', FAST_SIZE)
        if blkdebug:
            fast = {'driver': 'blkdebug', 'image': fast,
                    'inject-error': [blkdebug]}
        daemon = self.daemon(
            '--blockdev', blockdev(driver='file', node_name='base',
                                   filename=self.base, active=active),
            '--blockdev', json.dumps({**fast, 'node-name': 'fast'}),
            '--blockdev', json.dumps({
                'driver': 'weir-cache', 'node-name': 'disk', 'file': 'base',
                'cache-file': 'fast', 'active': active, **LAZY}),
            '--nbd-server', f'addr.type=unix,addr.path={sock}',
            '--export', json.dumps({
                'type': 'nbd', 'id': 'exp', 'node-name': 'disk',
                'name': 'disk', 'writable': True,
                'allow-inactive': allow_inactive}))
        daemon.sock = sock
        return daemon

    def connect(self, daemon):
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///disk?socket={daemon.sock}')
        return client

    def write(self, daemon, version, written, started):
        """Write as fast as it goes, until that is not allowed any more."""
        client = self.connect(daemon)
        data = nbd.Buffer.from_bytearray(bytearray([version]) * BLOCK)
        failed = []

        def done(block, error):
            (failed.append if error.value else written.add)(block)
            started.set()
            return 1

        block = 0
        while not failed:
            while client.aio_in_flight() < 16:
                client.aio_pwrite(data, block * BLOCK,
                                  functools.partial(done, block))
                block = (block + 7) % BLOCKS
            client.poll(-1)
        while client.aio_in_flight():
            client.poll(-1)
        client.shutdown()

    def check_base(self, blocks, version):
        with open(self.base, 'rb') as f:
            content = f.read(BLOCKS * BLOCK)
        for block in blocks:
            self.assertEqual(content[block * BLOCK:(block + 1) * BLOCK],
                             bytes([version]) * BLOCK, block)

    def test_writes_meanwhile(self):
        """What was not refused is on the disk before it is handed over."""
        daemon = self.daemon_with_cache()
        for version in range(1, 21):
            written, started = set(), threading.Event()
            writer = threading.Thread(target=self.write,
                                      args=(daemon, version, written,
                                            started))
            writer.start()
            started.wait()
            wait_for(lambda: self.filter_info(daemon, 'disk')['dirty'] >
                     version * 16 * BLOCK, 'there are dirty blocks')
            daemon.cmd('blockdev-set-active', active=False)
            writer.join()
            self.check_base(written, version)
            daemon.cmd('blockdev-set-active', active=True)
        daemon.quit()

    def test_writer_that_stays(self):
        """Refused as a whole: the node goes on as if nothing had been."""
        daemon = self.daemon_with_cache(allow_inactive=False)
        client = self.connect(daemon)
        client.pwrite(b'a' * BLOCK, 0)
        for _ in range(3):
            self.assertFails('Operation not permitted', daemon.cmd,
                             'blockdev-set-active', {'active': False})
            self.assertEqual(client.pread(BLOCK, 0), b'a' * BLOCK)
            client.pwrite(b'b' * BLOCK, BLOCK)
            self.assertGreater(self.filter_info(daemon, 'disk')['size'], 0)
        client.shutdown()
        daemon.quit()

    def test_there_and_back(self):
        """Two daemons take turns."""
        first = self.daemon_with_cache(active=True)
        second = self.daemon_with_cache(active=False, name='second')
        for version in range(1, 9):
            client = self.connect(first)
            for block in range(64):
                if version > 1:
                    self.assertEqual(client.pread(BLOCK, block * BLOCK),
                                     bytes([version - 1]) * BLOCK)
                client.pwrite(bytes([version]) * BLOCK, block * BLOCK)
            first.cmd('blockdev-set-active', active=False)
            # inactive, it may still be read
            self.assertEqual(client.pread(BLOCK, 0), bytes([version]) * BLOCK)
            client.shutdown()
            second.cmd('blockdev-set-active', active=True)
            first, second = second, first
        first.quit()
        second.quit()

    def test_few_writes_elsewhere(self):
        """So few that no look at samples would find them."""
        first = self.daemon_with_cache()
        second = self.daemon_with_cache('second', active=False)
        client = self.connect(first)
        for block in range(BLOCKS):
            client.pwrite(b'a' * BLOCK, block * BLOCK)
        for version in range(1, 6):
            first.cmd('blockdev-set-active', active=False)
            second.cmd('blockdev-set-active', active=True)
            block = random.randrange(BLOCKS)
            self.connect(second).pwrite(bytes([version]) * BLOCK,
                                        block * BLOCK)
            second.cmd('blockdev-set-active', active=False)
            first.cmd('blockdev-set-active', active=True)
            self.assertEqual(client.pread(BLOCK, block * BLOCK),
                             bytes([version]) * BLOCK)
            for block in range(BLOCKS):
                client.pread(BLOCK, block * BLOCK)
        client.shutdown()
        first.quit()
        second.quit()

    def test_cache_cannot_be_emptied(self):
        """The node stays here, and what is flushed then is safe."""
        daemon = self.daemon_with_cache()
        self.connect(daemon).pwrite(b'a' * BLOCK, 0)
        daemon.quit()
        daemon = self.daemon_with_cache(blkdebug={
            'event': 'none', 'iotype': 'write-zeroes', 'errno': 5,
            'once': True})
        client = self.connect(daemon)
        client.pwrite(b'b' * BLOCK, 0)
        self.assertFails('Input/output error', daemon.cmd,
                         'blockdev-set-active', {'active': False})
        client.pwrite(b'c' * BLOCK, BLOCK)
        client.flush()
        daemon.kill()
        daemon = self.daemon_with_cache()
        client = self.connect(daemon)
        self.assertEqual(client.pread(BLOCK, 0), b'b' * BLOCK)
        self.assertEqual(client.pread(BLOCK, BLOCK), b'c' * BLOCK)
        client.shutdown()
        daemon.quit()


if __name__ == '__main__':
    main()
