"""`python -m tests.fuzz [NAME …] [--inputs 2000] [--only NUMBER]`: see `harness`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.harness import run_target
from tests.fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--only", type=int, help="try this input alone, and show its error")
    parser.add_argument("--notes", type=Path, help="a file that is kept at the name and number")
    flags = parser.parse_args()
    numbers = range(flags.inputs) if flags.only is None else range(flags.only, flags.only + 1)
    n_findings = 0
    for name in flags.names or TARGETS:

        def note(number: int, name: str = name) -> None:
            if flags.notes is not None:
                flags.notes.write_text(f"{name} --only {number}")

        outcome = run_target(name, TARGETS[name], numbers, note=note, show=flags.only is not None)
        print(outcome)
        for what, number in outcome.findings.items():
            print(f"  {what}: python -m tests.fuzz {name} --only {number}")
        n_findings += len(outcome.findings)
        reached = outcome.reached
        if flags.only is None and reached < TARGETS[name].least:
            print(f"  too few inputs reached its depth: {reached:.2f} < {TARGETS[name].least}")
            n_findings += 1
        sys.stdout.flush()
    sys.exit(min(1, n_findings))


main()
