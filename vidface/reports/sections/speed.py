"""Where the time of the extractions went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.runs.profiles import STAGES, Profile


def describe_speed(contents: ReportContents) -> Mapping[str, Any]:
    """The values of the template: of each run's profile its stages and its rates."""
    return {
        "runs": [
            (run.label, _stage_rows(run.profile), _rates(run.profile))
            if run.profile is not None and run.profile.wall_seconds and any(
                run.profile.stages.get(name) for name in STAGES)
            else (run.label, (), ())
            for run in contents.runs
        ]
    }  # fmt: skip


def _stage_rows(profile: Profile) -> list[tuple[str, str, str]]:
    seconds = {name: profile.stages[name] for name in STAGES if name in profile.stages}
    total = sum(seconds.values())
    return [(name, f"{value:.2f}", f"{value / total:.1%}") for name, value in seconds.items()]


def _rates(profile: Profile) -> list[tuple[str, str]]:
    wall = profile.wall_seconds
    return [
        ("time in all", f"{wall:.1f} s"),
        *(
            (what, f"{count:,.0f}, {count / wall:,.1f} a second")
            for what, count in (("clips", profile.clips), ("frames", profile.frames),
                                ("faces", profile.faces))
        ),
        ("decoding processes", f"{profile.workers}"),
        ("recogniser run by", profile.runtime),
        ("limit", profile.limit),
    ]  # fmt: skip
