"""How far from the machine's limit is scoring all pairs of a split, and what do others take?

    python benchmarks/bench_scores.py                   # 30,000 clips, against the peer at 16,384
    python benchmarks/bench_scores.py --whole           # track 3's size, 203,848 clips
    python benchmarks/bench_scores.py --device cuda --whole
    python benchmarks/bench_scores.py --retrieval       # mAP@100, 10,034 identities x 72,798 clips

Synthetic, seeded descriptors of 282 numbers: identities of uneven size around centres of their own,
a fifth of the clips distractors. One run measures, and gives as ratios to the floor (a):

(a) the blocked matrix product alone, half of the square since pairs are unordered: the faster of
    blocks on threads with one BLAS thread each (as vidface has them) and BLAS with all threads;
(p) the pass of (b) alone, `count_pairs`, with the bringing of rows to the device;
(b) `score_verification` with FAR 1e-4, the ROC, EER and AUC: exact TAR, one pass;
(c) the same with the default FARs, 1e-1 to 1e-6: exact up to 1e-3;
(d) with `exact`: a second pass for what is higher (not with --whole);
(e) what 1,000 resamples add to (b);
(f) the peer: the full matrix with NumPy, its upper triangle into scikit-learn's `roc_curve`, at the
    size --peer, beside vidface at that size: time and peak memory.

Every part runs in a process of its own, so that peak memory is its own; the process's memory before
the measured call (libraries, descriptors) is in it.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

D = 282
IDENTITIES, CLIPS = 10_034, 203_848  # track 3


def synthetic(n: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """(n, 282) float32 unit rows, and their identities, "" for a fifth of them."""
    rng = np.random.default_rng(seed)
    n_identities = max(2, n * IDENTITIES // CLIPS)
    weights = rng.gamma(2.0, size=n_identities)
    codes = rng.choice(n_identities, n, p=weights / weights.sum())
    codes[rng.random(n) < 0.2] = -1
    centres = rng.standard_normal((n_identities, D)).astype(np.float32)
    rows = np.empty((n, D), np.float32)
    for start in range(0, n, 16_384):
        part = slice(start, start + 16_384)
        c = codes[part]
        own = np.where((c >= 0)[:, None], centres[c], 0)
        # Hard clips are far from their centre: genuine scores reach down among the impostors.
        noise = rng.gamma(4.0, 0.5, size=(len(c), 1)).astype(np.float32)
        rows[part] = own + noise * rng.standard_normal((len(c), D), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows, ["" if c < 0 else f"{c:05d}" for c in codes]


def floor_seconds(
    rows: np.ndarray, names: list[str], device: str | None, *, with_pass: bool = False
) -> dict[str, float]:
    """The products of all blocks that verification goes through, and nothing else."""
    from vidface.metrics.inputs import identity_codes
    from vidface.metrics.pair_sets import make_pairs
    from vidface.metrics.passes import Passes

    codes = identity_codes(names, len(rows), "identities")
    pairs = make_pairs(rows, np.ones(len(rows), bool), codes, int(codes.max()) + 1)
    passes = Passes(pairs, device=device)

    def all_products() -> None:
        passes.each_block(lambda own, ops, r, c: own.append(ops.product(r, c)), _Last)

    found = {"blocks as vidface has them": timed(all_products, device)}
    if with_pass:
        from vidface.metrics.pairwise import count_pairs

        keep = pairs.impostor // 10_000 + 1
        found["pass"] = timed(lambda: count_pairs(passes, keep), device)
    if device is None:
        import warnings

        sorted_rows = pairs.first.rows
        buffer = np.empty(4096 * 4096, np.float32)

        def with_blas() -> None:
            for r, c in pairs.blocks(4096):
                a, b = sorted_rows[r], sorted_rows[c]
                np.matmul(a, b.T, out=buffer[: len(a) * len(b)].reshape(len(a), len(b)))

        warnings.simplefilter("ignore")
        found["all BLAS threads in blocks of 4096"] = timed(with_blas, device)
    return found


class _Last:
    """Takes a block's scores and forgets them."""

    def __init__(self, ops: Any) -> None:
        self.scores: Any = None

    def append(self, scores: Any) -> None:
        self.scores = scores


