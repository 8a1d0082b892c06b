"""A network as a list of functions: it gives the network's own bits, and holds nothing but weights."""

import copy
import json
import random

import pytest
import torch
import torch.nn.functional as F
from helpers import CPU
from torch import nn

import models
import utils
from lab.grading import replay
from lab.grading.replay import Replay, Unrecorded, record
from lab.runs import networks
from tests.make_class import the_class


def network_of(name):
    """A network of the class of 30."""
    found = {}
    exec(compile(the_class()[name].source, name, "exec"), found)
    return found["Net"]()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.LSTM(28, 6, batch_first=True)
        self.readout = nn.Linear(6, 10)

    def forward(self, images):
        return self.readout(self.rows(images.squeeze(1))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 7, 7)
        self.place = nn.Parameter(torch.zeros(1, 17, 8))
        self.start = nn.Parameter(torch.zeros(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True)
        self.readout = nn.Linear(8, 10)

    def forward(self, images):
        found = self.patches(images).flatten(2).transpose(1, 2)
        found = torch.cat([self.start.expand(images.shape[0], -1, -1), found], dim=1) + self.place
        return self.readout(self.block(found)[:, 0])


class Tied(nn.Module):
    """One weight under two names, a frozen one, a buffer, an in-place function, a number for each half of a batch."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(28, 28), nn.Linear(28, 28)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(784, 10).requires_grad_(False)
        self.register_buffer("mask", torch.ones(28, 28).tril())

    def forward(self, images):
        rows = F.relu(self.second(F.relu(self.first(images.squeeze(1) * self.mask), inplace=True)))
        halves = torch.split(rows, len(images) // 2)
        return self.frozen(torch.cat(halves).view(len(images), -1)) / 2


NETWORKS = {
    "Model_1": models.Model_1,
    "Model_2": models.Model_2,
    "Narrow": networks.Narrow,
    "WebApp": networks.WebApp,
    "LeNet": networks.LeNet,
    **{name: lambda name=name: network_of(name) for name in ("max", "nia", "oli", "pia", "quin", "lea")},
    "Recurrent": Recurrent,
    "Attention": Attention,
    "Tied": Tied,
}


def trained(model, few):
    """Its state and its numbers after two epochs."""
    transform = utils.make_transform({"rotation": 10})
    loader = utils.Loader(few[0][:192], 64, transform, shuffle=True)
    tested = utils.Loader(few[1], 100, utils.make_transform())
    optimizer = utils.make_optimizer(model, 0.05)
    scheduler = utils.make_scheduler(optimizer, 1, 0.5)
    history = utils.fit(model, loader, tested, optimizer, scheduler, epochs=2, seed=3, plain_epochs=1, show=False)
    return model.state_dict(), (history.train_loss, history.test_loss, history.test_correct)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_replay_trains_and_answers_to_the_same_bits(name, few):
    torch.manual_seed(1)
    model = NETWORKS[name]()
    script = json.loads(json.dumps(record(copy.deepcopy(model))))
    again = Replay(script, {key: tensor.detach().clone() for key, tensor in model.state_dict().items()})
    assert list(again.state_dict()) == list(model.state_dict())
    state, numbers = trained(model, few)
    state_again, numbers_again = trained(again, few)
    if name == "Attention":  # PyTorch takes a faster way in evaluation mode, which a recording does not see
        numbers, numbers_again = numbers[0], numbers_again[0]
    assert numbers == numbers_again
    assert all(torch.equal(state[key], state_again[key]) for key in state)


def test_a_replay_keeps_what_is_shared_and_what_is_frozen():
    model = Tied()
    again = Replay(record(model), dict(model.state_dict()))
    assert again.first.weight is again.second.weight
    assert [name for name, weight in again.named_parameters() if not weight.requires_grad] == [
        "frozen.weight",
        "frozen.bias",
    ]
    assert dict(again.named_buffers()).keys() == {"mask"}


def test_maps_are_let_go_once_they_are_used():
    script = record(models.Model_2())
    last = replay._last_uses(script["eval"])
    assert sorted(done for several in last.values() for done in several) == list(range(len(script["eval"]["calls"])))
    assert script["eval"]["output"] == len(script["eval"]["calls"])


def linear(forward):
    """A linear layer with a forward of this kind."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(784, 10)
            self.plain = torch.ones(10)
            self.register_buffer("seen", torch.zeros(10))

        def forward(self, images):
            return forward(self, images, self.linear(images.flatten(1)))

    return Net()


def rebinds(net, images, logits):
    net.seen = net.seen + logits.mean(0).detach()
    return logits


class Double(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return 2 * values

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    "forward, why",
    [
        (lambda net, images, logits: logits * 2 if images.mean() > 0 else logits, r"bool\(\) reads values"),
        (lambda net, images, logits: logits * float(images[0, 0, 3, 3]), r"float\(\) reads values"),
        (lambda net, images, logits: logits * len(images.unique()), "made by|the same each time|size of the batch"),
        (lambda net, images, logits: torch.from_numpy(logits.detach().numpy()), r"numpy\(\) reads values"),
        (lambda net, images, logits: logits + net.plain, "neither a weight nor a buffer"),
        (lambda net, images, logits: logits + torch.tensor([1.0] * 10), "made by tensor"),
        (
            lambda net, images, logits: logits + torch.kron(logits[:1], logits[:, :1]),
            "made by kron",
        ),
        (lambda net, images, logits: logits + torch.tril_indices(10, 1)[:1], "made by tril_indices"),
        (lambda net, images, logits: Double.apply(logits), "an autograd function of its own, Double"),
        (lambda net, images, logits: (logits.register_hook(print), logits)[1], "it calls register_hook"),
        (lambda net, images, logits: logits * random.random(), "does not do the same each time"),
        (lambda net, images, logits: logits / (1 + len(images)), "depends on the size of the batch"),
        (
            lambda net, images, logits: sum((logits * number for number in range(70)), logits),
            "called with 70 numbers",
        ),
        (
            lambda net, images, logits: sum(logits * (0.123456789 + number) for number in range(9)),
            "9 of them are long or large",
        ),
        (lambda net, images, logits: logits + 1_000_000, "a whole number above 10,000"),
        (
            lambda net, images, logits: logits[:, [0] * 50].sum(1, keepdim=True) + logits,
            "called with more than 40 values",
        ),
        (lambda net, images, logits: [logits := logits.relu() for _ in range(700)][-1], "more than 400 functions"),
        (rebinds, "it makes seen anew"),
    ],
)
def test_what_cannot_be_written_down_is_said_in_a_sentence(forward, why):
    with pytest.raises(Unrecorded, match=why):
        record(linear(forward))


def test_outputs_of_another_kind_are_errors_of_the_network():
    with pytest.raises(ValueError, match=r"output has shape \(6, 9\), expected \(6, 10\)"):
        record(linear(lambda net, images, logits: logits[:, :9]))
    with pytest.raises(ValueError, match="Net returns a tuple, expected a plain tensor"):
        record(linear(lambda net, images, logits: (logits, images)))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        record(linear(lambda net, images, logits: net.linear(images)))


def test_a_script_that_is_none_is_refused():
    model = linear(lambda net, images, logits: logits)
    good, weights = record(model), dict(model.state_dict())
    forged = json.loads(json.dumps(good))
    forged["eval"]["calls"] *= 400
    for script in ({}, [], {**good, "weights": {"a": "b"}}, {**good, "train": {}}, forged):
        with pytest.raises(ValueError):
            Replay(script, weights)
    refers = json.loads(json.dumps(good))
    refers["eval"]["calls"][0]["kwargs"] = {"tensors": {"list": [{"tensor": 0}] * 1_001}}
    hides = json.loads(json.dumps(good))
    hides["eval"]["calls"][0]["args"] = [{"tensor": 0}, {"float": "0.125"}]
    with pytest.raises(ValueError, match="refers to more than 1,000 tensors"):
        Replay(refers, weights)
    with pytest.raises(KeyError), torch.no_grad():  # numbers are counted where they are numbers
        Replay(hides, weights).eval()(torch.zeros(2, 1, 28, 28))
    unknown = json.loads(json.dumps(good))
    unknown["eval"]["calls"][0]["call"] = "torch.load"
    with pytest.raises(ValueError, match="not the script of a network: 'torch.load'"):
        Replay(unknown, weights)


def test_the_layout_is_that_of_the_networks_own_layers():
    for model in (models.Model_1(), models.Model_2()):
        again = Replay(record(model), dict(model.state_dict()))
        wanted = utils.fast_layout(model, CPU)
        again.to(memory_format=torch.preserve_format)
        assert all(one.is_contiguous(memory_format=wanted) for one in again.parameters() if one.dim() == 4)
