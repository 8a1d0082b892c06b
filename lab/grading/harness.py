"""One run of a submission from one seed: trained and tested in sandboxes, counted and checked here.

This process never imports submitted code. It has the labels of the test images; the sandboxed ones have not.
"""

import hashlib
import hmac
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

import utils
from lab.grading import checks, worker
from lab.grading.sandbox import Limits, Outcome, Sandbox
from lab.grading.submissions import Submission, printable, rates
from lab.runs.recipes import Recipe

MOST_REPORT = 2 * 1024**2  # bytes of what a worker says
LEAST_SECONDS = 60.0  # for the predictions, however long the training took
MEMORY_MIB, DISK_MIB = 4_000, 300
SHUFFLES = 4  # of the trained weights, to see what the network knows without them
MOST_OUTPUT = 2_000  # characters of what submitted code printed that are kept, the last ones

Kind = Literal["rules", "run"]  # the rules were broken, which costs all points; or the run did not come to its end


class Failure(NamedTuple):
    """What failed, in one sentence for the student."""

    kind: Kind
    why: str


class Broken(Exception):
    """A run that cannot go on."""

    def __init__(self, kind: Kind, why: str, diverged: bool = False, stopped: bool = False) -> None:
        super().__init__(why)
        self.failure, self.diverged, self.stopped = Failure(kind, printable(why)), diverged, stopped


