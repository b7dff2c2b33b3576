"""Pair lists of people's own: two paths and a label, CSV with a header, two lines a pair."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import crop_of
from tests.datasets.test_pairs import picture, write
from vidface.core.errors import VidfaceError
from vidface.datasets.pair_sources import open_pairs
from vidface.datasets.pairs import PairSet

FACES = ("ann/1.png", "ann/2.png", "bob lee/1.png", "bob lee/x.png")
WANTED = [
    ("ann/1.png", "ann/2.png", True),
    ("ann/1.png", "bob lee/1.png", False),
    ("bob lee/1.png", "bob lee/x.png", True),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pictures = {name: picture(seed=seed) for seed, name in enumerate(FACES)}
    return write(tmp_path / "faces", pictures)


def opened(root: Path, text: str) -> PairSet:
    path = root.parent / "list.txt"
    path.write_bytes(text.encode())
    return open_pairs(root, path)


def listed(pairs: PairSet) -> list[tuple[str, str, bool]]:
    names = pairs.image_names
    columns = (pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist())
    return [(names[i], names[j], same) for i, j, same in zip(*columns, strict=True)]


def lines(separator: str, yes: str, no: str) -> str:
    return "".join(f"{a}{separator}{b}{separator}{yes if same else no}\n" for a, b, same in WANTED)


COMMAS = lines(",", "1", "0")
LISTS = {
    "tabs, 0/1": lines("\t", "1", "0"),
    "tabs, words": lines("\t", "same", "different"),
    "tabs, a header": "path1\tpath2\tsame\n" + lines("\t", "true", "false"),
    "commas": lines(", ", "True", "False"),
    "a header": "img1,img2,label\n" + COMMAS,
    "a header of other names": "left,right,target\n" + COMMAS,
    "pandas' index": ",path1,path2,issame\n"
    + "".join(f"{k},{line}\n" for k, line in enumerate(COMMAS.splitlines())),
    "carriage returns": lines("\t", "1", "0").replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + COMMAS,
    "backslashes": COMMAS.replace("/", "\\"),
    "a dot": COMMAS.replace("bob", "./bob"),
    "two lines a pair": "".join(f"{a}\t{+same}\n{b}\t{+same}\n" for a, b, same in WANTED),
    "two lines a pair, numbered": "".join(
        f"{a}\t{3 * same}\n{b}\t{3 * same}\n" for a, b, same in WANTED
    ),
}


@pytest.mark.parametrize("form", LISTS)
def test_every_form_gives_the_same_pairs(form: str, root: Path) -> None:
    pairs = opened(root, LISTS[form])
    assert listed(pairs) == WANTED
    assert pairs.n_folds == 1
    assert pairs.sha256 == hashlib.sha256(LISTS[form].encode()).hexdigest()
    for i, name in enumerate(pairs.image_names):
        assert np.array_equal(pairs.image(i), crop_of("red", seed=FACES.index(name)))


def test_a_column_of_folds(root: Path) -> None:
    pairs = opened(
        root,
        "fold,img1,img2,same\n"
        + "".join(
            f"{fold},{line}\n" for fold, line in zip((1, 2, 1), COMMAS.splitlines(), strict=True)
        ),
    )
    assert pairs.folds.tolist() == [0, 1, 0]


def test_images_may_have_another_ending_and_lie_at_the_top(tmp_path: Path) -> None:
    """Aligned crops are often kept as PNG, where the list names the JPEGs that they came from."""
    files = {"A_1.png": picture(seed=1), "A_2.jpg": picture(seed=2), "A_2.png": picture(seed=3)}
    root = write(tmp_path / "faces", files)
    pairs = opened(root, "A_1.jpg 1\nA_2.png 1\nA_1.jpg 0\nA_2.jpg 0\n")
    images = {name: pairs.image(i) for i, name in enumerate(pairs.image_names)}
    assert np.array_equal(images["A_1.jpg"], crop_of("red", seed=1))
    assert np.array_equal(images["A_2.png"], crop_of("red", seed=3))  # the file that is named
    assert np.array_equal(images["A_2.jpg"], crop_of("red", seed=2))
    assert pairs.same.tolist() == [True, False]


@pytest.mark.parametrize("top", ["", "lfw/"])
def test_a_tar_of_faces(top: str, root: Path) -> None:
    with tarfile.open(root.parent / "faces.tar", "w") as archive:
        for name in FACES:
            archive.add(root / name, top + name)
    (root.parent / "list.txt").write_text(COMMAS, encoding="utf-8")
    pairs = open_pairs(root.parent / "faces.tar", root.parent / "list.txt")
    assert listed(pairs) == WANTED
    assert np.array_equal(pairs.image(3), crop_of("red", seed=3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/etc/a.png,ann/1.png,1\n", "'/etc/a.png' is no path below the folder of the faces"),
        ("../a.png,ann/1.png,1\n", "'../a.png' is no path below"),
        ("ann/../../a.png,ann/1.png,1\n", "is no path below"),
        ("..\\a.png,ann/1.png,1\n", "is no path below"),
        ("C:\\a.png,ann/1.png,1\n", "is no path below"),
        ("a.png,b.png,1\n", "none of the 2 images of .* is in it, a.png for one"),
        ("ann/1.png,ann/1.png,1\n", "line 1: 'ann/1.png' against itself"),
        ("ann/1.png,ann/2.png,1\nann/1.png,ann/2.png,2\n", "line 2: '2' does not say"),
        ("ann/1.png,ann/2.png\n", "not LFW's format"),
        ("ann/1.png 1\nann/2.png 0\n", "line 2: 0 where the other line of its pair has 1"),
        ("ann/1.png 1\nann/2.png 1\nann/1.png 0\n", "3 lines where every pair has two"),
        ("ann/1.png 1\nann/2.png one\n", "line 2: not a path and a whole number"),
        ("ann/1.png 1\nann/1.png 1\n", "against itself"),
        ("", "is the file empty"),
    ],
)
def test_wrong_lists_are_refused(text: str, message: str, root: Path) -> None:
    with pytest.raises(VidfaceError, match=message) as caught:
        opened(root, text)
    assert "list.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


LFW = [("ann", 1, "ann", 2), ("ann", 1, "bob", 1), ("bob", 1, "bob", 2), ("ann", 2, "bob", 2)]


def kaggle(rows: list[tuple[str, int, str, int]], header: str = "name,imagenum1,imagenum2,") -> str:
    rest = [f"{a},{i},{j}," if a == b else f"{a},{i},{b},{j}" for a, i, b, j in rows]
    return "\n".join([header, *rest]) + "\n"


def test_kaggles_csv(tmp_path: Path) -> None:
    names = [f"{who}/{who}_000{k}.png" for who in ("ann", "bob") for k in (1, 2)]
    root = write(tmp_path / "faces", {n: picture(seed=seed) for seed, n in enumerate(names)})
    pairs = opened(root, kaggle(LFW))
    assert [(a[-8:], b[-8:], same) for a, b, same in listed(pairs)] == [
        (f"{a}_000{i}", f"{b}_000{j}", a == b) for a, i, b, j in LFW
    ]
    assert pairs.folds.tolist() == [0, 0, 1, 1]  # LFW's order: of one person, then of two
    for rows in (LFW[::-1], [LFW[0], *LFW], LFW[:2]):  # no such order, uneven blocks, one block
        assert opened(root, kaggle(rows)).n_folds == 1
    assert opened(root, kaggle(LFW[1::2], "name,imagenum1,name,imagenum2")).same.sum() == 0
    for wrong, message in [
        ("ann,1,2,bob,2", r"line 6: 5 fields where a pair is due"),
        ("ann,1,ann,2", r"line 6: 'ann' twice"),
        ("../ann,1,2,", r"line 6: '../ann' is not the name"),
        ("ann,one,2,", r"line 6: 'one' is not the number"),
    ]:
        with pytest.raises(VidfaceError, match=message):
            opened(root, kaggle(LFW) + wrong)
    with pytest.raises(VidfaceError, match="no pair"):
        opened(root, kaggle([]))


def test_lfws_list_with_spaces_in_names_between_tabs(tmp_path: Path) -> None:
    names = [f"{who}/{who}_000{k}.png" for who in ("ann lee", "bob") for k in (1, 2)]
    root = write(tmp_path / "faces", {n: picture(seed=seed) for seed, n in enumerate(names)})
    pairs = opened(root, "1\t1\nann lee\t1\t2\nann lee\t2\tbob\t1\n")
    assert listed(pairs) == [
        ("ann lee/ann lee_0001", "ann lee/ann lee_0002", True),
        ("ann lee/ann lee_0002", "bob/bob_0001", False),
    ]


@pytest.fixture
def cfp(tmp_path: Path) -> Path:
    """Two people with two frontal pictures and a profile each, two folds; the protocol's folder."""
    people = {
        p: (f"{p}/frontal/01.png", f"{p}/frontal/02.png", f"{p}/profile/01.png") for p in "12"
    }
    names = [name for three in people.values() for name in three]
    write(tmp_path / "faces", {name: picture(seed=seed) for seed, name in enumerate(names)})
    frontal = [name for name in names if "frontal" in name]
    profile = [name for name in names if "profile" in name]
    lists = {"F": frontal, "P": profile}
    files = {
        f"Pair_list_{kind}.txt": "".join(
            f"{k} ../Data/Images/{name.replace('png', 'jpg')}\n"
            for k, name in enumerate(some, start=1)
        )
        for kind, some in lists.items()
    }
    files |= {"Split/FP/01/same.txt": "1,1\n", "Split/FP/01/diff.txt": "1,2\n"}
    files |= {"Split/FP/02/same.txt": "4,2\n2,1\n", "Split/FP/02/diff.txt": "3,1\n"}
    files |= {"Split/FF/01/same.txt": "1,2\r\n", "Split/FF/01/diff.txt": "2,3\r\n"}
    return write(tmp_path / "Protocol", {name: text.encode() for name, text in files.items()})


