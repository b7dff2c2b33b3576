from __future__ import annotations

import hashlib
import os
import pickle
import pickletools
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from tests.budgets import examples
from tests.conftest import COLOURS, crop_of
from tests.datasets.test_pairs import picture
from vidface.core.errors import ClipError, VidfaceError
from vidface.datasets.inert_pickle import MAX_VALUE_OPCODES
from vidface.datasets.insightface_bin import read_insightface_bin
from vidface.datasets.pairs import PairSet

SAME = [True, False, True]
PICTURES = [picture(colour, seed=k) for k, colour in enumerate([*COLOURS, "red", "blue"])]
SMALL = [b"\xff\xd8ab", b"x" * 300, b"\xff\xd8", b"y"]  # pictures are looked at when asked for


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8).copy()


def python2_string(data: bytes) -> bytes:
    head = b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
    return head + data


def python2(pictures: list[bytes], same: list[bool]) -> bytes:
    """Protocol 2 as Python 2.7's pickle wrote it: every string is stored in the memo."""
    strings = [
        python2_string(data) + b"r" + struct.pack("<i", 1 + k) for k, data in enumerate(pictures)
    ]
    flags = [b"\x88" if flag else b"\x89" for flag in same]
    lists = [b"]q\x00(", *strings, b"e]r", struct.pack("<i", 1 + len(strings)), b"(", *flags, b"e"]
    return b"\x80\x02" + b"".join(lists) + b"\x86q\x00."


