"""Create the certificates of a Dask cluster in a folder, unless it has some: an authority, and one certificate of it.

Dask accepts every client with a certificate of this authority. The authority's key is not kept, so it cannot sign
another certificate: to replace them, delete both files and restart every process of the cluster.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "ca.pem"
CERTIFICATE = "dask.pem"  # with its key

_DAYS = 3650


def create(folder: Path) -> None:
    """Write a new authority and a certificate of it, the certificate last: a folder that has it is complete."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _signed("Speck Dask authority", authority_key, "Speck Dask authority", authority_key, authority=True)
    certificate = _signed("Speck Dask", key, "Speck Dask authority", authority_key, authority=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write(folder / AUTHORITY, authority.public_bytes(Encoding.PEM), 0o644)
    _write(folder / CERTIFICATE, certificate.public_bytes(Encoding.PEM) + private, 0o600)


def expiry(folder: Path) -> datetime:
    """Return when the certificates of a folder expire; InvalidSignature or ValueError if they do not fit together."""
    both = [(folder / name).read_bytes() for name in (AUTHORITY, CERTIFICATE)]
    authority, certificate = map(x509.load_pem_x509_certificate, both)
    certificate.verify_directly_issued_by(authority)
    if load_pem_private_key(both[1], None).public_key() != certificate.public_key():
        raise ValueError("the key is of another certificate")
    return min(authority.not_valid_after_utc, certificate.not_valid_after_utc)


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of hosts differ
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )  # Python 3.13 requires it
    )
    if not authority:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file that no one else can read before it has its mode, complete or not at all."""
    unfinished = path.with_suffix(".tmp")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    unfinished.replace(path)


def _main(folder: Path) -> str:
    """Create the certificates unless they exist, and return a line for the log; exit if they cannot be used."""
    remedy = f"delete {AUTHORITY} and {CERTIFICATE} there, and restart every process of the Dask cluster"
    if not (folder / CERTIFICATE).exists():
        create(folder)
    try:
        last = expiry(folder)
    except InvalidSignature:
        sys.exit(f"{folder}: {CERTIFICATE} is not of the authority in {AUTHORITY}: {remedy}")
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"{folder}: the certificates are damaged: {error}: {remedy}")
    if last < datetime.now(UTC):
        sys.exit(f"{folder}: the certificates expired on {last:%Y-%m-%d}: {remedy}")
    return f"{folder}: certificates for Dask, valid until {last:%Y-%m-%d}"


if __name__ == "__main__":
    print(_main(Path(sys.argv[1])))
