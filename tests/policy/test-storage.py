#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of storage, against real images and what the kernel says of them."""
import ctypes
import os
import shutil
import struct
import subprocess
import unittest

from common import QEMU_BIN_DIR, WEIR, VmTest, need

need("qemu-storage-daemon", "qemu-img", "qemu-system-x86_64")

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38
SYS_FALLOCATE, SYS_OPENAT = 285, 257
EOPNOTSUPP, EINVAL = 95, 22
O_DIRECT = 0o40000


def refuse(number, errno, argument=None, bits=0):
    """Let the kernel refuse a system call (with @bits in @argument) from now
    on: what a file system does that cannot do it."""
    ret = 0x00050000 | errno
    code = [(0x20, 0, 0, 0),                        # load the number
            (0x15, 0, 1 if argument is None else 3, number)]
    if argument is not None:
        code += [(0x20, 0, 0, 16 + 8 * argument),
                 (0x45, 0, 1, bits)]                # any of the bits?
    code += [(0x06, 0, 0, ret), (0x06, 0, 0, 0x7fff0000)]
    text = b"".join(struct.pack("HBBI", *c) for c in code)
    buffer = ctypes.create_string_buffer(text, len(text))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)

    def install():
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or \
                libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0):
            os._exit(99)
    install.keep = buffer
    return install