# (SMALL, [True, False]) as Python 2.7.18 wrote it with its two picklers, and the same with
# np.frombuffer(data, np.uint8)[:, None] for each data, NumPy 1.16.6: what cv2.imencode gave.
PYTHON2 = {
    "pickle": b"\x80\x02]q\x00(U\x04\xff\xd8abq\x01T,\x01\x00\x00%sq\x02U\x02\xff\xd8q\x03U\x01yq"
    b"\x04e]q\x05(\x88\x89e\x86q\x06.",
    "cPickle": b"\x80\x02]q\x01(U\x04\xff\xd8abq\x02T,\x01\x00\x00%sq\x03U\x02\xff\xd8q\x04U\x01ye"
    b"]q\x05(\x88\x89e\x86.",
    "cPickle, protocol 1": b"(]q\x01(U\x04\xff\xd8abq\x02T,\x01\x00\x00%sq\x03U\x02\xff\xd8q\x04U"
    b"\x01ye]q\x05(I01\nI00\net.",
    "pickle, arrays": b"\x80\x02]q\x00(cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\n"
    b"q\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06(K\x01K\x04K\x01\x86q\x07cnumpy\ndtype\nq\x08U"
    b"\x02u1q\tK\x00K\x01\x87q\nRq\x0b(K\x03U\x01|q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    b"q\rb\x89U\x04\xff\xd8abq\x0etq\x0fbh\x01h\x02K\x00\x85q\x10h\x04\x87q\x11Rq\x12(K\x01M,\x01K"
    b"\x01\x86q\x13h\x0b\x89T,\x01\x00\x00%sq\x14tq\x15bh\x01h\x02K\x00\x85q\x16h\x04\x87q\x17Rq"
    b"\x18(K\x01K\x02K\x01\x86q\x19h\x0b\x89U\x02\xff\xd8q\x1atq\x1bbh\x01h\x02K\x00\x85q\x1ch\x04"
    b'\x87q\x1dRq\x1e(K\x01K\x01K\x01\x86q\x1fh\x0b\x89U\x01yq tq!be]q"(\x88\x89e\x86q#.',
    "cPickle, arrays": b"\x80\x02]q\x01(cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray"
    b"\nq\x03K\x00\x85U\x01b\x87Rq\x04(K\x01K\x04K\x01\x86cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87R"
    b"q\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\xff\xd8abtbh\x02h\x03K"
    b"\x00\x85U\x01b\x87Rq\x07(K\x01M,\x01K\x01\x86h\x06\x89T,\x01\x00\x00%stbh\x02h\x03K\x00\x85U"
    b"\x01b\x87Rq\x08(K\x01K\x02K\x01\x86h\x06\x89U\x02\xff\xd8tbh\x02h\x03K\x00\x85U\x01b\x87Rq\t("
    b"K\x01K\x01K\x01\x86h\x06\x89U\x01ytbe]q\n(\x88\x89e\x86.",
    "cPickle, protocol 1, arrays": b"(]q\x01(cnumpy.core.multiarray\n_reconstruct\nq\x02(cnumpy\n"
    b"ndarray\nq\x03(K\x00tU\x01btRq\x04(K\x01(K\x04K\x01tcnumpy\ndtype\nq\x05(U\x02u1K\x00K\x01tRq"
    b"\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbI00\nU\x04\xff\xd8abtbh\x02(h\x03("
    b"K\x00tU\x01btRq\x07(K\x01(M,\x01K\x01th\x06I00\nT,\x01\x00\x00%stbh\x02(h\x03(K\x00tU\x01btRq"
    b"\x08(K\x01(K\x02K\x01th\x06I00\nU\x02\xff\xd8tbh\x02(h\x03(K\x00tU\x01btRq\t(K\x01(K\x01K\x01t"
    b"h\x06I00\nU\x01ytbe]q\n(I01\nI00\net.",
}
PYTHON2 = {name: content % (b"x" * 300) for name, content in PYTHON2.items()}


def read(path: Path, content: bytes) -> PairSet:
    path.write_bytes(content)
    return read_insightface_bin(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.bin"


WRITERS = {
    "python 2": python2,
    "LIST, TUPLE, PUT": lambda p, s: (
        b"(("
        + b"".join(b"B" + struct.pack("<I", len(data)) + data for data in p)
        + b"lp7\n("
        + b"".join(b"\x88" if flag else b"\x89" for flag in s)
        + b"lt."
    ),
    **{
        f"python 3, protocol {protocol}{', arrays' if arrays else ''}": (
            lambda p, s, protocol=protocol, arrays=arrays: pickle.dumps(
                ([array(data) for data in p] if arrays else p, s), protocol=protocol
            )
        )
        for protocol in (3, 4, 5)
        for arrays in (False, True)
    },
    "columns": lambda p, s: pickle.dumps(([array(data)[:, None] for data in p], s), protocol=4),
    "read-only arrays": lambda p, s: pickle.dumps(
        ([np.frombuffer(data, dtype=np.uint8) for data in p], s), protocol=5
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_way_such_sets_are_written(writer: str, path: Path) -> None:
    pictures = [b"ab", *PICTURES[1:]]  # the first is no picture, which is told when asked for
    content = WRITERS[writer](pictures, SAME)
    pairs = read(path, content)
    assert [pairs.read(i) for i in range(pairs.n_images)] == pictures
    assert pairs.same.tolist() == SAME
    assert pairs.first.tolist() == [0, 2, 4]
    assert pairs.second.tolist() == [1, 3, 5]
    assert pairs.folds.tolist() == [0, 1, 2]
    assert pairs.name == "some"
    assert pairs.sha256 == hashlib.sha256(content).hexdigest()
    assert np.array_equal(pairs.image(4), crop_of("red", seed=4))
    with pytest.raises(ClipError, match=r"some: picture 0 \(from 0\): not a whole picture"):
        pairs.image(0)
    loaded, same = pickle.loads(content, encoding="bytes")
    assert ([bytes(item) for item in loaded], same) == (pictures, SAME)


@pytest.mark.parametrize("writer", PYTHON2)
def test_files_that_python_2_wrote(writer: str, path: Path) -> None:
    pairs = read(path, PYTHON2[writer])
    assert [pairs.read(i) for i in range(pairs.n_images)] == SMALL
    assert pairs.same.tolist() == [True, False]


def test_pictures_of_another_size(path: Path) -> None:
    pairs = read(path, pickle.dumps(([*PICTURES[:3], picture(size=96)], [True, False])))
    assert pairs.image(2).shape == (112, 112, 3)
    with pytest.raises(VidfaceError, match=r"some: picture 3 \(from 0\): 96x96 pixels"):
        pairs.image(3)


def test_a_picture_that_stands_twice_is_held_once(path: Path) -> None:
    pairs = read(path, pickle.dumps((SMALL[1:2] * 4, [True, False])))
    assert [pairs.read(i) for i in range(4)] == SMALL[1:2] * 4
    assert pairs.read(0) is pairs.read(3)


@pytest.mark.parametrize("n", [2, 3, 9, 10, 11, 19, 20, 25, 104])
def test_folds_are_those_of_sklearn(n: int, path: Path) -> None:
    pairs = read(path, pickle.dumps(([b"x"] * (2 * n), [True] * n)))
    expected = np.full(n, -1)
    for fold, (_, inside) in enumerate(KFold(min(n, 10), shuffle=False).split(np.zeros(n))):
        expected[inside] = fold
    assert pairs.folds.tolist() == expected.tolist()


def refused(path: Path, content: bytes, message: str) -> None:
    with pytest.raises(VidfaceError, match=message) as caught:
        read(path, content)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "not a verification set" in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["whole", "picture", "flag", "behind"])
def test_nothing_is_executed(protocol: int, place: str, path: Path, tmp_path: Path) -> None:
    evil = Evil(tmp_path / "marker")
    value = {
        "whole": evil,
        "picture": ([*SMALL[:3], evil], [True, False]),
        "flag": (SMALL, [True, evil]),
        "behind": (SMALL, [True, False], evil),
    }[place]
    with pytest.raises(VidfaceError, match="not a verification set"):
        read(path, pickle.dumps(value, protocol=protocol))
    assert not evil.marker.exists()
    pickle.loads(path.read_bytes())  # it would have
    assert evil.marker.exists()


START = b"\x80\x04"
END = pickle.dumps((SMALL, [True, False]), protocol=3)[2:]  # a set, without its PROTO


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "asks for 'os.system'"),
        (START + b"\x8c\x05posix\x8c\x06system\x93.", "asks for 'posix.system'"),
        (START + b"K\x01K\x02\x93.", "STACK_GLOBAL requires str"),
        (START + b"cos\\nx\nsys\x1b[2Jtem\n.", r"asks for 'os\\\\nx.sys\\x1b"),
        (START + b"c" + b"a" * 200 + b"\n" + b"b" * 200 + b"\n.", "asks for 'a{80}', which"),
        (START + b"c_codecs\nencode\n.", "is not a tuple of two lists"),
        (START + b"cnumpy\ncore\n.", "asks for 'numpy.core'"),
        (START + b"cnumpy.core.multiarray\nscalar\n.", "is not a tuple of two lists"),
        (b"(ios\nsystem\n.", "asks for INST"),
        (START + b"cnumpy\nndarray\n)\x81.", "asks for NEWOBJ"),
        (START + b"(cnumpy\nndarray\no.", "asks for OBJ"),
        (START + b"cnumpy\nndarray\n)}\x92.", "asks for EMPTY_DICT"),
        (START + b"cnumpy\nndarray\n)R.", "calls ndarray in another way than NumPy writes it"),
        (START + b"cnumpy\ndtype\n)R.", "calls dtype in another way"),
        (
            START + b"cnumpy\ndtype\n\x8c\x02i1\x85R.",
            "calls dtype in another way",
        ),
        (
            START + b"cnumpy\ndtype\n\x8c\x02O8\x85R.",
            "calls dtype in another way",
        ),
        (START + b"cnumpy\ndtype\nK\x01R.", "calls something that makes no array"),
        (START + b"K\x01)R.", "calls something that makes no array"),
        (START + b"K\x01)b.", "builds something that is no array"),
        (START + b"cnumpy\nndarray\n)b.", "builds something that is no array"),
        (b"P0\n.", "asks for PERSID"),
        (START + b"K\x01Q.", "asks for BINPERSID"),
        (START + b"\x82\x01.", "asks for EXT1"),
        (START + b"G" + b"\0" * 8 + b".", "is not a tuple of two lists"),
        (START + b"}.", "asks for EMPTY_DICT"),
        (START + b"\x8f.", "asks for EMPTY_SET"),
        (START + b"K\x012.", "asks for DUP"),
        (START + b"K\x010.", "asks for POP"),
        (START + b"\x97.", "asks for NEXT_BUFFER"),
        (b"(lp0\nI1\na.", "is not a tuple of two lists"),
        (b"(lp0\nS'abc'\na.", "is not a tuple of two lists"),
        (b"(lp0\nS'\xff\xd8'\na.", "is not a tuple of two lists"),
        (b"(lp0\nS'" + b"x" * 300 + b"'\na.", "is not a tuple of two lists"),
        (START + b"X\x01\x00\x00\x00\xff.", "is damaged"),
        (START + b"L1" + b"0" * 5000 + b"L\n.", "is damaged"),
        (b"", "ends too early"),
        (b"\n#\xd7\xce\0\0", "is no pickle, or damaged"),
        (b"\xff\xd8\xff\xe0", "is no pickle, or damaged"),
        (b"PK\x03\x04", "asks for PERSID, which plain arrays don't need"),
        (START, "ends too early"),
        (START + b".", "left over"),
        (START + b"(.", "left over"),
        (START + b"K\x01K\x02.", "left over"),
        (START + b"(K\x01.", "left over"),
        (END + b".", "goes on behind the end"),
        (END + END, "goes on behind the end"),
        (END + b"\0", "goes on behind the end"),
        (START + b"a.", "is damaged"),
        (START + b"]a.", "is damaged"),
        (START + b"](a.", "is damaged"),  # the list is below the mark
        (START + b"]K\x01(\x86.", "is damaged"),
        (START + b"e.", "is damaged"),
        (START + b"t.", "is damaged"),
        (START + b"\x85.", "is damaged"),
        (START + b"\x94.", "is damaged"),
        (START + b"q\x00.", "is damaged"),
        (START + b")\x88a.", "is damaged"),
        (START + b"K\x01(\x88e.", "is damaged"),
        (START + b"h\x00.", r"is damaged \(Memo value not found at index 0\)"),
        (START + b"g5\n.", r"is damaged \(Memo value not found at index 5\)"),
        (START + b"]q\x00h\x00a.", "is not a tuple of two lists"),  # itself
        (START + b"]\x94(h\x00h\x00e.", "something else than pictures"),
        (START + b"((llt.", "is damaged"),
        (START + b"]]a.", "is not a tuple of two lists"),
        (START + b"])a.", "is not a tuple of two lists"),
        (START + b"]Na.", "is not a tuple of two lists"),
        (START + b"]K\x01a.", "is not a tuple of two lists"),
        (START + b"]\x8c\x01xa.", "is not a tuple of two lists"),
        (START + b"K\x01.", "is not a tuple of two lists"),
        (START + b"].", "is not a tuple of two lists"),
        (START + b"]]\x86" + b"\x85.", "is not a tuple of two lists"),
        (START + b"]]]\x87.", "is not a tuple of two lists"),
        (START + b"]K\x01\x86.", "is not a tuple of two lists"),
        (START + b"]]\x86.", "0 pair"),
        (START + b"]q\x00h\x00\x86.", "0 pair"),  # the same list, twice
        (START + b"]q\x00(\x88\x89eh\x00\x86.", "first list holds something else than pictures"),
        (START + b"]q\x00(C\x01aC\x01beh\x00\x86.", "second list holds something else"),
        (START + b"(" * 100_000, "is nested deeper than 64"),
        (START + b"]" * 100_000 + b"a" * 99_999 + b".", "is not a tuple of two lists"),
        (START + b")" + b"\x85" * 200_000 + b".", "is not a tuple of two lists"),
        (
            START + b")" + b"\x85" * 100_000 + b"K\x01\x93.",
            r"is damaged \(STACK_GLOBAL requires str\)",
        ),
        (
            START + b"cnumpy\ndtype\n)" + b"\x85" * 100_000 + b"R.",
            "calls dtype in another way",
        ),
    ],
)
def test_what_is_no_such_set_is_refused(content: bytes, message: str, path: Path) -> None:
    refused(path, content, message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((SMALL, [True]), "4 pictures for 1 pairs"),
        ((SMALL[:3], [True, False]), "3 pictures for 2 pairs"),
        ((SMALL[:2], [True]), r"1 pair\(s\) where at least 2"),
        (([], []), r"0 pair\(s\)"),
        ((SMALL, [1, 2]), "its second list holds something else than booleans, or 0 and 1"),
        ((SMALL, [1, -1]), "its second list holds something else"),
        ((SMALL, [1, None]), "its second list holds something else"),
        ((SMALL, [1.0, float("nan")]), "its second list holds something else"),
        ((SMALL, np.array([1, 2])), "its second list holds something else"),
        ((SMALL, np.eye(2, dtype=bool)), r"an array of shape \(2, 2\), not one row"),
        ((SMALL, np.array(["True", "False"])), "has a dtype that is not one of plain numbers"),
        ((array(b"1234"), [True, False]), "is not a tuple of two lists"),
        (
            ([*SMALL[:3], "four"], [True, False]),
            "its first list holds something else than pictures",
        ),
        (([*SMALL[:3], True], [True, False]), "first list holds something else"),
        ((SMALL, [True, b"False"]), "second list holds something else"),
        (
            ([array(b"1"), array(b"2").astype(np.int8)] * 2, [True] * 2),
            "its first list holds something else than pictures",
        ),
        (
            ([array(b"1"), array(b"2").astype(np.float32)] * 2, [True] * 2),
            "its first list holds something else than pictures",
        ),
        (
            ([array(b"1"), array(b"2").astype(object)] * 2, [True] * 2),
            "has a dtype that is not one of plain numbers",
        ),
        ({"bins": SMALL, "same": [True, False]}, "asks for EMPTY_DICT"),
        ([SMALL, [True, False], []], "is not a tuple of two lists"),
        ([SMALL], "is not a tuple of two lists"),
        ((SMALL, [True, False], []), "is not a tuple of two lists"),
    ],
)
def test_other_values_are_refused(value: object, message: str, path: Path) -> None:
    refused(path, pickle.dumps(value, protocol=4), message)


