# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks of drivers share: qemu-img bench and its CPU time, a
storage daemon whose disks count their requests, nbdkit, taking turns."""

import math
import os
import re
import shutil
import statistics
import subprocess
import sys

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, 'tests', 'qemu'))

import weirtest

BLOCK = 4096
MIB = 1 << 20


class Wrong(Exception):
    """The counts are not what they have to be."""


def check(condition, what):
    if not condition:
        raise Wrong(what)


# --- images and programs ---

def flat(options, prefix=''):
    """Nested options as pairs for --image-opts."""
    for key, value in options.items():
        if isinstance(value, dict):
            yield from flat(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}={value}'


def image_opts(options):
    return ','.join(flat(options))


def file_node(path, args, direct=True):
    node = {'driver': 'file', 'filename': path,
            'cache.direct': 'on' if direct else 'off'}
    if direct or args.aio != 'native':
        node['aio'] = args.aio
    return node


def filled_file(path, size):
    """Written, not only allocated: else the file system's own tables change
    with each first write.  All blocks are the same, since qemu-img bench reads
    into one buffer whatever the depth: a block that another one overwrites
    there would have a wrong checksum, and be read once more."""
    data = os.urandom(BLOCK) * (MIB // BLOCK)
    with open(path, 'wb') as f:
        for _ in range(size // MIB):
            f.write(data)
        os.fsync(f.fileno())
    return path


def qemu(name, *args):
    """Run a program; returns its output and its CPU time in seconds."""
    process = subprocess.Popen([weirtest.program(name, tests=False), *args],
                               stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    check(process.returncode == 0, f'{name} {" ".join(args)}')
    return output, usage.ru_utime + usage.ru_stime


def qemu_io(options, *commands):
    qemu('qemu-io', '--image-opts', image_opts(options),
         *(arg for c in commands for arg in ('-c', c)))


def step_of(size):
    """A stride over an image that comes to all of its blocks, and nowhere
    near the last one."""
    step = int(size // BLOCK * 0.618) | 1
    while math.gcd(step, size // BLOCK) > 1:
        step += 2
    return step * BLOCK


def bench(options, size, requests, depth, *args):
    """qemu-img bench; returns seconds per request, CPU seconds of all."""
    output, cpu = qemu('qemu-img', 'bench', '-c', str(requests), '-d',
                       str(depth), '-s', str(BLOCK), '-S', str(step_of(size)),
                       *args, '--image-opts', image_opts(options))
    seconds = float(re.search(r'completed in ([0-9.]+) seconds', output)[1])
    return max(seconds, 0.0005) / requests, cpu


class Daemon:
    """Storage daemon with disks below weir-inspect, which counts; disks: name
    -> options of the node."""

    def __init__(self, folder, disks):
        self.socket = os.path.join(folder, 'daemon.sock')
        args = ['--nbd-server', f'addr.type=unix,addr.path={self.socket},'
                'max-connections=16']
        for name, options in disks.items():
            for node in ({**options, 'node_name': 'at-' + name},
                         {'driver': 'weir-inspect', 'entropy': False,
                          'node_name': name, 'file': 'at-' + name}):
                args += ['--blockdev', weirtest.blockdev(**node)]
        self.process = weirtest.Process('qemu-storage-daemon', *args,
                                        tests=False)
        self.cmd = self.process.cmd

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def export(self, name):
        self.cmd('block-export-add', {
            'type': 'nbd', 'id': name, 'node-name': name, 'name': name,
            'writable': True})

    def node(self, name):
        """Options of a node of another program that is this disk."""
        return {'driver': 'nbd', 'export': name,
                'server': {'type': 'unix', 'path': self.socket}}

    def client(self, name):
        return nbd_client(f'nbd+unix:///{name}?socket={self.socket}')

    def info(self, name):
        info, = self.cmd('query-weir', {'node-name': name})
        return info

    def counts(self, name):
        """Requests so far, by operation."""
        return {operation: s['requests'] for operation, s in
                weirtest.statistics(self.info(name)).items()}

    def changes(self, name, before, programs=0):
        """Requests since then that change the disk, or flush it; but not what
        a program flushes when it closes a node."""
        after = self.counts(name)
        return sum(after[operation] - before[operation] for operation in
                   ('write', 'write-zeroes', 'discard', 'flush')) - programs


def nbd_client(uri):
    import nbd
    client = nbd.NBD()
    client.connect_uri(uri)
    return client


class Nbdkit:
    """nbdkit, with filters, a plugin and their parameters."""

    def __init__(self, folder, *args):
        self.socket = os.path.join(folder, 'nbdkit.sock')
        self.process = subprocess.Popen(
            ['nbdkit', '--foreground', '--exit-with-parent', '--unix',
             self.socket, *args], env={**os.environ, 'TMPDIR': folder})
        weirtest.wait_for(lambda: os.path.exists(self.socket) or
                          self.process.poll() is not None, 'nbdkit listens')
        check(self.process.poll() is None, 'nbdkit starts')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def node(self):
        return {'driver': 'nbd', 'server': {'type': 'unix',
                                            'path': self.socket}}

    def client(self):
        return nbd_client(f'nbd+unix:///?socket={self.socket}')


def has_nbdkit(what):
    if shutil.which('nbdkit'):
        return True
    print(f'{what}: left out, there is no nbdkit')
    return False


def in_turns(rounds, variants):
    """Run each variant in each round, name -> function; who begins changes.
    Returns name -> list of results."""
    results = {name: [] for name in variants}
    for i in range(rounds):
        for name in sorted(variants, reverse=i % 2 == 1):
            results[name].append(variants[name]())
    return results


def ratio(values, others):
    """Median of the ratios of results of the same round."""
    return statistics.median(v / o for v, o in zip(values, others))


def say(text):
    print(text, flush=True)
