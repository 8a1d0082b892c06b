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
from lab.grading.submissions import Submission, printable, without_words
from lab.runs.recipes import Recipe

MOST_REPORT = 2 * 1024**2  # bytes of what a worker says
LEAST_SECONDS = 60.0  # for the predictions, however long the training took
# Building and recording takes seconds. It may take a minute, or a fifteenth of a run's time if that is more, so that a network
# that hangs costs no more.
SHARE_TO_BUILD = 1 / 15
# What a phase does, in a sentence about what stopped it
DOING = {
    "record": "while the network was built and tried out",
    "train": "while the network was trained",
    "predict": "while the network answered the test images",
}
MEMORY_MIB, DISK_MIB = 4_000, 300
INITIAL, ELSEWHERE, AGAIN = (
    "initial.npz",
    "elsewhere.npz",
    "again.npz",
)  # initial weights: of the seed, of another, of the seed
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

    `stopped` says that it reached a limit, which was `minutes`; `diverged`, that another seed may do better; `trusted`, that
    the submission's own code trained and answered, since it cannot be recorded and whoever grades allowed it.
    """

    name: str
    key: str
    seed: int
    isolation: str
    minutes: float
    failures: list[Failure] = field(default_factory=list)
    stopped: bool = False
    diverged: bool = False
    trusted: bool = False
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
    why: Words


class _Trained(_Report):
    environment: dict[Words, Words | Count]
    learning_rate: list[FiniteFloat]
    train_loss: list[FiniteFloat]
    train_correct: list[Count]
    seconds: list[FiniteFloat]
    final_train_correct: Count


class _Predicted(_Report):
    pass


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

    secret: decides another seed, from which initial weights must differ
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

    def to_the_end(self) -> None:
        """Record, train, predict, count and check. Raises Broken where the run cannot go on."""
        recorded = self._record()
        said = self._train()
        epochs = [self._weights("train", worker.weights_file(epoch)) for epoch in range(self.recipe.epochs + 1)]
        why = checks.trouble_with_weights(epochs)
        if why:
            raise Broken("rules", why)
        self.result.parameters = checks.count_parameters(epochs[0], recorded.shared, epochs[1:])
        self._take(recorded, said)
        initial, *answers = self._answer(epochs)
        self._count(np.stack(answers))
        self._check_initial(epochs[0], checks.percent_right(initial, self.labels))

    # ----- the phases -----

    def _record(self) -> _Recorded:
        """Have the submission say what its network does, where there are no data."""
        seeds = {INITIAL: self.seed, ELSEWHERE: self._draw("another seed"), AGAIN: self.seed}
        folder = self._sandboxed("record", {"seeds": seeds}, [], with_code=True)
        said = _said(folder, _Recorded)
        if not said.why:
            script, weights = self.place / worker.SCRIPT, self.place / INITIAL
            try:
                script.write_bytes(checks.read_file(folder / worker.SCRIPT, MOST_REPORT))
            except ValueError as error:
                raise Broken("run", f"its network was not recorded: {error}") from None
            worker.write_arrays(weights, self._weights("record", INITIAL))
            self.network = {"script": str(script), "initial": str(weights)}
        elif self.submission.name in self.harness.trusted:
            self.result.trusted = True
        else:
            raise Broken(
                "run",
                f"its network cannot be run without its code: {said.why}. Whoever grades can read the code, and let it run "
                f"where the data are: --trust {self.submission.name}",
            )
        return said

    def _train(self) -> _Trained:
        images, digits = self.place / "training.npz", self.harness.train
        worker.write_arrays(images, {"images": digits.images.numpy(), "labels": digits.labels.numpy()})
        job = {"seed": self.seed, "images": str(images), "dataset": digits.dataset}
        folder = self._sandboxed("train", job, [images])
        images.unlink()
        return _said(folder, _Trained)

    def _answer(self, weights: Sequence[checks.Arrays]) -> np.ndarray:
        """The answers of some sets of weights to the test images, uint8 (sets, images), from a new process."""
        images = self.place / "test.npz"
        worker.write_arrays(images, {"images": self.harness.test.images.numpy()})
        files = [self.place / worker.weights_file(number) for number in range(len(weights))]
        for file, arrays in zip(files, weights):
            worker.write_arrays(file, arrays)
        job = {"images": str(images), "weights": [str(file) for file in files]}
        folder = self._sandboxed("predict", job, [images, *files])
        _said(folder, _Predicted)
        try:
            return checks.read_answers(folder / worker.PREDICTIONS, len(weights), len(self.labels))
        except ValueError as error:
            raise Broken("rules", str(error)) from None

    def _sandboxed(self, phase: str, job: Mapping[str, object], reads: Sequence[Path], with_code: bool = False) -> Path:
        """Run a phase of the worker; return the folder that it was free to write to. Raises Broken if it was stopped."""
        folder, file = self.place / phase, self.place / f"{phase}.json"
        folder.mkdir()
        network = self.network
        if with_code or not network:
            code = self.place / f"{phase}-code"
            code.mkdir()
            for source, content in self.submission.code.items():
                (code / source).write_bytes(without_words(content))
            network = {"code": str(code)}
        file.write_text(json.dumps({**job, **network, "recipe": asdict(self.recipe)}), encoding="utf-8")
        seconds = self.seconds_left if phase != "record" else 60 * self.harness.minutes * SHARE_TO_BUILD
        limits = Limits(max(seconds, LEAST_SECONDS), MEMORY_MIB, DISK_MIB)
        arguments = ["-m", worker.__name__, phase, str(file)]
        outcome = self.harness.sandbox.run(
            arguments, folder, [*(Path(str(one)) for one in network.values()), file, *reads], limits
        )
        self.seconds_left -= outcome.seconds
        self._look_at(outcome, phase)
        return folder

    def _look_at(self, outcome: Outcome, phase: str) -> None:
        folder = self.place / phase
        output = outcome.output
        for place in (self.place / f"{phase}-code", folder):  # what these folders are called is nobody's business
            output = output.replace(f"{place}/", "")
        # a terminal that shows the result would obey what is not printable
        said = "\n".join(printable(line) for line in output.expandtabs().split("\n"))
        self.result.output = (self.result.output + said)[-MOST_OUTPUT:]
        if outcome.stopped:
            raise Broken("run", f"stopped: {outcome.stopped.removeprefix('stopped: ')} {DOING[phase]}", stopped=True)
        try:
            error = _Error.model_validate_json(checks.read_file(folder / worker.REPORT, MOST_REPORT))
        except (ValueError, RecursionError):  # it has none, or is none: `_said` reads it
            error = None
        if error:
            raise Broken("run", error.error, diverged=error.diverged)
        if outcome.code != 0:
            raise Broken("run", f"its process ended with status {outcome.code}, and without a result")

    def _weights(self, phase: str, file: str) -> dict[str, np.ndarray]:
        """The weights that a phase has left in a file."""
        try:
            return checks.read_arrays(self.place / phase / file)
        except ValueError as error:
            raise Broken("rules", f"there are no weights: {error}") from None

    # ----- what is measured -----

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

    def _check_initial(self, first: checks.Arrays, right: float) -> None:
        """See whether the weights that it trained from follow from the seed, and know nothing yet."""
        self.result.measured = {"initial": right}
        again, elsewhere = (self._weights("record", file) for file in (AGAIN, ELSEWHERE))
        why = ""
        if not checks.same(again, first):
            why = "built again from the same seed, the network has other initial weights"
        elif not checks.depends_on_seed(first, elsewhere):
            why = "its initial weights are the same for every seed: they are fixed in the code, or the code sets a seed"
        elif right > checks.MOST_UNLEARNED:
            why = f"before training it is right on {right:.1f} % of the test images: it knows them from elsewhere"
        if why:
            self.result.failures.append(Failure("rules", why))

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
            "rules", f"its process left a report that the harness does not accept: {where}{first['msg']}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise Broken("run", f"its process ended without a result: {error}") from None
