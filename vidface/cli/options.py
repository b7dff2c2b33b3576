"""What the commands share: options, the run they work on, and how they print."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vidface.core.errors import VidfaceError
from vidface.core.files import find_output
from vidface.core.progress import quiet
from vidface.core.redaction import redacted_text
from vidface.core.settings import SettingField, table_settings
from vidface.core.values import printable

if TYPE_CHECKING:
    from vidface.core.progress import Notify
    from vidface.runs.denoising import Denoising
    from vidface.runs.run import Run

DONE, ERROR, USAGE, CLIPS_FAILED = 0, 1, 2, 3

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

PATH = click.Path(path_type=Path)
file_option = functools.partial(click.option, metavar="FILE", type=PATH)
_TAKEN = "vidface.standard_output_is_taken"


class OutputFile(click.ParamType):
    """A file to write; `-` is standard output, and what a command prints goes to standard error.

    Args:
        suffix: of what is written to standard output, where the suffix says the format.
    """

    name = "file"

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if str(value) != "-" or ctx is None:
            try:
                find_output(Path(value))  # known before hours of work
            except VidfaceError as error:
                self.fail(str(error), param, ctx)
            return Path(value)
        folder = ctx.with_resource(tempfile.TemporaryDirectory(prefix="vidface-"))
        path = Path(folder) / f"standard-output{self._suffix}"
        ctx.meta[_TAKEN] = True
        ctx.call_on_close(functools.partial(_print_file, path))
        return path


def _print_file(path: Path) -> None:
    """Copy a file to standard output, if it was written."""
    if path.is_file():
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


class GroupedOption(click.Option):
    """A flag with a heading in `--help`.

    Args:
        group: the heading.
        rare: only `--help-all` shows it.
        table: of the pipeline file, where the flag is made from a setting.
    """

    def __init__(
        self, *args: Any, group: str = "", rare: bool = False, table: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.group, self.rare, self.table = group or "Options", rare, table


class StageCommand(click.Command):
    """A command whose `--help` lists the flags it is about, under headings; `--help-all` lists all.

    Flags of settings are made when they are asked for: the list of all commands needs none.

    Args:
        own: tables of settings, and names of single ones, that the command is about; flags of other
            settings are rare in it.
    """

    def __init__(self, *args: Any, own: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own = {"", "run", *own}

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        self.params = [option for entry in self.params for option in _flags_of(entry)]
        return [*super().get_params(context), _HELP_ALL]

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        left_out = 0
        for parameter in self.get_params(context)[:-1]:
            record = parameter.get_help_record(context)
            # Arguments stand in the usage line alone; since click 8.5 they have records too.
            if record is None or isinstance(parameter, click.Argument):
                continue
            group, rare = self._place_flag(parameter)
            if rare and not context.meta.get(_SHOWS_ALL):
                left_out += 1
            else:
                sections.setdefault(group, []).append(record)
        sections[_OUTPUT] = sections.pop(_OUTPUT, [])
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        if left_out:
            formatter.write_paragraph()
            formatter.write_text(f"--help-all shows {left_out} more.")

    def _place_flag(self, flag: click.Parameter) -> tuple[str, bool]:
        """A flag's heading, and whether `--help-all` alone shows it."""
        if not isinstance(flag, GroupedOption):
            return (_OUTPUT if "--help" in flag.opts else "Options"), False
        is_own = bool(self.own & {flag.table, flag.name})
        group = flag.group if is_own or flag.table not in _EXTRACTION else "What was extracted"
        return group, flag.rare or not is_own


def _show_all_flags(context: click.Context, parameter: click.Parameter, is_given: bool) -> None:
    if is_given and not context.resilient_parsing:
        context.meta[_SHOWS_ALL] = True
        click.echo(context.get_help(), color=context.color)
        context.exit()


_SHOWS_ALL = "vidface.shows_all_flags"
_OUTPUT = "Output"
_EXTRACTION = ("manifest", "frames", "faces", "backbone")
_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    help="Show all options and exit.",
    callback=_show_all_flags,
)
rare_option = functools.partial(click.option, cls=GroupedOption, rare=True)


def _flags_of(entry: Any) -> Sequence[click.Parameter]:
    """A command's own parameter, or what `setting_options` put in the place of several."""
    return [entry] if isinstance(entry, click.Parameter) else entry()


class CommandGroup(click.Group):
    """A group whose commands list their flags under headings."""

    command_class = StageCommand


