# SPDX-License-Identifier: GPL-2.0-or-later
"""Run single tests of the qemu-iotests with a filter in the path of the data.

The suite's own modules choose the tests and make up their environment; this
one runs a test in folders of its own, takes back in its output what the
filter changes there by its nature, compares, and counts the processes in
which the driver was really loaded.
"""

import collections
import contextlib
import difflib
import glob
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get('WEIR_BUILD') or os.path.join(
    os.path.dirname(os.path.dirname(HERE)), 'build')
PROGRAMS = ('qemu-system-x86_64', 'qemu-img', 'qemu-io', 'qemu-nbd',
            'qemu-storage-daemon')
DRIVERS = ('weir-inspect', 'weir-cache')
# guards against hanging, not criteria
TEST_PATIENCE_S = 240
END_PATIENCE_S = 10

# What needs no change is started without Python: there are thousands of calls.
STAND_IN = '''#!/bin/sh
case $WEIR_IOTESTS_WAY-${{0##*/}}-$1 in
none-*|inside-qemu-img-create|inside-qemu-img-info|fuse-qemu-[!s]*)
    export LD_DEBUG=files LD_DEBUG_OUTPUT="$WEIR_IOTESTS_LOG/loaded"
    exec "$WEIR_IOTESTS_BIN/${{0##*/}}" "$@" ;;
esac
exec /usr/bin/python3 -IS {folder}/start.py "${{0##*/}}" "$@"
'''

START = '''import sys
sys.path.insert(0, {folder!r})
import interpose
interpose.main(sys.argv[1], sys.argv[2:])
'''

# The suite starts a storage daemon for a FUSE export, waits for a file with
# its process id, and reads that with cat; but the daemon may take a while to
# mount, and until then there is an empty file.  This cat waits for it, as long
# as the daemon lives.
CAT = '''#!/bin/sh
case $1 in
*/qemu-storage-daemon.pid)
    read -r pid < "$1"
    for export in "$SOCK_DIR"/fuse-t.*; do
        tries=1000
        while [ -e "$export" ] && [ $tries -gt 0 ] && kill -0 "${pid:-$$}" &&
              [ "$(stat -c %d "$export")" = "$(stat -c %d "$SOCK_DIR")" ]; do
            sleep 0.01
            tries=$((tries - 1))
        done
    done 2>/dev/null ;;
esac
exec /bin/cat "$@"
'''

# status: pass, fail or "not run"; text: why, or the differences;
# filters: number of processes that loaded the driver
Result = collections.namedtuple('Result', 'status text filters')


def guests_have_no_kvm():
    """make-guest has tried: there are machines with a /dev/kvm on which no
    guest gets far."""
    try:
        with open(os.path.join(BUILD, 'guest', 'accel')) as f:
            return f.read().strip() != 'kvm'
    except FileNotFoundError:
        return False


class Failure(Exception):
    """The tests cannot be run at all."""


# --- what the filter changes by its nature ------------------------------------

EVENT = re.compile(r'^.*"event": "WEIR_STATE".*\n', re.M)
# a filter has no file name, so names become descriptions
NODE = re.compile(
    r'\{(?:"cache-file": \{"driver": "file",,? "filename": "[^"]*"\},,? )?'
    r'"driver": "(?:%s)",,? "file": (\{"driver": "file",,? '
    r'"filename": "[^"]*"\})\}' % '|'.join(DRIVERS))
NAME = re.compile(r'json:\{"driver": "(?:raw|qcow2|IMGFMT)",,? "file": '
                  r'\{"driver": "file",,? "filename": "([^"]*)"\}\}')
STORAGE_NAME = re.compile(r'json:\{"driver": "file",,? '
                          r'"filename": "([^"]*)"\}')


def argument_changes(folder):
    """(new, old) for each argument that interpose.py changed."""
    pairs = set()
    for path in glob.glob(os.path.join(folder, 'changes.*')):
        with open(path, errors='replace') as f:
            fields = f.read().split('\0')
        pairs.update(zip(fields[0::2], fields[1::2]))
    return sorted(pairs, key=lambda pair: -len(pair[0]))


def without_filter(text, variables):
    """@text, a test's output, as it would be with plain storage nodes."""
    text = EVENT.sub('', text)
    folder, name = variables['TEST_DIR'] + '/', variables['IMGFMT']
    masks = [lambda s: s,
             lambda s: s.replace(folder, 'TEST_DIR/'),
             lambda s: s.replace(name, 'IMGFMT'),
             lambda s: s.replace(folder, 'TEST_DIR/').replace(name, 'IMGFMT')]
    for new, old in argument_changes(variables['WEIR_IOTESTS_LOG']):
        for mask in masks:
            text = text.replace(mask(new), mask(old))
    if variables['WEIR_IOTESTS_WAY'] == 'inside':
        text = NODE.sub(r'\1', text)
        text = STORAGE_NAME.sub(r'\1', NAME.sub(r'\1', text))
    return text


