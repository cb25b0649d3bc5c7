# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of replication share: a source and a keeper in storage
daemons, disks that are written to in a known order, and what the replica may
be then."""

import contextlib
import itertools
import os
import random
import signal
import struct
import threading
import time
import unittest

import nbd

from cachetest import BLOCK, MIB, content, nbd_connect
from weirtest import QMPError, TestCase, blockdev, wait_for

DISK = 16 * MIB
LOG = 256 * MIB
# all that there is, and for longer
LONG = bool(os.environ.get('WEIR_REPLICATION_LONG'))
only_long = unittest.skipUnless(LONG, 'only with WEIR_REPLICATION_LONG=1')


def version_of(data):
    """The version that a block of content() has."""
    return struct.unpack_from('<QQ', data)[1]


class Stamps:
    """Writes to some disks, one after the other, each with a number."""

    def __init__(self, disks=1, blocks=DISK // BLOCK):
        self.blocks = blocks
        self.disks = disks
        self.log = []                   # (disk, block) of write 1, 2, ...

    def write(self, clients, disk=None, block=None, flags=0):
        disk = random.randrange(self.disks) if disk is None else disk
        block = random.randrange(self.blocks) if block is None else block
        self.log.append((disk, block))
        clients[disk].pwrite(content(block, len(self.log)), block * BLOCK,
                             flags)

    def versions(self, count):
        """What the disks are after so many writes."""
        versions = [[0] * self.blocks for _ in range(self.disks)]
        for number, (disk, block) in enumerate(self.log[:count], 1):
            versions[disk][block] = number
        return versions

    def prefix(self, images):
        """The number of writes after which the disks were like that; fails if
        they never were."""
        found = [[version_of(image[at:at + 16])
                  for at in range(0, self.blocks * BLOCK, BLOCK)]
                 for image in images]
        count = max(itertools.chain(*found))
        for disk, versions in enumerate(self.versions(count)):
            for block, version in enumerate(versions):
                data = images[disk][block * BLOCK:(block + 1) * BLOCK]
                if data != content(block, version):
                    raise AssertionError(
                        f'after write {count} block {block} of disk {disk} is '
                        f'version {version}, found {version_of(data)}')
        return count


class Writer(threading.Thread):
    """One that writes stamped blocks until it is told to end, or the server
    is gone."""

    pause_s = 0                         # after each write

    def __init__(self, clients, stamps, flush_every=0):
        super().__init__(daemon=True)
        self.clients = clients
        self.stamps = stamps
        self.flush_every = flush_every
        self.ends = False
        self.done = 0
        self.slowest_s = 0
        self.error = None

    def run(self):
        try:
            while not self.ends:
                begin = time.monotonic()
                self.stamps.write(self.clients)
                self.slowest_s = max(self.slowest_s,
                                     time.monotonic() - begin)
                self.done += 1
                time.sleep(self.pause_s)
                if self.flush_every and self.done % self.flush_every == 0:
                    for client in self.clients:
                        client.flush()
        except nbd.Error as error:
            self.error = error

    def more(self, count=50):
        """Wait until so many more writes have been done."""
        end = self.done + count
        wait_for(lambda: self.done >= end or self.error, 'writes')
        if self.error:
            raise self.error

    def end(self):
        self.ends = True
        self.join()


class ReplicationTest(TestCase):
    disks = 1
    disk_size = DISK
    log_size = LOG

    def setUp(self):
        super().setUp()
        self.source_sock = self.path('source.sock')
        self.keeper_sock = self.path('keeper.sock')
        self.log = self.image('log.img', self.log_size)
        self.disk_files = [self.image(f'disk{i}.img', self.disk_size)
                           for i in range(self.disks)]
        self.base_files = [self.image(f'base{i}.img', self.disk_size)
                           for i in range(self.disks)]
        self.numbers = itertools.count()

    # --- daemons ---

    @staticmethod
    def file_node(name, filename):
        return ['--blockdev', blockdev(driver='file', node_name=name,
                                       filename=filename, discard='unmap')]

    def server(self, sock, *args):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(sock)
        return self.daemon('--nbd-server', f'addr.type=unix,addr.path={sock},'
                           'max-connections=64', *args)

    def journal(self, **options):
        """The options of the keeper's node."""
        return {'driver': 'weir-journal', 'node-name': 'journal',
                'file': 'log', 'create': True,
                'bases': [{'disk-id': f'disk{i}', 'node': f'base{i}'}
                          for i in range(self.disks)],
                **{k.replace('_', '-'): v for k, v in options.items()}}

    def keeper_nodes(self):
        args = self.file_node('log', self.log)
        for i, filename in enumerate(self.base_files):
            args += self.file_node(f'base{i}', filename)
        return args

    def keeper(self, **options):
        return self.server(
            self.keeper_sock, *self.keeper_nodes(),
            '--blockdev', blockdev(**self.journal(**options)),
            '--export', 'nbd,id=log,node-name=journal,name=log,writable=on')

    def remote_log(self, **options):
        """The log, as the source sees it."""
        return {'driver': 'nbd', 'node-name': 'remote-log', 'export': 'log',
                'server': {'type': 'unix', 'path': self.keeper_sock},
                **options}

    def replication(self, i=0, log=None, **options):
        """The options of a disk's node at the source."""
        if log is None:
            log = self.remote_log() if i == 0 else 'remote-log'
        return {'driver': 'weir-replication', 'node-name': f'repl{i}',
                'file': f'disk{i}', 'disk-id': f'disk{i}', 'log': log,
                'discard': 'unmap', 'epoch-interval': 20,
                'target-timeout': 5000,
                **{k.replace('_', '-'): v for k, v in options.items()}}

    def source_args(self, export_options='', **options):
        args = []
        for i, filename in enumerate(self.disk_files):
            args += self.file_node(f'disk{i}', filename)
            args += ['--blockdev', blockdev(**self.replication(i, **options))]
            args += ['--export', f'nbd,id=exp{i},node-name=repl{i},'
                     f'name=disk{i},writable=on{export_options}']
        return args

    def source(self, **options):
        return self.server(self.source_sock, *self.source_args(**options))

    def clients(self):
        return [nbd_connect(self.source_sock, f'disk{i}')
                for i in range(self.disks)]

    def kill(self, daemon):
        """As kill -9 does; the next one can take its place."""
        daemon.kill()

    def freeze(self, daemon):
        daemon.process.send_signal(signal.SIGSTOP)

    def thaw(self, daemon):
        daemon.process.send_signal(signal.SIGCONT)

    # --- how far it is ---

    def replication_info(self, source, i=0):
        return self.filter_info(source, f'repl{i}')

    def journal_info(self, keeper):
        return self.filter_info(keeper, 'journal')

    def wait_for_info(self, source, condition, what):
        """CONDITION(what query-weir tells of disk 0)"""
        info = {}

        def reached():
            info.update(self.replication_info(source))
            return condition(info)
        try:
            wait_for(reached, what)
        except AssertionError as error:
            info.pop('statistics')
            raise AssertionError(f'{error}; it is {info}') from None

    def wait_for_status(self, source, status):
        self.wait_for_info(source, lambda info: info['status'] == status,
                           status)

    def wait_until_sent(self, source):
        """All that has been written is durable in the log."""
        self.wait_for_info(
            source, lambda info: info['status'] == 'streaming' and
            not info['queued-bytes'], 'all sent')

    def mark(self, source, name, **options):
        """A mark that the keeper has when this returns.  It is tried again
        while the keeper does not take another session yet."""
        def marked():
            try:
                source.cmd('weir-replication-mark',
                           {'node-name': 'repl0', 'mark': name, **options})
            except QMPError:
                return False
            return True
        wait_for(marked, 'a mark')
        keeper = getattr(self, 'the_keeper', None)
        if keeper is None:
            self.wait_until_sent(source)
            return
        # somebody may write all the time
        wait_for(lambda: any(name in point['marks'] for point in
                             self.points(keeper, marked=True)),
                 'the keeper has the mark')

    def points(self, keeper, **options):
        return keeper.cmd('query-weir-points', {
            'node-name': 'journal',
            **{k.replace('_', '-'): v for k, v in options.items()}})

    # --- the replica ---

    def replica(self, i=0, point='latest', **options):
        return {'driver': 'weir-replica', 'journal': 'journal',
                'base': f'base{i}', 'disk-id': f'disk{i}', 'point': point,
                'read-only': True, **options}

    @contextlib.contextmanager
    def open_replica(self, keeper, i=0, point='latest'):
        """A client that reads a disk at a point in time."""
        name = f'replica{next(self.numbers)}'
        keeper.cmd('blockdev-add', {**self.replica(i, point),
                                    'node-name': name})
        keeper.cmd('block-export-add', {'type': 'nbd', 'id': name,
                                        'node-name': name, 'name': name})
        client = nbd_connect(self.keeper_sock, name, status=True)
        try:
            yield client
        finally:
            client.shutdown()
            keeper.cmd('block-export-del', {'id': name, 'mode': 'hard'})
            keeper.qmp.event('BLOCK_EXPORT_DELETED',
                             lambda data: data['id'] == name)
            keeper.cmd('blockdev-del', {'node-name': name})

    def read_replica(self, keeper, i=0, point='latest'):
        with self.open_replica(keeper, i, point) as client:
            return client.pread(client.get_size(), 0)

    def replicas(self, keeper, point='latest'):
        """All disks at the same point in time."""
        if point == 'latest':
            point = f'epoch:{self.points(keeper, limit=1)[0]["epoch"]}'
        return [self.read_replica(keeper, i, point)
                for i in range(self.disks)]

    def file_content(self, filename):
        with open(filename, 'rb') as f:
            return f.read()


class WriterTest(ReplicationTest):
    """One whose clients write all the time."""

    flush_every = 20
    points_to_check = 0

    def setUp(self):
        super().setUp()
        self.stamps = Stamps(self.disks, self.disk_size // BLOCK)

    def begin_to_write(self):
        self.writer = Writer(self.clients(), self.stamps, self.flush_every)
        self.writer.start()
        self.writer.more()

    def end_writer(self):
        """It had no error."""
        self.writer.end()
        self.assertIsNone(self.writer.error)
        for client in self.writer.clients:
            client.shutdown()

    def check_end(self):
        """The writer had no error, and all gets there."""
        self.end_writer()
        self.mark(self.the_source, 'end')
        images = self.replicas(self.the_keeper)
        self.assertEqual(self.stamps.prefix(images), len(self.stamps.log))
        self.check_points()
        self.the_source.quit()
        self.the_keeper.quit()

    def check_points(self):
        """Some of them: each is a prefix of what was written."""
        points = self.points(self.the_keeper)
        for point in random.sample(points, min(self.points_to_check,
                                               len(points))):
            images = self.replicas(self.the_keeper, f'epoch:{point["epoch"]}')
            if any(any(image) for image in images):
                self.stamps.prefix(images)
