#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir attach, detach and reapply: the policy of a disk in use is changed
wholly or not at all, and no byte of the disk is lost."""
import json
import os
import signal
import subprocess
import threading
import unittest

from common import GUARD_S, QEMU_BIN_DIR, WEIR, need, wait_for
from changetest import MIB, PREFIX, Change, Load

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")


WHOLE = """  - weir-inspect: {entropy-window: %d}
    place: disk
  - weir-replication:
      disk-id: ${vm}-${disk}
      log: nbd+unix:///log?socket=%s
      sidecar: create:16M:%s/${disk}.sidecar
      rpo-limit: %d
  - weir-cache:
      cache-file: create:16M:%s/${disk}%s.cache
      mode: %s
      idle: 0
"""


class WholePolicy(Change):
    """inspect, replication and cache, while a client writes."""

    def whole(self, version=1, window=30, rpo=0, cache="", mode="write-back"):
        self.policy("whole", WHOLE % (window, self.socket, self.dir, rpo,
                                      self.dir, cache, mode), version)

    def setUp(self):
        super().setUp()
        self.socket = self.keeper("disk0")
        self.whole()

    def wait_for_stream(self):
        wait_for(lambda: [(f["status"], f["state"])
                          for f in self.qmp("query-weir")
                          if f["driver"] == "weir-replication"] ==
                 [("streaming", "ok")], "the log having all")

    def test_from_none_to_none(self):
        self.vm()
        before = self.nodes()
        load = Load(self)
        output = self.change("attach", "--policy", "whole")
        note, output = output.split("\n", 1)
        self.assertEqual(note, "note: without the cache %s/disk0.cache the "
                         "disk will not be whole: let the next start of the VM "
                         "have this policy, or detach it before" % self.dir)
        # the log gets a copy of the disk, which may take its time
        self.assertEqual(output.split("note: ")[0], (
            "make {0}/disk0.cache for weir-cache, if it is missing\n"
            "open node weir-disk0-cache-file for weir-cache\n"
            "attach weir-cache (node weir-disk0-cache) above node "
            "weir-disk0-storage\n"
            "make {0}/disk0.sidecar for weir-replication, if it is "
            "missing\n"
            "open node weir-disk0-sidecar for weir-replication\n"
            "attach weir-replication (node weir-disk0-replication) above node "
            "weir-disk0-cache\n"
            "attach weir-inspect (node weir-disk0-inspect) above node "
            "weir-disk0-format\n"
            "disk disk0 of VM vm is under policy 'whole', version 1\n")
            .format(self.dir))
        load.wait()
        self.wait_for_stream()
        self.finds(0, "compliant")
        self.assertEqual(self.change("reapply"), "disk disk0 of VM vm is "
                         "under policy 'whole', version 1, already\n")
        self.wait_for_stream()

        # options that a filter takes as it is
        self.whole(2, window=60, rpo=60000, mode="write-through")
        names = set(self.filters())
        self.assertEqual(
            [line for line in self.change("reapply").splitlines()
             if line.startswith("change")],
            ["change options of %s (node weir-disk0-%s)"
             % ("weir-" + name, name)
             for name in ("inspect", "replication", "cache")])
        self.assertEqual(set(self.filters()), names)
        self.assertEqual(self.filters()["weir-disk0-cache"]["mode"],
                         "write-through")
        load.wait()

        # another file: dirty blocks of the first go down before
        self.whole(3, cache="2", mode="write-back")
        self.change("reapply")
        load.wait()
        self.assertEqual(self.drivers(), [
            "weir-inspect", "raw", "weir-replication", "weir-cache", "file"])
        self.wait_for_stream()
        self.assertEqual(self.finds(0, "compliant")["policy-version"], 3)
        wait_for(lambda: self.filters()["weir-disk0-cache-2"]["dirty"] > 0,
                 "dirty blocks")
        self.change("detach")
        load.end()
        self.assertEqual(self.nodes(), before)
        load.verify_file(self.image)
        self.finds(0, "not-applicable", "under no policy")
        self.stop(self.process)
        self.assertEqual(self.process.returncode, 0)

    def test_log_that_is_away(self):
        """Replication begins without it, as when a VM is started."""
        self.policy("p", "  - weir-replication:\n      disk-id: d\n      log: "
                    "nbd+unix:///log?socket=%s\n" % self.path("nowhere"))
        self.vm()
        self.assertEqual(
            self.change("attach", "--policy", "p").splitlines()[1:],
            ["disk disk0 of VM vm is under policy 'p', version 1",
             "note: weir-replication (node weir-disk0-replication) is "
             "degraded: the replication log cannot be reached: Failed to "
             "connect to '%s': No such file or directory"
             % self.path("nowhere")])
        self.assertIn("note: the log of weir-replication (node "
                      "weir-disk0-replication) does not have all of the disk "
                      "yet\n", self.change("detach"))

    def test_filters_from_the_start(self):
        """Nodes that the filters have opened themselves go with them."""
        self.vm("whole")
        load = Load(self)
        self.whole(2, window=60, rpo=60000, mode="write-through")
        self.change("reapply")
        self.change("detach")
        load.end()
        load.verify_file(self.image)
        self.assertEqual([n["node-name"] for n in self.nodes()[0]],
                         [PREFIX + "format", PREFIX + "storage"])

    def fails_at(self, number, proxy):
        """The step of that number is answered with an error."""
        def act(count, command, client):
            if count != number:
                return True
            return proxy.refuse(command, client)
        proxy.act = act
        proxy.count = 0

    def test_failure_at_each_step(self):
        """Of a change with all kinds of steps: the graph is what it was."""
        self.policy("old", "  - weir-inspect: {}\n  - weir-cache:\n"
                    "      cache-file: create:16M:%s/old.cache\n"
                    "      idle: 0\n" % self.dir)
        self.vm()
        self.change("attach", "--policy", "old")
        proxy = self.proxied()
        load = Load(self)
        files = set(os.listdir(self.dir))
        for number in range(1, 8):
            self.fails_at(number, proxy)
            with self.subTest(number):
                output = self.change("reapply", "--policy", "whole",
                                     "--dry-run").splitlines()
                steps = [line for line in output
                         if line.startswith(("attach", "detach", "change"))]
                if number > len(steps):
                    break
                self.change_fails(
                    "weir: VM 'vm', disk disk0: %s: no luck; everything is as "
                    "before" % steps[number - 1], "reapply", "--policy",
                    "whole")
                self.assertEqual(set(os.listdir(self.dir)), files)
                load.wait()
        self.assertEqual(number, 6)
        proxy.act = None
        self.change("reapply", "--policy", "whole")
        self.change("detach")
        load.end()
        load.verify_file(self.image)
        self.assertEqual(len(self.nodes()[0]), 2)

    def kill_at(self, number, proxy, after):
        """weir is killed before or after QEMU gets that step."""
        killed = threading.Event()

        def act(count, command, client):
            if count != number:
                return not killed.is_set()
            # it cannot have ended before it is killed
            proxy.mute = True
            killed.set()
            return after
        proxy.act = act
        proxy.count = 0
        return killed

    def test_killed_at_each_step(self):
        self.policy("old", "  - weir-inspect: {}\n  - weir-cache:\n"
                    "      cache-file: create:16M:%s/old.cache\n"
                    "      idle: 0\n" % self.dir)
        self.vm()
        before = self.nodes()
        proxy = self.proxied()
        load = Load(self)
        for number in range(1, 6):
            for after in (False, True):
                with self.subTest(number=number, after=after):
                    self.change("attach", "--policy", "old")
                    killed = self.kill_at(number, proxy, after)
                    weir = subprocess.Popen(
                        [WEIR, *self.args("reapply", "--policy", "whole")],
                        stdout=subprocess.DEVNULL)
                    self.assertTrue(killed.wait(GUARD_S))
                    weir.kill()
                    weir.wait(GUARD_S)
                    proxy.act = None
                    load.wait()
                    disk = self.status()[1][0]
                    self.assertEqual(disk["state"], "non-compliant")
                    self.assertIn("a change to policy 'whole' was interrupted",
                                  disk["reason"])
                    if (number + after) % 2:
                        self.change("reapply")
                        load.wait()
                        self.wait_for_stream()
                        self.assertEqual(
                            self.finds(0, "compliant")["policy"], "whole")
                    self.change("detach")
                    self.assertEqual(self.nodes(), before)
                    self.assertNotIn("change", self.record())
        load.end()
        load.verify_file(self.image)

    def options(self):
        """What two of the filters tell of their options."""
        filters = self.filters()
        return (filters[PREFIX + "cache"]["mode"],
                filters[PREFIX + "inspect"]["entropy"]["window"])

    def test_options(self):
        """They are changed in all filters or in none."""
        self.policy("o", "  - weir-inspect: {entropy-window: 40}\n"
                    "  - weir-cache:\n      cache-file: create:16M:%s/o\n"
                    "      mode: write-through\n" % self.dir)
        self.vm("o")
        proxy = self.proxied()
        old, new = ("write-through", 40), ("read-only", 50)
        self.assertEqual(self.options(), old)
        self.policy("o", "  - weir-inspect: {entropy-window: 50}\n"
                    "  - weir-cache:\n      cache-file: %s/o\n"
                    "      mode: read-only\n" % self.dir, 2)
        self.fails_at(2, proxy)
        self.change_fails(
            "weir: VM 'vm', disk disk0: change options of weir-cache (node "
            "weir-disk0-cache): no luck; everything is as before", "reapply")
        self.assertEqual(self.options(), old)
        for after in (False, True):
            killed = self.kill_at(2, proxy, after)
            weir = subprocess.Popen(
                [WEIR, *self.args("reapply", "--policy", "o")],
                stdout=subprocess.DEVNULL)
            self.assertTrue(killed.wait(GUARD_S))
            weir.kill()
            weir.wait(GUARD_S)
            proxy.act = None
            self.assertEqual(self.status()[0], 3)
            self.change("reapply")
            self.assertEqual(self.options(), new)
            self.finds(0, "compliant")
            self.policy("p", "  - weir-inspect: {entropy-window: 40}\n"
                        "  - weir-cache:\n      cache-file: %s/o\n"
                        "      mode: write-through\n" % self.dir)
            self.change("reapply", "--policy", "p")
            self.assertEqual(self.options(), old)

    def test_interrupted(self):
        """SIGTERM undoes what has been done."""
        self.vm()
        proxy = self.proxied()
        before = self.nodes()
        begun = threading.Event()
        go_on = threading.Event()
        self.addCleanup(go_on.set)

        def act(count, command, client):
            if count == 2:
                begun.set()
                go_on.wait(GUARD_S)
            return True
        proxy.act = act
        weir = subprocess.Popen(
            [WEIR, *self.args("attach", "--policy", "whole")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.assertTrue(begun.wait(GUARD_S))
        weir.send_signal(signal.SIGTERM)
        go_on.set()
        errors = weir.communicate(timeout=GUARD_S)[1]
        self.assertEqual((weir.returncode, errors), (
            1, "weir: VM 'vm', disk disk0: attach weir-inspect (node "
            "weir-disk0-inspect) above node weir-disk0-format: interrupted; "
            "everything is as before\n"))
        self.assertEqual(self.nodes(), before)

    def test_no_way_back(self):
        """Neither forward nor back: that is told, and can be mended."""
        self.vm()
        before = self.nodes()
        proxy = self.proxied()

        def act(count, command, client):
            if count < 3:
                return True
            return proxy.refuse(command, client)
        proxy.act = act
        code, _, errors = self.weir(*self.args("attach", "--policy", "whole"))
        self.assertEqual((code, errors), (
            3, "weir: VM 'vm', disk disk0: attach weir-inspect (node "
            "weir-disk0-inspect) above node weir-disk0-format: no luck; "
            "cannot undo 'attach weir-replication (node "
            "weir-disk0-replication) above node weir-disk0-cache': no luck; "
            "weir reapply or weir detach goes on from here\n"))
        proxy.act = None
        self.assertEqual(self.status()[0], 3)
        self.weir_fails("weir: a change of disk disk0 was interrupted: weir "
                        "reapply ends it, weir detach undoes it",
                        *self.args("attach", "--policy", "whole"))
        self.change("detach")
        self.assertEqual(self.nodes(), before)


class Refusals(Change):
    """Each leaves the disk as it was."""

    def test_own_nodes(self):
        """A filter's own node cannot be made, opened, or used."""
        self.vm()
        load = Load(self)
        cache = ("  - weir-inspect: {}\n    place: disk\n"
                 "  - weir-cache: {cache-file: '%s'}\n")
        self.policy("p", cache % "create:16M:/nonexistent/c")
        self.change_fails(
            "weir: VM 'vm', disk disk0: make /nonexistent/c for weir-cache, "
            "if it is missing: cannot make /nonexistent/c: No such file or "
            "directory; everything is as before", "attach", "--policy", "p")
        self.policy("p", cache % "/nonexistent/c")
        self.change_fails(
            "weir: VM 'vm', disk disk0: open node weir-disk0-cache-file for "
            "weir-cache: Could not open '/nonexistent/c': No such file or "
            "directory; everything is as before", "attach", "--policy", "p")
        path = self.disk("full", 16 * MIB)
        with open(path, "r+b") as file:
            file.write(b"data of somebody else")
        self.policy("p", cache % path)
        self.change_fails(
            "weir: VM 'vm', disk disk0: attach weir-cache (node "
            "weir-disk0-cache) above node weir-disk0-storage: weir-cache: "
            "Node 'weir-disk0-cache-file': the cache device holds something "
            "else; overwrite=on lets it be lost: Wrong medium type; "
            "everything is as before", "attach", "--policy", "p")
        self.policy("p", "  - weir-replication: {disk-id: d, log: /log}\n"
                    "  - weir-cache: {cache-file: 'create:16M:%s', "
                    "mode: write-through}\n" % self.path("c"))
        output = self.change_fails(
            "weir: VM 'vm', disk disk0: open node weir-disk0-log for "
            "weir-replication: Could not open '/log': No such file or "
            "directory; everything is as before", "attach", "--policy", "p")
        self.assertEqual(output.splitlines()[-3:], [
            "undo: attach weir-cache (node weir-disk0-cache) above node "
            "weir-disk0-storage",
            "undo: open node weir-disk0-cache-file for weir-cache",
            "undo: make %s for weir-cache, if it is missing"
            % self.path("c")])
        self.assertFalse(os.path.exists(self.path("c")))
        load.end()

    def test_wrong_policy(self):
        self.vm()
        path = os.path.join(self.policies, "p.yaml")
        self.policy("p", "  - weir-cache: {cache-file: /c, dirty-high: 99}\n")
        self.change_fails(
            "%s:4:5: weir-cache refuses its options: weir-cache: dirty-high "
            "must be 1 to 95 percent" % path, "attach",
            "--policy", "p")

    def test_wrong_target(self):
        self.vm()
        args = self.args("detach")
        self.weir_fails("weir: VM 'vm' has no disk 'x' (it has disk0)",
                        "detach", "vm", "x", *args[3:])
        self.weir_fails("weir: there is no VM 'x' in %s" % self.runtime,
                        "detach", "x", "disk0", *args[3:])
        self.weir_fails("weir: '../vm' cannot be the name of a VM",
                        "detach", "../vm", "disk0", *args[3:])
        self.weir_fails("weir: attach: found no policy, expected --policy "
                        "NAME", "attach", "vm", "disk0", code=2)
        self.weir_fails("weir: detach: found 1 arguments, expected a VM and "
                        "a disk", "detach", "vm", code=2)
        os.kill(self.qemu_pid(), signal.SIGKILL)
        wait_for(lambda: not os.path.exists(self.record_path()), "the end")
        self.weir_fails("weir: there is no VM 'vm' in %s" % self.runtime,
                        *args)

    def test_policy_that_is_there(self):
        self.vm("observe")
        self.change_fails(
            "weir: disk disk0 is under policy 'observe': weir reapply "
            "--policy none brings it under the other one", "attach",
            "--policy", "none")
        self.change("reapply", "--policy", "none")
        self.change("attach", "--policy", "observe")
        self.change("detach")
        self.assertEqual(self.change("detach"), "disk disk0 of VM vm is under "
                         "no policy, already\n")
        self.change_fails("weir: disk disk0 is under no policy: weir attach "
                          "brings it under one", "reapply")

    def test_migration(self):
        """Two QEMUs have the disk, and the files of its filters."""
        self.policy("p", "  - weir-inspect: {}\n")
        self.start("file=%s,format=raw,policy=none" % self.image)
        self.qmp("migrate-set-parameters", {"max-bandwidth": 1000})
        self.qmp("migrate", {"uri": "exec:cat > /dev/null"})
        wait_for(lambda: self.qmp("query-migrate")["status"] == "active",
                 "the migration")
        self.change_fails(
            "weir: VM 'vm': it is migrating; what is to be changed can be when "
            "that has ended", "attach", "--policy", "p")
        self.qmp("migrate_cancel")
        wait_for(lambda: self.qmp("query-migrate")["status"] == "cancelled",
                 "its end")
        self.change("attach", "--policy", "p")
        self.qmp("migrate-set-parameters", {"max-bandwidth": 1 << 30})
        self.qmp("migrate", {"uri": "exec:cat > /dev/null"})
        wait_for(lambda: self.qmp("query-status")["status"] == "postmigrate",
                 "the migration")
        self.change_fails("weir: VM 'vm': it has migrated, and another QEMU "
                          "has its disks now", "detach")

    def test_plain_disk(self):
        self.vm()
        self.policy("p", "  - weir-encryption: {key-secret: s}\n")
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-encryption cannot be attached to "
            "a disk in use: the data on it is not encrypted, and the guest "
            "would see noise; the QMP command weir-encrypt encrypts it in "
            "place, after which the VM is started under the policy",
            "attach", "--policy", "p")


