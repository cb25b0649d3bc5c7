# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the weir command share."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
WEIR = os.environ.get("WEIR", os.path.join(ROOT, "build/bin/weir"))
QEMU_BIN_DIR = os.environ.get("WEIR_QEMU_BIN_DIR",
                              os.path.join(ROOT, "build/bin"))
# the machine's own is left alone
os.environ.setdefault("WEIR_KEEP_DIR", "")
GUARD_S = 120       # against hanging, not a criterion

OBSERVE = """name: observe
description: Watch what the disk does
filters:
  - weir-inspect:
      entropy-window: 60
"""


def skip(reason):
    """End the whole test as skipped."""
    print("SKIP: " + reason)
    sys.exit(77)


def need(*programs):
    """Skip unless QEMU's programs are built."""
    for program in programs:
        if not os.access(os.path.join(QEMU_BIN_DIR, program), os.X_OK):
            skip("%s is not in %s" % (program, QEMU_BIN_DIR))


def wait_for(condition, what):
    """Poll until condition() is true; its value is returned."""
    end = time.monotonic() + GUARD_S
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("timed out waiting for " + what)


class Qmp:
    """A QMP client that is not the one under test."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(GUARD_S)
        self.stream = None
        try:
            self.socket.connect(path)
            self.stream = self.socket.makefile("rw", encoding="utf-8")
            json.loads(self.stream.readline())
            self.command("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def command(self, name, arguments=None):
        json.dump({"execute": name, "arguments": arguments or {}},
                  self.stream)
        self.stream.write("\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def close(self):
        if self.stream:
            self.stream.close()
        self.socket.close()


class WeirTest(unittest.TestCase):
    """A test with a directory of its own for policies, disks and records."""

    maxDiff = None

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="weir-test-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.policies = os.path.join(self.dir, "policies")
        self.runtime = os.path.join(self.dir, "run")
        os.mkdir(self.policies)
        os.environ["WEIR_STATE_DIR"] = self.path("state")

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text, binary=False):
        """A file in the policies' directory; returns its path."""
        path = os.path.join(self.policies, name)
        with open(path, "wb" if binary else "w") as file:
            file.write(text)
        return path

    def disk(self, name="disk.img", size=1 << 20):
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def encrypted(self, name):
        """An encrypted image, with its passphrase in the file "key"."""
        path = self.path(name)
        with open(self.path("key"), "w", encoding="utf-8") as file:
            file.write("open sesame")
        subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-img"), "create", "-q", "-f",
             "weir-encryption", "--object",
             "secret,id=s,file=" + self.path("key"), "-o",
             "key-secret=s,kdf=pbkdf2,kdf-iterations=1000", path, "4M"],
            check=True)
        return path

    def weir(self, *args, **env):
        """Run weir to its end; returns exit code, output and errors."""
        result = subprocess.run(
            [WEIR] + list(args), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=GUARD_S, check=False,
            env=dict(os.environ, **dict({"LC_ALL": "C"}, **env)))
        return result.returncode, result.stdout, result.stderr

    def weir_ok(self, *args, **env):
        code, output, errors = self.weir(*args, **env)
        self.assertEqual((code, errors), (0, ""), output)
        return output

    def weir_fails(self, message, *args, code=1, **env):
        """Run weir, expecting exactly that message and no output."""
        result = self.weir(*args, **env)
        self.assertEqual(result, (code, "", message + "\n"))


