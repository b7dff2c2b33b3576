"""Warnings of what a manifest says twice: names that are spelled alike, clips that are one file."""

from __future__ import annotations

import itertools
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import crop_of, write_crop
from vidface.core.clips import Clip
from vidface.settings.doubles import find_like_names, warn_of_doubles, warn_of_equal_contents
from vidface.settings.manifests import Manifest, read_manifest, write_manifest

JOSE_NFC, JOSE_NFD = "Jos\u00e9", "Jose\u0301"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((JOSE_NFC, JOSE_NFD), "in Unicode form"),
        (("007", "\u200b007"), "in invisible characters"),
        (("an\u00adna", "anna"), "in invisible characters"),
        ((JOSE_NFC, JOSE_NFD + "\ufeff"), "in invisible characters"),
        (("Ann  Lee", "Ann Lee"), "in spaces"),
        (("Ann\u00a0Lee", "AnnLee"), "in spaces"),
        (("Anna", "anna"), "in letter case or width"),
        (("STRASSE", "stra\u00dfe"), "in letter case or width"),
        (("\uff21nna", "Anna"), "in letter case or width"),
        (("7", "7.0"), "in how a number is written"),
        (("007", "7."), "in how a number is written"),
        (("0", "0.00"), "in how a number is written"),
        (("anna", "Anna", "ANNA "), "in letter case or width"),
        (("7", "7.0", "\u200b7"), "in how a number is written"),
    ],
)
def test_names_that_differ_invisibly(names: tuple[str, ...], why: str) -> None:
    for order in itertools.permutations(names):
        (text,) = find_like_names({name: [2 + k] for k, name in enumerate(order)} | {"bob": [9]})
        assert text.endswith(why)
        assert all(ascii(name) in text for name in names)
        assert [text.index(f"(line {2 + k})") for k in range(len(order))] == sorted(
            text.index(f"(line {2 + k})") for k in range(len(order))
        )


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("anna",),
        ("anna", "anne"),
        ("7", "70"),
        ("7.5", "7"),
        ("7", "-7"),
        ("a1", "a01"),
        ("7.0.0", "7"),
    ],
)
def test_names_that_differ(names: tuple[str, ...]) -> None:
    assert find_like_names({name: [2] for name in names}) == []


def test_many_like_names_and_endless_ones_take_no_time() -> None:
    names = [f"{letter}{i}" for i in range(5_000) for letter in "pP"]
    started = time.process_time()
    assert len(find_like_names({name: [2] for name in names})) == 5_000
    assert find_like_names({"0" * 10**5 + "x": [2], "x": [3]}) == []
    assert time.process_time() - started < 5  # it took minutes


ROWS = "clip_id,path,identity,split\n"


def manifest_of(
    folder: Path, rows: str, *, header: str = ROWS, root: Path | None = None
) -> Manifest:
    (folder / "m.csv").write_text(header + rows, encoding="utf-8")
    return read_manifest(folder / "m.csv", root)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """a, b and c differ and are as large; `copy` is a's."""
    for k, name in enumerate("abc"):
        data = np.random.default_rng(k).bytes(300_000)
        (tmp_path / f"{name}.mp4").write_bytes(data)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    return tmp_path


def test_one_line_names_all(clips: Path) -> None:
    manifest = manifest_of(clips, "1,a.mp4,Anna,train\n2,b.mp4,anna,val\n3,c.mp4,anna,val\n")
    (text,) = warn_of_doubles(manifest)
    assert "m.csv: people whose names differ only so: 'Anna' (line 2) and 'anna' (line 3 …)" in text
    assert "write them alike" in text
    assert "\n" not in text


def test_a_name_that_nobody_sees_is_not_nobody(clips: Path) -> None:
    (text,) = warn_of_doubles(manifest_of(clips, "1,a.mp4,\u200b,train\n2,b.mp4,anna,val\n"))
    assert "'' and '\\u200b' (line 2) in invisible characters" in text
    assert warn_of_doubles(manifest_of(clips, "1,a.mp4,,train\n2,b.mp4,anna,val\n")) == []


@pytest.mark.parametrize("spelling", ["a.mp4", "./a.mp4", "x/../a.mp4", "{root}/a.mp4"])
@pytest.mark.parametrize(
    ("identity", "split", "clash"),
    [("ann", "train", False), ("ann", "val", True), ("bob", "train", True), ("", "train", True)],
)
def test_one_file_in_two_splits_or_of_two_people(
    spelling: str, identity: str, split: str, clash: bool, clips: Path
) -> None:
    (clips / "x").mkdir()
    path = spelling.format(root=clips)
    manifest = manifest_of(
        clips, f"1,a.mp4,ann,train\n2,b.mp4,ann,val\n3,{path},{identity},{split}\n"
    )
    texts = warn_of_doubles(manifest)
    assert len(texts) == clash
    if clash:
        assert (
            "the same file in two splits or under two identities: 'a.mp4' (line 2: train"
            in texts[0]
        )
        assert f"(line 4: {split}, " in texts[0]
    assert warn_of_equal_contents(manifest) == []  # it is not said twice


