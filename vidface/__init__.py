"""vidface measures how well a face recogniser tells who is in a video.

    import vidface
    score = vidface.evaluate("manifest.csv", "sface", threshold=0.4)
    score.retrieval.map_at_k
    score = vidface.evaluate_embeddings(embeddings, clip_ids, identities, splits)
    vidface.same("a.mp4", "b.mp4", run="runs/mine")
    vidface.who("a.mp4", run="runs/mine")

The stages one by one: `sample_frames`, `FaceDetector`, `align_face`, `load_backbone`,
`cluster_frames` (or `linkage_tree` and `cut`), `pool_descriptors`, `score_retrieval`,
`score_verification`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vidface.core.errors import VidfaceError
from vidface.core.version import __version__ as __version__

if TYPE_CHECKING:
    from vidface.backbones.embedder import Embedder
    from vidface.backbones.loading import load_backbone
    from vidface.backbones.preprocessing import Preprocessing
    from vidface.faces.detector import FaceDetector, align_face
    from vidface.frames.sampling import sample_frames
    from vidface.metrics.retrieval import score_retrieval
    from vidface.metrics.verification import score_verification
    from vidface.noise.clusters import cluster_frames, cut, linkage_tree
    from vidface.reports.figures import plot_score
    from vidface.runs.evaluation import evaluate, evaluate_embeddings
    from vidface.runs.same import same
    from vidface.runs.who import who
    from vidface.settings.manifests import read_manifest
    from vidface.vectors.descriptors import pool_descriptors


__all__ = [
    "Embedder",
    "FaceDetector",
    "Preprocessing",
    "VidfaceError",
    "align_face",
    "cluster_frames",
    "cut",
    "evaluate",
    "evaluate_embeddings",
    "linkage_tree",
    "load_backbone",
    "plot_score",
    "pool_descriptors",
    "read_manifest",
    "same",
    "sample_frames",
    "score_retrieval",
    "score_verification",
    "who",
]

_HOMES = {
    "Embedder": "vidface.backbones.embedder",
    "FaceDetector": "vidface.faces.detector",
    "Preprocessing": "vidface.backbones.preprocessing",
    "align_face": "vidface.faces.detector",
    "cluster_frames": "vidface.noise.clusters",
    "cut": "vidface.noise.clusters",
    "linkage_tree": "vidface.noise.clusters",
    "evaluate": "vidface.runs.evaluation",
    "evaluate_embeddings": "vidface.runs.evaluation",
    "load_backbone": "vidface.backbones.loading",
    "plot_score": "vidface.reports.figures",
    "pool_descriptors": "vidface.vectors.descriptors",
    "read_manifest": "vidface.settings.manifests",
    "same": "vidface.runs.same",
    "sample_frames": "vidface.frames.sampling",
    "score_retrieval": "vidface.metrics.retrieval",
    "score_verification": "vidface.metrics.verification",
    "who": "vidface.runs.who",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import on first use, so that `vidface --help` need not wait for NumPy or torch."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vidface' has no attribute '{name}'")
