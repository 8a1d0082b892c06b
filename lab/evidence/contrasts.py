"""Several comparisons at once: differences over seeds, adjusted for how many there are, and what each of them says."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import utils
from lab.evidence import records
from lab.evidence.places import RESULTS
from lab.evidence.records import Factors, load_study
from lab.evidence.statistics import Difference, Estimate, Runs, has_collapsed, paired_difference

LEVEL = 0.05  # at most this often, one of several comparisons leaves out zero by luck alone
MARGIN = 0.05  # points; two recipes that differ by less are taken for equivalent

DIFFERENT, EQUIVALENT, CANNOT_TELL, COLLAPSED = "different", "equivalent", "cannot tell", "collapsed"


class Contrast(NamedTuple):
    """A difference with the interval that is left to it among several comparisons.

    `adjusted_p` is Holm's for `among` comparisons; the interval leaves out zero exactly if it is below 0.05. Both are NaN
    where a run collapsed.
    """

    difference: Difference
    adjusted_p: float
    among: int

    @property
    def says(self) -> str:
        """Different, equivalent (the interval lies within 0.05 points of zero) or cannot tell; or that a run collapsed."""
        _, low, high = self.difference
        if not self.difference.has_interval:
            return COLLAPSED
        if self.adjusted_p < LEVEL:
            return DIFFERENT
        return EQUIVALENT if low >= -MARGIN and high <= MARGIN else CANNOT_TELL


Measure = Callable[[utils.History], float]


def last_five(run: utils.History) -> float:
    """What recipes are compared by: the mean of the last five epochs, in percent."""
    return run.mean_last_five


def last_epoch(run: utils.History) -> float:
    """The accuracy of the last epoch, in percent."""
    return run.test_accuracy[-1]


def by_seed(runs: Runs, seeds: Iterable[int], measure: Measure = last_five) -> np.ndarray:
    """The measure of each of these seeds, in percent; NaN for a seed that collapsed."""
    return np.array([math.nan if has_collapsed(runs[seed]) else measure(runs[seed]) for seed in seeds])


def contrasts(
    pairs: Mapping[str, tuple[Runs, Runs]], measure: Measure = last_five, beside: Mapping[str, np.ndarray] | None = None
) -> dict[str, Contrast]:
    """Each pair's first recipe less its second, paired over the seeds that both have, and adjusted for all pairs.

    `beside` has other differences by seed, such as `effects`, which are tested and adjusted with them.
    Raises ValueError for a pair with fewer than two seeds in common.
    """
    rows = dict(beside or {})
    for name, (after, before) in pairs.items():
        seeds = sorted(after.keys() & before.keys())
        if len(seeds) < 2:
            raise ValueError(f"{name}: {len(seeds)} seeds in common, expected at least 2")
        rows[name] = by_seed(after, seeds, measure) - by_seed(before, seeds, measure)
    found = adjust(rows)
    for name, (after, before) in pairs.items():
        if not found[name].difference.has_interval:  # its mean is still worth showing
            found[name] = found[name]._replace(difference=paired_difference(after, before))
    return found


def effects(factors: Factors, recorded: Mapping[str, Runs], measure: Measure = last_five) -> dict[str, np.ndarray]:
    """What two factors do, in points for each seed that all four recipes have: each alone, and their interaction.

    A factor's effect is the mean of what it changes without the other one and with it; the interaction is by how much it
    changes more with it than without.
    """
    seeds = sorted(set.intersection(*(set(recorded[name]) for name in factors.recipes)))
    neither, first, second, both = (by_seed(recorded[name], seeds, measure) for name in factors.recipes)
    return {
        factors.first: ((first - neither) + (both - second)) / 2,
        factors.second: ((second - neither) + (both - first)) / 2,
        "interaction": (both - second) - (first - neither),
    }


def to_the_row_above(rows: Mapping[str, Runs], measure: Measure = last_five) -> dict[str, Contrast]:
    """Each recipe but the first against the one before it. Raises as `contrasts`."""
    return contrasts({name: (rows[name], rows[above]) for above, name in itertools.pairwise(rows)}, measure)


def to_one(recipes: Mapping[str, Runs], against: str, measure: Measure = last_five) -> dict[str, Contrast]:
    """Each recipe against one of them, the greatest loss first.

    Recipes that share fewer than two seeds with it are left out. Raises ValueError for an unknown recipe `against`, and
    where no recipe is left.
    """
    if against not in recipes:
        raise ValueError(f"there is no recipe {against!r} to compare with, expected one of {', '.join(recipes)}")
    base = recipes[against]
    shared = {name: runs for name, runs in recipes.items() if name != against and len(runs.keys() & base.keys()) > 1}
    if not shared:
        raise ValueError(f"there is no recipe that shares two seeds with {against!r}")
    found = contrasts({name: (runs, base) for name, runs in shared.items()}, measure)
    return dict(sorted(found.items(), key=lambda change: change[1].difference.mean))


def changes(study: str, folder: str | Path = RESULTS) -> dict[str, Contrast]:
    """What a study compares, adjusted for all of it: each recipe's contrast by name, and the effects of its factors.

    Raises as `records.load`.
    """
    recorded, compared, factors = (
        load_study(study, folder),
        records.compared(study, folder),
        records.factors(study, folder),
    )
    pairs = {recipe: (recorded[recipe], recorded[against]) for recipe, against in compared}
    return contrasts(pairs, beside=effects(factors, recorded) if factors else None)


def adjust(rows: Mapping[str, Sequence[float] | np.ndarray]) -> dict[str, Contrast]:
    """The mean of each row of differences, with Student's interval and p-value, adjusted as `adjust_estimates` does it.

    Raises ValueError for a row with fewer than two differences.
    """
    for name, row in rows.items():
        if len(row) < 2:
            raise ValueError(f"{name}: {len(row)} differences, expected at least 2")
    return adjust_estimates({name: Estimate.of(row) for name, row in rows.items()})


def adjust_estimates(estimates: Mapping[str, Estimate]) -> dict[str, Contrast]:
    """Each estimate with its interval and p-value, adjusted for all of them by Holm's procedure.

    The smallest p-value is multiplied by the number of estimates, the next by one less, and so on, and none is below the
    one before. Each interval has the level at which the procedure tests its estimate. One that is NaN is no test, and
    counts for none.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    p = {name: estimate.p for name, estimate in estimates.items()}
    ordered = sorted((name for name in p if not math.isnan(p[name])), key=lambda name: p[name])
    found = {}
    adjusted_p, level = 0.0, LEVEL / max(1, len(ordered))
    for place, name in enumerate(ordered):
        if adjusted_p < LEVEL:  # all before this one are told from zero, so it shares the level with those after it
            level = LEVEL / (len(ordered) - place)
        adjusted_p = max(adjusted_p, min(1.0, p[name] * (len(ordered) - place)))
        found[name] = Contrast(estimates[name].interval(level), adjusted_p, len(ordered))
    no_test = {name: Contrast(estimates[name].interval(LEVEL), math.nan, len(ordered)) for name in estimates}
    return {name: found.get(name, no_test[name]) for name in estimates}
