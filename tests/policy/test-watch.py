#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir status, top and metrics of a disk with replication and cache."""
import json
import os
import signal
import subprocess
import time
import unittest

import exposition
from common import GUARD_S, QEMU_BIN_DIR, Qmp, VmTest, need, wait_for

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

MIB = 1 << 20
POLICY = """name: safe
limits: {rpo: 400ms, dirty: 64K, latency: 1h}
filters:
  - weir-replication:
      disk-id: disk0
      log: nbd+unix:///log?socket=%s
      sidecar: create:16M:%s
      epoch-interval: 20
  - weir-cache:
      cache-file: create:32M:%s
      idle: 0
      dirty-age: 0
"""


class Watched(VmTest):
    def setUp(self):
        super().setUp()
        self.nbd = self.path("keeper.nbd")
        self.write("safe.yaml", POLICY % (self.nbd, self.path("sidecar"),
                                          self.path("cache")))
        self.disk("log.img", 128 * MIB)
        self.keep()
        self.start("file=%s,format=raw,policy=safe" % self.disk())

    def keep(self):
        """Start the keeper of the log."""
        self.keeper = subprocess.Popen([
            os.path.join(QEMU_BIN_DIR, "qemu-storage-daemon"),
            "--blockdev", "driver=file,node-name=f,filename="
            + self.path("log.img"),
            "--blockdev", "driver=weir-journal,node-name=log,file=f,create=on",
            "--nbd-server", "addr.type=unix,max-connections=0,addr.path="
            + self.nbd,
            "--export", "type=nbd,id=log,name=log,node-name=log,writable=on",
            "--chardev", "socket,id=m,server=on,wait=off,path="
            + self.path("keeper.qmp"), "--monitor", "chardev=m"])
        self.addCleanup(self.end_keeper, self.keeper)
        wait_for(lambda: os.path.exists(self.nbd), "the keeper")

    def end_keeper(self, keeper):
        if keeper.poll() is None:
            keeper.send_signal(signal.SIGCONT)
            keeper.kill()
            keeper.wait()

    def guest_writes(self, offset, length="4k"):
        qmp = Qmp(self.qmp_path())
        for command in "write %s %s" % (offset, length), "flush":
            qmp.command("human-monitor-command", {
                "command-line": "qemu-io -d /machine/peripheral/disk0/"
                "virtio-backend \"%s\"" % command})
        qmp.close()

    def find(self, state, reason=""):
        """Wait until the disk is in that state; returns its status."""
        def finds():
            code, disks = self.status("vm")
            disk, = disks
            self.assertEqual(code, {"compliant": 0, "non-compliant": 3,
                                    "unknown": 4}[disk["state"]])
            return disk["state"] == state and \
                reason in (disk["reason"] or "") and disk
        return wait_for(finds, "%s %s" % (state, reason))

    def filters(self, disk):
        return {f["driver"]: f for f in disk["filters"]}


