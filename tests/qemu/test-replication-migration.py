#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a machine whose disk is replicated: it does not succeed
yet, and the source goes on."""

import json

from cachetest import MIB, nbd_connect
from replicationtest import ReplicationTest, Stamps
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

    def write(self, client, count=100):
        for _ in range(count):
            self.stamps.write([client])
        client.shutdown()

    def test_migration_that_fails(self):
        """The source goes on."""
        vm = self.side('one')
        vm.cmd('cont')
        self.wait_for_status(vm, 'streaming')
        client = self.serve(vm)
        for _ in range(50):
            self.stamps.write([client])
        # one that has nobody to go to, and one that comes to its end
        other = self.side('two', '-incoming',
                          f'unix:{self.path("migration")}')
        self.assertEqual(self.replication_info(other)['connections'], 0)
        for name in 'nobody', 'migration':
            vm.cmd('migrate', uri=f'unix:{self.path(name)}')
            wait_for(lambda: vm.cmd('query-migrate').get('status') ==
                     'failed', 'the migration fails')
        vm.cmd('cont')
        other.kill()
        self.write(client, 50)
        self.mark(vm, 'end')
        self.assertEqual(self.stamps.prefix(self.replicas(self.the_keeper)),
                         100)
        vm.quit()
        self.the_keeper.quit()


if __name__ == '__main__':
    main()
