#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Attach and detach weir-inspect while a guest writes and verifies; or, with
its file in the environment, the plugin "probe" of the suite in its modes."""

import json
import os
import statistics
import time

import guest
from weirtest import Process, blockdev, graph

# What the device named by the kernel as the argument does meanwhile.
SCRIPT = '''
weir-verify --threads 8 --seconds 100000 --direct --flush-every 16 \\
    --zero-percent 3 --discard-percent 3 --interval 100 --final-check \\
    /dev/%s >/tmp/result &
wait_host working
kill $!
wait $!
status=$?
report verified $(cat /tmp/result)
exit $status
'''
# at the median, beyond what the machine shows without attaching
STALL_S = 0.1
CYCLES = int(os.environ.get('WEIR_ATTACH_CYCLES', '200'))
TRAFFIC_S = 0.01
PLUGIN = os.environ.get('WEIR_ATTACH_PLUGIN')
MODES = ('hold', 'pass', 'forward', 'sleep', 'pool')


def a_filter(number):
    if not PLUGIN:
        return {'driver': 'weir-inspect'}
    return {'driver': 'weir-plugin', 'plugin': PLUGIN, 'options': {
        'mode': MODES[number % len(MODES)], 'hold-ms': 2}}


class Attach(guest.TestCase):
    def boot(self, name, *devices):
        path = self.image('disk', 128 << 20)
        vm = self.start(
            SCRIPT % name,
            '-blockdev', blockdev(driver='file', filename=path,
                                  node_name='storage', discard='unmap'),
            '-blockdev', blockdev(driver='raw', file='storage',
                                  node_name='format', discard='unmap'),
            *devices)
        vm.wait_for('working')
        return vm

    def cycle(self, host, below, number):
        """Attach and detach once; (seconds, seconds, requests seen).

        host: the process that has the disk
        """
        begin = time.monotonic()
        host.cmd('weir-attach', {
            'node-name': below,
            'filter': {**a_filter(number), 'node-name': 'filter',
                       'file': below}})
        attached = time.monotonic()
        time.sleep(TRAFFIC_S)
        info, = host.cmd('query-weir')
        self.assertEqual(info['place'],
                         'disk' if below == 'format' else 'storage')
        seen = sum(s['requests'] + s['in-flight'] for s in info['statistics'])
        detach = time.monotonic()
        host.cmd('weir-detach', {'node-name': 'filter'})
        return attached - begin, time.monotonic() - detach, seen

    def cycles(self, host, count):
        before = graph(host)
        attach_s, detach_s, seen = [], [], 0
        for i in range(count):
            a, d, requests = self.cycle(host, ('format', 'storage')[i % 2],
                                           i)
            attach_s.append(a)
            detach_s.append(d)
            seen += requests
            if i % 50 == 0:
                self.assertEqual(graph(host), before)
            time.sleep(TRAFFIC_S)
        self.assertEqual(graph(host), before)
        self.assertEqual(host.cmd('query-weir'), [])
        # the guest did work through the filters
        self.assertGreater(seen, count)
        return attach_s, detach_s

    def result(self, vm):
        vm.go_on()
        result = json.loads(vm.report('verified (.*)')[1])
        self.finish(vm)
        self.assertEqual(result['errors'], 0, result)
        for kind in ('read', 'write', 'write_zeroes', 'discard', 'flush',
                     'checked_blocks'):
            self.assertGreater(result[kind], 0, result)
        return result

    def work(self, count, *machine):
        vm = self.boot(*machine)
        return self.measure(vm, vm, count)

    def measure(self, vm, host, count):
        attach_s, detach_s = self.cycles(host, count)
        result = self.result(vm)
        stall_s = result['interval_max_median_us'] / 1e6
        print(f'{count} cycles: median attach '
              f'{statistics.median(attach_s) * 1e3:.1f} ms, detach '
              f'{statistics.median(detach_s) * 1e3:.1f} ms; guest: '
              f'{result["operations"]} requests, longest of 100 ms: '
              f'median {stall_s * 1e3:.1f} ms')
        return attach_s, detach_s, stall_s

    def rest_s(self, *machine):
        """The longest latency of 100 ms, at the median, without attaching."""
        vm = self.boot(*machine)
        time.sleep(5)
        return self.result(vm)['interval_max_median_us'] / 1e6

    def test_several_queues_each_with_an_iothread(self):
        machine = ['vda', '-object', 'iothread,id=io0',
                   '-object', 'iothread,id=io1', '-device', json.dumps({
                       'driver': 'virtio-blk-pci', 'drive': 'format',
                       'num-queues': 2, 'iothread-vq-mapping': [
                           {'iothread': 'io0'}, {'iothread': 'io1'}]})]
        rest_s = self.rest_s(*machine)
        attach_s, detach_s, stall_s = self.work(CYCLES, *machine)
        if PLUGIN:
            return                      # it makes the guest wait
        for times_s in (attach_s, detach_s):
            self.assertLess(statistics.median(times_s), STALL_S + rest_s)
        self.assertLess(stall_s, STALL_S + rest_s)

    def test_iothread(self):
        self.work(60, 'vda', '-object', 'iothread,id=io0', '-device',
                  'virtio-blk-pci,drive=format,num-queues=2,iothread=io0')

    def test_main_loop(self):
        self.work(60, 'vda', '-device',
                  'virtio-blk-pci,drive=format,num-queues=2')

    def test_scsi(self):
        self.work(60, 'sda', '-object', 'iothread,id=io0', '-device',
                  'virtio-scsi-pci,num_queues=2,iothread=io0', '-device',
                  'scsi-hd,drive=format')

    def test_vhost_user_blk(self):
        """The disk is in a storage daemon, and so are the filters."""
        sock = self.path('vhost-user')
        daemon = Process(
            'qemu-storage-daemon', '--object', 'iothread,id=io0',
            '--blockdev', blockdev(
                driver='file', filename=self.image('disk', 128 << 20),
                node_name='storage', discard='unmap'),
            '--blockdev', blockdev(driver='raw', file='storage',
                                   node_name='format', discard='unmap'),
            '--export', 'vhost-user-blk,id=exp,node-name=format,writable=on,'
            f'num-queues=2,iothread=io0,addr.type=unix,addr.path={sock}',
            tests=False)
        self.addCleanup(daemon.kill)
        vm = self.start(
            SCRIPT % 'vda', '-object',
            'memory-backend-memfd,id=memory,size=512M,share=on', '-machine',
            'memory-backend=memory', '-chardev', f'socket,id=vu,path={sock}',
            '-device', 'vhost-user-blk-pci,chardev=vu,num-queues=2')
        vm.wait_for('working')
        self.measure(vm, daemon, 60)
        daemon.quit()


if __name__ == '__main__':
    guest.main()
