"""One run of a recipe: the same calls, in the same order, as in the notebooks; and the folder that it leaves."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torchvision.transforms import v2

import utils
from lab.evidence import figures
from lab.evidence.places import expect_folder
from lab.evidence.records import DATASETS, Tested, Trained, best_epoch, images_to_train, kept_epoch
from lab.runs import checkpoint, datasets
from lab.runs.checkpoint import load_model
from lab.runs.config import read_yaml
from lab.runs.fingerprint import digest
from lab.runs.recipes import Recipe

# ---------------------------------------------------------------------------------------------------------------------
# What a recipe says, as objects
# ---------------------------------------------------------------------------------------------------------------------


def split(recipe: Recipe, train: utils.Digits, test: utils.Digits) -> tuple[utils.Digits, utils.Digits]:
    """The images that a recipe trains on, and those that measure each epoch: the last of the training images if the recipe
    validates, otherwise the test images.
    """
    if not recipe.validates:
        return train, test
    trained = images_to_train(recipe, len(train))
    return train[:trained], train[trained:]


class RandomFlipEach(nn.Module):
    """Mirror each image of a batch left to right with this probability."""

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
    """The recipe's schedule; all of them set the rate once per epoch, as `fit` does."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    if recipe.schedule == "one-cycle":
        # its defaults: from a 25th of the highest rate up to it in the first 30 %, then down; momentum the other way
        return OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs)
    return utils.make_scheduler(optimizer, recipe.step_size, recipe.gamma)


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def run(
    recipe: Recipe,
    seed: int,
    show: bool = True,
    folder: Path | None = None,
    name: str = "",
    hopeless: Callable[[utils.History], bool] | None = None,
) -> Trained:
    """Train a recipe from a seed, and test the weights that it keeps.

    With validation images, a run keeps the weights of the epoch that is best on them (see `records.best_epoch`).
    Otherwise it keeps those of the last epoch: the test images choose nothing.

    After each epoch, `folder` gets `model.pt` (the kept weights, under the recipe's `name`), `resume.pt` (from which an
    interrupted run goes on to the same bits), `config.yaml`, `history.json`, and a line more in `log.txt`; at the end
    `curves.png` too.
    A run ends early after an epoch for whose history `hopeless` is true; without it, the same folder goes on to the end.
    SESSION7_SHORT=1 makes the run a short one, to see that it works.

    Raises ValueError for a folder that has another run or is a file, OSError for one that cannot be written to, and
    FloatingPointError for a loss that is not finite.
    """
    if folder:
        expect_folder(folder)
        if (folder / "config.yaml").exists():
            checkpoint.expect_same_run(folder, read_yaml(folder / "config.yaml"), checkpoint.description(recipe, seed))
    train, test = datasets.load(recipe.dataset, utils.pick_device())
    train, measured = split(recipe, train, test)
    epochs, plain_epochs = recipe.epochs, recipe.plain_epochs
    short = bool(os.environ.get("SESSION7_SHORT"))
    if short:
        train, measured, epochs, plain_epochs = train[:2_000], measured[:1_000], min(epochs, 2), min(plain_epochs, 1)
    train_loader = utils.Loader(train, recipe.batch_size, make_transform(recipe, training=True), shuffle=True)
    measured_loader = utils.Loader(measured, 1_000, make_transform(recipe))
    fingerprint = recipe.fingerprint
    utils.seed_everything(seed)
    model = recipe.make_network().to(train.images.device)
    optimizer = make_optimizer(recipe, model)
    scheduler = make_scheduler(recipe, optimizer)
    images = {"dataset": train.dataset, "train_images": len(train), "measured_images": len(measured)}
    described = checkpoint.description(recipe, seed, model, **images, short=short, fingerprint=digest(fingerprint))
    keeper = _Keeper(recipe, name, folder, checkpoint.Training(described, model, optimizer, scheduler), hopeless)
    history = keeper.resumed()
    if history and keeper.ends_early(history):
        epochs = len(history)
    if history and show:
        what = f"going on with epoch {len(history) + 1}" if len(history) < epochs else "nothing is left to train"
        print(f"{folder} has {len(history)} of {epochs} epochs: {what}")
    history = utils.fit(
        model,
        train_loader,
        measured_loader,
        optimizer,
        scheduler,
        epochs=epochs,
        plain_epochs=plain_epochs,
        bfloat16=recipe.bfloat16,
        seed=seed,
        history=history,
        after_epoch=keeper.after_epoch,
        measured_on=measured_on(recipe),
        show=show,
    )
    keeper.restore(history)
    tested = None
    if not recipe.held_out:
        on = test if recipe.validates else measured
        tested = evaluate(predict(model, recipe, on), on.labels)
    keeper.finish(history, tested)
    return Trained(history, kept_epoch(recipe, history), tested, fingerprint)


def measured_on(recipe: Recipe) -> str:
    """What to call the images that measure each epoch."""
    return "validation" if recipe.validates else "test"


def is_out_of_patience(recipe: Recipe, history: utils.History) -> bool:
    """Whether the last `patience` epochs brought no better one, so that the run stops early."""
    return recipe.patience > 0 and len(history) - best_epoch(recipe, history) >= recipe.patience


@torch.no_grad()
def predict(model: nn.Module, recipe: Recipe, digits: utils.Digits) -> Tensor:
    """The logits of all images, float32 of shape (N, 10), in evaluation mode."""
    model.eval().to(memory_format=utils.fast_layout(model, digits.images.device))  # as utils.test does
    loader = utils.Loader(digits, 1_000, make_transform(recipe))
    return torch.cat([model(images) for images, _ in loader])


