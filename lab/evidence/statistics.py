"""What runs of one recipe say together, and by how much two recipes differ."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student_t

import utils


class OverSeeds(NamedTuple):
    """What the runs of one recipe say together; accuracies in percent of the images that were measured on."""

    parameters: int
    seeds: int
    consistent: int  # how many of the seeds meet the verdict
    mean: float  # of the last five epochs
    spread: float  # standard deviation of the seeds' means, in points; 0 for one seed
    worst: float  # of the last five epochs
    last: float  # mean of the last epoch alone
    gap: float  # mean of train - test, in points


def over_seeds(records: Mapping[int, utils.History]) -> OverSeeds:
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
    )


def place_among(records: Mapping[int, utils.History], yours: utils.History) -> str:
    """Where a run lies among the recorded ones of its recipe: the means of the last five epochs, in percent."""
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
    """Why a run says nothing about recorded ones, or nothing where it does."""
    images = [f"{run.test_images:,} test images ({run.dataset})" for run in (yours, recorded)]
    epochs = [f"{len(run)} epochs" for run in (yours, recorded)]
    parameters = [f"{run.parameters:,} parameters" for run in (yours, recorded)]
    for here, there in (images, epochs, parameters):
        if here != there:
            return f"it has {here}, they have {there}"
    return ""


def standard_error(percent: float, images: int) -> float:
    """Of an accuracy that was counted on so many images, in points: the luck of which images they are."""
    return math.sqrt(percent * (100 - percent) / images)


class Difference(NamedTuple):
    """A mean difference over seeds in points, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def paired_difference(after: Mapping[int, utils.History], before: Mapping[int, utils.History]) -> Difference:
    """By how much the mean of the last five epochs differs, seed by seed, with Student's 95 % interval.

    Raises ValueError for fewer than two seeds in common.
    """
    seeds = sorted(after.keys() & before.keys())
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seeds in common, expected at least 2")
    differences = np.array([after[seed].mean_last_five - before[seed].mean_last_five for seed in seeds])
    mean, standard_error = differences.mean(), differences.std(ddof=1) / math.sqrt(len(seeds))
    reach = student_t.ppf(0.975, len(seeds) - 1) * standard_error
    return Difference(float(mean), float(mean - reach), float(mean + reach))


def differences(recipes: Mapping[str, Mapping[int, utils.History]], against: str) -> dict[str, Difference]:
    """Of each recipe to one of them, where they share at least two seeds; the greatest loss first."""
    if against not in recipes:
        raise ValueError(f"there is no recipe {against!r} to compare with, expected one of {', '.join(recipes)}")
    base = recipes[against]
    shared = {name: runs for name, runs in recipes.items() if name != against and len(runs.keys() & base.keys()) > 1}
    if not shared:
        raise ValueError(f"there is no recipe with two seeds that {against!r} has too")
    changes = {name: paired_difference(runs, base) for name, runs in shared.items()}
    return dict(sorted(changes.items(), key=lambda change: change[1].mean))
