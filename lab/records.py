"""Records: what a study keeps of a run, one file each, named after the recipe's hash and the seed.

Each is checked when it is written and when it is read. The committed ones are evidence: full runs on all of MNIST.
"""

import functools
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import utils
from lab.places import RECORDS, is_evidence
from lab.recipes import Recipe
from lab.train import MNIST_TEST, Tested, Trained, extent, kept_epoch, shortfall

# ---------------------------------------------------------------------------------------------------------------------
# What stands in a file
# ---------------------------------------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=0)]
Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # a loss, a rate, seconds


class _Part(BaseModel):
    """No key too many, none too few, and none of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Versions(_Part):
    python: str
    torch: str
    torchvision: str


class _History(_Part):
    """The columns of `utils.History` that all runs have."""

    dataset: str
    train_images: Count
    parameters: Count
    seed: int
    environment: dict[str, str | int]
    learning_rate: list[Measure]
    train_loss: list[Measure]
    train_correct: list[Count]
    seconds: list[Measure]
    final_train_correct: Count


class _OnTest(_History):
    test_images: Count
    test_loss: list[Measure]
    test_correct: list[Count]


class _OnHeldOut(_History):
    """What was measured on training images that were held out is called so."""

    held_out_images: Count
    held_out_loss: list[Measure]
    held_out_correct: list[Count]


class _Test(_Part):
    """What the kept weights, those of this epoch, gave on the test images: [index, label, answer] of each mistake."""

    epoch: Count
    images: Count
    loss: Measure
    mistakes: list[Annotated[list[Count], Field(min_length=3, max_length=3)]]


Measured = TypeVar("Measured", _OnTest, _OnHeldOut)


class _File(_Part, Generic[Measured]):
    hash: str
    recipe: dict[str, Any]
    versions: _Versions
    history: Measured
    test: _Test | None = None


class Record(NamedTuple):
    """A recorded run. In its history, what was measured on held-out images stands as that on test images does; `tested`
    is None where the record does not have the kept weights' mistakes.
    """

    recipe: Recipe
    history: utils.History
    tested: Tested | None


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def record_path(recipe: Recipe, seed: int, folder: Path = RECORDS) -> Path:
    return folder / f"{recipe.hash}.seed{seed}.json"


def read(path: Path) -> Record:
    """The record in a file. Raises ValueError, in one line that names the file, for one that is torn or cannot be."""
    try:
        return _check(json.loads(path.read_text(encoding="utf-8")), path)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a record of a study: {error}") from None


def read_all(folder: Path = RECORDS) -> Iterator[Record]:
    """All records of a folder, in the order of their names; one that cannot be is named on stderr, and left out."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield read(path)
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)


Runs = Mapping[str, Mapping[int, Record]]  # by the recipe's hash, and by seed


def by_recipe(folder: Path = RECORDS) -> Runs:
    """All records of a folder, by their recipe's hash and their seed."""
    runs: dict[str, dict[int, Record]] = {}
    for record in read_all(folder):
        runs.setdefault(record.recipe.hash, {})[record.history.seed] = record
    return runs


def _check(content: object, path: Path) -> Record:
    """The record in what a file holds, or would hold. Raises ValueError for one that cannot be."""
    recipe = _recipe(content)
    try:
        file = (_File[_OnHeldOut] if recipe.validates else _File[_OnTest]).model_validate(content)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    columns = file.history.model_dump()
    history = utils.History(**{name.replace("held_out", "test"): column for name, column in columns.items()})
    _check_name(path, file.hash, recipe, history.seed)
    _check_history(recipe, history)
    tested = Tested(file.test.images, file.test.loss, file.test.mistakes) if file.test else None
    if tested:
        _check_test(recipe, history, file.test.epoch, tested)
    if is_evidence(path):
        _check_evidence(recipe, history, tested)
    return Record(recipe, history, tested)


def _recipe(content: object) -> Recipe:
    """The recipe that stands in a record. Raises ValueError for none, and for fields that are missing or unknown."""
    written = content.get("recipe") if isinstance(content, dict) else None
    if not isinstance(written, dict):
        raise ValueError(f"it is {_shown(content)}, expected an object with a recipe")  # noqa: TRY004 (bad data, no bug)
    known = {one.name: one for one in fields(Recipe)}
    for name in written:
        if name not in known:
            raise ValueError(f"recipe.{name} is unknown, expected some of {', '.join(known)}")
    for name, one in known.items():
        if name not in written and one.default is MISSING and one.default_factory is MISSING:
            raise ValueError(f"recipe.{name} is missing")
    try:
        return Recipe(**written)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"its recipe is none: {error}") from None


