"""One descriptor a template: the mean over each medium, summed over media (IJB's rule)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.vectors.descriptors import check_descriptors
from vidface.vectors.directions import VANISHING_MEAN
from vidface.vectors.rows import unit_rows_float64

if TYPE_CHECKING:
    from vidface.datasets.templates import TemplateList

_BLOCK_BYTES = 2**26
_SHOWN = 5  # paths in a message


@dataclass(frozen=True, eq=False)
class PooledTemplates:
    """One descriptor a template, and what it was made of. Checked when made."""

    template_ids: tuple[str, ...]
    descriptors: NDArray[np.float32]  # (n_templates, d), rows of norm 1 or 0
    media: NDArray[np.int64]  # (n_templates,) media that had a descriptor, so were summed
    missing_images: NDArray[np.int64]  # (n_templates,) images without a descriptor

    def __post_init__(self) -> None:
        n = len(self.template_ids)
        if np.ndim(self.descriptors) != 2 or len(self.descriptors) != n:
            raise VidfaceError(
                f"pooled templates: descriptors must be ({n}, d), got {np.shape(self.descriptors)}"
            )
        for name in ("media", "missing_images"):
            if np.shape(getattr(self, name)) != (n,):
                raise VidfaceError(
                    f"pooled templates: {name} must be ({n},), got {np.shape(getattr(self, name))}"
                )

    def __str__(self) -> str:
        return (
            f"PooledTemplates(descriptors {self.descriptors.shape} float32, "
            f"{self.n_failed} without direction; {int(self.media.sum())} media pooled, "
            f"{int(self.missing_images.sum())} images missing)"
        )

    @property
    def n_failed(self) -> int:
        """Templates without a descriptor, failures to acquire; they stay in every denominator."""
        return int(np.count_nonzero(~self.descriptors.any(axis=1)))


def pool_templates(
    descriptors: NDArray[np.floating[Any]], clip_ids: Sequence[str], templates: TemplateList
) -> PooledTemplates:
    """One descriptor a template: ``f = s / |s|``, ``s = Σ_media mean_images(e / |e|)``.

    The images of one medium, such as the frames of a video, are averaged first, so a long video
    weighs no more than a photograph. Media means are summed as they are, not normalised: a medium
    whose frames disagree weighs less. Sums are float64.

    An image without a descriptor (a zero row) contributes nothing, as if it weren't listed; nor
    does a medium of none but such. A template with nothing has the zero row, and so has one whose
    media cancel (``|s|`` below 1e-6 of their number).

    Args:
        descriptors: (n_clips, d) floats, rows of norm 1 or 0: one an image or frame. Not changed.
        clip_ids: n_clips names of the rows, distinct: the paths of `templates`
            (`vidface.challenges.ijb.templates_clips` makes them so). More are allowed.
        templates: which images make up which template.

    Returns:
        The descriptors in the order of `templates.template_ids`, and counts. Beyond the result,
        memory is twice the result and some 100 MiB.

    Raises:
        VidfaceError: rows that are not of norm 1 or 0, clip ids that don't fit them or are not
            distinct, or a path that is no clip.

    Source: image2template_feature of InsightFace's IJB evaluation, with its features normalised a
    picture ("N0 D0"). By default that script keeps the raw embeddings' norms, and multiplies by
    the detector's score ("N1 D1"), so its published figures weigh clear faces more; it orders
    templates by number, and a template without a direction is NaN there.

    >>> import numpy as np
    >>> from vidface.datasets.templates import TemplateList
    >>> faces = np.array([[1, 0], [0, 1], [0, 1], [0, 0]], dtype=np.float32)
    >>> rows = np.array([0, 0, 0, 1])  # template "t": a photograph, and a video of two frames
    >>> listed = TemplateList(("t", "u"), rows, ("m", "v", "v", "m"), ("a", "b", "c", "d"))
    >>> pooled = pool_templates(faces, ["a", "b", "c", "d"], listed)
    >>> pooled.descriptors
    array([[0.70710677, 0.70710677],
           [0.        , 0.        ]], dtype=float32)
    >>> print(pooled)
    PooledTemplates(descriptors (2, 2) float32, 1 without direction; 2 media pooled, 1 images
    missing)
    """
    array, has_direction = check_descriptors(descriptors)
    images = _rows_of(templates.paths, clip_ids, len(array))
    n_templates = len(templates.template_ids)
    template_of, usable = templates.rows, has_direction[images]
    missing = np.bincount(template_of[~usable], minlength=n_templates)

    media = _media(templates)
    images_of_medium = np.bincount(media[usable], minlength=int(media.max()) + 1)
    template_of_medium = np.empty(len(images_of_medium), dtype=np.int64)
    template_of_medium[media] = template_of
    media_counts = np.bincount(template_of_medium[images_of_medium > 0], minlength=n_templates)

    # A sum of means is a sum over images, each by one over the images of its medium.
    kept = np.flatnonzero(usable)
    kept = kept[np.argsort(template_of[kept], kind="stable")]
    sums = np.zeros((n_templates, array.shape[1]), dtype=np.float64)
    rows_per_block = max(1, _BLOCK_BYTES // (24 * array.shape[1] + 1))
    for start in range(0, len(kept), rows_per_block):
        block = kept[start : start + rows_per_block]
        unit, _ = unit_rows_float64(array[images[block]])
        unit /= images_of_medium[media[block], None]
        owners, firsts = np.unique(template_of[block], return_index=True)
        sums[owners] += np.add.reduceat(unit, firsts, axis=0)  # a template may span blocks
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    clear = (norms >= VANISHING_MEAN * media_counts) & (media_counts > 0)
    sums[~clear] = 0
    sums /= np.where(clear, norms, 1)[:, None]
    return PooledTemplates(templates.template_ids, sums.astype(np.float32), media_counts, missing)


def _rows_of(paths: Sequence[str], clip_ids: Sequence[str], n: int) -> NDArray[np.int64]:
    """(n_images,) the descriptor of each path."""
    if len(clip_ids) != n:
        raise VidfaceError(f"{len(clip_ids)} clip ids for {n} descriptors; give one a row")
    index = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    if len(index) != n:
        twice = next(clip_id for row, clip_id in enumerate(clip_ids) if index[clip_id] != row)
        raise VidfaceError(f"clip id {twice[:80]!r} stands twice; an image must be one clip")
    rows = [index.get(path, -1) for path in paths]
    absent = list(dict.fromkeys(p for p, row in zip(paths, rows, strict=True) if row < 0))
    if absent:
        some = ", ".join(repr(path[:80]) for path in absent[:_SHOWN])
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        raise VidfaceError(
            f"{len(absent)} path(s) of the templates have no clip: {some}{more}; clip ids must be "
            "the paths: `vidface import ijb` writes a manifest of them"
        )
    return np.array(rows, dtype=np.int64)


def _media(templates: TemplateList) -> NDArray[np.int64]:
    """(n_images,) number of each image's medium; one of another template is another medium."""
    numbers: dict[tuple[int, str], int] = {}
    keys = zip(templates.rows.tolist(), templates.media_ids, strict=True)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
