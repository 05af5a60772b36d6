"""Every way in which evidence can fail verification, minted: name, expected reason, evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from minting import DAY, DAYS, NOW, flip, machine

from superswarm.attestation import simulated_pki as pki
from superswarm.attestation.evidence import Evidence
from superswarm.attestation.reasons import Reason
from superswarm.attestation.simulated_quote import QuotingEnclave

M, OTHER = machine("alice"), machine("mallory")
A, B = M.authority, OTHER.authority


def with_tcb(**other: Any) -> Evidence:
    return M.evidence(endorsements=M.endorse(tcb_info=pki.tcb_info(**({"at": NOW, "days": DAYS} | other))))


def with_qe(**other: Any) -> Evidence:
    return M.evidence(endorsements=M.endorse(qe_identity=pki.qe_identity(**({"at": NOW, "days": DAYS} | other))))


def edited(document: str, old: str, new: str) -> Evidence:
    """A TCB document that its signer wrote otherwise."""
    make = {"tcb_info": pki.tcb_info, "qe_identity": pki.qe_identity}[document]
    text = make(at=NOW, days=DAYS)
    assert old in text
    return M.evidence(endorsements=M.endorse(**{document: text.replace(old, new)}))


def with_crl(**crls: bytes) -> Evidence:
    return M.evidence(endorsements=M.endorse(**crls))


def attributes(text: str) -> Evidence:
    return M.evidence(td_attributes=bytes.fromhex(text))


def enclave(key: Any = None, chain: bytes | None = None, **other: bytes) -> Evidence:
    pck = M.platform.key if key is None else key
    return M.evidence(enclave=QuotingEnclave.start(pck, M.platform.chain if chain is None else chain, **other))


def leaf_of(begin: int, days: int) -> Evidence:
    leaf = A.certify_platform(M.platform.key, at=begin, valid_days=days)
    return enclave(chain=pki.pem(leaf, A.platforms_certificate, A.root_certificate))


def pck_signs(document: str, text: str) -> Evidence:
    """What whoever extracts one machine's PCK key could do: declare that machine's TCB current for ever."""
    parts = {
        document: text.encode(),
        f"{document}_issuer_chain": M.platform.chain,
        f"{document}_signature": pki.sign_raw(M.platform.key, text.encode()),
    }
    return M.altered(**parts)


def forged_root() -> Evidence:
    """The pinned key in a certificate that the key's owner never signed."""
    name = "INSECURE development root CA"
    issuer = pki.Issuer(name, B.root.key)
    forged = issuer.certify(name, A.root.key.public_key(), at=NOW, days=10, authority=True)
    start = QuotingEnclave.start(M.platform.key, pki.pem(M.leaf, A.platforms_certificate, forged))
    signed_by = pki.pem(A.signer_certificate, forged)
    stapled = dict(M.platform.endorsements) | {
        "tcb_info_issuer_chain": signed_by,
        "qe_identity_issuer_chain": signed_by,
        "pck_crl_issuer_chain": pki.pem(A.platforms_certificate, forged),
    }
    return M.evidence(enclave=start, endorsements=stapled)


def two_roots() -> Evidence:
    """A second certificate of the pinned root, genuine, at the end of one of the chains."""
    second = A.root.certify(A.root.name, A.root.key.public_key(), at=NOW, days=10, authority=True)
    return M.altered(tcb_info_issuer_chain=pki.pem(A.signer_certificate, second))


def plain_leaf() -> Evidence:
    leaf = A.platforms.certify("x", M.platform.key.public_key(), at=NOW, days=9, authority=False)
    return enclave(chain=pki.pem(leaf, A.platforms_certificate, A.root_certificate))


def unknown_module() -> Evidence:
    """TCB info that knows TDX modules by version, and a quote of version 2."""
    module = '{"id":"TDX_01","mrsigner":"' + "0" * 96 + '","attributes":"' + "0" * 16 + '","attributesMask":"'
    module += (
        "F" * 16 + '","tcbLevels":[{"tcb":{"isvsvn":0},"tcbDate":"2026-01-01T00:00:00Z","tcbStatus":"UpToDate"}]}'
    )
    text = pki.tcb_info(at=NOW, days=DAYS).replace('"tdxModuleIdentities":[]', f'"tdxModuleIdentities":[{module}]')
    return M.evidence(endorsements=M.endorse(tcb_info=text), tee_tcb_svn=b"\x05\x02" + bytes(14))


def altered_quote(byte: int) -> Evidence:
    evidence = M.evidence()
    return dataclasses.replace(evidence, quote=flip(evidence.quote, 8 * byte))


