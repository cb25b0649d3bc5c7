#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Replication over a link that is slow, far away, comes and goes, or changes
what passes: the guest does not notice, memory is limited, and each point in
time is the disks after a number of writes."""

import os
import random
import time

from cachetest import BLOCK, MIB, nbd_connect
from linktest import CMD_FLUSH, CMD_WRITE, Link, command_of, unchanged
from replicationtest import LONG, WriterTest, only_long
from weirtest import main, wait_for

SECONDS = 60 if LONG else 2     # that it flaps, or is down
DISK = 4 * MIB
ERRORS = 5 if LONG else 2       # that a session ends by
MEMORY = 8 * MIB                # the least that a source can do with


class LinkTest(WriterTest):
    disk_size = DISK
    points_to_check = 2
    knows_nbd = False

    def setUp(self):
        super().setUp()
        self.link = Link(self.path('link.sock'), self.keeper_sock,
                         self.knows_nbd)
        self.addCleanup(self.link.close)

    def remote_log(self, **options):
        return super().remote_log(
            server={'type': 'unix', 'path': self.link.path}, **options)

    def begin(self, **options):
        self.the_keeper = self.keeper()
        self.the_source = self.source(**options)
        self.wait_for_status(self.the_source, 'streaming')
        self.begin_to_write()

    def memory(self):
        """The most memory that it takes, looked at all the time."""
        info = self.replication_info(self.the_source)
        return info['memory-bytes']


class Slow(LinkTest):
    def test_latency(self):
        """50 ms each way: it streams all the same, and tells how far the log
        is behind."""
        self.begin()
        self.writer.pause_s = 0.001     # or more is written than passes
        self.link.latency_s = 0.05
        rpos = []
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            info = self.replication_info(self.the_source)
            self.assertEqual(info['status'], 'streaming')
            rpos.append(info['rpo'])
            self.writer.more(1)
        # a round trip for the packet and one for the flush
        self.assertGreaterEqual(max(rpos), 100)
        self.assertEqual(info['connections'], 1)
        self.check_end()

    def test_more_is_written_than_passes(self):
        """Memory is limited, and somebody is told; when there is less to
        write, all gets there."""
        self.begin(max_memory=MEMORY, rpo_limit=500)
        self.link.rate = MIB
        client = nbd_connect(self.source_sock, 'disk0')
        most = 0
        for _ in range(16):
            for at in range(0, DISK, MIB):
                client.pwrite(os.urandom(MIB), at)
                most = max(most, self.memory())
        late = self.the_source.qmp.event('WEIR_REPLICATION_RPO')
        self.assertGreater(late['rpo'], late['limit'])
        self.assertGreater(most, MEMORY // 2)
        self.assertLessEqual(most, MEMORY)
        self.writer.end()
        self.link.rate = 0
        client.shutdown()
        again = self.the_source.qmp.event(
            'WEIR_REPLICATION_RPO', lambda data: data['rpo'] <= data['limit'])
        self.assertLessEqual(again['rpo'], again['limit'])
        self.assertIsNone(self.writer.error)
        self.writer.clients[0].shutdown()
        self.mark(self.the_source, 'end')
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.the_source.quit()
        self.the_keeper.quit()

    def sending(self, **options):
        """How long it takes until what is written is in the log."""
        self.the_source = self.source(**options)
        self.wait_for_status(self.the_source, 'streaming')
        self.wait_until_sent(self.the_source)
        client, = self.clients()
        begin = time.monotonic()
        client.pwrite(os.urandom(3 * MIB), 0)
        client.shutdown()
        self.wait_until_sent(self.the_source)
        took_s = time.monotonic() - begin
        self.the_source.quit()
        return took_s

    def test_max_rate(self):
        """The source sends no faster than it may."""
        self.the_keeper = self.keeper()
        free_s = self.sending()
        rate = int(3 * MIB / (3 * free_s + 1.5))
        # the first packet is not waited for
        self.assertGreater(self.sending(max_rate=rate), 2 * MIB / rate)
        self.the_keeper.quit()


class Gone(LinkTest):
    """The link goes and comes back while a client writes."""

    def down(self, seconds):
        self.link.cut = True
        self.link.drop()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.writer.more(5)
            # a point in time is there all the while
            self.assertTrue(self.points(self.the_keeper, limit=1))
        self.link.cut = False

    def test_down(self):
        """Memory holds what is written meanwhile: only that is sent."""
        self.begin()
        self.mark(self.the_source, 'before')
        for seconds in (1, SECONDS):
            self.down(seconds)
            self.wait_for_status(self.the_source, 'streaming')
        self.assertEqual(self.replication_info(self.the_source)
                         ['resync-bytes'], 0)
        self.check_end()

    @only_long
    def test_down_for_longer_than_memory_lasts(self):
        """Then it is marked, and copied later; meanwhile, the last point in
        time can be read."""
        self.begin(max_memory=MEMORY)
        self.mark(self.the_source, 'before')
        self.link.cut = True
        self.link.drop()
        count = 3 * MEMORY // BLOCK // 2
        self.writer.more(count)
        info = self.replication_info(self.the_source)
        self.assertLessEqual(info['memory-bytes'], MEMORY)
        self.assertGreater(info['resync-bytes'], 0)
        self.stamps.prefix(self.replicas(self.the_keeper))
        self.link.rate = 4 * MIB
        self.link.cut = False
        self.wait_for_info(
            self.the_source, lambda info: info['status'] == 'synchronising',
            'it is copied')
        self.stamps.prefix(self.replicas(self.the_keeper))
        self.link.rate = 0
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    def test_flapping(self):
        """It is there for a moment again and again: that is enough."""
        self.begin(max_memory=MEMORY)
        end = time.monotonic() + SECONDS
        seen = 0
        while time.monotonic() < end or seen < 3:
            self.link.cut = not self.link.cut
            self.link.drop()
            begun = self.journal_info(self.the_keeper)['durable-epoch']
            wait_for(lambda: self.link.cut or self.journal_info(
                self.the_keeper)['durable-epoch'] > begun, 'it goes on')
            seen += not self.link.cut
            self.writer.more(5)
            self.assertLessEqual(self.memory(), MEMORY)
        self.link.cut = False
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    @only_long
    def test_nothing_passes_and_nobody_is_told(self):
        """A black hole, not only of the keeper's process."""
        self.begin()
        self.link.frozen = True
        self.the_source.qmp.event(
            'WEIR_STATE', lambda data: 'has not answered in time' in
            data.get('reason', ''))
        self.writer.more(50)
        self.link.frozen = False
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()


