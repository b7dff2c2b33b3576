"""The rules by which images are cut: `cut_images`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.noise.clusters import cluster_frames
from vidface.training.cleaning.identities import (
    CENTRES_AT_ONCE,
    MEMORY_BYTES,
    IdentityEmbeddings,
)
from vidface.training.cleaning.result import Cut
from vidface.training.cleaning.settings import SETTINGS_OF, CutSettings, Reason
from vidface.vectors.batches import run_on_device


def cut_images(
    embeddings: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    settings: CutSettings | None = None,
    *,
    quality: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    memory_bytes: int = MEMORY_BYTES,
    device: str | None = None,
) -> Cut:
    """Which images to train on, by what the current model makes of them.

    Centres are those of `IdentityEmbeddings.centres`, "cosine" is an image's to its own one. In
    this order, an image keeping the first reason that it gets:

    1. NO_DIRECTION: its embedding is NaN, infinite or zero. Always cut.
    2. LONG_TAIL: its identity has fewer than `min_images` images with a direction. Such identities
       take part in nothing that follows: the centre of one or two images is no witness.
    3. QUALITY: a measure is below its `quality_quantile` (of all images then left; NaN counts as
       below) and the cosine below `quality_cosine`. Blur alone does no harm.
    4. WRONG_LABEL: the cosine is below `own_cosine`, that to another identity's centre is not, and
       is the larger by at least `other_margin`. (Far from both says nothing about the other.)
    5. OTHER_DOMAIN: the image is in a coherent minority. Of an identity's images then left,
       single linkage joins those with a cosine above `domain_link` (`vidface.cluster_frames`); a
       cluster of `domain_images` or more, yet fewer than half, is cut where its own centre (the
       normalised mean) has a cosine below `domain_cosine` to the identity's, but not below
       `stranger_cosine`.
    6. WRONG_LABEL: the cosine is below `stranger_cosine`, whoever it shows.
    7. SURPLUS: its identity still has more than `max_images`. Kept are those at evenly spaced
       ranks of the cosine, the highest among them: the easy ones get no preference.
    8. LONG_TAIL: its identity has fewer than `min_images` left.

    Args:
        embeddings: (n, d) floats, any norm; may be a memory map. Not changed.
        labels: (n,) whole numbers ≥ 0.
        settings: what to cut; None for the defaults.
        quality: measures by name, (n,) each, higher is better: `sharpness`, `contrast`, the norms
            of raw embeddings, … Without them nothing is cut for its quality.
        memory_bytes: for the blocks that embeddings are worked on in. Beside it there are the
            centres, a few numbers an image, and the embeddings of the largest identity.
        device: None for NumPy; else PyTorch's name of where the nearest centres are looked for.

    Raises:
        VidfaceError: shapes or labels that do not fit, no images, or nothing is left: it says
            which settings were too strict.

    Source: Chai et al., "A Progressive Learning Framework for Unconstrained Face Recognition",
    section 4.2 and Figure 5, which name the kinds and no rule.

    >>> degrees = np.radians([0, 2, 4, 6, 85, 90, 92, 94, 96])
    >>> faces = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    >>> people = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> cut = cut_images(faces, people, CutSettings(min_images=3))
    >>> print(cut)
    Cut(8 of 9 images, 2 of 2 identities kept; 1 wrong_label cut)
    >>> cut.reason
    array([0, 0, 0, 0, 3, 0, 0, 0, 0], dtype=int8)
    """
    settings = CutSettings() if settings is None else settings
    people = IdentityEmbeddings(embeddings, labels, memory_bytes)
    measures = _check_quality(quality or {}, len(people.identities))
    work = _Cutting(people, settings, np.where(people.usable, Reason.KEPT, Reason.NO_DIRECTION))
    work.cut_long_tail()
    centres = people.centres(work.left)
    own = people.own_cosines(centres, work.left)
    other, other_cosine = _find_nearest_others(
        people, centres, _find_doubtful(own, settings), device
    )
    work.cut_quality(own, measures)
    work.cut_wrong_labels(own, other_cosine)
    work.cut_other_domains(own, centres)
    work.cut_strangers(own)
    work.cut_surplus(own)
    work.cut_long_tail()
    if not work.left.any():
        raise _explain_nothing_left(work.reason, settings)
    return Cut(
        people.labels[people.identities],
        work.reason.astype(np.int8),
        own,
        np.where(other < 0, -1, people.labels[other]),
        other_cosine,
    )


class _Cutting:
    """Images losing their place one rule after the other.

    Thresholds are float32 as the cosines are: equal stays equal.
    """

    def __init__(
        self,
        people: IdentityEmbeddings,
        settings: CutSettings,
        reason: NDArray[np.signedinteger[Any]],
    ) -> None:
        self.people, self.settings, self.reason = people, settings, reason

    @property
    def left(self) -> NDArray[np.bool_]:
        return self.reason == Reason.KEPT

    @property
    def sizes(self) -> NDArray[np.int64]:
        people = self.people
        return np.bincount(people.identities[self.left], minlength=people.n_identities)

    def cut(self, which: NDArray[np.bool_], reason: Reason) -> None:
        self.reason[which & self.left] = reason

    def cut_long_tail(self) -> None:
        if self.settings.min_images is not None:
            few = self.sizes < self.settings.min_images
            self.cut(few[self.people.identities], Reason.LONG_TAIL)

    def cut_quality(
        self, own: NDArray[np.float32], measures: Mapping[str, NDArray[np.float64]]
    ) -> None:
        quantile, left = self.settings.quality_quantile, self.left
        if quantile is None:
            return
        for measure in measures.values():
            poor = np.isnan(measure)
            known = measure[left & ~poor]
            if len(known):
                poor |= measure < np.quantile(known, quantile, method="higher")
            self.cut(poor & (own < np.float32(self.settings.quality_cosine)), Reason.QUALITY)

    def cut_wrong_labels(self, own: NDArray[np.float32], other_cosine: NDArray[np.float32]) -> None:
        if self.settings.own_cosine is not None:
            least = np.float32(self.settings.own_cosine)
            nearer = other_cosine - own >= np.float32(self.settings.other_margin)  # False for NaN
            self.cut((own < least) & (other_cosine >= least) & nearer, Reason.WRONG_LABEL)

    def cut_strangers(self, own: NDArray[np.float32]) -> None:
        if self.settings.stranger_cosine is not None:
            self.cut(own < np.float32(self.settings.stranger_cosine), Reason.WRONG_LABEL)

    def cut_other_domains(self, own: NDArray[np.float32], centres: NDArray[np.float32]) -> None:
        settings, people = self.settings, self.people
        if settings.domain_images is None:
            return
        # A cluster's centre is below the cosine only where one of its images is, too.
        far = own < np.float32(settings.domain_cosine)
        doubtful = np.bincount(people.identities[far & self.left], minlength=people.n_identities)
        rows = people.order[(self.left & (doubtful > 0)[people.identities])[people.order]]
        for some in _whole_identities(rows, people.identities, people.block_rows):
            self._cut_domains_of(some, centres)

    def _cut_domains_of(self, rows: NDArray[np.int64], centres: NDArray[np.float32]) -> None:
        settings, people = self.settings, self.people
        starts = np.flatnonzero(np.diff(people.identities[rows], prepend=-1))
        offsets = np.append(starts, len(rows))
        clusters = cluster_frames(people.unit(rows), offsets, settings.domain_link)
        sizes = np.repeat(np.diff(offsets), np.diff(offsets))
        owners = np.repeat(np.arange(len(starts)), np.diff(offsets))
        by_cluster = np.lexsort((clusters, owners))
        new = np.diff(owners[by_cluster], prepend=-1) | np.diff(clusters[by_cluster], prepend=-1)
        groups = np.cumsum(new != 0) - 1
        counts = np.bincount(groups)
        members = rows[by_cluster]
        firsts = np.flatnonzero(new)
        means = people.means(members, groups, len(counts))
        own = centres[people.identities[members[firsts]]]
        cosines = np.einsum("ij,ij->i", means, own)
        domain = (counts >= (settings.domain_images or 0)) & (
            2 * counts < sizes[by_cluster[firsts]]
        )
        domain &= cosines < np.float32(settings.domain_cosine)
        if settings.stranger_cosine is not None:
            domain &= cosines >= np.float32(settings.stranger_cosine)
        self.reason[members[domain[groups]]] = Reason.OTHER_DOMAIN

    def cut_surplus(self, own: NDArray[np.float32]) -> None:
        most, people = self.settings.max_images, self.people
        if most is None:
            return
        rows = np.flatnonzero(self.left)
        rows = rows[np.lexsort((rows, -own[rows], people.identities[rows]))]
        sizes = self.sizes
        ranks = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        n = np.repeat(sizes, sizes)
        # Rank r of n is kept where r·most/n reaches a new whole number: `most` of them, or all.
        kept = ranks * most // n != (ranks * most - most) // n
        self.reason[rows[~kept]] = Reason.SURPLUS


def _whole_identities(
    rows: NDArray[np.int64], identities: NDArray[np.int64], most: int
) -> Iterator[NDArray[np.int64]]:
    """Rows in pieces of about `most`, no identity in two of them."""
    starts = np.flatnonzero(np.diff(identities[rows], prepend=-1))
    ends = np.append(starts[1:], len(rows))
    begin = 0
    while begin < len(rows):
        fit = int(np.searchsorted(ends, begin + most, side="right")) - 1
        end = int(ends[max(fit, int(np.searchsorted(starts, begin)))])
        yield rows[begin:end]
        begin = end


def _find_doubtful(own: NDArray[np.float32], settings: CutSettings) -> NDArray[np.bool_]:
    """Images whose nearest other identity decides, or is worth a look in the log."""
    cosines = [settings.own_cosine, settings.stranger_cosine]
    if settings.quality_quantile is not None:
        cosines.append(settings.quality_cosine)
    if settings.domain_images is not None:
        cosines.append(settings.domain_cosine)
    return own < np.float32(max((c for c in cosines if c is not None), default=-np.inf))


def _find_nearest_others(
    people: IdentityEmbeddings,
    centres: NDArray[np.float32],
    which: NDArray[np.bool_],
    device: str | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(n,) the identity, not the own, with the nearest centre (−1: none), (n,) the cosine.

    A block of images at a time against a block of centres; the first of equal ones is taken.
    """
    other = np.full(len(which), -1, np.int64)
    cosine = np.full(len(which), np.nan, np.float32)
    candidates = np.flatnonzero(centres.any(axis=1))
    columns = centres[candidates]
    places = np.full(people.n_identities, -1, np.int64)
    places[candidates] = np.arange(len(candidates))
    for rows in people.blocks(np.flatnonzero(which)):
        best = np.full(len(rows), -np.inf, np.float32)
        nearest = np.full(len(rows), -1, np.int64)
        unit, own = people.unit(rows), places[people.identities[rows]]
        numbers = np.arange(len(rows))
        for start in range(0, len(candidates), CENTRES_AT_ONCE):
            block = columns[start : start + CENTRES_AT_ONCE]
            place, value = run_on_device(
                device, _find_best_of_block, unit, block, own - start, numbers
            )
            better = value > best
            best[better], nearest[better] = value[better], place[better] + start
        known = nearest >= 0
        other[rows[known]], cosine[rows[known]] = candidates[nearest[known]], best[known]
    return other, cosine


