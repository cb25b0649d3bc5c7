#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir status tells what is really there."""
import os
import signal
import subprocess
import unittest

from common import GUARD_S, QEMU_BIN_DIR, Qmp, VmTest, need, wait_for

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

NODE = "weir-disk0-%s"


class Status(VmTest):
    def vm(self, more=""):
        process = self.start("file=%s,format=raw,policy=observe%s"
                             % (self.disk(), more))
        self.qmp = Qmp(self.qmp_path())
        self.addCleanup(self.qmp.close)
        return process

    def command(self, name, arguments):
        """A QMP command; weir then finds the monitor free."""
        self.qmp.command(name, arguments)

    def finds(self, code, *states):
        """The only monitor serves one client, so let weir have it."""
        self.qmp.close()
        result = self.status()
        self.assertEqual((result[0], [(d["state"], d["reason"])
                                      for d in result[1]]),
                         (code, list(states)))
        self.qmp = Qmp(self.qmp_path())
        self.addCleanup(self.qmp.close)
        return result[1]

    def attach(self, node, driver="weir-inspect", name="again"):
        self.command("weir-attach", {"node-name": node, "filter": {
            "driver": driver, "node-name": name, "file": node}})

    def test_compliant(self):
        self.vm()
        disk = self.finds(0, ("compliant", None))[0]
        self.assertEqual(disk["policy"], "observe")
        self.assertEqual([n["driver"] for n in disk["wanted"]],
                         ["raw", "weir-inspect", "file"])
        self.assertEqual([(n["driver"], n["node-name"])
                          for n in disk["actual"]],
                         [("raw", NODE % "format"),
                          ("weir-inspect", NODE % "inspect"),
                          ("file", NODE % "storage")])

    def test_table(self):
        self.vm()
        self.qmp.close()
        since = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
        self.assertRegex(
            self.weir_ok("status", "--runtime-dir", self.runtime, "vm"),
            "^VM  DISK   POLICY   WANTED                     "
            "ACTUAL                     STATE      SINCE                 "
            "REASON\n"
            "vm  disk0  observe  raw > weir-inspect > file  "
            "raw > weir-inspect > file  compliant  " + since + "  \n$")
        self.assertRegex(
            self.weir_ok("status", "--runtime-dir", self.runtime, "--filters"),
            "^VM  DISK   FILTER        STATE      SINCE                 FACTS  "
            "REASON\n"
            "vm  disk0  weir-inspect  compliant  " + since + "  -      \n$")

    def test_detached_and_attached(self):
        self.vm()
        self.command("weir-detach", {"node-name": NODE % "inspect"})
        disk = self.finds(3, ("non-compliant", "weir-inspect is missing"))[0]
        self.assertEqual([n["driver"] for n in disk["actual"]],
                         ["raw", "file"])
        self.attach(NODE % "format")
        self.finds(3, ("non-compliant",
                       "weir-inspect is at place disk instead of storage"))
        self.command("weir-detach", {"node-name": "again"})
        self.attach(NODE % "storage")
        self.finds(0, ("compliant", None))

    def test_there_twice(self):
        self.vm()
        self.attach(NODE % "format")
        self.finds(3, ("non-compliant",
                       "weir-inspect is at place disk instead of storage; "
                       "weir-inspect is there twice"))

    def test_not_in_policy(self):
        self.write("none.yaml", "name: none\nfilters: []\n")
        self.start("file=%s,format=raw,policy=none" % self.disk())
        self.qmp = Qmp(self.qmp_path())
        self.finds(0, ("compliant", None))
        self.attach(NODE % "storage")
        self.finds(3, ("non-compliant", "weir-inspect is not in the policy"))

    def test_place_disk(self):
        self.write("top.yaml", "name: top\nfilters:\n  - weir-inspect:\n"
                   "    place: disk\n")
        self.start("file=%s,format=raw,policy=top" % self.disk())
        disk = self.status()[1][0]
        self.assertEqual(disk["state"], "compliant")
        self.assertEqual([n["driver"] for n in disk["actual"]],
                         ["weir-inspect", "raw", "file"])

    def test_snapshot_leaves_a_gap(self):
        self.vm()
        path = self.path("overlay.qcow2")
        subprocess.run([os.path.join(QEMU_BIN_DIR, "qemu-img"), "create", "-q",
                        "-f", "qcow2", path, "1M"], check=True,
                       timeout=GUARD_S)
        self.command("blockdev-add", {
            "driver": "qcow2", "node-name": "over", "backing": None,
            "file": {"driver": "file", "filename": path}})
        self.command("blockdev-snapshot", {"node": NODE % "format",
                                           "overlay": "over"})
        disk = self.finds(3, ("non-compliant", "weir-inspect is only below a "
                              "backing file"))[0]
        self.assertEqual([n["driver"] for n in disk["actual"]],
                         ["qcow2", "file"])

    def test_disk_is_gone(self):
        self.vm(",device=virtio-scsi")
        self.command("device_del", {"id": "disk0"})
        wait_for(lambda: not any(
            d["qdev"] == "disk0"
            for d in self.qmp.command("query-block")), "the unplug")
        self.finds(3, ("non-compliant",
                       "the guest has no such disk any more"))

    def test_foreign_nodes_are_tolerated(self):
        """A throttle filter is no business of the policy."""
        self.vm()
        self.command("object-add", {"qom-type": "throttle-group", "id": "g"})
        self.command("blockdev-add", {
            "driver": "throttle", "node-name": "t", "throttle-group": "g",
            "file": NODE % "inspect"})
        self.command("blockdev-reopen", {"options": [{
            "driver": "raw", "node-name": NODE % "format", "file": "t",
            "discard": "unmap"}]})
        disk = self.finds(0, ("compliant", None))[0]
        self.assertEqual([n["driver"] for n in disk["actual"]],
                         ["raw", "throttle", "weir-inspect", "file"])

    def test_hanging_qemu(self):
        self.vm()
        self.qmp.close()
        os.kill(self.qemu_pid(), signal.SIGSTOP)
        self.addCleanup(os.kill, self.qemu_pid(), signal.SIGCONT)
        code, disks = self.status()
        self.assertEqual(code, 4)
        self.assertEqual((disks[0]["state"], disks[0]["reason"]), (
            "unknown", "the QMP server on %s does not answer"
            % self.qmp_path()))
        self.assertEqual(disks[0]["actual"], [])

    def test_by_socket(self):
        self.vm()
        self.qmp.close()
        code, disks = self.status("--qmp", self.qmp_path())
        self.assertEqual((code, disks[0]["vm"], disks[0]["state"]),
                         (0, "vm", "compliant"))
        code, output, errors = self.weir("status", "--qmp", self.qmp_path(),
                                         "--json", "--runtime-dir", self.dir)
        self.assertEqual((code, errors), (0, ""))
        self.assertIn('"compliant"', output)

    def test_foreign_qemu(self):
        path = self.path("foreign")
        process = subprocess.Popen(
            [os.path.join(QEMU_BIN_DIR, "qemu-storage-daemon"),
             "--chardev", "socket,id=m,server=on,wait=off,path=" + path,
             "--monitor", "chardev=m", "--blockdev",
             "null-co,node-name=n,read-zeroes=on", "--nbd-server",
             "addr.type=unix,addr.path=" + self.path("nbd"),
             "--export", "nbd,id=e,node-name=n"])
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_for(lambda: os.path.exists(self.path("nbd")), "the daemon")
        code, disks = self.status("--qmp", path)
        self.assertEqual(code, 0)
        self.assertEqual([(d["policy"], d["state"]) for d in disks],
                         [(None, "not-applicable")])
        self.assertEqual([n["driver"] for n in disks[0]["actual"]],
                         ["null-co"])

    def test_several_vms(self):
        self.vm()
        self.qmp.close()
        other = self.start("file=%s,format=raw,policy=observe"
                           % self.disk("b"), name="other")
        code, disks = self.status()
        self.assertEqual((code, [d["vm"] for d in disks]),
                         (0, ["other", "vm"]))
        code, disks = self.status("other")
        self.assertEqual((code, [d["vm"] for d in disks]), (0, ["other"]))
        self.stop(other)
        self.assertEqual([d["vm"] for d in self.status()[1]], ["vm"])

    def test_none(self):
        self.assertEqual(self.status(), (0, []))

    def test_unknown_vm(self):
        self.weir_fails("weir: there is no VM 'x' in %s" % self.runtime,
                        "status", "--runtime-dir", self.runtime, "x")
        self.weir_fails("weir: '../x' cannot be the name of a VM",
                        "status", "--runtime-dir", self.runtime, "../x")

    def test_no_socket(self):
        self.weir_fails("weir: cannot connect to %s: Could not connect: No "
                        "such file or directory" % self.path("no"), "status",
                        "--runtime-dir", self.runtime, "--qmp",
                        self.path("no"))

    def test_broken_record(self):
        os.mkdir(self.runtime)
        for text in ("", "[]", "{}", '{"pid": 1, "qmp": 2}', "[" * 300,
                     '{"pid": 1, "qmp": "x", "disks": [{"id": "d"}]}'):
            with open(self.record_path("x"), "w", encoding="utf-8") as file:
                file.write(text)
            with self.subTest(text):
                self.weir_fails("weir: %s is not a record of a VM"
                                % self.record_path("x"), "status",
                                "--runtime-dir", self.runtime, "x")
        self.assertEqual(self.status(), (0, []))


