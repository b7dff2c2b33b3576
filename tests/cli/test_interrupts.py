"""Ctrl-C and SIGTERM at any moment of a command's start-up, of real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_command_ends_without_a_traceback(
    name: str, colour_pipeline: Path, tmp_path: Path
) -> None:
    """Twenty moments, from Python's own start to the middle of an extraction."""
    command = [sys.executable, "-m", "vidface", "extract", "--force", "--pipeline", colour_pipeline]
    for number in range(20):
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process:
            time.sleep(0.06 * (number + 1))  # Python's own start is before it
            process.send_signal(getattr(signal, name))
            _, err = process.communicate(timeout=60)
        assert "Traceback" not in err, (number, err)
        assert process.returncode in (0, 1, -signal.SIGINT, -signal.SIGTERM), (number, err)
        if process.returncode == 1:
            assert err.splitlines()[-1].startswith("vidface: error: interrupted"), (number, err)
    assert list(tmp_path.rglob("*.part")) == []
