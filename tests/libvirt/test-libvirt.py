#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of a real libvirt under policies, through what libvirt does with them.
"""
import os

from libvirttest import LibvirtTest, main, qemu_io, qmp, virsh

VDA = ["raw", "weir-inspect", "file"]
DEVICE = "virtio-disk0"


class Chains(LibvirtTest):
    def test_start(self):
        self.start(("vda", "virtio", self.image("start.img"), "raw"))
        self.assertEqual(self.drivers(), VDA)
        names = [name for name, _ in self.chain()]
        self.assertEqual(names, ["libvirt-1-format", "libvirt-1-storage",
                                 "weir-vda-storage"])


if __name__ == "__main__":
    main()
