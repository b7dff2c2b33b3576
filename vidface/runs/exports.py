"""A run → the files that challenges take: descriptors, ranked lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.datasets.lfrc import read_filelist
from vidface.datasets.submissions import (
    MOST_COLUMNS,
    Submission,
    check_submission,
    write_ranked_list,
    write_submission,
)
from vidface.metrics.protocols.retrieval import RetrievalProtocol
from vidface.metrics.retrieval import rank_clips
from vidface.runs.run import Run, reading
from vidface.runs.scoring import LATEST, ClusteringChoice, check_splits, load_denoised
from vidface.storage.cache import sha256_of

NAMED = 5  # clips that a message names


@dataclass(frozen=True)
class RankedLists:
    """A ranked-list file that was written and read back."""

    path: Path
    split: str
    gallery: str
    k: int
    enrolment: str
    identities: int  # a line each
    empty: int  # of these, with no clip: no gallery clip of theirs has a descriptor
    clips: int  # of the split that are ranked
    no_descriptor: int  # of the split's clips: never retrieved
    bytes: int
    sha256: str

    def __str__(self) -> str:
        lines = [
            f"{self.path}: {self.identities} identities of {self.gallery}, at most {self.k} of "
            f"{self.clips} clips of {self.split} each",
            f"{self.bytes} bytes, sha256 {self.sha256}",
        ]
        if self.no_descriptor:
            lines.append(f"{self.no_descriptor} further clips have no descriptor: never retrieved")
        if self.empty:
            lines.append(
                f"{self.empty} identities have no gallery descriptor: their lists are empty"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return {**asdict(self), "path": str(self.path)}


@reading
def export_lfrc(
    run: Run,
    out: Path,
    threshold: ClusteringChoice = LATEST,
    *,
    split: str | None = None,
    filelist: Path | None = None,
    notify: Notify = quiet,
) -> Submission:
    """Write a clustering's descriptors as an LFRC submission, read back and compared.

    A row a clip, in the manifest's order or the filelist's; zeros for a clip without a descriptor.

    Args:
        threshold: as for `vidface.runs.scoring.score`.
        split: only its clips.
        filelist: names the clips, by clip_id, and their order; others are left out.

    Raises:
        VidfaceError: no extraction or clustering, a split without a clip, clips of the filelist
            that are not in the manifest or not of the split, more than 512 columns for a filelist,
            a file that can't be written.
    """

    of_split = {clip.clip_id: clip.split for clip in run.manifest.clips}
    if split is not None and split not in run.manifest.splits:
        there = ", ".join(run.manifest.splits)
        raise UsageError(f"--split {split}: no clip of the manifest is in it (there: {there})")
    wanted: Sequence[str] | None = None if filelist is None else read_filelist(filelist)
    if wanted is not None:
        _check_known(wanted, of_split, split, f"filelist {filelist}")
    denoised, _ = load_denoised(run, threshold, notify)
    place = {clip_id: row for row, clip_id in enumerate(denoised.clip_ids)}
    if wanted is None:
        wanted = [c for c in denoised.clip_ids if split is None or of_split[c] == split]
    rows = np.array([place[clip_id] for clip_id in wanted], dtype=np.int64)
    left_out = len(place) - len(rows)
    if filelist is not None and left_out:
        notify(f"{left_out} clips of the manifest are not in {filelist} and are left out")
    cols = denoised.descriptors.shape[1]
    if cols > MOST_COLUMNS:
        text = f"the challenge takes at most {MOST_COLUMNS} columns; these are {cols}"
        if filelist is not None:  # it is meant for the challenge
            raise VidfaceError(text)
        notify(text)
    in_order = len(rows) == len(place) and bool((rows == np.arange(len(rows))).all())
    written = write_submission(
        out, denoised.descriptors if in_order else denoised.descriptors[rows]
    )
    return written if filelist is None else check_submission(out, filelist)


def _check_known(
    wanted: Sequence[str], of_split: dict[str, str], split: str | None, what: str
) -> None:
    unknown = [name for name in wanted if name not in of_split]
    if unknown:
        raise VidfaceError(f"{what}: {_named(unknown)} not in the manifest")
    foreign = [name for name in wanted if split is not None and of_split[name] != split]
    if foreign:
        raise VidfaceError(f"{what}: {_named(foreign)} not of the split {split}")


def _named(names: Sequence[str]) -> str:
    some = ", ".join(f"'{name}'" for name in names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return f"{len(names)} clip(s) ({some}) are"


@reading
def export_iqiyi(
    run: Run,
    out: Path,
    threshold: ClusteringChoice = LATEST,
    *,
    split: str | None = None,
    gallery: str | None = None,
    k: int | None = None,
    enrolment: str | None = None,
    notify: Notify = quiet,
) -> RankedLists:
    """Write the ranked lists that `vidface score` scores, as iQIYI-VID takes them, and compare.

    A line for each identity of the gallery: the k best clips of the split.

    Args:
        threshold: as for `vidface.runs.scoring.score`.
        split, gallery, k, enrolment: as in the pipeline unless given.

    Raises:
        VidfaceError: no extraction or clustering, a split without a clip or that is its own
            gallery, a gallery without an identity, names that can't stand in the file, a file that
            can't be written.
    """

    score = run.pipeline.score
    split, gallery = split or score.split, gallery or score.gallery
    retrieval = score.protocol(RetrievalProtocol)
    k, enrolment = retrieval.k if k is None else k, enrolment or retrieval.enrolment
    check_splits(run, split, gallery, replace(score, protocols="retrieval"))
    denoised, _ = load_denoised(run, threshold, notify)
    clips = {clip.clip_id: clip for clip in run.manifest.clips}
    of_split = [clips[clip_id].split for clip_id in denoised.clip_ids]
    enrolled = [row for row, name in enumerate(of_split) if name == gallery]
    searched = [row for row, name in enumerate(of_split) if name == split]
    ranking = rank_clips(
        denoised.descriptors[enrolled],
        [clips[denoised.clip_ids[row]].identity for row in enrolled],
        denoised.descriptors[searched],
        [denoised.clip_ids[row] for row in searched],
        k,
        enrolment,
    )
    if not ranking:
        raise VidfaceError(f"--gallery {gallery}: no clip of it has an identity to search for")
    write_ranked_list(out, ranking, k=k)
    there = int(np.count_nonzero(denoised.has_descriptor[searched]))
    return RankedLists(
        path=out,
        split=split,
        gallery=gallery,
        k=k,
        enrolment=enrolment,
        identities=len(ranking),
        empty=sum(not clip_ids for clip_ids in ranking.values()),
        clips=there,
        no_descriptor=len(searched) - there,
        bytes=out.stat().st_size,
        sha256=sha256_of(out),
    )