# --- one test -----------------------------------------------------------------

class Runner:
    """Runs tests of the suite in folders below @scratch and @sockets."""

    def __init__(self, driver, image_format, scratch, sockets):
        self.driver = driver
        self.image_format = image_format
        self.scratch = scratch
        self.sockets = sockets
        self.numbers = itertools.count(1)
        self.environments = {}
        check = os.path.join(BUILD, 'qemu', 'tests', 'qemu-iotests', 'check')
        self.suite_build = os.path.dirname(check)
        self.suite = os.path.dirname(os.path.realpath(check))
        if not os.path.exists(os.path.join(self.suite, 'testenv.py')):
            raise Failure(f'{check}: no qemu-iotests there')
        sys.path.insert(0, self.suite)
        self.make_stand_ins()
        self.set_environment()

    def make_stand_ins(self):
        """What the tests take for QEMU's programs."""
        self.bin = os.path.join(self.scratch, 'bin')
        os.mkdir(self.bin)
        # a copy: its compiled form is kept beside it
        shutil.copy(os.path.join(HERE, 'interpose.py'), self.bin)
        write_program(os.path.join(self.bin, 'cat'), CAT)
        write_program(os.path.join(self.bin, 'start.py'),
                      START.format(folder=self.bin))
        for name in PROGRAMS:
            if not os.path.exists(os.path.join(BUILD, 'bin', name)):
                raise Failure(f'{BUILD}/bin/{name} is not built')
            write_program(os.path.join(self.bin, name),
                          STAND_IN.format(folder=self.bin))

    def set_environment(self):
        """For the suite, which takes its settings from the environment."""
        for name in list(os.environ):
            if name.startswith(('PYTHON', 'QEMU', 'IMG', 'LD_', 'VALGRIND')):
                del os.environ[name]
        programs = [os.path.join(self.bin, name) for name in PROGRAMS]
        os.environ.update(zip(
            ('QEMU_PROG', 'QEMU_IMG_PROG', 'QEMU_IO_PROG', 'QEMU_NBD_PROG',
             'QSD_PROG'), programs))
        os.environ.update({
            'PATH': f'{self.bin}:/usr/local/sbin:/usr/local/bin:'
                    '/usr/sbin:/usr/bin:/sbin:/bin',
            'LC_ALL': 'C',
            'TMPDIR': self.scratch,
            'PYTHONPATH': os.path.join(HERE, 'site'),
            'PYTHONPYCACHEPREFIX': os.path.join(self.scratch, 'pycache'),
            'PYTHONUNBUFFERED': '1',
            'TEST_DIR': self.scratch,
            'SOCK_DIR': self.sockets,
            'WEIR_IOTESTS_BIN': os.path.join(BUILD, 'bin'),
            'WEIR_IOTESTS_LOG': self.scratch,
            'WEIR_IOTESTS_FORMAT': self.image_format,
            'WEIR_IOTESTS_DRIVER': self.driver,
            'WEIR_IOTESTS_WAY': 'none',
            'WEIR_IOTESTS_LEAVE': '',
            'WEIR_IOTESTS_NO_KVM': '1' if guests_have_no_kvm() else '0',
        })

    def tests(self, names):
        """Names of the suite's tests, all of group quick without @names."""
        from findtests import TestFinder
        finder = TestFinder(test_dir=self.suite)
        try:
            return finder.find_tests(tests=names) if names else \
                finder.find_tests(groups=['quick'])
        except ValueError as error:
            raise Failure(str(error))

    def environment(self, way):
        """The suite's settings for a way."""
        from testenv import TestEnv
        if way not in self.environments:
            env = TestEnv(
                source_dir=self.suite, build_dir=self.suite_build,
                imgfmt=self.driver if way == 'format' else
                self.image_format,
                imgproto='fuse' if way == 'fuse' else 'file',
                aiomode='threads')
            if way == 'format':
                env.imgoptssyntax = 'true'
                env.qemu_io_options = env.qemu_io_options_no_fmt
            self.environments[way] = env
        return self.environments[way]

    def run(self, way, test, bare=False, leave='', driver=None,
            to_fail=False):
        """Run one test.

        @bare: run it as if for this way, but without the filter
        @leave: programs (comma separated) that keep their command line
        @driver: use this one instead
        @to_fail: end it as soon as it is clear that it fails
        """
        env = self.environment(way)
        label = f'{env.imgfmt}-{next(self.numbers)}'
        places = {'TEST_DIR': os.path.join(self.scratch, label),
                  'SOCK_DIR': os.path.join(self.sockets, label),
                  'WEIR_IOTESTS_LOG': os.path.join(self.scratch,
                                                   label + '-log')}
        args = [os.path.join(self.suite, test)]
        variables = {**env.prepare_subprocess(args), **places,
                     'WEIR_IOTESTS_WAY': 'none' if bare else way,
                     'WEIR_IOTESTS_LEAVE': leave,
                     'WEIR_IOTESTS_TEST': args[-1],
                     'WEIR_IOTESTS_DRIVER': driver or self.driver}
        for folder in places.values():
            os.mkdir(folder)
        try:
            return Run(env, self.driver, test, args, variables).run(to_fail)
        finally:
            for folder in places.values():
                shutil.rmtree(folder)


