"""Run recipes over seeds, and keep one record a run."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import joblib
import torch

import models
import utils
from lab.recipes import STUDIES, Recipe

RESULTS = Path(__file__).parent / "results"


def run(recipe: Recipe, seed: int, show: bool = True) -> utils.History:
    """One run of a recipe: the same calls, in the same order, as in the notebooks."""
    device = utils.pick_device()
    train, test = utils.load_data(device)
    if recipe.held_out:
        train, test = train[:50_000], train[50_000:]
    train_loader = utils.Loader(train, recipe.batch_size, utils.make_transform(recipe.augmentation), shuffle=True)
    test_loader = utils.Loader(test, 1_000, utils.make_transform())
    utils.seed_everything(seed)
    model = getattr(models, recipe.network)(**recipe.switches).to(device)
    optimizer = utils.make_optimizer(model, recipe.learning_rate, recipe.momentum, recipe.weight_decay)
    scheduler = utils.make_scheduler(optimizer, recipe.step_size, recipe.gamma)
    return utils.fit(
        model,
        train_loader,
        test_loader,
        optimizer,
        scheduler,
        epochs=recipe.epochs,
        plain_epochs=recipe.plain_epochs,
        bfloat16=recipe.bfloat16,
        seed=seed,
        show=show,
    )


def study(name: str, seeds: Sequence[int], jobs: int = 1, arms: Sequence[str] = ()) -> None:
    """Run each recipe of a study (or only those that `arms` names) for each seed, and write `lab/results/STUDY/RECIPE.seedN.json` as each run ends.

    Runs that are recorded already are not repeated. One job uses all cores, as a notebook does, and gives a
    notebook's very numbers; more jobs share the cores, which takes less time in all, and differ in the last bits.
    Raises ValueError for an unknown study or arm, and for fewer than one job.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}, expected one of {', '.join(STUDIES)}")
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}, expected at least 1")
    for arm in arms:
        if arm not in STUDIES[name]:
            raise ValueError(f"the study {name} has no recipe {arm!r}, expected some of {', '.join(STUDIES[name])}")
    recipes = {arm: recipe for arm, recipe in STUDIES[name].items() if not arms or arm in arms}
    missing = [
        (path, recipe, seed)
        for seed in seeds
        for arm, recipe in recipes.items()
        if not _is_recorded(path := RESULTS / name / f"{arm}.seed{seed}.json", recipe)
    ]
    print(f"{name}: {len(missing)} of {len(seeds) * len(recipes)} runs are missing")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, pre_dispatch=jobs, return_as="generator_unordered")
    for done, (path, history) in enumerate(
        parallel(joblib.delayed(_record)(*job, threads) for job in missing), start=1
    ):
        print(
            f"{done} of {len(missing)}  {path.name}: last five {history.mean_last_five:.2f} %, {utils.verdict(history)}"
        )


def _is_recorded(path: Path, recipe: Recipe) -> bool:
    """Whether this very recipe is recorded whole; a torn record is set aside, one of another recipe made anew."""
    if not path.exists():
        return False
    try:
        record = json.loads(path.read_text())
        return Recipe(**record["recipe"]) == recipe and bool(utils.History(**record["history"]))
    except (ValueError, KeyError, TypeError):
        aside = path.with_suffix(".torn")
        path.rename(aside)
        print(f"{path} is no whole record: it is now {aside}, and the run is repeated")
        return False


def _record(path: Path, recipe: Recipe, seed: int, threads: int) -> tuple[Path, utils.History]:
    torch.set_num_threads(threads)
    history = run(recipe, seed, show=False)
    if history.dataset != "MNIST":
        raise RuntimeError(f"the data is {history.dataset}: a study needs MNIST, nothing was recorded")
    record = {"recipe": asdict(recipe), "history": asdict(history)}
    utils.write_json(path, record)
    return path, history
