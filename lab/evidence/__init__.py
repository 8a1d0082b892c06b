"""What is measured over seeds: records, statistics, tables, figures."""

from lab.evidence.figures import show_comparison, show_seeds
from lab.evidence.records import load, load_study
from lab.evidence.statistics import over_seeds, paired_difference, place_among
from lab.evidence.tables import comparison_table, ladder_table, seeds_table

__all__ = [
    "comparison_table",
    "ladder_table",
    "load",
    "load_study",
    "over_seeds",
    "paired_difference",
    "place_among",
    "seeds_table",
    "show_comparison",
    "show_seeds",
]
