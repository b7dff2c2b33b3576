"""Scoring a run: descriptors → both protocols, and the score file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface import artefacts
from vidface.clusterings import latest, read_clustering
from vidface.denoising import Denoised, Denoising, denoise, meant
from vidface.errors import VidfaceError
from vidface.runs import Notify, Run, quiet

if TYPE_CHECKING:
    from vidface.scores import Retrieval, Verification
    from vidface.truth import NoiseRemoval


@dataclass(frozen=True)
class Score:
    """Both protocols on one split, with the counts behind them."""

    split: str
    gallery: str
    threshold: float | None
    retrieval: Retrieval
    verification: Verification
    counts: Mapping[str, Any]
    gallery_counts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    removal: NoiseRemoval | None = None  # of all clips' faces, where a truth is named
    denoising: str = ""  # in words: "threshold 0.4", "trim, trim share 0.25, pooling norm"

    def to_dict(self) -> dict[str, Any]:
        """The score JSON (README, "The score file")."""
        return {
            "split": self.split,
            "gallery": self.gallery,
            "threshold": self.threshold,
            "denoising": self.denoising,
            "retrieval": self.retrieval.to_dict(),
            "verification": self.verification.to_dict(),
            **({} if self.removal is None else {"noise_removal": self.removal.to_dict()}),
            "counts": dict(self.counts),
            "gallery_counts": dict(self.gallery_counts),
            "provenance": dict(self.provenance),
        }


def score_denoised(run: Run, denoised: Denoised, split: str, gallery: str) -> Score:
    """Retrieval and verification of one split from the descriptors.

    Raises:
        VidfaceError: a split that has no clip, or that is its own gallery.
    """
    from vidface.scores import score_retrieval, score_verification

    check_splits(run, split, gallery)
    clips = {clip.clip_id: clip for clip in run.manifest.clips}
    of_split = np.array([clips[c].split for c in denoised.clip_ids])
    identities = np.array([clips[c].identity for c in denoised.clip_ids], dtype=object)
    probes = np.flatnonzero(of_split == split)
    enrolled = np.flatnonzero(of_split == gallery)
    retrieval = score_retrieval(
        denoised.descriptors[enrolled],
        identities[enrolled].tolist(),
        denoised.descriptors[probes],
        identities[probes].tolist(),
        [denoised.clip_ids[row] for row in probes],
    )
    verification = score_verification(denoised.descriptors[probes], identities[probes].tolist())
    settings = {
        **run.extraction_settings,
        **(denoised.denoising or Denoising.of(run.pipeline).at(denoised.threshold)).settings,
        "score.split": split,
        "score.gallery": gallery,
    }
    return Score(
        split=split,
        gallery=gallery,
        threshold=denoised.threshold,
        removal=denoised.removal,
        denoising=str(denoised.denoising or ""),
        retrieval=retrieval,
        verification=verification,
        counts=_counts(denoised, probes),
        gallery_counts=_counts(denoised, enrolled),
        provenance=artefacts.provenance(
            "score",
            settings,
            manifest=run.manifest.path.name,
            manifest_sha256=run.manifest.sha256,
            weights=run.weights_name,
            weights_sha256=run.extraction_settings["backbone.weights_sha256"],
        ),
    )


def check_splits(run: Run, split: str, gallery: str) -> None:
    """Refuse what cannot be scored, which is known before anything is extracted.

    Raises:
        VidfaceError: a split without a clip, or one that is its own gallery.
    """
    for flag, name in (("--split", split), ("--gallery", gallery)):
        if name not in run.manifest.splits:
            there = ", ".join(run.manifest.splits)
            raise VidfaceError(f"{flag} {name}: no clip of the manifest is in it (there: {there})")
    if split == gallery:
        raise VidfaceError(
            f"--split {split} is its own gallery: every clip would find itself; "
            "name another --gallery"
        )


def _counts(denoised: Denoised, rows: np.ndarray) -> dict[str, Any]:
    states = Counter(denoised.states[row] for row in rows)
    return {
        "clips": len(rows),
        "no_descriptor": int(np.count_nonzero(~denoised.has_descriptor[rows])),
        "states": {state: states[state] for state in artefacts.STATES if states[state]},
        "frames": int(denoised.frames[rows].sum()),
        "faces": int(denoised.faces[rows].sum()),
        "kept": int(denoised.kept[rows].sum()),
        "unusable": int(denoised.unusable[rows].sum()),
    }


LATEST = object()  # "the clustering made last", where None already means "no clustering"


def score(
    run: Run,
    threshold: object = LATEST,
    *,
    split: str | None = None,
    gallery: str | None = None,
    notify: Notify = quiet,
) -> Score:
    """Score a split; the result is also written to `scores/` of the run directory.

    Args:
        threshold: a cosine, None for no clustering, settings, or LATEST, the clustering made last.
            One that is not there is worked out but not written, so that LATEST stays what was
            asked for.
        split, gallery: as in the pipeline unless given.
    """
    split = split or run.pipeline.score.split
    gallery = gallery or run.pipeline.score.gallery
    check_splits(run, split, gallery)
    run.clips()
    given: Any = threshold
    chosen = latest(run) if threshold is LATEST else meant(run, given)
    denoised = read_clustering(run, chosen)
    if denoised is None:
        notify(f"no clustering at {chosen} is stored: working it out")
    if denoised is None or chosen.truth is not None:  # precision and recall are not stored
        denoised = denoise(run, chosen)
    result = score_denoised(run, denoised, split, gallery)
    path = run.folder.folder / "scores" / f"{split}_against_{gallery}_{chosen.name}.json"
    artefacts.write_json(path, result.to_dict())
    return result
