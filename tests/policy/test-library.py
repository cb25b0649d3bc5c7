#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""libweir-policy as another program sees it: installed, with its man page."""
import ctypes
import json
import os
import re
import subprocess
import unittest

from common import OBSERVE, QEMU_BIN_DIR, ROOT, WeirTest, need

need("qemu-storage-daemon")
BUILD = os.path.dirname(os.path.dirname(
    os.environ.get("WEIR", os.path.join(ROOT, "build/weir/policy/weir"))))
DIRECTORY, CONFIGURATION, QEMU, EMULATOR = range(4)
DOMAIN = """<domain type='kvm'>
  <name>web</name>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/web.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


def shared():
    return os.path.join(BUILD, "policy/libweir-policy.so.0")


class Header(WeirTest):
    def example(self):
        """The program of the man page."""
        path = os.path.join(ROOT, "docs/man/weir-policy.3")
        with open(path, encoding="utf-8") as file:
            text = re.search(r"\.Bd -literal.*?\n(.*?)\.Ed", file.read(),
                             re.S)[1]
        return self.write("nodes.c", text.replace("\\e", "\\"))

    def test_example(self):
        self.write("observe.yaml", OBSERVE)
        program = self.path("nodes")
        for compiler, standard in (("c++", "c++11"), ("cc", "c99")):
            subprocess.run(
                [compiler, "-std=" + standard, "-pedantic", "-Wall", "-Werror",
                 "-x", "c++" if compiler == "c++" else "c",
                 "-I", os.path.join(ROOT, "policy"), self.example(), "-x",
                 "none", shared(), "-o", program], check=True)
        environment = dict(os.environ, PATH=QEMU_BIN_DIR,
                           LD_LIBRARY_PATH=os.path.dirname(shared()))
        disk = "file=/srv/web.img,format=raw,policy="
        output = subprocess.run(
            [program, self.policies, disk + "observe"], check=True,
            env=environment, stdout=subprocess.PIPE).stdout
        entry, = json.loads(output)["disks"]
        self.assertEqual([node["driver"] for node in entry["nodes"]],
                         ["file", "weir-inspect", "raw"])
        failed = subprocess.run(
            [program, self.policies, disk + "other"], check=False,
            env=environment, stderr=subprocess.PIPE, text=True)
        self.assertEqual(
            (failed.returncode, failed.stderr),
            (1, "there is no policy 'other' in %s (there is observe)\n"
             % self.policies))

    def test_only_its_interface_is_visible(self):
        names = subprocess.run(
            ["nm", "--dynamic", "--defined-only", "--format=just-symbols",
             shared()], check=True, stdout=subprocess.PIPE,
            text=True).stdout.split()
        with open(os.path.join(ROOT, "policy/weir-policy.h"),
                  encoding="utf-8") as file:
            declared = set(re.findall(r"\b(weir_policies_\w+)\(",
                                      re.sub(r"/\*.*?\*/", "", file.read(),
                                             flags=re.S)))
        self.assertEqual({name.split("@")[0] for name in names},
                         declared | {"WEIR_POLICY_0"})


class Functions(WeirTest):
    """What each gives, and says when it cannot."""

    def setUp(self):
        super().setUp()
        self.library = ctypes.CDLL(shared())
        for name in ("new", "version"):
            getattr(self.library, "weir_policies_" + name).restype = \
                ctypes.c_void_p
        self.object = ctypes.c_void_p(self.library.weir_policies_new())
        self.addCleanup(self.library.weir_policies_free, self.object)
        self.set(DIRECTORY, self.policies)
        self.set(QEMU, QEMU_BIN_DIR)
        self.set(CONFIGURATION, self.dir)
        self.write("observe.yaml", OBSERVE)

    def set(self, place, path):
        self.library.weir_policies_set(self.object, place, path.encode())

    def take(self, text):
        value = ctypes.string_at(text).decode() if text.value else None
        self.library.weir_policies_free_text(text)
        return value

    def call(self, name, *args, results=1):
        """(code, text of each result, error)"""
        texts = [ctypes.c_void_p() for _ in range(results + 1)]
        code = getattr(self.library, "weir_policies_" + name)(
            self.object, *args, *(ctypes.byref(text) for text in texts))
        return (code, *(self.take(text) for text in texts))

    def compile(self, vm, *disks):
        array = (ctypes.c_char_p * (len(disks) + 1))(
            *(disk.encode() for disk in disks), None)
        return self.call("compile", vm.encode(), array)

    def test_version(self):
        text = ctypes.string_at(self.library.weir_policies_version())
        self.assertRegex(text.decode(), r"^\d+\.\d+\.\d+$")

    def test_check(self):
        path = os.path.join(self.policies, "observe.yaml")
        self.assertEqual(self.call("check", path.encode(), results=0),
                         (0, None))
        path = self.write("bad.yaml", OBSERVE.replace("entropy-window",
                                                      "window"))
        code, error = self.call("check", path.encode(), results=0)
        self.assertEqual(code, -1)
        self.assertRegex(error, "^" + re.escape(path) + r":\d+:\d+: ")
        self.assertEqual(self.library.weir_policies_check(
            self.object, path.encode(), None), -1)

    def test_schema(self):
        code, text, error = self.call("schema")
        self.assertEqual((code, error), (0, None))
        self.assertIn("entropy-window", text)
        self.set(QEMU, "/nonexistent")
        code, text, error = self.call("schema")
        self.assertEqual((code, text), (-1, None))
        self.assertIn("/nonexistent", error)

    def test_choose(self):
        def choose(vm):
            return self.call("choose", vm.encode(), b"disk0", results=2)

        self.assertEqual(choose("web")[:2], (0, None))
        with open(self.path("weir.yaml"), "w", encoding="utf-8") as file:
            file.write("default-policy: observe\n")
        code, policy, reason, error = choose("web")
        self.assertEqual((code, policy, error), (0, "observe", None))
        self.assertIn("weir.yaml", reason)
        code, policy, _, error = choose("../web")
        self.assertEqual((code, policy), (-1, None))
        self.assertIn("'../web'", error)

    def test_compile(self):
        self.write("safe.yaml", """name: safe
