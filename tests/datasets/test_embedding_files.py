from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vidface.core.errors import VidfaceError
from vidface.datasets import embedding_files
from vidface.datasets.embedding_files import iter_embeddings, make_rows, read_embeddings

IDS = ["b", "a", "b", "a"]
VECTORS = np.array([[1, 0], [0, 2], [3, 4], [0, 1]], np.float32)


def save_npy(folder: Path) -> Path:
    np.save(folder / "rows.npy", VECTORS)
    (folder / "rows.txt").write_text("\n".join(IDS) + "\n")
    return folder / "rows.npy"


def save_npz(folder: Path, **columns: Any) -> Path:
    np.savez(folder / "rows.npz", **{"ids": IDS, "vectors": VECTORS, **columns})
    return folder / "rows.npz"


def save_parquet(folder: Path, **columns: Any) -> Path:
    table = pa.table({"Clip_ID": IDS, "embedding": VECTORS.tolist(), **columns})
    pq.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("save", [save_npy, save_npz, save_parquet])
def test_three_kinds_hold_the_same(tmp_path: Path, save: Any) -> None:
    path = save(tmp_path)
    rows = read_embeddings(path)
    assert rows.clip_ids == IDS
    assert np.array_equal(rows.embeddings, VECTORS)
    assert str(rows) == f"EmbeddingRows(embeddings {path}: (4, 2) of 2 clips)"
    clips = list(iter_embeddings(path))
    assert [(clip.video, clip.frames) for clip in clips] == [("b", ("0", "1")), ("a", ("0", "1"))]
    assert clips[1].features.tolist() == [[0, 2], [0, 1]]
    assert clips[1].boxes is None


def test_blank_lines_below_the_ids_are_none(tmp_path: Path) -> None:
    path = save_npy(tmp_path)
    path.with_suffix(".txt").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join([*IDS, " ", "", ""]).encode()
    )
    assert read_embeddings(path).clip_ids == IDS
    path.with_suffix(".txt").write_text("\n".join(["", *IDS]))
    with pytest.raises(VidfaceError, match="5 of clip_id for 4 embeddings"):
        read_embeddings(path)


def test_faces_of_a_frame_stay_together(tmp_path: Path) -> None:
    labels = {"person": pa.array(["x", None, "x", None]), "more": [1, 2, 3, 4]}
    path = save_parquet(tmp_path, frame_index=[7, 7, 3, 7], **labels)
    clips = list(iter_embeddings(path))
    assert [clip.frame_index.tolist() for clip in clips] == [[3, 7], [7, 7]]
    assert clips[0].features.tolist() == [[3, 4], [1, 0]]
    assert read_embeddings(path).labels == {"identity": ["x", "", "x", ""]}


def test_numbers_and_bytes_are_names(tmp_path: Path) -> None:
    rows = read_embeddings(
        save_npz(tmp_path, ids=np.array([b"c", b"c", b"d", b"d"]), label=[1] * 4)
    )
    assert rows.clip_ids == ["c", "c", "d", "d"]
    assert rows.labels == {"identity": ["1"] * 4}
    assert make_rows("rows", {"clip_id": [1, 2], "embedding": [[1, 0], [0, 1]]}).clip_ids == [
        "1",
        "2",
    ]


class Tensor:
    """As torch's: one that trains is no array."""

    def __init__(self, trains: bool) -> None:
        self._trains = trains

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self._trains:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return VECTORS


def test_arrays_that_are_none() -> None:
    assert np.array_equal(
        make_rows("rows", {"clip_id": IDS, "embedding": Tensor(False)}).embeddings, VECTORS
    )
    for vectors in ([[1.0], [1.0, 2.0]], Tensor(True)):
        with pytest.raises(VidfaceError, match=r"rows: want arrays of plain numbers \("):
            make_rows("rows", {"clip_id": ["a", "b"], "embedding": vectors})


