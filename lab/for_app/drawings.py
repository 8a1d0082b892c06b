"""Measure how the app reads drawings and photos of digits, and how often it doubts pictures that show no single digit."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

import utils
from app import digit
from app.network import Network, Prediction
from app.runtime import softmax
from lab.evidence.places import APP_NETWORK, RESULTS, expect_folder, refuse_evidence
from lab.for_app import no_digits
from lab.for_app.calibration import calibration_error
from lab.for_app.scenes import SCENES, encode, enlarge, redrawn

RESULT = RESULTS / "drawings.json"
DIGITS = 2_000  # redrawn, and prepared in each way
PICTURES = 500  # of each scene
NO_DIGITS = 300  # of each kind
SEED = 0


class Group(NamedTuple):
    """Pictures of one kind."""

    name: str
    bodies: list[bytes]
    labels: list[int] | None  # None: they show no single digit


class Read(NamedTuple):
    """What the app makes of a picture."""

    image: np.ndarray  # uint8 of shape (28, 28); empty if the app found no digit
    prediction: Prediction | None


# ---------------------------------------------------------------------------------------------------------------------
# Ways to prepare a drawing
# ---------------------------------------------------------------------------------------------------------------------


def page_of(pixels: np.ndarray, side: int = 280) -> bytes:
    """Scale an MNIST digit of shape (28, 28) to a page of `side` x `side` pixels, dark on light; return a PNG."""
    return encode(255 * (1 - enlarge(pixels, side)))


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


def measure_ways(network: Network, test: utils.Digits) -> dict[str, float]:
    """Return accuracy in percent on 2,000 test images: unchanged (`plain`), and redrawn and prepared in each way."""
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(test))[:DIGITS]
    labels, images = test.labels.numpy()[chosen], test.images.numpy()[chosen]
    pages = [redrawn(image, rng) for image in images]
    ways = {"plain": images} | {name: np.stack([way(page) for page in pages]) for name, way in WAYS.items()}
    return {name: _percent(network.logits(seen).argmax(1) == labels) for name, seen in ways.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Groups of pictures
# ---------------------------------------------------------------------------------------------------------------------


def groups(test: utils.Digits, pictures: int, no_digit_pictures: int) -> Iterator[Group]:
    """Make all groups, `pictures` of each: test digits in every scene, scikit-learn's, printed ones; no digits.

    Where no fonts are installed, the groups of printed characters are left out.
    """
    images, labels = test.images.numpy(), test.labels.numpy()
    for number, (name, scene) in enumerate(SCENES.items()):
        rng = np.random.default_rng([SEED, number])
        chosen = rng.permutation(len(test))[:pictures]
        yield Group(name, [scene(images[i], rng) for i in chosen], labels[chosen].tolist())
    yield _of_scikit_learn(pictures)
    fonts = no_digits.fonts()
    if fonts:
        yield _printed(fonts)
    yield from _no_digits(images, labels, fonts, no_digit_pictures)


def _of_scikit_learn(pictures: int) -> Group:
    """Every other one of scikit-learn's 8 x 8 digits; the rest chose what the app does about blurred edges."""
    rng = np.random.default_rng(SEED)
    digits = load_digits()
    bodies = []
    for pixels in digits.images[1 : 2 * pictures : 2]:
        page = Image.fromarray(np.pad(pixels * (255 / 16), 1).astype(np.float32))
        large = np.asarray(page.resize((200, 200), Image.Resampling.BICUBIC))
        bodies.append(encode(large if rng.random() < 0.5 else 255 - large))
    return Group("8 x 8 pixels, enlarged", bodies, digits.target[1 : 2 * pictures : 2].tolist())


def _printed(fonts: list[str]) -> Group:
    rng = np.random.default_rng(SEED)
    every = [(number, font, style) for font in fonts for style in no_digits.STYLES for number in range(10)]
    bodies = [no_digits.printed(str(number), font, style, rng) for number, font, style in every]
    return Group(f"printed, {len(fonts)} fonts, four styles", bodies, [number for number, *_ in every])


