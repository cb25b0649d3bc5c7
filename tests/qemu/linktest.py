# SPDX-License-Identifier: GPL-2.0-or-later
"""A link between two programs that can be slow, far, cut, and wrong: a proxy
on unix sockets.

What a server replies is known message by message (NBD's protocol.md), so that
a test can change, drop or repeat one.
"""

import collections
import contextlib
import os
import select
import socket
import struct
import threading
import time

OPTION_REPLY_MAGIC = 0x3e889045565a9
OPT_GO, REP_ACK = 7, 1
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668e33ef, 0x6e8a278c
REQUEST, EXTENDED_REQUEST = 0x25609513, 0x21e41c71
CMD_WRITE, CMD_FLUSH = 1, 3
WINDOW_BYTES = 1 << 20          # on its way in one direction


class Parser:
    """Cuts a stream into pieces; a subclass knows how long the next one is."""

    def __init__(self):
        self.buffer = b''

    def feed(self, data):
        self.buffer += data
        while True:
            bytes_next = self.next_bytes()
            if not bytes_next or bytes_next > len(self.buffer):
                return
            piece = self.buffer[:bytes_next]
            self.buffer = self.buffer[bytes_next:]
            yield piece

    def has(self, count):
        return len(self.buffer) >= count


class Replies(Parser):
    """What a server sends. After the handshake a piece is one reply."""

    def __init__(self):
        super().__init__()
        self.greeted = False
        self.transmits = False

    def next_bytes(self):
        if not self.greeted:
            self.greeted = self.has(18)
            return 18
        if not self.transmits:
            return self.option_bytes()
        magic, = struct.unpack_from('>I', self.buffer) if self.has(4) else (0,)
        if magic == EXTENDED and self.has(32):
            return 32 + struct.unpack_from('>Q', self.buffer, 24)[0]
        if magic == STRUCTURED and self.has(20):
            return 20 + struct.unpack_from('>I', self.buffer, 16)[0]
        return 0

    def option_bytes(self):
        if not self.has(20):
            return 0
        magic, option, kind, length = struct.unpack_from('>QIII', self.buffer)
        assert magic == OPTION_REPLY_MAGIC, hex(magic)
        if self.has(20 + length):
            self.transmits = option == OPT_GO and kind == REP_ACK
        return 20 + length


class Requests(Parser):
    """What a client sends: after the handshake a piece is one request, with
    its data."""

    transmits = False

    def next_bytes(self):
        if not self.transmits:
            return self.handshake_bytes()
        magic, = struct.unpack_from('>I', self.buffer) if self.has(4) else (0,)
        if magic == EXTENDED_REQUEST and self.has(32):
            kind, = struct.unpack_from('>H', self.buffer, 6)
            length, = struct.unpack_from('>Q', self.buffer, 24)
            return 32 + (length if kind == CMD_WRITE else 0)
        if magic == REQUEST and self.has(28):
            kind, = struct.unpack_from('>H', self.buffer, 6)
            length, = struct.unpack_from('>I', self.buffer, 24)
            return 28 + (length if kind == CMD_WRITE else 0)
        return 0

    def handshake_bytes(self):
        """Up to the first request, which is what follows on OPT_GO."""
        at = 0
        if self.buffer[:4] == bytes(3) + b'\3':
            at = 4                      # flags
        while len(self.buffer) >= at + 16:
            magic, option, length = struct.unpack_from('>QII', self.buffer,
                                                       at)
            assert magic == 0x49484156454f5054, hex(magic)
            if len(self.buffer) < at + 16 + length:
                break
            at += 16 + length
            if option == OPT_GO:
                self.transmits = True
                return at
        return at


def command_of(request):
    """The command of a piece of Requests; None: it is of the handshake."""
    magic, _, kind = struct.unpack_from('>IHH', request)
    return kind if magic in (REQUEST, EXTENDED_REQUEST) else None


def cookie_of(message):
    return message[8:16]


