#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Metrics: the format, the server, and that what is written of them is so."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import unittest

import exposition
from common import GUARD_S, ROOT, WEIR, WeirTest

NAME = re.compile(r"\bweir_[a-z_]+")
HOSTILE = 'a"b\\c\nd\ufffd}\tä # HELP {x="y"} 1'


class Format(WeirTest):
    def check(self, text):
        self.assertIn(exposition.promtool(text), (None, (0, "")))
        return exposition.parse(text)

    def test_without_vms(self):
        families = self.check(self.weir_ok("metrics", "--runtime-dir",
                                           self.runtime))
        self.assertEqual([s for _, samples in families.values()
                          for s in samples], [])

    def test_hostile_names(self):
        """Of machines and disks, two of which are called the same."""
        text = subprocess.run(
            [os.environ["WEIR_TEST_TOP"], "--print"], check=True,
            stdout=subprocess.PIPE, timeout=GUARD_S).stdout.decode()
        families = self.check(text)
        for name, labels in (("weir_vm_up", ("vm",)),
                             ("weir_disk_compliance", ("vm", "disk")),
                             ("weir_cache_dirty_bytes", ("vm", "disk",
                                                         "node"))):
            samples = families[name][1]
            self.assertGreater(len(samples), 0)
            for _, have, _ in samples:
                self.assertEqual([have[label] for label in labels],
                                 [HOSTILE] * len(labels))
        self.assertEqual(
            [v for _, have, v in families["weir_disk_latency_seconds"][1]
             if have.get("le") in ("1.6384e-05", "6.5536e-05", "0.000262144",
                                   "+Inf")], [0, 1, 3, 3])


class BadText(unittest.TestCase):
    """That the reader is strict."""

    def test_each(self):
        head = "# HELP weir_x x\n# TYPE weir_x gauge\n"
        exposition.parse(head + 'weir_x{a="b",c="\\\\\\"\\n"} 1\n')
        for text in (
                head + "weir_x 1", head + "weir_y 1\n", head + "weir_x\n",
                head + 'weir_x{a="b",} 1\n', head + 'weir_x{a="\\x"} 1\n',
                head + 'weir_x{a="b" 1\n', head + "weir_x 1\nweir_x 2\n",
                head + head + "weir_x 1\n", head + "weir_x_sum 1\n",
                head + 'weir_x{a="b",a="c"} 1\n', head + "weir_x one\n",
                head.replace("gauge", "counter") + "weir_x 1\n",
                head.replace("weir_x", "weir_bytes_x") + "weir_bytes_x 1\n",
                "weir_x 1\n",
                head.replace("gauge", "histogram") +
                'weir_x_bucket{le="1"} 2\nweir_x_sum 1\nweir_x_count 2\n'):
            with self.subTest(text), self.assertRaises(
                    (AssertionError, KeyError, ValueError)):
                exposition.parse(text)


class Documents(WeirTest):
    def families(self):
        return exposition.parse(self.weir_ok("metrics", "--runtime-dir",
                                             self.runtime))

    def test_page_has_each_family(self):
        with open(os.path.join(ROOT, "docs/metrics.md"),
                  encoding="utf-8") as file:
            rows = dict(re.findall(r"(?m)^\| `(weir_\w+)` \| (\w+) \|",
                                   file.read()))
        self.assertEqual(rows, {name: kind for name, (kind, _)
                                in self.families().items()})

    def test_dashboard_names_families(self):
        with open(os.path.join(ROOT, "docs/grafana-dashboard.json"),
                  encoding="utf-8") as file:
            dashboard = json.load(file)
        expressions = [target["expr"] for panel in dashboard["panels"]
                       for target in panel.get("targets", [])]
        expressions += [v["query"] for v in dashboard["templating"]["list"]
                        if v["type"] == "query"]
        self.assertGreater(len(expressions), 10)
        known = set()
        for name, (kind, _) in self.families().items():
            known |= {name + suffix for suffix in ("_bucket", "_sum",
                                                   "_count")} \
                if kind == "histogram" else {name}
        used = {name for e in expressions for name in NAME.findall(e)}
        self.assertGreater(len(used), 10)
        self.assertEqual(used - known, set())
        identities = [panel["id"] for panel in dashboard["panels"]]
        self.assertEqual(len(identities), len(set(identities)))


