#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-commit finds transactions that are lost, stale or damaged."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOOLS = os.path.join(os.environ['WEIR_MESON_BUILD'], 'tests', 'tools')
PROGRAM = os.path.join(TOOLS, 'weir-commit')
ITEM, SLOTS, STATES, KEPT = 1024, 256, 8, 128
PATIENCE_S = 120


class Commit(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='weir-commit-')
        self.addCleanup(shutil.rmtree, self.dir)
        self.last = 0
        self.work(SLOTS + 40)

    def path(self, name):
        return os.path.join(self.dir, name)

    def work(self, count):
        """Let it work on for some transactions at least, and crash."""
        process = subprocess.Popen([PROGRAM, 'work', self.dir, 'x'], text=True,
                                   stdout=subprocess.PIPE)
        want = self.last + count
        while self.last < want:
            self.told(process.stdout.readline())
        process.kill()
        # on a fast disk it has done many more by then
        for line in process.communicate()[0].splitlines(keepends=True):
            self.told(line)

    def told(self, line):
        match = re.fullmatch(r'committed x (\d+)\.\n', line)
        if match:
            self.assertGreater(int(match[1]), self.last)
            self.last = int(match[1])

    def check(self, status=0, told=None):
        result = subprocess.run(
            [PROGRAM, 'check', self.dir,
             str(self.last if told is None else told)], text=True,
            stdout=subprocess.PIPE, timeout=PATIENCE_S)
        self.assertEqual(result.returncode, status, result.stdout)
        return result.stdout

    def newest(self, *kinds):
        """The newest transaction of a kind that is safe."""
        return next(n for n in range(self.last, 0, -1) if n % 4 in kinds)

    def record(self, number):
        with open(self.path('records'), 'rb') as f:
            f.seek(number % SLOTS * ITEM)
            return f.read(ITEM)

    def put(self, name, data, offset=0):
        with open(self.path(name), 'r+b') as f:
            f.seek(offset)
            f.write(data)

    def test_all_is_there(self):
        for _ in range(5):
            self.assertIn('bad 0', self.check())
            self.work(17)

    def test_nothing_yet(self):
        shutil.rmtree(self.dir)
        os.mkdir(self.dir)
        self.assertEqual(self.check(told=0), '')
        self.check(told=1, status=2)
        self.last = 0
        self.work(1)
        self.check()

    def test_a_lost_record(self):
        number = self.newest(0, 1)
        old = self.record(number)
        while self.last < number + SLOTS:
            self.work(1)
        self.put('records', old, number % SLOTS * ITEM)
        self.assertIn('stale', self.check(1))

    def test_a_damaged_record(self):
        self.put('records', b'x', self.newest(0, 1) % SLOTS * ITEM + 600)
        self.assertIn('damaged', self.check(1))

    def test_a_lost_rename(self):
        number = self.newest(2)
        name = f'state{number // 4 % STATES}'
        shutil.copy(self.path(name), self.path('old'))
        while self.last < number + 4 * STATES:
            self.work(1)
        os.rename(self.path('old'), self.path(name))
        self.assertIn('stale', self.check(1))

    def test_a_damaged_state(self):
        name = f'state{self.newest(2) // 4 % STATES}'
        os.truncate(self.path(name), 512)
        self.assertIn('damaged', self.check(1))

    def test_a_lost_file(self):
        os.unlink(self.path(f'file{self.newest(3)}'))
        self.assertIn('lost', self.check(1))

    def test_the_end_is_lost(self):
        self.assertIn('stale', self.check(1, told=self.last + 4))


if __name__ == '__main__':
    unittest.main(argv=[sys.argv[0], '-v', *sys.argv[1:]])
