#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The example policies are right for the real drivers."""
import glob
import os
import subprocess
import unittest

SOURCE = os.environ['WEIR_SOURCE']
BIN = os.path.join(os.environ['WEIR_BUILD'], 'bin')


class Examples(unittest.TestCase):
    def test_examples(self):
        files = glob.glob(os.path.join(SOURCE, 'docs', 'examples', '*.yaml'))
        self.assertGreater(len(files), 3)
        result = subprocess.run(
            [os.environ['WEIR'], 'policy', 'check', '--qemu-bin-dir', BIN,
             *files], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=120)
        self.assertEqual((result.returncode, result.stdout), (0, ''))


if __name__ == '__main__':
    unittest.main(argv=['test-examples', '-v'])
