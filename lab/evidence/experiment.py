"""An experiment for the reader: guess what a change is worth, then see what was recorded."""

import math
from pathlib import Path

from lab.evidence import records
from lab.evidence.contrasts import CANNOT_TELL, EQUIVALENT, MARGIN, Contrast, changes, contrasts
from lab.evidence.places import RESULTS
from lab.evidence.records import load
from lab.evidence.statistics import has_collapsed
from lab.evidence.tables import readable


def guess(
    points: float, recipe: str, *, study: str = "ablation", against: str = "step3", folder: str | Path = RESULTS
) -> str:
    """Hold a guess against the record: by how many points of accuracy does `recipe` differ from `against`?

    `points` is the guess, negative for a loss. Returns four lines: the guess, the recorded difference paired over seeds
    with its 95 % interval, whether the sign is right, and how far off the size is. `evidence.recipes(study)` lists the
    recipes to choose from.

    Raises ValueError for a guess that is not a number and for a recipe against itself, FileNotFoundError, with a list of
    the recorded ones, for another study or recipe.
    """
    if isinstance(points, bool) or not isinstance(points, (int, float)) or not math.isfinite(points):
        raise ValueError(f"points is {points!r}, expected a number such as -0.1, for a loss of 0.1 points")
    if recipe == against:
        raise ValueError(f"{recipe} is compared with itself, expected two recipes")
    after, before = load(study, recipe, folder), load(study, against, folder)
    seeds = sorted(after.keys() & before.keys())
    contrast = contrasts({recipe: (after, before)})[recipe]
    if (recipe, against) in records.compared(study, folder):
        contrast = changes(study, folder)[recipe]
    difference = contrast.difference
    adjusted = f", adjusted for {contrast.among} comparisons" if contrast.among > 1 else ""
    recorded = f"{difference} points, paired over {len(seeds)} seeds; in brackets the 95 % interval{adjusted}"
    if not difference.has_interval:
        collapsed = sum(has_collapsed(after[seed]) or has_collapsed(before[seed]) for seed in seeds)
        recorded = f"{difference.mean:+.2f} points, paired over {len(seeds)} seeds; no interval, {collapsed} collapsed"
    return "\n".join(
        [
            f"your guess  {points:+.2f} points for {readable(recipe)} against {readable(against)}",
            f"recorded    {recorded}",
            f"sign        {_judge_sign(points, contrast, len(seeds))}",
            f"size        {_judge_size(points, contrast)}",
        ]
    )


def _judge_sign(points: float, contrast: Contrast, seeds: int) -> str:
    if contrast.says == EQUIVALENT:
        return f"{'right' if abs(points) <= MARGIN else 'wrong'}: over {seeds} seeds, the two are equivalent, within {MARGIN} points"
    if contrast.says == CANNOT_TELL:
        nothing = f"the difference is not distinguishable from zero over {seeds} seeds"
        return f"right: {nothing}" if points == 0 else f"open: {nothing}"
    guessed, found = (
        {1: "a gain", 0: "no difference", -1: "a loss"}[(one > 0) - (one < 0)]
        for one in (points, contrast.difference.mean)
    )
    return f"right: it is {found}" if guessed == found else f"wrong: you expected {guessed}, it is {found}"


def _judge_size(points: float, contrast: Contrast) -> str:
    mean, low, high = contrast.difference
    off = f"{abs(points - mean):.2f} points off"
    if not contrast.difference.has_interval:
        return f"{off}; there is no interval to hold the guess against"
    return f"{off}; your guess lies {'inside' if low <= points <= high else 'outside'} the interval"
