#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks out of process whose storage daemon does not come back, or ends while
one of them is changed: the guest gets its disk again, and nothing is lost."""
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
import unittest

import common
from changetest import Proxy
from common import GUARD_S, QEMU_BIN_DIR, WEIR, need, wait_for
from outsidetest import OUT, OutOfProcessTest, alive

sys.path.insert(0, os.path.join(common.ROOT, "tests", "qemu"))
from vhostuser import VhostUserBlk  # noqa: E402

need("qemu-system-x86_64", "qemu-storage-daemon", "qemu-img")

PLUGINS = os.path.join(os.environ["WEIR_MESON_BUILD"], "tests", "plugins")
PLUGIN = os.path.join(PLUGINS, "crash-open.so")
PLAIN = os.path.join(PLUGINS, "crash-open-plain.so")
# ends at once when it is to open what the file "crash" tells, and takes long
# while there is the file "slow"
DAEMON = """#!/bin/sh
dir=%s
case "$*" in *vhost-user-blk*)
    while [ -e "$dir/slow" ]; do sleep 0.05; done
    if [ -e "$dir/crash" ]; then
        word=$(cat "$dir/crash")
        case "$*" in *"$word"*) kill -ABRT $$ ;; esac
    fi ;;
esac
exec %s/qemu-storage-daemon "$@"
"""
STALE, FLAGS_AT, SEQUENCE_AT = 8, 128, 32


def newest(path):
    """The one of the two headers of a cache or a sidecar that holds."""
    with open(path, "rb") as file:
        copies = [file.read(4096), file.read(4096)]
    return max(copies, key=lambda c: int.from_bytes(
        c[SEQUENCE_AT:SEQUENCE_AT + 8], "little"))


class AwayTest(OutOfProcessTest):
    def setUp(self):
        super().setUp()
        self.bin = self.path("bin")
        os.mkdir(self.bin)
        for name in ("qemu-system-x86_64", "qemu-img"):
            os.symlink(os.path.join(QEMU_BIN_DIR, name),
                       os.path.join(self.bin, name))
        path = os.path.join(self.bin, "qemu-storage-daemon")
        with open(path, "w", encoding="utf-8") as file:
            file.write(DAEMON % (self.dir, QEMU_BIN_DIR))
        os.chmod(path, 0o755)
        self.write("cache.yaml", OUT % ("cache", """
  - weir-cache:
      mode: write-around
      cache-file: create:16M:%s/${disk}.cache""" % self.dir))

    def run_args(self, *disks, name="vm"):
        args = super().run_args(*disks, name=name)
        args[args.index(QEMU_BIN_DIR)] = self.bin
        return args

    def crash(self, word, failures=1):
        """From now on no daemon can open that."""
        with open(self.path("crash"), "w", encoding="utf-8") as file:
            file.write(word)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        wait_for(lambda: self.daemon()["failures"] >= failures and
                 self.daemon()["pid"] == 0, "failures")

    def wait_alive(self):
        wait_for(lambda: alive(self.daemon()["pid"])
                 if self.daemon()["pid"] else False, "another daemon")

    def disk_status(self):
        code, (disk,) = self.status()
        return code, disk

    def finds(self, code, policy, *drivers):
        found, disk = self.disk_status()
        self.assertEqual(
            (found, disk["policy"], [
                n["driver"] for n in disk["actual"]
                if n["driver"].startswith("weir-")]),
            (code, policy, list(drivers)), disk)
        return disk

    def write_disk(self, byte):
        client = VhostUserBlk(os.path.join(self.runtime, "vm.disks", "a"))
        client.pwrite(byte * 65536, 0)
        client.flush()
        client.shutdown()

    def assert_disk(self, byte):
        client = VhostUserBlk(os.path.join(self.runtime, "vm.disks", "a"))
        self.assertEqual(client.pread(65536, 0), byte * 65536)
        client.shutdown()

    def edit(self, act):
        """Change the record of the only disk."""
        path = os.path.join(self.runtime, "vm.storage")
        record = self.storage_record()
        act(record["disks"][0])
        # it is to be looked at when the daemon is started next
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.rename(path + ".new", path)

    def plugin(self, path, **options):
        """A disk under a plugin that ends the daemon when it is to."""
        os.environ["WEIR_TEST_CRASH"] = self.path("mark")
        self.addCleanup(os.environ.pop, "WEIR_TEST_CRASH")
        self.write("plugin.yaml", OUT % ("plugin", """
  - weir-plugin: {plugin: %s}""" % path))
        return self.out(policy="plugin", **options)

    def mark(self):
        open(self.path("mark"), "w", encoding="utf-8").close()

    def crash_in_plugin(self):
        self.mark()
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        wait_for(lambda: self.daemon()["failures"] >= 2, "failures")
        self.assertIn("signal 6", self.daemon()["reason"])


class CrashLoop(AwayTest):
    def test_it_does_not_give_up(self):
        process = self.start(self.out())
        self.crash("weir-inspect", 6)
        code, disk = self.disk_status()
        self.assertEqual((code, disk["state"]), (3, "non-compliant"))
        self.assertRegex(
            disk["reason"], r"^failed: the disk does not answer; \d+ attempts "
            r"in a row to start its storage daemon have failed, the last one "
            r"as its storage daemon ended by signal 6 \(Aborted\)")
        self.assertGreaterEqual(disk["storage-daemon"]["failures"], 6)
        metrics = self.weir_ok("metrics", "--runtime-dir", self.runtime)
        self.assertRegex(metrics,
                         r'weir_storage_daemon_failures\{vm="vm"\} [1-9]')
        self.assertIn('weir_disk_compliance{vm="vm",disk="a",'
                      'state="non-compliant"} 1\n', metrics)
        # with another chain it is tried at once, not in 6 seconds
        before = time.monotonic()
        code, output, errors = self.change("detach")
        self.assertEqual((code, errors), (0, ""))
        self.assertEqual(output, "detach weir-inspect (node weir-a-inspect)\n"
                         "disk a of VM vm is under no policy\n"
                         "note: its storage daemon is away: the next one, "
                         "which is started now, opens the disk so\n")
        self.wait_alive()
        self.assertLess(time.monotonic() - before, 4)
        self.finds(0, None)
        self.assertEqual(self.exports(), [("a", "vhost-user-blk",
                                           "weir-a-format")])
        wait_for(lambda: self.daemon()["failures"] == 0, "it being well")
        process.terminate()
        errors = process.communicate(timeout=GUARD_S)[1]
        self.assertEqual(errors.count(
            "it has failed 5 times in a row, and is tried again from time to "
            "time"), 1, errors)
        self.assert_nothing_left()

    def test_plugin_that_can_go(self):
        """The guest goes on without it."""
        process = self.start(self.plugin(PLAIN, device="none"))
        self.write_disk(b"a")
        self.crash_in_plugin()
        self.assertEqual(self.change("detach")[0], 0)
        self.wait_alive()
        self.finds(0, None)
        self.assert_disk(b"a")
        self.stop(process)

    def test_plugin_that_holds_data(self):
        """What it has in a sidecar, nobody else finds."""
        process = self.start(self.plugin(os.path.join(PLUGINS, "late.so")))
        record = self.storage_record()
        self.crash("late")
        code, _, errors = self.change("detach")
        self.assertEqual(code, 1)
        self.assertIn("weir-plugin:late (node weir-a-plugin-late) cannot go "
                      "without it: it may hold what was not written", errors)
        self.assertEqual(self.storage_record()["disks"], record["disks"])
        os.unlink(self.path("crash"))
        self.wait_alive()
        self.stop(process)

    def test_plugin(self):
        """What changes data cannot go; it is mended, and the guest goes on."""
        process = self.start(self.plugin(PLUGIN))
        self.crash_in_plugin()
        record = self.storage_record()
        for args in (("detach",), ("reapply", "--policy", "out")):
            code, output, errors = self.change(*args)
            self.assertEqual((code, output), (1, ""))
            self.assertIn("weir-plugin:crash-open (node "
                          "weir-a-plugin-crash-open) cannot be "
                          "detached: ", errors)
        self.assertEqual(self.storage_record(), record)
        self.assertIn("signal 6", self.daemon()["reason"])
        os.unlink(self.path("mark"))
        self.wait_alive()
        self.finds(0, "plugin", "weir-plugin")
        self.stop(process)

    def test_encryption_cannot_go(self):
        self.encrypted("a.img")
        text = "\n  - weir-encryption: {key-secret: file:%s}"
        self.write("secret.yaml", OUT % ("secret", text % self.path("key")))
        process = self.start(self.out(policy="secret"))
        self.crash("weir-encryption", 2)
        code, _, errors = self.change("detach")
        self.assertEqual(code, 1)
        self.assertIn("weir-encryption (node weir-a-encryption) cannot be "
                      "detached: the data below it is encrypted", errors)
        # but where its secret comes from can be told anew
        os.rename(self.path("key"), self.path("other"))
        os.unlink(self.path("crash"))
        wait_for(lambda: "No such file" in self.daemon()["reason"],
                 "the secret being missed")
        self.write("secret.yaml", OUT % ("secret", text % self.path("other")))
        self.changes("reapply")
        self.wait_alive()
        self.finds(0, "secret", "weir-encryption")
        self.stop(process)

    def test_disk_that_is_not_encrypted_any_more(self):
        """It was decrypted, and its daemon ended before the filter went."""
        self.write("key", "open sesame")
        subprocess.run(
            [os.path.join(QEMU_BIN_DIR, "qemu-img"), "create", "-q", "-f",
             "weir-encryption", "--object",
             "secret,id=s,file=" + os.path.join(self.policies, "key"), "-o",
             "key-secret=s,kdf=pbkdf2,kdf-iterations=1000",
             self.path("a.img"), "4M"], check=True)
        self.write("secret.yaml", OUT % ("secret", """
  - weir-encryption: {key-secret: file:%s/key}""" % self.policies))
        process = self.start(self.out(policy="secret"))
        os.kill(self.daemon()["supervisor"], signal.SIGSTOP)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        with open(self.path("a.img"), "r+b") as file:
            file.write(bytes(1 << 20))
        os.kill(self.daemon()["supervisor"], signal.SIGCONT)
        wait_for(lambda: self.daemon()["failures"] >= 2, "failures")
        self.changes("detach")
        self.wait_alive()
        self.finds(0, None)
        self.stop(process)

    def test_cache_that_has_data(self):
        process = self.start(self.out(policy="back", device="none"))
        self.write_disk(b"x")
        self.crash("weir-cache", 2)
        record = self.storage_record()
        for args in (("detach",), ("reapply", "--policy", "out")):
            self.assertEqual(self.change(*args), (
                1, "", "weir: VM 'vm', disk a: its storage daemon is away, "
                "and weir-cache (node weir-a-cache) cannot go without it: the "
                "cache %s has blocks that were not written back\n"
                % self.path("a.cache")))
        self.assertEqual(self.storage_record(), record)
        # a missing one may have had some
        os.rename(self.path("a.cache"), self.path("away"))
        self.assertIn("is missing, and may have had blocks",
                      self.change("detach")[2])
        os.rename(self.path("away"), self.path("a.cache"))
        os.unlink(self.path("crash"))
        self.wait_alive()
        self.assert_disk(b"x")
        self.stop(process)

    def test_other_chain(self):
        """A cache comes, and goes, and what it knows is not believed."""
        process = self.start(self.out(device="none"))
        self.crash("weir-inspect", 2)
        self.changes("reapply", "--policy", "cache")
        self.wait_alive()
        self.finds(0, "cache", "weir-cache")
        self.write_disk(b"a")
        self.assert_disk(b"a")
        self.crash("weir-cache", 2)
        self.assertEqual(self.weir("detach", "--runtime-dir", self.runtime,
                                   "--dry-run", "vm", "a")[:2], (
            0, "detach weir-cache (node weir-a-cache)\n"
            "close node weir-a-cache-file\n"))
        self.changes("detach")
        self.wait_alive()
        self.finds(0, None)
        flags = newest(self.path("a.cache"))[FLAGS_AT]
        self.assertEqual(flags & STALE, STALE)
        self.write_disk(b"b")
        os.unlink(self.path("crash"))
        self.changes("attach", "--policy", "cache")
        self.assert_disk(b"b")
        self.stop(process)

    def test_replication_is_told(self):
        """Its sidecar would have the log miss what is written without it."""
        keeper = self.keeper("a")
        self.write("far.yaml", OUT % ("far", """
  - weir-replication:
      disk-id: ${vm}-${disk}
      log: nbd+unix:///log?socket=%s
      sidecar: create:4M:%s""" % (keeper, self.path("sidecar"))))
        process = self.start(self.out(policy="far", device="none"))
        self.write_disk(b"a")
        wait_for(self.is_streaming, "the log")
        self.assertNotEqual(newest(self.path("sidecar")), bytes(4096))
        self.crash("weir-replication", 2)
        self.changes("detach")
        self.wait_alive()
        self.assertEqual(newest(self.path("sidecar")), bytes(4096))
        self.finds(0, None)
        self.stop(process)

    def is_streaming(self):
        qmp = self.storage_qmp()
        filters = qmp.command("query-weir")
        qmp.close()
        return filters[0]["status"] == "streaming"

    def test_killed_at_any_moment(self):
        """Either chain is there afterwards, and whole."""
        choice = random.Random(2)
        process = self.start(self.out(policy="around"))
        args = [WEIR, "detach", "--runtime-dir", self.runtime, "vm", "a"]
        for _ in range(8):
            wait_for(lambda: self.daemon()["failures"] == 0, "it being well")
            self.crash("weir-inspect")
            weir = subprocess.Popen(args, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
            time.sleep(choice.uniform(0, 0.25))
            weir.kill()
            weir.wait()
            os.unlink(self.path("crash"))
            self.wait_alive()
            code, disk = self.disk_status()
            self.assertIn((code, disk["policy"], len(disk["actual"])),
                          [(0, "around", 4), (0, None, 2)])
            if not disk["policy"]:
                self.changes("attach", "--policy", "around")
        self.stop(process)


class Lock(AwayTest):
    def test_record_that_is_being_changed(self):
        """No daemon is started by a record that is about to change."""
        process = self.start(self.out())
        with open(os.path.join(self.runtime, "vm.storage-lock"), "w",
                  encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.kill(self.daemon()["pid"], signal.SIGKILL)
            wait_for(lambda: self.daemon()["failures"] == 1, "its end")
            time.sleep(1)
            self.assertEqual(self.daemon()["pid"], 0)
            self.assertEqual(self.daemon()["failures"], 1)
            self.assertEqual(self.status()[0], 4)
        self.wait_restarts(1)
        self.finds(0, "out", "weir-inspect")
        self.stop(process)

    def test_daemon_that_is_being_started(self):
        """The change waits for it, and is one in use."""
        process = self.start(self.out())
        open(self.path("slow"), "w", encoding="utf-8").close()
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        wait_for(lambda: self.daemon()["failures"] == 1, "its end")
        time.sleep(0.5)
        weir = subprocess.Popen(
            [WEIR, "detach", "--runtime-dir", self.runtime, "vm", "a"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertEqual(weir.stderr.readline(),
                         "weir: waiting: its storage daemon is being "
                         "started\n")
        os.unlink(self.path("slow"))
        output, errors = weir.communicate(timeout=GUARD_S)
        self.assertEqual((weir.returncode, errors), (0, ""))
        self.assertNotIn("away", output)
        self.finds(0, None)
        self.stop(process)

    def test_vm_that_has_ended(self):
        process = self.start(self.out())
        self.crash("weir-inspect")
        record = self.storage_record()
        with open(self.record_path(), encoding="utf-8") as file:
            vm = json.load(file)
        self.stop(process)
        self.assert_nothing_left()
        for name, what in (("vm.storage", record), ("vm.json", vm)):
            with open(os.path.join(self.runtime, name), "w",
                      encoding="utf-8") as file:
                json.dump(what, file)
        self.assertEqual(self.change("detach")[2], "weir: VM 'vm': it does "
                         "not run: its storage daemon has ended\n")


class DuringChange(AwayTest):
    """The daemon ends while a disk is changed."""

    def begin(self, disk, drivers, policy):
        """As if a change from the chain without those drivers had begun."""
        members = ("policy", "policy-version", "limits", "policy-digest",
                   "policy-dirs", "wanted")
        disk["change"] = {m: disk[m] for m in members}
        disk["wanted"] = [json.loads(json.dumps(w)) for w in disk["wanted"]
                          if w["driver"] not in drivers]
        for above, below in zip(disk["wanted"], disk["wanted"][1:]):
            above["options"]["file"] = below["node-name"]
        disk["policy"] = policy

    def test_undone(self):
        process = self.start(self.out(policy="around"))
        self.crash("weir-cache")
        self.edit(lambda disk: self.begin(disk, ["weir-cache"], "out"))
        self.wait_alive()
        disk = self.finds(5, "out", "weir-inspect")     # another digest
        self.assertNotIn("interrupted", disk["reason"])
        self.assertNotIn("change", self.storage_record()["disks"][0])
        self.assertEqual(newest(self.path("a.cache"))[FLAGS_AT] & STALE,
                         STALE)
        process.terminate()
        self.assertIn("weir: VM 'vm': disk a: its change to policy 'around' "
                      "had not ended, and is undone\n",
                      process.communicate(timeout=GUARD_S)[1])

    def test_filters_in_the_place_of_others(self):
        """Neither chain has all filters: it is the one from before."""
        process = self.start(self.out(policy="cache"))

        def act(disk):
            inspect = {"role": "filter", "driver": "weir-inspect",
                       "node-name": "old", "place": "storage",
                       "settings": {}, "options": {
                           "driver": "weir-inspect", "node-name": "old",
                           "file": "weir-a-storage"}}
            self.begin(disk, ["weir-cache"], "old")
            disk["wanted"].insert(1, inspect)
            disk["wanted"][0]["options"]["file"] = "old"
        self.crash("weir-cache")
        self.edit(act)
        self.wait_alive()
        self.assertEqual([n["node-name"] for n in
                          self.disk_status()[1]["actual"]],
                         ["weir-a-format", "old", "weir-a-storage"])
        self.stop(process)

    def test_cache_that_has_data_by_now(self):
        """Without it the guest would lose what it has written."""
        process = self.start(self.out(policy="back", device="none"))
        self.write_disk(b"x")
        os.kill(self.daemon()["supervisor"], signal.SIGSTOP)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        self.edit(lambda disk: self.begin(disk, ["weir-cache"], None))
        os.kill(self.daemon()["supervisor"], signal.SIGCONT)
        self.wait_restarts(1)
        self.finds(0, "back", "weir-cache")
        self.assert_disk(b"x")
        self.assertNotIn("change", self.storage_record()["disks"][0])
        self.stop(process)

    def new_plugin_with_sidecar(self, writes):
        """The daemon ends when a plugin that holds data has just come."""
        self.write("plugin.yaml", OUT % ("plugin", """
  - weir-plugin: {plugin: %s, sidecar: "create:1M:%s"}""" % (
            os.path.join(PLUGINS, "late.so"), self.path("a.sidecar"))))
        process = self.start(self.out(policy="plugin", device="none"))
        if writes:
            self.write_disk(b"x")
        os.kill(self.daemon()["supervisor"], signal.SIGSTOP)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        self.edit(lambda disk: self.begin(disk, ["weir-plugin"], None))
        os.kill(self.daemon()["supervisor"], signal.SIGCONT)
        self.wait_restarts(1)
        return process

    def test_plugin_that_holds_data_by_now(self):
        """It is in its sidecar, and nowhere else perhaps."""
        process = self.new_plugin_with_sidecar(True)
        self.finds(0, "plugin", "weir-plugin")
        self.assertNotIn("change", self.storage_record()["disks"][0])
        self.stop(process)

    def test_plugin_that_holds_nothing_so_far(self):
        process = self.new_plugin_with_sidecar(False)
        self.finds(0, None)
        self.stop(process)

    def test_two_changes_that_have_not_ended(self):
        """The cache has come with the first; the second was to take it away,
        and did not come so far."""
        process = self.start(self.out(policy="back", device="none"))
        self.write_disk(b"x")

        def act(disk):
            self.begin(disk, ["weir-cache"], None)
            disk["change"] = dict({m: disk[m] for m in disk["change"]},
                                  change=disk["change"])
        os.kill(self.daemon()["supervisor"], signal.SIGSTOP)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        self.edit(act)
        os.kill(self.daemon()["supervisor"], signal.SIGCONT)
        self.wait_restarts(1)
        self.finds(0, "back", "weir-cache")
        self.assert_disk(b"x")
        self.stop(process)

    def proxied(self, act, answer=None):
        proxy = Proxy(self, os.path.join(self.runtime, "vm.storage-qmp"))
        proxy.act = act
        proxy.answer = answer or proxy.answer
        path = os.path.join(self.runtime, "vm.storage")
        record = self.storage_record()
        record["qmp"] = proxy.path
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)

    def fails(self):
        pid = self.daemon()["pid"]
        code, _, errors = self.change("reapply", "--policy", "around")
        self.assertEqual(code, 1)
        self.assertIn("the storage daemon has ended, and comes back with what "
                      "the disk had before", errors)
        wait_for(lambda: self.daemon()["pid"] not in (0, pid),
                 "another daemon")
        self.finds(0, "out", "weir-inspect")
        self.assertNotIn("change", self.storage_record()["disks"][0])

    def test_killed_by_the_new_filter(self):
        process = self.start(self.out())

        def act(_count, command, _client):
            if command["execute"] == "weir-attach":
                os.kill(self.daemon()["pid"], signal.SIGABRT)
            return True
        self.proxied(act)
        self.fails()
        self.stop(process)

    def test_killed_by_the_new_plugin(self):
        """Whatever it is that it does."""
        self.plugin(PLAIN)
        process = self.start(self.out(device="none"))
        self.write_disk(b"a")
        self.mark()
        code, _, errors = self.change("reapply", "--policy", "plugin")
        self.assertEqual(code, 1, errors)
        self.wait_restarts(1)
        self.finds(0, "out", "weir-inspect")
        self.assertNotIn("change", self.storage_record()["disks"][0])
        self.assert_disk(b"a")
        os.unlink(self.path("mark"))
        self.assertEqual(self.change("reapply", "--policy", "plugin")[0], 0)
        self.finds(0, "plugin", "weir-plugin")
        self.stop(process)

    def test_plugin_that_others_attach(self):
        """It is not in the record, and so does not come back."""
        os.environ["WEIR_TEST_CRASH"] = PLUGIN
        self.addCleanup(os.environ.pop, "WEIR_TEST_CRASH")
        process = self.start(self.out())
        qmp = self.storage_qmp()
        with self.assertRaises((ValueError, OSError)):
            qmp.command("weir-attach", {
                "node-name": "weir-a-storage", "filter": {
                    "driver": "weir-plugin", "plugin": PLUGIN,
                    "node-name": "new", "file": "weir-a-storage"}})
        qmp.close()
        self.wait_restarts(1)
        self.assertIn("signal 6", self.daemon()["reason"])
        self.finds(0, "out", "weir-inspect")
        self.stop(process)

    def test_killed_right_after(self):
        """The record does not tell yet that the filter has come."""
        process = self.start(self.out())
        attached = []

        def act(_count, command, _client):
            attached.append(command["execute"] == "weir-attach")
            return True

        def answer(line):
            if any(attached) and b'"return"' in line and \
                    alive(self.daemon()["pid"]):
                attached.clear()
                os.kill(self.daemon()["pid"], signal.SIGABRT)
                wait_for(lambda: not alive(self.daemon()["pid"]) or
                         self.daemon()["restarts"], "its end")
            return line
        self.proxied(act, answer)
        self.fails()
        self.stop(process)

    def test_change_that_cannot_be_noted(self):
        """Then the disk is not bound to what it was to get."""
        process = self.start(self.out(policy="back", device="none"))
        self.write("other.yaml", OUT % ("other", """
  - weir-cache:
      cache-file: create:16M:%s""" % self.path("other.cache")))
        before = self.weir_ok("binding", "list", "--json")
        with open(os.path.join(self.runtime, "vm.storage-lock"),
                  encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code, _, errors = self.change("reapply", "--policy", "other")
        self.assertEqual(code, 1)
        self.assertIn("another process has", errors)
        self.assertEqual(self.weir_ok("binding", "list", "--json"), before)
        self.finds(0, "back", "weir-cache")
        self.stop(process)

    def test_dirty_cache_of_another_life(self):
        """It is refused before it is noted that it comes: later it would be
        taken for one that this disk has filled."""
        process = self.start(self.out(policy="back", device="none"))
        self.write_disk(b"x")
        os.kill(self.qemu_pid(), signal.SIGKILL)
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        process.wait()
        process = self.start(self.out("b"))
        self.write("back.yaml", OUT % ("back", """
  - weir-cache:
      mode: write-around
      cache-file: create:16M:%s""" % self.path("a.cache")))
        record = self.storage_record()
        code, _, errors = self.change("reapply", "--policy", "back", disk="b")
        self.assertEqual(code, 1)
        self.assertIn("attach weir-cache (node weir-b-cache) above node "
                      "weir-b-storage: the cache %s has blocks that were not "
                      "written back" % self.path("a.cache"), errors)
        self.assertEqual(self.storage_record(), record)
        self.stop(process)


class Secrets(AwayTest):
    def test_command_that_hangs(self):
        """It is killed with what it has started, and tried again."""
        script = self.path("key.sh")
        with open(script, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nif [ -e %s ]; then sleep 1000 & echo $! > "
                       "%s; wait; fi\nprintf 'open sesame'\n"
                       % (self.path("hang"), self.path("sleeper")))
        os.chmod(script, 0o755)
        self.encrypted("a.img")
        self.write("secret.yaml", OUT % ("secret", """
  - weir-encryption: {key-secret: "command:%s"}""" % script))
        process = self.start(self.out(policy="secret"),
                             env=dict(os.environ, WEIR_SECRET_TIMEOUT="1"))
        open(self.path("hang"), "w", encoding="utf-8").close()
        os.kill(self.daemon()["pid"], signal.SIGKILL)
        wait_for(lambda: "secret" in (self.daemon()["reason"] or ""),
                 "the reason")
        self.assertEqual(
            self.daemon()["reason"], "its storage daemon cannot be started: "
            "the command for secret weir-a-key-secret, %s: it has "
            "not ended within 1 s, and was killed" % script)
        with open(self.path("sleeper"), encoding="utf-8") as file:
            pid = int(file.read())
        os.unlink(self.path("hang"))
        self.assertFalse(alive(pid))
        self.wait_alive()
        self.finds(0, "secret", "weir-encryption")
        self.stop(process)


class Starts(AwayTest):
    """A daemon that takes long to open its disks is in nobody's way."""

    def setUp(self):
        super().setUp()
        open(self.path("slow"), "w", encoding="utf-8").close()
        self.slow = subprocess.Popen(
            [WEIR] + self.run_args(self.out("b"), name="slow")
            + self.QEMU_ARGS, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.stop, self.slow)
        wait_for(lambda: os.path.exists(
            os.path.join(self.runtime, "slow.storage-lock")), "its start")

    def test_others_start_and_end(self):
        process = self.start("file=%s,format=raw,id=a,policy=observe"
                             % self.disk())
        code, disks = self.status()
        self.assertEqual((code, {d["vm"]: d["state"] for d in disks}),
                         (4, {"slow": "unknown", "vm": "compliant"}))
        self.stop(process)
        self.weir_fails("weir: VM 'slow' is being started already; --name "
                        "gives another name",
                        *self.run_args(self.out("a"), name="slow"),
                        *self.QEMU_ARGS)
        # its daemon could not know yet that the other one comes
        self.weir_fails("weir: disk b: VM 'slow', which is being started, "
                        "writes to " + self.path("b.img"),
                        *self.run_args(self.out("b"), name="two"),
                        *self.QEMU_ARGS)
        os.unlink(self.path("slow"))
        wait_for(lambda: self.guest_runs("slow"), "the guest")
        self.assertNotIn("slow.start", os.listdir(self.runtime))
        self.stop(self.slow)
        self.assert_nothing_left()

    def test_weir_run_that_is_killed(self):
        self.slow.kill()
        self.slow.wait()
        os.unlink(self.path("slow"))
        sockets = os.open(os.path.join(self.runtime, "slow.disks"),
                          os.O_RDONLY)
        fcntl.flock(sockets, fcntl.LOCK_EX)     # the supervisor has ended
        os.close(sockets)
        process = self.start(self.out("b"), name="slow")
        self.stop(process)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
