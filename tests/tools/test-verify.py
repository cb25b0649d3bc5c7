#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-verify finds what it is there to find, and nothing else."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = os.path.join(os.environ['WEIR_MESON_BUILD'], 'tests', 'tools')
BIN = os.path.join(os.environ['WEIR_BUILD'], 'bin')
BLOCK = 4096
SIZE = 4 << 20
KINDS = ('lost', 'stale', 'future', 'misplaced', 'corrupt')
PATIENCE_S = 120


class Verify(unittest.TestCase):
    program = 'weir-verify'

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='weir-verify-')
        self.addCleanup(shutil.rmtree, self.dir)
        self.disk = self.path('disk')
        with open(self.disk, 'wb') as f:
            f.truncate(SIZE)

    def path(self, name):
        return os.path.join(self.dir, name)

    def verify(self, *args, status=0, target=None, **kwargs):
        """Run it with a state file; its report."""
        result = subprocess.run(
            [os.path.join(TOOLS, self.program), '--state-file',
             self.path('state'), *args, target or self.disk], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            timeout=PATIENCE_S, **kwargs)
        self.assertEqual(result.returncode, status, result.stderr)
        return json.loads(result.stdout) if status < 2 else result.stderr

    def work(self, operations, *args, **kwargs):
        return self.verify('--operations', str(operations), '--flush-every',
                           '50', *args, **kwargs)

    def check(self, **kwargs):
        return self.verify('--operations', '0', '--final-check', **kwargs)

    def written(self, generation=1):
        """Numbers of blocks that hold data, of GENERATION or later."""
        with open(self.path('state')) as f:
            lines = [line.split() for line in f][1:-1]
        return [int(number) for number, g, kind in lines
                if int(g) >= generation and kind == '1']

    def block(self, number):
        with open(self.disk, 'rb') as f:
            f.seek(number * BLOCK)
            return f.read(BLOCK)

    def put(self, number, data, offset=0):
        with open(self.disk, 'r+b') as f:
            f.seek(number * BLOCK + offset)
            f.write(data)

    def assertFound(self, kind, report, count=1):
        found = {k: report[k] for k in KINDS}
        self.assertEqual(found, {**dict.fromkeys(KINDS, 0), kind: count})
        self.assertEqual(report['errors'], count)


