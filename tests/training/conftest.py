"""A folder of made-up people that a training can run on in seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

RECIPE = """
[train]
architecture = "paper-x0.1-d0.1-e16"
batch_size = 8
threads = 1
checkpoint_steps = 3
log_steps = 1
tensorboard = false

[data]
path = "people"

[optimiser]
learning_rate = 0.05
warmup_steps = 2

[[stage]]
name = "ArcFace"
steps = 5
[stage.losses.arcface]
margin_radians = 0.3

[[stage]]
name = "Combined"
steps = 4
[stage.losses.combined]
[stage.losses.sv-guided]
t = 1.1
[stage.losses.inter]
weight = 0.5
"""


def write_people(folder: Path, people: int = 5, images: int = 6, seed: int = 0) -> Path:
    """A smooth pattern a person, with noise an image, as PNG files of 112x112."""
    rng = np.random.default_rng(seed)
    for person in range(people):
        coarse = rng.uniform(0, 255, (6, 6, 3)).astype(np.float32)
        face = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_CUBIC)
        below = folder / f"person{person}"
        below.mkdir(parents=True)
        for image in range(images):
            noisy = np.clip(face + rng.normal(0, 20, face.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(below / f"{image}.png"), noisy)
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `people` with five people of six images; its parent is where recipes lie."""
    return write_people(tmp_path_factory.mktemp("training") / "people")
