"""One run of a recipe: the same calls, in the same order, as in the notebooks; and the folder that it leaves."""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torchvision.transforms import v2

import utils
from lab.evidence import figures
from lab.evidence.places import expect_folder
from lab.evidence.records import Extent, Tested, Trained, best_epoch, extent, images_to_train, kept_epoch
from lab.runs.config import read_yaml
from lab.runs.recipes import Recipe

# ---------------------------------------------------------------------------------------------------------------------
# What a recipe says, as objects
# ---------------------------------------------------------------------------------------------------------------------


def split(recipe: Recipe, train: utils.Digits, test: utils.Digits) -> tuple[utils.Digits, utils.Digits]:
    """The images that a recipe trains on, and those that measure each epoch: the last of the training images if it
    validates, else the test images.
    """
    if not recipe.validates:
        return train, test
    trained = images_to_train(recipe, len(train))
    return train[:trained], train[trained:]


class RandomFlipEach(nn.Module):
    """Mirror each image of a batch left to right, or not, with this probability."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def extra_repr(self) -> str:
        return f"{self.probability}"

    def forward(self, images: Tensor) -> Tensor:
        flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
        return torch.where(flipped, images.flip(-1), images)


def make_transform(recipe: Recipe, training: bool = False) -> v2.Compose:
    """From uint8 batches to what the network sees; augmented for training."""
    if not training:
        return utils.make_transform(mean=recipe.mean, std=recipe.std)
    transform = utils.make_transform(recipe.augmentation, recipe.mean, recipe.std)
    return v2.Compose([RandomFlipEach(recipe.flip), *transform.transforms]) if recipe.flip else transform


def make_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The recipe's optimizer, with PyTorch's defaults for what the recipe does not name."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return Adam(model.parameters(), rate, weight_decay=decay, fused=True)
    if recipe.optimizer == "adadelta":
        return Adadelta(model.parameters(), rate, weight_decay=decay)
    if recipe.optimizer == "sgd":
        return SGD(model.parameters(), rate, recipe.momentum, weight_decay=decay, fused=True)
    return utils.make_optimizer(model, rate, recipe.momentum, decay)


def make_scheduler(recipe: Recipe, optimizer: Optimizer) -> LRScheduler:
    """The recipe's schedule; all of them set the rate once an epoch, as `fit` does."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    if recipe.schedule == "one-cycle":
        # its defaults: from a 25th of the highest rate up to it in the first 30 %, then down; momentum the other way
        return OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs)
    return utils.make_scheduler(optimizer, recipe.step_size, recipe.gamma)


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def run(recipe: Recipe, seed: int, show: bool = True, folder: Path | None = None, name: str = "") -> Trained:
    """Train a recipe from a seed, and test the weights that it keeps.

    Kept are the weights of the best validation epoch where the recipe has validation images (of equally many right
    answers, the lower loss), and else of the last: the test images choose nothing.

    `folder` gets, epoch by epoch, `model.pt` (the kept weights, under the recipe's `name`), `resume.pt` (where the run
    goes on if it is interrupted), `config.yaml`, `log.txt` and `history.json`; at the end `curves.png` too.

    Raises ValueError for a folder that has another run or is a file, OSError for one that cannot be written to, and
    FloatingPointError for a loss that is not finite.
    """
    if folder:
        expect_folder(folder)
        _refuse_another_run(folder, recipe, seed)
    device = utils.pick_device()
    train, test = utils.load_data(device)
    train, measured = split(recipe, train, test)
    train_loader = utils.Loader(train, recipe.batch_size, make_transform(recipe, training=True), shuffle=True)
    measured_loader = utils.Loader(measured, 1_000, make_transform(recipe))
    utils.seed_everything(seed)
    model = recipe.make_network().to(device)
    optimizer = make_optimizer(recipe, model)
    kept = _Kept(recipe, seed, name, model, folder)
    history = utils.fit(
        model,
        train_loader,
        measured_loader,
        optimizer,
        make_scheduler(recipe, optimizer),
        epochs=recipe.epochs,
        plain_epochs=recipe.plain_epochs,
        bfloat16=recipe.bfloat16,
        seed=seed,
        checkpoint=folder / "resume.pt" if folder else None,
        after_epoch=kept.after_epoch,
        stop=lambda history: is_out_of_patience(recipe, history),
        measured_on=measured_on(recipe),
        show=show,
    )
    kept.restore(history)
    tested = None
    if not recipe.held_out:
        images = len(test) if recipe.validates else history.test_images
        tested = evaluate(predict(model, recipe, test[:images]), test[:images].labels)
    if folder:
        kept.finish(history, tested)
    return Trained(history, kept_epoch(recipe, history), tested)


def measured_on(recipe: Recipe) -> str:
    """What the images are called that measure each epoch."""
    return "validation" if recipe.validates else "test"


def is_out_of_patience(recipe: Recipe, history: utils.History) -> bool:
    return recipe.patience > 0 and len(history) - best_epoch(history) >= recipe.patience


@torch.no_grad()
def predict(model: nn.Module, recipe: Recipe, digits: utils.Digits) -> Tensor:
    """The logits of all images, float32 of shape (N, 10), in evaluation mode."""
    model.eval().to(memory_format=utils.fast_layout(model, digits.images.device))  # as utils.test does
    loader = utils.Loader(digits, 1_000, make_transform(recipe))
    return torch.cat([model(images) for images, _ in loader])


def evaluate(logits: Tensor, labels: Tensor) -> Tested:
    """What logits of shape (N, 10) say to images with these labels."""
    answers = logits.argmax(dim=1)
    wrong = (answers != labels).nonzero().squeeze(1)
    mistakes = torch.stack([wrong, labels[wrong], answers[wrong]], dim=1).tolist()
    return Tested(len(labels), utils.loss_function(logits, labels).item(), mistakes)


