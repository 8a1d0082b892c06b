"""Statistics over seeds, and the tables of recorded runs."""

import math
import re

import pytest
from histories import record, seeds

from lab.evidence import records, statistics, tables

pytestmark = pytest.mark.usefixtures("alone")

# ---------------------------------------------------------------------------------------------------------------------
# Any table
# ---------------------------------------------------------------------------------------------------------------------

TITLES = ("system", "accuracy,\npercent", "change", "note")
ROWS = [["a", "99.5", "+0.1", "as | is"], ["longer", "9.25", "", "12 of 20"], ["c", "not run", "-10.0", ""]]


def test_a_table_aligns_numbers_to_the_right_and_words_to_the_left():
    assert tables.table(TITLES, ROWS).splitlines() == [
        "        accuracy,",
        "system    percent  change  note",
        "a            99.5    +0.1  as | is",
        "longer       9.25          12 of 20",
        "c         not run   -10.0",
    ]


def test_a_table_in_markdown_has_titles_on_one_line_and_escapes_what_ends_a_cell():
    assert tables.markdown(TITLES, ROWS).splitlines() == [
        "| system | accuracy, percent | change | note |",
        "| --- | ---: | ---: | --- |",
        "| a | 99.5 | +0.1 | as \\| is |",
        "| longer | 9.25 |  | 12 of 20 |",
        "| c | not run | -10.0 |  |",
    ]


def test_names_and_sentences_that_begin_with_a_digit_are_words():
    rows = [["9 epochs", "20 (at least 86 %)", "20 of 20 consistent"], ["4534_parameters", "3", "no"]]
    assert tables.markdown(("", "consistent", "asked"), rows).splitlines()[1] == "| --- | ---: | --- |"
    seeds = [["1", "99.50"], ["2", ""], ["all", "9.4"]]
    assert tables.markdown(("seed", "%"), seeds).splitlines()[1] == "| ---: | ---: |"


def test_a_table_without_rows_has_its_titles():
    assert tables.table(("one", "two"), []) == "one  two"
    assert tables.markdown(("one", "two"), []) == "| one | two |\n| --- | --- |"


@pytest.mark.parametrize("form", [tables.table, tables.markdown])
def test_a_row_that_does_not_fit_the_titles_is_refused(form):
    with pytest.raises(ValueError, match="a row has 1 cells, expected 2, one for each title"):
        form(("one", "two"), [["1", "2"], ["1"]])


@pytest.mark.parametrize(
    ("name", "shown"),
    [("no_gap", "no GAP"), ("step3", "step 3"), ("step 3", "step 3"), ("a_gapless_stepper", "a gapless stepper")],
)
def test_names_of_recipes_are_readable(name, shown):
    assert tables.readable(name) == shown


# ---------------------------------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------------------------------


def test_runs_over_seeds_are_summed_up_as_by_hand():
    together = statistics.over_seeds(seeds([9_940, 9_940, 9_940, 9_940, 9_950], [9_939, 9_945, 9_945, 9_945, 9_946]))
    # means 99.42 and 99.44; the ends are 99.50 and 99.46, the training images at 99.70
    assert together == pytest.approx((7_750, 2, 1, 99.43, 0.02 / math.sqrt(2), 99.39, 99.48, 0.22, 0))
    assert statistics.over_seeds(seeds([9_940] * 5)).spread == 0


def test_a_paired_difference_is_the_one_worked_out_by_hand():
    before = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    after = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    difference = statistics.paired_difference(after, before)
    # differences 0.1, 0.2, 0.3 points: mean 0.2, deviation 0.1; Student's t for 2 degrees of freedom is 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert difference == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)
    assert str(difference) == "+0.20 (-0.05 to +0.45)"
    assert difference.has_interval and difference.sign == 0


@pytest.mark.parametrize(
    ("low", "high", "sign"), [(-0.3, -0.1, -1), (-0.3, 0.1, 0), (0.1, 0.3, 1), (math.nan, math.nan, -1)]
)
def test_a_difference_has_a_sign_where_its_interval_excludes_zero(low, high, sign):
    assert statistics.Difference(-0.1, low, high).sign == sign


def test_only_seeds_that_both_recipes_have_are_paired():
    before = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    after = seeds([9_910] * 5, [9_930] * 5) | {7: record([0] * 5, seed=7)}
    assert statistics.paired_difference(after, before).mean == pytest.approx(0.15)
    assert statistics.paired_difference(after, before).has_interval  # the seed that collapsed is in no pair


@pytest.mark.parametrize("common", [0, 1])
def test_fewer_than_two_seeds_in_common_are_no_pairs(common):
    before, after = seeds(*[[9_900] * 5] * common), seeds([9_900] * 5, [9_910] * 5)
    with pytest.raises(ValueError, match=f"{common} seeds in common, expected at least 2"):
        statistics.paired_difference(after, before)


