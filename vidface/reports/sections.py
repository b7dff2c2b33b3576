"""The sections of a report that are plain tables: summary, differences, sweep, failures, speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.core.states import STATES
from vidface.reports.gather import RunData
from vidface.reports.markup import Markup, facts, join, table, tag
from vidface.reports.pseudonyms import Names
from vidface.reports.published import TABLE_5, TABLE_5_FIGURE, TABLE_5_SOURCE, TRACK_3, TRACK_3_ROWS
from vidface.reports.score_files import Figure, ScoreFile, SweepFile, mapping, number, text

if TYPE_CHECKING:
    from vidface.runs.comparison import Comparison

MOST_FAILURES = 500
"""Clips that failed, listed one by one; the table of clips has the others."""

_UNREAD = ["some of its files could not be read"]
_NO_PROFILE = (
    "No profile: this extraction wrote no profile.json (imported features have none; "
    "`vidface extract` writes one)."
)
STAGES = ("decode", "detect", "align", "embed")


def rate(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def section(name: str, title: str, *parts: object) -> Markup:
    """A section with its heading, which the list of sections points at."""
    return tag("section", tag("h2", title, id=f"{name}-title"), *parts, id=name,
               aria_labelledby=f"{name}-title")  # fmt: skip


def columns_of(runs: Sequence[RunData]) -> list[tuple[str, RunData, ScoreFile]]:
    """Every score of every run, with what the report calls it."""
    found = []
    for run in runs:
        for score in run.scores:
            label = f"{run.label}, {score.denoising}" if len(runs) > 1 else score.denoising
            found.append((label, run, score))
    labels = Counter(label for label, _, _ in found)
    return [
        (label if labels[label] == 1 else f"{label} ({Path(score.name).stem})", run, score)
        for label, run, score in found
    ]


# Summary -----------------------------------------------------------------------------------------


def summary(runs: Sequence[RunData], names: Names, command: str) -> Markup:
    """Models, data, settings, provenance; the figures; what others published."""
    notes = [
        tag("p", f"{run.label}: {note}", class_="note")
        for run in runs
        for note in (run.notes if not names.hidden else _UNREAD[: len(run.notes)])
    ]
    parts = [
        *notes,
        _headline(runs[-1]) if len(runs) == 1 else "",
        tag("div", *(_run_facts(run, names) for run in runs), class_="facts"),
        score_table(runs),
        *(
            tag("p", f"{run.label}: the newest {len(run.scores)} scores; {run.more_scores} older "
                "ones are not shown.", class_="quiet small")
            for run in runs if run.more_scores
        ),
        published_table(runs),
        tag("h3", "Provenance"),
        *(_provenance(run, names) for run in runs),
    ]  # fmt: skip
    if command and not names.hidden:
        parts.append(tag("p", "This report: ", tag("code", command), class_="small"))
    return section("summary", "Summary", *parts)


def _headline(run: RunData) -> Markup:
    """The newest score's first figures, large."""
    if not run.scores:
        return tag("p", "No scores yet: run `vidface score`.", class_="note")
    score = run.scores[-1]
    with_value = [figure for figure in score.figures if figure.value is not None]
    tars = [figure for figure in with_value if figure.name.startswith("tar_at_far")]
    shown = [f for f in with_value if f.name.startswith("map_at")][:1] + tars[-1:]
    shown += [f for f in with_value if f.name == "cmc.1"]
    return tag("div", *(
        tag("div", tag("b", rate(f.value)), f.label, tag("span", _interval(f), class_="ci"))
        for f in shown
    ), class_="big")  # fmt: skip


def _run_facts(run: RunData, names: Names) -> Markup:
    clips, pipeline = run.clips, run.pipeline
    states = Counter(clips.states)
    faces = int(clips.faces.sum())
    dropped = int(clips.counts["dropped"].sum()) if clips.counts else None
    frames, backbone = mapping(pipeline.get("frames")), mapping(pipeline.get("backbone"))
    fps = number(frames.get("fps"))
    sampled = text(mapping(pipeline.get("faces")).get("source")) == "detect"
    at = f" at {fps:g} a second" if fps and sampled else ""
    fed = [text(backbone.get(key)) for key in ("runtime", "precision")]
    rows = [
        ("recogniser", run.weights),
        ("run by", ", ".join(filter(None, fed))),
        ("data", run.data if not names.hidden else run.prepared_by or "a manifest"),
        ("clips", f"{len(clips):,} ({_counted(states)})"),
        ("people", f"{len({i for i in clips.identities if i}):,}"),
        ("frames", f"{int(clips.frames.sum()):,}{at}"),
        ("faces", f"{faces:,}"),
        ("noise removal", run.denoising or "no clustering yet"),
        ("dropped as noise", "" if dropped is None or not faces else
         f"{dropped:,} faces ({dropped / faces:.1%})"),
    ]  # fmt: skip
    return tag("div", tag("h3", run.label), facts(rows), class_="fact")


