"""Claims: a job takes at most 1.0 times as long as under plain Flower, a transfer 1.15, a handshake 2 s of work.

    python -m benchmarks.overhead [job] [transfer] [handshake] [--mode attested] [--repeats 3] [--rounds 2] ...

Both sides run as separate processes on this machine and take turns; each turn starts its programs, does the job, and
stops them. A turn that was taken is kept, and a comparison that was stopped goes on. What plain Flower is and how it
is tuned: benchmarks/federation/plain.py, benchmarks/plain_flower/. The limits are those of the mode `attested`;
`masked` and `he` are compared with the same Flower, which hides nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.federation.founding import Founded, found
from benchmarks.federation.handshake import handshakes
from benchmarks.federation.modes import MODES, protected
from benchmarks.federation.ours import Ours
from benchmarks.federation.plain import POLL_SECONDS, PlainFlower
from benchmarks.federation.plan import Idle, Plan
from benchmarks.federation.times import Times
from benchmarks.journal import Journal
from benchmarks.record import RESULTS, record
from superswarm.demo.job import demo_tables
from superswarm.demo.stage import Stage, stage
from superswarm.values import Digest

CLAIMS = ("job", "transfer", "handshake")
TRANSFER_ROUNDS = 3  # the first is another on each side, the last has no successor to end it; one remains
HANDSHAKES = 5
JOB_NORM = 64.0  # an update's largest norm where it is encoded; the demo's are 13 to 22
TRANSFER_NORM = 1e6
JOB_LIMIT, TRANSFER_LIMIT, HANDSHAKE_LIMIT = 1.0, 1.15, 2.0  # of the mode `attested`


class Deployment(Protocol):
    def start(self) -> float: ...
    def stop(self) -> None: ...


@dataclass
class Turns:
    """What one side took in each of its turns."""

    starts: list[float] = field(default_factory=list)
    times: list[Times] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    @property
    def jobs(self) -> list[float]:
        return [times.job for times in self.times]

    @property
    def totals(self) -> list[float]:
        return [start + job for start, job in zip(self.starts, self.jobs, strict=True)]

    def add(self, line: Mapping[str, Any]) -> None:
        """Take a turn from its line in a journal."""
        rounds = {int(number): took for number, took in line["times"]["rounds"].items()}
        self.times.append(Times(**{**line["times"], "rounds": rounds}))
        self.starts.append(line["start"])
        self.loads.append(line["load_before"])

    def last(self, side: str) -> str:
        """The last turn in a line."""
        times, rounds = self.times[-1], {n: round(took, 2) for n, took in self.times[-1].rounds.items()}
        start = f"programs started in {self.starts[-1]:.1f} s; load {self.loads[-1]:.1f}"
        return f"{side}: {times.job:.1f} s, rounds {rounds}; {start}"

    def rounds(self, wanted: Callable[[int], bool]) -> list[float]:
        return [took for times in self.times for number, took in times.rounds.items() if wanted(number)]


@dataclass
class Turning:
    """Lets both sides do one job in turns. Each turn is a line of a journal, so that a stopped comparison goes on."""

    journal: Journal
    config: Mapping[str, Any]  # what is compared; the key of all its turns
    ours: Ours
    plain: PlainFlower
    plan: Path
    adapters: dict[str, Path] = field(default_factory=dict)  # that plain Flower made in this process, by turn

    def take(self, repeats: int) -> dict[str, Turns]:
        """`repeats` turns a side; who begins alternates. Turns that were taken before are read."""
        turns = {"superswarm": Turns(), "plain": Turns()}
        for number in range(repeats):
            order = ["superswarm", "plain"]
            for side in order if number % 2 == 0 else reversed(order):
                cell = {**self.config, "side": side, "number": number}
                line = self.journal.find(cell) or self.journal.add(cell, self._turn(side, number))
                turns[side].add(line)
                print(turns[side].last(side))
        return turns

    def _turn(self, side: str, number: int) -> dict[str, Any]:
        load = os.getloadavg()[0]
        deployment: Deployment = self.ours if side == "superswarm" else self.plain
        try:
            start = deployment.start()
            times = self.ours.run() if side == "superswarm" else self.plain.run(self.plan, f"run-{number}")
        finally:
            deployment.stop()
        if side == "plain":
            self.adapters[str(number)] = self.plain.folder / f"run-{number}" / "adapter.safetensors"
        return {"start": start, "times": asdict(times), "load_before": round(load, 1)}


def journal(options: argparse.Namespace) -> Journal:
    """Every turn of every comparison."""
    return Journal((options.out or RESULTS) / "overhead-turns.jsonl")


def limit(options: argparse.Namespace, attested: float) -> float | None:
    """What the ratio is held against; nothing is claimed of the modes that hide more."""
    return attested if options.mode == "attested" else None


def compared(name: str, ours: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    """One quantity in seconds, turn by turn: the ratio of the medians, and of each two neighbouring turns."""
    return {
        f"{name}_ratio": round(statistics.median(ours) / statistics.median(plain), 3),
        f"{name}_ratios": [round(one / other, 3) for one, other in zip(ours, plain, strict=True)],
        f"{name}_superswarm_seconds": [round(value, 2) for value in ours],
        f"{name}_plain_seconds": [round(value, 2) for value in plain],
    }


@contextmanager
def benchmark_stage(options: argparse.Namespace) -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix="superswarm-bench-", dir=options.scratch) as folder,
        stage(Path(folder) / "stage", lambda _: None) as on,
    ):
        yield on


def job(options: argparse.Namespace) -> None:
    """The demo's job, on the demo's data."""
    from participants.models import demo_model
    from superswarm.demo.members import from_folder, made_up

    with benchmark_stage(options) as on:
        hospitals = from_folder(options.data) if options.data else made_up(on.home("data"))[0]
        splits = {h.id: (str(h.train.resolve()), str(h.test.resolve())) for h in hospitals}
        steps = {"local_steps": options.steps}
        tables = demo_tables(
            rounds=options.rounds, training=steps, max_examples=options.max_examples, made_up=options.data is None
        )
        tables = protected(tables, options.mode, len(splits), clip_norm=JOB_NORM, max_weight=most_examples(splits))
        measure_job(options, on, (options.model or demo_model()).resolve(), splits, tables)


def most_examples(splits: Mapping[str, tuple[str, str]]) -> int:
    """Of one member's training split: the largest weight."""
    from participants.examples import read_examples

    return max(len(read_examples(Path(train))) for train, _ in splits.values())