@pytest.mark.parametrize(
    ("last", "collapsed"),
    [([1_135] * 5, True), ([4_999] * 5, True), ([5_000] * 5, False), ([1_135] + [9_900] * 4, False)],
)
def test_a_run_collapsed_where_more_than_half_of_its_last_answers_are_wrong(last, collapsed):
    assert statistics.has_collapsed(record(last)) is collapsed


@pytest.mark.parametrize("which", ["after", "before", "all"])
def test_a_recipe_with_a_seed_that_collapsed_has_a_difference_without_an_interval(which):
    fine, one_lost = seeds([9_900] * 5, [9_910] * 5), seeds([9_900] * 5, [1_135] * 5)
    all_lost = seeds([1_135] * 5, [1_135] * 5)
    after, before = {"after": (one_lost, fine), "before": (fine, one_lost), "all": (all_lost, fine)}[which]
    difference = statistics.paired_difference(after, before)
    mean = {"after": -43.875, "before": 43.875, "all": -87.7}[which]
    assert difference.mean == pytest.approx(mean)
    assert math.isnan(difference.low) and math.isnan(difference.high)
    assert str(difference) == f"{mean:+.2f} (collapsed)"


def test_recorded_runs_learned_or_did_not_and_nothing_lies_between():
    """The rule that tells them apart is far from every recorded run that was trained at all."""
    trained = [one.history for one in records.read_all() if max(one.history.learning_rate) > 0]
    means = [run.mean_last_five for run in trained]
    assert [mean for mean in means if 12 < mean < 85] == []  # clothes are harder than digits
    assert sum(mean < statistics.COLLAPSED_BELOW for mean in means) == 12


# ---------------------------------------------------------------------------------------------------------------------
# Tables of runs
# ---------------------------------------------------------------------------------------------------------------------


def test_the_table_of_seeds_has_one_row_per_seed_and_one_for_all():
    table = tables.seeds_table(seeds([9_940, 9_941, 9_942, 9_943, 9_944], [9_939, 9_945, 9_945, 9_945, 9_946]))
    _, first, second, together, *_ = [line.split() for line in table.splitlines()]
    assert first == ["0", "99.40", "99.41", "99.42", "99.43", "99.44", "99.42", "99.40", "0.26", "yes"]
    assert second == ["1", "99.39", "99.45", "99.45", "99.45", "99.46", "99.44", "99.39", "0.24", "no"]
    assert together == ["all", "99.43", "99.39", "0.25", "1", "of", "2"]
    # means 99.42 and 99.44: deviation 0.02 / sqrt(2); sqrt(99.43 * 0.57 / 10,000)
    assert table.splitlines()[-2:] == [
        "the seeds' means spread by 0.01 points (one standard deviation)",
        "one standard error of 10,000 images: 0.08 points",
    ]


def test_one_seed_has_no_spread():
    assert "spread" not in tables.seeds_table(seeds([9_940] * 5))


def test_the_table_of_seeds_says_how_many_collapsed():
    assert "collapsed" not in tables.seeds_table(seeds([9_940] * 5))
    table = tables.seeds_table(seeds([9_940] * 5, [1_135] * 5))
    assert table.endswith("\n1 of 2 seeds collapsed, wrong on more than half of the images: mean and spread say little")


def test_the_tables_name_the_images_that_were_measured_on():
    runs = seeds([9_940] * 5, [9_939] * 5)
    assert re.search(r"epochs, held-out % .* train - held-out", tables.seeds_table(runs, "held-out"))
    first, second, *_ = tables.ladder_table({"one": runs, "two": runs}, "held-out").splitlines()
    assert first.split() == ["held-out", "train", "-", "change", "to"]
    assert second.split()[3:9] == ["parameters", "%", "worst", "last", "held-out", "consistent"]


def test_the_ladder_has_one_row_per_recipe_and_its_change_to_the_one_above():
    skeleton = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5, parameters=6_754)
    capacity = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    lines = tables.ladder_table({"skeleton": skeleton, "capacity": capacity}).splitlines()
    proved = "consistent, of all seeds at least (one-sided 95 % bound): 1 of 3: 2 %"
    assert lines[4:] == [proved]  # one comparison needs no adjustment, and no note
    assert lines[1].startswith("seeds 0 1 2  ")
    assert lines[2].split() == ["skeleton", "6,754", "99.10", "99.00", "99.10", "0.60", "0", "of", "3"]
    change = ["+0.20", "(-0.05", "to", "+0.45)"]
    assert lines[3].split() == [
        "capacity",
        "7,750",
        "99.30",
        "99.10",
        "99.30",
        "0.40",
        "1",
        "of",
        "3",
        *change,
        "cannot",
        "tell",
    ]


