"""`vidface report`: one self-contained HTML file of one run or several.

The file needs no network and no server, and a content-security-policy forbids it to use any:
scripts and styles are named by their hashes, pictures are data. Every text of the user is escaped.
Faces are written clip by clip as the shards are read.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import atomic_file
from vidface.core.version import __version__
from vidface.reports import page_data, sections
from vidface.reports.drawn_sections import (
    clips_section,
    curves_section,
    frames_section,
    sweeps_section,
)
from vidface.reports.gather import RunData, gather_run
from vidface.reports.markup import Markup, esc, join, json_block, tag
from vidface.reports.picks import Picks, pick_clips
from vidface.reports.print_figures import Printed
from vidface.reports.pseudonyms import Names
from vidface.reports.sprites import ClipFaces, each_clip_faces
from vidface.runs.artefacts import RunFolder
from vidface.runs.comparison import compare
from vidface.runs.run import open_run_folder

if TYPE_CHECKING:
    from vidface.runs.comparison import Comparison

Notify = Callable[[str], None]

MOST_RUNS = 8
MOST_CLIPS = 240
"""Clips shown in pictures, in the whole report."""

MOST_PICTURE_BYTES = 12_000_000
"""Of all pictures together, before base64 makes a third more of them."""

SCRIPTS = ("page.js", "charts.js", "frames.js", "start.js")
CHART_SCRIPT, CHART_STYLE, CHART_LICENCE = "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"


@dataclass(frozen=True)
class ReportSettings:
    """What goes into a report.

    Raises:
        VidfaceError: a number of clips below 0.
    """

    faces: bool = True  # False: every picture is left out
    pseudonymise: bool = False  # numbers instead of identities and clip ids
    compare: bool = True  # paired differences, where there are several runs
    most_clips: int = MOST_CLIPS
    command: str = ""  # that made the report, to be shown in it

    def __post_init__(self) -> None:
        if self.most_clips < 0:
            raise VidfaceError(f"most_clips must be 0 or more, got {self.most_clips}")


@dataclass(frozen=True)
class ReportMade:
    """What was written."""

    path: Path
    bytes: int
    runs: int
    clips: int
    pictures: int  # clips with their faces

    def __str__(self) -> str:
        size = f"{self.bytes / 1e6:.1f} MB"
        return f"{self.path}: {self.clips} clips, {self.pictures} of them in pictures, {size}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.__dict__, "path": str(self.path)}


def write_report(
    folders: Sequence[Path],
    out: Path,
    settings: ReportSettings | None = None,
    notify: Notify = lambda _: None,
) -> ReportMade:
    """Write the report of run directories as one HTML file, complete or not at all.

    Args:
        folders: run directories, 1 to MOST_RUNS, each with a finished extraction. The first is the
            one that the others are compared with.
        out: the file, `.html`.
        notify: told what is left out.

    Raises:
        VidfaceError: no finished extraction, damaged artefacts, a file that cannot be written.
    """
    settings = settings or ReportSettings()
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out}: a report is written as .html")
    if not 1 <= len(folders) <= MOST_RUNS:
        raise UsageError(f"a report shows 1 to {MOST_RUNS} runs, got {len(folders)}")
    runs = [gather_run(f, label) for f, label in zip(folders, _labels(folders), strict=True)]
    for run in runs:
        for line in run.notes:
            notify(line)
    names = Names(
        (identity for run in runs for identity in run.clips.identities),
        (clip_id for run in runs for clip_id in run.clips.clip_ids),
        hidden=settings.pseudonymise,
    )
    if names.hidden:
        runs = [replace(run, label=f"run {n}") for n, run in enumerate(runs, start=1)]
    picks = [pick_clips(run, settings.most_clips // len(runs)) for run in runs]
    compared = _compared(runs, names, notify) if settings.compare else []
    with atomic_file(out) as file:
        pictures = _write(file, runs, picks, compared, names, settings)
        size = file.tell()
    return ReportMade(out, size, len(runs), sum(len(run.clips) for run in runs), pictures)


def _labels(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with the parents' where two are alike."""
    resolved = [folder.resolve() for folder in folders]
    labels = [path.name for path in resolved]
    return [
        label if labels.count(label) == 1 else f"{path.parent.name}/{label}"
        for path, label in zip(resolved, labels, strict=True)
    ]


def _compared(runs: Sequence[RunData], names: Names, notify: Notify) -> list[Comparison | str]:
    """The paired differences of the first run and each other one."""

    found: list[Comparison | str] = []
    for other in runs[1:]:
        notify(f"comparing {runs[0].label} with {other.label}")
        try:
            one = compare(open_run_folder(runs[0].folder), open_run_folder(other.folder))
        except VidfaceError as error:
            reason = "they do not fit" if names.hidden else str(error)
            found.append(f"{runs[0].label} and {other.label} cannot be compared: {reason}")
            continue
        if names.hidden:
            one = replace(one, a=runs[0].label, b=other.label)
        found.append(one)
    return found


