"""A recipe is everything that decides a run, except its seed. The three steps of the notebooks are recipes.

A study names some recipes and the number of seeds to run each with. A recipe that belongs to several studies runs once.
"""

import contextlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal, get_args

import torch
from torch import nn

import models
import utils
from lab.evidence.records import DATASETS, LATER, Factors, recipe_hash
from lab.runs import own
from lab.runs.fingerprint import fingerprint

Optimizer = Literal["nesterov", "sgd", "adam", "adadelta"]
Schedule = Literal["step", "cosine", "one-cycle"]
DataSet = Literal["mnist", "fashion-mnist"]
Monitor = Literal["accuracy", "loss"]
OPTIMIZERS: tuple[str, ...] = get_args(Optimizer)
SCHEDULES: tuple[str, ...] = get_args(Schedule)
MONITORS: tuple[str, ...] = get_args(Monitor)


@dataclass(frozen=True)
class Recipe:
    """A network with its switches, and how it is trained; the fields have the names of the notebooks' constants.

    Switches that are left out get the network's defaults when the recipe is made. A record therefore lists all of them,
    and stays correct when a default changes. The text beside each type is its help on the command line.

    Raises ValueError for a value out of range, an unknown network, and a switch that the network does not have.
    """

    network: Annotated[str, "class in models.py or lab/runs/networks.py, or your own, such as mynet.py:MyNet"]
    switches: Annotated[dict[str, object], "arguments of that class, such as --switches.dropout 0.1"] = field(
        default_factory=dict
    )
    augmentation: Annotated[dict[str, float], "transforms and their strength, such as --augmentation.rotation 10"] = (
        field(default_factory=dict)
    )
    epochs: Annotated[int, "passes over the training images"] = 15
    batch_size: Annotated[int, "images per training step"] = 128
    learning_rate: Annotated[float, "the highest one, if the schedule changes it"] = 0.05
    momentum: Annotated[float, "of the optimizers nesterov and sgd"] = 0.9
    weight_decay: Annotated[float, "L2 penalty on the weights"] = 0.0
    schedule: Annotated[Schedule, "how the learning rate changes"] = "step"
    step_size: Annotated[int, "epochs between two steps of the schedule 'step'"] = 5
    gamma: Annotated[float, "factor of the learning rate at each of these steps"] = 1.0
    plain_epochs: Annotated[int, "last epochs that train without augmentation"] = 0
    bfloat16: Annotated[bool, "use bfloat16 on devices where it is fast"] = True
    held_out: Annotated[
        bool, "train on the first 50,000 training images, measure on the last 10,000, and leave the test images alone"
    ] = False
    optimizer: Annotated[Optimizer, "nesterov is SGD with Nesterov momentum"] = LATER["optimizer"]
    mean: Annotated[float, "subtracted from pixels in [0, 1]"] = LATER["mean"]
    std: Annotated[float, "what the pixels are then divided by"] = LATER["std"]
    flip: Annotated[float, "probability of mirroring a training image left to right"] = LATER["flip"]
    validation: Annotated[float, "fraction of the training images, the last ones, that choose the epoch to test"] = (
        LATER["validation"]
    )
    patience: Annotated[int, "stop after this many epochs without a better one; 0: never"] = LATER["patience"]
    dataset: Annotated[DataSet, "what it trains on; both data sets have the same sizes"] = LATER["dataset"]
    monitor: Annotated[Monitor, "by which the best epoch is chosen, to test it and to stop"] = LATER["monitor"]

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("dataset", self.dataset, DATASETS),
            ("monitor", self.monitor, MONITORS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        for name, low, high in (("flip", 0, 1), ("validation", 0, 0.9)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a fraction from {low} to {high}")
        utils.make_transform(self.augmentation)  # raises for an unknown transform
        utils.check_rates(self.learning_rate, self.momentum, self.weight_decay, self.gamma)
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}, expected at least 1")
        if self.std <= 0:
            raise ValueError(f"std is {self.std}, expected more than 0")
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}, expected a number of epochs, or 0 for never")
        if self.held_out and self.validation:
            raise ValueError("held_out and validation are both given, expected one of them")
        found = own.find(self.network)
        parameters = inspect.signature(found.make).parameters
        for switch in self.switches:
            if switch not in parameters:
                known_switches = ", ".join(parameters) or "none"
                raise ValueError(f"{self.network} has no switch {switch!r}, expected some of: {known_switches}")
        switches = dict(_defaults(parameters)) | self.switches
        # as JSON gives them back: lists, where the defaults are tuples; `object` is the way around `frozen`
        object.__setattr__(self, "switches", json.loads(json.dumps(switches)))
        object.__setattr__(self, "network", found.name)

    def make_network(self) -> nn.Module:
        """The network with its initial weights, drawn from the generator as it is.

        Raises ValueError for a switch of the wrong kind.
        """
        try:
            return own.find(self.network).make(**self.switches)
        except TypeError as error:
            raise ValueError(f"{self.network} does not take the switches {self.switches}: {error}") from None

    @property
    def parameters(self) -> int:
        """How many the network has; it is built without memory for them."""
        with torch.device("meta"):
            return models.count_parameters(self.make_network())

    @property
    def fingerprint(self) -> list[float]:
        """What the network computes with the code as it is now; its records keep what it computed when they were made."""
        return fingerprint(self.make_network)

    @property
    def validates(self) -> bool:
        """Whether it measures each epoch on images that are held out of training, and not on the test images."""
        return self.held_out or self.validation > 0

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits that another recipe does not have; records are named after it."""
        return recipe_hash(asdict(self))


def _defaults(parameters: Mapping[str, inspect.Parameter]) -> Iterator[tuple[str, object]]:
    """The switches with a default that a record can hold; a class of your own may have others."""
    for name, parameter in parameters.items():
        with contextlib.suppress(TypeError):
            json.dumps(parameter.default)
            yield name, parameter.default


@dataclass(frozen=True)
class Study:
    """A question, and the recipes by name that answer it, each run with `seeds` seeds, `first` and those that follow.

    `against` says what each recipe is compared with, seed by seed: the recipe of that name, the one "above" it, or
    nothing. `factors` names two things that four of the recipes have in all combinations. If `keeps_runs`, each run also
    leaves its folder `runs/RECIPE/SEED/`, and resumes from it.
    """

    question: str
    seeds: int
    recipes: Mapping[str, Recipe]
    against: str = ""
    keeps_runs: bool = False
    first: int = 0
    factors: Factors | None = None

    @property
    def all_seeds(self) -> range:
        """The seeds that each recipe is run with."""
        return range(self.first, self.first + self.seeds)


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


def _held_out(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, held_out=True, **changes)


def _step_3(**switches: object) -> Recipe:
    """Step 3 with other switches of its network."""
    return replace(STEP_3, switches={"dropout": 0.0, **switches})


NO_WARP = {kind: by for kind, by in STEP_3.augmentation.items() if kind != "warp"}

# A narrow network has too little to spare for images that are bent as much as Step 3's.
LIGHTER = {"rotation": 8, "shift": 0.06, "scale": 0.08, "shear": 4, "warp": 0.03}


def _narrow(*channels: int) -> Recipe:
    """Step 3's training, with lighter augmentation, of a network for a smaller budget."""
    return replace(STEP_3, network="Narrow", switches={"channels": list(channels)}, augmentation=LIGHTER)


