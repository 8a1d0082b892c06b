"""Calibrate a network's confidence: of the drawings that it names with 90 % confidence, 90 % should be right."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from scipy.optimize import minimize_scalar

import utils
from app import digit
from app.network import Network
from app.runtime import softmax
from lab.evidence.places import APP_NETWORK, refuse_evidence
from lab.for_app.scenes import SCENES

DRAWINGS = 60  # of each scene
BINS = 15


def draw_all(digits: utils.Digits, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits in every scene and prepare them: uint8 of shape (N, 28, 28), and their labels."""
    rng = np.random.default_rng(seed)
    images, labels = digits.images.cpu().numpy(), digits.labels.cpu().numpy()
    seen, truth = [], []
    for scene in SCENES.values():
        for index in rng.choice(len(images), min(each, len(images)), replace=False):
            try:
                seen.append(digit.prepare(scene(images[index], rng)))
                truth.append(labels[index])
            except digit.NoDigit:
                continue
    return np.stack(seen), np.array(truth)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the smallest cross-entropy, between 0.2 and 5."""

    def cross_entropy(temperature: float) -> float:
        chances = softmax(logits, temperature)[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(chances, 1e-12)).mean())

    return float(minimize_scalar(cross_entropy, bounds=(0.2, 5), method="bounded").x)


def calibration_error(chances: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error in percent: the mean gap between confidence and accuracy over 15 bins."""
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    bins = np.minimum((BINS * confidence).astype(int), BINS - 1)
    gaps = [abs(confidence[bins == one].sum() - right[bins == one].sum()) for one in range(BINS)]
    return 100 * float(sum(gaps)) / len(labels)


def add_temperature(file: Path, digits: utils.Digits) -> float:
    """Fit the temperature on drawings of training digits, write it into an exported network's metadata, return it."""
    seen, labels = draw_all(digits, DRAWINGS, seed=1)
    temperature = fit_temperature(Network(file).logits(seen), labels)
    content = onnx.load(file)
    about = {entry.key: entry.value for entry in content.metadata_props} | {"temperature": f"{temperature:.3f}"}
    onnx.helper.set_model_props(content, about)
    onnx.save(content, file)
    return temperature


def calibrate(file: Path = APP_NETWORK) -> str:
    """Fit the temperature of an exported network again, and return a one-line summary.

    Raises what `Network` raises, and ValueError if the file is the app's network and the data is not all of MNIST.
    """
    refuse_evidence(file, "name another file, `calibrate FILE`")
    network = Network(file)
    training = utils.load_data(torch.device("cpu"))[0]
    with utils.whole_or_not_at_all(file) as unfinished:
        shutil.copyfile(file, unfinished)
        temperature = add_temperature(unfinished, training)
    return f"{network.name}: a temperature of {temperature:.3f}, in {file}"
