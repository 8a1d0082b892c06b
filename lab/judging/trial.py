"""Trials: a network trained from several seeds, each to its end or until the verdict can no longer be met."""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

import utils
from lab.evidence.places import expect_folder
from lab.evidence.records import Tested, read, record_path
from lab.runs import own
from lab.runs.fingerprint import digest
from lab.runs.recipes import Recipe
from lab.runs.study import check_jobs, cores, runs_on
from lab.runs.train import run

RUNS = Path("runs", "judge")
POLL_SECONDS = 0.5  # between two looks at how far the runs are


@dataclass(frozen=True)
class Trial:
    """One seed's run. `stopped` is the epoch after which the verdict could no longer be met, None for a whole run."""

    history: utils.History
    tested: Tested | None
    stopped: int | None


def consistent(trials: Mapping[int, Trial]) -> int | None:
    """How many seeds meet the verdict; None where there is none."""
    verdicts = [utils.verdict(trial.history).consistent for trial in trials.values()]
    return None if None in verdicts else sum(map(bool, verdicts))


# ---------------------------------------------------------------------------------------------------------------------
# Where it is kept
# ---------------------------------------------------------------------------------------------------------------------


def folder_of(recipe: Recipe) -> Path:
    """Where the trials of a recipe are kept, below the current folder; another network, recipe or dataset has another."""
    name = recipe.network.rpartition(":")[2].replace(" ", "_")
    dataset = utils.load_data(torch.device("cpu"))[0].dataset
    extent = ("" if dataset == "MNIST" else "-sample") + ("-short" if os.environ.get("SESSION7_SHORT") else "")
    return RUNS / f"{name}-{identity(recipe)}{extent}"


def identity(recipe: Recipe) -> str:
    """Ten hexadecimal digits of the recipe and its network's code: a changed class of the same name has others."""
    decides = f"{recipe.hash} {digest(recipe.fingerprint)} {own.code(own.find(recipe.network))}"
    return hashlib.sha256(decides.encode()).hexdigest()[:10]


def _write(folder: Path, trial: Trial) -> None:
    utils.write_json(folder / "trial.json", asdict(trial))


def _read(folder: Path, whole: bool) -> Trial | None:
    """The trial that ended in this folder; None if there is none, or if it stopped early and is to go on."""
    try:
        content = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        tested = Tested(**content["tested"]) if content["tested"] else None
        trial = Trial(utils.History(**content["history"]), tested, content["stopped"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):  # torn: the run's own files go on to make it again
        return None
    return None if trial.stopped and whole else trial


# ---------------------------------------------------------------------------------------------------------------------
# Running
# ---------------------------------------------------------------------------------------------------------------------


def run_trials(
    recipe: Recipe,
    seeds: Sequence[int],
    jobs: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    whole: bool = False,
    show: bool = True,
) -> tuple[dict[int, Trial], dict[int, str]]:
    """Train from each seed what is not there yet; return the trials, and why a seed has none.

    jobs:       runs at a time, with as many threads each as there are cores for them; by default one run per core. With
                one job, each run shows its progress and its table of epochs, otherwise there is a bar for each
    backend:    as in `run_study`, and so is `address`
    whole: also train the epochs that can no longer change the verdict

    Runs that were interrupted go on where they were. Raises ValueError as `check_jobs` and for a network that cannot be made,
    and OSError for a folder that cannot be written to.
    """
    check_jobs(jobs, backend, address)
    folder = folder_of(recipe)
    expect_folder(folder)
    wanted = list(dict.fromkeys(seeds))
    trials = {seed: trial for seed in wanted if (trial := _read(folder / str(seed), whole))}
    missing = [seed for seed in wanted if seed not in trials]
    jobs = jobs or min(cores(), max(1, len(missing)))
    threads = 1 if backend == "dask" else max(1, cores() // jobs)
    failures = {}
    watched = {seed: folder / str(seed) for seed in missing} if show and jobs > 1 else {}
    make = own.given(recipe.network)
    with runs_on(backend, address), _bars(watched, recipe.epochs):
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        options = make, whole, show and jobs == 1
        for seed, trial in parallel(
            joblib.delayed(_try)(recipe, s, threads, folder / str(s), *options) for s in missing
        ):
            if isinstance(trial, str):
                failures[seed] = trial
            else:
                trials[seed] = trial
    return {seed: trials[seed] for seed in wanted if seed in trials}, failures


def _try(
    recipe: Recipe, seed: int, threads: int, folder: Path, make: own.Make | None, whole: bool, show: bool
) -> tuple[int, Trial | str]:
    """A trial, or the sentence that says why there is none."""
    own.know(recipe.network, make)
    before = torch.get_num_threads()
    torch.set_num_threads(_threads_recorded(recipe, seed) or threads)
    hopeless = None if whole else is_hopeless(recipe)
    try:
        trained = run(recipe, seed, show, folder, recipe.network, hopeless)
    except (FloatingPointError, RuntimeError, ValueError, OSError) as error:
        return seed, str(error).strip().partition("\n")[0]
    finally:
        torch.set_num_threads(before)
    ended = bool(hopeless and hopeless(trained.history)) and len(trained.history) < recipe.epochs
    trial = Trial(trained.history, trained.tested, len(trained.history) if ended else None)
    _write(folder, trial)
    return seed, trial


def is_hopeless(recipe: Recipe) -> Callable[[utils.History], bool]:
    """Whether a run of this recipe can no longer meet the verdict: one of its last five epochs is below the target.

    With fewer epochs there is no verdict to miss; so a run that stops has at least five.
    """

    def missed(history: utils.History) -> bool:
        too_short = min(recipe.epochs, len(history)) < utils.LAST_EPOCHS
        if too_short or history.dataset != "MNIST" or recipe.validates:
            return False
        counted = history.test_correct[recipe.epochs - utils.LAST_EPOCHS :]
        return any(correct < utils.needed(history.test_images) for correct in counted)

    return missed


def _threads_recorded(recipe: Recipe, seed: int) -> int | None:
    """The number of threads of a recorded run, to give its very numbers; None for a run without a record."""
    path = record_path(recipe, seed)
    return int(read(path).history.environment["threads"]) if path.is_file() else None


@contextlib.contextmanager
def _bars(folders: Mapping[int, Path], epochs: int) -> Iterator[None]:
    """A bar for each run with its time left, from the histories that the runs write after each epoch."""
    bars = {
        seed: tqdm(total=epochs, desc=f"seed {seed}", unit="epoch", position=place, leave=False)
        for place, seed in enumerate(folders)
    }
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            for seed, bar in bars.items():
                with contextlib.suppress(OSError, ValueError):  # not there yet
                    history = utils.History.load(folders[seed] / "history.json")
                    bar.set_postfix_str(f"test {history.test_accuracy[-1]:.2f} %", refresh=False)
                    bar.update(len(history) - bar.n)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        for bar in bars.values():
            bar.close()
