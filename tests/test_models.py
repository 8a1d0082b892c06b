"""The networks and their layer table, against numbers worked out by hand and against gradients."""

import inspect
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import models
from lab.runs import networks
from models import Model_1, Model_2, count_parameters, layer_table

BOTH = pytest.mark.parametrize("network", [Model_1, Model_2])


def batch_of(count: int) -> Tensor:
    return torch.rand(count, 1, 28, 28)


# ---------------------------------------------------------------------------------------------------------------------
# Parameters and switches
# ---------------------------------------------------------------------------------------------------------------------


@BOTH
def test_both_networks_stay_below_8000_parameters(network):
    assert count_parameters(network()) < 8_000


def test_model_1_has_the_parameters_counted_by_hand():
    convolutions = 9 * (1 * 8 + 8 * 14 + 14 * 10 + 10 * 10 + 10 * 10)
    scales_and_shifts = 2 * (8 + 14 + 10 + 10 + 10)
    readout = 5 * 5 * 10 * 10 + 10
    assert count_parameters(Model_1()) == convolutions + scales_and_shifts + readout == 6_754


def test_model_2_has_the_parameters_counted_by_hand():
    whole = 9 * (1 * 8 + 8 * 16)
    separable = 9 * (16 + 34 + 36 + 38) + 16 * 34 + 34 * 36 + 36 * 38 + 38 * 40
    scales_and_shifts = 2 * (8 + 16 + 34 + 36 + 38 + 40)
    readout = 40 * 10 + 10
    assert count_parameters(Model_2()) == whole + separable + scales_and_shifts + readout == 7_750


def test_frozen_weights_are_not_counted():
    layer = nn.Linear(3, 2)
    layer.weight.requires_grad_(False)
    assert count_parameters(layer) == 2


@BOTH
def test_every_combination_of_switches_gives_ten_logits(network):
    combinations = product((3, 5, 7), (True, False), (0.0, 0.1), (True, False), (0, 6), (True, False), (True, False))
    names = ("pool_at", "batch_norm", "dropout", "separable", "capacity", "gap", "fully_connected")
    for values in combinations:  # 5 or 6 convolutions on 28 pixels: no map vanishes here
        model = network(**dict(zip(names, values)))
        assert model(batch_of(2)).shape == (2, 10), values


def test_convolutions_are_refused_only_when_they_leave_no_map():
    # the first leaves 26, pooled 13; six more leave 1
    assert Model_1((2,) * 7)(batch_of(2)).shape == (2, 10)
    with pytest.raises(ValueError, match="8 convolutions with pooling at 3 leave no map to read out: use fewer"):
        Model_1((2,) * 8)


def test_a_convolution_before_the_global_average_needs_a_map_of_three():
    assert Model_1((2,) * 7, gap=True, fully_connected=True)(batch_of(2)).shape == (2, 10)
    assert Model_1((2,) * 6, gap=True, fully_connected=False)(batch_of(2)).shape == (2, 10)
    with pytest.raises(ValueError, match="leave no map"):
        Model_1((2,) * 7, gap=True, fully_connected=False)


def test_switches_turn_model_1_into_model_2():
    switched = Model_1(
        (8, 16, 34, 36, 38), pool_at=5, dropout=0.1, separable=True, capacity=40, gap=True, fully_connected=True
    )
    assert str(switched).removeprefix("Model_1") == str(Model_2()).removeprefix("Model_2")
    assert layer_table(switched) == layer_table(Model_2())


@BOTH
def test_the_docstring_lists_the_blocks_as_they_are_computed(network):
    model = network()
    rows = iter(layer_table(model))
    computed = []
    for block, words in zip((*model.features, model.readout), str(model).splitlines()[1:-1], strict=True):
        layers = [next(rows) for _ in block]
        shape = " x ".join(map(str, layers[-1].output_shape))
        parameters = sum(layer.parameters for layer in layers)
        computed.append(f"{words.strip()} {shape} {layers[-1].receptive_field} {parameters:,}")
    listed = inspect.getdoc(network).split("\n\n")[1].splitlines()
    assert [" ".join(line.split()) for line in listed] == ["block output field parameters", *computed]


