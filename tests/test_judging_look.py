"""A look at networks: each mistake in a network that has it, and its absence in one that does not."""

import ast
import json
import os
import random
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from lab.judging import advice
from lab.judging.advice import Finding
from lab.judging.look import look
from lab.runs import networks, own
from models import Model_1, Model_2

ROOT = Path(__file__).parent.parent
ROOM = ROOT / "lab" / "judging"


@cache
def findings_of(make) -> list[Finding]:
    seen = look(make, "Net")
    assert seen.errors == []
    return seen.warnings


def found(make) -> dict[str, str]:
    """For each rule that finds something: what it says, and where."""
    return {finding.rule: f"{finding.where}: {finding.what}" for finding in findings_of(make)}


def network_of(forward, **layers: nn.Module) -> nn.Module:
    """A network whose forward is `forward(self, images)`."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

    Net.forward = forward
    return Net()


def body() -> nn.Sequential:
    """Six convolutions that see 22 pixels: 6 channels of 4 x 4."""
    layers: list[nn.Module] = []
    for width_in, width in pairwise((1, 4, 5, 6, 6, 6, 6)):
        layers += [nn.Conv2d(width_in, width, 3), nn.ReLU()]
    layers[4:4] = [nn.MaxPool2d(2), nn.BatchNorm2d(5)]
    return nn.Sequential(*layers)


def sound(*end: nn.Module) -> nn.Sequential:
    """A small network without a mistake, and what is put after its logits."""
    return nn.Sequential(body(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10), *end)


def ends_with(*end: nn.Module) -> nn.Sequential:
    return nn.Sequential(body(), *end)


def drops(forward) -> nn.Module:
    return network_of(forward, body=body(), fc=nn.Linear(6, 10))


# ---------------------------------------------------------------------------------------------------------------------
# Networks of the lesson, and as people write them
# ---------------------------------------------------------------------------------------------------------------------


class Published(nn.Module):
    """The example that most people start from, in functional style."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout = nn.Dropout(0.25)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout(x), 1)
        x = F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class Blocks(nn.Module):
    """A course's style: blocks of convolution, ReLU, batch norm, dropout; a 1x1 transition; average, 1x1, view."""

    def __init__(self, *last: nn.Module):
        super().__init__()
        self.convblock1 = self.block(1, 8)
        self.convblock2 = self.block(8, 14)
        self.transition = nn.Sequential(nn.Conv2d(14, 8, 1, bias=False), nn.MaxPool2d(2, 2))
        self.convblock3 = self.block(8, 12)
        self.convblock4 = self.block(12, 12)
        self.convblock5 = self.block(12, 14)
        self.convblock6 = self.block(14, 14, padding=1)
        self.gap = nn.Sequential(nn.AvgPool2d(kernel_size=6))
        self.convblock7 = nn.Sequential(nn.Conv2d(14, 10, 1, bias=False), *last)

    @staticmethod
    def block(width_in, width, padding=0):
        convolution = nn.Conv2d(width_in, width, 3, padding=padding, bias=False)
        return nn.Sequential(convolution, nn.ReLU(), nn.BatchNorm2d(width), nn.Dropout(0.05))

    def forward(self, x):
        x = self.transition(self.convblock2(self.convblock1(x)))
        x = self.convblock6(self.convblock5(self.convblock4(self.convblock3(x))))
        x = self.convblock7(self.gap(x))
        return F.log_softmax(x.view(-1, 10), dim=-1)


class Flat(nn.Module):
    """Another course's style: one attribute per layer, everything else by functions, biases everywhere."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 10, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(10)
        self.conv4 = nn.Conv2d(10, 12, 3, padding=1)
        self.bn4 = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.dropout2d(F.relu(self.bn3(self.conv3(x))), 0.1, self.training)
        x = F.max_pool2d(F.relu(self.bn4(self.conv4(x))), 2)
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """Shortcuts, in-place additions and activations, a stride in place of pooling."""

    class Block(nn.Module):
        def __init__(self, width_in, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            same = stride == 1 and width_in == width
            self.shortcut = nn.Identity() if same else nn.Conv2d(width_in, width, 1, stride, bias=False)

        def forward(self, x):
            out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)), inplace=True)))
            out += self.shortcut(x)
            return F.relu(out)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(self.Block(8, 8, 1), self.Block(8, 12, 2), self.Block(12, 14, 2))
        self.fc = nn.Linear(14, 10)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.blocks(self.stem(x)), (1, 1))
        return self.fc(torch.flatten(x, 1))


class Attention(nn.Module):
    """Patches, a position embedding and attention: no map, but every unit sees the whole image."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 7, 7)
        self.positions = nn.Parameter(torch.zeros(1, 16, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.fc(self.encoder(tokens).mean(1))


class Excited(nn.Module):
    """Squeeze and excitation: an average that is no readout."""

    def __init__(self):
        super().__init__()
        self.body = body()
        self.squeeze = nn.Linear(6, 3)
        self.excite = nn.Linear(3, 6)
        self.fc = nn.Linear(6 * 4 * 4, 10)

    def forward(self, x):
        x = self.body(x)
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean([2, 3])))))
        return self.fc((x * scale[:, :, None, None]).flatten(1))


