# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of changes to disks in use share."""
import json
import os
import random
import shutil
import socket
import subprocess
import threading

import nbd

from common import GUARD_S, QEMU_BIN_DIR, Qmp, VmTest, wait_for

MIB = 1 << 20
PREFIX = "weir-disk0-"


class Proxy:
    """Between weir and a QMP socket: counts the commands that change the
    graph, and does something at one of them."""

    STEPS = ("weir-attach", "weir-detach", "blockdev-reopen")

    def __init__(self, test, path):
        self.target = path
        self.path = path + ".proxy"
        # called with the number of the step; returns whether to send it, or
        # what to send instead
        self.act = None
        self.answer = lambda line: line     # what weir gets to read of it
        self.count = 0
        self.jobs = 0           # so often weir has looked at them since
        self.mute = False       # weir gets no answers any more
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        thread = threading.Thread(target=self.serve, daemon=True)
        thread.start()
        test.addCleanup(os.unlink, self.path)
        test.addCleanup(thread.join)
        test.addCleanup(self.end)

    @staticmethod
    def refuse(command, client):
        """Answer in QEMU's place, which does not get the command."""
        client.sendall(json.dumps({
            "error": {"class": "GenericError", "desc": "no luck"},
            "id": command["id"]}).encode() + b"\n")
        return False

    @staticmethod
    def pretend(command, client):
        """The same, as if it had been done."""
        client.sendall(json.dumps({
            "return": {}, "id": command["id"]}).encode() + b"\n")
        return False

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
            self.mute = False
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

    def pump(self, source, target):
        try:
            for line in source.makefile("rb"):
                if not self.mute:
                    target.sendall(self.answer(line))
        except OSError:
            pass
        try:
            # QEMU has ended, perhaps with something unread
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def forward(self, client, server):
        lines = client.makefile("rb")
        try:
            for line in lines:
                command = json.loads(line)
                if command["execute"] in self.STEPS:
                    self.count += 1
                    sent = not self.act or self.act(self.count, command,
                                                    client)
                    if not sent:
                        continue
                    line = line if sent is True else sent
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

    def forget_bindings(self):
        """As on a host that does not know what its disks must not lack."""
        shutil.rmtree(self.path("state"), ignore_errors=True)

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
        self.addCleanup(self.disconnect, client)
        return client

    @staticmethod
    def disconnect(client):
        if client.aio_is_ready():
            client.shutdown()

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
            del node["image"]       # its size changes meanwhile
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
                    self.stop.wait(0.001)       # others work as well
                if self.writes % 7 == 0:
                    self.check(block)
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
        self.verify(self.client.pread(self.test.size, 0))

    def verify(self, disk):
        zeroes = bytes(self.BLOCK)
        for block in range(self.count):
            begin = block * self.BLOCK
            # what was never written is noise below an encryption
            if block in self.content or not self.test.ENCRYPTED:
                self.test.assertEqual(disk[begin:begin + self.BLOCK],
                                      self.content.get(block, zeroes),
                                      "block %d" % block)

    def verify_file(self, path):
        with open(path, "rb") as file:
            self.verify(file.read())
