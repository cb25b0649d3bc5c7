#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-attach and weir-detach in the storage daemon: what works, what is
refused, and that a failure changes nothing."""

import os
import threading
import time

import nbd

from weirtest import TestCase, blockdev, graph, main, wait_for

MIB = 1 << 20


class Disk(TestCase):
    """A qcow2 image "fmt" over "file", exported over NBD."""

    iothread = False

    def setUp(self):
        super().setUp()
        self.file = self.image('disk.qcow2', fmt='qcow2')
        self.sock = self.path('nbd.sock')
        extra = ['--object', 'iothread,id=io0'] if self.iothread else []
        export = 'nbd,id=exp,node-name=fmt,name=disk,writable=on'
        if self.iothread:
            export += ',iothread=io0'
        self.d = self.daemon(
            *extra,
            '--blockdev', blockdev(driver='file', node_name='file',
                                   filename=self.file, discard='unmap'),
            '--blockdev', blockdev(driver='qcow2', node_name='fmt',
                                   file='file', discard='unmap'),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
            'max-connections=8', '--export', export)
        self.client = self.connect()

    def connect(self):
        client = nbd.NBD()
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        return client

    def attach(self, node, name='flt', driver='weir-inspect', **options):
        options = {k.replace('_', '-'): v for k, v in options.items()}
        self.d.cmd('weir-attach', {'node-name': node, 'filter': {
            'driver': driver, 'node-name': name, 'file': node, **options}})

    def detach(self, name='flt'):
        self.d.cmd('weir-detach', {'node-name': name})

    def check_io(self, seed=1):
        data = bytes([seed]) * 65536
        self.client.pwrite(data, seed * 65536)
        self.assertEqual(self.client.pread(65536, seed * 65536), data)

    def finish(self):
        self.client.shutdown()
        self.d.quit()


class Places(Disk):
    def test_above_the_root(self):
        before = graph(self.d)
        self.attach('fmt')
        self.check_io()
        info = self.filter_info(self.d, 'flt')
        self.assertEqual((info['place'], info['child'], info['state']),
                         ('disk', 'fmt', 'ok'))
        self.assertEqual(info['writes']['bytes'], 65536)
        self.detach()
        self.assertEqual(graph(self.d), before)
        self.check_io(2)
        self.finish()

    def test_between_format_and_storage(self):
        before = graph(self.d)
        self.attach('file')
        self.check_io()
        info = self.filter_info(self.d, 'flt')
        self.assertEqual((info['place'], info['child'], info['parents']),
                         ('storage', 'file', ['fmt']))
        self.assertGreaterEqual(info['writes']['bytes'], 65536)
        self.detach()
        self.assertEqual(graph(self.d), before)
        self.check_io(2)
        self.finish()

    def test_stacked_and_taken_out_of_the_middle(self):
        before = graph(self.d)
        for name, node in (('a', 'fmt'), ('b', 'a'), ('c', 'file'),
                           ('d', 'b')):
            self.attach(node, name)
            self.check_io()
        for name in ('b', 'c', 'a', 'd'):
            self.detach(name)
            self.check_io(3)
        self.assertEqual(graph(self.d), before)
        self.finish()

    def test_discard_goes_on_through_an_attached_filter(self):
        """A node opened by reference inherits nothing by itself."""
        self.client.pwrite(os.urandom(8 * MIB), 0)
        self.client.flush()
        self.attach('file')
        self.attach('fmt', 'top')
        before = os.stat(self.file).st_blocks
        self.client.trim(8 * MIB, 0)
        self.client.flush()
        self.assertLess(os.stat(self.file).st_blocks, before // 2)
        self.detach('top')
        self.detach()
        self.finish()

    def test_filter_that_was_there_from_the_start(self):
        self.d.cmd('blockdev-add', {
            'driver': 'raw', 'node-name': 'r2', 'file': {
                'driver': 'weir-inspect', 'node-name': 'inline', 'file': {
                    'driver': 'null-co', 'node-name': 'null',
                    'size': MIB}}})
        self.detach('inline')
        edges = graph(self.d)[1]
        self.assertIn(('r2', 'file', 'null'), [e[:3] for e in edges])
        self.assertFails("not found", self.detach, 'inline')
        self.finish()

    def test_example_driver(self):
        self.attach('fmt', 'guard', 'weir-example', offset=MIB, size=MIB)
        self.check_io(1)
        with self.assertRaises(nbd.Error) as caught:
            self.client.pwrite(b'x' * 512, MIB)
        self.assertEqual(caught.exception.errno, 'EPERM')
        with self.assertRaises(nbd.Error):
            self.client.zero(4096, 2 * MIB - 1)
        self.client.pwrite(b'x' * 512, 2 * MIB)
        self.client.pread(512, MIB)
        self.assertEqual(self.filter_info(self.d, 'guard')['driver'],
                         'weir-example')
        self.detach('guard')
        self.client.pwrite(b'x' * 512, MIB)
        self.finish()


class PlacesInIOThread(Places):
    iothread = True


class Refusals(Disk):
    """Each leaves graph and I/O as they were."""

    def check(self, text, **arguments):
        before = graph(self.d)
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        self.assertFails(text, self.d.cmd, 'weir-attach', arguments)
        self.assertEqual(graph(self.d), before)
        self.check_io()

    def filter(self, **options):
        base = {'driver': 'weir-inspect', 'node-name': 'flt', 'file': 'fmt'}
        base.update({k.replace('_', '-'): v for k, v in options.items()})
        return {k: v for k, v in base.items() if v is not None}

    def test_attach(self):
        other = {'driver': 'null-co', 'size': MIB}
        for text, node, options in (
                ("Node 'nope' not found", 'nope', {}),
                ("'filter.node-name' is missing", 'fmt',
                 {'node_name': None}),
                ("'fmt' is in use", 'fmt', {'node_name': 'fmt'}),
                ("must be a reference to node 'fmt'", 'fmt',
                 {'file': 'file'}),
                ("must be a reference to node 'fmt'", 'fmt',
                 {'file': other}),
                ("'throttle' is not a weir filter", 'fmt',
                 {'driver': 'throttle', 'throttle_group': 'x'}),
                ('entropy-high', 'fmt', {'entropy_high': 8.5}),
                ('entropy-window', 'fmt', {'entropy_window': 0}),
                ("Parameter 'filter.nonsense' is unexpected", 'fmt',
                 {'nonsense': 1}),
                ("'force-share'", 'fmt', {'force_share': True}),
                ('Invalid node-name', 'fmt', {'node_name': '0bad'})):
            with self.subTest(text):
                self.check(text, node_name=node,
                           filter=self.filter(**options))
        self.check("Device 'vd0' not found", node_name='fmt', qdev='vd0',
                   filter=self.filter())
        self.finish()

    def test_detach(self):
        before = graph(self.d)
        self.assertFails("Node 'nope' not found", self.detach, 'nope')
        self.assertFails("Node 'fmt' is not a weir filter", self.detach,
                         'fmt')
        self.assertEqual(graph(self.d), before)
        self.check_io()
        self.finish()

    def test_fault_at_each_step_of_attach(self):
        for node in ('fmt', 'file'):
            for step in ('before-child', 'after-child', 'limits', 'insert'):
                with self.subTest(f'{node} {step}'):
                    self.check('weir-fault', node_name=node, filter={
                        'driver': 'weir-fault', 'node-name': 'flt',
                        'file': node, 'fail': step})
        self.finish()

    def test_fault_at_detach(self):
        self.attach('fmt', driver='weir-fault', fail='detach')
        before = graph(self.d)
        self.assertFails('weir-fault: detach', self.detach)
        self.assertEqual(graph(self.d), before)
        self.check_io()
        self.finish()

    def test_read_only_above_a_writer(self):
        """The export writes: a read-only node cannot come below it."""
        self.check('read-only', node_name='fmt',
                   filter=self.filter(read_only=True))
        self.finish()


class Resize(Disk):
    """Through the filter, or not at all: see weir_filter_child_perm()."""

    def size(self, node):
        info, = [n for n in self.d.cmd('query-named-block-nodes')
                 if n['node-name'] == node]
        return info['image']['virtual-size']

    def test_below_and_through(self):
        self.client.shutdown()
        self.d.cmd('block-export-del', id='exp')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')
        self.d.cmd('blockdev-add', {'driver': 'raw', 'node-name': 'user',
                                    'file': 'fmt'})
        self.attach('fmt')
        self.assertFails("permissions 'resize'", self.d.cmd,
                         'block_resize',
                         {'node-name': 'fmt', 'size': 96 * MIB})
        self.d.cmd('block_resize', {'node-name': 'flt', 'size': 128 * MIB})
        self.assertEqual((self.size('flt'), self.size('fmt')),
                         (128 * MIB, 128 * MIB))
        self.detach()
        self.d.cmd('block_resize', {'node-name': 'fmt', 'size': 64 * MIB})
        self.assertEqual(self.size('fmt'), 64 * MIB)
        self.d.quit()

    def test_at_the_storage(self):
        self.client.shutdown()
        self.d.cmd('block-export-del', id='exp')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')
        self.attach('file')
        self.d.cmd('block_resize', {'node-name': 'fmt', 'size': 128 * MIB})
        self.assertEqual(self.size('fmt'), 128 * MIB)
        self.detach()
        self.d.quit()


class RefusalsInIOThread(Refusals):
    iothread = True


class Jobs(Disk):
    def target(self, name='tgt'):
        self.d.cmd('blockdev-add', {
            'driver': 'raw', 'node-name': name, 'file': {
                'driver': 'file', 'filename': self.image(f'{name}.img')}})

    def mirror(self, device):
        self.target()
        self.d.cmd('blockdev-mirror', {
            'job-id': 'job', 'device': device, 'target': 'tgt',
            'sync': 'full'})
        self.d.qmp.event('JOB_STATUS_CHANGE',
                         lambda d: d['status'] == 'ready')

    def cancel(self):
        self.d.cmd('job-cancel', id='job')
        self.d.qmp.event('JOB_STATUS_CHANGE',
                         lambda d: d['status'] == 'null')

    def works_or_refused(self, function, *args):
        """Nothing in between: either it works, or the graph is as before."""
        before = graph(self.d)
        try:
            function(*args)
        except Exception as error:
            self.assertEqual(graph(self.d), before, error)
            self.assertRegex(str(error), 'busy|block device is in use|change')
            return False
        finally:
            self.check_io(7)
        return True

    def test_attach_to_a_mirrored_disk(self):
        self.mirror('fmt')
        before = graph(self.d)
        for node in ('fmt', 'file'):
            if self.works_or_refused(self.attach, node):
                self.detach()
                self.assertEqual(graph(self.d), before)
        self.cancel()
        self.attach('fmt')
        self.detach()
        self.finish()

    def test_detach_from_a_mirrored_disk(self):
        self.attach('fmt')
        self.mirror('flt')
        self.assertFalse(self.works_or_refused(self.detach))
        self.cancel()
        self.detach()
        self.finish()

    def test_backup_with_a_filter_below(self):
        before = graph(self.d)
        self.attach('file')
        self.target()
        self.d.cmd('blockdev-backup', {
            'job-id': 'job', 'device': 'fmt', 'target': 'tgt',
            'sync': 'full', 'speed': 65536})
        self.works_or_refused(self.attach, 'fmt', 'other')
        self.works_or_refused(self.attach, 'flt', 'more')
        self.d.cmd('block-job-cancel', device='job')
        self.d.qmp.event('JOB_STATUS_CHANGE',
                         lambda d: d['status'] == 'null')
        for info in self.d.cmd('query-weir'):
            self.detach(info['node-name'])
        self.d.cmd('blockdev-del', {'node-name': 'tgt'})
        self.assertEqual(graph(self.d), before)
        self.finish()

    def test_mirror_that_leaves_the_filter_behind_is_told(self):
        """A pivot can take a disk away from its filter: that is an event."""
        self.attach('fmt')
        self.mirror('flt')
        self.d.cmd('job-complete', id='job')
        self.d.qmp.event('JOB_STATUS_CHANGE',
                         lambda d: d['status'] == 'null')
        event = self.d.qmp.event('WEIR_STATE')
        self.assertEqual((event['node-name'], event['state']),
                         ('flt', 'degraded'))
        info = self.filter_info(self.d, 'flt')
        self.assertEqual((info['place'], info['parents'], info['state']),
                         ('unused', [], 'degraded'))
        self.assertIn('no disk uses', info['reason'])
        self.detach()
        self.check_io()
        self.finish()


class Snapshots(Disk):
    def overlay(self, node):
        path = self.image('overlay.qcow2', fmt='qcow2')
        self.d.cmd('blockdev-add', {
            'driver': 'qcow2', 'node-name': 'overlay', 'backing': None,
            'file': {'driver': 'file', 'filename': path}})
        self.d.cmd('blockdev-snapshot', node=node, overlay='overlay')

    def test_snapshot_over_the_filter(self):
        self.check_io(1)
        self.attach('fmt')
        self.overlay('flt')
        self.assertEqual(self.filter_info(self.d, 'flt')['place'],
                         'backing')
        self.check_io(2)
        self.assertEqual(self.client.pread(65536, 65536), b'\1' * 65536)
        self.detach()
        self.assertEqual(self.client.pread(65536, 65536), b'\1' * 65536)
        self.assertIn(('overlay', 'backing', 'fmt'),
                      [e[:3] for e in graph(self.d)[1]])
        self.finish()

    def test_snapshot_below_the_filter(self):
        self.attach('fmt')
        self.overlay('fmt')
        self.assertEqual(self.filter_info(self.d, 'flt')['child'], 'overlay')
        self.assertEqual(self.filter_info(self.d, 'flt')['place'], 'disk')
        self.check_io(2)
        self.detach()
        self.check_io(3)
        self.finish()

    def test_snapshot_with_the_filter_at_the_storage(self):
        self.attach('file')
        self.overlay('fmt')
        self.assertEqual(self.filter_info(self.d, 'flt')['place'],
                         'backing')
        self.check_io(2)
        self.detach()
        self.finish()

    def test_internal_snapshot_through_the_filter(self):
        for place in ('fmt', 'file'):
            self.attach(place)
            self.check_io(1)
            root = 'flt' if place == 'fmt' else 'fmt'
            self.d.cmd('blockdev-snapshot-internal-sync',
                       {'device': root, 'name': 'one'})
            self.check_io(2)
            self.d.cmd('blockdev-snapshot-delete-internal-sync',
                       {'device': root, 'name': 'one'})
            self.detach()
            self.check_io(3)
        self.finish()


class Exports(Disk):
    def add_iothread(self, task):
        """Returns its thread.  Others, of QEMU's pool, come and go."""
        while True:
            threads = set(os.listdir(task))
            self.d.cmd('object-add', {'qom-type': 'iothread', 'id': 'io1'})
            new = set(os.listdir(task)) - threads
            if len(new) == 1:
                return new.pop()
            self.d.cmd('object-del', {'id': 'io1'})

    def test_iothread_of_the_export_is_kept(self):
        """Opening a node may not drag the disk to the main loop."""
        task = f'/proc/{self.d.process.pid}/task'
        io = self.add_iothread(task)
        self.client.shutdown()
        self.d.cmd('block-export-del', id='exp')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')
        self.d.cmd('block-export-add', {
            'type': 'nbd', 'id': 'exp', 'node-name': 'fmt', 'name': 'disk',
            'writable': True, 'iothread': 'io1'})
        self.client = self.connect()
        before = graph(self.d)
        for _ in range(3):
            self.attach('fmt')

            # how often the thread that has to serve the request ran
            def cpu():
                with open(f'{task}/{io}/schedstat') as f:
                    return int(f.read().split()[2])
            for change in (self.detach, lambda: None):
                ran = cpu()
                for i in range(50):
                    self.client.pread(4096, i * 4096)
                # two of them may be served in one go
                self.assertGreaterEqual(cpu() - ran, 40)
                change()
        self.assertEqual(graph(self.d), before)
        self.finish()

    def test_vhost_user_blk(self):
        self.d.cmd('block-export-add', {
            'type': 'vhost-user-blk', 'id': 'vu', 'node-name': 'fmt',
            'writable': True,
            'addr': {'type': 'unix', 'path': self.path('vu.sock')}})
        before = graph(self.d)
        self.attach('fmt')
        self.attach('file', 'low')
        self.check_io()
        self.assertEqual(len(self.filter_info(self.d, 'flt')['parents']), 2)
        self.detach()
        self.detach('low')
        self.assertEqual(graph(self.d), before)
        self.finish()

    def test_new_clients_while_it_is_attached_and_detached(self):
        stop = threading.Event()
        errors = []

        def connect():
            while not stop.is_set():
                try:
                    client = self.connect()
                    client.pread(4096, 0)
                    client.shutdown()
                except nbd.Error as error:
                    errors.append(error)
                    return
        thread = threading.Thread(target=connect)
        thread.start()
        try:
            for _ in range(30):
                self.attach('fmt')
                self.detach()
        finally:
            stop.set()
            thread.join()
        self.assertEqual(errors, [])
        self.finish()


