"""A certificate authority for tests."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Authority:
    """A certificate authority that stores its certificates in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.root = folder / "root.pem"
        ours = x509.BasicConstraints(ca=True, path_length=0)
        self.write(self.root, self.sign(self.name, self.key, (-DAY, DAY), ours))

    def sign(self, name, key, valid, extension) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().issuer_name(self.name).subject_name(name)
        builder = builder.not_valid_before(now + valid[0]).not_valid_after(now + valid[1])
        builder = builder.serial_number(x509.random_serial_number()).public_key(key.public_key())
        return builder.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())

    @staticmethod
    def write(path: Path, what) -> None:
        private = (
            () if isinstance(what, x509.Certificate) else (PrivateFormat.PKCS8, NoEncryption())
        )
        encode = what.private_bytes if private else what.public_bytes
        path.write_bytes(encode(Encoding.PEM, *private))

    def issue(self, name: str, *names: str, valid=(-DAY, DAY)) -> tuple[Path, Path]:
        """Issue a certificate for the given names; return the paths of the certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        alternatives = [
            x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n)
            for n in names
        ]
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        alternative = x509.SubjectAlternativeName(alternatives)
        self.write(paths[0], self.sign(subject, key, valid, alternative))
        self.write(paths[1], key)
        return paths
