"""A recipe with some fields changed, by a YAML file or on the command line, which has the last word."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import jsonargparse
import yaml

from lab.runs.complaints import nearest, one_line, sentence, unknown_option
from lab.runs.recipes import Recipe


class Asked(NamedTuple):
    """What a command line asks for. The run leaves its files in `folder`; None stands for the usual place. `test` says
    whether the trained network is to be tested.
    """

    recipe: Recipe
    seed: int
    folder: Path | None
    test: bool = False


def parse(name: str, recipe: Recipe, arguments: Sequence[str]) -> Asked:
    """The recipe of this name with the fields that the arguments change: ["--config", "my.yaml", "--epochs", "3"].

    Raises ValueError, with one sentence, for an unknown field, naming the nearest, and for a value or a file that cannot
    be read. With --help among the arguments it prints the options and exits.
    """
    parser = _make_parser(name, recipe)
    try:
        for file in _config_files(arguments):
            content = read_fields(file)
            checked = parser.parse_object(content)  # their types
            parser.set_defaults({field: checked[field] for field in content})
        parsed = parser.parse_args(list(arguments))
    except jsonargparse.ArgumentError as error:
        unknown = unknown_option(one_line(str(error)))
        raise ValueError(_no_field(unknown) if unknown else sentence(str(error))) from None
    except RecursionError:
        raise ValueError("the values are nested too deep, expected numbers, words, and lists of them") from None
    if parsed.seed < 0:
        raise ValueError(f"seed is {parsed.seed}, expected 0 or more")
    changed = change(recipe, {name: getattr(parsed, name) for name in FIELDS})
    return Asked(changed, parsed.seed, Path(parsed.folder) if parsed.folder else None, parsed.test)


def change(recipe: Recipe, fields: Mapping[str, Any]) -> Recipe:
    """The recipe with these fields; another network gets its own default switches, since the others would not fit.

    Raises ValueError, with one sentence, for an unknown field, naming the nearest, and a value out of range.
    """
    _check_names(fields)
    changes = {field: value for field, value in fields.items() if value != getattr(recipe, field)}
    if "network" in changes and "switches" not in changes:
        changes["switches"] = {}
    return replace(recipe, **changes)


FIELDS = [one.name for one in fields(Recipe)]
MOST_BYTES = 100_000  # in a YAML file; a recipe has about 500
MOST_DEPTH = 20  # levels of nesting; a recipe has 4


def read_fields(path: str | Path) -> dict[str, object]:
    """The fields of a recipe in a YAML file. Raises ValueError, with one sentence, as `read_yaml` and `flat`."""
    return flat(read_yaml(path), path)


def flat(content: Mapping[str, object], path: str | Path) -> dict[str, object]:
    """The fields of a recipe, which may stand in groups with names of the author's own: `train_params: {epochs: 3}`.

    Raises ValueError, with one sentence, for an unknown field, and for one that the file has twice.
    """
    found: dict[str, object] = {}
    for name, value in content.items():
        group = value if isinstance(value, dict) and name not in FIELDS else {name: value}
        for field, setting in group.items():
            if field in found:
                raise ValueError(f"{path} has {field} twice, expected each field once")
            found[field] = setting
    _check_names(found)
    return found


def read_yaml(path: str | Path) -> dict[str, object]:
    """The fields in a YAML file. Raises ValueError, with one sentence, for a file that is missing or has no fields.

    A few bytes of YAML can stand for a billion values, or take minutes to read: see `_refuse_bombs`.
    """
    expected = "expected fields of a recipe, such as 'epochs: 3'"
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}, expected YAML with fields of a recipe")
    if Path(path).stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES:,} bytes, {expected}")
    try:
        text = Path(path).read_text(encoding="utf-8")
        _refuse_bombs(text)
        _refuse_twice(yaml.compose(text))
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not YAML that is read here, {expected}: {_where(error)}") from None
    if isinstance(content, dict):
        return content
    found = "is empty" if content is None else f"has a {type(content).__name__}"
    raise ValueError(f"{path} {found}, {expected}")


def _where(error: Exception) -> str:
    """What is wrong with the file and in which line, without the parser's drawing of it."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    return one_line(str(error))


def _refuse_bombs(text: str) -> None:
    """Raise ValueError for the first alias, and for deep nesting.

    Nine lines of aliases stand for a billion values, and the parser's time grows with the square of the depth.
    """
    depth = 0
    for token in yaml.scan(text):
        kind = type(token).__name__
        depth += kind.endswith("StartToken") - kind.endswith("EndToken")
        if isinstance(token, yaml.AliasToken):
            raise ValueError(f"it has the alias *{token.value}, expected every value written out")  # noqa: TRY004
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")


def _refuse_twice(node: yaml.Node | None) -> None:
    """Raise ValueError for a key that stands twice in one place: the last one would count, and nobody would know."""
    if isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ValueError(f"it has {key.value} twice, expected each field once")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            _refuse_twice(value)


def _config_files(arguments: Sequence[str]) -> list[str]:
    """The file of each --config."""
    behind = [value for option, value in itertools.pairwise(arguments) if option == "--config"]
    return behind + [argument.split("=", 1)[1] for argument in arguments if argument.startswith("--config=")]


def _check_names(content: Mapping[str, object]) -> None:
    for name in content:
        if name not in [*FIELDS, "seed", "folder"]:
            raise ValueError(_no_field(str(name)))


def _no_field(name: str) -> str:
    near = nearest(name.replace("-", "_"), FIELDS)
    return f"a recipe has no field {name!r}{near}; the fields are {', '.join(FIELDS)}"


def _make_parser(name: str, recipe: Recipe) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog=f"python -m lab train {name}",
        description="Train this recipe, or resume a run that was interrupted.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=str, help="YAML file with fields of the recipe, flat or in groups of any name")
    parser.add_argument("--seed", type=int, default=0, help="decides the initial weights and the order of the images")
    parser.add_argument("--folder", type=str, default="", help="where the run leaves its files (runs/RECIPE/SEED)")
    parser.add_argument("--test", action="store_true", help="then test it: metrics, and pictures of what it answers")
    for field, hint in get_type_hints(Recipe, include_extras=True).items():
        kind, text = get_args(hint)
        parser.add_argument(f"--{field}", type=kind, default=getattr(recipe, field), help=text)
    return parser


def seeds_from(words: Iterable[str]) -> list[int]:
    """Seeds as a command line has them: ["0-2", "7"] are 0, 1, 2 and 7. Raises ValueError for anything else."""
    seeds: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValueError(f"--seeds has {word!r}, expected seeds such as 0 1 2, or 0-4")
        if dash and int(last) - int(first) >= 1_000:
            raise ValueError(f"--seeds has {word!r}, expected at most 1,000 seeds")
        seeds += range(int(first), int(last or first) + 1)
    return seeds
