"""What is known before hours of work, and runs of a few clips."""

from __future__ import annotations

from pathlib import Path

from vidface.runs.run_folder import RunFolder


def test_a_limited_run_goes_all_the_way_in_its_own_directory(
    vidface, colour_pipeline: Path
) -> None:
    flags = ("--pipeline", colour_pipeline, "--limit", "6")
    for command in (("extract",), ("cluster",), ("score",)):
        result = vidface(*command, *flags)
        assert result.code == 0, result.err
    whole, limited = (RunFolder(colour_pipeline.parent / name) for name in ("run", "run-limit-6"))
    assert not whole.folder.exists()
    clips = limited.read_clips()[0]["clip_id"].to_pylist()
    assert clips == ["red.t", "red.v", "green.t", "green.v", "blue.t", "blue.v"]
    assert '"limit": 6' in limited.pipeline_path.read_text()
    # One of all clips is never cut down to a few.
    assert vidface("extract", *flags[:2]).code == 0
    refused = vidface("extract", *flags, "--run", whole.folder)
    assert refused.code == 1
    assert "manifest.limit: none (there) ≠ 6 (asked for)" in refused.err