def test_a_network_prints_one_line_per_block():
    assert str(Model_2((4, 6), capacity=0, dropout=0.2)).splitlines() == [
        "Model_2(",
        "  conv 3x3 1 -> 4, batch norm, ReLU",
        "  conv 3x3 4 -> 6, max-pool 2x2, batch norm, ReLU, dropout 0.2",
        "  average, flatten, linear 6 -> 10",
        ")",
    ]


@BOTH
def test_networks_that_differ_in_a_switch_print_differently(network):
    """A checkpoint is recognized by what its network prints."""
    switches = ({}, {"pool_at": 7}, {"batch_norm": False}, {"dropout": 0.3}, {"capacity": 6}, {"channels": (4,) * 5})
    switches += tuple({name: value} for name in ("separable", "gap", "fully_connected") for value in (True, False))
    printed = {str(network(**changed)) for changed in switches}
    assert len(printed) == len(switches) - 3  # three of the last six are the defaults


@BOTH
@pytest.mark.parametrize(
    "switch, kind, expected",
    [
        ({"batch_norm": False}, nn.BatchNorm2d, 0),
        ({"batch_norm": True}, nn.BatchNorm2d, 5),
        ({"dropout": 0.0}, nn.Dropout2d, 0),
        ({"dropout": 0.1, "pool_at": 3}, nn.Dropout2d, 5),
        ({"dropout": 0.1, "pool_at": 7}, nn.Dropout2d, 3),
        ({"gap": False}, nn.AdaptiveAvgPool2d, 0),
        ({"gap": True}, nn.AdaptiveAvgPool2d, 1),
        ({"fully_connected": False}, nn.Linear, 0),
        ({"fully_connected": True}, nn.Linear, 1),
        ({"pool_at": 11}, nn.MaxPool2d, 1),
        ({"separable": False, "gap": True, "fully_connected": True}, nn.Conv2d, 5),
        ({"separable": True, "gap": True, "fully_connected": True, "pool_at": 3}, nn.Conv2d, 9),
        ({"separable": True, "gap": True, "fully_connected": True, "pool_at": 11}, nn.Conv2d, 5),
    ],
)
def test_a_switch_changes_what_it_says(network, switch, kind, expected):
    model = network(**{"capacity": 0, **switch})
    assert sum(isinstance(module, kind) for module in model.modules()) == expected


def test_dropout_takes_whole_channels_behind_the_pooling_in_training_alone():
    model = Model_2(dropout=0.5)
    torch.manual_seed(0)
    for layer in (model.features[1][-1], model.features[5][-1]):
        ones = torch.ones(50, 16, 4, 4)
        channels = layer(ones).flatten(2)
        assert set(channels.unique().tolist()) == {0.0, 2.0}
        torch.testing.assert_close(channels.amin(2), channels.amax(2))
        torch.testing.assert_close(layer.eval()(ones), ones)


def test_a_separable_convolution_is_a_filter_for_each_channel_and_a_mix_of_them():
    spread, mix, *_ = Model_2().features[3]
    images = torch.rand(2, 34, 9, 9)
    # as one whole 3x3 convolution: its weights from a to b are the filter of a times the mix's weight from a to b
    whole = mix.weight * spread.weight.transpose(0, 1)
    torch.testing.assert_close(mix(spread(images)), nn.functional.conv2d(images, whole))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_convolution_has_a_bias_only_where_no_batch_norm_shifts_its_output(batch_norm):
    blocks = Model_2(batch_norm=batch_norm).features
    convolutions = [[layer for layer in block if isinstance(layer, nn.Conv2d)] for block in blocks]
    assert all((block[-1].bias is None) == batch_norm for block in convolutions)
    assert all(filters.bias is None for block in convolutions for filters in block[:-1])


@pytest.mark.parametrize("pool_at", [3, 5, 7, 9, 11])
def test_the_maps_are_pooled_at_the_receptive_field_asked_for(pool_at):
    rows = layer_table(Model_2(pool_at=pool_at))
    pooled = [i for i, row in enumerate(rows) if row.name == "MaxPool2d"]
    assert [rows[i - 1].receptive_field for i in pooled] == [pool_at]


