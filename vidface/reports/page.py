"""`vidface report`: one self-contained HTML file of one run or several.

The file needs no network and no server, and a content-security-policy forbids it to use any:
scripts and styles are named by their hashes, pictures are data. Every text of the user is escaped.
Faces are written clip by clip as the shards are read.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from markupsafe import Markup

from vidface.core.errors import UsageError, VidfaceError
from vidface.core.files import can_be_written, output_file
from vidface.core.progress import Notify, quiet
from vidface.core.version import __version__
from vidface.reports import page_data
from vidface.reports.contents import MOST_CLIPS, ReportContents, ReportSettings
from vidface.reports.gather import RunData, gather_run
from vidface.reports.picks import Picks, pick_clips
from vidface.reports.printed_charts import ChartPrinter
from vidface.reports.pseudonyms import Names
from vidface.reports.sections import SECTIONS
from vidface.reports.sprites import ShownFaces, read_shown_faces
from vidface.reports.templating import read_asset, report_templates
from vidface.runs.comparison import Comparison, compare
from vidface.runs.run import Run, open_run_folder
from vidface.runs.run_folder import RunFolder

__all__ = ["MOST_CLIPS", "MOST_RUNS", "ReportMade", "ReportSettings", "write_report"]


MOST_RUNS = 8

MOST_PICTURE_BYTES = 12_000_000
"""Of all pictures together, before base64 makes a third more of them."""

SCRIPTS = ("page.js", "charts.js", "frames.js", "start.js")
CHART_SCRIPT, CHART_STYLE, CHART_LICENCE = "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE"


@dataclass(frozen=True)
class ReportMade:
    """What was written."""

    path: Path
    bytes: int
    runs: int
    clips: int
    pictures: int  # clips with their faces
    why_no_pictures: str = ""

    def __str__(self) -> str:
        size = f"{self.bytes / 1e6:.1f} MB"
        shown = f"{self.pictures} of them in pictures" if self.pictures else self.why_no_pictures
        return f"{self.path}: {self.clips} clips, {shown}, {size}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "path": str(self.path)}


def write_report(
    folders: Sequence[Path],
    out: Path,
    settings: ReportSettings | None = None,
    notify: Notify = quiet,
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
    with ExitStack() as unchanged:
        for folder in folders:
            unchanged.enter_context(RunFolder(folder).reading())
        runs = [
            gather_run(f, label) for f, label in zip(folders, _label_runs(folders), strict=True)
        ]
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
        contents = ReportContents(
            runs=runs,
            picks=[pick_clips(run, settings.most_clips // len(runs)) for run in runs],
            comparisons=_compare_runs(runs, names, notify) if settings.compare else [],
            names=names,
            settings=settings,
            printer=ChartPrinter(runs),
        )
        with output_file(out) as file:
            pictures = _write_page(file, contents)
            size = file.tell()
            unchanged.close()  # before the page takes its name
    why = (
        "" if pictures else _faces_note(0, contents).removeprefix("This file contains ").strip(".")
    )
    return ReportMade(out, size, len(runs), sum(len(run.clips) for run in runs), pictures, why)


def write_run_report(
    run: Run, settings: ReportSettings, notify: Notify = quiet
) -> ReportMade | None:
    """Write `report.html` into a run directory; None, and a word, where it can't be written there.

    Raises:
        VidfaceError: see `write_report`.
    """
    folder = run.folder.folder
    if run.mirror is not None or not can_be_written(folder):
        notify(
            f"{run.pipeline.run.dir}: no report is written there; `vidface report --out` writes one"
        )
        return None
    return write_report([folder], folder / "report.html", settings, notify)


def _label_runs(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its folder's, with the parents' where two are alike."""
    resolved = [folder.resolve() for folder in folders]
    labels = [path.name for path in resolved]
    return [
        label if labels.count(label) == 1 else f"{path.parent.name}/{label}"
        for path, label in zip(resolved, labels, strict=True)
    ]


