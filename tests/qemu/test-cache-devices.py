#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-cache under what QEMU does with disks: resize, snapshots, copies,
block status, requests of any alignment, several exports at once."""

import json
import os
import pathlib
import random
import threading

import nbd

from cachetest import BLOCK, KIB, MIB, CacheTest, completed
from vhostuser import VhostUserBlk
from weirtest import blockdev, main, run, wait_for

SECTOR = 512
MODES = ('write-back', 'write-through', 'write-around', 'read-only')


class View:
    """What a client sees of a disk: its model, in bytes."""

    def __init__(self, client, data, align=1):
        self.client = client
        self.data = bytearray(data)
        self.align = align
        self.changes = 0

    def write(self, offset, data):
        self.client.pwrite(data, offset)
        self.data[offset:offset + len(data)] = data

    def zero(self, offset, count):
        self.client.zero(count, offset)
        self.data[offset:offset + count] = bytes(count)

    def trim(self, offset, count):
        """Of whole blocks: each becomes zeroes or stays what it was."""
        self.client.trim(count, offset)
        data = self.client.pread(count, offset)
        for at in range(0, count, BLOCK):
            piece = data[at:at + BLOCK]
            old = self.data[offset + at:offset + at + BLOCK]
            assert piece == old or not any(piece), f'block at {offset + at}'
        self.data[offset:offset + count] = data

    def range(self, most):
        """A place, anywhere, and how many bytes."""
        count = min(random.choice((most, 3 * BLOCK, 100)), len(self.data))
        count = random.randint(1, max(1, count // self.align)) * self.align
        places = (len(self.data) - count) // self.align
        return random.randint(0, places) * self.align, count

    def change(self, most=70000):
        """Do something; returns where, and how many bytes."""
        self.changes += 1
        offset, count = self.range(most)
        dice = random.random()
        if dice < 0.7:
            self.write(offset, os.urandom(count))
        elif dice < 0.9:
            self.zero(offset, count)
        else:
            count = -(-count // BLOCK) * BLOCK
            offset = min(offset, len(self.data) - count) // BLOCK * BLOCK
            self.trim(offset, count)
        return offset, count

    def change_until(self, stop):
        while not stop.is_set():
            self.change()

    def is_right(self, client=None):
        client = client or self.client
        return b''.join(
            client.pread(min(8 * MIB, len(self.data) - at), at)
            for at in range(0, len(self.data), 8 * MIB)) == self.data


class DeviceTest(CacheTest):
    base_size = 24 * MIB
    fast_size = 8 * MIB

    def setUp(self):
        super().setUp()
        self.fill_base()

    def fill_base(self):
        """Data, holes and zeroes, in pieces that end anywhere."""
        with open(self.base, 'r+b') as f:
            for at in range(0, self.base_size, 2 * MIB):
                f.seek(at)
                f.write(os.urandom(random.randint(1, MIB)))
        self.initial = pathlib.Path(self.base).read_bytes()

    def chain(self, export=None, **options):
        return self.server(
            '--object', 'iothread,id=io0',
            *self.file_args('base', self.base),
            *self.file_args('fast', self.fast), *self.cache_args(**options),
            *self.export_args(**(export or {})))

    def view(self, data=None):
        return View(self.connect(), self.initial if data is None else data)

    def vhost_view(self, daemon, data):
        """Through a second export."""
        path = self.path('vhost.sock')
        daemon.cmd('block-export-add', {
            'type': 'vhost-user-blk', 'id': 'vhost', 'node-name': 'cache',
            'writable': True, 'iothread': 'io0',
            'addr': {'type': 'unix', 'path': path}})
        return View(VhostUserBlk(path), data, align=SECTOR)

    def job_ends(self, daemon):
        daemon.qmp.event('JOB_STATUS_CHANGE', lambda d: d['status'] == 'null')
        completed, = [e['data'] for e in daemon.qmp.events
                      if e['event'] == 'BLOCK_JOB_COMPLETED']
        self.assertNotIn('error', completed)
        daemon.qmp.events.clear()

    def job_is_ready(self, daemon):
        daemon.qmp.event('JOB_STATUS_CHANGE', lambda d: d['status'] == 'ready')

    def content(self, name):
        return pathlib.Path(name).read_bytes()

    def check_detached(self, daemon, view):
        """The base has it all."""
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        self.assertTrue(self.content(self.base) == view.data)


class Resize(DeviceTest):
    def resize(self, daemon, size):
        """An NBD export has its length for good, and so makes way."""
        daemon.cmd('block-export-del', id='exp', mode='hard')
        daemon.qmp.event('BLOCK_EXPORT_DELETED')
        daemon.cmd('block_resize', node_name='cache', size=size)
        self.assertEqual(os.stat(self.base).st_size, size)
        daemon.cmd('block-export-add', type='nbd', id='exp',
                   node_name='cache', name='disk', writable=True)

    def check_after_restart(self, daemon, view):
        daemon.quit()
        daemon = self.chain(idle=0)
        self.assertTrue(view.is_right(self.connect()))
        self.check_detached(daemon, view)
        daemon.quit()

    def prepare(self, **options):
        daemon = self.chain(idle=0, dirty_high=95, **options)
        view = self.view()
        for _ in range(200):
            view.change(20000)
        self.assertGreater(self.info(daemon)['dirty'], 0)
        return daemon, view

    def test_grow(self):
        daemon, view = self.prepare()
        self.resize(daemon, 40 * MIB)
        view = self.view(view.data + bytes(16 * MIB))
        self.assertTrue(view.is_right())
        view.write(40 * MIB - 5000, os.urandom(5000))
        for _ in range(100):
            view.change()
        self.assertTrue(view.is_right())
        self.check_after_restart(daemon, view)

    def test_shrink(self):
        """What is cut off does not come back."""
        daemon, view = self.prepare()
        view.write(10 * MIB, os.urandom(4 * MIB))
        dirty = self.info(daemon)['dirty']
        self.resize(daemon, 12 * MIB)
        self.assertLess(self.info(daemon)['dirty'], dirty)
        view = self.view(view.data[:12 * MIB])
        self.assertTrue(view.is_right())
        self.resize(daemon, 24 * MIB)
        view = self.view(view.data + bytes(12 * MIB))
        self.assertTrue(view.is_right())
        self.check_after_restart(daemon, view)

    def test_shrink_and_kill(self):
        """The new length is on record when the command returns."""
        daemon, view = self.prepare()
        self.resize(daemon, 12 * MIB)
        view = self.view(view.data[:12 * MIB])
        view.write(5, os.urandom(50000))
        view.client.flush()
        self.kill(daemon)
        daemon = self.chain(idle=0)
        self.assertTrue(view.is_right(self.connect()))
        self.check_detached(daemon, view)
        daemon.quit()

    def test_odd_lengths(self):
        """The last block may be half there."""
        daemon, view = self.prepare()
        for size in (20 * MIB + 512, 20 * MIB + 1024, 22 * MIB - 512,
                     16 * MIB + 3584, 24 * MIB):
            self.resize(daemon, size)
            view = self.view(view.data[:size].ljust(size, b'\0'))
            self.assertTrue(view.is_right())
            view.write(size - 1000, os.urandom(1000))
            for _ in range(20):
                view.change()
            self.assertTrue(view.is_right())
        self.check_after_restart(daemon, view)

    def test_under_load(self):
        """A client of the part that stays notices nothing."""
        daemon = self.chain(dirty_high=20, dirty_low=5)
        daemon.cmd('block-export-del', id='exp')
        daemon.qmp.event('BLOCK_EXPORT_DELETED')
        view = self.vhost_view(daemon, self.initial[:8 * MIB])
        stop = threading.Event()
        thread = threading.Thread(target=view.change_until, args=[stop])
        thread.start()
        try:
            for _ in range(30):
                changes = view.changes
                daemon.cmd('block_resize', node_name='cache',
                           size=random.randint(8 << 11, 32 << 11) * SECTOR)
                wait_for(lambda: view.changes > changes + 5, 'it goes on')
        finally:
            stop.set()
            thread.join()
        self.assertTrue(view.is_right())
        view.client.shutdown()
        daemon.quit()


class Snapshots(DeviceTest):
    def overlay(self, daemon, node='cache'):
        path = self.image('overlay.qcow2', self.base_size, 'qcow2')
        daemon.cmd('blockdev-add', {
            'driver': 'qcow2', 'node-name': 'overlay', 'backing': None,
            'file': {'driver': 'file', 'filename': path}})
        daemon.cmd('blockdev-snapshot', node=node, overlay='overlay')

    def prepare(self):
        """Dirty blocks in the cache, an overlay that has changes."""
        daemon = self.chain(idle=0)
        view = self.view()
        for _ in range(100):
            view.change()
        self.assertGreater(self.info(daemon)['dirty'], 0)
        self.overlay(daemon)
        # who copies the image below has all of it
        self.assertEqual(self.info(daemon)['dirty'], 0)
        with open(self.base, 'rb') as f:
            self.assertEqual(f.read(), bytes(view.data))
        self.assertTrue(view.is_right())
        for _ in range(100):
            view.change()
        self.assertTrue(view.is_right())
        self.assertEqual(self.info(daemon)['place'], 'backing')
        return daemon, view

    def test_commit(self):
        """The overlay goes back into the cache."""
        daemon, view = self.prepare()
        daemon.cmd('block-commit', job_id='job', device='overlay')
        self.job_is_ready(daemon)
        for _ in range(20):
            view.change()
        daemon.cmd('job-complete', id='job')
        self.job_ends(daemon)
        self.assertEqual(self.info(daemon)['place'], 'disk')
        self.assertTrue(view.is_right())
        for _ in range(50):
            view.change()
        self.assertTrue(view.is_right())
        self.check_detached(daemon, view)
        self.assertTrue(view.is_right())
        daemon.quit()

    def test_stream(self):
        """The overlay gets what is in the cache."""
        daemon, view = self.prepare()
        daemon.cmd('block-stream', job_id='job', device='overlay')
        self.job_ends(daemon)
        self.assertEqual(self.info(daemon)['place'], 'unused')
        daemon.cmd('blockdev-del', node_name='cache')
        self.assertTrue(view.is_right())
        daemon.quit()

    def copy_of_image(self, path):
        result = self.path('copy.img')
        run('qemu-img', 'convert', '-U', '-O', 'raw', path, result)
        with open(result, 'rb') as f:
            return f.read()

    def is_whole(self, nodes, top, below):
        """What is in the image under an overlay on @below, without the
        cache, is all that was written, and stays so."""
        daemon = self.server(
            *self.file_args('image', self.base), *self.file_args(
                'fast', self.fast), *nodes, *self.export_args(top))
        view = self.view(bytes(self.base_size))
        for _ in range(50):
            view.change()
        self.assertGreater(self.info(daemon)['dirty'], 0)
        data = bytes(view.data)
        self.overlay(daemon, below)
        self.assertEqual(self.copy_of_image(self.base), data)
        for _ in range(50):
            view.change()
        self.assertTrue(view.is_right())
        self.assertEqual(self.copy_of_image(self.base), data)
        view.client.shutdown()
        daemon.quit()

    def test_image_below_the_cache_and_the_overlay(self):
        self.base = self.image('base.qcow2', self.base_size, 'qcow2')
        self.is_whole(['--blockdev', blockdev(
            driver='qcow2', node_name='base', file='image', discard='unmap'),
            *self.cache_args(idle=0)], 'cache', 'base')

    def test_format_above_the_cache(self):
        """It has written what it had in memory before the cache is asked."""
        self.base = self.image('base.qcow2', self.base_size, 'qcow2')
        self.is_whole(['--blockdev', blockdev(
            driver='weir-cache', node_name='cache', file='image',
            cache_file='fast', discard='unmap', idle=0), '--blockdev',
            blockdev(driver='qcow2', node_name='format', file='cache',
                     discard='unmap')], 'format', 'format')

    def test_what_the_format_writes_when_it_becomes_read_only(self):
        self.base = self.image('base.qcow2', self.base_size, 'qcow2')
        run('qemu-img', 'bitmap', '--add', self.base, 'changes')
        daemon = self.server(
            *self.file_args('image', self.base), *self.file_args(
                'fast', self.fast), '--blockdev', blockdev(
                driver='weir-cache', node_name='cache', file='image',
                cache_file='fast', idle=0), '--blockdev',
            blockdev(driver='qcow2', node_name='format', file='cache',
                     lazy_refcounts=True), *self.export_args('format'))
        view = self.view(bytes(self.base_size))
        view.write(0, os.urandom(MIB))
        self.overlay(daemon, 'format')
        self.assertEqual(self.info(daemon)['dirty'], 0)
        run('qemu-img', 'check', '-U', self.base)
        image = json.loads(run('qemu-img', 'info', '-U', '--output=json',
                               self.base).stdout)
        bitmap, = image['format-specific']['data']['bitmaps']
        self.assertEqual((bitmap['name'], bitmap['flags']),
                         ('changes', ['auto']))
        self.assertFalse(image['dirty-flag'])
        view.client.shutdown()
        daemon.quit()

    def test_attach_and_detach_below_an_overlay(self):
        daemon, view = self.prepare()
        # with the snapshot the node became read-only; nothing is dirty
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        self.assertTrue(view.is_right())
        daemon.cmd('weir-attach', {'node-name': 'base', 'filter': {
            'driver': 'weir-cache', 'node-name': 'cache', 'file': 'base',
            'cache-file': 'fast'}})
        self.assertTrue(view.is_right())
        self.assertGreater(self.info(daemon)['read-misses'], 0)
        daemon.quit()


class Copies(DeviceTest):
    """The copy is what the guest sees, or saw when it began."""

    def target(self, daemon, name='target'):
        path = self.image(f'{name}.img', self.base_size)
        daemon.cmd('blockdev-add', driver='file', node_name=name,
                   filename=path, discard='unmap')
        return path

    def prepare(self):
        daemon = self.chain(idle=0, dirty_high=60)
        view = self.view()
        for _ in range(150):
            view.change()
        self.assertGreater(self.info(daemon)['dirty'], 0)
        return daemon, view

    def mirror(self, daemon, view, device, target, copy_mode):
        daemon.cmd('blockdev-mirror', {
            'job-id': 'job', 'device': device, 'target': target,
            'sync': 'full', 'copy-mode': copy_mode})
        for _ in range(100):
            view.change()
        self.job_is_ready(daemon)
        for _ in range(20):
            view.change()

    def test_backup(self):
        daemon, view = self.prepare()
        path = self.target(daemon)
        before = bytes(view.data)
        daemon.cmd('blockdev-backup', {
            'job-id': 'job', 'device': 'cache', 'target': 'target',
            'sync': 'full', 'speed': 32 * MIB})
        for _ in range(200):
            view.change()
        self.job_ends(daemon)
        self.assertTrue(self.content(path) == before)
        self.assertTrue(view.is_right())
        self.check_detached(daemon, view)
        daemon.quit()

    def test_mirror_and_stay(self):
        for copy_mode in ('background', 'write-blocking'):
            daemon, view = self.prepare()
            path = self.target(daemon)
            self.mirror(daemon, view, 'cache', 'target', copy_mode)
            daemon.cmd('block-job-cancel', device='job')
            daemon.qmp.event('JOB_STATUS_CHANGE',
                             lambda d: d['status'] == 'null')
            self.assertTrue(self.content(path) == view.data)
            self.assertTrue(view.is_right())
            self.check_detached(daemon, view)
            daemon.quit()
            self.initial = bytes(view.data)

    def test_mirror_and_go(self):
        daemon, view = self.prepare()
        path = self.target(daemon)
        self.mirror(daemon, view, 'cache', 'target', 'background')
        daemon.cmd('job-complete', id='job')
        self.job_ends(daemon)
        self.assertTrue(self.content(path) == view.data)
        self.assertEqual(self.info(daemon)['place'], 'unused')
        daemon.cmd('blockdev-del', node_name='cache')
        for _ in range(20):
            view.change()
        self.assertTrue(self.content(path) == view.data)
        daemon.quit()

    def test_mirror_to_a_cache(self):
        """The other way round: from a bare disk to one with a cache."""
        new = self.image('new.img', self.base_size)
        daemon = self.server(
            *self.file_args('old', self.base), *self.file_args('base', new),
            *self.file_args('fast', self.fast), *self.cache_args(idle=0),
            *self.export_args('old'))
        view = self.view()
        self.mirror(daemon, view, 'old', 'cache', 'background')
        daemon.cmd('job-complete', id='job')
        self.job_ends(daemon)
        self.assertEqual(self.info(daemon)['place'], 'disk')
        for _ in range(50):
            view.change()
        self.assertTrue(view.is_right())
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        self.assertTrue(self.content(new) == view.data)
        daemon.quit()


class Status(DeviceTest):
    def extents(self, client, size):
        """(offset, bytes, flags) from the beginning to the end."""
        found = []

        def take(context, offset, entries, error):
            for count, flags in zip(entries[::2], entries[1::2]):
                found.append((offset, count, flags))
                offset += count
        while not found or sum(found[-1][:2]) < size:
            at = sum(found[-1][:2]) if found else 0
            client.block_status(size - at, at, take)
        return found

    def check(self, client, view):
        """What is said to be zeroes is; returns how many bytes that are."""
        position = zeroes = 0
        for offset, count, flags in self.extents(client, len(view.data)):
            self.assertEqual(offset, position)
            position += count
            if flags & nbd.STATE_ZERO:
                self.assertFalse(any(view.data[offset:offset + count]),
                                 (offset, count))
                zeroes += count
        self.assertEqual(position, len(view.data))
        return zeroes

    def test_at_any_time(self):
        daemon = self.chain(dirty_high=40, dirty_low=10, idle=50)
        view = View(self.connect(status=True), self.initial)
        for _ in range(60):
            for _ in range(15):
                view.change()
            self.assertGreater(self.check(view.client, view), 0)
        self.check_detached(daemon, view)
        self.check(view.client, view)
        daemon.quit()

    def test_kinds_of_blocks(self):
        daemon = self.chain(idle=0)
        view = View(self.connect(status=True), self.initial)
        view.write(MIB, os.urandom(256 * KIB))          # dirty
        view.zero(MIB + 64 * KIB, 64 * KIB)             # dirty zeroes
        view.trim(MIB + 192 * KIB, 64 * KIB)            # discarded
        view.client.pread(MIB, 4 * MIB)                 # clean
        self.check(view.client, view)
        zero = {at: bool(flags & nbd.STATE_ZERO) for offset, count, flags in
                self.extents(view.client, len(view.data))
                for at in range(offset, offset + count, 4 * KIB)}
        for at, expected in ((0, False), (64, True), (128, False),
                             (192, True)):
            for block in range(at, at + 64, 4):
                self.assertEqual(zero[MIB + block * KIB], expected, block)
        daemon.quit()

    def test_convert(self):
        """qemu-img takes block status at its word."""
        daemon = self.chain(idle=0)
        view = self.view()
        for _ in range(200):
            view.change()
        out = self.path('out.img')
        run('qemu-img', 'convert', '-O', 'raw',
            f'nbd+unix:///disk?socket={self.sock}', out, tests=False)
        self.assertTrue(self.content(out) == view.data)
        daemon.quit()


class Alignment(DeviceTest):
    def test_one_after_the_other(self):
        """From 1 byte on, at odd places, in all modes."""
        options = {'dirty_high': 20, 'dirty_low': 5, 'idle': 50}
        daemon = self.chain(export={'iothread': 'io0'}, **options)
        view = self.view()
        for mode in MODES * 2:
            self.reopen(daemon, mode=mode, **options)
            for _ in range(150):
                offset, count = view.change()
                self.assertTrue(view.client.pread(count, offset) ==
                                view.data[offset:offset + count])
            self.assertTrue(view.is_right())
        info = self.info(daemon)
        self.assertGreater(info['evictions'], 0)
        self.check_detached(daemon, view)
        daemon.quit()

    def write_pieces(self, view, first, end):
        """All bytes of a range, in pieces, at once."""
        cookies = []
        while first < end:
            count = min(random.randint(1, 5000), end - first)
            data = os.urandom(count)
            buffer = nbd.Buffer.from_bytearray(bytearray(data))
            cookies.append(view.client.aio_pwrite(buffer, first))
            view.data[first:first + count] = data
            first += count
        completed(view.client, cookies)

    def test_neighbours_in_one_block(self):
        """A block is read, changed and written by one request at a time."""
        daemon = self.chain(export={'iothread': 'io0'}, idle=20,
                            dirty_high=20)
        view = self.view()
        for mode in MODES:
            self.reopen(daemon, mode=mode, dirty_high=20)
            for _ in range(40):
                first = random.randrange(self.base_size - 100000)
                self.write_pieces(view, first, first + 40000)
            self.assertTrue(view.is_right())
        self.check_detached(daemon, view)
        daemon.quit()


class Pressure(DeviceTest):
    """More under way at a time than the cache has room for."""

    def test_zeroes_and_writes(self):
        """Requests that wait for room keep what makes room from nothing."""
        self.fast_size = 4 * MIB
        os.truncate(self.fast, self.fast_size)
        daemon = self.chain(idle=0, dirty_high=95)
        view = self.view()
        for _ in range(5):
            cookies = []
            for at in range(0, 16 * MIB, 4 * MIB):
                cookies.append(view.client.aio_zero(4 * MIB, at))
                view.data[at:at + 4 * MIB] = bytes(4 * MIB)
            for at in range(16 * MIB, 24 * MIB, 512 * KIB):
                data = os.urandom(256 * KIB)
                buffer = nbd.Buffer.from_bytearray(bytearray(data))
                cookies.append(view.client.aio_pwrite(buffer, at))
                view.data[at:at + 256 * KIB] = data
            completed(view.client, cookies)
            self.assertTrue(view.is_right())
        self.check_detached(daemon, view)
        daemon.quit()


class Exports(DeviceTest):
    def test_vhost_user_blk(self):
        daemon = self.chain(idle=50, dirty_high=20)
        view = self.vhost_view(daemon, self.initial)
        for mode in MODES:
            self.reopen(daemon, mode=mode, dirty_high=20, dirty_low=5)
            for _ in range(150):
                view.change()
            view.client.flush()
            self.assertTrue(view.is_right())
        self.assertTrue(view.is_right(self.connect()))
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        for _ in range(20):
            view.change()
        self.assertTrue(view.is_right())
        view.client.shutdown()
        daemon.quit()
        self.assertTrue(self.content(self.base) == view.data)

    def test_several_at_once(self):
        """NBD clients on one half of the disk, vhost-user-blk on the other."""
        daemon = self.chain(export={'iothread': 'io0'}, dirty_high=20,
                            dirty_low=5)
        load = self.load(600, 12 * MIB)
        view = self.vhost_view(daemon, self.initial)
        view.range = lambda most: (
            random.randrange(12 << 11, (24 << 11) - 256) * SECTOR,
            random.randint(1, 256) * SECTOR)
        for _ in range(600):
            offset, count = view.change()
            self.assertTrue(view.client.pread(count, offset) ==
                            view.data[offset:offset + count])
        load.terminate()
        self.finish_load(load)
        half = view.client.pread(12 * MIB, 12 * MIB)
        self.assertTrue(half == view.data[12 * MIB:])
        view.client.shutdown()
        daemon.quit()


if __name__ == '__main__':
    main()
