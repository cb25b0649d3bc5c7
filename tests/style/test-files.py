#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Form of the files: licence, lines, links in the documentation."""

import os
import re
import subprocess
import unittest

SOURCE = os.environ['WEIR_SOURCE']
CODE = re.compile(r'\.(c|h|py|sh|json)$|/meson\.(build|options)$')
COLUMNS = 80


def tracked():
    """Files of the repository, or of the folder where there is none."""
    result = subprocess.run(
        ['git', '-C', SOURCE, 'ls-files', '--cached', '--others',
         '--exclude-standard'], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL)
    if result.returncode == 0:
        names = result.stdout.splitlines()
    else:
        names = [os.path.relpath(os.path.join(folder, name), SOURCE)
                 for folder, folders, files in os.walk(SOURCE)
                 if not os.path.relpath(folder, SOURCE).startswith('build')
                 for name in files]
    return [n for n in names if os.path.isfile(os.path.join(SOURCE, n))]


def text_of(name):
    with open(os.path.join(SOURCE, name), errors='replace') as f:
        return f.read()


class Files(unittest.TestCase):
    def code(self):
        names = [n for n in tracked() if CODE.search('/' + n)]
        self.assertGreater(len(names), 20)
        return names

    def test_licence(self):
        for name in self.code():
            if name.endswith('.json') and not name.startswith('block/'):
                continue                        # data
            self.assertIn('SPDX-License-Identifier: GPL-2.0-or-later',
                          '\n'.join(text_of(name).splitlines()[:4]), name)

    def lines(self):
        """(place, line, limit) of all code that has a limit."""
        for name in self.code():
            in_qapi = name.startswith('block/qapi/')
            if name.endswith('.json') and not in_qapi:
                continue                        # data
            for i, line in enumerate(text_of(name).splitlines(), 1):
                if line.startswith('#') or not in_qapi:
                    yield f'{name}:{i}', line, 70 if in_qapi else COLUMNS

    def test_lines(self):
        bad = [place for place, line, limit in self.lines()
               if len(line) > limit or line != line.rstrip() or
               '\t' in line and re.search(r'\.(c|h|py):', place)]
        self.assertEqual(bad, [])

    def test_scripts_are_sound(self):
        for name in tracked():
            text = text_of(name)
            if re.match(r'#!.*\b(sh|bash)\b', text):
                shell = 'bash' if 'bash' in text.splitlines()[0] else 'sh'
                subprocess.run([shell, '-n', os.path.join(SOURCE, name)],
                               check=True)
                self.assertIn('SPDX-License-Identifier', text, name)

    def test_links_in_the_documentation(self):
        pages = [n for n in tracked() if n.endswith('.md')]
        self.assertGreater(len(pages), 3)
        for page in pages:
            for target in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)',
                                     text_of(page)):
                if '://' in target:
                    continue
                path = os.path.join(SOURCE, os.path.dirname(page), target)
                self.assertTrue(os.path.exists(path), f'{page}: {target}')


if __name__ == '__main__':
    unittest.main(argv=['test-files', '-v'])