def _no_digits(images: np.ndarray, labels: np.ndarray, fonts: list[str], count: int) -> Iterator[Group]:
    """The letters, and the fonts, are those that `lab doubt` did not train on."""
    rng = np.random.default_rng(SEED)

    def any_digit(number: int) -> np.ndarray:
        return images[rng.choice(np.flatnonzero(labels == number))]

    def two(left: int, right: int) -> bytes:
        return no_digits.two_digits(any_digit(left), any_digit(right), rng)

    drawn, printed = (no_digits.halves(letters)[1] for letters in (no_digits.STROKES, no_digits.PRINTED))
    makers: dict[str, Callable[[], bytes]] = {
        "42": lambda: two(4, 2),
        "10": lambda: two(1, 0),
        "any two digits": lambda: two(*rng.integers(0, 10, 2)),
        "a letter, drawn": lambda: no_digits.drawn_letter(drawn, rng),
        "a smiley": lambda: no_digits.face(rng),
        "a single tap": lambda: no_digits.tap(rng),
    }
    if fonts[1::2]:
        makers["a letter, printed"] = lambda: no_digits.printed_letter(printed, fonts[1::2], rng)
    for name, make in makers.items():
        yield Group(name, [make() for _ in range(count)], None)


def read(network: Network, body: bytes) -> Read:
    """Read a picture as the app does."""
    try:
        image = digit.prepare(body)
    except digit.NoDigit:
        return Read(np.zeros((28, 28), dtype=np.uint8), None)
    return Read(image, network.predict(image))


# ---------------------------------------------------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------------------------------------------------


def measure(network: Network) -> dict[str, Any]:
    """Measure on test images, in percent; counts are numbers of pictures.

    `ways`: accuracy by how a drawing is prepared. `groups`: accuracy and doubted share of pictures that show a digit.
    `no_digits`: doubted share of those that do not. `doubted_test_images`: of MNIST's own. `calibration`: the expected
    calibration error over all groups of digits but the fonts, without and with the network's temperature.
    """
    test = utils.load_data(torch.device("cpu"))[1]
    found: dict[str, Any] = {"ways": measure_ways(network, test), "groups": {}, "no_digits": {}}
    logits, truth = [], []
    for group in groups(test, PICTURES, NO_DIGITS):
        answers = [read(network, body) for body in group.bodies]
        doubted = _percent([not one.prediction or one.prediction.doubt != "" for one in answers])
        count = {"pictures": len(answers)}
        if group.labels is None:
            found["no_digits"][group.name] = count | {"doubted": doubted}
            continue
        right = [
            one.prediction is not None and one.prediction.digit == label for one, label in zip(answers, group.labels)
        ]
        found["groups"][group.name] = count | {"accuracy": _percent(right), "doubted": doubted}
        if not group.name.startswith("printed"):  # which fonts there are depends on the machine
            logits.append(network.logits(np.stack([one.image for one in answers])))
            truth += group.labels
    plain = [network.predict(image).doubt != "" for image in test.images.numpy()]
    together, labels = np.concatenate(logits), np.array(truth)
    found["doubted_test_images"] = _percent(plain)
    found["calibration"] = {
        "temperature": network.temperature,
        "error_without": round(calibration_error(softmax(together), labels), 2),
        "error": round(calibration_error(softmax(together, network.temperature), labels), 2),
    }
    return found


def _percent(true: Any) -> float:
    return round(100 * float(np.mean(true)), 2)


def drawings(file: Path = RESULT) -> str:
    """Measure the app's network, write what was found to a JSON file, draw examples beside it, and return it as text.

    Raises ValueError if the file is `lab/results/drawings.json` and the data is not all of MNIST.
    """
    from lab.for_app.gallery import draw_examples  # noqa: PLC0415 (it draws the groups that are made here)

    refuse_evidence(file, "name a file, `drawings FILE`")
    expect_folder(file.parent)
    network = Network(APP_NETWORK)
    found = measure(network)
    test = utils.load_data(torch.device("cpu"))[1]
    utils.write_json(file, found | ({} if test.dataset == "MNIST" else {"dataset": test.dataset}), indent=1)
    draw_examples(network, test, file.with_suffix(".png"))
    return _as_text(found) + utils.sample_note(test.dataset)


def _as_text(found: Mapping[str, Any]) -> str:
    lines = [f"{'read as':<36} right %"]
    lines += [f"{name:<36} {percent:7.2f}" for name, percent in found["ways"].items()]
    lines += ["", f"{'digits':<36} right %  doubted %"]
    lines += [f"{name:<36} {one['accuracy']:7.2f}    {one['doubted']:7.2f}" for name, one in found["groups"].items()]
    lines += ["", f"{'no digit':<36}          doubted %"]
    lines += [f"{name:<36}            {one['doubted']:7.2f}" for name, one in found["no_digits"].items()]
    lines += ["", f"test images doubted: {found['doubted_test_images']} %", f"calibration: {found['calibration']}"]
    return "\n".join(lines)
