"""Reads clips one after the other in a process of its own that may crash, hang or run full.

    python tests/media_worker.py < lines of {"path": …, "threads": …}

For each line in, a line out: {"path", "state" ("ok", a ClipError's, or "bug"), "message",
"frames", "samples" (of at most 400 pictures: source_time_seconds and every 8th pixel of every 8th
row, base64), "cpu_seconds", "peak_bytes"}.
"""

from __future__ import annotations

import base64
import contextlib
import json
import resource
import signal
import sys
import time
from pathlib import Path

ADDRESS_BYTES = 3 << 30  # of data, beyond which an allocation fails
# For one clip; then SIGPROF or SIGALRM kills. Much on the clock: a busy machine is no hang.
CPU_SECONDS, WALL_SECONDS = 40, 400


def peak_bytes(reset: bool = False) -> int:
    """The most memory that this process has held since the last reset; Linux only."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def read(path: str, threads: int) -> dict[str, object]:
    """What vidface makes of one clip."""
    from vidface.core.errors import ClipError
    from vidface.core.rules import ReadingRules
    from vidface.frames.sampling import sample_frames

    samples: list[tuple[float, str]] = []
    frames, state, message = 0, "ok", ""
    before, begun = peak_bytes(reset=True), time.process_time()
    last = None
    try:
        # Pixels are compared as they are stored, whatever shape and colours damage gives them.
        as_stored = ReadingRules(square_pixels=False, tone_mapping=False)
        for frame in sample_frames(path, threads=threads, rules=as_stored):
            frames += 1
            if frame.image is not last and len(samples) < 400:
                last = frame.image
                pixels = base64.b64encode(last[::8, ::8].tobytes()).decode()
                samples.append((frame.source_time_seconds, pixels if len(pixels) < 9000 else ""))
    except ClipError as error:
        state, message = error.state, str(error)
    except BaseException as error:  # what the test is looking for
        state, message = "bug", f"{type(error).__name__}: {error}"
    return {
        "path": path,
        "state": state,
        "message": message,
        "frames": frames,
        "samples": samples,
        "cpu_seconds": time.process_time() - begun,
        "peak_bytes": peak_bytes() - before,
    }


def main() -> None:
    """See the top of this file."""
    import av  # noqa: F401, before memory is counted

    resource.setrlimit(resource.RLIMIT_DATA, (ADDRESS_BYTES, ADDRESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    for line in sys.stdin:
        signal.alarm(WALL_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        print(json.dumps(read(**json.loads(line))), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


if __name__ == "__main__":
    main()