class Status(Watched):
    def test_rpo_over_the_limit_and_back(self):
        """A log that hangs, for less time than it takes to be given up."""
        before = self.find("compliant")
        self.assertEqual(before["limits"], {
            "rpo-ns": 400 * 10 ** 6, "dirty-bytes": 65536,
            "latency-ns": 3600 * 10 ** 9})
        facts = self.filters(before)["weir-replication"]["facts"]
        self.assertEqual((facts["replication"], facts["mode"]),
                         ("streaming", "async"))
        time.sleep(1.1)
        self.keeper.send_signal(signal.SIGSTOP)
        self.guest_writes(0)
        late = self.find("non-compliant", "weir-replication: RPO of ")
        self.assertRegex(late["reason"], r"RPO of \S+ m?s is over the limit of "
                         "400 ms$")
        self.assertGreater(late["since"], before["since"])
        filters = self.filters(late)
        self.assertEqual((filters["weir-replication"]["state"],
                          filters["weir-cache"]["state"]),
                         ("non-compliant", "compliant"))
        self.assertEqual(filters["weir-replication"]["since"], late["since"])
        self.assertGreater(filters["weir-replication"]["facts"]["rpo-ms"],
                           400)
        self.assertGreater(
            filters["weir-replication"]["facts"]["queued-bytes"], 4095)
        time.sleep(1.1)
        self.assertEqual(self.find("non-compliant")["since"], late["since"])
        self.keeper.send_signal(signal.SIGCONT)
        after = self.find("compliant")
        self.assertGreater(after["since"], late["since"])
        self.assertEqual(self.filters(after)["weir-cache"]["since"],
                         self.filters(before)["weir-cache"]["since"])

    def test_log_is_lost_and_found(self):
        self.find("compliant")
        self.end_keeper(self.keeper)
        lost = self.find("non-compliant",
                         "weir-replication is degraded: the replication log "
                         "cannot be reached")
        self.guest_writes(0)
        self.find("non-compliant", "; weir-replication: RPO of ")
        self.assertEqual(self.filters(lost)["weir-replication"]["facts"]
                         ["replication"], "disconnected")
        os.unlink(self.nbd)
        self.keep()
        self.find("compliant")

    def test_dirty_over_the_limit_and_back(self):
        self.find("compliant")
        self.guest_writes(0, "128k")
        self.find("non-compliant", "weir-cache: dirty data of 128 KiB is over "
                  "the limit of 64 KiB")
        output = self.weir("status", "--runtime-dir", self.runtime,
                           "--filters")
        self.assertEqual(output[0], 3)
        self.assertRegex(output[1], r"(?m)^vm +disk0 +weir-cache +"
                         r"non-compliant .* write-back, dirty 128 KiB +weir")
        qmp = Qmp(self.qmp_path())
        node, = [n for n in qmp.command("query-weir")
                 if n["driver"] == "weir-cache"]
        qmp.command("weir-detach", {"node-name": node["node-name"]})
        qmp.close()
        disk = self.find("non-compliant", "weir-cache is missing")
        self.assertEqual(disk["reason"], "weir-cache is missing")

    def test_ignored_flushes(self):
        """A log, cache or disk that does not keep what it is told to."""
        self.find("compliant")
        qmp = Qmp(self.qmp_path())
        name, = [n["node-name"] for n in qmp.command("query-named-block-nodes")
                 if n["file"] == self.path("disk.img") and n["drv"] == "file"]
        qmp.command("blockdev-reopen", {"options": [{
            "driver": "file", "node-name": name, "discard": "unmap",
            "filename": self.path("disk.img"), "cache": {"no-flush": True}}]})
        qmp.close()
        os.unlink(self.path("run/vm.status"))
        time.sleep(1.1)
        begin = int(time.time())
        disk = self.find("non-compliant", "node %s ignores flushes" % name)
        self.assertGreaterEqual(disk["since"], begin)

    def test_nothing_is_left(self):
        self.find("compliant")
        self.assertIn("vm.status", os.listdir(self.runtime))
        os.kill(self.qemu_pid(), signal.SIGTERM)
        wait_for(lambda: not os.listdir(self.runtime), "the end of the VM")


