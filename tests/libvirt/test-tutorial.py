#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/tutorial.md: all its commands, in order, as they stand there, and what
it says that they print.

What is not the page's is where it runs: a libvirtd of the test's own, which
systemctl starts anew; the build as /usr/local; and instead of a guest system
somebody who heeds the power button.
"""
import os
import subprocess
import sys
import time

from libvirttest import (BIN, BUILD, GUARD_S, LibvirtTest, ROOT, main,
                         mount, qmp, virsh)

sys.path.insert(0, os.path.join(ROOT, "tests/qemu"))
from page import line_missing, steps  # noqa: E402

PAGE = os.path.join(ROOT, "docs/tutorial.md")
IMAGE = "/var/lib/libvirt/images/web.qcow2"
TOOLS = "/run/scratch/tools"
SYSTEMCTL = """#!/bin/sh -e
[ "$*" = "restart libvirtd" ]
kill $(cat /run/libvirtd.pid)
while [ -e /run/libvirtd.pid ]; do sleep 0.05; done
/usr/sbin/libvirtd -d
until virsh -q list > /dev/null 2>&1; do sleep 0.05; done
"""


class PowerButton:
    """Ends the domain when its power button is pressed, as a guest would."""

    def __init__(self, name, log):
        self.name = name
        self.log = log
        with open(log, "wb") as file:
            self.listener = subprocess.Popen(
                ["virsh", "qemu-monitor-event", "--loop", name],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        # events tell when it listens
        while not self.heard("RESUME"):
            qmp(name, "stop")
            qmp(name, "cont")
            time.sleep(0.05)

    def heard(self, event):
        with open(self.log, encoding="utf-8") as file:
            return event in file.read()

    def wait_and_end(self, process):
        """While @process, the page's, waits for that."""
        while not self.heard("POWERDOWN") and process.poll() is None:
            time.sleep(0.02)
        if process.poll() is None:
            # it may be gone before it has answered
            virsh("qemu-monitor-command", self.name, '{"execute": "quit"}',
                  check=False)
        self.listener.terminate()
        self.listener.wait()


class Tutorial(LibvirtTest):
    @classmethod
    def install_hook(cls):
        """The page does that."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        mount("--bind", BUILD, "/usr/local")
        os.mkdir(TOOLS)
        with open(os.path.join(TOOLS, "systemctl"), "w",
                  encoding="utf-8") as file:
            file.write(SYSTEMCTL)
        os.chmod(os.path.join(TOOLS, "systemctl"), 0o755)
        for name in "observe", "cached":
            os.unlink("/etc/weir/policies.d/%s.yaml" % name)

    def run_step(self, commands):
        button = (PowerButton("web", self.path("events"))
                  if "virsh shutdown" in commands else None)
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=self.dir,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "LIBVIRT_DEFAULT_URI":
                 "qemu:///system", "PATH": TOOLS + ":/usr/local/bin:" +
                 os.environ["PATH"]})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if button:
            button.wait_and_end(process)
        output, _ = process.communicate(timeout=GUARD_S)
        self.assertEqual(process.returncode, 0, commands + output)
        return output

    def test_web(self):
        os.makedirs(os.path.dirname(IMAGE))
        xml = self.xml(("vda", "virtio", self.image(IMAGE, qcow2=True),
                        "qcow2")).replace(BIN, "/usr/local/bin")
        with open(self.path("web.xml"), "w", encoding="utf-8") as file:
            file.write(xml)
        virsh("define", file.name)
        virsh("start", "web")
        for found in steps(PAGE).values():
            for step in found:
                printed = self.run_step(step.commands)
                self.assertIsNone(line_missing(step, printed),
                                  step.commands + printed)
        # what has been asked is kept, where it is kept by default; not while
        # /etc/ld.so.cache, which is a copy here, is new
        end = time.monotonic() + GUARD_S
        while (not os.path.exists("/var/cache/weir") and
               time.monotonic() < end):
            self.run_step("weir policy check /etc/weir/policies.d/fast.yaml")
        [kept] = os.listdir("/var/cache/weir")
        self.assertEqual(os.stat("/var/cache/weir/" + kept).st_mode & 0o777,
                         0o600)


if __name__ == "__main__":
    main()