def _ungrouped(**switches: object) -> Recipe:
    """The frontier's network of 2,958 parameters with other switches of Shuffled."""
    channels = [8, 16, 20, 20, 20, 22]
    return replace(
        STEP_3, network="Shuffled", switches={"channels": channels, "groups": 1, **switches}, augmentation=LIGHTER
    )


# wider than Narrow, because its last layers share the weights that mix channels
REPEATED = replace(STEP_3, network="Repeated", switches={"stem": 12, "width": 28}, augmentation=LIGHTER)
# wider than Narrow too, because its 1x1 convolutions mix half of the channels each
SHUFFLED = replace(STEP_3, network="Shuffled", switches={}, augmentation=LIGHTER)
LIGHTEST = {"rotation": 6, "shift": 0.04, "scale": 0.06, "shear": 3, "warp": 0.02}

EACH_EPOCH = replace(STEP_3, step_size=1, gamma=0.72)
FAST = replace(EACH_EPOCH, epochs=7, gamma=0.5, plain_epochs=2)

NO_DROPOUT = replace(STEP_2, switches={"dropout": 0.0})

# From Model_1 without its batch norm to the full Step 3, each recipe builds on the one before: most change one thing,
# three change two (the report says which).
LADDER: dict[str, Recipe] = {
    "no_batch_norm": replace(STEP_1, switches={"batch_norm": False}),
    "step1": STEP_1,
    "pool_at_5": replace(STEP_1, switches={"pool_at": 5}),
    "gap": replace(STEP_1, switches={"pool_at": 5, "gap": True}),
    "fully_connected": replace(STEP_1, switches={"pool_at": 5, "gap": True, "fully_connected": True}),
    "capacity": replace(
        STEP_2,
        switches={"channels": [8, 14, 10, 10, 10], "capacity": 14, "separable": False, "dropout": 0.0},
    ),
    "width": replace(STEP_2, switches={**WHOLE, "dropout": 0.0}),
    "separable": NO_DROPOUT,
    "dropout": STEP_2,
    "no_dropout": NO_DROPOUT,
    "schedule": replace(NO_DROPOUT, learning_rate=STEP_3.learning_rate, gamma=STEP_3.gamma),
    "weight_decay": replace(STEP_3, augmentation={}),  # without augmentation, all epochs are plain
    "augmentation": replace(STEP_3, plain_epochs=0),
    "plain_epochs": STEP_3,
}

