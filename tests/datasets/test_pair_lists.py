from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.datasets import pair_batches, pair_lists
from vidface.datasets.lines import LONGEST_LINE_BYTES, numbered_rows
from vidface.datasets.pair_layout import SAME_WORDS
from vidface.datasets.pair_lists import PairList, read_pair_list

YTF = """split number, first name, second name, svm distance, is same
1, Ann_B/0, Ann_B/2, 0.5, 1
1, Ann_B/0, Cy/1, -0.5, 0
10, Cy/1, Dee/3, 0.1, 0
2, Dee/3, Dee/0, 0.9, 1
"""
FAST = ["line by line", "fast"]


@pytest.fixture(params=FAST)
def way(request, monkeypatch) -> str:
    """Either way to read, with batches of few lines."""
    choose(request.param, monkeypatch)
    return request.param


def choose(way: str, monkeypatch) -> None:
    monkeypatch.setattr(pair_lists, "_FAST_FROM_BYTES", 0 if way == "fast" else 2**60)
    monkeypatch.setattr(pair_batches, "_BATCH_BYTES", 100)
    monkeypatch.setattr(pair_lists, "_SCANNED_BYTES", 8)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "pairs.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def plainly(pairs: PairList) -> list[tuple[str, str, bool]]:
    names = pairs.names
    listed = zip(pairs.first, pairs.second, pairs.same, strict=True)
    return [(names[i], names[j], bool(same)) for i, j, same in listed]


def naive(text: str) -> tuple[list[tuple[str, str, bool]], list[str]]:
    """The pairs and the names of a white-space-separated list without a header."""
    pairs, names = [], []
    for line in text.split("\n"):
        if line.strip():
            a, b, same = line.split()
            pairs.append((a, b, SAME_WORDS[same.lower()]))
            for name in (a, b):
                if name not in names:
                    names.append(name)
    return pairs, names


def message(path: Path, known=None) -> str:
    with pytest.raises(VidfaceError) as caught:
        read_pair_list(path, known)
    return str(caught.value)


def refusal(folder: Path, text: str | bytes, known=None) -> str:
    return message(written(folder, text), known)


def test_ytf_by_eye(tmp_path, way):
    pairs = read_pair_list(written(tmp_path, YTF))
    assert pairs.names == ("Ann_B/0", "Ann_B/2", "Cy/1", "Dee/3", "Dee/0")
    assert pairs.first.tolist() == [0, 0, 2, 3]
    assert pairs.second.tolist() == [1, 2, 3, 4]
    assert pairs.same.tolist() == [True, False, False, True]
    assert pairs.folds.tolist() == [0, 0, 2, 1]  # 1, 1, 10, 2: by number, not as text
    assert pairs.sha256 == hashlib.sha256(YTF.encode()).hexdigest()
    assert [a.dtype for a in (pairs.first, pairs.second, pairs.folds)] == [np.int64] * 3
    assert pairs.same.dtype == np.bool_
    assert str(pairs) == (
        "PairList(first, second, same (4,), 2 pairs of one person, 3 folds, 0 repeated; 5 names)"
    )


def test_ijb_by_eye(tmp_path, way):
    pairs = read_pair_list(written(tmp_path, "1 11065 1\n1 11066 1\n01 1 0\n11065 1 1\n1 01 0\n"))
    assert pairs.names == ("1", "11065", "11066", "01")
    assert plainly(pairs)[2] == ("01", "1", False)  # another template than "1"
    assert (pairs.folds, pairs.n_folds) == (None, 0)
    assert pairs.repeated == 2  # in either order
    assert "no folds, 2 repeated" in str(pairs)


@pytest.mark.parametrize("way", FAST)
@given(
    lines=st.lists(
        st.tuples(
            st.integers(0, 12),
            st.integers(13, 30),
            st.booleans(),
            st.sampled_from(list(SAME_WORDS)),
        ),
        min_size=1,
        max_size=60,
    ),
    separator=st.sampled_from([" ", "\t"]),
)
def test_equals_the_naive_reader(tmp_path_factory, way, lines, separator):
    rows = [(f"n{b}", f"n{a}", w) if turn else (f"n{a}", f"n{b}", w) for a, b, turn, w in lines]
    text = "".join(separator.join(row) + "\n" for row in rows)
    pairs, names = naive(text)
    with pytest.MonkeyPatch.context() as patch:
        choose(way, patch)
        got = read_pair_list(written(tmp_path_factory.mktemp("lists"), text))
    assert plainly(got) == pairs
    assert list(got.names) == names
    seen = [frozenset(pair[:2]) for pair in pairs]
    assert got.repeated == len(seen) - len(set(seen))


