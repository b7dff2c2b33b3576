"""`vidface.evaluate`: the whole way in one call, for notebooks and scripts."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.with_function import Function
from vidface.core.errors import VidfaceError
from vidface.core.settings import settings_of
from vidface.core.thresholds import NO_CLUSTERING
from vidface.core.values import check_name
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import open_run
from vidface.runs.scoring import Score, check_splits, score_descriptors
from vidface.settings.manifests import IN_MEMORY, ManifestSource
from vidface.settings.pipeline import parse_pipeline

if TYPE_CHECKING:
    import torch


def evaluate(
    manifest: ManifestSource,
    weights: str | Path | torch.nn.Module | Function | Embedder = "sface",
    threshold: float | None = 0.4,
    *,
    split: str = "val",
    gallery: str = "train",
    root: str | Path | None = None,
    source: str = "detect",
    preprocessing: Preprocessing | None = None,
    run: str | Path | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    allow_missing: bool = False,
    **settings: Any,
) -> Score:
    """Score a recogniser on the clips of a manifest.

    Args:
        manifest: a CSV with clip_id, path, identity, split; or a table of these columns, as a list
            of dicts or a pandas or Polars DataFrame (see `read_manifest`).
        weights: a name ("sface"), a card, a file of weights, a torch module, a function from crops
            to embeddings, or a loaded backbone.
        threshold: cosine above which two frames of a clip are joined; None for no clustering.
        split: the split that is scored.
        gallery: the split whose identities are enrolled.
        root: where the manifest's paths start, a folder or a tar (default: the manifest's folder; a
            table's paths start at the working directory).
        source: "detect", "aligned" for folders of aligned crops, or "features" (`weights` is then
            not used).
        preprocessing: what weights given by path or as a module are fed.
        run: a run directory to keep the artefacts in, reused by later calls with the same
            settings, but for a torch module's (default: a temporary one).
        bootstrap: resamples of the identities for 95 % intervals; 0 for none.
        seed: of the resamples.
        allow_missing: run on without clips whose file is missing.
        settings: other keys of [frames] and [faces], such as fps, decoder, which.

    Returns:
        Retrieval, verification, counts and provenance; `to_dict()` is the score file.

    Raises:
        VidfaceError: as the commands do.
    """
    # A file of features has been through a recogniser already.
    backbone = None if source == "features" else _load_recogniser(weights, preprocessing)
    # A module's code may have changed since, which no hash of its weights tells.
    force = backbone is not None and backbone.live
    with tempfile.TemporaryDirectory(prefix="vidface-", ignore_cleanup_errors=True) as temporary:
        where = Path.cwd() / "evaluate"
        path = manifest if isinstance(manifest, str | Path) else IN_MEMORY
        tables = _sort_into_tables(settings)
        tables["faces"]["source"] = source
        document = {
            **tables,
            "manifest": {
                "path": str(Path(path).absolute()),
                "allow_missing": allow_missing,
            },
            "run": {"dir": str(Path(run).absolute()) if run is not None else temporary},
            "cluster": {"threshold": NO_CLUSTERING if threshold is None else threshold},
            "score": {"split": split, "gallery": gallery, "bootstrap": bootstrap, "seed": seed},
        }
        if root is not None:
            document["manifest"]["root"] = str(Path(root).absolute())
        clips = manifest if path is IN_MEMORY else None
        opened = open_run(parse_pipeline(document, where), clips=clips, backbone=backbone)
        check_splits(opened, split, gallery)  # before hours of extraction, not after
        extract(opened, force=force)
        denoised = cluster(opened, Denoising.of_run(opened))
        return score_descriptors(opened, denoised, split, gallery, settings=opened.pipeline.score)


def _load_recogniser(
    weights: str | Path | torch.nn.Module | Function | Embedder, preprocessing: Preprocessing | None
) -> Embedder:
    if not isinstance(weights, Embedder):
        backbone = load_backbone(weights, preprocessing)
    elif preprocessing is None:
        backbone = weights
    else:
        raise VidfaceError("evaluate: a loaded backbone has its preprocessing; leave it out here")
    if backbone.assumed:
        warnings.warn(f"nobody says what the recogniser is fed: {backbone}", stacklevel=3)
    elif backbone.feed.remark:
        warnings.warn(backbone.feed.remark, stacklevel=3)
    return backbone


def _sort_into_tables(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Keyword settings sorted into the tables [frames] and [faces]; unknown ones are refused."""
    tables: dict[str, dict[str, Any]] = {"frames": {}, "faces": {}}
    known = {field.name: "frames" for field in settings_of(FrameSettings)}
    known |= {field.name: "faces" for field in settings_of(FaceSettings)}
    for key, value in settings.items():
        check_name("setting", key, known)
        tables[known[key]][key] = value
    return tables
