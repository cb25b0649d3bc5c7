#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The storage daemon of a disk out of process is killed under the load of a
guest, or a plugin in it crashes, again and again: the guest goes on, and all
that it was told to be written is there."""

import json
import os
import random
import signal
import subprocess
import time
import unittest

import guest
from weirtest import BIN, BUILD, wait_for

WEIR = os.path.join(BIN, 'weir')
KILLS = int(os.environ.get('WEIR_DAEMON_KILLS', '3'))
CACHE = '''name: cached
run: out-of-process
filters:
  - weir-cache: {cache-file: "create:16M:%s/${disk}.cache"}
'''
PLUGINS = os.path.join(os.environ.get('WEIR_MESON_BUILD') or
                       os.path.join(BUILD, 'weir'), 'tests', 'plugins')
CRASH = '''name: crash
run: out-of-process
filters:
  - weir-plugin:
      plugin: %s/crash.so
      options: {when: "%s/when"}
'''
BARE = '''name: bare
run: out-of-process
filters: []
'''
SCRIPT = '''
report $(cat /sys/block/vda/queue/write_cache)
weir-verify --threads 8 --seconds 100000 --direct --flush-every 16 \\
    --zero-percent 3 --discard-percent 3 --interval 100 --final-check \\
    /dev/vda >/tmp/result &
wait_host working
kill $!
wait $!
status=$?
report verified $(cat /tmp/result)
exit $status
'''


class OutOfProcess(guest.TestCase):
    def boot(self, name, text, fmt='raw'):
        os.makedirs(self.path('policies'), exist_ok=True)
        with open(self.path(f'policies/{name}.yaml'), 'w') as f:
            f.write(text)
        disk = self.image('disk', 64 << 20, fmt)
        vm = self.start(SCRIPT, launcher=[
            WEIR, 'run', '--policies', self.path('policies'), '--name', 'vm',
            '--runtime-dir', self.path('run'), '--disk',
            f'file={disk},format={fmt},policy={name},iothread=io', '--'])
        # without that it would not flush
        vm.report('write back')
        vm.wait_for('working')
        return vm

    def daemon(self):
        with open(self.path('run/vm.daemon')) as f:
            return json.load(f)

    def end(self, pid):
        os.kill(pid, signal.SIGKILL)

    def kill(self):
        """End the daemon, and wait until there is another one."""
        old = self.daemon()
        self.end(old['pid'])
        wait_for(lambda: self.daemon()['restarts'] > old['restarts'] and
                 self.daemon()['pid'] > 0, 'another daemon')

    def survive(self, name, text, fmt='raw'):
        vm = self.boot(name, text, fmt)
        for _ in range(KILLS):
            time.sleep(random.uniform(1, 1.3))
            self.kill()
            # one that is stopped keeps its requests as well
            vm.cmd('stop')
            vm.cmd('cont')
        time.sleep(0.7)
        self.assertEqual(self.daemon()['restarts'], KILLS)
        status = subprocess.run(
            [WEIR, 'status', '--runtime-dir', self.path('run')], check=True,
            stdout=subprocess.PIPE, text=True)
        vm.go_on()
        result = json.loads(vm.report('verified (.*)')[1])
        self.finish(vm)
        self.assertEqual(result['errors'], 0, result)
        for kind in ('read', 'write', 'write_zeroes', 'flush',
                     'checked_blocks'):
            self.assertGreater(result[kind], 0, result)
        self.assertEqual(os.listdir(self.path('run')), [])
        print(f'{KILLS} kills, {result["operations"]} requests')
        return status.stdout

    def test_bare(self):
        self.survive('bare', BARE)

    def test_cache(self):
        self.survive('cached', CACHE % self.dir)

    def test_plugin_that_crashes(self):
        """In the middle of a write of the guest."""
        def end(_):
            with open(self.path('when'), 'wb'):
                pass
        self.end = end
        self.assertIn('signal 11', self.survive(
            'crash', CRASH % (PLUGINS, self.dir)))
        self.assertFalse(os.path.exists(self.path('when')))

    @unittest.skipUnless('WEIR_DAEMON_KILLS' in os.environ, 'takes longer')
    def test_qcow2(self):
        self.survive('bare', BARE, 'qcow2')


if __name__ == '__main__':
    guest.main('weir', 'qemu-storage-daemon')
