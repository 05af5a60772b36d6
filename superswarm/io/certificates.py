"""Self-made TLS: an authority of one program's own, and certificates of servers and clients under it (RFC 5280).

Members pin the relay's authority by its file. TLS here guards availability and metadata; what matters is sealed end
to end and does not rest on it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from superswarm.errors import Environment, Misconfigured
from superswarm.io.files import PUBLIC, SECRET, write_bytes

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397
RENEW_DAYS: Final = 30
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?")
BACKDATE: Final = dt.timedelta(minutes=10)  # for peers whose clocks are behind


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Where a server's, or a client's, TLS files lie. Peers get `authority`; the keys stay."""

    authority: Path
    certificate: Path
    key: Path


def ensure_server_files(folder: Path, names: Sequence[str], *, prefix: str) -> ServerFiles:
    """Make, or keep, a server certificate for these DNS names and addresses under an authority of its own.

    Restarting keeps the authority that members pinned. The server's certificate is made anew when it nears its end
    or other names are asked for.
    """
    files = ServerFiles(folder / f"{prefix}-ca.crt", folder / f"{prefix}.crt", folder / f"{prefix}.key")
    authority_key = folder / f"{prefix}-ca.key"
    wanted = [_general_name(name) for name in names]
    if not wanted:
        raise Misconfigured("a server certificate needs at least one name")
    if not (files.authority.exists() and authority_key.exists()):
        _write_authority(files.authority, authority_key)
        files.certificate.unlink(missing_ok=True)
    if not _serves(files, wanted):
        _write_leaf(files, authority_key, wanted, f"superswarm {prefix}", ExtendedKeyUsageOID.SERVER_AUTH)
    return files


def ensure_client_files(folder: Path, *, prefix: str, client: str) -> ServerFiles:
    """Make, or keep, a client's certificate under the authority that `ensure_server_files` made for this prefix.

    It serves a client only: a server that shows it is refused, and the other way round.
    """
    name = f"{prefix}-{client}"
    files = ServerFiles(folder / f"{prefix}-ca.crt", folder / f"{name}.crt", folder / f"{name}.key")
    wanted = [_general_name(client)]
    if not _serves(files, wanted):
        _write_leaf(files, folder / f"{prefix}-ca.key", wanted, f"superswarm {name}", ExtendedKeyUsageOID.CLIENT_AUTH)
    return files


def node_key(path: Path) -> str:
    """Make, or keep, the key by which the relay knows a SuperNode; return its public half as an OpenSSH line.

    Flower authenticates SuperNodes by ECDSA keys in OpenSSH form. The key opens nothing.
    """
    if path.exists():
        key = _load_ssh(path)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        write_bytes(
            path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), mode=SECRET, replace=True
        )
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    write_bytes(path.with_name(path.name + ".pub"), f"{public}\n".encode(), mode=PUBLIC, replace=True)
    return public


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey, form: PrivateFormat) -> None:
    write_bytes(path, key.private_bytes(Encoding.PEM, form, NoEncryption()), mode=SECRET, replace=True)


def _load_ssh(path: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise Environment(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise Misconfigured(f"{path} is not an OpenSSH private key without a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Misconfigured(f"{path} is not an elliptic-curve key: SuperNodes need ecdsa-sha2-nistp256")
    return key


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        ascii_name = name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    if not HOST_NAME.fullmatch(ascii_name):
        raise Misconfigured(f"not a host name or address: {name!r}")
    return x509.DNSName(ascii_name)


def _write_authority(certificate: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"superswarm {os.urandom(4).hex()}")])
    built = (
        _begin(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_bytes(
        key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=SECRET, replace=True
    )
    write_bytes(certificate, built.public_bytes(Encoding.PEM), mode=PUBLIC, replace=True)


def _write_leaf(
    files: ServerFiles,
    authority_key: Path,
    names: Sequence[x509.GeneralName],
    common_name: str,
    usage: x509.ObjectIdentifier,
) -> None:
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    signer = load_pem_private_key(authority_key.read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise Environment(f"{authority_key} is not the key that was written there")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    built = (
        _begin(subject, authority.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    write_bytes(
        files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=SECRET, replace=True
    )
    write_bytes(files.certificate, built.public_bytes(Encoding.PEM), mode=PUBLIC, replace=True)


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    """Key usage of a server or client (`sign`), or of an authority."""
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )


def _serves(files: ServerFiles, names: Sequence[x509.GeneralName]) -> bool:
    """Whether the certificate on disk covers these names, is under this authority, and has time left."""
    if not (files.certificate.exists() and files.key.exists()):
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
    if load_pem_private_key(files.key.read_bytes(), None).public_key() != certificate.public_key():
        return False  # a crash between the two files
    now = dt.datetime.now(dt.UTC)
    if certificate.not_valid_after_utc - now < dt.timedelta(days=RENEW_DAYS):
        return False
    if certificate.issuer != authority.subject:
        return False
    covered = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(covered) == set(names)
