#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-cache below the disk of a guest that writes and verifies: several
queues with an I/O thread each, attach and detach, changes of the mode."""

import json

import guest
from weirtest import Process, blockdev, graph, statistics, wait_for

SIZE = 64 << 20
FAST_SIZE = 8 << 20                     # the guest uses more
CYCLES = 15
SCRIPT = '''
weir-verify --threads 8 --seconds 100000 --direct --flush-every 16 \\
    --zero-percent 3 --discard-percent 3 --final-check /dev/vda \\
    >/tmp/result &
wait_host working
kill $!
wait $!
status=$?
report verified $(cat /tmp/result)
exit $status
'''
TWO_QUEUES = {
    'driver': 'virtio-blk-pci', 'num-queues': 2, 'iothread-vq-mapping': [
        {'iothread': 'io0'}, {'iothread': 'io1'}]}
CACHE = {'driver': 'weir-cache', 'node-name': 'cache', 'file': 'disk',
         'cache-file': 'fast'}


class Cache(guest.TestCase):
    def nodes(self, dash):
        """Arguments for the two devices."""
        return [dash + 'object', 'iothread,id=io0',
                dash + 'object', 'iothread,id=io1',
                dash + 'blockdev', blockdev(
                    driver='file', node_name='disk', discard='unmap',
                    filename=self.image('disk', SIZE)),
                dash + 'blockdev', blockdev(
                    driver='file', node_name='fast', discard='unmap',
                    filename=self.image('fast', FAST_SIZE))]

    def boot(self, device, cached=True):
        cache = ['-blockdev', json.dumps(CACHE)] if cached else []
        vm = self.start(SCRIPT, *self.nodes('-'), *cache, '-device',
                        json.dumps({'drive': 'cache' if cached else 'disk',
                                    **device}))
        vm.wait_for('working')
        return vm

    def info(self, host):
        info, = host.cmd('query-weir', {'node-name': 'cache'})
        return info

    def requests(self, host):
        """Reads and writes that are through; a detached cache forgets."""
        seen = statistics(self.info(host))
        return min(seen['read']['requests'], seen['write']['requests'])

    def work(self, host):
        before = self.requests(host)
        wait_for(lambda: self.requests(host) > before + 50, 'the guest works')

    def change_modes(self, host):
        """Also the limits, so that it has something to do in each mode."""
        for mode in ('write-through', 'write-around', 'read-only',
                     'write-back') * 2:
            host.cmd('blockdev-reopen', {'options': [{
                **CACHE, 'mode': mode, 'dirty-high': 20, 'dirty-low': 5}]})
            self.work(host)
            if mode != 'write-back':
                wait_for(lambda: self.info(host)['dirty'] == 0,
                         'nothing is dirty')
        for key in ('evictions', 'written-back', 'read-hits', 'bypassed'):
            wait_for(lambda: self.info(host)[key] > 0, key)
        info = self.info(host)
        self.assertEqual(info['state'], 'ok')
        self.assertEqual(info['corrupt-clean'] + info['corrupt-dirty'], 0)

    def attach_and_detach(self, host):
        before = graph(host)
        written_back = 0
        for _ in range(CYCLES):
            host.cmd('weir-attach', {'node-name': 'disk', 'filter': CACHE})
            self.work(host)
            dirty = self.info(host)['dirty']
            host.cmd('weir-detach', {'node-name': 'cache'})
            self.assertEqual(graph(host), before)
            written_back += dirty
        self.assertGreater(written_back, 0)

    def result(self, vm):
        vm.go_on()
        result = json.loads(vm.report('verified (.*)')[1])
        self.finish(vm)
        self.assertEqual(result['errors'], 0, result)
        for kind in ('read', 'write', 'write_zeroes', 'discard', 'flush'):
            self.assertGreater(result[kind], 0, result)
        self.assertGreater(result['checked_blocks'], 1000)
        print(f'{result["operations"]} requests, longest gap '
              f'{result["longest_stall_us"] / 1e3:.0f} ms')

    def test_modes_change_under_load(self):
        vm = self.boot(TWO_QUEUES)
        self.change_modes(vm)
        self.result(vm)

    def test_attach_and_detach_under_load(self):
        vm = self.boot(TWO_QUEUES, cached=False)
        self.attach_and_detach(vm)
        self.result(vm)

    def test_vhost_user_blk(self):
        """The disk and its cache are in a storage daemon."""
        sock = self.path('vhost-user')
        daemon = Process(
            'qemu-storage-daemon', *self.nodes('--'), '--blockdev',
            json.dumps(CACHE), '--export',
            'vhost-user-blk,id=exp,node-name=cache,writable=on,num-queues=2,'
            f'iothread=io0,addr.type=unix,addr.path={sock}', tests=False)
        self.addCleanup(daemon.kill)
        vm = self.start(
            SCRIPT, '-object',
            'memory-backend-memfd,id=memory,size=512M,share=on', '-machine',
            'memory-backend=memory', '-chardev', f'socket,id=vu,path={sock}',
            '-device', 'vhost-user-blk-pci,chardev=vu,num-queues=2')
        vm.wait_for('working')
        self.change_modes(daemon)
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        self.attach_and_detach(daemon)
        self.result(vm)
        daemon.quit()


if __name__ == '__main__':
    guest.main('qemu-storage-daemon')