LABELS = [True, False, True]
PEOPLES_SETS = {
    "an outer list": [PICTURES[:6], LABELS],
    "tuples": (tuple(PICTURES[:6]), tuple(LABELS)),
    "0 and 1": (PICTURES[:6], [int(label) for label in LABELS]),
    "floats": (PICTURES[:6], [float(label) for label in LABELS]),
    "NumPy's booleans": (PICTURES[:6], [np.bool_(label) for label in LABELS]),
    "NumPy's whole numbers": (PICTURES[:6], list(np.array(LABELS, np.int64))),
    "an array of booleans": (PICTURES[:6], np.array(LABELS)),
    "an array of whole numbers": [PICTURES[:6], np.array(LABELS, np.int32)],
    "a column of numbers": (PICTURES[:6], np.array(LABELS, np.float32)[:, None]),
    "bytearrays": ([bytearray(data) for data in PICTURES[:6]], LABELS),
    "all at once": [[bytearray(PICTURES[0]), *map(array, PICTURES[1:6])], np.array(LABELS)],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PEOPLES_SETS)
def test_sets_of_peoples_own_scripts(kind: str, protocol: int, path: Path) -> None:
    pairs = read(path, pickle.dumps(PEOPLES_SETS[kind], protocol=protocol))
    assert [pairs.read(i) for i in range(6)] == PICTURES[:6]
    assert all(type(pairs.read(i)) is bytes for i in range(6))
    assert pairs.same.tolist() == LABELS
    assert pairs.same.dtype == np.bool_
    assert np.array_equal(pairs.image(5), crop_of("blue", seed=5))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PEOPLES_SETS)
