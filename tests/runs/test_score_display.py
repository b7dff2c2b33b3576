"""What a score shows of itself: a line a figure, a table of a notebook, columns, figures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import vidface
from tests.made_scores import made_score
from vidface.core.errors import VidfaceError
from vidface.metrics.figures import FigureList, NamedFigure
from vidface.metrics.uncertainty import Replicates
from vidface.runs.scoring import Score

FIGURES = (
    NamedFigure("a", "mAP@100", 0.5, Replicates(np.array([0.25] * 20 + [0.75] * 20))),
    NamedFigure("b.1e-9", "TAR@FAR 1e-9", None, note="needs <more> pairs"),
)


def make(figures: Sequence[NamedFigure] = FIGURES) -> Score:
    score = made_score({"retrieval": FigureList(tuple(figures))})
    return replace(score, people=3, denoising="<trim>")


def test_it_prints_a_figure_a_line() -> None:
    assert repr(make()).splitlines() == [
        "Score(val against train, <trim>: 0 clips, 3 people)",
        "  mAP@100       0.5000 [0.2500, 0.7500]",
        "  TAR@FAR 1e-9  needs <more> pairs",
    ]
    assert repr(make(())) == "Score(val against train, <trim>: 0 clips, 3 people)"


def test_its_html_is_escaped() -> None:
    html = make()._repr_html_()
    assert html.count("<tr>") == 2
    assert "<td>0.5000 [0.2500, 0.7500]</td>" in html
    assert "needs &lt;more&gt; pairs" in html
    assert "&lt;trim&gt;" in html
    assert "<trim>" not in html


def test_its_columns() -> None:
    table = make().to_arrow()
    assert table.to_pylist() == [
        {"protocol": "retrieval", "figure": "a", "label": "mAP@100", "value": 0.5, "low": 0.25,
         "high": 0.75, "note": ""},
        {"protocol": "retrieval", "figure": "b.1e-9", "label": "TAR@FAR 1e-9", "value": None,
         "low": None, "high": None, "note": "needs <more> pairs"},
    ]  # fmt: skip
    assert make(()).to_arrow().schema == table.schema


def test_a_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidface.runs.scoring.find_spec", lambda name: None)
    with pytest.raises(VidfaceError, match=r"pip install pandas; to_arrow needs nothing more"):
        make().to_frame()


@pytest.fixture
def score(colour_clips: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    monkeypatch.chdir(colour_clips.parent)
    with colour_clips.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return vidface.evaluate(
        rows, lambda crops: crops.mean(axis=(1, 2)), 0.9, source="aligned", bootstrap=20
    )


def test_it_draws_itself(score: Score, tmp_path: Path) -> None:
    """As the command does, from the same curves; a notebook finds a picture."""
    figure = score.plot()  # no two clips of one person, so no ROC
    assert "precision" in figure.axes[0].get_ylabel()
    assert figure.axes[0].collections  # the band of the bootstrap
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(score.plot("cmc").axes) == 1
    figure.savefig(tmp_path / "pr.svg")
    with pytest.raises(VidfaceError, match=r"unknown figure 'sweep' \(known: roc, det, pr"):
        score.plot("sweep")
    with pytest.raises(VidfaceError, match="val: no verification in it"):
        score.plot("roc")
