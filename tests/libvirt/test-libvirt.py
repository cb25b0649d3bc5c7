#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of a real libvirt under policies, and what libvirt does with them."""
import json
import os
import re
import time

from libvirttest import (GUARD_S, UID, WEIR, LibvirtTest, OtherHost,
                         main, qmp, virsh, write)

OBSERVED = ["weir-inspect", "file"]
QCOW2 = ["qcow2", "weir-inspect", "file"]
DISK = "virtio-disk0"
MIB = 1 << 20


class Starting(LibvirtTest):
    def test_chain_is_under_the_format_node(self):
        self.start(("vda", "virtio", self.image("a.qcow2", qcow2=True),
                    "qcow2"))
        self.assertEqual(self.chain(), [
            ("libvirt-1-format", "qcow2"),
            ("libvirt-1-storage", "weir-inspect"),
            ("weir-vda-storage", "file")])
        [node] = qmp(self.name, "query-weir")
        self.assertEqual((node["driver"], node["place"], node["state"]),
                         ("weir-inspect", "storage", "ok"))

    def test_other_disks_are_as_they_were(self):
        self.start(("vda", "virtio", self.image("b.img"), "raw"),
                   ("vdb", "virtio", self.image("c.img"), "raw"),
                   policies=["vdb=observe"])
        self.assertEqual(self.drivers(), ["file"])
        self.assertEqual(self.drivers("virtio-disk1"), OBSERVED)

    def test_buses_and_formats(self):
        self.start(("sda", "scsi", self.image("d.qcow2", qcow2=True),
                    "qcow2"), ("sdb", "sata", self.image("e.img"), "raw"),
                   policies=["sda=observe", "sdb=observe"])
        self.assertEqual(self.drivers("scsi0-0-0-0"), QCOW2)
        self.assertEqual(self.drivers("sata0-0-1"), OBSERVED)

    def test_image_with_a_backing_file(self):
        path = self.image("o.qcow2", qcow2=True, base=self.image("o.base"))
        self.start(("vda", "virtio", path, "qcow2"))
        self.assertEqual(self.drivers(), QCOW2)
        [node] = qmp(self.name, "query-weir")
        self.assertEqual(node["node-name"], self.chain()[1][0])

    def test_iothread_and_cache_mode(self):
        try:
            os.close(os.open(self.image("i.img"), os.O_RDWR | os.O_DIRECT))
        except OSError:
            self.skipTest("this kernel's tmpfs has no O_DIRECT")
        self.weir_ok("libvirt", "define", "-", "--policy", "cached",
                     text=self.xml(
                         ("vda", "virtio", self.image("i.img"), "raw"))
                     .replace("<memory ", "<iothreads>1</iothreads><memory ")
                     .replace("<driver ", "<driver iothread='1' cache='none' "
                              "io='threads' "))
        self.weir_ok("libvirt", "start", self.name)
        self.assertEqual(self.drivers(),
                         ["weir-inspect", "weir-cache", "file"])
        nodes = self.nodes()
        for name, _ in self.chain():
            self.assertTrue(nodes[name]["cache"]["direct"], name)

    def test_libvirt_sees_nothing_custom(self):
        self.define(("vda", "virtio", self.image("t.img"), "raw"))
        virsh("start", self.name)
        with open("/var/log/libvirt/qemu/%s.log" % self.name,
                  encoding="utf-8") as file:
            self.assertNotIn("is tainted", file.read())

    def test_files_of_filters_are_made_for_qemus_user(self):
        self.start(("vda", "virtio", self.image("f.img"), "raw"),
                   policies=["vda=cached"])
        self.assertEqual(self.drivers(),
                         ["weir-inspect", "weir-cache", "file"])
        cache = os.stat(self.path("ssd/%s-vda.cache" % self.name))
        self.assertEqual((cache.st_uid, cache.st_size), (UID, 16 * MIB))

    def test_secrets_are_there_for_the_start_only(self):
        image = self.encrypted("g.img", "secret")
        self.start(("vda", "virtio", image, "raw"), policies=["vda=secret"])
        self.assertEqual(self.drivers(), ["weir-encryption", "file"])
        uuid = virsh("domuuid", self.name).strip()
        self.assertEqual(os.listdir("/run/weir-libvirt/" + uuid),
                         [self.name + ".json"])
        virsh("destroy", self.name)
        self.assertEqual(os.listdir("/run/weir-libvirt"), [])

    def test_transient_domain(self):
        xml = self.weir_ok("transform", "--policy", "observe", text=self.xml(
            ("vda", "virtio", self.image("h.img"), "raw")))
        with open(self.path("h.xml"), "w", encoding="utf-8") as file:
            file.write(xml)
        virsh("create", self.path("h.xml"))
        self.assertEqual(self.drivers(), OBSERVED)


