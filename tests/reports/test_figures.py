"""Figures for papers: what they show, how they are written, and whose files they read."""

import copy
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from tests.conftest import absent
from tests.made_scores import made_score
from tests.metrics.test_curves import HITS, people, retrieval
from vidface.cli.plots import plot
from vidface.core.errors import UsageError, VidfaceError
from vidface.metrics.curves import cmc_block, retrieval_block
from vidface.metrics.uncertainty import Bootstrap
from vidface.metrics.verification import score_verification
from vidface.reports.figures import FIGURES, FigureOptions, figure_svg, style, write_figure
from vidface.reports.figures.clip import MOST_FACES
from vidface.reports.figures.roc import read_roc
from vidface.reports.figures.sources import find_chosen_threshold, find_source, label_sources
from vidface.reports.figures.sweep import read_series
from vidface.reports.published import TABLE_5
from vidface.runs import score_writing
from vidface.runs.clip_drawing import ClipFaces
from vidface.runs.score_documents import check_document, read_document

try:
    import matplotlib  # noqa: F401
except ImportError:
    absent("no matplotlib; pip install 'vidface[report]'")

HOSTILE = (
    r"_<img src=x onerror=alert(1)> $\frac{1}{2}$ & --> ]]> " + 'a "name" ' * 20 + "\x1b[31m\ud800"
)
EMPTY = {"format": "vidface-curves", "version": 1}
SWEEP_ROWS = [(0.5, 0.9, 0.7, 0.3), (None, 0.5, 0.2, 0.0), (0.4, 0.95, 0.8, 0.25)]


def curves_document(*, seed=0, spread=1.1):
    """All blocks of a curves file, from people of our own."""
    rows, names = people(12, 4, spread=spread, seed=seed)
    scored = score_verification(rows, names, ["1e-1", "1e-2", "1e-3"], bootstrap=Bootstrap(30))
    results = {"verification": scored, "cross-verification": scored}
    document = score_writing.curves_document(made_score(results), "val.json")
    ranks = np.array([1, 1, 2, 30, 0])
    document["retrieval"] = retrieval_block(retrieval(HITS))
    document["identification"] = {"cmc": cmc_block(ranks, np.arange(5), 5, 50)}
    return document


def sweep_document(rows=SWEEP_ROWS):
    return {
        "rows": [
            {
                "threshold": threshold,
                "retrieval": {"map_at_100": mean},
                "verification": {
                    "tar_at_far": {"1e-2": {"tar": tar}, "1e-3": {"tar": tar / 2},
                                   "1e-6": {"tar": None, "needs_impostor_pairs": 10**6}}
                },
                "denoised": {"dropped_share": dropped},
            }
            for threshold, mean, tar, dropped in rows
        ],
        "provenance": {"created": "2026-01-01"},
    }  # fmt: skip


def faces(n=10, clusters=None):
    clusters = np.arange(n) % 4 - 1 if clusters is None else np.array(clusters)
    crops = [np.full((112, 112, 3), 10 + i, np.uint8) for i in range(n)]
    return ClipFaces("clip", crops, clusters, np.linspace(-1, 1, n).astype(np.float32))


DOCUMENT = curves_document()
OTHER = curves_document(seed=1, spread=0.9)
DATA = {name: [("run a", DOCUMENT)] for name in ("roc", "det", "pr", "cmc", "histogram")}
DATA |= {"sweep": [("run a", sweep_document())], "clip": [("clip", faces())]}


class LookedAt(Exception):  # noqa: N818
    """Carries what was seen, so that nothing is written."""


def laid_out(name, data, look, **options):
    """Draws a figure, and gives what `look(figure)` saw."""

    def draw(figure):
        FIGURES[name].draw(figure, data, FigureOptions(**options))
        figure.draw_without_rendering()
        raise LookedAt(look(figure))

    with pytest.raises(LookedAt) as seen:
        style.render_figure(draw, "svg")
    return seen.value.args[0]


