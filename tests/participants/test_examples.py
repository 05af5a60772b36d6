"""Examples: JSON lines and Parquet in, two splits out; errors that name a row and never what it says."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from participants import examples
from participants.examples import Example, FolderFiles, parse_examples, read_examples, splits
from superswarm.errors import UnusableDataset
from superswarm.io.memory import MemoryFiles

CANARY = "canary-5f1b"
FOUR = [Example(f"p{i}", f"c{i}") for i in range(4)]


def lines(found: Sequence[Example]) -> bytes:
    return b"\n".join(json.dumps({"prompt": one.prompt, "completion": one.completion}).encode() for one in found)


def table(**columns: object) -> bytes:
    raw = io.BytesIO()
    parquet.write_table(pa.table(columns), raw, row_group_size=3)
    return raw.getvalue()


def rows(found: Sequence[Example], **more: object) -> bytes:
    return table(prompt=[one.prompt for one in found], completion=[one.completion for one in found], **more)


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_other_fields_and_blank_lines_are_ignored(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "p", "completion": "c", "qtype": "x"})
    file = write(tmp_path / "d.jsonl", b"\xef\xbb\xbf" + line.encode(), "", "  ", line, "")
    assert read_examples(file) == [Example("p", "c")] * 2
    assert len(read_examples(file, most=1)) == 1


def test_parquet_gives_the_same_examples(tmp_path: Path) -> None:
    many = [Example(f"p{i}", f"c{i}") for i in range(1000)]
    file = write(tmp_path / "d.parquet", rows(many, extra=list(range(1000))))
    assert read_examples(file) == many
    assert read_examples(file, most=300) == many[:300]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_may_have_any_of_arrows_types(kind: pa.DataType) -> None:
    raw = table(prompt=pa.array(["p", "q"], kind), completion=pa.array(["c", "c"], kind))
    assert list(parse_examples(io.BytesIO(raw), "d.parquet")) == [Example("p", "c"), Example("q", "c")]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (f'{{"prompt": "{CANARY}"', "not JSON"),
        (f'["{CANARY}"]', "not a JSON object"),
        (f'{{"prompt": "{CANARY}"}}', "completion"),
        (f'{{"prompt": 1, "completion": "{CANARY}"}}', "prompt"),
        (f'{{"prompt": "{CANARY}", "completion": " "}}', "completion"),
        (f'{{"prompt": "{CANARY}", "completion": "\\ud800"}}', "surrogate"),
        (CANARY.encode() + b"\xff", "UTF-8"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_faults_name_the_line_and_not_its_content(tmp_path: Path, bad: str | bytes, fault: str) -> None:
    good = json.dumps({"prompt": "p", "completion": "c"})
    with pytest.raises(UnusableDataset, match=rf"d\.jsonl, line 3: .*{fault}") as caught:
        read_examples(write(tmp_path / "d.jsonl", good, "", bad))
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("prompts", "completions", "fault"),
    [
        (["p", CANARY], ["c", None], "completion is missing"),
        (["p", " "], ["c", CANARY], "prompt is missing"),
        ([1, 2], ["c", CANARY], "row 1: the field prompt"),
    ],
)
def test_faults_name_the_row_and_not_its_content(
    prompts: list[object], completions: list[object], fault: str
) -> None:
    with pytest.raises(UnusableDataset, match=rf"^d\.parquet, .*{fault}") as caught:
        list(parse_examples(io.BytesIO(table(prompt=prompts, completion=completions)), "d.parquet"))
    assert CANARY not in str(caught.value)


def test_texts_that_are_no_utf8_are_said() -> None:
    torn = pa.array([b"p", CANARY.encode() + b"\xff"]).view(pa.string())
    with pytest.raises(UnusableDataset, match=r"d\.parquet, row 2: not UTF-8") as caught:
        list(parse_examples(io.BytesIO(table(prompt=torn, completion=["c", "c"])), "d.parquet"))
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_columns_must_be_there_once() -> None:
    with pytest.raises(UnusableDataset, match="column completion"):
        list(parse_examples(io.BytesIO(table(prompt=["p"], answer=["c"])), "d.parquet"))
    raw = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, names=["prompt", "prompt", "completion"]), raw)
    with pytest.raises(UnusableDataset, match="column prompt"):
        list(parse_examples(raw, "d.parquet"))


def test_empty_missing_and_endless_files_are_unusable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for empty in (write(tmp_path / "d.jsonl", " ", ""), write(tmp_path / "d.parquet", rows([]))):
        with pytest.raises(UnusableDataset, match="no examples"):
            read_examples(empty)
    with pytest.raises(UnusableDataset, match="cannot be read"):
        read_examples(tmp_path / "missing.jsonl")
    with pytest.raises(UnusableDataset, match="cannot be read"):
        read_examples(tmp_path)
    monkeypatch.setattr(examples, "EXAMPLE_BYTES", 1000)
    with pytest.raises(UnusableDataset, match="line 1: longer"):
        read_examples(write(tmp_path / "d.jsonl", "x" * 2000))
    with pytest.raises(UnusableDataset, match="row 1: longer"):
        read_examples(write(tmp_path / "d.parquet", rows([Example("x" * 600, "y" * 600)])))
    monkeypatch.setattr(examples, "EXAMPLES", 3)
    (tmp_path / "one").mkdir()
    with pytest.raises(UnusableDataset, match="more than 3"):
        splits(FolderFiles(write(tmp_path / "one" / "d.parquet", rows(FOUR)).parent))


@given(st.binary(max_size=300))
def test_any_bytes_are_examples_or_unusable(raw: bytes) -> None:
    for name in ("d.jsonl", "d.parquet"):
        with suppress(UnusableDataset):
            for example in parse_examples(io.BytesIO(raw), name):
                assert example.prompt.strip()
                assert example.completion.strip()


@given(st.data())
def test_damaged_parquet_is_examples_or_unusable(data: st.DataObject) -> None:
    raw = bytearray(rows(FOUR))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    for damaged in (bytes(raw), bytes(raw[:cut])):
        with suppress(UnusableDataset):
            list(parse_examples(io.BytesIO(damaged), "d.parquet"))


texts = st.text(min_size=1, max_size=20).filter(str.strip)


@given(st.lists(st.builds(Example, texts, texts), min_size=1, max_size=10))
def test_both_forms_hold_any_text(found: list[Example]) -> None:
    assert list(parse_examples(io.BytesIO(lines(found)), "d.jsonl")) == found
    assert list(parse_examples(io.BytesIO(rows(found)), "d.parquet")) == found


# --- the layout of a dataset -------------------------------------------------------------------------------------


def test_a_folder_has_its_splits(folder: Path) -> None:
    write(folder / "train.jsonl", lines(FOUR[:3]))
    write(folder / "test.parquet", rows(FOUR[3:]))
    write(folder / "README.md", "what it is")
    assert splits(FolderFiles(folder)) == (FOUR[:3], FOUR[3:])


def test_shards_are_read_in_the_order_of_their_names(folder: Path) -> None:
    write(folder / "train-1.parquet", rows(FOUR[2:]))
    write(folder / "train-0.jsonl", lines(FOUR[:2]))
    write(folder / "test-a.jsonl", lines(FOUR[:1]))
    write(folder / "test-b.jsonl", lines(FOUR[1:2]))
    assert splits(FolderFiles(folder)) == (FOUR, FOUR[:2])


def test_a_dataset_in_memory_is_read_alike() -> None:
    with MemoryFiles() as files:
        for name, raw in (("train.parquet", rows(FOUR)), ("test.jsonl", lines(FOUR[:1]))):
            with files.create(name, len(raw)) as file:
                file.write(raw)
        assert splits(files) == (FOUR, FOUR[:1])


MANY = [Example(f"prompt {i}", f"c{i}") for i in range(1000)]


@pytest.mark.parametrize("names", [["anything.jsonl"], ["train.jsonl"], ["train-0.jsonl", "train-1.jsonl"]])
def test_a_tenth_is_held_out_where_nothing_is_named_test(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        write(folder / name, lines(MANY[number :: len(names)]))
    train, test = splits(FolderFiles(folder))
    assert {*train, *test} == set(MANY)
    assert len(train) + len(test) == 1000
    assert 60 < len(test) < 140


def test_an_example_never_changes_its_side(folder: Path) -> None:
    write(folder / "all.jsonl", lines(MANY))
    train, test = splits(FolderFiles(folder))
    more = [Example(one.prompt, "another answer") for one in MANY]
    write(folder / "all.jsonl", lines([*more, *MANY[:500]]))
    train_later, test_later = splits(FolderFiles(folder))
    assert {one.prompt for one in train_later} == {one.prompt for one in train}
    assert {one.prompt for one in test_later} == {one.prompt for one in test}


def test_the_held_out_tenth_is_fixed_for_ever(folder: Path) -> None:
    write(folder / "all.jsonl", lines(MANY[:100]))
    held_out = [one.completion for one in splits(FolderFiles(folder))[1]]
    assert held_out == ["c2", "c18", "c27", "c48", "c62", "c84", "c98", "c99"]


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["train.jsonl", "validation.jsonl"], r"validation\.jsonl is named neither"),
        (["train.jsonl", "train_2.jsonl"], r"train_2\.jsonl is named neither"),
        (["train.jsonl", "train.parquet"], "two forms"),
        (["train.jsonl", "train-1.jsonl", "test.jsonl"], "whole and in parts"),
        (["test.jsonl"], r"no train\.jsonl"),
        (["test-1.jsonl", "test-2.jsonl"], r"no train\.jsonl"),
        ([], r"no train\.jsonl"),
        (["data.csv"], r"no train\.jsonl"),
    ],
)
def test_layouts_that_leave_doubt_are_refused(folder: Path, names: list[str], fault: str) -> None:
    for name in names:
        write(folder / name, lines(FOUR))
    with pytest.raises(UnusableDataset, match=fault):
        splits(FolderFiles(folder))


def test_too_little_to_hold_any_out_is_said(folder: Path) -> None:
    write(folder / "all.jsonl", lines(FOUR[:1]))
    with pytest.raises(UnusableDataset, match="too small"):
        splits(FolderFiles(folder))
    with pytest.raises(UnusableDataset, match="cannot be read"):
        FolderFiles(folder / "nowhere")


@pytest.mark.parametrize("empty", ["train.jsonl", "test.jsonl"])
def test_an_empty_split_is_said(folder: Path, empty: str) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        write(folder / name, b"" if name == empty else lines(FOUR))
    with pytest.raises(UnusableDataset, match="no examples"):
        splits(FolderFiles(folder))
