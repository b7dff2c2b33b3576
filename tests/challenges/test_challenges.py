"""Miniatures of two challenges, from their files to submissions, on the command line.

Their people are so far apart that what noise removal keeps is known without it: figures are worked
out again in plain Python.
"""

from __future__ import annotations

import csv
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import COLOURS, write_crop
from tests.datasets.test_iqiyi_features import Python2
from vidface.challenges.submissions import score_ranked_list
from vidface.datasets.iqiyi import read_ground_truth
from vidface.datasets.submissions import check_submission, read_ranked_list, read_submission
from vidface.metrics.protocols.verification import VerificationProtocol
from vidface.settings.pipeline import load_pipeline

Row = list[float]


def unit_sum(rows: list[Row]) -> Row:
    """The mean of unit rows, normalised; zeros of none."""
    total = [math.fsum(column) for column in zip(*(unit(row) for row in rows), strict=True)]
    return unit(total) if rows else []


def unit(row: Row) -> Row:
    norm = math.sqrt(math.fsum(x * x for x in row))
    return [x / norm for x in row]


def cosine(a: Row, b: Row) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) if a and b else -1.0


# --- LFRC, track 3 ---------------------------------------------------------------------------

PEOPLE = list(COLOURS)
VIDEOS = {f"{number:07d}": PEOPLE[number % 4] for number in range(11, -1, -1)}  # the list's order
EMPTY = "0000003"  # its folder holds no crop


