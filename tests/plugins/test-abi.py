#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a plugin that was built for version 1 fits the interface of now.

v1/ has the header as it was then, and what libabigail has recorded of it.  To
record it (only ever for a new version), in this folder: cc -g -shared -fPIC
-Iv1 -o abi.so v1/abi.c; abidw --no-corpus-path --no-comp-dir-path
--no-show-locs abi.so
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.environ["WEIR_SOURCE"]
BIN = os.path.join(os.environ["WEIR_BUILD"], "bin")
NOW = os.path.join(SOURCE, "filters/plugin")
V1 = os.path.join(SOURCE, "tests/plugins/v1")
RECORD = os.path.join(V1, "weir-plugin.abi")
EXAMPLES = os.path.join(SOURCE, "docs/examples/plugins")
PATIENCE_S = 120        # against hanging, not a criterion

# What abidiff says of a struct that has got more members at its end.
HARMLESS = re.compile(
    r"Leaf changes summary: .*|Changed leaf types summary: .*|"
    r"Removed/Changed/Added (functions|variables) summary: 0 Removed, "
    r"0 Changed, 0 Added (function|variable)|"
    r"'struct \w+' changed:|  type size changed from \d+ to \d+ \(in bits\)|"
    r"  \d+ data member insertions?:|    '.*', at offset \d+ \(in bits\).*|")

# Each of these is a change that plugins do not survive.
WRONG = {
    "a member before others": (
        "    int (*load)(", "    void (*more)(void);\n    int (*load)("),
    "another type": (
        "    uint32_t capabilities;", "    uint64_t capabilities;"),
    "a member less": ("    void (*unload)(void);\n", ""),
    "another parameter": ("void (*close)(void *handle, WeirPluginIo *io);",
                          "void (*close)(void *handle);"),
    "calls that move": (
        "    int (*length)(", "    void (*more)(void);\n    int (*length)("),
}


def constants(text):
    """The names of the header that stand for a number."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return re.findall(r"\b(WEIR_PLUGIN_[A-Z0-9_]+) =", text)


class Abi(unittest.TestCase):
    def setUp(self):
        # pylint: disable=consider-using-with
        folder = tempfile.TemporaryDirectory(prefix="weir-test-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def build(self, include, source, name, *args):
        path = os.path.join(self.folder, name)
        subprocess.run(["cc", "-g", "-I", include, *args, "-o", path, source],
                       check=True, timeout=PATIENCE_S)
        return path

    def header(self, old, new):
        """A folder with a header of now that is changed."""
        with open(os.path.join(NOW, "weir-plugin.h"),
                  encoding="utf-8") as file:
            text = file.read()
        self.assertIn(old, text)
        with open(os.path.join(self.folder, "weir-plugin.h"), "w",
                  encoding="utf-8") as file:
            file.write(text.replace(old, new, 1))
        return self.folder

    def changes(self, include):
        """Lines that tell what does not fit the record."""
        plugin = self.build(include, os.path.join(V1, "abi.c"), "abi.so",
                            "-shared", "-fPIC", "-w")
        result = subprocess.run(
            ["abidiff", "--leaf-changes-only", RECORD, plugin],
            stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
            check=False)
        self.assertIn(result.returncode, (0, 4, 12), result.stdout)
        return [line for line in result.stdout.splitlines()
                if not HARMLESS.fullmatch(line)]

    def test_interface(self):
        self.assertEqual(self.changes(NOW), [])

    def test_interface_that_grows(self):
        self.assertEqual(self.changes(self.header(
            "} WeirPlugin;", "    void (*more)(void *handle);\n} WeirPlugin;"
        )), [])

    def test_interface_that_changes(self):
        for what, (old, new) in WRONG.items():
            with self.subTest(what):
                self.assertNotEqual(self.changes(self.header(old, new)), [])

    def values(self, include):
        with open(os.path.join(V1, "weir-plugin.h"), encoding="utf-8") as file:
            names = constants(file.read())
        self.assertGreater(len(names), 50)
        source = os.path.join(self.folder, "values.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write("#include <weir-plugin.h>\nint main(void)\n{\n%s}\n"
                       % "".join('    printf("%s %%lld\\n", (long long)%s);\n'
                                 % (name, name) for name in names))
        return subprocess.run(
            [self.build(include, source, "values", "-w")], check=True,
            stdout=subprocess.PIPE, timeout=PATIENCE_S).stdout

    def test_constants(self):
        self.assertEqual(self.values(NOW), self.values(V1))

    def test_plugin_of_version_1(self):
        """It changes data and is of use."""
        plugin = self.build(V1, os.path.join(EXAMPLES, "xor.c"), "xor.so",
                            "-shared", "-fPIC")
        disk = os.path.join(self.folder, "disk")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        output = subprocess.run(
            [os.path.join(BIN, "qemu-io"), "-c", "write -P 7 64k 64k", "-c",
             "read -P 7 64k 64k", "--image-opts",
             "driver=weir-plugin,plugin=%s,file.filename=%s" % (plugin, disk)],
            check=True, stdout=subprocess.PIPE, text=True,
            timeout=PATIENCE_S).stdout
        self.assertNotIn("failed", output)
        with open(disk, "rb") as file:
            file.seek(64 << 10)
            self.assertNotIn(b"\7" * 512, file.read(64 << 10))


if __name__ == "__main__":
    if not shutil.which("abidiff"):
        print("SKIP: abidiff is not installed")
        sys.exit(77)
    unittest.main(verbosity=2)
