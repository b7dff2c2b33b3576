"""InsightFace's verification sets: a pickle of (pictures, booleans), read without unpickling."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidface.core.errors import VidfaceError, reason
from vidface.core.files import named_errors
from vidface.datasets.inert_pickle import read_value
from vidface.datasets.pairs import PairSet
from vidface.datasets.pickled_arrays import PickledArray

N_FOLDS = 10


def read_insightface_bin(path: str | Path) -> PairSet:
    """An InsightFace verification set (lfw.bin, cfp_fp.bin, agedb_30.bin); nothing in it is run.

    The file is a pickle of (pictures, same), a tuple or a list: 2n encoded images, as byte strings,
    bytearrays or uint8 arrays, and n labels, as booleans, 0 and 1, NumPy's scalars of these or one
    array of them; pair k is the pictures 2k and 2k + 1. It gets 10 contiguous folds, as
    sklearn's KFold(10) without shuffling makes them and InsightFace scores them (n if n < 10).
    All pictures are held in memory, encoded, once.

    Raises:
        VidfaceError: not such a set: no pickle, one that asks for anything else, truncated, or its
            counts disagree, or fewer than 2 pairs. Read are protocols 0 to 5.

    Source: `load_bin` and the packers in github.com/deepinsight/insightface.
    """
    path = Path(path)
    try:
        with named_errors(path), path.open("rb") as file:
            pictures, same = _load(file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except ValueError as error:  # ours and pickletools'
        raise VidfaceError(
            f"{path}: {reason(error)}; not a verification set of InsightFace's, which is a pickle "
            "of 2n encoded images and n labels"
        ) from None
    n = len(same)
    k = np.arange(n)
    return PairSet(
        name=path.stem,
        first=2 * k,
        second=2 * k + 1,
        same=np.array(same, dtype=np.bool_),
        folds=_contiguous_folds(n, N_FOLDS),
        image_names=[f"picture {i} (from 0)" for i in range(2 * n)],
        read=pictures.__getitem__,
        sha256=sha256,
    )


def _contiguous_folds(n: int, n_folds: int) -> np.ndarray:
    """(n,) int64; the first n mod n_folds folds have one more; n folds if n < n_folds.

    >>> _contiguous_folds(8, 3)
    array([0, 0, 0, 1, 1, 1, 2, 2])
    """
    sizes = [len(part) for part in np.array_split(np.arange(n), n_folds)]
    return np.repeat(np.arange(n_folds), sizes)


def _load(file: BinaryIO) -> tuple[list[bytes], list[bool]]:
    """Raises ValueError for anything but a verification set."""
    value = read_value(file)
    if file.read(1):
        raise ValueError("goes on behind the end of the pickle")
    lists = (list, tuple)
    if type(value) not in lists or len(value) != 2 or type(value[0]) not in lists:
        raise ValueError("is not a tuple of two lists")
    items, labels = value
    if type(labels) is PickledArray:
        labels = labels.numbers().tolist()
    elif type(labels) not in lists:
        raise ValueError("is not a tuple of two lists")
    pictures = [_picture_bytes(item) for item in items]
    if not all(type(label) in (bool, int, float) and label in (0, 1) for label in labels):
        raise ValueError("its second list holds something else than booleans, or 0 and 1")
    same = [bool(label) for label in labels]
    if len(pictures) != 2 * len(same):
        raise ValueError(f"{len(pictures)} pictures for {len(same)} pairs")
    if len(same) < 2:
        raise ValueError(f"{len(same)} pair(s) where at least 2 are needed")
    return pictures, same


def _picture_bytes(item: Any) -> bytes:
    """An encoded picture, which cv2.imencode gives as an array of bytes of whatever shape."""
    if isinstance(item, PickledArray) and item.dtype == np.uint8 and item.data is not None:
        return item.data
    if not isinstance(item, bytes):
        raise ValueError("its first list holds something else than pictures")
    return item
