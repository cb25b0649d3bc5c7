#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./bootstrap says before it does anything."""

import os
import re
import subprocess
import tempfile
import unittest

SOURCE = os.environ['WEIR_SOURCE']


def bootstrap(*args, **env):
    return subprocess.run(
        [os.path.join(SOURCE, 'bootstrap'), *args], text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **env}, timeout=60)


class Bootstrap(unittest.TestCase):
    def check_error(self, text, *args):
        result = bootstrap(*args)
        self.assertNotEqual(result.returncode, 0, args)
        self.assertIn(text, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)

    def test_help(self):
        for args in (('--help',), ('help',), ('build', '--help')):
            result = bootstrap(*args)
            self.assertEqual(result.returncode, 0)
            for word in ('build', 'test', 'demo', 'install', 'deb',
                         'clean', '--prefix', '--full', '--qemu-src'):
                self.assertIn(word, result.stdout)

    def test_help_names_each_option(self):
        """No option is accepted that the help does not know."""
        with open(os.path.join(SOURCE, 'bootstrap')) as f:
            text = f.read()
        main = text[text.index('\nmain() {'):]
        options = set(re.findall(r'--[a-z-]+(?=[|)])', main))
        self.assertGreater(len(options), 4)
        for option in options:
            self.assertIn(option, bootstrap('--help').stdout)

    def test_no_command(self):
        result = bootstrap()
        self.assertEqual(result.returncode, 2)
        self.assertIn('usage:', result.stderr)

    def test_errors(self):
        self.check_error("unknown command 'biuld'", 'biuld')
        self.check_error("unknown option '--fast'", 'build', '--fast')
        self.check_error('--prefix needs a value', 'install', '--prefix')
        self.check_error("not '9.1'", 'test', '--qemu', '9.1')
        self.check_error('10.0 of Debian only', 'deb', '--qemu', '10.2')
        self.check_error('/nonexistent', 'build', '--qemu-src',
                         '/nonexistent')

    def test_mirror_comes_from_the_machine(self):
        """No host is written into the script."""
        with open(os.path.join(SOURCE, 'bootstrap')) as f:
            self.assertNotRegex(f.read(), r'https?://|[a-z]+\.debian\.org')


class Graft(unittest.TestCase):
    def test_foreign_tree_is_refused(self):
        """A tree that the series does not fit: an error, no half success."""
        with tempfile.TemporaryDirectory() as directory:
            os.makedirs(os.path.join(directory, 'block'))
            with open(os.path.join(directory, 'block/meson.build'), 'w') as f:
                f.write('# something else\n')
            result = subprocess.run(
                [os.path.join(SOURCE, 'block', 'qemu', 'graft'), directory],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertNotEqual(result.returncode, 0)
            self.assertFalse(os.path.lexists(
                os.path.join(directory, 'block', 'weir')))


if __name__ == '__main__':
    unittest.main(argv=['test-bootstrap', '-v'])