# Files


def test_all_names_are_drawn():
    assert set(DATA) == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_svg_is_a_column_wide(name, tmp_path):
    write_figure(tmp_path / "a.SVG", name, DATA[name])
    written = (tmp_path / "a.SVG").read_bytes()
    root = ElementTree.fromstring(written)
    assert float(root.attrib["viewBox"].split()[2]) == pytest.approx(3.3 * 72)
    assert b"<text" not in written  # it is paths: no font is needed
    assert b"dc:date" not in written
    if name in ("roc", "clip"):
        write_figure(tmp_path / "b.svg", name, DATA[name])
        assert (tmp_path / "b.svg").read_bytes() == written


@pytest.mark.slow
def test_pdf_embeds_its_fonts_and_png_is_one(tmp_path):
    for again in ("a", "b"):
        write_figure(tmp_path / f"{again}.pdf", "roc", DATA["roc"])
        write_figure(tmp_path / f"{again}.png", "clip", DATA["clip"])
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert pdf == (tmp_path / "b.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    from PIL import Image

    with Image.open(tmp_path / "a.png") as image:
        assert image.width == round(3.3 * 600)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_somebodys_settings_of_matplotlib_neither_matter_nor_change():
    import matplotlib

    before = figure_svg("pr", DATA["pr"])
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "none"}):
        assert figure_svg("pr", DATA["pr"]) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_an_embedded_figure_passes_a_strict_policy():
    text = figure_svg("roc", [(HOSTILE, DOCUMENT), ("b", OTHER)], prefix="p1-")
    root = ElementTree.fromstring(text)
    for refused in (
        "style=",
        "<style",
        "<!--",
        "<metadata",
        "<?xml",
        "<!DOCTYPE",
        "<img",
        "<script",
    ):
        assert refused not in text
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert all(one.startswith("p1-") for one in ids)
    targets = re.findall(r'href="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert len(targets) > 20
    assert all(target[0] == "#" and target[1:] in ids for target in targets)
    assert re.findall(r'="https?://[^"]*"', re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)) == []
    colours = {element.attrib.get("stroke", "").lower() for element in root.iter()}
    assert {style.BLUE.lower(), style.VERMILION.lower()} <= colours


# What is shown


def texts_of(figure):
    """(text, box in pixels) of all that is written in a figure."""
    written = [text for one in figure.legends for text in one.get_texts()]
    for axes in figure.axes:
        written += axes.texts
        if not axes.axison:
            continue
        written += [axes.xaxis.label, axes.yaxis.label, axes.title]
        for axis, limits, side in (
            (axes.xaxis, axes.get_xlim(), "labelbottom"),
            (axes.yaxis, axes.get_ylim(), "labelleft"),
        ):
            if axis.get_visible() and axis.get_tick_params().get(side, True):
                ticks = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
                written += [label for at, label in ticks if min(limits) <= at <= max(limits)]
    shown = [text for text in written if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_touches_another_or_leaves_the_figure(name):
    label = HOSTILE
    data = [(label, document) for _, document in DATA[name]]
    options = {"chosen": (0.4, 0.5), "published": True} if name == "sweep" else {}
    if name == "clip":
        data = [(label, ClipFaces(label, *[getattr(data[0][1], f) for f in
                                           ("crops", "clusters", "similarities")]))]  # fmt: skip
    else:
        data.append(("second", OTHER if name != "sweep" else sweep_document(SWEEP_ROWS[:2])))

    def look(figure):
        return texts_of(figure), figure.bbox

    texts, page = laid_out(name, data, look, **options)
    assert len(texts) > 5
    for (a, box_a), (b, box_b) in combinations(texts, 2):
        width = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0)
        height = min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
        assert width < 1 or height < 1, f"{a!r} and {b!r} overlap"
    for text, box in texts:
        assert box.x0 > -1, text
        assert box.x1 < page.x1 + 1, text
        assert box.y0 > -1, text
        assert box.y1 < page.y1 + 1, text


