"""A fingerprint sees what a network computes, and nothing else."""

import itertools
import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.evidence.records import same_network
from lab.runs.fingerprint import digest, fingerprint
from lab.runs.recipes import STEP_1
from lab.systems import catalog


def small(
    activation: Callable[[], nn.Module] = nn.ReLU,
    dropout: nn.Module | None = None,
    pooling: Callable[[int], nn.Module] = nn.MaxPool2d,
    momentum: float = 0.1,
    padding: int = 0,
) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        layers = [nn.Conv2d(1, 4, 3, padding=padding), activation(), nn.BatchNorm2d(4, momentum=momentum), pooling(2)]
        return nn.Sequential(
            *layers, dropout or nn.Identity(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
        )

    return make


class Functions(nn.Module):
    """`small`, as others write it."""

    def __init__(self, dropout: float = 0.0, training: bool | None = None) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(16, 10)
        self.dropout, self.drops = dropout, training

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(F.relu(self.first(x))), 2)
        x = F.dropout(x, self.dropout, self.training if self.drops is None else self.drops)
        return self.last(F.adaptive_avg_pool2d(x, 2).flatten(1))


KINDS = {
    "as it is": small(),
    "sigmoid": small(nn.Sigmoid),
    "leaky": small(lambda: nn.LeakyReLU(0.01)),
    "average": small(pooling=nn.AvgPool2d),
    "padded": small(padding=1),
    "momentum": small(momentum=0.2),
    "dropout 0.1": small(dropout=nn.Dropout(0.1)),
    "dropout 0.2": small(dropout=nn.Dropout(0.2)),
    "dropout 0.2 of channels": small(dropout=nn.Dropout2d(0.2)),
    "dropout that never ends": lambda: Functions(0.2, True),
    "alpha dropout": small(dropout=nn.AlphaDropout(0.2)),
}


def test_each_change_of_a_network_is_seen():
    prints = {kind: fingerprint(make) for kind, make in KINDS.items()}
    for (kind, one), (other_kind, other) in itertools.combinations(prints.items(), 2):
        assert not same_network(one, other) and digest(one) != digest(other), (kind, other_kind)


def test_other_initial_weights_are_another_network():
    def make() -> nn.Module:
        model = small()()
        nn.init.kaiming_normal_(model[0].weight)
        return model

    assert not same_network(fingerprint(make), fingerprint(small()))


def test_how_a_network_is_written_does_not_matter():
    assert fingerprint(Functions) == fingerprint(small())
    dropout = fingerprint(small(dropout=nn.Dropout(0.2)))
    assert dropout == fingerprint(lambda: Functions(0.2)) == fingerprint(small(dropout=nn.Dropout(0.2, inplace=True)))


def test_nothing_is_left_to_chance_and_the_generator_stays_as_it_is():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fingerprint(KINDS["dropout that never ends"])
    assert torch.equal(torch.get_rng_state(), before) and torch.get_default_dtype() == torch.float32
    torch.rand(3)
    assert fingerprint(KINDS["dropout that never ends"]) == first


def test_a_fingerprint_is_forty_numbers_that_json_keeps():
    numbers = fingerprint(STEP_1.make_network)
    assert len(numbers) == 40 and json.loads(json.dumps(numbers)) == numbers == STEP_1.fingerprint
    assert all(float(f"{number:.6g}") == number for number in numbers)
    assert same_network(numbers, [number * (1 + 1e-5) for number in numbers])
    assert not same_network(numbers, numbers[:20])


def test_it_is_what_the_network_computes():
    """In training mode, both images are normalized together; in evaluation mode, by what batch norm kept of that."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        model = small()()
    finally:
        torch.set_default_dtype(torch.float32)
    pixels = [i * i * 37 % 101 / 40 - 0.5 for i in range(2 * 28 * 28)]
    first, second = torch.tensor(pixels, dtype=torch.float64).reshape(2, 1, 28, 28)
    images = torch.stack([first, -second])
    with torch.no_grad():
        expected = [(one, other - one) for one, other in (model.train()(images), model.eval()(images))]
    assert fingerprint(small()) == pytest.approx(torch.cat([torch.cat(pair) for pair in expected]).tolist(), rel=1e-5)


def test_a_network_that_ignores_the_image_has_zeros_where_images_differ():
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 1 + 1e-12 * images.mean(dim=(1, 2, 3)).unsqueeze(1).expand(-1, 3)

    assert fingerprint(Constant) == [1, 1, 1, 0, 0, 0] * 2


def test_a_network_with_tensors_of_its_own_is_taken_in_float32():
    class Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = torch.tensor([[[[1.0, 0.0, -1.0]]]], dtype=torch.float32)  # no buffer, so it stays what it is
            self.last = nn.Linear(28 * 26, 10)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(F.conv2d(images, self.kernel).flatten(1))

    assert len(fingerprint(Edges)) == 40 and fingerprint(Edges) == fingerprint(Edges)


def test_a_network_may_change_its_images():
    class Centered(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.sub_(1))

    def make(kind: type[nn.Sequential]) -> nn.Module:
        return kind(nn.Flatten(), nn.Linear(28 * 28, 10))

    changed = fingerprint(lambda: make(Centered))
    assert changed[:20] == changed[20:] != fingerprint(lambda: make(nn.Sequential))[:20]


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (lambda images: (images, images), "the network's output for two images is tuple, expected one of shape"),
        (lambda images: images.sum(), r"is a tensor of shape \(\), expected one of shape \(2, classes\)"),
        (lambda images: images.reshape(1, -1), r"is a tensor of shape \(1, 1568\), expected"),
        (lambda images: (images - 3).log().flatten(1), "the network's output is not finite, with its initial weights"),
    ],
)
def test_an_output_that_is_not_one_row_per_image_is_named(output, complaint):
    class Odd(nn.Module):
        forward = staticmethod(output)

    with pytest.raises(ValueError, match=complaint):
        fingerprint(Odd)


def test_no_two_networks_of_the_catalog_are_alike():
    networks = {
        (recipe.network, json.dumps(recipe.switches, sort_keys=True)): recipe
        for study in catalog.studies().values()
        for recipe in study.recipes.values()
    }
    prints = {key: recipe.fingerprint for key, recipe in networks.items()}
    for (key, one), (other_key, other) in itertools.combinations(prints.items(), 2):
        assert not same_network(one, other), (key, other_key)
