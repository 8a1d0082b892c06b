"""Draw examples of all groups of pictures, each beside the image that the network gets of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

import utils
from app.network import Network
from app.picture import read_picture
from lab.evidence.figures import save
from lab.for_app import drawings

EXAMPLES = 6
CELL = 84  # pixels


def draw_examples(network: Network, test: utils.Digits, file: Path) -> None:
    """Write a PNG with a row of examples per group: as they come, and the 28 x 28 image made of each."""
    rows = list(drawings.groups(test, pictures=EXAMPLES, no_digit_pictures=EXAMPLES))
    figure = Figure(figsize=(9.8, 0.62 * len(rows) + 1), layout="constrained")
    figure.suptitle(
        "Pictures as they come, and beside each what the network gets of it:\n"
        "only the digit is left. Red: read wrong. Blue: the app says that it doubts the answer",
        fontsize=11,
    )
    axes = figure.subplots(len(rows), 1)
    for group, ax in zip(rows, axes):
        ax.imshow(np.hstack(list(_cells(network, group))), aspect="equal")
        ax.set_ylabel(group.name, rotation=0, ha="right", va="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    save(figure, file)


def _cells(network: Network, group: drawings.Group) -> list[np.ndarray]:
    labels: Sequence[int | None] = group.labels or [None] * len(group.bodies)
    picked = np.linspace(0, len(group.bodies) - 1, EXAMPLES).round().astype(int)
    return [_cell(network, group.bodies[i], labels[i]) for i in picked]


def _cell(network: Network, body: bytes, label: int | None) -> np.ndarray:
    """A picture and what is made of it, RGB, framed in red or blue."""
    answer = drawings.read(network, body)
    came = ImageOps.pad(read_picture(body).convert("RGB"), (CELL, CELL), color=(255, 255, 255))
    made = Image.fromarray(answer.image).resize((CELL, CELL), Image.Resampling.NEAREST).convert("RGB")
    color = (255, 255, 255)
    if answer.prediction is None or answer.prediction.doubt:
        color = (60, 120, 220)
    elif label is not None and answer.prediction.digit != label:
        color = (220, 40, 40)
    framed: np.ndarray = np.pad(np.hstack([np.asarray(came), np.asarray(made)]), ((5, 5), (5, 5), (0, 0)))
    for band, value in enumerate(color):
        framed[[0, 1, 2, 3, 4, -1, -2, -3, -4, -5], :, band] = value
        framed[:, [0, 1, 2, 3, 4, -1, -2, -3, -4, -5], band] = value
    return np.pad(framed, ((3, 3), (3, 3), (0, 0)), constant_values=255)