def _shown(content: object) -> str:
    return f"a {type(content).__name__}" + (f" of {', '.join(map(str, content))}" if isinstance(content, dict) else "")


def _first(error: ValidationError) -> str:
    """The first complaint in a few words: "history.test_loss.3: Input should be a finite number"."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _check_name(path: Path, written_hash: str, recipe: Recipe, seed: int) -> None:
    if written_hash != recipe.hash:
        raise ValueError(f"its hash is {written_hash}, expected that of its recipe, {recipe.hash}")
    if path.name != record_path(recipe, seed).name:
        raise ValueError(f"its name is {path.name}, expected {record_path(recipe, seed).name}")


def _check_history(recipe: Recipe, history: utils.History) -> None:
    epochs = len(history.learning_rate)
    columns = {name: column for name, column in asdict(history).items() if isinstance(column, list)}
    for name, column in columns.items():
        if len(column) != epochs:
            raise ValueError(
                f"{name} has {len(column)} entries, learning_rate has {epochs}, expected one for each epoch"
            )
    if not 1 <= epochs <= recipe.epochs:
        raise ValueError(f"it has {epochs} epochs, expected 1 to {recipe.epochs}")
    for name, counts, images in (
        ("train_correct", history.train_correct, history.train_images),
        ("test_correct", history.test_correct, history.test_images),
        ("final_train_correct", [history.final_train_correct], history.train_images),
    ):
        if max(counts) > images:
            raise ValueError(f"{name} has {max(counts)}, expected at most the {images} images")
    parameters = _count_parameters(recipe.network, json.dumps(recipe.switches))
    if history.parameters != parameters:
        raise ValueError(f"it has {history.parameters} parameters, expected {parameters}, as its network has")


@functools.cache  # a folder has many runs of few networks
def _count_parameters(network: str, switches: str) -> int:
    return Recipe(network, json.loads(switches)).parameters


def _check_test(recipe: Recipe, history: utils.History, epoch: int, tested: Tested) -> None:
    if epoch != kept_epoch(recipe, history):
        raise ValueError(f"test.epoch is {epoch}, expected the one that was kept, {kept_epoch(recipe, history)}")
    if len({index for index, _, _ in tested.mistakes}) != len(tested.mistakes):
        raise ValueError("test.mistakes has an image twice")
    for index, label, answer in tested.mistakes:
        if index >= tested.images or label == answer or max(label, answer) >= utils.CLASSES:
            raise ValueError(
                f"test.mistakes has {[index, label, answer]}, expected an image, its label and another digit"
            )
    right = tested.images - len(tested.mistakes)
    if not recipe.validates and right != history.test_correct[-1]:
        raise ValueError(
            f"test has {right} right answers, expected those of the last epoch, {history.test_correct[-1]}"
        )


def _check_evidence(recipe: Recipe, history: utils.History, tested: Tested | None) -> None:
    lacks = shortfall(recipe, extent(history), kept_epoch(recipe, history))
    if lacks:
        raise ValueError(lacks)
    if tested and tested.images != MNIST_TEST:
        raise ValueError(f"test.images is {tested.images}, expected {MNIST_TEST}")


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def write(folder: Path, recipe: Recipe, trained: Trained) -> Path:
    """Write the record of a run into a folder, whole or not at all; return its path.

    Raises ValueError for one that could not be read again, such as a short run among the committed ones.
    """
    path = record_path(recipe, trained.history.seed, folder)
    content = _make(recipe, trained)
    _check(json.loads(json.dumps(content)), path)
    utils.write_json(path, content)
    return path


def _make(recipe: Recipe, trained: Trained) -> dict[str, object]:
    """What is kept of a run: its recipe, the versions of the software, and all that was measured.

    The columns that were measured on held-out images are called so; what the kept weights gave on the test images
    stands in `test`, which is missing in records of runs that did not look at them.
    """
    measured = {
        (name.replace("test", "held_out", 1) if recipe.validates and name.startswith("test") else name): value
        for name, value in asdict(trained.history).items()
    }
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
    record = {"hash": recipe.hash, "recipe": asdict(recipe), "versions": versions, "history": measured}
    if trained.tested:
        record["test"] = {"epoch": trained.epoch} | asdict(trained.tested)
    return record
