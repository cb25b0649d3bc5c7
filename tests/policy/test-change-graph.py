#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live changes where more is around the disk: snapshots, devices, filters of
others, other disks."""
import os
import subprocess
import unittest

from common import GUARD_S, QEMU_BIN_DIR, need, wait_for
from changetest import MIB, PREFIX, Change, Load

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")


class Snapshots(Change):
    """An overlay is above the image; or comes, when filters are there."""

    FORMAT = "qcow2"

    def overlay(self, node):
        path = self.path("overlay.qcow2")
        subprocess.run([os.path.join(QEMU_BIN_DIR, "qemu-img"), "create",
                        "-q", "-f", "qcow2", path, str(self.size)],
                       check=True, timeout=GUARD_S)
        self.qmp("blockdev-add", {
            "driver": "qcow2", "node-name": "over", "backing": None,
            "file": {"driver": "file", "filename": path,
                     "node-name": "over-file"}})
        self.qmp("blockdev-snapshot", {"node": node, "overlay": "over"})

    def both(self, name="p"):
        self.policy(name, "  - weir-inspect: {}\n    place: disk\n"
                    "  - weir-cache:\n      cache-file: create:16M:%s\n"
                    "      idle: 0\n" % self.path("c"))

    def test_attach_and_detach(self):
        self.both()
        self.vm()
        load = Load(self)
        self.overlay(PREFIX + "format")
        load.wait()
        before = self.nodes()
        self.change("attach", "--policy", "p")
        self.finds(0, "compliant")
        self.assertEqual(self.drivers(), ["weir-inspect", "qcow2",
                                          "weir-cache", "file"])
        self.assertEqual(self.filters()[PREFIX + "cache"]["child"],
                         "over-file")
        load.wait()
        self.change("detach")
        self.assertEqual(self.nodes(), before)
        load.end()

    def test_snapshot_of_a_filtered_disk(self):
        """Its filters go up to the overlay, the cache's data stays below."""
        self.both()
        self.vm("p")
        load = Load(self)
        wait_for(lambda: self.filters()[PREFIX + "cache"]["dirty"] > 0,
                 "dirty blocks")
        self.overlay(PREFIX + "inspect")
        load.wait()
        self.assertEqual(self.finds(
            3, "non-compliant", "weir-inspect is only below a backing file; "
            "weir-cache is only below a backing file")["actual"][0]["driver"],
            "qcow2")
        self.change("reapply")
        self.finds(0, "compliant")
        self.assertEqual({n: (f["place"], f["child"])
                          for n, f in self.filters().items()},
                         {PREFIX + "inspect-2": ("disk", "over"),
                          PREFIX + "cache-2": ("storage", "over-file")})
        load.wait()
        self.change("detach")
        self.assertEqual(self.filters(), {})
        load.end()

    def test_replication_of_an_overlay(self):
        self.policy("p", "  - weir-replication: {disk-id: d, log: /log}\n")
        self.vm()
        self.overlay(PREFIX + "format")
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-replication cannot be attached "
            "to a disk in use: the disk has a snapshot, and at place storage "
            "only its overlay would be replicated, not what is below; give "
            "the filter place: disk, or commit the snapshot", "attach",
            "--policy", "p")


class Devices(Change):
    """Disks that a guest's devices use, in I/O threads or not."""

    def test_devices(self):
        self.policy("p", "  - weir-inspect: {}\n    place: disk\n"
                    "  - weir-cache: {cache-file: 'create:16M:%s/${disk}.c'}\n"
                    % self.dir)
        self.start(*("file=%s,format=raw,policy=none,id=%s%s"
                     % (self.disk(name, MIB), name, more)
                     for name, more in (
                         ("blk", ",iothread=io"), ("scsi",
                                                   ",device=virtio-scsi"),
                         ("nobody", ",device=none"))))
        before = self.nodes()
        for name in ("blk", "scsi", "nobody"):
            args = self.args("attach", "--policy", "p")
            self.weir_ok("attach", "vm", name, *args[3:])
        disks = self.status()[1]
        self.assertEqual([[n["driver"] for n in d["actual"]] for d in disks],
                         [["weir-inspect", "raw", "weir-cache", "file"]] * 3)
        self.assertEqual([d["reason"] for d in disks], [
            None, None, "weir-inspect is at place unused instead of disk"])
        self.assertIn("already", self.weir_ok(
            "reapply", "vm", "nobody", *self.args("reapply")[3:]))
        for name in ("scsi", "nobody", "blk"):
            self.weir_ok("detach", "vm", name, *self.args("detach")[3:])
        self.assertEqual(self.nodes(), before)


class OtherFilters(Change):
    """Filters that somebody has attached over QMP."""

    def attach(self, driver, node, name, **options):
        self.qmp("weir-attach", {"node-name": node, "filter": dict(
            options, driver=driver, file=node, **{"node-name": name})})

    def test_one_of_the_policy(self):
        self.vm("observe")
        self.qmp("weir-detach", {"node-name": PREFIX + "inspect"})
        self.assertEqual(self.status()[0], 3)
        self.attach("weir-inspect", PREFIX + "storage", "mine")
        self.assertIn("already", self.change("reapply"))
        self.change("detach")
        self.assertEqual(self.filters(), {})

    def test_missing_and_too_many(self):
        self.vm("observe")
        before = self.nodes()
        self.attach("weir-inspect", PREFIX + "format", "mine")
        self.finds(3, "non-compliant", "weir-inspect is at place disk instead "
                   "of storage; weir-inspect is there twice")
        self.change("reapply")
        self.assertEqual(self.nodes(), before)
        self.qmp("weir-detach", {"node-name": PREFIX + "inspect"})
        self.change("reapply")
        self.assertEqual(self.nodes(), before)

    def test_not_of_the_policy(self):
        """Without a policy, it is nobody's business."""
        self.vm()
        self.attach("weir-inspect", PREFIX + "storage", "mine")
        self.change("detach")
        self.assertEqual(list(self.filters()), ["mine"])
        self.policy("p", "  - weir-inspect: {}\n    place: disk\n")
        self.change("attach", "--policy", "p")
        self.assertEqual(list(self.filters()), [PREFIX + "inspect"])


class SharedLog(Change):
    """Two disks of one group come and go."""

    def test_group(self):
        self.policy("p", "  - weir-replication:\n      disk-id: ${vm}-${disk}\n"
                    "      log: nbd+unix:///log?socket=%s\n"
                    % self.keeper("one", "two"))
        self.start(*("file=%s,format=raw,policy=none,device=none,id=%s"
                     % (self.disk(name + ".img", self.size), name)
                     for name in ("one", "two")))

        def change(command, disk, *more):
            args = self.args(command, *more)
            self.weir_ok(command, "vm", disk, *args[3:])

        def logs():
            return {f["disk-id"]: f["log"] for f in self.qmp("query-weir")}
        change("attach", "one", "--policy", "p")
        change("attach", "two", "--policy", "p")
        self.assertEqual(logs(), {"vm-one": "weir-one-log",
                                  "vm-two": "weir-one-log"})
        wait_for(lambda: self.status()[0] == 0, "both being replicated")
        change("detach", "one")
        self.assertEqual(logs(), {"vm-two": "weir-one-log"})
        change("attach", "one", "--policy", "p")
        self.assertEqual(set(logs().values()), {"weir-one-log"})
        change("detach", "two")
        change("detach", "one")
        self.assertEqual(logs(), {})
        change("attach", "two", "--policy", "p")
        self.assertEqual(logs(), {"vm-two": "weir-two-log"})


if __name__ == "__main__":
    unittest.main()