def measure_job(
    options: argparse.Namespace,
    on: Stage,
    model: Path,
    splits: Mapping[str, tuple[str, str]],
    tables: Mapping[str, Any],
) -> dict[str, Any]:
    """Run the job on both sides, and hold the adapters against each other: it must be the same job."""
    from participants.models import model_digest

    founded = found(on, list(splits), model_digest(model), tables)
    folder = on.home("plain")
    plan = prepare(founded, model, splits, folder)
    ours = Ours(on, founded, folder / "plan.json", model, splits)
    plain = PlainFlower(folder, founded.members)
    config = {
        "mode": options.mode,
        "model": model.name,
        "members": len(splits),
        "rounds": plan.rounds,
        "steps_a_round": tables["jobs"][0]["training"]["local_steps"],
        "max_examples": options.max_examples,
    }
    turning = Turning(journal(options), {"claim": "job", **config}, ours, plain, folder / "plan.json")
    turns = turning.take(options.repeats)
    mine, theirs = turns["superswarm"], turns["plain"]
    return record(
        "overhead-job",
        out=options.out,
        **config,
        **compared("job", mine.jobs, theirs.jobs),
        limit=limit(options, JOB_LIMIT),
        **compared("total", mine.totals, theirs.totals),
        **compared("start", mine.starts, theirs.starts),
        handshake_over_relay_seconds=[round(t.handshake, 2) for t in mine.times],
        **agreement(on, founded, turning.adapters, plan),
        aggregator_mebibytes=max(t.aggregator_bytes for t in mine.times) >> 20,
        load_superswarm=mine.loads,
        load_plain=theirs.loads,
        poll_seconds=float(POLL_SECONDS),
        nice=os.nice(0),
    )


def prepare(founded: Founded, model: Path, splits: Mapping[str, tuple[str, str]], folder: Path) -> Plan:
    """What plain Flower gets ready-made: the model dequantised into safetensors, and the first adapter."""
    from participants.examples import read_examples
    from participants.finetune import Finetuner
    from participants.loading import load_base

    manifest = founded.manifest.manifest
    job = manifest.jobs[0]
    asset = manifest.asset(job.base_model)
    if asset is None:
        raise RuntimeError("an approved manifest names its base model")
    base = load_base(model, Digest.parse(asset.digest), device="cpu", precision=job.training.precision)
    base.model.save_pretrained(folder / "model")
    base.tokenizer.save_pretrained(folder / "model")
    train, test = next(iter(splits.values()))
    initial = Finetuner(job, base, read_examples(Path(train)), read_examples(Path(test))).initial()
    save_file(initial, folder / "initial.safetensors")
    plan = Plan(
        rounds=job.rounds,
        members=splits,
        initial=str(folder / "initial.safetensors"),
        job=job.model_dump(mode="json"),
        model=str(folder / "model"),
    )
    plan.write(folder / "plan.json")
    return plan


def agreement(on: Stage, founded: Founded, adapters: Mapping[str, Path], plan: Plan) -> dict[str, float | None]:
    """How far the two final adapters are apart, against how far training moved them.

    Of a comparison that went on after a stop, where both sides had a turn since.
    """
    member = founded.members[0]
    home = on.home(member)
    results = sorted((home / "results").glob("*.result"))
    if not results or not adapters:
        return {"adapters_apart": None, "adapters_moved": None}
    sealed, theirs = results[-1], next(iter(adapters.values()))
    on.run(member, "result", "open", sealed, "--keys", "keys", "--out", home / "adapter")
    ours, other = load_file(home / "adapter" / "adapter_model.safetensors"), load_file(theirs)
    start = load_file(plan.initial)
    apart = max(float(np.abs(ours[name] - other[name]).max()) for name in start)
    moved = max(float(np.abs(other[name] - start[name]).max()) for name in start)
    return {"adapters_apart": apart, "adapters_moved": moved}


