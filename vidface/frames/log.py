"""The errors that libav writes to its log and reports in no other way."""

from __future__ import annotations

# Whether frames are missing is found out by their times; the others lose nothing.
_SAY_NOTHING = ("File ended prematurely", "Duplicate element", "Unknown-sized element")


class LogListener:
    """Keeps the first error that libav writes to its log and tells nobody: `with log: call libav`.

    H.264 conceals some damage so, and Matroska's reader skips blocks. libav's log belongs to the
    whole process and its own threads write to it too, so only a decoder without threads listens.
    """

    def __init__(self, listens: bool) -> None:
        self.listens = listens
        self.begun = False  # before the first frame a broadcast that was joined late may complain
        self.heard: str | None = None

    def __enter__(self) -> None:
        if self.listens:
            from av import logging

            self.before = logging.get_level(), logging.get_skip_repeated()
            logging.set_level(logging.ERROR)
            logging.set_skip_repeated(False)
            self.capture = logging.Capture()
            self.lines = self.capture.__enter__()

    def __exit__(self, *_: object) -> None:
        if self.listens:
            from av import logging

            self.capture.__exit__(None, None, None)
            level, skip_repeated = self.before
            logging.set_level(level)
            logging.set_skip_repeated(skip_repeated)
            for severity, who, text in self.lines:
                counts = severity <= logging.ERROR and not text.startswith(_SAY_NOTHING)
                # A Matroska file's first blocks are read, and skipped, when it is opened.
                due = self.begun or who.startswith("matroska")
                if counts and due and self.heard is None:
                    self.heard = text.strip()
