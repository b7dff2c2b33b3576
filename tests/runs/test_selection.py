"""The honest choice of a threshold.

In most fixtures a clip either points along its person's own axis or has no descriptor, and each
person has two clips in a split. So with 2, 1, 0 good clips a person's AP is 1, 1/2, 0, and their
genuine pair is accepted at 1 with two good clips only; an impostor pair scores 0 or −1.
"""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import oracles_selection as oracles
from tests.budgets import examples
from vidface.core.clips import Clip
from vidface.core.errors import VidfaceError
from vidface.metrics.operating_points import OperatingPoint
from vidface.metrics.retrieval import score_retrieval
from vidface.metrics.settings import ScoreSettings
from vidface.metrics.verification import score_verification
from vidface.runs.denoised import Denoised
from vidface.runs.selection import Observation, plan_folds, plan_splits
from vidface.runs.selection_criterion import Criterion
from vidface.runs.selection_results import TarOverRounds
from vidface.runs.selection_rounds import fold_identities
from vidface.settings.manifests import Manifest

GALLERY = "gallery"


def manifest_of(clips):
    """Of (clip_id, identity, split)."""
    lines = tuple(Clip(clip_id, clip_id, who, split) for clip_id, who, split in clips)
    return Manifest(lines, Path("m.csv"), Path(), "")


def at_fars(fars, **parameters):
    return ScoreSettings(parameters={"fars": ",".join(fars), **parameters})


def fake(threshold, clip_ids, rows):
    """A `Denoised` whose descriptors can't be written to."""
    n = np.zeros(len(clip_ids), dtype=np.int64)
    descriptors = np.array(rows, dtype=np.float32).reshape(len(clip_ids), -1)
    descriptors.flags.writeable = False
    return Denoised(threshold, tuple(clip_ids), ("ok",) * len(n), n, n, n, n, n, descriptors)


def two_clips_each(people, splits):
    """A gallery clip of each person and two in each split."""
    clips = [(f"{who}-g", who, GALLERY) for who in people]
    return clips + [(f"{who}-{s}-{i}", who, s) for s in splits for who in people for i in (1, 2)]


def denoised_of(clips, table, others=()):
    """One fake a threshold. `table`: {threshold: {split: {person: good clips}}}.

    `others` are clips that aren't in the table: (clip_id, the person whose axis they lie on).
    """
    people = sorted({who for _, who, split in clips if split == GALLERY})
    axes = dict(zip(people, np.eye(len(people)), strict=True))
    lying = dict(others)
    for threshold, good in table.items():
        rows = []
        for clip_id, who, split in clips:
            if clip_id in lying:
                rows.append(axes[lying[clip_id]])
            else:
                there = split == GALLERY or int(clip_id[-1]) <= good[split][who]
                rows.append(axes[who] * there)
        yield fake(threshold, [clip_id for clip_id, _, _ in clips], rows)


def chosen(plan, denoised):
    return plan.choose([plan.observe(one) for one in denoised])


# -- two splits -------------------------------------------------------------------------------

TWO = two_clips_each(["ann", "bob"], ["val", "test"])
TWO_TABLE = {
    #      good clips                             mAP of val, test   TAR of val, test at 0.25
    0.6: {"val": {"ann": 1, "bob": 1}, "test": {"ann": 2, "bob": 1}},  # 0.5  0.75   0    0.5
    0.4: {"val": {"ann": 2, "bob": 1}, "test": {"ann": 0, "bob": 0}},  # 0.75 0      0.5  0
    0.2: {"val": {"ann": 1, "bob": 2}, "test": {"ann": 1, "bob": 1}},  # 0.75 0.5    0.5  0
    None: {"val": {"ann": 1, "bob": 0}, "test": {"ann": 0, "bob": 1}},  # 0.25 0.25  0    0
}


