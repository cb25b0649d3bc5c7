# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of a page of the documentation, and what it says they print."""
import re

# a time in what is printed stands for any time
TIME = r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ'


class Step:
    """A block of commands, and the block without a language below it."""

    def __init__(self, commands):
        self.commands = commands
        self.output = ''


def steps(path):
    """{heading: [Step, ...]} of the page, of headings that have commands."""
    found, heading, block, kind = {}, None, None, None
    with open(path, encoding='utf-8') as file:
        for line in file:
            if block is not None and not line.startswith('```'):
                block += line
            elif block is not None:
                if kind == 'sh':
                    found[heading].append(Step(block))
                elif kind == '' and found[heading]:
                    found[heading][-1].output += block
                block = None
            elif line.startswith('## '):
                heading = line[3:].strip()
                found[heading] = []
            elif line.startswith('```') and heading:
                block, kind = '', line[3:].strip()
    return {heading: some for heading, some in found.items() if some}


def line_missing(step, printed):
    """The first line of the page that was not printed in its order, or
    None."""
    printed = [line.rstrip() for line in printed.splitlines()]
    for line in step.output.splitlines():
        pattern = '(' + TIME + ')'
        wanted = ''.join(TIME if i % 2 else re.escape(part) for i, part in
                         enumerate(re.split(pattern, line.rstrip())))
        for i, one in enumerate(printed):
            if re.fullmatch(wanted, one):
                del printed[:i + 1]
                break
        else:
            return line
    return None
