#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-encryption: images that are made here open with cryptsetup, keyslots
come and go while the disk is in use, and an error loses nothing."""

import json
import os
import threading

import nbd

from lukstest import PASSPHRASE, crypt, cryptsetup
from weirtest import (QMPError, TestCase, blockdev, main, run, statistics,
                      wait_for)

SIZE = 4 << 20
HEADER = 16 << 20
FAST = {'kdf': 'pbkdf2', 'kdf-iterations': 1000}


class Base(TestCase):
    def setUp(self):
        super().setUp()
        self.secrets = {}
        for name, text in (('first', PASSPHRASE), ('second', 'another one'),
                           ('third', 'the third'), ('wrong', 'wrong')):
            self.secrets[name] = self.path(name)
            with open(self.path(name), 'w') as f:
                f.write(text)

    def objects(self, *names):
        return [word for name in names or self.secrets
                for word in ('--object',
                             f'secret,id={name},file={self.secrets[name]}')]

    def create(self, name='disk', size=SIZE, check=True, **options):
        """With qemu-img; keywords with _ for -."""
        options = {'key-secret': 'first', **FAST, **{
            k.replace('_', '-'): v for k, v in options.items()}}
        return run('qemu-img', 'create', '-q', '-f', 'weir-encryption',
                   *self.objects(), '-o',
                   ','.join(f'{k}={v}' for k, v in options.items()),
                   self.path(name), str(size), check=check)

    def opens(self, name, passphrase, **kwargs):
        """According to cryptsetup."""
        return cryptsetup('open', '--test-passphrase', '--key-file',
                          self.secrets[passphrase], self.path(name),
                          check=False, **kwargs).returncode == 0

    def assertOpens(self, name, *passphrases):
        """These open it, and no others of the test's."""
        self.assertEqual([p for p in self.secrets if self.opens(name, p)],
                         list(passphrases))

    def metadata(self, name='disk'):
        return json.loads(cryptsetup('luksDump', '--dump-json-metadata',
                                     self.path(name)).stdout)

    def volume_key(self, name='disk'):
        cryptsetup('luksDump', '--dump-volume-key', '--volume-key-file',
                   self.path('vk'), '--key-file', self.secrets['first'],
                   self.path(name))
        with open(self.path('vk'), 'rb') as f:
            key = f.read()
        os.unlink(self.path('vk'))
        return key

    def bytes_of(self, name, at=0, n_bytes=-1):
        with open(self.path(name), 'rb') as f:
            f.seek(at)
            return f.read(n_bytes)

    def flip(self, name, *places):
        with open(self.path(name), 'r+b') as f:
            for place in places:
                f.seek(place)
                byte = f.read(1)[0]
                f.seek(place)
                f.write(bytes([byte ^ 0xff]))


    def assertErased(self, name, old_header):
        self.assertOpens(name)
        with open(self.path(name), 'r+b') as f:
            f.write(old_header[:32768])         # as from a backup
        self.assertOpens(name)


