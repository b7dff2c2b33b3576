"""One entry a challenge: what the commands and `[manifest] prepare` offer comes from it."""

from __future__ import annotations

from vidface.challenges.registry import CHALLENGES
from vidface.cli.data import import_data
from vidface.runs.run import PREPARERS


def test_every_challenge_can_be_imported() -> None:
    assert set(CHALLENGES) == set(import_data.commands)


def test_preparers_are_the_demo_and_the_challenges() -> None:
    able = [name for name, entry in CHALLENGES.items() if entry.prepare is not None]
    assert list(PREPARERS) == ["demo", *able] == ["demo", "iqiyi", "lfrc"]