class Encryption(VmTest):
    def fact(self, code, reason):
        """Wait for a reason; returns what weir-encryption tells."""
        def finds():
            got, disks = self.status()
            return disks[0]["reason"] == reason and (got, disks[0])
        got, disk = wait_for(finds, reason)
        self.assertEqual(got, code)
        return disk["filters"][0]["facts"]

    def test_conversion(self):
        self.encrypted("disk.img")
        self.write("crypt.yaml", "name: crypt\nfilters:\n  - weir-encryption: "
                   "{key-secret: 'file:%s'}\n" % self.path("key"))
        self.start("file=%s,format=raw,policy=crypt" % self.path("disk.img"))
        self.assertEqual(self.fact(0, None), {})
        qmp = Qmp(self.qmp_path())
        qmp.command("weir-decrypt", {
            "job-id": "job0", "node-name": "weir-disk0-encryption",
            "key-secret": "weir-disk0-key-secret", "hotzone-size": 65536,
            "speed": 1 << 20})
        qmp.close()
        facts = self.fact(3, "weir-encryption: the disk is being decrypted")
        self.assertEqual((facts["conversion"], facts["conversion-finished"]),
                         ("decrypt", False))
        self.assertLess(facts["conversion-progress"], 1)
        qmp = Qmp(self.qmp_path())
        qmp.command("weir-encryption-set-speed", {"job-id": "job0",
                                                  "speed": 0})
        qmp.close()
        facts = self.fact(3, "weir-encryption: the disk is not encrypted any "
                          "more")
        self.assertEqual((facts["conversion-finished"],
                          facts["conversion-progress"]), (True, 1))


class Limits(VmTest):
    def limit(self, **limits):
        """Give the VM's disk limits; returns exit code, state and reason."""
        with open(self.record_path(), encoding="utf-8") as file:
            record = json.load(file)
        record["disks"][0]["limits"] = {
            k.replace("_", "-"): v for k, v in limits.items()}
        with open(self.record_path(), "w", encoding="utf-8") as file:
            json.dump(record, file)
        code, disks = self.status()
        return code, disks[0]["state"], disks[0]["reason"]

    def test_each(self):
        self.start("file=%s,format=raw,policy=observe" % self.disk())
        self.assertEqual(self.limit(rpo_ns=1), (
            4, "unknown", "no filter tells the RPO"))
        self.assertEqual(self.limit(dirty_bytes=1), (
            4, "unknown", "no filter tells how much data is dirty"))
        qmp = Qmp(self.qmp_path())
        qmp.command("human-monitor-command", {
            "command-line": "qemu-io -d /machine/peripheral/disk0/"
            "virtio-backend \"write 0 4k\""})
        qmp.close()
        code, state, reason = self.limit(latency_ns=1)
        self.assertEqual((code, state), (3, "non-compliant"))
        self.assertRegex(reason, r"^weir-inspect: latency \(99 %\) of \S+ \S+"
                         " is over the limit of 1 ns$")
        self.assertEqual(self.limit(latency_ns=10 ** 12),
                         (0, "compliant", None))


class Hanging(VmTest):
    def test_one_that_hangs_does_not_hold_up_the_others(self):
        for name in "a", "b", "c":
            self.start("file=%s,format=raw,policy=observe"
                       % self.disk(name), name=name)
        for name in "a", "b":
            pid = self.qemu_pid(name)
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(os.kill, pid, signal.SIGCONT)
        begin = time.monotonic()
        code, disks = self.status("--timeout", "2")
        self.assertLess(time.monotonic() - begin, 3.8)
        self.assertEqual((code, [(d["vm"], d["state"]) for d in disks]), (
            4, [("a", "unknown"), ("b", "unknown"), ("c", "compliant")]))
        output = self.weir_ok("metrics", "--runtime-dir", self.runtime,
                              "--timeout", "0.2")
        self.assertEqual(
            {s[1]["vm"]: s[2] for s in
             exposition.parse(output)["weir_vm_up"][1]},
            {"a": 0, "b": 0, "c": 1})

    def test_history_cannot_be_written(self):
        self.start("file=%s,format=raw,policy=observe" % self.disk())
        os.mkdir(os.path.join(self.runtime, "vm.status"))
        code, disks = self.status()
        self.assertEqual((code, disks[0]["state"]), (0, "compliant"))
        os.rmdir(os.path.join(self.runtime, "vm.status"))


