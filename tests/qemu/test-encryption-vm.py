#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-encryption in the emulator: below devices, opened while it runs, and
over a live migration."""

import json
import threading
import time

from lukstest import Image
from weirtest import TestCase, main, wait_for

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

    def io(self, vm, command):
        out = vm.cmd('human-monitor-command', {
            'command-line': f'qemu-io disk "{command}"'})
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


if __name__ == '__main__':
    main()
