"""A network judged: at once by looking at it, and by training it from several seeds."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.evidence.odds import DEFAULT_SEEDS
from lab.judging import look as looking
from lab.judging.card import Card
from lab.judging.look import Look
from lab.judging.trial import folder_of, run_trials
from lab.runs import config, own
from lab.runs.recipes import Recipe
from lab.systems import catalog

DEFAULT = range(DEFAULT_SEEDS)


def judge(
    network: object,
    seeds: Iterable[int] = DEFAULT,
    like: str = "step3",
    *,
    jobs: int | None = 1,
    backend: str = "loky",
    address: str | None = None,
    whole: bool = False,
    show: bool = True,
    **fields: object,
) -> Card:
    """Train a network from several seeds, compare it with the recorded Step 3, and return its card.

    network: a class, a function that returns a network, a network, or a name such as "mynet.py:MyNet"
    like:    the recipe that trains it: a name in `python -m lab list`, or a YAML file with fields of a recipe
    fields:  of the recipe, in place of those: epochs=8, augmentation={}, switches={"dropout": 0.1}
    jobs:    runs at a time, None for one per core. Only what is run with as many threads has the same last bits
    show:    print progress and the card, and show the card's picture in a notebook

    The runs are kept in runs/judge/, go on where they stopped, and end once the verdict can no longer be met, unless
    `whole`. Raises ValueError, with one sentence, for a network that cannot be trained or an unknown field, and
    RuntimeError if every run failed.
    """
    name = network if isinstance(network, str) else own.give(network)
    recipe = recipe_for(name, like, fields=fields)
    return train(recipe, look_at(recipe), like, list(seeds), jobs, backend, address, whole, show)


def look(network: object) -> Look:
    """What a network is and what is wrong with it, without training it. `network` is as in `judge`."""
    found = own.find(network if isinstance(network, str) else own.give(network))
    return looking.look(found.make, found.name)


def recipe_for(
    name: str, like: str = "step3", file: Path | None = None, fields: Mapping[str, object] | None = None
) -> Recipe:
    """The recipe that trains a network like another one, changed by a YAML file and then by `fields`.

    Switches are those of `like` if its network is this one, otherwise the network's defaults. Raises ValueError, with
    one sentence, for an unknown network, recipe or field.
    """
    is_yaml = like.endswith((".yaml", ".yml"))
    base = catalog.find_recipe("step3" if is_yaml else like)
    for one in [Path(like)] * is_yaml + [file] * bool(file):
        if one and "seed" in config.read_fields(one):
            raise ValueError(f"{one} names a seed, expected the other fields of a recipe: the seeds are given apart")
        base = config.parse(name, base, ["--config", str(one)]).recipe
    changes = {**(fields or {}), "network": own.find(name).name}
    if not isinstance(changes.get("switches", {}), dict):
        raise ValueError(f"switches are {changes['switches']!r}, expected such as {{'dropout': 0.1}}")  # noqa: TRY004
    return config.change(base, changes)


def look_at(recipe: Recipe) -> Look:
    """What the recipe's network is. Raises ValueError, with one sentence, for one that cannot be trained."""
    seen = looking.look(recipe.make_network, recipe.network)
    if seen.errors:
        raise ValueError(f"{recipe.network} cannot be trained: {seen.errors[0]}")
    return seen


def train(
    recipe: Recipe,
    seen: Look,
    like: str,
    seeds: Sequence[int],
    jobs: int | None,
    backend: str,
    address: str | None,
    whole: bool,
    show: bool = True,
) -> Card:
    """Run the trials, write the card beside them, and show it."""
    if not seeds:
        raise ValueError("no seeds are given, expected at least one")
    trials, failures = run_trials(recipe, seeds, jobs, backend, address, whole, show)
    if not trials:
        raise RuntimeError("every run failed: " + "; ".join(f"seed {seed}: {why}" for seed, why in failures.items()))
    card = Card(seen, recipe, like, trials, failures)
    folder = folder_of(recipe)
    card.write(folder)
    if show:
        print(f"\n{card}\n\ncard.txt, card.json, card.png and a folder for each seed are in {folder}")
        _show(card)
    return card


def _show(card: Card) -> None:
    """Show the card's picture where the code runs in a notebook."""
    ipython = sys.modules.get("IPython")
    if ipython and hasattr(ipython.get_ipython(), "kernel"):
        from IPython.display import display  # noqa: PLC0415 (there in every notebook; nobody else needs it)

        display(card.figure())