@pytest.mark.parametrize(
    ("times", "clash"),
    [
        (("0,5", "5,9"), False),
        (("5,9", "0,5"), False),
        (("0,5", "4.9,9"), True),
        ((",5", "5,"), False),
        ((",", "8,9"), True),
        (("8,", "7,8"), False),
        (("3,4", "0,9"), True),
    ],
)
def test_parts_of_one_file_are_clips_of_their_own(
    times: tuple[str, str], clash: bool, clips: Path
) -> None:
    header = ROWS.strip() + ",start_seconds,end_seconds\n"
    rows = f"1,a.mp4,ann,train,{times[0]}\n2,a.mp4,bob,val,{times[1]}\n"
    assert len(warn_of_doubles(manifest_of(clips, rows, header=header))) == clash


@pytest.mark.parametrize("seed", range(30))
def test_clashes_are_those_of_all_pairs(seed: int, tmp_path: Path) -> None:
    """A file is named if any two of its clips overlap and differ."""
    rng = np.random.default_rng(seed)
    (tmp_path / "a.mp4").write_bytes(b"x")
    starts = rng.integers(0, 12, 6)
    rows = [
        (
            int(a),
            int(a + rng.choice([1, 2, 9])),
            str(rng.choice(["ann", "bob"], p=[0.8, 0.2])),
            "val",
        )
        for a in starts
    ]
    header = ROWS.strip() + ",start_seconds,end_seconds\n"
    text = "".join(
        f"{k},a.mp4,{who},{split},{a},{b}\n" for k, (a, b, who, split) in enumerate(rows)
    )
    wanted = any(
        p[2:] != q[2:] and p[0] < q[1] and q[0] < p[1] for p, q in itertools.combinations(rows, 2)
    )
    assert bool(warn_of_doubles(manifest_of(tmp_path, text, header=header))) == wanted


def test_copies_are_found_by_their_content(clips: Path) -> None:
    manifest = manifest_of(clips, "1,a.mp4,ann,train\n2,b.mp4,ann,val\n3,copy.mp4,ann,val\n")
    assert warn_of_doubles(manifest) == []
    (text,) = warn_of_equal_contents(manifest)
    assert (
        "the same content in two splits or under two identities: 'a.mp4' (line 2: train, 'ann') "
        "and 'copy.mp4' (line 4: val, 'ann')" in text
    )
    assert "b.mp4" not in text


@pytest.mark.parametrize("at", [0, 1000, 150_000, -1])
def test_a_byte_is_a_difference(at: int, clips: Path) -> None:
    data = bytearray((clips / "a.mp4").read_bytes())
    data[at] ^= 1
    (clips / "copy.mp4").write_bytes(data)
    manifest = manifest_of(clips, "1,a.mp4,ann,train\n2,copy.mp4,ann,val\n")
    assert warn_of_equal_contents(manifest) == []


def test_links_are_one_file(clips: Path) -> None:
    (clips / "copy.mp4").unlink()
    os.link(clips / "a.mp4", clips / "hard.mp4")
    (clips / "soft.mp4").symlink_to("a.mp4")
    manifest = manifest_of(clips, "1,a.mp4,ann,train\n2,hard.mp4,ann,val\n3,soft.mp4,bob,val\n")
    (text,) = warn_of_equal_contents(manifest)
    assert all(name in text for name in ("a.mp4", "hard.mp4", "soft.mp4"))


