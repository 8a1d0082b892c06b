"""A recipe with any of its fields from a YAML file, or from the command line, which has the last word."""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import NamedTuple

import jsonargparse
import yaml

from lab.runs.recipes import Recipe
from lab.systems.peers import PEERS


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
    for file in _config_files(arguments):
        _check_names(read_yaml(file))
    parser = _make_parser(name, recipe)
    try:
        parsed = parser.parse_args(list(arguments))
    except jsonargparse.ArgumentError as error:
        raise ValueError(_sentence(str(error))) from None
    except RecursionError:
        raise ValueError("the fields are nested too deep, expected numbers, words and lists of them") from None
    changes = {one.name: getattr(parsed, one.name) for one in fields(Recipe)}
    changes = {field: value for field, value in changes.items() if value != getattr(recipe, field)}
    if "network" in changes and "switches" not in changes:
        changes["switches"] = {}  # those of another network would not fit
    return Asked(replace(recipe, **changes), parsed.seed, Path(parsed.folder) if parsed.folder else None)


MOST_BYTES = 100_000  # of a YAML file; a recipe has about 500
MOST_DEPTH = 20  # of its values; a recipe's have 4


def read_yaml(path: str | Path) -> dict[str, object]:
    """The fields in a YAML file. Raises ValueError, in one sentence, for a file that is missing or has no fields.

    Few bytes of YAML can be a billion values, or take minutes to read: see `_refuse_bombs`.
    """
    expected = "expected fields of a recipe, such as 'epochs: 3'"
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}, expected YAML with fields of a recipe")
    if Path(path).stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES:,} bytes, {expected}")
    try:
        text = Path(path).read_text(encoding="utf-8")
        _refuse_bombs(text)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not YAML that is read here, {expected}: {_one_line(str(error))}") from None
    if isinstance(content, dict):
        return content
    found = "is empty" if content is None else f"has a {type(content).__name__}"
    raise ValueError(f"{path} {found}, {expected}")


def _refuse_bombs(text: str) -> None:
    """Raise ValueError for aliases, nine lines of which stand for a billion values, and for what is nested too deep:
    the parser's time grows with the square of the depth. It reads no further than to the first of them.
    """
    depth = 0
    for token in yaml.scan(text):
        kind = type(token).__name__
        depth += kind.endswith("StartToken") - kind.endswith("EndToken")
        if isinstance(token, yaml.AliasToken):
            raise ValueError(f"it has the alias *{token.value}, expected every value written out")  # noqa: TRY004
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")


def _config_files(arguments: Sequence[str]) -> list[str]:
    """What stands behind each --config."""
    behind = [value for option, value in itertools.pairwise(arguments) if option == "--config"]
    return behind + [argument.split("=", 1)[1] for argument in arguments if argument.startswith("--config=")]


def _check_names(content: dict[str, object]) -> None:
    for name in content:
        if name not in [*FIELDS, "seed", "folder"]:
            raise ValueError(_no_field(str(name)))


FIELDS = [one.name for one in fields(Recipe)]


def _no_field(name: str) -> str:
    return (
        f"a recipe has no field {name!r}{_nearest(name.replace('-', '_'), FIELDS)}; the fields are {', '.join(FIELDS)}"
    )


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


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


def _sentence(complaint: str) -> str:
    """The parser's complaint on one line, with the nearest field where one is unknown."""
    complaint = _one_line(complaint).replace("<class '", "").replace("'>", "")
    complaint = re.sub(r'Parser key "(\w+)": Expected an? (.+?)\. Got value: ', r"\1: expected \2, got ", complaint)
    complaint = complaint.replace('Parser key "config": ', "--config: ")
    # worded so by the versions that requirements.txt allows
    unknown = re.search(r"(?:Option|Key) '([\w.]+)' is not|[Uu]nrecognized arguments: -*([\w.-]+)", complaint)
    return _no_field(unknown[1] or unknown[2]) if unknown else complaint


def _nearest(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return f", the nearest is {nearest[0]!r}" if nearest else ""
