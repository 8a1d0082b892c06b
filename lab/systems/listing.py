"""What `python -m lab list` prints, from a file: without PyTorch it answers at once."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

CATALOG = Path(__file__).with_name("catalog.json")
WIDTH = 100  # columns of a terminal that the list fits


class Listed(TypedDict):
    """A recipe. The claim is its author's, in percent of the test images, over `claim_runs` runs; None without one."""

    parameters: int
    epochs: int
    claim: float | None
    claim_runs: int
    left_open: str


class ListedStudy(TypedDict):
    """A study; its recipes by the name that `python -m lab train` takes."""

    question: str
    seeds: int
    recipes: dict[str, Listed]


def read() -> dict[str, ListedStudy]:
    """Every study by name, as `lab.systems.catalog.write_listing` wrote it."""
    return json.loads(CATALOG.read_text())


def listing(studies: Mapping[str, ListedStudy] | None = None) -> str:
    """All studies and recipes as text: parameters, epochs, claims, and what the authors left open."""
    parts = [_study(name, study) for name, study in (studies or read()).items()]
    parts.append("Train one with `python -m lab train RECIPE`, or a whole study with `python -m lab study NAME`.")
    return "\n\n".join(parts)


def _study(name: str, study: ListedStudy) -> str:
    recipes = study["recipes"]
    title = f"{name}: {study['question']} ({study['seeds']} seed{'s' * (study['seeds'] > 1)} per recipe)"
    claim = "  claim" if any(recipe["claim"] is not None for recipe in recipes.values()) else ""
    lines = [*textwrap.wrap(title, WIDTH), f"  {'recipe':<26}{'parameters':>11}{'epochs':>8}{claim}"]
    for key, recipe in recipes.items():
        lines.append(f"  {key:<26}{recipe['parameters']:>11,}{recipe['epochs']:>8}{_claim(recipe)}")
        if recipe["left_open"]:
            text = f"left open: {recipe['left_open']}"
            lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _claim(recipe: Listed) -> str:
    if recipe["claim"] is None:
        return ""
    runs = recipe["claim_runs"]
    return f"  {recipe['claim']:.2f}, {runs} run{'s' * (runs > 1)}"
