"""Texts cut to the room there is, whatever measures them."""

from __future__ import annotations

from collections.abc import Callable


def cut_middle(text: str, left: int) -> str:
    """`left` characters of a text; names differ mostly at their ends, so the middle goes."""
    return f"{text[: left // 2]}…{text[len(text) - (left - left // 2) :]}"


def fit_by_cutting(
    text: str, fits: Callable[[str], bool], cut: Callable[[str, int], str] = cut_middle
) -> str:
    """The text, or as many of its characters as fit, with `…` for the others.

    Args:
        fits: whether a text has room; a shorter one must where a longer one does.
        cut: (text, characters that may stay) → the shorter text; `cut_middle` unless given.

    >>> fit_by_cutting("abcdefgh", lambda text: len(text) <= 5)
    'ab…gh'
    """
    if fits(text):
        return text
    low, high = 0, len(text)  # cut(low) fits, or nothing does; cut(high) does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(cut(text, middle)) else (low, middle)
    return cut(text, low)


def cut_end(text: str, left: int) -> str:
    """The first `left` characters of a text."""
    return f"{text[:left]}…"
