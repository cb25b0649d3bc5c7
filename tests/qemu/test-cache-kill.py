#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""kill -9 under load: what clients were told to be safe is there afterwards,
and the rest is old or new, never anything else.

Several clients at a time write to parts of the disk that are theirs, while the
mode of the cache changes; the process is killed with all of that under way,
now and then also while it recovers from the time before, or while it ends.
"""

import contextlib
import os
import random
import subprocess
import threading
import time

import nbd

from cachetest import (BLOCK, MIB, CacheTest, Expected, History, Load)
from weirtest import environment, main, program, wait_for

BLOCKS = 4096
CLIENTS = 4
ROUNDS = 15
MODES = ('write-back', 'write-through', 'write-around', 'read-only')
# changes of the mode; of the first kind more, since it has most to lose
MODE_CHANGES = MODES + ('write-back',) * 3


class Client(threading.Thread):
    """One that works until its server is gone."""

    def __init__(self, connect, blocks):
        super().__init__()
        self.history = History()
        self.blocks = blocks
        self.load = Load(connect(), self.history, blocks)

    def run(self):
        try:
            while True:
                self.load.step()
        except nbd.Error:
            pass


class Kill(CacheTest):
    base_size = BLOCKS * BLOCK
    fast_size = 6 * MIB                 # 1024 slots

    def setUp(self):
        super().setUp()
        self.versions = {block: 0 for block in range(BLOCKS)}

    def args(self, **options):
        return [
            '--object', 'iothread,id=io0',
            *self.file_args('base', self.base),
            *self.file_args('fast', self.fast), *self.cache_args(**options),
            *self.export_args(iothread='io0')]

    def options(self):
        return {'mode': random.choice(MODE_CHANGES),
                'dirty_high': random.choice([5, 30, 95]), 'dirty_low': 0,
                'idle': random.choice([0, 20, 200])}

    def clients(self):
        share = BLOCKS // CLIENTS
        return [Client(self.connect, range(i * share, (i + 1) * share))
                for i in range(CLIENTS)]

    def killed_while_it_starts(self):
        """Recovery is interrupted, at a moment up to where it is done."""
        process = subprocess.Popen(
            [program('qemu-storage-daemon'), '--nbd-server',
             f'addr.type=unix,addr.path={self.sock}', *self.args()],
            env=environment(), stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, self.start_s))
        process.kill()
        process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.sock)

    def start_round(self):
        begin = time.monotonic()
        daemon = self.server(*self.args(**self.options()))
        self.start_s = time.monotonic() - begin
        return daemon

    def work(self, daemon):
        """Load for a while; returns the clients, which are at it."""
        clients = self.clients()
        for client in clients:
            client.start()
        for _ in range(random.randint(1, 4)):
            target = sum(c.load.steps for c in clients) + \
                random.randint(20, 150)
            wait_for(lambda: sum(c.load.steps for c in clients) > target,
                     'clients make progress')
            self.reopen(daemon, **self.options())
        return clients

    def end(self, daemon):
        """Not in an orderly way."""
        if random.random() < 0.3:
            daemon.qmp.file.write('{"execute": "quit"}')
            daemon.qmp.file.flush()
            time.sleep(random.uniform(0, 0.05))
        self.kill(daemon)

    def check(self, clients):
        """Read all; returns how many blocks were not what was written last."""
        client = self.connect()
        data = client.pread(self.base_size, 0)
        lost = 0
        for worker in clients:
            expected = Expected(worker.history, {
                block: self.versions[block] for block in worker.blocks})
            expected.advance(len(worker.history.events))
            first = worker.blocks[0]
            piece = data[first * BLOCK:(worker.blocks[-1] + 1) * BLOCK]
            self.assertEqual(list(expected.wrong(worker.blocks, piece))[:10],
                             [])
            for block in worker.blocks:
                version = expected.found(
                    block, data[block * BLOCK:(block + 1) * BLOCK])
                lost += version != expected.versions[block][-1]
                self.versions[block] = version
        client.shutdown()
        return lost

    def test_kill(self):
        clients, lost, steps = [], 0, 0
        for round_ in range(ROUNDS):
            if round_ and random.random() < 0.5:
                self.killed_while_it_starts()
            daemon = self.start_round()
            lost += self.check(clients)
            info = self.info(daemon)
            self.assertEqual((info['corrupt-clean'], info['corrupt-dirty']),
                             (0, 0))
            clients = self.work(daemon)
            self.end(daemon)
            for client in clients:
                client.join()
            steps += sum(c.load.steps for c in clients)
        daemon = self.start_round()
        lost += self.check(clients)
        daemon.quit()
        print(f'{ROUNDS} rounds, {steps} steps; {lost} blocks were not what '
              'was written last, and had not been flushed')


if __name__ == '__main__':
    main()
