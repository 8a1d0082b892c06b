"""Pictures: what they show, what their titles say, and that looking changes nothing."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import constant, linear, some_digits
from histories import record
from torch import Tensor, nn

import models
import utils
from utils import Digits, make_transform

pytestmark = pytest.mark.usefixtures("alone", "no_figure_left_open")


@pytest.fixture
def no_figure_left_open() -> Iterator[None]:
    yield
    assert plt.get_fignums() == []


@pytest.fixture
def image(sample: tuple[Digits, Digits]) -> Tensor:
    return sample[0].images[0]


def images_of(figure: plt.Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles_of(figure: plt.Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count, shown", [(20, 20), (3, 3), (100, 25)])
def test_samples_are_the_first_images_with_their_labels(count, shown):
    digits = some_digits(25)
    figure = utils.show_samples(digits, count)
    assert titles_of(figure) == [str(i % 10) for i in range(shown)]
    assert all(np.array_equal(image, digits.images[i]) for i, image in enumerate(images_of(figure)))
    assert figure.get_suptitle() == "Training images and their labels"


def test_an_augmented_image_is_different_each_time():
    digits = some_digits(5)
    figure = utils.show_augmented(digits, make_transform({"rotation": 10}), index=3, times=12)
    images = images_of(figure)
    assert len(images) == 12 and len({image.tobytes() for image in images}) == 12
    assert figure.get_suptitle() == "One 3 as the training sees it, 12 times: different each time"


def test_an_image_that_is_not_augmented_is_the_same_each_time():
    digits = some_digits(5)
    figure = utils.show_augmented(digits, make_transform(), index=2)
    images = images_of(figure)
    assert len(images) == 20 and len({image.tobytes() for image in images}) == 1
    np.testing.assert_allclose(images[0], (digits.images[2] / 255 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)
    assert figure.get_suptitle() == "One 2 as the training sees it, 20 times: always the same"


def brightness_says_zero() -> nn.Sequential:
    """Always says 0, and is the surer the brighter the image."""
    model = constant([3.0] + [0.0] * 9)
    with torch.no_grad():
        model[1].weight[0] = 1e-3
    return model


def test_the_surest_mistakes_are_shown_first():
    brightness = torch.tensor([10, 200, 90, 255, 50, 120], dtype=torch.uint8)
    digits = Digits(brightness[:, None, None].expand(-1, 28, 28), torch.tensor([1, 0, 2, 3, 0, 4]), "MNIST")
    figure = utils.show_mistakes(brightness_says_zero(), digits, count=3)
    assert [image[0, 0] for image in images_of(figure)] == [255, 120, 90]
    assert [title.split("\n")[0] for title in titles_of(figure)] == ["3, said 0", "4, said 0", "2, said 0"]
    assert titles_of(figure)[0].endswith(" % sure")
    assert figure.get_suptitle() == "4 of 6 test images are wrong, the surest first"


def test_a_network_without_mistakes_has_none_to_show():
    digits = Digits(torch.zeros(3, 28, 28, dtype=torch.uint8), torch.zeros(3, dtype=torch.long), "MNIST")
    figure = utils.show_mistakes(brightness_says_zero(), digits)
    assert images_of(figure) == []
    assert figure.get_suptitle().startswith("0 of 3 test images are wrong")


# ---------------------------------------------------------------------------------------------------------------------
# Curves
# ---------------------------------------------------------------------------------------------------------------------


def targets(axes: plt.Axes) -> list[float]:
    return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def legend_of(figure: plt.Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_show_every_epoch_the_target_and_the_learning_rate():
    history = record([9_900, 9_930, 9_940, 9_941, 9_942], learning_rate=[0.1, 0.1, 0.01, 0.01, 0.001])
    figure = utils.show_curves(history)
    accuracy, loss, rate = figure.axes
    assert [list(line.get_xdata()) for line in accuracy.lines[:2]] == [[1, 2, 3, 4, 5]] * 2
    assert list(accuracy.lines[0].get_ydata()) == history.train_accuracy
    assert list(accuracy.lines[1].get_ydata()) == history.test_accuracy
    assert list(loss.lines[0].get_ydata()) == history.train_loss
    assert list(loss.lines[1].get_ydata()) == history.test_loss
    assert [list(line.get_ydata()) for line in rate.lines] == [history.learning_rate]
    assert [targets(axes) for axes in figure.axes] == [[99.4], [], []]
    colors = [line.get_color() for line in accuracy.lines[:2]]
    assert colors == [line.get_color() for line in loss.lines] == [utils.TRAIN_COLOR, utils.TEST_COLOR]


def test_curves_name_the_images_that_were_measured_on():
    figure = utils.show_curves(record([9_900] * 3), images="held-out")
    assert legend_of(figure) == ["train, while it learns", "held-out", "target: 99.4 %"]
    assert "held-out accuracy" in figure.get_suptitle()


def test_the_step_before_is_drawn_behind_in_a_lighter_color():
    before, history = record([9_800] * 3, learning_rate=[0.5] * 3), record([9_900] * 5)
    figure = utils.show_curves(history, before)
    accuracy, loss, rate = figure.axes
    new, old = accuracy.lines[1], accuracy.lines[3]
    assert list(old.get_ydata()) == before.test_accuracy and list(new.get_ydata()) == history.test_accuracy
    assert old.get_color() == new.get_color() and old.get_alpha() < new.get_alpha()
    assert old.get_zorder() < new.get_zorder()
    assert [list(line.get_ydata()) for line in rate.lines] == [history.learning_rate, before.learning_rate]
    assert len(loss.lines) == 4
    assert legend_of(figure)[2:4] == ["step before (MNIST), train, while it learns", "step before (MNIST), test"]


def test_what_is_below_the_axis_is_written_there():
    before = record([9_000] + [9_800] * 14, train_correct=[30_000, 57_000] + [58_500] * 13)
    history = record([9_100] + [9_900] * 14, train_correct=[59_000] * 15)
    for drawn, written in (
        (utils.show_curves(history), ["↓91.0"]),
        (utils.show_curves(history, before), ["↓91.0", "↓50.0", "↓90.0"]),
    ):
        drawn.draw_without_rendering()
        accuracy = drawn.axes[0]
        low, high = accuracy.get_ylim()
        assert [text.get_text() for text in accuracy.texts] == written
        values = [y for line in accuracy.lines for y in line.get_ydata()]
        assert sorted(f"↓{y:.1f}" for y in values if y < low) == sorted(written)
        assert max(values) <= high
        assert all(text.xy == (1, low) for text in accuracy.texts)
        boxes = [text.get_window_extent() for text in accuracy.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_run_that_fails_is_on_the_axis_too():
    accuracy = utils.show_curves(record([1_135] * 5, train_correct=[6_000] * 5)).axes[0]
    assert accuracy.get_ylim()[0] < 10 and not accuracy.texts


@pytest.mark.parametrize("epochs", [0, 1])
def test_curves_of_a_run_that_hardly_began_can_be_drawn(epochs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = utils.show_curves(record([9_900] * epochs), before=record([]))
        figure.draw_without_rendering()
    assert len(figure.axes[0].lines[1].get_xdata()) == epochs


def test_pictures_of_the_sample_say_so_and_draw_no_target(sample):
    digits = sample[1]
    curves = utils.show_curves(record([800, 810], dataset=digits.dataset, test_images=1_000))
    assert [targets(axes) for axes in curves.axes] == [[], [], []]
    pictures = (
        curves,
        utils.show_samples(digits, 5),
        utils.show_augmented(digits, make_transform(), times=5),
        utils.show_mistakes(linear(), digits, 5),
    )
    assert all(figure.get_suptitle().endswith(" (5,000-image sample of MNIST)") for figure in pictures)


# ---------------------------------------------------------------------------------------------------------------------
# The layer table
# ---------------------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A row of a layer table, as far as pictures need it."""

    name: str
    receptive_field: int
    parameters: int = 0
    output_shape: tuple[int, ...] = (8, 26, 26)


