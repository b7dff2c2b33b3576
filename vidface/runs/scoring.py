"""Scoring a run: descriptors → the protocols, with intervals, and the score file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

import vidface
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.progress import CountProgress, Notify, quiet
from vidface.core.states import STATES
from vidface.metrics.figures import ProtocolResult
from vidface.metrics.protocols import PROTOCOLS
from vidface.metrics.retrieval import Retrieval
from vidface.metrics.settings import ScoreSettings
from vidface.metrics.uncertainty import Replicates
from vidface.metrics.verification import Verification
from vidface.noise.truth import NoiseRemoval
from vidface.runs import artefacts
from vidface.runs.clusterings import find_latest_denoising, read_clustering
from vidface.runs.denoised import Denoised
from vidface.runs.denoising import Denoising, resolve_denoising
from vidface.runs.noise_removal import denoise
from vidface.runs.run import Run
from vidface.runs.score_display import describe_score, make_html, make_table
from vidface.runs.score_tasks import (
    NO_CLIPS,
    clips_of_split,
    find_rows,
    make_bootstrap,
    make_task,
    name_score_file,
)
from vidface.runs.score_writing import curves_document, write_score
from vidface.settings.run_settings import choose_executor

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


class WhichClustering(Enum):
    """A clustering that is named by what it is, where None already means "no clustering"."""

    LATEST = "the clustering made last"
    SAME = "the clustering of the other run"


LATEST = WhichClustering.LATEST
ClusteringChoice = Denoising | float | WhichClustering | None
"""A clustering by its settings, by its cosine threshold, or by what it is; None: no clustering."""


@dataclass(frozen=True, repr=False)
class Score:
    """What the protocols say of one split, with the counts behind them.

    It prints a figure a line, and is a small table in notebooks.
    """

    split: str
    gallery: str | None  # None: no protocol needed one
    threshold: float | None
    results: Mapping[str, ProtocolResult]  # by the name of the protocol, "clip-retrieval"
    counts: Mapping[str, Any]
    gallery_counts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    people: int = 0  # labelled, whom a bootstrap draws
    removal: NoiseRemoval | None = None  # of all clips' faces, where a truth is named
    denoising: str = ""  # in words: "threshold 0.4", "trim, trim share 0.25, pooling norm"

    @property
    def retrieval(self) -> Retrieval | None:
        """The result of the protocol "retrieval"; None where it was not asked for."""
        result: Any = self.results.get("retrieval")
        return result

    @property
    def verification(self) -> Verification | None:
        """The result of the protocol "verification"; None where it was not asked for."""
        result: Any = self.results.get("verification")
        return result

    @property
    def protocols(self) -> dict[str, ProtocolResult]:
        """The results by the names of their sections in the score file, "clip_retrieval"."""
        names = sorted(self.results, key=lambda name: not PROTOCOLS[name].is_headline)
        return {section_name(name): self.results[name] for name in names}

    def figures(self) -> dict[str, tuple[float, Replicates | None]]:
        """Every figure that there is, by name: "map_at_100", "tar_at_far.1e-4", "cmc.1", …"""
        return {
            figure.name: (figure.value, figure.replicates)
            for result in self.protocols.values()
            for figure in result.figures()
            if figure.value is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """The score JSON (docs/artefacts.md, "The score file")."""
        return {
            "split": self.split,
            "gallery": self.gallery,
            "threshold": self.threshold,
            "denoising": self.denoising,
            "people": self.people,
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

    def to_arrow(self) -> pa.Table:
        """A row a figure: protocol, figure, label, value, low, high (95 %), note."""
        return make_table(self)

    def to_frame(self) -> Any:
        """`to_arrow` as a pandas `DataFrame`.

        Raises:
            VidfaceError: pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise VidfaceError(
                "to_frame needs pandas: pip install pandas; to_arrow needs nothing more, and "
                "polars.from_arrow takes what it gives"
            )
        return self.to_arrow().to_pandas()

    def plot(self, figure: str | None = None, **options: Any) -> Figure:
        """Draw a figure of it; see `vidface.plot_score`."""
        return vidface.plot_score(self, figure, **options)

    def __repr__(self) -> str:
        return describe_score(self)

    def _repr_html_(self) -> str:
        return make_html(self)


def section_name(protocol: str) -> str:
    """The name of a protocol's section in the score file: "clip_retrieval"."""
    return protocol.replace("-", "_")


