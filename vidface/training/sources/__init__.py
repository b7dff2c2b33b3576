"""Where training images come from: `open_source(kind, path)` for each of `KINDS`.

    folders    a folder, or an uncompressed tar, of person/image.jpg
    manifest   a clips manifest (data_manifests/README.md) whose clips are aligned images
    recordio   InsightFace's train.rec, train.idx, property (MS1M-RetinaFace), read without mxnet
    shards     tar shards as WebDataset writes them: key.jpg with key.cls or key.json

A source knows the people, the class of every image, and gives any image by its number. It can be
pickled and used by many threads and forked workers: files are opened where they are read.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.values import CROP_SIZE
from vidface.storage.images import decode_image

KINDS: dict[str, str] = {  # kind → the module whose `open_faces` opens it
    "folders": "vidface.training.sources.folders",
    "manifest": "vidface.training.sources.manifest",
    "recordio": "vidface.training.sources.recordio",
    "shards": "vidface.training.sources.shards",
}
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


def open_source(kind: str, path: str | Path, **settings: Any) -> FaceSource:
    """The images at `path`.

    Args:
        kind: one of `KINDS`.
        path: a folder, a tar, a manifest or a pattern, as the kind has it.
        settings: of the kind; all of them know `resize` (False: an image that is not 112x112 is
            an error; True: square ones of any size are resized).

    Raises:
        VidfaceError: unknown kind or setting; nothing there, or not what the kind asks for; no
            image, a person without an image.

    >>> open_source("folder", "faces")
    Traceback (most recent call last):
        ...
    vidface.core.errors.VidfaceError: source kind 'folder' is unknown (known: folders, manifest,
    recordio, shards)
    """
    if kind not in KINDS:
        raise VidfaceError(f"source kind {kind!r} is unknown (known: {', '.join(KINDS)})")
    opener = importlib.import_module(KINDS[kind]).open_faces
    known = [name for name in inspect.signature(opener).parameters if name != "path"]
    for name in settings:
        if name not in known:
            raise VidfaceError(
                f"source kind '{kind}' has no setting {name!r} (known: {', '.join(known)})"
            )
    if not isinstance(settings.get("resize", False), bool):
        raise VidfaceError(f"source setting resize = {settings['resize']!r}: give true or false")
    return opener(Path(path), **settings)


class Pictures(Protocol):
    """Picture files by number. `read` may raise OSError and VidfaceError."""

    def read(self, index: int) -> bytes: ...
    def name(self, index: int) -> str: ...


@dataclass(frozen=True, eq=False)
class Faces:
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
        for one, other in zip(self.identities, self.identities[1:], strict=False):
            if not one < other:
                raise VidfaceError(f"{self.title}: {other!r} must not stand behind {one!r}")
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
        object.__setattr__(self, "labels", _read_only(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"Faces({self.title}: {_shapes(self)}{note})"

    def name(self, index: int) -> str:
        """Which image that is, for messages."""
        return f"{self.title}: {self.pictures.name(_checked(index, self, self.title))}"

    def image(self, index: int) -> NDArray[np.uint8]:
        """(112, 112, 3) uint8 RGB of image `index`, 0 … n − 1.

        Raises:
            VidfaceError: there is no such image; its file is gone, broken or of another size.
        """
        name = self.name(index)
        try:
            data = self.pictures.read(index)
        except OSError as error:
            raise VidfaceError(f"{name}: {error.strerror or error}") from None
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
        return _resized(image)


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(s, s, 3) → (112, 112, 3); bicubic, what is made smaller is averaged."""
    from PIL import Image

    picture = Image.fromarray(image)
    return np.array(picture.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.BICUBIC))


@dataclass(frozen=True, eq=False)
class Subset:
    """Some images of a source, as a `FaceSource`; made by `subset`."""

    source: FaceSource
    indices: NDArray[np.int64]  # (n,) of the source, rising
    identities: tuple[str, ...]
    labels: NDArray[np.int64]  # (n,)
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)

    def __str__(self) -> str:
        return f"Subset({_shapes(self)}; of {self.source})"

    def name(self, index: int) -> str:
        """Which image that is, for messages."""
        return self.source.name(int(self.indices[_checked(index, self, "subset")]))

    def image(self, index: int) -> NDArray[np.uint8]:
        """(112, 112, 3) uint8 RGB; VidfaceError as the source has it."""
        return self.source.image(int(self.indices[_checked(index, self, "subset")]))


