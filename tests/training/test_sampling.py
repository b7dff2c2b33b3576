import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.budgets import examples
from tests.conftest import absent
from vidface.core.errors import VidfaceError
from vidface.training.sampling import (
    SAMPLERS,
    PeopleByImages,
    Shuffled,
    _deal,
    make_sampler,
)

UNEVEN = np.repeat([7, 0, 3, 5, 1], [4, 9, 5, 30, 7])


def deal_naively(rng_orders, size, hands, k):
    """One deck, card by card: `rng_orders` gives the shuffles as they come."""
    dealt, deck = [], []
    for _ in range(hands):
        hand = []
        while len(hand) < k:
            if not deck:
                deck = next(rng_orders)
                if size >= k:
                    fresh = [card for card in deck if card not in hand]
                    first = fresh[: k - len(hand)] if hand else []
                    deck = first + [card for card in deck if card not in first]
            hand.append(deck.pop(0))
        dealt.append(hand)
    return dealt


def shuffles(seed, size):
    random = np.random.default_rng(seed)
    while True:
        yield np.argsort(random.random(size), kind="stable").tolist()


def evenness(numbers, n):
    counts = np.bincount(numbers, minlength=n)
    return counts.max() - counts.min()


# Dealing


@examples(60)
@given(st.integers(1, 9), st.integers(0, 12), st.integers(1, 6), st.integers(0, 99))
def test_one_deck_is_dealt_as_by_hand(size, hands, k, seed):
    dealt = _deal(np.array([size]), np.array([hands]), k, np.random.default_rng(seed))
    assert dealt.tolist() == deal_naively(shuffles(seed, size), size, hands, k)


@examples(60)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 7)), max_size=6),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_many_decks_keep_the_rules_of_one(decks, k, seed):
    sizes = np.array([size for size, _ in decks], np.int64)
    hands = np.array([count for _, count in decks], np.int64)
    dealt = _deal(sizes, hands, k, np.random.default_rng(seed))
    assert dealt.shape == (hands.sum(), k)
    own = np.split(dealt, np.cumsum(hands)[:-1]) if decks else []
    for size, cards in zip(sizes, own, strict=True):
        assert ((cards >= 0) & (cards < size)).all()
        for i in range(cards.size + 1):  # at any moment
            assert evenness(cards.ravel()[:i], size) <= 1
        if size >= k:
            assert all(len(set(hand)) == k for hand in cards.tolist())


def test_every_order_of_a_deck_is_as_likely():
    dealt = _deal(np.full(6000, 3), np.full(6000, 1), 3, np.random.default_rng(0))
    _, counts = np.unique(dealt @ [9, 3, 1], return_counts=True)
    assert len(counts) == 6
    assert abs(counts - 1000).max() < 150  # five standard deviations


