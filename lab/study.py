"""Run recipes over seeds, and keep one record a run, named after the recipe's hash and the seed."""

import contextlib
import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import joblib
import torch
import torchvision
from tqdm import tqdm

import utils
from lab import peers
from lab.recipes import STUDIES, Recipe, Study
from lab.train import Trained, run, run_folder

RECORDS = Path(__file__).parent / "results" / "records"
BACKENDS = ("loky", "dask")
CONNECT_SECONDS = 10  # to wait for a Dask scheduler


def studies() -> dict[str, Study]:
    """All studies by name: the lesson's, and those of the published systems."""
    return STUDIES | peers.STUDIES


def find_study(name: str, recipes: Sequence[str] = ()) -> Study:
    """The study of this name, with all of its recipes or only those named. Raises ValueError for an unknown name."""
    if name not in studies():
        raise ValueError(f"there is no study {name!r}, expected one of {', '.join(studies())}")
    study = studies()[name]
    for recipe in recipes:
        if recipe not in study.recipes:
            raise ValueError(f"the study {name} has no recipe {recipe!r}, expected some of {', '.join(study.recipes)}")
    chosen = {key: recipe for key, recipe in study.recipes.items() if not recipes or key in recipes}
    return replace(study, recipes=chosen)


def run_study(
    name: str,
    seeds: Sequence[int] = (),
    recipes: Sequence[str] = (),
    jobs: int | None = None,
    backend: str = "loky",
    address: str | None = None,
) -> None:
    """Run what is missing of a study, and write `lab/results/records/HASH.seedN.json` as each run ends.

    seeds:   in place of the study's own
    recipes: only these of the study
    jobs:    runs at a time; as many as there are cores, with one thread each, unless said. One job uses all cores, as
             a notebook does, and gives a notebook's very numbers; runs of fewer threads differ in the last bits.
    backend: joblib's: "loky", processes on this machine, or "dask", the workers of the Dask cluster whose scheduler
             is at `address`. A worker runs one run a thread, and needs this project and the data where it was started.

    A run of a published system (the studies rungs and peers) leaves its folder `runs/RECIPE/SEED/` too, and goes on from
    there if it was interrupted. Runs that are recorded already are not repeated, whatever study they were made for. A run that fails is reported
    and leaves the others alone; at the end RuntimeError is raised for it. Raises ValueError for an unknown study,
    recipe or backend, for fewer than one job, and for an address without Dask or Dask without an address.
    """
    study = find_study(name, recipes)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected at least 1")
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if (backend == "dask") != (address is not None):
        raise ValueError("the backend dask and the address of its scheduler go together: give both or neither")
    seeds = list(seeds) or list(range(study.seeds))
    # by path: a recipe that has two names in the study, or a seed that was given twice, is one run
    wanted = {record_path(recipe, seed): (key, recipe, seed) for seed in seeds for key, recipe in study.recipes.items()}
    missing = [job for path, job in wanted.items() if not _is_recorded(path, job[1])]
    print(f"{name}: {len(missing)} of {len(wanted)} runs are missing")
    jobs = jobs or cores()
    threads = 1 if backend == "dask" else max(1, cores() // jobs)
    failures = []
    with _runs_on(backend, address):
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        results = parallel(joblib.delayed(try_run)(*job, threads, name in peers.STUDIES) for job in missing)
        for key, recipe, seed, trained in tqdm(results, total=len(missing), unit="run", disable=not missing):
            if isinstance(trained, str):
                failures.append(f"{key}, seed {seed}: {trained}")
                tqdm.write(failures[-1])
                continue
            utils.write_json(record_path(recipe, seed), make_record(recipe, trained))
            tqdm.write(f"{key}, seed {seed}: {_result(recipe, trained)}")
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(missing)} runs failed and have no record: " + "; ".join(failures))


def repeat(name: str, key: str, seed: int) -> str:
    """Repeat a recorded run from its seed, in full, on as many threads, and say whether it came out as recorded.

    On the machine that recorded it, it does to the last bit. Elsewhere the last five epochs together must lie within
    two standard errors of the difference of two such counts, since a run there is a draw of its own.

    Raises RuntimeError where it did not, FileNotFoundError for a run without a record, and ValueError for an unknown
    study or recipe.
    """
    recipe = find_study(name, [key]).recipes[key]
    path = record_path(recipe, seed)
    if not path.exists():
        raise FileNotFoundError(f"{name}/{key} has no record of seed {seed}: make it with `python -m lab study {name}`")
    recorded = utils.read_record(path)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(int(recorded.environment["threads"]))
        fresh = run(recipe, seed, show=False).history
    finally:
        torch.set_num_threads(threads)
    figures = f"{fresh.mean_last_five:.2f} % here, {recorded.mean_last_five:.2f} % recorded"
    if fresh.environment == recorded.environment:
        measured = ("train_loss", "train_correct", "test_loss", "test_correct", "final_train_correct")
        if any(getattr(fresh, column) != getattr(recorded, column) for column in measured):
            raise RuntimeError(f"{path.name}: the same machine gave other numbers, {figures}")
        return f"{path.name}: the same to the last bit, {figures}"
    luck = math.hypot(*(utils.standard_error(run.mean_last_five, run.test_images) for run in (fresh, recorded)))
    if abs(fresh.mean_last_five - recorded.mean_last_five) > 2 * luck:
        raise RuntimeError(f"{path.name}: further apart than two standard errors, {figures}")
    return f"{path.name}: another machine than {recorded.environment}, and within two standard errors, {figures}"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _runs_on(backend: str, address: str | None) -> Iterator[None]:
    if backend == "loky":
        yield
        return
    from dask.distributed import Client  # there are machines that never see a cluster

    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"there is no Dask scheduler at {address}, expected one such as tcp://HOST:8786 ({error})"
        ) from None
    with client, joblib.parallel_config(backend="dask", client=client):
        yield


def try_run(key: str, recipe: Recipe, seed: int, threads: int, folders: bool) -> tuple[str, Recipe, int, Trained | str]:
    """A run, or the sentence that says why there is none: one run's failure must not end the others."""
    torch.set_num_threads(threads)
    try:
        trained = run(recipe, seed, show=False, folder=run_folder(key, seed) if folders else None, name=key)
    except (FloatingPointError, RuntimeError, ValueError) as error:
        return key, recipe, seed, str(error)
    dataset = trained.history.dataset
    if dataset != "MNIST":
        return key, recipe, seed, f"the data is {dataset}: a study needs MNIST, nothing was recorded"
    return key, recipe, seed, trained


def _result(recipe: Recipe, trained: Trained) -> str:
    if recipe.validation:
        return f"test {trained.tested.accuracy:.2f} % with the weights of epoch {trained.epoch}"
    return f"last five {trained.history.mean_last_five:.2f} %, {utils.verdict(trained.history)}"


# ---------------------------------------------------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------------------------------------------------


def record_path(recipe: Recipe, seed: int) -> Path:
    return RECORDS / f"{recipe.hash}.seed{seed}.json"


def make_record(recipe: Recipe, trained: Trained) -> dict[str, object]:
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


def _is_recorded(path: Path, recipe: Recipe) -> bool:
    """Whether this run is recorded whole; a torn record is set aside."""
    if not path.exists():
        return False
    try:
        epochs = len(utils.read_record(path))
        return epochs == recipe.epochs or recipe.patience > 0
    except ValueError as error:
        aside = path.with_suffix(".torn")
        path.rename(aside)
        print(f"{error}: it is now {aside.name}, and the run is repeated")
        return False
