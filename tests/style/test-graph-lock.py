#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers keep to QEMU's graph lock, as far as clang can tell."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unittest

BUILD = os.environ['WEIR_BUILD']
DATABASE = os.path.join(BUILD, 'qemu-tests', 'compile_commands.json')
# what clang 14 does not know, and what would write files
DROP = re.compile(r'-fsanitize|-fzero-call|-ftrivial|-MD$|-W(no-)?(old-style'
                  r'-declaration|psabi|format-overflow|shift-negative-value)')
DROP_WITH_ARGUMENT = ('-MF', '-MQ', '-o')


def our_files():
    with open(DATABASE) as f:
        for entry in json.load(f):
            if '/block/weir/' in entry['file'] and \
                    '/filters/' not in entry['file']:
                yield entry


def check(entry):
    words = shlex.split(entry['command'])[1:]
    arguments = []
    while words:
        word = words.pop(0)
        if word in DROP_WITH_ARGUMENT:
            words.pop(0)
        elif not DROP.match(word):
            arguments.append(word)
    return subprocess.run(
        ['clang', '-Wthread-safety', '-Wno-unknown-warning-option',
         *arguments, '-o', os.devnull], cwd=entry['directory'], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


class GraphLock(unittest.TestCase):
    def test_drivers(self):
        entries = list(our_files())
        self.assertGreaterEqual(len(entries), 6)
        for entry in entries:
            result = check(entry)
            self.assertEqual(result.returncode, 0, result.stdout)
            self.assertNotIn('warning:', result.stdout)


if __name__ == '__main__':
    if not shutil.which('clang') or not os.path.exists(DATABASE):
        print('skipped: needs clang and the build with sanitizers')
        sys.exit(77)
    unittest.main(argv=['test-graph-lock', '-v'])
