"""Verification: of two clips, is it the same person? TAR at FAR, EER and AUC over all pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidface.core.progress import CountProgress
from vidface.executor.shards import Executor
from vidface.metrics.bands import Draws
from vidface.metrics.conventions import CONVENTIONS, DEFAULT_FARS
from vidface.metrics.curves import verification_block
from vidface.metrics.figures import (
    NamedFigure,
    ProtocolResult,
    TextTable,
    describe_points,
    describe_shortage,
)
from vidface.metrics.inputs import check_dimensions, identity_codes
from vidface.metrics.listed_pairs import ListedPairs, count_listed, list_pairs
from vidface.metrics.operating_points import OperatingPoint, check_targets
from vidface.metrics.pair_sets import Pairs, make_pairs
from vidface.metrics.pairwise import GENUINE_LIMIT
from vidface.metrics.passes import MEMORY_BYTES, Passes
from vidface.metrics.rates import Rates, count_for
from vidface.metrics.resampled_pairs import Resampled, resample
from vidface.metrics.roc import BoundedFigure, Curve
from vidface.metrics.uncertainty import Bootstrap, Replicates
from vidface.vectors.descriptors import check_descriptors

Kind = TypeVar("Kind", bound="Verification")

TOO_MANY_GENUINE = f"more than {GENUINE_LIMIT} genuine pairs, which are not kept"
"""Why there is no interval, nor an exact AUC, of a split with so many."""


@dataclass(frozen=True)
class Verification(ProtocolResult):
    """All operating points of a split, in the order of the targets, and what was counted."""

    prefix: ClassVar[str] = ""  # of the names of figures and tables
    in_short: ClassVar[bool] = True  # whether its figures are among the few main ones

    points: tuple[OperatingPoint, ...]
    genuine_pairs: int
    impostor_pairs: int
    distractor_pairs_left_out: int
    eer: BoundedFigure | None = None  # None without a genuine or an impostor pair
    auc: BoundedFigure | None = None
    convention: str = "step"
    curve: Curve | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return (
            f"Verification({len(self.points)} targets, {self.genuine_pairs} genuine and "
            f"{self.impostor_pairs} impostor pairs)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: {"tar_at_far": {target: point}, "eer", "auc", "pairs": counts}."""
        return {
            "convention": self.convention,
            "convention_means": CONVENTIONS[self.convention],
            "tar_at_far": {point.target_far: point.to_dict() for point in self.points},
            "eer": None if self.eer is None else self.eer.to_dict(),
            "auc": None if self.auc is None else self.auc.to_dict(),
            "pairs": {
                "genuine": self.genuine_pairs,
                "impostor": self.impostor_pairs,
                "distractor_left_out": self.distractor_pairs_left_out,
            },
        }

    def figures(self) -> list[NamedFigure]:
        """TAR at each target, EER and AUC."""
        figures = [
            NamedFigure(
                f"{self.prefix}tar_at_far.{point.target_far}",
                f"TAR@FAR {point.target_far}",
                point.tar,
                point.replicates,
                point.note,
                is_main=self.in_short,
                column=f"TAR@{point.target_far}",
            )
            for point in self.points
        ]
        for name, figure in (("eer", self.eer), ("auc", self.auc)):
            if figure is not None:
                name_, label = self.prefix + name, name.upper()
                figures.append(
                    NamedFigure(name_, label, figure.value, figure.replicates, is_main=False)
                )
        return figures

    def describe(self, split: str, gallery: str | None) -> list[str | TextTable]:
        """The table of operating points, EER and AUC, and the counts of pairs."""
        parts = describe_points("TAR", "FAR", self.points, "impostor pairs")
        if self.eer is not None and self.auc is not None:
            parts.append(f"EER {self.eer.describe()}  AUC {self.auc.describe()}")
        pairs = f"{self.genuine_pairs} genuine and {self.impostor_pairs} impostor pairs"
        if self.distractor_pairs_left_out:
            pairs += f"; {self.distractor_pairs_left_out} pairs of two distractors left out"
        if self.convention != "step":
            pairs += "\nnearest: TAR at the ROC point whose FAR is nearest, "
            pairs += "as common scripts read it"
        return [*parts, pairs]

    def shortages(self) -> list[str]:
        """The FARs that these pairs are too few for."""
        return describe_shortage("FAR", self.points, "impostor pairs")

    def curves(self, draws: Draws) -> dict[str, Any] | None:
        """ROC, DET and histograms; no band is drawn of them."""
        return verification_block(self)

    def side_tables(self) -> dict[str, list[Sequence[Any]]]:
        """The whole ROC."""
        return {} if self.curve is None else {f"{self.prefix}roc": self.curve.rows()}