STUDIES: dict[str, Study] = {
    "consistency": Study(
        "What do the notebooks' three recipes give, over seeds?",
        20,
        {"step1": STEP_1, "step2": STEP_2, "step3": STEP_3},
    ),
    "ladder": Study("From Model_1 to Step 3, row by row: what does each bring?", 10, LADDER, against="above"),
    "fashion": Study(
        "Does the ladder hold elsewhere? Its recipes, unchanged, on Fashion-MNIST",
        5,
        {key: replace(recipe, dataset="fashion-mnist") for key, recipe in LADDER.items()},
        against="above",
    ),
    # The full Step 3, and one ingredient of it left out or exchanged at a time.
    "ablation": Study(
        "Step 3 with one ingredient left out or exchanged: what is each worth?",
        10,
        {
            "step3": STEP_3,
            "no_augmentation": replace(STEP_3, augmentation={}),
            "no_warp": replace(STEP_3, augmentation=NO_WARP),
            "no_plain_epochs": replace(STEP_3, plain_epochs=0),
            "constant_rate": replace(STEP_3, learning_rate=STEP_2.learning_rate, gamma=1.0),
            "cosine": replace(STEP_3, schedule="cosine"),
            "no_weight_decay": replace(STEP_3, weight_decay=0.0),
            "batch_256": replace(STEP_3, batch_size=256),
            "dropout_0.1": _step_3(dropout=0.1),
            "no_batch_norm": _step_3(batch_norm=False),
            "no_gap": _step_3(gap=False, fully_connected=False),  # a large kernel reads out, as in Model_1
            "no_capacity": _step_3(capacity=0),
            "pool_at_3": _step_3(pool_at=3),
        },
        against="step3",
    ),
    "frontier": Study(
        "How small can the network be?",
        5,
        {
            "1450_parameters": _narrow(6, 12, 12, 12, 12, 12),
            "2332_parameters": _narrow(6, 12, 18, 18, 18, 18),
            "2958_parameters": _narrow(8, 16, 20, 20, 20, 22),
            "3982_parameters": _narrow(8, 16, 24, 26, 26, 26),
            "4534_parameters": _narrow(8, 16, 28, 28, 28, 28),
            "4920_parameters": _narrow(8, 16, 30, 30, 30, 28),
            "7750_parameters": STEP_3,
        },
    ),
    # Step 3 in fewer epochs: its three rates, and the plain images at the last of them, in proportion.
    "epochs": Study(
        "In how few epochs does Step 3's network end at 99.4 %?",
        10,
        {
            "6_epochs": replace(STEP_3, epochs=6, step_size=2, plain_epochs=2),
            "8_epochs": replace(STEP_3, epochs=8, step_size=3, plain_epochs=2),
            "9_epochs": replace(STEP_3, epochs=9, step_size=3, plain_epochs=3),
            "15_epochs": STEP_3,
        },
    ),
    # what the steps were chosen from, without the test images
    "choice": Study(
        "What the steps were chosen from, on held-out training images",
        3,
        {
            "step1": _held_out(STEP_1),
            "step2": _held_out(STEP_2),
            "dropout_0.05": _held_out(STEP_2, switches={"dropout": 0.05}),
            "step3": _held_out(STEP_3),
            "whole_convolutions": _held_out(_step_3(**WHOLE)),
            "float32": _held_out(STEP_3, bfloat16=False),
            # one thing of Step 3 at a time, a little less of it and a little more
            "rate_0.1": _held_out(STEP_3, learning_rate=0.1),
            "rate_0.3": _held_out(STEP_3, learning_rate=0.3),
            "decay_2e-4": _held_out(STEP_3, weight_decay=2e-4),
            "decay_1e-3": _held_out(STEP_3, weight_decay=1e-3),
            "gamma_0.05": _held_out(STEP_3, gamma=0.05),
            "gamma_0.2": _held_out(STEP_3, gamma=0.2),
            "step_4": _held_out(STEP_3, step_size=4),
            "step_6": _held_out(STEP_3, step_size=6),
            "each_epoch": _held_out(STEP_3, step_size=1, gamma=0.72),  # as far down after 15 epochs: 0.72^14 = 0.01
            "earlier_pooling": _held_out(_step_3(pool_at=3)),
            "later_pooling": _held_out(_step_3(pool_at=7, channels=[8, 14, 16, 34, 36])),  # fits the budget
            "plain_3": _held_out(STEP_3, plain_epochs=3),
            "plain_7": _held_out(STEP_3, plain_epochs=7),
            "warp_0.02": _held_out(STEP_3, augmentation={**STEP_3.augmentation, "warp": 0.02}),
            "warp_0.06": _held_out(STEP_3, augmentation={**STEP_3.augmentation, "warp": 0.06}),
            "wider_at_the_end": _held_out(_step_3(channels=[8, 16, 26, 36, 42], capacity=46)),
            "wider_at_the_start": _held_out(_step_3(channels=[8, 16, 40, 38, 36], capacity=36)),
        },
        against="step3",
    ),
    "hundred": Study("Is Step 3 consistent for a hundred seeds?", 100, {"step3": STEP_3}),
    # the two that looked best, on seeds that did not choose them: does Step 3 change?
    "chosen": Study(
        "Is either of the two best rows of choice better than Step 3, on seeds that did not choose them?",
        7,
        {
            "step3": _held_out(STEP_3),
            "each_epoch": _held_out(STEP_3, step_size=1, gamma=0.72),
            "gamma_0.2": _held_out(STEP_3, gamma=0.2),
        },
        against="step3",
        first=3,
    ),
    # Step 2's rate and Step 3's, constant and falling: which of the two does "schedule" on the ladder owe its gain to?
    "rates": Study(
        "Step 3 at two rates, constant and falling, and with one cycle: rate or schedule?",
        10,
        {
            "constant_0.05": replace(STEP_3, learning_rate=0.05, gamma=1.0),
            "falling_0.05": replace(STEP_3, learning_rate=0.05),
            "constant_0.2": replace(STEP_3, gamma=1.0),
            "falling_0.2": STEP_3,
            "one_cycle": replace(STEP_3, schedule="one-cycle"),
        },
        against="falling_0.2",
        factors=Factors("rate", "schedule", ("constant_0.05", "constant_0.2", "falling_0.05", "falling_0.2")),
    ),
    # searches without the test images; lab/PLAN.md says which of their recipes are then run on them
    "small": Study(
        "Which network below 3,000 parameters, on held-out training images?",
        3,
        {
            "narrow": _held_out(_narrow(8, 16, 20, 20, 20, 22)),
            "narrow_first_wide": _held_out(_narrow(8, 16, 24, 20, 18, 16)),
            "narrow_shallow": _held_out(_narrow(8, 16, 24, 24, 24)),
            "one_mix": _held_out(REPEATED),
            "one_block": _held_out(replace(REPEATED, switches={"stem": 16, "width": 32, "one_block": True})),
            "one_mix_each_epoch": _held_out(REPEATED, step_size=1, gamma=0.72),
            "one_mix_plain_7": _held_out(REPEATED, plain_epochs=7),
            "one_mix_decay_2e-4": _held_out(REPEATED, weight_decay=2e-4),
            "one_mix_lighter": _held_out(REPEATED, augmentation=LIGHTEST),
            # the second round
            "shuffled": _held_out(SHUFFLED),
            "shuffled_each_epoch": _held_out(SHUFFLED, step_size=1, gamma=0.72),
            "attention": _held_out(_ungrouped(attention=True)),
            "silu": _held_out(_ungrouped(activation="silu")),
            "attention_silu": _held_out(_ungrouped(attention=True, activation="silu")),
            "narrow_batch_64": _held_out(_narrow(8, 16, 20, 20, 20, 22), batch_size=64),
        },
    ),
    "best": Study(
        "Which training of Step 3's network is best, on held-out training images?",
        3,
        {
            "each_epoch": _held_out(EACH_EPOCH),
            "rate_0.3": _held_out(EACH_EPOCH, learning_rate=0.3),
            "decay_1e-3": _held_out(EACH_EPOCH, weight_decay=1e-3),
            "batch_64": _held_out(EACH_EPOCH, batch_size=64),
            "plain_3": _held_out(EACH_EPOCH, plain_epochs=3),
            "gamma_0.65": _held_out(EACH_EPOCH, gamma=0.65),
        },
    ),
    "fast": Study(
        "Which training of fewer than eight epochs, on held-out training images?",
        3,
        {
            "7_epochs": _held_out(FAST),
            "7_epochs_batch_64": _held_out(FAST, batch_size=64),
            "7_epochs_lighter": _held_out(FAST, plain_epochs=3, augmentation=LIGHTER),
            "6_epochs_batch_64": _held_out(EACH_EPOCH, epochs=6, gamma=0.4, plain_epochs=2, batch_size=64),
        },
    ),
    # what these searches found, on test images and on seeds that chose nothing (lab/PLAN.md)
    "confirm_best": Study(
        "Is a rate that falls after each epoch better, on seeds that chose nothing?",
        20,
        {"step3": STEP_3, "each_epoch": EACH_EPOCH},
        against="step3",
        first=20,
    ),
    "confirm_size": Study(
        "Are small networks consistent for seeds that chose nothing?",
        20,
        {"silu": _ungrouped(activation="silu"), "3982_parameters": _narrow(8, 16, 24, 26, 26, 26)},
        first=20,
    ),
    "confirm_fast": Study(
        "Are seven epochs enough, on seeds that chose nothing?",
        10,
        {"7_epochs_lighter": replace(FAST, plain_epochs=3, augmentation=LIGHTER)},
        first=20,
    ),
}