def test_names_are_shown_as_they_are():
    labels = ["_hidden", "$x^2$", "<b>&amp;</b>", r"\alpha"]

    def look(figure):
        texts = figure.legends[0].get_texts()
        return [text.get_text() for text in texts], [text.get_parse_math() for text in texts]

    shown, mathematics = laid_out("roc", [(label, DOCUMENT) for label in labels], look)
    assert shown == labels
    assert not any(mathematics)


def test_long_and_unprintable_names_are_cut_in_the_middle():
    def cut(text, points):
        def draw(figure):
            shown = style.fit_text(text, points)
            raise LookedAt((shown, style.text_width(shown, 6.5)))

        with pytest.raises(LookedAt) as seen:
            style.render_figure(draw, "svg")
        return seen.value.args[0]

    text, width = cut("begin" + "x" * 5000 + "end", 100)
    assert text.startswith("beg")
    assert text.endswith("nd")
    assert "…" in text
    assert 80 < width <= 100
    assert cut("a\n\tb\x00\x1b", 100)[0] == "a b��"
    assert cut("", 100)[0] == ""


def lines_of(figure, axes=0):
    return [(line.get_xdata(), line.get_ydata()) for line in figure.axes[axes].lines]


def test_roc_shows_the_points_of_the_file():
    roc = DOCUMENT["verification"]["roc"]
    lines, xlim = laid_out(
        "roc", DATA["roc"], lambda figure: (lines_of(figure), figure.axes[0].get_xlim())
    )
    first = max(i for i, far in enumerate(roc["far"]) if far == 0)
    assert xlim == (1e-4, 1)  # 1,056 impostor pairs
    x, y = lines[0]
    assert x[0] == 1e-4
    assert list(x[1:]) == roc["far"][first + 1 :]
    assert list(y) == roc["tar"][first:]
    markers = {(float(x[0]), float(y[0])) for x, y in lines[1:] if len(x) == 1}
    points = DOCUMENT["verification"]["points"]
    assert markers == {(float(p["target_far"]), p["tar"]) for p in points}
    bars = [list(y) for x, y in lines[1:] if len(x) == 2]
    assert bars == [p["ci95"] for p in points if p["ci95"]]
    assert len(bars) >= 2


def test_det_shows_false_rejects_down_to_below_one_pair():
    verification = DOCUMENT["verification"]
    lines, ylim = laid_out(
        "det", DATA["det"], lambda figure: (lines_of(figure), figure.axes[0].get_ylim())
    )
    assert ylim == (1e-2, 1)  # 72 genuine pairs
    y = lines[[len(x) > 2 for x, _ in lines].index(True)][1]
    positive = [frr for frr in verification["roc"]["frr"] if frr > 0]
    first = max(i for i, far in enumerate(verification["roc"]["far"]) if far == 0)
    assert list(y[:-1]) == positive[first:]
    assert y[-1] == 1e-2  # no false reject: the axis' end
    markers = [float(y[0]) for x, y in lines if len(x) == 1]
    assert markers == [p["frr"] for p in verification["points"] if p["frr"] > 0]


def test_the_axes_of_ranks():
    def look(figure):
        axes = figure.axes[0]
        return axes.get_xscale(), list(axes.lines[0].get_xdata()), list(axes.lines[0].get_ydata())

    cmc = DOCUMENT["identification"]["cmc"]
    assert laid_out("cmc", DATA["cmc"], look) == ("log", cmc["rank"], cmc["value"])
    few = {"identification": {"cmc": cmc_block(np.array([1, 2]), np.arange(2), 2, 20)}}
    assert laid_out("cmc", [("a", few)], look)[0] == "linear"


def test_precision_against_recall():
    curve = DOCUMENT["retrieval"]["precision_recall"]
    [(x, y)] = laid_out("pr", DATA["pr"], lines_of)
    assert (list(x), list(y)) == (curve["recall"], curve["precision"])


