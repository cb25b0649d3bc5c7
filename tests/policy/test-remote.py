#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks on NBD, iSCSI and Ceph servers, under all three filters."""
import json
import os
import signal
import socket
import subprocess
import unittest

import nbd

import ceph
from common import QEMU_BIN_DIR, Qmp, VmTest, WeirTest, need, skip, wait_for

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img", "qemu-nbd")
TGTD = "/usr/sbin/tgtd"
if not os.access(TGTD, os.X_OK):
    skip("tgtd is not installed")
if os.geteuid() != 0:
    skip("tgtd runs as root only")

BLOCK = 65536
TARGET = "iqn.2026-01.org.weir:disk"
PLAIN = """name: plain
filters:
  - weir-inspect:
"""
ALL = """name: all
filters:
  - weir-encryption: {key-secret: 'file:%(dir)s/key'}
  - weir-replication:
      disk-id: ${vm}-one
      log: nbd+unix:///log?socket=%(keeper)s
      sidecar: create:16M:%(dir)s/${vm}.sidecar
  - weir-cache:
      cache-file: create:64M:%(dir)s/${vm}.cache
"""


class Server:
    """What has a disk; by itself, with a file that is that disk."""

    def fetch(self):
        """Bring what the disk holds into that file."""


class NbdServer(Server):
    """qemu-nbd with a file."""

    def __init__(self, directory, image):
        self.path = os.path.join(directory, "nbd.sock")
        self.image = image
        self.address = "nbd+unix:///disk?socket=" + self.path
        self.process = None

    def start(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [os.path.join(QEMU_BIN_DIR, "qemu-nbd"), "--persistent",
             "--shared=0", "--format=raw", "--export-name=disk",
             "--socket=" + self.path, self.image])
        wait_for(lambda: os.path.exists(self.path), "the NBD server")

    def kill(self):
        self.process.kill()
        self.process.wait()


class IscsiServer(Server):
    """tgtd with a file, with control and portal of its own."""

    def __init__(self, directory, image, password=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.image = image
        self.password = password
        self.control = os.path.join(directory, "tgtd")
        self.address = "iscsi://%s127.0.0.1:%d/%s/1" % (
            "tester@" if password else "", self.port, TARGET)
        self.process = None

    def admin(self, *args, check=True):
        return subprocess.run(
            ["tgtadm", "--lld", "iscsi", *args], check=check,
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env=dict(os.environ, TGT_IPC_SOCKET=self.control)).returncode

    def start(self):
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen(
            [TGTD, "--foreground", "--iscsi",
             "portal=127.0.0.1:%d" % self.port],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            env=dict(os.environ, TGT_IPC_SOCKET=self.control))
        wait_for(lambda: self.admin("--op", "show", "--mode", "target",
                                    check=False) == 0, "tgtd")
        self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T",
                   TARGET)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1",
                   "--lun", "1", "-b", self.image)
        if self.password:
            self.admin("--op", "new", "--mode", "account", "--user", "tester",
                       "--password", self.password)
            self.admin("--op", "bind", "--mode", "account", "--tid", "1",
                       "--user", "tester")
        self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I",
                   "ALL")

    def kill(self):
        self.process.kill()
        self.process.wait()


class RbdServer(Server):
    """An image of a Ceph that gets the content of a file."""

    def __init__(self, directory, image):
        self.image = image
        self.cluster = ceph.Ceph(directory)
        self.address = "rbd://disks/one?conf=" + self.cluster.conf
        self.cluster.run("rbd", "import", "--no-progress", image, "disks/one")
        self.kill()

    def start(self):
        self.cluster.start()

    def kill(self):
        self.cluster.kill()

    def fetch(self):
        os.unlink(self.image)
        self.cluster.run("rbd", "export", "--no-progress", "disks/one",
                         self.image)


def can_open(driver):
    """Whether QEMU has it."""
    output = subprocess.run(
        [os.path.join(QEMU_BIN_DIR, "qemu-img"), "info", "--image-opts",
         "driver=" + driver], stdout=subprocess.DEVNULL, check=False,
        stderr=subprocess.PIPE, text=True).stderr
    return "Unknown driver" not in output


def pattern(number):
    return bytes([number]) * BLOCK


