"""What a check says: one remark a line, for people and for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OK, LOOK, STOP = "ok", "look", "stop"
_WIDTH = 80  # columns
_LISTED = 5
_LONGEST = 100  # characters of a part of a list


@dataclass(frozen=True)
class Remark:
    """Something that was found.

    >>> print(Remark(LOOK, "files", "1 empty (line 3: 'a.mp4'): it will fail"))
    look  files       1 empty (line 3: 'a.mp4'): it will fail
    """

    level: str  # "ok", "look" (it deserves one) or "stop" (a run would end here, or in vain)
    about: str  # "manifest", "files", "scores", …
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)  # the text's numbers, for programs

    def __str__(self) -> str:
        head = f"{self.level:<5} {self.about:<11} "
        lines = textwrap.TextWrapper(
            _WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
        return lines.fill(self.text)


def size_text(size_bytes: float) -> str:
    """A number of bytes in the unit that suits it.

    >>> size_text(1234), size_text(5.4e6), size_text(2e12)
    ('1 kB', '5.4 MB', '2.0 TB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes / 1e3:.0f} kB"


def list_text(parts: Sequence[str]) -> str:
    """The first few of many, none of them long, and how many more there are.

    >>> list_text(["a", "b"]), list_text("abcdefg")
    ('a; b', 'a; b; c; d; e; and 2 more')
    """
    short = [part if len(part) <= _LONGEST else f"{part[: _LONGEST - 1]}…" for part in parts]
    more = [f"and {len(parts) - _LISTED} more"] if len(parts) > _LISTED else []
    return "; ".join([*short[:_LISTED], *more])