@pytest.mark.parametrize(
    "make, expected",
    [
        (Model_2, set()),
        (lambda: Model_2(dropout=0.0), set()),
        (Model_1, {"early_pooling"}),
        (lambda: Model_1(pool_at=5, gap=True, capacity=14), set()),
        (lambda: Model_2(capacity=0), {"field"}),
        (lambda: Model_2(gap=False), {"budget", "no_activation"}),
        (networks.Narrow, set()),
        (networks.LeNet, {"budget", "no_batch_norm", "one_layer", "no_activation"}),
        (networks.TanhLeNet, {"budget", "no_batch_norm", "one_layer"}),
        (networks.DeeperLeNet, {"budget", "no_batch_norm", "one_layer", "early_pooling"}),
        (networks.Stages, {"budget", "no_batch_norm", "one_layer", "early_pooling"}),
        (networks.WebApp, {"budget", "one_layer", "early_pooling", "bias"}),
        (networks.PyTorchExample, {"budget", "no_batch_norm", "one_layer"}),
        (Published, {"budget", "no_batch_norm", "one_layer", "log_softmax"}),
        (Blocks, {"log_softmax"}),
        (Flat, {"field", "bias"}),
        (Residual, set()),
        (Attention, set()),
        (Excited, set()),
        (sound, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_known_networks_get_the_warnings_that_they_deserve_and_no_others(make, expected):
    assert set(found(make)) == expected


def test_a_network_with_shortcuts_and_two_branches_is_no_longer_than_its_longest_way():
    assert look(Residual, "Net").ingredients.convolutions == 7
    assert look(networks.Stages, "Net").ingredients.convolutions == 2


# ---------------------------------------------------------------------------------------------------------------------
# Each mistake, and the same without it
# ---------------------------------------------------------------------------------------------------------------------


def wide(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def pools_at(field: int) -> nn.Module:
    return Model_2((4, 4, 6, 6, 6), pool_at=field, capacity=6)


def local(*readout: nn.Module) -> nn.Sequential:
    """Features that see 5 x 5 pixels, 3 channels of 24 x 24."""
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), *readout)


def one_pixel(kernel: int) -> nn.Module:
    last = nn.Conv2d(6, 10, kernel, padding=kernel // 2)
    return ends_with(nn.MaxPool2d(4), last, nn.Flatten())


def unused(layer: nn.Module) -> nn.Module:
    return network_of(lambda self, x: self.used(x), used=sound(), spare=layer)


def detaches(self, x):
    return self.fc(self.body(x).detach().mean((2, 3)))


def kept_in(container) -> nn.Module:
    def forward(self, x):
        return self.layers[0](self.body(x).mean((2, 3)))

    return network_of(forward, body=body(), layers=container([nn.Linear(6, 10)]))


def makes_a_layer(self, x):
    return nn.Linear(10, 10)(F.relu(self.fc(self.body(x).mean((2, 3)))))


def raw_tensor(register) -> nn.Module:
    def forward(self, x):
        return self.body(x).mean((2, 3)) @ self.weights

    return network_of(forward, body=body(), weights=register(torch.rand(6, 10)))


def biased(bias: bool, *between: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5, bias=bias), *between, nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Conv2d(4, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def pair(*between: nn.Module, widths=(4, 8), kernel=3) -> nn.Module:
    first, second = widths
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, first, kernel), *between, nn.Conv2d(first, second, 3)),
        *(nn.ReLU(), nn.Conv2d(second, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def normalized(own: bool) -> nn.Module:
    def forward(self, x):
        x = F.relu(self.first(self.conv1(x)))
        x = F.relu((self.second if own else self.first)(self.conv2(x)))
        return self.fc(x.mean((2, 3)))

    layers = {"first": nn.BatchNorm2d(4), **({"second": nn.BatchNorm2d(4)} if own else {})}
    convolutions = {"conv1": nn.Conv2d(1, 4, 3, bias=False), "conv2": nn.Conv2d(4, 4, 3, bias=False)}
    return network_of(forward, **convolutions, **layers, fc=nn.Linear(4, 10))


def always_drops(self, x):
    return self.fc(F.dropout(self.body(x).mean((2, 3)), 0.1))


def drops_in_training(self, x):
    return self.fc(F.dropout(self.body(x).mean((2, 3)), 0.1, training=self.training))


def makes_a_dropout(self, x):
    return self.fc(nn.Dropout(0.1)(self.body(x).mean((2, 3))))


def is_noisy(self, x):
    return self.fc(self.body(x + torch.randn_like(x)).mean((2, 3)))


def is_noisy_in_training(self, x):
    return self.fc(self.body(x + torch.randn_like(x) * self.training).mean((2, 3)))


def centers_the_batch(self, x):
    return self.fc(self.body(x - x.mean()).mean((2, 3)))


def centers_each_image(self, x):
    return self.fc(self.body(x - x.mean((1, 2, 3), keepdim=True)).mean((2, 3)))


def normalizes_by_batch(track: bool) -> nn.Module:
    norm = nn.BatchNorm2d(4, track_running_stats=track)
    return nn.Sequential(nn.Conv2d(1, 4, 25, bias=False), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 10))


def squeezes(self, x):
    return self.fc(F.adaptive_avg_pool2d(self.body(x), 1).squeeze())


def flattens(self, x):
    return self.fc(F.adaptive_avg_pool2d(self.body(x), 1).flatten(1))


def counts(only_in_training: bool) -> nn.Module:
    def forward(self, x):
        if self.training or not only_in_training:
            self.seen += len(x)
        return self.net(x)

    network = network_of(forward, net=sound())
    network.register_buffer("seen", torch.zeros(()))
    return network


def takes_the_log(self, x):
    return self.fc(self.body(x).mean((2, 3))).log()


def takes_a_root(self, x):
    logits = self.fc(self.body(x).mean((2, 3)))
    return logits + (logits - logits).sqrt()


def loses_the_image(self, x):
    return self.fc(0 * self.body(x).mean((2, 3)))


def deep(*between: nn.Module) -> nn.Module:
    blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), *between, nn.ReLU()) for _ in range(12)]
    end = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    return nn.Sequential(nn.Conv2d(1, 8, 20), nn.ReLU(), *blocks, *end)


