"""Scoring a run: descriptors → the protocols, with intervals, and the score file."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.errors import UsageError
from vidface.core.files import atomic_file, write_json
from vidface.core.states import STATES
from vidface.executor.shards import executor_of
from vidface.metrics.clip_retrieval import score_clip_retrieval
from vidface.metrics.curves import curves_path, score_curves
from vidface.metrics.identification import score_identification
from vidface.metrics.retrieval import score_retrieval
from vidface.metrics.uncertainty import Bootstrap
from vidface.metrics.verification import score_cross_verification, score_verification
from vidface.runs import artefacts
from vidface.runs.clusterings import latest, read_clustering
from vidface.runs.denoising import Denoised, Denoising, denoise, meant
from vidface.runs.run import Notify, Run, quiet, writing

if TYPE_CHECKING:
    from vidface.metrics.clip_retrieval import ClipRetrieval
    from vidface.metrics.identification import Identification
    from vidface.metrics.pairwise import Progress
    from vidface.metrics.rates import Curve
    from vidface.metrics.retrieval import Retrieval
    from vidface.metrics.settings import ScoreSettings
    from vidface.metrics.uncertainty import Bootstrap, Replicates
    from vidface.metrics.verification import Verification
    from vidface.noise.truth import NoiseRemoval

Figures = Mapping[str, tuple[float, "Replicates | None"]]


@dataclass(frozen=True)
class Score:
    """What the protocols say of one split, with the counts behind them.

    A protocol that was not asked for is None.
    """

    split: str
    gallery: str | None  # None: no protocol needed one
    threshold: float | None
    retrieval: Retrieval | None
    verification: Verification | None
    counts: Mapping[str, Any]
    gallery_counts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    removal: NoiseRemoval | None = None  # of all clips' faces, where a truth is named
    denoising: str = ""  # in words: "threshold 0.4", "trim, trim share 0.25, pooling norm"
    identification: Identification | None = None
    clip_retrieval: ClipRetrieval | None = None
    cross_verification: Verification | None = None

    @property
    def protocols(self) -> dict[str, Any]:
        """The results, by the names of `vidface.metrics.settings.PROTOCOLS` with an underscore."""
        found = {
            "retrieval": self.retrieval,
            "verification": self.verification,
            "cross_verification": self.cross_verification,
            "clip_retrieval": self.clip_retrieval,
            "identification": self.identification,
        }
        return {name: result for name, result in found.items() if result is not None}

    def figures(self) -> Figures:
        """Every figure that there is, by name: "map_at_100", "tar_at_far.1e-4", "cmc.1", …"""
        return dict(_figures(self))

    def to_dict(self) -> dict[str, Any]:
        """The score JSON (README, "The score file")."""
        return {
            "split": self.split,
            "gallery": self.gallery,
            "threshold": self.threshold,
            "denoising": self.denoising,
            **{name: result.to_dict() for name, result in self.protocols.items()},
            **({} if self.removal is None else {"noise_removal": self.removal.to_dict()}),
            "failure_to_acquire": {
                "split": failure_to_acquire(self.counts),
                "gallery": failure_to_acquire(self.gallery_counts),
            },
            "counts": dict(self.counts),
            "gallery_counts": dict(self.gallery_counts),
            "provenance": dict(self.provenance),
        }


def failure_to_acquire(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Clips without a usable face: how many, of how many, and the rate (NIST's FTA).

    They stay in every denominator: they score −1 against everything and are never retrieved.
    """
    clips, without = counts["clips"], counts["no_descriptor"]
    return {"clips": clips, "failed": without, "rate": without / clips if clips else None}