filters:
  - weir-encryption: {key-secret: 'file:/etc/key'}
""")
        code, text, error = self.compile(
            "web", "file=/a,format=raw,policy=safe",
            "file=/b,format=raw,policy=observe")
        self.assertEqual((code, error), (0, None))
        result = json.loads(text)
        self.assertEqual([(d["id"], d["policy"]) for d in result["disks"]],
                         [("disk0", "safe"), ("disk1", "observe")])
        self.assertEqual(result["secrets"], [
            {"id": "weir-disk0-key-secret", "from": "file",
             "value": "/etc/key"}])
        # whichever process has the disk needs it
        self.write("out.yaml", """name: out
run: out-of-process
filters:
  - weir-encryption: {key-secret: 'file:/etc/key'}
""")
        self.assertEqual(json.loads(self.compile(
            "web", "file=/a,format=raw,policy=out")[1])["secrets"],
            result["secrets"])
        for args, message in (
                (("web",), "found no disk"), (("a/b", "x"), "'a/b'"),
                (("web", "file=/a,format=raw"), "no policy"),
                (("web", "file=/a,format=raw,policy=observe",
                  "file=/a,format=raw,policy=observe"), "the same file")):
            code, text, error = self.compile(*args)
            self.assertEqual((code, text), (-1, None))
            self.assertIn(message, error)

    def test_domain(self):
        def transform(xml, policy):
            return self.call("transform", xml, ctypes.c_size_t(len(xml)),
                             policy)

        self.set(EMULATOR, "/usr/bin/weir-qemu")
        xml = DOMAIN.encode()
        code, text, error = transform(xml, b"observe")
        self.assertEqual((code, error), (0, None))
        self.assertIn("/usr/bin/weir-qemu", text)
        changed = text.encode()
        self.assertEqual(
            self.call("take_back", changed, ctypes.c_size_t(len(changed))),
            (0, DOMAIN, None))
        self.assertEqual(transform(xml, None), (0, DOMAIN, None))
        code, text, error = transform(xml[:-20], b"observe")
        self.assertEqual((code, text), (-1, None))
        self.assertTrue(error)
        self.set(EMULATOR, "/usr/bin/other")
        self.assertIn("'/usr/bin/other'", transform(xml, b"observe")[2])


if __name__ == "__main__":
    unittest.main(verbosity=2)
