#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-inspect in the programs of QEMU: options, statistics, offloads."""

import os
import random
import unittest

import nbd

from weirtest import (ONLY_TESTS, TestCase, blockdev, main, program, run,
                      statistics)

MIB = 1 << 20


class Exported(TestCase):
    """A weir-inspect node that a storage daemon exports over NBD."""

    def serve(self, path, driver='raw', size=None, **options):
        self.sock = self.path('nbd.sock')
        daemon = self.daemon(
            '--blockdev', blockdev(driver='file', node_name='file',
                                   filename=path, discard='unmap'),
            '--blockdev', blockdev(driver=driver, node_name='fmt',
                                   file='file', discard='unmap'),
            '--blockdev', blockdev(driver='weir-inspect', node_name='flt',
                                   file='fmt', discard='unmap', **options),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
            '--export', 'nbd,id=exp,node-name=flt,name=disk,writable=on')
        client = nbd.NBD()
        client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        self.addCleanup(lambda: setattr(self, 'client', None))
        self.client = client
        return daemon, client

    def full_image(self, size=64 * MIB):
        """An image without holes: the NBD server does not read those."""
        path = self.image(size=size)
        with open(path, 'r+b') as f:
            for _ in range(0, size, MIB):
                f.write(b'content, ' * 116508 + b'    ')
        return path

    def extents(self, client, count, offset=0):
        found = []

        def collect(_context, _offset, entries, _error):
            found.extend(zip(entries[::2], entries[1::2]))
        client.block_status(count, offset, collect)
        return found


class Statistics(Exported):
    def test_each_operation_is_counted(self):
        daemon, client = self.serve(self.image())
        for i in range(10):
            client.pwrite(bytes([i]) * 4096, i * 4096)
        for i in range(5):
            client.pread(8192, i * 8192)
        client.zero(MIB, 16 * MIB)
        client.trim(MIB, 32 * MIB)
        client.flush()
        client.pwrite(b'x' * 512, 0, nbd.CMD_FLAG_FUA)
        stat = statistics(self.filter_info(daemon, 'flt'))
        self.assertEqual(stat['write']['requests'], 11)
        self.assertEqual(stat['write']['bytes'], 10 * 4096 + 512)
        self.assertEqual(stat['read']['requests'], 5)
        self.assertEqual(stat['read']['bytes'], 5 * 8192)
        self.assertEqual(stat['write-zeroes']['bytes'], MIB)
        self.assertEqual(stat['discard']['bytes'], MIB)
        # one asked for, and at most one in place of FUA
        self.assertIn(stat['flush']['requests'], (1, 2))
        for operation in stat.values():
            self.assertEqual(sum(operation['latency-histogram']),
                             operation['requests'])
            self.assertEqual(operation['failed'], 0)
            self.assertEqual(operation['in-flight'], 0)
        self.assertGreater(stat['read']['latency-total'], 0)
        client.shutdown()
        daemon.quit()

    def test_sizes_and_sequential_share(self):
        daemon, client = self.serve(self.full_image())
        for i in range(16):
            client.pread(65536, i * 65536)
        client.pread(4096, 40 * MIB)
        reads = self.filter_info(daemon, 'flt')['reads']
        self.assertEqual(reads['requests'], 17)
        self.assertEqual(reads['sequential'], 15)
        self.assertEqual(reads['size-histogram'],
                         [0, 0, 0, 1, 0, 0, 0, 16])
        client.shutdown()
        daemon.quit()

    def test_failed_requests_are_counted(self):
        daemon = self.daemon(
            '--blockdev', blockdev(
                driver='blkdebug', node_name='bad',
                image={'driver': 'null-co', 'size': MIB},
                inject_error=[{'event': 'none', 'iotype': 'read',
                               'errno': 5, 'sector': 8}]),
            '--blockdev', blockdev(driver='weir-inspect', node_name='flt',
                                   file='bad'),
            '--nbd-server', f'addr.type=unix,addr.path={self.path("s")}',
            '--export', 'nbd,id=e,node-name=flt,writable=on')
        client = nbd.NBD()
        # so that a failed read does not end the connection
        client.set_request_structured_replies(False)
        client.connect_uri(f'nbd+unix:///flt?socket={self.path("s")}')
        with self.assertRaises(nbd.Error):
            client.pread(512, 8 * 512)
        client.pread(512, 64 * 512)
        stat = statistics(self.filter_info(daemon, 'flt'))
        self.assertEqual(stat['read']['failed'], 1)
        self.assertEqual(stat['read']['requests'], 2)
        self.assertEqual(stat['read']['bytes'], 512)
        client.shutdown()
        daemon.quit()

    def test_working_set_of_a_loop(self):
        """A loop over 8 MiB misses below 8 MiB, and hits above."""
        daemon, client = self.serve(self.full_image(), entropy=False)
        for _ in range(6):
            for offset in range(0, 8 * MIB, 65536):
                client.pread(65536, offset)
        info = self.filter_info(daemon, 'flt')
        self.assertNotIn('entropy', info)
        ws = info['working-set']
        self.assertEqual(ws['accesses'], 6 * 2048)
        self.assertAlmostEqual(ws['unique-bytes'] / (8 * MIB), 1, delta=0.2)
        for point in ws['curve']:
            if point['cache-size'] < 6 * MIB:
                self.assertGreater(point['miss-ratio'], 0.9)
            elif point['cache-size'] > 10 * MIB:
                self.assertAlmostEqual(point['miss-ratio'], 1 / 6, delta=0.05)
        self.assertGreater(ws['curve'][-1]['cache-size'], 6 * MIB)
        client.shutdown()
        daemon.quit()


