"""Claimed and measured, side by side, from the recorded runs of the published systems and of the lesson's steps."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t as student_t

import utils
from lab.evidence import records, statistics
from lab.evidence.contrasts import CANNOT_TELL, Contrast, adjust_estimates
from lab.evidence.crossed import crossed_estimate, told_apart
from lab.evidence.places import RECORDS, refuse_evidence
from lab.evidence.records import Tested
from lab.evidence.tables import table
from lab.systems.peers import LESSON, PEERS, Peer

OURS = "step3"  # what the others are held against
UNTRAINED = "lenet_untrained"


@dataclass(frozen=True)
class Row:
    """One system. Accuracies in percent of the test images, with the weights that a run keeps: those of its best
    validation epoch, or of its last. `std` is over runs, and None for one; `mean` is None where nothing is recorded.
    `seconds_per_epoch` are those of the fastest epoch.

    `difference` is mean - claim, `reach` how far luck alone may put it to either side, `claim_says` what follows of the
    claim: "met", "missed" or "cannot tell"; None where there is no claim. `less_step3` is the accuracy less that of Step
    3 in points, over the runs whose mistakes are recorded (`compared` of the system's), with its 95 % interval over runs
    and test images from `low` to `high`, and `says` what that says: all are adjusted for the systems that are compared.
    They are None for the lesson's own steps, where mistakes are not recorded, and where each side has only one run with them.
    """

    system: str
    group: str
    parameters: int
    runs: int
    claim: float | None = None
    claim_runs: int | None = None
    mean: float | None = None
    std: float | None = None
    seconds_per_epoch: float | None = None
    difference: float | None = None
    reach: float | None = None
    claim_says: str | None = None
    less_step3: float | None = None
    low: float | None = None
    high: float | None = None
    says: str | None = None
    compared: int = 0


class Runs(dict[int, utils.History]):
    """The recorded runs of one recipe, by seed; `tested` has what the kept weights gave on each test image, for the
    seeds whose record has it.
    """

    def __init__(self, recorded: Mapping[int, records.Record] | None = None) -> None:
        recorded = recorded or {}
        super().__init__({seed: record.history for seed, record in recorded.items()})
        self.tested = {seed: record.tested for seed, record in recorded.items() if record.tested}

    @property
    def accuracies(self) -> list[float]:
        """Of each run, on the test images. Without a separate test, the last epoch was tested, and is what is kept."""
        return [
            self.tested[seed].accuracy if seed in self.tested else run.test_accuracy[-1] for seed, run in self.items()
        ]

    @property
    def mean(self) -> float:
        """The mean of the accuracies."""
        return float(np.mean(self.accuracies))

    @property
    def right(self) -> np.ndarray:
        """Whether each run whose mistakes are recorded had each test image right: bool of shape (runs, images)."""
        return np.stack([tested.right for tested in self.tested.values()])


def recorded(folder: Path = RECORDS) -> dict[str, Runs]:
    """The recorded runs of all systems; an invalid record is named on stderr and left out."""
    return of_systems(records.by_recipe(folder))


def of_systems(recorded: records.Runs) -> dict[str, Runs]:
    """The runs of all systems among the recorded ones; no runs for a system that is not recorded."""
    return {name: Runs(recorded.get(peer.recipe.hash)) for name, peer in PEERS.items()}


# One of each kind: whose mistakes are laid over each other.
OVERLAID = (
    "step1",
    "step2",
    "step3",
    "lenet_7_sgd",
    "web_app",
    "simple_cnn",
    "deeper_cnn",
    "pytorch_example",
    "mini_vgg",
    "two_branches_regularized",
)


def mistakes(runs: Mapping[str, Runs]) -> dict[str, Tested]:
    """What one run of each of several systems gives on the test images: the first whose mistakes are recorded."""
    return {name: runs[name].tested[min(runs[name].tested)] for name in OVERLAID if runs[name].tested}


def rows(runs: Mapping[str, Runs]) -> list[Row]:
    """One row of the comparison per system."""
    differences = _less_step3(runs)
    both = []
    for name, one in runs.items():
        row = _row(name, PEERS[name], one)
        if name in differences:
            less, says = differences[name].difference, differences[name].says
            row = replace(row, less_step3=less.mean, low=less.low, high=less.high, says=says, compared=len(one.tested))
        both.append(row)
    return both


def _less_step3(runs: Mapping[str, Runs]) -> dict[str, Contrast]:
    """Each published system less Step 3, adjusted for all of them; the lesson's own steps are compared seed by seed, elsewhere."""
    ours = runs[OURS].tested
    estimates = {
        name: crossed_estimate(one.right, runs[OURS].right)
        for name, one in runs.items()
        if name not in LESSON and one.tested and ours and len(one.tested) + len(ours) > 2
    }
    return adjust_estimates(estimates)


def _row(name: str, peer: Peer, runs: Runs) -> Row:
    row = Row(system=name, group=peer.system, parameters=peer.recipe.parameters, runs=len(runs))
    if peer.claim is not None:
        row = replace(row, claim=peer.claim, claim_runs=peer.claim_runs)
    if not runs:
        return row
    std = float(np.std(runs.accuracies, ddof=1)) if len(runs) > 1 else None
    on_one_core = [run for run in runs.values() if run.environment.get("threads") == 1]
    seconds = min(
        (second for run in on_one_core for second in run.seconds), default=None
    )  # other work slows the others
    row = replace(row, mean=runs.mean, std=std, seconds_per_epoch=seconds)
    if peer.claim is None:
        return row
    difference, reach = runs.mean - peer.claim, _reach(runs.mean, std, len(runs), peer.claim_runs)
    return replace(row, difference=difference, reach=reach, claim_says=claim_says(difference, reach))


MET, MISSED = "met", "missed"
SLACK = 0.1  # points below a claim at which it still counts as met


def claim_says(difference: float, reach: float) -> str:
    """What mean - claim, give or take its reach, says of a claim: missed if the interval lies below zero, met if it lies
    above -0.1 points, otherwise we cannot tell.
    """
    if difference + reach < 0:
        return MISSED
    return MET if difference - reach > -SLACK else CANNOT_TELL


def _reach(mean: float, std: float | None, runs: int, claim_runs: int) -> float:
    """How far apart, in points, our mean and a claim may lie by luck alone, in 95 of 100 cases.

    The claim's runs are taken to spread as ours do; for a single run of ours, a standard error of the test images stands
    in for the spread.
    """
    factor = math.sqrt(1 / runs + 1 / claim_runs)
    if std is None:
        return 1.96 * statistics.standard_error(mean, 10_000) * factor
    return float(student_t.ppf(0.975, runs - 1)) * std * factor


def less_step3(row: Row) -> statistics.Difference | None:
    """A row's difference to Step 3; None where it has none."""
    if row.less_step3 is None or row.low is None or row.high is None:
        return None
    return statistics.Difference(row.less_step3, row.low, row.high)


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------

TITLES = ("system", "parameters", "claim", "runs", "mean", "std", "mean - claim", "s/epoch", "claim\nis")


def cells(row: Row) -> list[str]:
    """A row of the table, as text."""
    return [
        row.system,
        f"{row.parameters:,}",
        f"{row.claim:.2f}" if row.claim is not None else "",
        str(row.runs or "not run"),
        f"{row.mean:.2f}" if row.runs else "",
        f"{row.std:.2f}" if row.std is not None else "",
        f"{row.difference:+.2f} (luck: {row.reach:.2f})" if row.difference is not None else "",
        f"{row.seconds_per_epoch:.1f}" if row.seconds_per_epoch else "",
        row.claim_says or "",
    ]


def reasons(rows: Sequence[Row]) -> list[str]:
    """One sentence for each claim that is missed."""
    return [f"{row.system} misses its claim: {PEERS[row.system].why}" for row in rows if row.claim_says == MISSED]


SIZE_TITLES = (
    "system",
    "parameters",
    "times ours",
    "wrong of\n10,000",
    "runs\ncompared",
    f"accuracy,\nless that of {OURS}",
    "says",
)


def _times(ratio: float) -> str:
    """Three digits are enough."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}"


def by_size(runs: Mapping[str, Runs]) -> list[list[str]]:
    """What parameters buy: systems from small to large, their mistakes, and their difference to Step 3."""
    measured = sorted((row for row in rows(runs) if row.runs), key=lambda row: row.parameters)
    ours = next((row for row in measured if row.system == OURS), None)
    return [
        [
            row.system,
            f"{row.parameters:,}",
            _times(row.parameters / ours.parameters) if ours else "",
            f"{100 * (100 - runs[row.system].mean):,.0f}",
            str(row.compared or ""),
            str(less_step3(row) or ""),
            row.says or "",
        ]
        for row in measured
    ]


PARTED = 5  # runs of one system


def check(runs: Mapping[str, Runs]) -> str:
    """How often the interval errs, on parts of one system's own runs: of the systems with five runs, which part in ten ways."""
    parted = [told_apart(one.right) for one in runs.values() if len(one.tested) == PARTED]
    told, ways = (sum(counts) for counts in zip(*parted)) if parted else (0, 0)
    return (
        f"As a check, each system's own {PARTED} runs are split, two against three: for {told} of {ways} such splits, over "
        f"{len(parted)} systems, the unadjusted interval leaves out zero."
    )


def sentence(runs: Mapping[str, Runs]) -> str:
    """The largest measured system against Step 3; of two of the same size, the more accurate one."""
    ours = next(row for row in rows(runs) if row.system == OURS)
    compared = [row for row in rows(runs) if row.less_step3 is not None]
    if not compared:
        return ""
    largest = max(compared, key=lambda row: (row.parameters, row.mean or 0.0))
    return (
        f"{largest.system} has {largest.parameters:,} parameters, {_times(largest.parameters / ours.parameters)} times the "
        f"{ours.parameters:,} of {OURS}; its accuracy less that of {OURS} is {less_step3(largest)} points: {largest.says}."
    )


def text() -> str:
    """Both tables with their legends. Raises ValueError where a short run or the sample is asked for."""
    _refuse()
    runs = recorded()
    both = rows(runs)
    parts = [table(TITLES, [cells(row) for row in both]), "\n".join(reasons(both)), LEGEND]
    return "\n\n".join([*parts, table(SIZE_TITLES, by_size(runs)), size_legend(runs), sentence(runs)])


def _refuse() -> None:
    refuse_evidence(RECORDS, "unset it to compare the committed records", data=False)


LEGEND = f"""claim and mean are in percent of the 10,000 test images, with the weights of the best validation epoch, or of the
last where all 60,000 images train; std is over runs; 'luck' is how far chance alone may put our mean from the claim, either
way, in 95 of 100 cases: that of the seeds, or of the test images where we have one run. A claim is 'missed' if the
interval of mean - claim lies below zero, 'met' if it lies above -{SLACK} points; each is judged by itself, not adjusted
for the number of claims. s/epoch is the fastest epoch on one core, training and measuring."""


def size_legend(runs: Mapping[str, Runs]) -> str:
    """What the table of sizes has in its last columns."""
    compared = [row for row in rows(runs) if row.compared]
    return f"""the difference from {OURS}, this lesson's last step, is in points, over the runs whose mistakes are recorded: {len(runs[OURS].tested)} of
{OURS}. Its 95 % interval covers other seeds and other test images, and is adjusted for all {len(compared)} systems. The
lesson's own steps are compared seed by seed, in the study `ladder`."""


def as_json() -> str:
    """The rows as one JSON array. Raises as `text`."""
    _refuse()
    return json.dumps([asdict(row) for row in rows(recorded())])


# ---------------------------------------------------------------------------------------------------------------------
# The picture
# ---------------------------------------------------------------------------------------------------------------------


def draw(runs: Mapping[str, Runs]) -> Figure:
    """One row per system, with its parameters: the mean and range of its runs, and its author's claim.

    A single run is drawn hollow, with the interval that the luck of the test images leaves to it. The network that was not
    trained is left out: its accuracy is far to the left of all others.
    """
    measured = [row for row in rows(runs) if row.runs and row.system != UNTRAINED]
    groups = list(dict.fromkeys(row.group for row in measured))
    claims = [row.claim_says for row in measured if row.claim_says]
    missed = claims.count(MISSED)
    figure, axes = plt.subplots(figsize=(10, 1.4 + 0.3 * len(measured)), layout="constrained")
    for y, row in enumerate(measured):
        color = f"C{groups.index(row.group)}"
        of_row = runs[row.system]
        if row.runs > 1:
            axes.plot([min(of_row.accuracies), max(of_row.accuracies)], [y, y], color=color, linewidth=2, alpha=0.5)
            axes.plot(of_row.mean, y, "o", color=color)
        else:
            reach = 1.96 * statistics.standard_error(of_row.mean, 10_000)
            axes.errorbar(of_row.mean, y, xerr=reach, fmt="o", color=color, mfc="white", linewidth=1, alpha=0.6)
        if row.claim is not None:
            axes.plot(row.claim, y, "x", color="black", zorder=3)
    for group in groups:
        axes.plot([], [], "o-", color=f"C{groups.index(group)}", label=group)
    axes.plot([], [], "o", color="gray", mfc="white", label="one run, and the luck of the test images")
    axes.plot([], [], "x", color="black", label="as its author claims")
    axes.axvline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(measured)), [f"{row.system}   {row.parameters:>10,}" for row in measured], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(
        xlabel="test accuracy, percent: mean and range of our runs",
        title=f"Measured and claimed: {missed} of {len(claims)} claims missed, each judged by itself",
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    plt.close(figure)
    return figure