# Pieces of lists that are nearly right, so that most lists fail somewhere.
PIECES = ["a", "b", "c", "1", "0", "same", "TRUE", "no", " ", "\t", ",", "\n", "\n", "\r\n", '"']
PIECES += ["\x0b", "\x85", "é", "\ufeff", "\0", "7", "-1", "fold", "\r"]
FRONTS = ["", "a,b,same\n", "a b same fold\n", "fold,a,b,is_same,z\n", "x y z\n", "\ufeffa b 1\n"]


@examples(400)
@given(
    front=st.sampled_from(FRONTS),
    good=st.lists(
        st.sampled_from(["a b 1\n", "b c 0\n", "a,b,1\n", "d,a,NO\n", "c a 1 2\n", "1,a,c,1,\n"]),
        max_size=8,
    ),
    rest=st.lists(st.sampled_from(PIECES), max_size=8),
    known=st.sampled_from([None, ["c", "a", "b"], ["a", "b", "c", "d", "e f", " a"]]),
)
@example(front="", good=["a b 1\n"], rest=["\n"], known=None)
def test_fast_reading_is_right_or_declines(tmp_path_factory, front, good, rest, known):
    path = written(tmp_path_factory.mktemp("lists"), front + "".join(good + rest))
    results = []
    for way in FAST:
        with pytest.MonkeyPatch.context() as patch:
            choose(way, patch)
            try:
                pairs = read_pair_list(path, known)
            except VidfaceError as error:
                results.append(str(error))
                continue
            folds = None if pairs.folds is None else pairs.folds.tolist()
            results.append((plainly(pairs), pairs.names, folds))
    assert results[0] == results[1]


@pytest.mark.parametrize("separator", [" ", "\t", ","])
def test_plain_lists_are_read_fast(tmp_path, monkeypatch, separator):
    choose("fast", monkeypatch)
    monkeypatch.setattr(pair_lists, "_read_lines", lambda *_: pytest.fail("line by line"))
    text = "".join(separator.join(("a", f"n{i}", "1", "4")) + "\n" for i in range(100))
    header = separator.join(("A", "B", "Label", "fold")) + "\n"
    pairs = read_pair_list(written(tmp_path, header + text))
    assert pairs.names == ("a", *(f"n{i}" for i in range(100)))
    assert pairs.folds.tolist() == [0] * 100
    path = written(tmp_path, "\n" + text.replace(f"{separator}4", ""))
    names = ["x", *(f"n{i}" for i in range(99, -1, -1)), "a"]
    pairs = read_pair_list(path, names)
    assert pairs.first.tolist() == [101] * 100
    assert pairs.second.tolist() == list(range(100, 0, -1))


def test_small_lists_do_not_load_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setattr(pair_lists, "read_alike_lines", lambda *_: pytest.fail("fast"))
    assert len(read_pair_list(written(tmp_path, YTF))) == 4


def test_long_lists_are_read_fast_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr(pair_lists, "_read_lines", lambda *_: pytest.fail("line by line"))
    pairs = read_pair_list(written(tmp_path, "first_name second_name 1\n" * 50_000))
    assert len(pairs) == 50_000
    assert pairs.repeated == 49_999


@pytest.mark.parametrize(("word", "same"), SAME_WORDS.items())
def test_words(tmp_path, way, word, same):
    text = f"x y {word}\nc d {word.upper()}\ne f {word.title()}\n"
    assert read_pair_list(written(tmp_path, text)).same.tolist() == [same] * 3


@pytest.mark.parametrize(
    "text",
    [
        "a b 1\nc d 0\n",
        "a b 1\nc d 0",
        "a b 1\r\nc d 0\r\n",
        "\ufeffa b 1\nc d 0\n",
        "\n  \n a  b\t1 \n\nc d 0\n",
        "a,b,1\nc,d,0\n",
        " a , b , 1 \n\nc,d,0\n",
        " a,b ,1\nc, d,0\n",
        'a,"b",1\n"c", "d","0"\n',
        "a b same\na b 1\nc d 0\n",  # names the columns: a header
        "First,Second,Label\na,b,1\nc,d,0\n",
        "template_1,template_2,label\na,b,1\nc,d,0\n",
        "ENROLL_TEMPLATE_ID,VERIF_TEMPLATE_ID,label\na,b,1\nc,d,0\n",
        "enroll verif is_same\na b 1\nc d 0\n",
        "label,b,note,a\n1,b,x,a\n0,d,,c\n",
        "left,right,match\na,b,1\nc,d,0\n",  # other names: by their places
        "\nleft right match\na b 1\nc d 0\n",
    ],
)
def test_forms(tmp_path, way, text):
    pairs = read_pair_list(written(tmp_path, text))
    assert plainly(pairs) == [("a", "b", True), ("c", "d", False)]
    assert pairs.names == ("a", "b", "c", "d")


