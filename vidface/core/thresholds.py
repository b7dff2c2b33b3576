"""Cosine thresholds: their text, their names, and what no clustering is called."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from vidface.core.errors import UsageError
from vidface.core.values import check

MOST_THRESHOLDS = 1000
NO_CLUSTERING = "none"  # how None, "every usable face is kept", is written everywhere


def check_threshold(key: str, cosine: float | None) -> float | None:
    """A threshold as it is used inside: a cosine, or None for no clustering, which −1 means too.

    Raises:
        VidfaceError: "key: …" for what is no cosine.

    >>> check_threshold("threshold", 0.4), check_threshold("threshold", -1)
    (0.4, None)
    """
    if cosine is None:
        return None
    check(-1 <= cosine <= 1, key, f'a cosine in [-1, 1] or "{NO_CLUSTERING}", not {cosine}')
    return None if cosine == -1 else cosine


def parse_threshold(text: str) -> float | None:
    """A cosine in [-1, 1], or None for `none` and -1: no clustering, by definition.

    >>> parse_threshold("0.4"), parse_threshold("none"), parse_threshold("-1")
    (0.4, None, None)
    """
    if text.strip().lower() == NO_CLUSTERING:
        return None
    value = _decimal(text)
    if not -1 <= value <= 1:
        raise UsageError(f"threshold '{text.strip()}': a cosine lies in [-1, 1]")
    return None if value == -1 else float(value)


def parse_thresholds(text: str) -> list[float | None]:
    """A comma list of thresholds and ranges `START:STOP:STEP`, which include STOP.

    In decimal arithmetic: 0:0.7:0.05 holds 0.3, and 0.7.

    >>> parse_thresholds("0:0.3:0.1")
    [0.0, 0.1, 0.2, 0.3]
    >>> parse_thresholds("none, 0.35,0.4:0.6:0.1")
    [None, 0.35, 0.4, 0.5, 0.6]
    """
    values: list[float | None] = []
    for part in text.split(","):
        values += _range(part) if ":" in part else [parse_threshold(part)]
        if len(values) > MOST_THRESHOLDS:
            raise UsageError(f"thresholds '{text}': more than {MOST_THRESHOLDS} of them")
    return values


def _range(text: str) -> list[float | None]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"thresholds '{text}': write START:STOP:STEP, as in 0:0.7:0.05")
    start, stop, step = (_decimal(part) for part in parts)
    if step <= 0 or stop < start:
        raise UsageError(f"thresholds '{text}': STEP must be above 0 and STOP not below START")
    count = min(int((stop - start) / step), MOST_THRESHOLDS) + 1
    return [parse_threshold(str(start + i * step)) for i in range(count)]


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise UsageError(f"threshold '{text.strip()}' is not a number")
    return value


def threshold_name(threshold: float | None) -> str:
    """How a threshold is written in names and tables: `0.4`, or `none`."""
    return NO_CLUSTERING if threshold is None else str(float(threshold) + 0.0)  # + 0.0: −0 is 0
