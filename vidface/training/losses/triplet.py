"""The triplet term with semi-hard mining, FaceNet's, out of pytorch-metric-learning's parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidface.core.errors import VidfaceError
from vidface.core.settings import setting
from vidface.training.losses.base import Term
from vidface.training.losses.geometry import Geometry, full_precision, zero

if TYPE_CHECKING:
    from torch import Tensor

# What a pipeline file says: what pytorch-metric-learning's TripletMarginMiner calls it.
MININGS = {"semi-hard": "semihard", "hard": "hard", "all": "all"}


@dataclass(frozen=True)
class Triplet(Term):
    """The mean hinge ‖a − p‖² − ‖a − n‖² + margin over the mined triplets of a batch.

    a and p are two faces of one class, n one of another; distances are squared Euclidean ones of
    unit vectors, 2 − 2·cos, as in FaceNet (pytorch-metric-learning's default is not squared). All
    triplets of the batch are looked at; semi-hard ones are kept: 0 < ‖a − n‖² − ‖a − p‖² < margin.
    "hard" keeps those with n no farther than p, "all" both. A triplet whose hinge is exactly 0
    does not count. The mean replaces FaceNet's sum, so that the weight does not depend on the size
    of the batch. No triplet (a batch of one class, say): exactly 0, its gradient zeros.

    Mining takes n³ bytes for a batch of n faces: 134 MB for 512, 1.07 GB for 1,024.

    Raises:
        VidfaceError: when called, pytorch-metric-learning is missing.

    Source: Schroff et al., "FaceNet: A Unified Embedding for Face Recognition and Clustering", CVPR
    2015; `TripletMarginMiner` and `TripletMarginLoss` of pytorch-metric-learning 2.9.

    >>> import torch
    >>> faces = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.75, -0.6614378]])  # 0.4 and 0.5 from a
    >>> geometry = Geometry.of(faces, torch.eye(2), torch.tensor([0, 0, 1]))
    >>> Triplet(margin=0.2)(geometry)  # 0.4 − 0.5 + 0.2
    tensor(0.1000)
    """

    name = "triplet"

    margin: float = setting(
        0.2, bounds="(0, 4]", help="Margin between squared distances; FaceNet's is 0.2."
    )
    mining: str = setting("semi-hard", choices=tuple(MININGS), help="Triplets that are kept.")

    def __call__(self, geometry: Geometry, step: int = 0) -> Tensor:
        try:
            from pytorch_metric_learning.distances import LpDistance
            from pytorch_metric_learning.losses import TripletMarginLoss
            from pytorch_metric_learning.miners import TripletMarginMiner
        except ImportError as error:
            raise VidfaceError(
                "the triplet loss needs pytorch-metric-learning; install vidface[train]"
            ) from error
        # The rows are unit vectors already; normalising again would give a zero vector a
        # gradient of 1e12.
        distance = LpDistance(p=2, power=2, normalize_embeddings=False)
        miner = TripletMarginMiner(self.margin, MININGS[self.mining], distance=distance)
        loss = TripletMarginLoss(self.margin, distance=distance)
        faces, labels = geometry.embeddings, geometry.labels
        with full_precision(faces):
            # NaN is in no triplet, so that it would be left out without a word.
            return loss(faces, labels, miner(faces, labels)) + zero(faces)
