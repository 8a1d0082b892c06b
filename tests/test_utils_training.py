"""Training: held to numbers worked out by hand, and beside a busy process."""

import ast
import copy
import inspect
import math
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers import CPU, Run, but_for_seconds, constant, linear, same_weights, some_digits
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

import models
import utils
from utils import Digits, Loader, make_transform

pytestmark = pytest.mark.usefixtures("alone")

# ---------------------------------------------------------------------------------------------------------------------
# Train and test
# ---------------------------------------------------------------------------------------------------------------------


EIGHT_ZEROS_THREE_ONES = Digits(
    torch.zeros(11, 28, 28, dtype=torch.uint8), torch.tensor([0] * 8 + [1] * 3), "eight zeros and three ones"
)


@pytest.mark.parametrize("batch_size", [8, 4, 11, 1])
def test_training_counts_images_and_weights_losses_by_batch_size(batch_size):
    # 4 for the zero: a batch mean of the ones is far from one of the zeros, so unweighted means would show
    model = constant([4.0] + [0.0] * 9)
    loader = Loader(EIGHT_ZEROS_THREE_ONES, batch_size, make_transform())
    loss, correct = utils.train(model, loader, utils.make_optimizer(model, learning_rate=0.0))
    right, wrong = -math.log(math.exp(4) / (math.exp(4) + 9)), -math.log(1 / (math.exp(4) + 9))
    assert correct == 8 and type(correct) is int
    assert loss == pytest.approx((8 * right + 3 * wrong) / 11, abs=1e-5)


@pytest.mark.parametrize("batch_size", [64, 100, 7, 500])
def test_testing_gives_the_loss_and_the_count_of_one_batch_of_all(sample, batch_size):
    torch.manual_seed(0)
    model = models.Model_2()
    utils.train(model, Loader(sample[0][:200], 50, make_transform()), utils.make_optimizer(model, 0.05))
    digits = sample[1][:150]
    model.train()  # testing has to switch dropout and batch statistics off by itself
    loss, correct = utils.test(model, Loader(digits, batch_size, make_transform()))
    with torch.no_grad():
        logits = model.eval()((digits.images.unsqueeze(1) / 255 - 0.1307) / 0.3081)
    assert loss == pytest.approx(F.cross_entropy(logits, digits.labels).item(), abs=1e-5)
    assert correct == sum(int(row.argmax()) == int(label) for row, label in zip(logits, digits.labels))
    assert type(correct) is int and 0 < correct < 150


