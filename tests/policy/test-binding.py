#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk is not started without the filters that have what it lacks, whatever
has become of its VM, the VM's record and the host."""
import json
import os
import shutil
import signal
import subprocess
import unittest

from common import GUARD_S, QEMU_BIN_DIR, need, wait_for
from changetest import MIB, Change

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

PLUGINS = os.path.join(os.environ["WEIR_MESON_BUILD"], "tests", "plugins")
CACHED = """  - weir-cache:
      cache-file: create:4M:%s
      dirty-age: 3600000
      idle: 3600000
"""
BLOCK = 65536


class Binding(Change):
    def setUp(self):
        super().setUp()
        self.cache = self.path("disk.cache")
        self.policy("cached", CACHED % self.cache)

    def write_block(self, byte=1):
        client = self.connect()
        client.pwrite(bytes([byte]) * BLOCK, 0)
        client.flush()
        client.shutdown()

    def on_disk(self, byte):
        with open(self.image, "rb") as file:
            self.assertEqual(file.read(BLOCK), bytes([byte]) * BLOCK)

    def seen(self, byte):
        client = self.connect()
        self.assertEqual(client.pread(BLOCK, 0), bytes([byte]) * BLOCK)
        client.shutdown()

    def kill(self):
        """As a host that loses its power: nobody can tidy anything up."""
        os.kill(self.process.pid, signal.SIGSTOP)
        pid = self.qemu_pid()
        os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate(timeout=GUARD_S)
        wait_for(lambda: not self.lives(pid), "the end of QEMU")

    @staticmethod
    def lives(pid):
        try:
            with open("/proc/%d/stat" % pid, encoding="utf-8") as file:
                return file.read().rsplit(") ", 1)[1][0] != "Z"
        except FileNotFoundError:
            return False

    def reboot(self):
        self.kill()
        shutil.rmtree(self.runtime)

    def run_refused(self, message, policy="none", more="", image=None):
        image = image or self.image
        result = self.weir(*self.run_args(
            "file=%s,format=%s,policy=%s,device=none%s"
            % (image, self.FORMAT, policy, more)), *self.QEMU_ARGS)
        self.assertEqual(result, (1, "", "weir: disk disk0 (%s) was under "
                                  "policy %s\n" % (image, message)))

    def lacks(self, image=None):
        image = image or self.image
        return ("'cached', and its cache %s has blocks that were not written "
                "back; policy 'none' leaves that out: start it under 'cached', "
                "or write them back with 'weir binding drain %s', or lose them "
                "with 'weir binding release %s'" % (self.cache, image, image))

    def bindings(self):
        found = json.loads(self.weir_ok("binding", "list", "--json"))
        return [(b["disk"], b["filter"], b["at"]) for b in found]


