#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a policy says reaches list, show, compile and the drivers."""
import json
import os
import shlex
import unittest

from common import FakeTest

FULL = """
name: p            # a comment
description: "Quotes \\" and ünïcode"
version: 3
filters:
  - weir-acme:
      level: 0x9
      mode: safe
      ratio: 0.1
      where: {host: a, next: {host: b, port: -1}}
      tags: [x, "y z", '']
      hops:
        - host: c
        - {host: d, port: 9223372036854775807}
      when: {kind: day, weekday: monday}
      amount: many
      quiet: yes
    place: disk
  - weir-dots:
"""

ACME = {
    "level": 9, "mode": "safe", "ratio": 0.1,
    "where": {"host": "a", "next": {"host": "b", "port": -1}},
    "tags": ["x", "y z", ""],
    "hops": [{"host": "c"}, {"host": "d", "port": 9223372036854775807}],
    "when": {"kind": "day", "weekday": "monday"}, "amount": "many",
    "quiet": True,
}


class Show(FakeTest):
    def test_all_types(self):
        policy = self.accepts(FULL)
        self.assertEqual(policy["filters"], [
            {"driver": "weir-acme", "place": "disk", "options": ACME},
            {"driver": "weir-dots", "place": "storage", "options": {}}])
        self.assertEqual(policy["version"], 3)
        self.assertEqual(policy["description"], 'Quotes " and ünïcode')

    def test_defaults(self):
        policy = self.accepts("name: p\nfilters: []\n")
        self.assertEqual(policy, {
            "name": "p", "description": None, "version": 1, "filters": [],
            "file": os.path.join(self.policies, "p.yaml")})

    def test_limits(self):
        for text, key, value in (
                ("rpo: 1us", "rpo-ns", 1000),
                ("rpo: 500ms", "rpo-ns", 500 * 10 ** 6),
                ("rpo: 05s", "rpo-ns", 5 * 10 ** 9),
                ("rpo: 2m", "rpo-ns", 120 * 10 ** 9),
                ("rpo: 8784h", "rpo-ns", 8784 * 3600 * 10 ** 9),
                ("dirty: 1", "dirty-bytes", 1),
                ("dirty: 2K", "dirty-bytes", 2048),
                ("dirty: 3M", "dirty-bytes", 3 << 20),
                ("dirty: '2G'", "dirty-bytes", 2 << 30),
                ("dirty: 1024T", "dirty-bytes", 1 << 50),
                ("latency: 20ms", "latency-ns", 20 * 10 ** 6)):
            with self.subTest(text):
                policy = self.accepts(
                    "name: p\nlimits: {%s}\nfilters:\n  - weir-far:\n"
                    "  - weir-pair: {mirror: /m}\n" % text)
                self.assertEqual(policy["limits"], {key: value})

    def test_limits_as_text(self):
        self.write("p.yaml", "name: p\nlimits: {rpo: 5s, dirty: 2G, "
                   "latency: 20ms}\nfilters:\n  - weir-far:\n"
                   "  - weir-pair: {mirror: /m}\n")
        self.assertIn("\nlimits:      rpo 5.0 s, dirty 2.0 GiB, latency "
                      "20 ms\n", self.weir_ok(
                          "policy", "show", "--qemu-bin-dir", self.bin,
                          "--policies", self.policies, "p"))

    def test_drivers_get_the_options(self):
        log = self.path("log")
        path = self.write("p.yaml", FULL)
        self.assertEqual(self.check(path, FAKE_DAEMON_LOG=log), (0, "", ""))
        with open(log, encoding="utf-8") as file:
            nodes = [json.loads(line) for line in file]
        self.assertEqual([n["driver"] for n in nodes],
                         ["weir-dots", "weir-acme"])
        self.assertEqual(nodes[1], dict(ACME, **{
            "driver": "weir-acme", "file": nodes[0]["file"]}))

    def test_text(self):
        self.write("p.yaml", FULL)
        output = self.weir_ok("policy", "show", "--qemu-bin-dir", self.bin,
                              "--policies", self.policies, "p")
        self.assertIn("  weir-acme (place disk)\n    level: 9\n", output)
        self.assertIn("    ratio: 0.1\n", output)

    def test_missing_policy(self):
        self.write("a.yaml", "name: a\nfilters: []\n")
        self.write("b.yaml", "name: b\nfilters: []\n")
        show = ["policy", "show", "--qemu-bin-dir", self.bin, "--policies",
                self.policies]
        self.weir_fails("weir: there is no policy 'c' in %s (there are a, b)"
                        % self.policies, *show, "c")
        self.weir_fails("weir: there is no policy '../a' in %s (there are a, "
                        "b)" % self.policies, *show, "../a")

    def test_policy_in_two_directories(self):
        other = self.path("other")
        os.mkdir(other)
        self.write("a.yaml", "name: a\nfilters: []\n")
        os.link(os.path.join(self.policies, "a.yaml"),
                os.path.join(other, "a.yaml"))
        self.weir_fails("weir: policy 'a' is in both %s/a.yaml and %s/a.yaml"
                        % (self.policies, other), "policy", "show",
                        "--qemu-bin-dir", self.bin, "--policies",
                        self.policies, "--policies", other, "a")

    def test_missing_directory(self):
        self.weir_fails("weir: cannot read policy directory %s: No such file "
                        "or directory" % self.path("no"), "policy", "list",
                        "--qemu-bin-dir", self.bin, "--policies",
                        self.path("no"))