def test_a_stranger_among_the_harmless_is_not_run(
    kind: str, protocol: int, path: Path, tmp_path: Path
) -> None:
    """Each of the harmless forms, with one thing in it that would call."""
    pictures, labels = PEOPLES_SETS[kind]
    for number, (first, second) in enumerate(
        [
            ([*list(pictures)[:5], Evil(tmp_path / "0")], labels),
            (pictures, [*list(labels)[:2], Evil(tmp_path / "1")]),
            (pictures, Evil(tmp_path / "2")),
            (Evil(tmp_path / "3"), labels),
        ]
    ):
        with pytest.raises(VidfaceError, match="not a verification set"):
            read(path, pickle.dumps(type(PEOPLES_SETS[kind])((first, second)), protocol=protocol))
        assert not (tmp_path / str(number)).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (b"J\xff\xff\xff\x7f\x85", "calls bytearray in another way"),  # of 2 GiB
        (b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85", "calls bytearray in another way"),
        (b"]\x85", "calls bytearray in another way"),
        (b"C\x01aX\x06\0\0\0latin1\x86", "calls bytearray in another way"),
        (b"X\x01\0\0\0aX\x05\0\0\0utf_8\x86", "calls bytearray in another way"),
        (b"X\x01\0\0\0aX\x06\0\0\0latin1K\x01\x87", "calls bytearray in another way"),
        (b"X\x01\0\0\0a\x85", "calls bytearray in another way"),
    ],
)
def test_a_bytearray_is_made_of_bytes_alone(arguments: bytes, message: str, path: Path) -> None:
    one = b"cbuiltins\nbytearray\n%sR"
    content = START + b"](" + one % b"C\x01a\x85" + one % arguments + b"CbC\x01ce](\x88\x88e\x86."
    tracemalloc.start()
    try:
        refused(path, content, message)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_numpys_booleans_are_of_one_byte(path: Path) -> None:
    """A scalar whose data are longer than its type is damage, not something to guess at."""
    scalar = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nU\x02b1K\x00K\x01\x87R%stR"
    content = START + b"](C\x01aC\x01be](" + scalar + b"e\x86."
    refused(path, content % b"C\x01\x01", "1 pair")  # read, and too few
    refused(path, content % b"C\x02\x01\x01", "is damaged")
    refused(path, content % b"K\x01", "calls scalar in another way")