def _figures(score: Score) -> Iterator[tuple[str, tuple[float, Replicates | None]]]:
    def given(name: str, value: float | None, replicates: Replicates | None) -> Any:
        return [(name, (value, replicates))] if value is not None else []

    if (r := score.retrieval) is not None:
        yield from given(f"map_at_{r.k}", r.map_at_k, r.replicates)
    verifications = {"": score.verification, "cross_": score.cross_verification}
    for prefix, v in verifications.items():
        if v is None:
            continue
        for point in v.points:
            name = f"{prefix}tar_at_far.{point.target_far}"
            yield from given(name, point.tar, point.replicates)
        for name, figure in (("eer", v.eer), ("auc", v.auc)):
            if figure is not None:
                yield from given(prefix + name, figure.value, figure.replicates)
    if (c := score.clip_retrieval) is not None:
        yield from given(f"clip_map_at_{c.k}", c.map_at_k, c.replicates)
        yield from given("clip_map_by_identity", c.map_by_identity, c.replicates_by_identity)
        yield from given("clip_precision_at_1", c.precision_at_1, c.replicates_at_1)
    if (i := score.identification) is not None:
        for rank in i.cmc:
            yield from given(f"cmc.{rank.rank}", rank.value, rank.replicates)
        for open_set in i.points:
            name = f"tpir_at_fpir.{open_set.target_fpir}"
            yield from given(name, open_set.tpir, open_set.replicates)


def bootstrap_of(settings: ScoreSettings) -> Bootstrap | None:
    """The resamples that the settings ask for; None for none."""

    return Bootstrap(settings.bootstrap, settings.seed) if settings.bootstrap else None


def score_denoised(
    run: Run,
    denoised: Denoised,
    split: str,
    gallery: str,
    *,
    settings: ScoreSettings | None = None,
    progress: Progress | None = None,
) -> Score:
    """The protocols on one split, from the descriptors.

    Args:
        settings: of the scores (default: the pipeline's, without a bootstrap).
        progress: called with the numbers of pairs as verification counts them.

    Raises:
        VidfaceError: a split that has no clip, or that is its own gallery.
    """

    settings = settings or replace(run.pipeline.score, bootstrap=0)
    check_splits(run, split, gallery, settings)
    clips = {clip.clip_id: clip for clip in run.manifest.clips}
    of_split = np.array([clips[c].split for c in denoised.clip_ids])
    identities = np.array([clips[c].identity for c in denoised.clip_ids], dtype=object)
    # By clip id, so that whoever resamples distractors, clip by clip, draws the same ones for
    # another run, in whatever order its manifest has them.
    by_id = np.argsort(np.array(denoised.clip_ids, dtype=object), kind="stable")
    probes = by_id[of_split[by_id] == split]
    enrolled = by_id[of_split[by_id] == gallery]
    if not settings.needs_gallery:
        enrolled = enrolled[:0]
    clip_ids = [denoised.clip_ids[row] for row in probes]
    probe = (denoised.descriptors[probes], identities[probes].tolist())
    reference = (denoised.descriptors[enrolled], identities[enrolled].tolist())
    bootstrap = bootstrap_of(settings)
    pairs: dict[str, Any] = {
        "convention": settings.convention,
        "exact": settings.exact,
        "bootstrap": bootstrap,
        "progress": progress,
        "device": None if settings.device == "cpu" else settings.device,
        "executor": executor_of(run.pipeline.run),
    }
    fars = settings.far_list
    enrolment: dict[str, Any] = {"enrolment": settings.enrolment, "bootstrap": bootstrap}
    ways: dict[str, Any] = {
        "verification": lambda: score_verification(*probe, fars, **pairs),
        "cross-verification": lambda: score_cross_verification(*reference, *probe, fars, **pairs),
        "retrieval": lambda: score_retrieval(*reference, *probe, clip_ids, settings.k, **enrolment),
        "clip-retrieval": lambda: score_clip_retrieval(
            *probe, clip_ids, settings.k, bootstrap=bootstrap
        ),
        "identification": lambda: score_identification(
            *reference,
            *probe,
            ranks=settings.rank_list,
            fpirs=settings.fpir_list,
            **enrolment,
        ),
    }
    found = {name: ways[name]() for name in settings.protocol_names}
    return Score(
        split=split,
        gallery=gallery if settings.needs_gallery else None,
        threshold=denoised.threshold,
        removal=denoised.removal,
        denoising=str(denoised.denoising or ""),
        retrieval=found.get("retrieval"),
        verification=found.get("verification"),
        identification=found.get("identification"),
        clip_retrieval=found.get("clip-retrieval"),
        cross_verification=found.get("cross-verification"),
        counts=_counts(denoised, probes),
        gallery_counts=_counts(denoised, enrolled),
        provenance=score_provenance(run, denoised, settings, split, gallery),
    )