# Shuffled


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (13, 4), (15, 4), (4, 4), (1, 1)])
def test_shuffled_gives_every_image_once_and_only_full_batches(n, batch):
    epoch = Shuffled(n, batch).epoch(3)
    assert epoch.shape == (n // batch, batch)
    assert epoch.dtype == np.int64
    assert len(set(epoch.ravel().tolist())) == n // batch * batch
    assert set(epoch.ravel()) <= set(range(n))


def test_shuffled_leaves_out_other_images_each_time():
    left_out = {
        (set(range(7)) - set(Shuffled(7, 3).epoch(e).ravel().tolist())).pop() for e in range(40)
    }
    assert left_out == set(range(7))


def test_shuffled_refuses_less_than_a_batch():
    with pytest.raises(VidfaceError, match=r"batch_size is 5, but there are only 4 images"):
        Shuffled(4, 5)
    with pytest.raises(VidfaceError, match="only 0 images"):
        Shuffled(0, 1)


# People by images


@examples(40)
@given(
    st.lists(st.integers(2, 20), min_size=3, max_size=9),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 5),
)
def test_batches_hold_p_people_with_k_images_each(sizes, people, images, epoch):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    batches = PeopleByImages(labels, people, images).epoch(epoch)
    assert batches.shape == (len(labels) // (people * images), people * images)
    for batch in batches.reshape(len(batches), people, images):
        own = labels[batch]
        assert (own == own[:, :1]).all()
        assert len(set(own[:, 0].tolist())) == people
        assert len(set(batch.ravel().tolist())) == people * images
    of_people = labels[batches.reshape(-1, images)[:, 0]] // 3
    for i in range(1, len(of_people) + 1):  # at any moment
        assert evenness(of_people[:i], len(sizes)) <= 1
    for person in range(len(sizes)):
        rows = np.flatnonzero(labels == person * 3)
        drawn = batches.ravel()[labels[batches.ravel()] == person * 3]
        for i in range(len(drawn) + 1):
            assert evenness(np.searchsorted(rows, drawn[:i]), len(rows)) <= 1


def test_equal_identities_give_every_image_once_an_epoch():
    labels = np.tile(np.arange(6), 8)
    epoch = PeopleByImages(labels, 3, 4).epoch(0)
    assert sorted(epoch.ravel().tolist()) == list(range(48))


def test_the_property_is_that_of_pytorch_metric_learning():
    try:
        from pytorch_metric_learning import samplers
    except ImportError:
        absent("pytorch-metric-learning is not installed")
    theirs = list(samplers.MPerClassSampler(UNEVEN, 4, batch_size=12, length_before_new_iter=48))
    ours = make_sampler("people-by-images", UNEVEN, 12).epoch(0)
    for batches in (np.array(theirs).reshape(-1, 12), ours):
        assert len(batches) == 4
        for batch in batches:
            assert np.unique(UNEVEN[batch], return_counts=True)[1].tolist() == [4, 4, 4]


def test_both_kinds_hang_on_the_numbers_given_and_on_nothing_else():
    for kind in SAMPLERS:
        made = {
            key: make_sampler(kind, UNEVEN, 8, seed=key[0], stage=key[1]).epoch(key[2]).tobytes()
            for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**40, 0, 0)]
        }
        assert len(set(made.values())) == len(made)
        np.random.seed(5)  # noqa: NPY002  the global state must not matter
        again = make_sampler(kind, UNEVEN, 8)
        again.epoch(7)
        assert again.epoch(0).tobytes() == made[0, 0, 0]


def test_kinds_do_not_share_their_random_numbers():
    labels = np.repeat(np.arange(1), 20)
    one = PeopleByImages(labels, 1, 20).epoch(0)
    assert one.tolist() != Shuffled(20, 20).epoch(0).tolist()


def test_the_order_is_known():
    """A resumed run must see the batches that it would have seen: the numbers are pinned."""
    assert Shuffled(5, 5, seed=3, stage=2).epoch(1).tolist() == [[3, 1, 2, 4, 0]]
    labels = np.array([4, 9, 4, 9, 4])
    assert PeopleByImages(labels, 2, 2, seed=3, stage=2).epoch(1).tolist() == [[3, 1, 0, 2]]


def test_labels_are_not_changed():
    labels = UNEVEN.copy()
    labels.flags.writeable = False
    make_sampler("people-by-images", labels, 8).epoch(0)
    assert (labels == UNEVEN).all()


# Identities with few images


def test_an_identity_with_one_image_is_named():
    labels = np.array([0, 0, 1, 2, 2, 3])
    with pytest.raises(VidfaceError, match=r"'Bo' has one image where 2 are needed \(1 more like"):
        PeopleByImages(labels, 2, 2, identities=["Al", "Bo", "Cy", "Di"])
    with pytest.raises(VidfaceError, match=r"identity 1 has one image"):
        PeopleByImages(labels, 2, 2)
    with pytest.raises(VidfaceError, match=r"identity 3 has 3 images where 4 are needed;"):
        PeopleByImages(np.array([3, 3, 3]), 1, 4, identities=["too", "short"])