@dataclass(frozen=True)
class CrossVerification(Verification):
    """As `Verification`, of the pairs of a gallery clip and a probe clip."""

    prefix: ClassVar[str] = "cross_"
    in_short: ClassVar[bool] = False

    def describe(self, split: str, gallery: str | None) -> list[str | TextTable]:
        heading = f"every {gallery} clip with every {split} clip"
        return [heading, *super().describe(split, gallery)]


def score_verification(
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    fars: Sequence[str] = DEFAULT_FARS,
    *,
    convention: str = "step",
    exact: bool = False,
    bootstrap: Bootstrap | None = None,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: CountProgress | None = None,
    executor: Executor | None = None,
) -> Verification:
    """TAR at FAR, EER and AUC over all unordered pairs of clips.

    A pair's score is the inner product of its rows in float32, clipped to [−1, 1]. A clip without
    a descriptor (zero row) scores exactly −1 against every other and stays in the denominators. A
    pair is genuine where both clips have the same identity, impostor otherwise; a distractor
    (identity "") against a labelled clip is an impostor pair; two distractors are left out, for
    they may be one person, and are counted.

    A pair is accepted where ``score >= threshold``. Thresholds are observed scores, or nothing is
    accepted (threshold None, TAR 0, FAR 0). The figure for a target is

        TAR = max over thresholds t with FAR(t) <= target of |genuine, score >= t| / |genuine|,

    the target taken as the exact fraction of its text, so that ``floor(target × |impostor|)``
    false accepts are allowed. Of the thresholds that reach it, the lowest observed score that
    honours the target is reported: the loosest. Common scripts differ: they read TAR at the ROC
    point whose FAR is *nearest* to the target, which may exceed it: convention="nearest" does as
    they do, on the points that scikit-learn's `roc_curve` leaves; of two equally near ones the one
    with the higher FAR, of equal FARs the highest TAR. A target with fewer than 1/FAR impostor
    pairs has no figure (`OperatingPoint.needs_impostor_pairs`).

        EER = (FAR + FRR) / 2 at the threshold with the smallest |FAR − FRR|, of two the higher
        AUC = P(genuine > impostor) + ½ P(genuine = impostor)

    Exact to the last tie for FARs up to 1e-3, in one pass over blocks of the matrix and in bounded
    memory (`vidface.metrics.pairwise` says how). EER, AUC and higher FARs of a split with more than
    some four million impostor pairs are read off the pass's histogram of 65,536 bins (8,192 on an
    accelerator): then they are at bin edges, and `bounds` say what the exact figure can be; a TAR
    so read is at a FAR within the target, and the lower bound. `exact` goes over the pairs again
    and works them out, too. Exact means: for the products as float32 gives them. A product rounds
    by the shape of its block, so for another `memory_bytes`, device or order of clips a score may
    move by about 1e-6, and with it the pairs that lie so close to a threshold.

    Args:
        descriptors: (n_clips, d) float32 rows of norm 1 (within 1e-3; scored as they are), or all
            zero for a clip without a descriptor. Not changed.
        identities: n_clips names; "" is a distractor.
        fars: target FARs as decimal text ("1e-4"), each in (0, 1].
        convention: a name of `CONVENTIONS`.
        exact: work everything out exactly, in further passes; only the AUC of a split with more
            than 67 million genuine pairs, which are not kept, stays with bounds (and without an
            interval, as all its figures).
        bootstrap: resamples of the people, for 95 % intervals (`vidface.metrics.uncertainty`).
        memory_bytes: bound for blocks of scores, beside one sorted copy of the descriptors and the
            kept scores: 12 bytes for each of about 1.5 · max(65,536, 1e-3 · |impostor|) pairs (of a
            small split all, up to four million; where the floor was guessed too low at most twice
            that for each worker), and 8 bytes a genuine pair. An accelerator uses blocks of 1 GiB.
        device: None for NumPy on all cores, or a torch device ("cuda").
        progress: called with the numbers of pairs as they are counted.
        executor: Dask's, to count on the workers of a cluster, each within `memory_bytes` beside
            the descriptors; None, and any other: this process, on all cores.

    Raises:
        VidfaceError: shapes that disagree, rows neither of norm 1 nor zero, NaN, a bad target.

    Source: the Lightweight Face Recognition Challenge, track 3 (TAR at FAR 1e-4 over all pairs of
    videos). How its server treats ties is not public; the step rule above is this project's.

    >>> import numpy as np
    >>> clips = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], dtype=np.float32)
    >>> result = score_verification(clips, ["ann", "ann", "bob", ""], fars=["0.2", "0.1"])
    >>> result.genuine_pairs, result.impostor_pairs  # ann–ann scores 0.8
    (1, 5)
    >>> result.points[0].tar, result.points[0].accepted_impostor  # 0.96, then 0.8 twice
    (0.0, 1)
    >>> result.points[1].tar, result.points[1].note
    (None, 'n/a: needs ≥ 10 pairs')
    """
    targets = check_targets(fars, convention)
    descriptors, has_direction = check_descriptors(descriptors)
    codes = identity_codes(identities, len(descriptors), "identities")
    pairs = make_pairs(descriptors, has_direction, codes, int(codes.max(initial=-1)) + 1)
    passes = Passes(pairs, memory_bytes, device, progress, executor)

    def count() -> Rates:
        return Rates(count_for(passes, targets), pairs, passes, exact)

    return _work_out(Verification, pairs, count, targets, convention, bootstrap)


