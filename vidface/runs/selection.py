"""The honest choice of a noise-removal threshold: made on some clips, reported on others.

A threshold that is chosen on the clips it is reported on looks better than it is; the paper's is
chosen so, on its test set. Here a `Plan` says where to choose and where to report: on two splits
(`plan_splits`), or on folds of one split's identities (`plan_folds`). It observes one `Denoised`
after the other, of which only scores stay, and chooses:

    plan = plan_splits(run.manifest, select_on="val", report_on="test", gallery="train")
    result = plan.choose([plan.observe(denoised) for denoised in denoise_all(run, thresholds)])

Nothing is clustered here, and a plan finds what is wrong with a request from the manifest alone.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from vidface.core.errors import VidfaceError
from vidface.core.thresholds import threshold_name
from vidface.metrics.conventions import DEFAULT_FARS
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.retrieval import score_retrieval
from vidface.metrics.verification import check_targets, score_verification
from vidface.runs.denoised import Denoised
from vidface.settings.manifests import Manifest

CRITERIA = ("map", "tar")
K = 100  # ranks that count for mAP

TIE = 1e-12
"""Criteria this close are tied: means of different precisions can be equal but for rounding."""


@dataclass(frozen=True)
class Clips:
    """Some clips in the order of their ids, so that the manifest's order can't change a figure."""

    ids: tuple[str, ...]
    who: tuple[str, ...]  # the identity of each; "" is a distractor

    @staticmethod
    def of(clips: Iterable[tuple[str, str]]) -> Clips:
        """From (clip_id, identity) in any order."""
        ordered = sorted(clips)
        return Clips(tuple(i for i, _ in ordered), tuple(who for _, who in ordered))

    def only(self, identities: Iterable[str]) -> Clips:
        """The clips of these identities."""
        wanted = set(identities)
        return Clips.of(pair for pair in zip(self.ids, self.who, strict=True) if pair[1] in wanted)

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """The identities, each once, in string order, without the distractors'."""
        return tuple(sorted(set(self.who) - {""}))

    @cached_property
    def pairs(self) -> tuple[int, int]:
        """Genuine and impostor pairs, as `score_verification` counts them."""
        sizes = Counter(self.who)
        distractors = sizes.pop("", 0)
        genuine = sum(math.comb(size, 2) for size in sizes.values())
        return genuine, math.comb(len(self.who), 2) - math.comb(distractors, 2) - genuine

    def resolves(self, far: Fraction) -> bool:
        """Whether there is a TAR at this FAR."""
        genuine, impostor = self.pairs
        return genuine > 0 and far * impostor >= 1


@dataclass(frozen=True)
class Round:
    """One choice: on the clips `select`, reported on the clips `report`."""

    select: Clips
    report: Clips
    name: str  # of `select`, for messages


@dataclass(frozen=True)
class Observation:
    """What a plan keeps of one threshold: scores, no descriptors."""

    threshold: float | None
    average_precision: Mapping[str, Mapping[str, float]]  # split: {identity: AP@100}
    select_tars: tuple[float | None, ...]  # of each round at the plan's target; empty for "map"
    report_points: tuple[tuple[OperatingPoint, ...], ...]  # [round][target]


@dataclass(frozen=True)
class RoundedTar:
    """TAR at one target FAR over the rounds: one of two splits, K of folds."""

    points: tuple[OperatingPoint, ...]  # of each round

    @property
    def target_far(self) -> str:
        """The target, as it was given."""
        return self.points[0].target_far

    @property
    def values(self) -> tuple[float, ...]:
        """The TARs of the rounds that resolve the target, each in [0, 1]."""
        return tuple(point.tar for point in self.points if point.tar is not None)

    @property
    def tar(self) -> float | None:
        """The mean over the rounds that resolve the target; None where none does."""
        return _mean(self.values)

    @property
    def standard_deviation(self) -> float | None:
        """Of the rounds that resolve the target (n − 1); None with fewer than two."""
        return _deviation(self.values)

    @property
    def note(self) -> str:
        """Why there is no figure, or how many folds it is the mean of where some have none."""
        n, resolved = len(self.points), len(self.values)
        if resolved:
            return "" if resolved == n else f"{resolved} of {n} folds"
        # That pairs are missing outdoes "no genuine pair": it tells how many it takes.
        return next((p.note for p in self.points if p.needs_impostor_pairs), self.points[0].note)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "tar": self.tar,
            "standard_deviation": self.standard_deviation,
            "resolved": len(self.values),
            "note": self.note,
            "rounds": [point.to_dict() for point in self.points],
        }


