"""Every study and every recipe by name: the lesson's, and those of the published systems.

`python -m lab list` and `python -m lab study --help` must answer at once, and PyTorch alone takes seconds to import.
They read `catalog.json`, which `write_listing` makes from this module.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from lab.runs import recipes
from lab.runs.complaints import nearest
from lab.runs.recipes import Recipe, Study
from lab.systems import peers
from lab.systems.listing import CATALOG, Listed, ListedStudy


def studies() -> Mapping[str, Study]:
    """All studies by name."""
    return recipes.STUDIES | peers.STUDIES


def names() -> dict[str, Recipe]:
    """All recipes by the name that `python -m lab train` takes.

    That is the recipe's name in its study, or `STUDY/NAME` if the studies give one name to different recipes. A
    published system, or a step of the lesson beside them, keeps its plain name, and so does a recipe that another study
    runs on other images.
    """
    return {_name(study, key): recipe for study, one in studies().items() for key, recipe in one.recipes.items()}


def _name(study: str, key: str) -> str:
    recipe = studies()[study].recipes[key]
    if key in peers.PEERS:
        return key if peers.PEERS[key].recipe == recipe else f"{study}/{key}"
    found = [one.recipes[key] for one in studies().values() if key in one.recipes]
    meant = [other for other in found if other.dataset == "mnist"]
    return key if all(other == recipe for other in meant) else f"{study}/{key}"


def find_recipe(name: str) -> Recipe:
    """The recipe of this name; `STUDY/NAME` always works. Raises ValueError for an unknown one, naming the nearest."""
    known = names()
    if name in known:
        return known[name]
    qualified = {f"{study}/{key}": recipe for study, one in studies().items() for key, recipe in one.recipes.items()}
    if name in qualified:
        return qualified[name]
    ambiguous = [full for full in qualified if full.endswith(f"/{name}")]
    if ambiguous:
        raise ValueError(f"the studies have different recipes {name!r}, expected one of {', '.join(ambiguous)}")
    raise ValueError(f"there is no recipe {name!r}{nearest(name, known)}: see `python -m lab list`")


def listed() -> dict[str, ListedStudy]:
    """What `python -m lab list` shows of each study."""
    return {
        name: {
            "question": study.question,
            "seeds": study.seeds,
            "recipes": {_name(name, key): _listed(key, recipe) for key, recipe in study.recipes.items()},
        }
        for name, study in studies().items()
    }


def _listed(key: str, recipe: Recipe) -> Listed:
    entry: Listed = {
        "parameters": recipe.parameters,
        "epochs": recipe.epochs,
        "claim": None,
        "claim_runs": 0,
        "left_open": "",
    }
    peer = peers.PEERS.get(key)
    if peer and peer.recipe == recipe:
        entry["left_open"] = peer.left_open
        if peer.claim is not None:
            entry["claim"], entry["claim_runs"] = peer.claim, peer.claim_runs
    return entry


def write_listing(path: Path = CATALOG) -> None:
    """Write what `python -m lab list` shows; run `python -m lab list --update` after a change of recipes."""
    path.write_text(json.dumps(listed(), indent=1) + "\n")
