"""What a report calls people, clips and files: by their names, or by numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

LEFT_OUT = "(left out: it may name somebody)"


class Names:
    """Names as they are, or numbers instead of them, the same in all runs of a report.

    Numbers follow the SHA-256 of the names, so that they are the same whenever a report of the same
    clips is made, and an alphabet does not shine through. They are pseudonyms, no anonymity: who
    has the list of names can work them out.

    >>> names = Names(["ann", "bob"], ["bob/1.mp4"], hidden=True)
    >>> names.identity("ann"), names.identity(""), names.clip("bob/1.mp4")
    ('person 1', '', 'clip 1')
    >>> names.message("cannot read bob/1.mp4", ["bob/1.mp4", "bob"])
    'cannot read …'
    """

    def __init__(
        self, identities: Iterable[str], clip_ids: Iterable[str], *, hidden: bool = False
    ) -> None:
        """
        Args:
            identities, clip_ids: of all runs; doubles count once, "" is nobody.
            hidden: numbers instead of names.
        """
        self.hidden = hidden
        self._identities = _numbered(identities, "person") if hidden else {}
        self._clips = _numbered(clip_ids, "clip") if hidden else {}

    def identity(self, name: str) -> str:
        return self._identities.get(name, "") if self.hidden else name

    def clip(self, clip_id: str) -> str:
        return self._clips.get(clip_id, "") if self.hidden else clip_id

    def path(self, text: str) -> str:
        """Of anything that may hold a name and is not needed to read the report."""
        return LEFT_OUT if self.hidden and text else text

    def message(self, text: str, names: Iterable[str]) -> str:
        """A message about a clip, without the clip's own `names`; paths go altogether."""
        if not self.hidden:
            return text
        for name in sorted({name for name in names if name}, key=len, reverse=True):
            text = text.replace(name, "…")
        return LEFT_OUT if "/" in text or "\\" in text else text


def _numbered(names: Iterable[str], what: str) -> dict[str, str]:
    distinct = sorted({name for name in names if name}, key=_digest)
    return {name: f"{what} {number}" for number, name in enumerate(distinct, start=1)}


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
