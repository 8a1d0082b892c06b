"""Several comparisons at once: the adjustment against one worked out by hand and by simulation, and the three answers."""

import math

import numpy as np
import pytest
from histories import seeds

from lab.evidence import contrasts as several
from lab.evidence import load_study
from lab.evidence.contrasts import Contrast, adjust, contrasts, effects
from lab.evidence.records import Factors
from lab.evidence.statistics import Difference, paired_difference


def rows(*means, spread=0.1, seeds=10):
    """Rows of differences with these means and this standard deviation."""
    shape = np.linspace(-1, 1, seeds)
    return {f"row {i}": mean + spread * shape / shape.std(ddof=1) for i, mean in enumerate(means)}


def test_holms_p_values_are_those_worked_out_by_hand():
    # t = mean / (0.1 / sqrt 10): 9.487, 2.530, 2.214, 0.316; p for 9 degrees of freedom 5.54e-6, 0.03225, 0.05416, 0.7591
    found = adjust(rows(0.07, 0.3, 0.01, 0.08))
    by_hand = {"row 0": 2 * 0.0541, "row 1": 4 * 5.54e-6, "row 2": 0.7591, "row 3": 3 * 0.0323}
    assert {name: one.adjusted_p for name, one in found.items()} == pytest.approx(by_hand, rel=5e-3)
    assert list(found) == list(rows(1, 1, 1, 1))  # in the order given


def test_no_adjusted_p_value_is_below_that_of_a_smaller_one():
    found = adjust(rows(0.08, 0.081, 0.0805))
    smallest = found["row 1"].adjusted_p
    assert found["row 0"].adjusted_p == found["row 2"].adjusted_p == smallest


def test_an_interval_leaves_out_zero_exactly_if_its_adjusted_p_value_is_small():
    random = np.random.default_rng(0)
    told = 0
    for _ in range(300):
        count = random.integers(1, 9)
        found = adjust(
            {str(i): random.normal(random.choice([0, 0.5, 2]), 1, random.integers(2, 12)) for i in range(count)}
        )
        for one in found.values():
            assert (one.difference.sign != 0) == (one.adjusted_p < several.LEVEL)
            told += one.difference.sign != 0
    assert told > 100


def test_one_comparison_needs_no_adjustment():
    after, before = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5), seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    assert contrasts({"only": (after, before)})["only"].difference == pytest.approx(paired_difference(after, before))


@pytest.mark.parametrize("count", [2, 12])
def test_zero_is_left_out_by_luck_in_no_more_than_one_study_of_twenty(count):
    """600 studies in which no recipe differs: the share with at least one "different" is 5 %, within three errors."""
    random = np.random.default_rng(1)
    studies = 600
    wrong = 0
    for _ in range(studies):
        base = random.normal(0, 1, 10)  # all rows share the recipe that they are compared with
        found = adjust({str(i): random.normal(0, 1, 10) - base for i in range(count)})
        wrong += any(one.says == several.DIFFERENT for one in found.values())
    assert wrong / studies < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert wrong / studies > 0.02  # it is not so careful that it never says anything


@pytest.mark.parametrize(
    ("low", "high", "p", "says"),
    [
        (0.01, 0.2, 0.01, "different"),
        (-0.2, -0.01, 0.049, "different"),
        (0.01, 0.04, 0.01, "different"),
        (-0.04, 0.05, 0.9, "equivalent"),
        (-0.06, 0.04, 0.9, "cannot tell"),
        (-0.04, 0.06, 0.05, "cannot tell"),
        (math.nan, math.nan, math.nan, "collapsed"),
    ],
)
def test_there_are_three_answers(low, high, p, says):
    assert Contrast(Difference((low + high) / 2, low, high), p, 1).says == says


def test_a_recipe_that_collapsed_is_no_comparison_and_takes_nothing_from_the_others():
    fine, better = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5), seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    lost = seeds([9_900] * 5, [9_910] * 5, [1_135] * 5)
    both = contrasts({"better": (better, fine), "lost": (lost, fine)})
    assert both["lost"].says == "collapsed" and math.isnan(both["lost"].adjusted_p)
    assert both["lost"].difference.mean == pytest.approx((11.35 - 99.2) / 3)
    assert both["better"] == contrasts({"better": (better, fine)})["better"]


def test_differences_without_any_spread_are_told_from_zero_unless_they_are_zero():
    found = adjust({"none": [0.0, 0.0], "some": [0.1, 0.1]})
    assert [one.adjusted_p for one in found.values()] == [1, 0]
    assert found["none"].says == "equivalent" and found["some"].says == "different"


def test_another_measure_is_compared_alike():
    after, before = seeds([9_900, 9_900, 9_900, 9_900, 9_950], [9_900] * 5), seeds([9_900] * 5, [9_900] * 5)
    found = contrasts({"end": (after, before)}, several.last_epoch)["end"].difference
    assert found.mean == pytest.approx(0.25)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="end: 1 seeds in common, expected at least 2"):
        contrasts({"end": (seeds([9_900] * 5), seeds([9_900] * 5))})
    with pytest.raises(ValueError, match="row: 1 differences, expected at least 2"):
        adjust({"row": [0.1]})


def test_the_recorded_ablation_is_told_apart_where_holm_tells_it():
    study = load_study("ablation")
    found = contrasts({name: (runs, study["step3"]) for name, runs in study.items() if name != "step3"})
    assert {name for name, one in found.items() if one.says == "collapsed"} == {"no_batch_norm"}
    different = {name for name, one in found.items() if one.says == "different"}
    assert different == {"constant_rate", "dropout_0.1", "no_capacity", "pool_at_3", "cosine"}
    assert found["no_warp"].says == "equivalent" and found["no_gap"].adjusted_p == pytest.approx(0.112, abs=5e-4)


def test_the_effects_of_two_factors_are_those_worked_out_by_hand():
    """The first adds 0.1 alone and 0.3 with the second, which adds 0.2 alone: 0.2 and 0.3 on average, 0.2 more together."""
    recorded = {
        name: seeds(*([count + gain] * 5 for count in (9_900, 9_910, 9_920)))
        for name, gain in (("neither", 0), ("first", 10), ("second", 20), ("both", 50))
    }
    found = effects(Factors("rate", "schedule", ("neither", "first", "second", "both")), recorded)
    assert list(found) == ["rate", "schedule", "interaction"]
    for name, expected in (("rate", 0.2), ("schedule", 0.3), ("interaction", 0.2)):
        np.testing.assert_allclose(found[name], [expected] * 3, atol=1e-9)


def test_effects_are_adjusted_with_the_pairs_beside_them():
    generator = np.random.default_rng(0)
    pair, other = (seeds(*([int(count)] * 5 for count in generator.integers(9_900, 9_910, 5))) for _ in range(2))
    beside = {"rate": generator.normal(0.05, 0.1, 5), "schedule": generator.normal(0.0, 0.1, 5)}
    found = contrasts({"pair": (pair, other)}, beside=beside)
    assert {contrast.among for contrast in found.values()} == {3}
    assert found["rate"].difference.mean == pytest.approx(beside["rate"].mean())
