# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest Ceph: a monitor and a store in a folder, on loopback."""
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid

PATIENCE_S = 60         # against hanging, not a criterion
STORE_BYTES = 1 << 30   # a hole for the most part

CONF = """[global]
fsid = %(fsid)s
mon host = v1:127.0.0.1:%(port)d
public addr = 127.0.0.1
ms bind msgr2 = false
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
run dir = %(dir)s
admin socket = %(dir)s/$name.$pid.asok
log file =
mon cluster log file = /dev/null
pid file = %(dir)s/$name.pid
keyring = %(dir)s/$name.keyring
mon data = %(dir)s/mon
osd data = %(dir)s/osd
osd objectstore = bluestore
bluestore block size = %(size)d
bluestore block db create = false
bluestore block wal create = false
"""


def is_installed():
    return all(shutil.which(name) for name in ("ceph-mon", "ceph-osd", "rbd"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Ceph:
    """A cluster with the pool "disks"; kill() and start() are of its store."""

    def __init__(self, directory):
        self.dir = directory
        self.conf = os.path.join(directory, "ceph.conf")
        self.fsid = str(uuid.uuid4())
        self.port = free_port()
        for name in ("mon", "osd"):
            os.makedirs(os.path.join(directory, name))
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(CONF % {"dir": directory, "port": self.port,
                               "fsid": self.fsid, "size": STORE_BYTES})
        self.make_monitor()
        self.make_store()

    def path(self, name):
        return os.path.join(self.dir, name)

    def run(self, program, *args):
        return subprocess.run(
            [program, *args], check=True, timeout=PATIENCE_S,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=dict(os.environ, CEPH_CONF=self.conf)).stdout

    def make_monitor(self):
        admin, keys = self.path("client.admin.keyring"), self.path("keys")
        self.run("ceph-authtool", "--create-keyring", admin, "--gen-key", "-n",
                 "client.admin", "--cap", "mon", "allow *", "--cap", "osd",
                 "allow *")
        self.run("ceph-authtool", "--create-keyring", keys, "--gen-key", "-n",
                 "mon.", "--cap", "mon", "allow *")
        self.run("ceph-authtool", keys, "--import-keyring", admin)
        self.run("monmaptool", "--create", "--addv", "a",
                 "[v1:127.0.0.1:%d]" % self.port, "--fsid", self.fsid,
                 self.path("monmap"))
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap",
                 self.path("monmap"), "--keyring", keys)
        self.run("ceph-mon", "-i", "a")

    def make_store(self):
        store = str(uuid.uuid4())
        self.run("ceph", "osd", "new", store)
        with open(self.path("osd.0.keyring"), "w", encoding="utf-8") as file:
            file.write(self.run("ceph", "auth", "get-or-create", "osd.0",
                                "mon", "allow profile osd", "osd", "allow *"))
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        self.start()
        self.run("ceph", "osd", "pool", "create", "disks", "1")

    def start(self):
        self.run("ceph-osd", "-i", "0")

    def pid(self, name):
        with open(self.path(name + ".pid"), encoding="utf-8") as file:
            return int(file.read())

    def kill(self, name="osd.0"):
        """As a machine that fails does; it is gone when this returns."""
        pid = self.pid(name)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        end = time.monotonic() + PATIENCE_S
        while os.path.exists("/proc/%d" % pid):
            if time.monotonic() > end:
                raise AssertionError("%s does not end" % name)
            time.sleep(0.02)

    def close(self):
        self.kill()
        self.kill("mon.a")
