from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidface.core.errors import VidfaceError
from vidface.datasets.templates import TemplateList, read_templates

# Template 7: a photograph, and two frames of video 71. Template 9 has the photograph again.
IJB = "img/1.jpg 7 70\nframes/2.png 7 71\nframes/3.png 7 71\nimg/1.jpg 9 70\n"
HEADED = """SUBJECT_ID,Path,TEMPLATE_ID,SIGHTING_ID,MEDIA_ID
ann,img/1.jpg,7,5,70
ann,frames/2.png,7,5,71
ann,frames/3.png,7,5,71
ann,img/1.jpg,9,5,70
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes, **settings) -> TemplateList:
    return read_templates(written(folder, text), **settings)


def plainly(templates: TemplateList) -> list[tuple[str, str, str]]:
    ids = [templates.template_ids[row] for row in templates.rows]
    return list(zip(ids, templates.media_ids, templates.paths, strict=True))


EXPECTED = [
    ("7", "70", "img/1.jpg"),
    ("7", "71", "frames/2.png"),
    ("7", "71", "frames/3.png"),
    ("9", "70", "img/1.jpg"),
]


def test_ijb_by_eye(tmp_path):
    templates = read(tmp_path, IJB)
    assert templates.template_ids == ("7", "9")
    assert templates.rows.tolist() == [0, 0, 0, 1]
    assert templates.rows.dtype == np.int64
    assert templates.media_ids == ("70", "71", "71", "70")
    assert templates.paths == ("img/1.jpg", "frames/2.png", "frames/3.png", "img/1.jpg")
    assert templates.identities is None
    assert str(templates) == (
        "TemplateList(2 templates, 3 media, 4 images of 3 paths, no identities)"
    )


def swapped(text: str, separator: str = " ") -> str:
    """With the path last."""
    rows = [line.split() for line in text.splitlines()]
    return "".join(separator.join((*row[1:], row[0])) + "\n" for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        IJB,
        IJB.rstrip(),
        "\ufeff" + IJB,
        "\n" + IJB.replace("\n", "\r\n\r\n").replace(" ", "\t  "),
        IJB.replace(" ", ","),
        swapped(IJB),
        swapped(IJB, " , "),
        "template_id media_id path\n" + swapped(IJB),
        "Media_ID,FileName,Template_ID\n70,img/1.jpg,7\n71,frames/2.png,7\n"
        '71,"frames/3.png",7\n70,img/1.jpg,9\n',
        HEADED,
        HEADED.replace("Path", "FILE"),
    ],
)
def test_forms(tmp_path, text):
    assert plainly(read(tmp_path, text)) == EXPECTED


def test_identities(tmp_path):
    templates = read(tmp_path, HEADED)
    assert templates.identities == ("ann", "ann")
    assert str(templates).endswith("3 paths, 1 identities)")
    templates = read(tmp_path, HEADED.replace("ann,img/1.jpg,9", ",img/4.jpg,9"))
    assert templates.identities == ("ann", "")
    assert str(templates).endswith("4 paths, 1 identities)")


def test_ids_are_text(tmp_path):
    templates = read(tmp_path, "b.jpg 01 5\na.jpg 1 5\nc.jpg 01 05\n")
    assert templates.template_ids == ("01", "1")  # in order of appearance
    assert templates.media_ids == ("5", "5", "05")
    assert templates.n_media == 3


def test_paths_with_spaces_and_commas(tmp_path):
    text = '7,70,my face.jpg\n7,70,"a, b.jpg"\n7,71,C.MP4\n'
    assert read(tmp_path, text).paths == ("my face.jpg", "a, b.jpg", "C.MP4")
    with pytest.raises(VidfaceError, match=r"line 1: 4 field.*spaces needs commas"):
        read(tmp_path, "my face.jpg 7 70\n")


def test_order_may_be_given(tmp_path):
    text = "1.jpg 7 2.jpg\n3.jpg 8 4.jpg\n"  # either could be the path
    with pytest.raises(VidfaceError, match="the first and the last field of every line look like"):
        read(tmp_path, text)
    assert plainly(read(tmp_path, text, order="path-template-media"))[0] == ("7", "2.jpg", "1.jpg")
    assert plainly(read(tmp_path, text, order="template-media-path"))[0] == ("1.jpg", "7", "2.jpg")
    folders = "7 70 Ann/0\n7 71 Ann/1\n"
    with pytest.raises(VidfaceError, match="'7' on line 1 and 'Ann/0' on line 1 have no suffix"):
        read(tmp_path, folders)
    assert read(tmp_path, folders, order="template-media-path").paths == ("Ann/0", "Ann/1")


def test_order_is_told_from_every_line(tmp_path):
    text = "1.jpg 7 2.jpg\n3.jpg 8 4\n"
    assert read(tmp_path, text).paths == ("1.jpg", "3.jpg")
    with pytest.raises(VidfaceError, match="'x' on line 3 and '4' on line 2"):
        read(tmp_path, text + "x 9 5\n")


def test_header_rules_over_order(tmp_path):
    text = "template_id,media_id,path\n7,70,x\n"
    assert read(tmp_path, text, order="path-template-media").paths == ("x",)


def test_unknown_order(tmp_path):
    with pytest.raises(VidfaceError, match=r"unknown order 'x' .known: auto, template-media-path"):
        read(tmp_path, IJB, order="x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("template_id,media_id,path\n", "no images below the header"),
        ("template_id,media_id,x\n", "line 1: no column path or filename or file"),
        ("\nTEMPLATE_ID,FILENAME,SIGHTING_ID\n", "line 2: no column media_id"),
        ("media_id,path,x\n", "line 1: no column template_id"),
        ("template_id,media_id,path,file\n", "line 1: the header names 'path' twice"),
        (
            "template_id,media_id,path,identity,SUBJECT_ID\n",
            "line 1: the header names 'identity' twice, 'identity' and 'SUBJECT_ID'",
        ),
        ("1.jpg 7\n", "line 1: 2 field.s. where 3 are due"),
        (IJB + "\n1.jpg 7\n", "line 6: 2 field"),
        (IJB + "1.jpg 7 70 5\n", "line 5: 4 field"),
        (HEADED + "ann,img/1.jpg,7\n", "line 6: 3 field.s. where 5 are due$"),
        ("1.jpg,7,\n", "line 1: an empty"),
        ("1.jpg,,7\n", "line 1: an empty"),
        ("template_id,media_id,path\n7,70,1.jpg\n7,70,\n", "line 3: an empty"),
        (
            IJB + "frames/2.png 7 71\n",
            "line 5: path 'frames/2.png' is in medium '71' of template '7' already, on line 2",
        ),
        (
            HEADED + "bob,img/9.jpg,7,5,72\n",
            "line 6: template '7' is of 'bob' here and of 'ann' on line 2",
        ),
        (HEADED + ",img/9.jpg,7,5,72\n", "line 6: template '7' is of '' here"),
        (b"1.jpg 7 70\n\xff.jpg 7 70\n", "line 2: not UTF-8"),
        (b"1.jpg 7 70\n" + b"x" * 70_000, "line 2: longer than 65536 bytes"),
        ('1.jpg,7,70\n"2.jpg,7,70\n', "line 2: unexpected end of data"),
    ],
)
def test_refused(tmp_path, text, expected):
    with pytest.raises(VidfaceError, match=expected) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "list.txt") in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(VidfaceError, match=r"templates .*none.txt: No such file"):
        read_templates(tmp_path / "none.txt")


def test_the_same_image_in_two_media_or_templates(tmp_path):
    text = "a.jpg 1 5\na.jpg 1 6\na.jpg 2 5\n"
    assert plainly(read(tmp_path, text)) == [("1", "5", "a.jpg"), ("1", "6", "a.jpg"),
                                             ("2", "5", "a.jpg")]  # fmt: skip


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=40, unique=True))
def test_equals_the_naive_reader(tmp_path_factory, rows):
    rows = [(f"t{t}", f"m{m}", f"p{p}.jpg") for t, m, p in rows]
    text = "".join(f"{path}\t{t} {m}\n" for t, m, path in rows)
    templates = read(tmp_path_factory.mktemp("lists"), text)
    assert plainly(templates) == rows
    ids = []
    for t, _, _ in rows:
        if t not in ids:
            ids.append(t)
    assert list(templates.template_ids) == ids
    assert templates.n_media == len({row[:2] for row in rows})


def good() -> dict:
    return {
        "template_ids": ("7", "9"),
        "rows": np.array([0, 1, 0]),
        "media_ids": ("m", "m", "n"),
        "paths": ("a", "a", "a"),
        "identities": ("ann", "ann"),
    }


def test_a_template_list_may_be_made_by_hand():
    assert TemplateList(**good()).n_media == 3
    assert TemplateList(("7",), np.array([0]), ("m",), ("a",)).n_media == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rows": np.array([0, 1])}, r"rows must be \(3,\)"),
        ({"rows": np.array([0.0, 1.0, 0.0])}, "rows must be"),
        ({"rows": np.array([0, 1, 2])}, "rows has an index beyond 2"),
        ({"rows": np.array([0, 1, -1])}, "rows has an index beyond 2"),
        ({"rows": np.array([0, 0, 0]), "media_ids": ("m", "n", "o")}, "'9' has no image"),
        ({"media_ids": ("m", "m")}, "2 media ids for 3 paths"),
        ({"media_ids": ("m", "m", "m")}, "stands twice in one medium"),
        ({"template_ids": ("7", "7")}, "stands twice in template_ids"),
        ({"identities": ("ann",)}, "1 identities for 2 templates"),
        (
            {"rows": np.zeros(0, np.int64), "paths": (), "media_ids": ()},
            "there is no image in them",
        ),
    ],
)
def test_wrong_template_lists(change, expected):
    with pytest.raises(VidfaceError, match=expected):
        TemplateList(**{**good(), **change})
