#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of libvirt's domains out of process."""
import json
import os
import shutil
import signal
import stat
import time

from libvirttest import (GUARD_S, UID, WEIR, LibvirtTest, OtherHost, main,
                         virsh)

OUT = """name: %s
run: out-of-process
filters:
  - weir-inspect:
"""
PLUGINS = os.path.join(os.environ["WEIR_MESON_BUILD"], "tests", "plugins")
FAKE = "/run/fake"
# what systemctl does, as far as the hook asks for it
SYSTEMCTL = """#!/bin/sh
echo "$@" >> /run/fake/log
dir=/run/weir-libvirt/$(echo "$2" | sed 's/.*@\\(.*\\).service/\\1/')
case $1 in
cat) exit 0 ;;
start)
    setsid %s supervise --runtime-dir "$dir" < /dev/null > /dev/null 2>&1 &
    for i in $(seq 100); do
        grep -q '"pid": [1-9]' "$dir"/*.daemon && exit 0
        sleep 0.1
    done
    exit 1 ;;
stop)
    kill $(sed -n 's/.*"supervisor": \\([0-9]*\\).*/\\1/p' "$dir"/*.daemon) ;;
esac
""" % WEIR


def wait_for(condition, what):
    end = time.monotonic() + GUARD_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("timed out waiting for " + what)
        time.sleep(0.05)