def score_cross_verification(
    gallery_descriptors: NDArray[np.floating[Any]],
    gallery_identities: Sequence[str],
    descriptors: NDArray[np.floating[Any]],
    identities: Sequence[str],
    fars: Sequence[str] = DEFAULT_FARS,
    *,
    convention: str = "step",
    exact: bool = False,
    bootstrap: Bootstrap | None = None,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
    progress: CountProgress | None = None,
    executor: Executor | None = None,
) -> CrossVerification:
    """TAR at FAR, EER and AUC over all pairs of a gallery clip and a probe clip.

    As `score_verification`, but for the pairs: each clip of the one set with each of the other, as
    the image track of the Lightweight Face Recognition Challenge pairs them (at FAR 1e-8). No pair
    is within a set. A distractor of either set is an impostor to the labelled clips of the other.

    >>> import numpy as np
    >>> gallery = np.array([[1, 0], [0, 1]], dtype=np.float32)
    >>> probes = np.array([[0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=np.float32)
    >>> result = score_cross_verification(
    ...     gallery, ["ann", "bob"], probes, ["ann", "", "bob"], fars=["0.25"]
    ... )
    >>> result.genuine_pairs, result.impostor_pairs  # genuine 0.8 and 1, impostor 0.8 at best
    (2, 4)
    >>> result.points[0].tar, result.points[0].accepted_impostor
    (1.0, 1)
    """
    targets = check_targets(fars, convention)
    gallery, gallery_directed = check_descriptors(gallery_descriptors, "gallery_descriptors")
    probes, directed = check_descriptors(descriptors)
    check_dimensions(gallery, probes, "probes")
    identity_codes(gallery_identities, len(gallery), "gallery_identities")
    identity_codes(identities, len(probes), "identities")
    codes = identity_codes(
        [*gallery_identities, *identities], len(gallery) + len(probes), "identities"
    )
    gallery_codes, probe_codes = np.split(codes, [len(gallery)])
    second = (probes, directed, probe_codes)
    n_identities = int(codes.max(initial=-1)) + 1
    pairs = make_pairs(gallery, gallery_directed, gallery_codes, n_identities, second)
    passes = Passes(pairs, memory_bytes, device, progress, executor)

    def count() -> Rates:
        return Rates(count_for(passes, targets), pairs, passes, exact)

    return _work_out(CrossVerification, pairs, count, targets, convention, bootstrap)


