#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a machine whose disks are replicated: the role of the
source goes over to the other emulator, without a copy of the disks."""

import json

from cachetest import MIB, nbd_connect
from replicationtest import ReplicationTest, Stamps, Writer
from weirtest import QMPError, main, wait_for


class Sides(ReplicationTest):
    named_log = False       # a node of the user, else opened by the filter
    log_first = False       # QEMU comes to it before the disks
    options = {}

    def setUp(self):
        super().setUp()
        self.stamps = Stamps(self.disks)
        self.sidecars = [self.image(f'sidecar{i}.img', MIB)
                         for i in range(self.disks)]
        self.the_keeper = self.keeper()

    # --- emulators ---

    def nodes(self):
        if self.named_log:
            yield self.remote_log()
        for i in range(self.disks):
            yield {'driver': 'file', 'node-name': f'disk{i}',
                   'filename': self.disk_files[i]}
            yield {'driver': 'file', 'node-name': f'sidecar{i}',
                   'filename': self.sidecars[i]}
            log = 'remote-log' if self.named_log else None
            yield self.replication(i, log, sidecar=f'sidecar{i}',
                                   **self.options)

    def side(self, name, *args):
        devices = [arg for i in range(self.disks) for arg in
                   ('-device', f'virtio-blk-pci,drive=repl{i},id=vd{i},'
                    f'share-rw=on,iothread=io{i % 2}')]
        vm = self.vm('-m', '16', '-object', 'iothread,id=io0', '-object',
                     'iothread,id=io1', *(arg for node in self.nodes() for arg
                                          in ('-blockdev', json.dumps(node))),
                     *([] if self.log_first else devices), *args)
        vm.name = name
        vm.clients = []
        vm.cmd('nbd-server-start', addr={
            'type': 'unix', 'data': {'path': self.path(name)}})
        if self.log_first:
            self.export(vm, 'remote-log')
        for i in range(self.disks):
            self.export(vm, f'repl{i}', writable=True, iothread=f'io{i % 2}')
        return vm

    def export(self, vm, node, **options):
        vm.cmd('block-export-add', {
            'type': 'nbd', 'id': f'of-{node}', 'node-name': node,
            'name': node, 'allow-inactive': True, **options})

    def first(self, name='a'):
        vm = self.side(name)
        vm.cmd('cont')
        self.wait_for_status(vm, 'streaming')
        return vm

    def target(self, name):
        vm = self.side(name, '-incoming', 'defer')
        vm.cmd('migrate-incoming', uri=f'unix:{self.path(name + ".mig")}')
        return vm

    def guest(self, vm):
        """Writes to all disks."""
        guest = Writer([nbd_connect(self.path(vm.name), f'repl{i}')
                        for i in range(self.disks)], self.stamps)
        guest.start()
        guest.more()
        return guest

    # --- migration ---

    def migration_status(self, vm):
        return vm.cmd('query-migrate').get('status')

    def begin(self, source, target):
        name = target if isinstance(target, str) else target.name
        source.cmd('migrate', uri=f'unix:{self.path(name + ".mig")}')

    def end(self, source, status='completed'):
        wait_for(lambda: self.migration_status(source) in
                 ('completed', 'failed', 'cancelled'), 'the migration ends')
        self.assertEqual(self.migration_status(source), status,
                         source.output())
        wait_for(lambda: source.cmd('query-status')['status'] !=
                 'finish-migrate', 'the source has done its part')

    def stop_at_the_end(self, source, target, guest):
        """All but the devices is copied; the guest goes on until it is stopped
        for that."""
        source.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'pause-before-switchover', 'state': True}])
        self.begin(source, target)
        wait_for(lambda: self.migration_status(source) == 'pre-switchover',
                 'all but the devices is copied')
        if guest:
            guest.end()
            self.assertIsNone(guest.error)

    def go_over(self, source):
        source.cmd('migrate-continue', state='pre-switchover')

    def migrate(self, source, target, guest=None):
        self.stop_at_the_end(source, target, guest)
        self.go_over(source)
        self.end(source)
        wait_for(lambda: self.migration_status(target) == 'completed',
                 'the target has it all')
        target.cmd('cont')
        report = source.cmd('query-migrate')
        print(f'{source.name} -> {target.name}: down {report["downtime"]} ms')

    # --- what has to be so ---

    def assert_handed_over(self, vm, connections=1):
        """It is at work, and had nothing to copy; nobody was refused."""
        self.wait_until_sent(vm)
        for i in range(self.disks):
            info = self.replication_info(vm, i)
            self.assertEqual(info['resync-total'], 0, info)
            self.assertEqual(info['connections'], connections, info)
        self.assertEqual(self.journal_info(self.the_keeper)['refused'], 0)

    def assert_replica_is_disk(self, vm):
        self.mark(vm, 'end')
        images = self.replicas(self.the_keeper)
        self.assertEqual(self.stamps.prefix(images), len(self.stamps.log))
        for image, filename in zip(images, self.disk_files):
            self.assertEqual(image, self.file_content(filename))

    def assert_points(self):
        """Each epoch since the first is a point in time, and some are looked
        at."""
        epochs = [point['epoch'] for point in
                  reversed(self.points(self.the_keeper, limit=10000))]
        self.assertEqual(epochs, list(range(epochs[0],
                                            epochs[0] + len(epochs))))
        counts = [self.stamps.prefix(self.replicas(
            self.the_keeper, f'epoch:{epoch}'))
            for epoch in epochs[::(len(epochs) + 1) // 2]]
        self.assertEqual(counts, sorted(counts))

    # --- migrations ---

    def assert_goes_on(self, vm):
        vm.cmd('cont')
        self.assert_handed_over(vm)
        self.guest(vm).end()
        self.assert_replica_is_disk(vm)
        self.assert_points()
        vm.quit()

    def there_and_back(self):
        a = self.first()
        b = self.target('b')
        self.assertEqual(self.replication_info(b)['status'], 'disconnected')
        self.migrate(a, b, self.guest(a))
        self.guest(b).end()             # or there is always something queued
        self.assert_handed_over(b)
        a.quit()
        c = self.target('c')
        self.migrate(b, c, self.guest(b))
        self.assert_handed_over(c)
        self.guest(c).end()
        self.assert_replica_is_disk(c)
        self.assert_points()
        b.quit()
        c.quit()

    def target_dies(self):
        a = self.first()
        b = self.target('b')
        self.stop_at_the_end(a, b, self.guest(a))
        b.kill()
        self.go_over(a)
        self.end(a, 'failed')
        self.assert_goes_on(a)

    def another_node_stays_active(self):
        """It is the last that QEMU comes to."""
        a = self.first()
        b = self.target('b')
        a.cmd('blockdev-add', {'driver': 'null-co', 'node-name': 'other'})
        a.cmd('block-export-add', {
            'type': 'nbd', 'id': 'other', 'node-name': 'other',
            'name': 'other', 'writable': True})
        self.stop_at_the_end(a, b, self.guest(a))
        self.go_over(a)
        self.end(a, 'failed')
        b.kill()
        self.assert_goes_on(a)

    def lose_keeper(self):
        self.the_keeper.kill()

    def find_keeper(self):
        self.the_keeper = self.keeper()

    def without_a_log(self):
        """Nobody waits for it; what it does not have is copied."""
        a = self.first()
        b = self.target('b')
        guest = self.guest(a)
        self.lose_keeper()
        guest.more()
        self.prepare(a)
        self.migrate(a, b, guest)
        self.guest(b).end()
        self.find_keeper()
        self.wait_until_sent(b)
        self.assert_replica_is_disk(b)
        a.quit()
        b.quit()

    def prepare(self, source):
        """What the documentation says."""


class Migration(Sides):
    def test_under_load(self):
        self.there_and_back()

    def test_target_dies(self):
        self.target_dies()

    def test_another_node_stays_active(self):
        self.another_node_stays_active()

    def test_log_is_unreachable(self):
        self.without_a_log()

    def test_back_into_the_same_process(self):
        """The other one has ended; the first one takes its disks again."""
        a = self.first()
        b = self.target('b')
        self.migrate(a, b, self.guest(a))
        self.guest(b).end()
        self.assert_handed_over(b)
        b.quit()
        a.cmd('cont')
        self.assert_handed_over(a)
        self.guest(a).end()
        self.assert_replica_is_disk(a)
        self.assert_points()
        a.quit()

    def test_cancelled(self):
        a = self.first()
        b = self.target('b')
        self.stop_at_the_end(a, b, self.guest(a))
        a.cmd('migrate_cancel')
        self.end(a, 'cancelled')
        b.kill()
        self.assert_goes_on(a)


class FrozenKeeper(Sides):
    options = {'target-timeout': 600000}

    def lose_keeper(self):
        self.freeze(self.the_keeper)

    def find_keeper(self):
        self.thaw(self.the_keeper)

    def test_log_does_not_answer(self):
        self.without_a_log()


class NamedLog(Sides):
    named_log = True
    disks = 2

    def test_under_load(self):
        self.there_and_back()

    def test_target_dies(self):
        self.target_dies()

    def prepare(self, source):
        """A node that is dead keeps QEMU from stopping the machine."""
        def deleted():
            try:
                source.cmd('blockdev-del', {'node-name': 'remote-log'})
            except QMPError:
                return False
            return True
        wait_for(deleted, 'the log is closed')

    def test_log_is_unreachable(self):
        self.without_a_log()


class LogFirst(Sides):
    """The log is taken away before the disks."""
    named_log = True
    log_first = True
    disks = 2

    def test_under_load(self):
        self.there_and_back()

    def test_target_dies(self):
        self.target_dies()

    def test_another_node_stays_active(self):
        self.another_node_stays_active()

    def test_log_alone(self):
        a = self.first()
        guest = self.guest(a)
        a.cmd('blockdev-set-active', {'node-name': 'remote-log',
                                      'active': False})
        self.wait_for_status(a, 'disconnected')
        guest.more()
        # it takes a connection of its own
        self.wait_for_status(a, 'streaming')
        guest.more()
        guest.end()
        self.assert_handed_over(a, connections=2)
        self.assert_replica_is_disk(a)
        self.assert_points()
        a.quit()


if __name__ == '__main__':
    main()
