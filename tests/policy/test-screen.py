#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir top on a terminal, which it leaves as it was however it ends."""
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
import unittest

from common import GUARD_S, WEIR, WeirTest, wait_for

ENTER = b"\033[?1049h\033[?25l"
LEAVE = b"\033[?25h\033[?1049l"


def heed_signals():
    """Also those that a shell has ignored in what it runs in background."""
    for number in signal.SIGINT, signal.SIGQUIT, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)


class Screen(WeirTest):
    def setUp(self):
        super().setUp()
        os.mkdir(self.runtime)
        self.master, self.slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.addCleanup(os.close, self.slave)
        self.resize(24, 100)
        self.before = termios.tcgetattr(self.slave)
        self.output = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ,
                    struct.pack("HHHH", rows, columns, 0, 0))

    def record(self, name, count=1, pid=1, start=0, qmp="/x"):
        """Of a machine that has ended, unless pid and start are of one."""
        with open(self.record_path(name), "w", encoding="utf-8") as file:
            file.write('{"pid": %d, "start-time": %d, "qmp": "%s", "disks": ['
                       % (pid, start, qmp))
            file.write(", ".join(
                '{"id": "d%d", "file": "f", "policy": "p", "wanted": '
                '[{"role": "format", "driver": "raw", "node-name": "n", '
                '"options": {}}]}' % i for i in range(count)) + "]}")

    def record_path(self, name):
        return os.path.join(self.runtime, name + ".json")

    def top(self, *args):
        process = subprocess.Popen(
            [WEIR, "top", "--runtime-dir", self.runtime] + list(args),
            stdin=self.slave, stdout=self.slave, stderr=self.slave,
            env=dict(os.environ, LC_ALL="C.UTF-8"), start_new_session=True,
            preexec_fn=heed_signals)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def read(self):
        while select.select([self.master], [], [], 0.05)[0]:
            self.output += os.read(self.master, 65536)
        return self.output

    def wait_for_output(self, text):
        wait_for(lambda: text in self.read(), "%r in %r" % (text, self.output))

    def started(self, *args, until=b"q quit"):
        process = self.top(*args)
        self.wait_for_output(until)
        self.assertTrue(self.output.startswith(ENTER))
        self.assertNotEqual(termios.tcgetattr(self.slave)[3]
                            & (termios.ICANON | termios.ECHO),
                            self.before[3] & (termios.ICANON | termios.ECHO))
        return process

    def assert_left(self):
        self.read()
        self.assertTrue(self.output.endswith(LEAVE), self.output[-80:])
        self.assertEqual(self.output.count(ENTER), self.output.count(LEAVE))
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_quit(self):
        self.record("vm", 2)
        process = self.started()
        self.assertIn(b"1 VMs, 2 disks: 0 compliant, 0 non-compliant, "
                      b"0 out-of-date, 2 unknown, 0 not-applicable",
                      self.output)
        self.assertIn(b"by state ", self.output)
        for key, text in ((b">", b"by reads "), (b"<", b"by state "),
                          (b"r", b"by state, reverse ")):
            self.output = b""
            os.write(self.master, key)
            self.wait_for_output(text)
        os.write(self.master, b"q")
        self.assertEqual(process.wait(GUARD_S), 0)
        self.output = ENTER + self.output
        self.assert_left()

    def test_each_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP,
                       signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV,
                       signal.SIGUSR1):
            with self.subTest(number):
                self.output = b""
                process = self.started()
                process.send_signal(number)
                self.assertEqual(process.wait(GUARD_S), -number)
                self.assert_left()

    def test_error_while_it_runs(self):
        self.record("vm")
        process = self.started("vm", "--interval", "0.1")
        os.unlink(self.record_path("vm"))
        self.assertEqual(process.wait(GUARD_S), 1)
        self.wait_for_output(b"weir: there is no VM 'vm'")
        self.output = self.output[:self.output.index(b"weir: there is")]
        self.assert_left()

    def test_keys_while_a_vm_does_not_answer(self):
        """The machine is this test, which says nothing on the socket."""
        path = os.path.join(self.runtime, "vm.qmp")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(8)
        with open("/proc/self/stat", encoding="ascii") as file:
            start = int(file.read().rsplit(")", 1)[1].split()[19])
        self.record("vm", pid=os.getpid(), start=start, qmp=path)
        process = self.started("--timeout", "2", "--interval", "0.1")
        self.assertIn(b"1 unknown", self.output)
        time.sleep(0.3)
        begin = time.monotonic()
        self.output = b""
        os.write(self.master, b">")
        self.wait_for_output(b"by reads ")
        os.write(self.master, b"q")
        self.assertEqual(process.wait(GUARD_S), 0)
        self.assertLess(time.monotonic() - begin, 1.5)
        self.output = ENTER + self.output
        self.assert_left()

    def test_error_at_first(self):
        process = self.top("vm")
        self.assertEqual(process.wait(GUARD_S), 1)
        self.assertTrue(self.read().startswith(b"weir: there is no VM 'vm'"))

    def test_stopped_and_continued(self):
        process = self.started()
        process.send_signal(signal.SIGTSTP)

        def is_stopped():
            with open("/proc/%d/stat" % process.pid, encoding="ascii") as f:
                return f.read().rsplit(")", 1)[1].split()[0] == "T"
        wait_for(is_stopped, "the stop")
        self.assert_left()
        self.output = b""
        process.send_signal(signal.SIGCONT)
        self.wait_for_output(b"q quit")
        self.assertTrue(self.output.startswith(ENTER))
        os.write(self.master, b"q")
        self.assertEqual(process.wait(GUARD_S), 0)
        self.assert_left()

    def test_only_what_fits(self):
        self.record("vm", 50)
        self.resize(10, 30)
        process = self.started("--interval", "3600", until=b"unknown")
        shown = self.output[len(ENTER):]
        lines = re.sub(rb"\033\[\??[0-9]*[A-Za-z]", b"", shown)
        lines = [line.strip(b"\r") for line in lines.split(b"\n")]
        self.assertEqual(len(lines), 10)
        self.assertLessEqual(max(map(len, lines)), 30, lines)
        self.output = b""
        self.resize(20, 100)
        process.send_signal(signal.SIGWINCH)
        self.wait_for_output(b"REASON")
        self.assertEqual(self.output.count(b"\r\n"), 19)
        os.write(self.master, b"q")
        self.assertEqual(process.wait(GUARD_S), 0)

    def test_hang_up(self):
        """Without a keyboard it goes on, and does not spin."""
        process = subprocess.Popen(
            [WEIR, "top", "--runtime-dir", self.runtime],
            stdin=subprocess.DEVNULL, stdout=self.slave, stderr=self.slave,
            start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.wait_for_output(b"q quit")
        time.sleep(0.3)
        with open("/proc/%d/stat" % process.pid, encoding="ascii") as file:
            ticks = sum(map(int, file.read().rsplit(")", 1)[1].split()[11:13]))
        self.assertLess(ticks, 10)
        process.terminate()
        self.assertEqual(process.wait(GUARD_S), -signal.SIGTERM)
        self.assert_left()


class Batch(WeirTest):
    def test_a_table_for_each_interval(self):
        process = subprocess.Popen(
            [WEIR, "top", "--interval", "0.1", "--runtime-dir", self.runtime],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        lines = [process.stdout.readline() for _ in range(3)]
        self.assertTrue(lines[0].startswith("VM  DISK"), lines)
        self.assertEqual(lines[1:], ["\n", lines[0]])
        process.stdout.close()
        self.assertEqual(process.wait(GUARD_S), 1)
        self.assertEqual(process.stderr.read(), "weir: cannot write to "
                         "standard output: Broken pipe\n")

    def test_usage(self):
        self.weir_fails(
            "weir: top: found column 'x', expected one of host, vm, disk, "
            "state, reads, writes, read-bytes, write-bytes, latency, rpo, "
            "dirty, replication, reason", "top", "--sort", "x", code=2)
        self.weir_fails("weir: top: found interval 0, expected 0.1 to 3600 "
                        "seconds", "top", "--interval", "0", code=2)
        self.weir_fails("weir: top: found 'b', expected one VM or --qmp",
                        "top", "a", "b", code=2)


if __name__ == "__main__":
    unittest.main()
