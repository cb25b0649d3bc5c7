#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir run: checks first, gets out of the way, leaves nothing behind."""
import json
import os
import pty
import signal
import subprocess
import termios
import unittest

from common import (GUARD_S, QEMU_BIN_DIR, WEIR, Qmp, VmTest, need,
                    wait_for)

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")


REPLICATED = """name: replicated
filters:
  - weir-replication:
      disk-id: ${vm}-${disk}
      log: nbd+unix:///log?socket=%s
      sidecar: create:16M:%s/${disk}.sidecar
  - weir-cache:
      cache-file: create:64M:%s/${vm}-${disk}.cache
"""

ENCRYPTED = """name: encrypted
filters:
  - weir-encryption: {key-secret: '%s'}
"""


class WholePolicies(VmTest):
    """Filters with nodes of their own, and with secrets."""

    def test_two_disks_in_one_group(self):
        self.write("replicated.yaml", REPLICATED % (self.keeper("one", "two"),
                                                    self.dir, self.dir))
        disks = ["file=%s,format=raw,policy=replicated,id=%s"
                 % (self.disk(name + ".img", 8 << 20), name)
                 for name in ("one", "two")]
        process = self.start(*disks)
        self.assertIsNone(process.poll(), process)
        qmp = Qmp(self.qmp_path())

        def nodes():
            return [node for node in qmp.command("query-weir")
                    if node["driver"] == "weir-replication"]
        wait_for(lambda: [(n["status"], n["state"]) for n in nodes()] ==
                 [("streaming", "ok")] * 2, "both disks being replicated")
        self.assertEqual({n["disk-id"] for n in nodes()},
                         {"vm-one", "vm-two"})
        self.assertEqual(len({n["log"] for n in nodes()}), 1)
        self.assertEqual(len([node for node in qmp.command("query-weir")
                              if node["driver"] == "weir-cache"]), 2)
        qmp.close()
        code, status = self.status()
        self.assertEqual((code, [d["state"] for d in status]),
                         (0, ["compliant"] * 2))
        self.stop(process)
        sizes = {name: os.path.getsize(self.path(name))
                 for name in os.listdir(self.dir)
                 if name.endswith((".sidecar", ".cache"))}
        self.assertEqual(sizes, {
            "one.sidecar": 16 << 20, "two.sidecar": 16 << 20,
            "vm-one.cache": 64 << 20, "vm-two.cache": 64 << 20})

    def encrypted_disk(self):
        self.encrypted("secret.img")
        return "file=%s,format=raw,policy=encrypted" % self.path("secret.img")

    def test_secrets(self):
        disk = self.encrypted_disk()
        for secret, env in (
                ("file:%s" % self.path("key"), {}),
                ("credential:key", {"CREDENTIALS_DIRECTORY": self.dir}),
                ("command:/bin/cat '%s'" % self.path("key"), {})):
            with self.subTest(secret):
                self.write("encrypted.yaml", ENCRYPTED
                           % secret.replace("'", "''"))
                process = self.start(disk, env=dict(os.environ, **env))
                self.assertIsNone(process.poll(), process)
                self.stop(process)

    def test_secrets_that_are_none(self):
        disk = self.encrypted_disk()
        for secret, message in (
                ("file:/nonexistent/k", "weir: cannot read secret "
                 "/nonexistent/k: No such file or directory"),
                ("credential:key", "weir: there is no credential 'key': "
                 "CREDENTIALS_DIRECTORY is not set, which systemd does for a "
                 "unit with LoadCredential"),
                ("command:/bin/false", "weir: the command for secret "
                 "weir-disk0-key-secret, /bin/false: Child process exited "
                 "with code 1"),
                ("command:/bin/true", "weir: the command for secret "
                 "weir-disk0-key-secret printed nothing")):
            with self.subTest(secret):
                self.write("encrypted.yaml", ENCRYPTED % secret)
                self.weir_fails(message, *self.run_args(disk))
                self.assert_nothing_left()

    def test_file_that_cannot_be_made(self):
        self.write("replicated.yaml", REPLICATED % ("/s", "/nonexistent",
                                                    self.dir))
        self.weir_fails(
            "weir: cannot make /nonexistent/disk0.sidecar: No such file or "
            "directory", *self.run_args("file=%s,format=raw,policy=replicated"
                                        % self.disk()))
        self.assert_nothing_left()


