"""The clips of a run, one by one: what became of each, what clustering says of it, its faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidface.core.clips import SPLITS
from vidface.core.states import STATES
from vidface.core.values import check_choice
from vidface.noise.diagnostics import CLIP_COLUMNS, FLAGS
from vidface.runs import artefacts
from vidface.runs.clusterings import find_latest_denoising, require_clustering
from vidface.runs.columns import complete_descriptors
from vidface.runs.contact_sheet import check_sheet_path, draw_sheet, write_sheet
from vidface.runs.crops import read_clip_faces
from vidface.runs.denoising import Denoising
from vidface.runs.run import Run, reading

_EXTRACTED = ("state", "message", "frames", "faces")
_CLUSTERED = tuple(name for name in CLIP_COLUMNS if name not in FLAGS)


@dataclass(frozen=True)
class ClipLine:
    """One clip. What clustering says is None where there is none, or nothing to say it of."""

    clip_id: str
    identity: str
    split: str
    state: str
    message: str
    frames: int
    faces: int
    clusters: int | None = None
    kept: int | None = None
    dropped: int | None = None
    unusable: int | None = None
    lowest_similarity: float | None = None  # cosine between the two least similar kept faces
    second_size: int | None = None
    second_share: float | None = None  # of the first cluster's size
    second_cosine: float | None = None  # between the means of the two largest clusters
    still_share: float | None = None  # of the samples, that show one picture
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "flags": list(self.flags)}


@dataclass(frozen=True)
class ClipList:
    """The clips that were asked for, in the manifest's order."""

    lines: tuple[ClipLine, ...]
    of: int  # clips of the run
    denoising: Denoising | None  # whose clustering the lines are of
    sought: str = ""  # what was asked for: "is corrupt or missing "

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        settings = None if self.denoising is None else self.denoising.settings
        lines = [line.to_dict() for line in self.lines]
        return {"clips": lines, "of": self.of, "clustering": settings}


@reading
def list_clips(
    run: Run,
    denoising: Denoising | None = None,
    *,
    flags: Sequence[str] = (),
    states: Sequence[str] = (),
    splits: Sequence[str] = (),
) -> ClipList:
    """The clips of a run that raise any of `flags`, are in any of `states` and any of `splits`.

    Args:
        denoising: whose clustering; None for the one made last, if there is one.
        flags, states, splits: empty for all.

    Raises:
        VidfaceError: no extraction; no clustering, where flags are asked for; an unknown name.
    """
    asked = {"flag": (flags, FLAGS), "status": (states, STATES), "split": (splits, SPLITS)}
    for option, (names, known) in asked.items():
        for name in names:
            check_choice(f"--{option}", name, tuple(known))
    table = run.clips()
    if denoising is None and (flags or run.folder.clusterings()):
        denoising = find_latest_denoising(run)
    clustering = {} if denoising is None else _read_columns(run, denoising)
    extraction = {name: table.column(name).to_pylist() for name in ("clip_id", *_EXTRACTED)}
    clips = {clip.clip_id: clip for clip in run.manifest.clips}
    lines = []
    for row, clip_id in enumerate(extraction["clip_id"]):
        line = ClipLine(
            clip_id,
            clips[clip_id].identity,
            clips[clip_id].split,
            **{name: extraction[name][row] for name in _EXTRACTED},
            **{name: clustering[name][row] for name in _CLUSTERED if clustering},
            flags=tuple(flag for flag in FLAGS if clustering and clustering[flag][row]),
        )
        if (
            (not states or line.state in states)
            and (not splits or line.split in splits)
            and (not flags or set(flags) & set(line.flags))
        ):
            lines.append(line)
    sought = [" or ".join(names) for names in (states, flags) if names]
    sought += [f"in split {' or '.join(splits)}"] if splits else []
    of_which = f"is {' and '.join(sought)} " if sought else ""
    return ClipList(tuple(lines), table.num_rows, denoising, of_which)


def _read_columns(run: Run, denoising: Denoising) -> dict[str, list[Any]]:
    """The columns of a clustering, checked."""
    require_clustering(run, denoising)
    path = run.folder.clustering(denoising.name) / "descriptors.parquet"
    table = complete_descriptors(artefacts.read_parquet(path)[0])
    return {name: table.column(name).to_pylist() for name in CLIP_COLUMNS}


@reading
def show_clip(run: Run, clip_id: str, out: Path, denoising: Denoising | None = None) -> ClipLine:
    """Draw a clip's faces as a contact sheet, dropped ones framed, as clustering sees them.

    Args:
        clip_id: of the manifest.
        out: a .png, .jpg or .webp file.
        denoising: whose clustering; None for the one made last.

    Raises:
        VidfaceError: no extraction, no crops, no clustering, an unknown clip or one without faces.
    """

    check_sheet_path(out)
    run.clips()
    denoising = denoising or find_latest_denoising(run)
    faces = read_clip_faces(run, clip_id, denoising)
    [line] = [line for line in list_clips(run, denoising).lines if line.clip_id == clip_id]
    sheet = draw_sheet(replace(faces, diagnostics=_describe_diagnosis(line, denoising)))
    write_sheet(out, sheet)
    return line


def _describe_diagnosis(line: ClipLine, denoising: Denoising) -> str:
    """What clustering says of a clip, in words."""
    parts = [
        str(denoising),
        f"{line.kept} of {line.faces} faces kept, in {line.clusters} cluster(s)",
    ]
    if line.lowest_similarity is not None:
        parts.append(f"lowest similarity of two kept faces {line.lowest_similarity:.2f}")
    if line.second_cosine is not None and line.second_share is not None:
        parts.append(
            f"second cluster {line.second_share:.0%} of the first, "
            f"cosine of their means {line.second_cosine:.2f}"
        )
    if line.still_share:
        parts.append(f"one picture in {line.still_share:.0%} of the samples")
    if line.flags:
        parts.append(", ".join(line.flags).upper())
    return "; ".join(parts)
