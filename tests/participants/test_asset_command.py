"""`superswarm asset`: what an owner does with a dataset or a base model, and what it is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from participants.sealing import select
from superswarm import cli
from superswarm.assets.container import Kind
from superswarm.errors import Error, Malformed, Misconfigured, UnsafeModel, UnusableDataset
from superswarm.io.sealing import load_asset_key
from superswarm.values import SIMULATED_WARNING

PASSPHRASE = "correct horse battery staple"
EXAMPLE = b'{"prompt": "canary", "completion": "c"}\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a dataset of two files, and a base model of two shards that is never loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr("superswarm.crypto.passphrase.LOG_N", 4)
    for name in ("records/train.jsonl", "records/year=2024/part.parquet", "one.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(EXAMPLE * 100)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "README.md").write_text("not loaded")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    for shard in shards:
        (model / shard).write_bytes(b"weights" * 200_000)
    return tmp_path


def run(*args: str) -> int:
    return cli.run(["asset", *args])


def seal(source: str, *more: str, kind: str = "dataset") -> int:
    return run("seal", source, "--kind", kind, "--owner", "north", "--out", "x.sealed", "--key", "x.key", *more)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("source", "kind"), [("records", "dataset"), ("one.jsonl", "dataset"), ("model", "model")])
def test_seal_verify_unseal(source: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal(source, kind=kind) == 0
    digest = capsys.readouterr().out.strip()  # standard output has the digest and nothing else
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert run("verify", "x.sealed", "--digest", digest) == 0
    assert capsys.readouterr().out.strip() == digest
    assert run("unseal", "x.sealed", "--key", "x.key", "--out", "out") == 0
    expected = tree(folder / source) if (folder / source).is_dir() else {source: (folder / source).read_bytes()}
    expected.pop("README.md", None)  # nothing that a trainer loads
    assert tree(folder / "out") == expected
    assert b"canary" not in (folder / "x.sealed").read_bytes()


def test_a_gguf_file_is_a_model(folder: Path) -> None:
    (folder / "m.gguf").write_bytes(b"GGUF")
    assert seal("m.gguf", kind="model") == 0
    assert run("unseal", "x.sealed", "--key", "x.key", "--out", "out") == 0
    assert tree(folder / "out") == {"m.gguf": b"GGUF"}


def test_the_key_file_has_what_a_broker_needs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("model", "--json", "--version", "2024-11", kind="model") == 0
    said = json.loads(capsys.readouterr().out)
    key = load_asset_key(folder / "x.key", PASSPHRASE)
    assert (said["asset"], said["digest"], said["kind"]) == (key.asset, str(key.digest), key.kind)
    assert (said["owner"], said["version"], said["demo"]) == ("north", "2024-11", key.demo)
    assert key.key.hex() not in json.dumps(said)


def test_a_demo_is_said_loudly_by_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("records", "--demo") == 0
    assert SIMULATED_WARNING in capsys.readouterr().err
    for command in ("inspect", "verify"):
        assert run(command, "x.sealed") == 0
        assert SIMULATED_WARNING in capsys.readouterr().err
    assert load_asset_key(Path("x.key"), PASSPHRASE).demo


def test_an_asset_is_no_demo_unless_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("records") == 0
    assert not load_asset_key(Path("x.key"), PASSPHRASE).demo
    assert SIMULATED_WARNING not in capsys.readouterr().err


def test_inspect_shows_the_header_and_takes_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    seal("records")
    Path("x.key").unlink()
    capsys.readouterr()
    assert run("inspect", "x.sealed", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: shown[name] for name in ("kind", "owner", "version", "size", "demo", "whole")} == {
        "kind": "dataset",
        "owner": "north",
        "version": "1",
        "size": 1 << 20,
        "demo": False,
        "whole": True,
    }
    with Path("x.sealed").open("ab") as file:
        file.write(b"!")
    assert run("inspect", "x.sealed") == 0
    assert "not whole" in capsys.readouterr().err


def test_verify_refuses_another_asset(capsys: pytest.CaptureFixture[str]) -> None:
    seal("records")
    assert run("verify", "x.sealed", "--digest", f"sha256:{'0' * 64}") == 3
    assert run("verify", "x.sealed", "--digest", "nonsense") == 2
    with Path("x.sealed").open("r+b") as file:
        file.truncate(5000)
    assert run("verify", "x.sealed") == 3
    assert run("verify", "absent.sealed") == 5
    assert "x.sealed" in capsys.readouterr().err


def test_what_no_trainer_reads_is_said_before_the_manifest_names_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal("records") == 0
    assert "not read by superswarm's trainers: year=2024/part.parquet" in flat(capsys.readouterr().err)
    (folder / "records/train.jsonl").rename(folder / "records/north.jsonl")
    (folder / "records/south.jsonl").write_bytes(EXAMPLE)
    for name in ("x.sealed", "x.key"):
        (folder / name).unlink()
    assert seal("records") == 0
    assert "will refuse this dataset" in flat(capsys.readouterr().err)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_left_out_files_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "records/.git").mkdir()
    (folder / "records/.DS_Store").touch()
    seal("records")
    assert "not sealed: .DS_Store, .git" in capsys.readouterr().err


@pytest.mark.parametrize(("passphrase", "code"), [("another one altogether", 2), ("", 2)])
def test_a_wrong_passphrase_opens_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, passphrase: str, code: int
) -> None:
    seal("records")
    monkeypatch.setenv("SUPERSWARM_PASSPHRASE", passphrase)
    assert run("unseal", "x.sealed", "--key", "x.key", "--out", "out") == code
    assert not (folder / "out").exists()


def test_the_key_of_another_asset_opens_nothing(folder: Path) -> None:
    seal("records")
    Path("x.sealed").rename("y.sealed")
    Path("x.key").rename("y.key")
    seal("model", kind="model")
    assert run("unseal", "y.sealed", "--key", "x.key", "--out", "out") == 4
    assert not (folder / "out").exists()


# --- what is not sealed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "content"), [("evil.py", ""), ("pytorch_model.bin", "")])
def test_models_that_could_run_code_are_refused(folder: Path, name: str, content: str) -> None:
    (folder / "model" / name).write_text(content)
    with pytest.raises(UnsafeModel):
        select(folder / "model", "model")
    assert seal("model", kind="model") == 3
    assert not (folder / "x.sealed").exists()


def test_models_that_name_code_are_refused(folder: Path) -> None:
    (folder / "model/config.json").write_text('{"auto_map": {"AutoModel": "evil--x.Model"}}')
    with pytest.raises(UnsafeModel):
        select(folder / "model", "model")


@pytest.mark.parametrize(("kind", "error"), [("dataset", UnusableDataset), ("model", Malformed)])
def test_what_is_neither(folder: Path, kind: Kind, error: type[Error]) -> None:
    (folder / "file").write_bytes(b"x")
    (folder / "empty").mkdir()
    for name in ("file", "empty"):
        with pytest.raises(error):
            select(folder / name, kind)


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "train.jsonl", "nowhere"])
def test_links_are_not_followed(folder: Path, target: str) -> None:
    (folder / "records/link").symlink_to(target)
    with pytest.raises(Misconfigured, match="link"):
        select(folder / "records", "dataset")


@pytest.mark.parametrize("name", ["with space.jsonl", "ü.jsonl", "a\nb.jsonl", "end."])
def test_names_that_no_asset_takes_are_said(folder: Path, name: str) -> None:
    (folder / "records" / name).touch()
    with pytest.raises(Misconfigured, match="Rename it"):
        select(folder / "records", "dataset")


def test_a_folder_that_is_too_deep(folder: Path) -> None:
    (folder / "records" / "/".join("d" * 20)).mkdir(parents=True)
    with pytest.raises(Misconfigured):
        select(folder / "records", "dataset")


# --- hosted elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture
def host(folder: Path) -> Iterator[str]:
    """The current folder behind http, by a server that knows no ranges."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def copyfile(self, source: object, outputfile: object) -> None:
            try:
                super().copyfile(source, outputfile)  # type: ignore[type-var]
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_ciphertext_may_lie_anywhere(host: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seal("records")
    digest = capsys.readouterr().out.strip()
    fsspec.filesystem("memory").pipe("/bucket/x.sealed", (folder / "x.sealed").read_bytes())
    for number, location in enumerate((f"{host}/x.sealed", "memory://bucket/x.sealed")):
        assert run("inspect", location) == 0
        assert run("verify", location, "--digest", digest) == 0
        assert run("unseal", location, "--key", "x.key", "--out", f"out{number}") == 0
        assert tree(folder / f"out{number}") == tree(folder / "records")
    assert run("verify", f"{host}/absent") == 6


def test_a_host_that_substitutes_is_noticed(host: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seal("records")
    digest = capsys.readouterr().out.strip()
    Path("x.sealed").unlink()
    Path("x.key").rename("true.key")
    seal("model", kind="model")
    assert run("verify", f"{host}/x.sealed", "--digest", digest) == 3
    assert run("unseal", f"{host}/x.sealed", "--key", "true.key", "--out", "out") == 4
    assert not (folder / "out").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["seal"], ["inspect"], ["verify"], ["unseal"]):
        assert run(*arguments, "--help") == 0
        assert "sealed" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("where", ["records", "records/year=2024", "./records/../records"])
def test_neither_key_nor_ciphertext_goes_into_the_folder_that_is_sealed(
    where: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(folder)
    for out, key in ((f"{where}/x.sealed", "x.key"), ("x.sealed", f"{where}/x.key")):
        assert run("seal", "records", "--kind", "dataset", "--owner", "north", "--out", out, "--key", key) == 2
        assert "write it elsewhere" in capsys.readouterr().err
    assert tree(folder) == before


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no examples"), (b"canary\n", "line 1: not JSON"), (b'{"text": "canary"}\n', "line 1: the field prompt")],
)
def test_what_trainers_will_refuse_is_said_when_it_is_sealed(
    content: bytes, why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "records" / "train.jsonl").write_bytes(content)
    assert seal("records") == 0
    said = capsys.readouterr().err
    assert "will refuse this dataset" in said
    assert why in said
    assert "canary" not in said


def test_an_empty_shard_is_no_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "records" / "train.jsonl").rename(folder / "records" / "train-0.jsonl")
    (folder / "records" / "train-1.jsonl").write_bytes(b"")
    assert seal("records") == 0
    assert "refuse" not in capsys.readouterr().err