def test_testing_changes_nothing_in_the_network(sample):
    model = models.Model_2()
    before = copy.deepcopy(model.state_dict())
    utils.test(model, Loader(sample[1], 100, make_transform()))
    assert same_weights(before, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_learns_and_keeps_weights_in_float32(sample):
    torch.manual_seed(0)
    model = models.Model_2()
    loader = Loader(sample[0], 64, make_transform(), shuffle=True)
    optimizer = utils.make_optimizer(model, 0.1)
    first, second = (utils.train(model, loader, optimizer) for _ in range(2))
    assert second[0] < first[0] / 2 and second[1] > first[1]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_weights_move_by_nesterovs_rule_and_gradients_do_not_pile_up():
    model = linear()
    weights, velocities = [p.detach().clone() for p in model.parameters()], [0.0, 0.0]
    loader = Loader(some_digits(30), 10, make_transform())
    utils.train(model, loader, utils.make_optimizer(model, 0.05, momentum=0.9, weight_decay=0.01))
    for images, labels in loader:
        with torch.autocast("cpu", torch.bfloat16, enabled=utils.has_fast_bfloat16(CPU)):
            logits = F.linear(images.flatten(1), *[w.requires_grad_() for w in weights])
        gradients = torch.autograd.grad(F.cross_entropy(logits.float(), labels), weights)
        gradients = [g + 0.01 * w.detach() for g, w in zip(gradients, weights)]
        velocities = [0.9 * v + g for v, g in zip(velocities, gradients)]
        weights = [(w - 0.05 * (g + 0.9 * v)).detach() for w, g, v in zip(weights, gradients, velocities)]
    for weight, expected in zip(model.parameters(), weights):
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_the_network_computes_in_bfloat16_where_that_is_fast_and_allowed(sample, monkeypatch, fast, allowed):
    monkeypatch.setattr(utils, "has_fast_bfloat16", lambda device: fast)
    run = Run(sample, make=linear, bfloat16=allowed)
    seen = set()
    run.model.register_forward_hook(lambda model, images, logits: seen.add((model.training, logits.dtype)))
    expected = torch.bfloat16 if fast and allowed else torch.float32
    assert run.fit(1).environment["precision"] == str(expected).removeprefix("torch.")
    assert seen == {(True, expected), (False, torch.float32)}  # testing stays in float32


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep no such account")
def test_training_takes_no_new_memory_from_batch_to_batch():
    model, loader = models.Model_2(), Loader(some_digits(20 * 128), 128, make_transform(), shuffle=True)
    optimizer = utils.make_optimizer(model, 0.01)
    utils.train(model, loader, optimizer)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    utils.train(model, loader, optimizer)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert pages / len(loader) < 100  # the first layer's maps alone have 300


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_maps_lie_in_memory_as_is_fastest_and_the_numbers_are_the_same(sample, monkeypatch, layout):
    monkeypatch.setattr(utils, "has_fast_bfloat16", lambda device: False)
    torch.manual_seed(0)
    model = models.Model_2(dropout=0.0)
    other = copy.deepcopy(model)
    loader = Loader(sample[0][:200], 100, make_transform())
    expected = [utils.train(other, loader, utils.make_optimizer(other, 0.05)), utils.test(other, loader)]

    monkeypatch.setattr(utils, "fast_layout", lambda model, device: layout)
    seen = set()
    deep = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)][2]
    deep.register_forward_hook(lambda layer, _, maps: seen.add(maps.is_contiguous(memory_format=layout)))
    measured = [utils.train(model, loader, utils.make_optimizer(model, 0.05)), utils.test(model, loader)]
    assert seen == {True}
    assert [loss for loss, _ in measured] == pytest.approx([loss for loss, _ in expected], rel=1e-4)


def test_channels_lie_last_for_separable_and_for_wide_convolutions_on_a_processor():
    narrow = models.Model_2((10, 16, 12, 12, 12), capacity=14, separable=False)
    last, first = torch.channels_last, torch.contiguous_format
    layouts = [
        [utils.fast_layout(model, torch.device(d)) for d in ("cpu", "cuda", "mps")]
        for model in (models.Model_2(), models.Model_2(separable=False), narrow)
    ]
    assert layouts == [[last, first, first], [last, first, first], [first] * 3]


