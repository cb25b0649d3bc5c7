#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What together loses data is refused, with the filters of our QEMU."""
import os
import unittest

from common import QEMU_BIN_DIR, VmTest, need

need("qemu-storage-daemon", "qemu-img", "qemu-system-x86_64")

SOURCE = """name: p
filters:
  - weir-replication:
      disk-id: ${disk}
      log: nbd+unix:///log?socket=/s
%s  - weir-cache:
      cache-file: %s
"""


class Policies(VmTest):
    def refuses(self, text, *messages):
        path = self.write("p.yaml", text)
        lines = "".join("%s:%s\n" % (path, m) for m in messages)
        self.assertEqual(self.weir("policy", "check", "--qemu-bin-dir",
                                   QEMU_BIN_DIR, path), (1, "", lines))

    def accepts(self, text):
        path = self.write("p.yaml", text)
        self.weir_ok("policy", "check", "--qemu-bin-dir", QEMU_BIN_DIR, path)

    def test_cache_that_is_made_under_replication(self):
        text = SOURCE % ("", "create:1G:/c")
        self.refuses(text, "7:19: found a write-back cache whose file is made "
                     "when it is missing, under a replication without "
                     "sidecar: were the file lost, what the disk lacks then "
                     "would be replicated as old; expected a sidecar, mode "
                     "write-through, or a file without 'create:'")
        self.accepts(text + "      mode: write-through\n")
        self.accepts(SOURCE % ("", "/c"))
        self.accepts(SOURCE % ("      sidecar: /x\n", "create:1G:/c"))

    def test_two_nodes_in_one_place(self):
        self.refuses(SOURCE % ("      sidecar: create:16M:/x\n", "/x"),
                     "8:19: found '/x' for 'cache-file', expected a place of "
                     "its own (%s/p.yaml:6 has it too)" % self.policies)

    def test_lose_dirty(self):
        text = "name: p\nfilters:\n  - weir-cache: {cache-file: /c, %s}\n"
        self.refuses(text % "lose-dirty: on",
                     "3:46: found 'lose-dirty' in a policy, where each start "
                     "would drop what a damaged cache, or that of another "
                     "disk, has not written back; expected it only in one "
                     "start by hand")
        self.accepts(text % "lose-dirty: off")

    def test_plaintext_on_the_network(self):
        text = ("name: p\nallow-before-encryption: true\nfilters:\n"
                "  - weir-replication: {disk-id: d, log: '%s'}\n"
                "  - weir-encryption: {key-secret: k}\n")
        for log in ("nbd://h/log", "iscsi://h/t/0",
                    "nbd://127.example.com/log", "nbd://localhost.example/l",
                    "nbd://[::2]:9/log",
                    "iscsi://127.0.0.1@h/t/0?password-secret=p"):
            self.refuses(text % log, "4:41: found '%s' for 'log' of a filter "
                         "above encryption: what it sends could be read on "
                         "the network; expected nbds" % log)
        for log in ("nbds://h/log?tls-creds=t", "nbd://localhost/log",
                    "nbd://127.0.0.2:9/log",
                    "nbd+unix:///log?socket=/s", "iscsi://[::1]/t/0",
                    "iscsi://u@localhost/t/0?password-secret=p"):
            self.accepts(text % log)


class Disks(VmTest):
    def compile(self, policy, disk):
        path = self.write("p.yaml", policy)
        code, _, errors = self.weir("compile", "--qemu-bin-dir", QEMU_BIN_DIR,
                                    "--policies", self.policies, "--policy",
                                    "p", "--disk", disk)
        return code, errors.replace(path, "P")

    def test_own_file(self):
        disk = self.disk()
        os.link(disk, self.path("link"))
        self.assertEqual(self.compile(
            "name: p\nfilters:\n  - weir-cache: {cache-file: %s}\n"
            % self.path("link"), "file=%s,format=raw" % disk),
            (1, "P:3:5: disk disk0: found the disk's own file %s, expected "
             "another for 'weir-cache.cache-file'\n" % disk))

    def test_no_flush(self):
        policy = "name: p\nfilters:\n  - weir-cache: {cache-file: /c%s}\n"
        disk = "file=/a,format=raw,cache.no-flush=on"
        self.assertEqual(self.compile(policy % "", disk), (
            1, "P:3:5: disk disk0: found a disk with cache.no-flush=on: after "
            "a power cut it has not got what the cache takes for written, "
            "expected cache.no-flush=off for 'weir-cache.mode'\n"))
        self.assertEqual(self.compile(policy % ", mode: write-around", disk),
                         (0, ""))

    def run_two(self, policy):
        path = self.write("p.yaml", policy)
        code, _, errors = self.weir(*self.run_args(*[
            "file=%s,format=raw,policy=p,id=%s,device=none"
            % (self.disk(name), name) for name in ("a", "b")]),
            *self.QEMU_ARGS)
        self.assert_nothing_left()
        return code, errors.replace(path, "P")

    def test_one_cache_for_two_disks(self):
        self.assertEqual(self.run_two(
            "name: p\nfilters:\n  - weir-cache: {cache-file: /c}\n"),
            (1, "P:3:5: disk b: found /c, which another disk of the VM has, "
             "expected one of its own (${disk} makes a difference) for "
             "'weir-cache.cache-file'\n"))

    def test_one_name_for_two_disks(self):
        self.assertEqual(self.run_two(
            (SOURCE % ("", "/${disk}")).replace("${disk}\n", "d\n", 1)),
            (1, "P:3:5: disk b: found 'd', which another disk has in the same "
             "log, expected another (${disk} makes a difference) for "
             "'weir-replication.disk-id'\n"))

    def run_with_sidecar(self, data):
        """Its sidecar is there, but not its cache: exit code, errors, and
        whether a cache was made."""
        sidecar, cache = self.path("x"), self.path("c")
        self.write("p.yaml", SOURCE % ("      sidecar: create:16M:%s\n"
                                       % sidecar, "create:8M:" + cache))
        with open(sidecar, "wb") as file:
            file.write(data)
            file.truncate(16 << 20)
        args = self.run_args("file=%s,format=raw,policy=p" % self.disk())
        code, _, errors = self.weir(*args[:1], "--qemu", "/bin/false",
                                    *args[1:])
        self.assert_nothing_left()
        return code, errors, os.path.exists(cache)

    def test_cache_that_was_lost(self):
        self.assertEqual(self.run_with_sidecar(b"\0" * 4096 + b"x"), (
            1, "weir: disk disk0: found sidecar %s, which has been in use, "
            "but not %s, the file of a write-back cache: if that was lost, "
            "the disk lacks what the log has; expected both (if the disk "
            "never had a cache, make the file with truncate; if it had, fail "
            "over to the replica)\n" % (self.path("x"), self.path("c")),
            False))

    def test_cache_that_is_new(self):
        self.assertEqual(self.run_with_sidecar(b""), (
            1, "weir: VM 'vm': /bin/false ended at start, with exit code 1\n",
            True))


if __name__ == "__main__":
    unittest.main()
