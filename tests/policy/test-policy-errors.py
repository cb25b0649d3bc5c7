#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each thing that can be wrong with a policy has its message and place."""
import json
import os
import shlex
import unittest

from common import FakeTest

HEAD = "name: p\nfilters:\n"
OPTIONS = ("log, level, mode, ratio, where, tags, hops, when, amount, "
           "anything, quiet")
KEYS = ("name, description, version, allow-before-encryption, limits, "
        "filters, component, inherit, remove, storage, run, "
        "on-error")
FILTERS = ("weir-acme, weir-copy, weir-dots, weir-far, weir-lock, weir-pair")


class Text(FakeTest):
    def test_missing_file(self):
        path = os.path.join(self.policies, "none.yaml")
        self.weir_fails("weir: cannot read policy file %s: No such file or "
                        "directory" % path,
                        "policy", "check", "--qemu-bin-dir", self.bin, path)

    def test_directory(self):
        self.assertEqual(self.check(self.policies), (
            1, "", "weir: cannot read policy file %s: Is a directory\n"
            % self.policies))

    def test_empty(self):
        self.refuses("", "1:1: found nothing, expected a policy")

    def test_only_comment(self):
        self.refuses("# nothing\n", "1:1: found nothing, expected a policy")

    def test_syntax(self):
        self.refuses("name: [p\nfilters: x\n",
                     "2:8: not YAML: did not find expected ',' or ']' while "
                     "parsing a flow sequence")

    def test_tab(self):
        self.refuses("name: p\n\tfilters: []\n",
                     "2:1: not YAML: found a tab character that violates "
                     "indentation while scanning a plain scalar")

    def test_not_utf8(self):
        self.refuses(b"name: p\ndescription: \xc3\xa4\xff\n",
                     "2:15: found a byte that is no printable UTF-8 (invalid "
                     "leading UTF-8 octet), expected text")

    def test_zero_byte(self):
        self.refuses('name: "p\\0q"\n',
                     "1:7: found a zero byte, expected text")

    def test_alias(self):
        self.refuses("name: &a p\ndescription: *a\n",
                     "1:7: found anchor 'a', expected a plain value")
        self.refuses("name: p\ndescription: *a\n",
                     "2:14: found alias 'a', expected a plain value")

    def test_tag(self):
        self.refuses("name: !!binary p\n", "1:7: found tag "
                     "'tag:yaml.org,2002:binary', expected a plain value")

    def test_two_documents(self):
        self.refuses("name: p\nfilters: []\n---\nname: q\n",
                     "3:1: found a second document, expected one policy per "
                     "file")

    def test_deep(self):
        self.refuses("name: " + "[" * 40, "1:38: found more than 32 levels, "
                     "expected fewer")

    def test_huge(self):
        self.refuses("name: p\n#" + "x" * (1 << 20),
                     "1:1: found 1048577 bytes, expected at most 1048576")

    def test_many_values(self):
        """Also what would take long to compare with each other."""
        self.refuses("name: p\n" + "".join("k%d:\n" % i for i in range(99999)),
                     "5000:1: found more than 10000 values, expected fewer")

    def test_many_errors(self):
        path = self.write("p.yaml", HEAD + "  - place: x\n" * 60)
        code, _, errors = self.check(path)
        lines = errors.splitlines()
        self.assertEqual((code, len(lines), lines[-1]), (
            1, 51, path + ":53:12: found more that is wrong"))

    def test_bombs(self):
        """A reference of a reference of a reference..."""
        text = "a: &a [x]\n" + "".join("%s: &%s [*%s, *%s]\n" % (
            chr(i), chr(i), chr(i - 1), chr(i - 1)) for i in range(98, 120))
        self.refuses(text, "1:4: found anchor 'a', expected a plain value")
        self.refuses("<<: *a\n", "1:5: found alias 'a', expected a plain "
                     "value")

    def test_control_characters(self):
        self.refuses(b"name: p\ndescription: \x1b[31m\n", "2:14: found a byte "
                     "that is no printable UTF-8 (control characters are not "
                     "allowed), expected text")
        self.refuses('"a\\nb: c\\e[2J": 1\n"a\\nb: c\\e[2J": 2\n',
                     "2:1: found key 'a\\x0ab: c\\x1b[2J' again, expected it "
                     "once (it is on line 1)")
        self.refuses(HEAD + '  - weir-pair: {mirror: "x\\ny"}\n',
                     "3:25: found 'x\\x0ay', expected an absolute path or an "
                     "address such as nbd://HOST/EXPORT for 'mirror'")

    def test_names_are_no_paths(self):
        for name in ("../p", "a/b", ".p", "p\\n", "$(id)", "p,x=y", "-p"):
            for text, place in (('name: p\ninherit: "%s"\n', "2:10"),
                                ('name: p\nfilters: [component: "%s"]\n',
                                 "2:22")):
                self.refuses(text % name, "%s: found a name that cannot be "
                             "used, expected up to 64 letters, digits, '.', "
                             "'_' and '-', the first a letter or digit; asked "
                             "for by p > %s" % (place, name.replace(
                                 "\\n", "\\x0a")))

    def test_texts_stay_texts(self):
        """In JSON, and for a shell."""
        text = "';\"}]$$(id)`id`\\\\n"
        self.write("p.yaml", HEAD + "  - weir-acme: {level: 1, tags: [\"%s\"]}"
                   "\n" % text.replace('"', '\\"'))
        expected = "';\"}]$(id)`id`\\n"
        for form in ("blockdev", "qsd"):
            output = self.weir_ok(
                "compile", "--qemu-bin-dir", self.bin, "--policies",
                self.policies, "--policy", "p", "--disk", "file=/a,format=raw",
                "--format", form)
            line = output.splitlines()[1]
            if form == "qsd":
                line = shlex.split(line)[1]
            self.assertEqual(json.loads(line)["tags"], [expected])

    def test_key_is_list(self):
        self.refuses("? [a]\n: b\n",
                     "1:3: found a list as a key, expected a word")

    def test_root_is_list(self):
        self.refuses("- name\n", "1:1: found a list, expected a mapping")


