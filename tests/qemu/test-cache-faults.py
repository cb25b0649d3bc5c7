#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors of the disk and of the cache device, and damage to what is there:
what "When something goes wrong" in docs/weir-cache.md says.

Both devices are files below a node "raw", which can be given blkdebug in
between and be rid of it again while everything is in use.
"""

import errno
import os
import pathlib
import random
import struct
import time

import nbd

from cachetest import BLOCK, KIB, MIB, CacheTest
from weirtest import blockdev, main, wait_for

SECTOR = 512
NAMES = {errno.EIO: 'EIO', errno.ENOSPC: 'ENOSPC'}


class Layout:
    """Where things are on a cache device: its newer superblock."""

    def __init__(self, path):
        data = pathlib.Path(path).read_bytes()[:2 * BLOCK]
        copies = [data[:BLOCK], data[BLOCK:]]
        newer = max((c for c in copies if c.startswith(b'WEIRCACH')),
                    key=lambda c: struct.unpack_from('<Q', c, 32))
        (self.journal, self.journal_blocks, self.slots, self.table,
         self.table_sectors, _, self.data) = struct.unpack_from('<QIIQIIQ',
                                                                newer, 88)


class FaultTest(CacheTest):
    base_size = 16 * MIB
    fast_size = 4 * MIB                 # some 500 slots

    def switched_args(self, name, filename):
        return [*self.file_args(f'{name}-file', filename),
                '--blockdev', blockdev(driver='raw', node_name=name,
                                       file=f'{name}-file', discard='unmap')]

    def chain(self, **options):
        """By default nothing happens by itself."""
        options = {'idle': 0, 'dirty_age': 0, **options}
        return self.server(
            *self.switched_args('base', self.base),
            *self.switched_args('fast', self.fast),
            *self.cache_args(**options), *self.export_args())

    def switch(self, daemon, name, file):
        daemon.cmd('blockdev-reopen', {'options': [{
            'driver': 'raw', 'node-name': name, 'file': file,
            'discard': 'unmap'}]})

    def inject(self, daemon, name, *rules, error=errno.EIO):
        """From now on requests fail; a rule is the options of blkdebug's."""
        daemon.cmd('blockdev-add', {
            'driver': 'blkdebug', 'node-name': f'{name}-debug',
            'image': f'{name}-file', 'discard': 'unmap', 'inject-error': [
                {'event': 'none', 'errno': error, **rule} for rule in rules]})
        self.switch(daemon, name, f'{name}-debug')

    def heal(self, daemon, name):
        self.switch(daemon, name, f'{name}-file')
        daemon.cmd('blockdev-del', node_name=f'{name}-debug')

    def fails(self, error, function, *args):
        with self.assertRaises(nbd.Error) as caught:
            function(*args)
        self.assertEqual(caught.exception.errno, NAMES[error])

    def state_is(self, daemon, state, reason=''):
        """An event tells so, and so does the query."""
        event = daemon.qmp.event('WEIR_STATE', lambda d: d['state'] == state
                                 and reason in d.get('reason', ''))
        info = self.info(daemon)
        self.assertEqual((event['node-name'], event['driver'], info['state'],
                          info.get('reason')),
                         ('cache', 'weir-cache', state, event.get('reason')))
        return info

    def on_base(self, block, count=1):
        with open(self.base, 'rb') as f:
            f.seek(block * BLOCK)
            return f.read(count * BLOCK)

    def fill(self, client, blocks):
        """Unlike content in each; returns it."""
        data = {block: os.urandom(BLOCK) for block in blocks}
        for block, piece in data.items():
            client.pwrite(piece, block * BLOCK)
        return data

    def check(self, client, data):
        for block, piece in data.items():
            self.assertTrue(client.pread(BLOCK, block * BLOCK) == piece, block)

    def damage(self, piece, path=None):
        """Change a byte of a block wherever the cache device has it."""
        with open(path or self.fast, 'r+b') as f:
            at = f.read().find(piece)
            self.assertGreaterEqual(at, 0)
            f.seek(at + random.randrange(len(piece)))
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 1 << random.randrange(8)]))

    def wait_clean(self, daemon):
        wait_for(lambda: self.info(daemon)['dirty'] == 0, 'nothing is dirty')

    def wait_used(self, daemon, blocks):
        wait_for(lambda: self.info(daemon)['used'] >= blocks * BLOCK,
                 'blocks are in the cache')


