"""Why evidence is refused: one code for each failed claim, who must act on it, and what to do.

The claim is the one of AR4SI (draft-ietf-rats-ar4si, section 2.3) that the failure speaks about; the value is that
draft's trustworthiness value (32: warning, 96 and up: contraindicated, 99: a cryptographic check failed).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from superswarm.errors import EvidenceRejected


class Actor(StrEnum):
    """Who must act on a refusal."""

    ATTESTER = "whoever runs the attesting machine"
    VERIFIER = "whoever runs the verifier"
    CONSORTIUM = "the consortium"
    NOBODY = "nobody can mend this"


class Claim(StrEnum):
    """The claims of an AR4SI trustworthiness vector that hardware evidence can speak about."""

    INSTANCE = "instance-identity"
    CONFIGURATION = "configuration"
    EXECUTABLES = "executables"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class Advice:
    """What a reason means for people."""

    claim: Claim
    value: int
    actor: Actor
    action: str


class Reason(StrEnum):
    """The fixed code of a failed claim: in `EvidenceRejected.reason`, in EAR, in conformance cases."""

    # cryptography and chains
    MALFORMED = "malformed"
    SIGNATURE_INVALID = "signature-invalid"
    SIGNATURE_ALGORITHM = "signature-algorithm"
    CHAIN_INVALID = "chain-invalid"
    ROOT_UNTRUSTED = "root-untrusted"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_REVOKED = "certificate-revoked"
    CERTIFICATE_MISMATCH = "certificate-mismatch"
    CRL_MISSING = "crl-missing"
    CRL_STALE = "crl-stale"
    CRL_INVALID = "crl-invalid"
    COLLATERAL_MISSING = "collateral-missing"
    COLLATERAL_EXPIRED = "collateral-expired"
    COLLATERAL_INVALID = "collateral-invalid"
    COLLATERAL_TOO_OLD = "collateral-too-old"
    # what the evidence speaks for
    BINDING = "binding"
    MEASUREMENT = "measurement"
    EVENT_LOG_MISMATCH = "event-log-mismatch"
    PCR_MISMATCH = "pcr-mismatch"
    PCR_NOT_ACCEPTED = "pcr-not-accepted"
    RUNTIME_DATA_MISMATCH = "runtime-data-mismatch"
    SECURE_BOOT_OFF = "secure-boot-off"
    # firmware and hardware
    PRODUCT_NOT_ACCEPTED = "product-not-accepted"
    PRODUCT_UNRECOGNISED = "product-unrecognised"
    PLATFORM_NOT_ACCEPTED = "platform-not-accepted"
    KEY_KIND_NOT_ACCEPTED = "key-kind-not-accepted"
    PROVIDER_NOT_ACCEPTED = "provider-not-accepted"
    CHIP_MASKED = "chip-masked"
    CHIP_NOT_ACCEPTED = "chip-not-accepted"
    TCB_FLOOR = "tcb-floor"
    TCB_STATUS = "tcb-status"
    TCB_UNRECOGNISED = "tcb-unrecognised"
    TCB_INCONSISTENT = "tcb-inconsistent"
    FIRMWARE_TOO_OLD = "firmware-too-old"
    MITIGATION_MISSING = "mitigation-missing"
    ADVISORY_NOT_ACCEPTED = "advisory-not-accepted"
    EVALUATION_NUMBER = "evaluation-number"
    MODULE_NOT_ACCEPTED = "module-not-accepted"
    # configuration
    DEBUG = "debug"
    VMPL_NOT_ACCEPTED = "vmpl-not-accepted"
    MIGRATION_AGENT = "migration-agent"
    SMT = "smt-not-accepted"
    CXL = "cxl-not-accepted"
    SINGLE_SOCKET = "single-socket-not-required"
    ALIAS_CHECK = "alias-check-missing"
    CIPHERTEXT_HIDING = "ciphertext-hiding-off"
    HOST_DATA = "host-data-not-accepted"
    ID_KEY = "id-key-not-accepted"
    AUTHOR_KEY = "author-key-not-accepted"
    SEPT_VE_DISABLE_OFF = "sept-ve-disable-off"
    SERVICE_TD_BOUND = "service-td-bound"
    ATTRIBUTES_RESERVED = "attributes-reserved"
    PERFORMANCE_MONITORING = "performance-monitoring"
    XFAM = "xfam-not-accepted"
    CONFIG_ID = "config-id-not-accepted"
    OWNER = "owner-not-accepted"
    DYNAMIC_PLATFORM = "dynamic-platform-not-accepted"
    CACHED_KEYS = "cached-keys-not-accepted"
    # NVIDIA devices
    GPU_REQUIRED = "gpu-required"
    GPU_NOT_ACCEPTED = "gpu-not-accepted"
    GPU_NOT_CONFIDENTIAL = "gpu-not-confidential"
    FWID_MISMATCH = "fwid-mismatch"
    RIM_MISSING = "rim-missing"
    RIM_MISMATCH = "rim-mismatch"
    RIM_INVALID = "rim-invalid"
    REVOCATION_MISSING = "revocation-missing"

    @property
    def advice(self) -> Advice:
        return ADVICE[self]


_ATTACK = "suspect an attack: genuine evidence does not fail like this; keep it, and tell the other members"
_FIRMWARE = "update the machine's firmware and microcode, then attest again"
_COLLATERAL = "fetch fresh collateral (superswarm collateral fetch), or have the attester staple it"
_ACCEPT = "run elsewhere, or ask the consortium to accept it in the workload's policy"
_LAUNCH = "launch the machine again with the setting that the policy asks for"
_REFERENCE = "build the approved image again and compare (superswarm measure); if it is right, have it approved"
_CLOCK = "check the time that was judged by; if it is right, ask the vendor's key service for a new certificate"


def _crypto(claim: Claim = Claim.INSTANCE) -> Advice:
    return Advice(claim, 99, Actor.NOBODY, _ATTACK)


def _hardware(value: int, actor: Actor, action: str) -> Advice:
    return Advice(Claim.HARDWARE, value, actor, action)


def _config(action: str = _LAUNCH, actor: Actor = Actor.ATTESTER, value: int = 96) -> Advice:
    return Advice(Claim.CONFIGURATION, value, actor, action)


def _code(value: int, actor: Actor, action: str) -> Advice:
    return Advice(Claim.EXECUTABLES, value, actor, action)


ADVICE: dict[Reason, Advice] = {
    Reason.MALFORMED: Advice(
        Claim.INSTANCE, 99, Actor.ATTESTER, "the evidence is cut short or altered: send it again"
    ),
    Reason.SIGNATURE_INVALID: _crypto(),
    Reason.SIGNATURE_ALGORITHM: _crypto(),
    Reason.CHAIN_INVALID: _crypto(),
    Reason.ROOT_UNTRUSTED: _crypto(),
    Reason.CERTIFICATE_EXPIRED: Advice(Claim.INSTANCE, 97, Actor.ATTESTER, _CLOCK),
    Reason.CERTIFICATE_NOT_YET_VALID: Advice(Claim.INSTANCE, 97, Actor.VERIFIER, _CLOCK),
    Reason.CERTIFICATE_REVOKED: Advice(
        Claim.INSTANCE, 96, Actor.NOBODY, "the vendor withdrew this key: do not run here"
    ),
    Reason.CERTIFICATE_MISMATCH: Advice(
        Claim.INSTANCE,
        99,
        Actor.ATTESTER,
        "fetch the certificate for this chip and this reported TCB; else suspect an attack",
    ),
    Reason.CRL_MISSING: Advice(Claim.INSTANCE, 97, Actor.ATTESTER, _COLLATERAL),
    Reason.CRL_STALE: Advice(Claim.INSTANCE, 97, Actor.ATTESTER, _COLLATERAL),
    Reason.CRL_INVALID: _crypto(),
    Reason.COLLATERAL_MISSING: _hardware(97, Actor.ATTESTER, _COLLATERAL),
    Reason.COLLATERAL_EXPIRED: _hardware(97, Actor.ATTESTER, _COLLATERAL),
    Reason.COLLATERAL_INVALID: _crypto(Claim.HARDWARE),
    Reason.COLLATERAL_TOO_OLD: _hardware(97, Actor.ATTESTER, _COLLATERAL),
    Reason.BINDING: _crypto(),
    Reason.MEASUREMENT: _code(33, Actor.CONSORTIUM, _REFERENCE),
    Reason.EVENT_LOG_MISMATCH: _code(99, Actor.NOBODY, _ATTACK),
    Reason.PCR_MISMATCH: _code(99, Actor.NOBODY, _ATTACK),
    Reason.PCR_NOT_ACCEPTED: _code(33, Actor.CONSORTIUM, _REFERENCE),
    Reason.RUNTIME_DATA_MISMATCH: _crypto(),
    Reason.SECURE_BOOT_OFF: _config(),
    Reason.PRODUCT_NOT_ACCEPTED: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.PRODUCT_UNRECOGNISED: _hardware(
        97, Actor.VERIFIER, "upgrade superswarm: this product is newer than it knows"
    ),
    Reason.PLATFORM_NOT_ACCEPTED: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.KEY_KIND_NOT_ACCEPTED: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.PROVIDER_NOT_ACCEPTED: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.CHIP_MASKED: Advice(Claim.INSTANCE, 97, Actor.CONSORTIUM, _ACCEPT),
    Reason.CHIP_NOT_ACCEPTED: Advice(Claim.INSTANCE, 97, Actor.CONSORTIUM, _ACCEPT),
    Reason.TCB_FLOOR: _hardware(32, Actor.ATTESTER, _FIRMWARE),
    Reason.TCB_STATUS: _hardware(32, Actor.ATTESTER, _FIRMWARE),
    Reason.TCB_UNRECOGNISED: _hardware(97, Actor.ATTESTER, _FIRMWARE),
    Reason.TCB_INCONSISTENT: _hardware(99, Actor.NOBODY, _ATTACK),
    Reason.FIRMWARE_TOO_OLD: _hardware(32, Actor.ATTESTER, _FIRMWARE),
    Reason.MITIGATION_MISSING: _hardware(32, Actor.ATTESTER, _FIRMWARE),
    Reason.ADVISORY_NOT_ACCEPTED: _hardware(32, Actor.ATTESTER, _FIRMWARE),
    Reason.EVALUATION_NUMBER: _hardware(97, Actor.ATTESTER, _COLLATERAL),
    Reason.MODULE_NOT_ACCEPTED: _hardware(97, Actor.CONSORTIUM, _ACCEPT),
    Reason.DEBUG: _config("launch without debug: the host can read this machine's memory"),
    Reason.VMPL_NOT_ACCEPTED: _config(_ACCEPT, Actor.CONSORTIUM),
    Reason.MIGRATION_AGENT: _config(),
    Reason.SMT: _config(),
    Reason.CXL: _config(),
    Reason.SINGLE_SOCKET: _config(),
    Reason.ALIAS_CHECK: _hardware(32, Actor.ATTESTER, _FIRMWARE),
    Reason.CIPHERTEXT_HIDING: _config("turn ciphertext hiding on in the platform's firmware"),
    Reason.HOST_DATA: _config(_ACCEPT, Actor.CONSORTIUM),
    Reason.ID_KEY: _config(_ACCEPT, Actor.CONSORTIUM),
    Reason.AUTHOR_KEY: _config(_ACCEPT, Actor.CONSORTIUM),
    Reason.SEPT_VE_DISABLE_OFF: _config(),
    Reason.SERVICE_TD_BOUND: _config(),
    Reason.ATTRIBUTES_RESERVED: _config("upgrade superswarm, or suspect an attack: reserved bits are set"),
    Reason.PERFORMANCE_MONITORING: _config(),
    Reason.XFAM: _config(),
    Reason.CONFIG_ID: _config(_ACCEPT, Actor.CONSORTIUM),
    Reason.OWNER: _config(_ACCEPT, Actor.CONSORTIUM),
    Reason.DYNAMIC_PLATFORM: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.CACHED_KEYS: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.GPU_REQUIRED: _hardware(96, Actor.ATTESTER, "attach a GPU in confidential-computing mode"),
    Reason.GPU_NOT_ACCEPTED: _hardware(96, Actor.CONSORTIUM, _ACCEPT),
    Reason.GPU_NOT_CONFIDENTIAL: _config("turn confidential computing on for this GPU (CC mode), then restart"),
    Reason.FWID_MISMATCH: _crypto(Claim.HARDWARE),
    Reason.RIM_MISSING: _code(33, Actor.ATTESTER, _COLLATERAL),
    Reason.RIM_MISMATCH: _code(
        96, Actor.ATTESTER, "install the firmware and driver that the reference manifest names"
    ),
    Reason.RIM_INVALID: _code(99, Actor.NOBODY, _ATTACK),
    Reason.REVOCATION_MISSING: Advice(Claim.INSTANCE, 97, Actor.ATTESTER, _COLLATERAL),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed claim, in words that say what was found."""

    reason: Reason
    message: str


def refuse(faults: Iterable[Fault]) -> None:
    """Raise EvidenceRejected if there is any fault: the first names the refusal, the others travel along."""
    found = list(faults)
    if found:
        raise rejected(*found)


def rejected(first: Fault, *others: Fault) -> EvidenceRejected:
    """The error for one or more failed claims."""
    message = "; ".join(fault.message for fault in (first, *others))
    error = EvidenceRejected(first.reason, message, *(fault.reason for fault in others))
    error.messages = tuple(fault.message for fault in (first, *others))
    return error


def faults_of(error: EvidenceRejected) -> tuple[Fault, ...]:
    """The failed claims of a refusal, for people: each code with its message where there is one."""
    messages = (*error.messages, *[""] * len(error.reasons))
    return tuple(Fault(Reason(code), text) for code, text in zip(error.reasons, messages, strict=False))
