"""The difference of two systems over runs and images: worked out by hand, and how often its interval misses the truth."""

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from lab.evidence import records
from lab.evidence.crossed import crossed_difference, told_apart

IMAGES = 10_000


def system(random, runs, harder=0.0, images=IMAGES, luck=0.1):
    """Right or wrong, for runs of a system: hard images are hard for all of them, and each has some luck of its own.

    harder: how much more often the system is wrong, in proportion
    """
    hardness = np.minimum(1, (1 + harder) * np.random.default_rng(7).beta(0.03, 5, images))
    each = np.clip(hardness * (1 + random.normal(0, luck, (runs, 1))), 0, 1)
    return random.random((runs, images)) >= each


def test_it_is_the_one_worked_out_by_hand():
    ours = np.array([[1, 1, 1, 0], [1, 1, 0, 1]], dtype=bool)
    others = np.array([[1, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)
    # means of runs: 0.75 0.75 and 0.5 0.25; variances 0 and 0.03125, so 0 and 0.015625 of the means.
    # by image: 0 1 0 0.5, mean 0.375, variance 0.2291667; of the mean 0.0572917.
    # rests: ours 0 0 .5 -.5, 0 0 -.5 .5: squares sum to 1, over 3: 0.333333, halved and over 4 images 0.0416667;
    # others -.125 -.125 .375 -.125 and the opposite: 0.375 over 3 = 0.125: 0.015625. Counted twice: 0.0572917.
    error = math.sqrt(0.015625)
    reach = student_t.ppf(0.975, 1) * error
    assert crossed_difference(ours, others) == pytest.approx((37.5, 37.5 - 100 * reach, 37.5 + 100 * reach))


def test_it_changes_its_sign_with_the_sides():
    random = np.random.default_rng(0)
    ours, others = system(random, 3), system(random, 5, harder=0.3)
    forth, back = crossed_difference(ours, others), crossed_difference(others, ours)
    assert forth.mean > 0
    assert back == pytest.approx((-forth.mean, -forth.high, -forth.low))


@pytest.mark.parametrize("runs", [(1, 20), (5, 20), (5, 5), (3, 80)])
def test_two_draws_of_one_system_are_told_apart_in_one_case_of_twenty(runs):
    random = np.random.default_rng(sum(runs))
    cases = 300
    wrong = sum(crossed_difference(*(system(random, count) for count in runs)).sign != 0 for _ in range(cases))
    assert wrong / cases == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / cases))


def test_other_test_images_are_in_the_interval():
    """Two systems that differ: the interval from 2,000 images holds what very many images give, in 19 of 20 cases."""
    random = np.random.default_rng(3)
    hits, cases = 0, 200
    for _ in range(cases):
        hardness = random.beta(0.03, 5, 2_000)
        sides = []
        for factor in (1, 1.5):
            each = np.clip(factor * hardness * (1 + random.normal(0, 0.1, (5, 1))), 0, 1)
            sides.append(random.random((5, 2_000)) >= each)
        found = crossed_difference(*sides)
        hits += found.low <= 100 * 0.5 * 0.03 / 5.03 <= found.high
    assert hits / cases == pytest.approx(0.95, abs=0.05)


def test_recorded_runs_of_one_rung_are_told_apart_no_more_often_than_the_interval_says():
    """All ways to part five runs of a published rung in two and three: of 90 differences, at most some 5 % leave out zero."""
    told = cases = 0
    for runs in records.by_recipe().values():
        tested = {seed: run.tested for seed, run in runs.items() if run.tested}
        if len(tested) != 5:
            continue
        apart, ways = told_apart(np.array([one.right for one in tested.values()]))
        assert ways == 10  # two of five
        told, cases = told + apart, cases + ways
    assert cases >= 90 and told / cases < 0.1


def test_what_cannot_be_compared_is_refused():
    one, more = np.ones((1, 8), dtype=bool), np.ones((3, 9), dtype=bool)
    with pytest.raises(ValueError, match="8 and 9 images, expected the same ones"):
        crossed_difference(one, more)
    with pytest.raises(ValueError, match="one run on either side, expected at least two on one of them"):
        crossed_difference(one, one)


def test_runs_that_are_all_as_accurate_leave_the_scatter_of_the_images():
    ours, others = np.ones((2, 1_000), dtype=bool), np.ones((2, 1_000), dtype=bool)
    ours[0, 0] = ours[1, 1] = others[0, 2] = others[1, 3] = False
    others[:, 4:20] = False
    mean, low, high = crossed_difference(ours, others)
    assert mean == pytest.approx(1.6)
    by_image = ours.mean(axis=0) - others.mean(axis=0)
    assert high - mean == pytest.approx(mean - low)
    assert 0.9 < (high - mean) / (196 * by_image.std(ddof=1) / np.sqrt(1_000)) <= 1.0
