"""Values that everyone shares: sizes, rates, lists, checks of settings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vidface.core.errors import UsageError, VidfaceError

if TYPE_CHECKING:
    from fractions import Fraction

CROP_SIZE = 112  # pixels


UNUSABLE = -1
"""The label of an embedding that has no direction (NaN, infinite or zero): never a member."""


def check(condition: bool, key: str, problem: str) -> None:
    """Raise VidfaceError "key: problem" unless the condition holds."""
    if not condition:
        raise VidfaceError(f"{key}: {problem}")


def check_array(what: str, array: Any, shape: tuple[int, ...], dtype: str) -> None:
    """Raise VidfaceError unless an array has this shape and dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise VidfaceError(f"{what} must be {shape} {dtype}, got {array.shape} {array.dtype}")


def check_name(what: str, name: object, known: Iterable[str]) -> None:
    """Raise UsageError that lists what is known unless a name is one of it.

    >>> check_name("split", "vla", ["train", "val"])
    Traceback (most recent call last):
    vidface.core.errors.UsageError: unknown split 'vla' (known: train, val)
    """
    names = list(known)  # a name of a settings file may be a list, which is not hashable
    if name not in names:
        raise UsageError(f"unknown {what} '{name}' (known: {', '.join(names)})")


def check_choice(key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise UsageError that lists what is known unless the value is one of it."""
    if value not in known:
        raise UsageError(f"{key}: unknown value '{value}' (known: {', '.join(known)})")


def check_device(key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise VidfaceError unless a device is one of those known, with or without a number."""
    check_choice(key, value.split(":")[0], known)


def split_list(text: str) -> tuple[str, ...]:
    """The parts of a comma list.

    >>> split_list("1e-3, 1e-4,")
    ('1e-3', '1e-4')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def cell_text(value: object) -> str:
    """A table's cell as a CSV would hold it: nothing for None and for not-a-number.

    >>> cell_text(7), cell_text(None), cell_text(float("nan")), cell_text(b"a")
    ('7', '', '', 'a')
    """
    if value is None or value != value:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def exact_rate(text: str) -> Fraction | None:
    """The exact value of a rate's text, in (0, 1]; None for anything else.

    >>> exact_rate("1e-4"), exact_rate("2"), exact_rate("1e-99999999")
    (Fraction(1, 10000), None, None)
    """
    from fractions import Fraction

    exponent = re.search(r"[eE][+-]?([0-9_]+)\s*$", text)
    if len(text) > 64 or (exponent and len(exponent[1]) > 3):
        return None  # an exact fraction of it would take hours
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return value if 0 < value <= 1 else None


def size_bytes(text: str, what: str) -> int:
    """A size such as `2GiB` or `500MB` as a number of bytes.

    >>> size_bytes("1.5GiB", "memory"), size_bytes("2 kB".upper(), "memory")
    (1610612736, 2000)

    Raises:
        VidfaceError: no size, or nothing, or too much for 63 bits.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(|[KMGT]i?B?|B)\s*", text)
    unit = match[2].replace("B", "") if match else ""
    base = 1024 if unit.endswith("i") else 1000
    power = ["", "K", "M", "G", "T"].index(unit[:1])
    size = float(match[1]) * base**power if match else 0.0
    if not 1 <= size < 2**63:
        raise VidfaceError(f'{what}: a size such as "2GiB" or "500MB", not {text!r}')
    return int(size)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What steers terminals; joiners, which names in some scripts need, are none of them."""


def guard_cell(value: Any) -> Any:
    """A cell of an exported table: text that a spreadsheet would run begins with an apostrophe.

    Numbers stay numbers; `unguard_cell` takes the apostrophe off.

    >>> [guard_cell(value) for value in ("ann", "=1+1", "-2", -2, "'tis", "a\x1b[31m")]
    ['ann', "'=1+1", "'-2", -2, "''tis", 'a�[31m']
    """
    if not isinstance(value, str):
        return value
    text = CONTROL_CHARACTERS.sub("�", value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "'")) else text


def unguard_cell(text: str) -> str:
    """What `guard_cell` made a cell of."""
    return text.removeprefix("'")


def printable(text: str) -> str:
    """Text of strangers (clip ids, paths) without the control characters that steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


MAX_PIXELS = 2**26  # 8192 × 8192; a damaged header may declare anything
MOST_PICTURE_BYTES = 2**30  # that a picture's file has, and that its decoding takes: half of
# what --clip-memory allows by default
