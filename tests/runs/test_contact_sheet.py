import io
import math
import re
import subprocess
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests import oracles_diagnostics as oracles
from tests.budgets import examples
from tests.conftest import crop_of
from vidface.core.errors import VidfaceError
from vidface.runs import artefacts, contact_sheet
from vidface.runs.clip_drawing import ClipFaces, choose_evenly
from vidface.runs.columns import CLIPS_SCHEMA, CROPS_SCHEMA
from vidface.runs.contact_sheet import MOST_FACES, check_sheet_path, draw_sheet, write_sheet
from vidface.runs.crops import find_crops
from vidface.runs.embedding import encode_jpeg
from vidface.runs.run_folder import RunFolder

RED, BLUE, WHITE, GREY = (204, 26, 26), (0, 130, 200), (255, 255, 255), (208, 208, 208)
CELL, STEP = 130, 138  # pixels: a face of 112 with its rim of 9, and from one to the next


def flat(*colour, size=(112, 112)):
    return np.full((*size, 3), colour, np.uint8)


def sheet_of(crops, clusters=None, similarities=None, captions=None, **options):
    n = len(crops)
    clusters = np.zeros(n, np.int32) if clusters is None else np.array(clusters, np.int32)
    similarities = np.full(n, 0.5) if similarities is None else np.array(similarities, float)
    told = {"title": "a clip", **options}
    max_faces = {"max_faces": told.pop("max_faces")} if "max_faces" in told else {}
    faces = ClipFaces(told.pop("title"), crops, clusters, similarities, captions, **told)
    return draw_sheet(faces, **max_faces)


