#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir run boots a guest whose disk is under a policy."""

import json
import os
import signal
import subprocess

import guest
from weirtest import BIN

WEIR = os.path.join(BIN, 'weir')
POLICY = '''name: observe
description: See what the disk is used for.
version: 1
filters:
  - weir-inspect:
      entropy: true
    place: {place}
'''
SCRIPT = '''
weir-verify --threads 4 --operations 600 --direct --final-check /dev/%s \\
    >/tmp/result || exit 1
wait_host done
'''


class Policy(guest.TestCase):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path('policies'))

    def weir(self, *args, status=0):
        result = subprocess.run([WEIR, *args], text=True, timeout=60,
                                stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        self.assertEqual(result.returncode, status, result.stderr)
        return result.stdout

    def of_vm(self, command, *args, status=0):
        """The output of "weir status" or "weir inspect" about the VM."""
        return self.weir(command, '--runtime-dir', self.path('run'), *args,
                         'vm', status=status)

    def run_vm(self, script, *args, device='virtio-blk', place='storage',
               fmt='raw'):
        """A guest started by weir run."""
        with open(self.path('policies/observe.yaml'), 'w') as f:
            f.write(POLICY.format(place=place))
        disk = self.image('disk', 64 << 20, fmt)
        return self.start(script, *args, launcher=[
            WEIR, 'run', '--policies', self.path('policies'), '--name', 'vm',
            '--runtime-dir', self.path('run'), '--disk',
            f'file={disk},format={fmt},policy=observe,device={device}', '--'])

    def status(self, state, status=0):
        disk, = json.loads(self.of_vm('status', '--json', status=status))
        self.assertEqual(disk['state'], state)
        self.assertEqual(disk['policy'], 'observe')
        self.assertIn(state, self.of_vm('status', status=status))

    def inspect(self, place):
        """What weir inspect tells is what QEMU tells, and is plausible."""
        seen, = json.loads(self.of_vm('inspect', '--json'))
        info = seen['filter']
        self.assertEqual((info['state'], info['place']), ('ok', place))
        written = sum(s['bytes'] for s in info['statistics']
                      if s['operation'] == 'write')
        self.assertGreater(written, 200 * 4096)
        self.assertGreater(seen['recommended-cache-size'], 0)
        text = self.of_vm('inspect')
        for word in ('write', 'flush', 'working set', 'recommended cache',
                     'entropy'):
            self.assertIn(word, text)

    def comply(self, disk, **kwargs):
        vm = self.run_vm(SCRIPT % disk, **kwargs)
        vm.wait_for('done')
        self.status('compliant')
        self.inspect(kwargs.get('place', 'storage'))
        vm.go_on()
        self.finish(vm)
        self.assertEqual(os.listdir(self.path('run')), [])

    def test_blk_filter_above_storage(self):
        self.comply('vda')

    def test_scsi_filter_on_top_of_qcow2(self):
        self.comply('sda', device='virtio-scsi', place='disk', fmt='qcow2')

    def test_detached_filter_is_noticed(self):
        vm = self.run_vm('wait_host detached\nwait_host attached\n')
        vm.wait_for('detached')
        info, = vm.cmd('query-weir')
        vm.cmd('weir-detach', {'node-name': info['node-name']})
        self.status('non-compliant', status=3)
        vm.cmd('weir-attach', {'node-name': info['child'], 'filter': {
            'driver': 'weir-inspect', 'node-name': info['node-name'],
            'file': info['child'], 'entropy': True}})
        self.status('compliant')
        vm.go_on()
        vm.wait_for('attached')
        vm.go_on()
        self.finish(vm)

    def test_exit_code_of_qemu(self):
        vm = self.run_vm('wait_host never\n', '-device',
                         'isa-debug-exit,iobase=0xf4,iosize=1')
        vm.wait_for('never')
        # the device ends QEMU with twice that and 1
        vm.hmp('o /b 0xf4 21')
        vm.process.wait(guest.WAIT_S)
        self.assertEqual(vm.process.returncode, 43, vm.log())
        self.assertEqual(os.listdir(self.path('run')), [])

    def test_qemu_that_is_killed(self):
        vm = self.run_vm('wait_host never\n')
        vm.wait_for('never')
        with open(self.path('run/vm.json')) as f:
            os.kill(json.load(f)['pid'], signal.SIGKILL)
        vm.process.wait(guest.WAIT_S)
        self.assertEqual(vm.process.returncode, 128 + signal.SIGKILL)
        self.assertEqual(os.listdir(self.path('run')), [])

    def test_signal_ends_qemu(self):
        vm = self.run_vm('wait_host never\n')
        vm.wait_for('never')
        vm.process.send_signal(signal.SIGTERM)
        vm.process.wait(guest.WAIT_S)
        # QEMU ends in an orderly way
        self.assertEqual(vm.process.returncode, 0, vm.log())
        self.assertEqual(os.listdir(self.path('run')), [])


if __name__ == '__main__':
    guest.main('weir')
