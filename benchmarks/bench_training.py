"""Is the loader a training's limit, and how far is a step from the machine's matrix ceiling?

    python benchmarks/bench_training.py                                # the paper's network
    python benchmarks/bench_training.py --architecture paper-x0.5-d0.33 --threads 1 --augment all

The same step (the whole loop's: loss, gradients, optimiser) with its faces in memory already, read
in between by the same process, and read by worker processes; in turn, round by round, so that a
disturbance hits all of them. The floor is the time that the step's multiply-adds would take at the
rate of a large matrix product: three times the forward pass. Peers: the same step with torch's own
PReLU, and in torch's default memory layout. Faces: shared/data's training faces where VIDFACE_DATA
has them, else random pictures as PNG files.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from vidface.backbones.budget import count_module
from vidface.training.augment import AUGMENTATIONS, build_augmentation
from vidface.training.batches import StageBatches, TrainingBatch
from vidface.training.centres import ClassCentres
from vidface.training.losses import build_objective
from vidface.training.network import TrainingNetwork
from vidface.training.processes import Processes
from vidface.training.sampling import make_sampler
from vidface.training.settings import OptimiserSettings, TrainSettings
from vidface.training.sources import open_source
from vidface.training.sources.base import FaceSource, class_counts
from vidface.training.steps import Stepper
from vidface.training.tasks import RecognitionTask

GEMM = 1536  # rows of the product that measures the ceiling
LOSSES = {"combined": {}, "sv-guided": {"t": 1.2}}


def faces_at_hand(folder: Path) -> FaceSource:
    import os

    data = Path(os.environ.get("VIDFACE_DATA", "../shared/data")) / "images/faces_train112.tar"
    if data.is_file():
        return open_source("folders", data)
    rng = np.random.default_rng(0)
    for person in range(20):
        (folder / f"{person:02d}").mkdir(parents=True)
        for image in range(20):
            picture = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{person:02d}" / f"{image}.png"), picture)
    return open_source("folders", folder)


def stepper_of(options: argparse.Namespace, source: FaceSource, layout: bool, own: bool) -> Stepper:
    settings = TrainSettings(architecture=options.architecture, channels_last=layout)
    network = TrainingNetwork(settings, Processes())
    if not own:
        for module in network.plain.modules():
            if type(module).__name__ == "FastPReLU":
                module.__class__ = torch.nn.PReLU
    task = RecognitionTask(
        build_objective(LOSSES),
        ClassCentres(len(source.identities), network.architecture.dimension),
        torch.from_numpy(np.asarray(source.labels)).long(),
        torch.from_numpy(class_counts(source)),
        momentum=0.9,
        weight_decay=5e-4,
    )
    return Stepper(network, task, OptimiserSettings(learning_rate=1e-3), 1e-3, Processes())


def batches_of(options: argparse.Namespace, source: FaceSource, workers: int) -> StageBatches:
    table = {"flip": True} if options.augment == "flip" else dict.fromkeys(AUGMENTATIONS, True)
    labels = np.asarray(source.labels)
    order = make_sampler("shuffled", labels, options.batch)
    return StageBatches(source, build_augmentation(table), order, 0, 1, Processes(), workers)


def ceiling_flops(threads: int) -> float:
    """Floating-point operations a second of a large product."""
    a, b = torch.randn(GEMM, GEMM), torch.randn(GEMM, GEMM)
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begun)
    return 2 * GEMM**3 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--architecture", default="paper")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--augment", choices=("flip", "all"), default="flip")
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        measure(options, faces_at_hand(Path(folder) / "faces"))


def measure(options: argparse.Namespace, source: FaceSource) -> None:
    ours = stepper_of(options, source, layout=True, own=True)
    steps, total = options.steps, options.steps * (options.rounds + 1)
    held = list(batches_of(options, source, 0).between(0, steps))
    streams = {
        "read in between": batches_of(options, source, 0).between(0, total),
        f"read by {options.workers} worker": batches_of(options, source, options.workers).between(
            0, total
        ),
    }
    peers = {
        "in memory, torch's PReLU": stepper_of(options, source, layout=True, own=False),
        "in memory, default layout": stepper_of(options, source, layout=False, own=True),
    }
    turns: dict[str, Callable[[], Iterator[tuple[Stepper, TrainingBatch]]]] = {
        "in memory": lambda: ((ours, batch) for batch in held),
        **{name: (lambda s=stream: ((ours, next(s)) for _ in range(steps)))
           for name, stream in streams.items()},
        **{name: (lambda p=peer: ((p, batch) for batch in held)) for name, peer in peers.items()},
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    flops = []
    for turn in range(options.rounds + 1):  # the first warms up
        for name, parts in turns.items():
            begun = time.perf_counter()
            for stepper, batch in parts():
                stepper.step(batch, 1.0, (0, 1, turn), turn)
            if turn:
                seconds[name].append(time.perf_counter() - begun)
        flops.append(ceiling_flops(options.threads))
    report(options, source, seconds, max(flops), ours)


def report(
    options: argparse.Namespace,
    source: FaceSource,
    seconds: dict[str, list[float]],
    flops: float,
    ours: Stepper,
) -> None:
    images = options.steps * options.batch
    macs = count_module(ours.network.architecture.build()).macs
    floor = 3 * 2 * macs * images / flops
    memory = statistics.median(seconds["in memory"])
    print(
        f"{options.architecture}: {macs / 1e6:.1f} million multiply-adds a face, batch "
        f"{options.batch}, {options.threads} threads, augmentation: {options.augment}"
    )
    print(source)
    print(f"{'':28s}{'images/s':>10s}{'of in memory':>14s}{'× floor':>9s}")
    for name, times in seconds.items():
        median = statistics.median(times)
        rounds = [m / t for m, t in zip(seconds["in memory"], times, strict=True)]
        print(f"{name:28s}{images / median:10.1f}{statistics.median(rounds):14.3f}"
              f"{median / floor:9.2f}")  # fmt: skip
    print(f"{'matrix ceiling':28s}{images / floor:10.1f}{memory / floor:14.2f}{1:9.2f}   "
          f"({flops / 1e9:.0f} GFLOP/s)")  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of this process: {peak:.0f} MiB (all five contestants in it)")
    read = statistics.median(
        m / t for m, t in zip(seconds["in memory"], seconds[f"read by {options.workers} worker"],
                              strict=True)
    )  # fmt: skip
    print(f"loader: {read:.3f} of the step in memory (target 0.95: "
          f"{'met' if read >= 0.95 else 'missed'})")  # fmt: skip


if __name__ == "__main__":
    main()
