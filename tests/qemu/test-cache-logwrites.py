#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Power cuts between any two writes of the disk and of its cache.

While a client writes, the driver blklogwrites below both children of
weir-cache records each write and flush.  Now and then the test takes a mark:
how far the two logs are at one moment, and what the client knows to be durable
then.  Afterwards the disks are made again from the logs as a power cut at each
mark could have left them: with all that was flushed, and all, none, or some of
the rest, torn into sectors.  A cache that is opened over them must show each
block as the client knows it to be durable, or newer.
"""

import collections
import contextlib
import os
import pathlib
import random
import shutil
import struct
import time

import nbd

from cachetest import BLOCK, MIB, CacheTest, Expected, History, Load, content
from weirtest import QMPError, blockdev, main

BLOCKS = 1024                   # of the disk; half of them fit in the cache
SECTOR = 512
LOG_MAGIC = 0x6a736677736872
FLUSH, DISCARD = 1, 4
STEPS = int(os.environ.get('WEIR_LOGWRITES_STEPS', '120'))
MIDDLE = 2 * MIB                # behind journal and table of the cache
SETTLE_S = 0.5                  # for a mark; it is left out then


# --- what was written ---------------------------------------------------------

class Entry:
    """A write, a discard or a flush in a log."""

    def __init__(self, header, position):
        sector, sectors, flags, _ = struct.unpack('<QQQQ', header)
        self.offset = sector * SECTOR
        self.bytes = sectors * SECTOR
        self.is_flush = bool(flags & FLUSH)
        self.is_discard = bool(flags & DISCARD)
        self.position = position        # of the data in the log
        self.end = position + (0 if self.is_discard else self.bytes)


class Log:
    """The log of a disk, in the format of dm-log-writes."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY)
        self.entries = []
        self.end = SECTOR

    def close(self):
        os.close(self.fd)

    def settled(self):
        """How many entries there are, or None while one is being added.

        A request is answered only when its entry, which makes the log longer,
        is in there; the number of entries is brought up to date a little
        later, and may tell of some that are still to come.
        """
        magic, _, count, _ = struct.unpack(
            '<QQQI', os.pread(self.fd, 28, 0).ljust(28, b'\0'))
        while magic == LOG_MAGIC and len(self.entries) < count:
            header = os.pread(self.fd, 32, self.end)
            if not any(header):
                return None
            self.entries.append(Entry(header, self.end + SECTOR))
            self.end = self.entries[-1].end
        size = os.fstat(self.fd).st_size
        return count if size == (self.end if count else 0) else None

    def data(self, entry):
        if entry.is_discard:
            return bytes(entry.bytes)
        return os.pread(self.fd, entry.bytes, entry.position)


class Disk:
    """A disk as power cuts leave it, one after the other.

    The base is torn into blocks, the cache into sectors: a block of the base
    that is half written is no fault of the cache.
    """

    def __init__(self, log, image, unit):
        self.log = log
        self.image = bytearray(image)   # with the first @flushed entries
        self.after = bytearray(image)   # a power cut
        self.flushed = 0
        self.count = 0
        self.unit = unit

    def advance(self, count):
        """Go on to where the log had @count entries."""
        last = max((i for i in range(self.count, count)
                    if self.log.entries[i].is_flush), default=-1)
        for entry in self.log.entries[self.flushed:last + 1]:
            self.apply(self.image, entry)
        self.flushed = max(self.flushed, last + 1)
        self.count = count

    def apply(self, image, entry, wanted=None):
        """@wanted: for each unit of the entry, whether it got there."""
        data = self.log.data(entry)
        if wanted is None:
            image[entry.offset:entry.offset + entry.bytes] = data
            return
        for at in range(0, entry.bytes, self.unit):
            if wanted():
                image[entry.offset + at:entry.offset + at + self.unit] = \
                    data[at:at + self.unit]

    @property
    def pending(self):
        return self.count - self.flushed

    def cut(self, low, high):
        """What is there after a power cut.

        @low, @high: share of what was not flushed that is there, at either end
        of the disk
        """
        self.after[:] = self.image
        for entry in self.log.entries[self.flushed:self.count]:
            share = low if entry.offset < MIDDLE else high
            if random.random() < share:
                self.apply(self.after, entry)
            elif random.random() < share:
                self.apply(self.after, entry, lambda: random.random() < 0.5)
        return self.after