@BOTH
@pytest.mark.parametrize(
    "switches, given, expected",
    [
        ({"pool_at": 4}, "pool_at is 4", r"\[3, 5, 7, 9, 11\]"),
        ({"pool_at": 13}, "pool_at is 13", r"\[3, 5, 7, 9, 11\]"),
        ({"dropout": 1.0}, "dropout is 1.0", "from 0 to below 1"),
        ({"dropout": -0.1}, "dropout is -0.1", "from 0 to below 1"),
        ({"dropout": float("nan")}, "dropout is nan", "from 0 to below 1"),
        ({"capacity": -1}, "capacity -1", "positive widths, or capacity 0"),
        ({"channels": (8, 0, 10), "pool_at": 3}, r"channels \[8, 0, 10\]", "positive widths"),
        ({"channels": ()}, "pool_at is", r"\[\]"),
    ],
)
def test_a_switch_out_of_range_is_refused_with_what_was_given_and_expected(network, switches, given, expected):
    with pytest.raises(ValueError, match=f"{given}.*expected.*{expected}"):
        network(**switches)


# ---------------------------------------------------------------------------------------------------------------------
# Layer table, against numbers worked out by hand
# ---------------------------------------------------------------------------------------------------------------------


def as_tuples(rows: models.LayerTable) -> list[tuple]:
    return [(r.name, r.output_shape, r.kernel, r.stride, r.jump, r.receptive_field, r.parameters) for r in rows]


def test_the_table_of_model_2_is_the_one_worked_out_by_hand():
    assert as_tuples(layer_table(Model_2())) == [
        ("Conv2d", (8, 26, 26), 3, 1, 1, 3, 72),
        ("BatchNorm2d", (8, 26, 26), None, None, 1, 3, 16),
        ("ReLU", (8, 26, 26), None, None, 1, 3, 0),
        ("Conv2d", (16, 24, 24), 3, 1, 1, 5, 1_152),
        ("MaxPool2d", (16, 12, 12), 2, 2, 2, 6, 0),
        ("BatchNorm2d", (16, 12, 12), None, None, 2, 6, 32),
        ("ReLU", (16, 12, 12), None, None, 2, 6, 0),
        ("Dropout2d", (16, 12, 12), None, None, 2, 6, 0),
        ("Conv2d", (16, 10, 10), 3, 1, 2, 10, 144),
        ("Conv2d", (34, 10, 10), 1, 1, 2, 10, 544),
        ("BatchNorm2d", (34, 10, 10), None, None, 2, 10, 68),
        ("ReLU", (34, 10, 10), None, None, 2, 10, 0),
        ("Dropout2d", (34, 10, 10), None, None, 2, 10, 0),
        ("Conv2d", (34, 8, 8), 3, 1, 2, 14, 306),
        ("Conv2d", (36, 8, 8), 1, 1, 2, 14, 1_224),
        ("BatchNorm2d", (36, 8, 8), None, None, 2, 14, 72),
        ("ReLU", (36, 8, 8), None, None, 2, 14, 0),
        ("Dropout2d", (36, 8, 8), None, None, 2, 14, 0),
        ("Conv2d", (36, 6, 6), 3, 1, 2, 18, 324),
        ("Conv2d", (38, 6, 6), 1, 1, 2, 18, 1_368),
        ("BatchNorm2d", (38, 6, 6), None, None, 2, 18, 76),
        ("ReLU", (38, 6, 6), None, None, 2, 18, 0),
        ("Dropout2d", (38, 6, 6), None, None, 2, 18, 0),
        ("Conv2d", (38, 4, 4), 3, 1, 2, 22, 342),
        ("Conv2d", (40, 4, 4), 1, 1, 2, 22, 1_520),
        ("BatchNorm2d", (40, 4, 4), None, None, 2, 22, 80),
        ("ReLU", (40, 4, 4), None, None, 2, 22, 0),
        ("Dropout2d", (40, 4, 4), None, None, 2, 22, 0),
        ("AdaptiveAvgPool2d", (40, 1, 1), 4, 1, 2, 28, 0),
        ("Flatten", (40,), None, None, 2, 28, 0),
        ("Linear", (10,), None, None, 2, 28, 410),
    ]


def le_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.Linear(120, 10),
    )


