"""Scoring the pairs of a list: of clips, or of templates made of clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.datasets.pair_lists import read_pair_list
from vidface.datasets.templates import TemplateList, read_templates
from vidface.metrics.protocols.verification import VerificationProtocol
from vidface.metrics.settings import ScoreSettings
from vidface.metrics.templates import pool_templates
from vidface.metrics.verification import Verification, score_pair_list
from vidface.runs.denoising import Denoising
from vidface.runs.run import Run
from vidface.runs.score_tasks import make_bootstrap
from vidface.runs.score_writing import write_score
from vidface.runs.scoring import (
    LATEST,
    ClusteringChoice,
    choose_clustering,
    load_denoised,
    score_provenance,
)
from vidface.storage.cache import sha256_of


@dataclass(frozen=True)
class PairListScore:
    """What a pair list says of a run."""

    pairs: str
    what: str  # "clips" or "templates"
    pairs_listed: int
    rows: int  # clips or templates
    without_descriptor: int
    denoising: str
    resampled: str  # "people", or what stands for them where nobody knows who is in it
    people: int  # how many of them there are
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
            "resampled": self.resampled,
            "people": self.people,
            "failure_to_acquire": {
                self.what: self.rows,
                "failed": self.without_descriptor,
                "rate": self.without_descriptor / self.rows if self.rows else None,
            },
            "verification": self.verification.to_dict(),
            "provenance": dict(self.provenance),
        }


def score_listed_pairs(
    run: Run,
    pairs: Path,
    *,
    templates: Path | None = None,
    order: str = "auto",
    threshold: ClusteringChoice = LATEST,
    settings: ScoreSettings | None = None,
    notify: Notify = quiet,
) -> PairListScore:
    """Score the pairs of a list; also written to `scores/` of the run directory.

    Args:
        pairs: lines `a b same`; names are clip ids, or template ids with `templates`.
        templates: lines `template_id media_id path`: clips pooled by media, then by template.
        order: of the fields of templates, as `vidface.datasets.templates.read_templates` takes it.

    Raises:
        VidfaceError: a list that is not one, or names that the run does not have.
    """

    settings = settings or run.pipeline.score
    chosen = choose_clustering(run, threshold)
    file = f"scores/pairs_{pairs.stem}_{chosen.name}"
    with run.writing("score", replaces=[file], reads=[chosen.resource]):
        return _score_pairs(run, pairs, templates, order, chosen, settings, notify)


def _score_pairs(
    run: Run,
    pairs: Path,
    templates: Path | None,
    order: str,
    chosen: Denoising,
    settings: ScoreSettings,
    notify: Notify,
) -> PairListScore:
    protocol = settings.protocol(VerificationProtocol)
    denoised, _ = load_denoised(run, chosen, notify)
    identity_of = {clip.clip_id: clip.identity for clip in run.manifest.clips}
    if templates is None:
        names = tuple(denoised.clip_ids)
        descriptors = denoised.descriptors
        identities: list[str] = [identity_of[name] for name in names]
    else:
        listed_templates = read_templates(templates, order=order)
        pooled = pool_templates(denoised.descriptors, denoised.clip_ids, listed_templates)
        names, descriptors = pooled.template_ids, pooled.descriptors
        identities = list(
            listed_templates.identities or _identities_of(listed_templates, identity_of)
        )
    listed = read_pair_list(pairs, names)
    contradiction = _find_contradiction(listed, identities)
    if contradiction:
        notify(f"{pairs}: {contradiction}; the list decides")
    used = np.unique(np.concatenate([listed.first, listed.second]))
    verification = score_pair_list(
        descriptors,
        listed.first,
        listed.second,
        listed.same,
        protocol.far_list,
        identities=identities,
        convention=protocol.convention,
        bootstrap=make_bootstrap(settings),
    )
    what = "clips" if templates is None else "templates"
    recorded = {
        "fars": list(protocol.far_list),
        "convention": protocol.convention,
        "bootstrap": settings.bootstrap,
        "seed": settings.seed if settings.bootstrap else None,
    }
    provenance = {
        **score_provenance(run, denoised, recorded),
        "pairs_sha256": listed.sha256,
        "templates_sha256": None if templates is None else sha256_of(templates),
    }
    result = PairListScore(
        pairs=pairs.name,
        what=what,
        pairs_listed=len(listed.same),
        rows=len(used),
        without_descriptor=int(np.count_nonzero(~descriptors[used].any(axis=1))),
        denoising=str(chosen),
        resampled=_name_resampled(identities, used, what),
        people=len({identities[row] or row for row in used.tolist()}),
        verification=verification,
        provenance=provenance,
    )
    of = "" if templates is None else f"_of_{templates.stem}"
    unusual = "".join(f"_{part}" for part in protocol.name_parts())
    name = f"pairs_{pairs.stem}_{listed.sha256[:8]}{of}_{chosen.name}{unusual}.json"
    tables = [verification.side_tables()]
    write_score(run.folder.folder / "scores" / name, result.to_dict(), tables, notify)
    return result


def _identities_of(templates: TemplateList, identity_of: Mapping[str, str]) -> list[str]:
    """Who a template is of, where all its clips are of one person in the manifest; else ""."""
    named: list[set[str]] = [set() for _ in templates.template_ids]
    for row, path in zip(templates.rows.tolist(), templates.paths, strict=True):
        named[row].add(identity_of.get(path, ""))
    return [next(iter(names)) if len(names) == 1 else "" for names in named]


def _name_resampled(identities: Sequence[str], used: NDArray[np.int64], what: str) -> str:
    """What a bootstrap draws: people, or the rows of which nobody knows who it is."""
    known = sum(bool(identities[row]) for row in used.tolist())
    if known == len(used):
        return "people"
    return f"people, and {what} of which nobody knows who it is" if known else what


def _find_contradiction(listed: Any, identities: list[str]) -> str:
    """A word where the list and the known identities disagree."""
    if len(identities) == 0:
        raise VidfaceError("there is no clip to pair")
    names = np.array(identities, dtype=object)
    a, b = names[listed.first], names[listed.second]
    known = (a != "") & (b != "")
    wrong = int(np.count_nonzero(known & ((a == b) != listed.same)))
    return f"{wrong} pairs are not what the manifest's identities say" if wrong else ""
