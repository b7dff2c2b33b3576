"""iQIYI-VID 2018 and 2019: who is in which video, and ranked lists as the challenge takes them.

Videos are known by their name without `.mp4`: some of the files have it, others don't.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.datasets.lines import FirstProblem, numbered_words
from vidface.metrics.retrieval import average_precision_of_list
from vidface.storage.names import natural_key

SUFFIX = ".mp4"

MOST_BYTES = 2**27
"""The largest text that is read; a list of 100 videos for 10,034 identities has 2^25."""

Form = Literal["auto", "train", "val"]
FORMS: tuple[Form, ...] = ("auto", "train", "val")


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


def read_ground_truth(path: str | Path, form: Form = "auto") -> GroundTruth:
    """A ground truth of iQIYI-VID, in either of its forms.

    `train_gt.txt` has a line `<video>.mp4 <identity>` a video, `val_gt.txt` a line
    `<identity> v1.mp4 v2.mp4 …` an identity; an identity may have several lines. Any white space
    separates; blank lines are passed over.

    Args:
        path: UTF-8 text.
        form: "auto" tells them apart: by `.mp4` at the end of a line's first word (train); where
            no line has that, by a line that has not two words (val); where all lines have two, it
            is val if each begins with a whole number, otherwise train.

    Raises:
        VidfaceError: with the line: a video under two identities, a train line without exactly two
            words, an identity that ends in .mp4, control characters, no UTF-8. Or: no video at
            all, too large, an unknown form.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "val_gt.txt"
    ...     _ = path.write_text("1 v1.mp4 v2.mp4" + chr(10) + "2 v4.mp4")
    ...     truth = read_ground_truth(path)
    >>> truth.videos, truth.identity_of["v4"]
    ({'1': ('v1', 'v2'), '2': ('v4',)}, '2')
    """
    what = f"ground truth {path}"
    if form not in FORMS:
        raise VidfaceError(f"{what}: unknown form '{form}'; known: {', '.join(FORMS)}")
    lines = list(numbered_words(Path(path), FirstProblem(what), MOST_BYTES))
    if form == "auto":
        form = _form(lines)
    videos: dict[str, dict[str, None]] = {}
    placed: dict[str, tuple[str, int]] = {}  # video → identity, line
    repeated = empty = 0
    for line, words in lines:
        identity, names = _labelled(words, form, f"{what}, line {line}")
        empty += not names
        for name in names:
            video = _key(name, f"{what}, line {line}")
            before, first_line = placed.setdefault(video, (identity, line))
            if before != identity:
                raise VidfaceError(
                    f"{what}, line {line}: video '{video}' under identity '{identity}', "
                    f"but under '{before}' in line {first_line}"
                )
            own = videos.setdefault(identity, {})
            repeated += video in own
            own[video] = None
    if not videos:
        raise VidfaceError(f"{what}: no video in it; is the file empty?")
    return GroundTruth(
        videos={identity: tuple(own) for identity, own in videos.items()},
        repeated=repeated,
        empty_identities=empty,
    )


def read_ranked_list(path: str | Path, k: int | None = None) -> dict[str, tuple[str, ...]]:
    """Ranked lists as the challenge takes them: a line `<identity> v1.mp4 v2.mp4 …` each.

    Args:
        path: UTF-8 text; any white space separates.
        k: only the first k different videos of each list; None leaves the lists as they are, with
            more than 100 videos and repeated ones (`score_ranked_list` passes over these).

    Returns:
        identity → its videos without .mp4, best first; the file's order.

    Raises:
        VidfaceError: with the line: an identity that stands twice or ends in .mp4, control
            characters, no UTF-8. Or: no line at all, too large, k below 1.
    """
    what = f"ranked list {path}"
    if k is not None:
        _check_k(k)
    ranking: dict[str, tuple[str, ...]] = {}
    for line, words in numbered_words(Path(path), FirstProblem(what), MOST_BYTES):
        where = f"{what}, line {line}"
        identity, names = _labelled(words, "val", where)
        if identity in ranking:
            raise VidfaceError(f"{where}: identity '{identity}' stands twice; one line each")
        videos = [_key(name, where) for name in names]
        ranking[identity] = tuple(videos) if k is None else tuple(dict.fromkeys(videos))[:k]
    if not ranking:
        raise VidfaceError(f"{what}: no line in it; is the file empty?")
    return ranking


def write_ranked_list(
    path: str | Path, ranking: Mapping[str, Sequence[str]], *, k: int = 100, suffix: str = SUFFIX
) -> None:
    """Write ranked lists as the challenge takes them, and read them back to compare.

    Args:
        path: appears complete or not at all. A line an identity, in natural order (2 before 10).
        ranking: identity → videos, best first, with .mp4 or without. Each list is written without
            repeated videos, and of these the first k.
        k: the challenge takes at most 100.
        suffix: what follows each video's name: ".mp4" or "".

    Raises:
        VidfaceError: a name is empty or has white space or control characters, an identity ends in
            .mp4, the ranking is empty, k below 1, another suffix, the file can't be written or
            does not give back the same lists.
    """
    path = Path(path)
    what = f"ranked list {path}"
    _check_k(k)
    if suffix not in (SUFFIX, ""):
        raise VidfaceError(f"{what}: the suffix is '{SUFFIX}' or none, got {suffix!r}")
    if not ranking:
        raise VidfaceError(f"{what}: there is no list to write")
    written: dict[str, tuple[str, ...]] = {}
    for identity in sorted(ranking, key=natural_key):
        _check_word(identity, f"{what}: identity")
        videos = tuple(dict.fromkeys(map(video_key, ranking[identity])))[:k]
        for video in videos:
            _check_word(video, f"{what}: identity '{identity}': video")
        written[identity] = videos
    lines = [
        " ".join([identity, *(video + suffix for video in videos)])
        for identity, videos in written.items()
    ]
    with atomic_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8"))
    if read_ranked_list(path) != written:
        raise VidfaceError(f"{what}: does not read back as it was written; write it again")


@dataclass(frozen=True)
class RankedListScore:
    """mAP@k of ranked lists. All values are fractions in [0, 1].

    `average_precision` holds each identity of the ground truth, in natural order; the mean is over
    these.
    """

    map_at_k: float
    k: int
    identities: int
    average_precision: dict[str, float]
    identities_without_list: tuple[str, ...]  # they score 0
    unknown_identities: tuple[str, ...]  # with a list, but not in the ground truth: passed over
    listed: int  # identities of the ground truth that have a list

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; the mean's key names k: "map_at_100"."""
        return {
            f"map_at_{self.k}": self.map_at_k,
            "identities": self.identities,
            "listed": self.listed,
            "identities_without_list": list(self.identities_without_list),
            "unknown_identities": list(self.unknown_identities),
        }


