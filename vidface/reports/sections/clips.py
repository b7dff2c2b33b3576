"""The table of all clips, which the script fills, sorts and filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vidface.reports.contents import ReportContents
from vidface.reports.gather import COSINES

CLIP_COLUMNS = {
    "clip_id": "clip",
    "identity": "identity",
    "split": "split",
    "state": "state",
    "message": "message",
    "frames": "frames",
    "faces": "faces",
    "kept": "kept",
    "dropped": "dropped",
    "clusters": "clusters",
    "lowest_similarity": "lowest similarity",
    "second_share": "second cluster",
    "second_cosine": "cosine to the second",
    "still_share": "one picture",
    "ap": "AP of identity",
    "flags": "flags",
}
_TEXTS = ("clip_id", "identity", "split", "state", "message", "flags")
_FROM_CLUSTERING = ("kept", "dropped", "clusters", *COSINES, "flags")


def describe_clip_table(contents: ReportContents) -> Mapping[str, Any]:
    """The values of the template: columns that any run has, and what filters offer."""
    runs = contents.runs
    absent: set[str] = set()
    if not any(run.clips.counts for run in runs):
        absent |= set(_FROM_CLUSTERING)
    if not any(run.average_precision for run in runs):
        absent.add("ap")
    if not any(any(run.clips.messages) for run in runs):
        absent.add("message")
    return {
        "runs": [run.label for run in runs],
        "columns": [
            (name, label, name not in _TEXTS)
            for name, label in CLIP_COLUMNS.items()
            if name not in absent
        ],
        "flags": _choices(dict.fromkeys(flag for run in runs for flag in run.clips.flags)),
        "states": _choices(sorted({state for run in runs for state in run.clips.states})),
        "splits": _choices(sorted({split for run in runs for split in run.clips.splits if split})),
    }


def _choices(names: Iterable[str]) -> list[tuple[str, str]]:
    """Of a filter: the value of each choice and its text, which are the same."""
    return [(name, name) for name in names]
