# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of disks out of process share."""
import json
import os
import signal

from common import Qmp, VmTest, wait_for

OUT = "name: %s\nrun: out-of-process\nfilters:%s\n"
INSPECT = "\n  - weir-inspect: {}"
AROUND = INSPECT + """
  - weir-cache:
      mode: write-around
      cache-file: create:16M:%s/${disk}.cache"""
BACK = """
  - weir-cache:
      cache-file: create:16M:%s/${disk}.cache"""


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class OutOfProcessTest(VmTest):
    def setUp(self):
        super().setUp()
        self.write("out.yaml", OUT % ("out", INSPECT))
        self.write("around.yaml", OUT % ("around", AROUND % self.dir))
        self.write("back.yaml", OUT % ("back", BACK % self.dir))

    def out(self, name="a", policy="out", **options):
        """The --disk of a disk with that id."""
        path = self.path(name + ".img")
        if not os.path.exists(path):
            self.disk(name + ".img", 8 << 20)
        more = "".join(",%s=%s" % option for option in options.items())
        return "file=%s,format=raw,id=%s,policy=%s%s" % (path, name, policy,
                                                         more)

    def daemon(self):
        with open(os.path.join(self.runtime, "vm.daemon"),
                  encoding="utf-8") as file:
            return json.load(file)

    def kill_daemon(self):
        old = self.daemon()
        os.kill(old["pid"], signal.SIGKILL)
        self.wait_restarts(old["restarts"] + 1)

    def wait_restarts(self, count):
        wait_for(lambda: self.daemon()["restarts"] >= count and
                 alive(self.daemon()["pid"]), "another daemon")

    def storage_qmp(self):
        return Qmp(os.path.join(self.runtime, "vm.storage-qmp"))

    def exports(self):
        qmp = self.storage_qmp()
        exports = qmp.command("query-block-exports")
        qmp.close()
        return sorted((e["id"], e["type"], e["node-name"]) for e in exports)

    def change(self, command, *args, disk="a"):
        policies = ["--policies", self.policies] if args else []
        return self.weir(command, "--runtime-dir", self.runtime, *policies,
                         *args, "vm", disk)

    def changes(self, *args):
        code, _, errors = self.change(*args)
        self.assertEqual((code, errors), (0, ""))

    def storage_record(self):
        with open(os.path.join(self.runtime, "vm.storage"),
                  encoding="utf-8") as file:
            return json.load(file)