class Jobs(LibvirtTest):
    """What libvirt does with disks goes on working, and the chain stays."""

    def fill(self, pattern, offset=0):
        write(self.name, DISK, pattern, offset)
        self.read(pattern, offset)

    def snapshot(self, name):
        virsh("snapshot-create-as", self.name, "s", "--disk-only",
              "--no-metadata", "--diskspec", "vda,file=" + self.path(name))

    def test_snapshot_and_blockcommit(self):
        self.start(("vda", "virtio", self.image("a.img"), "raw"))
        self.fill(1)
        self.snapshot("a.over")
        self.fill(2, 65536)
        # the gap that status tells of: the overlay is past the filter
        self.assertEqual(self.drivers(), ["qcow2", "file"])
        code, out, _ = self.weir("libvirt", "status", self.name)
        self.assertEqual(code, 3)
        self.assertIn("weir-inspect is only below a backing file", out)
        virsh("blockcommit", self.name, "vda", "--active", "--pivot",
              "--wait")
        self.assertEqual(self.drivers(), OBSERVED)
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)
        self.read(1)
        self.read(2, 65536)

    def reapply(self, *lines):
        """Times are left out."""
        out = re.sub(r"(gap from (some time after )?)\S+Z", r"\1T",
                     self.weir_ok("libvirt", "reapply", self.name))
        self.assertEqual(
            re.sub(r" to \S+Z \((at most )?[0-9.]+ s\)", " to T", out),
            "".join("domain '%s'%s\n" % (self.name, line) for line in lines))

    def test_reapply_after_a_snapshot(self):
        self.start(("vda", "virtio", self.image("r.img"), "raw"))
        before = self.chain()
        self.snapshot("r.over")
        gap = "gap from some time after T%s: weir-inspect is only below a " \
            "backing file"
        self.reapply(", disk vda: policy 'observe': " + gap % "",
                     ", disk vda: policy 'observe', re-established: "
                     + gap % " to T")
        self.assertEqual(self.drivers(), QCOW2)
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 0)
        self.reapply()
        self.fill(3)
        virsh("blockcommit", self.name, "vda", "--active", "--pivot",
              "--wait")
        self.assertEqual(self.chain(), before)
        self.read(3)
        # libvirt could not delete the overlay's node below the filter
        self.reapply(": node weir-vda-inspect, which nobody used any more, "
                     "was deleted")
        self.assertEqual({n for n in self.nodes() if not n.startswith("#")},
                         {name for name, _ in before})

    def test_reapply_refuses_what_needs_other_data(self):
        self.policy("copied", "name: copied\nfilters:\n  - weir-inspect:\n"
                    "  - weir-replication: {disk-id: d, log: /log, "
                    "sidecar: 'create:1M:/run/side'}\n")
        self.start(("vda", "virtio", self.image("x.img"), "raw"))
        virsh("metadata", self.name, "urn:weir:domain:1", "--live", "--key",
              "weir", "--set", "<policies><disk target='vda' "
              "policy='copied'/></policies>")
        self.snapshot("x.over")
        code, out, errors = self.weir("libvirt", "reapply", self.name)
        self.assertEqual((code, errors), (1, ""))
        self.assertIn("policy 'copied' cannot be re-established: VM '%s', "
                      "disk vda: weir-replication cannot be attached to a "
                      "disk in use: the disk has a snapshot" % self.name, out)
        self.assertEqual(self.drivers(), ["qcow2", "file"])
        code, out, _ = self.weir("libvirt", "status", self.name)
        self.assertEqual(code, 3)
        self.assertIn("policy 'copied' is assigned and was not established; "
                      "gap from", out)

    def test_blockcommit_with_a_backing_chain(self):
        self.start(("vda", "virtio", self.image("b.qcow2", qcow2=True),
                    "qcow2"))
        self.fill(1)
        self.snapshot("b.1")
        self.snapshot("b.2")
        self.fill(3)
        virsh("blockcommit", self.name, "vda", "--active", "--pivot",
              "--wait")
        self.assertEqual(self.drivers(), QCOW2)
        self.read(3)

    def test_internal_snapshot_and_revert(self):
        self.start(("vda", "virtio", self.image("n.qcow2", qcow2=True),
                    "qcow2"))
        self.fill(1)
        virsh("snapshot-create-as", self.name, "s")
        self.fill(2)
        virsh("snapshot-revert", self.name, "s", "--running")
        self.assertEqual(self.drivers(), QCOW2)
        self.read(1)

    def test_blockcopy(self):
        self.start(("vda", "virtio", self.image("c.img"), "raw"))
        self.fill(4)
        virsh("blockcopy", self.name, "vda", self.path("c.copy"), "--wait",
              "--transient-job", "--format", "raw", "--finish")
        self.assertEqual(self.drivers(), OBSERVED)
        with open(self.path("c.copy"), "rb") as file:
            self.assertEqual(file.read(65536), bytes([4]) * 65536)

    def test_blockcopy_with_pivot_leaves_the_policy(self):
        self.start(("vda", "virtio", self.image("d.img"), "raw"))
        self.fill(5)
        virsh("blockcopy", self.name, "vda", self.path("d.copy"), "--wait",
              "--transient-job", "--format", "raw", "--pivot")
        self.read(5)
        self.assertEqual(self.drivers(), ["file"])
        self.assertEqual([n for n in self.nodes() if "weir" in n], [])
        self.assertEqual(self.weir("libvirt", "status", self.name)[0], 3)

    def test_blockresize(self):
        self.start(("vda", "virtio", self.image("e.img"), "raw"))
        virsh("blockresize", self.name, "vda", "12M")
        self.assertEqual(os.path.getsize(self.path("e.img")), 12 * MIB)
        sizes = {n["device"] or n["inserted"]["node-name"]:
                 n["inserted"]["image"]["virtual-size"]
                 for n in qmp(self.name, "query-block")}
        self.assertEqual(set(sizes.values()), {12 * MIB})
        self.fill(6, 11 * MIB)
        self.read(6, 11 * MIB)
        self.assertEqual(self.drivers(), OBSERVED)

    def test_domblkstat(self):
        self.start(("vda", "virtio", self.image("f.img"), "raw"))
        # the firmware looks for something to boot
        end = time.monotonic() + GUARD_S
        while re.search("rd_bytes 0$", virsh("domblkstat", self.name, "vda"),
                        re.M):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        info = virsh("domblkinfo", self.name, "vda")
        self.assertRegex(info, r"Capacity: +%d\n" % (8 * MIB))
        self.assertRegex(info, r"Physical: +%d\n" % (8 * MIB))

    def test_domblkthreshold(self):
        self.start(("vda", "virtio", self.image("g.qcow2", qcow2=True),
                    "qcow2"))
        virsh("domblkthreshold", self.name, "vda", "1M")
        self.assertEqual(self.nodes()["libvirt-1-storage"]
                         ["write_threshold"], MIB)

    def test_blkdeviotune(self):
        self.start(("vda", "virtio", self.image("h.img"), "raw"))
        virsh("blkdeviotune", self.name, "vda", "--total-bytes-sec",
              str(50 * MIB))
        self.fill(8)
        self.assertEqual(self.drivers(), OBSERVED)

    def test_save_and_restore(self):
        self.start(("vda", "virtio", self.image("i.img"), "raw"),
                   policies=["vda=cached"])
        self.fill(9)
        virsh("save", self.name, self.path("i.save"))
        virsh("restore", self.path("i.save"))
        self.assertEqual(self.drivers(),
                         ["weir-inspect", "weir-cache", "file"])
        self.read(9)

    def test_cache_is_written_back_before_it_is_removed(self):
        self.start(("vda", "virtio", self.image("w.img"), "raw"),
                   policies=["vda=cached"])
        self.fill(5)
        qmp(self.name, "weir-detach", **{"node-name": "weir-vda-cache"})
        self.assertEqual(self.drivers(), OBSERVED)
        virsh("destroy", self.name)
        with open(self.path("w.img"), "rb") as file:
            self.assertEqual(file.read(65536), bytes([5]) * 65536)

    def test_restart_of_libvirtd(self):
        self.start(("vda", "virtio", self.image("j.img"), "raw"))
        self.daemon.terminate()
        self.daemon.wait()
        self.run_daemon()
        self.assertEqual(self.drivers(), OBSERVED)
        self.snapshot("j.over")
        virsh("blockcommit", self.name, "vda", "--active", "--pivot",
              "--wait")
        self.assertEqual(self.drivers(), OBSERVED)


