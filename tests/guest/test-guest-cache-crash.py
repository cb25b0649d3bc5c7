#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system with transactions on a disk with weir-cache, through kill -9
of QEMU and through power cuts of both devices (powerdisk.py): what the guest
has told to be safe is there, and the file system is whole."""

import json
import os
import random
import re
import time

import nbd

import guest
import imagecheck
from powerdisk import FLUSH, WRITE, ZERO, Disk, Power
from weirtest import Process, blockdev, graph

SIZE = 64 << 20
FAST_SIZE = 4 << 20
WORKERS = ('a', 'b', 'c')
KILLS = 3
OUTCOMES = 4                            # of each cut, besides one that goes on
SCRIPT = '''
set -e
if [ %(first)d = 1 ]; then
    mkfs.ext4 -q /dev/vda
fi
report mounting
mount -t ext4 /dev/vda /mnt
while read -r worker told; do
    mkdir -p /mnt/$worker
    weir-commit check /mnt/$worker $told
done <<END
%(told)s
END
umount /mnt
e2fsck -fn /dev/vda
mount -t ext4 /dev/vda /mnt
sync
report whole
for worker in %(workers)s; do
    weir-commit work /mnt/$worker $worker &
    pids="$pids $!"
done
while [ ! -e /tmp/enough ]; do
    for i in 1 2 3 4; do
        dd if=/dev/urandom of=/mnt/noise$i bs=64k count=16 2>/dev/null
        cat /mnt/noise* >/dev/null
        echo 1 >/proc/sys/vm/drop_caches
        sleep 0.5
    done
done &
wait_host working
touch /tmp/enough
kill $pids
wait
umount /mnt
'''


class Crash(guest.TestCase):
    def setUp(self):
        super().setUp()
        self.told = dict.fromkeys(WORKERS, 0)
        self.first = True
        self.seen = dict.fromkeys(('evictions', 'written-back',
                                   'recovered-records', 'read-hits'), 0)
        seed = random.randrange(1 << 32)
        random.seed(seed)
        print(f'seed {seed}')

    def cache(self):
        """The node, each time with other limits."""
        high = random.choice((10, 50, 95))
        return blockdev(driver='weir-cache', node_name='disk', file='base',
                        cache_file='fast', idle=random.choice((0, 100)),
                        dirty_age=random.choice((0, 500)), dirty_high=high,
                        dirty_low=high // 2)

    def boot(self, devices, cache=True):
        """devices: options of the nodes below."""
        args = [arg for name, options in devices.items()
                for arg in ('-blockdev', json.dumps({'node-name': name,
                                                     **options}))]
        if cache:
            args += ['-blockdev', self.cache()]
        script = SCRIPT % {
            'first': self.first, 'workers': ' '.join(WORKERS), 'told':
            '\n'.join(f'{name} {n}' for name, n in self.told.items())}
        return self.start(
            script, *args, '-object', 'iothread,id=io0', '-device',
            'virtio-blk-pci,num-queues=2,iothread=io0,drive=' +
            ('disk' if cache else 'base'), memory_mb=256)

    def remember(self, vm):
        """What the guest has told of: all of that is safe."""
        for line in vm.console.lines:
            match = re.fullmatch(r'committed (\w) (\d+)\.', line)
            if match:
                self.told[match[1]] = max(self.told[match[1]], int(match[2]))

    def info(self, vm):
        info, = vm.cmd('query-weir', {'node-name': 'disk'})
        self.assertEqual((info['corrupt-clean'], info['corrupt-dirty']),
                         (0, 0))
        return info

    def see(self, vm):
        """Add up what the cache has done since it was opened."""
        info = self.info(vm)
        for key in self.seen:
            self.seen[key] += info[key]

    def is_whole(self, vm):
        """The guest has found all, and a file system without errors."""
        match = vm.console.wait('^WEIR-GUEST: whole|^WEIR-GUEST-EXIT',
                                guest.WAIT_S)[1]
        self.assertIn('whole', match.string, vm.console.text())
        self.first = False

    def work(self, vm, count):
        """Wait for some more transactions."""
        begin = len(vm.console.lines)
        for _ in range(count):
            _, begin = vm.next_line(r'^committed ', begin)

    def go_far(self, vm, early):
        """Let it get somewhere, perhaps not even to the end of a recovery."""
        vm.report('mounting')
        if not early:
            self.is_whole(vm)
            self.work(vm, random.randrange(20, 60))
            self.see(vm)

    def kill(self, vm):
        vm.process.kill()
        vm.process.wait()
        vm.console.thread.join()
        self.remember(vm)
        vm.kill()

    def end(self, vm):
        """Stop the work, and all else in good order."""
        vm.wait_for('working')
        vm.go_on()
        self.finish(vm)
        self.remember(vm)

    def has_seen_all(self):
        for key, count in self.seen.items():
            self.assertGreater(count, 0, key)
        print(f'told of {self.told}, {self.seen}')


class Kill(Crash):
    def test_killed(self):
        files = {name: {'driver': 'file', 'discard': 'unmap',
                        'filename': self.image(name, size)}
                 for name, size in (('base', SIZE), ('fast', FAST_SIZE))}
        for i in range(KILLS):
            vm = self.boot(files)
            self.go_far(vm, early=i == 1)
            time.sleep(random.random() / 2)
            self.kill(vm)
        vm = self.boot(files)
        self.is_whole(vm)
        self.work(vm, 20)
        self.see(vm)
        vm.cmd('weir-detach', {'node-name': 'disk'})
        self.assertNotIn('disk', graph(vm)[0])
        self.work(vm, 20)
        self.end(vm)
        # the disk alone has it all
        del files['fast']
        vm = self.boot(files, cache=False)
        self.is_whole(vm)
        self.end(vm)
        self.has_seen_all()


class PowerCut(Crash):
    def setUp(self):
        super().setUp()
        self.content = {'base': bytes(SIZE), 'fast': bytes(FAST_SIZE)}
        self.lost = dict.fromkeys(self.content, 0)

    def plug_in(self):
        """Disks with the present content, and how to reach them."""
        self.power = Power()
        self.disks, options = {}, {}
        for name, content in self.content.items():
            path = self.path(f'{name}.sock')
            self.disks[name] = Disk(self.power, path, content)
            self.addCleanup(self.disks[name].close)
            options[name] = {'driver': 'nbd', 'server': {
                'type': 'unix', 'path': path}}
        return options

    def unplug(self):
        for name, disk in self.disks.items():
            disk.close()
            os.unlink(self.path(f'{name}.sock'))

    def cut(self, device, early):
        vm = self.boot(self.plug_in())
        self.go_far(vm, early)
        self.power.cut(self.disks[device],
                       random.choice(((WRITE, ZERO), (FLUSH,))),
                       random.randrange(1, 50), guest.WAIT_S)
        self.kill(vm)
        self.unplug()
        if early:
            print('cut in a recovery')
        for _ in range(OUTCOMES):
            self.draw()
            self.check()
        self.draw()
        print(f'sectors lost: {self.lost}, told of {self.told}')

    def draw(self):
        """What the cut may have left."""
        for name, disk in self.disks.items():
            self.content[name], lost = disk.outcome()
            self.lost[name] += lost

    def read_all(self):
        """What a guest would see of the disk, as a file."""
        for name, content in self.content.items():
            with open(self.path(name), 'wb') as f:
                f.write(content)
        sock = self.path('nbd')
        daemon = Process(
            'qemu-storage-daemon',
            *[arg for name in self.content for arg in (
                '--blockdev', blockdev(driver='file', node_name=name,
                                       filename=self.path(name)))],
            '--blockdev', self.cache(), '--nbd-server',
            f'addr.type=unix,addr.path={sock}', '--export',
            'nbd,id=exp,node-name=disk,name=disk', tests=False)
        self.addCleanup(daemon.kill)
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///disk?socket={sock}')
        with open(self.path('image'), 'wb') as f:
            for offset in range(0, SIZE, 1 << 20):
                f.write(client.pread(1 << 20, offset))
        client.shutdown()
        daemon.quit()

    def check(self):
        self.read_all()
        imagecheck.check(self.path('image'), self.path('files'), self.told)

    def test_power_cut(self):
        for i, device in enumerate(('fast', 'base', 'fast', 'base')):
            self.cut(device, early=i == 2)
        vm = self.boot(self.plug_in())
        self.is_whole(vm)
        self.end(vm)
        self.unplug()
        self.has_seen_all()
        for name, lost in self.lost.items():
            self.assertGreater(lost, 0, name)


if __name__ == '__main__':
    guest.main('qemu-storage-daemon')