class Encrypted(Change):
    """What is below the filter is of no use to the guest."""

    ENCRYPTED = True

    def encrypt(self, header):
        with open(self.path("key"), "w", encoding="utf-8") as file:
            file.write("open sesame")
        options = "key-secret=s,kdf=pbkdf2,kdf-iterations=1000"
        if header:
            options += ",header=" + self.path("header")
        subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-img"), "create", "-q", "-f",
             "weir-encryption", "--object", "secret,id=s,file="
             + self.path("key"), "-o", options, self.image, str(self.size)],
            check=True, timeout=GUARD_S)

    def encrypted(self, more=""):
        return ("  - weir-encryption: {key-secret: 'file:%s'%s}\n"
                % (self.path("key"), more))

    STAYS = ("weir: VM 'vm', disk disk0: weir-encryption (node "
             "weir-disk0-encryption) cannot be detached: the data below it is "
             "encrypted, and the guest would see it so; decrypt the disk "
             "first with the QMP command weir-decrypt")

    def test_filters_around_it(self):
        self.encrypt(False)
        self.policy("p", self.encrypted())
        self.vm("p")
        load = Load(self)
        self.change_fails(self.STAYS, "detach")
        self.change_fails(self.STAYS, "reapply", "--policy", "none")
        self.policy("p", self.encrypted(", workers: 2"), 2)
        self.change_fails(
            "weir: VM 'vm', disk disk0: 'workers' of weir-encryption cannot "
            "be changed while the disk is in use; start the VM anew under the "
            "policy", "reapply")
        self.policy("p", self.encrypted(", max-kdf-time: 20") +
                    "  - weir-cache: {cache-file: 'create:16M:%s'}\n"
                    "  - weir-inspect: {}\n" % self.path("c"), 3)
        self.assertIn("note: 'max-kdf-time' of weir-encryption counts when "
                      "the disk is opened next\n", self.change("reapply"))
        self.assertEqual(self.drivers(), ["raw", "weir-encryption",
                                          "weir-cache", "weir-inspect",
                                          "file"])
        load.wait()
        self.policy("p", self.encrypted(), 4)
        self.change("reapply")
        self.finds(0, "compliant")
        load.end()

    def test_decrypted(self):
        self.encrypt(True)
        self.policy("p", self.encrypted(", header: " + self.path("header")))
        self.vm("p")
        load = Load(self)
        self.change_fails(self.STAYS, "detach")
        self.qmp("weir-decrypt", {"job-id": "j", "speed": 0,
                                  "node-name": PREFIX + "encryption",
                                  "key-secret": PREFIX + "key-secret"})
        wait_for(lambda: [j["status"] for j in self.qmp("query-jobs")]
                 in (["concluded"], []), "the decryption")
        self.change("detach")
        load.end()
        load.verify_file(self.image)


