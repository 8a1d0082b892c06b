"""Records: what a study keeps of a run, one file per run, named after the recipe's hash and the seed.

Every record is checked when it is written and when it is read. The committed ones are evidence: full runs on all of MNIST.
"""

import hashlib
import json
import math
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torchvision
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import utils
from lab.evidence.places import RECORDS, RESULTS, is_evidence

# ---------------------------------------------------------------------------------------------------------------------
# The content of a file
# ---------------------------------------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=0)]
Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # a loss, a rate, seconds


class _Part(BaseModel):
    """Exactly these keys, with exactly these types."""

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
    """The columns of a run that was measured on held-out training images carry their name."""

    held_out_images: Count
    held_out_loss: list[Measure]
    held_out_correct: list[Count]


Number = int | float  # as written: 45 and 45.0 are alike to a run, not to a hash


class RecordedRecipe(_Part):
    """The recipe of a run; lab/runs/recipes.py describes its fields.

    The fields with a default are younger than the first records: at their default, they do not change the recipe's hash.
    """

    network: str
    switches: dict[str, Any]
    augmentation: dict[str, Number]
    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: Number
    momentum: Number
    weight_decay: Number
    schedule: str
    step_size: int
    gamma: Number
    plain_epochs: Count
    bfloat16: bool
    held_out: bool
    optimizer: str = "nesterov"
    mean: Number = utils.MNIST_MEAN
    std: Number = utils.MNIST_STD
    flip: Number = 0.0
    validation: Number = 0.0
    patience: int = 0
    dataset: str = "mnist"
    monitor: str = "accuracy"

    @property
    def validates(self) -> bool:
        """Whether each epoch is measured on images held out of training instead of the test images."""
        return self.held_out or self.validation > 0

    @property
    def hash(self) -> str:
        return recipe_hash(self.model_dump())