class Refused(VmTest):
    """Nothing is started, and there is one message."""

    def refuses(self, message, *disks, args=(), code=1):
        self.weir_fails(message, *self.run_args(*disks), *args, code=code)
        self.assert_nothing_left()

    def test_no_disk(self):
        self.refuses("weir: found no disk, expected --disk DISK")

    def test_no_policy(self):
        args = self.run_args("file=/a,format=raw")
        self.weir_fails("weir: found no policy for disk disk0, expected "
                        "policy=NAME: no assignment in /none/assignments.d is "
                        "for disk disk0 of VM vm, and /none/weir.yaml has no "
                        "default-policy",
                        *args[:1], "--config-dir", "/none", *args[1:])
        self.assert_nothing_left()

    def test_missing_policy(self):
        self.refuses("weir: there is no policy 'obsrve' in %s (there is "
                     "observe)" % self.policies,
                     "file=%s,format=raw,policy=obsrve" % self.disk())

    def test_wrong_policy(self):
        path = self.write("wrong.yaml", "name: wrong\nfilters:\n"
                          "  - weir-inspect: {entropy-high: 9}\n")
        self.refuses("%s:3:5: weir-inspect refuses its options: weir-inspect: "
                     "entropy-high is 9, but must be 0 to 8 bits" % path,
                     "file=%s,format=raw,policy=wrong" % self.disk())

    def test_missing_disk(self):
        path = self.path("no.img")
        self.refuses("weir: disk disk0 (%s) cannot be used as raw: Could not "
                     "open '%s': No such file or directory" % (path, path),
                     "file=%s,format=raw,policy=observe" % path)

    def test_wrong_format(self):
        self.refuses("weir: disk disk0 (%s) cannot be used as qcow2: Image is "
                     "not in qcow2 format" % self.disk(),
                     "file=%s,format=qcow2,policy=observe" % self.disk())

    def test_unknown_format(self):
        self.refuses("weir: disk disk0 (%s) cannot be used as raww: Unknown "
                     "driver 'raww'" % self.disk(),
                     "file=%s,format=raww,policy=observe" % self.disk())

    def test_directory_as_disk(self):
        self.refuses("weir: disk disk0 (%s) cannot be used as raw: 'file' "
                     "driver requires '%s' to be a regular file"
                     % (self.dir, self.dir),
                     "file=%s,format=raw,policy=observe" % self.dir)

    def test_same_id(self):
        self.disk("b")
        self.refuses("weir: two disks have the id 'x'",
                     "file=%s,format=raw,policy=observe,id=x" % self.disk(),
                     "file=%s,format=raw,policy=observe,id=x"
                     % self.path("b"))

    def test_same_file(self):
        os.link(self.disk(), self.path("link"))
        self.refuses("weir: disks disk0 and disk1 are the same file %s"
                     % self.path("link"),
                     "file=%s,format=raw,policy=observe" % self.disk(),
                     "file=%s,format=raw,policy=observe" % self.path("link"))

    def test_daemonize(self):
        self.refuses("weir: -daemonize cannot be used: weir run stays with "
                     "its QEMU",
                     "file=%s,format=raw,policy=observe" % self.disk(),
                     args=["-daemonize"])

    def test_missing_emulator(self):
        self.weir_fails(
            "weir: cannot start /nonexistent/qemu: No such file or directory",
            *self.run_args("file=%s,format=raw,policy=observe"
                           % self.disk())[:-1],
            "--qemu", "/nonexistent/qemu", "--")
        self.assert_nothing_left()

    def test_wrong_name(self):
        self.weir_fails("weir: --name: found 'a/b', expected up to 64 "
                        "letters, digits, '.', '_' and '-', the first a "
                        "letter or digit",
                        *self.run_args("file=%s,format=raw,policy=observe"
                                       % self.disk(), name="a/b"))

    def test_qemu_dies_at_start(self):
        code, output, errors = self.weir(
            *self.run_args("file=%s,format=raw,policy=observe" % self.disk()),
            "-no-such-option")
        self.assertEqual((code, output), (1, ""))
        lines = errors.splitlines()
        self.assertRegex(lines[0], "qemu-system-x86_64: -no-such-option: "
                         "invalid option")
        self.assertEqual(lines[1:], [
            "weir: VM 'vm': %s/qemu-system-x86_64 ended at start, with exit "
            "code 1" % QEMU_BIN_DIR])
        self.assert_nothing_left()

    def test_qemu_is_killed_at_start(self):
        fake = self.path("qemu")
        with open(fake, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nkill -KILL $$\n")
        os.chmod(fake, 0o755)
        self.weir_fails(
            "weir: VM 'vm': %s ended at start, by signal 9: Killed" % fake,
            *self.run_args("file=%s,format=raw,policy=observe"
                           % self.disk())[:-1], "--qemu", fake, "--",
            code=137)
        self.assert_nothing_left()

    def test_chain_is_not_there(self):
        """An emulator that leaves the filter out does not get to run."""
        fake = self.path("qemu")
        with open(fake, "w", encoding="utf-8") as file:
            file.write("""#!/usr/bin/python3
import json, os, sys
args = sys.argv[1:]
for i, arg in enumerate(args):
    if args[i - 1] == "-blockdev" and json.loads(arg)["driver"] == "raw":
        args[i] = json.dumps(dict(json.loads(arg),
                                  file="weir-disk0-storage"))
os.execv("%s/qemu-system-x86_64", ["qemu"] + args)
""" % QEMU_BIN_DIR)
        os.chmod(fake, 0o755)
        code, output, errors = self.weir(
            *self.run_args("file=%s,format=raw,policy=observe"
                           % self.disk())[:-1], "--qemu", fake, "--",
            *self.QEMU_ARGS)
        self.assertEqual((code, output), (1, ""))
        self.assertEqual(errors.splitlines()[-1],
                         "weir: VM 'vm': disk disk0 has weir-disk0-storage "
                         "where node weir-disk0-inspect (weir-inspect) should "
                         "be")
        self.assert_nothing_left()


class Running(VmTest):
    def disk_arg(self, name="disk.img", more=""):
        return "file=%s,format=raw,policy=observe%s" % (self.disk(name), more)

    def end(self, process, code):
        process.communicate(timeout=GUARD_S)
        self.assertEqual(process.returncode, code)
        self.assert_nothing_left()

    def test_files(self):
        process = self.start(self.disk_arg())
        self.assertEqual(sorted(os.listdir(self.runtime)),
                         ["vm.json", "vm.qmp"])
        for path, mode in ((self.runtime, 0o700), (self.qmp_path(), 0o700)):
            self.assertEqual(os.stat(path).st_mode & 0o777, mode)
        with open(self.record_path(), encoding="utf-8") as file:
            record = json.load(file)
        self.assertEqual(record["disks"][0]["policy"], "observe")
        self.assertEqual(
            [n["options"]["driver"] for n in record["disks"][0]["wanted"]],
            ["raw", "weir-inspect", "file"])
        process.send_signal(signal.SIGTERM)
        self.end(process, 0)

    def test_default_name(self):
        process = self.start(self.disk_arg("my disk.qcow.img"),
                             name="my-disk.qcow", args=self.QEMU_ARGS)
        self.stop(process)
        process = subprocess.Popen(
            [WEIR] + self.run_args(self.disk_arg("my disk.qcow.img"),
                                   name=None) + self.QEMU_ARGS,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(self.stop, process)
        wait_for(lambda: self.guest_runs("my-disk.qcow"), "the guest")

    def test_signals_are_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                process = self.start(self.disk_arg())
                qemu = self.qemu_pid()
                process.send_signal(number)
                _, errors = process.communicate(timeout=GUARD_S)
                self.assertEqual(errors, "%s: terminating on signal %d from "
                                 "pid %d (%s)\n"
                                 % ("qemu-system-x86_64", number, process.pid,
                                    WEIR))
                self.assertEqual(process.returncode, 0)
                self.assertRaises(ProcessLookupError, os.kill, qemu, 0)
                self.assert_nothing_left()

    def test_qemu_is_killed(self):
        process = self.start(self.disk_arg())
        os.kill(self.qemu_pid(), signal.SIGKILL)
        self.end(process, 128 + signal.SIGKILL)

    def test_exit_code(self):
        process = self.start(
            self.disk_arg(), args=self.QEMU_ARGS + [
                "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                "-qmp", "unix:%s,server=on,wait=off" % self.path("own"),
                "-monitor", "none", "-qtest", "unix:%s,server=on,wait=off"
                % self.path("qtest")])
        import socket
        qtest = socket.socket(socket.AF_UNIX)
        qtest.connect(self.path("qtest"))
        qtest.sendall(b"outl 0xf4 0x15\n")
        self.end(process, 0x15 * 2 + 1)
        qtest.close()

    def test_quit_from_inside(self):
        process = self.start(self.disk_arg())
        qmp = Qmp(self.qmp_path())
        qmp.command("quit")
        qmp.close()
        self.end(process, 0)

    def test_standard_streams(self):
        """Standard input and output are QEMU's: a monitor answers there."""
        process = subprocess.Popen(
            [WEIR] + self.run_args(self.disk_arg()) + self.QEMU_ARGS
            + ["-chardev", "stdio,id=io,signal=off",
               "-mon", "chardev=io,mode=control"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop, process)
        self.assertIn("QMP", json.loads(process.stdout.readline()))
        process.stdin.write('{"execute":"qmp_capabilities"}\n')
        process.stdin.flush()
        output = process.stdout.readline()
        wait_for(lambda: self.guest_runs("vm"), "the guest")
        process.stdin.write('{"execute":"quit"}\n')
        output += process.communicate(timeout=GUARD_S)[0]
        self.assertEqual(process.returncode, 0)
        self.assertIn('{"return": {}}', output)
        self.assert_nothing_left()

    def test_stays_stopped_on_request(self):
        process = subprocess.Popen(
            [WEIR] + self.run_args(self.disk_arg()) + self.QEMU_ARGS + ["-S"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.addCleanup(self.stop, process)
        wait_for(lambda: os.path.exists(self.record_path()), "the record")
        qmp = Qmp(self.qmp_path())
        self.assertEqual(qmp.command("query-status")["status"], "prelaunch")
        qmp.command("cont")
        self.assertEqual(qmp.command("query-status")["status"], "running")
        qmp.close()

    def test_same_name_twice(self):
        self.start(self.disk_arg())
        self.weir_fails("weir: VM 'vm' runs already (process %d); --name "
                        "gives another name" % self.qemu_pid(),
                        *self.run_args(self.disk_arg("b")))
        self.assertTrue(os.path.exists(self.qmp_path()))

    def test_image_in_use(self):
        self.start(self.disk_arg())
        code, output, errors = self.weir(
            *self.run_args("file=%s,format=raw,policy=observe"
                           % self.path("disk.img"), name="b"))
        self.assertEqual((code, output), (1, ""))
        self.assertIn('Failed to get "write" lock', errors)
        self.assertEqual(errors.splitlines()[-1], "weir: VM 'b': %s/"
                         "qemu-system-x86_64 ended at start, with exit code 1"
                         % QEMU_BIN_DIR)
        self.assertEqual(sorted(os.listdir(self.runtime)),
                         ["vm.json", "vm.qmp"])

    def test_stale_record(self):
        """After kill -9 of both there is room for the name again."""
        process = self.start(self.disk_arg())
        qemu = self.qemu_pid()
        process.kill()
        process.wait(timeout=GUARD_S)
        os.kill(qemu, signal.SIGKILL)
        self.assertEqual(sorted(os.listdir(self.runtime)),
                         ["vm.json", "vm.qmp"])
        wait_for(lambda: self.status()[0] == 4, "the end of QEMU")
        self.assertEqual([(d["state"], d["reason"])
                          for d in self.status()[1]],
                         [("unknown", "QEMU has ended")])
        process = self.start(self.disk_arg())
        self.assertEqual(self.status()[0], 0)
        self.stop(process)
        self.assert_nothing_left()

    def test_devices(self):
        self.start(self.disk_arg("a", ",id=blk,iothread=io0"),
                   self.disk_arg("b", ",id=scsi,device=virtio-scsi,"
                                 "iothread=io1"),
                   self.disk_arg("c", ",id=ro,read-only=on,iothread=io0"),
                   self.disk_arg("d", ",id=free,device=none"))
        qmp = Qmp(self.qmp_path())
        devices = {d["qdev"]: d["inserted"] for d in
                   qmp.command("query-block")}
        self.assertEqual(sorted(devices), [
            "/machine/peripheral/blk/virtio-backend",
            "/machine/peripheral/ro/virtio-backend", "scsi"])
        self.assertTrue(devices["/machine/peripheral/ro/virtio-backend"]["ro"])
        self.assertEqual(devices["scsi"]["node-name"], "weir-scsi-format")
        self.assertEqual(sorted(t["id"] for t in
                                qmp.command("query-iothreads")),
                         ["io0", "io1"])
        self.assertIn("weir-free-format", [
            n["node-name"] for n in qmp.command("query-named-block-nodes")])
        qmp.close()
        code, disks = self.status()
        self.assertEqual([d["disk"] for d in disks],
                         ["blk", "scsi", "ro", "free"])
        self.assertEqual([d["state"] for d in disks[:3]], ["compliant"] * 3)

    def test_discard_reaches_the_file(self):
        """Nodes opened by reference inherit nothing: each must be told."""
        path = self.disk()
        with open(path, "r+b") as file:
            file.write(os.urandom(1 << 20))
        self.start("file=%s,format=raw,policy=observe,device=none" % path)
        qmp = Qmp(self.qmp_path())
        before = os.stat(path).st_blocks
        qmp.command("nbd-server-start", {"addr": {
            "type": "unix", "data": {"path": self.path("nbd")}}})
        qmp.command("block-export-add", {
            "id": "x", "type": "nbd", "writable": True, "name": "x",
            "node-name": "weir-disk0-format"})
        subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-io"), "-f", "raw", "-d",
             "unmap", "-c", "discard 0 1M",
             "nbd+unix:///x?socket=" + self.path("nbd")], check=True,
            stdout=subprocess.DEVNULL, timeout=GUARD_S)
        qmp.close()
        self.assertGreater(before, 0)
        self.assertEqual(os.stat(path).st_blocks, 0)


class Terminal(VmTest):
    """weir run on a terminal of its own."""

    def on_terminal(self, args):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)

        def setup():
            os.setsid()
            import fcntl
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        process = subprocess.Popen(
            [WEIR] + self.run_args("file=%s,format=raw,policy=observe"
                                   % self.disk()) + self.QEMU_ARGS + args,
            stdin=slave, stdout=slave, stderr=slave, preexec_fn=setup)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_for(lambda: self.guest_runs("vm"), "the guest")
        return process, master, slave

    def test_interrupt_key(self):
        process, master, slave = self.on_terminal([])
        os.write(master, b"\x03")
        self.assertEqual(process.wait(timeout=GUARD_S), 0)
        os.close(slave)
        output = os.read(master, 4096)
        self.assertEqual(output.count(b"terminating on signal 2"), 1)
        self.assert_nothing_left()

    def test_terminal_is_restored(self):
        process, _, slave = self.on_terminal(
            ["-chardev", "stdio,id=io", "-serial", "chardev:io"])
        raw = termios.tcgetattr(slave)
        self.assertFalse(raw[3] & termios.ECHO)
        os.kill(self.qemu_pid(), signal.SIGKILL)
        self.assertEqual(process.wait(timeout=GUARD_S), 137)
        self.assertTrue(termios.tcgetattr(slave)[3] & termios.ECHO)
        os.close(slave)


if __name__ == "__main__":
    unittest.main()
