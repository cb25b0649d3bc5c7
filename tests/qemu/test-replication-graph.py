#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Replication of disks to which things are done meanwhile: options, drains,
snapshots, new lengths, filters that come and go, I/O threads."""

from cachetest import BLOCK, MIB, nbd_connect
from replicationtest import DISK, ReplicationTest, Stamps, Writer, WriterTest
from weirtest import blockdev, main


class Options(ReplicationTest):
    disks = 2

    def setUp(self):
        super().setUp()
        self.the_keeper = self.keeper()
        self.the_source = self.server(self.source_sock)
        for i, filename in enumerate(self.disk_files):
            self.add(driver='file', node_name=f'disk{i}', filename=filename)

    def tearDown(self):
        self.the_source.quit()
        self.the_keeper.quit()

    def add(self, **options):
        self.the_source.cmd('blockdev-add', {
            k.replace('_', '-'): v for k, v in options.items()})

    def refused(self, text, i=0, **options):
        self.assertFails(text, self.the_source.cmd, 'blockdev-add',
                         self.replication(i, **options))

    def test_ranges(self):
        for name, value in [('epoch_interval', 0), ('epoch_interval', 60001),
                            ('epoch_bytes', 1), ('max_memory', 1),
                            ('max_memory', 65 << 30), ('target_timeout', 99),
                            ('target_timeout', 600001)]:
            self.refused(name.replace('_', '-'), **{name: value})

    def test_name_of_a_disk(self):
        self.refused('disk-id', disk_id='')
        self.refused('disk-id', disk_id='x' * 64)

    def test_no_log(self):
        self.refused("Cannot find the log 'nowhere'", log='nowhere')

    def test_reconnect_delay(self):
        self.refused('reconnect-delay',
                     log=self.remote_log(**{'reconnect-delay': 5}))
        self.add(**self.remote_log(**{'reconnect-delay': 5}))
        self.refused('reconnect-delay', log='remote-log')

    def test_log_above_an_nbd_node(self):
        self.add(**self.remote_log())
        self.refused('above an NBD node', log={'driver': 'raw',
                                               'file': 'remote-log'})

    def test_members_of_a_group_have_the_same_options(self):
        self.add(**self.replication(0))
        self.refused("'mode'", 1, mode='write-sync')
        self.refused("'epoch-interval'", 1, epoch_interval=7)
        self.refused("'rpo-limit'", 1, rpo_limit=7)
        self.refused("'disk0' already", 1, disk_id='disk0')

    def test_some_are_changed_by_reopening(self):
        self.add(**self.replication(0))
        self.the_source.cmd('blockdev-reopen', {'options': [
            self.replication(0, log=self.remote_log(), target_timeout=500)]})
        self.assertFails('mode', self.the_source.cmd, 'blockdev-reopen', {
            'options': [self.replication(0, log=self.remote_log(),
                                         target_timeout=500,
                                         mode='write-sync')]})

    def test_log_by_reference(self):
        self.add(**self.remote_log())
        self.add(**self.replication(0, log='remote-log'))
        self.add(**self.replication(1, log='remote-log'))
        self.wait_for_status(self.the_source, 'streaming')
        self.assertEqual(
            self.replication_info(self.the_source, 1)['log'], 'remote-log')

    def test_log_in_a_file(self):
        """A log that nobody keeps: it is made by a keeper that is not there
        any more."""
        other = self.image('other.img', 256 * MIB)
        keeper = self.daemon(
            *self.file_node('log', other), '--blockdev',
            blockdev(driver='weir-journal', node_name='journal', file='log',
                     create=True))
        keeper.quit()
        self.add(**self.replication(0, log={'driver': 'file',
                                            'filename': other}))
        self.wait_for_status(self.the_source, 'streaming')


class Busy(WriterTest):
    """A client writes all the time."""

    flush_every = 10
    export_options = ''

    def setUp(self):
        super().setUp()
        self.the_keeper = self.keeper()
        self.the_source = self.start_source()
        self.wait_for_status(self.the_source, 'streaming')
        self.begin_to_write()

    def start_source(self):
        return self.source(export_options=self.export_options)

    def test_drains(self):
        for i in range(20):
            self.the_source.cmd('blockdev-add', {
                'driver': 'null-co', 'node-name': f'null{i}'})
            self.writer.more(5)
            self.the_source.cmd('blockdev-del', {'node-name': f'null{i}'})
        self.check_end()

    def test_reopening(self):
        for timeout in (500, 1000, 2000):
            self.the_source.cmd('blockdev-reopen', {'options': [
                self.replication(i, target_timeout=timeout,
                                 log=self.remote_log() if i == 0 else None)
                for i in range(self.disks)]})
            self.writer.more(20)
        self.check_end()

    def test_snapshot_below(self):
        """The disk gets an overlay below the filter: nothing changes for
        replication."""
        overlay = self.image('overlay.qcow2', DISK, 'qcow2')
        self.the_source.cmd('blockdev-add', {
            'driver': 'qcow2', 'node-name': 'overlay', 'backing': None,
            'file': {'driver': 'file', 'filename': overlay}})
        self.the_source.cmd('blockdev-snapshot', {'node': 'disk0',
                                                  'overlay': 'overlay'})
        self.writer.more(100)
        self.assertEqual(self.filter_info(self.the_source, 'repl0')['child'],
                         'overlay')
        self.check_end()

    def test_mirror_of_the_disk(self):
        copy = self.image('copy.img', DISK)
        self.the_source.cmd('blockdev-add', {
            'driver': 'file', 'node-name': 'copy', 'filename': copy})
        self.the_source.cmd('blockdev-mirror', {
            'job-id': 'mirror', 'device': 'repl0', 'replaces': 'disk0',
            'target': 'copy', 'sync': 'full'})
        self.the_source.qmp.event('BLOCK_JOB_READY')
        self.writer.more(20)
        self.the_source.cmd('block-job-complete', {'device': 'mirror'})
        self.the_source.qmp.event('JOB_STATUS_CHANGE',
                                  lambda data: data['status'] == 'null')
        self.writer.more(20)
        self.assertEqual(self.filter_info(self.the_source, 'repl0')['child'],
                         'copy')
        self.check_end()

    def test_test_failover(self):
        """An overlay above a point in time is written to while replication
        goes on."""
        self.mark(self.the_source, 'trial')
        overlay = self.image('overlay.qcow2', DISK, 'qcow2')
        keeper = self.the_keeper
        keeper.cmd('blockdev-add', {
            **self.replica(point='mark:trial'), 'node-name': 'trial'})
        keeper.cmd('blockdev-add', {
            'driver': 'qcow2', 'node-name': 'overlay', 'backing': 'trial',
            'file': {'driver': 'file', 'filename': overlay}})
        keeper.cmd('block-export-add', {
            'type': 'nbd', 'id': 'trial', 'node-name': 'overlay',
            'name': 'trial', 'writable': True})
        client = nbd_connect(self.keeper_sock, 'trial')
        before = client.pread(DISK, 0)
        self.stamps.prefix([before])
        for at in range(0, DISK, MIB):
            client.pwrite(b'trial' * 100, at)
        self.writer.more(200)
        after = client.pread(DISK, 0)
        client.shutdown()
        image = bytearray(before)
        for at in range(0, DISK, MIB):
            image[at:at + 500] = b'trial' * 100
        self.assertEqual(after, image)
        keeper.cmd('block-export-del', {'id': 'trial', 'mode': 'hard'})
        keeper.qmp.event('BLOCK_EXPORT_DELETED')
        keeper.cmd('blockdev-del', {'node-name': 'overlay'})
        keeper.cmd('blockdev-del', {'node-name': 'trial'})
        self.check_end()

    def test_detach_and_attach(self):
        """The second time, all is copied again."""
        self.the_source.cmd('weir-detach', {'node-name': 'repl0'})
        self.writer.more(50)
        self.the_source.cmd('weir-attach', {
            'node-name': 'disk0', 'filter': self.replication(0)})
        self.writer.more(50)
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()


class Threads(Busy):
    """The disks are in an I/O thread."""

    export_options = ',iothread=io0'

    def start_source(self):
        return self.server(self.source_sock, '--object', 'iothread,id=io0',
                           *self.source_args(self.export_options))

    def test_two_disks_in_two_threads(self):
        self.end_writer()
        self.the_source.quit()
        extra = self.image('disk1.img', DISK)
        args = self.source_args(',iothread=io0')
        args += self.file_node('disk1', extra)
        args += ['--blockdev', blockdev(**self.replication(1)), '--export',
                 'nbd,id=exp1,node-name=repl1,name=disk1,writable=on,'
                 'iothread=io1']
        self.the_source = self.server(
            self.source_sock, '--object', 'iothread,id=io0', '--object',
            'iothread,id=io1', *args)
        clients = [nbd_connect(self.source_sock, f'disk{i}') for i in (0, 1)]
        writers = [Writer([client], Stamps()) for client in clients]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.more(300)
            writer.end()
        for client in clients:
            client.shutdown()
        self.mark(self.the_source, 'end')
        self.assertEqual(self.read_replica(self.the_keeper),
                         self.file_content(self.disk_files[0]))
        self.the_source.quit()
        self.the_keeper.quit()


class HandOver(ReplicationTest):
    def test_a_user_that_stays(self):
        """The disk cannot be handed over then, and is replicated on."""
        keeper, source = self.keeper(), self.source()
        client, = self.clients()
        self.wait_for_status(source, 'streaming')
        for _ in range(2):
            self.assertFails('Operation not permitted', source.cmd,
                             'blockdev-set-active', {'node-name': 'repl0',
                                                     'active': False})
            client.pwrite(b'a' * 4096, 0)
            self.wait_until_sent(source)
        client.shutdown()
        source.quit()
        keeper.quit()


class Lengths(ReplicationTest):
    def setUp(self):
        super().setUp()
        self.the_keeper = self.keeper()
        self.the_source = self.source()
        self.wait_for_status(self.the_source, 'streaming')

    def resize(self, size):
        """An export would not let its node get another length."""
        self.the_source.cmd('block-export-del', {'id': 'exp0',
                                                 'mode': 'hard'})
        self.the_source.qmp.event('BLOCK_EXPORT_DELETED')
        self.the_source.cmd('block_resize', {'node-name': 'repl0',
                                             'size': size})
        self.the_source.cmd('block-export-add', {
            'type': 'nbd', 'id': 'exp0', 'node-name': 'repl0',
            'name': 'disk0', 'writable': True})

    def check_end(self):
        self.mark(self.the_source, 'end')
        image = self.read_replica(self.the_keeper)
        self.the_source.quit()
        self.the_keeper.quit()
        self.assertEqual(image, self.file_content(self.disk_files[0]))

    def test_longer(self):
        client, = self.clients()
        client.pwrite(b'1' * BLOCK, DISK - BLOCK)
        self.mark(self.the_source, 'short')
        client.shutdown()
        self.resize(2 * DISK)
        client, = self.clients()
        client.pwrite(b'2' * BLOCK, 2 * DISK - BLOCK)
        client.shutdown()
        self.assertEqual(
            len(self.read_replica(self.the_keeper, point='mark:short')), DISK)
        self.check_end()

    def test_shorter(self):
        client, = self.clients()
        client.pwrite(b'1' * DISK, 0)
        client.shutdown()
        self.mark(self.the_source, 'long')
        self.resize(DISK // 2)
        self.assertEqual(
            self.read_replica(self.the_keeper, point='mark:long'), b'1' * DISK)
        self.check_end()

    def test_format_above_makes_it_longer(self):
        """qcow2 writes behind the end of its file."""
        self.the_source.quit()
        self.the_keeper.quit()
        self.log = self.image('new-log.img', self.log_size)
        self.the_keeper = self.keeper()
        qcow2 = self.image('disk.qcow2', DISK, 'qcow2')
        self.disk_files = [qcow2]
        self.the_source = self.server(
            self.source_sock, *self.file_node('disk0', qcow2),
            '--blockdev', blockdev(**self.replication(0)),
            '--blockdev', blockdev(driver='qcow2', node_name='format',
                                   file='repl0'),
            '--export', 'nbd,id=exp0,node-name=format,name=disk0,writable=on')
        self.wait_for_status(self.the_source, 'streaming')
        client, = self.clients()
        stamps = Stamps()
        for _ in range(200):
            stamps.write([client])
        client.flush()                  # what the format keeps in memory
        client.shutdown()
        self.check_end()


if __name__ == '__main__':
    main()
