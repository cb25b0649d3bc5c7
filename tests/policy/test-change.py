#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir attach, detach and reapply: the policy of a disk in use is changed
wholly or not at all, and no byte of the disk is lost."""
import json
import os
import random
import signal
import socket
import subprocess
import threading
import unittest

import nbd

from common import GUARD_S, QEMU_BIN_DIR, WEIR, Qmp, VmTest, need, wait_for

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

MIB = 1 << 20
PREFIX = "weir-disk0-"


class Proxy:
    """Between weir and a QMP socket: counts the commands that change the
    graph, and does something at one of them."""

    STEPS = ("weir-attach", "weir-detach", "blockdev-reopen")

    def __init__(self, test, path):
        self.target = path
        self.path = path + ".proxy"
        self.act = None         # called with the number of the step
        self.count = 0
        self.jobs = 0           # so often weir has looked at them since
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        thread = threading.Thread(target=self.serve, daemon=True)
        thread.start()
        test.addCleanup(os.unlink, self.path)
        test.addCleanup(thread.join)
        test.addCleanup(self.end)

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            back = threading.Thread(target=self.pump, args=(server, client))
            back.start()
            self.forward(client, server)
            for end in (server, client):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            back.join()
            server.close()
            client.close()

    @staticmethod
    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass

    def forward(self, client, server):
        lines = client.makefile("rb")
        try:
            for line in lines:
                command = json.loads(line)
                if command["execute"] in self.STEPS:
                    self.count += 1
                    if self.act and not self.act(self.count, command, client):
                        continue
                elif self.count and command["execute"] == "query-jobs":
                    self.jobs += 1
                server.sendall(line)
        except OSError:
            pass


class Change(VmTest):
    """A disk without a device, exported over NBD."""

    FORMAT = "raw"
    ENCRYPTED = False

    def setUp(self):
        super().setUp()
        self.write("none.yaml", "name: none\nfilters: []\n")
        self.size = 8 * MIB
        self.image = self.path("disk.img")
        subprocess.run([os.path.join(QEMU_BIN_DIR, "qemu-img"), "create",
                        "-q", "-f", self.FORMAT, self.image, str(self.size)],
                       check=True, timeout=GUARD_S)
        self.known = {}

    def policy(self, name, text, version=1):
        self.write(name + ".yaml", "name: %s\nversion: %d\nfilters:\n%s"
                   % (name, version, text))

    def vm(self, policy="none", more=""):
        self.process = self.start(
            "file=%s,format=%s,policy=%s,device=none,aio=threads%s"
            % (self.image, self.FORMAT, policy, more))
        self.export()

    def export(self):
        top = self.status()[1][0]["actual"]
        node = top[0]["node-name"] if top else PREFIX + "format"
        self.qmp("nbd-server-start", {"addr": {
            "type": "unix", "data": {"path": self.path("nbd")}},
            "max-connections": 0})
        self.qmp("block-export-add", {
            "id": "x", "type": "nbd", "writable": True, "name": "x",
            "node-name": node})

    def qmp(self, command, arguments=None):
        """One command: the monitor is free for weir afterwards."""
        qmp = Qmp(self.qmp_path())
        try:
            return qmp.command(command, arguments)
        finally:
            qmp.close()

    def connect(self):
        client = nbd.NBD()
        client.connect_uri("nbd+unix:///x?socket=" + self.path("nbd"))
        self.addCleanup(client.shutdown)
        return client

    # --- weir ---

    def args(self, command, *more):
        if command != "detach":
            more += ("--policies", self.policies)
        return (command, "vm", "disk0", "--qemu-bin-dir", QEMU_BIN_DIR,
                "--runtime-dir", self.runtime) + more

    def change(self, command, *more):
        return self.weir_ok(*self.args(command, *more))

    def change_fails(self, message, command, *more, code=1):
        """It fails with that message, and the graph is what it was."""
        before = self.nodes()
        record = self.record()
        result = self.weir(*self.args(command, *more))
        self.assertEqual((result[0], result[2]), (code, message + "\n"))
        self.assertEqual(self.nodes(), before)
        self.assertEqual(self.record(), record)
        return result[1]

    def record(self):
        with open(self.record_path(), encoding="utf-8") as file:
            return json.load(file)["disks"][0]

    def proxied(self):
        proxy = Proxy(self, self.qmp_path())
        self.redirect(proxy.path)
        return proxy

    def redirect(self, path):
        with open(self.record_path(), encoding="utf-8") as file:
            record = json.load(file)
        record["qmp"] = path
        with open(self.record_path(), "w", encoding="utf-8") as file:
            json.dump(record, file)

    def nodes(self):
        """What QEMU tells of its nodes and of how they are linked."""
        qmp = Qmp(self.qmp_path())
        nodes = qmp.command("query-named-block-nodes", {"flat": True})
        graph = qmp.command("x-debug-query-block-graph")
        qmp.close()
        for node in nodes:
            # what is written meanwhile
            node["image"].pop("actual-size", None)
            for key in ("children", "image"):
                node.pop(key, None)
        names = {n["id"]: n["name"] or n["type"] for n in graph["nodes"]}
        return (sorted(nodes, key=lambda n: n["node-name"]),
                sorted((names[e["parent"]], e["name"], names[e["child"]])
                       for e in graph["edges"]))

    def drivers(self):
        return [n["driver"] for n in self.status()[1][0]["actual"]]

    def filters(self):
        return {f["node-name"]: f for f in self.qmp("query-weir")}

    def finds(self, code, state, reason=None):
        result = self.status()
        disk = result[1][0]
        self.assertEqual((result[0], disk["state"], disk["reason"]),
                         (code, state, reason))
        return disk


class Load:
    """Writes of a client that go on meanwhile; each byte is known."""

    BLOCK = 4096

    def __init__(self, test):
        self.test = test
        self.client = test.connect()
        self.count = test.size // self.BLOCK
        self.content = {}
        self.writes = 0
        self.error = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        test.addCleanup(self.thread.join)
        test.addCleanup(self.stop.set)
        self.wait()

    def run(self):
        choice = random.Random(1)
        try:
            while not self.stop.is_set():
                block = choice.randrange(self.count)
                data = choice.randbytes(self.BLOCK)
                self.client.pwrite(data, block * self.BLOCK)
                self.content[block] = data
                self.writes += 1
                if self.writes % 16 == 0:
                    self.client.flush()
                if self.writes % 7 == 0:
                    self.check(choice.choice(list(self.content)))
        except Exception as error:
            self.error = error

    def check(self, block):
        found = self.client.pread(self.BLOCK, block * self.BLOCK)
        if found != self.content[block]:
            raise AssertionError("block %d is another one" % block)

    def wait(self):
        """Some more writes, after what has been done."""
        before = self.writes
        wait_for(lambda: self.error or self.writes > before + 50, "writes")
        self.test.assertIsNone(self.error)

    def end(self):
        """Stop, and look at all of the disk."""
        self.stop.set()
        self.thread.join()
        self.test.assertIsNone(self.error)
        self.verify(lambda block: self.client.pread(self.BLOCK,
                                                    block * self.BLOCK))

    def verify(self, read):
        zeroes = bytes(self.BLOCK)
        for block in range(self.count):
            # what was never written is noise below an encryption
            if block in self.content or not self.test.ENCRYPTED:
                self.test.assertEqual(read(block),
                                      self.content.get(block, zeroes),
                                      "block %d" % block)

    def verify_file(self, path):
        with open(path, "rb") as file:
            self.verify(lambda block: os.pread(
                file.fileno(), self.BLOCK, block * self.BLOCK))


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
        self.assertEqual(self.change("attach", "--policy", "whole"), (
            "make {0}/disk0.cache for weir-cache\n"
            "open node weir-disk0-cache-file for weir-cache\n"
            "attach weir-cache (node weir-disk0-cache) above node "
            "weir-disk0-storage\n"
            "make {0}/disk0.sidecar for weir-replication\n"
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
            self.change("reapply").splitlines()[:-1],
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
            client.sendall(json.dumps({
                "error": {"class": "GenericError", "desc": "no luck"},
                "id": command["id"]}).encode() + b"\n")
            return False
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
            client.sendall(json.dumps({
                "error": {"class": "GenericError", "desc": "no luck"},
                "id": command["id"]}).encode() + b"\n")
            return False
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
            "weir: VM 'vm', disk disk0: make /nonexistent/c for weir-cache: "
            "cannot make /nonexistent/c: No such file or directory; "
            "everything is as before", "attach", "--policy", "p")
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
                    "  - weir-cache: {cache-file: 'create:16M:%s'}\n"
                    % self.path("c"))
        output = self.change_fails(
            "weir: VM 'vm', disk disk0: open node weir-disk0-log for "
            "weir-replication: Could not open '/log': No such file or "
            "directory; everything is as before", "attach", "--policy", "p")
        self.assertEqual(output.splitlines()[-3:], [
            "undo: attach weir-cache (node weir-disk0-cache) above node "
            "weir-disk0-storage",
            "undo: open node weir-disk0-cache-file for weir-cache",
            "undo: make %s for weir-cache" % self.path("c")])
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


class Snapshots(Change):
    """An overlay is above the image; or comes, when filters are there."""

    FORMAT = "qcow2"

    def overlay(self, node):
        path = self.path("overlay.qcow2")
        subprocess.run([os.path.join(QEMU_BIN_DIR, "qemu-img"), "create",
                        "-q", "-f", "qcow2", path, str(self.size)],
                       check=True, timeout=GUARD_S)
        self.qmp("blockdev-add", {
            "driver": "qcow2", "node-name": "over", "backing": None,
            "file": {"driver": "file", "filename": path,
                     "node-name": "over-file"}})
        self.qmp("blockdev-snapshot", {"node": node, "overlay": "over"})

    def both(self, name="p"):
        self.policy(name, "  - weir-inspect: {}\n    place: disk\n"
                    "  - weir-cache:\n      cache-file: create:16M:%s\n"
                    "      idle: 0\n" % self.path("c"))

    def test_attach_and_detach(self):
        self.both()
        self.vm()
        load = Load(self)
        self.overlay(PREFIX + "format")
        load.wait()
        before = self.nodes()
        self.change("attach", "--policy", "p")
        self.finds(0, "compliant")
        self.assertEqual(self.drivers(), ["weir-inspect", "qcow2",
                                          "weir-cache", "file"])
        self.assertEqual(self.filters()[PREFIX + "cache"]["child"],
                         "over-file")
        load.wait()
        self.change("detach")
        self.assertEqual(self.nodes(), before)
        load.end()

    def test_snapshot_of_a_filtered_disk(self):
        """Its filters go up to the overlay, the cache's data stays below."""
        self.both()
        self.vm("p")
        load = Load(self)
        wait_for(lambda: self.filters()[PREFIX + "cache"]["dirty"] > 0,
                 "dirty blocks")
        self.overlay(PREFIX + "inspect")
        load.wait()
        self.assertEqual(self.finds(
            3, "non-compliant", "weir-inspect is only below a backing file; "
            "weir-cache is only below a backing file")["actual"][0]["driver"],
            "qcow2")
        self.change("reapply")
        self.finds(0, "compliant")
        self.assertEqual({n: (f["place"], f["child"])
                          for n, f in self.filters().items()},
                         {PREFIX + "inspect-2": ("disk", "over"),
                          PREFIX + "cache-2": ("storage", "over-file")})
        load.wait()
        self.change("detach")
        self.assertEqual(self.filters(), {})
        load.end()

    def test_replication_of_an_overlay(self):
        self.policy("p", "  - weir-replication: {disk-id: d, log: /log}\n")
        self.vm()
        self.overlay(PREFIX + "format")
        self.change_fails(
            "weir: VM 'vm', disk disk0: weir-replication cannot be attached "
            "to a disk in use: the disk has a snapshot, and at place storage "
            "only its overlay would be replicated, not what is below; give "
            "the filter place: disk, or commit the snapshot", "attach",
            "--policy", "p")


