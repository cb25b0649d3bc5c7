# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of weir-cache share: a disk with a cache in the storage
daemon, and a model of what its client was told."""

import contextlib
import json
import os
import random
import struct
import subprocess

import nbd

from weirtest import BUILD, PATIENCE_S, TestCase, blockdev

VERIFY = os.path.join(BUILD, 'weir', 'tests', 'tools', 'weir-verify-nbd')
LOAD_PATIENCE_S = 300
BLOCK = 4096
KIB = 1 << 10
MIB = 1 << 20


def content(block, tag):
    """4 KiB that tell block and version; tag 0: zeroes."""
    if not tag:
        return bytes(BLOCK)
    return struct.pack('<QQ', block + 1, tag) * (BLOCK // 16)


def nbd_connect(sock, name='disk', status=False):
    """@status: for block status; a read that fails then ends the connection."""
    client = nbd.NBD()
    client.set_request_structured_replies(status)
    if status:
        client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    client.connect_uri(f'nbd+unix:///{name}?socket={sock}')
    return client


def completed(client, cookies):
    """Let a client's requests under way end; raises the first error."""
    while client.aio_in_flight():
        if not client.poll(1000 * PATIENCE_S):
            raise TimeoutError(f'{client.aio_in_flight()} requests hang')
    for cookie in cookies:
        client.aio_command_completed(cookie)


# --- a client -----------------------------------------------------------------

class History:
    """What a client did, so that it can be gone through again."""

    def __init__(self):
        self.events = []        # (block, version) written; (None, block or
                                # None): durable is this block, or are all
        self.version = 0

    def new_version(self, block):
        """The data to write next."""
        self.version += 1
        self.events.append((block, self.version))
        return content(block, self.version)

    def zero(self, block):
        self.events.append((block, 0))

    def durable(self, block=None):
        self.events.append((None, block))


class Expected:
    """What each block may be at a moment of a history.

    @initial: version of each block before, as a list or dictionary
    """

    def __init__(self, history, initial):
        self.events = history.events
        self.next = 0
        blocks = initial if isinstance(initial, dict) else range(len(initial))
        self.versions = {block: [initial[block]] for block in blocks}
        self.unsure = set()             # blocks with several versions

    def advance(self, count):
        for block, version in self.events[self.next:count]:
            if block is not None:
                self.versions[block].append(version)
                self.unsure.add(block)
            else:
                self.settle(self.unsure if version is None else {version})
        self.next = max(self.next, count)

    def settle(self, blocks):
        """These are what was written last."""
        for block in blocks:
            del self.versions[block][:-1]
        self.unsure = self.unsure - blocks

    def found(self, block, data):
        """The version that it is, or None: then it is wrong."""
        for version in reversed(self.versions[block]):
            if data == content(block, version):
                return version
        return None

    def wrong(self, blocks, data):
        """Tell about each of @blocks, which are @data, that is wrong."""
        for i, block in enumerate(blocks):
            piece = data[i * BLOCK:(i + 1) * BLOCK]
            if self.found(block, piece) is None:
                number, version = struct.unpack_from('<QQ', piece)
                yield (f'block {block}: may be version '
                       f'{self.versions[block]}, but is block {number - 1}, '
                       f'version {version}')


