"""Train the small network that tells one digit from other drawings, for the app.

It sees MNIST's training digits, plain and redrawn, and drawings of half the alphabet: the other half tests it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

import utils
from app import digit
from app.doubt import NONE, ONE, SEVERAL, Doubt
from lab.evidence.places import APP_DOUBT, expect_folder, refuse_evidence
from lab.for_app import no_digits
from lab.for_app.export import FromPixels, to_onnx
from lab.for_app.scenes import redrawn

HELD_OUT = 10_000  # of the training images: they choose the threshold
DOUBTED = 0.006  # share of held-out digits below the threshold
REDRAWN = 3_000
COUNTS = {"two digits": 3_000, "drawn letters": 4_000, "printed letters": 4_000, "faces": 800, "taps": 400,
          "doodles": 5_000, "mirrored digits": 4_000}  # fmt: skip
NO_DIGITS_MIRRORED = (2, 3, 4, 5, 6, 7, 9)  # the others are digits in a mirror too
SINGLES = 30_000  # training images that are shown as single digits
AUGMENTATION = {"rotation": 5.0, "shift": 0.04, "scale": 0.08, "shear": 5.0}
EPOCHS, BATCH, SEED = 8, 128, 0


class OneDigit(nn.Sequential):
    """Strides in place of pooling: it takes less than half the time of Step 3's network. Of ten outputs, three are used."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, stride, padding in ((1, 16, 2, 1), (16, 24, 2, 1), (24, 32, 1, 1), (32, 32, 2, 0)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(32 * 3 * 3, 10))


def no_digit_images(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Drawings that show no single digit, prepared as the app does: uint8 of shape (N, 28, 28), and SEVERAL or NONE."""
    drawn, printed = no_digits.halves(no_digits.STROKES)[0], no_digits.halves(no_digits.PRINTED)[0]
    fonts = no_digits.fonts()[::2]
    mirrored = images[np.isin(labels, NO_DIGITS_MIRRORED)]

    def any_of(choices: np.ndarray) -> np.ndarray:
        return choices[rng.integers(len(choices))]

    makers: dict[str, Callable[[], bytes]] = {
        "two digits": lambda: no_digits.two_digits(any_of(images), any_of(images), rng),
        "drawn letters": lambda: no_digits.drawn_letter(drawn, rng),
        "printed letters": lambda: no_digits.printed_letter(printed, fonts, rng),
        "faces": lambda: no_digits.face(rng),
        "taps": lambda: no_digits.tap(rng),
        "doodles": lambda: no_digits.doodle(rng),
        "mirrored digits": lambda: no_digits.mirrored(any_of(mirrored)),
    }
    prepared, kinds = [], []
    for name, count in COUNTS.items():
        prepared += [digit.prepare(makers[name]()) for _ in range(count)]
        kinds += [SEVERAL if name == "two digits" else NONE] * count
    return np.stack(prepared), np.array(kinds)


def doubt(file: Path = APP_DOUBT) -> str:
    """Train the network on MNIST's training images, write it as ONNX, and return a one-line summary.

    Raises ValueError if the file is the app's and the data is not all of MNIST.
    """
    refuse_evidence(file, "name another file, `doubt FILE`")
    expect_folder(file.parent)
    digits = utils.load_data(torch.device("cpu"))[0]
    images, labels = digits.images.numpy(), digits.labels.numpy()
    held_out = min(HELD_OUT, len(images) // 6)
    seen, unseen = images[:-held_out], images[-held_out:]
    rng = np.random.default_rng(SEED)
    others, kinds = no_digit_images(seen, labels[:-held_out], rng)
    again = np.stack([digit.prepare(redrawn(seen[rng.integers(len(seen))], rng)) for _ in range(REDRAWN)])
    singles = np.concatenate([seen[:SINGLES], again])
    content = to_onnx(FromPixels(_train(singles, others, kinds, unseen, digits.dataset), 0.0, 1.0).eval())
    onnx.helper.set_model_props(content, {"least": "0"})
    with utils.whole_or_not_at_all(file) as unfinished:
        onnx.save(content, unfinished)
        least = float(np.quantile(Doubt(unfinished).kinds(unseen)[:, ONE], DOUBTED))
        onnx.helper.set_model_props(content, {"least": f"{least:.4f}"})
        onnx.save(content, unfinished)
    return f"one digit where the chance is at least {least:.4f}, in {file}"


def _train(singles: np.ndarray, others: np.ndarray, kinds: np.ndarray, unseen: np.ndarray, dataset: str) -> nn.Module:
    images = torch.from_numpy(np.concatenate([singles, others]))
    labels = torch.from_numpy(np.concatenate([np.full(len(singles), ONE), kinds]))
    shown = utils.Digits(images, labels, dataset)
    checked = utils.Digits(torch.from_numpy(unseen), torch.full((len(unseen),), ONE), dataset)
    utils.seed_everything(SEED)
    model = OneDigit()
    optimizer = utils.make_optimizer(model, learning_rate=0.1, weight_decay=5e-4)
    utils.fit(
        model,
        utils.Loader(shown, BATCH, utils.make_transform(AUGMENTATION, mean=0, std=1), shuffle=True),
        utils.Loader(checked, BATCH, utils.make_transform(mean=0, std=1)),
        optimizer,
        utils.make_scheduler(optimizer, step_size=1, gamma=0.5),
        epochs=EPOCHS,
        seed=SEED,
        bfloat16=False,
        measured_on="held-out",
    )
    return model.eval()
