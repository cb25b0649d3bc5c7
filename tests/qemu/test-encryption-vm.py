#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-encryption in the emulator: below devices, opened while it runs, and
over a live migration."""

import json
import os
import socket
import threading
import time

from lukstest import Image, cryptsetup
from plugindisk import PLUGINS
from weirtest import TestCase, main, run, wait_for

SIZE = 16 << 20
# about a second of one core, and of 256 MiB
SLOW = ['--pbkdf', 'argon2id', '--pbkdf-force-iterations', '8',
        '--pbkdf-memory', '262144', '--pbkdf-parallel', '1']


class EncryptionVM(TestCase):
    def make(self, **kwargs):
        return Image(self.dir, SIZE, **kwargs)

    def nodes(self, image):
        return [{'driver': 'file', 'node-name': 'file',
                 'filename': image.path},
                {'driver': 'weir-encryption', 'node-name': 'disk',
                 'file': 'file', 'key-secret': 'pass0'}]

    def boot(self, image, *args, iothread=False):
        nodes = [arg for node in self.nodes(image)
                 for arg in ('-blockdev', json.dumps(node))]
        return self.vm('-object', f'secret,id=pass0,file={image.key_file}',
                       '-object', 'iothread,id=io0', *nodes, '-device',
                       'virtio-blk-pci,drive=disk,id=vd0,share-rw=on' +
                       (',iothread=io0' if iothread else ''), *args)

    def io(self, vm, command, node='disk'):
        out = vm.cmd('human-monitor-command', {
            'command-line': f'qemu-io {node} "{command}"'})
        self.assertNotIn('error', out.lower())
        self.assertNotIn('failed', out.lower())
        return out

    def test_devices(self):
        for iothread in (False, True):
            image = self.make(sector=4096)
            vm = self.boot(image, iothread=iothread)
            self.io(vm, 'write -P 17 1M 1M')
            self.io(vm, 'read -P 17 1M 1M')
            vm.quit()
            self.assertEqual(image.plain(1 << 20, 1 << 20),
                             b'\x11' * (1 << 20))

    def savevm(self, vm):
        return vm.cmd('human-monitor-command', {'command-line': 'savevm s'})

    def test_memory_of_the_machine(self):
        """A snapshot with it is refused: it would be there in plain text."""
        image = self.make()
        over = self.image('over.qcow2', size=32 << 20, fmt='qcow2')
        run('qemu-img', 'convert', '-n', '-O', 'qcow2', '-f', 'raw',
            image.path, over)
        for driver, options, said in (
                ('weir-encryption', {'key-secret': 'pass0'}, 'Error'),
                ('weir-plugin', {'plugin': f'{PLUGINS}/mask.so'}, 'Error'),
                ('weir-plugin', {'plugin': f'{PLUGINS}/probe.so'}, '')):
            vm = self.vm(
                '-object', f'secret,id=pass0,file={image.key_file}',
                '-blockdev', json.dumps({
                    'driver': 'qcow2', 'node-name': 'fmt', 'file': {
                        'driver': 'file', 'filename': over}}),
                '-blockdev', json.dumps({
                    'driver': driver, 'node-name': 'disk', 'file': 'fmt',
                    **options}),
                '-device', 'virtio-blk-pci,drive=disk')
            self.assertIn(said, self.savevm(vm))
            vm.quit()
            with open(over, 'rb') as f:
                self.assertEqual(b'QEVM' in f.read(), not said)

    def test_opened_while_it_runs(self):
        """Two that take their time, one after the other, and one that is
        refused."""
        image = self.make()
        vm = self.boot(image)
        other = self.make(kdf=SLOW, name='other')
        for name in ('late0', 'late1'):
            vm.cmd('blockdev-add', {
                'driver': 'weir-encryption', 'node-name': name,
                'key-secret': 'pass0', 'read-only': True,
                'file': {'driver': 'file', 'filename': other.path,
                         'read-only': True}})
        self.assertFails('keyslot 0 needs 256 MiB of memory', vm.cmd,
                         'blockdev-add', {
                             'driver': 'weir-encryption', 'node-name': 'no',
                             'key-secret': 'pass0', 'max-kdf-memory': 1 << 20,
                             'read-only': True,
                             'file': {'driver': 'file', 'read-only': True,
                                      'filename': other.path}})
        self.io(vm, 'read 0 4k')
        vm.quit()

    def test_processor_goes_on_while_the_key_is_derived(self):
        """The big lock is free: a processor gets it for each access to a
        device, which is what the loop of this little guest does."""
        image = self.make()
        other = self.make(kdf=SLOW, name='other')
        # cli; mov dx, 0x402; l: out dx, al; jmp l
        code = bytes.fromhex('fa' 'ba0204' 'ee' 'ebfd')
        boot = code.ljust(65536 - 16, b'\x90')
        with open(self.path('bios'), 'wb') as f:
            # reset vector: jump to the first byte of the segment
            f.write(boot + bytes.fromhex('ea000000f0').ljust(16, b'\x90'))
        vm = self.start(
            'qemu-system-x86_64', '-nodefaults', '-no-user-config',
            '-display', 'none', '-machine', 'q35', '-accel', 'tcg', '-bios',
            self.path('bios'), '-object',
            f'secret,id=pass0,file={image.key_file}', '-chardev',
            f'file,id=debug,path={self.path("debug")}', '-device',
            'isa-debugcon,iobase=0x402,chardev=debug', tests=False)

        def written():
            with open(self.path('debug'), 'rb') as f:
                return f.seek(0, 2)

        wait_for(lambda: written() > 100, 'the guest runs')
        counts, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                counts.append(written())
                time.sleep(0.02)

        thread = threading.Thread(target=watch)
        thread.start()
        vm.cmd('blockdev-add', {
            'driver': 'weir-encryption', 'node-name': 'disk',
            'key-secret': 'pass0', 'file': {'driver': 'file',
                                            'filename': other.path}})
        stop.set()
        thread.join()
        still = sum(a == b for a, b in zip(counts, counts[1:]))
        self.assertGreater(len(counts), 10)
        self.assertLess(still, len(counts) / 2, counts)
        vm.quit()

    def test_migration(self):
        image = self.make(sector=4096)
        source = self.boot(image)
        source.cmd('cont')
        self.io(source, 'write -P 1 0 1M')
        target = self.boot(image, '-incoming', 'defer')
        target.cmd('migrate-incoming', uri=f'unix:{self.path("mig")}')
        self.io(source, 'write -P 2 512k 1M')
        source.cmd('migrate', uri=f'unix:{self.path("mig")}')
        wait_for(lambda: source.cmd('query-migrate').get('status') in
                 ('completed', 'failed'), 'migration')
        self.assertEqual(source.cmd('query-migrate')['status'], 'completed')
        wait_for(lambda: target.cmd('query-migrate').get('status') ==
                 'completed', 'arrival')
        target.cmd('cont')
        self.io(target, 'read -P 1 0 512k')
        self.io(target, 'read -P 2 512k 1M')
        self.io(target, 'write -P 3 0 4k')
        # there is one writer: the source has let go of it
        active, = [node['active'] for node in
                   source.cmd('query-named-block-nodes')
                   if node['node-name'] == 'disk']
        self.assertFalse(active)
        source.quit()
        target.quit()
        self.assertEqual(image.plain(0, 8192), b'\x03' * 4096 + b'\x01' * 4096)

    def concluded(self, process):
        jobs = process.cmd('query-jobs')
        return jobs and jobs[0]['status'] == 'concluded'

    def dismiss(self, process):
        wait_for(lambda: self.concluded(process), 'the end')
        job, = process.cmd('query-jobs')
        process.cmd('job-dismiss', id=job['id'])
        self.assertNotIn('error', job)

    def bound(self, image):
        """A disk with a detached header, which is bound to its length."""
        run('qemu-img', 'create', '-q', '-f', 'weir-encryption', '--object',
            f'secret,id=pass0,file={image.key_file}', '-o',
            'key-secret=pass0,kdf=pbkdf2,kdf-iterations=1000,header=' +
            self.path('head'), self.path('bound'), str(SIZE), tests=False)
        return '-blockdev', json.dumps({
            'driver': 'weir-encryption', 'node-name': 'bound',
            'key-secret': 'pass0',
            'file': {'driver': 'file', 'filename': self.path('bound')},
            'header': {'driver': 'file', 'filename': self.path('head')}})

    def test_resize(self):
        """In the thread of the device; the bound header follows."""
        image = self.make()
        for thread in ('', ',iothread=io0'):
            vm = self.boot(image, *self.bound(image), '-device',
                           'virtio-blk-pci,drive=bound,share-rw=on' + thread)
            for size in (2 * SIZE, 3 * SIZE, SIZE):
                vm.cmd('block_resize', {'node-name': 'bound', 'size': size})
                self.assertEqual(os.path.getsize(self.path('bound')), size)
                self.assertEqual(self.filter_info(vm, 'bound')
                                 ['bound-length'], size)
                self.io(vm, f'write -P 5 {size - 65536} 64k', 'bound')
                self.io(vm, f'read -P 5 {size - 65536} 64k', 'bound')
            vm.quit()
            self.assertIn('weir-data', cryptsetup('luksDump',
                                                  self.path('head')).stdout)

    def test_header_does_not_change_in_a_migration(self):
        """Nor does one begin while it is being changed."""
        image = self.make()
        vm = self.boot(image, *self.bound(image))
        resize = {'node-name': 'bound', 'size': 2 * SIZE}
        add = {'job-id': 'j', 'node-name': 'disk', 'new-secret': 'pass0',
               'kdf': 'pbkdf2', 'kdf-iterations': 3000000}
        uri = f'unix:{self.path("mig")}'
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(self.path('mig'))
            deaf.listen()
            vm.cmd('migrate', uri=uri)
            wait_for(lambda: vm.cmd('query-migrate').get('status') ==
                     'active', 'migration')
            self.assertFails('migration', vm.cmd, 'weir-keyslot-add', add)
            self.assertFails('while the machine migrates', vm.cmd,
                             'block_resize', resize)
            vm.cmd('migrate_cancel')
        wait_for(lambda: vm.cmd('query-migrate').get('status') in
                 ('cancelled', 'failed'), 'the end of it')
        vm.cmd('block_resize', resize)
        self.assertEqual(os.path.getsize(self.path('bound')), 2 * SIZE)
        self.assertEqual(vm.cmd('query-jobs'), [])
        vm.cmd('weir-keyslot-add', add)
        self.assertFails("is being changed by the job 'j'", vm.cmd, 'migrate',
                         {'uri': uri})
        self.dismiss(vm)
        self.assertEqual(len(self.filter_info(vm, 'disk')['key-slots']), 2)
        vm.quit()
        self.assertIn('1: luks2', cryptsetup('luksDump', image.path).stdout)

    def half_encrypted(self, key_file):
        for name, size in (('plain', SIZE), ('head', 16 << 20)):
            with open(self.path(name), 'wb') as f:
                f.truncate(size)
        daemon = self.daemon('--object', f'secret,id=pass0,file={key_file}')
        for node in self.files():
            daemon.cmd('blockdev-add', node)
        daemon.cmd('weir-encrypt', {
            'job-id': 'j', 'node-name': 'plain', 'header': 'head',
            'filter-node-name': 'crypt', 'key-secret': 'pass0', 'speed': 1,
            'hotzone-size': 65536, 'kdf': 'pbkdf2', 'kdf-iterations': 1000})
        daemon.cmd('job-cancel', id='j')
        wait_for(lambda: self.concluded(daemon), 'the end')
        daemon.quit()

    def files(self):
        return [{'driver': 'file', 'node-name': name,
                 'filename': self.path(name)} for name in ('plain', 'head')]

    def test_job_that_gets_no_permission(self):
        """A device writes to the disk below, and shares that with nobody."""
        image = self.make()
        self.half_encrypted(image.key_file)
        files = [arg for node in self.files()
                 for arg in ('-blockdev', json.dumps(node))]
        vm = self.boot(image, *files, '-device', 'virtio-blk-pci,drive=plain')
        vm.cmd('blockdev-add', {
            'driver': 'weir-encryption', 'node-name': 'crypt',
            'file': 'plain', 'header': 'head', 'key-secret': 'pass0'})
        before = self.filter_info(vm, 'crypt')['job']
        resume = {'job-id': 'j', 'node-name': 'crypt', 'speed': 0}
        for _ in range(2):
            self.assertFails('Permission conflict', vm.cmd,
                             'weir-encryption-resume', resume)
        self.assertEqual(vm.cmd('query-jobs'), [])
        self.assertEqual(self.filter_info(vm, 'crypt')['job'], before)
        self.assertFalse(before['finished'])
        vm.quit()
        vm = self.boot(image, *files)
        vm.cmd('blockdev-add', {
            'driver': 'weir-encryption', 'node-name': 'crypt',
            'file': 'plain', 'header': 'head', 'key-secret': 'pass0'})
        vm.cmd('weir-encryption-resume', resume)
        self.dismiss(vm)
        self.assertTrue(self.filter_info(vm, 'crypt')['job']['finished'])
        vm.quit()


if __name__ == '__main__':
    main()