def test_the_table_of_le_net_is_the_one_worked_out_by_hand():
    assert as_tuples(layer_table(le_net())) == [
        ("Conv2d", (6, 28, 28), 5, 1, 1, 5, 156),
        ("Tanh", (6, 28, 28), None, None, 1, 5, 0),
        ("AvgPool2d", (6, 14, 14), 2, 2, 2, 6, 0),
        ("Conv2d", (16, 10, 10), 5, 1, 2, 14, 2_416),
        ("AvgPool2d", (16, 5, 5), 2, 2, 4, 16, 0),
        ("Flatten", (400,), None, None, 4, 16, 0),
        ("Linear", (120,), 5, 1, 4, 28, 48_120),  # reads the whole 5x5 map: 32 pixels, of which 4 are padding
        ("Linear", (10,), None, None, 4, 28, 1_210),
    ]


def strided_and_dilated() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.MaxPool2d(3, stride=1),
        nn.Conv2d(4, 2, 2, stride=2),
    )


def test_the_table_knows_strides_dilation_and_overlapping_pools():
    assert as_tuples(layer_table(strided_and_dilated())) == [
        ("Conv2d", (4, 14, 14), 3, 2, 2, 3, 40),
        ("ReLU", (4, 14, 14), None, None, 2, 3, 0),
        ("Conv2d", (4, 10, 10), 3, 1, 2, 11, 148),
        ("MaxPool2d", (4, 8, 8), 3, 1, 2, 15, 0),
        ("Conv2d", (2, 4, 4), 2, 2, 4, 17, 34),
    ]


def test_the_printed_table_ends_with_the_total():
    lines = str(layer_table(Model_2())).splitlines()
    assert len(lines) == 2 + 31 + 1
    assert lines[2].split() == ["Conv2d", "8", "x", "26", "x", "26", "3", "1", "1", "3", "72"]
    assert lines[-1].split() == ["total", "7,750"]
    assert len({len(line) for line in lines}) == 1


# ---------------------------------------------------------------------------------------------------------------------
# Layer table: networks that are not a sequence of layers
# ---------------------------------------------------------------------------------------------------------------------


class Published(nn.Module):
    """pytorch/examples, mnist/main.py, as it stands there."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = self.conv1(x)
        x = F.relu(x)
        x = self.conv2(x)
        x = F.relu(x)
        x = F.max_pool2d(x, 2)
        x = self.dropout1(x)
        x = torch.flatten(x, 1)
        x = self.fc1(x)
        x = F.relu(x)
        x = self.dropout2(x)
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


class Shortcut(nn.Module):
    """The shortcut is shorter than what it goes around: the sum sees what the longer way sees."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.around = nn.Sequential(nn.Conv2d(4, 4, 3, 2, padding=1), nn.ReLU(True), nn.Conv2d(4, 4, 3, padding=1))
        self.shortcut = nn.Conv2d(4, 4, 1, 2)

    def forward(self, images):
        maps = self.stem(images)
        sums = self.shortcut(maps)
        sums += self.around(maps)
        return sums.relu().mean((2, 3))


class Unequal(nn.Module):
    """Two branches of other kernels on one input, and a pooling that a function does."""

    def __init__(self):
        super().__init__()
        self.narrow = nn.Conv2d(1, 3, 1)
        self.wide = nn.Conv2d(1, 2, 5, padding=2)
        self.readout = nn.Linear(5 * 7 * 7, 10)

    def forward(self, images):
        maps = torch.cat([self.narrow(images), F.avg_pool2d(self.wide(images), 3, 1, 1)], 1)
        return self.readout(F.max_pool2d(maps, kernel_size=4).flatten(1))


