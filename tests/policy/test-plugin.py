#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir plugin, and plugins in policies, with the real storage daemon."""
import json
import os
import shutil
import subprocess
import unittest

import common

PLUGINS = os.path.join(os.environ["WEIR_MESON_BUILD"], "tests", "plugins")
PROBE = os.path.join(PLUGINS, "probe.so")

POLICY = """name: limited
filters:
  - weir-plugin:
      plugin: %s
      on-error: fail
      options: %s
"""


class PluginTest(common.WeirTest):
    def setUp(self):
        super().setUp()
        common.need("qemu-storage-daemon")
        self.folder = self.path("plugins")
        os.mkdir(self.folder)
        shutil.copy(PROBE, self.folder)

    def weir(self, *args, **env):
        return super().weir(*args, WEIR_PLUGIN_PATH=self.folder, **env)

    def plugin(self, *args):
        return self.weir("plugin", *args, "--qemu-bin-dir",
                         common.QEMU_BIN_DIR)


class Plugin(PluginTest):
    def test_list_runs_nothing(self):
        # what runs code when it is loaded
        mark = self.path("ran")
        source = self.write("evil.c", "#include <stdio.h>\n"
                            "__attribute__((constructor)) void f(void) "
                            "{ fclose(fopen(\"%s\", \"w\")); }\n" % mark)
        evil = os.path.join(self.folder, "evil.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", evil, source],
                       check=True)
        with open(os.path.join(self.folder, "text.so"), "w") as file:
            file.write("not a shared object")
        code, out, err = self.plugin("list")
        self.assertEqual((code, err), (0, ""))
        rows = [line.split(None, 3) for line in out.splitlines()]
        self.assertEqual([row[0] for row in rows],
                         ["NAME", "evil", "probe", "text"])
        self.assertEqual(rows[1][3], "refused: it is not a plugin of Weir")
        self.assertEqual(rows[2][1:], ["1", os.path.join(self.folder,
                                                         "probe.so"), "ok"])
        self.assertEqual(self.plugin("check", evil)[0], 1)
        self.assertFalse(os.path.exists(mark))
        code, out, _ = self.plugin("list", "--json")
        self.assertEqual([f["name"] for f in json.loads(out)],
                         ["evil", "probe", "text"])

    def test_info(self):
        code, out, err = self.plugin("info", "probe")
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"(?m)^class +inspection$")
        self.assertRegex(out, r"(?m)^capabilities +may be bypassed$")
        self.assertRegex(out, r"(?m)^hold-ms +int 0\.\.10000 ms +- +yes ")
        code, out, _ = self.plugin("info", "--json", PROBE)
        self.assertEqual(json.loads(out)["path"], PROBE)
        self.assertEqual(self.plugin("info")[0], 2)

    def test_check(self):
        self.assertEqual(self.plugin("check", "probe", PROBE), (0, "", ""))
        code, _, err = self.plugin("check", "probe", "none",
                                   os.path.join(PLUGINS, "bad-name.so"))
        self.assertEqual(code, 1)
        self.assertEqual(err.splitlines(), [
            "weir: weir-plugin: no plugin 'none' in %s" % self.folder,
            "weir: weir-plugin: '%s/bad-name.so' is refused: it is called "
            "'good', not as its file" % PLUGINS])

    def policy(self, options, plugin="probe"):
        path = self.write("limited.yaml", POLICY % (plugin, options))
        return self.weir("policy", "check", path, "--qemu-bin-dir",
                         common.QEMU_BIN_DIR)

    def test_policies(self):
        self.assertEqual(self.policy("{mode: forward, hold-ms: 5}"),
                         (0, "", ""))
        for options, text in {
                "{hold-ms: 50000}": "option 'hold-ms' is 50000, it has to be "
                                    "0 to 10000 ms",
                "{held: 1}": "there is no option 'held', expected one of: "
                             "mode, ",
                "[1]": "found a list, expected a mapping for "
                       "'weir-plugin.options'",
                "{mode: [x]}": "found a list, expected a single value for "
                               "'weir-plugin.options'"}.items():
            code, _, err = self.policy(options)
            self.assertEqual(code, 1)
            self.assertIn(text, err)
        # it is another file now: what was accepted is asked again
        self.assertEqual(self.policy("{label: x}"), (0, "", ""))
        shutil.copy(os.path.join(PLUGINS, "mask.so"), self.folder)
        self.assertIn("there is no option 'label'", self.policy(
            "{label: x}", "mask")[2])

    def test_order(self):
        """What a plugin is for is known only from the plugin."""
        shutil.copy(os.path.join(PLUGINS, "mask.so"), self.folder)
        filters = "  - weir-inspect:\n  - weir-plugin: {plugin: %s}\n"
        for plugin, head, text in (
                ("mask", "", "5:5: found 'weir-inspect' above "
                 "'weir-plugin:mask', where it sees what is not encrypted"),
                ("mask", "allow-before-encryption: true\n", None),
                ("probe", "", "6:5: found filter 'weir-plugin:probe', "
                 "expected one of class inspection per disk ('weir-inspect' "
                 "is on line 5)")):
            path = self.write("p.yaml", "name: p\n%sfilters:\n%s" % (
                head or "# a plugin\ndescription: x\n", filters % plugin))
            code, _, err = self.weir("policy", "check", path, "--qemu-bin-dir",
                                     common.QEMU_BIN_DIR)
            self.assertEqual((code, err) if not text else text in err,
                             (0, "") if not text else True, err)

    def test_compiled(self):
        path = self.write("limited.yaml", POLICY % ("probe",
                                                    "{mode: forward}"))
        code, out, err = self.weir(
            "compile", "--policies", os.path.dirname(path), "--qemu-bin-dir",
            common.QEMU_BIN_DIR, "--disk",
            "id=d,file=%s,format=raw,policy=limited" % self.disk())
        self.assertEqual((code, err), (0, ""))
        node = json.loads(out.splitlines()[1])
        self.assertEqual((node["driver"], node["plugin"], node["options"]),
                         ("weir-plugin", "probe", {"mode": "forward"}))
        self.assertEqual(node["node-name"], "weir-d-plugin-probe")


