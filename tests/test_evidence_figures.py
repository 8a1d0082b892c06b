"""Figures of recorded runs: what they show, and that nothing is cut off without a mark."""

import io
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import some_digits
from histories import record, seeds
from matplotlib.axes import Axes

import utils
from lab.evidence import figures, statistics, tables
from lab.evidence.contrasts import Contrast, to_one, to_the_row_above
from lab.evidence.records import Tested
from lab.evidence.statistics import Difference
from utils import Digits, History


@pytest.fixture
def no_figure_left_open() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


pytestmark = pytest.mark.usefixtures("alone", "no_figure_left_open")


@pytest.fixture
def recorded() -> dict[int, History]:
    """Two seeds of one recipe."""
    return seeds([9_940] * 5, [9_960] * 5)


def marks(axes: Axes, marker: str) -> list[tuple[float, float]]:
    """Where single marks of a kind are drawn; those of the legend have no place."""
    lines = [line for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


# ---------------------------------------------------------------------------------------------------------------------
# One recipe
# ---------------------------------------------------------------------------------------------------------------------


def targets(axes: Axes) -> list[float]:
    return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def test_the_picture_of_the_seeds_shows_every_one_of_the_last_five_epochs(recorded):
    by_seed, together = figures.show_seeds(recorded).axes
    dots = [line for line in by_seed.lines if line.get_marker() == "."]
    assert [list(line.get_xdata()) for line in dots] == [[0] * 5, [1] * 5]
    assert [list(line.get_ydata()) for line in dots] == [[99.4] * 5, [99.6] * 5]
    (means,) = [line for line in by_seed.lines if line.get_marker() == "_"]
    assert list(means.get_ydata()) == pytest.approx([99.4, 99.6])
    assert targets(by_seed) == targets(together) == [99.4]
    bars = {round(bar.get_y() + bar.get_height() / 2, 2): bar.get_width() for bar in together.patches[:-1]}
    assert sum(bars.values()) == 10
    assert sorted(bars.values())[-2:] == [5, 5]
    assert by_seed.get_title() == "2 of 2 seeds have each of their last five epochs at 99.4 % or more"


def test_your_run_is_marked_beside_the_seeds_in_its_own_color(recorded):
    by_seed, _ = figures.show_seeds(recorded, yours=record([9_950] * 5)).axes
    assert [label.get_text() for label in by_seed.get_xticklabels()] == ["0", "1", "yours"]
    (mark,) = [line for line in by_seed.lines if line.get_marker() == "D"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (2, pytest.approx(99.5))
    assert mark.get_color() == utils.YOUR_COLOR


def test_a_run_on_the_sample_is_not_marked(sample, recorded):
    yours = record([950] * 5, dataset=sample[1].dataset, test_images=1_000)
    by_seed, _ = figures.show_seeds(recorded, yours=yours).axes
    assert [label.get_text() for label in by_seed.get_xticklabels()] == ["0", "1"]


def test_of_many_seeds_every_tenth_is_numbered(recorded):
    by_seed, _ = figures.show_seeds(dict.fromkeys(range(20, 60), recorded[0])).axes
    assert [label.get_text() for label in by_seed.get_xticklabels()] == ["20", "30", "40", "50"]


def test_epochs_are_counted_in_whole_numbers():
    _, together = figures.show_seeds({0: record([9_940, 9_950, 9_960, 9_970, 9_980])}).axes
    assert all(tick == round(tick) for tick in together.get_xticks())


def test_no_runs_make_no_picture():
    with pytest.raises(ValueError, match="no runs to show"):
        figures.show_seeds({})


# ---------------------------------------------------------------------------------------------------------------------
# Curves
# ---------------------------------------------------------------------------------------------------------------------

RISING = [9_500, 9_850, 9_860, 9_870, 9_880, 9_890, 9_900]  # ends at 99.0: the axis begins at 98.0


def test_curves_over_seeds_show_each_run_and_the_mean_of_each_group():
    better = [count + 20 for count in RISING]
    (axes,) = figures.show_curves_over_seeds({"one": seeds(RISING, better), "two": seeds(better)}).axes
    curves = [list(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 0.7]
    assert curves == [[count / 100 for count in counts] for counts in (RISING, better, better)]
    means = {line.get_label(): list(line.get_ydata()) for line in axes.lines if line.get_linewidth() == 2.4}
    assert list(means) == ["one (2 seeds)", "two (1 seed)"]
    assert means["one (2 seeds)"] == pytest.approx([(count + 10) / 100 for count in RISING])
    assert targets(axes) == [99.4]
    assert axes.get_title() == "Means over seeds: two ends 0.10 points above one"
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == "test accuracy, percent"


def test_what_lies_below_the_axis_is_marked_with_the_number_of_seeds():
    (axes,) = figures.show_curves_over_seeds({"one": seeds(RISING, RISING), "two": seeds(RISING, [9_890] * 7)}).axes
    assert axes.get_ylim()[0] == pytest.approx(97.9)
    triangles = marks(axes, "v")
    assert [round(x) for x, _ in triangles] == [1, 1] and triangles[0] < triangles[1]  # side by side
    assert [text for text in texts(axes) if text.isdigit()] == ["2", "1"]


def test_a_seed_that_collapsed_is_left_out_of_the_mean_and_marked_in_each_epoch():
    (axes,) = figures.show_curves_over_seeds({"one": seeds(RISING, [1_135] * 7)}).axes
    (mean,) = [line for line in axes.lines if line.get_linewidth() == 2.4]
    assert list(mean.get_ydata()) == [count / 100 for count in RISING]
    assert mean.get_label() == "one (2 seeds; mean without the 1 that collapsed)"
    assert axes.get_ylim()[0] == pytest.approx(98.0)
    assert [text for text in texts(axes) if text.isdigit()] == ["2"] + ["1"] * 6


def test_runs_of_other_lengths_are_drawn_to_their_ends():
    (axes,) = figures.show_curves_over_seeds({"long": seeds(RISING), "short": seeds(RISING[:6], RISING)}).axes
    lengths = [len(line.get_xdata()) for line in axes.lines if line.get_linewidth() == 2.4]
    assert lengths == [7, 6] and "the verdict looks at these five" not in texts(axes)


def test_curves_of_the_sample_have_no_target(sample):
    runs = seeds([900] * 6, dataset=sample[1].dataset, test_images=1_000)
    (axes,) = figures.show_curves_over_seeds({"one": runs}).axes
    assert targets(axes) == []
    assert axes.get_title() == "one: each seed, and the mean that ends at 90.00 %"


@pytest.mark.parametrize("groups", [{}, {"one": {}}])
def test_groups_without_runs_make_no_curves(groups):
    with pytest.raises(ValueError, match="no runs to show, expected at least one in each group"):
        figures.show_curves_over_seeds(groups)


# ---------------------------------------------------------------------------------------------------------------------
# Recipes in rows
# ---------------------------------------------------------------------------------------------------------------------


def test_the_ladder_has_a_dot_per_seed_and_the_change_of_each_row():
    rows = {
        "base": seeds([9_900] * 5, [9_910] * 5, [9_920] * 5) | {7: record([9_000] * 5, seed=7)},
        "more": seeds([9_945] * 5, [9_954] * 5, [9_966] * 5),
        "less": seeds([9_940] * 5, [9_951] * 5, [9_970] * 5),
    }
    (axes,) = figures.show_ladder(rows).axes
    assert labels(axes) == ["base", "more", "less"] and axes.yaxis_inverted()
    dots = [(99.0, 0), (99.1, 0), (99.2, 0), (99.45, 1), (99.54, 1), (99.66, 1), (99.4, 2), (99.51, 2), (99.7, 2)]
    assert marks(axes, "o") == [pytest.approx(dot) for dot in dots]  # seed 7 is not in all rows
    assert [y for _, y in marks(axes, "|")] == [0, 1, 2]
    more, less = to_the_row_above({name: {seed: rows[name][seed] for seed in range(3)} for name in rows}).values()
    written = {text.get_text(): text.get_color() for text in axes.texts}
    assert written[str(more.difference)] == figures.GAIN and written[str(less.difference)] == figures.UNSURE
    assert axes.get_title() == "Each row builds on the row above; more brings most, +0.45 points"
    assert not marks(axes, "<")


@pytest.mark.parametrize(
    ("counts", "end"),
    [
        ((9_901, 9_900), "; no change is distinguishable from zero"),
        ((9_880, 9_881), ""),
        ((9_950, 9_951), "; b brings most, +0.50 points"),
    ],
)
def test_the_title_of_the_ladder_says_what_brings_most(counts, end):
    rows = {"a": seeds([9_900] * 5, [9_901] * 5), "b": seeds(*[[count] * 5 for count in counts])}
    (axes,) = figures.show_ladder(rows, title="One step").axes
    assert axes.get_title() == f"One step{end}"


def test_a_seed_that_collapsed_has_an_arrow_in_the_ladder():
    rows = {
        "lost": seeds([9_900] * 5, [1_135] * 5, [980] * 5),
        "found": seeds(*[[9_900] * 5] * 3),
        "more": seeds(*[[9_910] * 5] * 3),
    }
    figure = figures.show_ladder(rows)
    (axes,) = figure.axes
    assert marks(axes, "<") == [(0, 0)]  # at the left edge of the first row
    assert "2 of 3 seeds at 9.80 to 11.35 %, mean 40.05 %" in texts(axes)
    assert len(marks(axes, "o")) == 7 and axes.get_xlim()[0] > 98
    assert [y for _, y in marks(axes, "|")] == [1, 2]  # the first mean is off the axis
    assert str(statistics.paired_difference(rows["found"], rows["lost"])) in texts(axes)
    assert axes.get_title().endswith("; of those with an interval, more brings most, +0.10 points")


def test_an_equivalent_row_is_blue_and_says_so():
    rows = {"a": seeds([9_900] * 5, [9_910] * 5, [9_920] * 5), "b": seeds([9_901] * 5, [9_909] * 5, [9_920] * 5)}
    (axes,) = figures.show_ladder(rows).axes
    assert {text.get_text(): text.get_color() for text in axes.texts}[
        "+0.00 (-0.02 to +0.02), equivalent"
    ] == figures.SAME


def test_the_changes_of_a_whole_study_can_be_given():
    """The notebooks show a part of the ladder, with the intervals of all of it."""
    rows = {"a": seeds([9_900] * 5, [9_910] * 5, [9_920] * 5), "b": seeds([9_921] * 5, [9_930] * 5, [9_939] * 5)}
    given = {"b": Contrast(Difference(0.2, -0.1, 0.5), 0.3, 12)}
    (axes,) = figures.show_ladder(rows, changes=given).axes
    assert "+0.20 (-0.10 to +0.50)" in texts(axes)
    (axes,) = figures.show_comparison(rows, "a", given).axes
    assert axes.get_title().startswith("0 of 1 differ")
    table = tables.comparison_table(rows, "a", given)
    assert "+0.20 (-0.10 to +0.50)  cannot tell" in table and "adjusted for 12 comparisons (Holm)" in table
    assert "+0.20 (-0.10 to +0.50)  cannot tell" in tables.ladder_table(rows, changes=given)


def test_every_text_of_the_ladder_lies_within_the_figure():
    rows = {"a row with a long name": seeds([9_900] * 5, [1_135] * 5), "found": seeds([9_900] * 5, [9_910] * 5)}
    figure = figures.show_ladder(rows)
    figure.savefig(io.BytesIO())  # as a notebook does; the layout settles
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1, text.get_text()


def test_the_ladder_needs_two_seeds_that_all_rows_have():
    with pytest.raises(ValueError, match="1 seeds are recorded for all of one, two, expected at least 2"):
        figures.show_ladder({"one": seeds([9_900] * 5, [9_900] * 5), "two": seeds([9_900] * 5)})


def test_the_picture_of_a_comparison_has_an_interval_per_recipe_and_an_arrow_for_one_that_is_far_off():
    recipes = {
        "full": seeds([9_900] * 5, [9_910] * 5, [9_920] * 5),
        "more_of_it": seeds([9_940] * 5, [9_950] * 5, [9_960] * 5),
        "no_gap": seeds([9_890] * 5, [9_890] * 5, [9_890] * 5),
        "lost": seeds([1_135] * 5, [1_135] * 5, [1_135] * 5),
    }
    (axes,) = figures.show_comparison(recipes, "full").axes
    assert labels(axes) == ["lost", "no GAP", "more of it"]
    assert axes.yaxis_inverted()  # the first on top, as in the table
    points = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "o"}
    assert {y: pytest.approx(point.get_xdata()[0]) for y, point in points.items()} == {1: -0.2, 2: 0.4}
    assert [point.get_color() for point in points.values()] == [figures.UNSURE, figures.GAIN]
    intervals = [
        line.get_xdata() for line in axes.lines if line.get_linestyle() == "-" and len(set(line.get_ydata())) == 1
    ]
    for drawn, recipe in zip(intervals, ("no_gap", "more_of_it")):
        assert tuple(drawn) == pytest.approx(to_one(recipes, "full")[recipe].difference[1:])
    (arrow,) = [line for line in axes.lines if line.get_marker() == "<"]
    assert arrow.get_ydata()[0] == 0 and axes.get_xlim()[0] == arrow.get_xdata()[0] > -1
    assert texts(axes) == ["-87.75 (collapsed)"]
    assert axes.get_title().startswith("1 of 2 differ (95 % intervals, adjusted;")


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes
# ---------------------------------------------------------------------------------------------------------------------


def wrong(digits: Digits, *indices: int) -> Tested:
    """What a run gives that is wrong on these images, one digit too high."""
    labels = digits.labels.tolist()
    return Tested(len(digits), 0.02, [[index, labels[index], (labels[index] + 1) % 10] for index in indices])


def test_mistakes_that_a_run_fixes_and_those_that_it_adds_are_shown_in_two_rows():
    digits = some_digits(40)
    figure = figures.show_fixed_and_added(wrong(digits, 3, 5, 31), wrong(digits, 5, 7), digits, ("one", "two"), count=4)
    first, second = figure.subfigs
    assert figure.get_suptitle() == "3 mistakes become 2: 2 fixed, 1 added"
    assert first.get_suptitle() == "2 mistakes of one that two gets right"
    assert second.get_suptitle() == "1 mistakes that only two makes"
    shown = [[axes for axes in part.axes if axes.images] for part in (first, second)]
    assert [[axes.get_title() for axes in row] for row in shown] == [
        ["3, said 4\nimage 3", "1, said 2\nimage 31"],
        ["7, said 8\nimage 7"],
    ]
    for axes, index in zip([*shown[0], *shown[1]], (3, 31, 7)):
        assert np.array_equal(axes.images[0].get_array(), digits.images[index])


def test_only_the_first_mistakes_are_shown_where_there_are_many():
    digits = some_digits(40)
    figure = figures.show_fixed_and_added(wrong(digits, *range(9)), wrong(digits), digits, count=4)
    first, second = figure.subfigs
    assert first.get_suptitle() == "9 mistakes of the run before that the run after gets right; the first 4"
    assert len([axes for axes in first.axes if axes.images]) == 4
    assert not [axes for axes in second.axes if axes.images]


@pytest.mark.parametrize(
    "change",
    [
        lambda digits: Digits(digits.images[:30], digits.labels[:30], "MNIST"),  # indices lie beyond
        lambda digits: Digits(digits.images, digits.labels, utils.SAMPLE),
        lambda digits: Digits(digits.images, torch.zeros_like(digits.labels), "MNIST"),  # other images
    ],
)
def test_mistakes_on_other_images_make_a_sentence_in_place_of_a_picture(change):
    digits = some_digits(40)
    other = change(digits)
    said = figures.show_fixed_and_added(wrong(digits, 3, 35), wrong(digits, 5), other)
    here = f"{len(other)} images ({other.dataset})"
    assert said == f"No picture: the recorded mistakes are of all 40 test images of MNIST, these are {here}."