def test_chosen_by_map_on_val_and_reported_on_test():
    plan = plan_splits(manifest_of(TWO), "val", "test", GALLERY, settings=at_fars(["0.1", "0.25"]))
    result = chosen(plan, denoised_of(TWO, TWO_TABLE))
    # Val ties at 0.2 and 0.4: the lowest. On test 0.6 would have been best.
    assert (result.honest.thresholds, result.honest.map_at_k) == ((0.2,), 0.5)
    assert (result.optimistic.thresholds, result.optimistic.map_at_k) == ((0.6,), 0.75)
    assert (result.none.thresholds, result.none.map_at_k) == ((None,), 0.25)
    assert result.criterion_values == (0.75,)
    assert result.candidates == (None, 0.2, 0.4, 0.6)
    # Test has 2 genuine pairs, of which 0.6 accepts one, and 4 impostor pairs.
    assert [tar.tar for tar in result.honest.tars] == [None, 0]
    assert [tar.tar for tar in result.optimistic.tars] == [None, 0.5]
    assert result.honest.tars[0].note == "n/a: needs ≥ 10 pairs"
    assert (result.criterion_far, result.optimistic_far) == (None, None)
    assert result.honest.map_standard_deviation is None


def test_chosen_by_tar_at_the_lowest_far_that_val_resolves():
    # In falling order: the list's order isn't the order of the targets.
    plan = plan_splits(manifest_of(TWO), "val", "test", None, "tar", at_fars(["1", "0.25", "0.1"]))
    result = chosen(plan, denoised_of(TWO, TWO_TABLE))
    assert (result.criterion_far, result.optimistic_far) == ("0.25", "0.25")
    assert result.honest.thresholds == (0.2,)  # 0.2 and 0.4 accept one of val's two
    assert [tar.tar for tar in result.honest.tars] == [1, 0, None]
    assert result.optimistic.thresholds == (0.6,)
    assert result.criterion_values == (0.5,)
    assert result.honest.map_at_k is None
    assert result.map_note == "n/a: no gallery named"


def test_tar_needs_no_gallery_for_the_select_split_and_still_reports_map():
    table = {t: {GALLERY: good["val"], "test": good["test"]} for t, good in TWO_TABLE.items()}
    clips = [*TWO[:2], ("ann-again", "ann", GALLERY), *TWO[6:]]
    denoised = list(denoised_of(clips, table, others=[("ann-again", "ann")]))
    plan = plan_splits(manifest_of(clips), GALLERY, "test", GALLERY, "tar", at_fars(["0.5"]))
    result = chosen(plan, denoised)
    # The gallery's genuine pair is always accepted, so that all tie: the lowest is no clustering.
    assert (result.honest.thresholds, result.honest.map_at_k) == ((None,), 0.25)
    # The other way round test would be searched in itself: no figure, and no error.
    plan = plan_splits(manifest_of(clips), "test", GALLERY, GALLERY, "tar", at_fars(["0.5"]))
    result = chosen(plan, denoised)
    assert (result.honest.thresholds, result.honest.map_at_k) == ((0.6,), None)
    assert result.map_note == "n/a: gallery is its own gallery"


def test_optimistic_falls_back_to_a_far_that_the_report_resolves():
    # Val has 5 clips and 8 impostor pairs, test 4 and 4: at 0.125 only val has a figure.
    clips = [*TWO, ("x", "", "val")]
    denoised = list(denoised_of(clips, TWO_TABLE, others=[("x", "bob")]))
    plan = plan_splits(
        manifest_of(clips), "val", "test", None, "tar", at_fars(["0.125", "0.5", "0.25"])
    )
    result = chosen(plan, denoised)
    assert (result.criterion_far, result.optimistic_far) == ("0.125", "0.25")
    # At 0.2 x scores 1 against both of bob's clips, one more than allowed: 0.4 is chosen.
    assert result.honest.thresholds == (0.4,)
    assert [tar.tar for tar in result.honest.tars] == [None, 0, 0]
    assert result.optimistic.thresholds == (0.6,)
    # The other way round the report could tell at 0.125, but the choice was made at 0.25.
    plan = plan_splits(
        manifest_of(clips), "test", "val", None, "tar", at_fars(["0.125", "0.5", "0.25"])
    )
    result = chosen(plan, denoised)
    assert (result.criterion_far, result.optimistic_far) == ("0.25", "0.25")


