"""Figures of recorded runs: those of the notebooks, and those of the report."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import utils
from lab.evidence.contrasts import COLLAPSED, DIFFERENT, EQUIVALENT, MARGIN, Contrast, to_one, to_the_row_above
from lab.evidence.records import Tested
from lab.evidence.statistics import (
    Runs,
    has_collapsed,
    on_shared_seeds,
    over_seeds,
    standard_error,
    why_not_comparable,
)
from lab.evidence.tables import readable

Recorded = Mapping[str, Runs]  # the runs of a study's recipes, by name

STEPS = {
    "step1": "Step 1: batch norm",
    "step2": "Step 2: pooling at 5, GAP and a readout, more capacity, separable convolutions, dropout",
    "step3": "Step 3: no dropout; rate falls from 0.2, weight decay, augmentation, plain epochs at the end",
}
GAIN, LOSS, SAME, UNSURE = "tab:green", "tab:red", "tab:blue", "gray"  # SAME is equivalent, UNSURE cannot be told

# What others report of single runs: author, parameters, and the last epochs' accuracies in percent where they give them,
# else one figure, which is their best epoch's (ruslangrimov: of 75 epochs; JoshWarn: of some 700 models; "course" is a
# course in three steps like this one). The last entry is the side that the name stands on.
PUBLISHED = (
    ("JoshWarn", 697, [99.0], "right"),
    ("ruslangrimov", 1_398, [99.0], "right"),
    ("ruslangrimov", 6_742, [99.2], "left"),
    ("Madhur-1", 5_196, [99.40, 99.40, 99.43, 99.40], "right"),
    ("nitin-vig", 7_070, [99.42, 99.45], "left"),
    ("RaviNaik", 7_550, [99.26], "left"),
    ("snehanshu-raj", 7_918, [99.52, 99.43, 99.50, 99.45, 99.50], "right"),
    ("course, Model_1", 7_547, [99.31], "left"),
    ("course, Model_2", 7_873, [99.26], "right"),
    ("course, augmented", 7_873, [99.45], "right"),
)


def draw_all(studies: Mapping[str, Recorded], folder: Path) -> None:
    """Draw each figure that there are enough records for, and store in it a fingerprint of what it shows."""
    drawn = {
        "steps.png": (draw_steps, "consistency", set(STEPS)),
        "seeds.png": (lambda recorded: show_seeds(recorded["step3"]), "consistency", {"step3"}),
        "hundred.png": (lambda recorded: show_seeds(recorded["step3"]), "hundred", {"step3"}),
        "ladder.png": (draw_ladder, "ladder", {"step1"}),
        "ablation.png": (lambda recorded: show_comparison(recorded, "step3"), "ablation", {"step3"}),
        "frontier.png": (draw_frontier, "frontier", set()),
        "epochs.png": (draw_epochs, "epochs", set()),
    }
    for name, (draw, study, needed) in drawn.items():
        recorded = studies[study]
        if recorded and needed <= recorded.keys():
            save(draw(recorded), folder / name, shown=counts(recorded))


def save(figure: Figure, path: Path, shown: object = None) -> None:
    """Write a figure as PNG, whole or not at all, with a fingerprint of what it shows, as plain JSON would have it, so that
    a test sees when it is out of date.
    """
    fingerprint = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
    with utils.whole_or_not_at_all(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=110, metadata={"Records": fingerprint})
    plt.close(figure)


def counts(recorded: Recorded) -> list[object]:
    """What the figures of a study show."""
    return [[key, seed, run.test_correct] for key, runs in recorded.items() for seed, run in runs.items()]


# ---------------------------------------------------------------------------------------------------------------------
# Curves
# ---------------------------------------------------------------------------------------------------------------------


def draw_steps(recorded: Recorded) -> Figure:
    """The three steps over their seeds."""
    steps = {name: recorded[step] for step, name in STEPS.items()}
    return show_curves_over_seeds(
        steps, title="Step 3: after epoch 5 the rate falls, the seeds close up, and all end above 99.4 %"
    )


def draw_epochs(recorded: Recorded) -> Figure:
    """Step 3 in fewer epochs, over its seeds."""
    lengths = {readable(name): runs for name, runs in recorded.items()}
    return show_curves_over_seeds(
        lengths, title="Step 3 in fewer epochs: the jump comes where the rate falls for the first time"
    )


CURVE_COLORS = ("tab:gray", "tab:orange", "tab:blue", "tab:green", "tab:purple", "tab:brown")
BELOW_THE_END = 1.0  # points; so far below the worst end of a curve the axis begins


def show_curves_over_seeds(groups: Recorded, title: str | None = None, images: str = "test") -> Figure:
    """Accuracy over the epochs: one thin line per seed, one thick line for the mean of each group of runs.

    The axis begins one point below the worst end of a run that learned; triangles mark the epochs where seeds lie below
    it, with their number. A mean leaves out the seeds that collapsed, and ends with the shortest run of its group. The
    default title compares the ends of the means. Raises ValueError for no groups, and for a group without runs.
    """
    if not groups or not all(groups.values()):
        raise ValueError("there are no runs to show, expected at least one in each group")
    shown = [run for runs in groups.values() for run in runs.values()]
    learned = [run for run in shown if not has_collapsed(run)] or shown
    longest = max(map(len, shown))
    bottom = max(0.0, min(run.test_accuracy[-1] for run in learned) - BELOW_THE_END)
    figure, axes = plt.subplots(figsize=(11, 4.6 + 0.2 * len(groups)), layout="constrained")
    ends = {}
    for place, (name, runs) in enumerate(groups.items()):
        color = CURVE_COLORS[place % len(CURVE_COLORS)]
        ends[name] = _draw_group(axes, name, runs, color)
        _mark_below(axes, runs, bottom, color, shift=0.8 * ((place + 0.5) / len(groups) - 0.5))
    if {len(run) for run in shown} == {longest} and longest > utils.LAST_EPOCHS:
        axes.axvspan(longest - utils.LAST_EPOCHS + 0.5, longest + 0.5, color="black", alpha=0.05)
        at = longest + 0.5 - utils.LAST_EPOCHS / 2, 0.97
        axes.annotate("the verdict looks at these five", at, xycoords=("data", "axes fraction"), ha="center", va="top")
    _draw_target(axes.axhline, shown)
    top = max(utils.TARGET_PERCENT, *(max(run.test_accuracy) for run in shown))
    axes.set(xlim=(0.4, longest + 0.6), ylim=(bottom, top + 0.15 * (top - bottom)))
    axes.set(xlabel="epoch", ylabel=f"{images} accuracy, percent", title=title or _compare_ends(ends))
    axes.locator_params("x", integer=True)
    axes.plot([], [], "v", color="black", label="number of seeds below the axis in that epoch")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=9)
    plt.close(figure)
    return figure


def _draw_group(axes: Axes, name: str, runs: Runs, color: str) -> float:
    """The curves of one group and their mean; returns where the mean ends. Shorter runs lie on top of longer ones."""
    for run in runs.values():
        epochs = range(1, len(run) + 1)
        axes.plot(epochs, run.test_accuracy, color=color, linewidth=0.7, alpha=0.35, zorder=2 - len(run) / 1_000)
    learned = [run for run in runs.values() if not has_collapsed(run)] or list(runs.values())
    shortest = min(map(len, learned))
    mean = np.mean([run.test_accuracy[:shortest] for run in learned], axis=0)
    label = f"{name} ({len(runs)} seed{'s' * (len(runs) > 1)}"
    label += f"; mean without the {len(runs) - len(learned)} that collapsed)" if len(learned) < len(runs) else ")"
    style: dict[str, Any] = {"color": color, "linewidth": 2.4, "zorder": 3 - shortest / 1_000}
    axes.plot(range(1, shortest + 1), mean, marker="o", markevery=[-1], label=label, **style)
    return float(mean[-1])


def _compare_ends(ends: Mapping[str, float]) -> str:
    """A title: how far apart the means of the groups end."""
    best, worst = max(ends, key=lambda name: ends[name]), min(ends, key=lambda name: ends[name])
    if best == worst:
        return f"{best}: each seed, and the mean that ends at {ends[best]:.2f} %"
    return f"Means over seeds: {best} ends {ends[best] - ends[worst]:.2f} points above {worst}"


def _mark_below(axes: Axes, runs: Runs, bottom: float, color: str, shift: float) -> None:
    """A triangle at the bottom for each epoch in which seeds lie below it, and how many."""
    for epoch in range(max(map(len, runs.values()))):
        below = sum(epoch < len(run) and run.test_accuracy[epoch] < bottom for run in runs.values())
        if below:
            at = (epoch + 1 + shift, 0.02)
            axes.plot(*at, "v", color=color, markersize=5, transform=axes.get_xaxis_transform(), zorder=4)
            axes.annotate(
                str(below),
                at,
                (0, 5),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=color,
            )


def _draw_target(line: Callable[..., object], runs: Iterable[utils.History]) -> None:
    """The target, where the runs are of all of MNIST; on the sample it means nothing."""
    if all(run.dataset == "MNIST" for run in runs):
        line(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1, label=f"{utils.TARGET_PERCENT:.1f} %")


# ---------------------------------------------------------------------------------------------------------------------
# Recipes in rows
# ---------------------------------------------------------------------------------------------------------------------


def draw_ladder(recorded: Recorded) -> Figure:
    """The whole ladder, from Model_1 without batch norm to Step 3."""
    rows = {readable(name): runs for name, runs in recorded.items()}
    return show_ladder(rows, title="From Model_1 to Step 3")


def show_ladder(
    rows: Recorded,
    title: str = "Each row builds on the row above",
    images: str = "test",
    changes: Mapping[str, Contrast] | None = None,
) -> Figure:
    """One row per recipe, each built on the row above: a dot per seed, their mean, and the paired change as text.

    `changes` are those of the rows, by name; without them, they are adjusted for those of this figure.

    The mean of the last five epochs is shown, of the seeds that all rows have. A seed that collapsed has an arrow at the
    left edge in place of its dot. Raises ValueError for fewer than two seeds in common.
    """
    shared = on_shared_seeds(rows)
    changes = {name: change for name, change in (changes or to_the_row_above(shared)).items() if name in shared}
    figure, axes = plt.subplots(figsize=(11, 1.7 + 0.36 * len(shared)), layout="constrained")
    for y, runs in enumerate(shared.values()):
        for run in runs.values():
            color = utils.TEST_COLOR if utils.verdict(run).consistent else "tab:gray"
            if not has_collapsed(run):
                axes.plot(run.mean_last_five, y, "o", color=color, alpha=0.5, zorder=3)
        together = over_seeds(runs)
        if not together.collapsed:
            axes.plot(together.mean, y, "|", color="black", markersize=18, markeredgewidth=2, zorder=4)
    _draw_target(axes.axvline, [run for runs in shared.values() for run in runs.values()])
    axes.margins(x=0.04)
    axes.set_xlim(axes.get_xlim())  # arrows stand on its edge and do not move it
    for y, (name, runs) in enumerate(shared.items()):
        _mark_collapsed(axes, y, runs)
        if name in changes:
            color = _color(changes[name])
            text = str(changes[name].difference) + ", equivalent" * (changes[name].says == EQUIVALENT)
            axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", color=color)
    axes.annotate("change to the row above", (1.01, -0.9), xycoords=("axes fraction", "data"), va="center")
    axes.plot([], [], "o", color=utils.TEST_COLOR, alpha=0.5, label="one seed, consistently at 99.4 %")
    axes.plot([], [], "o", color="tab:gray", alpha=0.5, label="one seed, not consistent")
    axes.plot([], [], "|", color="black", markersize=14, markeredgewidth=2, label="mean of the seeds")
    axes.set_yticks(range(len(shared)), list(shared))
    axes.set_ylim(len(shared) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{images} accuracy in percent, mean of the last five epochs of {together.seeds} seeds")
    axes.set_title(f"{title}{_largest_gain(changes)}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    plt.close(figure)
    return figure


def _mark_collapsed(axes: Axes, y: int, runs: Runs) -> None:
    """An arrow at the left edge for the seeds that collapsed: how many, their accuracy, and the mean of the row."""
    collapsed = [run.mean_last_five for run in runs.values() if has_collapsed(run)]
    if not collapsed:
        return
    low, high = f"{min(collapsed):.2f}", f"{max(collapsed):.2f}"
    where = low if low == high else f"{low} to {high}"
    axes.plot(0, y, "<", color=LOSS, transform=axes.get_yaxis_transform(), clip_on=False, zorder=4)
    text = f"{len(collapsed)} of {len(runs)} seeds at {where} %, mean {over_seeds(runs).mean:.2f} %"
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (0, y), (8, 9), fontsize=8, color=LOSS, **at)


def _largest_gain(changes: Mapping[str, Contrast]) -> str:
    """The end of a title: the row that brings most, of those that differ from the row above."""
    gains = {
        name: change.difference.mean
        for name, change in changes.items()
        if change.says == DIFFERENT and change.difference.mean > 0
    }
    if not gains:
        told = any(change.says in (DIFFERENT, COLLAPSED) for change in changes.values())
        return "" if told else "; no change is distinguishable from zero"
    name = max(gains, key=lambda name: gains[name])
    among = "of those with an interval, " if any(change.says == COLLAPSED for change in changes.values()) else ""
    return f"; {among}{name} brings most, {gains[name]:+.2f} points"


def _color(change: Contrast) -> str:
    if change.says in (DIFFERENT, COLLAPSED):
        return GAIN if change.difference.mean > 0 else LOSS
    return SAME if change.says == EQUIVALENT else UNSURE


OFF_AXIS = 1.0  # points of difference; a recipe that loses more than this has an arrow in place of a dot


def show_comparison(recipes: Recorded, against: str, changes: Mapping[str, Contrast] | None = None) -> Figure:
    """Each recipe's paired difference to one of them, with its adjusted 95 % interval, in the order of the table.

    Red for a loss, green for a gain, blue where the two are equivalent, gray where that cannot be told; a recipe that
    loses more than a point has an arrow. `changes` are those of the recipes, by name; without them, they are adjusted for
    those of this figure. Raises ValueError as `comparison_table` does.
    """
    own = to_one(recipes, against)
    shown = {name: (changes or own)[name] for name in own}
    figure, axes = plt.subplots(figsize=(11, 1.6 + 0.3 * len(shown)), layout="constrained")
    for y, change in enumerate(shown.values()):
        if change.difference.mean > -OFF_AXIS:
            axes.plot(change.difference[1:], [y, y], color=_color(change), linewidth=2)
            axes.plot(change.difference.mean, y, "o", color=_color(change))
    axes.axvline(0, color="black", linewidth=1)
    axes.axvspan(-MARGIN, MARGIN, color=SAME, alpha=0.07)
    axes.set_xlim(axes.get_xlim())
    edge = axes.get_xlim()[0]
    for y, change in enumerate(shown.values()):
        if change.difference.mean <= -OFF_AXIS:
            axes.plot(edge, y, "<", color=LOSS, clip_on=False)
            at: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": LOSS, "fontsize": 9}
            axes.annotate(str(change.difference), (edge, y), (10, 0), **at)
    axes.invert_yaxis()
    axes.set_yticks(range(len(shown)), [readable(name) for name in shown])
    axes.set_xlabel(f"points of test accuracy, mean of the last five epochs, difference to {readable(against)}")
    tested = [change for change in shown.values() if change.difference.has_interval]
    different = sum(change.says == DIFFERENT for change in tested)
    axes.set_title(
        f"{different} of {len(tested)} differ (95 % intervals, adjusted; red: a loss, green: a gain, blue: equivalent)",
        fontsize=11,
    )
    axes.grid(axis="x", alpha=0.3)
    plt.close(figure)
    return figure


def show_changes(on: Mapping[str, Mapping[str, Contrast]], title: str) -> Figure:
    """The changes of one ladder on several data sets, row by row: the mean and its adjusted 95 % interval.

    `on` has the changes by name, for each data set by its name. A row in which a seed collapsed anywhere is left out.
    """
    rows = [
        key
        for key in next(iter(on.values()))
        if all(key in one and one[key].difference.has_interval for one in on.values())
    ]
    figure, axes = plt.subplots(figsize=(11, 1.9 + 0.42 * len(rows)), layout="constrained")
    for i, (name, changes) in enumerate(on.items()):
        marker = "os^D"[i]
        for y, key in enumerate(rows):
            place, change = y + 0.28 * (i - (len(on) - 1) / 2), changes[key]
            axes.plot(change.difference[1:], [place, place], color=_color(change), linewidth=2)
            axes.plot(change.difference.mean, place, marker, color=_color(change))
        axes.plot([], [], marker, color="black", label=name)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [readable(key) for key in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("points of test accuracy, mean of the last five epochs, change to the row above")
    axes.set_title(f"{title}\n(95 % intervals, adjusted; red: a loss, green: a gain, blue: equivalent)", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(on), fontsize=9)
    plt.close(figure)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Mistakes
# ---------------------------------------------------------------------------------------------------------------------


def show_fixed_and_added(
    before: Tested,
    after: Tested,
    digits: utils.Digits,
    names: tuple[str, str] = ("the run before", "the run after"),
    count: int = 10,
) -> Figure | str:
    """Test images that one recorded run gets wrong and the next one right, and below, those the other way round.

    At most `count` of each, in the order of the test images, with the label, the wrong answer and the index. `digits` are
    the test images of MNIST; for others, such as the sample, one sentence is returned in place of the figure.
    """
    mistakes = [{index: (label, answer) for index, label, answer in one.mistakes} for one in (before, after)]
    labels = {index: label for one in mistakes for index, (label, _) in one.items()}
    here = f"{len(digits):,} images ({digits.dataset})"
    same = digits.dataset == "MNIST" and len(digits) == before.images == after.images
    if not same or any(digits.labels[index] != label for index, label in labels.items()):
        return f"No picture: the recorded mistakes are of all {before.images:,} test images of MNIST, these are {here}."
    fixed, added = (
        {index: one[index] for index in sorted(one.keys() - other.keys())}
        for one, other in (mistakes, reversed(mistakes))
    )
    parts = {
        f"{len(fixed)} mistakes of {names[0]} that {names[1]} gets right": fixed,
        f"{len(added)} mistakes that only {names[1]} makes": added,
    }
    figure = plt.figure(figsize=(11, 3.6), layout="constrained")
    figure.suptitle(f"{len(mistakes[0])} mistakes become {len(mistakes[1])}: {len(fixed)} fixed, {len(added)} added")
    for part, (title, shown) in zip(figure.subfigures(2, 1, squeeze=False).flat, parts.items()):
        part.suptitle(title + f"; the first {count}" * (len(shown) > count), fontsize=10)
        _draw_row(part.subplots(1, count), digits, dict(itertools.islice(shown.items(), count)))
    plt.close(figure)
    return figure


def _draw_row(grid: np.ndarray, digits: utils.Digits, shown: Mapping[int, tuple[int, int]]) -> None:
    """One row of images with label and answer above each."""
    for axes in grid:
        axes.axis("off")
    for axes, (index, (label, answer)) in zip(grid, shown.items()):
        axes.imshow(digits.images[index].cpu().numpy(), cmap="gray_r")
        axes.set_title(f"{label}, said {answer}\nimage {index}", fontsize=9)


# ---------------------------------------------------------------------------------------------------------------------
# One recipe, and sizes
# ---------------------------------------------------------------------------------------------------------------------


EACH_SEED = 30  # the axis names each of up to 30 seeds; of more, every tenth, since the numbers would overlap


def show_seeds(records: Runs, yours: utils.History | None = None) -> Figure:
    """Runs of one recipe: the last five epochs of each seed, and how often each accuracy occurs among all of them.

    `yours` is marked beside them where it can be compared with them. Raises ValueError for no runs.
    """
    runs = list(records.values())
    if not runs:
        raise ValueError("there are no runs to show, expected at least one")
    mean = float(np.mean([run.mean_last_five for run in runs]))
    luck = standard_error(mean, runs[0].test_images)
    figure, (by_seed, together) = plt.subplots(
        1, 2, figsize=(11, 4), layout="constrained", sharey=True, width_ratios=[3, 1]
    )
    for seed, run in records.items():
        by_seed.plot([seed] * len(run.last_five), run.last_five, ".", color=utils.TEST_COLOR, alpha=0.5)
    means, width = [run.mean_last_five for run in runs], 12 if len(runs) <= EACH_SEED else 6
    by_seed.plot(list(records), means, "_", color="black", markersize=width, label="mean of a seed's last five epochs")
    consistent = sum(utils.verdict(run).consistent is True for run in runs)
    title = f"{consistent} of {len(runs)} seeds have each of their last five epochs at {utils.TARGET_PERCENT} % or more"
    by_seed.set(title=title, xlabel="seed", ylabel="accuracy, percent")
    ticks = {seed: str(seed) for seed in records if len(runs) <= EACH_SEED or seed % 10 == 0}
    if yours and not why_not_comparable(yours, runs[0]):
        place = max(records) + 1
        ticks[place] = "yours"
        by_seed.plot([place] * len(yours.last_five), yours.last_five, ".", color=utils.YOUR_COLOR, alpha=0.5)
        by_seed.plot(place, yours.mean_last_five, "D", color=utils.YOUR_COLOR, label="your run")
    by_seed.set_xticks(list(ticks), list(ticks.values()))
    last = [percent for run in runs for percent in run.last_five]
    image = 100 / runs[0].test_images
    edges = np.arange(min(last) - image / 2, max(last) + 2.5 * image, 2 * image)
    together.hist(last, bins=edges, orientation="horizontal", color=utils.TEST_COLOR, alpha=0.7)
    together.set(title="How often?", xlabel="number of epochs")
    together.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in (by_seed, together):
        axes.axhline(
            utils.TARGET_PERCENT, color="gray", linestyle="--", linewidth=1, label=f"{utils.TARGET_PERCENT:.1f} %"
        )
        axes.axhspan(
            mean - luck, mean + luck, color="gray", alpha=0.15, label="mean, and one standard error of the images"
        )
    figure.legend(handles=by_seed.get_legend_handles_labels()[0], loc="outside lower center", ncols=3, fontsize=8)
    plt.close(figure)
    return figure


def draw_frontier(recorded: Recorded) -> Figure:
    """Accuracy against parameters: ours with the range of all last five epochs, and what others report."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    frontier_on(axes, recorded)
    axes.set_title("How small can the network be? A bar that stays above 99.4 %: consistent with every seed")
    axes.legend(loc="upper left", fontsize=8)
    return figure