class Damage(FaultTest):
    def clean_and_dirty(self, daemon, client):
        """Blocks 0 to 9 clean, 20 to 29 dirty, all in the cache."""
        self.reopen(daemon, mode='write-through', idle=0, dirty_age=0)
        data = self.fill(client, range(10))
        self.wait_used(daemon, 10)
        self.reopen(daemon, idle=0, dirty_age=0)
        data.update(self.fill(client, range(20, 30)))
        client.flush()
        self.assertEqual(self.info(daemon)['dirty'], 10 * BLOCK)
        return data

    def test_clean_block(self):
        """It is read from the disk instead, and put right."""
        daemon = self.chain()
        client = self.connect()
        data = self.clean_and_dirty(daemon, client)
        self.damage(data[3])
        self.check(client, data)
        info = self.info(daemon)
        self.assertEqual((info['corrupt-clean'], info['corrupt-dirty'],
                          info['state']), (1, 0, 'ok'))
        self.check(client, data)
        self.assertEqual(self.info(daemon)['corrupt-clean'], 1)
        daemon.quit()

    def test_clean_block_in_a_long_read(self):
        daemon = self.chain()
        client = self.connect()
        data = self.clean_and_dirty(daemon, client)
        for block in (0, 4, 5, 9):
            self.damage(data[block])
        self.assertTrue(client.pread(10 * BLOCK, 0) ==
                        b''.join(data[b] for b in range(10)))
        self.assertEqual(self.info(daemon)['corrupt-clean'], 4)
        daemon.quit()

    def test_dirty_block(self):
        """It is lost; but never is there something else in its place."""
        daemon = self.chain()
        client = self.connect()
        data = self.clean_and_dirty(daemon, client)
        self.damage(data.pop(25))
        before = self.on_base(25)
        self.fails(errno.EIO, client.pread, BLOCK, 25 * BLOCK)
        self.fails(errno.EIO, client.pread, 10 * BLOCK, 20 * BLOCK)
        self.state_is(daemon, 'failed', 'damaged')
        self.assertGreater(self.info(daemon)['corrupt-dirty'], 0)
        self.check(client, data)
        # the others can be written back, this one stays, and is tried again
        # now and then, not all the time
        self.reopen(daemon, mode='write-through')
        wait_for(lambda: self.info(daemon)['dirty'] == BLOCK, 'one is left')
        tried = self.info(daemon)['corrupt-dirty']
        time.sleep(1)
        self.assertLess(self.info(daemon)['corrupt-dirty'], tried + 20)
        self.assertFails('cannot be written back', daemon.cmd, 'weir-detach',
                         {'node-name': 'cache'})
        self.assertTrue(self.on_base(25) == before)
        self.fails(errno.EIO, client.pread, BLOCK, 25 * BLOCK)
        self.check(client, data)
        # written anew it is whole again
        data.update(self.fill(client, [25]))
        self.check(client, data)
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        for block, piece in data.items():
            self.assertTrue(self.on_base(block) == piece)
        daemon.quit()

    def test_between_two_openings(self):
        daemon = self.chain()
        client = self.connect()
        data = self.clean_and_dirty(daemon, client)
        client.shutdown()
        daemon.quit()
        self.damage(data[29])
        daemon = self.chain()
        client = self.connect()
        self.assertEqual(self.info(daemon)['dirty'], 10 * BLOCK)
        self.fails(errno.EIO, client.pread, BLOCK, 29 * BLOCK)
        del data[29]
        self.check(client, data)
        daemon.quit()
        # damage to clean blocks may be found when samples are compared
        self.damage(data[0])
        daemon = self.chain()
        client = self.connect()
        self.check(client, data)
        self.fails(errno.EIO, client.pread, BLOCK, 29 * BLOCK)
        daemon.quit()

    def test_a_block_in_the_place_of_another(self):
        """The checksum knows where it belongs."""
        daemon = self.chain()
        client = self.connect()
        data = self.clean_and_dirty(daemon, client)
        with open(self.fast, 'r+b') as f:
            whole = f.read()
            f.seek(whole.find(data[21]))
            f.write(data[22])
        self.fails(errno.EIO, client.pread, BLOCK, 21 * BLOCK)
        del data[21]
        self.check(client, data)
        daemon.quit()