def test_short_identities_are_repeated():
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2])
    batches = PeopleByImages(labels, 3, 4, short="repeat").epoch(0)
    assert batches.shape == (1, 12)  # though there are fewer images than a batch has
    counts = np.bincount(batches[0], minlength=8)
    assert counts[0] == 4
    assert sorted(counts[1:4]) == [1, 1, 2]
    assert counts[4:].tolist() == [1, 1, 1, 1]


def test_short_identities_are_skipped():
    labels = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2, 2])
    sampler = PeopleByImages(labels, 2, 3, short="skip")
    assert str(sampler) == (
        "PeopleByImages(9 images of 2 identities, 1 batches x 2 people x 3 images)"
    )
    assert set(labels[sampler.epoch(0)[0]]) == {1, 2}
    with pytest.raises(VidfaceError, match=r"needs 3 identities, found 2 \(of 3, the others are"):
        PeopleByImages(labels, 3, 3, short="skip")


def test_exactly_k_images_and_p_people_are_enough():
    assert sorted(PeopleByImages(np.repeat([0, 1], 3), 2, 3).epoch(9)[0]) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(VidfaceError, match="needs 3 identities, found 2; lower the batch size"):
        PeopleByImages(np.repeat([0, 1], 3), 3, 3)
    with pytest.raises(VidfaceError, match="found 0"):
        PeopleByImages(np.array([], np.int64), 1, 1)


# The registry


def test_names():
    assert list(SAMPLERS) == ["shuffled", "people-by-images"]
    with pytest.raises(VidfaceError, match=re.escape("'pk' (known: shuffled, people-by-images)")):
        make_sampler("pk", UNEVEN, 4)
    with pytest.raises(VidfaceError, match="unknown sampler"):
        make_sampler(["shuffled"], UNEVEN, 4)
    with pytest.raises(VidfaceError, match=re.escape("'drop' (known: error, repeat, skip)")):
        make_sampler("people-by-images", UNEVEN, 8, short="drop")


def test_the_batch_size_must_be_a_multiple_of_k():
    made = make_sampler("people-by-images", UNEVEN, 12, images_per_person=3)
    assert (made.people, made.images, made.batch_size) == (4, 3, 12)
    with pytest.raises(VidfaceError, match=r"batch_size 13 is no multiple of 4 .* take 12 or 16"):
        make_sampler("people-by-images", UNEVEN, 13)
    with pytest.raises(VidfaceError, match=r"take 4 or 4|take 4"):
        make_sampler("people-by-images", UNEVEN, 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros((2, 2), np.int64)}, r"labels must be \(n,\) whole numbers"),
        ({"labels": np.zeros(9)}, "labels must be"),
        ({"labels": np.array([0, 0, 0, 0, -2])}, "image 4 has the label -2"),
        ({"batch_size": 0}, "batch_size must be a whole number ≥ 1, got 0"),
        ({"batch_size": True}, "batch_size must be"),
        ({"images_per_person": 0}, "images_per_person must be"),
        ({"images_per_person": 2.0}, "images_per_person must be"),
        ({"seed": -1}, "seed must be a whole number ≥ 0"),
        ({"stage": 1.5}, "stage must be"),
    ],
)
@pytest.mark.parametrize("kind", list(SAMPLERS))
def test_bad_values_are_refused(kind, changed, message):
    arguments = {"labels": UNEVEN, "batch_size": 4, **changed}
    with pytest.raises(VidfaceError, match=message):
        make_sampler(kind, **arguments)


@pytest.mark.parametrize("kind", list(SAMPLERS))
def test_an_epoch_before_the_first_is_refused(kind):
    with pytest.raises(VidfaceError, match="epoch must be"):
        make_sampler(kind, UNEVEN, 4).epoch(-1)


def test_an_epoch_of_many_identities_is_fast():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(20_000), 10))
    start = time.perf_counter()
    epoch = make_sampler("people-by-images", labels, 512).epoch(0)
    assert time.perf_counter() - start < 2  # 0.05 s; a loop over identities or turns takes longer
    assert np.bincount(epoch.ravel()).max() <= 2