# The file ----------------------------------------------------------------------------------------


def _write(
    file: IO[bytes],
    runs: Sequence[RunData],
    picks: Sequence[Picks],
    compared: Sequence[Comparison | str],
    names: Names,
    settings: ReportSettings,
) -> int:
    """Write all of it, in order; returns how many clips have their faces in it."""

    def put(text: str) -> None:
        file.write(text.encode("utf-8", "replace"))

    scripts = [asset(CHART_SCRIPT), "".join(asset(name) for name in SCRIPTS)]
    style = asset(CHART_STYLE) + asset("page.css")
    parts = _sections(runs, picks, compared, names, settings)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    before, _, after = asset("template.html").partition("{{pictures}}")
    put(filled(before, {
        "csp": policy(style, scripts),
        "title": "vidface report: " + " and ".join(run.label for run in runs),
        "style": Markup(style),
        "subtitle": f"{', '.join(dict.fromkeys(run.weights for run in runs))}. Made {made}.",
        "nav": _links(parts),
        "body": join(parts),
    }))  # fmt: skip
    pictures = 0
    all_faces: list[list[ClipFaces]] = []
    for number, (run, picked) in enumerate(zip(runs, picks, strict=True)):
        places = {row: at for at, row in enumerate(page_data.rows_shown(run, picked))}
        shown = []
        for one in _faces(run, picked, settings):
            if one.webp is not None:
                picture = base64.b64encode(one.webp).decode("ascii")
                name = f"sprite-{number}-{places[one.row]}"
                put(f'<script type="text/plain" id="{name}">{picture}</script>\n')
                pictures += 1
            shown.append(replace(one, webp=None))
        all_faces.append(shown)
    document = page_data.page_document(runs, picks, all_faces, names)
    put(filled(after, {
        "footer": _footer(pictures, settings),
        "data": json_block(document),
        "charts": Markup(scripts[0]),
        "script": Markup(scripts[1]),
    }))  # fmt: skip
    return pictures


def _faces(run: RunData, picks: Picks, settings: ReportSettings) -> Iterator[ClipFaces]:
    """The faces of the clips that are shown; those that cannot be read are left out."""
    wanted = {run.clips.clip_ids[row]: row for row in picks.reasons}
    most = MOST_PICTURE_BYTES // max(1, settings.most_clips)
    if wanted:
        yield from each_clip_faces(
            RunFolder(run.folder), run.clustering, wanted,
            pictures=settings.faces, most_bytes=most,
        )  # fmt: skip


def _sections(
    runs: Sequence[RunData],
    picks: Sequence[Picks],
    compared: Sequence[Comparison | str],
    names: Names,
    settings: ReportSettings,
) -> list[Markup]:
    drawn = Printed(runs)
    found = [
        sections.summary(runs, names, settings.command),
        sections.differences(compared),
        curves_section(runs, drawn),
        sweeps_section(runs, drawn),
        frames_section(runs, picks, names, faces=settings.faces),
        clips_section(runs),
        sections.failures(runs, names),
        sections.speed(runs),
    ]
    return [part for part in found if part]


def _links(parts: Sequence[Markup]) -> Markup:
    """The list of sections, from their ids and headings."""
    found = (re.search(r'<h2 id="([a-z]+)-title">([^<]*)</h2>', part) for part in parts)
    return join(tag("a", Markup(m[2]), href=f"#{m[1]}") for m in found if m)


def _footer(pictures: int, settings: ReportSettings) -> Markup:
    """What the page holds of people."""
    if pictures:
        faces = (
            f"This file contains faces of people, of {pictures} clips: personal data. Treat it so."
        )
    elif settings.faces:
        faces = "This file contains no faces: the runs kept none."
    else:
        faces = "This file contains no faces (made with --no-faces)."
    known = (
        "Numbers stand in place of identities and clips."
        if settings.pseudonymise
        else "It names identities and clips as the manifest does."
    )
    licence = tag("details", tag("summary", "Licence of the chart library, uPlot"),
                  tag("pre", asset(CHART_LICENCE)))  # fmt: skip
    made = tag("p", f"Made by vidface {__version__}; it needs no network and asks for none.")
    return join((tag("p", tag("strong", faces), " ", known), made, licence))


def asset(name: str) -> str:
    """A file that travels with the package."""
    return (resources.files("vidface.reports") / "assets" / name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, object]) -> str:
    """The template with `{{name}}` replaced, once: what comes in is not looked at again.

    >>> filled("<p>{{a}}</p>", {"a": "{{b}} <"})
    '<p>{{b}} &lt;</p>'
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda found: esc(parts[found[1]]), template)


def policy(style: str, scripts: Sequence[str]) -> str:
    """A content-security-policy under which only these run, and nothing is fetched."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
