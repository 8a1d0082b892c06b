"""A network judged: its recipe, its trials, its card, what it is told to try next; on made-up runs, and on short ones."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import command
from histories import record
from torch import nn

import utils
from lab import judge as judge_function
from lab.evidence import records
from lab.evidence.records import Tested
from lab.judging import judge, trial
from lab.judging.advice import Finding
from lab.judging.card import Card
from lab.judging.judge import recipe_for
from lab.judging.look import look
from lab.judging.next_experiment import next_experiment
from lab.judging.trial import Trial, folder_of, identity, is_hopeless
from lab.runs.config import seeds_from
from lab.runs.recipes import STEP_1, STEP_3, Recipe

GOOD, BAD = [9_950] * 15, [9_950] * 12 + [9_939] + [9_950] * 2


class Small(nn.Sequential):
    def __init__(self, width: int = 4) -> None:
        super().__init__(
            nn.Conv2d(1, width, 5), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.LazyLinear(10)
        )


@pytest.fixture
def here(tmp_path, monkeypatch, sample):
    """An empty folder. Runs of this process have a few images of the sample, those of workers all of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSION7_DATASET", "sample")
    monkeypatch.setattr(utils, "load_data", lambda device, root="data": (sample[0][:300], sample[1][:200]))
    monkeypatch.setattr(trial, "cores", lambda: 1)
    return tmp_path


def card(*corrects, recipe=STEP_3, failures=None, mistakes=(), **more) -> Card:
    """A card of made-up runs with these counts of correct images; a short run is one that was stopped."""
    trials = {}
    for seed, correct in enumerate(corrects):
        stopped = len(correct) if len(correct) < recipe.epochs else None
        trials[seed] = Trial(record(list(correct), seed=seed, **more), Tested(10_000, 0.02, list(mistakes)), stopped)
    return Card(look(recipe.make_network, recipe.network), recipe, "step3", trials, failures or {})


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for
# ---------------------------------------------------------------------------------------------------------------------


def test_seeds_are_numbers_and_ranges():
    assert seeds_from(["0-2", "7"]) == [0, 1, 2, 7]


@pytest.mark.parametrize("word", ["x", "3-1", "-1", "1-", "0-5000", "1.5"])
def test_other_seeds_are_one_sentence(word):
    with pytest.raises(ValueError, match="^--seeds has "):
        seeds_from([word])