def test_recipes_are_compared_with_one_of_them_from_loss_to_gain():
    full = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5, [9_990] * 5)  # the last has no counterpart
    recipes = {
        "full": full,
        "more_of_it": seeds([9_940] * 5, [9_950] * 5),
        "no_such": seeds([9_890] * 5, [9_890] * 5, [9_890] * 5),
        "lost": seeds([1_135] * 5, [1_135] * 5, [1_135] * 5),
        "once": seeds([9_990] * 5),
    }
    *lines, proved, adjusted, note = tables.comparison_table(recipes, "full").splitlines()
    rows = [re.split(r" {2,}", line) for line in lines[2:]]
    # 0.1, 0.2, 0.3 points lost; the one seed of "once" makes no pair of differences
    assert rows == [
        ["lost", "7,750", "11.35", "11.35", "11.35", "88.35", "0 of 3", "-87.75 (collapsed)", "collapsed"],
        ["no such", "7,750", "98.90", "98.90", "98.90", "0.80", "0 of 3", "-0.20 (-0.45 to +0.05)", "cannot tell"],
        ["more of it", "7,750", "99.45", "99.40", "99.45", "0.25", "2 of 2", "+0.40 (+0.40 to +0.40)", "different"],
        ["full", "7,750", "99.10", "99.00", "99.10", "0.60", "0 of 3"],
    ]
    assert proved == "consistent, of all seeds at least (one-sided 95 % bound): 2 of 2: 22 %"
    assert adjusted == "95 % intervals, adjusted for 2 comparisons (Holm)" and note == tables.COLLAPSED_NOTE


def test_no_note_is_needed_where_every_run_learned():
    recipes = {"full": seeds([9_900] * 5, [9_910] * 5), "other": seeds([9_910] * 5, [9_920] * 5)}
    assert tables.COLLAPSED_NOTE not in tables.comparison_table(recipes, "full")


def test_a_recipe_that_is_not_there_cannot_be_compared_with():
    with pytest.raises(ValueError, match="no recipe 'full' to compare with, expected one of other"):
        tables.comparison_table({"other": seeds([9_900] * 5)}, "full")


def test_one_recipe_alone_makes_no_comparison():
    with pytest.raises(ValueError, match="no recipe that shares two seeds with 'full'"):
        tables.comparison_table({"full": seeds([9_900] * 5, [9_910] * 5), "other": seeds([9_900] * 5)}, "full")


@pytest.mark.parametrize(
    ("shared", "title"),
    [([0, 1, 2], "seeds 0 1 2 "), ([2, 3, 4, 5], "seeds 2 to 5 "), ([0, 1, 2, 4], "seeds 0 1 2 4 ")],
)
def test_the_ladder_names_the_seeds_that_all_rows_have(shared, title):
    runs = {seed: record([9_900] * 5, seed=seed) for seed in shared}
    ladder = tables.ladder_table({"one": runs | {99: record([9_900] * 5)}, "two": runs})
    assert ladder.splitlines()[1].startswith(title)


def test_the_ladder_needs_two_seeds_that_all_rows_have():
    with pytest.raises(ValueError, match="1 seeds are recorded for all of one, two, expected at least 2"):
        tables.ladder_table({"one": seeds([9_900] * 5, [9_900] * 5), "two": seeds([9_900] * 5)})


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([9_950] * 5, "your run: 99.50; 2 recorded seeds: 99.40 to 99.60; inside"),
        ([9_940] * 5, "your run: 99.40; 2 recorded seeds: 99.40 to 99.60; inside"),
        ([9_930] * 5, "your run: 99.30; 2 recorded seeds: 99.40 to 99.60; below, as one run in 2 is by luck alone"),
        ([9_999] * 5, "your run: 99.99; 2 recorded seeds: 99.40 to 99.60; above, as one run in 2 is by luck alone"),
        ([9_950] * 2, "your run cannot be placed among the 2 recorded seeds: it has 2 epochs, they have 5 epochs"),
    ],
)
def test_a_run_is_placed_among_the_recorded_seeds(counts, said):
    assert statistics.place_among(seeds([9_940] * 5, [9_960] * 5), record(counts)) == said


def test_a_run_on_the_sample_is_not_placed(sample):
    yours = record([950] * 5, dataset=sample[1].dataset, test_images=1_000)
    said = statistics.place_among(seeds([9_940] * 5, [9_960] * 5), yours)
    assert "it has 1,000 test images (5,000-image sample of MNIST), they have 10,000 test images (MNIST)" in said
