#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that are encrypted, rekeyed and decrypted in place while they are in
use: what the client sees, what is on the disks afterwards, and what happens
when the job is paused, cancelled, killed, or fails."""

import os
import random
import re
import shutil
import subprocess
import time
import unittest

import nbd

from lukstest import (CHEAP, PASSPHRASE, Image, crypt, cryptsetup,
                      vaes_bits)
from weirtest import TestCase, main, wait_for

SIZE = 6 << 20
HEADER_BYTES = 16 << 20
HOTZONE = 512 << 10
SLOW = 1 << 20
MOVING_SIZE = 40 << 20
# the default takes all processors for a second whenever a key is derived
CHEAP_KDF = {'kdf': 'pbkdf2', 'kdf_iterations': 1000}
ROOT = os.geteuid() == 0


class Client:
    """Writes to a disk over NBD, and knows what it must have."""

    def __init__(self, path, data, unit=512, seed=1):
        self.nbd = nbd.NBD()
        self.nbd.connect_unix(path)
        self.data = bytearray(data)
        self.unit = unit
        self.random = random.Random(seed)

    def write_some(self):
        n = self.unit * self.random.randint(1, 32768 // self.unit)
        at = self.unit * self.random.randint(0, (len(self.data) - n) //
                                             self.unit)
        piece = self.random.randbytes(n)
        self.nbd.pwrite(piece, at)
        self.data[at:at + n] = piece

    def read_some(self, test):
        n = self.unit * self.random.randint(1, 65536 // self.unit)
        at = self.unit * self.random.randint(0, (len(self.data) - n) //
                                             self.unit)
        test.assertEqual(self.nbd.pread(n, at), self.data[at:at + n], at)

    def check_all(self, test):
        for at in range(0, len(self.data), 1 << 20):
            n = min(1 << 20, len(self.data) - at)
            test.assertEqual(self.nbd.pread(n, at), self.data[at:at + n], at)

    def close(self):
        self.nbd.flush()
        self.nbd.shutdown()


class EncryptionJob(TestCase):
    def setUp(self):
        super().setUp()
        self.key_file = self.path('pass')
        with open(self.key_file, 'w') as f:
            f.write(PASSPHRASE)
        self.head = self.path('head')
        self.disk = self.path('disk')

    # --- disks ---

    def plain_disk(self, seed=1):
        data = random.Random(seed).randbytes(SIZE)
        with open(self.disk, 'wb') as f:
            f.write(data)
        with open(self.head, 'wb') as f:
            f.truncate(HEADER_BYTES)
        return data

    def encrypted_disk(self, seed=1, detached=True):
        image = Image(self.dir, SIZE, detached=detached)
        data = random.Random(seed).randbytes(SIZE)
        image.write_plain(data)
        self.disk, self.head = image.path, image.header
        return image, data

    def found(self, key_file=None):
        """What somebody else reads from the disk."""
        path = self.path('vk')
        cryptsetup('luksDump', '--dump-volume-key', '--volume-key-file', path,
                   '--key-file', key_file or self.key_file,
                   self.head or self.disk)
        with open(path, 'rb') as f:
            key = f.read()
        os.unlink(path)
        with open(self.disk, 'rb') as f:
            f.seek(0 if self.head else HEADER_BYTES)
            return crypt(key, f.read(), 512, decrypt=True)

    def keyslots(self):
        dump = cryptsetup('luksDump', self.head or self.disk).stdout
        return re.findall(r'^  (\d+): luks2', dump, re.M)

    # --- a daemon ---

    def open(self, disk_options=None, head_options=None):
        daemon = self.daemon('--object',
                             f'secret,id=key0,file={self.key_file}',
                             '--nbd-server', 'addr.type=unix,addr.path=' +
                             self.path('nbd'))
        file = {'driver': 'file', 'filename': self.disk}
        head = {'driver': 'file', 'filename': self.head}
        daemon.cmd('blockdev-add', {'node-name': 'disk', **file,
                                    **(disk_options or {})})
        head.update(head_options or {})
        if self.head:
            daemon.cmd('blockdev-add', {
                'node-name': 'head', **{k: v for k, v in head.items()
                                        if v is not None}})
        return daemon

    def add_crypt(self, daemon, **more):
        if self.head:
            more['header'] = 'head'
        daemon.cmd('blockdev-add', {'driver': 'weir-encryption',
                                    'node-name': 'crypt', 'file': 'disk',
                                    'key-secret': 'key0',
                                    'hotzone-size': HOTZONE, **more})

    def add_secret(self, daemon, name, passphrase):
        path = self.path(name)
        with open(path, 'w') as f:
            f.write(passphrase)
        daemon.cmd('object-add', {'qom-type': 'secret', 'id': name,
                                  'file': path})
        return path

    def export(self, daemon, node, data, unit=512):
        daemon.cmd('block-export-add', {'type': 'nbd', 'id': 'exp',
                                        'node-name': node, 'name': '',
                                        'writable': True})
        return Client(self.path('nbd'), data, unit)

    def options(self, **given):
        """Of a job.  kdf=None: the default."""
        if 'kdf' not in given:
            given.update(CHEAP_KDF)
        return {'job-id': 'job0', 'key-secret': 'key0',
                'hotzone-size': HOTZONE,
                **{k.replace('_', '-'): v for k, v in given.items()
                   if v is not None}}

    def encrypt(self, daemon, **more):
        if self.head:
            more = {'header': 'head', **more}
        daemon.cmd('weir-encrypt', {
            'node-name': 'disk', 'filter-node-name': 'crypt',
            **self.options(**more)})

    def rekey(self, daemon, **more):
        daemon.cmd('weir-rekey', {'node-name': 'crypt',
                                  **self.options(**more)})

    def job(self, daemon):
        jobs = [j for j in daemon.cmd('query-jobs') if j['id'] == 'job0']
        return jobs[0] if jobs else None

    def resume(self, daemon):
        """One that has stopped.  Writes to where it stands fail until it has
        gone on from there."""
        done = self.done(daemon)
        daemon.cmd('job-resume', id='job0')
        wait_for(lambda: self.job(daemon)['status'] == 'concluded' or
                 self.done(daemon) > done, 'it goes on')

    def work_until_concluded(self, daemon, client):
        """Returns how many requests there were meanwhile."""
        n = 0
        while self.job(daemon)['status'] != 'concluded':
            client.write_some()
            client.read_some(self)
            n += 2
        self.assertNotIn('error', self.job(daemon))
        daemon.cmd('job-dismiss', id='job0')
        return n

    def info(self, daemon):
        return self.filter_info(daemon, 'crypt')['job']

    def done(self, daemon):
        return self.info(daemon)['done']

    # --- all the way ---

    def test_encrypt(self):
        data = self.plain_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=4 << 20, kdf=None)
        self.assertGreater(self.work_until_concluded(daemon, client), 20)
        self.assertEqual(self.info(daemon), {
            'mode': 'encrypt', 'backward': False, 'total': SIZE, 'done': SIZE,
            'finished': True})
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    def check_rekey(self, detached, **options):
        image, data = self.encrypted_disk(detached=detached)
        old_key = image.volume_key()
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        self.rekey(daemon, speed=4 << 20, **options)
        self.assertGreater(self.work_until_concluded(daemon, client), 20)
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertNotEqual(image.volume_key(), old_key)
        self.assertEqual(self.found(), bytes(client.data))

    def test_rekey(self):
        self.check_rekey(detached=True, kdf=None)

    def test_rekey_with_the_header_on_the_disk(self):
        self.check_rekey(detached=False)

    def test_rekey_a_disk_that_nobody_uses(self):
        """The header is on it: the job alone writes to it."""
        image, data = self.encrypted_disk(detached=False)
        old_key = image.volume_key()
        daemon = self.open()
        self.add_crypt(daemon)
        self.rekey(daemon, speed=0)
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'the end')
        self.assertNotIn('error', self.job(daemon))
        daemon.quit()
        self.assertNotEqual(image.volume_key(), old_key)
        self.assertEqual(self.found(), data)

    def test_rekey_without_permission_does_not_begin(self):
        """Somebody writes to the disk below: the header stays as it is."""
        image, data = self.encrypted_disk()
        old_key = image.volume_key()
        with open(self.head, 'rb') as f:
            before = f.read()
        daemon = self.open()
        self.add_crypt(daemon)
        daemon.cmd('block-export-add', {'type': 'nbd', 'id': 'below',
                                        'node-name': 'disk', 'name': 'below',
                                        'writable': True})
        self.assertFails('disk', self.rekey, daemon)
        self.assertFails('it is not being converted', daemon.cmd,
                         'weir-encryption-resume',
                         {'job-id': 'j', 'node-name': 'crypt'})
        with open(self.head, 'rb') as f:
            self.assertEqual(f.read(), before)
        self.assertEqual(daemon.cmd('query-jobs'), [])
        self.assertEqual(self.shown_keyslots(daemon), ['0'])
        daemon.cmd('block-export-del', id='below')
        wait_for(lambda: not daemon.cmd('query-block-exports'), 'it is gone')
        self.rekey(daemon, speed=0)
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'the end')
        daemon.quit()
        self.assertNotEqual(image.volume_key(), old_key)
        self.assertEqual(self.found(), data)

    # --- keyslots ---

    def shown_keyslots(self, daemon):
        """What query-weir tells."""
        return [str(k['key-slot'])
                for k in self.filter_info(daemon, 'crypt')['key-slots']]

    def add_keyslot(self, passphrase):
        """By cryptsetup."""
        path = self.path('new')
        with open(path, 'w') as f:
            f.write(passphrase)
        cryptsetup('luksAddKey', *CHEAP, '--key-file', self.key_file,
                   self.head or self.disk, path)

    def test_rekey_keeps_the_keyslots_of_given_passphrases(self):
        _, data = self.encrypted_disk()
        self.add_keyslot('second')
        self.add_keyslot('third')
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        second = self.add_secret(daemon, 'key1', 'second')
        third = self.add_secret(daemon, 'key2', 'third')
        wrong = self.add_secret(daemon, 'wrong', 'wrong')
        self.assertFails('2 of 3 keyslots would be lost (1 and 2)',
                         self.rekey, daemon)
        self.assertFails('1 of 3 keyslots would be lost (1)',
                         self.rekey, daemon, keyslots=['key2'])
        self.assertFails('passphrase 3 of those that are to stay opens no',
                         self.rekey, daemon, drop_keyslots=True,
                         keyslots=['key1', 'wrong'])
        self.assertFails("No secret with id 'none'", self.rekey, daemon,
                         keyslots=['none'])
        client.write_some()
        self.rekey(daemon, keyslots=['key1', 'key2'], speed=4 << 20,
                   kdf='pbkdf2', kdf_iterations=1234)
        self.work_until_concluded(daemon, client)
        client.close()
        daemon.quit()
        dump = cryptsetup('luksDump', self.head).stdout
        self.assertEqual(re.findall(r'PBKDF: +(\S+)', dump), 3 * ['pbkdf2'])
        self.assertEqual(dump.count('Iterations: 1234\n'), 3)
        for key_file in self.key_file, second, third:
            self.assertEqual(self.found(key_file), bytes(client.data))
        with self.assertRaises(subprocess.CalledProcessError):
            self.found(wrong)

    def test_rekey_drops_keyslots_if_told_to(self):
        _, data = self.encrypted_disk(detached=False)
        for passphrase in 'second', 'third':
            self.add_keyslot(passphrase)
        daemon = self.open()
        self.add_crypt(daemon)
        second = self.add_secret(daemon, 'key1', 'second')
        third = self.add_secret(daemon, 'key2', 'third')
        self.assertEqual(self.shown_keyslots(daemon), ['0', '1', '2'])
        self.rekey(daemon, keyslots=['key1'], drop_keyslots=True,
                   speed=1 << 20)
        self.assertEqual(self.shown_keyslots(daemon),
                         ['0', '1', '2', '3', '4'])
        self.assertEqual(self.keyslots(), self.shown_keyslots(daemon))
        daemon.cmd('weir-encryption-set-speed', {'job-id': 'job0', 'speed': 0})
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'the end')
        self.assertEqual(self.shown_keyslots(daemon), ['3', '4'])
        daemon.quit()
        self.assertEqual(self.keyslots(), ['3', '4'])
        for key_file in self.key_file, second:
            self.assertEqual(self.found(key_file), data)
        with self.assertRaises(subprocess.CalledProcessError):
            self.found(third)

    def test_encrypt_with_another_kdf(self):
        self.plain_disk()
        daemon = self.open()
        self.assertFails('kdf-memory', self.encrypt, daemon, kdf='pbkdf2',
                         kdf_memory=1 << 20)
        self.encrypt(daemon, kdf='argon2i', kdf_iterations=5,
                     kdf_memory=64 << 20, kdf_threads=1, speed=0)
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'the end')
        slot, = self.filter_info(daemon, 'crypt')['key-slots']
        self.assertEqual(slot, {'key-slot': 0, 'kdf': 'argon2i',
                                'iterations': 5, 'memory': 64 << 20,
                                'threads': 1})
        daemon.quit()

    # --- decrypt ---

    def test_decrypt_and_detach(self):
        _, data = self.encrypted_disk()
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        daemon.cmd('weir-decrypt', {'job-id': 'job0', 'node-name': 'crypt',
                                    'key-secret': 'key0', 'speed': 4 << 20,
                                    'hotzone-size': HOTZONE})
        self.assertGreater(self.work_until_concluded(daemon, client), 20)
        daemon.cmd('weir-detach', {'node-name': 'crypt'})
        client.write_some()
        client.check_all(self)
        client.close()
        daemon.quit()
        with open(self.disk, 'rb') as f:
            self.assertEqual(f.read(), bytes(client.data))
        daemon = self.open()
        self.assertFails('not encrypted', self.add_crypt, daemon)

    def test_decrypt_with_the_header_on_the_disk(self):
        """The data stays where it is, also half-way."""
        _, data = self.encrypted_disk(detached=False)
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        daemon.cmd('weir-decrypt', {'job-id': 'job0', 'node-name': 'crypt',
                                    'key-secret': 'key0', 'speed': 2 << 20,
                                    'hotzone-size': HOTZONE})
        while self.done(daemon) < SIZE // 3:
            client.write_some()
        client.nbd.flush()
        daemon.kill()
        data = bytes(client.data)
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 8 << 20})
        self.work_until_concluded(daemon, client)
        client.write_some()
        self.assertFails('driver=raw,offset=16777216', daemon.cmd,
                         'weir-detach', {'node-name': 'crypt'})
        client.check_all(self)
        client.close()
        daemon.quit()
        with open(self.disk, 'rb') as f:
            f.seek(HEADER_BYTES)
            self.assertEqual(f.read(), bytes(client.data))
        self.assertEqual(self.keyslots(), [])
        daemon = self.open()
        self.assertFails('not encrypted', self.add_crypt, daemon)
        daemon.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'plain',
                                    'file': 'disk', 'offset': HEADER_BYTES})
        client = self.export(daemon, 'plain', client.data)
        client.check_all(self)
        client.close()
        daemon.quit()

    # --- the data moves ---

    def moving_disk(self, seed=1):
        self.head = None
        data = random.Random(seed).randbytes(MOVING_SIZE)
        with open(self.disk, 'wb') as f:
            f.write(data)
        return data

    def test_encrypt_with_the_header_on_the_disk(self):
        data = self.moving_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=32 << 20, hotzone_size=4 << 20)
        self.assertEqual(self.filter_info(daemon, 'crypt')['state'], 'ok')
        self.assertGreater(self.work_until_concluded(daemon, client), 20)
        self.assertEqual(self.info(daemon), {
            'mode': 'encrypt', 'backward': True, 'total': MOVING_SIZE,
            'done': MOVING_SIZE, 'finished': True})
        self.assertEqual(client.nbd.get_size(), MOVING_SIZE)
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(os.path.getsize(self.disk),
                         HEADER_BYTES + MOVING_SIZE)
        self.assertEqual(self.found(), bytes(client.data))

    def moving_killed_on_the_way(self, at):
        data = self.moving_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=16 << 20, hotzone_size=4 << 20)
        while self.done(daemon) < at:
            client.write_some()
        client.nbd.flush()
        daemon.kill()
        return bytes(client.data)

    @unittest.skipUnless(ROOT, 'cryptsetup reencrypt wants root')
    def test_killed_while_the_data_moves(self):
        """By us, and by cryptsetup."""
        data = self.moving_killed_on_the_way(MOVING_SIZE // 3)
        copy = self.disk + '.copy'
        shutil.copyfile(self.disk, copy)
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        self.assertEqual(client.nbd.get_size(), MOVING_SIZE)
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 32 << 20})
        self.work_until_concluded(daemon, client)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))
        os.rename(copy, self.disk)
        self.finish_with_cryptsetup()
        self.assertEqual(self.found()[:MOVING_SIZE], data)

    def cryptsetup_moves(self):
        """It begins; returns the data, whose beginning has moved."""
        data = self.moving_disk()
        with open(self.disk, 'r+b') as f:
            f.truncate(MOVING_SIZE + 2 * HEADER_BYTES)
        cryptsetup('reencrypt', '--encrypt', '--init-only', '--type', 'luks2',
                   *CHEAP, '--key-file', self.key_file,
                   '--reduce-device-size', '32M', self.disk)
        return data

    @unittest.skipUnless(ROOT, 'cryptsetup reencrypt wants root')
    def test_cryptsetup_begins_to_move(self):
        data = self.cryptsetup_moves()
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 32 << 20})
        self.work_until_concluded(daemon, client)
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    @unittest.skipUnless(ROOT, 'cryptsetup reencrypt wants root')
    def test_header_on_its_way_to_the_beginning(self):
        """Its first sector is there, the rest behind the data."""
        data = self.cryptsetup_moves()
        with open(self.disk, 'r+b') as f:
            header = f.read(HEADER_BYTES)
            f.seek(MOVING_SIZE)
            f.write(header)
            f.seek(512)
            f.write(data[512:HEADER_BYTES])
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        client.write_some()
        client.check_all(self)
        client.close()
        daemon.quit()
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', client.data)
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 32 << 20})
        self.work_until_concluded(daemon, client)
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    def test_staged_header_does_not_count(self):
        """The disk is still plain; it is as if nothing had begun."""
        data = self.cryptsetup_moves()
        with open(self.disk, 'r+b') as f:
            header = f.read(HEADER_BYTES)
            f.seek(MOVING_SIZE)
            f.write(header)
            f.seek(0)
            f.write(data[:HEADER_BYTES])
        daemon = self.open()
        self.assertFails('no valid LUKS2 header', self.add_crypt, daemon)
        daemon.quit()

    def test_move_refused(self):
        self.head = None
        with open(self.disk, 'wb') as f:
            f.truncate(20 << 20)
        daemon = self.open()
        self.assertFails('too short to move', self.encrypt, daemon)
        self.assertFails('No secret', self.encrypt, daemon, key_secret='no')
        self.assertEqual(daemon.cmd('query-weir'), [])
        daemon.quit()
        self.assertEqual(os.path.getsize(self.disk), 20 << 20)
        self.head = None
        self.encrypted_disk(detached=False)
        daemon = self.open()
        self.assertFails('has a LUKS2 header already', self.encrypt, daemon)
        daemon.quit()

    # --- stopped on the way ---

    def test_cancel_and_resume(self):
        data = self.plain_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=SLOW)
        wait_for(lambda: self.done(daemon) > HOTZONE, 'a hotzone is done')
        self.assertFails('it has a job', daemon.cmd, 'weir-encryption-resume',
                         {'job-id': 'job1', 'node-name': 'crypt'})
        daemon.cmd('job-cancel', id='job0')
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'cancel')
        daemon.cmd('job-dismiss', id='job0')
        self.assertFails("only 'force'", daemon.cmd, 'weir-detach',
                         {'node-name': 'crypt'})
        done = self.done(daemon)
        self.assertEqual(done % HOTZONE, 0)
        self.assertLess(done, SIZE)
        client.write_some()
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 0})
        self.work_until_concluded(daemon, client)
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    def test_vector_instructions_are_used_if_allowed(self):
        """Also by a node that is opened half-way."""
        self.plain_disk()
        daemon = self.open()
        self.encrypt(daemon, speed=1)
        daemon.cmd('job-cancel', id='job0')
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'cancel')
        self.assertEqual(self.filter_info(daemon, 'crypt')['vaes-bits'],
                         vaes_bits(512))
        daemon.quit()
        for allowed in True, False:
            daemon = self.open()
            self.add_crypt(daemon, vaes=allowed)
            self.assertEqual(self.filter_info(daemon, 'crypt')['vaes-bits'],
                             vaes_bits(512) if allowed else 0)
            self.assertFalse(self.info(daemon)['finished'])
            daemon.quit()

    def test_disk_that_nobody_uses(self):
        """The job alone writes to it."""
        data = self.plain_disk()
        daemon = self.open()
        self.encrypt(daemon, speed=0)
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'the end')
        self.assertNotIn('error', self.job(daemon))
        daemon.quit()
        self.assertEqual(self.found(), data)

    def test_pause(self):
        data = self.plain_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=SLOW)
        wait_for(lambda: self.done(daemon) > 0, 'it has begun')
        daemon.cmd('job-pause', id='job0')
        wait_for(lambda: self.job(daemon)['status'] == 'paused', 'pause')
        done = self.done(daemon)
        time.sleep(0.3)
        self.assertEqual(self.done(daemon), done)
        client.check_all(self)
        daemon.cmd('job-resume', id='job0')
        wait_for(lambda: self.done(daemon) > done, 'it goes on')
        client.close()
        daemon.quit()

    def test_speed(self):
        data = self.plain_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=SLOW)
        wait_for(lambda: self.done(daemon) > 0, 'it has begun')
        for speed in (1, SLOW, 1):
            before = self.done(daemon)
            daemon.cmd('weir-encryption-set-speed', {'job-id': 'job0',
                                                     'speed': speed})
            if speed == SLOW:
                wait_for(lambda: self.done(daemon) > before, 'it goes on')
                continue
            time.sleep(0.5)                     # what was under way ends
            done = self.done(daemon)
            time.sleep(0.5)
            self.assertEqual(self.done(daemon), done)   # for ever, nearly
        self.assertFails("no job 'none'", daemon.cmd,
                         'weir-encryption-set-speed',
                         {'job-id': 'none', 'speed': 1})
        daemon.cmd('weir-encryption-set-speed', {'job-id': 'job0',
                                                 'speed': 0})
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'the end')
        self.assertFails("no job 'job0'", daemon.cmd,
                         'weir-encryption-set-speed',
                         {'job-id': 'job0', 'speed': 1})
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    def killed_on_the_way(self):
        """A disk, half encrypted, and what it must have."""
        data = self.plain_disk()
        daemon = self.open()
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=2 << 20)
        while self.done(daemon) < SIZE // 3:
            client.write_some()
        client.nbd.flush()
        daemon.kill()
        return bytes(client.data)

    def test_kill_and_resume(self):
        data = self.killed_on_the_way()
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 8 << 20})
        self.work_until_concluded(daemon, client)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    def finish_with_cryptsetup(self):
        place = ['--header', self.head] if self.head else []
        resume = ['reencrypt', '--resume-only', '--force-offline-reencrypt',
                  '--key-file', self.key_file, *place, self.disk]
        if cryptsetup(*resume, check=False).returncode:
            cryptsetup('repair', '--key-file', self.key_file, *place,
                       self.disk)
            if 'online-reencrypt' in cryptsetup('luksDump', self.head or
                                                self.disk).stdout:
                cryptsetup(*resume)

    @unittest.skipUnless(ROOT, 'cryptsetup reencrypt wants root')
    def test_kill_and_cryptsetup_finishes(self):
        data = self.killed_on_the_way()
        self.finish_with_cryptsetup()
        self.assertEqual(self.found(), data)

    @unittest.skipUnless(ROOT, 'cryptsetup reencrypt wants root')
    def test_rekey_killed_and_resumed(self):
        """The header is on the disk; by us, and by cryptsetup."""
        _, data = self.encrypted_disk(detached=False)
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        self.rekey(daemon, speed=2 << 20)
        while self.done(daemon) < SIZE // 3:
            client.write_some()
        client.nbd.flush()
        daemon.kill()
        data = bytes(client.data)
        copy = self.disk + '.copy'
        shutil.copyfile(self.disk, copy)
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        client.check_all(self)
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 8 << 20})
        self.work_until_concluded(daemon, client)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))
        os.rename(copy, self.disk)
        self.finish_with_cryptsetup()
        self.assertEqual(self.found(), data)

    @unittest.skipUnless(ROOT, 'cryptsetup reencrypt wants root')
    def test_cryptsetup_begins(self):
        data = self.plain_disk()
        os.unlink(self.head)
        cryptsetup('reencrypt', '--encrypt', '--init-only', '--type', 'luks2',
                   *CHEAP, '--key-file', self.key_file, '--header', self.head,
                   self.disk)
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data, unit=4096)
        client.write_some()
        daemon.cmd('weir-encryption-resume', {
            'job-id': 'job0', 'node-name': 'crypt', 'speed': 8 << 20})
        self.work_until_concluded(daemon, client)
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    # --- errors ---

    def test_write_error_stops_the_job(self):
        data = self.plain_disk()
        daemon = self.daemon('--object',
                             f'secret,id=key0,file={self.key_file}',
                             '--nbd-server', 'addr.type=unix,addr.path=' +
                             self.path('nbd'))
        daemon.cmd('blockdev-add', {
            'driver': 'blkdebug', 'node-name': 'disk',
            'image': {'driver': 'file', 'filename': self.disk},
            'inject-error': [{'event': 'none', 'iotype': 'write',
                              'sector': 4096, 'once': True}]})
        daemon.cmd('blockdev-add', {'driver': 'file', 'node-name': 'head',
                                    'filename': self.head})
        client = self.export(daemon, 'disk', data)
        self.encrypt(daemon, speed=0)
        wait_for(lambda: self.job(daemon)['status'] == 'paused', 'pause')
        self.assertIn('has stopped', self.filter_info(daemon,
                                                      'crypt')['reason'])
        client.check_all(self)
        self.resume(daemon)
        self.work_until_concluded(daemon, client)
        self.assertEqual(self.filter_info(daemon, 'crypt')['state'], 'ok')
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))

    def test_header_write_error_stops_the_job(self):
        """Of either copy, and of the area with the checksums."""
        data = self.plain_disk()
        for sector in (0, 32, 568):
            self.plain_disk()
            daemon = self.open()
            self.encrypt(daemon, speed=1)
            daemon.cmd('job-cancel', id='job0')
            wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'end')
            daemon.quit()
            daemon = self.open(head_options={
                'driver': 'blkdebug', 'image': {'driver': 'file',
                                                'filename': self.head},
                'filename': None, 'inject-error': [{
                    'event': 'none', 'iotype': 'write', 'sector': sector,
                    'errno': 5, 'once': True}]})
            self.add_crypt(daemon)
            client = self.export(daemon, 'crypt', data)
            daemon.cmd('weir-encryption-resume', {
                'job-id': 'job0', 'node-name': 'crypt', 'speed': 0})
            wait_for(lambda: self.job(daemon)['status'] == 'paused', 'pause')
            self.assertIn('has stopped: Input/output error',
                          self.filter_info(daemon, 'crypt')['reason'])
            client.check_all(self)
            self.resume(daemon)
            self.work_until_concluded(daemon, client)
            client.check_all(self)
            client.close()
            daemon.quit()
            self.assertEqual(self.found(), bytes(client.data))

    def test_refused(self):
        self.plain_disk()
        daemon = self.open()
        self.assertFails("Node 'none' not found", self.encrypt, daemon,
                         header='none')
        self.assertFails('hotzone-size', self.encrypt, daemon, hotzone_size=1)
        self.assertFails('sector-size', self.encrypt, daemon, sector_size=7)
        self.assertFails("No secret with id 'no'", self.encrypt, daemon,
                         key_secret='no')
        self.assertFails('not a weir-encryption', daemon.cmd,
                         'weir-encryption-resume',
                         {'job-id': 'j', 'node-name': 'disk'})
        daemon.quit()
        with open(self.head, 'r+b') as f:
            f.write(b'valuable')
        daemon = self.open()
        self.assertFails('is not blank', self.encrypt, daemon)
        daemon.quit()
        with open(self.head, 'rb') as f:
            self.assertEqual(f.read(8), b'valuable')

    def test_no_flush_is_refused(self):
        self.plain_disk()
        daemon = self.open(disk_options={'cache': {'no-flush': True}})
        self.assertFails('cache.no-flush', self.encrypt, daemon)
        daemon.quit()
        with open(self.head, 'rb') as f:
            self.assertEqual(f.read(4096), bytes(4096))

    def test_rekey_with_a_wrong_passphrase(self):
        _, data = self.encrypted_disk()
        daemon = self.open()
        self.add_crypt(daemon)
        client = self.export(daemon, 'crypt', data)
        with open(self.path('wrong'), 'w') as f:
            f.write('wrong')
        daemon.cmd('object-add', {'qom-type': 'secret', 'id': 'key1',
                                  'file': self.path('wrong')})
        self.assertFails('opens no keyslot', daemon.cmd, 'weir-rekey',
                         {'job-id': 'job0', 'node-name': 'crypt',
                          'key-secret': 'key1'})
        client.write_some()
        client.check_all(self)
        client.close()
        daemon.quit()
        self.assertEqual(self.found(), bytes(client.data))


if __name__ == '__main__':
    main()