class Shared(nn.Module):
    """One convolution that runs three times, and weights that are no layer's."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.again = nn.Conv2d(4, 4, 3)
        self.classes = nn.Parameter(torch.rand(10, 4))

    def forward(self, images):
        maps = self.again(self.again(self.again(self.first(images))))
        return F.linear(F.adaptive_avg_pool2d(maps, 1)[:, :, 0, 0], self.classes)


def test_the_table_of_the_published_example_shows_its_functions():
    assert as_tuples(layer_table(Published())) == [
        ("Conv2d", (32, 26, 26), 3, 1, 1, 3, 320),
        ("relu", (32, 26, 26), None, None, 1, 3, 0),
        ("Conv2d", (64, 24, 24), 3, 1, 1, 5, 18_496),
        ("relu", (64, 24, 24), None, None, 1, 5, 0),
        ("max_pool2d", (64, 12, 12), 2, 2, 2, 6, 0),
        ("Dropout", (64, 12, 12), None, None, 2, 6, 0),
        ("flatten", (9_216,), None, None, 2, 6, 0),
        ("Linear", (128,), 12, 1, 2, 28, 1_179_776),
        ("relu", (128,), None, None, 2, 28, 0),
        ("Dropout", (128,), None, None, 2, 28, 0),
        ("Linear", (10,), None, None, 2, 28, 1_290),
        ("log_softmax", (10,), None, None, 2, 28, 0),
    ]


def test_a_sum_sees_what_its_widest_branch_sees():
    rows = [(r.name, r.kernel, r.jump, r.receptive_field) for r in layer_table(Shortcut())]
    assert rows == [
        ("Conv2d", 3, 1, 3),
        ("Conv2d", 1, 2, 3),  # the shortcut
        ("Conv2d", 3, 2, 5),
        ("ReLU", None, 2, 5),
        ("Conv2d", 3, 2, 9),
        ("add", None, 2, 9),
        ("relu", None, 2, 9),
        ("mean", None, 2, 28),
    ]


def test_branches_start_from_where_they_branch():
    rows = [(r.name, r.kernel, r.stride, r.jump, r.receptive_field) for r in layer_table(Unequal())]
    assert rows == [
        ("Conv2d", 1, 1, 1, 1),
        ("Conv2d", 5, 1, 1, 5),
        ("avg_pool2d", 3, 1, 1, 7),
        ("cat", None, None, 1, 7),
        ("max_pool2d", 4, 4, 4, 10),
        ("flatten", None, None, 4, 10),
        ("Linear", 7, 1, 4, 28),
    ]


def test_two_branches_do_not_add_up():
    assert max(row.receptive_field for row in layer_table(networks.TwoBranches()) if len(row.output_shape) == 3) == 12


def test_a_layer_that_runs_three_times_counts_once():
    rows = layer_table(Shared())
    assert [(r.name, r.receptive_field, r.parameters) for r in rows] == [
        ("Conv2d", 3, 40),
        ("Conv2d", 5, 148),
        ("Conv2d", 7, 0),
        ("Conv2d", 9, 0),
        ("adaptive_avg_pool2d", 28, 0),
        ("getitem", 28, 0),
        ("linear", 28, 40),
    ]
    assert sum(row.parameters for row in rows) == count_parameters(Shared())


def network_of(forward, *layers: nn.Module) -> nn.Module:
    """A network whose forward is `forward(images, *layers)`."""

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, images):
            return forward(images, *self.layers)

    return Written()


def with_a_computed_weight() -> nn.Module:
    """What PyTorch refuses to copy."""
    convolution = nn.Conv2d(1, 2, 3)
    convolution.doubled = convolution.weight * 2
    return convolution


@pytest.mark.parametrize(
    "forward, layers, complaint",
    [
        (lambda x: x if x.mean() > 0 else -x, (), "mean makes one number of all images"),
        (lambda x: x if (x > 0.5).any() else -x, (), "any uses values of the image to decide"),
        (lambda x: x * len(x.tolist()), (), "tolist uses values of the image to decide"),
        (lambda x: x * (x > 0.5), (), "mul uses values of the image to decide"),
        (lambda x, conv: conv(x), (nn.Conv2d(1, 2, (3, 5)),), "conv2d reads .* 3 x 5 pixels, expected a square"),
        (lambda x, conv: conv(x), (nn.Conv2d(1, 2, 3, (1, 2)),), "strides over 1 x 2 pixels, expected a square"),
        (lambda x, conv: conv(x), (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"),), "opposite border"),
        (lambda x: x.mean(3), (), "an output of mean sees 1 x 28 pixels, expected a square"),
        (lambda x: F.adaptive_avg_pool2d(x, 5), (), "adaptive_avg_pool2d makes 5 unequal parts of 28 pixels"),
        (lambda x: x[:, :, [0, 1, 2, 9, 10, 20]][..., [0, 1, 2, 9, 10, 20]], (), "not evenly spaced on the image"),
        (lambda x: F.interpolate(x, scale_factor=2), (), "interpolate enlarges the maps from 28 to 56"),
        (lambda x, up: up(x), (nn.ConvTranspose2d(1, 1, 3, 2),), "conv_transpose2d enlarges the maps from 28 to 57"),
        (lambda x: x.mean(0), (), r"mean does not keep the images of a batch apart: its output is \(1, 28, 28\)"),
        (lambda x: F.conv2d(x, torch.ones(1, 1, 3, 3)), (), "does not take float64 images of shape .* Double"),
        (lambda x, conv: conv(x), (with_a_computed_weight(),), "the network cannot be copied: Only Tensors created"),
        (lambda x: x.nan_to_num(), (), "nan_to_num hides on which pixels its output depends"),
        (lambda x: (x - 2).log(), (), "log is not a number on an ordinary image"),
        (lambda x: torch.ones(2), (), "the output of the network cannot be traced back to the image"),
        (lambda x, a, b: a(x), (nn.Conv2d(1, 2, 3), nn.Linear(2, 2)), "use its parameters layers.1.weight, layers.1.b"),
    ],
)
def test_a_table_that_cannot_be_computed_is_refused(forward, layers, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        layer_table(network_of(forward, *layers))
    assert "\n" not in str(error.value)


def test_a_layer_behind_a_parametrization_or_a_wrapper_is_a_layer():
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    rows = layer_table(nn.DataParallel(nn.Sequential(normed, nn.Flatten())))
    assert [(row.kernel, row.receptive_field, row.parameters) for row in rows] == [(3, 3, 22), (None, 3, 0)]


def test_unused_comparisons_and_shapes_do_no_harm():
    def forward(images, convolution):
        assert images.shape[1] == 1 and images.dim() == 4
        _ = images > 0
        return convolution(images).view(len(images), -1)

    assert [row.name for row in layer_table(network_of(forward, nn.Conv2d(1, 2, 3)))] == ["Conv2d", "view"]


# ---------------------------------------------------------------------------------------------------------------------
# Receptive fields, against gradients
# ---------------------------------------------------------------------------------------------------------------------


class Outputs(fx.Interpreter):
    """Runs a traced network, and keeps the output of each layer and function."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(fx.symbolic_trace(model))
        self.outputs: list[Tensor] = []

    def run_node(self, node: fx.Node) -> object:
        output = super().run_node(node)
        if node.op in ("call_module", "call_function", "call_method"):
            self.outputs.append(output.clone())  # a later layer may work in place
        return output