@dataclass(frozen=True)
class Row:
    """The figures of the reported clips, each round's under its threshold. All in [0, 1]."""

    label: str  # "honest", "optimistic" or "no clustering"
    thresholds: tuple[float | None, ...]  # of each round; None: no clustering
    map_at_k: float | None  # the mean over all reported identities
    round_maps: tuple[float | None, ...]  # the mean over each round's identities
    tars: tuple[RoundedTar, ...]  # in the order of the targets

    @property
    def map_standard_deviation(self) -> float | None:
        """Of `round_maps` (n − 1); None with one round or without a mAP."""
        return _deviation([value for value in self.round_maps if value is not None])

    def __str__(self) -> str:
        names = ", ".join(threshold_name(t) for t in dict.fromkeys(self.thresholds))
        figures = [f"mAP@{K} {_text(self.map_at_k)}"]
        for tar in self.tars:
            note = f" ({tar.note})" if tar.tar is not None and tar.note else ""
            figures.append(f"TAR@{tar.target_far} {_text(tar.tar, tar.note)}{note}")
        return f"{self.label}, threshold {names}: {', '.join(figures)}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "thresholds": list(self.thresholds),
            f"map_at_{K}": self.map_at_k,
            "map_standard_deviation": self.map_standard_deviation,
            "map_of_rounds": list(self.round_maps),
            "tar_at_far": {tar.target_far: tar.to_dict() for tar in self.tars},
        }


@dataclass(frozen=True)
class Selection:
    """A threshold chosen honestly, what it gives, and what it is to be compared with.

    `optimistic` is the one threshold that is best on the reported clips themselves, by the same
    criterion: how the paper chose. Over two splits no honest figure of the criterion exceeds it;
    over folds one can, for there each fold has a threshold of its own.
    """

    protocol: str  # "splits" or "folds"
    criterion: str  # "map" or "tar"
    criterion_far: str | None  # the target of "tar", where the threshold was chosen
    optimistic_far: str | None  # as that, unless no reported part resolves it
    select_on: str
    report_on: str
    gallery: str | None
    seed: int | None  # of the folds
    candidates: tuple[float | None, ...]  # rising, no clustering first
    criterion_values: tuple[float, ...]  # of each round, where its threshold was chosen
    map_note: str  # why there is no mAP; empty where there is one
    honest: Row
    optimistic: Row
    none: Row | None  # no clustering; None where it was not observed

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of a table."""
        return tuple(row for row in (self.honest, self.optimistic, self.none) if row is not None)

    def __str__(self) -> str:
        how = "mAP" if self.criterion_far is None else f"TAR@{self.criterion_far}"
        if self.protocol == "folds":
            n = len(self.honest.thresholds)
            where = f"over {n} folds of the identities of {self.report_on} (seed {self.seed})"
        else:
            where = f"on {self.select_on}, reported on {self.report_on}"
        return "\n".join([f"threshold chosen by {how} {where}", *map(str, self.rows)])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without NaN: None is no figure, or for a threshold no clustering."""
        return {
            "protocol": self.protocol,
            "criterion": self.criterion,
            "criterion_far": self.criterion_far,
            "optimistic_far": self.optimistic_far,
            "select_on": self.select_on,
            "report_on": self.report_on,
            "gallery": self.gallery,
            "folds": len(self.honest.thresholds) if self.protocol == "folds" else None,
            "seed": self.seed,
            "candidates": list(self.candidates),
            "criterion_values": list(self.criterion_values),
            "map_note": self.map_note,
            "honest": self.honest.to_dict(),
            "optimistic": self.optimistic.to_dict(),
            "no_clustering": None if self.none is None else self.none.to_dict(),
        }


