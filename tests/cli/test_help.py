"""`--help`: a screenful of flags, an example that parses, 80 columns; `--help-all` has the rest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from vidface.cli.commands import COMMANDS, cli
from vidface.cli.options import StageCommand

MOST_FLAGS = 16


def walk_commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group, with the words that call it."""
    yield path, command
    for name, below in dict(getattr(command, "commands", {})).items():
        yield from walk_commands(below, (*path, name))


ALL = {" ".join(path): command for path, command in walk_commands()}


def examples_of(text: str) -> list[str]:
    """The lines of a help text that call vidface."""
    return re.findall(r"^ *(?:Example: )?(vidface .*)$", text, re.MULTILINE)


def flags_in(help_text: str) -> list[str]:
    return re.findall(r"^  (?:-h, )?(--[\w-]+)", help_text, re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_help_fits_a_screen_and_help_all_has_the_rest(vidface, name) -> None:
    shown = vidface(*name.split(), "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    assert len(flags_in(shown)) <= MOST_FLAGS
    assert vidface(*name.split(), "-h").out == shown
    if not isinstance(ALL[name], StageCommand):
        return
    everything = vidface(*name.split(), "--help-all").out
    assert max(map(len, everything.splitlines())) <= 80
    left_out = int(re.search(r"^--help-all shows (\d+) more\.$", shown, re.MULTILINE)[1])
    assert len(flags_in(everything)) == len(flags_in(shown)) + left_out
    assert set(flags_in(shown)) < set(flags_in(everything))
    assert "--help-all" not in everything


@pytest.mark.parametrize("name", ALL)
def test_every_help_has_an_example_that_parses(name) -> None:
    text = ALL[name].get_help(click.Context(ALL[name], info_name=f"vidface {name}"))
    assert "Example: vidface" in text
    for example in examples_of(text):
        assert len(example) <= 78
        command, context, words = cli, click.Context(cli), shlex.split(example, comments=True)[1:]
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            command = command.get_command(context, words.pop(0))
            assert command is not None, example
        if "--help" not in words:  # else unknown flags and missing arguments raise
            command.make_parser(context).parse_args(list(words))
            arguments = [p for p in command.get_params(context) if isinstance(p, click.Argument)]
            given = sum(p.required for p in arguments)
            assert len(words) >= given, example


def test_flags_stand_under_headings_the_commands_own_first(vidface) -> None:
    shown = vidface("score", "--help-all").out
    headings = re.findall(r"^(\S.*):$", shown, re.MULTILINE)
    assert headings == ["Options", "Run", "What was extracted", "Noise removal and pooling",
                        "Scores", "Output"]  # fmt: skip
    assert headings[0] == "Options"
    assert flags_in(vidface("show", "--help").out) == [
        "--pipeline", "--threshold", "--out", "--run", "--json", "--help"
    ]  # fmt: skip
    cluster = vidface("cluster", "--help").out
    assert "--method" in cluster
    assert "--trim-share" not in cluster


def test_the_list_of_commands_goes_by_daily_use_in_whole_sentences(vidface) -> None:
    shown = vidface("--help").out
    places = [shown.index(f"\n{heading}:") for heading in
              ("Your clips", "Look closer", "Recognisers", "Files and training")]  # fmt: skip
    assert places == sorted(places)
    names = re.findall(r"^  ([\w-]+)  ", shown[places[0] :], re.MULTILINE)
    assert names == list(COMMANDS)
    for command in COMMANDS.values():
        sentence = command.get_short_help_str(200)
        assert sentence.endswith("."), sentence
        assert sentence in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vidface ", {"run", "init", "score", "cache"}),
        ("vidface models ", {"show", "count"}),
        ("vidface score --prot", {"--protocols"}),
        ("vidface show --decod", {"--decoder"}),
    ],
)
def test_completion_answers_with_names(vidface, monkeypatch, words, expected) -> None:
    monkeypatch.setenv("_VIDFACE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    answered = {line.partition(",")[2] for line in vidface().out.splitlines()}
    assert expected <= answered
