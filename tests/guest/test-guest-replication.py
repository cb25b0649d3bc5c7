#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with transactions on two replicated disks, killed again and again:
each point in time that is offered then has two whole file systems, with
transactions of which none is half done, and never a later one on the second
disk than on the first."""

import json
import os
import random
import time

import guest
import imagecheck
from cachetest import nbd_connect
from weirtest import Process, QMPError, wait_for

SIZE = 48 << 20
LOG_SIZE = 256 << 20
KILLS = int(os.environ.get('WEIR_REPLICATION_KILLS', '3'))
POINTS = 3                      # that are looked at after each kill
DISKS = ('one', 'two')
SCRIPT = '''
set -e
mkdir -p /one /two
for disk in one:vda two:vdb; do
    if [ %(first)d = 1 ]; then
        mkfs.ext4 -q /dev/${disk#*:}
    fi
    mount -t ext4 /dev/${disk#*:} /${disk%%:*}
    mkdir -p /${disk%%:*}/w
    weir-commit check /${disk%%:*}/w 0
done
sync
report whole
weir-commit work /one/w one &
weir-commit work /two/w two &
n=$((1$(cat /one/n 2>/dev/null || echo 00000000) - 100000000))
while :; do
    for disk in one two; do
        printf '%%08d\\n' $n | dd of=/$disk/n conv=notrunc,fsync 2>/dev/null
    done
    n=$((n + 1))
done
'''


class Replication(guest.TestCase):
    def setUp(self):
        super().setUp()
        seed = random.randrange(1 << 32)
        random.seed(seed)
        print(f'seed {seed}')
        self.sock = self.path('keeper.sock')
        for name in ('log', 'one', 'two', 'one-base', 'two-base', 'one-side',
                     'two-side'):
            self.image(name, LOG_SIZE if name == 'log' else
                       16 << 20 if 'side' in name else SIZE)
        self.keeper = self.start_keeper()
        self.first = True
        self.checked = 0

    def file_node(self, name, filename=None):
        return {'driver': 'file', 'node-name': name, 'discard': 'unmap',
                'filename': self.path(filename or name)}

    def start_keeper(self):
        nodes = [self.file_node(name) for name in
                 ('log', 'one-base', 'two-base')]
        nodes.append({'driver': 'weir-journal', 'node-name': 'journal',
                      'file': 'log', 'create': True, 'bases': [
                          {'disk-id': disk, 'node': f'{disk}-base'}
                          for disk in DISKS]})
        args = [arg for node in nodes
                for arg in ('--blockdev', json.dumps(node))]
        keeper = Process(
            'qemu-storage-daemon', *args, '--nbd-server',
            f'addr.type=unix,addr.path={self.sock},max-connections=0',
            '--export', 'nbd,id=log,node-name=journal,name=log,writable=on',
            tests=False)
        self.addCleanup(keeper.kill)
        return keeper

    def boot(self):
        nodes = [self.file_node(name) for name in
                 (*DISKS, 'one-side', 'two-side')]
        nodes.append({'driver': 'nbd', 'node-name': 'log', 'export': 'log',
                      'server': {'type': 'unix', 'path': self.sock}})
        nodes += [{'driver': 'weir-replication', 'node-name': f'{disk}-repl',
                   'file': disk, 'log': 'log', 'sidecar': f'{disk}-side',
                   'disk-id': disk, 'epoch-interval': 50} for disk in DISKS]
        args = [arg for node in nodes
                for arg in ('-blockdev', json.dumps(node))]
        for disk in DISKS:
            args += ['-object', f'iothread,id=io-{disk}', '-device',
                     f'virtio-blk-pci,iothread=io-{disk},drive={disk}-repl']
        vm = self.start(SCRIPT % {'first': self.first}, *args, memory_mb=256)
        vm.report('whole')
        self.first = False
        return vm

    def mark(self, vm):
        """The number of a point from now, with whole file systems."""
        name = f'boot {self.checked}'

        def marked():
            try:
                vm.cmd('weir-replication-mark',
                       {'node-name': 'one-repl', 'mark': name})
            except QMPError:            # it still synchronises
                return False
            return True
        wait_for(marked, f'a mark, is {self.source(vm)}')
        return wait_for(
            lambda: [p['epoch'] for p in self.points(marked=True)
                     if name in p['marks']], 'a point')[0]

    def source(self, vm):
        infos = {i['node-name']: i for i in vm.cmd('query-weir')}
        return infos['one-repl']

    def told(self, vm):
        """The last transaction of each worker that is known to be safe."""
        found = dict.fromkeys(DISKS, 0)
        for line in vm.console.lines:
            words = line.split()
            if len(words) == 3 and words[0] == 'committed':
                found[words[1]] = int(words[2].rstrip('.'))
        return found

    def work(self, vm):
        """Until something has been replicated; returns what has to be in the
        last point."""
        begin = len(vm.console.lines)
        for _ in range(random.randrange(20, 60)):
            _, begin = vm.next_line('^committed ', begin)
        told, when = self.told(vm), time.monotonic()

        def replicated():
            info = self.source(vm)
            return info['rpo'] / 1000 < time.monotonic() - when - 0.1
        wait_for(replicated, f'replication, is {self.source(vm)}')
        time.sleep(random.random() / 2)
        return told

    def kill(self, vm):
        vm.process.kill()
        vm.process.wait()
        vm.kill()

    def points(self, **options):
        return self.keeper.cmd('query-weir-points', {
            'node-name': 'journal', 'limit': 10000, **options})

    def read(self, disk, epoch):
        """Copy a disk at a point in time into a file."""
        self.keeper.cmd('blockdev-add', {
            'driver': 'weir-replica', 'node-name': 'replica', 'base':
            f'{disk}-base', 'journal': 'journal', 'disk-id': disk,
            'point': f'epoch:{epoch}', 'read-only': True})
        self.keeper.cmd('block-export-add', {
            'type': 'nbd', 'id': 'replica', 'node-name': 'replica'})
        client = nbd_connect(self.sock, 'replica')
        with open(self.path('image'), 'wb') as f:
            for offset in range(0, SIZE, 1 << 20):
                f.write(client.pread(1 << 20, offset))
        client.shutdown()
        self.keeper.cmd('block-export-del', {'id': 'replica', 'mode': 'hard'})
        self.keeper.qmp.event('BLOCK_EXPORT_DELETED')
        self.keeper.cmd('blockdev-del', {'node-name': 'replica'})

    def check_point(self, epoch, told):
        numbers = []

        def look(folder):
            try:
                with open(os.path.join(folder, 'n')) as f:
                    numbers.append(int(f.read() or 0))
            except FileNotFoundError:
                numbers.append(0)
        for disk in DISKS:
            self.read(disk, epoch)
            imagecheck.check(self.path('image'), self.path('files'),
                             {'w': told[disk]}, look)
        self.assertIn(numbers[0] - numbers[1], (0, 1), f'epoch {epoch}')
        self.checked += 1

    def check(self, oldest, told):
        """Some of the points from an epoch on, of which the last one has all
        that was told."""
        points = [p['epoch'] for p in self.points()
                  if p['epoch'] >= oldest]
        self.assertTrue(points)
        self.check_point(points[0], told)
        for epoch in random.sample(points[1:], min(POINTS - 1,
                                                   len(points) - 1)):
            self.check_point(epoch, dict.fromkeys(DISKS, 0))

    def test_killed(self):
        for _ in range(KILLS):
            vm = self.boot()
            oldest = self.mark(vm)
            told = self.work(vm)
            self.kill(vm)
            self.check(oldest, told)
        print(f'{self.checked} points, told of {told}')
        self.keeper.quit()


if __name__ == '__main__':
    guest.main('qemu-storage-daemon')