def test_names_may_be_odd(tmp_path, way):
    text = 'a,b,same\n"x, y",z w,1\n"say ""hi""",NA,0\nnull,,1\n'
    assert "line 4" in refusal(tmp_path, text)
    pairs = read_pair_list(written(tmp_path, text.rsplit("null")[0] + "null,é/1.mp4,1\n"))
    assert pairs.names == ("x, y", "z w", 'say "hi"', "NA", "null", "é/1.mp4")


def test_names_between_white_space_are_as_written(tmp_path, way):
    pairs = read_pair_list(written(tmp_path, """x,y 'b' 1\no'a "c" 0\n'b' 'c" 0\n"""))
    assert pairs.names == ("x,y", "'b'", "o'a", '"c"', "'c\"")
    pairs = read_pair_list(written(tmp_path, "x,y 'b' 1\no'a 'c' 0\n"))
    assert pairs.names == ("x,y", "'b'", "o'a", "'c'")


def test_known_gives_the_rows(tmp_path, way):
    known = ["z", "c", "b", "a"]
    pairs = read_pair_list(written(tmp_path, "a b 1\nb c 0\n"), known)
    assert pairs.names == tuple(known)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([3, 2], [2, 1])
    assert known == ["z", "c", "b", "a"]


def test_unknown_names(tmp_path, way):
    text = "a b 1\na x 0\n\nx y 0\n"
    assert "2 of its names are unknown: 'x' (line 2), 'y' (line 4);" in refusal(
        tmp_path, text, ["a", "b"]
    )
    assert "'x' (line 1);" in refusal(tmp_path, "a x 1\nb x 0\n", ["z", "y", "b", "a"])
    assert "'a' (line 1);" in refusal(tmp_path, "b, a,1\n", [" a", "b"])  # fields are stripped
    many = "".join(f"a n{i} 0\n" for i in range(8))
    text = refusal(tmp_path, many, ["a"])
    assert "8 of its names" in text
    assert "'n4' (line 5) and 3 more" in text
    assert "n5" not in text


def test_known_names_must_differ(tmp_path):
    assert "'b' stands twice" in refusal(tmp_path, "a b 1\n", ["a", "b", "c", "b"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("a b same\n", "there is no pair"),
        ("left,right,match\n\n", "there is no pair"),
        ("a b\n", "line 1: 2 field(s)"),
        ("a b 1 2\n", "line 1: 4 field(s)"),
        ("\n1, a, b, 1\n", "line 2: 4 field(s)"),
        ("a b 1\n\nc d\n", "line 3: 2 field(s) where the first line has 3"),
        ("a,b,1\nc d 0\n", "line 2: 1 field(s)"),
        ("a b 1\nc d 0 1\n", "line 2: 4 field(s)"),
        ("a b 1\nc d 2\n", "line 2: '2' does not say"),
        ("a b 2\nc d 1\n", "line 1: '2' does not say"),
        ("a b -1\nc d 1\n", "line 1: '-1' does not say"),
        ("a b 1.0\nc d 1\n", "line 1: '1.0' does not say"),
        ("a b ture\na c 1\n", "line 1: 'ture' does not say"),  # a pair, for a is a clip
        ("a b ture\nc b 1\n", "line 1: 'ture' does not say"),
        ("a b 1\nc c 1\n", "line 2: 'c' against itself"),
        ("a,b,1\n,c,1\n", "line 2: a pair without a name"),
        ("a,b,1\nc,,1\n", "line 2: a pair without a name"),
        ("a,b,1\n,,1\n", "line 2: a pair without a name"),
        ('a,b,1\n"c,d,1\n', "line 2: unexpected end of data"),
        ("a,first,b,same\n", "line 1: the header names 'first' twice, 'a' and 'first'"),
        ("a,b,same,fold\na,b,1,x\n", "line 2: the fold must be a whole number ≥ 0, got 'x'"),
        ("a,b,same,fold\na,b,1,1\na,c,1,-1\n", "line 3: the fold must be"),
        ("a,b,same,fold\na,b,1,\n", "line 2: the fold must be"),
        ("a,b,same,fold\na,b,1,1234567890\n", "line 2: the fold must be"),
        ("a,b,same,fold\na,b,1,²\n", "line 2: the fold must be"),
        ("a b 1\nc d 1\re f 0\n", "line 2: 6 field(s)"),  # a lone carriage return ends no line
        ("a b 1\nc\x0bd e 1\n", "line 2: 4 field(s)"),
        ("a\tb\t1\nc d\te f\n", "line 2: 4 field(s)"),
        (b"a b 1\nc \xff 1\n", "line 2: not UTF-8"),
        (b"a,b,same,z\na,b,1,y\nc,d,1,\xff\n", "line 3: not UTF-8"),
        (b"a b 1\n" + b"x" * 70_000 + b" c 1\n", "line 2: longer than 65536 bytes"),
    ],
)
def test_refused(tmp_path, way, text, expected):
    found = refusal(tmp_path, text)
    assert expected in found
    assert str(tmp_path / "pairs.txt") in found


