"""What a source of training faces is, and one made of picture files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.files import named_errors
from vidface.core.values import CROP_SIZE
from vidface.storage.images import decode_image
from vidface.training.sources.packed_names import PackedNames

MAX_IMAGE_BYTES = 2**24  # of a picture file; 112 x 112 pixels need 37 KiB unpacked
_NAMED = 3  # people that a message names


class FaceSource(Protocol):
    """Aligned faces of known people; n images of C people.

    identities: C names, sorted, none twice; a person's class number is the position.
    labels: (n,) int64, 0 … C − 1, each of them used.
    fingerprint: sha256 that changes with the people, the labels, the images' names and sizes; not
        with the place of the files.
    """

    @property
    def identities(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def image(self, index: int) -> NDArray[np.uint8]:
        """(112, 112, 3) uint8 RGB of image `index`, 0 … n − 1; VidfaceError if it cannot be."""

    def name(self, index: int) -> str:
        """Which image that is, for messages."""


@dataclass(frozen=True, eq=False)
class Pictures(ABC):
    """Picture files by number."""

    names: Sequence[str]  # (n,) for messages

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The bytes of a file; may raise OSError and VidfaceError."""


@dataclass(frozen=True, eq=False)
class PictureSource:
    """A `FaceSource` over picture files, decoded when asked for. Checked when made.

    Raises:
        VidfaceError: no image; a person without an image; names that are not sorted, stand twice or
            hold unprintable characters; labels of another type or beyond the people.
    """

    title: str  # what messages call it
    identities: tuple[str, ...]
    labels: NDArray[np.int64]  # (n,)
    fingerprint: str
    pictures: Pictures
    resize: bool = False
    note: str = ""  # what was left out

    def __post_init__(self) -> None:
        if self.labels.ndim != 1 or self.labels.dtype != np.int64:
            raise VidfaceError(
                f"{self.title}: labels must be (n,) int64, got {self.labels.shape} "
                f"{self.labels.dtype}"
            )
        if len(self.labels) == 0:
            raise VidfaceError(f"{self.title}: no image to train on")
        for name in self.identities:
            if not name.isprintable() or not name:
                raise VidfaceError(
                    f"{self.title}: {name[:200]!r} cannot be a person's name (empty, not UTF-8, or "
                    "with control characters); rename it"
                )
        for name, following in zip(self.identities, self.identities[1:], strict=False):
            if not name < following:
                raise VidfaceError(f"{self.title}: {following!r} must not stand behind {name!r}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.identities):
            raise VidfaceError(
                f"{self.title}: labels {self.labels.min()} … {self.labels.max()} where "
                f"{len(self.identities)} people have the numbers 0 … {len(self.identities) - 1}"
            )
        absent = np.flatnonzero(class_counts(self) == 0)
        if len(absent):
            names = ", ".join(repr(self.identities[c]) for c in absent[:_NAMED])
            more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
            raise VidfaceError(
                f"{self.title}: no image of {names}{more}; every person needs one at least"
            )
        object.__setattr__(self, "labels", read_only(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"PictureSource({self.title}: {describe_shapes(self)}{note})"

    def name(self, index: int) -> str:
        """Which image that is, for messages."""
        return f"{self.title}: {self.pictures.names[check_index(index, self, self.title)]}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """(112, 112, 3) uint8 RGB of image `index`, 0 … n − 1.

        Raises:
            VidfaceError: there is no such image; its file is gone, broken or of another size.
        """
        name = self.name(index)
        with named_errors(name):
            data = self.pictures.read(index)
        image = decode_image(data, name)
        height, width, _ = image.shape
        if (height, width) == (CROP_SIZE, CROP_SIZE):
            return image
        if not self.resize or height != width:
            wanted = "a square one" if self.resize else f"{CROP_SIZE}x{CROP_SIZE}"
            hint = "" if self.resize else ", or set resize = true for square ones"
            raise VidfaceError(
                f"{name}: {width}x{height} pixels, not {wanted}; align and crop the faces{hint}"
            )
        return _resize(image)


def _resize(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(s, s, 3) → (112, 112, 3); bicubic, what is made smaller is averaged."""
    from PIL import Image

    picture = Image.fromarray(image)
    return np.array(picture.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BICUBIC))


def open_pictures(
    title: str,
    people: Sequence[str],
    pictures: Pictures,
    sizes: NDArray[np.int64],
    resize: bool,
    note: str = "",
) -> PictureSource:
    """A source of n picture files that says who is in each.

    Args:
        people: (n,) names.
        sizes: (n,) bytes.
        note: what was left out.

    Raises:
        VidfaceError: a file that is too large, or what `PictureSource` refuses.
    """
    for index in np.flatnonzero(sizes > MAX_IMAGE_BYTES)[:1].tolist():
        check_size(f"{title}: {pictures.names[index]}", int(sizes[index]))
    identities, labels = number_people(people)
    fingerprint = compute_fingerprint(identities, labels, pictures.names, sizes)
    return PictureSource(title, identities, labels, fingerprint, pictures, resize, note)


def number_people(people: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Who is in each of n images → (the names, sorted), (n,) int64 class numbers.

    >>> number_people(["bob", "ann", "bob"])
    (('ann', 'bob'), array([1, 0, 1]))
    """
    identities = tuple(sorted(set(people)))
    number = {name: c for c, name in enumerate(identities)}
    return identities, np.array([number[name] for name in people], dtype=np.int64)


def compute_fingerprint(
    identities: Sequence[str],
    labels: NDArray[np.int64],
    names: Sequence[str],
    sizes: NDArray[np.int64],
) -> str:
    """sha256, as hex digits, over the people, the classes, the images' names and sizes in bytes."""
    digest = hashlib.sha256()
    for texts in (PackedNames(identities), PackedNames.of(names)):
        digest.update(len(texts).to_bytes(8, "little"))
        digest.update(texts.ends.astype("<i8").tobytes())
        digest.update(texts.data)
    for numbers in (labels, sizes):
        digest.update(numbers.astype("<i8").tobytes())
    return digest.hexdigest()


def check_size(name: str, size: int) -> None:
    """VidfaceError for a picture file of more than `MAX_IMAGE_BYTES`."""
    if size > MAX_IMAGE_BYTES:
        raise VidfaceError(
            f"{name}: {size:,} bytes; no aligned face has more than {MAX_IMAGE_BYTES:,}"
        )


def class_counts(source: FaceSource) -> NDArray[np.int64]:
    """(C,) int64: images of each person."""
    return np.bincount(source.labels, minlength=len(source.identities)).astype(np.int64)


def describe_shapes(source: FaceSource) -> str:
    n = len(source)
    return (
        f"{n:,} images ({CROP_SIZE}, {CROP_SIZE}, 3) uint8 RGB of {len(source.identities):,} "
        f"people, labels ({n},)"
    )


def check_index(index: int, source: FaceSource, title: str) -> int:
    if not 0 <= index < len(source):
        raise VidfaceError(f"{title}: image {index} of {len(source)}, counted from 0")
    return index


def read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    view = array.view()
    view.flags.writeable = False
    return view
