# SPDX-License-Identifier: GPL-2.0-or-later
"""Look at an image with ext4 and the folders of weir-commit from outside, as a
guest that boots from it would."""

import os
import shutil
import subprocess

from guest import WAIT_S
from weirtest import BUILD

COMMIT = os.path.join(BUILD, 'weir', 'tests', 'tools', 'weir-commit')


def _run(*command, good=(0,)):
    result = subprocess.run(
        command, text=True, timeout=WAIT_S, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'PATH': os.environ['PATH'] + ':/usr/sbin'})
    if result.returncode not in good:
        raise AssertionError(f'{command}: {result.stdout}')


def check(image, folder, told, look=lambda folder: None):
    """Replay the journal of the file system, check it, and check the
    transactions.

    folder: does not exist, and does not afterwards
    told: number of each worker that has to be there; its name is that of its
          folder in the root
    look: called with the folder that has all that the root of the image has
    """
    _run('e2fsck', '-fp', image, good=(0, 1))
    _run('e2fsck', '-fn', image)
    os.mkdir(folder)
    try:
        _run('debugfs', '-R', f'rdump / {folder}', image)
        for worker, number in told.items():
            _run(COMMIT, 'check', os.path.join(folder, worker), str(number))
        look(folder)
    finally:
        shutil.rmtree(folder)
