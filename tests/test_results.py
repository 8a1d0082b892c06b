"""Verdict, records over seeds, and pictures."""

import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import CPU, Run, constant, leftovers, linear, some_digits
from torch import nn

import utils
from lab.evidence import figures, records, statistics, tables
from utils import Digits, History, make_transform

pytestmark = pytest.mark.usefixtures("alone")

# ---------------------------------------------------------------------------------------------------------------------
# History and verdict
# ---------------------------------------------------------------------------------------------------------------------


def record(test_correct: list[int], *, dataset: str = "MNIST", test_images: int = 10_000, **more) -> History:
    """The history of a run with these numbers of correct test images."""
    epochs = len(test_correct)
    return History(
        **{
            "dataset": dataset,
            "train_images": 60_000,
            "test_images": test_images,
            "parameters": 7_750,
            "seed": 0,
            "environment": utils.environment(CPU),
            "learning_rate": [0.1] * epochs,
            "train_loss": [0.05] * epochs,
            "train_correct": [59_000] * epochs,
            "test_loss": [0.02] * epochs,
            "test_correct": test_correct,
            "seconds": [1.5] * epochs,
            "final_train_correct": 59_820,
        }
        | more
    )


GOOD, SHORT = 9_940, 9_939


@pytest.mark.parametrize(
    "test_correct, consistent, sentence",
    [
        ([GOOD] * 5, True, "yes: each of the last 5 epochs is at 99.40 % or more"),
        ([SHORT] * 10 + [GOOD] * 5, True, "yes"),
        *[
            ([GOOD] * 10 + [SHORT if i == j else 9_990 for i in range(5)], False, "no: 1 of the last 5")
            for j in range(5)
        ],
        ([GOOD] * 10 + [SHORT] * 5, False, "no: 5 of the last 5"),
        ([GOOD] * 15, True, "yes"),
        ([GOOD] * 16, False, "no: 16 epochs, at most 15 are allowed"),
        ([GOOD] * 4, None, "not judged: 4 epochs, expected at least 5"),
        ([], None, "not judged: 0 epochs"),
    ],
)
def test_consistent_means_each_of_the_last_five_of_at_most_fifteen_epochs(test_correct, consistent, sentence):
    verdict = utils.verdict(record(test_correct))
    assert verdict.consistent is consistent
    assert str(verdict).startswith(sentence)


def test_the_sample_is_not_judged(sample):
    verdict = utils.verdict(record([1_000] * 5, dataset=sample[0].dataset, test_images=1_000))
    assert verdict == (None, "not judged: measured on a 5,000-image sample of MNIST, not on all of MNIST")


@pytest.mark.parametrize("test_images, enough", [(1_000, 994), (500, 497), (999, 994), (60_000, 59_640)])
def test_the_limit_is_exact_for_other_numbers_of_test_images(test_images, enough):
    assert utils.verdict(record([enough] * 5, test_images=test_images)).consistent is True
    assert utils.verdict(record([enough - 1] * 5, test_images=test_images)).consistent is False


def test_percentages_are_counts_divided_once():
    history = record([9_930, 9_941, 9_942, 9_943, 9_944, 9_945], train_correct=[30_000] * 6)
    assert history.test_accuracy == [99.30, 99.41, 99.42, 99.43, 99.44, 99.45]
    assert history.last_five == [99.41, 99.42, 99.43, 99.44, 99.45]
    assert history.mean_last_five == 99.43
    assert history.best == 99.45
    assert history.train_accuracy == [50.0] * 6
    assert history.final_train_accuracy == 99.7
    assert history.gap == pytest.approx(0.25)


def test_a_record_comes_back_from_its_file_as_it_was(sample, tmp_path):
    history = Run(sample, make=linear).fit(2)
    history.save(tmp_path / "new folder" / "run.json")
    assert History.load(tmp_path / "new folder" / "run.json") == history
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("content", ['{"dataset": "MN', "", "[1]", "{}", '{"other": 1}', "3", "\x00"])
def test_a_torn_or_foreign_record_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path / 'run.json'} is not a record of a run"):
        History.load(tmp_path / "run.json")


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "run.json"
    record([9_940]).save(path)
    with pytest.raises(TypeError):
        record([torch.tensor(9_941)]).save(path)
    assert History.load(path).test_correct == [9_940]
    assert leftovers(tmp_path) == []