def _counted(states: Mapping[str, int]) -> str:
    known = [state for state in STATES if states.get(state)]
    return ", ".join(f"{states[s]:,} {s}" for s in [*known, *sorted(set(states) - set(STATES))])


def _interval(figure: Figure) -> str:
    if figure.ci95 is None:
        return figure.note if figure.value is None else ""
    return f"[{figure.ci95[0]:.4f}, {figure.ci95[1]:.4f}]{'*' if figure.note else ''}"


def _cell(figure: Figure | None, best: bool) -> Markup:
    if figure is None:
        return tag("span", "–", class_="quiet")
    if figure.value is None:
        return tag("span", figure.note or "n/a", class_="quiet small")
    value = tag("b" if best else "span", rate(figure.value))
    ci = tag("span", _interval(figure), class_="ci") if figure.ci95 else ""
    return join((value, ci, _whisker(figure)))


def _whisker(figure: Figure) -> Markup:
    """The interval on a scale from 0 to 1, for the eye; the numbers stand beside it."""
    if figure.ci95 is None or figure.value is None:
        return Markup("")
    ends = (figure.ci95[0], figure.value, figure.ci95[1])
    low, value, high = (f"{2 + 96 * min(1.0, max(0.0, end)):.1f}" for end in ends)
    drawn = (
        Markup(f'<line x1="{low}" x2="{high}" y1="6" y2="6"/><circle cx="{value}" cy="6" r="3"/>')
    )  # fmt: skip
    return tag("svg", drawn, class_="whisker", viewBox="0 0 100 12", aria_hidden="true",
               preserveAspectRatio="none")  # fmt: skip


def score_table(runs: Sequence[RunData]) -> Markup:
    """Figures by row, scores by column, with 95 % intervals; the best of a row is bold."""
    columns = columns_of(runs)
    if not columns:
        return Markup("")
    labels: dict[str, str] = {}
    for _, _, score in columns:
        for figure in score.figures:
            labels.setdefault(figure.name, figure.label)
    rows = []
    notes = set()
    for name, label in labels.items():
        found = [next((f for f in s.figures if f.name == name), None) for _, _, s in columns]
        values = [f.value for f in found if f is not None and f.value is not None]
        best = (min if name.endswith("eer") else max)(values) if len(values) > 1 else None
        rows.append((label, *(_cell(f, f is not None and f.value == best) for f in found)))
        notes |= {f.note for f in found if f is not None and f.ci95 and f.note}
    what = {f"{s.split}{f' against {s.gallery}' if s.gallery else ''}" for _, _, s in columns}
    caption = f"Scores of {', '.join(sorted(what))}; in brackets 95 % intervals"
    made = table(["", *(label for label, _, _ in columns)], rows, caption=caption,
                 numbers=range(1, len(columns) + 1), id_="score-table")  # fmt: skip
    return join((made, *(tag("p", f"* {note}", class_="quiet small") for note in sorted(notes))))


def published_table(runs: Sequence[RunData]) -> Markup:
    """What others published, where the recipe names it or the data is track 3's; clearly theirs."""
    rows: dict[tuple[str, str, float, str], None] = {}
    for run in runs:
        rows.update(dict.fromkeys(run.published))
    if any(run.prepared_by in TRACK_3 for run in runs):
        known = {(name, figure) for name, figure, _, _ in rows}
        rows.update(dict.fromkeys(row for row in TRACK_3_ROWS if row[:2] not in known))
    if not rows:
        return Markup("")
    columns = columns_of(runs)
    ours = [{f.name: f for f in score.figures} for _, _, score in columns]
    lines = []
    for name, figure, value, source in rows:
        own = [rate(f[figure].value) if figure in f else "n/a" for f in ours]
        label = next((f[figure].label for f in ours if figure in f), figure)
        lines.append((f"published: {name}", label, f"{value:g}", *own, source))
    heads = ["published, not measured here", "figure", "theirs", *(c[0] for c in columns), "source"]
    made = table(heads, lines, caption="Published figures beside these",
                 numbers=range(2, 3 + len(columns)), id_="published-table")  # fmt: skip
    return join((tag("h3", "Published"), made))