class Entropy(Exported):
    def fill(self, client, content):
        for offset in range(0, 32 * MIB, MIB):
            client.pwrite(content(MIB), offset)

    def test_encryption_in_place_raises_one_alert(self):
        daemon, client = self.serve(self.image())
        text = b'the quick brown fox jumps over the lazy dog %d; ' * 30000
        self.fill(client, lambda n: text[:n])
        self.assertFalse(self.filter_info(daemon, 'flt')['entropy']['alert'])
        self.fill(client, os.urandom)
        event = daemon.qmp.event('WEIR_INSPECT_ALERT')
        self.assertEqual(event['node-name'], 'flt')
        self.assertGreaterEqual(event['share'], 0.5)
        entropy = self.filter_info(daemon, 'flt')['entropy']
        self.assertTrue(entropy['alert'])
        self.assertEqual(entropy['alerts'], 1)
        self.assertEqual([e for e in daemon.qmp.events
                          if e['event'] == 'WEIR_INSPECT_ALERT'], [])
        client.shutdown()
        daemon.quit()

    def test_new_random_data_is_no_alert(self):
        """Nothing was there before: an archive or a video, not ransomware."""
        daemon, client = self.serve(self.image())
        self.fill(client, os.urandom)
        self.fill(client, os.urandom)
        entropy = self.filter_info(daemon, 'flt')['entropy']
        self.assertGreater(entropy['overwrites'], 0)
        self.assertEqual(entropy['suspicious-overwrites'], 0)
        self.assertEqual(entropy['alerts'], 0)
        self.assertGreater(entropy['mean-bits'], 7.5)
        client.shutdown()
        daemon.quit()

    def test_reading_teaches_what_was_there(self):
        path = self.image()
        with open(path, 'r+b') as f:
            for _ in range(32):
                f.write((b'some old text, nothing special. ' * 32768)[:MIB])
        daemon, client = self.serve(path)
        for offset in range(0, 32 * MIB, MIB):
            client.pread(MIB, offset)
        self.fill(client, os.urandom)
        self.assertEqual(
            self.filter_info(daemon, 'flt')['entropy']['alerts'], 1)
        client.shutdown()
        daemon.quit()

    def test_thresholds_change_at_run_time(self):
        daemon, client = self.serve(self.image())
        reopen = {'driver': 'weir-inspect', 'node-name': 'flt', 'file': 'fmt',
                  'discard': 'unmap'}
        daemon.cmd('blockdev-reopen', {'options': [
            {**reopen, 'entropy-alert': 0}]})
        text = b'the quick brown fox jumps over the lazy dog %d; ' * 30000
        self.fill(client, lambda n: text[:n])
        self.fill(client, os.urandom)
        self.assertEqual(
            self.filter_info(daemon, 'flt')['entropy']['alerts'], 0)
        self.assertFails(
            'entropy-high', daemon.cmd, 'blockdev-reopen',
            {'options': [{**reopen, 'entropy-high': 9}]})
        # what is left out goes back to its default, the rest stays
        daemon.cmd('blockdev-reopen', {'options': [
            {**reopen, 'working-set': False}]})
        info = self.filter_info(daemon, 'flt')
        self.assertNotIn('working-set', info)
        self.assertIn('entropy', info)
        client.shutdown()
        daemon.quit()


