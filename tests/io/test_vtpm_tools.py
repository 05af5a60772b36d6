"""A real TPM 2.0 in software (swtpm, tpm2-tools, where they are installed): its quotes pass and fail as they must."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from superswarm.attestation.reasons import Reason
from superswarm.attestation.vtpm.chain import qualifying_data, verify_vtpm
from superswarm.attestation.vtpm.judge import judge_vtpm
from superswarm.consortium.manifest import Platform
from superswarm.consortium.policy import AzureVtpmPolicy, PcrReference
from superswarm.errors import Environment, EvidenceRejected, Malformed, NotATee
from superswarm.io.tee import HardwareTee
from superswarm.io.vtpm import AK_HANDLE, REPORT_INDEX, VtpmAttester
from tests.attestation import test_vtpm as minted
from tests.attestation.snp_mint import AT
from tests.attestation.test_snp import strict
from tests.io.fake_nvml import FakeNvml
from tests.io.tsm_kernel import FakeKernel

NEEDED = ("swtpm", "tpm2_quote", "tpm2_createak", "tpm2_nvdefine")
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in NEEDED), reason="swtpm and tpm2-tools are not installed"
)
COLLATERAL = minted.AUTHORITY.endorsements(minted.LEAF, minted.AUTHORITY.crl())


def tool(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def free_ports() -> int:
    """A port that is free, and so is the next: swtpm takes two."""
    for _ in range(50):
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return int(port)
    raise AssertionError("no two free ports")


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A software TPM with an attestation key and a paravisor's report, where Azure keeps them."""
    folder = tmp_path_factory.mktemp("tpm")
    port = free_ports()
    listen = "type=tcp,bindaddr=127.0.0.1,port="
    options = ["--server", f"{listen}{port}", "--ctrl", f"{listen}{port + 1}", "--flags", "startup-clear"]
    server = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ["TPM2TOOLS_TCTI"] = f"swtpm:host=127.0.0.1,port={port}"
    try:
        for _ in range(100):
            try:
                tool("tpm2_getcap", "properties-fixed")
                break
            except subprocess.SubprocessError:
                time.sleep(0.1)
        tool("tpm2_createek", "-c", f"{folder}/ek", "-G", "rsa")
        tool(
            *("tpm2_createak", "-C", f"{folder}/ek", "-c", f"{folder}/ak", "-G", "rsa", "-g", "sha256"),
            *("-s", "rsassa", "-u", f"{folder}/ak.pem", "-f", "pem"),
        )
        tool("tpm2_flushcontext", "-t")
        tool("tpm2_evictcontrol", "-C", "o", "-c", f"{folder}/ak", AK_HANDLE)
        tool("tpm2_flushcontext", "-t")
        write_report(folder, report(folder))
        yield folder
    finally:
        server.terminate()
        server.wait(timeout=10)
        del os.environ["TPM2TOOLS_TCTI"]


def report(folder: Path) -> bytes:
    """A paravisor's report that vouches for this TPM's key, on minted SNP hardware."""
    key = load_pem_public_key((folder / "ak.pem").read_bytes())
    assert isinstance(key, rsa.RSAPublicKey)

    class Public:
        def public_key(self) -> rsa.RSAPublicKey:
            return key

    runtime = {"keys": [minted.jwk(Public())], "vm-configuration": {"secure-boot": True}}  # type: ignore[arg-type]
    return minted.Mint(runtime=json.dumps(runtime).encode(), padding=bytes(40)).hcl


def write_report(folder: Path, data: bytes) -> None:
    (folder / "report").write_bytes(data)
    tool("tpm2_nvdefine", "-C", "o", "-s", str(len(data)), "-a", "ownerread|ownerwrite", REPORT_INDEX)
    tool("tpm2_nvwrite", "-C", "o", "-i", str(folder / "report"), REPORT_INDEX)


def attester() -> VtpmAttester:
    return VtpmAttester(lambda _: COLLATERAL)


def verified(data: bytes, endorsements: dict[str, bytes]):
    return verify_vtpm(data, endorsements, AT, minted.AUTHORITY.roots)


def test_a_real_quote_passes_the_whole_chain(tpm: Path) -> None:
    report_data = bytes(range(64))
    evidence = attester().attest(report_data)
    assert evidence.platform is Platform.AZURE_VTPM
    proof = verified(evidence.quote, dict(evidence.endorsements))
    assert proof.qualifying_data == qualifying_data(report_data)
    pcrs = (PcrReference(index=4, allowed=(proof.pcrs[4].hex(),)),)
    judge_vtpm(proof, AzureVtpmPolicy(sev_snp=strict(), pcrs=pcrs), AT)