def score_pair_list(
    descriptors: NDArray[np.floating[Any]],
    first: ArrayLike,
    second: ArrayLike,
    same: ArrayLike,
    fars: Sequence[str] = DEFAULT_FARS,
    *,
    identities: Sequence[str] | None = None,
    convention: str = "step",
    bootstrap: Bootstrap | None = None,
) -> Verification:
    """TAR at FAR, EER and AUC over the pairs of a list, such as IJB's or YouTube Faces'.

    As `score_verification`, and always exact. Whether a pair is genuine is what the list says. With
    `identities` these are what the bootstrap draws; without, and for those that are "", each row is
    a unit of its own, which makes the intervals too narrow where a person has several.

    Args:
        descriptors: (n, d) float32 rows of norm 1, or zero for a clip or template without one.
        first, second: (n_pairs,) row numbers.
        same: (n_pairs,) bool.
        identities: n names, as far as they are known.

    >>> import numpy as np
    >>> rows = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    >>> result = score_pair_list(rows, [0, 1, 0], [1, 2, 2], [True, False, False], ["0.5"])
    >>> result.points[0].tar, result.points[0].threshold, result.auc.value
    (1.0, 0.6000000238418579, 1.0)
    """
    targets = check_targets(fars, convention)
    rows, has_direction = check_descriptors(descriptors)
    names = [""] * len(rows) if identities is None else identities
    codes = identity_codes(names, len(rows), "identities")
    listed = list_pairs(codes, first, second, same)

    def count() -> Rates:
        return Rates(count_listed(rows, has_direction, listed), listed)

    return _work_out(Verification, listed, count, targets, convention, bootstrap)


def _work_out(
    kind: type[Kind],
    source: Pairs | ListedPairs,
    count: Callable[[], Rates],
    targets: Mapping[str, Fraction],
    convention: str,
    bootstrap: Bootstrap | None,
) -> Kind:
    """All figures of the pairs of a source, with their replicates; counted where there are any."""
    pairs = source.genuine, source.impostor, source.left_out
    if not (source.genuine and source.impostor):
        unresolved = [
            OperatingPoint.unresolved(text, far, source.genuine, source.impostor)
            for text, far in targets.items()
        ]
        return kind(tuple(unresolved), *pairs, convention=convention)
    rates = count()
    points = rates.points(targets, convention)
    eer, auc = rates.eer(), rates.auc()
    if bootstrap is not None:
        if rates.counts.genuine_complete:
            resampled = resample(rates, targets, points, convention, bootstrap)
        else:
            none = Replicates(np.full(bootstrap.resamples, np.nan), TOO_MANY_GENUINE)
            resampled = Resampled(dict.fromkeys(targets, none), none, none)
        points = [
            p if p.tar is None else replace(p, replicates=resampled.tar[p.target_far])
            for p in points
        ]
        eer = replace(eer, replicates=resampled.eer)
        auc = replace(auc, replicates=resampled.auc)
    return kind(tuple(points), *pairs, eer, auc, convention, rates.curve())
