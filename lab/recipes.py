"""Recipes are data: all that decides a run but its seed. The three steps of the notebooks are three of them."""

import inspect
from dataclasses import dataclass, field, replace

import models


@dataclass(frozen=True)
class Recipe:
    """A network with its switches, and how it is trained; the fields have the names of the notebooks' constants.

    Switches that are not named get the network's own defaults, here and now: a record has all of them, and is not
    mistaken for one of today's network when a default changes.
    """

    network: str
    switches: dict[str, object] = field(default_factory=dict)
    augmentation: dict[str, float] = field(default_factory=dict)
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0
    step_size: int = 5
    gamma: float = 1.0
    plain_epochs: int = 0
    bfloat16: bool = True  # where the device is fast at it
    held_out: bool = False  # train on the first 50,000 training images and measure on the last 10,000

    def __post_init__(self) -> None:
        parameters = inspect.signature(getattr(models, self.network)).parameters
        switches = {name: parameter.default for name, parameter in parameters.items()} | self.switches
        # as JSON gives them back: lists, where the defaults are tuples
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in switches.items()}
        object.__setattr__(self, "switches", plain)  # the way around `frozen`


STEP_1 = Recipe("Model_1")
STEP_2 = Recipe("Model_2")
STEP_3 = Recipe(
    "Model_2",
    {"dropout": 0.0},
    augmentation={"rotation": 10, "shift": 0.1, "scale": 0.1, "shear": 5, "warp": 0.04},
    learning_rate=0.2,
    weight_decay=5e-4,
    gamma=0.1,
    plain_epochs=5,
)

# Model_2 with whole 3x3 convolutions, as wide as the budget allows
WHOLE = {"channels": [10, 16, 12, 12, 12], "capacity": 14, "separable": False}


def _held_out(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, held_out=True, **changes)


STUDIES: dict[str, dict[str, Recipe]] = {
    # what the notebooks do
    "steps": {"step1": STEP_1, "step2": STEP_2, "step3": STEP_3},
    # from Model_1 to Model_2, each recipe one change on the one before
    "ladder": {
        "pool_at_5": replace(STEP_1, switches={"pool_at": 5}),
        "gap": replace(STEP_1, switches={"pool_at": 5, "gap": True}),
        "fully_connected": replace(STEP_1, switches={"pool_at": 5, "gap": True, "fully_connected": True}),
        "capacity": replace(
            STEP_2,
            switches={"channels": [8, 14, 10, 10, 10], "capacity": 14, "separable": False, "dropout": 0.0},
        ),
        "width": replace(STEP_2, switches={**WHOLE, "dropout": 0.0}),
        "separable": replace(STEP_2, switches={"dropout": 0.0}),
    },
    # what the steps were chosen from, without the test images
    "choice": {
        "step1": _held_out(STEP_1),
        "step2": _held_out(STEP_2),
        "less_dropout": _held_out(STEP_2, switches={"dropout": 0.05}),
        "step3": _held_out(STEP_3),
        "whole": _held_out(STEP_3, switches={**WHOLE, "dropout": 0.0}),
        "float32": _held_out(STEP_3, bfloat16=False),
    },
}