@pytest.fixture
def track3(tmp_path: Path, colour_network: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 videos of 4 people: 4 crops of the person and one of somebody else."""
    folder = tmp_path / "lfrc data"
    for number, (video, person) in enumerate(VIDEOS.items()):
        (folder / "iQIYI_VID_FACE" / video).mkdir(parents=True)
        for k in range(0 if video == EMPTY else 5):
            who = PEOPLE[(PEOPLE.index(person) + 1) % 4] if k == 2 else person
            path = folder / "iQIYI_VID_FACE" / video / f"{k:03d}.jpg"
            write_crop(path, who, seed=10 * number + k)
    lines = [f"{video} {0 if video == EMPTY else 5}\n" for video in VIDEOS]
    (folder / "filelist.txt").write_text("".join(lines))
    monkeypatch.setenv("LFRC_ROOT", str(folder))
    monkeypatch.setenv("VIDFACE_WEIGHTS", str(colour_network))
    return folder


FED = ("--color", "rgb", "--mean", 127.5, "--std", 128)


def label(folder: Path) -> None:
    """Ground truth of all but two videos, which become distractors."""
    lines = [f"{video}.mp4 {PEOPLE.index(who)}\n" for video, who in list(VIDEOS.items())[:-2]]
    (folder / "ground_truth.txt").write_text("".join(lines))


def naive_track3(folder: Path) -> dict[str, Row]:
    """Descriptors: the network answers with the mean colour; the third crop is noise."""
    from PIL import Image

    rows: dict[str, Row] = {}
    for video in VIDEOS:
        faces = []
        for path in sorted((folder / "iQIYI_VID_FACE" / video).iterdir()):
            pixels = np.asarray(Image.open(path), np.float64).reshape(-1, 3)
            faces.append(((pixels.mean(axis=0) - 127.5) / 128).tolist())
        rows[video] = unit_sum([face for k, face in enumerate(faces) if k != 2])
    return rows


def test_track_3_from_folders_to_a_submission(track3: Path, vidface) -> None:
    label(track3)
    done = vidface("run", "lfr_track3", *FED)
    assert done.code == 3, done.err  # the empty folder
    assert "12 clips (ok 11, no_video_stream 1)" in done.out
    assert "44 of 55 faces kept, 11 dropped" in done.out
    for theirs in ("0.47191", "0.64894", "0.6323", "0.6187", "0.6105", "0.58207"):
        assert theirs in done.out
    assert "published, not measured here" in done.out

    flags = ("--pipeline", "lfr_track3", *FED)
    done = vidface("export", "lfrc", *flags, "--out", "s.bin", "--json")
    assert done.code == 0, done.err
    assert (done.json["rows"], done.json["cols"], done.json["zero_rows"]) == (12, 3, 1)
    check_submission(Path("s.bin"), track3 / "filelist.txt")
    found = read_submission("s.bin")
    expected = naive_track3(track3)
    for row, video in zip(found, VIDEOS, strict=True):
        assert np.allclose(row, expected[video] or np.zeros(3), atol=2e-3), video

    done = vidface(
        "export", "lfrc", *flags, "--filelist", track3 / "filelist.txt", "--out", "t.bin"
    )
    assert done.code == 0
    assert "12 rows x 3 float32, 160 bytes" in done.out
    assert Path("t.bin").read_bytes() == Path("s.bin").read_bytes()


def test_track_3_figures_are_those_of_all_pairs(track3: Path, vidface) -> None:
    label(track3)
    vidface("run", "lfr_track3", *FED)
    flags = ("--pipeline", "lfr_track3", *FED)
    done = vidface("score", *flags, "--fars", "2e-1,1e-1,1e-4", "--bootstrap", 0, "--json")
    assert done.code == 0, done.err
    verification = done.json["verification"]
    vidface("export", "lfrc", *flags, "--out", "s.bin")
    rows = dict(zip(VIDEOS, read_submission("s.bin").tolist(), strict=True))
    identities = {video: VIDEOS[video] for video in list(VIDEOS)[:-2]}
    genuine, impostor = [], []
    for a, b in combinations(VIDEOS, 2):
        absent = not any(rows[a]) or not any(rows[b])
        value = -1.0 if absent else cosine(rows[a], rows[b])
        if a in identities and b in identities and identities[a] == identities[b]:
            genuine.append(value)
        elif a in identities or b in identities:
            impostor.append(value)
    pairs = verification["pairs"]
    assert (pairs["genuine"], pairs["impostor"]) == (len(genuine), len(impostor)) == (8, 57)
    assert pairs["distractor_left_out"] == 1
    points = verification["tar_at_far"]
    for text in ("2e-1", "1e-1"):
        far = float(text)
        rates = [
            (sum(s >= t for s in impostor) / len(impostor), sum(s >= t for s in genuine))
            for t in [*genuine, *impostor, 2.0]
        ]
        best = max(hits for rate, hits in rates if rate <= far) / len(genuine)
        assert points[text]["tar"] == pytest.approx(best)
    assert points["1e-4"]["tar"] is None


def test_table_5_is_chosen_honestly_at_far_1e_4(
    tmp_path: Path, colour_network: Path, monkeypatch: pytest.MonkeyPatch, vidface
) -> None:
    """The paper's Table 5 on the challenge's layout: no gallery, and the FAR that is asked for.

    Each clip is a crop of its person, then one of somebody else. At 0.4 they are parted and the
    earlier one stays, so that all genuine pairs score higher than any impostor. With both, a clip
    of one with another looks like one of the other with the one.
    """
    folder, lines = tmp_path / "lfrc", []
    for who in PEOPLE:
        write_crop(tmp_path / "crops" / f"{who}.jpg", who)
    for number in range(420):  # 105 a person: in a fold of two people 11,025 impostor pairs
        person, video = number % 4, f"{number:04d}"
        (folder / "iQIYI_VID_FACE" / video).mkdir(parents=True)
        stranger = (person + 1 + number // 4 % 3) % 4
        for k, who in enumerate((person, stranger)):
            crop = tmp_path / "crops" / f"{PEOPLE[who]}.jpg"
            (folder / "iQIYI_VID_FACE" / video / f"{k}.jpg").hardlink_to(crop)
        lines.append(f"{video} {person}\n")
    (folder / "filelist.txt").write_text("".join(lines))
    (folder / "ground_truth.txt").write_text("".join(lines))
    monkeypatch.setenv("LFRC_ROOT", str(folder))
    monkeypatch.setenv("VIDFACE_WEIGHTS", str(colour_network))
    flags = ("--pipeline", "lfr_track3", *FED)
    assert vidface("extract", *flags).code == 0
    chosen = ("sweep", *flags, "--folds", 2, "--thresholds", "0.4")

    done = vidface(*chosen, "--select-by", "tar@1e-4")
    assert done.code == 0, done.err
    assert "threshold chosen by TAR@1e-4 over 2 folds of the identities of val" in done.out
    path = next(Path().glob("runs/*/sweeps/selected_over_2_folds_of_val_seed_0_by_tar_1e-4.json"))
    found = json.loads(path.read_text())
    assert (found["criterion_far"], found["optimistic_far"]) == ("1e-4", "1e-4")
    assert (found["gallery"], found["honest"]["map_at_100"]) == (None, None)
    assert found["honest"]["thresholds"] == [0.4, 0.4]
    assert found["honest"]["tar_at_far"]["1e-4"]["tar"] == 1
    assert found["no_clustering"]["tar_at_far"]["1e-4"]["tar"] < 0.5
    rounds = found["honest"]["tar_at_far"]["1e-4"]["rounds"]
    assert [point["impostor"] for point in rounds] == [105 * 105] * 2

    done = vidface(*chosen)  # of several, the lowest that there is, and said
    assert done.code == 0, done.err
    assert "chosen at FAR 1e-4, the lowest of 1e-3, 1e-4, 1e-5 that all clips" in done.out
    for asked in (("--select-by", "tar@1e-5"), ("--fars", "1e-5"), ("--fars", "1e-5,1e-6")):
        done = vidface(*chosen, *asked)  # one that is not there is an error, never another one
        assert (done.code, done.out) == (1, "")
        assert "with 11025 impostor pairs none of the target FARs (1e-5" in done.err
    done = vidface(*chosen, "--select-by", "map")
    assert (done.code, "map has no gallery to enrol people from" in done.err) == (1, True)


def test_track_3_without_labels(track3: Path, vidface) -> None:
    """As it is public: the submission is all that can be made."""
    done = vidface("run", "lfr_track3", *FED)
    assert done.code == 3, done.err
    assert "no ground_truth.txt there" in done.err
    assert "44 of 55 faces kept" in done.out
    flags = ("--pipeline", "lfr_track3", *FED)
    assert vidface("export", "lfrc", *flags, "--out", "s.bin").code == 0
    assert read_submission("s.bin").shape == (12, 3)
    label(track3)  # which need no new extraction
    done = vidface("run", "lfr_track3", *FED, "--json")
    assert done.code == 3, done.err
    assert "already done" in done.err
    assert done.json["verification"]["pairs"]["genuine"] == 8


def test_track_3_imported(track3: Path, vidface, colour_network: Path) -> None:
    label(track3)
    done = vidface(
        "import", "lfrc", track3, "--labels", track3 / "ground_truth.txt", "--out", "mine"
    )
    assert done.code == 0, done.err
    assert "12 clips (val 12)\n10 labelled (4 identities), 2 distractors" in done.out
    flags = ("--pipeline", "mine/vidface.toml", "--weights", colour_network, *FED)
    assert vidface("extract", *flags).code == 3
    assert vidface("cluster", *flags).code == 0
    assert vidface("score", *flags, "--bootstrap", 0).code == 0
    vidface("export", "lfrc", *flags, "--out", "mine.bin")
    vidface("run", "lfr_track3", *FED)
    vidface("export", "lfrc", "--pipeline", "lfr_track3", *FED, "--out", "recipe.bin")
    assert Path("mine.bin").read_bytes() == Path("recipe.bin").read_bytes()


# --- iQIYI-VID -------------------------------------------------------------------------------

D = 16
IDENTITIES = ("1", "2", "3", "10")


def features_of(
    seed: int, person: int, n: int
) -> list[tuple[bytes, list[float], float, np.ndarray]]:
    """n faces of a person, every third of somebody else; the last two share a frame."""
    rng = np.random.default_rng(seed)
    faces = []
    for k in range(n):
        who = (person + 1) % 5 if k % 3 == 2 else person
        row = (np.eye(D)[who] + rng.normal(scale=0.05, size=D)).astype(np.float16)
        faces.append((b"%d" % min(3 * k, 3 * (n - 2)), rng.uniform(0, 99, 4).tolist(), 0.9, row))
    return faces


def naive_descriptor(seed: int, person: int, n: int) -> Row:
    faces = features_of(seed, person, n)
    return unit_sum([face[3].astype(float).tolist() for k, face in enumerate(faces) if k % 3 != 2])


TRAIN = {f"IQIYI_VID_TRAIN_{k:07d}": (k, k % 4, 4 + k % 3) for k in range(1, 9)}
VAL = {f"IQIYI_VID_VAL_{k:07d}": (50 + k, k % 5, 4 + k % 3) for k in range(1, 16)}  # 4: a stranger
NO_FACE, ABSENT = "IQIYI_VID_VAL_0000099", "IQIYI_VID_VAL_0000098"
POSITIVES = {
    **{video: IDENTITIES[person] for video, (_, person, _) in VAL.items() if person < 4},
    NO_FACE: "1",
    ABSENT: "2",
}


@pytest.fixture(params=["2018", "2019"])
def iqiyi(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Python 2's pickles; their keys end in .mp4 in 2018, and do not in 2019."""
    folder = tmp_path / "iqiyi data"
    folder.mkdir()
    suffix = ".mp4" if request.param == "2018" else ""
    for name, videos in (("train", TRAIN), ("val", VAL)):
        content = [((video + suffix).encode(), features_of(*of)) for video, of in videos.items()]
        if name == "val":
            content.insert(3, ((NO_FACE + suffix).encode(), []))
        with (folder / f"face_{name}_v2.pickle").open("wb") as file:
            file.writelines(Python2().file(content))
    lines = [f"{video}.mp4 {IDENTITIES[person]}\n" for video, (_, person, _) in TRAIN.items()]
    (folder / "train_gt.txt").write_text("".join(lines))
    lines = [
        " ".join([identity, *(f"{v}.mp4" for v, who in POSITIVES.items() if who == identity)])
        for identity in IDENTITIES
    ]
    (folder / "val_gt.txt").write_text("\n".join(lines))
    monkeypatch.setenv("IQIYI_VID", str(folder))
    return folder


def naive_lists() -> dict[str, list[str]]:
    gallery: dict[str, list[Row]] = {}
    for of in TRAIN.values():
        gallery.setdefault(IDENTITIES[of[1]], []).append(naive_descriptor(*of))
    rows = {video: naive_descriptor(*of) for video, of in VAL.items()}
    return {
        identity: sorted(rows, key=lambda video: -cosine(unit_sum(enrolled), rows[video]))
        for identity, enrolled in gallery.items()
    }


def naive_map(lists: dict[str, list[str]], k: int = 100) -> float:
    values = []
    for identity in IDENTITIES:
        hits, total = 0, 0.0
        for rank, video in enumerate(lists[identity][:k], start=1):
            if POSITIVES.get(video) == identity:
                hits += 1
                total += hits / rank
        values.append(total / sum(who == identity for who in POSITIVES.values()))
    return sum(values) / len(values)


def test_iqiyi_from_features_to_a_submission(iqiyi: Path, vidface) -> None:
    done = vidface("run", "iqiyi_vid")
    assert done.code == 3, done.err  # a video that no pickle has
    assert "25 clips (ok 23, no_face 1, missing 1)" in done.out
    for theirs in ("0.798", "0.8865", "0.91"):
        assert theirs in done.out
    assert "published, not measured here" in done.out

    done = vidface("export", "iqiyi", "--pipeline", "iqiyi_vid", "--out", "result.txt")
    assert done.code == 0, done.err
    assert "4 identities of train, at most 100 of 15 clips of val each" in done.out
    lists = read_ranked_list("result.txt")
    expected = naive_lists()
    assert {name: list(videos) for name, videos in lists.items()} == expected
    assert Path("result.txt").read_text().splitlines()[3].startswith("10 IQIYI_VID_VAL_00000")

    truth = read_ground_truth(iqiyi / "val_gt.txt")
    alone = score_ranked_list(lists, truth)
    assert alone.map_at_k == pytest.approx(naive_map(expected), abs=1e-12)
    assert alone.map_at_k < 0.9  # the two videos without a face are among the positives
    done = vidface("run", "iqiyi_vid", "--json")
    assert done.json["retrieval"]["map_at_100"] == alone.map_at_k
    done = vidface("score", "--submission", "result.txt", "--gt", iqiyi / "val_gt.txt", "--json")
    assert done.code == 0, done.err
    assert done.json["map_at_100"] == alone.map_at_k


def test_iqiyi_k_and_noise(iqiyi: Path, vidface) -> None:
    vidface("run", "iqiyi_vid")
    flags = ("--pipeline", "iqiyi_vid", "--out", "r.txt")
    done = vidface("export", "iqiyi", *flags, "--k", 2, "--enrolment", "max", "--json")
    assert (done.json["k"], done.json["enrolment"], done.json["no_descriptor"]) == (2, "max", 2)
    assert {len(videos) for videos in read_ranked_list("r.txt").values()} == {2}
    vidface("export", "iqiyi", *flags, "--threshold", "none")
    assert {n: list(v) for n, v in read_ranked_list("r.txt").items()} != naive_lists()
    done = vidface("export", "iqiyi", *flags, "--split", "train", "--gallery", "val")
    assert "4 identities of val, at most 100 of 8 clips of train each" in done.out
    done = vidface("export", "iqiyi", *flags, "--k", 0)
    assert (done.code, "--k: must be at least 1" in done.err) == (2, True)


def test_iqiyi_imported_is_the_recipe(iqiyi: Path, vidface) -> None:
    files = [iqiyi / f"face_{split}_v2.pickle" for split in ("train", "val")]
    gts = ["--gt", iqiyi / "val_gt.txt", "--gt", iqiyi / "train_gt.txt"]
    done = vidface("import", "iqiyi", *files, *gts, "--out", "mine")
    assert done.code == 3, done.err
    faces = sum(n for _, _, n in (TRAIN | VAL).values())
    assert f"25 clips (train 8, val 17), {faces} faces" in done.out
    assert "22 labelled (4 identities), 3 distractors" in done.out
    assert vidface("cluster", "--pipeline", "mine/vidface.toml").code == 0
    vidface("export", "iqiyi", "--pipeline", "mine/vidface.toml", "--out", "mine.txt")
    vidface("run", "iqiyi_vid")
    vidface("export", "iqiyi", "--pipeline", "iqiyi_vid", "--out", "recipe.txt")
    assert Path("mine.txt").read_bytes() == Path("recipe.txt").read_bytes()
    with (
        Path("mine/manifest.csv").open() as mine,
        Path("runs/iqiyi_vid/manifest.csv").open() as own,
    ):
        assert list(csv.reader(mine)) == list(csv.reader(own))


@pytest.mark.parametrize(
    ("name", "variable"), [("lfr_track3", "LFRC_ROOT"), ("iqiyi_vid", "IQIYI_VID")]
)
def test_recipes_without_data_say_so(
    name: str, variable: str, vidface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    done = vidface("run", name)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert f"nowhere: no such folder; set {variable}" in done.err


def test_recipes_carry_the_published_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LFRC_ROOT", "IQIYI_VID", "VIDFACE_WEIGHTS"):
        monkeypatch.delenv(variable, raising=False)
    published = load_pipeline("lfr_track3").published
    assert {row.figure for row in published} == {"tar_at_far.1e-4"}
    values = [0.47191, 0.64894, 0.6323, 0.6187, 0.6105, 0.58207]
    assert [row.value for row in published] == values
    assert "1e-4" in load_pipeline("lfr_track3").score.protocol(VerificationProtocol).far_list
    assert load_pipeline("lfr_track3").backbone.weights == "sface"
    published = load_pipeline("iqiyi_vid").published
    assert [(row.figure, row.value) for row in published] == [
        ("map_at_100", value) for value in (0.798, 0.8865, 0.91)
    ]
    assert all(row.source for row in published)
