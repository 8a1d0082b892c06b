"""History, verdict, and the pictures of one run."""

import warnings
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers import Run, constant, leftovers, linear, some_digits
from histories import record
from torch import nn

import utils
from utils import Digits, History, make_transform

pytestmark = pytest.mark.usefixtures("alone")

# ---------------------------------------------------------------------------------------------------------------------
# History and verdict
# ---------------------------------------------------------------------------------------------------------------------


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
