"""Recorded runs as tables."""

import itertools
from collections.abc import Mapping

import utils
from lab.evidence.statistics import Difference, differences, over_seeds, paired_difference, standard_error

_YES_NO = {True: "yes", False: "no", None: "not judged"}


def seeds_table(records: Mapping[int, utils.History], images: str = "test") -> str:
    """One row a seed: the last five epochs, their mean and worst, the gap between train and test, the utils.verdict.

    `images` is what the table calls the images that were measured on.
    """
    last_title, gap_title = f"last five epochs, {images} %", f"train - {images}"
    lines = [f"seed   {last_title:<29} {'mean':>6} {'worst':>7}   {gap_title}   consistent"]
    width = len(gap_title) + 2
    for seed, run in records.items():
        last = " ".join(f"{percent:.2f}" for percent in run.last_five)
        lines.append(
            f"{seed:>4}   {last:<29} {run.mean_last_five:>6.2f} {min(run.last_five):>7.2f} {run.gap:>{width}.2f}   "
            f"{_YES_NO[utils.verdict(run).consistent]}"
        )
    together = over_seeds(records)
    lines.append(
        f" all   {'':<29} {together.mean:>6.2f} {together.worst:>7.2f} {together.gap:>{width}.2f}   {together.consistent} of {together.seeds}"
    )
    if together.seeds > 1:
        lines.append(f"the seeds' means spread by {together.spread:.2f} points (one standard deviation)")
    images_here = next(iter(records.values())).test_images
    lines.append(
        f"one standard error of {images_here:,} images: {standard_error(together.mean, images_here):.2f} points"
    )
    return "\n".join(lines)


def ladder_table(rows: Mapping[str, Mapping[int, utils.History]], images: str = "test") -> str:
    """One row a recipe, each a change on the one above: parameters, accuracy over seeds, difference to the row above.

    All rows are of the same seeds, those that every recipe is recorded for. Raises ValueError for fewer than two.
    `images` is what the table calls the images that were measured on.
    """
    seeds = sorted(set.intersection(*(set(records) for records in rows.values())))
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seeds are recorded for all of {', '.join(rows)}, expected at least 2")
    in_a_row = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    corner = f"seeds {seeds[0]} to {seeds[-1]}" if in_a_row else f"seeds {' '.join(map(str, seeds))}"
    shared = {name: {seed: records[seed] for seed in seeds} for name, records in rows.items()}
    changes = {name: paired_difference(shared[name], shared[above]) for above, name in itertools.pairwise(shared)}
    return _table_over_seeds(shared, changes, corner, images, "change to the row above")


def comparison_table(recipes: Mapping[str, Mapping[int, utils.History]], against: str) -> str:
    """Each recipe against one of them, from the greatest loss to the greatest gain; paired over the seeds they share.

    Recipes that share fewer than two seeds with it are left out, and so are its seeds that no other recipe has. Raises
    ValueError for an unknown recipe `against`, and where there is none to compare.
    """
    changes = differences(recipes, against)
    compared = recipes[against].keys() & {seed for name in changes for seed in recipes[name]}
    shared = {
        readable(name): {seed: run for seed, run in recipes[name].items() if seed in compared}
        for name in [*changes, against]
    }
    changes = {readable(name): change for name, change in changes.items()}
    return _table_over_seeds(shared, changes, "", "test", f"difference to {readable(against)}")


def _table_over_seeds(
    rows: Mapping[str, Mapping[int, utils.History]],
    changes: Mapping[str, Difference],
    corner: str,
    images: str,
    title: str,
) -> str:
    """As text: a row a recipe, of the last five epochs but for `last`, the last one alone; `title` is of the changes."""
    width = max(map(len, [*rows, corner]))
    percent, gap = f"{images} %", f"train - {images}"
    lines = [f"{corner:<{width}}   parameters   {percent}   worst    last   {gap}   consistent   {title}"]
    for name, records in rows.items():
        runs = over_seeds(records)
        consistent = f"{runs.consistent} of {runs.seeds}"
        lines.append(
            f"{name:<{width}}   {runs.parameters:>10,}   {runs.mean:>{len(percent)}.2f}   {runs.worst:>5.2f}   "
            f"{runs.last:>5.2f}   {runs.gap:>{len(gap)}.2f}   {consistent:>10}   {changes.get(name, '')}".rstrip()
        )
    return "\n".join(lines)


def readable(recipe: str) -> str:
    """A recipe's name as a reader sees it: "no_gap" is "no GAP", "step3" is "step 3"."""
    return recipe.replace("_", " ").replace("gap", "GAP").replace("step", "step ")