class OutOfDate(Change):
    def test_limits(self):
        """They come, change and go with the policy."""
        text = ("name: l\nlimits: {rpo: %s}\nfilters:\n  - weir-replication: "
                "{disk-id: d, log: 'nbd+unix:///log?socket=%s'}\n")
        log = self.keeper("disk0")
        self.vm()
        for command, rpo, ns in (("attach", "5m", 300), ("reapply", "7s", 7)):
            self.write("l.yaml", text % (rpo, log))
            self.change(command, "--policy", "l")
            self.assertEqual(self.record()["limits"], {"rpo-ns": ns * 10 ** 9})
        self.change("detach")
        self.assertEqual(self.record()["limits"], {})

    def end(self):
        """What weir run tells when the VM ends."""
        self.process.send_signal(signal.SIGTERM)
        errors = self.process.communicate(timeout=GUARD_S)[1]
        return "".join(line for line in errors.splitlines(True)
                       if line.startswith("weir:"))

    def test_other_policy_at_the_end(self):
        """The next start would take the one of the first start again."""
        told = ("weir: disk disk0 of VM vm was under policy 'p' at its end, "
                "but under 'none' at its start: let it have the former at the "
                "next start, or it may lack what a cache has, and a replica "
                "what is written then\n")
        self.policy("p", "  - weir-inspect: {}\n")
        self.vm()
        self.change("attach", "--policy", "p")
        self.assertEqual(self.end(), told)
        self.vm()
        self.change("attach", "--policy", "p")
        self.change("detach")
        self.assertEqual(self.end(), "")

    def test_states(self):
        self.vm("observe")
        path = os.path.join(self.policies, "observe.yaml")
        text = "  - weir-inspect: {entropy-window: %d}\n"
        self.finds(0, "compliant")
        self.policy("observe", text % 60)           # as it is
        self.finds(0, "compliant")
        self.policy("observe", text % 61)
        self.finds(5, "out-of-date", "%s has changed since it was applied, "
                   "but not its version" % path)
        self.policy("observe", text % 61, 7)
        self.assertEqual(self.finds(
            5, "out-of-date", "version 1 of the policy was applied, %s is "
            "version 7" % path)["policy-version"], 1)
        self.change("reapply")
        self.assertEqual(self.finds(0, "compliant")["policy-version"], 7)
        self.policy("observe", text % 61, 8)        # nothing to be done
        self.change("reapply")
        self.assertEqual(self.finds(0, "compliant")["policy-version"], 8)
        os.unlink(path)
        self.finds(5, "out-of-date", "there is no policy 'observe' in %s "
                   "(there is none)" % self.policies)
        self.qmp("weir-detach", {"node-name": PREFIX + "inspect"})
        self.finds(3, "non-compliant", "weir-inspect is missing")


if __name__ == "__main__":
    unittest.main()
