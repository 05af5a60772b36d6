"""Commented manifests to begin with, one for each scenario. What is left to fill in says what belongs there."""

from __future__ import annotations

from typing import Literal

Scenario = Literal["solo", "duo", "consortium"]
Attestation = Literal["simulated", "real"]

PLACEHOLDER = "FILL IN: "
"""Begins every value that a template leaves open; `manifest check` refuses them by name."""

HEAD = """\
# A superswarm manifest: what a consortium agrees on, in one file. {title}
#
# Everything that the consortium enforces is written here: who takes part, which code may see data, what is trained,
# who receives the result, and who must sign to change any of it. A field that superswarm does not know is refused.
# Members read this file, then sign it; a program acts on it only once the signatures are complete.
#
# Wherever it says "FILL IN", something is still missing. Fill it in by hand, or with:
#   superswarm manifest draft THIS-FILE --member a.member.toml --member b.member.toml ...
# then ask what is still wrong, who will have to sign, and what you would tolerate:
#   superswarm manifest check THIS-FILE

format = "superswarm-manifest/1"
consortium = "{consortium}"  # the consortium's identity: random, and the same for ever
name = "FILL IN: the consortium's name, for people (--name)"
epoch = 1  # raised by one with each change; `superswarm manifest init --after` writes the next
attestation = "{attestation}"  # {attestation_comment}
"""

ATTESTATION_COMMENT = {
    "simulated": 'PROTECTS NOTHING: for learning, tests and demonstrations. "real" needs TEE hardware',
    "real": "never changes; every trainer and the aggregator must run on the TEE hardware named below",
}

TITLE = {
    "solo": "Solo: one team, on somebody else's machines.",
    "duo": "Duo: one organisation owns the base model, another the data.",
    "consortium": "Consortium: several organisations train one adapter together.",
}

MEMBERS_HEAD = """
# --- Members -----------------------------------------------------------------------------------------------------
# Each member makes its keys with `superswarm keys new`, keeps the .keys file, and sends the .member.toml file to
# whoever writes this manifest. It is the table below, ready to paste (or `manifest draft --member FILE`).
#   id            how all other files and commands call the member; it cannot change later
#   contributes   "data" (it trains, and its data never leaves its trainer's TEE), "model" (it owns the base model),
#                 "hosting" (neither, but it helps), or several of them
"""

MEMBER = """
[[members]]  # {role}
id = "FILL IN: id of the member: lower-case letters, digits and hyphens ({role})"
name = "FILL IN: its name, for people"
contributes = {contributes}
signing_key = "FILL IN: from its .member.toml file"
encryption_key = "FILL IN: from its .member.toml file"
"""

MEMBER_AUTHORITY = """\
development_authority = "FILL IN: digest of its development authority, from `superswarm keys authority`"
"""

MEMBERS = {
    "solo": [("the team", '["data"]')],
    "duo": [("owner of the base model", '["model"]'), ("owner of the data", '["data"]')],
    "consortium": [("first organisation", '["data"]'), ("second", '["data"]'), ("third", '["data"]')],
}

COORDINATOR = """
# --- Coordinator -------------------------------------------------------------------------------------------------
# Runs the relay and the machine under the aggregator. It sees ciphertext, sizes and timing, has no vote, and may be
# one of the members.

[coordinator]
name = "FILL IN: who runs the relay, for people (--coordinator)"
"""

COORDINATOR_AUTHORITY = """\
development_authority = "FILL IN: digest of the operator's development authority (--coordinator-authority)"
"""

WORKLOADS_HEAD = """
# --- Workloads ---------------------------------------------------------------------------------------------------
# The code that may hold plaintext, by its measurement, and the platforms on which it may run. A machine that
# measures otherwise is refused: one changed line of code is another measurement.
# Every member checks it for itself{how}.
"""

WORKLOAD = """
[workloads.{role}]
platforms = {platforms}
measurements = ["FILL IN: measurement of the {role}'s code, sha384:... (--measurement)"]
"""

