#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir plugin test: finds what is wrong, each by its own check, and nothing
wrong with the examples, which are built outside of the tree."""

import concurrent.futures
import os
import signal
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

from plugintest import GUARD_S, MESON_BUILD, WEIR, install, run
from weirtest import (BIN, ONLY_TESTS, SOURCE, TESTS, TestCase, environment,
                      main)

PLUGINS = os.path.join(MESON_BUILD, 'tests', 'plugins')
EXAMPLES = os.path.join(SOURCE, 'docs', 'examples', 'plugins')
# other tests run at the same time
PATIENCE = '3'

# plugin: the check that is there for what is wrong with it
BROKEN = {
    'broken-buffer': 'concurrency',
    'broken-change': 'change',
    'broken-data': 'data',
    'broken-detach': 'attach',
    'broken-drain': 'drain',
    'broken-errors': 'errors',
    'broken-files': 'leaks',
    'broken-flush': 'flush',
    'broken-fua': 'fua',
    'broken-huge': 'huge',
    'broken-leak': 'leaks',
    'broken-migration': 'migration',
    'broken-option': 'options',
    'broken-order': 'order',
    'broken-read-only': 'read-only',
    'broken-resize': 'resize',
    'broken-snapshot': 'overlay',
    'broken-status': 'zeroes',
    'broken-unaligned': 'unaligned',
}

KEY = 90
XOR = (f'{sys.executable} -c "import sys; sys.stdout.buffer.write('
       'sys.stdin.buffer.read().translate('
       f'bytes(i ^ {KEY} for i in range(256))))"')

# example: its arguments, and whether it runs with sanitizers
GOOD = {
    'audit': (['--option', 'log=audit.log'], False),
    'delay': ([], False),
    'deny': (['--option', 'add=1099511627776+512'], False),
    'pass': ([], False),
    'sizes': ([], False),
    'xor': (['--option', f'key={KEY}', '--transform', XOR], True),
}


def run_suite(plugin, *args, sanitized=False, cwd=None):
    """The result, and the outcome of each check."""
    with tempfile.NamedTemporaryFile(suffix='.xml') as report:
        env = dict(os.environ)
        folder = BIN
        if sanitized or ONLY_TESTS:
            env = environment()
            folder = os.path.join(TESTS, 'storage-daemon')
        result = subprocess.run(
            [WEIR, 'plugin', 'test', plugin, '--qemu-bin-dir', folder,
             '--junit', report.name, '--seed', '20', *args], cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=GUARD_S, check=False,
            env=env)
        outcomes = {}
        if result.returncode in (0, 1) and os.path.getsize(report.name):
            suite = ElementTree.parse(report.name).getroot()
            for case in suite.iter('testcase'):
                outcomes[case.get('name')] = (
                    'failed' if case.find('failure') is not None else
                    'skipped' if case.find('skipped') is not None else 'ok')
            assert int(suite.get('failures')) == list(
                outcomes.values()).count('failed')
        return result, outcomes


def in_parallel(jobs):
    """{name: result} of functions, as many at a time as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(
            max_workers=min(os.cpu_count(), 4)) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
        return {name: future.result() for name, future in futures.items()}


class Broken(unittest.TestCase):
    def test_each_is_caught_by_its_check(self):
        def job(name, check):
            return lambda: run_suite(os.path.join(PLUGINS, name + '.so'),
                                     '--check', check, '--patience', PATIENCE)
        results = in_parallel({name: job(name, check)
                               for name, check in BROKEN.items()})
        for name, (result, outcomes) in results.items():
            with self.subTest(name):
                self.assertEqual(outcomes, {BROKEN[name]: 'failed'},
                                 result.stdout)
                self.assertEqual(result.returncode, 1)
                self.assertIn('found: ', result.stdout)
                self.assertIn('--check ' + BROKEN[name], result.stdout)

    def test_there_is_none_without_a_check(self):
        sources = {name[:-2] for name in os.listdir(
            os.path.join(SOURCE, 'tests', 'plugins'))
            if name.startswith('broken-')}
        self.assertEqual(sources, set(BROKEN))

    def test_a_crash_is_told_and_the_next_checks_go_on(self):
        result, outcomes = run_suite(
            os.path.join(PLUGINS, 'broken-option.so'), '--check', 'options',
            '--check', 'data')
        self.assertEqual(outcomes, {'options': 'failed', 'data': 'ok'},
                         result.stdout)
        self.assertIn('with option block=0', result.stdout)
        if not ONLY_TESTS:
            self.assertIn('signal 8 (', result.stdout)

    def test_a_sanitizer_is_listened_to(self):
        result, outcomes = run_suite(os.path.join(PLUGINS, 'broken-leak.so'),
                                     '--check', 'data', sanitized=True)
        self.assertEqual(outcomes, {'data': 'failed'}, result.stdout)
        self.assertIn('detected memory leaks', result.stdout)


