from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import pickle
import random
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.budgets import examples
from tests.conftest import crop_of
from tests.datasets.test_pairs import picture
from tests.make_recordio_golden import faces_payloads, packed, write_records
from vidface.core.errors import ClipError, VidfaceError
from vidface.training.sources import SOURCES, open_source
from vidface.training.sources.base import (
    MAX_IMAGE_BYTES,
    FaceSource,
    Pictures,
    PictureSource,
    class_counts,
    compute_fingerprint,
)
from vidface.training.sources.packed_names import PackedNames
from vidface.training.sources.shards import expand_braces
from vidface.training.sources.subsets import hold_out, take_images
from vidface.training.sources.tars import read_tar_members

FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
RED = [picture("red", seed=k) for k in range(3)]
BLUE = [picture("blue", seed=k) for k in range(2)]
FACES = {
    "faces/red/10.png": RED[0],
    "faces/red/9.png": RED[1],
    "faces/blue/a.PNG": BLUE[0],
    "faces/red/b.png": RED[2],
    "faces/blue/b.png": BLUE[1],
    "faces/red/.hidden.png": b"x",
    "faces/red/notes.txt": b"x",
    "faces/.cache/x.png": b"x",
}
IN_ORDER = [  # blue before red, natural order within
    ("blue", "faces/blue/a.PNG", crop_of("blue", seed=0)),
    ("blue", "faces/blue/b.png", crop_of("blue", seed=1)),
    ("red", "faces/red/9.png", crop_of("red", seed=1)),
    ("red", "faces/red/10.png", crop_of("red", seed=0)),
    ("red", "faces/red/b.png", crop_of("red", seed=2)),
]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar_of(path: Path, files: dict[str, bytes], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def laid_out(kind: str, tmp_path: Path, files: dict[str, bytes]) -> Path:
    """As a folder or a tar."""
    if kind == "tar":
        return tar_of(tmp_path / "set.tar", files)
    return write(tmp_path / "set", files)


def everything(source: FaceSource) -> list[tuple[str, str, np.ndarray]]:
    return [
        (source.identities[source.labels[i]], source.name(i), source.image(i))
        for i in range(len(source))
    ]


def assert_holds(source: FaceSource, expected: list[tuple[str, str, np.ndarray]]) -> None:
    found = everything(source)
    assert [person for person, _, _ in found] == [person for person, _, _ in expected]
    for (_, name, image), (_, end, pixels) in zip(found, expected, strict=True):
        assert name.endswith(end)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, pixels)


# What all kinds share


class InMemory(Pictures):
    def __init__(self, files: list[bytes]) -> None:
        super().__init__([f"number {index}" for index in range(len(files))])
        object.__setattr__(self, "files", files)

    def read(self, index: int) -> bytes:
        return self.files[index]


def faces(labels: list[int], names: str = "abcdefgh", **fields: Any) -> PictureSource:
    values = {
        "title": "set",
        "identities": tuple(names[: max(labels, default=0) + 1]),
        "labels": np.array(labels, dtype=np.int64),
        "fingerprint": "f",
        "pictures": InMemory([RED[0]] * len(labels)),
    }
    return PictureSource(**{**values, **fields})


def test_faces_in_words() -> None:
    source = faces([0, 1, 1], note="2 left out")
    assert str(source) == (
        "PictureSource(set: 3 images (112, 112, 3) uint8 RGB of 2 people, labels (3,); 2 left out)"
    )
    assert str(take_images(source, source.labels == 1)) == (
        "Subset(2 images (112, 112, 3) uint8 RGB of 1 people, labels (2,); of " + f"{source})"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": []}, "set: no image to train on"),
        ({"labels": [0, 2, 3, 5, 7]}, "set: no image of 'b', 'e', 'g'; every person needs one"),
        ({"labels": [0, 7]}, "set: no image of 'b', 'c', 'd' and 3 more"),
        ({"labels": [0, 1], "identities": ("a",)}, r"labels 0 … 1 where 1 people have .* 0 … 0"),
        ({"labels": [-1, 0], "identities": ("a",)}, r"labels -1 … 0 where 1 people"),
        ({"labels": [0, 1], "identities": ("b", "a")}, "'a' must not stand behind 'b'"),
        ({"labels": [0, 1], "identities": ("a", "a")}, "'a' must not stand behind 'a'"),
        ({"labels": [0], "identities": ("",)}, "'' cannot be a person's name"),
        ({"labels": [0], "identities": ("a\x1b[2J",)}, "cannot be a person's name"),
        ({"labels": [0], "identities": ("a\udce9",)}, "cannot be a person's name"),
    ],
)
def test_faces_that_cannot_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        faces(**fields)


@pytest.mark.parametrize("array", [np.zeros((1, 1), np.int64), np.zeros(1, np.int32), np.zeros(1)])
def test_labels_of_another_type(array: np.ndarray) -> None:
    with pytest.raises(VidfaceError, match=r"labels must be \(n,\) int64, got"):
        PictureSource("set", ("a",), array, "f", InMemory(RED))


def test_labels_cannot_be_written_but_the_callers_can() -> None:
    labels = np.zeros(1, dtype=np.int64)
    source = PictureSource("set", ("a",), labels, "f", InMemory(RED))
    with pytest.raises(ValueError, match="read-only"):
        source.labels[0] = 1
    labels[0] = 0


@pytest.mark.parametrize("index", [-1, 3, 10**6])
def test_image_that_is_not_there(index: int) -> None:
    source = faces([0, 0, 1])
    for one in (source, take_images(source, np.ones(3, dtype=np.bool_))):
        for ask in (one.image, one.name):
            with pytest.raises(VidfaceError, match=f"image {index} of 3, counted from 0"):
                ask(index)


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 7, np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_images_of_another_size() -> None:
    files = InMemory([png(112, 111), png(224, 224), png(1, 1), png(112, 112), RED[0][:-900], b""])
    source = faces([0] * 6, pictures=files)
    for i, size in enumerate(["111x112", "224x224", "1x1"]):
        with pytest.raises(VidfaceError, match=f"^set: number {i}: {size} pixels, not 112x112; "):
            source.image(i)
    resizing = faces([0] * 6, pictures=files, resize=True)
    with pytest.raises(VidfaceError, match="111x112 pixels, not a square one; align"):
        resizing.image(0)
    for i in (1, 2, 3):
        np.testing.assert_array_equal(resizing.image(i), np.full((112, 112, 3), 7, np.uint8))
    for i in (4, 5):
        with pytest.raises(ClipError, match=f"^set: number {i}: not a whole picture"):
            source.image(i)


