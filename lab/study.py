"""Run recipes over seeds, and keep one record a run."""

from pathlib import Path

import torch

import models
import utils
from lab.recipes import Recipe

RESULTS = Path(__file__).parent / "results"


def run(recipe: Recipe, seed: int, threads: int | None = None, show: bool = True) -> utils.History:
    """One run of a recipe: the same calls, in the same order, as in the notebooks."""
    if threads:
        torch.set_num_threads(threads)
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
    return utils.fit(model, train_loader, test_loader, optimizer, scheduler, epochs=recipe.epochs, seed=seed, show=show)
