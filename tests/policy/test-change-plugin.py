#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugins of a disk in use: what each says of itself decides how they come, go
and change."""
import os
import shutil
import subprocess
import unittest

from common import GUARD_S, QEMU_BIN_DIR, ROOT, Qmp, VmTest, need, wait_for
from changetest import PREFIX, Change, Load

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

PLUGINS = os.path.join(os.environ["WEIR_MESON_BUILD"], "tests", "plugins")


def plugin(name, more="", place="storage"):
    return "  - weir-plugin: {plugin: %s%s}\n    place: %s\n" % (
        name, more and ", " + more, place)


class Folder(VmTest):
    """A folder of plugins for weir, QEMU and their daemons."""

    def setUp(self):
        super().setUp()
        self.folder = self.path("plugins")
        os.mkdir(self.folder)
        for name in ("probe", "passing", "empty", "mask"):
            shutil.copy(os.path.join(PLUGINS, name + ".so"), self.folder)
        os.environ["WEIR_PLUGIN_PATH"] = self.folder
        self.addCleanup(os.environ.pop, "WEIR_PLUGIN_PATH")

    def build(self, folder, name, source, *args):
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-DPLUGIN_NAME=\"%s\"" % name,
             "-I", os.path.join(ROOT, "filters", "plugin"), *args, "-o",
             os.path.join(folder, name + ".so"), os.path.join(ROOT, source)],
            check=True, timeout=GUARD_S)


class Plugins(Folder, Change):
    def own(self, name="probe"):
        """Options that the plugin of that name has now."""
        return self.filters()[PREFIX + "plugin-" + name]["options"]

    def options(self, text, version, more=""):
        self.policy("p", plugin("probe", "options: {%s}%s" % (text, more)),
                    version)
        return [line for line in self.change("reapply").splitlines()
                if "policy" not in line]

    def test_attach_and_detach(self):
        self.policy("p", plugin("probe", "options: {mode: forward}", "disk")
                    + plugin("passing") + plugin("empty"))
        self.vm()
        before = self.nodes()
        load = Load(self)
        self.assertEqual(
            self.change("attach", "--policy", "p").splitlines(), [
                "attach weir-plugin:empty (node weir-disk0-plugin-empty) "
                "above node weir-disk0-storage",
                "attach weir-plugin:passing (node weir-disk0-plugin-passing) "
                "above node weir-disk0-plugin-empty",
                "attach weir-plugin:probe (node weir-disk0-plugin-probe) above "
                "node weir-disk0-format",
                "disk disk0 of VM vm is under policy 'p', version 1"])
        load.wait()
        disk = self.finds(0, "compliant")
        self.assertEqual(
            [(n["driver"], n.get("plugin")) for n in disk["actual"]],
            [("weir-plugin", "probe"), ("raw", None),
             ("weir-plugin", "passing"), ("weir-plugin", "empty"),
             ("file", None)])
        self.assertEqual([f["plugin"] for f in disk["filters"]],
                         ["probe", "passing", "empty"])
        self.assertIn("already", self.change("reapply"))
        # one of several goes, another one comes
        self.policy("p", plugin("passing") + plugin("probe"), 2)
        self.change("reapply")
        self.finds(0, "compliant")
        self.assertEqual(
            {n: f["plugin"] for n, f in self.filters().items()},
            {PREFIX + "plugin-passing": "passing",
             PREFIX + "plugin-probe-2": "probe"})
        self.change("detach")
        load.end()
        self.assertEqual(self.nodes(), before)
        load.verify_file(self.image)

    def test_options(self):
        self.policy("p", plugin("probe", "options: {mode: forward, hold-ms: "
                                "5}"))
        self.vm("p")
        change = ["change options of weir-plugin:probe (node "
                  "weir-disk0-plugin-probe)"]
        self.assertEqual(self.options("mode: forward, hold-ms: 6", 2), change)
        self.assertEqual(self.own()["hold-ms"], 6)
        # one that is not given any more has its default, as in a new VM
        self.assertEqual(self.options("hold-ms: 6", 3), change)
        self.assertEqual(self.own()["mode"], "pass")
        self.assertEqual(self.options("hold-ms: 6, room: 2M", 4), [
            "detach weir-plugin:probe (node weir-disk0-plugin-probe)",
            "attach weir-plugin:probe (node weir-disk0-plugin-probe-2) above "
            "node weir-disk0-storage"])
        change = [change[0].replace("probe)", "probe-2)")]
        self.assertEqual(self.own("probe-2")["room"], 2 << 20)
        # the same to the plugin
        self.assertEqual(self.options("hold-ms: 6, room: 2048k, quick: true",
                                      5), [])
        self.assertEqual(self.options("hold-ms: 6, room: 2M", 6,
                                      ", deadline: 77, on-error: fail"),
                         change)
        found = self.filters()[PREFIX + "plugin-probe-2"]
        self.assertEqual((found["deadline"], found["on-error"]), (77, "fail"))
        self.assertEqual(self.options("hold-ms: 6, room: 2M", 7), change)
        found = self.filters()[PREFIX + "plugin-probe-2"]
        self.assertEqual((found["deadline"], found["on-error"]),
                         (30000, "stall"))
        self.finds(0, "compliant")

    def test_undone(self):
        """Options that were changed are what they were."""
        self.policy("p", plugin("probe", "options: {mode: forward}")
                    + plugin("passing"))
        self.vm("p")
        self.policy("q", plugin("probe", "options: {hold-ms: 9}"))
        proxy = self.proxied()
        proxy.act = lambda count, command, client: \
            count != 2 or proxy.refuse(command, client)
        self.assertEqual(
            self.weir(*self.args("reapply", "--policy", "q"))[2],
            "weir: VM 'vm', disk disk0: detach weir-plugin:passing (node "
            "weir-disk0-plugin-passing): no luck; everything is as before\n")
        self.assertEqual((self.own()["mode"], self.own()["hold-ms"]),
                         ("forward", 0))
        self.finds(0, "compliant")

    def test_changed_behind_its_back(self):
        self.policy("p", plugin("probe", "options: {mode: forward}"))
        self.vm("p")
        self.finds(0, "compliant")
        options = dict(
            self.record()["wanted"][1]["options"], deadline=5,
            options={"mode": "pass", "hold-ms": 3})
        self.assertEqual(options["driver"], "weir-plugin")
        self.qmp("blockdev-reopen", {"options": [options]})
        self.finds(3, "non-compliant",
                   "weir-plugin:probe: options.mode is pass instead of "
                   "forward; weir-plugin:probe: options.hold-ms is 3 instead "
                   "of 0; weir-plugin:probe: deadline is 5 instead of 30000")
        self.assertIn("change options of weir-plugin:probe",
                      self.change("reapply"))
        self.finds(0, "compliant")
        self.assertEqual((self.own()["mode"], self.own()["hold-ms"]),
                         ("forward", 0))

    def test_attached_by_somebody_else(self):
        """With other options than the one of the policy had."""
        self.policy("p", plugin("probe", "options: {mode: forward}"))
        self.vm("p")
        node = dict(self.record()["wanted"][1]["options"])
        for options in ({"mode": "forward"}, {"mode": "pass"}):
            self.qmp("weir-detach", {"node-name": next(iter(self.filters())),
                                     "job-id": "j"})
            wait_for(lambda: not self.filters(), "the job")
            node.update({"node-name": "other" + options["mode"],
                         "options": options})
            self.qmp("weir-attach", {"node-name": PREFIX + "storage",
                                     "filter": node})
            self.qmp("job-dismiss", {"id": "j"})
            if options["mode"] == "forward":
                self.assertIn("already", self.change("reapply"))
        self.finds(3, "non-compliant", "weir-plugin:probe: options.mode is "
                   "pass instead of forward")
        self.change("reapply")
        self.finds(0, "compliant")

    def test_one_that_changes_data(self):
        self.build(self.folder, "xor", "docs/examples/plugins/xor.c")
        self.policy("p", plugin("passing"))
        self.policy("x", plugin("xor", "options: {key: 1}"))
        self.vm("p")
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-plugin:xor cannot be attached to "
            "a disk in use: the data on it is not what the filter expects; "
            "start the VM anew under the policy",
            "reapply", "--policy", "x")
        self.stop(self.process)
        self.vm("x")
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-plugin:xor (node "
            "weir-disk0-plugin-xor) cannot be detached: the data below it is "
            "not what the guest has written", "detach")
        self.policy("x", plugin("xor", "options: {key: 2}"), 2)
        self.change_fails(
            "weir: VM 'vm', disk disk0: 'options.key' of weir-plugin:xor "
            "cannot be changed while the disk is in use; start the VM anew "
            "under the policy", "reapply")
        # what is beside it may come, and so may its deadline
        self.policy("x", plugin("xor", "options: {key: 1}, deadline: 9")
                    + plugin("passing"), 3)
        self.change("reapply")
        self.assertEqual(self.filters()[PREFIX + "plugin-xor"]["deadline"], 9)
        self.finds(0, "compliant")

    def test_what_the_vm_finds(self):
        """A plugin of that name may be another one in the VM."""
        other = self.path("other")
        os.mkdir(other)
        self.build(other, "mask", "tests/plugins/empty.c")
        self.build(other, "more", "tests/plugins/empty.c")
        for name in ("mask", "more"):
            self.policy(name, plugin(name))
        self.vm()
        os.environ["WEIR_PLUGIN_PATH"] = other
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-plugin:mask cannot be attached to "
            "a disk in use: the data on it is not what the filter expects; "
            "start the VM anew under the policy",
            "attach", "--policy", "mask")
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-plugin:more cannot be attached to "
            "a disk in use: weir-plugin: no plugin 'more' in " + self.folder,
            "attach", "--policy", "more")

    def test_file_that_has_gone(self):
        """QEMU still knows what the plugin is that it has."""
        self.policy("p", plugin("probe"))
        self.vm("p")
        os.unlink(os.path.join(self.folder, "probe.so"))
        self.finds(0, "compliant")
        self.change("detach")

    def test_one_that_holds_data(self):
        shutil.copy(os.path.join(PLUGINS, "late.so"), self.folder)
        self.policy("p", plugin("late"))
        self.vm()
        load = Load(self)
        self.assertIn("note: without weir-plugin:late the disk may not be "
                      "whole: let the next start of the VM have this policy, "
                      "or detach it before\n",
                      self.change("attach", "--policy", "p"))
        load.wait()
        self.change("detach")
        load.end()
        load.verify_file(self.image)


class OutOfProcess(Folder):
    """The same in a storage daemon, which is started again."""

    def test_two(self):
        text = "name: out\nversion: %d\nrun: out-of-process\nfilters:\n"
        self.write("out.yaml", text % 1 + plugin("probe") + plugin("passing"))
        disk = self.disk(size=8 << 20)
        self.start("file=%s,format=raw,id=a,policy=out" % disk)
        self.assertEqual(self.status()[1][0]["state"], "compliant")
        self.write("out.yaml", text % 2 + plugin("probe", "options: {hold-ms: "
                                                 "4}") + plugin("empty"))
        code, _, errors = self.weir("reapply", "--runtime-dir", self.runtime,
                                    "--qemu-bin-dir", QEMU_BIN_DIR, "vm", "a")
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(self.status()[1][0]["state"], "compliant")
        qmp = Qmp(os.path.join(self.runtime, "vm.storage-qmp"))
        found = {f["plugin"]: f["options"] for f in qmp.command("query-weir")}
        qmp.close()
        self.assertEqual(set(found), {"probe", "empty"})
        self.assertEqual(found["probe"]["hold-ms"], 4)
        # the export would have to write through
        shutil.copy(os.path.join(PLUGINS, "late.so"), self.folder)
        self.write("out.yaml", text % 3 + plugin("late"))
        code, _, errors = self.weir("reapply", "--runtime-dir", self.runtime,
                                    "--qemu-bin-dir", QEMU_BIN_DIR, "vm", "a")
        self.assertEqual(code, 1)
        self.assertIn("a filter that holds back what was written", errors)


if __name__ == "__main__":
    unittest.main()
