"""Recipes in words, for the pages and the table of a class."""

from dataclasses import asdict
from typing import NamedTuple

from lab.runs.recipes import Recipe

OPTIMIZERS = {"nesterov": "SGD with Nesterov momentum", "sgd": "SGD", "adam": "Adam", "adadelta": "Adadelta"}
NOT_SHOWN = ("network", "switches")  # they say what is trained, not how


class Change(NamedTuple):
    """A field of a student's recipe that is not the class's, with both values in words."""

    field: str
    theirs: str
    usual: str


def changes(recipe: Recipe, usual: Recipe) -> list[Change]:
    """The fields in which a recipe differs from the class's, in the order of a recipe's fields."""
    theirs, of_class = asdict(recipe), asdict(usual)
    names = [name for name in theirs if name not in NOT_SHOWN and theirs[name] != of_class[name]]
    return [Change(name, _value(theirs[name]), _value(of_class[name])) for name in names]


def in_one_line(found: list[Change]) -> str:
    """Such as "epochs 9, augmentation none"; "" for no changes."""
    return "; ".join(f"{change.field} {change.theirs}" for change in found)


def in_words(recipe: Recipe) -> str:
    """How a recipe trains: epochs, rate and its schedule, optimizer, batches, augmentation."""
    optimizer = OPTIMIZERS[recipe.optimizer]
    parts = [f"{_count(recipe.epochs, 'epoch')} of {optimizer} in batches of {recipe.batch_size}", _rate(recipe)]
    if recipe.weight_decay:
        parts.append(f"weight decay {recipe.weight_decay:g}")
    if recipe.augmentation or recipe.flip:
        given = {**recipe.augmentation, **({"flip": recipe.flip} if recipe.flip else {})}
        plain = f", not in the last {_count(recipe.plain_epochs, 'epoch')}" if recipe.plain_epochs else ""
        parts.append(f"augmentation by {_value(given)}{plain}")
    else:
        parts.append("no augmentation")
    return "; ".join(parts)


def _rate(recipe: Recipe) -> str:
    rate = f"a learning rate of {recipe.learning_rate:g}"
    if recipe.schedule == "step":
        if recipe.gamma == 1 or recipe.step_size >= recipe.epochs:
            return f"{rate}, which stays"
        return f"{rate}, multiplied by {recipe.gamma:g} after every {_count(recipe.step_size, 'epoch')}"
    shapes = {"cosine": "which falls along a cosine", "one-cycle": "reached and left in one cycle"}
    return f"{rate}, {shapes[recipe.schedule]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
