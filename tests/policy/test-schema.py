#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The JSON schema takes what weir takes, and nothing else that it can tell.

Every policy that the other tests try is tried here too, by a validator that
is not ours.
"""
import importlib
import io
import json
import os
import re
import sys
import unittest

import common

try:
    import jsonschema
    import yaml
except ImportError as error:
    common.skip(str(error))

# What one file alone, or its form, does not tell.
BEYOND = re.compile("|".join([
    " refuses its options: ",               # a driver
    "in the file's name$", "in a file of another name",
    "expected a plain value$",              # anchors and tags
    "found a second document", "found 1048577 bytes",
    "found more than 32 levels", "found more than 10000 values",
    "found more than .* levels of policies", "found a circle of policies",
    "; asked for by ", "which is not a (policy|component)",
    "found 'weir-[a-z]*' above ",           # order
    "expected a place of its own",
    "found '010', expected an integer",     # what YAML makes of them
    "found 'True', expected true or false",
    "expected a filter that is inherited",
    "has nothing to compare with it",       # limits
    "found '8785h'",                        # more than a year
]))


class Yaml12(yaml.SafeLoader):
    """What YAML 1.2 makes of a text, as editors do."""
    yaml_implicit_resolvers = {}

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        if len(set(map(str, keys))) < len(keys):
            raise yaml.YAMLError("a key twice")
        return super().construct_mapping(node, deep)


for tag, form, first in (
        ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
         r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+0123456789."),
        ("null", "~|null|Null|NULL|", ["~", "n", "N", ""])):
    Yaml12.add_implicit_resolver("tag:yaml.org,2002:" + tag,
                                 re.compile("^(?:%s)$" % form), list(first))


def load(text):
    return yaml.load(text, Yaml12)


tried = []


def record_check(test, *files, **env):
    result = ORIGINAL(test, *files, **env)
    if not env and len(files) == 1 and os.path.isfile(files[0]):
        with open(files[0], "rb") as file:
            tried.append((file.read(), result[0], [
                line if line.startswith(files[0]) else "; asked for by "
                for line in result[2].splitlines()]))
    return result


def record_compile(test, *args, **env):
    """What can be compiled is right."""
    result = ORIGINAL_WEIR(test, *args, **env)
    if args[:1] == ("compile",) and result[0] == 0 and "--policy" in args:
        name = os.path.join(test.policies,
                            args[args.index("--policy") + 1] + ".yaml")
        if os.path.exists(name):
            with open(name, "rb") as file:
                tried.append((file.read(), 0, []))
    return result


ORIGINAL = common.FakeTest.check
ORIGINAL_WEIR = common.FakeTest.weir


def try_policies():
    """Have the other tests add to @tried: (text, exit code, messages).

    A message about another file is one about what was asked for.
    """
    common.FakeTest.check = record_check
    common.FakeTest.weir = record_compile
    sys.path.insert(0, common.HERE)
    for name in ("test-policy-errors", "test-policy-values", "test-inherit"):
        suite = unittest.defaultTestLoader.loadTestsFromModule(
            importlib.import_module(name))
        output = io.StringIO()
        if not unittest.TextTestRunner(output).run(suite).wasSuccessful():
            raise AssertionError(name + " fails: " + output.getvalue())
    common.FakeTest.check = ORIGINAL
    common.FakeTest.weir = ORIGINAL_WEIR


def page(name):
    with open(os.path.join(common.ROOT, "docs", name), encoding="utf-8") as f:
        return f.read()


class Reference(common.FakeTest):
    """docs/policy-reference.md and weir-policy(5) have all keys, and no
    others."""

    def keys(self):
        """Of policies and of their entries, as the schema has them."""
        schema = json.loads(self.weir_ok("policy", "schema", "--qemu-bin-dir",
                                         self.bin))
        entry = schema["properties"]["filters"]["items"]["properties"]
        keys = {"Keys of a policy": set(schema["properties"]),
                "An entry of `filters`": {k for k in entry
                                          if not k.startswith("weir-")}}
        for name, value in schema["properties"].items():
            if name in schema["$defs"]:
                keys["Rules of `%s`" % name] = set(
                    schema["$defs"][name]["properties"])
        return keys

    def expected_keys(self, name, text):
        """What a file of the configuration takes, by its own message."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        errors = self.weir("policy", "which", "--config-dir", self.dir, "v",
                           "d")[2]
        os.unlink(path)
        return set(re.search("expected (?:one of )?([^;\n]*)", errors)[1]
                   .split(", "))

    def test_tables(self):
        keys = self.keys()
        keys["Assignments"] = (
            self.expected_keys("assignments.d/a.yaml", "x: 1\n")
            | self.expected_keys("assignments.d/a.yaml",
                                 "assignments: [{x: 1, policy: p}]\n")
            | self.expected_keys("weir.yaml", "x: 1\n"))
        text = page("policy-reference.md")
        for section, expected in keys.items():
            part = re.search(r"^## %s\n.*?\n\| key \|(.*?)\n\n"
                             % re.escape(section), text, re.S | re.M)
            self.assertIsNotNone(part, section)
            self.assertEqual(set(re.findall(r"^\| `([^`]*)` \|", part[1],
                                            re.M)), expected, section)
        manual = page("man/weir-policy.5")
        for key in set().union(*keys.values()):
            self.assertRegex(manual, r"(?m)^\.(It )?Cm ([a-z]+ , )?%s\b" % key)

    def test_words(self):
        """Of enumerations and variables."""
        schema = json.loads(self.weir_ok("policy", "schema", "--qemu-bin-dir",
                                         self.bin))
        entry = schema["properties"]["filters"]["items"]["properties"]
        storage = schema["$defs"]["storage"]["properties"]
        text = page("policy-reference.md")
        words = (entry["place"]["enum"] + storage["driver"]["items"]["enum"]
                 + storage["discard"]["enum"])
        self.assertEqual(len(words), 9)
        for word in words:
            self.assertIn("`%s`" % word, text)
        path = self.write("p.yaml", "name: p\nfilters:\n  - weir-lock: "
                          "{key-secret: $}\n")
        for name in re.search("one of (.*), or", self.check(path)[2])[
                1].split(", "):
            self.assertIn("`${%s}`" % name, text)