class Viewed(nn.Module):
    """Flattens pooled maps with `view`, which works only if the channels come first."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.last = nn.Conv2d(1, 32, 5, stride=4), nn.Conv2d(32, 12, 3)
        self.norm, self.readout = nn.BatchNorm2d(12), nn.Linear(12 * 2 * 2, 10)

    def forward(self, images):
        maps = F.max_pool2d(self.norm(self.last(F.relu(self.wide(images)))), 2)
        return self.readout(F.dropout(maps.view(-1, 12 * 2 * 2), 0.1, self.training))


def test_maps_that_are_flattened_with_view_train_and_looking_for_it_changes_nothing():
    model, loader = Viewed(), Loader(some_digits(40), 20, make_transform())
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    assert utils.fast_layout(model, torch.device("cpu")) is torch.contiguous_format
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    utils.train(model, loader, utils.make_optimizer(model, 0.01))
    utils.test(model, loader)
    with pytest.raises(RuntimeError, match="view size is not compatible"):  # so that the case stays one
        model.to(memory_format=torch.channels_last)(torch.zeros(2, 1, 28, 28))


@pytest.mark.parametrize("outputs", [9, 11, 1])
def test_a_network_with_other_than_ten_outputs_is_refused(outputs):
    model, loader = linear(outputs), Loader(some_digits(4), 4, make_transform())
    expected = rf"shape \(4, {outputs}\), expected \(4, 10\)"
    with pytest.raises(ValueError, match=expected):
        utils.train(model, loader, utils.make_optimizer(model, 0.1))
    with pytest.raises(ValueError, match=expected):
        utils.test(model, loader)


def test_ten_maps_are_not_ten_logits():
    with pytest.raises(ValueError, match=r"\(4, 10, 1, 1\), expected \(4, 10\)"):
        utils.test(nn.Conv2d(1, 10, 28), Loader(some_digits(4), 4, make_transform()))


@pytest.mark.parametrize("rate", [1e36, 1e38])
def test_a_diverging_loss_stops_training_before_it_touches_the_weights(rate):
    model, after_each_batch = linear(), []
    loader = Loader(some_digits(40), 10, make_transform())
    with pytest.raises(FloatingPointError) as error:
        utils.train(
            model,
            loader,
            utils.make_optimizer(model, rate),
            epoch=3,
            after_batch=lambda: after_each_batch.append(copy.deepcopy(model.state_dict())),
        )
    assert f"in epoch 3, batch {len(after_each_batch) + 1}, at learning rate {rate:g}" in str(error.value)
    assert same_weights(after_each_batch[-1], model.state_dict())


def test_infinite_weights_are_noticed_in_the_first_batch():
    model = constant([math.inf] + [0.0] * 9)
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1, batch 1, at learning rate 0.1"):
        utils.train(model, Loader(some_digits(4), 2, make_transform()), utils.make_optimizer(model, 0.1))


# ---------------------------------------------------------------------------------------------------------------------
# Fit
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [-1, 1.5, "3"])
def test_a_number_of_epochs_that_is_none_is_refused(sample, epochs):
    with pytest.raises(ValueError, match=f"epochs is {epochs}, expected a whole number of 0 or more"):
        Run(sample).fit(epochs)


def test_steps_of_no_epochs_are_refused():
    with pytest.raises(ValueError, match="step_size is 0, expected at least 1"):
        utils.make_scheduler(utils.make_optimizer(linear(), 0.1), step_size=0, gamma=0.1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"momentum": 2}, "momentum is 2, expected a number from 0 to below 1"),
        ({"momentum": 1.0}, "momentum is 1.0, expected a number from 0 to below 1"),
        ({"momentum": -0.1}, "momentum is -0.1, expected"),
        ({"momentum": math.nan}, "momentum is nan, expected"),
        ({"gamma": -1}, "gamma is -1, expected a number above 0 and at most 1"),
        ({"gamma": 0.0}, "gamma is 0.0, expected"),
        ({"gamma": 1.5}, "gamma is 1.5, expected"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1, expected a finite number of 0 or more"),
        ({"learning_rate": math.inf}, "learning_rate is inf, expected a finite number of 0 or more"),
        ({"learning_rate": math.nan}, "learning_rate is nan, expected"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001, expected a finite number of 0 or more"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(sample, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        Run(sample, make=linear, **changes)


def test_the_last_plain_epochs_train_on_images_as_the_test_sees_them(sample):
    """Of a network whose weights stand still, a plain epoch's loss is the test's loss on the training images."""
    run = Run(sample, make=linear, learning_rate=1e-30, rotation=180, plain_epochs=2)
    as_tested = utils.test(run.model, Loader(run.train_loader.digits, 32, make_transform()))[0]
    losses = run.fit(4).train_loss
    assert losses[2:] == pytest.approx([as_tested] * 2, rel=0.01)
    assert all(abs(loss / as_tested - 1) > 0.02 for loss in losses[:2])


def test_a_negative_number_of_plain_epochs_is_refused(sample):
    with pytest.raises(ValueError, match="plain_epochs is -1, expected a whole number of 0 or more"):
        Run(sample, plain_epochs=-1).fit(1)


def test_zero_epochs_measure_the_untrained_network(sample):
    run = Run(sample)
    before = run.weights
    history = run.fit(0)
    assert len(history) == 0 and history.learning_rate == []
    assert same_weights(before, run.model.state_dict())
    assert (
        history.final_train_correct == utils.test(run.model, Loader(run.train_loader.digits, 40, make_transform()))[1]
    )


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(sample):
    runs = [Run(sample, seed=seed) for seed in (3, 3, 4)]
    histories = [but_for_seconds(run.fit(2)) for run in runs]
    assert histories[0] == histories[1]
    assert same_weights(runs[0].weights, runs[1].weights)
    assert histories[0]["train_loss"] != histories[2]["train_loss"]


def test_what_ran_before_does_not_change_a_run(sample):
    straight, disturbed = Run(sample), Run(sample)
    expected = but_for_seconds(straight.fit(1))
    torch.rand(1_000)
    assert but_for_seconds(disturbed.fit(1)) == expected


def test_a_history_tells_what_was_run_and_measured(sample):
    run = Run(sample, seed=5)
    history = run.fit(3)
    assert (history.dataset, history.train_images, history.test_images) == (sample[0].dataset, 120, 50)
    assert (history.seed, history.parameters) == (5, models.count_parameters(run.model))
    assert history.environment == utils.environment(CPU)
    columns = ("learning_rate", "train_loss", "train_correct", "test_loss", "test_correct", "seconds")
    assert [len(getattr(history, column)) for column in columns] == [3] * 6
    assert (history.test_loss[-1], history.test_correct[-1]) == utils.test(run.model, run.test_loader)


def test_the_scheduled_rates_are_recorded_as_they_were_used(sample):
    history = Run(sample, make=linear, learning_rate=0.08, step_size=2, gamma=0.5).fit(5)
    assert history.learning_rate == pytest.approx([0.08, 0.08, 0.04, 0.04, 0.02])


def test_a_gamma_of_one_keeps_the_rate(sample):
    assert Run(sample, make=linear, learning_rate=0.08, step_size=1, gamma=1).fit(3).learning_rate == [0.08] * 3


def test_the_final_train_count_is_of_the_images_without_augmentation_and_dropout(sample):
    run = Run(sample, make=lambda: nn.Sequential(nn.Dropout(0.5), linear()), rotation=90)
    history = run.fit(6)
    digits = run.train_loader.digits
    with torch.no_grad():
        logits = run.model.eval()((digits.images.unsqueeze(1) / 255 - 0.1307) / 0.3081)
    assert history.final_train_correct == int((logits.argmax(1) == digits.labels).sum())
    assert utils.test(run.model, run.train_loader)[1] != history.final_train_correct  # augmentation makes a difference
    assert history.gap == pytest.approx(100 * history.final_train_correct / 120 - 100 * history.test_correct[-1] / 50)


def test_a_call_after_each_epoch_sees_the_history_and_may_end_the_run(sample):
    seen, run = [], Run(sample)
    history = run.fit(5, after_epoch=lambda history: seen.append(len(history)) or len(history) == 3)
    assert seen == [1, 2, 3] and len(history) == 3
    assert history.final_train_correct is not None
    assert but_for_seconds(Run(sample).fit(3)) == but_for_seconds(history)


@pytest.mark.parametrize("stop", [1, 2])  # within a step of the scheduler, and at its end
def test_a_run_goes_on_from_its_history(sample, stop):
    straight, parts = Run(sample, plain_epochs=1), Run(sample, plain_epochs=1)
    expected = straight.fit(4)
    first = parts.fit(4, after_epoch=lambda history: len(history) == stop)
    assert but_for_seconds(parts.fit(4, history=first)) == but_for_seconds(expected)
    assert same_weights(straight.weights, parts.weights)


def test_a_history_longer_than_the_run_is_refused(sample):
    run = Run(sample, make=linear)
    with pytest.raises(ValueError, match="the run has 3 epochs behind it, more than the 2 asked for"):
        run.fit(2, history=run.fit(3))


@pytest.mark.parametrize(("function", "most"), [(utils.train, 20), (utils.test, 20), (utils.fit, 40)])
def test_the_loop_fits_a_slide(function, most):
    """Lines of code besides signature, docstring and comments; what `inspect` shows is the loop, not its wrapper."""
    body = ast.parse(inspect.getsource(function)).body[0].body[1:]
    code = {line for statement in body for line in range(statement.lineno, statement.end_lineno + 1)}
    assert len(code) <= most
    assert function is not utils.train or "optimizer.step()" in inspect.getsource(function)


def test_a_shown_run_leaves_its_table_and_a_hidden_one_leaves_nothing(sample, capsys):
    Run(sample, make=linear).fit(2)
    assert capsys.readouterr() == ("", "")
    history = Run(sample, make=linear).fit(2, show=True)
    assert capsys.readouterr().out.strip("\r\n") == str(history)
    assert [line.split()[0] for line in str(history).splitlines()] == ["epoch", "1", "2"]


def test_a_run_that_diverges_later_names_the_epoch_and_its_rate(sample):
    run = Run(sample, make=linear, learning_rate=1e-3, momentum=0)
    run.scheduler = LambdaLR(run.optimizer, lambda epoch: 1e39 if epoch else 1)
    with pytest.raises(FloatingPointError, match=r"epoch 2, batch \d, at learning rate 1e\+36"):
        run.fit(3)


def test_a_run_whose_very_last_update_diverges_is_no_result(sample):
    with pytest.raises(FloatingPointError):
        Run(sample, make=linear, learning_rate=1e38, batch_size=120).fit(1)


# ---------------------------------------------------------------------------------------------------------------------
# Beside other work
# ---------------------------------------------------------------------------------------------------------------------

TWO_THREADS = """
import os, sys
import utils, models, torch
os.environ["SESSION7_DATASET"] = "sample"
torch.set_num_threads(2)
train, _ = utils.load_data(torch.device("cpu"))
utils.seed_everything(0)
model = models.Model_2()
loader = utils.Loader(train[:640], 128, utils.make_transform({"rotation": 10}), shuffle=True)
before = {thread: os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}
cores = []
result = utils.train(model, loader, utils.make_optimizer(model, 0.05), after_batch=lambda: cores.append(
    {int(thread): os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}))
