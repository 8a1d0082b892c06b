"""A class's submissions, graded: `grades.csv`, a page for each student, and one for the class."""

import contextlib
import csv
import io
import os
import queue
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

import utils
from lab.evidence import records, tables
from lab.evidence.odds import DEFAULT_SEEDS
from lab.evidence.places import RECORDS, expect_folder, is_evidence
from lab.evidence.statistics import Runs
from lab.grading import pages, rubric, submissions
from lab.grading.harness import Failure, Harness, Result, draw
from lab.grading.marks import COLUMNS, Grade, Terms
from lab.grading.sandbox import Sandbox
from lab.grading.submissions import Submission
from lab.runs import config
from lab.runs.complaints import nearest, one_line
from lab.runs.recipes import STEP_1, STEP_2, STEP_3, Recipe
from lab.runs.study import cores

STEPS = {"step1": STEP_1, "step2": STEP_2, "step3": STEP_3}
OUT = Path("runs", "grades")
PATIENCE = 0.2  # seconds between two looks whether somebody pressed Ctrl-C
SCRATCH = "unfinished"  # begins the name of a folder for what lasts as long as a run


# ---------------------------------------------------------------------------------------------------------------------
# What everybody is measured by
# ---------------------------------------------------------------------------------------------------------------------


def find_recipe(name: str) -> Recipe:
    """The class's recipe: one of the three steps, or Step 3 with the fields of a YAML file.

    Raises ValueError for an unknown name, and for a recipe that is not graded.
    """
    if name in STEPS:
        recipe = STEPS[name]
    elif Path(name).is_file():
        recipe = config.parse("grade", STEP_3, ["--config", name]).recipe
    else:
        near = nearest(name, STEPS)
        raise ValueError(f"there is no recipe {name!r}{near}, expected one of {', '.join(STEPS)}, or a YAML file")
    submissions.check_recipe(recipe)
    return recipe


def step3_with(recipe: Recipe) -> tuple[Runs, str, bool]:
    """The recorded runs of Step 3's network trained with a recipe, else those of Step 3 itself; what to call them; and
    whether they were trained with this recipe.
    """
    like = replace(recipe, network=STEP_3.network, switches=STEP_3.switches)
    name = "Step 3" if like.hash == STEP_3.hash else "Step 3's network with this recipe"
    for one, what in ((like, name), (STEP_3, "Step 3")):
        found = [records.read(path).history for path in sorted(RECORDS.glob(f"{one.hash}.seed*.json"))]
        if found:
            runs = {run.seed: run for run in sorted(found, key=lambda run: run.seed)}
            return runs, f"{what}, {one.epochs} epochs", one is like
    return {}, "", False


def read_secret(given: str, out: Path) -> bytes:
    """The secret: the content of the file of this name, else the text; without one, that of the folder, or a new one.

    It is kept in the folder, for its owner alone. Raises OSError where it cannot be.
    """
    if given:
        with contextlib.suppress(OSError, ValueError):  # a text that is too long for a path
            if Path(given).is_file():
                return Path(given).read_bytes().strip()
        return given.encode()
    path = out / "secret"
    if not path.is_file():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_bytes().strip()


def draw_seeds(secret: bytes, count: int) -> tuple[int, ...]:
    """So many different seeds, the same for all students, and known to nobody without the secret."""
    found: dict[int, None] = {}
    for number in range(2 * count + 10):
        found.setdefault(draw(secret, f"seed {number}"))
    return tuple(found)[:count]


# ---------------------------------------------------------------------------------------------------------------------
# The class
# ---------------------------------------------------------------------------------------------------------------------


