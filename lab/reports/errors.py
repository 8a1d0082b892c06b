"""Which test images several networks get wrong, and which of them together."""

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
from lab.runs.checkpoint import load_model
from lab.runs.train import evaluate, predict

SHOWN = 40  # images that all of them get wrong, in text and picture; the file has all


class Overlap(NamedTuple):
    """Of the mistakes of several networks: by name, and by pair of names, and those of all of them."""

    mistakes: dict[str, dict[int, int]]  # by name: index of a test image -> answer
    shared: list[list[int]]  # images that both of two networks get wrong; a network with itself: its mistakes
    by_all: list[int]  # indices of the test images that all of them get wrong


def overlap(tested: Mapping[str, Tested]) -> Overlap:
    """Which test images several networks get wrong, and which of them together."""
    mistakes = {name: {index: answer for index, _, answer in one.mistakes} for name, one in tested.items()}
    wrong = [set(one) for one in mistakes.values()]
    shared = [[len(one & other) for other in wrong] for one in wrong]
    return Overlap(mistakes, shared, sorted(set.intersection(*wrong)))


def commonest_pairs(tested: Mapping[str, Tested], count: int = 5) -> dict[str, list[tuple[int, int, int]]]:
    """By name: the commonest mistakes as (true digit, answer, how often)."""
    counts = {name: Counter((true, said) for _, true, said in one.mistakes) for name, one in tested.items()}
    return {
        name: [
            (true, said, times)
            for (true, said), times in sorted(one.items(), key=lambda item: (-item[1], item[0]))[:count]
        ]
        for name, one in counts.items()
    }


def describe_errors(tested: Mapping[str, Tested]) -> str:
    """Two tables: how many mistakes two networks share, and the commonest mistakes of each."""
    shared = overlap(tested)
    width = max(map(len, tested))
    lines = [f"{'':<{width}}  wrong   shared with each, in the same order"]
    for name, row in zip(tested, shared.shared):
        lines.append(f"{name:<{width}} {len(shared.mistakes[name]):>6}   " + " ".join(f"{count:>5}" for count in row))
    named = ", ".join(map(str, shared.by_all[:SHOWN])) + ", ..." * (len(shared.by_all) > SHOWN)
    lines.append(f"wrong for all of them: {len(shared.by_all)} test images" + f", {named}" * bool(shared.by_all))
    lines += ["", "the commonest mistakes, true -> answer"]
    for name, pairs in commonest_pairs(tested).items():
        lines.append(f"{name:<{width}}   " + ", ".join(f"{true} -> {said}: {times}" for true, said, times in pairs))
    return "\n".join(lines)


def show_overlap(tested: Mapping[str, Tested]) -> Figure:
    """How many of the mistakes of the network of a row are also mistakes of that of a column."""
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
    axes.set_title("Mistakes of the row's network that the column's makes too", fontsize=10)
    plt.close(figure)
    return figure


def show_wrong(digits: utils.Digits, tested: Mapping[str, Tested], title: str, count: int = SHOWN) -> Figure:
    """The test images that all of these networks get wrong, with what they are labelled, and what is said to them; the
    first so many of them.
    """
    shared = overlap(tested)
    title += f"; the first {count}" * (len(shared.by_all) > count)
    titles = []
    for index in shared.by_all[:count]:
        said = Counter(mistakes[index] for mistakes in shared.mistakes.values()).most_common()
        titles.append(f"{digits.labels[index]}, said {' '.join(str(answer) for answer, _ in said)}\n(image {index})")
    return utils.show_images(digits.images[shared.by_all[:count]], titles, title)


def compare_errors(paths: Sequence[Path], folder: Path) -> str:
    """Test several checkpoints, and return the tables of their errors; `errors.json`, `overlap.png` and
    `wrong_for_all.png` go into a folder.

    Raises as `load_model`, and ValueError for the same file twice.
    """
    expect_folder(folder)
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise ValueError(f"{path} is given more than once, expected checkpoints of different runs")
    loaded = [load_model(path) for path in paths]
    names = [f"{one.name}, seed {one.seed}" for one in loaded]
    # runs of one recipe and seed may differ in the fields that they were given: then their folders tell them apart
    names = [name if names.count(name) == 1 else f"{name}, {path.parent}" for name, path in zip(names, paths)]
    digits = utils.load_data(utils.pick_device())[1]
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
    table = f"{describe_errors(tested)}{utils.sample_note(digits.dataset)}"
    return f"{table}\n\nerrors.json, overlap.png and wrong_for_all.png are in {folder}"
