"""Measure what the app's image preparation gains: MNIST digits are redrawn, then prepared in several ways."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import utils
from app import digit
from app.network import Network
from lab.evidence.places import APP_NETWORK, RESULTS, expect_folder, refuse_evidence

RESULT = RESULTS / "drawings.json"
DIGITS = 2_000


def redraw(pixels: np.ndarray, rng: np.random.Generator) -> bytes:
    """Draw an MNIST digit of shape (28, 28) on a page, with random sizes, place and colors; return a PNG."""
    side = int(rng.integers(40, 401))
    large = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    height, width = rng.integers(side, 2 * side + 60, 2)
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    ink = np.zeros((height, width, 1), dtype=np.float32)
    ink[top : top + side, left : left + side, 0] = np.asarray(large, dtype=np.float32) / 255
    while True:
        paper, strokes = rng.uniform(0, 255, (2, 3))
        if abs(np.dot(paper - strokes, (0.299, 0.587, 0.114))) > 70:  # enough contrast to read the digit
            break
    return _encode((paper + (strokes - paper) * ink).round().astype(np.uint8))


def page_of(pixels: np.ndarray, side: int = 280) -> bytes:
    """Scale an MNIST digit of shape (28, 28) to a page of `side` x `side` pixels, dark on light; return a PNG."""
    return _encode(255 - np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)))


def _encode(page: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(page).save(file, "PNG")
    return file.getvalue()


def _resized(body: bytes) -> np.ndarray:
    """Resize the whole page to 28 x 28."""
    return np.asarray(Image.open(io.BytesIO(body)).convert("L").resize((28, 28)))


def _light_on_dark(image: np.ndarray) -> np.ndarray:
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return 255 - image if np.median(border) > 127 else image


def _cropped(body: bytes) -> np.ndarray:
    """Crop the page to the digit's box, and resize that to 28 x 28, light on dark."""
    page = _light_on_dark(np.asarray(Image.open(io.BytesIO(body)).convert("L"))).astype(np.float32)
    ink = page - page.min()
    picture = Image.fromarray((ink * (255 / max(1, ink.max()))).astype(np.uint8))
    return np.asarray(picture.crop(picture.point(lambda value: 255 * (value > 127)).getbbox()).resize((28, 28)))


WAYS: Mapping[str, Callable[[bytes], np.ndarray]] = {
    "prepared": digit.prepare,
    "resized": _resized,
    "resized_light_on_dark": lambda body: _light_on_dark(_resized(body)),
    "cropped": _cropped,
}


def measure(network: Network) -> dict[str, float]:
    """Return accuracy in percent on 2,000 test images: unchanged (`plain`), and redrawn and prepared in each way."""
    test = utils.load_data(torch.device("cpu"))[1]
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(test))[:DIGITS]
    labels = test.labels.numpy()[chosen]
    images = test.images.numpy()[chosen]
    pages = [redraw(image, rng) for image in images]
    ways = {"plain": images} | {name: np.stack([way(page) for page in pages]) for name, way in WAYS.items()}
    return {
        name: round(100 * float((network.logits(seen).argmax(1) == labels).mean()), 2) for name, seen in ways.items()
    }


def drawings(file: Path = RESULT) -> str:
    """Measure the app's network, write the accuracies to a JSON file, and return them as text.

    Raises ValueError if the file is `lab/results/drawings.json` and the data is not all of MNIST.
    """
    refuse_evidence(file, "name a file, `drawings FILE`")
    expect_folder(file.parent)
    accuracy = measure(Network(APP_NETWORK))
    dataset = utils.load_data(torch.device("cpu"))[1].dataset
    utils.write_json(file, accuracy | ({} if dataset == "MNIST" else {"dataset": dataset}), indent=1)
    lines = [f"{name:<22} {percent:6.2f} %" for name, percent in accuracy.items()]
    return "\n".join(lines) + utils.sample_note(dataset)
