# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of the test's own, out of reach of the machine's.

The test runs itself again in namespaces of its own for mounts, processes and
the network.  There /etc is a copy, and /run and /var are empty, so libvirtd,
the hook and weir use their usual places and touch nothing; all ends with the
test.
"""
import json
import os
import shutil
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get("WEIR_BUILD", os.path.join(ROOT, "build"))
# the build's folder, where QEMU's user can get at it
INSTALLED = "/run/weir-test"
BIN = os.path.join(INSTALLED, "bin")
WEIR = os.path.join(BIN, "weir")
HOOK = os.path.join(INSTALLED, "libexec/weir/libvirt-hook")
# what libvirt has found out about QEMU is kept for the next run
CAPABILITIES = os.path.join(os.environ.get("WEIR_MESON_BUILD", BUILD),
                            "libvirt-cache")
SCRATCH = "/run/scratch"
NBD = "/run/scratch/nbd/socket"
INSIDE = "WEIR_LIBVIRT_TEST"
GUARD_S = 60       # against hanging, not a criterion
POLICIES = "/etc/weir/policies.d"

# user of QEMU in the test's own /etc
USER = "libvirt-qemu"
UID = 64055
QEMU_CONF = """
user = "+64055"
group = "+64055"
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""

# without a system bus, there is nobody to ask
LIBVIRTD_CONF = """
auth_unix_ro = "none"
auth_unix_rw = "none"
"""

OBSERVE = """name: observe
filters:
  - weir-inspect: {entropy: true}
"""

CACHED = """name: cached
filters:
  - weir-inspect:
  - weir-cache:
      cache-file: create:16M:%s/ssd/${vm}-${disk}.cache
"""


def skip(reason):
    print("SKIP: " + reason)
    sys.exit(77)


def enter():
    """Go on in namespaces of our own."""
    for program in ("/usr/sbin/libvirtd", "/usr/bin/virsh"):
        if not os.access(program, os.X_OK):
            skip("%s is not installed" % program)
    if os.environ.get(INSIDE):
        return
    if os.geteuid() != 0:
        skip("only root can have a libvirtd of its own")
    os.environ[INSIDE] = "1"
    # the machine's settings are of no use in there
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME",
                 "WEIR_KEEP_DIR", "WEIR_STATE_DIR", "LIBVIRT_DEFAULT_URI"):
        os.environ.pop(name, None)
    # the shell reaps what QEMU and libvirtd leave behind as daemons
    os.execvp("unshare", [
        "unshare", "--mount", "--propagation", "private", "--net", "--pid",
        "--fork", "--kill-child", "--mount-proc", "sh", "-c",
        '"$@"; exit $?', "sh", sys.executable, *sys.argv])


def mount(*args):
    subprocess.run(["mount", *args], check=True)


def make_private():
    """Replace the folders that libvirt and weir use."""
    etc = os.path.join(SCRATCH, "etc")
    for folder in ("/run", "/var"):
        mount("-t", "tmpfs", "tmpfs", folder)
    for folder in ("cache/libvirt", "lib", "log", "tmp"):
        os.makedirs(os.path.join("/var", folder))
    os.symlink("/run", "/var/run")
    os.mkdir(SCRATCH)
    os.mkdir(os.path.dirname(NBD))
    os.mkdir(os.path.join(SCRATCH, "ssd"))
    os.chown(os.path.dirname(NBD), UID, UID)
    shutil.copytree("/etc", etc, symlinks=True, ignore=lambda folder, names: (
        {"libvirt", "weir"} & set(names) if folder == "/etc" else ()),
        copy_function=lambda a, b: shutil.copy2(a, b, follow_symlinks=False))
    os.makedirs(os.path.join(etc, "libvirt/hooks/qemu.d"))
    os.makedirs(os.path.join(etc, "weir/policies.d"))
    for name, text in (("qemu", QEMU_CONF), ("libvirtd", LIBVIRTD_CONF)):
        with open(os.path.join(etc, "libvirt/%s.conf" % name), "w",
                  encoding="utf-8") as file:
            file.write(text)
    for name, line in (("passwd", "%s:x:%d:%d::/:/bin/false\n"),
                       ("group", "%s:x:%d:%.0s\n")):
        with open(os.path.join(etc, name), "a", encoding="utf-8") as file:
            file.write(line % (USER, UID, UID))
    mount("--bind", etc, "/etc")
    os.makedirs(CAPABILITIES, exist_ok=True)
    mount("--bind", CAPABILITIES, "/var/cache/libvirt")
    os.mkdir(INSTALLED)
    mount("--bind", BUILD, INSTALLED)
    if os.path.exists("/dev/kvm"):
        # one that cannot be used has libvirt ask QEMU again and again
        hidden = os.path.join(SCRATCH, "kvm")
        os.close(os.open(hidden, os.O_CREAT, 0))
        mount("--bind", hidden, "/dev/kvm")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False,
                   stderr=subprocess.DEVNULL)


