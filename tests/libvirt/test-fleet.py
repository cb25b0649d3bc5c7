#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of several hosts in weir status, top, metrics and libvirt apply."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

from libvirttest import (GUARD_S, SCRATCH, WEIR, LibvirtTest, OtherHost,
                         main, qmp, virsh, write)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))), "policy"))
import exposition  # noqa: E402

HERE = "qemu:///system"
THERE = OtherHost.URI
DISK = "virtio-disk0"
LATE_S = 2      # how long tests wait for what does not answer
APPLY_S = 6     # the same, where others check policies meanwhile
LIMITED = """name: limited
limits: {dirty: 32K, latency: 1h}
filters:
  - weir-inspect:
  - weir-cache:
      mode: write-back
      cache-file: create:16M:%s/ssd/${vm}-${disk}.cache
"""


def uri(path):
    return "qemu+unix:///system?socket=" + path


DEAD = uri(os.path.join(SCRATCH, "nobody"))


@contextlib.contextmanager
def silent():
    """A socket where somebody listens and never says a word."""
    path = os.path.join(SCRATCH, "silent")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(64)
        try:
            yield uri(path)
        finally:
            os.unlink(path)


def hosts(*uris):
    return [word for u in uris for word in ("-c", u)]


def brief(statuses):
    return [(d.get("host"), d["vm"], d["disk"], d["state"]) for d in statuses]


class FleetTest(LibvirtTest):
    """Tests with two hosts that share all but their libvirt."""

    other = None

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.policy("limited", LIMITED % cls.dir)
        if not FleetTest.other:
            FleetTest.other = OtherHost()
            unittest.addModuleCleanup(FleetTest.other.close)

    def end(self):
        super().end()
        for name in self.there("list", "--all", "--name").split():
            self.there("destroy", name)
            self.there("undefine", name)

    def there(self, *args):
        return self.other.run("virsh", "-q", "-c", THERE, *args).stdout

    def put(self, host, *disks, policies=("vda=observe",), name=None):
        """Have a domain run at a host."""
        test, self.name = self.name, name or self.name
        options = [word for p in policies for word in ("--disk", p)]
        self.weir_ok("libvirt", "define", "-", *hosts(host), *options,
                     text=self.xml(*disks))
        self.weir_ok("libvirt", "start", self.name, *hosts(host))
        self.name = test

    def disk(self, name):
        """Of a file that no other test has: caches remember whose they are.
        """
        return ("vda", "virtio", self.image(
            "%s-%s" % (self.id().rsplit(".", 1)[1], name)), "raw")

    def status(self, *args, code=0):
        got, out, errors = self.weir("status", "--json", *args)
        self.assertEqual((got, errors), (code, ""), out)
        return json.loads(out)

    def timed(self, *args):
        begin = time.monotonic()
        result = self.weir(*args)
        return time.monotonic() - begin, *result

    def process(self, domain=None):
        with open("/run/libvirt/qemu/%s.pid" % (domain or self.name),
                  encoding="ascii") as file:
            return int(file.read())