POLICY = """
[workloads.{role}.policy.tdx]  # what is asked of Intel TDX; what is not written here is on the strict side
modules = "any"  # versions of Intel's TDX module (MRSEAM): any that Intel's TCB status accepts, or a list
platforms = "any"  # machines (PPID, 32 hex digits), or a list: the only way to know whose hardware it is
config_ids = "any"  # MRCONFIGID, MROWNER, MROWNERCONFIG: set by the host at start
owners = "any"
owner_configs = "any"
xfam_allowed = "any"  # extended CPU features that the image may use
tcb_statuses = ["UpToDate"]
minimum_evaluation_number = "FILL IN: a number without quotes: Intel's tcbEvaluationDataNumber that is current"
collateral_maximum_age_days = 30

[[workloads.{role}.policy.tdx.images]]  # one table for each approved image
mrtd = "FILL IN: 96 hex digits: the same as in the measurement above"
rtmr0 = "FILL IN: 96 hex digits: the image's firmware configuration"
rtmr1 = "FILL IN: 96 hex digits: its kernel"
rtmr2 = "FILL IN: 96 hex digits: its command line, initial ram disk and root file system"
rtmr3 = "FILL IN: 96 hex digits: what it extends at run time; zeros if nothing"
"""

WORKLOADS_HOW = {"simulated": " (`superswarm measure --simulated`)", "real": ""}
PLATFORMS = {
    "simulated": '["simulated"]',
    "real": '["tdx"]  # or "sev-snp", "azure-vtpm": each then needs a policy table',
}

ASSETS = """
# --- Assets ------------------------------------------------------------------------------------------------------
# Base models and sealed datasets. Of a public model, the digest covers the source files (`superswarm model digest
# FOLDER`), and each trainer has a copy. What its owner sealed (`superswarm asset seal`, then `asset card`, then
# `manifest draft --asset`) is named by the sealed file's digest, with the terms on which the owner's broker releases
# the key: to whose trainers, until when, how often. A trainer refuses anything else. The owner keeps a veto over
# whatever touches its asset; "public" is for what anybody may have.

[[assets]]
name = "base"
kind = "model"
owner = {owner}
digest = "FILL IN: digest of the base model, sha256:... (--model-digest)"
source = "FILL IN: where people find it, such as a Hugging Face id (--model-source)"
"""

OWNER = {
    "solo": '"public"  # or the id of the team, for a model of its own',
    "duo": '"FILL IN: id of the member that owns the base model (--model-owner)"',
    "consortium": '"public"  # or the id of the member that owns it',
}

JOB = """
# --- Jobs --------------------------------------------------------------------------------------------------------
# What is trained: one LoRA adapter (arXiv:2106.09685) on the base model. Trainers take these values from here only.

[[jobs]]
name = "adapter"  # a run grant names it; another [[jobs]] table may train on another base model
base_model = "base"  # the name of an asset above
rounds = 3  # aggregations
seed = 1  # of the adapter's first values and of the order of examples

[jobs.lora]
rank = 8  # larger: more to learn with, more to send, and more that the adapter can remember of the data
alpha = 16.0
dropout = 0.0
target_modules = ["q_proj", "k_proj", "v_proj", "o_proj"]  # the base model's linear layers to adapt

[jobs.training]  # by each trainer, in each round
local_steps = 20  # optimiser steps
batch_size = 4  # sequences in one pass
gradient_accumulation = 1  # passes before one optimiser step
learning_rate = 0.0005
schedule = "constant"  # or "linear", "cosine": over all rounds
warmup_steps = 0
weight_decay = 0.0
max_gradient_norm = 1.0
proximal_mu = 0.0  # above: FedProx (arXiv:1812.06127), which holds training near the adapter that a round began from
max_length = 256  # tokens; longer examples are cut
precision = "auto"  # of the frozen base model: bfloat16 where the hardware has it

[jobs.evaluation]  # on each member's own held-out examples
batch_size = 8
max_examples = 1000
"""

AGGREGATION = """
# --- Aggregation -------------------------------------------------------------------------------------------------

[aggregation]
# "fedavg" is the weighted mean of the members' updates (arXiv:1602.05629): one bad member can spoil it. What resists
# (docs/aggregation.md says which, when): "norm-bound" with max_norm, or max_norm_ratio; and with weighting = "equal"
# "median", "trimmed-mean" with byzantine (how many members may send anything), "multi-krum" with byzantine, selected.
rule = "fedavg"
weighting = "examples"  # by number of examples; or "equal"
minimum_cohort = {cohort}  # members whose updates a round needs: in a smaller one, each update shows more
round_seconds = 3600  # then a round closes with those that answered, if they are enough
# Without the next table the mean update is added to the adapter. With it, the server steps by what it has seen before.
# [aggregation.optimizer]
# kind = "fedavgm"  # learning_rate, momentum; so does "nesterov" (DiLoCo); "fedadam", "fedyogi": learning_rate, beta1,
# learning_rate = 1.0  # beta2, tau
# momentum = 0.9
"""

