#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir advise: a workload that is known, and what is advised."""
import json
import os
import random
import stat
import unittest
from xml.etree import ElementTree

import nbd

from common import QEMU_BIN_DIR, Qmp, VmTest, need

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

MIB = 1 << 20
REQUEST = 65536
HOT = 16 * MIB
SIZE = 64 * MIB
SVG = "{http://www.w3.org/2000/svg}"

WATCHED = """name: watched
filters:
  - weir-inspect: {entropy: false}
"""


class Advise(VmTest):
    def setUp(self):
        super().setUp()
        self.write("watched.yaml", WATCHED)

    def advise(self, *args, **env):
        return self.weir_ok("advise", "--runtime-dir", self.runtime, *args,
                            **env)

    def advise_json(self, *args):
        return json.loads(self.advise("--json", *args))

    def start_disk(self, policy="watched"):
        path = self.path("root.img")
        with open(path, "wb") as file:      # holes would not be read
            for _ in range(SIZE // MIB):
                file.write(b"d" * MIB)
        process = self.start(
            "file=%s,format=raw,policy=%s,device=none,id=root"
            % (path, policy))
        self.assertIsNone(process.poll(), process)
        return process

    def work(self, requests, write_every=4):
        """Random requests in HOT, and one through the rest in twenty."""
        path = self.path("guest.sock")
        qmp = Qmp(self.qmp_path())
        qmp.command("nbd-server-start", {"addr": {
            "type": "unix", "data": {"path": path}}})
        qmp.command("block-export-add", {
            "type": "nbd", "id": "guest", "node-name": "weir-root-format",
            "name": "guest", "writable": True})
        client = nbd.NBD()
        client.connect_uri("nbd+unix:///guest?socket=" + path)
        chance = random.Random(7)
        cold = HOT
        for number in range(requests):
            offset = chance.randrange(HOT // REQUEST) * REQUEST
            if number % 20 == 19 and cold < SIZE:
                offset, cold = cold, cold + REQUEST
            if number % write_every == 0:
                client.pwrite(b"w" * REQUEST, offset)
            else:
                client.pread(REQUEST, offset)
        client.shutdown()
        qmp.command("block-export-del", {"id": "guest", "mode": "hard"})
        qmp.command("nbd-server-stop")
        qmp.close()

    def test_known_working_set(self):
        self.start_disk()
        self.work(5000)
        advice = self.advise_json("vm", "root")
        self.assertEqual((advice["vm"], advice["disk"], advice["node"]),
                         ("vm", "root", "weir-root-inspect"))
        self.assertTrue(advice["cache-helps"])
        self.assertGreater(advice["cache-size"], HOT / 1.5)
        self.assertLess(advice["cache-size"], HOT * 1.5)
        self.assertLess(advice["miss-ratio"], 0.2)
        self.assertEqual(advice["mode"], "write-back")
        self.assertAlmostEqual(advice["load"]["write-share"], 0.25, delta=0.03)
        self.assertEqual(advice["load"]["read-size"], REQUEST)
        trust = advice["trust"]
        self.assertEqual(trust["level"], "low")      # of an hour, some seconds
        self.assertEqual(trust["accesses"], 5000 * REQUEST // 4096)
        self.assertAlmostEqual(trust["working-set"], HOT + 250 * REQUEST,
                               delta=HOT / 8)
        self.assertGreater(len(advice["curve"]), 10)
        wide = self.advise_json("--margin", "0.3", "vm", "root")
        self.assertLess(wide["cache-size"], advice["cache-size"])
        self.check_text()
        self.check_svg()
        self.check_policy(advice)

    def check_text(self):
        text = self.advise("vm", "root", COLUMNS="70")
        self.assertTrue(text.isascii())
        self.assertRegex(text, r"VM vm, disk root: \d+ MiB of cache\n")
        self.assertIn("\n100% +", text)
        self.assertRegex(text, r"(?m)^ +(\^ \d+ MiB|\d+ MiB \^)$")
        self.assertRegex(text, r"(?m)^\* \d+ MiB  ")
        self.assertIn("- watched for less than an hour", text)
        text = self.advise("vm", LC_ALL="C.UTF-8", COLUMNS="70")
        self.assertIn("100% ┤", text)
        self.assertEqual(max(len(line) for line in text.splitlines()
                             if line.startswith("     └")), 70)

    def check_svg(self):
        path = self.path("curve.svg")
        with open(path, "w", encoding="utf-8") as file:
            file.write("old")
        self.advise("--svg", path, "vm", "root")
        root = ElementTree.parse(path).getroot()
        self.assertEqual(root.tag, SVG + "svg")
        self.assertEqual(root.find(SVG + "title").text,
                         "Cache for disk root of vm")
        self.assertEqual(len(root.findall(SVG + "circle")), 1)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o644)
        self.assertEqual([name for name in os.listdir(self.dir)
                          if "curve" in name], ["curve.svg"])
        code, output, errors = self.weir(
            "advise", "--runtime-dir", self.runtime, "--svg",
            "/nonexistent/x.svg", "vm", "root")
        self.assertEqual((code, output), (1, ""))
        self.assertIn("weir: cannot write the picture: ", errors)

    def check_policy(self, advice):
        """What is printed is a policy, and its cache is large enough."""
        text = self.advise("--policy", "--cache-dir", self.dir, "vm", "root")
        self.write("cached.yaml", "name: cached\nfilters:\n" + text)
        self.weir_ok("policy", "check", "--qemu-bin-dir", QEMU_BIN_DIR,
                     os.path.join(self.policies, "cached.yaml"))
        process = self.start(
            "file=%s,format=raw,policy=cached,device=none,id=two"
            % self.disk("two.img", SIZE), name="other")
        self.assertIsNone(process.poll(), process)
        qmp = Qmp(self.qmp_path("other"))
        cache = qmp.command("query-weir")[0]
        qmp.close()
        self.assertGreaterEqual(cache["size"], advice["cache-size"])
        self.assertLess(cache["size"], advice["cache-size"] * 1.2 + 4 * MIB)
        self.assertEqual(os.path.getsize(self.path("other-two.cache")),
                         advice["cache-file-size"])

    def test_watch(self):
        self.start_disk()
        self.work(300)
        trust = self.advise_json("--watch", "1", "vm")["trust"]
        self.assertEqual(trust["growth"], 0)
        self.assertGreaterEqual(trust["growth-seconds"], 1)

    def test_nothing_was_done(self):
        self.start_disk()
        text = self.advise("vm", "root")
        self.assertIn("VM vm, disk root: no cache helps\n", text)
        self.assertIn("nothing was read or written yet", text)
        self.weir_fails("weir: no cache helps disk root: nothing was read or "
                        "written yet", "advise", "--runtime-dir", self.runtime,
                        "--policy", "vm", "root")
        self.weir_fails("weir: cannot draw x.svg: nothing was read or written "
                        "yet", "advise", "--runtime-dir", self.runtime,
                        "--svg", "x.svg", "vm", "root")

    def test_cache_in_the_chain(self):
        self.write("both.yaml", """name: both
filters:
  - weir-cache:
      cache-file: create:64M:%s/c
  - weir-inspect:
""" % self.dir)
        self.start_disk("both")
        self.work(50)
        text = self.advise("vm", "root")
        self.assertRegex(text, r"cache now: +\d+ MiB, write-back, misses \d")
        self.assertIn("weir-inspect is below weir-cache", text)

    def test_without_weir_inspect(self):
        self.write("none.yaml", """name: none
filters:
  - weir-cache:
      cache-file: create:64M:%s/c
""" % self.dir)
        self.start_disk("none")
        code, output, errors = self.weir("advise", "--runtime-dir",
                                         self.runtime, "vm", "root")
        self.assertEqual((code, output), (1, ""))
        self.assertIn("weir: VM 'vm': no weir-inspect in disk 'root'\n",
                      errors)
        self.assertIn("  weir attach --policy NAME vm root\n", errors)
        self.assertIn("  weir reapply vm root\n", errors)
        self.assertIn("after a day", errors)
        self.weir_fails("weir: VM 'vm' has no disk 'x', expected one of root",
                        "advise", "--runtime-dir", self.runtime, "vm", "x")

    def test_usage(self):
        for args, message in (
                ((), "found no VM, expected one, or --qmp SOCKET"),
                (("a", "b", "c"), "found 'c', expected a VM and a disk"),
                (("--qmp", "s", "b", "c"), "found 'c', expected a disk"),
                (("--margin", "1", "a"), "found --margin 1, expected 0 to "
                 "0.9"),
                (("--margin", "nan", "a"), "found --margin nan, expected 0 to "
                 "0.9"),
                (("--watch", "-1", "a"), "found --watch -1, expected up to "
                 "86400 seconds"),
                (("--json", "--policy", "a"), "found --json and --policy, "
                 "expected one"),
                (("--cache-dir", "/x", "a"), "found --cache-dir without "
                 "--policy"),
                (("--policy", "--cache-dir", "x", "a"), "found --cache-dir "
                 "that is not an absolute path")):
            with self.subTest(args):
                self.weir_fails("weir: advise: " + message, "advise", *args,
                                code=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