class Looking(FleetTest):
    def test_here_without_a_word(self):
        """Beside VMs of weir run, with nothing else in what is printed."""
        self.put(HERE, self.disk("a.img"))
        with subprocess.Popen(
                [WEIR, "run", "--name", "own", "--disk",
                 "file=%s,format=raw,policy=observe" % self.image("own.img"),
                 "--", "-machine", "q35", "-accel", "tcg", "-S", "-display",
                 "none", "-nodefaults"]) as vm:
            try:
                end = time.monotonic() + GUARD_S
                while self.weir("status", "own")[0] != 0:
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.05)
                self.assertEqual(brief(self.status()), [
                    (None, "own", "disk0", "compliant"),
                    (None, self.name, "vda", "compliant")])
                self.assertEqual(brief(self.status("own")),
                                 [(None, "own", "disk0", "compliant")])
                self.assertEqual(brief(self.status(*hosts(HERE))),
                                 [(None, self.name, "vda", "compliant")])
            finally:
                vm.terminate()
        one = brief(self.status(self.name))
        self.assertEqual(one, [(None, self.name, "vda", "compliant")])
        uuid = virsh("domuuid", self.name).strip()
        self.assertEqual(brief(self.status(uuid)), one)
        self.assertEqual(self.weir_ok("status").split()[:2], ["VM", "DISK"])
        self.assertEqual(self.weir_ok("libvirt", "status"),
                         self.weir_ok("status"))
        self.assertNotIn('{host=', re.sub("weir_host_up.*", "",
                                          self.weir_ok("metrics")))

    def test_two_hosts(self):
        """The same facts, whichever way they come."""
        disk = self.disk("a.img")
        self.put(HERE, disk, policies=["vda=limited"], name="near")
        self.put(THERE, self.disk("b.img"), policies=["vda=limited"],
                 name="far")
        near, far = self.status(*hosts(HERE, THERE))
        self.assertEqual(brief([near, far]), [
            (HERE, "near", "vda", "compliant"),
            (THERE, "far", "vda", "compliant")])
        for status in (near, far):
            self.assertGreater(status.pop("since"), 0)
            status.pop("latency-p99-ns")
            for entry in (*status["actual"], *status["filters"]):
                entry.pop("since", None)
            status["host"], status["vm"] = "", ""
        self.assertEqual(near, far)
        self.assertEqual(near["limits"]["dirty-bytes"], 32 << 10)
        self.assertEqual(near["filters"][1]["facts"]["dirty-bytes"], 0)

    def test_what_a_limit_says(self):
        self.put(THERE, self.disk("b.img"), policies=["vda=limited"])
        before = self.status(*hosts(THERE))
        self.there("qemu-monitor-command", "--hmp", self.name,
                   'qemu-io -d /machine/peripheral/%s/virtio-backend '
                   '"write -P 3 0 64k"' % DISK)
        after = self.status(*hosts(THERE), code=3)
        self.assertEqual(after[0]["filters"][1]["facts"]["dirty-bytes"],
                         64 << 10)
        self.assertIn("dirty", after[0]["reason"])
        # from look to look it is known since when
        self.assertGreaterEqual(after[0]["since"], before[0]["since"])
        time.sleep(1.1)
        self.assertEqual(self.status(*hosts(THERE), code=3)[0]["since"],
                         after[0]["since"])
        top = self.weir_ok("top", "--once", "--interval", "0.1", *hosts(THERE))
        self.assertRegex(top, r"%s +vda +non-compliant .* 64 KiB" % self.name)

    def test_since_ends_with_the_domain(self):
        kept = "/run/weir/host-localhost"
        self.put(THERE, self.disk("b.img"))
        self.status(*hosts(THERE))
        self.assertEqual(os.listdir(kept), [self.name + ".status"])
        self.there("destroy", self.name)
        self.assertEqual(self.status(*hosts(THERE)), [])
        self.assertEqual(os.listdir(kept), [])

    def test_policy_that_has_changed(self):
        self.policy("moving", "name: moving\nfilters: [weir-inspect: {}]\n")
        self.put(HERE, self.disk("a.img"), policies=["vda=moving"])
        self.assertEqual(self.status()[0]["state"], "compliant")
        self.policy("moving", "name: moving\nversion: 2\n"
                    "filters: [weir-inspect: {}]\n")
        self.assertEqual(self.status(code=5)[0]["state"], "out-of-date")

    def test_domain_of_a_name(self):
        self.put(THERE, self.disk("b.img"))
        self.put(THERE, self.disk("c.img"), name="another")
        found = brief(self.status(self.name, *hosts(HERE, THERE)))
        self.assertEqual(found, [(THERE, self.name, "vda", "compliant")])
        self.there("destroy", "another")
        for name in ("another", "nobody"):
            self.assertEqual(
                self.weir("status", name, *hosts(HERE, THERE)),
                (1, "", "weir: no domain '%s' runs in libvirt\n" % name))
        # which may be where nobody can look
        self.assertEqual(brief(self.status("nobody", *hosts(HERE, DEAD),
                                           code=4)),
                         [(DEAD, None, None, "unknown")])

    def test_record_that_qemu_does_not_carry(self):
        self.put(THERE, self.disk("b.img"))
        self.there("qemu-monitor-command", self.name, json.dumps(
            {"execute": "object-del", "arguments": {"id": "weir-record"}}))
        status, = self.status(*hosts(THERE), code=4)
        self.assertEqual(
            (status["vm"], status["disk"], status["policy"],
             status["reason"]),
            (self.name, "vda", "observe", "domain '%s': found policies, but "
             "what it was started with is not known" % self.name))

    def test_policy_that_was_changed_while_it_runs(self):
        """QEMU carries what is so now, whether it has carried it before."""
        self.policy("other", "name: other\nfilters: [weir-inspect: {}]\n")
        self.put(THERE, self.disk("b.img"))
        before, = self.status(*hosts(THERE))
        changed = self.other.run(WEIR, "reapply", "-c", THERE, self.name,
                                 "vda", "--policy", "other")
        self.assertEqual(changed.returncode, 0, changed.stdout)
        after, = self.status(*hosts(THERE))
        self.assertEqual([(d["policy"], d["state"]) for d in (before, after)],
                         [("observe", "compliant"), ("other", "compliant")])
        # it is the same process still
        self.assertEqual(after["since"], before["since"])

    def test_policy_of_a_domain_that_runs_without(self):
        self.need_format_over_raw()
        plain = self.xml(self.disk("c.img"))
        with open(self.path("plain.xml"), "w", encoding="utf-8") as file:
            file.write(plain.replace("<name>%s<" % self.name, "<name>plain<"))
        self.there("create", self.path("plain.xml"))
        self.assertEqual(self.status("plain", *hosts(THERE)), [])
        changed = self.other.run(WEIR, "attach", "-c", THERE, "plain", "vda",
                                 "--policy", "observe")
        self.assertEqual(changed.returncode, 0, changed.stdout)
        self.assertEqual(brief(self.status("plain", *hosts(THERE))),
                         [(None, "plain", "vda", "compliant")])

    def test_default_of_the_environment(self):
        self.put(THERE, self.disk("b.img"))
        env = dict(os.environ, LIBVIRT_DEFAULT_URI=THERE)
        for args, found in ((["libvirt", "status"], True), (["status"], False)):
            out = subprocess.run([WEIR, *args], env=env, check=True,
                                 timeout=GUARD_S, text=True,
                                 stdout=subprocess.PIPE).stdout
            # nothing was started under policies on this machine
            self.assertEqual(self.name in out, found, out)

    def test_names_of_hosts(self):
        """Of such that cannot be asked, too."""
        uris = ["qemu+tcp://127.0.0.1:1/system", "qemu+tcp://[::1]:1/system",
                "qemu+tcp://user@127.0.0.1:1/", "alias", "test:///default"]
        found = self.status(*hosts(*uris, uris[0]), code=4)
        self.assertEqual(brief(found), [
            (name, None, None, "unknown")
            for name in (uris[0], "[::1]:1", uris[2], "alias")])
        self.assertEqual(self.status(*hosts("test:///default")), [])
        filters = self.weir("status", "--filters", *hosts("alias"))[1]
        self.assertRegex(filters, "^HOST +VM +DISK +FILTER ")

    def test_wrong_command_lines(self):
        for args, said in (
                (["status", "-c", HERE, "--qmp", "x"],
                 "status: found --connect and --qmp"),
                (["libvirt", "apply"], "libvirt apply: found no domain"),
                (["libvirt", "apply", "x", "--timeout", "0"],
                 "libvirt apply: found timeout 0"),
                (["-c", HERE, "compile"], "Unknown option -c"),
                (["-c"], "Usage:")):
            code, out, errors = self.weir(*args)
            self.assertEqual((code, out), (2, ""))
            self.assertIn(said, errors)
        self.assertEqual(self.weir_ok("-c", HERE, "status"),
                         self.weir_ok("status", "--connect", HERE))


