"""iQIYI-VID's feature pickles and ground truths as a manifest."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidface.challenges.importing import Challenge, Imported, score_keys, write_import
from vidface.challenges.preparing import find_data_folder, renew_manifest
from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.core.values import check_name
from vidface.datasets.iqiyi import read_ground_truth
from vidface.datasets.iqiyi_features import feature_videos

SPLIT_WORDS = ("train", "val", "test")
IQIYI_FILES = {  # of the data folder, by split: the features, and who is in the videos
    "train": ("face_train_v2.pickle", "train_gt.txt"),
    "val": ("face_val_v2.pickle", "val_gt.txt"),
}


@dataclass(frozen=True)
class FeatureClips:
    """The clips of feature pickles: those of the files in their order, then those they lack."""

    clips: tuple[Clip, ...]  # paths start at `root`
    root: Path
    faces: int
    absent: int  # at the end of `clips`: videos that only a ground truth names

    def __str__(self) -> str:
        return (
            f"FeatureClips({len(self.clips)} clips below {self.root}, {self.faces} faces, "
            f"{self.absent} absent)"
        )


def iqiyi_clips(
    pickles: Sequence[Path], truths: Sequence[Path] = (), *, split: str | None = None
) -> FeatureClips:
    """The clips of iQIYI-VID's feature pickles, with the identities of ground truths.

    A pickle's split is the one of train, val and test that its name has. A ground truth belongs to
    the split of which it names most videos; its videos that no pickle has become clips of that
    split, for they must stay among an identity's positives. Videos that no ground truth names are
    distractors, identity "".

    Args:
        pickles: at least one, in the order that the clips shall have.
        truths: as `vidface.datasets.iqiyi.read_ground_truth` reads them.
        split: of the one pickle, whatever its name.

    Raises:
        VidfaceError: names without or with several splits, a video in two pickles or under two
            identities, a ground truth of other videos, or what the readers refuse.
    """

    if not pickles:
        raise VidfaceError("no feature pickle is named; name at least one")
    splits = _splits_of(pickles, split)
    identities: dict[str, str] = {}
    ground_truths = [(path, read_ground_truth(path)) for path in truths]  # wrong ones fail at once
    for truth_path, truth in ground_truths:
        for video, identity in truth.identity_of.items():
            if identities.setdefault(video, identity) != identity:
                raise VidfaceError(
                    f"ground truth {truth_path}: video '{video}' is '{identity}' here, and "
                    f"'{identities[video]}' in another of the files"
                )
    root, paths = _below_one_folder(pickles)
    clips: list[Clip] = []
    split_of: dict[str, str] = {}  # of the videos that are there
    faces = 0
    for pickle, path, its_split in zip(pickles, paths, splits, strict=True):
        for video, count in feature_videos(pickle):
            if video in split_of:
                raise VidfaceError(f"{pickle}: video '{video}' is in another of the pickles, too")
            if video != video.strip():
                raise VidfaceError(f"{pickle}: video {video!r} begins or ends with white space")
            split_of[video] = its_split
            clips.append(Clip(video, path, identities.get(video, ""), its_split))
            faces += count
    n_present = len(clips)
    added: set[str] = set()
    for truth_path, truth in ground_truths:
        videos_of_split = Counter(
            split_of[video] for video in truth.identity_of if video in split_of
        )
        if not videos_of_split:
            raise VidfaceError(
                f"ground truth {truth_path}: names no video of {', '.join(map(str, pickles))}; is "
                "it of another split?"
            )
        its_split = videos_of_split.most_common(1)[0][0]
        path = paths[splits.index(its_split)]
        for video, identity in truth.identity_of.items():
            if video not in split_of and video not in added:
                added.add(video)
                clips.append(Clip(video, path, identity, its_split))
    if not clips:
        raise VidfaceError(f"{', '.join(map(str, pickles))}: no video in it")
    return FeatureClips(tuple(clips), root, faces, len(clips) - n_present)


def _splits_of(pickles: Sequence[Path], split: str | None) -> list[str]:
    if split is not None:
        check_name("split", split, SPLITS)
        if len(pickles) > 1:
            raise VidfaceError(
                f"--split {split} is for one pickle; of several the names must say it: "
                "face_train_v2.pickle, face_val_v2.pickle"
            )
        return [split]
    return [_split_in_name(pickle) for pickle in pickles]


def _split_in_name(path: Path) -> str:
    """The split that a file's name says.

    >>> _split_in_name(Path("train/face_val_v2.pickle"))
    'val'
    """
    words = set(re.findall("[a-z]+", path.name.lower()))
    named = [word for word in SPLIT_WORDS if word in words]
    if len(named) != 1:
        raise VidfaceError(
            f"{path}: its name should have one of {', '.join(SPLIT_WORDS)}, has "
            f"{' and '.join(named) or 'none'}; rename it, or import it alone with --split"
        )
    return named[0]


def _below_one_folder(files: Sequence[Path]) -> tuple[Path, list[str]]:
    """The lowest folder that all files are below, and their paths from there."""
    whole = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - links stay
    try:
        root = Path(os.path.commonpath([file.parent for file in whole]))
    except ValueError:
        raise VidfaceError(f"{files[0]} and {files[1]} are on different drives") from None
    return root, [file.relative_to(root).as_posix() for file in whole]


def import_iqiyi(
    pickles: Sequence[Path],
    truths: Sequence[Path],
    out: Path,
    *,
    split: str | None = None,
    force: bool = False,
) -> Imported:
    """A manifest and a pipeline file for feature pickles of iQIYI-VID, written into `out`.

    Args:
        pickles, truths, split: as for `iqiyi_clips`.
        out: a folder, made if it is not there.
        force: replace a manifest and a pipeline file that are there and say something else.

    Raises:
        VidfaceError: as `iqiyi_clips`; or files in `out` that say something else.
    """
    listed = iqiyi_clips(pickles, truths, split=split)
    return write_import(
        IQIYI,
        listed.clips,
        listed.root,
        score_keys(listed.clips),
        out,
        force,
        absent=listed.absent,
        faces=listed.faces,
    )


def prepare_iqiyi(path: Path, root: Path | None, *, say: Notify = quiet) -> None:
    """The manifest of a folder with iQIYI-VID's features and ground truths (`IQIYI_FILES`).

    It is made where it is missing, and made again after the files have changed.

    Args:
        path: the manifest.
        root: the folder.
        say: gets a line before the files are read, which takes a minute.

    Raises:
        VidfaceError: no such folder or file, as `iqiyi_clips`, or a manifest that was edited since
            it was made, of files that have changed.
    """
    names = [name for pair in IQIYI_FILES.values() for name in pair]
    folder = find_data_folder(root, "iqiyi", names, "IQIYI_VID")
    sources = [folder / name for name in names]

    def clips() -> tuple[Clip, ...]:
        say(f"making the manifest of the features in {folder}")
        return iqiyi_clips(sources[0::2], sources[1::2]).clips

    renew_manifest(path, folder, sources, clips)


IQIYI = Challenge(
    name="iqiyi",
    source="features",
    absent="are named by the ground truth alone, no pickle has them",
    import_data=import_iqiyi,
    prepare=prepare_iqiyi,
)