class Migration(LibvirtTest):
    def test_live_migration(self):
        """The other host has a hook, policies and an SSD of its own."""
        image = self.image("m.img")
        self.start(("vda", "virtio", image, "raw"), policies=["vda=cached"])
        write(self.name, DISK, 6, 0)
        other = OtherHost()
        self.addCleanup(other.close)
        self.addCleanup(other.run, "virsh", "-c", other.URI, "destroy",
                        self.name)
        # that the image is on storage of both, libvirt cannot know here
        virsh("migrate", self.name, other.URI, "--live", "--unsafe",
              "--migrateuri", "unix://%s/migration" % other.SOCKETS)
        self.assertEqual(os.listdir("/run/weir-libvirt"), [])
        status = other.run(WEIR, "libvirt", "status", "-c", other.URI,
                           "--json")
        self.assertEqual([(d["disk"], d["state"])
                          for d in json.loads(status.stdout)],
                         [("vda", "compliant")])
        with open(image, "rb") as file:
            self.assertEqual(file.read(65536), bytes([6]) * 65536)


class Hotplug(LibvirtTest):
    def attach(self, target, path):
        with open(self.path("disk.xml"), "w", encoding="utf-8") as file:
            file.write(self.disk_xml((target, "scsi", path, "raw")))
        virsh("attach-device", self.name, self.path("disk.xml"), "--live")

    def test_attach_and_detach_of_another_disk(self):
        self.start(("vda", "virtio", self.image("a.img"), "raw"))
        self.attach("sda", self.image("b.img"))
        self.assertEqual(self.drivers("scsi0-0-0-0"), ["file"])
        virsh("detach-disk", self.name, "sda")
        self.assertEqual(self.drivers(), OBSERVED)

    def test_detach_of_a_disk_with_a_policy_leaves_no_node(self):
        self.start(("vda", "virtio", self.image("c.img"), "raw"),
                   ("sda", "scsi", self.image("d.img"), "raw"),
                   policies=["vda=observe", "sda=cached"])
        self.assertEqual(self.drivers("scsi0-0-0-0"),
                         ["weir-inspect", "weir-cache", "file"])
        virsh("detach-disk", self.name, "sda")
        self.assertEqual(
            {n for n in self.nodes() if not n.startswith("#")},
            {name for name, _ in self.chain()})
        # so it can be given back
        self.attach("sda", self.path("d.img"))

    def test_attach_does_not_filter(self):
        """Told by status: libvirt does not ask anybody about it."""
        self.start(("vda", "virtio", self.image("e.img"), "raw"),
                   ("sda", "scsi", self.image("f.img"), "raw"),
                   policies=["vda=observe", "sda=observe"])
        virsh("detach-disk", self.name, "sda")
        code, out, _ = self.weir("libvirt", "status", "--json", self.name)
        self.assertEqual((code, [d["disk"] for d in json.loads(out)]),
                         (0, ["vda"]))
        self.attach("sda", self.path("f.img"))
        code, out, _ = self.weir("libvirt", "status", "--json", self.name)
        states = {d["disk"]: d["state"] for d in json.loads(out)}
        self.assertEqual((code, states), (3, {"vda": "compliant",
                                              "sda": "non-compliant"}))