# ---------------------------------------------------------------------------------------------------------------------
# The run's folder
# ---------------------------------------------------------------------------------------------------------------------


class _Kept:
    """The weights that a run keeps, in memory, and in its folder if it has one."""

    def __init__(self, recipe: Recipe, seed: int, name: str, model: nn.Module, folder: Path | None) -> None:
        self.recipe, self.seed, self.name, self.model, self.folder = recipe, seed, name, model, folder
        self.weights: Mapping[str, Tensor] | None = None

    def after_epoch(self, history: utils.History) -> None:
        if kept_epoch(self.recipe, history) == len(history):
            self.weights = copy.deepcopy(self.model.state_dict()) if self.recipe.validates else None
            if self.folder:
                self._save_model(history, len(history))
        if self.folder:
            _write_text(self.folder / "config.yaml", config(self.recipe, self.seed))
            history.save(self.folder / "history.json")
            _write_text(self.folder / "log.txt", log(self.recipe, history))

    def _save_model(self, history: utils.History, epoch: int) -> None:
        content = {
            "name": self.name,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "epoch": epoch,
            "extent": asdict(extent(history)),
            "model": self.model.state_dict(),
        }
        utils.save_sealed(content, self.folder / "model.pt")

    def restore(self, history: utils.History) -> None:
        """Put the kept weights into the model, which has those of the last epoch."""
        if kept_epoch(self.recipe, history) == len(history):
            return
        # a run that was resumed may have found its best epoch before that
        self.model.load_state_dict(self.weights or load_model(self.folder / "model.pt").model.state_dict())

    def finish(self, history: utils.History, tested: Tested | None) -> None:
        self._save_model(
            history, kept_epoch(self.recipe, history)
        )  # once more: now its extent is that of the whole run
        history.save(self.folder / "history.json")
        _write_text(self.folder / "log.txt", log(self.recipe, history, tested))
        figure = utils.show_curves(history, measured_on(self.recipe))
        accuracy = figure.axes[0]
        accuracy.set_ylim(bottom=min(accuracy.get_ylim()[0], *history.test_accuracy))  # a network may begin low
        figures.save(figure, self.folder / "curves.png", shown=history.test_correct)


def log(recipe: Recipe, history: utils.History, tested: Tested | None = None) -> str:
    """What happened, as text: a row an epoch, which epoch was kept and why, and what its weights give on the test images."""
    kept = kept_epoch(recipe, history)
    lines = [history.table(measured_on(recipe)), ""]
    if recipe.validates:
        percent = f"{history.test_accuracy[kept - 1]:.2f} %"
        lines.append(f"kept: epoch {kept}, the best on {history.test_images:,} validation images, {percent}")
    else:
        lines.append(f"kept: epoch {kept}, the last one")
    if history.dataset != "MNIST":
        lines.append(f"measured on a {history.dataset}, not on all of MNIST")
    if is_out_of_patience(recipe, history):
        lines.append(f"stopped early: no better epoch for {recipe.patience}")
    if tested:
        wrong = len(tested.mistakes)
        lines.append(
            f"test: {tested.accuracy:.2f} % of {tested.images:,} images, {wrong} mistakes, loss {tested.loss:.4f}"
        )
    return "\n".join(lines) + "\n"


def run_folder(name: str, seed: int) -> Path:
    """Where a run leaves its files, below the current folder."""
    return Path("runs", name, str(seed))


def config(recipe: Recipe, seed: int) -> str:
    """All that decides a run, as YAML; `python -m lab train RECIPE --config` reads it again."""
    return yaml.safe_dump({"seed": seed} | asdict(recipe), sort_keys=False)


def _refuse_another_run(folder: Path, recipe: Recipe, seed: int) -> None:
    """A run goes on in its own folder only; it may have been asked for more epochs since."""
    if not (folder / "config.yaml").exists():
        return
    there, here = read_yaml(folder / "config.yaml"), {"seed": seed} | asdict(recipe)
    for field, value in here.items():
        if field != "epochs" and there.get(field) != value:
            raise ValueError(
                f"{folder} has a run with {field} {there.get(field)}, where {value} is asked for: give another --folder"
            )


def _write_text(path: Path, text: str) -> None:
    with utils.whole_or_not_at_all(path) as unfinished:
        unfinished.write_text(text)


class Loaded(NamedTuple):
    """The weights that a run has kept, in their network, and which run it was."""

    model: nn.Module
    recipe: Recipe
    name: str
    seed: int
    epoch: int
    extent: Extent | None  # None for a checkpoint from before it was kept


def load_model(path: str | Path) -> Loaded:
    """Read the `model.pt` of a run. Nothing in the file is executed.

    Raises FileNotFoundError for a missing file, and ValueError for one that no run has written, that was altered since,
    or that has weights that are NaN or infinite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no checkpoint {path}, expected the model.pt of a run of `python -m lab train`"
        )
    foreign = f"{path} is not a checkpoint that `python -m lab train` has written, or was altered since, expected a run's model.pt"
    try:
        content = utils.load_sealed(path)
        recipe = Recipe(**content["recipe"])
        model = recipe.make_network()
        model.load_state_dict(content["model"])
        ran = Extent(**content["extent"]) if "extent" in content else None
        loaded = Loaded(model.to(utils.pick_device()), recipe, content["name"], content["seed"], content["epoch"], ran)
    except Exception:  # noqa: BLE001 (random bytes make torch.load raise nearly anything)
        raise ValueError(foreign) from None
    utils.refuse_infinite(path, content["model"])
    return loaded
