"""The summary of a report: models, data, settings; the figures; what others published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vidface.core.states import STATES
from vidface.reports.contents import ReportContents
from vidface.reports.gather import RunData, labelled_scores
from vidface.reports.loose_values import mapping, number, text
from vidface.reports.pseudonyms import Names
from vidface.reports.published import TRACK_3, TRACK_3_ROWS
from vidface.reports.scores import ReportedScore, ScoreFigure
from vidface.reports.templating import format_rate

_UNREAD = ["some of its files could not be read"]


def describe_summary(contents: ReportContents) -> Mapping[str, Any]:
    """The values of the summary's template."""
    runs, names = contents.runs, contents.names
    newest = runs[-1].scores[-1] if len(runs) == 1 and runs[-1].scores else None
    return {
        "notes": [
            f"{run.label}: {note}"
            for run in runs
            for note in (run.notes if not names.hidden else _UNREAD[: len(run.notes)])
        ],
        "without_scores": len(runs) == 1 and newest is None,
        "headline": _headline_figures(newest) if newest else None,
        "facts": [(run.label, _run_facts(run, names)) for run in runs],
        "scores": _score_table(runs),
        "older_scores": [
            (run.label, len(run.scores), run.more_scores) for run in runs if run.more_scores
        ],
        "published": _published_table(runs),
        "provenance": [(run.label, _provenance(run, names)) for run in runs],
        "command": "" if names.hidden else contents.settings.command,
    }


def count_states(states: Sequence[str]) -> dict[str, int]:
    """How many clips each state has: the known states first, then those of strangers."""
    counts = Counter(states)
    known = [state for state in STATES if counts[state]]
    return {state: counts[state] for state in [*known, *sorted(set(counts) - set(STATES))]}


def _headline_figures(score: ReportedScore) -> list[ScoreFigure]:
    """A score's first figures, which are shown large."""
    measured = [figure for figure in score.figures if figure.value is not None]
    maps = [figure for figure in measured if figure.name.startswith("map_at")]
    tars = [figure for figure in measured if figure.name.startswith("tar_at_far")]
    return maps[:1] + tars[-1:] + [figure for figure in measured if figure.name == "cmc.1"]


def _run_facts(run: RunData, names: Names) -> list[tuple[str, str]]:
    clips, pipeline = run.clips, run.pipeline
    faces = int(clips.faces.sum())
    dropped = int(clips.counts["dropped"].sum()) if clips.counts else None
    frames, backbone = mapping(pipeline.get("frames")), mapping(pipeline.get("backbone"))
    fps = number(frames.get("fps"))
    is_sampled = text(mapping(pipeline.get("faces")).get("source")) == "detect"
    states = ", ".join(f"{n:,} {state}" for state, n in count_states(clips.states).items())
    return [
        ("recogniser", run.weights),
        ("run by", ", ".join(filter(None, (text(backbone.get("runtime")),
                                           text(backbone.get("precision")))))),
        ("data", run.data if not names.hidden else run.prepared_by or "a manifest"),
        ("clips", f"{len(clips):,} ({states})"),
        ("people", f"{len({i for i in clips.identities if i}):,}"),
        ("frames", f"{int(clips.frames.sum()):,}"
         + (f" at {fps:g} a second" if fps and is_sampled else "")),
        ("faces", f"{faces:,}"),
        ("noise removal", run.denoising or "no clustering yet"),
        ("dropped as noise", "" if dropped is None or not faces else
         f"{dropped:,} faces ({dropped / faces:.1%})"),
    ]  # fmt: skip


def _score_table(runs: Sequence[RunData]) -> Mapping[str, Any] | None:
    """Figures by row, scores by column, with 95 % intervals; the best of a row is bold."""
    columns = labelled_scores(runs)
    if not columns:
        return None
    by_name = [{figure.name: figure for figure in score.figures} for _, _, score in columns]
    labels = {figure.name: figure.label for score in by_name[::-1] for figure in score.values()}
    order = dict.fromkeys(name for score in by_name for name in score)
    rows, notes = [], set()
    for name in order:
        figures = [score.get(name) for score in by_name]
        values = [f.value for f in figures if f is not None and f.value is not None]
        best = (min if name.endswith("eer") else max)(values) if len(values) > 1 else None
        rows.append((labels[name], *((f, f is not None and f.value == best) for f in figures)))
        notes |= {f.note for f in figures if f is not None and f.ci95 and f.note}
    few = sorted({score.interval_note for _, _, score in columns} - {""})
    what = {f"{s.split}{f' against {s.gallery}' if s.gallery else ''}" for _, _, s in columns}
    return {
        "heads": ["", *(label for label, _, _ in columns)],
        "rows": rows,
        "caption": "; ".join(
            [f"Scores of {', '.join(sorted(what))}", "in brackets 95 % intervals", *few]
        ),
        "notes": sorted(notes),
    }


def _published_table(runs: Sequence[RunData]) -> Mapping[str, Any] | None:
    """What others published, where the recipe names it or the data is track 3's."""
    published = dict.fromkeys(row for run in runs for row in run.published)
    if any(run.prepared_by in TRACK_3 for run in runs):
        known = {(name, figure) for name, figure, _, _ in published}
        published |= dict.fromkeys(row for row in TRACK_3_ROWS if row[:2] not in known)
    if not published:
        return None
    columns = labelled_scores(runs)
    ours = [{figure.name: figure for figure in score.figures} for _, _, score in columns]
    rows = [
        (
            f"published: {name}",
            next((figures[figure].label for figures in ours if figure in figures), figure),
            f"{value:g}",
            *(format_rate(f[figure].value) if figure in f else "n/a" for f in ours),
            source,
        )
        for name, figure, value, source in published
    ]
    labels = [label for label, _, _ in columns]
    heads = ["published, not measured here", "figure", "theirs", *labels, "source"]
    return {"heads": heads, "rows": rows, "numbers": range(2, 3 + len(columns))}


def _provenance(run: RunData, names: Names) -> list[tuple[str, str]]:
    """Settings, versions and hashes of the extraction and of the newest score."""
    latest: Mapping[str, Any] = run.scores[-1].provenance if run.scores else run.extraction
    settings = {**mapping(run.extraction.get("settings")), **mapping(latest.get("settings"))}
    hidden = ("manifest.root",) if names.hidden else ()
    rows = [
        ("run directory", names.path(str(run.folder))),
        ("extracted", text(run.extraction.get("created"))),
        ("scored", text(latest.get("created")) if run.scores else ""),
        ("command", names.path(text(latest.get("command")))),
        ("vidface", text(latest.get("vidface_version"))),
        ("manifest sha256", text(latest.get("manifest_sha256"))),
        *((key, _setting_text(value)) for key, value in settings.items() if key not in hidden),
        *((f"version of {n}", text(v)) for n, v in mapping(latest.get("versions")).items()),
    ]
    return [row for row in rows if row[1]]


def _setting_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{text(k)} {_setting_text(v)}" for k, v in value.items())[:500]
    if isinstance(value, list):
        return ", ".join(_setting_text(entry) for entry in value[:50])[:500]
    return "none" if value is None else str(value)[:500]