class Keys(FakeTest):
    def test_unknown_key(self):
        self.refuses("name: p\n  \nfilter: []\nfilters: []\n",
                     "3:1: found unknown key 'filter', expected one of %s; "
                     "did you mean 'filters'?" % KEYS)

    def test_key_twice(self):
        self.refuses("name: p\nfilters: []\nname: p\n",
                     "3:1: found key 'name' again, expected it once (it is "
                     "on line 1)")

    def test_missing_keys(self):
        self.refuses("description: x\n",
                     "1:1: found no key 'name', expected it",
                     "1:1: found no key 'filters', expected it")

    def test_name_is_not_the_files(self):
        self.refuses("name: q\nfilters: []\n", "1:7: found name 'q', expected "
                     "'p' as in the file's name")

    def test_name_in_other_suffix(self):
        self.refuses("name: p\nfilters: []\n", "1:7: found policy 'p' in a "
                     "file of another name, expected p.yaml", name="p.yml")

    def test_name_with_slash(self):
        self.refuses("name: ../p\nfilters: []\n",
                     "1:7: found a name that cannot be used, expected up to "
                     "64 letters, digits, '.', '_' and '-', the first a "
                     "letter or digit")

    def test_version(self):
        self.refuses("name: p\nversion: two\nfilters: []\n",
                     "2:10: found 'two', expected an integer from 0 up for "
                     "'version'")
        self.refuses("name: p\nversion: -1\nfilters: []\n",
                     "2:10: found '-1', expected an integer from 0 up for "
                     "'version'")
        self.refuses("name: p\nversion: 0\nfilters: []\n",
                     "2:10: found version '0', expected 1 or more")

    def test_filters_is_mapping(self):
        self.refuses("name: p\nfilters: {}\n", "2:10: found a mapping, "
                     "expected a list for 'filters'")

    def test_same_name_in_two_files(self):
        os.mkdir(self.path("other"))
        first = self.write("p.yaml", "name: p\nfilters: []\n")
        second = self.path("other/p.yaml")
        with open(second, "w", encoding="utf-8") as file:
            file.write("name: p\nfilters: []\n")
        self.assertEqual(self.check(first, second), (
            1, "", "%s:1:1: found another policy 'p', expected one (it is in "
            "%s)\n" % (second, first)))

    def test_every_file_is_checked(self):
        first = self.write("a.yaml", "name: b\nfilters: []\n")
        good = self.write("c.yaml", "name: c\nfilters: []\n")
        last = self.write("d.yaml", "name: d\n")
        self.assertEqual(self.check(first, good, last), (
            1, "", "%s:1:7: found name 'b', expected 'a' as in the file's "
            "name\n%s:1:1: found no key 'filters', expected it\n"
            % (first, last)))


