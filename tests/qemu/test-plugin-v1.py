#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of weir-plugin with plugins that were built for version 1.

tests/plugins/v1/x86_64 has probe, mask and worker as they were compiled then,
with -std=c99 -O2 -s -shared -fPIC and the header beside them.  They are not
made anew: what runs here is what somebody has installed and forgotten."""

import importlib
import os
import platform
import shutil
import sys

from weirtest import SOURCE, TestCase, main

KEPT = os.path.join(SOURCE, 'tests', 'plugins', 'v1', platform.machine())
now = importlib.import_module('test-plugin')


class Kept(TestCase):
    """Those that are kept come before those of today."""

    def setUp(self):
        super().setUp()
        # a checkout may belong to somebody whose plugins are refused
        self.folder = self.path('kept')
        os.mkdir(self.folder, 0o755)
        for name in os.listdir(KEPT):
            path = os.path.join(self.folder, name)
            shutil.copyfile(os.path.join(KEPT, name), path)
            os.chmod(path, 0o755)
        os.environ['WEIR_PLUGIN_PATH'] = f'{self.folder}:{now.PLUGINS}'

    def tearDown(self):
        os.environ['WEIR_PLUGIN_PATH'] = now.PLUGINS
        super().tearDown()


class Requests(Kept, now.Requests):
    def test_which(self):
        self.serve()
        self.assertEqual(self.info()['path'],
                         os.path.join(self.folder, 'probe.so'))
        self.assertEqual(self.d.cmd('query-weir-plugin',
                                    plugin='probe')['abi'], 1)
        self.finish()


class Options(Kept, now.Options):
    pass


class Held(Kept, now.Held):
    pass


class Life(Kept, now.Life):
    # it cannot do that yet
    test_overlay_is_refused = None


if __name__ == '__main__':
    if not os.path.isdir(KEPT):
        print(f'SKIP: no plugin is kept for {platform.machine()}')
        sys.exit(77)
    main()