def test_a_recipe_is_like_step_3_with_what_a_file_and_then_the_call_change(here):
    (here / "mine.yaml").write_text("epochs: 8\ngamma: 0.5\n")
    assert recipe_for("Model_2") == STEP_3
    assert recipe_for("Model_1", "step1") == STEP_1
    changed = recipe_for("Model_1", file=here / "mine.yaml", fields={"gamma": 0.2})
    assert (changed.network, changed.epochs, changed.gamma) == ("Model_1", 8, 0.2)
    assert changed.augmentation == STEP_3.augmentation and changed.switches == Recipe("Model_1").switches
    assert recipe_for("Model_1", str(here / "mine.yaml"), fields={"gamma": 0.2}) == changed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["Model_1", "--like", "nothing"], "there is no recipe 'nothing'"),
        (["nothing", "--seeds", "0"], "there is no network 'nothing'"),
        (["Model_1", "--config", "nothing.yaml"], "there is no file nothing.yaml"),
        (["Model_1", "--config", "seeded.yaml"], "seeded.yaml names a seed"),
        (["Model_1", "--config", "unknown.yaml"], "a recipe has no field 'epoch', the nearest is 'epochs'"),
        (["Model_1", "--seeds", "x"], "--seeds has 'x'"),
        (["Model_1", "--seeds", "0", "--jobs", "0"], "jobs is 0, expected at least 1"),
        (["wrong.py:Net", "--seeds", "0"], "wrong.py:Net cannot be trained: "),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_runs(here, monkeypatch, capsys, arguments, complaint):
    (here / "seeded.yaml").write_text("seed: 3\n")
    (here / "unknown.yaml").write_text("epoch: 3\n")
    (here / "wrong.py").write_text("from torch import nn\nclass Net(nn.Flatten): pass\n")
    assert command(monkeypatch, "judge", *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(complaint) and said.count("\n") == 1
    assert not (here / "runs").exists()


def test_an_unknown_field_in_python_names_the_nearest(here):
    with pytest.raises(ValueError, match="a recipe has no field 'epoch', the nearest is 'epochs'"):
        judge_function(Small, [0], epoch=3)
    with pytest.raises(ValueError, match="no seeds are given"):
        judge_function(Small, [])


def test_without_training_it_answers_without_the_rest_of_the_lab(here):
    """Importing torchvision, scipy and matplotlib takes longer than the look itself."""
    (here / "mynet.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n")
    code = (
        "import sys; sys.argv = ['lab', 'judge', 'mynet.py']; from lab import __main__; __main__.main(); "
        "heavy = {'torchvision', 'scipy', 'matplotlib', 'utils', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(judge.__file__).parents[2])}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert said.returncode == 0, said.stderr
    assert "mynet.py:net" in said.stdout and "7,850, fewer than 8,000: yes" in said.stdout


def test_a_look_at_what_cannot_be_trained_ends_with_status_1(here, monkeypatch, capsys):
    (here / "wrong.py").write_text("from torch import nn\nclass Net(nn.Flatten): pass\nclass Fine(nn.Linear): pass\n")
    assert command(monkeypatch, "judge", "wrong.py:Net") == 1
    said = capsys.readouterr()
    assert "It cannot be trained:\n- " in said.out and said.err == ""
    assert command(monkeypatch, "judge", "Model_1") == 0


# ---------------------------------------------------------------------------------------------------------------------
# Trials
# ---------------------------------------------------------------------------------------------------------------------


def test_a_run_is_hopeless_once_an_epoch_that_counts_is_below_the_target():
    hopeless = is_hopeless(STEP_3)
    assert not hopeless(record([9_000] * 10))
    assert not hopeless(record([9_000] * 10 + [9_940]))
    assert hopeless(record([9_950] * 10 + [9_939]))
    assert not hopeless(record([0] * 15, dataset=utils.SAMPLE))
    eight = is_hopeless(replace(STEP_3, epochs=8))
    assert not eight(record([9_000] * 3 + [9_939]))  # with four epochs, a run would have no verdict
    assert eight(record([9_000] * 3 + [9_939, 9_950]))
    assert utils.verdict(record([9_000] * 3 + [9_939, 9_950])).consistent is False
    assert not is_hopeless(replace(STEP_3, epochs=4, plain_epochs=0))(record([9_939]))


def test_another_class_of_the_same_name_has_another_folder(here):
    def folder(change):
        (here / "mynet.py").write_text(
            f"from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), {change}\n)\n"
        )
        return folder_of(recipe_for("mynet.py:net"))

    one = folder("nn.ReLU()")
    assert one.name.startswith("net-") and one.name.endswith("-sample")
    assert folder("nn.Sigmoid()") != one == folder("nn.ReLU(),  # the same")
    assert identity(recipe_for("Model_1", fields={"epochs": 3})) != identity(recipe_for("Model_1"))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_runs_are_kept_and_made_once(here, monkeypatch, capsys, jobs):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    first = judge_function(Small, [0, 1], jobs=jobs, epochs=2, step_size=1)
    folder = folder_of(first.recipe)
    assert {path.name for path in folder.iterdir()} == {"0", "1", "card.txt", "card.json", "card.png"}
    assert (folder / "card.txt").read_text() == f"{first}\n" and str(first) in capsys.readouterr().out
    assert json.loads((folder / "card.json").read_text())["consistent"] is None
    monkeypatch.setattr(trial, "run", None)
    again = judge_function(Small, [1, 0], jobs=jobs, epochs=2, step_size=1)
    assert again.trials == first.trials and list(again.trials) == [1, 0]


def test_a_torn_trial_goes_on_from_the_runs_own_files(here, monkeypatch):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    first = judge_function(Small, [0], show=False, epochs=2)
    (folder_of(first.recipe) / "0" / "trial.json").write_text("{")
    again = judge_function(Small, [0], show=False, epochs=2)
    assert again.trials[0].history.test_correct == first.trials[0].history.test_correct
    assert again.trials[0].tested == first.trials[0].tested


def test_a_stopped_run_goes_on_to_the_bits_of_a_whole_one(here, monkeypatch):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    monkeypatch.setattr(trial, "is_hopeless", lambda recipe: lambda history: len(history) == 1)
    stopped = judge_function(Small, [0], show=False, epochs=2)
    assert stopped.trials[0].stopped == 1 and "seed 0 stopped after epoch 1" in str(stopped)
    on = judge_function(Small, [0], whole=True, show=False, epochs=2)
    assert on.trials[0].stopped is None
    other = judge_function(Small, [0], whole=True, show=False, epochs=2, switches={"width": 4})
    assert on.trials == other.trials
    folder = folder_of(on.recipe)
    for path in (folder / "0").iterdir():
        path.unlink()
    assert measured(judge_function(Small, [0], whole=True, show=False, epochs=2)) == measured(on)


def measured(card):
    run = card.trials[0].history
    return run.train_loss, run.train_correct, run.test_loss, run.test_correct, card.trials[0].tested


def test_a_run_that_fails_leaves_the_others_alone(here, monkeypatch):
    monkeypatch.setenv("SESSION7_SHORT", "1")
    whole = trial.run

    def fail(recipe, seed, *rest):
        if seed == 1:
            raise FloatingPointError("the loss is not finite\nmore")
        return whole(recipe, seed, *rest)

    monkeypatch.setattr(trial, "run", fail)
    card = judge_function(Small, [0, 1], show=False, epochs=2)
    assert list(card.trials) == [0] and card.failures == {1: "the loss is not finite"}
    assert "seed 1 failed: the loss is not finite" in str(card)
    with pytest.raises(RuntimeError, match="every run failed: seed 1: the loss is not finite"):
        judge_function(Small, [1], show=False, epochs=2)


# ---------------------------------------------------------------------------------------------------------------------
# The card
# ---------------------------------------------------------------------------------------------------------------------


def test_step_3s_recorded_runs_differ_from_step_3_by_nothing():
    step3 = records.load("consistency", "step3")
    tested = records.load_mistakes("consistency", "step3")
    (seed,) = tested
    trials = {other: Trial(step3[other], tested[seed], None) for other in (0, 1, 2)}
    one = Card(look(STEP_3.make_network, "Model_2"), STEP_3, "step3", trials, {})
    to_step3 = one.to_step3()
    assert to_step3.difference == (0, 0, 0) and to_step3.seeds == [0, 1, 2]
    assert to_step3.says == "equivalent, to within 0.05 points"
    mistakes = one.mistakes()
    assert len(mistakes.shared) == len(mistakes.wrong) == mistakes.of_step3 and not mistakes.own
    assert "consistent   3 of 3 seeds; so between 29 and 100 % of all seeds are (exact 95 % interval)" in str(one)
    content = json.loads(json.dumps(one.as_dict()))
    assert (content["consistent"], content["of"], content["parameters"]) == (3, 3, 7_750)
    assert content["consistent_interval"] == pytest.approx([0.025 ** (1 / 3), 1])


def test_a_worse_network_is_called_worse_and_its_own_mistakes_are_named():
    one = card([9_800] * 15, [9_810] * 15, [9_790] * 15, mistakes=[[0, 7, 1], [8, 5, 6]])
    assert one.to_step3().says == "worse than Step 3" and one.to_step3().difference.high < -1
    mistakes = one.mistakes()
    assert {index for index, _, _ in mistakes.own} | set(mistakes.shared) == {0, 8}
    assert "0 of 3 seeds; so between 0 and 71 % of all seeds are" in str(one)


def test_what_did_not_learn_is_called_that_and_other_epochs_are_named():
    one = card([1_135] * 15, [1_135] * 15)
    assert str(one.to_step3()).endswith(" points, paired over seeds 0 1: a seed did not learn, so there is no interval")
    short = card([9_950] * 3, [9_950] * 3, recipe=replace(STEP_3, epochs=3))
    assert str(short.to_step3()).endswith(" (3 epochs here, 15 there)")
    assert re.search(r"^ *all .* not judged$", str(short), re.MULTILINE)


def test_other_seeds_are_compared_without_pairs():
    one = card(GOOD, GOOD)
    other = replace(one, trials={seed + 900: two for seed, two in one.trials.items()})
    assert other.to_step3().seeds == [] and "not paired" in str(other)


def test_only_whole_runs_are_compared():
    one = card(GOOD, BAD[:13])
    assert list(one.whole) == [0]
    assert "not compared: 1 whole runs, expected at least 2" in str(one)
    assert "1 of 2 seeds" in str(one) and "seed 1 stopped after epoch 13" in str(one)


def test_mistakes_are_those_of_most_runs():
    one = card(GOOD, GOOD, GOOD)
    wrong = [[[1, 2, 3], [4, 5, 6]], [[1, 2, 7]], [[1, 2, 7], [9, 1, 2]]]
    trials = {seed: replace(one.trials[seed], tested=Tested(10_000, 0.1, wrong[seed])) for seed in range(3)}
    assert replace(one, trials=trials).mistakes().wrong == [(1, 2, 7)]


@pytest.mark.parametrize("correct", [GOOD, [9_000] * 15])
def test_the_picture_shows_every_run_and_the_network_among_the_recorded(correct):
    one = card(correct, correct, mistakes=[[0, 7, 1], [8, 5, 6]])
    figure = one.figure()
    curves, frontier, *images = figure.get_axes()
    assert sum(list(line.get_ydata()) == [one / 100 for one in correct] for line in curves.lines) == 2
    star = next(line for line in frontier.lines if line.get_marker() == "*")
    assert star.get_xdata()[0] == 7_750
    low, high = frontier.get_ylim()
    assert low < star.get_ydata()[0] < high
    assert any(axes.images for axes in images) == bool(one.mistakes().own)


# ---------------------------------------------------------------------------------------------------------------------
# The next experiment
# ---------------------------------------------------------------------------------------------------------------------


def next_of(card):
    return next_experiment(card.look, card.trials, card.failures)


def test_the_next_experiment_is_the_first_that_applies():
    good, few, many = card(GOOD, GOOD), card(GOOD), card(*[GOOD] * 20)
    assert next_of(replace(good, failures={3: "the loss is nan"})).startswith("Find out why seed 3 failed")
    over = card(GOOD, recipe=replace(STEP_3, network="PyTorchExample", switches={}), parameters=1_199_882)
    assert "parameters over the budget, and 1,179,776 are in one Linear" in next_of(over)
    assert next_of(few).startswith("Confirm it: of 5 seeds")
    assert next_of(many).startswith(
        "Make it smaller: a recorded network with 4,920 parameters is consistent for all 5 seeds"
    )
    assert next_of(card(*[GOOD] * 4, BAD)).startswith("One seed missed. Run 5 other seeds")
    assert "what ran here has no verdict" in next_of(card(GOOD, dataset=utils.SAMPLE))


def test_advice_for_a_weak_network_follows_from_its_runs():
    whole = {"train_images": 60_000}
    assert "does not fit the training images" in next_of(card(BAD, final_train_correct=59_000, **whole))
    assert next_of(card(BAD, final_train_correct=60_000, **whole)).startswith("It overfits")
    jumps = [9_950] * 10 + [9_940, 9_930, 9_945, 9_920, 9_950]
    assert "still jump" in next_of(card(jumps, final_train_correct=59_760, **whole))
    assert "is 0.01 points short" in next_of(card(BAD, final_train_correct=59_760, **whole))


def test_a_seed_that_learned_nothing_comes_first_in_the_advice():
    lost = card(GOOD, [1_135] * 15)
    assert next_of(lost) == (
        "Seed 1 learned nothing: 11.35 % over its last epochs. Lower learning_rate from 0.1 to 0.01."
    )
    plain = replace(lost, look=judge.look_at(replace(STEP_1, switches={"batch_norm": False})))
    assert "Put batch norm after each convolution, or lower learning_rate" in next_of(plain)


def test_the_card_counts_mistakes_and_advice_and_its_json_says_which_is_which():
    assert "\nlook " not in str(card(GOOD))
    one = card(GOOD)
    findings = [Finding("a", "A.", "", ""), Finding("b", "B.", "", "", "advice"), Finding("c", "C.", "", "", "note")]
    both = replace(one, look=replace(one.look, warnings=findings))
    assert "look         1 mistake to mend and 1 point to look at before you train again\n" in str(both)
    assert [found["kind"] for found in both.as_dict()["look"]["warnings"]] == ["mistake", "advice", "note"]
    advice = replace(one, look=replace(one.look, warnings=findings[1:2] * 2))
    assert "look         2 points to look at before you train again\n" in str(advice)


def test_the_legends_cover_nothing_of_a_collapsed_network():
    figure = card([1_135] * 15).figure()
    figure.draw_without_rendering()
    for axes in figure.get_axes():
        legend, label = axes.get_legend().get_window_extent(), axes.xaxis.get_label().get_window_extent()
        assert not legend.overlaps(axes.get_window_extent()) and not legend.overlaps(label)
        assert legend.x0 >= 0 and legend.y0 >= 0


def test_the_card_names_the_fields_that_were_changed():
    assert str(card(GOOD)).startswith("Model_2, trained like step3\n")
    changed = card(GOOD, recipe=replace(STEP_3, epochs=8, weight_decay=0.001))
    assert str(changed).startswith("Model_2, trained like step3, epochs 8, weight_decay 0.001\n")


def test_a_comparison_that_was_not_made_says_nothing_to_a_program():
    assert card(GOOD).as_dict()["to_step3"] | {"reason": ""} == {"reason": "", "seeds": [], "says": None}
