#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-cache in the storage daemon: what clients see, what the disk below sees,
what is left after kill -9, and what is refused."""

import json
import os
import random
import subprocess

import nbd

from weirtest import (BUILD, TestCase, blockdev, graph, main, run, statistics,
                      wait_for)

VERIFY = os.path.join(BUILD, 'weir', 'tests', 'tools', 'weir-verify-nbd')
SIZE = 64 << 20
BLOCK = 4096


class Cache(TestCase):
    def setUp(self):
        super().setUp()
        self.base = self.image('base.img', SIZE)
        self.fast = self.image('fast.img', 16 << 20)
        self.sock = self.path('nbd.sock')

    def chain(self, iothread=False, **options):
        """Storage daemon with disk <- weir-inspect <- weir-cache <- NBD."""
        args = ['--object', 'iothread,id=io0'] if iothread else []
        daemon = self.daemon(
            *args,
            '--blockdev', blockdev(driver='file', node_name='file',
                                   filename=self.base, discard='unmap'),
            '--blockdev', blockdev(driver='weir-inspect', node_name='base',
                                   file='file'),
            '--blockdev', blockdev(driver='file', node_name='fast',
                                   filename=self.fast, discard='unmap'),
            '--blockdev', blockdev(driver='weir-cache', node_name='cache',
                                   file='base', cache_file='fast', **options),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
            'max-connections=16',
            '--export', 'nbd,id=exp,node-name=cache,name=disk,writable=on' +
            (',iothread=io0' if iothread else ''))
        return daemon

    def connect(self):
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        return client

    def info(self, daemon):
        return self.filter_info(daemon, 'cache')

    def load(self, seconds, threads=4):
        return subprocess.Popen(
            [VERIFY, '--threads', str(threads), '--size', str(SIZE),
             '--seconds', str(seconds), '--final-check', '--flush-every', '16',
             f'nbd+unix:///disk?socket={self.sock}'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, load):
        out, err = load.communicate(timeout=300)
        self.assertEqual(load.returncode, 0, out + err)
        self.assertEqual(json.loads(out.splitlines()[-1])['errors'], 0)

    def reopen(self, daemon, **options):
        daemon.cmd('blockdev-reopen', {'options': [{
            'driver': 'weir-cache', 'node-name': 'cache', 'file': 'base',
            'cache-file': 'fast', **options}]})

    def base_statistics(self, daemon):
        return statistics(self.filter_info(daemon, 'base'))

    # --- data ---

    def test_verified_load(self):
        for iothread in (False, True):
            daemon = self.chain(iothread)
            self.finish(self.load(4))
            info = self.info(daemon)
            self.assertEqual(info['state'], 'ok')
            self.assertGreater(info['evictions'], 0)
            self.assertGreater(info['written-back'], 0)
            self.assertEqual(info['corrupt-clean'] + info['corrupt-dirty'], 0)
            daemon.quit()

    def test_modes_change_under_load(self):
        daemon = self.chain(True)
        load = self.load(600)
        self.addCleanup(load.kill)
        for _ in range(6):
            for mode in ('write-through', 'write-around', 'read-only',
                         'write-back'):
                self.reopen(daemon, mode=mode, **{'dirty-high': 20,
                                                  'dirty-low': 5})
                if mode != 'write-back':
                    # the load goes on, and still it gets clean
                    wait_for(lambda: self.info(daemon)['dirty'] == 0,
                             'nothing is dirty')
        self.assertIsNone(load.poll())
        load.terminate()
        self.finish(load)
        daemon.quit()

    def test_attach_and_detach_under_load(self):
        daemon = self.daemon(
            '--object', 'iothread,id=io0',
            '--blockdev', blockdev(driver='file', node_name='base',
                                   filename=self.base, discard='unmap'),
            '--blockdev', blockdev(driver='file', node_name='fast',
                                   filename=self.fast, discard='unmap'),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
            'max-connections=16',
            '--export', 'nbd,id=exp,node-name=base,name=disk,writable=on,'
            'iothread=io0')
        before = graph(daemon)
        load = self.load(600)
        self.addCleanup(load.kill)
        for _ in range(25):
            daemon.cmd('weir-attach', {'node-name': 'base', 'filter': {
                'driver': 'weir-cache', 'node-name': 'cache', 'file': 'base',
                'cache-file': 'fast'}})
            written = self.info(daemon)['write-misses']
            wait_for(lambda: self.info(daemon)['write-misses'] > written + 50,
                     'writes go to the cache')
            daemon.cmd('weir-detach', {'node-name': 'cache'})
            self.assertIsNone(load.poll())
        load.terminate()
        self.finish(load)
        self.assertEqual(graph(daemon), before)
        daemon.quit()

    def test_attached_with_its_file_and_reopened(self):
        """Options of a child that came with the filter are the child's."""
        daemon = self.daemon(
            '--blockdev', blockdev(driver='file', node_name='base',
                                   filename=self.base, discard='unmap'))
        daemon.cmd('weir-attach', {'node-name': 'base', 'filter': {
            'driver': 'weir-cache', 'node-name': 'cache', 'file': 'base',
            'cache-file': {'driver': 'file', 'node-name': 'fast',
                           'filename': self.fast}}})
        self.reopen(daemon, mode='write-through')
        self.assertEqual(self.info(daemon)['mode'], 'write-through')
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        daemon.quit()

    def test_detach_leaves_all_on_the_disk(self):
        daemon = self.chain()
        client = self.connect()
        data = {b: os.urandom(BLOCK) for b in random.sample(range(1000), 200)}
        for block, content in data.items():
            client.pwrite(content, block * BLOCK)
        self.assertEqual(self.info(daemon)['dirty'], 200 * BLOCK)
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        client.shutdown()
        with open(self.base, 'rb') as f:
            for block, content in data.items():
                f.seek(block * BLOCK)
                self.assertEqual(f.read(BLOCK), content)
        daemon.quit()

    def test_kill_loses_nothing_that_was_flushed(self):
        issued, durable = {}, {}
        for round_ in range(12):
            daemon = self.chain(**{'idle': random.choice([0, 20])})
            client = self.connect()
            for block in issued:
                version = int.from_bytes(client.pread(BLOCK, block * BLOCK)[:8],
                                         'little')
                self.assertIn(version, range(durable.get(block, 0),
                                             issued[block] + 1))
                durable[block] = issued[block] = version
            for i in range(random.randrange(50, 1500)):
                block = random.randrange(3000)
                issued[block] = issued.get(block, 0) + 1
                client.pwrite(issued[block].to_bytes(8, 'little') * 512,
                              block * BLOCK)
                if random.random() < 0.05:
                    client.flush()
                    durable = dict(issued)
            daemon.process.kill()
            daemon.process.wait()
            os.unlink(self.sock)
        self.assertGreater(len(durable), 1000)

    # --- what the disk below sees ---

    def test_a_flush_does_not_touch_the_disk(self):
        daemon = self.chain(idle=0)
        client = self.connect()
        before = self.base_statistics(daemon)
        for i in range(500):
            client.pwrite(os.urandom(BLOCK), (i * 37 % 3000) * BLOCK)
            client.flush()
        after = self.base_statistics(daemon)
        for operation in ('write', 'flush', 'write-zeroes', 'discard'):
            self.assertEqual(after[operation]['requests'],
                             before[operation]['requests'], operation)
        info = self.info(daemon)
        self.assertLessEqual(info['cache-flushes'], 510)
        self.assertLessEqual(info['journal-written'], 510)
        daemon.quit()

    def test_idle_writes_back_and_coalesces(self):
        daemon = self.chain(idle=100)
        client = self.connect()
        blocks = list(range(1024))
        random.shuffle(blocks)
        for block in blocks:
            client.pwrite(os.urandom(BLOCK), block * BLOCK)
        wait_for(lambda: self.info(daemon)['dirty'] == 0, 'nothing is dirty')
        info = self.info(daemon)
        self.assertEqual(info['written-back'], 1024)
        self.assertLess(info['write-back-requests'], 1024 / 3)
        daemon.quit()

    def test_reads_are_hits_and_stay_so(self):
        with open(self.base, 'r+b') as f:
            f.write(os.urandom(1000 * BLOCK))
        daemon = self.chain()
        client = self.connect()
        for block in range(1000):
            client.pread(BLOCK, block * BLOCK)
        wait_for(lambda: self.info(daemon)['fills'] == 1000, 'all are filled')
        for restart in (True, False):
            before = self.base_statistics(daemon)
            hits = self.info(daemon)['read-hits']
            for block in range(1000):
                client.pread(BLOCK, block * BLOCK)
            self.assertEqual(self.info(daemon)['read-hits'], hits + 1000)
            self.assertEqual(self.base_statistics(daemon)['read']['requests'],
                             before['read']['requests'])
            client.shutdown()
            daemon.quit()
            if restart:
                daemon = self.chain()
                client = self.connect()

    def test_status_of_blocks(self):
        daemon = self.chain(idle=0)
        client = nbd.NBD()
        client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        client.pwrite(b'x' * 65536, 1 << 20)
        client.zero(65536, (1 << 20) + 65536)
        extents = []

        def take(context, offset, entries, error):
            position = offset
            for length, flags in zip(entries[::2], entries[1::2]):
                extents.append((position, length, flags))
                position += length
        client.block_status(1 << 20, 1 << 20, take)
        data = sum(length for _, length, flags in extents
                   if not flags & nbd.STATE_ZERO)
        self.assertEqual(data, 65536)
        daemon.quit()

    def test_allocated_size_is_that_of_the_disk(self):
        daemon = self.chain(idle=0)
        self.connect().pwrite(b'x' * 65536, 1 << 20)
        size = {n['node-name']: n['image']['actual-size']
                for n in daemon.cmd('query-named-block-nodes')
                if 'node-name' in n and 'actual-size' in n['image']}
        self.assertGreater(size['fast'], 0)
        self.assertEqual(size['cache'], size['base'])
        daemon.quit()

    # --- refusals ---

    def test_foreign_content_is_refused(self):
        with open(self.fast, 'r+b') as f:
            f.write(b'somebody needs this')
        with self.assertRaises(AssertionError) as caught:
            self.chain()
        self.assertIn('holds something else', str(caught.exception))
        with open(self.fast, 'rb') as f:
            self.assertEqual(f.read(19), b'somebody needs this')
        self.chain(overwrite=True).quit()

    def test_dirty_cache_of_another_disk_is_refused(self):
        daemon = self.chain(idle=0)
        client = self.connect()
        client.pwrite(b'x' * BLOCK, 0)
        client.shutdown()
        daemon.quit()
        self.image('base.img', SIZE * 2)
        with self.assertRaises(AssertionError) as caught:
            self.chain()
        self.assertIn('dirty blocks of another disk', str(caught.exception))
        self.chain(lose_dirty=True).quit()

    def test_clean_cache_of_a_changed_disk_is_dropped(self):
        daemon = self.chain()
        client = self.connect()
        for block in range(64):
            client.pwrite(b'x' * BLOCK, block * BLOCK)
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        client.shutdown()
        daemon.quit()
        with open(self.base, 'r+b') as f:
            f.write(b'y' * BLOCK * 64)
        daemon = self.chain()
        self.assertEqual(self.connect().pread(BLOCK, 0), b'y' * BLOCK)
        daemon.quit()

    def test_bad_options(self):
        for options, text in (
                ({'dirty_high': 96}, 'dirty-high must be 1 to 95'),
                ({'dirty_high': 10, 'dirty_low': 11}, 'dirty-low must not'),
                ({'write_back_rate': 5}, 'write-back-rate must be 0'),
                ({'base_id': 'x' * 64}, 'base-id must be less'),
                ({'mode': 'sideways'}, "does not accept value 'sideways'")):
            with self.assertRaises(AssertionError) as caught:
                self.chain(**options)
            self.assertIn(text, str(caught.exception))

    def test_small_cache(self):
        os.truncate(self.fast, 1 << 20)
        with self.assertRaises(AssertionError) as caught:
            self.chain()
        self.assertIn('too small', str(caught.exception))

    # --- lengths ---

    def test_odd_disk_and_odd_requests(self):
        size = (1 << 20) + 1536
        os.truncate(self.base, size)
        content = bytearray(size)
        rng = random.Random(1)
        for restart in range(3):
            daemon = self.chain(**{'idle': 0, 'promote': 'second-touch'})
            client = self.connect()
            self.assertEqual(client.get_size(), size)
            for _ in range(400):
                offset = rng.randrange(size)
                count = min(rng.choice((1, 500, 4096, 9000)), size - offset)
                if rng.random() < 0.5:
                    data = rng.randbytes(count)
                    client.pwrite(data, offset)
                    content[offset:offset + count] = data
                self.assertEqual(client.pread(count, offset),
                                 content[offset:offset + count])
            tail = rng.randbytes(100)
            client.pwrite(tail, size - 100)
            content[-100:] = tail
            client.shutdown()
            if restart == 2:
                daemon.cmd('weir-detach', {'node-name': 'cache'})
            daemon.quit()
        with open(self.base, 'rb') as f:
            self.assertEqual(f.read(), content)

    def qcow2(self):
        """A qcow2 image whose file is below weir-cache."""
        return self.daemon(
            '--blockdev', blockdev(driver='file', node_name='base',
                                   filename=self.base, discard='unmap'),
            '--blockdev', blockdev(driver='file', node_name='fast',
                                   filename=self.fast),
            '--blockdev', blockdev(driver='weir-cache', node_name='cache',
                                   file='base', cache_file='fast', idle=0,
                                   dirty_high=90, dirty_age=0),
            '--blockdev', blockdev(driver='qcow2', node_name='disk',
                                   file='cache'),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
            '--export', 'nbd,id=exp,node-name=disk,name=disk,writable=on')

    def test_format_that_grows_its_file(self):
        self.base = self.image('disk.qcow2', SIZE, 'qcow2')
        length = os.stat(self.base).st_size
        durable = {}
        for round_ in range(4):
            daemon = self.qcow2()
            client = self.connect()
            for block, data in durable.items():
                self.assertEqual(client.pread(BLOCK, block * BLOCK), data)
            for _ in range(100):
                block = random.randrange(SIZE // BLOCK)
                durable[block] = os.urandom(BLOCK)
                client.pwrite(durable[block], block * BLOCK)
            client.flush()
            if round_ < 2:
                daemon.process.kill()
                daemon.process.wait()
                os.unlink(self.sock)
                # as a power cut can do: nobody has flushed the disk
                os.truncate(self.base, length)
            else:
                client.shutdown()
                daemon.quit()
            if round_ == 2:
                length = os.stat(self.base).st_size
        run('qemu-img', 'check', '--image-opts',
            'driver=qcow2,file.driver=weir-cache,file.file.driver=file,'
            f'file.file.filename={self.base},file.cache-file.driver=file,'
            f'file.cache-file.filename={self.fast}')

    def test_resize(self):
        daemon = self.chain(idle=0)
        client = self.connect()
        client.pwrite(b'a' * BLOCK, 0)
        client.pwrite(b'b' * BLOCK, SIZE - BLOCK)
        client.shutdown()
        daemon.cmd('block-export-del', {'id': 'exp'})
        for size in (SIZE + 12345 * 512, SIZE, SIZE - BLOCK, SIZE * 2):
            daemon.cmd('block_resize', {'node-name': 'cache', 'size': size})
            self.assertEqual(os.stat(self.base).st_size, size)
        daemon.quit()
        out = run('qemu-io', '-r', '-c', 'read -P 97 0 4k', '-c',
                  f'read -P 0 {SIZE - BLOCK} 8k', '--image-opts',
                  self.image_opts())
        self.assertNotIn('failed', out.stdout + out.stderr)
        self.assertIn('read 8192', out.stdout)

    # --- read-only ---

    def image_opts(self, *options):
        return ','.join(('driver=weir-cache,file.driver=file,'
                         f'file.filename={self.base},cache-file.driver=file,'
                         f'cache-file.filename={self.fast}', *options))

    def contents(self):
        found = []
        for path in (self.base, self.fast):
            with open(path, 'rb') as f:
                found.append(f.read())
        return found

    def test_read_only_sees_what_the_guest_would(self):
        daemon = self.chain(idle=0)
        client = self.connect()
        content = bytearray(SIZE)
        for block in random.sample(range(SIZE // BLOCK), 500):
            data = os.urandom(BLOCK)
            client.pwrite(data, block * BLOCK)
            content[block * BLOCK:block * BLOCK + BLOCK] = data
        client.flush()
        daemon.process.kill()
        daemon.process.wait()
        before = self.contents()
        copy = self.path('copy')
        run('qemu-img', 'convert', '--image-opts', self.image_opts(), '-O',
            'raw', copy)
        with open(copy, 'rb') as f:
            self.assertEqual(f.read(), content)
        self.assertTrue(before == self.contents(), 'nothing was written')

    def test_read_only_disk_comes_into_the_cache(self):
        with open(self.base, 'r+b') as f:
            f.write(os.urandom(100 * BLOCK))
        for expected in (0, 100):
            daemon = self.daemon(
                '--blockdev', blockdev(driver='file', node_name='base',
                                       filename=self.base, read_only=True),
                '--blockdev', blockdev(driver='file', node_name='fast',
                                       filename=self.fast),
                '--blockdev', blockdev(driver='weir-cache', node_name='cache',
                                       file='base', cache_file='fast',
                                       read_only=True),
                '--nbd-server', f'addr.type=unix,addr.path={self.sock}',
                '--export', 'nbd,id=exp,node-name=cache,name=disk')
            client = self.connect()
            for block in range(100):
                client.pread(BLOCK, block * BLOCK)
            info = self.info(daemon)
            self.assertEqual(info['read-hits'], expected)
            self.assertTrue(info['read-only'])
            wait_for(lambda: self.info(daemon)['used'] == 100 * BLOCK,
                     'all are filled')
            client.shutdown()
            daemon.quit()

    def test_read_only_refusals(self):
        result = run('qemu-io', '-r', '-c', 'quit', '--image-opts',
                     self.image_opts(), check=False)
        self.assertIn('there is no cache on the device', result.stderr)
        result = run('qemu-io', '-c', 'quit', '--image-opts',
                     self.image_opts('cache-file.read-only=on'), check=False)
        self.assertIn('only possible when the disk is', result.stderr)

    # --- what comes in, and how it is taken off ---

    def test_second_touch(self):
        with open(self.base, 'r+b') as f:
            f.write(os.urandom(100 * BLOCK))
        daemon = self.chain(promote='second-touch')
        client = self.connect()
        for fills in (0, 100):
            for block in range(100):
                client.pread(BLOCK, block * BLOCK)
            wait_for(lambda: self.info(daemon)['fills'] == fills, 'filled')
        for block in range(100):
            client.pread(BLOCK, block * BLOCK)
        self.assertEqual(self.info(daemon)['read-hits'], 100)
        self.assertEqual(self.info(daemon)['promote'], 'second-touch')
        daemon.quit()

    def job(self, daemon):
        job, = daemon.cmd('query-jobs')
        return job

    def test_detach_in_a_job(self):
        daemon = self.chain(idle=0, write_back_rate=64 * BLOCK)
        client = self.connect()
        for block in range(3000):
            client.pwrite(b'x' * BLOCK, block * BLOCK)
        daemon.cmd('weir-detach', {'node-name': 'cache', 'job-id': 'job'})
        wait_for(lambda: self.job(daemon)['current-progress'] > 0, 'progress')
        self.assertEqual(self.info(daemon)['draining'], True)
        self.assertFails('is being detached', self.reopen, daemon)
        daemon.cmd('job-cancel', {'id': 'job'})
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'end')
        daemon.cmd('job-dismiss', {'id': 'job'})
        info = self.info(daemon)
        self.assertGreater(info['dirty'], 0)
        self.assertFalse(info['draining'])
        self.reopen(daemon)
        daemon.cmd('weir-detach', {'node-name': 'cache', 'job-id': 'job'})
        wait_for(lambda: self.job(daemon)['status'] == 'concluded', 'end')
        self.assertNotIn('error', self.job(daemon))
        daemon.cmd('job-dismiss', {'id': 'job'})
        self.assertEqual(daemon.cmd('query-weir')[0]['node-name'], 'base')
        client.shutdown()
        daemon.quit()
        with open(self.base, 'rb') as f:
            self.assertEqual(f.read(3000 * BLOCK), b'x' * 3000 * BLOCK)


if __name__ == '__main__':
    main()