class Filters(FakeTest):
    def test_unknown_filter(self):
        self.refuses(HEAD + "  - weir-acne: {level: 1}\n",
                     "3:5: found unknown filter 'weir-acne', expected one of "
                     + FILTERS + "; did you mean 'weir-acme'?")

    def test_foreign_driver(self):
        self.refuses(HEAD + "  - throttle: {}\n",
                     "3:5: found unknown filter 'throttle', expected one of "
                     + FILTERS)

    def test_entry_without_filter(self):
        self.refuses(HEAD + "  - place: disk\n", "3:5: found an entry without "
                     "a filter, expected one")

    def test_entry_with_two_filters(self):
        self.refuses(HEAD + "  - weir-acme: {level: 1}\n    weir-dots: {}\n",
                     "4:5: found 'weir-dots' in the entry of 'weir-acme', "
                     "expected one filter per entry")

    def test_filter_twice(self):
        self.refuses(HEAD + "  - weir-dots:\n  - weir-dots:\n",
                     "4:5: found filter 'weir-dots' again, expected it once "
                     "per disk (it is on line 3)")

    def test_entry_is_word(self):
        self.refuses(HEAD + "  - weir-dots\n", "3:5: found 'weir-dots', "
                     "expected a mapping for 'filters'")

    def test_place(self):
        self.refuses(HEAD + "  - weir-dots:\n    place: top\n",
                     "4:12: found 'top', expected one of storage, disk for "
                     "'place'")

    def test_keeper_is_no_filter(self):
        self.refuses(HEAD + "  - weir-keeper:\n",
                     "3:5: found unknown filter 'weir-keeper', expected one of "
                     + FILTERS)

    def test_two_of_one_class(self):
        self.refuses(HEAD + "  - weir-far:\n  - weir-copy:\n",
                     "4:5: found filter 'weir-copy', expected one of class "
                     "replication per disk ('weir-far' is on line 3)")

    def test_above_encryption(self):
        lock = "  - weir-lock: {key-secret: k}\n"
        message = ("found 'weir-far' above 'weir-lock', where it sees what is "
                   "not encrypted, expected it below, or "
                   "allow-before-encryption: true")
        self.refuses(HEAD + "  - weir-far:\n" + lock, "3:5: " + message)
        self.refuses(HEAD + lock + "  - weir-far:\n    place: disk\n",
                     "4:5: " + message)
        for text in (HEAD + lock + "  - weir-far:\n",
                     "allow-before-encryption: yes\n" + HEAD +
                     "  - weir-far:\n" + lock):
            self.assertEqual(self.check(self.write("p.yaml", text)),
                             (0, "", ""))

    def test_run_mode(self):
        self.refuses("run: outside\n" + HEAD + "  - weir-copy:\n",
                     "1:6: found 'outside', expected one of in-process, "
                     "out-of-process for 'run'")
        self.refuses("on-error: pause\n" + HEAD + "  - weir-copy:\n",
                     "1:11: found 'pause', expected one of report, stop, "
                     "enospc for 'on-error'")
        self.refuses("run: out-of-process\non-error: stop\n" + HEAD +
                     "  - weir-copy:\n",
                     "2:11: found 'stop' with 'run: out-of-process', expected "
                     "'report': that is all that a vhost-user device can do")

    def test_cache_above_replication(self):
        self.refuses(HEAD + "  - weir-pair: {mirror: /m}\n  - weir-far:\n",
                     "3:5: found 'weir-pair' above 'weir-far', expected it "
                     "below: what the cache holds would not be replicated")