def test_cfps_own_protocol(cfp: Path) -> None:
    pairs = open_pairs(cfp.parent / "faces", cfp / "Split" / "FP")
    assert listed(pairs) == [
        ("1/frontal/01.jpg", "1/profile/01.jpg", True),
        ("1/frontal/01.jpg", "2/profile/01.jpg", False),
        ("2/frontal/02.jpg", "2/profile/01.jpg", True),
        ("1/frontal/02.jpg", "1/profile/01.jpg", True),
        ("2/frontal/01.jpg", "1/profile/01.jpg", False),
    ]
    assert pairs.folds.tolist() == [0, 0, 1, 1, 1]
    assert pairs.name == "CFP-FP"
    assert np.array_equal(pairs.image(1), crop_of("red", seed=2))  # 1's profile
    frontal = open_pairs(cfp.parent / "faces", cfp / "Split" / "FF")
    assert listed(frontal) == [
        ("1/frontal/01.jpg", "1/frontal/02.jpg", True),
        ("1/frontal/02.jpg", "2/frontal/01.jpg", False),
    ]
    assert pairs.sha256 != frontal.sha256


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("Split/FP/02/diff.txt", "3,1\n3,9\n", r"diff.txt, line 2: not two numbers of pictures"),
        ("Split/FP/02/diff.txt", "3\n", r"diff.txt, line 1: not two numbers"),
        ("Pair_list_P.txt", "1 ../../..\n2 ../x/../y.jpg\n", "no path below the folder"),
    ],
)
def test_wrong_protocols_are_refused(file: str, text: str, message: str, cfp: Path) -> None:
    (cfp / file).write_text(text, encoding="utf-8")
    with pytest.raises(VidfaceError, match=message):
        open_pairs(cfp.parent / "faces", cfp / "Split" / "FP")


def test_a_folder_that_is_no_protocol(cfp: Path) -> None:
    for folder in (cfp, cfp / "Split"):
        with pytest.raises(VidfaceError, match=r"give a list of pairs, or CFP's Protocol/Split/FF"):
            open_pairs(cfp.parent / "faces", folder)
    (cfp / "Pair_list_F.txt").unlink()
    with pytest.raises(VidfaceError, match=r"Pair_list_F.txt: No such file"):
        open_pairs(cfp.parent / "faces", cfp / "Split" / "FP")


def test_real_lists(data: Path) -> None:
    cases, images = data / "cases" / "pair_lists", data / "images"
    by_path = open_pairs(images / "lfw_aligned112.tar", cases / "pp_paths.txt")
    by_name = open_pairs(images / "lfw_aligned112.tar", cases / "pp_spaces.txt")
    assert len(by_path.first) == 400
    assert by_path.n_folds == 1
    assert by_name.n_folds == 5
    assert all(by_path.read(i)[:2] == b"\xff\xd8" for i in range(by_path.n_images))
    stripped = {(a[:-4], b[:-4], same) for a, b, same in listed(by_path)}
    assert stripped == set(listed(by_name))
