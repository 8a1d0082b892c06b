"""The card of a network: what it is, what its seeds gave, how it compares with Step 3, and what to try next."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import utils
from lab.evidence import figures, records, statistics
from lab.evidence.contrasts import MARGIN
from lab.evidence.records import TEST_IMAGES, Tested
from lab.evidence.statistics import Difference
from lab.evidence.tables import seeds_table
from lab.judging.advice import BUDGET
from lab.judging.look import Look
from lab.judging.next_experiment import next_experiment
from lab.judging.trial import Trial, consistent
from lab.runs.recipes import Recipe
from lab.systems import catalog

SHOWN = 10  # mistakes in the picture
BELOW: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.16),
    "fontsize": 8,
}  # legends cover nothing there


@dataclass(frozen=True)
class ToStep3:
    """The difference of the last five epochs to the recorded Step 3, or the reason why there is none.

    `seeds` are those that both were trained from; it is empty for a difference that is not paired. `epochs` says how
    long each trained, where that is not the same.
    """

    difference: Difference | None
    seeds: list[int]
    reason: str
    epochs: str = ""

    def __str__(self) -> str:
        if not self.difference:
            return f"not compared: {self.reason}"
        seeds = f"paired over seeds {' '.join(map(str, self.seeds))}" if self.seeds else "not paired"
        points = str(self.difference) if self.difference.has_interval else f"{self.difference.mean:+.2f}"
        return f"{points} points, {seeds}: {self.says}{self.epochs}"

    def as_dict(self) -> dict[str, Any]:
        """The same, as JSON has it; what a comparison that was not made would say is null."""
        if not self.difference:
            return {"reason": self.reason, "seeds": [], "says": None}
        return self.difference._asdict() | {"seeds": self.seeds, "says": self.says}

    @property
    def says(self) -> str:
        """Whether the interval tells the two apart; it is one comparison, so nothing is adjusted."""
        if not self.difference:
            return "cannot tell them apart"
        if not self.difference.has_interval:
            return "a seed did not learn, so there is no interval"
        if self.difference.sign:
            return "better than Step 3" if self.difference.sign > 0 else "worse than Step 3"
        within = self.difference.low >= -MARGIN and self.difference.high <= MARGIN
        return f"equivalent, to within {MARGIN} points" if within else "cannot tell them apart"


@dataclass(frozen=True)
class Mistakes:
    """The test images that most whole runs get wrong: index, label and the commonest answer of each."""

    wrong: list[tuple[int, int, int]]
    shared: list[int]  # indices that the recorded Step 3 gets wrong too
    of_step3: int

    @property
    def own(self) -> list[tuple[int, int, int]]:
        """Those that Step 3 gets right."""
        return [mistake for mistake in self.wrong if mistake[0] not in self.shared]


@dataclass(frozen=True)
class Card:
    """What was found out about a network. It prints as text; `figure` is its picture, `as_dict` its JSON."""

    look: Look
    recipe: Recipe
    like: str
    trials: Mapping[int, Trial]
    failures: Mapping[int, str]

    @property
    def runs(self) -> dict[int, utils.History]:
        """The histories of all trials, by seed."""
        return {seed: trial.history for seed, trial in self.trials.items()}

    @property
    def whole(self) -> dict[int, Trial]:
        """The trials that were trained to their end."""
        return {seed: trial for seed, trial in self.trials.items() if trial.stopped is None}

    @property
    def parameters(self) -> int:
        """Trainable ones."""
        return next(iter(self.runs.values())).parameters

    @property
    def dataset(self) -> str:
        """What the images are, as in `utils.Digits`."""
        return next(iter(self.runs.values())).dataset

    @property
    def on_mnist(self) -> bool:
        """Whether all of MNIST's test images were measured, as in the records."""
        return all(run.dataset == "MNIST" and run.test_images == TEST_IMAGES for run in self.runs.values())

    def to_step3(self) -> ToStep3:
        """How it compares with the recorded runs of Step 3."""
        whole = {seed: trial.history for seed, trial in self.whole.items()}
        try:
            step3 = records.load("consistency", "step3")
        except FileNotFoundError as error:
            return ToStep3(None, [], str(error))
        if not self.on_mnist:
            run = next(iter(self.runs.values()))
            images = f"{run.test_images:,} test images of {run.dataset}".replace("of MNIST", "of MNIST alone")
            return ToStep3(None, [], f"you tested on {images}, Step 3 on MNIST's 10,000")
        if len(whole) < 2:
            return ToStep3(None, [], f"{len(whole)} whole runs, expected at least 2 (--whole trains every epoch)")
        seeds = sorted(whole.keys() & step3.keys())
        mine, theirs = len(next(iter(whole.values()))), len(next(iter(step3.values())))
        epochs = f" ({mine} epochs here, {theirs} there)" if mine != theirs else ""
        if len(seeds) > 1:
            return ToStep3(statistics.paired_difference(whole, step3), seeds, "", epochs)
        return ToStep3(statistics.unpaired_difference(whole, step3), [], "", epochs)

    def mistakes(self) -> Mistakes | None:
        """What most whole runs get wrong, beside Step 3; None on other images than all of MNIST's, or without whole runs."""
        tested = [trial.tested for trial in self.whole.values() if trial.tested]
        if not tested or not self.on_mnist:
            return None
        wrong = _wrong_in_most(tested)
        try:
            step3 = _wrong_in_most(records.load_mistakes("consistency", "step3").values())
        except FileNotFoundError:
            step3 = {}
        listed = [(index, label, answer) for index, (label, answer) in sorted(wrong.items())]
        return Mistakes(listed, sorted(wrong.keys() & step3.keys()), len(step3))

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        to_step3, mistakes = self.to_step3(), self.mistakes()
        passed = consistent(self.trials)
        return {
            "network": self.recipe.network,
            "like": self.like,
            "recipe": asdict(self.recipe),
            "dataset": self.dataset,
            "parameters": self.parameters,
            "budget": BUDGET,
            "epochs": self.recipe.epochs,
            "seeds": {str(seed): _seed(trial) for seed, trial in self.trials.items()},
            "failed": {str(seed): why for seed, why in self.failures.items()},
            "consistent": passed,
            "of": len(self.trials),
            "consistent_interval": None
            if passed is None
            else list(statistics.share_interval(passed, len(self.trials))),
            "to_step3": to_step3.as_dict(),
            "mistakes": mistakes
            and {
                "in_most_seeds": len(mistakes.wrong),
                "shared_with_step3": mistakes.shared,
                "own": [index for index, _, _ in mistakes.own],
            },
            "look": self.look.as_dict(),
            "next": next_experiment(self.look, self.trials, self.failures),
        }

    def write(self, folder: Path) -> None:
        """Write card.txt, card.json and card.png into a folder."""
        utils.write_json(folder / "card.json", self.as_dict(), indent=1)
        with utils.whole_or_not_at_all(folder / "card.txt") as unfinished:
            unfinished.write_text(f"{self}\n")
        figures.save(self.figure(), folder / "card.png")

    def figure(self) -> Figure:
        """Its curves and its place among the networks of other sizes, both beside Step 3; and mistakes of its own."""
        mistakes = self.mistakes()
        rows = 2 if mistakes and mistakes.own else 1
        figure = plt.figure(figsize=(utils.WIDTH, 4.6 + 1.7 * (rows - 1)), layout="constrained")
        plt.close(figure)
        parts = figure.subfigures(rows, 1, height_ratios=[4.6, 1.7][:rows], squeeze=False)[:, 0]
        curves, frontier = parts[0].subplots(1, 2)
        _draw_curves(curves, self)
        _draw_frontier(frontier, self)
        if mistakes and mistakes.own:
            _draw_mistakes(parts[1], mistakes)
        return figure