def skips(chance: float) -> nn.Module:
    def forward(self, x):
        x = self.body(x)
        if torch.rand(()) >= chance:
            x = x + F.relu(self.sometimes(x))
        return self.fc(x.mean((2, 3)))

    return network_of(forward, body=body(), sometimes=nn.Conv2d(6, 6, 3, padding=1), fc=nn.Linear(6, 10))


def seeds_itself() -> nn.Module:
    features = body()
    torch.manual_seed(7)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))


def seeds_itself_first() -> nn.Module:
    torch.manual_seed(7)
    return sound()


def drawn_by(generator) -> nn.Module:
    network = sound()
    with torch.no_grad():
        network[-1].weight.copy_(torch.as_tensor([generator() for _ in range(60)]).view(10, 6))
    return network


def filled(value: float | None) -> nn.Module:
    network = wide(8)
    for parameter in network.parameters():
        if value is not None:
            nn.init.constant_(parameter, value)
    return network


def prints(self, x):
    print(x.shape)
    return self.fc(self.body(x).mean((2, 3)))


def log_softmax_without_dim(self, x):
    return F.log_softmax(self.fc(self.body(x).mean((2, 3))))


def early() -> nn.Module:
    """A network that pools at once, and sees little."""
    layers = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 10))


ONE = sound()  # a network that was built before