def test_histograms_and_their_thresholds():
    def look(figure):
        axes = figure.axes[0]
        stairs = [p for p in axes.patches if hasattr(p, "get_data")]
        marks = [float(line.get_xdata()[0]) for line in axes.lines]
        return (
            [list(p.get_data().values) for p in stairs],
            marks,
            [t.get_text() for t in axes.texts],
        )

    values, marks, names = laid_out("histogram", DATA["histogram"], look)
    found = DOCUMENT["verification"]
    assert values[::2] == [found["histogram"][f"{kind}_share"] for kind in ("impostor", "genuine")]
    expected = [(p["threshold"], p["target_far"]) for p in found["points"]]
    expected = sorted([*expected, (found["eer"]["threshold"], "EER")])
    assert marks == [threshold for threshold, _ in expected]
    assert len(names) == 4
    assert sorted(names)[0] == "EER"
    panels = laid_out("histogram", DATA["histogram"] * 3, lambda figure: len(figure.axes))
    assert panels == 3
    with pytest.raises(VidfaceError, match="at most 4"):
        figure_svg("histogram", DATA["histogram"] * 5)


def test_a_sweep_by_eye():
    def look(figure):
        axes, right = figure.axes
        ticks = dict(zip(axes.get_xticks(), [t.get_text() for t in axes.get_xticklabels()],
                         strict=True))  # fmt: skip
        return (
            lines_of(figure),
            [list(line.get_ydata()) for line in right.lines],
            ticks,
            axes.get_xlim(),
        )

    lines, dropped, ticks, xlim = laid_out("sweep", DATA["sweep"], look, chosen=(0.4,))
    x, means = lines[0]
    assert ticks[x[0]] == "none"  # the row without clustering stands first, whatever its place
    assert x[0] < 0.4
    assert list(x[1:]) == [0.4, 0.5]
    assert list(means) == [0.5, 0.95, 0.9]
    assert list(lines[1][1]) == [0.1, 0.4, 0.35]  # TAR at 1e-3, the lowest that all rows have
    assert dropped == [[0, 25, 30]]
    assert [0.4, 0.4] in [list(x) for x, _ in lines]
    assert xlim[0] < x[0]
    other = laid_out("sweep", DATA["sweep"], look, far="1e-2")[0]
    assert list(other[1][1]) == [0.2, 0.8, 0.7]
    assert len(other) == 2  # nothing is marked


def test_table_5_stands_on_an_axis_of_its_own():
    def look(figure):
        above, below, _ = figure.axes
        return lines_of(figure), above.get_ylim(), below.get_ylim(), above.get_ylabel()

    lines, above, below, name = laid_out("sweep", DATA["sweep"], look, published=True)
    assert [(tuple(x), tuple(y)) for x, y in lines] == [(c.thresholds, c.values) for c in TABLE_5]
    assert above != below
    assert "Table 5" in name
    best = TABLE_5[1]
    assert (best.name, best.thresholds[1], best.values[1]) == ("best model", 0.4, 0.58207)


def test_a_sweep_without_one_of_its_figures():
    only_map, only_tar = sweep_document(), sweep_document()
    for row in only_map["rows"]:
        del row["verification"]
    for row in only_tar["rows"]:
        del row["retrieval"]
    assert len(laid_out("sweep", [("a", only_map)], lines_of)) == 1
    assert len(laid_out("sweep", [("a", only_tar)], lines_of)) == 1
    for row in only_map["rows"]:
        del row["retrieval"]
    with pytest.raises(VidfaceError, match="neither mAP nor TAR"):
        figure_svg("sweep", [("a", only_map)])
    with pytest.raises(VidfaceError, match=r"no row has a TAR at FAR 1e-9 \(there: 1e-2, 1e-3\)"):
        figure_svg("sweep", DATA["sweep"], far="1e-9")
    one = sweep_document([(None, 0.5, 0.25, 0.0)])
    assert len(laid_out("sweep", [("a", one)], lines_of)) == 2