class OutOfProcess(LibvirtTest):
    def setUp(self):
        super().setUp()
        self.policy("outside", OUT % "outside")

    def two_disks(self):
        return (("vda", "virtio", self.image(self.name + "-a.qcow2",
                                             qcow2=True), "qcow2"),
                ("vdb", "virtio", self.image(self.name + "-b.img"), "raw"))

    def folder(self):
        return "/run/weir-libvirt/" + virsh("domuuid", self.name).strip()

    def daemon_state(self):
        with open("%s/%s.daemon" % (self.folder(), self.name),
                  encoding="utf-8") as file:
            return json.load(file)

    def status(self):
        code, output, errors = self.weir("libvirt", "status", "--json",
                                         self.name)
        self.assertEqual(errors, "")
        return code, {disk["disk"]: disk for disk in json.loads(output)}

    def assert_nothing_runs(self):
        self.assertEqual(os.listdir("/run/weir-libvirt"), [])
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as file:
                    self.assertNotIn(b"supervise", file.read())
            except (FileNotFoundError, ProcessLookupError):
                pass

    def test_whole_life(self):
        virsh("define", self.written(self.xml(*self.two_disks())))
        before = virsh("dumpxml", "--inactive", self.name)
        self.weir_ok("libvirt", "apply", self.name, "--disk", "vda=outside",
                     "--disk", "vdb=observe")
        xml = virsh("dumpxml", "--inactive", self.name)
        self.assertRegex(xml, r"<disk type='vhostuser' device='disk'[^>]*>")
        self.assertIn("<reconnect enabled='yes' timeout='1'/>", xml)
        self.assertIn("<access mode='shared'/>", xml)
        self.weir_ok("libvirt", "start", self.name)
        path = "/run/weir-libvirt/%s.disks/vda" % self.name
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        self.assertEqual(os.stat(path).st_uid, UID)
        code, disks = self.status()
        self.assertEqual((code, {d: disks[d]["state"] for d in disks}), (
            0, {"vda": "compliant", "vdb": "compliant"}))
        self.survive()
        self.assertIn("is under policy 'outside', version 1, already",
                      self.weir_ok("reapply", "--runtime-dir", self.folder(),
                                   self.name, "vda"))
        # as do all that look at more than one VM
        disks = json.loads(self.weir_ok("status", "-c", "qemu:///system",
                                        "--json"))
        self.assertEqual([(disk["disk"], disk["state"], disk.get(
            "storage-daemon", {}).get("restarts")) for disk in disks], [
                ("vdb", "compliant", None), ("vda", "compliant", 1)])
        virsh("destroy", self.name)
        self.assert_nothing_runs()
        self.weir_ok("libvirt", "remove", self.name)
        self.assertEqual(virsh("dumpxml", "--inactive", self.name), before)

    def test_migration_is_refused(self):
        """By the hook there; the domain goes on here."""
        self.define(*self.two_disks(), policies=["vda=outside"])
        virsh("start", self.name)
        other = OtherHost()
        self.addCleanup(other.close)
        code, output = virsh(
            "migrate", self.name, other.URI, "--live", "--unsafe",
            "--migrateuri", "unix://%s/migration" % other.SOCKETS,
            check=False)
        self.assertEqual(code, 1)
        self.assertIn("domain '%s': disk 'vda' runs out of process, and "
                      "cannot migrate" % self.name, output)
        code, disks = self.status()
        self.assertEqual((code, disks["vda"]["state"]), (0, "compliant"))
        self.survive()

    def test_save_and_restore(self):
        self.define(*self.two_disks(), policies=["vda=outside"])
        virsh("start", self.name)
        virsh("save", self.name, self.path("save"))
        self.assert_nothing_runs()
        virsh("restore", self.path("save"))
        code, disks = self.status()
        self.assertEqual((code, disks["vda"]["state"]), (0, "compliant"))

    def test_plugins(self):
        """Two of them, which change and come and go with the daemon."""
        folder = "/run/weir-plugins"
        os.makedirs(folder, mode=0o755, exist_ok=True)
        for name in ("probe", "passing"):
            shutil.copy(os.path.join(PLUGINS, name + ".so"), folder)
        policy = """name: plugins
version: %d
run: out-of-process
filters:
  - weir-plugin: {plugin: /run/weir-plugins/probe.so, options: {hold-ms: %d}}
  - weir-plugin: {plugin: /run/weir-plugins/passing.so}
"""
        self.policy("plugins", policy % (1, 1))
        virsh("define", self.written(self.xml(*self.two_disks())))
        self.weir_ok("libvirt", "apply", self.name, "--disk", "vda=plugins",
                     "--disk", "vdb=observe")
        self.weir_ok("libvirt", "start", self.name)
        code, disks = self.status()
        self.assertEqual((code, [f["plugin"] for f in
                                 disks["vda"]["filters"]]),
                         (0, ["probe", "passing"]))
        self.policy("plugins", policy % (2, 2))
        self.assertIn("change options of weir-plugin:probe",
                      self.weir_ok("reapply", "--runtime-dir", self.folder(),
                                   self.name, "vda"))
        self.survive()
        self.assertEqual(self.status()[0], 0)
        virsh("destroy", self.name)
        self.assert_nothing_runs()

    def survive(self):
        """The daemon is killed, and the guest has its disk again."""
        os.kill(self.daemon_state()["pid"], signal.SIGKILL)
        wait_for(lambda: self.daemon_state()["restarts"] == 1 and
                 self.daemon_state()["pid"], "another daemon")
        code, disks = self.status()
        self.assertEqual((code, disks["vda"]["state"]), (0, "compliant"))
        self.assertIn("restarted 1 times", disks["vda"]["note"])

        def is_connected():
            chardevs = json.loads(virsh(
                "qemu-monitor-command", self.name,
                '{"execute": "query-chardev"}'))["return"]
            return any(c["filename"].endswith("disks/vda,server=off") or
                       "disks/vda" in c["filename"] and
                       "disconnected" not in c["filename"] for c in chardevs)
        wait_for(is_connected, "QEMU")

    def written(self, xml):
        path = self.path(self.name + ".xml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(xml)
        return path

    def test_transform_leads_back(self):
        text = self.xml(*self.two_disks())
        for xml in (text, text.replace("\n", ""), text.replace(
                "<memory ", "<memoryBacking><access mode='shared'/>"
                "</memoryBacking><memory ")):
            out = self.weir_ok("transform", "--disk", "vda=outside",
                               "--disk", "vdb=outside", text=xml)
            self.assertEqual(out.count("type='vhostuser'"), 2)
            self.assertEqual(out.count("<memoryBacking>"), 1)
            self.assertEqual(self.weir_ok("transform", text=out), out)
            self.assertEqual(self.weir_ok("transform", "--remove", text=out),
                             xml)

    def test_what_cannot_be_outside(self):
        a, b = self.two_disks()
        text = self.xml(a, b)
        name = "weir: domain '%s': " % self.name
        for xml, message in (
                (self.xml(("vda", "sata", *a[2:])), "disk 'vda': found bus "
                 "'sata', expected 'virtio' for a disk out of process"),
                (text.replace("<target dev='vda'", "<serial>1</serial>"
                              "<target dev='vda'"), "disk 'vda': found "
                 "<serial>, which a disk out of process cannot have"),
                (text.replace("<driver ", "<driver copy_on_read='on' ", 1),
                 "disk 'vda': found <driver copy_on_read=>, which a disk out "
                 "of process cannot have"),
                (text.replace("<memory ", "<memoryBacking><hugepages/>"
                              "</memoryBacking><memory "),
                 "found <memoryBacking> without <access mode='shared'/>, "
                 "expected it, as disk 'vda' is out of process")):
            self.assertEqual(
                self.weir("transform", "--disk", "vda=outside", text=xml),
                (1, "", name + message + "\n"))

    def test_daemon_that_cannot_start(self):
        a, b = self.two_disks()
        self.define(a, b, policies=["vda=outside"])
        os.unlink(a[2])
        code, output = virsh("start", self.name, check=False)
        self.assertEqual(code, 1)
        self.assertIn("No such file or directory", output)
        self.assert_nothing_runs()

    def test_policy_that_has_moved(self):
        self.policy("moves", OUT % "moves")
        self.define(*self.two_disks(), policies=["vda=moves"])
        self.policy("moves", "name: moves\nfilters: []\n")
        code, output = virsh("start", self.name, check=False)
        self.assertEqual(code, 1)
        self.assertIn("disk 'vda': policy 'moves' has 'run: in-process', but "
                      "the domain is made for the other one: 'weir libvirt "
                      "apply %s' makes it anew" % self.name, output)
        self.assert_nothing_runs()

    def test_on_error_in_process(self):
        self.policy("stops", "name: stops\non-error: stop\nfilters: []\n")
        self.define(*self.two_disks(), policies=["vdb=stops"])
        virsh("start", self.name)
        answer = virsh("qemu-monitor-command", self.name, json.dumps({
            "execute": "qom-get", "arguments": {
                "path": "/machine/peripheral/virtio-disk1/virtio-backend",
                "property": "werror"}}))
        self.assertEqual(json.loads(answer)["return"], "stop")

    def test_unit_of_systemd(self):
        os.makedirs("/run/systemd/system", exist_ok=True)
        self.addCleanup(os.rmdir, "/run/systemd/system")
        self.define(*self.two_disks(), policies=["vda=outside"])
        virsh("start", self.name)
        unit = "weir-storage@%s.service" % os.path.basename(self.folder())
        self.survive()
        virsh("destroy", self.name)
        self.assert_nothing_runs()
        with open(FAKE + "/log", encoding="utf-8") as file:
            verbs = [line.split() for line in file]
        self.assertIn(["start", unit], verbs)
        self.assertIn(["stop", unit], verbs)

    @classmethod
    def run_daemon(cls):
        """libvirtd, and so the hook, find our systemctl first."""
        os.mkdir(FAKE)
        with open(FAKE + "/systemctl", "w", encoding="utf-8") as file:
            file.write(SYSTEMCTL)
        os.chmod(FAKE + "/systemctl", 0o755)
        os.environ["PATH"] = FAKE + ":" + os.environ["PATH"]
        LibvirtTest.run_daemon()


if __name__ == "__main__":
    main()
