"""What trained networks get right and wrong: metrics, errors that they share, features; as text, JSON and figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.manifold import TSNE
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    accuracy_score,
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
)
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

import utils
from lab.figures import save
from lab.recipes import Recipe
from lab.train import Tested, evaluate, load_model, make_transform, predict

DIGITS = range(utils.CLASSES)

# ---------------------------------------------------------------------------------------------------------------------
# The data
# ---------------------------------------------------------------------------------------------------------------------


def describe_data(train: utils.Digits, test: utils.Digits) -> str:
    """Counts, size, range of pixels and labels, and how often each digit occurs, as a table."""
    lines = [f"{'':<12} {'images':>7}  {'size':<8} {'pixels':<10} {'labels':<7} {'images of each digit, 0 to 9':<28}"]
    for name, digits in (("training", train), ("test", test)):
        images, labels = digits.images, digits.labels
        size = " x ".join(map(str, images.shape[1:]))
        pixels = f"{int(images.min())} to {int(images.max())}"
        kinds = f"{int(labels.min())} to {int(labels.max())}"
        counts = " ".join(f"{count:,}" for count in labels.bincount(minlength=utils.CLASSES).tolist())
        lines.append(f"{name:<12} {len(digits):>7,}  {size:<8} {pixels:<10} {kinds:<7} {counts}")
    return "\n".join(lines)


def show_classes(train: utils.Digits, test: utils.Digits) -> Figure:
    """The share of each digit among the training and the test images."""
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for shift, (name, digits) in zip((-0.2, 0.2), (("training", train), ("test", test))):
        shares = 100 * digits.labels.bincount(minlength=utils.CLASSES).cpu().numpy() / len(digits)
        axes.bar(np.array(DIGITS) + shift, shares, width=0.4, label=f"{len(digits):,} {name} images")
    axes.axhline(10, color="gray", linestyle="--", linewidth=1)
    axes.set(xticks=list(DIGITS), xlabel="digit", ylabel="percent", title="How often each digit occurs")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    plt.close(figure)
    return figure


def data(folder: Path) -> str:
    """Check the data and draw how often each digit occurs into `classes.png` of a folder; return the table."""
    train, test = utils.load_data(torch.device("cpu"))  # checks sizes, types and labels
    save(show_classes(train, test), folder / "classes.png")
    return f"{describe_data(train, test)}\n\nclasses.png is in {folder}"


# ---------------------------------------------------------------------------------------------------------------------
# One network: metrics
# ---------------------------------------------------------------------------------------------------------------------


def answers(labels: Tensor, tested: Tested) -> np.ndarray:
    """What the network said to each test image, from its mistakes."""
    said = labels.cpu().numpy().copy()
    for index, _, answer in tested.mistakes:
        said[index] = answer
    return said


def metrics(labels: Tensor, tested: Tested) -> dict[str, object]:
    """Accuracy, precision, recall and F1, overall (the mean over the digits) and of each digit, in percent; the
    confusion matrix, a row a true digit, a column an answer, in images.
    """
    true, said = labels.cpu().numpy(), answers(labels, tested)
    names = ("precision", "recall", "f1")
    scores = {"labels": list(DIGITS), "zero_division": 0}
    overall = precision_recall_fscore_support(true, said, average="macro", **scores)[:3]
    *by_digit, images = precision_recall_fscore_support(true, said, average=None, **scores)
    return {
        "images": tested.images,
        "accuracy": 100 * float(accuracy_score(true, said)),
        **{name: 100 * float(score) for name, score in zip(names, overall)},
        "loss": tested.loss,
        "digits": {
            str(digit): {name: 100 * float(score[digit]) for name, score in zip(names, by_digit)}
            | {"images": int(images[digit])}
            for digit in DIGITS
        },
        "confusion_matrix": confusion_matrix(true, said, labels=list(DIGITS)).tolist(),
        "mistakes": tested.mistakes,
    }


def show_confusion(labels: Tensor, tested: Tested, title: str) -> Figure:
    """The confusion matrix, with the right answers left out of the colors, so that the mistakes can be seen."""
    matrix = confusion_matrix(labels.cpu().numpy(), answers(labels, tested), labels=list(DIGITS))
    off_diagonal = matrix - np.diag(np.diag(matrix))
    figure, axes = plt.subplots(figsize=(6.5, 6), layout="constrained")
    display = ConfusionMatrixDisplay(off_diagonal, display_labels=list(DIGITS))
    display.plot(ax=axes, cmap="Blues", colorbar=False, include_values=False)
    for (true, said), count in np.ndenumerate(matrix):
        dark = off_diagonal[true, said] > off_diagonal.max() / 2
        color = "gray" if true == said else "white" if dark else "black"
        axes.text(said, true, count or "", ha="center", va="center", color=color, fontsize=9)
    axes.set(xlabel="answer", ylabel="true digit", title=title)
    plt.close(figure)
    return figure


def show_scores(scores: Mapping[str, object], title: str) -> Figure:
    """Precision, recall and F1 of each digit, from `metrics`."""
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for shift, name in zip((-0.27, 0.0, 0.27), ("precision", "recall", "f1")):
        heights = [scores["digits"][str(digit)][name] for digit in DIGITS]
        axes.bar(np.array(DIGITS) + shift, heights, width=0.27, label=f"{name}, mean {scores[name]:.2f}")
    lowest = min(scores["digits"][str(digit)][name] for digit in DIGITS for name in ("precision", "recall", "f1"))
    axes.set_ylim(max(0, lowest - 1) if lowest < 99 else 98, 100)
    axes.set(xticks=list(DIGITS), xlabel="digit", ylabel="percent", title=title)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    plt.close(figure)
    return figure


def show_predictions(digits: utils.Digits, logits: Tensor, count: int = 8, seed: int = 0) -> Figure:
    """Random images with what the network says to them, and how sure it is."""
    drawn = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))[:count]
    sure, said = logits.cpu()[drawn].softmax(dim=1).max(dim=1)
    titles = [
        f"{label}, said {answer}\n{100 * chance:.0f} % sure"
        for label, answer, chance in zip(digits.labels.cpu()[drawn].tolist(), said.tolist(), sure.tolist())
    ]
    return utils.show_images(digits.images.cpu()[drawn], titles, f"{len(drawn)} random test images", columns=count)


def test(path: Path) -> str:
    """Test a checkpoint on the test images: write `metrics.json` and four figures beside it, and return the report as text.

    Raises as `load_model`.
    """
    loaded = load_model(path)
    digits = utils.load_data(utils.pick_device())[1]
    logits = predict(loaded.model, loaded.recipe, digits)
    tested = evaluate(logits, digits.labels)
    scores = metrics(digits.labels, tested)
    title = f"{loaded.name}, seed {loaded.seed}: {len(tested.mistakes)} of {tested.images:,} test images are wrong"
    folder = path.parent
    save(show_confusion(digits.labels, tested, title), folder / "confusion.png")
    save(show_scores(scores, title), folder / "scores.png")
    save(show_predictions(digits, logits), folder / "predictions.png")
    save(show_wrong(digits, {loaded.name: tested}, title), folder / "mistakes.png")
    run = {"name": loaded.name, "seed": loaded.seed, "epoch": loaded.epoch, "dataset": digits.dataset}
    utils.write_json(folder / "metrics.json", run | {"unit": "percent"} | scores)
    true, said = digits.labels.cpu().numpy(), answers(digits.labels, tested)
    report = classification_report(true, said, labels=list(DIGITS), digits=4, zero_division=0)
    files = "metrics.json, confusion.png, scores.png, predictions.png and mistakes.png"
    return f"{title}, {tested.accuracy:.2f} %\n\n{report}\n{files} are in {folder}"


# ---------------------------------------------------------------------------------------------------------------------
# An image from a file
# ---------------------------------------------------------------------------------------------------------------------


def read_image(path: Path) -> Tensor:
    """A picture of one digit as MNIST has them: uint8 of shape (28, 28), light on dark, in a box of 20, its centre of mass in the middle.

    The digit may be dark on light, and of any size. Raises FileNotFoundError for a missing file, and ValueError for one
    that is no image, or an image without a digit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}, expected a picture of one digit")
    try:
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")  # upright, as the camera was held
        page = Image.new("RGBA", picture.size, "white")  # what shows through where a drawing is transparent
        gray = np.asarray(Image.alpha_composite(page, picture).convert("L"), dtype=np.float32)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        raise ValueError(f"{path} is not an image that can be read, expected a PNG or JPEG of one digit") from None
    border = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    ink = np.abs(gray - np.median(border))  # the background is what lies around the digit
    rows, columns = (np.flatnonzero((ink > ink.max() / 8).any(axis=axis)) for axis in (1, 0))
    if ink.max() < 32:
        raise ValueError(f"{path} is all of one shade, expected a picture of one digit")
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * (255 / ink.max())
    scale = 20 / max(ink.shape)
    size = [max(1, round(side * scale)) for side in ink.shape[::-1]]
    small = np.asarray(Image.fromarray(ink.round().astype(np.uint8)).resize(size, Image.Resampling.BOX))
    height, width = small.shape
    total = max(1, small.sum(dtype=np.int64))
    centre = [(small.sum(axis=1 - axis) * np.arange(small.shape[axis])).sum() / total for axis in (0, 1)]
    top = int(np.clip(round(14 - centre[0]), 0, 28 - height))
    left = int(np.clip(round(14 - centre[1]), 0, 28 - width))
    image = np.zeros((28, 28), dtype=np.uint8)
    image[top : top + height, left : left + width] = small
    return torch.from_numpy(image)


