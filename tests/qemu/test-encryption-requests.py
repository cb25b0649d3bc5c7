#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-encryption: large requests, by one thread and by several, while the
disk is drained, and when the client goes away."""

import json
import os
import random
import subprocess
import threading

import nbd

from lukstest import CHEAP, Image, cryptsetup, vaes_bits
from weirtest import BUILD, TestCase, blockdev, main

VERIFY = os.path.join(BUILD, 'weir', 'tests', 'tools', 'weir-verify-nbd')
MIB = 1 << 20
SIZE = 32 * MIB
# where the test itself encrypts, which takes its time
LESS = 8 * MIB


class Requests(TestCase):
    def make(self, size=SIZE, **kwargs):
        return Image(self.dir, size, **kwargs)

    def serve(self, image, iothread=False, **options):
        """disk <- weir-inspect <- weir-encryption <- NBD"""
        self.sock = self.path('nbd.sock')
        return self.daemon(
            '--object', f'secret,id=pass0,file={image.key_file}',
            *(['--object', 'iothread,id=io0'] if iothread else []),
            '--blockdev', blockdev(driver='file', node_name='disk',
                                   filename=image.path),
            '--blockdev', blockdev(driver='weir-inspect', node_name='below',
                                   file='disk'),
            # typed, so that a reopen finds them the same
            '--blockdev', json.dumps({
                'driver': 'weir-encryption', 'node-name': 'enc',
                'file': 'below', 'key-secret': 'pass0', **options}),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
            'max-connections=16',
            '--export', 'nbd,id=exp,node-name=enc,name=disk,writable=on' +
            (',iothread=io0' if iothread else ''))

    def connect(self):
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        return client

    # --- several threads ---

    def test_large_requests(self):
        """Of lengths around those of a piece, a buffer, and several."""
        rng = random.Random(5)
        for workers, vaes, sector in ((1, True, 512), (4, True, 512),
                                      (4, False, 512), (16, True, 4096)):
            image = self.make(size=LESS, sector=sector)
            expected = bytearray(rng.randbytes(LESS))
            image.write_plain(bytes(expected))
            daemon = self.serve(image, workers=workers, vaes=vaes)
            client = self.connect()
            for size in (65536, 131072, 131072 + sector, 262144 - sector,
                         MIB, MIB + sector, 5 * MIB + 3 * sector):
                at = rng.randrange((LESS - size) // sector) * sector
                data = rng.randbytes(size)
                client.pwrite(data, at)
                expected[at:at + size] = data
                at = rng.randrange((LESS - size) // sector) * sector
                self.assertEqual(bytes(client.pread(size, at)),
                                 expected[at:at + size],
                                 (workers, vaes, sector, size))
            client.shutdown()
            daemon.quit()
            self.assertEqual(image.plain(), expected)

    def test_load_on_several_threads(self):
        """More at a time than there are helpers and buffers."""
        image = self.make()
        daemon = self.serve(image, iothread=True, workers=3)
        pending = []
        client = self.connect()
        for i in range(200):
            size = (MIB, 4 * MIB, 300 * 1024, 8192)[i % 4]
            at = i * 777 * 512 % (SIZE - size)
            buffer = nbd.Buffer.from_bytearray(bytearray([i % 251]) * size)
            pending.append(client.aio_pwrite(buffer, at) if i % 3 else
                           client.aio_pread(buffer, at))
        while pending:
            client.poll(10000)
            pending = [p for p in pending
                       if not client.aio_command_completed(p)]
        client.shutdown()
        daemon.quit()

    def verify(self, seconds):
        return subprocess.Popen(
            [VERIFY, '--threads', '4', '--size', str(SIZE), '--seconds',
             str(seconds), '--final-check', '--flush-every', '16',
             f'nbd+unix:///disk?socket={self.sock}'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def assertVerified(self, process):
        out, err = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(json.loads(out.splitlines()[-1])['errors'], 0)

    def read_all(self, stop):
        client = self.connect()
        while not stop.is_set():
            for at in range(0, SIZE, 8 * MIB):
                client.pread(8 * MIB, at)
        client.shutdown()

    def test_drained_under_load(self):
        image = self.make()
        daemon = self.serve(image, iothread=True, workers=4)
        options = {'driver': 'weir-encryption', 'node-name': 'enc',
                   'file': 'below', 'key-secret': 'pass0', 'workers': 4}
        load = self.verify(3)
        stop = threading.Event()
        thread = threading.Thread(target=self.read_all, args=(stop,))
        thread.start()
        for _ in range(20):
            daemon.cmd('blockdev-reopen', {'options': [options]})
        stop.set()
        thread.join()
        self.assertVerified(load)
        daemon.quit()

    def test_moved_to_another_thread_under_load(self):
        """Attaching a filter above drains the disk, and takes it along."""
        image = self.make()
        daemon = self.serve(image, iothread=True, workers=4)
        load = self.verify(3)
        for _ in range(10):
            daemon.cmd('weir-attach', {'node-name': 'enc', 'filter': {
                'driver': 'weir-inspect', 'node-name': 'top', 'file': 'enc'}})
            daemon.cmd('weir-detach', {'node-name': 'top'})
        self.assertVerified(load)
        daemon.quit()

    def test_client_goes_away(self):
        """Its request ends, and the disk can be closed.  One at a time: with
        several, QEMU's server loses track of an error message."""
        image = self.make()
        daemon = self.serve(image, iothread=True, workers=4)
        buffer = nbd.Buffer.from_bytearray(bytearray(SIZE))
        for _ in range(20):
            client = self.connect()
            client.aio_pread(buffer, 0)
            client.poll(0)
            del client
        daemon.quit()

    def test_failing_disk(self):
        """One of many chunks fails: the request fails, and nothing hangs."""
        image = self.make()
        self.sock = self.path('nbd.sock')
        daemon = self.daemon(
            '--object', f'secret,id=pass0,file={image.key_file}',
            '--blockdev', json.dumps({
                'driver': 'weir-encryption', 'node-name': 'enc',
                'key-secret': 'pass0', 'workers': 4, 'file': {
                    'driver': 'blkdebug',
                    'image': {'driver': 'file', 'filename': image.path},
                    'inject-error': [{'event': 'none', 'iotype': kind,
                                      'errno': 28, 'sector':
                                      ((16 << 20) + 5 * MIB) // 512}
                                     for kind in ('read', 'write')]}}),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
            '--export', 'nbd,id=exp,node-name=enc,name=disk,writable=on')
        for _ in range(3):
            client = self.connect()
            with self.assertRaisesRegex(nbd.Error, 'ENOSPC'):
                client.pwrite(bytes(16 * MIB), 0)
            # the server then hangs up
            with self.assertRaises(nbd.Error):
                client.pread(16 * MIB, 0)
            client = self.connect()
            client.pwrite(b'\x07' * MIB, 16 * MIB)
            self.assertEqual(bytes(client.pread(MIB, 16 * MIB)),
                             b'\x07' * MIB)
            client.shutdown()
        self.assertIn('reading from file failed: No space left',
                      daemon.output())
        daemon.quit()

    # --- options ---

    def test_query(self):
        for sector in (512, 4096):
            image = self.make(sector=sector)
            found = []
            for options in ({}, {'workers': 7, 'vaes': False}):
                daemon = self.serve(image, **options)
                info = self.filter_info(daemon, 'enc')
                found.append((info['workers'], info['vaes-bits']))
                daemon.quit()
            self.assertEqual(found, [(1, vaes_bits(sector)), (7, 0)])

    def test_workers_that_cannot_be(self):
        image = self.make()
        daemon = self.serve(image)
        for workers in (0, 17):
            self.assertFails(f'workers must be 1 to 16, not {workers}',
                             daemon.cmd, 'blockdev-add', {
                                 'driver': 'weir-encryption', 'file': 'disk',
                                 'node-name': 'no', 'key-secret': 'pass0',
                                 'workers': workers})
        daemon.quit()

    # --- copies ---

    def test_same_volume_key(self):
        image = self.make()
        copy = self.path('copy')
        with open(image.path, 'rb') as f, open(copy, 'wb') as g:
            g.write(f.read())
        cryptsetup('luksChangeKey', *CHEAP, '--key-file', image.key_file,
                   copy, image.key_file)
        other = self.make(name='other')
        daemon = self.serve(image)
        self.assertEqual(self.filter_info(daemon, 'enc')['same-key'], [])
        for name, path in ('enc2', copy), ('enc3', other.path):
            daemon.cmd('blockdev-add', {
                'driver': 'weir-encryption', 'node-name': name,
                'key-secret': 'pass0',
                'file': {'driver': 'file', 'filename': path}})
        same = {name: self.filter_info(daemon, name)['same-key']
                for name in ('enc', 'enc2', 'enc3')}
        self.assertEqual(same, {'enc': ['enc2'], 'enc2': ['enc'], 'enc3': []})
        output = daemon.output()
        self.assertIn("nodes 'enc' and 'enc2' have the same volume key",
                      output)
        self.assertEqual(output.count('same volume key'), 1)
        self.assertNotIn(image.volume_key().hex(), output)
        daemon.cmd('blockdev-del', {'node-name': 'enc2'})
        self.assertEqual(self.filter_info(daemon, 'enc')['same-key'], [])
        daemon.quit()


if __name__ == '__main__':
    main()
