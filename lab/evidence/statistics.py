"""Statistics over seeds: the runs of one recipe, and the difference between two recipes."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest
from scipy.stats import t as student_t

import utils

Runs = Mapping[int, utils.History]  # the runs of one recipe, by seed

COLLAPSED_BELOW = 50.0  # percent; of the recorded runs, those that learned are above 95, those that did not at 11.35


def has_collapsed(run: utils.History) -> bool:
    """Whether a run learned nothing: over its last five epochs, more than half of its answers are wrong."""
    return run.mean_last_five < COLLAPSED_BELOW


class OverSeeds(NamedTuple):
    """Summary of the runs of one recipe; accuracies in percent of the images that they were measured on."""

    parameters: int
    seeds: int
    consistent: int  # how many of the seeds meet the verdict
    mean: float  # of the last five epochs
    spread: float  # standard deviation of the seeds' means, in points; 0 for one seed
    worst: float  # of the last five epochs
    last: float  # mean of the last epoch alone
    gap: float  # mean of train - test, in points
    collapsed: int  # how many of the seeds learned nothing


def over_seeds(records: Runs) -> OverSeeds:
    """Sum up the runs of one recipe."""
    runs = list(records.values())
    means = [run.mean_last_five for run in runs]
    return OverSeeds(
        parameters=runs[0].parameters,
        seeds=len(runs),
        consistent=sum(utils.verdict(run).consistent is True for run in runs),
        mean=float(np.mean(means)),
        spread=float(np.std(means, ddof=1)) if len(means) > 1 else 0.0,
        worst=min(min(run.last_five) for run in runs),
        last=float(np.mean([run.test_accuracy[-1] for run in runs])),
        gap=float(np.mean([run.gap for run in runs])),
        collapsed=sum(map(has_collapsed, runs)),
    )


def share_interval(consistent: int, seeds: int) -> tuple[float, float]:
    """Between which shares of all seeds the consistent ones lie: the exact 95 % interval of Clopper and Pearson.

    5 of 5 seeds give 0.48 to 1. Raises ValueError for no seeds, and for more consistent ones than seeds.
    """
    _check_share(consistent, seeds)
    interval = binomtest(consistent, seeds).proportion_ci(0.95, "exact")
    return float(interval.low), float(interval.high)


def share_at_least(consistent: int, seeds: int) -> float:
    """The exact one-sided 95 % bound: the share of all seeds that is consistent is at least this. Raises as above.

    5 of 5 seeds give 0.55.
    """
    _check_share(consistent, seeds)
    return float(binomtest(consistent, seeds, alternative="greater").proportion_ci(0.95, "exact").low)


def _check_share(consistent: int, seeds: int) -> None:
    if seeds < 1 or not 0 <= consistent <= seeds:
        raise ValueError(
            f"{consistent} of {seeds} seeds are consistent, expected at least one seed, and 0 to all of them"
        )


def place_among(records: Runs, yours: utils.History) -> str:
    """Say where a run lies among the recorded runs of its recipe, by the mean of its last five epochs in percent."""
    means = [run.mean_last_five for run in records.values()]
    trouble = why_not_comparable(yours, next(iter(records.values())))
    if trouble:
        return f"your run cannot be placed among the {len(means)} recorded seeds: {trouble}"
    low, high, mean = round(min(means), 2), round(max(means), 2), round(yours.mean_last_five, 2)
    sentence = f"your run: {mean:.2f}; {len(means)} recorded seeds: {low:.2f} to {high:.2f}; "
    if low <= mean <= high:
        return sentence + "inside"
    # of n + 1 draws, the first or the last is as likely to be yours as anybody's
    return f"{sentence}{'below' if mean < low else 'above'}, as one run in {(len(means) + 1) / 2:.0f} is by luck alone"


def why_not_comparable(yours: utils.History, recorded: utils.History) -> str:
    """Why a run cannot be compared with recorded ones; "" if it can."""
    images = [f"{run.test_images:,} test images ({run.dataset})" for run in (yours, recorded)]
    epochs = [f"{len(run)} epochs" for run in (yours, recorded)]
    parameters = [f"{run.parameters:,} parameters" for run in (yours, recorded)]
    for here, there in (images, epochs, parameters):
        if here != there:
            return f"it has {here}, they have {there}"
    return ""


def standard_error(percent: float, images: int) -> float:
    """The standard error, in points, of an accuracy in percent: it depends on which images happen to be tested."""
    return math.sqrt(percent * (100 - percent) / images)


def on_shared_seeds(recipes: Mapping[str, Runs]) -> dict[str, dict[int, utils.History]]:
    """Each recipe's runs for the seeds that all of the recipes have. Raises ValueError for fewer than two such seeds."""
    seeds = sorted(set.intersection(*(set(runs) for runs in recipes.values()))) if recipes else []
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seeds are recorded for all of {', '.join(recipes)}, expected at least 2")
    return {name: {seed: runs[seed] for seed in seeds} for name, runs in recipes.items()}


