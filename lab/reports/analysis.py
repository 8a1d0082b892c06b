"""Describe the data, and evaluate one trained network on it: metrics as text, JSON and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    accuracy_score,
    classification_report,
    confusion_matrix,
    precision_recall_fscore_support,
)
from torch import Tensor

import utils
from lab.evidence.figures import save
from lab.evidence.places import expect_folder
from lab.evidence.records import Tested
from lab.reports.errors import show_wrong
from lab.runs import datasets
from lab.runs.checkpoint import load_model
from lab.runs.train import LEFT_BY_TEST, evaluate, predict

DIGITS = range(utils.CLASSES)

# ---------------------------------------------------------------------------------------------------------------------
# The data
# ---------------------------------------------------------------------------------------------------------------------


def describe_data(train: utils.Digits, test: utils.Digits) -> str:
    """Return a table of counts, image size, range of pixels and labels, and images per digit."""
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
    """Plot the share of each digit among the training and the test images."""
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    for shift, (name, digits) in zip((-0.2, 0.2), (("training", train), ("test", test))):
        shares = 100 * digits.labels.bincount(minlength=utils.CLASSES).cpu().numpy() / len(digits)
        axes.bar(np.array(DIGITS) + shift, shares, width=0.4, label=f"{len(digits):,} {name} images")
    axes.axhline(10, color="gray", linestyle="--", linewidth=1)
    axes.set(
        xticks=list(DIGITS),
        xlabel="digit",
        ylabel="percent",
        title=f"How often each digit occurs{utils.sample_note(train.dataset)}",
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    plt.close(figure)
    return figure


def data(folder: Path) -> str:
    """Check the data, plot how often each digit occurs to `classes.png` in a folder, and return the table."""
    expect_folder(folder)
    train, test = utils.load_data(torch.device("cpu"))  # checks sizes, types and labels
    save(show_classes(train, test), folder / "classes.png")
    note = utils.sample_note(train.dataset)
    return f"{describe_data(train, test)}\n{note.strip()}\nclasses.png is in {folder}"


# ---------------------------------------------------------------------------------------------------------------------
# One network
# ---------------------------------------------------------------------------------------------------------------------


def answers(labels: Tensor, tested: Tested) -> np.ndarray:
    """Return the prediction for each test image, recovered from the mistakes: integers of shape (N,)."""
    said = labels.cpu().numpy().copy()
    for index, _, answer in tested.mistakes:
        said[index] = answer
    return said


def metrics(labels: Tensor, tested: Tested) -> dict[str, object]:
    """Return accuracy, precision, recall and F1 in percent, overall (the mean over the digits) and per digit, and the
    confusion matrix in images: one row per label, one column per prediction.

    A digit without images has no scores, and no part in the means.
    """
    true, said = labels.cpu().numpy(), answers(labels, tested)
    occurring = np.unique(true).tolist()
    names = ("precision", "recall", "f1")
    scores = {"labels": occurring, "zero_division": 0}
    overall = precision_recall_fscore_support(true, said, average="macro", **scores)[:3]
    *by_digit, images = precision_recall_fscore_support(true, said, average=None, **scores)
    return {
        "images": tested.images,
        "accuracy": 100 * float(accuracy_score(true, said)),
        **{name: 100 * float(score) for name, score in zip(names, overall)},
        "loss": tested.loss,
        "digits": {
            str(digit): {name: 100 * float(score[row]) for name, score in zip(names, by_digit)}
            | {"images": int(images[row])}
            for row, digit in enumerate(occurring)
        },
        "confusion_matrix": confusion_matrix(true, said, labels=list(DIGITS)).tolist(),
        "mistakes": tested.mistakes,
    }


def score_table(labels: Tensor, tested: Tested) -> str:
    """The scores of `metrics` as text, one row per digit that occurs."""
    true, said = labels.cpu().numpy(), answers(labels, tested)
    return str(classification_report(true, said, labels=np.unique(true), digits=4, zero_division=0))


def show_confusion(labels: Tensor, tested: Tested, title: str) -> Figure:
    """Plot the confusion matrix; correct predictions are left uncolored, so that mistakes stand out."""
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


def show_scores(scores: Mapping[str, Any], title: str) -> Figure:
    """Plot precision, recall and F1 of each digit, from `metrics`."""
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    names = ("precision", "recall", "f1")
    positions = np.array([int(digit) for digit in scores["digits"]])
    for shift, name in zip((-0.27, 0.0, 0.27), names):
        heights = [of_digit[name] for of_digit in scores["digits"].values()]
        axes.bar(positions + shift, heights, width=0.27, label=f"{name}, mean {scores[name]:.2f}")
    lowest = min(of_digit[name] for of_digit in scores["digits"].values() for name in names)
    axes.set_ylim(max(0, lowest - 1) if lowest < 99 else 98, 100)
    axes.set(xticks=list(DIGITS), xlabel="digit", ylabel="percent", title=title)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    plt.close(figure)
    return figure


def show_predictions(digits: utils.Digits, logits: Tensor, count: int = 8, seed: int = 0) -> Figure:
    """Show random images with their labels, the predictions and their probabilities."""
    drawn = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))[:count]
    sure, said = logits.cpu()[drawn].softmax(dim=1).max(dim=1)
    titles = [
        f"{label}, said {answer}\n{100 * chance:.0f} % sure"
        for label, answer, chance in zip(digits.labels.cpu()[drawn].tolist(), said.tolist(), sure.tolist())
    ]
    return utils.show_images(
        digits.images.cpu()[drawn],
        titles,
        f"{len(drawn)} random test images{utils.sample_note(digits.dataset)}",
        columns=count,
    )


def test(path: Path) -> str:
    """Evaluate a checkpoint on the test images, and return the report as text.

    Writes `metrics.json`, the report as `metrics.txt`, and four figures next to the checkpoint. Raises what `load_model` raises.
    """
    loaded = load_model(path)
    expect_folder(path.parent)
    digits = datasets.load(loaded.recipe.dataset, utils.pick_device())[1]
    logits = predict(loaded.model, loaded.recipe, digits)
    tested = evaluate(logits, digits.labels)
    scores = metrics(digits.labels, tested)
    title = f"{loaded.name}, seed {loaded.seed}: {len(tested.mistakes):,} of {tested.images:,} test images are wrong"
    title += utils.sample_note(digits.dataset)
    folder = path.parent
    save(show_confusion(digits.labels, tested, title), folder / "confusion.png")
    save(show_scores(scores, title), folder / "scores.png")
    save(show_predictions(digits, logits), folder / "predictions.png")
    save(show_wrong(digits, {loaded.name: tested}, title), folder / "mistakes.png")
    run = {"name": loaded.name, "seed": loaded.seed, "epoch": loaded.epoch, "dataset": digits.dataset}
    utils.write_json(folder / "metrics.json", run | {"unit": "percent"} | scores)
    text = f"{title}, {tested.accuracy:.2f} % are right\n\n{score_table(digits.labels, tested)}"
    with utils.whole_or_not_at_all(folder / "metrics.txt") as unfinished:
        unfinished.write_text(text)
    return f"{text}\n{', '.join(LEFT_BY_TEST[:-1])} and {LEFT_BY_TEST[-1]} are in {folder}"
