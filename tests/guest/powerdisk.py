# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks in memory that can lose their power, each served over NBD.

A write is answered at once and is volatile.  A flush takes a while, and makes
safe what was answered when it came.  A power cut hits all disks of a Power at
the same moment; what is left then is made by outcome(), each time another one:
volatile writes are kept, dropped, or torn at sectors of 512 bytes.
"""

import errno
import random
import socket
import struct
import threading

SECTOR = 512
FLUSH_S = (0, 0.002, 0.02)

OPT_GO, REP_ACK, REP_INFO, REP_UNSUPPORTED = 7, 1, 3, (1 << 31) + 1
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
HAS_FLAGS, CAN_FLUSH, CAN_TRIM, CAN_ZERO = 1, 4, 32, 64
READ, WRITE, DISCONNECT, FLUSH, TRIM, ZERO = 0, 1, 2, 3, 4, 6
REQUEST = struct.Struct('>IHHQQI')
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698


class Power:
    """What the disks of a machine share."""

    def __init__(self):
        self.lock = threading.Lock()    # of all that the disks hold
        self.on = True
        self.off = threading.Event()
        self.awaited = None             # (disk, kinds of requests, how many)

    def cut(self, disk, kinds, count, timeout):
        """When that disk gets so many more requests; the last one, and all
        that are under way with any disk, are not answered."""
        with self.lock:
            self.awaited = disk, kinds, count
        if not self.off.wait(timeout):
            raise AssertionError('the disk is not used')

    def request(self, disk, kind):
        """One has come; the lock is held.  Returns whether there is power."""
        if self.awaited and self.awaited[0] is disk and \
                kind in self.awaited[1]:
            count = self.awaited[2] - 1
            self.awaited = disk, self.awaited[1], count
            self.on = self.on and count > 0
            if not self.on:
                self.off.set()
        return self.on


class Disk:
    def __init__(self, power, path, content):
        """Serve it on a unix socket until close()."""
        self.power = power
        self.stable = bytearray(content)
        self.now = bytearray(content)
        self.volatile = []              # (offset, data), in order
        self.safe = 0                   # writes that were ever made stable
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.clients, self.threads = [], []
        self.sending = threading.Lock()
        self._start(self._accept)

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def close(self):
        for sock in (self.listener, *self.clients):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self.threads:
            thread.join()
        for sock in (self.listener, *self.clients):
            sock.close()

    def outcome(self):
        """(content after a power cut, sectors that were lost)"""
        content = bytearray(self.stable)
        lost = 0
        for offset, data in self.volatile:
            keep = random.choice((0, 0.5, 1))
            for i in range(0, len(data), SECTOR):
                if random.random() < keep:
                    content[offset + i:offset + i + SECTOR] = \
                        data[i:i + SECTOR]
                else:
                    lost += 1
        return content, lost

    # --- connection ---

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            self.clients.append(client)
            self._start(self._serve, client)

    def _serve(self, client):
        try:
            with client.makefile('rb') as file:
                self._negotiate(client, file)
                while self._request(client, file):
                    pass
        except (OSError, EOFError):
            pass

    def _read(self, file, count):
        data = file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def _negotiate(self, client, file):
        client.sendall(b'NBDMAGICIHAVEOPT' + struct.pack('>H', 3))
        self._read(file, 4)
        option = None
        while option != OPT_GO:
            magic, option, count = struct.unpack('>8sII', self._read(file, 16))
            self._read(file, count)
            if option == OPT_GO:
                self._answer(client, option, REP_INFO, struct.pack(
                    '>HQH', INFO_EXPORT, len(self.now),
                    HAS_FLAGS | CAN_FLUSH | CAN_TRIM | CAN_ZERO))
                self._answer(client, option, REP_INFO, struct.pack(
                    '>HIII', INFO_BLOCK_SIZE, SECTOR, 4096, 32 << 20))
                self._answer(client, option, REP_ACK)
            else:
                self._answer(client, option, REP_UNSUPPORTED)

    def _answer(self, client, option, kind, data=b''):
        client.sendall(struct.pack('>QIII', 0x3e889045565a9, option, kind,
                                   len(data)) + data)

    # --- requests ---

    def _request(self, client, file):
        magic, _, kind, handle, offset, count = REQUEST.unpack(
            self._read(file, REQUEST.size))
        assert magic == REQUEST_MAGIC, magic
        if kind == DISCONNECT:
            return False
        data = self._read(file, count) if kind == WRITE else bytes(count)
        with self.power.lock:
            if self.power.on and kind in (WRITE, TRIM, ZERO):
                self.now[offset:offset + count] = data
                self.volatile.append((offset, data))
            if not self.power.request(self, kind):
                return True
            if kind == READ:
                data = bytes(self.now[offset:offset + count])
            elif kind == FLUSH:
                threading.Timer(random.choice(FLUSH_S), self._flushed, (
                    client, handle, self.safe + len(self.volatile))).start()
        if kind in (READ, WRITE, TRIM, ZERO):
            self._reply(client, handle, data if kind == READ else b'')
        elif kind != FLUSH:
            self._reply(client, handle, error=errno.EINVAL)
        return True

    def _flushed(self, client, handle, end):
        with self.power.lock:
            if not self.power.on:
                return
            count = max(end - self.safe, 0)
            for offset, data in self.volatile[:count]:
                self.stable[offset:offset + len(data)] = data
            del self.volatile[:count]
            self.safe += count
        self._reply(client, handle)

    def _reply(self, client, handle, data=b'', error=0):
        head = struct.pack('>IIQ', REPLY_MAGIC, error, handle)
        try:
            with self.sending:
                client.sendall(head + data)
        except OSError:
            pass
