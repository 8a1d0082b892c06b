"""Compare the mistakes of several networks on the test images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import utils
from lab.evidence.figures import save
from lab.evidence.places import expect_folder
from lab.evidence.records import Tested
from lab.evidence.tables import table
from lab.runs import datasets
from lab.runs.checkpoint import load_model
from lab.runs.train import evaluate, predict

SHOWN = 40  # images that all networks get wrong, in text and figure; the JSON file lists all


class Overlap(NamedTuple):
    """The mistakes of several networks: of each, shared by each pair, and shared by all."""

    mistakes: dict[str, dict[int, int]]  # by name: index of a test image -> prediction
    shared: list[list[int]]  # counts for each pair of networks; the diagonal counts each network's mistakes
    by_all: list[int]  # indices of the test images that all networks get wrong


def overlap(tested: Mapping[str, Tested]) -> Overlap:
    """Find the test images that each network, each pair of networks, and all networks get wrong."""
    mistakes = {name: {index: answer for index, _, answer in one.mistakes} for name, one in tested.items()}
    wrong = [set(one) for one in mistakes.values()]
    shared = [[len(one & other) for other in wrong] for one in wrong]
    return Overlap(mistakes, shared, sorted(set.intersection(*wrong)))


def commonest_pairs(tested: Mapping[str, Tested], count: int = 5) -> dict[str, list[tuple[int, int, int]]]:
    """Return by name the most common mistakes as (label, prediction, count)."""
    counts = {name: Counter((true, said) for _, true, said in one.mistakes) for name, one in tested.items()}
    return {
        name: [
            (true, said, times)
            for (true, said), times in sorted(one.items(), key=lambda item: (-item[1], item[0]))[:count]
        ]
        for name, one in counts.items()
    }


def describe_errors(tested: Mapping[str, Tested]) -> str:
    """Return two tables as text: mistakes shared by each pair of networks, and the most common mistakes of each."""
    shared = overlap(tested)
    numbers = {name: str(place) for place, name in enumerate(tested, start=1)}
    titles = ["shared mistakes", "", "wrong", *numbers.values()]
    rows = [
        [name, numbers[name], str(len(shared.mistakes[name])), *map(str, row)]
        for name, row in zip(tested, shared.shared)
    ]
    named = ", ".join(map(str, shared.by_all[:SHOWN])) + ", ..." * (len(shared.by_all) > SHOWN)
    by_all = f"wrong for all of them: {len(shared.by_all)} test images" + f", {named}" * bool(shared.by_all)
    return f"{table(titles, rows)}\n{by_all}\n\n{_commonest_table(tested)}"


def _commonest_table(tested: Mapping[str, Tested]) -> str:
    pairs = commonest_pairs(tested)
    ranks = max(map(len, pairs.values()))
    rows = []
    for name, commonest in pairs.items():
        cells = [f"{true} -> {said}: {times}" for true, said, times in commonest]
        rows.append([name, *cells, *[""] * (ranks - len(cells))])
    heading = "the commonest mistakes, true -> answer: how often"
    return f"{heading}\n{table(['', *(f'{rank}.' for rank in range(1, ranks + 1))], rows)}"


def show_overlap(tested: Mapping[str, Tested]) -> Figure:
    """Plot how many mistakes of each row's network are also mistakes of each column's."""
    shared = np.array(overlap(tested).shared)
    share = 100 * shared / np.maximum(1, np.diag(shared))[:, None]
    side = 2.2 + 0.62 * len(tested)
    figure, axes = plt.subplots(figsize=(side + 1.5, side), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(shared):
        color = "white" if share[row, column] > 55 else "black"
        axes.text(
            column, row, f"{count}\n{share[row, column]:.0f} %", ha="center", va="center", color=color, fontsize=8
        )
    axes.set_xticks(range(len(tested)), tested, rotation=45, ha="right")
    axes.set_yticks(range(len(tested)), tested)
    axes.set_title(_overlap_title(list(tested), shared), fontsize=10)
    plt.close(figure)
    return figure


def _overlap_title(names: Sequence[str], shared: np.ndarray) -> str:
    """What to see: how many of the best network's mistakes another one makes too."""
    cells = "in each cell, how many mistakes of the row's network the column's makes too"
    best = int(np.diag(shared).argmin())
    others = np.delete(shared[best], best)
    if not len(others):
        return cells
    counts = f"{others.min()} to {others.max()}" if others.min() < others.max() else f"{others.min()}"
    return f"{names[best]} makes the fewest mistakes, {shared[best, best]}; each other network shares {counts} of them\n{cells}"


def show_wrong(digits: utils.Digits, tested: Mapping[str, Tested], title: str, count: int = SHOWN) -> Figure:
    """Show the first `count` test images that all networks get wrong, with their labels and the predictions."""
    shared = overlap(tested)
    title += f"; the first {count}" * (len(shared.by_all) > count)
    titles = []
    for index in shared.by_all[:count]:
        said = Counter(mistakes[index] for mistakes in shared.mistakes.values()).most_common()
        titles.append(f"{digits.labels[index]}, said {' '.join(str(answer) for answer, _ in said)}\n(image {index})")
    return utils.show_images(digits.images[shared.by_all[:count]], titles, title)


def compare_errors(paths: Sequence[Path], folder: Path) -> str:
    """Evaluate several checkpoints, and return the tables of `describe_errors`.

    Writes `errors.json`, `overlap.png` and `wrong_for_all.png` to `folder`. Raises what `load_model` raises, and
    ValueError if a file is given twice or the networks are not of one data set.
    """
    expect_folder(folder)
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise ValueError(f"{path} is given more than once, expected checkpoints of different runs")
    loaded = [load_model(path) for path in paths]
    names = [f"{one.name}, seed {one.seed}" for one in loaded]
    # runs of one recipe and seed may differ in overridden fields: then their folders distinguish them
    names = [name if names.count(name) == 1 else f"{name}, {path.parent}" for name, path in zip(names, paths)]
    used = sorted({one.recipe.dataset for one in loaded})
    if len(used) > 1:
        raise ValueError(f"the checkpoints are of {' and '.join(used)}, expected networks of one data set")
    digits = datasets.load(used[0], utils.pick_device())[1]
    tested = {name: evaluate(predict(one.model, one.recipe, digits), digits.labels) for name, one in zip(names, loaded)}
    shared, pairs = overlap(tested), commonest_pairs(tested)
    content = {
        "dataset": digits.dataset,
        "networks": {name: asdict(one) | {"commonest": pairs[name]} for name, one in tested.items()},
        "shared": shared.shared,
        "wrong_for_all": shared.by_all,
    }
    utils.write_json(folder / "errors.json", content)
    save(show_overlap(tested), folder / "overlap.png")
    title = f"{len(shared.by_all)} test images are wrong for all of {len(tested)} networks"
    title += utils.sample_note(digits.dataset)
    save(show_wrong(digits, tested, title), folder / "wrong_for_all.png")
    tables = f"{describe_errors(tested)}{utils.sample_note(digits.dataset)}"
    return f"{tables}\n\nerrors.json, overlap.png and wrong_for_all.png are in {folder}"
