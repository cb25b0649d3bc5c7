#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir replica: what it lists, opens, compares and promotes."""

import json
import os
import subprocess

import nbd

from cachetest import BLOCK, content, nbd_connect
from replicationtest import ReplicationTest, Stamps
from weirtest import BIN, main

WEIR = os.path.join(BIN, 'weir')
GUARD_S = 120


class Command(ReplicationTest):
    disks = 2

    def setUp(self):
        super().setUp()
        self.qmp = self.path('keeper.qmp')

    def server(self, sock, *args):
        if sock == self.keeper_sock:
            args += ('--chardev', f'socket,id=cli,path={self.qmp},server=on,'
                     'wait=off', '--monitor', 'chardev=cli,id=cli')
        return super().server(sock, *args)

    def weir(self, *args, status=0):
        """Output, and errors, of weir replica."""
        result = subprocess.run(
            [WEIR, 'replica', *args], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=GUARD_S, check=False, env={**os.environ, 'LC_ALL': 'C'})
        self.assertEqual(result.returncode, status,
                         result.stdout + result.stderr)
        return result.stdout, result.stderr

    def ask(self, command, *args, **kwargs):
        return self.weir(command, '--qmp', self.qmp, *args, **kwargs)[0]

    def refuses(self, text, command, *args):
        self.assertIn(text, self.weir(command, '--qmp', self.qmp, *args,
                                      status=1)[1])

    def uri(self, sock, export):
        return f'nbd+unix:///{export}?socket={sock}'

    def prepare(self):
        """Two disks, with a mark after the first of two sets of writes."""
        keeper, source = self.keeper(), self.source()
        self.wait_for_status(source, 'streaming')
        clients, stamps = self.clients(), Stamps(self.disks)
        for mark in ('one', 'two'):
            for _ in range(50):
                stamps.write(clients)
            self.mark(source, mark)
        return keeper, source, clients, stamps

    def test_points(self):
        keeper, source, *_ = self.prepare()
        points = json.loads(self.ask('points', '--json', '--limit', '0'))
        self.assertEqual(points, self.points(keeper, limit=10000))
        marked = json.loads(self.ask('points', '--json', '--marked'))
        self.assertEqual([p['marks'] for p in marked], [['two'], ['one']])
        newest = json.loads(self.ask('points', '--json', '--limit', '1'))
        self.assertEqual(newest, points[:1])
        lines = self.ask('points', '--marked').splitlines()
        self.assertEqual(lines[0].split(), ['EPOCH', 'TIME', 'APPLICATION',
                                            'MARKS'])
        self.assertEqual([line.split()[0] for line in lines[1:]],
                         [str(p['epoch']) for p in marked])
        source.quit()
        keeper.quit()

    def test_open_and_close(self):
        keeper, source, clients, stamps = self.prepare()
        output = self.ask('open', '--nbd', self.keeper_sock, '--point',
                          'mark:one', 'disk1')
        self.assertIn('read-only', output)
        self.assertEqual(output.splitlines()[1],
                         self.uri(self.keeper_sock, 'disk1'))
        client = nbd_connect(self.keeper_sock, 'disk1')
        for block, version in enumerate(stamps.versions(50)[1]):
            self.assertEqual(client.pread(BLOCK, block * BLOCK),
                             content(block, version))
        with self.assertRaises(nbd.Error):
            client.pwrite(bytes(BLOCK), 0)
        self.refuses('disk1', 'open', 'disk1')          # the name is taken
        self.ask('close', 'disk1')
        self.refuses("no replica is open under the name 'disk1'", 'close',
                     'disk1')
        self.refuses('no replica is open', 'close', 'log')
        self.assertEqual([e['id'] for e in
                          keeper.cmd('query-block-exports')], ['log'])
        stamps.write(clients)
        self.wait_until_sent(source)
        source.quit()
        keeper.quit()

    def test_bad_requests(self):
        keeper, source, *_ = self.prepare()
        for text, *args in [
                ("no disk 'other'", 'open', 'other'),
                ('epoch:999', 'open', '--point', 'epoch:999', 'disk0'),
                ('mark', 'open', '--point', 'mark:three', 'disk0'),
                ('yesterday', 'open', '--point', 'yesterday', 'disk0'),
                ('cannot be the name', 'open', '--name', 'a b', 'disk0'),
                ('cannot be the name', 'open', '--name', 'x' * 21, 'disk0'),
                ("no weir-journal node 'other'", 'points', '--journal',
                 'other'),
                ('No such file or directory', 'test-failover', '--overlay',
                 self.path('missing/x.qcow2'), 'disk0')]:
            self.refuses(text, *args)
        with open(self.path('there'), 'w') as f:
            f.write('precious')
        self.refuses('exists already', 'test-failover', '--overlay',
                     self.path('there'), 'disk0')
        self.assertEqual(self.file_content(self.path('there')), b'precious')
        nodes = {n['node-name'] for n in
                 keeper.cmd('query-named-block-nodes')}
        self.assertEqual(nodes, {'log', 'base0', 'base1', 'journal'})
        self.weir('points', status=2)
        self.weir('test-failover', '--qmp', self.qmp, 'disk0', status=2)
        source.quit()
        keeper.quit()

    def test_test_failover(self):
        keeper, source, clients, stamps = self.prepare()
        self.ask('test-failover', '--overlay', self.path('test.qcow2'),
                 '--point', 'mark:one', '--name', 'test', 'disk0')
        test = nbd_connect(self.keeper_sock, 'test')
        versions = stamps.versions(50)[0]
        test.pwrite(content(3, 777), 3 * BLOCK)
        test.flush()
        for _ in range(50):             # replication goes on
            stamps.write(clients)
        self.mark(source, 'three')
        versions[3] = 777
        for block, version in enumerate(versions):
            self.assertEqual(test.pread(BLOCK, block * BLOCK),
                             content(block, version))
        self.assertEqual(stamps.prefix(self.replicas(keeper, 'mark:three')),
                         150)
        self.ask('close', 'test')
        self.assertTrue(os.path.exists(self.path('test.qcow2')))
        source.quit()
        keeper.quit()

    def test_verify(self):
        keeper, source, clients, _ = self.prepare()
        self.ask('open', '--name', 'now', 'disk0')
        a = self.uri(self.source_sock, 'disk0')
        b = self.uri(self.keeper_sock, 'now')
        self.assertIn('equal', self.weir('verify', a, b)[0])
        clients[0].pwrite(content(9, 12345), 9 * BLOCK)
        self.assertIn(f'the first at {9 * BLOCK}',
                      self.weir('verify', a, b, status=3)[0])
        self.ask('close', 'now')
        source.quit()
        keeper.quit()

    def test_failover(self):
        keeper, source, clients, stamps = self.prepare()
        output = self.ask('failover', '--point', 'mark:one')
        self.assertEqual(output.splitlines(), ['disk disk0 is node base0',
                                               'disk disk1 is node base1'])
        self.assertEqual(
            stamps.prefix([self.file_content(f) for f in self.base_files]),
            50)
        stamps.write(clients)           # the guest goes on; the log does not
        self.wait_for_status(source, 'stopped')
        self.kill(source)
        keeper.quit()
        self.assertEqual(
            stamps.prefix([self.file_content(f) for f in self.base_files]),
            50)


if __name__ == '__main__':
    main()