@pytest.mark.parametrize(
    "parameters",
    [{}, {"k": 1}, {"k": 3, "enrolment": "max"}, {"convention": "nearest", "fars": "3e-2,1e-1"}],
)
def test_two_splits_report_the_plain_score(parameters):
    settings = ScoreSettings(parameters=parameters)
    used = settings.parameters
    clips, denoised = random_run(seed=3)
    plan = plan_splits(manifest_of(clips), "val", "test", GALLERY, settings=settings)
    result = chosen(plan, denoised)
    [one] = [d for d in denoised if d.threshold is None]
    order = sorted(range(len(clips)), key=lambda i: clips[i][0])
    val, test, enrolled = (
        [i for i in order if clips[i][2] == split] for split in ("val", "test", GALLERY)
    )

    def search(denoised, rows):
        return score_retrieval(
            denoised.descriptors[enrolled],
            [clips[i][1] for i in enrolled],
            denoised.descriptors[rows],
            [clips[i][1] for i in rows],
            [clips[i][0] for i in rows],
            used["k"],
            enrolment=used["enrolment"],
        )

    retrieval = search(one, test)
    verification = score_verification(
        one.descriptors[test],
        [clips[i][1] for i in test],
        used["fars"].split(","),
        convention=used["convention"],
    )
    assert 0.1 < retrieval.map_at_k < 0.95
    assert result.none.map_at_k == retrieval.map_at_k
    assert f"map_at_{used['k']}" in result.to_dict()["honest"]
    assert result.criterion_values == (max(search(d, val).map_at_k for d in denoised),)
    assert tuple(tar.points[0] for tar in result.none.tars) == verification.points
    # The plan counts pairs as the score does, which says which targets are resolved.
    counted = (verification.genuine_pairs, verification.impostor_pairs)
    assert plan.rounds[0].report.pairs == counted
    assert verification.distractor_pairs_left_out > 0


def test_tar_is_refused_where_it_would_be_another_protocols() -> None:
    for protocols in ("cross-verification", "identification,retrieval"):
        with pytest.raises(VidfaceError, match=f"add verification to --protocols {protocols}"):
            Criterion.of("tar@1e-1", ScoreSettings(protocols=protocols))
    assert Criterion.of("map", ScoreSettings(protocols="retrieval")).figure == "map"


def test_tar_chooses_at_the_far_that_is_named():
    three, four = ["0.1", "0.25", "1"], ["0.1", "0.25", "1", "0.50"]
    plan = plan_splits(manifest_of(TWO), "val", "test", None, "tar", at_fars(three))
    # At FAR 1 each clip that is there is accepted, also at −1: all tie, and the lowest is chosen.
    named = plan_splits(manifest_of(TWO), "val", "test", None, "tar@1", at_fars(three))
    other = plan_splits(manifest_of(TWO), "val", "test", None, "tar@0.50", at_fars(three))
    results = [chosen(p, denoised_of(TWO, TWO_TABLE)) for p in (plan, named, other)]
    assert [r.criterion_far for r in results] == ["0.25", "1", "0.50"]
    assert [r.optimistic_far for r in results] == ["0.25", "1", "0.50"]
    assert [r.honest.thresholds for r in results] == [(0.2,), (None,), (0.2,)]
    assert [tar.target_far for tar in results[2].honest.tars] == four  # it is reported, too
    assert [bool(r.criterion_note) for r in results] == [True, False, False]
    assert "FAR 0.25, the lowest of 0.1, 0.25, 1 that" in results[0].criterion_note
    # What is asked for is chosen at, or nothing: the report has 4 impostor pairs, val 8.
    clips = [*TWO, ("x", "", "val")]
    for how, settings in (("tar", at_fars(["0.125"])), ("tar@0.125", at_fars(three))):
        with pytest.raises(VidfaceError, match=r"--report-on test has not .* FAR \(0\.125\)"):
            plan_splits(manifest_of(clips), "val", "test", None, how, settings)


# -- folds ------------------------------------------------------------------------------------

