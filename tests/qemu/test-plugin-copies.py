#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies from one disk under a plugin to another: the data is right whatever
the plugins do with it, and the file system makes the copy where both plugins
let it pass."""

import os
import random

from plugindisk import MIB
from weirtest import TestCase, blockdev, main, run, statistics, wait_for

SIZE = 8 * MIB
BLOCK = 65536
MASK = 0x5a                             # of mask.c


def masked(data):
    return bytes(byte ^ MASK for byte in data)


def plain(data):
    return data


# plugin: what it makes of data, and whether copies from and to it pass
KINDS = {
    'empty': (plain, True, True),
    'passing': (plain, False, False),
    'crash': (plain, True, False),      # looks at writes only
    'mask': (masked, False, False),
    'late': (plain, False, False),
}
OPTIONS = {'crash': {'when': '/nonexistent'}}


class Copies(TestCase):
    def setUp(self):
        super().setUp()
        blocks = [random.randbytes(BLOCK) if i % 3 else bytes(BLOCK)
                  for i in range(SIZE // BLOCK)]
        self.data = b''.join(blocks)

    def make(self, name, data):
        path = self.path(name)
        with open(path, 'wb') as f:
            f.write(data)
        return path

    def content(self, name):
        with open(self.path(name), 'rb') as f:
            return f.read()

    def for_each_pair(self, copy):
        """Call it with all: (plugin, plugin, whether copies are offloaded)."""
        for source, (made, passes_from, _) in KINDS.items():
            for target, (to_be, _, passes_to) in KINDS.items():
                with self.subTest(f'{source} to {target}'):
                    self.make('from.img', made(self.data))
                    self.make('to.img', b'\xee' * SIZE)
                    data = copy(source, target, passes_from and passes_to)
                    self.assertEqual(self.content('to.img'),
                                     to_be(data or self.data))

    def options(self, plugin, image):
        return ','.join([
            f'driver=weir-plugin,plugin={plugin}',
            f'file.driver=file,file.filename={self.path(image)}',
            *(f'options.{k}={v}' for k, v in OPTIONS.get(plugin, {}).items())])

    def test_convert(self):
        def convert(source, target, _):
            run('qemu-img', 'convert', '-C', '-n', '--image-opts',
                '--target-image-opts', self.options(source, 'from.img'),
                self.options(target, 'to.img'))
        self.for_each_pair(convert)

    # --- jobs ---

    def daemon_with(self, source, target):
        nodes = [arg for name, plugin in (('from', source), ('to', target))
                 for arg in ('--blockdev', blockdev(
                     driver='weir-plugin', node_name=name, plugin=plugin,
                     options=OPTIONS.get(plugin, {}), file={
                         'driver': 'file', 'filename':
                         self.path(name + '.img')}))]
        return self.daemon(*nodes)

    def copied(self, d, node):
        """Bytes that passed it as copies that are offloaded."""
        copy = statistics(self.filter_info(d, node)).get('copy')
        return copy['bytes'] if copy else 0

    def wait(self, d, status):
        wait_for(lambda: d.cmd('query-jobs')[0]['status'] in
                 (status, 'concluded'), f'the job is {status}')
        self.assertNotIn('error', d.cmd('query-jobs')[0])

    def test_backup(self):
        def backup(source, target, offloaded):
            d = self.daemon_with(source, target)
            d.cmd('blockdev-backup', {
                'job-id': 'b', 'device': 'from', 'target': 'to', 'sync':
                'full', 'auto-dismiss': False,
                'x-perf': {'use-copy-range': True}})
            self.wait(d, 'concluded')
            # zeroes are written as such
            self.assertEqual([self.copied(d, n) > SIZE // 2 for n in
                              ('from', 'to')], [offloaded] * 2)
            d.cmd('job-dismiss', id='b')
            d.quit()
        self.for_each_pair(backup)

    def test_mirror(self):
        """Of a disk that is written to meanwhile."""
        def mirror(source, target, _):
            d = self.daemon_with(source, target)
            d.cmd('nbd-server-start', addr={
                'type': 'unix', 'data': {'path': self.path('nbd')}})
            d.cmd('block-export-add', {'type': 'nbd', 'id': 'e', 'node-name':
                                       'from', 'writable': True})
            d.cmd('blockdev-mirror', {
                'job-id': 'm', 'device': 'from', 'target': 'to', 'sync':
                'full', 'auto-dismiss': False})
            data = self.change()
            self.wait(d, 'ready')
            d.cmd('block-export-del', id='e', mode='hard')
            d.qmp.event('BLOCK_EXPORT_DELETED')
            d.cmd('job-complete', id='m')
            self.wait(d, 'concluded')
            d.cmd('job-dismiss', id='m')
            d.quit()
            os.unlink(self.path('nbd'))
            return data
        self.for_each_pair(mirror)

    def change(self):
        """Write to the disk that is exported; what it has then."""
        data = bytearray(self.data)
        commands = []
        for value in range(1, 20):
            offset, length = 3 * value * BLOCK + 512, 4 * BLOCK
            commands += ['-c', f'write -P {value} {offset} {length}']
            data[offset:offset + length] = bytes([value]) * length
        run('qemu-io', '-f', 'raw', *commands, '-c', 'flush',
            f'nbd+unix:///from?socket={self.path("nbd")}')
        return bytes(data)


if __name__ == '__main__':
    main()