class FakeTest(WeirTest):
    """A test whose installed filters are those of fake-storage-daemon."""

    def setUp(self):
        super().setUp()
        self.bin = self.path("bin")
        os.mkdir(self.bin)
        os.symlink(os.path.join(HERE, "fake-storage-daemon"),
                   os.path.join(self.bin, "qemu-storage-daemon"))

    def check(self, *files, **env):
        return self.weir("policy", "check", "--qemu-bin-dir", self.bin,
                         *files, **env)

    def refuses(self, text, *messages, name="p.yaml"):
        """Check a policy, expecting those messages about it."""
        path = self.write(name, text, isinstance(text, bytes))
        lines = "".join("%s:%s\n" % (path, m) for m in messages)
        self.assertEqual(self.check(path), (1, "", lines))

    def accepts(self, text, name="p.yaml"):
        """Show a policy as JSON, after a check without complaints."""
        path = self.write(name, text)
        self.assertEqual(self.check(path), (0, "", ""))
        return json.loads(self.weir_ok(
            "policy", "show", "--json", "--qemu-bin-dir", self.bin,
            "--policies", self.policies, name[:-len(".yaml")]))


class VmTest(WeirTest):
    """A test that runs the real QEMU, without a guest system."""

    QEMU_ARGS = ["-display", "none", "-nodefaults", "-machine", "q35",
                 "-accel", "tcg", "-m", "32"]

    def setUp(self):
        super().setUp()
        self.write("observe.yaml", OBSERVE)

    def run_args(self, *disks, name="vm"):
        args = ["run", "--qemu-bin-dir", QEMU_BIN_DIR, "--policies",
                self.policies, "--runtime-dir", self.runtime]
        if name:
            args += ["--name", name]
        for disk in disks:
            args += ["--disk", disk]
        return args + ["--"]

    def start(self, *disks, name="vm", args=None, **more):
        """Start weir run; returns the process when the guest runs."""
        process = subprocess.Popen(
            [WEIR] + self.run_args(*disks, name=name)
            + (self.QEMU_ARGS if args is None else args),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, **more)
        self.addCleanup(self.stop, process)
        wait_for(lambda: self.guest_runs(name) or process.poll() is not None,
                 "the guest")
        return process

    def guest_runs(self, name):
        if not os.path.exists(self.qmp_path(name)) \
                or not os.path.exists(self.record_path(name)):
            return False
        try:
            qmp = Qmp(self.qmp_path(name))
        except (ConnectionError, ValueError):
            return False
        status = qmp.command("query-status")["status"]
        qmp.close()
        return status == "running"

    def keeper(self, *disks):
        """A storage daemon with a log for these disks; returns its socket.
        Its monitor has that name with ".qmp"."""
        path = self.path("keeper.sock")
        bases = [{"disk-id": "vm-" + name, "node": name} for name in disks]
        args = ["--blockdev", "file,node-name=log,filename=" +
                self.disk("log.img", 256 << 20)]
        for name in disks:
            args += ["--blockdev", "file,node-name=%s,filename=%s"
                     % (name, self.disk(name + ".base", 8 << 20))]
        process = subprocess.Popen(
            [os.path.join(QEMU_BIN_DIR, "qemu-storage-daemon"), *args,
             "--blockdev", json.dumps({
                 "driver": "weir-journal", "node-name": "journal",
                 "file": "log", "create": True, "bases": bases}),
             "--nbd-server", "addr.type=unix,addr.path=%s,max-connections=0"
             % path, "--export",
             "nbd,id=log,node-name=journal,name=log,writable=on",
             "--chardev", "socket,id=m,server=on,wait=off,path=%s.qmp" % path,
             "--monitor", "chardev=m"],
            stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_for(lambda: os.path.exists(path), "the keeper")
        return path

    def stop(self, process):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=GUARD_S)

    def qmp_path(self, name="vm"):
        return os.path.join(self.runtime, name + ".qmp")

    def record_path(self, name="vm"):
        return os.path.join(self.runtime, name + ".json")

    def qemu_pid(self, name="vm"):
        with open(self.record_path(name), encoding="utf-8") as file:
            return json.load(file)["pid"]

    def status(self, *args):
        """Exit code and parsed JSON of weir status."""
        code, output, errors = self.weir("status", "--runtime-dir",
                                         self.runtime, "--json", *args)
        self.assertEqual(errors, "")
        return code, json.loads(output)

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.runtime)
                         if os.path.isdir(self.runtime) else [], [])