class Figures(Watched):
    """top and metrics; together, as the machine takes a while to start."""

    def sample(self, families, name, **labels):
        found = [value for sample, have, value in families[name][1]
                 if sample == name and labels.items() <= have.items()]
        self.assertEqual(len(found), 1, (name, labels))
        return found[0]

    def metrics(self, *args):
        text = self.weir_ok("metrics", "--runtime-dir", self.runtime, *args)
        said = exposition.promtool(text)
        self.assertIn(said, (None, (0, "")))
        return exposition.parse(text)

    def check_metrics(self):
        found = self.metrics()
        disk = {"vm": "vm", "disk": "disk0"}
        for name, labels, value in (
                ("weir_vm_up", {"vm": "vm"}, 1),
                ("weir_disk_info", {"policy": "safe", "policy_version": "1",
                                    **disk}, 1),
                ("weir_disk_compliance", {"state": "non-compliant", **disk},
                 1),
                ("weir_disk_compliance", {"state": "compliant", **disk}, 0),
                ("weir_filter_compliance", {"state": "non-compliant",
                                            "driver": "weir-cache"}, 1),
                ("weir_disk_limit_rpo_seconds", disk, 0.4),
                ("weir_disk_limit_dirty_bytes", disk, 65536),
                ("weir_disk_limit_latency_seconds", disk, 3600),
                # the device counts what the guest sends, which is no write
                ("weir_disk_bytes_total", {"operation": "write", **disk}, 0),
                ("weir_disk_failed_operations_total", {"operation": "read"},
                 0),
                ("weir_replication_state", {"state": "streaming", **disk}, 1),
                ("weir_cache_dirty_bytes", disk, 131072),
                ("weir_cache_evicted_blocks_total", disk, 0),
                ("weir_filter_operations_total", {
                    "driver": "weir-replication", "operation": "write"}, 1),
                ("weir_filter_bytes_total", {"driver": "weir-cache",
                                             "operation": "write"}, 131072)):
            self.assertEqual(self.sample(found, name, **labels), value, name)
        self.assertGreater(
            self.sample(found, "weir_replication_sent_bytes_total"), 131072)
        self.assertEqual([value for name, labels, value
                          in found["weir_disk_latency_seconds"][1]
                          if name.endswith("_count")
                          and labels["operation"] == "write"], [1])

    def check_top(self):
        lines = self.weir_ok("top", "--once", "--interval", "0.2",
                             "--runtime-dir", self.runtime).splitlines()
        self.assertEqual(lines[0].split(), [
            "VM", "DISK", "STATE", "RD/S", "WR/S", "RD-BYTES/S",
            "WR-BYTES/S", "LATENCY", "RPO", "DIRTY", "REPLICATION", "REASON"])
        self.assertRegex(lines[1], r"^vm +disk0 +non-compliant +\d+ +0 +"
                         r"\S+ \S+ +0 B +.* \d+ \S+ +128 KiB +streaming +"
                         "weir-cache: ")
        self.assertEqual(len(lines), 2)

    def check_keeper(self):
        found = self.metrics("--qmp", self.path("keeper.qmp"))
        self.assertEqual(self.sample(found, "weir_journal_refused_requests"
                                     "_total", driver="weir-journal"), 0)
        self.assertEqual(found["weir_disk_compliance"][1][0][2], 0)
        code, disks = self.status("--qmp", self.path("keeper.qmp"))
        self.assertEqual((code, disks[0]["state"],
                          disks[0]["filters"][0]["driver"]),
                         (0, "not-applicable", "weir-journal"))

    def check_device(self):
        """The firmware looks for something to boot from."""
        wait_for(lambda: self.sample(
            self.metrics(), "weir_disk_operations_total", operation="read",
            vm="vm", disk="disk0") > 0, "the firmware")
        self.assertGreaterEqual(self.sample(
            self.metrics(), "weir_disk_bytes_total", operation="read"), 512)

    def test_figures(self):
        self.find("compliant")
        self.check_device()
        self.guest_writes(0, "128k")
        self.find("non-compliant")
        self.check_metrics()
        self.check_top()
        self.check_keeper()


if __name__ == "__main__":
    unittest.main()