def grade(
    folder: Path,
    out: Path = OUT,
    seeds: int | None = None,
    jobs: int | None = None,
    secret: str = "",
    recipe: str = "step3",
    rubric_file: Path = rubric.DEFAULT,
    require_sandbox: bool = False,
    minutes: float = 15.0,
    trust: str = "",
    sandbox: Sandbox | None = None,
) -> list[Grade]:
    """Grade all submissions in a folder; write `grades.csv`, NAME.html for each and index.html; return the grades.

    seeds:   how many, by default those of `judge`; which ones follows from the secret, and is the same for all
    jobs:    runs at a time, each of one thread; one per core unless said
    secret:  a text, or the name of a file; without it, a random one is kept in `out`
    minutes: that one run may take; building the network may take a fifteenth of them, and always one minute
    trust:   names, separated by commas, of submissions whose own code may run where the data are, if it cannot be recorded

    A run that ended is kept in `out`/runs, and not repeated while submission, recipe and seed are the same. What one
    submission does costs no other one anything.

    Raises ValueError for bad input, FileNotFoundError for a missing folder, OSError for one that cannot be written to, and
    RuntimeError where a sandbox is required and does not work here.
    """
    seeds = DEFAULT_SEEDS if seeds is None else seeds
    for what, number in (("seeds", seeds), ("jobs", jobs), ("minutes", minutes)):
        if number is not None and not number > 0:
            raise ValueError(f"{what} is {number}, expected {'more than 0' if what == 'minutes' else '1 or more'}")
    if is_evidence(out) or out.resolve() == folder.resolve():
        raise ValueError(f"{out} is no folder for grades: name one of its own, `grade FOLDER --out GRADES`")
    trusted = frozenset(name.strip() for name in trust.split(",") if name.strip())
    sandbox = sandbox or Sandbox(require=require_sandbox)
    handed_in, skipped = submissions.read(folder)
    chosen, points_by = find_recipe(recipe), rubric.read(rubric_file)
    _expect_known(trusted, handed_in)
    expect_folder(out)
    (out / "runs").mkdir(parents=True, exist_ok=True)
    hidden = read_secret(secret, out)
    for one in skipped:
        print(f"skipped: {one.name} {one.why}")
    train, test = utils.load_data(torch.device("cpu"))
    recorded, against, alike = step3_with(chosen) if train.dataset == "MNIST" else ({}, "", False)
    terms = Terms(chosen, points_by, draw_seeds(hidden, seeds), train.dataset, recorded, against, alike)
    grades = [_begin(submission, terms) for submission in handed_in]
    for names in submissions.same_code(handed_in):
        for grade in grades:
            if grade.name in names:
                grade.same_code = tuple(name for name in names if name != grade.name)
    for left in out.glob(f"{SCRATCH}*"):  # by a command that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out.resolve(), prefix=SCRATCH, ignore_cleanup_errors=True) as scratch:
        harness = Harness(train, test, hidden, sandbox, sandbox.describe(), Path(scratch), minutes, trusted)
        _Class(harness, terms, grades, out / "runs", require_sandbox).run_all(jobs or cores())
    _write(out, grades, skipped, test)
    return grades


def _expect_known(trusted: frozenset[str], handed_in: Sequence[Submission]) -> None:
    """Raise ValueError for the name of a submission that is not there: its code would not run, and nobody would know why."""
    names = [one.name for one in handed_in]
    for name in sorted(trusted - set(names)):
        raise ValueError(f"--trust names {name!r}, which is no submission{nearest(name, names)}")


