"""Manifests: which clips there are, who is in them, and which split each belongs to.

A manifest is a CSV file (UTF-8) with the columns `clip_id, path, identity, split` and, if wanted,
`start_seconds, end_seconds`; or, in Python, a table of these columns. data_manifests/README.md
describes them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.core.clips import SPLITS, Clip
from vidface.core.errors import VidfaceError
from vidface.core.files import csv_rows, named_errors, output_file
from vidface.core.redaction import is_url, redacted
from vidface.core.values import CONTROL_CHARACTERS
from vidface.settings.limiting import choose_clips
from vidface.settings.table_rows import read_table_rows
from vidface.storage.clip_urls import read_address
from vidface.storage.media import MediaRoot, as_location, open_root
from vidface.storage.names import Kind, is_image_name, may_be_animated
from vidface.storage.reach import OWN_REACH, Reach
from vidface.storage.urls import Address, unsigned

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED_COLUMNS = ("clip_id", "path", "identity", "split")
OPTIONAL_COLUMNS = ("start_seconds", "end_seconds")
KNOWN_COLUMNS = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}
LISTED_PROBLEMS = 20
MAX_MANIFEST_BYTES = 1 << 30  # of a manifest at a URL
ASKED_AT_ONCE = 32  # clips at URLs that are looked for side by side
IN_MEMORY = Path("in memory")  # stands for the path of a manifest that is a table

ManifestSource = str | Path | Address | Any
"""A path, a URL, or a table: a list of dicts, or what gives Arrow its columns, as data frames do
(`__arrow_c_stream__`)."""


@dataclass(frozen=True)
class Manifest:
    """A checked manifest; `missing` holds the clip ids whose path leads nowhere."""

    clips: tuple[Clip, ...]
    path: Path | Address
    root_location: Path | Address  # where relative paths start: a folder, a tar or a URL
    sha256: str
    missing: frozenset[str] = frozenset()
    unused_columns: tuple[str, ...] = ()
    reach: Reach = OWN_REACH  # of URLs that are clips' paths
    unit: str = "line"  # what `Clip.line` counts: "line" of a file, "row" (from 0) of a table
    left_out: int = 0  # lines that were not wanted

    def __str__(self) -> str:
        splits = ", ".join(f"{s} {len(self.of_split(s))}" for s in self.splits)
        return f"Manifest({self.path.name}: {len(self.clips)} clips; {splits})"

    @cached_property
    def root(self) -> MediaRoot:
        """The clips' place, opened on first use: a tar is indexed then."""
        return open_root(self.root_location, self.reach)

    @property
    def in_memory(self) -> bool:
        """Whether it was handed in as a table, so that nobody else can read it again."""
        return self.path == IN_MEMORY

    def locate(self, clip: Clip) -> str:
        """Where a clip stands, for messages."""
        return f"manifest {self.path}, {self.unit} {clip.line}"

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that occur, in the order of `SPLITS`."""
        present = {clip.split for clip in self.clips}
        return tuple(s for s in SPLITS if s in present)

    def of_split(self, split: str) -> tuple[Clip, ...]:
        """The clips of one split, in the manifest's order."""
        return tuple(clip for clip in self.clips if clip.split == split)

    @cached_property
    def clips_sha256(self) -> str:
        """Hash of what extraction depends on: ids, paths and times, but neither names nor splits.

        So a corrected identity needs no new extraction, and a changed path does. A URL that was
        signed anew is the same path.
        """
        return hash_clips(
            (clip.clip_id, clip.path, clip.start_seconds, clip.end_seconds) for clip in self.clips
        )

    @cached_property
    def clip_keys(self) -> pa.Array:
        """(n_clips,) text: the hash of what extraction reads, a clip's path and times, not its id.

        An Arrow column, for ten million clips are joined by it.
        """
        import pyarrow as pa

        keys = (clip_key(clip.path, clip.start_seconds, clip.end_seconds) for clip in self.clips)
        return pa.array(keys, pa.string(), size=len(self.clips))