def squares(figure: plt.Figure) -> list[tuple[float, float, float]]:
    """Left edge, top edge and width of the square in each panel."""
    return [(*axes.patches[0].get_xy(), axes.patches[0].get_width()) for axes in figure.axes]


def test_each_receptive_field_has_a_panel_with_a_square_of_its_size(image):
    table = [Row("Conv2d", 3), Row("ReLU", 3), Row("MaxPool2d", 4), Row("Conv2d", 8), Row("Dropout2d", 8)]
    figure = utils.show_receptive_fields(table, image)
    assert titles_of(figure) == ["Conv2d\n3 x 3", "MaxPool2d\n4 x 4", "Conv2d\n8 x 8"]
    assert squares(figure) == [(11.5, 11.5, 3), (11.5, 11.5, 4), (9.5, 9.5, 8)]
    assert figure.get_suptitle() == "What one output sees: 3 pixels wide at first, 8 in the end"


def test_what_an_output_sees_is_drawn_as_it_is_and_the_rest_dim(image):
    (drawn,) = images_of(utils.show_receptive_fields([Row("Conv2d", 20)], image))
    assert np.array_equal(drawn[4:24, 4:24], image[4:24, 4:24])
    outside = np.ones((28, 28), dtype=bool)
    outside[4:24, 4:24] = False
    assert drawn[outside].min() >= 50 and drawn[outside].max() < 128