def _wrong_in_most(tested: Iterable[Tested]) -> dict[int, tuple[int, int]]:
    """Label and commonest answer of the images that more than half of the runs get wrong, by index."""
    runs = list(tested)
    answers: dict[int, Counter[tuple[int, int]]] = {}
    for run in runs:
        for index, label, answer in run.mistakes:
            answers.setdefault(index, Counter())[label, answer] += 1
    return {index: one.most_common(1)[0][0] for index, one in answers.items() if 2 * one.total() > len(runs)}


def _seed(trial: Trial) -> dict[str, Any]:
    run = trial.history
    return {
        "last_five": [round(percent, 4) for percent in run.last_five],
        "mean": round(run.mean_last_five, 4),
        "worst": round(min(run.last_five), 4),
        "consistent": utils.verdict(run).consistent,
        "stopped_after": trial.stopped,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------------------------------


def _lines(card: Card) -> list[str]:
    lines = [
        f"{card.recipe.network}, trained like {card.like}{_changed(card)}{utils.sample_note(card.dataset)}",
        "",
        f"parameters   {card.parameters:,}; the budget is fewer than {BUDGET:,}",
        f"epochs       {card.recipe.epochs}",
    ]
    mistakes, advice = len(card.look.of_kind("mistake")), len(card.look.of_kind("advice"))
    found = [f"{mistakes} mistake{'s' * (mistakes > 1)} to mend"] * bool(mistakes)
    found += [f"{advice} point{'s' * (advice > 1)} to look at"] * bool(advice)
    if found:
        lines.append(f"look         {' and '.join(found)} before you train again")
    lines += [f"consistent   {_consistent(card)}", "", seeds_table(card.runs)]
    lines += [
        f"seed {seed} stopped after epoch {trial.stopped}: it can no longer be consistent"
        for seed, trial in card.trials.items()
        if trial.stopped
    ]
    lines += [f"seed {seed} failed: {why}" for seed, why in card.failures.items()]
    lines += ["", f"to Step 3    {card.to_step3()}"]
    wrong = card.mistakes()
    if wrong:
        lines.append(
            f"mistakes     {len(wrong.wrong):,} test images are wrong in most seeds: {len(wrong.shared):,} of Step 3's "
            f"{wrong.of_step3:,}, and {len(wrong.own):,} that Step 3 gets right"
        )
    return [*lines, f"next         {next_experiment(card.look, card.trials, card.failures)}"]


def _changed(card: Card) -> str:
    """The fields of the recipe that are not those of the one that it is like."""
    if card.like.endswith((".yaml", ".yml")):
        return ""
    mine, like = asdict(card.recipe), asdict(catalog.find_recipe(card.like))
    changed = [name for name in mine if name not in ("network", "switches") and mine[name] != like[name]]
    return "".join(f", {name} {mine[name]}" for name in changed)


def _consistent(card: Card) -> str:
    passed, seeds = consistent(card.trials), len(card.trials)
    if passed is None:
        return str(utils.verdict(next(iter(card.runs.values()))))
    low, high = statistics.share_interval(passed, seeds)
    return (
        f"{passed} of {seeds} seeds; so between {100 * low:.0f} and {100 * high:.0f} % of all seeds are "
        "(exact 95 % interval)"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Picture
# ---------------------------------------------------------------------------------------------------------------------


def _draw_curves(axes: Axes, card: Card) -> None:
    """Accuracy over the epochs: a line per seed, and the range of Step 3's recorded seeds behind them."""
    runs = list(card.runs.values())
    if card.on_mnist:
        figures.draw_band(axes, records.load("consistency", "step3"), "Step 3: range of its recorded seeds")
        axes.axhline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    for seed, run in card.runs.items():
        label = f"yours, seed {seed}" if len(runs) == 1 else "yours: one line per seed"
        axes.plot(
            range(1, len(run) + 1),
            run.test_accuracy,
            color=utils.YOUR_COLOR,
            linewidth=1.2,
            label=label if run is runs[0] else None,
        )
        if len(run) == 1:
            axes.plot(1, run.test_accuracy[0], "o", color=utils.YOUR_COLOR)
    ends = [run.test_accuracy[-1] for run in runs]
    if card.on_mnist:  # the end of training, where Step 3 is
        axes.set_ylim(max(-1.0, min([*ends, 99.0]) - 0.6), min(100.0, max([*ends, 99.4]) + 0.35))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="test accuracy, percent")
    low, high = f"{min(ends):.2f}", f"{max(ends):.2f}"
    axes.set_title(f"It ends at {low if low == high else f'{low} to {high}'} %", fontsize=10)
    axes.legend(**BELOW)


def _draw_frontier(axes: Axes, card: Card) -> None:
    """Accuracy against parameters: the recorded networks, and this one."""
    figures.frontier_on(axes, records.load_study("frontier"), whose="recorded", names=False)
    means = [run.mean_last_five for run in card.runs.values()]
    mean = sum(means) / len(means)
    low, _ = axes.get_ylim()
    axes.plot(
        card.parameters, max(mean, low + 0.02), "*", markersize=15, color=utils.YOUR_COLOR, label="yours", zorder=6
    )
    if card.parameters > axes.get_xlim()[1]:
        axes.set_xscale("log")
        axes.set_xlim(400, 2 * card.parameters)
    over = min(utils.LAST_EPOCHS, *(len(run) for run in card.runs.values()))
    epochs = f"its last {over} epochs" if over > 1 else "its only epoch"
    below = "\nthe star is off the axis, and stands at its lower edge" if mean < low else ""
    axes.set_title(f"{card.parameters:,} parameters, {mean:.2f} % over {epochs}{below}", fontsize=10)
    axes.legend(**BELOW)


def _draw_mistakes(part: Any, mistakes: Mistakes) -> None:
    shown = mistakes.own[:SHOWN]
    first = f"; the first {SHOWN}" if len(mistakes.own) > SHOWN else ""
    part.suptitle(f"Mistakes of its own, {len(mistakes.own)} that Step 3 gets right{first}: label, answer", fontsize=10)
    images = utils.load_data(torch.device("cpu"))[1].images
    for axes in (grid := part.subplots(1, SHOWN, squeeze=False)[0]):
        axes.axis("off")
    for axes, (index, label, answer) in zip(grid, shown):
        axes.imshow(images[index].numpy(), cmap="gray_r")
        axes.set_title(f"{label}, {answer}", fontsize=9)