REVOKED, EXPIRED, BAD_CRL = Reason.CERTIFICATE_REVOKED, Reason.COLLATERAL_EXPIRED, Reason.CRL_INVALID
CHAIN, SIGNATURE, COLLATERAL = Reason.CHAIN_INVALID, Reason.SIGNATURE_INVALID, Reason.COLLATERAL_INVALID
MODULE, RESERVED = Reason.MODULE_NOT_ACCEPTED, Reason.ATTRIBUTES_RESERVED
FOREIGN = pki.pem(B.signer_certificate, B.root_certificate)
PAST, FUTURE = NOW - 9 * DAY, NOW + 9 * DAY

FAILURES: dict[str, tuple[Reason, Callable[[], Evidence]]] = {
    # revocation
    "PCK revoked": (REVOKED, lambda: with_crl(pck_crl=A.platforms.revoke([M.leaf], at=NOW, days=9))),
    "platform CA revoked": (
        REVOKED,
        lambda: with_crl(root_crl=A.root.revoke([A.platforms_certificate], at=NOW, days=9)),
    ),
    "TCB signer revoked": (REVOKED, lambda: with_crl(root_crl=A.root.revoke([A.signer_certificate], at=NOW, days=9))),
    "root revoked": (REVOKED, lambda: with_crl(root_crl=A.root.revoke([A.root_certificate], at=NOW, days=9))),
    # time
    "TCB info expired": (EXPIRED, lambda: with_tcb(at=PAST, days=1)),
    "QE identity expired": (EXPIRED, lambda: with_qe(at=PAST, days=1)),
    "TCB info not begun": (COLLATERAL, lambda: with_tcb(at=FUTURE)),
    "QE identity not begun": (COLLATERAL, lambda: with_qe(at=FUTURE)),
    "root CRL expired": (EXPIRED, lambda: with_crl(root_crl=A.root.revoke((), at=PAST, days=1))),
    "PCK CRL expired": (EXPIRED, lambda: with_crl(pck_crl=A.platforms.revoke((), at=PAST, days=1))),
    "root CRL not begun": (BAD_CRL, lambda: with_crl(root_crl=A.root.revoke((), at=FUTURE, days=1))),
    "PCK CRL not begun": (BAD_CRL, lambda: with_crl(pck_crl=A.platforms.revoke((), at=FUTURE, days=1))),
    "PCK certificate expired": (Reason.CERTIFICATE_EXPIRED, lambda: leaf_of(NOW - 20 * DAY, 10)),
    "PCK certificate not begun": (Reason.CERTIFICATE_NOT_YET_VALID, lambda: leaf_of(FUTURE, 10)),
    # CRLs
    "root CRL of another root": (BAD_CRL, lambda: with_crl(root_crl=B.root.revoke((), at=NOW, days=9))),
    "PCK CRL of another CA": (BAD_CRL, lambda: with_crl(pck_crl=B.platforms.revoke((), at=NOW, days=9))),
    "PCK CRL is the root's": (BAD_CRL, lambda: with_crl(pck_crl=A.root.revoke((), at=NOW, days=9))),
    "root CRL is the PCK's": (BAD_CRL, lambda: with_crl(root_crl=A.platforms.revoke((), at=NOW, days=9))),
    # chains
    "other root": (Reason.ROOT_UNTRUSTED, OTHER.evidence),
    "root forged around the pinned key": (CHAIN, forged_root),
    "two certificates of the root": (CHAIN, two_roots),
    "PCK signs TCB info": (CHAIN, lambda: pck_signs("tcb_info", pki.tcb_info(at=NOW, days=9))),
    "PCK signs QE identity": (CHAIN, lambda: pck_signs("qe_identity", pki.qe_identity(at=NOW, days=9))),
    "TCB signer of another root": (CHAIN, lambda: M.altered(tcb_info_issuer_chain=FOREIGN)),
    "QE signer of another root": (CHAIN, lambda: M.altered(qe_identity_issuer_chain=FOREIGN)),
    "TCB signer alone": (CHAIN, lambda: M.altered(tcb_info_issuer_chain=pki.pem(A.signer_certificate))),
    "TCB signer is the platform CA": (
        CHAIN,
        lambda: M.altered(tcb_info_issuer_chain=pki.pem(A.platforms_certificate, A.root_certificate)),
    ),
    "another root's signer under ours": (
        CHAIN,
        lambda: M.altered(tcb_info_issuer_chain=pki.pem(B.signer_certificate, A.root_certificate)),
    ),
    "PCK of another CA": (
        CHAIN,
        lambda: enclave(chain=pki.pem(OTHER.leaf, A.platforms_certificate, A.root_certificate)),
    ),
    "PCK alone": (CHAIN, lambda: enclave(chain=pki.pem(M.leaf))),
    "another's CA for the PCK CRL": (
        CHAIN,
        lambda: M.altered(pck_crl_issuer_chain=pki.pem(B.platforms_certificate, A.root_certificate)),
    ),
    "PCK without Intel's extension": (CHAIN, plain_leaf),
    # signatures
    "QE report signed by another key": (SIGNATURE, lambda: enclave(key=OTHER.platform.key)),
    "TCB info unsigned": (SIGNATURE, lambda: M.altered(tcb_info_signature=bytes(64))),
    "QE identity unsigned": (SIGNATURE, lambda: M.altered(qe_identity_signature=bytes(64))),
    "TCB info's signature cut short": (COLLATERAL, lambda: M.altered(tcb_info_signature=bytes(63))),
    "attestation key altered": (SIGNATURE, lambda: altered_quote(48 + 584 + 4 + 70)),
    "TD report altered": (SIGNATURE, lambda: altered_quote(200)),
    # TCB
    "TCB Revoked": (Reason.TCB_STATUS, lambda: with_tcb(status="Revoked")),
    "QE Revoked": (Reason.TCB_STATUS, lambda: with_qe(status="Revoked")),
    "below every TCB level": (Reason.TCB_UNRECOGNISED, lambda: with_tcb(sgx_svn=1)),
    "below every QE level": (Reason.TCB_UNRECOGNISED, lambda: edited("qe_identity", '"isvsvn":1', '"isvsvn":9')),
    "unknown TCB status": (COLLATERAL, lambda: with_tcb(status="Splendid")),
    "TDX below every TCB level": (Reason.TCB_UNRECOGNISED, lambda: with_tcb(tdx_svn=1)),
    "current TDX below every TCB level": (
        Reason.TCB_UNRECOGNISED,
        lambda: M.evidence(
            endorsements=M.endorse(tcb_info=pki.tcb_info(at=NOW, days=DAYS, tdx_svn=1)),
            tee_tcb_svn=b"\0\0\x01" + bytes(13),
            mr_service_td=bytes(48),
        ),
    ),
    "TDX module that TCB info does not know": (Reason.TCB_UNRECOGNISED, unknown_module),
    "TCB info of another PCE": (COLLATERAL, lambda: edited("tcb_info", '"pceId":"0000"', '"pceId":"0001"')),
    "TCB info of another model": (COLLATERAL, lambda: edited("tcb_info", pki.FMSPC.hex().upper(), "00" * 6)),
    "TCB info of SGX": (COLLATERAL, lambda: edited("tcb_info", '"TDX"', '"SGX"')),
    "QE identity of SGX": (COLLATERAL, lambda: edited("qe_identity", "TD_QE", "QE")),
    "TCB info is not JSON": (COLLATERAL, lambda: M.evidence(endorsements=M.endorse(tcb_info="{"))),
    "QE identity is not JSON": (COLLATERAL, lambda: M.evidence(endorsements=M.endorse(qe_identity="{"))),
    "TCB info is not UTF-8": (COLLATERAL, lambda: M.altered(tcb_info=b"\xff")),
    # quoting enclave and module
    "QE of another signer": (MODULE, lambda: edited("qe_identity", pki.QE_SIGNER.hex().upper(), "00" * 32)),
    "another product than the QE": (MODULE, lambda: edited("qe_identity", '"isvprodid":2', '"isvprodid":9')),
    "QE with another MISCSELECT": (
        MODULE,
        lambda: edited("qe_identity", '"miscselect":"00000000"', '"miscselect":"01000000"'),
    ),
    "QE in debug": (MODULE, lambda: enclave(attributes=b"\x13" + bytes(15))),
    "QE with other attributes": (MODULE, lambda: enclave(attributes=b"\x01" + bytes(15))),
    "TDX module of another signer": (MODULE, lambda: M.evidence(mr_signer_seam=b"\x01" * 48)),
    "TDX module with attributes": (MODULE, lambda: M.evidence(seam_attributes=b"\x01" * 8)),
    # attributes of the trust domain
    "debug": (Reason.DEBUG, lambda: attributes("0100001000000000")),
    "SEPT_VE_DISABLE off": (Reason.SEPT_VE_DISABLE_OFF, lambda: attributes("0000000000000000")),
    "migratable": (Reason.MIGRATION_AGENT, lambda: attributes("0000003000000000")),
    "service TD bound": (Reason.SERVICE_TD_BOUND, lambda: M.evidence(mr_service_td=b"\x01" * 48)),
    "reserved attribute 1": (RESERVED, lambda: attributes("0200001000000000")),
    "reserved attribute 32": (RESERVED, lambda: attributes("0000001001000000")),
}


def without(name: str) -> Evidence:
    return M.evidence(endorsements={k: v for k, v in M.platform.endorsements if k != name})


def every_failure() -> dict[str, tuple[Reason, Callable[[], Evidence]]]:
    missing = {
        f"without {name}": (Reason.COLLATERAL_MISSING, lambda name=name: without(name))
        for name, _ in M.platform.endorsements
    }
    return FAILURES | missing