def virsh(*args, check=True):
    """Run virsh; returns exit code and what it printed."""
    result = subprocess.run(
        ["virsh", "-q", "-c", "qemu:///system", *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=GUARD_S, check=False)
    if check and result.returncode != 0:
        raise AssertionError("virsh %s: %s" % (" ".join(args),
                                               result.stdout))
    return result.stdout if check else (result.returncode, result.stdout)


def qmp(name, command, /, **arguments):
    answer = json.loads(virsh("qemu-monitor-command", name, json.dumps(
        {"execute": command, "arguments": arguments})))
    if "error" in answer:
        raise AssertionError(answer["error"]["desc"])
    return answer["return"]


def has_format_over_raw():
    """Whether a raw image can be changed in use: see docs/libvirt.md."""
    version = virsh("--version").split(".")
    return (int(version[0]), int(version[1])) < (9, 10)


class OtherHost:
    """Another libvirtd, whose own folders, SSD included, are others."""

    SOCKETS = os.path.join(SCRATCH, "other")
    URI = "qemu+unix:///system?socket=%s/libvirt-sock" % SOCKETS
    START = """
        set -e
        cp -a /etc/libvirt etc-libvirt
        mount --bind etc-libvirt /etc/libvirt
        for dir in /run/weir-libvirt /run/libvirt /var/lib/libvirt \\
                /var/lib/weir /var/log/libvirt ssd; do
            mkdir -p $dir
            mount -t tmpfs tmpfs $dir
        done
        cat >> /etc/libvirt/libvirtd.conf <<END
unix_sock_dir = "%s"
host_uuid = "11111111-2222-4333-8444-555555555555"
END
        exec /usr/sbin/libvirtd -p /run/libvirt/libvirtd.pid
    """ % SOCKETS

    def __init__(self):
        os.mkdir(self.SOCKETS)
        os.chown(self.SOCKETS, UID, UID)
        with open(os.path.join(SCRATCH, "other.log"), "wb") as log:
            self.daemon = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                 self.START], cwd=SCRATCH, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log)
        end = time.monotonic() + GUARD_S
        while self.run("virsh", "-c", self.URI, "list").returncode != 0:
            if time.monotonic() > end or self.daemon.poll() is not None:
                self.close()
                with open(os.path.join(SCRATCH, "other.log"),
                          encoding="utf-8", errors="replace") as file:
                    raise AssertionError("the other libvirtd does not "
                                         "answer: " + file.read())
            time.sleep(0.05)

    def run(self, *command):
        """Run a command there."""
        return subprocess.run(
            ["nsenter", "-t", str(self.daemon.pid), "-m", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=GUARD_S,
            check=False)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()
        shutil.rmtree(self.SOCKETS)


def write(name, disk, pattern, offset):
    """Write 64 KiB through the guest's virtio disk."""
    out = virsh("qemu-monitor-command", "--hmp", name,
                'qemu-io -d /machine/peripheral/%s/virtio-backend '
                '"write -P %d %d 64k"' % (disk, pattern, offset))
    if out.strip():
        raise AssertionError(out)


class LibvirtTest(unittest.TestCase):
    """Tests that share one libvirtd."""

    maxDiff = None

    dir = SCRATCH
    daemon = None

    def need_format_over_raw(self):
        if not has_format_over_raw():
            self.skipTest("this libvirt has no format node over a raw image")

    @classmethod
    def setUpClass(cls):
        if LibvirtTest.daemon:
            return          # of the class before
        make_private()
        cls.install_hook()
        cls.policy("observe", OBSERVE)
        cls.policy("cached", CACHED % cls.dir)
        cls.run_daemon()

    @classmethod
    def install_hook(cls):
        os.symlink(HOOK, "/etc/libvirt/hooks/qemu.d/weir")

    @staticmethod
    def run_daemon():
        log = os.path.join(SCRATCH, "libvirtd.log")
        with open(log, "ab") as file:
            LibvirtTest.daemon = subprocess.Popen(
                ["/usr/sbin/libvirtd"], stdin=subprocess.DEVNULL,
                stdout=file, stderr=file)
        end = time.monotonic() + GUARD_S
        while True:
            code, answer = virsh("list", check=False)
            if code == 0:
                return
            if time.monotonic() > end or LibvirtTest.daemon.poll() is not None:
                with open(log, encoding="utf-8", errors="replace") as file:
                    raise AssertionError(answer + file.read())
            time.sleep(0.05)

    @classmethod
    def policy(cls, name, text):
        with open("%s/%s.yaml" % (POLICIES, name), "w",
                  encoding="utf-8") as file:
            file.write(text)

    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1].replace("test_", "")
        self.addCleanup(self.end)

    def end(self):
        for name in virsh("list", "--all", "--name").split():
            virsh("destroy", name, check=False)
            virsh("undefine", name, "--snapshots-metadata", "--managed-save",
                  check=False)

    def path(self, name):
        return os.path.join(self.dir, name)

    def image(self, name, size=8 << 20, qcow2=False, base=None):
        path = self.path(name)
        if qcow2:
            backing = ["-F", "raw", "-b", base] if base else []
            subprocess.run([os.path.join(BIN, "qemu-img"), "create", "-q",
                            "-f", "qcow2", *backing, path, str(size)],
                           check=True)
        else:
            with open(path, "wb") as file:
                file.truncate(size)
        return path

    def encrypted(self, name, policy):
        """An encrypted image, and a policy that has its key."""
        key = self.path("key")
        with open(key, "w", encoding="utf-8") as file:
            file.write("open sesame")
        os.chmod(key, 0o600)
        path = self.path(name)
        subprocess.run(
            [os.path.join(BIN, "qemu-img"), "create", "-q", "-f",
             "weir-encryption", "--object", "secret,id=s,file=" + key, "-o",
             "key-secret=s,kdf=pbkdf2,kdf-iterations=1000", path, "4M"],
            check=True)
        self.policy(policy, "name: %s\nfilters:\n  - weir-encryption: "
                    "{key-secret: 'file:%s'}\n" % (policy, key))
        return path

    def weir(self, *args, text=None):
        """Run weir to its end; returns exit code, output and errors."""
        result = subprocess.run(
            [WEIR, *args], input=text, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=GUARD_S, check=False)
        return result.returncode, result.stdout, result.stderr

    def weir_ok(self, *args, text=None):
        code, output, errors = self.weir(*args, text=text)
        self.assertEqual((code, errors), (0, ""), output)
        return output

    def xml(self, *disks, metadata=""):
        """A domain; a disk is (target, bus, file, format)."""
        return """<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>32</memory>
%s  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>%s/qemu-system-x86_64</emulator>
    <controller type='scsi' index='0' model='virtio-scsi'/>
%s    <memballoon model='none'/>
  </devices>
</domain>
""" % (self.name, metadata, BIN, "".join(map(self.disk_xml, disks)))

    @staticmethod
    def disk_xml(disk):
        target, bus, path, kind = disk
        return """    <disk type='file' device='disk'>
      <driver name='qemu' type='%s' discard='unmap'/>
      <source file='%s'/>
      <target dev='%s' bus='%s'/>
    </disk>
""" % (kind, path, target, bus)

    def define(self, *disks, policies=("vda=observe",)):
        """Define a domain under policies."""
        options = [word for p in policies for word in ("--disk", p)]
        self.weir_ok("libvirt", "define", "-", *options,
                     text=self.xml(*disks))

    def start(self, *disks, policies=("vda=observe",)):
        self.define(*disks, policies=policies)
        self.assertEqual(self.weir_ok("libvirt", "start", self.name),
                         "Domain '%s' started\n" % self.name)

    def nodes(self):
        """node-name -> (driver, file child's node-name or None)."""
        return {n["node-name"]: n for n in qmp(self.name,
                                               "query-named-block-nodes")}

    def chain(self, device="virtio-disk0"):
        """Drivers from the guest's device down to the storage."""
        graph = qmp(self.name, "x-debug-query-block-graph")
        nodes = {n["id"]: n["name"] for n in graph["nodes"]}
        drivers = {name: n["drv"] for name, n in self.nodes().items()}
        below = {}
        for edge in graph["edges"]:
            if edge["name"] in ("root", "file"):
                below[nodes[edge["parent"]]] = nodes[edge["child"]]
        name = next(n for n in below if n == device or
                    n.startswith("/machine/peripheral/%s/" % device))
        found = []
        while name in below:
            name = below[name]
            found.append((name, drivers[name]))
        return found

    def read(self, pattern, offset=0, device="virtio-disk0"):
        """Whether 64 KiB of the disk, as the guest sees it, are so."""
        top = self.chain(device)[0][0]
        socket = {"type": "unix", "data": {"path": NBD}}
        qmp(self.name, "nbd-server-start", addr=socket)
        qmp(self.name, "block-export-add", type="nbd", id="test",
            **{"node-name": top, "name": "test"})
        result = subprocess.run(
            [os.path.join(BIN, "qemu-io"), "-r", "-f", "raw", "-c",
             "read -P %d %d 64k" % (pattern, offset),
             "nbd+unix:///test?socket=" + NBD],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=GUARD_S, check=False)
        qmp(self.name, "nbd-server-stop")
        self.assertIn("read 65536/65536", result.stdout)
        self.assertEqual(result.returncode, 0, result.stdout)

    def drivers(self, device="virtio-disk0"):
        """Likewise; without "raw", which newer versions of libvirt leave out.
        """
        return [driver for _, driver in self.chain(device)
                if driver != "raw"]


def main():
    enter()
    unittest.main(argv=[os.path.basename(sys.argv[0])] + (
        sys.argv[1:] or ["-v"]))