def timed(call: Any, device: str | None) -> float:
    """Seconds of a call, the device's work included."""
    synchronise(device)
    begun = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - begun


def synchronise(device: str | None) -> None:
    if device is not None and device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()


def part(name: str, n: int, device: str | None, repeats: int) -> dict[str, Any]:
    """One measurement, in this process."""
    rows, names = synthetic(n)
    before = peak_bytes()
    result: dict[str, Any] = {"before_bytes": before}
    if name == "peer":
        result.update(peer(rows, names))
    elif name == "floor":
        if device is not None:
            floor_seconds(
                rows[:4096], names[:4096], device, with_pass=True
            )  # the library's own start
        runs = [floor_seconds(rows, names, device, with_pass=True) for _ in range(repeats)]
        result["seconds"] = {key: min(run[key] for run in runs) for key in runs[0]}
    else:
        result.update(ours(name, rows, names, device, repeats))
    result["peak_bytes"] = peak_bytes()
    if device is not None and device.startswith("cuda"):
        import torch

        result["device_peak_bytes"] = torch.cuda.max_memory_allocated()
        result["device"] = torch.cuda.get_device_name()
    return result


def ours(
    name: str, rows: np.ndarray, names: list[str], device: str | None, repeats: int
) -> dict[str, Any]:
    from vidface.metrics.conventions import DEFAULT_FARS
    from vidface.metrics.uncertainty import Bootstrap
    from vidface.metrics.verification import score_verification

    fars = DEFAULT_FARS if name in ("default", "exact") else ("1e-4",)
    options: dict[str, Any] = {"exact": name == "exact", "device": device}
    if name == "bootstrap":
        options["bootstrap"] = Bootstrap(1000)
    if device is not None:
        score_verification(rows[:4096], names[:4096], fars, **options)
    seconds, done = [], None
    for _ in range(repeats):
        begun = time.perf_counter()
        done = score_verification(rows, names, fars, **options)
        seconds.append(time.perf_counter() - begun)
    assert done is not None
    return {
        "seconds": min(seconds),
        "figures": done.to_dict(),
        "genuine": done.genuine_pairs,
        "impostor": done.impostor_pairs,
        "curve_points": len(done.curve.thresholds) if done.curve else 0,
    }


def peer(rows: np.ndarray, names: list[str]) -> dict[str, Any]:
    """The full matrix and scikit-learn's `roc_curve`, as scripts have it."""
    from sklearn.metrics import roc_curve

    begun = time.perf_counter()
    identities = np.array(names)
    scores = rows @ rows.T
    upper = np.triu_indices(len(rows), 1)
    labelled = identities != ""
    genuine = (identities[upper[0]] == identities[upper[1]]) & labelled[upper[0]]
    pair = labelled[upper[0]] | labelled[upper[1]]
    far, tar, _ = roc_curve(genuine[pair], scores[upper][pair])
    nearest = tar[np.argmin(np.abs(far - 1e-4))]
    return {"seconds": time.perf_counter() - begun, "tar_1e-4_nearest": float(nearest)}