def _begin(submission: Submission, terms: Terms) -> Grade:
    """The grade of a submission before its first run, with the recipe that it asks for."""
    if submission.trouble:
        return Grade(submission, terms.recipe, terms, [])
    try:
        return Grade(submission, submissions.full_recipe(submission, terms.recipe), terms, [])
    except ValueError as error:
        return Grade(replace(submission, trouble=submissions.printable(str(error))), terms.recipe, terms, [])


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that has something in it once somebody pressed Ctrl-C.

    Python's own answer, an exception, comes wherever the program is: in the middle of a bar that is being drawn; or not before
    the next run ends, if the signal went to another thread.
    """
    pressed: list[int] = []
    usual = signal.getsignal(signal.SIGINT)
    takes_signals = threading.current_thread() is threading.main_thread() and usual is not signal.SIG_IGN
    if takes_signals:
        signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield pressed
    finally:
        if takes_signals:
            signal.signal(signal.SIGINT, usual)


class _Class:
    """Runs what is missing, some runs at a time, and puts the results into the grades."""

    def __init__(
        self, harness: Harness, terms: Terms, grades: Sequence[Grade], folder: Path, require_sandbox: bool
    ) -> None:
        self.harness, self.terms, self.grades, self.folder = harness, terms, grades, folder
        self.require_sandbox = require_sandbox
        self.locks = {grade.name: threading.Lock() for grade in grades}

    def run_all(self, jobs: int) -> None:
        """Run all submissions: first all of them from the first seed, then from the second, and so on.

        The threads are daemons: when this process ends, at whatever moment, nothing waits for a run to end.

        Raises KeyboardInterrupt when somebody presses Ctrl-C.
        """
        can_run = [grade for grade in self.grades if not grade.submission.trouble]
        wanted: queue.SimpleQueue[tuple[Grade, int]] = queue.SimpleQueue()
        done: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
        for seed in self.terms.seeds:
            for grade in can_run:
                wanted.put((grade, seed))
        runs = wanted.qsize()
        for _ in range(min(jobs, runs)):
            threading.Thread(target=self._work, args=(wanted, done), daemon=True).start()
        with _interrupts() as pressed, tqdm(total=runs, unit="run", disable=not runs) as bar:
            while bar.n < runs:
                if pressed:
                    raise KeyboardInterrupt
                with contextlib.suppress(queue.Empty):
                    self._show(bar, done.get(timeout=PATIENCE))
        for grade in self.grades:
            grade.results.sort(key=lambda result: self.terms.seeds.index(result.seed))

    @staticmethod
    def _show(bar: tqdm, said: str | Exception) -> None:
        if isinstance(said, Exception):
            raise said
        if said:
            bar.write(said)
        bar.update()

    def _work(self, wanted: "queue.SimpleQueue[tuple[Grade, int]]", done: "queue.SimpleQueue[str | Exception]") -> None:
        """Run what is wanted, one after the other, until nothing is left."""
        while True:
            try:
                done.put(self._run(*wanted.get_nowait()))
            except queue.Empty:
                return
            except Exception as error:  # noqa: BLE001 (such as a full disk: it ends the command, in the main thread)
                done.put(error)

    def _run(self, grade: Grade, seed: int) -> str:
        """One run, unless it is there already, or the submission has failed for good; what to print of it."""
        with self.locks[grade.name]:
            trusted = ".trusted" * (grade.name in self.harness.trusted)
            path = self.folder / f"{grade.submission.hash_with(grade.recipe)}{trusted}.seed{seed}.json"
            if any(result.failures and not result.diverged for result in grade.results):
                return ""
            result = self._kept(path)
            again = result is not None
            if result is None:
                result = self._run_again(grade, seed)
                result.save(path)
            result.name = grade.name
            grade.results.append(result)
        return "" if again else self._sentence(grade, result)

    def _run_again(self, grade: Grade, seed: int) -> Result:
        """One run. What the harness did not expect is that submission's failure, and nobody else's."""
        try:
            return self.harness.run(grade.submission, grade.recipe, seed)
        except Exception as error:  # noqa: BLE001
            key = grade.submission.hash_with(grade.recipe)
            result = Result(grade.name, key, seed, self.harness.isolation, self.harness.minutes)
            result.failures.append(
                Failure("run", f"it could not be graded: {type(error).__name__}: {one_line(str(error))}")
            )
            return result

    def _kept(self, path: Path) -> Result | None:
        """The result of a run that has ended before; None if there is none that counts here."""
        try:
            result = Result.load(path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            tqdm.write(f"{error}: the run is repeated")
            return None
        here = (self.harness.train.dataset, len(self.harness.train), len(self.harness.test))
        other_data = (result.dataset, result.train_images, result.test_images) != here
        has_more_time = result.stopped and result.minutes < self.harness.minutes
        unsafe = self.require_sandbox and result.isolation != self.harness.isolation
        return None if other_data or has_more_time or unsafe else result

    def _sentence(self, grade: Grade, result: Result) -> str:
        run = f"{grade.name}, run {self.terms.seeds.index(result.seed) + 1}"
        if result.failures:
            return f"{run}: {result.failures[0].why}"
        return f"{run}: last epochs {result.history().mean_last_five:.2f} %"


# ---------------------------------------------------------------------------------------------------------------------
# What is written
# ---------------------------------------------------------------------------------------------------------------------


def _text(cell: str) -> str:
    """A cell on one line, that a spreadsheet does not take for a formula."""
    cell = "".join(letter if letter.isprintable() else " " for letter in cell)
    is_number = cell[1:].replace(".", "", 1).isdigit()
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) and not is_number else cell


def as_csv(grades: Iterable[Grade]) -> str:
    """`grades.csv`: one line per student."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_text(cell) for cell in grade.cells().values()] for grade in grades)
    return file.getvalue()


def as_table(grades: Sequence[Grade]) -> str:
    """The same in short, for the terminal."""
    titles = ["name", "parameters", "consistent", "mean", "points", "what failed"]
    cells = [grade.cells() for grade in grades]
    why_not = grades[0].terms.why_not_judged if grades else ""
    rows = [[cell[title].replace(why_not or "\n", "-")[:90] for title in titles] for cell in cells]
    return tables.table(titles, rows) + (f"\n{why_not}" if why_not else "")


def _write(out: Path, grades: Sequence[Grade], skipped: Sequence[submissions.Skipped], test: utils.Digits) -> None:
    """Write grades.csv and the pages. Pages of students who are no longer in the class go."""
    with utils.whole_or_not_at_all(out / "grades.csv") as unfinished:
        unfinished.write_text(as_csv(grades), encoding="utf-8")
    for name, page in pages.pages(grades, skipped, test):
        with utils.whole_or_not_at_all(out / f"{name}.html") as unfinished:
            unfinished.write_text(page, encoding="utf-8")