# ---------------------------------------------------------------------------------------------------------------------
# Runs over seeds
# ---------------------------------------------------------------------------------------------------------------------


def seeds(*last_fives: list[int], **more) -> dict[int, History]:
    return {seed: record(last_five, seed=seed, **more) for seed, last_five in enumerate(last_fives)}


def keep(recipes: dict[str, dict[int, History]], folder: Path) -> None:
    """Write runs as the lab does: records, and the summary that says which are whose."""
    for recipe, runs in recipes.items():
        for seed, run in runs.items():
            utils.write_json(folder / "records" / f"hash of {recipe}.seed{seed}.json", {"history": vars(run)})
    hashes = {recipe: {"hash": f"hash of {recipe}"} for recipe in recipes}
    utils.write_json(folder / "summary.json", {"study": hashes})


def test_runs_over_seeds_are_summed_up_as_by_hand():
    together = statistics.over_seeds(seeds([9_940, 9_940, 9_940, 9_940, 9_950], [9_939, 9_945, 9_945, 9_945, 9_946]))
    # means 99.42 and 99.44; the ends are 99.50 and 99.46, the training images at 99.70
    assert together == pytest.approx((7_750, 2, 1, 99.43, 0.02 / math.sqrt(2), 99.39, 99.48, 0.22))
    assert statistics.over_seeds(seeds([9_940] * 5)).spread == 0


def test_the_table_of_seeds_has_a_row_a_seed_and_one_for_all():
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


def test_the_tables_name_the_images_that_were_measured_on():
    runs = seeds([9_940] * 5, [9_939] * 5)
    for table in (tables.seeds_table(runs, "held-out"), tables.ladder_table({"one": runs, "two": runs}, "held-out")):
        title, *rows = [line for line in table.splitlines() if " points" not in line]
        assert "held-out %" in title and "train - held-out" in title and "test" not in table
        end = title.index("train - held-out") + len("train - held-out")
        for row in rows:  # the gap ends where its title ends
            assert re.search(r" \d\.\d\d$", row[:end]) and row[end : end + 1] in ("", " ")


def test_a_paired_difference_is_the_one_worked_out_by_hand():
    before = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    after = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    difference = statistics.paired_difference(after, before)
    # differences 0.1, 0.2, 0.3 points: mean 0.2, deviation 0.1; Student's t for 2 degrees of freedom is 4.302653
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert difference == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)
    assert str(difference) == "+0.20 (-0.05 to +0.45)"


@pytest.mark.parametrize("content", ['{"recipe"', "{}", "[]", '{"history": {}}'])
def test_a_torn_record_of_a_study_is_named(tmp_path, content):
    keep({"first": seeds([9_900] * 5)}, tmp_path)
    (tmp_path / "records" / "hash of first.seed0.json").write_text(content)
    with pytest.raises(ValueError, match=r"hash of first\.seed0\.json is not a record of a study"):
        records.load("study", "first", tmp_path)


@pytest.mark.parametrize("content", ['{"study"', "[]", '{"study": []}'])
def test_a_torn_summary_is_named(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=r"summary\.json is torn"):
        records.load("study", "first", tmp_path)


def test_only_seeds_that_both_recipes_have_are_paired():
    before = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5)
    after = seeds([9_910] * 5, [9_930] * 5) | {7: record([0] * 5, seed=7)}
    assert statistics.paired_difference(after, before).mean == pytest.approx(0.15)


@pytest.mark.parametrize("common", [0, 1])
def test_fewer_than_two_seeds_in_common_are_no_pairs(common):
    before, after = seeds(*[[9_900] * 5] * common), seeds([9_900] * 5, [9_910] * 5)
    with pytest.raises(ValueError, match=f"{common} seeds in common, expected at least 2"):
        statistics.paired_difference(after, before)


