# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest that runs a script; see init for what the script can do.

The serial line and the monitor are sockets on which this process listens, so
that it does not matter who starts QEMU.
"""

import atexit
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                '..', 'qemu'))
from weirtest import BIN, BUILD, QMP, QMPError, graph  # noqa: E402

GUEST = os.environ.get('WEIR_GUEST') or os.path.join(BUILD, 'guest')
SKIP = 77
# guards against hanging, not criteria
START_S = 60
WAIT_S = 300


def missing(*programs):
    """Why no guest can be run, or None; PROGRAMS of build/bin are needed."""
    for name in ('vmlinuz', 'initramfs', 'accel'):
        if not os.path.exists(os.path.join(GUEST, name)):
            return f'no guest in {GUEST}: see tests/guest/make-guest'
    for name in ('qemu-system-x86_64', 'qemu-img', *programs):
        if not os.path.exists(os.path.join(BIN, name)):
            return f'{name} is not built'
    return None


def accelerator():
    """What guests run with here: "kvm" or "tcg"."""
    with open(os.path.join(GUEST, 'accel')) as f:
        return f.read().strip()


def accelerator_options():
    """Emulated processors take turns.  With a thread for each, about one
    guest in 200 hangs at its first request: the second processor's APIC has
    the interrupt of its timer in service for ever, and lets no other through
    (seen in QEMU 10.0.13).  Disks have their own threads in any case."""
    return {'kvm': 'kvm', 'tcg': 'tcg,thread=single'}[accelerator()]


class Console:
    """The serial line: keeps its lines, and wakes those who wait for one."""

    def __init__(self, sock):
        self.sock = sock
        self.lines = []
        self.ended = False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            with self.sock.makefile('r', errors='replace') as file:
                for line in file:
                    with self.changed:
                        self.lines.append(line.rstrip('\r\n'))
                        self.changed.notify_all()
        except OSError:
            pass
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def wait(self, pattern, timeout, begin=0):
        """(index, match) of the first line from BEGIN on that matches."""
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                for i in range(begin, len(self.lines)):
                    match = re.search(pattern, self.lines[i])
                    if match:
                        return i, match
                begin = len(self.lines)
                left = end - time.monotonic()
                if self.ended or left <= 0:
                    raise AssertionError(
                        f'no line "{pattern}" from the guest, but\n'
                        f'{self.text()}')
                self.changed.wait(left)

    def text(self):
        return '\n'.join(self.lines)

    def send(self, line):
        self.sock.sendall(line.encode() + b'\n')

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join()
        self.sock.close()


class Guest:
    """A running guest; a context manager that never leaves it behind."""

    def __init__(self, script, *args, launcher=None, memory_mb=512, cpus=2):
        """Start it.

        script: shell text that the guest runs
        args: further arguments of QEMU
        launcher: what to run in place of QEMU, for example "weir run ... --"
        """
        self.process = self.console = self.qmp = None
        self.dir = tempfile.mkdtemp(prefix='weir-guest-')
        atexit.register(self.kill)
        try:
            with open(self.path('script'), 'w') as f:
                f.write(script)
            self._start(launcher or [os.path.join(BIN, 'qemu-system-x86_64')],
                        [*self._arguments(memory_mb, cpus), *args])
        except BaseException:
            self.kill()
            raise

    def path(self, name):
        return os.path.join(self.dir, name)

    def _arguments(self, memory_mb, cpus):
        return [
            '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot',
            '-machine', 'q35', '-accel', accelerator_options(),
            '-cpu', 'max',
            '-m', str(memory_mb), '-smp', str(cpus),
            '-kernel', os.path.join(GUEST, 'vmlinuz'),
            '-initrd', os.path.join(GUEST, 'initramfs'),
            # on a busy machine an emulated timer may seem not to tick
            '-append', 'console=ttyS0 quiet loglevel=3 panic=-1 '
            'no_timer_check',
            '-fw_cfg', f'name=opt/weir/script,file={self.path("script")}',
            '-chardev', f'socket,id=guest-serial,path={self.path("serial")}',
            '-serial', 'chardev:guest-serial',
            '-chardev', f'socket,id=guest-qmp,path={self.path("qmp")}',
            '-mon', 'chardev=guest-qmp,mode=control']

    def _start(self, program, args):
        with self._listen('serial') as serial, self._listen('qmp') as qmp, \
                open(self.path('log'), 'w') as log:
            self.process = subprocess.Popen(
                [*program, *args], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)
            self.console = Console(self._accept(serial))
            monitor = self._accept(qmp)
            try:
                self.qmp = QMP(monitor)
            except (EOFError, OSError, ValueError):
                raise AssertionError(
                    f'QEMU did not start:\n{self.log()}') from None

    def _listen(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self.path(name))
        sock.listen(1)
        sock.settimeout(0.2)
        return sock

    def _accept(self, sock):
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                conn = sock.accept()[0]
                conn.settimeout(None)
                return conn
            except socket.timeout:
                pass
        raise AssertionError(f'QEMU did not start:\n{self.log()}')

    def log(self):
        """What QEMU, or who started it, has printed."""
        with open(self.path('log'), errors='replace') as f:
            return f.read()

    def doing(self):
        """What QEMU and its threads are at, for a guest that is silent."""
        text = []
        for task in sorted(glob.glob(f'/proc/{self.process.pid}/task/*')):
            try:
                with open(os.path.join(task, 'stat')) as f:
                    name, rest = re.fullmatch(r'\d+ (\(.*\)) (.*)\n',
                                              f.read()).groups()
            except OSError:
                continue
            fields = rest.split()
            text.append(f'{name} {fields[0]}, ticks {fields[11]} of user, '
                        f'{fields[12]} of system')
        try:
            text += [self.hmp(line) for line in (
                'info status', 'info weir', 'info blockstats', 'info lapic 0',
                'info lapic 1')]
            text += re.findall('RIP=.*', self.hmp('info registers -a'))
        except (EOFError, OSError, QMPError, ValueError) as error:
            text.append(f'the monitor: {error}')
        return '\n'.join(text)

    def cmd(self, *args, **kwargs):
        return self.qmp.cmd(*args, **kwargs)

    def hmp(self, line):
        return self.cmd('human-monitor-command', {'command-line': line})

    def graph(self):
        return graph(self)

    def _line(self, pattern, timeout):
        """Match of the first line that matches, waited for."""
        try:
            return self.console.wait(pattern, timeout)[1]
        except AssertionError as e:
            raise AssertionError(f'{e}\nQEMU: {self.log()}\n'
                                 f'{self.doing()}') from None

    def next_line(self, pattern, begin, timeout=WAIT_S):
        """The first line from BEGIN on that matches, and where to go on."""
        i, match = self.console.wait(pattern, timeout, begin)
        return match.string, i + 1

    def report(self, pattern, timeout=WAIT_S):
        """Match of the first report that matches, waited for."""
        return self._line('^WEIR-GUEST: ' + pattern, timeout)

    def wait_for(self, name, timeout=WAIT_S):
        """Wait until the script waits in "wait_host NAME"."""
        self._line(f'^WEIR-GUEST-WAIT: {re.escape(name)}$', timeout)

    def go_on(self, line=''):
        """Let the script go on; LINE is the output of its wait_host."""
        self.console.send(line)

    def exit_status(self, timeout=WAIT_S):
        """Wait until the guest is off; exit status of its script."""
        status = int(self._line(r'^WEIR-GUEST-EXIT: (\d+)$', timeout)[1])
        self.process.wait(timeout)
        return status

    def kill(self):
        atexit.unregister(self.kill)
        if self.process and self.process.poll() is None:
            # a launcher ends QEMU on SIGTERM
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for part in (self.qmp, self.console):
            if part:
                part.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.kill()


class TestCase(unittest.TestCase):
    """A test with a temporary folder and guests that end with it."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix='weir-')
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def image(self, name, size, fmt='raw'):
        path = self.path(name)
        subprocess.run([os.path.join(BIN, 'qemu-img'), 'create', '-q', '-f',
                        fmt, path, str(size)], check=True)
        return path

    def start(self, script, *args, **kwargs):
        guest = Guest(script, *args, **kwargs)
        self.addCleanup(guest.kill)
        return guest

    def finish(self, guest):
        """The guest's script, and then QEMU, end without an error."""
        status = guest.exit_status()
        self.assertEqual(status, 0, guest.console.text())
        self.assertEqual(guest.process.returncode, 0, guest.log())


def end_on_sigterm():
    """Let SIGTERM end this process with all cleanup, as SIGINT does."""
    def end(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)


def main(*programs):
    """Run the tests of the calling script, or skip all of them."""
    end_on_sigterm()
    reason = missing(*programs)
    if reason:
        print(f'skipped: {reason}')
        sys.exit(SKIP)
    unittest.main(argv=[sys.argv[0], '-v', *sys.argv[1:]])
