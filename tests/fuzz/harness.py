"""Gives a parser mutated files, and says what became of each.

Every input is refused with a VidfaceError or accepted. Anything else is a finding: another
exception, a MemoryError, more than `SECONDS` for one input, a file changed outside of the input's
folder, a process or a connection that was begun.

An input reached the parser's depth if it was accepted, or refused elsewhere than junk is: there the
first check ends. `python -m tests.fuzz NAME --only 17` runs one input again, and shows its error.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import vidface
from tests.fuzz.mutations import mutate
from vidface.core.errors import VidfaceError

SECONDS = 5.0  # for one input
_PACKAGE = f"{Path(vidface.__file__).parent}/"
_JUNK = (b"", b"\0" * 64, b"\xff\xfejunk\n", b"%PDF-1.7 \x80")
_TOUCHING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link",
             "os.symlink", "shutil.rmtree")  # fmt: skip
_LEAVING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")

Place = tuple[tuple[str, int], ...]  # the lines of vidface on the way to a refusal


@dataclass(frozen=True)
class Target:
    """A parser and its files.

    make: writes the files into a folder.
    shapes: pattern of a file's name → how it is mutated (`mutations.SHAPES`).
    parse: is given the file that was mutated; the others lie beside it as they were made.
    least: the share of inputs that have to reach its depth.
    """

    room: str
    make: Callable[[Path], None]
    shapes: dict[str, str]
    parse: Callable[[Path], Any]
    least: float = 0.5


@dataclass
class Outcome:
    """What became of a target's inputs."""

    name: str
    inputs: int = 0
    accepted: int = 0
    deep: int = 0  # refused behind the first check
    places: Counter[Place] = field(default_factory=Counter)  # where inputs were refused
    findings: dict[str, int] = field(default_factory=dict)  # what went wrong → the first such input
    seconds: float = 0.0

    @property
    def reached(self) -> float:
        """The share of inputs that reached the parser's depth."""
        return (self.accepted + self.deep) / max(1, self.inputs)

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.inputs} inputs, {self.reached:.0%} reached its depth "
            f"({self.accepted} accepted, {self.deep} refused there, {len(self.places)} places), "
            f"{len(self.findings)} findings, {self.seconds:.1f} s"
        )


class _TooLongError(BaseException):
    """The time for an input is over; no parser's `except Exception` may swallow it."""


class _Watch:
    """Notes what parsers do to the system; an audit hook can't be taken away, so it is one."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.deeds: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in _LEAVING:
            self.deeds.append(event)
        elif event in _TOUCHING or (event == "open" and _writes(arguments)):
            place = str(arguments[0])
            if not place.startswith((self.folder, "/dev/null")):
                self.deeds.append(f"{event} outside of its folder")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode = arguments[1]
    return isinstance(mode, str) and any(letter in mode for letter in "wax+")


_watch: list[_Watch] = []


@contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    """What is done meanwhile; `_TooLongError` after the time for an input."""

    def stop(number: int, frame: object) -> None:
        raise _TooLongError

    if not _watch:
        _watch.append(_Watch())
    watch = _watch[0]
    watch.folder, watch.deeds = str(folder), []
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield watch.deeds
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        watch.folder = None


def run_target(
    name: str,
    target: Target,
    inputs: range,
    *,
    note: Callable[[int], None] = lambda number: None,
    show: bool = False,
) -> Outcome:
    """Try a target's inputs by number; the same number is the same input.

    Args:
        note: is told each number before it is tried, for when the process dies of it.
        show: print the error of each input.
    """
    outcome = Outcome(name)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        target.make(place)
        made = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        files = sorted((p, s) for pattern, s in target.shapes.items() for p in place.glob(pattern))
        seeds = {path: made[path] for path, _ in files}
        for path, content in seeds.items():  # a seed that is refused tests nothing
            _parse(target, path, content)
        shallow: set[Place] = set()
        for path in seeds:
            refusals = (_where(target, path, junk) for junk in _JUNK)
            shallow.update(where for where in refusals if where is not None)
        _restore(place, made)
        for number in inputs:
            note(number)
            draw = Random(f"{name}/{number}")
            path, shape = draw.choice(files)
            content = mutate(draw, seeds[path], shape)
            _try(outcome, target, path, content, number, shallow, show)
            _restore(place, made)
    outcome.seconds = time.monotonic() - started
    return outcome


def _restore(folder: Path, made: Mapping[Path, bytes]) -> None:
    """Let a folder hold what it held: an input is the same whichever came before it."""
    for path in folder.rglob("*"):
        if path.is_file() and path not in made:
            path.unlink()
    for path, content in made.items():
        if (
            not path.is_file()
            or path.stat().st_size != len(content)
            or path.read_bytes() != content
        ):
            path.write_bytes(content)


def _parse(target: Target, path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    with _watched(path.parent) as deeds:
        target.parse(path)
    return deeds


def _where(target: Target, path: Path, content: bytes) -> Place | None:
    """Where a content is refused; None where it isn't."""
    try:
        _parse(target, path, content)
    except VidfaceError as error:
        return _place(error)
    except (Exception, _TooLongError):
        return None  # the inputs proper will find it
    return None


def _try(
    outcome: Outcome,
    target: Target,
    path: Path,
    content: bytes,
    number: int,
    shallow: set[Place],
    show: bool,
) -> None:
    outcome.inputs += 1
    finding, deeds = "", []
    try:
        deeds = _parse(target, path, content)
        outcome.accepted += 1
    except VidfaceError as error:
        where = _place(error)
        outcome.places[where] += 1
        outcome.deep += where not in shallow
        if show:
            print(f"{number}: refused: {error}")
    except (Exception, _TooLongError) as error:
        last = _place(error)[-1:] or (("?", 0),)
        finding = f"{type(error).__name__} at {last[0][0]}:{last[0][1]}"
        if show:
            traceback.print_exc()
    for what in filter(None, (finding, *deeds)):
        outcome.findings.setdefault(what, number)


def _place(error: BaseException) -> Place:
    """The lines of vidface that led to an error, those of the error behind it first."""
    cause = error.__cause__ or error.__context__
    behind = () if cause is None else _place(cause)
    lines = []
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            lines.append((file.removeprefix(_PACKAGE), trace.tb_lineno))
        trace = trace.tb_next
    return (*behind, *lines)
