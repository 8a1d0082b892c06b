"""How many seeds a verdict on a network takes: how often luck accepts a bad network, and refuses a good one.

A seed of a network is consistent or not, and some share of all possible seeds is: the network's true share, which nobody
knows. A rule looks at a few seeds, and accepts the network or not.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import beta, binom

from lab.evidence.statistics import share_at_least

BAD, GOOD = 0.5, 0.95  # true shares: a network below the first must be refused, one above the second accepted
DEFAULT_SEEDS = 5  # of `judge` and `grade`: the fewest that `accepts` can accept
STEPS = 2_000  # of a sum over shares; the error is below a thousandth of a percent

Rule = Callable[[np.ndarray], np.ndarray]  # from true shares to how often a network with such a share is accepted


def accepts(consistent: int, seeds: int) -> bool:
    """Whether so many consistent seeds show, at the one-sided 95 % level, that more than half of all seeds are.

    For any number of seeds that was chosen before they ran, a network whose true share is one half or less is accepted
    in 5 % of cases at most. Fewer than five seeds accept none. Raises ValueError as `share_at_least`.
    """
    return share_at_least(consistent, seeds) > BAD


def needed(seeds: int) -> int | None:
    """The fewest consistent seeds, out of `seeds`, that `accepts` accepts; None if even all are too few."""
    return next((count for count in range(seeds + 1) if accepts(count, seeds)), None)


def at_least(consistent: int, seeds: int) -> Rule:
    """The rule that accepts a network if at least so many of its seeds are consistent: a binomial tail."""
    return lambda shares: binom.sf(consistent - 1, seeds, shares)


def in_two_rounds(seeds: int) -> Rule:
    """The rule that accepts if all seeds are consistent or, after exactly one miss, if as many further seeds all are."""
    return lambda shares: shares**seeds * (1 + binom.pmf(seeds - 1, seeds, shares))


def chance(rule: Rule, share: float) -> float:
    """How often a rule accepts a network with this true share.

    For the share of consistent seeds among recorded ones, that is how often it accepts seeds drawn from these, with
    replacement: the number of consistent ones among them is binomial, so nothing has to be drawn.
    """
    return float(rule(np.array(share)))


def unsure(rule: Rule, recorded: Sequence[tuple[int, int]], low: float, high: float) -> float:
    """How often a rule accepts a network like the recorded ones whose true share lies between `low` and `high`.

    recorded: how many seeds of a recipe are consistent, and how many there are, for each recipe

    Each recipe is equally likely, and so is each of its possible shares before its seeds are seen. Afterwards they have a
    beta distribution, of which this takes the part between `low` and `high`.
    """
    shares = low + (high - low) * (np.arange(STEPS) + 0.5) / STEPS
    weights = sum(beta.pdf(shares, consistent + 1, seeds - consistent + 1) for consistent, seeds in recorded)
    return float(np.average(rule(shares), weights=weights))