class Places(FakeTest):
    """Nodes of a filter's own, secrets, variables."""

    def refuses_mirror(self, value, message):
        self.refuses(HEAD + "  - weir-pair: {mirror: '%s'}\n" % value,
                     "3:25: %s for 'mirror'" % message)

    def test_node_is_missing(self):
        self.refuses(HEAD + "  - weir-pair:\n", "3:15: found no option "
                     "'mirror' of 'weir-pair', expected it")

    def test_paths(self):
        self.refuses_mirror("m.img", "found 'm.img', expected an absolute "
                            "path or an address such as nbd://HOST/EXPORT")
        for size in ("", "x", "0", "1P", "-1", "1MM", "2000T",
                     "99999999999999999999"):
            self.refuses_mirror("create:%s:/m" % size, "found size '%s', "
                                "expected a number of bytes up to 1024T, also "
                                "with K, M, G or T" % size)

    def test_nbd(self):
        self.refuses_mirror("nbd:///x", "found no host, expected "
                            "nbd://HOST/EXPORT")
        self.refuses_mirror("nbd+unix:///x", "found no socket, expected "
                            "nbd+unix:///EXPORT?socket=/PATH")
        self.refuses_mirror("nbd+unix:///x?socket=s", "found no socket, "
                            "expected nbd+unix:///EXPORT?socket=/PATH")
        self.refuses_mirror("nbds://h/x", "found an address of nbds without "
                            "tls-creds, expected ?tls-creds=ID")
        self.refuses_mirror("nbd://h/x?tls-creds=c", "found 'tls-creds', which "
                            "an address of nbd does not have")
        self.refuses_mirror("nbds://h/x?tls-creds=c&port=1", "found 'port', "
                            "which an address of nbds does not have")

    def test_secrets(self):
        for value, message in (
                ("a/b", "found 'a/b', expected a name, file:/PATH, "
                 "credential:NAME or command:COMMAND"),
                ("credential:../x", "found '../x', expected a name, "
                 "file:/PATH, credential:NAME or command:COMMAND"),
                ("file:k", "found file 'k', expected an absolute path"),
                ("command:cat /k", "found command 'cat', expected an absolute "
                 "path")):
            self.refuses(HEAD + "  - weir-lock: {key-secret: '%s'}\n" % value,
                         "3:29: %s for 'key-secret'" % message)

    def test_variables(self):
        for value, found in (("/${vn}", "${vn}"), ("/$vm", "$"), ("/${vm", "$"),
                             ("/a$", "$")):
            self.refuses(HEAD + "  - weir-pair: {mirror: '%s'}\n" % value,
                         "3:25: found '%s', expected a variable in braces, one "
                         "of vm, disk, host, policy, or $$" % found)
        self.refuses(HEAD + "  - weir-acme: {level: 1, tags: [a, '${b}']}\n",
                     "3:37: found '${b}', expected a variable in braces, one "
                     "of vm, disk, host, policy, or $$")
        self.refuses_mirror("${vm}", "found 'vm', expected an absolute path "
                            "or an address such as nbd://HOST/EXPORT")


RPO = "a time from 1us to a year, such as 500ms, 5s, 2m or 1h"
DIRTY = "a number of bytes from 1 to 1024T, also with K, M, G or T"
LATENCY = "a time from 1us to a year, such as 500us or 20ms"


