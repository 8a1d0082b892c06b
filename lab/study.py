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
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from tqdm import tqdm

import utils
from lab.recipes import STUDIES, Recipe, Study

RECORDS = Path(__file__).parent / "results" / "records"
BACKENDS = ("loky", "dask")
CONNECT_SECONDS = 10  # to wait for a Dask scheduler


def run(recipe: Recipe, seed: int, show: bool = True) -> utils.History:
    """One run of a recipe: the same calls, in the same order, as in the notebooks."""
    device = utils.pick_device()
    train, test = utils.load_data(device)
    if recipe.held_out:
        train, test = train[:50_000], train[50_000:]
    train_loader = utils.Loader(train, recipe.batch_size, utils.make_transform(recipe.augmentation), shuffle=True)
    test_loader = utils.Loader(test, 1_000, utils.make_transform())
    utils.seed_everything(seed)
    model = recipe.make_network().to(device)
    optimizer = utils.make_optimizer(model, recipe.learning_rate, recipe.momentum, recipe.weight_decay)
    return utils.fit(
        model,
        train_loader,
        test_loader,
        optimizer,
        _make_scheduler(recipe, optimizer),
        epochs=recipe.epochs,
        plain_epochs=recipe.plain_epochs,
        bfloat16=recipe.bfloat16,
        seed=seed,
        show=show,
    )


def _make_scheduler(recipe: Recipe, optimizer: Optimizer) -> LRScheduler:
    """The recipe's schedule; all of them set the rate once an epoch, as `fit` does."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=recipe.epochs)
    if recipe.schedule == "one-cycle":
        # its defaults: from a 25th of the highest rate up to it in the first 30 %, then down; momentum the other way
        return OneCycleLR(optimizer, recipe.learning_rate, total_steps=recipe.epochs)
    return utils.make_scheduler(optimizer, recipe.step_size, recipe.gamma)


def find_study(name: str, recipes: Sequence[str] = ()) -> Study:
    """The study of this name, with all of its recipes or only those named. Raises ValueError for an unknown name."""
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}, expected one of {', '.join(STUDIES)}")
    study = STUDIES[name]
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

    Runs that are recorded already are not repeated, whatever study they were made for. A run that fails is reported
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
        results = parallel(joblib.delayed(_try_run)(*job, threads) for job in missing)
        for key, recipe, seed, history in tqdm(results, total=len(missing), unit="run", disable=not missing):
            if isinstance(history, str):
                failures.append(f"{key}, seed {seed}: {history}")
                tqdm.write(failures[-1])
                continue
            utils.write_json(record_path(recipe, seed), make_record(recipe, history))
            tqdm.write(f"{key}, seed {seed}: last five {history.mean_last_five:.2f} %, {utils.verdict(history)}")
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
        fresh = run(recipe, seed, show=False)
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


def _try_run(key: str, recipe: Recipe, seed: int, threads: int) -> tuple[str, Recipe, int, utils.History | str]:
    """The history of a run, or the sentence that says why there is none: one run's failure must not end the others."""
    torch.set_num_threads(threads)
    try:
        history = run(recipe, seed, show=False)
    except (FloatingPointError, RuntimeError, ValueError) as error:
        return key, recipe, seed, str(error)
    if history.dataset != "MNIST":
        return key, recipe, seed, f"the data is {history.dataset}: a study needs MNIST, nothing was recorded"
    return key, recipe, seed, history


# ---------------------------------------------------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------------------------------------------------


def record_path(recipe: Recipe, seed: int) -> Path:
    return RECORDS / f"{recipe.hash}.seed{seed}.json"


def make_record(recipe: Recipe, history: utils.History) -> dict[str, object]:
    """What is kept of a run: its recipe, the versions of the software, and all that was measured.

    The columns that were measured on held-out images are called so; a record never has columns of both kinds, since
    a held-out run does not look at the test images.
    """
    measured = {
        (name.replace("test", "held_out", 1) if recipe.held_out and name.startswith("test") else name): value
        for name, value in asdict(history).items()
    }
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
    return {"hash": recipe.hash, "recipe": asdict(recipe), "versions": versions, "history": measured}


def _is_recorded(path: Path, recipe: Recipe) -> bool:
    """Whether this run is recorded whole; a torn record is set aside."""
    if not path.exists():
        return False
    try:
        return len(utils.read_record(path)) == recipe.epochs
    except ValueError as error:
        aside = path.with_suffix(".torn")
        path.rename(aside)
        print(f"{error}: it is now {aside.name}, and the run is repeated")
        return False