FIVE = ["ann", "bob", "cy", "dee", "eve"]
ONE_SPLIT = two_clips_each(FIVE, ["val"])
FIRST, SECOND = fold_identities(FIVE, 2, seed=7)  # of three and of two people


def fold_table(**good):
    """{threshold: (good clips of each of the first fold, of the second)}."""
    return {
        threshold: {"val": {**dict.fromkeys(FIRST, first), **dict.fromkeys(SECOND, second)}}
        for threshold, (first, second) in good["table"].items()
    }


#                            first, second fold: good clips; AP 1/2 for 1
FOLD_TABLE = fold_table(table={None: (0, 0), 0.2: (2, 0), 0.4: (1, 2), 0.6: (1, 2)})


def test_folds_by_map_choose_on_the_others():
    plan = plan_folds(
        manifest_of(ONE_SPLIT), "val", GALLERY, folds=2, seed=7, settings=at_fars(["0.25"])
    )
    result = chosen(plan, denoised_of(ONE_SPLIT, FOLD_TABLE))
    # The first fold gets what is best on the second, 0.4 (tied with 0.6), the second gets 0.2.
    assert result.honest.thresholds == (0.4, 0.2)
    assert result.criterion_values == (1, 1)
    assert result.honest.round_maps == (0.5, 0)
    assert result.honest.map_at_k == pytest.approx(0.3)  # (3 · 0.5 + 2 · 0) / 5, by identity
    assert result.honest.map_standard_deviation == pytest.approx(math.sqrt(0.125))  # n − 1
    # Of all five: 0.6 at 0.2, (3 · 0.5 + 2) / 5 at 0.4.
    assert result.optimistic.thresholds == (0.4, 0.4)
    assert result.optimistic.map_at_k == pytest.approx(0.7)
    assert (result.none.thresholds, result.none.map_at_k) == ((None, None), 0)


def test_folds_by_tar_report_the_mean_of_folds_that_resolve():
    # The first fold has 6 clips and 12 impostor pairs, the second 4 and 4.
    fars = ["0.05", "0.1", "0.25"]
    plan = plan_folds(manifest_of(ONE_SPLIT), "val", None, "tar", at_fars(fars), folds=2, seed=7)
    result = chosen(plan, denoised_of(ONE_SPLIT, FOLD_TABLE))
    assert result.criterion_far == "0.25"  # the lowest that both resolve
    assert result.honest.thresholds == (0.4, 0.2)
    # TAR is 1 with two good clips each, otherwise 0: the honest choice is wrong in both folds.
    assert [tar.tar for tar in result.honest.tars] == [None, 0, 0]
    assert [tar.note for tar in result.honest.tars] == ["n/a: needs ≥ 20 pairs", "1 of 2 folds", ""]
    # One fold of two is right, at 0.2 and at 0.4: the lowest.
    assert result.optimistic.thresholds == (0.2, 0.2)
    tars = result.optimistic.tars
    assert [tar.tar for tar in tars] == [None, 1, 0.5]
    assert [tar.standard_deviation for tar in tars] == [None, None, pytest.approx(math.sqrt(0.5))]
    assert [len(tar.values) for tar in tars] == [0, 1, 2]
    assert [tar.tar for tar in result.none.tars] == [None, 0, 0]


def test_distractors_are_candidates_for_map_and_out_of_fold_tar():
    # "0" precedes all ids, so that it ranks first for ann, whose axis it has.
    clips = [*ONE_SPLIT, ("0", "", "val")]
    denoised = list(denoised_of(clips, fold_table(table={0.2: (2, 2)}), others=[("0", "ann")]))
    plan = plan_folds(
        manifest_of(clips), "val", GALLERY, folds=2, seed=7, settings=at_fars(["0.25"])
    )
    result = chosen(plan, denoised)
    assert result.honest.map_at_k == pytest.approx((4 + 7 / 12) / 5)  # ann: (1/2 + 2/3) / 2
    assert [point.impostor for point in result.honest.tars[0].points] == [12, 4]
    assert result.none is None
    assert len(result.rows) == 2