class Silence(FleetTest):
    """What does not answer delays nobody beyond the timeout."""

    def test_hosts(self):
        self.put(HERE, self.disk("a.img"))
        with silent() as hangs:
            taken, code, out, errors = self.timed(
                "status", "--json", "--timeout", str(LATE_S),
                *hosts(DEAD, hangs, HERE))
            self.assertEqual((code, errors), (4, ""))
            self.assertLess(taken, LATE_S + GUARD_S / 2)
            found = json.loads(out)
            self.assertEqual(brief(found), [
                (HERE, self.name, "vda", "compliant"),
                (DEAD, None, None, "unknown"),
                (hangs, None, None, "unknown")])
            self.assertIn("No such file", found[1]["reason"])
            self.assertEqual(found[2]["reason"],
                             "libvirt does not answer within %d s" % LATE_S)
            code, out, _ = self.weir("top", "--once", "--interval", "0.1",
                                     "--timeout", str(LATE_S),
                                     *hosts(HERE, hangs))
            self.assertEqual(code, 0)
            self.assertRegex(out, r"(?m)^HOST +VM +DISK ")
            self.assertRegex(out, r"silent +- +- +unknown ")

    def test_domains(self):
        """Some that hang, before and after one that does not."""
        for name in "a", "b", "m", "z":
            self.put(HERE, self.disk(name + ".img"), name=name)
        hang = [self.process(name) for name in ("a", "b", "z")]
        for pid in hang:
            os.kill(pid, signal.SIGSTOP)
        try:
            found = self.status("--timeout", str(LATE_S), code=4)
        finally:
            for pid in hang:
                os.kill(pid, signal.SIGCONT)
        self.assertEqual([(d["vm"], d["policy"], d["state"], d["reason"])
                          for d in found], [
            (name, "observe", "compliant", None) if name == "m" else
            (name, "observe", "unknown",
             "the domain does not answer within %d s" % LATE_S)
            for name in ("a", "b", "m", "z")])

    def test_server(self):
        """It goes on, and waits once for what hangs, not at each request."""
        self.put(HERE, self.disk("a.img"), name="hangs")
        self.put(THERE, self.disk("b.img"), name="far")
        path = os.path.join(SCRATCH, "metrics")
        with silent() as silence, subprocess.Popen(
                [WEIR, "metrics", "--listen", path, "--timeout", str(LATE_S),
                 *hosts(HERE, THERE, silence)], stderr=subprocess.PIPE,
                text=True) as server:
            try:
                server.stderr.readline()
                self.watch_server(path)
            finally:
                server.terminate()
            server.stderr.close()

    def up(self, path):
        """What of hosts and VMs is up, and how long that took."""
        begin = time.monotonic()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(GUARD_S)
            client.connect(path)
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as stream:
                text = stream.read().decode().split("\r\n\r\n", 1)[1]
        exposition.parse(text)
        self.assertIn(exposition.promtool(text), (None, (0, "")))
        found = {}
        for name, host, vm, value in re.findall(
                r'weir_(host|vm)_up{host="(.*?)"(?:,vm="(.*)")?} (\d)', text):
            found[vm or {HERE: "here", THERE: "there"}.get(host, "silent")] = \
                int(value)
        return found, time.monotonic() - begin

    def watch_server(self, path):
        good = {"here": 1, "there": 1, "silent": 0, "hangs": 1, "far": 1}
        self.assertEqual(self.up(path)[0], good)
        os.kill(self.process("hangs"), signal.SIGSTOP)
        try:
            self.assertEqual(self.up(path)[0], {**good, "hangs": 0})
            found, taken = self.up(path)
            self.assertEqual(found, {**good, "hangs": 0})
            self.assertLess(taken, LATE_S)
        finally:
            os.kill(self.process("hangs"), signal.SIGCONT)
        self.wait_until(path, good)
        # a libvirt that is started anew is connected to again
        self.daemon.terminate()
        self.daemon.wait()
        self.assertEqual(self.up(path)[0]["here"], 0)
        self.run_daemon()
        self.wait_until(path, good)

    def wait_until(self, path, good):
        end = time.monotonic() + GUARD_S
        while self.up(path)[0] != good:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)


