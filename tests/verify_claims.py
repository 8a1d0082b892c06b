"""After the notebooks were executed in full: does the fresh run say what the notebooks say?

`make verify` calls this once the notebooks have left their records in `runs/`. On the machine that made the committed
run, the numbers are the same. On another they may differ as those of two seeds do: then the verdict is the same, and
every accuracy within two standard errors of the difference between two measurements on so many images. Then one run of the
studies is repeated in full, and held to its record in the same way; and all records are held to MNIST's labels.
"""

import math
from pathlib import Path

import pytest
import torch

import utils
from lab import records
from lab.analysis import describe_data
from lab.study import repeat

ROOT = Path(__file__).parent.parent
STEPS = (1, 2, 3)


def fresh_and_committed(step):
    fresh = utils.History.load(ROOT / "runs" / f"Session7_Step{step}.json")
    return fresh, utils.load_records("consistency", f"step{step}", ROOT / utils.RESULTS)[0]


def within_two_standard_errors(one, other, images):
    return abs(one - other) <= 2 * math.hypot(utils.standard_error(one, images), utils.standard_error(other, images))


@pytest.mark.parametrize("step", STEPS)
def test_the_fresh_run_is_a_full_run(step):
    fresh, committed = fresh_and_committed(step)
    for name in ("dataset", "train_images", "test_images", "parameters", "seed", "learning_rate"):
        assert getattr(fresh, name) == getattr(committed, name), name


@pytest.mark.parametrize("step", STEPS)
def test_the_same_machine_gives_the_same_numbers(step):
    fresh, committed = fresh_and_committed(step)
    same_machine = fresh.environment == committed.environment
    print("same machine" if same_machine else f"another machine: {fresh.environment} and {committed.environment}")
    for name in ("train_loss", "train_correct", "test_loss", "test_correct", "final_train_correct"):
        assert getattr(fresh, name) == getattr(committed, name) or not same_machine, name


@pytest.mark.parametrize("step", STEPS)
def test_the_verdict_is_the_same(step):
    fresh, committed = fresh_and_committed(step)
    assert utils.verdict(fresh).consistent == utils.verdict(committed).consistent


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("claim", ["best", "mean_last_five", "final_test_accuracy"])
def test_every_test_accuracy_is_within_two_standard_errors(step, claim):
    fresh, committed = (
        (run.test_accuracy[-1] if claim.startswith("final") else getattr(run, claim))
        for run in fresh_and_committed(step)
    )
    assert within_two_standard_errors(fresh, committed, images=10_000)


def test_a_record_of_the_studies_is_what_its_recipe_and_seed_give():
    """One of the twenty runs that "consistently" rests on, in full."""
    print(repeat("consistency", "step3", seed=7))


@pytest.fixture(scope="module")
def mnist():
    train, test = utils.load_data(torch.device("cpu"), ROOT / "data")
    assert train.dataset == test.dataset == "MNIST", f"this is a {train.dataset}, expected all of MNIST"
    return train, test


def test_the_data_are_what_they_should_be(mnist):
    training_line, test_line = describe_data(*mnist).splitlines()[1:]
    assert training_line.split()[1] == "60,000" and test_line.split()[1] == "10,000"


def test_the_labels_of_recorded_mistakes_are_those_of_mnist(mnist):
    labels, checked = mnist[1].labels.tolist(), 0
    for record in records.read_all():
        for index, label, _ in record.tested.mistakes if record.tested else []:
            assert labels[index] == label, (record.recipe.hash, record.history.seed, index)
            checked += 1
    assert checked > 1_000
