"""Write tests/golden/bob_measure.json: what bob.measure 6.1.1 says of seeded scores.

It is an independent implementation, but needs numpy < 2, so it has a venv of its own:

    python3 -m venv BOB && BOB/bin/pip install bob.measure==6.1.1
    BOB/bin/python tests/make_bob_golden.py

Each set holds its scores, sixteenths or 4096ths, as whole numbers over `denominator`; for target
FARs the threshold that `far_threshold` gives and the FAR and FRR (`farfrr`) there, and the same of
`eer_threshold`. A threshold that is no number (nothing accepted) is null.
"""

import json
import math
from pathlib import Path

import numpy as np

TARGETS = ["0.5", "0.25", "0.1", "0.05", "0.02", "0.01"]


def at(negatives, positives, threshold):
    import bob.measure  # not there when pytest looks for doctests

    far, frr = bob.measure.farfrr(negatives, positives, threshold)
    finite = math.isfinite(threshold)
    return {"threshold": float(threshold) if finite else None, "far": far, "frr": frr}


def one_set(seed, denominator):
    rng = np.random.default_rng(seed)
    genuine = np.clip(rng.normal(0.45, 0.25, 60), -1, 1)
    impostor = np.clip(rng.normal(0.0, 0.25, 150), -1, 1)
    genuine, impostor = (np.round(s * denominator).astype(int) for s in (genuine, impostor))
    return described(genuine, impostor, denominator)


def described(genuine, impostor, denominator):
    import bob.measure

    positives, negatives = genuine / denominator, impostor / denominator
    return {
        "denominator": denominator,
        "genuine": genuine.tolist(),
        "impostor": impostor.tolist(),
        "at_far": {
            target: at(
                negatives, positives, bob.measure.far_threshold(negatives, [], float(target))
            )
            for target in TARGETS
        },
        "eer": at(negatives, positives, bob.measure.eer_threshold(negatives, positives)),
    }


def main():
    sets = [one_set(seed, denominator) for seed in range(3) for denominator in (16, 4096)]
    # By hand: a genuine score between two impostors is lost where one of them is the threshold.
    sets.append(described(np.array([10, 6]), np.array([12, 8, 4, 0]), 16))
    path = Path(__file__).parent / "golden" / "bob_measure.json"
    path.write_text(json.dumps({"bob.measure": "6.1.1", "sets": sets}, indent=None) + "\n")


if __name__ == "__main__":
    main()