class Limits(FakeTest):
    """weir-far is of class replication, weir-pair of class cache."""

    TAIL = "filters:\n  - weir-far:\n  - weir-pair: {mirror: /m}\n"

    def wrong(self, key, value, found, expected):
        self.refuses("name: p\nlimits:\n  %s: %s\n%s"
                     % (key, value, self.TAIL),
                     "3:%d: found '%s', expected %s for 'limits.%s'"
                     % (len(key) + 5, found, expected, key))

    def test_times(self):
        for text in ("5", "0s", "-1s", "+5s", "5 s", "1.5s", "5S", "5sec",
                     "0x5s", "s", "8785h", "99999999999999999999s"):
            self.wrong("rpo", text, text, RPO)
        self.wrong("latency", "20msx", "20msx", LATENCY)
        self.wrong("latency", '"\\e[31m"', "\\033[31m", LATENCY)

    def test_bytes(self):
        for text in ("2GB", "2g", "0", "-1", "1.5G", "G", "1025T", "2 G",
                     "18446744073709551616"):
            self.wrong("dirty", text, text, DIRTY)

    def test_empty(self):
        self.wrong("rpo", '""', "", RPO)

    def test_shape(self):
        self.refuses("name: p\nlimits:\n" + self.TAIL,
                     "2:8: found nothing, expected a mapping for 'limits'")
        self.refuses("name: p\nlimits: [rpo]\n" + self.TAIL,
                     "2:9: found a list, expected a mapping for 'limits'")
        self.refuses("name: p\nlimits: {rpo: [5s]}\n" + self.TAIL,
                     "2:15: found a list, expected a single value for "
                     "'limits.rpo'")
        self.refuses("name: p\nlimits: {rpos: 5s}\n" + self.TAIL,
                     "2:10: found unknown option 'rpos' of 'limits', expected "
                     "one of rpo, dirty, latency; did you mean 'rpo'?")

    def test_nothing_to_compare_with(self):
        self.refuses(
            "name: p\nlimits: {rpo: 1s, dirty: 1, latency: 1s}\nfilters: []",
            *("2:%d: found a limit '%s', but the policy has nothing to "
              "compare with it, expected a filter%s" % where for where in (
                  (15, "rpo", " of class replication"),
                  (26, "dirty", " of class cache"), (38, "latency", ""))))
        self.accepts("name: p\nlimits: {latency: 1s}\nfilters: "
                     "[{weir-dots: }]\n")

    def test_all_errors_at_once(self):
        self.refuses("name: p\nlimits: {dirty: x, latency: y}\n" + self.TAIL,
                     "2:17: found 'x', expected %s for 'limits.dirty'" % DIRTY,
                     "2:29: found 'y', expected %s for 'limits.latency'"
                     % LATENCY)