def test_a_fold_without_a_genuine_pair_has_no_tar():
    # Two people with one clip each: 1 impostor pair at FAR 1, no genuine one. The others: 2 and 4.
    few = [clip for clip in ONE_SPLIT if clip[1] not in SECOND or not clip[0].endswith("-2")]
    denoised = list(denoised_of(few, fold_table(table={0.2: (2, 2)})))
    plan = plan_folds(
        manifest_of(few), "val", GALLERY, settings=at_fars(["1", "0.5"]), folds=2, seed=7
    )
    tars = chosen(plan, denoised).honest.tars
    assert [point.note for point in tars[0].points] == ["", "n/a: no genuine pair"]
    assert [tar.note for tar in tars] == ["1 of 2 folds", "1 of 2 folds"]
    alone = [clip for clip in few if clip[1] in SECOND]
    denoised = list(denoised_of(alone, fold_table(table={0.2: (2, 2)})))
    plan = plan_folds(manifest_of(alone), "val", GALLERY, settings=at_fars(["1"]), folds=2)
    assert chosen(plan, denoised).honest.tars[0].note == "n/a: needs ≥ 1 pairs"


def test_missing_pairs_outdo_a_missing_genuine_pair_as_the_reason():
    alone = OperatingPoint("0.1", None, None, None, 0, 12, None)
    small = OperatingPoint("0.1", None, None, None, 1, 4, 10)
    assert TarOverRounds((alone, small)).note == "n/a: needs ≥ 10 pairs"
    assert TarOverRounds((alone, alone)).note == "n/a: no genuine pair"


@given(st.lists(st.text("abc", max_size=3), max_size=30), st.integers(2, 6), st.integers(0, 9))
def test_folds_are_cut_as_by_hand(identities, k, seed):
    names = set(identities) - {""}
    if len(names) < k:
        with pytest.raises(VidfaceError, match=f"more than the {len(names)} identities"):
            fold_identities(identities, k, seed)
        return
    folds = fold_identities(identities, k, seed)
    assert [list(part) for part in folds] == oracles.folds(names, k, seed)
    assert sorted(name for part in folds for name in part) == sorted(names)
    sizes = [len(part) for part in folds]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


def test_folds_are_pinned_and_depend_on_the_seed_alone():
    # So that a published figure can be made again, this must never change. Drawn for a … g:
    # 0.84, 0.76, 0.42, 0.26, 0.51, 0.40, 0.78.
    assert fold_identities("abcdefg", 3, seed=0) == (("d", "f", "c"), ("e", "b"), ("g", "a"))
    assert fold_identities("gfedcba", 3, seed=0) == fold_identities("abcdefg", 3, seed=0)
    assert fold_identities("abcdefg", 3, seed=1) != fold_identities("abcdefg", 3, seed=0)


# -- both -------------------------------------------------------------------------------------


