#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Attach and detach under load that is verified: nothing is lost, nothing is
written twice, nothing leaks, and nothing stalls for long."""

import json
import os
import statistics
import subprocess
import time

from weirtest import BUILD, TestCase, blockdev, graph, main

VERIFY = os.path.join(BUILD, 'weir', 'tests', 'tools', 'weir-verify-nbd')
CYCLES = int(os.environ.get('WEIR_ATTACH_CYCLES', '500'))
SIZE = 64 << 20


class Load(TestCase):
    def serve(self, iothread, fmt, tests):
        sock = self.path('nbd.sock')
        args = ['--object', 'iothread,id=io0'] if iothread else []
        export = 'nbd,id=exp,node-name=fmt,name=disk,writable=on'
        daemon = self.start(
            'qemu-storage-daemon', *args,
            '--blockdev', blockdev(
                driver='file', node_name='file', discard='unmap',
                filename=self.image(f'disk.{fmt}', SIZE, fmt)),
            '--blockdev', blockdev(driver=fmt, node_name='fmt', file='file',
                                   discard='unmap'),
            '--nbd-server', f'addr.type=unix,addr.path={sock},'
            'max-connections=16',
            '--export', export + (',iothread=io0' if iothread else ''),
            tests=tests)
        return daemon, f'nbd+unix:///disk?socket={sock}'

    def cycle(self, daemon, node):
        """Attach and detach once; returns seconds."""
        begin = time.monotonic()
        daemon.cmd('weir-attach', {'node-name': node, 'filter': {
            'driver': 'weir-inspect', 'node-name': 'flt', 'file': node}})
        middle = time.monotonic()
        daemon.cmd('weir-detach', {'node-name': 'flt'})
        return middle - begin, time.monotonic() - middle

    def check(self, iothread, fmt, tests, cycles):
        daemon, uri = self.serve(iothread, fmt, tests)
        before = graph(daemon)
        load = subprocess.Popen(
            [VERIFY, '--threads', '4', '--size', str(SIZE), '--seconds',
             '600', '--final-check', uri], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self.addCleanup(load.kill)
        took = []
        for i in range(cycles):
            took += self.cycle(daemon, 'file' if i % 2 else 'fmt')
            self.assertIsNone(load.poll(), 'the load ended early')
        load.terminate()                # it finishes, and checks all
        out, err = load.communicate(timeout=300)
        self.assertEqual(load.returncode, 0, out + err)
        report = json.loads(out.splitlines()[-1])
        self.assertEqual(report['errors'], 0)
        self.assertGreater(report['operations'], cycles)
        self.assertEqual(graph(daemon), before)
        # a sanitizer build on a busy machine: the bound is the product's
        self.assertLess(statistics.median(took), 0.1)
        print(f'{cycles} cycles, {report["operations"]} operations, attach '
              f'or detach: median {statistics.median(took) * 1e3:.1f} ms, '
              f'max {max(took) * 1e3:.1f} ms; longest gap of the load: '
              f'{report.get("longest_stall_us", 0) / 1e3:.1f} ms')
        daemon.quit()

    def test_iothread_qcow2(self):
        self.check(True, 'qcow2', True, CYCLES)

    def test_main_loop_raw(self):
        self.check(False, 'raw', True, CYCLES // 5)

    def test_iothread_raw_without_sanitizers(self):
        self.check(True, 'raw', False, CYCLES)


if __name__ == '__main__':
    main()