@torch.no_grad()
def classify(path: Path, images: Sequence[Path]) -> str:
    """What a checkpoint says to pictures from files, one line each: the digit, and the confidence of all ten."""
    read = torch.stack([read_image(image) for image in images])  # before the network: a wrong file is found at once
    loaded = load_model(path)
    batch = make_transform(loaded.recipe)(read.unsqueeze(1).to(utils.pick_device()))
    lines = []
    for image, chances in zip(images, loaded.model.eval()(batch).softmax(dim=1).cpu()):
        all_ten = ", ".join(f"{digit}: {100 * chance:.1f} %" for digit, chance in enumerate(chances.tolist()))
        lines.append(f"{image}: {int(chances.argmax())}   ({all_ten})")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# Several networks: the errors that they share
# ---------------------------------------------------------------------------------------------------------------------


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
    lines.append(f"wrong for all of them: {len(shared.by_all)} test images, {shared.by_all}")
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


def show_wrong(digits: utils.Digits, tested: Mapping[str, Tested], title: str, count: int = 40) -> Figure:
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
    """Test several checkpoints and write `errors.json`, `overlap.png` and `wrong_for_all.png` into a folder; return the tables.

    Raises as `load_model`, and ValueError for the same file twice.
    """
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise ValueError(f"{path} is given more than once, expected checkpoints of different runs")
    loaded = [load_model(path) for path in paths]
    names = [f"{one.name}, seed {one.seed}" for one in loaded]
    # runs of one recipe and seed may still differ in the fields that they were given: then their folders tell them apart
    names = [name if names.count(name) == 1 else f"{name}, {path.parent}" for name, path in zip(names, paths)]
    digits = utils.load_data(utils.pick_device())[1]
    tested = {name: evaluate(predict(one.model, one.recipe, digits), digits.labels) for name, one in zip(names, loaded)}
    shared, pairs = overlap(tested), commonest_pairs(tested)
    content = {
        "networks": {name: asdict(one) | {"commonest": pairs[name]} for name, one in tested.items()},
        "shared": shared.shared,
        "wrong_for_all": shared.by_all,
    }
    utils.write_json(folder / "errors.json", content)
    save(show_overlap(tested), folder / "overlap.png")
    title = f"{len(shared.by_all)} test images are wrong for all of {len(tested)} networks"
    save(show_wrong(digits, tested, title), folder / "wrong_for_all.png")
    return f"{describe_errors(tested)}\n\nerrors.json, overlap.png and wrong_for_all.png are in {folder}"


