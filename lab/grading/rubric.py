"""Points by a rubric in YAML; lab/grading/rubric.yaml is the one that is used unless another is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from lab.runs import config

DEFAULT = Path(__file__).parent / "rubric.yaml"

Measure = Literal["parameters", "consistent", "mean", "worst", "difference", "mistakes"]
MEASURES: tuple[str, ...] = get_args(Measure)


class Item(BaseModel):
    """What gives points: a measure that is high or low enough, or the share of consistent seeds."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    measure: Measure
    points: Annotated[FiniteFloat, Field(ge=0)]
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "Item":
        if self.at_least is not None and self.at_most is not None:
            raise ValueError("has at_least and at_most, expected one of them")
        if self.at_least is None and self.at_most is None and self.measure != "consistent":
            raise ValueError(f"has neither at_least nor at_most, which {self.measure} needs")
        return self

    def given(self, value: float) -> float:
        """The points for a value of its measure."""
        if self.at_least is not None:
            return self.points if value >= self.at_least else 0.0
        if self.at_most is not None:
            return self.points if value <= self.at_most else 0.0
        return self.points * value


class Rubric(BaseModel):
    """All that gives points."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[Item], Field(min_length=1, max_length=100)]

    @property
    def most(self) -> float:
        """The points of a submission that meets everything."""
        return sum(item.points for item in self.items)

    @property
    def budget(self) -> int | None:
        """The most parameters that give points; None if they do not matter."""
        bounds = [int(item.at_most) for item in self.items if item.measure == "parameters" and item.at_most is not None]
        return max(bounds, default=None)


class Points(NamedTuple):
    """One line of what a submission was given."""

    name: str
    given: float
    of: float


def read(path: Path = DEFAULT) -> Rubric:
    """The rubric in a YAML file. Raises ValueError, with one sentence that names the file and the item."""
    content = _read_yaml(path)
    try:
        return Rubric.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path} is not a rubric: {_complaint(error)}, see {DEFAULT.name}") from None


def _complaint(error: ValidationError) -> str:
    """One thing that is wrong, and where. A name that is misspelled is missing as well: the spelling comes first."""
    errors = error.errors(include_url=False)
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ", ".join(f"item {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
    where = where.removeprefix("items, ")
    match first["type"]:
        case "extra_forbidden":
            known = Item.model_fields if len(first["loc"]) > 1 else Rubric.model_fields
            return f"{where} is unknown, expected {', '.join(known)}"
        case "missing":
            return f"{where} is missing"
        case "value_error":
            return f"{where} {first['msg'].removeprefix('Value error, ')}"
        case _:
            return f"{where} is {str(first['input'])[:60]!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _read_yaml(path: Path) -> dict[str, object]:
    """The content of a YAML file. What is wrong with it is said of a rubric, where the reader of recipes says it of a recipe."""
    try:
        return config.read_yaml(path)
    except ValueError as error:
        said = str(error).replace("fields of a recipe, such as 'epochs: 3'", f"a rubric, such as {DEFAULT.name}")
        raise ValueError(said.replace("fields of a recipe", "the items of a rubric")) from None


def points(rubric: Rubric, measured: Mapping[str, float]) -> list[Points]:
    """What each item gives. A measure that is missing, as of a network that did not train to its end, gives nothing."""
    return [
        Points(item.name, item.given(measured[item.measure]) if item.measure in measured else 0.0, item.points)
        for item in rubric.items
    ]