def evaluate(logits: Tensor, labels: Tensor) -> Tested:
    """The loss and the mistakes of logits of shape (N, 10) on images with these labels."""
    answers = logits.argmax(dim=1)
    wrong = (answers != labels).nonzero().squeeze(1)
    mistakes = torch.stack([wrong, labels[wrong], answers[wrong]], dim=1).tolist()
    return Tested(len(labels), utils.loss_function(logits, labels).item(), mistakes)


# ---------------------------------------------------------------------------------------------------------------------
# The run's folder
# ---------------------------------------------------------------------------------------------------------------------

# What `lab test` leaves beside model.pt, and what is out of date once that has other weights
LEFT_BY_TEST = ("metrics.json", "metrics.txt", "confusion.png", "scores.png", "predictions.png", "mistakes.png")


class _Keeper:
    """Keeps the weights that a run keeps, in memory, and in its folder if it has one with all that belongs there."""

    def __init__(
        self,
        recipe: Recipe,
        name: str,
        folder: Path | None,
        training: checkpoint.Training,
        hopeless: Callable[[utils.History], bool] | None,
    ) -> None:
        self.recipe, self.name, self.folder, self.training, self.hopeless = recipe, name, folder, training, hopeless
        self.weights: Mapping[str, Tensor] = {}  # of the best epoch, if the recipe validates
        self.logged = False  # whether log.txt has the epochs before this one, as this process wrote them

    def resumed(self) -> utils.History | None:
        """The history of the folder's run, to go on from; None if there is none."""
        if not self.folder or not (self.folder / "resume.pt").exists():
            return None
        return checkpoint.resume(self.folder / "resume.pt", self.training)

    def after_epoch(self, history: utils.History) -> bool:
        """Keep what this epoch left; return whether the run should end early."""
        if kept_epoch(self.recipe, history) == len(history):
            self.weights = copy.deepcopy(self.training.model.state_dict()) if self.recipe.validates else {}
            self._forget_tests()
            self._save("model.pt", history, len(history))
        if self.folder:
            _write_text(self.folder / "config.yaml", config(self.recipe, history.seed))
            history.save(self.folder / "history.json")
            self._log(self.folder / "log.txt", history)
        # last: a run that is killed before this line repeats the epoch, and writes all of the above again
        self._save("resume.pt", history, len(history), resumable=True)
        return self.ends_early(history)

    def _forget_tests(self) -> None:
        """Delete what `lab test` left of other weights than those that model.pt is about to have."""
        if self.folder:
            for file in LEFT_BY_TEST:
                (self.folder / file).unlink(missing_ok=True)

    def _log(self, path: Path, history: utils.History) -> None:
        """Append the epoch to the log, for those who follow it with `tail -f`; the first time, write all epochs so far."""
        rows = history.table(measured_on(self.recipe)).splitlines(keepends=True)
        with path.open("a" if self.logged else "w", encoding="utf-8") as file:
            file.write((rows[-1] if self.logged else "".join(rows)) + "\n")
        self.logged = True

    def ends_early(self, history: utils.History) -> bool:
        """Whether no epoch is to follow."""
        return is_out_of_patience(self.recipe, history) or bool(self.hopeless and self.hopeless(history))

    def _save(self, file: str, history: utils.History, epoch: int, resumable: bool = False) -> None:
        if self.folder:
            path = self.folder / file
            checkpoint.save(path, self.training, self.recipe, self.name, history, epoch, resumable)

    def restore(self, history: utils.History) -> None:
        """Put the kept weights into the model, which has those of the last epoch."""
        if kept_epoch(self.recipe, history) == len(history):
            return
        if not self.weights and self.folder:  # the run was resumed, and its best epoch came before that
            self.weights = load_model(self.folder / "model.pt").model.state_dict()
        self.training.model.load_state_dict(self.weights)

    def finish(self, history: utils.History, tested: Tested | None) -> None:
        """Complete the folder of a run that has ended."""
        if not self.folder:
            return
        self._save("model.pt", history, kept_epoch(self.recipe, history))  # its extent is now that of the whole run
        history.save(self.folder / "history.json")
        _write_text(self.folder / "log.txt", log(self.recipe, history, tested))
        figure = utils.show_curves(history, images=measured_on(self.recipe))
        accuracy = figure.axes[0]
        accuracy.set_ylim(bottom=min(accuracy.get_ylim()[0], *history.test_accuracy))  # a network may begin low
        figures.save(figure, self.folder / "curves.png", shown=history.test_correct)


def log(recipe: Recipe, history: utils.History, tested: Tested | None = None) -> str:
    """What happened, as text: one row per epoch, which epoch was kept and why, and the test result of its weights."""
    kept = kept_epoch(recipe, history)
    lines = [history.table(measured_on(recipe)), ""]
    if recipe.validates:
        percent = f"{history.test_accuracy[kept - 1]:.2f} %"
        lines.append(f"kept: epoch {kept}, the best on {history.test_images:,} validation images, {percent}")
    else:
        lines.append(f"kept: epoch {kept}, the last one")
    if history.dataset != DATASETS[recipe.dataset]:
        lines.append(f"measured on: {history.dataset}, expected all of {DATASETS[recipe.dataset]}")
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
    """Everything that decides a run, as YAML, which `python -m lab train RECIPE --config` reads."""
    return yaml.safe_dump({"seed": seed} | asdict(recipe), sort_keys=False)


def _write_text(path: Path, text: str) -> None:
    with utils.whole_or_not_at_all(path) as unfinished:
        unfinished.write_text(text)
