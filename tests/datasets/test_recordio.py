from __future__ import annotations

import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.make_recordio_golden import (
    GOLDEN,
    MAGIC,
    Payloads,
    faces_payloads,
    framed,
    golden_payloads,
    packed,
    write_records,
)
from vidface.core.errors import VidfaceError
from vidface.datasets.recordio import RecordIO, read_idx

FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def opened(folder: Path) -> RecordIO:
    return RecordIO(folder / "train.rec", folder / "train.idx")


def all_payloads(records: RecordIO) -> Payloads:
    return {int(key): records.payload(i) for i, key in enumerate(records.keys)}


@pytest.mark.parametrize("name", ["faces", "split"])
def test_what_mxnet_wrote(name: str, tmp_path: Path) -> None:
    expected = golden_payloads()[name]
    assert all_payloads(opened(GOLDEN / name)) == expected
    write_records(tmp_path, expected)  # the other tests' writer is MXNet's twin
    for file in ("train.rec", "train.idx"):
        assert (tmp_path / file).read_bytes() == (GOLDEN / name / file).read_bytes()


def test_a_file_by_eye(tmp_path: Path) -> None:
    (tmp_path / "train.rec").write_bytes(
        bytes.fromhex(
            "0a23d7ce 19000000"  # all of a record, 25 bytes
            "00000000 00004040 0700000000000000 0800000000000000 41 000000"  # label 3, ids 7, 8, A
            "0a23d7ce 20000000"
            "02000000 00000000 0000000000000000 0000000000000000 0000803f 0000c03f"  # 1, 1.5
        )
    )
    (tmp_path / "train.idx").write_text("5\t0\n9\t36\n")
    records = opened(tmp_path)
    assert str(records).endswith("train.rec: 2 records, 76 bytes; keys (2,))")
    one, two = records.record(0), records.record(1)
    assert str(one) == "Record(flag 0, labels (1,), id 7, 1 bytes)"
    assert (one.flag, one.labels.tolist(), one.id, one.id2, one.data) == (0, [3.0], 7, 8, b"A")
    assert (two.flag, two.labels.tolist(), two.data) == (2, [1.0, 1.5], b"")
    assert records.positions(np.array([9, 5, 9])).tolist() == [1, 0, 1]
    with pytest.raises(VidfaceError, match=r"no record 6 \(2 of 3 are missing\)"):
        records.positions(np.array([6, 5, 10]))
    for wrong in (-1, 2):
        with pytest.raises(VidfaceError, match=f"record {wrong} of 2"):
            records.payload(wrong)


pieces = st.sampled_from([MAGIC, MAGIC[:2], MAGIC[2:], b"\0", b"abc", b"jpeg" * 5])
data = st.lists(pieces, max_size=8).map(b"".join)
labels = st.one_of(st.floats(width=32), st.lists(st.floats(width=32), min_size=1, max_size=3))
ids = st.one_of(st.integers(0, 2**64 - 1), st.just(0xCED7230A << 32 | 0xCED7230A))


@given(
    items=st.lists(st.tuples(labels, ids, data), min_size=1, max_size=8),
    keys=st.permutations(list(range(0, 40, 5))),
    shuffled=st.permutations(list(range(8))),
)
@FOLDER
def test_round_trip(tmp_path: Path, items: list, keys: list[int], shuffled: list[int]) -> None:
    payloads = {key: packed(*item) for key, item in zip(keys, items, strict=False)}
    write_records(tmp_path, payloads)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    lines = [lines[i] for i in shuffled if i < len(lines)]  # an index may have any order
    (tmp_path / "train.idx").write_text("\r\n".join(lines))
    records = opened(tmp_path)
    assert len(records) == len(items)
    assert all_payloads(records) == payloads
    assert records.keys.tolist() == list(payloads)

    asked = np.array([*range(len(items)), 0])
    heads = records.heads(asked)
    m = len(asked)
    assert str(heads) == f"Heads(flags ({m},), labels ({m}, 2), data_bytes ({m},))"
    for row, i in enumerate(asked.tolist()):
        label, number, content = items[i]
        record = records.record(i)
        flag = len(label) if isinstance(label, list) else 0
        expected = np.array(label if flag else [label], dtype=np.float32)
        assert (record.flag, record.id, record.data) == (flag, number, content)
        np.testing.assert_array_equal(record.labels, expected)
        assert heads.flags[row] == flag
        assert heads.data_bytes[row] == len(content)
        np.testing.assert_array_equal(heads.labels[row], np.append(expected, np.nan)[:2])


