from __future__ import annotations

import hashlib
import json
import math
import re
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from tests.datasets.test_lfrc import listed, sparse
from vidface.core.errors import VidfaceError
from vidface.datasets import submissions
from vidface.datasets.submissions import (
    Submission,
    check_submission,
    read_submission,
    write_submission,
)

# By hand: rows (1, -2, 0.5) and (0, 0, 0).
GOLDEN = struct.pack("<4i6f", 2, 3, 12, 5, 1.0, -2.0, 0.5, 0.0, 0.0, 0.0)
MATRIX = np.array([[1, -2, 0.5], [0, 0, 0]], dtype=np.float32)


def test_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.bin"
    done = write_submission(path, MATRIX)
    assert path.read_bytes() == GOLDEN
    assert path.read_bytes()[:20].hex() == "02000000030000000c000000050000000000803f"
    assert done == Submission(path, 2, 3, 40, hashlib.sha256(GOLDEN).hexdigest(), 1)
    assert [p.name for p in path.parent.iterdir()] == ["s.bin"]


def test_read_golden_bytes(tmp_path: Path) -> None:
    matrix = read_submission(str(listed(tmp_path, GOLDEN, "s.bin")))
    assert matrix.tolist() == [[1, -2, 0.5], [0, 0, 0]]
    assert matrix.dtype == np.float32
    assert isinstance(matrix, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


def test_submission_prints_and_saves(tmp_path: Path) -> None:
    done = write_submission(tmp_path / "s.bin", MATRIX)
    sha = hashlib.sha256(GOLDEN).hexdigest()
    text = f"Submission(s.bin: (2, 3) float32, 1 rows of zeros, 40 bytes, sha256 {sha[:12]}…)"
    assert str(done) == text
    assert json.loads(json.dumps(done.to_dict())) == {
        "path": str(tmp_path / "s.bin"),
        "rows": 2,
        "cols": 3,
        "bytes": 40,
        "sha256": sha,
        "zero_rows": 1,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 0, "bytes": 16, "zero_rows": 0},
        {"cols": 0, "bytes": 16},
        {"rows": -2, "cols": -3, "zero_rows": 0},
        {"bytes": 41},
        {"zero_rows": 3},
        {"zero_rows": -1},
    ],
)
def test_submission_checks_itself(changes: dict[str, int]) -> None:
    right = {"path": Path("s"), "rows": 2, "cols": 3, "bytes": 40, "sha256": "", "zero_rows": 2}
    Submission(**right)
    with pytest.raises(VidfaceError):
        Submission(**{**right, **changes})


def test_challenges_size(tmp_path: Path) -> None:
    header = struct.pack("<4i", 203_848, 512, 2048, 5)
    path = sparse(tmp_path / "s.bin", header, 417_480_720)
    assert read_submission(path).shape == (203_848, 512)
    for size in (417_480_719, 417_480_721):
        sparse(path, header, size)
        with pytest.raises(
            VidfaceError,
            match=rf"\(203848, 512\) float32, which is 417480720 bytes; the file has {size}",
        ):
            read_submission(path)


MOST = 2**31 - 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes, shorter than the header"),
        (GOLDEN[:15], "15 bytes, shorter than the header of 16"),
        (GOLDEN[:16], r"\(2, 3\) float32, which is 40 bytes; the file has 16"),
        (GOLDEN[:-1], "which is 40 bytes; the file has 39"),
        (GOLDEN + b"\0", "which is 40 bytes; the file has 41"),
        (struct.pack("<4i", 0, 3, 12, 5), "rows 0, cols 3, .*must be at least 1"),
        (struct.pack("<4i", 2, 0, 0, 5), "must be at least 1"),
        (struct.pack("<4i2f", -1, -2, -8, 5, 0, 0), "must be at least 1"),
        (struct.pack("<4i2f", 2, 1, 3, 5, 0, 0), "cols . 4 3, type 5; the third must be 4 times"),
        (struct.pack("<4i2f", 2, 1, 4, 6, 0, 0), "type 6; the fourth must be 5"),
        (struct.pack(">4i6f", 2, 3, 12, 5, *[0.0] * 6), "is big-endian"),
        (struct.pack(">4i2f", 2, 1, 5, 5, 0, 0), "the fourth must be 5"),
        (struct.pack(">4i2f", 2, 1, 4, 6, 0, 0), "the fourth must be 5"),
        (struct.pack("<4i", MOST, 2**29 - 1, 2**31 - 4, 5), "which is 4611686007689969684 bytes"),
        (struct.pack("<4i", 1, 2**29 + 1, 4, 5), "the third must be 4 times"),  # as int32, it is
    ],
)
def test_read_refuses(tmp_path: Path, data: bytes, message: str) -> None:
    path = listed(tmp_path, data, "s.bin")
    with pytest.raises(VidfaceError, match=rf"submission {re.escape(str(path))}: .*{message}"):
        read_submission(path)


