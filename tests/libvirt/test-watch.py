#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir watch: disks of a real libvirt are under their policies again soon
after libvirt has taken filters away, and the time in between is told."""
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

from libvirttest import (BIN, GUARD_S, SCRATCH, WEIR, LibvirtTest, main, qmp,
                         virsh, write)

OBSERVED = ["weir-inspect", "file"]
CACHED = ["weir-inspect", "weir-cache", "file"]
GAPS = "/var/lib/weir/gaps"
DISK = "virtio-disk0"
BLOCK = 65536
# no limit for a machine, but what a person would not wait for
SOON_MS = 15000


def wait_for(condition, what):
    end = time.monotonic() + GUARD_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("waited for " + what)
        time.sleep(0.05)


class Load:
    """A guest that writes: block after block, each with another pattern."""

    BLOCKS = 64

    def __init__(self, name):
        self.name = name
        self.written = 0
        self.stop = False
        self.failure = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            while not self.stop:
                self.write(self.written)
                self.written += 1
        except AssertionError as error:
            self.failure = error

    def write(self, n):
        write(self.name, DISK, n % 255 + 1, n % self.BLOCKS * BLOCK)

    def goes_on(self):
        before = self.written
        wait_for(lambda: self.written > before + 2 or self.failure, "writes")

    def end(self, test):
        """All that was written last is there."""
        self.stop = True
        self.thread.join(GUARD_S)
        if self.failure:
            raise self.failure
        for n in range(max(0, self.written - self.BLOCKS), self.written):
            if n % 5 == 0 or n == self.written - 1:
                test.read(n % 255 + 1, n % self.BLOCKS * BLOCK)


class WatchTest(LibvirtTest):
    log = os.path.join(SCRATCH, "watch.log")

    def setUp(self):
        super().setUp()
        self.watch = None
        shutil.rmtree(GAPS, ignore_errors=True)

    def run_watch(self, *args):
        """By itself it looks so seldom that only events are heeded."""
        notify = os.path.join(SCRATCH, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server, \
                open(self.log, "wb") as file:
            server.bind(notify)
            server.settimeout(GUARD_S)
            self.watch = subprocess.Popen(
                [WEIR, "watch", *(args or ("--interval", "600"))],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env={**os.environ, "NOTIFY_SOCKET": notify})
            self.addCleanup(self.end_watch)
            self.assertEqual(server.recv(64), b"READY=1")
        os.unlink(notify)

    def end_watch(self, number=signal.SIGTERM):
        if self.watch.poll() is None:
            self.watch.send_signal(number)
            self.assertEqual(self.watch.wait(GUARD_S),
                             0 if number == signal.SIGTERM else -number)

    def told(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def snapshot(self, name, target="vda"):
        others = [t for t in ("vda", "sda") if t != target]
        virsh("snapshot-create-as", self.name, "s", "--disk-only",
              "--no-metadata", "--diskspec",
              "%s,file=%s" % (target, self.path(name)),
              *(word for t in others if t in virsh("domblklist", self.name)
                for word in ("--diskspec", t + ",snapshot=no")))

    def commit(self):
        virsh("blockcommit", self.name, "vda", "--active", "--pivot",
              "--wait")

    def plug(self, target, path):
        with open(self.path("disk.xml"), "w", encoding="utf-8") as file:
            file.write(self.disk_xml((target, "scsi", path, "raw")))
        virsh("attach-device", self.name, self.path("disk.xml"), "--live")

    def status(self):
        code, out, _ = self.weir("libvirt", "status", "--json", self.name)
        return code, {d["disk"]: d for d in json.loads(out)}

    def found(self, disk="vda"):
        return self.status()[1].get(disk, {}).get("gaps", [])

    def gaps(self, n=1, disk="vda"):
        """Reasons of the gaps of a disk, when @n have ended and it is well."""
        wait_for(lambda: len([g for g in self.found(disk)
                              if "to-ms" in g]) >= n,
                 "the end of gap %d" % n)
        found = self.found(disk)
        self.assertEqual(len(found), n, found)
        for gap in found:
            self.assertLess(gap["to-ms"] - gap["from-ms"], SOON_MS, gap)
            self.assertEqual(gap["end"], "re-established")
        wait_for(lambda: self.status()[1][disk]["state"] == "compliant",
                 "a disk that complies")
        return [gap["reason"] for gap in found]

    def bound(self, image):
        """The files that an image is bound to."""
        out = self.weir_ok("binding", "list", "--json")
        return [b["at"].split(":")[-1] for b in json.loads(out)
                if b["disk"] == self.path(image)]

    def only_nodes_of(self, *devices):
        """No node is left over."""
        own = {name for device in devices for name, _ in self.chain(device)}
        others = {n for n in self.nodes() if not n.startswith("#")} - own
        self.assertEqual({n for n in others if not n.endswith("-file")},
                         set())


class Losses(WatchTest):
    """What libvirt does, and what becomes of it."""

    def test_snapshot_of_a_disk_that_is_written_to(self):
        self.start(("vda", "virtio", self.image("a.img"), "raw"))
        self.run_watch()
        load = Load(self.name)
        load.goes_on()
        before_ms = time.time() * 1000
        self.snapshot("a.over")
        self.assertEqual(self.gaps(),
                         ["weir-inspect is only below a backing file"])
        [gap] = self.found()
        self.assertTrue(gap["from-known"])
        self.assertLess(before_ms, gap["from-ms"])
        self.assertEqual(self.drivers(), ["qcow2", *OBSERVED])
        load.goes_on()
        # libvirt cannot delete the overlay's node below the filter
        self.commit()
        wait_for(lambda: "weir-vda-inspect" not in self.nodes(), "its end")
        self.assertEqual(self.drivers(), OBSERVED)
        load.goes_on()
        load.end(self)
        self.only_nodes_of(DISK)
        self.assertIn("weir: domain '%s', disk vda: policy 'observe', "
                      "re-established: gap from 2" % self.name, self.told())

    def test_cache_follows_the_image_that_is_written_to(self):
        self.need_format_over_raw()
        self.start(("vda", "virtio", self.image("b.img"), "raw"),
                   policies=["vda=cached"])
        self.run_watch()
        load = Load(self.name)
        load.goes_on()
        self.snapshot("b.over")
        below = "%s is only below a backing file"
        self.assertEqual(self.gaps(), ["; ".join(
            below % driver for driver in ("weir-inspect", "weir-cache"))])
        self.assertEqual(self.drivers(), ["qcow2", *CACHED])
        cache = self.path("ssd/%s-vda.cache" % self.name)
        self.assertEqual((self.bound("b.img"), self.bound("b.over")),
                         ([], [cache]))
        load.goes_on()
        self.snapshot("b.over2")
        self.gaps(2)
        load.goes_on()
        self.commit()
        self.gaps(3)
        self.assertEqual(self.drivers(), CACHED)
        load.goes_on()
        virsh("blockcopy", self.name, "vda", self.path("b.copy"), "--wait",
              "--transient-job", "--format", "raw", "--pivot")
        self.assertEqual(self.gaps(4)[-1],
                         "weir-inspect is missing; weir-cache is missing")
        self.assertEqual(self.drivers(), CACHED)
        load.goes_on()
        load.end(self)
        self.only_nodes_of(DISK)

    def test_cache_of_the_image_before_a_copy_is_kept(self):
        """Its file has what that image lacks."""
        self.need_format_over_raw()
        self.start(("vda", "virtio", self.image("c.img"), "raw"),
                   policies=["vda=cached"])
        qmp(self.name, "blockdev-reopen", options=[{
            "driver": "weir-cache", "node-name": "weir-vda-cache",
            "file": "weir-vda-storage", "idle": 0, "cache-file":
            next(n for n, d in self.nodes().items()
                 if d["drv"] == "file" and d["file"].endswith(".cache"))}])
        self.run_watch()
        write(self.name, DISK, 7, 0)
        virsh("blockcopy", self.name, "vda", self.path("c.copy"), "--wait",
              "--transient-job", "--format", "raw", "--pivot")
        self.gaps()
        self.read(7)
        kept = "ssd/%s-vda.cache.of-c.img" % self.name
        self.assertTrue(os.path.exists(self.path(kept)), self.told())
        self.assertIn("what its cache has of %s is in %s"
                      % (self.path("c.img"), self.path(kept)), self.told())
        # and that image cannot be used without it
        virsh("destroy", self.name)
        self.assertEqual(self.bound("c.img"), [self.path(kept)])

    def test_disk_that_is_plugged_in(self):
        self.need_format_over_raw()
        self.start(("vda", "virtio", self.image("d.img"), "raw"),
                   ("sda", "scsi", self.image("e.img"), "raw"),
                   policies=["vda=observe", "sda=cached"])
        self.run_watch()
        virsh("detach-disk", self.name, "sda")
        self.plug("sda", self.image("e2.img"))
        self.assertEqual(self.gaps(disk="sda"),
                         ["weir-inspect is missing; weir-cache is missing"])
        self.assertEqual(self.drivers("scsi0-0-0-0"), CACHED)
        virsh("detach-disk", self.name, "sda")
        wait_for(lambda: not [n for n in self.nodes() if "sda" in n],
                 "its nodes to be deleted")
        self.only_nodes_of(DISK)
        self.plug("sda", self.image("f.img"))
        self.gaps(2, "sda")
        self.assertEqual(self.drivers("scsi0-0-0-0"), CACHED)
        # nobody has assigned a policy to this one
        self.plug("sdc", self.image("g.img"))
        self.assertEqual(self.drivers("scsi0-0-0-2"), ["file"])

    def test_policy_in_the_metadata(self):
        """Others than weir change what is assigned."""
        self.need_format_over_raw()
        self.start(("vda", "virtio", self.image("h.img"), "raw"))
        self.run_watch()
        virsh("metadata", self.name, "urn:weir:domain:1", "--live",
              "--config", "--key",
              "weir", "--set", "<policies><disk target='vda' "
              "policy='cached'/></policies>")
        self.assertEqual(self.gaps(), [
            "it is under policy 'observe' instead of 'cached'"])
        self.assertEqual(self.drivers(), CACHED)

    def replicated(self, log):
        self.policy("copied", "name: copied\nfilters:\n  - weir-replication: "
                    "{disk-id: d, log: 'nbd+unix:///log?socket=%s', "
                    "sidecar: 'create:4M:%s'}\n" % (log, self.path("side")))
        self.addCleanup(lambda: os.path.exists(self.path("side")) and
                        os.unlink(self.path("side")))

    def keeper(self):
        """A storage daemon that keeps the replication log; its socket."""
        path = os.path.join(SCRATCH, "nbd/keeper")
        nodes = [word for name, size in (("log", 256 << 20), ("d", 8 << 20))
                 for word in ("--blockdev", "file,node-name=%s,filename=%s"
                              % (name, self.image("keeper-" + name, size)))]
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(
            [os.path.join(BIN, "qemu-storage-daemon"), *nodes, "--blockdev",
             json.dumps({"driver": "weir-journal", "node-name": "journal",
                         "file": "log", "create": True,
                         "bases": [{"disk-id": "d", "node": "d"}]}),
             "--nbd-server", "addr.type=unix,addr.path=%s,max-connections=0"
             % path, "--export", "nbd,id=log,node-name=journal,name=log,"
             "writable=on", "--chardev",
             "socket,id=m,server=on,wait=off,path=%s.qmp" % path, "--monitor",
             "chardev=m"], stdin=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        wait_for(lambda: os.path.exists(path), "the keeper")
        os.chmod(path, 0o666)
        return path

    def log_has_all(self):
        [node] = qmp(self.name, "query-weir")
        return (node["status"], node["queued-bytes"],
                node["state"]) == ("streaming", 0, "ok")

    def test_copy_is_replicated_anew(self):
        """The sidecar does not know of what the other image is."""
        self.need_format_over_raw()
        log = self.keeper()
        self.replicated(log)
        # weir libvirt start may find that the disk is not in the log yet
        self.define(("vda", "virtio", self.image("q.img"), "raw"),
                    policies=["vda=copied"])
        virsh("start", self.name)
        write(self.name, DISK, 1, 0)
        wait_for(self.log_has_all, "the log having all")
        self.run_watch()
        virsh("blockcopy", self.name, "vda", self.path("q.copy"), "--wait",
              "--transient-job", "--format", "raw", "--pivot")
        # the log may hear of what is written before the filter is there
        write(self.name, DISK, 2, BLOCK)
        self.assertEqual(self.gaps(), ["weir-replication is missing"])
        write(self.name, DISK, 3, 2 * BLOCK)
        wait_for(self.log_has_all, "the log having all")
        self.weir_ok("replica", "open", "--qmp", log + ".qmp", "d", "--name",
                     "now")
        commands = [word for n in (1, 2, 3) for word in
                    ("-c", "read -P %d %d 64k" % (n, (n - 1) * BLOCK))]
        result = subprocess.run(
            [os.path.join(BIN, "qemu-io"), "-r", "-f", "raw", *commands,
             "nbd+unix:///now?socket=" + log], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=GUARD_S, check=False)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(result.stdout.count("read 65536/"), 3, result.stdout)

    def test_what_is_refused_is_told_once(self):
        self.replicated("/run/none")
        self.define(("vda", "virtio", self.image("i.img"), "raw"),
                    policies=["vda=copied"])
        virsh("start", self.name)
        self.run_watch("--interval", "1")
        self.snapshot("i.over")
        wait_for(lambda: "cannot be re-established" in self.told(), "refusal")
        time.sleep(1.5)
        self.assertEqual(self.told().count("cannot be re-established"), 1)
        self.assertIn("only its overlay would be replicated", self.told())
        self.assertEqual(self.status()[0], 3)
        [gap] = self.found()
        self.assertNotIn("to-ms", gap)
        self.assertIn("the disk has a snapshot", gap["refusal"])
        self.assertEqual(self.weir("watch", "--once")[0], 3)
        # what is written goes through the replication below
        self.commit()
        wait_for(lambda: "to-ms" in self.found()[0], "the end of the gap")
        self.assertEqual(self.found()[0]["end"], "it is there again")


    def test_encryption_is_refused(self):
        """The overlay is in plain text, and that is told."""
        image = self.encrypted("p.img", "secret")
        self.start(("vda", "virtio", image, "raw"), policies=["vda=secret"])
        self.run_watch()
        self.snapshot("p.over")
        wait_for(lambda: "cannot be re-established" in self.told(), "refusal")
        self.assertIn("weir-encryption cannot be attached to a disk in use: "
                      "the data on it is not encrypted", self.told())
        self.assertEqual(self.status()[0], 3)
        self.assertEqual(self.drivers(), ["qcow2", "file"])
        self.commit()
        wait_for(lambda: "to-ms" in self.found()[0], "the end of the gap")
        self.assertEqual(self.drivers(), ["weir-encryption", "file"])


class Interruptions(WatchTest):
    def test_libvirtd_is_restarted(self):
        self.start(("vda", "virtio", self.image("j.img"), "raw"))
        self.run_watch()
        self.daemon.terminate()
        self.daemon.wait()
        wait_for(lambda: "libvirtd is away" in self.told(), "its absence")
        self.run_daemon()
        wait_for(lambda: "libvirtd is there again" in self.told(),
                 "its return")
        self.snapshot("j.over")
        self.gaps()
        self.assertEqual(self.drivers(), ["qcow2", *OBSERVED])

    def test_watch_is_killed(self):
        """What happens meanwhile is found, also a change half done."""
        self.start(("vda", "virtio", self.image("k.img"), "raw"),
                   ("sda", "scsi", self.image("l.img"), "raw"),
                   policies=["vda=cached", "sda=observe"])
        load = Load(self.name)
        self.run_watch()
        load.goes_on()
        self.snapshot("k.over")
        wait_for(self.found, "a gap")
        self.end_watch(signal.SIGKILL)
        self.snapshot("k.over2")
        self.snapshot("l.over", "sda")
        load.goes_on()
        self.run_watch()
        self.gaps(disk="sda")
        self.assertFalse(self.found("sda")[0]["from-known"])
        # it may have been killed before or after it was done with the first
        wait_for(lambda: self.status()[0] == 0, "disks that comply")
        self.assertIn(len(self.found()), (1, 2))
        self.assertNotIn("cannot be re-established", self.told())
        self.assertEqual(self.drivers(), ["qcow2", *CACHED])
        self.assertEqual(self.drivers("scsi0-0-0-0"), ["qcow2", *OBSERVED])
        load.goes_on()
        load.end(self)

    def test_once(self):
        self.start(("vda", "virtio", self.image("m.img"), "raw"))
        self.assertEqual(self.weir("watch", "--once"), (0, "", ""))
        self.snapshot("m.over")
        code, out, errors = self.weir("watch", "--once")
        self.assertEqual((code, out), (0, ""))
        self.assertIn("re-established: gap from some time after 2", errors)
        self.assertEqual(self.weir("watch", "--once"), (0, "", ""))
        out = self.weir("libvirt", "status", self.name)[1]
        self.assertIn("gap from some time after 2", out)

    def test_end_of_the_domain_ends_a_gap(self):
        self.policy("late", "name: late\nfilters:\n  - weir-inspect:\n")
        self.start(("vda", "virtio", self.image("n.img"), "raw"),
                   policies=["vda=late"])
        uuid = virsh("domuuid", self.name).strip()
        os.unlink("/etc/weir/policies.d/late.yaml")
        self.run_watch()
        self.snapshot("n.over")
        wait_for(lambda: "cannot be re-established" in self.told(), "refusal")
        virsh("destroy", self.name)
        wait_for(lambda: "the domain has ended: gap from" in self.told(),
                 "the end of the gap")
        with open(os.path.join(GAPS, uuid + ".json"),
                  encoding="utf-8") as file:
            [gap] = json.load(file)["disks"]["vda"]
        self.assertEqual(gap["end"], "the domain has ended")


class Others(WatchTest):
    def test_domain_that_is_not_ours(self):
        """Also one with a filter of ours that somebody else has attached, and
        with metadata that Weir would not read."""
        deep = "<d xmlns='urn:d'>" + "<d>" * 70 + "</d>" * 71
        with open(self.path("o.xml"), "w", encoding="utf-8") as file:
            file.write(self.xml(
                ("vda", "virtio", self.image("o.img"), "raw"),
                metadata="<metadata>%s</metadata>" % deep))
        virsh("define", self.path("o.xml"))
        virsh("start", self.name)
        qmp(self.name, "blockdev-add", driver="null-co",
            **{"node-name": "other"})
        qmp(self.name, "weir-attach", **{"node-name": "other", "filter": {
            "driver": "weir-inspect", "node-name": "weir-vda-inspect",
            "file": "other"}})
        before = (virsh("dumpxml", self.name), self.nodes().keys())
        self.run_watch("--interval", "1")
        self.snapshot("o.over")
        self.commit()
        time.sleep(2.5)
        self.assertEqual((virsh("dumpxml", self.name), self.nodes().keys()),
                         before)
        self.assertEqual((self.told(), os.path.exists(GAPS)), ("", False))
        self.assertFalse(os.path.exists(os.path.join(
            "/run/weir-libvirt", virsh("domuuid", self.name).strip())))

    def test_wrong_usage(self):
        for args, message in (
                (["x"], "watch: found 'x', expected no argument"),
                (["--interval", "0"], "watch: found interval 0, expected 1 "
                 "to 3600 seconds")):
            self.assertEqual(self.weir("watch", *args),
                             (2, "", "weir: %s\n" % message))


if __name__ == "__main__":
    main()