class SmallLog(LinkTest):
    log_size = 64 * MIB

    def test_more_is_written_than_it_holds(self):
        """While the sender waits for it: no epoch gets longer than the log."""
        self.begin(target_timeout=60000)
        self.link.frozen = True
        self.writer.more(100 * MIB // BLOCK)
        info = self.replication_info(self.the_source)
        self.assertGreater(info['queued-bytes'], self.log_size)
        self.link.frozen = False
        self.check_end()


@only_long
class GoneGroup(Gone):
    """The same with two disks."""

    disks = 2


class Wrong(LinkTest):
    """What passes is changed."""

    knows_nbd = True

    def wrong_replies(self, change, every=20):
        """One reply of so many becomes something else, a few times."""
        count = [0]

        def changed(conn, piece):
            count[0] += 1
            if count[0] % every or self.done >= ERRORS:
                yield piece
                return
            self.done += 1
            yield from change(conn, piece)
        self.done = 0
        self.link.change_reply = changed

    def goes_on(self):
        wait_for(lambda: self.done >= ERRORS, 'they are changed')
        self.link.change_reply = self.link.change_request = unchanged
        self.wait_for_info(
            self.the_source, lambda info: info['status'] == 'streaming' and
            info['connections'] > 1, 'another session')
        self.check_end()

    def test_garbage(self):
        self.begin()
        self.wrong_replies(lambda conn, piece: iter(
            [random.randbytes(len(piece))]))
        self.goes_on()

    def test_reply_twice(self):
        """The second one is not taken for the reply to a later request."""
        self.begin()
        self.wrong_replies(lambda conn, piece: iter([piece, piece]))
        self.goes_on()

    def test_no_reply(self):
        """The watchdog ends it."""
        self.begin(target_timeout=500)
        self.wrong_replies(lambda conn, piece: iter([]))
        self.goes_on()

    @only_long
    def test_reply_to_nothing(self):
        self.begin()
        self.wrong_replies(lambda conn, piece: iter(
            [piece[:8] + random.randbytes(8) + piece[16:]]))
        self.goes_on()

    @only_long
    def test_half_a_reply(self):
        def half(conn, piece):
            yield piece[:len(piece) // 2]
            time.sleep(0.1)
            conn.close()
        self.begin()
        self.wrong_replies(half)
        self.goes_on()

    def requests_with_other_data(self, change, kind=CMD_WRITE):
        count = [0]

        def changed(_conn, piece):
            if command_of(piece) == kind:
                count[0] += 1
                if count[0] % 10 == 0 and self.done < ERRORS:
                    self.done += 1
                    piece = change(piece)
            if piece:
                yield piece
        self.done = 0
        self.link.change_request = changed

    def test_bit_flips(self):
        """Of what is written to the log: the keeper refuses that."""
        def flip(piece):
            piece = bytearray(piece)
            # behind the request's head; what is between records is not
            # looked at: flip in the head of the packet
            piece[32 + random.randrange(256)] ^= 1 << random.randrange(8)
            return bytes(piece)
        self.begin()
        self.requests_with_other_data(flip)
        self.goes_on()

    @only_long
    def test_flush_is_lost(self):
        """Nothing counts as durable without one."""
        self.begin(target_timeout=500)
        self.requests_with_other_data(lambda piece: b'', CMD_FLUSH)
        self.goes_on()


if __name__ == '__main__':
    main()
