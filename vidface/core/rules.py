"""What changed between versions in how clips are read: a run keeps the rules it began with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ReadingRules:
    """What new runs do; a run made before a rule was there does not.

    An extraction's provenance records its rules under the key `rules`. One that goes on, or whose
    failed clips are done again, follows what is recorded there, so that rules never mix in a run.

    Attributes:
        joined_clocks: where a clock starts anew in a container without one clock, the time goes on.
        square_pixels: pictures are stretched to square pixels before faces are sought.
        tone_mapping: HLG and PQ pictures become SDR ones.
        all_pictures: an animated WebP, PNG or AVIF file is a clip, else its first picture alone is
            read; folders' .jfif, .jpe, .avif, .jp2 … are read as their .jpg are.
        faces_apart: where all faces of a frame are taken, union-find takes two of one frame for two
            people, unless its setting `same_frame` says otherwise.
    """

    joined_clocks: bool = True
    square_pixels: bool = True
    tone_mapping: bool = True
    all_pictures: bool = True
    faces_apart: bool = True

    @classmethod
    def as_before(cls) -> ReadingRules:
        """Return the rules of runs that record none."""
        return cls(**{field.name: False for field in fields(cls)})

    @classmethod
    def from_record(cls, recorded: Any) -> ReadingRules:
        """Return the rules that a provenance records; what it doesn't name was not done.

        >>> ReadingRules.from_record(None) == ReadingRules.as_before()
        True
        """
        names = recorded if isinstance(recorded, Mapping) else {}
        return cls(**{field.name: names.get(field.name) is True for field in fields(cls)})

    def to_record(self) -> dict[str, bool]:
        """Return the rules as a provenance records them."""
        return asdict(self)


NEW_RULES = ReadingRules()
"""What a run that begins now follows."""
