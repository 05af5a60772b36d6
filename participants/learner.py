"""The trainer's learner: fine-tuning, seen as the protocol sees it, and what it is loaded from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from participants.config import TrainerConfig
from participants.examples import Example, read_examples, splits
from participants.finetune import Finetuner
from participants.loading import LoadedBase, load_base, load_snapshot
from participants.models import locate, unsealed
from participants.unsealing import DataFiles, locations, look, unseal_into
from superswarm.consortium.approval import ApprovedManifest
from superswarm.consortium.manifest import Asset, Job
from superswarm.errors import Misconfigured, NotATee, Unavailable
from superswarm.io.memory import MemoryFiles
from superswarm.io.progress import progress
from superswarm.io.tee import require_no_leaking_gpu
from superswarm.updates.adapter import Adapter, AdapterSpec
from superswarm.values import Digest


class FinetuneLearner:
    """LoRA fine-tuning on one member's data, with a progress bar a round."""

    def __init__(self, finetuner: Finetuner, steps: int) -> None:
        self._finetuner, self._steps = finetuner, steps

    @property
    def spec(self) -> AdapterSpec:
        return self._finetuner.spec

    @property
    def examples(self) -> int:
        return self._finetuner.examples

    def initial(self) -> Adapter:
        return self._finetuner.initial()

    def train(self, adapter: Adapter, round_: int) -> tuple[Adapter, float]:
        with progress(f"round {round_}", self._steps) as bar:
            trained, report = self._finetuner.train(adapter, round_, lambda *_: bar.advance())
        return trained, report.loss

    def evaluate(self, adapter: Adapter) -> float:
        return self._finetuner.evaluate(adapter).loss


class JobLearners:
    """Loads what a job asks for: the approved base model, the member's data, LoRA on top.

    Plain files lie where the configuration says. Sealed ones are decrypted into memory, with the keys that their
    owners released for this run.
    """

    def __init__(self, config: TrainerConfig, manifest: ApprovedManifest, notify: Callable[..., None]) -> None:
        """Raises Misconfigured where the configuration lacks what a job needs, NotATee for a GPU that leaks."""
        self._config, self._manifest, self._notify = config, manifest.manifest, notify
        self._places = locations(config.asset)
        if not manifest.simulated and config.device != "cpu":
            require_no_leaking_gpu(self._manifest.workloads.trainer.policy)
        for job in self._manifest.jobs:
            self._require_settings(job)

    def load(self, job: Job, keys: Mapping[str, bytes]) -> FinetuneLearner:
        """Load a job's model and data. `keys` are those of its sealed assets, by name."""
        self._notify("loading", job=job.name)
        train, test = self._examples(job, keys)
        base = self._base(job, keys)
        if base.device.type not in ("cpu", "cuda") and not self._manifest.simulated:
            raise NotATee(f"a {base.device.type} device attests nothing: configure device = 'cpu'")
        threads = self._config.threads or os.cpu_count() or 1
        finetuner = Finetuner(job, base, train, test, threads=threads)
        return FinetuneLearner(finetuner, job.training.local_steps)

    def _base(self, job: Job, keys: Mapping[str, bytes]) -> LoadedBase:
        asset, precision = self._base_model(job), job.training.precision
        expected, device = Digest.parse(asset.digest), self._config.device
        if not asset.sealed:
            place = self._places.get(asset.name) or self._config.model or ""
            return load_base(locate(place), expected, device=device, precision=precision)
        fill = partial(unseal_into, asset=asset, location=self._places[asset.name], key=keys[asset.name])
        with unsealed(fill, expected) as copy:
            return load_snapshot(copy, device=device, precision=precision)

    def _examples(self, job: Job, keys: Mapping[str, bytes]) -> tuple[list[Example], list[Example]]:
        """The member's sealed datasets, one after the other; the configured files where the manifest has none."""
        if self._config.train is not None and self._config.test is not None:
            return read_examples(self._config.train), read_examples(self._config.test)
        train: list[Example] = []
        test: list[Example] = []
        for asset in self._datasets(job):
            with MemoryFiles() as files:
                unseal_into(DataFiles(files), asset, self._places[asset.name], keys[asset.name])
                parts = splits(files)
            train += parts[0]
            test += parts[1]
        return train, test

    def _base_model(self, job: Job) -> Asset:
        asset = self._manifest.asset(job.base_model)
        if asset is None:
            raise RuntimeError("an approved manifest names its base models")
        return asset

    def _datasets(self, job: Job) -> list[Asset]:
        return [asset for asset in self._manifest.sealed_for(self._config.member, job) if asset.kind == "dataset"]

    def _require_settings(self, job: Job) -> None:
        """Say what is missing before a run is under way, and before any key is asked for."""
        base, datasets = self._base_model(job), self._datasets(job)
        if not base.sealed and base.name not in self._places and (self._config.model is None):
            raise Misconfigured(f"say where the base model lies: model, or asset {base.name}=PLACE")
        for asset in (*([base] if base.sealed else []), *datasets):
            if asset.name not in self._places:
                raise Misconfigured(f"say where the sealed asset {asset.name} lies: asset {asset.name}=PLACE")
            self._look(asset)
        plain = [self._config.train, self._config.test]
        if datasets and any(plain):
            raise Misconfigured("the manifest names sealed data for this member: leave train and test away")
        if not datasets and not all(plain):
            raise Misconfigured("the manifest names no sealed data for this member: give train and test")

    def _look(self, asset: Asset) -> None:
        try:
            look(asset, self._places[asset.name])
        except Unavailable as error:  # it is needed when a run begins, not now
            self._notify("asset not reached", asset=asset.name, why=str(error))
