"""Pictures of digits from files, and what a trained network says to them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

import utils
from lab.train import load_model, make_transform


def read_image(path: Path) -> Tensor:
    """A picture of one digit as MNIST has them: uint8 of shape (28, 28), light on dark, in a box of 20 pixels, its centre
    of mass in the middle.

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
