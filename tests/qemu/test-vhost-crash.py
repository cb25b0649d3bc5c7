#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 of a storage daemon whose clients live on: a guest with its disk out
of process; or a plugin in it that crashes.

Many requests are under way, and end in another order than they were sent.
After each kill the daemon is started again with the same chain, and the queue
goes on: each request ends, none twice, and what the guest was told to be
written is there.
"""

import os
import random
import signal
import time

from plugindisk import PLUGINS
from vhostqueue import CONFIG_WCE, DATA_BYTES, DEPTH, Disconnected, Queue
from vhostuser import FLUSH_REQUEST
from weirtest import TestCase, main, wait_for

MIB = 1 << 20
SIZE = 16 * MIB
UNIT = 4096
KILLS = int(os.environ.get('WEIR_VHOST_KILLS', '4'))
PATIENCE_S = 60


class Guest:
    """Writes and reads all over the disk; knows what has to be there."""

    def __init__(self, queue):
        self.queue = queue
        self.version = 0
        self.units = [0] * (SIZE // UNIT)   # which write each is of
        self.busy = set()                   # units with a write under way
        self.ended = 0

    def pattern(self, version, unit):
        return (b'%08d-%06d!' % (version, unit)).ljust(UNIT // 64, b'.') * 64

    def range(self):
        count = random.choice([1, 1, 1, 4, DATA_BYTES // UNIT])
        first = random.randrange(len(self.units) - count)
        return range(first, first + count)

    def submit(self):
        kind = random.random()
        units = self.range()
        if kind < 0.05:
            self.queue.submit(FLUSH_REQUEST, tag=())
        elif self.busy.isdisjoint(units):
            self.busy.update(units)
            if kind < 0.3:
                self.queue.read(units.start * UNIT, len(units) * UNIT, units)
            else:
                self.version += 1
                data = b''.join(self.pattern(self.version, u) for u in units)
                self.queue.write(units.start * UNIT, data,
                                 (self.version, units))

    def expected(self, unit):
        version = self.units[unit]
        return self.pattern(version, unit) if version else bytes(UNIT)

    def check(self, units, data):
        for i, unit in enumerate(units):
            found = data[i * UNIT:(i + 1) * UNIT]
            assert found == self.expected(unit), (
                f'unit {unit}: {found[:16]} where version '
                f'{self.units[unit]} should be')

    def take(self):
        for request, status, data in self.queue.take():
            assert status == 0, (request.kind, status)
            self.ended += 1
            if isinstance(request.tag, range):
                self.check(request.tag, data)
                self.busy.difference_update(request.tag)
            elif request.tag:
                version, units = request.tag
                for unit in units:
                    self.units[unit] = version
                self.busy.difference_update(units)

    def work(self, until):
        """Until that time; with None, until all has ended."""
        last = time.monotonic()
        while until is None or time.monotonic() < until:
            while until and len(self.queue.pending) < DEPTH:
                self.submit()
            if not self.queue.pending:
                return
            if self.queue.wait(0.2):
                last = time.monotonic()
            self.take()
            assert time.monotonic() < last + PATIENCE_S, (
                f'{len(self.queue.pending)} requests hang')

    def read_all(self):
        step = DATA_BYTES // UNIT
        for first in range(0, len(self.units), step):
            units = range(first, min(first + step, len(self.units)))
            self.queue.read(first * UNIT, len(units) * UNIT, units)
            self.work(None)


class Crash(TestCase):
    def setUp(self):
        super().setUp()
        self.sock = self.path('vhost.sock')
        self.seed = random.randrange(1 << 32)
        random.seed(self.seed)

    def serve(self, *args, writethrough='off'):
        return self.daemon(
            '--object', 'iothread,id=io0', *args,
            '--export', 'type=vhost-user-blk,id=vhost,node-name=disk,'
            f'writable=on,iothread=io0,writethrough={writethrough},'
            f'addr.type=unix,addr.path={self.sock}')

    def kill(self, daemon):
        daemon.process.kill()
        daemon.process.wait()
        os.unlink(self.sock)

    def crash(self, *args, **options):
        """Some kills under load; all that the guest knows has to be there."""
        daemon = self.serve(*args, **options)
        queue = Queue(self.sock)
        self.addCleanup(queue.shutdown)
        guest = Guest(queue)
        left = 0
        for _ in range(KILLS):
            guest.work(time.monotonic() + random.uniform(0.05, 0.4))
            self.kill(daemon)
            guest.take()
            left += len(queue.pending)
            with self.assertRaises(Disconnected):
                while True:
                    queue.wait(1)
            daemon = self.serve(*args, **options)
            queue.connect()
        guest.work(time.monotonic() + 0.1)
        guest.work(None)
        self.assertGreater(queue.overtaken, KILLS, 'all was in order')
        self.assertGreater(left, KILLS, 'nothing was in flight')
        guest.read_all()
        daemon.quit()
        print(f'seed {self.seed}: {guest.ended} requests, {left} in flight at '
              f'{KILLS} kills, {queue.overtaken} overtaken')

    def raw(self, name='disk', direct='off'):
        path = self.image(f'{name}.img', SIZE)
        return ['--blockdev', f'file,node-name={name}-file,filename={path},'
                f'cache.direct={direct}',
                '--blockdev', f'raw,node-name={name},file={name}-file']

    def test_raw(self):
        self.crash(*self.raw())

    def test_raw_direct(self):
        self.crash(*self.raw(direct='on'))

    def test_cache(self):
        """What a cache holds back has to be there as well."""
        fast = self.image('fast.img', 8 * MIB)
        self.crash(*self.raw('slow'), '--blockdev',
                   f'file,node-name=fast,filename={fast}', '--blockdev',
                   'weir-cache,node-name=disk,file=slow,cache-file=fast',
                   writethrough='on')

    def test_plugin_that_crashes(self):
        """In the middle of a write; what was in flight is done, once."""
        when = self.path('when')
        args = [*self.raw('below'), '--blockdev', 'weir-plugin,node-name=disk,'
                f'file=below,plugin={PLUGINS}/crash.so,options.when={when}']
        daemon = self.serve(*args)
        queue = Queue(self.sock)
        self.addCleanup(queue.shutdown)
        guest = Guest(queue)
        left = 0
        for _ in range(KILLS):
            guest.work(time.monotonic() + random.uniform(0.05, 0.2))
            with open(when, 'wb'):
                pass
            with self.assertRaises(Disconnected):
                guest.work(time.monotonic() + PATIENCE_S)
            self.assertEqual(daemon.process.wait(), -signal.SIGSEGV)
            self.assertFalse(os.path.exists(when))
            guest.take()
            left += len(queue.pending)
            os.unlink(self.sock)
            daemon = self.serve(*args)
            queue.connect()
        guest.work(time.monotonic() + 0.1)
        guest.work(None)
        self.assertGreater(left, KILLS, 'nothing was in flight')
        guest.read_all()
        daemon.quit()

    def test_stop(self):
        """A queue that is stopped has nothing in flight when it starts."""
        daemon = self.serve(*self.raw())
        queue = Queue(self.sock)
        self.addCleanup(queue.shutdown)
        self.assertFalse(queue.features & CONFIG_WCE)
        guest = Guest(queue)
        for _ in range(20):
            guest.work(time.monotonic() + 0.02)
            base = queue.stop()
            self.assertEqual(base, queue.used_index())
            guest.take()
            queue.set_up_queue()
            os.eventfd_write(queue.kick, 1)
        guest.work(None)
        guest.read_all()
        daemon.quit()

    def test_new_memory(self):
        """A guest that was restored has a queue that was used, and nothing in
        flight: what comes first is not forgotten."""
        def slow(latency_ns):
            return ['--blockdev', f'null-co,node-name=disk,size={SIZE},'
                    f'latency-ns={latency_ns}']

        daemon = self.serve(*slow(0))
        queue = Queue(self.sock)
        self.addCleanup(queue.shutdown)
        queue.write(0, bytes(UNIT))
        wait_for(queue.take, 'the first request')
        daemon.quit()
        os.close(queue.inflight[0])
        queue.inflight = None
        queue.free.sort()
        daemon = self.serve(*slow(1000 ** 3 * PATIENCE_S))
        queue.connect()
        for i in range(2):
            queue.write(i * UNIT, bytes(UNIT))
        time.sleep(0.3)
        self.kill(daemon)
        daemon = self.serve(*slow(0))
        queue.connect()
        while queue.pending:
            self.assertTrue(queue.wait(PATIENCE_S), 'a request hangs')
            queue.take()        # which fails if one ends twice
        daemon.quit()

    def test_drain_after_a_disconnect(self):
        """The other side goes while requests are in flight, and the disk is
        drained before they have ended."""
        daemon = self.serve(
            '--object', '{"qom-type": "throttle-group", "id": "slow", '
            '"limits": {"iops-total": 1}}', *self.raw('below'), '--blockdev',
            'throttle,node-name=disk,throttle-group=slow,file=below')
        queue = Queue(self.sock)
        self.addCleanup(queue.shutdown)
        for i in range(4):
            queue.write(i * UNIT, bytes(UNIT))
        wait_for(lambda: queue.used_index() > 0, 'the first request')
        self.assertLess(queue.used_index(), 4)
        queue.disconnect()
        time.sleep(0.3)
        daemon.cmd('block_resize', node_name='disk', size=SIZE)
        queue.connect()
        wait_for(lambda: queue.used_index() == 4, 'all requests')
        daemon.quit()

    def test_memory_that_moves(self):
        """Memory is plugged in while requests are in flight: what they read and
        write is somewhere else in the daemon then."""
        daemon = self.serve(
            '--object', '{"qom-type": "throttle-group", "id": "slow", '
            '"limits": {"iops-total": 20}}', *self.raw('below'), '--blockdev',
            'throttle,node-name=disk,throttle-group=slow,file=below')
        queue = Queue(self.sock)
        self.addCleanup(queue.shutdown)
        guest = Guest(queue)
        for parts in range(2, 6):
            guest.work(time.monotonic() + 0.1)
            queue.set_up_memory(parts)
        guest.work(None)
        daemon.cmd('qom-set', path='/objects/slow', property='limits',
                   value={'iops-total': 0})
        guest.read_all()
        daemon.quit()


if __name__ == '__main__':
    main()
