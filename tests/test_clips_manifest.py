"""Manifests: three formats, one meaning; columns of numbers are arrays, the others stay what they are."""

from __future__ import annotations

import csv
import datetime
import json
import logging
import pickle
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millpond import errors
from millpond._datasets.clip_manifest import Manifest, read_manifest
from millpond._media.sidecars import SidecarStore

Rows = Sequence[dict[str, Any]]

ROWS: Rows = [
    {
        "video": f"clips/{n}.mp4",
        "caption": f'a "quoted", caption {n}',
        "label": n,
        "score": n / 2,
        "is_good": n % 2 == 0,
    }
    | {"pose": [n, n + 0.5], "cuts": [0.5] * n, "rating": None if n == 3 else n}
    for n in range(7)
]


def write_rows(path: Path, rows: Rows = ROWS) -> Path:
    """Write a manifest in the format of its suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            for row in rows:
                writer.writerow([json.dumps(v) if isinstance(v, list | bool) else v for v in row.values()])
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, as_values: Sequence[str] = ("video",)) -> Manifest:
    return read_manifest(path, SidecarStore(path.parent / "store"), as_values=as_values)


def of_text(folder: Path, text: str, suffix: str = ".jsonl") -> Manifest:
    path = folder / f"manifest{suffix}"
    path.write_text(text, encoding="utf-8")
    return read(path)


def column(manifest: Manifest, name: str) -> list[Any]:
    """All values of a column, array or not."""
    table = manifest.table
    if name in table.others:
        return [table.values(sample)[name] for sample in range(table.num_rows)]
    return list(table.take(name, np.arange(table.num_rows)))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_columns_and_values(tmp_path: Path, suffix: str) -> None:
    manifest = read(write_rows(tmp_path / f"manifest{suffix}"))
    kinds = {c.name: (c.dtype, c.shape) for c in manifest.table.columns}
    assert kinds == {"video": (None, ()), "caption": (None, ()), "label": ("int64", ()), "score": ("float64", ())} | {
        "is_good": ("bool", ()), "pose": ("float64", (2,)), "cuts": (None, ()), "rating": ("float64", ())
    }  # fmt: skip
    for name in ("video", "caption", "cuts"):
        assert column(manifest, name) == [row[name] for row in ROWS]
    for name in ("label", "score", "is_good"):
        assert np.asarray(column(manifest, name)).tolist() == [row[name] for row in ROWS]
    assert np.asarray(column(manifest, "pose")).tolist() == [row["pose"] for row in ROWS]
    assert np.flatnonzero(np.isnan(column(manifest, "rating"))).tolist() == [3]


def test_what_was_kept_is_read_again_and_made_anew_where_it_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "manifest.jsonl")
    first = read(path)
    with monkeypatch.context() as patch:
        patch.setattr("millpond._datasets.clip_manifest.open_manifest", None)  # nobody reads it
        assert read(path).table == first.table
        assert read(path).digest == first.digest
    values = Path(first.table.values_path)
    values.write_bytes(b"[" + values.read_bytes()[1:].replace(b"caption", b"capture"))
    assert column(read(path), "caption") == [row["caption"] for row in ROWS]


def test_a_manifest_that_changes_is_read_again(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "manifest.jsonl")
    first = read(path)
    write_rows(path, ROWS[:2])
    again = read(path)
    assert (first.table.num_rows, again.table.num_rows) == (7, 2)
    assert first.digest != again.digest
    assert column(first, "caption") == [row["caption"] for row in ROWS]  # for a run that goes on with what it opened


def test_a_store_that_cannot_be_written_is_replaced_by_a_temporary_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_rows(tmp_path / "manifest.jsonl")
    (tmp_path / "store").touch()
    with caplog.at_level(logging.WARNING):
        manifest = read(path)
    assert column(manifest, "label")[2] == 2
    assert "cannot keep manifests" in caplog.text


def test_a_table_travels_as_where_it_is(tmp_path: Path) -> None:
    rows = [{"video": f"{n}.mp4", "caption": "x" * 100, "n": n} for n in range(5000)]
    table = read(write_rows(tmp_path / "manifest.jsonl", rows)).table
    table.values(0)
    data = pickle.dumps(table)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert again.values(4999) == {"video": "4999.mp4", "caption": "x" * 100}
    assert again.take("n", np.asarray([7, 4999])).tolist() == [7, 4999]


@pytest.mark.parametrize(
    ("values", "dtype", "shape"),
    [
        ([1, 2, 3], "int64", ()),
        ([1, 2.5, 3], "float64", ()),
        ([True, False, True], "bool", ()),
        ([1, None, 3], "float64", ()),
        ([0.5, None, 1.5], "float64", ()),
        ([[1, 2], [3, 4], None], "float64", (2,)),
        ([[[1, 2]], [[3, 4]], [[5, 6]]], "int64", (1, 2)),
        ([1 << 53 | 1, None, 3], None, ()),  # float64 would change it
        ([1 << 70, 2, 3], None, ()),
        ([True, None, True], None, ()),
        ([True, 2, 3], None, ()),
        ([1, "two", 3], None, ()),
        ([[1], [1, 2], [3]], None, ()),
        ([[1, None], [1, 2], [3, 4]], None, ()),
        ([{"a": 1}, {"a": 2}, {"b": 3}], None, ()),
        ([None, None, None], None, ()),
    ],
)
def test_what_becomes_an_array(tmp_path: Path, values: list[Any], dtype: str | None, shape: tuple[int, ...]) -> None:
    rows = [{"video": "x.mp4", "it": value} for value in values]
    manifest = read(write_rows(tmp_path / "manifest.jsonl", rows))
    (found,) = (column for column in manifest.table.columns if column.name == "it")
    assert (found.dtype, found.shape) == (dtype, shape)
    for value, got in zip(values, column(manifest, "it"), strict=True):
        assert np.isnan(got).all() if value is None and dtype else np.asarray(got == value).all()


def test_parquet_keeps_its_dtypes_and_what_json_has_no_word_for(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 5, 17, 12, 30, tzinfo=datetime.UTC)
    odd = {"when": when, "day": when.date(), "data": b"\x00\xff", "price": Decimal("1.50")}
    odd |= {"span": datetime.timedelta(days=-1, seconds=5), "clock": datetime.time(1, 2), "tags": {"a": [1, None]}}
    columns = {name: pa.array([value]) for name, value in odd.items()}
    columns |= {"small": pa.array([7], pa.int16()), "vector": pa.array([[0.1, 0.2]], pa.list_(pa.float32(), 2))}
    pq.write_table(pa.table({"video": pa.array(["x.mp4"]), **columns}), tmp_path / "m.parquet")
    table = read(tmp_path / "m.parquet").table
    assert {c.name: c.dtype for c in table.numbers} == {"small": "int16", "vector": "float32"}
    assert table.values(0) == {"video": "x.mp4", **odd}


def test_a_column_of_paths_is_text_whatever_it_looks_like(tmp_path: Path) -> None:
    manifest = of_text(tmp_path, "video,n\n007,007\n12,012\n", ".csv")
    assert column(manifest, "video") == ["007", "12"]
    assert column(manifest, "n") == ["007", "012"]  # zeros in front: a name


def test_cells_of_a_csv_are_what_all_of_them_can_be(tmp_path: Path) -> None:
    manifest = of_text(tmp_path, "video,a,b,c,d\nx,1,true,,[1]\ny,2.5,False,word,\n", ".csv")
    assert column(manifest, "a") == [1.0, 2.5]
    assert column(manifest, "b") == [True, False]
    assert column(manifest, "c") == ["", "word"]
    assert np.isnan(column(manifest, "d")[1]).all()
    mixed = of_text(tmp_path, "video,a\nx,1\ny,true\n", ".csv")
    assert column(mixed, "a") == ["1", "true"]


def test_rows_may_lack_columns_and_lines_may_be_empty(tmp_path: Path) -> None:
    manifest = of_text(tmp_path, '\ufeff{"video": "a.mp4", "x": 1}\n\n{"caption": "no video"}\n')
    assert column(manifest, "video") == ["a.mp4", None]
    assert column(manifest, "caption") == [None, "no video"]


@pytest.mark.parametrize(
    ("text", "suffix", "match"),
    [
        ('{"video": "a"}\n{"video": ', ".jsonl", "line 2 is no JSON: "),
        ("[1]\n", ".jsonl", "line 1 is no JSON object"),
        ("[" * 100_000, ".jsonl", "line 1 is no JSON"),
        ("video,a\nx\n", ".csv", "line 2 has 1 cells, its header 2"),
        ('video,a\n"x,1\n', ".csv", "line 2: "),
        ("PAR1", ".parquet", "does not read as parquet"),
    ],
)
def test_a_row_that_does_not_parse_is_named(tmp_path: Path, text: str, suffix: str, match: str) -> None:
    with pytest.raises(errors.CorruptMedia, match=match):
        of_text(tmp_path, text, suffix)


@pytest.mark.parametrize(
    ("text", "suffix", "match"),
    [
        ("", ".jsonl", "has no rows"),
        ("video,a\n", ".csv", "has no rows"),
        ('{"video": "a", "video": "b"}\n', ".jsonl", "line 1 has 'video' twice"),
        ("video,a,a\nx,1,2\n", ".csv", "has 'a' twice in its header"),
        ("", ".txt", "its suffix is '.txt', not one of .jsonl, .csv, .parquet"),
    ],
)
def test_misuse_is_a_value_error(tmp_path: Path, text: str, suffix: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        of_text(tmp_path, text, suffix)


def test_parquet_with_a_column_twice_or_a_type_that_does_not_pass_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([pa.array(["x"]), pa.array(["y"])], names=["video", "video"]), tmp_path / "m.parquet")
    with pytest.raises(ValueError, match="column 'video' twice"):
        read(tmp_path / "m.parquet")


def test_a_manifest_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(errors.ObjectMissing, match="no file at"):
        read(tmp_path / "nowhere.jsonl")
