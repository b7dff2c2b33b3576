"""The sections of a report that its script draws: curves, sweeps, frames, the table of clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vidface.reports.gather import COSINES, RunData
from vidface.reports.markup import Markup, join, table, tag
from vidface.reports.page_data import curve_blocks, rows_shown
from vidface.reports.picks import REASONS, Picks
from vidface.reports.print_figures import Printed
from vidface.reports.pseudonyms import Names
from vidface.reports.published import TRACK_3
from vidface.reports.sections import columns_of, section, sweep_table, table_5

ORDERS = {
    "telling": "most telling first",
    "ap": "average precision, lowest first",
    "lowest": "lowest similarity first",
    "second": "largest second cluster first",
    "kept": "fewest kept first",
    "identity": "identity",
    "clip": "clip",
}


def chart(id_: str, title: str, caption: str, printed: Markup) -> Markup:
    """The place of a chart, which the script fills, and what is printed instead, if anything."""
    head = tag("figcaption", tag("b", title), ". ", caption)
    place = tag("div", id=id_, class_="chart")
    return tag("figure", head, place, printed, class_="has-print" if printed else None)


def curves_section(runs: Sequence[RunData], drawn: Printed) -> Markup:
    """ROC, DET, precision–recall, CMC and histograms, as far as there are points of them."""
    known = curve_blocks(runs)
    figures = []
    bars = "Dots: operating points with their 95 % intervals, drawn side by side."
    for prefix, block, what, protocol in (
        ("", "roc", "", "verification"),
        ("cross-", "cross", ", gallery with split", "cross_verification"),
    ):
        if known[block]:
            for name, more in (("roc", ""), ("det", " Lower is better.")):
                printed = drawn.curves(name, protocol=protocol)
                figures.append(
                    chart(f"{prefix}{name}", f"{name.upper()}{what}", bars + more, printed)
                )
    if known["pr"]:
        caption = "Interpolated, mean over identities; band: 95 %."
        title = "Precision and recall of retrieval"
        figures.append(chart("pr", title, caption, drawn.curves("pr")))
    if known["cmc"]:
        caption = "Share of probes found within a rank; band: 95 %."
        figures.append(chart("cmc", "CMC", caption, drawn.curves("cmc")))
    for number, (label, _, score) in enumerate(columns_of(runs)):
        if (score.curves.get("verification") or {}).get("histogram"):
            caption = "All pairs; lines: thresholds of the FARs, and of the equal error rate."
            printed = drawn.curves("histogram", only=label)
            title = f"Scores of pairs, {label}"
            figures.append(chart(f"histogram-{number}", title, caption, printed))
    if not figures:
        nothing = "No points of curves beside the scores: `vidface score` writes them."
        return section("curves", "Curves", tag("p", nothing, class_="note"))
    hint = "Point at a curve for its values, or move along it with the arrow keys."
    return section("curves", "Curves", tag("p", hint, class_="quiet"),
                   tag("div", *figures, class_="charts"))  # fmt: skip


def sweeps_section(runs: Sequence[RunData], drawn: Printed) -> Markup:
    """The scores over the threshold of noise removal, a chart and a table each run."""
    parts: list[object] = []
    swept = [run for run in runs if run.sweep is not None]
    for number, run in enumerate(swept):
        if run.sweep is None:
            continue
        title = f"{run.label}, {run.sweep.name.removesuffix('.json')}"
        caption = "Click a threshold, or press Enter, to see its row."
        parts.append(chart(f"sweep-{number}", title, caption, drawn.sweep(run)))
        parts.append(sweep_table(number, run.sweep))
    if not parts:
        return Markup("")
    if any(run.prepared_by in TRACK_3 for run in swept):
        parts.append(table_5())
    return section("sweep", "Threshold sweep", *parts)


def frames_section(
    runs: Sequence[RunData], picks: Sequence[Picks], names: Names, *, faces: bool
) -> Markup:
    """Contact sheets of the clips that matter, and the hardest pairs."""
    pairs = [_pairs(number, run, picked, names)
             for number, (run, picked) in enumerate(zip(runs, picks, strict=True))]  # fmt: skip
    if not any(picked.reasons for picked in picks):
        nothing = tag("p", "No clip has a face to show.", class_="note")
        return section("frames", "Frames", nothing, *pairs)
    known = [name for name in REASONS if REASONS[name] and any(
        name in why for picked in picks for why in picked.reasons.values())]  # fmt: skip
    tools = tag(
        "div",
        _run_choice("frames", runs),
        _select("frames-reason", "Show", [("", "all"), *((n, REASONS[n]) for n in known)]),
        _field("frames-text", "Identity or clip holds"),
        _select("frames-order", "Sort by", list(ORDERS.items())),
        tag("span", "", id="frames-count", role="status", class_="quiet"),
        class_="tools",
    )
    key = tag("p", tag("span", class_="key"), "kept ",
              tag("span", class_="key dropped"), "dropped ", tag("span", class_="key second"),
              "dropped, second cluster", class_="small")  # fmt: skip
    left_out = sum(picked.left_out for picked in picks)
    notes = [tag("p", "Without pictures (--no-faces).", class_="note")] if not faces else []
    if left_out:
        text = f"{left_out:,} more clips have a reason to be looked at and no room here; "
        notes.append(tag("p", text + "the table of clips lists them.", class_="quiet small"))
    more = tag("button", "Show more", type="button", id="frames-more", class_="more")
    return section("frames", "Frames", *notes, key, tools,
                   tag("div", id="frames-cards", class_="cards"), tag("p", more),
                   *pairs)  # fmt: skip


def _pairs(number: int, run: RunData, picks: Picks, names: Names) -> Markup:
    """The hardest impostor and genuine pairs of a run."""
    kinds = (
        ("Hardest impostor pairs", "two people, or so the manifest says", picks.pairs.impostor),
        ("Hardest genuine pairs", "one person, or so the manifest says", picks.pairs.genuine),
    )
    place = {row: at for at, row in enumerate(rows_shown(run, picks))}

    def clip(row: int) -> Markup:
        name = names.clip(run.clips.clip_ids[row]) or "(no name)"
        return tag("button", name, type="button", class_="link",
                   data_clip=f"{number},{place.get(row, -1)}")  # fmt: skip

    def who(row: int) -> str:
        return names.identity(run.clips.identities[row]) or "nobody known"

    parts = []
    for title, what, pairs in kinds:
        rows = [
            (f"{pair.score:.4f}", clip(pair.a), who(pair.a), clip(pair.b), who(pair.b))
            for pair in pairs
        ]
        if rows:
            of = f"{title} of {picks.pairs_of or 'all clips'}: {what}; {run.denoising}"
            if picks.pairs.compared < picks.pairs.of:
                of += f"; looked for among {picks.pairs.compared:,} of {picks.pairs.of:,} clips"
            heads = ("score", "clip", "identity", "clip", "identity")
            parts.append(tag("details", tag("summary", f"{title}, {run.label}"),
                             table(heads, rows, caption=of), open=True))  # fmt: skip
    return tag("div", *parts, class_="charts") if parts else Markup("")


CLIP_COLUMNS = (
    ("clip_id", "clip"),
    ("identity", "identity"),
    ("split", "split"),
    ("state", "state"),
    ("message", "message"),
    ("frames", "frames"),
    ("faces", "faces"),
    ("kept", "kept"),
    ("dropped", "dropped"),
    ("clusters", "clusters"),
    ("lowest_similarity", "lowest similarity"),
    ("second_share", "second cluster"),
    ("second_cosine", "cosine to the second"),
    ("ap", "AP of identity"),
    ("flags", "flags"),
)
_TEXTS = ("clip_id", "identity", "split", "state", "message", "flags")
_FROM_CLUSTERING = ("kept", "dropped", "clusters", *COSINES, "flags")


def clips_section(runs: Sequence[RunData]) -> Markup:
    """The table of all clips, which the script fills, sorts and filters."""
    clustered = any(run.clips.counts for run in runs)
    judged = any(run.average_precision for run in runs)
    told = any(any(run.clips.messages) for run in runs)
    columns = [
        (name, label)
        for name, label in CLIP_COLUMNS
        if (clustered or name not in _FROM_CLUSTERING)
        and (judged or name != "ap")
        and (told or name != "message")
    ]
    heads = join(
        tag("th", tag("button", label, type="button", class_="sort"), scope="col",
            data_column=name, class_=None if name in _TEXTS else "n")
        for name, label in columns
    )  # fmt: skip
    states = sorted({state for run in runs for state in run.clips.states})
    splits = sorted({split for run in runs for split in run.clips.splits if split})
    flags = list(dict.fromkeys(flag for run in runs for flag in run.clips.flags))
    any_ = ("", "any")
    tools = tag(
        "div",
        _run_choice("clips", runs),
        _field("clips-text", "Clip, identity or message holds"),
        _select("clips-flag", "Flag", [any_, *((flag, flag) for flag in flags)]),
        _select("clips-state", "State",
                [any_, ("failed", "not ok"), *((state, state) for state in states)]),
        _select("clips-split", "Split", [any_, *((split, split) for split in splits)]),
        class_="tools",
    )  # fmt: skip
    hint = tag("p", "A heading sorts; once more, the other way round.", class_="caption")
    made = tag("table", tag("thead", tag("tr", heads)), tag("tbody"), id="clips-table")
    pages = tag(
        "div",
        tag("button", "Back", type="button", id="clips-back"),
        tag("button", "On", type="button", id="clips-on"),
        tag("span", "", id="clips-count", role="status", class_="quiet"),
        class_="tools",
    )
    region = tag("div", made, class_="scroll", tabindex=0, role="region", aria_label="Clips")
    return section("clips", "Clips", tools, hint, region, pages)


def _run_choice(of: str, runs: Sequence[RunData]) -> Markup:
    if len(runs) < 2:
        return Markup("")
    return _select(f"{of}-run", "Run", [(str(n), run.label) for n, run in enumerate(runs)])


def _select(id_: str, label: str, options: Iterable[tuple[str, str]]) -> Markup:
    inside = join(tag("option", text, value=value) for value, text in options)
    return tag("label", label, tag("select", inside, id=id_))


def _field(id_: str, label: str) -> Markup:
    return tag("label", label, tag("input", id=id_, type="search", autocomplete="off"))