@dataclass
class Result:
    """What one seed gave. What the harness counted: `parameters`, `test_correct` (one count per epoch), `mistakes`
    ([index, label, answer] after the last epoch) and `measured` (percents, by what was measured). The other columns are
    what the training process said.

    `stopped` says that it reached a limit, which was `minutes`; `diverged`, that another seed may do better.
    """

    name: str
    key: str
    seed: int
    isolation: str
    minutes: float
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False
    diverged: bool = False
    dataset: str = ""
    train_images: int = 0
    test_images: int = 0
    parameters: int = 0
    test_correct: list[int] = field(default_factory=list)
    mistakes: list[list[int]] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    learning_rate: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_correct: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    final_train_correct: int = 0
    environment: dict[str, str | int] = field(default_factory=dict)
    look: dict[str, object] = field(default_factory=dict)
    output: str = ""

    @property
    def ended(self) -> bool:
        """Whether the network was trained and tested to the end."""
        return bool(self.test_correct)

    def history(self) -> utils.History:
        """The run as a history, whose counts are the harness's; the test loss is not known here."""
        return utils.History(
            dataset=self.dataset,
            train_images=self.train_images,
            test_images=self.test_images,
            parameters=self.parameters,
            seed=self.seed,
            environment=self.environment,
            learning_rate=self.learning_rate,
            train_loss=self.train_loss,
            train_correct=self.train_correct,
            test_loss=[math.nan] * len(self.test_correct),
            test_correct=self.test_correct,
            seconds=self.seconds,
            final_train_correct=self.final_train_correct,
        )

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        utils.write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read it. Raises ValueError for a file that is torn or of another kind."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            failures = [Failure(*failure) for failure in content.pop("failures")]
            return cls(failures=failures, **content)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is not a result of a run: {error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# What a worker says
# ---------------------------------------------------------------------------------------------------------------------

Words = Annotated[str, Field(max_length=1_000)]
Count = Annotated[int, Field(ge=0, le=10**12)]  # longer numbers take Python minutes to print


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Error(_Report):
    error: Words
    diverged: bool


class _Recorded(_Report):
    look: dict[str, object]
    shared: dict[Words, Words]
    changed: Annotated[list[Words], Field(max_length=5_000)]
    why: Words


class _Trained(_Report):
    steps: Count
    moved: Count
    hooks: Count
    changed: Annotated[list[Words], Field(max_length=5_000)]
    images_intact: bool
    environment: dict[Words, Words | Count]
    learning_rate: list[FiniteFloat]
    train_loss: list[FiniteFloat]
    train_correct: list[Count]
    seconds: list[FiniteFloat]
    final_train_correct: Count


class _Predicted(_Report):
    changed: Annotated[list[Words], Field(max_length=5_000)]
    moved: Count


Report = TypeVar("Report", bound=_Report)


# ---------------------------------------------------------------------------------------------------------------------
# The harness
# ---------------------------------------------------------------------------------------------------------------------


def draw(secret: bytes, what: str) -> int:
    """A number below a billion that follows from the secret and from what it is for, and tells nothing of either."""
    digest = hmac.new(secret, what.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") % 10**9


@dataclass(frozen=True)
class Harness:
    """Runs submissions on its own data, with its own recipe, loop, seeds and counting.

    secret: decides the order of the test images and how the moved ones are moved
    isolation: what the sandbox is made of on this machine
    scratch: a folder for what lasts as long as a run
    trusted: the names of submissions whose own code may train and answer, where it cannot be recorded
    """

    train: utils.Digits
    test: utils.Digits
    secret: bytes
    sandbox: Sandbox
    isolation: str
    scratch: Path
    minutes: float
    trusted: frozenset[str] = frozenset()

    def run(self, submission: Submission, recipe: Recipe, seed: int) -> Result:
        """Train and test a submission from a seed. What fails is in the result; nothing is raised for it."""
        result = Result(submission.name, submission.hash_with(recipe), seed, self.isolation, self.minutes)
        result.dataset, result.train_images, result.test_images = self.train.dataset, len(self.train), len(self.test)
        place = Path(tempfile.mkdtemp(dir=self.scratch, prefix="run"))
        try:
            _Run(self, submission, recipe, seed, place, result).to_the_end()
        except Broken as broken:
            result.failures.append(broken.failure)
            result.stopped, result.diverged = broken.stopped, broken.diverged
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return result


class _Run:
    """The steps of one run, each in its own sandbox and its own folders."""

    def __init__(
        self, harness: Harness, submission: Submission, recipe: Recipe, seed: int, place: Path, result: Result
    ) -> None:
        self.harness, self.submission, self.recipe, self.seed = harness, submission, recipe, seed
        self.place, self.result = place, result
        self.seconds_left = 60 * harness.minutes
        self.labels = harness.test.labels.numpy()
        self.network: dict[str, object] = {}  # what a job says of the network: files, unless its own code is to run
        self.other = self._draw("another seed")

    def to_the_end(self) -> None:
        """Train, predict, count and check. Raises Broken where the run cannot go on."""
        recorded = self._record()
        initial, elsewhere = (self._initial(seed) for seed in (self.seed, self.other))
        said = self._train()
        epochs = [self._weights(epoch) for epoch in range(self.recipe.epochs + 1)]
        why = checks.trouble_with_weights(epochs)
        if why:
            raise Broken("rules", why)
        self._check_training(said)
        self.result.parameters = checks.count_parameters(epochs[0], recorded.shared, epochs[1:])
        self._take(recorded, said)
        generator = np.random.default_rng(self._draw("shuffled"))
        unlearned = [epochs[0], *(checks.shuffled(epochs[-1], generator) for _ in range(SHUFFLES))]
        answers = self._answer("test", self.harness.test.images.numpy(), [*epochs[1:], *unlearned])
        learned, guessed = answers[: self.recipe.epochs], answers[self.recipe.epochs :]
        self._count(learned)
        why = self._trouble_with_initial(epochs[0], initial, elsewhere)
        why = why or self._trouble_with_answers(epochs, learned[-utils.LAST_EPOCHS :], guessed)
        if why:
            self.result.failures.append(Failure("rules", why))

    # ----- the phases -----

    def _record(self) -> _Recorded:
        """Have the submission say what its network does, where there are no data."""
        folder = self._sandboxed("record", {"seeds": [self.seed, self.other]}, [], with_code=True)
        said = _said(folder, _Recorded)
        self._expect_unchanged(said.changed)
        if not said.why:
            script, weights = self.place / worker.SCRIPT, self.place / worker.initial_file(self.seed)
            try:
                script.write_bytes(checks.read_file(folder / worker.SCRIPT, MOST_REPORT))
            except ValueError as error:
                raise Broken("run", f"its network was not recorded: {error}") from None
            worker.write_arrays(weights, self._initial(self.seed))
            self.network = {"script": str(script), "initial": str(weights)}
        elif self.submission.name not in self.harness.trusted:
            raise Broken(
                "run",
                f"its network cannot be run without its code: {said.why}. The instructor can read the code, and let it run "
                f"with the data: --trust {self.submission.name}",
            )
        return said

    def _initial(self, seed: int) -> dict[str, np.ndarray]:
        try:
            return checks.read_arrays(self.place / "record" / worker.initial_file(seed))
        except ValueError as error:
            raise Broken("run", f"it left no initial weights: {error}") from None

    def _train(self) -> _Trained:
        images = self.place / "training.npz"
        digits = self.harness.train
        worker.write_arrays(images, {"images": digits.images.numpy(), "labels": digits.labels.numpy()})
        before = hashlib.sha256(images.read_bytes()).digest()
        folder = self._sandboxed(
            "train", {"seed": self.seed, "images": str(images), "dataset": digits.dataset}, [images]
        )
        if hashlib.sha256(images.read_bytes()).digest() != before:
            raise Broken("rules", "it wrote to the training images")
        images.unlink()
        said = _said(folder, _Trained)
        self._expect_unchanged(said.changed)
        return said

    def _answer(self, name: str, images: np.ndarray, weights: Sequence[checks.Arrays]) -> np.ndarray:
        """The answers of some sets of weights to images, uint8 (sets, images), from a new process that sees the images in
        an order of its own.
        """
        order = np.random.default_rng(self._draw(f"order of {name}")).permutation(len(images))
        file = self.place / f"{name}.npz"
        worker.write_arrays(file, {"images": images[order]})
        files = []
        for number, arrays in enumerate(weights):
            files.append(self.place / f"{name}{number:02}.npz")
            worker.write_arrays(files[-1], arrays)
        job = {"images": str(file), "weights": [str(one) for one in files]}
        folder = self._sandboxed(name, job, [file, *files], phase="predict")
        said = _said(folder, _Predicted)
        self._expect_unchanged(said.changed)
        if said.moved:
            raise Broken("rules", "the network changes its weights while it predicts")
        try:
            shown = checks.read_answers(folder / worker.PREDICTIONS, len(weights), len(images))
        except ValueError as error:
            raise Broken("rules", str(error)) from None
        answers = np.empty_like(shown)
        answers[:, order] = shown
        return answers

    def _sandboxed(
        self, name: str, job: Mapping[str, object], reads: Sequence[Path], phase: str = "", with_code: bool = False
    ) -> Path:
        """Run a phase of the worker; return the folder that it was free to write to. Raises Broken if it was stopped."""
        folder, file = self.place / name, self.place / f"{name}.json"
        folder.mkdir()
        network = self.network
        if with_code or not network:
            code = self.place / f"{name}-code"
            code.mkdir()
            for source, content in self.submission.code.items():
                (code / source).write_bytes(content)
            network = {"code": str(code)}
        file.write_text(json.dumps({**job, **network, "recipe": asdict(self.recipe)}), encoding="utf-8")
        limits = Limits(max(self.seconds_left, LEAST_SECONDS), MEMORY_MIB, DISK_MIB)
        arguments = ["-m", worker.__name__, phase or name, str(file)]
        outcome = self.harness.sandbox.run(
            arguments, folder, [*(Path(str(one)) for one in network.values()), file, *reads], limits
        )
        self.seconds_left -= outcome.seconds
        self._look_at(outcome, folder)
        return folder

    def _look_at(self, outcome: Outcome, folder: Path) -> None:
        self.result.output = (self.result.output + outcome.output)[-MOST_OUTPUT:]
        if outcome.stopped:
            raise Broken("run", outcome.stopped, stopped=True)
        try:
            error = _Error.model_validate_json(checks.read_file(folder / worker.REPORT, MOST_REPORT))
        except (ValueError, RecursionError):  # it has none, or is none: `_said` reads it
            error = None
        if error:
            raise Broken("run", error.error, diverged=error.diverged)
        if outcome.code != 0:
            raise Broken("run", f"its process ended with status {outcome.code}, and without a result")

    def _weights(self, epoch: int) -> dict[str, np.ndarray]:
        try:
            return checks.read_arrays(self.place / "train" / worker.weights_file(epoch))
        except ValueError as error:
            raise Broken("rules", f"no weights after epoch {epoch}: {error}") from None

    # ----- what is held against them -----

    def _check_training(self, said: _Trained) -> None:
        steps = self.recipe.epochs * math.ceil(len(self.harness.train) / self.recipe.batch_size)
        if said.steps != steps:
            raise Broken("rules", f"it trained for {said.steps:,} steps, expected the recipe's {steps:,}")
        if said.moved:
            raise Broken("rules", f"its weights changed outside of the training steps, {said.moved:,} times")
        if said.hooks:
            raise Broken("rules", "it hooks into the training steps, or into the gradients of its parameters")
        if not said.images_intact:
            raise Broken("rules", "it changed the training images or the recipe in memory")
        if not np.allclose(said.learning_rate, rates(self.recipe), rtol=1e-6) or not (
            len(said.train_loss) == len(said.train_correct) == len(said.seconds) == self.recipe.epochs
        ):
            raise Broken("rules", "its learning rates are not those of the recipe")

    def _take(self, recorded: _Recorded, said: _Trained) -> None:
        result = self.result
        result.look, result.environment = recorded.look, said.environment
        result.learning_rate, result.train_loss = said.learning_rate, said.train_loss
        result.train_correct, result.seconds = said.train_correct, said.seconds
        result.final_train_correct = said.final_train_correct

    def _count(self, answers: np.ndarray) -> None:
        self.result.test_correct = [int(count) for count in (answers == self.labels).sum(axis=1)]
        wrong = np.flatnonzero(answers[-1] != self.labels)
        self.result.mistakes = [[int(i), int(self.labels[i]), int(answers[-1, i])] for i in wrong]

    def _trouble_with_initial(self, first: checks.Arrays, initial: checks.Arrays, elsewhere: checks.Arrays) -> str:
        """What is wrong with initial weights: those that it trained from, and those of the seed and of another one."""
        if not checks.same(initial, first):
            return "built again from the same seed, the network has other initial weights"
        if not checks.depends_on_seed(initial, elsewhere):
            return (
                "its initial weights are the same for every seed: they are fixed in the code, or the code sets a seed"
            )
        return ""

    def _trouble_with_answers(self, epochs: Sequence[checks.Arrays], learned: np.ndarray, guessed: np.ndarray) -> str:
        """What is wrong with the answers of the last epochs, and with those of weights that have not learned.

        Where its own code answers, it may know the images: then it is held against those to moved images, which a process of
        its own sees: beside the test images it could look them up among these.
        """
        rights = [checks.percent_right(one, self.labels) for one in guessed]
        self.result.measured = {"initial": rights[0], "shuffled": max(rights[1:])}
        why = checks.trouble_without_learning(guessed, self.labels)
        if self.network:
            return why
        moved = checks.moved(self.harness.test.images.numpy(), np.random.default_rng(self._draw("moved")))
        compared = checks.compare(learned, self._answer("moved", moved, epochs[-len(learned) :]), self.labels)
        self.result.measured |= compared._asdict()
        return why or checks.trouble_with_answers(compared, len(self.labels))

    def _expect_unchanged(self, changed: Sequence[str]) -> None:
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise Broken("rules", f"it changes functions of others: {', '.join(changed[:3])}{more}")

    def _draw(self, what: str) -> int:
        return draw(self.harness.secret, f"{what} for {self.result.key} and {self.seed}")


def _said(folder: Path, kind: type[Report]) -> Report:
    """What a worker said. Raises Broken for anything else."""
    try:
        return kind.model_validate_json(checks.read_file(folder / worker.REPORT, MOST_REPORT))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise Broken(
            "rules", f"its process left a report that is none of the harness's: {where}{first['msg']}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Broken("run", f"its process ended without a result: {error}") from None