@pytest.mark.parametrize("field, more", [(28, ""), (40, ",\nmore than all")])
def test_a_field_as_large_as_the_image_ends_at_its_border(image, field, more):
    figure = utils.show_receptive_fields([Row("Conv2d", field)], image)
    assert squares(figure) == [(-0.5, -0.5, 28)]
    assert titles_of(figure) == [f"Conv2d\n{field} x {field}{more}"]
    assert np.array_equal(images_of(figure)[0], image)


def test_many_fields_take_several_rows(image):
    figure = utils.show_receptive_fields([Row("Conv2d", 3 + 2 * i) for i in range(12)], image)
    assert len(titles_of(figure)) == 12


def test_a_table_in_which_nothing_sees_more_than_a_pixel_has_no_fields_to_show(image):
    with pytest.raises(ValueError, match="every layer of the table sees a single pixel, expected a convolution"):
        utils.show_receptive_fields([Row("ReLU", 1)], image)


def bars(figure: plt.Figure) -> list[tuple[float, float]]:
    return [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]


def test_parameters_are_a_bar_for_each_layer_that_has_any_and_one_for_their_sum():
    table = [Row("Conv2d", 3, 72), Row("ReLU", 3), Row("Conv2d", 5, 1_000, (16, 24, 24)), Row("Linear", 28, 10, (10,))]
    figure = utils.show_parameters(table)
    axes = figure.axes[0]
    assert bars(figure) == [(0, 72), (72, 1_000), (1_072, 10), (0, 1_082)]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["Conv2d, 8 x 26 x 26", "Conv2d, 16 x 24 x 24", "Linear, 10", "all layers"]
    assert [text.get_text() for text in axes.texts] == ["72", "1,000", "10", "1,082"]
    assert [line.get_xdata()[0] for line in axes.lines] == [8_000]
    colors = [bar.get_facecolor() for bar in axes.patches]
    assert colors.count(colors[1]) == 1 and colors[0] == colors[2]
    expected = "1,082 parameters, within the budget of 8,000: 92 % are in the largest layer"
    assert figure.get_suptitle() == expected


@pytest.mark.parametrize("parameters, said", [(8_000, "8,000 parameters, within "), (8_001, "8,001 parameters, OVER ")])
def test_a_network_over_the_budget_is_marked(parameters, said):
    figure = utils.show_parameters([Row("Linear", 28, parameters, (10,))])
    assert figure.get_suptitle().startswith(said)
    assert (figure.axes[0].lines[0].get_color() == utils.YOUR_COLOR) == (parameters > 8_000)


