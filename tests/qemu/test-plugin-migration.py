#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a machine with a disk under a plugin: one image for both
sides, or one each; there and back, cancelled, with a target that dies, and with
a plugin that refuses.  The load is that of an NBD client up to the moment when
the disk is handed over."""

import json
import os
import subprocess
import threading

import nbd

from plugindisk import MIB
from weirtest import SOURCE, TestCase, main, wait_for

SIZE = 16 * MIB
BLOCK = 4096
KEY = 90
EXAMPLES = os.path.join(SOURCE, 'docs', 'examples', 'plugins')


class Writer:
    """Writes versions of blocks, after another one, until it is refused or
    stopped."""

    def __init__(self, client, before=None):
        self.client = client
        # block: what was acknowledged
        self.versions = dict(before.versions) if before else {}
        self.next = before.next if before else 1
        self.stopped = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def data(self, version):
        return (b'%015d.' % version) * (BLOCK // 16)

    def run(self):
        while not self.stopped.is_set():
            block = self.next * 7 % (SIZE // BLOCK - 64) + 64
            try:
                self.client.pwrite(self.data(self.next), block * BLOCK)
            except nbd.Error as error:
                self.error = error
                self.versions.pop(block, None)  # it may be of either version
                return
            self.versions[block] = self.next
            self.next += 1

    def more(self, number):
        """Wait for so many writes."""
        end = self.next + number
        wait_for(lambda: self.next > end or self.error, 'some writes')
        assert not self.error, self.error

    def end(self):
        self.stopped.set()
        self.thread.join()
        return self

    def check(self, read):
        for block, version in self.versions.items():
            assert read(BLOCK, block * BLOCK) == self.data(version), block


class Sides(TestCase):
    def build(self, name):
        path = self.path(name + '.so')
        subprocess.run(
            ['cc', '-std=c99', '-D_POSIX_C_SOURCE=200809L', '-shared', '-fPIC',
             '-I' + os.path.join(SOURCE, 'filters', 'plugin'), '-o', path,
             os.path.join(EXAMPLES, name + '.c')], check=True)
        return path

    def side(self, name, plugin, *args, image='disk.img', sidecar=None,
             error=None, **options):
        if not os.path.exists(self.path(image)):
            self.image(image, size=SIZE)
        nodes = [{'driver': 'file', 'node-name': 'file',
                  'filename': self.path(image), 'discard': 'unmap'}]
        if error:
            nodes.append({'driver': 'blkdebug', 'node-name': 'bad', 'image':
                          'file', 'inject-error': [error]})
        flt = {'driver': 'weir-plugin', 'node-name': 'disk', 'plugin': plugin,
               'file': 'bad' if error else 'file', 'options': options}
        if sidecar:
            nodes.append({'driver': 'file', 'node-name': 'side',
                          'filename': sidecar})
            flt['sidecar'] = 'side'
        vm = self.vm(
            '-m', '16', '-object', 'iothread,id=io0',
            *(arg for node in [*nodes, flt]
              for arg in ('-blockdev', json.dumps(node))),
            '-device', 'virtio-blk-pci,drive=disk,id=vd0,share-rw=on,'
            'iothread=io0', *args)
        vm.name = name
        vm.cmd('nbd-server-start', addr={
            'type': 'unix', 'data': {'path': self.path(name)}})
        if not args:
            vm.cmd('cont')
        return vm

    def target(self, name, plugin, **options):
        vm = self.side(name, plugin, '-incoming', 'defer', **options)
        vm.cmd('migrate-incoming', uri=f'unix:{self.path(name + ".mig")}')
        return vm

    def connect(self, vm):
        """Export the disk as one that may be handed over; a client of it."""
        vm.cmd('block-export-add', {
            'type': 'nbd', 'id': 'exp', 'node-name': 'disk', 'name': 'disk',
            'writable': True, 'allow-inactive': True, 'iothread': 'io0'})
        client = nbd.NBD()
        client.set_request_structured_replies(False)
        client.connect_uri(f'nbd+unix:///disk?socket={self.path(vm.name)}')
        return client

    def gauges(self, vm):
        return {g['name']: g['value']
                for g in self.filter_info(vm, 'disk')['gauges']}

    # --- migration ---

    def begin(self, source, target, pause=False):
        source.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': pause}])
        source.cmd('migrate', uri=f'unix:{self.path(target.name + ".mig")}')
        if pause:
            wait_for(lambda: self.status(source) == 'pre-switchover',
                     'all but the devices is copied')

    def status(self, vm):
        return vm.cmd('query-migrate').get('status')

    def end(self, source, status='completed'):
        wait_for(lambda: self.status(source) in
                 ('completed', 'failed', 'cancelled'), 'the migration ends')
        self.assertEqual(self.status(source), status, source.output())

    def migrate(self, source, target):
        self.begin(source, target)
        self.end(source)
        wait_for(lambda: self.status(target) == 'completed', 'it is over')
        target.cmd('cont')

    def lose_target(self, source, target):
        """It dies when it should take over, after the disk was given up."""
        self.begin(source, target, pause=True)
        target.kill()
        source.cmd('migrate-continue', state='pre-switchover')
        self.end(source, 'failed')
        wait_for(lambda: source.cmd('query-status')['status'] == 'running',
                 'it goes on')

    def check_image(self, writer, change=lambda data: data, image='disk.img'):
        """What lies in the image is what the plugin makes of it."""
        with open(self.path(image), 'rb') as f:
            content = f.read()
        writer.check(lambda count, at: change(content[at:at + count]))


class Shared(Sides):
    """Both sides have the same image."""

    def there_and_back(self, plugin, change=lambda data: data):
        vm = self.side('a', plugin)
        client = self.connect(vm)
        writer = None
        for name in 'b', 'c':
            writer = Writer(client, writer)
            writer.more(200)
            other = self.target(name, plugin)
            self.migrate(vm, other)
            writer.end()
            # it was at work to the end, and then refused
            self.assertEqual(writer.error.errno, 'EPERM')
            client = self.connect(other)
            writer.check(client.pread)
            self.check_image(writer, change)
            vm.quit()
            vm = other
        client.pwrite(b'z' * BLOCK, 0)
        client.flush()
        self.assertEqual(client.pread(BLOCK, 0), b'z' * BLOCK)
        client.shutdown()
        vm.quit()

    def test_changes_data(self):
        self.there_and_back(self.build('xor'), lambda data: bytes(
            byte ^ KEY for byte in data))

    def test_holds_data(self):
        self.there_and_back('late')

    def test_looks_on(self):
        self.there_and_back('probe')

    def comes_back(self, vm, client, plugin):
        """After a migration that failed, and then there is one."""
        writer = Writer(client)
        writer.more(100)
        self.assertIsNone(writer.end().error)
        writer.check(client.pread)
        other = self.target('z', plugin)
        self.migrate(vm, other)
        writer.check(self.connect(other).pread)
        vm.quit()
        other.quit()

    def failed(self, plugin):
        vm = self.side('a', plugin)
        client = self.connect(vm)
        for name in 'b', 'c':
            writer = Writer(client)
            writer.more(100)
            self.lose_target(vm, self.target(name, plugin))
            writer.end()
            writer.check(client.pread)
        self.comes_back(vm, client, plugin)

    def test_target_dies_changes_data(self):
        self.failed(self.build('xor'))

    def test_target_dies_holds_data(self):
        self.failed('late')

    def test_target_dies_looks_on(self):
        self.failed('probe')

    def test_cancelled(self):
        plugin = self.build('xor')
        vm = self.side('a', plugin)
        client = self.connect(vm)
        writer = Writer(client)
        target = self.target('b', plugin)
        self.begin(vm, target, pause=True)
        vm.cmd('migrate_cancel')
        self.end(vm, 'cancelled')
        target.kill()
        # it was not given up, and its user has not noticed
        writer.more(100)
        self.assertIsNone(writer.end().error)
        writer.check(client.pread)
        self.comes_back(vm, client, plugin)

    def test_what_is_held_cannot_be_brought_down(self):
        """The plugin refuses, and the machine stays, with its data."""
        vm = self.side('a', 'late', error={
            'event': 'none', 'iotype': 'write', 'errno': 5, 'once': True,
            'sector': 8 * BLOCK // 512})
        client = self.connect(vm)
        client.pwrite(b'a' * BLOCK, 8 * BLOCK)
        target = self.target('b', 'late')
        self.begin(vm, target)
        self.end(vm, 'failed')
        target.kill()
        self.assertEqual(vm.cmd('query-status')['status'], 'running')
        self.assertEqual(client.pread(BLOCK, 8 * BLOCK), b'a' * BLOCK)
        client.pwrite(b'b' * BLOCK, 9 * BLOCK)
        client.flush()
        client.shutdown()
        vm.quit()
        with open(self.path('disk.img'), 'rb') as f:
            f.seek(8 * BLOCK)
            self.assertEqual(f.read(2 * BLOCK), b'a' * BLOCK + b'b' * BLOCK)


class Sidecar(Sides):
    """Both sides have the same image, and the same sidecar."""

    def setUp(self):
        super().setUp()
        self.plugin = self.build('deny')
        self.shared = {'sidecar': self.image('side.img', size=64 << 10)}

    def assert_denied(self, client, *places):
        for block in range(4):
            if block in places:
                with self.assertRaises(nbd.Error) as caught:
                    client.pwrite(b'x' * BLOCK, block * BLOCK)
                self.assertEqual(caught.exception.errno, 'EPERM')
            else:
                client.pwrite(b'w' * BLOCK, block * BLOCK)

    def first(self):
        vm = self.side('a', self.plugin, add=f'0+{BLOCK}', **self.shared)
        client = self.connect(vm)
        self.assert_denied(client, 0)
        return vm, client

    def test_there_and_back(self):
        """What the list has got at a side is there at the other."""
        vm, client = self.first()
        for name, add, denied in (('b', f'{BLOCK}+1', (0, 1)),
                                  ('c', f'{2 * BLOCK}+1', (0, 1, 2)),
                                  ('d', '', (0, 1, 2))):
            other = self.target(name, self.plugin, add=add, **self.shared)
            # it has no part in the list yet
            self.assertEqual(self.gauges(other)['places'], 0)
            self.assert_denied(client, *range(len(denied) - bool(add)))
            self.migrate(vm, other)
            self.assert_denied(self.connect(other), *denied)
            vm.quit()
            vm, client = other, self.reconnect(other)
        vm.quit()

    def reconnect(self, vm):
        client = nbd.NBD()
        client.set_request_structured_replies(False)
        client.connect_uri(f'nbd+unix:///disk?socket={self.path(vm.name)}')
        return client

    def test_failed_and_cancelled(self):
        vm, client = self.first()
        self.lose_target(vm, self.target('b', self.plugin, add='', **
                                         self.shared))
        self.assert_denied(client, 0)
        target = self.target('c', self.plugin, add=f'{3 * BLOCK}+1',
                             **self.shared)
        self.begin(vm, target, pause=True)
        vm.cmd('migrate_cancel')
        self.end(vm, 'cancelled')
        target.kill()
        self.assert_denied(client, 0)
        other = self.target('d', self.plugin, add='', **self.shared)
        self.migrate(vm, other)
        self.assert_denied(self.connect(other), 0)
        vm.quit()
        other.quit()


class Apart(Sides):
    """Each side has an image; a job copies it, through both plugins."""

    def copy(self, source, target):
        """Returns when all that is written goes to both."""
        target.cmd('nbd-server-add', {'device': 'disk', 'writable': True})
        source.cmd('blockdev-add', {
            'driver': 'nbd', 'node-name': 'other', 'export': 'disk', 'server': {
                'type': 'unix', 'path': self.path(target.name)}})
        source.cmd('blockdev-mirror', {
            'job-id': 'copy', 'device': 'disk', 'target': 'other', 'sync':
            'full', 'copy-mode': 'write-blocking'})
        source.qmp.event('BLOCK_JOB_READY')

    def finish(self, source, target):
        """The copy ends before the disk is given up."""
        source.cmd('block-job-cancel', device='copy')
        source.qmp.event('BLOCK_JOB_COMPLETED')
        target.cmd('nbd-server-stop')

    def test_there_and_back(self):
        plugin = self.build('xor')
        vm = self.side('a', plugin, image='a.img')
        for name, key in (('b', 17), ('a', KEY)):
            image = self.path(name + '.img')
            if os.path.exists(image):
                os.unlink(image)        # nothing is left of the first time
            writer = Writer(self.connect(vm))
            writer.more(200)
            other = self.target(name + '2', plugin, image=name + '.img',
                                key=key)
            self.copy(vm, other)
            writer.more(400)            # to both
            self.begin(vm, other, pause=True)
            writer.end()                # a guest stands still by then
            self.finish(vm, other)
            vm.cmd('migrate-continue', state='pre-switchover')
            self.end(vm)
            wait_for(lambda: self.status(other) == 'completed', 'it is over')
            other.cmd('cont')
            self.check_image(writer, lambda data: bytes(
                byte ^ key for byte in data), name + '.img')
            vm.quit()
            vm = other
            vm.cmd('nbd-server-start', addr={
                'type': 'unix', 'data': {'path': self.path(vm.name) + 'x'}})
            vm.name += 'x'
            writer.check(self.connect(vm).pread)
            vm.cmd('block-export-del', id='exp', mode='hard')
            vm.qmp.event('BLOCK_EXPORT_DELETED')
        vm.quit()


if __name__ == '__main__':
    main()