def setting_options(table: str, only: Sequence[str] = (), without: Sequence[str] = ()) -> Decorator:
    """The flags of a table of the pipeline file, from its settings.

    Args:
        table: a name of `vidface.settings.tables.TABLES`.
        only: keys, where not all are wanted.
        without: keys that are left out.
    """

    def make_flags() -> list[GroupedOption]:
        options = _table_options(table).items()
        return [o for key, o in options if (not only or key in only) and key not in without]

    def decorate(command: Command) -> Command:
        vars(command).setdefault("__click_params__", []).append(make_flags)  # as click.option does
        return command

    return decorate


@functools.cache  # a command may take flags of a table in two places
def _table_options(table: str) -> dict[str, GroupedOption]:
    """The flags of a table's settings, by their keys."""
    from vidface.settings.tables import TABLES

    return {
        field.name: _setting_option(table, field, field.flag)
        for field in table_settings(TABLES[table])
        if field.flag is not None
    }


def _setting_option(table: str, field: SettingField, flag: str) -> GroupedOption:
    """A flag that replaces a key of the pipeline file; None where it is not given."""
    kinds = field.members
    default = field.shown_default
    remarks = [field.unit, "" if default in ("", "false") else f"default: {default}"]
    remark = "; ".join(filter(None, remarks))
    return GroupedOption(
        [f"{flag}/--no-{flag[2:]}" if bool in kinds else flag],
        type=next((kind for kind in (bool, int, float) if kind in kinds), str),
        default=None,
        metavar=field.metavar,
        help=field.text + (f" [{remark}]" if remark else ""),
        group=field.group,
        rare=field.rare,
        table=table,
    )


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator; `--help` lists them in this order."""
    return lambda command: functools.reduce(lambda f, option: option(f), reversed(options), command)


fed_options = setting_options("backbone", only=("architecture", "output", "color", "mean", "std"))
"""What a recogniser given as a file is, and is fed."""

runtime_options = setting_options(
    "backbone",
    only=("force_recogniser", "runtime", "precision", "batch_timeout_seconds", "network_memory",
          "device"),
)  # fmt: skip
"""What runs a recogniser, whether it must, and what it may take."""

executor_options = setting_options("run", only=("executor", "scheduler", "workers"))
"""Who does the work."""

score_options = setting_options("score")
"""What is scored, and how sure it is."""

sweep_options = setting_options("score", without=("bootstrap", "seed", "fpirs", "ranks"))
"""What is scored at every threshold: `vidface.runs.sweeps` leaves out what takes long."""

noise_options = together(setting_options("cluster"), setting_options("descriptor"))
"""Which faces are noise, and how the kept ones are pooled."""

run_argument = click.argument("place", metavar="[RUN]", required=False)
"""A run directory: it holds all settings that it was made with."""

run_flags = together(
    click.option(
        "--pipeline",
        metavar="PATH",
        help="Pipeline file, or a shipped recipe's name; flags replace its keys. "
        "[default: those that RUN was made with, or ./vidface.toml]",
    ),
    setting_options("run", only=("dir",)),
    *map(setting_options, ("manifest", "frames", "faces", "backbone")),
)
"""Which settings a command works with, in the order of the stages."""

run_options = together(run_argument, run_flags)
"""The argument and the options of a command that works on a run."""

extract_options = together(
    click.option(
        "--force",
        is_flag=True,
        help="Begin again, whatever is there; clusterings and scores made from it go.",
    ),
    click.option(
        "--retry-failed",
        is_flag=True,
        help="Work once more on the clips that failed; clusterings and scores made before go.",
    ),
    rare_option(
        "--verify",
        is_flag=True,
        help="Compare the contents of clips with what was extracted, not only sizes and times.",
    ),
    rare_option("--strict", is_flag=True, help="A failed clip is an error: exit 1, not 3."),
    setting_options("run", without=("dir",)),
)
"""What a clip may cost, and who does the work."""

clustering_option = click.option(
    "--threshold",
    metavar="COSINE",
    help="Cosine threshold of the clustering to read; none for no clustering. "
    "[default: the clustering made last]",
)
"""Which clustering is read."""

split_options = together(
    click.option("--split", metavar="NAME", help="Split that is scored. [default: pipeline's]"),
    click.option("--gallery", metavar="NAME", help="Split whose identities are enrolled."),
)

output_options = together(
    click.option(
        "--json",
        "as_json",
        cls=GroupedOption,
        group=_OUTPUT,
        is_flag=True,
        help="Print JSON instead of tables.",
    ),
    rare_option(
        "--debug", group=_OUTPUT, is_flag=True, expose_value=False, help="Show tracebacks."
    ),
)


def preprocessing_from(color: str | None, mean: float | None, std: float | None) -> Any:
    """What the flags say a recogniser is fed; None where they say nothing."""
    if color is None and mean is None and std is None:
        return None
    from vidface.backbones.preprocessing import Preprocessing

    return Preprocessing(color, mean, std)


def backbone_from(weights: str, flags: dict[str, Any]) -> Any:
    """A recogniser by name or file, with a word where its preprocessing had to be assumed."""
    from vidface.backbones.loading import open_backbone
    from vidface.backbones.settings import BackboneSettings
    from vidface.settings.pipeline import locate_error

    overrides = {("backbone", "weights"): weights, **overrides_from(flags)}
    values = {key: value for (table, key), value in overrides.items() if table == "backbone"}
    try:
        settings = BackboneSettings(**values)
    except VidfaceError as error:
        fields = {"backbone": table_settings(BackboneSettings)}
        raise locate_error(str(error), "vidface", fields, overrides) from None
    return open_backbone(settings, note)


def overrides_from(
    flags: dict[str, Any], tables: Mapping[str, type] | None = None
) -> dict[tuple[str, str], Any]:
    """The keys of the pipeline, or of another file's tables, that flags replace."""
    from vidface.settings.tables import TABLES, flag_keys

    keys = flag_keys(tables or TABLES)
    return {
        keys[name]: value for name, value in flags.items() if name in keys and value is not None
    }


