"""What a Parquet file unpacks to is known before it is unpacked, whatever its footer says."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lesion_core import paths, received, results, unpacked

LIMIT = 2**40


def written(table: pa.Table, **how) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **how)
    return sink.getvalue().to_pybytes()


def bound(content: bytes, enough: int = LIMIT) -> int:
    schema = pq.read_metadata(pa.BufferReader(content)).schema
    return unpacked.unpacked_bytes(content, schema, enough)


def mixed(rows: int) -> pa.Table:
    rng = np.random.default_rng(rows)
    words = ["case", "x" * 500, "", None, "site"]
    return pa.table(
        {
            "number": rng.integers(0, 9, rows),
            "score": rng.normal(size=rows),
            "same": np.zeros(rows),
            "truth": rng.random(rows) < 0.5,
            "word": pa.array([words[i] for i in rng.integers(0, 5, rows)], pa.string()),
            "unlike": pa.array([f"case{i}" for i in range(rows)], pa.string()),
            "bytes": [bytes(50) for _ in range(rows)],
            "list": [list(range(i % 5)) for i in range(rows)],
            "absent": pa.nulls(rows, pa.int64()),
        }
    )


@pytest.mark.parametrize("rows", [0, 1, 300, 20_000])
@pytest.mark.parametrize(
    "how",
    [
        {"compression": "zstd"},
        {"compression": "none", "use_dictionary": False},
        {"compression": "gzip", "data_page_version": "2.0"},
        {"compression": "snappy", "data_page_size": 1000, "row_group_size": 700},
        {"compression": "brotli", "write_statistics": False},
        {"compression": "lz4", "write_page_checksum": True},
        {"use_dictionary": False, "column_encoding": {"word": "DELTA_BYTE_ARRAY"}},
        {"use_dictionary": False, "column_encoding": {"unlike": "DELTA_LENGTH_BYTE_ARRAY"}},
    ],
)
def test_no_table_is_larger_than_was_said(rows, how, monkeypatch):
    table = mixed(rows)
    content = written(table, **how)
    said = bound(content)
    read = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    assert read.nbytes <= said
    assert bound(content, 10) > 10 or rows == 0
    for name in ("_USUAL", "_USUAL_CHUNK"):
        monkeypatch.setattr(unpacked, name, re.compile(b"never"))
    monkeypatch.setattr(unpacked, "_WALKED", [])
    monkeypatch.setattr(unpacked, "MOST_WALKED", 0)
    assert bound(content) == said  # the quick way and the thorough one agree


def test_tables_of_a_ledger_are_far_from_the_limits():
    """A dictionary counts by its longest text, not by its size times the rows."""
    pictures = [np.random.default_rng(i).bytes(40_000) for i in range(20)]
    table = pa.table({"picture": [pictures[i % 20] for i in range(2000)]})
    content = written(table, compression="zstd")
    assert table.nbytes <= bound(content, 2 * table.nbytes) < 1.1 * table.nbytes
    rows = [dict.fromkeys(results.CASES.names)] * 20_000
    content = results.table_bytes(rows, results.CASES)
    assert bound(content) < received.ALWAYS_TABLE_BYTES


def bomb(how: str) -> bytes:
    """A few kB that become gigabytes, by a footer that says otherwise."""
    if how == "dictionary":  # no lie at all: one long text, a million times
        ones = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(10**6, np.int32)), pa.array(["x" * 10**6])
        )
        return written(pa.table({"loss": ones}), compression="zstd", write_statistics=False)
    table = pa.table({"loss": ["x" * (300 << 20)]})
    content = written(table, compression="zstd", use_dictionary=False, write_statistics=False)
    honest = zigzag(pq.read_metadata(pa.BufferReader(content)).row_group(0).total_byte_size)
    assert content.count(honest) == 2
    return content.replace(honest, b"\x82" + b"\x80" * (len(honest) - 2) + b"\x00")


def zigzag(value: int) -> bytes:
    value, found = value << 1, b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


@pytest.mark.parametrize("how", ["dictionary", "page"])
def test_a_few_bytes_that_become_gigabytes_are_one_line(tmp_path, how):
    file = tmp_path / results.GRADIENTS_FILE
    file.write_bytes(bomb(how))
    assert file.stat().st_size < 100_000
    said = pq.read_metadata(file)
    assert said.row_group(0).total_byte_size < 2**21  # as if there were nothing to fear
    code = (
        "import sys; from pathlib import Path; from lesion_core.results import read_gradients\n"
        "try: read_gradients(Path(sys.argv[1]))\n"
        "except ValueError as error: print(error)"
    )

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        preexec_fn=little_memory,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "bytes that become more than 0.268 GB in memory" in found.stdout, found.stderr
    assert found.stdout.count("\n") == 1 and not found.stderr


def test_every_cut_and_every_flip_of_a_table_ends_in_one_line_or_in_a_table(tmp_path):
    content = results.table_bytes([dict.fromkeys(results.EPOCHS.names)] * 3, results.EPOCHS)
    rng = np.random.default_rng(0)
    file = tmp_path / "epochs.parquet"
    for number in range(400):
        spoilt = bytearray(content)
        for place in rng.integers(4, len(content), rng.integers(1, 4)):
            spoilt[place] = rng.integers(256)
        cut = len(content) if number % 4 else rng.integers(len(content))
        try:
            received.table_of(file, bytes(spoilt[:cut]), results.EPOCHS)
        except paths.Damaged as error:
            assert "\n" not in str(error)


def test_a_flipped_byte_of_a_table_never_changes_a_value_unseen(tmp_path):
    """Its pages have checksums; the rest is what a reader finds it by."""
    one = {"trial": "a", "cohort": "b", "loss": "c", "seed": 1, "fold": 0}
    one |= {"train_loss": 0.5, "grad_norm": None, "n_batches": 3, "n_patches": 40}
    one |= {"learning_rate": 1e-4}
    rows = [one | {"epoch": e, "seconds_train": e / 7, "seconds_evaluate": e / 3} for e in range(5)]
    content = results.table_bytes(rows, results.EPOCHS)
    file, before = tmp_path / "epochs.parquet", received.table_of(tmp_path, content)
    changed = []
    for place in range(0, len(content), 3):
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        try:
            found = received.table_of(file, bytes(spoilt))
        except paths.Damaged:
            continue
        if found.schema.equals(before.schema) and not found.equals(before):
            changed.append(place)
    assert not changed