def write_program(path, text):
    with open(path, 'w') as f:
        f.write(text)
    os.chmod(path, 0o755)


class Run:
    """One run of one test."""

    def __init__(self, env, driver, test, args, variables):
        from testrunner import TestRunner
        self.driver = driver
        self.args = args
        self.variables = variables
        self.folder = variables['TEST_DIR']
        self.log = variables['WEIR_IOTESTS_LOG']
        self.output = os.path.join(self.log, 'output')
        self.notrun = os.path.join(self.folder,
                                   os.path.basename(test) + '.notrun')
        self.reference = TestRunner(env).find_reference(args[-1])

    def run(self, to_fail):
        status = self.run_process(to_fail)
        left = end_processes(self.folder + '\0', 0 if status is None else
                             END_PATIENCE_S)
        left += end_mounts(self.variables['SOCK_DIR'])
        if status == 0 and os.path.exists(self.notrun):
            with open(self.notrun) as f:
                return Result('not run', ' '.join(f.read().split()), 0)
        problems = []
        if status is None:
            problems.append('ended by the runner')
        elif status != 0:
            problems.append(f'exit status {status}')
        if left:
            problems.append('left behind: ' + ', '.join(left))
        problems += difflib.unified_diff(*self.lines(), 'expected', 'got',
                                         lineterm='', n=2)
        return Result('fail' if problems else 'pass', '\n'.join(problems),
                      self.count_loaded())

    def run_process(self, to_fail):
        """Exit status, or None if it was ended."""
        deadline = time.monotonic() + TEST_PATIENCE_S
        with open(self.output, 'w') as f, subprocess.Popen(
                self.args, cwd=os.path.dirname(self.args[-1]),
                env=self.variables, stdin=subprocess.DEVNULL, stdout=f,
                stderr=f, start_new_session=True) as process:
            while True:
                try:
                    return process.wait(1)
                except subprocess.TimeoutExpired:
                    pass
                if time.monotonic() > deadline or \
                        (to_fail and self.differs_already()):
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    return None

    def lines(self):
        """Lines expected, and lines got."""
        with open(self.reference, errors='replace') as f:
            expected = f.read()
        with open(self.output, errors='replace') as f:
            got = without_filter(f.read(), self.variables)
        # the suite does not mind spaces at the end of a line either
        return [[line.rstrip() for line in text.splitlines()]
                for text in (expected, got)]

    def differs_already(self):
        expected, got = self.lines()
        got = got[:-1]                  # its last line may not be whole
        return got != expected[:len(got)]

    def count_loaded(self):
        """Number of processes that loaded the driver."""
        wanted = f'/block-{self.driver}.so'.encode()
        count = 0
        for path in glob.glob(os.path.join(self.log, 'loaded.*')):
            with open(path, 'rb') as f:
                count += wanted in f.read()
        return count


# --- nothing is left behind ---------------------------------------------------

def processes_with(text):
    """{pid: name} of processes with @text in their environment."""
    found = {}
    for path in glob.glob('/proc/[0-9]*/environ'):
        pid = int(path.split('/')[2])
        with contextlib.suppress(OSError), open(path, 'rb') as environ, \
                open(f'/proc/{pid}/comm') as name:
            if pid != os.getpid() and text.encode() in environ.read():
                found[pid] = name.read().strip()
    return found


def end_processes(text, patience_s):
    """Let processes end, then make them; names of those that did not."""
    deadline = time.monotonic() + patience_s
    while (left := processes_with(text)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    while left and processes_with(text):
        time.sleep(0.05)
    return sorted(left.values()) if patience_s else []


def end_mounts(folder):
    """Take down FUSE exports below @folder; their names."""
    with open('/proc/self/mounts') as f:
        mounts = [line.split()[1] for line in f]
    mounts = [m for m in mounts if m.startswith(folder + '/')]
    for mount in mounts:
        subprocess.run(['fusermount3', '-u', '-z', mount],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return mounts


def supports_direct_io(folder):
    path = os.path.join(folder, 'direct')
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT))
        return True
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def folders():
    """A folder for images, on which O_DIRECT works, and one for sockets.

    The latter has a short name: the path of a socket ends at 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix='weir-', dir='/tmp') as sockets:
        place = '/tmp' if supports_direct_io(sockets) else BUILD
        with tempfile.TemporaryDirectory(prefix='weir-iotests-',
                                         dir=place) as scratch:
            try:
                yield scratch, sockets
            finally:
                end_processes(scratch, 0)
                end_mounts(sockets)
