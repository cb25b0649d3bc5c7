#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-encryption: the same bytes as cryptsetup has, what requests become on
the disk below, and what is refused."""

import base64
import json
import os
import random
import subprocess
import threading
import unittest

import nbd

from lukstest import CHEAP, PASSPHRASE, Image, cryptsetup
from weirtest import (BUILD, TestCase, blockdev, main, run, statistics,
                      wait_for)

VERIFY = os.path.join(BUILD, 'weir', 'tests', 'tools', 'weir-verify-nbd')
SIZE = 4 << 20
COMBINATIONS = [(sector, bits, detached) for sector in (512, 4096)
                for bits in (256, 512) for detached in (False, True)]


class Encryption(TestCase):
    def make(self, *args, size=SIZE, **kwargs):
        return Image(self.dir, size, *args, **kwargs)

    def secret(self, image, name='pass0'):
        return f'secret,id={name},file={image.key_file}'

    def options(self, image, **more):
        """The node as a dict, with its children inline."""
        options = {'driver': 'weir-encryption', 'key-secret': 'pass0',
                   'file': {'driver': 'file', 'filename': image.path}}
        if image.header:
            options['header'] = {'driver': 'file', 'filename': image.header,
                                 'read-only': True}
        options.update({k.replace('_', '-'): v for k, v in more.items()})
        return options

    def name(self, options):
        return 'json:' + json.dumps(options)

    def qemu_io(self, image, *commands, check=True, **more):
        args = [word for c in commands for word in ('-c', c)]
        return run('qemu-io', '--object', self.secret(image), *args,
                   self.name(self.options(image, **more)), check=check)

    def io_good(self, image, *commands, **more):
        """qemu-io does not tell by its status that a pattern was wrong."""
        result = self.qemu_io(image, *commands, **more)
        self.assertNotIn('fail', result.stdout)
        self.assertNotIn('error', result.stdout.lower())
        return result.stdout

    def random_file(self, name='plain', size=SIZE, seed=1):
        data = random.Random(seed).randbytes(size)
        with open(self.path(name), 'wb') as f:
            f.write(data)
        return data

    def assertRefused(self, text, image, **more):
        result = self.qemu_io(image, 'length', check=False, **more)
        self.assertNotEqual(result.returncode, 0, text)
        self.assertIn(text, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertNotIn(PASSPHRASE, result.stderr)

    # --- the same bytes as others have ---

    def test_written_here(self):
        data = self.random_file()
        for sector, bits, detached in COMBINATIONS:
            image = self.make(sector=sector, key_bits=bits, detached=detached)
            run('qemu-img', 'convert', '-n', '-f', 'raw', '--object',
                self.secret(image), '--target-image-opts',
                self.path('plain'), ','.join(
                    ['driver=weir-encryption,key-secret=pass0',
                     f'file.driver=file,file.filename={image.path}'] +
                    ([f'header.driver=file,header.filename={image.header}']
                     if detached else [])))
            self.assertEqual(image.plain(), data, (sector, bits, detached))
            self.assertNotEqual(image.raw(), data)

    def test_written_elsewhere(self):
        data = random.Random(2).randbytes(SIZE)
        for sector, bits, detached in COMBINATIONS:
            image = self.make(sector=sector, key_bits=bits, detached=detached)
            image.write_plain(data)
            run('qemu-img', 'convert', '-O', 'raw', '--object',
                self.secret(image), self.name(self.options(image)),
                self.path('out'))
            with open(self.path('out'), 'rb') as f:
                self.assertEqual(f.read(), data, (sector, bits, detached))

    @unittest.skipUnless(os.geteuid() == 0, 'cryptsetup reencrypt wants root')
    def test_cryptsetup_decrypts(self):
        for sector in (512, 4096):
            image = self.make(sector=sector)
            self.io_good(image, 'write -P 0x5a 0 1M', 'write -P 0xa5 2M 2M')
            cryptsetup('reencrypt', '--decrypt', '--force-offline-reencrypt',
                       '--key-file', image.key_file, '--header',
                       self.path(f'taken-{sector}'), image.path)
            with open(image.path, 'rb') as f:
                data = f.read(SIZE)
            self.assertEqual(data[:1 << 20], b'\x5a' * (1 << 20))
            self.assertEqual(data[2 << 20:], b'\xa5' * (2 << 20))

    @unittest.skipUnless(os.geteuid() == 0, 'cryptsetup reencrypt wants root')
    def test_cryptsetup_encrypts(self):
        image = self.make(detached=True)
        os.unlink(image.header)
        data = self.random_file('luks.img')
        cryptsetup('reencrypt', '--encrypt', '--force-offline-reencrypt',
                   *CHEAP, '--key-file', image.key_file, '--header',
                   image.header, image.path)
        self.assertNotEqual(image.raw(), data)
        run('qemu-img', 'convert', '-O', 'raw', '--object',
            self.secret(image), self.name(self.options(image)),
            self.path('out'))
        with open(self.path('out'), 'rb') as f:
            self.assertEqual(f.read(), data)

    def test_header_from_a_backup(self):
        image = self.make()
        image.write_plain(b'\x77' * 65536)
        backup = self.path('backup')
        cryptsetup('luksHeaderBackup', '--header-backup-file', backup,
                   image.path)
        image.flip(0, 100, 16384, 16484)
        self.assertRefused('no valid LUKS2 header', image)
        image.header = backup               # its offset is kept in it
        self.io_good(image, 'read -P 0x77 0 64k')
        cryptsetup('luksHeaderRestore', '--header-backup-file', backup,
                   image.path)
        image.header = None
        self.io_good(image, 'read -P 0x77 0 64k')

    # --- requests ---

    def test_unaligned_requests(self):
        image = self.make(sector=4096)
        expected = bytearray(random.Random(3).randbytes(SIZE))
        image.write_plain(bytes(expected))
        commands = []
        rng = random.Random(4)
        for i in range(60):
            size = rng.choice((512, 1024, 4608, 65536 + 512, 2 << 20))
            at = rng.randrange((SIZE - size) // 512) * 512
            commands.append(f'write -P {i + 1} {at} {size}')
            expected[at:at + size] = bytes([i + 1]) * size
        self.io_good(image, *commands)
        self.assertEqual(image.plain(), bytes(expected))

    def test_zeroes_are_encrypted(self):
        image = self.make()
        self.io_good(image, 'write -P 1 0 1M', 'write -z 64k 128k',
                     'write -z -u 512k 4k', 'read -P 0 64k 128k',
                     'read -P 0 512k 4k')
        plain = image.plain(0, 1 << 20)
        self.assertEqual(plain[65536:3 * 65536], bytes(2 * 65536))
        self.assertNotIn(bytes(4096), image.raw(0, 1 << 20))

    def test_block_status_tells_nothing_of_the_child(self):
        image = self.make()                 # sparse: the child is all zeroes
        out = run('qemu-img', 'map', '--output=json', '--object',
                  self.secret(image), self.name(self.options(image))).stdout
        for extent in json.loads(out):
            self.assertTrue(extent['data'])
            self.assertFalse(extent['zero'])
            self.assertNotIn('offset', extent)

    def test_resize(self):
        image = self.make(sector=4096)
        args = ['resize', '--object', self.secret(image), '--image-opts',
                'driver=weir-encryption,key-secret=pass0,file.driver=file,'
                f'file.filename={image.path}']
        run('qemu-img', *args, str(SIZE + 65536))
        self.assertEqual(os.path.getsize(image.path),
                         image.offset + SIZE + 65536)
        self.io_good(image, f'write -P 3 {SIZE} 64k')
        self.assertEqual(image.plain(SIZE), b'\x03' * 65536)
        result = run('qemu-img', *args, str(SIZE + 65536 + 512),
                     check=False)
        self.assertIn('must be a multiple of the image\'s sectors of 4096',
                      result.stderr)
        run('qemu-img', *args[:1], '--shrink', *args[1:], str(SIZE))
        self.assertEqual(os.path.getsize(image.path), image.offset + SIZE)

    # --- in the storage daemon ---

    def chain(self, image, iothread=False, discard='ignore', extra=(),
              **options):
        """disk <- weir-inspect <- weir-encryption <- NBD"""
        self.sock = self.path('nbd.sock')
        header = [] if not image.header else [
            '--blockdev', blockdev(driver='file', node_name='hdr',
                                   filename=image.header, read_only=True)]
        if header:
            options['header'] = 'hdr'
        daemon = self.daemon(
            *(['--object', 'iothread,id=io0'] if iothread else []),
            '--object', self.secret(image), *extra,
            '--blockdev', blockdev(driver='file', node_name='disk',
                                   filename=image.path, discard='unmap'),
            '--blockdev', blockdev(driver='weir-inspect', node_name='below',
                                   file='disk', discard='unmap'),
            *header,
            '--blockdev', blockdev(driver='weir-encryption', node_name='enc',
                                   file='below', key_secret='pass0',
                                   discard=discard, **options),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
            'max-connections=16',
            '--export', 'nbd,id=exp,node-name=enc,name=disk,writable=on' +
            (',iothread=io0' if iothread else ''))
        return daemon

    def connect(self, name='disk'):
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///{name}?socket={self.sock}')
        return client

    def below(self, daemon):
        return statistics(self.filter_info(daemon, 'below'))

    def test_verified_load(self):
        for iothread, detached in ((False, False), (True, True)):
            image = self.make(size=32 << 20, sector=4096, detached=detached)
            daemon = self.chain(image, iothread)
            result = subprocess.run(
                [VERIFY, '--threads', '4', '--size', str(32 << 20),
                 '--seconds', '3', '--final-check', '--flush-every', '16',
                 f'nbd+unix:///disk?socket={self.sock}'],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                timeout=300)
            self.assertEqual(result.returncode, 0, result.stderr)
            verdict = json.loads(result.stdout.splitlines()[-1])
            self.assertEqual(verdict['errors'], 0)
            daemon.quit()

    def test_many_requests_at_a_time(self):
        """More than there are buffers, of both sizes."""
        image = self.make(size=64 << 20)
        daemon = self.chain(image, iothread=True)
        client = self.connect()
        pending = []
        for i in range(400):
            size = (1 << 20) if i % 8 == 0 else 8192
            at = (i * 8192 * 17) % ((64 << 20) - (1 << 20))
            buffer = nbd.Buffer.from_bytearray(bytearray([i % 251]) * size)
            pending.append(client.aio_pwrite(buffer, at))
        while pending:
            client.poll(10000)
            pending = [p for p in pending
                       if not client.aio_command_completed(p)]
        client.shutdown()
        daemon.quit()

    def test_discard_only_when_allowed(self):
        for discard, expected in (('ignore', 0), ('unmap', 1)):
            image = self.make()
            daemon = self.chain(image, discard=discard)
            client = self.connect()
            client.pwrite(b'\x11' * 65536, 0)
            client.trim(65536, 0)
            client.shutdown()
            self.assertEqual(self.below(daemon)['discard']['requests'],
                             expected)
            daemon.quit()
            self.assertEqual(image.raw(0, 65536) == bytes(65536),
                             discard == 'unmap')

    def test_flush_goes_down(self):
        image = self.make()
        daemon = self.chain(image)
        client = self.connect()
        client.pwrite(b'\x11' * 512, 0)
        before = self.below(daemon)['flush']['requests']
        client.flush()
        self.assertEqual(self.below(daemon)['flush']['requests'], before + 1)
        client.shutdown()
        daemon.quit()

    def test_query(self):
        for detached in (False, True):
            image = self.make('--key-slot', '5', sector=4096, key_bits=256,
                              detached=detached)
            daemon = self.chain(image)
            info = self.filter_info(daemon, 'enc')
            self.assertEqual(info['driver'], 'weir-encryption')
            self.assertEqual(info['state'], 'ok')
            self.assertEqual(info['child'], 'below')
            self.assertEqual(info['uuid'], image.uuid())
            self.assertEqual(info['cipher'], 'aes-xts-plain64')
            self.assertEqual(info['key-size'], 32)
            self.assertEqual(info['sector-size'], 4096)
            self.assertEqual(info['data-offset'], image.offset)
            self.assertEqual(info['key-slot'], 5)
            self.assertEqual(info.get('header'), 'hdr' if detached else None)
            daemon.quit()

    def test_nothing_secret_is_told(self):
        image = self.make()
        key = image.volume_key()
        daemon = self.chain(image)
        replies = [json.dumps(daemon.cmd(c)) for c in
                   ('query-weir', 'query-named-block-nodes',
                    'x-debug-query-block-graph', 'query-block-exports')]
        daemon.cmd('blockdev-add', driver='null-co', node_name='null')
        output = daemon.output()
        daemon.quit()
        for text in (*replies, output):
            for secret in (PASSPHRASE, key.hex(), key[:32].hex(),
                           key[32:].hex(), base64.b64encode(key).decode()):
                self.assertNotIn(secret, text)

    def test_damaged_copy_is_told(self):
        for place in (4096 + 10, 16384 + 4096 + 10):
            image = self.make()
            image.write_plain(b'\x42' * 4096)
            image.flip(place)
            daemon = self.chain(image)
            info = self.filter_info(daemon, 'enc')
            self.assertEqual(info['state'], 'degraded')
            self.assertIn('one of the two copies of the header',
                          info['reason'])
            client = self.connect()
            self.assertEqual(bytes(client.pread(4096, 0)), b'\x42' * 4096)
            client.shutdown()
            daemon.quit()

    def test_format_above_grows_the_image(self):
        image = self.make(size=0, sector=4096)
        daemon = self.chain(image)
        daemon.cmd('block-export-del', id='exp')
        daemon.qmp.event('BLOCK_EXPORT_DELETED')
        daemon.cmd('blockdev-create', {'job-id': 'j', 'options': {
            'driver': 'qcow2', 'file': 'enc', 'size': 64 << 20}})
        wait_for(lambda: daemon.cmd('query-jobs')[0]['status'] == 'concluded',
                 'creation')
        self.assertNotIn('error', daemon.cmd('query-jobs')[0])
        daemon.cmd('job-dismiss', id='j')
        daemon.cmd('blockdev-add', driver='qcow2', node_name='top', file='enc')
        daemon.cmd('block-export-add', id='e2', type='nbd', node_name='top',
                   name='top', writable=True)
        client = self.connect('top')
        client.pwrite(b'\x66' * (1 << 20), 30 << 20)
        client.flush()
        self.assertEqual(bytes(client.pread(1 << 20, 30 << 20)),
                         b'\x66' * (1 << 20))
        client.shutdown()
        daemon.quit()
        self.assertEqual(image.plain(0, 4096)[:4], b'QFI\xfb')
        out = run('qemu-img', 'check', '--object', self.secret(image),
                  self.name({'driver': 'qcow2',
                             'file': self.options(image)})).stdout
        self.assertIn('No errors were found', out)

    def test_reopen(self):
        image = self.make()
        daemon = self.chain(image)
        options = {'driver': 'weir-encryption', 'node-name': 'enc',
                   'file': 'below', 'key-secret': 'pass0'}
        daemon.cmd('block-export-del', id='exp')
        daemon.qmp.event('BLOCK_EXPORT_DELETED')
        daemon.cmd('blockdev-reopen', {'options': [
            {**options, 'read-only': True}]})
        daemon.cmd('blockdev-reopen', {'options': [options]})
        with self.assertRaisesRegex(Exception, 'key-slot'):
            daemon.cmd('blockdev-reopen', {'options': [
                {**options, 'key-slot': 3}]})
        daemon.quit()

    def test_attach_and_detach(self):
        """With a detached header the disk keeps its length."""
        image = self.make(detached=True)
        image.write_plain(b'\x21' * 4096)
        self.sock = self.path('nbd.sock')
        daemon = self.daemon(
            '--object', self.secret(image),
            '--blockdev', blockdev(driver='file', node_name='disk',
                                   filename=image.path),
            '--blockdev', blockdev(driver='file', node_name='hdr',
                                   filename=image.header, read_only=True),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
            '--export', 'nbd,id=exp,node-name=disk,name=disk,writable=on')
        client = self.connect()
        cipher = bytes(client.pread(4096, 0))
        self.assertEqual(cipher, image.raw(0, 4096))
        daemon.cmd('weir-attach', {'node-name': 'disk', 'filter': {
            'driver': 'weir-encryption', 'node-name': 'enc', 'file': 'disk',
            'header': 'hdr', 'key-secret': 'pass0'}})
        self.assertEqual(bytes(client.pread(4096, 0)), b'\x21' * 4096)
        client.pwrite(b'\x22' * 512, 512)
        daemon.cmd('weir-detach', {'node-name': 'enc'})
        self.assertEqual(bytes(client.pread(512, 0)), cipher[:512])
        client.shutdown()
        daemon.quit()
        self.assertEqual(image.plain(0, 1024), b'\x21' * 512 + b'\x22' * 512)

    def test_disk_in_use_does_not_change_its_length(self):
        """What begins with its header would show less of itself."""
        image = self.make()
        self.sock = self.path('nbd.sock')
        daemon = self.daemon(
            '--object', self.secret(image),
            '--blockdev', blockdev(driver='file', node_name='disk',
                                   filename=image.path),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
            '--export', 'nbd,id=exp,node-name=disk,name=disk,writable=on')
        client = self.connect()
        with self.assertRaisesRegex(Exception, "'enc' would make the disk"):
            daemon.cmd('weir-attach', {'node-name': 'disk', 'filter': {
                'driver': 'weir-encryption', 'node-name': 'enc',
                'file': 'disk', 'key-secret': 'pass0'}})
        self.assertEqual(bytes(client.pread(6, 0)), b'LUKS\xba\xbe')
        self.assertEqual([node['node-name'] for node in
                          daemon.cmd('query-named-block-nodes')
                          if node['drv'] == 'weir-encryption'], [])
        client.shutdown()
        daemon.quit()

    def test_others_go_on_while_the_key_is_derived(self):
        slow = ['--pbkdf', 'argon2id', '--pbkdf-force-iterations', '8',
                '--pbkdf-memory', '262144', '--pbkdf-parallel', '1']
        image = self.make()
        other = self.make(name='other', kdf=slow)
        daemon = self.chain(image)
        client = self.connect()
        reads, stop = [], threading.Event()

        def read():
            while not stop.is_set():
                client.pread(4096, 0)
                reads.append(1)

        thread = threading.Thread(target=read)
        thread.start()
        wait_for(lambda: len(reads) > 10, 'reads')
        before = len(reads)
        daemon.cmd('blockdev-add', {
            'driver': 'weir-encryption', 'node-name': 'enc2',
            'key-secret': 'pass0', 'file': {'driver': 'file',
                                            'filename': other.path}})
        during = len(reads) - before
        stop.set()
        thread.join()
        client.shutdown()
        daemon.quit()
        self.assertGreater(during, 20)

    # --- inactive ---

    def inactive(self, image, *file):
        """As on the other side of a migration."""
        daemon = self.daemon('--object', self.secret(image))
        daemon.cmd('blockdev-add', {
            'node-name': 'disk', 'active': False,
            **(file[0] if file else {'driver': 'file',
                                     'filename': image.path})})
        daemon.cmd('blockdev-add', {
            'driver': 'weir-encryption', 'node-name': 'enc', 'file': 'disk',
            'key-secret': 'pass0', 'active': False})
        return daemon

    def set_active(self, daemon, active):
        daemon.cmd('blockdev-set-active', {'node-name': 'enc',
                                           'active': active})

    def is_active(self, daemon):
        node, = [n for n in daemon.cmd('query-named-block-nodes')
                 if n['node-name'] == 'enc']
        return node['active']

    def add_keyslot(self, image):
        with open(self.path('other'), 'w') as f:
            f.write('another one')
        cryptsetup('luksAddKey', *CHEAP, '--key-file', image.key_file,
                   image.path, self.path('other'))

    def test_activated(self):
        image = self.make()
        daemon = self.inactive(image)
        for active in (True, False, True):
            self.set_active(daemon, active)
            self.assertEqual(self.is_active(daemon), active)
        daemon.quit()

    def test_header_changed_before_activation(self):
        for became in (False, True):
            image = self.make()
            daemon = self.inactive(image)
            if became:
                self.set_active(daemon, True)
                self.set_active(daemon, False)
            self.add_keyslot(image)
            for _ in range(2):
                self.assertFails("The header of node 'enc' has changed since "
                                 'it was opened', self.set_active, daemon,
                                 True)
                self.assertFalse(self.is_active(daemon))
            daemon.cmd('blockdev-del', {'node-name': 'enc'})
            self.set_active_node(daemon, 'disk')
            daemon.cmd('blockdev-add', {
                'driver': 'weir-encryption', 'node-name': 'enc',
                'file': 'disk', 'key-secret': 'pass0'})
            daemon.quit()

    def set_active_node(self, daemon, node):
        daemon.cmd('blockdev-set-active', {'node-name': node, 'active': True})

    def faulty_server(self, image):
        """Reads of 4096 bytes fail while the file "fail" is there."""
        fail, sock = self.path('fail'), self.path('nbdkit')
        server = subprocess.Popen([
            'nbdkit', '-f', '-U', sock, 'eval',
            f'get_size=stat -L -c %s {image.path}',
            f'pread=if [ $3 -eq 4096 ] && [ -e {fail} ]; then '
            'echo EIO bad >&2; exit 1; fi; '
            f'dd if={image.path} skip=$4 count=$3 '
            'iflag=count_bytes,skip_bytes status=none',
            f'pwrite=dd of={image.path} seek=$4 conv=notrunc '
            'oflag=seek_bytes status=none', 'flush=true', 'can_write=true',
            'can_flush=true'])
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        wait_for(lambda: os.path.exists(sock), 'nbdkit')
        return {'driver': 'nbd', 'server': {'type': 'unix', 'path': sock}}

    def test_header_that_cannot_be_read_while_inactive(self):
        image = self.make()
        disk = self.faulty_server(image)
        fail = self.path('fail')
        open(fail, 'w').close()
        with self.assertRaisesRegex(Exception, 'Cannot read the header from '
                                    "node 'disk': Input/output error"):
            self.inactive(image, disk)
        os.unlink(fail)
        daemon = self.inactive(image, disk)
        open(fail, 'w').close()
        self.assertFails("Cannot read the header of node 'enc'",
                         self.set_active, daemon, True)
        os.unlink(fail)
        self.set_active(daemon, True)
        open(fail, 'w').close()
        self.set_active(daemon, False)
        os.unlink(fail)
        self.assertFails('could not be read when it became inactive',
                         self.set_active, daemon, True)
        self.assertFalse(self.is_active(daemon))
        daemon.quit()

    # --- what is refused ---

    def test_wrong_key(self):
        image = self.make()
        with open(image.key_file, 'w') as f:
            f.write('wrong')
        self.assertRefused('the passphrase opens no keyslot', image)
        self.assertRefused('the passphrase does not open keyslot 0', image,
                           key_slot=0)
        self.assertRefused('keyslot 7 is not in use', image, key_slot=7)
        self.assertRefused('key-slot must be less than 32, not 32', image,
                           key_slot=32)
        self.assertRefused("No secret with id 'none'", image,
                           key_secret='none')

    def test_costs(self):
        image = self.make(kdf=['--pbkdf', 'argon2id', '--pbkdf-memory',
                               '65536', '--pbkdf-force-iterations', '16',
                               '--pbkdf-parallel', '1'])
        self.assertRefused('keyslot 0 needs 64 MiB of memory; the limit is '
                           '32 MiB', image, max_kdf_memory=32 << 20)
        self.assertRefused('keyslot 0 needs 1.0 s by estimate', image,
                           max_kdf_time=1)
        self.io_good(image, 'read 0 4k', max_kdf_memory=64 << 20,
                     max_kdf_time=2)

    def test_uuid(self):
        image = self.make()
        other = '00000000-0000-4000-8000-000000000000'
        self.io_good(image, 'read 0 4k', pin_uuid=image.uuid().upper())
        self.assertRefused(f'has the UUID {image.uuid()}, not {other} as '
                           'pin-uuid says', image, pin_uuid=other)

    def test_damage(self):
        image = self.make()
        image.flip(4096 + 10, 16384 + 4096 + 10)
        self.assertRefused('no valid LUKS2 header', image)
        with open(image.path, 'r+b') as f:
            f.truncate(0)
        self.assertRefused('no valid LUKS2 header', image)
        with open(image.path, 'r+b') as f:
            f.truncate(32 << 20)
        self.assertRefused('no valid LUKS2 header', image)

    def test_cut_off(self):
        image = self.make()
        with open(image.path, 'r+b') as f:
            f.truncate(8 << 20)
        self.assertRefused('the header is cut off', image)

    def test_data_offset_beyond_the_disk(self):
        image = self.make()
        image.header = self.path('backup')
        cryptsetup('luksHeaderBackup', '--header-backup-file', image.header,
                   image.path)
        with open(image.path, 'r+b') as f:
            f.truncate(1 << 20)
        self.assertRefused('ends before its data', image)

    def test_detached_header_given_as_attached(self):
        image = self.make(detached=True)
        image.path, image.header = image.header, None
        self.assertRefused('is the header meant to be on another disk?', image)

    def test_luks1(self):
        image = self.make()
        cryptsetup('luksFormat', '--type', 'luks1', '--key-file',
                   image.key_file, '--pbkdf-force-iterations', '1000',
                   image.path)
        self.assertRefused('no valid LUKS2 header', image)


if __name__ == '__main__':
    main()
