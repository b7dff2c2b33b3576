"""Which way of removing noise, and which pooling, gives the best figures on clips with known noise?

    python benchmarks/compare_denoisers.py ytf_noisy_y1 ytf_noisy_mobilefacenet \\
        --truth .../images/ytf_noisy112.tar/ytf_noisy112/truth.csv

Extracts each pipeline once (or finds it done), then scores every denoiser with pooling `mean`, and
every pooling behind union-find. A threshold is chosen over 5 folds of the identities, by mAP: the
one that most folds choose; mAP is each identity's under its own fold's threshold, TAR, precision
and recall are those at the threshold shown. `trim` is swept over shares in the same way.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from vidface.core.errors import VidfaceError
from vidface.core.thresholds import parse_thresholds, threshold_name
from vidface.noise.denoisers import DENOISERS, Trim, name_of_denoiser
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import denoise
from vidface.runs.run import Run, open_run
from vidface.runs.scoring import score_descriptors
from vidface.runs.selection import plan_folds
from vidface.settings.pipeline import load_pipeline
from vidface.vectors.poolings import POOLINGS

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pipelines", nargs="+")
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--thresholds", default="0:0.7:0.05")
    options = parser.parse_args()
    for name in options.pipelines:
        compare(name, options.truth, parse_thresholds(options.thresholds))


def compare(name: str, truth: Path, thresholds: list[float | None]) -> None:
    pipeline = load_pipeline(name, {("cluster", "truth"): truth})
    run = open_run(pipeline)
    extract(run)
    print(f"\n{name}: {len(run.manifest.clips)} clips, manifest sha256 {run.manifest.sha256[:12]}")
    print("| denoiser | pooling | setting | mAP@100 | TAR@1e-3 | dropped | precision | recall |")
    print("|---|---|---|---|---|---|---|---|")
    base = Denoising.of_run(run)
    for denoiser in DENOISERS.values():
        line(run, replace(base, denoiser=denoiser()), thresholds)
    for pooling in POOLINGS:
        if pooling != "mean":
            line(run, replace(base, pooling=pooling), thresholds)


def line(run: Run, denoising: Denoising, thresholds: list[float | None]) -> None:
    method = name_of_denoiser(denoising.denoiser)
    head = f"| {method} | {denoising.pooling} |"
    split, gallery = run.pipeline.score.split, run.pipeline.score.gallery
    if denoising.has_threshold:
        candidates = [denoising.with_threshold(threshold) for threshold in thresholds]
    elif method == "trim":
        candidates = [replace(denoising, denoiser=Trim(share)) for share in SHARES]
    else:
        candidates = [denoising]
    try:
        found = [denoise(run, candidate) for candidate in candidates]
    except VidfaceError as error:
        print(f"{head} {error} ||||||", flush=True)
        return
    chosen, map_at_k = 0, None
    if len(found) > 1:
        plan = plan_folds(run.manifest, split, gallery, settings=run.pipeline.score)
        # The plan tells candidates apart by a number: here, their place in the list.
        numbered = [replace(one, threshold=i / 1000) for i, one in enumerate(found)]
        selection = plan.choose([plan.observe(one) for one in numbered])
        picked = Counter(selection.honest.thresholds).most_common(1)[0][0]
        chosen, map_at_k = round((picked or 0) * 1000), selection.honest.map_at_k
    best = found[chosen]
    scored = score_descriptors(run, best, split, gallery)
    map_at_k = scored.retrieval.map_at_k if map_at_k is None else map_at_k
    tar = next(p.tar for p in scored.verification.points if p.target_far == "1e-3")
    if denoising.has_threshold:
        setting = threshold_name(candidates[chosen].threshold)
    elif method == "trim":
        setting = f"share {SHARES[chosen]}"
    else:
        setting = ""
    removal, summary = best.removal, best.summary()
    precision, recall = (removal.precision, removal.recall) if removal else (None, None)
    figures = [f"{value:.4f}" for value in (map_at_k or 0, tar or 0)]
    shares = ["n/a" if v is None else f"{v:.3f}" for v in (precision, recall)]
    print(
        f"{head} {setting} | {figures[0]} | {figures[1]} | {summary['dropped_share']:.1%} | "
        f"{shares[0]} | {shares[1]} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
