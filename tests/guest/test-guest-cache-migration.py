#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a guest that writes and verifies: the disk is shared, and
has weir-cache on each side, over a file of that side."""

import json
import os

import guest
from weirtest import blockdev, statistics, wait_for

SIZE = 64 << 20
FAST_SIZE = 24 << 20
MEMORY_MB = 256
SCRIPT = '''
weir-verify --threads 4 --seconds 100000 --direct --flush-every 16 \\
    --zero-percent 3 --discard-percent 3 --final-check /dev/vda \\
    >/tmp/result &
wait_host working
kill $!
wait $!
status=$?
report verified $(cat /tmp/result)
exit $status
'''
# nothing is written back on its own
LAZY = {'idle': 0, 'dirty-age': 0, 'dirty-high': 95, 'dirty-low': 90}


class Migration(guest.TestCase):
    iothreads = 0
    options = LAZY

    def setUp(self):
        super().setUp()
        self.base = self.image('base', SIZE)

    def device(self):
        device = {'driver': 'virtio-blk-pci', 'drive': 'disk',
                  'num-queues': 2}
        if self.iothreads:
            device['iothread-vq-mapping'] = [
                {'iothread': f'io{i}'} for i in range(self.iothreads)]
        return json.dumps(device)

    def side(self, name, *args):
        """A guest, or one that is still to come."""
        fast = self.path(f'fast-{name}')
        if not os.path.exists(fast):
            self.image(os.path.basename(fast), FAST_SIZE)
        iothreads = [arg for i in range(self.iothreads)
                     for arg in ('-object', f'iothread,id=io{i}')]
        vm = self.start(
            SCRIPT, *iothreads, '-blockdev',
            blockdev(driver='file', filename=self.base, node_name='base',
                     discard='unmap'),
            '-blockdev', blockdev(driver='file', filename=fast,
                                  node_name='fast', discard='unmap'),
            '-blockdev', json.dumps({
                'driver': 'weir-cache', 'node-name': 'disk', 'file': 'base',
                'cache-file': 'fast', **self.options}),
            '-device', self.device(), *args, memory_mb=MEMORY_MB)
        vm.name = name
        return vm

    def target(self, name):
        vm = self.side(name, '-incoming', 'defer')
        vm.cmd('migrate-incoming', uri='unix:' + vm.path('migration'))
        return vm

    def info(self, vm):
        info, = vm.cmd('query-weir', {'node-name': 'disk'})
        return info

    def writes(self, vm):
        return statistics(self.info(vm))['write']['requests']

    def work(self, vm):
        """Wait until much is dirty."""
        before = self.writes(vm)
        wait_for(lambda: self.writes(vm) > before + 200 and
                 self.info(vm)['dirty'] > 2 << 20, 'the guest writes')

    def status(self, vm):
        return vm.cmd('query-migrate').get('status')

    def begin(self, source, target):
        source.cmd('migrate', uri='unix:' + target.path('migration'))

    def migrate(self, source, target):
        self.begin(source, target)
        wait_for(lambda: self.status(source) in ('completed', 'failed'),
                 'the migration ends')
        self.assertEqual(self.status(source), 'completed', source.log())
        wait_for(lambda: target.cmd('query-status')['status'] == 'running',
                 'the target runs')
        report = source.cmd('query-migrate')
        print(f'{source.name} -> {target.name}: {report["total-time"]} ms, '
              f'down {report["downtime"]} ms')
        source.cmd('quit')
        source.process.wait(guest.WAIT_S)
        self.assertEqual(source.process.returncode, 0, source.log())
        source.kill()

    def result(self, vm):
        vm.go_on()
        result = json.loads(vm.report('verified (.*)')[1])
        self.finish(vm)
        self.assertEqual(result['errors'], 0, result)
        self.assertGreater(result['checked_blocks'], 1000)
        print(f'{result["operations"]} requests, longest gap '
              f'{result["longest_stall_us"] / 1e3:.0f} ms')

    def there_and_back(self):
        a = self.side('a')
        a.wait_for('working')
        self.work(a)
        for name in ('b', 'a'):
            b = self.target(name)
            self.assertEqual(self.info(b)['size'], 0)
            self.work(a)
            self.migrate(a, b)
            self.work(b)
            a = b
        self.assertEqual(self.info(a)['corrupt-clean'], 0)
        self.assertEqual(self.info(a)['corrupt-dirty'], 0)
        self.result(a)

    def test_there_and_back(self):
        """So slow that much is dirty when the machine stops."""
        self.options = {**LAZY, 'write-back-rate': 4096}
        self.there_and_back()

    def test_there_and_back_iothreads(self):
        self.iothreads = 2
        self.there_and_back()

    def test_written_through_before(self):
        self.iothreads = 1
        a = self.side('a')
        a.wait_for('working')
        self.work(a)
        a.cmd('blockdev-reopen', {'options': [{
            'driver': 'weir-cache', 'node-name': 'disk', 'file': 'base',
            'cache-file': 'fast', **LAZY, 'mode': 'write-through'}]})
        wait_for(lambda: self.info(a)['dirty'] == 0, 'nothing is dirty')
        b = self.target('b')
        self.migrate(a, b)
        self.work(b)
        self.result(b)

    def test_target_dies(self):
        """The guest goes on where it was, and moves later."""
        a = self.side('a')
        a.wait_for('working')
        self.work(a)
        for _ in range(2):
            b = self.target('b')
            a.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'pause-before-switchover', 'state': True}])
            self.begin(a, b)
            wait_for(lambda: self.status(a) == 'pre-switchover',
                     'all but the devices is copied')
            b.kill()
            a.cmd('migrate-continue', state='pre-switchover')
            wait_for(lambda: self.status(a) == 'failed', 'it fails')
            self.work(a)
        a.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': False}])
        b = self.target('c')
        self.migrate(a, b)
        self.work(b)
        self.result(b)


if __name__ == '__main__':
    guest.main()