def test_heads_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are read at once."""
    monkeypatch.setattr("vidface.datasets.recordio._ROWS", 3)
    write_records(tmp_path, {k: packed(float(k), k, b"x" * k) for k in range(10)})
    heads = opened(tmp_path).heads(np.arange(10)[::-1])
    assert heads.labels[:, 0].tolist() == list(range(9, -1, -1))
    assert heads.data_bytes.tolist() == list(range(9, -1, -1))


TINY = {0: packed(1.0, 0, b"abcde"), 1: packed([2.0, 3.0], 1, b"abcd" + MAGIC), 2: b"raw"}


def test_cut_off_at_every_byte(tmp_path: Path) -> None:
    whole = opened(write_records(tmp_path, TINY))
    rec, idx = (tmp_path / "train.rec").read_bytes(), (tmp_path / "train.idx").read_bytes()
    for n_bytes in range(len(rec)):
        (tmp_path / "train.rec").write_bytes(rec[:n_bytes])
        with pytest.raises(VidfaceError, match=r"train\.rec") as caught:
            opened(tmp_path)
        assert f"{n_bytes:,}" in str(caught.value)  # the size that there is
        with pytest.raises(VidfaceError, match=r"train\.rec: has changed"):
            pickle.loads(pickle.dumps(whole)).payload(0)
    (tmp_path / "train.rec").write_bytes(rec)
    for n_bytes in range(len(idx)):
        (tmp_path / "train.idx").write_bytes(idx[:n_bytes])
        if n_bytes == len(idx) - 1:  # the last line's end alone is missing
            assert all_payloads(opened(tmp_path)) == TINY
            continue
        with pytest.raises(VidfaceError):
            opened(tmp_path)


def words(payload: bytes) -> int:
    return -(-len(payload) // 4)


def test_every_byte_damaged(tmp_path: Path) -> None:
    """Whatever the bit, a record has its length (but for padding) or raises; nothing else."""
    write_records(tmp_path, TINY)
    rec = (tmp_path / "train.rec").read_bytes()
    refused: list[str] = []
    for at in range(len(rec)):
        for bit in (0, 3, 5, 6, 7):
            damaged = bytearray(rec)
            damaged[at] ^= 1 << bit
            (tmp_path / "train.rec").write_bytes(damaged)
            try:
                records = opened(tmp_path)
            except VidfaceError as error:
                refused.append(str(error))
                continue
            for i, payload in enumerate(TINY.values()):
                assert words(records.payload(i)) == words(payload)
            for i in range(2):
                try:
                    record = records.record(i)
                except VidfaceError as error:
                    refused.append(str(error))
                    with pytest.raises(VidfaceError, match="labels are due"):
                        records.heads(np.array([i]))
                else:
                    heads = records.heads(np.array([i]))
                    assert heads.data_bytes[0] == len(record.data)
                    np.testing.assert_array_equal(heads.labels[0][:1], record.labels[:1])
    assert all("is damaged: " in message for message in refused)
    assert len(refused) > 4 * 5 * 4  # four magics at least


def test_record_shorter_than_its_header(tmp_path: Path) -> None:
    records = opened(write_records(tmp_path, {4: b"x" * 23, 5: packed(0.0, 0, b"")}))
    for read in (lambda: records.record(0), lambda: records.heads(np.array([1, 0]))):
        with pytest.raises(VidfaceError, match=r"record 4 .* 23 bytes where its header has 24"):
            read()


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    hostile = struct.pack("<IfQQ", 2**32 - 1, 0.0, 0, 0) + b"x" * 8
    records = opened(write_records(tmp_path, {0: hostile}))
    for read in (lambda: records.record(0), lambda: records.heads(np.array([0]))):
        with pytest.raises(VidfaceError, match=r"32 bytes where 4,294,967,295 labels are due"):
            read()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (MAGIC + struct.pack("<I", 3 << 29), "part 3 of a record"),
        (MAGIC + struct.pack("<I", 2 << 29), "part 2 of a record"),
        (MAGIC + struct.pack("<I", 4 << 29), "part 4 of a record"),
        (framed(b"ab") + framed(b"cd"), "it ends at byte 12, the file ends at byte 24 of 24"),
        (MAGIC + struct.pack("<I", 1 << 29), "its head at byte 8 goes beyond"),
        ((MAGIC + struct.pack("<I", 1 << 29)) * 2, "part 1 of a record at byte 8"),
        (MAGIC + struct.pack("<I", 1 << 29) + MAGIC + struct.pack("<I", 0), "part 0 of a record"),
        (MAGIC + struct.pack("<I", 5) + b"12345", "5 bytes are due from byte 8"),
        (b"\0" * 8, "no record begins at byte 0"),
    ],
)
def test_framing_that_is_wrong(tmp_path: Path, body: bytes, message: str) -> None:
    (tmp_path / "train.rec").write_bytes(body)
    (tmp_path / "train.idx").write_text("0\t0\n")
    with pytest.raises(VidfaceError, match=message):
        opened(tmp_path)


def test_damage_in_the_middle_is_found_when_read(tmp_path: Path) -> None:
    """Opening looks at 64 records; each is looked at again when it is read."""
    write_records(tmp_path, {k: packed(0.0, k, b"abcd") for k in range(1000)})
    rec = bytearray((tmp_path / "train.rec").read_bytes())
    rec[36 * 5] ^= 1
    (tmp_path / "train.rec").write_bytes(rec)
    records = opened(tmp_path)
    assert records.record(4).data == b"abcd"
    message = r"record 5 \(from byte 180\).*record 6 begins at byte 216 of 36,000"
    with pytest.raises(VidfaceError, match=message):
        records.record(5)
    with pytest.raises(VidfaceError, match=message):
        records.heads(np.arange(1000))
    rec[36 * 5] ^= 1
    rec[36 * 7 + 4] += 4  # longer than there is room
    (tmp_path / "train.rec").write_bytes(rec)
    with pytest.raises(VidfaceError, match=r"record 7 .* 32 bytes are due from byte 260, record"):
        opened(tmp_path).heads(np.arange(1000))


@pytest.mark.parametrize(
    ("idx", "message"),
    [
        ("", r"line 1: b'\\n'"),
        ("0 0\n", "line 1"),
        ("0\t0\n1\t36\t2\n", "line 2"),
        ("0\t0\n\t36\n1\n", "line 2"),
        ("0\t0\n\n1\t36\n", "line 2"),
        ("0\t0\n1\t\n", r"line 2: b'1\\t\\n'"),
        ("0\t-4\n", "line 1"),
        ("zero\t0\n", "line 1"),
        ("0\t0\n1\t76\n", r"record 1 at byte 76 \(1 such records\)"),
        ("0\t0\n1\t72\n", "record 1 at byte 72"),
        ("0\t0\n1\t99999999999999999999999\n", "cut off, or they are not of one set"),
        ("0\t2\n1\t36\n", "record 0 at byte 2"),
        ("0\t0\n1\t0\n", "offset 0 stands twice"),
        ("1\t0\n1\t36\n", "key 1 stands twice"),
        ("0\t0\n", "it ends at byte 36"),
        ("0\t4\n1\t36\n", "no record begins at byte 4"),
    ],
)
def test_index_that_is_wrong(tmp_path: Path, idx: str, message: str) -> None:
    write_records(tmp_path, {k: packed(0.0, k, b"abcd") for k in range(2)})
    (tmp_path / "train.idx").write_text(idx)
    with pytest.raises(VidfaceError, match=message):
        opened(tmp_path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"train\.idx: No such file"):
        opened(tmp_path)
    (tmp_path / "train.idx").write_text("0\t0\n")
    with pytest.raises(VidfaceError, match=r"train\.rec: No such file"):
        opened(tmp_path)
    (tmp_path / "train.rec").write_bytes(b"")
    with pytest.raises(VidfaceError, match=r"train\.rec: 0 bytes"):
        opened(tmp_path)


def test_read_idx(tmp_path: Path) -> None:
    (tmp_path / "i").write_text("3\t12\n007\t0")
    keys, offsets = read_idx(tmp_path / "i")
    assert (keys.tolist(), offsets.tolist()) == ([3, 7], [12, 0])
    assert keys.dtype == offsets.dtype == np.int64


def test_pickle_and_threads(tmp_path: Path) -> None:
    payloads = faces_payloads([[b"a" * k for k in range(20)], [b"b" * 999]])
    records = opened(write_records(tmp_path, payloads))
    packed_records = pickle.dumps(records)
    assert len(packed_records) < 3000  # no bytes of the file
    again = pickle.loads(packed_records)
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(again.payload, list(range(len(again))) * 10))
    assert read == list(payloads.values()) * 10
