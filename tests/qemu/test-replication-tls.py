#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Replication over TLS: with certificates and with a key that both sides have;
whoever is not what he should be is refused, both sides say so, and nothing
goes over the link in the clear."""

import datetime
import os
import shutil
import struct

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cachetest import MIB
from linktest import Link
from replicationtest import WriterTest, only_long
from weirtest import blockdev, main, wait_for

DISK = 4 * MIB
HOST = 'keeper.example'
# what docs/weir-replication.md advises
PRIORITY = 'NORMAL:-CHACHA20-POLY1305'
CIPHERS = {0x1301: 'AES-128-GCM', 0x1302: 'AES-256-GCM',
           0x1303: 'CHACHA20-POLY1305', 0x1304: 'AES-128-CCM'}
NOW = datetime.datetime.utcnow()
DAY = datetime.timedelta(days=1)


class Authority:
    """Makes certificates, as files in folders of QEMU's credentials."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = self.named('authority')
        self.certificate = self.sign(
            self.name, self.key,
            x509.BasicConstraints(ca=True, path_length=None), self.usage(True))

    @staticmethod
    def named(name):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    @staticmethod
    def usage(is_ca):
        return x509.KeyUsage(
            digital_signature=not is_ca, key_encipherment=not is_ca,
            key_cert_sign=is_ca, crl_sign=False, content_commitment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False)

    def sign(self, name, key, *extensions, expired=False):
        begin = NOW - 30 * DAY
        builder = x509.CertificateBuilder(
            self.name, name, key.public_key(), x509.random_serial_number(),
            begin, NOW - DAY if expired else NOW + DAY)
        for extension in extensions:
            builder = builder.add_extension(
                extension, not isinstance(extension,
                                          x509.SubjectAlternativeName))
        return builder.sign(self.key, hashes.SHA256())

    def write(self, folder, endpoint, name, expired=False):
        """A certificate for a server or a client, and that of the
        authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if endpoint == 'server' \
            else ExtendedKeyUsageOID.CLIENT_AUTH
        certificate = self.sign(
            self.named(name), key,
            x509.BasicConstraints(ca=False, path_length=None),
            self.usage(False), x509.ExtendedKeyUsage([usage]),
            x509.SubjectAlternativeName([x509.DNSName(name)]),
            expired=expired)
        os.makedirs(folder, exist_ok=True)
        pem = serialization.Encoding.PEM
        for filename, data in [
                ('ca-cert.pem', self.certificate.public_bytes(pem)),
                (f'{endpoint}-cert.pem', certificate.public_bytes(pem)),
                (f'{endpoint}-key.pem', key.private_bytes(
                    pem, serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption()))]:
            with open(os.path.join(folder, filename), 'wb') as f:
                f.write(data)


def cipher_of(captured):
    """The cipher suite of a TLS 1.3 ServerHello, which is not encrypted."""
    at = -1
    while True:
        at = captured.index(b'\x16\x03\x03', at + 1)
        hello = captured[at + 5:at + 5 + 128]
        if hello[0] == 2 and hello[4:6] == b'\x03\x03':
            session = 4 + 2 + 32
            suite = session + 1 + hello[session]
            return CIPHERS[struct.unpack_from('>H', hello, suite)[0]]


class TLSTest(WriterTest):
    """A source and a keeper whose credentials a test chooses."""

    disk_size = DISK

    def setUp(self):
        super().setUp()
        self.authority = Authority()
        self.authority.write(self.path('keeper'), 'server', HOST)
        self.authority.write(self.path('source'), 'client', 'source.example')
        self.link = Link(self.path('link.sock'), self.keeper_sock)
        self.link.captured = bytearray()
        self.addCleanup(self.link.close)

    def creds(self, endpoint, folder, **options):
        options = {'verify_peer': 'on', 'priority': PRIORITY,
                   'dir': self.path(folder), **options}
        return ['--object', f'tls-creds-x509,id=tls,endpoint={endpoint},' +
                ','.join(f'{k.replace("_", "-")}={v}'
                         for k, v in options.items())]

    def psk(self, endpoint, key):
        folder = self.path(f'{endpoint}-{key}')
        os.makedirs(folder)
        with open(os.path.join(folder, 'keys.psk'), 'w') as f:
            f.write(f'weir:{key * 64}\n')
        name = ',username=weir' if endpoint == 'client' else ''
        return ['--object', f'tls-creds-psk,id=tls,endpoint={endpoint},'
                f'dir={folder},priority={PRIORITY}{name}']

    def keeper(self, creds=None):
        nbd_server = f'addr.type=unix,addr.path={self.keeper_sock},' \
            'max-connections=64'
        if creds is None:
            creds = self.creds('server', 'keeper')
        if creds:
            nbd_server += ',tls-creds=tls'
        return self.daemon(
            *creds, '--nbd-server', nbd_server, *self.keeper_nodes(),
            '--blockdev', blockdev(**self.journal()), '--export',
            'nbd,id=log,node-name=journal,name=log,writable=on')

    def source(self, creds=None, hostname=HOST, **options):
        if creds is None:
            creds = self.creds('client', 'source')
        log = self.remote_log(server={'type': 'unix', 'path': self.link.path})
        if creds:
            log['tls-creds'] = 'tls'
        if creds and hostname:
            log['tls-hostname'] = hostname
        return self.server(self.source_sock, *creds,
                           *self.source_args(log=log, **options))

    def begin(self, **credentials):
        self.the_keeper = self.keeper(credentials.pop('keeper', None))
        self.the_source = self.source(credentials.pop('source', None),
                                      **credentials)
        self.wait_for_status(self.the_source, 'streaming')
        self.begin_to_write()

    def check_end(self):
        """All gets there, and none of it in the clear."""
        self.end_writer()
        self.mark(self.the_source, 'end')
        self.the_source.quit()
        self.the_keeper.quit()
        self.the_keeper = super().keeper()
        image = self.read_replica(self.the_keeper)
        self.assertEqual(self.stamps.prefix([image]), len(self.stamps.log))
        self.the_keeper.quit()
        self.assertFalse(self.in_the_clear())

    def in_the_clear(self):
        """Blocks of stamps, or packets of a log, are seen on the link."""
        return b'WEIRPKT1' in self.link.captured or \
            struct.pack('<QQ', self.stamps.log[0][1] + 1, 1) in \
            self.link.captured


class Works(TLSTest):
    def test_certificates(self):
        self.begin()
        self.writer.more(200)
        self.check_end()
        self.check_cipher()

    def check_cipher(self):
        cipher = cipher_of(self.link.captured)
        print(f'{cipher} ', end='', flush=True)
        self.assertIn('AES', cipher)

    def test_shared_key(self):
        self.begin(keeper=self.psk('server', 'a'),
                   source=self.psk('client', 'a'), hostname=None)
        self.writer.more(200)
        self.check_end()
        self.check_cipher()

    def test_without_it_would_be_seen(self):
        """What is looked for in the other tests is there to be seen."""
        self.begin(keeper=[], source=[])
        self.writer.more(200)
        self.mark(self.the_source, 'end')
        self.end_writer()
        self.assertTrue(self.in_the_clear())
        self.the_source.quit()
        self.the_keeper.quit()

    def test_keeper_is_killed(self):
        """There is another session of TLS with the next one."""
        self.begin()
        self.kill(self.the_keeper)
        self.wait_for_status(self.the_source, 'disconnected')
        self.writer.more(50)
        self.the_keeper = self.keeper()
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    @only_long
    def test_keeper_hangs(self):
        self.begin()
        self.freeze(self.the_keeper)
        self.the_source.qmp.event(
            'WEIR_STATE', lambda data: 'has not answered in time' in
            data.get('reason', ''))
        self.writer.more(100)
        self.thaw(self.the_keeper)
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()

    @only_long
    def test_link_is_cut(self):
        self.begin()
        for _ in range(3):
            self.writer.more(50)
            self.link.drop()
        self.wait_for_status(self.the_source, 'streaming')
        self.check_end()


class Refused(TLSTest):
    """The source goes on without a log, and its state tells why."""

    def refused(self, reason, told, keeper=None, source=None, **options):
        self.the_keeper = self.keeper(keeper)
        self.the_source = self.source(source, **options)
        self.begin_to_write()
        self.wait_for_info(
            self.the_source, lambda info: info['state'] == 'degraded' and
            reason in info.get('reason', ''), f'degraded: {reason}')
        self.writer.more(50)
        wait_for(lambda: told in self.the_keeper.output(),
                 f'the keeper tells: {told}')
        self.end_writer()
        info = self.replication_info(self.the_source)
        self.assertEqual((info['status'], info['sent-bytes']),
                         ('disconnected', 0))
        self.assertEqual(self.journal_info(self.the_keeper)['epoch'], 0)
        self.assertFalse(self.in_the_clear())
        self.the_source.quit()
        self.the_keeper.quit()

    def test_keeper_of_another_authority(self):
        Authority().write(self.path('other'), 'server', HOST)
        self.refused('The certificate is not trusted',
                     'The certificate is not trusted',
                     keeper=self.creds('server', 'other'))

    def test_source_of_another_authority(self):
        """It trusts the keeper, which does not trust it."""
        Authority().write(self.path('other'), 'client', 'source.example')
        shutil.copy(self.path('source/ca-cert.pem'), self.path('other'))
        self.refused('TLS', 'The certificate is not trusted',
                     source=self.creds('client', 'other', sanity_check='off'))

    def test_certificate_of_the_keeper_has_expired(self):
        self.authority.write(self.path('old'), 'server', HOST, expired=True)
        self.refused('The certificate is not trusted',
                     'option negotiation failed',
                     keeper=self.creds('server', 'old', sanity_check='off'))

    def test_certificate_of_the_source_has_expired(self):
        self.authority.write(self.path('old'), 'client', 'source.example',
                             expired=True)
        self.refused('TLS', 'The certificate is not trusted',
                     source=self.creds('client', 'old', sanity_check='off'))

    def test_old_certificates_are_not_used_at_all(self):
        self.authority.write(self.path('old'), 'server', HOST, expired=True)
        with self.assertRaises(AssertionError) as caught:
            self.keeper(self.creds('server', 'old'))
        self.assertIn('has expired', str(caught.exception))

    def test_another_name(self):
        self.refused('Certificate does not match the hostname other.example',
                     'option negotiation failed', hostname='other.example')

    def test_another_key(self):
        self.refused('TLS handshake failed', 'TLS handshake failed',
                     keeper=self.psk('server', 'a'),
                     source=self.psk('client', 'b'), hostname=None)

    def test_keeper_without_tls(self):
        """The keeper has nothing to complain about."""
        self.refused('Denied by server for option 5 (starttls)', '',
                     keeper=[])

    def test_source_without_tls(self):
        self.refused('TLS negotiation required before option 7 (go)',
                     'option negotiation failed', source=[])


if __name__ == '__main__':
    main()
