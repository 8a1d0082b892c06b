"""One next experiment for a network, from what its runs show and what is recorded of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import utils
from lab.evidence import records, statistics
from lab.evidence.odds import DEFAULT_SEEDS
from lab.judging.look import BUDGET

if TYPE_CHECKING:
    from lab.judging.card import Card

UNDERFIT = 99.5  # percent of the training images; Step 3's recorded runs end above
OVERFIT = 0.35  # points between training and test images; Step 3's recorded runs stay below 0.2
RESTLESS = 0.06  # points, standard deviation of the last five epochs within a run; Step 3's is 0.02


def next_experiment(card: Card) -> str:
    """What to try next, in one or two sentences: the first that applies of what is broken, over budget, unsure, weak."""
    if card.failures:
        seed, why = next(iter(card.failures.items()))
        return f"Find out why seed {seed} failed ({why}). If the loss is not finite, halve the learning rate."
    over = card.look.parameters - BUDGET + 1
    if over > 0:
        return f"You are {over:,} parameters over the budget{_largest(card)}: make it narrower."
    if card.look.warnings:
        warning = card.look.warnings[0]
        return f"First follow the warning: {warning.what}."
    if card.consistent is None:
        return "Run it on all of MNIST: on this sample there is no verdict."
    if card.consistent == len(card.trials):
        return _confirm_or_shrink(card)
    return _improve(card)


def _largest(card: Card) -> str:
    if not card.look.table:
        return ""
    row = max(card.look.table, key=lambda row: row.parameters)
    return f", and {row.parameters:,} are in one {row.name}"


def _confirm_or_shrink(card: Card) -> str:
    """For a network whose seeds are all consistent."""
    if len(card.trials) < DEFAULT_SEEDS:
        return f"Confirm it: with {DEFAULT_SEEDS} seeds, luck alone seldom passes."
    sizes = records.load_study("frontier").values()
    passed = [one.parameters for one in map(statistics.over_seeds, sizes) if one.consistent == one.seeds]
    if card.look.parameters > min(passed):
        return f"Make it smaller: a recorded network with {min(passed):,} parameters is consistent for every seed."
    return "It is smaller than every recorded network that is consistent: confirm it with 20 seeds that chose nothing."


def _improve(card: Card) -> str:
    """For a network that missed the verdict with some seed."""
    runs = [trial.history for trial in card.whole.values()] or list(card.runs.values())
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
