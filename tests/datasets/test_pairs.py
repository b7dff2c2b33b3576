from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import crop_of
from vidface.core.errors import ClipError, VidfaceError
from vidface.datasets.pairs import PairSet, read_lfw_pairs

# Two folds of two pairs of either kind. Ann has four images, bob three, cy and "d.e" one.
LIST = """2\t2
ann\t1\t2
bob\t1\t3
ann\t1\tbob\t1
cy\t1\tbob\t2
ann\t3\t4
bob\t2\t1
ann\t2\td.e\t1
cy\t1\td.e\t1
"""
IMAGES = {"ann": 4, "bob": 3, "cy": 1, "d.e": 1}


def picture(colour: str = "red", *, size: int = 112, form: str = "PNG", seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(crop_of(colour, seed=seed)).resize((size, size)).save(file, form)
    return file.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_list(folder: Path, text: str | bytes = LIST) -> Path:
    path = folder / "some_pairs.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.fixture
def faces() -> dict[str, bytes]:
    """Every image has a seed of its own, so that no two are alike."""
    names = [f"{who}/{who}_{k:04d}.png" for who, n in IMAGES.items() for k in range(1, n + 1)]
    return {name: picture(seed=seed) for seed, name in enumerate(names)}


@pytest.fixture
def root(tmp_path: Path, faces: dict[str, bytes]) -> Path:
    return write(tmp_path / "faces", faces)


def test_pairs_as_listed(root: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path)
    pairs = read_lfw_pairs(root, path)
    assert pairs.name == "some_pairs"
    assert pairs.sha256 == hashlib.sha256(LIST.encode()).hexdigest()
    names = [pairs.image_names[i] for i in range(pairs.n_images)]
    listed = [(names[i], names[j]) for i, j in zip(pairs.first, pairs.second, strict=True)]
    assert listed == [
        ("ann/ann_0001", "ann/ann_0002"),
        ("bob/bob_0001", "bob/bob_0003"),
        ("ann/ann_0001", "bob/bob_0001"),
        ("cy/cy_0001", "bob/bob_0002"),
        ("ann/ann_0003", "ann/ann_0004"),
        ("bob/bob_0002", "bob/bob_0001"),
        ("ann/ann_0002", "d.e/d.e_0001"),
        ("cy/cy_0001", "d.e/d.e_0001"),
    ]
    assert pairs.n_images == len(set(names)) == 9  # an image of several pairs is one image
    assert pairs.same.tolist() == [True, True, False, False] * 2
    assert pairs.folds.tolist() == [0] * 4 + [1] * 4
    assert pairs.n_folds == 2
    assert str(pairs) == (
        "PairSet(some_pairs: first, second, same, folds (8,), 4 pairs of one person, 2 folds; "
        "9 images)"
    )


@pytest.mark.parametrize("place", ["folder", "folder in a folder", "tar", "tar with a top", "./"])
def test_images_are_found(
    place: str, root: Path, tmp_path: Path, faces: dict[str, bytes], monkeypatch
) -> None:
    location = root
    if place == "folder in a folder":
        location = tmp_path / "outer"
        write(location / "lfw", faces)
        write(location, {"README": b"", ".git/config": b""})
    elif place != "folder":
        top = {"tar": "", "tar with a top": "lfw_aligned112/", "./": "./lfw/"}[place]
        location = tmp_path / "faces.tar"
        with tarfile.open(location, "w") as archive:
            for name, content in {"._lfw": b"apple", ".x/y": b"", **faces}.items():
                info = tarfile.TarInfo(top + name if name in faces else name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    pairs = read_lfw_pairs(str(location), str(write_list(tmp_path)))
    order = list(faces)
    for i in range(pairs.n_images):
        image = pairs.image(i)
        assert (image.shape, image.dtype) == ((112, 112, 3), np.uint8)
        seed = order.index(f"{pairs.image_names[i]}.png")
        assert np.array_equal(image, crop_of("red", seed=seed))


def test_suffixes_in_either_case_and_their_order(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "faces",
        {
            "a/a_0001.PNG": picture("green"),
            "a/a_0001.jpg": picture("blue", form="JPEG"),  # comes first
            "a/a_0002.WebP": picture("green", form="WEBP"),
            "a/a_0003.JPEG": picture("yellow", form="JPEG"),
            "a/a_0004.bmp": picture("red", form="BMP"),
            "a/a_0004.txt": b"no picture",
            "a/a_12345.png": picture("blue"),
            "a/a_6.png": picture("blue"),  # four digits are the format
        },
    )
    text = "1 3\n" + "a 1 2\na 3 4\na 12345 6\n" + "a 1 b 1\n" * 3
    pairs = read_lfw_pairs(folder, write_list(tmp_path, text))
    likeness = {"red": 0, "green": 1, "blue": 2}
    colours = [int(pairs.image(i).mean(axis=(0, 1)).argmax()) for i in (0, 1, 3, 4)]
    assert colours == [likeness[c] for c in ("blue", "green", "red", "blue")]
    assert pairs.image(2).mean() > 130  # yellow
    for missing in (5, 6):
        with pytest.raises(VidfaceError, match="no such image"):
            pairs.image(missing)


def test_single_missing_and_bad_images_are_told_when_asked_for(root: Path, tmp_path: Path) -> None:
    (root / "ann" / "ann_0001.png").unlink()
    (root / "ann" / "ann_0002.png").write_bytes(b"no picture")
    (root / "bob" / "bob_0001.png").write_bytes(picture(size=96))
    pairs = read_lfw_pairs(root, write_list(tmp_path))
    (root / "bob" / "bob_0003.png").unlink()  # while we're at it
    with pytest.raises(VidfaceError, match=r"some_pairs: ann/ann_0001: no such image in .*faces"):
        pairs.image(0)
    with pytest.raises(ClipError, match="some_pairs: ann/ann_0002: not a whole picture"):
        pairs.image(1)
    with pytest.raises(VidfaceError, match=r"some_pairs: bob/bob_0001: 96x96 pixels.*112x112"):
        pairs.image(2)
    with pytest.raises(VidfaceError, match="some_pairs: bob/bob_0003: No such file"):
        pairs.image(3)
    assert pairs.image(4).shape == (112, 112, 3)
    for beyond in (-1, 9):
        with pytest.raises(VidfaceError, match=f"image {beyond} of 9, counted from 0"):
            pairs.image(beyond)


def test_none_of_the_images_is_a_wrong_root(tmp_path: Path, faces: dict[str, bytes]) -> None:
    path = write_list(tmp_path)
    message = r"none of the 9 images of .*some_pairs.txt is in it, ann/ann_0001.jpg for one"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VidfaceError, match=message):
        read_lfw_pairs(empty, path)
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(VidfaceError, match=message):
        read_lfw_pairs(tmp_path / "empty.tar", path)
    two = tmp_path / "two"  # which of the two, is not for us to say
    for top in ("one", "other"):
        write(two / top, faces)
    with pytest.raises(VidfaceError, match=message):
        read_lfw_pairs(two, path)
    with pytest.raises(VidfaceError, match="no such folder or tar"):
        read_lfw_pairs(tmp_path / "nowhere", path)
    with pytest.raises(VidfaceError, match="not a readable uncompressed tar"):
        read_lfw_pairs(path, path)


def test_one_count_is_one_fold(root: Path, tmp_path: Path) -> None:
    lines = LIST.splitlines()
    text = "\n".join(["4", *lines[1:3], *lines[5:7], *lines[3:5], *lines[7:9]])
    pairs = read_lfw_pairs(root, write_list(tmp_path, text))
    assert pairs.same.tolist() == [True] * 4 + [False] * 4
    assert pairs.folds.tolist() == [0] * 8


@pytest.mark.parametrize(
    "text",
    [
        LIST.replace("\t", "  "),
        LIST.replace("\n", " \r\n"),
        "\ufeff" + LIST,
        LIST + "\n\n",
        LIST[:-1],
    ],
)
def test_white_space_does_not_matter(text: str, root: Path, tmp_path: Path) -> None:
    pairs = read_lfw_pairs(root, write_list(tmp_path, text))
    expected = read_lfw_pairs(root, write_list(tmp_path))
    assert np.array_equal(pairs.first, expected.first)
    assert np.array_equal(pairs.second, expected.second)


LINES = LIST.splitlines()


def with_line(number: int, text: str) -> str:
    return "\n".join([*LINES[: number - 1], text, *LINES[number:]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no header; is the file empty"),
        ("\n \n", "line 1: no header"),
        ("\n".join(LINES[1:]), r"line 1: not LFW's format.*got 'ann\\t1\\t2'"),
        ("\n".join(LINES[3:]), "line 1: not LFW's format"),
        (with_line(1, "2 2 2"), "line 1: not LFW's format"),
        (with_line(1, "2 0"), "line 1: not LFW's format"),
        (with_line(1, "-2 2"), "line 1: not LFW's format"),
        (with_line(1, "2.0 2"), "line 1: not LFW's format"),
        (with_line(1, "2 9" + "9" * 5000), "line 1: not LFW's format"),
        (with_line(1, "999999999 999999999"), r"line 4 \(fold 1\): 4 fields"),
        (with_line(1, "2 3"), r"line 4 \(fold 1\): 4 fields where a pair is due as NAME N1 N2"),
        (with_line(1, "3 2"), "line 9: the file ends after 8 pairs, the header announces 12"),
        (with_line(1, "1 2"), "line 6: the header announces 4 pairs, here is more"),
        ("\n".join(LINES[:-1]), "line 8: the file ends after 7 pairs"),
        (LINES[0], "line 1: the file ends after 0 pairs, the header announces 8"),
        (LIST + "ann 1 2", "line 10: the header announces 8 pairs, here is more"),
        (with_line(3, "ann 1"), r"line 3 \(fold 1\): 2 fields"),
        (with_line(3, ""), r"line 3 \(fold 1\): 0 fields"),
        (with_line(9, "ann 1 2"), r"line 9 \(fold 2\): 3 fields where .* NAME1 N1 NAME2 N2"),
        (with_line(9, "a 1 b 2 c"), r"line 9 \(fold 2\): 5 fields"),
        (with_line(3, "ann one 2"), r"line 3 \(fold 1\): 'one' is not the number of an image"),
        (with_line(3, "ann 1 -2"), r"line 3 \(fold 1\): '-2' is not the number"),
        (with_line(3, "ann 1_0 2"), "'1_0' is not the number"),
        (with_line(3, "ann 1 ²"), "'²' is not the number"),
        (with_line(3, "ann 1 ٣"), "is not the number"),
        (with_line(9, "ann 1 bob x"), r"line 9 \(fold 2\): 'x' is not the number"),
        (with_line(9, "ann 1 ann 2"), r"line 9 \(fold 2\): 'ann' twice where .* two people"),
        (with_line(3, ".. 1 2"), r"line 3 \(fold 1\): '\.\.' is not the name"),
        (with_line(3, "a..b 1 2"), "is not the name"),
        (with_line(3, "../up 1 2"), "is not the name of a person's folder"),
        (with_line(3, "/etc 1 2"), "is not the name"),
        (with_line(3, "a/b 1 2"), "is not the name"),
        (with_line(3, "a\\b 1 2"), "is not the name"),
        (with_line(3, "C: 1 2"), "is not the name"),
        (with_line(3, ". 1 2"), "is not the name"),
        (with_line(3, "a\0b 1 2"), r"'a\\x00b' is not the name"),
        (with_line(9, "ann 1 ../bob 2"), r"line 9 \(fold 2\): '\.\./bob' is not the name"),
        (LIST.encode().replace(b"cy\t1\tbob", b"c\xff\t1\tbob"), "line 5: not UTF-8"),
    ],
)
def test_wrong_lists_are_refused_with_their_line(
    text: str | bytes, message: str, root: Path, tmp_path: Path
) -> None:
    path = write_list(tmp_path, text)
    with pytest.raises(VidfaceError, match=message) as caught:
        read_lfw_pairs(root, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("path", ["nowhere.txt", "."])
def test_list_that_cannot_be_read(path: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(VidfaceError, match=r"^pairs "):
        read_lfw_pairs(root, tmp_path / path)


def test_a_set_survives_the_way_to_a_worker(root: Path, tmp_path: Path) -> None:
    pairs = read_lfw_pairs(root, write_list(tmp_path))
    assert np.array_equal(pickle.loads(pickle.dumps(pairs)).image(3), pairs.image(3))


def made(**changes: object) -> PairSet:
    fields: dict = {
        "name": "made",
        "first": np.array([0, 1]),
        "second": np.array([1, 2]),
        "same": np.array([True, False]),
        "folds": np.array([0, 1]),
        "image_names": ["a", "b", "c"],
        "read": [picture(), b"", b""].__getitem__,
        "sha256": "",
    }
    return PairSet(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second": np.array([1])}, r"second must be \(2,\) int64, got \(1,\) int64"),
        ({"first": np.array([[0], [1]])}, r"first must be \(2,\) int64, got \(2, 1\)"),
        ({"same": np.array([1, 0])}, r"same must be \(2,\) bool, got \(2,\) int64"),
        ({"folds": np.array([0.0, 1.0])}, r"folds must be \(2,\) int64"),
        ({"first": np.array([0, 3])}, "first has an index beyond 3"),
        ({"second": np.array([-1, 1])}, "second has an index beyond 3"),
        ({"folds": np.array([0, 2])}, "without a gap"),
        ({"folds": np.array([1, 2])}, "without a gap"),
        (
            {f: np.zeros(0, dtype=np.int64) for f in ("first", "second", "folds")}
            | {"same": np.zeros(0, dtype=bool)},
            "no pair",
        ),
    ],
)
def test_a_set_checks_itself(changes: dict, message: str) -> None:
    assert made().image(0).shape == (112, 112, 3)
    with pytest.raises(VidfaceError, match=f"made: .*{message}"):
        made(**changes)


def test_lfw(data: Path) -> None:
    pairs = read_lfw_pairs(
        data / "images" / "lfw_aligned112.tar", data / "images" / "lfw_pairs.txt"
    )
    assert len(pairs.first) == len(pairs.second) == 6000
    assert pairs.n_folds == 10
    for fold in range(10):
        assert np.bincount(pairs.same[pairs.folds == fold]).tolist() == [300, 300]
    assert pairs.n_images == 7701
    assert all(pairs.read(i)[:2] == b"\xff\xd8" for i in range(pairs.n_images))  # JPEGs, all there
    assert pairs.image_names[pairs.first[0]] == "Abel_Pacheco/Abel_Pacheco_0001"
    assert pairs.image_names[pairs.second[0]] == "Abel_Pacheco/Abel_Pacheco_0004"
    assert all(pairs.image(i).shape == (112, 112, 3) for i in range(0, 7701, 500))