def test_the_ladder_has_a_row_a_recipe_and_its_change_to_the_one_above():
    skeleton = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5, parameters=6_754)
    capacity = seeds([9_910] * 5, [9_930] * 5, [9_950] * 5)
    lines = tables.ladder_table({"skeleton": skeleton, "capacity": capacity}).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("seeds 0 1 2 ")
    assert lines[1].split() == ["skeleton", "6,754", "99.10", "99.00", "99.10", "0.60", "0", "of", "3"]
    change = ["+0.20", "(-0.05", "to", "+0.45)"]
    assert lines[2].split() == ["capacity", "7,750", "99.30", "99.10", "99.30", "0.40", "1", "of", "3", *change]


def test_recipes_are_compared_with_one_of_them_from_loss_to_gain():
    full = seeds([9_900] * 5, [9_910] * 5, [9_920] * 5, [9_990] * 5)  # the last has no counterpart
    recipes = {
        "full": full,
        "more_of_it": seeds([9_940] * 5, [9_950] * 5),
        "no_such": seeds([9_890] * 5, [9_890] * 5, [9_890] * 5),
        "once": seeds([9_990] * 5),
    }
    rows = [re.split(r" {2,}", line) for line in tables.comparison_table(recipes, "full").splitlines()[1:]]
    # 0.1, 0.2, 0.3 points lost; the one seed of "once" makes no pair of differences
    assert rows == [
        ["no such", "7,750", "98.90", "98.90", "98.90", "0.80", "0 of 3", "-0.20 (-0.45 to +0.05)"],
        ["more of it", "7,750", "99.45", "99.40", "99.45", "0.25", "2 of 2", "+0.40 (+0.40 to +0.40)"],
        ["full", "7,750", "99.10", "99.00", "99.10", "0.60", "0 of 3"],
    ]


def test_a_recipe_that_is_not_there_cannot_be_compared_with():
    with pytest.raises(ValueError, match="no recipe 'full' to compare with, expected one of other"):
        tables.comparison_table({"other": seeds([9_900] * 5)}, "full")


def test_one_recipe_alone_makes_no_comparison():
    with pytest.raises(ValueError, match="no recipe with two seeds that 'full' has too"):
        tables.comparison_table({"full": seeds([9_900] * 5, [9_910] * 5), "other": seeds([9_900] * 5)}, "full")


@pytest.mark.parametrize(
    ("shared", "title"),
    [([0, 1, 2], "seeds 0 1 2 "), ([2, 3, 4, 5], "seeds 2 to 5 "), ([0, 1, 2, 4], "seeds 0 1 2 4 ")],
)
def test_the_ladder_names_the_seeds_that_all_rows_have(shared, title):
    runs = {seed: record([9_900] * 5, seed=seed) for seed in shared}
    assert tables.ladder_table({"one": runs | {99: record([9_900] * 5)}, "two": runs}).startswith(title)


def test_records_are_loaded_by_seed(tmp_path):
    step3 = {seed: record([9_940 + seed] * 5, seed=seed) for seed in (10, 2, 0)}
    keep({"step3": step3, "step33": seeds([9_900] * 5)}, tmp_path)
    loaded = records.load("study", "step3", tmp_path)
    assert list(loaded) == [0, 2, 10]
    assert loaded[2] == step3[2]


def test_held_out_images_stand_in_a_history_as_test_images_do(tmp_path):
    run = record([9_940] * 5)
    columns = {name.replace("test", "held_out"): column for name, column in vars(run).items()}
    utils.write_json(tmp_path / "record.json", {"history": columns})
    assert records.read_record(tmp_path / "record.json") == run


@pytest.mark.parametrize("missing", ["summary", "study", "recipe", "records"])
def test_missing_records_are_named_with_the_way_to_get_them(tmp_path, missing):
    keep({"step3": {} if missing == "records" else seeds([9_900] * 5)}, tmp_path)
    if missing == "summary":
        (tmp_path / "summary.json").unlink()
    wanted = {"study": ("ladder", "step3"), "recipe": ("study", "step4")}.get(missing, ("study", "step3"))
    with pytest.raises(
        FileNotFoundError, match=f"no recorded run of {'/'.join(wanted)}.*python -m lab study {wanted[0]}"
    ):
        records.load(*wanted, tmp_path)


@pytest.fixture
def recorded(tmp_path: Path) -> dict[int, History]:
    """Two recorded seeds of one recipe."""
    keep({"first": seeds([9_900] * 5, [9_910] * 5), "second": seeds([9_940] * 5, [9_960] * 5)}, tmp_path)
    return records.load("study", "second", tmp_path)