def test_read_refuses_no_file(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match="No such file"):
        read_submission(tmp_path / "no.bin")
    with pytest.raises(VidfaceError, match=r"Is a directory|shorter"):
        read_submission(tmp_path)
    with pytest.raises(VidfaceError, match="null"):
        read_submission("a\0b")


def test_file_too_large_to_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = listed(tmp_path, GOLDEN, "s.bin")

    def no_room(*args: object, **options: object) -> None:
        raise OverflowError("no room")

    monkeypatch.setattr(np, "memmap", no_room)
    with pytest.raises(VidfaceError, match="no room"):
        read_submission(path)


@examples(300)
@given(
    numbers=st.lists(st.integers(-3, 6) | st.integers(-(2**31), MOST), min_size=4, max_size=4),
    payload=st.binary(max_size=40),
)
def test_read_of_any_header(
    numbers: list[int], payload: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = struct.pack("<4i", *numbers) + payload
    path = listed(tmp_path_factory.getbasetemp(), data, "any.bin")
    rows, cols, row_bytes, kind = numbers
    right = (
        rows > 0
        and cols > 0
        and row_bytes == 4 * cols
        and kind == 5
        and len(payload) == rows * cols * 4
    )
    if not right:
        with pytest.raises(VidfaceError):
            read_submission(path)
    else:
        assert read_submission(path).tobytes() == payload


@examples(200)
@given(
    rows=st.integers(1, 7),
    cols=st.integers(1, 4),
    block_rows=st.integers(1, 9),
    layout=st.sampled_from(["C", "F", "strided", "broadcast"]),
    seed=st.integers(0, 99),
)
def test_written_is_read(
    rows: int,
    cols: int,
    block_rows: int,
    layout: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rng = np.random.default_rng(seed)
    full = rng.integers(-1, 2, (2 * rows, 3 * cols)).astype(np.float32)
    matrix = {
        "C": np.ascontiguousarray(full[:rows, :cols]),
        "F": np.asfortranarray(full[:rows, :cols]),
        "strided": full[::2, ::-3],
        "broadcast": np.broadcast_to(full[0, :cols], (rows, cols)),
    }[layout]
    before = matrix.tolist()
    matrix.setflags(write=False)
    path = tmp_path_factory.getbasetemp() / "w.bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submissions, "_BLOCK_ROWS", block_rows)
        done = write_submission(path, matrix)

    values = [value for row in before for value in row]
    data = struct.pack(f"<4i{rows * cols}f", rows, cols, 4 * cols, 5, *values)
    assert path.read_bytes() == data
    zeros = sum(all(value == 0 for value in row) for row in before)
    assert done == Submission(path, rows, cols, len(data), hashlib.sha256(data).hexdigest(), zeros)
    assert read_submission(path).tolist() == before
    videos = listed(path.parent, "".join(f"v{i}\n" for i in range(rows)), "w.txt")
    assert check_submission(path, videos) == done


def test_extreme_values_and_signs_survive(tmp_path: Path) -> None:
    top = np.finfo(np.float32).max
    matrix = np.array([[-0.0, 1e-45, top, -top], [0.0, -0.0, 0, 0]], dtype=np.float32)
    done = write_submission(tmp_path / "s.bin", matrix)
    assert (tmp_path / "s.bin").read_bytes()[16:] == matrix.tobytes()
    assert done.zero_rows == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("row", [0, 4, 5, 10])
def test_not_finite_is_refused(
    tmp_path: Path, value: float, row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submissions, "_BLOCK_ROWS", 5)
    matrix = np.ones((11, 3), dtype=np.float32)
    path = tmp_path / "s.bin"
    write_submission(path, matrix)
    kept = path.read_bytes()
    matrix[row, 2] = value
    with pytest.raises(VidfaceError, match=rf"row {row} \(from 0\) holds NaN or infinity"):
        write_submission(path, matrix)
    assert path.read_bytes() == kept  # and nothing beside it
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((0, 3), np.float32),
        np.zeros((3, 0), np.float32),
        np.zeros(3, np.float32),
        np.zeros((1, 2, 3), np.float32),
        np.zeros((2, 3)),
        np.zeros((2, 3), np.float16),
        np.zeros((2, 3), ">f4"),
    ],
    ids=lambda a: f"{a.shape} {a.dtype}",
)
def test_write_refuses_other_arrays(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match=re.escape(f"got {wrong.shape} {wrong.dtype}")):
        write_submission(tmp_path / "s.bin", wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2**31, 1), (1, 2**29)])
