#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""fio with verification through weir-cache, over NBD."""

import json
import shutil
import subprocess
import sys

from cachetest import BLOCK, MIB, CacheTest
from weirtest import main

PATIENCE_S = 600
DISK = 48 * MIB                 # eight times what fits in the cache
JOBS = 2
SEED = 20260101


class Fio(CacheTest):
    base_size = DISK
    fast_size = 8 * MIB

    def chain(self, node='cache', cache=True, **options):
        args = ['--object', 'iothread,id=io0',
                *self.file_args('base', self.base)]
        if cache:
            args += [*self.file_args('fast', self.fast),
                     *self.cache_args(**options)]
        return self.server(*args, *self.export_args(node, iothread='io0'))

    def fio(self, *options):
        """Jobs with parts of the disk of their own; returns the result."""
        part = DISK // JOBS
        return subprocess.run([
            'fio', '--output-format=json', '--ioengine=nbd',
            f'--uri=nbd+unix:///disk?socket={self.sock}',
            '--bsrange=4k-64k', '--blockalign=4k', '--iodepth=16',
            '--verify=crc32c', '--verify_fatal=1', '--fsync=32',
            f'--randseed={SEED}', *options,
            *[arg for job in range(JOBS) for arg in (
                f'--name=job{job}', f'--offset={job * part}',
                f'--size={part}')]],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.dir, timeout=PATIENCE_S)

    def passes(self, *options):
        """Returns how many bytes were read and written."""
        result = self.fio(*options)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        report = json.loads(result.stdout[result.stdout.index('{'):])
        self.assertEqual([job['error'] for job in report['jobs']],
                         [0] * JOBS)
        return [sum(job[way]['io_bytes'] for job in report['jobs'])
                for way in ('read', 'write')]

    def test_verified_load(self):
        """Written at random, and read back soon after and at the end."""
        daemon = self.chain(dirty_high=30, dirty_low=10)
        for rw in ('randwrite', 'randrw'):
            read, written = self.passes(f'--rw={rw}', '--verify_backlog=64',
                                        '--do_verify=1')
            self.assertGreater(written, DISK // 3)
            self.assertGreaterEqual(read, written)
        info = self.info(daemon)
        self.assertEqual(info['state'], 'ok')
        self.assertGreater(info['evictions'], 1000)
        self.assertGreater(info['written-back'], 1000)
        self.assertGreater(info['read-hits'], 1000)
        daemon.quit()

    def test_after_a_restart_and_without_the_cache(self):
        write = ('--rw=randwrite',)
        verify = ('--rw=randwrite', '--verify_only=1')
        daemon = self.chain(idle=0)
        self.passes(*write, '--do_verify=0')
        daemon.quit()
        daemon = self.chain(idle=0)
        info = self.info(daemon)
        self.passes(*verify)
        self.assertGreater(info['dirty'], 0, info)
        daemon.cmd('weir-detach', {'node-name': 'cache'})
        self.passes(*verify)
        daemon.quit()
        # the test itself: one wrong byte is found
        with open(self.base, 'r+b') as f:
            f.seek(DISK // 2 + 5 * BLOCK + 1000)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 1]))
        daemon = self.chain('base', cache=False)
        result = self.fio(*verify)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn('verify', result.stdout + result.stderr)
        daemon.quit()


if __name__ == '__main__':
    if not shutil.which('fio'):
        print('skipped: fio is not installed')
        sys.exit(77)
    main()