class Metadata(FaultTest):
    """Superblocks, table and journal, between two openings."""

    def leave(self, dirty, kill=False):
        """A cache of a daemon that has ended; returns what is in it."""
        daemon = self.chain(mode='write-back' if dirty else 'write-through')
        client = self.connect()
        data = {}
        for first in range(0, 100, 20):
            data.update(self.fill(client, range(first, first + 20)))
            client.flush()
        self.wait_used(daemon, 100)
        if kill:
            self.kill(daemon)
        else:
            client.shutdown()
            daemon.quit()
        return data

    def overwrite(self, offset, count):
        with open(self.fast, 'r+b') as f:
            f.seek(offset)
            f.write(os.urandom(count))

    def refused(self, text, **options):
        before = pathlib.Path(self.fast).read_bytes()
        with self.assertRaises(AssertionError) as caught:
            self.chain(**options)
        self.assertIn(text, str(caught.exception))
        self.assertTrue(pathlib.Path(self.fast).read_bytes() == before)

    def used_at_opening(self, **options):
        """Opens; returns the blocks that are there, and the client."""
        daemon = self.chain(**options)
        info = self.info(daemon)
        self.assertEqual(info['state'], 'ok')
        return info['used'] // BLOCK, daemon, self.connect()

    def test_one_superblock(self):
        for copy in (0, 1):
            with self.subTest(copy):
                data = self.leave(True)
                self.overwrite(copy * BLOCK + random.randrange(100), 4)
                used, daemon, client = self.used_at_opening()
                self.assertGreaterEqual(used, 100)
                self.check(client, data)
                daemon.quit()

    def test_both_superblocks(self):
        self.leave(True)
        self.overwrite(20, 4)
        self.overwrite(BLOCK + 20, 4)
        self.refused('both superblocks of the cache are damaged')
        used, daemon, client = self.used_at_opening(overwrite=True)
        self.assertEqual(used, 0)
        daemon.quit()

    def test_table(self):
        for dirty in (False, True):
            with self.subTest(dirty=dirty):
                data = self.leave(dirty)
                self.overwrite(Layout(self.fast).table + SECTOR + 100, 1)
                if dirty:
                    self.refused('the cache is damaged, and holds dirty')
                used, daemon, client = self.used_at_opening(lose_dirty=dirty)
                self.assertEqual(used, 0)
                for block, piece in data.items():
                    self.assertEqual(client.pread(BLOCK, block * BLOCK) ==
                                     piece, not dirty)
                daemon.quit()
                os.truncate(self.fast, 0)
                os.truncate(self.fast, self.fast_size)

    def test_journal(self):
        """What is needed after a crash is not there: no guesses."""
        self.leave(True, kill=True)
        layout = Layout(self.fast)
        whole = pathlib.Path(self.fast).read_bytes()
        blocks = [i for i in range(layout.journal_blocks) if
                  whole[layout.journal + i * BLOCK:].startswith(b'WCJ1')]
        self.assertGreater(len(blocks), 1)
        # the first one; what comes later is beyond the end of the chain
        self.overwrite(layout.journal + blocks[0] * BLOCK + 100, 4)
        self.refused('the cache is damaged, and holds dirty')
        used, daemon, client = self.used_at_opening(lose_dirty=True)
        self.assertEqual(used, 0)
        daemon.quit()