@pytest.mark.parametrize("in_tar", [False, True])
def test_folders_of_pictures(in_tar: bool, tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for clip, seeds in {"a": (1, 2, 3), "b": (1, 9, 3), "c": (1, 2, 3), "d": (1, 2)}.items():
        for k, seed in enumerate(seeds):
            write_crop(root / clip / f"{k}.bmp", "red", seed=seed)  # all are as large
    assert not np.array_equal(crop_of("red", seed=2), crop_of("red", seed=9))
    location = root
    if in_tar:
        location = tmp_path / "faces.tar"
        with tarfile.open(location, "w") as archive:
            archive.add(root, "")
    rows = "1,a,ann,train\n2,b,ann,val\n3,c,ann,val\n4,d,ann,val\n"
    (text,) = warn_of_equal_contents(manifest_of(tmp_path, rows, root=location))
    assert "'a' (line 2: train, 'ann') and 'c' (line 4: val, 'ann')" in text
    assert "line 3" not in text


def test_little_is_read(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what differs in size nothing, of what differs at an end no more than the ends."""
    (clips / "c.mp4").write_bytes(b"short")
    (clips / "empty.mp4").write_bytes(b"")
    rows = "1,a.mp4,ann,train\n2,b.mp4,ann,val\n3,c.mp4,ann,val\n"
    manifest = manifest_of(clips, f"{rows}4,empty.mp4,ann,val\n5,empty.mp4,ann,val\n")
    read: list[str] = []
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda p, *how: read.append(p.name) or opened(p, *how))
    assert warn_of_equal_contents(manifest) == []
    assert read == ["a.mp4", "b.mp4"]


def test_clips_that_cannot_be_read_are_no_doubles(clips: Path) -> None:
    rows = [Clip("1", "a.mp4", "ann", "train"), Clip("2", "copy.mp4", "ann", "val")]
    write_manifest(rows, clips / "m.csv")
    (clips / "copy.mp4").unlink()
    manifest = read_manifest(clips / "m.csv", allow_missing=True)
    assert warn_of_equal_contents(manifest) == []
    manifest.root  # noqa: B018
    (clips / "a.mp4").unlink()
    assert warn_of_equal_contents(manifest) == []


def test_a_root_at_a_url_is_compared_by_path_alone(tmp_path: Path) -> None:
    url = "https://example.org/a.mp4"
    rows = f"1,{url}?X-Amz-Signature=1,ann,train\n2,{url}?X-Amz-Signature=2,ann,val\n"
    (tmp_path / "m.csv").write_text(ROWS + rows, encoding="utf-8")
    manifest = read_manifest(tmp_path / "m.csv", check_files=False)
    (text,) = warn_of_doubles(manifest)
    assert "Signature=1" not in text
    assert warn_of_equal_contents(manifest) == []


def test_the_commands_say_it_and_figures_stay(
    vidface, tmp_path: Path, colour_network: Path
) -> None:
    """red's probe is a copy of its gallery; green is spelled in two ways."""
    for clip, seed in {"red/1": 1, "red/2": 1, "green/1": 2, "green/2": 3}.items():
        write_crop(tmp_path / "clips" / clip / "0.png", clip.split("/")[0], seed=seed)
    rows = "r1,clips/red/1,red,train\nr2,clips/red/2,red,val\n"
    rows += "g1,clips/green/1,green,train\ng2,clips/green/2,Green,val\n"
    (tmp_path / "manifest.csv").write_text(ROWS + rows, encoding="utf-8")
    flags = ("--source", "aligned", "--weights", colour_network, "--color", "rgb", "--mean", 127.5)
    flags += ("--manifest", "manifest.csv", "--run", "run")
    done = vidface("extract", *flags)
    assert done.code == 0
    assert done.err.count("people whose names differ only so: 'green' (line 4) and 'Green'") == 1
    assert done.err.count("the same content in two splits") == 1
    assert "'clips/red/1' (line 2: train, 'red') and 'clips/red/2' (line 3: val" in done.err
    assert "the same content" not in vidface("extract", *flags).err  # no work, no look
    assert vidface("cluster", *flags).code == 0
    done = vidface("score", *flags)
    assert "people whose names differ only so" in done.err


@pytest.mark.parametrize("path", ["copy.mp4", "a.mp4", "./a.mp4"])
def test_a_clip_that_stands_twice_is_named_where_repeats_are_asked_for(
    path: str, clips: Path
) -> None:
    manifest = manifest_of(clips, f"1,a.mp4,ann,val\n2,b.mp4,ann,val\n3,{path},ann,val\n")
    assert warn_of_equal_contents(manifest) == []
    (text,) = warn_of_equal_contents(manifest, repeats=True)
    assert (
        "the same content twice in one split under one name: 'a.mp4' (line 2: val, 'ann')" in text
    )
    assert f"and '{path}' (line 4" in text
    assert "b.mp4" not in text


def test_repeats_and_clashes_are_told_apart(clips: Path) -> None:
    manifest = manifest_of(
        clips, "1,a.mp4,ann,train\n2,copy.mp4,ann,val\n3,b.mp4,,val\n4,b.mp4,,val\n"
    )
    assert len(warn_of_equal_contents(manifest)) == 1
    clash, repeat = warn_of_equal_contents(manifest, repeats=True)
    assert "in two splits or under two identities: 'a.mp4'" in clash
    assert "'b.mp4' (line 4: val, nobody known) and 'b.mp4' (line 5" in repeat