def frontier_on(axes: Axes, recorded: Recorded, whose: str = "ours", names: bool = True) -> None:
    """Draw accuracy against parameters, without title and legend: the recorded networks, which are `whose`, and those of
    others, with the `names` of their authors.
    """
    blank = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for name, parameters, reported, side in PUBLISHED:
        axes.plot([parameters] * 2, [min(reported), max(reported)], color="tab:gray", linewidth=1)
        axes.plot(parameters, np.mean(reported), "x", color="tab:gray")
        text: dict[str, Any] = {
            "ha": "left" if side == "right" else "right",
            "xytext": (6 if side == "right" else -6, -3),
        }
        at = (parameters, np.mean(reported))
        if names:
            axes.annotate(name, at, textcoords="offset points", fontsize=7, color="dimgray", bbox=blank, **text)
    runs_by_size = sorted(recorded.values(), key=lambda runs: next(iter(runs.values())).parameters)
    sizes = [next(iter(runs.values())).parameters for runs in runs_by_size]
    means = np.array([np.mean([run.mean_last_five for run in runs.values()]) for runs in runs_by_size])
    worst = np.array([min(min(run.last_five) for run in runs.values()) for runs in runs_by_size])
    best = np.array([max(max(run.last_five) for run in runs.values()) for runs in runs_by_size])
    axes.errorbar(
        sizes,
        means,
        yerr=[means - worst, best - means],
        fmt="o-",
        capsize=3,
        color=utils.TEST_COLOR,
        label=f"{whose}: mean and range of the last five epochs, all seeds",
    )
    axes.plot([], [], "x", color="tab:gray", label="as others report: single runs, last epochs (range) or best epoch")
    axes.axhline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.annotate("99.4 %", (600, utils.TARGET_PERCENT + 0.01), fontsize=9)
    axes.set(xlim=(400, 9_200), xlabel="parameters", ylabel="test accuracy, percent")


def draw_band(axes: Axes, runs: Runs, label: str) -> None:
    """The range of several runs of one length over their epochs, as a band."""
    accuracy = np.array([run.test_accuracy for run in runs.values()])
    epochs = range(1, accuracy.shape[1] + 1)
    axes.fill_between(epochs, accuracy.min(0), accuracy.max(0), color=utils.TEST_COLOR, alpha=0.3, label=label)
