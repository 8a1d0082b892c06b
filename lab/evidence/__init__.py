"""What is measured over seeds: records, statistics, tables, figures."""

from lab.evidence.contrasts import changes, last_epoch, to_one, to_the_row_above
from lab.evidence.experiment import guess
from lab.evidence.figures import (
    show_comparison,
    show_curves_over_seeds,
    show_fixed_and_added,
    show_ladder,
    show_seeds,
)
from lab.evidence.records import load, load_mistakes, load_study, recipes
from lab.evidence.statistics import over_seeds, paired_difference, place_among, share_at_least
from lab.evidence.tables import comparison_table, ladder_table, seeds_table

__all__ = [
    "changes",
    "comparison_table",
    "guess",
    "ladder_table",
    "last_epoch",
    "load",
    "load_mistakes",
    "load_study",
    "over_seeds",
    "paired_difference",
    "place_among",
    "recipes",
    "seeds_table",
    "share_at_least",
    "show_comparison",
    "show_curves_over_seeds",
    "show_fixed_and_added",
    "show_ladder",
    "show_seeds",
    "to_one",
    "to_the_row_above",
]
