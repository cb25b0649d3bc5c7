#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch queue: small, explained, exact, and reversible."""

import os
import shutil
import subprocess
import tempfile
import unittest

SOURCE = os.environ['WEIR_SOURCE']
PATCHES = os.path.join(SOURCE, 'block', 'qemu', 'patches')
CACHE = os.environ.get('WEIR_CACHE_DIR') or os.path.join(
    os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'),
    'weir')


def series():
    with open(os.path.join(PATCHES, 'series')) as f:
        return f.read().split()


def read(name):
    with open(os.path.join(PATCHES, name)) as f:
        return f.read()


def changed_files():
    return sorted({line[6:].rstrip() for name in series()
                   for line in read(name).splitlines()
                   if line.startswith('+++ b/')})


class Series(unittest.TestCase):
    def test_series_names_each_patch(self):
        on_disk = [n for n in os.listdir(PATCHES) if n.endswith('.patch')]
        self.assertEqual(series(), sorted(on_disk))

    def test_each_is_small(self):
        for name in series():
            self.assertLess(len(read(name).splitlines()), 60, name)

    def test_each_says_why(self):
        for name in series():
            text = read(name)
            message = text[:text.index('\ndiff --git')]
            self.assertIn('\nForwarded: ', message, name)
            self.assertIn('\nDrop-when: ', message, name)
            reason = message[message.index('\n\n'):message.index('Forwarded')]
            self.assertGreater(len(reason.split()), 15, name)

    def apply(self, tree, name, *options):
        return subprocess.run(
            ['patch', '-p1', '--fuzz=0', '--no-backup-if-mismatch', *options],
            input=read(name), text=True, cwd=tree, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)

    def test_round_trip(self):
        """Applied at fuzz 0 and taken back, each file is as before."""
        source = os.path.join(CACHE, 'qemu-10.0')
        if not os.path.exists(os.path.join(source, 'complete')):
            self.skipTest('QEMU was not downloaded (--qemu-src?)')
        dsc, = [n for n in os.listdir(source) if n.endswith('.dsc')]
        with tempfile.TemporaryDirectory() as directory:
            tree = os.path.join(directory, 'qemu')
            subprocess.run(['dpkg-source', '--no-check', '-x',
                            os.path.join(source, dsc), tree], check=True,
                           stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            kept = os.path.join(directory, 'kept')
            for name in changed_files():
                os.makedirs(os.path.dirname(os.path.join(kept, name)),
                            exist_ok=True)
                shutil.copy(os.path.join(tree, name),
                            os.path.join(kept, name))
            for name in series():
                result = self.apply(tree, name)
                self.assertEqual(result.returncode, 0, result.stdout)
                self.assertNotIn('fuzz', result.stdout)
            for name in reversed(series()):
                result = self.apply(tree, name, '--reverse')
                self.assertEqual(result.returncode, 0, result.stdout)
            for name in changed_files():
                with open(os.path.join(tree, name), 'rb') as a, \
                        open(os.path.join(kept, name), 'rb') as b:
                    self.assertEqual(a.read(), b.read(), name)


if __name__ == '__main__':
    unittest.main(argv=['test-series', '-v'])