def random_run(seed, people=12, noise=(1.6, 0.9, 1.2, 2.0)):
    """Clips with distractors and some without descriptor, and their `Denoised` at 4 thresholds."""
    rng = np.random.default_rng(seed)
    names = [f"p{i}" for i in range(people)]
    clips = [(f"g{i}", names[i // 2], GALLERY) for i in range(2 * people)]
    for split in ("val", "test"):
        for i in range(5 * people):
            who = "" if rng.random() < 0.15 else names[rng.integers(people)]
            clips.append((f"{split}{i}", who, split))
    centres = {name: rng.standard_normal(16) for name in names}
    denoised = []
    for threshold, scale in zip((None, 0.2, 0.4, 0.6), noise, strict=True):
        rows = np.array(
            [
                centres.get(who, rng.standard_normal(16)) + scale * rng.standard_normal(16)
                for _, who, _ in clips
            ]
        )
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[rng.random(len(rows)) < 0.05] = 0
        denoised.append(fake(threshold, [clip_id for clip_id, _, _ in clips], rows))
    return clips, denoised


def plans_of(manifest):
    yield plan_splits(manifest, "val", "test", GALLERY)
    yield plan_splits(manifest, "val", "test", GALLERY, "tar")
    yield plan_folds(manifest, "val", GALLERY)
    yield plan_folds(manifest, "val", GALLERY, "tar", seed=5)


def test_the_order_of_clips_and_of_thresholds_changes_nothing():
    clips, denoised = random_run(seed=1)
    rng = np.random.default_rng(2)
    order, other = rng.permutation(len(clips)), rng.permutation(len(clips))
    shuffled = [
        fake(one.threshold, [one.clip_ids[i] for i in other], one.descriptors[other])
        for one in reversed(denoised)
    ]
    before = plans_of(manifest_of(clips))
    after = plans_of(manifest_of([clips[i] for i in order]))
    for plan, again in zip(before, after, strict=True):
        assert plan == again
        result = chosen(plan, denoised)
        assert result == chosen(again, shuffled)
        assert result.honest != result.none


def test_no_observation_holds_descriptors_and_json_holds_no_nan():
    clips, denoised = random_run(seed=1)
    for plan in plans_of(manifest_of(clips)):
        observations = [plan.observe(one) for one in denoised]
        assert len(pickle.dumps(observations[0])) < denoised[0].descriptors.nbytes
        result = plan.choose(observations)
        text = json.dumps(result.to_dict(), allow_nan=False)
        found = json.loads(text)
        assert found["honest"]["map_at_100"] == result.honest.map_at_k
        assert found["honest"]["thresholds"] == list(result.honest.thresholds)
        assert found["no_clustering"]["thresholds"] == [None] * len(result.honest.thresholds)
        # FAR 1e-6 has no figure on 60 clips.
        tar = found["optimistic"]["tar_at_far"]["1e-6"]
        assert (tar["tar"], tar["note"]) == (None, "n/a: needs ≥ 1000000 pairs")
        assert found["folds"] == (5 if plan.protocol == "folds" else None)


def test_as_text():
    plan = plan_splits(manifest_of(TWO), "val", "test", GALLERY, settings=at_fars(["0.1", "0.25"]))
    assert str(chosen(plan, denoised_of(TWO, TWO_TABLE))).splitlines() == [
        "threshold chosen by mAP on val, reported on test",
        "honest, threshold 0.2: mAP@100 0.5000, TAR@0.1 n/a: needs ≥ 10 pairs, TAR@0.25 0.0000",
        "optimistic, threshold 0.6: mAP@100 0.7500, TAR@0.1 n/a: needs ≥ 10 pairs, TAR@0.25 0.5000",
        "no clustering, threshold none: mAP@100 0.2500, TAR@0.1 n/a: needs ≥ 10 pairs, "
        "TAR@0.25 0.0000",
    ]
    fars = ["0.1", "0.25"]
    plan = plan_folds(manifest_of(ONE_SPLIT), "val", None, "tar", at_fars(fars), folds=2, seed=7)
    lines = str(chosen(plan, denoised_of(ONE_SPLIT, FOLD_TABLE))).splitlines()
    assert lines[:2] == [
        "threshold chosen by TAR@0.25 over 2 folds of the identities of val (seed 7)",
        "honest, threshold 0.4, 0.2: mAP@100 n/a, TAR@0.1 0.0000 (1 of 2 folds), TAR@0.25 0.0000",
    ]


def test_ties_but_for_rounding_go_to_the_lowest():
    plan = plan_splits(manifest_of(TWO), "val", "test", GALLERY)

    def at(threshold, ann, bob):
        both = {"ann": ann, "bob": bob}
        return Observation(threshold, {"val": both, "test": both}, (), ((),))

    # 0.1 + 0.2 is 0.30000000000000004, above 0.3, and both means are 0.15.
    result = plan.choose([at(0.4, 0.1, 0.2), at(0.3, 0.3, 0.0)])
    assert (result.honest.thresholds, result.optimistic.thresholds) == ((0.3,), (0.3,))
    result = plan.choose([at(0.4, 0.1, 0.2 + 1e-9), at(0.3, 0.3, 0.0)])
    assert (result.honest.thresholds, result.optimistic.thresholds) == ((0.4,), (0.4,))
    result = plan.choose([at(-0.99, 0.1, 0.2), at(None, 0.1, 0.2)])
    assert result.honest.thresholds == (None,)


def test_minus_one_is_no_clustering():
    plan = plan_splits(manifest_of(TWO), "val", "test", GALLERY)
    [one] = denoised_of(TWO, {-1.0: TWO_TABLE[None]})
    assert plan.choose([plan.observe(one)]).none.map_at_k == 0.25


# A unit row whose products are exact, or zero; many tie.
ROW = st.one_of(
    st.just((0.0,) * 16),
    st.tuples(*[st.sampled_from([-0.25, 0.25])] * 2).map(lambda s: (0.25,) * 8 + s * 4),
)
PEOPLE = ["ann", "bob", "cy", "dee"]
BASE = two_clips_each(PEOPLE, ["val", "test"])
FARS = ["0.1", "1", "0.02", "0.25"]


@st.composite
def runs(draw):
    extra = draw(
        st.lists(st.tuples(st.sampled_from(["", *PEOPLE, "new"]), st.booleans()), max_size=4)
    )
    clips = BASE + [(f"{i}", who, "val" if val else "test") for i, (who, val) in enumerate(extra)]
    tables = {
        threshold: {clip_id: draw(ROW) for clip_id, _, _ in clips} for threshold in (None, 0.1, 0.5)
    }
    return clips, tables


@examples(40)
@given(runs(), st.sampled_from(["map", "tar"]), st.sampled_from(["splits", "folds"]))
def test_equals_the_naive_twin(run, by, protocol):
    clips, tables = run
    manifest = manifest_of(clips)
    pairs = {s: [(c, who) for c, who, where in clips if where == s] for s in ("val", "test")}
    if protocol == "splits":
        plan = plan_splits(manifest, "val", "test", GALLERY, by, at_fars(FARS))
        parts, report = [(pairs["val"], pairs["test"])], "test"
    else:
        plan = plan_folds(manifest, "val", GALLERY, by, at_fars(FARS), folds=2, seed=4)
        report = "val"
        cut = oracles.folds({who for _, who in pairs["val"]} - {""}, 2, 4)
        parts = [
            tuple([(c, who) for c, who in pairs["val"] if who in part] for part in (others, inside))
            for inside, others in (cut, cut[::-1])
        ]
    honest, optimistic, fars = oracles.selection(
        tables, clips, parts, report, "val", GALLERY, by, FARS
    )
    denoised = [fake(t, rows.keys(), list(rows.values())) for t, rows in tables.items()]
    result = chosen(plan, denoised)
    assert (result.criterion_far, result.optimistic_far) == fars
    for row, (thresholds, value, tars) in (
        (result.honest, honest),
        (result.optimistic, optimistic),
    ):
        assert list(row.thresholds) == thresholds
        assert row.map_at_k == pytest.approx(float(value), abs=1e-12)
        found = [tar.tar for tar in row.tars]
        assert found == [None if t is None else pytest.approx(float(t)) for t in tars]


# -- wrong requests ---------------------------------------------------------------------------

ODD = manifest_of(
    [
        *TWO,
        ("t1", "zoe", "train"),  # enrolled nowhere, one clip
        ("t2", "", "train"),
        ("p1", "ann", "probe"),  # enrolled, one clip
        ("p2", "", "probe"),
    ]
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("val", "val", GALLERY), "both val.*--folds on the one"),
        (("val", "val", None, "tar"), "both val.*--folds on the one"),
        (("val", "test", "val"), "--select-on val is its own gallery.*--gallery, or.*by tar"),
        (("val", "test", "test"), "--report-on test is its own gallery.*--select-by tar"),
        (("val", "test"), "map has no gallery.*--select-by tar, which needs no gallery"),
        (("val", "test", GALLERY, "tpr"), "--select-by tpr: there are map and tar"),
        (("train", "test", GALLERY), "--select-on train has no labelled clip whose identity is"),
        (("val", "train", GALLERY), "--report-on train has no labelled clip whose identity is"),
        (("probe", "val", None, "tar"), "--select-on probe has no two clips of one person"),
        (
            ("val", "probe", None, "tar", at_fars(["1"])),
            "--report-on probe has not enough pairs for a TAR",
        ),
        (
            ("val", "test", None, "tar", at_fars(["0.2"])),
            "--select-on val: with 4 impostor pairs none of",
        ),
        (("val", "test", None, "tar@0.2", at_fars(["0.25"])), r"with 4 impostor .* FARs \(0\.2\)"),
        (("val", "test", GALLERY, "tar@2"), r"--select-by tar@2: '2' is no rate in \(0, 1\]"),
        (("val", "test", GALLERY, "map@0.1"), "--select-by map@0.1: there are map and tar"),
        (("dev", "test", GALLERY), r"--select-on dev: no clip .* \(there: train, val, test"),
        (("val", "dev", GALLERY), "--report-on dev: no clip of the manifest"),
        (("val", "test", "dev", "tar"), "--gallery dev: no clip of the manifest"),
    ],
)
def test_wrong_splits(arguments, message):
    with pytest.raises(VidfaceError, match=message):
        plan_splits(ODD, *arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("val", GALLERY), {"folds": 1}, "--folds 1: it takes a whole number from 2 on"),
        (("val", GALLERY), {"folds": 2.0}, "--folds 2.0: it takes a whole number"),
        (("val", GALLERY), {"folds": 3}, "--folds 3: more than the 2 identities"),
        (("val", GALLERY), {"folds": 2, "seed": -1}, "--seed -1"),
        (("val", GALLERY), {"folds": 2, "seed": True}, "--seed True"),
        (("val", "val"), {"folds": 2}, "--split val is its own gallery"),
        (("val",), {"folds": 2}, "map has no gallery"),
        (("dev", GALLERY), {"folds": 2}, "--split dev: no clip"),
        (("val", None, "tpr"), {"folds": 2}, "--select-by tpr"),
        # A fold of one person has no impostor pair.
        (("val", None, "tar"), {"folds": 2}, "without fold 1 of 2: with 0 impostor pairs"),
    ],
)
def test_wrong_folds(arguments, options, message):
    with pytest.raises(VidfaceError, match=message):
        plan_folds(ODD, *arguments, **options)