LATER = {name: one.default for name, one in RecordedRecipe.model_fields.items() if not one.is_required()}


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that identify a recipe; records are named after them."""
    described = {name: value for name, value in recipe.items() if name not in LATER or value != LATER[name]}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:10]


class _Test(_Part):
    """The kept weights, those of this epoch, on the test images: [index, label, answer] of each mistake."""

    epoch: Count
    images: Count
    loss: Measure
    mistakes: list[Annotated[list[Count], Field(min_length=3, max_length=3)]]


Fingerprint = Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=1)]


Measured = TypeVar("Measured", _OnTest, _OnHeldOut)


class _File(_Part, Generic[Measured]):
    hash: str
    recipe: RecordedRecipe
    fingerprint: Fingerprint
    versions: _Versions
    history: Measured
    test: _Test | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Which epoch a run keeps, and what a full run is
# ---------------------------------------------------------------------------------------------------------------------

TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}  # a recipe's word for it, and that of a history


class Training(Protocol):
    """The part of a recipe that these functions need."""

    @property
    def epochs(self) -> int: ...

    @property
    def held_out(self) -> bool: ...

    @property
    def validation(self) -> float: ...

    @property
    def patience(self) -> int: ...

    @property
    def validates(self) -> bool: ...

    @property
    def dataset(self) -> str: ...

    @property
    def monitor(self) -> str: ...


def images_to_train(recipe: Training, images: int) -> int:
    """The number of training images that are not held out."""
    share = 1 / 6 if recipe.held_out else recipe.validation  # of 60,000: the last 10,000
    return images - max(1, round(share * images)) if recipe.validates else images


@dataclass
class Tested:
    """The kept weights on the test images: mean loss, and [index, label, answer] of each mistake."""

    images: int
    loss: float
    mistakes: list[list[int]]

    __test__ = False  # pytest would take it for one of its own

    @property
    def accuracy(self) -> float:
        """Percent of the test images."""
        return 100 * (self.images - len(self.mistakes)) / self.images

    @property
    def right(self) -> np.ndarray:
        """For each test image, whether the answer was right: bool of shape (images,)."""
        right = np.ones(self.images, dtype=bool)
        right[[index for index, _, _ in self.mistakes]] = False
        return right


def best_epoch(recipe: Training, history: utils.History) -> int:
    """The epoch, from 1, that is best by what the recipe monitors: the one with the most correct answers and, of equals,
    with the lower loss, or the one with the lowest loss.
    """
    if recipe.monitor == "loss":
        return 1 + history.test_loss.index(min(history.test_loss))
    return 1 + max(range(len(history)), key=lambda i: (history.test_correct[i], -history.test_loss[i]))


def kept_epoch(recipe: Training, history: utils.History) -> int:
    """The epoch, from 1, whose weights are kept: the best on the held-out images if there are any, else the last."""
    return best_epoch(recipe, history) if recipe.validates else len(history)


@dataclass(frozen=True)
class Extent:
    """The data and the length of a run; `epochs` counts the whole run, whichever epoch was kept."""

    dataset: str
    train_images: int
    measured_images: int
    epochs: int


def extent(history: utils.History) -> Extent:
    """The extent of a run, from its history."""
    return Extent(history.dataset, history.train_images, history.test_images, len(history))


def shortfall(recipe: Training, ran: Extent, kept: int) -> str:
    """Why a run is not evidence, which is a full run on all of its data set; "" if it is.

    `kept` is the epoch whose weights are kept; early stopping may end a run `patience` epochs later.
    """
    train_images = images_to_train(recipe, TRAIN_IMAGES)
    images = train_images, TRAIN_IMAGES - train_images if recipe.validates else TEST_IMAGES
    if ran.dataset != DATASETS[recipe.dataset]:
        return f"it is of a {ran.dataset}, expected all of {DATASETS[recipe.dataset]}"
    if (ran.train_images, ran.measured_images) != images:
        return (
            f"it was trained on {ran.train_images:,} and measured on {ran.measured_images:,} images, "
            f"expected {images[0]:,} and {images[1]:,}"
        )
    stopped = 0 < recipe.patience <= ran.epochs - kept and ran.epochs < recipe.epochs
    if ran.epochs != recipe.epochs and not stopped:
        return f"it has {ran.epochs} epochs, expected {recipe.epochs}"
    return ""


class Record(NamedTuple):
    """A recorded run. Its history has the results on held-out images, if any, in the columns of the test images;
    `tested` is None where the record lacks the kept weights' mistakes. `fingerprint` says which network it was.
    """

    recipe: RecordedRecipe
    history: utils.History
    tested: Tested | None
    fingerprint: list[float]


class Trained(NamedTuple):
    """A finished run. `epoch` is the one whose weights are kept; `tested` is None for a recipe with held-out images;
    `fingerprint` is that of the network that was trained, as lab/runs/fingerprint.py computes it.
    """

    history: utils.History
    epoch: int
    tested: Tested | None
    fingerprint: list[float]


def same_network(fingerprint: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two fingerprints are of one network; on two machines they may differ in the last bits."""
    pairs = zip(fingerprint, other)
    return len(fingerprint) == len(other) and all(math.isclose(*pair, rel_tol=1e-4, abs_tol=1e-9) for pair in pairs)


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def record_path(recipe: Any, seed: int, folder: Path = RECORDS) -> Path:
    """Where the record of a run is kept, named after the recipe's hash and the seed."""
    return folder / f"{recipe.hash}.seed{seed}.json"


def read(path: Path) -> Record:
    """The record in a file. Raises ValueError, one line that names the file, if it is torn, invalid or misnamed."""
    try:
        return _check(json.loads(path.read_text(encoding="utf-8")), path)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a record of a study: {error}") from None


def read_all(folder: Path = RECORDS) -> Iterator[Record]:
    """All records of a folder, in the order of their names; an invalid one is named on stderr and left out."""
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
    """The record in the content of a file. Raises ValueError for an invalid one."""
    recipe = _recipe(content)
    try:
        file = (_File[_OnHeldOut] if recipe.validates else _File[_OnTest]).model_validate(content)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    columns = file.history.model_dump()
    history = utils.History(**{name.replace("held_out", "test"): column for name, column in columns.items()})
    _check_name(path, file.hash, recipe, history.seed)
    _check_history(recipe, history)
    tested = None
    if file.test:
        tested = Tested(file.test.images, file.test.loss, file.test.mistakes)
        _check_test(recipe, history, file.test.epoch, tested)
    if is_evidence(path):
        _check_evidence(recipe, history, tested)
    return Record(recipe, history, tested, file.fingerprint)