class Finds(Verify):
    def test_nothing_in_a_good_disk(self):
        report = self.work(2000, '--zero-percent', '10', '--discard-percent',
                           '10', '--final-check')
        self.assertEqual(report['errors'], 0)
        for key in ('read', 'write', 'write_zeroes', 'discard', 'flush',
                    'checked_blocks', 'latency_max_us', 'longest_stall_us'):
            self.assertGreater(report[key] + report['unsupported'] *
                               (key in ('write_zeroes', 'discard')), 0, key)
        self.assertGreaterEqual(report['latency_max_us'],
                                report['latency_p99_us'])
        self.assertGreaterEqual(report['latency_p99_us'],
                                report['latency_median_us'])
        self.assertEqual(self.check()['errors'], 0)

    def test_a_corrupt_block(self):
        self.work(500)
        number = self.written()[3]
        byte = self.block(number)[1000]
        self.put(number, bytes([byte ^ 1]), 1000)
        self.assertFound('corrupt', self.check(status=1))

    def test_a_torn_block(self):
        self.work(500)
        number = self.written()[3]
        old = self.block(number)
        while self.block(number) == old:
            self.work(200)
        self.put(number, old[:512])
        self.assertFound('corrupt', self.check(status=1))

    def test_a_lost_first_write(self):
        self.work(500)
        self.put(self.written()[5], bytes(BLOCK))
        self.assertFound('lost', self.check(status=1))

    def test_a_lost_or_repeated_overwrite(self):
        self.work(500)
        number = self.written()[5]
        old = self.block(number)
        while self.block(number) == old or number not in self.written():
            self.work(200)
        self.put(number, old)
        self.assertFound('stale', self.check(status=1))

    def test_data_that_should_be_zeroes(self):
        self.work(500)
        before = {n: self.block(n) for n in self.written()}
        if self.work(300, '--zero-percent', '50')['unsupported']:
            self.skipTest('the file system does not zero')
        with open(self.path('state')) as f:
            zeroed = [int(line.split()[0]) for line in f
                      if line.endswith(' 2\n')]
        number = next(n for n in zeroed if n in before)
        self.put(number, before[number])
        self.assertFound('stale', self.check(status=1))

    def test_a_misplaced_write(self):
        self.work(500)
        first, second = self.written()[:2]
        self.put(first, self.block(second))
        self.assertFound('misplaced', self.check(status=1))

    def test_a_write_that_never_was(self):
        self.work(500)
        shutil.copy(self.path('state'), self.path('old'))
        number = self.written()[0]
        old = self.block(number)
        while self.block(number) == old or number not in self.written():
            self.work(200)
        new = self.block(number)
        os.replace(self.path('old'), self.path('state'))
        report = self.check(status=1)
        self.assertGreater(report['future'], 0)
        self.assertEqual(self.block(number), new)

    def test_what_changes_while_it_runs(self):
        process = subprocess.Popen(
            [os.path.join(TOOLS, self.program), '--seconds', '100000',
             '--final-check', self.disk], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            while os.stat(self.disk).st_blocks * 512 < SIZE // 2:
                self.assertIsNone(process.poll())
            for _ in range(100):
                for number in range(0, SIZE // BLOCK, 7):
                    self.put(number, b'x' * 100, 500)
            process.terminate()
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        self.assertEqual(process.returncode, 1, err)
        self.assertGreater(json.loads(out)['corrupt'], 0)
        self.assertRegex(err, r'block \d+: corrupt')

    def test_errors_of_the_disk(self):
        os.truncate(self.disk, 8 << 20)
        limit = 4 << 20
        report = self.work(500, status=1, restore_signals=False,
                           preexec_fn=lambda:
                           resource.setrlimit(resource.RLIMIT_FSIZE,
                                              (limit, limit)))
        self.assertGreater(report['io_errors'], 0)
        self.assertEqual(report['errors'], report['io_errors'])


class Options(Verify):
    def test_same_seed_same_content(self):
        self.work(500, '--seed', '7', '--threads', '1')
        with open(self.disk, 'rb') as f:
            first = f.read()
        os.unlink(self.path('state'))
        os.truncate(self.disk, 0)
        os.truncate(self.disk, SIZE)
        self.work(500, '--seed', '7', '--threads', '1')
        with open(self.disk, 'rb') as f:
            self.assertEqual(f.read(), first)

    def test_operations_are_counted(self):
        report = self.verify('--operations', '301', '--flush-every', '0',
                             '--threads', '3')
        # each thread flushes once, at its end
        self.assertEqual(report['read'] + report['write'], 301)
        self.assertEqual(report['flush'], 3)

    def test_read_percent(self):
        self.assertEqual(self.work(300, '--read-percent', '0')['read'], 0)
        self.assertEqual(self.work(300, '--read-percent', '100')['write'], 0)

    def test_size_limits_it(self):
        self.work(500, '--size', '1M', '--read-percent', '0')
        self.assertLess(max(self.written()), (1 << 20) // BLOCK)

    def test_intervals(self):
        report = self.work(5000, '--interval', '1')
        self.assertGreater(report['intervals'], 0)
        self.assertGreater(report['interval_max_median_us'], 0)
        self.assertLessEqual(report['interval_max_median_us'],
                             report['latency_max_us'])

    def test_direct(self):
        try:
            os.close(os.open(self.disk, os.O_RDWR | os.O_DIRECT))
        except OSError:
            self.skipTest('the file system has no O_DIRECT')
        self.assertEqual(self.work(300, '--direct',
                                   '--final-check')['errors'], 0)

    def test_mistakes(self):
        self.work(10)
        for args, text in (
                (['--threads', '0'], 'at least one'),
                (['--threads', '1000'], 'not a number that fits'),
                (['--threads', '4x'], 'not a number that fits'),
                (['--size', '-1'], 'not a number that fits'),
                (['--size', '1G'], 'has only'),
                (['--size', '64k'], 'too few for 4 threads'),
                (['--read-percent', '60', '--zero-percent', '60'],
                 'more than 100'),
                (['--seed', '1'], 'another size or seed'),
                (['--size', '1M'], 'another size or seed'),
                (['--frobnicate'], 'usage:')):
            self.assertIn(text, self.verify(*args, status=2), args)
        self.assertIn('No such file', self.verify(
            status=2, target=self.path('none')))

    def test_a_damaged_state_file(self):
        self.work(100)
        with open(self.path('state'), 'r+') as f:
            f.truncate(os.path.getsize(self.path('state')) - 5)
        self.assertIn('damaged', self.check(status=2))


class Nbd(Verify):
    program = 'weir-verify-nbd'

    def setUp(self):
        super().setUp()
        daemon = os.path.join(BIN, 'qemu-storage-daemon')
        for program in (os.path.join(TOOLS, self.program), daemon):
            if not os.path.exists(program):
                self.skipTest(f'{program} is not built')
        socket = self.path('nbd')
        process = subprocess.Popen(
            [daemon, '--blockdev',
             f'driver=file,node-name=disk,filename={self.disk},discard=unmap',
             '--nbd-server', f'addr.type=unix,addr.path={socket},'
             'max-connections=16', '--export',
             'nbd,id=export,node-name=disk,writable=on', '--pidfile',
             self.path('pid')])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        while not os.path.exists(self.path('pid')):
            self.assertIsNone(process.poll())
        self.uri = f'nbd+unix:///disk?socket={socket}'

    def test_a_good_export(self):
        report = self.work(2000, '--zero-percent', '10', '--discard-percent',
                           '10', '--final-check', target=self.uri)
        self.assertEqual(report['errors'], 0)
        for key in ('read', 'write', 'write_zeroes', 'discard', 'flush'):
            self.assertGreater(report[key], 0, key)

    def test_a_stale_block(self):
        self.work(500, target=self.uri)
        number = self.written()[5]
        old = self.block(number)
        while self.block(number) == old or number not in self.written():
            self.work(200, target=self.uri)
        self.put(number, old)
        self.assertFound('stale', self.check(status=1, target=self.uri))

    def test_no_export(self):
        self.assertIn('weir-verify: nbd', self.check(
            status=2, target=self.uri.replace('nbd+unix:///disk',
                                              'nbd+unix:///none')))


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0], '-v', *sys.argv[1:]])
