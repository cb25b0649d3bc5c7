#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that are hard to replicate: many at once that overlap, buffers that
change while they are written, disks that go; and clients of a keeper's export
that are no source."""

import random
import threading

import nbd

from cachetest import BLOCK, MIB, completed, nbd_connect
from linktest import CMD_WRITE, Link, command_of
from replicationtest import LONG, Stamps, Writer, WriterTest, only_long
from vhostuser import DATA, DATA_BYTES, VhostUserBlk
from weirtest import blockdev, main

DISK = 4 * MIB
ROUNDS = 200 if LONG else 10
DEPTH = 64
SECTOR = 512


class RequestTest(WriterTest):
    disk_size = DISK

    def begin(self, args=(), **options):
        self.the_keeper = self.keeper()
        self.the_source = self.server(self.source_sock, *args,
                                      *self.source_args(**options))
        self.wait_for_status(self.the_source, 'streaming')

    def check_end(self):
        self.mark(self.the_source, 'end')
        for i in range(self.disks):
            self.assertTrue(self.read_replica(self.the_keeper, i) ==
                            self.file_content(self.disk_files[i]))
        self.the_source.quit()
        self.the_keeper.quit()


class Overlapping(RequestTest):
    def write_at_once(self, client):
        """Ranges of a small part of the disk, all of different data."""
        cookies = []
        for _ in range(DEPTH):
            first = random.randrange(256)
            count = random.randint(1, min(64, 256 - first))
            buffer = nbd.Buffer.from_bytearray(
                bytearray(random.randbytes(count * SECTOR)))
            cookies.append(client.aio_pwrite(buffer, first * SECTOR))
        completed(client, cookies)

    def check_overlapping(self, args=(), **options):
        self.begin(args, **options)
        client, = self.clients()
        for i in range(ROUNDS):
            self.write_at_once(client)
            if i == ROUNDS // 2:
                self.mark(self.the_source, 'half')
                half = self.file_content(self.disk_files[0])
        client.shutdown()
        self.assertTrue(self.read_replica(self.the_keeper, point='mark:half')
                        == half)
        self.check_end()

    @only_long
    def test_in_the_main_loop(self):
        self.check_overlapping()

    def test_in_an_io_thread(self):
        self.check_overlapping(['--object', 'iothread,id=io0'],
                               export_options=',iothread=io0')


class ChangingBuffers(RequestTest):
    def scribble(self, client, ends):
        while not ends.is_set():
            at = DATA + random.randrange(DATA_BYTES - 64)
            client.memory[at:at + 64] = random.randbytes(64)

    def test_they_are_read_once(self):
        """A guest may write to the memory of a request under way: disk and
        replica are equal nevertheless."""
        self.begin()
        self.the_source.cmd('block-export-del', {'id': 'exp0'})
        self.the_source.qmp.event('BLOCK_EXPORT_DELETED')
        path = self.path('vhost.sock')
        self.the_source.cmd('block-export-add', {
            'type': 'vhost-user-blk', 'id': 'vhost', 'node-name': 'repl0',
            'writable': True, 'addr': {'type': 'unix', 'path': path}})
        client = VhostUserBlk(path)
        ends = threading.Event()
        scribbler = threading.Thread(target=self.scribble,
                                     args=[client, ends])
        scribbler.start()
        try:
            for _ in range(ROUNDS):
                client.pwrite(random.randbytes(MIB),
                              random.randrange(DISK - MIB) // SECTOR * SECTOR)
        finally:
            ends.set()
            scribbler.join()
        client.shutdown()
        self.check_end()


class TwoDisks(RequestTest):
    disks = 2

    def test_one_of_them_goes(self):
        """And comes again, while the other is written to."""
        self.begin()
        client = nbd_connect(self.source_sock, 'disk0')
        other = nbd_connect(self.source_sock, 'disk1')
        other.pwrite(b'1' * MIB, 0)
        other.shutdown()
        writer = Writer([client], Stamps(1, DISK // BLOCK), flush_every=20)
        writer.start()
        writer.more()
        self.the_source.cmd('block-export-del', {'id': 'exp1'})
        self.the_source.qmp.event('BLOCK_EXPORT_DELETED')
        self.the_source.cmd('blockdev-del', {'node-name': 'repl1'})
        writer.more()
        self.mark(self.the_source, 'alone')
        self.assertEqual(
            self.read_replica(self.the_keeper, 1, 'mark:alone')[:MIB],
            b'1' * MIB)
        self.the_source.cmd('blockdev-add', self.replication(1))
        writer.more()
        writer.end()
        self.assertIsNone(writer.error)
        client.shutdown()
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()


class Hostile(RequestTest):
    """A client of the keeper's export, beside a source that is at work. It
    knows all that the source has sent."""

    def setUp(self):
        super().setUp()
        self.link = Link(self.path('link.sock'), self.keeper_sock, True)
        self.addCleanup(self.link.close)
        self.link.change_request = self.record
        self.packets = []

    def remote_log(self, **options):
        return super().remote_log(
            server={'type': 'unix', 'path': self.link.path}, **options)

    def record(self, _conn, piece):
        if command_of(piece) == CMD_WRITE:
            self.packets.append((int.from_bytes(piece[16:24], 'big'),
                                 piece[32:]))
        yield piece

    def packet(self):
        return random.choice(self.packets[-100:])

    def replay(self, client):
        """It may be taken only if it is before the one of the source."""
        offset, data = self.packet()
        try:
            client.pwrite(data, offset)
        except nbd.Error:
            return True
        return None

    def refused(self, function, *args):
        try:
            function(*args)
        except nbd.Error:
            return True
        return False

    def elsewhere(self, client):
        offset, data = self.packet()
        shift = random.choice([-1, 1]) * random.randrange(1, 1 << 10) * 4096
        return self.refused(client.pwrite, data,
                            max(0, offset + shift))

    def changed(self, client):
        offset, data = self.packet()
        data = bytearray(data)
        # header, or table; what is between records is not looked at
        data[random.randrange(256)] ^= 1 << random.randrange(8)
        return self.refused(client.pwrite, bytes(data), offset)

    def part(self, client):
        offset, data = self.packet()
        if len(data) <= 4096:
            return True
        return self.refused(client.pwrite, data[:-4096], offset)

    def nonsense(self, client):
        count = random.choice([1, 512, 4096, MIB, 5 * MIB])
        return self.refused(client.pwrite, random.randbytes(count),
                            random.randrange(client.get_size() - count))

    def zeroes(self, client):
        return self.refused(client.zero, 4096 * random.randint(1, 4000),
                            4096 * random.randrange(100))

    def discard(self, client):
        # a request may be ignored, which is no error
        before = client.pread(MIB, 0)
        self.refused(client.trim, MIB, 0)
        return client.pread(8192, 0)[:4] == before[:4]

    def behind_the_end(self, client):
        size = client.get_size()
        at = size + random.choice([-512, 0, 4096, 1 << 50])
        return self.refused(client.pread, 4096, at) and \
            self.refused(client.pwrite, bytes(4096), at)

    def gone_in_a_packet(self, _client):
        """The connection ends when part of a request has been sent."""
        other = nbd_connect(self.keeper_sock, 'log')
        other.aio_pwrite(nbd.Buffer.from_bytearray(
            bytearray(random.randbytes(4 * MIB))), 65536)
        del other
        return True

    def test_all_of_it(self):
        self.begin()
        self.begin_to_write()
        self.mark(self.the_source, 'before')
        client = nbd_connect(self.keeper_sock, 'log')
        client.set_strict_mode(0)
        kinds = [self.replay, self.elsewhere, self.changed, self.part,
                 self.nonsense, self.zeroes, self.discard,
                 self.behind_the_end, self.gone_in_a_packet]
        for kind in max(1, ROUNDS // 20) * kinds:
            self.assertNotEqual(kind(client), False, kind.__name__)
            client.flush()
        client.shutdown()
        self.writer.more()
        self.assertGreater(self.journal_info(self.the_keeper)['refused'],
                           4)
        self.wait_for_status(self.the_source, 'streaming')
        self.end_writer()
        self.mark(self.the_source, 'end')
        for point in 'before', 'end':
            self.stamps.prefix(self.replicas(self.the_keeper,
                                             f'mark:{point}'))
        self.check_end()


class Hangs(RequestTest):
    """A log that is no NBD node, and does not answer for long: a file behind a
    throttle."""

    def begin_with(self, **options):
        log = self.image('file-log.img', self.log_size)
        keeper = self.daemon(
            *self.file_node('log', log), '--blockdev',
            blockdev(driver='weir-journal', node_name='journal', file='log',
                     create=True))
        keeper.quit()
        node = {'driver': 'throttle', 'throttle-group': 'limits',
                'node-name': 'remote-log', 'file': 'log-file'}
        self.the_source = self.server(
            self.source_sock, '--object', 'throttle-group,id=limits',
            *self.file_node('log-file', log),
            *self.source_args(log=node, target_timeout=1000, **options))
        self.wait_for_status(self.the_source, 'streaming')
        self.client, = self.clients()

    def hang(self, hangs=True):
        """What waits then goes on by itself, 12 s after this MiB."""
        self.the_source.cmd('qom-set', {
            'path': 'limits', 'property': 'limits',
            'value': {'bps-write': MIB // 12 if hangs else 0}})
        if hangs:
            self.client.pwrite(b'1' * MIB, MIB)

    def check(self, outcome, **options):
        self.begin_with(**options)
        writer = threading.Thread(target=self.write, daemon=True)
        self.hang()
        self.error = None
        writer.start()
        writer.join(8)
        self.assertEqual(writer.is_alive(), outcome == 'waits')
        self.wait_for_info(self.the_source, lambda info: info['state'] ==
                           'degraded', 'it is told')
        self.hang(False)
        writer.join(60)
        self.assertFalse(writer.is_alive())
        self.assertEqual(self.error, 'EIO' if outcome == 'fails' else None)
        self.client.shutdown()
        self.wait_for_status(self.the_source, 'streaming')
        self.the_source.quit()

    def write(self):
        try:
            self.client.pwrite(b'2' * BLOCK, 0)
            self.client.flush()
        except nbd.Error as error:
            self.error = error.errno

    @only_long
    def test_async(self):
        self.check('goes on', mode='async')

    def test_degrade(self):
        self.check('goes on', mode='flush-sync', on_loss='degrade')

    @only_long
    def test_error(self):
        self.check('fails', mode='flush-sync', on_loss='error')

    @only_long
    def test_suspend(self):
        self.check('waits', mode='flush-sync', on_loss='suspend')


if __name__ == '__main__':
    main()
