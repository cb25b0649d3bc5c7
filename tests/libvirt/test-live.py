#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir attach, detach and reapply for domains that run, and what libvirt knows
of it for their next start."""
import os
import re
import shutil
import signal
import subprocess
import time

from libvirttest import (UID, WEIR, LibvirtTest, has_format_over_raw, main, qmp,
                         virsh, write)

OBSERVED = ["weir-inspect", "file"]
CACHED = ["weir-inspect", "weir-cache", "file"]
DISK = "virtio-disk0"
PLUGINS = os.path.join(os.environ["WEIR_MESON_BUILD"], "tests", "plugins")


class Live(LibvirtTest):
    def run_plain(self, *disks):
        """A domain of which Weir knows nothing."""
        with open(self.path("l.xml"), "w", encoding="utf-8") as file:
            file.write(self.xml(*disks))
        virsh("define", self.path("l.xml"))
        virsh("start", self.name)
        return self.both()

    def both(self):
        """Its XML, at rest and as it runs; libvirt leaves an empty element.
        """
        return tuple(virsh("dumpxml", self.name, *options).replace(
            "  <metadata/>\n", "") for options in (["--inactive"], []))

    def does(self, result, *args):
        out = self.weir_ok(*args)
        self.assertEqual(out.splitlines()[-1],
                         "disk vda of VM %s is under %s" % (self.name, result))
        return out

    def fails(self, message, *args):
        before = self.both()
        code, _, errors = self.weir(*args)
        self.assertEqual(code, 1)
        self.assertIn(message, errors)
        self.assertEqual(self.both(), before)

    def assigned(self):
        """In the XML at rest and as it runs."""
        return tuple(re.findall('target="vda" policy="(.*?)"', xml)
                     for xml in self.both())


class OverRaw(Live):
    """Where libvirt has a format node over a raw image: see docs/libvirt.md."""

    def setUp(self):
        super().setUp()
        self.need_format_over_raw()


class Formats(Live):
    def test_qcow2(self):
        path = self.image("q.qcow2", qcow2=True)
        self.run_plain(("vda", "virtio", path, "qcow2"))
        self.does("policy 'cached', version 1", "attach", self.name, "vda",
                  "--policy", "cached")
        self.assertEqual(self.drivers(), ["qcow2", *CACHED])
        write(self.name, DISK, 5, 0)
        self.does("policy 'observe', version 1", "reapply", self.name, "vda",
                  "--policy", "observe")
        self.assertEqual(self.drivers(), ["qcow2", *OBSERVED])
        self.read(5)
        self.does("no policy", "detach", self.name, "vda")
        self.assertEqual(self.drivers(), ["qcow2", "file"])
        self.read(5)

    def test_write_back_beside_checkpoints(self):
        """libvirt would open an image past the cache."""
        path = self.image("h.qcow2", qcow2=True)
        self.run_plain(("vda", "virtio", path, "qcow2"))
        virsh("checkpoint-create-as", self.name, "c")
        self.fails("has checkpoints, with which libvirt opens images past a "
                   "cache", "attach", self.name, "vda", "--policy", "cached")
        self.assertEqual(self.drivers(), ["qcow2", "file"])
        self.does("policy 'observe', version 1", "attach", self.name, "vda",
                  "--policy", "observe")


    def test_raw_without_a_format_node(self):
        if has_format_over_raw():
            self.skipTest("this libvirt has a format node over a raw image")
        self.run_plain(("vda", "virtio", self.image("r.img"), "raw"))
        self.fails("libvirt has no format node for it", "attach", self.name,
                   "vda", "--policy", "observe")


class Changes(OverRaw):
    def test_from_nothing_and_back(self):
        before = self.run_plain(("vda", "virtio", self.image("a.img"), "raw"))
        self.does("policy 'cached', version 1", "attach", self.name, "vda",
                  "--policy", "cached")
        self.assertEqual(self.drivers(), CACHED)
        cache = self.path("ssd/%s-vda.cache" % self.name)
        self.assertEqual(os.stat(cache).st_uid, UID)
        self.assertEqual(self.assigned(), (["cached"], ["cached"]))
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)
        write(self.name, DISK, 3, 0)
        # the next start has the cache, and what is in it
        virsh("destroy", self.name)
        virsh("start", self.name)
        self.assertEqual(self.drivers(), CACHED)
        self.read(3)
        self.does("no policy", "detach", self.name, "vda")
        self.assertEqual(self.drivers(), ["file"])
        self.read(3)
        self.assertEqual(self.assigned(), ([], []))
        self.assertEqual(self.both()[0], before[0])
        self.does("no policy, already", "detach", self.name, "vda")
        virsh("destroy", self.name)
        self.assertEqual(os.listdir("/run/weir-libvirt"), [])
        virsh("start", self.name)
        self.read(3)

    def test_reapply(self):
        self.start(("vda", "virtio", self.image("b.img"), "raw"))
        top = self.chain()[1][0]
        self.policy("observe", "name: observe\nversion: 2\nfilters:\n"
                    "  - weir-inspect: {entropy: false}\n")
        self.addCleanup(self.policy, "observe", "name: observe\nfilters:\n"
                        "  - weir-inspect: {entropy: true}\n")
        out = self.does("policy 'observe', version 2", "reapply", "-c",
                        "qemu:///system", self.name, "vda")
        self.assertIn("change options of weir-inspect (node %s)" % top, out)
        self.does("policy 'observe', version 2, already", "reapply",
                  self.name, "vda")
        self.does("policy 'cached', version 1", "reapply", self.name, "vda",
                  "--policy", "cached")
        self.assertEqual(self.drivers(), CACHED)
        self.assertEqual(self.assigned(), (["cached"], ["cached"]))
        # libvirt still finds its node
        self.assertEqual(self.chain()[1][0], top)
        virsh("domblkthreshold", self.name, "vda", "1M")

    def test_libvirts_name_comes_back(self):
        self.start(("vda", "virtio", self.image("c.img"), "raw"))
        before = self.chain()
        self.does("no policy", "detach", self.name, "vda")
        self.assertEqual(virsh("domblkthreshold", self.name, "vda", "1M",
                               check=False)[0], 1)
        self.does("policy 'observe', version 1", "attach", self.name, "vda",
                  "--policy", "observe")
        self.assertEqual(self.chain(), before)
        virsh("domblkthreshold", self.name, "vda", "1M")
        virsh("blockcopy", self.name, "vda", self.path("c.copy"), "--wait",
              "--transient-job", "--format", "raw", "--pivot")
        self.assertEqual([n for n in self.nodes() if "weir" in n], [])

    def test_disk_that_was_plugged_in(self):
        self.run_plain(("vda", "virtio", self.image("d.img"), "raw"))
        with open(self.path("disk.xml"), "w", encoding="utf-8") as file:
            file.write(self.disk_xml(("sda", "scsi", self.image("e.img"),
                                      "raw")))
        virsh("attach-device", self.name, self.path("disk.xml"), "--live")
        before = self.both()[0]
        self.weir_ok("attach", self.name, "sda", "--policy", "observe")
        self.assertEqual(self.drivers("scsi0-0-0-0"), OBSERVED)
        self.assertEqual(self.both()[0], before)
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)

    def test_transient_domain(self):
        with open(self.path("t.xml"), "w", encoding="utf-8") as file:
            file.write(self.xml(("vda", "virtio", self.image("t.img"),
                                 "raw")))
        virsh("create", self.path("t.xml"))
        self.does("policy 'observe', version 1", "attach", self.name, "vda",
                  "--policy", "observe")
        self.assertEqual(self.drivers(), OBSERVED)
        self.does("policy 'observe', version 1, already", "reapply",
                  self.name, "vda")
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)

    def test_saved_and_restored(self):
        """The XML of this run is that of before."""
        self.run_plain(("vda", "virtio", self.image("v.img"), "raw"))
        self.does("policy 'cached', version 1", "attach", self.name, "vda",
                  "--policy", "cached")
        write(self.name, DISK, 6, 0)
        virsh("save", self.name, self.path("v.save"))
        virsh("restore", self.path("v.save"))
        self.assertEqual(self.drivers(), CACHED)
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)
        self.does("no policy", "detach", self.name, "vda")
        virsh("save", self.name, self.path("v.save"))
        virsh("restore", self.path("v.save"))
        self.assertEqual(self.drivers(), ["file"])
        self.read(6)
        virsh("destroy", self.name)
        self.assertEqual(os.listdir("/run/weir-libvirt"), [])

    def test_after_a_snapshot(self):
        self.start(("vda", "virtio", self.image("s.img"), "raw"),
                   policies=["vda=cached"])
        write(self.name, DISK, 4, 0)
        virsh("snapshot-create-as", self.name, "s", "--disk-only",
              "--no-metadata", "--diskspec",
              "vda,file=" + self.path("s.over"))
        self.does("policy 'cached', version 1", "reapply", self.name, "vda")
        self.assertEqual(self.drivers(), ["qcow2", *CACHED])
        self.does("no policy", "detach", self.name, "vda")
        self.assertEqual(self.drivers(), ["qcow2", "file"])
        self.assertEqual(len(qmp(self.name, "query-weir")), 0)
        self.read(4)


class Plugins(OverRaw):
    """Two of them on a disk, of which each is what it says of itself."""

    POLICY = """name: plugins