MISTAKES = [
    ("budget", lambda: wide(11), lambda: wide(8), "8,755 parameters"),
    ("field", lambda: local(nn.Conv2d(3, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), sound, "5 x 5 pixels"),
    ("field", lambda: local(nn.Conv2d(3, 10, 24), nn.Flatten()), sound, "readout only adds up"),
    (
        "field",
        lambda: local(nn.Flatten(), nn.Linear(1728, 10)),
        lambda: local(nn.Flatten(), nn.Linear(1728, 9), nn.ReLU(), nn.Linear(9, 10)),
        "readout only adds up",
    ),
    ("no_batch_norm", lambda: Model_1(batch_norm=False), Model_1, "At Step 3's rate of 0.2, such a network may learn"),
    ("early_pooling", lambda: pools_at(3), lambda: pools_at(5), "features.0.1 (MaxPool2d): The maps are pooled at a"),
    ("early_pooling", lambda: nn.Sequential(nn.AvgPool2d(2), *wide(8)[:1], nn.Linear(196, 10)), sound, "before any"),
    (
        "one_layer",
        lambda: wide(8),
        sound,
        "layer 1 (Linear): 6,280 of 6,370 parameters are in one layer. It has its own",
    ),
    ("one_layer", lambda: ends_with(nn.Flatten(), nn.Linear(96, 20), nn.ReLU(), nn.Linear(20, 10)), sound, "global av"),
    ("empty_kernel", lambda: one_pixel(3), lambda: one_pixel(1), "layer 2 (Conv2d): The map is one pixel, so a 3x3"),
    ("batch_norm_last", lambda: sound(nn.BatchNorm1d(10)), sound, "layer 4 (BatchNorm1d)"),
    ("batch_norm_last", lambda: Blocks(nn.BatchNorm2d(10)), Blocks, "convblock7.1 (BatchNorm2d)"),
    ("activation_last", lambda: sound(nn.ReLU()), sound, "layer 4 (ReLU): relu on the logits cuts off negative"),
    ("activation_last", lambda: Blocks(nn.ReLU()), Blocks, "convblock7.1 (ReLU)"),
    ("activation_last", lambda: sound(nn.Sigmoid()), sound, "sigmoid on the logits limits"),
    ("dropout_last", lambda: sound(nn.Dropout(0.1)), lambda: sound(nn.Dropout(0.0)), "layer 4 (Dropout)"),
    ("softmax", lambda: sound(nn.Softmax(dim=1)), lambda: sound(nn.LogSoftmax(dim=1)), "cannot fall below 1.46"),
    (
        "softmax",
        lambda: drops(lambda self, x: (y := self.fc(self.body(x).mean((2, 3))).exp()) / y.sum(1, True)),
        sound,
        "",
    ),
    ("softmax", lambda: sound(nn.Softmax(dim=1), nn.LogSoftmax(dim=1)), sound, "layer 4 (Softmax)"),
    ("softmax_over_batch", lambda: sound(nn.LogSoftmax(dim=0)), lambda: sound(nn.LogSoftmax(dim=1)), "dimension 0"),
    ("log_softmax", lambda: sound(nn.LogSoftmax(dim=1)), sound, "layer 4 (LogSoftmax): The network returns log-prob"),
    ("log_softmax", lambda: drops(lambda s, x: s.fc(s.body(x).mean((2, 3))).softmax(1).log()), sound, "log, line"),
    ("never_runs", lambda: unused(nn.Linear(3, 2)), sound, "spare (Linear): forward never runs this layer. Its 8 par"),
    ("never_runs", lambda: unused(nn.Dropout(0.5)), lambda: unused(nn.Identity()), "spare (Dropout)"),
    ("never_runs", lambda: unused(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 3))), sound, "spare (Sequential)"),
    ("no_gradient", lambda: drops(detaches), sound, "body.0.weight; "),
    ("no_gradient", lambda: unused(nn.ParameterList([torch.ones(3)])), sound, "spare.0: No gradient reaches"),
    ("never_runs", lambda: skips(1.0), lambda: skips(0.5), "sometimes (Conv2d)"),
    ("not_registered", lambda: kept_in(list), lambda: kept_in(nn.ModuleList), "70 weights are not registered"),
    ("not_registered", lambda: drops(makes_a_layer), sound, "creates a new layer for each batch, with 110 random"),
    (
        "not_registered",
        lambda: raw_tensor(torch.Tensor.requires_grad_),
        lambda: raw_tensor(nn.Parameter),
        "matmul, line",
    ),
    ("bias", lambda: biased(True), lambda: biased(False), "layer 0 (Conv2d): 4 biases are wasted"),
    ("bias", lambda: biased(True, nn.MaxPool2d(2)), lambda: biased(True, nn.ReLU()), "layer 0 (Conv2d): 4 biases"),
    ("no_activation", pair, lambda: pair(nn.ReLU()), "layer 2 (Conv2d) -> layer 3 (Conv2d)"),
    (
        "no_activation",
        lambda: pair(nn.BatchNorm2d(4), nn.Dropout(0.1)),
        lambda: pair(nn.MaxPool2d(2)),
        "layer 2 (Conv2d)",
    ),
    (
        "no_activation",
        lambda: pair(widths=(6, 8), kernel=1),
        lambda: pair(widths=(2, 8), kernel=1),
        "layer 2",
    ),  # a bottleneck saves
    ("shared_batch_norm", lambda: normalized(own=False), lambda: normalized(own=True), "first (BatchNorm2d), line"),
    ("dropout_in_evaluation", lambda: drops(always_drops), lambda: drops(drops_in_training), "dropout, line"),
    ("dropout_in_evaluation", lambda: drops(makes_a_dropout), lambda: sound(nn.Dropout(0.1)), "dropout, line"),
    ("unsteady", lambda: drops(is_noisy), lambda: drops(is_noisy_in_training), "something random stays on"),
    ("batch_decides", lambda: drops(centers_the_batch), lambda: drops(centers_each_image), "over the whole batch"),
    (
        "batch_decides",
        lambda: normalizes_by_batch(track=False),
        lambda: normalizes_by_batch(track=True),
        "layer 1 (Batch",
    ),
    ("one_image", lambda: drops(squeezes), lambda: drops(flattens), "the shape (10,), expected (1, 10). squeeze()"),
    ("remembers", lambda: counts(only_in_training=False), lambda: counts(only_in_training=True), "seen: "),
    ("nan", lambda: drops(takes_the_log), sound, "returns NaN"),
    ("nan", lambda: drops(takes_a_root), sound, "Gradients of the loss are NaN"),
    ("same_for_all", lambda: drops(loses_the_image), sound, "the same logits"),
    ("fading", deep, lambda: deep(nn.BatchNorm2d(8)), "less than 0.1% of their size"),
    ("seed", lambda: ONE, sound, "hand over its class"),
    ("seed", seeds_itself_first, sound, "Does the constructor set a seed"),
    ("seed", seeds_itself, sound, "The constructor sets a seed of its own"),
    (
        "seed",
        lambda: drawn_by(random.random),
        lambda: drawn_by(lambda: torch.rand(())),
        "torch.manual_seed does not set",
    ),
    ("seed", lambda: sound(*[nn.Linear(10, 10)] * int(torch.rand(()) > 0.6)), sound, "build different networks"),
    ("twins", lambda: filled(0.1), lambda: filled(None), "its units compute the same"),
    ("prints", lambda: drops(prints), sound, "of test_judging_look.py: forward prints"),
    ("python_warns", lambda: drops(log_softmax_without_dim), sound, "Python warns: Implicit dimension choice"),
]


@pytest.mark.parametrize("rule, bad, good, says", MISTAKES, ids=[rule for rule, *_ in MISTAKES])
def test_a_mistake_is_found_where_it_is_and_only_there(rule, bad, good, says):
    assert says in found(bad)[rule]
    assert rule not in found(good)


