#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live changes of filters that know something of their disk: it is brought to
the disk before they go, and is not believed when they come back."""
import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import threading
import unittest

import nbd

from common import GUARD_S, WEIR, need, wait_for
from changetest import MIB, PREFIX, Change

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")


class Replica(Change):
    """What is written while a disk is not replicated is not forgotten."""

    def setUp(self):
        super().setUp()
        self.socket = self.keeper("disk0")
        self.sidecar = self.path("sidecar")
        self.policy("p", """  - weir-replication:
      disk-id: ${vm}-${disk}
      log: nbd+unix:///log?socket=%s
      sidecar: create:4M:%s
""" % (self.socket, self.sidecar))
        self.vm()
        self.client = self.connect()
        self.attach()
        self.write_blocks(0)

    def attach(self):
        self.change("attach", "--policy", "p")

    def write_blocks(self, first):
        for i in range(first, first + 4):
            self.client.pwrite(bytes([i + 1]) * 65536, i * 65536)
        self.client.flush()

    def wait_for_stream(self):
        wait_for(lambda: [(f["status"], f["queued-bytes"], f["state"])
                          for f in self.qmp("query-weir")] ==
                 [("streaming", 0, "ok")], "the log having all")

    def check_replica(self):
        self.wait_for_stream()
        qmp = self.socket + ".qmp"
        self.weir_ok("replica", "open", "--qmp", qmp, "vm-disk0", "--name",
                     "now")
        replica = nbd.NBD()
        replica.connect_uri("nbd+unix:///now?socket=" + self.socket)
        for i in range(self.size // 65536):
            self.assertEqual(replica.pread(65536, i * 65536),
                             self.client.pread(65536, i * 65536),
                             "64 KiB at %d" % i)
        replica.shutdown()
        self.weir_ok("replica", "close", "--qmp", qmp, "now")

    def test_detached_for_a_while(self):
        self.check_replica()
        before = self.header()
        self.change("detach")
        # of which log it is, group and generation, it still tells
        self.assertEqual(self.header()[48:64], before[48:64])
        self.assertEqual(self.header()[184:216], before[184:216])
        self.write_blocks(2)
        self.attach()
        self.check_replica()

    def test_detached_until_the_next_start(self):
        self.check_replica()
        self.change("detach")
        self.write_blocks(2)
        self.client.shutdown()
        self.stop(self.process)
        self.vm("p")
        self.client = self.connect()
        self.check_replica()

    def header(self):
        """The one of the two that holds."""
        with open(self.sidecar, "rb") as file:
            copies = [file.read(4096), file.read(4096)]
        return max(copies, key=lambda c: int.from_bytes(c[32:40], "little"))

    def test_detached_by_others(self):
        """Over QMP: the driver tells the sidecar."""
        self.check_replica()
        self.qmp("weir-detach", {"node-name": PREFIX + "replication"})
        self.write_blocks(2)
        self.change("reapply")
        self.check_replica()

    def test_killed_before_detach(self):
        """The filter is still there, and goes on with its sidecar."""
        self.check_replica()
        proxy = self.proxied()
        begun = threading.Event()

        def act(count, command, client):
            begun.set()
            return False
        proxy.act = act
        weir = subprocess.Popen([WEIR, *self.args("detach")],
                                stdout=subprocess.DEVNULL)
        self.assertTrue(begun.wait(GUARD_S))
        weir.kill()
        weir.wait(GUARD_S)
        self.change("reapply", "--policy", "p")
        self.check_replica()

    def test_gone_before_weir_detach(self):
        """Nor is the sidecar believed by the next start."""
        self.check_replica()
        self.qmp("weir-detach", {"node-name": PREFIX + "replication"})
        self.change("detach")
        self.write_blocks(2)
        self.client.shutdown()
        self.stop(self.process)
        self.vm("p")
        self.client = self.connect()
        self.check_replica()

    def test_started_without(self):
        self.check_replica()
        self.client.shutdown()
        self.stop(self.process)
        self.forget_bindings()
        self.vm()
        self.client = self.connect()
        self.write_blocks(2)
        self.attach()
        self.check_replica()

    def test_failed_detach(self):
        """The filter goes on with the sidecar that it has."""
        self.check_replica()
        inode = os.stat(self.sidecar).st_ino
        proxy = self.proxied()
        proxy.act = lambda _, command, client: proxy.refuse(command, client)
        self.change_fails(
            "weir: VM 'vm', disk disk0: detach weir-replication (node "
            "weir-disk0-replication): no luck; everything is as before",
            "detach")
        self.assertEqual(os.stat(self.sidecar).st_ino, inode)

    def test_log_of_a_promoted_replica(self):
        """Where the log does not take it back, all is not as before."""
        self.policy("q", """  - weir-replication:
      disk-id: ${vm}-${disk}
      log: nbd+unix:///other?socket=%s
