# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests for writers of plugins share: the interface, installed."""

import os
import subprocess

from weirtest import BIN, SOURCE

MESON_BUILD = os.environ.get('WEIR_MESON_BUILD') or os.path.join(
    SOURCE, 'build', 'weir')
WEIR = os.path.join(MESON_BUILD, 'policy', 'weir')
GUARD_S = 300


def run(test, *command, **env):
    """Run a command that has to go well, without warnings of compilers."""
    result = subprocess.run(
        command, cwd=test.dir, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=GUARD_S, check=False, env={**os.environ, **env})
    test.assertEqual(result.returncode, 0,
                     ' '.join(command) + '\n' + result.stdout)
    test.assertNotIn('warning:', result.stdout)
    return result.stdout


def install(test):
    """Install what plugins are built with; the environment that finds it."""
    meson = os.path.join(SOURCE, 'build', 'tools', 'meson')
    prefix, build = test.path('prefix'), test.path('build')
    run(test, meson, 'setup', build, SOURCE, '-Dpolicy=false', '--prefix',
        prefix, '--libdir', 'lib')
    run(test, meson, 'install', '-C', build, '--no-rebuild', '--tags',
        'devel')
    return {'PKG_CONFIG_PATH': os.path.join(prefix, 'lib', 'pkgconfig')}


def programs(test):
    """A folder for $PATH: this weir, and the programs of QEMU."""
    folder = test.path('bin')
    os.mkdir(folder)
    for name in os.listdir(BIN):
        os.symlink(WEIR if name == 'weir' else os.path.join(BIN, name),
                   os.path.join(folder, name))
    return folder