def _provenance(run: RunData, names: Names) -> Markup:
    """Settings, versions and hashes of the extraction and of the newest score."""
    latest: Mapping[str, Any] = run.scores[-1].provenance if run.scores else run.extraction
    settings = {**mapping(run.extraction.get("settings")), **mapping(latest.get("settings"))}
    hidden = ("manifest.root",) if names.hidden else ()
    rows: list[tuple[object, object]] = [
        ("run directory", names.path(str(run.folder))),
        ("extracted", text(run.extraction.get("created"))),
        ("scored", text(latest.get("created")) if run.scores else ""),
        ("command", names.path(text(latest.get("command")))),
        ("vidface", text(latest.get("vidface_version"))),
        ("manifest sha256", text(latest.get("manifest_sha256"))),
        *((key, _said(value)) for key, value in settings.items() if key not in hidden),
        *((f"version of {n}", text(v)) for n, v in mapping(latest.get("versions")).items()),
    ]
    known = [(name, tag("code", value)) for name, value in rows if value not in ("", None)]
    head = tag("summary", f"Settings, hashes and versions of {run.label}")
    return tag("details", head, table(("what", "value"), known))


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{text(k)} {_said(v)}" for k, v in value.items())[:500]
    if isinstance(value, list):
        return ", ".join(_said(entry) for entry in value[:50])[:500]
    return "none" if value is None else str(value)[:500]


# Differences -------------------------------------------------------------------------------------


def differences(found: Sequence[Comparison | str]) -> Markup:
    """Paired differences of runs, each as `vidface compare` has it, or why there is none."""
    parts = []
    for one in found:
        if isinstance(one, str):
            parts.append(tag("p", one, class_="note"))
            continue
        rows = []
        for name, d in one.differences.items():
            ends = "n/a" if d.ci95 is None else f"[{d.ci95[0]:+.4f}, {d.ci95[1]:+.4f}]"
            real = "n/a" if d.real is None else ("yes" if d.real else "no")
            rows.append((name, rate(d.a), rate(d.b), f"{d.value:+.4f}",
                         ends + ("*" if d.note else ""),
                         "n/a" if d.p_value is None else f"{d.p_value:.3g}",
                         tag("b", real) if d.real else real))  # fmt: skip
        caption = (
            f"A: {one.a}; B: {one.b}. {one.split}{one.against}: {one.clips} clips, "
            f"{one.identities} identities, {one.bootstrap.resamples} paired resamples"
        )
        parts.append(table(("figure", "A", "B", "B − A", "95 %", "p", "real?"), rows,
                           caption=caption, numbers=range(1, 6)))  # fmt: skip
        notes = sorted({d.note for d in one.differences.values() if d.note})
        parts += [tag("p", f"* {note}", class_="quiet small") for note in notes]
    if not parts:
        return Markup("")
    tail = "Real: zero lies outside of the 95 % interval of the paired difference."
    return section("differences", "Differences", *parts, tag("p", tail, class_="quiet"))


# Sweep -------------------------------------------------------------------------------------------


def sweep_figures(sweep: SweepFile) -> list[tuple[str, str]]:
    """(name, label) of the figures that a sweep's table and chart have: those with any value."""
    found: dict[str, str] = {}
    for row in sweep.rows:
        for figure in row.figures:
            if figure.value is not None and not figure.name.endswith(("eer", "auc")):
                found.setdefault(figure.name, figure.label)
    return list(found.items())


def sweep_table(number_: int, sweep: SweepFile) -> Markup:
    """A row a threshold; its button marks the place in the chart."""
    known = sweep_figures(sweep)
    rows = []
    for row in sweep.rows:
        values = {figure.name: figure.value for figure in row.figures}
        name = "none" if row.threshold is None else f"{row.threshold:g}"
        rows.append((
            tag("button", name, type="button", class_="link",
                aria_label=f"Show threshold {name} in the chart"),
            share(row.dropped_share), *(rate(values.get(n)) for n, _ in known),
        ))  # fmt: skip
    heads = ["threshold", "faces dropped", *(label for _, label in known)]
    against = f" against {sweep.gallery}" if sweep.gallery else ""
    caption = f"{sweep.split}{against}. The best row is as optimistic as choosing on the split is"
    return table(heads, rows, caption=caption, numbers=range(1, len(heads)),
                 id_=f"sweep-table-{number_}")  # fmt: skip


