"""What do the class centres of 93,431 identities cost a training step, in time and memory?

    python benchmarks/bench_centres.py                  # one thread
    python benchmarks/bench_centres.py --threads 2 --sample-rate 0.3

A step: cosines of a batch of embeddings and the centres, softmax, backward, the optimiser. Times
are medians, the contestants in turn, on synthetic embeddings; the floor is the step's three matrix
products alone, on tensors that are there. Ratios are of CPU time, which other work on the machine
disturbs less. Memory is the peak of a process of its own, less what it had before the centres were
made. Much of what is above the floor is fresh memory being mapped: see what
THP_MEM_ALLOC_ENABLE=1 in the environment, torch's huge pages, changes. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vidface.training.centres import CentreSGD, ClassCentres, SelectedCentres
from vidface.training.losses import Geometry

Step = Callable[[Tensor, Tensor, int], None]

SCALE = 64.0


def softmax_of(embeddings: Tensor, chosen: SelectedCentres) -> Tensor:
    geometry = Geometry.of(embeddings, chosen.weight, chosen.labels, chosen.rows)
    return cross_entropy(SCALE * geometry.cosines, chosen.labels)


def centres_step(classes: int, dimension: int, sample_rate: float) -> Step:
    centres = ClassCentres(classes, dimension, sample_rate=sample_rate)
    optimiser = CentreSGD(centres, lr=0.1)

    def step(embeddings: Tensor, labels: Tensor, number: int) -> None:
        chosen = centres.select(labels, [0, number])
        softmax_of(embeddings, chosen).backward()
        optimiser.step(chosen)

    return step


def linear_step(classes: int, dimension: int, cosines: bool) -> Step:
    linear = nn.Linear(dimension, classes, bias=False)
    optimiser = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

    def step(embeddings: Tensor, labels: Tensor, number: int) -> None:
        optimiser.zero_grad()
        if cosines:
            logits = SCALE * (normalize(embeddings) @ normalize(linear.weight).T)
        else:
            logits = linear(embeddings)
        cross_entropy(logits, labels).backward()
        optimiser.step()

    return step


def floor_step(classes: int, dimension: int, batch: int) -> Step:
    """Logits, the gradient of the embeddings and that of the centres, into memory held already."""
    weight, gradient = torch.randn(classes, dimension), torch.empty(classes, dimension)
    logits, back = torch.empty(batch, classes), torch.empty(batch, dimension)

    def step(embeddings: Tensor, labels: Tensor, number: int) -> None:
        with torch.no_grad():
            torch.mm(embeddings, weight.T, out=logits)
            torch.mm(logits, weight, out=back)
            torch.mm(logits.T, embeddings, out=gradient)

    return step


def contestants(options: argparse.Namespace) -> dict[str, Callable[[], Step]]:
    c, d, rate = options.classes, options.dimension, options.sample_rate
    return {
        "matrix floor, all classes": lambda: floor_step(c, d, options.batch),
        f"matrix floor, {rate:g} of them": lambda: floor_step(round(rate * c), d, options.batch),
        "ClassCentres, all classes": lambda: centres_step(c, d, 1.0),
        f"ClassCentres, {rate:g} of them": lambda: centres_step(c, d, rate),
        "nn.Linear, cosines, torch's SGD": lambda: linear_step(c, d, cosines=True),
        "nn.Linear, no cosines, torch's SGD": lambda: linear_step(c, d, cosines=False),
    }


def batch_of(options: argparse.Namespace, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    embeddings = normalize(torch.randn(options.batch, options.dimension, generator=generator))
    labels = torch.randint(0, options.classes, (options.batch,), generator=generator)
    return embeddings.requires_grad_(), labels


def times(options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Median seconds of a step and of CPU, the contestants in turn.

    Of two steps in a row the second counts: the first also pays for memory that the operating
    system (or a virtual machine's host) took back while the others ran.
    """
    steps = {name: make() for name, make in contestants(options).items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for number in range(options.repeats):
        for name, step in steps.items():
            batch = batch_of(options, number)
            step(*batch, number)
            start, cpu = time.perf_counter(), time.process_time()
            step(*batch, number)
            taken[name].append((time.perf_counter() - start, time.process_time() - cpu))
    return {
        name: (
            statistics.median(seconds for seconds, _ in pairs),
            statistics.median(cpu for _, cpu in pairs),
        )
        for name, pairs in taken.items()
    }


def status_mib(field: str) -> float:
    # Not getrusage: its peak is handed down from the parent.
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index(field) + 1]) / 1024


def child(options: argparse.Namespace) -> None:
    batches = [batch_of(options, number) for number in range(2)]
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # loads much of torch, which is not a matrix
    before = status_mib("VmRSS:")
    step = contestants(options)[options.child]()
    for number, batch in enumerate(batches):
        step(*batch, number)
    print(status_mib("VmHWM:") - before)


def peak_mib(name: str) -> float:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=93_431)
    parser.add_argument("--dimension", type=int, default=282)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--sample-rate", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options)
        return
    one = options.classes * options.dimension * 4 / 2**20
    print(
        f"{options.classes} classes of {options.dimension} ({one:.0f} MiB a matrix), batch "
        f"{options.batch}, {options.threads} threads, median of {options.repeats}"
    )
    seconds = times(options)
    _, floor = next(iter(seconds.values()))
    print(f"{'':<36} {'ms':>7} {'CPU ms':>7} {'× floor':>8} {'peak MiB':>9} {'matrices':>9}")
    for name, (wall, cpu) in seconds.items():
        peak = peak_mib(name)
        print(
            f"{name:<36} {wall * 1000:7.0f} {cpu * 1000:7.0f} {cpu / floor:8.2f} {peak:9.0f} "
            f"{peak / one:9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