def score_provenance(
    run: Run, denoised: Denoised, settings: ScoreSettings, split: str, gallery: str
) -> dict[str, Any]:
    """All that the figures depend on."""
    denoising = denoised.denoising or Denoising.of(run.pipeline).at(denoised.threshold)
    own = {
        "split": split,
        "gallery": gallery if settings.needs_gallery else None,
        "protocols": list(settings.protocol_names),
        "fars": list(settings.far_list),
        "fpirs": list(settings.fpir_list),
        "ranks": list(settings.rank_list),
        "convention": settings.convention,
        "exact": settings.exact,
        "k": settings.k,
        "enrolment": settings.enrolment,
        "bootstrap": settings.bootstrap,
        "seed": settings.seed if settings.bootstrap else None,
    }
    return artefacts.provenance(
        "score",
        {
            **run.extraction_settings,
            **denoising.settings,
            **{f"score.{key}": value for key, value in own.items()},
        },
        manifest=run.manifest.path.name,
        manifest_sha256=run.manifest.sha256,
        weights=run.weights_name,
        weights_sha256=run.extraction_settings.get("backbone.weights_sha256"),
    )


def check_splits(run: Run, split: str, gallery: str, settings: ScoreSettings | None = None) -> None:
    """Refuse what cannot be scored, which is known before anything is extracted.

    Raises:
        VidfaceError: a split without a clip, or one that is its own gallery, where a protocol needs
            a gallery.
    """
    settings = settings or run.pipeline.score
    named = [("--split", split), *([("--gallery", gallery)] if settings.needs_gallery else [])]
    for flag, name in named:
        if name not in run.manifest.splits:
            there = ", ".join(run.manifest.splits)
            hint = "; --protocols verification needs none" if flag == "--gallery" else ""
            raise UsageError(
                f"{flag} {name}: no clip of the manifest is in it (there: {there}){hint}"
            )
    if split == gallery and settings.needs_gallery:
        raise UsageError(
            f"--split {split} is its own gallery: every clip would find itself; "
            "name another --gallery, or --protocols verification,clip-retrieval"
        )


def _counts(denoised: Denoised, rows: np.ndarray) -> dict[str, Any]:
    states = Counter(denoised.states[row] for row in rows)
    return {
        "clips": len(rows),
        "no_descriptor": int(np.count_nonzero(~denoised.has_descriptor[rows])),
        "states": {state: states[state] for state in STATES if states[state]},
        "frames": int(denoised.frames[rows].sum()),
        "faces": int(denoised.faces[rows].sum()),
        "kept": int(denoised.kept[rows].sum()),
        "unusable": int(denoised.unusable[rows].sum()),
    }


LATEST = object()  # "the clustering made last", where None already means "no clustering"


