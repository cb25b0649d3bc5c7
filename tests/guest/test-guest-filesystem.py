#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system in a guest, on a disk with weir-inspect in its chain."""

import guest
from weirtest import blockdev, statistics

SCRIPT = '''
set -e
mkfs.ext4 -q /dev/vda
mount /dev/vda /mnt
for i in 1 2 3 4 5 6 7 8; do
    dd if=/dev/urandom of=/mnt/random$i bs=64k count=$((i * 8)) \\
        conv=fsync 2>/dev/null
    dd if=/dev/zero of=/mnt/zero$i bs=4k count=$((i * 50)) 2>/dev/null
done
cp -r /bin /modules /mnt
rm /mnt/zero3 /mnt/random5
tar -cf /mnt/all.tar -C /mnt bin modules random1
cd /mnt
find . -type f | sort | xargs sha256sum >/tmp/sums
cd /
umount /mnt
# what is read now comes from the disk
echo 3 >/proc/sys/vm/drop_caches
mount /dev/vda /mnt
cd /mnt
sha256sum -c /tmp/sums >/tmp/result || { cat /tmp/result; exit 1; }
report files $(grep -c ': OK$' /tmp/result)
report size $(du -sk . | cut -f 1)
tar -xOf all.tar random1 | cmp - random1
sync
wait_host done
cd /
umount /mnt
'''


class Filesystem(guest.TestCase):
    def run_over(self, fmt, place):
        """A guest with weir-inspect above the format or the storage node."""
        path = self.image('disk', 256 << 20, fmt)
        below = 'storage' if place == 'storage' else 'format'
        nodes = {
            'storage': blockdev(driver='file', filename=path,
                                node_name='storage'),
            'filter': blockdev(driver='weir-inspect', node_name='filter',
                               file=below),
            'format': blockdev(driver=fmt, node_name='format',
                               file='filter' if place == 'storage'
                               else 'storage'),
        }
        order = ['storage', 'filter', 'format'] if place == 'storage' else \
            ['storage', 'format', 'filter']
        args = [arg for name in order for arg in ('-blockdev', nodes[name])]
        vm = self.start(SCRIPT, *args, '-device',
                        f'virtio-blk,drive={order[-1]}')
        vm.wait_for('done')
        self.check(vm, place)
        vm.go_on()
        self.finish(vm)

    def check(self, vm, place):
        files = int(vm.report(r'files (\d+)')[1])
        size = int(vm.report(r'size (\d+)')[1]) << 10
        self.assertGreater(files, 20)
        info, = vm.cmd('query-weir')
        self.assertEqual((info['driver'], info['node-name'], info['state'],
                          info['place']),
                         ('weir-inspect', 'filter', 'ok', place))
        seen = statistics(info)
        # all that is on the disk was written, and read again to be checked
        self.assertGreater(seen['write']['bytes'], size / 2)
        self.assertLess(seen['write']['bytes'], 20 * size)
        self.assertGreater(seen['read']['bytes'], size / 2)
        for operation in ('read', 'write', 'flush'):
            self.assertGreater(seen[operation]['requests'], 0, operation)
            self.assertEqual(seen[operation]['failed'], 0, operation)
            self.assertEqual(sum(seen[operation]['latency-histogram']),
                             seen[operation]['requests'], operation)
        self.assertGreater(info['writes']['bytes'], size / 2)
        self.assertGreater(info['working-set']['unique-bytes'], 0)
        text = vm.hmp('info weir')
        for word in ('filter', 'weir-inspect', 'write', 'flush'):
            self.assertIn(word, text)

    def test_raw_filter_above_storage(self):
        self.run_over('raw', 'storage')

    def test_raw_filter_on_top(self):
        self.run_over('raw', 'disk')

    def test_qcow2_filter_above_storage(self):
        self.run_over('qcow2', 'storage')


if __name__ == '__main__':
    guest.main()