class Inspect(VmTest):
    def setUp(self):
        super().setUp()
        self.start("file=%s,format=raw,policy=observe,device=none"
                   % self.disk())
        qmp = Qmp(self.qmp_path())
        qmp.command("nbd-server-start", {"addr": {
            "type": "unix", "data": {"path": self.path("nbd")}}})
        qmp.command("block-export-add", {
            "id": "x", "type": "nbd", "writable": True, "name": "x",
            "node-name": NODE % "format"})
        subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-io"), "-f", "raw",
             "-c", "write 0 64k", "-c", "read 0 32k", "-c", "read 32k 32k",
             "nbd+unix:///x?socket=" + self.path("nbd")], check=True,
            stdout=subprocess.DEVNULL, timeout=GUARD_S)
        qmp.close()

    def inspect(self, *args):
        return self.weir_ok("inspect", "--runtime-dir", self.runtime, *args)

    def test_json(self):
        import json
        found = json.loads(self.inspect("--json", "vm", "disk0"))
        self.assertEqual([(f["vm"], f["disk"]) for f in found],
                         [("vm", "disk0")])
        self.assertEqual(found[0]["filter"]["writes"]["bytes"], 65536)
        curve = found[0]["filter"]["working-set"]["curve"]
        best = min(p["miss-ratio"] for p in curve)
        self.assertEqual(found[0]["recommended-cache-size"], min(
            p["cache-size"] for p in curve
            if p["miss-ratio"] <= best + 0.05))

    def test_text(self):
        output = self.inspect()
        self.assertRegex(output, r"(?m)^VM vm, disk disk0: weir-disk0-inspect "
                         r"is ok$")
        self.assertRegex(output, r"(?m)^  write +1 +64 KiB +0 +\S+ \S+ +\S+ "
                         r"\S+$")
        self.assertRegex(output, r"(?m)^writes: 0% sequential, size p50 64 "
                         r"KiB, p99 64 KiB$")
        self.assertRegex(output, r"(?m)^recommended cache: ")
        self.assertRegex(output, r"(?m)^alert: no \(0 so far\)$")

    def test_by_socket(self):
        self.assertIn("VM vm, disk disk0", self.inspect("--qmp",
                                                        self.qmp_path()))

    def test_no_such_disk(self):
        self.weir_fails("weir: no weir-inspect in disk 'x'", "inspect",
                        "--runtime-dir", self.runtime, "vm", "x")


if __name__ == "__main__":
    unittest.main()