def open_run_from(
    flags: dict[str, Any], *, check_files: bool = False, notify: Notify | None = None
) -> Run:
    """The run that a command's argument and flags name; of none of them ./vidface.toml's.

    Args:
        check_files, notify: as for `open_run`; what it says is noted by default.
    """
    from vidface.runs.opening import choose_pipeline
    from vidface.runs.run import open_run

    pipeline = choose_pipeline(
        flags.get("place"), flags.get("pipeline"), overrides_from(flags), note
    )
    return open_run(pipeline, notify or note, check_files=check_files)


def open_whole_run(what: str | None, flags: dict[str, Any], *, dry: bool) -> tuple[Run, str | None]:
    """The run of `vidface run WHAT`, and what later commands name it by: None for nothing.

    Args:
        dry: nothing is written, and what is odd about the manifest is left to the preflight.
    """
    from vidface.runs.opening import choose_whole
    from vidface.runs.run import open_run
    from vidface.settings.pipeline import LOCAL_PIPELINE, load_pipeline

    pipeline = choose_whole(what, flags["pipeline"], overrides_from(flags), note, begin=not dry)
    run = open_run(pipeline, quiet if dry else note, check_files=not dry)
    local = Path(LOCAL_PIPELINE)
    if local.is_file() and str(load_pipeline(None).run.dir) == str(pipeline.run.dir):
        return run, None
    return run, os.path.relpath(run.folder.folder) if run.mirror is None else str(pipeline.run.dir)


def denoising_from(run: Run, threshold: str | None, flags: dict[str, Any]) -> Denoising | None:
    """The noise removal that flags name; None where they name none: the clustering made last."""
    from vidface.settings.tables import TABLES

    tables = (TABLES["cluster"], TABLES["descriptor"])
    named = {field.name for table in tables for field in table_settings(table)}
    named -= {"truth", "memory"}  # these do not say which clustering
    if threshold is None and all(flags.get(name) is None for name in named):
        return None
    return denoising_to_make(run, threshold)


def denoising_to_make(run: Run, threshold: str | None) -> Denoising:
    """The noise removal of the run's pipeline, at a threshold where a flag gives one."""
    from vidface.core.thresholds import parse_threshold
    from vidface.runs.denoising import Denoising

    denoising = Denoising.of_run(run)
    if threshold is None:
        return denoising
    if not denoising.has_threshold:
        method = run.pipeline.cluster.method
        note(f"the method '{method}' has no threshold; --threshold {threshold} is not used")
    return denoising.with_threshold(parse_threshold(threshold))


def show(as_json: bool, document: dict[str, Any], text: Callable[[], str]) -> None:
    """Print a document as JSON or as text: where a file goes to standard output, to the other."""
    err = bool(click.get_current_context().meta.get(_TAKEN))
    if as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False), err=err)
    else:
        click.echo(text(), color=(sys.stderr if err else sys.stdout).isatty(), err=err)


def note(text: str) -> None:
    click.echo(f"vidface: {printable(redacted_text(text))}", err=True)


def exit_for(failed: Sequence[Any], *, strict: bool = False) -> None:
    """End with the code that says that clips failed; with `strict` that of an error."""
    if failed:
        raise click.exceptions.Exit(ERROR if strict else CLIPS_FAILED)