class RemoteTest(VmTest):
    def serve(self, server):
        server.start()
        self.addCleanup(server.kill)
        return server

    def export(self, qmp, node):
        """A client of the highest node of the VM's disk."""
        path = self.path("guest.sock")
        if os.path.exists(path):
            os.unlink(path)
        qmp.command("nbd-server-start", {"addr": {
            "type": "unix", "data": {"path": path}}})
        qmp.command("block-export-add", {
            "type": "nbd", "id": "guest", "node-name": node, "name": "guest",
            "writable": True})
        client = nbd.NBD()
        client.connect_uri("nbd+unix:///guest?socket=" + path)
        return client

    def finish(self, client, cookie):
        """Wait for a request, which does not wait for ever then."""
        wait_for(lambda: client.poll(20) >= 0 and
                 client.aio_command_completed(cookie), "a request")

    def kill_qemu(self):
        """One whose disk has no server any more does not end by itself."""
        if os.path.exists(self.record_path()):
            os.kill(self.qemu_pid(), signal.SIGKILL)


class AllFilters(RemoteTest):
    def setUp(self):
        super().setUp()
        with open(self.path("key"), "w", encoding="utf-8") as file:
            file.write("open sesame")
        self.image = self.path("secret.img")
        self.tool("create", "-q", "-f", "weir-encryption", "-o",
                  "key-secret=s,kdf=pbkdf2,kdf-iterations=1000", self.image,
                  "4M")
        self.write("all.yaml", ALL % {"dir": self.dir,
                                      "keeper": self.keeper("one")})

    def tool(self, command, *args):
        return subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-img"), command, "--object",
             "secret,id=s,file=" + self.path("key"), *args], check=True,
            stdout=subprocess.PIPE)

    def node(self, qmp, driver):
        return next(node for node in qmp.command("query-weir")
                    if node["driver"] == driver)

    def check_disk(self, server):
        disk = "file=%s,format=raw,policy=all,device=none" % server.address
        self.serve(server)
        process = self.start(disk)
        if process.poll() is not None:
            self.fail(process.stderr.read())
        self.addCleanup(self.kill_qemu)
        # A write waits for the copy of its region that the log gets first.
        wait_for(lambda: self.status()[0] == 0, "the copy in the log")
        qmp = Qmp(self.qmp_path())
        client = self.export(qmp, "weir-disk0-format")
        for block in range(8):
            client.pwrite(pattern(block + 1), block * BLOCK)
        client.flush()

        # Gone: the cache takes writes, what it has not is waited for.
        server.kill()
        self.finish(client, client.aio_pwrite(
            nbd.Buffer.from_bytearray(pattern(99)), 0))
        self.finish(client, client.aio_flush())
        buffer = nbd.Buffer(BLOCK)
        reading = client.aio_pread(buffer, 40 * BLOCK)
        self.assertFalse(client.aio_command_completed(reading))
        server.start()
        self.finish(client, reading)
        self.assertEqual(client.pread(BLOCK, 0), pattern(99))
        client.shutdown()
        qmp.close()
        wait_for(lambda: self.status()[0] == 0, "the disk to comply")

        # What is on the server is what was written, and encrypted.
        qmp = Qmp(self.qmp_path())
        qmp.command("block-export-del", {"id": "guest", "mode": "hard"})
        cache = self.node(qmp, "weir-cache")["node-name"]
        qmp.command("weir-detach", {"node-name": cache})
        self.assertEqual(self.node(qmp, "weir-replication")["state"], "ok")
        qmp.close()
        self.stop(process)
        server.fetch()
        server.kill()
        self.check_image([pattern(99)] + [pattern(block + 1)
                                          for block in range(1, 8)])

    def check_image(self, blocks):
        with open(self.image, "rb") as file:
            raw = file.read()
        for block in blocks:
            self.assertNotIn(block[:4096], raw)
        plain = self.path("plain.img")
        self.tool("convert", "--image-opts", "-O", "raw",
                  "driver=weir-encryption,key-secret=s,file.filename=" +
                  self.image, plain)
        with open(plain, "rb") as file:
            for number, block in enumerate(blocks):
                self.assertEqual(file.read(BLOCK), block, number)

    def test_nbd(self):
        self.check_disk(NbdServer(self.dir, self.image))

    def test_iscsi(self):
        self.check_disk(IscsiServer(self.dir, self.image))

    @unittest.skipUnless(ceph.is_installed(), "Ceph is not installed")
    @unittest.skipUnless(can_open("rbd"), "QEMU is built without rbd")
    def test_rbd(self):
        server = RbdServer(self.path("ceph"), self.image)
        self.addCleanup(server.cluster.close)
        self.check_disk(server)