class SeveralTest(PluginTest):
    def setUp(self):
        super().setUp()
        for name in ("passing", "empty", "mask", "worker"):
            shutil.copy(os.path.join(PLUGINS, name + ".so"), self.folder)

    def nodes(self, name, *keys):
        out = self.weir_ok("compile", "--policies", self.policies,
                           "--disk", "id=d,file=%s,format=raw,policy=%s"
                           % (self.disk(), name), "--qemu-bin-dir",
                           common.QEMU_BIN_DIR)
        return [tuple(node.get(key) for key in ("node-name",) + keys)
                for node in map(json.loads, out.splitlines())]

    def weir_ok(self, *args, **env):
        code, out, err = self.weir(*args, **env)
        self.assertEqual((code, err), (0, ""), out)
        return out

    def refused(self, text, message, name="p"):
        path = self.write(name + ".yaml", text)
        code, _, err = self.weir("policy", "check", path, "--qemu-bin-dir",
                                 common.QEMU_BIN_DIR)
        self.assertEqual(code, 1)
        self.assertIn(message, err)


class Several(SeveralTest):
    """A disk may have several plugins, but none twice."""

    def test_names(self):
        self.write("p.yaml", """name: p
filters:
  - weir-plugin: {plugin: probe}
    place: disk
  - weir-plugin: {plugin: passing}
  - weir-plugin: {plugin: %s/worker.so, sidecar: 'create:1M:%s/side'}
""" % (self.folder, self.dir))
        self.assertEqual(self.nodes("p", "file"), [
            ("weir-d-storage", None),
            ("weir-d-plugin-worker", "weir-d-storage"),
            ("weir-d-plugin-passing", "weir-d-plugin-worker"),
            ("weir-d-format", "weir-d-plugin-passing"),
            ("weir-d-plugin-probe", "weir-d-format")])
        sidecar = self.nodes("p", "sidecar")[1][1]
        self.assertEqual(sidecar["node-name"], "weir-d-plugin-worker-sidecar")

    def test_twice(self):
        for again in ("probe", PROBE):
            self.refused("name: p\nfilters:\n"
                         "  - weir-plugin: {plugin: probe}\n"
                         "  - weir-plugin: {plugin: %s}\n    place: disk\n"
                         % again,
                         "4:5: found filter 'weir-plugin:probe' again, "
                         "expected it once per disk (it is on line 3)")
        self.refused("name: p\nfilters:\n  - weir-plugin: {plugin: 'x${vm}'}"
                     "\n", "3:27: found 'x${vm}' for 'plugin', expected the "
                     "name or path of a plugin, without variables")

    def test_inherited(self):
        self.write("base.yaml", """name: base
filters:
  - weir-plugin:
      plugin: probe
      deadline: 100
      options: {mode: forward, hold-ms: 5}
  - weir-plugin: {plugin: passing}
""")
        self.write("other.yaml", """name: other
inherit: base
remove: ['weir-plugin:passing']
filters:
  - weir-plugin: {plugin: probe, options: {hold-ms: 6}}
  - weir-plugin: {plugin: empty}
""")
        self.assertEqual(
            self.nodes("other", "plugin", "options", "deadline")[1:-1], [
                ("weir-d-plugin-empty", "empty", None, None),
                ("weir-d-plugin-probe", "probe",
                 {"mode": "forward", "hold-ms": "6"}, 100)])
        # the one that there is need not be called by its name
        self.write("one.yaml", """name: one
inherit: other
remove: ['weir-plugin:empty']
filters: []
""")
        self.write("changed.yaml", """name: changed
inherit: one
filters:
  - weir-plugin: {options: {hold-ms: 7}}
""")
        self.assertEqual(self.nodes("changed", "options")[1][1]["hold-ms"],
                         "7")
        self.write("none.yaml", """name: none
inherit: one
remove: [weir-plugin]
""")
        self.assertEqual(len(self.nodes("none")), 2)
        self.refused("name: p\ninherit: base\nremove: [weir-plugin]\n",
                     "3:10: found 'weir-plugin', expected "
                     "'weir-plugin:NAME', as there are several plugins")
        self.refused("name: p\ninherit: base\nremove: "
                     "['weir-plugin:mask']\n", "3:10: found "
                     "'weir-plugin:mask', expected a filter that is inherited")
        self.refused("name: p\ninherit: base\nfilters:\n  - weir-plugin: "
                     "{deadline: 1}\n", "4:5: found 'weir-plugin' without "
                     "'plugin', expected it, as there are several plugins")

    def test_inherited_order(self):
        """By what each is for, as with other filters."""
        self.write("base.yaml", "name: base\nfilters:\n  - weir-plugin: "
                   "{plugin: passing}\n")
        self.write("p.yaml", "name: p\ninherit: base\nfilters:\n"
                   "  - weir-plugin: {plugin: mask}\n")
        self.assertEqual([n[0] for n in self.nodes("p")],
                         ["weir-d-storage", "weir-d-plugin-passing",
                          "weir-d-plugin-mask", "weir-d-format"])

    def diff(self, before, after):
        for name, text in (("a", before), ("b", after)):
            self.write(name + ".yaml", "name: %s\nfilters:\n%s"
                       % (name, text))
        code, out, err = self.weir(
            "policy", "diff", "--policies", self.policies, "--json",
            "--qemu-bin-dir", common.QEMU_BIN_DIR, "a", "b")
        self.assertEqual(err, "")
        return [(d["filter"], d["what"], d["before"], d["after"], d["how"])
                for d in json.loads(out)]

    def test_diff(self):
        plugin = "  - weir-plugin: {plugin: %s, options: {%s}}\n"
        self.assertEqual(
            self.diff(plugin % ("probe", "mode: forward, hold-ms: 5, room: 1M"),
                      plugin % ("probe", "hold-ms: 6, room: 1024K, label: x")
                      + plugin % ("passing", "")),
            [("weir-plugin:probe", "options.hold-ms", "5", "6", "reopen"),
             ("weir-plugin:probe", "options.label", None, "x", "reattach"),
             ("weir-plugin:probe", "options.mode", "forward", None, "reopen"),
             ("weir-plugin:probe", "options.room", "1M", "1024K", "nothing"),
             ("weir-plugin:passing", None, None, "storage", "attach")])
        mask = "  - weir-plugin: {plugin: mask, deadline: %d}\n"
        self.assertEqual(
            self.diff(mask % 1 + plugin % ("passing", ""),
                      mask % 2 + plugin % ("empty", "")), [
                ("weir-plugin:mask", "deadline", 1, 2, "reopen"),
                ("weir-plugin:empty", None, None, "storage", "attach"),
                ("weir-plugin:passing", None, "storage", None, "detach")])
        self.assertEqual(
            self.diff(mask % 1, plugin % ("empty", "")), [
                ("weir-plugin:empty", None, None, "storage", "attach"),
                ("weir-plugin:mask", None, "storage", None, "not")])


