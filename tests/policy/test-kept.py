#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of the storage daemon's answers saves starting it, and is
never older than the programs and modules that are there."""
import os
import shutil
import stat
import subprocess
import tempfile
import time
import unittest

from common import (GUARD_S, QEMU_BIN_DIR, ROOT, VmTest, WeirTest, need,
                    wait_for)

need("qemu-storage-daemon")

# answers are not kept of files that are younger
YOUNG_S = 2
MODULES = os.path.realpath(os.path.join(QEMU_BIN_DIR, "../lib/qemu"))
# tells of each start, and is the daemon then
WRAPPER = """#!/bin/sh
echo >> %s
exec %s "$@"
"""
HOSTS = ["install", "replace", "write", "remove", "program", "elsewhere",
         "options", "damage", "plugin"]
PLUGIN = """#include "weir-plugin.h"

static int open_disk(WeirPluginDisk *disk, void **handle)
{
    (void)disk;
    *handle = 0;
    return 0;
}

static const WeirPlugin plugin = {
    .abi = WEIR_PLUGIN_ABI, .struct_size = sizeof(WeirPlugin),
    .option_size = sizeof(WeirPluginOption), .name = "small",
    .version = "1", .description = "It does nothing", .open = open_disk,
};

WEIR_PLUGIN_REGISTER(plugin);
"""
LEVEL = "name: %s\nfilters:\n  - weir-inspect: {entropy-high: %s}\n"


def module(name):
    return "block-weir-%s.so" % name


class Host:
    """An installation of its own, and what weir keeps about it."""

    def __init__(self, test, folder, name):
        self.test = test
        base = os.path.join(folder, name)
        self.bin = os.path.join(base, "bin")
        self.modules = os.path.join(base, "lib/qemu")
        self.kept = os.path.join(base, "kept")
        self.starts_file = os.path.join(base, "starts")
        os.makedirs(self.bin)
        os.makedirs(self.modules)
        real = os.path.join(self.bin, "daemon")
        # a new link would make the others' young
        (os.link if name in HOSTS else shutil.copy)(
            os.path.join(folder, "daemon"), real)
        for part in ("inspect", "plugin") if name == "plugin" else (
                "inspect", "cache"):
            shutil.copy(os.path.join(folder, module(part)), self.modules)
        self.program = os.path.join(self.bin, "qemu-storage-daemon")
        with open(self.program, "w", encoding="utf-8") as file:
            file.write(WRAPPER % (self.starts_file, real))
        os.chmod(self.program, 0o755)

    def module(self, name):
        return os.path.join(self.modules, module(name))

    def starts(self):
        """How often the daemon has been started."""
        if not os.path.exists(self.starts_file):
            return 0
        return os.path.getsize(self.starts_file)

    def weir(self, *args, **env):
        return self.test.weir(*args, "--qemu-bin-dir", self.bin,
                              **{"WEIR_KEEP_DIR": self.kept, **env})

    def filters(self, **env):
        code, output, errors = self.weir("policy", "schema", **env)
        self.test.assertEqual((code, errors), (0, ""))
        return sorted(name for name in ("weir-inspect", "weir-cache",
                                        "weir-encryption")
                      if '"%s"' % name in output)

    def check(self, path, **env):
        return self.weir("policy", "check", path, **env)

    def file(self):
        """The one file that is kept."""
        name, = os.listdir(self.kept)
        return os.path.join(self.kept, name)


class Kept(WeirTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="weir-test-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        shutil.copy(os.path.join(QEMU_BIN_DIR, "qemu-storage-daemon"),
                    os.path.join(cls.folder, "daemon"))
        for name in "inspect", "cache", "encryption", "plugin":
            shutil.copy(os.path.join(MODULES, module(name)), cls.folder)
        cls.made = {name: Host(cls, cls.folder, name) for name in HOSTS}
        # as good as old
        time.sleep(YOUNG_S + 1)

    def hosts(self, *names):
        for name in names:
            self.made[name].test = self
        return [self.made[name] for name in names]

    def test_modules_come_and_go(self):
        hosts = self.hosts(*HOSTS[:6])
        both = ["weir-cache", "weir-inspect"]
        for host in hosts:
            self.assertEqual((host.filters(), host.starts()), (both, 1))
            self.assertEqual((host.filters(), host.starts()), (both, 1))
        install, replace, write, remove, program, elsewhere = hosts

        shutil.copy(os.path.join(self.folder, module("encryption")),
                    install.modules)
        self.assertEqual(install.filters(), both[:1] + ["weir-encryption"] +
                         both[1:])

        # no module any more, and the directory has the names that it had
        with open(replace.module("cache") + ".new", "w",
                  encoding="utf-8") as file:
            file.write("x")
        os.rename(replace.module("cache") + ".new", replace.module("cache"))
        self.assertEqual(replace.filters(), ["weir-inspect"])

        os.unlink(remove.module("cache"))
        self.assertEqual(remove.filters(), ["weir-inspect"])

        with open(program.program, "a", encoding="utf-8") as file:
            file.write("# another one\n")
        self.assertEqual(program.filters(), both)

        # where modules are looked for first
        other = self.path("other")
        os.mkdir(other)
        os.link(replace.module("cache"), os.path.join(other, module("cache")))
        self.assertEqual(elsewhere.filters(QEMU_MODULE_DIR=other),
                         ["weir-inspect"])

        # written to; its time of modification and length are as before
        path = write.module("cache")
        before = os.stat(path)
        with open(path, "r+b") as file:
            file.write(b"x" * 4096)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertEqual(write.filters(), ["weir-inspect"])

        for host in hosts:
            self.assertEqual(host.starts(), 2, host.bin)
        # a module is there and does not load: that is not kept
        self.assertEqual((write.filters(), write.starts()),
                         (["weir-inspect"], 3))

    def test_young(self):
        """What has just been installed may still change."""
        host = Host(self, self.folder, "young")
        self.assertEqual(len(host.filters()), 2)
        self.assertFalse(os.path.exists(host.kept))
        self.assertEqual(len(host.filters()), 2)
        self.assertEqual(host.starts(), 2)

    def test_options(self):
        host, = self.hosts("options")
        good = self.write("good.yaml", LEVEL % ("good", 7))
        bad = self.write("bad.yaml", LEVEL % ("bad", 9))
        self.assertEqual(host.check(good), (0, "", ""))
        self.assertEqual((host.check(good), host.starts()), ((0, "", ""), 1))
        refusals = [host.check(bad) for _ in range(2)]
        self.assertEqual(refusals[0], refusals[1])
        self.assertIn("weir-inspect refuses its options", refusals[0][2])
        self.assertEqual(host.starts(), 3)
        # the policy is another one under the same name
        self.write("good.yaml", LEVEL % ("good", 8.5))
        self.assertEqual(host.check(good)[0], 1)
        self.write("good.yaml", LEVEL % ("good", 6))
        self.assertEqual((host.check(good), host.starts()), ((0, "", ""), 5))
        self.assertEqual((host.check(good), host.starts()), ((0, "", ""), 5))

    def test_plugin(self):
        """What its driver says depends on the plugin's file, too."""
        host, = self.hosts("plugin")
        source = self.path("small.c")
        library = os.path.join(self.folder, "small.so")
        self.put(source, PLUGIN)
        subprocess.run(["cc", "-shared", "-fPIC", "-I",
                        os.path.join(ROOT, "filters/plugin"), "-o", library,
                        source], check=True, timeout=GUARD_S)
        path = self.write("p.yaml", "name: p\nfilters:\n  - weir-plugin: "
                          "{plugin: %s}\n" % library)
        self.assertEqual(host.check(path), (0, "", ""))
        self.assertEqual(host.check(path), (0, "", ""))
        self.assertEqual(host.starts(), 2)
        os.unlink(library)
        self.assertEqual(host.check(path)[0], 1)

    def test_not_believed(self):
        host, = self.hosts("damage")
        outputs = {host.weir("policy", "schema")}
        path = host.file()
        with open(path, encoding="utf-8") as file:
            text = file.read()
        self.assertIn("weir-cache", text)
        for number, damage in enumerate((
                lambda: self.put(path, text.replace("cache", "cachf")),
                lambda: self.put(path, ""),
                lambda: os.chmod(path, 0o620),
                lambda: os.chmod(host.kept, 0o777)), 2):
            damage()
            outputs.add(host.weir("policy", "schema"))
            self.assertEqual(host.starts(), number)
        os.chmod(host.kept, 0o700)
        outputs.add(host.weir("policy", "schema"))
        self.assertEqual(host.starts(), 5)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        # nowhere; and where nothing can be written
        self.put(self.path("file"), "")
        for place in "", self.path("file"), self.path("file/x"), "/proc/x":
            outputs.add(host.weir("policy", "schema", WEIR_KEEP_DIR=place))
        self.assertEqual(host.starts(), 9)
        self.assertEqual(len(outputs), 1)

    @staticmethod
    def put(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


class Status(VmTest):
    """A disk under a policy, and no daemon that tells what policies may say.
    """

    def setUp(self):
        super().setUp()
        need("qemu-system-x86_64", "qemu-img")
        self.start("file=%s,format=raw,policy=observe" % self.disk())

    def test_no_daemon(self):
        broken = self.path("broken")
        os.mkdir(broken)
        os.symlink("/bin/false", os.path.join(broken, "qemu-storage-daemon"))
        code, disks = self.status("--qemu-bin-dir", broken)
        self.assertEqual(code, 4)
        self.assertEqual([(d["state"], d["reason"]) for d in disks], [
            ("unknown", "whether the policy has changed is not known: "
             "qemu-storage-daemon ended at start")])
        code, disks = self.status()
        self.assertEqual((code, disks[0]["state"]), (0, "compliant"))

    def test_outdated_all_the_same(self):
        kept = self.path("kept")
        os.environ["WEIR_KEEP_DIR"] = kept
        self.addCleanup(os.environ.pop, "WEIR_KEEP_DIR")
        self.assertEqual(self.status()[0], 0)
        # it may be that this program has just been built
        wait_for(lambda: self.status()[0] == 0 and os.path.exists(kept),
                 "answers to be kept")
        self.write("observe.yaml", "name: observe\nfilters:\n"
                   "  - weir-inspect: {entropy-window: 90}\n")
        code, disks = self.status()
        self.assertEqual((code, disks[0]["state"]), (5, "out-of-date"))


if __name__ == "__main__":
    unittest.main()
