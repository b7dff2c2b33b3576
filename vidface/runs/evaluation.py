"""`vidface.evaluate`: the whole way in one call, for notebooks; also from embeddings alone."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidface.backbones.embedder import Embedder
from vidface.backbones.loading import load_backbone
from vidface.backbones.preprocessing import Preprocessing
from vidface.backbones.runtimes.with_function import Function
from vidface.challenges.embeddings import list_clips
from vidface.core.errors import VidfaceError
from vidface.core.redaction import is_url
from vidface.core.settings import settings_of, table_settings
from vidface.core.thresholds import NO_CLUSTERING
from vidface.core.values import check_name
from vidface.datasets.embedding_files import make_rows
from vidface.faces.settings import FaceSettings
from vidface.frames.settings import FrameSettings
from vidface.metrics.settings import ScoreSettings
from vidface.runs.denoising import Denoising
from vidface.runs.extraction import extract
from vidface.runs.noise_removal import cluster
from vidface.runs.run import open_run
from vidface.runs.scoring import Score, check_splits, score_descriptors
from vidface.settings.manifests import IN_MEMORY, REQUIRED_COLUMNS, ManifestSource
from vidface.settings.pipeline import parse_pipeline

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike


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
        manifest: a CSV, or its URL, with clip_id, path, identity, split; or a table of these
            columns, as a list of dicts or a pandas or Polars DataFrame (see `read_manifest`).
        weights: a name ("sface"), a card, a file of weights, a torch module, a loaded backbone, or
            any function from crops (n, 112, 112, 3) uint8 RGB to embeddings (n, d). It is tried on
            made-up pictures and on the first faces before anything is scored.
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
        settings: other keys of [frames], [faces] and [score], such as fps, which, protocols, fars.

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
                "path": str(path if is_url(str(path)) else Path(path).absolute()),
                "allow_missing": allow_missing,
            },
            "run": {"dir": str(Path(run).absolute()) if run is not None else temporary},
            "cluster": {"threshold": NO_CLUSTERING if threshold is None else threshold},
            "score": tables["score"]
            | {"split": split, "gallery": gallery, "bootstrap": bootstrap, "seed": seed},
        }
        if root is not None:
            document["manifest"]["root"] = str(Path(root).absolute())
        clips = manifest if path is IN_MEMORY else None
        pipeline = parse_pipeline(document, where)
        opened = open_run(pipeline, _warn, clips=clips, backbone=backbone)
        check_splits(
            opened, split, gallery, opened.pipeline.score
        )  # before hours of extraction, not after
        extract(opened, force=force)
        denoised = cluster(opened, Denoising.of_run(opened))
        return score_descriptors(opened, denoised, split, gallery, settings=opened.pipeline.score)


def evaluate_embeddings(
    embeddings: ArrayLike,
    clip_ids: Sequence[Any],
    identities: Sequence[Any],
    splits: Sequence[str] | None = None,
    threshold: float | None = 0.4,
    *,
    frame_index: ArrayLike | None = None,
    split: str = "val",
    gallery: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    **settings: Any,
) -> Score:
    """Score embeddings that your own program computed.

    A clip may have one row, or many: then noise removal at `threshold` and pooling work on them.

    Args:
        embeddings: (n, d) real numbers, a row a face. Not changed. Rows of another length than 1
            are scaled, with a warning.
        clip_ids: (n,) of which clip each row is; numbers count as texts.
        identities: (n,) who is in that clip; None or "" for nobody known, a distractor.
        splits: (n,) each row's "train", "val", "test", "gallery" or "probe" (default: all `split`).
        threshold: cosine above which two rows of a clip are joined; None for no clustering.
        frame_index: (n,) whole numbers; rows of one frame are its faces (default: each row is a
            frame of its own).
        split: the split that is scored.
        gallery: the split whose identities are enrolled (default: "train" or "gallery" if any row
            is in it; else none, and verification alone is scored).
        bootstrap, seed: as for `evaluate`.
        settings: other keys of [score], such as protocols, fars.

    Raises:
        VidfaceError: counts that differ; a row that is NaN, infinite or zero (it is named); a clip
            of two identities or splits; as `evaluate`.
    """
    columns = {
        "clip_id": clip_ids,
        "embedding": embeddings,
        "frame_index": frame_index,
        "identity": identities,
        "split": splits,
    }
    rows = make_rows("embeddings", columns)
    clips = list_clips(rows, "embeddings.npz", split)
    if remark := rows.describe_lengths():
        warnings.warn(remark, stacklevel=2)
    there = [name for name in ("train", "gallery") if any(clip.split == name for clip in clips)]
    if gallery is None and (not there or there == [split]):
        settings = {"protocols": "verification", **settings}
    with tempfile.TemporaryDirectory(prefix="vidface-", ignore_cleanup_errors=True) as temporary:
        frames = {} if rows.frame_index is None else {"frame_index": rows.frame_index}
        file = Path(temporary, "embeddings.npz")
        np.savez(
            file, allow_pickle=False, clip_id=rows.clip_ids, embedding=rows.embeddings, **frames
        )
        return evaluate(
            [{name: getattr(clip, name) for name in REQUIRED_COLUMNS} for clip in clips],
            threshold=threshold,
            split=split,
            gallery=gallery or next((name for name in there if name != split), "train"),
            root=temporary,
            source="features",
            bootstrap=bootstrap,
            seed=seed,
            **settings,
        )


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)  # of the caller of `evaluate`


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
    """Keyword settings sorted into the tables that they are of; unknown ones are refused."""
    known = {field.name: "frames" for field in settings_of(FrameSettings)}
    known |= {field.name: "faces" for field in settings_of(FaceSettings)}
    # Not the device of the scores: it would be taken for the recogniser's.
    score_fields = table_settings(ScoreSettings)
    known |= {field.name: "score" for field in score_fields if field.flag_name == field.name}
    tables: dict[str, dict[str, Any]] = {"frames": {}, "faces": {}, "score": {}}
    for key, value in settings.items():
        check_name("setting", key, known)
        tables[known[key]][key] = value
    return tables
