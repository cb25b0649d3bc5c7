#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir policy diff: what differs, and how a disk in use follows."""
import json
import unittest

from common import QEMU_BIN_DIR, FakeTest, WeirTest, need

need("qemu-storage-daemon")

POLICY = """name: %s
version: %d
filters:
"""

ENCRYPTED = ("the data on it is not encrypted, and the guest would see noise; "
             "the QMP command weir-encrypt encrypts it in place, after which "
             "the VM is started under the policy")
DECRYPT = ("the data below it is encrypted, and the guest would see it so; "
           "decrypt the disk first with the QMP command weir-decrypt")
AGAIN = "all of the disk goes to the log again"
GROUP = "while no other disk has the same log; " + AGAIN

CACHE = "  - weir-cache: {cache-file: '%s'%s}\n"
INSPECT = "  - weir-inspect: {%s}\n    place: %s\n"
REPLICATION = "  - weir-replication: {disk-id: %s, log: 'nbd://h/l'%s}\n"
ENCRYPTION = "  - weir-encryption: {key-secret: %s%s}\n"


class DiffTest(WeirTest):
    BIN = QEMU_BIN_DIR

    def policy(self, name, *filters, version=1, more=""):
        return self.write(name + ".yaml", POLICY % (name, version)
                          + ("".join(filters) or "  []\n") + more)

    def diff(self, *args):
        return self.weir("policy", "diff", "--qemu-bin-dir", self.BIN,
                         "--policies", self.policies, *args)

    def finds(self, *expected):
        """From a to b: (what, before, after, how, reason), in that order."""
        code, output, errors = self.diff("--json", "a", "b")
        self.assertEqual((code, errors), (1 if expected else 0, ""))
        found = json.loads(output)
        self.assertEqual(
            [(".".join(filter(None, (d["filter"], d["what"]))), d["before"],
              d["after"], d["how"], d["reason"]) for d in found],
            list(expected))
        self.assertEqual([d["live"] for d in found],
                         [d["how"] not in ("not", "at-open") for d in found])


class Diff(DiffTest):
    def test_same(self):
        self.policy("a", CACHE % ("/c", ""), INSPECT % ("", "disk"))
        self.policy("b", CACHE % ("/c", ""), INSPECT % ("", "disk"),
                    more="# only a comment\n")
        self.finds()
        self.assertEqual(self.diff("a", "b"), (0, "", ""))

    def test_policy_itself(self):
        self.policy("a")
        self.policy("b", version=3, more="description: text\n"
                    "allow-before-encryption: true\n")
        self.finds(("version", 1, 3, "nothing", None),
                   ("description", None, "text", "nothing", None),
                   ("allow-before-encryption", False, True, "nothing", None))

    def test_start(self):
        why = "it holds from when the VM is started"
        self.policy("a")
        self.policy("b", more="run: out-of-process\non-error: report\n")
        self.finds(("run", "in-process", "out-of-process", "not", why),
                   ("on-error", None, "report", "not", why))

    def test_filters(self):
        self.policy("a", ENCRYPTION % ("s", ""), CACHE % ("/c", ""))
        self.policy("b", INSPECT % ("", "disk"))
        self.finds(("weir-inspect", None, "disk", "attach", None),
                   ("weir-encryption", "storage", None, "not", DECRYPT),
                   ("weir-cache", "storage", None, "detach", None))
        self.policy("b", ENCRYPTION % ("s", ""))
        self.policy("a")
        self.finds(("weir-encryption", None, "storage", "not", ENCRYPTED))

    def test_options(self):
        self.policy("a", ENCRYPTION % ("s", ", key-slot: 1"),
                    REPLICATION % ("x", ", mode: async, sidecar: /s"),
                    CACHE % ("create:1G:/c", ", base-id: x, idle: 1"))
        self.policy("b", ENCRYPTION % ("s", ", workers: 2"),
                    REPLICATION % ("y", ", mode: write-sync, sidecar: /s, "
                                   "rpo-limit: 9"),
                    CACHE % ("create:2G:/c", ", base-id: y, overwrite: true"))
        self.finds(
            ("weir-encryption.key-slot", 1, None, "at-open", None),
            ("weir-encryption.workers", None, 2, "not", "the filter takes it "
             "only when the VM is started, and cannot be detached"),
            ("weir-replication.disk-id", "x", "y", "reattach", AGAIN),
            ("weir-replication.mode", "async", "write-sync", "reattach",
             GROUP),
            ("weir-replication.rpo-limit", None, 9, "reopen", None),
            ("weir-cache.base-id", "x", "y", "reattach", None),
            ("weir-cache.cache-file", "create:1G:/c", "create:2G:/c",
             "nothing", None),
            ("weir-cache.idle", 1, None, "reopen", None),
            ("weir-cache.overwrite", None, True, "at-open", None))
        self.policy("a", CACHE % ("/c", ""))
        self.policy("b", CACHE % ("/d", ""))
        self.finds(("weir-cache.cache-file", "/c", "/d", "reattach", None))

    def test_place_and_order(self):
        self.policy("a", INSPECT % ("", "storage"), CACHE % ("/c", ""))
        self.policy("b", CACHE % ("/c", ""), INSPECT % ("", "storage"))
        self.finds(("weir-inspect.order", "above weir-cache",
                    "below weir-cache", "reattach", None))
        self.policy("b", INSPECT % ("", "disk"), CACHE % ("/c", ""))
        self.finds(("weir-inspect.place", "storage", "disk", "reattach",
                    None))
        before = "allow-before-encryption: true\n"
        self.policy("a", ENCRYPTION % ("s", ""), INSPECT % ("", "storage"),
                    more=before)
        self.policy("b", INSPECT % ("", "storage"), ENCRYPTION % ("s", ""),
                    more=before)
        self.finds(("weir-inspect.order", "below weir-encryption",
                    "above weir-encryption", "reattach", None))

    def test_table(self):
        path = self.policy("a", CACHE % ("/c", ", mode: write-back"))
        self.policy("b", CACHE % ("/c", ", mode: read-only"))
        self.assertEqual(self.diff(path, "b"), (
            1, "WHAT             BEFORE      AFTER      DISKS IN USE\n"
            "weir-cache.mode  write-back  read-only  live\n", ""))

    def test_errors(self):
        self.policy("a")
        for args, message in (
                (("a",), "weir: policy diff: found 1 policies, expected two"),
                (("a", "x"), "weir: there is no policy 'x' in %s (there is a)"
                 % self.policies),
                (("a", "/nonexistent/x.yaml"), "weir: cannot read policy file "
                 "/nonexistent/x.yaml: No such file or directory")):
            self.assertEqual(self.diff(*args), (2, "", message + "\n"))


class Unknown(FakeTest, DiffTest):
    """Filters of others are changed by being attached again."""

    def setUp(self):
        super().setUp()
        self.BIN = self.bin

    def test_options(self):
        self.policy("a", "  - weir-acme: {level: 1}\n")
        self.policy("b", "  - weir-acme: {level: 2, log: /l}\n")
        self.finds(("weir-acme.level", 1, 2, "reattach", None),
                   ("weir-acme.log", None, "/l", "reattach", None))


if __name__ == "__main__":
    unittest.main()