def test_an_error_names_the_sealed_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert seal("records") == 0
    raw = (folder / "x.sealed").read_bytes()
    (folder / "cut.sealed").write_bytes(raw[:-1])
    (folder / "altered.sealed").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert run("verify", "cut.sealed") == 3
    assert "cut.sealed: " in capsys.readouterr().err
    assert run("unseal", "altered.sealed", "--key", "x.key", "--out", "out") == 4
    assert "altered.sealed: " in capsys.readouterr().err
    assert run("verify", "x.sealed", "--digest", "9f3c") == 2
    assert "--digest: " in capsys.readouterr().err


def card(**changed: str) -> int:
    flags = {"name": "records", "source": "x", "release-to": "north", "until": "2130-01-01", "times": "1", **changed}
    return run("card", "x.sealed", *(word for flag, value in flags.items() for word in (f"--{flag}", value)))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"until": "2020-12-31"}, "has passed"),
        ({"until": "31.12.2130"}, "release.not_after"),
        ({"name": "Base 1"}, "name: must be 1 to 32 lower-case letters, digits and hyphens"),
        ({"release-to": "North"}, "release.members.0: must be 1 to 32 lower-case"),
    ],
)
def test_terms_that_cannot_be_are_refused_before_anything_is_read(
    changed: dict[str, str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert card(**changed) == 2  # and there is no x.sealed
    assert why in capsys.readouterr().err


def test_a_card_has_the_terms_that_were_typed(folder: Path) -> None:
    assert seal("records") == 0
    assert card() == 0
    assert 'not_after = "2130-01-01"' in (folder / "records.asset.toml").read_text()
