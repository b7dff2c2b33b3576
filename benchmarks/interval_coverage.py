"""How often do 95 % intervals cover the truth, by the number of people?

People are drawn from a population whose TAR at FAR 1e-2 is known, from 4,000 of them: a centre
each, three clips around it, some people's far from it. A trial scores n people with a bootstrap.

    .venv/bin/python benchmarks/interval_coverage.py --people 15,30,60,120 --trials 300
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from vidface.metrics.uncertainty import Bootstrap
from vidface.metrics.verification import score_verification

CLIPS, DIMENSIONS, FAR = 3, 16, "1e-2"


def draw_people(n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], list[str]]:
    """Unit rows of n people's clips, (3 n, 16), and whose they are."""
    centres = np.repeat(rng.standard_normal((n, DIMENSIONS)), CLIPS, axis=0)
    spread = np.repeat(rng.choice([0.5, 0.8, 1.6], n, p=[0.6, 0.25, 0.15]), CLIPS)
    rows = centres + spread[:, None] * rng.standard_normal(centres.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [f"{i // CLIPS}" for i in range(n * CLIPS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", default="15,30,60,120")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    truth = score_verification(*draw_people(4000, np.random.default_rng(0)), [FAR]).points[0].tar
    print(f"TAR@FAR {FAR} of the population {truth:.4f}; {options.trials} trials", flush=True)
    for n in map(int, options.people.split(",")):
        covered = 0
        for trial in range(options.trials):
            rows, names = draw_people(n, np.random.default_rng([1, n, trial]))
            bootstrap = Bootstrap(options.resamples, trial)
            [point] = score_verification(rows, names, [FAR], bootstrap=bootstrap).points
            low, high = point.replicates.ci95
            covered += low <= truth <= high
        print(f"{n} people: {covered / options.trials:.1%} of the intervals cover it", flush=True)


if __name__ == "__main__":
    main()
