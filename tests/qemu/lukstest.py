# SPDX-License-Identifier: GPL-2.0-or-later
"""LUKS2 images for tests: made by cryptsetup, and an AES-XTS of their own."""

import os
import subprocess

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PASSPHRASE = 'correct horse battery staple'
CHEAP = ['--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000']


def cryptsetup(*args, check=True):
    return subprocess.run(['cryptsetup', '-q', *map(str, args)], text=True,
                          check=check, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=300)


def crypt(key, data, sector_bytes, first_unit=0, decrypt=False):
    """AES-XTS as LUKS2 has it: the tweak counts 512 bytes."""
    out = bytearray()
    for at in range(0, len(data), sector_bytes):
        tweak = (first_unit + at // 512).to_bytes(16, 'little')
        cipher = Cipher(algorithms.AES(key), modes.XTS(tweak))
        worker = cipher.decryptor() if decrypt else cipher.encryptor()
        out += worker.update(data[at:at + sector_bytes])
    return bytes(out)


def vaes_bits(sector_bytes):
    """What query-weir says on this machine if nobody forbids it."""
    with open('/proc/cpuinfo') as f:
        flags = set(f.read().split())
    if not {'vaes', 'vpclmulqdq', 'avx2'} <= flags:
        return 0
    if {'avx512f', 'avx512bw', 'avx512vl'} <= flags:
        return 512
    return 256 if sector_bytes < 4096 else 0


class Image:
    """An image with its header, attached or in a file of its own."""

    def __init__(self, folder, data_bytes, *options, sector=512, key_bits=512,
                 detached=False, kdf=CHEAP, name='luks'):
        self.path = os.path.join(folder, name + '.img')
        self.header = os.path.join(folder, name + '.hdr') if detached else None
        self.key_file = os.path.join(folder, name + '.pass')
        self.sector = sector
        self.offset = 0 if detached else 16 << 20
        with open(self.key_file, 'w') as f:
            f.write(PASSPHRASE)
        with open(self.path, 'wb') as f:
            f.truncate(self.offset + data_bytes)
        cryptsetup('luksFormat', '--type', 'luks2', *kdf, '--key-file',
                   self.key_file, '--sector-size', sector, '-s', key_bits,
                   *(['--header', self.header] if detached else []),
                   *options, self.path)

    def header_path(self):
        return self.header or self.path

    def uuid(self):
        return cryptsetup('luksUUID', self.header_path()).stdout.strip()

    def volume_key(self):
        path = self.path + '.vk'
        cryptsetup('luksDump', '--dump-volume-key', '--volume-key-file', path,
                   '--key-file', self.key_file, self.header_path())
        with open(path, 'rb') as f:
            key = f.read()
        os.unlink(path)
        return key

    def raw(self, at=0, n_bytes=-1):
        """What is on the disk behind the header."""
        with open(self.path, 'rb') as f:
            f.seek(self.offset + at)
            return f.read(n_bytes)

    def plain(self, at=0, n_bytes=-1):
        return crypt(self.volume_key(), self.raw(at, n_bytes), self.sector,
                     at // 512, decrypt=True)

    def write_plain(self, data, at=0):
        with open(self.path, 'r+b') as f:
            f.seek(self.offset + at)
            f.write(crypt(self.volume_key(), data, self.sector, at // 512))

    def flip(self, *places):
        """Damage bytes of the header."""
        with open(self.header_path(), 'r+b') as f:
            for place in places:
                f.seek(place)
                byte = f.read(1)[0]
                f.seek(place)
                f.write(bytes([byte ^ 0xff]))
