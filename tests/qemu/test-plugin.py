#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-plugin: what is loaded and what is refused, requests, options, held
requests and their deadlines, attach and detach, data that is held."""

import os
import shutil
import subprocess
import threading
import time

import nbd

from plugindisk import MIB, PLUGINS, Disk
from weirtest import (SOURCE, QMPError, TestCase, blockdev, main, run,
                      statistics, wait_for)


class Refused(TestCase):
    def refused(self, plugin, text, *options):
        result = run('qemu-io', '-r', '-c', 'read 0 4k', '--image-opts',
                     ','.join(['driver=weir-plugin', f'plugin={plugin}',
                               'file.driver=null-co', 'file.size=1M',
                               *options]), check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn(text, result.stderr)

    def test_what_a_plugin_says_of_itself(self):
        for name, text in {
                'abi': 'it was built for version 99 of the interface, this is '
                       'version 1',
                'size': 'its description has 40 bytes, expected',
                'open': "it has no callback 'open'",
                'changes': "it changes data, and has no callback 'write'",
                'holds': "it holds data, and has no callback 'flush'",
                'bypass': 'it changes data, and says that it may be bypassed',
                'symbol': 'undefined symbol: there_is_no_such_function',
                'option': "option 'number' is 'eleven', it has to be an "
                          'integer',
                'load': 'does not want to be used: No such device',
                'note': 'it is not a plugin of Weir',
                'name': "it is called 'good', not as its file",
                'alignment': 'its alignment is 1000, it has to be a power of '
                             'two of 512 to 65536',
                'disk': 'refuses the disk: node \'#block',
                'prepare': "Plugin 'bad-prepare' cannot prepare the disk: "
                           'there is nothing on it: No such file or directory',
        }.items():
            with self.subTest(name):
                self.refused(f'bad-{name}', text)

    def test_files(self):
        self.refused('none', f"no plugin 'none' in {PLUGINS}")
        self.refused('/nonexistent/x.so', "'/nonexistent/x.so': No such file")
        self.refused(self.dir + '/x', 'has to end in .so')
        path = self.path('probe.so')
        shutil.copy(os.path.join(PLUGINS, 'probe.so'), path)
        os.chmod(path, 0o666)
        self.refused(path, f"'{path}' is refused: it can be written to by all "
                     'users')
        os.chmod(path, 0o755)
        os.chmod(self.dir, 0o777)
        self.refused(path, 'its folder can be written to by all users')
        os.chmod(self.dir, 0o700)
        if os.geteuid() == 0:
            os.chown(path, 4321, 0)
            self.refused(path, 'it belongs to user 4321, expected root or 0')

    def test_options(self):
        self.refused('probe', "there is no option 'foo', expected one of: "
                     'mode, hold-ms, label, quick, room', 'options.foo=1')
        self.refused('probe', "option 'mode' is 'x', it has to be one of "
                     'pass,forward', 'options.mode=x')
        self.refused('probe', "option 'hold-ms' is 10001, it has to be 0 to "
                     '10000 ms', 'options.hold-ms=10001')
        self.refused('probe', "option 'room' is 'much', it has to be a number "
                     'of bytes, like 64K', 'options.room=much')
        self.refused('probe', "option 'quick' is 'no', it has to be on or off",
                     'options.quick=no')
        self.refused('probe', "option 'mode' has to be a single value",
                     'options.mode.x=y')
        self.refused('probe', "option 'hold-ms' makes no sense with "
                     'mode=cannot', 'options.mode=cannot',
                     'options.hold-ms=5')
        self.refused('probe', "Parameter 'on-error' does not accept value "
                     "'maybe'", 'on-error=maybe')
        self.refused('mask', 'on-error=bypass is not possible with plugin '
                     "'mask'", 'on-error=bypass')
        self.refused('probe', "Plugin 'probe' has no use for a sidecar",
                     'sidecar.driver=null-co')
        self.refused('worker', "Plugin 'worker' needs a sidecar")
        self.refused('mask', "Plugin 'mask' needs a disk of a multiple of "
                     '4096 bytes, this one would have 513536',
                     'file.size=513536')


class Requests(Disk):
    def test_each_kind(self):
        client = self.serve(options={'mode': 'forward', 'label': 'x'})
        client.pwrite(b'a' * 4096, 0)
        client.pwrite(b'b' * 4096, 4096, nbd.CMD_FLAG_FUA)
        self.assertEqual(client.pread(8192, 0), b'a' * 4096 + b'b' * 4096)
        client.zero(MIB, MIB)
        client.trim(MIB, 2 * MIB)
        client.flush()
        # longer than a plugin is given at a time
        client.pwrite(b'c' * 3 * MIB, 4 * MIB)
        self.assertEqual(client.pread(3 * MIB, 4 * MIB), b'c' * 3 * MIB)
        counts = self.counts()
        self.assertEqual(counts['writes'], 2 + 3)
        self.assertEqual(counts['reads'], 1 + 3)
        self.assertEqual(counts['zeroes'], 1)
        self.assertEqual(counts['discards'], 1)
        self.assertEqual(counts['fuas'], 0)     # a flush comes instead
        self.assertGreaterEqual(counts['flushes'], 2)
        self.assertEqual(counts['prepares'], 1)
        info = self.info()
        self.assertEqual(info['options'], {
            'mode': 'forward', 'hold-ms': 0, 'label': 'x', 'quick': True,
            'room': MIB})
        self.assertEqual((info['plugin'], info['version'], info['class']),
                         ('probe', '1.0', 'inspection'))
        self.assertEqual(statistics(info)['write']['requests'], 5)
        for mode in 'pass', 'sleep', 'pool':
            self.set(mode=mode, label='x')
            client.pwrite(b'd' * 512, 512)
            self.assertEqual(client.pread(1024, 0), b'a' * 512 + b'd' * 512)
        self.set(mode='deny', label='x')
        with self.assertRaises(nbd.Error):
            client.pwrite(b'e' * 512, 512)
        self.assertEqual(self.info()['state'], 'ok')
        self.set(label='x')
        self.assertEqual(client.pread(512, 512), b'd' * 512)
        self.finish()
        with open(self.file, 'rb') as f:
            self.assertEqual(f.read(1024), b'a' * 512 + b'd' * 512)

    def test_a_plugin_that_changes_data(self):
        client = self.serve('mask')
        client.zero(65536, MIB)
        client.trim(65536, 2 * MIB)             # ignored
        self.assertEqual(client.pread(65536, MIB), bytes(65536))
        self.finish()
        opts = f'driver=weir-plugin,plugin=mask,file.filename={self.file}'
        # not aligned
        run('qemu-io', '-c', 'write -P 0x78 100 700', '-c', 'read -P 0x78 100 '
            '700', '-c', 'read -P 0x5a 0 100', '--image-opts', opts)
        with open(self.file, 'rb') as f:
            self.assertEqual(f.read(800), bytes(100) + b'"' * 700)
            f.seek(MIB)
            self.assertEqual(f.read(65536), b'\x5a' * 65536)
        # all of it is data, whatever lies below
        result = run('qemu-img', 'map', '--output=json', '--image-opts', opts)
        self.assertEqual(result.stdout.count('start'), 1)
        self.assertIn('"zero": false, "data": true', result.stdout)
        result = run('qemu-io', '-c', 'truncate 5000', '--image-opts', opts,
                     check=False)
        self.assertIn('needs a disk of a multiple of 4096 bytes',
                      result.stderr)

    def test_a_format_above(self):
        """Its file gets longer by writes behind the end."""
        for plugin in 'mask', 'late', 'probe':
            with self.subTest(plugin):
                path = self.image(f'{plugin}.img', size=0)
                d = self.daemon(
                    '--blockdev', blockdev(driver='file', filename=path,
                                           node_name='file'),
                    '--blockdev', blockdev(driver='weir-plugin', file='file',
                                           plugin=plugin, node_name='flt'))
                d.cmd('blockdev-create', {'job-id': 'c', 'options': {
                    'driver': 'qcow2', 'file': 'flt', 'size': 16 * MIB}})
                wait_for(lambda: d.cmd('query-jobs')[0]['status'] ==
                         'concluded', 'its creation')
                self.assertNotIn('error', d.cmd('query-jobs')[0])
                d.quit()
                chain = ('driver=qcow2,file.driver=weir-plugin,file.plugin='
                         f'{plugin},file.file.filename={path}')
                run('qemu-io', '-c', 'write -P 9 1M 5M', '-c', 'write -z 8M '
                    '1M', '-c', 'flush', '--image-opts', chain)
                run('qemu-io', '-c', 'read -P 9 1M 5M', '-c', 'read -P 0 8M '
                    '1M', '--image-opts', chain)
                run('qemu-img', 'check', '--image-opts', chain)
                # looks at nothing
                run('qemu-img', 'info', '--image-opts', chain)
                run('qemu-img', 'info', '--image-opts', 'driver=weir-plugin,'
                    f'plugin={plugin},file.filename={path}')

    def test_offloads(self):
        """A disk with a hole is copied as such through one that passes."""
        self.serve()
        self.client.pwrite(b'a' * 65536, 8 * MIB)
        self.finish()
        out = self.path('out.img')
        run('qemu-img', 'convert', '-n' if os.path.exists(out) else '-q',
            '--image-opts', f'driver=weir-plugin,plugin=probe,'
            f'file.filename={self.file}', '-O', 'raw', out)
        self.assertLess(os.stat(out).st_blocks * 512, MIB)

    def test_backing_files(self):
        """What only a backing file has is copied through a plugin."""
        base = self.image('base.img', size=MIB)
        with open(base, 'r+b') as f:
            f.write(b'b' * MIB)
        over = self.image('over.qcow2', size=MIB, fmt='qcow2',
                          backing_file=base, backing_fmt='raw')
        out = self.image('out.img', size=MIB)
        d = self.daemon(
            '--blockdev', blockdev(driver='qcow2', node_name='fmt', file={
                'driver': 'file', 'filename': over}),
            '--blockdev', blockdev(driver='weir-plugin', node_name='flt',
                                   plugin='empty', file='fmt'),
            '--blockdev', blockdev(driver='file', node_name='out',
                                   filename=out))
        d.cmd('blockdev-mirror', {'job-id': 'm', 'device': 'flt',
                                  'target': 'out', 'sync': 'full'})
        d.qmp.event('BLOCK_JOB_READY')
        d.cmd('job-cancel', id='m')
        d.qmp.event('BLOCK_JOB_CANCELLED')
        d.quit()
        with open(out, 'rb') as f:
            self.assertEqual(f.read(), b'b' * MIB)

    def test_order_of_flushes(self):
        client = self.serve('probe-ordered', options={'mode': 'hold'})
        write = self.in_thread(client.pwrite, b'a' * 512, 0)
        self.wait_held(1)
        other = self.connect()
        flush = self.in_thread(other.flush)
        time.sleep(0.3)
        self.assertEqual(self.counts()['flushes'], 0)
        self.set('probe-ordered')
        self.assertEqual((write()[1], flush()[1]), (None, None))
        # this one takes care of it itself
        client.pwrite(b'b' * 512, 0, nbd.CMD_FLAG_FUA)
        self.assertEqual(self.counts()['fuas'], 1)
        other.shutdown()
        self.finish()

    def test_one_at_a_time(self):
        for plugin, together in ('probe', True), ('probe-serial', False):
            with self.subTest(plugin):
                self.serve(plugin, options={'mode': 'sleep'})
                clients = [self.client] + [self.connect() for _ in range(3)]
                joins = [self.in_thread(c.pwrite, b'a' * 512, i * 512)
                         for i, c in enumerate(clients)]
                for join in joins:
                    self.assertIsNone(join()[1])
                self.assertEqual(self.counts()['together'] > 0, together)
                for client in clients[1:]:
                    client.shutdown()
                self.finish()

    def test_not_on_top_of_itself(self):
        self.serve('probe-serial')
        self.assertFails('takes one request at a time, and cannot be on top of '
                         'itself', self.d.cmd, 'weir-attach', {
                             'node-name': 'flt', 'filter': {
                                 'driver': 'weir-plugin', 'file': 'flt',
                                 'plugin': 'probe-serial',
                                 'node-name': 'flt2'}})
        self.assertFails('cannot be on top of itself', self.d.cmd,
                         'weir-attach', {
                             'node-name': 'file', 'filter': {
                                 'driver': 'weir-plugin', 'file': 'file',
                                 'plugin': 'probe-serial',
                                 'node-name': 'flt2'}})
        self.client.pwrite(b'a' * 512, 0)
        self.finish()

    def test_length(self):
        self.serve()
        self.client.shutdown()
        self.d.cmd('block-export-del', id='exp', mode='hard')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')
        self.d.cmd('block_resize', {'node-name': 'flt', 'size': 32 * MIB})
        self.assertEqual(self.counts()['resizes'], 1)
        self.assertFails("Plugin 'probe' refuses the new length", self.d.cmd,
                         'block_resize', {'node-name': 'flt',
                                          'size': 2 << 30})
        self.assertEqual(os.stat(self.file).st_size, 32 * MIB)
        self.d.quit()

    def test_a_nonsensical_verdict(self):
        self.serve('bad-verdict', on_error='fail')
        with self.assertRaises(nbd.Error) as caught:
            self.client.pwrite(b'a' * 512, 0)
            self.client.pread(512, 0)
        self.assertEqual(caught.exception.errno, 'EIO')
        self.assertIn('has returned 2 without weir_plugin_hold()',
                      self.d.output())
        self.finish()


class Options(Disk):
    def test_manual(self):
        """The plugin with which weir-plugin(3) begins."""
        with open(os.path.join(SOURCE, 'docs/man/weir-plugin.3'),
                  encoding='utf-8') as f:
            text = f.read().split('.Bd -literal\n', 1)[1].split('.Ed', 1)[0]
        with open(self.path('quiet.c'), 'w', encoding='utf-8') as f:
            f.write(text.replace('\\e', '\\'))
        library = self.path('quiet.so')
        subprocess.run(['cc', '-std=c99', '-Wall', '-Wextra', '-Wpedantic',
                        '-Werror', '-shared', '-fPIC', '-o', library,
                        '-I' + os.path.join(SOURCE, 'filters/plugin'),
                        self.path('quiet.c')], check=True)
        opts = (f'driver=weir-plugin,plugin={library},options.below=1M,'
                f'file.filename={self.image(size=2 * MIB)}')
        run('qemu-io', '-c', 'write 1M 64k', '--image-opts', opts)
        result = run('qemu-io', '-c', 'write 0 64k', '--image-opts', opts,
                     check=False)
        self.assertIn('Operation not permitted', result.stdout + result.stderr)

    def test_at_run_time(self):
        self.serve(options={'label': 'one'})
        self.set(mode='forward', label='one')
        self.assertEqual(self.counts()['changes'], 1)
        self.assertFails("option 'label' cannot be changed while the node is "
                         'open', self.set, label='two')
        self.assertFails('plugin cannot be changed', self.set,
                         plugin='probe-serial', label='one')
        self.assertFails("'options.label' cannot be reset", self.set)
        self.assertEqual(self.info()['options']['mode'], 'forward')
        self.finish()

    def test_at_run_time_without_any_before(self):
        self.serve(options={})
        self.set(mode='pass', hold_ms=5)
        self.set(mode='forward', hold_ms=0)
        self.finish()

    def test_file_that_is_gone(self):
        """What is in use can still be asked for, by its path."""
        path = self.path('probe.so')
        shutil.copy(os.path.join(PLUGINS, 'probe.so'), path)
        self.serve(path)
        os.unlink(path)
        about = self.d.cmd('query-weir-plugin', plugin=self.info()['path'])
        self.assertEqual(about['name'], 'probe')
        self.finish()

    def test_what_is_told_of_plugins(self):
        d = self.daemon()
        files = {f['name']: f for f in d.cmd('query-weir-plugins')}
        self.assertNotIn('problem', files['probe'])
        self.assertEqual(files['probe']['abi'], 1)
        self.assertEqual(files['bad-note']['problem'],
                         'it is not a plugin of Weir')
        about = d.cmd('query-weir-plugin', {'plugin': 'probe'})
        self.assertEqual((about['class'], about['concurrency'],
                          about['may-bypass'], about['changes-data']),
                         ('inspection', 'parallel', True, False))
        self.assertIn('write', about['callbacks'])
        options = {o['name']: o for o in about['options']}
        self.assertEqual(options['hold-ms'], {
            'name': 'hold-ms', 'type': 'int', 'unit': 'ms', 'min': 0,
            'max': 10000, 'mandatory': False, 'mutable': True,
            'help': 'for how long they are held; 0: for ever'})
        self.assertEqual(options['mode']['choices'][:2], ['pass', 'forward'])
        self.assertFails("no plugin 'none'", d.cmd, 'query-weir-plugin',
                         {'plugin': 'none'})

        def check(**options):
            d.cmd('weir-check-options', {'filter': {
                'driver': 'weir-plugin', 'file': 'none', **options}})
        check(plugin='probe', options={'hold-ms': 5, 'quick': False})
        self.assertFails("option 'hold-ms' is 'x'", check, plugin='probe',
                         options={'hold-ms': 'x'})
        self.assertFails('has to be a dictionary', check, plugin='probe',
                         options='x')
        d.quit()


class Held(Disk):
    def test_and_given_back(self):
        client = self.serve(options={'mode': 'hold', 'hold-ms': 50})
        begin = time.monotonic()
        client.pwrite(b'a' * 4096, 0)
        self.assertEqual(client.pread(4096, 0), b'a' * 4096)
        client.zero(4096, 4096)
        client.flush()
        self.assertGreaterEqual(time.monotonic() - begin, 0.15)
        self.assertEqual(self.info()['state'], 'ok')
        self.finish()

    def test_fail(self):
        client = self.serve(options={'mode': 'late', 'hold-ms': 1500},
                            on_error='fail', deadline=200)
        with self.assertRaises(nbd.Error) as caught:
            client.pwrite(b'a' * 4096, 0)
        info = self.state('failed', 'holds requests for longer than it may')
        self.assertEqual((info['expired'], info['failed']), (1, 1))
        self.assertEqual(self.counts()['overdues'], 1)
        self.d.qmp.event('WEIR_STATE', lambda e: e['state'] == 'failed')
        # until it has given it back, others do not come to it
        with self.assertRaises(nbd.Error):
            client.pread(512, 0)
        self.assertEqual(self.counts()['reads'], 0)
        self.state('ok')                # it gave it back
        self.assertEqual(self.info()['expired'], 0)
        self.set(on_error='fail', deadline=200, hold_ms=1500)
        # what was late was not written
        self.assertEqual(client.pread(4096, 0), bytes(4096))
        client.pwrite(b'b' * 4096, 0)
        self.assertEqual(caught.exception.errno, 'EIO')
        self.finish()

    def test_bypass(self):
        client = self.serve(options={'mode': 'late'}, on_error='bypass',
                            deadline=200)
        client.pwrite(b'a' * 4096, 0)
        self.assertEqual(client.pread(4096, 0), b'a' * 4096)
        info = self.state('degraded')
        self.assertEqual((info['expired'], info['bypassed']), (1, 2))
        self.assertEqual(self.counts()['bypasses'], 1)
        self.set(on_error='bypass', deadline=200)
        self.state('ok')
        client.pread(4096, 0)
        self.assertEqual(self.counts()['reads'], 1)
        self.finish()

    def test_stall(self):
        client = self.serve(options={'mode': 'hold'}, deadline=200)
        write = self.in_thread(client.pwrite, b'a' * 4096, 0)
        self.state('failed')
        time.sleep(0.3)
        self.assertTrue(write.is_alive())
        self.assertFails('does not give back 1 request(s)', self.d.cmd,
                         'weir-detach', {'node-name': 'flt'})
        # a drained section tells the plugin, which gives it back
        self.set(deadline=200)
        self.assertIsNone(write()[1])
        self.state('ok')
        self.assertEqual(client.pread(4096, 0), b'a' * 4096)
        self.finish()

    def test_a_drained_section_ends(self):
        """... though the plugin does not care for it."""
        client = self.serve(options={'mode': 'late'}, deadline=300)
        write = self.in_thread(client.pwrite, b'a' * 4096, 0)
        self.wait_held(1)
        begin = time.monotonic()
        self.d.cmd('weir-attach', {'node-name': 'flt', 'filter': {
            'driver': 'weir-inspect', 'file': 'flt', 'node-name': 'top'}})
        self.assertLess(time.monotonic() - begin, 10)
        self.assertIsNotNone(write()[1])
        self.d.cmd('weir-detach', {'node-name': 'top'})
        self.finish()

    def test_detach_by_force(self):
        client = self.serve(options={'mode': 'late'}, deadline=200)
        write = self.in_thread(client.pwrite, b'a' * 4096, 0)
        self.state('failed')
        self.d.cmd('weir-detach', {'node-name': 'flt', 'force': True})
        # nothing is lost: the plugin changes nothing
        self.assertIsNone(write()[1])
        self.assertEqual(client.pread(4096, 0), b'a' * 4096)
        self.assertEqual(self.d.cmd('query-weir'), [])
        self.finish()

    def test_cannot(self):
        client = self.serve(options={'mode': 'cannot'}, deadline=300)
        write = self.in_thread(client.pwrite, b'a' * 4096, 0)
        self.state('failed', 'cannot do its work')
        self.assertTrue(write.is_alive())
        # it is drained for that, and waits for the write; the machine goes on
        self.set(on_error='fail', deadline=300, mode='cannot')
        self.assertIsNotNone(write()[1])
        with self.assertRaises(nbd.Error) as caught:
            client.pwrite(b'a' * 4096, 0)
        self.assertEqual(caught.exception.errno, 'EIO')
        self.set(on_error='bypass', mode='cannot')
        client.pwrite(b'b' * 4096, 0)
        self.state('degraded')
        self.set(on_error='stall')
        self.assertEqual(client.pread(4096, 0), b'b' * 4096)
        self.state('ok')
        self.finish()


class Life(Disk):
    def attach(self, plugin, node='file', name='flt', **options):
        self.d.cmd('weir-attach', {'node-name': node, 'filter': {
            'driver': 'weir-plugin', 'plugin': plugin, 'file': node,
            'node-name': name, **options}})

    def test_attach_and_detach_under_load(self):
        client = self.serve()
        self.d.cmd('weir-detach', {'node-name': 'flt'})
        stop = threading.Event()
        errors = []

        def load():
            seed = 0
            while not stop.is_set():
                seed = (seed + 1) % 200
                data = bytes([seed]) * 4096
                client.pwrite(data, seed * 4096)
                if client.pread(4096, seed * 4096) != data:
                    errors.append(seed)
        thread = threading.Thread(target=load)
        thread.start()
        try:
            for i in range(12):
                plugin = ('probe', 'late', 'probe-serial')[i % 3]
                options = {} if plugin == 'late' else {
                    'options': {'mode': 'hold', 'hold-ms': 1}}
                self.attach(plugin, **options)
                time.sleep(0.05)
                self.d.cmd('weir-detach', {'node-name': 'flt'})
        finally:
            stop.set()
            thread.join()
        self.assertEqual(errors, [])
        self.finish()

    def test_data_that_is_held(self):
        client = self.serve('late')
        client.pwrite(b'a' * 4096, 0)
        with open(self.file, 'rb') as f:
            self.assertEqual(f.read(4096), bytes(4096))
        self.d.cmd('weir-detach', {'node-name': 'flt'})
        with open(self.file, 'rb') as f:
            self.assertEqual(f.read(4096), b'a' * 4096)
        self.attach('late')
        client.pwrite(b'b' * 4096, 0)
        self.finish()                   # a last flush
        with open(self.file, 'rb') as f:
            self.assertEqual(f.read(4096), b'b' * 4096)

    def test_sidecar(self):
        self.image('side.img', size=65536)
        client = self.serve('late', sidecar={
            'driver': 'file', 'filename': self.path('side.img'),
            'node-name': 'side'})
        client.pwrite(b'a' * 4096, 0x1000)
        self.assertEqual(self.info()['sidecar'], 'side')
        self.finish()
        with open(self.path('side.img'), 'rb') as f:
            self.assertEqual(f.read(8), (0x1000).to_bytes(8, 'little'))

    def test_work_in_the_background(self):
        """A task goes on over drained sections, and ends when it has to."""
        side = self.image('side.img', size=512)
        client = self.serve('worker', sidecar={
            'driver': 'file', 'filename': side, 'node-name': 'side'})
        stop = threading.Event()

        def load():
            while not stop.is_set():
                client.pwrite(b'a' * 4096, 0)
        join = self.in_thread(load)
        for _ in range(15):
            before = self.counts()['rounds']
            self.attach('probe', node='flt', name='top')
            self.d.cmd('weir-detach', {'node-name': 'top'})
            wait_for(lambda: self.counts()['rounds'] > before, 'its work')
        stop.set()
        self.assertIsNone(join()[1])
        client.shutdown()
        self.d.cmd('block-export-del', id='exp', mode='hard')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')
        for active in False, True:
            self.d.cmd('blockdev-set-active', {'node-name': 'flt',
                                               'active': active})
            before = self.counts()['rounds']
            if active:
                wait_for(lambda: self.counts()['rounds'] > before, 'its work')
            else:
                time.sleep(0.1)
                self.assertEqual(self.counts()['rounds'], before)
        self.assertEqual(self.counts()['failed'], 0)
        self.d.quit()
        with open(side, 'rb') as f:
            self.assertEqual(f.read(16)[8:], b'finished')

    def test_hand_over(self):
        """What a migration does at both ends."""
        self.serve('probe')
        self.client.shutdown()
        self.d.cmd('block-export-del', id='exp', mode='hard')
        self.d.qmp.event('BLOCK_EXPORT_DELETED')
        if 'blockdev-set-active' not in {
                c['name'] for c in self.d.cmd('query-commands')}:
            self.skipTest('this QEMU cannot')
        self.d.cmd('blockdev-set-active', {'node-name': 'flt',
                                           'active': False})
        counts = self.counts()
        self.assertEqual((counts['inactivates'], counts['activates']), (1, 0))
        self.d.cmd('blockdev-set-active', {'node-name': 'flt',
                                           'active': True})
        self.assertEqual(self.counts()['activates'], 1)
        self.d.cmd('blockdev-add', {
            'driver': 'weir-plugin', 'node-name': 'two', 'plugin': 'probe',
            'file': {'driver': 'null-co', 'size': MIB}, 'active': False})
        gauges = self.filter_info(self.d, 'two')['gauges']
        self.assertIn(('prepares', 0), [(g['name'], g['value'])
                                        for g in gauges])
        self.d.cmd('blockdev-set-active', {'node-name': 'two',
                                           'active': True})
        gauges = self.filter_info(self.d, 'two')['gauges']
        self.assertIn(('prepares', 1), [(g['name'], g['value'])
                                        for g in gauges])
        self.d.quit()

    def overlay(self, node='flt', name='over'):
        self.image(name + '.qcow2', size=16 * MIB, fmt='qcow2')
        self.d.cmd('blockdev-add', {
            'driver': 'qcow2', 'node-name': name, 'backing': None,
            'file': {'driver': 'file', 'node-name': name + '-file',
                     'filename': self.path(name + '.qcow2')}})
        self.d.cmd('blockdev-snapshot', {'node': node, 'overlay': name})

    def told(self, node, name, message='done'):
        self.assertEqual(
            self.d.qmp.event('WEIR_PLUGIN_EVENT',
                             lambda data: data['node-name'] == node),
            {'node-name': node, 'plugin': 'probe', 'name': name,
             'message': message})

    def test_overlay(self):
        """Those above it go on, those below hear that they do not."""
        self.serve()
        self.attach('probe', 'flt', 'above')
        self.overlay()
        self.told('flt', 'overlay')
        self.told('above', 'create')
        self.assertEqual(self.counts()['snapshots'], 2)
        self.client.pwrite(b'a' * 4096, 0)
        self.overlay('over', 'again')
        self.told('above', 'create')
        self.finish()

    def test_overlay_is_refused(self):
        """All that were asked hear that there is none."""
        self.serve()
        self.attach('probe', 'flt', 'above')
        self.set(mode='deny')
        with self.assertRaisesRegex(QMPError, "Plugin 'probe' refuses the "
                                    'snapshot: there are to be none: Device'):
            self.overlay()
        self.told('above', 'create', 'failed')
        self.set()
        # one that fails later
        with self.assertRaisesRegex(QMPError, 'not found|Cannot find'):
            self.d.cmd('transaction', {'actions': [
                {'type': 'blockdev-snapshot',
                 'data': {'node': 'flt', 'overlay': 'over'}},
                {'type': 'blockdev-snapshot',
                 'data': {'node': 'none', 'overlay': 'over'}}]})
        self.told('flt', 'overlay', 'failed')
        self.told('above', 'create', 'failed')
        self.client.pwrite(b'a' * 4096, 0)
        self.finish()

    def test_overlay_of_an_overlay(self):
        """In one transaction: as often as it is asked, it hears of the end."""
        self.serve()
        self.attach('probe', 'flt', 'above')
        for name in ('one', 'two'):
            self.image(name + '.qcow2', size=16 * MIB, fmt='qcow2')
            self.d.cmd('blockdev-add', {
                'driver': 'qcow2', 'node-name': name, 'backing': None,
                'file': {'driver': 'file',
                         'filename': self.path(name + '.qcow2')}})
        actions = [{'type': 'blockdev-snapshot',
                    'data': {'node': node, 'overlay': overlay}}
                   for node, overlay in (('flt', 'one'), ('one', 'two'))]

        def snapshots():
            gauges = self.filter_info(self.d, 'above')['gauges']
            return next(g['value'] for g in gauges if g['name'] == 'snapshots')
        self.d.cmd('transaction', {'actions': actions})
        self.assertEqual(snapshots(), 4)
        self.client.pwrite(b'a' * 4096, 0)
        self.finish()

    def test_overlay_and_data_that_is_held(self):
        """Who copies the image below has all of it."""
        self.serve('late')
        self.client.pwrite(b'a' * 4096, 0)
        self.overlay()
        with open(self.file, 'rb') as f:
            self.assertEqual(f.read(4096), b'a' * 4096)
        self.finish()

    def test_snapshots_within_the_image(self):
        path = self.image('disk.qcow2', fmt='qcow2', size=MIB)
        opts = ('driver=weir-plugin,plugin=%s,file.driver=qcow2,'
                f'file.file.filename={path}')
        probe = opts % 'probe'
        run('qemu-img', 'snapshot', '-c', 'one', '--image-opts', probe)
        result = run('qemu-img', 'snapshot', '-c', 'refused', '--image-opts',
                     probe, check=False)
        self.assertIn('Operation not permitted', result.stderr)
        result = run('qemu-img', 'snapshot', '-c', 'two', '--image-opts',
                     opts % 'late', check=False)
        self.assertNotEqual(result.returncode, 0)
        result = run('qemu-img', 'snapshot', '-l', path)
        self.assertIn('one', result.stdout)
        self.assertNotIn('two', result.stdout)


if __name__ == '__main__':
    main()