@writing("score")
def score(
    run: Run,
    threshold: object = LATEST,
    *,
    split: str | None = None,
    gallery: str | None = None,
    settings: ScoreSettings | None = None,
    notify: Notify = quiet,
    progress: Progress | None = None,
) -> Score:
    """Score a split; the result is also written to `scores/` of the run directory.

    Beside the JSON file lie the points of its curves (`….curves.json`), the whole ROC
    (`…_roc.csv`) and each identity's average precision (`…_average_precision.csv`).

    Args:
        threshold: a cosine, None for no clustering, settings, or LATEST, the clustering made last.
            One that is not there is worked out but not written, so that LATEST stays what was
            asked for.
        split, gallery: as in the settings unless given.
        settings: of the scores (default: the pipeline's).
    """
    settings = settings or run.pipeline.score
    split = split or settings.split
    gallery = gallery or settings.gallery
    check_splits(run, split, gallery, settings)
    denoised, chosen = denoised_for(run, threshold, notify)
    result = score_denoised(run, denoised, split, gallery, settings=settings, progress=progress)
    against = f"_against_{gallery}" if settings.needs_gallery else ""
    path = run.folder.folder / "scores" / f"{split}{against}_{chosen.name}{_unusual(settings)}.json"
    curves = score_curves(result, path.name, bootstrap_of(settings))
    store(path, result.to_dict(), side_tables(result), notify, curves)
    return result


def _unusual(settings: ScoreSettings) -> str:
    """Of a file name, what is not as usual of the figures in it."""
    parts = [
        f"_k_{settings.k}" if settings.k != 100 else "",
        f"_{settings.enrolment}" if settings.enrolment != "mean" else "",
        f"_{settings.convention}" if settings.convention != "step" else "",
    ]
    return "".join(parts)


SIDE_TABLES = ("average_precision", "roc", "cross_roc")


def store(
    path: Path,
    document: Mapping[str, Any],
    tables: Mapping[str, Any],
    notify: Notify,
    curves: Mapping[str, Any] | None = None,
) -> None:
    """Write a score file, its tables and its curves; where that can't be, figures are shown."""
    there = next(folder for folder in path.parents if folder.exists())
    if not os.access(there, os.W_OK):
        notify(f"{there} can't be written to: the figures are shown, not stored")
        return
    write_json(path, document)
    for suffix in SIDE_TABLES:
        table = path.with_name(f"{path.stem}_{suffix}.csv")
        if suffix in tables:
            write_csv(table, tables[suffix])
        else:
            table.unlink(missing_ok=True)  # of an earlier score, with other protocols
    if curves is not None:
        write_json(curves_path(path), curves)
    else:
        curves_path(path).unlink(missing_ok=True)


def denoised_for(
    run: Run, threshold: object = LATEST, notify: Notify = quiet
) -> tuple[Denoised, Denoising]:
    """The descriptors that are meant, read or worked out, and their settings."""
    run.clips()
    given: Any = threshold
    chosen = latest(run) if threshold is LATEST else meant(run, given)
    denoised = read_clustering(run, chosen)
    if denoised is None:
        notify(f"no clustering at {chosen} is stored: working it out")
    if denoised is None or chosen.truth is not None:  # precision and recall are not stored
        denoised = denoise(run, chosen)
    return denoised, chosen


def side_tables(result: Score) -> dict[str, list[Sequence[Any]]]:
    """What is too long for the JSON file: name → rows, the header first."""
    tables: dict[str, list[Sequence[Any]]] = {}
    if result.retrieval is not None and result.retrieval.table:
        rows = result.retrieval.per_identity()
        header = list(rows[0])
        tables["average_precision"] = [header, *([row[key] for key in header] for row in rows)]
    curves = {"roc": result.verification, "cross_roc": result.cross_verification}
    for name, verification in curves.items():
        if verification is not None and verification.curve is not None:
            tables[name] = roc_table(verification.curve)
    return tables


def roc_table(curve: Curve) -> list[Sequence[Any]]:
    """The ROC as rows, the header first."""
    columns = {
        "threshold": curve.thresholds,
        "far": curve.far,
        "tar": curve.tar,
        "accepted_impostor": curve.accepted_impostor,
        "accepted_genuine": curve.accepted_genuine,
    }
    return [
        tuple(columns),
        *zip(*(column.tolist() for column in columns.values()), strict=True),
    ]


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as CSV, complete or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode("utf-8", "replace"))