class Schema(SeveralTest):
    """The JSON schema knows the options of the plugins that there are."""

    def setUp(self):
        super().setUp()
        try:
            import jsonschema
        except ImportError as error:
            self.skipTest(str(error))
        schema = json.loads(self.weir_ok("policy", "schema", "--qemu-bin-dir",
                                         common.QEMU_BIN_DIR))
        jsonschema.Draft202012Validator.check_schema(schema)
        self.schema = schema
        self.validator = jsonschema.Draft202012Validator(schema)

    def valid(self, *plugins, **more):
        return self.validator.is_valid(dict({"name": "p", "filters": [
            {"weir-plugin": plugin} for plugin in plugins]}, **more))

    def test_options(self):
        for options, good in (
                ({"mode": "forward", "hold-ms": 5, "quick": True}, True),
                ({"mode": "back"}, False), ({"hold-ms": 10001}, False),
                ({"hold-ms": "12"}, True), ({"hold-ms": "x"}, False),
                ({"hold-ms": -1}, False), ({"quick": "on"}, True),
                ({"quick": "yes"}, False), ({"room": "64K"}, True),
                ({"room": 100}, False), ({"room": "64X"}, False),
                ({"label": "${vm}"}, True), ({"label": "${vmm}"}, False),
                ({"other": 1}, False), ({"mode": "${disk}"}, True)):
            self.assertEqual(self.valid({"plugin": "probe",
                                         "options": options}), good, options)
        # of those that are not there, nothing is known
        self.assertTrue(self.valid({"plugin": "none", "options": {"x": 1}}))
        self.assertTrue(self.valid({"plugin": "/x/probe.so",
                                    "options": {"x": 1}}))
        self.assertFalse(self.valid({"options": {"mode": "forward"}}))
        self.assertFalse(self.valid({"plugin": "a${vm}"}))

    def test_needs(self):
        worker = {"plugin": "worker"}
        self.assertFalse(self.valid(worker))
        self.assertTrue(self.valid(dict(worker, sidecar="/s")))
        self.assertTrue(self.validator.is_valid(
            {"name": "p", "inherit": "b", "remove": ["weir-plugin:probe"],
             "filters": [{"weir-plugin": worker}]}))
        self.assertFalse(self.validator.is_valid(
            {"name": "p", "inherit": "b", "remove": ["weir-inspect:x"]}))

    def test_together(self):
        self.assertTrue(self.valid({"plugin": "probe"}, {"plugin": "passing"}))
        self.assertFalse(self.valid({"plugin": "probe"}, {"plugin": "probe"}))
        self.assertFalse(self.validator.is_valid({"name": "p", "filters": [
            {"weir-inspect": None}, {"weir-plugin": {"plugin": "probe"}}]}))
        self.assertTrue(self.validator.is_valid({"name": "p", "filters": [
            {"weir-inspect": None}, {"weir-plugin": {"plugin": "empty"}}]}))

    def test_what_editors_show(self):
        plugin = self.schema["properties"]["filters"]["items"]["properties"][
            "weir-plugin"]
        self.assertEqual(plugin["properties"]["plugin"]["anyOf"][0]["enum"],
                         ["empty", "mask", "passing", "probe", "worker"])
        own = [c["then"]["properties"]["options"] for c in plugin["allOf"]
               if c["if"]["properties"]["plugin"]["const"] == "probe"][0]
        self.assertEqual(own["description"], "counts requests")
        hold, label = (own["properties"][k] for k in ("hold-ms", "label"))
        self.assertEqual(hold["description"],
                         "for how long they are held; 0: for ever (ms)")
        self.assertEqual(hold["anyOf"][0], {"type": "integer", "minimum": 0,
                                            "maximum": 10000})
        self.assertEqual(label["description"],
                         "anything; cannot be changed at run time")
        self.assertEqual(own["properties"]["mode"]["default"], "pass")
        self.assertIs(own["properties"]["quick"]["default"], True)


if __name__ == "__main__":
    unittest.main()