mine = cores[-1].pop(os.getpid())
after = {thread: os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}
print(os.environ["GOMP_SPINCOUNT"], len(mine), all(mine.isdisjoint(other) for other in cores[-1].values()),
      set(map(frozenset, after.values())) == set(map(frozenset, before.values())), *result)
"""


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="of two cores, on Linux")
@pytest.mark.slow
def test_a_run_beside_a_busy_process_has_the_same_bits_and_a_core_of_its_own():
    """The thread that trains shares its core with none of the others while it does, and all is as before when it is done."""

    def said() -> list[str]:
        command = [sys.executable, "-c", TWO_THREADS]
        root = Path(utils.__file__).parent
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()[-1]

    idle = said()
    busy_process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert said() == idle
    finally:
        busy_process.kill()
        busy_process.wait()
    assert idle.startswith("1500 1 True True ")


def test_a_single_thread_is_left_where_it_is():
    before = os.sched_getaffinity(0) if sys.platform == "linux" else None
    with utils.cores_of_their_own():
        assert before is None or os.sched_getaffinity(0) == before


class Twice(nn.Module):
    """Uses one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, mix = nn.Conv2d(1, 32, 5, stride=4), nn.Conv2d(32, 32, 1)
        self.layers = nn.Sequential(mix, nn.ReLU(), mix, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, images):
        return self.layers(self.first(images))


def test_a_layer_that_is_used_twice_stays_the_networks_own_and_learns():
    model, loader = Twice(), Loader(some_digits(40), 20, make_transform())
    weights, before = dict(model.named_parameters()), copy.deepcopy(model.state_dict())
    utils.fast_layout(model, torch.device("cpu"))
    assert all(weights[name] is weight for name, weight in model.named_parameters())
    utils.train(model, loader, utils.make_optimizer(model, 0.01))
    assert not any(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
