#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""weir-attach and weir-detach below the devices of the emulator."""

import json

from weirtest import TestCase, blockdev, graph, main

MIB = 1 << 20


class Devices(TestCase):
    def boot(self, *devices, disks=1):
        args = ['-object', 'iothread,id=io0', '-object', 'iothread,id=io1']
        for i in range(disks):
            args += ['-blockdev', blockdev(
                driver='file', node_name=f'file{i}',
                filename=self.image(f'd{i}.qcow2', fmt='qcow2')),
                '-blockdev', blockdev(driver='qcow2', node_name=f'fmt{i}',
                                      file=f'file{i}')]
        for device in devices:
            args += ['-device', json.dumps(device)]
        return self.vm(*args)

    def attach(self, vm, node, name='flt', qdev=None):
        arguments = {'node-name': node, 'filter': {
            'driver': 'weir-inspect', 'node-name': name, 'file': node}}
        if qdev:
            arguments['qdev'] = qdev
        vm.cmd('weir-attach', arguments)

    def drive_of(self, vm, path):
        return vm.cmd('qom-get', path=path, property='drive')

    def there_and_back(self, vm, node='fmt0'):
        before = graph(vm)
        self.attach(vm, node)
        during = graph(vm)
        self.assertNotEqual(during, before)
        self.attach(vm, 'file0', 'low')
        vm.cmd('weir-detach', {'node-name': 'flt'})
        vm.cmd('weir-detach', {'node-name': 'low'})
        self.assertEqual(graph(vm), before)

    def test_virtio_blk(self):
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0'})
        self.there_and_back(vm)
        self.attach(vm, 'fmt0')
        self.assertEqual(self.drive_of(
            vm, '/machine/peripheral/vd0/virtio-backend'), 'flt')
        vm.quit()

    def test_virtio_blk_iothread(self):
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0', 'iothread': 'io0'})
        self.there_and_back(vm)
        vm.quit()

    def test_virtio_blk_iothread_vq_mapping(self):
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0', 'num-queues': 4,
                        'iothread-vq-mapping': [{'iothread': 'io0'},
                                                {'iothread': 'io1'}]})
        self.there_and_back(vm)
        vm.quit()

    def test_virtio_scsi(self):
        vm = self.boot({'driver': 'virtio-scsi-pci', 'id': 'scsi0',
                        'iothread': 'io0'},
                       {'driver': 'scsi-hd', 'drive': 'fmt0', 'id': 'sd0'})
        self.there_and_back(vm)
        self.attach(vm, 'fmt0', qdev='sd0')
        self.assertEqual(self.drive_of(vm, '/machine/peripheral/sd0'), 'flt')
        vm.quit()

    def test_one_device_of_a_shared_node(self):
        """qdev moves that device only; others of the node stay."""
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0', 'share-rw': True},
                       {'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd1', 'share-rw': True})
        before = graph(vm)
        for qdev in ('vd1', '/machine/peripheral/vd1/virtio-backend'):
            self.attach(vm, 'fmt0', qdev=qdev)
            self.assertEqual(
                [self.drive_of(vm, f'/machine/peripheral/vd{i}/virtio-backend')
                 for i in (0, 1)], ['fmt0', 'flt'])
            vm.cmd('weir-detach', {'node-name': 'flt'})
            self.assertEqual(graph(vm), before)
        vm.quit()

    def test_wrong_device(self):
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0'},
                       {'driver': 'virtio-blk-pci', 'drive': 'fmt1',
                        'id': 'vd1'},
                       {'driver': 'virtio-scsi-pci', 'id': 'scsi0'}, disks=2)
        before = graph(vm)
        for qdev, text in (('vd1', "does not use node 'fmt0'"),
                           ('scsi0', "'scsi0' not found"),
                           ('nope', "'nope' not found")):
            self.assertFails(text, self.attach, vm, 'fmt0', qdev=qdev)
        self.assertEqual(graph(vm), before)
        vm.quit()

    def test_node_without_a_device(self):
        vm = self.boot()
        self.there_and_back(vm)
        vm.quit()

    def test_hot_unplug_leaves_an_unused_filter(self):
        vm = self.boot({'driver': 'virtio-scsi-pci', 'id': 'scsi0'},
                       {'driver': 'scsi-hd', 'drive': 'fmt0', 'id': 'sd0'})
        self.attach(vm, 'fmt0')
        vm.cmd('device_del', id='sd0')
        event = vm.qmp.event('WEIR_STATE')
        self.assertEqual((event['node-name'], event['state']),
                         ('flt', 'degraded'))
        vm.cmd('device_add', driver='scsi-hd', drive='flt', id='sd1')
        event = vm.qmp.event('WEIR_STATE')
        self.assertEqual(event['state'], 'ok')
        vm.quit()

    def test_info_weir(self):
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0'})
        self.assertEqual(vm.cmd('human-monitor-command',
                                {'command-line': 'info weir'}), '')
        self.attach(vm, 'fmt0')
        vm.cmd('human-monitor-command', {
            'command-line': 'qemu-io -d vd0/virtio-backend "write 0 64k"'})
        text = vm.cmd('human-monitor-command', {'command-line': 'info weir'})
        self.assertIn('flt: weir-inspect above fmt0, place disk', text)
        self.assertIn('state         ok since 20', text)
        self.assertRegex(text, r'write +1 requests, 64 KiB, 0 failed')
        vm.quit()

    def test_cache(self):
        vm = self.boot({'driver': 'virtio-blk-pci', 'drive': 'fmt0',
                        'id': 'vd0', 'iothread': 'io0'})
        before = graph(vm)
        fast = self.image('fast.img')
        for node in ('fmt0', 'file0'):
            vm.cmd('weir-attach', {'node-name': node, 'filter': {
                'driver': 'weir-cache', 'node-name': 'cache', 'file': node,
                'cache-file': {'driver': 'file', 'filename': fast,
                               'node-name': 'fast'}}})
            vm.cmd('human-monitor-command', {
                'command-line': 'qemu-io -d vd0/virtio-backend "write 0 64k"'})
            text = vm.cmd('human-monitor-command',
                          {'command-line': 'info weir'})
            self.assertIn('fast, write-back', text)
            self.assertRegex(text, r'used, [1-9]\d* [KM]iB dirty')
            vm.cmd('weir-detach', {'node-name': 'cache'})
            self.assertEqual(graph(vm), before)
        vm.quit()

    def test_migration_source_and_target(self):
        """Inactive nodes: save the state, and load it with a filter there."""
        state = self.path('state')
        image = self.image('d.qcow2', fmt='qcow2')
        args = ['-blockdev', blockdev(driver='file', node_name='file',
                                      filename=image),
                '-blockdev', blockdev(driver='weir-inspect', node_name='low',
                                      file='file'),
                '-blockdev', blockdev(driver='qcow2', node_name='fmt',
                                      file='low'),
                '-blockdev', blockdev(driver='weir-inspect', node_name='top',
                                      file='fmt'),
                '-device', 'virtio-blk-pci,drive=top,id=vd0']
        source = self.vm(*args)
        source.cmd('migrate', uri=f'file:{state}')
        while source.cmd('query-migrate')['status'] != 'completed':
            pass
        # attach while inactive: works, or is refused cleanly
        before = graph(source)
        try:
            self.attach(source, 'fmt', 'extra')
            source.cmd('weir-detach', {'node-name': 'extra'})
        except Exception as error:
            self.assertRegex(str(error), 'inactive')
        self.assertEqual(graph(source), before)
        target = self.vm(*args, '-incoming', 'defer')
        target.cmd('migrate-incoming', uri=f'file:{state}')
        while target.cmd('query-migrate').get('status') != 'completed':
            pass
        self.assertEqual(len(target.cmd('query-weir')), 2)
        source.quit()
        target.quit()


if __name__ == '__main__':
    main()
