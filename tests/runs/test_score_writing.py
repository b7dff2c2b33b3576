"""Score files, and the curves and tables beside them."""

import csv
import json

import numpy as np

from tests.made_scores import made_score
from vidface.metrics.curves import verification_block
from vidface.metrics.verification import score_verification
from vidface.reports.scores import read_average_precision
from vidface.runs.score_writing import curves_document, curves_path, write_csv, write_score


def test_the_document_of_a_score():
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 2, 3]]
    scored = score_verification(rows, list("aabbcd"), ["0.5", "1e-1"])
    found = curves_document(
        made_score({"verification": scored, "cross-verification": scored}), "val.json"
    )
    assert found["format"] == "vidface-curves"
    assert found["version"] == 1
    assert found["verification"] == found["cross_verification"] == verification_block(scored)
    assert "retrieval" not in found
    assert "identification" not in found
    assert found["provenance"] == {"created": "now", "stage": "curves"}
    assert (found["score"], found["split"], found["threshold"]) == ("val.json", "val", 0.4)
    json.dumps(found, allow_nan=False)


def test_curves_are_stored_beside_the_score_and_old_ones_go(tmp_path):
    path = tmp_path / "scores" / "val_threshold_0.4.json"
    write_score(path, {"a": 1}, [], print, {"b": 2})
    beside = path.with_name("val_threshold_0.4.curves.json")
    assert curves_path(path) == beside
    assert json.loads(beside.read_text()) == {"b": 2}
    write_score(path, {"a": 1}, [], print)
    assert not beside.exists()
    assert path.exists()


def test_tables_of_an_earlier_score_go(tmp_path):
    path = tmp_path / "scores" / "val.json"
    write_score(path, {"a": 1}, [{"roc": [("far", "tar"), (0, 1)]}], print)
    assert path.with_name("val_roc.csv").read_text().split() == ["far,tar", "0,1"]
    write_score(path, {"a": 1}, [{"average_precision": [("identity",)]}], print)
    assert not path.with_name("val_roc.csv").exists()
    assert path.with_name("val_average_precision.csv").exists()


def test_no_cell_is_a_formula_and_the_report_reads_what_was_meant(tmp_path):
    names = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-2+3", "'tis", "''", "ann", "a,b"]
    rows = [("identity", "average_precision"), *((name, 0.5) for name in names), ("bob", -0.25)]
    path = tmp_path / "ap.csv"
    write_csv(path, rows)
    with path.open(newline="", encoding="utf-8") as file:
        cells = list(csv.reader(file))[1:]
    assert not [cell for cell, _ in cells if cell.startswith(tuple("=+-@"))]
    assert cells[-1] == ["bob", "-0.25"]  # a number stays one
    assert list(read_average_precision(path)) == [*names, "bob"]
