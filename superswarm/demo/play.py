"""The demo from beginning to end: found, train together, train alone, compare."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from superswarm.demo import consortium
from superswarm.demo.baseline import BASE
from superswarm.demo.consortium import OPERATOR, Founded, Hospital, Running
from superswarm.demo.stage import WORK_SECONDS, Stage, StepFailed, stage
from superswarm.errors import Unavailable
from superswarm.io.console import duration, messages, output, size, table

TOGETHER = "together"
SHOWN = frozenset(
    {"joined", "round begins", "update", "round closed", "left out", "not admitted", "result delivered"}
)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; None where the demo's own value stands."""

    data: Path | None = None
    model: str | None = None
    rounds: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    max_examples: int | None = None
    alone: bool = True
    json: Path | None = None


def play(folder: Path, options: Options) -> None:
    """Run the demo in this folder. Raises StepFailed with the exit code of the command that failed."""
    from participants.models import demo_model, locate
    from superswarm.demo import members
    from superswarm.demo.job import demo_tables

    began = time.monotonic()
    question: str | None
    with stage(folder, say) as on:
        if options.data is None:
            hospitals, question = members.made_up(on.home("data"))
        else:
            hospitals, question = members.from_folder(options.data), None
        model = locate(options.model) if options.model is not None else demo_model()
        tables = demo_tables(
            made_up=options.data is None,
            rounds=options.rounds,
            training=options.training,
            max_examples=options.max_examples,
        )
        with chapter("The members found a consortium"):
            founded = consortium.found(on, hospitals, model.resolve(), tables)
        watch = Watch(on)
        with chapter("Everybody starts their programs"):
            running = consortium.start(on, founded)
        with chapter("They train together"):
            train(on, founded, running, watch)
        federated = open_result(on, hospitals[0])
        on.children.stop()
        adapters: dict[str, Path | None] = {BASE: None}
        if options.alone:
            with chapter("Each member trains alone, as many steps"):
                adapters |= train_each_alone(on, founded)
        adapters[TOGETHER] = federated
        with chapter("The adapters are compared on held-out questions"):
            report = compare(on, founded, adapters, question)
        show_report(report, hospitals, question)
        say(f"took {duration(time.monotonic() - began)}; the federation's programs held at most {size(watch.peak)}")
        if options.json is not None:
            options.json.write_text(json.dumps(report, indent=2))


def say(text: str) -> None:
    """A line of the story; what was asked for, the tables, goes to standard output."""
    messages().print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def chapter(title: str) -> Iterator[None]:
    """Head a part of the story, and say how long it took."""
    began = time.monotonic()
    messages().rule(title, align="left")
    yield
    say(f"({duration(time.monotonic() - began)})")


class Watch:
    """Watches what the stage's programs hold in memory, all together (proportional set size where there is one)."""

    def __init__(self, on: Stage) -> None:
        self._stage, self.peak = on, 0

    def look(self) -> None:
        """Take one reading, in bytes."""
        total = 0
        for child in self._stage.children:
            try:
                process = psutil.Process(child.pid)
                for one in (process, *process.children(recursive=True)):
                    total += one.memory_info().rss
            except psutil.Error:
                continue  # it has just ended
        self.peak = max(self.peak, total)


def train(on: Stage, founded: Founded, running: Running, watch: Watch) -> None:
    """Start the granted run, follow it in the aggregator's log, and wait for its end."""
    on.run(OPERATOR, "run", "start", founded.grant, "--manifest", founded.manifest, "--state", running.relay_state)
    while True:
        for entry in running.aggregator.news():
            event = entry.get("event")
            if event in SHOWN:
                say(f"{'aggregator':>10} | {event} {told(entry)}")
            elif event == "run finished":
                return
            elif str(event).startswith("the run failed"):
                raise StepFailed(f"{event}; see {running.aggregator.log}", 6)
        on.check()
        watch.look()
        time.sleep(0.2)


def told(entry: Mapping[str, Any]) -> str:
    """A log entry's own fields, for people."""
    return " ".join(f"{name}={value}" for name, value in entry.get("fields", {}).items())


def open_result(on: Stage, hospital: Hospital) -> Path:
    """Open the sealed result as one of its recipients does; the adapter's weights."""
    home = on.home(hospital.id)
    keys, results = f"{hospital.id}.keys", home / "results"
    say(on.run(hospital.id, "result", "list", results).rstrip())
    sealed = sorted(results.glob("*.result"))
    if not sealed:
        raise Unavailable(f"{hospital.name} received no result")
    on.run(hospital.id, "result", "open", sealed[-1], "--keys", keys, "--out", home / "adapter")
    return home / "adapter" / "adapter_model.safetensors"


def train_each_alone(on: Stage, founded: Founded) -> dict[str, Path]:
    """Every member's adapter without the others, two at a time."""

    def one(hospital: Hospital) -> Path:
        adapter = on.home(hospital.tee) / "alone.safetensors"
        words = ("demo", "alone", "--consortium", founded.manifest, "--model", founded.model)
        splits = ("--train", hospital.train, "--test", hospital.test)
        on.run(hospital.tee, *words, *splits, "--out", adapter, seconds=WORK_SECONDS)
        return adapter

    with ThreadPoolExecutor(max_workers=len(founded.hospitals)) as pool:
        adapters = pool.map(one, founded.hospitals)
        return {f"{h.name} alone": adapter for h, adapter in zip(founded.hospitals, adapters, strict=True)}


def compare(on: Stage, founded: Founded, adapters: Mapping[str, Path | None], question: str | None) -> dict[str, Any]:
    """Score all adapters on all held-out splits."""
    words: list[str | Path] = ["demo", "score"]
    words += [f"{name}={file or ''}" for name, file in adapters.items()]
    words += ["--consortium", founded.manifest, "--model", founded.model, "--threads", "2"]
    for hospital in founded.hospitals:
        words += ["--split", f"{hospital.name}={hospital.test}"]
    if question is not None:
        words += ["--question", question]
    return dict(json.loads(on.run("researcher", *words, seconds=WORK_SECONDS)))


def show_report(report: Mapping[str, Any], hospitals: tuple[Hospital, ...], question: str | None) -> None:
    """The table that the demo is about, and the question that one hospital alone could not answer."""
    names = [hospital.name for hospital in hospitals]
    rows = []
    for adapter, scores in report["scores"].items():
        losses = [scores[name]["loss"] for name in names]
        right = sum(scores[name]["exact"] for name in names)
        asked = sum(scores[name]["examples"] for name in names)
        rows.append([adapter, *losses, sum(losses) / len(losses), f"{right} of {asked}"])
    table("Held-out loss a token (lower is better)", ["adapter", *names, "mean", "right word for word"], rows)
    if question is not None:
        output().print(f"\nA question about another hospital: {question}", markup=False, highlight=False)
        table("", ["adapter", "answer"], [[name, texts[0]] for name, texts in report["answers"].items()])
