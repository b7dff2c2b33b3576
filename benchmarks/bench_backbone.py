"""How fast is a recogniser run? Images per second by batch size and runtime, in one run.

    python benchmarks/bench_backbone.py                              the paper's network, untrained
    python benchmarks/bench_backbone.py --weights FILE --crops TAR   weights, with cosines and int8

Peers: PyTorch as it comes (eager, float32), `torch.compile` (with --compile), ONNX Runtime as it
comes. Ceiling: this machine's measured float32 matrix product, over the network's multiply-adds.
The contestants take turns, round by round, and the best round of each counts: a neighbour on the
machine can only slow a round down. Everybody starts from the same uint8 crops.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from vidface.backbones.architectures import find_architecture
from vidface.backbones.budget import count_graph, count_module
from vidface.backbones.embedder import Embedder
from vidface.backbones.export import cosine_rows
from vidface.backbones.files import save_safetensors
from vidface.backbones.loading import load_network
from vidface.backbones.network import Network
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.quantize import quantize_network, sampled_crops
from vidface.backbones.runtimes import RUNTIMES, RuntimePlan
from vidface.backbones.runtimes.trial import machine_name
from vidface.backbones.runtimes.with_onnxruntime import open_session
from vidface.core.values import available_cores
from vidface.storage.media import open_root

TARGET, STRETCH = 2.2, 3.0  # times eager PyTorch at batch 32, in float32 and in reduced precision

Embed = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    options = parse()
    batches = [int(b) for b in options.batches.split(",")]
    device = options.device
    threads = available_cores()
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (max(256, *batches), 112, 112, 3), np.uint8)
    crops = noise
    if options.crops:
        crops = sampled_crops(open_root(options.crops), len(noise), seed=0)
    fed = Preprocessing(options.color, options.mean, options.std)
    with tempfile.TemporaryDirectory() as folder:
        network = read(options, Path(folder), fed)
        contestants = make(network, fed, options, crops, threads)
        macs = macs_of(network)
        rates = race(contestants, crops, batches, options.rounds)
        gemm = gemm_rate(device)
        reference = contestants["onnxruntime" if device == "cpu" else "torch"](crops[:64])
        cosines = {n: float(cosine_rows(reference, f(crops[:64])).mean())
                   for n, f in contestants.items()}  # fmt: skip
    report(network, options, batches, rates, cosines, gemm, macs, threads)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a file of weights [default: --network]")
    parser.add_argument("--network", default="paper", help="an architecture, untrained")
    parser.add_argument("--crops", type=Path, help="folder or tar of faces [default: noise]")
    parser.add_argument("--color", default="rgb")
    parser.add_argument("--mean", type=float, default=127.5)
    parser.add_argument("--std", type=float, default=127.5)
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also torch.compile (minutes)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


def read(options: argparse.Namespace, folder: Path, fed: Preprocessing) -> Network:
    if options.weights:
        return load_network(options.weights)
    path = folder / "untrained.safetensors"
    save_safetensors(find_architecture(options.network).build(), path, options.network, fed)
    return load_network(path, options.network)


def macs_of(network: Network) -> int:
    if network.module is not None:
        return count_module(network.module).macs
    if network.model is None:
        sys.exit("neither a graph nor a module")
    return count_graph(network.model, network.name).macs


def make(
    network: Network,
    fed: Preprocessing,
    options: argparse.Namespace,
    crops: np.ndarray,
    threads: int,
) -> dict[str, Embed]:
    """Everybody who runs, by name."""
    found: dict[str, Embed] = {}
    device = options.device
    if network.module is not None:
        found["PyTorch eager"] = eager(network.module, fed, device)
        if options.compile:
            found["torch.compile"] = eager(torch.compile(network.module), fed, device)
        found["torch"] = ours(network, fed, RuntimePlan("torch", device=device, threads=threads))
        if device != "cpu":
            for precision in ("bf16", "fp16"):
                found[f"torch {precision}"] = ours(
                    network, fed, RuntimePlan("torch", precision, device, threads)
                )
            return found
    network.graph()
    found["ONNX Runtime as it comes"] = plain_onnxruntime(network, fed, threads)
    found["onnxruntime"] = ours(
        network, fed, RuntimePlan("onnxruntime", threads=threads, split_prelu=True)
    )
    small = Network("int8", "int8", quantize_network(network, fed, crops[:128]))
    found["onnxruntime int8"] = ours(small, fed, RuntimePlan("onnxruntime", threads=threads))
    if RUNTIMES["openvino"].is_installed:
        found["openvino"] = ours(network, fed, RuntimePlan("openvino", threads=threads))
        found["openvino bf16"] = ours(
            network, fed, RuntimePlan("openvino", "bf16", threads=threads)
        )
        found["openvino int8"] = ours(small, fed, RuntimePlan("openvino", threads=threads))
    return found


def ours(network: Network, fed: Preprocessing, plan: RuntimePlan) -> Embed:
    return Embedder(network, fed, plans=[plan]).embed


def eager(module: torch.nn.Module, fed: Preprocessing, device: str) -> Embed:
    """A module as people run it: planes, evaluation mode, no gradient."""
    module = module.to(device).eval()

    def embed(crops: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(fed.apply(crops)).to(device)).cpu().numpy()

    return embed


def plain_onnxruntime(network: Network, fed: Preprocessing, threads: int) -> Embed:
    """ONNX Runtime as people run it: the file, its batch free, all threads in one batch."""
    model = network.model
    if model is None:
        sys.exit("no graph")
    session = open_session(model, network.name, threads)
    name, one = session.get_inputs()[0].name, session.get_inputs()[0].shape[0]

    def embed(crops: np.ndarray) -> np.ndarray:
        images = fed.apply(crops)
        size = one if isinstance(one, int) else len(images)
        pieces = [images[i : i + size] for i in range(0, len(images), size)]
        return np.concatenate([session.run(None, {name: piece})[0] for piece in pieces])

    return embed


def race(
    contestants: dict[str, Embed], crops: np.ndarray, batches: list[int], rounds: int
) -> dict[str, dict[int, float]]:
    """Images per second, the best of the rounds, by contestant and batch."""
    best = {name: dict.fromkeys(batches, 0.0) for name in contestants}
    for batch in batches:
        for number in range(rounds + 1):
            for name, embed in contestants.items():
                start = time.perf_counter()
                embed(crops[:batch])
                rate = batch / (time.perf_counter() - start)
                if number:  # the first round warms up
                    best[name][batch] = max(best[name][batch], rate)
    return best


def gemm_rate(device: str) -> float:
    """Multiply-adds per second of a float32 matrix product, without TF32: the ceiling."""
    n = 2048 if device == "cpu" else 8192
    a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        c = a @ b
        c[0, 0].item()
        best = max(best, n**3 / (time.perf_counter() - start))
    return best


def report(
    network: Network,
    options: argparse.Namespace,
    batches: list[int],
    rates: dict[str, dict[int, float]],
    cosines: dict[str, float],
    gemm: float,
    macs: int,
    threads: int,
) -> None:
    where = machine_name() if options.device == "cpu" else torch.cuda.get_device_name()
    ceiling = gemm / macs
    peer = "PyTorch eager" if "PyTorch eager" in rates else "ONNX Runtime as it comes"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    name = options.weights.name if options.weights else f"{options.network}, untrained"
    print(f"{name}: {macs / 1e6:.1f} MMAC; {where}, {threads} threads; Python "
          f"{platform.python_version()}, torch {torch.__version__}; "
          f"commit {commit.stdout.strip()}")  # fmt: skip
    print(f"ceiling: {2 * gemm / 1e9:.0f} GFLOP/s float32 = {ceiling:.0f} images/s")
    print(f"\nimages/s (× {peer})  [× ceiling]; cosine to float32")
    width = max(map(len, rates))
    print(f"{'':<{width}}" + "".join(f"{f'batch {b}':>24}" for b in batches) + f"{'cosine':>10}")
    for contestant, by_batch in rates.items():
        cells = "".join(
            f"{rate:>9.1f} ({rate / rates[peer][b]:>5.2f}) [{rate / ceiling:.2f}]"
            for b, rate in by_batch.items()
        )
        print(f"{contestant:<{width}}{cells}{cosines[contestant]:>10.5f}")
    if 32 in batches and peer == "PyTorch eager" and options.device == "cpu":
        for label, target, reduced in (("float32", TARGET, False), ("reduced", STRETCH, True)):
            ratios = {n: r[32] / rates[peer][32] for n, r in rates.items()
                      if n[0].islower() and (n.endswith(("bf16", "int8")) == reduced)}  # fmt: skip
            best = max(ratios, key=lambda n: ratios[n])
            verdict = "reached" if ratios[best] >= target else "MISSED"
            claim = f"target {label} ≥ {target} × eager at batch 32"
            print(f"{claim}: {best} {ratios[best]:.2f}, {verdict}")
    if options.json:
        document = {"images_per_second": rates, "cosine": cosines, "ceiling": ceiling, "macs": macs,
                    "where": where, "threads": threads}  # fmt: skip
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