@dataclass(frozen=True)
class Plan:
    """Where thresholds are chosen and where reported; made by `plan_splits` and `plan_folds`."""

    protocol: str
    select_on: str
    report_on: str
    gallery: str | None
    select_by: str
    fars: tuple[str, ...]
    splits: Mapping[str, Clips]  # all clips of the splits that take part
    rounds: tuple[Round, ...]
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.select_by == "map":
            self._check_map()
        else:
            self._targets  # noqa: B018 - raises where no target is resolved

    def __str__(self) -> str:
        where = f"{self.select_on} to {self.report_on}"
        if self.protocol == "folds":
            where = f"{len(self.rounds)} folds of {self.report_on}"
        return f"Plan({where}, by {self.select_by})"

    def _check_map(self) -> None:
        enrolled = set(self.splits[str(self.gallery)].identities)
        for one in self.rounds:
            if not enrolled.intersection(one.select.identities):
                raise VidfaceError(
                    f"{one.name} has no labelled clip whose identity is in the gallery "
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
        rising = sorted(check_targets(self.fars).items(), key=lambda item: item[1])
        for one in self.rounds:
            if not one.select.pairs[0]:
                raise VidfaceError(
                    f"{one.name} has no two clips of one person, so TAR can't choose; "
                    "name another split, or use --select-by map"
                )
        chosen = [text for text, far in rising if all(r.select.resolves(far) for r in self.rounds)]
        if not chosen:
            least = min(self.rounds, key=lambda one: one.select.pairs[1])
            raise VidfaceError(
                f"{least.name}: with {least.select.pairs[1]} impostor pairs none of the target "
                f"FARs ({', '.join(self.fars) or 'none given'}) has a figure; "
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
                f"{who} enough pairs for a TAR at any target FAR ({', '.join(self.fars)}); "
                f"name a higher FAR, {remedy}, or use --select-by map"
            )
        return chosen[0], chosen[0] if chosen[0] in reported else reported[0]

    @property
    def map_note(self) -> str:
        """Why the report has no mAP; empty where it has one."""
        if self.gallery is None:
            return "n/a: no gallery named"
        return f"n/a: {self.gallery} is its own gallery" if self.gallery == self.report_on else ""

    def observe(self, denoised: Denoised) -> Observation:
        """The scores of one threshold; what comes back is small and holds no descriptor.

        Args:
            denoised: every clip of the plan's splits, in any order. Not changed.

        Raises:
            VidfaceError: a clip of the manifest that isn't there, or descriptors that can't be
                scored.
        """
        place = {clip_id: row for row, clip_id in enumerate(denoised.clip_ids)}

        def rows(clips: Clips) -> np.ndarray:
            try:
                found = [place[clip_id] for clip_id in clips.ids]
            except KeyError as error:
                raise VidfaceError(
                    f"clip {error} of the manifest has no descriptor row at threshold "
                    f"{threshold_name(denoised.threshold)}; give the manifest it was made with"
                ) from None
            return np.asarray(denoised.descriptors[np.array(found, dtype=np.int64)])

        searched = [] if self.map_note else [self.report_on]
        if self.select_by == "map":
            searched = list(dict.fromkeys([self.select_on, *searched]))
        precisions = {}
        for split in searched:
            gallery, clips = self.splits[str(self.gallery)], self.splits[split]
            precisions[split] = score_retrieval(
                rows(gallery), gallery.who, rows(clips), clips.who, clips.ids, K
            ).average_precision

        def points(clips: Clips, fars: Sequence[str]) -> tuple[OperatingPoint, ...]:
            return score_verification(rows(clips), clips.who, fars).points

        select_tars: tuple[float | None, ...] = ()
        if self.select_by == "tar":
            far = self._targets[0]
            select_tars = tuple(points(one.select, (far,))[0].tar for one in self.rounds)
        cosine = denoised.threshold
        return Observation(
            threshold=None if cosine is None or cosine <= -1 else float(cosine),
            average_precision=precisions,
            select_tars=select_tars,
            report_points=tuple(points(one.report, self.fars) for one in self.rounds),
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

        found = [_best(rising, self._criterion(i)) for i in range(len(self.rounds))]
        n = len(self.rounds)

        def reported(one: Observation) -> float:
            row = self._row("", [one] * n)
            if self.select_by == "map":
                return _given(row.map_at_k)
            return _given(row.tars[self.fars.index(self._targets[1])].tar)

        optimistic, _ = _best(rising, reported)
        by_tar = self.select_by == "tar"
        return Selection(
            protocol=self.protocol,
            criterion=self.select_by,
            criterion_far=self._targets[0] if by_tar else None,
            optimistic_far=self._targets[1] if by_tar else None,
            select_on=self.select_on,
            report_on=self.report_on,
            gallery=self.gallery,
            seed=self.seed,
            candidates=candidates,
            criterion_values=tuple(value for _, value in found),
            map_note=self.map_note,
            honest=self._row("honest", [one for one, _ in found]),
            optimistic=self._row("optimistic", [optimistic] * n),
            none=self._row("no clustering", [rising[0]] * n) if candidates[0] is None else None,
        )

    def _criterion(self, i: int) -> Callable[[Observation], float]:
        """What round i makes as large as possible."""
        names = self.rounds[i].select.identities

        def value(one: Observation) -> float:
            if self.select_by == "tar":
                return _given(one.select_tars[i])
            precisions = one.average_precision[self.select_on]
            return _given(_mean([precisions[name] for name in names]))

        return value

    def _row(self, label: str, chosen: Sequence[Observation]) -> Row:
        """The figures where each round has its own observation."""
        precisions: list[list[float]] = []
        for one, observed in zip(self.rounds, chosen, strict=True):
            of_split = observed.average_precision.get(self.report_on, {})
            names = () if self.map_note else one.report.identities
            precisions.append([of_split[name] for name in names])
        by_target = zip(
            *(observed.report_points[i] for i, observed in enumerate(chosen)), strict=True
        )
        return Row(
            label=label,
            thresholds=tuple(observed.threshold for observed in chosen),
            map_at_k=_mean([value for part in precisions for value in part]),
            round_maps=tuple(_mean(part) for part in precisions),
            tars=tuple(RoundedTar(points) for points in by_target),
        )


def plan_splits(
    manifest: Manifest,
    select_on: str,
    report_on: str,
    gallery: str | None = None,
    select_by: str = "map",
    fars: Sequence[str] = DEFAULT_FARS,
) -> Plan:
    """Choose the threshold on one split, report it on another.

    The criterion is the select split's mAP@100 against the gallery ("map"), or its TAR at the
    lowest target FAR that it resolves, the same for all thresholds ("tar"). The report is the
    plain score of the other split. The clips differ; people may be in both.

    Args:
        manifest: all clips.
        select_on, report_on, gallery: splits. Without a gallery, or where the report split is its
            own, the report has no mAP, and only "tar" can choose.
        select_by: "map" or "tar".
        fars: target FARs as decimal text ("1e-4"), each in (0, 1].

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
    splits = _splits(manifest, wanted)
    if select_on == report_on:
        raise VidfaceError(
            f"--select-on and --report-on are both {select_on}, which would flatter the figures; "
            "name two splits, or use --folds on the one"
        )
    _check_criterion(select_by, gallery, {f: wanted[f] for f in ("--select-on", "--report-on")})
    one = Round(splits[select_on], splits[report_on], f"--select-on {select_on}")
    return Plan(
        "splits",
        select_on,
        report_on,
        gallery,
        select_by,
        tuple(check_targets(fars)),
        splits,
        rounds=(one,),
    )


def plan_folds(
    manifest: Manifest,
    split: str,
    gallery: str | None = None,
    select_by: str = "map",
    fars: Sequence[str] = DEFAULT_FARS,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Plan:
    """Choose on K − 1 folds of a split's identities, report the identities of the fold left out.

    `fold_identities` cuts the folds. For each, the threshold is the best on the others':

    - "map": the mean AP@100 of the other folds' identities. Each identity's AP is that of the
      plain score, on the ranking of the whole split, so figures compare with it; it follows that
      the clips of the fold left out are among the candidates when choosing, without their labels.
    - "tar": TAR over the pairs among the other folds' clips, at the lowest target FAR that each
      fold's others resolve, the same for all folds and thresholds.

    The reported mAP is the mean over all identities of the AP under their own fold's threshold;
    the means per fold and their standard deviation (K − 1) come with it. A reported TAR is the
    mean over the folds that resolve the target, each from the pairs among its own clips, so it
    isn't the plain score's, and has fewer pairs; the rows "optimistic" and "no clustering" are
    made in the same way, so they compare. Distractors belong to no fold: for mAP they are
    candidates of every ranking, for TAR they are left out.

    Args:
        manifest: all clips.
        split, gallery: as for `plan_splits`.
        select_by: "map" or "tar".
        fars: target FARs as decimal text ("1e-4"), each in (0, 1].
        folds: K, from 2 to the number of identities.
        seed: whole number from 0 on, of the shuffle.

    Raises:
        VidfaceError: as `plan_splits`, and for K or a seed out of range. For "map", the other
            folds of each fold must share an identity with the gallery.
    """
    splits = _splits(manifest, {"--split": split, "--gallery": gallery})
    _check_criterion(select_by, gallery, {"--split": split})
    clips = splits[split]
    parts = fold_identities(clips.identities, folds, seed)
    rounds = tuple(
        Round(
            clips.only(set(clips.identities).difference(part)),
            clips.only(part),
            f"--split {split} without fold {i} of {folds}",
        )
        for i, part in enumerate(parts, start=1)
    )
    return Plan(
        "folds", split, split, gallery, select_by, tuple(check_targets(fars)), splits, rounds, seed
    )


def fold_identities(
    identities: Iterable[str], folds: int = 5, seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """Cut identities into K folds whose sizes differ by at most one, the larger ones first.

    Sorted, then put in the order of numbers that Python's seeded generator draws for them, then
    cut: the same for any order of clips, and on any machine (`random.Random(seed).random()` is
    what Python promises not to change).

    Args:
        identities: names, in any order; "" (a distractor) and repeats are left out.
        folds: K, from 2 to the number of identities.
        seed: whole number from 0 on.

    Raises:
        VidfaceError: K or a seed out of range.

    >>> fold_identities(["ann", "bob", "cy", "", "ann"], folds=2, seed=0)
    (('cy', 'bob'), ('ann',))
    """
    names = sorted(set(identities) - {""})
    if not _is_whole(folds) or folds < 2:
        raise VidfaceError(
            f"--folds {folds}: it takes a whole number from 2 on, "
            "for a threshold is chosen on the folds beside the reported one"
        )
    if folds > len(names):
        raise VidfaceError(
            f"--folds {folds}: more than the {len(names)} identities to share out; "
            "name fewer folds or another split"
        )
    if not _is_whole(seed) or seed < 0:  # −1 would shuffle as 1 does
        raise VidfaceError(f"--seed {seed}: it takes a whole number from 0 on")
    generator = random.Random(seed)
    drawn = [generator.random() for _ in names]
    shuffled = [name for _, name in sorted(zip(drawn, names, strict=True))]
    size, longer = divmod(len(names), folds)
    starts = [i * size + min(i, longer) for i in range(folds + 1)]
    return tuple(tuple(shuffled[a:b]) for a, b in pairwise(starts))


def _splits(manifest: Manifest, wanted: Mapping[str, str | None]) -> dict[str, Clips]:
    """The clips of each split that is named, by flag."""
    found = {}
    for flag, split in wanted.items():
        if split is None:
            continue
        if split not in manifest.splits:
            there = ", ".join(manifest.splits)
            raise VidfaceError(f"{flag} {split}: no clip of the manifest is in it (there: {there})")
        found[split] = Clips.of((clip.clip_id, clip.identity) for clip in manifest.of_split(split))
    return found


def _check_criterion(
    select_by: str, gallery: str | None, searched: Mapping[str, str | None]
) -> None:
    if select_by not in CRITERIA:
        raise VidfaceError(f"--select-by {select_by}: there are {' and '.join(CRITERIA)}")
    if select_by == "tar":
        return
    remedy = "name another --gallery, or use --select-by tar, which needs no gallery"
    if gallery is None:
        raise VidfaceError(f"--select-by map has no gallery to enrol people from; {remedy}")
    for flag, split in searched.items():
        if split == gallery:
            raise VidfaceError(
                f"{flag} {split} is its own gallery: every clip would find itself; {remedy}"
            )


def _best(
    rising: Sequence[Observation], value: Callable[[Observation], float]
) -> tuple[Observation, float]:
    """The lowest threshold among the best, and its value."""
    values = [value(one) for one in rising]
    limit = max(values) - TIE
    first = next(i for i, v in enumerate(values) if v >= limit)
    return rising[first], values[first]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _given(value: float | None) -> float:
    """A figure that the plan's checks promise to be there."""
    if value is None:
        raise VidfaceError("the criterion has no figure; observe and choose with the same plan")
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(value: float | None, note: str = "n/a") -> str:
    return note if value is None else f"{value:.4f}"
