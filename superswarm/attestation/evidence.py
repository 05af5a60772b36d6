"""What passes between parse, verify and judge (RATS, RFC 9334): evidence, and what it must speak for.

An Attester shows `Evidence`. `Evidence` proves nothing; `verify` makes a `VerifiedReport` of it; `appraise` compares
that with an approved manifest and a `Binding`, and makes a key that may be trusted.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol, Self

from superswarm.attestation.nvidia.evidence import DeviceEvidence
from superswarm.consortium.manifest import Platform
from superswarm.crypto.hpke import KemPublicKey
from superswarm.crypto.signing import VerifyingKey
from superswarm.errors import Malformed, TooLarge
from superswarm.values import LIMITS, Digest, MemberId, Role
from superswarm.wire import pack, unpack_list

NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quote or report, and what is needed to check it without a network. Proves nothing.

    `endorsements` maps a name (certificate chain, CRL, TCB info, reference manifest) to its bytes, sorted by name.
    `devices` holds the evidence of attached GPUs and switches, in the same form.
    """

    platform: Platform
    quote: bytes
    endorsements: tuple[tuple[str, bytes], ...] = ()
    devices: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        flat = [part for name, data in self.endorsements for part in (name, data)]
        return pack(str(self.platform), self.quote, pack(*flat), pack(*self.devices))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Invert `to_bytes`. Raises Malformed, or TooLarge over the limit."""
        if len(data) > LIMITS.evidence_bytes:
            raise TooLarge(f"evidence has at most {LIMITS.evidence_bytes} bytes")
        match unpack_list(data):
            case [str(name), bytes(quote), bytes(endorsements), bytes(devices)] if name in list(Platform):
                return cls(Platform(name), quote, _pairs(endorsements), _blobs(devices))
            case _:
                raise Malformed("evidence does not have the expected fields")

    @property
    def device_digest(self) -> Digest:
        """What report_data binds of the attached devices' evidence."""
        return Digest.of(pack(*self.devices))

    def endorsement(self, name: str) -> bytes:
        """One endorsement by name; Malformed where the attester stapled none."""
        for key, data in self.endorsements:
            if key == name:
                return data
        raise Malformed(f"the evidence lacks the endorsement {name}")


def _pairs(data: bytes) -> tuple[tuple[str, bytes], ...]:
    fields = unpack_list(data)
    names, blobs = fields[::2], fields[1::2]
    pairs = [(n, b) for n, b in zip(names, blobs, strict=False) if isinstance(n, str) and isinstance(b, bytes)]
    if len(pairs) * 2 != len(fields) or [n for n, _ in pairs] != sorted({n for n, _ in pairs}):
        raise Malformed("endorsements are not pairs of a name and bytes, sorted by name")
    return tuple(pairs)


def _blobs(data: bytes) -> tuple[bytes, ...]:
    blobs = [field for field in unpack_list(data) if isinstance(field, bytes)]
    if pack(*blobs) != data:
        raise Malformed("devices' evidence is not a list of bytes")
    return tuple(blobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionKeys:
    """The two public keys that a TEE makes for one run: what evidence and vouches speak for."""

    kem: KemPublicKey
    signing: VerifyingKey

    def to_bytes(self) -> bytes:
        return pack(self.kem.raw, self.signing.raw)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        match unpack_list(data, limit=8192):
            case [bytes(kem), bytes(signing)]:
                return cls(kem=KemPublicKey(kem), signing=VerifyingKey(signing))
            case _:
                raise Malformed("session keys do not have the expected fields")

    @property
    def digest(self) -> Digest:
        return Digest.of(self.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Everything that report_data must speak for. Length-prefixed, so no two bindings share bytes."""

    domain: str  # the manifest's, which keeps simulated and real apart
    role: Role
    member: MemberId | None  # None for the aggregator
    run: str
    nonce: bytes  # 32 bytes; with several challengers, a hash over all their nonces
    keys: SessionKeys
    manifest: Digest
    devices: Digest  # `Evidence.device_digest`

    def report_data(self) -> bytes:
        """The 64 bytes that the TEE's hardware signs: SHA-512 over the packed binding."""
        if len(self.nonce) != NONCE_BYTES:
            raise Malformed(f"a nonce has {NONCE_BYTES} bytes")
        packed = pack(
            f"{self.domain}/report-data",
            str(self.role),
            self.member or "",
            self.run,
            self.nonce,
            self.keys.kem.raw,
            self.keys.signing.raw,
            self.manifest.raw,
            self.devices.raw,
        )
        return hashlib.sha512(packed).digest()


def combine_nonces(nonces: list[bytes]) -> bytes:
    """One nonce for several challengers: SHA-256 over their nonces, sorted (32 bytes each)."""
    if not nonces or any(len(nonce) != NONCE_BYTES for nonce in nonces) or len(set(nonces)) != len(nonces):
        raise Malformed(f"challengers' nonces are distinct and have {NONCE_BYTES} bytes each")
    return Digest.of(pack("superswarm/v1/nonces", *sorted(nonces))).raw


class Attester(Protocol):
    """A TEE as seen from inside: it has its hardware sign 64 bytes."""

    @property
    def platform(self) -> Platform: ...

    def attest(self, report_data: bytes) -> Evidence:
        """Show evidence whose report_data is these 64 bytes. Raises NotATee or Environment."""
        ...

    def ask_devices(self, nonce: bytes) -> tuple[DeviceEvidence, ...]:
        """Have the attached devices sign this nonce (32 bytes); none are attached: none. Raises as `attest` does."""
        ...