class Applying(FleetTest):
    def define(self, *names, there=False):
        test = self.name
        for self.name in names:
            path = self.path("domain.xml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.xml(self.disk(self.name + ".img")))
            (self.there if there else virsh)("define", path)
        self.name = test

    def is_under(self, name, there=False):
        xml = self.there("dumpxml", name) if there else virsh("dumpxml", name)
        return 'policy="observe"' in xml.replace("'", '"')

    def apply(self, *args):
        code, out, errors = self.weir("libvirt", "apply", "--policy",
                                      "observe", *args)
        return code, sorted(out.splitlines()), errors

    def test_several(self):
        self.define("web1", "web2", "db", "spare")
        self.assertEqual(self.apply("web*", "db", "web1"), (0, [
            "Domain '%s' is under its policies" % name
            for name in ("db", "web1", "web2")], ""))
        self.assertEqual([self.is_under(n) for n in ("web1", "web2", "db",
                                                     "spare")],
                         [True, True, True, False])

    def test_some_and_none(self):
        self.define("web", "db")
        self.assertEqual(self.apply("web", "nobody*"), (
            6, ["Domain 'web' is under its policies"],
            "weir: there is no domain 'nobody*'\n"))
        code, out, errors = self.weir("libvirt", "apply", "*", "--disk",
                                      "sdx=observe")
        self.assertEqual((code, out), (1, ""))
        for name in "db", "web":
            self.assertRegex(errors, "(?m)^weir: .*'%s'.*sdx" % name)
        self.assertFalse(self.is_under("db"))

    def test_several_hosts(self):
        self.define("web1")
        self.define("web2", there=True)
        # each is somewhere, which is enough
        self.assertEqual(self.apply("web?", "web2", *hosts(HERE, THERE)), (
            0, ["%s: Domain 'web2' is under its policies" % THERE,
                "%s: Domain 'web1' is under its policies" % HERE], ""))
        self.assertTrue(self.is_under("web1"))
        self.assertTrue(self.is_under("web2", there=True))

    def test_hosts_that_do_not_answer(self):
        self.define("web")
        with silent() as hangs:
            taken, code, out, errors = self.timed(
                "libvirt", "apply", "web", "--policy", "observe", "--timeout",
                str(APPLY_S), *hosts(hangs, DEAD, HERE))
        self.assertEqual((code, out), (
            6, "%s: Domain 'web' is under its policies\n" % HERE))
        self.assertIn("weir: %s: cannot connect to libvirt: " % DEAD, errors)
        self.assertIn("weir: %s: no answer within %d s\n" % (hangs, APPLY_S),
                      errors)
        self.assertLess(taken, APPLY_S + GUARD_S / 2)
        self.assertEqual(self.apply("web", *hosts(DEAD))[:2], (1, []))


SSHD = """
Port 22
ListenAddress 127.0.0.1
HostKey {0}/host
AuthorizedKeysFile {0}/key.pub
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PidFile none
"""
SSH = """
Host *
IdentityFile {0}/key
UserKnownHostsFile {0}/known
StrictHostKeyChecking no
BatchMode yes
"""


@unittest.skipUnless(os.access("/usr/sbin/sshd", os.X_OK), "there is no sshd")
class Ssh(FleetTest):
    """The transport that is used between machines."""

    def setUp(self):
        super().setUp()
        self.folder = self.path("ssh")
        os.mkdir(self.folder)
        self.addCleanup(shutil.rmtree, self.folder)
        os.makedirs("/run/sshd", exist_ok=True)
        for key in "host", "key":
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "",
                            "-f", os.path.join(self.folder, key)], check=True)
        for path, text in ((self.path("ssh/sshd_config"), SSHD),
                           ("/etc/ssh/ssh_config", SSH)):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text.format(self.folder))
        # sshd lets nobody in whose account is locked
        subprocess.run(["sed", "-i", "s/^root:[^:]*:/root:*:/",
                        "/etc/shadow"], check=True)
        server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-f",
                                   self.path("ssh/sshd_config")])
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        end = time.monotonic() + GUARD_S
        while True:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", 22)) == 0:
                    return
            self.assertLess(time.monotonic(), end)
            self.assertIsNone(server.poll())
            time.sleep(0.05)

    def test_status_and_apply(self):
        far = "qemu+ssh://root@127.0.0.1/system"
        self.put(far, self.disk("a.img"), policies=["vda=limited"])
        write(self.name, DISK, 1, 0)
        status, = self.status(*hosts(far), code=3)
        self.assertEqual((status["host"], status["vm"], status["state"]),
                         ("127.0.0.1", self.name, "non-compliant"))
        self.assertEqual(status["filters"][1]["facts"]["dirty-bytes"],
                         64 << 10)
        # what policies say there is not known here, unless one says where
        self.policy("observe", "name: observe\nversion: 2\n"
                    "filters: [weir-inspect: {entropy: true}]\n")
        self.put(far, self.disk("b.img"), name="seen")
        self.policy("observe", "name: observe\nversion: 3\n"
                    "filters: [weir-inspect: {entropy: true}]\n")
        self.assertEqual(self.status("seen", *hosts(far))[0]["state"],
                         "compliant")
        self.assertEqual(self.status("seen", *hosts(far), "--policies",
                                     "/etc/weir/policies.d", code=5)
                         [0]["state"], "out-of-date")
        self.assertEqual(
            self.weir_ok("libvirt", "apply", "seen", "--policy", "observe",
                         *hosts(far)),
            "Domain 'seen' is under its policies; it runs, so this holds "
            "when it is started anew\n")
        self.assertEqual(qmp("seen", "query-status")["running"], True)


if __name__ == "__main__":
    main()
