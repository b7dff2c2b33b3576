from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import vidface
from vidface.errors import VidfaceError


def test_evaluate_is_the_three_commands(
    colour_clips: Path, colour_network: Path, tmp_path: Path
) -> None:
    fed = vidface.Preprocessing("rgb", 127.5, 127.5)
    score = vidface.evaluate(
        colour_clips, colour_network, threshold=0.5, source="aligned", preprocessing=fed
    )
    assert score.retrieval.map_at_k == 1.0
    assert score.counts["kept"] == 11
    assert not list(colour_clips.parent.glob("**/*.parquet"))  # the run was a temporary one
    kept = vidface.evaluate(
        colour_clips, colour_network, None, source="aligned", preprocessing=fed, run=tmp_path / "r"
    )
    assert kept.counts["kept"] == 17
    assert (tmp_path / "r" / "clips.parquet").is_file()
    with pytest.raises(VidfaceError, match=r"backbone\.preprocessing"):
        vidface.evaluate(colour_clips, colour_network, source="aligned", run=tmp_path / "r",
                         preprocessing=vidface.Preprocessing("bgr", 0.0, 1.0))  # fmt: skip


def test_evaluate_takes_a_module_or_a_backbone(colour_clips: Path, colour_network: Path) -> None:
    import torch

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3))

    by_module = vidface.evaluate(colour_clips, Mean(), 0.5, source="aligned")
    backbone = vidface.load_backbone(colour_network)
    by_backbone = vidface.evaluate(colour_clips, backbone, 0.5, source="aligned")
    assert by_module.retrieval == by_backbone.retrieval
    assert by_module.provenance["weights"] == "Mean"
    assert len(by_module.provenance["weights_sha256"]) == 64


def test_unknown_settings_are_refused(colour_clips: Path, colour_network: Path) -> None:
    with pytest.raises(VidfaceError, match=r"unknown setting 'fsp' \(known: fps, decoder"):
        vidface.evaluate(colour_clips, colour_network, fsp=4)
    with pytest.raises(VidfaceError, match=r"known: detect, aligned"):
        vidface.evaluate(colour_clips, colour_network, source="crops")


def test_the_stages_one_by_one_arrays_in_arrays_out(colour_network: Path) -> None:
    """The README's example, on colours."""
    from tests.conftest import crop_of

    backbone = vidface.load_backbone(colour_network)
    names = ["red", "red", "blue", "green", "green", "green"]
    crops = np.stack([crop_of(name, seed=k) for k, name in enumerate(names)])
    embeddings = backbone.embed(crops)
    offsets = np.array([0, 3, 6])
    labels = vidface.cluster_frames(embeddings, offsets, 0.5)
    assert labels.tolist() == [0, 0, 1, 0, 0, 0]
    descriptors = vidface.pool_descriptors(embeddings, offsets, labels)
    assert descriptors.shape == (2, 3)
    retrieval = vidface.score_retrieval(
        descriptors, ["red", "green"], descriptors, ["red", "green"], ["a", "b"]
    )
    assert retrieval.map_at_k == 1.0
    assert vidface.score_verification(descriptors, ["red", "green"]).impostor_pairs == 1


def test_lazy_names() -> None:
    for name in vidface.__all__:
        assert getattr(vidface, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        vidface.evaluat  # noqa: B018