class SlowDetach(Change):
    """A cache that takes its time to bring its data down."""

    def setUp(self):
        super().setUp()
        self.policy("slow", """  - weir-cache:
      cache-file: create:16M:%s
      idle: 0
      write-back-rate: 1048576
""" % self.path("c"))
        self.vm("slow")
        self.data = random.Random(2).randbytes(2 * MIB)
        client = self.connect()
        client.pwrite(self.data, 0)
        client.flush()

    def begin(self):
        proxy = self.proxied()
        begun = threading.Event()

        def act(count, command, client):
            begun.set()
            return True
        proxy.act = act
        weir = subprocess.Popen(
            [WEIR, *self.args("detach")], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True)
        self.assertTrue(begun.wait(GUARD_S))
        wait_for(lambda: 0 < proxy.jobs, "the job")
        return weir

    def check_data(self):
        self.assertEqual(self.connect().pread(2 * MIB, 0), self.data)

    def test_interrupted(self):
        weir = self.begin()
        before = self.record()
        weir.send_signal(signal.SIGINT)
        errors = weir.communicate(timeout=GUARD_S)[1]
        self.assertEqual((weir.returncode, errors), (
            1, "weir: VM 'vm', disk disk0: detach weir-cache (node "
            "weir-disk0-cache): interrupted; everything is as before\n"))
        before.pop("change")
        self.assertEqual(self.record(), before)
        self.finds(0, "compliant")
        self.check_data()

    def test_killed(self):
        weir = self.begin()
        weir.kill()
        weir.communicate(timeout=GUARD_S)
        self.assertIn("dirty", self.filters()[PREFIX + "cache"])
        self.finds(3, "non-compliant", "a change to no policy was interrupted, "
                   "weir reapply or weir detach goes on with it")
        self.change("reapply")
        self.finds(0, "compliant")
        self.assertEqual(self.qmp("query-jobs"), [])
        self.check_data()


