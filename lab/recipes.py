"""Recipes are data: all that decides a run but its seed. The three steps of the notebooks are three of them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Recipe:
    """A network with its switches, and how it is trained; the fields have the names of the notebooks' constants."""

    network: str
    switches: dict[str, object] = field(default_factory=dict)
    augmentation: dict[str, float] = field(default_factory=dict)
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    step_size: int = 5
    gamma: float = 0.1
    held_out: bool = False  # train on the first 50,000 training images and measure on the last 10,000


STEP_3 = Recipe("Model_2", {"dropout": 0.0}, {"rotation": 10, "shift": 0.1, "scale": 0.1, "shear": 5}, held_out=True)

STUDIES: dict[str, dict[str, Recipe]] = {}