class Offloads(Exported):
    def test_sparse_tebibyte(self):
        """Zeroes, discard and block status of 1 TiB cost no data."""
        path = self.image(size=1 << 40)
        daemon, client = self.serve(path)
        client.pwrite(b'x' * 65536, 1 << 39)
        # NBD requests are less than 4 GiB
        step = 1 << 31
        for offset in range(0, 64 * step, step):
            client.zero(step, offset)
            client.trim(step, offset)
        self.assertLess(os.stat(path).st_blocks * 512, 8 * MIB)
        extents = self.extents(client, step, 0)
        self.assertEqual(extents[0][1], nbd.STATE_HOLE | nbd.STATE_ZERO)
        extents = self.extents(client, MIB, 1 << 39)
        self.assertEqual(extents[0], (65536, 0))
        client.shutdown()
        daemon.quit()

    def test_discard_punches_holes(self):
        path = self.image(size=8 * MIB)
        daemon, client = self.serve(path)
        client.pwrite(os.urandom(4 * MIB), 0)
        client.flush()
        before = os.stat(path).st_blocks
        client.trim(4 * MIB, 0)
        self.assertLess(os.stat(path).st_blocks, before // 2)
        client.shutdown()
        daemon.quit()

    def test_copy_range_is_counted(self):
        """qemu-img convert -C: what the reflink or copy was asked of."""
        src = self.image('src.img', 4 * MIB)
        with open(src, 'r+b') as f:
            f.write(os.urandom(4 * MIB))
        dst = self.image('dst.img', 4 * MIB)
        run('qemu-img', 'convert', '-n', '-C', '--image-opts',
            f'driver=weir-inspect,file.driver=file,file.filename={src}',
            '--target-image-opts',
            f'driver=weir-inspect,file.driver=file,file.filename={dst}')
        with open(src, 'rb') as a, open(dst, 'rb') as b:
            self.assertEqual(a.read(), b.read())

    def test_copy_job_offloads_through_the_filter(self):
        src = self.image('src.img', 4 * MIB)
        with open(src, 'r+b') as f:
            f.write(os.urandom(4 * MIB))
        dst = self.image('dst.img', 4 * MIB)
        daemon = self.daemon()
        for name, path in (('src', src), ('dst', dst)):
            daemon.cmd('blockdev-add', {
                'driver': 'weir-inspect', 'node-name': name,
                'file': {'driver': 'file', 'filename': path}})
        daemon.cmd('blockdev-backup', {
            'job-id': 'job', 'device': 'src', 'target': 'dst',
            'sync': 'full', 'x-perf': {'use-copy-range': True}})
        daemon.qmp.event('JOB_STATUS_CHANGE',
                         lambda d: d['status'] == 'null')
        with open(src, 'rb') as a, open(dst, 'rb') as b:
            self.assertEqual(a.read(), b.read())
        copied = statistics(self.filter_info(daemon, 'src'))['copy']
        self.assertGreater(copied['requests'], 0)
        daemon.quit()

    def test_resize_goes_to_the_image(self):
        path = self.image(size=4 * MIB)
        daemon, client = self.serve(path)
        client.shutdown()
        daemon.cmd('block-export-del', id='exp')
        daemon.qmp.event('BLOCK_EXPORT_DELETED')
        daemon.cmd('block_resize', {'node-name': 'flt', 'size': 8 * MIB})
        self.assertEqual(os.stat(path).st_size, 8 * MIB)
        daemon.quit()


class Data(Exported):
    def test_content_is_the_childs(self):
        """Random unaligned requests against a model, qcow2 below."""
        rng = random.Random(4)
        size = 4 * MIB
        model = bytearray(size)
        daemon, client = self.serve(self.image('d.qcow2', size, 'qcow2'),
                                    driver='qcow2')
        for _ in range(400):
            offset = rng.randrange(size - 1)
            count = min(rng.randrange(1, 100000), size - offset)
            what = rng.randrange(4)
            if what == 0:
                data = rng.randbytes(count)
                client.pwrite(data, offset)
                model[offset:offset + count] = data
            elif what == 1:
                client.zero(count, offset)
                model[offset:offset + count] = bytes(count)
            elif what == 2:
                client.flush()
            else:
                self.assertEqual(client.pread(count, offset),
                                 model[offset:offset + count])
        self.assertEqual(client.pread(size, 0), model)
        client.shutdown()
        daemon.quit()


class Programs(TestCase):
    """The driver in qemu-img, qemu-io and qemu-nbd, and without env."""

    def opts(self, path, **options):
        extra = ''.join(f',{k.replace("_", "-")}={v}'
                        for k, v in options.items())
        return f'driver=weir-inspect,file.driver=file,file.filename={path}' \
            + extra

    def test_qemu_io(self):
        path = self.image()
        for tests in (True, False):
            out = run('qemu-io', '-c', 'write -P 7 0 64k', '-c',
                      'read -P 7 0 64k', '--image-opts', self.opts(path),
                      tests=tests).stdout
            self.assertIn('wrote 65536/65536', out)
            self.assertNotIn('failed', out)

    def test_qemu_img(self):
        path = self.image()
        for tests in (True, False):
            out = run('qemu-img', 'info', '--image-opts', self.opts(path),
                      tests=tests).stdout
            self.assertIn('file format: weir-inspect', out)

    def test_qemu_nbd(self):
        path = self.image()
        with open(path, 'r+b') as f:
            f.write(b'hello')
        client = nbd.NBD()
        client.connect_systemd_socket_activation(
            [program('qemu-nbd', tests=False), '-r', '--image-opts',
             self.opts(path)])
        self.assertEqual(client.pread(5, 0), b'hello')
        client.shutdown()

    def test_options_as_text(self):
        path = self.image()
        run('qemu-io', '-c', 'read 0 4k', '--image-opts', self.opts(
            path, working_set='off', entropy='on', entropy_high='7.5',
            entropy_window=10, entropy_min_overwrites=5))

    def test_bad_options(self):
        path = self.image()
        for options, text in (
                ({'entropy_high': 9}, 'entropy-high'),
                ({'entropy_high': 'tall'}, 'entropy-high'),
                ({'entropy_low': 7.9}, 'entropy-low'),
                ({'entropy_window': 0}, 'entropy-window'),
                ({'entropy_window': 4000}, 'entropy-window'),
                ({'entropy_window': -1}, 'entropy-window'),
                ({'entropy_alert': 1.5}, 'entropy-alert'),
                ({'entropy_min_overwrites': 0}, 'entropy-min-overwrites'),
                ({'working_set': 'maybe'}, 'working-set'),
                ({'nonsense': 1}, 'nonsense')):
            result = run('qemu-io', '-c', 'read 0 4k', '--image-opts',
                         self.opts(path, **options), check=False)
            self.assertEqual(result.returncode, 1, options)
            self.assertIn(text, result.stderr)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1,
                             result.stderr)

    def test_missing_child(self):
        result = run('qemu-io', '-c', 'read 0 4k', '--image-opts',
                     'driver=weir-inspect', check=False)
        self.assertIn('file', result.stderr)
        result = run('qemu-io', '-c', 'read 0 4k', '--image-opts',
                     self.opts(self.path('absent')), check=False)
        self.assertIn('No such file', result.stderr)