def _recipe(content: object) -> RecordedRecipe:
    """The recipe in a record. Raises ValueError if there is none, or if fields are missing or unknown."""
    written = content.get("recipe") if isinstance(content, dict) else None
    if not isinstance(written, dict):
        raise ValueError(f"it is {_shown(content)}, expected an object with a recipe")  # noqa: TRY004 (bad data, no bug)
    try:
        recipe = RecordedRecipe.model_validate(written)
    except ValidationError as error:
        raise ValueError(f"recipe.{_first(error)}") from None
    utils.check_rates(recipe.learning_rate, recipe.momentum, recipe.weight_decay, recipe.gamma)
    return recipe


def _shown(content: object) -> str:
    return f"a {type(content).__name__}" + (f" of {', '.join(map(str, content))}" if isinstance(content, dict) else "")


def _first(error: ValidationError) -> str:
    """The first complaint in short: "history.test_loss.3: Input should be a finite number"."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _check_name(path: Path, written_hash: str, recipe: RecordedRecipe, seed: int) -> None:
    if written_hash != recipe.hash:
        raise ValueError(f"its hash is {written_hash}, expected that of its recipe, {recipe.hash}")
    if path.name != record_path(recipe, seed).name:
        raise ValueError(f"its name is {path.name}, expected {record_path(recipe, seed).name}")


def _check_history(recipe: Training, history: utils.History) -> None:
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
        ("final_train_correct", [history.final_train_correct or 0], history.train_images),  # `_File` has it
    ):
        if max(counts) > images:
            raise ValueError(f"{name} has {max(counts)}, expected at most the {images} images")


def _check_test(recipe: Training, history: utils.History, epoch: int, tested: Tested) -> None:
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


def _check_evidence(recipe: Training, history: utils.History, tested: Tested | None) -> None:
    lacks = shortfall(recipe, extent(history), kept_epoch(recipe, history))
    if lacks:
        raise ValueError(lacks)
    if tested and tested.images != TEST_IMAGES:
        raise ValueError(f"test.images is {tested.images}, expected {TEST_IMAGES}")


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def write(folder: Path, recipe: Any, trained: Trained) -> Path:
    """Write the record of a run into a folder, whole or not at all; return its path.

    Raises ValueError for a record that `read` would refuse, such as a short run among the committed ones.
    """
    path = record_path(recipe, trained.history.seed, folder)
    content = _make(recipe, trained)
    _check(json.loads(json.dumps(content)), path)
    utils.write_json(path, content)
    return path


def _make(recipe: Any, trained: Trained) -> dict[str, object]:
    """The content of a record: recipe, fingerprint of the network, versions of the software, and all that was measured.

    Columns that were measured on held-out images carry their name. `test` has the kept weights' results on the test
    images; records of runs that did not use them have no `test`.
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
    record = {
        "hash": recipe.hash,
        "recipe": asdict(recipe),
        "fingerprint": trained.fingerprint,
        "versions": versions,
        "history": measured,
    }
    if trained.tested:
        record["test"] = {"epoch": trained.epoch} | asdict(trained.tested)
    return record


# ---------------------------------------------------------------------------------------------------------------------
# The runs of a study, by the names of study and recipe
# ---------------------------------------------------------------------------------------------------------------------


def load(study: str, recipe: str, folder: str | Path = RESULTS) -> dict[int, utils.History]:
    """The recorded runs of one recipe for a study's own seeds, by seed; `summary.json` in the folder says which files they
    are. Other studies may have recorded more seeds of the same recipe.

    Raises FileNotFoundError where nothing is recorded, and ValueError for a file that is not a record and for records of
    different networks. Whether they are of today's network, `python -m lab study` and `report` say.
    """
    return {seed: record.history for seed, record in _load(study, recipe, folder).items()}


def load_study(study: str, folder: str | Path = RESULTS) -> dict[str, dict[int, utils.History]]:
    """The recorded runs of all recipes of a study, by name and seed. Raises as `load`."""
    return {recipe: load(study, recipe, folder) for recipe in recipes(study, folder)}