# Each rule's kind, and a word that its finding and the section that it names have in common
RULES = {
    "nan": ("mistake", "loss"),
    "same_for_all": ("mistake", "same logits"),
    "softmax_over_batch": ("mistake", "logits"),
    "softmax": ("mistake", "cross-entropy"),
    "activation_last": ("mistake", "logits"),
    "dropout_last": ("mistake", "dropout"),
    "no_activation": ("mistake", "layer"),
    "never_runs": ("mistake", "layer"),
    "no_gradient": ("mistake", "gradient"),
    "not_registered": ("mistake", "weights"),
    "dropout_in_evaluation": ("mistake", "dropout"),
    "unsteady": ("mistake", "evaluation mode"),
    "batch_decides": ("mistake", "evaluation mode"),
    "remembers": ("mistake", "evaluation mode"),
    "one_image": ("mistake", "batch"),
    "seed": ("mistake", "seed"),
    "twins": ("mistake", "weights"),
    "shared_batch_norm": ("mistake", "batch norm"),
    "batch_norm_last": ("mistake", "batch norm"),
    "budget": ("advice", "budget"),
    "fading": ("advice", "batch norm"),
    "no_batch_norm": ("advice", "batch norm"),
    "field": ("advice", "pixels"),
    "early_pooling": ("advice", "stroke"),
    "empty_kernel": ("advice", "kernel"),
    "one_layer": ("advice", "parameters"),
    "bias": ("advice", "batch norm"),
    "python_warns": ("advice", ""),
    "log_softmax": ("note", "cross-entropy"),
    "prints": ("note", "batch"),
}


