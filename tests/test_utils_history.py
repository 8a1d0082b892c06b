"""History, verdict, and the pictures of one run."""

import pytest
import torch
from helpers import Run, leftovers, linear
from histories import record

import utils
from utils import History

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
    assert verdict == (None, "not judged: 5,000-image sample of MNIST, expected all of MNIST")


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


def test_a_run_that_has_not_finished_has_no_final_accuracy():
    with pytest.raises(ValueError, match="no final training accuracy yet"):
        record([9_940], final_train_correct=None).gap  # noqa: B018


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