class Hook(LibvirtTest):
    def refused(self, *messages):
        code, out = virsh("start", self.name, check=False)
        self.assertEqual(code, 1, out)
        for message in messages:
            self.assertIn(message, out)
        self.assertEqual(virsh("domstate", self.name).strip(), "shut off")
        self.assertEqual(os.listdir("/run/weir-libvirt"), [])

    def define_for(self, policy):
        self.policy(policy, "name: %s\nfilters:\n  - weir-inspect:\n"
                    % policy)
        self.define(("vda", "virtio", self.image(policy + ".img"), "raw"),
                    policies=["vda=" + policy])
        os.makedirs("/run/weir-libvirt", exist_ok=True)

    def test_refuses_without_the_policy(self):
        self.define_for("gone")
        os.unlink("/etc/weir/policies.d/gone.yaml")
        self.refused("disk 'vda': ", "gone")

    def test_refuses_with_a_wrong_policy(self):
        self.define_for("wrong")
        self.policy("wrong", "name: wrong\nfilters:\n  - weir-inspect: "
                    "{entropyy: true}\n")
        self.refused("wrong.yaml:3:20: found unknown option 'entropyy'")

    def test_refuses_a_policy_that_the_driver_refuses(self):
        self.define_for("range")
        self.policy("range", "name: range\nfilters:\n  - weir-inspect: "
                    "{entropy-high: 9.5}\n")
        self.refused("range.yaml:3:5: weir-inspect refuses its options")

    def test_refuses_filters_above_the_format_node(self):
        self.define_for("above")
        self.policy("above", "name: above\nfilters:\n  - weir-inspect:\n"
                    "    place: disk\n")
        self.refused("above.yaml:3:5: found place 'disk', expected 'storage'")

    def test_refuses_another_run_mode(self):
        self.define_for("keys")
        self.policy("keys", "name: keys\nrun: out-of-process\nfilters:\n"
                    "  - weir-inspect:\n")
        self.refused("disk 'vda': policy 'keys' has 'run: out-of-process', "
                     "but the domain is made for the other one")

    def test_refuses_what_cannot_be_made(self):
        self.define_for("room")
        self.policy("room", "name: room\nfilters:\n  - weir-cache: "
                    "{cache-file: 'create:16M:/nonexistent/a.cache'}\n")
        self.refused("cannot make /nonexistent/a.cache")

    def test_refuses_a_secret_that_is_not_there(self):
        self.define_for("key")
        self.policy("key", "name: key\nfilters:\n  - weir-encryption: "
                    "{key-secret: 'file:/nonexistent/k'}\n")
        self.refused("cannot read secret /nonexistent/k")

    def test_refuses_another_emulator(self):
        self.define_for("other")
        xml = virsh("dumpxml", self.name, "--inactive")
        with open(self.path("other.xml"), "w", encoding="utf-8") as file:
            file.write(xml.replace("bin/weir-qemu<",
                                   "bin/qemu-system-x86_64<"))
        virsh("define", self.path("other.xml"))
        self.refused("expected weir-qemu")
        # and says how to mend it
        self.weir_ok("libvirt", "apply", self.name)
        virsh("start", self.name)

    def test_emulator_refuses_without_the_hook(self):
        self.define_for("unhooked")
        os.unlink("/etc/libvirt/hooks/qemu.d/weir")
        try:
            self.refused("is the hook of Weir installed")
        finally:
            self.install_hook()

    def test_domain_without_policies_is_let_pass(self):
        """Also one that weir would not read."""
        deep = "<d xmlns='urn:d'>" + "<d>" * 70 + "</d>" * 71
        with open(self.path("plain.xml"), "w", encoding="utf-8") as file:
            file.write(self.xml(
                ("vda", "virtio", self.image("plain.img"), "raw"),
                metadata="<metadata>%s</metadata>" % deep))
        virsh("define", self.path("plain.xml"))
        virsh("start", self.name)
        self.assertEqual(self.drivers(), ["file"])