def test_resizing_averages() -> None:
    """Black and white lines become grey, not stripes."""
    stripes = np.zeros((448, 448, 3), np.uint8)
    stripes[::2] = 255
    file = io.BytesIO()
    Image.fromarray(stripes).save(file, "PNG")
    image = faces([0], pictures=InMemory([file.getvalue()]), resize=True).image(0)
    assert image.shape == (112, 112, 3)
    assert abs(image[5:-5].astype(int) - 127).max() < 20


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("folder", {}, "unknown source kind 'folder' .known: folders, manifest, recordio, shards"),
        ("folders", {"split": "val"}, r"'folders' has no setting 'split' \(known: resize\)"),
        ("manifest", {"rooot": "x"}, r"known: split, root, resize"),
        ("recordio", {"resize": "no"}, "resize = 'no': give true or false"),
        *[(kind, {}, "nowhere") for kind in SOURCES],
    ],
)
def test_open_source_refuses(tmp_path: Path, kind: str, options: dict, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        open_source(kind, tmp_path / "nowhere", **options)


@given(names=st.lists(st.text() | st.just("\udcff\ud800"), max_size=6))
def test_packed_names(names: list[str]) -> None:
    found = PackedNames(names)
    assert list(found) == names
    assert len(found) == len(names)
    assert [found[-1 - i] for i in range(len(names))] == names[::-1]
    assert found[1:4] == names[1:4]
    assert list(pickle.loads(pickle.dumps(found))) == names


def test_fingerprint_tells_names_apart() -> None:
    """Names with the same letters one after the other are not the same names."""
    numbers = np.zeros(2, dtype=np.int64)
    lists = [["ab", "c"], ["a", "bc"], ["", "abc"]]
    found = {
        compute_fingerprint(people, numbers, PackedNames(names), numbers)
        for people in lists
        for names in lists
    }
    assert len(found) == 9


# Subsets


@given(st.data())
@examples(50)
def test_subset_of_subset(draw: st.DataObject) -> None:
    given_labels = draw.draw(st.lists(st.integers(0, 4), min_size=1, max_size=12))
    used = sorted(set(given_labels))
    labels = [used.index(label) for label in given_labels]
    source = faces(labels)
    rows = list(range(len(labels)))
    current: FaceSource = source
    for _ in range(draw.draw(st.integers(1, 2))):
        keep = draw.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        if not any(keep):
            keep[0] = True
        rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
        current = take_images(current, np.array(keep))
        people = sorted({source.identities[labels[row]] for row in rows})
        assert current.identities == tuple(people)
        assert current.labels.dtype == np.int64
        assert current.labels.tolist() == [
            people.index(source.identities[labels[row]]) for row in rows
        ]
        assert [current.name(i) for i in range(len(rows))] == [source.name(row) for row in rows]
    direct = take_images(source, np.isin(np.arange(len(labels)), rows))
    assert current.source is source
    assert current.fingerprint == direct.fingerprint
    assert class_counts(current).tolist() == [
        sum(source.identities[labels[row]] == person for row in rows)
        for person in current.identities
    ]


def test_subset_images_and_fingerprints() -> None:
    source = faces([0, 0, 1], pictures=InMemory(RED))
    some = take_images(source, np.array([True, False, True]))
    np.testing.assert_array_equal(some.image(1), crop_of("red", seed=2))
    others = {
        some.fingerprint,
        source.fingerprint,
        take_images(source, source.labels == 0).fingerprint,
    }
    assert len(others) == 3
    other = take_images(faces([0, 0, 1], fingerprint="g"), np.array([True, False, True]))
    assert other.fingerprint not in others


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (np.zeros(3, dtype=np.bool_), "none of 3 images is kept"),
        (np.ones(2, dtype=np.bool_), r"keep must be \(3,\) bool, got \(2,\) bool"),
        (np.array([0, 1, 2]), r"must be \(3,\) bool, got \(3,\) int64"),
        ([True, True, True], "must be .* got <class 'list'>"),
    ],
)
def test_subset_refuses(keep: Any, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        take_images(faces([0, 0, 1]), keep)


@pytest.mark.parametrize("people", [1, 3, 4])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_hold_out(people: int, seed: int) -> None:
    source = faces([0, 1, 2, 3, 4, 4, 3, 0])
    train, held_out = hold_out(source, people, seed)
    assert len(held_out.identities) == people
    assert sorted(train.identities + held_out.identities) == list("abcde")
    assert len(train) + len(held_out) == len(source)
    for part in (train, held_out):
        for i in range(len(part)):
            row = int(part.indices[i])
            assert part.identities[part.labels[i]] == source.identities[source.labels[row]]
    again = hold_out(source, people, seed)
    assert [part.fingerprint for part in again] == [train.fingerprint, held_out.fingerprint]


def test_hold_out_depends_on_the_seed_and_not_on_the_images() -> None:
    source, other = faces([0, 1, 2, 3, 4, 5, 6, 7]), faces([7, 7, 6, 5, 4, 3, 2, 1, 0])
    chosen = [hold_out(source, 3, seed)[1].identities for seed in range(20)]
    assert chosen == [hold_out(other, 3, seed)[1].identities for seed in range(20)]
    assert len(set(chosen)) > 5
    assert {name for names in chosen for name in names} == set("abcdefgh")


@pytest.mark.parametrize(("people", "seed"), [(0, 0), (2, 0), (-1, 0), (3, 0), (1, -1)])
def test_hold_out_refuses(people: int, seed: int) -> None:
    with pytest.raises(VidfaceError, match=r"hold_out: (seed )?-?[0-9]"):
        hold_out(faces([0, 1]), people, seed)


# Folders


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("below", ["", "faces/", "a/b/faces/"])
def test_folders(tmp_path: Path, kind: str, below: str) -> None:
    files = {name.replace("faces/", below): content for name, content in FACES.items()}
    source = open_source("folders", laid_out(kind, tmp_path, files))
    assert source.identities == ("blue", "red")
    assert source.labels.tolist() == [0, 0, 1, 1, 1]
    assert_holds(source, [(p, n.replace("faces/", below), image) for p, n, image in IN_ORDER])
    assert str(tmp_path) in source.name(0)


def test_fingerprint_of_folders(tmp_path: Path) -> None:
    """The same for a folder and its tar, anywhere; another when anything else changes."""
    first = open_source("folders", write(tmp_path / "one", FACES)).fingerprint
    assert open_source("folders", tar_of(tmp_path / "a.tar", FACES)).fingerprint == first
    name, renamed = "faces/red/9.png", "faces/red/8.png"
    changes = [
        {**FACES, name: FACES[name] + b"\0"},
        {n: c for n, c in FACES.items() if n != name},
        {renamed if n == name else n: c for n, c in FACES.items()},
        {n.replace("blue", "bleu"): c for n, c in FACES.items()},
    ]
    found = {
        open_source("folders", tar_of(tmp_path / f"{k}.tar", files)).fingerprint
        for k, files in enumerate(changes)
    }
    assert len(found - {first}) == len(changes)
    assert all(len(text) == 64 for text in found)


def test_one_person_alone(tmp_path: Path) -> None:
    for kind in ("folder", "tar"):
        source = open_source("folders", laid_out(kind, tmp_path, {"red/1.png": RED[0]}))
        assert (source.identities, source.labels.tolist()) == (("red",), [0])


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b"x"}, "no image in it, expected person/image.jpg"),
        ({"a/readme.txt": b"x"}, "no image"),
        ({"1.png": b"x"}, r"1\.png does not lie as person/image\.jpg"),
        ({"a/1.png": b"x", "b/1.png": b"x", "1.png": b"x"}, r": 1\.png does not lie"),
        ({"a/1.png": b"x", "b/1.png": b"x", "b/c/1.png": b"x"}, r"b/c/1\.png does not lie"),
        ({"a/1.png": b"x", "a/c/1.png": b"x"}, r"a/c/1\.png does not lie"),
        ({"a/1.png": b"\0" * (MAX_IMAGE_BYTES + 1)}, r"a/1\.png: 16,777,217 bytes"),
    ],
)
def test_folders_that_are_wrong(tmp_path: Path, kind: str, files: dict, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        open_source("folders", laid_out(kind, tmp_path, files))


@pytest.mark.parametrize("below", ["", "top/"])
def test_person_without_an_image(tmp_path: Path, below: str) -> None:
    files = {f"{below}a/1.png": RED[0], f"{below}b/1.png": RED[0]}
    folder = write(tmp_path / "set", files)
    (folder / below / "zoe").mkdir()
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".")
    (folder / below / ".hidden").mkdir()
    (folder / below / "__MACOSX").mkdir()
    for place in (folder, path):
        with pytest.raises(VidfaceError, match=f"folder {below}zoe has no image"):
            open_source("folders", place)
    (folder / below / "zoe").rmdir()
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname=".")
    for place in (folder, path):
        assert open_source("folders", place).identities == ("a", "b")


