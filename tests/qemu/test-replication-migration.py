#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a machine whose disk is replicated: there is one writer of
the log at any time, and the other side goes on."""

import json

import nbd

from cachetest import MIB, nbd_connect
from replicationtest import DISK, ReplicationTest, Stamps
from weirtest import main, wait_for


class Migration(ReplicationTest):
    def setUp(self):
        super().setUp()
        self.stamps = Stamps()
        self.sidecar = self.image('sidecar.img', MIB)
        self.the_keeper = self.keeper()

    def side(self, name, *args):
        nodes = [
            {'driver': 'file', 'node-name': 'disk0',
             'filename': self.disk_files[0]},
            {'driver': 'file', 'node-name': 'sidecar',
             'filename': self.sidecar},
            self.replication(0, sidecar='sidecar')]
        vm = self.vm(*(arg for node in nodes
                       for arg in ('-blockdev', json.dumps(node))),
                     '-device', 'virtio-blk-pci,drive=repl0,id=vd0,'
                     'share-rw=on', *args)
        vm.name = name
        return vm

    def serve(self, vm):
        sock = self.path(vm.name)
        vm.cmd('nbd-server-start', addr={'type': 'unix',
                                         'data': {'path': sock}})
        vm.cmd('block-export-add', {
            'type': 'nbd', 'id': 'exp', 'node-name': 'repl0', 'name': 'disk0',
            'writable': True})
        return nbd_connect(sock, 'disk0')

    def stop_serving(self, vm):
        vm.cmd('nbd-server-stop')

    def migrate(self, vm, other):
        vm.cmd('migrate', uri=f'unix:{self.path("migration")}')
        wait_for(lambda: vm.cmd('query-migrate').get('status') in
                 ('completed', 'failed'), 'the migration ends')
        self.assertEqual(vm.cmd('query-migrate')['status'], 'completed')
        other.cmd('cont')

    def write(self, client, count=100):
        for _ in range(count):
            self.stamps.write([client])
        client.shutdown()

    def test_other_side_goes_on(self):
        vm = self.side('one')
        vm.cmd('cont')
        self.wait_for_status(vm, 'streaming')
        self.write(self.serve(vm))
        self.stop_serving(vm)
        other = self.side('two', '-incoming',
                          f'unix:{self.path("migration")}')
        self.assertEqual(self.replication_info(other)['connections'], 0)
        self.migrate(vm, other)
        # nothing was left behind
        self.assertEqual(self.stamps.prefix(self.replicas(self.the_keeper)),
                         100)
        self.assertEqual(self.replication_info(vm)['status'], 'disconnected')
        self.write(self.serve(other))
        self.mark(other, 'end')
        # the sidecar has told that nothing was to copy
        self.assertLess(self.replication_info(other)['sent-bytes'],
                        DISK // 2)
        self.assertEqual(self.stamps.prefix(self.replicas(self.the_keeper)),
                         200)
        vm.quit()
        other.quit()
        self.the_keeper.quit()

    def test_migration_that_fails(self):
        """The source goes on."""
        vm = self.side('one')
        vm.cmd('cont')
        self.wait_for_status(vm, 'streaming')
        client = self.serve(vm)
        for _ in range(50):
            self.stamps.write([client])
        vm.cmd('migrate', uri=f'unix:{self.path("nobody")}')
        wait_for(lambda: vm.cmd('query-migrate').get('status') == 'failed',
                 'the migration fails')
        self.write(client, 50)
        self.mark(vm, 'end')
        self.assertEqual(self.stamps.prefix(self.replicas(self.the_keeper)),
                         100)
        vm.quit()
        self.the_keeper.quit()


if __name__ == '__main__':
    main()
