"""The sections of a report, in their order: each a function here and a template beside.

To add one: a module with a function that gives the template's values (None: no such section in
this report), a row in `SECTIONS`, and `templates/sections/NAME.html`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.reports.sections.clips import describe_clip_table
from vidface.reports.sections.curves import describe_curves
from vidface.reports.sections.differences import describe_differences
from vidface.reports.sections.failures import describe_failures
from vidface.reports.sections.frames import describe_frames
from vidface.reports.sections.speed import describe_speed
from vidface.reports.sections.summary import describe_summary
from vidface.reports.sections.sweep import describe_sweeps

SECTIONS: dict[str, tuple[str, Callable[[ReportContents], Mapping[str, Any] | None]]] = {
    "summary": ("Summary", describe_summary),
    "differences": ("Differences", describe_differences),
    "curves": ("Curves", describe_curves),
    "sweep": ("Threshold sweep", describe_sweeps),
    "frames": ("Frames", describe_frames),
    "clips": ("Clips", describe_clip_table),
    "failures": ("Failures", describe_failures),
    "speed": ("Speed", describe_speed),
}
"""Name → heading, and what gives the values of `templates/sections/NAME.html`."""