class Server(WeirTest):
    def serve(self, *args):
        """Start it; returns process and address."""
        process = subprocess.Popen(
            [WEIR, "metrics", "--runtime-dir", self.runtime] + list(args),
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        line = process.stderr.readline()
        found = re.match(r"weir: metrics are at (\S+), path /metrics\n", line)
        self.assertTrue(found, line)
        return process, found[1]

    def get(self, connection, method="GET", path="/metrics"):
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.headers["Content-Type"], body

    def test_tcp(self):
        for host in "127.0.0.1", "localhost", "[::1]":
            if host == "[::1]" and not os.path.exists("/proc/net/if_inet6"):
                continue
            process, address = self.serve("--listen", host + ":0")
            port = int(address.rsplit(":", 1)[1])
            connection = http.client.HTTPConnection(
                address.rsplit(":", 1)[0].strip("[]"), port, timeout=GUARD_S)
            status, kind, body = self.get(connection)
            self.assertEqual((status, kind), (
                200, "text/plain; version=0.0.4; charset=utf-8"))
            exposition.parse(body)
            self.assertEqual(self.get(connection, "HEAD")[::2], (200, ""))
            self.assertEqual(self.get(connection, "GET", "/")[0], 404)
            self.assertEqual(self.get(connection, "POST")[0], 405)
            process.terminate()
            self.assertEqual(process.wait(GUARD_S), 0)

    def test_unix(self):
        path = self.path("metrics.sock")
        for stale in False, True:
            if stale:
                left = socket.socket(socket.AF_UNIX)
                left.bind(path)
                left.close()
            process, address = self.serve("--listen", path)
            self.assertEqual(address, path)
            connection = http.client.HTTPConnection("localhost")
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(GUARD_S)
            connection.sock.connect(path)
            self.assertEqual(self.get(connection)[0], 200)
            self.weir_fails("weir: cannot listen on %s: Address already in "
                            "use" % path, "metrics", "--listen",
                            "unix:" + path)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(GUARD_S), 0)
            self.assertFalse(os.path.exists(path))

    def test_file_is_not_replaced(self):
        path = self.disk()
        self.weir_fails("weir: cannot listen on %s: Address already in use"
                        % path, "metrics", "--listen", path)
        self.assertEqual(os.path.getsize(path), 1 << 20)

    def test_missing_vm(self):
        process, address = self.serve("vm", "--listen", "127.0.0.1:0")
        connection = http.client.HTTPConnection(address, timeout=GUARD_S)
        self.assertEqual(self.get(connection), (
            503, "text/plain", "there is no VM 'vm' in %s\n" % self.runtime))

    def test_slow_clients_do_not_hold_it_up(self):
        process, address = self.serve("--listen", "127.0.0.1:0")
        host, port = address.rsplit(":", 1)
        slow = [socket.create_connection((host, int(port)), GUARD_S)
                for _ in range(8)]
        for client in slow:
            self.addCleanup(client.close)
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x")
        connection = http.client.HTTPConnection(address, timeout=GUARD_S)
        self.assertEqual(self.get(connection)[0], 200)

    def test_remote_addresses(self):
        for host in "0.0.0.0", "[::]", "192.0.2.1", "[::ffff:192.0.2.1]":
            self.weir_fails(
                "weir: %s is not an address of this machine only: whoever "
                "reaches it could read the metrics, without a password or "
                "encryption; --allow-remote allows that" % host.strip("[]"),
                "metrics", "--listen", host + ":0")

    def test_wrong_addresses(self):
        for text in ("", "x", ":80", "127.0.0.1", "127.0.0.1:", "::1:80",
                     "127.0.0.1:65536", "127.0.0.1:http", "127.0.0.1:-1",
                     "[]:80", "unix:relative"):
            self.weir_fails("weir: found '%s', expected an address to listen "
                            "on: ADDR:PORT, [ADDR]:PORT or /PATH" % text,
                            "metrics", "--listen", text)
        self.weir_fails("weir: the socket name /%s is too long" % ("x" * 200),
                        "metrics", "--listen", "/" + "x" * 200)
        self.weir_fails("weir: metrics: found --allow-remote without --listen",
                        "metrics", "--allow-remote", code=2)
        self.weir_fails("weir: metrics: found timeout 0, expected 0.01 to "
                        "3600 seconds", "metrics", "--timeout", "0", code=2)

    def test_allowed(self):
        """As far as it goes without listening for others: no such address."""
        self.weir_fails("weir: cannot listen on 192.0.2.1:0: Cannot assign "
                        "requested address", "metrics", "--allow-remote",
                        "--listen", "192.0.2.1:0")


if __name__ == "__main__":
    unittest.main()
