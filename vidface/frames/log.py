"""The errors that libav writes to its log and reports in no other way."""

from __future__ import annotations

from collections.abc import Iterable

# Demuxers whose complaints count when a file is opened, too: its beginning is read then. Not MOV
# and AVI, whose odd indices are judged by the frames that come.
_READERS = (
    "matroska",
    "asf",
    "flv",
    "mxf",
    "nut",
    "ivf",
    "ogg",
    "rm",
    "wtv",
    "AV1 Annex B",
    "av1_frame_merge",
)
# Whether frames are missing is found out by their times; the others lose nothing.
_SAY_NOTHING = ("File ended prematurely", "Duplicate element", "Unknown-sized element")


class LogListener:
    """Keeps the first error that libav writes to its log and tells nobody: `with log: call libav`.

    H.264 conceals some damage so, and Matroska's reader skips blocks. libav's log belongs to the
    whole process and its own threads write to it too, so only a decoder without threads listens.
    """

    def __init__(self, listens: bool) -> None:
        self.listens = listens
        self.begun = False  # before its first key picture a broadcast joined late may complain
        self.early: list[tuple[str, str]] = []  # (who, text) from before that
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
                if not counts:
                    continue
                if self.begun or who.startswith(_READERS):
                    self.heard = self.heard or text.strip()
                else:
                    self.early.append((who, text.strip()))

    def begin(self, decoder: str, others: Iterable[str]) -> None:
        """From now on all counts, and so does what the film's decoders said in opening the file.

        They go on with what they learned then, and don't say it again. A film's decoder may have
        another name in opening (MPEG-1 and -2), so other streams' are left out.
        """
        import av

        self.begun = True
        decoders = av.codecs_available - (set(others) - {decoder})
        said = (text for who, text in self.early if who in decoders)
        self.heard = self.heard or next(said, None)