class Options(FakeTest):
    def option(self, text, *messages):
        """An option on line 4 from column 7 on."""
        self.refuses(HEAD + "  - weir-acme:\n      %s\n      level: 1\n"
                     % text, *messages)

    def test_unknown(self):
        self.option("levle: 3", "4:7: found unknown option 'levle' of "
                    "'weir-acme', expected one of %s; did you mean 'level'?"
                    % OPTIONS)

    def test_filtered_node_is_no_option(self):
        self.option("file: x", "4:7: found unknown option 'file' of "
                    "'weir-acme', expected one of %s" % OPTIONS)

    def test_base_is_no_option(self):
        self.option("discard: unmap", "4:7: found unknown option 'discard' "
                    "of 'weir-acme', expected one of %s" % OPTIONS)

    def test_no_options_at_all(self):
        self.refuses(HEAD + "  - weir-dots: {size: 1}\n",
                     "3:17: found unknown option 'size' of 'weir-dots', "
                     "expected none")

    def test_missing(self):
        for text in ("  - weir-acme: {quiet: on}\n", "  - weir-acme:\n"):
            with self.subTest(text):
                column = 16 if "{" in text else 15
                self.refuses(HEAD + text, "3:%d: found no option 'level' of "
                             "'weir-acme', expected it" % column)

    def test_integer(self):
        for value in ("abc", "12abc", "1.5", "010", "0x", "''",
                      "9223372036854775808", "--1"):
            with self.subTest(value):
                found = "an empty string" if value == "''" \
                    else "'%s'" % value
                self.refuses(HEAD + "  - weir-acme:\n      level: %s\n"
                             % value, "4:14: found %s, expected an integer "
                             "for 'weir-acme.level'" % found)

    def test_integer_is_list(self):
        self.refuses(HEAD + "  - weir-acme: {level: [1]}\n",
                     "3:24: found a list, expected a single value for "
                     "'weir-acme.level'")

    def test_nothing(self):
        self.refuses(HEAD + "  - weir-acme: {level: }\n",
                     "3:24: found nothing, expected an integer for "
                     "'weir-acme.level'")

    def test_number(self):
        for value in ("nan", "inf", "7.2x", "1e999", "1,5x"):
            with self.subTest(value):
                self.option("ratio: %s" % value, "4:14: found '%s', expected "
                            "a number for 'weir-acme.ratio'" % value)

    def test_bool(self):
        for value in ("maybe", "1", "True"):
            with self.subTest(value):
                self.option("quiet: " + value, "4:14: found '%s', expected "
                            "true or false for 'weir-acme.quiet'" % value)

    def test_enum(self):
        self.option("mode: fastest", "4:13: found 'fastest', expected one of "
                    "fast, safe for 'weir-acme.mode'")

    def test_nested(self):
        self.option("where: {host: h, prot: 1}",
                    "4:24: found unknown option 'prot' of 'weir-acme.where', "
                    "expected one of host, port, next; did you mean 'port'?")
        self.option("where: {host: h, next: {host: i, port: p}}",
                    "4:46: found 'p', expected an integer for "
                    "'weir-acme.where.next.port'")
        self.option("hops: [{host: h}, {port: 1}]",
                    "4:25: found no option 'host' of 'weir-acme.hops', "
                    "expected it")

    def test_long_value_is_cut(self):
        self.option("mode: " + "x" * 100, "4:13: found '%s...', expected one "
                    "of fast, safe for 'weir-acme.mode'" % ("x" * 60))

    def test_control_characters_are_escaped(self):
        self.option('mode: "\\e[31m"', "4:13: found '\\033[31m', expected one "
                    "of fast, safe for 'weir-acme.mode'")

    def test_all_errors_at_once(self):
        self.refuses("nam: p\nfilters:\n  - weir-acme: {level: x, quiet: y}\n",
                     "1:1: found unknown key 'nam', expected one of %s; did "
                     "you mean 'name'?" % KEYS,
                     "3:24: found 'x', expected an integer for "
                     "'weir-acme.level'",
                     "3:34: found 'y', expected true or false for "
                     "'weir-acme.quiet'",
                     "1:1: found no key 'name', expected it")

    def test_driver_refuses_value(self):
        self.refuses(HEAD + "  - weir-dots:\n  - weir-acme: {level: 12}\n",
                     "4:5: weir-acme refuses its options: level must be 0 to "
                     "9")


class Daemon(FakeTest):
    def fault(self, fault, message):
        path = self.write("p.yaml", "name: p\nfilters: []\n")
        self.weir_fails(message, "policy", "check", "--qemu-bin-dir",
                        self.bin, path, FAKE_DAEMON_FAULT=fault)

    def test_dies(self):
        self.fault("die", "weir: qemu-storage-daemon ended at start: "
                   "qemu-storage-daemon: out of luck")

    def test_garbage(self):
        self.fault("garbage", "weir: %s does not speak QMP"
                   % os.path.join(self.bin, "qemu-storage-daemon"))

    def test_missing(self):
        self.weir_fails("weir: cannot find qemu-storage-daemon in %s"
                        % self.policies, "policy", "check", "--qemu-bin-dir",
                        self.policies, "x")

    def test_dies_during_check(self):
        path = self.write("p.yaml", HEAD +
                          "  - weir-acme: {level: 1, tags: [crash]}\n")
        self.assertEqual(self.check(path), (
            1, "", "weir: %s has closed the connection\n"
            % os.path.join(self.bin, "qemu-storage-daemon")))

    def test_no_filters(self):
        path = self.write("p.yaml", HEAD + "  - weir-acme:\n")
        self.assertEqual(self.check(path, FAKE_DAEMON_FAULT="no-filters"), (
            1, "", "%s:3:5: found unknown filter 'weir-acme', expected none\n"
            % path))


if __name__ == "__main__":
    unittest.main()
