#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""query-weir-filters and weir-check-options: what policies ask for."""

from weirtest import TestCase, main

GOOD = [
    {'driver': 'weir-inspect', 'file': 'none', 'entropy': True},
    {'driver': 'weir-cache', 'file': 'none', 'cache-file': 'none',
     'mode': 'write-through'},
    {'driver': 'weir-cache', 'file': 'none',
     'cache-file': {'driver': 'file', 'filename': '/nonexistent'}},
    {'driver': 'weir-encryption', 'file': 'none', 'key-secret': 'none'},
    {'driver': 'weir-replication', 'file': 'none', 'log': 'none',
     'disk-id': 'disk0', 'epoch-interval': 1},
    {'driver': 'weir-example', 'file': 'none', 'offset': 0, 'size': 512},
    {'driver': 'weir-fault', 'file': 'none', 'fail': 'none'},
]

BAD = [
    ('entropy-high is 9', {'driver': 'weir-inspect', 'file': 'none',
                           'entropy-high': 9}),
    ('dirty-low', {'driver': 'weir-cache', 'file': 'none',
                   'cache-file': 'none', 'dirty-low': 90, 'dirty-high': 10}),
    ('workers', {'driver': 'weir-encryption', 'file': 'none',
                 'workers': 10 ** 6}),
    ('epoch-interval', {'driver': 'weir-replication', 'file': 'none',
                        'log': 'none', 'disk-id': 'disk0',
                        'epoch-interval': 0}),
    ('disk-id', {'driver': 'weir-replication', 'file': 'none', 'log': 'none',
                 'disk-id': ''}),
    ('2^64', {'driver': 'weir-example', 'file': 'none', 'offset': 2 ** 64 - 1,
              'size': 512}),
    ("'weir-journal' is not a filter", {'driver': 'weir-journal',
                                        'file': 'none'}),
    ("'raw' is not a filter", {'driver': 'raw', 'file': 'none'}),
    ("cache-file' is missing", {'driver': 'weir-cache', 'file': 'none'}),
]


class Capabilities(TestCase):
    def test_filters(self):
        d = self.daemon()
        filters = {f['driver']: f for f in d.cmd('query-weir-filters')}
        self.assertEqual(
            {name: f['class'] for name, f in filters.items()},
            {'weir-inspect': 'inspection', 'weir-cache': 'cache',
             'weir-encryption': 'encryption',
             'weir-replication': 'replication', 'weir-plugin': 'other',
             'weir-example': 'other', 'weir-fault': 'other'})
        self.assertEqual([name for name, f in filters.items()
                          if f['changes-data']],
                         ['weir-encryption', 'weir-plugin'])
        self.assertEqual([name for name, f in filters.items()
                          if f['holds-data']], ['weir-cache', 'weir-plugin'])
        d.quit()

    def test_options(self):
        d = self.daemon()
        for options in GOOD:
            d.cmd('weir-check-options', {'filter': options})
        for message, options in BAD:
            self.assertFails(message, d.cmd, 'weir-check-options',
                             {'filter': options})
        self.assertEqual(d.cmd('query-named-block-nodes'), [])
        d.quit()


if __name__ == '__main__':
    main()