class Reopen(Disk):
    def test_way_of_libvirt(self):
        """blockdev-add and blockdev-reopen put it there and back, too."""
        before = graph(self.d)
        self.d.cmd('blockdev-add', {'driver': 'weir-inspect',
                                    'node-name': 'flt', 'file': 'file'})
        reopen = {'driver': 'qcow2', 'node-name': 'fmt', 'discard': 'unmap'}
        self.d.cmd('blockdev-reopen', {'options': [
            {**reopen, 'file': 'flt'}]})
        self.check_io()
        self.assertEqual(self.filter_info(self.d, 'flt')['place'], 'storage')
        # what lasts shorter than half a second is not told
        time.sleep(1)
        self.d.cmd('blockdev-reopen', {'options': [
            {**reopen, 'file': 'file'}]})
        self.d.qmp.event('WEIR_STATE', lambda d: d['state'] == 'degraded')
        self.d.cmd('blockdev-reopen', {'options': [
            {**reopen, 'file': 'flt'}]})
        self.d.qmp.event('WEIR_STATE', lambda d: d['state'] == 'ok')
        self.detach()
        self.assertEqual(graph(self.d), before)
        self.finish()

    def test_unused_filter_is_deleted_in_the_usual_way(self):
        before = graph(self.d)
        self.d.cmd('blockdev-add', {'driver': 'weir-inspect',
                                    'node-name': 'flt', 'file': 'file'})
        self.assertEqual(self.filter_info(self.d, 'flt')['place'], 'unused')
        self.assertEqual(self.filter_info(self.d, 'flt')['state'], 'ok')
        self.d.cmd('blockdev-del', {'node-name': 'flt'})
        self.assertEqual(graph(self.d), before)
        self.finish()


class Query(Disk):
    def test_all_and_one(self):
        self.assertEqual(self.d.cmd('query-weir'), [])
        self.attach('fmt', 'a')
        self.attach('file', 'b')
        names = sorted(i['node-name'] for i in self.d.cmd('query-weir'))
        self.assertEqual(names, ['a', 'b'])
        self.assertFails("Node 'x' not found", self.d.cmd, 'query-weir',
                         {'node-name': 'x'})
        self.assertFails("Node 'fmt' is not a weir filter", self.d.cmd,
                         'query-weir', {'node-name': 'fmt'})
        self.finish()

    def test_during_requests(self):
        stop = threading.Event()
        self.attach('fmt')

        def load():
            client = self.connect()
            while not stop.is_set():
                client.pwrite(b'x' * 65536, 0)
            client.shutdown()
        thread = threading.Thread(target=load)
        thread.start()
        try:
            seen = [self.filter_info(self.d, 'flt')['writes']['requests']
                    for _ in range(200)]
            wait_for(lambda: self.filter_info(
                self.d, 'flt')['writes']['requests'] > seen[0], 'requests')
        finally:
            stop.set()
            thread.join()
        self.assertEqual(seen, sorted(seen))
        self.finish()


if __name__ == '__main__':
    main()
