# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of weir-plugin share: a disk under a plugin."""

import os
import threading

import nbd

from weirtest import BUILD, TestCase, blockdev, wait_for

MIB = 1 << 20
PLUGINS = os.path.join(os.environ.get('WEIR_MESON_BUILD') or
                       os.path.join(BUILD, 'weir'), 'tests', 'plugins')
os.environ['WEIR_PLUGIN_PATH'] = PLUGINS


class Disk(TestCase):
    """A disk "flt" under a plugin, exported over NBD by an I/O thread."""

    def serve(self, plugin='probe', size=16 * MIB, iothread=True, **options):
        self.file = self.image(size=size)
        self.sock = self.path('nbd.sock')
        self.d = self.daemon(
            '--object', 'iothread,id=io0',
            '--blockdev', blockdev(driver='file', node_name='file',
                                   filename=self.file, discard='unmap'),
            '--blockdev', blockdev(driver='weir-plugin', node_name='flt',
                                   plugin=plugin, file='file',
                                   discard='unmap', **options),
            '--nbd-server', f'addr.type=unix,addr.path={self.sock},'
            'max-connections=4',
            '--export', 'nbd,id=exp,node-name=flt,name=disk,writable=on' +
            (',iothread=io0' if iothread else ''))
        self.client = self.connect()
        return self.client

    def connect(self):
        client = nbd.NBD()
        client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        # so that a failed read does not end the connection
        client.set_request_structured_replies(False)
        # requests may be longer than the plugin is given in one piece
        client.set_strict_mode(client.get_strict_mode() &
                               ~getattr(nbd, 'STRICT_PAYLOAD', 0))
        client.connect_uri(f'nbd+unix:///disk?socket={self.sock}')
        return client

    def info(self):
        return self.filter_info(self.d, 'flt')

    def counts(self):
        return {g['name']: g['value'] for g in self.info()['gauges']}

    def set(self, plugin='probe', on_error='stall', deadline=30000, **options):
        """Change options; all that were given have to be there again."""
        options = {'mode': 'pass', **options}
        self.d.cmd('blockdev-reopen', {'options': [{
            'driver': 'weir-plugin', 'node-name': 'flt', 'plugin': plugin,
            'file': 'file', 'discard': 'unmap', 'on-error': on_error,
            'deadline': deadline,
            'options': {k.replace('_', '-'): v for k, v in options.items()}}]})

    def finish(self):
        self.client.shutdown()
        self.d.quit()

    def in_thread(self, function, *args):
        """Start it; returns a function that waits for (result, error)."""
        outcome = []

        def body():
            try:
                outcome.append((function(*args), None))
            except (nbd.Error, OSError) as error:
                outcome.append((None, error))
        thread = threading.Thread(target=body)
        thread.start()

        def join():
            thread.join(60)
            self.assertFalse(thread.is_alive(), 'it hangs')
            return outcome[0]
        join.is_alive = thread.is_alive
        return join

    def wait_held(self, number):
        wait_for(lambda: self.info()['held'] == number, f'{number} held')

    def state(self, state, text=None):
        info = wait_for(lambda: (i := self.info())['state'] == state and i,
                        f'state {state}')
        if text:
            self.assertIn(text, info['reason'])
        return info
