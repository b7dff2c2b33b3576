"""What is known before hours of work: what stops a run, what deserves a look, what it will take."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidface.core.errors import VidfaceError
from vidface.core.redaction import is_url, redacted
from vidface.metrics.operating_points import check_targets
from vidface.metrics.protocols.verification import VerificationProtocol
from vidface.metrics.uncertainty import expected_width, few_people_note
from vidface.runs.checking import CheckedFiles, check_files
from vidface.runs.remarks import LOOK, OK, STOP, Remark, list_text, size_text
from vidface.runs.run import Run, reading
from vidface.runs.sampling import describe_faces, try_clips
from vidface.runs.score_tasks import clips_of_split
from vidface.runs.scoring import check_splits
from vidface.runs.whole_run import Watcher, find_what_lacks
from vidface.settings.doubles import warn_of_doubles, warn_of_equal_contents
from vidface.settings.manifests import Manifest, Problem, check_paths
from vidface.storage.media import FolderRoot

SAMPLE_CLIPS = 20
FEWEST_ERRORS = 30  # Doddington's rule of 30: so many tell a rate within 30 %, nine times in ten


@dataclass(frozen=True)
class Preflight:
    """What `check_run` found, in the order of the work."""

    folder: Path
    remarks: tuple[Remark, ...]
    digests: CheckedFiles | None = None  # of a run directory that holds artefacts

    @property
    def stops(self) -> bool:
        """Whether something would stop the run, or is damaged."""
        return any(remark.level == STOP for remark in self.remarks)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        digests = {} if self.digests is None else self.digests.to_dict()
        remarks = [vars(remark) for remark in self.remarks]
        return {**digests, "folder": str(self.folder), "stops": self.stops, "remarks": remarks}

    def __str__(self) -> str:
        levels = Counter(remark.level for remark in self.remarks)
        verdict = "nothing stands in the way"
        if self.stops:
            verdict = f"to mend first: {levels[STOP]} (stop)"
        elif levels[LOOK]:
            verdict += f"; to look at: {levels[LOOK]} (look)"
        return "\n".join([*map(str, self.remarks), f"{self.folder}: {verdict}"])


def check_run(
    run: Run,
    *,
    sample: int = SAMPLE_CLIPS,
    split: str | None = None,
    gallery: str | None = None,
    watcher: Watcher | None = None,
) -> Preflight:
    """Look at all that a run depends on, and try a few of its clips; nothing is written into it.

    Where the extraction is done, its files are compared with their digests, and it is what is
    looked at instead of a trial.

    Args:
        run: of which the clips need not be there (`open_run(…, check_files=False)`).
        sample: how many clips are extracted for a trial, in a temporary folder; 0 for none.
        split, gallery: as in the settings unless given.
    """
    is_done = run.folder.clips_path.is_file()
    digests = check_files(run.folder.folder) if is_done else None
    remarks = [] if digests is None else list(_list_digests(digests))
    steps = {
        "manifest": _check_manifest(run.manifest, share_files=run.of_features),
        "files": _check_clips_files(run),
        "scores": _check_scores(run, split, gallery),
        "clips" if is_done else "trial": (
            _check_extraction(run) if is_done else try_clips(run, sample, watcher or Watcher())
        ),
    }
    for about, step in steps.items():
        try:
            remarks.extend(step)
        except VidfaceError as error:
            remarks.append(Remark(STOP, about, str(error)))
    return Preflight(run.folder.folder, tuple(remarks), digests)


def check_artefacts(folder: Path, why: str) -> Preflight:
    """Compare the files of a run directory with their digests, where its run can't be opened.

    Args:
        why: what says so.

    Raises:
        VidfaceError: no run directory.
    """
    digests = check_files(folder)
    remark = Remark(LOOK, "settings", f"nothing else is checked: {why}")
    return Preflight(folder, (*_list_digests(digests), remark), digests)


def _list_digests(digests: CheckedFiles) -> Iterator[Remark]:
    summary, *lines = str(digests).splitlines()
    yield Remark(OK, "artefacts", summary)
    for line in lines:
        yield Remark(STOP if line in digests.damaged else LOOK, "artefacts", line)


def _check_manifest(manifest: Manifest, *, share_files: bool) -> Iterator[Remark]:
    people = {clip.identity for clip in manifest.clips} - {""}
    n_clips, n_strangers = len(manifest.clips), sum(not clip.identity for clip in manifest.clips)
    splits = {split: len(manifest.of_split(split)) for split in manifest.splits}
    text = f"{n_clips:,} clips of {len(people):,} people"
    if n_strangers:
        text += f", {n_strangers:,} of nobody known"
    text += "; " + ", ".join(f"{split} {count:,}" for split, count in splits.items())
    figures = {"clips": n_clips, "people": len(people), "distractors": n_strangers}
    yield Remark(OK, "manifest", text, {**figures, "splits": splits})
    if manifest.unused_columns:
        named = ", ".join(column or "(no name)" for column in manifest.unused_columns)
        yield Remark(LOOK, "manifest", f"columns not used: {named}")
    yield from _warn(manifest, "manifest", warn_of_doubles(manifest, share_files=share_files))


def _warn(manifest: Manifest, about: str, warnings: list[str]) -> Iterator[Remark]:
    for warning in warnings:
        yield Remark(LOOK, about, warning.removeprefix(f"manifest {manifest.path}: "))


def _check_clips_files(run: Run) -> Iterator[Remark]:
    """Whether the clips are there and can be read; those on other machines are there or not."""
    manifest, root = run.manifest, run.manifest.root
    refused: list[Problem] = []
    absent = check_paths(manifest.clips, root, refused, manifest.unit)
    away = {line for line, _ in (*absent, *refused)}
    folder = root.location if isinstance(root, FolderRoot) else None
    empty: list[Problem] = []
    closed: list[Problem] = []
    sizes: dict[str, int] = {}
    for clip in manifest.clips:
        if clip.line in away or root.remote or is_url(clip.path):
            continue
        named = clip.line, f"'{redacted(clip.path)}'"
        try:
            sizes[clip.path] = root.size(clip.path)
        except OSError:  # a folder that may not be listed
            closed.append(named)
            continue
        if not sizes[clip.path]:
            empty.append(named)
        elif folder and not os.access(folder / clip.path, os.R_OK):
            closed.append(named)
    n_there, n_bytes = len(manifest.clips) - len(away), sum(sizes.values())
    size = f", {size_text(n_bytes)}" if sizes else ""
    figures = {"there": n_there, "bytes": n_bytes}
    yield Remark(
        OK, "files", f"{n_there:,} of {len(manifest.clips):,} clips are there{size}", figures
    )
    allowed = run.pipeline.manifest.allow_missing
    kinds = (
        (STOP, "refused", refused, "mend the manifest"),
        (
            LOOK if allowed else STOP,
            "not there",
            absent,
            "they will count as missing" if allowed
            else "mend the paths or give --root; --allow-missing runs on without them",
        ),
        (LOOK, "may not be read", closed, "they will fail; change who may read them"),
        (LOOK, "empty", empty, "they will fail; fetch them again or leave them out"),
    )  # fmt: skip
    for level, what, lines, remedy in kinds:
        if lines:
            listed = list_text([f"{manifest.unit} {line}: {text}" for line, text in lines])
            yield Remark(level, "files", f"{len(lines)} {what} ({listed}): {remedy}")
    if not run.of_features:
        yield from _warn(manifest, "files", warn_of_equal_contents(manifest, repeats=True))


def _check_scores(run: Run, split: str | None, gallery: str | None) -> Iterator[Remark]:
    """Whom the split holds, and what so many pairs can tell."""
    lacking = "" if split or gallery else find_what_lacks(run)
    if lacking:
        yield Remark(LOOK, "scores", f"nothing will be scored: {lacking}")
        return
    settings = run.pipeline.score
    split, gallery = split or settings.split, gallery or settings.gallery
    check_splits(run, split, gallery)
    clips = clips_of_split(run.manifest, split)
    clips_of_people = Counter(who for who in clips.who if who)
    n_people = len(clips_of_people)
    genuine, impostor = clips.pairs
    yield Remark(
        OK,
        "scores",
        f"{split}: {len(clips.who):,} clips of {n_people:,} people; {genuine:,} genuine and "
        f"{impostor:,} impostor pairs",
        {"people": n_people, "genuine_pairs": genuine, "impostor_pairs": impostor},
    )
    alone = sum(count == 1 for count in clips_of_people.values())
    if alone:
        text = f"{alone:,} of {n_people:,} people have one clip in {split}, so no genuine pair"
        yield Remark(LOOK, "scores", text)
    if settings.needs_gallery:
        enrolled = {clip.identity for clip in run.manifest.of_split(gallery)}
        absent = len(clips_of_people.keys() - enrolled)
        if absent:
            text = f"{absent:,} of {n_people:,} people of {split} are not in the gallery {gallery}"
            yield Remark(LOOK, "scores", f"{text}, so no search can find them")
    if "verification" in settings.protocol_names:
        fars = settings.protocol(VerificationProtocol).far_list
        yield from _check_fars(fars, impostor)
        yield _expect_interval([math.comb(count, 2) for count in clips_of_people.values()])


def _check_fars(fars: tuple[str, ...], impostor: int) -> Iterator[Remark]:
    """Which FARs so many impostor pairs can tell: one accepted pair is the least there is."""
    exact = check_targets(fars)
    accepted = {text: math.floor(far * impostor) for text, far in exact.items()}
    firm = [text for text, n in accepted.items() if n >= FEWEST_ERRORS]
    loose = [f"{text} ({n})" for text, n in accepted.items() if 0 < n < FEWEST_ERRORS]
    beyond = sorted((text for text, n in accepted.items() if n == 0), key=exact.__getitem__)
    if firm:
        text = f"FAR {', '.join(firm)}: there are impostor pairs enough"
        yield Remark(OK, "scores", text, {"accepted_pairs": accepted})
    if loose:
        text = f"FAR {', '.join(loose)}: so few accepted pairs set the threshold; below "
        yield Remark(LOOK, "scores", f"{text}{FEWEST_ERRORS} chance moves it much")
    if beyond:
        needed, sign = math.ceil(1 / exact[beyond[-1]]), "≤ " if len(beyond) > 1 else ""
        text = f"FAR {sign}{beyond[-1]} needs ≥ {needed:,} impostor pairs; there are {impostor:,}"
        yield Remark(LOOK, "scores", text)


def _expect_interval(pairs_of_people: list[int]) -> Remark:
    if not sum(pairs_of_people):
        return Remark(LOOK, "scores", "no genuine pair, so no TAR: it takes two clips of a person")
    best, worst = expected_width(pairs_of_people)
    text = f"a TAR of 95 % will be known within ±{best / 2:.1%} at best"
    if f"{best:.3f}" != f"{worst:.3f}":
        text += f", ±{worst / 2:.1%} where a person's pairs succeed or fail as one"
    few = few_people_note(len(pairs_of_people))
    figures = {"least_interval_width": best, "interval_width_of_people": worst}
    return Remark(LOOK if few else OK, "scores", "; ".join(filter(None, (text, few))), figures)


def _check_extraction(run: Run) -> Iterator[Remark]:
    yield from _read_extraction(run)


@reading
def _read_extraction(run: Run) -> list[Remark]:
    run.check(run.folder.read_clips()[1], run.folder.clips_path)
    remarks = list(describe_faces(run, "clips"))
    try:
        run.clips()
    except VidfaceError as error:  # clips came, went or changed: extraction does those
        remarks.append(Remark(LOOK, "clips", str(error)))
    return remarks
