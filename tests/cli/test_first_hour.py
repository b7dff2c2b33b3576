"""A first hour, as docs/quickstart.md has it, on a folder as people have them, line by line."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.messy_folder import write_messy_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("weights_at_hand")]

RATE = r"[01]\.\d{4}"
WITH_INTERVAL = rf"{RATE} \[{RATE}, {RATE}\]\*?"


def judge(text: str, expected: str) -> None:
    """Every line is one of `expected`, in its order: patterns, a line each, no other lines.

    `~` stands for a figure with its interval, `#` for a number; a blank line is one. A pattern goes
    on behind a backslash at the end of its line.
    """
    expected = re.sub(r"\\\n\s*", "", expected)
    lines = unicodedata.normalize("NFC", text).rstrip("\n").splitlines()
    patterns = [pattern.strip() for pattern in expected.strip().splitlines()]
    for number, (line, pattern) in enumerate(zip(lines, patterns, strict=False), start=1):
        regex = re.escape(pattern).replace(r"\~", WITH_INTERVAL).replace(r"\#", r"-?[\d.,e+-]+")
        regex = regex.replace("~", WITH_INTERVAL).replace("…", ".*")
        assert re.fullmatch(r"\s*" + regex, line), f"line {number}: {line!r} is not {pattern!r}"
    assert len(lines) == len(patterns), lines[len(patterns) :] or patterns[len(lines) :]


def verbs_of_quickstart() -> set[str]:
    """The commands that docs/quickstart.md has on lines of their own."""
    text = (REPOSITORY / "docs" / "quickstart.md").read_text(encoding="utf-8")
    return set(re.findall(r"^    vidface (\w+)", text, re.M))


def test_a_first_hour(vidface, data: Path, tmp_path: Path) -> None:
    tried: set[str] = set()

    def call(*words: object):
        tried.add(str(words[0]))
        return vidface(*words)

    folder = write_messy_folder(tmp_path / "My Videos", data)
    lost = call("score")
    assert lost.code == 2
    judge(
        lost.err,
        "vidface: error: no vidface.toml here: vidface run FOLDER, or vidface demo",
    )

    first = call("run", "My Videos")
    assert first.code == 3  # one clip failed, and stopped nothing
    judge(
        first.err,
        r"""
        vidface: manifest.csv: 14 clips, 5 identities (train 5, val 9)
        vidface: 2 folders are one person, José: their names differ in Unicode form or \
        white space alone ('Jos\xe9', 'Jose\u0301')
        vidface: left out: hidden: 2 (.DS_Store, Anna Lena/._clip 1.mp4); \
        files of other kinds: 1 (.txt 1); empty (0 bytes): 1 (王小明/empty.mp4); \
        pictures beside videos or folders of clips: 1 (Anna Lena/cover.jpg)
        vidface: vidface.toml: the settings, to be changed there
        """,
    )
    judge(
        first.out,
        r"""
        14 clips (ok 13, corrupt 1)
        200 frames, 0 without a face, 200 faces
        corrupt  Anna_Lena.broken: My Videos/Anna Lena/broken.mp4: damaged or not a video (…)…
        embeddings: …/runs/My Videos/embeddings
        threshold 0.4: 200 of 200 faces kept, 0 dropped (0.0%)
        14 clips, 0 with several clusters, 1 without a descriptor
        worth a look: 0 chained, 0 contested, 0 thin, 0 still, 0 twice \
        (vidface clips --flag contested); …
        descriptors: …/runs/My Videos/clusters/threshold_0.4/descriptors.parquet
        sface on manifest.csv: val against train, threshold 0.4
        9 clips (ok 9), 0 without a descriptor; 148 frames, 148 faces, 148 kept
        failure to acquire: 0 of 9 clips (0.00%), 1 of the gallery's 5

        mAP@100  ~  over 4 identities

        FAR      TAR              95 %  threshold  achieved FAR
        ───────────────────────────────────────────────────────
        1e-1  #  [#, #]     #      #

        FAR ≤ 1e-2 needs ≥ 100 impostor pairs; there are 30
        EER ~  AUC ~
        6 genuine and 30 impostor pairs

        identification
        rank 1   ~
        rank 5   ~
        rank 10  ~
        FPIR ≤ 1e-1 needs ≥ 10 non-mated probes; there are 0
        9 mated and 0 non-mated probes against 5 identities
        * identities are resampled; the pool of clips is held fixed
        * the split's people are resampled; the gallery is held fixed
        4 people are few: intervals called 95 % cover the truth less often (…)

        report: …/runs/My Videos/report.html: 14 clips, 13 of them in pictures, # MB
        next: Anna Lena is in the split and not in the gallery: \
        make another clip `train` in …/manifest.csv
        next: vidface clips --status corrupt   (the clips that failed)
        next: vidface show Anna_Lena.clip_1   (its faces, dropped ones framed)
        next: vidface sweep   (the figures at other thresholds)
        """,
    )

    # What the line says is done: another clip of hers is enrolled. Nothing is extracted again.
    manifest = tmp_path / "manifest.csv"
    text = manifest.read_text(encoding="utf-8")
    for clip, split in (("broken", "val"), ("clip_1", "train")):
        text = re.sub(rf"^(Anna_Lena\.{clip},.*),\w+\r?$", rf"\1,{split}", text, flags=re.M)
    manifest.write_text(text, encoding="utf-8")
    second = call("run")
    judge(
        second.err,
        r"""
        vidface: extraction: already done in …/runs/My Videos, 1 clip failed then \
        (--force makes it again, --retry-failed those)
        """,
    )
    assert "failure to acquire: 1 of 9 clips (11.11%), 0 of the gallery's 5" in second.out
    assert "gallery: make another" not in second.out

    # A new clip comes, the broken one is fetched again.
    rows = (data / "wlasl.csv").read_text(encoding="utf-8").splitlines()
    of_them = [data / row.split(",")[1] for row in rows if ",signer_P07," in row]
    shutil.copy(of_them[1], folder / "only once" / "again.mp4")
    shutil.copy(folder / "Anna Lena" / "clip 2.mp4", folder / "Anna Lena" / "broken.mp4")
    judge(
        call("init", "My Videos", "--add").out,
        """
        manifest.csv: 1 clips added, 14 were there
        only_once.again: only once, val
        """,
    )
    third = call("run")
    assert third.code == 0
    judge(
        third.err,
        """
        vidface: extraction: 1 added, 1 changed, 13 reused
        vidface: clusterings and scores made before are gone: they were of other clips
        """,
    )
    assert third.out.splitlines()[0] == "15 clips (ok 15)"

    judge(call("clips", "--status", "corrupt").out, "no clip is corrupt (15 clips)")
    judge(
        call("show", "José.first").out,
        """
        José.first: # of # faces kept, 1 cluster(s)
        sheet: sheet.png
        """,
    )
    judge(
        call("sweep").out,
        """
        sface on manifest.csv: val against train

        threshold  dropped  mAP@100  TAR@1e-1
        ─────────────────────────────────────
        none          0.0%   #    #

        no threshold from 0.0 to 0.7 changes anything; every face of every clip stays
        FAR ≤ 1e-2 needs ≥ 100 impostor pairs; there are #
        """,
    )
    same = call("same", "Anna_Lena.clip_3", "My Videos/Anna Lena/clip 1.mp4")
    assert same.out.startswith("same person: cosine 0.9")
    who = call("who", "José.first")
    assert re.search(r"^ José +0\.\d{4} ", who.out, re.M)
    other = call(
        "run", "--weights", data / "weights" / "mobilefacenet_foamliu.onnx", "--run", "runs/mine"
    )
    assert other.code == 0, other.err
    compared = call("compare", "runs/My Videos", "runs/mine")
    assert compared.code == 0
    assert "B: mobilefacenet_foamliu.onnx" in compared.out
    report = call("report")
    judge(report.out, "report.html: 15 clips, 15 of them in pictures, # MB")
    forgotten = call("forget", "ليلى", "--yes")
    assert forgotten.code == 0
    assert re.search(r"^untouched: .*runs/mine", forgotten.out, re.M)  # another run is named
    last = call("run")
    assert last.out.splitlines()[0] == "12 clips (ok 12)"
    for path in (tmp_path / "runs" / "My Videos").rglob("*"):
        assert "ليلى" not in path.name
        assert not path.is_file() or "ليلى".encode() not in path.read_bytes()
    assert call("check", "--sample", 2).code == 0
    assert verbs_of_quickstart() <= tried
    for done in (first, second, third, last, same, who):
        assert "Traceback" not in done.err + done.out