""" % self.socket)
        self.check_replica()
        proxy = self.proxied()
        proxy.answer = lambda line: line.replace(b'"generation": 1',
                                                 b'"generation": 2')

        def act(count, command, client):
            if command["execute"] != "weir-attach":
                return True
            return proxy.refuse(command, client)
        proxy.act = act
        code, _, errors = self.weir(*self.args("reapply", "--policy", "q"))
        self.assertEqual((code, errors), (
            3, "weir: VM 'vm', disk disk0: attach weir-replication (node "
            "weir-disk0-replication-2) above node weir-disk0-storage: no "
            "luck; cannot undo 'detach weir-replication (node "
            "weir-disk0-replication)': a replica of its log has been promoted "
            "once, and such a log does not take back a disk that was in use "
            "without it; replicate the disk to a new log; weir reapply or "
            "weir detach goes on from here\n"))
        proxy.act = None
        self.assertEqual(self.status()[0], 3)
        self.change("reapply")
        self.assertEqual(self.record()["policy"], "q")

    def test_gone_without_answer(self):
        """A filter that has gone has, whatever is told of its job."""
        self.check_replica()
        proxy = self.proxied()

        def act(count, command, client):
            proxy.refuse(command, client)
            del command["id"], command["arguments"]["job-id"]
            return json.dumps(command).encode() + b"\n"
        proxy.act = act
        self.change("detach")
        self.assertEqual(self.filters(), {})
        proxy.act = None
        self.write_blocks(2)
        self.attach()
        self.check_replica()

    def test_job_that_vanished(self):
        """Then the filter is looked at, which is still there."""
        self.check_replica()
        proxy = self.proxied()
        proxy.act = lambda _, command, client: proxy.pretend(command, client)
        inode = os.stat(self.sidecar).st_ino
        self.change_fails(
            "weir: VM 'vm', disk disk0: detach weir-replication (node "
            "weir-disk0-replication): its job has been dismissed, and it is "
            "still there; everything is as before", "detach")
        self.assertEqual(os.stat(self.sidecar).st_ino, inode)

    def test_sidecar_of_another_disk(self):
        self.check_replica()
        self.start("file=%s,format=raw,policy=none" % self.disk("b", MIB),
                   name="other")
        before = os.stat(self.sidecar).st_ino
        code, _, errors = self.weir("attach", "other", "disk0", *self.args(
            "attach", "--policy", "p")[3:])
        self.assertEqual((code, errors), (
            1, "weir: VM 'other', disk disk0: attach weir-replication (node "
            "weir-disk0-replication) above node weir-disk0-storage: the "
            "sidecar %s is in use; everything is as before\n" % self.sidecar))
        self.assertEqual(os.stat(self.sidecar).st_ino, before)
        with open(self.sidecar, "rb") as file:
            self.assertEqual(file.read(8), b"WEIRSIDE")


class OldCache(Change):
    """A cache that was away while the disk was written to is empty."""

    def setUp(self):
        super().setUp()
        self.policy("p", "  - weir-cache: {cache-file: 'create:16M:%s'}\n"
                    % self.path("c"))

    def restart(self, kill=False):
        if kill:
            os.kill(self.qemu_pid(), signal.SIGKILL)
        self.stop(self.process)
        self.forget_bindings()
        self.vm()
        self.client = self.connect()

    def write_all(self, value):
        for i in range(64):
            self.client.pwrite(bytes([value]) * 65536, i * 65536)
        self.client.flush()

    def test_clean(self):
        self.vm("p")
        self.client = self.connect()
        self.write_all(1)
        wait_for(lambda: self.filters()[PREFIX + "cache"]["dirty"] == 0,
                 "no dirty blocks")
        self.assertGreater(self.filters()[PREFIX + "cache"]["used"], 0)
        self.restart()
        # one block of 1024: a comparison of 64 of them may not see that
        self.client.pwrite(b"x" * 4096, 4096 * 777)
        self.change("attach", "--policy", "p")
        self.assertEqual(self.filters()[PREFIX + "cache"]["used"], 0)
        self.assertEqual(self.client.pread(4096, 4096 * 777), b"x" * 4096)

    def test_dirty(self):
        self.policy("p", "  - weir-cache:\n      cache-file: create:16M:%s\n"
                    "      idle: 0\n" % self.path("c"))
        self.vm("p")
        self.client = self.connect()
        self.write_all(1)
        self.restart(kill=True)
        self.change_fails(
            "weir: VM 'vm', disk disk0: attach weir-cache (node "
            "weir-disk0-cache) above node weir-disk0-storage: the cache %s "
            "has blocks that were not written back to its disk: end the VM and "
            "start it with both, unless the disk was written to since; if they "
            "may be lost, make it blank; everything is as before"
            % self.path("c"), "attach", "--policy", "p")

    def test_left_as_it_was(self):
        """As on a device that fails when the cache goes."""
        self.policy("p", "  - weir-cache:\n      cache-file: create:16M:%s\n"
                    "      idle: 0\n" % self.path("c"))
        self.vm("p")
        self.client = self.connect()
        self.write_all(1)
        shutil.copy(self.path("c"), self.path("copy"))
        proxy = self.proxied()

        def act(count, command, client):
            os.rename(self.path("copy"), self.path("c"))
            return True
        proxy.act = act
        code, _, errors = self.weir(*self.args("detach"))
        self.assertEqual((code, errors), (
            3, "weir: VM 'vm', disk disk0: all is done, but the cache %s still "
            "has what it had: make it blank before any disk gets it again\n"
            % self.path("c")))
        self.assertEqual(self.filters(), {})
        self.assertIsNone(self.record().get("policy"))

    def test_in_use(self):
        self.vm("p")
        self.start("file=%s,format=raw,policy=none" % self.disk("b", MIB),
                   name="other")
        code, _, errors = self.weir("attach", "other", "disk0", *self.args(
            "attach", "--policy", "p")[3:])
        self.assertEqual(code, 1)
        self.assertIn("the cache %s is in use; everything is as before"
                      % self.path("c"), errors)

    def test_damaged(self):
        self.vm()
        with open(self.disk("c", 16 << 20), "r+b") as file:
            file.write(b"WEIRCACH")
        code, _, errors = self.weir(*self.args("attach", "--policy", "p"))
        self.assertEqual(code, 1)
        self.assertIn("the cache %s is damaged: if what it has may be lost, "
                      "make it blank; everything is as before"
                      % self.path("c"), errors)


class SlowDetach(Change):
    """A cache that takes its time to bring its data down."""

    def begin(self, rate, stderr):
        """weir detach, when the job goes on."""
        self.policy("slow", """  - weir-cache:
      cache-file: create:16M:%s
      idle: 0
      write-back-rate: %d
