#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may include what, and what the engines export."""

import glob
import os
import re
import subprocess
import unittest

SOURCE = os.environ['WEIR_SOURCE']
BUILD = os.environ['WEIR_MESON_BUILD']
# engine -> the libraries it may use besides libc
ENGINE_LIBRARIES = {'common': ('isa-l/crc.h',),
                    'encryption': ('libcryptsetup.h', 'gcrypt.h',
                                   'gpg-error.h', 'json-c/json.h'),
                    'replication': ('gcrypt.h', 'zstd.h')}
LIBC = re.compile(r'(sys|linux|arpa|netinet)/[a-z_]+\.h|[a-z0-9]+\.h')
NOT_LIBC = ('glib.h', 'gio.h', 'yaml.h', 'libnbd.h', 'zlib.h', 'zstd.h')


def sources(folder):
    for extension in ('c', 'h'):
        yield from glob.glob(os.path.join(SOURCE, folder, '**',
                                          f'*.{extension}'), recursive=True)


def includes(path):
    with open(path) as f:
        for line in f:
            m = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if m:
                yield m[1], m[2]


class Layers(unittest.TestCase):
    def test_there_is_something_to_check(self):
        self.assertGreater(len(list(sources('filters'))), 5)
        self.assertGreater(len(list(sources('policy'))), 5)

    def test_engines_include_libc_and_their_own(self):
        for path in sources('filters'):
            engine = os.path.relpath(path, SOURCE).split(os.sep)[1]
            for kind, name in includes(path):
                if kind == '"':
                    self.assertRegex(
                        name, rf'^(common|{engine})/[a-z0-9-]+\.h$', path)
                    self.assertTrue(os.path.exists(os.path.join(
                        SOURCE, 'filters', name)), f'{path}: {name}')
                elif name not in ENGINE_LIBRARIES.get(engine, ()):
                    self.assertTrue(LIBC.fullmatch(name) and
                                    name not in NOT_LIBC, f'{path}: {name}')

    def test_policy_knows_neither_qemu_nor_engines(self):
        for path in sources('policy'):
            for kind, name in includes(path):
                self.assertNotRegex(
                    name, r'^(qemu|block|qapi|qobject|system|common|inspect'
                    r'|cache|encryption|replication)/', path)
                if kind == '"':
                    local = (os.path.join(os.path.dirname(path), name),
                             os.path.join(SOURCE, 'policy', name))
                    self.assertTrue(any(map(os.path.exists, local)),
                                    f'{path}: {name}')

    def test_glue_includes_one_engine(self):
        for path in sources('block'):
            engines = {name.split('/')[0] for kind, name in includes(path)
                       if kind == '"' and os.path.isdir(os.path.join(
                           SOURCE, 'filters', name.split('/')[0]))}
            self.assertLessEqual(len(engines - {'common'}), 1, path)

    def test_exported_symbols_have_the_prefix(self):
        libraries = glob.glob(os.path.join(BUILD, 'filters', '*.a'))
        self.assertGreaterEqual(len(libraries), 2)
        for library in libraries:
            out = subprocess.run(['readelf', '-sW', library], text=True,
                                 check=True, stdout=subprocess.PIPE).stdout
            # hidden ones do not leave the module
            symbols = re.findall(r' GLOBAL +DEFAULT +\d+ (\S+)', out)
            self.assertTrue(symbols, library)
            for symbol in symbols:
                self.assertTrue(symbol.startswith('weir_'),
                                f'{library}: {symbol}')


if __name__ == '__main__':
    unittest.main(argv=['test-layers', '-v'])