def corners(sheet, n, *, captions=False, columns=None):
    """The upper left corners of the n cells, counted from the sheet's lower end."""
    columns = columns or min(11, max(n, 6))
    rows = -(-n // columns)
    height = CELL + (38 if captions else 19) + 16
    top = sheet.height - 20 - rows * height
    return [(20 + k % columns * STEP, top + k // columns * height) for k in range(n)]


def colours_inwards(sheet, corner):
    """Colours on the way from a cell's left edge inwards at half its height, run by run."""
    x, y = corner
    pixels = [sheet.getpixel((x + k, y + CELL // 2)) for k in range(20)]
    runs = [(pixels[0], 1)]
    for pixel in pixels[1:]:
        runs = (
            [*runs[:-1], (pixel, runs[-1][1] + 1)] if pixel == runs[-1][0] else [*runs, (pixel, 1)]
        )
    return runs


@pytest.fixture
def texts(monkeypatch):
    """Every text that is drawn, in order."""
    drawn = []
    real = ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        drawn.append(text)
        return real(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return drawn


def test_four_faces_with_their_frames():
    # Kept: the face begins after 9 white pixels. Others: 5 red ones, then 4 white ones, or, in
    # cluster 1, 4 blue ones.
    yellow = (200, 200, 30)
    sheet = sheet_of([flat(*yellow)] * 4, [0, 1, 2, -1])
    found = [colours_inwards(sheet, corner) for corner in corners(sheet, 4)]
    bare = [(RED, 5), (WHITE, 4), (yellow, 11)]
    assert found == [
        [(WHITE, 9), (yellow, 11)],
        [(RED, 5), (BLUE, 4), (yellow, 11)],
        bare,
        bare,
    ]
    x, y = corners(sheet, 4)[1]
    for dx, dy in [(0, 0), (CELL - 1, 0), (0, CELL - 1), (CELL - 1, CELL - 1), (CELL - 5, 60)]:
        assert sheet.getpixel((x + dx, y + dy)) == RED
    for dx, dy in [(5, 5), (CELL - 6, CELL - 6), (8, 60), (60, CELL - 9)]:
        assert sheet.getpixel((x + dx, y + dy)) == BLUE
    for dx, dy in [(9, 9), (CELL - 10, CELL - 10), (60, 60)]:
        assert sheet.getpixel((x + dx, y + dy)) == yellow
    assert sheet.getpixel((x + CELL, y + 60)) == sheet.getpixel((x - 1, y + 60)) == WHITE


def test_faces_stand_in_order_row_by_row():
    shades = [flat(8 * k, 0, 0) for k in range(25)]
    sheet = sheet_of(shades)
    places = corners(sheet, 25)
    assert [sheet.getpixel((x + 65, y + 65))[0] for x, y in places] == [8 * k for k in range(25)]
    assert len({y for _, y in places}) == 3  # 11, 11 and 3


def test_texts_of_a_sheet(texts):
    sheet_of(
        [flat(0, 0, 0)] * 5,
        [0, 1, 12, -1, 0],
        [0.834, -0.05, 1, 0.3, math.nan],
        ["0.00 s", "0.12 s", "0.25 s", "0.38 s", "0.50 s"],
        diagnostics="lowest similarity .03, contested",
        title="Abdullah_Gul.clip1",
    )
    assert texts[:3] == [
        "Abdullah_Gul.clip1",
        "5 faces · 2 kept · 3 dropped (1 unusable)",
        "lowest similarity .03, contested",
    ]
    assert texts[3:6] == ["kept", "dropped", "dropped, second cluster"]
    assert texts[7:] == [
        *["0  .83", "0.00 s"],
        *["1  -.05", "0.12 s"],
        *["12  1.00", "0.25 s"],
        *["unusable", "0.38 s"],
        *["0  n/a", "0.50 s"],
    ]


@pytest.mark.parametrize(
    ("cluster", "similarity", "label"),
    [
        (0, 0.0, "0  .00"),
        (0, -0.004, "0  .00"),
        (0, 0.995, "0  .99"),  # 0.995 is a little less than that
        (0, 0.996, "0  1.00"),
        (10, -1.0, "10  -1.00"),
        (0, 0.1, "0  .10"),
        (3, -0.995001, "3  -1.00"),
        (0, 20.5, "0  20.50"),  # no cosine, and still no other number
        (3, math.inf, "3  n/a"),
        (-1, math.nan, "unusable"),
    ],
)
def test_labels(texts, cluster, similarity, label):
    sheet_of([flat(0, 0, 0)], [cluster], [similarity])
    assert texts[-1] == label


def test_the_header_counts_all_faces(texts):
    n = 9812
    clusters = np.zeros(n, np.int32)
    clusters[:1000], clusters[-7:] = 3, -1
    sheet = sheet_of([flat(1, 2, 3)] * n, clusters)
    assert texts[1] == "400 of 9,812 faces shown · 8,805 kept · 1,007 dropped (7 unusable)"
    assert len(texts) == 6 + 400
    assert sheet.width <= 1600
    texts.clear()
    sheet_of([flat(1, 2, 3)])
    assert texts[1] == "1 face · 1 kept · 0 dropped"
    texts.clear()
    sheet_of([], diagnostics="nothing")
    assert texts[1:3] == ["no faces", "nothing"]
    texts.clear()
    sheet_of([flat(1, 2, 3)] * 3, max_faces=2)
    assert texts[1] == "2 of 3 faces shown · 3 kept · 0 dropped"
    texts.clear()
    sheet_of([flat(1, 2, 3)] * 3, max_faces=3)
    assert texts[1] == "3 faces · 3 kept · 0 dropped"


def test_only_faces_that_are_drawn_are_looked_at():
    class Crops:
        seen: list[int] = []  # noqa: RUF012

        def __len__(self):
            return 10_000

        def __getitem__(self, k):
            self.seen.append(k)
            return flat(k % 256, 0, 0)

    sheet = draw_sheet(
        ClipFaces("", Crops(), np.zeros(10_000, int), np.zeros(10_000)), max_faces=12
    )
    # Evenly spaced, both ends among them: 909 apart.
    assert Crops.seen == [909 * k for k in range(12)]
    places = corners(sheet, 12)
    shades = [sheet.getpixel((x + 65, y + 65))[0] for x, y in places]
    assert shades == [909 * k % 256 for k in range(12)]


@given(n=st.integers(0, 300), most=st.integers(1, 40))
@examples(200)
def test_evenly_equals_the_naive_twin(n, most):
    assert choose_evenly(n, most) == oracles.evenly(n, most)


@pytest.mark.slow
def test_the_largest_sheet_is_a_webp_still(tmp_path):
    n = MOST_FACES + 1
    captions = ["x"] * n
    sheet = sheet_of(
        [flat(9, 9, 9)] * n,
        [1] * n,
        captions=captions,
        max_faces=MOST_FACES,
        diagnostics="x " * 999,
    )
    assert sheet.width <= 1600
    assert 15_200 < sheet.height <= 16_383
    write_sheet(tmp_path / "large.webp", sheet)
    assert Image.open(tmp_path / "large.webp").size == sheet.size


def cut_jpeg():
    return encode_jpeg(crop_of("red"))[:-400]


def bomb(kind="PNG"):
    buffer = io.BytesIO()
    Image.new("L", (2001, 2000)).save(buffer, format=kind)
    return buffer.getvalue()


def gif():
    buffer = io.BytesIO()
    Image.new("L", (112, 112), 9).save(buffer, format="GIF")
    return buffer.getvalue()


def giant_header(side):
    """A JPEG that says it is so many pixels a side; of 10,000 PIL warns, 65,000 it refuses."""
    data = bytearray(encode_jpeg(crop_of("red")))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = side.to_bytes(2, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no picture",
        cut_jpeg(),
        bomb(),
        bomb("JPEG"),
        giant_header(10_000),
        giant_header(65_000),
        np.zeros((2001, 2000, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((1, 3_000_000, 3), np.uint8),  # nothing is left of its height
        gif(),
    ],
    ids=[
        "empty",
        "text",
        "cut",
        "png",
        "jpeg",
        "large",
        "giant",
        "array",
        "no rows",
        "thin",
        "gif",
    ],
)
def test_a_broken_crop_is_a_grey_cell(texts, broken):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sheet = sheet_of([flat(9, 9, 9), broken, encode_jpeg(flat(250, 250, 0))], [0, 1, 0])
    assert not warned
    assert texts.count("unreadable") == 1
    places = corners(sheet, 3)
    assert colours_inwards(sheet, places[1]) == [(RED, 5), (BLUE, 4), (GREY, 11)]
    x, y = places[2]
    assert sheet.getpixel((x + 65, y + 65)) == pytest.approx((250, 250, 0), abs=3)


def test_a_crop_of_exactly_four_million_pixels_is_drawn(texts):
    sheet_of([np.zeros((2000, 2000, 3), np.uint8)])
    assert "unreadable" not in texts


def test_crops_of_other_sizes_and_modes_fit_their_cells(texts):
    def encoded(image, kind):
        buffer = io.BytesIO()
        image.save(buffer, format=kind)
        return buffer.getvalue()

    crops = [
        flat(0, 0, 250, size=(224, 112)),  # twice as high as wide: 56 wide in the middle
        flat(0, 0, 250, size=(20, 20)),
        encoded(Image.new("CMYK", (112, 112), (255, 255, 0, 5)), "JPEG"),
        encoded(Image.new("L", (60, 60), 77), "PNG"),
        encoded(Image.new("RGBA", (60, 60), (0, 0, 250, 255)), "PNG"),
    ]
    sheet = sheet_of(crops)
    assert "unreadable" not in texts
    places = corners(sheet, 5)
    x, y = places[0]
    row = [sheet.getpixel((x + k, y + 65)) for k in range(CELL)]
    assert [k for k in range(CELL) if row[k] == (0, 0, 250)] == list(range(37, 93))
    column = [sheet.getpixel((x + 65, y + k)) for k in range(CELL)]
    assert [k for k in range(CELL) if column[k] == (0, 0, 250)] == list(range(9, 121))
    middles = [sheet.getpixel((x + 10, y + 10)) for x, y in places[1:]]
    assert middles[0] == middles[3] == (0, 0, 250)
    assert middles[1] == pytest.approx((0, 0, 250), abs=8)
    assert middles[2] == (77, 77, 77)


@pytest.mark.parametrize(
    ("title", "drawn"),
    [
        ("Abdullah_Gul.clip1", "Abdullah_Gul.clip1"),
        ("a\nb\t c\r\n", "a b c"),
        ("\x00\x1b[31m\x7f", "??[31m?"),
        ("evil\u202etxt\u200b", "evil?txt?"),
        ("José Müller – Zoë’s", "Jose Muller - Zoe's"),
        ("e\u0301a\u0300", "ea"),
        ("中文 клип 🎬", "?? ???? ?"),
        ("\ud800", "?"),
        ("", "(no name)"),
        (" \n", "(no name)"),
        ("\u0301", "(no name)"),
    ],
)
def test_titles_of_strangers(texts, title, drawn):
    sheet_of([flat(0, 0, 0)], title=title)
    assert texts[0] == drawn


def test_a_long_title_is_cut_in_its_middle(texts):
    title = "a" * 100_000 + "clip" + "b" * 100_000
    sheet = sheet_of([flat(0, 0, 0)], title=title)
    assert sheet.width == sheet_of([flat(0, 0, 0)], title="a").width
    match = re.fullmatch("(a+)…(b+)", texts[0])
    assert abs(len(match[1]) - len(match[2])) <= 1
    font = contact_sheet._font(24)
    assert sheet.width - 40 - 15 < font.getlength(texts[0]) <= sheet.width - 40
    # No text runs over the margin.
    margin = np.asarray(sheet)[:, -20:]
    assert (margin == 255).all()


def test_captions_are_cut_to_their_cell(texts):
    names = ["0001.jpg", "a_very_long_file_name_0001.jpg", "\x00"]
    sheet_of([flat(0, 0, 0)] * 3, captions=names)
    assert texts[-5] == "0001.jpg"
    assert re.fullmatch(r"a_very.*….*0001\.jpg", texts[-3])
    assert contact_sheet._font(15).getlength(texts[-3]) <= CELL
    assert texts[-1] == "?"


def test_diagnostics_wrap_to_three_lines(texts):
    words = [f"word{k}" for k in range(400)]
    sheet = sheet_of([flat(0, 0, 0)], diagnostics=" ".join(words))
    lines = texts[2:5]
    assert texts[5] == "kept"
    font = contact_sheet._font(16)
    assert all(font.getlength(line) <= sheet.width - 40 for line in lines)
    assert lines[2].endswith("…")
    assert " ".join(lines)[:-1] == " ".join(words)[: len(" ".join(lines)) - 1]
    texts.clear()
    sheet_of([flat(0, 0, 0)], diagnostics="x" * 1000)
    assert re.fullmatch("x+…", texts[2])
    assert font.getlength(texts[2]) <= sheet.width - 40
    assert texts[3] == "kept"
    texts.clear()
    plain = sheet_of([flat(0, 0, 0)], diagnostics=" ")
    assert texts[2] == "kept"
    assert plain.height == sheet.height - 75


@given(title=st.text(max_size=40), diagnostics=st.text(max_size=300), caption=st.text(max_size=30))
@examples(60)
def test_no_text_stops_a_sheet(title, diagnostics, caption):
    sheet = sheet_of([flat(0, 0, 0)], captions=[caption], title=title, diagnostics=diagnostics)
    assert (np.asarray(sheet)[:, -20:] == 255).all()


def test_caller_arrays_are_read_only_to_us():
    clusters, similarities, crop = np.array([1]), np.array([0.5]), flat(1, 2, 3)
    for array in (clusters, similarities, crop):
        array.flags.writeable = False
    draw_sheet(ClipFaces("x", [crop], clusters, similarities))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": np.array([0])}, r"clusters must be \(2,\) integers"),
        ({"clusters": np.array([0.0, 1.0])}, "of float64"),
        ({"clusters": np.array([True, False])}, "of bool"),
        ({"similarities": np.array([0.5])}, r"similarities must be \(2,\) floats"),
        ({"similarities": np.array([1, 1])}, "of int64"),
        ({"captions": ["a"]}, "1 captions for 2 crops"),
        ({"max_faces": 0}, r"max_faces must lie in \[1, 900\], got 0"),
        ({"max_faces": 901}, "got 901"),
        ({"crops": [flat(0, 0, 0), np.zeros((112, 112), np.uint8)]}, r"crop 1 must be the bytes"),
        ({"crops": [flat(0, 0, 0), np.zeros((9, 9, 3))]}, "of float64"),
        ({"crops": [flat(0, 0, 0), np.zeros((9, 9, 4), np.uint8)]}, r"\(9, 9, 4\)"),
    ],
)
def test_input_is_checked(change, message):
    given = {
        "crops": [flat(0, 0, 0)] * 2,
        "clusters": np.array([0, 1]),
        "similarities": np.array([0.5, 0.5]),
        "title": "a clip",
    }

    def draw(*, max_faces=400, **told):
        return draw_sheet(ClipFaces(**told), max_faces=max_faces)

    draw(**given)
    with pytest.raises(VidfaceError, match=message):
        draw(**(given | change))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("new/c.x.webp", "WEBP")],
)
def test_a_sheet_is_written_by_its_suffix(tmp_path, name, kind):
    sheet = sheet_of([flat(9, 200, 9)] * 2, [1, 0])
    path = tmp_path / name
    write_sheet(path, sheet)
    write_sheet(path, sheet)  # over the old one
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.format == kind
        difference = np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(sheet, int))
        assert difference.mean() < (0.01 if kind == "PNG" else 2)
        x, y = corners(sheet, 2)[0]
        assert image.convert("RGB").getpixel((x + 2, y + 65)) == pytest.approx(RED, abs=30)


@pytest.mark.parametrize("name", ["a.gif", "a", "png", "a.png.part", ".png"])
def test_other_suffixes_are_refused(tmp_path, name):
    message = r"\.png, \.jpg, \.jpeg, \.webp"
    with pytest.raises(VidfaceError, match=message):
        write_sheet(tmp_path / name, sheet_of([]))
    with pytest.raises(VidfaceError, match=message):
        check_sheet_path(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    check_sheet_path(tmp_path / "a.png")


def test_a_sheet_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VidfaceError, match="cannot be written"):
        write_sheet(tmp_path / "file" / "a.png", sheet_of([]))


CLIPS = {  # clip_id: (state, the shades of its faces), two shards, one clip without a face
    0: {"Ann.clip1": ("ok", [1, 2, 3]), "Ann.clip2": ("no_face", [])},
    1: {"Bob/clip 1": ("ok", list(range(300))), "Cy.clip1": ("ok", [7])},
}


@pytest.fixture
def run(tmp_path):
    """A finished extraction of `CLIPS`, with crops; a face's JPEG holds its clip and number."""
    folder = RunFolder(tmp_path / "run")
    made = artefacts.provenance("extract", {})
    states = []
    for number, clips in CLIPS.items():
        rows = []
        for clip_id, (state, faces) in clips.items():
            message = f"{clip_id}: no face in 9 frames" if state == "no_face" else ""
            states.append({"clip_id": clip_id, "state": state, "message": message})
            rows += [
                {
                    "clip_id": clip_id,
                    "frame_index": k,
                    "face_index": 0,
                    "jpeg": f"{clip_id} {face}".encode(),
                }
                for k, face in enumerate(faces)
            ]
        table = pa.Table.from_pylist(rows, CROPS_SCHEMA)
        artefacts.write_parquet(folder.crops_path(number), table, made)
    states = [{"frames": 0, "faces": 0, **row} for row in states]
    clips = pa.Table.from_pylist(states, CLIPS_SCHEMA)
    artefacts.write_parquet(folder.clips_path, clips, made)
    return folder


@pytest.mark.parametrize("clip_id", ["Ann.clip1", "Bob/clip 1", "Cy.clip1"])
def test_crops_of_a_clip_are_found(run, clip_id):
    [(number, faces)] = [(n, clips[clip_id][1]) for n, clips in CLIPS.items() if clip_id in clips]
    found, table = find_crops(run, clip_id)
    assert found == number
    assert table.schema.equals(CROPS_SCHEMA)
    assert table.column("jpeg").to_pylist() == [f"{clip_id} {face}".encode() for face in faces]
    assert table.column("frame_index").to_pylist() == list(range(len(faces)))
    assert set(table.column("clip_id").to_pylist()) == {clip_id}


def test_files_that_are_no_shards_are_passed_over(run):
    for name in ("shard-old.parquet", ".shard-00000.parquet.12345678.part", "notes.txt"):
        (run.folder / "crops" / name).write_bytes(b"")
    assert find_crops(run, "Cy.clip1")[0] == 1


def test_an_unknown_clip_brings_close_names(run):
    with pytest.raises(VidfaceError, match=r"\(4 clips\); did you mean 'Ann.clip1' or 'Ann.clip2'"):
        find_crops(run, "ann.clip1")
    with pytest.raises(VidfaceError, match=r"is not in run directory .*; the first is 'Ann.clip1'"):
        find_crops(run, "zzz\n" * 100_000)


def test_a_clip_without_a_face_says_why(run):
    message = r"'Ann.clip2' has no faces to show \(no_face: Ann.clip2: no face in 9 frames\)"
    with pytest.raises(VidfaceError, match=message):
        find_crops(run, "Ann.clip2")


def test_a_run_without_crops_says_how_to_get_them(run):
    for number in CLIPS:
        run.crops_path(number).unlink()
    with pytest.raises(
        VidfaceError, match="was extracted without crops; extract with --keep-crops"
    ):
        find_crops(run, "Ann.clip1")
    with pytest.raises(VidfaceError, match="did you mean"):  # a typing error is said first
        find_crops(run, "Ann.clip3")
    run.clips_path.unlink()
    with pytest.raises(VidfaceError, match="no finished extraction"):
        find_crops(run, "Ann.clip1")


def test_damaged_shards_are_named(run):
    run.crops_path(0).write_bytes(b"PAR1")
    with pytest.raises(VidfaceError, match=r"shard-00000\.parquet: unreadable crops"):
        find_crops(run, "Ann.clip1")
    pq.write_table(pa.table({"clip_id": ["Ann.clip1"]}), run.crops_path(0))
    with pytest.raises(VidfaceError, match="no column face_index, frame_index, jpeg"):
        find_crops(run, "Ann.clip1")


def test_a_shard_is_not_read_whole(run):
    # 12,000 faces of 5 kB: 60 MB; the clip is the last but one.
    jpeg = np.random.default_rng(0).integers(0, 256, (12_000, 5000), np.uint8)
    ids = [f"clip{k // 10}" for k in range(12_000)]
    table = pa.table(
        [ids, list(range(12_000)), [0] * 12_000, [row.tobytes() for row in jpeg]],
        schema=CROPS_SCHEMA,
    )
    made = artefacts.provenance("extract", {})
    artefacts.write_parquet(run.crops_path(5), table, made)
    row = {"clip_id": "clip1198", "state": "ok", "frames": 0, "faces": 0}
    clips = pa.Table.from_pylist([row], CLIPS_SCHEMA)
    artefacts.write_parquet(run.clips_path, clips, made)
    script = """
import sys
from pathlib import Path
import pyarrow as pa
from vidface.runs.run_folder import RunFolder
from vidface.runs.crops import find_crops
number, found = find_crops(RunFolder(Path(sys.argv[1])), "clip1198")
print(number, found.column("frame_index").to_pylist(), found.nbytes > 50_000)
print(pa.default_memory_pool().max_memory())
"""
    command = [sys.executable, "-c", script, str(run.folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found, peak = result.stdout.splitlines()
    assert found == f"5 {list(range(11_980, 11_990))} True"
    assert 100_000 < int(peak) < 2**25
