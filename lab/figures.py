"""The README's picture, drawn from the records alone."""

import hashlib
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import utils

STEPS = {
    "step1": "Step 1: batch norm",
    "step2": "Step 2: + pooling at 5, GAP, capacity, separable, dropout",
    "step3": "Step 3: + augmentation, StepLR",
}
PICTURE = Path(__file__).parent / "results" / "steps.png"


def draw_steps(path: Path = PICTURE) -> None:
    """Test accuracy over the epochs: one thin line a seed, one thick line for the mean of a step's seeds."""
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for (step, label), color in zip(STEPS.items(), ("tab:gray", "tab:orange", "tab:blue")):
        curves = np.array([run.test_accuracy for run in utils.load_records("steps", step).values()])
        epochs = np.arange(1, curves.shape[1] + 1)
        axes.plot(epochs, curves.T, color=color, linewidth=0.7, alpha=0.45)
        axes.plot(epochs, curves.mean(axis=0), color=color, linewidth=2.2, label=label)
    axes.axhline(utils.TARGET_PERCENT, color="black", linestyle="--", linewidth=1)
    axes.annotate("99.4 %", (1, utils.TARGET_PERCENT + 0.02))
    axes.axvspan(10.5, 15.5, color="black", alpha=0.05)
    axes.annotate("the last five\nepochs count", (13, 98.5), ha="center", fontsize=9)
    axes.set(ylim=(98, 99.7), xlim=(0.5, 15.5), xlabel="epoch", ylabel="test accuracy, percent")
    axes.set_title("Test accuracy: one thin line a seed, one thick line for their mean")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110, metadata={"Records": records_digest()})
    plt.close(figure)


def records_digest() -> str:
    """A fingerprint of what the picture shows; it is stored in the file, so that a test sees when it is out of date."""
    shown = [
        [step, seed, run.test_correct] for step in STEPS for seed, run in utils.load_records("steps", step).items()
    ]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