class Good(TestCase):
    """The examples, built with what is installed."""

    def build(self):
        """Returns where they are installed."""
        env = install(self)
        run(self, 'cp', '-r', EXAMPLES, self.path('examples'))
        run(self, 'make', '-s', '-C', self.path('examples'), 'all', 'install',
            **env)
        return os.path.join(self.path('prefix'), 'lib', 'weir', 'plugins')

    def test_examples_pass_all(self):
        folder = self.build()
        self.assertEqual({name[:-3] for name in os.listdir(folder)},
                         set(GOOD))

        def job(name, args, sanitized):
            return lambda: run_suite(os.path.join(folder, name + '.so'), *args,
                                     '--patience', PATIENCE,
                                     sanitized=sanitized, cwd=self.dir)
        results = in_parallel({name: job(name, *how)
                               for name, how in GOOD.items()})
        for name, (result, outcomes) in results.items():
            with self.subTest(name):
                self.assertEqual(result.returncode, 0, result.stdout)
                self.assertGreater(len(outcomes), 15)
                self.assertLessEqual(
                    {check for check, outcome in outcomes.items()
                     if outcome != 'ok'}, {'change'}, result.stdout)
        self.wrong_transformation(os.path.join(folder, 'xor.so'))

    def wrong_transformation(self, plugin):
        result, outcomes = run_suite(plugin, '--check', 'data', '--transform',
                                     'cat')
        self.assertEqual(outcomes, {'data': 'failed'}, result.stdout)
        self.assertIn('the node below after a flush', result.stdout)

    def test_one_that_holds_data(self):
        """It is not there to be built, but to be right."""
        checks = ['attach', 'flush', 'migration', 'overlay']
        result, outcomes = run_suite(
            os.path.join(PLUGINS, 'holds.so'), '--patience', PATIENCE,
            *[arg for check in checks for arg in ('--check', check)])
        self.assertEqual(outcomes, dict.fromkeys(checks, 'ok'),
                         result.stdout)


class Command(unittest.TestCase):
    def run_weir(self, *args):
        return subprocess.run(
            [WEIR, 'plugin', 'test', *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=GUARD_S, check=False)

    def test_list(self):
        result = self.run_weir('--list')
        self.assertEqual(result.returncode, 0)
        names = [line.split()[0] for line in result.stdout.splitlines()]
        self.assertGreater(len(names), 15)
        self.assertLessEqual(set(BROKEN.values()), set(names))

    def test_wrong_usage(self):
        for args, message in (
                ([], 'found 0 arguments'),
                (['a.so', 'b.so'], 'found 2 arguments'),
                (['a.so', '--check', 'tea'], "unknown check 'tea'"),
                (['a.so', '--option', 'key'], "option 'key'"),
                (['a.so', '--option', '=1'], "option '=1'"),
                (['a.so', '--seed', '-1'], "seed '-1'"),
                (['a.so', '--seed', '4294967296'], "seed '4294967296'"),
                (['a.so', '--sidecar', '1000'], "size '1000'"),
                (['a.so', '--patience', '0'], 'patience 0'),
                (['a.so', '--wrong'], 'Unknown option')):
            with self.subTest(args):
                result = self.run_weir(*args)
                self.assertEqual(result.returncode, 2, result.stdout)
                self.assertIn(message, result.stdout)

    def test_what_is_no_plugin(self):
        result, outcomes = run_suite('/nowhere/no.so')
        self.assertEqual((result.returncode, outcomes), (1, {}))
        self.assertIn('/nowhere/no.so', result.stdout)

    def test_nothing_is_left_of_one_that_is_ended(self):
        with tempfile.TemporaryDirectory() as folder, subprocess.Popen(
                [WEIR, 'plugin', 'test', '--qemu-bin-dir', BIN,
                 os.path.join(PLUGINS, 'broken-leak.so')],
                stdout=subprocess.PIPE, text=True,
                env={**os.environ, 'TMPDIR': folder}) as process:
            while 'load' not in process.stdout.readline():
                self.assertIsNone(process.poll())
            self.assertEqual(len(os.listdir(folder)), 1)
            process.terminate()
            process.stdout.read()
            self.assertEqual(process.wait(GUARD_S), 128 + signal.SIGTERM)
            self.assertEqual(os.listdir(folder), [])

    def test_the_seed_decides(self):
        """The same places go wrong again."""
        args = [os.path.join(PLUGINS, 'broken-flush.so'), '--check', 'flush']
        first, second = (run_suite(*args)[0].stdout for _ in range(2))
        found = [line for line in first.splitlines() if 'found:' in line]
        self.assertEqual(len(found), 1)
        self.assertIn(found[0], second)


if __name__ == '__main__':
    main()