class Rules(VmTest):
    def policy(self, rules):
        return self.write("p.yaml", "name: p\nfilters: []\nstorage:\n  %s\n"
                          % rules)

    def check(self, rules, disk, preexec=None):
        """Exit code and errors of policy check, with short names."""
        path = self.policy(rules)
        result = subprocess.run(
            [WEIR, "policy", "check", "--qemu-bin-dir",
             QEMU_BIN_DIR, "--disk", disk, path], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=preexec, check=False, timeout=60)
        return result.returncode, result.stdout.replace(
            path, "P").replace(self.dir, "D")

    def raw(self, size=1 << 20):
        return "file=%s,format=raw" % self.disk(size=size)

    def refused(self, place, found, expected, rule, disk="disk.img"):
        return 1, ("P:%s: disk disk0 (D/%s): found %s, expected %s for "
                   "'storage.%s'\n" % (place, disk, found, expected, rule))

    def test_all_met(self):
        disk = self.raw()
        with open(self.path("disk.img"), "r+b") as file:
            file.write(b"x" * (1 << 20))
        self.assertEqual(self.check("driver: [nbd, file]\n  discard: required"
                                    "\n  direct-io: required\n  min-size: 1M",
                                    disk), (0, ""))
        with open(self.path("disk.img"), "rb") as file:
            self.assertEqual(file.read(), b"x" * (1 << 20))

    def test_driver(self):
        self.assertEqual(self.check("driver: [host_device]", self.raw()),
                         self.refused("4:11", "file", "host_device",
                                      "driver"))
        self.assertEqual(self.check("driver: [nbd, host_device]", self.raw()),
                         self.refused("4:11", "file",
                                      "one of nbd, host_device", "driver"))

    def test_size(self):
        self.assertEqual(self.check("min-size: 2M", self.raw()),
                         self.refused("4:13", "1048576 bytes",
                                      "at least 2097152", "min-size"))

    def test_size_is_the_guests(self):
        image = self.path("disk.qcow2")
        subprocess.run([os.path.join(QEMU_BIN_DIR, "qemu-img"), "create", "-q",
                        "-f", "qcow2", image, "1G"], check=True)
        disk = "file=%s,format=qcow2" % image
        self.assertEqual(self.check("min-size: 1G", disk), (0, ""))
        self.assertEqual(self.check("min-size: 1048577K", disk), self.refused(
            "4:13", "1073741824 bytes", "at least 1073742848", "min-size",
            disk="disk.qcow2"))

    def test_discard(self):
        self.assertEqual(self.check("discard: required", self.raw()), (0, ""))
        self.assertEqual(
            self.check("discard: required", self.raw() + ",discard=ignore"),
            self.refused("4:12", "a disk with discard=ignore",
                         "discards to work", "discard"))
        no_holes = refuse(SYS_FALLOCATE, EOPNOTSUPP)
        self.assertEqual(
            self.check("discard: required", self.raw(), no_holes),
            self.refused("4:12", "a file system that does not punch holes "
                         "(Operation not supported)", "discards to work",
                         "discard"))
        self.assertEqual(self.check("discard: any", self.raw(), no_holes),
                         (0, ""))

    def test_direct_io(self):
        no_direct = refuse(SYS_OPENAT, EINVAL, 2, O_DIRECT)
        self.assertEqual(self.check("direct-io: required", self.raw()),
                         (0, ""))
        self.assertEqual(
            self.check("direct-io: required", self.raw(), no_direct),
            self.refused("4:14", "that it cannot be opened with O_DIRECT "
                         "(Invalid argument)", "direct I/O to be possible",
                         "direct-io"))

    def test_device(self):
        if not shutil.which("losetup"):
            self.skipTest("no losetup")
        self.disk("disk.img", 2 << 20)
        result = subprocess.run(
            ["losetup", "--find", "--show", self.path("disk.img")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode:
            self.skipTest(result.stdout.strip())
        device = result.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", device],
                        check=True)
        disk = "file=%s,format=raw" % device
        self.assertEqual(self.check(
            "driver: [host_device]\n  discard: required\n  direct-io: "
            "required\n  min-size: 2M", disk), (0, ""))
        self.assertEqual(self.check("driver: [file]", disk), (
            1, "P:4:11: disk disk0 (%s): found host_device, expected file for "
            "'storage.driver'\n" % device))

    def test_all_at_once(self):
        code, output = self.check("min-size: 2M\n  driver: [nbd]", self.raw())
        self.assertEqual((code, [line.split()[-1] for line in
                                 output.splitlines()]),
                         (1, ["'storage.driver'", "'storage.min-size'"]))

    def test_disk_in_use(self):
        self.policy("min-size: 1M")
        self.start(self.raw() + ",policy=p")
        self.assertEqual(self.check("min-size: 1M\n  discard: required",
                                    "file=%s,format=raw"
                                    % self.path("disk.img")), (0, ""))

    def test_run_refuses(self):
        path = self.policy("min-size: 2M")
        self.weir_fails("%s:4:13: disk disk0 (%s): found 1048576 bytes, "
                        "expected at least 2097152 for 'storage.min-size'"
                        % (path, self.disk()), *self.run_args(
                            self.raw() + ",policy=p"), *self.QEMU_ARGS)
        self.assert_nothing_left()


class Wrong(VmTest):
    def refuses(self, rules, message):
        path = self.write("p.yaml", "name: p\nfilters: []\nstorage: %s\n"
                          % rules)
        self.weir_fails("%s:%s" % (path, message), "policy", "check",
                        "--qemu-bin-dir", QEMU_BIN_DIR, path)

    def test_rules(self):
        self.refuses("{driver: []}", "3:19: found no driver, expected at "
                     "least one for 'storage.driver'")
        self.refuses("{driver: [ssh]}", "3:20: found 'ssh', expected one of "
                     "file, host_device, nbd, iscsi, rbd for "
                     "'storage.driver'")
        self.refuses("{driver: file}", "3:19: found 'file', expected a list "
                     "for 'storage.driver'")
        self.refuses("{discard: yes}", "3:20: found 'yes', expected one of "
                     "any, required for 'storage.discard'")
        self.refuses("{min-size: 10X}", "3:21: found size '10X', expected a "
                     "number of bytes up to 1024T, also with K, M, G or T for "
                     "'storage.min-size'")
        self.refuses("{discrad: any}", "3:11: found unknown option 'discrad' "
                     "of 'storage', expected one of driver, discard, "
                     "direct-io, min-size; did you mean 'discard'?")


if __name__ == "__main__":
    unittest.main()
