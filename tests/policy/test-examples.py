#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The example policies of the documentation are right for the real drivers."""
import glob
import os
import unittest

from common import QEMU_BIN_DIR, ROOT, WeirTest, need


class Examples(WeirTest):
    def test_examples(self):
        files = glob.glob(os.path.join(ROOT, "docs", "examples", "*"))
        self.assertGreater(len(files), 3)
        self.assertEqual(self.weir_ok("policy", "check", "--qemu-bin-dir",
                                      QEMU_BIN_DIR, *files), "")


if __name__ == "__main__":
    need("qemu-storage-daemon")
    unittest.main()