class Access(RemoteTest):
    """What is between a disk and its server."""

    def setUp(self):
        super().setUp()
        self.write("plain.yaml", PLAIN)

    def test_iscsi_password(self):
        server = self.serve(IscsiServer(self.dir, self.disk(), "sesame-12345"))
        with open(self.path("chap"), "w", encoding="utf-8") as file:
            file.write("sesame-12345")
        with open(self.path("wrong"), "w", encoding="utf-8") as file:
            file.write("sesame-54321")
        disk = "file=%s?password-secret=file:%s,format=raw,policy=plain"
        process = self.start(disk % (server.address, self.path("chap")))
        self.assertIsNone(process.poll(), process)
        self.assertEqual(self.status()[0], 0)
        self.stop(process)
        code, _, errors = self.weir(
            *self.run_args(disk % (server.address, self.path("wrong"))))
        self.assertEqual(code, 1)
        self.assertIn("cannot be used as raw: ", errors)

    def test_policy_of_a_disk_in_use(self):
        self.write("cached.yaml", """name: cached
filters:
  - weir-inspect:
  - weir-cache: {cache-file: 'create:64M:%s/cache'}
""" % self.dir)
        server = self.serve(NbdServer(self.dir, self.disk(size=4 << 20)))
        process = self.start("file=%s,format=raw,policy=plain"
                             % server.address)
        self.assertIsNone(process.poll(), process)
        common = ("--qemu-bin-dir", QEMU_BIN_DIR,
                  "--runtime-dir", self.runtime, "vm", "disk0")
        self.weir_ok("reapply", "--policies", self.policies,
                     "--policy", "cached", *common)
        code, status = self.status()
        self.assertEqual((code, status[0]["policy"]), (0, "cached"), status)
        self.weir_ok("detach", *common)
        self.assertEqual(self.status()[1][0]["actual"][-1]["driver"], "nbd")

    def test_a_server_that_is_not_there(self):
        address = "nbd+unix:///x?socket=/nonexistent"
        self.weir_fails(
            "weir: disk disk0 (%s) cannot be used as raw: Failed to connect "
            "to '/nonexistent': No such file or directory" % address,
            *self.run_args("file=%s,format=raw,policy=plain" % address))

    def test_one_image_of_a_cluster_twice(self):
        self.weir_fails(
            "weir: disks disk0 and disk1 are the same file rbd://vms/web",
            *self.run_args("file=rbd://vms/web,format=raw,policy=plain",
                           "file=rbd://vms/web,format=raw,policy=plain"))

    def test_one_disk_of_a_server_twice(self):
        self.weir_fails(
            "weir: disks disk0 and disk1 are the same file nbd://h:10809/x",
            *self.run_args("file=nbd://h/x,format=raw,policy=plain",
                           "file=nbd://h:10809/x,format=raw,policy=plain"))


