#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/writing-a-plugin.md: all its commands, in order, in one shell, as they
stand there; and what it says that they print."""

import os
import re
import subprocess
import unittest

import page
from plugintest import GUARD_S, install, programs
from weirtest import BIN, SOURCE, TestCase, main

GUIDE = os.path.join(SOURCE, 'docs', 'writing-a-plugin.md')
MARK = '-- step %d --'


class Guide(TestCase):
    def setUp(self):
        super().setUp()
        if not os.path.exists(os.path.join(BIN, 'qemu-system-x86_64')):
            raise unittest.SkipTest('this build has no emulator')
        self.env = {**os.environ, **install(self)}
        self.env['PATH'] = programs(self) + ':' + self.env['PATH']
        self.env.pop('WEIR_PLUGIN_PATH', None)
        self.folder = self.path('empty')
        os.mkdir(self.folder, 0o755)

    def run_all(self, blocks):
        """What each block has printed."""
        script = ("trap 'kill $(jobs -p) 2> /dev/null || true; "
                  "wait || true' EXIT\n")
        script += ''.join(f'echo "{MARK % i}"\n{commands}'
                          for i, commands in enumerate(blocks))
        result = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', script], cwd=self.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=GUARD_S, check=False,
            env=self.env)
        self.assertEqual(result.returncode, 0, result.stdout)
        return re.split(r'^-- step \d+ --\n', result.stdout, flags=re.M)[1:]

    def test_as_written(self):
        steps = [step for some in page.steps(GUIDE).values()
                 for step in some]
        self.assertGreater(len(steps), 8)
        printed = self.run_all([step.commands for step in steps])
        self.assertEqual(len(printed), len(steps))
        for step, output in zip(steps, printed):
            self.assertNotIn('warning:', output)
            self.assertIsNone(page.line_missing(step, output), output)


if __name__ == '__main__':
    main()
