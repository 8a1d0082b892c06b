"""Published MNIST systems rebuilt as recipes, with what their authors claim and what they leave open.

A claim is what an author published. What these recipes reach is measured: see `python -m lab compare`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lab.runs.recipes import STEP_1, STEP_2, STEP_3, Recipe, Study


@dataclass(frozen=True)
class Peer:
    """A recipe with its author's claim in percent of the test images, or None if there is no claim.

    `left_open` names what the author does not say, or says in two ways, and what this recipe uses. `why` gives the
    reason, as far as it is known, if the claim is not met.
    """

    system: str
    recipe: Recipe
    claim: float | None = None
    claim_runs: int = 1
    left_open: str = ""
    why: str = ""


# The ladder: each rung is the one before with one change. LeNet is as fast in float32, the author's precision.
_VANILLA = Recipe(
    "LeNet", epochs=10, batch_size=128, learning_rate=2e-4, optimizer="adam", bfloat16=False, mean=0.0, std=1.0
)
_SIGNED = replace(_VANILLA, mean=0.5, std=0.5)  # pixels in [-1, 1]
_BATCH_64 = replace(_SIGNED, batch_size=64)
_BATCH_32 = replace(_BATCH_64, batch_size=32)
_RATE = replace(_BATCH_32, learning_rate=5e-4)
_DEEPER = replace(_RATE, network="DeeperLeNet", bfloat16=True)
_SGD = replace(_DEEPER, optimizer="sgd", learning_rate=0.001, momentum=0.9)

# Three sizes: pixels in [0, 1], and all 30 epochs; their author names early stopping as future work
_SIZE = Recipe(
    "Stages",
    epochs=30,
    batch_size=64,
    learning_rate=0.001,
    optimizer="adam",
    step_size=5,
    gamma=0.5,
    validation=0.1,
    mean=0.0,
    std=1.0,
)
_SIZE_OPEN = "split, rate and schedule: the last 10 % validate and choose the epoch, 0.001, halved each 5 epochs"

# Two branches
_TWO = Recipe(
    "TwoBranches",
    augmentation={"rotation": 10, "shift": 0.1},
    epochs=10,
    batch_size=64,
    learning_rate=0.001,
    optimizer="adam",
    validation=0.1,
    patience=5,
    monitor="loss",
    mean=0.5,
    std=0.5,
)
_TWO_OPEN = (
    "kernels, shift, split, batch (32 or 64), patience: 3x3, 10 % of the side, the last 10 % validate, 64, 5 epochs"
)

_WEB_APP = Recipe(
    "WebApp",
    augmentation={"rotation": 45, "shift": 0.1, "scale": 0.1, "shear": 10},
    epochs=20,
    batch_size=64,
    learning_rate=0.001,
    weight_decay=1e-3,
    optimizer="adam",
    validation=0.2,
)

_EXAMPLE = Recipe(
    "PyTorchExample", epochs=14, batch_size=64, learning_rate=1.0, optimizer="adadelta", step_size=1, gamma=0.7
)


def _rung(recipe: Recipe, claim: float | None, left_open: str = "", why: str = "") -> Peer:
    return Peer("LeNet ladder", recipe, claim, 5, left_open, why)


RUNGS: dict[str, Peer] = {
    "lenet_1_vanilla": _rung(
        _VANILLA, 97.25, "the text gives two first rates and batches, 2e-4 or 2e-5 and 128 or 64: 2e-4 and 128"
    ),
    "lenet_2_signed_pixels": _rung(_SIGNED, 97.98),
    "lenet_3_batch_64": _rung(_BATCH_64, 98.36),
    "lenet_4_batch_32": _rung(_BATCH_32, 98.48),
    "lenet_5_rate_5e-4": _rung(_RATE, 98.73),
    "lenet_6_deeper": _rung(_DEEPER, 99.05),
    "lenet_7_sgd": _rung(
        _SGD,
        99.20,
        why="after ten epochs at this rate the loss still falls; ten times the rate comes closer, see lenet_7_rate_0.01",
    ),
}

# What may have differed from the author's text
VARIANTS: dict[str, Peer] = {
    "lenet_5_third_tanh": _rung(
        replace(_RATE, network="TanhLeNet"),
        98.73,
        "the text lists no tanh behind the third convolution: here there is one",
    ),
    "lenet_7_rate_0.01": _rung(
        replace(_SGD, learning_rate=0.01), 99.20, "the text has a rate of 0.001: here ten times that"
    ),
}

# Where the ladder begins, and what its author tried in vain. He also fine-tuned a pretrained AlexNet, whose weights cannot
# be had here.
IN_VAIN: dict[str, Peer] = {
    "lenet_untrained": _rung(replace(_VANILLA, epochs=1, learning_rate=0.0), None),  # no step moves a weight
    "lenet_batch_8": _rung(replace(_BATCH_32, batch_size=8), None, "which rung it was tried on: that of batches of 32"),
    "lenet_batch_norm": _rung(
        replace(_SGD, network="BatchNormLeNet"), None, "where: behind each convolution of the last rung"
    ),
    "lenet_still_deeper": _rung(
        replace(_SGD, network="DeepestLeNet"), None, "how: a fourth 3x3 convolution of 64 channels in the last rung"
    ),
    "lenet_flip": _rung(replace(_SGD, flip=0.5), None, "which rung it was tried on: the last"),
    "lenet_rotation_45": _rung(replace(_SGD, augmentation={"rotation": 45}), None, "as for lenet_flip"),
    "lenet_shift_7": _rung(replace(_SGD, augmentation={"shift": 0.25}), None, "as for lenet_flip"),
}

OTHERS: dict[str, Peer] = {
    "simple_cnn": Peer(
        "Three sizes", replace(_SIZE, switches={"widths": [[32], [64]], "dense": 128}), 99.31, left_open=_SIZE_OPEN
    ),
    "deeper_cnn": Peer(
        "Three sizes", replace(_SIZE, network="DeeperCNN", switches={}), 99.38, left_open="as for simple_cnn"
    ),
    "web_app": Peer(
        "Web app", _WEB_APP, left_open="batch, rate, shift, scale, shear: 64, 0.001, 10 %, 10 %, 10 degrees"
    ),
    "pytorch_example": Peer("pytorch/examples", _EXAMPLE, 99.2),
}

# More than half an hour a run, on one core
LARGE: dict[str, Peer] = {
    "mini_vgg": Peer(
        "Three sizes",
        replace(
            _SIZE,
            switches={
                "widths": [[64, 64], [128, 128], [256, 256, 256]],
                "dense": 512,
                "batch_norm": True,
                "dropout": 0.5,
            },
        ),
        99.60,
        left_open="as for simple_cnn",
    ),
    "two_branches": Peer("Two branches", _TWO, 99.2, left_open=_TWO_OPEN),
    "two_branches_regularized": Peer(
        "Two branches",
        replace(_TWO, switches={"dropout": 0.5}, weight_decay=1e-4),
        99.5,
        left_open="as for two_branches, and the dropout: 0.5",
    ),
}

LESSON: dict[str, Peer] = {
    "step1": Peer("This lesson", STEP_1),
    "step2": Peer("This lesson", STEP_2),
    "step3": Peer("This lesson", STEP_3),
}

PEERS: dict[str, Peer] = RUNGS | VARIANTS | IN_VAIN | OTHERS | LARGE | LESSON


def _recipes(peers: Mapping[str, Peer]) -> dict[str, Recipe]:
    return {name: peer.recipe for name, peer in peers.items()}


STUDIES = {
    "rungs": Study(
        "The published LeNet ladder, rebuilt: what does each rung give?",
        5,
        _recipes(RUNGS | VARIANTS),
        keeps_runs=True,
    ),
    "in_vain": Study(
        "Where that ladder begins, and what its author tried in vain: what does each give?",
        3,
        _recipes(IN_VAIN),
        keeps_runs=True,
    ),
    "peers": Study("Other published systems, rebuilt: what does each give?", 5, _recipes(OTHERS), keeps_runs=True),
    "large": Study(
        "Published systems that train for more than half an hour, rebuilt", 1, _recipes(LARGE), keeps_runs=True
    ),
}