class Devices(Change):
    """Disks that a guest's devices use, in I/O threads or not."""

    def test_devices(self):
        self.policy("p", "  - weir-inspect: {}\n    place: disk\n"
                    "  - weir-cache: {cache-file: 'create:16M:%s/${disk}.c'}\n"
                    % self.dir)
        self.start(*("file=%s,format=raw,policy=none,id=%s%s"
                     % (self.disk(name, MIB), name, more)
                     for name, more in (
                         ("blk", ",iothread=io"), ("scsi",
                                                   ",device=virtio-scsi"),
                         ("nobody", ",device=none"))))
        before = self.nodes()
        for name in ("blk", "scsi", "nobody"):
            args = self.args("attach", "--policy", "p")
            self.weir_ok("attach", "vm", name, *args[3:])
        disks = self.status()[1]
        self.assertEqual([[n["driver"] for n in d["actual"]] for d in disks],
                         [["weir-inspect", "raw", "weir-cache", "file"]] * 3)
        self.assertEqual([d["reason"] for d in disks], [
            None, None, "weir-inspect is at place unused instead of disk"])
        self.assertIn("already", self.weir_ok(
            "reapply", "vm", "nobody", *self.args("reapply")[3:]))
        for name in ("scsi", "nobody", "blk"):
            self.weir_ok("detach", "vm", name, *self.args("detach")[3:])
        self.assertEqual(self.nodes(), before)


