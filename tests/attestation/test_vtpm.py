"""Azure vTPM evidence: the whole chain is minted, and broken at each link."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from superswarm.attestation import conformance
from superswarm.attestation.reasons import Reason
from superswarm.attestation.vtpm.chain import VerifiedVtpm, qualifying_data, verify_vtpm
from superswarm.attestation.vtpm.hcl import parse_hcl
from superswarm.attestation.vtpm.judge import judge_vtpm
from superswarm.attestation.vtpm.quote import parse_quote
from superswarm.consortium.policy import AzureVtpmPolicy, PcrReference
from superswarm.errors import EvidenceRejected, Malformed, TooLarge
from tests.attestation.snp_mint import AT, Authority, report, sign
from tests.attestation.test_snp import strict
from tests.attestation.vectors import NEEDS_VECTORS, cases, files

PCRS = [hashlib.sha256(bytes([index])).digest() for index in range(24)]
NONCE = qualifying_data(bytes(range(64)))
AUTHORITY = Authority()
VEK, LEAF = AUTHORITY.endorse()
AK = rsa.generate_private_key(65537, 2048)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwk(key: rsa.RSAPrivateKey, kid: str = "HCLAkPub") -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {
        "kid": kid,
        "kty": "RSA",
        "e": b64(numbers.e.to_bytes(3, "big")),
        "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")),
    }


def quote(
    pcrs: list[bytes] = PCRS, *, nonce: bytes = NONCE, select: bytes = b"\xff\xff\xff", tail: bytes = b""
) -> bytes:
    chosen = [value for index, value in enumerate(pcrs) if select[index // 8] >> index % 8 & 1]
    return (
        bytes.fromhex("ff5443478018")
        + struct.pack(">H", 34)
        + bytes(34)
        + struct.pack(">H", len(nonce))
        + nonce
        + struct.pack(">QIIBQ", 1, 2, 3, 1, 4)
        + struct.pack(">IHB", 1, 0x000B, len(select))
        + select
        + struct.pack(">H", 32)
        + hashlib.sha256(b"".join(chosen)).digest()
        + tail
    )


@dataclass
class Mint:
    """What a paravisor and its vTPM would make; each part can be replaced."""

    runtime: bytes = json.dumps(
        {"keys": [jwk(AK)], "vm-configuration": {"secure-boot": True}, "user-data": "00" * 64}
    ).encode()
    message: bytes = quote()
    signer: rsa.RSAPrivateKey = AK
    pcrs: tuple[bytes, ...] = tuple(PCRS)
    report_data: bytes | None = None
    kind: int = 2
    hash_kind: int = 1
    header: bytes | None = None
    padding: bytes = bytes(100)

    @property
    def hcl(self) -> bytes:
        hardware = sign(report(report_data=self.report_data or hashlib.sha256(self.runtime).digest()), VEK)
        size = len(self.runtime)
        header = self.header or struct.pack("<4s7I", b"HCLA", 1, 1236 + size, 2, 0, 0, 0, 0)
        second = struct.pack("<5I", 20 + size, 1, self.kind, self.hash_kind, size)
        return header + hardware + second + self.runtime + self.padding

    @property
    def signature(self) -> bytes:
        return self.signer.sign(self.message, padding.PKCS1v15(), hashes.SHA256())

    @property
    def document(self) -> dict[str, object]:
        return {
            "version": 2,
            "tpm_quote": {
                "message": self.message.hex(),
                "signature": self.signature.hex(),
                "pcrs": [value.hex() for value in self.pcrs],
            },
            "hcl_report": b64(self.hcl),
            "vcek": b64(LEAF),
        }

    @property
    def json(self) -> bytes:
        return json.dumps(self.document).encode()

    def verify(self, **changes: object) -> VerifiedVtpm:
        data = json.dumps({**self.document, **changes}).encode()
        return verify(data)


def verify(data: bytes) -> VerifiedVtpm:
    return verify_vtpm(data, AUTHORITY.endorsements(LEAF, AUTHORITY.crl()), AT, AUTHORITY.roots)


def policy(**changes: object) -> AzureVtpmPolicy:
    fields: dict[str, object] = {
        "sev_snp": strict(),
        "pcrs": (PcrReference(index=4, allowed=(PCRS[4].hex(),)), PcrReference(index=9, allowed=(PCRS[9].hex(),))),
    }
    return AzureVtpmPolicy(**{**fields, **changes})


def refused(call, reason: Reason) -> None:
    with pytest.raises(EvidenceRejected) as caught:
        call()
    assert caught.value.reasons == (reason,)


def test_a_whole_chain_passes_the_strictest_policy() -> None:
    verified = Mint().verify()
    judge_vtpm(verified, policy(), AT)
    assert verified.qualifying_data == NONCE
    assert verified.pcrs[9] == PCRS[9]


def test_the_older_forms_of_evidence_are_read() -> None:
    mint = Mint()
    old = {
        "quote": {
            "message": list(mint.message),
            "signature": list(mint.signature),
            "pcrs": [list(value) for value in PCRS],
        },
        "report": list(mint.hcl),
        "vcek": LEAF_PEM,
    }
    assert verify(json.dumps(old).encode()).qualifying_data == NONCE
    assert verify(json.dumps({"platform": "az-snp", "evidence": mint.document}).encode()).qualifying_data == NONCE


LEAF_PEM = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(LEAF).decode() + "-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_the_runtime_data_may_be_hashed_three_ways(kind: int) -> None:
    name = {1: "sha256", 2: "sha384", 3: "sha512"}[kind]
    mint = Mint(hash_kind=kind, report_data=hashlib.new(name, Mint().runtime).digest())
    mint.verify()


# --- each link, broken -------------------------------------------------------------------------------------------


def test_runtime_data_of_another_machine_is_refused() -> None:
    """An attacker keeps a genuine report, and brings a key of its own."""
    refused(Mint(report_data=hashlib.sha256(b"another").digest()).verify, Reason.RUNTIME_DATA_MISMATCH)


def test_report_data_beyond_the_hash_must_be_zero() -> None:
    stuffed = hashlib.sha256(Mint().runtime).digest() + b"\x01" * 32
    refused(Mint(report_data=stuffed).verify, Reason.RUNTIME_DATA_MISMATCH)


def test_a_quote_by_another_key_is_refused() -> None:
    refused(Mint(signer=rsa.generate_private_key(65537, 2048)).verify, Reason.SIGNATURE_INVALID)


def test_a_quote_over_another_nonce_keeps_its_nonce() -> None:
    assert Mint(message=quote(nonce=b"other")).verify().qualifying_data == b"other"


def test_other_pcr_values_than_quoted_are_refused() -> None:
    altered = (*PCRS[:9], bytes(32), *PCRS[10:])
    refused(Mint(pcrs=altered).verify, Reason.PCR_MISMATCH)


def test_the_hardware_report_is_verified_like_any_other() -> None:
    data = json.dumps(Mint().document).encode()
    with pytest.raises(EvidenceRejected) as caught:
        verify_vtpm(data, AUTHORITY.endorsements(LEAF), AT)
    assert caught.value.reason is Reason.ROOT_UNTRUSTED


# --- policy ------------------------------------------------------------------------------------------------------


def test_another_guest_is_refused() -> None:
    other = [*PCRS[:9], bytes(32), *PCRS[10:]]
    verified = Mint(message=quote(other), pcrs=tuple(other)).verify()
    refused(lambda: judge_vtpm(verified, policy(), AT), Reason.PCR_NOT_ACCEPTED)


def test_a_pcr_that_is_not_quoted_is_refused() -> None:
    few = quote(select=b"\x10\x00\x00")  # PCR 4 alone
    for pcrs in (tuple(PCRS), (PCRS[4],)):
        verified = Mint(message=few, pcrs=pcrs).verify()
        assert set(verified.pcrs) == {4}
        refused(lambda verified=verified: judge_vtpm(verified, policy(), AT), Reason.PCR_NOT_ACCEPTED)


def test_secure_boot_and_what_lies_beneath_are_judged() -> None:
    off = json.dumps({"keys": [jwk(AK)], "vm-configuration": {"secure-boot": False}}).encode()
    verified = Mint(runtime=off).verify()
    refused(lambda: judge_vtpm(verified, policy(), AT), Reason.SECURE_BOOT_OFF)
    judge_vtpm(verified, policy(secure_boot="any"), AT)
    refused(lambda: judge_vtpm(Mint().verify(), policy(sev_snp=strict(genoa=None)), AT), Reason.PRODUCT_NOT_ACCEPTED)


# --- parsing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        b"",
        quote()[:-1],
        quote(tail=b"\0"),
        b"\0" + quote()[1:],
        quote().replace(b"\x80\x18", b"\x80\x19", 1),
        quote(select=b"\0\0\0"),
        quote().replace(struct.pack(">IH", 1, 0x000B), struct.pack(">IH", 1, 0x000C), 1),
        quote().replace(struct.pack(">IH", 1, 0x000B), struct.pack(">IH", 2, 0x000B), 1),
        bytes(5000),
    ],
)
def test_quotes_that_are_none_are_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        parse_quote(message)


def test_quotes_cut_anywhere_are_malformed() -> None:
    whole = quote()
    for size in range(len(whole)):
        with pytest.raises(Malformed):
            parse_quote(whole[:size])


@pytest.mark.parametrize(
    "mint",
    [
        Mint(kind=1),
        Mint(hash_kind=9),
        Mint(padding=b"\x01"),
        Mint(header=b"HCLB" + bytes(28)),
        Mint(header=struct.pack("<4s7I", b"HCLA", 1, 1236, 2, 0, 0, 0, 0)),
        Mint(header=struct.pack("<4s7I", b"HCLA", 3, 1236 + len(Mint.runtime), 2, 0, 0, 0, 0)),
        Mint(header=struct.pack("<4s7I", b"HCLA", 1, 1236 + len(Mint.runtime), 2, 0, 1, 0, 0)),
        Mint(runtime=b"[]"),
        Mint(runtime=b'{"keys": [], "keys": []}'),
        Mint(runtime=json.dumps({"keys": []}).encode()),
        Mint(runtime=json.dumps({"keys": [jwk(AK), jwk(AK)]}).encode()),
        Mint(runtime=json.dumps({"keys": [jwk(AK, "HCLEkPub")]}).encode()),
        Mint(runtime=json.dumps({"keys": [{**jwk(AK), "e": "Aw"}]}).encode()),
        Mint(runtime=json.dumps({"keys": [jwk(rsa.generate_private_key(65537, 1024))]}).encode()),  # noqa: S505
        Mint(padding=bytes(20_000)),
    ],
)
def test_paravisor_reports_that_are_none_are_malformed(mint: Mint) -> None:
    with pytest.raises(Malformed):
        parse_hcl(mint.hcl)


@pytest.mark.parametrize(
    "changes",
    [
        {"tpm_quote": None},
        {"tpm_quote": {}},
        {"hcl_report": 7},
        {"hcl_report": "***"},
        {"hcl_report": [256]},
        {"hcl_report": [True]},
        {"quote": {}},
        {"td_quote": "00"},
        {"vcek": 1.5},
    ],
)
def test_documents_that_are_no_evidence_are_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        Mint().verify(**changes)


def test_too_few_pcrs_and_too_large_evidence() -> None:
    with pytest.raises(Malformed):
        replace(Mint(), pcrs=tuple(PCRS[:23])).verify()
    with pytest.raises(TooLarge):
        verify(b" " * 2_000_000)


def test_a_vtpm_signs_at_most_what_fits_it() -> None:
    assert len(qualifying_data(bytes(64))) == 32
    assert qualifying_data(b"\x01" * 64) != qualifying_data(b"\x02" * 64)


# --- TDX beneath -------------------------------------------------------------------------------------------------

TDX = next((case for case in cases("azure-vtpm") if case.name == "vtpm-azure-tdx"), None)
SAME_PROCESSOR = next((case for case in cases("tdx") if case.name == "tdx-gcp-v4-uptodate"), None)


@NEEDS_VECTORS
@pytest.mark.skipif(TDX is None or SAME_PROCESSOR is None, reason="the cases that this combines are not there")
def test_a_td_beneath_is_judged_like_any_other_td() -> None:
    """This machine's quote with collateral of its processor's kind: what is wrong with it then is the TD itself."""
    assert TDX is not None
    assert SAME_PROCESSOR is not None
    given = {**files(TDX), "collateral.json": files(SAME_PROCESSOR)["collateral.json"]}
    at = conformance.Case.model_validate_json((TDX / "case.json").read_bytes()).at
    found = conformance.outcome("azure-vtpm", given, ("tcb:OutOfDate", "advisories:any"), at)
    assert found.reasons == (Reason.SEPT_VE_DISABLE_OFF,)
    without = conformance.outcome("azure-vtpm", files(TDX), (), at)
    assert without.reasons[0] == Reason.COLLATERAL_MISSING
