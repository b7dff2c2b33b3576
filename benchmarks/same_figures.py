"""Do two checkouts of vidface give the same figures, byte for byte but for versions and times?

    python benchmarks/same_figures.py run OUT_A --checkout ../vidface_before
    python benchmarks/same_figures.py run OUT_B
    python benchmarks/same_figures.py compare OUT_A OUT_B

`run` runs the demo, the recipes on YouTube Faces, WLASL and the hard clips, `models` and a
training of a
few steps with one checkout, and keeps what each prints with `--json`. The recipes need the
pictures that
`VIDFACE_DATA` names; those whose pictures are missing are listed and left out. `compare` ends with
exit code 1 where anything differs that is no version, time or path.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

RECIPES = [
    *(f"ytf_{name}" for name in ("y1", "mobilefacenet", "sface")),
    *(f"ytf_noisy_{name}" for name in ("y1", "mobilefacenet", "sface")),
    "wlasl",
    "hard",
]
MADE_TRAINING = """
[train]
architecture = "paper-x0.1-d0.1-e16"
batch_size = 8
threads = 1
tensorboard = false
[data]
path = "people"
[optimiser]
learning_rate = 0.05
warmup_steps = 2
[[stage]]
name = "ArcFace"
steps = 5
[stage.losses.arcface]
margin_radians = 0.3
[[stage]]
name = "Combined"
steps = 4
[stage.losses.combined]
[stage.losses.sv-guided]
t = 1.1
[stage.losses.inter]
weight = 0.5
"""

# What may differ: versions, times, the size of a report's file ("bytes"), and where a run lies.
VOLATILE = re.compile(
    r"(?i)(^bytes$|version|seconds|_per_second|commit|created|started|finished|rate_fps|wall|profile|host|pid)"
)


def commands(work: Path) -> list[tuple[str, list[str]]]:
    """Name → arguments, in order; `work` is the folder they are run in."""
    listed = [
        ("demo", ["demo"]),
        ("demo_clips", ["clips", "--run", "runs/demo", "--pipeline", "demo"]),
        ("demo_every_protocol", ["score", "--pipeline", "demo", "--protocols",
          "verification,cross-verification,retrieval,clip-retrieval,identification"]),
        ("demo_nearest_max", ["score", "--pipeline", "demo", "--convention", "nearest",
                              "--enrolment", "max", "--k", "10", "--fars", "1e-2,5e-3"]),
        ("demo_folds", ["sweep", "--pipeline", "demo", "--folds", "3"]),
    ]  # fmt: skip
    for method in ("none", "dbscan", "hdbscan", "complete-linkage", "trim"):
        listed.append((f"demo_{method}", ["cluster", "--pipeline", "demo", "--method", method]))
    for pooling in ("det-score", "norm", "quality", "medoid"):
        listed.append((f"demo_{pooling}", ["cluster", "--pipeline", "demo", "--pooling", pooling]))
    for recipe in RECIPES:
        last = ["cluster"] if recipe == "hard" else ["run"]
        if recipe == "hard":
            listed.append((f"{recipe}_extract", ["extract", "--pipeline", recipe]))
            listed.append((recipe, [*last, "--pipeline", recipe]))
            listed.append((f"{recipe}_clips", ["clips", "--pipeline", recipe]))
        else:
            listed.append((recipe, [*last, recipe]))
            listed.append((f"{recipe}_sweep", ["sweep", "--pipeline", recipe]))
    listed.append(("compare", ["compare", "runs/ytf_noisy_mobilefacenet", "runs/ytf_noisy_sface"]))
    listed.append(("models", ["models"]))
    listed.append(("models_paper", ["models", "show", "paper"]))
    listed.append(("train", ["train", str(work / "made.toml")]))
    return listed


def run(out: Path, checkout: Path) -> None:
    """Run every command in a work folder of its own and keep its JSON in `out`."""
    work = (out / "work").resolve()
    work.mkdir(parents=True, exist_ok=True)
    write_people(work / "people")
    (work / "made.toml").write_text(MADE_TRAINING, encoding="utf-8")
    data = os.environ.get("VIDFACE_DATA", str(CHECKOUT.parent / "shared" / "data"))
    environment = {**os.environ, "VIDFACE_DATA": data, "PYTHONPATH": str(checkout.resolve())}
    for name, arguments in commands(work):
        called = [sys.executable, "-m", "vidface", *arguments, "--json"]
        ended = subprocess.run(
            called, cwd=work, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode not in (0, 3):
            print(
                f"{name}: exit code {ended.returncode}: {ended.stderr.strip()[-300:]}", flush=True
            )
            (out / f"{name}.failed").write_text(ended.stderr, encoding="utf-8")
            continue
        (out / f"{name}.json").write_text(ended.stdout, encoding="utf-8")
        print(f"{name}: exit code {ended.returncode}", flush=True)


def write_people(folder: Path) -> None:
    """Five made-up people of six images: a smooth pattern a person, noise an image."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for person in range(5):
        coarse = rng.uniform(0, 255, (6, 6, 3)).astype(np.float32)
        face = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_CUBIC)
        (folder / f"person{person}").mkdir(parents=True, exist_ok=True)
        for image in range(6):
            noisy = np.clip(face + rng.normal(0, 20, face.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"person{person}" / f"{image}.png"), noisy)


def without_volatile(value: object, work: str) -> object:
    """The document without versions and times, the work folder's path replaced."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not VOLATILE.search(k)}
        return {k: without_volatile(v, work) for k, v in kept.items()}
    if isinstance(value, list):
        return [without_volatile(v, work) for v in value]
    return value.replace(work, "WORK") if isinstance(value, str) else value


def compare(before: Path, after: Path) -> int:
    """Print what differs between the two folders; the number of commands that differ."""
    names = sorted({path.name for folder in (before, after) for path in folder.glob("*.json")})
    different = 0
    for name in names:
        texts = []
        for folder in (before, after):
            file = folder / name
            document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
            cleaned = without_volatile(document, str((folder / "work").resolve()))
            texts.append(json.dumps(cleaned, indent=1).splitlines())
        lines = list(difflib.unified_diff(*texts, "before", "after", n=2, lineterm=""))
        different += bool(lines)
        print(f"{name}: {'different' if lines else f'the same, {len(texts[0])} lines'}")
        print("\n".join(lines[:40]), end="\n" if lines else "")
    print(f"{len(names) - different} of {len(names)} the same")
    return different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands_of = parser.add_subparsers(dest="command", required=True)
    one = commands_of.add_parser("run")
    one.add_argument("out", type=Path)
    one.add_argument("--checkout", type=Path, default=CHECKOUT)
    two = commands_of.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.out, given.checkout)
    else:
        sys.exit(1 if compare(given.before, given.after) else 0)


if __name__ == "__main__":
    main()
