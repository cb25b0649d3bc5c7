#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/disaster-recovery.md: all its commands, in order, as they stand there;
with something written to the disk between them."""

import glob
import os
import signal
import socket
import subprocess
import unittest

from cachetest import MIB, nbd_connect
from page import steps
from weirtest import BIN, QMP, SOURCE, TestCase, main, wait_for

RUNBOOK = os.path.join(SOURCE, 'docs', 'disaster-recovery.md')
DEVICE = '/machine/peripheral-anon/device[0]/virtio-backend'
GUARD_S = 120


class Runbook(TestCase):
    def setUp(self):
        super().setUp()
        if not os.path.exists(os.path.join(BIN, 'qemu-system-x86_64')):
            raise unittest.SkipTest('this build has no emulator')
        self.addCleanup(self.end_daemons)

    def end_daemons(self):
        for path in glob.glob(self.path('*.pid')):
            with open(path) as f:
                pid = int(f.read())
            try:
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: not os.path.exists(f'/proc/{pid}'), path)
            except ProcessLookupError:
                pass

    def run_block(self, commands):
        result = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', commands], cwd=self.dir,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=GUARD_S, check=False,
            env={**os.environ, 'PATH': BIN + ':' + os.environ['PATH']})
        self.assertEqual(result.returncode, 0, commands + result.stdout)
        return result.stdout

    def qmp(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path(name + '.qmp'))
        return QMP(sock)

    def write(self, vm, pattern, offset_mib):
        """As the guest would."""
        for command in f'write -P {pattern} {offset_mib}M 1M', 'flush':
            vm.cmd('human-monitor-command', {
                'command-line': f'qemu-io -d {DEVICE} "{command}"'})

    def wait_until_sent(self, vm):
        def sent():
            info, = vm.cmd('query-weir', {'node-name': 'disk0'})
            return info['status'] == 'streaming' and not info['queued-bytes']
        wait_for(sent, 'the log')

    def is_on(self, path, pattern, offset_mib):
        with open(self.path(path), 'rb') as f:
            f.seek(offset_mib * MIB)
            self.assertEqual(f.read(MIB), bytes([pattern]) * MIB)

    def test_as_written(self):
        vm = None
        for heading, found in steps(RUNBOOK).items():
            if 'disaster' in heading:
                self.wait_until_sent(vm)
                self.lose_a(vm)
            for i, step in enumerate(found):
                output = self.run_block(step.commands)
                if heading.startswith('On A'):
                    vm = self.qmp('vm')
                    self.wait_until_sent(vm)
                    self.write(vm, 17, 1)
                    self.wait_until_sent(vm)
                elif heading.startswith('Watch'):
                    self.assertIn('EPOCH', output)
                elif heading.startswith('Test') and i == 0:
                    self.try_test(vm)
                elif heading.startswith('The disaster') and i == 0:
                    self.assertIn('with its sidecar', output)
                elif heading.startswith('The disaster') and i == 1:
                    self.write_on_b(68, 5)
                elif heading.startswith('Back') and i == 1:
                    self.write_on_b(85, 7)
                elif heading.startswith('Back') and i == 2:
                    self.are_back()
                elif heading.startswith('Back') and i == 4:
                    vm = self.qmp('vm')
                    self.wait_until_sent(vm)

    def write_on_b(self, pattern, offset_mib):
        """The socket has one client at a time, and the page is to be one."""
        vm = self.qmp('vm-b')
        self.write(vm, pattern, offset_mib)
        vm.close()

    def lose_a(self, vm):
        """With something on its disk that was never replicated."""
        with open(self.path('keeper.pid')) as f:
            keeper = int(f.read())
        with open(self.path('vm.pid')) as f:
            pid = int(f.read())
        os.kill(keeper, signal.SIGSTOP)
        self.write(vm, 99, 9)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f'/proc/{pid}'), 'the end of A')
        os.kill(keeper, signal.SIGCONT)
        self.is_on('disk0.img', 99, 9)

    def are_back(self):
        for name in 'disk0-base.img', 'disk0.img':
            for pattern, offset_mib in ((17, 1), (0, 2), (51, 3), (68, 5),
                                        (85, 7), (0, 9)):
                self.is_on(name, pattern, offset_mib)

    def try_test(self, vm):
        """Both write meanwhile, neither sees the other."""
        test = self.qmp('test')
        self.write(test, 34, 2)
        self.write(vm, 51, 3)
        client = nbd_connect(self.path('keeper.nbd'), 'test')
        for pattern, offset_mib in ((17, 1), (34, 2), (0, 3)):
            self.assertEqual(client.pread(MIB, offset_mib * MIB),
                             bytes([pattern]) * MIB)
        client.shutdown()
        self.is_on('disk0.img', 51, 3)
        self.is_on('disk0.img', 0, 2)


if __name__ == '__main__':
    main()