def test_a_study_is_loaded_with_all_of_its_recipes(tmp_path, recorded):
    assert records.load_study("study", tmp_path) == {
        "first": records.load("study", "first", tmp_path),
        "second": recorded,
    }


def test_a_study_without_records_is_named_with_the_way_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recorded run of another/.*python -m lab study another"):
        records.load_study("another", tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------


def images_of(figure: plt.Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles_of(figure: plt.Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


@pytest.fixture
def no_figure_left_open() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


pictured = pytest.mark.usefixtures("no_figure_left_open")


@pictured
@pytest.mark.parametrize("count, shown", [(20, 20), (3, 3), (100, 25)])
def test_samples_are_the_first_images_with_their_labels(count, shown):
    digits = some_digits(25)
    figure = utils.show_samples(digits, count)
    assert titles_of(figure) == [str(i % 10) for i in range(shown)]
    assert all(np.array_equal(image, digits.images[i]) for i, image in enumerate(images_of(figure)))
    assert figure.get_suptitle() == "Training images"


@pictured
def test_an_augmented_image_is_different_each_time():
    digits = some_digits(5)
    figure = utils.show_augmented(digits, make_transform({"rotation": 10}), index=3, times=12)
    images = images_of(figure)
    assert len(images) == 12 and len({image.tobytes() for image in images}) == 12
    assert figure.get_suptitle() == "One 3, 12 times"


@pictured
def test_an_image_that_is_not_augmented_is_the_same_each_time():
    digits = some_digits(5)
    images = images_of(utils.show_augmented(digits, make_transform(), index=2))
    assert len(images) == 20 and len({image.tobytes() for image in images}) == 1
    np.testing.assert_allclose(images[0], (digits.images[2] / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)


def brightness_says_zero() -> nn.Sequential:
    """Always says 0, and is the surer the brighter the image."""
    model = constant([3.0] + [0.0] * 9)
    with torch.no_grad():
        model[1].weight[0] = 1e-3
    return model


def test_mistakes_are_shown_the_surest_first(no_figure_left_open):
    brightness = torch.tensor([10, 200, 90, 255, 50, 120], dtype=torch.uint8)
    digits = Digits(brightness[:, None, None].expand(-1, 28, 28), torch.tensor([1, 0, 2, 3, 0, 4]), "MNIST")
    figure = utils.show_mistakes(brightness_says_zero(), digits, count=3)
    assert [image[0, 0] for image in images_of(figure)] == [255, 120, 90]
    assert [title.split("\n")[0] for title in titles_of(figure)] == ["3, said 0", "4, said 0", "2, said 0"]
    assert titles_of(figure)[0].endswith(" % sure")
    assert figure.get_suptitle() == "4 of 6 test images are wrong, the surest first"


def test_a_network_that_makes_no_mistake_has_none_to_show(no_figure_left_open):
    digits = Digits(torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.long), "MNIST")
    figure = utils.show_mistakes(brightness_says_zero(), digits)
    assert images_of(figure) == []
    assert figure.get_suptitle().startswith("0 of 3 test images are wrong")


def dotted(axes: plt.Axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == ":"]


@pictured
def test_curves_show_every_epoch_the_target_and_the_changes_of_the_rate():
    history = record([9_900, 9_930, 9_940, 9_941, 9_942], learning_rate=[0.1, 0.1, 0.01, 0.01, 0.001])
    accuracy, loss = utils.show_curves(history).axes
    assert [list(line.get_xdata()) for line in accuracy.lines[:2]] == [[1, 2, 3, 4, 5]] * 2
    assert list(accuracy.lines[0].get_ydata()) == history.train_accuracy
    assert list(accuracy.lines[1].get_ydata()) == history.test_accuracy
    assert list(loss.lines[0].get_ydata()) == history.train_loss
    assert list(loss.lines[1].get_ydata()) == history.test_loss
    assert targets(accuracy) == [99.4] and targets(loss) == []
    for axes in (accuracy, loss):
        assert dotted(axes) == [2.5, 4.5]
        assert [text.get_text().strip() for text in axes.texts] == ["rate 0.01", "rate 0.001"]


def targets(axes: plt.Axes) -> list[float]:
    return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]


@pictured
def test_a_constant_rate_is_not_marked():
    assert [dotted(axes) for axes in utils.show_curves(record([9_900] * 3)).axes] == [[], []]


@pictured
def test_pictures_and_tables_of_the_sample_say_so_and_draw_no_target(sample):
    digits = sample[1]
    run = record([800, 810], dataset=digits.dataset, test_images=1_000)
    curves = utils.show_curves(run)
    assert str(run).splitlines()[0].endswith("(5,000-image sample of MNIST)")
    assert [targets(axes) for axes in curves.axes] == [[], []]
    pictures = (
        utils.show_samples(digits, 5),
        utils.show_augmented(digits, make_transform(), times=5),
        utils.show_mistakes(linear(), digits, 5),
    )
    titles = [figure.get_suptitle() for figure in pictures] + [axes.get_title() for axes in curves.axes]
    assert len(titles) == 5 and all("5,000-image sample" in title for title in titles)


@pictured
@pytest.mark.parametrize("epochs", [0, 1])
def test_curves_of_a_run_that_hardly_began_can_be_drawn(epochs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = utils.show_curves(record([9_900] * epochs))
        figure.canvas.draw()
    assert len(figure.axes[0].lines[1].get_xdata()) == epochs


@pictured
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


@pictured
def test_your_run_is_marked_beside_the_seeds_in_its_own_color(recorded):
    yours = record([9_950] * 5)
    by_seed, _ = figures.show_seeds(recorded, yours=yours).axes
    assert [label.get_text() for label in by_seed.get_xticklabels()] == ["0", "1", "yours"]
    (mark,) = [line for line in by_seed.lines if line.get_marker() == "D"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (2, pytest.approx(99.5))
    assert mark.get_color() == utils.YOUR_COLOR


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
def test_a_run_is_placed_among_the_recorded_seeds(counts, said, recorded):
    assert statistics.place_among(recorded, record(counts)) == said


def test_a_run_on_the_sample_is_not_placed_nor_marked(sample, recorded):
    yours = record([950] * 5, dataset=sample[1].dataset, test_images=1_000)
    said = statistics.place_among(recorded, yours)
    assert "it has 1,000 test images (5,000-image sample of MNIST), they have 10,000 test images (MNIST)" in said
    by_seed, _ = figures.show_seeds(recorded, yours=yours).axes
    assert [label.get_text() for label in by_seed.get_xticklabels()] == ["0", "1"]


@pictured
def test_the_picture_of_a_comparison_has_an_interval_a_recipe_and_an_arrow_for_one_that_is_far_off():
    recipes = {
        "full": seeds([9_900] * 5, [9_910] * 5, [9_920] * 5),
        "more_of_it": seeds([9_940] * 5, [9_950] * 5, [9_960] * 5),
        "no_gap": seeds([9_890] * 5, [9_890] * 5, [9_890] * 5),
        "lost": seeds([1_135] * 5, [1_135] * 5, [1_135] * 5),
    }
    (axes,) = figures.show_comparison(recipes, "full").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lost", "no GAP", "more of it"]
    assert axes.yaxis_inverted()  # the first on top, as in the table
    points = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "o"}
    assert {y: pytest.approx(point.get_xdata()[0]) for y, point in points.items()} == {1: -0.2, 2: 0.4}
    assert [point.get_color() for point in points.values()] == ["gray", "tab:green"]
    intervals = [
        line.get_xdata() for line in axes.lines if line.get_linestyle() == "-" and len(set(line.get_ydata())) == 1
    ]
    for drawn, recipe in zip(intervals, ("no_gap", "more_of_it")):
        assert tuple(drawn) == pytest.approx(statistics.paired_difference(recipes[recipe], recipes["full"])[1:])
    (arrow,) = [line for line in axes.lines if line.get_marker() == "<"]
    assert arrow.get_ydata()[0] == 0 and axes.get_xlim()[0] == arrow.get_xdata()[0] > -1
    assert [text.get_text() for text in axes.texts] == ["-87.75"]


def test_no_runs_make_no_picture():
    with pytest.raises(ValueError, match="no runs to show"):
        figures.show_seeds({})