def test_an_array_without_its_data_is_refused(path: Path) -> None:
    # The array is what _reconstruct gave, without the BUILD that fills it.
    bare = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    content = START + b"](" + bare * 4 + b"e](\x88\x88e\x86."
    refused(path, content, "first list holds something else than pictures")


def test_an_array_of_something_else_is_refused(path: Path) -> None:
    # Only what names dtype('u1') is bytes, whichever of the two ways the array is written.
    bare = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    built = START + b"](" + (bare + b"(K\x01K\x01\x85%s\x89C\x01atb") * 4 + b"e](\x88\x88e\x86."
    buffers = (
        START + b"](" + b"cnumpy.core.numeric\n_frombuffer\n(C\x01a%sK\x01\x85X\x01\0\0\0CtR" * 4
    )
    buffers += b"e](\x88\x88e\x86."
    byte = b"cnumpy\ndtype\nU\x02u1\x89\x88\x87R"
    assert read(path, built % ((byte,) * 4)).read(3) == b"a"
    assert read(path, buffers % ((byte,) * 4)).read(3) == b"a"
    for other in (b"N", b"cnumpy\ndtype\n", b"U\x02u1"):
        refused(path, built % ((other,) * 4), "an array that is not of plain numbers")
        refused(path, buffers % ((other,) * 4), "an array that is not of plain numbers")
    signed = byte.replace(b"u1", b"i1")
    refused(path, built % ((signed,) * 4), "something else than pictures")
    refused(path, buffers % ((signed,) * 4), "something else than pictures")


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_3_below_protocol_3(protocol: int, path: Path) -> None:
    pairs = read(path, pickle.dumps((SMALL, [True, False]), protocol=protocol))
    assert [pairs.read(i) for i in range(4)] == SMALL