class Create(Base):
    """qemu-img create and the like"""

    def image_opts(self, name, header=None):
        return ','.join(['driver=weir-encryption,key-secret=first',
                         f'file.driver=file,file.filename={self.path(name)}'] +
                        ([f'header.driver=file,header.filename='
                          f'{self.path(header)}'] if header else []))

    def check_data(self, name, sector, header=None):
        """Write a pattern here, and decrypt it elsewhere."""
        result = run('qemu-io', *self.objects(), '--image-opts', '-c',
                     'write -P 0x5a 1M 64k', '-c', 'read -P 0x5a 1M 64k',
                     self.image_opts(name, header))
        self.assertNotIn('fail', result.stdout)
        offset = 0 if header else HEADER
        raw = self.bytes_of(name, offset + (1 << 20), 65536)
        key = self.volume_key(header or name)
        self.assertEqual(crypt(key, raw, sector, (1 << 20) // 512, True),
                         b'\x5a' * 65536)
        return key

    def test_options(self):
        uuid = '12345678-9abc-4def-8123-456789abcdef'
        for sector, bits, header in ((512, 256, None), (4096, 512, None),
                                     (4096, 256, 'head'), (512, 512, 'head')):
            self.create(sector_size=sector, key_bits=bits, uuid=uuid,
                        **({'header': self.path(header)} if header else {}))
            with_header = header or 'disk'
            self.assertEqual(os.path.getsize(self.path('disk')),
                             SIZE + (0 if header else HEADER))
            self.assertOpens(with_header, 'first')
            segment = self.metadata(with_header)['segments']['0']
            self.assertEqual(segment['sector_size'], sector)
            self.assertEqual(segment['offset'], '0' if header
                             else str(HEADER))
            self.assertEqual(cryptsetup('luksUUID', self.path(with_header))
                             .stdout.strip(), uuid)
            self.assertEqual(
                len(self.check_data('disk', sector, header)) * 8, bits)

    def kdf(self, name='disk', slot='0'):
        kdf = self.metadata(name)['keyslots'][slot]['kdf']
        del kdf['salt']
        return kdf

    def test_defaults(self):
        run('qemu-img', 'create', '-q', '-f', 'weir-encryption',
            *self.objects('first'), '-o', 'key-secret=first',
            self.path('disk'), str(SIZE))
        kdf = self.kdf()
        # libcryptsetup 2.6 takes no more than the machine has
        self.assertIn(kdf.pop('cpus'), (4, min(4, os.cpu_count())))
        self.assertEqual(kdf, {'type': 'argon2id', 'time': 4,
                               'memory': 262144})
        self.assertEqual(self.metadata()['segments']['0']['sector_size'], 512)
        self.assertEqual(len(self.check_data('disk', 512)), 64)

    def test_kdf(self):
        self.create(kdf='argon2i', kdf_iterations=5, kdf_memory='64k',
                    kdf_threads=1)
        self.assertEqual(self.kdf(), {'type': 'argon2i', 'time': 5,
                                      'memory': 64, 'cpus': 1})
        self.create(kdf='pbkdf2')
        self.assertEqual(self.kdf()['iterations'], 1000)
        self.assertEqual(self.kdf()['type'], 'pbkdf2')

    def test_preallocation(self):
        for mode in ('off', 'metadata', 'falloc', 'full'):
            self.create(preallocation=mode)
            blocks = os.stat(self.path('disk')).st_blocks * 512
            self.assertEqual(blocks >= HEADER + SIZE,
                             mode in ('falloc', 'full'), mode)
            self.assertOpens('disk', 'first')

    def test_convert(self):
        with open(self.path('plain'), 'wb') as f:
            f.write(os.urandom(1 << 20))
        run('qemu-img', 'convert', *self.objects('first'), '-O',
            'weir-encryption', '-o', 'key-secret=first,kdf=pbkdf2,'
            'kdf-iterations=1000', self.path('plain'), self.path('disk'))
        self.assertEqual(crypt(self.volume_key(), self.bytes_of('disk', HEADER),
                               512, decrypt=True), self.bytes_of('plain'))

    def test_info(self):
        self.create(sector_size=4096, header=self.path('head'))
        name = 'json:' + json.dumps({
            'driver': 'weir-encryption',
            'file': {'driver': 'file', 'filename': self.path('disk')},
            'header': {'driver': 'file', 'filename': self.path('head')}})
        info = json.loads(run('qemu-img', 'info', '--output=json',
                              name).stdout)
        self.assertTrue(info['encrypted'])
        self.assertEqual(info['virtual-size'], SIZE)
        data = info['format-specific']['data']
        self.assertEqual(data.pop('uuid'), cryptsetup(
            'luksUUID', self.path('head')).stdout.strip())
        self.assertEqual(data, {
            'cipher': 'aes-xts-plain64', 'key-bits': 512, 'sector-size': 4096,
            'data-offset': 0, 'header-size': HEADER, 'detached': True,
            'bound-length': SIZE,
            'damaged': False, 'key-slots': [
                {'key-slot': 0, 'kdf': 'pbkdf2', 'iterations': 1000,
                 'memory': 0, 'threads': 0}]})

    def test_measure(self):
        out = run('qemu-img', 'measure', '-O', 'weir-encryption', '--size',
                  str(SIZE), '--output=json').stdout
        self.assertEqual(json.loads(out)['required'], SIZE + HEADER)

    def test_errors_leave_the_file_alone(self):
        with open(self.path('disk'), 'wb') as f:
            f.write(b'precious')
        for text, options in (
                ('key-bits must be 256 or 512, not 384', {'key_bits': 384}),
                ('sector-size must be 512 or 4096, not 1024',
                 {'sector_size': 1024}),
                ('a multiple of the image\'s sectors of 4096 bytes',
                 {'sector_size': 4096, 'size': SIZE + 512}),
                ("No secret with id 'none'", {'key_secret': 'none'}),
                ('the header cannot be made', {'uuid': 'no-uuid'}),
                ('parameters for the keyslot are refused',
                 {'kdf_iterations': 1}),
                ('kdf-memory and kdf-threads are not for pbkdf2',
                 {'kdf_threads': 1}),
                ('kdf-memory must be a number of KiB',
                 {'kdf': 'argon2id', 'kdf_memory': 65537}),
                ("'scrypt'", {'kdf': 'scrypt'})):
            result = self.create(check=False, **options)
            self.assertNotEqual(result.returncode, 0, text)
            self.assertIn(text, result.stderr)
            self.assertEqual(self.bytes_of('disk'), b'precious')
        result = run('qemu-img', 'create', '-f', 'weir-encryption',
                     self.path('disk'), '4M', check=False)
        self.assertIn('key-secret', result.stderr)
        self.assertEqual(self.bytes_of('disk'), b'precious')

    def test_no_half_image(self):
        """The second file cannot be made: the first one goes as well."""
        result = self.create(check=False, header='/nonexistent/head')
        self.assertNotEqual(result.returncode, 0)
        self.assertFalse(os.path.exists(self.path('disk')))


class Amend(Base):
    """qemu-img amend"""

    def amend(self, *options, key='first', force=False, check=True):
        """Without a key: by the header alone."""
        opened = f'key-secret={key}' if key else 'header-only=on'
        return run('qemu-img', 'amend', *self.objects(),
                   *(['--force'] if force else []), '-o', ','.join(options),
                   '--image-opts', f'driver=weir-encryption,{opened},'
                   f'file.driver=file,file.filename={self.path("disk")}',
                   check=check)

    def assertRefused(self, text, *options, **kwargs):
        before = self.bytes_of('disk')
        result = self.amend(*options, check=False, **kwargs)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(text, result.stderr)
        self.assertEqual(self.bytes_of('disk'), before)

    def test_amend(self):
        fast = ('kdf=pbkdf2', 'kdf-iterations=1000')
        self.create()
        self.amend('state=active', 'new-secret=second', *fast)
        self.assertOpens('disk', 'first', 'second')
        self.amend('state=active', 'new-secret=third', 'old-secret=first',
                   *fast)
        self.assertOpens('disk', 'second', 'third')
        self.amend('state=inactive', 'old-secret=third', key='second')
        self.assertOpens('disk', 'second')
        self.assertRefused('keyslot 1 is the last one', 'state=inactive',
                           'key-slot=1', key='second')
        self.assertRefused('the passphrase opens no keyslot',
                           'state=inactive', 'old-secret=wrong', key='second')
        self.assertRefused("'new-secret' must be given", 'state=active',
                           key='second')
        self.assertRefused("Either 'key-slot' or 'old-secret'",
                           'state=inactive', key='second')
        for options in (['state=inactive', 'key-slot=1', *fast],
                        ['state=erased', 'kdf-memory=32M'],
                        ['state=bound', 'kdf-threads=1']):
            self.assertRefused("'kdf' and the like are for state=active",
                               *options, key='second', force=True)
        self.amend('state=inactive', 'key-slot=1', key='second', force=True)
        self.assertOpens('disk')

    def test_erase(self):
        """With a passphrase, or none; and once more."""
        for key in ('first', None):
            self.create()
            old = self.bytes_of('disk', 0, HEADER)
            self.assertRefused('needs --force', 'state=erased', key=key)
            self.assertRefused("'old-secret' and 'key-slot' are for",
                               'state=erased', 'key-slot=0', key=key,
                               force=True)
            self.amend('state=erased', key=key, force=True)
            self.assertErased('disk', old)
        self.amend('state=erased', key=None, force=True)
        self.assertErased('disk', old)

    def test_erase_of_a_damaged_header(self):
        self.create()
        old = self.bytes_of('disk', 0, HEADER)
        self.flip('disk', 4096 + 10)
        self.amend('state=erased', key=None, force=True)
        self.assertErased('disk', old)

    def test_header_only(self):
        self.create()
        self.amend('state=inactive', 'key-slot=0', key=None, force=True)
        self.assertOpens('disk')
        self.create()
        self.assertRefused("was opened without 'key-secret'", 'state=active',
                           'new-secret=second', key=None)
        self.amend('state=active', 'new-secret=second', 'old-secret=first',
                   'kdf=pbkdf2', 'kdf-iterations=1000', key=None)
        self.assertOpens('disk', 'second')
        before = self.bytes_of('disk')
        for command in ('read 0 512', 'write 0 512', 'discard 0 64k'):
            result = run('qemu-io', '--image-opts', '-d', 'unmap', '-c',
                         command, 'driver=weir-encryption,header-only=on,'
                         'file.driver=file,file.filename=' +
                         self.path('disk'), check=False)
            self.assertIn('Permission denied', result.stdout + result.stderr,
                          command)
        result = run('qemu-img', 'resize', '--image-opts',
                     'driver=weir-encryption,header-only=on,file.driver=file,'
                     f'file.filename={self.path("disk")}', '32M', check=False)
        self.assertIn('opened for its header only', result.stderr)
        self.assertEqual(self.bytes_of('disk'), before)


class Commands(Base):
    """The storage daemon"""

    def open(self, name='disk', header=None, export=True, fault=None,
             read_only=False):
        """file <- (blkdebug) <- weir-encryption <- NBD"""
        with_header = header or name
        nodes = {'file': name, 'header': header}
        args = []
        options = {}
        for child, image in nodes.items():
            if not image:
                continue
            args += ['--blockdev', blockdev(
                driver='file', node_name=f'{child}0',
                filename=self.path(image), discard='unmap',
                read_only=read_only)]
            options[child] = f'{child}0'
            if fault and image == with_header:
                args += ['--blockdev', json.dumps({
                    'driver': 'blkdebug', 'node-name': f'{child}1',
                    'image': f'{child}0', 'inject-error': fault})]
                options[child] = f'{child}1'
        self.sock = self.path('nbd.sock')
        daemon = self.daemon(
            *self.objects(), *args, '--blockdev', blockdev(
                driver='weir-encryption', node_name='enc', key_secret='first',
                read_only=read_only, **options),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
            *(['--export', 'nbd,id=exp,node-name=enc,name=disk,writable=on']
              if export else []))
        return daemon

    def connect(self):
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        return client

    def job(self, daemon, command, fails=None, **arguments):
        """Run it to its end; FAILS is a part of the error."""
        daemon.cmd(command, {'job-id': 'j', **{
            k.replace('_', '-'): v for k, v in arguments.items()}})

        def concluded():
            job, = daemon.cmd('query-jobs')
            return job if job['status'] == 'concluded' else None
        job = wait_for(concluded, command)
        daemon.cmd('job-dismiss', id='j')
        if fails:
            self.assertIn(fails, job.get('error', 'no error'))
        else:
            self.assertNotIn('error', job)

    def slots(self, daemon):
        return [k['key-slot']
                for k in self.filter_info(daemon, 'enc')['key-slots']]

    def perms(self, daemon, parent='enc'):
        g = daemon.cmd('x-debug-query-block-graph')
        names = {n['id']: n['name'] for n in g['nodes']}
        return {(e['name'], 'write' in e['perm']) for e in g['edges']
                if names[e['parent']] == parent}


class CreateCommand(Commands):
    def nodes(self, **sizes):
        args = []
        for name, size in sizes.items():
            with open(self.path(name), 'wb') as f:
                f.write(b'\x77' * size)
            args += ['--blockdev', blockdev(driver='file', node_name=name,
                                            filename=self.path(name))]
        return self.daemon(*self.objects(), *args)

    def blockdev_create(self, daemon, fails=None, **options):
        self.job(daemon, 'blockdev-create', fails, options={
            'driver': 'weir-encryption', 'key-secret': 'first', **FAST,
            **{k.replace('_', '-'): v for k, v in options.items()}})

    def test_attached(self):
        daemon = self.nodes(disk=0)
        self.blockdev_create(daemon, file='disk', size=SIZE)
        daemon.quit()
        self.assertOpens('disk', 'first')
        self.assertEqual(os.path.getsize(self.path('disk')), HEADER + SIZE)

    def test_existing_bytes(self):
        """Without a size the disk stays as long as it is."""
        daemon = self.nodes(disk=HEADER + SIZE)
        self.blockdev_create(daemon, file='disk', sector_size=4096)
        daemon.quit()
        self.assertOpens('disk', 'first')
        self.assertEqual(self.bytes_of('disk', HEADER), b'\x77' * SIZE)
        self.assertNotIn(b'\x77' * 512, self.bytes_of('disk', 0, HEADER))

    def test_detached(self):
        daemon = self.nodes(disk=SIZE, head=0)
        self.blockdev_create(daemon, file='disk', header='head')
        daemon.quit()
        self.assertOpens('head', 'first')
        self.assertEqual(self.bytes_of('disk'), b'\x77' * SIZE)

    def test_header_alone(self):
        daemon = self.nodes(head=0)
        self.blockdev_create(daemon, header='head')
        daemon.quit()
        self.assertOpens('head', 'first')

    def test_over_an_old_image(self):
        self.create('disk')
        daemon = self.daemon(*self.objects(), '--blockdev', blockdev(
            driver='file', node_name='disk', filename=self.path('disk')))
        self.job(daemon, 'blockdev-create', options={
            'driver': 'weir-encryption', 'file': 'disk', 'size': SIZE,
            'key-secret': 'second', **FAST})
        daemon.quit()
        self.assertOpens('disk', 'second')

    def test_errors(self):
        daemon = self.nodes(disk=1 << 20)
        self.blockdev_create(daemon, "Either 'file' or 'header'")
        self.blockdev_create(daemon, 'A size needs', header='disk', size=SIZE)
        self.blockdev_create(daemon, 'has no room for the header',
                             file='disk')
        self.blockdev_create(daemon, 'preallocation needs a size', file='disk',
                             preallocation='full')
        self.blockdev_create(daemon, 'The size is too large', file='disk',
                             size=(1 << 63) - 512)
        self.blockdev_create(daemon, "No secret with id 'none'", file='disk',
                             key_secret='none')
        daemon.quit()
        self.assertEqual(self.bytes_of('disk'), b'\x77' * (1 << 20))

    def test_node_in_use(self):
        self.create('disk')
        daemon = self.open()
        before = self.bytes_of('disk')
        self.blockdev_create(daemon, 'Permission conflict', file='file0',
                             size=SIZE)
        daemon.quit()
        self.assertEqual(self.bytes_of('disk'), before)


class Keyslots(Commands):
    def test_while_a_client_writes(self):
        for header in (None, 'head'):
            self.create(**({'header': self.path(header)} if header else {}))
            self.check_while_a_client_writes(header)

    def check_while_a_client_writes(self, header):
        with_header = header or 'disk'
        daemon = self.open(header=header)
        writes, errors, stop = [], [], threading.Event()

        def write():
            client = self.connect()
            try:
                while not stop.is_set():
                    i = len(writes)
                    client.pwrite(bytes([i % 256]) * 4096,
                                  i * 4096 % SIZE)
                    writes.append(i)
                client.flush()
                client.shutdown()
            except nbd.Error as e:
                errors.append(e)
        thread = threading.Thread(target=write)
        thread.start()
        wait_for(lambda: len(writes) > 5, 'writes')
        self.job(daemon, 'weir-keyslot-add', node_name='enc',
                 new_secret='second', key_slot=7, **FAST)
        self.assertEqual(self.slots(daemon), [0, 7])
        self.job(daemon, 'weir-keyslot-change', node_name='enc',
                 old_secret='first', new_secret='third', **FAST)
        self.assertEqual(self.slots(daemon), [0, 7])
        self.job(daemon, 'weir-keyslot-remove', node_name='enc', key_slot=7)
        self.assertEqual(self.slots(daemon), [0])
        self.job(daemon, 'weir-keyslot-add', node_name='enc',
                 new_secret='first', secret='third', **FAST)
        stop.set()
        thread.join()
        self.assertEqual(errors, [])
        daemon.quit()
        self.assertOpens(with_header, 'first', 'third')
        key = self.volume_key(with_header)
        first = max(0, len(writes) - SIZE // 4096)
        for i in range(first, len(writes)):
            at = i * 4096 % SIZE
            raw = self.bytes_of('disk', (0 if header else HEADER) + at, 4096)
            self.assertEqual(crypt(key, raw, 512, at // 512, True),
                             bytes([i % 256]) * 4096)

    def test_permission_only_for_the_change(self):
        self.create(header=self.path('head'))
        daemon = self.open(header='head')
        before = self.perms(daemon)
        self.assertIn(('header', False), before)
        daemon.cmd('weir-keyslot-add', {
            'job-id': 'j', 'node-name': 'enc', 'new-secret': 'second',
            'kdf': 'pbkdf2', 'kdf-iterations': 500000})
        self.assertIn(('header', True), self.perms(daemon))
        self.assertFails('is being changed', daemon.cmd,
                         'weir-encryption-repair',
                         {'job-id': 'k', 'node-name': 'enc'})
        wait_for(lambda: daemon.cmd('query-jobs')[0]['status'] == 'concluded',
                 'the keyslot')
        self.assertEqual(self.perms(daemon), before)  # not yet dismissed
        daemon.cmd('job-dismiss', id='j')
        daemon.quit()
        self.assertOpens('head', 'first', 'second')

    def test_cancel(self):
        self.create()
        daemon = self.open()
        before = self.bytes_of('disk', 0, HEADER)
        daemon.cmd('weir-keyslot-add', {
            'job-id': 'j', 'node-name': 'enc', 'new-secret': 'second',
            'kdf': 'pbkdf2', 'kdf-iterations': 500000})
        daemon.cmd('job-cancel', id='j')
        wait_for(lambda: daemon.cmd('query-jobs')[0]['status'] == 'concluded',
                 'the end')
        daemon.cmd('job-dismiss', id='j')
        self.assertEqual(self.slots(daemon), [0])
        daemon.quit()
        self.assertEqual(self.bytes_of('disk', 0, HEADER), before)

    def test_end_of_the_program(self):
        """It drains all disks, and then waits for the jobs."""
        self.create()
        daemon = self.open()
        daemon.cmd('weir-keyslot-add', {
            'job-id': 'j', 'node-name': 'enc', 'new-secret': 'second',
            'kdf': 'pbkdf2', 'kdf-iterations': 500000})
        daemon.quit()
        self.assertTrue(self.opens('disk', 'first'))

    def test_end_between_two_writes(self):
        self.create(header=self.path('head'))
        daemon = self.daemon(
            *self.objects(), '--object',
            'throttle-group,id=slow,limits.iops-total=2',
            '--blockdev', blockdev(driver='file', node_name='disk',
                                   filename=self.path('disk')),
            '--blockdev', blockdev(driver='file', node_name='head',
                                   filename=self.path('head')),
            '--blockdev', blockdev(driver='weir-inspect', node_name='below',
                                   file='head'),
            '--blockdev', blockdev(driver='throttle', node_name='throttle',
                                   file='below', throttle_group='slow'),
            '--blockdev', blockdev(driver='weir-encryption', node_name='enc',
                                   file='disk', header='throttle',
                                   key_secret='first'))
        daemon.cmd('weir-keyslot-add', {
            'job-id': 'j', 'node-name': 'enc', 'new-secret': 'second', **FAST})
        wait_for(lambda: statistics(self.filter_info(daemon, 'below'))
                 ['write']['requests'] > 0, 'a write')
        daemon.quit()
        self.assertTrue(self.opens('head', 'first'))

    def refused(self, daemon, text, command, **arguments):
        """At once, or by the job."""
        try:
            self.job(daemon, command, text, node_name='enc', **arguments)
        except QMPError as e:
            self.assertIn(text, str(e))

    def test_errors(self):
        self.create()
        daemon = self.open()
        before = self.bytes_of('disk')
        for text, command, arguments in (
                ('the passphrase opens no keyslot', 'weir-keyslot-add',
                 {'new_secret': 'second', 'secret': 'wrong', **FAST}),
                ('keyslot 0 is in use', 'weir-keyslot-add',
                 {'new_secret': 'second', 'key_slot': 0, **FAST}),
                ('key-slot must be less than 32', 'weir-keyslot-add',
                 {'new_secret': 'second', 'key_slot': 32, **FAST}),
                ("No secret with id 'none'", 'weir-keyslot-add',
                 {'new_secret': 'none'}),
                ('the passphrase opens no keyslot', 'weir-keyslot-change',
                 {'old_secret': 'wrong', 'new_secret': 'second', **FAST}),
                ('keyslot 0 is the last one', 'weir-keyslot-remove',
                 {'key_slot': 0}),
                ('keyslot 3 is not in use', 'weir-keyslot-remove',
                 {'key_slot': 3}),
                ('keyslot 0 is the last one', 'weir-keyslot-remove',
                 {'old_secret': 'first'}),
                ("Either 'key-slot' or 'old-secret'", 'weir-keyslot-remove',
                 {'key_slot': 0, 'old_secret': 'first'})):
            self.refused(daemon, text, command, **arguments)
        self.assertFails('is not a weir-encryption node', daemon.cmd,
                         'weir-keyslot-remove', {
                             'job-id': 'j', 'node-name': 'file0',
                             'key-slot': 0})
        self.assertEqual(self.slots(daemon), [0])
        daemon.quit()
        self.assertEqual(self.bytes_of('disk'), before)

    def test_read_only_header(self):
        self.create()
        daemon = self.open(export=False, read_only=True)
        self.refused(daemon, 'read-only', 'weir-keyslot-add',
                     new_secret='second', **FAST)
        daemon.quit()
        self.assertOpens('disk', 'first')

    def test_write_error(self):
        """In each part of the header; the old passphrase opens it anyway."""
        for sector in (0, 32, 1000):    # first copy, second copy, area
            for iotype in ('write', 'flush'):
                self.create()
                daemon = self.open(fault=[{
                    'event': 'none', 'errno': 5, 'iotype': iotype,
                    'immediately': True,
                    **({'sector': sector} if iotype == 'write' else {})}])
                self.job(daemon, 'weir-keyslot-add',
                         'Cannot write the header to node \'file1\'',
                         node_name='enc', new_secret='second', **FAST)
                client = self.connect()
                client.pwrite(b'\x42' * 4096, 0)
                client.shutdown()
                daemon.kill()
                self.assertTrue(self.opens('disk', 'first'), (sector, iotype))

    def test_repair(self):
        for place in (4096 + 10, 16384 + 4096 + 10):
            self.create()
            self.flip('disk', place)
            daemon = self.open()
            self.assertEqual(self.filter_info(daemon, 'enc')['state'],
                             'degraded')
            self.job(daemon, 'weir-encryption-repair', node_name='enc')
            self.assertEqual(self.filter_info(daemon, 'enc')['state'], 'ok')
            daemon.quit()
            other = 16384 + 4096 + 10 if place < 16384 else 4096 + 10
            self.flip('disk', other)
            self.assertOpens('disk', 'first')


class Erase(Commands):
    def test_open(self):
        self.create()
        old = self.bytes_of('disk', 0, HEADER)
        daemon = self.open()
        self.job(daemon, 'weir-encryption-erase', node_name='enc')
        info = self.filter_info(daemon, 'enc')
        self.assertEqual(info['key-slots'], [])
        self.assertEqual(info['state'], 'degraded')
        self.assertIn('no keyslot is left', info['reason'])
        client = self.connect()
        client.pwrite(b'\x42' * 4096, 0)
        client.shutdown()
        daemon.quit()
        self.assertErased('disk', old)

    def test_closed(self):
        self.create()
        old = self.bytes_of('disk', 0, HEADER)
        daemon = self.daemon('--blockdev', blockdev(
            driver='file', node_name='disk', filename=self.path('disk')))
        for _ in range(2):
            self.job(daemon, 'weir-encryption-erase', node_name='disk')
        daemon.quit()
        self.assertErased('disk', old)

    def test_not_encrypted(self):
        with open(self.path('disk'), 'wb') as f:
            f.write(b'\x77' * SIZE)
        daemon = self.daemon('--blockdev', blockdev(
            driver='file', node_name='disk', filename=self.path('disk')))
        self.job(daemon, 'weir-encryption-erase', 'no valid LUKS2 header',
                 node_name='disk')
        daemon.quit()
        self.assertEqual(self.bytes_of('disk'), b'\x77' * SIZE)


if __name__ == '__main__':
    main()
