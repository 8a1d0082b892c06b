"""A recipe with any of its fields from a YAML file, or from the command line, which has the last word."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import jsonargparse

from lab.peers import PEERS
from lab.recipes import Recipe


class Asked(NamedTuple):
    """What a command line asks for: `folder` is where the run leaves its files, None for the usual place."""

    recipe: Recipe
    seed: int
    folder: Path | None


def find_recipe(name: str) -> Recipe:
    """The recipe of this name. Raises ValueError for an unknown one, naming the nearest."""
    if name not in PEERS:
        raise ValueError(f"there is no recipe {name!r}{_nearest(name, PEERS)}: see `python -m lab list`")
    return PEERS[name].recipe


def parse(name: str, arguments: Sequence[str]) -> Asked:
    """The recipe of this name with the fields that the arguments change: ["--config", "my.yaml", "--epochs", "3"].

    Raises ValueError, in one sentence, for an unknown recipe or field, naming the nearest, and for a value or a file that
    cannot be read.
    """
    recipe = find_recipe(name)
    parser = _make_parser(name, recipe)
    try:
        parsed = parser.parse_args(list(arguments))
    except jsonargparse.ArgumentError as error:
        raise ValueError(_sentence(str(error), arguments)) from None
    changes = {one.name: getattr(parsed, one.name) for one in fields(Recipe)}
    changes = {field: value for field, value in changes.items() if value != getattr(recipe, field)}
    if "network" in changes and "switches" not in changes:
        changes["switches"] = {}  # those of another network would not fit
    return Asked(replace(recipe, **changes), parsed.seed, Path(parsed.folder) if parsed.folder else None)


def _make_parser(name: str, recipe: Recipe) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog=f"python -m lab train {name}",
        description="Train the recipe, or go on with a run that was interrupted.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with fields of the recipe")
    parser.add_argument(
        "--seed", type=int, default=0, help="what the initial weights and the order of the images follow from"
    )
    parser.add_argument("--folder", type=str, default="", help="where the run leaves its files (runs/RECIPE/SEED)")
    parser.add_class_arguments(Recipe)
    parser.set_defaults(asdict(recipe))
    return parser


def _sentence(complaint: str, arguments: Sequence[str]) -> str:
    """The parser's complaint on one line, with the nearest field where one is unknown."""
    complaint = re.sub(r"\s+", " ", complaint).replace("<class '", "").replace("'>", "").strip()
    complaint = re.sub(r'Parser key "(\w+)": Expected an? (.+?)\. Got value: ', r"\1: expected \2, got ", complaint)
    complaint = complaint.replace('Parser key "config": ', "--config: ")
    if complaint.startswith(("Problems parsing config", "Unexpected config")):
        file = arguments[arguments.index("--config") + 1] if "--config" in arguments else "the config"
        return f"{file} is not YAML with fields of a recipe, such as 'epochs: 3': {complaint}"
    # worded so by the versions that requirements.txt allows
    unknown = re.search(r"(?:Option|Key) '([\w.]+)' is not|[Uu]nrecognized arguments: -*([\w.-]+)", complaint)
    if not unknown:
        return complaint
    name = unknown[1] or unknown[2]
    known = [one.name for one in fields(Recipe)]
    return f"a recipe has no field {name!r}{_nearest(name.replace('-', '_'), known)}; the fields are {', '.join(known)}"


def _nearest(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f", the nearest is {nearest[0]!r}" if nearest else ""
