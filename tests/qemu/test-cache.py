#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-cache in the storage daemon: what clients see, what the disk below sees,
what is left after kill -9, and what is refused."""

import json
import os
import random
import subprocess

import nbd

from weirtest import (BUILD, TestCase, blockdev, graph, main, statistics,
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

    def test_small_cache_and_odd_disk(self):
        os.truncate(self.fast, 1 << 20)
        with self.assertRaises(AssertionError) as caught:
            self.chain()
        self.assertIn('too small', str(caught.exception))
        os.truncate(self.fast, 16 << 20)
        os.truncate(self.base, SIZE + 512)
        with self.assertRaises(AssertionError) as caught:
            self.chain()
        self.assertIn('not a multiple of 4096', str(caught.exception))


if __name__ == '__main__':
    main()