class Pipe:
    """One direction of a connection: what is sent arrives later, at a rate."""

    def __init__(self, link, conn, source, target, parser, change):
        self.link, self.conn = link, conn
        self.source, self.target = source, target
        self.parser, self.change = parser, change
        self.way = collections.deque()  # (when it arrives, data)
        self.way_bytes = 0
        self.free_at = 0                # when the link can take more
        self.moved = threading.Condition()
        self.threads = [threading.Thread(target=self.guard, args=[f],
                                         daemon=True)
                        for f in (self.receive, self.send)]
        for thread in self.threads:
            thread.start()

    def guard(self, function):
        try:
            function()
        except OSError:
            pass
        finally:
            self.conn.close()

    def pieces(self, data):
        """What becomes of it on the way."""
        if not self.parser:
            yield data
            return
        for piece in self.parser.feed(data):
            if self.parser.transmits:
                yield from self.change(self.conn, piece)
            else:
                yield piece

    def receive(self):
        while True:
            data = self.source.recv(1 << 16)
            if not data:
                return
            self.link.note(self, data)
            for piece in self.pieces(data):
                with self.moved:
                    while self.way_bytes > WINDOW_BYTES:
                        self.moved.wait(1)
                        if self.conn.closed:
                            return
                    self.way.append((time.monotonic() + self.link.latency_s,
                                     piece))
                    self.way_bytes += len(piece)
                    self.moved.notify_all()

    def send(self):
        while not self.conn.closed:
            with self.moved:
                if not self.way:
                    self.moved.wait(0.1)
                    continue
                when, piece = self.way.popleft()
            self.sleep_until(when)
            self.send_piece(piece)
            with self.moved:
                self.way_bytes -= len(piece)
                self.moved.notify_all()

    def send_piece(self, piece):
        for at in range(0, len(piece), 1 << 14):
            part = piece[at:at + (1 << 14)]
            while self.link.frozen and not self.conn.closed:
                time.sleep(0.01)
            if self.link.rate:
                now = time.monotonic()
                self.free_at = max(self.free_at, now) + \
                    len(part) / self.link.rate
                self.sleep_until(self.free_at)
            self.target.sendall(part)
            self.link.passed_bytes += len(part)

    def sleep_until(self, when):
        while not self.conn.closed:
            left_s = when - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, 0.1))


class Connection:
    def __init__(self, link, client):
        self.closed = False
        self.client = client
        self.server = socket.socket(socket.AF_UNIX)
        self.pipes = []
        try:
            self.server.connect(link.target)
        except OSError:
            self.close()
            return
        parsers = (Requests(), Replies()) if link.knows_nbd else (None, None)
        self.pipes = [
            Pipe(link, self, client, self.server, parsers[0],
                 lambda conn, piece: link.change_request(conn, piece)),
            Pipe(link, self, self.server, client, parsers[1],
                 lambda conn, piece: link.change_reply(conn, piece))]

    def close(self):
        self.closed = True
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def forgotten(self):
        """It has ended, with its threads."""
        if not self.closed or any(thread.is_alive() for pipe in self.pipes
                                  for thread in pipe.threads):
            return False
        self.client.close()
        self.server.close()
        return True


def unchanged(_conn, piece):
    yield piece


class Link:
    """Listens on a path, and connects what comes there to another one."""

    def __init__(self, path, target, knows_nbd=False):
        self.path, self.target = path, target
        self.knows_nbd = knows_nbd
        self.latency_s = 0              # in each direction
        self.rate = 0                   # bytes/s of each direction; 0: any
        self.frozen = False             # nothing passes, nobody is told
        self.cut = False                # nobody can connect
        self.change_request = self.change_reply = unchanged
        self.captured = None            # a bytearray: all that passes
        self.passed_bytes = 0
        self.connections = []
        self.count = 0                  # of connections, all in all
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        self.ends = False
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def note(self, _pipe, data):
        if self.captured is not None:
            self.captured += data

    def accept(self):
        while not self.ends:
            if not select.select([self.listener], [], [], 0.1)[0]:
                continue
            client, _ = self.listener.accept()
            if self.cut:
                client.close()
                continue
            self.count += 1
            self.connections.append(Connection(self, client))
            self.connections = [c for c in self.connections
                                if not c.forgotten()]

    def drop(self):
        """All connections end; there may be new ones."""
        for connection in self.connections:
            connection.close()

    def close(self):
        self.ends = True
        self.thread.join()
        self.listener.close()
        self.drop()
        while not all([c.forgotten() for c in self.connections]):
            time.sleep(0.01)
