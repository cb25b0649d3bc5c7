# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the drivers share: programs, QMP, a storage daemon."""

import atexit
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = os.environ.get('WEIR_SOURCE') or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get('WEIR_BUILD') or os.path.join(SOURCE, 'build')
BIN = os.path.join(BUILD, 'bin')
# the build with sanitizers and with the drivers of the suite
TESTS = os.environ.get('WEIR_QEMU_TESTS') or os.path.join(BUILD, 'qemu-tests')
# set for another version of QEMU: there is only that build, no emulator
ONLY_TESTS = 'WEIR_QEMU_TESTS' in os.environ
# the machine's own is left alone
os.environ.setdefault('WEIR_KEEP_DIR', '')
os.environ.setdefault('WEIR_STATE_DIR', '')
# a guard against hanging, not a criterion
PATIENCE_S = 120

ASAN = {
    'ASAN_OPTIONS': 'detect_leaks=1:abort_on_error=0:exitcode=99',
    'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1',
}


def program(name, tests=True):
    """Path of a QEMU program: with sanitizers, or the one of build/bin."""
    if not tests and not ONLY_TESTS:
        return os.path.join(BIN, name)
    if 'system' in name:
        raise unittest.SkipTest('this build has no emulator')
    if name == 'qemu-storage-daemon':
        name = os.path.join('storage-daemon', name)
    return os.path.join(TESTS, name)


def environment():
    return {**os.environ, **ASAN, 'QEMU_MODULE_DIR': TESTS}


def run(name, *args, tests=True, check=True, **kwargs):
    """Run a QEMU program to its end; stdout and stderr are text."""
    result = subprocess.run(
        [program(name, tests), *args], text=True, timeout=PATIENCE_S,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment() if tests or ONLY_TESTS else None, **kwargs)
    # what ASan says about coroutines each time
    result.stderr = re.sub(r'^==\d+==WARNING: ASan .*\n', '', result.stderr,
                           flags=re.M)
    if check and result.returncode != 0:
        raise AssertionError(f'{name} {" ".join(args)}: exit status '
                             f'{result.returncode}\n{result.stderr}')
    return result


class QMPError(Exception):
    pass


class QMP:
    """A QMP client on a unix socket that is already connected."""

    def __init__(self, sock):
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self.file = sock.makefile('rw')
        self.events = []
        self.greeting = json.loads(self.file.readline())
        self.cmd('qmp_capabilities')

    def _receive(self):
        line = self.file.readline()
        if not line:
            raise EOFError('QMP connection closed')
        return json.loads(line)

    def cmd(self, command, arguments=None, **kwargs):
        """Arguments as a dict, or as keywords with _ for -."""
        arguments = dict(arguments or {})
        arguments.update({k.replace('_', '-'): v for k, v in kwargs.items()})
        json.dump({'execute': command, 'arguments': arguments}, self.file)
        self.file.flush()
        while True:
            reply = self._receive()
            if 'event' in reply:
                self.events.append(reply)
            elif 'error' in reply:
                raise QMPError(reply['error']['desc'])
            else:
                return reply['return']

    def event(self, name, match=lambda data: True):
        """Wait for an event, and take it out of the queue."""
        while True:
            for i, event in enumerate(self.events):
                if event['event'] == name and match(event.get('data', {})):
                    return self.events.pop(i).get('data', {})
            reply = self._receive()
            assert 'event' in reply, reply
            self.events.append(reply)

    def close(self):
        self.file.close()
        self.sock.close()

    __del__ = close


class Process:
    """A QEMU program with a QMP monitor on a socket pair."""

    def __init__(self, name, *args, tests=True):
        ours, theirs = socket.socketpair()
        if name == 'qemu-storage-daemon':
            monitor = ['--monitor', 'chardev=qmp']
        else:
            monitor = ['-mon', 'chardev=qmp,mode=control']
        self.stderr = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            [program(name, tests), '-chardev' if 'system' in name
             else '--chardev', f'socket,id=qmp,fd={theirs.fileno()}',
             *monitor, *args],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            stdout=self.stderr, stderr=self.stderr,
            env=environment() if tests or ONLY_TESTS else None)
        theirs.close()
        atexit.register(self.kill)
        try:
            self.qmp = QMP(ours)
        except Exception:
            self.process.wait()
            output = self.output()
            self.kill()
            raise AssertionError(f'{name} did not start:\n{output}')

    def output(self):
        self.stderr.seek(0)
        return self.stderr.read()

    def cmd(self, *args, **kwargs):
        return self.qmp.cmd(*args, **kwargs)

    def quit(self):
        """End it in an orderly way; a leak or a crash is an error."""
        try:
            self.cmd('quit')
        except (EOFError, OSError):
            pass
        self.qmp.close()
        status = self.process.wait(PATIENCE_S)
        output = self.output()
        self.kill()
        if status != 0 or 'ERROR: ' in output or 'runtime error' in output:
            raise AssertionError(f'exit status {status}:\n{output}')

    def kill(self):
        atexit.unregister(self.kill)
        self.stderr.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def graph(process):
    """The block graph by names, without the ids that change."""
    g = process.cmd('x-debug-query-block-graph')
    names = {}
    for node in g['nodes']:
        names[node['id']] = node.get('name') or node['type']
    return (sorted(names.values()),
            sorted((names[e['parent']], e['name'], names[e['child']],
                    tuple(sorted(e['perm'])), tuple(sorted(e['shared-perm'])))
                   for e in g['edges']))


class TestCase(unittest.TestCase):
    """A test with a temporary folder, and processes that end with it."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='weir-')
        self.addCleanup(shutil.rmtree, self.dir)
        self.processes = []
        self.addCleanup(self.kill_all)

    def kill_all(self):
        for process in self.processes:
            process.kill()

    def path(self, name):
        return os.path.join(self.dir, name)

    def image(self, name='disk.img', size=64 << 20, fmt='raw', **options):
        path = self.path(name)
        opts = ['-o', ','.join(f'{k}={v}' for k, v in options.items())] \
            if options else []
        run('qemu-img', 'create', '-q', '-f', fmt, *opts, path, str(size),
            tests=False)
        return path

    def start(self, name, *args, tests=True):
        process = Process(name, *args, tests=tests)
        self.processes.append(process)
        return process

    def daemon(self, *args):
        return self.start('qemu-storage-daemon', *args)

    def vm(self, *args):
        """The emulator without a running guest: for its devices."""
        return self.start('qemu-system-x86_64', '-nodefaults', '-S',
                          '-no-user-config', '-display', 'none', '-machine',
                          'q35', '-accel', 'qtest', *args, tests=False)

    def assertFails(self, text, function, *args, **kwargs):
        """A QMP command fails, and says TEXT."""
        with self.assertRaises(QMPError) as caught:
            function(*args, **kwargs)
        self.assertIn(text, str(caught.exception))

    def filter_info(self, process, node):
        info, = process.cmd('query-weir', {'node-name': node})
        return info


def statistics(info):
    """The generic statistics of a query-weir entry, by operation."""
    return {s['operation']: s for s in info['statistics']}


def blockdev(**options):
    """One -blockdev argument, from keywords with _ for -."""
    return json.dumps({k.replace('_', '-'): v for k, v in options.items()})


def wait_for(condition, what):
    """Poll until CONDITION() is true; returns its value."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f'timed out: {what}')


def main():
    unittest.main(argv=[sys.argv[0], '-v', *sys.argv[1:]])