# ---------------------------------------------------------------------------------------------------------------------
# Features, as a picture
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def features(model: nn.Module, recipe: Recipe, digits: utils.Digits) -> np.ndarray:
    """What the last layer with weights reads, for each image, as a row: the hundred features of the deeper LeNet, say."""
    last = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].flatten(1)))
    try:
        predict(model, recipe, digits)
    finally:
        hook.remove()
    return torch.cat(seen).float().cpu().numpy()


NEIGHBOURS = 10


def embed(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Points of many dimensions on a plane by t-SNE (van der Maaten and Hinton, 2008), so that near ones stay near; and how
    well the plane keeps the classes apart: the percentage of points that most of their ten nearest others share a class with.
    """
    plane = TSNE(n_components=2, init="pca", perplexity=30, random_state=0).fit_transform(points)
    neighbours = KNeighborsClassifier(NEIGHBOURS).fit(plane, labels)
    nearest = neighbours.kneighbors(return_distance=False)  # without the point itself
    voted = np.array([np.bincount(labels[row], minlength=utils.CLASSES).argmax() for row in nearest])
    return plane, 100 * float((voted == labels).mean())


def tsne(path: Path, images: int = 1_000) -> str:
    """Draw the first test images by their pixels, by the features of the untrained network, and by those of the trained
    one, into `tsne.png` beside the checkpoint, with the points in `tsne.json`. Raises as `load_model`.
    """
    loaded = load_model(path)
    digits = utils.load_data(utils.pick_device())[1][:images]
    utils.seed_everything(loaded.seed)
    untrained = loaded.recipe.make_network().to(utils.pick_device())  # the weights that the run began with
    labels = digits.labels.cpu().numpy()
    sources = {
        "raw pixels": digits.images.flatten(1).cpu().numpy() / 255,
        "untrained network": features(untrained, loaded.recipe, digits),
        "trained network": features(loaded.model, loaded.recipe, digits),
    }
    panels = {}
    for name, points in sources.items():
        plane, together = embed(points, labels)
        panels[name] = {"dimensions": points.shape[1], "neighbours": together, "points": plane.round(2).tolist()}
    content = {"name": loaded.name, "seed": loaded.seed, "labels": labels.tolist(), "panels": panels}
    utils.write_json(path.parent / "tsne.json", content)
    save(show_tsne(content), path.parent / "tsne.png")
    lines = [f"{name:<18} {one['dimensions']:>4} dimensions: {one['neighbours']:.1f} %" for name, one in panels.items()]
    head = f"share of {len(labels):,} test images whose {NEIGHBOURS} nearest neighbours in the picture are mostly of their class"
    return "\n".join([head, *lines, f"tsne.png and tsne.json are in {path.parent}"])


def show_tsne(content: Mapping[str, object]) -> Figure:
    """The three panels of `tsne`, from what it wrote."""
    labels = np.array(content["labels"])
    figure, grid = plt.subplots(1, 3, figsize=(13, 4.9), layout="constrained")
    for axes, (name, panel) in zip(grid, content["panels"].items()):
        points = np.array(panel["points"])
        for digit in DIGITS:
            axes.plot(*points[labels == digit].T, ".", color=f"C{digit}", markersize=5, label=str(digit))
        axes.set_title(
            f"{name}, {panel['dimensions']} dimensions\n{panel['neighbours']:.1f} % among their own class", fontsize=10
        )
        axes.set(xticks=[], yticks=[])
    handles = grid[0].get_legend_handles_labels()
    figure.legend(*handles, title="digit", loc="outside lower center", ncols=utils.CLASSES, markerscale=2)
    figure.suptitle(f"{len(labels):,} test images by t-SNE: {content['name']}, seed {content['seed']}")
    plt.close(figure)
    return figure
