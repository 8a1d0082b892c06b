"""An experiment for the reader: guess what a change is worth, then see what was recorded."""

import math
from pathlib import Path

from lab.evidence.places import RESULTS
from lab.evidence.records import load
from lab.evidence.statistics import Difference, has_collapsed, paired_difference
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
    difference = paired_difference(after, before)
    seeds = sorted(after.keys() & before.keys())
    names = f"{readable(recipe)} against {readable(against)}"
    recorded = f"{difference} points, paired over {len(seeds)} seeds; in brackets the 95 % interval"
    if not difference.has_interval:
        collapsed = sum(has_collapsed(after[seed]) or has_collapsed(before[seed]) for seed in seeds)
        recorded = f"{difference.mean:+.2f} points, paired over {len(seeds)} seeds; no interval, {collapsed} collapsed"
    return "\n".join(
        [
            f"your guess  {points:+.2f} points for {names}",
            f"recorded    {recorded}",
            f"sign        {_judge_sign(points, difference, len(seeds))}",
            f"size        {_judge_size(points, difference)}",
        ]
    )


def _judge_sign(points: float, difference: Difference, seeds: int) -> str:
    if difference.sign == 0:
        nothing = f"the difference is not distinguishable from zero over {seeds} seeds"
        return f"right: {nothing}" if points == 0 else f"open: {nothing}"
    guessed, found = (
        {1: "a gain", 0: "no difference", -1: "a loss"}[sign] for sign in ((points > 0) - (points < 0), difference.sign)
    )
    return f"right: it is {found}" if guessed == found else f"wrong: you expected {guessed}, it is {found}"


def _judge_size(points: float, difference: Difference) -> str:
    off = f"{abs(points - difference.mean):.2f} points off"
    if not difference.has_interval:
        return f"{off}; there is no interval to hold the guess against"
    inside = difference.low <= points <= difference.high
    return f"{off}; your guess lies {'inside' if inside else 'outside'} the interval"
