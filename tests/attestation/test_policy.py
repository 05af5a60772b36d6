"""Platform policies: nothing defaults to lax, an empty list is a fault, and a manifest carries them whole."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest

from superswarm.attestation import baseline
from superswarm.attestation.reasons import ADVICE, Reason
from superswarm.consortium.manifest import Manifest, Workload
from superswarm.consortium.policy import AzureVtpmPolicy, PlatformPolicies, SnpPolicy, TdxPolicy
from superswarm.errors import Malformed
from tests.consortia import DATA, TDX_POLICY, manifest_data, member

SNP = """
chips = ["{chip}"]
host_data = "any"
id_keys = "any"
author_keys = "any"
crl_maximum_age_days = 60

[genoa]
minimum_tcb = {{ bootloader = 10, tee = 0, snp = 23, microcode = 84 }}
minimum_firmware = "1.55.40"
mitigations = 0
""".format(chip="ab" * 64)


def snp() -> dict[str, Any]:
    return tomllib.loads(SNP)


def tdx() -> dict[str, Any]:
    return copy.deepcopy(TDX_POLICY)


def read(**tables: dict[str, Any]) -> PlatformPolicies:
    """As a workload of a manifest reads them, from plain data."""
    return PlatformPolicies.model_validate(tables)


def test_what_is_not_written_is_strict() -> None:
    policy = SnpPolicy.model_validate(snp())
    assert policy.keys == ("vcek",)
    assert policy.vmpls == (0,)
    assert policy.milan is None
    refused = ("masked_chip", "debug", "migration_agent", "smt", "cxl", "crl_missing", "crl_stale")
    assert {getattr(policy, name) for name in refused} == {"refused"}
    assert {policy.single_socket, policy.alias_check, policy.ciphertext_hiding} == {"required"}
    policy = TdxPolicy.model_validate(tdx())
    assert policy.tcb_statuses == ("UpToDate",)
    assert policy.advisories_accepted == ()
    refused = ("debug", "service_td", "performance_monitoring", "dynamic_platform", "cached_keys", "smt")
    assert {getattr(policy, name) for name in refused} == {"refused"}
    assert policy.sept_ve_disable == "required"


@pytest.mark.parametrize("name", ["chips", "host_data", "id_keys", "author_keys", "crl_maximum_age_days"])
def test_where_no_side_is_safe_there_is_no_default_snp(name: str) -> None:
    data = snp()
    del data[name]
    with pytest.raises(ValueError, match=name):
        SnpPolicy.model_validate(data)


@pytest.mark.parametrize("name", list(TDX_POLICY))
def test_where_no_side_is_safe_there_is_no_default_tdx(name: str) -> None:
    data = tdx()
    del data[name]
    with pytest.raises(ValueError, match=name):
        TdxPolicy.model_validate(data)


@pytest.mark.parametrize("name", ["chips", "host_data", "id_keys", "author_keys", "keys", "vmpls"])
def test_an_empty_list_is_a_fault(name: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SnpPolicy.model_validate(snp() | {name: []})


@pytest.mark.parametrize("name", ["images", "modules", "platforms", "config_ids", "owners", "tcb_statuses"])
def test_an_empty_list_is_a_fault_tdx(name: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TdxPolicy.model_validate(tdx() | {name: []})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genoa": None}, "no product"),
        ({"keys": ["vlek"]}, "vlek_providers"),
        ({"vlek_providers": ["CN=cloud"]}, "vlek_providers"),
        ({"keys": ["vlek"], "vlek_providers": "any"}, "names no chip"),
        ({"vmpls": [4]}, "less than or equal to 3"),
        ({"smt": "maybe"}, "refused"),
        ({"chips": ["ab"]}, "pattern"),
        ({"chips": "all"}, "any"),
        ({"unknown": 1}, "not permitted"),
        ({"milan": {"minimum_tcb": {}, "minimum_firmware": "1.55.0", "mitigations": 0}}, "accepted_risk"),
        ({"crl_maximum_age_days": 0}, "greater than or equal"),
        ({"crl_maximum_age_days": "30"}, "integer"),
    ],
)
def test_contradictions_and_unknown_words_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SnpPolicy.model_validate({k: v for k, v in (snp() | changes).items() if v is not None})


def test_only_turin_has_an_fmc_and_must_name_it() -> None:
    data = snp()
    data["turin"] = data["genoa"]
    with pytest.raises(ValueError, match="fmc"):
        SnpPolicy.model_validate(data)
    data["turin"] = copy.deepcopy(data["genoa"])
    data["turin"]["minimum_tcb"]["fmc"] = 1
    SnpPolicy.model_validate(data)
    data["genoa"]["minimum_tcb"]["fmc"] = 1
    with pytest.raises(ValueError, match="only Turin"):
        SnpPolicy.model_validate(data)


def test_revoked_hardware_cannot_be_accepted() -> None:
    with pytest.raises(ValueError, match="tcb_statuses"):
        TdxPolicy.model_validate(tdx() | {"tcb_statuses": ["Revoked"]})


def test_a_vtpm_needs_something_beneath_and_pcrs() -> None:
    pcrs = [{"index": 4, "allowed": ["00" * 32]}]
    AzureVtpmPolicy.model_validate({"sev_snp": snp(), "pcrs": pcrs})
    for data in ({"pcrs": pcrs}, {"sev_snp": snp(), "pcrs": []}, {"sev_snp": snp(), "pcrs": pcrs * 2}):
        with pytest.raises(ValueError, match=r"underneath|at least 1|twice"):
            AzureVtpmPolicy.model_validate(data)


# --- in the manifest ---------------------------------------------------------------------------------------------


def real(**workload: Any) -> dict[str, Any]:
    data = manifest_data(
        *(member(name, DATA, simulated=False) for name in ("alice", "bob", "carol")), attestation="real"
    )
    data["workloads"] = copy.deepcopy(data["workloads"])
    data["workloads"]["trainer"] |= workload
    return data


def test_a_real_manifest_carries_its_policies_through_its_canonical_form() -> None:
    data = real(platforms=["sev-snp", "tdx"], policy={"sev_snp": snp(), "tdx": tdx()})
    manifest = Manifest.from_data(data)
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.workloads.trainer.policy == read(sev_snp=snp(), tdx=tdx())


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"platforms": ["sev-snp"]}, "no policy.sev_snp"),
        ({"policy": None}, "no policy.tdx"),
        ({"platforms": ["tdx", "azure-vtpm"]}, "no policy.azure_vtpm"),
        ({"policy": {"tdx": TDX_POLICY, "sev_snp": snp()}}, "does not allow"),
    ],
)
def test_each_platform_has_its_policy_and_each_policy_its_platform(workload: dict[str, Any], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        Manifest.from_data(real(**workload))


def test_a_simulated_manifest_has_no_policy() -> None:
    data = manifest_data()
    data["workloads"] = copy.deepcopy(data["workloads"])
    data["workloads"]["trainer"]["policy"] = {}
    with pytest.raises(Malformed, match="no real platform"):
        Manifest.from_data(data)


def test_a_workload_reads_alone() -> None:
    """The table that `superswarm attest verify --policy` takes."""
    measurement = "sha384:" + "11" * 48
    Workload.from_data({"platforms": ["sev-snp"], "measurements": [measurement], "policy": {"sev_snp": snp()}})


# --- consents and reasons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", sorted(baseline.CONSENTS))
def test_every_consent_only_widens(word: str) -> None:
    consents = baseline.check_consents([word])
    before, after = baseline.snp_policy(frozenset()), baseline.snp_policy(consents)
    image = {"mrtd": "11" * 48, **{f"rtmr{n}": "22" * 48 for n in range(4)}}
    changed = before != after or baseline.nvidia_policy(consents) != baseline.nvidia_policy(frozenset())
    td = TdxPolicy.model_validate(tdx()).images[0]
    assert td.mrtd == image["mrtd"]
    changed |= baseline.tdx_policy(consents, td) != baseline.tdx_policy(frozenset(), td)
    assert changed or word in {"product:genoa", "product:turin", "vmpl:0", "tcb:UpToDate"}


def test_an_unknown_consent_is_refused() -> None:
    with pytest.raises(Malformed, match="unknown consent"):
        baseline.check_consents(["everything:any"])


def test_every_reason_says_who_must_act_and_what_to_do() -> None:
    assert set(ADVICE) == set(Reason)
    for reason in Reason:
        advice = reason.advice
        assert 32 <= advice.value <= 127
        assert len(advice.action) > 20
        assert advice.actor