def test_what_the_guest_measures_later_changes_the_quote(tpm: Path) -> None:
    before = verified(attester().attest(bytes(64)).quote, COLLATERAL)
    tool("tpm2_pcrextend", "8:sha256=" + "11" * 32)
    after = verified(attester().attest(bytes(64)).quote, COLLATERAL)
    pcrs = (PcrReference(index=8, allowed=(before.pcrs[8].hex(),)),)
    policy = AzureVtpmPolicy(sev_snp=strict(), pcrs=pcrs)
    judge_vtpm(before, policy, AT)
    with pytest.raises(EvidenceRejected) as caught:
        judge_vtpm(after, policy, AT)
    assert caught.value.reasons == (Reason.PCR_NOT_ACCEPTED,)


def test_a_quote_by_another_key_of_the_same_tpm_is_refused(tpm: Path) -> None:
    document = json.loads(attester().attest(bytes(64)).quote)
    tool(
        *("tpm2_createak", "-C", f"{tpm}/ek", "-c", f"{tpm}/other", "-G", "rsa", "-g", "sha256"),
        *("-s", "rsassa", "-u", f"{tpm}/other.pem", "-f", "pem"),
    )
    tool("tpm2_flushcontext", "-t")
    files = [f"{tpm}/{name}" for name in ("message", "signature", "pcrs")]
    options = ["-m", files[0], "-s", files[1], "-f", "plain", "-o", files[2], "-F", "values"]
    tool("tpm2_quote", "-c", f"{tpm}/other", "-l", "sha256:0,1,2", "-q", "00" * 32, *options)
    tool("tpm2_flushcontext", "-t")
    message, signature, pcrs = (Path(file).read_bytes() for file in files)
    document["tpm_quote"] = {
        "message": message.hex(),
        "signature": signature.hex(),
        "pcrs": [pcrs[at : at + 32].hex() for at in range(0, len(pcrs), 32)],
    }
    with pytest.raises(EvidenceRejected) as caught:
        verified(json.dumps(document).encode(), COLLATERAL)
    assert caught.value.reasons == (Reason.SIGNATURE_INVALID,)


def test_every_byte_of_a_real_quote_counts(tpm: Path) -> None:
    evidence = attester().attest(bytes(64))
    document = json.loads(evidence.quote)
    quote = document["tpm_quote"]
    for name in ("message", "signature"):
        raw = bytes.fromhex(quote[name])
        for at in range(0, len(raw), 3):
            altered = bytearray(raw)
            altered[at] ^= 0x10
            changed = {**document, "tpm_quote": {**quote, name: altered.hex()}}
            with pytest.raises((Malformed, EvidenceRejected)):
                verified(json.dumps(changed).encode(), COLLATERAL)


def test_a_machine_without_configfs_is_asked_for_its_vtpm(tpm: Path, tmp_path: Path) -> None:
    for name, data in COLLATERAL.items():
        (tmp_path / name).write_bytes(data)
    tee = HardwareTee(tmp_path, kernel=FakeKernel(provider=""), library=FakeNvml(gpus=0))
    assert tee.platform is Platform.AZURE_VTPM
    assert dict(tee.attest(bytes(64)).endorsements) == COLLATERAL


def test_without_a_vcek_certificate_it_says_what_to_fetch(tpm: Path) -> None:
    with pytest.raises(Environment, match="collateral fetch"):
        VtpmAttester(lambda _: {}).attest(bytes(64))


def test_an_ordinary_tpm_is_no_tee(tpm: Path, tmp_path: Path) -> None:
    tool("tpm2_nvundefine", "-C", "o", REPORT_INDEX)
    try:
        with pytest.raises(Environment):
            attester()
        with pytest.raises(NotATee):  # what is said is that of the kernel's interface
            HardwareTee(None, kernel=FakeKernel(provider=""), library=FakeNvml(gpus=0))
    finally:
        write_report(tpm, report(tpm))


def test_a_paravisor_on_tdx_is_not_asked(tpm: Path) -> None:
    tool("tpm2_nvundefine", "-C", "o", REPORT_INDEX)
    whole = report(tpm)
    kind = struct.pack("<I", 2), struct.pack("<I", 4)
    at = 32 + 1184 + 8
    assert whole[at : at + 4] == kind[0]
    blank = bytearray(whole)
    blank[at : at + 4] = kind[1]
    blank[32 + 1024 : 32 + 1184] = bytes(160)
    try:
        write_report(tpm, bytes(blank))
        with pytest.raises(NotATee, match="TDX"):
            attester()
    finally:
        tool("tpm2_nvundefine", "-C", "o", REPORT_INDEX)
        write_report(tpm, whole)


def test_the_nonce_is_what_was_asked_for(tpm: Path) -> None:
    one, other = (attester().attest(bytes([value]) * 64) for value in (1, 2))
    mixed = dataclasses.replace(one, quote=other.quote)
    assert verified(mixed.quote, COLLATERAL).qualifying_data != qualifying_data(b"\x01" * 64)