def seen_by(units: Tensor, images: Tensor) -> tuple[int, int]:
    """Height and width of the box of pixels on which these units depend.

    A maximum passes the gradient to one pixel only, and a ReLU may pass none: so all images together draw the box.
    """
    (gradient,) = torch.autograd.grad(units.sum(), images, retain_graph=True)
    _, _, rows, columns = gradient.nonzero(as_tuple=True)
    if len(rows) == 0:  # a unit that is dead on all images
        return 0, 0
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def fields_by_gradients(model: nn.Module, images: Tensor) -> list[tuple[int, int]]:
    """For each layer and function, the box that a unit in the middle of its output sees, or a flat one's widest."""
    images.requires_grad_(True)
    run = Outputs(model.eval())
    run.run(images)
    boxes = []
    for output in run.outputs:
        if output.dim() == 4:
            middle = [(output.shape[2] - 1) // 2, output.shape[2] // 2]
            units = [output[:, :, at, at] for at in set(middle)]
        else:
            units = output[:, :: output.shape[1] // 13 | 1].unbind(1)  # an odd step, so as not to stay in one column
        seen = [seen_by(unit, images) for unit in units]
        boxes.append((max(height for height, _ in seen), max(width for _, width in seen)))
    return boxes


@pytest.mark.parametrize(
    "make, images",
    [
        (Model_1, 64),
        (Model_2, 64),
        (lambda: Model_1(pool_at=5, gap=True), 64),
        (lambda: Model_2(pool_at=7, gap=False, fully_connected=False, batch_norm=False), 64),
        (lambda: Model_2((4, 6, 4), pool_at=3, capacity=0), 64),
        (le_net, 64),
        (strided_and_dilated, 64),
        (lambda: nn.Sequential(nn.Conv2d(1, 4, 4, padding=3, dilation=3), nn.AvgPool2d(3, 2), nn.Conv2d(4, 3, 3)), 16),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 5), nn.AdaptiveAvgPool2d(4), nn.Conv2d(2, 2, 3)), 16),
        (Published, 4),
        (Shortcut, 64),
        (Unequal, 64),
        (Shared, 16),
        (networks.Narrow, 64),
        (networks.LeNet, 16),
        (networks.TanhLeNet, 16),
        (networks.DeeperLeNet, 8),
        (networks.Stages, 8),
        (lambda: networks.Stages(((8, 8), (8, 8), (8,)), 32, batch_norm=True, dropout=0.5), 32),
        (networks.TwoBranches, 2),
        (networks.WebApp, 16),
        (networks.PyTorchExample, 4),
    ],
    ids=[
        *("Model_1", "Model_2", "average", "large kernel", "early pool", "padded LeNet", "strided", "wide", "adaptive"),
        *("published", "shortcut", "two kernels", "shared", "Narrow", "LeNet", "TanhLeNet", "DeeperLeNet", "Stages"),
        *("small VGG", "TwoBranches", "WebApp", "PyTorchExample"),
    ],
)
def test_receptive_fields_are_the_pixels_that_gradients_reach(make, images):
    torch.manual_seed(0)
    model = make()
    table = layer_table(model)
    assert [(row.receptive_field,) * 2 for row in table] == fields_by_gradients(model, batch_of(images))
    assert sum(row.parameters for row in table) == count_parameters(model)


