#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-plugin: what the host owes to plugins, and what it bears from them:
order of calls, drained sections, hand-overs, limits, wrong calls."""

import errno
import threading
import time

import nbd

from plugindisk import MIB, PLUGINS, Disk
from vhostqueue import IN, OUT, Queue
from vhostuser import VhostUserBlk
from weirtest import blockdev, main, run, statistics, wait_for


class Host(Disk):
    def drop_export(self):
        self.client.shutdown()
        self.d.cmd('block-export-del', id='exp', mode='hard')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')

    def gauges(self, node='flt'):
        return {g['name']: g['value']
                for g in self.filter_info(self.d, node)['gauges']}

    def set_active(self, active):
        self.d.cmd('blockdev-set-active', {'node-name': 'flt',
                                           'active': active})

    def add_export(self, **options):
        self.d.cmd('block-export-add', {
            'type': 'nbd', 'id': 'exp', 'node-name': 'flt', 'name': 'disk',
            'writable': True, 'iothread': 'io0', **options})
        self.client = self.connect()
        return self.client


class Wrong(Host):
    """Calls that make no sense end with an error, not with the machine."""

    def serve_wrong(self, how):
        return self.serve('wrong', options={'how': how})

    def test_calls(self):
        for how, error in (('thread', errno.EINVAL), ('null', errno.EINVAL),
                           ('many', errno.EINVAL), ('long', errno.EINVAL),
                           ('scribble', 0)):
            with self.subTest(how):
                client = self.serve_wrong(how)
                client.pwrite(b'a' * 65536, 65536)
                self.assertEqual(client.pread(65536, 65536), b'a' * 65536)
                self.assertEqual(self.gauges()['error'], error)
                self.assertEqual('outside of the callback' in self.d.output(),
                                 how == 'thread')
                self.finish()

    def test_status(self):
        """What lies where comes in multiples of the alignment."""
        path = self.image(size=MIB)
        with open(path, 'r+b') as f:
            f.seek(4096)
            f.write(b'a' * 4096)
        for how, zero in (('not', False), ('status', True)):
            opts = (f'driver=weir-plugin,plugin=wrong,options.how={how},'
                    f'file.filename={path}')
            result = run('qemu-img', 'map', '--output=json', '--image-opts',
                         opts)
            self.assertIn('{ "start": 0, "length": ' +
                          ('1048576' if zero else '65536'), result.stdout)
            run('qemu-img', 'compare', '--image-opts', opts, opts)

    def test_discards_of_parts_of_blocks(self):
        """They are ignored: a plugin sees multiples of its alignment."""
        client = self.serve_wrong('not')
        client.set_strict_mode(client.get_strict_mode() & ~nbd.STRICT_ALIGN)
        client.pwrite(b'a' * 4 * 65536, 0)
        client.trim(2 * 65536, 4096)
        self.assertEqual(client.pread(4096, 0), b'a' * 4096)
        gauges = self.gauges()
        self.assertEqual((gauges['discards'], gauges['unaligned']), (1, 0))
        self.finish()

    def test_short_transfers_below(self):
        """Shorter than the alignment of the plugin."""
        opts = ('driver=weir-plugin,plugin=wrong,file.driver=blkdebug,'
                'file.align=4096,file.max-transfer=4096,'
                f'file.image.filename={self.image(size=MIB)}')
        run('qemu-io', '-c', 'write -P 7 100 100k', '-c', 'read -P 7 100 100k',
            '-c', 'read -P 0 0 100', '--image-opts', opts)

    def test_requests_without_data(self):
        """A guest may send them."""
        for plugin, options in (('probe', {'mode': 'hold', 'hold-ms': 1}),
                                ('strict', {})):
            with self.subTest(plugin):
                sock = self.path(plugin)
                self.d = self.daemon(
                    '--blockdev', blockdev(driver='file', node_name='file',
                                           filename=self.image(size=MIB)),
                    '--blockdev', blockdev(driver='weir-plugin', file='file',
                                           node_name='flt', plugin=plugin,
                                           options=options),
                    '--export', 'type=vhost-user-blk,id=exp,node-name=flt,'
                    f'writable=on,addr.type=unix,addr.path={sock}')
                queue = Queue(sock)
                queue.submit(OUT)
                queue.submit(IN)
                queue.write(0, b'a' * 512)
                ended = []
                while len(ended) < 3:
                    self.assertTrue(queue.wait(60), 'a request hangs')
                    ended += queue.take()
                self.assertEqual([status for _, status, _ in ended], [0] * 3)
                if plugin == 'strict':
                    self.assertEqual(self.gauges()['empty'], 0)
                queue.shutdown()
                self.d.quit()


class Order(Host):
    def test_a_length_that_cannot_be(self):
        """The plugin is told of it as of any other."""
        path = self.image('fmt.qcow2', fmt='qcow2', size=16 * MIB)
        with open(path, 'r+b') as f:
            f.truncate(MIB)
        self.d = self.daemon(
            '--blockdev', blockdev(
                driver='weir-plugin', node_name='flt', plugin='strict', file={
                    'driver': 'raw', 'size': MIB, 'file': {
                        'driver': 'file', 'filename': path}}),
            '--blockdev', blockdev(driver='qcow2', file='flt',
                                   node_name='fmt'),
            '--nbd-server', f'addr.type=unix,addr.path={self.path("nbd")}',
            '--export', 'nbd,id=exp,node-name=fmt,name=disk,writable=on')
        self.sock = self.path('nbd')
        client = self.connect()
        with self.assertRaises(nbd.Error):
            client.pwrite(b'a' * 2 * MIB, 0)
        gauges = self.gauges()
        self.assertGreater(gauges['resize'], 0)
        self.assertEqual(gauges['resize'], gauges['resized'])
        client.shutdown()
        self.d.quit()

    def test_nothing_comes_before_it_is_prepared(self):
        self.serve('probe')
        self.drop_export()
        self.d.cmd('blockdev-del', {'node-name': 'flt'})
        self.d.cmd('blockdev-add', {
            'driver': 'weir-plugin', 'node-name': 'flt', 'plugin': 'strict',
            'file': 'file', 'active': False})
        client = self.add_export(**{'allow-inactive': True})
        for _ in range(2):
            stop = threading.Event()

            def load():
                while not stop.is_set():
                    client.pread(4096, 0)
            join = self.in_thread(load)
            self.set_active(True)
            stop.set()
            self.assertIsNone(join()[1])
            client.pwrite(b'a' * 4096, 0)
            self.assertEqual(self.gauges()['early'], 0)
            self.set_active(False)
        self.assertEqual(self.gauges()['activate'], 1)
        self.finish()

    def test_a_user_that_stays(self):
        """The disk cannot be handed over then, and the node goes on."""
        client = self.serve('strict')
        for _ in range(2):
            self.assertFails('Operation not permitted', self.set_active, False)
            client.pwrite(b'a' * 4096, 0)
            self.assertEqual(client.pread(4096, 0), b'a' * 4096)
        self.assertEqual(self.gauges()['early'], 0)
        self.finish()

    def test_a_plugin_that_refuses(self):
        """... and begins its work again, which was ended before."""
        self.serve('strict', options={'refuse': True})
        self.drop_export()
        self.assertFails('Device or resource busy', self.set_active, False)
        wait_for(lambda: self.gauges()['tasks'] == 1, 'its work')
        client = self.add_export()
        client.pwrite(b'a' * 4096, 0)
        self.assertEqual(self.gauges()['early'], 0)
        self.finish()

    def test_a_flush_that_fails(self):
        """The plugin had given up the disk; it gets it back."""
        self.d = self.daemon(
            '--blockdev', blockdev(
                driver='weir-plugin', node_name='flt', plugin='strict', file={
                    'driver': 'blkdebug', 'inject-error': [{
                        'event': 'none', 'iotype': 'flush', 'errno': 5,
                        'once': True}],
                    'image': {'driver': 'file', 'filename':
                              self.image(size=MIB)}}),
            '--nbd-server', f'addr.type=unix,addr.path={self.path("nbd")}',
            '--object', 'iothread,id=io0')
        self.sock = self.path('nbd')
        client = self.add_export(**{'allow-inactive': True})
        client.pwrite(b'a' * 4096, 0)
        self.assertFails('Input/output error', self.set_active, False)
        self.assertEqual(self.gauges()['activate'], 1)
        client.pwrite(b'b' * 4096, 0)
        self.assertEqual(client.pread(4096, 0), b'b' * 4096)
        self.assertEqual(self.gauges()['early'], 0)
        self.finish()

    def test_what_is_brought_down_is_flushed(self):
        self.image('side.img', size=65536)
        self.d = self.daemon(
            '--blockdev', blockdev(driver='weir-inspect', node_name='below',
                                   file={'driver': 'file', 'filename':
                                         self.image(size=MIB)}),
            '--blockdev', blockdev(driver='weir-plugin', node_name='flt',
                                   plugin='late', file='below'),
            '--nbd-server', f'addr.type=unix,addr.path={self.path("nbd")}',
            '--object', 'iothread,id=io0')
        self.sock = self.path('nbd')
        client = self.add_export(**{'allow-inactive': True})
        client.pwrite(b'a' * 4096, 0)

        def below():
            s = statistics(self.filter_info(self.d, 'below'))
            return s['write']['requests'], s['flush']['requests']
        self.assertEqual(below(), (0, 0))
        self.set_active(False)
        self.assertEqual(below(), (1, 1))
        self.finish()

    def test_an_end_between_blocks(self):
        """The disk may have another length when it comes."""
        self.serve('probe')
        self.drop_export()
        self.d.cmd('blockdev-add', {
            'driver': 'weir-plugin', 'node-name': 'two', 'plugin': 'wrong',
            'active': False, 'file': {
                'driver': 'file', 'active': False,
                'filename': self.image('two.img', size=MIB)}})
        with open(self.path('two.img'), 'r+b') as f:
            f.truncate(MIB + 512)
        self.assertFails('needs a disk of a multiple of 65536 bytes',
                         self.d.cmd, 'blockdev-set-active',
                         {'node-name': 'two', 'active': True})
        self.d.quit()


class Drained(Host):
    def test_callbacks_and_tasks_with_one_lock(self):
        """A task that has it, and waits for the end of the section, must not be
        waited for there."""
        side = self.image('side.img', size=4096)
        self.serve('worker', sidecar={
            'driver': 'file', 'filename': side, 'node-name': 'side'})
        self.drop_export()
        for i in range(300):
            self.d.cmd('block_resize', {'node-name': 'flt',
                                        'size': (16 + i % 2) * MIB})
        self.assertEqual(self.counts()['failed'], 0)
        self.d.quit()


class Held(Host):
    """A write that the plugin holds, while something happens to the disk."""

    def overlay(self):
        self.image('over.qcow2', size=16 * MIB, fmt='qcow2')
        self.d.cmd('blockdev-add', {
            'driver': 'qcow2', 'node-name': 'over', 'backing': None,
            'file': {'driver': 'file', 'filename': self.path('over.qcow2')}})
        self.d.cmd('blockdev-snapshot', {'node': 'flt', 'overlay': 'over'})

    def attach(self):
        self.d.cmd('weir-attach', {'node-name': 'flt', 'filter': {
            'driver': 'weir-inspect', 'file': 'flt', 'node-name': 'top'}})

    def reopen_below(self):
        self.d.cmd('blockdev-reopen', {'options': [{
            'driver': 'file', 'node-name': 'file', 'discard': 'ignore',
            'filename': self.file}]})

    def hand_over(self):
        self.set_active(False)
        self.set_active(True)

    def detach(self):
        self.d.cmd('weir-detach', {'node-name': 'flt'})

    def changes(self):
        return (self.overlay, self.attach, self.detach, self.reopen_below,
                self.hand_over)

    def while_held(self, mode, change, hold_ms=0, **options):
        """Returns the error of the write, or None."""
        with self.subTest(change.__name__):
            self.kill_all()             # if the one before has failed
            self.serve(options={'mode': mode, 'label': 'x',
                                'hold-ms': hold_ms}, **options)
            self.drop_export()
            client = self.add_export(**{'allow-inactive': True})
            write = self.in_thread(client.pwrite, b'a' * 4096, MIB)
            self.wait_held(1)
            begin = time.monotonic()
            change()
            self.assertLess(time.monotonic() - begin, 10)
            error = write()[1]
            if hold_ms and change != self.detach:
                # it is late, and does no harm any more
                wait_for(lambda: self.info()['expired'] == 0, 'its return')
            if change != self.detach:
                self.set(label='x', hold_ms=0)
            self.assertEqual(client.pread(4096, MIB),
                             bytes(4096) if error else b'a' * 4096)
            client.pwrite(b'b' * 4096, 0)
            client.flush()
            self.assertEqual(client.pread(4096, 0), b'b' * 4096)
            if change != self.detach:
                info = self.state('ok')
                self.assertEqual((info['held'], info['expired']), (0, 0))
            self.finish()
            return error

    def test_and_given_back(self):
        for change in self.changes():
            self.assertIsNone(self.while_held('hold', change))

    def test_and_not_given_back(self):
        """Not in time: the machine goes on, and the write fails.  An overlay
        would need a flush, and is refused; a timer does not outlive that the
        disk is handed over."""
        for change in self.attach, self.detach, self.reopen_below:
            error = self.while_held('late', change, hold_ms=2000, deadline=500)
            self.assertEqual(error and error.errno, 'EIO')

    def test_where_the_disk_ends(self):
        """It is for a place that is gone afterwards."""
        for mode, error in (('hold', False), ('late', True)):
            self.serve(options={'mode': mode}, deadline=500)
            self.drop_export()
            self.d.cmd('block-export-add', {
                'type': 'vhost-user-blk', 'id': 'exp', 'node-name': 'flt',
                'writable': True, 'iothread': 'io0', 'addr': {
                    'type': 'unix', 'path': self.path(mode)}})
            client = VhostUserBlk(self.path(mode))
            write = self.in_thread(client.pwrite, b'a' * 4096, 12 * MIB)
            self.wait_held(1)
            resize = ('block_resize', {'node-name': 'flt', 'size': 8 * MIB})
            if error:
                self.assertFails('requests that have expired', self.d.cmd,
                                 *resize)
            else:
                self.d.cmd(*resize)
            self.assertEqual(write()[1] is not None, error)
            client.shutdown()
            self.d.quit()

    def test_and_passed_by(self):
        for change in self.changes():
            self.assertIsNone(self.while_held('late', change, deadline=1500,
                                              on_error='bypass'))


class Forced(Host):
    """weir-detach with force, of a plugin that does its work."""

    def detach_under_load(self, plugin, **options):
        self.serve(plugin, **options)
        clients = [self.client] + [self.connect() for _ in range(3)]
        stop = threading.Event()

        def load(client, at):
            while not stop.is_set():
                client.pwrite(b'a' * 4096, at)
        joins = [self.in_thread(load, client, i * MIB)
                 for i, client in enumerate(clients)]
        for _ in range(25):
            self.d.cmd('weir-detach', {'node-name': 'flt', 'force': True})
            self.d.cmd('weir-attach', {'node-name': 'file', 'filter': {
                'driver': 'weir-plugin', 'plugin': plugin, 'file': 'file',
                'node-name': 'flt', **options}})
            if not all(join.is_alive() for join in joins):
                break
        stop.set()
        self.assertEqual([join()[1] for join in joins], [None] * 4)
        for client in clients[1:]:
            client.shutdown()
        self.finish()

    def test_one_that_sleeps(self):
        self.detach_under_load('probe', options={'mode': 'sleep'})

    def test_one_that_holds_data(self):
        self.detach_under_load('late')

    def test_one_that_changes_data(self):
        self.detach_under_load('mask')


if __name__ == '__main__':
    main()
