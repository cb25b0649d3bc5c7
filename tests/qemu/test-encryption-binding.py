#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-encryption: a detached header is taken for that of its own disk only,
as far as the length tells, and that stays true when the disk is resized."""

import json
import os
import re

import nbd

from lukstest import CHEAP, PASSPHRASE, Image, cryptsetup
from weirtest import QMPError, TestCase, blockdev, main, run, wait_for

SIZE = 4 << 20
NO_LIMIT = (1 << 63) - 1
FAST = {'kdf': 'pbkdf2', 'kdf-iterations': 1000}


class Binding(TestCase):
    def setUp(self):
        super().setUp()
        with open(self.path('pass'), 'w') as f:
            f.write(PASSPHRASE)
        self.secret = ['--object', f'secret,id=key0,file={self.path("pass")}']

    def create(self, name='a', size=SIZE, detached=True):
        """NAME.img and its header NAME.hdr."""
        options = {'key-secret': 'key0', **FAST}
        if detached:
            options['header'] = self.path(name + '.hdr')
        run('qemu-img', 'create', '-q', '-f', 'weir-encryption', *self.secret,
            '-o', ','.join(f'{k}={v}' for k, v in options.items()),
            self.path(name + '.img'), str(size))

    def options(self, disk='a', head='a', read_only=False, **more):
        return {'driver': 'weir-encryption', 'key-secret': 'key0',
                'file': {'driver': 'file',
                         'filename': self.path(disk + '.img')},
                'header': {'driver': 'file', 'read-only': read_only,
                           'filename': self.path(head + '.hdr')},
                **{k.replace('_', '-'): v for k, v in more.items()}}

    def io(self, *commands, check=True, **where):
        args = [word for c in commands for word in ('-c', c)]
        result = run('qemu-io', *self.secret, *args,
                     'json:' + json.dumps(self.options(**where)), check=check)
        if check:
            self.assertNotIn('fail', result.stdout)
            self.assertNotIn('error', result.stdout)
        return result

    def assertRefused(self, *texts, **where):
        result = self.io('length', check=False, **where)
        self.assertNotEqual(result.returncode, 0, texts)
        for text in texts:
            self.assertIn(text, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)

    def amend(self, *options, check=True, **where):
        opts = self.options(**where)
        flat = ','.join([f'{k}={v}' for k, v in opts.items()
                         if not isinstance(v, dict)] +
                        [f'{c}.{k}={v}' for c in ('file', 'header')
                         for k, v in opts[c].items()]).replace(
                             'False', 'off').replace('True', 'on')
        return run('qemu-img', 'amend', *self.secret, '-o',
                   ','.join(options), '--image-opts', flat, check=check)

    def info(self, **where):
        """Without the passphrase."""
        options = self.options(**where)
        del options['key-secret']
        out = run('qemu-img', 'info', '--output=json',
                  'json:' + json.dumps(options)).stdout
        return json.loads(out)['format-specific']['data']

    def resize(self, *args, check=True, **where):
        return run('qemu-img', 'resize', *self.secret, *args[:-1],
                   'json:' + json.dumps(self.options(**where)), str(args[-1]),
                   check=check)

    def tokens(self, head='a'):
        """Ours, and nothing else that has come."""
        metadata = json.loads(cryptsetup('luksDump', '--dump-json-metadata',
                                         self.path(head + '.hdr')).stdout)
        return list(metadata['tokens'].values())

    def assertBound(self, least, most=None, head='a'):
        expected = {'type': 'weir-data', 'keyslots': [], 'length': str(least)}
        if most is not None:
            expected['length-max'] = str(most)
        self.assertEqual(self.tokens(head), [expected])

    def length(self, disk='a'):
        return os.path.getsize(self.path(disk + '.img'))

    # --- who binds it ---

    def test_images_of_qemu_img(self):
        self.create()
        self.assertBound(SIZE)
        self.io('write -P 7 0 64k', 'read -P 7 0 64k')
        self.assertBound(SIZE)
        self.assertEqual(self.info()['bound-length'], SIZE)
        self.create('attached', detached=False)
        os.rename(self.path('attached.img'), self.path('attached.hdr'))
        self.assertEqual(self.tokens('attached'), [])

    def job(self, daemon, command, fails=None, **arguments):
        daemon.cmd(command, {'job-id': 'j', **{
            k.replace('_', '-'): v for k, v in arguments.items()}})
        wait_for(lambda: daemon.cmd('query-jobs')[0]['status'] == 'concluded',
                 command)
        error = daemon.cmd('query-jobs')[0].get('error', 'no error')
        daemon.cmd('job-dismiss', id='j')
        self.assertIn(fails or 'no error', error)

    def nodes(self, disk='a', head='a'):
        return [word for name, file in (('disk', disk + '.img'),
                                        ('head', head + '.hdr'))
                for word in ('--blockdev', blockdev(
                    driver='file', node_name=name, filename=self.path(file)))]

    def test_images_of_blockdev_create(self):
        for size, sector, bound in ((None, 4096, SIZE), (2 << 20, 512,
                                                         2 << 20)):
            for name, length in (('a.img', SIZE + 512), ('a.hdr', 0)):
                with open(self.path(name), 'wb') as f:
                    f.truncate(length)
            daemon = self.daemon(*self.secret, *self.nodes())
            self.job(daemon, 'blockdev-create', options={
                'driver': 'weir-encryption', 'file': 'disk', 'header': 'head',
                'key-secret': 'key0', 'sector-size': sector, **FAST,
                **({'size': size} if size else {})})
            daemon.quit()
            self.assertBound(bound)
            self.io('write 0 4k')

    def test_header_alone(self):
        with open(self.path('a.hdr'), 'wb'):
            pass
        with open(self.path('a.img'), 'wb') as f:
            f.truncate(SIZE)
        daemon = self.daemon(*self.secret, *self.nodes())
        self.job(daemon, 'blockdev-create', options={
            'driver': 'weir-encryption', 'header': 'head',
            'key-secret': 'key0', **FAST})
        daemon.quit()
        self.assertEqual(self.tokens(), [])
        self.io('write 0 4k')

    def test_encrypted_and_rekeyed_in_place(self):
        for name, length in (('a.img', SIZE), ('a.hdr', 16 << 20)):
            with open(self.path(name), 'wb') as f:
                f.truncate(length)
        daemon = self.daemon(*self.secret, *self.nodes())
        self.job(daemon, 'weir-encrypt', node_name='disk', header='head',
                 filter_node_name='crypt', key_secret='key0', speed=0, **FAST)
        self.assertEqual(self.filter_info(daemon, 'crypt')['bound-length'],
                         SIZE)
        daemon.quit()
        self.assertBound(SIZE)
        self.io('read -P 0 0 4M')
        daemon = self.daemon(*self.secret, *self.nodes(), '--blockdev',
                             blockdev(driver='weir-encryption',
                                      node_name='crypt', file='disk',
                                      header='head', key_secret='key0'))
        self.job(daemon, 'weir-rekey', node_name='crypt', key_secret='key0',
                 speed=0, **FAST)
        self.assertFails('cannot be resized', daemon.cmd, 'block_resize', {
            'node-name': 'crypt', 'size': 2 * SIZE})
        daemon.quit()
        self.assertBound(SIZE)
        self.io('read -P 0 0 4M')

    # --- what is refused ---

    def test_header_of_another_disk(self):
        self.create('a')
        self.create('b', size=2 * SIZE)
        self.io('write -P 1 0 64k', disk='a', head='a')
        texts = ('is for a disk with', 'bytes of data', 'check-length=off')
        self.assertRefused(str(SIZE), str(2 * SIZE), *texts, disk='b',
                           head='a')
        self.assertRefused(str(SIZE), str(2 * SIZE), *texts, disk='a',
                           head='b')
        self.io('read -P 1 0 64k', disk='a', head='a')
        self.io('read 0 64k', disk='a', head='b', check_length=False)
        result = self.io('read -P 1 0 64k', disk='a', head='b',
                         check_length=False, check=False)
        self.assertIn('Pattern verification failed', result.stdout)
        self.assertEqual(self.info(disk='a', head='b')['bound-length'],
                         2 * SIZE)

    def test_half_converted_disk_with_the_wrong_header(self):
        for name, length in (('a.img', SIZE), ('b.img', 2 * SIZE),
                             ('a.hdr', 16 << 20)):
            with open(self.path(name), 'wb') as f:
                f.truncate(length)
        daemon = self.daemon(*self.secret, *self.nodes())
        daemon.cmd('weir-encrypt', {
            'job-id': 'j', 'node-name': 'disk', 'header': 'head',
            'filter-node-name': 'crypt', 'key-secret': 'key0', 'speed': 1,
            'hotzone-size': 65536, **FAST})
        daemon.cmd('job-cancel', id='j')
        wait_for(lambda: daemon.cmd('query-jobs')[0]['status'] == 'concluded',
                 'the end')
        daemon.quit()
        self.io('read -P 0 0 4M')
        self.assertRefused(str(SIZE), str(2 * SIZE), disk='b')

    def test_header_of_cryptsetup(self):
        image = Image(self.dir, SIZE, name='b', detached=True)
        os.rename(image.header, self.path('b.hdr'))
        self.io('write -P 1 0 64k', disk='b', head='b')
        with open(image.path, 'r+b') as f:
            f.truncate(2 * SIZE)
        self.io('read -P 1 0 64k', disk='b', head='b')
        self.resize(SIZE * 3, disk='b', head='b')
        self.assertEqual(self.tokens('b'), [])
        self.amend('state=bound', disk='b', head='b')
        self.assertBound(3 * SIZE, head='b')

    def test_cryptsetup_keeps_it(self):
        self.create()
        with open(self.path('other'), 'w') as f:
            f.write('another one')
        head = self.path('a.hdr')
        cryptsetup('luksAddKey', *CHEAP, '--key-file', self.path('pass'), head,
                   self.path('other'))
        cryptsetup('luksKillSlot', '--key-file', self.path('pass'), head, 1)
        cryptsetup('config', '--label', 'x', head)
        self.assertBound(SIZE)
        self.create('b', size=2 * SIZE)
        self.assertRefused(str(SIZE), disk='b', head='a')

    def set_token(self, text):
        with open(self.path('token'), 'w') as f:
            f.write(text)
        cryptsetup('token', 'import', '--json-file', self.path('token'),
                   self.path('a.hdr'))

    def test_bad_tokens(self):
        bad = 'is not valid, or not the only one of them'
        self.create()
        self.set_token('{"type":"weir-data","keyslots":[],"length":"1"}')
        self.assertRefused(bad)
        cryptsetup('token', 'remove', '--token-id', 1, self.path('a.hdr'))
        self.io('length')
        cryptsetup('token', 'remove', '--token-id', 0, self.path('a.hdr'))
        for members in ('', ',"length":"-1"', ',"length":[]',
                        ',"length":"2","length-max":"1"',
                        ',"length":"1","length-max":"9223372036854775808"'):
            self.set_token('{"type":"weir-data","keyslots":[]' + members + '}')
            self.assertRefused(bad)
            cryptsetup('token', 'remove', '--token-id', 0, self.path('a.hdr'))
        self.set_token('{"type":"other","keyslots":[],"length":"1"}')
        self.io('length')

    # --- resize ---

    def test_resize(self):
        self.create()
        self.io('write -P 1 0 64k')
        for args in ((2 * SIZE,), ('--shrink', SIZE), (SIZE + 512,)):
            self.resize(*args)
            self.assertEqual(self.length(), args[-1])
            self.assertBound(args[-1])
            self.io('read -P 1 0 64k')
            self.assertTrue(cryptsetup('open', '--test-passphrase',
                                       '--key-file', self.path('pass'),
                                       self.path('a.hdr')).returncode == 0)

    def test_resize_elsewhere(self):
        self.create()
        with open(self.path('a.img'), 'r+b') as f:
            f.truncate(2 * SIZE)
        self.assertRefused(str(SIZE), str(2 * SIZE))
        self.io('read 0 4k', check_length=False)
        self.amend('state=bound', check_length=False)
        self.assertBound(2 * SIZE)
        self.io('length')

    def daemon_with_crypt(self, *more, read_only=False, header='head',
                          **options):
        nodes = self.nodes()
        if read_only:
            nodes[-1] = nodes[-1].replace('}', ', "read-only": true}')
        return self.daemon(
            *self.secret, *nodes, *more,
            '--blockdev', blockdev(driver='weir-encryption',
                                   node_name='crypt', file='disk',
                                   header=header, key_secret='key0',
                                   **options),
            '--nbd-server', f'addr.type=unix,addr.path={self.path("nbd")}')

    def connect(self):
        client = nbd.NBD()
        client.connect_unix(self.path('nbd'))
        return client

    def test_resize_with_a_header_that_is_read_only(self):
        self.create()
        daemon = self.daemon_with_crypt(read_only=True)
        self.assertFails("is bound to the length of the disk, and is "
                         "read-only", daemon.cmd, 'block_resize',
                         {'node-name': 'crypt', 'size': 2 * SIZE})
        self.assertEqual(self.length(), SIZE)
        daemon.quit()
        daemon = self.daemon_with_crypt(read_only=True, check_length=False)
        daemon.cmd('block_resize', {'node-name': 'crypt', 'size': 2 * SIZE})
        daemon.quit()
        self.assertRefused(str(SIZE), str(2 * SIZE))
        daemon = self.daemon_with_crypt(check_length=False)
        self.job(daemon, 'weir-encryption-bind', node_name='crypt')
        self.assertEqual(self.filter_info(daemon, 'crypt')['bound-length'],
                         2 * SIZE)
        daemon.quit()
        self.io('length')
        self.assertBound(2 * SIZE)

    def test_resize_while_the_header_changes(self):
        self.create()
        daemon = self.daemon_with_crypt()
        daemon.cmd('weir-keyslot-add', {
            'job-id': 'j', 'node-name': 'crypt', 'new-secret': 'key0',
            'kdf': 'pbkdf2', 'kdf-iterations': 3000000})
        self.assertFails('is being changed', daemon.cmd, 'block_resize',
                         {'node-name': 'crypt', 'size': 2 * SIZE})
        wait_for(lambda: daemon.cmd('query-jobs')[0]['status'] == 'concluded',
                 'the keyslot')
        daemon.cmd('block_resize', {'node-name': 'crypt', 'size': 2 * SIZE})
        daemon.quit()
        self.assertBound(2 * SIZE)

    def test_header_that_cannot_be_written(self):
        """The disk keeps its length, then, and the header fits."""
        for sector in (0, 32):
            self.create()
            daemon = self.daemon_with_crypt('--blockdev', json.dumps({
                'driver': 'blkdebug', 'node-name': 'fault', 'image': 'head',
                'inject-error': [{'event': 'none', 'iotype': 'write',
                                  'errno': 5, 'sector': sector,
                                  'once': True}]}), header='fault')
            self.assertFails('Cannot write the header', daemon.cmd,
                             'block_resize', {'node-name': 'crypt',
                                              'size': 2 * SIZE})
            self.assertEqual(self.length(), SIZE)
            daemon.quit()
            self.io('length')

    def killed_in_a_resize(self, size, until):
        """Between two writes to the header, which are slow."""
        daemon = self.daemon_with_crypt(
            '--object', 'throttle-group,id=slow,limits.iops-total=4',
            '--blockdev', blockdev(driver='weir-inspect', node_name='below',
                                   file='head'),
            '--blockdev', blockdev(driver='throttle', node_name='throttle',
                                   file='below', throttle_group='slow'),
            header='throttle')
        json.dump({'execute': 'block_resize', 'arguments': {
            'node-name': 'crypt', 'size': size}}, daemon.qmp.file)
        daemon.qmp.file.flush()
        wait_for(lambda: until(), 'the resize is under way')
        daemon.kill()

    def number(self):
        """Of the header, in its first copy."""
        with open(self.path('a.hdr'), 'rb') as f:
            f.seek(16)
            return int.from_bytes(f.read(8), 'big')

    def test_killed_before_and_after_the_resize(self):
        for size in (2 * SIZE, SIZE // 2):
            self.create()
            before = self.number()
            self.killed_in_a_resize(size, lambda: self.number() > before)
            least, most = sorted((size, SIZE))
            self.io('length')
            self.create()
            self.killed_in_a_resize(size, lambda: self.length() == size)
            self.assertBound(least, most)
            self.io('length')
            self.amend('state=bound')
            self.assertBound(size)
            self.assertRefusedAt(SIZE, size)

    def assertRefusedAt(self, length, bound):
        with open(self.path('a.img'), 'r+b') as f:
            f.truncate(length)
        self.assertRefused(str(length), str(bound))

    # --- a format above that grows ---

    def with_qcow2(self, read_only=False):
        self.create(size=1 << 20)
        daemon = self.daemon_with_crypt()
        self.job(daemon, 'blockdev-create', options={
            'driver': 'qcow2', 'file': 'crypt', 'size': 32 << 20})
        daemon.quit()
        self.size_before = self.length()
        daemon = self.daemon_with_crypt(read_only=read_only)
        daemon.cmd('blockdev-add', driver='qcow2', node_name='top',
                   file='crypt')
        daemon.cmd('block-export-add', type='nbd', id='exp', name='',
                   node_name='top', writable=True)
        return daemon

    def test_growing(self):
        daemon = self.with_qcow2()
        client = self.connect()
        for i in range(4):
            client.pwrite(bytes([i + 1]) * (1 << 20), i << 20)
        client.flush()
        client.shutdown()
        daemon.quit()
        self.assertGreater(self.length(), self.size_before)
        self.assertEqual(self.tokens()[0]['length-max'], str(NO_LIMIT))
        out = run('qemu-io', *self.secret, '-c', 'read -P 3 2M 1M', 'json:' +
                  json.dumps({'driver': 'qcow2',
                              'file': self.options()})).stdout
        self.assertNotIn('fail', out)
        with open(self.path('a.img'), 'r+b') as f:
            f.truncate(65536)
        self.assertRefused('at least ', '65536')

    def test_growing_with_a_header_that_is_read_only(self):
        """No room, rather than a disk that does not open any more."""
        daemon = self.with_qcow2(read_only=True)
        client = self.connect()
        with self.assertRaisesRegex(nbd.Error, 'No space left'):
            for i in range(4):
                client.pwrite(b'\x01' * (1 << 20), i << 20)
        client.shutdown()
        output = daemon.output()
        self.assertTrue(re.search("cannot grow: .*is read-only", output),
                        output)
        daemon.quit()
        self.io('length')

    # --- what cannot be bound ---

    def test_refused(self):
        self.create()
        self.create('attached', detached=False)
        daemon = self.daemon_with_crypt('--blockdev', blockdev(
            driver='weir-encryption', node_name='other', key_secret='key0',
            file={'driver': 'file', 'filename': self.path('attached.img')}))
        for text, node in (('Only a detached header', 'other'),
                           ('is not a weir-encryption node', 'disk'),
                           ("Node 'none' not found", 'none')):
            try:
                self.job(daemon, 'weir-encryption-bind', text, node_name=node)
            except QMPError as e:
                self.assertIn(text, str(e))
        daemon.quit()


if __name__ == '__main__':
    main()
