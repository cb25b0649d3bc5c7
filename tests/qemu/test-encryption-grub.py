#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""GRUB, which has a LUKS2 and an AES of its own, reads a file system that was
written through weir-encryption."""

import os
import random
import shutil
import subprocess
import unittest

from lukstest import PASSPHRASE, Image
from weirtest import TestCase, main, run

SIZE = 8 << 20


@unittest.skipUnless(shutil.which('grub-fstest'), 'there is no grub-fstest')
class Grub(TestCase):
    def file_system(self, content):
        """An image of ext2 with a file."""
        os.mkdir(self.path('tree'))
        with open(self.path('tree/file'), 'wb') as f:
            f.write(content)
        subprocess.run(['mke2fs', '-q', '-t', 'ext2', '-d', self.path('tree'),
                        self.path('plain'), f'{SIZE >> 20}M'], check=True,
                       stdout=subprocess.DEVNULL,
                       env={**os.environ,
                            'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin'})

    def read(self, image, passphrase=PASSPHRASE):
        return subprocess.run(
            ['grub-fstest', '-C', image.path, 'cat', '(crypto0)/file'],
            input=passphrase.encode() + b'\n', stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120)

    def test_file(self):
        content = random.Random(1).randbytes(3 << 20)
        self.file_system(content)
        for sector, bits in (512, 512), (512, 256), (4096, 512):
            image = Image(self.dir, SIZE, sector=sector, key_bits=bits)
            run('qemu-img', 'convert', '-n', '-f', 'raw', '--object',
                f'secret,id=key,file={image.key_file}', '--target-image-opts',
                self.path('plain'), 'driver=weir-encryption,key-secret=key,'
                f'workers=2,file.driver=file,file.filename={image.path}')
            # its prompt comes first
            self.assertTrue(self.read(image).stdout.endswith(content),
                            (sector, bits))
            self.assertNotEqual(self.read(image, 'wrong').returncode, 0)


if __name__ == '__main__':
    main()