class List(FakeTest):
    def test_table(self):
        self.write("p.yaml", FULL)
        self.write("empty.yaml", "name: empty\nfilters: []\n")
        self.write("other.txt", "not a policy")
        output = self.weir_ok("policy", "list", "--qemu-bin-dir", self.bin,
                              "--policies", self.policies, LC_ALL="C.UTF-8")
        self.assertEqual(output.splitlines(), [
            "NAME   VERSION  FILTERS               DESCRIPTION",
            "empty  1        -                     ",
            'p      3        weir-acme, weir-dots  Quotes " and ünïcode'])

    def test_wrong_ones_are_left_out(self):
        self.write("a.yaml", "name: a\nfilters: []\n")
        bad = self.write("b.yaml", "name: b\n")
        code, output, errors = self.weir(
            "policy", "list", "--json", "--qemu-bin-dir", self.bin,
            "--policies", self.policies)
        self.assertEqual(code, 1)
        self.assertEqual([p["name"] for p in json.loads(output)], ["a"])
        self.assertEqual(errors, "%s:1:1: found no key 'filters', expected "
                         "it\n" % bad)


class Compile(FakeTest):
    def chain(self, disk, *more, policy="p"):
        output = self.weir_ok("compile", "--qemu-bin-dir", self.bin,
                              "--policies", self.policies, "--policy", policy,
                              "--disk", disk, *more)
        return output.splitlines()

    def nodes(self, disk, **more):
        return [json.loads(line) for line in self.chain(disk, **more)]

    def test_order_and_names(self):
        self.write("p.yaml", FULL)
        nodes = self.nodes("file=/a,format=qcow2,id=root")
        self.assertEqual(
            [(n["driver"], n["node-name"], n.get("file")) for n in nodes],
            [("file", "weir-root-storage", None),
             ("weir-dots", "weir-root-dots", "weir-root-storage"),
             ("qcow2", "weir-root-format", "weir-root-dots"),
             ("weir-acme", "weir-root-acme", "weir-root-format")])
        self.assertEqual({k: nodes[3][k] for k in ACME}, ACME)
        self.assertEqual(nodes[0]["filename"], "/a")

    def test_several_disks(self):
        """Of one VM, with different policies, and default ids."""
        self.write("p.yaml", "name: p\nfilters: [{weir-dots: }]\n")
        self.write("q.yaml", "name: q\nfilters: []\n")
        output = self.weir_ok(
            "compile", "--qemu-bin-dir", self.bin, "--policies",
            self.policies, "--disk", "file=/a,format=raw,policy=p", "--disk",
            "file=/b,format=raw,policy=q")
        self.assertEqual(
            [json.loads(line)["node-name"] for line in output.splitlines()],
            ["weir-disk0-storage", "weir-disk0-dots", "weir-disk0-format",
             "weir-disk1-storage", "weir-disk1-format"])
        code, output, errors = self.weir(
            "compile", "--qemu-bin-dir", self.bin, "--policies",
            self.policies, "--config-dir", self.dir, "--disk",
            "file=/a,format=raw,policy=p", "--disk", "file=/b,format=raw")
        self.assertEqual((code, output), (1, ""))
        self.assertIn("found no policy for disk disk1", errors)
        code, output, errors = self.weir(
            "compile", "--policy", "p", "--disk", "file=/a,format=raw",
            "--disk", "file=/b,format=raw,id=disk0")
        self.assertEqual((code, output), (1, ""))
        self.assertIn("disk0", errors)

    def test_several_filters_of_a_place(self):
        self.write("p.yaml", "name: p\nfilters:\n  - weir-dots:\n"
                   "  - weir-acme: {level: 1}\n")
        self.assertEqual([n["driver"] for n in
                          self.nodes("file=/a,format=raw")],
                         ["file", "weir-acme", "weir-dots", "raw"])

    def test_every_node_is_told(self):
        self.write("p.yaml", FULL)
        for node in self.nodes("file=/a,format=raw"):
            self.assertEqual(
                (node["discard"], node["read-only"], node["cache"]),
                ("unmap", False, {"direct": False, "no-flush": False}))
        for node in self.nodes("file=/a,format=raw,cache.direct=on,aio=native,"
                               "cache.no-flush=on,read-only=on,"
                               "discard=ignore"):
            self.assertEqual(
                (node["discard"], node["read-only"], node["cache"]),
                ("ignore", True, {"direct": True, "no-flush": True}))
            self.assertEqual(node.get("aio"), "native"
                             if node["driver"] == "file" else None)

    def mirror(self, place, *more, disk="file=/a,format=raw,id=d"):
        """What weir-pair gets for a node at that place."""
        self.write("p.yaml", "name: p\nfilters:\n  - weir-pair: {mirror: "
                   "'%s'}\n" % place)
        return json.loads(self.chain(disk, *more)[1])["mirror"]

    def test_files_of_filters(self):
        common = {"node-name": "weir-d-mirror", "discard": "unmap",
                  "cache": {"direct": False, "no-flush": False}}
        self.assertEqual(self.mirror("/m"), dict(
            common, driver="file", filename="/m"))
        self.assertEqual(self.mirror("create:1M:/a b:c"), dict(
            common, driver="file", filename="/a b:c"))
        self.assertEqual(
            self.mirror("/m", disk="file=/a,format=raw,id=d,cache.direct=on,"
                        "aio=native,cache.no-flush=on"),
            dict(common, driver="file", filename="/m", aio="native",
                 cache={"direct": True, "no-flush": False}))

    def test_nbd_servers_of_filters(self):
        def node(export, **more):
            return dict({"driver": "nbd", "node-name": "weir-d-mirror",
                         "export": export}, **more)
        self.assertEqual(
            self.mirror("nbd://h/e"), node("e", server={
                "type": "inet", "host": "h", "port": "10809"}))
        self.assertEqual(
            self.mirror("nbd://[::1]:99/a%20b/c"), node("a b/c", server={
                "type": "inet", "host": "::1", "port": "99"}))
        self.assertEqual(
            self.mirror("nbd+unix:///?socket=/s%3Fx"), node("", server={
                "type": "unix", "path": "/s?x"}))
        self.assertEqual(
            self.mirror("nbds://h/e?tls-creds=c&tls-hostname=n"),
            node("e", **{"tls-creds": "c", "tls-hostname": "n", "server": {
                "type": "inet", "host": "h", "port": "10809"}}))

    def test_variables(self):
        self.assertEqual(
            self.mirror("/$$/${vm}-${disk}/${policy}}${vm}", "--name", "v.1")
            ["filename"], "/$/v.1-d/p}v.1")
        self.assertEqual(self.mirror("/${host}")["filename"],
                         "/" + os.uname().nodename)
        self.write("q.yaml", "name: q\nfilters:\n  - weir-acme:\n      level: "
                   "1\n      tags: ['${disk}']\n      where: {host: '${vm}'}\n")
        node = json.loads(self.chain("file=/a,format=raw,id=d", "--name", "x",
                                     policy="q")[1])
        self.assertEqual((node["tags"], node["where"]),
                         (["d"], {"host": "x"}))

    def test_secrets(self):
        for text, needs in (("k", ""), (
                "file:/k/${vm}", "the content of file /k/d"), (
                "credential:c", "the credential c"), (
                "command:/bin/cat /k", "the output of command /bin/cat /k")):
            self.write("p.yaml", "name: p\nfilters:\n  - weir-lock: "
                       "{key-secret: '%s'}\n" % text)
            code, output, errors = self.weir(
                "compile", "--qemu-bin-dir", self.bin, "--policies",
                self.policies, "--policy", "p", "--disk",
                "file=/a,format=raw,id=d")
            self.assertEqual(code, 0)
            self.assertEqual(
                json.loads(output.splitlines()[1])["key-secret"],
                "weir-d-key-secret" if needs else "k")
            self.assertEqual(errors, needs and "weir: needs an object 'secret' "
                             "with the id weir-d-key-secret: %s\n" % needs)

    def test_names_are_short_and_distinct(self):
        self.write("p.yaml", FULL)
        names = [n["node-name"] for disk in ("x" * 32, "x" * 31 + "y")
                 for n in self.nodes("file=/a,format=raw,id=" + disk)]
        self.assertEqual(len(set(names)), 8)
        for name in names:
            self.assertLessEqual(len(name), 31)
            self.assertRegex(name, r"^weir-x+-[0-9a-f]{8}$")

    def test_same_again(self):
        self.write("p.yaml", FULL)
        disk = "file=/a,format=raw,node-prefix=" + "n" * 32
        self.assertEqual(self.chain(disk), self.chain(disk))

    def test_node_prefix(self):
        self.write("p.yaml", "name: p\nfilters: []\n")
        self.assertEqual([n["node-name"] for n in self.nodes(
            "file=/a,format=raw,node-prefix=sys")],
            ["sys-storage", "sys-format"])

    def test_qsd(self):
        self.write("p.yaml", FULL)
        disk = "file=/it's $HOME,,format=raw"
        plain = self.chain("format=raw," + disk.replace(",,format=raw", ""))
        quoted = self.chain("format=raw," + disk.replace(",,format=raw", ""),
                            "--format", "qsd")
        self.assertEqual([shlex.split(line) for line in quoted],
                         [["--blockdev", line] for line in plain])

    def test_comma_in_file(self):
        self.write("p.yaml", "name: p\nfilters: []\n")
        self.assertEqual(self.nodes("file=/a,,b,format=raw")[0]["filename"],
                         "/a,b")

    def test_wrong_disks(self):
        self.write("p.yaml", "name: p\nfilters: []\n")
        keys = ("file, format, policy, id, node-prefix, device, iothread, "
                "aio, cache.direct, cache.no-flush, read-only, discard")
        for disk, message in (
                ("format=raw", "found no file, expected file=FILE and "
                 "format=FORMAT (it is never guessed)"),
                ("file=/a", "found no format, expected file=FILE and "
                 "format=FORMAT (it is never guessed)"),
                ("file=/a,fromat=raw", "found unknown 'fromat', expected one "
                 "of %s; did you mean 'format'?" % keys),
                ("file=/a,format=raw,aio=uring", "found aio=uring, expected "
                 "one of threads, native, io_uring"),
                ("file=/a,format=raw,aio=native", "found aio=native without "
                 "cache.direct=on, expected both"),
                ("file=/a,format=raw,read-only=yes", "found read-only=yes, "
                 "expected one of off, on"),
                ("file=/a,format=raw,id=0", "found id=0, expected up to 32 "
                 "letters, digits, '.', '_' and '-', the first a letter"),
                ("file=/a,format=raw,id=a,id=b", "found id twice, expected "
                 "it once"),
                ("file=/a,format=raw,id", "found id without a value, "
                 "expected id=VALUE"),
                ("file=/a,format=raw,device=ide", "found device=ide, expected "
                 "one of virtio-blk, virtio-scsi, none"),
                ("file=/a,format=raw,device=none,iothread=t", "found iothread "
                 "with device=none, expected a device that uses it")):
            with self.subTest(disk):
                self.weir_fails("weir: --disk: " + message, "compile",
                                "--qemu-bin-dir", self.bin, "--policies",
                                self.policies, "--policy", "p", "--disk",
                                disk)

    def test_refused_value(self):
        path = self.write("p.yaml", "name: p\nfilters:\n"
                          "  - weir-acme: {level: 10}\n")
        self.weir_fails("%s:3:5: weir-acme refuses its options: level must be "
                        "0 to 9" % path, "compile", "--qemu-bin-dir", self.bin,
                        "--policies", self.policies, "--policy", "p",
                        "--disk", "file=/a,format=raw")


