"""What a long call tells on its way: the kinds of callbacks, and the one that tells nobody."""

from __future__ import annotations

from collections.abc import Callable

Notify = Callable[[str], None]  # a line for people: what was resumed, assumed or left out
CountProgress = Callable[[int], None]  # how many (images, pairs) were done since the last call
ClipProgress = Callable[[int, int, int], None]  # clips, frames and faces since the last call


def quiet(text: str) -> None:
    """A `Notify` that tells nobody."""