class Schema(TestCase):
    """The driver and the commands are typed, in both programs."""

    def check(self, process):
        schema = {e['name']: e for e in process.cmd('query-qmp-schema')}
        for command in ('weir-attach', 'weir-detach', 'query-weir'):
            self.assertEqual(schema[command]['meta-type'], 'command')
        for event in ('WEIR_STATE', 'WEIR_INSPECT_ALERT'):
            self.assertEqual(schema[event]['meta-type'], 'event')
        add = schema[schema['blockdev-add']['arg-type']]
        variant, = [v['type'] for v in add['variants']
                    if v['case'] == 'weir-inspect']
        members = {m['name'] for m in schema[variant]['members']}
        self.assertIn('entropy-high', members)
        self.assertIn('file', members)

    def test_storage_daemon(self):
        self.check(self.start('qemu-storage-daemon', tests=False))

    def test_emulator(self):
        self.check(self.vm())

    @unittest.skipIf(ONLY_TESTS, 'there are no products of this version')
    def test_drivers_of_the_suite_are_not_in_products(self):
        process = self.start('qemu-storage-daemon', tests=False)
        text = str(process.cmd('query-qmp-schema'))
        self.assertNotIn('weir-fault', text)
        self.assertNotIn('weir-example', text)


if __name__ == '__main__':
    main()
