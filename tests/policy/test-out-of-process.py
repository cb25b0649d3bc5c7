#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks out of process: their daemon is there as long as the VM, whatever dies
first, and the commands find it."""
import json
import os
import signal
import subprocess
import unittest

from common import GUARD_S, QEMU_BIN_DIR, WEIR, Qmp, need, wait_for
from outsidetest import OUT, OutOfProcessTest, alive

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")


class Life(OutOfProcessTest):
    def test_one_daemon_for_all(self):
        inside = "file=%s,format=raw,id=in,policy=observe" % self.disk("i")
        process = self.start(inside, self.out("a", iothread="io"),
                             self.out("b", policy="back"))
        self.assertEqual(self.exports(), [
            ("a", "vhost-user-blk", "weir-a-format"),
            ("b", "vhost-user-blk", "weir-b-format")])
        qmp = Qmp(self.qmp_path())
        nodes = qmp.command("query-named-block-nodes", {"flat": True})
        qmp.close()
        self.assertEqual({n["node-name"].split("-")[1] for n in nodes},
                         {"in"})
        with open("/proc/%d/cmdline" % self.daemon()["pid"],
                  encoding="utf-8") as file:
            exports = [json.loads(a) for a in file.read().split("\0")
                       if "vhost-user-blk" in a]
        # only what would be lost with the daemon is written through
        self.assertEqual([(e["id"], e["writethrough"], e.get("iothread"))
                          for e in exports],
                         [("a", False, "io"), ("b", True, None)])
        code, status = self.status()
        self.assertEqual([(d["disk"], d["state"]) for d in status],
                         [("in", "compliant"), ("a", "compliant"),
                          ("b", "compliant")])
        self.assertEqual(code, 0)
        pid = self.daemon()["pid"]
        self.stop(process)
        self.assertFalse(alive(pid))
        self.assert_nothing_left()

    def test_daemon_that_is_killed(self):
        process = self.start(self.out())
        for _ in range(2):
            self.kill_daemon()
        self.assertEqual(len(self.exports()), 1)
        disk, = self.status()[1]
        self.assertEqual((disk["state"], disk["storage-daemon"]["restarts"]),
                         ("compliant", 2))
        self.assertIn("storage daemon restarted 2 times", disk["note"])
        self.assertIn("signal 9", self.weir_ok(
            "status", "--runtime-dir", self.runtime))
        metrics = self.weir_ok("metrics", "--runtime-dir", self.runtime)
        self.assertIn('weir_storage_daemon_restarts_total{vm="vm"} 2\n',
                      metrics)
        self.assertIn('weir_storage_daemon_up{vm="vm"} 1\n', metrics)
        self.assertEqual(metrics.count('weir_vm_up{vm="vm"}'), 1)
        self.stop(process)
        self.assert_nothing_left()

    def test_daemon_that_cannot_come_back(self):
        """Somebody else holds the disk: the state tells it; and then not."""
        process = self.start(self.out())
        os.kill(self.daemon()["supervisor"], signal.SIGSTOP)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        holder = subprocess.Popen(
            [os.path.join(QEMU_BIN_DIR, "qemu-storage-daemon"), "--blockdev",
             "file,node-name=f,filename=" + self.path("a.img"), "--export",
             "vhost-user-blk,id=e,node-name=f,writable=on,addr.type=unix,"
             "addr.path=" + self.path("other.sock")])
        try:
            wait_for(lambda: os.path.exists(self.path("other.sock")),
                     "the holder")
            os.kill(self.daemon()["supervisor"], signal.SIGCONT)
            wait_for(lambda: "another process" in
                     (self.daemon()["reason"] or ""),
                     "the reason")
            code, (disk,) = self.status()
            self.assertEqual((code, disk["state"]), (4, "unknown"))
            self.assertEqual(
                disk["reason"], "its storage daemon cannot be started: disk "
                "a: another process writes to %s (it has QEMU's lock)"
                % self.path("a.img"))
        finally:
            holder.kill()
            holder.wait()
        self.wait_restarts(2)
        self.assertEqual(self.status()[0], 0)
        self.stop(process)
        self.assert_nothing_left()

    def test_supervisor_that_is_killed(self):
        process = self.start(self.out())
        old = self.daemon()
        os.kill(old["supervisor"], signal.SIGKILL)
        wait_for(lambda: not alive(old["pid"]), "the daemon's end")
        self.wait_restarts(1)
        self.assertNotEqual(self.daemon()["supervisor"], old["supervisor"])
        self.stop(process)
        self.assert_nothing_left()

    def test_second_supervisor(self):
        """Two daemons would write to the disks."""
        process = self.start(self.out())
        before = self.daemon()
        second = subprocess.run(
            [WEIR, "supervise", "--runtime-dir", self.runtime, "vm"],
            stderr=subprocess.PIPE, text=True, timeout=GUARD_S, check=False)
        self.assertEqual((second.returncode, second.stderr), (
            1, "weir: VM 'vm': another process (%d) starts its storage daemon "
            "already\n" % before["supervisor"]))
        self.assertEqual(self.daemon(), before)
        self.assertTrue(alive(before["pid"]))
        self.stop(process)
        self.assert_nothing_left()

    def test_weir_run_that_is_killed(self):
        """The guest goes on with its daemon, and takes it along."""
        process = self.start(self.out())
        process.kill()
        process.wait()
        self.kill_daemon()
        daemon, qemu = self.daemon(), self.qemu_pid()
        self.assertTrue(alive(qemu))
        self.assertEqual(self.status()[0], 0)
        self.weir_fails("weir: VM 'vm' runs already (process %d); --name "
                        "gives another name" % qemu,
                        *self.run_args(self.out("b")), *self.QEMU_ARGS)
        os.kill(qemu, signal.SIGKILL)
        wait_for(lambda: not alive(daemon["supervisor"]), "its end")
        self.assertFalse(alive(daemon["pid"]))
        self.assertEqual([name for name in os.listdir(self.runtime)
                          if name.rsplit(".", 1)[1] not in (
                              "json", "qmp", "status")], [])
        self.stop(self.start(self.out()))
        self.assert_nothing_left()

    def test_secrets_are_read_again(self):
        self.encrypted("s.img")
        self.write("secret.yaml", OUT % ("secret", """
  - weir-encryption: {key-secret: "command:/bin/cat '%s'"}"""
                                         % self.path("key")))
        process = self.start(self.out("s", policy="secret"))
        self.kill_daemon()
        self.assertEqual(self.status()[0], 0)
        self.stop(process)


class Commands(OutOfProcessTest):
    def test_change_in_use(self):
        process = self.start(self.out())
        self.changes("reapply", "--policy", "around")
        self.assertEqual(self.status()[0], 0)
        # the daemon comes back with what it was changed to
        self.kill_daemon()
        code, (disk,) = self.status()
        self.assertEqual((code, disk["policy"], [
            f["driver"] for f in disk["filters"]]), (
                0, "around", ["weir-inspect", "weir-cache"]))
        self.assertIn("weir-a-inspect", self.weir_ok(
            "inspect", "--runtime-dir", self.runtime, "vm"))
        self.changes("detach")
        self.kill_daemon()
        disk, = self.status()[1]
        self.assertEqual((disk["state"], len(disk["actual"])),
                         ("not-applicable", 2))
        self.stop(process)

    def test_what_cannot_be_changed_in_use(self):
        self.write("inside.yaml", "name: inside\nfilters: []\n")
        process = self.start(self.out())
        for policy, message in (
                ("inside", "policy 'inside' has 'run: in-process', but the "
                 "disk runs out-of-process since the VM was started"),
                ("back", "a filter that holds back what was written (a cache "
                 "in write-back mode) cannot come to a disk out of process "
                 "while it is in use: start the VM with that policy")):
            self.assertEqual(
                self.change("reapply", "--policy", policy),
                (1, "", "weir: VM 'vm', disk a: %s\n" % message))
        self.stop(process)

    def test_on_error(self):
        self.write("stop.yaml", "name: stop\non-error: stop\nfilters: []\n")
        process = self.start("file=%s,format=raw,id=a,policy=stop"
                             % self.disk())
        qmp = Qmp(self.qmp_path())
        self.assertEqual([qmp.command("qom-get", {
            "path": "/machine/peripheral/a/virtio-backend", "property": name})
                          for name in ("werror", "rerror")], ["stop"] * 2)
        qmp.close()
        self.assertEqual(
            self.change("reapply", "--policy", "observe"),
            (1, "", "weir: VM 'vm', disk a: policy 'observe' has no "
             "'on-error', but the disk has it as stop since the VM was "
             "started\n"))
        self.stop(process)


class Refused(OutOfProcessTest):
    def refused(self, message, *disks, args=None):
        self.weir_fails("weir: " + message, *self.run_args(*disks),
                        *(args or self.QEMU_ARGS))
        self.assert_nothing_left()

    def test_devices(self):
        self.refused("disk a: found device=virtio-scsi, expected virtio-blk "
                     "or none for a disk out of process (policy 'out')",
                     self.out(device="virtio-scsi"))
        self.write("stop.yaml", "name: stop\non-error: stop\nfilters: []\n")
        self.refused("disk a: found device=none, expected a device: policy "
                     "'stop' has on-error, which is one of its options",
                     self.out(policy="stop", device="none"))

    def test_disk_of_another(self):
        process = self.start(self.out())
        self.weir_fails("weir: VM 'two': its storage daemon cannot be "
                        "started: disk a: another process writes to %s (it "
                        "has QEMU's lock)" % self.path("a.img"),
                        *self.run_args(self.out(), name="two"),
                        *self.QEMU_ARGS)
        self.stop(process)
        self.assert_nothing_left()

    def test_memory(self):
        self.refused("-m: found 'much', expected a size such as 512, 512M or "
                     "2G: disks out of process need memory of that size that "
                     "is shared", self.out(), args=["-m", "much"])

    def test_secret_of_qemu(self):
        self.write("key.yaml", OUT % ("key", """
  - weir-encryption: {key-secret: mine}"""))
        code, _, errors = self.weir(
            *self.run_args(self.out(policy="key")), *self.QEMU_ARGS)
        self.assertEqual(code, 1)
        self.assertIn("found secret 'mine', an object of QEMU, which a disk "
                      "out of process has not got", errors)
        self.assertIn(" for 'weir-encryption.key-secret'\n", errors)

    def test_one_log_in_two_processes(self):
        text = """
  - weir-replication:
      disk-id: ${disk}
      log: nbd+unix:///log?socket=%s""" % self.path("keeper.sock")
        self.write("far.yaml", OUT % ("far", text))
        self.write("near.yaml", "name: near\nfilters:%s\n" % text)
        code, _, errors = self.weir(
            *self.run_args(self.out("a", policy="far"),
                           self.out("b", policy="near")), *self.QEMU_ARGS)
        self.assertEqual(code, 1)
        self.assertIn("which a disk in another process has, expected all "
                      "disks with it to have the same 'run'", errors)


if __name__ == "__main__":
    unittest.main()