version: %d
filters:
  - weir-plugin: {plugin: /run/weir-plugins/probe.so, options: {%s}}
  - weir-plugin: {plugin: /run/weir-plugins/passing.so}
"""

    def setUp(self):
        super().setUp()
        folder = "/run/weir-plugins"
        os.makedirs(folder, mode=0o755, exist_ok=True)
        for name in ("probe", "passing", "mask", "worker"):
            shutil.copy(os.path.join(PLUGINS, name + ".so"), folder)
        self.policy("plugins", self.POLICY % (1, "mode: forward"))
        self.policy("mask", "name: mask\nfilters:\n  - weir-plugin: {plugin: "
                    "%s/mask.so}\n" % folder)

    def plugins(self):
        return [(f["plugin"], f["options"].get("mode"))
                for f in qmp(self.name, "query-weir")]

    def test_live(self):
        before = self.run_plain(("vda", "virtio", self.image("p.img"), "raw"))
        self.does("policy 'plugins', version 1", "attach", self.name, "vda",
                  "--policy", "plugins")
        self.assertEqual(sorted(self.plugins()),
                         [("passing", None), ("probe", "forward")])
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)
        write(self.name, DISK, 3, 0)
        self.policy("plugins", self.POLICY % (2, "hold-ms: 1"))
        self.assertIn("change options of weir-plugin:probe (node ",
                      self.does("policy 'plugins', version 2", "reapply",
                                self.name, "vda"))
        self.assertIn(("probe", "pass"), self.plugins())
        self.fails("weir-plugin:mask cannot be attached to a disk in use",
                   "reapply", self.name, "vda", "--policy", "mask")
        self.does("no policy", "detach", self.name, "vda")
        self.assertEqual(self.plugins(), [])
        self.read(3)
        self.assertEqual(self.both()[0], before[0])

    def test_from_the_start(self):
        self.start(("vda", "virtio", self.image("f.img"), "raw"),
                   policies=["vda=plugins"])
        self.assertEqual(sorted(self.plugins()),
                         [("passing", None), ("probe", "forward")])
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)
        top = self.chain()[1][0]
        self.policy("plugins", self.POLICY % (2, ""))
        self.assertIn("change options of weir-plugin:probe (node %s)" % top,
                      self.does("policy 'plugins', version 2", "reapply",
                                self.name, "vda"))
        virsh("domblkthreshold", self.name, "vda", "1M")
        virsh("snapshot-create-as", self.name, "s", "--disk-only",
              "--no-metadata", "--diskspec",
              "vda,file=" + self.path("f.over"))
        self.does("policy 'plugins', version 2", "reapply", self.name, "vda")
        self.assertEqual(self.drivers()[1:3], ["weir-plugin"] * 2)
        self.does("no policy", "detach", self.name, "vda")
        self.assertEqual(self.plugins(), [])

    def test_sidecar_after_a_snapshot(self):
        """It is in the way of the plugin above the overlay."""
        self.policy("side", "name: side\nfilters:\n  - weir-plugin: {plugin: "
                    "/run/weir-plugins/worker.so, sidecar: 'create:1M:%s'}\n"
                    % self.path("ssd/side"))
        self.start(("vda", "virtio", self.image("w.img"), "raw"),
                   policies=["vda=side"])
        write(self.name, DISK, 5, 0)
        virsh("snapshot-create-as", self.name, "s", "--disk-only",
              "--no-metadata", "--diskspec",
              "vda,file=" + self.path("w.over"))
        self.does("policy 'side', version 1", "reapply", self.name, "vda")
        self.assertEqual(self.drivers(), ["qcow2", "weir-plugin", "file"])
        self.assertEqual(self.plugins(), [("worker", None)])
        self.read(5)

    def test_what_a_disk_loses(self):
        self.define(("vda", "virtio", self.image("m.img"), "raw"),
                    policies=["vda=mask"])
        code, _, errors = self.weir("libvirt", "remove", self.name)
        self.assertEqual((code, errors), (
            0, "weir: disk 'vda': weir-plugin:mask of policy 'mask' has "
            "changed what is on the disk, which stays so\n"))


class Refusals(OverRaw):
    def test_everything_is_as_before(self):
        self.run_plain(("vda", "virtio", self.image("f.img"), "raw"))
        self.policy("above", "name: above\nfilters:\n  - weir-inspect:\n"
                    "    place: disk\n")
        self.policy("room", "name: room\nfilters:\n  - weir-inspect:\n"
                    "  - weir-cache: {cache-file: "
                    "'create:16M:/nonexistent/a.cache'}\n")
        self.policy("key", "name: key\nfilters:\n  - weir-encryption: "
                    "{key-secret: 'file:/nonexistent/k'}\n")
        for policy, message in (
                ("nothing", "nothing"),
                ("above", "found place 'disk', expected 'storage'"),
                ("room", "cannot make /nonexistent/a.cache: No such file or "
                 "directory; everything is as before"),
                ("key", "weir-encryption cannot be attached to a disk in use: "
                 "the data on it is not encrypted")):
            self.fails(message, "attach", self.name, "vda", "--policy",
                       policy)
            self.assertEqual(self.drivers(), ["file"])
        self.fails("has no disk 'vdz'", "attach", self.name, "vdz",
                   "--policy", "observe")
        self.assertEqual(self.weir_ok("attach", "-n", self.name, "vda",
                                      "--policy", "observe"),
                         "attach weir-inspect (node weir-vda-inspect) above "
                         "node libvirt-1-storage\n")
        self.does("policy 'observe', version 1", "attach", self.name, "vda",
                  "--policy", "observe")
        self.fails("is under policy 'observe': weir reapply", "attach",
                   self.name, "vda", "--policy", "cached")

    def test_of_whom(self):
        self.run_plain(("vda", "virtio", self.image("g.img"), "raw"))
        self.assertEqual(self.weir("detach", "nobody", "vda"), (
            1, "", "weir: there is no VM 'nobody' in /run/weir\n"))
        code, _, errors = self.weir("detach", "-c", "qemu:///system",
                                    "nobody", "vda")
        self.assertEqual(code, 1)
        self.assertIn("Domain not found", errors)
        self.assertEqual(self.weir(
            "detach", "-c", "qemu:///system", "--runtime-dir", "/run/weir",
            self.name, "vda")[0], 2)
        virsh("destroy", self.name)
        self.assertEqual(self.weir("detach", self.name, "vda"), (
            1, "", "weir: domain '%s' does not run\n" % self.name))


class Kills(OverRaw):
    def test_weir_is_killed(self):
        """Somebody finds what was begun and ends it, or it had not begun."""
        self.run_plain(("vda", "virtio", self.image("k.img"), "raw"))
        for n in range(5):
            for command, chains in (
                    (["attach", "--policy", "cached"], (CACHED, ["file"])),
                    (["detach"], (["file"], CACHED))):
                process = subprocess.Popen(
                    [WEIR, *command, self.name, "vda"],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(0.06 * n)
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.assertEqual(self.weir("watch", "--once")[0], 0)
                self.assertIn(self.drivers(), chains)
                wanted = ["cached"] if self.drivers() == CACHED else []
                self.assertEqual(self.assigned()[1], wanted)
            self.weir_ok("detach", self.name, "vda")
            self.assertEqual(self.drivers(), ["file"])
            self.assertEqual(self.assigned(), ([], []))


if __name__ == "__main__":
    main()