def test_empty_folder_and_circle(tmp_path: Path) -> None:
    (tmp_path / "set" / "a").mkdir(parents=True)
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", arcname=".")
    for place in ("set", "set.tar"):
        with pytest.raises(VidfaceError, match=f"{place}: no image in it"):
            open_source("folders", tmp_path / place)
    (tmp_path / "set" / "a").rmdir()
    with pytest.raises(VidfaceError, match="set: no image in it"):
        open_source("folders", tmp_path / "set")
    (tmp_path / "set" / "loop").symlink_to(".")
    with pytest.raises(VidfaceError, match="levels of symbolic links"):
        open_source("folders", tmp_path / "set")


def test_files_that_changed_after_opening(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", {"a/1.png": RED[0], "a/2.png": RED[1], "b/1.png": RED[2]})
    source = open_source("folders", folder)
    (folder / "a" / "1.png").unlink()
    (folder / "a" / "2.png").write_bytes(b"\0" * (MAX_IMAGE_BYTES + 1))
    with pytest.raises(VidfaceError, match=r"a/1\.png: No such file"):
        source.image(0)
    with pytest.raises(VidfaceError, match=r"a/2\.png: 16,777,217 bytes"):
        source.image(1)
    np.testing.assert_array_equal(source.image(2), crop_of("red", seed=2))

    path = tar_of(tmp_path / "set.tar", FACES)
    source = open_source("folders", path)
    os.truncate(path, 1000)
    with pytest.raises(VidfaceError, match=r"set\.tar: faces/.*: cut off since it was opened"):
        source.image(0)
    path.unlink()
    with pytest.raises(VidfaceError, match=r"set\.tar: faces/.*: No such file"):
        pickle.loads(pickle.dumps(source)).image(0)


# Tars


def naive_members(path: Path) -> list[tuple[str, str, bytes | None]]:
    with tarfile.open(path, "r:") as archive:
        return [
            ("folder", m.name, None)
            if m.isdir()
            else ("file", m.name, archive.extractfile(m).read())
            if m.isreg()
            else ("other", m.name, None)
            for m in archive
        ]


def found_members(path: Path) -> list[tuple[str, str, bytes | None]]:
    data = path.read_bytes()
    return [
        (m.kind, m.name, data[m.offset : m.offset + m.size] if m.kind == "file" else None)
        for m in read_tar_members(path)
    ]


part = st.text("ab9é_ .", min_size=1, max_size=70).filter(lambda text: text.strip(". "))
member_names = st.lists(part, min_size=1, max_size=5).map("/".join)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@given(
    members=st.lists(st.tuples(member_names, kinds, st.binary(max_size=1100)), max_size=4),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    headers=st.sampled_from([{}, {"comment": "x" * 700}]),
)
@example([("n" * 100, b"0", b"a"), ("d/" * 40 + "m" * 60, b"0", b"b")], tarfile.USTAR_FORMAT, {})
@FOLDER
def test_tar_members_as_tarfile_has_them(
    tmp_path: Path, members: list, form: int, headers: dict
) -> None:
    path = tmp_path / "any.tar"
    with tarfile.open(path, "w", format=form, pax_headers=headers) as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "target" * (30 if form != tarfile.USTAR_FORMAT else 1)
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            try:
                archive.addfile(info, io.BytesIO(content))
            except ValueError:  # ustar cannot hold every name
                continue
        assume(archive.getmembers() or not headers)  # tarfile cannot read its own empty one
    assert found_members(path) == naive_members(path)


def test_pax_and_large_sizes(tmp_path: Path) -> None:
    """A size that only the pax header tells; GNU's way with large numbers; a plain V7 folder."""
    path = tmp_path / "a.tar"
    told = pax_record("path", "é.png") + pax_record("size", "3") + pax_record("x.y", "a=b\nc")
    members = header("ustar", 0) + b"abc".ljust(512, b"\0") + header("plain.png", 0)
    path.write_bytes(pax(told) + members + END)
    assert found_members(path) == [("file", "é.png", b"abc"), ("file", "plain.png", b"")]

    tar_of(path, {"b.png": b"abc", "c/": b""}, format=tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[124:136] = b"\x80" + (3).to_bytes(11, "big")
    data[156] = 0
    with_checksum(data, 0)
    path.write_bytes(data)
    assert found_members(path) == [("file", "b.png", b"abc"), ("folder", "c", None)]


def with_checksum(data: bytearray, at: int) -> None:
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def pax_record(key: str, value: str) -> bytes:
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length += 1
    return str(length).encode() + text


def header(name: str, size: int | bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    with_checksum(block, 0)
    return bytes(block)


END = b"\0" * 1024
GOOD = header("a/1.png", len(RED[0])) + RED[0] + b"\0" * (-len(RED[0]) % 512)


def pax(data: bytes) -> bytes:
    return header("p", len(data), b"x") + data + b"\0" * (-len(data) % 512)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut off at byte 0, the mark of a tar's end is missing"),
        (GOOD, "the mark of a tar's end is missing"),
        (GOOD + header("b/1.png", 2**33 - 1), r"'b/1\.png' has 0 of 8,589,934,591 bytes"),
        (GOOD + header("b/1.png", b"\x80" + b"\xff" * 11), "has 0 of 309,485"),
        (GOOD + header("b/1.png", b"\xff" * 11 + b"\x00"), "is not a number"),  # negative
        (GOOD + header("b/1.png", b"-0000001000\0"), "is not a number"),
        (GOOD + header("b/1.png", b"99999999999\0"), "is not a number"),
        (GOOD + header("long", 2**20, b"L") + b"x" * 2**20 + END, "a header of 1,048,576 bytes"),
        (GOOD + pax(b"x" * (2**20 + 1)) + END, "a header of 1,048,577 bytes"),
        (GOOD + pax(b"0 path=x\n") + END, "pax header that is damaged"),
        (GOOD + pax(b"9 path=x\n"[:-1] + b"y") + END, "pax header that is damaged"),
        (GOOD + pax(b"99 path=x\n") + END, "pax header that is damaged"),
        (GOOD + pax(b"-9 path=x\n") + END, "in a pax header is not a number"),
        (GOOD + pax(b"1" * 60000) + END, "pax header"),
        (GOOD + pax(b"12 size=-512\n") + END, "pax header that is damaged"),
        (GOOD + pax(b"13 size=-512\n") + header("b", 0) + END, "'-512' in a pax|is not a number"),
        (GOOD + pax(b"22 GNU.sparse.major=1\n") + header("b/1.png", 0) + END, "stored sparse"),
        (GOOD + header("b/1.png", 0, b"S") + END, "'b/1.png' is stored sparse"),
        (b"\x1f\x8b" + b"x" * 600, r"no header at byte 0 .*decompress it first"),
        (GOOD + b"x" * 512, f"no header at byte {len(GOOD):,} "),
    ],
)
def test_hostile_tars(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "evil.tar").write_bytes(content)
    for kind in ("folders", "shards"):
        with pytest.raises(VidfaceError, match=message) as caught:
            open_source(kind, tmp_path / "evil.tar")
        assert str(caught.value).startswith(f"{tmp_path / 'evil.tar'}: not a whole uncompressed")


def test_members_that_lead_elsewhere_are_counted(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(RED[1])
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"Z"):
            info = tarfile.TarInfo(f"a/{kind.hex()}.png")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        for name in (str(secret), "../secret.png", "a/../../secret.png"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(VidfaceError, match=r"no image in it.*\(8 link\(s\), device"):
        open_source("folders", path)
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("./b/../a//1.png")
        info.size = len(RED[0])
        archive.addfile(info, io.BytesIO(RED[0]))
    source = open_source("folders", path)
    assert_holds(source, [("a", "a/1.png", crop_of("red", seed=0))])
    assert "8 link(s)" in str(source)


def test_member_stored_twice(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a/1.png": RED[0], "./a/1.png": RED[1]})
    assert_holds(open_source("folders", path), [("a", "a/1.png", crop_of("red", seed=1))])


def test_huge_members_cost_nothing(tmp_path: Path) -> None:
    """A sparse file of 40 GB behind the header of one member; nothing of it is read."""
    path = tmp_path / "huge.tar"
    size = 40 * 2**30
    with path.open("wb") as file:
        file.write(GOOD + header("b/1.png", b"\x80" + size.to_bytes(11, "big")))
        file.truncate(len(GOOD) + 512 + size + 1024)
    tracemalloc.start()
    with pytest.raises(VidfaceError, match=r"b/1\.png: 42,949,672,960 bytes; no aligned face"):
        open_source("folders", path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_tar_cut_off(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"a/1.png": b"x" * 700, "b/2.png": b"y" * 10})
    data = path.read_bytes()
    end = 512 + 1024 + 512 + 512 + 512  # two members and one block of the end's mark
    for n_bytes in range(end - 1, -1, -1):
        if n_bytes % 512 in (0, 1, 300, 511):
            os.truncate(path, n_bytes)
            with pytest.raises(VidfaceError, match="cut off"):
                open_source("folders", path)
    path.write_bytes(data[:end])
    assert len(open_source("folders", path)) == 2


def test_tars_with_any_byte_changed(tmp_path: Path) -> None:
    """VidfaceError or a source, whatever the damage; checksums made right again."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a/é1.png", "b/1.png"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    data = path.read_bytes()
    blocks = [at for at in range(0, 4096, 512) if data[at + 257 : at + 262] == b"ustar"]
    assert len(blocks) == 3
    chance = random.Random(0)
    n_opened = 0
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 2, 8])):
            damaged[chance.randrange(3072)] = chance.choice(
                [0, 0x80, 0xFF, 48, 55, chance.randrange(256)]
            )
        for at in blocks:
            with_checksum(damaged, at)
        path.write_bytes(damaged)
        try:
            n_opened += len(open_source("folders", path)) > 0
        except VidfaceError:
            continue
    assert 30 < n_opened < 500


# Manifests

TABLE = """clip_id,path,identity,split
r1,faces/red,red,train
b1,faces/blue/b.png,blue,train
n1,faces/blue,,train
b2,faces/blue,blue,val
g1,faces/blue/a.PNG,green,val
"""


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_manifest(tmp_path: Path, kind: str) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(TABLE)
    root = laid_out(kind, tmp_path, FACES)
    source = open_source("manifest", table, root=root)
    assert source.identities == ("blue", "red")
    red = [(p, n, image) for p, n, image in IN_ORDER if p == "red"]
    assert_holds(source, [*red, IN_ORDER[1]])
    assert str(source).endswith("labels (4,); 2 clips, 1 of nobody known left out)")
    assert source.name(0) == f"{table}, train: faces/red/9.png"

    table.write_text(TABLE.replace(",red,", ",Blue,"))
    told = str(open_source("manifest", table, root=root))
    assert "people whose names differ only so: 'Blue' (line" in told
    table.write_text(TABLE)

    val = open_source("manifest", table, root=str(root), split="val")
    assert val.identities == ("blue", "green")
    assert val.labels.tolist() == [0, 0, 1]
    assert str(val).endswith("2 clips)")
    assert val.fingerprint != source.fingerprint


def test_fingerprint_of_manifest(tmp_path: Path) -> None:
    write(tmp_path, FACES)
    found = []
    for text in (TABLE, TABLE + "x,faces/blue,,val\n", TABLE.replace("red,red", "red,rod")):
        (tmp_path / "clips.csv").write_text(text)
        found.append(open_source("manifest", tmp_path / "clips.csv").fingerprint)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("line", "options", "message"),
    [
        ("", {"split": "training"}, r"'training' is unknown \(known: train, val"),
        ("", {"split": "test"}, "split 'test' has 0 clips, none with an identity; its splits: tra"),
        ("x,faces/red,,test", {"split": "test"}, "has 1 clips, none with an identity"),
        ("x,faces/red/notes.txt,x,train", {}, r"line 7: clip 'x': .*notes\.txt is no folder of"),
        ("x,empty,x,train", {}, "line 7: clip 'x': no image in empty"),
        ("x,nothing,x,train", {}, "no file or folder 'nothing'"),
        ("x,big.png,x,train", {}, r"big\.png: 16,777,217 bytes"),
        ("x,faces/red,bad\x07name,train", {}, "holds control characters"),
        ("x,faces/red,bad\u202ename,train", {}, "cannot be a person's name"),
        ("", {"root": 5}, "root = 5 is not the name"),
        ("", {"root": "/nowhere"}, "root /nowhere: no such folder"),
    ],
)
def test_manifest_that_is_wrong(tmp_path: Path, line: str, options: dict, message: str) -> None:
    write(tmp_path, {**FACES, "empty/x.txt": b"", "big.png": b"\0" * (MAX_IMAGE_BYTES + 1)})
    (tmp_path / "clips.csv").write_text(TABLE + line + "\n")
    with pytest.raises(VidfaceError, match=message):
        open_source("manifest", tmp_path / "clips.csv", **options)


# RecordIO

PEOPLE = [RED[:2], BLUE, [RED[2]]]
LABELS = [0, 0, 1, 1, 2]


def pixels_of(people: list[list[bytes]]) -> list[np.ndarray]:
    return [np.array(Image.open(io.BytesIO(data))) for person in people for data in person]


def assert_is_people(source: FaceSource) -> None:
    assert source.identities == ("0", "1", "2")
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == LABELS
    for i, expected in enumerate(pixels_of(PEOPLE)):
        np.testing.assert_array_equal(source.image(i), expected)


def plain_payloads() -> dict[int, bytes]:
    """An older set: images alone, one label each, from key 0."""
    pictures = [data for person in PEOPLE for data in person]
    return {k: packed(float(LABELS[k]), k, data) for k, data in enumerate(pictures)}


def test_recordio(tmp_path: Path) -> None:
    source = open_source("recordio", write_records(tmp_path, faces_payloads(PEOPLE), 3))
    assert_is_people(source)
    assert source.name(4) == f"{tmp_path}: record 5"


def test_recordio_in_another_order(tmp_path: Path) -> None:
    """Records lie in the file as they like; their keys tell them apart."""
    payloads = faces_payloads(PEOPLE)
    order = [7, 5, 0, 8, 1, 3, 2, 6, 4]
    folder = write_records(tmp_path, {key: payloads[key] for key in order}, 3)
    source = open_source("recordio", folder)
    assert_is_people(source)
    assert source.name(4) == f"{tmp_path}: record 5"


def test_recordio_of_images_alone(tmp_path: Path) -> None:
    source = open_source("recordio", write_records(tmp_path / "0", plain_payloads(), 3))
    assert_is_people(source)
    assert source.name(4).endswith(": record 4")
    from_five = {key + 5: payload for key, payload in plain_payloads().items()}
    assert_is_people(open_source("recordio", write_records(tmp_path / "5", from_five, 3)))
    several = {  # more labels than one: the class comes first
        k: packed([float(LABELS[k]), 9.0, 9.0], k, payload[24:])
        for k, payload in plain_payloads().items()
    }
    assert_is_people(open_source("recordio", write_records(tmp_path / "several", several, 3)))


@pytest.mark.parametrize("kind", ["ranges", "alone"])
def test_a_picture_without_a_byte_is_noticed(kind: str, tmp_path: Path) -> None:
    people = [[*PEOPLE[0], b""], *PEOPLE[1:]]
    payloads = faces_payloads(people)
    if kind == "alone":
        payloads = {**plain_payloads(), 99: packed(0.0, 99, b"")}
    with pytest.raises(VidfaceError, match=r"1 of 6 pictures have no byte in them, record \d+ for"):
        open_source("recordio", write_records(tmp_path, payloads, 3))


def test_ranges_spare_the_images_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a person with many images two headers are read."""
    from vidface.datasets.recordio import RecordIO

    folder = write_records(tmp_path, faces_payloads([[RED[0]] * 50, [BLUE[0]] * 30]), 2)
    asked: list[int] = []
    heads = RecordIO.heads
    monkeypatch.setattr(
        RecordIO, "heads", lambda self, p: asked.extend(p.tolist()) or heads(self, p)
    )
    source = open_source("recordio", folder)
    assert source.labels.tolist() == [0] * 50 + [1] * 30
    assert sorted(asked) == [1, 50, 51, 80, 81, 82]


def with_ranges(ranges: list[list[float]], labels: list[int]) -> dict[int, bytes]:
    """Images 1 … n with these labels, and people's records with these ranges behind them."""
    n = len(labels)
    payloads = {0: packed([float(n + 1), float(n + 1 + len(ranges))], 0, b"")}
    payloads |= {k + 1: packed(float(label), k, RED[0]) for k, label in enumerate(labels)}
    return payloads | {n + 1 + k: packed(bounds, 0, b"") for k, bounds in enumerate(ranges)}


@pytest.mark.parametrize(
    ("ranges", "labels"),
    [
        ([[1, 3], [3, 5]], [0, 0, 1, 1]),
        ([[3, 5], [1, 3]], [0, 0, 1, 1]),  # people in another order
        ([[3, 5], [1, 3]], [1, 1, 0, 0]),
        ([[1, 3], [3, 3], [3, 5]], [0, 0, 1, 1]),  # a person's record without an image
        ([[1, 3]], [0, 0, 1, 1]),  # images in no range
        ([[3, 5]], [0, 0, 1, 1]),
        ([[1, 2], [3, 5]], [0, 0, 1, 1]),
        ([[1, 5], [2, 3]], [0, 1, 0, 0]),  # one within another
        ([[1, 4], [2, 5]], [0, 0, 1, 1]),  # overlapping
        ([[1, 5], [1, 5]], [0, 1, 1, 0]),
        ([[1, 5]], [0, 0, 0, 1]),  # a range of two people
        ([], [0, 1, 1]),
        ([[1, 1]], [0, 1]),
    ],
)
def test_ranges_of_every_sort(tmp_path: Path, ranges: list, labels: list[int]) -> None:
    floats = [[float(bound) for bound in bounds] for bounds in ranges]
    source = open_source("recordio", write_records(tmp_path, with_ranges(floats, labels), 2))
    assert source.labels.tolist() == labels
    assert len(everything(source)) == len(labels)


def test_ranges_beyond_what_a_float_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 2^24 the ranges are rounded: people are then told by having no picture."""
    payloads = faces_payloads(PEOPLE)
    payloads[0] = packed([7.0, 10.0], 0, b"")  # rounded wrongly: they are 6 … 8
    folder = write_records(tmp_path, payloads, 3)
    with pytest.raises(VidfaceError):
        open_source("recordio", folder)
    monkeypatch.setattr("vidface.training.sources.recordio._EXACT", 9)
    assert_is_people(open_source("recordio", folder))


def test_image_whose_label_disagrees(tmp_path: Path) -> None:
    """In the middle of a range, where only reading finds it."""
    folder = write_records(tmp_path, with_ranges([[1.0, 4.0], [4.0, 5.0]], [0, 1, 0, 1]), 2)
    source = open_source("recordio", folder)
    assert len(source.image(2)) == 112
    with pytest.raises(VidfaceError, match=r"record 2 has the label 1, its person's record says 0"):
        source.image(1)


@pytest.mark.parametrize("file", ["train.rec", "train.idx", "property"])
def test_recordio_without_a_file(tmp_path: Path, file: str) -> None:
    folder = write_records(tmp_path, faces_payloads(PEOPLE), 3)
    (folder / file).unlink()
    with pytest.raises(VidfaceError, match=f"no {file} in it"):
        open_source("recordio", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not 'classes,height,width'"),
        ("3,112", "is not"),
        ("3;112;112", "is not"),
        ("-3,112,112", "is not"),
        ("0,112,112", "is not"),
        ("2,112,112", r"record 5 has the label 2; property names 2 classes, 0 … 1"),
        ("4,112,112", "no image of '3'; every person needs one"),
        ("999999999,112,112", "999,999,999 classes, 5 images"),
        ("3,112,96", "images of 96x112, not 112x112"),
        ("3,224,224", "images of 224x224, not 112x112; set resize"),
    ],
)
def test_property_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    folder = write_records(tmp_path, faces_payloads(PEOPLE), 3)
    (folder / "property").write_text(text)
    with pytest.raises(VidfaceError, match=message):
        open_source("recordio", folder)


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), 3.0, 1e30])
def test_labels_that_are_no_class(tmp_path: Path, label: float) -> None:
    payloads = {**plain_payloads(), 5: packed(label, 5, RED[0])}
    with pytest.raises(VidfaceError, match="record 5 has the label"):
        open_source("recordio", write_records(tmp_path, payloads, 3))


@pytest.mark.parametrize(
    ("key", "labels", "message"),
    [
        (0, [6.0], "record 0 has the labels .*, not the first and the end of a range"),
        (0, [6.0, 9.0, 1.0], "record 0 has the labels"),
        (0, [6.5, 9.0], "record 0 has the labels"),
        (0, [float("nan"), 9.0], "record 0 has the labels"),
        (0, [float("inf"), float("inf")], "record 0 has the labels"),
        (0, [0.0, 9.0], "record 0 says that people have the records 0 … 8"),
        (0, [-3.0, 9.0], "record 0 says"),
        (0, [9.0, 6.0], "record 0 says"),
        (0, [6.0, 16000000.0], "record 0 says"),
        (0, [16000000.0, 16000000.0], "record 0 says"),
        (0, [6.0, 10.0], r"train\.idx: no record 9 \(1 of 4 are missing"),
        (0, [1.0, 1.0], "3 classes, 0 images"),
        (7, [3.0, 7.0], r"record 7 of a person says .* \[3, 7\); images are 1 … 5"),
        (7, [0.0, 5.0], "record 7 of a person"),
        (7, [5.0, 3.0], "record 7 of a person"),
        (7, [3.5, 5.0], "record 7 of a person"),
        (7, [3.0, 4.5], "record 7 of a person"),
        (7, [3.0, float("nan")], "record 7 of a person"),
        (7, [3.0], "record 7 of a person"),
        (7, [3.0, 5.0, 0.0], "record 7 of a person"),
        (7, 3.0, "record 7 of a person"),
    ],
)
def test_headers_that_are_wrong(tmp_path: Path, key: int, labels: Any, message: str) -> None:
    payloads = {**faces_payloads(PEOPLE), key: packed(labels, 0, b"")}
    with pytest.raises(VidfaceError, match=message):
        open_source("recordio", write_records(tmp_path, payloads, 3))


def test_ranges_that_overlap_by_far_cost_nothing(tmp_path: Path) -> None:
    n = 1500
    payloads = with_ranges([[1.0, n + 1.0]] * n, [0] * n)
    payloads = {k: p.replace(RED[0], b"x") for k, p in payloads.items()}
    folder = write_records(tmp_path, payloads, 1)
    tracemalloc.start()
    assert len(open_source("recordio", folder)) == n
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20  # all ranges laid out: 18 MB
    tracemalloc.stop()


def test_recordio_cut_off(tmp_path: Path) -> None:
    folder = write_records(tmp_path, faces_payloads(PEOPLE), 3)
    size = (folder / "train.rec").stat().st_size
    os.truncate(folder / "train.rec", size // 2)
    with pytest.raises(VidfaceError, match=f"{size // 2:,} bytes, but train.idx has record"):
        open_source("recordio", folder)


def test_recordio_picture_that_is_broken_or_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidface.training.sources.base.MAX_IMAGE_BYTES", 40_000)
    pictures = [RED[0][:-900], png(64, 64), b"\0" * 40_001]
    source = open_source("recordio", write_records(tmp_path, faces_payloads([pictures]), 1))
    for i, message in enumerate(["not a whole picture", "64x64 pixels", "40,001 bytes"]):
        with pytest.raises(VidfaceError, match=f"record {i + 1}: {message}"):
            source.image(i)


def test_fingerprint_of_recordio(tmp_path: Path) -> None:
    exchanged = [PEOPLE[0][::-1], *PEOPLE[1:]]  # two sizes: the file's size stays
    sets = [PEOPLE, PEOPLE, PEOPLE[::-1], [*PEOPLE[:2], [RED[2] + b"\0" * 4]], exchanged]
    found = [
        open_source("recordio", write_records(tmp_path / str(k), faces_payloads(p), 3)).fingerprint
        for k, p in enumerate(sets)
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 4


# Shards


def test_shards(tmp_path: Path) -> None:
    files: list[dict[str, bytes]] = [
        {"0.png": RED[0], "0.cls": b"10", "1.cls": b" 2\n", "1.PNG": BLUE[0], "1.txt": b"other"},
        {"d/2.x.png": b"passed over", "d/2.png": RED[1], "d/2.json": b'{"label": 10}'},
        {"d/2.png": BLUE[1], "d/2.json": b'{"identity": 2, "label": 7, "more": [1]}'},
        {"README.md": b"x", ".hidden.png": b"x"},
    ]
    for k, content in enumerate(files):
        tar_of(tmp_path / f"train-{k + 8:02d}.tar", content)
    expected = [
        ("10", "train-08.tar/0.png", crop_of("red", seed=0)),
        ("02", "train-08.tar/1.PNG", crop_of("blue", seed=0)),
        ("10", "train-09.tar/d/2.png", crop_of("red", seed=1)),
        ("02", "train-10.tar/d/2.png", crop_of("blue", seed=1)),
    ]
    found = [
        open_source("shards", tmp_path),
        open_source("shards", tmp_path / "train-{08..11}.tar"),
        open_source("shards", str(tmp_path / "train-{08..11}.tar")),
    ]
    for source in found:
        assert source.identities == ("02", "10")
        assert_holds(source, expected)
        assert str(source).endswith("4 shard(s))")
    assert len({source.fingerprint for source in found}) == 1
    fewer = open_source("shards", tmp_path / "train-{08..09}.tar")
    assert_holds(fewer, expected[:3])
    assert fewer.fingerprint != found[0].fingerprint
    assert_holds(open_source("shards", tmp_path / "train-08.tar"), expected[:2])


def test_shards_with_names(tmp_path: Path) -> None:
    files = {"1.png": RED[0], "1.json": b'{"identity": "zo\xc3\xab"}', "2.png": BLUE[0]}
    files["2.json"] = b'{"identity": "Ann"}'
    source = open_source("shards", tar_of(tmp_path / "a.tar", files))
    assert source.identities == ("Ann", "zoë")
    assert source.labels.tolist() == [1, 0]


def test_cls_comes_before_json(tmp_path: Path) -> None:
    files = {"1.png": RED[0], "1.json": b'{"width": 112}', "1.cls": b"5"}
    assert open_source("shards", tar_of(tmp_path / "a.tar", files)).identities == ("5",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": b"x"}, r"a\.tar: 1 has an image, but neither 1\.cls nor 1\.json"),
        ({"1.cls": b"1"}, r"a\.tar: 1 has a class, but no image"),
        ({"1.png": b"x", "1.jpg": b"x", "1.cls": b"1"}, r"1\.png and 1\.jpg, one sample has two"),
        ({"1.png": b"x", "./1.png": b"x", "1.cls": b"1"}, "one sample has two"),
        ({"1.png": b"x", "1.cls": b""}, r"1\.cls: b'' is not a class"),
        ({"1.png": b"x", "1.cls": b"-1"}, "is not a class"),
        ({"1.png": b"x", "1.cls": b"1.0"}, "is not a class"),
        ({"1.png": b"x", "1.cls": b"\xd9\xa1"}, "is not a class"),
        ({"1.png": b"x", "1.cls": b"9" * 19}, "is not a class"),
        ({"1.png": b"x", "1.cls": b" " * 65537}, "65,537 bytes, more than a class needs"),
        ({"1.png": b"x", "1.json": b"{"}, r"1\.json: not JSON"),
        ({"1.png": b"x", "1.json": b"[" * 60000}, "not JSON"),
        ({"1.png": b"x", "1.json": b'{"label": ' + b"9" * 5000 + b"}"}, "not JSON"),
        ({"1.png": b"x", "1.json": b"\xff"}, "not JSON"),
        ({"1.png": b"x", "1.json": b"5"}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b"{}"}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b'{"label": "ann"}'}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b'{"label": 1.5}'}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b'{"label": true}'}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b'{"label": -1}'}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b'{"label": 1000000000000000000}'}, 'needs "identity"'),
        ({"1.png": b"x", "1.json": b'{"identity": "\\ud800"}'}, "cannot be a person's name"),
        ({"1.png": b"x", "1.json": b'{"identity": ""}'}, "cannot be a person's name"),
        (
            {"1.png": b"x", "1.cls": b"1", "2.png": b"x", "2.json": b'{"identity": "1"}'},
            r"a\.tar/2\.png has a person's name, a\.tar/1\.png a number",
        ),
        ({"1.png": b"\0" * (MAX_IMAGE_BYTES + 1), "1.cls": b"1"}, r"1\.png: 16,777,217 bytes"),
        ({"a.txt": b"x"}, r"no image in 1 shard"),
    ],
)
def test_shards_that_are_wrong(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        open_source("shards", tar_of(tmp_path / "a.tar", files))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("{0..2}", ["0", "1", "2"]),
        ("{9..10}", ["9", "10"]),
        ("{09..10}", ["09", "10"]),
        ("{008..10}", ["008", "009", "010"]),
        ("{0..0}x{1..2}", ["0x1", "0x2"]),
        ("{a,b}-{..}", ["{a,b}-{..}"]),
    ],
)
def test_expand_braces(pattern: str, names: list[str]) -> None:
    assert expand_braces(pattern) == names


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"no \.tar in this folder"):
        open_source("shards", tmp_path)
    tar_of(tmp_path / "1.tar", {"1.png": RED[0], "1.cls": b"1"})
    with pytest.raises(VidfaceError, match=r"2\.tar: no such shard"):
        open_source("shards", tmp_path / "{1..2}.tar")
    with pytest.raises(VidfaceError, match="runs backwards"):
        open_source("shards", tmp_path / "{2..1}.tar")
    for pattern in ("{0..999999999}", "{1..1000}{1..1000}"):
        with pytest.raises(VidfaceError, match="more than 100,000 shards"):
            expand_braces(pattern)


# Workers


def sources_of_all_kinds(tmp_path: Path) -> list[FaceSource]:
    """The same five images, four times."""
    folder = write(tmp_path, FACES)
    (folder / "clips.csv").write_text(
        "clip_id,path,identity,split\nb,faces/blue,1,train\nr,faces/red,2,train\n"
    )
    ordered = [FACES[name] for _, name, _ in IN_ORDER]
    write_records(folder / "records", faces_payloads([ordered[:2], ordered[2:]]), 2)
    for k, data in enumerate(ordered):
        label = json.dumps({"label": int(k > 1)}).encode()
        tar_of(folder / f"{k}.tar", {f"{k}.png": data, f"{k}.json": label})
    found = [
        open_source("folders", folder / "faces"),
        open_source("folders", tar_of(folder / "all.tar", FACES)),
        open_source("manifest", folder / "clips.csv"),
        open_source("recordio", folder / "records"),
        open_source("shards", folder / "{0..4}.tar"),
    ]
    return [*found, take_images(found[1], np.ones(5, dtype=np.bool_))]


def red_of(source_and_index: tuple[FaceSource, int]) -> int:
    source, index = source_and_index
    return int(source.image(index).astype(np.int64).sum())


def test_pickle_fork_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [int(image.astype(np.int64).sum()) for _, _, image in IN_ORDER]
    monkeypatch.setattr("vidface.training.sources.tars.MAX_OPEN_FILES", 2)
    for source in sources_of_all_kinds(tmp_path):
        assert [red_of((source, i)) for i in range(5)] == expected
        again = pickle.loads(pickle.dumps(source))
        assert (again.identities, again.fingerprint) == (source.identities, source.fingerprint)
        assert again.labels.tolist() == source.labels.tolist() == [0, 0, 1, 1, 1]
        asked = [(again, i) for i in (4, 0, 3, 1, 2)] * 20
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(red_of, asked))
        assert found == [expected[i] for _, i in asked]
    # A forked worker shares what its parent has open.
    with multiprocessing.get_context("fork").Pool(
        2, initializer=set_shared, initargs=(source,)
    ) as p:
        assert p.map(red_of_shared, [4, 0, 3, 1, 2]) == [expected[i] for i in (4, 0, 3, 1, 2)]


def set_shared(source: FaceSource) -> None:
    globals()["SHARED"] = source


def red_of_shared(index: int) -> int:
    return red_of((globals()["SHARED"], index))


DESCRIPTORS = Path("/proc/self/fd")


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(12):
        tar_of(tmp_path / f"{k}.tar", {"1.png": RED[0], "1.cls": b"1"})
    monkeypatch.setattr("vidface.training.sources.tars.MAX_OPEN_FILES", 3)
    gc.collect()
    before = len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
    source = open_source("shards", tmp_path)
    counts = []
    for i in [*range(12), 3, 3, 3]:
        source.image(i)
        counts.append(len(list(DESCRIPTORS.iterdir())) - before if before else 0)
    assert max(counts) <= 3
    del source
    gc.collect()
    if before:
        assert len(list(DESCRIPTORS.iterdir())) == before


def test_the_real_faces(data: Path) -> None:
    source = open_source("folders", data / "images" / "faces_train112.tar")
    assert (len(source), len(source.identities)) == (10277, 94)
    assert class_counts(source).sum() == 10277
    assert source.identities[0] == "Adriana_Lima"
    with tarfile.open(data / "images" / "faces_train112.tar") as archive:
        for i in (0, 5000, 10276):
            name = source.name(i).rpartition(": ")[2]
            expected = np.array(Image.open(archive.extractfile(name)).convert("RGB"))
            np.testing.assert_array_equal(source.image(i), expected)
            assert name.split("/")[1] == source.identities[source.labels[i]]
