"""What tests of several files make for themselves: small data, a small network, a short run."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import models
import utils
from utils import Digits, History, Loader, make_transform

CPU = torch.device("cpu")


def leftovers(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*unfinished*")]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int | str:
    """Run `python -m lab` with these arguments in this process; its exit code."""
    from lab import __main__ as command_line  # the tests of the lesson do without the lab

    monkeypatch.setattr(sys, "argv", ["lab", *map(str, arguments)])
    try:
        command_line.main()
    except SystemExit as exit:
        return exit.code
    return 0


def some_digits(count: int, dataset: str = "MNIST") -> Digits:
    """Noise with labels 0, 1, ... 9, 0, ..."""
    images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    return Digits(images, torch.arange(count) % 10, dataset)


def linear(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, outputs))


def constant(logits: list[float]) -> nn.Sequential:
    """A network that answers the same to every image."""
    model = linear(len(logits))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor(logits))
    return model


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def but_for_seconds(history: History) -> dict:
    return {name: value for name, value in vars(history).items() if name != "seconds"}


class Run:
    """Everything that `fit` takes, new for each run as in a process of its own."""

    def __init__(
        self,
        digits: tuple[Digits, Digits],
        *,
        make: Callable[[], nn.Module] = lambda: models.Model_2((4, 4, 6), capacity=0, dropout=0.1),
        seed: int = 0,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        step_size: int = 2,
        gamma: float = 0.1,
        batch_size: int = 32,
        rotation: float = 10,
        train_images: int = 120,
        test_images: int = 50,
        plain_epochs: int = 0,
        bfloat16: bool = True,
    ) -> None:
        utils.seed_everything(seed)
        self.plain_epochs, self.bfloat16 = plain_epochs, bfloat16
        self.seed, self.model = seed, make()
        augmented = make_transform({"rotation": rotation})
        self.train_loader = Loader(digits[0][:train_images], batch_size, augmented, shuffle=True)
        self.test_loader = Loader(digits[1][:test_images], 40, make_transform())
        self.optimizer = utils.make_optimizer(self.model, learning_rate, momentum, weight_decay)
        self.scheduler = utils.make_scheduler(self.optimizer, step_size, gamma)

    def fit(self, epochs: int, show: bool = False, **options: object) -> History:
        return utils.fit(
            self.model,
            self.train_loader,
            self.test_loader,
            self.optimizer,
            self.scheduler,
            epochs=epochs,
            plain_epochs=self.plain_epochs,
            bfloat16=self.bfloat16,
            seed=self.seed,
            show=show,
            **options,
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())