class Addresses(WeirTest):
    """What is made of an address, without a server."""

    def setUp(self):
        super().setUp()
        self.write("plain.yaml", PLAIN)

    def args(self, address):
        return ("compile", "--qemu-bin-dir", QEMU_BIN_DIR, "--policies",
                self.policies, "--disk",
                "file=%s,format=raw,policy=plain" % address)

    def storage(self, address):
        output = self.weir_ok(*self.args(address))
        node = json.loads(output.splitlines()[0])
        for name in ("node-name", "read-only", "discard", "cache"):
            del node[name]
        return node

    def test_nodes(self):
        server = {"type": "inet", "host": "h", "port": "10809"}
        for address, node in (
                ("nbd://h/x", {
                    "driver": "nbd", "server": server, "export": "x",
                    "reconnect-delay": 30}),
                ("nbds://h:1/?tls-creds=t&reconnect-delay=0&open-timeout=5", {
                    "driver": "nbd", "server": dict(server, port="1"),
                    "export": "", "tls-creds": "t", "reconnect-delay": 0,
                    "open-timeout": 5}),
                ("iscsi://h/iqn.x:d/0", {
                    "driver": "iscsi", "transport": "tcp",
                    "portal": "h:3260", "target": "iqn.x:d", "lun": 0}),
                ("iscsi://[::1]:33/iqn.x:d/7?timeout=9&header-digest=crc32c"
                 "&initiator-name=iqn.y:i", {
                     "driver": "iscsi", "transport": "tcp",
                     "portal": "[::1]:33", "target": "iqn.x:d", "lun": 7,
                     "timeout": 9, "header-digest": "crc32c",
                     "initiator-name": "iqn.y:i"}),
                ("iscsi://u@h/iqn.x:d/0?password-secret=obj", {
                    "driver": "iscsi", "transport": "tcp",
                    "portal": "h:3260", "target": "iqn.x:d", "lun": 0,
                    "user": "u", "password-secret": "obj"}),
                ("rbd://vms/web", {
                    "driver": "rbd", "pool": "vms", "image": "web"}),
                ("rbd://vms/one/web?conf=/c&user=weir", {
                    "driver": "rbd", "pool": "vms", "namespace": "one",
                    "image": "web", "conf": "/c", "user": "weir"})):
            with self.subTest(address):
                self.assertEqual(self.storage(address), node)

    def test_secret_of_an_address(self):
        address = "iscsi://u@h/iqn.x:d/0?password-secret=file:/k"
        code, output, errors = self.weir(*self.args(address))
        self.assertEqual(code, 0, errors)
        self.assertEqual(json.loads(output.splitlines()[0])["password-secret"],
                         "weir-disk0-password")
        self.assertEqual(errors, "weir: needs an object 'secret' with the id "
                         "weir-disk0-password: the content of file /k\n")

    def test_a_filter_has_a_node_there(self):
        self.write("plain.yaml", """name: plain
filters:
  - weir-cache:
      cache-file: iscsi://u@h/iqn.x:d/2?password-secret=file:/k
""")
        code, output, errors = self.weir(*self.args("/disk.img"))
        self.assertEqual(code, 0, errors)
        cache = json.loads(output.splitlines()[1])["cache-file"]
        self.assertEqual((cache["driver"], cache["lun"],
                          cache["password-secret"]),
                         ("iscsi", 2, "weir-disk0-cache-file-password"))
        self.assertIn("weir-disk0-cache-file-password: the content of file /k",
                      errors)

    def test_the_disk_itself_as_a_node_of_a_filter(self):
        path = self.write("plain.yaml", """name: plain
filters:
  - weir-cache:
      cache-file: iscsi://h:3260/iqn.x:d/2
""")
        self.weir_fails(
            "%s:3:5: disk disk0: found the disk's own file iscsi://h/iqn.x:d/2"
            ", expected another for 'weir-cache.cache-file'" % path,
            *self.args("iscsi://h/iqn.x:d/2"))

    def test_bad_addresses(self):
        for address, message in (
                ("ssh://h/x", "found an address of ssh, expected one of "
                 "nbd, nbds, nbd+unix, nbds+unix, iscsi, rbd"),
                ("rbd://vms/web?conf=c", "found conf=c, expected an absolute "
                 "path"),
                ("rbd://vms/web?timeout=1", "found 'timeout', which an "
                 "address of rbd does not have"),
                *(("rbd://" + image, "found no image, expected rbd://POOL/"
                   "IMAGE or rbd://POOL/NAMESPACE/IMAGE")
                  for image in ("vms", "vms/", "/web", "vms//web", "vms/a/b/c",
                                "u@vms/web", "vms:1/web", "vms/web@snap")),
                ("nbd:///x", "found no host, expected nbd://HOST/EXPORT"),
                ("nbd://h/x?lun=1", "found 'lun', which an address of nbd "
                 "does not have"),
                ("nbd://h/x?reconnect-delay=-1", "found reconnect-delay=-1, "
                 "expected 0 to 86400 seconds"),
                ("nbd://h/x?open-timeout=", "found open-timeout without a "
                 "value"),
                ("iscsi:///iqn.x:d/0", "found no host, expected "
                 "iscsi://HOST/TARGET/LUN"),
                ("iscsi://h/0", "found no target, expected iscsi://HOST/"
                 "TARGET/LUN with a name such as iqn.2026-01.org.example:disk"),
                ("iscsi://h/iqn.x:d/16384", "found LUN '16384', expected a "
                 "number up to 16383"),
                ("iscsi://h/iqn.x:d/", "found LUN '', expected a number up to "
                 "16383"),
                ("iscsi://u:p@h/iqn.x:d/0", "found a password, expected it to "
                 "be named by ?password-secret=SECRET"),
                ("iscsi://u@h/iqn.x:d/0", "found a user without a "
                 "password-secret, expected both or none"),
                ("iscsi://h/iqn.x:d/0?password-secret=s", "found a "
                 "password-secret without a user, expected both or none"),
                ("iscsi://u@h/iqn.x:d/0?password-secret=file:k", "found file "
                 "'k', expected an absolute path"),
                ("iscsi://h/iqn.x:d/0?header-digest=md5", "found "
                 "header-digest=md5, expected one of crc32c, none, "
                 "crc32c-none, none-crc32c")):
            with self.subTest(address):
                self.weir_fails("weir: --disk: file=%s: %s"
                                % (address, message), *self.args(address))

    def test_aio_is_for_files(self):
        self.weir_fails("weir: --disk: found aio=threads with an address, "
                        "expected it with a file or block device",
                        *self.args("nbd://h/x,aio=threads"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
