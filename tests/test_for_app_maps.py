"""The feature maps that an exported network shows: they are PyTorch's, and lie where the layer table says."""

import base64
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import models
from app.runtime import open_network
from lab.for_app.export import FromPixels, to_onnx
from lab.for_app.maps import WEIGHTS, describe_maps
from lab.runs.networks import LeNet, Narrow, Stages, TwoBranches


class Shown:
    """A network with random weights and statistics, exported; `look` gives all outputs for some images."""

    def __init__(self, model: nn.Module) -> None:
        torch.manual_seed(0)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean, std=0.1)
                nn.init.uniform_(layer.running_var, 0.5, 2)
        self.model = FromPixels(model.eval(), 0.1307, 0.3081)
        content = to_onnx(self.model)
        described = describe_maps(content)
        self.maps = json.loads(described["maps"])
        self.plain = content.SerializeToString()
        self.whole = self.plain + base64.b64decode(described["inside"])

    def look(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        session = open_network(self.whole)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {"images": images[:, None].numpy()})))


class Gated(nn.Module):
    """Maps times a gate that depends on all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.gate, self.readout = nn.Conv2d(4, 4, 1), nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images).relu()
        gated = maps * self.gate(maps.mean((2, 3), keepdim=True)).sigmoid()
        return self.readout(self.second(gated).relu().mean((2, 3)))


class PastTheMaps(nn.Module):
    """A linear function of the maps, and one of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.readout, self.pixels = nn.Conv2d(1, 4, 3), nn.Linear(4, 10), nn.Linear(784, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.readout(self.convolution(images).relu().mean((2, 3))) + self.pixels(images.flatten(1))


@pytest.fixture(scope="module")
def images(sample):
    return sample[1].images[:20]


@pytest.mark.parametrize("make", [models.Model_1, models.Model_2, Narrow, LeNet, Stages, TwoBranches])
def test_the_maps_lie_where_the_layer_table_says(make):
    model = make()
    shown = Shown(model)
    rows = {(row.output_shape, row.jump, row.receptive_field) for row in models.layer_table(model)}
    assert shown.maps
    for maps in shown.maps:
        begins = maps["first"] + maps["jump"] * np.arange(maps["side"])
        visible = np.minimum(begins + maps["field"], 28) - np.maximum(begins, 0)
        side = maps["side"]
        assert ((maps["channels"], side, side), maps["jump"], visible.max()) in rows, maps


@pytest.mark.parametrize("make", [models.Model_1, models.Model_2])
def test_the_maps_are_those_of_pytorch(make, images):
    """The outputs of the blocks, each of which ends in ReLU, the last one of Model_1's in the readout."""
    shown = Shown(make())
    blocks: list[np.ndarray] = []
    for block in shown.model.network.features:
        block.register_forward_hook(lambda module, inputs, output: blocks.append(output.numpy()))
    with torch.no_grad():
        logits = shown.model(images[:, None])
    outputs = shown.look(images)
    assert len(blocks) == len(shown.maps)
    for maps, expected in zip(shown.maps, blocks):
        assert np.abs(outputs[maps["name"]] - expected).max() < 1e-4
    assert np.abs(outputs["logits"] - logits.numpy()).max() < 1e-4


@pytest.mark.parametrize("make, same_everywhere", [(models.Model_1, False), (models.Model_2, True), (Narrow, True)])
def test_maps_times_class_weights_and_a_constant_are_the_logits(make, same_everywhere, images):
    shown = Shown(make())
    outputs = shown.look(images)
    weights, maps = outputs[WEIGHTS], outputs[shown.maps[-1]["name"]]
    assert (weights.shape[2:] == (1, 1)) == same_everywhere
    added = (weights * maps[:, None]).sum((2, 3, 4))
    rest = outputs["logits"] - added
    assert np.ptp(added) > 0.1 and np.ptp(rest, axis=0).max() < 1e-4


def test_the_class_weights_of_a_linear_layer_are_its_weights():
    model = models.Model_2()
    outputs = Shown(model).look(torch.zeros(1, 28, 28, dtype=torch.uint8))
    expected = model.readout[-1].weight.detach().numpy() / 16  # the average of 4 x 4 positions
    assert np.abs(outputs[WEIGHTS][:, :, 0, 0] - expected).max() < 1e-6


def test_a_prediction_computes_logits_alone(images):
    """Outputs of the file itself would be prepared for every prediction."""
    shown = Shown(models.Model_2())
    assert [output.name for output in open_network(shown.plain).get_outputs()] == ["logits"]
    plain = open_network(shown.plain).run(["logits"], {"images": images[:, None].numpy()})[0]
    assert np.array_equal(plain, shown.look(images)["logits"])
    onnx.checker.check_model(onnx.load_from_string(shown.whole), full_check=True)


@pytest.mark.parametrize(
    "model, layers",
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), []),  # no maps
        (LeNet(), [6, 16]),  # a tanh stands between the maps and the logits
        (Gated(), [4]),  # those behind the gate see the whole image
        (PastTheMaps(), [4]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_networks_show_what_can_be_shown_and_no_class_map(model, layers, images):
    shown = Shown(model)
    assert [maps["channels"] for maps in shown.maps] == layers
    assert WEIGHTS not in shown.look(images)
