"""The one exception that vidface raises on purpose."""

from __future__ import annotations


class VidfaceError(Exception):
    """Something that the user can mend: the message says what, where and what to do.

    The command line prints it as one line on standard error (exit code 1); `--debug` shows the
    traceback.
    """


class UsageError(VidfaceError):
    """A wrong value of a command-line option (exit code 2)."""
