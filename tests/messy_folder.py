"""A folder of clips as people have them: the first hour's (`tests/cli/test_first_hour.py`)."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

JOSE_COMPOSED, JOSE_DECOMPOSED = "Jos\u00e9", "Jose\u0301"

PEOPLE = {
    "signer_P00": (f"{JOSE_COMPOSED}/first.MOV", f"{JOSE_DECOMPOSED}/second.mp4",
                   f"{JOSE_COMPOSED}/2019/in the garden.mp4"),
    "signer_P03": ("王小明/第一.mp4", "王小明/第二.mp4", "王小明/more/第三.mp4"),
    "signer_P05": ("ليلى/مقطع ١.mp4", "ليلى/مقطع ٢.mp4", "ليلى/مقطع ٣.mp4"),
    "signer_P06": ("Anna Lena/clip 1.mp4", "Anna Lena/clip 2.mp4", "Anna Lena/clip 3.mp4"),
    "signer_P07": ("only once/alone.mp4",),
}  # fmt: skip
"""People of the real clips, and what their clips are called here."""


def write_messy_folder(folder: Path, data: Path) -> Path:
    """Real clips under names of many scripts, beside what lies in such folders.

    13 clips of five people, of whom one has a single clip, one is spelled in two Unicode forms; a
    broken video; and .DS_Store, a picture beside videos, notes, an empty video, a hidden file.
    """
    with (data / "wlasl.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["identity"] in PEOPLE]
    for person, names in PEOPLE.items():
        clips = [data / row["path"] for row in rows if row["identity"] == person]
        for clip, name in zip(clips, names, strict=False):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, folder / name)
    whole = (folder / "Anna Lena" / "clip 1.mp4").read_bytes()
    (folder / "Anna Lena" / "broken.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "Anna Lena" / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0 a cover")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Anna Lena" / "._clip 1.mp4").write_bytes(b"\0\5\26\7")
    (folder / "notes.txt").write_text("who is who\n", encoding="utf-8")
    (folder / "王小明" / "empty.mp4").write_bytes(b"")
    return folder