class Cache(Binding):
    def test_attached_and_killed(self):
        self.vm()
        self.change("attach", "--policy", "cached")
        self.write_block()
        self.kill()
        self.run_refused(self.lacks())
        self.vm("cached")
        self.seen(1)

    def test_attached_and_the_host_rebooted(self):
        self.vm()
        self.change("attach", "--policy", "cached")
        self.write_block()
        self.reboot()
        self.on_disk(0)
        self.run_refused(self.lacks())
        self.on_disk(0)
        self.vm("cached")
        self.seen(1)

    def test_ended(self):
        """Also if it was its policy from the start, and all went well."""
        self.vm("cached")
        self.write_block()
        self.stop(self.process)
        self.run_refused(self.lacks())
        self.run_refused(self.lacks(), more=",read-only=on")
        os.rename(self.image, self.path("renamed"))
        self.run_refused(self.lacks(self.path("renamed")),
                         image=self.path("renamed"))
        os.rename(self.path("renamed"), self.image)
        self.vm("cached")
        self.seen(1)

    def test_another_cache(self):
        self.vm("cached")
        self.write_block()
        self.stop(self.process)
        self.policy("none", CACHED % self.path("other.cache"))
        self.run_refused(self.lacks())
        self.assertFalse(os.path.exists(self.path("other.cache")))

    def test_drained(self):
        self.vm("cached")
        self.write_block()
        code, output, errors = self.drain()
        self.assertEqual((code, output), (1, ""))
        self.assertIn("lock", errors)       # the VM has it
        self.reboot()
        self.on_disk(0)
        self.assertEqual(self.drain(), (
            0, "disk %s has all of what its caches had\n" % self.image, ""))
        self.on_disk(1)
        self.assertEqual(self.bindings(), [])
        self.assertEqual(self.drain(), (
            1, "", "weir: disk %s is bound to no filter\n" % self.image))
        self.vm()
        self.seen(1)

    def drain(self):
        return self.weir("binding", "drain", "--qemu-bin-dir", QEMU_BIN_DIR,
                         self.image)

    def test_released(self):
        self.vm("cached")
        self.write_block()
        self.assertEqual(self.weir("binding", "release", self.image), (
            1, "", "weir: disk %s is in use\n" % self.image))
        self.reboot()
        self.weir_ok("binding", "release", self.image)
        self.vm()
        self.seen(0)
        self.write_block(2)
        self.stop(self.process)
        # it does not come back
        self.vm("cached")
        self.seen(2)

    def test_nothing_to_lose(self):
        self.vm("cached")
        self.assertEqual(self.bindings(),
                         [(self.image, "weir-cache", "create:4M:" +
                           self.cache)])
        self.stop(self.process)
        self.assertEqual(self.bindings(), [])
        os.unlink(self.cache)
        self.vm()

    def test_detached_and_killed(self):
        self.vm()
        self.change("attach", "--policy", "cached")
        self.write_block()
        self.change("detach")
        self.reboot()
        self.assertEqual(self.bindings(), [])
        self.vm()
        self.seen(1)

    def test_noted_before_it_is_attached(self):
        self.vm()
        seen = []
        proxy = self.proxied()
        proxy.act = lambda *_: seen.append(self.bindings()) or True
        self.change("attach", "--policy", "cached")
        self.assertEqual([[b[1] for b in one] for one in seen],
                         [["weir-cache"]])

    def test_attach_is_undone(self):
        """A disk is not bound to what it has not got."""
        self.vm("cached")
        self.write_block()
        self.kill()
        self.forget_bindings()
        self.vm()
        code, _, errors = self.weir(*self.args("attach", "--policy", "cached"))
        self.assertEqual(code, 1)
        self.assertIn("everything is as before", errors)
        self.assertEqual(self.bindings(), [])

    def test_file_is_gone(self):
        """It is not made anew as if the disk had all."""
        self.vm("cached")
        self.write_block()
        self.reboot()
        os.unlink(self.cache)
        gone = ("'cached', and its cache %s may have had blocks of its own, "
                "and is missing: bring it back, or go on without what it had "
                "with 'weir binding release %s'"
                % (self.cache, self.image))
        self.run_refused(gone, "cached")
        self.assertFalse(os.path.exists(self.cache))
        self.weir_ok("binding", "release", self.image)
        self.vm("cached")

    def test_cannot_be_noted(self):
        with open(self.path("state"), "w", encoding="utf-8"):
            pass
        why = ("cannot make %s/bindings, where it is noted what a disk must "
               "not be used without: Not a directory\n" % self.path("state"))
        self.vm()
        self.change_fails("weir: VM 'vm', disk disk0: " + why[:-1], "attach",
                          "--policy", "cached")
        self.stop(self.process)
        result = self.weir(*self.run_args(
            "file=%s,format=raw,policy=cached" % self.image), *self.QEMU_ARGS)
        self.assertEqual(result, (1, "", "weir: " + why))


class Format(Cache):
    """The cache is above a format with a header of its own."""

    FORMAT = "qcow2"

    def setUp(self):
        super().setUp()
        self.policy("cached", CACHED % self.cache + "    place: disk\n")

    def on_disk(self, byte):
        out = subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-io"), "-r", "-f", "qcow2", "-c",
             "read -P %d 0 64k" % byte, self.image], check=True, text=True,
            stdout=subprocess.PIPE, timeout=GUARD_S).stdout
        self.assertNotIn("Pattern verification failed", out)

    # one test of them is about the format
    test_attached_and_killed = test_ended = test_another_cache = None
    test_attached_and_the_host_rebooted = test_released = None
    test_nothing_to_lose = test_detached_and_killed = None
    test_file_is_gone = test_cannot_be_noted = test_attach_is_undone = None
    test_noted_before_it_is_attached = None


