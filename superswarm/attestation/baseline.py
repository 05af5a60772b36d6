"""The policy that conformance cases are judged by: the strict default, and what a case's consents add to it.

A case knows no reference values ("reference measurements count as allowed"), no floors and no lists, and its words
for consent do not cover every switch of a manifest's policy. Where real evidence of an accepted case needs a switch
that the format has no word for (SMT, more than one socket, an alias check that older firmware lacks, ciphertext
hiding, Intel's multi-package flags), the baseline accepts it. A manifest starts from the strict side of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from superswarm.consortium.policy import (
    NvidiaPolicy,
    SnpMilan,
    SnpPolicy,
    SnpProduct,
    SnpTcb,
    SnpTurin,
    TcbStatus,
    TdImage,
    TdxPolicy,
)
from superswarm.errors import Malformed

PRODUCTS = ("product:milan", "product:genoa", "product:turin")
SWITCHES = ("key:vlek", "chip:masked", "crl:missing", "crl:stale", "advisories:any")
RIMS = ("rim:driver-missing", "rim:vbios-missing")
CONSENTS = frozenset(
    (
        *PRODUCTS,
        *SWITCHES,
        *RIMS,
        *(f"vmpl:{n}" for n in range(4)),
        *(f"tcb:{status}" for status in get_args(TcbStatus)),
    )
)
OLDEST_DAYS = 3650


def check_consents(words: Iterable[str]) -> frozenset[str]:
    """The consents of a case; Malformed for a word that is not known."""
    consents = frozenset(words)
    unknown = sorted(consents - CONSENTS)
    if unknown:
        raise Malformed(f"unknown consent {unknown[0][:40]!r}")
    return consents


def snp_policy(consents: frozenset[str]) -> SnpPolicy:
    """SEV-SNP: no floors, Genoa and Turin accepted, Milan on consent."""
    zero = SnpTcb(bootloader=0, tee=0, snp=0, microcode=0)
    milan = SnpMilan(minimum_tcb=zero, minimum_firmware="0.0.0", mitigations=0, accepted_risk="arXiv:2605.12990")
    vlek = "key:vlek" in consents
    return SnpPolicy(
        milan=milan if "product:milan" in consents else None,
        genoa=SnpProduct(minimum_tcb=zero, minimum_firmware="0.0.0", mitigations=0),
        turin=SnpTurin(
            minimum_tcb=SnpTcb(fmc=0, bootloader=0, tee=0, snp=0, microcode=0),
            minimum_firmware="0.0.0",
            mitigations=0,
        ),
        keys=("vcek", "vlek") if vlek else ("vcek",),
        vlek_providers="any" if vlek else None,
        vmpls=(0, *(n for n in range(1, 4) if f"vmpl:{n}" in consents)),
        chips="any",
        masked_chip="accepted" if "chip:masked" in consents else "refused",
        smt="accepted",
        single_socket="any",
        alias_check="any",
        ciphertext_hiding="any",
        host_data="any",
        id_keys="any",
        author_keys="any",
        crl_missing="accepted" if "crl:missing" in consents else "refused",
        crl_stale="accepted" if "crl:stale" in consents else "refused",
        crl_maximum_age_days=OLDEST_DAYS,
    )


def tdx_policy(consents: frozenset[str], image: TdImage) -> TdxPolicy:
    """TDX: this image, UpToDate only, no advisories unless all are accepted."""
    accepted = tuple(status for status in get_args(TcbStatus) if f"tcb:{status}" in consents)
    return TdxPolicy(
        images=(image,),
        modules="any",
        platforms="any",
        config_ids="any",
        owners="any",
        owner_configs="any",
        xfam_allowed="any",
        tcb_statuses=("UpToDate", *(status for status in accepted if status != "UpToDate")),
        advisories_accepted="any" if "advisories:any" in consents else (),
        minimum_evaluation_number=0,
        collateral_maximum_age_days=OLDEST_DAYS,
        performance_monitoring="accepted",  # Intel's OTHER group: of no weight for the TD's security
        dynamic_platform="accepted",
        cached_keys="accepted",
        smt="accepted",
    )


def nvidia_policy(consents: frozenset[str]) -> NvidiaPolicy:
    """NVIDIA: any known device; each RIM is needed unless its lack is accepted."""
    return NvidiaPolicy(
        required=True,
        architectures=("hopper", "blackwell", "nvswitch"),
        driver_versions="any",
        vbios_versions="any",
        devices="any",
        driver_rim="any" if "rim:driver-missing" in consents else "required",
        vbios_rim="any" if "rim:vbios-missing" in consents else "required",
        revocation="any",
        collateral_maximum_age_days=OLDEST_DAYS,
    )
