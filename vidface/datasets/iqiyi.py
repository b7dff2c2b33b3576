"""iQIYI-VID 2018 and 2019: who is in which video.

Videos are known by their name without `.mp4`: some of the files have it, others don't.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vidface.core.errors import VidfaceError
from vidface.datasets.lines import FirstProblem, numbered_words

SUFFIX = ".mp4"

MOST_BYTES = 2**27
"""The largest text that is read; a list of 100 videos for 10,034 identities has 2^25."""

Form = Literal["train", "val"]


def video_key(name: str) -> str:
    """The name by which a video is known: without one `.mp4` at its end.

    >>> video_key("IQIYI_VID_TRAIN_0000001.mp4"), video_key("a.mp4.mp4"), video_key("A.MP4")
    ('IQIYI_VID_TRAIN_0000001', 'a.mp4', 'A.MP4')
    """
    return name.removesuffix(SUFFIX)


@dataclass(frozen=True)
class GroundTruth:
    """Which videos show whom. Checked when made: at least one, none of two identities.

    Videos of the split that stand nowhere here are distractors.
    """

    videos: Mapping[str, tuple[str, ...]]  # identity → its videos without .mp4, at least one
    repeated: int = 0  # how often the file names a video again under the same identity
    empty_identities: int = 0  # lines that name an identity and no video; they can't be scored
    identity_of: Mapping[str, str] = field(init=False, repr=False)  # video → identity

    def __post_init__(self) -> None:
        identity_of: dict[str, str] = {}
        for identity, videos in self.videos.items():
            if not videos:
                raise VidfaceError(f"identity '{identity}' has no video; leave it out")
            for video in videos:
                if video in identity_of:
                    raise VidfaceError(
                        f"video '{video}' stands under identity '{identity_of[video]}' "
                        f"and again under '{identity}'"
                    )
                identity_of[video] = identity
        if not identity_of:
            raise VidfaceError("a ground truth without a video")
        object.__setattr__(self, "identity_of", identity_of)

    def __str__(self) -> str:
        return f"GroundTruth({len(self.videos)} identities, {len(self.identity_of)} videos)"


def read_ground_truth(path: str | Path) -> GroundTruth:
    """A ground truth of iQIYI-VID, in either of its forms.

    `train_gt.txt` has a line `<video>.mp4 <identity>` a video, `val_gt.txt` a line
    `<identity> v1.mp4 v2.mp4 …` an identity; an identity may have several lines. Any white space
    separates; blank lines are passed over. The forms are told apart by `.mp4` at the end of a
    line's first word (train); where no line has that, by a line that has not two words (val); where
    all lines have two, it is val if each begins with a whole number, otherwise train.

    Args:
        path: UTF-8 text.

    Raises:
        VidfaceError: with the line: a video under two identities, a train line without exactly two
            words, an identity that ends in .mp4, control characters, no UTF-8. Or: no video at
            all, or too large.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "val_gt.txt"
    ...     _ = path.write_text("1 v1.mp4 v2.mp4" + chr(10) + "2 v4.mp4")
    ...     truth = read_ground_truth(path)
    >>> truth.videos, truth.identity_of["v4"]
    ({'1': ('v1', 'v2'), '2': ('v4',)}, '2')
    """
    what = f"ground truth {path}"
    lines = list(numbered_words(Path(path), FirstProblem(what), MOST_BYTES))
    form = _form(lines)
    videos: dict[str, dict[str, None]] = {}
    placed: dict[str, tuple[str, int]] = {}  # video → identity, line
    repeated = empty = 0
    for line, words in lines:
        identity, names = split_labelled_line(words, form, f"{what}, line {line}")
        empty += not names
        for name in names:
            video = parse_video(name, f"{what}, line {line}")
            before, first_line = placed.setdefault(video, (identity, line))
            if before != identity:
                raise VidfaceError(
                    f"{what}, line {line}: video '{video}' under identity '{identity}', "
                    f"but under '{before}' in line {first_line}"
                )
            videos_of_identity = videos.setdefault(identity, {})
            repeated += video in videos_of_identity
            videos_of_identity[video] = None
    if not videos:
        raise VidfaceError(f"{what}: no video in it; is the file empty?")
    return GroundTruth(
        videos={identity: tuple(names) for identity, names in videos.items()},
        repeated=repeated,
        empty_identities=empty,
    )


def _form(lines: Sequence[tuple[int, list[str]]]) -> Form:
    if any(words[0].endswith(SUFFIX) for _, words in lines):
        return "train"
    if any(len(words) != 2 or words[1].endswith(SUFFIX) for _, words in lines):
        return "val"
    return "val" if all(words[0].isdecimal() for _, words in lines) else "train"


def split_labelled_line(words: list[str], form: Form, where: str) -> tuple[str, list[str]]:
    """A line's identity and the names of its videos."""
    if form == "train":
        if len(words) != 2:
            raise VidfaceError(
                f"{where}: {len(words)} words where '<video>{SUFFIX} <identity>' is due"
            )
        identity, names = words[1], words[:1]
    else:
        identity, names = words[0], words[1:]
    if identity.endswith(SUFFIX):
        raise VidfaceError(f"{where}: '{identity}' stands where an identity is due")
    return identity, names


def parse_video(name: str, where: str) -> str:
    """The key of a video's name in a list; VidfaceError where there is none."""
    video = video_key(name)
    if not video:
        raise VidfaceError(f"{where}: '{name}' is no name of a video")
    return video


def check_ranks(k: int) -> None:
    """Raise VidfaceError unless k can be a number of ranks."""
    if k < 1:
        raise VidfaceError(f"k is the number of ranks that count, at least 1, got {k}")
