"""How all figures look, and how they become files: the same bytes for the same data."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.core.fitting import fit_by_cutting

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 3.3
"""Of a column of a two-column paper."""

HEIGHT_INCHES = 2.5
DOTS_PER_INCH = 600

# Okabe and Ito's colours, told apart by colour-blind eyes; each has its own dashes, too.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#666666"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (5, 1.2, 1, 1.2)),
    (0, (1, 1)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 1)),
    (0, (8, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib's own, so the same on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "text.parse_math": False,  # a clip may be called $x$
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "vidface",
    "pdf.fonttype": 42,
    "pdf.use14corefonts": False,
    "savefig.dpi": DOTS_PER_INCH,
    "image.composite_image": False,  # else many pictures become one, blown up
    "figure.constrained_layout.h_pad": 0.02,
    "figure.constrained_layout.w_pad": 0.02,
}
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_ONE_AT_A_TIME = Lock()  # matplotlib's settings, and the warnings', are the process's


def render_figure(draw: Callable[[Figure], None], kind: str) -> bytes:
    """Draw on an empty figure a column wide, and give it as a file.

    Raises:
        VidfaceError: matplotlib is not installed.
    """
    buffer = io.BytesIO()
    with _open_figure() as figure:
        draw(figure)
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    return buffer.getvalue()


def draw_figure(draw: Callable[[Figure], None]) -> Figure:
    """Draw on an empty figure a column wide, for whoever shows or saves it; a notebook does.

    Raises:
        VidfaceError: matplotlib is not installed.
    """
    with _open_figure() as figure:
        draw(figure)
    # Notebooks show figures of matplotlib's state alone, and this is none of them.
    figure._repr_png_ = partial(_render_png, figure)  # type: ignore[attr-defined]
    return figure


def _render_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH // 4)
    return buffer.getvalue()


@contextmanager
def _open_figure() -> Iterator[Figure]:
    try:
        import matplotlib.style
        from matplotlib.figure import Figure
    except ImportError:
        raise VidfaceError("figures need matplotlib: pip install 'vidface[report]'") from None
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that the font lacks: they become boxes
        with matplotlib.style.context(["default", _STYLE]):
            yield Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")


def make_embeddable(svg: str, prefix: str) -> str:
    """matplotlib's SVG as an element of a page, without what a strict policy refuses."""
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # text is escaped in them, and beside
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # it is `*`: of the page
    svg = re.sub(r' style="([^"]*)"', _attributes, svg)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    joins = 'role="img" stroke-linejoin="round" stroke-linecap="butt"'
    return re.sub(r"\n\s*\n+", "\n", svg.replace("<svg", f"<svg {joins}", 1)).strip() + "\n"


def _attributes(style: re.Match[str]) -> str:
    """`style="fill: none; opacity: 1"` as attributes."""
    pairs = (part.split(":", 1) for part in style[1].split(";") if ":" in part)
    return "".join(f' {key.strip()}="{value.strip()}"' for key, value in pairs)


def fit_text(text: str, points: float = 200.0, size: float = 6.5) -> str:
    """A stranger's text on one line, its middle cut where it is wider than so many points.

    Characters that are not to be printed stand as �.
    """
    if len(text) > 400:
        text = text[:200] + text[-200:]
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return fit_by_cutting(text, lambda shorter: text_width(shorter, size) <= points)


def text_width(text: str, size: float) -> float:
    """Points that a text takes in our font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, prop=FontProperties(size=size)).get_extents().x1)


def add_legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend above the axes, in as many columns as fit; labels are taken as they are."""
    size = 6.5
    room = WIDTH_INCHES * 72 - 12
    line = 30  # points: of the line before a label, and of what parts columns
    share = room if len(labels) <= 3 else room / 2  # many go into two columns at least
    labels = [fit_text(label, share - line) for label in labels]
    widest = max(text_width(label, size) for label in labels) + line
    columns = max(1, min(len(labels), int(room // widest)))
    # matplotlib leaves out labels that begin with "_": names come in afterwards.
    made = figure.legend(
        handles,
        ["x"] * len(labels),
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        borderaxespad=0.1,
        columnspacing=1.0,
        handlelength=2.2,
        handletextpad=0.5,
        borderpad=0.2,
        labelspacing=0.3,
    )
    for text, label in zip(made.get_texts(), labels, strict=True):
        text.set_text(label)


def add_run_legend(figure: Figure, lines: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend of runs; none for a single one without a name."""
    if len(labels) > 1 or labels[0]:
        add_legend(figure, lines, labels)


def plot_run(axes: Axes, number: int, x: Any, y: Any, **look: Any) -> Artist:
    """The line of one run, in its colour and dashes."""
    colour, dashes = COLOURS[number], DASHES[number]
    [line] = axes.plot(x, y, color=colour, linestyle=dashes, **look)
    return line


def draw_band(axes: Axes, number: int, x: Sequence[float], curve: Mapping[str, Any]) -> None:
    """Shade between "low" and "high" of a run's curve, where it has them."""
    low, high = curve.get("low"), curve.get("high")
    if low is not None and high is not None:
        axes.fill_between(x, low, high, color=COLOURS[number], alpha=0.15, linewidth=0)


def set_rate_axis(axes: Axes, curves: Sequence[Mapping[str, Any]], column: str) -> None:
    """The upright axis of rates, from below all curves and their bands to just above 1."""
    values = [[*curve[column], *(curve.get("low") or ())] for curve in curves]
    low = lower_end(min(map(min, values)))
    axes.set_ylim(low, 1 + 0.02 * (1 - low))


def set_log_ticks(axis: Any) -> None:
    """Decades as 10⁻³, without mathematics in the text."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axis.set_minor_formatter(NullFormatter())


def power_of_ten(value: float) -> str:
    """
    >>> power_of_ten(0.001), power_of_ten(1.0), power_of_ten(10.0), power_of_ten(0.5)
    ('10⁻³', '1', '10', '0.5')
    """
    exponent = round(math.log10(value)) if value > 0 else 0
    if value <= 0 or not math.isclose(value, 10.0**exponent) or exponent in (0, 1):
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def decade_below(value: float) -> float:
    """
    >>> decade_below(1 / 6966), decade_below(0.001), decade_below(1.0)
    (0.0001, 0.001, 0.1)
    """
    return min(0.1, 10.0 ** math.floor(math.log10(value) + 1e-9))


def add_grid(axes: Axes) -> None:
    axes.grid(True)
    axes.tick_params(width=0.6, length=2.5)
    axes.tick_params(which="minor", width=0.4, length=1.5)


def lower_end(lowest: float) -> float:
    """Where an axis of rates begins, so that a curve near 1 has room.

    >>> lower_end(0.95), lower_end(0.52), lower_end(0.0)
    (0.9, 0.5, 0.0)
    """
    return max(0, min(9, math.floor(lowest * 10 - 1e-9))) / 10
