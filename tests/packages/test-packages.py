#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian packages, in a Debian that has nothing else.

Needs what "./bootstrap deb" and "./bootstrap demo" make, root, and a mirror.
The tests of the class are steps, and run in the order of their names.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from chroot import Chroot

SOURCE = os.environ['WEIR_SOURCE']
BUILD = os.environ['WEIR_BUILD']
DEB = os.path.join(BUILD, 'deb')
CACHE = os.path.join(os.environ.get('WEIR_CACHE_DIR') or os.path.expanduser(
    '~/.cache/weir'), 'debootstrap')
PACKAGES = ('weir', 'weir-qemu', 'weir-qemu-utils', 'weir-qemu-block-extra',
            'libweir-policy0', 'libweir-policy-dev', 'weir-plugin-dev')
BIN = '/usr/lib/weir/bin'
EXAMPLES = '/usr/share/doc/weir/examples'

# What a client of a storage daemon writes through a chain of our filters is
# there when the chain is opened by another program.
DAEMON = f'''
set -e
cd /tmp
{BIN}/qemu-img create -q -f raw disk 16M
{BIN}/qemu-img create -q -f raw cache 16M
{BIN}/qemu-storage-daemon --daemonize --pidfile pid \\
    --blockdev driver=file,node-name=disk,filename=disk \\
    --blockdev driver=file,node-name=ssd,filename=cache \\
    --blockdev driver=weir-cache,node-name=cached,file=disk,cache-file=ssd \\
    --blockdev driver=weir-inspect,node-name=top,file=cached \\
    --nbd-server addr.type=unix,addr.path=nbd \\
    --export type=nbd,id=e,name=e,node-name=top,writable=on
{BIN}/qemu-io -f raw -c 'write -P 87 0 1M' -c 'read -P 87 0 1M' \\
    'nbd+unix:///e?socket=nbd'
daemon=$(cat pid)
kill "$daemon"
while kill -0 "$daemon" 2>/dev/null; do sleep 0.1; done
{BIN}/qemu-io -c 'read -P 87 0 1M' --image-opts \\
    driver=weir-cache,file.filename=disk,cache-file.filename=cache
rm disk cache nbd
'''

# While a QEMU runs, its packages are installed anew.  Then QEMU finds a module
# of its own build although the one that was installed is gone.
UPGRADE = f'''
set -e
cd /tmp
{BIN}/qemu-storage-daemon --daemonize --pidfile pid
apt-get install -y --reinstall weir-qemu-utils
kill "$(cat pid)"
mv /usr/lib/weir/lib/qemu/block-weir-inspect.so .
{BIN}/qemu-io -c 'read 0 512' --image-opts \\
    driver=weir-inspect,file.driver=null-co,file.read-zeroes=on
mv block-weir-inspect.so /usr/lib/weir/lib/qemu/
'''

# An emulator with a console over SPICE starts, and ends when it is told so.
SPICE = f'''
printf '{{"execute":"qmp_capabilities"}}{{"execute":"quit"}}' |
{BIN}/qemu-system-x86_64 -M none -nodefaults -display none -qmp stdio \\
    -spice disable-ticketing=on,unix=on,addr=/tmp/spice \\
    -chardev spicevmc,id=agent,name=vdagent
'''

# A program that prints the schema of policies.
LIBRARY = '''
#include <stdio.h>
#include <weir-policy.h>
int main(void)
{
    WeirPolicies *policies = weir_policies_new();
    char *text = NULL;
    int ret = weir_policies_schema(policies, &text, &text);
    puts(text);
    weir_policies_free_text(text);
    weir_policies_free(policies);
    return -ret;
}
'''


def unmet():
    """Why the packages cannot be tried here, or None."""
    if os.geteuid():
        return 'only root can make a chroot'
    if not shutil.which('debootstrap', path='/usr/sbin:/usr/bin'):
        return 'debootstrap is not installed'
    if len(glob.glob(f'{DEB}/*.deb')) < len(PACKAGES):
        return 'there are no packages: see ./bootstrap deb'
    if not os.path.exists(f'{BUILD}/guest/vmlinuz'):
        return 'there is no guest: see ./bootstrap demo'
    return None


