from __future__ import annotations

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from superswarm.errors import Malformed
from superswarm.io.parcels import from_record, sealed_array, to_record
from superswarm.wire import Parcel


@pytest.mark.parametrize("parcel", [Parcel(b"head", b"body"), Parcel(b"head"), Parcel(b""), Parcel(b"", bytes(99))])
def test_a_parcel_survives(parcel: Parcel) -> None:
    assert from_record(to_record(parcel)) == parcel


def head() -> ConfigRecord:
    return ConfigRecord({"head": b"head"})


def body(*, data: bytes = b"data", **changed: object) -> ArrayRecord:
    fields: dict[str, object] = {"dtype": "uint8", "shape": (len(data),), "stype": "superswarm.sealed/1"} | changed
    return ArrayRecord({"body": Array(**fields, data=data)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    {
        "empty": RecordDict(),
        "no head": RecordDict({"body": body()}),
        "head is text": RecordDict({"head": ConfigRecord({"head": "text"})}),
        "head has more": RecordDict({"head": ConfigRecord({"head": b"", "lr": 0.1})}),
        "head is metrics": RecordDict({"head": MetricRecord({"head": 1})}),
        "more records": RecordDict({"head": head(), "config": ConfigRecord({"lr": 0.1})}),
        "body is empty": RecordDict({"head": head(), "body": body(data=b"")}),
        "body is config": RecordDict({"head": head(), "body": ConfigRecord({"body": b"data"})}),
        "two arrays": RecordDict(
            {"head": head(), "body": ArrayRecord({"body": sealed_array(b"a"), "more": sealed_array(b"b")})}
        ),
        "numpy array": RecordDict({"head": head(), "body": body(stype="numpy.ndarray")}),
        "other dtype": RecordDict({"head": head(), "body": body(dtype="float32")}),
        "shape lies": RecordDict({"head": head(), "body": body(shape=(1 << 40,))}),
        "two axes": RecordDict({"head": head(), "body": body(shape=(2, 2))}),
    }.items(),
    ids=lambda item: item[0],
)
def test_anything_else_is_malformed(record: tuple[str, RecordDict]) -> None:
    with pytest.raises(Malformed):
        from_record(record[1])