def score_ranked_list(
    ranking: Mapping[str, Sequence[str]], truth: GroundTruth, k: int = 100
) -> RankedListScore:
    """The challenge's mAP@k: the mean of AP over the identities of the ground truth.

    AP = (1 / m) Σ precision at each hit among the first k different videos of the identity's list,
    m the full number of its videos, so that 150 of them cap AP@100 at 2/3. A repeated video counts
    once, at its first place; an identity without a list scores 0.

    Args:
        ranking: identity → videos, best first, with .mp4 or without; of any length.
        truth: the split's ground truth.
        k: how many ranks count.

    Raises:
        VidfaceError: k below 1.

    Source: iQIYI-VID challenge 2018/2019, evaluation.

    >>> truth = GroundTruth({"1": ("v1", "v2", "v3"), "2": ("v4",), "3": ("v5",)})
    >>> score = score_ranked_list({"1": ["v1", "x", "v2"], "2": ["v4", "v4", "y"]}, truth)
    >>> round(score.map_at_k, 7)  # ((1/1 + 2/3) / 3 + 1 + 0) / 3
    0.5185185
    >>> score.listed, score.identities_without_list
    (2, ('3',))
    """

    _check_k(k)
    names = sorted(truth.videos, key=natural_key)
    precisions = {
        name: average_precision_of_list(
            list(map(video_key, ranking.get(name, ()))), truth.videos[name], k
        )
        for name in names
    }
    without = tuple(name for name in names if name not in ranking)
    return RankedListScore(
        map_at_k=math.fsum(precisions.values()) / len(names),
        k=k,
        identities=len(names),
        average_precision=precisions,
        identities_without_list=without,
        unknown_identities=tuple(sorted(set(ranking) - set(names), key=natural_key)),
        listed=len(names) - len(without),
    )


def _form(lines: Sequence[tuple[int, list[str]]]) -> Form:
    if any(words[0].endswith(SUFFIX) for _, words in lines):
        return "train"
    if any(len(words) != 2 or words[1].endswith(SUFFIX) for _, words in lines):
        return "val"
    return "val" if all(words[0].isdecimal() for _, words in lines) else "train"


def _labelled(words: list[str], form: Form, where: str) -> tuple[str, list[str]]:
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


def _key(name: str, where: str) -> str:
    video = video_key(name)
    if not video:
        raise VidfaceError(f"{where}: '{name}' is no name of a video")
    return video


def _check_word(name: str, what: str) -> None:
    """Whether a name comes back when it is read as a word of a line."""
    if not name.isprintable() or name.split() != [name] or name.endswith(SUFFIX):
        raise VidfaceError(
            f"{what} {name!r} can't stand in a list: names have no white space, "
            f"are printable and don't end in {SUFFIX}"
        )


def _check_k(k: int) -> None:
    if k < 1:
        raise VidfaceError(f"k is the number of ranks that count, at least 1, got {k}")
