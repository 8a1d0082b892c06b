"""Run recipes over seeds, and keep one record a run, named after the recipe's hash and the seed."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

import utils
from lab.evidence import records, statistics
from lab.evidence.places import RECORDS, expect_folder, is_evidence, refuse_evidence
from lab.evidence.records import DATASETS, Trained, record_path
from lab.runs import datasets, orphans
from lab.runs.complaints import nearest
from lab.runs.recipes import STUDIES, Recipe, Study
from lab.runs.train import run, run_folder

BACKENDS = ("loky", "dask")
CONNECT_SECONDS = 10  # to wait for a Dask scheduler


def find_study(name: str, recipes: Sequence[str] = (), studies: Mapping[str, Study] = STUDIES) -> Study:
    """The study of this name, with all of its recipes or only those named. Raises ValueError for an unknown name."""
    if name not in studies:
        raise ValueError(f"there is no study {name!r}{nearest(name, studies)}, expected one of {', '.join(studies)}")
    study = studies[name]
    for recipe in recipes:
        if recipe not in study.recipes:
            near = nearest(recipe, study.recipes)
            known = ", ".join(study.recipes)
            raise ValueError(f"the study {name} has no recipe {recipe!r}{near}, expected some of {known}")
    chosen = {key: recipe for key, recipe in study.recipes.items() if not recipes or key in recipes}
    return replace(study, recipes=chosen)


def run_study(
    name: str,
    seeds: Sequence[int] = (),
    recipes: Sequence[str] = (),
    jobs: int | None = None,
    backend: str = "loky",
    address: str | None = None,
    folder: Path = RECORDS,
    studies: Mapping[str, Study] = STUDIES,
) -> None:
    """Run what is missing of a study, and write `HASH.seedN.json` into a folder as each run ends.

    seeds:   in place of the study's own
    recipes: only these of the study
    jobs:    runs at a time; as many as there are cores, with one thread each, unless said. One job uses all cores, as
             a notebook does, and gives a notebook's very numbers; runs of fewer threads differ in the last bits.
    backend: joblib's: "loky", processes on this machine, or "dask", the workers of the Dask cluster whose scheduler
             is at `address`. A worker runs one run a thread, and needs this project and the data where it was started.
    folder:  of the records; that of the committed ones takes full runs on all of MNIST only
    studies: where the name is looked up; the lesson's, or those of `lab.systems.catalog` too

    If the study keeps its runs, as those of published systems do, each leaves its folder `runs/RECIPE/SEED/` too, and
    resumes from it; with a folder of records of your own, `runs` is below it. Runs that are recorded already
    are not repeated, whatever study they were made for. A run that fails is reported and leaves the others alone; at the
    end RuntimeError is raised for it.

    A record counts only for the network of the code as it is now. One that was made with another is set aside, and its
    run is repeated; a committed one is left where it is, and raises.

    Raises ValueError for an unknown study,
    recipe or backend, for fewer than one job, for an address without Dask or Dask without an address, and for records
    that this study would not make; OSError for a folder that cannot be written to.
    """
    study = find_study(name, recipes, studies)
    check_jobs(jobs, backend, address)
    refuse_evidence(folder, "name a folder of your own, `study NAME --records FOLDER`")
    expect_folder(folder)
    seeds = list(seeds) or list(study.all_seeds)
    # by path: a recipe that has two names in the study, or a seed that was given twice, is one run
    wanted = {
        record_path(recipe, seed, folder): (key, recipe, seed)
        for seed in seeds
        for key, recipe in study.recipes.items()
    }
    missing = _missing(wanted, folder)
    print(f"{name}: {len(missing)} of {len(wanted)} runs are missing")
    jobs = jobs or cores()
    threads = 1 if backend == "dask" else max(1, cores() // jobs)
    runs = None
    if study.keeps_runs:
        runs = Path() if is_evidence(folder) else folder
    failures = []
    with runs_on(backend, address):
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        results = parallel(joblib.delayed(try_run)(*job, threads, runs) for job in missing)
        for key, recipe, seed, trained in tqdm(results, total=len(missing), unit="run", disable=not missing):
            failure = trained if isinstance(trained, str) else _failure_to_write(folder, recipe, trained)
            if failure:
                failures.append(f"{key}, seed {seed}: {failure}")
            tqdm.write(failures[-1] if failure else f"{key}, seed {seed}: {_result(recipe, trained)}")
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(missing)} runs failed and have no record: " + "; ".join(failures))


Job = tuple[str, Recipe, int]  # the recipe's name in the study, the recipe, the seed


def _missing(wanted: Mapping[Path, Job], folder: Path) -> list[Job]:
    """The runs that are not recorded. A record that is torn, cannot be, or is of another network than that of the code is
    set aside, and its run is missing too.

    Raises ValueError, before anything is set aside, for a record of other data than there is here, and for a committed
    record of another network.
    """
    here: dict[str, str] = DATASETS  # the committed records are of whole data sets
    if not is_evidence(folder):
        used = {recipe.dataset for _, recipe, _ in wanted.values()}
        here = {dataset: datasets.load(dataset, torch.device("cpu"))[0].dataset for dataset in used}
    bad: dict[Path, tuple[str, str]] = {}  # the complaint, and the suffix that the file is set aside with
    done = set()
    networks: dict[str, list[float]] = {}
    for path, (_, recipe, _) in wanted.items():
        try:
            record = records.read(path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            bad[path] = str(error), ".torn"
            continue
        data = here[recipe.dataset]
        if record.history.dataset != data:
            raise ValueError(
                f"{path} is of a {record.history.dataset}, and the data here is {data}: name another folder"
            )
        if recipe.hash not in networks:
            networks[recipe.hash] = recipe.fingerprint
        if records.same_network(record.fingerprint, networks[recipe.hash]):
            done.add(path)
            continue
        complaint = _of_another_network(path, recipe)
        if is_evidence(folder):
            raise ValueError(f"{complaint}: restore that network, or give the new one a name and a recipe of its own")
        bad[path] = complaint, ".other"
    for path, (complaint, suffix) in bad.items():
        print(f"{complaint}: it is now {_set_aside(path, suffix).name}, and the run is repeated")
    return [job for path, job in wanted.items() if path not in done]


def _set_aside(path: Path, suffix: str) -> Path:
    """Rename a file that is no record of the code as it is now, to a name that is free."""
    names = itertools.chain([suffix], (f"{suffix}{number}" for number in itertools.count(2)))
    aside = next(path.with_suffix(name) for name in names if not path.with_suffix(name).exists())
    return path.rename(aside)


def _of_another_network(path: Path, recipe: Recipe) -> str:
    return f"{path} was recorded with another network than {recipe.network} is in this code"


def _failure_to_write(folder: Path, recipe: Recipe, trained: Trained) -> str:
    """Write the record of a run; return why that failed, "" if it did not."""
    if not records.same_network(trained.fingerprint, recipe.fingerprint):
        return f"its record was not written: it was run with another {recipe.network} than there is in this code"
    try:
        records.write(folder, recipe, trained)
    except (OSError, ValueError) as error:
        return f"its record was not written: {error}"
    return ""


def repeat(name: str, key: str, seed: int, folder: Path = RECORDS, studies: Mapping[str, Study] = STUDIES) -> str:
    """Repeat a recorded run from its seed, in full, on as many threads, and say whether it came out as recorded.

    On the machine that recorded it, it does to the last bit. Elsewhere the last five epochs together must lie within
    two standard errors of the difference of two such counts, since a run there is a draw of its own.

    Raises RuntimeError where it did not, or where the network is no longer the one recorded, FileNotFoundError for a run without a record, and ValueError for an unknown
    study or recipe, and where a committed record would be held against less than a full run on all of MNIST.
    """
    recipe = find_study(name, [key], studies).recipes[key]
    refuse_evidence(folder, "repeat one of your own, `repeat STUDY RECIPE SEED --records FOLDER`")
    path = record_path(recipe, seed, folder)
    if not path.exists():
        planned = find_study(name, [key], studies).all_seeds
        make = (
            f"make it with `python -m lab study {name}`"
            if seed in planned
            else f"the study has seeds {planned[0]} to {planned[-1]}"
        )
        raise FileNotFoundError(f"{name}/{key} has no record of seed {seed}: {make}")
    record = records.read(path)
    if not records.same_network(record.fingerprint, recipe.fingerprint):
        raise RuntimeError(_of_another_network(path, recipe))
    recorded = record.history
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
    luck = math.hypot(*(statistics.standard_error(run.mean_last_five, run.test_images) for run in (fresh, recorded)))
    if abs(fresh.mean_last_five - recorded.mean_last_five) > 2 * luck:
        raise RuntimeError(f"{path.name}: further apart than two standard errors, {figures}")
    return f"{path.name}: another machine than {recorded.environment}, and within two standard errors, {figures}"


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_jobs(jobs: int | None, backend: str, address: str | None) -> None:
    """Raise ValueError for fewer than one job, an unknown backend, and an address without Dask or Dask without one."""
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected at least 1")
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    if (backend == "dask") != (address is not None):
        raise ValueError("the backend dask and the address of its scheduler go together: give both or neither")


@contextlib.contextmanager
def runs_on(backend: str, address: str | None) -> Iterator[None]:
    """Within this, joblib runs on processes of this machine or on a Dask cluster.

    Raises RuntimeError where no scheduler answers.
    """
    if backend == "loky":
        with joblib.parallel_config(backend="loky", initializer=orphans.end_with, initargs=(os.getpid(),)):
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


def try_run(
    key: str, recipe: Recipe, seed: int, threads: int, runs: Path | None
) -> tuple[str, Recipe, int, Trained | str]:
    """A run, or the sentence that says why there is none: one run's failure must not end the others.

    The run's folder is `runs/RECIPE/SEED/` below `runs`; without `runs` it leaves no folder.
    """
    torch.set_num_threads(threads)
    try:
        trained = run(recipe, seed, show=False, folder=runs / run_folder(key, seed) if runs else None, name=key)
    except (FloatingPointError, RuntimeError, ValueError, OSError) as error:
        return key, recipe, seed, str(error)
    return key, recipe, seed, trained


def _result(recipe: Recipe, trained: Trained) -> str:
    if recipe.validation and trained.tested:
        return f"test {trained.tested.accuracy:.2f} % with the weights of epoch {trained.epoch}"
    return f"last five {trained.history.mean_last_five:.2f} %, {utils.verdict(trained.history)}"
