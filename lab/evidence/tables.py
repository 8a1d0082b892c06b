"""Tables as text and as Markdown, and the tables of recorded runs."""

import itertools
import re
from collections.abc import Mapping, Sequence

import utils
from lab.evidence.statistics import (
    Difference,
    Runs,
    differences,
    on_shared_seeds,
    over_seeds,
    paired_difference,
    standard_error,
)

COLLAPSED_NOTE = "collapsed: a run got more than half of the images wrong, so there is no interval"
_YES_NO = {True: "yes", False: "no", None: "not judged"}

# ---------------------------------------------------------------------------------------------------------------------
# Any table
# ---------------------------------------------------------------------------------------------------------------------


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as text: numbers are right-aligned, words left-aligned. Titles may have several lines.

    Raises ValueError for a row with too many or too few cells.
    """
    _expect_cells(titles, rows)
    height = 1 + max((title.count("\n") for title in titles), default=0)
    stacked = [title.split("\n") for title in titles]
    stacked = [[""] * (height - len(lines)) + lines for lines in stacked]  # short titles stand on the last line
    lines = [*zip(*stacked), *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    numbers = _are_numbers(titles, rows)
    aligned = [
        [cell.rjust(width) if number else cell.ljust(width) for cell, width, number in zip(line, widths, numbers)]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown: each title on one line, `|` in a cell escaped. Raises as `table`."""
    _expect_cells(titles, rows)
    ruler = ["---:" if number else "---" for number in _are_numbers(titles, rows)]
    lines = [[title.replace("\n", " ") for title in titles], ruler, *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _expect_cells(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        if len(row) != len(titles):
            raise ValueError(f"a row has {len(row)} cells, expected {len(titles)}, one for each title")


def _are_numbers(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers: most of the filled cells begin with a digit or a sign and a digit."""
    columns = zip(*rows) if rows else [()] * len(titles)
    begins = [[bool(re.match(r"[+-]?\d", cell)) for cell in column if cell] for column in columns]
    return [2 * sum(one) > len(one) for one in begins]


# ---------------------------------------------------------------------------------------------------------------------
# Tables of runs
# ---------------------------------------------------------------------------------------------------------------------


def seeds_table(records: Runs, images: str = "test") -> str:
    """One row per seed: the last five epochs, their mean and worst, the gap between train and test, the verdict.

    `images` is what the table calls the images that were measured on.
    """
    rows = [
        [
            str(seed),
            " ".join(f"{percent:.2f}" for percent in run.last_five),
            f"{run.mean_last_five:.2f}",
            f"{min(run.last_five):.2f}",
            f"{run.gap:.2f}",
            _YES_NO[utils.verdict(run).consistent],
        ]
        for seed, run in records.items()
    ]
    together = over_seeds(records)
    consistent = f"{together.consistent} of {together.seeds}"
    rows.append(["all", "", f"{together.mean:.2f}", f"{together.worst:.2f}", f"{together.gap:.2f}", consistent])
    titles = ["seed", f"last five epochs, {images} %", "mean", "worst", f"train - {images}", "consistent"]
    return "\n".join([table(titles, rows), *_notes_on_seeds(records)])


def _notes_on_seeds(records: Runs) -> list[str]:
    """The lines below a table of seeds: what their means spread by, and how sure one of them is."""
    together, images = over_seeds(records), next(iter(records.values())).test_images
    if together.collapsed:
        collapsed = f"{together.collapsed} of {together.seeds} seeds collapsed, wrong on more than half of the images"
        return [f"{collapsed}: mean and spread say little"]
    luck = f"one standard error of {images:,} images: {standard_error(together.mean, images):.2f} points"
    if together.seeds == 1:
        return [luck]
    return [f"the seeds' means spread by {together.spread:.2f} points (one standard deviation)", luck]


def ladder_table(rows: Mapping[str, Runs], images: str = "test") -> str:
    """One row per recipe, each built on the row above: parameters, accuracy over seeds, change to the row above.

    All rows are of the same seeds, those that every recipe is recorded for. Raises ValueError for fewer than two.
    `images` is what the table calls the images that were measured on.
    """
    shared = on_shared_seeds(rows)
    seeds = list(next(iter(shared.values())))
    in_a_row = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    corner = f"seeds {seeds[0]} to {seeds[-1]}" if in_a_row else f"seeds {' '.join(map(str, seeds))}"
    changes = {name: paired_difference(shared[name], shared[above]) for above, name in itertools.pairwise(shared)}
    return _table_over_seeds(shared, changes, corner, images, "change to\nthe row above")


def comparison_table(recipes: Mapping[str, Runs], against: str) -> str:
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
    return _table_over_seeds(shared, changes, "", "test", f"difference\nto {readable(against)}")


def _table_over_seeds(
    rows: Mapping[str, Runs], changes: Mapping[str, Difference], corner: str, images: str, title: str
) -> str:
    """One row per recipe: all columns are of the last five epochs, except `last`, the last epoch alone, and the gap.

    `title` is that of the changes.
    """
    titles = [corner, "parameters", f"{images}\n%", "worst", "last", f"train -\n{images}", "consistent", title]
    cells = []
    for name, records in rows.items():
        runs = over_seeds(records)
        row = [name, f"{runs.parameters:,}", f"{runs.mean:.2f}", f"{runs.worst:.2f}", f"{runs.last:.2f}"]
        consistent = f"{runs.consistent} of {runs.seeds}"
        cells.append([*row, f"{runs.gap:.2f}", consistent, str(changes.get(name, ""))])
    collapsed = not all(change.has_interval for change in changes.values())
    return table(titles, cells) + f"\n{COLLAPSED_NOTE}" * collapsed


def readable(recipe: str) -> str:
    """A recipe's name as a reader sees it: "no_gap" is "no GAP", "step3" is "step 3"."""
    return re.sub(r"\bgap\b", "GAP", re.sub(r"\bstep(?=\d)", "step ", recipe.replace("_", " ")))