class Binding(LibvirtTest):
    """A cache is not forgotten, neither with the domain's metadata nor with
    its policy."""

    def test_domain_without_its_cache(self):
        image = self.image("bound.img")
        cache = self.path("ssd/%s-vda.cache" % self.name)
        self.policy("bound", "name: bound\nfilters:\n  - weir-cache: "
                    "{cache-file: 'create:16M:%s', dirty-age: 0, idle: 0}\n"
                    % cache)
        self.start(("vda", "virtio", image, "raw"), policies=["vda=bound"])
        write(self.name, DISK, 7, 0)
        virsh("destroy", self.name)
        # another policy
        xml = virsh("dumpxml", self.name, "--inactive")
        virsh("define", self.write_xml(xml.replace('"bound"', '"observe"')))
        self.refused("policy 'observe' leaves that out", cache)
        code, _, errors = self.weir("libvirt", "apply", self.name, "--disk",
                                    "vda=observe")
        self.assertEqual(code, 1)
        self.assertIn("policy 'observe' leaves that out", errors)
        # none
        self.assertEqual(self.weir("libvirt", "remove", self.name)[0], 0)
        self.refused("it is under no policy now", cache)
        self.weir_ok("binding", "drain", image)
        virsh("start", self.name)
        with open(image, "rb") as file:
            self.assertEqual(file.read(65536), bytes([7]) * 65536)

    def write_xml(self, text):
        with open(self.path("bound.xml"), "w", encoding="utf-8") as file:
            file.write(text)
        return file.name

    def refused(self, why, cache):
        code, errors = virsh("start", self.name, check=False)
        self.assertNotEqual(code, 0)
        self.assertIn("its cache %s has blocks that were not written back; %s"
                      % (cache, why), errors)


