"""Classify pictures of digits from files with a trained network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import utils
from app import digit
from lab.runs.checkpoint import load_model
from lab.runs.train import make_transform


def read_image(path: Path) -> np.ndarray:
    """Read a picture of one digit as an MNIST image: uint8 of shape (28, 28).

    Raises FileNotFoundError if the file is missing, and ValueError if it is not a PNG or JPEG or shows no digit.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}, expected a PNG or JPEG of one digit")
    try:
        return digit.prepare(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@torch.no_grad()
def classify(path: Path, images: Sequence[Path]) -> str:
    """Return a checkpoint's predictions for picture files, one line per file: the digit and all ten probabilities."""
    read = np.stack([read_image(image) for image in images])  # before the network, so that a bad file fails early
    loaded = load_model(path)
    batch = make_transform(loaded.recipe)(torch.from_numpy(read).unsqueeze(1).to(utils.pick_device()))
    lines = []
    for image, chances in zip(images, loaded.model.eval()(batch).softmax(dim=1).cpu()):
        all_ten = ", ".join(f"{number}: {100 * chance:.1f} %" for number, chance in enumerate(chances.tolist()))
        lines.append(f"{image}: {int(chances.argmax())}   ({all_ten})")
    return "\n".join(lines)
