"""How fast is the clustering of faces within clips, and how near to the machine's limit?

    python benchmarks/bench_clusters.py                 # 20,000 clips, all contestants
    python benchmarks/bench_clusters.py --whole         # 203,848 clips in shards, time and memory
    python benchmarks/bench_clusters.py --sweep         # what one and 50 thresholds cost a run

Synthetic embeddings: frames a clip floor(lognormal(3.0, 0.9)) clipped to 1 … 240; unit rows; 15 %
noise rows of random direction, the others at a cosine of 0.8 ± 0.08 to their clip's centre; seeded.
The slow peers run on the first clips alone (`--peer-clips`), and their ratio is to us on the same.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import DBSCAN
from threadpoolctl import threadpool_limits

from vidface.noise import kernels as linkage
from vidface.noise.clusters import cluster_frames, cut, linkage_tree
from vidface.runs import artefacts
from vidface.runs.columns import CLIPS_SCHEMA, embeddings_schema
from vidface.runs.noise_removal import denoise_all
from vidface.runs.run import Run, open_run
from vidface.settings.pipeline import parse_pipeline

THRESHOLD = 0.4
TRACK3_CLIPS = 203_848
SHARD_CLIPS = 1024


def lengths_of(n_clips: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).lognormal(3.0, 0.9, n_clips)
    return np.clip(np.floor(drawn), 1, 240).astype(np.int64)


def make(lengths: np.ndarray, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n_rows, d) float32 and offsets."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.empty((offsets[-1], d), np.float32)
    for first in range(0, len(lengths), 1000):
        last = min(first + 1000, len(lengths))
        centres = unit(rng.standard_normal((last - first, d), np.float32))
        centres = np.repeat(centres, lengths[first:last], axis=0)
        others = unit(rng.standard_normal(centres.shape, np.float32))
        cosines = np.clip(rng.normal(0.8, 0.08, len(centres)), 0.2, 0.97).astype(np.float32)
        cosines[rng.random(len(centres)) < 0.15] = 0
        mixed = cosines[:, None] * centres + np.sqrt(1 - cosines**2)[:, None] * others
        rows[offsets[first] : offsets[last]] = unit(mixed)
    return rows, offsets


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def best_seconds(work: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Floor:
    """The batched similarity products alone, of rows that are gathered and scaled already."""

    def __init__(self, rows: np.ndarray, offsets: np.ndarray, batch_bytes: int) -> None:
        lengths = np.diff(offsets)
        self.batches = []
        for n in np.unique(lengths):
            clips = np.flatnonzero(lengths == n)
            step = max(1, batch_bytes // int(4 * n * (rows.shape[1] + n)))
            for first in range(0, len(clips), step):
                places = offsets[clips[first : first + step]][:, None] + np.arange(n)
                self.batches.append(rows[places])

    def numpy(self) -> None:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda batch: (batch @ batch.swapaxes(1, 2)).shape, self.batches):
                pass

    def torch(self) -> None:
        import torch

        def product(batch: Any) -> Any:
            return torch.bmm(batch, batch.transpose(1, 2)).shape

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(product, [torch.from_numpy(batch) for batch in self.batches]):
                pass
        torch.set_num_threads(threads)

    def seconds(self, repeats: int) -> float:
        return min(best_seconds(self.numpy, repeats), best_seconds(self.torch, repeats))


def floor_seconds(rows: np.ndarray, offsets: np.ndarray, repeats: int) -> float:
    """As fast as this machine does them: over both libraries and three sizes of batches."""
    return min(Floor(rows, offsets, 2**size).seconds(repeats) for size in (20, 22, 24))


def gathered_seconds(rows: np.ndarray, offsets: np.ndarray, repeats: int) -> float:
    """What it takes to bring rows into batches and to scale them, nothing else."""
    from vidface.noise.clusters import _BATCH_BYTES
    from vidface.vectors.batches import gather_rows, run_batches

    def work(batch: Any, _: int) -> None:
        own, scales, _usable = gather_rows(rows, batch)
        own *= scales[:, :, None]

    return best_seconds(
        lambda: run_batches(work, rows, offsets, _BATCH_BYTES, 2**31, None), repeats
    )


def scipy_loop(rows: np.ndarray, offsets: np.ndarray) -> None:
    for a, b in pairwise(offsets):
        connected_components(rows[a:b] @ rows[a:b].T > THRESHOLD, directed=False)


def dbscan_loop(rows: np.ndarray, offsets: np.ndarray) -> None:
    for a, b in pairwise(offsets):
        DBSCAN(eps=1 - THRESHOLD, min_samples=1, metric="cosine").fit(rows[a:b])


def python_loop(rows: np.ndarray, offsets: np.ndarray) -> None:
    for a, b in pairwise(offsets):
        similar = (rows[a:b] @ rows[a:b].T > THRESHOLD).tolist()
        parent = list(range(b - a))

        def root(i: int, parent: list[int] = parent) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for i, line in enumerate(similar):
            for j in range(i):
                if line[j]:
                    parent[root(i)] = root(j)
        [root(i) for i in range(b - a)]


def report(name: str, seconds: float, floor: float, target: float | None = None) -> None:
    ratio = seconds / floor
    verdict = ""
    if target is not None:
        verdict = f"  target ≤ {target}: {'reached' if ratio <= target else 'MISSED'}"
    print(f"{name:<46} {seconds:8.3f} s {ratio:7.2f} × (d){verdict}", flush=True)


def compare(n_clips: int, peer_clips: int, d: int, seed: int, repeats: int) -> None:
    rows, offsets = make(lengths_of(n_clips, seed), d, seed)
    print(f"{n_clips} clips, {len(rows)} rows of {d}, threshold {THRESHOLD}, seed {seed}")
    floor = floor_seconds(rows, offsets, repeats)
    report("(d) products alone, rows ready in batches", floor, floor)
    gathered = gathered_seconds(rows, offsets, repeats)
    report("(d) and bringing rows into batches", floor + gathered, floor)
    ours = best_seconds(lambda: cluster_frames(rows, offsets, THRESHOLD), repeats)
    report("cluster_frames", ours, floor, 1.3)
    print(f"{'':<46} {ours / (floor + gathered):19.2f} × (d) and bringing rows into batches")
    pivot_from, linkage.PIVOT_FROM = linkage.PIVOT_FROM, 10**9
    direct = best_seconds(lambda: cluster_frames(rows, offsets, THRESHOLD), repeats)
    linkage.PIVOT_FROM = pivot_from
    report("cluster_frames, every product", direct, floor)
    tree = best_seconds(lambda: linkage_tree(rows, offsets), repeats)
    report("linkage_tree", tree, floor)
    made = linkage_tree(rows, offsets)
    thresholds = np.linspace(0, 0.7, 50)
    cuts = best_seconds(lambda: [cut(made, t) for t in thresholds], repeats)
    report("linkage_tree and 50 cuts", tree + cuts, floor, 3)
    same = np.mean(cut(made, THRESHOLD) == cluster_frames(rows, offsets, THRESHOLD))
    print(f"rows with the same label by both ways: {same:.6%}")

    print(f"\npeers, on the first {peer_clips} clips, once each")
    few, few_offsets = rows[: offsets[peer_clips]], offsets[: peer_clips + 1]
    ours_few = best_seconds(lambda: cluster_frames(few, few_offsets, THRESHOLD), repeats)
    contestants = (
        ("(a) loop of scipy connected_components", scipy_loop, 8),
        ("(b) loop of sklearn DBSCAN", dbscan_loop, 25),
        ("(c) loop of plain-Python Union-Find", python_loop, 25),
    )
    for name, work, target in contestants:
        seconds = best_seconds(partial(work, few, few_offsets), 1)
        ratio = seconds / ours_few
        verdict = "reached" if ratio >= target else "MISSED"
        print(f"{name:<46} {seconds:8.3f} s {ratio:7.1f} × ours  target ≥ {target}: {verdict}")

    print("\nunder the floor, by length of the clips")
    lengths = np.diff(offsets)
    for low, high, target in ((1, 23, None), (24, 49, None), (50, 99, None), (100, 240, 0.6)):
        chosen = np.flatnonzero((lengths >= low) & (lengths <= high))
        places = np.concatenate([np.arange(offsets[c], offsets[c + 1]) for c in chosen])
        part = rows[places]
        part_offsets = np.concatenate([[0], np.cumsum(lengths[chosen])])
        part_floor = floor_seconds(part, part_offsets, repeats)
        seconds = best_seconds(partial(cluster_frames, part, part_offsets, THRESHOLD), repeats)
        report(f"{low} to {high} rows ({len(chosen)} clips)", seconds, part_floor, target)


def whole(d: int, seed: int) -> None:
    """The whole of track 3, mapped shard by shard: time, and memory beside the mapped files."""
    lengths = lengths_of(TRACK3_CLIPS, seed)
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for first in range(0, TRACK3_CLIPS, SHARD_CLIPS):
            path = Path(name) / f"{first}.npy"
            rows, offsets = make(lengths[first : first + SHARD_CLIPS], d, seed + first)
            np.save(path, rows)
            paths.append((path, offsets))
        del rows
        print(f"{TRACK3_CLIPS} clips, {lengths.sum()} rows of {d} in {len(paths)} shards")

        def run(work: Callable[[np.ndarray, np.ndarray], Any]) -> tuple[float, int]:
            start, kept = time.perf_counter(), 0
            for path, offsets in paths:
                labels = work(np.load(path, mmap_mode="r"), offsets)
                kept += int(np.count_nonzero(labels == 0))
            return time.perf_counter() - start, kept

        for label, work in (
            ("cluster_frames", lambda rows, offsets: cluster_frames(rows, offsets, THRESHOLD)),
            ("tree and one cut", lambda rows, offsets: cut(linkage_tree(rows, offsets), THRESHOLD)),
        ):
            seconds, kept = run(work)
            verdict = "reached" if seconds < 60 else "MISSED"
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{label:<20} {seconds:7.1f} s (target < 60: {verdict}), {kept} rows kept, "
                f"peak memory so far {peak:.0f} MiB with mapped pages",
                flush=True,
            )


def sweep(n_clips: int, d: int, seed: int) -> None:
    """Noise removal and pooling of a stored run, as `vidface sweep` does it before it scores."""
    lengths = lengths_of(n_clips, seed)
    with tempfile.TemporaryDirectory() as name:
        run = stored_run(Path(name), lengths, d, seed)
        rounds = (
            ("one threshold, no tree yet", [THRESHOLD]),
            ("one threshold, trees stored", [THRESHOLD]),
            ("50 thresholds, trees stored", np.linspace(0, 0.7, 50).tolist()),
        )
        print(f"{n_clips} clips, {lengths.sum()} rows of {d} in {len(run.shards())} shards")
        for label, thresholds in rounds:
            start = time.perf_counter()
            for _ in denoise_all(run, thresholds):
                pass
            seconds = time.perf_counter() - start
            print(f"{label:<30} {seconds:7.2f} s, {seconds / len(thresholds):.2f} s a threshold")


def stored_run(folder: Path, lengths: np.ndarray, d: int, seed: int) -> Run:
    """A run directory as an extraction leaves it."""
    ids = np.array([f"clip{i:06d}" for i in range(len(lengths))])
    lines = ["clip_id,path,identity,split", *(f"{i},{i}.mp4,{i},val" for i in ids)]
    (folder / "manifest.csv").write_text("\n".join(lines))
    document = {"manifest": {"path": str(folder / "manifest.csv")}, "run": {"dir": str(folder)}}
    run = open_run(parse_pipeline(document, folder / "pipeline.toml"), check_files=False)
    made = artefacts.provenance("extract", run.extraction_settings)
    schema = embeddings_schema(d)
    for number, first in enumerate(range(0, len(lengths), SHARD_CLIPS)):
        part = lengths[first : first + SHARD_CLIPS]
        rows, offsets = make(part, d, seed + first)
        columns = {
            "clip_id": np.repeat(ids[first : first + len(part)], part),
            "frame_index": np.arange(len(rows)) - np.repeat(offsets[:-1], part),
            "face_index": np.zeros(len(rows), np.int32),
            "norm": np.ones(len(rows), np.float32),
            "embedding": artefacts.fixed_lists(rows),
        }
        arrays = [
            pa.array(columns[f.name]).cast(f.type)
            if f.name in columns
            else pa.nulls(len(rows), f.type)
            for f in schema
        ]
        table = pa.Table.from_arrays(arrays, schema=schema)
        artefacts.write_arrow(run.folder.shard_path(number), table, made)
    columns = {"clip_id": ids, "state": ["ok"] * len(ids), "frames": lengths, "faces": lengths}
    table = pa.Table.from_arrays(
        [
            pa.array(columns[f.name]).cast(f.type)
            if f.name in columns
            else pa.nulls(len(ids), f.type)
            for f in CLIPS_SCHEMA
        ],
        schema=CLIPS_SCHEMA,
    )
    artefacts.write_parquet(run.folder.clips_path, table, made)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--peer-clips", type=int, default=2_000)
    parser.add_argument("--dimension", type=int, default=282)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    options = parser.parse_args()
    if options.whole:
        whole(options.dimension, options.seed)
    elif options.sweep:
        sweep(options.clips, options.dimension, options.seed)
    else:
        compare(options.clips, options.peer_clips, options.dimension, options.seed, options.repeats)


if __name__ == "__main__":
    main()
