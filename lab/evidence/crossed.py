"""The difference of two systems that were tested on the same images: over runs and images together.

A run's accuracy depends on its seed, and on which images happen to be in the test set. Both count here, as crossed random
effects: the answer of run r to image i is a mean, plus an effect of the run, plus one of the image, plus a rest.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from lab.evidence.statistics import Difference, Estimate


class _Spread(NamedTuple):
    """How far one side's runs scatter: as variances of single answers, of single runs, and how sure these are."""

    of_runs: float  # of the runs' accuracies
    rest: float  # of an answer that neither its run nor its image explains
    freedom: int

    @classmethod
    def of(cls, right: np.ndarray) -> "_Spread":
        runs, images = right.shape
        of_run = right.mean(axis=1)
        rest = right - right.mean(axis=0) - of_run[:, None] + right.mean()
        return cls(of_run.var(ddof=1), float((rest**2).sum()) / ((runs - 1) * (images - 1)), runs - 1)

    def times(self, factor: float) -> "_Spread":
        """As far, for this many times as many mistakes."""
        return self._replace(of_runs=factor * self.of_runs, rest=factor * self.rest)


def _spreads(ours: np.ndarray, others: np.ndarray) -> tuple[_Spread, _Spread]:
    """Both sides' spreads; that of a single run is the other side's, in proportion to the mistakes."""
    more_wrong = float((1 - ours.mean()) / max(1 - others.mean(), 1e-9))
    if len(ours) < 2:
        other = _Spread.of(others)
        return other.times(more_wrong), other
    spread = _Spread.of(ours)
    return spread, _Spread.of(others) if len(others) > 1 else spread.times(1 / max(more_wrong, 1e-9))


def crossed_difference(ours: np.ndarray, others: np.ndarray) -> Difference:
    """By how many points ours is better than the others, with a 95 % interval. Arguments and errors as `crossed_estimate`."""
    return crossed_estimate(ours, others).interval()


def crossed_estimate(ours: np.ndarray, others: np.ndarray) -> Estimate:
    """By how many points ours is better than the others, and how sure that is for other seeds and other test images.

    ours, others: bool, of shape (runs, images): whether each run had each image right; the images are the same

    The variance of the difference has three parts: the spread of the runs' accuracies on either side, and, of the images,
    that of the difference's mean over runs, less what of it is the runs' already (the rest above). The degrees of freedom
    are Satterthwaite's. A side with a single run gets the other side's spread, in proportion to the mistakes.

    Raises ValueError for sides with different images, and where neither has two runs.
    """
    if ours.shape[1] != others.shape[1]:
        raise ValueError(f"{ours.shape[1]} and {others.shape[1]} images, expected the same ones")
    if len(ours) < 2 and len(others) < 2:
        raise ValueError("one run on either side, expected at least two on one of them")
    spread, other = _spreads(ours, others)
    by_image = ours.mean(axis=0) - others.mean(axis=0)
    images = len(by_image)
    of_runs = spread.of_runs / len(ours), other.of_runs / len(others)
    counted_twice = (spread.rest / len(ours) + other.rest / len(others)) / images
    of_images = max(0.0, float(by_image.var(ddof=1)) / images - counted_twice)
    variance = sum(of_runs) + of_images
    uncertain = of_runs[0] ** 2 / spread.freedom + of_runs[1] ** 2 / other.freedom
    freedom = variance**2 / uncertain if uncertain else math.inf  # all runs are as accurate: only the images scatter
    return Estimate(100 * float(by_image.mean()), 100 * math.sqrt(variance), freedom)


def told_apart(right: np.ndarray) -> tuple[int, int]:
    """For how many ways to part one system's runs in two groups, of two runs or more, the interval leaves out zero: a check,
    since all are draws of one system. Returns that number and the number of ways.

    right: bool, of shape (runs, images), of an odd number of runs: of an even one, halves would count twice
    """
    runs = set(range(len(right)))
    parts = [set(part) for size in range(2, len(runs) // 2 + 1) for part in itertools.combinations(runs, size)]
    signs = [crossed_difference(right[sorted(part)], right[sorted(runs - part)]).sign for part in parts]
    return sum(sign != 0 for sign in signs), len(signs)
