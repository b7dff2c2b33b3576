"""The Lightweight Face Recognition Challenge's list of videos.

Track 3 is iQIYI-VID: aligned 112x112 crops in a folder a video, a list that fixes the videos'
order (`vidface.datasets.submissions` has what is submitted).

Source: challenges/iccv19-lfr/README.md and gen_video_feature.py in
github.com/deepinsight/insightface.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.datasets.lines import Problems, numbered_words

FILELIST = "filelist.txt"
CROP_FOLDER = "iQIYI_VID_FACE"
"""The folder of crops that the challenge's archive unpacks to."""

MOST_BYTES = 2**26
"""The largest list that is read; the challenge's has 203,848 short lines."""

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


def read_filelist(path: str | Path) -> tuple[str, ...]:
    """The videos that a `filelist.txt` names, in its order: the first word of each line.

    Further words of a line are passed over, and so are blank lines. `v1/`, `./v1` and `v1` are
    one name, `v1`.

    Returns:
        Names of folders, relative, with "/" between parts: at least one, each once.

    Raises:
        VidfaceError: no such file, more than 64 MiB, no video in it; or, with their lines, text
            that is not UTF-8, control characters, names that are absolute, lead upwards (`..`) or
            stand twice.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "filelist.txt")
    ...     _ = path.write_text("video_2 31\\nvideo_1/\\n")
    ...     read_filelist(path)
    ('video_2', 'video_1')
    """
    path = Path(path)
    problems = Problems(f"filelist {path}")
    lines: dict[str, int] = {}
    for line, words in numbered_words(path, problems, MOST_BYTES):
        try:
            name = _video_name(words[0])
        except ValueError as error:
            problems.add(line, str(error))
            continue
        if name in lines:
            problems.add(line, f"{name[:80]!r} stands on line {lines[name]} already")
        lines.setdefault(name, line)
    problems.refuse()
    if not lines:
        raise VidfaceError(f"filelist {path}: names no video; is the file empty?")
    return tuple(lines)


def _video_name(word: str) -> str:
    """A folder's name without needless parts; ValueError if it may lead out of its root.

    >>> _video_name("./a//b/")
    'a/b'
    """
    if _ABSOLUTE.match(word):
        raise ValueError(f"{word[:80]!r} is an absolute path; name the folder below the crops")
    if ".." in word and ".." in re.split(r"[/\\]", word):
        raise ValueError(f"{word[:80]!r} leads upwards; name the folder below the crops")
    name = posixpath.normpath(word) if "/" in word else word  # slow, and names are many
    if name == ".":
        raise ValueError(f"{word[:80]!r} names no folder")
    return name