class CacheErrors(FaultTest):
    def slots_rules(self):
        """Errors of data only; journal and table can be written to."""
        layout = Layout(self.fast)
        return [{'iotype': 'write', 'sector': (layout.data + slot * BLOCK) //
                 SECTOR} for slot in range(layout.slots)]

    def test_data_goes_to_the_disk_instead(self):
        daemon = self.chain()
        client = self.connect()
        dirty = self.fill(client, range(10))
        client.flush()
        self.inject(daemon, 'fast', *self.slots_rules(), error=errno.ENOSPC)
        # new ones, and such as are dirty in the cache
        data = self.fill(client, range(5, 20))
        self.state_is(daemon, 'degraded', 'No space left on device')
        self.assertGreater(self.info(daemon)['write-errors'], 0)
        for block, piece in data.items():
            self.assertTrue(self.on_base(block) == piece, block)
        self.check(client, {**dirty, **data})
        client.flush()
        # read misses do not come in, and do no harm
        client.pread(BLOCK, 100 * BLOCK)
        self.heal(daemon, 'fast')
        data.update(self.fill(client, range(15, 25)))
        self.state_is(daemon, 'ok')
        self.check(client, {**dirty, **data})
        self.assertFalse(self.on_base(24) == data[24])
        client.flush()
        self.kill(daemon)
        daemon = self.chain()
        self.check(self.connect(), {**dirty, **data})
        daemon.quit()

    def test_data_fails_on_error_fail(self):
        daemon = self.chain(on_error='fail')
        client = self.connect()
        data = self.fill(client, range(10))
        client.flush()
        self.inject(daemon, 'fast', *self.slots_rules(), error=errno.ENOSPC)
        for block in (5, 15):
            self.fails(errno.ENOSPC, client.pwrite, bytes(BLOCK),
                       block * BLOCK)
        self.check(client, data)
        client.flush()
        self.heal(daemon, 'fast')
        data.update(self.fill(client, range(5, 20)))
        self.check(client, data)
        daemon.quit()

    def break_clean(self, rule, **options):
        """All is clean, and then the cache cannot put anything on record."""
        daemon = self.chain(mode='write-through', **options)
        client = self.connect()
        data = self.fill(client, range(50))
        client.flush()
        self.wait_used(daemon, 50)
        self.inject(daemon, 'fast', rule)
        return daemon, client, data

    def test_out_of_use_when_clean(self):
        """All goes past it, and its blocks are not believed later."""
        for rule in ({'iotype': 'write'}, {'iotype': 'flush'}):
            with self.subTest(rule['iotype']):
                daemon, client, data = self.break_clean(rule)
                data.update(self.fill(client, range(25, 75)))
                client.flush()
                self.state_is(daemon, 'degraded', 'all requests go past it')
                self.check(client, data)
                for block, piece in data.items():
                    self.assertTrue(self.on_base(block) == piece)
                daemon.quit()
                daemon = self.chain()
                self.check(self.connect(), data)
                daemon.quit()

    def test_out_of_use_and_marked(self):
        """When it can be written to again, it is marked as old."""
        daemon, client, data = self.break_clean(
            {'iotype': 'flush', 'once': True})
        client.pwrite(bytes(BLOCK), 0)
        self.state_is(daemon, 'degraded', 'all requests go past it')
        data.update(self.fill(client, [0]))
        client.flush()
        client.shutdown()
        daemon.quit()
        daemon = self.chain()
        self.assertEqual(self.info(daemon)['used'], 0)
        self.check(self.connect(), data)
        daemon.quit()

    def test_out_of_use_on_error_fail(self):
        daemon, client, data = self.break_clean({'iotype': 'write'},
                                                on_error='fail')
        data.update(self.fill(client, [60]))    # goes to the disk, and by and
        self.state_is(daemon, 'failed', 'all requests fail')    # by on record
        self.fails(errno.EIO, client.pread, BLOCK, 70 * BLOCK)
        self.fails(errno.EIO, client.pwrite, bytes(BLOCK), 5 * BLOCK)
        self.fails(errno.EIO, client.flush)
        daemon.quit()
        daemon = self.chain()
        self.check(self.connect(), data)
        daemon.quit()

    def test_out_of_use_when_dirty(self):
        """What was flushed is there later; nothing more is taken."""
        for rule in ({'iotype': 'write'}, {'iotype': 'flush'}):
            with self.subTest(rule['iotype']):
                daemon = self.chain()
                client = self.connect()
                data = self.fill(client, range(50))
                client.flush()
                self.inject(daemon, 'fast', rule, *self.slots_rules())
                with self.assertRaises(nbd.Error):
                    client.pwrite(os.urandom(BLOCK), 10 * BLOCK)
                    client.flush()
                self.state_is(daemon, 'failed', 'holds dirty blocks')
                del data[10]            # old or new
                self.fails(errno.EIO, client.pwrite, bytes(BLOCK), 5 * BLOCK)
                self.fails(errno.EIO, client.flush)
                self.check(client, data)
                self.assertEqual(client.pread(BLOCK, 200 * BLOCK),
                                 bytes(BLOCK))
                client.shutdown()
                daemon.quit()
                daemon = self.chain()
                self.assertGreaterEqual(self.info(daemon)['dirty'],
                                        len(data) * BLOCK)
                client = self.connect()
                self.check(client, data)
                daemon.cmd('weir-detach', {'node-name': 'cache'})
                daemon.quit()
                os.truncate(self.fast, 0)
                os.truncate(self.fast, self.fast_size)

    def test_reads_of_the_cache(self):
        """A clean block is on the disk as well; a dirty one is not."""
        daemon = self.chain(mode='write-through')
        client = self.connect()
        data = self.fill(client, range(10))
        self.wait_used(daemon, 10)
        self.reopen(daemon, idle=0, dirty_age=0)
        self.fill(client, [20])
        self.inject(daemon, 'fast', {'iotype': 'read'})
        self.check(client, data)
        self.fails(errno.EIO, client.pread, BLOCK, 20 * BLOCK)
        daemon.quit()

    def test_at_opening(self):
        """It is refused, and nothing has changed."""
        daemon = self.chain()
        client = self.connect()
        data = self.fill(client, range(50))
        client.flush()
        self.kill(daemon)
        layout = Layout(self.fast)
        for rule in ({'iotype': 'read'}, {'iotype': 'flush'},
                     {'iotype': 'write'},
                     {'iotype': 'read', 'sector': layout.journal // SECTOR},
                     {'iotype': 'read', 'sector': layout.table // SECTOR}):
            with self.subTest(rule):
                daemon = self.server(
                    *self.file_args('base', self.base),
                    *self.file_args('fast-file', self.fast),
                    '--blockdev', blockdev(
                        driver='blkdebug', node_name='fast',
                        image='fast-file', inject_error=[
                            {'event': 'none', **rule}]))
                self.assertFails('weir-cache', daemon.cmd, 'blockdev-add', {
                    'driver': 'weir-cache', 'node-name': 'cache',
                    'file': 'base', 'cache-file': 'fast'})
                self.assertEqual(daemon.cmd('query-weir'), [])
                daemon.quit()
        daemon = self.chain()
        self.check(self.connect(), data)
        daemon.quit()


class Stall(FaultTest):
    """Writes to the cache are tried again, and requests wait."""

    def once(self, times):
        return [{'iotype': 'write', 'once': True} for _ in range(times)]

    def test_it_passes(self):
        daemon = self.chain(on_error='stall', error_deadline=0)
        client = self.connect()
        data = self.fill(client, range(10))
        self.inject(daemon, 'fast', *self.once(3), error=errno.ENOSPC)
        data.update(self.fill(client, range(5, 15)))
        client.flush()
        states = []
        wait_for(lambda: self.info(daemon)['state'] == 'ok', 'it is over')
        self.assertEqual(self.info(daemon)['stalled'], 0)
        for event in daemon.qmp.events:
            if event['event'] == 'WEIR_STATE':
                states.append(event['data']['state'])
        self.assertEqual(states, ['degraded', 'ok'])
        self.check(client, data)
        self.assertFalse(self.on_base(14) == data[14])
        daemon.quit()

    def test_requests_wait(self):
        """Others that do not need the cache go on; the query tells."""
        daemon = self.chain(on_error='stall', error_deadline=0)
        client = self.connect()
        data = self.fill(client, range(10))
        client.flush()
        self.inject(daemon, 'fast', *self.once(6))
        new = os.urandom(BLOCK)
        buffer = nbd.Buffer.from_bytearray(bytearray(new))
        cookie = client.aio_pwrite(buffer, 20 * BLOCK)
        other = self.connect()
        wait_for(lambda: self.info(daemon)['stalled'] > 0, 'it is stalled')
        self.check(other, data)
        wait_for(lambda: client.poll(0) >= 0 and
                 client.aio_command_completed(cookie), 'it is over')
        data[20] = new
        self.check(client, data)
        daemon.quit()

    def test_deadline(self):
        """Then it is as without: data goes to the disk."""
        daemon = self.chain(on_error='stall', error_deadline=700)
        client = self.connect()
        data = self.fill(client, range(10))
        client.flush()
        layout = Layout(self.fast)
        self.inject(daemon, 'fast', *[
            {'iotype': 'write', 'sector': (layout.data + slot * BLOCK) //
             SECTOR} for slot in range(layout.slots)])
        data.update(self.fill(client, [20]))
        self.assertTrue(self.on_base(20) == data[20])
        self.assertEqual(self.info(daemon)['stalled'], 0)
        self.assertGreater(self.info(daemon)['write-errors'], 0)
        self.check(client, data)
        daemon.quit()


class BaseErrors(FaultTest):
    def test_writes_back_later(self):
        """Dirty blocks stay, and are tried again."""
        daemon = self.chain(idle=50)
        client = self.connect()
        self.inject(daemon, 'base', {'iotype': 'write'}, error=errno.ENOSPC)
        data = self.fill(client, range(50))
        info = self.state_is(daemon, 'degraded', 'No space left on device')
        self.assertEqual(info['dirty'], 50 * BLOCK)
        client.flush()
        self.check(client, data)
        self.heal(daemon, 'base')
        self.state_is(daemon, 'ok')
        self.wait_clean(daemon)
        for block, piece in data.items():
            self.assertTrue(self.on_base(block) == piece)
        daemon.quit()

    def test_flush_of_the_disk_fails(self):
        """What was written back is not clean before it is safe there."""
        daemon = self.chain(idle=50)
        client = self.connect()
        self.inject(daemon, 'base', *[{'iotype': 'flush', 'once': True}] * 2)
        data = self.fill(client, range(20))
        info = self.state_is(daemon, 'degraded', 'cannot be written back')
        self.assertEqual(info['dirty'], 20 * BLOCK)
        client.flush()
        self.state_is(daemon, 'ok')
        self.wait_clean(daemon)
        self.check(client, data)
        daemon.quit()

    def test_cache_is_full_of_dirty_blocks(self):
        daemon = self.chain(dirty_high=20, dirty_low=5)
        client = self.connect()
        self.inject(daemon, 'base', {'iotype': 'write'}, error=errno.ENOSPC)
        slots = self.info(daemon)['size'] // BLOCK
        data, failed = {}, None
        for block in range(slots + 1):
            try:
                data.update(self.fill(client, [block]))
            except nbd.Error as error:
                failed = error
                break
        self.assertEqual(failed.errno, 'ENOSPC')
        self.assertGreater(len(data), slots * 0.9)
        # those that are there may be read and flushed
        self.check(client, data)
        client.flush()
        self.assertEqual(client.pread(BLOCK, 3000 * BLOCK), bytes(BLOCK))
        self.heal(daemon, 'base')
        self.state_is(daemon, 'ok')
        data.update(self.fill(client, range(slots, 2 * slots)))
        self.check(client, data)
        daemon.quit()

    def test_detach(self):
        """It is refused, everything goes on; with force, data is lost."""
        daemon = self.chain()
        client = self.connect()
        data = self.fill(client, range(20))
        self.inject(daemon, 'base', {'iotype': 'write'})
        for _ in range(2):
            self.assertFails('cannot be written back: Input/output error',
                             daemon.cmd, 'weir-detach', {'node-name': 'cache'})
            info = self.info(daemon)
            self.assertEqual((info['dirty'], info['mode'], info['draining']),
                             (20 * BLOCK, 'write-back', False))
            data.update(self.fill(client, [5]))
            self.check(client, data)
        daemon.cmd('weir-detach', {'node-name': 'cache', 'force': True})
        self.assertEqual(daemon.cmd('query-weir'), [])
        self.assertEqual(client.pread(BLOCK, 5 * BLOCK), bytes(BLOCK))
        self.heal(daemon, 'base')
        # the cache is empty, so that what was lost does not come back
        daemon.cmd('weir-attach', {'node-name': 'base', 'filter': {
            'driver': 'weir-cache', 'node-name': 'cache', 'file': 'base',
            'cache-file': 'fast'}})
        self.assertEqual(client.pread(BLOCK, 5 * BLOCK), bytes(BLOCK))
        daemon.quit()

    def test_detach_after_it_is_over(self):
        daemon = self.chain()
        client = self.connect()
        data = self.fill(client, range(20))
        self.inject(daemon, 'base', {'iotype': 'write'})
        self.assertFails('cannot be written back', daemon.cmd, 'weir-detach',
                         {'node-name': 'cache'})
        self.heal(daemon, 'base')
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        self.check(client, data)
        for block, piece in data.items():
            self.assertTrue(self.on_base(block) == piece)
        daemon.quit()

    def test_reads(self):
        """What cannot be read is an error, and not kept."""
        with open(self.base, 'r+b') as f:
            f.write(os.urandom(MIB))
        daemon = self.chain()
        client = self.connect()
        self.inject(daemon, 'base', {'iotype': 'read', 'sector': 8 * 5})
        self.fails(errno.EIO, client.pread, BLOCK, 5 * BLOCK)
        self.fails(errno.EIO, client.pread, 10 * BLOCK, 0)
        self.assertTrue(client.pread(BLOCK, 0) == self.on_base(0))
        # a write brings it back; part of a block needs the rest of it
        self.fails(errno.EIO, client.pwrite, b'x' * SECTOR, 5 * BLOCK)
        data = self.fill(client, [5])
        self.check(client, data)
        self.heal(daemon, 'base')
        self.assertTrue(client.pread(BLOCK, 6 * BLOCK) == self.on_base(6))
        daemon.quit()

    def test_write_through(self):
        """The guest is told, and sees what it would see without a cache."""
        daemon = self.chain(mode='write-through')
        client = self.connect()
        data = self.fill(client, range(10))
        self.wait_used(daemon, 10)
        self.inject(daemon, 'base', {'iotype': 'write'}, error=errno.ENOSPC)
        for block in (5, 15):
            self.fails(errno.ENOSPC, client.pwrite, os.urandom(BLOCK),
                       block * BLOCK)
        self.check(client, data)
        self.assertEqual(client.pread(BLOCK, 15 * BLOCK), bytes(BLOCK))
        self.heal(daemon, 'base')
        self.inject(daemon, 'base', {'iotype': 'flush', 'once': True})
        client.pwrite(bytes(BLOCK), 5 * BLOCK)
        self.fails(errno.EIO, client.flush)
        client.flush()
        daemon.quit()


if __name__ == '__main__':
    main()
