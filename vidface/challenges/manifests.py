"""Manifests of the challenges' files: LFRC's folders of crops, IJB's lists of templates."""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import atomic_file
from vidface.datasets.lfrc import CROP_FOLDER, FILELIST, MOST_BYTES, read_filelist
from vidface.datasets.lines import Problems, numbered_words
from vidface.datasets.templates import TemplateList
from vidface.settings.manifests import write_manifest


def templates_manifest(templates: TemplateList, out: str | Path, *, split: str = "probe") -> Path:
    """Write a manifest with one clip for each path, so that each image is extracted once.

    A clip's id is its path; paths stand in order of first appearance. Its identity is that of its
    templates, empty where the list has none.

    Args:
        templates: what `read_templates` gives.
        out: the manifest, a CSV file; replaced if it exists.
        split: that of all clips, a name of `vidface.core.clips.SPLITS`.

    Returns:
        `out`.

    Raises:
        VidfaceError: an unknown split, a path in templates of two identities, a file that can't be
            written.

    >>> import tempfile
    >>> one = TemplateList(("7",), np.zeros(2, dtype=np.int64), ("1", "2"), ("a.jpg", "a.jpg"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(templates_manifest(one, Path(folder, "clips.csv")).read_text())
    clip_id,path,identity,split
    a.jpg,a.jpg,,probe
    """
    if split not in SPLITS:
        raise VidfaceError(f"unknown split '{split}' (known: {', '.join(SPLITS)})")
    subjects = templates.identities or ("",) * len(templates.template_ids)
    template_of: dict[str, int] = {}  # path → the first template that has it
    for path, row in zip(templates.paths, templates.rows.tolist(), strict=True):
        first = template_of.setdefault(path, row)
        if subjects[first] != subjects[row]:
            raise VidfaceError(
                f"path {path[:80]!r} is in template {templates.template_ids[first]!r} of "
                f"{subjects[first]!r} and in template {templates.template_ids[row]!r} of "
                f"{subjects[row]!r}; a clip is of one person: give each face a path of its own, "
                "or leave the identities out of the list"
            )
    clips = [Clip(path, path, subjects[row], split) for path, row in template_of.items()]
    out = Path(out)
    write_manifest(clips, out)
    return out


def lfrc_manifest(
    folder: str | Path,
    out: str | Path,
    *,
    identities: str | Path | None = None,
    split: str = "val",
    filelist: str | Path | None = None,
) -> Path:
    """Write the manifest of a folder of crops: one clip a video, in the filelist's order.

    The crops are `<folder>/<video>/*.jpg`, or `<folder>/iQIYI_VID_FACE/<video>/*.jpg` if more of
    the videos are there. clip_id is the video's name. A video without a folder stays in: it counts,
    and `read_manifest` tells of it. A manifest that says the same already is left untouched.

    Args:
        folder: the manifest's root: its paths are relative to this folder, so if `out` lies
            elsewhere, read it with `read_manifest(out, root=folder)`.
        out: the manifest to write, replaced if it is there.
        identities: a text file, `<video> <identity>` a line, the video with or without `.mp4`.
            Videos that it does not label are distractors (""). The challenge's are not public.
        split: of all clips, one of `vidface.core.clips.SPLITS`.
        filelist: default `<folder>/filelist.txt`, else `<folder>/iQIYI_VID_FACE/filelist.txt`.

    Returns:
        `out`.

    Raises:
        VidfaceError: no such folder, an unknown split, what `read_filelist` refuses, `out` is one
            of the files to read or cannot be written; or, with their lines, labels that are not
            two words, of videos that the filelist does not name, or that contradict another.
    """
    folder, out = Path(folder), Path(out)
    if split not in SPLITS:
        raise VidfaceError(f"unknown split '{split}' (known: {', '.join(SPLITS)})")
    if not folder.is_dir():
        raise VidfaceError(f"{folder}: no such folder; give the one that holds the videos' folders")
    listing = _filelist_of(folder) if filelist is None else Path(filelist)
    sources = [listing] if identities is None else [listing, Path(identities)]
    if os.path.realpath(out) in map(os.path.realpath, sources):
        raise VidfaceError(f"{out}: is a file to read; write the manifest elsewhere")
    if len({os.path.realpath(source) for source in sources}) < len(sources):
        raise VidfaceError(
            f"{listing}: is the list of videos, and says nobody's name; leave it out"
        )
    names = read_filelist(listing)
    labels = {} if identities is None else _read_labels(Path(identities), names)
    top = _crops_below(folder, names)
    clips = [Clip(name, posixpath.join(top, name), labels.get(name, ""), split) for name in names]
    _write_if_new(clips, out)
    return out


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
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir()}
    except OSError as error:
        raise VidfaceError(f"{folder}: {error.strerror or error}") from None


def _write_if_new(clips: Sequence[Clip], out: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch, "manifest.csv")
        write_manifest(clips, draft)
        data = draft.read_bytes()
    try:
        if out.stat().st_size == len(data) and out.read_bytes() == data:
            return
    except OSError:
        pass  # not there; writing says what else is wrong
    with atomic_file(out) as file:
        file.write(data)
