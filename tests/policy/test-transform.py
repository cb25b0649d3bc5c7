#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir transform: domains of many origins, there and back byte for byte."""
import glob
import os
import re
import subprocess
import unittest
import xml.etree.ElementTree as ElementTree

from common import GUARD_S, ROOT, WEIR, WeirTest

DOMAINS = os.path.join(ROOT, "tests/libvirt/domains")
NAMESPACE = "{urn:weir:domain:1}"
PLAIN = """<domain type='kvm'>
  <name>vm</name>
  <devices>
    <emulator>/usr/bin/kvm</emulator>
    <disk type='file' device='disk'>
      <source file='/a'/>
      <target dev='vda'/>
    </disk>
  </devices>
</domain>
"""


class Transform(WeirTest):
    def run_it(self, data, *args):
        """Exit code, output and errors of weir transform, as bytes."""
        result = subprocess.run(
            [WEIR, "transform", *args],
            input=data if isinstance(data, bytes) else data.encode(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=GUARD_S,
            check=False)
        return result.returncode, result.stdout, result.stderr.decode()

    def good(self, data, *args):
        code, out, errors = self.run_it(data, *args)
        self.assertEqual((code, errors), (0, ""))
        return out

    def refused(self, data, message, *args):
        code, out, errors = self.run_it(data, *args)
        self.assertEqual((code, out[:1000]), (1, b""))
        self.assertRegex(errors[:1000], "(?s)^weir: " + message + "\n$")

    def domains(self):
        paths = sorted(glob.glob(os.path.join(DOMAINS, "*.xml")))
        self.assertGreaterEqual(len(paths), 7)
        for path in paths:
            with self.subTest(os.path.basename(path)), \
                    open(path, "rb") as file:
                yield file.read()


class Origins(Transform):
    def test_there_and_back(self):
        for data in self.domains():
            has_policies = b"urn:weir" in data
            args = [] if has_policies else ["--policy", "safe"]
            out = self.good(data, *args)
            self.assertNotEqual(out, data)
            self.assertEqual(self.good(out, "--remove"), data)

    def test_what_comes_out(self):
        for data in self.domains():
            args = [] if b"urn:weir" in data else ["--policy", "safe"]
            before = ElementTree.fromstring(data)
            after = ElementTree.fromstring(self.good(data, *args))
            [emulator] = after.findall("devices/emulator")
            self.assertRegex(emulator.text, "^/.*/weir-qemu$")
            [policies] = after.findall("metadata/%spolicies" % NAMESPACE)
            disks = {d.find("target").get("dev")
                     for d in after.findall("devices/disk")
                     if d.get("device", "disk") == "disk"}
            self.assertEqual({d.get("target") for d in policies.findall(
                NAMESPACE + "disk")}, disks)
            # nothing else is different
            for root in (before, after):
                for devices in root.findall("devices"):
                    for child in devices.findall("emulator"):
                        devices.remove(child)
                for metadata in root.findall("metadata"):
                    for child in metadata.findall(NAMESPACE + "policies"):
                        metadata.remove(child)
                    if not len(metadata):
                        root.remove(metadata)
            self.assertEqual(self.shape(before), self.shape(after))

    def shape(self, node):
        return (node.tag, node.attrib, (node.text or "").strip(),
                [self.shape(child) for child in node])

    def test_twice_is_once(self):
        for data in self.domains():
            args = [] if b"urn:weir" in data else ["--policy", "safe"]
            out = self.good(data, *args)
            self.assertEqual(self.good(out), out)
            self.assertEqual(self.good(out, *args), out)

    def test_without_a_policy(self):
        for data in self.domains():
            if b"urn:weir" not in data:
                self.assertEqual(self.good(data), data)
            self.assertEqual(self.good(data, "--remove"), data)

    def test_another_policy(self):
        for data in self.domains():
            if b"urn:weir" not in data:
                first = self.good(data, "--policy", "one")
                self.assertEqual(self.good(first, "--policy", "two"),
                                 self.good(data, "--policy", "two"))


class Editing(Transform):
    def both_ways(self, data, *args):
        out = self.good(data, *(args or ["--disk", "vda=safe"]))
        self.assertEqual(self.good(out, "--remove"), data.encode())
        return out.decode()

    def test_one_disk(self):
        out = self.both_ways(PLAIN)
        self.assertIn("""  <metadata>
    <weir:policies xmlns:weir="urn:weir:domain:1">
      <weir:disk target="vda" policy="safe"/>
      <weir:original emulator="/usr/bin/kvm" metadata="" policies="none"/>
    </weir:policies>
  </metadata>
""", out)

    def test_forms_of_the_metadata(self):
        for metadata in ("<metadata/>", "<metadata  />", "<metadata a='>'/>",
                         "<metadata></metadata>", "<metadata>\n</metadata>",
                         "<metadata><o:o xmlns:o='urn:o'/></metadata >",
                         "<metadata\n>\t<o xmlns='urn:o'>x</o>\n</metadata>",
                         "<metadata><!-- none --></metadata>"):
            with self.subTest(metadata):
                if "'>'" in metadata:
                    self.refused(PLAIN.replace("<devices>",
                                               metadata + "<devices>"),
                                 ".*cannot be changed.*", "--policy", "safe")
                    continue
                self.both_ways(PLAIN.replace("<devices>",
                                             metadata + "<devices>"))
                self.both_ways(PLAIN.replace(
                    "  <devices>", "  %s\n  <devices>" % metadata))

    def test_forms_of_the_emulator(self):
        for emulator in ("", "<emulator>/usr/bin/a&amp;b</emulator>",
                         "<emulator>\n\t/usr/bin/&#107;vm </emulator >"):
            with self.subTest(emulator):
                self.both_ways(PLAIN.replace(
                    "    <emulator>/usr/bin/kvm</emulator>\n",
                    emulator and "  %s\n" % emulator))

    def test_one_line(self):
        self.both_ways(re.sub(r"\n\s*", "", PLAIN))

    def test_byte_order_mark_and_encoding(self):
        self.both_ways("\ufeff<?xml version='1.0' encoding='utf-8'?>\n"
                       + PLAIN.replace("/a'", "/\u00e4\u20ac'"))

    def test_prefixes_of_others(self):
        for begin, prefix in (("<w:policies xmlns:w='urn:weir:domain:1'>",
                               "w:"), ("<policies xmlns='urn:weir:domain:1'>",
                                       "")):
            metadata = ("<metadata>%s<%sdisk target='vda' policy='p'/>"
                        "</%spolicies></metadata>" % (begin, prefix, prefix))
            data = PLAIN.replace("<devices>", metadata + "<devices>")
            out = self.good(data)
            self.assertIn(b"<%soriginal emulator=" % prefix.encode(), out)
            self.assertEqual(self.good(out, "--remove"), data.encode())

    def test_changes_made_since_stay(self):
        out = self.good(PLAIN, "--disk", "vda=safe").decode()
        out = out.replace("</devices>", "<sound/></devices>").replace(
            "</metadata>", "<o xmlns='urn:o'/></metadata>")
        back = self.good(out, "--remove").decode()
        self.assertIn("/usr/bin/kvm</emulator>", back)
        self.assertIn("<sound/></devices>", back)
        self.assertIn("<o xmlns='urn:o'/></metadata>", back)
        self.assertNotIn("weir", back)

    def test_emulator_that_is_given(self):
        out = self.both_ways(PLAIN, "--disk", "vda=safe", "--emulator",
                             "/opt/a & b/weir-qemu")
        self.assertIn("<emulator>/opt/a &amp; b/weir-qemu</emulator>", out)


class Refusals(Transform):
    def disk(self, xml):
        return re.sub("<disk .*</disk>", xml, PLAIN, flags=re.S)

    def test_no_domain(self):
        for data, message in (
                ("", "domain XML: line .*"),
                ("<domain>", "domain XML: line 1: .*"),
                ("<network/>",
                 "domain XML: found <network>, expected <domain>"),
                ("<domain><devices/></domain>",
                 "domain XML: found no <name>"),
                (b"<domain>\xff</domain>",
                 "domain XML: found bytes that are not UTF-8"),
                (b"<domain>\0</domain>",
                 "domain XML: found bytes that are not UTF-8"),
                ("<?xml version='1.0' encoding='latin1'?>" + PLAIN,
                 "domain XML: line .*: found another encoding than UTF-8"),
                (PLAIN.encode("utf-16"),
                 "domain XML: found bytes that are not UTF-8")):
            with self.subTest(data):
                self.refused(data, message)

    def test_entities(self):
        bomb = "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>%s]>" % "".join(
            "<!ENTITY %s '%s'>" % (b, ("&%s;" % a) * 10)
            for a, b in zip("abcdefgh", "bcdefghi"))
        outside = "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'>"
        for doctype in (bomb, outside, "<!DOCTYPE domain>"):
            with self.subTest(doctype):
                self.refused(doctype + PLAIN.replace("/a'", "&i;'"),
                             "domain XML: line 1: found a document type, "
                             "expected none")
        self.refused(PLAIN.replace("/a'", "&i;'"), "domain XML: line 6: .*")

    def test_size_and_depth(self):
        self.refused(PLAIN + " " * (1 << 20),
                     "domain XML: found more than 1024 KiB")
        self.refused(PLAIN.replace("<devices>", "<a>" * 70 + "</a>" * 70 +
                                   "<devices>"),
                     "domain XML: line 3: found elements that are nested too "
                     "deeply")

    def test_many_attributes_take_no_time(self):
        many = " ".join("a%d=''" % i for i in range(100000))
        data = PLAIN.replace("<devices>", "<a %s/><devices>" % many)
        self.assertLess(len(data), 1 << 20)
        self.refused(data, "domain XML: .*too .*")

    def test_many_disks_take_no_time(self):
        self.refused(self.disk("".join(
            "<disk><target dev='v%d'/></disk>" % i for i in range(25000))),
            "domain XML: found more than 1024 disks", "--policy", "safe")

    def test_elements_that_are_there_twice(self):
        for element in ("<name>b</name>", "<devices/>", "<uuid/><uuid/>",
                        "<metadata/><metadata/>"):
            with self.subTest(element):
                self.refused(PLAIN.replace("</domain>", element +
                                           "</domain>"),
                             "domain XML: line 10: found a second <.*>, "
                             "expected one", "--policy", "safe")

    def test_names(self):
        for name in ("a b", "../x", "", "a" * 65, "&lt;/name&gt;", "x\ny"):
            with self.subTest(name):
                self.refused(PLAIN.replace(">vm<", ">%s<" % name),
                             "domain '.*': found a name that policies .*",
                             "--policy", "safe")
        for option in ("vda", "vda=", "=safe", "vda=a b", "vda=a\"/><x",
                       "v<a=safe"):
            with self.subTest(option):
                self.refused(PLAIN, "--disk: found '.*', expected "
                             "TARGET=POLICY such as vda=safe", "--disk",
                             option)

    def test_names_in_the_metadata(self):
        for disk in ("target='vda'", "policy='p'", "target='' policy='p'",
                     "target='vda' policy='p&quot;/&gt;'",
                     "target='vda' policy='a'/><w:disk target='vda' "
                     "policy='b'"):
            with self.subTest(disk):
                self.refused(PLAIN.replace("<devices>", (
                    "<metadata><w:policies xmlns:w='urn:weir:domain:1'>"
                    "<w:disk %s/></w:policies></metadata><devices>" % disk)),
                    "domain XML: line 3: found .*")

    def test_disks(self):
        for xml, message in (
                ("<disk device='cdrom'><target dev='vda'/></disk>",
                 "disk 'vda' is cdrom, which cannot be under a policy"),
                ("<disk type='vhostuser'><target dev='vda'/></disk>",
                 "disk 'vda' is vhostuser, which cannot .*"),
                ("<disk><shareable/><target dev='vda'/></disk>",
                 "disk 'vda' is shareable, which cannot .*"),
                ("<disk><transient/><target dev='vda'/></disk>",
                 "disk 'vda' is transient, which cannot .*"),
                ("", "found policy 'safe' for disk 'vda', which the domain "
                 "does not have")):
            with self.subTest(xml):
                self.refused(self.disk(xml), "domain 'vm': " + message,
                             "--disk", "vda=safe")
        self.refused(PLAIN, "domain 'vm': found two policies for disk 'vda', "
                     "expected one", "--disk", "vda=a", "--disk", "vda=b")

    def test_other_machines(self):
        self.refused(PLAIN.replace("'kvm'", "'xen'"), "domain 'vm': found "
                     "type 'xen', expected kvm or qemu", "--policy", "safe")
        self.refused(PLAIN.replace("<devices>", "<os><type arch='aarch64'>"
                                   "hvm</type></os><devices>"),
                     "domain 'vm': found architecture 'aarch64', expected "
                     "x86_64", "--policy", "safe")
        self.refused(PLAIN.replace("/usr/bin/kvm", "<!-- a -->/k"),
                     "domain 'vm': found no path only in <emulator>",
                     "--policy", "safe")

    def test_policies_from_two_places(self):
        data = PLAIN.replace("<devices>", (
            "<metadata><w:policies xmlns:w='urn:weir:domain:1'><w:disk "
            "target='vda' policy='a'/></w:policies></metadata><devices>"))
        self.refused(data, "domain 'vm': found policies in its metadata and "
                     "others besides, expected one or the other",
                     "--policy", "safe")

    def test_elements_brought_along_by_what_was(self):
        """What remove puts back is text, or one empty <metadata>."""
        out = self.good(PLAIN, "--disk", "vda=safe").decode()
        for was, evil in (
                ('emulator="/usr/bin/kvm"',
                 'emulator="&lt;/emulator&gt;&lt;disk/&gt;&lt;emulator&gt;"'),
                ('metadata=""', 'metadata="&lt;metadata/&gt;&lt;os/&gt;"'),
                ('metadata=""', 'metadata="&lt;os/&gt;"'),
                ('metadata=""', 'metadata="x"')):
            with self.subTest(evil):
                self.assertIn(was, out)
                self.refused(out.replace(was, evil), "domain 'vm': found "
                             "something else in <original> than weir "
                             "transform leaves there", "--remove")

    def test_disks_brought_along_by_what_was(self):
        out = self.good(PLAIN, "--disk", "vda=safe").decode()
        for evil in ("&lt;os/&gt;", "", "&lt;disk/&gt;",
                     "&lt;disk&gt;&lt;target dev='vda'/&gt;&lt;/disk&gt;"
                     "&lt;disk/&gt;",
                     "&lt;disk/&gt;&lt;/devices&gt;&lt;os/&gt;&lt;devices&gt;"):
            with self.subTest(evil):
                self.refused(out.replace(
                    "<weir:original", '<weir:original><weir:was disk="%s"/>'
                    "</weir:original><weir:ignored" % evil),
                             r"domain XML: line \d+: found something else in "
                             "<original> than weir transform leaves there",
                             "--remove")

    def test_other_emulators(self):
        self.refused(PLAIN, "--emulator: found '/bin/sh', expected the path "
                     "of a weir-qemu", "--policy", "a", "--emulator",
                     "/bin/sh")

    def test_usage(self):
        for args in (["--remove", "--policy", "a"], ["file.xml"],
                     ["--nothing"]):
            code, out, errors = self.run_it(PLAIN, *args)
            self.assertEqual((code, out), (2, b""), errors)


if __name__ == "__main__":
    unittest.main()