class Load:
    """A client that does something at random, one step at a time.

    @blocks: range of those that it uses
    @mark: called when something was done; with True: that is durable now
    """

    def __init__(self, client, history, blocks,
                 mark=lambda durable=False: None):
        self.client = client
        self.history = history
        self.blocks = blocks
        self.mark = mark
        self.steps = 0
        self.change_habits()

    def change_habits(self):
        """Sometimes much is written between two flushes, sometimes not."""
        self.weights = (random.choice([1, 10, 30]),     # flush
                        random.choice([0, 3, 10]),      # write_durable
                        random.choice([2, 10, 40]),     # read_many
                        random.choice([0, 10]), random.choice([0, 5]),
                        50)

    def step(self):
        what, = random.choices(
            (self.flush, self.write_durable, self.read_many, self.zero,
             self.trim, self.write_many), self.weights)
        what()
        self.steps += 1
        if self.steps % 50 == 0:
            self.change_habits()

    def flush(self):
        self.client.flush()
        self.history.durable()
        self.mark(True)

    def range(self, most):
        first = random.choice(self.blocks)
        return range(first, min(self.blocks.stop,
                                first + random.randint(1, most)))

    def ranges(self, most):
        """Ranges that do not overlap."""
        taken = set()
        for _ in range(random.randint(1, 6)):
            blocks = self.range(most)
            if taken.isdisjoint(blocks):
                taken.update(blocks)
                yield blocks

    def new_data(self, blocks):
        return b''.join(self.history.new_version(b) for b in blocks)

    def write_many(self):
        cookies = []
        for blocks in self.ranges(8):
            buffer = nbd.Buffer.from_bytearray(
                bytearray(self.new_data(blocks)))
            cookies.append(self.client.aio_pwrite(buffer, blocks[0] * BLOCK))
        self.mark()                     # with all of them under way
        completed(self.client, cookies)
        self.mark()

    def read_many(self):
        buffers, cookies = [], []
        for blocks in self.ranges(32):
            buffers.append(nbd.Buffer(len(blocks) * BLOCK))
            cookies.append(self.client.aio_pread(buffers[-1],
                                                 blocks[0] * BLOCK))
        completed(self.client, cookies)

    def zero(self):
        self.zero_with(self.client.zero)

    def trim(self):
        self.zero_with(self.client.trim)

    def zero_with(self, function):
        blocks = self.range(64)
        for block in blocks:
            self.history.zero(block)
        function(len(blocks) * BLOCK, blocks[0] * BLOCK)
        self.mark()

    def write_durable(self):
        blocks = self.range(4)
        self.client.pwrite(self.new_data(blocks), blocks[0] * BLOCK,
                           nbd.CMD_FLAG_FUA)
        for block in blocks:
            self.history.durable(block)
        self.mark(True)


# --- a cache ------------------------------------------------------------------

class CacheTest(TestCase):
    """A disk "base" with a cache "fast", which are files to begin with."""

    base_size = 64 * MIB
    fast_size = 16 * MIB

    def setUp(self):
        super().setUp()
        self.base = self.image('base.img', self.base_size)
        self.fast = self.image('fast.img', self.fast_size)
        self.sock = self.path('nbd.sock')

    def server(self, *args, sock=None, tests=True):
        """A storage daemon with an NBD server."""
        return self.start(
            'qemu-storage-daemon', '--nbd-server',
            f'addr.type=unix,addr.path={sock or self.sock},'
            'max-connections=64', *args, tests=tests)

    def file_args(self, name, filename):
        return ['--blockdev', blockdev(driver='file', node_name=name,
                                       filename=filename, discard='unmap')]

    def cache_args(self, **options):
        return ['--blockdev', blockdev(
            driver='weir-cache', node_name='cache', file='base',
            cache_file='fast', discard='unmap', **options)]

    def export_args(self, node='cache', **options):
        extra = ''.join(f',{k}={v}' for k, v in options.items())
        return ['--export', f'nbd,id=exp,node-name={node},name=disk,'
                f'writable=on{extra}']

    def connect(self, **options):
        return nbd_connect(self.sock, **options)

    def info(self, daemon):
        return self.filter_info(daemon, 'cache')

    def reopen(self, daemon, **options):
        """Change the options of the cache; those not given get defaults."""
        daemon.cmd('blockdev-reopen', {'options': [{
            'driver': 'weir-cache', 'node-name': 'cache', 'file': 'base',
            'cache-file': 'fast', 'discard': 'unmap',
            **{k.replace('_', '-'): v for k, v in options.items()}}]})

    # --- loads that verify ---

    def load(self, seconds, size=None, threads=4):
        """weir-verify-nbd, running."""
        load = subprocess.Popen(
            [VERIFY, '--threads', str(threads), '--size',
             str(size or self.base_size), '--seconds', str(seconds),
             '--final-check', '--flush-every', '16',
             f'nbd+unix:///disk?socket={self.sock}'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(load.kill)
        return load

    def finish_load(self, load):
        out, err = load.communicate(timeout=LOAD_PATIENCE_S)
        self.assertEqual(load.returncode, 0, out + err)
        self.assertEqual(json.loads(out.splitlines()[-1])['errors'], 0)

    # --- daemons that are killed ---

    def kill(self, daemon):
        """As kill -9 does; the next one can take its place."""
        daemon.kill()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.sock)
