#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Replication from one storage daemon to another: what the replica has, and
what it had at each point in time."""

import random
import subprocess
import time

import nbd

from cachetest import BLOCK, KIB, MIB, content, nbd_connect
from replicationtest import LOG, ReplicationTest, Stamps, Writer
from weirtest import blockdev, main, run, wait_for


class Journal(ReplicationTest):
    """The keeper alone."""

    def test_a_log_is_made_once(self):
        keeper = self.keeper()
        group = self.journal_info(keeper)['group']
        keeper.quit()
        keeper = self.keeper()
        self.assertEqual(self.journal_info(keeper)['group'], group)
        keeper.quit()

    def test_no_log_without_create(self):
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        self.assertFails('weir-journal', keeper.cmd, 'blockdev-add',
                         self.journal(create=False))
        keeper.quit()

    def test_something_else_is_not_overwritten(self):
        with open(self.log, 'r+b') as f:
            f.seek(4096)
            f.write(b'precious')
        before = self.file_content(self.log)
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        self.assertFails('weir-journal', keeper.cmd, 'blockdev-add',
                         self.journal())
        keeper.quit()
        self.assertEqual(self.file_content(self.log), before)

    def test_what_does_not_flush_is_refused(self):
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        for i, name in enumerate(('log', 'base0')):
            unsafe = {'driver': 'file', 'node-name': f'unsafe{i}',
                      'filename': self.image(f'unsafe{i}.img', LOG),
                      'cache': {'no-flush': True}}
            keeper.cmd('blockdev-add', unsafe)
            journal = self.journal()
            if name == 'log':
                journal['file'] = 'unsafe0'
            else:
                journal['bases'][0]['node'] = 'unsafe1'
            self.assertFails(f"'unsafe{i}', or one below, is opened with "
                             'cache.no-flush', keeper.cmd, 'blockdev-add',
                             journal)
            self.assertFails(
                'opened with cache.no-flush', keeper.cmd, 'blockdev-add',
                {'driver': 'weir-replication', 'node-name': 'repl',
                 'file': 'base0', 'disk-id': 'disk0',
                 'log': {'driver': 'raw', 'file': f'unsafe{i}'}})
        keeper.quit()

    def test_read_only_is_refused(self):
        keeper = self.server(self.keeper_sock, *self.keeper_nodes())
        self.assertFails('read-only', keeper.cmd, 'blockdev-add',
                         self.journal(read_only=True))
        keeper.quit()

    def test_what_is_no_packet_is_refused(self):
        keeper = self.keeper()
        client = nbd_connect(self.keeper_sock, 'log')
        before = client.pread(4 * MIB, 0)
        for data, offset in [(b'x' * 4096, 64 * KIB), (b'x' * 4096, 0),
                             (b'x' * 512, 64 * KIB)]:
            with self.assertRaises(nbd.Error):
                client.pwrite(data, offset)
        with self.assertRaises(nbd.Error):
            client.zero(4096, 64 * KIB)
        self.assertEqual(client.pread(4 * MIB, 0), before)
        self.assertGreaterEqual(self.journal_info(keeper)['refused'], 3)
        keeper.quit()

    def test_a_base_of_its_own_is_not_shared_with_writers(self):
        keeper = self.keeper()
        self.assertFails('', keeper.cmd, 'block-export-add', {
            'type': 'nbd', 'id': 'base', 'node-name': 'base0',
            'writable': True})
        keeper.quit()

    def test_retention_is_changed_by_reopening(self):
        keeper = self.keeper()
        keeper.cmd('blockdev-reopen', {'options': [
            self.journal(retain_time=1)]})
        self.assertFails('segment-size', keeper.cmd, 'blockdev-reopen', {
            'options': [self.journal(segment_size=16 * MIB)]})
        keeper.quit()

    def test_no_replica_without_a_point(self):
        keeper = self.keeper()
        self.assertFails('weir-replica', keeper.cmd, 'blockdev-add',
                         {**self.replica(), 'node-name': 'replica'})
        keeper.quit()

    def test_points_are_limited(self):
        keeper = self.keeper()
        self.assertEqual(self.points(keeper), [])
        self.assertFails('limit', self.points, keeper, limit=0)
        self.assertFails('limit', self.points, keeper, limit=10001)
        keeper.quit()


class Replica(ReplicationTest):
    """One disk."""

    def setUp(self):
        super().setUp()
        self.stamps = Stamps()

    def start_both(self, **options):
        keeper = self.keeper()
        source = self.source(**options)
        self.wait_for_status(source, 'streaming')
        return keeper, source

    def quit_both(self, keeper, source):
        source.quit()
        keeper.quit()

    def test_it_is_what_was_written(self):
        keeper, source = self.start_both()
        client, = self.clients()
        for _ in range(300):
            self.stamps.write([client])
        client.flush()
        self.mark(source, 'end')
        self.assertEqual(self.stamps.prefix(self.replicas(keeper)), 300)
        self.assertEqual(self.read_replica(keeper, point='mark:end'),
                         self.file_content(self.disk_files[0]))
        client.shutdown()
        self.quit_both(keeper, source)

    def test_each_point_is_the_disk_at_a_time(self):
        keeper, source = self.start_both()
        client, = self.clients()
        counts = {}
        for name in ('first', 'second', 'third'):
            for _ in range(100):
                self.stamps.write([client])
            self.mark(source, name)
            counts[name] = len(self.stamps.log)
        for name, count in counts.items():
            image = self.read_replica(keeper, point=f'mark:{name}')
            self.assertEqual(self.stamps.prefix([image]), count)
        seen = 0
        for point in reversed(self.points(keeper)):
            image = self.read_replica(keeper, point=f'epoch:{point["epoch"]}')
            if any(image):
                count = self.stamps.prefix([image])
                self.assertGreaterEqual(count, seen)
                seen = count
        self.assertEqual(seen, 300)
        client.shutdown()
        self.quit_both(keeper, source)

    def test_what_was_there_before_is_copied(self):
        with open(self.disk_files[0], 'r+b') as f:
            for block in range(0, 512, 3):
                f.seek(block * BLOCK)
                f.write(content(block, 7))
        keeper, source = self.start_both()
        self.mark(source, 'copied')
        self.assertEqual(self.read_replica(keeper),
                         self.file_content(self.disk_files[0]))
        self.quit_both(keeper, source)

    def test_requests_of_all_kinds(self):
        keeper, source = self.start_both()
        client, = self.clients()
        image = bytearray(16 * MIB)
        for _ in range(300):
            offset = random.randrange(16 * MIB - 1)
            count = min(16 * MIB - offset,
                        random.choice([1, 511, 4096, 70000, 3 * MIB]))
            kind = random.choice(['write', 'fua', 'zero', 'trim', 'flush'])
            if kind in ('write', 'fua'):
                data = random.randbytes(count)
                client.pwrite(data, offset,
                              nbd.CMD_FLAG_FUA if kind == 'fua' else 0)
                image[offset:offset + count] = data
            elif kind == 'zero':
                client.zero(count, offset, random.choice(
                    [0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA]))
                image[offset:offset + count] = bytes(count)
            elif kind == 'trim':
                client.trim(count, offset)
                image[offset:offset + count] = client.pread(count, offset)
            else:
                client.flush()
        self.assertEqual(client.pread(16 * MIB, 0), image)
        self.mark(source, 'end')
        self.assertEqual(self.read_replica(keeper), image)
        client.shutdown()
        self.quit_both(keeper, source)


def crc32c(data):
    """As in superblocks: begun with ~0, not inverted at the end."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc


class Compressed(ReplicationTest):
    """One disk, compress=zstd.  content() gets much shorter by it, random
    bytes do not."""

    def begin(self):
        self.the_keeper = self.keeper()
        self.begin_source('zstd')

    def begin_source(self, compress):
        self.the_source = self.source(compress=compress)
        self.wait_for_status(self.the_source, 'streaming')
        self.client, = self.clients()

    def end_source(self):
        self.client.shutdown()
        self.the_source.quit()

    def sent(self):
        self.wait_until_sent(self.the_source)
        info = self.replication_info(self.the_source)
        return info['sent-bytes'], info['plain-bytes']

    def write(self, tag, size=2 * MIB):
        """Some of what gets shorter, and some of what does not, of all
        lengths; up to where one record of it is longer than all."""
        for _ in range(20):
            blocks = random.choice([1, 1, 7, 64, size // BLOCK])
            first = random.randrange(4096 - blocks)
            data = random.randbytes(blocks * BLOCK) if random.randrange(2) \
                else b''.join(content(first + i, tag) for i in range(blocks))
            self.client.pwrite(data, first * BLOCK)

    def check_parts(self, point, image):
        """In small parts, and in any order."""
        with self.open_replica(self.the_keeper, point=point) as client:
            for at in range(0, MIB // 2, BLOCK):
                self.assertEqual(client.pread(BLOCK, at),
                                 image[at:at + BLOCK])
            for _ in range(50):
                at = random.randrange(len(image) - 1)
                count = min(random.choice([1, 512, 5000, 200000]),
                            len(image) - at)
                self.assertEqual(client.pread(count, at),
                                 image[at:at + count])

    def test_plain_and_compressed_in_one_log(self):
        images = {}
        self.begin()
        for i, compress in enumerate(['zstd', 'off', 'zstd']):
            if i > 0:
                self.begin_source(compress)
            self.write(i + 1)
            self.mark(self.the_source, compress + str(i))
            images[f'mark:{compress}{i}'] = \
                self.file_content(self.disk_files[0])
            self.end_source()
        self.the_keeper.quit()
        self.the_keeper = self.keeper()
        for point, image in images.items():
            self.assertEqual(self.read_replica(self.the_keeper, point=point),
                             image)
            self.check_parts(point, image)
        self.the_keeper.cmd('weir-journal-promote', {
            'job-id': 'failover', 'node-name': 'journal'})
        self.the_keeper.qmp.event('JOB_STATUS_CHANGE', lambda data:
                                  data['status'] == 'concluded')
        self.the_keeper.quit()
        self.assertEqual(self.file_content(self.base_files[0]), image)

    def test_only_what_gets_shorter(self):
        self.begin()
        before = self.sent()
        for at in range(0, 4 * MIB, MIB):
            self.client.pwrite(b''.join(content(i, 1) for i in range(256)), at)
        sent, plain = (a - b for a, b in zip(self.sent(), before))
        self.assertGreater(plain, 4 * MIB)
        self.assertLess(sent, MIB)
        before = self.sent()
        for at in range(0, 4 * MIB, MIB):
            self.client.pwrite(random.randbytes(MIB), at)
        sent, plain = (a - b for a, b in zip(self.sent(), before))
        self.assertEqual(sent, plain)
        self.end_source()
        self.begin_source('off')
        self.write(1)
        sent, plain = self.sent()
        self.assertEqual(sent, plain)
        self.end_source()
        self.the_keeper.quit()

    def test_source_is_killed(self):
        self.begin()
        stamps = Stamps()
        for _ in range(3):
            writer = Writer([self.client], stamps)
            writer.start()
            writer.more(200)
            self.kill(self.the_source)
            writer.end()
            self.begin_source('zstd')
        # the keeper may let it in only when the one that was killed seems dead
        self.wait_until_sent(self.the_source)
        self.end_source()
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.the_keeper.quit()

    def test_log_that_takes_nothing_compressed(self):
        """One as it was made before: the source says so, and sends nothing;
        without compression it does."""
        self.keeper().quit()
        with open(self.log, 'r+b') as f:
            block = bytearray(f.read(4096))
            self.assertEqual(block[16], 1)
            block[16] = 0
            block[12:16] = bytes(4)
            block[12:16] = crc32c(block).to_bytes(4, 'little')
            f.seek(0)
            f.write(block)
        self.the_keeper = self.keeper()
        self.the_source = self.source(compress='zstd')
        self.the_source.qmp.event(
            'WEIR_STATE', lambda data: 'takes nothing compressed' in
            data.get('reason', ''))
        self.assertEqual(self.replication_info(self.the_source)['sent-bytes'],
                         0)
        self.the_source.quit()
        self.begin_source('off')
        self.write(1)
        self.mark(self.the_source, 'end')
        self.end_source()
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.the_keeper.quit()

    def test_options(self):
        self.begin()
        self.the_source.cmd('blockdev-add', {
            'driver': 'null-co', 'node-name': 'disk1', 'size': MIB})
        self.assertFails("'compress'", self.the_source.cmd, 'blockdev-add',
                         self.replication(1))
        self.assertFails("'lz4'", self.the_source.cmd, 'blockdev-add',
                         self.replication(1, compress='lz4'))
        self.end_source()
        self.the_keeper.quit()


if __name__ == '__main__':
    main()
