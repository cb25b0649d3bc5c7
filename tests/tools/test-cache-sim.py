#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-cache-sim: its figures, beside those of exact caches on recorded traces
where there are any, and its complaints."""

import json
import os
import subprocess
import tempfile
import unittest

TOOLS = os.path.join(os.environ['WEIR_MESON_BUILD'], 'tests', 'tools')
SIM = os.path.join(TOOLS, 'weir-cache-sim')
IDEAL = os.path.join(TOOLS, 'trace-ideal')
TRACES = ('P3.lis', 'P6.lis', 'cloudPhysicsIO.vscsi',
          'ssd-iozone-aligned2-100K.trace')


def sim(capacity, lines):
    return subprocess.run(
        [SIM, '--capacity-blocks', str(capacity), '-'], text=True,
        input=''.join(f'{line}\n' for line in lines), capture_output=True)


def figures(capacity, lines):
    result = sim(capacity, lines)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def misses_of_file(capacity, path):
    output = subprocess.check_output([SIM, '--capacity-blocks', str(capacity),
                                      path])
    return json.loads(output)['misses']


def compare(name, path):
    """Write the trace; yields the misses of weir-cache, S3-FIFO, LRU and ARC
    for each size of the cache."""
    output = subprocess.check_output([IDEAL, name, path], text=True)
    for line in output.splitlines():
        if line.startswith('SKIP '):
            raise unittest.SkipTest(line.removeprefix('SKIP '))
        blocks, *exact = map(int, line.split())
        yield misses_of_file(blocks, path), *exact


class Sim(unittest.TestCase):
    def check_trace(self, name, path):
        sums = [0, 0, 0, 0]
        for ours, *exact in compare(name, path):
            print(f'{name}: {ours} misses, S3-FIFO {exact[0]}, '
                  f'{(ours / exact[0] - 1) * 100:+.2f} %', flush=True)
            self.assertLessEqual(ours, exact[0] * 1.02)
            sums = [a + b for a, b in zip(sums, (ours, *exact))]
        return sums

    def test_recorded_traces(self):
        """With dirty blocks, batches and all.  Each trace has the same weight
        in the means."""
        ratios = []
        with tempfile.TemporaryDirectory() as folder:
            for name in TRACES:
                ours, *exact = self.check_trace(name,
                                                os.path.join(folder, 'trace'))
                ratios.append([ours / misses for misses in exact])
        s3fifo, lru, arc = (sum(column) / len(ratios)
                            for column in zip(*ratios))
        self.assertLess(s3fifo, 1.005)
        self.assertLess(lru, 1)
        self.assertLess(arc, 1)

    def test_all_fits(self):
        trace = [f'{"RW"[i % 3 == 0]} {i % 500}' for i in range(5000)]
        seen = figures(1000, trace)
        self.assertEqual(seen['requests'], 5000)
        self.assertEqual(seen['misses'], 500)
        self.assertAlmostEqual(seen['miss_ratio'], 0.1, 5)

    def test_memory_per_block(self):
        seen = figures(100000, ['R 1'])
        self.assertGreater(seen['bytes_per_block'], 10)
        self.assertLessEqual(seen['bytes_per_block'], 20)

    def test_a_scan_leaves_the_hot_blocks_in(self):
        hot = [f'R {i}' for i in range(500)] * 4
        scan = [f'R {i}' for i in range(10000, 20000)]
        before = figures(1000, hot + scan)['misses']
        after = figures(1000, hot + scan + hot[:500])['misses']
        # all but those that were on probation; of LRU's nothing is left
        self.assertLess(after - before, 150)

    def test_writes_only(self):
        trace = [f'W {i * 7919 % 3000}' for i in range(30000)]
        seen = figures(200, trace)
        self.assertEqual(seen['requests'], 30000)

    def test_bad_lines(self):
        for line in ('X 1', 'R', 'R -1', 'R 1 2', 'R 99999999999999999999'):
            result = sim(100, ['R 1', line])
            self.assertEqual(result.returncode, 1, line)
            self.assertIn('line 2', result.stderr)

    def test_bad_options(self):
        for capacity in ('63', 'x', '4294967296'):
            self.assertEqual(sim(capacity, []).returncode, 2, capacity)
        self.assertEqual(subprocess.run([SIM], stderr=subprocess.DEVNULL)
                         .returncode, 2)


if __name__ == '__main__':
    unittest.main()