def table_5() -> Markup:
    """The paper's own sweep, clearly published."""
    rows = [
        (f"{curve.label}", f"{threshold:g}", f"{value:.5f}")
        for curve in TABLE_5
        for threshold, value in zip(curve.thresholds, curve.values, strict=True)
    ]
    made = table(("published, not measured here", "threshold", TABLE_5_FIGURE), rows,
                 caption=TABLE_5_SOURCE, numbers=(1, 2), id_="table-5")  # fmt: skip
    return tag("details", tag("summary", "The paper's Table 5 (published)"), made)


# Failures and speed ------------------------------------------------------------------------------


def failures(runs: Sequence[RunData], names: Names) -> Markup:
    """Clips by state, the failure-to-acquire rate, the clips that failed with their messages."""
    parts: list[object] = []
    for run in runs:
        clips = run.clips
        states = Counter(clips.states)
        order = [s for s in STATES if states[s]] + sorted(set(states) - set(STATES))
        heads = ("state", "clips", "share")
        rows = [(s, f"{states[s]:,}", share(states[s] / len(clips))) for s in order]
        parts += [tag("h3", run.label),
                  table(heads, rows, caption="Clips by state", numbers=(1, 2))]  # fmt: skip
        acquired = [
            (name, f"{failed:,}", f"{of:,}", "n/a" if rate_ is None else f"{rate_:.2%}")
            for name, of, failed, rate_ in (run.scores[-1].failures() if run.scores else ())
        ]
        if acquired:
            caption = "Failure to acquire: clips without a usable face stay in every denominator"
            heads_ = ("split", "failed", "of", "rate")
            parts.append(table(heads_, acquired, caption=caption, numbers=(1, 2, 3)))
        parts.append(_failed_clips(run, names))
    return section("failures", "Failures", *parts)


def _failed_clips(run: RunData, names: Names) -> Markup:
    clips = run.clips
    rows = np.flatnonzero(np.array(clips.states, dtype=object) != "ok").tolist()
    if not rows:
        return tag("p", "Every clip is ok.")
    lines = [
        (names.clip(clips.clip_ids[r]), clips.states[r], clip_message(run, r, names))
        for r in rows[:MOST_FAILURES]
    ]
    more = len(rows) - len(lines)
    tail = [tag("p", f"{more:,} more: filter the table of clips.")] if more else []
    heads = ("clip", "state", "message")
    made = table(heads, lines, caption=f"{len(rows):,} clips that are not ok")
    return join((made, *tail))


def clip_message(run: RunData, row: int, names: Names) -> str:
    """A clip's message, with pseudonyms where names are hidden."""
    clips = run.clips
    path = clips.paths[row]
    own = (clips.clip_ids[row], path, path.rsplit("/", 1)[-1], clips.identities[row])
    return names.message(clips.messages[row], own)


def speed(runs: Sequence[RunData]) -> Markup:
    """Where the time of the extractions went."""
    parts: list[object] = []
    for run in runs:
        parts.append(tag("h3", run.label))
        profile = run.profile
        stages = {name: number(mapping(profile.get("stages")).get(name)) for name in STAGES}
        wall = number(profile.get("wall_seconds"))
        if not wall or not any(stages.values()):
            parts.append(tag("p", _NO_PROFILE))
            continue
        total = sum(value for value in stages.values() if value)
        rows = [
            (name, f"{value:.2f}", f"{value / total:.1%}")
            for name, value in stages.items()
            if value is not None
        ]
        caption = "Seconds a stage, summed over processes: stages overlap"
        parts.append(table(("stage", "seconds", "share"), rows, caption=caption, numbers=(1, 2)))
        parts.append(facts(_rates(profile, wall)))
    return section("speed", "Speed", *parts)


def _rates(profile: Mapping[str, Any], wall: float) -> Iterable[tuple[str, str]]:
    yield "time in all", f"{wall:.1f} s"
    for what in ("clips", "frames", "faces"):
        if (count := number(profile.get(what))) is not None:
            yield what, f"{count:,.0f}, {count / wall:,.1f} a second"
    if (workers := number(profile.get("workers"))) is not None:
        yield "decoding processes", f"{workers:.0f}"
    yield "recogniser run by", text(profile.get("runtime"))
    yield "limit", text(profile.get("limit"))