class Packages(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix='test-', dir=DEB)
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.chroot = Chroot(cls.folder, CACHE)
        os.mkdir(cls.chroot.path('/packages'))
        for deb in glob.glob(f'{DEB}/*.deb'):
            os.link(deb, cls.chroot.path(f'/packages/{os.path.basename(deb)}'))
        with open(cls.chroot.path('/packages/Packages'), 'w') as f:
            subprocess.run(['dpkg-scanpackages', '.'], check=True, stdout=f,
                           cwd=cls.chroot.path('/packages'))
        cls.chroot.apt('update')
        cls.before = cls.chroot.files()

    def test_0_lintian(self):
        subprocess.run(
            ['lintian', '--fail-on', 'error', '--allow-root',
             *glob.glob(f'{DEB}/*.deb')], check=True, timeout=600)

    def test_1_install(self):
        self.chroot.apt('install', *PACKAGES)
        text = self.chroot.run('weir', '--version')
        self.assertRegex(text, r'^weir \d')
        self.assertEqual(self.chroot.run('dpkg', '--audit'), '')

    def test_2_policies(self):
        self.assertEqual(self.chroot.run(
            'sh', '-c', f'weir policy check {EXAMPLES}/*.yaml'), '')
        text = self.chroot.run('weir', 'policy', 'list', '--policies',
                               EXAMPLES)
        self.assertIn('weir-inspect', text)
        self.chroot.run('truncate', '-s', '1M', '/tmp/disk')
        nodes = [json.loads(line) for line in self.chroot.run(
            'weir', 'compile', '--policies', EXAMPLES, '--policy', 'observe',
            '--disk', 'file=/tmp/disk,format=raw').splitlines()]
        self.assertEqual([node['driver'] for node in nodes],
                         ['file', 'weir-inspect', 'raw'])
        os.unlink(self.chroot.path('/tmp/disk'))

    def test_3_library(self):
        """A program finds its parts, and it the programs."""
        self.chroot.apt('install', 'gcc', 'libc6-dev', 'pkgconf')
        self.chroot.write('/tmp/schema.c', LIBRARY)
        text = self.chroot.run(
            'sh', '-c', 'cc /tmp/schema.c -o /tmp/schema '
            '$(pkg-config --cflags --libs weir-policy) && /tmp/schema')
        self.assertIn('weir-cache', text)
        os.unlink(self.chroot.path('/tmp/schema.c'))
        os.unlink(self.chroot.path('/tmp/schema'))

    def test_3_storage_daemon(self):
        self.chroot.run('sh', '-c', DAEMON)

    def open_with(self, driver):
        """What is said about a disk of that driver."""
        return self.chroot.run(f'{BIN}/qemu-img', 'info', '--image-opts',
                               f'driver={driver},file.driver=null-co',
                               check=False)

    def test_3_modules(self):
        """Each module can be loaded by the program that it is for."""
        self.assertIn('Unknown driver', self.open_with('weir-nothing'))
        for name in ('weir-inspect', 'weir-cache', 'weir-encryption',
                     'weir-replication', 'weir-journal', 'weir-replica',
                     'rbd', 'iscsi', 'nfs', 'ssh', 'https'):
            self.assertNotRegex(self.open_with(name),
                                'Unknown driver|open module')
        text = self.chroot.run(f'{BIN}/qemu-system-x86_64', '-device', 'help')
        for name in ('qxl-vga', 'virtio-gpu-pci', 'usb-redir', 'usb-host',
                     'ccid-card-passthru', 'virtio-9p-pci'):
            self.assertIn(f'"{name}"', text)
        self.chroot.run('sh', '-c', SPICE)

    def test_3_upgrade(self):
        self.chroot.run('sh', '-c', UPGRADE)
        self.assertTrue(glob.glob(
            self.chroot.path('/run/qemu/Weir_*/block-weir-cache.so')))

    def test_4_demo(self):
        """The demo, with the installed programs."""
        programs = os.path.join(self.folder, 'programs')
        guest = os.path.join(self.folder, 'guest')
        os.makedirs(f'{programs}/bin')
        os.symlink('/usr/bin/weir', f'{programs}/bin/weir')
        for name in ('qemu-img', 'qemu-system-x86_64'):
            os.symlink(f'{BIN}/{name}', f'{programs}/bin/{name}')
        os.mkdir(guest)
        for name in ('vmlinuz', 'initramfs'):
            os.link(f'{BUILD}/guest/{name}', f'{guest}/{name}')
        with open(f'{guest}/accel', 'w') as f:
            f.write('tcg\n')
        text = self.chroot.run(
            'env', 'WEIR_SOURCE=/source', 'WEIR_BUILD=/programs',
            'WEIR_GUEST=/guest', 'python3', '/source/tests/guest/demo',
            mounts=((SOURCE, '/source'), (programs, '/programs'),
                    (guest, '/guest')))
        self.assertIn('nothing is left behind', text)

    def test_4_servers(self):
        """Disks on servers, of which only this QEMU can open all."""
        self.chroot.apt('install', 'python3-libnbd', 'tgt', 'ceph-mon',
                        'ceph-osd')
        # the shell is init, and so the parent of daemons that end
        text = self.chroot.run(
            'env', 'WEIR=/usr/bin/weir', f'WEIR_QEMU_BIN_DIR={BIN}', 'sh',
            '-c', 'python3 /source/tests/policy/test-remote.py AllFilters; '
            'exit $?', mounts=((SOURCE, '/source'),))
        self.assertRegex(text, r'test_rbd .* ok\n')
        self.assertNotIn('skipped', text)

    def test_5_apparmor(self):
        """libvirt's profiles include ours as long as we are installed."""
        local = self.chroot.path('/etc/apparmor.d/local')
        self.chroot.apt('install', 'apparmor', 'libvirt-daemon-system')
        for name in ('abstractions/libvirt-qemu', 'usr.sbin.libvirtd'):
            with open(f'{local}/{name}') as f:
                self.assertIn('<abstractions/weir-libvirt', f.read())
        rules = self.chroot.run(
            'apparmor_parser', '--skip-kernel-load', '--skip-cache',
            '--debug', '/etc/apparmor.d/usr.sbin.libvirtd')
        self.assertIn('/usr/lib/weir/bin/', rules)
        self.chroot.write('/tmp/guest', '''
            #include <tunables/global>
            profile guest {
              #include <abstractions/libvirt-qemu>
            }''')
        rules = self.chroot.run('apparmor_parser', '--skip-kernel-load',
                                '--skip-cache', '--debug', '/tmp/guest')
        self.assertIn(f'{BIN}/{{qemu-system-x86_64,', rules)
        os.unlink(self.chroot.path('/tmp/guest'))

    def test_6_remove(self):
        """The rules go with the emulator; libvirt's own stay as they were."""
        self.chroot.apt('remove', 'weir-qemu')
        for name in ('abstractions/libvirt-qemu', 'usr.sbin.libvirtd'):
            with open(self.chroot.path(f'/etc/apparmor.d/local/{name}')) as f:
                self.assertEqual(f.read(), '')
        self.chroot.run('apparmor_parser', '--skip-kernel-load',
                        '--skip-cache', '/etc/apparmor.d/usr.sbin.libvirtd')

    def test_7_purge(self):
        self.chroot.apt('purge', *PACKAGES)
        left = self.chroot.files() - self.before
        self.assertEqual([name for name in left if 'weir' in name], [])
        self.chroot.apt('purge', 'libvirt-daemon-system', 'apparmor')
        self.chroot.apt('autoremove', '--purge')
        left = self.chroot.files() - self.before
        self.assertEqual([name for name in left if 'weir' in name or
                          name.startswith('/run/qemu')], [])


if __name__ == '__main__':
    reason = unmet()
    if reason:
        print(f'SKIP: {reason}')
        sys.exit(77)
    unittest.main(argv=['test-packages', '-v'])
