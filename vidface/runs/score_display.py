"""A score as a few lines, as a small table of a notebook, and as columns."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from vidface.metrics.figures import NamedFigure

if TYPE_CHECKING:
    import pyarrow as pa

    from vidface.runs.scoring import Score


def describe_score(score: Score) -> str:
    """A line that says of what, and one a figure."""
    figures = [figure for _, figure in _list_figures(score)]
    width = max((len(figure.label) for figure in figures), default=0)
    lines = [f"  {figure.label:<{width}}  {figure.text}" for figure in figures]
    return "\n".join([f"Score({_title(score)})", *lines])


def make_html(score: Score) -> str:
    """The same as a table of a notebook; whatever stands in names is text."""
    rows = "".join(
        f'<tr><td style="text-align:left">{escape(figure.label)}</td>'
        f"<td>{escape(figure.text)}</td></tr>"
        for _, figure in _list_figures(score)
    )
    return f"<table><caption>{escape(_title(score))}</caption><tbody>{rows}</tbody></table>"


def make_table(score: Score) -> pa.Table:
    """Columns protocol, figure, label, value, low, high (of the 95 % interval), note; row a figure.

    What a split can't tell is null, and the note says why.
    """
    import pyarrow as pa

    schema = {"protocol": pa.string(), "figure": pa.string(), "label": pa.string()}
    schema |= {"value": pa.float64(), "low": pa.float64(), "high": pa.float64()}
    rows = []
    for protocol, figure in _list_figures(score):
        low, high = (figure.replicates and figure.replicates.ci95) or (None, None)
        row = (protocol, figure.name, figure.label, figure.value, low, high, figure.note)
        rows.append(dict(zip([*schema, "note"], row, strict=True)))
    return pa.Table.from_pylist(rows, schema=pa.schema({**schema, "note": pa.string()}))


def _title(score: Score) -> str:
    against = "" if score.gallery is None else f" against {score.gallery}"
    counts = f"{score.counts['clips']} clips, {score.people} people"
    return f"{score.split}{against}, {score.denoising}: {counts}"


def _list_figures(score: Score) -> list[tuple[str, NamedFigure]]:
    """Each figure with its protocol's section, in the order in which commands print them."""
    return [(name, f) for name, result in score.protocols.items() for f in result.figures()]
