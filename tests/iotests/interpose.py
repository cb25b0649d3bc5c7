# SPDX-License-Identifier: GPL-2.0-or-later
"""Stands in for a QEMU program in a run of the iotests: puts a filter under
the images that the command line opens, then becomes the real program.

The environment says how:

WEIR_IOTESTS_BIN     folder of the real programs
WEIR_IOTESTS_LOG     folder in which the dynamic linker says what was loaded,
                     and this program which arguments it changed
WEIR_IOTESTS_DRIVER  the filter
WEIR_IOTESTS_FORMAT  format of the images: raw or qcow2
WEIR_IOTESTS_WAY     inside: between format and storage node of each image
                     format: on top of the format node; for the suite the
                     filter is the image format
                     fuse: under the suite's FUSE exports
                     none: nowhere
WEIR_IOTESTS_LEAVE   programs (comma separated) that keep their command line
WEIR_IOTESTS_NO_KVM  "1": guests do not run with KVM on this machine
"""

import os
import sys
import time

DRIVER = os.environ.get('WEIR_IOTESTS_DRIVER')
FORMAT = os.environ.get('WEIR_IOTESTS_FORMAT')
WAY = os.environ.get('WEIR_IOTESTS_WAY')
# what the suite takes for the format of the images
SUITE_FORMAT = os.environ.get('IMGFMT')

# how large a cache is; many tests write more than fits
FAST_BYTES = 4 << 20

# options of any node, which stay with the name that the test gave it
GENERIC = ('node-name', 'discard', 'cache', 'read-only', 'auto-read-only',
           'force-share', 'detect-zeroes', 'active')
# a "file" without driver under one of these is the storage node
FORMATS = (None, 'raw', 'qcow2')

# options with an argument: short ones, long ones
IMG_LONG = ('output object start-offset max-length preallocation salvage size '
            'flush-interval pattern offset image-size merge granularity '
            'rate-limit trace backing').split()
OPTIONS = {
    'qemu-io': ('cdftiT', 'cmd format trace object cache aio discard'.split()),
    'qemu-nbd': ('bpkoflexXDBTc',
                 'bind port socket offset load-snapshot aio connect '
                 'detect-zeroes discard shared format object export-name '
                 'description tls-creds tls-hostname tls-authz trace bitmap '
                 'pid-file handshake-limit selinux-label cache'.split()),
    'qemu-img amend': ('oft', IMG_LONG),
    'qemu-img bench': ('cdfiosSt', IMG_LONG),
    'qemu-img bitmap': ('bfFg', IMG_LONG),
    'qemu-img check': ('frT', IMG_LONG),
    'qemu-img commit': ('ftbr', IMG_LONG),
    'qemu-img compare': ('fFT', IMG_LONG),
    'qemu-img convert': ('fOBolSTtmrF', IMG_LONG),
    'qemu-img create': ('fobFu', IMG_LONG),
    'qemu-img info': ('f', IMG_LONG),
    'qemu-img map': ('f', IMG_LONG),
    'qemu-img measure': ('Ofol', IMG_LONG),
    'qemu-img rebase': ('fFbtT', IMG_LONG),
    'qemu-img resize': ('f', IMG_LONG),
    'qemu-img snapshot': ('acdf', IMG_LONG),
}


# --- nodes as dictionaries ----------------------------------------------------

def fast_file(image, opened):
    """The cache of @image: a new one, or that with which it was opened."""
    folder = os.environ['WEIR_IOTESTS_LOG']
    stem = f'fast.{os.path.basename(image)}.'
    there = sorted(name for name in os.listdir(folder) if
                   name.startswith(stem))
    if opened or not there:
        there.append(f'{stem}{time.time_ns()}.{os.getpid()}')
        with open(os.path.join(folder, there[-1]), 'xb') as f:
            f.truncate(FAST_BYTES)
    return os.path.join(folder, there[-1])


def own_options(image, opened=True):
    """What the filter on @image needs besides "file".

    A cache is new each time, out of the test's sight, and writable even if
    the image is not.  It writes through: tests look at their images by other
    ways as well.
    """
    if DRIVER != 'weir-cache':
        return {}
    return {'mode': 'write-through', 'cache-file': {
        'driver': 'file', 'filename': fast_file(image, opened),
        'read-only': False}}


