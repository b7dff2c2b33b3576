"""Scoring the pairs of a list: of clips, or of templates made of clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface import artefacts
from vidface.errors import VidfaceError
from vidface.runs import Notify, Run, quiet
from vidface.scoring import LATEST, bootstrap_of, denoised_for, score_provenance, write_csv

if TYPE_CHECKING:
    from vidface.pipeline import ScoreSettings
    from vidface.scores import Verification


@dataclass(frozen=True)
class PairListScore:
    """What a pair list says of a run."""

    pairs: str
    what: str  # "clips" or "templates"
    pairs_listed: int
    rows: int  # clips or templates
    without_descriptor: int
    denoising: str
    verification: Verification
    provenance: Mapping[str, Any]

    def __str__(self) -> str:
        return f"PairListScore({self.pairs}: {self.pairs_listed} pairs of {self.rows} {self.what})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "pair_list": self.pairs,
            "pairs_listed": self.pairs_listed,
            self.what: self.rows,
            "denoising": self.denoising,
            "failure_to_acquire": {
                self.what: self.rows,
                "failed": self.without_descriptor,
                "rate": self.without_descriptor / self.rows if self.rows else None,
            },
            "verification": self.verification.to_dict(),
            "provenance": dict(self.provenance),
        }


def score_listed(
    run: Run,
    pairs: Path,
    *,
    templates: Path | None = None,
    threshold: object = LATEST,
    settings: ScoreSettings | None = None,
    notify: Notify = quiet,
) -> PairListScore:
    """Score the pairs of a list; also written to `scores/` of the run directory.

    Args:
        pairs: lines `a b same`; names are clip ids, or template ids with `templates`.
        templates: lines `template_id media_id path`: clips pooled by media, then by template.

    Raises:
        VidfaceError: a list that is not one, or names that the run does not have.
    """
    from vidface.datasets.pair_lists import read_pair_list
    from vidface.datasets.templates import read_templates
    from vidface.scores import score_pair_list
    from vidface.scores.templates import pool_templates

    settings = settings or run.pipeline.score
    denoised, chosen = denoised_for(run, threshold, notify)
    identity_of = {clip.clip_id: clip.identity for clip in run.manifest.clips}
    if templates is None:
        names = tuple(denoised.clip_ids)
        descriptors = denoised.descriptors
        identities: list[str] = [identity_of[name] for name in names]
    else:
        listed_templates = read_templates(templates)
        pooled = pool_templates(denoised.descriptors, denoised.clip_ids, listed_templates)
        names, descriptors = pooled.template_ids, pooled.descriptors
        identities = list(listed_templates.identities or [""] * len(names))
    listed = read_pair_list(pairs, names)
    contradiction = _contradiction(listed, identities)
    if contradiction:
        notify(f"{pairs}: {contradiction}; the list decides")
    used = np.unique(np.concatenate([listed.first, listed.second]))
    verification = score_pair_list(
        descriptors,
        listed.first,
        listed.second,
        listed.same,
        settings.far_list,
        identities=identities,
        convention=settings.convention,
        bootstrap=bootstrap_of(settings),
    )
    made = score_provenance(run, denoised, settings, "", "")
    result = PairListScore(
        pairs=pairs.name,
        what="clips" if templates is None else "templates",
        pairs_listed=len(listed.same),
        rows=len(used),
        without_descriptor=int(np.count_nonzero(~descriptors[used].any(axis=1))),
        denoising=str(chosen),
        verification=verification,
        provenance={**made, "pairs_sha256": listed.sha256},
    )
    path = run.folder.folder / "scores" / f"pairs_{pairs.stem}_{chosen.name}.json"
    artefacts.write_json(path, result.to_dict())
    if (c := verification.curve) is not None:
        columns = (c.thresholds, c.far, c.tar, c.accepted_impostor, c.accepted_genuine)
        header = ("threshold", "far", "tar", "accepted_impostor", "accepted_genuine")
        rows = zip(*(column.tolist() for column in columns), strict=True)
        write_csv(path.with_name(f"{path.stem}_roc.csv"), [header, *rows])
    return result


def _contradiction(listed: Any, identities: list[str]) -> str:
    """A word where the list and the known identities disagree."""
    if len(identities) == 0:
        raise VidfaceError("there is no clip to pair")
    names = np.array(identities, dtype=object)
    a, b = names[listed.first], names[listed.second]
    known = (a != "") & (b != "")
    wrong = int(np.count_nonzero(known & ((a == b) != listed.same)))
    return f"{wrong} pairs are not what the manifest's identities say" if wrong else ""
