"""Parsers of SEV-SNP, vTPM and certificates under random and grammar-made input: only our errors, and quickly.

`make fuzz` sets SUPERSWARM_FUZZ for a hundred times as many examples.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from superswarm.attestation.certificates import load_certificate, load_chain, load_crl
from superswarm.attestation.snp.chain import published, read_snp, verification_faults
from superswarm.attestation.snp.report import Product, parse_report
from superswarm.attestation.snp.table import parse_table
from superswarm.attestation.snp.vek import AMD, parse_vek
from superswarm.attestation.vtpm.evidence import parse_evidence
from superswarm.attestation.vtpm.hcl import parse_hcl
from superswarm.attestation.vtpm.quote import parse_quote
from superswarm.consortium.policy import PlatformPolicies
from superswarm.errors import EvidenceRejected, Malformed
from tests.attestation import test_vtpm as vtpm
from tests.attestation.snp_mint import Authority, report, sign

EXAMPLES = settings(
    max_examples=20_000 if os.environ.get("SUPERSWARM_FUZZ") else 200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
AUTHORITY = Authority()
KEY, LEAF = AUTHORITY.endorse()
CRL = AUTHORITY.crl(7)
GOOD: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "report": (parse_report, sign(report(), KEY)),
    "quote": (parse_quote, vtpm.quote()),
    "hcl": (parse_hcl, vtpm.Mint().hcl),
    "table": (parse_table, struct.pack("<16sII", bytes(range(16)), 48, 4) + bytes(24) + b"cert"),
    "certificate": (load_certificate, LEAF),
    "chain": (load_chain, vtpm.LEAF_PEM.encode()),
    "crl": (load_crl, CRL),
    "evidence": (parse_evidence, vtpm.Mint().json),
}


def only_ours(parse: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(Malformed, EvidenceRejected):
        parse(data)


@pytest.mark.parametrize("name", GOOD)
@EXAMPLES
@given(data=st.binary(max_size=4096))
def test_random_bytes(name: str, data: bytes) -> None:
    only_ours(GOOD[name][0], data)


@pytest.mark.parametrize("name", GOOD)
@EXAMPLES
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=8)), min_size=1, max_size=6), cut=st.data()
)
def test_good_bytes_with_pieces_replaced_cut_and_repeated(
    name: str, edits: list[tuple[int, bytes]], cut: st.DataObject
) -> None:
    parse, good = GOOD[name]
    parse(good)
    data = bytearray(good)
    for at, piece in edits:
        at %= len(data) + 1
        data[at : at + len(piece)] = piece
    begin = cut.draw(st.integers(0, len(data)))
    kind = cut.draw(st.sampled_from(["whole", "cut", "doubled"]))
    only_ours(parse, bytes({"whole": data, "cut": data[:begin], "doubled": data + data[begin:]}[kind]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=12,
)


@EXAMPLES
@given(changes=st.dictionaries(st.sampled_from(sorted(vtpm.Mint().document)), JSON), quote=JSON)
def test_vtpm_documents_with_values_of_other_kinds(changes: dict[str, object], quote: object) -> None:
    document = {**vtpm.Mint().document, **changes}
    only_ours(parse_evidence, json.dumps(document).encode())
    only_ours(parse_evidence, json.dumps({**document, "tpm_quote": quote}).encode())
    inner = document["tpm_quote"]
    if isinstance(inner, dict):
        only_ours(parse_evidence, json.dumps({**document, "tpm_quote": {**inner, "pcrs": quote}}).encode())


@EXAMPLES
@given(runtime=JSON)
def test_runtime_data_of_other_kinds(runtime: object) -> None:
    only_ours(parse_hcl, vtpm.Mint(runtime=json.dumps(runtime).encode()).hcl)
    for name in ("keys", "vm-configuration", "user-data"):
        document = {**json.loads(vtpm.Mint().runtime), name: runtime}
        only_ours(parse_hcl, vtpm.Mint(runtime=json.dumps(document).encode()).hcl)


@EXAMPLES
@given(
    extensions=st.dictionaries(
        st.sampled_from([AMD + arc for arc in ("1", "2", "4", "5", *(f"3.{n}" for n in range(1, 10)))]),
        st.binary(max_size=70),
    )
)
def test_endorsement_keys_with_other_extensions(extensions: dict[str, bytes]) -> None:
    certificate = load_certificate(LEAF)
    certificate = type(certificate)(
        **{
            name: getattr(certificate, name)
            for name in ("raw", "key", "spki", "subject", "serial", "begins", "ends", "is_ca", "signs_certificates")
        },
        extensions={**certificate.extensions, **extensions},
    )
    with contextlib.suppress(Malformed):
        parse_vek(certificate)


@EXAMPLES
@given(
    at=st.integers(0, 2**40),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "version": st.integers(2, 5),
            "vmpl": st.integers(0, 3),
            "policy": st.integers(0, 2**26 - 1).map(lambda bits: bits | 1 << 17),
            "platform": st.integers(0, 2**64 - 1),
            "cpuid": st.tuples(*[st.integers(0, 255)] * 3),
            "key_info": st.sampled_from([0, 1, 2, 4, 28]),
            "current": st.binary(min_size=8, max_size=8),
            "committed": st.binary(min_size=8, max_size=8),
            "algorithm": st.integers(0, 2**32 - 1),
            "mitigations": st.tuples(*[st.integers(0, 2**64 - 1)] * 2),
        },
    ),
)
def test_whole_reports_of_every_shape_are_judged_without_surprise(at: int, fields: dict[str, object]) -> None:
    from superswarm.attestation import baseline
    from superswarm.attestation.snp.judge import policy_faults

    with contextlib.suppress(Malformed, EvidenceRejected):
        data = sign(report(**fields), KEY)
        claims = read_snp(data, AUTHORITY.endorsements(LEAF, CRL), at, AUTHORITY.roots)
        list(verification_faults(claims, at, AUTHORITY.roots))
        list(policy_faults(claims, baseline.snp_policy(frozenset(["product:milan"])), at))


@EXAMPLES
@given(data=st.dictionaries(st.sampled_from(["sev_snp", "tdx", "azure_vtpm", "nvidia", "other"]), JSON))
def test_policies_of_every_shape_are_refused_in_words(data: dict[str, object]) -> None:
    with contextlib.suppress(ValueError):
        PlatformPolicies.model_validate(data)


def test_input_over_its_cap_is_not_looked_at() -> None:
    big = bytes(50_000_000)
    for parse, _ in GOOD.values():
        with pytest.raises(Malformed):
            parse(big)
    assert published(Product.MILAN, "ark")
