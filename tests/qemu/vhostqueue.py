# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of a vhost-user-blk export that has many requests under way, and
comes back with them when the server has died, as a QEMU does.
"""

import mmap
import os
import select
import socket
import struct

from vhostuser import (AVAILABLE, DESCRIPTORS, DEVICE_WRITES, FLUSH,
                       GUEST, HAS_PROTOCOL_FEATURES, IN, NEXT, OUT, SECTOR,
                       USED, VERSION_1, GET_FEATURES, GET_PROTOCOL_FEATURES,
                       PROTOCOL_BACKEND_REQ, SET_FEATURES, SET_MEM_TABLE,
                       SET_OWNER,
                       SET_PROTOCOL_FEATURES, VhostUserBlk, receive_message)

GET_VRING_BASE, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 11, 31, 32
CONFIG_WCE = 1 << 11
PROTOCOL_INFLIGHT = 1 << 12
QUEUE_SIZE = 128
DEPTH = 32                              # three descriptors each
SLOT = 1 << 18                          # header, status, data
HEADER, STATUS, DATA = 0, 32, 4096
SLOTS = 16384                           # where they begin
DATA_BYTES = SLOT - DATA


class Disconnected(Exception):
    """The server is gone."""


class Request:
    def __init__(self, kind, offset, data, read, tag):
        self.kind, self.offset, self.data = kind, offset, data
        self.read, self.tag = read, tag
        self.number = None              # in the order of submission


class Queue(VhostUserBlk):
    """A virtqueue.  The memory, the queue and what is in flight in it stay
    when the connection is lost; connect() goes on with them."""

    def __init__(self, path, keep_inflight=True):
        self.path = path
        self.keep_inflight = keep_inflight
        self.memory_fd = os.memfd_create('vhost-queue')
        os.ftruncate(self.memory_fd, SLOTS + DEPTH * SLOT)
        self.memory = mmap.mmap(self.memory_fd, SLOTS + DEPTH * SLOT)
        self.halves = memoryview(self.memory).cast('H')
        self.kick = os.eventfd(0)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.sock = self.backend = None
        self.inflight = None            # fd and description of the memory
        self.available = 0              # requests put into the queue
        self.seen = 0                   # taken out of it
        self.free = list(range(DEPTH))
        self.pending = {}               # slot -> Request
        self.overtaken = 0              # by a later one
        self.connect()

    # --- connection ---

    def connect(self):
        self.disconnect()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)
        self.negotiate()
        if self.keep_inflight:
            self.set_up_inflight()
        self.set_up_memory()
        self.set_up_queue()
        # as QEMU's host notifiers, which begin active
        os.eventfd_write(self.kick, 1)

    def disconnect(self):
        for sock in (self.sock, self.backend):
            if sock:
                sock.close()
        self.sock = self.backend = None

    def shutdown(self):
        self.disconnect()
        self.halves.release()
        self.memory.close()
        if self.inflight:
            os.close(self.inflight[0])
        for fd in (self.memory_fd, self.kick, self.call):
            os.close(fd)

    def negotiate(self):
        self.send(SET_OWNER)
        wanted = FLUSH | VERSION_1
        self.features = self.ask(GET_FEATURES)
        assert self.features & wanted == wanted, hex(self.features)
        offered = self.ask(GET_PROTOCOL_FEATURES)
        protocol = PROTOCOL_BACKEND_REQ
        if self.keep_inflight:
            protocol |= PROTOCOL_INFLIGHT
        assert offered & protocol == protocol, hex(offered)
        self.send(SET_PROTOCOL_FEATURES, struct.pack('<Q', protocol))
        self.send(SET_FEATURES,
                  struct.pack('<Q', wanted | HAS_PROTOCOL_FEATURES))
        self.set_up_backend()

    def set_up_inflight(self):
        if not self.inflight:
            self.send(GET_INFLIGHT_FD,
                      struct.pack('<QQHH4x', 0, 0, 1, QUEUE_SIZE))
            payload, fds = receive_message(self.sock, GET_INFLIGHT_FD)
            self.inflight = fds[0], payload
        fd, payload = self.inflight
        size, offset = struct.unpack_from('<QQ', payload)
        self.send(SET_INFLIGHT_FD,
                  struct.pack('<QQHH4x', size, offset, 1, QUEUE_SIZE), [fd])

    def set_up_memory(self, parts=1):
        """In so many regions: the other side maps each by itself."""
        size = len(self.memory) // parts // mmap.PAGESIZE * mmap.PAGESIZE
        table = struct.pack('<II', parts, 0)
        for i in range(parts):
            begin = i * size
            length = size if i + 1 < parts else len(self.memory) - begin
            table += struct.pack('<QQQQ', GUEST + begin, length,
                                 GUEST + begin, begin)
        self.send(SET_MEM_TABLE, table, [self.memory_fd] * parts)

    def set_up_queue(self):
        # one that was not stopped goes on behind what is known to be used
        self.start_queue(QUEUE_SIZE, self.used_index())

    def stop(self):
        """As QEMU does when the guest is stopped."""
        self.send(GET_VRING_BASE, struct.pack('<II', 0, 0))
        payload, _ = receive_message(self.sock, GET_VRING_BASE)
        return struct.unpack('<II', payload)[1]

    # --- requests ---

    def used_index(self):
        return self.halves[USED // 2 + 1]

    def submit(self, kind, offset=0, data=b'', read=0, tag=None):
        request = Request(kind, offset, data, read, tag)
        slot = self.free.pop(0)
        place = SLOTS + slot * SLOT
        struct.pack_into('<IIQ', self.memory, place + HEADER, kind, 0,
                         offset // SECTOR)
        self.memory[place + STATUS] = 255
        self.memory[place + DATA:place + DATA + len(data)] = data
        pieces = [(place + HEADER, 16, False)]
        if data or read:
            pieces.append((place + DATA, len(data) or read, bool(read)))
        self.describe_at(slot * 3, *pieces, (place + STATUS, 1, True))
        struct.pack_into('<H', self.memory, AVAILABLE + 4 +
                         2 * (self.available % QUEUE_SIZE), slot * 3)
        request.number = self.available
        self.available += 1
        self.pending[slot] = request
        # in one piece: struct.pack_into() writes zeroes first
        self.halves[AVAILABLE // 2 + 1] = self.available & 0xffff
        os.eventfd_write(self.kick, 1)

    def describe_at(self, first, *pieces):
        for i, (place, size, device_writes) in enumerate(pieces):
            flags = DEVICE_WRITES if device_writes else 0
            if i + 1 < len(pieces):
                flags |= NEXT
            struct.pack_into('<QIHH', self.memory,
                             DESCRIPTORS + (first + i) * 16, GUEST + place,
                             size, flags, first + i + 1)

    def write(self, offset, data, tag=None):
        self.submit(OUT, offset, data, tag=tag)

    def read(self, offset, length, tag=None):
        self.submit(IN, offset, read=length, tag=tag)

    def take(self):
        """The requests that have ended since: (request, status, data)."""
        ended = []
        while self.seen & 0xffff != self.used_index():
            index, _ = struct.unpack_from(
                '<II', self.memory, USED + 4 + 8 * (self.seen % QUEUE_SIZE))
            self.seen += 1
            slot = index // 3
            # one that ends twice is not among them any more
            request = self.pending.pop(slot)
            self.free.append(slot)
            self.overtaken += any(other.number < request.number
                                  for other in self.pending.values())
            place = SLOTS + slot * SLOT
            ended.append((request, self.memory[place + STATUS],
                          self.memory[place + DATA:
                                      place + DATA + request.read]))
        return ended

    def wait(self, timeout_s):
        """Until something has ended, or raise Disconnected."""
        ready = select.select([self.call, self.sock], [], [], timeout_s)[0]
        if self.call in ready:
            os.eventfd_read(self.call)
        if self.sock in ready and not self.sock.recv(1, socket.MSG_PEEK):
            raise Disconnected
        return bool(ready)