WHOLE = PYTHON2 | {name: write(SMALL, [True, False]) for name, write in WRITERS.items()}


@pytest.mark.parametrize("writer", ["pickle", "cPickle, arrays", "python 3, protocol 4"])
def test_truncated_anywhere(writer: str, path: Path) -> None:
    content = WHOLE[writer]
    assert len(read(path, content).first) == 2
    for length in range(len(content)):
        refused(path, content[:length], "not a verification set")


@pytest.mark.parametrize(
    "bomb",
    [
        b"B\xff\xff\xff\xff",  # BINBYTES of 4 GiB
        b"\x8e" + struct.pack("<Q", 2**40),
        b"\x8e" + struct.pack("<Q", 2**63 - 1),
        b"\x8e" + struct.pack("<Q", 2**64 - 1),
        b"\x96" + struct.pack("<Q", 2**62),  # BYTEARRAY8
        b"T\xff\xff\xff\x7f",
        b"T\xff\xff\xff\xff",  # −1
        b"X\xff\xff\xff\xff",
        b"\x8d" + struct.pack("<Q", 2**62),
        b"\x8b\xff\xff\xff\x7f",  # LONG4
        b"\x95" + struct.pack("<Q", 2**64 - 1) + b"K\x01.",  # FRAME
        b"]r\xff\xff\xff\xff.",  # LONG_BINPUT: a memo of 32 GiB to C's unpickler
        b"]p99999999999999999999\n.",
        b"]" + b"".join(b"r" + struct.pack("<I", k * 10**6) for k in range(4000)) + b".",
    ],
)
def test_declared_sizes_take_no_memory(bomb: bytes, path: Path) -> None:
    path.write_bytes(START + bomb)
    tracemalloc.start()
    try:
        with pytest.raises(VidfaceError, match="not a verification set"):
            read_insightface_bin(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_pictures_are_held_once(path: Path) -> None:
    n = 2**20
    pictures = [bytes([k]) * n for k in range(20)]
    path.write_bytes(python2(pictures, [True] * 10))
    del pictures
    tracemalloc.start()
    try:
        pairs = read_insightface_bin(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pairs.read(19)[:1] == b"\x13"
    assert held < 21 * n
    assert peak < 24 * n  # one picture is decoded from Python 2's text at a time


def test_opcodes_are_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_VALUE_OPCODES == 4_194_304
    content = python2(SMALL, [True, False])
    n = sum(1 for _ in pickletools.genops(content)) - 1  # before STOP
    monkeypatch.setattr("vidface.datasets.inert_pickle._STEP", 1)
    monkeypatch.setattr("vidface.datasets.inert_pickle.MAX_VALUE_OPCODES", n)
    assert len(read(path, content).first) == 2
    monkeypatch.setattr("vidface.datasets.inert_pickle.MAX_VALUE_OPCODES", n - 1)
    refused(path, content, f"more than {n - 1} opcodes")


@given(data=st.data())
@examples(300)
def test_damage_is_refused_or_harmless(data: st.DataObject, tmp_path_factory) -> None:
    content = bytearray(data.draw(st.sampled_from(list(WHOLE.values()))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "delete", "insert"]))
        byte = data.draw(st.sampled_from([ord(op.code) for op in pickletools.opcodes]))
        if kind == "set":
            content[at] = byte
        elif kind == "insert":
            content.insert(at, byte)
        else:
            del content[at]
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    try:
        pairs = read(path, bytes(content))
    except VidfaceError as error:
        pairs, message = None, str(error)
    if pairs is None:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
    else:
        assert all(isinstance(pairs.read(i), bytes) for i in range(pairs.n_images))


@given(content=st.binary(max_size=60))
@examples(300)
def test_noise_is_refused(content: bytes, tmp_path_factory) -> None:
    refused(tmp_path_factory.getbasetemp() / "noise.bin", content, "not a verification set")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.bin"):
        with pytest.raises(VidfaceError, match=f"^{path}: "):
            read_insightface_bin(path)