def test_write_refuses_what_the_header_cannot_say(tmp_path: Path, shape: tuple[int, int]) -> None:
    huge = np.broadcast_to(np.float32(0), shape)  # four bytes
    with pytest.raises(VidfaceError, match="does not fit the header"):
        write_submission(tmp_path / "s.bin", huge)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2**31 - 1, 1), (1, 2**29 - 1)])
def test_largest_header_is_written(
    tmp_path: Path, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only as far as its first block."""

    def stop(*args: object) -> None:
        raise RuntimeError("a block is due")

    monkeypatch.setattr(submissions, "_little_endian", stop)
    with pytest.raises(RuntimeError, match="a block is due"):
        write_submission(tmp_path / "s.bin", np.broadcast_to(np.float32(0), shape))


def test_write_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "_BLOCK_ROWS", 500)
    matrix = np.ones((20_000, 128), dtype=np.float32)  # 10 MB
    for layout in (matrix, np.asfortranarray(matrix)):
        tracemalloc.start()
        write_submission(tmp_path / "s.bin", layout)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < matrix.nbytes / 5


@pytest.mark.parametrize(
    "broken", ["value", "sign of zero", "last value", "shape", "fewer", "short"]
)
def test_disk_that_gives_back_something_else(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.bin"

    def read_after_damage(path: Path) -> np.ndarray:
        data = bytearray(path.read_bytes())
        match broken:
            case "value":
                data[16:20] = struct.pack("<f", 1.0000001)
            case "sign of zero":
                data[28:32] = struct.pack("<f", -0.0)
            case "last value":
                data[36:40] = struct.pack("<f", math.nan)
            case "shape":
                data[:12] = struct.pack("<3i", 3, 2, 8)
            case "fewer":
                data[:] = struct.pack("<4i3f", 1, 3, 12, 5, 1.0, -2.0, 0.5)
            case "short":
                del data[-1]
        path.write_bytes(data)
        return read_submission(path)

    monkeypatch.setattr(submissions, "read_submission", read_after_damage)
    monkeypatch.setattr(submissions, "_BLOCK_ROWS", 1)
    message = "the file has 39" if broken == "short" else "the disk gave back something else"
    with pytest.raises(VidfaceError, match=message):
        write_submission(path, MATRIX)


def test_submission_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    first = write_submission(path, MATRIX)
    assert write_submission(path, read_submission(path)) == first


# --- check ---


def test_check(tmp_path: Path) -> None:
    path = tmp_path / "s.bin"
    done = write_submission(path, MATRIX)
    two = listed(tmp_path, "v1 3\nv2\n")
    assert check_submission(path, two) == check_submission(str(path), str(two)) == done
    for names in ("v1\n", "v1\nv2\nv3\n"):
        other = listed(tmp_path, names, "other.txt")
        count = names.count("v")
        with pytest.raises(VidfaceError, match=rf"2 rows, but .*other\.txt names {count} videos"):
            check_submission(path, other)
    with pytest.raises(VidfaceError, match="names no video"):
        check_submission(path, listed(tmp_path, "", "empty.txt"))
    with pytest.raises(VidfaceError, match="No such file"):
        check_submission(tmp_path / "no.bin", two)


def test_check_of_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.bin"
    one = listed(tmp_path, "v1\n")
    write_submission(path, np.ones((1, 512), np.float32))
    assert check_submission(path, one).cols == 512
    write_submission(path, np.ones((1, 513), np.float32))
    with pytest.raises(VidfaceError, match="513 columns where 512 are allowed"):
        check_submission(path, one)
    monkeypatch.setattr(submissions, "MOST_COLUMNS", 513)
    assert check_submission(path, one).cols == 513


@pytest.mark.parametrize("row", [0, 4095, 4096, 4999])
def test_check_finds_nan_in_any_block(tmp_path: Path, row: int) -> None:
    matrix = np.ones((5000, 2), dtype="<f4")
    matrix[row, 1] = math.nan
    path = listed(tmp_path, struct.pack("<4i", 5000, 2, 8, 5) + matrix.tobytes(), "s.bin")
    names = listed(tmp_path, "".join(f"v{i}\n" for i in range(5000)))
    assert read_submission(path).shape == (5000, 2)  # does not look at values
    with pytest.raises(VidfaceError, match=rf"row {row} \(from 0\) holds NaN"):
        check_submission(path, names)


def test_check_counts_rows_of_zeros(tmp_path: Path) -> None:
    matrix = np.ones((4, 2), np.float32)
    matrix[[0, 3]] = 0
    matrix[1, 0] = 0
    write_submission(tmp_path / "s.bin", matrix)
    names = listed(tmp_path, "a\nb\nc\nd\n")
    assert check_submission(tmp_path / "s.bin", names).zero_rows == 2
