"""The honest choice of a noise-removal threshold: made on some clips, reported on others.

A threshold that is chosen on the clips it is reported on looks better than it is; the paper's is
chosen so, on its test set. Here a `SelectionPlan` says where to choose and where to report: on two
splits (`plan_splits`), or on folds of one split's identities (`plan_folds`). It observes one
`Denoised` after the other, of which only scores stay, and chooses:

    plan = plan_splits(run.manifest, select_on="val", report_on="test", gallery="train")
    result = plan.choose([plan.observe(denoised) for denoised in denoise_all(run, thresholds)])

Nothing is clustered here, and a plan finds what is wrong with a request from the manifest alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.thresholds import threshold_name
from vidface.executor.shards import Executor
from vidface.metrics.operating_points import OperatingPoint, check_targets
from vidface.metrics.protocols.base import ScoringTask
from vidface.metrics.protocols.retrieval import RetrievalProtocol
from vidface.metrics.protocols.verification import VerificationProtocol
from vidface.metrics.settings import ScoreSettings
from vidface.runs.denoised import Denoised
from vidface.runs.score_tasks import NO_CLIPS, LabelledClips, clips_of_split, make_task
from vidface.runs.selection_criterion import Criterion
from vidface.runs.selection_results import Selection, SelectionRow, TarOverRounds, mean_of
from vidface.runs.selection_rounds import SelectionRound, fold_identities
from vidface.settings.manifests import Manifest

TIE = 1e-12
"""Criteria this close are tied: means of different precisions can be equal but for rounding."""


@dataclass(frozen=True)
class Observation:
    """What a plan keeps of one threshold: scores, no descriptors."""

    threshold: float | None
    average_precision: Mapping[str, Mapping[str, float]]  # split: {identity: AP@k}
    select_tars: tuple[float | None, ...]  # of each round at the plan's target; empty for "map"
    report_points: tuple[tuple[OperatingPoint, ...], ...]  # [round][target]


@dataclass(frozen=True)
class SelectionPlan:
    """Where thresholds are chosen and where reported; made by `plan_splits` and `plan_folds`."""

    protocol: str
    select_on: str
    report_on: str
    gallery: str | None
    criterion: Criterion
    settings: ScoreSettings  # of all figures
    splits: Mapping[str, LabelledClips]  # all clips of the splits that take part
    rounds: tuple[SelectionRound, ...]
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.criterion.figure == "map":
            self._check_map()
        else:
            self._targets  # noqa: B018 - raises where no target is resolved

    def __str__(self) -> str:
        where = f"{self.select_on} to {self.report_on}"
        if self.protocol == "folds":
            where = f"{len(self.rounds)} folds of {self.report_on}"
        return f"SelectionPlan({where}, by {self.criterion.figure})"

    def _check_map(self) -> None:
        enrolled = set(self.splits[str(self.gallery)].identities)
        for part in self.rounds:
            if not enrolled.intersection(part.select.identities):
                raise VidfaceError(
                    f"{part.name} has no labelled clip whose identity is in the gallery "
                    f"{self.gallery}, so mAP can't choose; name another --gallery, "
                    "or use --select-by tar, which needs none"
                )
        if not enrolled.intersection(self.splits[self.report_on].identities):
            raise VidfaceError(
                f"--report-on {self.report_on} has no labelled clip whose identity is in the "
                f"gallery {self.gallery}: its mAP is 0 whatever the threshold; "
                "name another --gallery, or use --select-by tar, which needs none"
            )

    @cached_property
    def _targets(self) -> tuple[str, str]:
        """The FAR at which "tar" chooses, and at which it finds the optimistic threshold."""
        fars = self.fars if self.criterion.far is None else (self.criterion.far,)
        rising = sorted(check_targets(fars).items(), key=lambda item: item[1])
        for part in self.rounds:
            if not part.select.pairs[0]:
                raise VidfaceError(
                    f"{part.name} has no two clips of one person, so TAR can't choose; "
                    "name another split, or use --select-by map"
                )
        chosen = [text for text, far in rising if all(r.select.resolves(far) for r in self.rounds)]
        if not chosen:
            least = min(self.rounds, key=lambda part: part.select.pairs[1])
            raise VidfaceError(
                f"{least.name}: with {least.select.pairs[1]} impostor pairs none of the target "
                f"FARs ({', '.join(fars)}) has a figure; "
                "name a higher FAR, or use --select-by map"
            )
        reported = [
            text for text, far in rising if any(r.report.resolves(far) for r in self.rounds)
        ]
        if not reported:
            if self.protocol == "folds":
                who, remedy = f"no fold of --split {self.report_on} has", "fewer --folds"
            else:
                who, remedy = f"--report-on {self.report_on} has not", "another split"
            raise VidfaceError(
                f"{who} enough pairs for a TAR at any target FAR ({', '.join(fars)}); "
                f"name a higher FAR, {remedy}, or use --select-by map"
            )
        return chosen[0], chosen[0] if chosen[0] in reported else reported[0]

    @property
    def fars(self) -> tuple[str, ...]:
        """The target FARs: exact decimal texts."""
        return self.settings.protocol(VerificationProtocol).far_list

    @property
    def criterion_note(self) -> str:
        """Which of several targets chooses; empty where there is one, or it was named."""
        if self.criterion.figure == "map" or self.criterion.far is not None:
            return ""
        return (
            f"chosen at FAR {self._targets[0]}, the lowest of {', '.join(self.fars)} that all "
            "clips chosen on resolve; --select-by tar@FAR names another"
        )

    @property
    def map_note(self) -> str:
        """Why the report has no mAP; empty where it has one."""
        if self.gallery is None:
            return "n/a: no gallery named"
        return f"n/a: {self.gallery} is its own gallery" if self.gallery == self.report_on else ""

    def observe(self, denoised: Denoised, executor: Executor | None = None) -> Observation:
        """The scores of one threshold; what comes back is small and holds no descriptor.

        Args:
            denoised: every clip of the plan's splits, in any order. Not changed.
            executor: as for scores.

        Raises:
            VidfaceError: a clip of the manifest that isn't there, or descriptors that can't be
                scored.
        """

        def task(clips: LabelledClips, gallery: LabelledClips = NO_CLIPS) -> ScoringTask:
            return make_task(denoised, clips, gallery, self.settings, executor=executor)

        retrieval = self.settings.protocol(RetrievalProtocol)
        verification = self.settings.protocol(VerificationProtocol)
        searched = [] if self.map_note else [self.report_on]
        if self.criterion.figure == "map":
            searched = list(dict.fromkeys([self.select_on, *searched]))
        precisions = {
            split: retrieval.score(
                task(self.splits[split], self.splits[str(self.gallery)])
            ).average_precision
            for split in searched
        }
        select_tars: tuple[float | None, ...] = ()
        if self.criterion.figure == "tar":
            at_target = replace(verification, fars=self._targets[0])
            select_tars = tuple(
                at_target.score(task(part.select)).points[0].tar for part in self.rounds
            )
        cosine = denoised.threshold
        return Observation(
            threshold=None if cosine is None or cosine <= -1 else float(cosine),
            average_precision=precisions,
            select_tars=select_tars,
            report_points=tuple(
                verification.score(task(part.report)).points for part in self.rounds
            ),
        )

    def choose(self, observations: Sequence[Observation]) -> Selection:
        """The best threshold where it is selected, and its figures where it is reported.

        Of thresholds whose criterion ties (to 1e-12), the lowest: it drops the fewest faces. No
        clustering is a candidate like any other, and the lowest.

        Args:
            observations: one a threshold, in any order, made by this plan.

        Raises:
            VidfaceError: no observation, or two of one threshold.
        """
        if not observations:
            raise VidfaceError("there is no threshold to choose from; name some in --thresholds")
        rising = sorted(
            observations, key=lambda o: -math.inf if o.threshold is None else o.threshold
        )
        candidates = tuple(o.threshold for o in rising)
        for low, high in pairwise(candidates):
            if low == high:
                raise VidfaceError(f"threshold {threshold_name(low)} is listed twice")

        best = [_find_best(rising, self._criterion(i)) for i in range(len(self.rounds))]
        n = len(self.rounds)

        def report(observation: Observation) -> float:
            row = self._make_row("", [observation] * n)
            if self.criterion.figure == "map":
                return _require_figure(row.map_at_k)
            return _require_figure(row.tars[self.fars.index(self._targets[1])].tar)

        optimistic, _ = _find_best(rising, report)
        by_tar = self.criterion.figure == "tar"
        return Selection(
            protocol=self.protocol,
            criterion=self.criterion.figure,
            criterion_far=self._targets[0] if by_tar else None,
            optimistic_far=self._targets[1] if by_tar else None,
            select_on=self.select_on,
            report_on=self.report_on,
            gallery=self.gallery,
            seed=self.seed,
            candidates=candidates,
            criterion_values=tuple(value for _, value in best),
            criterion_note=self.criterion_note,
            map_note=self.map_note,
            honest=self._make_row("honest", [observation for observation, _ in best]),
            optimistic=self._make_row("optimistic", [optimistic] * n),
            none=self._make_row("no clustering", [rising[0]] * n)
            if candidates[0] is None
            else None,
        )

    def _criterion(self, i: int) -> Callable[[Observation], float]:
        """What round i makes as large as possible."""
        names = self.rounds[i].select.identities

        def value(observation: Observation) -> float:
            if self.criterion.figure == "tar":
                return _require_figure(observation.select_tars[i])
            precisions = observation.average_precision[self.select_on]
            return _require_figure(mean_of([precisions[name] for name in names]))

        return value

    def _make_row(self, label: str, chosen: Sequence[Observation]) -> SelectionRow:
        """The figures where each round has its own observation."""
        precisions: list[list[float]] = []
        for part, observed in zip(self.rounds, chosen, strict=True):
            of_split = observed.average_precision.get(self.report_on, {})
            names = () if self.map_note else part.report.identities
            precisions.append([of_split[name] for name in names])
        by_target = zip(
            *(observed.report_points[i] for i, observed in enumerate(chosen)), strict=True
        )
        return SelectionRow(
            label=label,
            thresholds=tuple(observed.threshold for observed in chosen),
            map_at_k=mean_of([value for part in precisions for value in part]),
            round_maps=tuple(mean_of(part) for part in precisions),
            tars=tuple(TarOverRounds(points) for points in by_target),
            k=self.settings.protocol(RetrievalProtocol).k,
        )


def plan_splits(
    manifest: Manifest,
    select_on: str,
    report_on: str,
    gallery: str | None = None,
    select_by: str = "map",
    settings: ScoreSettings | None = None,
) -> SelectionPlan:
    """Choose the threshold on one split, report it on another.

    The criterion is the select split's mAP@k against the gallery ("map"), or its TAR: at the FAR
    that is named ("tar@1e-4"), or else ("tar") at the settings' only target, or the lowest of them
    that it resolves; the same for all thresholds. The report is the plain score of the other split.
    The clips differ; people may be in both.

    Args:
        manifest: all clips.
        select_on, report_on, gallery: splits. Without a gallery, or where the report split is its
            own, the report has no mAP, and only "tar" can choose.
        select_by: "map", "tar" or "tar@FAR".
        settings: of all figures, as for scores (default: the usual ones); none is resampled.

    Raises:
        VidfaceError: a split without a clip; select_on is report_on; for "map" a split that is its
            own gallery or shares no identity with it; for "tar" a split without a genuine pair or
            with too few pairs for any target.

    >>> import numpy as np
    >>> from pathlib import Path
    >>> from vidface.settings.manifests import Clip
    >>> clips = [("g", "ann", "gallery"), ("v", "ann", "val"), ("t", "ann", "test")]
    >>> manifest = Manifest(tuple(Clip(i, i, who, s) for i, who, s in clips), Path(), Path(), "")
    >>> plan = plan_splits(manifest, select_on="val", report_on="test", gallery="gallery")
    >>> def at(threshold, v, t):  # whether v and t have a descriptor
    ...     rows, n = np.array([[1], [v], [t]], dtype=np.float32), np.zeros(3, dtype=np.int64)
    ...     return Denoised(threshold, ("g", "v", "t"), ("ok",) * 3, n, n, n, n, n, rows)
    >>> result = plan.choose([plan.observe(d) for d in (at(None, 0, 1), at(0.3, 1, 0))])
    >>> result.honest.thresholds, result.honest.map_at_k
    ((0.3,), 0.0)
    >>> result.optimistic.thresholds, result.optimistic.map_at_k
    ((None,), 1.0)
    """
    wanted = {"--select-on": select_on, "--report-on": report_on, "--gallery": gallery}
    splits = _find_splits(manifest, wanted)
    if select_on == report_on:
        raise UsageError(
            f"--select-on and --report-on are both {select_on}, which would flatter the figures; "
            "name two splits, or use --folds on the one"
        )
    settings = settings or ScoreSettings()
    criterion = Criterion.of(select_by, settings)
    criterion.check_gallery(gallery, {f: wanted[f] for f in ("--select-on", "--report-on")})
    part = SelectionRound(splits[select_on], splits[report_on], f"--select-on {select_on}")
    return SelectionPlan(
        "splits",
        select_on,
        report_on,
        gallery,
        criterion,
        criterion.add_target(settings),
        splits,
        rounds=(part,),
    )


def plan_folds(
    manifest: Manifest,
    split: str,
    gallery: str | None = None,
    select_by: str = "map",
    settings: ScoreSettings | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> SelectionPlan:
    """Choose on K − 1 folds of a split's identities, report the identities of the fold left out.

    `fold_identities` cuts the folds. For each, the threshold is the best on the others':

    - "map": the mean AP@k of the other folds' identities. Each identity's AP is that of the
      plain score, on the ranking of the whole split, so figures compare with it; it follows that
      the clips of the fold left out are among the candidates when choosing, without their labels.
    - "tar": TAR over the pairs among the other folds' clips, at a FAR found as in `plan_splits`
      that each fold's others resolve, the same for all folds and thresholds.

    The reported mAP is the mean over all identities of the AP under their own fold's threshold;
    the means per fold and their standard deviation (K − 1) come with it. A reported TAR is the
    mean over the folds that resolve the target, each from the pairs among its own clips, so it
    isn't the plain score's, and has fewer pairs; the rows "optimistic" and "no clustering" are
    made in the same way, so they compare. Distractors belong to no fold: for mAP they are
    candidates of every ranking, for TAR they are left out.

    Args:
        manifest: all clips.
        split, gallery: as for `plan_splits`.
        select_by: "map", "tar" or "tar@FAR".
        settings: of all figures, as for scores (default: the usual ones); none is resampled.
        folds: K, from 2 to the number of identities.
        seed: whole number from 0 on, of the shuffle.

    Raises:
        VidfaceError: as `plan_splits`, and for K or a seed out of range. For "map", the other
            folds of each fold must share an identity with the gallery.
    """
    splits = _find_splits(manifest, {"--split": split, "--gallery": gallery})
    settings = settings or ScoreSettings()
    criterion = Criterion.of(select_by, settings)
    criterion.check_gallery(gallery, {"--split": split})
    clips = splits[split]
    parts = fold_identities(clips.identities, folds, seed)
    rounds = tuple(
        SelectionRound(
            clips.keep_identities(set(clips.identities).difference(part)),
            clips.keep_identities(part),
            f"--split {split} without fold {i} of {folds}",
        )
        for i, part in enumerate(parts, start=1)
    )
    settings = criterion.add_target(settings)
    return SelectionPlan("folds", split, split, gallery, criterion, settings, splits, rounds, seed)


def _find_splits(manifest: Manifest, wanted: Mapping[str, str | None]) -> dict[str, LabelledClips]:
    """The clips of each split that is named, by flag."""
    splits = {}
    for flag, split in wanted.items():
        if split is None:
            continue
        if split not in manifest.splits:
            there = ", ".join(manifest.splits)
            raise UsageError(f"{flag} {split}: no clip of the manifest is in it (there: {there})")
        splits[split] = clips_of_split(manifest, split)
    return splits


def _find_best(
    rising: Sequence[Observation], value: Callable[[Observation], float]
) -> tuple[Observation, float]:
    """The lowest threshold among the best, and its value."""
    values = [value(observation) for observation in rising]
    limit = max(values) - TIE
    first = next(i for i, v in enumerate(values) if v >= limit)
    return rising[first], values[first]


def _require_figure(value: float | None) -> float:
    """A figure that the plan's checks promise to be there."""
    if value is None:
        raise VidfaceError("the criterion has no figure; observe and choose with the same plan")
    return value
