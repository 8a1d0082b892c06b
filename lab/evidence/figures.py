"""The figures of the report, drawn from recorded runs alone."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import utils
from lab.evidence.statistics import differences, over_seeds, standard_error, why_not_comparable
from lab.evidence.tables import readable

Recorded = Mapping[str, Mapping[int, utils.History]]  # the runs of a study's recipes, by name and seed

STEPS = {
    "step1": "Step 1: batch norm",
    "step2": "Step 2: + pooling at 5, GAP, capacity, separable, dropout",
    "step3": "Step 3: + augmentation, StepLR",
}

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


def draw_steps(recorded: Recorded) -> Figure:
    """Test accuracy over the epochs: one thin line a seed, one thick line for the mean of a step's seeds."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for (step, name), color in zip(STEPS.items(), ("tab:gray", "tab:orange", "tab:blue")):
        curves = np.array([run.test_accuracy for run in recorded[step].values()])
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.plot(epochs, curves.T, color=color, linewidth=0.7, alpha=0.35)
        axes.plot(epochs, curves.mean(axis=0), color=color, linewidth=2.2, label=f"{name} ({len(curves)} seeds)")
    axes.axhline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.annotate("99.4 %", (1, utils.TARGET_PERCENT + 0.02))
    axes.axvspan(10.5, 15.5, color="black", alpha=0.05)
    axes.annotate("the last five\nepochs count", (13, 98.5), ha="center", fontsize=9)
    axes.set(ylim=(98, 99.7), xlim=(0.5, 15.5), xlabel="epoch", ylabel="test accuracy, percent")
    axes.set_title("Test accuracy: one thin line a seed, one thick line for their mean")
    axes.legend(loc="lower right")
    return figure


def draw_ladder(recorded: Recorded) -> Figure:
    """The mean of the last five epochs of every seed, one row a recipe, in the ladder's order."""
    lowest = utils.TARGET_PERCENT - 1.6  # a seed below has an arrow in place of a point: it did not learn
    figure, axes = plt.subplots(figsize=(9, 1.4 + 0.34 * len(recorded)), layout="constrained")
    for y, runs in enumerate(recorded.values()):
        for run in runs.values():
            color = utils.TEST_COLOR if utils.verdict(run).consistent else "tab:gray"
            far = run.mean_last_five < lowest
            axes.plot(max(run.mean_last_five, lowest), y, "<" if far else "o", color=color, alpha=0.5, zorder=3)
            if far:
                axes.annotate(f"{run.mean_last_five:.2f}", (lowest, y), (8, -3), textcoords="offset points", fontsize=8)
        axes.plot(over_seeds(runs).mean, y, "|", color="black", markersize=16)
    axes.plot([], [], "o", color=utils.TEST_COLOR, alpha=0.5, label="a seed, consistent")
    axes.plot([], [], "o", color="tab:gray", alpha=0.5, label="a seed, not consistent")
    axes.plot([], [], "|", color="black", markersize=16, label="mean of the seeds")
    axes.axvline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.set_xlim(lowest - 0.03, utils.TARGET_PERCENT + 0.3)
    axes.set_yticks(range(len(recorded)), [readable(key) for key in recorded])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(
        xlabel="test accuracy, percent, mean of the last five epochs", title="From Model_1 to Step 3, one change a row"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.78), fontsize=8)
    return figure


