# SPDX-License-Identifier: GPL-2.0-or-later
"""A small Debian in a folder, in which packages are installed and tried.

Each command gets namespaces of its own for mounts and processes, so nothing
that it mounts or starts is there after its end.
"""

import os
import shutil
import subprocess

KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
# a guard against hanging, not a criterion
PATIENCE_S = 1800

# mounts, then the command
ENTER = '''
set -e
root=$1
shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind -o ro "$1" "$root$2"
    shift 2
done
shift
exec chroot "$root" "$@"
'''


def mirror():
    """(URI, suite) of the Debian that the machine itself installs from."""
    targets = subprocess.check_output(
        ['apt-get', 'indextargets', '--format', '$(REPO_URI) $(RELEASE)',
         'Created-By: Packages'], text=True)
    for line in targets.splitlines():
        uri, suite = line.rsplit(' ', 1)
        if uri.rstrip('/').endswith('/debian') and '-' not in suite:
            return uri, suite
    raise AssertionError('the sources of apt name no Debian mirror')


class Chroot:
    def __init__(self, folder, cache):
        """Make one in FOLDER; packages are kept in CACHE."""
        self.root = os.path.join(folder, 'root')
        os.makedirs(cache, exist_ok=True)
        uri, suite = mirror()
        self._run(['debootstrap', '--variant=minbase',
                   f'--keyring={KEYRING}', f'--cache-dir={cache}',
                   '--include=python3', suite, self.root, uri])
        shutil.copy('/etc/resolv.conf', self.path('/etc/resolv.conf'))
        self.write('/usr/sbin/policy-rc.d', '#!/bin/sh\nexit 101\n')
        os.chmod(self.path('/usr/sbin/policy-rc.d'), 0o755)
        with open(self.path('/etc/apt/sources.list'), 'a') as f:
            f.write('deb [trusted=yes] file:/packages ./\n')

    def path(self, name):
        return self.root + name

    def write(self, name, text):
        with open(self.path(name), 'w') as f:
            f.write(text)

    def _run(self, command, check=True):
        """Run it in namespaces of its own; returns what it printed."""
        result = subprocess.run(
            ['unshare', '--mount', '--pid', '--fork', '--kill-child',
             *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_S,
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C',
                 'HOME': '/root', 'DEBIAN_FRONTEND': 'noninteractive',
                 'PYTHONDONTWRITEBYTECODE': '1'})
        if check and result.returncode:
            raise AssertionError(f'exit status {result.returncode} of '
                                 f'{command}:\n{result.stdout}')
        return result.stdout

    def run(self, *command, mounts=(), check=True):
        """Run a command inside; MOUNTS are (folder, folder inside)."""
        binds = [name for mount in mounts for name in mount]
        return self._run(['sh', '-c', ENTER, 'sh', self.root, *binds, '--',
                          *command], check)

    def apt(self, *args):
        return self.run('apt-get', '-y', '--no-install-recommends', *args)

    def files(self):
        """What is there, without what apt and dpkg keep about packages."""
        kept = ('/var/cache', '/var/log', '/var/lib/apt', '/var/lib/dpkg')
        found = set()
        for folder, folders, files in os.walk(self.root):
            inside = folder[len(self.root):]
            folders[:] = [f for f in folders if f'{inside}/{f}' not in kept]
            found |= {f'{inside}/{name}' for name in folders + files}
        return found