PROTECTION = """
# --- Protection and privacy --------------------------------------------------------------------------------------

[protection]
mode = "attested"  # single updates are in the clear inside the aggregator's TEE, and nowhere else
# With mode = "masked" the aggregator sees the members' sum only (docs/secure-sums.md), and two more tables are needed:
# [protection.encoding]
# clip_norm = 1.0  # the largest L2 norm of an update; each trainer logs how much of its own was cut
# max_weight = 10000  # examples of the largest member; 1 with weighting = "equal"
# [protection.masking]
# threshold = 2  # of the members that train: more than half of them and the colluders together
# colluders = 0  # members that may pool what they know with the aggregator
# dropouts = 1  # members that may vanish in a round; minimum_cohort is from threshold to all but these
# With mode = "he" it sees not even that (docs/secure-sums-he.md); instead of masking it needs, with the same fields:
# [protection.homomorphic]
# key_holders = 3  # trainers that can decrypt a sum; with all of them updates are half as large

[privacy]
mechanism = "none"  # what the finished adapter reveals of the data is not bounded: mind who receives it

# What may leave a TEE in the clear, and to whom. What is not listed stays inside.
[metrics]
release = ["train_loss", "eval_loss", "examples", "seconds"]
granularity = "aggregate"  # over the cohort; "member" shows each member's figures
to = ["members"]  # and "operator", if the operator may see them too
"""

RESULT = """
# --- Result ------------------------------------------------------------------------------------------------------
# The adapter is born encrypted, for these members and nobody else. With approvals = 0 its key is sealed to each of them
# at once. With approvals = k it is shared among the members that contribute data or a model, and k of them approve each
# release (`superswarm result approve`); k of them together can always rebuild it.

[result]
form = "adapter"
recipients = ["FILL IN: ids of the members who receive the adapter (--recipient, once for each)"]
approvals = 0  # (--approvals)
"""

QUORUM = """
# --- Quorum ------------------------------------------------------------------------------------------------------
# How many of the members must sign to change each part, to grant a run, and to vouch for the aggregator: more
# than half, so that no two rivals can both be approved. `members` and `quorum` are the highest of all, since whoever
# changes these two could change the rest. Besides, owners of assets and contributors of data have a veto over what
# touches them, and nobody's own entry changes without its signature.

[quorum]
members = {most}
quorum = {most}
coordinator = {half}
workloads = {half}
assets = {half}
jobs = {half}
aggregation = {half}
protection = {half}
privacy = {half}
metrics = {half}
result = {half}
run = {half}  # to grant a run
aggregator = {half}  # to vouch for an aggregator before anybody sends it anything
"""


def template(scenario: Scenario, attestation: Attestation, consortium: str) -> str:
    """A commented manifest in TOML; `consortium` is its identity, 32 hex digits."""
    simulated = attestation == "simulated"
    members = MEMBERS[scenario]
    n = len(members)
    half = n // 2 + 1
    return "".join(
        [
            HEAD.format(
                title=TITLE[scenario],
                consortium=consortium,
                attestation=attestation,
                attestation_comment=ATTESTATION_COMMENT[attestation],
            ),
            MEMBERS_HEAD,
            *(
                MEMBER.format(role=role, contributes=contributes) + (MEMBER_AUTHORITY if simulated else "")
                for role, contributes in members
            ),
            COORDINATOR + (COORDINATOR_AUTHORITY if simulated else ""),
            WORKLOADS_HEAD.format(how=WORKLOADS_HOW[attestation]),
            *(_workload(role, attestation) for role in ("trainer", "aggregator")),
            ASSETS.format(owner=OWNER[scenario]),
            JOB,
            AGGREGATION.format(cohort=min(2, sum("data" in brings for _, brings in members))),
            PROTECTION,
            RESULT,
            QUORUM.format(n=n, half=half, most=half),
        ]
    )


def _workload(role: str, attestation: Attestation) -> str:
    plain = WORKLOAD.format(role=role, platforms=PLATFORMS[attestation])
    return plain + (POLICY.format(role=role) if attestation == "real" else "")