def test_a_table_without_parameters_has_none_to_show():
    with pytest.raises(ValueError, match="no layer of the table has parameters, expected at least one"):
        utils.show_parameters([Row("ReLU", 1)])


# ---------------------------------------------------------------------------------------------------------------------
# Inside a network
# ---------------------------------------------------------------------------------------------------------------------


class Readers(nn.Module):
    """A network of a reader's own: functional layers, dropout that is always on, and three copies of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(20, 12, 3)  # defined first, called last
        self.first = nn.Conv2d(3, 20, 5, stride=2)
        self.hide = nn.Dropout2d(0.5)
        self.linear = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.dropout(F.relu(self.first(images.expand(-1, 3, -1, -1))))
        return self.linear(self.hide(F.relu(self.second(maps), inplace=True)).mean(dim=(2, 3)))


networks = pytest.mark.parametrize("make", [models.Model_1, models.Model_2, Readers])


def show_both(model: nn.Module, image: Tensor) -> plt.Figure:
    return utils.show_activations({"one": model, "two": model}, image.expand(4, -1, -1))


@networks
@pytest.mark.parametrize("show", [show_both, utils.show_filters, utils.show_dropout])
@pytest.mark.parametrize("training", [True, False])
def test_looking_into_a_network_changes_nothing(make, show, training, image):
    model = make(dropout=0.2) if make is models.Model_1 else make()
    model.train(training)
    model(torch.randn(8, 1, 28, 28)).sum().backward()
    modules = list(model.modules())
    modules[-1].train(not training)  # a mode of its own
    weights = copy.deepcopy(model.state_dict())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes, generator = [module.training for module in modules], torch.get_rng_state()
    show(model, image)
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in modules] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(parameter.grad, was) for parameter, was in zip(model.parameters(), gradients))
    assert torch.is_grad_enabled()


def points(axes: plt.Axes) -> list[tuple[float, float]]:
    """Mean and standard deviation behind each convolution, as drawn."""
    drawn = []
    for container in axes.containers:
        (low, high) = container.lines[2][0].get_segments()[0][:, 1]
        drawn.append((float(container.lines[0].get_ydata()[0]), float(high - low) / 2))
    return drawn


def test_activations_are_those_of_the_batch_behind_each_convolution(image):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.LazyLinear(10)
    )
    batch = torch.stack([image, image.flip(0), image.flip(1)])
    model(torch.zeros(1, 1, 28, 28))
    first = model[0](make_transform()(batch[:, None]))
    second = model[2](first.relu())
    expected = [(maps.mean().item(), maps.std().item()) for maps in (first, second)]
    for images in (batch, make_transform()(batch[:, None])):  # both as they are stored and as a loader yields them
        (axes,) = utils.show_activations({"mine": model}, images).axes
        np.testing.assert_allclose(points(axes), expected, rtol=1e-4, atol=1e-5)
        assert axes.get_title().startswith("mine: standard deviations")


def test_batch_norm_is_seen_at_work_with_the_batchs_statistics(sample):
    pair = {"with": models.Model_2(), "without": models.Model_2(batch_norm=False)}
    figure = utils.show_activations(pair, sample[0].images[:40])
    steady, drifting = map(points, figure.axes)
    assert len(steady) == len(drifting) == 6  # a separable convolution is one
    np.testing.assert_allclose(steady, [(0, 1)] * 6, atol=0.02)
    assert all(deviation < 0.8 for _, deviation in drifting)
    assert "One batch of 40 images" in figure.get_suptitle()


def test_a_convolution_that_makes_the_logits_is_left_out(sample):
    (axes,) = utils.show_activations({"one": models.Model_1()}, sample[0].images[:9]).axes
    assert len(points(axes)) == 5


@networks
def test_filters_and_maps_are_those_of_the_first_convolution_called(make, image):
    model = make()
    convolution = model.first if make is Readers else next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    seen = make_transform()(image.reshape(1, 1, 28, 28)).expand(-1, convolution.in_channels, -1, -1)
    count = min(16, convolution.out_channels)
    figure = utils.show_filters(model, image)
    filters, (drawn, *maps) = images_of(figure)[:count], images_of(figure)[count:]
    assert np.array_equal(drawn, image)
    np.testing.assert_allclose(filters, convolution.weight.detach().sum(dim=1)[:count], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(maps, convolution(seen).detach()[0, :count], rtol=1e-4, atol=1e-5)
    assert re.match(f"{count} of {convolution.out_channels} filters", figure.get_suptitle())
    (low, high) = figure.axes[1].images[0].get_clim()
    assert low == -high  # white is 0


def test_dropout_hides_the_crossed_out_maps_and_no_others(image):
    model = models.Model_2(dropout=0.3)
    torch.manual_seed(1)
    figure = utils.show_dropout(model, image, times=5)
    assert len(figure.axes) == 5 * 16
    crossed = np.array([bool(axes.lines) for axes in figure.axes]).reshape(5, 16)
    maps = np.array(images_of(figure)).reshape(5, 16, 12, 12)
    assert 0 < crossed.sum() < crossed.size
    assert figure.get_suptitle().startswith("Dropout with p = 0.3, one draw per row: ")
    assert f"{crossed.sum()} of 80 maps are hidden" in figure.get_suptitle()
    assert (maps[crossed] == 0).all()
    for channel in range(16):
        kept = maps[:, channel][~crossed[:, channel]]
        assert (kept == kept[:1]).all()
    torch.manual_seed(1)  # the same draws as the layer's own
    own = nn.Dropout2d(0.3)(torch.ones(5, 16, 1, 1))
    assert np.array_equal(own.flatten(1) == 0, crossed)


@pytest.mark.parametrize(
    ("show", "model", "sentence"),
    [
        (show_both, linear(), "Sequential has no Conv2d layer, expected at least one"),
        (utils.show_filters, linear(), "Sequential has no Conv2d layer, expected at least one"),
        (utils.show_dropout, models.Model_1(), "Model_1 has no Dropout2d layer, expected at least one"),
    ],
)
def test_a_network_that_lacks_the_layer_is_refused(show, model, sentence, image):
    with pytest.raises(ValueError, match=sentence):
        show(model, image)


@pytest.mark.parametrize("show", [show_both, utils.show_filters, utils.show_dropout])
def test_an_image_of_another_size_is_refused(show):
    with pytest.raises(ValueError, match=r"images have shape .*32, 32\), expected 28 x 28 pixels"):
        show(models.Model_2(), torch.zeros(32, 32, dtype=torch.uint8))


def all_pictures(sample: tuple[Digits, Digits]) -> dict[str, Callable[[], plt.Figure]]:
    model, image = models.Model_2(), sample[0].images[0]
    table = models.layer_table(model)
    long = record([9_000] + [9_940] * 14, train_correct=[50_000, 55_000] + [59_000] * 13)
    return {
        "samples": lambda: utils.show_samples(sample[0]),
        "augmented": lambda: utils.show_augmented(sample[0], make_transform()),
        "mistakes": lambda: utils.show_mistakes(model, sample[1]),
        "curves": lambda: utils.show_curves(long, long),
        "fields": lambda: utils.show_receptive_fields(table, image),
        "parameters": lambda: utils.show_parameters(table),
        "activations": lambda: utils.show_activations({"one": model, "two": model}, sample[0].images[:32]),
        "filters": lambda: utils.show_filters(model, image),
        "dropout": lambda: utils.show_dropout(model, image),
    }


def test_every_picture_has_a_title_and_fits_a_notebook(sample):
    for name, show in all_pictures(sample).items():
        figure = show()
        figure.draw_without_rendering()
        box = figure.get_tightbbox()  # what a notebook saves, with a tenth of an inch on each side, at 100 per inch
        assert 100 * (box.width + 0.2) <= 1_100, name
        assert figure.get_suptitle(), name
        labels = [text.get_window_extent() for axes in figure.axes for text in (axes.title,) if text.get_text()]
        assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i]), name