def hash_clips(clips: Iterable[tuple[str, str, float | None, float | None]]) -> str:
    """The hash of clips' ids, paths, starts and ends, in order: `Manifest.clips_sha256`."""
    digest = hashlib.sha256()
    for clip_id, path, start_seconds, end_seconds in clips:
        fields = (clip_id, unsigned(path), start_seconds, end_seconds)
        digest.update(repr(fields).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def clip_key(path: str, start_seconds: float | None, end_seconds: float | None) -> str:
    """The hash by which clips of the same file and times are known; a path's secrets are none."""
    fields = repr((unsigned(path), start_seconds, end_seconds))
    return hashlib.blake2b(fields.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read_manifest(
    path: ManifestSource,
    root: str | Path | Address | None = None,
    *,
    allow_missing: bool = False,
    check_files: bool = True,
    allow_private: bool = False,
    limit: int | None = None,
    leave_out: Callable[[Clip], bool] | None = None,
) -> Manifest:
    """Read and check a manifest; every problem is found before any work starts.

    Args:
        path: the CSV file, or its URL; or a table of the same columns: a list of dicts, or a pandas
            or Polars DataFrame, a pyarrow Table or whatever else has `__arrow_c_stream__`. Cells
            count as the texts that a CSV would hold; None and NaN are empty.
        root: where relative paths start: a folder, an uncompressed tar or a URL (default: the
            manifest's own folder; a table's is the working directory).
        allow_missing: clips whose path leads nowhere are kept, in `Manifest.missing`.
        check_files: whether to look for the clips; stages after extraction need none of them.
        allow_private: a manifest at a public address may name addresses in a private network.
        limit: so many clips at most, spread over people and splits.
        leave_out: says of a clip, of those within the limit, that it is to be left out, wherever
            its path leads.

    Raises:
        VidfaceError: one error that lists the lines (of a table the rows, from 0) with missing
            columns, empty or duplicated clip ids, unknown splits, wrong times, missing files or
            refused URLs.
    """
    if isinstance(path, str | Path | Address):
        path, unit = as_location(path), "line"
        data = _read_file(path, allow_private)
        rows = _parse_csv(data, path)
        header = next(rows, (0, []))[1]
        sha256, folder = hashlib.sha256(data).hexdigest(), path.parent
    else:
        header, cells = read_table_rows(path, KNOWN_COLUMNS)
        rows, unit = enumerate(cells), "row"
        path, folder = IN_MEMORY, Path.cwd()
        sha256 = hashlib.sha256(
            repr((header, cells)).encode("utf-8", "backslashreplace")
        ).hexdigest()
    what = f"manifest {path}"
    _check_header(header, what, is_table=unit != "line")
    problems: list[Problem] = []
    clips = list(_read_clips(header, rows, problems))
    if not clips and not problems:
        raise VidfaceError(f"{what}: no clips" + " below the header" * (unit == "line"))
    _check_duplicates(clips, problems, unit)
    if limit is not None:
        clips = list(choose_clips(clips, limit))
    n_lines = len(clips)  # none takes a forgotten one's place: it isn't in the extraction
    if leave_out is not None:
        clips = [clip for clip in clips if not leave_out(clip)]
        if n_lines and not clips:
            raise VidfaceError(f"{what}: all of its clips are left out")
    location = as_location(root) if root is not None else folder
    # A root that the user names is his own word, wherever the manifest comes from.
    reach = Reach.of_table(path, allow_private, None if root is None else location)
    absent = check_paths(clips, open_root(location, reach), problems, unit) if check_files else []
    if absent and not allow_missing:
        problems += absent
    if problems:
        start = f" (paths start at {location})" if absent else ""
        hint = "; --allow-missing runs on without them" if absent and not allow_missing else ""
        raise VidfaceError(f"{what}{start}: {_format_problems(problems, unit)}{hint}")
    lines = {line for line, _ in absent}
    return Manifest(
        clips=tuple(clips),
        path=path,
        root_location=location,
        sha256=sha256,
        missing=frozenset(clip.clip_id for clip in clips if clip.line in lines),
        unused_columns=tuple(column for column in header if column not in KNOWN_COLUMNS),
        reach=reach,
        unit=unit,
        left_out=n_lines - len(clips),
    )


def _read_file(path: Path | Address, allow_private: bool) -> bytes:
    with named_errors(f"manifest {path}"):
        if isinstance(path, Path) and path.is_dir():
            raise VidfaceError(
                f"manifest {path} is a folder; `vidface init {shlex.quote(str(path))}` writes a "
                "manifest for it"
            )
        if isinstance(path, Path):
            return path.read_bytes()
        return read_address(path, MAX_MANIFEST_BYTES, reach=Reach(allow_private))


def _parse_csv(data: bytes, path: Path | Address) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every row, the header's first."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise VidfaceError(f"manifest {path}, line {line}: not UTF-8; save it as UTF-8") from None
    return csv_rows(text, f"manifest {path}")


Problem = tuple[int, str]  # line number, what is wrong there


def _check_header(header: Sequence[str], what: str, *, is_table: bool) -> None:
    wanted, where = ",".join(REQUIRED_COLUMNS), what if is_table else f"{what}, line 1"
    if is_table and not header:
        raise VidfaceError(f"{where}: no rows; each needs {wanted}")
    absent = [column for column in REQUIRED_COLUMNS if column not in header]
    if absent:
        named = ",".join(header) or "nothing"
        hint = "; use commas between columns" if len(header) == 1 and header[0] else ""
        if is_table:
            raise VidfaceError(
                f"{where}: missing columns {', '.join(absent)}; there are {named}, and every row "
                f"needs {wanted}"
            )
        raise VidfaceError(
            f"{where}: missing columns {', '.join(absent)}; "
            f"the header must name {wanted}, it names {named}{hint}"
        )
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise VidfaceError(f"{where}: column {', '.join(twice)} stands twice")


def _read_clips(
    header: Sequence[str], rows: Iterable[tuple[int, list[str]]], problems: list[Problem]
) -> Iterator[Clip]:
    for line, fields in rows:
        if len(fields) != len(header):
            problems.append((line, f"{len(fields)} fields where the header has {len(header)}"))
            continue
        row = dict(zip(header, fields, strict=True))
        for column in ("clip_id", "path"):
            if not row[column]:
                problems.append((line, f"empty {column}"))
        for column in ("clip_id", "identity"):
            if CONTROL_CHARACTERS.search(row[column]):
                problems.append((line, f"{column} {row[column][:80]!r} holds control characters"))
        if row["split"] not in SPLITS:
            known = ", ".join(SPLITS)
            problems.append((line, f"unknown split '{row['split'][:80]}' (known: {known})"))
        start = _read_seconds(row, "start_seconds", line, problems)
        end = _read_seconds(row, "end_seconds", line, problems)
        if end is not None and end <= (start or 0.0):
            problems.append((line, "end_seconds must lie after start_seconds"))
        # A row with a problem goes on, too: all of its problems are wanted at once.
        yield Clip(row["clip_id"], row["path"], row["identity"], row["split"], start, end, line)


def _read_seconds(
    row: dict[str, str], column: str, line: int, problems: list[Problem]
) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        problems.append((line, f"{column} '{text[:80]}' is not a number of seconds ≥ 0"))
        return None
    return value


def _check_duplicates(clips: Sequence[Clip], problems: list[Problem], unit: str) -> None:
    first: dict[str, int] = {}
    for clip in clips:
        if clip.clip_id in first and clip.clip_id:
            where = f"{'on' if unit == 'line' else 'in'} {unit} {first[clip.clip_id]}"
            problems.append((clip.line, f"clip_id '{clip.clip_id}' stands {where} already"))
        first.setdefault(clip.clip_id, clip.line)


def check_paths(
    clips: Sequence[Clip], root: MediaRoot, problems: list[Problem], unit: str
) -> list[Problem]:
    """The lines whose path leads nowhere; times given for images and refused URLs are problems."""
    absent, unknown = [], []
    for clip, kind in _look_up_paths(clips, root):
        if isinstance(kind, VidfaceError):
            problems.append((clip.line, str(kind)))
            continue
        if isinstance(kind, OSError):
            unknown.append((clip.line, f"'{redacted(clip.path)}': {kind.strerror or kind}"))
            if len(unknown) >= LISTED_PROBLEMS:  # a server that is down, or denies everything
                raise VidfaceError(f"clips cannot be looked for: {_format_problems(unknown, unit)}")
            continue
        timed = clip.start_seconds is not None or clip.end_seconds is not None
        if kind is None:
            absent.append((clip.line, f"no file or folder '{redacted(clip.path)}'"))
        elif timed and (kind == "folder" or _is_still(clip.path)):
            path = redacted(clip.path)
            text = f"start_seconds and end_seconds are for videos; '{path}' holds images"
            problems.append((clip.line, text))
    return absent + unknown


def _is_still(path: str) -> bool:
    return is_image_name(path) and not may_be_animated(path)


PathKind = Kind | None | OSError | VidfaceError  # what a path is, or why that is not known


def _look_up_paths(clips: Sequence[Clip], root: MediaRoot) -> Iterator[tuple[Clip, PathKind]]:
    """What every clip's path is. Clips at URLs are asked for side by side, since answers are slow.

    The error of a library that isn't installed concerns them all, and is raised.
    """
    named = [clip for clip in clips if clip.path]

    def look_up(clip: Clip) -> PathKind:
        if is_url(clip.path):
            try:
                Address(clip.path)
            except VidfaceError as error:
                return error
        try:
            return root.kind(clip.path)
        except OSError as error:
            return error

    if isinstance(root.location, Path) and not any(is_url(clip.path) for clip in named):
        yield from ((clip, look_up(clip)) for clip in named)
        return
    batch = 64 * ASKED_AT_ONCE
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        for first in range(0, len(named), batch):
            some = named[first : first + batch]
            yield from zip(some, pool.map(look_up, some), strict=True)


def _format_problems(problems: list[Problem], unit: str) -> str:
    lines = [f"{unit} {line}: {text}" for line, text in sorted(problems)]
    more = sorted({line for line, _ in sorted(problems)[LISTED_PROBLEMS:]})
    tail = f"; and more on {unit}s {_ranges(more)}" if more else ""
    tail += "; rows are counted from 0" * (unit == "row")
    return f"{len(lines)} problem(s): " + "; ".join(lines[:LISTED_PROBLEMS]) + tail


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers in few words.

    >>> _ranges([2, 3, 4, 7, 9, 10])
    '2–4, 7, 9–10'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def write_manifest(clips: Sequence[Clip], path: str | Path) -> None:
    """Write clips as a manifest that `read_manifest` reads back."""
    data = manifest_bytes(clips)
    with output_file(Path(path)) as file:
        file.write(data)


def manifest_bytes(
    clips: Sequence[Clip], header: Sequence[str] = REQUIRED_COLUMNS, *, with_header: bool = True
) -> bytes:
    """The content of a manifest of these clips; columns that a clip has nothing for are empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header)
    if with_header:
        writer.writeheader()
    for clip in clips:
        if CONTROL_CHARACTERS.search(clip.clip_id + clip.identity):
            raise VidfaceError(f"clip {clip.clip_id!r}: control characters in a name; rename it")
        if clip.path != clip.path.strip():
            raise VidfaceError(f"{clip.path!r}: begins or ends with white space; rename it")
        writer.writerow({column: getattr(clip, column) for column in REQUIRED_COLUMNS})
    try:
        return text.getvalue().encode("utf-8")
    except UnicodeEncodeError:
        bad = next(c.path for c in clips if not c.path.isprintable())
        raise VidfaceError(f"{bad!r}: a file name that is not UTF-8; rename it") from None
