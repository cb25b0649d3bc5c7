#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks without a policy of their own get the one that is assigned."""
import json
import os
import unittest

from common import QEMU_BIN_DIR, FakeTest, VmTest


class Assigned(FakeTest):
    def setUp(self):
        super().setUp()
        self.config = self.path("etc")
        os.makedirs(os.path.join(self.config, "policies.d"))
        os.makedirs(os.path.join(self.config, "assignments.d"))
        for name in ("safe", "fast"):
            self.put("policies.d/%s.yaml" % name, "name: %s\nfilters: "
                     "[weir-dots: ]\n" % name)

    def put(self, name, text):
        path = os.path.join(self.config, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def which(self, *args):
        return self.weir("policy", "which", "--config-dir", self.config, *args)

    def compile(self, *args):
        return self.weir("compile", "--config-dir", self.config,
                         "--qemu-bin-dir", self.bin, "--disk",
                         "file=/a,format=raw,id=data", "--name", "db-1", *args)

    def test_which(self):
        path = self.put("assignments.d/db.yaml", "assignments:\n  - {vm: db-*, "
                        "disk: data, policy: safe}\n")
        self.assertEqual(self.which("db-1", "data"), (
            0, "safe: assigned to vm db-*, disk data (%s:2:5)\n" % path, ""))
        self.assertEqual(self.which("web", "data"), (
            1, "", "weir: no assignment in %s/assignments.d is for disk data "
            "of VM web, and %s/weir.yaml has no default-policy\n"
            % (self.config, self.config)))
        default = self.put("weir.yaml", "default-policy: fast\n")
        self.assertEqual(self.which("web", "data"), (
            0, "fast: default policy (%s:1:17)\n" % default, ""))
        code, output, _ = self.which("--json", "web", "data")
        self.assertEqual((code, json.loads(output)), (0, {
            "vm": "web", "disk": "data", "policy": "fast", "default": True,
            "at": default + ":1:17"}))

    def test_policy_is_missing(self):
        path = self.put("assignments.d/a.yaml",
                        "assignments:\n  - policy: none\n")
        self.assertEqual(self.which("a", "b"), (
            1, "", "weir: %s:2:5: there is no policy 'none' in %s/policies.d "
            "(there are fast, safe)\n" % (path, self.config)))

    def test_equal_ones_name_both(self):
        first = self.put("assignments.d/a.yaml",
                         "assignments:\n  - {vm: db-*, policy: safe}\n")
        second = self.put("assignments.d/b.yaml",
                          "assignments:\n  - {vm: '*db-', policy: fast}\n"
                          "  - {vm: '?b-*', policy: fast}\n"
                          "  - {vm: db-*, policy: fast}\n")
        message = ("%s:4:5: found policy 'fast' for disk data of VM db-1 (vm "
                   "db-*, disk *), expected no other assignment as specific "
                   "as policy 'safe' at %s:2:5 (vm db-*, disk *)\n"
                   % (second, first))
        self.assertEqual(self.which("db-1", "data"), (1, "", message))
        self.assertEqual(self.compile(), (1, "", message))

    def test_wrong_files(self):
        path = self.put("assignments.d/a.yaml", "assignments: {}\n")
        self.assertEqual(self.which("a", "b"), (
            1, "", path + ":1:14: found a mapping, expected a list for "
            "'assignments'\n"))
        os.unlink(path)
        path = self.put("weir.yaml", "default: safe\n")
        self.assertEqual(self.which("a", "b"), (
            1, "", path + ":1:1: found unknown key 'default', expected "
            "default-policy\n"))

    def test_names(self):
        for name in ("../x", "a b", ""):
            self.weir_fails("weir: policy which: found '%s', expected up to "
                            "64 letters, digits, '.', '_' and '-', the first "
                            "a letter or digit" % name, "policy", "which",
                            "vm", name, code=2)

    def test_compile(self):
        self.put("assignments.d/a.yaml",
                 "assignments:\n  - {vm: db-*, policy: safe}\n")
        code, output, errors = self.compile()
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(json.loads(output.splitlines()[1])["driver"],
                         "weir-dots")

    def test_command_line_comes_first(self):
        self.put("assignments.d/a.yaml", "assignments: wrong\n")
        self.assertEqual(self.compile("--policy", "fast")[::2], (0, ""))
        self.assertEqual(self.weir(
            "compile", "--config-dir", self.config, "--qemu-bin-dir", self.bin,
            "--disk", "file=/a,format=raw,policy=fast")[::2], (0, ""))

    def test_run(self):
        result = self.weir("run", "--config-dir", self.config, "--qemu-bin-dir",
                           self.bin, "--qemu", "/bin/false", "--name", "db-1",
                           "--disk", "file=/a,format=raw,id=data", "--")
        self.assertEqual(result, (
            1, "", "weir: found no policy for disk data, expected policy=NAME: "
            "no assignment in %s/assignments.d is for disk data of VM db-1, "
            "and %s/weir.yaml has no default-policy\n"
            % (self.config, self.config)))


@unittest.skipUnless(os.access(os.path.join(
    QEMU_BIN_DIR, "qemu-system-x86_64"), os.X_OK), "no QEMU")
class Running(VmTest):
    """A disk whose policy is assigned, inherits, and has a component."""

    def run_args(self, *disks, name="vm"):
        args = super().run_args(*disks, name=name)
        return args[:1] + ["--config-dir", self.dir] + args[1:]

    def test_run(self):
        self.write("usual.yaml", "name: usual\ninherit: observe\nstorage: "
                   "{driver: [file]}\nfilters:\n  - component: ssd\n"
                   "  - weir-cache: {mode: write-through}\n")
        self.write("ssd.yaml", "component: ssd\nfilters:\n  - weir-cache:\n"
                   "      cache-file: create:16M:%s/${vm}-${disk}.cache\n"
                   % self.dir)
        os.mkdir(self.path("assignments.d"))
        with open(self.path("weir.yaml"), "w", encoding="utf-8") as file:
            file.write("default-policy: usual\n")
        with open(self.path("assignments.d/a.yaml"), "w",
                  encoding="utf-8") as file:
            file.write("assignments:\n  - {vm: v?, disk: b, policy: observe}"
                       "\n")
        process = self.start(*[
            "file=%s,format=raw,id=%s" % (self.disk(name + ".img"), name)
            for name in "ab"])
        code, disks = self.status()
        self.assertEqual(
            (code, [(d["policy"], d["state"], [n["driver"] for n in
                                               d["actual"]]) for d in disks]),
            (0, [("usual", "compliant",
                  ["raw", "weir-cache", "weir-inspect", "file"]),
                 ("observe", "compliant", ["raw", "weir-inspect", "file"])]))
        self.assertEqual(os.stat(self.path("vm-a.cache")).st_size, 16 << 20)
        self.stop(process)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