def test_unnamed_header_against_known_names(tmp_path, way):
    assert "line 1: 'ture'" in refusal(tmp_path, "a b ture\nc d 1\n", ["a", "b", "c", "d"])


@pytest.mark.parametrize("way", FAST)
def test_longest_line(tmp_path, monkeypatch, way):
    choose(way, monkeypatch)
    monkeypatch.setattr(pair_batches, "_BATCH_BYTES", 2**20)
    name = "x" * (LONGEST_LINE_BYTES - len(" b 1\n"))
    assert read_pair_list(written(tmp_path, f"a b 1\n{name} b 1\n")).names == ("a", "b", name)
    assert "line 2: longer" in refusal(tmp_path, f"a b 1\n{name}x b 1\n")
    half = "x" * (LONGEST_LINE_BYTES // 2)
    assert "line 2: longer" in refusal(tmp_path, f"a b 1\n{half}1 {half}2 1\n")


def test_no_such_file(tmp_path):
    assert "No such file" in message(tmp_path / "none.txt")
    assert "directory" in message(tmp_path)
    assert "null byte" in message(Path("a\0b"))


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_a_pipe_is_refused():
    reader, writer = os.pipe()
    os.write(writer, b"a b 1\n")
    os.close(writer)
    try:
        assert "it must be a file; save it first" in message(Path(f"/dev/fd/{reader}"))
    finally:
        os.close(reader)


def test_an_unreadable_file_is_no_crash(tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        name = "broken"

        def read(self, *_):
            raise OSError(5, "Input/output error")

        readline = read

    monkeypatch.setattr(pair_lists, "open_list", lambda *_: Broken())
    assert "Input/output error" in message(tmp_path)
    with pytest.raises(VidfaceError, match="list: Input/output error"):
        list(numbered_rows(Broken(), "list"))


def good() -> dict:
    return {
        "first": np.array([0, 1]),
        "second": np.array([1, 2]),
        "same": np.array([True, False]),
        "names": ("a", "b", "c"),
        "sha256": "",
        "folds": np.array([1, 0]),
    }


def test_a_pair_list_may_be_made_by_hand():
    pairs = PairList(**good())
    assert (len(pairs), pairs.n_folds, pairs.repeated) == (2, 2, 0)
    one = PairList(np.array([1]), np.array([0]), np.array([True]), ("a", "b"), "")
    assert (len(one), one.n_folds, one.repeated) == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"first": np.array([0])}, "second must be"),
        ({"first": np.array([0.0, 1.0])}, "first must be"),
        ({"second": np.array([[1, 2]])}, "second must be"),
        ({"same": np.array([1, 0])}, "same must be"),
        ({"folds": np.array([0])}, "folds must be"),
        ({"folds": np.array([0, 2])}, "without a gap"),
        ({"folds": np.array([1, 2])}, "without a gap"),
        ({"first": np.array([0, 3])}, "first has an index beyond 3"),
        ({"second": np.array([-1, 2])}, "second has an index beyond 3"),
        ({"first": np.array([0, 2])}, "pair 1 is 'c' against itself"),
        ({"names": ("a", "b", "a")}, "the same"),
    ],
)
def test_wrong_pair_lists(change, expected):
    with pytest.raises(VidfaceError, match=expected):
        PairList(**{**good(), **change})


def test_an_empty_pair_list():
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(VidfaceError, match="no pair"):
        PairList(none, none, np.zeros(0, dtype=np.bool_), ("a",), "")