def subset(source: FaceSource, keep: NDArray[np.bool_]) -> Subset:
    """The images that `keep` says, (n,) bool; in the source's order.

    People without an image leave, the others are numbered anew. A subset of a subset is one of the
    first source.

    Raises:
        VidfaceError: keep has another shape or type, or keeps nothing.
    """
    n = len(source)
    if not isinstance(keep, np.ndarray) or keep.shape != (n,) or keep.dtype != np.bool_:
        found = f"{keep.shape} {keep.dtype}" if isinstance(keep, np.ndarray) else repr(type(keep))
        raise VidfaceError(f"subset: keep must be ({n},) bool, got {found}")
    if not keep.any():
        raise VidfaceError(f"subset: none of {n} images is kept")
    classes, labels = np.unique(source.labels[keep], return_inverse=True)
    indices = np.flatnonzero(keep).astype(np.int64)
    names = tuple(source.identities[c] for c in classes)
    whole: FaceSource = source
    if isinstance(source, Subset):
        whole, indices = source.source, source.indices[indices]
    digest = hashlib.sha256(f"subset {whole.fingerprint}".encode())
    digest.update(indices.astype("<i8").tobytes())
    numbers = _read_only(labels.astype(np.int64))
    return Subset(whole, _read_only(indices), names, numbers, digest.hexdigest())


def hold_out(source: FaceSource, people: int, seed: int) -> tuple[Subset, Subset]:
    """(train, held out): `people` of the C people, chosen by the seed, leave with all their images.

    Raises:
        VidfaceError: people is not in 1 … C − 1, or seed is negative.
    """
    n_people = len(source.identities)
    if not 1 <= people < n_people:
        raise VidfaceError(
            f"hold_out: {people} of {n_people} people; give a number from 1 to {n_people - 1}"
        )
    if seed < 0:
        raise VidfaceError(f"hold_out: seed {seed}; give a number from 0")
    leaves = np.zeros(n_people, dtype=np.bool_)
    leaves[np.random.default_rng([seed]).permutation(n_people)[:people]] = True
    held_out = leaves[source.labels]
    return subset(source, ~held_out), subset(source, held_out)


def class_counts(source: FaceSource) -> NDArray[np.int64]:
    """(C,) int64: images of each person."""
    return np.bincount(source.labels, minlength=len(source.identities)).astype(np.int64)


def _shapes(source: FaceSource) -> str:
    n = len(source)
    return (
        f"{n:,} images ({CROP_SIZE}, {CROP_SIZE}, 3) uint8 RGB of {len(source.identities):,} "
        f"people, labels ({n},)"
    )


def _checked(index: int, source: FaceSource, title: str) -> int:
    if not 0 <= index < len(source):
        raise VidfaceError(f"{title}: image {index} of {len(source)}, counted from 0")
    return index


def _read_only(array: NDArray[np.int64]) -> NDArray[np.int64]:
    view = array.view()
    view.flags.writeable = False
    return view


class PackedNames(Sequence[str]):
    """Millions of names in two buffers: small, and forked workers share them without copying.

    >>> names = PackedNames(["ann/1.jpg", "", "zoë"])
    >>> len(names), names[2], names[-3]
    (3, 'zoë', 'ann/1.jpg')
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self.data = b"".join(encoded)
        self.ends = np.cumsum([len(item) for item in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # an IndexError ends iteration
        start = int(self.ends[i - 1]) if i else 0
        return self.data[start : int(self.ends[i])].decode("utf-8", "surrogatepass")


def numbered(people: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Who is in each of n images → (the names, sorted), (n,) int64 class numbers.

    >>> numbered(["bob", "ann", "bob"])
    (('ann', 'bob'), array([1, 0, 1]))
    """
    identities = tuple(sorted(set(people)))
    number = {name: c for c, name in enumerate(identities)}
    return identities, np.array([number[name] for name in people], dtype=np.int64)


def fingerprint_of(
    identities: Sequence[str],
    labels: NDArray[np.int64],
    names: PackedNames,
    sizes: NDArray[np.int64],
) -> str:
    """sha256, as hex digits, over the people, the classes, the images' names and sizes in bytes."""
    digest = hashlib.sha256()
    for texts in (PackedNames(identities), names):
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