# ---------------------------------------------------------------------------------------------------------------------
# Layer table: manners
# ---------------------------------------------------------------------------------------------------------------------


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 28, 28)], ids=["taken", "refused"])
@pytest.mark.parametrize("training", [True, False])
def test_the_table_leaves_the_network_and_the_generator_as_they_were(training, input_shape):
    model = Model_2().train(training)
    model(batch_of(4)).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    generator = torch.get_rng_state()
    if input_shape == (1, 28, 28):
        layer_table(model, input_shape)
    else:
        with pytest.raises(ValueError):
            layer_table(model, input_shape)
    assert modes(model) == [training] * len(modes(model))
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(gradient, parameter.grad) for gradient, parameter in zip(gradients, model.parameters()))
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_functional_dropout_that_always_draws_leaves_the_generator_as_it_was():
    generator = torch.get_rng_state()
    layer_table(network_of(lambda images: F.dropout(images, 0.5)))
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_table_leaves_a_frozen_part_of_a_training_network_frozen():
    model = Model_2().train()
    model.features.eval()
    before = modes(model)
    layer_table(model)
    assert modes(model) == before


@pytest.mark.parametrize("input_shape", [(3, 28, 28), (1, 4, 4), (1, 28, 30), (784,), (28, 28)], ids=str)
@BOTH
def test_a_shape_that_the_network_does_not_take_is_named_in_the_error(network, input_shape):
    with pytest.raises(ValueError) as error:
        layer_table(network(), input_shape)
    assert str(input_shape) in str(error.value)


def test_a_network_without_parameters_has_a_table_too():
    model = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(3, 2))
    assert as_tuples(layer_table(model)) == [
        ("MaxPool2d", (1, 14, 14), 2, 2, 2, 2, 0),
        ("AvgPool2d", (1, 6, 6), 3, 2, 4, 6, 0),
    ]


def test_averaging_onto_a_map_is_not_taken_for_averaging_onto_one_number():
    # 24 -> 4 positions: each looks at 6, and the next one starts 6 further
    rows = layer_table(nn.Sequential(nn.Conv2d(1, 2, 5), nn.AdaptiveAvgPool2d(4), nn.Conv2d(2, 2, 3)))
    assert [(row.jump, row.receptive_field) for row in rows] == [(1, 5), (6, 10), (6, 22)]