def _find_best_of_block(unit: Any, block: Any, own: Any, numbers: Any) -> tuple[Any, Any]:
    """(b,) the place of the nearest centre but the own, (b,) its cosine: NumPy's or PyTorch's."""
    products = unit @ block.T
    inside = numbers[(own >= 0) & (own < len(block))]
    products[inside, own[inside]] = -np.inf
    places = products.argmax(1)
    return places, products[numbers, places]


def _explain_nothing_left(
    reasons: NDArray[np.signedinteger[Any]], settings: CutSettings
) -> VidfaceError:
    counts = np.bincount(reasons, minlength=len(Reason))
    if counts[Reason.NO_DIRECTION] == len(reasons):
        return VidfaceError("no embedding has a direction: all are NaN, infinite or zero")
    parts = []
    for reason in sorted(SETTINGS_OF, key=lambda r: -counts[r]):
        if counts[reason]:
            names = [n for n in SETTINGS_OF[reason] if getattr(settings, n) is not None]
            values = ", ".join(f"{name} {getattr(settings, name)}" for name in names)
            parts.append(f"{counts[reason]} as {reason.name.lower()} ({values})")
    return VidfaceError(
        f"all {len(reasons)} images would be cut, {', '.join(parts)}; "
        "the first of these is too strict"
    )


def _check_quality(
    quality: Mapping[str, NDArray[np.floating[Any]]], n: int
) -> dict[str, NDArray[np.float64]]:
    measures = {}
    for name, values in quality.items():
        array = np.asarray(values)
        if array.shape != (n,) or array.dtype.kind not in "fiu":
            raise VidfaceError(
                f"quality '{name}' must be ({n},) numbers, one an image, "
                f"got the shape {array.shape} of {array.dtype}"
            )
        measures[name] = array.astype(np.float64)
    return measures