def test_frames_around_the_faces_of_a_clip():
    def look(figure):
        axes = figure.axes[0]
        frames = [p for p in axes.patches if not p.get_fill()]
        colours = [matplotlib_hex(p.get_edgecolor()) for p in frames]
        pictures = [int(image.get_array()[0, 0, 0]) for image in axes.images]
        return colours, pictures, [text.get_text() for text in axes.texts]

    def matplotlib_hex(colour):
        return "#" + "".join(f"{round(255 * part):02X}" for part in colour[:3])

    red, blue = "#CC1A1A", "#0082C8"
    colours, pictures, texts = laid_out("clip", [("", faces(4, [0, 1, 2, -1]))], look)
    legend = [red, red, blue]  # dropped; dropped, second cluster
    assert sorted(colours) == sorted([red, blue, red, red, *legend])
    assert pictures == [10, 11, 12, 13]
    assert "4 faces · 1 kept · 3 dropped (1 unusable)" in texts
    assert texts.count("unusable") == 1
    assert "1  -.33" in texts
    many = laid_out("clip", [("", faces(200))], look)
    assert len(many[1]) == MOST_FACES
    assert (many[1][0], many[1][-1]) == (10, 10 + 199)
    assert "40 of 200 faces shown · 50 kept · 150 dropped (50 unusable)" in many[2]


def test_a_face_that_is_no_picture():
    broken = ClipFaces("c", [b"no picture"], np.array([0]), np.array([np.nan]))
    count, texts = laid_out(
        "clip",
        [("", broken)],
        lambda f: (len(f.axes[0].images), [t.get_text() for t in f.axes[0].texts]),
    )
    assert count == 0
    assert "0  n/a" in texts
    assert "1 face · 1 kept · 0 dropped" in texts


# Refusals


@pytest.mark.parametrize(
    ("name", "data", "options", "message"),
    [
        ("rocs", DATA["roc"], {}, "unknown figure 'rocs' .known: sweep, roc, det"),
        ("roc", [], {}, "1 to 8 runs, got 0"),
        ("roc", DATA["roc"] * 9, {}, "1 to 8 runs, got 9"),
        ("roc", [("run x", EMPTY)], {}, "run x: no verification in it; score with --protocols"),
        ("pr", [("run x", EMPTY)], {}, "no retrieval in it; score with"),
        ("cmc", [("run x", EMPTY)], {}, "--protocols identification"),
        ("roc", [("run x", {})], {}, "run x: not curves; name a file of scores/"),
        ("roc", [("run x", {**EMPTY, "verification": {}})], {}, "run x: verification: no pairs"),
        ("roc", DATA["roc"], {"protocol": "other"}, "known: verification, cross_verification"),
        ("roc", [("run x", [1])], {}, "must be an object"),
        (
            "sweep",
            [("run x", {"rows": [], "provenance": {"created": ""}})],
            {},
            "run x: rows: .*; not what vidface wrote, run `vidface sweep` again",
        ),
        ("clip", DATA["roc"], {}, "one clip"),
        ("clip", [("", faces(0))], {}, "no faces"),
    ],
)
def test_refusals(name, data, options, message):
    with pytest.raises(VidfaceError, match=message):
        figure_svg(name, data, **options)


def test_eight_runs_are_drawn():
    count = laid_out("roc", DATA["roc"] * 8, lambda f: len(f.legends[0].get_texts()))
    assert count == 8


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.svgz", ".svg"])
def test_an_unknown_suffix_lists_the_known(tmp_path, name):
    with pytest.raises(VidfaceError, match=r"known: .svg, .pdf, .png"):
        write_figure(tmp_path / name, "roc", DATA["roc"])
    assert list(tmp_path.iterdir()) == []