class OtherFilters(Change):
    """Filters that somebody has attached over QMP."""

    def attach(self, driver, node, name, **options):
        self.qmp("weir-attach", {"node-name": node, "filter": dict(
            options, driver=driver, file=node, **{"node-name": name})})

    def test_one_of_the_policy(self):
        self.vm("observe")
        self.qmp("weir-detach", {"node-name": PREFIX + "inspect"})
        self.assertEqual(self.status()[0], 3)
        self.attach("weir-inspect", PREFIX + "storage", "mine")
        self.assertIn("already", self.change("reapply"))
        self.change("detach")
        self.assertEqual(self.filters(), {})

    def test_missing_and_too_many(self):
        self.vm("observe")
        before = self.nodes()
        self.attach("weir-inspect", PREFIX + "format", "mine")
        self.finds(3, "non-compliant", "weir-inspect is at place disk instead "
                   "of storage; weir-inspect is there twice")
        self.change("reapply")
        self.assertEqual(self.nodes(), before)
        self.qmp("weir-detach", {"node-name": PREFIX + "inspect"})
        self.change("reapply")
        self.assertEqual(self.nodes(), before)

    def test_not_of_the_policy(self):
        """Without a policy, it is nobody's business."""
        self.vm()
        self.attach("weir-inspect", PREFIX + "storage", "mine")
        self.change("detach")
        self.assertEqual(list(self.filters()), ["mine"])
        self.policy("p", "  - weir-inspect: {}\n    place: disk\n")
        self.change("attach", "--policy", "p")
        self.assertEqual(list(self.filters()), [PREFIX + "inspect"])


class OutOfDate(Change):
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


class SharedLog(Change):
    """Two disks of one group come and go."""

    def test_group(self):
        self.policy("p", "  - weir-replication:\n      disk-id: ${vm}-${disk}\n"
                    "      log: nbd+unix:///log?socket=%s\n"
                    % self.keeper("one", "two"))
        self.start(*("file=%s,format=raw,policy=none,device=none,id=%s"
                     % (self.disk(name + ".img", self.size), name)
                     for name in ("one", "two")))

        def change(command, disk, *more):
            args = self.args(command, *more)
            self.weir_ok(command, "vm", disk, *args[3:])

        def logs():
            return {f["disk-id"]: f["log"] for f in self.qmp("query-weir")}
        change("attach", "one", "--policy", "p")
        change("attach", "two", "--policy", "p")
        self.assertEqual(logs(), {"vm-one": "weir-one-log",
                                  "vm-two": "weir-one-log"})
        wait_for(lambda: self.status()[0] == 0, "both being replicated")
        change("detach", "one")
        self.assertEqual(logs(), {"vm-two": "weir-one-log"})
        change("attach", "one", "--policy", "p")
        self.assertEqual(set(logs().values()), {"weir-one-log"})
        change("detach", "two")
        change("detach", "one")
        self.assertEqual(logs(), {})
        change("attach", "two", "--policy", "p")
        self.assertEqual(logs(), {"vm-two": "weir-two-log"})


if __name__ == "__main__":
    unittest.main()