def below(node, opened=True):
    """The filter in place of the storage node @node, which it gets below."""
    own = {k: v for k, v in node.items() if k in GENERIC}
    storage = {k: v for k, v in node.items() if k not in GENERIC}
    storage['driver'] = 'file'
    if 'active' in own:
        storage['active'] = own['active']
    return {'driver': DRIVER, **own, 'file': storage,
            **own_options(storage.get('filename', 'none'), opened)}


def filtered(node, storage=False, opened=True):
    """Copy of @node with the filter above each storage node in it.

    @storage: a node without a driver would be a storage node
    @opened: it is opened by this, rather than reopened
    """
    if isinstance(node, list):
        return [filtered(v, opened=opened) for v in node]
    if not isinstance(node, dict):
        return node
    driver = node.get('driver')
    if driver == 'file' or (storage and driver is None and
                            is_plain(node.get('filename'))):
        return below(node, opened)
    # An image that names its backing file takes options for that file, but
    # no other storage node.
    return {k: v if k == 'backing' else
            filtered(v, k == 'file' and driver in FORMATS, opened)
            for k, v in node.items()}


def is_plain(name):
    """Whether @name is that of a regular file, without a protocol."""
    return isinstance(name, str) and os.path.isfile(name)


def parse(text, implied=None):
    """"a=b,c.d=e" as a nested dictionary; None if it is not of that kind."""
    node = {}
    for part in text.replace(',,', '\0').split(','):
        key, equals, value = part.replace('\0', ',').partition('=')
        if not equals:
            if node or not implied:
                return None
            key, value = implied, key
        place = node
        *folders, leaf = key.split('.')
        for folder in folders:
            place = place.setdefault(folder, {})
            if not isinstance(place, dict):
                return None
        if leaf in place:
            return None
        place[leaf] = value
    return node


def flat(node, prefix=''):
    parts = []
    for key, value in node.items():
        if isinstance(value, dict):
            parts += flat(value, f'{prefix}{key}.')
        else:
            value = 'off' if value is False else value
            parts.append(f'{prefix}{key}={value}'.replace(',', ',,'))
    return parts


# --- arguments ----------------------------------------------------------------

def quoted(text):
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"') + '"'


def text_of(options):
    """More members of a JSON object."""
    return ''.join(', %s: %s' % (
        quoted(k), quoted(v) if isinstance(v, str) else
        'false' if v is False else '{%s}' % text_of(v)[2:])
        for k, v in options.items())


def image(name):
    """The argument for an image file that a test calls by its name.

    Written without the json module: loading that would double the time that
    this program takes, and there are thousands of calls.
    """
    if not is_plain(name):
        return name
    node = '{"driver": "file", "filename": %s}' % quoted(name)
    if WAY == 'format':
        node = '{"driver": %s, "file": %s}' % (quoted(FORMAT), node)
    node = '{"driver": %s, "file": %s%s}' % (
        quoted(DRIVER), node, text_of(own_options(name)))
    return 'json:' + ('{"file": %s}' % node if WAY == 'inside' else node)


def image_opts(text):
    node = parse(text)
    if node is None:
        return text
    if WAY == 'format':
        child = node.get('file', {})
        if node.get('driver') == SUITE_FORMAT and child.keys() == {'filename'}:
            node['driver'] = DRIVER
            node['file'] = {'driver': FORMAT, 'file': {
                'driver': 'file', 'filename': child['filename']}}
            node.update(own_options(child['filename']))
    else:
        node = filtered(node)
    return ','.join(flat(node))


def blockdev(text):
    if text.startswith('{'):
        import json
        try:
            return json.dumps(filtered(json.loads(text)))
        except ValueError:              # QEMU is not that strict
            return text
    node = parse(text, 'driver')
    return text if node is None else ','.join(flat(filtered(node)))


def drive(text):
    node = parse(text)
    if node is None or node.get('format') not in FORMATS or \
            node.get('driver') not in FORMATS:
        return text
    if is_plain(node.get('file')):
        node['file'] = {'filename': node['file']}
    return ','.join(flat(filtered(node)))


