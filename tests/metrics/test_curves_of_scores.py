"""Curves of real retrieval and identification agree with the score's own figures."""

import numpy as np
import pytest

from tests.metrics.test_curves import people
from vidface.metrics.bands import Draws
from vidface.metrics.curves import identification_block, retrieval_block
from vidface.metrics.identification import score_identification
from vidface.metrics.retrieval import score_retrieval
from vidface.metrics.uncertainty import Bootstrap

BOOTSTRAP = Bootstrap(100, seed=2)


@pytest.fixture(scope="module")
def split():
    """A gallery of 12 of 15 people, and clips of all, some without a descriptor."""
    gallery, gallery_names = people(12, 2, spread=1.3, seed=1)
    clips, names = people(15, 4, spread=1.3, seed=1)
    clips[5] = clips[40] = 0
    names[7] = ""
    return gallery, gallery_names, clips, names


def test_ranks_of_hits_give_each_average_precision(split):
    gallery, gallery_names, clips, names = split
    ids = [f"c{i:03}" for i in range(len(clips))]
    found = score_retrieval(gallery, gallery_names, clips, names, ids, 20, bootstrap=BOOTSTRAP)
    assert len(found.hit_ranks) == found.identities
    for ranks, (name, precision), row in zip(
        found.hit_ranks, found.average_precision.items(), found.per_identity(), strict=True
    ):
        assert row["identity"] == name
        assert all(1 <= rank <= 20 for rank in ranks)
        stairs = sum(j / rank for j, rank in enumerate(ranks, 1)) / row["positives"]
        assert stairs == pytest.approx(precision)
    block = retrieval_block(found, Draws(BOOTSTRAP))
    assert block["map"] == found.map_at_k
    assert block["ci95"] == list(found.replicates.ci95)
    assert 0 < block["precision_recall"]["precision"][100] < 1


def test_cmc_and_its_band_are_those_of_the_listed_ranks(split):
    gallery, gallery_names, clips, names = split
    found = score_identification(
        gallery, gallery_names, clips, names, ranks=[1, 2, 5, 12], bootstrap=BOOTSTRAP
    )
    block = identification_block(found, Draws(BOOTSTRAP))
    cmc = block["cmc"]
    assert cmc["rank"] == list(range(1, 13))
    for point in found.cmc:
        at = cmc["rank"].index(point.rank)
        assert cmc["value"][at] == point.value
        assert (cmc["low"][at], cmc["high"][at]) == pytest.approx(point.replicates.ci95)
    assert np.count_nonzero(found.ranked.ranks == 0) == 2  # those without a descriptor
    assert found.ranked.n_units == 15
