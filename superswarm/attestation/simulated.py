"""INSECURE: a simulated TEE, for trying out and for tests. Its evidence protects nothing.

A member makes a `DevelopmentAuthority`, which plays Intel: root, platform CA, signer of TCB documents. It issues
`SimulatedPlatform` credentials, which play a machine; `SimulatedTee` plays the TDX module and quoting enclave in it,
and mints quotes in the TDX version 4 structure. The evidence passes through the verifier of real evidence, under the
roots that a simulated manifest pins to each member. Whoever holds the credentials can mint evidence for any
measurement.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from superswarm.attestation import simulated_pki as pki
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.attestation.simulated_quote import QuotingEnclave, SimulatedBody
from superswarm.attestation.tdx import collateral as names
from superswarm.consortium.manifest import Platform
from superswarm.errors import Malformed
from superswarm.values import LIMITS, Digest, Measurement
from superswarm.wire import pack, unpack_list

FORMAT_AUTHORITY = "superswarm-INSECURE-development-authority/1"
FORMAT_PLATFORM = "superswarm-INSECURE-simulated-platform/1"
AUTHORITY_DAYS = 3650
ROOT_NAME = "INSECURE development root CA"
PLATFORM_NAME = "INSECURE development PCK Platform CA"
SIGNER_NAME = "INSECURE development TCB Signing"
PCK_NAME = "INSECURE development PCK certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPlatform:
    """INSECURE: what plays one machine: a PCK key with its chain, and the collateral that was current at issue.

    Whoever holds it can mint evidence for any measurement.
    """

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: bytes  # PEM: PCK leaf, platform CA, root
    endorsements: tuple[tuple[str, bytes], ...]  # named as in `tdx.collateral`, sorted

    def to_bytes(self) -> bytes:
        """For a file that only this machine's owner can read. Holds a private key."""
        flat = [part for name, data in self.endorsements for part in (name, data)]
        return pack(FORMAT_PLATFORM, _private(self.key), self.chain, pack(*flat))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed."""
        match unpack_list(data, limit=LIMITS.evidence_bytes):
            case [str(form), bytes(key), bytes(chain), bytes(flat)] if form == FORMAT_PLATFORM:
                fields = unpack_list(flat)
            case _:
                raise Malformed("not the credentials of a simulated platform")
        pairs = [
            (n, b)
            for n, b in zip(fields[::2], fields[1::2], strict=False)
            if isinstance(n, str) and isinstance(b, bytes)
        ]
        if tuple(name for name, _ in pairs) != names.NAMES or len(fields) != 2 * len(pairs):
            raise Malformed("a simulated platform's credentials lack collateral")
        return cls(key=_load_key(key), chain=chain, endorsements=tuple(pairs))


@dataclass(frozen=True, slots=True)
class DevelopmentAuthority:
    """INSECURE: plays the vendor of a member's simulated machines. A simulated manifest pins its `spki_digest`."""

    root: pki.Issuer = field(repr=False)
    platforms: pki.Issuer = field(repr=False)  # the platform CA
    signer: ec.EllipticCurvePrivateKey = field(repr=False)  # of TCB info and QE identity
    root_certificate: x509.Certificate
    platforms_certificate: x509.Certificate
    signer_certificate: x509.Certificate

    @classmethod
    def create(cls, *, at: int) -> Self:
        """Make keys and certificates of a new authority, valid for ten years from `at` (unix seconds)."""
        root = pki.Issuer(ROOT_NAME, pki.new_key())
        platforms = pki.Issuer(PLATFORM_NAME, pki.new_key())
        signer = pki.new_key()

        def certify(name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
            return root.certify(name, key.public_key(), at=at, days=AUTHORITY_DAYS, authority=authority)

        return cls(
            root,
            platforms,
            signer,
            certify(ROOT_NAME, root.key, authority=True),
            certify(PLATFORM_NAME, platforms.key, authority=True),
            certify(SIGNER_NAME, signer, authority=False),
        )

    def to_bytes(self) -> bytes:
        """For an encrypted file. Holds private keys."""
        keys = (self.root.key, self.platforms.key, self.signer)
        certificates = (self.root_certificate, self.platforms_certificate, self.signer_certificate)
        return pack(
            FORMAT_AUTHORITY,
            *(_private(key) for key in keys),
            *(certificate.public_bytes(Encoding.DER) for certificate in certificates),
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed."""
        fields = unpack_list(data, limit=64 * 1024)
        blobs = [field for field in fields[1:] if isinstance(field, bytes)]
        if fields[:1] != [FORMAT_AUTHORITY] or len(blobs) != 6 or len(fields) != 7:
            raise Malformed("not a development authority")
        root, platforms, signer = (_load_key(blob) for blob in blobs[:3])
        try:
            certificates = [x509.load_der_x509_certificate(blob) for blob in blobs[3:]]
        except ValueError:
            raise Malformed("a development authority's certificate cannot be read") from None
        return cls(pki.Issuer(ROOT_NAME, root), pki.Issuer(PLATFORM_NAME, platforms), signer, *certificates)

    @property
    def spki_digest(self) -> Digest:
        """SHA-256 of the root's SubjectPublicKeyInfo: what a manifest pins."""
        public = self.root.key.public_key()
        return Digest.of(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def issue(self, *, at: int, valid_days: int) -> SimulatedPlatform:
        """Credentials of a new simulated machine, valid for `valid_days` from `at` (unix seconds)."""
        key = pki.new_key()
        leaf = self.certify_platform(key, at=at, valid_days=valid_days)
        return SimulatedPlatform(
            key=key,
            chain=pki.pem(leaf, self.platforms_certificate, self.root_certificate),
            endorsements=self.endorse(
                tcb_info=pki.tcb_info(at=at, days=valid_days),
                qe_identity=pki.qe_identity(at=at, days=valid_days),
                root_crl=self.root.revoke((), at=at, days=valid_days),
                pck_crl=self.platforms.revoke((), at=at, days=valid_days),
            ),
        )

    def certify_platform(self, key: ec.EllipticCurvePrivateKey, *, at: int, valid_days: int) -> x509.Certificate:
        """A PCK certificate for a new simulated machine, with Intel's SGX extension."""
        extension = pki.sgx_extension(secrets.token_bytes(16), secrets.token_bytes(16))
        return self.platforms.certify(
            PCK_NAME, key.public_key(), at=at, days=valid_days, authority=False, extensions=[extension]
        )

    def endorse(
        self, *, tcb_info: str, qe_identity: str, root_crl: bytes, pck_crl: bytes
    ) -> tuple[tuple[str, bytes], ...]:
        """Sign the TCB documents, and lay out collateral as evidence staples it."""
        signed_by = pki.pem(self.signer_certificate, self.root_certificate)
        collateral = {
            names.PCK_CRL_CHAIN: pki.pem(self.platforms_certificate, self.root_certificate),
            names.ROOT_CRL: root_crl,
            names.PCK_CRL: pck_crl,
            names.TCB_CHAIN: signed_by,
            names.TCB_INFO: tcb_info.encode(),
            names.TCB_SIGNATURE: pki.sign_raw(self.signer, tcb_info.encode()),
            names.QE_CHAIN: signed_by,
            names.QE_IDENTITY: qe_identity.encode(),
            names.QE_SIGNATURE: pki.sign_raw(self.signer, qe_identity.encode()),
        }
        return tuple(sorted(collateral.items()))


class SimulatedTee:
    """INSECURE: plays a TEE that runs `measurement`. Its evidence protects nothing."""

    def __init__(self, platform: SimulatedPlatform, measurement: Measurement) -> None:
        self._endorsements = platform.endorsements
        self._measurement = measurement
        self._enclave = QuotingEnclave.start(platform.key, platform.chain)

    @property
    def platform(self) -> Platform:
        return Platform.SIMULATED

    def ask_devices(self, nonce: bytes) -> tuple[DeviceEvidence, ...]:
        """A simulated TEE has no devices."""
        del nonce
        return ()

    def attest(self, report_data: bytes) -> Evidence:
        """Mint a quote over these 64 bytes, and staple the collateral."""
        if len(report_data) != 64:
            raise Malformed(f"report_data has 64 bytes, not {len(report_data)}")
        quote = self._enclave.quote(SimulatedBody(mr_td=self._measurement.raw, report_data=report_data))
        return Evidence(Platform.SIMULATED, quote, self._endorsements)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _load_key(raw: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_der_private_key(raw, password=None)
    except (ValueError, TypeError):
        raise Malformed("a simulated platform's private key cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Malformed("a simulated platform's private key is not on P-256")
    return key