def words(args, short, long):
    """Indexes of what is no option and no argument of one."""
    found = []
    i = 0
    while i < len(args):
        word = args[i]
        if word == '--':
            return found + list(range(i + 1, len(args)))
        if word.startswith('--'):
            i += word[2:] in long
        elif word.startswith('-') and len(word) > 1:
            at = next((n for n, c in enumerate(word) if n and c in short), 0)
            i += at == len(word) - 1
        else:
            found.append(i)
        i += 1
    return found


def opened(command, found):
    """Those of the words that are images to be opened, not made."""
    if command == 'qemu-img convert':
        return found[:-1]
    if command == 'qemu-img compare':
        return found
    return found[:1]


def tool_arguments(program, args):
    command, start = program, 0
    if program == 'qemu-img':
        start = next((i for i, a in enumerate(args) if a[:1] != '-'), None)
        if start is None:
            return args
        command, start = f'{program} {args[start]}', start + 1
    # "info" tells names, which would be others; "create" opens nothing
    if command not in OPTIONS or \
            (WAY == 'inside' and command.endswith((' info', ' create'))):
        return args
    for i in opened(command, words(args[start:], *OPTIONS[command])):
        change = image_opts if '--image-opts' in args else image
        args[start + i] = change(args[start + i])
    return args


def emulator_arguments(args):
    changes = {'blockdev': blockdev, 'drive': drive}
    for i, option in enumerate(args[:-1]):
        change = changes.get(option.lstrip('-'))
        if change and option.startswith('-'):
            args[i + 1] = change(args[i + 1])
    return args


def export_arguments(args):
    """Put the filter between the suite's node and its FUSE export."""
    for i, arg in enumerate(args):
        if arg.startswith('fuse,id=fuse-export,node-name=export-node,'):
            node = {'driver': DRIVER, 'node-name': 'weir',
                    'file': 'export-node', 'discard': 'unmap',
                    **own_options('export-node')}
            if DRIVER == 'weir-cache':
                # the image is seen through the export alone
                node.update({'mode': 'write-back', 'dirty-high': '30',
                             'dirty-low': '10', 'idle': '100'})
            return [*args[:i - 1], '--blockdev', ','.join(flat(node)),
                    args[i - 1], arg.replace('=export-node,', '=weir,'),
                    *args[i + 1:]]
    return args


def create(real, args):
    """Make the image that the "format" sits on."""
    import subprocess
    args = [FORMAT if a == SUITE_FORMAT else
            a.replace(f'driver={SUITE_FORMAT},file.filename=', '')
            for a in args]
    result = subprocess.run([real, *args], text=True, stdout=subprocess.PIPE)
    sys.stdout.write(result.stdout.replace(f'fmt={FORMAT} ',
                                           f'fmt={SUITE_FORMAT} '))
    sys.exit(result.returncode)


def changed(program, args):
    """The arguments with which the real program is started."""
    if WAY == 'fuse':
        return export_arguments(args)
    if WAY == 'none' or program in os.environ['WEIR_IOTESTS_LEAVE'].split(','):
        return args
    if program in ('qemu-img', 'qemu-io', 'qemu-nbd'):
        return tool_arguments(program, args)
    return emulator_arguments(args) if WAY == 'inside' else args


def log_changes(folder, before, after):
    """For the runner, which takes the changes back in the test's output."""
    if len(before) != len(after) or before == after:
        return
    with open(os.path.join(folder, f'changes.{os.getpid()}'), 'w') as f:
        for old, new in zip(before, after):
            if old != new:
                f.write(f'{new}\0{old}\0')


def without_kvm(args):
    """Leave out "-accel kvm", as if the machine had none."""
    left = []
    for arg in args:
        if arg == 'kvm' and left[-1:] == ['-accel']:
            left.pop()
        else:
            left.append(arg)
    return left


def main(program, args):
    """Become @program, called with @args."""
    real = os.path.join(os.environ['WEIR_IOTESTS_BIN'], program)
    folder = os.environ['WEIR_IOTESTS_LOG']
    if WAY == 'format' and program == 'qemu-img' and 'create' in args:
        create(real, args)
    before = list(args)
    args = changed(program, args)
    log_changes(folder, before, args)
    if os.environ['WEIR_IOTESTS_NO_KVM'] == '1':
        args = without_kvm(args)
    os.execve(real, [real, *args], {
        **os.environ, 'LD_DEBUG': 'files',
        'LD_DEBUG_OUTPUT': os.path.join(folder, 'loaded')})
