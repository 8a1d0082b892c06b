"""Verdicts over seeds: exact intervals, and how often luck decides."""

import itertools
import math

import numpy as np
import pytest
from histories import seeds

from lab.evidence import odds
from lab.evidence.statistics import over_seeds, share_at_least, share_interval

GOOD, BAD = [9_940] * 5, [9_960, 9_960, 9_939, 9_960, 9_960]  # the second misses the verdict in one epoch


def tail(least, of, share):
    """The binomial tail, term by term."""
    return sum(math.comb(of, count) * share**count * (1 - share) ** (of - count) for count in range(least, of + 1))


# ---------------------------------------------------------------------------------------------------------------------
# Intervals
# ---------------------------------------------------------------------------------------------------------------------


def test_five_of_five_seeds_only_mean_at_least_48_percent():
    assert share_interval(5, 5) == pytest.approx((0.025 ** (1 / 5), 1))
    assert round(100 * share_interval(5, 5)[0]) == 48
    assert share_interval(0, 5) == pytest.approx((0, 1 - 0.025 ** (1 / 5)))
    assert share_at_least(5, 5) == pytest.approx(0.05 ** (1 / 5))
    assert share_at_least(0, 5) == 0


@pytest.mark.parametrize(("consistent", "of"), [(3, 10), (1, 2), (19, 20), (9, 10)])
def test_at_the_ends_of_an_exact_interval_the_count_is_just_that_improbable(consistent, of):
    low, high = share_interval(consistent, of)
    assert tail(consistent, of, low) == pytest.approx(0.025)
    assert 1 - tail(consistent + 1, of, high) == pytest.approx(0.025)
    assert tail(consistent, of, share_at_least(consistent, of)) == pytest.approx(0.05)


@pytest.mark.parametrize(("consistent", "of"), [(0, 0), (6, 5), (-1, 5)])
@pytest.mark.parametrize("bound", [share_interval, share_at_least, odds.accepts])
def test_a_share_that_cannot_be_is_named(bound, consistent, of):
    with pytest.raises(
        ValueError, match=f"{consistent} of {of} seeds are consistent, expected at least one seed, and 0"
    ):
        bound(consistent, of)


# ---------------------------------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------------------------------


def test_the_fewest_consistent_seeds_keep_a_coin_from_passing():
    for of in range(1, 21):
        improbable = [count for count in range(of + 1) if tail(count, of, 0.5) < 0.05]
        assert odds.needed(of) == min(improbable, default=None)
    assert [odds.needed(of) for of in (3, 4, 5, 10, 20)] == [None, None, 5, 9, 15]


def test_the_default_is_the_fewest_seeds_that_can_be_accepted():
    assert odds.needed(odds.DEFAULT_SEEDS) == odds.DEFAULT_SEEDS
    assert odds.needed(odds.DEFAULT_SEEDS - 1) is None


@pytest.mark.parametrize(
    ("least", "of", "share", "chance"),
    [(3, 3, 0.5, 0.125), (5, 5, 0.5, 1 / 32), (4, 5, 0.5, 6 / 32), (10, 10, 0.5, 1 / 1_024), (9, 10, 0.5, 11 / 1_024)],
)
def test_how_often_a_coin_passes(least, of, share, chance):
    assert odds.chance(odds.at_least(least, of), share) == pytest.approx(chance)
    assert odds.chance(odds.at_least(least, of), 0.95) == pytest.approx(tail(least, of, 0.95))


def test_two_rounds_are_all_ways_in_which_ten_seeds_can_fall():
    def accepted(fall):
        first, second = fall[:3], fall[3:]
        return all(first) or (sum(first) == 2 and all(second))

    ways = [fall for fall in itertools.product((0, 1), repeat=6) if accepted(fall)]
    for share in (0.0, 0.3, 0.95, 1.0):
        chance = sum(math.prod(share if one else 1 - share for one in fall) for fall in ways)
        assert odds.chance(odds.in_two_rounds(3), share) == pytest.approx(chance)


# ---------------------------------------------------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------------------------------------------------


def test_the_chance_is_what_drawing_from_the_records_gives():
    """Once with draws, from five seeds of which three are consistent."""
    runs = seeds(GOOD, BAD, GOOD, BAD, GOOD)
    verdicts = np.array([over_seeds({0: run}).consistent for run in runs.values()])
    generator = np.random.default_rng(0)
    drawn = verdicts[generator.integers(5, size=(200_000, 10))]
    three, five = drawn[:, :3].all(1), drawn[:, :5].all(1)
    rescued = (drawn[:, :5].sum(1) == 4) & drawn[:, 5:].all(1)
    for happened, rule in (
        (three, odds.at_least(3, 3)),
        (drawn[:, :5].sum(1) >= 4, odds.at_least(4, 5)),
        (five | rescued, odds.in_two_rounds(5)),
        (drawn.sum(1) >= 9, odds.at_least(9, 10)),
    ):
        assert odds.chance(rule, 3 / 5) == pytest.approx(happened.mean(), abs=0.003)


def test_a_share_that_seeds_leave_open_is_weighed():
    """One consistent seed leaves the density 2 p; with three of three, the integral of 2 p p^3 from 0 to 1/2 over 1/4."""
    three = odds.at_least(3, 3)
    assert odds.unsure(three, [(1, 1)], 0, 0.5) == pytest.approx(2 / 5 * 0.5**5 / 0.25, rel=1e-5)
    assert odds.unsure(three, [(1, 1)], 0, 1) == pytest.approx(2 / 5, rel=1e-5)
    # no seed of one recipe, and one of one of another: together uniform
    assert odds.unsure(three, [(0, 1), (1, 1)], 0, 1) == pytest.approx(1 / 4, rel=1e-5)


def test_many_seeds_leave_nothing_open():
    five = odds.at_least(5, 5)
    assert odds.unsure(five, [(40_000, 100_000)], 0, 0.5) == pytest.approx(0.4**5, rel=1e-2)