class Defining(LibvirtTest):
    def original(self):
        """A domain without policies; returns its XML as libvirt has it."""
        with open(self.path("o.xml"), "w", encoding="utf-8") as file:
            file.write(self.xml(("vda", "virtio", self.image("o.img"),
                                 "raw")))
        virsh("define", self.path("o.xml"))
        return virsh("dumpxml", self.name, "--inactive")

    def test_remove_gives_the_original_back(self):
        before = self.original()
        self.weir_ok("libvirt", "apply", self.name, "--disk", "vda=observe")
        between = virsh("dumpxml", self.name, "--inactive")
        self.assertIn("weir-qemu</emulator>", between)
        self.assertIn('policy="observe"', between)
        self.weir_ok("libvirt", "remove", self.name)
        self.assertEqual(virsh("dumpxml", self.name, "--inactive"), before)

    def test_remove_tells_what_the_disks_lose(self):
        self.original()
        self.weir_ok("libvirt", "apply", self.name, "--disk", "vda=cached")
        code, _, errors = self.weir("libvirt", "remove", self.name)
        self.assertEqual((code, errors), (
            0, "weir: disk 'vda': weir-cache of policy 'cached' may hold "
            "writes that the disk lacks\n"))

    def test_remove_keeps_what_was_changed_since(self):
        before = self.original()
        self.weir_ok("libvirt", "apply", self.name, "--disk", "vda=observe")
        virsh("metadata", self.name, "urn:other", "--config", "--key", "o",
              "--set", "<note>kept</note>")
        virsh("setmaxmem", self.name, "64M", "--config")
        self.weir_ok("libvirt", "remove", self.name)
        after = virsh("dumpxml", self.name, "--inactive")
        self.assertRegex(after, "<o:note .*>kept</o:note>")
        self.assertIn(">65536</memory>", after)
        self.assertNotIn("weir", after.replace("weir-test", "").replace(
            "weir-libvirt", ""))
        self.assertEqual(re.search("<emulator>.*", after)[0],
                         re.search("<emulator>.*", before)[0])

    def test_policies_of_an_orchestrator(self):
        """They are in the metadata already; remove leaves them there."""
        metadata = """  <metadata>
    <w:policies xmlns:w="urn:weir:domain:1">
      <w:disk target="vda" policy="observe"/>
    </w:policies>
  </metadata>
"""
        self.weir_ok("libvirt", "define", "-", text=self.xml(
            ("vda", "virtio", self.image("p.img"), "raw"),
            metadata=metadata))
        self.weir_ok("libvirt", "start", self.name)
        self.assertEqual(self.drivers(), OBSERVED)
        virsh("destroy", self.name)
        self.weir_ok("libvirt", "remove", self.name)
        after = virsh("dumpxml", self.name, "--inactive")
        self.assertIn(metadata, after)
        self.assertIn("bin/qemu-system-x86_64</emulator>", after)

    def test_define_refuses_what_the_hook_would(self):
        code, _, errors = self.weir(
            "libvirt", "define", "-", "--disk", "vda=nothing",
            text=self.xml(("vda", "virtio", self.image("q.img"), "raw")))
        self.assertEqual(code, 1)
        self.assertIn("disk 'vda': ", errors)
        self.assertIn("nothing", errors)
        self.assertEqual(virsh("list", "--all", "--name").strip(), "")

    def test_apply_while_it_runs_tells_when_it_holds(self):
        self.original()
        virsh("start", self.name)
        out = self.weir_ok("libvirt", "apply", self.name, "--policy",
                           "observe")
        self.assertIn("; it runs, so this holds when it is started", out)
        self.assertEqual(self.drivers(), ["file"])
        virsh("destroy", self.name)
        virsh("start", self.name)
        self.assertEqual(self.drivers(), OBSERVED)

    def test_apply_of_nothing(self):
        self.original()
        self.assertEqual(self.weir("libvirt", "apply", self.name), (
            1, "", "weir: domain '%s': found no policy for any disk, expected "
            "--disk, --policy or metadata that have one\n" % self.name))

    def test_no_such_domain(self):
        code, out, errors = self.weir("libvirt", "apply", "nobody")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("nobody", errors)


if __name__ == "__main__":
    main()
