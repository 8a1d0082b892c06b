"""One next experiment for a network, from what its runs show and what is recorded of others."""

from collections.abc import Mapping

import numpy as np

import utils
from lab.evidence import records, statistics
from lab.evidence.odds import DEFAULT_SEEDS
from lab.judging.advice import BUDGET
from lab.judging.look import Look
from lab.judging.trial import Trial, consistent

UNDERFIT = 99.5  # percent of the training images; Step 3's recorded runs end above
OVERFIT = 0.35  # points between training and test images; Step 3's recorded runs stay below 0.2
RESTLESS = 0.06  # points, standard deviation of the last five epochs within a run; Step 3's is 0.02


def next_experiment(look: Look, trials: Mapping[int, Trial], failures: Mapping[int, str]) -> str:
    """What to try next, in one or two sentences: the first that applies of what is broken, over budget, unsure, weak."""
    parameters = next(iter(trials.values())).history.parameters
    if failures:
        seed, why = next(iter(failures.items()))
        return f"Find out why seed {seed} failed ({why}). If the loss is not finite, halve the learning rate."
    if parameters >= BUDGET:
        return f"You are {parameters - BUDGET + 1:,} parameters over the budget{_largest(look)}: make it narrower."
    lost = [seed for seed, trial in trials.items() if statistics.has_collapsed(trial.history)]
    if lost:
        return _wake_up(look, lost[0], trials[lost[0]].history)
    passed = consistent(trials)
    if passed is None:
        return "Run it on all of MNIST for 5 to 15 epochs: what ran here has no verdict."
    if passed == len(trials):
        return _confirm_or_shrink(parameters, len(trials))
    if passed == len(trials) - 1 == DEFAULT_SEEDS - 1:
        return f"One seed missed. Run {DEFAULT_SEEDS} other seeds: if all of them are consistent, call the network so."
    found = look.of_kind("mistake", "advice")
    if found:
        return f"Begin with what the look says first. {found[0].what}"
    return _improve(trials)


def _wake_up(look: Look, seed: int, run: utils.History) -> str:
    """For a network with a seed that learned nothing, whatever else is wrong with it."""
    said = f"Seed {seed} learned nothing: {run.mean_last_five:.2f} % over its last epochs."
    rate = f"lower learning_rate from {max(run.learning_rate):g} to {max(run.learning_rate) / 10:g}"
    if look.ingredients and not look.ingredients.batch_norm:
        return f"{said} Put batch norm after each convolution, or {rate}."
    return f"{said} {rate.capitalize()}."


def _largest(look: Look) -> str:
    if not look.table:
        return ""
    row = max(look.table, key=lambda row: row.parameters)
    return f", and {row.parameters:,} are in one {row.name}"


def _confirm_or_shrink(parameters: int, seeds: int) -> str:
    """For a network whose seeds are all consistent."""
    if seeds < DEFAULT_SEEDS:
        return f"Confirm it: of {DEFAULT_SEEDS} seeds, luck alone seldom passes all."
    fresh = records.load_study("confirm_size")
    sizes = [statistics.over_seeds(runs | fresh.get(name, {})) for name, runs in records.load_study("frontier").items()]
    passed = min((one for one in sizes if one.consistent == one.seeds), key=lambda one: one.parameters)
    if parameters > passed.parameters:
        recorded = (
            f"a recorded network with {passed.parameters:,} parameters is consistent for all {passed.seeds} seeds"
        )
        return f"Make it smaller: {recorded}."
    return "It is smaller than every recorded network that is consistent: confirm it with 20 seeds that chose nothing."


def _improve(trials: Mapping[int, Trial]) -> str:
    """For a network that missed the verdict with some seed."""
    runs = [trial.history for trial in trials.values() if trial.stopped is None]
    runs = runs or [trial.history for trial in trials.values()]
    trained = [run.final_train_accuracy for run in runs if run.final_train_correct is not None]
    if trained and np.mean(trained) < UNDERFIT:
        return (
            f"It does not fit the training images either ({np.mean(trained):.2f} %): give it more channels where the "
            "maps are small, or a weaker augmentation."
        )
    if np.mean([run.gap for run in runs if run.final_train_correct is not None] or [0]) > OVERFIT:
        return f"It overfits: train it with Step 3's augmentation, {_worth('no_augmentation')}."
    if np.mean([np.std(run.last_five) for run in runs]) > RESTLESS:
        return f"Its last epochs still jump: end with a lower rate (gamma 0.1), {_worth('constant_rate')}."
    worst = utils.TARGET_PERCENT - min(min(run.last_five) for run in runs)
    return (
        f"Its worst epoch is {worst:.2f} points short: change one thing, such as plain_epochs, {_worth('no_plain_epochs')}"
        ", and look at the same seeds again."
    )


def _worth(recipe: str) -> str:
    """What leaving something out of Step 3 makes of it, as recorded."""
    change = statistics.paired_difference(records.load("ablation", recipe), records.load("ablation", "step3"))
    return f"without which Step 3 changes by {change} points"
