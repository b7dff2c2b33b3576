"""The command line: parse → one library call → print.

Nothing heavy is imported before a command runs, so that `--help` answers at once. A file of this
package is one group of commands; what they share is in `vidface.cli.options`.
"""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
import traceback
import warnings
from collections import UserDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from vidface.cli.options import DONE, ERROR, USAGE, CommandGroup
from vidface.core.errors import UsageError, VidfaceError
from vidface.core.redaction import redacted_text
from vidface.core.values import printable
from vidface.core.version import __version__

INTERRUPTED = "interrupted; what was finished before stays as it was"
_MAIN_THREAD = threading.main_thread()


class CommandTable(UserDict[str, Any]):
    """Commands by name: kept as "module:name", which is imported when a command is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, function = self.data[name].partition(":")
        command: click.Command = getattr(import_module(f"vidface.cli.{module}"), function)
        return command


COMMANDS = CommandTable(
    {
        "run": "stages:run_all",
        "init": "stages:init",
        "check": "stages:check",
        "report": "reports:report",
        "extract": "stages:extract",
        "cluster": "stages:cluster",
        "score": "scores:score",
        "forget": "clips:forget",
        "clips": "clips:clips",
        "show": "clips:show_faces",
        "same": "questions:same",
        "who": "questions:who",
        "sweep": "scores:sweep",
        "compare": "scores:compare",
        "plot": "plots:plot",
        "models": "models:models",
        "verify": "verify:verify",
        "demo": "demo:demo",
        "import": "data:import_data",
        "export": "data:export_data",
        "train": "training:train",
        "cache": "cache:cache",
    }
)
HEADINGS = {
    "run": "Your clips",
    "clips": "Look closer",
    "models": "Recognisers",
    "demo": "Files and training",
}
"""By the first command below each in the list of all; the table above is in that order."""


class TopGroup(CommandGroup):
    """All commands, in the order of daily use and under headings."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = ""
        for name, command in self.commands.items():
            heading = HEADINGS.get(name, heading)
            sentence = command.get_short_help_str(limit=200)
            sections.setdefault(heading, []).append((name, sentence))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=12)


@click.group(
    cls=TopGroup,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, prog_name="vidface")
def cli() -> None:
    """Measure how well a face recogniser tells who is in a video.

    \b
    Example: vidface demo
             vidface run my_clips
             vidface score --help

    Exit codes: 0 done, 1 error, 2 wrong usage, 3 finished but some clips failed.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: errors are one line on standard error, `--debug` adds a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may not know the sign ≥
            stream.reconfigure(errors="replace")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' own, about strangers' files
    code = ERROR
    try:
        with _noted_interrupts() as interrupts:
            code = _run(arguments, interrupts)
    except KeyboardInterrupt:  # another Ctrl-C, while the first one's line was written
        code = code or ERROR
    sys.exit(code)


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Note every Ctrl-C: a library that is being imported makes another error of it.

    SIGTERM ends a command in the same way, so that nothing half-written is left behind.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not _MAIN_THREAD:
        yield interrupts
        return
    before_term = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, interrupt)
    if before_term is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)
        if before_term is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before_term)


def _run(arguments: Sequence[str], interrupts: Sequence[int]) -> int:
    """The exit code of a command; what went wrong is said in one line."""
    try:
        code = cli.main(args=list(arguments), prog_name="vidface", standalone_mode=False)
        code = code if isinstance(code, int) else DONE
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)  # it repeats what was given
        code = _fail(error.format_message(), arguments, error.exit_code, shown.getvalue())
    except (click.Abort, KeyboardInterrupt):
        code = _fail(INTERRUPTED, arguments)
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone, and with it everybody who wanted to know
        code = ERROR
    except VidfaceError as error:
        code = _fail(str(error), arguments, USAGE if isinstance(error, UsageError) else ERROR)
    except OSError as error:  # a disk that is full, behind the standard output too
        code = _fail(f"{error.filename or 'output'}: {error.strerror or error}", arguments)
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error} (--debug shows where)"
        code = _fail(INTERRUPTED if interrupts else text, arguments)
    return code


def _fail(text: str, arguments: Sequence[str], code: int = ERROR, shown: str = "") -> int:
    """Say what went wrong, in one line or as JSON; `shown` is how click shows it. The exit code."""
    if "--debug" in arguments and not shown:
        click.echo(redacted_text(traceback.format_exc()), err=True, nl=False)
    text = printable(" ".join(redacted_text(text).split()))
    if "--json" in arguments:
        kind = "usage" if code == USAGE else "interrupted" if text == INTERRUPTED else "error"
        error = {"message": text, "kind": kind, "exit_code": code}
        click.echo(json.dumps({"error": error}), err=True)
    else:
        line = f"vidface: error: {text}\n"
        click.echo(redacted_text(shown) if shown else line, err=True, nl=False)
    return code
