"""The one exception that vidface raises on purpose."""

from __future__ import annotations

import re

from vidface.core.redaction import redacted_text


class VidfaceError(Exception):
    """Something that the user can mend: the message says what, where and what to do.

    The command line prints it as one line on standard error (exit code 1); `--debug` shows the
    traceback. What may be secret in a URL is left out of every message.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted_text(message))


class UsageError(VidfaceError):
    """A wrong value of a command-line option (exit code 2)."""


class ClipError(VidfaceError):
    """A clip (or picture) that cannot be read, or not to its end.

    state: "no_video_stream", "corrupt" or "truncated". After "truncated" the frames that were
    yielded are good and the caller may keep them.
    """

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state

    def __reduce__(self) -> tuple[type[ClipError], tuple[str, str]]:
        return type(self), (str(self), self.state)  # survives the way back from a worker


def reason(why: object) -> str:
    """An error's text in one line, without what differs from run to run."""
    text = re.sub(r"<[^<>]* at 0x[0-9a-f]+>", "it", str(why))
    text = re.sub(r"^\[\d\d:\d\d:\d\d\] \S+:\d+: ", "", text)  # decord's time and source line
    return " ".join(text.split())[:200] or type(why).__name__


def first_line(error: BaseException) -> str:
    """What an exception says first (OpenVINO's say first where in its sources they come from)."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from ")]
    return said[0] if said else type(error).__name__