def failure_to_acquire(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Clips without a usable face: how many, of how many, and the rate (NIST's FTA).

    They stay in every denominator: they score −1 against everything and are never retrieved.

    >>> failure_to_acquire({"clips": 8, "no_descriptor": 2})
    {'clips': 8, 'failed': 2, 'rate': 0.25}
    """
    clips, without = counts["clips"], counts["no_descriptor"]
    return {"clips": clips, "failed": without, "rate": without / clips if clips else None}


def score_descriptors(
    run: Run,
    denoised: Denoised,
    split: str,
    gallery: str,
    *,
    settings: ScoreSettings | None = None,
    progress: CountProgress | None = None,
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
    clips = clips_of_split(run.manifest, split)
    enrolled = clips_of_split(run.manifest, gallery) if settings.needs_gallery else NO_CLIPS
    executor = choose_executor(run.pipeline.run)
    task = make_task(denoised, clips, enrolled, settings, executor=executor, progress=progress)
    return Score(
        split=split,
        gallery=gallery if settings.needs_gallery else None,
        threshold=denoised.threshold,
        results={
            name: settings.protocol(PROTOCOLS[name]).score(task) for name in settings.protocol_names
        },
        people=len(clips.identities),
        removal=denoised.removal,
        denoising=str(denoised.denoising or ""),
        counts=_counts(denoised, find_rows(denoised, clips)),
        gallery_counts=_counts(denoised, find_rows(denoised, enrolled)),
        provenance=score_provenance(run, denoised, recorded_settings(settings, split, gallery)),
    )


def recorded_settings(settings: ScoreSettings, split: str, gallery: str) -> dict[str, Any]:
    """The settings of all protocols as a score's provenance records them."""
    parameters: dict[str, Any] = dict.fromkeys(_RECORDED_FIRST)
    for kind in PROTOCOLS.values():
        parameters.update(settings.protocol(kind).recorded_settings())
    return {
        "split": split,
        "gallery": gallery if settings.needs_gallery else None,
        "protocols": list(settings.protocol_names),
        **parameters,
        "bootstrap": settings.bootstrap,
        "seed": settings.seed if settings.bootstrap else None,
    }


_RECORDED_FIRST = ("fars", "fpirs", "ranks", "convention", "exact", "k", "enrolment")
"""The order of these keys in score files, as it always was; those of other protocols follow."""


def score_provenance(run: Run, denoised: Denoised, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """All that the figures depend on.

    Args:
        recorded: the settings of the scores.
    """
    denoising = denoised.denoising or resolve_denoising(run, denoised.threshold)
    extracted = artefacts.read_provenance(run.folder.clips_path)
    forced = [] if run.of_features else [run.feed.forced, extracted.get("forced")]
    overridden = "; ".join(dict.fromkeys(text for text in forced if text))
    return artefacts.provenance(
        "score",
        {
            **run.extraction_settings,
            **denoising.settings,
            **{f"score.{key}": value for key, value in recorded.items()},
        },
        manifest=run.manifest.path.name,
        manifest_sha256=run.manifest.sha256,
        weights=run.weights_name,
        weights_sha256=run.extraction_settings.get("backbone.weights_sha256"),
        rules=extracted.get("rules"),
        **({"forced": overridden} if overridden else {}),  # by --force-recogniser
    )


def check_split(run: Run, flag: str, split: str, hint: str = "") -> None:
    """Refuse a split without a clip."""
    if split not in run.manifest.splits:
        there = ", ".join(run.manifest.splits)
        raise UsageError(f"{flag} {split}: no clip of the manifest is in it (there: {there}){hint}")


def check_splits(run: Run, split: str, gallery: str, settings: ScoreSettings | None = None) -> None:
    """Refuse what cannot be scored, which is known before anything is extracted.

    Raises:
        VidfaceError: a split without a clip, or one that is its own gallery, where a protocol needs
            a gallery.
    """
    settings = settings or run.pipeline.score
    named = [("--split", split), *([("--gallery", gallery)] if settings.needs_gallery else [])]
    need_none = [name for name, kind in PROTOCOLS.items() if not kind.needs_gallery]
    for flag, name in named:
        hint = f"; --protocols {need_none[0]} needs none" if flag == "--gallery" else ""
        check_split(run, flag, name, hint)
    if split == gallery and settings.needs_gallery:
        raise UsageError(
            f"--split {split} is its own gallery: every clip would find itself; "
            f"name another --gallery, or --protocols {','.join(need_none)}"
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


def score(
    run: Run,
    threshold: ClusteringChoice = LATEST,
    *,
    split: str | None = None,
    gallery: str | None = None,
    settings: ScoreSettings | None = None,
    notify: Notify = quiet,
    progress: CountProgress | None = None,
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
    chosen = choose_clustering(run, threshold)
    against = gallery if settings.needs_gallery else None
    name = name_score_file(split, against, chosen.name, settings)
    file = f"scores/{name}"
    with run.writing("score", replaces=[file], reads=[chosen.resource]):
        denoised, _ = load_denoised(run, chosen, notify)
        result = score_descriptors(
            run, denoised, split, gallery, settings=settings, progress=progress
        )
        write_score(
            run.folder.folder / file,
            result.to_dict(),
            [part.side_tables() for part in result.results.values()],
            notify,
            curves_document(result, name, make_bootstrap(settings)),
        )
    return result


def choose_clustering(run: Run, threshold: ClusteringChoice) -> Denoising:
    """The settings of the clustering that is meant; the run has an extraction of its own."""
    run.clips()
    if isinstance(threshold, WhichClustering):
        return find_latest_denoising(run)
    return resolve_denoising(run, threshold)


def load_denoised(
    run: Run, threshold: ClusteringChoice = LATEST, notify: Notify = quiet
) -> tuple[Denoised, Denoising]:
    """The descriptors that are meant, read or worked out, and their settings."""
    chosen = choose_clustering(run, threshold)
    denoised = read_clustering(run, chosen)
    if denoised is None:
        notify(f"no clustering at {chosen} is stored: working it out")
    if denoised is None or chosen.truth_path is not None:  # precision and recall are not stored
        denoised = denoise(run, chosen)
    return denoised, chosen