class Usage(FakeTest):
    def test_help(self):
        for command in ([], ["policy"], ["policy", "check"],
                        ["policy", "list"], ["policy", "show"], ["compile"],
                        ["run"], ["status"], ["inspect"]):
            with self.subTest(command):
                output = self.weir_ok(*command, "--help")
                self.assertTrue(output.startswith("Usage:\n  "
                                + " ".join(["weir"] + command)), output)

    def test_wrong_usage(self):
        for command, message in (
                (["polcy"], "found unknown command 'polcy', expected one that "
                 "'weir --help' lists"),
                (["policy", "chek"], "found unknown command 'chek', expected "
                 "one that 'weir policy --help' lists"),
                (["policy", "check"], "policy check: found no file, expected "
                 "at least one"),
                (["policy", "show"], "policy show: found 0 names, expected "
                 "one"),
                (["compile", "--formt"], "Unknown option --formt (weir "
                 "compile --help tells more)"),
                (["compile"], "compile: found no disk, expected --disk DISK"),
                (["compile", "--format", "xml"], "compile: found format "
                 "'xml', expected blockdev or qsd"),
                (["run", "x"], "run: found 'x', expected QEMU's arguments "
                 "after --"),
                (["status", "a", "b"], "status: found 'b', expected one VM or "
                 "--qmp")):
            with self.subTest(command):
                self.weir_fails("weir: " + message, *command, code=2)

    def test_no_command(self):
        code, output, errors = self.weir()
        self.assertEqual((code, output), (2, ""))
        self.assertTrue(errors.startswith("Usage:\n"))

    def test_version(self):
        self.assertRegex(self.weir_ok("--version"), r"^weir \S+\n$")


if __name__ == "__main__":
    unittest.main()