class Schema(common.FakeTest):
    def schema(self, bin_dir):
        schema = json.loads(self.weir_ok("policy", "schema",
                                         "--qemu-bin-dir", bin_dir))
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema)

    def wrong(self, validator, text):
        """Why it is wrong, or None."""
        try:
            error = jsonschema.exceptions.best_match(
                validator.iter_errors(load(text)))
        except (yaml.YAMLError, ValueError, TypeError) as failure:
            return str(failure)
        return error and error.message

    def test_policies_of_the_tests(self):
        validator = self.schema(self.bin)
        good = bad = beyond = 0
        try_policies()
        for text, code, messages in tried:
            reason = self.wrong(validator, text)
            if code == 0:
                good += 1
                self.assertIsNone(reason, text)
            elif all(BEYOND.search(m) for m in messages):
                beyond += 1
            else:
                bad += 1
                self.assertIsNotNone(reason, (text, messages))
        self.assertGreater(good, 15)
        self.assertGreater(bad, 70)
        self.assertLess(beyond, 60)

    def test_examples(self):
        """Those of the documentation, with the filters of our QEMU."""
        common.need("qemu-storage-daemon")
        validator = self.schema(common.QEMU_BIN_DIR)
        count = 0
        for name in ("policies.md", "policy-reference.md",
                     "man/weir-policy.5"):
            for example in re.findall(
                    r"```yaml\n(.*?)```|\.Bd[^\n]*\n(.*?)\.Ed", page(name),
                    re.S):
                example = "".join(example)
                if re.search("^(name|component): ", example, re.M):
                    count += 1
                    self.assertIsNone(self.wrong(validator, example), example)
        self.assertGreater(count, 5)

    def test_an_error_in_each_filter(self):
        """Each option of the real filters refuses a list of lists."""
        common.need("qemu-storage-daemon")
        validator = self.schema(common.QEMU_BIN_DIR)
        filters = validator.schema["properties"]["filters"]["items"][
            "properties"]
        count = 0
        for driver, options in filters.items():
            for option in options.get("properties", {}):
                count += 1
                document = {"name": "p", "inherit": "q", "filters": [
                    {driver: {option: [[{}]]}}]}
                self.assertFalse(validator.is_valid(document), option)
                document["filters"] = [{driver: {option + "x": 1}}]
                self.assertFalse(validator.is_valid(document), option)
        self.assertGreater(count, 30)

    def test_other_policies(self):
        validator = self.schema(self.bin)
        for text, good in (
                ("component: c\nfilters: []\n", True),
                ("component: c\nfilters: []\nstorage: {}\n", False),
                ("component: c\nname: c\nfilters: []\n", False),
                ("name: p\ninherit: b\n", True),
                ("name: p\n", False),
                ("name: p\nremove: [weir-far]\nfilters: []\n", False),
                ("name: p\ninherit: b\nremove: [weir-far]\n", True),
                ("name: p\ninherit: b\nremove: [weir-none]\n", False),
                ("name: p\ninherit: b\nfilters: [weir-acme: {mode: safe}]\n",
                 True),
                ("name: p\nfilters: [weir-acme: {mode: safe}]\n", False),
                ("name: p\nfilters: [component: c, weir-acme: {mode: safe}]\n",
                 True),
                ("name: p\nfilters: [{component: c, place: disk}]\n", False),
                ("name: p\nfilters: []\nstorage: {min-size: 1G, driver: "
                 "[file]}\n", True),
                ("name: p\nfilters: []\nstorage: {min-size: 1X}\n", False),
                ("name: p\nfilters: []\nstorage: {driver: []}\n", False),
                ("name: p\nfilters: []\nstorage: {discard: yes}\n", False)):
            self.assertEqual(self.wrong(validator, text) is None, good, text)


if __name__ == "__main__":
    unittest.main()
