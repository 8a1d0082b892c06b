"""Tables as text and as Markdown, and the tables of recorded runs."""

import re
from collections.abc import Mapping, Sequence

import utils
from lab.evidence.contrasts import COLLAPSED, EQUIVALENT, MARGIN, Contrast, to_one, to_the_row_above
from lab.evidence.statistics import Runs, on_shared_seeds, over_seeds, share_at_least, standard_error

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
    """Which columns hold numbers: most of the filled cells begin with a digit, or a sign and a digit, and are no sentence.

    The first column names the rows, as "9 epochs" does: there, a number has no letters.
    """
    columns = zip(*rows) if rows else [()] * len(titles)
    found = []
    for place, column in enumerate(columns):
        filled = [cell for cell in column if cell]
        letters = 12 if place else 0  # "20 (at least 86 %)" has seven
        numbers = [cell for cell in filled if re.match(r"[+-]?\d", cell) and sum(map(str.isalpha, cell)) <= letters]
        found.append(2 * len(numbers) > len(filled))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Tables of runs
# ---------------------------------------------------------------------------------------------------------------------


def at_least_share(consistent: int, seeds: int) -> str:
    """What a count of seeds proves of all seeds, such as "at least 55 %" for 5 of 5. Raises as `share_at_least`."""
    return f"at least {100 * share_at_least(consistent, seeds):.0f} %"


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
    judged = [utils.verdict(run).consistent is not None for run in records.values()]
    consistent = f"{together.consistent} of {together.seeds}" if any(judged) else _YES_NO[None]
    rows.append(["all", "", f"{together.mean:.2f}", f"{together.worst:.2f}", f"{together.gap:.2f}", consistent])
    titles = ["seed", f"last five epochs, {images} %", "mean", "worst", f"train - {images}", "consistent"]
    return "\n".join([table(titles, rows), *_notes_on_seeds(records)])


def _notes_on_seeds(records: Runs) -> list[str]:
    """The lines below a table of seeds: what their means spread by, and how sure one of them is."""
    together, images = over_seeds(records), next(iter(records.values())).test_images
    proved = []
    if together.seeds > 1 and together.consistent:
        proved.append(
            f"{together.consistent} of {together.seeds} consistent:"
            f" so are {at_least_share(together.consistent, together.seeds)} of all seeds (one-sided 95 % bound)"
        )
    if together.collapsed:
        collapsed = f"{together.collapsed} of {together.seeds} seeds collapsed, wrong on more than half of the images"
        return [*proved, f"{collapsed}: mean and spread say little"]
    luck = f"one standard error of {images:,} images: {standard_error(together.mean, images):.2f} points"
    if together.seeds == 1:
        return [luck]
    return [*proved, f"the seeds' means spread by {together.spread:.2f} points (one standard deviation)", luck]


def ladder_table(rows: Mapping[str, Runs], images: str = "test", changes: Mapping[str, Contrast] | None = None) -> str:
    """One row per recipe, each built on the row above: parameters, accuracy over seeds, change to the row above.

    rows:    of the same seeds in the table: those that every recipe is recorded for
    images:  what the table calls the images that were measured on
    changes: of the rows, by name; without them, the changes are adjusted for those of this table

    Raises ValueError for fewer than two seeds in common.
    """
    shared = on_shared_seeds(rows)
    seeds = list(next(iter(shared.values())))
    in_a_row = len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1))
    corner = f"seeds {seeds[0]} to {seeds[-1]}" if in_a_row else f"seeds {' '.join(map(str, seeds))}"
    return _table_over_seeds(shared, changes or to_the_row_above(shared), corner, images, "change to\nthe row above")


def comparison_table(
    recipes: Mapping[str, Runs], against: str, changes: Mapping[str, Contrast] | None = None, images: str = "test"
) -> str:
    """Each recipe against one of them, from the greatest loss to the greatest gain; paired over the seeds they share.

    Recipes that share fewer than two seeds with it are left out, and so are its seeds that no other recipe has. `changes`
    are those of the recipes, by name; without them, they are adjusted for those of this table. `images` is what the table
    calls the images that were measured on. Raises ValueError for an unknown recipe `against`, and where there is none to
    compare.
    """
    own = to_one(recipes, against)
    compared = recipes[against].keys() & {seed for name in own for seed in recipes[name]}
    shared = {
        readable(name): {seed: run for seed, run in recipes[name].items() if seed in compared}
        for name in [*own, against]
    }
    shown = {readable(name): (changes or own)[name] for name in own}
    return _table_over_seeds(shared, shown, "", images, f"difference\nto {readable(against)}")


def _table_over_seeds(
    rows: Mapping[str, Runs], changes: Mapping[str, Contrast], corner: str, images: str, title: str
) -> str:
    """One row per recipe: all columns are of the last five epochs, except `last`, the last epoch alone, and the gap.

    `title` is that of the changes.
    """
    titles = [corner, "parameters", f"{images}\n%", "worst", "last", f"train -\n{images}", "consistent", title, "says"]
    cells = []
    for name, records in rows.items():
        runs = over_seeds(records)
        row = [name, f"{runs.parameters:,}", f"{runs.mean:.2f}", f"{runs.worst:.2f}", f"{runs.last:.2f}"]
        says = [str(changes[name].difference), changes[name].says] if name in changes else ["", ""]
        cells.append([*row, f"{runs.gap:.2f}", f"{runs.consistent} of {runs.seeds}", *says])
    return "\n".join([table(titles, cells), *_notes_on_shares(rows), *_notes_on_changes(changes)])


def _notes_on_shares(rows: Mapping[str, Runs]) -> list[str]:
    """The line below a table that says what each of its "k of n" proves."""
    together = [over_seeds(records) for records in rows.values()]
    counts = sorted({(one.consistent, one.seeds) for one in together if one.consistent}, reverse=True)
    proved = [f"{count} of {seeds}: {100 * share_at_least(count, seeds):.0f} %" for count, seeds in counts]
    return [f"consistent, of all seeds at least (one-sided 95 % bound): {', '.join(proved)}"] if proved else []


def _notes_on_changes(changes: Mapping[str, Contrast]) -> list[str]:
    """The lines below a table of changes: what its intervals cover, and what "equivalent" means."""
    among = max(change.among for change in changes.values())
    tested = {change.says for change in changes.values()}
    notes = []
    if among > 1:
        notes.append(f"95 % intervals, adjusted for {among} comparisons (Holm)")
    if EQUIVALENT in tested:
        notes.append(f"equivalent: the interval lies within {MARGIN} points of zero")
    if COLLAPSED in tested:
        notes.append(COLLAPSED_NOTE)
    return notes


def readable(recipe: str) -> str:
    """A recipe's name as a reader sees it: "no_gap" is "no GAP", "step3" is "step 3"."""
    return re.sub(r"\bgap\b", "GAP", re.sub(r"\bstep(?=\d)", "step ", recipe.replace("_", " ")))