class Difference(NamedTuple):
    """A mean difference over seeds in points, and the ends of its 95 % interval.

    Both ends are NaN where a run collapsed. Student's interval takes the differences for draws from one bell curve, and
    a seed that learned nothing does not come from the curve of the others.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not self.has_interval:
            return f"{self.mean:+.2f} (collapsed)"
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"

    @property
    def has_interval(self) -> bool:
        """Whether no run collapsed."""
        return not math.isnan(self.low)

    @property
    def sign(self) -> int:
        """1 for a gain and -1 for a loss; 0 where the interval contains zero. Without an interval, the mean decides."""
        low, high = (self.low, self.high) if self.has_interval else (self.mean, self.mean)
        return int(low > 0) - int(high < 0)


class Estimate(NamedTuple):
    """An estimated difference in points: its mean, the standard error of that, and its degrees of freedom."""

    mean: float
    error: float
    freedom: float

    @classmethod
    def of(cls, differences: Sequence[float] | np.ndarray) -> "Estimate":
        """Student's, from differences by seed."""
        row = np.asarray(differences)
        return cls(float(row.mean()), float(row.std(ddof=1)) / math.sqrt(len(row)), len(row) - 1)

    @property
    def p(self) -> float:
        """How often luck alone puts the mean as far from zero; NaN where a run collapsed."""
        if self.error == 0:  # all differences are the same
            return float(self.mean == 0)
        return float(2 * student_t.sf(abs(self.mean) / self.error, self.freedom))

    def interval(self, level: float = 0.05) -> Difference:
        """The mean and the interval that misses the truth as often as the level says."""
        reach = float(student_t.ppf(1 - level / 2, self.freedom)) * self.error
        return Difference(self.mean, self.mean - reach, self.mean + reach)


def paired_difference(after: Runs, before: Runs) -> Difference:
    """Mean difference of the last five epochs, paired seed by seed, with Student's 95 % interval.

    There is no interval where one of these runs collapsed, in either recipe. Raises ValueError for fewer than two seeds
    in common.
    """
    seeds = sorted(after.keys() & before.keys())
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seeds in common, expected at least 2")
    estimate = Estimate.of([after[seed].mean_last_five - before[seed].mean_last_five for seed in seeds])
    if any(has_collapsed(runs[seed]) for runs in (after, before) for seed in seeds):
        estimate = estimate._replace(error=math.nan)
    return estimate.interval()


def unpaired_difference(after: Runs, before: Runs) -> Difference:
    """Mean difference of the last five epochs of runs from different seeds, with Welch's 95 % interval.

    There is no interval where a run collapsed. Raises ValueError for fewer than two runs on either side.
    """
    sides = [[run.mean_last_five for run in runs.values()] for runs in (after, before)]
    if min(map(len, sides)) < 2:
        raise ValueError(f"{len(sides[0])} and {len(sides[1])} runs, expected at least 2 on each side")
    of_means = [np.var(side, ddof=1) / len(side) for side in sides]  # the variances of the two means
    freedom = sum(of_means) ** 2 / sum(one**2 / (len(side) - 1) for one, side in zip(of_means, sides))
    collapsed = any(has_collapsed(run) for runs in (after, before) for run in runs.values())
    error = math.nan if collapsed else math.sqrt(sum(of_means))
    return Estimate(float(np.mean(sides[0]) - np.mean(sides[1])), error, float(freedom)).interval()
