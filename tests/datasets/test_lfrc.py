from __future__ import annotations

import os
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from vidface.core.errors import VidfaceError
from vidface.datasets import lfrc
from vidface.datasets.lfrc import read_filelist


def listed(folder: Path, content: str | bytes, name: str = "filelist.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sparse(path: Path, head: bytes, size: int) -> Path:
    path.write_bytes(head)
    os.truncate(path, size)  # a hole: nothing is allocated
    return path


def test_filelist_is_first_words_in_order(tmp_path: Path) -> None:
    path = listed(tmp_path, "video_9 31\n\n  video_10/\t7 x\r\n \t\n./a//b/\nvidéo")
    assert read_filelist(path) == ("video_9", "video_10", "a/b", "vidéo")
    assert read_filelist(str(path)) == read_filelist(path)


def test_filelist_of_one_line_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_filelist(listed(tmp_path, b"\xef\xbb\xbfv1 3\n")) == ("v1",)


def test_filelist_keeps_dots_that_lead_nowhere(tmp_path: Path) -> None:
    assert read_filelist(listed(tmp_path, "..a\nb..\n.c\nd.mp4\n")) == ("..a", "b..", ".c", "d.mp4")


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t\n", b"\xef\xbb\xbf"])
def test_empty_filelist(tmp_path: Path, content: bytes) -> None:
    path = listed(tmp_path, content)
    with pytest.raises(VidfaceError, match=rf"{re.escape(str(path))}: names no video"):
        read_filelist(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"ok 3", "'ok' stands on line 1 already"),
        (b"./ok/", "'ok' stands on line 1 already"),
        (b"/etc/v", "'/etc/v' is an absolute path"),
        (b"\\v", "is an absolute path"),
        (b"C:v", "'C:v' is an absolute path"),
        (b"..", "'..' leads upwards"),
        (b"a/../b", "'a/../b' leads upwards"),
        (b"a\\..\\b", "leads upwards"),
        (b"a/..", "'a/..' leads upwards"),
        (b"./", "'./' names no folder"),
        (b".", "'.' names no folder"),
        (b"a\0b", r"control character '\x00'"),
        (b"a\x1fb 3", r"control character '\x1f'"),
        (b"a 3\x7f", r"control character '\x7f'"),
        (b"a\rb", r"control character '\r'"),
        (b"a\x0bb", r"control character '\x0b'"),
        ("a\x85b".encode(), r"control character '\x85'"),
        ("a\x9fb".encode(), r"control character '\x9f'"),
        (b"\xff\xfe", "not UTF-8"),
        (b"vid\xe9o", "not UTF-8"),
    ],
)
def test_filelist_refuses_a_line(tmp_path: Path, line: bytes, message: str) -> None:
    path = listed(tmp_path, b"ok 1\n\n" + line + b"\nfine\n")
    with pytest.raises(VidfaceError, match=rf"1 problem\(s\): line 3: .*{re.escape(message)}"):
        read_filelist(path)


def test_filelist_tells_of_all_problems(tmp_path: Path) -> None:
    path = listed(tmp_path, b"a\na\n/b\n\xff\nc\x01\n..\n")
    with pytest.raises(VidfaceError) as raised:
        read_filelist(path)
    assert re.findall(r"line (\d+):", str(raised.value)) == ["2", "3", "4", "5", "6"]


def test_filelist_names_the_first_of_equal_lines(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"line 2: .* on line 1 already; line 3: .* on line 1 "):
        read_filelist(listed(tmp_path, "a\na\na\n"))


def test_filelist_stops_at_many_problems(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"20 problem\(s\): .*line 20: .*not read") as raised:
        read_filelist(listed(tmp_path, b"/b\n" * 100_000))
    assert len(str(raised.value)) < 3000
    with pytest.raises(VidfaceError, match=r"19 problem\(s\)") as raised:
        read_filelist(listed(tmp_path, b"/b\n" * 19))
    assert "not read" not in str(raised.value)


def test_filelist_messages_are_short(tmp_path: Path) -> None:
    for content in ("/" + "x" * 10**6, "x" * 10**6 + "\n" + "x" * 10**6, "../" * 10**6, "./" * 999):
        with pytest.raises(VidfaceError) as raised:
            read_filelist(listed(tmp_path, content))
        assert len(str(raised.value)) < 400 + len(str(tmp_path))


def test_no_filelist(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"no\.txt: No such file"):
        read_filelist(tmp_path / "no.txt")
    with pytest.raises(VidfaceError, match="Is a directory"):
        read_filelist(tmp_path)


def test_filelist_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = listed(tmp_path, "v1\nv2\n")
    monkeypatch.setattr(lfrc, "MOST_BYTES", 6)
    assert len(read_filelist(path)) == 2
    monkeypatch.setattr(lfrc, "MOST_BYTES", 5)
    with pytest.raises(VidfaceError, match="more than 5 bytes"):
        read_filelist(path)
    sparse(path, b"v1\n", 10**8)
    tracemalloc.start()
    with pytest.raises(VidfaceError, match="more than 5 bytes"):
        read_filelist(path)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_filelist_of_200k_lines_is_quick(tmp_path: Path) -> None:
    names = [f"IQIYI_VID_TEST_{i:07d}" for i in range(203_848)]
    path = listed(tmp_path, "".join(f"{name} 30\n" for name in names))
    start = time.process_time()
    assert read_filelist(path) == tuple(names)
    assert time.process_time() - start < 2


@examples(300)
@given(data=st.binary(max_size=60) | st.text("ab./\\ \n\t:", max_size=60).map(str.encode))
def test_filelist_of_any_bytes(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = listed(tmp_path_factory.getbasetemp(), data)
    try:
        names = read_filelist(path)
    except VidfaceError:
        return
    first = [line.split()[0] for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    assert names == tuple(os.path.normpath(word) for word in first)
    assert len(set(names)) == len(names) > 0
    for name in names:
        assert not Path(name).is_absolute()
        assert ".." not in Path(name).parts
