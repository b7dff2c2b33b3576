"""`--runtime auto`: a short trial on this machine picks the fastest plan, once for each network."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidface.backbones.runtimes import RUNTIMES, Runner, RuntimePlan
from vidface.backbones.runtimes.base import NetworkTimeoutError
from vidface.backbones.runtimes.plans import make_runner
from vidface.core.errors import VidfaceError
from vidface.core.files import read_json_object, write_json
from vidface.storage.cache import TRIALS, cache_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vidface.backbones.network import Network
    from vidface.backbones.preprocessing import Preprocessing

TRIAL_FACES = 16  # a round
TRIAL_ROUNDS = 3  # the best counts: a neighbour on the machine can only slow a round down


def fastest(
    network: Network, preprocessing: Preprocessing, plans: Sequence[RuntimePlan]
) -> tuple[RuntimePlan, Runner]:
    """The fastest of the plans and its runner, remembered in the cache for this machine.

    Raises:
        VidfaceError: none of the plans can run the network; what the first of them says.
    """
    if len(plans) == 1:
        return plans[0], make_runner(network, preprocessing, plans[0])
    path = _record(network, plans)
    remembered = _read(path, plans)
    if remembered is not None:
        return remembered, make_runner(network, preprocessing, remembered)
    crops = np.random.default_rng(0).integers(0, 256, (TRIAL_FACES, *preprocessing.shape), np.uint8)
    best: tuple[float, RuntimePlan, Runner] | None = None
    failures: list[VidfaceError] = []
    rates = []
    for plan in plans:
        try:
            runner = make_runner(network, preprocessing, plan)
            rate = measure(runner, crops)
        except NetworkTimeoutError:  # the others would take as long
            raise
        except VidfaceError as error:
            failures.append(error)
            continue
        rates.append({"plan": asdict(plan), "images_per_second": round(rate, 1)})
        if best is None or rate > best[0]:
            best = rate, plan, runner
    if best is None:
        raise failures[0]
    record = {"chosen": asdict(best[1]), "trial": rates, "machine": machine_name()}
    with contextlib.suppress(VidfaceError):  # a cache that can't be written costs the next run one
        write_json(path, record)
    return best[1], best[2]


def measure(runner: Runner, crops: np.ndarray, rounds: int = TRIAL_ROUNDS) -> float:
    """Images per second of a runner, the best of a few rounds over `crops`."""
    n = max(1, len(crops) // runner.batch)
    filled = np.resize(crops, (n * runner.batch, *crops.shape[1:]))
    batches = list(filled.reshape(n, runner.batch, *crops.shape[1:]))
    runner.run(batches[:1])
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        runner.run(batches)
        seconds.append(time.perf_counter() - start)
    return n * runner.batch / min(seconds)


def _record(network: Network, plans: Sequence[RuntimePlan]) -> Path:
    versions = {r.package: _version(r.package) for r in RUNTIMES.values() if r.is_installed}
    key = [network.sha256, machine_name(), [asdict(plan) for plan in plans], versions]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / TRIALS / f"{digest[:32]}.json"


def _read(path: Path, plans: Sequence[RuntimePlan]) -> RuntimePlan | None:
    """The plan that an earlier trial chose; None where there was none, or its record is no use."""
    try:
        chosen = read_json_object(path).get("chosen")
    except VidfaceError:
        return None
    return next((plan for plan in plans if asdict(plan) == chosen), None)


def machine_name() -> str:
    """The processor's name: what is fast on one is not on another."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name
    wanted = ("model name", "cpu family", "model", "flags")
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    text = " ".join(fields.get(k, "") for k in wanted)
    return f"{fields.get('model name', name)} {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # of a distribution of another name: onnxruntime-gpu
        return "unknown"