def _compare_runs(runs: Sequence[RunData], names: Names, notify: Notify) -> list[Comparison | str]:
    """The paired differences of the first run and each other one, or why there are none."""
    comparisons: list[Comparison | str] = []
    for other in runs[1:]:
        notify(f"comparing {runs[0].label} with {other.label}")
        try:
            comparison = compare(open_run_folder(runs[0].folder), open_run_folder(other.folder))
        except VidfaceError as error:
            reason = "they do not fit" if names.hidden else str(error)
            comparisons.append(f"{runs[0].label} and {other.label} cannot be compared: {reason}")
            continue
        if names.hidden:
            comparison = replace(comparison, a=runs[0].label, b=other.label)
        comparisons.append(comparison)
    return comparisons


class _Pictures:
    """The clips' pictures, one at a time as the page is written; what is shown beside them."""

    def __init__(self, contents: ReportContents) -> None:
        self.written = 0
        self.faces: list[list[ShownFaces]] = []  # of each run, without their pictures
        self._contents = contents

    def __iter__(self) -> Iterator[tuple[str, Markup]]:
        """(id of the element, WebP in base64) of each clip that has a picture."""
        contents = self._contents
        for number, (run, picks) in enumerate(zip(contents.runs, contents.picks, strict=True)):
            places = {row: at for at, row in enumerate(page_data.choose_rows(run, picks))}
            self.faces.append([])
            for faces in _read_faces(run, picks, contents.settings):
                self.faces[-1].append(replace(faces, webp=None))
                if faces.webp is not None:
                    self.written += 1
                    picture = base64.b64encode(faces.webp).decode("ascii")
                    yield f"sprite-{number}-{places[faces.row]}", Markup(picture)


def _write_page(file: IO[bytes], contents: ReportContents) -> int:
    """Write all of it, in order; returns how many clips have their faces in it."""
    runs, pictures = contents.runs, _Pictures(contents)
    scripts = [read_asset(CHART_SCRIPT), "".join(read_asset(name) for name in SCRIPTS)]
    style = read_asset(CHART_STYLE) + read_asset("page.css")
    time_made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    described = ((name, heading, give(contents)) for name, (heading, give) in SECTIONS.items())
    # Pieces come as the template goes on: the faces' pictures are never in memory together, and
    # what follows them, the footer and the data, knows which there were.
    pieces = (
        report_templates()
        .get_template("report.html")
        .generate(
            policy=content_policy(style, scripts),
            title="vidface report: " + " and ".join(run.label for run in runs),
            subtitle=f"{', '.join(dict.fromkeys(run.weights for run in runs))}. Made {time_made}.",
            style=Markup(style),
            sections=[section for section in described if section[2] is not None],
            pictures=pictures,
            faces_note=lambda: _faces_note(pictures.written, contents),
            names_note="Numbers stand in place of identities and clips."
            if contents.settings.pseudonymise
            else "It names identities and clips as the manifest does.",
            version=__version__,
            chart_licence=read_asset(CHART_LICENCE),
            page_data=lambda: page_data.page_document(contents, pictures.faces),
            scripts=[Markup(script) for script in scripts],
        )
    )
    for piece in pieces:
        file.write(piece.encode("utf-8", "replace"))
    return pictures.written


def _read_faces(run: RunData, picks: Picks, settings: ReportSettings) -> Iterator[ShownFaces]:
    """The faces of the clips that are shown; those that cannot be read are left out."""
    wanted = {run.clips.clip_ids[row]: row for row in picks.reasons}
    if wanted:
        yield from read_shown_faces(
            RunFolder(run.folder), run.clustering, wanted, pictures=settings.faces,
            most_bytes=MOST_PICTURE_BYTES // max(1, settings.most_clips),
        )  # fmt: skip


def _faces_note(pictures: int, contents: ReportContents) -> str:
    """What the page holds of people, and why where it holds nobody."""
    if pictures:
        return (
            f"This file contains faces of people, of {pictures} clips: personal data. Treat it so."
        )
    if contents.settings.faces:
        if any(RunFolder(run.folder).has_crops for run in contents.runs):
            return "This file contains no faces: no clip shown has one."
        return "This file contains no faces: the runs were extracted without keep_crops."
    return "This file contains no faces (made with --no-faces)."


def content_policy(style: str, scripts: Sequence[str]) -> str:
    """A content-security-policy under which only these run, and nothing is fetched."""
    hashes = " ".join(_hash_source(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash_source(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
