"""What a report is made of: its settings, and all that its sections and its script are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidface.core.errors import VidfaceError
from vidface.reports.gather import RunData
from vidface.reports.picks import Picks
from vidface.reports.printed_charts import ChartPrinter
from vidface.reports.pseudonyms import Names
from vidface.runs.comparison import Comparison

MOST_CLIPS = 240
"""Clips shown in pictures, in the whole report."""


@dataclass(frozen=True)
class ReportSettings:
    """What goes into a report.

    Raises:
        VidfaceError: a number of clips below 0.
    """

    faces: bool = True  # False: every picture is left out
    pseudonymise: bool = False  # numbers instead of identities and clip ids
    compare: bool = True  # paired differences, where there are several runs
    most_clips: int = MOST_CLIPS
    command: str = ""  # that made the report, to be shown in it

    def __post_init__(self) -> None:
        if self.most_clips < 0:
            raise VidfaceError(f"most_clips must be 0 or more, got {self.most_clips}")


@dataclass(frozen=True)
class ReportContents:
    """The runs of a report, what is shown of them, and under which names."""

    runs: Sequence[RunData]
    picks: Sequence[Picks]  # of each run
    comparisons: Sequence[Comparison | str]  # of the first run with each other one; or why none
    names: Names
    settings: ReportSettings
    printer: ChartPrinter