def test_folds_without_any_pair_to_report_or_to_choose_on():
    # Each fold is one person: the four others resolve FAR 0.25, no fold has an impostor pair.
    with pytest.raises(VidfaceError, match=r"no fold of --split val has enough .* fewer --folds"):
        plan_folds(manifest_of(ONE_SPLIT), "val", None, "tar", at_fars(["0.25"]), folds=5)
    # The others of the first fold are the second's two people: the fewest pairs.
    with pytest.raises(VidfaceError, match="without fold 1 of 2: with 4 impostor pairs"):
        plan_folds(manifest_of(ONE_SPLIT), "val", None, "tar", at_fars(["0.05"]), folds=2, seed=7)
    # One of two is enrolled: the fold with that one has none to be chosen on.
    clips = [clip for clip in TWO if clip[0] != "bob-g"]
    with pytest.raises(VidfaceError, match=r"without fold \d of 2 has no labelled clip whose"):
        plan_folds(manifest_of(clips), "val", GALLERY, folds=2)


def test_wrong_observations():
    plan = plan_splits(manifest_of(TWO), "val", "test", GALLERY)
    with pytest.raises(VidfaceError, match="no threshold to choose from; name some"):
        plan.choose([])
    observations = [plan.observe(one) for one in denoised_of(TWO, TWO_TABLE)]
    with pytest.raises(VidfaceError, match=r"threshold 0\.4 is listed twice"):
        plan.choose([*observations, observations[1]])
    with pytest.raises(VidfaceError, match="threshold none is listed twice"):
        plan.choose([*observations, observations[3]])
    other = fake(0.4, ["ann-g"], [[1.0, 0.0]])
    with pytest.raises(VidfaceError, match=r"clip '\S+' of the manifest has no .* threshold 0\.4"):
        plan.observe(other)