def test_lengths_are_said_and_rows_without_direction_refused(monkeypatch: Any) -> None:
    monkeypatch.setattr(embedding_files, "ROWS_AT_ONCE", 3)  # the last row is of another block
    said = make_rows("rows", {"clip_id": IDS, "embedding": VECTORS}).describe_lengths()
    assert said == "rows: rows of length 1 to 5 are scaled to length 1"
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    assert not make_rows("rows", {"clip_id": IDS, "embedding": unit}).describe_lengths()
    for bad in (np.nan, np.inf, 0.0, 1e300):
        vectors = VECTORS.astype(float)
        vectors[3] = bad
        with pytest.raises(
            VidfaceError, match=r"1 of 4 rows are NaN.*, row 3 \(from 0, clip 'a'\)"
        ):
            make_rows("rows", {"clip_id": IDS, "embedding": vectors}).describe_lengths()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ids": IDS[:3]}, "3 of clip_id for 4 embeddings"),
        ({"ids": ["a", " b", "c", ""]}, r"row 1 \(from 0\) has the clip id ' b'"),
        ({"ids": [["a"]] * 4}, r"clip_id must be \(n,\)"),
        ({"vectors": VECTORS[0]}, r"a table of numbers, \(n, d\), got \(2,\)"),
        ({"vectors": VECTORS[:0], "ids": np.array([], "U1")}, r"got \(0, 2\)"),
        ({"vectors": VECTORS.astype("U3")}, "a table of numbers"),
        ({"vectors": VECTORS.astype(complex)}, "a table of numbers"),
        ({"vectors": np.array([{"a": 1}])}, "allow_pickle=False"),
        ({"frame": [0, 1, -1, 0]}, "whole numbers from 0"),
        ({"frame": [0, 1, 2.5, 0]}, "whole numbers from 0"),
        ({"embedding": VECTORS}, "names 'embedding' twice"),
        ({"label": ["x"]}, "1 of identity for 4"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, columns: Any, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        read_embeddings(save_npz(tmp_path, **columns))


def test_files_that_are_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VidfaceError, match=r"save them as \.npy, \.npz, \.parquet"):
        read_embeddings(tmp_path / "rows.csv")
    for name in ("rows.npz", "rows.npy", "rows.parquet"):
        with pytest.raises(VidfaceError, match="No such file"):
            read_embeddings(tmp_path / name)
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(VidfaceError, match="damaged"):
            read_embeddings(tmp_path / name)
    np.save(tmp_path / "alone.npy", VECTORS)
    with pytest.raises(VidfaceError, match=r"no clip ids; write them to alone\.txt"):
        read_embeddings(tmp_path / "alone.npy")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "pickled.txt").write_text("a")
    with pytest.raises(VidfaceError, match=r"damaged, or no plain numbers .*Python object"):
        read_embeddings(tmp_path / "pickled.npy")
    monkeypatch.setattr(embedding_files, "MOST_BYTES", 100)
    for save in (save_npz, save_parquet):
        with pytest.raises(VidfaceError, match="unpacks to more than"):
            read_embeddings(save(tmp_path))


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    """10^12 rows are asked of no memory that is there, and none is taken."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 128)}
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(save_npz(tmp_path), "w") as archive:
        archive.writestr("ids.npy", b"")
        archive.writestr("vectors.npy", file.getvalue())
    with pytest.raises(VidfaceError, match="damaged"):
        read_embeddings(tmp_path / "rows.npz")
    save_npy(tmp_path).write_bytes(file.getvalue())
    with pytest.raises(VidfaceError, match="damaged"):
        read_embeddings(tmp_path / "rows.npy")


@pytest.mark.parametrize("column", [[1.0] * 4, [[1.0], [1.0], [1.0], [1.0, 2.0]], [[1.0], None] * 2,
                                    [[1.0], [None]] * 2, [["a"]] * 4])  # fmt: skip
def test_a_parquet_without_rows_of_numbers(tmp_path: Path, column: Any) -> None:
    with pytest.raises(VidfaceError, match=r"no lists|several lengths|a table of numbers"):
        read_embeddings(save_parquet(tmp_path, embedding=column))


def test_one_id_with_and_without_mp4(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"'a' stands twice, with \.mp4 and without"):
        list(iter_embeddings(save_npz(tmp_path, ids=["a", "a.mp4", "b", "c"])))
