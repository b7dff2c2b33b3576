"""Repeats: the samples of a clip that show a picture again, as pauses, end cards and stills do."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidface.core.values import check_choice
from vidface.vectors.rows import check_embeddings, check_offsets, unit_rows

REPEATS = ("count", "once")
"""What the samples of one picture are to noise removal: a vote each, or one vote together."""

SAME_PICTURE_COSINE = 0.999
"""From this cosine on a face is the picture that a row shortly before it shows.

A still that an encoder made is hardly ever bit-equal: x264 makes 19 pictures of one that stays for
48 samples, x265 makes 11. With this cosine both are one picture; MPEG-2 and MPEG-4, whose
keyframes differ, make two; x264 and VP9 at 200 kbit/s, which refine a picture for seconds, 17 and
18. Of 1,522 pairs of neighbours in 60 clips of people who move none is above 0.9978, with three
recognisers.
"""

LOOK_BACK = 8
"""Rows: a frame may show several faces, and encoders alternate between a handful of pictures."""

_BLOCK_BYTES = 2**23


def find_repeats(
    embeddings: NDArray[np.floating[Any]], offsets: NDArray[np.integer[Any]]
) -> NDArray[np.int64]:
    """Find the pictures of each clip: which rows show a face in a picture that was there before.

    Two rows of a clip are one picture where their embeddings are equal bit for bit, or where they
    lie at most `LOOK_BACK` rows apart and their cosine is `SAME_PICTURE_COSINE` or more; and so on
    from row to row. An unusable row (NaN, infinite, zero) repeats nothing.

    Args:
        embeddings: (n_rows, d) floats, raw; the rows of a clip stand together in time order.
        offsets: (n_clips + 1,) integers; clip c owns rows [offsets[c], offsets[c + 1]).

    Returns:
        (n_rows,) the first row of each row's picture; its own where it is the first.

    >>> import numpy as np
    >>> faces = np.array([[1, 0], [0, 1], [1, 0.01], [0, 1]], dtype=np.float32)
    >>> find_repeats(faces, np.array([0, 3, 4]))
    array([0, 1, 0, 3])
    """
    embeddings = check_embeddings(embeddings)
    n_rows, d = embeddings.shape
    offsets = check_offsets(offsets, n_rows)
    clip_starts = np.repeat(offsets[:-1], np.diff(offsets))
    firsts = np.arange(n_rows)
    step = max(LOOK_BACK, _BLOCK_BYTES // (4 * max(1, d)))
    edges = [np.empty((2, 0), np.int64)]
    is_usable = np.zeros(n_rows, dtype=bool)
    for start in range(0, n_rows, step):
        first = max(0, start - LOOK_BACK)
        unit, usable = unit_rows(embeddings[first : start + step])
        is_usable[first : start + step] = usable
        for lag in range(1, min(LOOK_BACK + 1, len(unit))):
            cosines = np.einsum("ij,ij->i", unit[lag:], unit[:-lag])
            later = first + lag + np.flatnonzero(cosines >= np.float32(SAME_PICTURE_COSINE))
            later = later[later - lag >= clip_starts[later]]
            edges.append(np.stack([later - lag, later]))
    edges.append(_find_equal_rows(embeddings, clip_starts, is_usable))

    earlier, later = np.concatenate(edges, axis=1)
    while len(earlier):  # each row points to an earlier one of its picture, the first to itself
        low, high = np.sort([firsts[earlier], firsts[later]], axis=0)
        apart = low < high
        earlier, later = earlier[apart], later[apart]
        np.minimum.at(firsts, high[apart], low[apart])
        while not np.array_equal(shorter := firsts[firsts], firsts):
            firsts = shorter
    return firsts


def _find_equal_rows(
    embeddings: NDArray[np.floating[Any]],
    clip_starts: NDArray[np.int64],
    is_usable: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """(2, n) rows of a clip that are equal bit for bit: the first such row, and a later one."""
    n_rows, d = embeddings.shape
    # What begins differently is no candidate: of most clips nothing is left to compare.
    n_columns = min(d, 8 // embeddings.itemsize)
    heads = np.zeros((n_rows, 8 // embeddings.itemsize), embeddings.dtype)
    heads[:, :n_columns] = embeddings[:, :n_columns]
    keys = heads.view(np.uint64)[:, 0]
    order = np.lexsort((keys, clip_starts))
    alike = (keys[order[1:]] == keys[order[:-1]]) & (
        clip_starts[order[1:]] == clip_starts[order[:-1]]
    )
    is_candidate = np.zeros(n_rows, dtype=bool)
    is_candidate[order[1:][alike]] = is_candidate[order[:-1][alike]] = True
    first_of: dict[tuple[int, bytes], int] = {}
    pairs = []
    for row in np.flatnonzero(is_candidate & is_usable).tolist():
        first = first_of.setdefault((int(clip_starts[row]), embeddings[row].tobytes()), row)
        if first != row:
            pairs.append((first, row))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def check_repeats(repeats: str) -> None:
    """Refuse what is not one of `REPEATS`."""
    check_choice("repeats", repeats, tuple(REPEATS))


def share_of_still(
    firsts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    frames: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.float64]:
    """Find the share of each clip's frames that show the picture which comes most often.

    Args:
        firsts: (n_rows,) of `find_repeats`.
        offsets: (n_clips + 1,), as there.
        frames: (n_rows,) the frame that each row is of, rising in a clip; None: each of another.

    Returns:
        (n_clips,) in [0, 1]; 0 where no picture comes twice.

    >>> share_of_still(np.array([0, 1, 1, 1, 4]), np.array([0, 4, 5]))
    array([0.75, 0.  ])
    """
    n_samples = np.bincount(firsts, minlength=len(firsts))  # of the picture that begins in a row
    is_new_frame = np.ones(len(firsts), dtype=bool)
    if frames is not None:
        is_new_frame[1:] = frames[1:] != frames[:-1]
    shares = np.zeros(len(offsets) - 1)
    for clip, (start, stop) in enumerate(pairwise(offsets.tolist())):
        most = int(n_samples[start:stop].max(initial=0))
        if most > 1:
            n_frames = 1 + np.count_nonzero(is_new_frame[start + 1 : stop])
            shares[clip] = min(1.0, most / n_frames)
    return shares