def transfer(options: argparse.Namespace) -> None:
    """Adapters of a given size, and no training."""
    tables = demo_tables(rounds=TRANSFER_ROUNDS, training={}, max_examples=None, made_up=True)
    for members in options.members:
        chosen = protected(tables, options.mode, members, clip_norm=TRANSFER_NORM, max_weight=100 + members)
        with benchmark_stage(options) as on:
            measure_transfer(options, on, chosen, members)


def measure_transfer(
    options: argparse.Namespace, on: Stage, tables: Mapping[str, Any], members: int
) -> dict[str, Any]:
    names = [f"member-{number}" for number in range(members)]
    founded = found(on, names, Digest.of(b"no model"), tables)
    folder = on.home("plain")
    initial = Idle(options.mebibytes, options.tensors, 0).initial()
    save_file(initial, folder / "initial.safetensors")
    plan = Plan(
        rounds=int(tables["jobs"][0]["rounds"]),
        members=dict.fromkeys(names, ("", "")),
        initial=str(folder / "initial.safetensors"),
        job={},
        mebibytes=options.mebibytes,
        tensors=options.tensors,
    )
    plan.write(folder / "plan.json")
    ours, plain = Ours(on, founded, folder / "plan.json"), PlainFlower(folder, founded.members)
    config = {
        "mode": options.mode,
        "mebibytes": options.mebibytes,
        "tensors": options.tensors,
        "members": members,
    }
    turns = Turning(journal(options), {"claim": "transfer", **config}, ours, plain, folder / "plan.json").take(
        options.repeats
    )
    mine, theirs = turns["superswarm"], turns["plain"]
    return record(
        "overhead-transfer",
        out=options.out,
        **config,
        **compared("later_round", mine.rounds(lambda n: n > 1), theirs.rounds(lambda n: n > 1)),
        limit=limit(options, TRANSFER_LIMIT),
        **compared("first_round", mine.rounds(lambda n: n == 1), theirs.rounds(lambda n: n == 1)),
        **compared("whole_run", mine.jobs, theirs.jobs),
        rounds=plan.rounds,
        aggregator_mebibytes=max(t.aggregator_bytes for t in mine.times) >> 20,
        load_superswarm=mine.loads,
        load_plain=theirs.loads,
        poll_seconds=float(POLL_SECONDS),
        nice=os.nice(0),
    )


def handshake(options: argparse.Namespace) -> None:
    """The handshake's own work, all parties in one process."""
    tables = demo_tables(rounds=2, training={}, max_examples=None, made_up=True)
    for members in options.members:
        with benchmark_stage(options) as on:
            names = [f"member-{number}" for number in range(members)]
            chosen = protected(tables, options.mode, members, clip_norm=TRANSFER_NORM, max_weight=100 + members)
            founded = found(on, names, Digest.of(b"no model"), chosen)
            learners = {name: Idle(1, 4, number) for number, name in enumerate(names)}
            spent = handshakes(on, founded, learners, HANDSHAKES)
            record(
                "overhead-handshake",
                out=options.out,
                mode=options.mode,
                members=members,
                own_cpu_seconds=round(statistics.median(spent), 3),
                first_cpu_seconds=round(spent[0], 3),
                all_cpu_seconds=[round(value, 3) for value in spent],
                limit=limit(options, HANDSHAKE_LIMIT),
            )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help=f"of {', '.join(CLAIMS)}; default: all")
    parser.add_argument("--mode", choices=MODES, default="attested", help="protection that superswarm's side has")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2, help="of the job; the demo takes 5")
    parser.add_argument("--steps", type=int, default=8, help="of the job, a round; 8 is the demo's")
    parser.add_argument("--max-examples", type=int, default=None, help="held-out examples that the job scores")
    parser.add_argument("--model", type=Path, default=None, help="default: SmolLM2-135M of the demo")
    parser.add_argument("--data", type=Path, default=None, help="folders as for `superswarm demo --data`")
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--tensors", type=int, default=16, help="of the transferred adapter; few suit Flower best")
    parser.add_argument("--members", type=int, nargs="+", default=[3], help="of transfer and handshake")
    parser.add_argument("--fresh", action="store_true", help="forget turns that were taken before")
    parser.add_argument("--out", type=Path, default=None, help="folder of results and plots")
    parser.add_argument("--plot", action="store_true", help="write tables and plots, and measure nothing")
    parser.add_argument("--scratch", type=Path, default=None, help="where the benchmark's files live while it runs")
    options = parser.parse_args(arguments)
    if unknown := set(options.claims) - set(CLAIMS):
        parser.error(f"no such claim: {', '.join(sorted(unknown))}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.plot:
        from benchmarks.figures import overhead

        overhead.write(options.out or RESULTS)
        return
    if options.fresh:
        journal(options).file.unlink(missing_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    measures = {"handshake": handshake, "transfer": transfer, "job": job}
    for claim, measure in measures.items():
        if not options.claims or claim in options.claims:
            measure(options)


if __name__ == "__main__":
    main()