@cache
def sections() -> dict[str, str]:
    """The text of each section and exercise of the three steps, by what a finding calls it."""
    texts: dict[str, str] = {}
    for step in (1, 2, 3):
        cells = json.loads((ROOT / f"Session7_Step{step}.ipynb").read_text())["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for part in re.split(r"^(?=##)", text, flags=re.MULTILINE):
            if heading := re.match(r"## (\d+)\.|### Exercise (\w+):", part):
                kind = f"section {heading[1]}" if heading[1] else f"exercise {heading[2]}"
                texts[f"Step {step}, {kind}"] = part.lower()
    return texts


def test_every_rule_is_provoked_and_every_section_named_is_there():
    source = (ROOM / "advice.py").read_text()
    rules = set(re.findall(r'Finding\(\s*"(\w+)"', source))
    assert rules == {rule for rule, *_ in MISTAKES} | {"not_applied"} == RULES.keys() | {"not_applied"}
    named = re.findall(r"Step \d, (?:section|exercise) \w+", source)
    assert len(named) > len(rules) - 3 and set(named) <= sections().keys()


@pytest.mark.parametrize("rule, bad", [case[:2] for case in MISTAKES], ids=[rule for rule, *_ in MISTAKES])
def test_a_finding_has_its_kind_and_names_a_section_that_speaks_of_it(rule, bad):
    kind, word = RULES[rule]
    one = next(finding for finding in findings_of(bad) if finding.rule == rule)
    assert one.kind == kind
    if word:
        assert word in one.what.lower() and word in sections()[one.section]
    else:
        assert one.section == ""


def test_the_look_shows_mistakes_advice_and_notes_under_their_titles():
    seen = look(lambda: sound(nn.ReLU(), nn.LogSoftmax(dim=1)), "Net")
    assert [(one.rule, one.kind) for one in seen.warnings] == [("activation_last", "mistake"), ("log_softmax", "note")]
    said = str(seen)
    assert said.index("Mistakes, to mend before you train:\n- layer 4") < said.index("Good to know:\n- layer 5")
    assert "Look at this" not in said and "Nothing looks wrong." not in said
    assert [one["kind"] for one in seen.as_dict()["warnings"]] == ["mistake", "note"]
    advised = str(look(lambda: wide(8), "Net"))
    assert "\nLook at this before you train:\n" in advised and "Mistakes" not in advised
    noted = str(look(lambda: sound(nn.LogSoftmax(dim=1)), "Net"))
    assert "\nGood to know:\n" in noted and noted.endswith("Nothing looks wrong.")


def test_the_network_that_the_lessons_notebook_begins_with_has_no_mistake():
    notebook = json.loads((ROOT / "lab" / "Your_Network.ipynb").read_text())
    (cell,) = (cell for cell in notebook["cells"] if "submission" in cell["metadata"].get("tags", []))
    given = {"nn": nn, "F": F}
    exec("".join(cell["source"]), given)
    seen = look(given["Net"], "Net")
    assert {one.kind for one in seen.warnings} == {"advice"}
    outputs = ["".join(one.get("text", "")) for cell in notebook["cells"] for one in cell.get("outputs", [])]
    assert f"{seen}\n" in outputs


def test_a_rule_is_run_once(monkeypatch):
    runs = []
    pooled_early = advice._pooled_early
    monkeypatch.setattr(advice, "_pooled_early", lambda seen: runs.append(1) or pooled_early(seen))
    assert {"field", "early_pooling"} <= {one.rule for one in look(early, "Net").warnings}
    assert len(runs) == 1


def test_a_rule_that_fails_on_a_network_spares_it_and_stops_no_other(monkeypatch):
    def stumbles(seen):
        raise IndexError

    monkeypatch.setattr(advice, "RULES", (stumbles, advice.over_budget))
    seen = look(lambda: wide(11), "Net")
    assert [(one.rule, one.kind) for one in seen.warnings] == [("budget", "advice"), ("not_applied", "note")]
    assert "stumbles" in str(seen) and not seen.errors


# ---------------------------------------------------------------------------------------------------------------------
# Networks that cannot be trained
# ---------------------------------------------------------------------------------------------------------------------


def computes(forward) -> nn.Module:
    return network_of(forward, fc=nn.Linear(784, 10))


class NoSuper(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(784, 10)


class NeedsWidth(nn.Module):
    def __init__(self, width):
        super().__init__()


class TrainsItself(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))

    def train(self, loader):
        return self


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def raises(error):
    def forward(self, x):
        raise error

    return computes(forward)


def in_place(self, x):
    y = self.fc(x.flatten(1)).sigmoid()
    y *= y
    return y


def without_gradient(self, x):
    with torch.no_grad():
        return self.fc(x.flatten(1))


def trips_in_training(self, x):
    return self.fc(x.flatten(int(not self.training) or 9))


def rows_of_a_view(self, x):
    return self.fc(torch.cat([x, x], 1).view(-1, 784))


@pytest.mark.parametrize(
    "make, says",
    [
        (NoSuper, r"Building the network raises AttributeError at line .* Call super\(\).__init__\(\) first."),
        (
            NeedsWidth,
            "Building the network raises TypeError: .* missing 1 required positional argument: 'width'. It is built .*",
        ),
        (lambda: Model_1, "Building the network gives the class Model_1, expected an object: call it."),
        (lambda: "net", "Building the network gives an object of the class str, expected an nn.Module."),
        (lambda: None, "Building the network gives nothing, expected an nn.Module."),
        (lambda: sys.exit(3), "Building the network raises SystemExit at line .*: 3."),
        (TrainsItself, "In training mode, the network raises TypeError: .* missing 1 required .*"),
        (
            lambda: raises(ZeroDivisionError()),
            "The network raises ZeroDivisionError at line .* of test_judging_look.py.",
        ),
        (lambda: raises(KeyError("k" * 10_000)), "The network raises KeyError .{,300}"),
        (lambda: raises(RuntimeError("out of\nluck")), "The network raises RuntimeError at line .*: out of."),
        (lambda: raises(Unspeakable()), "The network raises Unspeakable at line .*"),
        (lambda: computes(lambda self, x: self.fc(x)), ".* gets 28 features and was made for 784. Flatten before it.*"),
        (lambda: nn.Sequential(nn.Linear(784, 10)), r".* It takes flat images of shape \(N, 784\).*"),
        (lambda: nn.Sequential(nn.Conv2d(3, 10, 28), nn.Flatten()), ".* It takes images of 3 colors.*"),
        (lambda: nn.Sequential(nn.Conv2d(1, 10, 32), nn.Flatten()), ".* It takes images of 32 x 32 pixels.*"),
        (lambda: computes(lambda self, x: self.fc(x.view(128, -1))), ".* It takes only batches of 128.*"),
        (lambda: computes(lambda self, x: self.fc(x.view(784))[None]), ".* It takes one image at a time.*"),
        (
            lambda: computes(lambda self, x: self.fc(x.flatten(1))[:, :, None, None]),
            r".* \(7, 10, 1, 1\).* End with .*",
        ),
        (lambda: nn.Conv2d(1, 10, 3), r".* \(7, 10, 26, 26\).* Average over the positions.*"),
        (lambda: wide(8)[:2], r"The output for 7 images has the shape \(7, 8\), expected \(7, 10\). Let the last .*"),
        (lambda: computes(rows_of_a_view), r".* \(14, 10\), .* The values of one image went to several rows.*"),
        (lambda: computes(lambda self, x: self.fc(x.flatten(1)).mean()), r".* has the shape \(\), expected.*"),
        (lambda: computes(lambda self, x: None), r"forward returns nothing: does it end with return\?"),
        (
            lambda: computes(lambda self, x: (self.fc(x.flatten(1)), x)),
            "forward returns an object of the class tuple.*",
        ),
        (lambda: computes(lambda self, x: self.fc(x.flatten(1)).argmax(1)), "forward returns int64 numbers.*"),
        (lambda: computes(without_gradient), "No gradient reaches the parameters.*"),
        (lambda: computes(trips_in_training), "In training mode, the network raises IndexError at line .*"),
        (lambda: computes(in_place), "loss.backward.. raises RuntimeError: .* destroyed what backward needs."),
        (lambda: sound().requires_grad_(False), "The network has no trainable parameters."),
        (lambda: nn.Sequential(nn.LazyLinear(10), nn.Linear(8, 10)), ".* gets 10 features and was made for 8."),
        (lambda: wide(8).double(), "The network raises RuntimeError: .* same dtype.*"),
    ],
)
def test_what_cannot_be_trained_is_an_error_in_one_sentence(make, says):
    seen = look(make, "Net")
    (error,) = seen.errors
    assert re.fullmatch(says, error)
    assert "It cannot be trained:" in str(seen) and "Traceback" not in str(seen)
    assert json.loads(json.dumps(seen.as_dict()))["errors"] == [error]


def test_a_network_with_all_its_layers_in_a_list_has_no_parameters_and_is_told_why():
    def forward(self, x):
        return self.layers[0](x.flatten(1))

    seen = look(lambda: network_of(forward, layers=[nn.Linear(784, 10)]), "Net")
    assert seen.errors == ["The network has no trainable parameters."]
    assert "not_registered" in {finding.rule for finding in seen.warnings}


# ---------------------------------------------------------------------------------------------------------------------
# What is seen
# ---------------------------------------------------------------------------------------------------------------------


def pools_unequally(self, x):
    return self.fc(F.adaptive_avg_pool2d(self.body(x), 3).mean((2, 3)))


def averages(how):
    return look(lambda: network_of(how, body=body(), fc=nn.Linear(6, 10)), "Net").ingredients.global_average


def test_a_look_at_model_2_shows_its_numbers():
    seen = look(Model_2, "Model_2")
    assert (seen.parameters, seen.frozen, seen.within_budget) == (7_750, 0, True)
    assert (seen.receptive_field, seen.last_map) == (22, (40, 4, 4))
    assert seen.table == models.layer_table(Model_2())
    assert seen.ingredients.batch_norm == 6 and seen.ingredients.dropout == (0.1,)
    assert seen.ingredients.global_average and seen.ingredients.capacity_layer
    lines = str(seen).splitlines()
    assert lines[0] == "Model_2" and lines[-1] == "Nothing looks wrong."
    assert "parameters         7,750, fewer than 8,000: yes" in lines
    assert "receptive field    22 of 28 pixels, at the last map, 40 x 4 x 4" in lines


@pytest.mark.parametrize("switch, value", [("batch_norm", False), ("dropout", 0.0), ("capacity", 0), ("gap", False)])
def test_each_ingredient_of_the_lesson_is_missed(switch, value):
    before, after = (look(make, "Net").ingredients for make in (Model_2, lambda: Model_2(**{switch: value})))
    names = {"batch_norm": "batch_norm", "dropout": "dropout", "capacity": "capacity_layer", "gap": "global_average"}
    changed = {switch for switch, name in names.items() if bool(getattr(before, name)) != bool(getattr(after, name))}
    assert changed == {switch}


def test_a_global_average_is_recognized_in_every_style():
    assert averages(lambda self, x: self.fc(F.adaptive_avg_pool2d(self.body(x), (1, 1)).flatten(1)))
    assert averages(lambda self, x: self.fc(F.avg_pool2d(self.body(x), 4).view(-1, 6)))
    assert averages(lambda self, x: self.fc(self.body(x).mean([2, 3])))
    assert averages(lambda self, x: self.fc(self.body(x).mean(-1).mean(-1)))
    assert averages(lambda self, x: self.fc(torch.mean(self.body(x).flatten(2), dim=2)))
    assert not averages(lambda self, x: self.fc(self.body(x).amax((2, 3))))
    assert not averages(lambda self, x: self.fc(F.avg_pool2d(self.body(x), 2)[:, :, 0, 0]))
    assert not look(Excited, "Net").ingredients.global_average


def test_of_several_branches_the_field_is_that_of_the_one_that_sees_most():
    def forward(self, x):
        deep, flat = self.body(x), F.relu(self.flat(x))
        return self.fc(torch.cat([deep.mean((2, 3)), flat.mean((2, 3))], 1))

    seen = look(lambda: network_of(forward, body=body(), flat=nn.Conv2d(1, 4, 3), fc=nn.Linear(10, 10)), "Net")
    assert (seen.receptive_field, seen.last_map) == (22, (6, 4, 4)) and not seen.warnings


def test_everything_else_is_shown_where_there_is_no_layer_table():
    seen = look(lambda: drops(pools_unequally), "Net")
    assert (seen.table, seen.receptive_field) == (None, None)
    assert "makes 3 unequal parts of 4 pixels" in seen.no_table and seen.no_table in " ".join(str(seen).split())
    assert seen.parameters and seen.ingredients.convolutions == 6 and not seen.errors


def test_the_table_leaves_out_what_never_runs():
    seen = look(lambda: unused(nn.Linear(3, 2)), "Net")
    assert sum(row.parameters for row in seen.table) == seen.parameters - 8


def test_frozen_parameters_are_counted_apart():
    network = wide(8)
    network[1].requires_grad_(False)
    seen = look(lambda: network, "Net")
    assert (seen.parameters, seen.frozen) == (90, 6_280)
    assert "6,280 frozen ones do not count" in str(seen)


def test_lazy_layers_are_counted_when_they_know_their_inputs():
    def make():
        return nn.Sequential(nn.LazyConv2d(4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10))

    seen = look(make, "Net")
    assert seen.parameters == 5 * 5 * 4 + 4 + 576 * 10 + 10 and not seen.errors
    assert {finding.rule for finding in seen.warnings} == {"field", "one_layer"}
    lazy = make()
    look(lambda: lazy, "Net")
    assert isinstance(lazy[0].weight, nn.UninitializedParameter)


@pytest.mark.parametrize("make", [Published, Flat, networks.LeNet, lambda: drops(makes_a_layer), NoSuper])
def test_what_is_printed_fits_a_terminal_and_as_dict_is_json(make):
    seen = look(make, "Net")
    assert max(map(len, str(seen).splitlines())) <= 100
    contents = json.loads(json.dumps(seen.as_dict()))
    assert contents["parameters"] == seen.parameters and contents["budget"] == 8_000
    assert [finding["rule"] for finding in contents["warnings"]] == [finding.rule for finding in seen.warnings]
    assert all(finding.what in " ".join(str(seen).split()).replace("- ", "") for finding in seen.warnings)


# ---------------------------------------------------------------------------------------------------------------------
# Manners
# ---------------------------------------------------------------------------------------------------------------------


def generators() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002 (the global one)


def draws_from_all(self, x):
    torch.manual_seed(random.randrange(9))
    np.random.rand()  # noqa: NPY002 (as people write it)
    torch.set_default_dtype(torch.float64)
    return drops_in_training(self, x) + torch.randn(10)


@pytest.mark.parametrize("make", [Model_2, lambda: drops(draws_from_all), lambda: raises(OSError()), seeds_itself])
def test_generators_threads_and_dtype_stay_as_they_were(make):
    threads, before = torch.get_num_threads(), generators()
    look(make, "Net")
    assert generators() == before
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == torch.float32


def test_a_network_that_runs_on_a_gpu_alone_is_looked_at_there(monkeypatch):
    """As far as a machine without one can tell: a stand-in for the GPU, and what it was told."""
    seeds = []

    def forward(self, x):
        if not self.on_gpu:
            raise RuntimeError("Expected all tensors to be on the same device")
        return self.net(x)

    def make():
        network = network_of(forward, net=sound())
        network.on_gpu = False
        return network

    def cuda(network):
        network.on_gpu = True
        return network

    assert "on the same device" in look(make, "Net").errors[0]
    torch.manual_seed(34)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    monkeypatch.setattr(nn.Module, "cuda", cuda)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    assert found(make) == {}
    assert seeds == [0, 0, 1, 34]


def test_a_network_that_was_built_before_stays_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 4, 5, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(2304, 10))
    network[1].eval()
    network(torch.rand(2, 1, 28, 28)).sum().backward()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    assert not look(lambda: network, "Net").errors
    assert [module.training for module in network] == [True, False, True, True]
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(network.parameters(), gradients))
    assert not any("forward" in module.__dict__ for module in network.modules())