""" % (self.path("c"), rate))
        self.vm("slow")
        self.data = random.Random(2).randbytes(2 * MIB)
        client = self.connect()
        client.pwrite(self.data, 0)
        client.flush()
        proxy = self.proxied()
        begun = threading.Event()

        def act(count, command, client):
            begun.set()
            return True
        proxy.act = act
        weir = subprocess.Popen(
            [WEIR, *self.args("detach")], stdout=subprocess.DEVNULL,
            stderr=stderr, text=True)
        self.assertTrue(begun.wait(GUARD_S))
        wait_for(lambda: proxy.jobs > 2, "the job")
        return weir

    def check_data(self):
        self.assertEqual(self.connect().pread(2 * MIB, 0), self.data)

    def test_interrupted(self):
        weir = self.begin(MIB // 4, subprocess.PIPE)
        before = self.record()
        weir.send_signal(signal.SIGINT)
        errors = weir.communicate(timeout=GUARD_S)[1]
        self.assertEqual((weir.returncode, errors), (
            1, "weir: VM 'vm', disk disk0: detach weir-cache (node "
            "weir-disk0-cache): interrupted; everything is as before\n"))
        before.pop("change")
        self.assertEqual(self.record(), before)
        self.finds(0, "compliant")
        self.check_data()

    def test_disk_that_cannot_be_written(self):
        """Why it takes so long is told."""
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20 * MIB, 20 * MIB))

        os.truncate(self.image, 64 * MIB)
        self.policy("p", "  - weir-cache: {cache-file: 'create:16M:%s'}\n"
                    % self.path("c"))
        self.process = self.start("file=%s,format=raw,policy=p,device=none,"
                                  "aio=threads" % self.image,
                                  preexec_fn=limit)
        self.export()
        client = self.connect()
        client.pwrite(b"x" * 4096, 40 * MIB)
        client.flush()
        weir = subprocess.Popen(
            [WEIR, *self.args("detach")], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        self.assertEqual(weir.stderr.readline(), "weir: waiting: dirty blocks "
                         "cannot be written back: File too large\n")
        weir.send_signal(signal.SIGINT)
        self.assertIn("interrupted; everything is as before",
                      weir.communicate(timeout=GUARD_S)[1])

    def test_vm_that_ends(self):
        """Its record goes; who detached it must know what the disk lacks."""
        weir = self.begin(MIB // 4, subprocess.PIPE)
        os.kill(self.qemu_pid(), signal.SIGKILL)
        errors = weir.communicate(timeout=GUARD_S)[1]
        self.assertEqual(weir.returncode, 1)
        self.assertIn("the VM has ended, and its disk may lack what the cache "
                      "%s has: start it with both\n" % self.path("c"), errors)

    def test_killed(self):
        terminal, slave = pty.openpty()
        self.addCleanup(os.close, terminal)
        self.addCleanup(os.close, slave)
        weir = self.begin(MIB, slave)
        self.assertRegex(os.read(terminal, 100), rb"^\r +[0-9]+ %")
        weir.kill()
        weir.communicate(timeout=GUARD_S)
        self.finds(3, "non-compliant", "a change to no policy was interrupted, "
                   "weir reapply or weir detach goes on with it")
        self.change("reapply")
        self.finds(0, "compliant")
        self.assertEqual(self.qmp("query-jobs"), [])
        self.check_data()


if __name__ == "__main__":
    unittest.main()
