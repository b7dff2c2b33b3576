from __future__ import annotations

import pytest

from vidface.errors import VidfaceError
from vidface.sweeps import parse_threshold, parse_thresholds


def test_stop_is_included_and_decimals_are_exact() -> None:
    values = parse_thresholds("0:0.7:0.05")
    assert len(values) == 15
    assert values[6] == 0.3  # 6 * 0.05 is 0.30000000000000004 in binary
    assert values[-1] == 0.7
    assert parse_thresholds("0.1:0.25:0.1") == [0.1, 0.2]
    assert parse_thresholds("0.4:0.4:0.1") == [0.4]
    assert parse_thresholds("-1:1:1") == [None, 0.0, 1.0]
    assert parse_thresholds("-1,0:0.2:0.1") == [None, 0.0, 0.1, 0.2]
    assert len(parse_thresholds("0:0.999:0.001")) == 1000
    assert parse_thresholds("-1, 0,0.1") == [None, 0.0, 0.1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a number"),
        ("a", "'a' is not a number"),
        ("0:1", "START:STOP:STEP"),
        ("0.1,,0.2", "'' is not a number"),
        ("0:1:0", "STEP must be above 0"),
        ("1:0:0.1", "STOP not below START"),
        ("0:1:0.000001", "more than 1000 of them"),
        ("0:2:0.5", r"a cosine lies in \[-1, 1\]"),
        ("nan", "is not a number"),
        ("1.01", r"a cosine lies in \[-1, 1\]"),
    ],
)
def test_wrong_thresholds(text: str, message: str) -> None:
    with pytest.raises(VidfaceError, match=message):
        parse_thresholds(text)


def test_spellings_of_no_clustering() -> None:
    assert parse_threshold("NONE") is None
    assert parse_threshold("-1.0") is None
    assert parse_threshold("-0.999") == -0.999
