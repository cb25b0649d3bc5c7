# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of a vhost-user-blk export: one virtqueue in shared memory, one
request at a time, with the methods of an NBD client.

The messages are those of QEMU's docs/interop/vhost-user.rst, the queue is a
split virtqueue of the virtio specification.
"""

import array
import mmap
import os
import select
import socket
import struct

PATIENCE_S = 120

# requests of vhost-user
GET_FEATURES, SET_FEATURES, SET_OWNER = 1, 2, 3
SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR = 5, 8, 9
SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 10, 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES = 15, 16
SET_VRING_ENABLE, SET_BACKEND_REQ_FD = 18, 21
VERSION = 1
HAS_PROTOCOL_FEATURES = 1 << 30
# the export sends messages as well: that the disk has another length
PROTOCOL_BACKEND_REQ = 1 << 5

# features and requests of virtio-blk
FLUSH, DISCARD, WRITE_ZEROES, VERSION_1 = 1 << 9, 1 << 13, 1 << 14, 1 << 32
IN, OUT, FLUSH_REQUEST, DISCARD_REQUEST, ZERO_REQUEST = 0, 1, 4, 11, 13

# the shared memory, and where it is for the other side
GUEST = 1 << 24
DESCRIPTORS, AVAILABLE, USED, HEADER, STATUS, DATA = (
    0, 4096, 8192, 12288, 12320, 16384)
DATA_BYTES = 1 << 20
QUEUE_SIZE = 16
NEXT, DEVICE_WRITES = 1, 2
SECTOR = 512


def receive_message(sock, request):
    """The reply to @request: its payload, and file descriptors with it."""
    header, fds, _, _ = socket.recv_fds(sock, 12, 8)
    assert len(header) == 12, 'connection closed'
    number, _, size = struct.unpack('<III', header)
    assert number == request, number
    payload = b''
    while len(payload) < size:
        piece = sock.recv(size - len(payload))
        assert piece, 'connection closed'
        payload += piece
    return payload, fds


class VhostUserBlk:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(path)
        self.memory_fd = os.memfd_create('vhost-user')
        os.ftruncate(self.memory_fd, DATA + DATA_BYTES)
        self.memory = mmap.mmap(self.memory_fd, DATA + DATA_BYTES)
        self.kick = os.eventfd(0)
        self.call = os.eventfd(0)
        self.done = 0                   # requests
        self.negotiate()
        self.set_up_memory()
        self.set_up_queue()

    def shutdown(self):
        self.sock.close()
        self.backend.close()
        self.memory.close()
        for fd in (self.memory_fd, self.kick, self.call):
            os.close(fd)

    # --- messages ---

    def send(self, request, payload=b'', fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                      array.array('i', fds))] if fds else []
        self.sock.sendmsg([struct.pack('<III', request, VERSION, len(payload))
                           + payload], ancillary)

    def ask(self, request):
        self.send(request)
        return struct.unpack('<Q', receive_message(self.sock, request)[0])[0]

    def negotiate(self):
        self.send(SET_OWNER)
        wanted = FLUSH | DISCARD | WRITE_ZEROES | VERSION_1
        features = self.ask(GET_FEATURES)
        assert features & wanted == wanted, hex(features)
        features = self.ask(GET_PROTOCOL_FEATURES)
        assert features & PROTOCOL_BACKEND_REQ, hex(features)
        self.send(SET_PROTOCOL_FEATURES,
                  struct.pack('<Q', PROTOCOL_BACKEND_REQ))
        self.send(SET_FEATURES,
                  struct.pack('<Q', wanted | HAS_PROTOCOL_FEATURES))
        self.set_up_backend()

    def set_up_backend(self):
        self.backend, theirs = socket.socketpair()
        self.send(SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
        theirs.close()

    def set_up_memory(self):
        self.send(SET_MEM_TABLE, struct.pack(
            '<IIQQQQ', 1, 0, GUEST, len(self.memory), GUEST, 0),
            [self.memory_fd])

    def set_up_queue(self):
        self.start_queue(QUEUE_SIZE, 0)

    def start_queue(self, size, base):
        """@base: number of the first request that has not been taken."""
        self.send(SET_VRING_NUM, struct.pack('<II', 0, size))
        self.send(SET_VRING_BASE, struct.pack('<II', 0, base))
        self.send(SET_VRING_ADDR, struct.pack(
            '<IIQQQQ', 0, 0, GUEST + DESCRIPTORS, GUEST + USED,
            GUEST + AVAILABLE, 0))
        self.send(SET_VRING_CALL, struct.pack('<Q', 0), [self.call])
        self.send(SET_VRING_KICK, struct.pack('<Q', 0), [self.kick])
        self.send(SET_VRING_ENABLE, struct.pack('<II', 0, 1))

    # --- requests ---

    def describe(self, *pieces):
        """Each piece: place, bytes, and whether the device writes it."""
        for i, (place, size, device_writes) in enumerate(pieces):
            flags = DEVICE_WRITES if device_writes else 0
            if i + 1 < len(pieces):
                flags |= NEXT
            struct.pack_into('<QIHH', self.memory, DESCRIPTORS + i * 16,
                             GUEST + place, size, flags, i + 1)

    def request(self, kind, sector=0, data=b'', read=0):
        """Send it, and wait; returns what was read."""
        struct.pack_into('<IIQ', self.memory, HEADER, kind, 0, sector)
        self.memory[STATUS] = 255
        self.memory[DATA:DATA + len(data)] = data
        pieces = [(HEADER, 16, False)]
        if data or read:
            pieces.append((DATA, len(data) or read, bool(read)))
        self.describe(*pieces, (STATUS, 1, True))
        struct.pack_into('<H', self.memory,
                         AVAILABLE + 4 + 2 * (self.done % QUEUE_SIZE), 0)
        self.done += 1
        struct.pack_into('<H', self.memory, AVAILABLE + 2, self.done & 0xffff)
        os.eventfd_write(self.kick, 1)
        self.wait()
        if self.memory[STATUS]:
            raise OSError(f'request {kind}: status {self.memory[STATUS]}')
        return self.memory[DATA:DATA + read]

    def wait(self):
        while struct.unpack_from('<H', self.memory, USED + 2)[0] != \
                self.done & 0xffff:
            if not select.select([self.call], [], [], PATIENCE_S)[0]:
                raise TimeoutError('no answer')
            os.eventfd_read(self.call)

    def pread(self, count, offset):
        return b''.join(
            self.request(IN, (offset + at) // SECTOR,
                         read=min(DATA_BYTES, count - at))
            for at in range(0, count, DATA_BYTES))

    def pwrite(self, data, offset):
        for at in range(0, len(data), DATA_BYTES):
            self.request(OUT, (offset + at) // SECTOR,
                         data[at:at + DATA_BYTES])

    def range_request(self, kind, count, offset):
        self.request(kind, data=struct.pack('<QII', offset // SECTOR,
                                            count // SECTOR, 0))

    def zero(self, count, offset):
        self.range_request(ZERO_REQUEST, count, offset)

    def trim(self, count, offset):
        self.range_request(DISCARD_REQUEST, count, offset)

    def flush(self):
        self.request(FLUSH_REQUEST)
