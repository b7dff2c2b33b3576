"""LFRC's folders of aligned crops as a manifest."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from vidface.challenges.importing import WITHOUT_GALLERY, Challenge, Imported, write_import
from vidface.challenges.preparing import find_data_folder, renew_manifest
from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.core.progress import Notify, quiet
from vidface.core.values import check_name
from vidface.datasets.lfrc import CROP_FOLDER, FILELIST, MOST_BYTES, read_filelist
from vidface.datasets.lines import Problems, numbered_words

LABELS = "ground_truth.txt"  # of a folder; they are not public


def import_lfrc(
    folder: Path,
    out: Path,
    *,
    labels: Path | None = None,
    filelist: Path | None = None,
    split: str = "val",
    force: bool = False,
) -> Imported:
    """A manifest and a pipeline file for a folder of LFRC's aligned crops, written into `out`.

    Args:
        folder, filelist, split: as for `lfrc_clips`.
        labels: its `identities`.
        out, force: as for `import_iqiyi`.

    Raises:
        VidfaceError: as `lfrc_clips`; or files in `out` that say something else.
    """
    clips = lfrc_clips(folder, labels, split, filelist)
    return write_import(LFRC, clips, folder, f'split = "{split}"\n{WITHOUT_GALLERY}', out, force)


def prepare_lfrc(path: Path, root: Path | None, *, say: Notify = quiet) -> None:
    """The manifest of LFRC track 3's folder of crops; labels are its `ground_truth.txt`, if any.

    It is made where it is missing, and made again after the files have changed.

    Args:
        path: the manifest.
        root: the folder, with `filelist.txt` and `iQIYI_VID_FACE/`.
        say: gets a line before the files are read.

    Raises:
        VidfaceError: no such folder or list, as `lfrc_clips`, or a manifest that was edited
            since it was made, of files that have changed.
    """

    folder = find_data_folder(root, "lfrc", [], "LFRC_ROOT")
    lists = [folder / FILELIST, folder / CROP_FOLDER / FILELIST, folder / LABELS]
    if not any(source.is_file() for source in lists[:2]):
        raise VidfaceError(
            f"{folder}: no {FILELIST} in it; LFRC_ROOT (or --root) names the folder that holds "
            f"{FILELIST} and {CROP_FOLDER}/"
        )
    labels = lists[2] if lists[2].is_file() else None

    def clips() -> tuple[Clip, ...]:
        say(f"making the manifest of the crops in {folder}")
        if labels is None:
            say(f"no {LABELS} there: nobody says who is who, and no figure can be given")
        return tuple(lfrc_clips(folder, labels))

    renew_manifest(path, folder, lists, clips)


def lfrc_clips(
    folder: str | Path,
    identities: str | Path | None = None,
    split: str = "val",
    filelist: str | Path | None = None,
) -> list[Clip]:
    """The clips of a folder of crops: one a video, in the filelist's order.

    The crops are `<folder>/<video>/*.jpg`, or `<folder>/iQIYI_VID_FACE/<video>/*.jpg` if more of
    the videos are there. clip_id is the video's name. A video without a folder stays in: it counts,
    and `read_manifest` tells of it.

    Args:
        folder: the clips' paths are relative to it.
        identities: a text file, `<video> <identity>` a line, the video with or without `.mp4`.
            Videos that it does not label are distractors (""). The challenge's are not public.
        split: of all clips, one of `vidface.core.clips.SPLITS`.
        filelist: default `<folder>/filelist.txt`, else `<folder>/iQIYI_VID_FACE/filelist.txt`.

    Raises:
        VidfaceError: no such folder, an unknown split, what `read_filelist` refuses; or, with
            their lines, labels that are not two words, of videos that the filelist does not name,
            or that contradict another.
    """
    folder = Path(folder)
    check_name("split", split, SPLITS)
    if not folder.is_dir():
        raise VidfaceError(f"{folder}: no such folder; give the one that holds the videos' folders")
    listing = _filelist_of(folder) if filelist is None else Path(filelist)
    if identities is not None and os.path.realpath(listing) == os.path.realpath(identities):
        raise VidfaceError(
            f"{listing}: is the list of videos, and says nobody's name; leave it out"
        )
    names = read_filelist(listing)
    labels = {} if identities is None else _read_labels(Path(identities), names)
    top = _crops_below(folder, names)
    return [Clip(name, posixpath.join(top, name), labels.get(name, ""), split) for name in names]


def _filelist_of(folder: Path) -> Path:
    for path in (folder / FILELIST, folder / CROP_FOLDER / FILELIST):
        if path.is_file():
            return path
    raise VidfaceError(
        f"{folder}: no {FILELIST} in it; the challenge's list is video_filelist.txt of its "
        f"testdata-image: copy it to {folder / FILELIST} or name it as the filelist"
    )


def _read_labels(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Identity by video's name."""
    known = set(names)
    problems = Problems(f"identities {path}")
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, words in numbered_words(path, problems, MOST_BYTES):
        if len(words) != 2:
            problems.add(line, f"{len(words)} word(s) where a label is '<video> <identity>'")
            continue
        word, identity = words
        spellings = (word, word.removesuffix(".mp4"), f"{word}.mp4")
        video = next((name for name in spellings if name in known), None)
        if video is None:
            problems.add(line, f"the filelist names no video {word[:80]!r}")
        elif labels.setdefault(video, identity) != identity:
            other = f"{labels[video][:80]!r} on line {lines[video]}"
            problems.add(line, f"{video[:80]!r} is {identity[:80]!r} here, but {other}")
        else:
            lines.setdefault(video, line)
    problems.refuse()
    if not labels:
        raise VidfaceError(f"identities {path}: no label in it; leave it out if there are none")
    return labels


def _crops_below(folder: Path, names: Sequence[str]) -> str:
    """Where the videos' folders are, below folder: "" or `CROP_FOLDER`."""
    if not (folder / CROP_FOLDER).is_dir():
        return ""
    wanted = {name.partition("/")[0] for name in names}
    here = len(wanted & _folders(folder))
    below = len(wanted & _folders(folder / CROP_FOLDER))
    return CROP_FOLDER if below > here or here == 0 else ""


def _folders(folder: Path) -> set[str]:
    with named_errors(folder), os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_dir()}


LFRC = Challenge(
    name="lfrc",
    source="aligned",
    absent="have no folder",
    import_data=import_lfrc,
    prepare=prepare_lfrc,
)