def draw_frontier(recorded: Recorded) -> Figure:
    """Accuracy against parameters: ours with the range of all last five epochs, and what others report."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    blank = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    for name, parameters, reported, side in PUBLISHED:
        axes.plot([parameters] * 2, [min(reported), max(reported)], color="tab:gray", linewidth=1)
        axes.plot(parameters, np.mean(reported), "x", color="tab:gray")
        text = {"ha": "left" if side == "right" else "right", "xytext": (6 if side == "right" else -6, -3)}
        at = (parameters, np.mean(reported))
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
        label="ours: mean and range of the last five epochs, all seeds",
    )
    axes.plot([], [], "x", color="tab:gray", label="as others report: single runs, last epochs (range) or the best")
    axes.axhline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.annotate("99.4 %", (600, utils.TARGET_PERCENT + 0.01), fontsize=9)
    axes.set(
        xlim=(400, 9_200), xlabel="parameters", ylabel="test accuracy, percent", title="How small can the network be?"
    )
    axes.legend(loc="upper left", fontsize=8)
    return figure


def draw_epochs(recorded: Recorded) -> Figure:
    """The mean over seeds after each epoch, for runs of different lengths; the range over seeds at the end."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for key, runs in recorded.items():
        curves = np.array([run.test_accuracy for run in runs.values()])
        epochs = np.arange(1, curves.shape[1] + 1)
        (line,) = axes.plot(epochs, curves.mean(axis=0), ".-", label=readable(key))
        end = curves[:, -1]
        axes.errorbar(
            epochs[-1],
            end.mean(),
            yerr=[[end.mean() - end.min()], [end.max() - end.mean()]],
            capsize=4,
            color=line.get_color(),
        )
    axes.axhline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.set(ylim=(98, 99.7), xlabel="epoch", ylabel="test accuracy, percent")
    axes.set_title("Step 3 in fewer epochs: mean over the seeds, and their range at the end")
    axes.legend(loc="lower right")
    return figure


def show_seeds(records: Mapping[int, utils.History], yours: utils.History | None = None) -> Figure:
    """Runs of one recipe: the last five epochs of each seed, and how often each accuracy occurs among all of them.

    `yours` is marked beside them where it can be compared with them. Raises ValueError for no runs.
    """
    runs = list(records.values())
    if not runs:
        raise ValueError("there are no runs to show, expected at least one")
    mean = np.mean([run.mean_last_five for run in runs])
    luck = standard_error(mean, runs[0].test_images)
    figure, (by_seed, together) = plt.subplots(
        1, 2, figsize=(11, 4), layout="constrained", sharey=True, width_ratios=[3, 1]
    )
    for seed, run in records.items():
        by_seed.plot([seed] * len(run.last_five), run.last_five, ".", color=utils.TEST_COLOR, alpha=0.5)
    means = [run.mean_last_five for run in runs]
    by_seed.plot(list(records), means, "_", color="black", markersize=12, label="mean of a seed's last five epochs")
    by_seed.set(title=f"The last five epochs of each of {len(runs)} seeds", xlabel="seed", ylabel="percent")
    ticks = {seed: str(seed) for seed in records}
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
    together.set(title="All of them", xlabel="epochs")
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


OFF_AXIS = 1.0  # points of difference; a recipe that loses more than this has an arrow in place of a point


def show_comparison(recipes: Mapping[str, Mapping[int, utils.History]], against: str) -> Figure:
    """Each recipe's paired difference to one of them, with its 95 % interval, in the order of the table.

    Red and green where the interval leaves zero out. Raises ValueError as `comparison_table` does.
    """
    changes = differences(recipes, against)
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.28 * len(changes)), layout="constrained")
    for y, (name, difference) in enumerate(changes.items()):
        lost, gained = difference.high < 0, difference.low > 0
        color = "tab:red" if lost else "tab:green" if gained else "gray"
        if difference.mean > -OFF_AXIS:
            axes.plot([difference.low, difference.high], [y, y], color=color, linewidth=2)
            axes.plot(difference.mean, y, "o", color=color)
    left = axes.get_xlim()[0]
    for y, difference in enumerate(changes.values()):
        if difference.mean <= -OFF_AXIS:
            axes.plot(left, y, "<", color="tab:red", clip_on=False)
            axes.annotate(f"{difference.mean:+.2f}", (left, y), (8, -3), textcoords="offset points", fontsize=9)
    axes.set_xlim(left=left)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(changes)), [readable(name) for name in changes])
    axes.set(xlabel=f"points of test accuracy, mean of the last five epochs, difference to {readable(against)}")
    axes.set_title("Paired differences with 95 % intervals; gray where the interval has zero in it", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    plt.close(figure)
    return figure
