"""Clips by state, the failure-to-acquire rate, the clips that failed with their messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.reports.gather import RunData, describe_clip_state
from vidface.reports.pseudonyms import Names
from vidface.reports.sections.summary import count_states
from vidface.reports.templating import format_share

MOST_FAILURES = 500
"""Clips that failed, listed one by one; the table of clips has the others."""


def describe_failures(contents: ReportContents) -> Mapping[str, Any]:
    """The values of the failures' template."""
    return {"runs": [_describe_run(run, contents.names) for run in contents.runs]}


def _describe_run(run: RunData, names: Names) -> Mapping[str, Any]:
    clips = run.clips
    failed = [row for row, state in enumerate(clips.states) if state != "ok"]
    acquired = run.scores[-1].failures() if run.scores else ()
    return {
        "label": run.label,
        "states": [
            (state, f"{n:,}", format_share(n / len(clips)))
            for state, n in count_states(clips.states).items()
        ],
        "acquired": [
            (name, f"{lost:,}", f"{of:,}", "n/a" if rate is None else f"{rate:.2%}")
            for name, of, lost, rate in acquired
        ],
        "failed": len(failed),
        "rows": [
            (
                names.clip(clips.clip_ids[row]),
                clips.states[row],
                describe_clip_state(run, row, names),
            )
            for row in failed[:MOST_FAILURES]
        ],
    }