Mark = collections.namedtuple('Mark', 'base fast events mode durable')


# --- all of it ----------------------------------------------------------------

def plain_file(name):
    """A node that need not be safe: the power cuts are not real."""
    return {'driver': 'file', 'filename': name, 'discard': 'unmap',
            'cache': {'direct': False, 'no-flush': True}}


class PowerCuts(CacheTest):
    base_size = BLOCKS * BLOCK
    fast_size = 4 * MIB                 # 512 slots
    options = {'dirty_high': 30, 'dirty_low': 5, 'idle': 50, 'dirty_age': 500}

    # --- the load ---

    def logged_args(self, name, filename):
        """A node that logs what is written to a file; its log is empty."""
        log = self.path(f'{name}.log')
        pathlib.Path(log).touch()
        return ['--blockdev', blockdev(
            driver='blklogwrites', node_name=name, discard='unmap',
            log_super_update_interval=1, file=plain_file(filename),
            log=plain_file(log))]

    def open_log(self, name):
        log = Log(self.path(f'{name}.log'))
        self.addCleanup(log.close)
        return log

    def fill_base(self):
        """Half of the blocks have data; returns the versions."""
        initial = [random.choice([0, 1]) for _ in range(BLOCKS)]
        with open(self.base, 'r+b') as f:
            for block, version in enumerate(initial):
                f.write(content(block, version))
        return initial

    def take_mark(self, durable=False):
        """The moment is when the log of the base is looked at."""
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end:
            fast = self.fast_log.settled()
            base = self.base_log.settled()
            if None not in (fast, base) and fast == self.fast_log.settled():
                self.marks.append(Mark(base, fast, len(self.history.events),
                                       self.mode, durable))
                return

    def prepare(self, mode):
        """What is there before the load, and the daemon."""
        self.mode = mode
        self.history, self.marks = History(), []
        self.initial = self.fill_base()
        self.images = [pathlib.Path(name).read_bytes()
                       for name in (self.base, self.fast)]
        daemon = self.server(
            *self.logged_args('base', self.base),
            *self.logged_args('fast', self.fast),
            *self.cache_args(mode=mode, **self.options), *self.export_args())
        self.base_log = self.open_log('base')
        self.fast_log = self.open_log('fast')
        return daemon

    def run_load(self, modes, steps):
        daemon = self.prepare(modes[0])
        client = self.connect()
        load = Load(client, self.history, range(BLOCKS),
                    self.take_mark)
        order = [modes[0], *random.sample(modes[1:], len(modes) - 1)]
        for i in range(steps):
            mode = order[i * len(order) // steps]
            if mode != self.mode:
                self.mode = mode
                self.reopen(daemon, mode=mode, **self.options)
            load.step()
        info = self.info(daemon)
        self.assertEqual(info['state'], 'ok')
        client.shutdown()
        daemon.quit()
        return info

    # --- the power cuts ---

    def make_images(self, disks, cut):
        for name, disk in zip(('base', 'fast'), disks):
            with open(self.path(f'{name}.cut'), 'r+b') as f:
                f.write(disk.cut(*cut))

    @contextlib.contextmanager
    def opened(self, daemon, mode):
        """The cache over the images of a power cut; yields what it shows."""
        for name in ('base', 'fast'):
            daemon.cmd('blockdev-add', node_name=name,
                       **plain_file(self.path(f'{name}.cut')))
        try:
            daemon.cmd('blockdev-add', driver='weir-cache', node_name='cache',
                       file='base', cache_file='fast', mode=mode, idle=0,
                       discard='unmap')
            daemon.cmd('block-export-add', type='nbd', id='exp',
                       node_name='cache', name='disk', writable=True)
            client = self.connect()
            yield client.pread(self.base_size, 0)
            client.shutdown()
        finally:
            self.close_all(daemon)

    def close_all(self, daemon):
        for export in daemon.cmd('query-block-exports'):
            daemon.cmd('block-export-del', id=export['id'], mode='hard')
            daemon.qmp.event('BLOCK_EXPORT_DELETED')
        daemon.qmp.events.clear()
        for info in daemon.cmd('query-weir'):
            daemon.cmd('blockdev-del', {'node-name': info['node-name']})
        for name in ('base', 'fast'):
            daemon.cmd('blockdev-del', {'node-name': name})

    def check_cut(self, daemon, mode, expected, detach):
        """Returns what is wrong, as a list."""
        wrong = []
        try:
            with self.opened(daemon, mode) as data:
                wrong += expected.wrong(range(BLOCKS), data)
                info = self.info(daemon)
                if (info['state'], info['corrupt-clean'],
                        info['corrupt-dirty']) != ('ok', 0, 0):
                    wrong.append(f'{info}')
                if detach:
                    daemon.cmd('weir-detach', {'node-name': 'cache'})
                    base = pathlib.Path(self.path('base.cut'))
                    if base.read_bytes() != data:
                        wrong.append('the base is not what the cache showed')
        except (QMPError, nbd.Error) as error:
            wrong.append(str(error))
        return wrong

    def replay(self, cuts, forgetful=False):
        """Cut the power at all marks; returns how often, and what is wrong.

        @cuts: what of a mark's last writes is there; see random_cuts()
        @forgetful: whether the cache has lost what it had in the last steps
        """
        disks = [Disk(self.base_log, self.images[0], BLOCK),
                 Disk(self.fast_log, self.images[1], SECTOR)]
        expected = Expected(self.history, self.initial)
        for name in (self.base, self.fast):
            shutil.copy(name, name.replace('.img', '.cut'))
        daemon = self.server(tests=False)
        count, wrong = 0, []
        for i, mark in enumerate(self.marks):
            disks[0].advance(mark.base)
            disks[1].advance(self.marks[max(0, i - 20)].fast if forgetful else
                             mark.fast)
            expected.advance(mark.events)
            for cut in cuts(mark, disks):
                self.make_images(disks, cut)
                wrong += [f'{mark}, {cut} of the rest: {text}' for text in
                          self.check_cut(daemon, mark.mode, expected,
                                         detach=count % 2 == 0)]
                count += 1
        daemon.quit()
        return count, wrong

    # --- the tests ---

    def random_cuts(self, mark, disks):
        """One at each flush; else the rather, the more is not flushed."""
        pending = sum(disk.pending for disk in disks)
        share = random.random()
        kinds = ((0, 0), (1, 1), (share, share), (0.05, 0.95), (0.95, 0.05))
        if mark.durable or random.random() < pending / 30:
            yield random.choice(kinds)

    def check(self, *modes):
        info = self.run_load(modes, STEPS)
        if len(modes) == 1:             # else some may not get so far
            self.assertGreater(info['evictions'], 0)
        count, wrong = self.replay(self.random_cuts)
        last = self.marks[-1]
        print(f'{len(self.marks)} marks, {count} power cuts; writes and '
              f'flushes: {last.fast} of the cache, {last.base} of the disk')
        self.assertGreater(count, STEPS / 4)
        self.assertEqual(wrong[:20], [])

    def test_write_back(self):
        self.check('write-back')

    def test_write_through(self):
        self.check('write-through')

    def test_changing_modes(self):
        self.check('write-back', 'write-through', 'write-around', 'read-only')

    def test_a_flush_that_is_forgotten_is_noticed(self):
        """The test itself: a cache that lies about its flushes is found."""
        self.run_load(['write-back'], 60)
        count, wrong = self.replay(lambda mark, disks: [(0, 0)],
                                   forgetful=True)
        self.assertGreater(count, 0)
        self.assertNotEqual(wrong, [])


if __name__ == '__main__':
    main()
