#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back after a failover: the disks of two sites change roles, and only
what differs is copied, as their sidecars know; all of it where they do not."""

import os
import random
import shutil
import subprocess

from cachetest import MIB, nbd_connect
from replicationtest import ReplicationTest
from weirtest import BIN, blockdev, main, wait_for

WEIR = os.path.join(BIN, 'weir')
SIZE = 64 * MIB
REGION = 16 * MIB
SIDECAR = 2 * MIB
GUARD_S = 120


class Site:
    """Files of one of the two."""

    def __init__(self, test, name):
        self.disks = [test.image(f'{name}-disk{i}.img', test.disk_size)
                      for i in range(test.disks)]
        self.sidecars = [test.image(f'{name}-sidecar{i}.img', SIDECAR)
                         for i in range(test.disks)]


class Failback(ReplicationTest):
    disks = 2
    disk_size = SIZE

    def setUp(self):
        super().setUp()
        self.a, self.b = Site(self, 'a'), Site(self, 'b')
        self.random = random.Random(1)

    # --- the two sides ---

    def keep(self, site, new=False, log_size=256 * MIB):
        """Keep a log at SITE; its disks are base images."""
        if new:
            os.unlink(self.log)
            self.log = self.image('log.img', log_size)
        self.base_files = site.disks
        args = []
        for i, filename in enumerate(site.sidecars):
            args += self.file_node(f'sidecar{i}', filename)
        bases = [{'disk-id': f'disk{i}', 'node': f'base{i}',
                  'sidecar': f'sidecar{i}'} for i in range(self.disks)]
        return self.server(
            self.keeper_sock, *self.keeper_nodes(), *args,
            '--blockdev', blockdev(**self.journal(bases=bases)),
            '--export', 'nbd,id=log,node-name=journal,name=log,writable=on')

    def use(self, site):
        """Replicate the disks of SITE."""
        self.disk_files = site.disks
        args = []
        for i, filename in enumerate(site.disks):
            args += self.file_node(f'disk{i}', filename)
            args += self.file_node(f'sidecar{i}', site.sidecars[i])
            args += ['--blockdev', blockdev(**self.replication(
                i, sidecar=f'sidecar{i}'))]
            args += ['--export', f'nbd,id=exp{i},node-name=repl{i},'
                     f'name=disk{i},writable=on']
        return self.server(self.source_sock, *args)

    def promote(self, keeper, point='latest'):
        keeper.cmd('weir-journal-promote', {
            'job-id': 'promote', 'node-name': 'journal', 'point': point})
        keeper.qmp.event('JOB_STATUS_CHANGE',
                         lambda data: data['status'] == 'concluded')
        job, = keeper.cmd('query-jobs')
        self.assertNotIn('error', job)
        keeper.cmd('job-dismiss', {'id': 'promote'})

    # --- what is written ---

    def fill(self, site):
        for filename in site.disks:
            with open(filename, 'r+b') as f:
                f.write(self.random.randbytes(self.disk_size))

    def write(self, clients, offset, disk=0):
        """A block; it is another one each time."""
        clients[disk].pwrite(self.random.randbytes(65536), offset)

    # --- what comes of it ---

    def caught_up(self, source):
        for i in range(self.disks):
            def there():
                info = self.replication_info(source, i)
                self.assertNotEqual(info['status'], 'stopped', info)
                return (info['status'] == 'streaming' and
                        not info['queued-bytes'])
            wait_for(there, 'all in the log')
        return self.replication_info(source)['sent-bytes']

    def are_equal(self, keeper):
        """weir replica verify, for each disk and the last point."""
        wait_for(lambda: self.points(keeper, limit=1), 'a point in time')
        for i in range(self.disks):
            with self.open_replica(keeper, i) as client:
                export = client.get_export_name()
                result = subprocess.run(
                    [WEIR, 'replica', 'verify',
                     f'nbd+unix:///disk{i}?socket={self.source_sock}',
                     f'nbd+unix:///{export}?socket={self.keeper_sock}'],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True, timeout=GUARD_S,
                    check=False)
                self.assertEqual(result.returncode, 0, result.stdout)

    def lose_a(self):
        """A replicates to B, and is lost: B's keeper, with what A has written
        there last, behind the mark 'point', and somewhere else only to its own
        disk."""
        self.fill(self.a)
        keeper, source = self.keep(self.b), self.use(self.a)
        self.assertGreater(self.caught_up(source), self.disks * SIZE)
        clients = self.clients()
        self.write(clients, 2 * REGION)
        self.caught_up(source)
        source.cmd('weir-replication-mark',
                   {'node-name': 'repl0', 'mark': 'point'})
        self.write(clients, 3 * REGION)
        self.write(clients, REGION, 1)
        self.caught_up(source)
        # regions are clean again, also those behind the mark
        wait_for(lambda: len(self.dirty_regions(self.a)) == 0, 'clean regions')
        self.freeze(keeper)
        self.write(clients, REGION)
        self.kill(source)
        self.thaw(keeper)
        return keeper

    def dirty_regions(self, site):
        found = set()
        for i, filename in enumerate(site.sidecars):
            with open(filename, 'rb') as f:
                f.seek(65536 + 32)
                bits = int.from_bytes(f.read(4064), 'little')
            found |= {(i, n) for n in range(SIZE // REGION) if bits >> n & 1}
        return found

    def go_back(self, keeper, point):
        """B runs, then replicates to A: what was sent for that."""
        self.promote(keeper, point)
        info = self.journal_info(keeper)
        self.assertEqual([d['sidecar'] for d in info['disks']],
                         ['disk'] * self.disks)
        keeper.quit()
        source = self.use(self.b)
        self.write(self.clients(), 0)
        keeper = self.keep(self.a, new=True)
        return keeper, source, self.caught_up(source)

    def test_latest(self):
        keeper, source, sent = self.go_back(self.lose_a(), 'latest')
        # a region of A, a block of B
        self.assertLess(sent, REGION + 2 * MIB)
        self.assertGreater(sent, REGION)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_earlier_point(self):
        keeper, source, sent = self.go_back(self.lose_a(), 'mark:point')
        # and two blocks that A had sent behind the point
        self.assertLess(sent, REGION + 2 * MIB)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_there_and_back(self):
        """Ended in good order each time: only blocks are copied."""
        sites = [self.a, self.b]
        self.fill(self.a)
        keeper, source = self.keep(self.b), self.use(self.a)
        self.caught_up(source)
        for turn in range(4):
            there = sites[(turn + 1) % 2]
            clients = self.clients()
            self.write(clients, turn * MIB)
            self.write(clients, turn * MIB, 1)
            self.caught_up(source)
            source.quit()
            self.promote(keeper)
            keeper.quit()
            source = self.use(there)
            if turn > 0:                # first there is nothing to copy at all
                self.write(self.clients(), 50 * MIB)
            keeper = self.keep(sites[turn % 2], new=True)
            self.assertLess(self.caught_up(source), 3 * MIB)
            self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_crash_of_the_new_source(self):
        keeper = self.lose_a()
        self.promote(keeper)
        keeper.quit()
        source = self.use(self.b)
        self.write(self.clients(), 2 * REGION)
        self.kill(source)
        source = self.use(self.b)
        keeper = self.keep(self.a, new=True)
        self.assertLess(self.caught_up(source), 2 * REGION + 2 * MIB)
        self.are_equal(keeper)
        # and of the keeper, and once more of the source
        self.kill(source)
        self.kill(keeper)
        keeper, source = self.keep(self.a), self.use(self.b)
        self.assertLess(self.caught_up(source), 2 * REGION + 2 * MIB)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_mistaken_failover(self):
        """A goes on; what B has is replaced."""
        keeper = self.lose_a()
        self.promote(keeper, 'mark:point')
        keeper.quit()
        source = self.use(self.b)
        self.write(self.clients(), 2 * REGION)
        source.quit()
        keeper = self.keep(self.b, new=True)
        source = self.use(self.a)
        self.assertLess(self.caught_up(source), REGION + 3 * MIB)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_lost_sidecar(self):
        """All of that disk is copied, and of the other one what differs."""
        keeper = self.lose_a()
        os.unlink(self.a.sidecars[1])
        self.image(os.path.basename(self.a.sidecars[1]), SIDECAR)
        keeper, source, sent = self.go_back(keeper, 'latest')
        self.assertGreater(sent, SIZE + REGION)
        self.assertLess(sent, SIZE + REGION + 4 * MIB)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_damaged_sidecar(self):
        keeper = self.lose_a()
        with open(self.a.sidecars[0], 'r+b') as f:
            for at in 200, 4096 + 200:
                f.seek(at)
                f.write(b'damage')
        keeper, source, sent = self.go_back(keeper, 'latest')
        self.assertGreater(sent, SIZE)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_refused(self):
        """An image that is no disk, a disk that is no image any more, and two
        that have gone apart."""
        keeper = self.lose_a()
        keeper.quit()
        with self.assertRaisesRegex(AssertionError, 'base image'):
            self.use(self.b).cmd('query-status')
        keeper = self.keep(self.b)
        self.promote(keeper)
        keeper.quit()
        source = self.use(self.b)
        source.quit()
        with self.assertRaisesRegex(AssertionError, 'written to by somebody'):
            self.keep(self.b).cmd('query-status')
        # A, as a base for what is none of its business
        keeper = self.keep(self.a, new=True)
        self.image('b-sidecar0.img', SIDECAR)
        self.image('b-sidecar1.img', SIDECAR)
        source = self.use(self.b)
        self.caught_up(source)          # nothing is known: all is copied
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    # --- a copy that was made by other means ---

    def weir(self, *args, text='', status=0):
        result = subprocess.run(
            [WEIR, 'replica', *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=GUARD_S, check=False)
        self.assertEqual(result.returncode, status, result.stdout)
        self.assertIn(text, result.stdout)

    def seed_begin(self):
        for i, path in enumerate(self.a.sidecars):
            os.unlink(path)
            self.weir('seed-begin', '--disk', f'disk{i}', '--size', str(SIZE),
                      path)

    def seed(self, i, **kwargs):
        self.weir('seed', '--source-sidecar', self.a.sidecars[i],
                  '--sidecar', self.b.sidecars[i],
                  f'nbd+unix:///disk{i}?socket={self.source_sock}',
                  f'nbd+unix:///copy{i}?socket={self.path("copy.sock")}',
                  **kwargs)

    def copy_disks(self):
        """And the disks go on, a little."""
        self.fill(self.a)
        for i, path in enumerate(self.b.sidecars):
            shutil.copyfile(self.a.disks[i], self.b.disks[i])
            os.unlink(path)
        with open(self.a.disks[0], 'r+b') as f:
            f.seek(3 * MIB)
            f.write(bytes(MIB))

    def serve_copies(self):
        args = []
        for i, path in enumerate(self.b.disks):
            args += self.file_node(f'copy{i}', path)
            args += ['--export', f'nbd,id=copy{i},node-name=copy{i},'
                     f'name=copy{i}']
        return self.server(self.path('copy.sock'), *args)

    def test_seed(self):
        self.copy_disks()
        self.seed_begin()
        copies = self.serve_copies()
        self.seed(0, status=1, text='is used by no source')
        source = self.use(self.a)
        clients = self.clients()
        self.write(clients, 10 * MIB)
        self.seed(0, text='differ')
        self.write(clients, 11 * MIB)
        self.write(clients, 30 * MIB, 1)
        self.seed(1, text='differ')
        copies.quit()
        keeper = self.keep(self.b, new=True)
        # a MiB that differed, and three blocks
        self.assertLess(self.caught_up(source), 2 * MIB)
        self.are_equal(keeper)
        self.kill(source)
        source = self.use(self.a)
        self.assertLess(self.caught_up(source), 2 * REGION + MIB)
        self.are_equal(keeper)
        source.quit()
        keeper.quit()

    def test_seed_of_something_else(self):
        """A sidecar of the copy that was not made with the source's."""
        self.copy_disks()
        self.seed_begin()
        copies, source = self.serve_copies(), self.use(self.a)
        self.seed(0)
        self.seed(1)
        source.quit()
        copies.quit()
        self.seed_begin()
        keeper, source = self.keep(self.b, new=True), self.use(self.a)
        self.wait_for_info(source, lambda info: info['state'] == 'failed',
                           'a refusal')
        self.assertIn('not the one of the sidecar',
                      self.replication_info(source)['reason'])
        source.quit()
        keeper.quit()


if __name__ == '__main__':
    main()
