#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Policies that inherit and components, in files."""
import json
import os
import unittest

from common import FakeTest

BASE = """name: base
storage: {min-size: 1M}
filters:
  - weir-acme: {level: 1, quiet: yes}
"""
CHILD = """name: p
inherit: base
filters:
  - weir-acme: {level: 2}
  - weir-lock: {key-secret: k}
"""


class Files(FakeTest):
    def show(self, name, *more):
        return self.weir_ok("policy", "show", "--qemu-bin-dir", self.bin,
                            "--policies", self.policies, name, *more)

    def test_show(self):
        base = self.write("base.yaml", BASE)
        policy = self.accepts(CHILD)
        self.assertEqual(policy["inherit"], "base")
        self.assertEqual(
            [(f["driver"], f["options"]) for f in policy["filters"]],
            [("weir-lock", {"key-secret": "k"}),
             ("weir-acme", {"level": 2, "quiet": True})])
        self.assertEqual(policy["storage"], {
            "discard": False, "direct-io": False, "min-size": 1 << 20})
        self.write("q.yaml", "name: q\ninherit: base\n")
        self.assertIn("inherit:     base\nstorage:\n    discard: false\n"
                      "    direct-io: false\n    min-size: 1048576\n"
                      "filters:     \n  weir-acme (place storage, from %s)\n"
                      % base, self.show("q"))

    def test_list_leaves_components_out(self):
        self.write("c.yaml", "component: c\nfilters: [weir-dots: ]\n")
        self.write("p.yaml", "name: p\nfilters: [component: c]\n")
        output = self.weir_ok("policy", "list", "--qemu-bin-dir", self.bin,
                              "--policies", self.policies)
        self.assertEqual(output.splitlines()[1:],
                         ["p     1        weir-dots  "])
        self.weir_fails("weir: 'c' (%s/c.yaml) is a component, which no disk "
                        "can have: a policy can refer to it" % self.policies,
                        "policy", "show", "--qemu-bin-dir", self.bin,
                        "--policies", self.policies, "c")

    def test_compile(self):
        self.write("base.yaml", BASE)
        self.write("p.yaml", CHILD)
        output = self.weir_ok("compile", "--qemu-bin-dir", self.bin,
                              "--policies", self.policies, "--policy", "p",
                              "--disk", "file=/a,format=raw")
        self.assertEqual([json.loads(line)["driver"]
                          for line in output.splitlines()],
                         ["file", "weir-acme", "weir-lock", "raw"])

    def test_missing(self):
        self.refuses("name: p\ninherit: base\n",
                     "2:10: there is no policy 'base' in %s (there is p); "
                     "asked for by p > base" % self.policies)

    def test_circle(self):
        other = self.write("q.yaml", "name: q\ninherit: p\n")
        path = self.write("p.yaml", "name: p\n\ninherit: q\n")
        message = ":2:10: found a circle of policies: p > q > p\n"
        self.assertEqual(self.check(path), (1, "", other + message))

    def test_place_of_what_is_wrong(self):
        """That of the file in which it is."""
        base = self.write("base.yaml", BASE)
        path = self.write("p.yaml", "name: p\ninherit: base\nfilters:\n"
                          "  - weir-acme: {level: 12}\n")
        self.assertEqual(self.check(path), (
            1, "", path + ":4:5: weir-acme refuses its options: level must be "
            "0 to 9\n"))
        path = self.write("p.yaml", "name: p\ninherit: base\nfilters:\n"
                          "  - weir-far:\n  - weir-lock: {key-secret: k}\n")
        self.assertEqual(self.check(path), (0, "", ""))
        self.write("base.yaml", BASE.replace("level", "leval"))
        self.assertEqual(self.check(path)[2].splitlines()[0].split(",")[0],
                         base + ":4:17: found unknown option 'leval' of "
                         "'weir-acme'")

    def test_other_directories(self):
        """With --policies, what a file refers to is looked for there."""
        os.mkdir(self.path("more"))
        path = self.path("more/p.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(CHILD)
        self.write("base.yaml", BASE)
        self.assertEqual(self.check(path)[0], 1)
        self.assertEqual(self.check("--policies", self.policies, path),
                         (0, "", ""))
        with open(self.path("more/base.yaml"), "w", encoding="utf-8") as file:
            file.write(BASE)
        self.assertEqual(
            self.check("--policies", self.policies, "--policies",
                       self.path("more"), path),
            (1, "", "%s:2:10: policy 'base' is in both %s/base.yaml and "
             "%s/base.yaml; asked for by p > base\n"
             % (path, self.policies, self.path("more"))))


if __name__ == "__main__":
    unittest.main()