class Replication(Binding):
    def test_left_out(self):
        sidecar = self.path("sidecar")
        self.policy("replicated", """  - weir-replication:
      disk-id: ${vm}-${disk}
      log: nbd+unix:///log?socket=%s
      sidecar: create:4M:%s
""" % (self.keeper("disk0"), sidecar))
        self.vm()
        self.change("attach", "--policy", "replicated")
        self.write_block()
        wait_for(lambda: [(f["status"], f["queued-bytes"])
                          for f in self.qmp("query-weir")] ==
                 [("streaming", 0)], "the log having all")
        self.reboot()
        self.run_refused(
            "'replicated', and the sidecar %s of its replication would not "
            "know what is written; policy 'none' leaves that out: start it "
            "under 'replicated', or end the replication with 'weir binding "
            "release %s': its next one begins with a copy of all of the disk"
            % (sidecar, self.image))
        # who only reads misses nothing, and does not make it forgotten
        self.process = self.start("file=%s,format=raw,policy=none,device=none,"
                                  "read-only=on" % self.image)
        self.stop(self.process)
        self.assertEqual(len(self.bindings()), 1)
        self.vm("replicated")
        self.stop(self.process)
        self.weir_ok("binding", "release", self.image)
        with open(sidecar, "rb") as file:
            self.assertEqual(file.read(8192), bytes(8192))
        self.vm()


class Plugin(Binding):
    def test_left_out(self):
        """What it has made of the data, the guest cannot read."""
        plugin = os.path.join(PLUGINS, "mask.so")
        self.policy("masked", "  - weir-plugin: {plugin: %s}\n" % plugin)
        self.vm("masked")
        self.write_block()
        self.reboot()
        self.run_refused(
            "'masked', and its data is as weir-plugin:mask has changed it; "
            "policy 'none' leaves that out: start it under 'masked', or do "
            "without it from now on with 'weir binding release %s'"
            % self.image)
        self.assertEqual(self.bindings(),
                         [(self.image, "weir-plugin:mask", None)])
        self.vm("masked")
        self.seen(1)
        self.stop(self.process)
        self.weir_ok("binding", "release", self.image)
        self.vm()

    def test_data_in_a_sidecar(self):
        sidecar = self.path("sidecar")
        self.policy("late", "  - weir-plugin: {plugin: %s, sidecar: create:1M:"
                    "%s}\n" % (os.path.join(PLUGINS, "late.so"), sidecar))
        self.vm("late")
        self.write_block()
        self.reboot()
        self.run_refused(
            "'late', and the sidecar create:1M:%s of weir-plugin:late may have "
            "data that the disk lacks; policy 'none' leaves that out: start it "
            "under 'late', or do without it from now on with 'weir binding "
            "release %s'" % (sidecar, self.image))
        self.vm("late")

    def test_one_that_does_neither(self):
        self.policy("probed", "  - weir-plugin: {plugin: %s}\n"
                    % os.path.join(PLUGINS, "probe.so"))
        self.vm("probed")
        self.reboot()
        self.assertEqual(self.bindings(), [])
        self.vm()


class Encryption(Binding):
    def test_left_out(self):
        key = self.path("key")
        with open(key, "w", encoding="utf-8") as file:
            file.write("open sesame")
        os.chmod(key, 0o600)
        subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-img"), "create", "-q", "-f",
             "weir-encryption", "--object", "secret,id=s,file=" + key, "-o",
             "key-secret=s,kdf=pbkdf2,kdf-iterations=1000", self.image,
             str(4 * MIB)], check=True, timeout=GUARD_S)
        self.policy("secret", "  - weir-encryption: {key-secret: 'file:%s'}\n"
                    % key)
        self.vm("secret")
        self.reboot()
        self.run_refused(
            "'secret', and it is encrypted; policy 'none' leaves that out: "
            "start it under 'secret', or say that it is not any more with "
            "'weir binding release %s'" % self.image)
        # as cryptsetup would leave it
        with open(self.image, "r+b") as file:
            file.write(bytes(4096))
        self.vm()
        self.assertEqual(self.bindings(), [])


if __name__ == "__main__":
    unittest.main()