def test_clip_faces_of_unlike_lengths():
    with pytest.raises(VidfaceError, match=r"clusters must be \(1,\) integers, one a crop"):
        ClipFaces("a", [b""], np.array([0, 1]), np.array([0.0]))


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.style", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(VidfaceError, match=r"pip install 'vidface\[report\]'"):
        figure_svg("roc", DATA["roc"])


def test_matplotlib_waits_until_it_is_needed():
    code = (
        "import sys, vidface.cli.plots, vidface.reports.figures.sources, vidface.runs.scoring; "
        "from vidface.reports.figures import roc, sweep, clip; "
        "sys.exit('matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


BAD = [None, True, "x", -1, 2, 1e400, 10**400, float("nan"), [], {}, [None], "<b>", 1.5]


@examples(150)
@given(st.data())
def test_what_strangers_write_is_refused_or_drawn(data):
    document = copy.deepcopy(data.draw(st.sampled_from([DOCUMENT, sweep_document()])))
    parent, here = None, document
    for _ in range(data.draw(st.integers(1, 6))):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        parent, key = here, data.draw(st.sampled_from(keys))
        here = here[key]
        if not isinstance(here, (dict, list)):
            break
    parent[key] = data.draw(st.sampled_from(BAD))
    kind, read = ("sweep", read_series) if "rows" in document else ("curves", read_roc_of_pairs)
    try:
        said = f"{read('a', check_document(document, kind, 'a')).label}: "
    except VidfaceError as error:
        said = str(error)
    assert said.startswith("a: ")


def read_roc_of_pairs(label, document):
    return read_roc(label, document, "verification")


# Files of runs


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(VidfaceError, match="cannot be read"):
        read_document(tmp_path / "none.json", "curves")
    with pytest.raises(VidfaceError, match="neither a run directory nor a file"):
        find_source(tmp_path / "none", "scores")
    with pytest.raises(VidfaceError, match=r"no .curves.json file; run `vidface score` first"):
        find_source(tmp_path, "scores")


@pytest.fixture
def run_folder(tmp_path):
    """A run with two scores and a sweep."""
    folder = tmp_path / "run $x$"
    (folder / "scores").mkdir(parents=True)
    (folder / "sweeps").mkdir()
    for name, created in (
        ("val_threshold_0.4", "2026-01-02"),
        ("val_threshold_none", "2026-01-01"),
    ):
        document = {**DOCUMENT, "denoising": name, "provenance": {"created": created}}
        (folder / "scores" / f"{name}.curves.json").write_text(json.dumps(document))
        (folder / "scores" / f"{name}.json").write_text("{}")
    (folder / "sweeps" / "val.json").write_text(json.dumps(sweep_document()))
    (folder / "run.json").write_text(json.dumps({"cluster": {"threshold": 0.45}}))
    return folder


def test_the_last_score_is_drawn_unless_another_is_named(run_folder):
    assert find_source(run_folder, "scores").path.name == "val_threshold_0.4.curves.json"
    named = find_source(run_folder, "scores", "none")
    assert named.path.name == "val_threshold_none.curves.json"
    assert find_source(named.path, "scores").document["denoising"] == "val_threshold_none"
    assert find_source(run_folder, "sweeps").path.name == "val.json"
    with pytest.raises(VidfaceError, match=r"no .curves.json file whose name holds 'test'"):
        find_source(run_folder, "scores", "test")
    with pytest.raises(VidfaceError, match="not curves"):
        find_source(run_folder / "scores" / "val_threshold_0.4.json", "scores")
    with pytest.raises(VidfaceError, match="not a sweep"):
        find_source(named.path, "sweeps")
    later = {**DOCUMENT, "version": 2}
    named.path.write_text(json.dumps(later))
    with pytest.raises(VidfaceError, match="curves of version 2, this vidface reads 1"):
        find_source(named.path, "scores")


def test_labels_tell_runs_apart(run_folder):
    a, b = find_source(run_folder, "scores"), find_source(run_folder, "scores", "none")
    other = SimpleNamespace(run_name="other", settings_name="x")
    assert label_sources([a]) == ["run $x$"]
    assert label_sources([a, other]) == ["run $x$", "other"]
    assert label_sources([a, b]) == ["val_threshold_0.4", "val_threshold_none"]
    assert label_sources([a, b, other])[1:] == ["run $x$, val_threshold_none", "other, x"]
    assert label_sources([a, b], ["1", "2"]) == ["1", "2"]
    with pytest.raises(VidfaceError, match="1 labels for 2 runs"):
        label_sources([a, b], ["1"])


def test_the_threshold_that_is_marked(run_folder, tmp_path):
    assert find_chosen_threshold(tmp_path) is None
    assert find_chosen_threshold(run_folder) == 0.45

    def select(name, created, thresholds):
        document = {"honest": {"thresholds": thresholds}, "provenance": {"created": created}}
        (run_folder / "sweeps" / f"selected_{name}.json").write_text(json.dumps(document))

    select("a", "2026-01-01", [0.3, 0.3])
    select("b", "2026-01-02", [0.3, 0.35])  # folds that disagree chose no one threshold
    assert find_chosen_threshold(run_folder) == 0.3
    select("c", "2026-01-03", [None])
    assert find_chosen_threshold(run_folder) is None
    assert find_source(run_folder, "sweeps").path.name == "val.json"
    (run_folder / "sweeps" / "selected_d.json").write_text('{"honest": [1]}')
    assert find_chosen_threshold(run_folder) is None


# The command


def invoke(*words):
    return CliRunner().invoke(plot, [os.fspath(word) for word in words])


@pytest.mark.parametrize("name", ["roc", "sweep"])
def test_the_command_draws(run_folder, tmp_path, name):
    out = tmp_path / f"{name}.svg"
    done = invoke(name, run_folder, "--out", out)
    assert done.exit_code == 0, done.output
    assert "drawn from" in done.output
    ElementTree.parse(out)


def test_the_command_takes_several_runs_and_says_what_it_drew(run_folder, tmp_path):
    scores = sorted((run_folder / "scores").glob("*.curves.json"))
    out = tmp_path / "x.svg"
    done = invoke("det", *scores, "--out", out, "--label", "a", "--label", "b", "--json", "--cross")
    assert json.loads(done.output) == {"out": str(out), "drawn_from": [str(s) for s in scores]}
    expected = tmp_path / "y.svg"
    data = [("a", read_document(scores[0], "curves")), ("b", read_document(scores[1], "curves"))]
    write_figure(expected, "det", data, protocol="cross_verification")
    assert out.read_bytes() == expected.read_bytes()


@pytest.mark.slow
def test_the_command_marks_thresholds(run_folder, tmp_path):
    def drawn(*words):
        out = tmp_path / "x.svg"
        assert invoke("sweep", run_folder, "--out", out, *words).exit_code == 0
        return out.read_bytes()

    document = [("run $x$", sweep_document())]
    for words, chosen in (((), 0.45), (("--chosen", "0.4"), 0.4), (("--chosen", "none"), None)):
        write_figure(tmp_path / "y.svg", "sweep", document, chosen=(chosen,))
        assert drawn(*words) == (tmp_path / "y.svg").read_bytes()


def test_the_command_refuses(run_folder, tmp_path):
    assert isinstance(invoke("roc", run_folder, "--out", "x.gif").exception, VidfaceError)
    assert invoke("rok", run_folder, "--out", "x.svg").exit_code == 2
    assert invoke("roc", run_folder).exit_code == 2
    wrong = ["--chosen", "0.1", "--chosen", "0.2"]
    assert invoke("sweep", run_folder, "--out", tmp_path / "x.svg", *wrong).exit_code == 2
    bad = invoke("sweep", run_folder, "--out", tmp_path / "x.svg", "--chosen", "7").exception
    assert isinstance(bad, UsageError)
    assert not (tmp_path / "x.svg").exists()