def retrieval() -> dict[str, Any]:
    """mAP@100 at iQIYI-VID 2019's size, and the product alone."""
    from vidface.metrics.retrieval import score_retrieval

    rng = np.random.default_rng(0)
    d, n, n_identities = 512, 72_798, 10_034
    centres = rng.standard_normal((n_identities, d), dtype=np.float32)
    gallery = centres + 1.2 * rng.standard_normal((n_identities, d), dtype=np.float32)
    codes = rng.integers(0, n_identities, n)
    codes[45_472:] = -1
    clips = np.where((codes >= 0)[:, None], centres[codes], 0)
    clips += 1.2 * rng.standard_normal((n, d), dtype=np.float32)
    for rows in (gallery, clips):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = ["" if c < 0 else f"{c:05d}" for c in codes]
    begun = time.perf_counter()
    for start in range(0, n_identities, 1024):
        gallery[start : start + 1024] @ clips.T
    floor = time.perf_counter() - begun
    begun = time.perf_counter()
    done = score_retrieval(
        gallery,
        [f"{c:05d}" for c in range(n_identities)],
        clips,
        names,
        [f"v{i:06d}" for i in range(n)],
    )
    seconds = time.perf_counter() - begun
    import faiss

    index = faiss.IndexFlatIP(d)
    index.add(clips)
    begun = time.perf_counter()
    index.search(gallery, 100)
    return {
        "seconds": seconds,
        "floor_seconds": floor,
        "faiss_search_seconds": time.perf_counter() - begun,
        "map_at_100": done.map_at_k,
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(name: str, n: int, device: str | None, repeats: int = 1) -> dict[str, Any]:
    """`part` in a process of its own."""
    command = [sys.executable, __file__, "--part", name, "--clips", str(n)]
    command += ["--repeats", str(repeats), *(["--device", device] if device else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stderr.strip() or "killed").splitlines()[-1]
        raise SystemExit(f"{name} at {n} clips failed ({done.returncode}): {tail}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=30_000)
    parser.add_argument("--whole", action="store_true", help="203,848 clips")
    parser.add_argument("--peer", type=int, default=16_384, help="clips of (f); 0: none")
    parser.add_argument("--device")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", default="b,c,d,e")
    parser.add_argument("--retrieval", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    n = CLIPS if arguments.whole else arguments.clips
    if arguments.part:
        print(json.dumps(part(arguments.part, n, arguments.device, arguments.repeats)))
        return
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    print(f"{platform.processor() or platform.machine()}, NumPy {np.__version__}, commit {commit}")
    if arguments.retrieval:
        print(json.dumps(retrieval(), indent=2))
        return
    repeats = 1 if arguments.whole and arguments.device is None else arguments.repeats
    floor = child("floor", n, arguments.device, repeats)
    print(f"{n} clips x {D}" + (f" on {floor['device']}" if "device" in floor else ""))
    one_pass = floor["seconds"].pop("pass")
    for key, seconds in floor["seconds"].items():
        print(f"(a) product alone, {key}: {seconds:.3f} s")
    least = min(floor["seconds"].values())
    print(f"(p) the pass alone: {one_pass:.3f} s = {one_pass / least:.2f} x (a)")
    parts = {"b": "1e-4", "c": "default", "d": "exact", "e": "bootstrap"}
    wanted = [p for p in arguments.parts.split(",") if p and not (arguments.whole and p == "d")]
    found = {}
    for letter in wanted:
        name = parts[letter]
        done = found[letter] = child(name, n, arguments.device, repeats)
        memory = f"peak {done['peak_bytes'] / 2**30:.2f} GiB"
        if "device_peak_bytes" in done:
            memory += f", on the device {done['device_peak_bytes'] / 2**30:.2f} GiB"
        ratio = done["seconds"] / least
        print(f"({letter}) {name}: {done['seconds']:.3f} s = {ratio:.2f} x (a); {memory}")
    first = next(iter(found.values()), None)
    if first:
        print(f"{first['genuine']:,} genuine and {first['impostor']:,} impostor pairs")
        print(json.dumps(found[wanted[-1]]["figures"], indent=2))
    if arguments.peer and arguments.device is None and not arguments.whole:
        theirs = child("peer", arguments.peer, None)
        mine = child("1e-4", arguments.peer, None)
        times = theirs["seconds"] / mine["seconds"]
        used = [(p["peak_bytes"] - p["before_bytes"]) / 2**30 for p in (theirs, mine)]
        print(
            f"(f) at {arguments.peer} clips: NumPy and roc_curve {theirs['seconds']:.2f} s, "
            f"{used[0]:.2f} GiB; vidface {mine['seconds']:.2f} s, {used[1]:.2f} GiB: "
            f"{times:.1f} x the time, {used[0] / used[1]:.1f} x the memory"
        )


if __name__ == "__main__":
    main()