def load_mistakes(study: str, recipe: str, folder: str | Path = RESULTS) -> dict[int, Tested]:
    """The test images that recorded runs of a recipe get wrong, by seed, for the seeds whose record has them.

    Most records have the counts alone. Raises as `load`, and FileNotFoundError where no seed has its mistakes recorded.
    """
    tested = {seed: record.tested for seed, record in _load(study, recipe, folder).items() if record.tested}
    if not tested:
        kept = [
            name for name in recipes(study, folder) if any(one.tested for one in _load(study, name, folder).values())
        ]
        raise FileNotFoundError(
            f"no run of {study}/{recipe} has its mistakes recorded; of {study}, "
            f"{', '.join(kept) or 'no recipe'} has them"
        )
    return tested


def recipes(study: str, folder: str | Path = RESULTS) -> list[str]:
    """The names of the recipes of a study that are recorded. Raises FileNotFoundError where there are none."""
    return list(_study(study, folder).hashes)


def compared(study: str, folder: str | Path = RESULTS) -> list[tuple[str, str]]:
    """Which recipes of a study are compared with which, by name. Raises as `recipes`."""
    return _study(study, folder).compared


class Factors(NamedTuple):
    """Two things that a study varies together, and its recipes with neither, the first alone, the second alone, and both."""

    first: str
    second: str
    recipes: tuple[str, str, str, str]


def factors(study: str, folder: str | Path = RESULTS) -> Factors | None:
    """The two factors that a study varies together, if it does. Raises as `recipes`."""
    return _study(study, folder).factors


class _Study(NamedTuple):
    """What the summary says of a study: its seeds, the hashes of its recorded recipes by name, which are compared with
    which, and its factors.
    """

    seeds: range
    hashes: dict[str, str]
    compared: list[tuple[str, str]]
    factors: Factors | None


def _load(study: str, recipe: str, folder: str | Path) -> dict[int, Record]:
    """The records of one recipe of a study, by seed."""
    seeds, known, *_ = _study(study, folder)
    if recipe not in known:
        raise FileNotFoundError(f"no recorded run of {study}/{recipe}, {_known('recipes', known)}: {_to_get(study)}")
    paths = (Path(folder, "records", f"{known[recipe]}.seed{seed}.json") for seed in seeds)
    found = [read(path) for path in paths if path.exists()]
    if not found:
        raise FileNotFoundError(f"no recorded run of {study}/{recipe} in {Path(folder, 'records')}: {_to_get(study)}")
    found.sort(key=lambda record: record.history.seed)
    for record in found:
        if not same_network(record.fingerprint, found[0].fingerprint):
            raise ValueError(
                f"seeds {found[0].history.seed} and {record.history.seed} of {study}/{recipe} are recorded with different "
                f"networks, expected one: `python -m lab study {study}` says which is that of the code"
            )
    return {record.history.seed: record for record in found}


def _known(what: str, names: Iterable[str]) -> str:
    return f"the recorded {what} are {', '.join(names) or 'none'}"


def _to_get(study: str) -> str:
    return f"clone the repository for its records, or run `python -m lab study {study}` and `python -m lab report`"


def _study(name: str, folder: str | Path) -> _Study:
    """What the summary says of a study. Raises FileNotFoundError where nothing of it is recorded."""
    path = Path(folder, "summary.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        studies = {
            study: _Study(
                range(rows["first_seed"], rows["first_seed"] + rows["seeds"]),
                {recipe: row["hash"] for recipe, row in rows["recipes"].items()},
                [(row["recipe"], row["against"]) for row in rows["contrasts"] if "recipe" in row],
                Factors(*rows["factors"]) if rows["factors"] else None,
            )
            for study, rows in content.items()
        }
    except FileNotFoundError:
        studies = {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is torn, `python -m lab report` writes a new one: {error}") from None
    if name not in studies or not studies[name].hashes:
        raise FileNotFoundError(f"no recorded run of {name}/, {_known('studies', studies)}: {_to_get(name)}")
    return studies[name]