def test_a_network_that_pytorch_does_not_copy_is_looked_at_unless_it_is_the_only_one():
    def make():
        network = sound()
        network.doubled = network[0][0].weight * 2
        return network

    assert look(make, "Net").errors == []
    network = make()
    (error,) = look(lambda: network, "Net").errors
    assert "cannot be copied" in error
    assert network.training


def test_what_a_network_prints_is_not_shown(capfd):
    def make():
        print("building")
        return drops(prints)

    look(make, "Net")
    assert capfd.readouterr() == ("", "")


def test_only_light_modules_are_imported():
    allowed = sys.stdlib_module_names | {"torch", "models"}
    for name in ("look", "advice", "calls", "__init__"):
        for node in ast.walk(ast.parse((ROOM / f"{name}.py").read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert all(
                n.split(".")[0] in allowed or n in ("lab.judging", "lab.judging.advice", "lab.judging.calls")
                for n in names
            )


class Wants(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


def test_a_class_that_wants_arguments_is_told_how_it_is_built():
    (error,) = look(own.find(own.give(Wants)).make, "Net").errors
    assert "own.py" not in error
    assert error.endswith("'width'. It is built without arguments: give each of them a default.")


def test_a_network_that_pools_too_early_is_not_told_to_pool_earlier():
    assert found(lambda: Model_2(capacity=0))["field"].endswith("Add convolutions, or pool earlier.")
    seen = found(early)
    assert "early_pooling" in seen and seen["field"].endswith("Add convolutions.")


def test_what_breaks_a_network_comes_before_what_makes_it_weaker():
    seen = look(lambda: nn.Sequential(Model_1(), nn.ReLU()), "Net")
    rules = [finding.rule for finding in seen.warnings]
    assert rules.index("activation_last") < rules.index("early_pooling")


NEVER_ENDS = """
from torch import nn
from lab.judging import look as looking

class NeverEnds(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(784, 10)

    def forward(self, x):
        while True:
            try:
                y = self.layer(x.flatten(1))
            except Exception:
                pass

looking.MOST_SECONDS = 5
print(*looking.look(NeverEnds, "NeverEnds").errors)
"""


def test_a_loop_that_never_ends_is_an_error_with_its_place(tmp_path):
    """In a process of its own: there is such a limit in the main thread alone, where pytest's workers may not run tests."""
    (tmp_path / "never.py").write_text(NEVER_ENDS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "never.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert re.fullmatch(
        r"The network did not end within 5 seconds on 7 images, and was at line \d+ of never.py: does a loop there never stop\?\n",
        run.stdout,
    )
